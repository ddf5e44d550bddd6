"""What a Runge-Kutta method is: a tableau of coefficients whose order conditions are checked where it is made.

A step from t to t + h with state y evaluates stages and combines them,

    k_i = f(t + c_i h, y + h Σ_j a_ij k_j),    y_1 = y + h Σ_i b_i k_i,    error = h Σ_i b_error_i k_i,

and inside the step the solution is y(θ) = y + h Σ_i b_i(θ) k_i for 0 <= θ <= 1. ``tableaus`` holds the methods.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

Row = tuple[float, ...]
Tree = tuple[Any, ...]
"""A rooted tree: its root's branches. The tree of one node is ()."""

_TOLERANCE = 1e-9


@cache
def rooted_trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with ``order`` nodes; each gives one condition for a method of that order (Butcher)."""
    if order == 1:
        return ((),)
    return tuple(branches for branches in _forests(order - 1, order - 1))


@cache
def _forests(nodes: int, largest: int) -> tuple[Tree, ...]:
    """Multisets of trees with ``nodes`` nodes together, each of at most ``largest``."""
    if nodes == 0:
        return ((),)
    found: list[Tree] = []
    for size in range(min(nodes, largest), 0, -1):
        for count in range(1, nodes // size + 1):
            for same in combinations_with_replacement(rooted_trees(size), count):
                found += [(*same, *rest) for rest in _forests(nodes - size * count, size - 1)]
    return tuple(found)


def _size(tree: Tree) -> int:
    return 1 + sum(_size(branch) for branch in tree)


def _density(tree: Tree) -> int:
    return _size(tree) * math.prod(_density(branch) for branch in tree)


def order_defects(a: np.ndarray, b: np.ndarray, order: int) -> dict[int, float]:
    """Largest violation of the order conditions Σ_i b_i Φ_i(τ) = 1/γ(τ) over the trees τ of each order up to ``order``.

    Φ_i(τ) is the product over τ's branches of Σ_j a_ij Φ_j(branch), γ(τ) the density.

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, theorem II.2.13.
    """
    known: dict[Tree, np.ndarray] = {}

    def weight(tree: Tree) -> np.ndarray:
        if tree not in known:
            known[tree] = math.prod((a @ weight(branch) for branch in tree), start=np.ones(len(b)))
        return known[tree]

    return {
        p: max(abs(float(b @ weight(tree)) - 1.0 / _density(tree)) for tree in rooted_trees(p))
        for p in range(1, order + 1)
    }


@dataclass(frozen=True)
class ButcherTableau:
    """Coefficients of an explicit or diagonally implicit Runge-Kutta method, made ready for the engine.

    A method whose last stage is not the field at the end of the step gets that stage added: the engine hands it to the next step
    (first same as last), and it lets every method interpolate.

    Args:
        name: the method's name.
        order: order of convergence.
        a: row i holds the a_ij; strictly lower triangular, or lower triangular with one diagonal value for implicit stages.
        b: weights of the step.
        b_error: b minus the weights of the embedded method; empty for a method without error estimate.
        embedded_order: order of the embedded method.
        dense: b_i(θ) as polynomials, row i with the coefficients of θ, θ², ...; the cubic Hermite polynomial if left out.
        nodes: c_i, where row sums of a give them with less accuracy.
    Raises:
        ValueError: shapes that disagree, stages that are not lower triangular, order conditions that fail for the step or
            its embedded method, or a dense output that does not end where the step ends.
    """

    name: str
    order: int
    a: tuple[Row, ...]
    b: Row
    b_error: Row = ()
    embedded_order: int = 0
    dense: tuple[Row, ...] = ()
    nodes: Row = ()
    stage_matrix: np.ndarray = field(init=False, repr=False, compare=False)
    c: Row = field(init=False)
    interpolation: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        stages = len(self.b)
        if len(self.a) != stages or any(len(row) > i + 1 for i, row in enumerate(self.a)):
            raise ValueError(f"{self.name}: a must have {stages} rows, row i with at most i + 1 numbers")
        if self.b_error and len(self.b_error) != stages:
            raise ValueError(f"{self.name}: b_error must have {stages} numbers, got {len(self.b_error)}")
        if self.nodes and len(self.nodes) != stages:
            raise ValueError(f"{self.name}: nodes must have {stages} numbers, got {len(self.nodes)}")
        a = np.zeros((stages, stages))
        for i, row in enumerate(self.a):
            a[i, : len(row)] = row
        diagonal = a.diagonal()
        if diagonal[0] != 0 or len(set(diagonal[1:][diagonal[1:] != 0])) > 1:
            raise ValueError(f"{self.name}: the first stage must be explicit and implicit ones have one diagonal value")
        if self.nodes and np.abs(a.sum(1) - self.nodes).max() > 1e-12:
            raise ValueError(f"{self.name}: nodes must be the row sums of a")
        b = np.asarray(self.b)
        self._check("step", a, b, self.order)
        if self.b_error:
            self._check("embedded method", a, b - np.asarray(self.b_error), self.embedded_order)
        if not (np.allclose(a[-1], b, rtol=0, atol=1e-15) and abs(a[-1].sum() - 1.0) < 1e-12):
            a = np.block([[a, np.zeros((stages, 1))], [b[None], np.zeros((1, 1))]])
            b = np.append(b, 0.0)
            object.__setattr__(self, "b", tuple(b))
            object.__setattr__(self, "b_error", (*self.b_error, 0.0) if self.b_error else ())
            object.__setattr__(self, "nodes", (*self.nodes, 1.0) if self.nodes else ())
        object.__setattr__(self, "stage_matrix", a)
        object.__setattr__(self, "c", self.nodes or tuple(np.round(a.sum(1), 15)))
        polynomials = np.asarray(self.dense) if self.dense else hermite_polynomials(b)
        if polynomials.shape[0] != len(b) or np.abs(polynomials.sum(1) - b).max() > 1e-9:
            raise ValueError(f"{self.name}: dense must have one row for each of {len(b)} stages, and give b at θ = 1")
        object.__setattr__(self, "interpolation", polynomials)

    def _check(self, what: str, a: np.ndarray, b: np.ndarray, order: int) -> None:
        for p, defect in order_defects(a, b, order).items():
            if not defect < _TOLERANCE:
                raise ValueError(f"{self.name}: the {what} violates a condition of order {p} by {defect:.2g}")

    @property
    def stages(self) -> int:
        """Number of stages, the added one included."""
        return len(self.b)

    @property
    def implicit(self) -> bool:
        """Whether stages must be solved for."""
        return bool(self.stage_matrix.diagonal().any())

    @property
    def adaptive(self) -> bool:
        """Whether there is an error estimate."""
        return bool(self.b_error)

    @property
    def error_order(self) -> int:
        """Power of h with which the error estimate of one step goes to zero."""
        return min(self.order, self.embedded_order) + 1

    @property
    def lands(self) -> bool:
        """Whether the interpolant is more than one order behind the method, so that steps had better end where one looks."""
        return self.order > self.interpolation.shape[1] + 1

    @property
    def evaluations(self) -> int:
        """Evaluations of the field for an explicit step; the first stage comes from the step before."""
        return self.stages - 1


def hermite_polynomials(b: np.ndarray) -> np.ndarray:
    """The cubic through y, y_1 with slopes k_first and k_last there, as polynomials b_i(θ)."""
    polynomials = np.outer(b, [0.0, 3.0, -2.0])
    polynomials[0] += [1.0, -2.0, 1.0]
    polynomials[-1] += [0.0, -1.0, 1.0]
    return polynomials

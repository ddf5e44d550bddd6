"""Exponential Runge-Kutta methods for du/dt = L u + N(u, t): what multiplies what, as functions of z = h L.

A step from v is rows, the last of which is the step's result; the first slope is N_1 = N(v, t):

    u_i = e^{c_i z} v + h Σ_{j<i} a_ij(z) N_j,    N_i = N(u_i, t + c_i h),

where the a_ij are sums of φ_k(s z), φ_0 = exp, φ_k(y) = (φ_{k-1}(y) - 1/(k-1)!)/y. Near y = 0 the formulas lose all digits, so
a function is evaluated as its mean over a circle around z (Kassam and Trefethen, SIAM J. Sci. Comput. 26, 2005). z may be a
number for each mode, or a small matrix that couples channels.
"""

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdebook.diffeq.butcher import ButcherTableau
from pdebook.diffeq.tableaus import RK4

__all__ = [
    "ETDRK1",
    "ETDRK2",
    "ETDRK3",
    "ETDRK4",
    "IFRK4",
    "KROGSTAD4",
    "ExponentialMethod",
    "Row",
    "lawson",
    "phi_sum",
]

Term = tuple[float, int, float]
"""(w, k, s): w φ_k(s z)."""
Entry = tuple[Term, ...]
Row = tuple[Tensor, tuple[Tensor | None, ...]]
"""What multiplies the state, and what multiplies the slopes; None for zero."""

_POINTS = 32


@dataclass(frozen=True)
class ExponentialMethod:
    """A method as data.

    Args:
        name: its name.
        order: order of convergence where L is bounded.
        nodes: c_i of the rows after the first stage.
        entries: row i holds the a_ij, one for each earlier stage; an empty one is zero.
    Raises:
        ValueError: rows whose sums disagree with the nodes at z = 0, or whose shape is not triangular.
    """

    name: str
    order: int
    nodes: tuple[float, ...]
    entries: tuple[tuple[Entry, ...], ...]

    def __post_init__(self) -> None:
        if len(self.nodes) != len(self.entries) or any(len(row) > i + 1 for i, row in enumerate(self.entries)):
            raise ValueError(
                f"{self.name}: entries must have a row for each of {len(self.nodes)} nodes, row i of at most i"
            )
        for c, row in zip(self.nodes, self.entries, strict=True):
            total = sum(w / math.factorial(k) for entry in row for w, k, _ in entry)
            if abs(total - c) > 1e-12:
                raise ValueError(f"{self.name}: the row of node {c} sums to {total}")

    def rows(self, z: Tensor, h: float, matrix: bool = False) -> list[Row]:
        """The rows for z, (..., *modes) or with ``matrix`` (..., channel, channel) in its last axes."""
        decays = {c: exponential(c * z, matrix) for c in dict.fromkeys(self.nodes)}
        wanted = dict.fromkeys(entry for row in self.entries for entry in row if entry)
        weights = dict(zip(wanted, phi_sums(z, list(wanted), matrix), strict=True))
        return [
            (decays[c], tuple(h * weights[entry] if entry else None for entry in row))
            for c, row in zip(self.nodes, self.entries, strict=True)
        ]


def exponential(z: Tensor, matrix: bool = False) -> Tensor:
    """e^z."""
    return torch.linalg.matrix_exp(z) if matrix else z.exp()


def phi_sum(z: Tensor, entry: Entry, matrix: bool = False) -> Tensor:
    """Σ w φ_k(s z) over the terms (w, k, s) of an entry, to rounding for any z."""
    return phi_sums(z, [entry], matrix)[0]


def phi_sums(z: Tensor, entries: list[Entry], matrix: bool = False) -> list[Tensor]:
    """``phi_sum`` of several entries: the exponentials on the circle are shared."""
    if all(k == 0 for entry in entries for _, k, _ in entry):
        return [sum((w * exponential(s * z, matrix) for w, _, s in entry), torch.zeros_like(z)) for entry in entries]
    real = not z.is_complex()
    # For real z the lower half of the circle gives the conjugate values.
    count = _POINTS // 2 if real else _POINTS
    turn = (math.pi if real else 2 * math.pi) / count
    one = torch.eye(z.shape[-1], dtype=torch.complex128, device=z.device) if matrix else 1.0
    sums = [torch.zeros_like(z) for _ in entries]
    for j in range(count):
        circle = z + cmath.exp(1j * turn * (j + 0.5)) * one
        powers = {s: _Powers(s * circle, matrix) for s in dict.fromkeys(s for entry in entries for _, _, s in entry)}
        for i, entry in enumerate(entries):
            value = _on_circle(powers, entry)
            sums[i] = sums[i] + (value.real if real else value)
    return [total / count for total in sums]


class _Powers:
    """y, e^y and 1/y on a circle, by number or by matrix."""

    def __init__(self, y: Tensor, matrix: bool) -> None:
        self.times: Callable[[Tensor, Tensor], Tensor] = torch.matmul if matrix else torch.mul
        self.exp = exponential(y, matrix)
        self.inverse = torch.linalg.inv(y) if matrix else 1 / y
        self.y = y
        self.one = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device) if matrix else torch.ones_like(y)

    def polynomial(self, coefficients: list[float]) -> Tensor:
        """Σ_i p_i y^i."""
        value = coefficients[-1] * self.one
        for p in reversed(coefficients[:-1]):
            value = self.times(self.y, value) + p * self.one
        return value


def _on_circle(powers: dict[float, _Powers], entry: Entry) -> Tensor:
    """Terms of one s together: (e^y P(y) - Q(y)) / y^m, where Q's coefficients cancel before y is put in."""
    total: Tensor | None = None
    for s in dict.fromkeys(s for _, _, s in entry):
        terms = [(w, k) for w, k, other in entry if other == s]
        m = max(k for _, k in terms)
        p, q = [0.0] * (m + 1), [0.0] * (m + 1)
        for w, k in terms:
            p[m - k] += w
            for j in range(k):
                q[m - k + j] += w / math.factorial(j)
        at = powers[s]
        value = at.times(at.exp, at.polynomial(p)) - at.polynomial(q)
        for _ in range(m):
            value = at.times(at.inverse, value)
        total = value if total is None else total + value
    assert total is not None
    return total


def lawson(tableau: ButcherTableau) -> ExponentialMethod:
    """The integrating-factor form of an explicit Runge-Kutta method: a_ij(z) = a_ij e^{(c_i - c_j) z}.

    Raises:
        ValueError: an implicit method, or one whose nodes go backwards: its exponentials would grow.
    """
    if tableau.implicit:
        raise ValueError(f"tableau must be explicit, {tableau.name} is not")
    a, c = tableau.stage_matrix, tableau.c
    entries = []
    for i in range(1, tableau.stages):
        if any(a[i, j] and c[i] < c[j] for j in range(i)):
            raise ValueError(f"tableau must have nodes that do not decrease, {tableau.name} has {c}")
        entries.append(tuple(((float(a[i, j]), 0, float(c[i] - c[j])),) if a[i, j] else () for j in range(i)))
    return ExponentialMethod(f"lawson-{tableau.name}", tableau.order, tuple(map(float, c[1:])), tuple(entries))


_HALF: Entry = ((0.5, 1, 0.5),)
_FIRST: Entry = ((1.0, 1, 1.0), (-3.0, 2, 1.0), (4.0, 3, 1.0))
_MIDDLE: Entry = ((2.0, 2, 1.0), (-4.0, 3, 1.0))
_LAST: Entry = ((-1.0, 2, 1.0), (4.0, 3, 1.0))

# Cox and Matthews, J. Comput. Phys. 176 (2002), equations 4, 22, 23-25 and 26-29; there c_3 = e^{z/2} u_2 + ..., here written out.
ETDRK1 = ExponentialMethod("etdrk1", 1, (1.0,), ((((1.0, 1, 1.0),),),))
ETDRK2 = ExponentialMethod(
    "etdrk2", 2, (1.0, 1.0), ((((1.0, 1, 1.0),),), (((1.0, 1, 1.0), (-1.0, 2, 1.0)), ((1.0, 2, 1.0),)))
)
ETDRK3 = ExponentialMethod(
    "etdrk3",
    3,
    (0.5, 1.0, 1.0),
    ((_HALF,), (((-1.0, 1, 1.0),), ((2.0, 1, 1.0),)), (_FIRST, ((4.0, 2, 1.0), (-8.0, 3, 1.0)), _LAST)),
)
ETDRK4 = ExponentialMethod(
    "etdrk4",
    4,
    (0.5, 0.5, 1.0, 1.0),
    (
        (_HALF,),
        ((), _HALF),
        (((1.0, 1, 1.0), (-1.0, 1, 0.5)), (), ((1.0, 1, 0.5),)),
        (_FIRST, _MIDDLE, _MIDDLE, _LAST),
    ),
)
# Krogstad, J. Comput. Phys. 203 (2005), equation 51: smaller errors than ETDRK4 where N is stiff.
KROGSTAD4 = ExponentialMethod(
    "krogstad4",
    4,
    (0.5, 0.5, 1.0, 1.0),
    (
        (_HALF,),
        (((0.5, 1, 0.5), (-1.0, 2, 0.5)), ((1.0, 2, 0.5),)),
        (((1.0, 1, 1.0), (-2.0, 2, 1.0)), (), ((2.0, 2, 1.0),)),
        (_FIRST, _MIDDLE, _MIDDLE, _LAST),
    ),
)
IFRK4 = lawson(RK4)

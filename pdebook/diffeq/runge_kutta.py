"""The one engine for explicit Runge-Kutta methods: every method of ``tableaus`` runs here.

A solver has a ``start``, a ``step`` and an ``interpolate``; what it carries from step to step is a tuple of tensors with a leading
batch axis, so that a rejected step is undone by keeping the old ones.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pdebook.diffeq.butcher import ButcherTableau
from pdebook.diffeq.terms import SDE, Bound

Carry = tuple[Tensor, ...]

_BLOCK = 64


@dataclass(frozen=True)
class Step:
    """What a step gives.

    Attributes:
        y: state at the end, (batch, size).
        error: error estimate, or None.
        carry: what the next step needs.
        stages: what interpolation needs: h k_i, shape (stages, batch, size).
        ok: which samples could take the step at all; None if all could.
    """

    y: Tensor
    error: Tensor | None
    carry: Carry
    stages: Tensor
    ok: Tensor | None = None


@runtime_checkable
class Solver(Protocol):
    """What ``solve`` asks of a method."""

    @property
    def name(self) -> str:
        """The method's name."""

    @property
    def order(self) -> float | int:
        """Order of convergence; for stochastic equations the strong order."""

    @property
    def error_order(self) -> float | int:
        """Power of h in the error estimate."""

    @property
    def adaptive(self) -> bool:
        """Whether there is an error estimate."""

    def check(self, term: Any) -> None:
        """Raise ValueError for an equation that the method is not for."""

    def start(self, bound: Bound, t: Tensor, y: Tensor) -> Carry:
        """What the first step needs."""

    def slope(self, bound: Bound, t: Tensor, y: Tensor, carry: Carry) -> Tensor:
        """The field (drift) at the start of a step."""

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step from times t0 to t1, both of shape (batch,)."""

    def interpolate(self, step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor) -> Tensor:
        """States (n, size) of samples ``rows`` at ``times``, both of shape (n,), inside a step."""


@lru_cache(maxsize=256)
def _coefficients(
    tableau: ButcherTableau, dtype: torch.dtype, device: torch.device
) -> tuple[list[Tensor], Tensor | None, Tensor]:
    """Rows of a and b_error, each behind the weight of the state itself, and the interpolant's polynomials."""

    def tensor(values: Any, kind: torch.dtype) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float64, device=device).to(kind)

    rows = [tensor([1.0, *tableau.stage_matrix[i, :i]], dtype) for i in range(tableau.stages)]
    error = tensor([0.0, *tableau.b_error], dtype) if tableau.adaptive else None
    return rows, error, tensor(tableau.interpolation, dtype)


@lru_cache(maxsize=64)
def _inner_nodes(tableau: ButcherTableau, device: torch.device) -> Tensor:
    """The nodes strictly inside a step, (nodes, 1)."""
    inner = [c for c in tableau.c if c not in (0.0, 1.0)]
    return torch.tensor(inner, dtype=torch.float64, device=device)[:, None]


def in_place(y: Tensor) -> bool:
    """Whether stages may be written into one buffer: nothing is recorded, and y is an ordinary tensor."""
    return not torch.is_grad_enabled() and not torch._C._functorch.is_functorch_wrapped_tensor(y)


def stage_times(tableau: ButcherTableau, t0: Tensor, t1: Tensor, span: Tensor) -> list[Tensor]:
    """Times t_0 + c_i span, each of shape (batch,), with span = t_1 - t_0; a node at 1 is exactly t_1."""
    inner = iter(torch.addcmul(t0, _inner_nodes(tableau, t0.device), span).unbind())
    return [t0 if c == 0.0 else t1 if c == 1.0 else next(inner) for c in tableau.c]


def step_size(t0: Tensor, t1: Tensor, y: Tensor) -> Tensor:
    """The signed step, (batch, 1), in y's dtype; the difference is taken in float64."""
    return (t1 - t0).to(y.dtype).unsqueeze(1)


@dataclass(frozen=True)
class TableauMethod:
    """What all methods with a tableau share.

    Args:
        tableau: coefficients; see ``tableaus.TABLEAUS``.
    """

    tableau: ButcherTableau

    @property
    def name(self) -> str:
        """The method's name."""
        return self.tableau.name

    @property
    def order(self) -> float | int:
        """Order of convergence."""
        return self.tableau.order

    @property
    def error_order(self) -> float | int:
        """Power of h in the error estimate."""
        return self.tableau.error_order

    @property
    def adaptive(self) -> bool:
        """Whether there is an error estimate."""
        return self.tableau.adaptive

    @property
    def lands(self) -> bool:
        """Whether steps should end at the times that are saved."""
        return self.tableau.lands

    def check(self, term: Any) -> None:
        """Raise ValueError for a stochastic equation."""
        if isinstance(term, SDE):
            raise ValueError(f"solver {self.name} is for ordinary equations; see stochastic for others")

    def start(self, bound: Bound, t: Tensor, y: Tensor) -> Carry:
        """The first stage."""
        return (bound.field(t, y),)

    def slope(self, bound: Bound, t: Tensor, y: Tensor, carry: Carry) -> Tensor:
        """The field at the start of a step."""
        return carry[0]


@dataclass(frozen=True)
class RungeKutta(TableauMethod):
    """An explicit Runge-Kutta method.

    Args:
        tableau: its coefficients; see ``tableaus.TABLEAUS``.
    Raises:
        ValueError: a tableau with implicit stages.
    """

    def __post_init__(self) -> None:
        if self.tableau.implicit:
            raise ValueError(f"tableau must be explicit, {self.tableau.name} is not; use implicit.DiagonallyImplicit")

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step; the last stage is the field at its end, and the next step's first."""
        rows, error, _ = _coefficients(self.tableau, y.dtype, y.device)
        span = t1 - t0
        times = stage_times(self.tableau, t0, t1, span)
        stages = self._buffer(y) if in_place(y) and in_place(carry[0]) else _Stages()
        stages.begin(span, y)
        new, last = y, carry[0]
        stages.put(last)
        for weights, t in zip(rows[1:], times[1:], strict=True):
            new = stages.sum(weights)
            last = bound.field(t, new)
            stages.put(last)
        return Step(new, None if error is None else stages.sum(error), (last,), stages.all())

    def _buffer(self, y: Tensor) -> "_Buffer":
        return _Buffer(self.tableau.stages, y)

    def reusing(self, y: Tensor) -> "RungeKutta":
        """The method with one buffer for the stages of all its steps from states like y: a step's are lost with the next."""
        # A subclass may take its steps in another way.
        reuse = type(self) is RungeKutta and in_place(y)
        return _Reusing(self.tableau, _Buffer(self.tableau.stages, y)) if reuse else self

    def interpolate(self, step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor) -> Tensor:
        """y + h Σ_i b_i(θ) k_i; at the end of the step its very result."""
        polynomials = _coefficients(self.tableau, y0.dtype, y0.device)[2]
        return interpolate(polynomials, step, y0, t0, t1, rows, times)


def interpolate(
    polynomials: Tensor, step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor
) -> Tensor:
    """Values y + h Σ_i b_i(θ) k_i for polynomials b_i (stages, degree) in θ, θ², ..."""
    start, length = t0[rows], t1[rows] - t0[rows]
    # A trajectory at rest has no length, and is where it was.
    theta = torch.where(length == 0, torch.ones_like(length), (times - start) / torch.where(length == 0, 1.0, length))
    # By Horner's rule and stage by stage: a matrix product's rounding would depend on how many are asked for together.
    theta = theta.to(y0.dtype)
    weights = torch.zeros_like(theta).expand(len(polynomials), -1)
    for column in reversed(polynomials.unbind(1)):
        weights = (weights + column[:, None]) * theta
    inside = y0[rows]
    for part in (weights[..., None] * step.stages[:, rows]).unbind():
        inside = inside + part
    return torch.where((theta == 1.0)[:, None], step.y[rows], inside)


class _Stages:
    """State y and products h k_0, h k_1, ... of one step, and their sums, as autograd can record them."""

    def begin(self, span: Tensor, y: Tensor) -> None:
        """Start a step from y; h are its spans, (batch,)."""
        self.h, self.list = span.to(y.dtype).unsqueeze(1), [y]

    def put(self, k: Tensor) -> None:
        """Append h k."""
        self.list.append(k * self.h)

    def sum(self, weights: Tensor) -> Tensor:
        """Sum of the state and the products so far, each with its weight."""
        return torch.tensordot(weights, torch.stack(self.list), 1)

    def all(self) -> Tensor:
        """The products, (stages, batch, size)."""
        return torch.stack(self.list[1:])


class _Buffer(_Stages):
    """The same in one buffer, written in place."""

    def __init__(self, stages: int, y: Tensor) -> None:
        # Products of a matrix and a vector round the last few numbers in another way: with whole blocks, no trajectory's result
        # depends on how many others there are.
        size = y.numel()
        buffer = torch.zeros(stages + 1, -(-size // _BLOCK) * _BLOCK, dtype=y.dtype, device=y.device)
        self.rows = buffer[:, :size].unflatten(1, y.shape)
        self.list = list(self.rows.unbind())
        self.heads = [buffer.t()[:, :n] for n in range(stages + 2)]
        self.size = None if size == buffer.shape[1] else size
        # As large as the state: a product with it is faster than one that repeats each number.
        self.h = torch.empty_like(self.list[0])

    def begin(self, span: Tensor, y: Tensor) -> None:
        """As there."""
        self.h.copy_(span.unsqueeze(1))
        self.list[0].copy_(y)
        self.count = 1

    def put(self, k: Tensor) -> None:
        """Write h k."""
        torch.mul(k, self.h, out=self.list[self.count])
        self.count += 1

    def sum(self, weights: Tensor) -> Tensor:
        """As there, by one product of a matrix and a vector."""
        total = torch.mv(self.heads[self.count], weights)
        return (total if self.size is None else total[: self.size]).view_as(self.h)

    def all(self) -> Tensor:
        """The products; the buffer itself."""
        return self.rows[1:]


@dataclass(frozen=True)
class _Reusing(RungeKutta):
    """A method with one buffer for all steps."""

    buffer: _Buffer

    def _buffer(self, y: Tensor) -> _Buffer:
        return self.buffer

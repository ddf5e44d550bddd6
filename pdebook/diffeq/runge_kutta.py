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
) -> tuple[list[Tensor], Tensor | None, Tensor, Tensor]:
    """Rows of a, b_error, nodes c in float64, and the interpolant's polynomials."""

    def tensor(values: Any, kind: torch.dtype) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float64, device=device).to(kind)

    rows = [tensor(tableau.stage_matrix[i, :i], dtype) for i in range(tableau.stages)]
    error = tensor(tableau.b_error, dtype) if tableau.adaptive else None
    return rows, error, tensor(tableau.c, torch.float64)[:, None], tensor(tableau.interpolation, dtype)


def in_place(y: Tensor) -> bool:
    """Whether stages may be written into one buffer: nothing is recorded, and y is an ordinary tensor."""
    return not torch.is_grad_enabled() and not torch._C._functorch.is_functorch_wrapped_tensor(y)


def stage_times(nodes: Tensor, t0: Tensor, t1: Tensor) -> tuple[Tensor, ...]:
    """Times t_0 + c_i (t_1 - t_0), each of shape (batch,); a node at 1 is exactly t_1."""
    return torch.where(nodes == 1.0, t1, torch.addcmul(t0, nodes, t1 - t0)).unbind()


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
        rows, error, nodes, _ = _coefficients(self.tableau, y.dtype, y.device)
        times, h = stage_times(nodes, t0, t1), step_size(t0, t1, y)
        stages = _Stages(self.tableau.stages, y, h * carry[0])
        new, last = y, carry[0]
        for i in range(1, self.tableau.stages):
            new = stages.combine(rows[i], y)
            last = bound.field(times[i], new)
            stages.append(last, h)
        return Step(new, None if error is None else stages.combine(error), (last,), stages.all())

    def interpolate(self, step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor) -> Tensor:
        """y + h Σ_i b_i(θ) k_i; at the end of the step its very result."""
        polynomials = _coefficients(self.tableau, y0.dtype, y0.device)[3]
        return interpolate(polynomials, step, y0, t0, t1, rows, times)


def interpolate(
    polynomials: Tensor, step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor
) -> Tensor:
    """Values y + h Σ_i b_i(θ) k_i for polynomials b_i (stages, degree) in θ, θ², ..."""
    start, length = t0[rows], t1[rows] - t0[rows]
    # A trajectory at rest has no length, and is where it was.
    theta = torch.where(length == 0, torch.ones_like(length), (times - start) / torch.where(length == 0, 1.0, length))
    powers = theta[:, None] ** torch.arange(1, polynomials.shape[1] + 1, device=theta.device)
    weights = powers.to(y0.dtype) @ polynomials.T
    inside = y0[rows] + torch.einsum("ns,snd->nd", weights, step.stages[:, rows])
    return torch.where((theta == 1.0)[:, None], step.y[rows], inside)


class _Stages:
    """Products h k_0, h k_1, ... of one step and their sums: in one buffer, or as a list where autograd records them."""

    def __init__(self, count: int, y: Tensor, first: Tensor) -> None:
        self.shape = y.shape
        self.list: list[Tensor] = [first]
        self.buffer: Tensor | None = None
        if in_place(y) and in_place(first):
            self.buffer = torch.empty(count, y.numel(), dtype=y.dtype, device=y.device)
            self.columns = self.buffer.t()
            self.list = list(self.buffer.view(count, *y.shape).unbind())
            self.list[0].copy_(first)
            self.count = 1

    def append(self, k: Tensor, h: Tensor) -> None:
        if self.buffer is None:
            self.list.append(k * h)
        else:
            torch.mul(k, h, out=self.list[self.count])
            self.count += 1

    def combine(self, weights: Tensor, y: Tensor | None = None) -> Tensor:
        """Σ_i weights_i h k_i over the first ``len(weights)`` stages, plus y."""
        n = weights.shape[0]
        if self.buffer is not None:
            columns = self.columns[:, :n]
            total = torch.mv(columns, weights) if y is None else torch.addmv(y.reshape(-1), columns, weights)
            return total.view(self.shape)
        total = torch.tensordot(weights, torch.stack(self.list[:n]), 1)
        return total if y is None else y + total

    def all(self) -> Tensor:
        return torch.stack(self.list) if self.buffer is None else self.buffer.view(-1, *self.shape)

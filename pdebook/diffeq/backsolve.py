"""Gradients of a solve by an equation of their own, solved backwards in time."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.adaptive import STATUS, search
from pdebook.diffeq.adjoints import Differentiated, check_hidden, leaves, parameters, pull, substituted
from pdebook.diffeq.controllers import PID
from pdebook.diffeq.plan import Plan, Watch, gather, walk
from pdebook.diffeq.runge_kutta import Solver
from pdebook.diffeq.terms import SDE, Bound


@dataclass(frozen=True)
class Backsolve(Differentiated):
    """The continuous adjoint: gradients solve a differential equation backwards in time, at constant memory.

        da/dt = -(∂f/∂y)ᵀ a,   dG/dt = -Σ_batch (∂f/∂θ)ᵀ a,   from a(t_1) = ∂L/∂y(t_1)

    with ∂L/∂y(t_i) added to a at each saved time, while y is solved backwards along with a. The gradient is that of the
    continuous problem: it differs from the discrete solution's by the order of the tolerance, and fails where the equation
    backwards is unstable. The batch takes one step size together.

    Args:
        solver: method for the backward solve; that of the forward solve if left out.
        controller: its step sizes; default tolerances if left out.
        seminorm: whether G is left out of the error norm, which saves steps: nothing depends on it.
        max_steps: most passes of the loop between two saved times.
    Source: Chen et al. 2018; Kidger, Chen and Lyons 2021 for the seminorm.
    """

    solver: Solver | None = None
    controller: PID | None = None
    seminorm: bool = True
    max_steps: int = 4096

    def run(
        self, bound: Bound, solver: Solver, plan: Plan, y: Tensor, watch: Watch | None
    ) -> tuple[Tensor, Tensor | None]:
        """Walk the plan without recording it.

        Raises:
            ValueError: a stochastic equation, a complex state, or a method without error estimate for the backward solve.
        """
        if watch is not None:
            raise ValueError("record and dense need adjoint Direct; Backsolve does not keep the steps")
        if isinstance(bound.term, SDE):
            raise ValueError(
                "adjoint Backsolve is for ordinary equations; for stochastic ones use Reversible or Direct"
            )
        if y.is_complex():
            raise ValueError("adjoint Backsolve needs a real state")
        backward = self.solver or solver
        if not backward.adaptive:
            raise ValueError(f"adjoint Backsolve needs a solver with an error estimate, {backward.name} has none")
        known = parameters(bound)
        if torch.is_grad_enabled():
            check_hidden(bound, y, plan.times[0], known)
        final, ys = _Backsolve.apply(bound, solver, plan, self, y, *known)
        return final, ys if plan.saved else None


class _Backsolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, bound: Bound, solver: Solver, plan: Plan, adjoint: Backsolve, y: Tensor, *known: Tensor
    ) -> tuple[Tensor, Tensor]:
        final, _, saved = walk(bound, solver, plan, y)
        ys = gather(saved, len(y), plan.saved, y)
        times = torch.full((len(y), plan.saved), torch.nan, dtype=torch.float64, device=y.device)
        for rows, columns, targets in zip(plan.rows, plan.columns, plan.targets, strict=True):
            times[rows, columns] = targets
        ctx.bound, ctx.adjoint, ctx.solver = bound, adjoint, adjoint.solver or solver
        ctx.ends = plan.times[0], plan.times[-1], times
        ctx.save_for_backward(final, *known)
        return final, ys

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_final: Tensor, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        y, *known = ctx.saved_tensors
        targets = leaves(known, ctx.bound)
        bound = substituted(ctx.bound, known, targets)
        start, end, times = ctx.ends
        a = grad_final
        totals = torch.cat([torch.zeros(p.numel(), dtype=y.dtype, device=y.device) for p in known] or [y.new_empty(0)])
        here = end
        for column in range(times.shape[1] - 1, -1, -1):
            there = times[:, column]
            y, a, totals = _back(ctx, bound, targets, y, a, totals, here, there)
            a, here = a + grad_ys[:, column], there
        y, a, totals = _back(ctx, bound, targets, y, a, totals, here, start)
        pieces = totals.split([p.numel() for p in known])
        grads = [piece.reshape(p.shape).to(p.dtype) for piece, p in zip(pieces, known, strict=True)]
        return None, None, None, None, a, *grads


class AdjointBound(Bound):
    """The adjoint equation for a whole batch as one trajectory, in a time that runs from 0 to 1 along each trajectory's span."""

    def __init__(self, bound: Bound, targets: list[Tensor], shape: torch.Size, here: Tensor, there: Tensor) -> None:
        super().__init__(bound.term, bound.layout, bound.args)
        self.bound, self.targets, self.shape, self.here, self.span = bound, targets, shape, here, there - here

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        """The right-hand side at time t in [0, 1] for (y, a, G) as one row."""
        self.evaluations += 1
        z = y
        size = self.shape.numel()
        y, a = z[0, :size].view(self.shape), z[0, size : 2 * size].view(self.shape)
        speed = self.span.to(z.dtype)[:, None]
        with torch.enable_grad():
            inside = y.detach().requires_grad_()
            f = self.bound.field(self.here + t * self.span, inside)
            inputs = [inside, *self.targets]
            grads = pull([f], [-a * speed], inputs)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(inputs, grads, strict=True)]
        return torch.cat([(f.detach() * speed).flatten(), *(part.flatten().to(z.dtype) for part in parts)])[None]


def _back(
    ctx: Any, bound: Bound, targets: list[Tensor], y: Tensor, a: Tensor, totals: Tensor, here: Tensor, there: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """State, adjoint and parameters' gradient at the times ``there``, from those at the times ``here``."""
    if bool((here == there).all()):
        return y, a, totals
    adjoint, size = ctx.adjoint, y.numel()
    z = torch.cat([y.flatten(), a.flatten(), totals])[None]
    mask = None
    if adjoint.seminorm and len(totals):
        mask = torch.arange(z.shape[1], device=z.device) < 2 * size
    zero, one = (torch.full((1,), value, dtype=torch.float64, device=z.device) for value in (0.0, 1.0))
    found = search(
        AdjointBound(bound, targets, y.shape, here, there),
        ctx.solver,
        adjoint.controller or PID(),
        z,
        zero,
        one,
        max_steps=adjoint.max_steps,
        mask=mask,
    )
    if int(found.status[0]):
        what = STATUS[int(found.status[0])]
        raise ArithmeticError(f"the backward solve of Backsolve failed ({what}) at {float(found.t[0]):.3g} of its way")
    parts = found.y[0]
    return parts[:size].view_as(y), parts[size : 2 * size].view_as(a), parts[2 * size :]

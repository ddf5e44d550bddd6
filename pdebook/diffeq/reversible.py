"""Reversible Heun: a method that can be undone step by step, so gradients are exact at constant memory."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.adjoints import Differentiated, check_hidden, leaves, parameters, pull, substituted
from pdebook.diffeq.plan import Plan, Watch, gather, walk
from pdebook.diffeq.runge_kutta import Carry, Solver, Step, step_size
from pdebook.diffeq.stochastic import increments, linear
from pdebook.diffeq.symplectic import hermite
from pdebook.diffeq.terms import SDE, Bound


@dataclass(frozen=True)
class ReversibleHeun:
    """Reversible Heun, for ordinary and Stratonovich equations; F ΔX is f h, or f h + g ΔW.

        ŷ_1 = 2 y_0 - ŷ_0 + F_0 ΔX,   y_1 = y_0 + (F_0 + F_1)/2 ΔX,   F_1 = F(t_1, ŷ_1);   ŷ_0 = y_0 at the start

    One evaluation a step. Second order for ordinary equations; strong order 1/2, or 1 for additive and for commutative noise. For
    dy/dt = λ y it is stable only for h λ strictly between -i and i: not for any decay.

    Source: Kidger, Foster, Li and Lyons 2021, Efficient and accurate gradients for neural SDEs, algorithm 1.
    """

    name: str = "reversible-heun"
    order: float | int = 2
    error_order: float | int = 2
    adaptive: bool = True

    def check(self, term: Any) -> None:
        """Raise ValueError for an Ito equation whose noise depends on the state."""
        if isinstance(term, SDE) and term.calculus != "stratonovich" and term.noise != "additive":
            raise ValueError("solver reversible-heun is for Stratonovich equations, the term is meant in Ito's sense")

    def start(self, bound: Bound, t: Tensor, y: Tensor) -> Carry:
        """The companion state ŷ = y, and the fields there."""
        return (y, *fields(bound, t, y))

    def slope(self, bound: Bound, t: Tensor, y: Tensor, carry: Carry) -> Tensor:
        """The field at the start of a step."""
        return carry[1]

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step."""
        h, w = step_size(t0, t1, y), increments(bound, t0, t1)
        hat, *before = carry
        first = product(bound, before, h, w)
        hat = 2.0 * y - hat + first
        after = fields(bound, t1, hat)
        last = product(bound, after, h, w)
        new = y + 0.5 * (first + last)
        # Slopes at both ends say how to interpolate, unless the path is rough.
        slopes = h * torch.stack([before[0], after[0]]) if w is None else new[None]
        return Step(new, 0.5 * (last - first), (hat, *after), slopes)

    def interpolate(self, step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor) -> Tensor:
        """Cubic Hermite for ordinary equations, the straight line for stochastic ones."""
        way = hermite if len(step.stages) == 2 else linear
        return way(step, y0, t0, t1, rows, times)


def fields(bound: Bound, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Drift, and diffusion where there is one."""
    return (bound.field(t, y), bound.diffusion(t, y)) if isinstance(bound.term, SDE) else (bound.field(t, y),)


def product(bound: Bound, values: Any, h: Tensor, w: Tensor | None) -> Tensor:
    """F ΔX."""
    return values[0] * h if w is None else values[0] * h + bound.term.product(values[1], w)


@dataclass(frozen=True)
class Reversible(Differentiated):
    """Gradients of reversible Heun by running it backwards: those of ``Direct`` to rounding, memory that does not grow with steps.

    Source: Kidger, Foster, Li and Lyons 2021, section 3.
    """

    def run(
        self, bound: Bound, solver: Solver, plan: Plan, y: Tensor, watch: Watch | None
    ) -> tuple[Tensor, Tensor | None]:
        """Walk the plan without recording it.

        Raises:
            ValueError: another method, saved times that are not the ends of steps, or recorders.
        """
        if not isinstance(solver, ReversibleHeun):
            raise ValueError(f"adjoint Reversible needs solver ReversibleHeun, got {solver.name}")
        if watch is not None:
            raise ValueError("record and dense need adjoint Direct; Reversible does not keep the steps")
        if plan.restarts:
            raise ValueError(
                "jumps, and steps from the corners of a control, need adjoint Direct or Checkpointed: where Reversible begins anew "
                "it can't be undone"
            )
        for i in range(plan.steps):
            if not bool((_at_end(plan, i) | (plan.targets[i] == plan.times[0, plan.rows[i]])).all()):
                raise ValueError("adjoint Reversible saves at the ends of steps only: let ts be among them")
        known = parameters(bound)
        if torch.is_grad_enabled():
            check_hidden(bound, y, plan.times[0], known)
        final, ys = _Reversible.apply(bound, solver, plan, y, *known)
        return final, ys if plan.saved else None


def _at_end(plan: Plan, i: int) -> Tensor:
    """Which of the times that step i saves are its end, to rounding; a time at the start belongs to the first step."""
    return torch.isclose(plan.targets[i], plan.times[i + 1, plan.rows[i]], rtol=1e-12, atol=1e-12)


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, bound: Bound, solver: ReversibleHeun, plan: Plan, y: Tensor, *known: Tensor
    ) -> tuple[Tensor, Tensor]:
        final, carry, saved = walk(bound, solver, plan, y)
        assert carry is not None
        ctx.bound, ctx.plan, ctx.count = bound, plan, len(known)
        ctx.save_for_backward(final, *carry, *known)
        return final, gather(saved, len(y), plan.saved, y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_final: Tensor, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        saved, plan = list(ctx.saved_tensors), ctx.plan
        known = saved[len(saved) - ctx.count :]
        y, hat, *after = saved[: len(saved) - ctx.count]
        targets = leaves(known, ctx.bound)
        bound = substituted(ctx.bound, known, targets)
        totals = [torch.zeros_like(p) for p in known]

        def through(t: Tensor, at: Tensor, grads: list[Tensor]) -> Tensor:
            """Pull gradients of the fields at a state back to the state, and add those of the parameters."""
            with torch.enable_grad():
                inside = at.detach().requires_grad_()
                found = pull(list(fields(bound, t, inside)), grads, [inside, *targets])
            for total, grad in zip(totals, found[1:], strict=True):
                if grad is not None:
                    total += grad
            return torch.zeros_like(at) if found[0] is None else found[0]

        def spread(g: Tensor, h: Tensor, w: Tensor | None) -> list[Tensor]:
            """Gradient with respect to F of g · F ΔX."""
            if w is None:
                return [g * h]
            return [g * h, g * w if bound.term.noise in ("diagonal", "scalar") else g[..., None] * w[:, None]]

        grad_y, grad_hat = grad_final, torch.zeros_like(grad_final)
        grad_after = [torch.zeros_like(value) for value in after]
        for i in range(plan.steps - 1, -1, -1):
            t0, t1 = plan.span(i)
            if len(plan.rows[i]):
                end = _at_end(plan, i)
                rows, columns = plan.rows[i][end], plan.columns[i][end]
                grad_y = grad_y.index_put((rows,), grad_ys[rows, columns], accumulate=True)
            h, w = step_size(t0, t1, y), increments(bound, t0, t1)
            last = product(bound, after, h, w)
            old_hat = 2.0 * y - hat - last
            with torch.no_grad():
                before = list(fields(bound, t0, old_hat))
            old_y = y - 0.5 * (product(bound, before, h, w) + last)
            half = spread(0.5 * grad_y, h, w)
            grad_hat = grad_hat + through(t1, hat, [g + extra for g, extra in zip(grad_after, half, strict=True)])
            grad_after = [a + b for a, b in zip(half, spread(grad_hat, h, w), strict=True)]
            grad_y, grad_hat = grad_y + 2.0 * grad_hat, -grad_hat
            y, hat, after = old_y, old_hat, before
        start = ~_at_end(plan, 0)
        rows, columns = plan.rows[0][start], plan.columns[0][start]
        grad_y = grad_y.index_put((rows,), grad_ys[rows, columns], accumulate=True)
        grad_hat = grad_hat + through(plan.span(0)[0], y, grad_after)
        return None, None, None, grad_y + grad_hat, *totals

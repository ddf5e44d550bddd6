"""One step of a method from given states, differentiably: for regularisers that look at a solve in one place."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.controllers import PID, Times
from pdebook.diffeq.methods import solver_by_name
from pdebook.diffeq.plan import StepInfo, plan_saves
from pdebook.diffeq.runge_kutta import Solver
from pdebook.diffeq.terms import Bound, Layout, Term, corners


@dataclass(frozen=True)
class OneStep:
    """What one step gives.

    Attributes:
        y: states at its end, laid out as the start.
        error: error estimate, flat, (batch, size), or None.
        stages: h k_i, flat, (stages, batch, size).
        h: signed sizes of the steps, (batch,).
        info: the step as recorders take it.
    """

    y: Any
    error: Tensor | None
    stages: Tensor
    h: Tensor
    info: StepInfo


def single_step(
    term: Term,
    t: Times,
    y: Any,
    h: float | int | Tensor | str = "auto",
    *,
    solver: Solver | str = "tsit5",
    args: tuple[Any, ...] = (),
    controller: PID | None = None,
    t1: Times | None = None,
    freeze_first_stage: bool = False,
) -> OneStep:
    """Take one step; nothing is accepted or rejected, and autograd sees all but its size.

    Args:
        term: the equation.
        t: time of each state: a number, or (batch,).
        y: states, (batch, ...) or a tuple of such.
        h: signed size: a number, one for each state (batch,), or "auto" for what an adaptive solve would try first.
        solver: a method or its name.
        args: further arguments of the term's functions.
        controller: chooses h by its tolerances and scope, if that is "auto"; by default those of ``solve``.
        t1: what the step must not go beyond, if h is "auto"; before t for steps backwards. Without it steps go forwards.
        freeze_first_stage: whether the field at the start counts as constant, as in published code of local regularisation.
    Raises:
        ValueError: a size that is zero or not finite, or for "auto" no error estimate; and as ``solve``.
    """
    layout = Layout(y)
    method: Solver = solver_by_name(solver) if isinstance(solver, str) else solver
    method.check(term)
    bound, flat = Bound(term, layout, args), layout.flatten(y)
    if not torch._C._functorch.is_functorch_wrapped_tensor(flat) and not bool(flat.detach().isfinite().all()):
        raise ValueError("y must be finite")
    start = layout.times(t, "t")
    if isinstance(h, str):
        if h != "auto":
            raise ValueError(f"h must be a number, sizes or 'auto', got {h!r}")
        if not method.adaptive:
            raise ValueError(f"h must be given for {method.name}, which has no error estimate")
        goal = torch.full_like(start, torch.inf) if t1 is None else layout.times(t1, "t1")
        if bool((goal == start).any()):
            raise ValueError("t1 must differ from t")
        sign = torch.where(goal > start, 1.0, -1.0)
        carry = method.start(bound, _span(bound, start, start + sign)[0], flat)
        size = _automatic(bound, method, controller or PID(), start, flat, carry, goal, sign)
    else:
        size = layout.times(h, "h")
        if bool((size == 0).any()):
            raise ValueError("h must not be zero")
        carry = method.start(bound, _span(bound, start, start + size)[0], flat)
    if freeze_first_stage:
        carry = tuple(part.detach() for part in carry)
    before = bound.evaluations
    end = start + size
    step = method.step(bound, *_span(bound, start, end), flat, carry)
    info = StepInfo(start, end, flat, step.y, step.error, step.stages, method, bound.evaluations - before)
    return OneStep(layout.unflatten(step.y), step.error, step.stages, end - start, info)


def _span(bound: Bound, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
    """Start and end of a step as the method is to see them: on its own side of a control's corners."""
    plan, times = plan_saves(torch.stack([t0, t1]), None), corners(bound.term)
    return (plan if times is None else plan.inside(times)).span(0)


@torch.no_grad()
def _automatic(
    bound: Bound,
    method: Solver,
    controller: PID,
    t: Tensor,
    y: Tensor,
    carry: tuple[Tensor, ...],
    goal: Tensor,
    sign: Tensor,
) -> Tensor:
    """Signed sizes of first steps towards the times ``goal``."""
    slope = method.slope(bound, t, y, carry)
    return sign * controller.first(bound, t, y, slope, sign, (goal - t).abs(), method.error_order)

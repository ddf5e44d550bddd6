"""One step of a method from given states, differentiably: for regularisers that look at a solve in one place."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.controllers import PID, Times
from pdebook.diffeq.methods import solver_by_name
from pdebook.diffeq.plan import StepInfo
from pdebook.diffeq.runge_kutta import Solver
from pdebook.diffeq.terms import Bound, Layout, Term


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
    carry = method.start(bound, start, flat)
    if isinstance(h, str):
        if h != "auto":
            raise ValueError(f"h must be a number, sizes or 'auto', got {h!r}")
        size = _automatic(bound, method, controller or PID(), start, flat, carry, t1)
    else:
        size = layout.times(h, "h")
        if bool((size == 0).any()):
            raise ValueError("h must not be zero")
    if freeze_first_stage:
        carry = tuple(part.detach() for part in carry)
    before = bound.evaluations
    end = start + size
    step = method.step(bound, start, end, flat, carry)
    info = StepInfo(start, end, flat, step.y, step.error, step.stages, method, bound.evaluations - before)
    return OneStep(layout.unflatten(step.y), step.error, step.stages, end - start, info)


@torch.no_grad()
def _automatic(
    bound: Bound, method: Solver, controller: PID, t: Tensor, y: Tensor, carry: tuple[Tensor, ...], t1: Times | None
) -> Tensor:
    """Signed sizes of first steps."""
    if not method.adaptive:
        raise ValueError(f"h must be given for {method.name}, which has no error estimate")
    end = torch.full_like(t, torch.inf) if t1 is None else bound.layout.times(t1, "t1")
    if bool((end == t).any()):
        raise ValueError("t1 must differ from t")
    sign = torch.where(end > t, 1.0, -1.0)
    slope = method.slope(bound, t, y, carry)
    return sign * controller.first(bound, t, y, slope, sign, (end - t).abs(), method.error_order)

"""One call solves every equation of this package: ``solve(term, y0, t0, t1)``.

An adaptive solve first finds its steps without recording anything; they become a plan: for each trajectory the times of its
accepted steps. Gradients, dense output and recorders then walk that plan with the same formulas. So rejected steps cost no memory
and spoil no gradient, and step sizes are constants for differentiation.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.adaptive import STATUS, Search, search
from pdebook.diffeq.adjoints import Adjoint, Direct
from pdebook.diffeq.controllers import PID, Constant, Grid, Times
from pdebook.diffeq.dense import Dense
from pdebook.diffeq.events import Event
from pdebook.diffeq.implicit import DiagonallyImplicit
from pdebook.diffeq.methods import solver_by_name
from pdebook.diffeq.plan import Plan, Recorder, StepInfo, Watch, plan_saves, walk
from pdebook.diffeq.runge_kutta import Solver, Step
from pdebook.diffeq.terms import CDE, SDE, Bound, Layout, Term, corners


class SolveError(ArithmeticError):
    """Trajectories that did not reach their end.

    Attributes:
        solution: what was reached: the others' results, and for those that failed the last good state.
    """

    def __init__(self, message: str, solution: "Solution") -> None:
        super().__init__(message)
        self.solution = solution


@dataclass(frozen=True)
class Statistics:
    """What a solve cost.

    Attributes:
        calls: batched calls of the field.
        evaluations: calls while the trajectory was under way, shape (batch,).
        accepted: accepted steps, shape (batch,).
        rejected: rejected steps, shape (batch,).
        iterations: passes of the loop over the whole batch.
    """

    calls: int
    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor
    iterations: int


@dataclass(frozen=True)
class Solution:
    """Result of ``solve``.

    Attributes:
        ys: states at ``ts``, (batch, times, ...), or without ``ts`` at the end, (batch, ...); laid out as y0.
        t: where each trajectory ended, (batch,).
        status: positions in ``adaptive.STATUS``, (batch,).
        statistics: what it cost.
        steps: times of the accepted steps, (steps + 1, batch), if they were asked for; a trajectory that needs fewer repeats its last.
        dense: the solution as a function of time, if it was asked for.
        records: for each recorder the list of what it returned.
    """

    ys: Any
    t: Tensor
    status: Tensor
    statistics: Statistics
    steps: Tensor | None = None
    dense: Dense | None = None
    records: tuple[list[Any], ...] = ()


def solve(
    term: Term,
    y0: Any,
    t0: Times,
    t1: Times,
    *,
    solver: Solver | str = "tsit5",
    controller: PID | Constant | Grid | None = None,
    ts: Sequence[float] | Tensor | None = None,
    adjoint: Adjoint | None = None,
    args: tuple[Any, ...] = (),
    event: Event | None = None,
    record: tuple[Recorder, ...] = (),
    steps: bool = False,
    dense: bool = False,
    max_steps: int = 4096,
    norm_mask: Any = None,
    on_failure: str = "raise",
) -> Solution:
    """Solve an initial value problem for a batch of trajectories.

    Args:
        term: the equation; see ``terms``.
        y0: initial state, (batch, ...) or a tuple of such.
        t0: start: a number, or one for each trajectory, (batch,).
        t1: end, likewise; before t0 for a solve backwards in time.
        solver: a method or its name; see ``methods.SOLVERS``.
        controller: step sizes: ``PID`` (default, for methods with an error estimate), ``Constant`` or ``Grid``.
        ts: times to save: (n,) shared, or (batch, n); in the order of integration, within the span.
        adjoint: how gradients are formed; see ``adjoints``.
        args: further arguments of the term's functions. Tensors among them get gradients.
        event: stops a trajectory where a function of its state is zero; ``t`` says where.
        record: functions that are shown every accepted step; see ``recorders``.
        steps: whether to return the times of the steps.
        dense: whether to return the solution as a function of time; its memory grows with the number of steps.
        max_steps: most passes of an adaptive loop.
        norm_mask: which numbers of the state count in the error norm, laid out as one sample of y0; all if left out.
        on_failure: "raise" ``SolveError``, or "status": return what was reached.
    Raises:
        ValueError: an argument that makes no sense; the message names it.
        SolveError: a trajectory did not reach its end, or is not finite.
    """
    layout = Layout(y0)
    method: Solver = solver_by_name(solver) if isinstance(solver, str) else solver
    adjoint = Direct() if adjoint is None else adjoint
    _check_kinds(term, method, controller, adjoint, args)
    method.check(term)
    _check_fit(term, method, layout)
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    if on_failure not in ("raise", "status"):
        raise ValueError(f"on_failure must be 'raise' or 'status', got {on_failure!r}")
    if controller is None:
        if not method.adaptive:
            raise ValueError(f"controller must be Constant or Grid for {method.name}, which has no error estimate")
        controller = PID()
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(layout.flatten(y0))
    if wrapped and isinstance(controller, PID):
        raise ValueError(
            "controller must be Constant or Grid under torch.func.vmap: adaptive steps are batched natively, so give solve "
            "the whole batch as y0's first axis"
        )
    start, end = (layout.times(value, name) for value, name in ((t0, "t0"), (t1, "t1")))
    saves = None if ts is None else _saves(ts, start, end, layout)
    flat = layout.flatten(y0)
    if not wrapped and not bool(flat.detach().isfinite().all()):
        bad = (~flat.detach().isfinite()).any(1).nonzero().flatten().tolist()
        raise ValueError(f"y0 must be finite, samples {_listed(bad)} are not")
    mask = None if norm_mask is None else _mask(norm_mask, layout)
    bound = Bound(term, layout, args)
    flat = _shift_start(bound, flat, t0, start)

    found: Search | None = None
    plan: Plan | None = None
    if isinstance(controller, PID):
        if not method.adaptive:
            raise ValueError(f"solver {method.name} has no error estimate: controller must be Constant or Grid")
        _warn_of_rounding(controller, layout)
        if isinstance(method, DiagonallyImplicit):
            method = method.adapted(controller.tolerances(layout.dtype))
        # A rough path, or the solution of a method whose interpolant is poor, is saved where steps end.
        if isinstance(term, SDE) or getattr(method, "lands", False):
            controller = replace(controller, land=True)
        gradient = adjoint.needs_plan(bound, flat, start)
        replay = bool(steps or dense or record) or gradient
        inspect = None if event is None else event.inspector(method, layout, args)
        found = search(
            bound,
            method,
            controller,
            flat.detach(),
            start,
            end,
            ts=saves,
            max_steps=max_steps,
            mask=mask,
            keep_times=replay,
            inspect=inspect,
        )
        plan = _packed(found, controller, saves) if replay else None
    else:
        if event is not None:
            raise ValueError("event needs adaptive steps: controller must be PID")
        plan = plan_saves(controller.grid(start.cpu(), end.cpu()).to(layout.device), saves)
        if (times := corners(term)) is not None:
            plan = plan.inside(times)

    watch = Watch(record, dense) if record or dense else None
    final, ys = (None, None) if found is None else (found.y, found.ys)
    if plan is not None:
        final, ys = adjoint.run(bound, method, plan, flat, watch)
    assert final is not None
    # Also a field may be what vmap maps over.
    wrapped = wrapped or torch._C._functorch.is_functorch_wrapped_tensor(final)
    ended = end if found is None else found.t
    if event is not None and found is not None:
        final, ended = event.differentiate(bound, found, final, layout, args)
    final, ys = _shift_end(bound, final, ys, t1, ts, end, saves)
    statistics, status = _summary(
        bound, found, plan, final if ys is None else torch.cat([final, ys[:, -1]], 1), wrapped
    )
    solution = Solution(
        layout.unflatten(final if ys is None else ys),
        ended,
        status,
        statistics,
        plan.times if steps and plan is not None else None,
        Dense(method, watch.kept, layout) if watch is not None and dense else None,
        () if watch is None else watch.records,
    )
    if not wrapped and on_failure == "raise":
        _raise(solution, max_steps, lambda: _first_bad(bound, method, plan, flat))
    return solution


def _check_kinds(term: Any, solver: Any, controller: Any, adjoint: Any, args: Any) -> None:
    """Raise ValueError for an argument of a wrong kind."""
    for name, value, kind, wanted in (
        ("term", term, Term, "an equation, such as ODE(function)"),
        ("controller", controller, PID | Constant | Grid | None, "PID, Constant or Grid"),
        ("adjoint", adjoint, Adjoint, "a way to form gradients, such as Direct()"),
        ("args", args, tuple | list, "a tuple"),
    ):
        if isinstance(value, type) or not isinstance(value, kind):
            raise ValueError(
                f"{name} must be {wanted}, got {value if isinstance(value, type) else type(value).__name__}"
            )
    # A method may stand for another one by handing on what it is asked for, which a protocol's test would not see.
    if isinstance(solver, type) or not all(hasattr(solver, need) for need in ("step", "start", "check", "adaptive")):
        raise ValueError(f"solver must be a name or a method, got {type(solver).__name__}")


def _check_fit(term: Any, solver: Solver, layout: Layout) -> None:
    """Raise ValueError for a state that does not go with the method, or with what drives the equation."""
    if isinstance(solver, DiagonallyImplicit) and layout.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"y0 must be float32 or float64 for the implicit method {solver.name}, got {layout.dtype}")
    if isinstance(term, CDE) and (layout.is_tuple or len(layout.shapes[0]) != 1):
        raise ValueError(f"y0 must be one tensor (batch, size) for a CDE, got {layout.shapes}")
    name = {CDE: "path", SDE: "brownian"}.get(type(term), "")
    driver = getattr(term, name, None) if name else None
    if name and not hasattr(driver, "derivative" if name == "path" else "increment"):
        raise ValueError(f"{name} must be a path, see paths and brownian, got {type(driver).__name__}")
    batch = getattr(driver, "batch", layout.batch)
    if batch != layout.batch:
        raise ValueError(f"{name} must hold as many samples as y0, {layout.batch}, got {batch}")


def _first_bad(bound: Bound, solver: Solver, plan: Plan | None, y: Tensor) -> tuple[int, float]:
    """Number and end of the first step whose result is not finite."""
    assert plan is not None
    place: list[tuple[int, float]] = []

    def look(i: int, info: StepInfo, step: Step) -> None:
        bad = ~step.y.isfinite().all(1)
        if not place and bool(bad.any()):
            place.append((i + 1, float(info.t1[bad][0])))

    with torch.no_grad():
        walk(bound, solver, plan, y.detach(), visit=look)
    return place[0] if place else (plan.steps, float(plan.times[-1, 0]))


def _saves(ts: Sequence[float] | Tensor, start: Tensor, end: Tensor, layout: Layout) -> Tensor:
    """Times to save for each trajectory, (batch, n)."""
    times = torch.as_tensor(ts, dtype=torch.float64).detach().to(layout.device)
    if times.ndim == 1:
        times = times.expand(layout.batch, -1)
    if times.ndim != 2 or len(times) != layout.batch or not times.shape[1]:
        raise ValueError(f"ts must have shape (n,) or ({layout.batch}, n) with n >= 1, got {tuple(times.shape)}")
    sign = torch.where(end >= start, 1.0, -1.0)[:, None]
    low, high, scaled = start[:, None] * sign, end[:, None] * sign, times * sign
    if not bool(times.isfinite().all()) or not bool(((scaled >= low) & (scaled <= high)).all()):
        raise ValueError(f"ts must lie between t0 and t1, got values from {float(times.min())} to {float(times.max())}")
    if not bool((scaled.diff(dim=1) >= 0).all()):
        raise ValueError("ts must be monotone, from t0 to t1")
    return times.contiguous()


def _mask(norm_mask: Any, layout: Layout) -> Tensor:
    """The mask of a state's numbers as one row."""
    parts = norm_mask if isinstance(norm_mask, tuple) else (norm_mask,)
    wrong = not all(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)
    if wrong or [tuple(part.shape) for part in parts] != layout.shapes:
        raise ValueError(f"norm_mask must hold truth values of shape {layout.shapes}, one for each number of a sample")
    mask = torch.cat([part.flatten() for part in parts]).to(layout.device)
    if not bool(mask.any()):
        raise ValueError("norm_mask must let at least one number count")
    return mask


def _warn_of_rounding(controller: PID, layout: Layout) -> None:
    rtol, _ = controller.tolerances(layout.dtype)
    if layout.real_dtype == torch.float32 and rtol < 1e-6:
        warnings.warn(
            f"rtol {rtol:g} is below what float32 resolves; use float64 for tolerances below 1e-6", stacklevel=3
        )


def _packed(found: Search, controller: PID, saves: Tensor | None) -> Plan:
    """The accepted steps of each trajectory without the passes in which it stood still."""
    times = torch.stack(found.times)
    moved = times.diff(dim=0) != 0
    position = moved.long().cumsum(0)
    count = int(position[-1].max()) if len(position) else 0
    packed = times[-1].expand(max(count, 1) + 1, -1).clone()
    packed[0] = times[0]
    if count:
        packed.scatter_(0, position, times[1:])
    jumps = torch.tensor(controller.jumps, dtype=torch.float64, device=times.device)
    # The times just behind the jumps, whichever way a trajectory goes.
    behind = torch.cat([torch.nextafter(jumps, torch.full_like(jumps, end)) for end in (-torch.inf, torch.inf)])
    restarts = frozenset(torch.isin(packed, behind).any(1).nonzero().flatten().tolist()) if len(jumps) else frozenset()
    return plan_saves(packed, saves, restarts)


def _needs_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled()


def _shift_start(bound: Bound, y: Tensor, t0: Times, start: Tensor) -> Tensor:
    """The same state, which knows that a later start has moved along less: dy/dt0 = -f."""
    if not _needs_gradient(t0):
        return y
    with torch.no_grad():
        f = bound.field(start, y)
    return y - f * (t0 - t0.detach()).to(y.dtype).reshape(-1, 1)  # type: ignore[union-attr]


def _shift_end(
    bound: Bound, final: Tensor, ys: Tensor | None, t1: Times, ts: Any, end: Tensor, saves: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The same states, which know that their times may move: dy/dt = f."""
    if _needs_gradient(t1):
        with torch.no_grad():
            f = bound.field(end, final)
        final = final + f * (t1 - t1.detach()).to(final.dtype).reshape(-1, 1)  # type: ignore[union-attr]
    if _needs_gradient(ts) and ys is not None and saves is not None:
        with torch.no_grad():
            f = torch.stack([bound.field(saves[:, k], ys[:, k]) for k in range(saves.shape[1])], 1)
        move = (ts - ts.detach()).to(ys.dtype)
        ys = ys + f * (move if move.ndim == 2 else move[None])[..., None]
    return final, ys


def _summary(
    bound: Bound, found: Search | None, plan: Plan | None, final: Tensor, wrapped: bool
) -> tuple[Statistics, Tensor]:
    """What the solve cost, and what became of each trajectory."""
    if found is not None:
        cost = Statistics(bound.evaluations, found.evaluations, found.accepted, found.rejected, found.iterations)
        return cost, found.status
    assert plan is not None
    moving = plan.times.diff(dim=0) != 0
    taken = moving.sum(0)
    calls = torch.full_like(taken, bound.evaluations)
    status = torch.zeros_like(taken)
    if not wrapped:
        status = torch.where(final.detach().isfinite().all(1), status, STATUS.index("not_finite"))
    return Statistics(bound.evaluations, calls, taken, torch.zeros_like(taken), plan.steps), status


def _listed(samples: list[int]) -> str:
    return ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")


def _raise(solution: Solution, max_steps: int, first_bad: Callable[[], tuple[int, float]]) -> None:
    """Raise SolveError if a trajectory did not reach its end."""
    status = solution.status.cpu()
    what = []
    for code, words in (
        (1, f"needed more than {max_steps} steps"),
        (2, "needed a step below min_step"),
        (3, "stopped being finite"),
    ):
        samples = (status == code).nonzero().flatten().tolist()
        if samples:
            t = float(solution.t[samples[0]])
            place = f"sample {samples[0]} at t = {t:.6g}"
            if code == 3 and solution.statistics.rejected.sum() == 0:
                k, t = first_bad()
                place = f"first in step {k}, which ends at t = {t:.6g}"
            what.append(f"{len(samples)} of {len(status)} trajectories {words} (samples {_listed(samples)}; {place})")
    if what:
        raise SolveError("; ".join(what), solution)

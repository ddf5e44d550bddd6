"""The search for steps: each trajectory of a batch with its own step size, rejections and failures."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdebook.diffeq.controllers import PID
from pdebook.diffeq.runge_kutta import RungeKutta, Solver, Step
from pdebook.diffeq.terms import Bound

STATUS = ("ok", "max_steps", "min_step", "not_finite", "event")
"""What may become of a trajectory; ``Solution.status`` holds positions in this tuple."""

# Steps between two looks at whether all have finished, where a look waits for the device.
_PATIENCE = 8

Inspect = Callable[[Tensor, Tensor, Tensor, Step], tuple[Tensor, Tensor]]
"""Called as (t0, t1, y0, step) after a step: where each trajectory stops inside it, and which do."""


@dataclass
class Search:
    """What the search found.

    Attributes:
        y: states at the end, or the last good ones, (batch, size).
        t: times there, (batch,).
        status: positions in ``STATUS``.
        ys: saved states (batch, times, size), or None.
        times: accepted times of each pass of the loop, (iterations + 1, batch), if they were asked for.
        evaluations: calls of the field while each trajectory was under way.
        accepted: accepted steps of each trajectory.
        rejected: rejected steps.
        iterations: passes of the loop.
    """

    y: Tensor
    t: Tensor
    status: Tensor
    ys: Tensor | None
    times: list[Tensor]
    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor
    iterations: int


@torch.no_grad()
def search(
    bound: Bound,
    solver: Solver,
    controller: PID,
    y: Tensor,
    t0: Tensor,
    t1: Tensor,
    *,
    ts: Tensor | None = None,
    max_steps: int = 4096,
    mask: Tensor | None = None,
    keep_times: bool = False,
    inspect: Inspect | None = None,
) -> Search:
    """Integrate from t0 to t1 with steps that the controller chooses.

    Args:
        bound: term on flat states.
        solver: method with an error estimate.
        controller: step size control.
        y: flat state at t0, (batch, size).
        t0: start, (batch,), float64, on y's device.
        t1: end, likewise; before t0 for a solve backwards in time.
        ts: times to save, (batch, n), in order.
        max_steps: passes of the loop, rejected steps included.
        mask: which numbers of the state count in the error norm, (size,).
        keep_times: whether to keep the accepted times.
        inspect: looks at each step and may stop trajectories inside it (events).
    """
    batch, device = len(y), y.device
    waits = device.type != "cpu"
    if isinstance(solver, RungeKutta):
        solver = solver.reusing(y)
    # All is done on a clock that runs forwards, sign times t.
    sign = torch.where(t1 >= t0, 1.0, -1.0)
    forward = bool((sign > 0).all())
    clock, goal = t0 * sign, t1 * sign
    t = t0.clone()
    tolerances, order = controller.tolerances(y.dtype), solver.error_order
    status, accepted, tried, evaluations = (torch.zeros(batch, dtype=torch.long, device=device) for _ in range(4))
    ys = following = None
    if ts is not None:
        ys = torch.full((batch, ts.shape[1], y.shape[1]), torch.nan, dtype=y.dtype, device=device)
        ys = torch.where((ts == t0[:, None])[..., None], y[:, None], ys)
        following = _Following(ts, sign, clock)
    times = [t]
    running = clock != goal
    if not bool(running.any()):
        return Search(y, t, status, ys, times, evaluations, accepted, tried, 0)

    before = bound.evaluations
    carry = solver.start(bound, t, y)
    h = controller.first(bound, t, y, solver.slope(bound, t, y, carry), sign, goal - clock, order)
    evaluations.add_(running, alpha=bound.evaluations - before)
    past = (torch.ones_like(h), torch.ones_like(h))
    # A step that no longer moves the time; by the largest time, so that one number serves all trajectories.
    tiny = 4.0 * torch.finfo(torch.float64).eps * torch.maximum(t0.abs(), t1.abs()).amax()
    smallest = max(float(controller.min_step), float(tiny))
    # A step that nearly gets to the next stop is stretched to end there.
    slack = 1e-10 * (goal - clock)
    stops = _stops(controller, ts, sign, clock, goal)
    stop, pointer = (goal if stops is None else stops[:, 0]), torch.zeros_like(status)
    edge = stop - slack
    iteration, cost, counted = 0, 0, tried.clone()

    def proposed(ratio: Tensor, moved: Tensor) -> Tensor:
        """The next step of each trajectory."""
        h_new = controller.factor(ratio, past, order).mul_(moved)
        if stops is not None:
            # A step that was cut short says little about what a whole one may be.
            h_new = torch.where((ratio <= 1.0) & (clock + moved >= edge), torch.maximum(h, h_new), h_new)
        if controller.max_step < torch.inf:
            h_new = h_new.clamp(max=controller.max_step)
        if controller.scope == "batch":
            h_new = torch.where(running, h_new, torch.inf).amin().expand(batch)
        return h_new

    while iteration < max_steps:
        iteration += 1
        running = clock != goal
        ahead = clock + h
        ahead = torch.where(ahead >= edge, stop, ahead)
        t_new = ahead if forward else ahead * sign
        before = bound.evaluations
        step = solver.step(bound, t, t_new, y, carry)
        assert step.error is not None
        ratio = controller.ratio(step.error, y, step.y, tolerances, mask)
        if step.ok is not None:
            ratio = torch.where(step.ok, ratio, torch.inf)
        good = ratio <= 1.0
        accept = good & running
        moved = ahead - clock
        h_new = proposed(ratio, moved)
        if bound.evaluations - before != cost:
            # Most methods take as many in every pass: they are multiplied at the end.
            evaluations += cost * (tried - counted)
            counted, cost = tried.clone(), bound.evaluations - before
        tried += running
        accepted += accept

        # The smallest step with which one will be tried again; where to know it would wait for the device, the worst is assumed.
        retry = math.nan if waits else float(torch.where(good, torch.inf, h_new).amin())
        if not retry > smallest:
            ratio = ratio.nan_to_num(nan=torch.inf, posinf=torch.inf)
            h_new = proposed(ratio, moved)
            failed = running & ~accept & (h_new <= smallest)
            code = torch.where(ratio.isinf(), STATUS.index("not_finite"), STATUS.index("min_step"))
            status = torch.where(failed, code, status)
            goal, stop = torch.where(failed, clock, goal), torch.where(failed, clock, stop)
            edge = stop - slack
        whole, stopped = t_new, None
        if inspect is not None:
            t_new, stopped = inspect(t, whole, y, step)
            ahead = t_new * sign
            stopped &= accept
        if following is not None and ys is not None:
            _save(following, ys, solver, step, y, t, torch.where(accept, ahead, clock), whole)
        if stopped is not None and bool(stopped.any()):
            rows = stopped.nonzero().flatten()
            step.y[rows] = solver.interpolate(step, y, t, whole, rows, t_new[rows])
            status = torch.where(stopped, STATUS.index("event"), status)
            goal, stop = torch.where(stopped, ahead, goal), torch.where(stopped, ahead, stop)
            edge = stop - slack

        if retry == math.inf and stopped is None:
            clock, y, carry, past = ahead, step.y, step.carry, (ratio, past[0])
        else:
            clock = torch.where(accept, ahead, clock)
            y, *kept = _where(accept, (step.y, *step.carry), (y, *carry))
            carry = tuple(kept)
            if controller.remembers:
                past = (torch.where(accept, ratio, past[0]), torch.where(accept, past[0], past[1]))
        h = h_new
        t = clock if forward else clock * sign
        if keep_times:
            times.append(t)
        if stops is not None:
            reached = accept & (clock == stop) & (clock != goal)
            if bool(reached.any()):
                pointer = (pointer + reached).clamp(max=stops.shape[1] - 1)
                stop = torch.where(reached, stops.gather(1, pointer[:, None])[:, 0], stop)
                edge = stop - slack
                if controller.jumps:
                    # Steps end just before a jump and go on just behind it: no stage sees the other side.
                    beyond = torch.full_like(clock, torch.inf)
                    clock = torch.where(reached, torch.nextafter(torch.nextafter(clock, beyond), beyond), clock)
                    t = clock if forward else clock * sign
                    if keep_times:
                        times.append(t)
                    before = bound.evaluations
                    fresh = solver.start(bound, t, y)
                    evaluations.add_(reached, alpha=bound.evaluations - before)
                    carry = _where(reached, fresh, carry)
        if (not waits or iteration % _PATIENCE == 0) and torch.equal(clock, goal):
            break
    evaluations += cost * (tried - counted)
    status = torch.where(clock != goal, STATUS.index("max_steps"), status)
    return Search(y, t, status, ys, times, evaluations, accepted, tried - accepted, iteration)


def _where(rows: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """New values in some rows, the old ones in the others."""
    # Spread over a matrix once: that is faster than to do it for each.
    matrix = rows.unsqueeze(1).expand_as(new[0]).contiguous()
    return tuple(
        torch.where(matrix if a.shape == matrix.shape else rows.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        for a, b in zip(new, old, strict=True)
    )


def _save(
    following: "_Following",
    ys: Tensor,
    solver: Solver,
    step: Step,
    y: Tensor,
    t: Tensor,
    reached: Tensor,
    end: Tensor,
) -> None:
    """Write the states at the times that the clock passes up to ``reached``, in a step from t to ``end``."""
    crossed = following.crossed(reached)
    if crossed is not None:
        rows, columns, targets = crossed
        ys[rows, columns] = solver.interpolate(step, y, t, end, rows, targets)


def _stops(controller: PID, ts: Tensor | None, sign: Tensor, clock: Tensor, goal: Tensor) -> Tensor | None:
    """Where on the clock steps must end, (batch, n), in order and with the goal last; None for the goal alone."""
    parts = []
    if controller.jumps:
        jumps = torch.tensor(controller.jumps, dtype=torch.float64, device=clock.device) * sign[:, None]
        parts.append(torch.nextafter(jumps, torch.full_like(jumps, -torch.inf)))
    if controller.land and ts is not None:
        parts.append(ts * sign[:, None])
    if not parts:
        return None
    raw = torch.cat([*parts, goal[:, None]], 1)
    inside = (raw > clock[:, None]) & (raw < goal[:, None])
    return torch.where(inside, raw, goal[:, None]).sort(1).values


class _Following:
    """The times to be saved that each trajectory has not passed yet."""

    def __init__(self, ts: Tensor, sign: Tensor, clock: Tensor) -> None:
        self.ts = ts
        self.scaled = ts * sign[:, None]
        self.left = self.scaled > clock[:, None]
        self.next = torch.where(self.left, self.scaled, torch.inf).amin(1)

    def crossed(self, clock: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Rows, columns and times of what lies at or before the clock's time and was not crossed before."""
        if not bool((self.next <= clock).any()):
            return None
        hit = self.left & (self.scaled <= clock[:, None])
        self.left &= ~hit
        self.next = torch.where(self.left, self.scaled, torch.inf).amin(1)
        rows, columns = hit.nonzero(as_tuple=True)
        return rows, columns, self.ts[rows, columns]

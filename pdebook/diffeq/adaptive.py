"""The search for steps: each trajectory of a batch with its own step size, rejections and failures."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdebook.diffeq.controllers import PID
from pdebook.diffeq.runge_kutta import Solver, Step
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
    sign = torch.where(t1 >= t0, 1.0, -1.0)
    tolerances = controller.tolerances(y.dtype)
    order = solver.error_order
    running = t0 != t1
    status, accepted, tried, evaluations = (torch.zeros(batch, dtype=torch.long, device=device) for _ in range(4))
    t = t0.clone()
    ys = None
    if ts is not None:
        ys = torch.full((batch, ts.shape[1], y.shape[1]), torch.nan, dtype=y.dtype, device=device)
        ys = torch.where((ts == t0[:, None])[..., None], y[:, None], ys)
    following = None if ts is None else _Following(ts, t0, sign)
    stops = _stops(controller, ts, t0, t1, sign)
    stop, pointer = (t1, torch.zeros_like(status)) if stops is None else (stops[:, 0], torch.zeros_like(status))
    times = [t]
    if not bool(running.any()):
        return Search(y, t, status, ys, times, evaluations, accepted, tried, 0)

    before = bound.evaluations
    carry = solver.start(bound, t, y)
    h = controller.first(bound, t, y, solver.slope(bound, t, y, carry), sign, (t1 - t0).abs(), order)
    evaluations.add_(running, alpha=bound.evaluations - before)
    past = (torch.ones_like(h), torch.ones_like(h))
    # A step that no longer moves the time; by the largest time, so that one number serves all trajectories.
    tiny = 4.0 * torch.finfo(torch.float64).eps * torch.maximum(t0.abs(), t1.abs()).amax()
    smallest = max(float(controller.min_step), float(tiny))
    remembers = bool(controller.p or controller.d)
    iteration = 0
    while iteration < max_steps:
        iteration += 1
        room = (stop - t).abs()
        final = h >= room * (1.0 - 1e-10)
        t_new = torch.where(final, stop, torch.addcmul(t, sign, h))
        before = bound.evaluations
        step = solver.step(bound, t, t_new, y, carry)
        assert step.error is not None
        ratio = controller.ratio(step.error, y, step.y, tolerances, mask)
        if step.ok is not None:
            ratio = torch.where(step.ok, ratio, torch.inf)
        good = ratio <= 1.0
        all_good = not waits and bool(good.all())
        if not all_good:
            ratio = ratio.nan_to_num(nan=torch.inf)
        accept = good & running
        h_new = torch.minimum(h, room) * controller.factor(ratio, past, order)
        if stops is not None:
            # A step that was cut short says little about what a whole one may be.
            h_new = torch.where(final & accept, torch.maximum(h, h_new), h_new)
        if controller.max_step < torch.inf:
            h_new = h_new.clamp(max=controller.max_step)
        if controller.scope == "batch":
            h_new = torch.where(running, h_new, torch.inf).amin().expand(batch)
        evaluations.add_(running, alpha=bound.evaluations - before)
        tried += running
        accepted += accept

        stopped = None
        if inspect is not None:
            whole = t_new
            t_new, stopped = inspect(t, whole, y, step)
            stopped &= accept
            if bool(stopped.any()):
                rows = stopped.nonzero().flatten()
                ends = solver.interpolate(step, y, t, whole, rows, t_new[rows])
                _save(following, ys, solver, step, y, t, torch.where(accept, t_new, t), whole)
                step.y[rows] = ends
                status = torch.where(stopped, STATUS.index("event"), status)
        _save(following, ys, solver, step, y, t, t_new if all_good else torch.where(accept, t_new, t), t_new)

        if all_good and stopped is None:
            t, y, carry, past = t_new, step.y, step.carry, (ratio, past[0])
        else:
            choose = accept.unsqueeze(1)
            t = torch.where(accept, t_new, t)
            y = torch.where(choose, step.y, y)
            carry = tuple(
                torch.where(accept.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(step.carry, carry, strict=True)
            )
            if remembers:
                past = (torch.where(accept, ratio, past[0]), torch.where(accept, past[0], past[1]))
            small = h_new <= smallest
            if waits or bool(small.any()):
                failed = running & ~accept & small
                code = torch.where(ratio.isinf(), STATUS.index("not_finite"), STATUS.index("min_step"))
                status = torch.where(failed, code, status)
                running = running & ~failed
                stop = torch.where(failed, t, stop)
        h = h_new
        if keep_times:
            times.append(t)
        if stopped is not None:
            stop = torch.where(stopped, t, stop)
            running = running & ~stopped
        if stops is not None:
            reached = accept & (t == stop) & (t != t1)
            if bool(reached.any()):
                pointer = (pointer + reached).clamp(max=stops.shape[1] - 1)
                stop = torch.where(reached & running, stops.gather(1, pointer[:, None])[:, 0], stop)
                if controller.jumps:
                    # Steps end just before a jump and go on just behind it: no stage sees the other side.
                    t = torch.where(reached, torch.nextafter(torch.nextafter(t, t1), t1), t)
                    if keep_times:
                        times.append(t)
                    before = bound.evaluations
                    fresh = solver.start(bound, t, y)
                    evaluations.add_(reached, alpha=bound.evaluations - before)
                    carry = tuple(
                        torch.where(reached.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                        for new, old in zip(fresh, carry, strict=True)
                    )
        running = running & (t != t1)
        if (not waits or iteration % _PATIENCE == 0) and not bool(running.any()):
            break
    status = torch.where(running, STATUS.index("max_steps"), status)
    return Search(y, t, status, ys, times, evaluations, accepted, tried - accepted, iteration)


def _save(
    following: "_Following | None",
    ys: Tensor | None,
    solver: Solver,
    step: Step,
    y: Tensor,
    t: Tensor,
    reached: Tensor,
    end: Tensor,
) -> None:
    """Write the states at the times that lie between t and ``reached``; the step itself ends at ``end``."""
    if following is None or ys is None:
        return
    crossed = following.crossed(reached)
    if crossed is not None:
        rows, columns, targets = crossed
        ys[rows, columns] = solver.interpolate(step, y, t, end, rows, targets)


def _stops(controller: PID, ts: Tensor | None, t0: Tensor, t1: Tensor, sign: Tensor) -> Tensor | None:
    """Times at which steps must end, (batch, n), in order and with t1 last; None for t1 alone."""
    parts = []
    if controller.jumps:
        jumps = torch.tensor(controller.jumps, dtype=torch.float64, device=t0.device).expand(len(t0), -1)
        parts.append(torch.nextafter(jumps, t0[:, None]))
    if controller.land and ts is not None:
        parts.append(ts)
    if not parts:
        return None
    raw = torch.cat([*parts, t1[:, None]], 1) * sign[:, None]
    low, high = (t0 * sign)[:, None], (t1 * sign)[:, None]
    inside = torch.where((raw > low) & (raw < high), raw, high)
    return inside.sort(1).values * sign[:, None]


class _Following:
    """The times to be saved that each trajectory has not passed yet."""

    def __init__(self, ts: Tensor, t0: Tensor, sign: Tensor) -> None:
        self.ts, self.sign = ts, sign
        self.scaled = ts * sign[:, None]
        self.left = self.scaled > (t0 * sign)[:, None]
        self.next = torch.where(self.left, self.scaled, torch.inf).amin(1)

    def crossed(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Rows, columns and times of what lies at or before t and was not crossed before."""
        now = t * self.sign
        if not bool((self.next <= now).any()):
            return None
        hit = self.left & (self.scaled <= now[:, None])
        self.left &= ~hit
        self.next = torch.where(self.left, self.scaled, torch.inf).amin(1)
        rows, columns = hit.nonzero(as_tuple=True)
        return rows, columns, self.ts[rows, columns]

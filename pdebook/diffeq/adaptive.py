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
    status = torch.zeros(batch, dtype=torch.long, device=device)
    accepted, rejected, evaluations = (torch.zeros(batch, dtype=torch.long, device=device) for _ in range(3))
    t = t0.clone()
    ys = None if ts is None else torch.full((batch, ts.shape[1], y.shape[1]), torch.nan, dtype=y.dtype, device=device)
    if ys is not None and ts is not None:
        ys = torch.where((ts == t0[:, None])[..., None], y[:, None], ys)
    stops = _stops(controller, ts, t0, t1, sign)
    stop, pointer = (t1, None) if stops is None else (stops[:, 0], torch.zeros(batch, dtype=torch.long, device=device))
    following = None if ts is None else _Following(ts, t0, sign)
    times = [t]
    if not bool(running.any()):
        return Search(y, t, status, ys, times, evaluations, accepted, rejected, 0)

    before = bound.evaluations
    carry = solver.start(bound, t, y)
    h = controller.first(bound, t, y, solver.slope(bound, t, y, carry), sign, (t1 - t0).abs(), order)
    evaluations += (bound.evaluations - before) * running
    past = (torch.ones_like(h), torch.ones_like(h))
    smallest = max(float(controller.min_step), 0.0)
    iteration = 0
    while iteration < max_steps:
        iteration += 1
        room = (stop - t).abs()
        final = h >= room * (1.0 - 1e-10)
        t_new = torch.where(final, stop, t + sign * h)
        before = bound.evaluations
        step = solver.step(bound, t, t_new, y, carry)
        assert step.error is not None
        ratio = controller.ratio(step.error, y, step.y, tolerances, mask)
        if step.ok is not None:
            ratio = torch.where(step.ok, ratio, torch.inf)
        accept = (ratio <= 1.0) & running
        all_accepted = not waits and bool((ratio <= 1.0).all())
        tried = (t_new - t).abs()
        h_new = tried * controller.factor(ratio, past, accept, order)
        # A step that was cut short says little about what a whole one may be.
        h_new = torch.where(final & accept, torch.maximum(h, h_new), h_new).clamp(max=controller.max_step)
        evaluations += (bound.evaluations - before) * running
        accepted += accept
        rejected += running & ~accept
        if controller.scope == "batch":
            h_new = torch.where(accept & ~final, h_new, torch.where(accept, torch.inf, h_new)).amin().expand_as(h_new)
            h_new = torch.where(h_new.isinf(), h, h_new)

        stopped = None
        if inspect is not None:
            t_new, stopped = inspect(t, t_new, y, step)
            stopped = stopped & accept
        if following is not None and ys is not None:
            limit = torch.where(accept, t_new, t)
            crossed = following.crossed(limit)
            if crossed is not None:
                rows, columns, targets = crossed
                ys[rows, columns] = solver.interpolate(step, y, t, torch.where(accept, t_new, t), rows, targets)
        if stopped is not None and bool(stopped.any()):
            rows = stopped.nonzero().flatten()
            full = torch.where(accept, t + sign * tried, t)
            step.y[rows] = solver.interpolate(step, y, t, full, rows, t_new[rows])
            status = torch.where(stopped, STATUS.index("event"), status)

        inverse = 1.0 / ratio.clamp(min=1e-10)
        if all_accepted:
            t, y, carry, past = t_new, step.y, step.carry, (inverse, past[0])
        else:
            choose = accept.unsqueeze(1)
            t = torch.where(accept, t_new, t)
            y = torch.where(choose, step.y, y)
            carry = tuple(torch.where(choose, new, old) for new, old in zip(step.carry, carry, strict=True))
            past = (torch.where(accept, inverse, past[0]), torch.where(accept, past[0], past[1]))
            floor = torch.maximum(4.0 * torch.finfo(torch.float64).eps * t.abs(), h_new.new_tensor(smallest))
            failed = running & ~accept & (h_new <= floor)
            code = torch.where(ratio.isinf(), STATUS.index("not_finite"), STATUS.index("min_step"))
            status = torch.where(failed, code, status)
            running = running & ~failed
            stop = torch.where(failed, t, stop)
        h = h_new
        if keep_times:
            times.append(t)
        finished = t == t1
        if stopped is not None:
            finished |= stopped
            stop = torch.where(stopped, t, stop)
        if stops is not None and pointer is not None:
            reached = accept & (t == stop) & ~finished
            if bool(reached.any()):
                pointer = (pointer + reached).clamp(max=stops.shape[1] - 1)
                stop = torch.where(reached, stops.gather(1, pointer[:, None])[:, 0], stop)
                if controller.jumps:
                    before = bound.evaluations
                    fresh = solver.start(bound, t, y)
                    evaluations += (bound.evaluations - before) * reached
                    mix = reached.unsqueeze(1)
                    carry = tuple(torch.where(mix, new, old) for new, old in zip(fresh, carry, strict=True))
        running = running & ~finished
        if (not waits or iteration % _PATIENCE == 0) and not bool(running.any()):
            break
    status = torch.where(running, STATUS.index("max_steps"), status)
    return Search(y, t, status, ys, times, evaluations, accepted, rejected, iteration)


def _stops(controller: PID, ts: Tensor | None, t0: Tensor, t1: Tensor, sign: Tensor) -> Tensor | None:
    """Times at which steps must end, (batch, n), in order and with t1 last; None for t1 alone."""
    parts = []
    if controller.jumps:
        parts.append(torch.tensor(controller.jumps, dtype=torch.float64, device=t0.device).expand(len(t0), -1))
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

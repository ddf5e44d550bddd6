"""Plans: for each trajectory the times of its steps and what is saved on the way, and the walk that takes them.

A plan has no data-dependent branch left: walking it can be recorded by autograd, repeated from a checkpoint, or mapped by vmap.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.runge_kutta import Carry, Solver, Step
from pdebook.diffeq.terms import Bound


@dataclass(frozen=True)
class StepInfo:
    """One accepted step of the batch, as recorders see it.

    Attributes:
        t0: start of the step, (batch,).
        t1: end; equal to the start where a trajectory rests.
        y0: flat state at the start, (batch, size).
        y1: flat state at the end.
        error: error estimate, or None.
        stages: the field at the stages, times the step: h k_i, (stages, batch, size).
        solver: the method.
        evaluations: calls of the field that the step took.
    """

    t0: Tensor
    t1: Tensor
    y0: Tensor
    y1: Tensor
    error: Tensor | None
    stages: Tensor
    solver: Solver
    evaluations: int

    @property
    def h(self) -> Tensor:
        """The signed step, (batch,)."""
        return self.t1 - self.t0

    @property
    def moved(self) -> Tensor:
        """Which trajectories take this step, and do not rest, (batch,)."""
        return self.t0 != self.t1


Recorder = Callable[[StepInfo], Any]
"""Called with each accepted step of the batch; what it returns is collected, differentiably."""


class Watch:
    """What is kept of a walk: what recorders return, and the steps themselves for dense output.

    Attributes:
        records: for each recorder the list of what it returned.
        kept: the steps.
    """

    def __init__(self, recorders: tuple[Recorder, ...], dense: bool) -> None:
        self.recorders, self.dense = recorders, dense
        self.records: tuple[list[Any], ...] = tuple([] for _ in recorders)
        self.kept: list[tuple[StepInfo, Step]] = []

    def look(self, info: StepInfo) -> tuple[Any, ...]:
        """What the recorders return for a step."""
        return tuple(recorder(info) for recorder in self.recorders)

    def __call__(self, _: int, info: StepInfo, step: Step) -> None:
        """Keep what there is to keep of a step."""
        for entries, value in zip(self.records, self.look(info), strict=True):
            entries.append(value)
        if self.dense:
            self.kept.append((info, step))


@dataclass(frozen=True)
class Plan:
    """Times of the steps that each trajectory takes, and what is to be saved on the way.

    Attributes:
        times: (steps + 1, batch), float64, on the state's device.
        rows: for each step the samples that save a state in it.
        columns: for each step the numbers of the saved times.
        targets: for each step the saved times themselves.
        restarts: steps before which the field jumps.
        saved: number of times that are saved; 0 for the end alone.
        inner: starts and ends of the steps as the method is to see them, each (steps, batch), where they are not ``times``.
    """

    times: Tensor
    rows: list[Tensor]
    columns: list[Tensor]
    targets: list[Tensor]
    restarts: frozenset[int] = frozenset()
    saved: int = 0
    inner: tuple[Tensor, Tensor] | None = None

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.times) - 1

    def span(self, i: int) -> tuple[Tensor, Tensor]:
        """Start and end of step i as the method is to see them, (batch,) each."""
        return (self.times[i], self.times[i + 1]) if self.inner is None else (self.inner[0][i], self.inner[1][i])

    def inside(self, corners: Tensor) -> "Plan":
        """The plan whose steps see their own side of a jump of the field: at a corner they begin just behind it and end just before.

        Args:
            corners: times of the jumps, rising, (1, n) or (batch, n). A step is at one if it is so to rounding.
        """
        start, end = self.times[:-1], self.times[1:]
        known = corners.to(self.times).expand(self.times.shape[1], -1).contiguous()
        asked = self.times.T.contiguous()
        above = torch.searchsorted(known, asked).clamp(max=known.shape[1] - 1)
        upper, lower = known.gather(1, above), known.gather(1, (above - 1).clamp(min=0))
        nearest = torch.where((upper - asked).abs() <= (asked - lower).abs(), upper, lower).T
        slack = 1e-12 * torch.maximum(self.times[0].abs(), self.times[-1].abs())
        at = (nearest - self.times).abs() <= slack
        moves = start != end
        inner = (
            torch.where(at[:-1] & moves, torch.nextafter(nearest[:-1], end), start),
            torch.where(at[1:] & moves, torch.nextafter(nearest[1:], start), end),
        )
        # The first step begins anew anyway.
        again = (at[1:-1] & moves[1:]).any(1).nonzero().flatten() + 1
        return replace(self, restarts=self.restarts | frozenset(again.tolist()), inner=inner)


def plan_saves(times: Tensor, ts: Tensor | None, restarts: frozenset[int] = frozenset()) -> Plan:
    """Distribute the times to be saved, (batch, n), over the steps ``times`` (steps + 1, batch); one look on the host.

    Times that a trajectory does not reach are left out.
    """
    steps = len(times) - 1
    empty = torch.empty(0, dtype=torch.long, device=times.device)
    nothing = torch.empty(0, dtype=torch.float64, device=times.device)
    if ts is None:
        return Plan(times, [empty] * steps, [empty] * steps, [nothing] * steps, restarts)
    sign = torch.where(times[-1] >= times[0], 1.0, -1.0)[:, None]
    ends, wanted = (times[1:].T * sign).contiguous(), (ts * sign).contiguous()
    flat = torch.searchsorted(ends, wanted).flatten()
    reached = (wanted <= ends[:, -1:]).flatten().nonzero().flatten()
    chosen = reached[flat[reached].argsort(stable=True)]
    groups = chosen.split(torch.bincount(flat[reached], minlength=steps).tolist())
    n = ts.shape[1]
    return Plan(
        times,
        [group // n for group in groups],
        [group % n for group in groups],
        [ts.flatten()[group] for group in groups],
        restarts,
        n,
    )


def walk(
    bound: Bound,
    solver: Solver,
    plan: Plan,
    y: Tensor,
    *,
    carry: Carry | None = None,
    first: int = 0,
    last: int | None = None,
    visit: Callable[[int, StepInfo, Step], None] | None = None,
) -> tuple[Tensor, Carry | None, list[tuple[Tensor, Tensor, Tensor]]]:
    """Take the steps ``first`` to ``last`` of a plan from the state y.

    Returns:
        The state at the end, what the next step would need, and the saved states as (rows, columns, values).
    """
    saved = []
    last = plan.steps if last is None else last
    times = plan.times.unbind()
    for i in range(first, last):
        t0, t1 = times[i], times[i + 1]
        begin, end = (t0, t1) if plan.inner is None else plan.span(i)
        if carry is None or i in plan.restarts:
            carry = solver.start(bound, begin, y)
        before = bound.evaluations
        step = solver.step(bound, begin, end, y, carry)
        if len(plan.rows[i]):
            values = solver.interpolate(step, y, t0, t1, plan.rows[i], plan.targets[i])
            saved.append((plan.rows[i], plan.columns[i], values))
        if visit is not None:
            used = bound.evaluations - before
            visit(i, StepInfo(t0, t1, y, step.y, step.error, step.stages, solver, used), step)
        y, carry = step.y, step.carry
    return y, carry, saved


def gather(saved: list[tuple[Tensor, Tensor, Tensor]], batch: int, count: int, y: Tensor) -> Tensor:
    """Saved states as one tensor (batch, count, size); NaN where a trajectory did not come to the time."""
    ys = torch.full((batch, count, y.shape[1]), torch.nan, dtype=y.dtype, device=y.device)
    if not saved:
        return ys
    rows, columns, values = (torch.cat(parts) for parts in zip(*saved, strict=True))
    return ys.index_put((rows, columns), values)

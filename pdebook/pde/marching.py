"""Steps in time of a batch in which every sample has its own: to its own times, until all have arrived."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["FlowError", "Trajectory", "listed", "march", "per_sample", "raise_faults", "save_times"]

_FAULTS = ("", "is not finite", "has density, depth or pressure that is not positive", "violates the CFL condition")


class FlowError(ArithmeticError):
    """A solution that could not be continued.

    Attributes:
        trajectory: what was reached.
    """

    def __init__(self, message: str, trajectory: "Trajectory") -> None:
        super().__init__(message)
        self.trajectory = trajectory


@dataclass(frozen=True)
class Trajectory:
    """What ``advance`` gives.

    Attributes:
        u: states at the times, (batch, times, channel, *grid); not numbers where a sample did not arrive.
        times: (batch, times).
        steps: steps that each sample took, (batch,).
        fault: 0 for samples that arrived; 1: not finite, 2: not positive, 3: step too long; (batch,).
        failed_step: number of the step that led to the fault (would have been too long), from 1, or 0; (batch,).
        failed_time: time at its end (start), or 0; (batch,).
    """

    u: Tensor
    times: Tensor
    steps: Tensor
    fault: Tensor
    failed_step: Tensor
    failed_time: Tensor


Step = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""The state after a step, of the state, what ``Look`` made of it, and Δt and t, (batch,)."""

Look = Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
"""Of a state: what the step needs of it; of each sample the longest stable step, the rate that makes the Courant number of a step, and
the fault: 0, 1 if it is not finite, 2 if it is not positive."""


def march(
    step: Step,
    look: Look,
    u: Tensor,
    t: Tensor,
    saves: Tensor,
    *,
    fixed: Tensor | None,
    longest: Tensor | None,
    read_every: int,
    max_steps: int,
    stop: bool,
) -> tuple[Tensor, ...]:
    """States at given times; see ``FiniteVolume.advance``.

    Args:
        step: see ``Step``.
        look: see ``Look``.
        u: states at the start, (batch, ...).
        t: times at the start, (batch,), in float64 as all times.
        saves: times to save, (batch, n), increasing.
        fixed: length of the steps, (batch,), or None.
        longest: longest steps, (batch,), or None.
        read_every: steps between two looks at the device.
        max_steps: most steps.
        stop: whether to stop at the first look that finds a fault.
    Returns:
        The states, (batch, n, ...), and of each sample: steps, fault, failed step, failed time, whether it arrived.
    """
    batch, count = saves.shape
    rows, last = torch.arange(batch, device=u.device), count - 1
    zero = torch.zeros(batch, dtype=torch.long, device=u.device)
    slot = (saves[:, 0] == t).long()
    record = _Record(zero, zero, zero, torch.zeros_like(t))
    places = torch.zeros(batch, count, dtype=torch.long, device=u.device)
    kept, out = [u], None
    for number in range(max_steps + 1):
        seen, stable, rate, fault = look(u)
        record = record.note(fault, record.steps, t)
        dt = stable if fixed is None else fixed
        if longest is not None:
            dt = torch.minimum(dt, longest)
        active = (slot < count) & (record.fault == 0)
        if fixed is not None:
            # A last digit more than the limit is rounding.
            long = active & (fixed * rate > 1 + 1e-6)
            record = record.note(torch.where(long, 3, 0), record.steps + 1, t)
            active = active & ~long
        if number % read_every == 0 or number == max_steps:
            going = active.any()
            if stop:
                going = going & (record.fault == 0).all()
            if not bool(going):
                break
        if number == max_steps:
            break
        here = slot.clamp_max(last)
        target = saves.gather(1, here[:, None])[:, 0]
        # A step that would leave next to nothing goes all the way.
        lands = active & (dt >= (target - t) * (1 - 1e-9))
        dt = torch.where(active, torch.where(lands, target - t, dt), 0.0)
        u = step(u, seen, dt, t)
        t = torch.where(lands, target, t + dt)
        # A state is written to the next place to save until the time has come, so that nobody has to ask. While gradients
        # are recorded the graph holds every state anyway; which ones were saved is read at the end.
        if u.requires_grad:
            kept.append(u)
            places[rows, here] = len(kept) - 1
        else:
            if out is None:
                out = u.new_empty(batch, count, *u.shape[1:])
                out[:, 0] = kept[0]
            out[rows, here] = u
        slot, record = slot + lands, replace(record, steps=record.steps + active)
    # ``look`` may tell infinities by what they do to the next state; nothing follows the last.
    finite = u.detach().flatten(1).isfinite().all(1)
    record = record.note(torch.where(finite, 0, 1), record.steps, t)
    arrived = slot == count
    states = _gathered(kept, places) if out is None else out
    if not bool(arrived.all()):
        reached = torch.arange(count, device=u.device) < slot[:, None]
        states = torch.where(reached.view(batch, count, *[1] * (u.ndim - 1)), states, math.nan)
    return states, record.steps, record.fault, record.failed_step, record.failed_time, arrived


@dataclass(frozen=True)
class _Record:
    """Steps, and the first fault of each sample."""

    steps: Tensor
    fault: Tensor
    failed_step: Tensor
    failed_time: Tensor

    def note(self, fault: Tensor, step: Tensor, t: Tensor) -> "_Record":
        new = (self.fault == 0) & (fault != 0)
        return _Record(
            self.steps,
            torch.where(new, fault, self.fault),
            torch.where(new, step, self.failed_step),
            torch.where(new, t, self.failed_time),
        )


def _gathered(kept: list[Tensor], places: Tensor) -> Tensor:
    """Of each sample and time the state whose number stands in ``places``."""
    columns = []
    for column in places.cpu().unbind(1):
        numbers = column.unique().tolist()
        members = [(column == number).nonzero().flatten() for number in numbers]
        order = torch.cat(members).argsort().to(kept[0].device)
        picked = [kept[number][rows.to(kept[0].device)] for number, rows in zip(numbers, members, strict=True)]
        columns.append(torch.cat(picked)[order])
    return torch.stack(columns, 1)


def listed(bad: Tensor) -> str:
    """Numbers of samples, the first eight of them."""
    numbers = bad.nonzero().flatten().tolist()
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def per_sample(name: str, value: Any, batch: int, device: torch.device) -> Tensor:
    """One finite number for each sample, in float64."""
    numbers = torch.as_tensor(value, dtype=torch.float64).detach().to(device)
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != batch):
        raise ValueError(f"{name} must be a number or of shape ({batch},), got shape {tuple(numbers.shape)}")
    if not bool(numbers.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {numbers.tolist()}")
    return numbers.expand(batch)


def save_times(times: Any, start: Tensor, batch: int) -> Tensor:
    """Times for each sample, (batch, n), in float64."""
    saves = torch.as_tensor(times, dtype=torch.float64).detach().to(start.device)
    if saves.ndim not in (1, 2) or saves.shape[-1] == 0 or (saves.ndim == 2 and saves.shape[0] != batch):
        raise ValueError(f"times must have shape (n,) or ({batch}, n), n > 0, got shape {tuple(saves.shape)}")
    saves = saves.expand(batch, -1)
    if not bool(saves.isfinite().all() & (saves.diff(dim=1) > 0).all() & (saves[:, 0] >= start).all()):
        raise ValueError(f"times must be finite and increasing, from start = {start.tolist()} on, got {saves.tolist()}")
    return saves


def raise_faults(trajectory: Trajectory, arrived: Tensor, max_steps: int) -> None:
    """Raise for samples that did not arrive, the earliest fault first."""
    fault = trajectory.fault
    if bool(fault.any()):
        first = torch.where(fault != 0, trajectory.failed_step, trajectory.failed_step.max() + 1).argmin()
        kind, step, t = int(fault[first]), int(trajectory.failed_step[first]), float(trajectory.failed_time[first])
        same = (fault == kind) & (trajectory.failed_step == step)
        raise FlowError(
            f"the solution {_FAULTS[kind]} in step {step} at t = {t:.6g}, samples {listed(same)}"
            + (f"; {int((fault != 0).sum())} samples failed in all" if bool((~same & (fault != 0)).any()) else ""),
            trajectory,
        )
    if not bool(arrived.all()):
        raise FlowError(
            f"max_steps = {max_steps} did not suffice, samples {listed(~arrived)} are under way", trajectory
        )

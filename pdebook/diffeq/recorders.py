"""What one may want to know of every accepted step, differentiably: error, stiffness, snapshots, work.

A recorder goes into ``solve(..., record=(recorder,))``, whose ``Solution.records`` holds one list for each, or is called with the
``info`` of a ``single_step``. Gradients go through adjoints ``Direct`` and ``Checkpointed``; the sizes of the steps are constants.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pdebook.diffeq.controllers import PID
from pdebook.diffeq.plan import StepInfo
from pdebook.diffeq.runge_kutta import TableauMethod


class Noted(NamedTuple):
    """A number for each trajectory.

    Attributes:
        value: (batch,); 0 where a trajectory rests.
        moved: which trajectories took the step, (batch,).
    """

    value: Tensor
    moved: Tensor


def reduced(records: list[Noted], reduction: str = "mean") -> Tensor:
    """Sum, mean or maximum over the steps that each trajectory took, (batch,); 0 for one that took none.

    Raises:
        ValueError: no steps, or another reduction.
    """
    if not records:
        raise ValueError("records must hold at least one step")
    if reduction not in ("sum", "mean", "max"):
        raise ValueError(f"reduction must be 'sum', 'mean' or 'max', got {reduction!r}")
    values = torch.stack([value for value, _ in records])
    if reduction == "max":
        return values.amax(0)
    total = values.sum(0)
    return total if reduction == "sum" else total / torch.stack([moved for _, moved in records]).sum(0).clamp(min=1)


@dataclass(frozen=True)
class ErrorEstimate:
    """How large a step's estimated error is, and how long the step: E |h|.

        E = RMS of  error / (atol + rtol max(|y|, |y_1|)),  as ``PID`` has it, so E <= 1;  or the RMS of the error itself

    The sum over the steps of a solve regularises a network's field towards one that is cheap to solve.

    Args:
        controller: whose tolerances and scope count; take that of the solve. With scope "batch" E is that of the whole batch.
        scaled: whether the error is measured by the tolerance.
        by_step: whether E is multiplied by |h|.
    Raises:
        ValueError: when called, a method without error estimate.
    Source: Pal, Ma, Shah and Rackauckas 2021, Opening the blackbox: accelerating neural differential equations by regularizing
        internal solver heuristics.
    """

    controller: PID = field(default_factory=PID)
    scaled: bool = True
    by_step: bool = True

    def __call__(self, info: StepInfo) -> Noted:
        """E |h| of a step."""
        if info.error is None:
            raise ValueError(f"solver {info.solver.name} has no error estimate")
        tolerances = self.controller.tolerances(info.y0.dtype) if self.scaled else (0.0, 1.0)
        value = self.controller.ratio(info.error, info.y0, info.y1, tolerances, None)
        return Noted(torch.where(info.moved, value * info.h.abs() if self.by_step else value, 0.0), info.moved)


@dataclass(frozen=True)
class StiffnessEstimate:
    """How stiff the equation is along a step, from the last two stages, where both are at its end.

        S = ‖k_s - k_{s-1}‖ / ‖Y_s - Y_{s-1}‖    with k_i = f(t_1, Y_i);  0 where the states agree

    It is |λ| for dy/dt = λ y, and between the least and the largest magnitude of an eigenvalue for a symmetric matrix.

    Args:
        scope: "sample", or "batch" for norms over the whole batch.
    Raises:
        ValueError: another scope; when called, a method whose last two stages are at different times, or that has none.
    Source: Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.2.
    """

    scope: str = "sample"

    def __post_init__(self) -> None:
        if self.scope not in ("sample", "batch"):
            raise ValueError(f"scope must be 'sample' or 'batch', got {self.scope!r}")

    def __call__(self, info: StepInfo) -> Noted:
        """S of a step."""
        method = info.solver
        if not isinstance(method, TableauMethod) or method.tableau.stages < 2 or method.tableau.c[-2] != 1.0:
            raise ValueError(
                f"solver {method.name} has no two stages at the end of a step, as a stiffness estimate needs"
            )
        states, slopes = stage_states(info), info.stages
        change, apart = slopes[-1] - slopes[-2], states[-1] - states[-2]
        if self.scope == "batch":
            # One trajectory's h is not another's: slopes themselves.
            h = torch.where(info.moved, info.h, 1.0).to(change.dtype)[:, None]
            rise, run = torch.linalg.vector_norm(change / h), torch.linalg.vector_norm(apart)
            rise, run = rise.expand(len(change)), run.expand(len(change))
        else:
            rise, run = (torch.linalg.vector_norm(v, dim=1) for v in (change, apart))
            run = run * torch.where(info.moved, info.h.abs(), 1.0).to(run.dtype)
        safe = (run > 0) & info.moved
        return Noted(torch.where(safe, rise / torch.where(safe, run, 1.0), 0.0), info.moved)


def stage_states(info: StepInfo) -> Tensor:
    """States Y_i at which a Runge-Kutta method evaluated the field, (stages, batch, size); the last is the end of the step.

    Raises:
        ValueError: another method.
    """
    if not isinstance(info.solver, TableauMethod):
        raise ValueError(f"solver {info.solver.name} has no tableau, so no stage states")
    a = torch.as_tensor(info.solver.tableau.stage_matrix).to(info.stages)
    inner = info.y0 + torch.tensordot(a[:-1], info.stages, 1)
    return torch.cat([inner, info.y1[None]])


def work(info: StepInfo) -> Noted:
    """Calls of the field that a trajectory's accepted steps took; rejected ones and the start are in ``Statistics``."""
    spent = torch.full(info.t0.shape, float(info.evaluations), dtype=torch.float64, device=info.t0.device)
    return Noted(torch.where(info.moved, spent, 0.0), info.moved)


class Snapshot(NamedTuple):
    """Times, states and values of the field at both ends of a step: (2, batch), (2, batch, size) twice; and who took it."""

    t: Tensor
    y: Tensor
    f: Tensor
    moved: Tensor


def snapshot(info: StepInfo) -> Snapshot:
    """Times, states and values of the field at both ends of a step, at no further evaluation.

    Raises:
        ValueError: a method without a tableau.
    """
    if not isinstance(info.solver, TableauMethod):
        raise ValueError(f"solver {info.solver.name} has no tableau, so no values of the field at both ends")
    h = torch.where(info.moved, info.h, 1.0).to(info.y0.dtype)[:, None]
    ends = torch.stack([info.stages[0], info.stages[-1]]) / h
    return Snapshot(torch.stack([info.t0, info.t1]), torch.stack([info.y0, info.y1]), ends, info.moved)


def snapshots(records: list[Snapshot]) -> tuple[Tensor, Tensor, Tensor]:
    """All points that the trajectories stepped on: times (n,), states and values of the field, each (n, size).

    Each trajectory's start, then the ends of its steps, ordered by step and within it by trajectory.

    Raises:
        ValueError: no steps.
    """
    if not records:
        raise ValueError("records must hold at least one step")
    rows = [(first := records[0]).t[0][first.moved], *(r.t[1][r.moved] for r in records)]
    states = [first.y[0][first.moved], *(r.y[1][r.moved] for r in records)]
    fields = [first.f[0][first.moved], *(r.f[1][r.moved] for r in records)]
    return torch.cat(rows), torch.cat(states), torch.cat(fields)

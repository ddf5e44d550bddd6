"""A solution as a function of time: the interpolants of its steps."""

from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.plan import StepInfo, plan_saves
from pdebook.diffeq.runge_kutta import Solver, Step
from pdebook.diffeq.terms import Layout


class Dense:
    """The solution at any time of its span.

    Args:
        solver: the method that made the steps.
        steps: each step as recorders see it, and as the solver made it.
        layout: how a state is laid out.
    """

    def __init__(self, solver: Solver, steps: list[tuple[StepInfo, Step]], layout: Layout) -> None:
        self._solver, self._steps, self._layout = solver, steps, layout
        self.times = torch.stack([steps[0][0].t0, *(info.t1 for info, _ in steps)])

    def __call__(self, t: float | int | Tensor) -> Any:
        """States at times: a number gives (batch, ...), shape (n,) or (batch, n) gives (batch, n, ...).

        Raises:
            ValueError: a time outside the span, or times of another shape.
        """
        times = torch.as_tensor(t, dtype=torch.float64, device=self.times.device)
        single, batch = times.ndim == 0, self.times.shape[1]
        if times.ndim > 2 or (times.ndim == 2 and len(times) not in (1, batch)):
            raise ValueError(f"t must have shape (), (n,) or ({batch}, n), got {tuple(times.shape)}")
        ts = (times.reshape(1, -1) if times.ndim < 2 else times).expand(batch, -1)
        low, high = torch.minimum(self.times[0], self.times[-1]), torch.maximum(self.times[0], self.times[-1])
        if not bool(((ts >= low[:, None]) & (ts <= high[:, None])).all()):
            raise ValueError(f"t must lie in the span of the solution, [{float(low.min())}, {float(high.max())}]")
        plan = plan_saves(self.times, ts)
        first = self._steps[0][0].y0
        ys = torch.empty(batch, ts.shape[1], first.shape[1], dtype=first.dtype, device=first.device)
        for (info, step), rows, columns, targets in zip(
            self._steps, plan.rows, plan.columns, plan.targets, strict=True
        ):
            if len(rows):
                values = self._solver.interpolate(step, info.y0, info.t0, info.t1, rows, targets)
                ys = ys.index_put((rows, columns), values)
        return self._layout.unflatten(ys[:, 0] if single else ys)

"""Forecasts: series from their first states, the loss of such forecasts, and batches whose horizon grows.

Any field f(t, y) will do: known, learnt, or both; see ``neural_differential_equations`` for models.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.diffeq.controllers import Grid
from pdebook.diffeq.runge_kutta import Solver
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import ODE

Function = Callable[..., Tensor]


def growing_horizon(
    times: Float[Tensor, " time"], data: Float[Tensor, "batch time dim"], *, first: int, over: int
) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    """Batches for ``fit``: all series, cut after ``first`` intervals at step 0 and growing linearly to all of them at step ``over``.

    Long forecasts of an untrained field have gradients that lead nowhere; short ones do not.

    Args:
        times: (n + 1,) times.
        data: series at these times.
        first: intervals at the first step, 1 to n.
        over: step from which on all intervals count; 0 for all from the beginning.
    Raises:
        ValueError: intervals or a step out of range.
    """
    last = len(times) - 1
    if not 1 <= first <= last or over < 0:
        raise ValueError(f"first must be in 1 to {last} and over not negative, got {first} and {over}")

    def batches(seed: int, step: int) -> tuple[Tensor, Tensor]:
        done = 1.0 if step >= over else step / over
        end = first + math.floor((last - first) * done) + 1
        return times[:end], data[:, :end]

    return batches


def forecast(
    field: Function,
    start: Float[Tensor, "batch dim"],
    times: Float[Tensor, " time"],
    *,
    solver: Solver | str = "rk4",
    substeps: int = 1,
) -> Float[Tensor, "batch time dim"]:
    """States of dy/dt = field(t, y) at the times, the first of which is the start's, with ``substeps`` steps in each interval."""
    fractions = torch.arange(substeps, dtype=torch.float64, device=times.device) / substeps
    clock = times.double()
    fine = torch.cat([(clock[:-1, None] + clock.diff()[:, None] * fractions).flatten(), clock[-1:]])
    ys = solve(ODE(field), start, float(clock[0]), float(clock[-1]), solver=solver, controller=Grid(fine), ts=clock).ys
    return ys


def forecast_loss(field: nn.Module, batch: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
    """Mean square error of the forecast from each series' first state; a batch is (times, series)."""
    times, data = batch
    return (forecast(field, data[:, 0], times) - data).square().mean()

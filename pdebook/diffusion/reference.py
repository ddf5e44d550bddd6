"""Reference solutions of the probability-flow ODE that state their own error."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.sampling import check_state, columns


@dataclass(frozen=True)
class Reference:
    """A reference solution.

    Attributes:
        x: samples at the end, shape (batch, ...), in the dtype of the input.
        error: largest root mean square over samples of the change when the number of steps was last doubled: an upper estimate.
        steps: steps of the finer of the two solutions.
    """

    x: Tensor
    error: float
    steps: int


_SUBSTEPS = (2, 4, 6, 8)


def probability_flow(
    denoiser: Denoiser,
    x: Float[Tensor, "batch ..."],
    start: float,
    end: float,
    *,
    tolerance: float = 1e-6,
    steps: int = 16,
    max_steps: int = 1024,
) -> Reference:
    """Solve dy/dλ = -e^{-λ} ε(α y, t) for y = x/α from ``start`` to ``end`` by extrapolation of order 8, in float64.

    Each step extrapolates the modified midpoint rule with 2, 4, 6 and 8 substeps (Gragg, Bulirsch and Stoer); steps are uniform in
    λ. Their number is doubled until the solution changes by at most ``tolerance``.

    Args:
        denoiser: model; it is evaluated in float64, so a network must be in double precision.
        x: samples at ``start``.
        start: first time.
        end: last time.
        tolerance: bound on the root mean square change of every sample.
        steps: number of steps to begin with.
        max_steps: largest number of steps.
    Raises:
        ValueError: a tolerance that is not positive, no steps, an unusable state, or times out of range or not falling.
        ArithmeticError: the tolerance is not reached with ``max_steps``.
    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section II.9.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    check_state(x)
    columns((start, end), x, denoiser.schedule, rising=end > start)
    coarse = _solve(denoiser, x.double(), start, end, steps)
    while True:
        steps *= 2
        fine = _solve(denoiser, x.double(), start, end, steps)
        error = float((fine - coarse).flatten(1).square().mean(1).sqrt().max())
        if error <= tolerance:
            return Reference(fine.to(x.dtype), error, steps)
        if 2 * steps > max_steps or not math.isfinite(error):
            raise ArithmeticError(
                f"tolerance {tolerance} was not reached with {steps} steps: the last change was {error:.3g}"
            )
        coarse = fine


@torch.no_grad()
def _solve(denoiser: Denoiser, x: Tensor, start: float, end: float, steps: int) -> Tensor:
    schedule = denoiser.schedule
    first, last = float(schedule.half_log_snr(start)), float(schedule.half_log_snr(end))
    h = (last - first) / steps

    def slope(y: Tensor, half_log_snr: float) -> Tensor:
        t = min(float(schedule.time(half_log_snr)), schedule.t_max)
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        return denoiser.noise(alpha * y, t) * (-sigma / alpha)

    y = x / float(schedule.alpha(start))
    for i in range(steps):
        here = first + i * h
        begin = slope(y, here)
        row: list[Tensor] = []
        for j, n in enumerate(_SUBSTEPS):
            new = [_midpoint(slope, y, begin, here, h, n)]
            for k in range(j):
                ratio = (n / _SUBSTEPS[j - 1 - k]) ** 2
                new.append(new[k] + (new[k] - row[k]) / (ratio - 1.0))
            row = new
        y = row[-1]
    return y * float(schedule.alpha(end))


def _midpoint(
    slope: Callable[[Tensor, float], Tensor], y: Tensor, begin: Tensor, here: float, h: float, n: int
) -> Tensor:
    """Modified midpoint rule with n substeps and no smoothing (n is even)."""
    size = h / n
    old, new = y, y + size * begin
    for m in range(1, n):
        old, new = new, old + 2.0 * size * slope(new, here + m * size)
    return new

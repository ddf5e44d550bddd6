"""What the statistics of a model are made from: levels, regression at one of them, interpolation, released arrays.

Source: Zheng, Lu, Chen, Zhu: DPM-Solver-v3, NeurIPS 2023, and the official code.
"""

# ruff: noqa: E741 - l is the paper's name

import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from scipy.interpolate import CubicSpline
from torch import Tensor

from pdebook.diffusion.affine import axpby
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.derivatives import noise_jvp
from pdebook.diffusion.schedules import NoiseSchedule

__all__ = [
    "array_of",
    "differences",
    "f_and_rate",
    "least_squares",
    "levels_between",
    "probed_level",
    "recognised",
    "spline",
]

NO_VARIANCE = (1e-5, 1e-8)
"""Below these fractions, of the largest mean square of f and of that of the data, the variance of f in a dimension counts as none.

What varies so little adds nothing to a step's error; its s would be a quotient of the errors of l and l', which can be wild.
"""

PARTS = 8
"""A schedule is recognised by its times and signal levels at the ends of this many intervals."""


def probed_level(intervals: int) -> int:
    """Level at which a model is recognised: models differ little where nearly all is noise."""
    return 3 * intervals // 4


def levels_between(schedule: NoiseSchedule, times: list[float]) -> Float64[Tensor, " levels"]:
    """Equidistant grid of λ between the first and the last time."""
    first, last = (float(schedule.half_log_snr(t)) for t in (times[0], times[-1]))
    return torch.linspace(first, last, len(times), dtype=torch.float64)


def recognised(schedule: NoiseSchedule, grid: Tensor) -> Float64[Tensor, "2 parts"]:
    """Times and log α at evenly spaced levels between the ends of a grid."""
    first, last = float(grid[0]), float(grid[-1])
    times = [float(schedule.time(first + (last - first) * k / PARTS)) for k in range(PARTS + 1)]
    return torch.tensor([times, [float(schedule.log_alpha(t)) for t in times]], dtype=torch.float64)


def spline(grid: Tensor, values: Tensor) -> CubicSpline:
    """The cubic spline through values on a grid."""
    return CubicSpline(grid.numpy(), values.cpu().numpy(), axis=0)


def f_and_rate(denoiser: Denoiser, x: Tensor, t: float, l: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """f and its derivative in λ along the flow, at one level, in float64."""
    schedule = denoiser.schedule
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    # d log α/dλ, with dλ/dt = -g²/(2 σ²).
    drift = -2.0 * sigma**2 * schedule.drift(t) / schedule.diffusion_squared(t)
    flow = axpby(drift, x, -sigma, denoiser.noise(x, t))
    noise, rate = (part.double() for part in noise_jvp(denoiser, x, t, flow, rate=1.0))
    x = x.double()
    return (sigma * noise - l * x) / alpha, ((l - 1.0) * noise + rate) * sigma / alpha - slope * x / alpha


def least_squares(f: Tensor, rate: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """s and b of the regression rate ≈ s f + b in each dimension, and their standard errors; ``scale``: mean square of the data."""
    n, mean = len(f), f.mean(0)
    variance = (f - mean).square().mean(0)
    varies = variance > torch.maximum(NO_VARIANCE[0] * f.square().mean(0).max(), NO_VARIANCE[1] * scale)
    safe = torch.where(varies, variance, 1.0)
    s = torch.where(varies, ((f - mean) * (rate - rate.mean(0))).mean(0) / safe, 0.0)
    b = rate.mean(0) - s * mean
    rest = (rate - s * f - b).square().sum(0) / (n - 2)
    s_error = torch.where(varies, (rest / (n * safe)).sqrt(), 0.0)
    b_error = (rest / n * torch.where(varies, 1.0 + mean.square() / safe, 1.0)).sqrt()
    return s, b, s_error, b_error


def differences(places: list[float], pseudo: bool) -> np.ndarray:
    """Matrix D: derivative k at places[0] of the interpolating polynomial is Σ_i D_ki (value at places[i]).

    Pseudo: derivative k is that of the polynomial through the first k + 1 places alone, k! times a divided difference.
    """
    n = len(places)
    scale = max(1e-300, *map(abs, places))
    result = np.zeros((n, n))
    for k in range(n):
        used = k + 1 if pseudo else n
        powers = np.vander(np.array(places[:used]) / scale, increasing=True)
        result[k, :used] = math.factorial(k) / scale**k * np.linalg.inv(powers)[k]
    return result


def array_of(path: Path, name: str) -> np.ndarray:
    """One array of an npz file, unpickled never."""
    try:
        if not zipfile.is_zipfile(path) and Path(path).exists():
            raise ValueError("it is no npz file")
        with np.load(path, allow_pickle=False) as file:
            if name not in file:
                raise ValueError(f"it lacks the array {name!r}")
            array = np.asarray(file[name])
            array = array.astype(np.float64) if array.dtype.kind == "f" else array
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} holds no released statistics: {error}") from error
    if array.dtype.kind != "f" or array.ndim < 1:
        raise ValueError(f"{path} holds no released statistics: {name!r} is {array.dtype} of shape {array.shape}")
    return array

"""PDEBench's initial states and coefficients, each a function of the seed and of the sample's number alone.

| problem | start |
|---|---|
| advection, Burgers, reaction-diffusion | ``SineSums``, ``sine_sums`` |
| compressible flow in one dimension | ``random_flow_1d``, ``shocks_1d``, ``SOD`` with ``riemann`` |
| compressible flow in two or three | ``random_flow``, ``turbulence``, ``kelvin_helmholtz``, ``orszag_tang``, ``blast`` |
| Darcy flow | ``darcy_coefficient``, ``darcy_start`` |
| shallow water, diffusion-reaction, diffusion-sorption | ``dam_break``, ``reaction_noise``, ``sorption_start`` |
| incompressible flow | ``smooth_noise`` |

Compressible states are primitive, (density, velocity, pressure). All values stand at cell centres. Written from formulas, not
from the benchmark's generators, whose licence forbids their use here; where those deviate from what they document, the word
"released" chooses what they do.

Source: Takamoto et al., PDEBench: an extensive benchmark for scientific machine learning, NeurIPS 2022 (arXiv:2210.07182).
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.pde.draws import Device, Samples, between, check_choice, draw, need_axes, pair, window
from pdebook.pde.fields import gaussian_field
from pdebook.pde.flow_starts import (
    blast,
    box_window,
    dam_break,
    kelvin_helmholtz,
    mean_of_size,
    orszag_tang,
    random_flow,
    turbulence,
    wave_sum,
)
from pdebook.pde.grid import Grid
from pdebook.pde.media import gaussian_bumps
from pdebook.pde.riemann import SOD, Shocktube
from pdebook.pde.starts_1d import SineSums, random_flow_1d, riemann, shocks_1d, sine_sums, sorption_start
from pdebook.rng import fold_in, normal

__all__ = [
    "SOD",
    "Shocktube",
    "SineSums",
    "blast",
    "dam_break",
    "darcy_coefficient",
    "darcy_start",
    "kelvin_helmholtz",
    "orszag_tang",
    "random_flow",
    "random_flow_1d",
    "reaction_noise",
    "riemann",
    "shocks_1d",
    "sine_sums",
    "smooth_noise",
    "sorption_start",
    "turbulence",
    "wave_sum",
    "window",
]


def reaction_noise(
    seed: int, samples: Samples, grid: Grid, *, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> Float[Tensor, "batch 2 *size"]:
    """Independent standard normal numbers in each cell: the problem itself changes with the mesh."""
    return normal(fold_in(seed, "reaction noise"), samples, (2, *grid.size), dtype=dtype, device=device)


def smooth_noise(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    channels: int = 1,
    scale: float = 0.4,
    smoothness: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch channels *size"]:
    """A periodic field of unit variance, σ(k) = k^(-2 smoothness) for wavelengths up to ``scale``: the fields of problem 10.

    The benchmark takes PhiFlow's noise there; this is a reconstruction of its kind, not of its numbers.
    """
    shortest = 1 / math.hypot(
        *(max((n - 1) // 2, 1e-300) / side for n, side in zip(grid.size, grid.length, strict=True))
    )
    if not scale >= shortest * (1 - 1e-9):
        raise ValueError(f"scale must be at least {shortest:.3g}, the shortest wavelength of the grid, got {scale}")
    k0 = 2 * math.pi / scale

    def spectrum(k: Tensor) -> Tensor:
        return torch.where(k >= k0 * (1 - 1e-9), (k / k0) ** (-2 * smoothness), 0.0)

    u = gaussian_field(
        fold_in(seed, "smooth noise"), samples, grid, spectrum, channels=channels, dtype=torch.float64, device=device
    )
    shape = [len(u), channels, *[1] * grid.dims]
    return (u / u.flatten(2).std(-1, correction=0).reshape(shape)).to(dtype)


def darcy_coefficient(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    low: float = 0.1,
    high: float = 1.0,
    level: str | float = "sample",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch 1 nx ny"]:
    """``high`` where Σ_i exp(-|x - m_i|²/s_i) exceeds a level, else ``low``; five m_i uniform in the box, s_i in (0, 0.5).

    Args:
        level: "sample", the mean of the sample's sum; "released", the mean over the whole batch, so that a sample depends on
            its company; or a number, such as the batch mean of a whole data set.
        seed, samples, grid, dtype, device: as in ``SineSums.draw``.
    """
    need_axes(grid, (2,))
    if isinstance(level, str):
        check_choice("level", level, ("sample", "released"))
    draws = draw(seed, "darcy coefficient", samples, (5, 3), device)
    low_, side = (torch.tensor(t, dtype=torch.float64, device=device) for t in (grid.origin, grid.length))
    width = (0.5 * draws[..., 2] / 2).sqrt()
    g = gaussian_bumps(grid, low_ + side * draws[..., :2], width, torch.ones_like(width), periodic=False)
    edge: Any = level
    if isinstance(level, str):
        edge = g.mean((1, 2, 3), keepdim=True) if level == "sample" else g.mean()
    return torch.where(g > edge, *pair(g, high, low)).to(dtype)


def darcy_start(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    windowed: float | int = 0.5,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch 1 nx ny"]:
    """Start of the transient whose t = 1.75 the files hold: u_0 + δ w, w a wave sum of mean absolute value one.

    u_0 is uniform in (0.1, 10), δ in (0.01, 0.5); a window, with probability ``windowed``, leaves u_0 outside.
    """
    need_axes(grid, (2,))
    draws = draw(seed, "darcy start", samples, (2, 1, 1, 1), device)
    own = fold_in(seed, "darcy start")
    w = wave_sum(own, samples, grid, device=device)
    w = w / mean_of_size(w) * box_window(grid, own, samples, windowed, device)
    return (between(draws[:, 0], 0.1, 10.0) + between(draws[:, 1], 0.01, 0.5) * w).to(dtype)

"""PDEBench's starts in one dimension: sums of sines, random flows, shocks and tubes; see ``starts``."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pdebook.pde.draws import Device, Samples, between, check_choice, draw, log_between, need_axes, window, window_ends
from pdebook.pde.grid import Grid
from pdebook.pde.media import rescale
from pdebook.pde.riemann import Shocktube
from pdebook.rng import fold_in, integers

__all__ = ["SineSums", "random_flow_1d", "riemann", "shocks_1d", "sine_sums", "sorption_start"]


@dataclass(frozen=True)
class SineSums:
    """u(x) = sign · |Σ_j A_j sin(κ_j x + φ_j)| or without the bars, times a window or not: functions, to be evaluated anywhere.

    Attributes:
        amplitude: A.
        wavenumber: κ.
        phase: φ.
        sign: 1 or -1.
        absolute: whether the bars stand.
        windowed: whether the window does.
        left, right: ends of the window.
    """

    amplitude: Float[Tensor, "batch terms"]
    wavenumber: Float[Tensor, "batch terms"]
    phase: Float[Tensor, "batch terms"]
    sign: Float[Tensor, " batch"]
    absolute: Bool[Tensor, " batch"]
    windowed: Bool[Tensor, " batch"]
    left: Float[Tensor, " batch"]
    right: Float[Tensor, " batch"]

    @classmethod
    def draw(
        cls,
        seed: int,
        samples: Samples,
        grid: Grid,
        *,
        terms: int = 4,
        absolute: float | int = 0.1,
        windowed: float | int = 0.1,
        period: str = "released",
        device: Device = "cpu",
    ) -> "SineSums":
        """κ_j = 2π j s_j / L', where s_j counts how often j was drawn in two draws from 1, ..., terms, with replacement.

        A mode that was not drawn adds the constant A_j sin φ_j, so the mean is random; one drawn twice has wavenumber 2j.
        A_j is uniform in (0, 1), φ_j in (0, 2π), the sign fair, the window's ends uniform in (0.1, 0.45) and (0.55, 0.9).

        Args:
            seed: seed.
            samples: sample numbers.
            grid: gives L and Δx.
            terms: 4 for scalar equations, 3 for compressible flow.
            absolute: probability of the bars.
            windowed: probability of the window; 0.5 for compressible flow.
            period: "released", L' = L - Δx, which jumps a little over the periodic end; or "exact", L' = L.
            device: where the draws live.
        Raises:
            ValueError: a grid of more axes than one, another period.
        """
        need_axes(grid, (1,))
        check_choice("period", period, ("released", "exact"))
        if terms < 1 or (period == "released" and grid.size[0] < 2):
            raise ValueError(
                f"terms must be positive, and the released period needs two cells, got {terms} and {grid.size[0]}"
            )
        drawn = integers(fold_in(seed, "modes"), samples, terms, (2,), device=device)
        count = torch.nn.functional.one_hot(drawn, terms).sum(1)
        length = grid.length[0] - (grid.spacing[0] if period == "released" else 0.0)
        shape = draw(seed, "amplitude and phase", samples, (2, terms), device)
        other = draw(seed, "sign", samples, (2,), device)
        left, right, inside = window_ends(seed, samples, 1, windowed, device)
        return cls(
            amplitude=shape[:, 0],
            wavenumber=2 * math.pi / length * (count * torch.arange(1, terms + 1, device=device)).double(),
            phase=2 * math.pi * shape[:, 1],
            sign=torch.where(other[:, 1] < 0.5, 1.0, -1.0).double(),
            absolute=other[:, 0] < absolute,
            windowed=inside,
            left=left[:, 0],
            right=right[:, 0],
        )

    def __call__(self, x: Float[Tensor, "batch_or_1 points"]) -> Float[Tensor, "batch points"]:
        """The functions at points, the same for all samples or each its own; x - βt, brought back into the box, advects them."""
        angle = self.wavenumber[:, :, None] * x[:, None].double() + self.phase[:, :, None]
        u = torch.einsum("bj,bjn->bn", self.amplitude, angle.sin())
        u = torch.where(self.absolute[:, None], u.abs(), u) * self.sign[:, None]
        return torch.where(self.windowed[:, None], u * window(x, self.left[:, None], self.right[:, None]), u)


def sine_sums(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    terms: int = 4,
    absolute: float | int = 0.1,
    windowed: float | int = 0.1,
    period: str = "released",
    unit: bool = False,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch 1 n"]:
    """``SineSums`` at the cell centres, for advection and Burgers; rescaled to [0, 1] if ``unit``, for reaction-diffusion."""
    sums = SineSums.draw(
        seed, samples, grid, terms=terms, absolute=absolute, windowed=windowed, period=period, device=device
    )
    u = sums(grid.coordinates(device=device)[0][None])[:, None]
    return (rescale(u) if unit else u).to(dtype)


def random_flow_1d(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    windowed: float | int = 0.5,
    period: str = "released",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch 3 n"]:
    """(density, velocity, pressure), sine sums of three terms; density and pressure brought to [b, b + m].

    b and m are log-uniform, in [1, 10] for the density and in [10, 100] for the pressure.
    """
    fields = []
    for name, least in (("density", 1.0), ("velocity", None), ("pressure", 10.0)):
        own = fold_in(seed, name)
        u = sine_sums(own, samples, grid, terms=3, windowed=windowed, period=period, dtype=torch.float64, device=device)
        if least is not None:
            factor = log_between(draw(own, "range", samples, (2, 1, 1), device), least, 10 * least)
            u = rescale(u) * factor[:, 0] + factor[:, 1]
        fields.append(u)
    return torch.cat(fields, 1).to(dtype)


def shocks_1d(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    velocity: str = "released",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch 3 n"]:
    """(density, velocity, pressure), constant on either side of a jump between a quarter and three quarters of the cells.

    The density is log-uniform in [1, 10], the pressure in [10, 100].

    Args:
        velocity: "released", e to a uniform number in (-0.5, 0.5), so never negative; "intended", that number itself.
        seed, samples, grid, dtype, device: as in ``SineSums.draw``.
    """
    need_axes(grid, (1,))
    check_choice("velocity", velocity, ("released", "intended"))
    n = grid.size[0]
    draws = draw(seed, "shocks", samples, (7,), device)
    density, pressure = log_between(draws[:, 0:2], 1.0, 10.0), log_between(draws[:, 2:4], 10.0, 100.0)
    speed = between(draws[:, 4:6], -0.5, 0.5)
    states = torch.stack([density, speed.exp() if velocity == "released" else speed, pressure], 1)
    jump = between(draws[:, 6], 0.25 * n, 0.75 * n).long()
    right = torch.arange(n, device=device) >= jump[:, None]
    return torch.where(right[:, None], states[:, :, 1:], states[:, :, :1]).to(dtype)


def riemann(
    grid: Grid, problem: Shocktube, *, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> Float[Tensor, "1 3 n"]:
    """(density, velocity, pressure) of a shock tube."""
    need_axes(grid, (1,))
    right = torch.arange(grid.size[0], device=device) >= round(problem.position * grid.size[0])
    states = torch.tensor([problem.left, problem.right], dtype=dtype, device=device)
    return states[right.long()].T[None]


def sorption_start(
    seed: int, samples: Samples, grid: Grid, *, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> Float[Tensor, "batch 1 n"]:
    """Diffusion-sorption: one constant for a sample, uniform in (0, 0.2)."""
    need_axes(grid, (1,))
    return (0.2 * draw(seed, "sorption", samples, (1, 1), device)).expand(-1, -1, grid.size[0]).to(dtype)

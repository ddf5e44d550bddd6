"""PDEBench's starts of flows in two and three dimensions: random, turbulent, sheared, blasts and breaking dams; see ``starts``."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.pde.draws import (
    Device,
    Number,
    Samples,
    as_field,
    between,
    check_choice,
    draw,
    need_axes,
    pair,
    window,
    window_ends,
)
from pdebook.pde.grid import Grid
from pdebook.rng import fold_in

__all__ = [
    "blast",
    "dam_break",
    "kelvin_helmholtz",
    "orszag_tang",
    "random_flow",
    "turbulence",
    "wave_sum",
]


def _axis(grid: Grid, axis: int, device: Device) -> Tensor:
    return grid.coordinates(device=device)[axis].flatten()


def wave_sum(
    seed: int, samples: Samples, grid: Grid, *, largest: int = 4, channels: int = 1, device: Device = "cpu"
) -> Float[Tensor, "batch channels *size"]:
    """Σ |k|^(-p) sin(k·x + φ) over k = 2πm/L with all 0 < |m_j| <= largest; p = 1/2 in two dimensions, 1 in three; φ uniform.

    In float64.
    """
    need_axes(grid, (2, 3))
    if largest < 1:
        raise ValueError(f"largest must be at least 1, got {largest}")
    d = grid.dims
    numbers = [m for m in range(-largest, largest + 1) if m]
    m = torch.tensor(numbers, dtype=torch.float64, device=device)
    k = [2 * math.pi * m / side for side in grid.length]
    length = torch.stack(torch.meshgrid(*k, indexing="ij")).square().sum(0).sqrt()
    phase = 2 * math.pi * draw(seed, "wave phases", samples, (channels, *length.shape), device)
    c = torch.polar(length ** (-0.5 if d == 2 else -1.0) * torch.ones_like(phase), phase)
    for axis in range(d):
        angle = _axis(grid, axis, device)[:, None] * k[axis]
        c = torch.tensordot(c, torch.polar(torch.ones_like(angle), angle), dims=([2], [1]))
    return c.imag


def box_window(grid: Grid, seed: int, samples: Tensor, chance: float, device: Device) -> Tensor:
    """Product of the windows of all axes, or one; (batch, 1, *size)."""
    d = grid.dims
    left, right, inside = window_ends(seed, samples, d, chance, device)
    total = torch.ones(len(samples), 1, *[1] * d, dtype=torch.float64, device=device)
    for axis, x in enumerate(grid.coordinates(device=device)):
        low, high = (end[:, axis].reshape(-1, *[1] * (d + 1)) for end in (left, right))
        total = total * window(x, low, high)
    return torch.where(inside.reshape(-1, *[1] * (d + 1)), total, 1.0)


def mean_of_size(u: Tensor) -> Tensor:
    """Mean over the box of |u|, u of shape (batch, channels, *size): (batch, 1, 1, ...)."""
    axes = tuple(range(1, u.ndim))
    return u.square().sum(1, keepdim=True).sqrt().mean(axes, keepdim=True)


def random_flow(
    seed: int,
    samples: Samples,
    grid: Grid,
    mach: Number = 0.1,
    *,
    gamma: float = 5 / 3,
    windowed: float | int = 0.5,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch channels *size"]:
    """(density, velocity, pressure) from wave sums: ρ = d_0 (1 + δ_ρ w), p = d_0 T_0 (1 + δ_p w'), mean speed mach · sqrt(Γ T_0).

    d_0 and T_0 are uniform in (0.1, 10), the δ in (0.01, 0.2), the w have mean absolute value one. A window, with probability
    ``windowed``, leaves (d_0, 0, d_0 T_0) outside.

    Args:
        mach: Mach number, one or (batch,).
        gamma: ratio of specific heats.
        seed, samples, grid, dtype, device: as in ``SineSums.draw``.
    """
    need_axes(grid, (2, 3))
    d = grid.dims
    draws = draw(seed, "flow", samples, (4, 1, *[1] * d), device)
    d0, t0 = between(draws[:, 0], 0.1, 10.0), between(draws[:, 1], 0.1, 10.0)
    sums = {
        name: wave_sum(fold_in(seed, name), samples, grid, channels=channels, device=device)
        for name, channels in (("density", 1), ("velocity", d), ("pressure", 1))
    }
    unit = {name: u / mean_of_size(u) for name, u in sums.items()}
    inside = box_window(grid, seed, samples, windowed, device)
    density = d0 * (1 + between(draws[:, 2], 0.01, 0.2) * unit["density"] * inside)
    pressure = d0 * t0 * (1 + between(draws[:, 3], 0.01, 0.2) * unit["pressure"] * inside)
    velocity = (
        unit["velocity"] * as_field("mach", mach, d, device, strict=False)[:, None] * (gamma * t0).sqrt() * inside
    )
    return torch.cat([density, velocity, pressure], 1).to(dtype)


def _project(v: Tensor, grid: Grid, shift: int) -> Tensor:
    """v - k (k·v)/k² in Fourier space, with mode numbers moved by ``shift``; the real part.

    Without a shift the modes n/2 are dropped: their divergence cannot be seen on the grid.
    """
    d = grid.dims
    axes = tuple(range(-d, 0))
    c = torch.fft.fftn(v, dim=axes)
    numbers = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=v.device) for n in grid.size]
    mesh = torch.meshgrid(
        *[2 * math.pi * (m + shift) / L for m, L in zip(numbers, grid.length, strict=True)], indexing="ij"
    )
    k = torch.stack(list(mesh))
    square = k.square().sum(0)
    c = c - k * (k * c).sum(1, keepdim=True) / torch.where(square > 0, square, 1.0)
    if shift == 0:
        last = torch.stack(
            torch.meshgrid(*[2 * m.abs() == n for m, n in zip(numbers, grid.size, strict=True)], indexing="ij")
        )
        c = torch.where(last.any(0), 0.0, c)
    return torch.fft.ifftn(c, dim=axes).real


def turbulence(
    seed: int,
    samples: Samples,
    grid: Grid,
    mach: Number = 1.0,
    *,
    gamma: float = 5 / 3,
    projection: str = "correct",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch channels *size"]:
    """(1, velocity, 1/(Γ mach²)): a wave sum made solenoidal, of mean speed one.

    Args:
        mach: Mach number, one or (batch,).
        gamma: ratio of specific heats.
        projection: "correct"; or "released", whose mode numbers are one too low, so that a tenth of the divergence is left.
        seed, samples, grid, dtype, device: as in ``SineSums.draw``.
    """
    check_choice("projection", projection, ("correct", "released"))
    v = wave_sum(seed, samples, grid, channels=grid.dims, device=device)
    v = _project(v, grid, 0 if projection == "correct" else -1)
    v = v / mean_of_size(v)
    pressure = (1 / (gamma * as_field("mach", mach, grid.dims, device).square()))[:, None].expand_as(v[:, :1])
    return torch.cat([torch.ones_like(v[:, :1]), v, pressure], 1).to(dtype)


def kelvin_helmholtz(
    grid: Grid,
    mach: Number = 1.0,
    *,
    ratio: Number = 2.0,
    waves: Number = 1.0,
    gamma: float = 5 / 3,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch 4 nx ny"]:
    """Two layers of speed 1 above and -1 below y = ½ + 0.005 sin(2π waves x), densities 2/(ratio + 1) and 2 ratio/(ratio + 1).

    Periodic in x, open in y; parameters are numbers or tensors (batch,).
    """
    need_axes(grid, (2,))
    x, y = grid.mesh(device=device)
    d, m = as_field("ratio", ratio, 2, device), as_field("mach", mach, 2, device)
    waves_ = as_field("waves", waves, 2, device, strict=False)
    above = y > 0.5 + 0.005 * torch.sin(2 * math.pi * waves_ * x)
    density = torch.where(above, 2 / (d + 1), 2 * d / (d + 1))
    speed = torch.where(above, 1.0, -1.0).double()
    parts = torch.broadcast_tensors(density, speed, torch.zeros_like(speed), 1 / (gamma * m.square()))
    return torch.stack(parts, 1).to(dtype)


def orszag_tang(
    grid: Grid, *, gamma: float = 5 / 3, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> Float[Tensor, "1 4 nx ny"]:
    """ρ = Γ², v = (-sin 2πy, sin 2πx), p = Γ: the vortex of Orszag and Tang without its magnetic field."""
    need_axes(grid, (2,))
    x, y = grid.mesh(device=device)
    one = torch.ones_like(x)
    v = (-torch.sin(2 * math.pi * y), torch.sin(2 * math.pi * x))
    return torch.stack([gamma**2 * one, *v, gamma * one])[None].to(dtype)


def _radius(grid: Grid, device: Device) -> Tensor:
    """Distance to the middle of the box."""
    parts = zip(grid.coordinates(device=device), grid.origin, grid.length, strict=True)
    return torch.as_tensor(sum((x - low - side / 2).square() for x, low, side in parts)).sqrt()


def blast(
    grid: Grid,
    *,
    radius: Number = 0.1,
    inner: Number = 10.0,
    outer: Number = 0.1,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch channels *size"]:
    """Density one at rest, pressure ``inner`` within ``radius`` of the middle and ``outer`` beyond; numbers or tensors (batch,)."""
    d = grid.dims
    given = (("radius", radius), ("inner", inner), ("outer", outer))
    r, high, low = (as_field(name, value, d, device) for name, value in given)
    pressure = torch.where(_radius(grid, device) < r, high, low)
    rest = torch.zeros_like(pressure)
    return torch.stack([rest + 1, *[rest] * d, pressure], 1).to(dtype)


def dam_break(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    radius: tuple[float, float] = (0.3, 0.7),
    inner: float = 2.0,
    outer: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch 3 nx ny"]:
    """(h, hu, hv) at rest: depth ``inner`` within a radius that is uniform in its range, ``outer`` beyond."""
    need_axes(grid, (2,))
    if min(inner, outer) <= 0:
        raise ValueError(f"inner and outer must be positive, got {inner} and {outer}")
    r = between(draw(seed, "dam", samples, (1, 1), device), *radius)
    depth = torch.where(_radius(grid, device) <= r, *pair(r, inner, outer)).to(dtype)
    return torch.stack([depth, torch.zeros_like(depth), torch.zeros_like(depth)], 1)

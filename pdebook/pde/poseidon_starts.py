"""Poseidon's initial states on the unit square: incompressible and compressible flow, Allen-Cahn, Poisson sources.

| family | function |
|---|---|
| NS-Sines, NS-Gauss, NS-PwC, NS-SL | ``sines``, ``vortices``, ``squares``, ``shear_layer``: velocity or vorticity |
| NS-Tracer-PwC | ``tracer_disc`` |
| CE-RP, CE-CRP, CE-KH, CE-Gauss | ``quadrants``, ``mixing_layers``, ``gas_vortices``: (density, velocity, pressure) |
| ACE, Poisson-Gauss | ``sine_products``, ``gaussian_sources`` |

All are functions of the place, evaluated at centres or nodes: a finer grid shows the same sample.

Source: Herde et al., Poseidon: efficient foundation models for PDEs, NeurIPS 2024 (arXiv:2405.19101).
"""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook import fourier
from pdebook.pde.fields import gaussian_bumps
from pdebook.pde.grid import Grid
from pdebook.rng import fold_in, uniform

__all__ = [
    "gas_vortices",
    "gaussian_sources",
    "mixing_layers",
    "quadrants",
    "shear_layer",
    "sine_products",
    "sines",
    "squares",
    "tracer_disc",
    "vortices",
]

Samples = Shaped[Tensor, " batch"]
Device = torch.device | str
Flow = Float[Tensor, "batch channels nx ny"]
TWO_PI = 2 * math.pi


def _draw(seed: int, name: str, samples: Tensor, shape: tuple[int, ...], device: Device) -> Tensor:
    return uniform(fold_in(seed, name), samples, shape, dtype=torch.float64, device=device)


def _plane(grid: Grid) -> None:
    if grid.length != (1.0, 1.0) or grid.origin != (0.0, 0.0):
        raise ValueError(f"grid must be the unit square, got lengths {grid.length} and origin {grid.origin}")


def _shown(field: str) -> None:
    if field not in ("velocity", "vorticity"):
        raise ValueError(f"field must be 'velocity' or 'vorticity', got {field!r}")


def _velocity(vorticity: Tensor, grid: Grid) -> Tensor:
    """(∂_y ψ, -∂_x ψ) with -Δψ = ω - mean, spectrally; (batch, 1, nx, ny) to (batch, 2, nx, ny)."""
    c = fourier.coefficients(vorticity, 2)
    kx, ky = fourier.wavenumbers(grid.size, grid.length, device=c.device)
    square = kx.square() + ky.square()
    psi = torch.where(square > 0, c / torch.where(square > 0, square, 1.0), 0.0)
    dx, dy = (fourier.derivative_symbol(grid.size, order, grid.length, device=c.device) for order in ((1, 0), (0, 1)))
    return fourier.field(torch.cat([dy * psi, -dx * psi], 1), grid.size)


def _vorticity(v: Tensor, grid: Grid) -> Tensor:
    c = fourier.coefficients(v, 2)
    dx, dy = (fourier.derivative_symbol(grid.size, order, grid.length, device=c.device) for order in ((1, 0), (0, 1)))
    return fourier.field(dx * c[:, 1:] - dy * c[:, :1], grid.size)


def _of_vorticity(vorticity: Tensor, grid: Grid, field: str) -> Tensor:
    return _velocity(vorticity, grid) if field == "velocity" else vorticity


def sines(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    modes: int = 10,
    field: str = "velocity",
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Flow:
    """Projection of Σ_ij α_ij/sqrt(2π(i+j)) sin(2πix + β_ij) sin(2πjy + γ_ij), and of the same with cosines, 1 <= i, j <= modes.

    α is uniform in (-1, 1), the phases in (0, 2π), drawn anew for the second component.

    Args:
        modes: largest mode number, below half the points of an axis.
        field: "velocity", two channels, or "vorticity", one.
        seed, samples, grid, at, dtype, device: as in ``pdebook.pde.fields.gaussian_field``.
    Raises:
        ValueError: modes that the grid does not resolve, another field.
    """
    _plane(grid)
    _shown(field)
    if not 1 <= modes < min(grid.size) / 2:
        raise ValueError(f"modes must be from 1 to below half of {grid.size}, got {modes}")
    draws = _draw(seed, "sines", samples, (2, 3, modes, modes), device)
    m = torch.arange(1, modes + 1, dtype=torch.float64, device=device)
    alpha = (2 * draws[:, :, 0] - 1) / (TWO_PI * (m[:, None] + m)).sqrt()
    # sin(a + b) = Re(-i e^{i(a + b)}): a product of two is a product of matrices for each of the four parts.
    first, second = (TWO_PI * draws[:, :, part] for part in (1, 2))
    parts = []
    for component in range(2):
        turn = -math.pi / 2 if component == 0 else 0.0
        b, g = first[:, component] + turn, second[:, component] + turn
        # cos(a + b) = cos a cos b - sin a sin b.
        left, right = torch.stack([b.cos(), -b.sin()], 2), torch.stack([g.cos(), -g.sin()], 2)
        tables = []
        for x in grid.coordinates(at, device=device):
            angle = TWO_PI * x.reshape(-1, 1) * m
            tables.append(torch.stack([angle.cos(), angle.sin()], 2))
        weights = torch.einsum("bij,bipj,biqj->bipjq", alpha[:, component], left, right)
        parts.append(torch.einsum("bipjq,xip,yjq->bxy", weights, *tables))
    vorticity = _vorticity(torch.stack(parts, 1), grid)
    return _of_vorticity(vorticity, grid, field).to(dtype)


def _swirl(
    seed: int, samples: Tensor, grid: Grid, count: int, width: tuple[float, float], at: str, device: Device
) -> Tensor:
    """Vorticity Σ α_i/σ_i exp(-|x - x_i|²/2σ_i²) over a periodic box, α uniform in (-1, 1)."""
    draws = _draw(seed, "vortices", samples, (count, 4), device)
    sigma = width[0] + (width[1] - width[0]) * draws[..., 2]
    return gaussian_bumps(grid, draws[..., :2], sigma, (2 * draws[..., 3] - 1) / sigma, at=at)


def vortices(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    count: int = 100,
    width: tuple[float, float] = (0.01, 0.1),
    field: str = "velocity",
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Flow:
    """Flow of the vorticity Σ_i α_i/σ_i exp(-|x - x_i|²/2σ_i²): α uniform in (-1, 1), σ in ``width``, x in the box.

    Args and Raises: as ``sines``; ValueError also for a width that is not positive.
    """
    _plane(grid)
    _shown(field)
    if not 0 < width[0] <= width[1]:
        raise ValueError(f"width must be 0 < low <= high, got {width}")
    return _of_vorticity(_swirl(seed, samples, grid, count, width, at, device), grid, field).to(dtype)


def _cells(values: Tensor, grid: Grid, at: str, moved: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """values (batch, channels, cells, cells) spread over a box of as many equal rectangles, whose coordinates may be moved."""
    count = values.shape[-1]
    places = []
    for axis, x in enumerate(grid.coordinates(at, device=values.device)):
        share = x if moved is None else x + moved[axis]
        places.append((share * count).floor().long().remainder(count))
    row, column = torch.broadcast_tensors(*places)
    if moved is None:
        return values[:, :, row, column]
    flat = (row * count + column).flatten(1)[:, None].expand(-1, values.shape[1], -1)
    return values.flatten(2).gather(2, flat).reshape(*values.shape[:2], *grid.size)


def squares(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    cells: int = 10,
    field: str = "velocity",
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Flow:
    """Flow of a vorticity that is constant on cells x cells squares, uniform in (-1, 1).

    Args and Raises: as ``sines``.
    """
    _plane(grid)
    _shown(field)
    values = 2 * _draw(seed, "squares", samples, (1, cells, cells), device) - 1
    return _of_vorticity(_cells(values, grid, at), grid, field).to(dtype)


def _profiles(seed: int, name: str, samples: Tensor, x: Tensor, count: int, modes: int, device: Device) -> Tensor:
    """Σ_n a_n cos(2πnx + b_n), a >= 0 of sum one, b uniform: (batch, count, points)."""
    draws = _draw(seed, name, samples, (count, 2, modes), device)
    a = draws[:, :, 0] / draws[:, :, 0].sum(-1, keepdim=True)
    n = torch.arange(1, modes + 1, dtype=torch.float64, device=device)
    angle = TWO_PI * n * x[:, None] + TWO_PI * draws[:, :, 1, None]
    return torch.einsum("bcn,bcxn->bcx", a, angle.cos())


def shear_layer(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    thickness: float = 0.1,
    perturbation: float = 0.025,
    modes: int = 10,
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Flow:
    """Velocity (tanh((y - ¼)/thickness · 2π) below y = ½, tanh((¾ - y)/thickness · 2π) above; perturbation · Σ a_n cos(2πnx + b_n)).

    A shear layer in the form of Bell, Colella and Glaz 1989, whose perturbation is random; the paper's own is not restated here.
    """
    _plane(grid)
    x, y = (c.flatten() for c in grid.coordinates(at, device=device))
    u = torch.where(y <= 0.5, torch.tanh(TWO_PI * (y - 0.25) / thickness), torch.tanh(TWO_PI * (0.75 - y) / thickness))
    v = perturbation * _profiles(seed, "shear layer", samples, x, 1, modes, device)[:, 0]
    shape = (len(v), *grid.size)
    return torch.stack([u.expand(shape), v[:, :, None].expand(shape)], 1).to(dtype)


def tracer_disc(
    grid: Grid,
    *,
    radius: float = 0.25,
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "1 1 nx ny"]:
    """One within ``radius`` of the middle of the box, zero beyond."""
    _plane(grid)
    x, y = grid.coordinates(at, device=device)
    square = (x - 0.5).square() + (y - 0.5).square()
    return (square <= radius**2)[None, None].to(dtype)


def quadrants(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    cells: int = 2,
    curvature: float | int = 0.0,
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Flow:
    """cells x cells constant states (ρ, v, p), ρ and p uniform in (0.1, 1), v in (-1, 1); periodic.

    Args:
        curvature: how far the interfaces are bent, as a share of the box, by Σ a_n cos(2πns + b_n) with ten modes and a of
            sum one, s the coordinate along them; a reconstruction of the curved family.
        seed, samples, grid, at, dtype, device: as ``sines``.
    """
    _plane(grid)
    draws = _draw(seed, "quadrants", samples, (4, cells, cells), device)
    density, pressure = 0.1 + 0.9 * draws[:, :1], 0.1 + 0.9 * draws[:, 3:]
    values = torch.cat([density, 2 * draws[:, 1:3] - 1, pressure], 1)
    moved = None
    if curvature:
        x, y = (c.flatten() for c in grid.coordinates(at, device=device))
        along = (_profiles(seed, f"curves {axis}", samples, s, 1, 10, device)[:, 0] for axis, s in enumerate((y, x)))
        bend_x, bend_y = (curvature * a for a in along)
        moved = (bend_x[:, None, :], bend_y[:, :, None])
    return _cells(values, grid, at, moved).to(dtype)


def mixing_layers(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    perturbation: float = 0.05,
    modes: int = 10,
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Flow:
    """(ρ, v, p) = (2, -0.5, 0, 2.5) between two interfaces near y = ¼ and ¾, (1, 0.5, 0, 2.5) outside.

    An interface is y_0 + perturbation · Σ_n a_n cos(2πnx + b_n), a of sum one.
    """
    _plane(grid)
    x, y = (c.flatten() for c in grid.coordinates(at, device=device))
    bend = perturbation * _profiles(seed, "mixing layers", samples, x, 2, modes, device)[..., None]
    inside = (y > 0.25 + bend[:, 0]) & (y < 0.75 + bend[:, 1])
    outer, inner = (
        torch.tensor(state, dtype=torch.float64, device=device).view(1, 4, 1, 1)
        for state in ((1.0, 0.5, 0.0, 2.5), (2.0, -0.5, 0.0, 2.5))
    )
    return torch.where(inside[:, None], inner, outer).to(dtype)


def gas_vortices(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    count: int = 100,
    width: tuple[float, float] = (0.01, 0.1),
    density: float = 0.1,
    pressure: float = 2.5,
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Flow:
    """(ρ, v, p) of constant density and pressure, with the velocity of ``vortices``."""
    v = vortices(seed, samples, grid, count=count, width=width, at=at, dtype=torch.float64, device=device)
    one = torch.ones_like(v[:, :1])
    return torch.cat([density * one, v, pressure * one], 1).to(dtype)


def sine_products(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    modes: tuple[int, int] = (16, 32),
    decay: tuple[float, float] = (0.7, 1.0),
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch 1 nx ny"]:
    """u(x) = K^-2 Σ_ij a_ij (i² + j²)^-r sin πix sin πjy, 1 <= i, j <= K: a uniform in (-1, 1), K and r in their ranges.

    Raises:
        ValueError: a range of modes that is empty or not resolved.
    """
    _plane(grid)
    if not 1 <= modes[0] <= modes[1] < min(grid.size):
        raise ValueError(f"modes must be 1 <= low <= high < {min(grid.size)}, got {modes}")
    most = modes[1]
    draws = _draw(seed, "sine products", samples, (2,), device)
    largest = modes[0] + (draws[:, 0] * (modes[1] - modes[0] + 1)).floor()
    r = decay[0] + (decay[1] - decay[0]) * draws[:, 1]
    a = 2 * _draw(seed, "sine amplitudes", samples, (most, most), device) - 1
    m = torch.arange(1, most + 1, dtype=torch.float64, device=device)
    square = m[:, None].square() + m.square()
    used = torch.maximum(m[:, None], m) <= largest[:, None, None]
    c = torch.where(used, a * square ** -r[:, None, None], 0.0) / largest[:, None, None].square()
    tables = [torch.sin(math.pi * x.reshape(-1, 1) * m) for x in grid.coordinates(at, device=device)]
    return torch.einsum("bij,xi,yj->bxy", c, *tables)[:, None].to(dtype)


def gaussian_sources(
    seed: int,
    samples: Samples,
    grid: Grid,
    *,
    chance: float = 0.4,
    width: tuple[float, float] = (0.025, 0.1),
    most: int = 32,
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Float[Tensor, "batch 1 nx ny"]:
    """Σ_{i<=N} exp(-|x - x_i|²/2σ_i²): N geometric, P(N = n) = chance (1 - chance)^(n-1), cut at ``most``; x, σ uniform.

    Raises:
        ValueError: a chance outside (0, 1).
    """
    _plane(grid)
    if not 0 < chance < 1:
        raise ValueError(f"chance must be in (0, 1), got {chance}")
    own = fold_in(seed, "gaussian sources")
    count = torch.ceil(_draw(own, "count", samples, (), device).log() / math.log1p(-chance)).clamp(1, most)
    draws = _draw(own, "places", samples, (most, 3), device)
    sigma = width[0] + (width[1] - width[0]) * draws[..., 2]
    height = (torch.arange(most, device=device) < count[:, None]).double()
    return gaussian_bumps(grid, draws[..., :2], sigma, height, periodic=False, at=at).to(dtype)

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
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from pdebook.pde.fields import gaussian_bumps, gaussian_field, rescale
from pdebook.pde.grid import Grid
from pdebook.rng import fold_in, integers, normal, uniform

__all__ = [
    "SOD",
    "Riemann",
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

Samples = Shaped[Tensor, " batch"]
Device = torch.device | str
Number = float | int | Tensor
_WINDOW = 0.01


def _draw(seed: int, name: str, samples: Tensor, shape: tuple[int, ...], device: Device) -> Tensor:
    """Uniform doubles of a purpose of their own."""
    return uniform(fold_in(seed, name), samples, shape, dtype=torch.float64, device=device)


def _between(draws: Tensor, low: float | int, high: float | int) -> Tensor:
    return low + (high - low) * draws


def _log_between(draws: Tensor, low: float, high: float) -> Tensor:
    return torch.exp(_between(draws, math.log(low), math.log(high)))


def _need(grid: Grid, dims: tuple[int, ...]) -> None:
    if grid.dims not in dims:
        raise ValueError(f"grid must have {' or '.join(map(str, dims))} axes, got {grid.dims}")


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")


def _number(value: Number, dims: int, device: Device) -> Tensor:
    """A number, or one for each sample, as a tensor that broadcasts against (batch, *size)."""
    return torch.as_tensor(value, dtype=torch.float64, device=device).reshape(-1, *[1] * dims)


def _pair(like: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
    # Two plain numbers would make torch.where single-precision.
    return like.new_tensor(a), like.new_tensor(b)


def window(x: Tensor, left: Tensor, right: Tensor, width: float = _WINDOW) -> Tensor:
    """½ [tanh((x - left)/width) - tanh((x - right)/width)]: one inside, zero outside."""
    return 0.5 * (torch.tanh((x - left) / width) - torch.tanh((x - right) / width))


def _window_ends(
    seed: int, samples: Tensor, count: int, chance: float, device: Device
) -> tuple[Tensor, Tensor, Tensor]:
    """Ends of the windows, (batch, count) each, in absolute coordinates, and whether a sample has them."""
    draws = _draw(seed, "window", samples, (2 * count + 1,), device)
    left, right = _between(draws[:, 1 : count + 1], 0.1, 0.45), _between(draws[:, count + 1 :], 0.55, 0.9)
    return left, right, draws[:, 0] < chance


# -------------------- one dimension


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
        _need(grid, (1,))
        _choice("period", period, ("released", "exact"))
        drawn = integers(fold_in(seed, "modes"), samples, terms, (2,), device=device)
        count = torch.nn.functional.one_hot(drawn, terms).sum(1)
        length = grid.length[0] - (grid.spacing[0] if period == "released" else 0.0)
        shape = _draw(seed, "amplitude and phase", samples, (2, terms), device)
        other = _draw(seed, "sign", samples, (2,), device)
        left, right, inside = _window_ends(seed, samples, 1, windowed, device)
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
            factor = _log_between(_draw(own, "range", samples, (2, 1, 1), device), least, 10 * least)
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
    _need(grid, (1,))
    _choice("velocity", velocity, ("released", "intended"))
    n = grid.size[0]
    draws = _draw(seed, "shocks", samples, (7,), device)
    density, pressure = _log_between(draws[:, 0:2], 1.0, 10.0), _log_between(draws[:, 2:4], 10.0, 100.0)
    speed = _between(draws[:, 4:6], -0.5, 0.5)
    states = torch.stack([density, speed.exp() if velocity == "released" else speed, pressure], 1)
    jump = _between(draws[:, 6], 0.25 * n, 0.75 * n).long()
    right = torch.arange(n, device=device) >= jump[:, None]
    return torch.where(right[:, None], states[:, :, 1:], states[:, :, :1]).to(dtype)


@dataclass(frozen=True)
class Riemann:
    """Two constant states (density, velocity, pressure), the share of the cells left of the jump, and the time of comparison."""

    left: tuple[float, float, float]
    right: tuple[float, float, float]
    position: float
    end: float


SOD = {
    1: Riemann((1.0, 0.75, 1.0), (0.125, 0.0, 0.1), 0.3, 0.4),
    2: Riemann((1.0, -2.0, 0.4), (1.0, 2.0, 0.4), 0.5, 0.15),
    3: Riemann((1.0, 0.0, 1000.0), (1.0, 0.0, 0.01), 0.5, 0.012),
    4: Riemann((5.99924, 19.5975, 460.894), (5.99242, -6.19633, 46.095), 0.4, 0.035),
    5: Riemann((1.0, -19.59745, 1000.0), (1.0, -19.59745, 0.01), 0.8, 0.012),
    6: Riemann((1.4, 0.0, 1.0), (1.0, 0.0, 1.0), 0.5, 2.0),
    7: Riemann((1.4, 0.1, 1.0), (1.0, 0.1, 1.0), 0.5, 2.0),
}
"""The benchmark's shock tubes, for Γ = 5/3."""


def riemann(
    grid: Grid, problem: Riemann, *, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> Float[Tensor, "1 3 n"]:
    """(density, velocity, pressure) of a shock tube."""
    _need(grid, (1,))
    right = torch.arange(grid.size[0], device=device) >= round(problem.position * grid.size[0])
    states = torch.tensor([problem.left, problem.right], dtype=dtype, device=device)
    return states[right.long()].T[None]


def sorption_start(
    seed: int, samples: Samples, grid: Grid, *, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> Float[Tensor, "batch 1 n"]:
    """Diffusion-sorption: one constant for a sample, uniform in (0, 0.2)."""
    _need(grid, (1,))
    return (0.2 * _draw(seed, "sorption", samples, (1, 1), device)).expand(-1, -1, grid.size[0]).to(dtype)


# -------------------- two and three dimensions


def _axis(grid: Grid, axis: int, device: Device) -> Tensor:
    return grid.coordinates(device=device)[axis].flatten()


def wave_sum(
    seed: int, samples: Samples, grid: Grid, *, largest: int = 4, channels: int = 1, device: Device = "cpu"
) -> Float[Tensor, "batch channels *size"]:
    """Σ |k|^(-p) sin(k·x + φ) over k = 2πm/L with all 0 < |m_j| <= largest; p = 1/2 in two dimensions, 1 in three; φ uniform.

    In float64.
    """
    _need(grid, (2, 3))
    d = grid.dims
    numbers = [m for m in range(-largest, largest + 1) if m]
    m = torch.tensor(numbers, dtype=torch.float64, device=device)
    k = [2 * math.pi * m / side for side in grid.length]
    length = torch.stack(torch.meshgrid(*k, indexing="ij")).square().sum(0).sqrt()
    phase = 2 * math.pi * _draw(seed, "wave phases", samples, (channels, *length.shape), device)
    c = torch.polar(length ** (-0.5 if d == 2 else -1.0) * torch.ones_like(phase), phase)
    for axis in range(d):
        angle = _axis(grid, axis, device)[:, None] * k[axis]
        c = torch.tensordot(c, torch.polar(torch.ones_like(angle), angle), dims=([2], [1]))
    return c.imag


def _box_window(grid: Grid, seed: int, samples: Tensor, chance: float, device: Device) -> Tensor:
    """Product of the windows of all axes, or one; (batch, 1, *size)."""
    d = grid.dims
    left, right, inside = _window_ends(seed, samples, d, chance, device)
    total = torch.ones(len(samples), 1, *[1] * d, dtype=torch.float64, device=device)
    for axis, x in enumerate(grid.coordinates(device=device)):
        low, high = (end[:, axis].reshape(-1, *[1] * (d + 1)) for end in (left, right))
        total = total * window(x, low, high)
    return torch.where(inside.reshape(-1, *[1] * (d + 1)), total, 1.0)


def _mean_of_size(u: Tensor) -> Tensor:
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
    _need(grid, (2, 3))
    d = grid.dims
    draws = _draw(seed, "flow", samples, (4, 1, *[1] * d), device)
    d0, t0 = _between(draws[:, 0], 0.1, 10.0), _between(draws[:, 1], 0.1, 10.0)
    sums = {
        name: wave_sum(fold_in(seed, name), samples, grid, channels=channels, device=device)
        for name, channels in (("density", 1), ("velocity", d), ("pressure", 1))
    }
    unit = {name: u / _mean_of_size(u) for name, u in sums.items()}
    inside = _box_window(grid, seed, samples, windowed, device)
    density = d0 * (1 + _between(draws[:, 2], 0.01, 0.2) * unit["density"] * inside)
    pressure = d0 * t0 * (1 + _between(draws[:, 3], 0.01, 0.2) * unit["pressure"] * inside)
    velocity = unit["velocity"] * _number(mach, d, device)[:, None] * (gamma * t0).sqrt() * inside
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
    _choice("projection", projection, ("correct", "released"))
    v = wave_sum(seed, samples, grid, channels=grid.dims, device=device)
    v = _project(v, grid, 0 if projection == "correct" else -1)
    v = v / _mean_of_size(v)
    pressure = (1 / (gamma * _number(mach, grid.dims, device).square()))[:, None].expand_as(v[:, :1])
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
    _need(grid, (2,))
    x, y = grid.mesh(device=device)
    d, m, waves_ = (_number(value, 2, device) for value in (ratio, mach, waves))
    above = y > 0.5 + 0.005 * torch.sin(2 * math.pi * waves_ * x)
    density = torch.where(above, 2 / (d + 1), 2 * d / (d + 1))
    speed = torch.where(above, 1.0, -1.0).double()
    parts = torch.broadcast_tensors(density, speed, torch.zeros_like(speed), 1 / (gamma * m.square()))
    return torch.stack(parts, 1).to(dtype)


def orszag_tang(
    grid: Grid, *, gamma: float = 5 / 3, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> Float[Tensor, "1 4 nx ny"]:
    """ρ = Γ², v = (-sin 2πy, sin 2πx), p = Γ: the vortex of Orszag and Tang without its magnetic field."""
    _need(grid, (2,))
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
    r, high, low = (_number(value, d, device) for value in (radius, inner, outer))
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
    _need(grid, (2,))
    r = _between(_draw(seed, "dam", samples, (1, 1), device), *radius)
    depth = torch.where(_radius(grid, device) <= r, *_pair(r, inner, outer)).to(dtype)
    return torch.stack([depth, torch.zeros_like(depth), torch.zeros_like(depth)], 1)


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
    _need(grid, (2,))
    if isinstance(level, str):
        _choice("level", level, ("sample", "released"))
    draws = _draw(seed, "darcy coefficient", samples, (5, 3), device)
    low_, side = (torch.tensor(t, dtype=torch.float64, device=device) for t in (grid.origin, grid.length))
    width = (0.5 * draws[..., 2] / 2).sqrt()
    g = gaussian_bumps(grid, low_ + side * draws[..., :2], width, torch.ones_like(width), periodic=False)
    edge: Any = level
    if isinstance(level, str):
        edge = g.mean((1, 2, 3), keepdim=True) if level == "sample" else g.mean()
    return torch.where(g > edge, *_pair(g, high, low)).to(dtype)


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
    _need(grid, (2,))
    draws = _draw(seed, "darcy start", samples, (2, 1, 1, 1), device)
    own = fold_in(seed, "darcy start")
    w = wave_sum(own, samples, grid, device=device)
    w = w / _mean_of_size(w) * _box_window(grid, own, samples, windowed, device)
    return (_between(draws[:, 0], 0.1, 10.0) + _between(draws[:, 1], 0.01, 0.5) * w).to(dtype)

"""Random fields: Gaussian ones of a given spectrum between any walls, truncated series, solenoidal velocities, blobs, media.

A Gaussian field is the series u(x) = Σ_b z_b σ(|k_b|) φ_b(x). The φ_b are products of one function of each axis, of mean square
one over the box, and the z_b independent standard normals:

| kind of an axis | functions, y = x - x_0 | k |
|---|---|---|
| "periodic" | 1, √2 cos(2πmy/L), √2 sin(2πmy/L) | 2πm/L |
| "neumann", ∂u/∂n = 0 | 1, √2 cos(πmy/L) | πm/L |
| "dirichlet", u = 0 | √2 sin(πmy/L), m >= 1 | πm/L |

Each z_b is a function of seed, sample, channel and the mode b alone. So a sample is the same in every batch and on every
device, to rounding; it is evaluated anywhere; and a finer grid shows the same modes and adds some, or none if ``modes`` is given.
The sums are matrix products, N n operations on a grid of N = n^d points: less than the random numbers cost, up to 1024².
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.pde.grid import Grid
from pdebook.pde.media import blobs, gaussian_bumps, phases, rescale
from pdebook.pde.spectra import (
    Number,
    Spectrum,
    band,
    each,
    lognormal,
    matern,
    mcwilliams,
    power_law,
    shell_energy,
)
from pdebook.rng import fold_in, normals_at

__all__ = [
    "band",
    "blobs",
    "fourier_series",
    "gaussian_bumps",
    "gaussian_field",
    "lognormal",
    "matern",
    "mcwilliams",
    "phases",
    "power_law",
    "rescale",
    "shell_energy",
    "solenoidal_field",
]

KINDS = ("periodic", "neumann", "dirichlet")
Samples = Shaped[Tensor, " batch"]
_BITS = 19


def _kinds(kind: str | Sequence[str], dims: int) -> tuple[str, ...]:
    kinds = (kind,) * dims if isinstance(kind, str) else tuple(kind)
    if len(kinds) != dims or any(k not in KINDS for k in kinds):
        raise ValueError(f"kind must be 'periodic', 'neumann' or 'dirichlet', one or {dims}, got {kind!r}")
    return kinds


class _Series:
    """The functions of each axis of a box: their wavenumbers, and their values or derivatives at the grid's points."""

    def __init__(
        self,
        grid: Grid,
        kind: str | Sequence[str],
        modes: int | None,
        at: str,
        device: torch.device | str,
        unit: bool = True,
    ) -> None:
        self.grid, self.kinds, self.at, self.device = grid, _kinds(kind, grid.dims), at, device
        self.axes: list[tuple[Tensor, Tensor, Tensor]] = []
        for kind_, n, side in zip(self.kinds, grid.size, grid.length, strict=True):
            # The mode n/2 of a periodic axis is a cosine whose sine the grid cannot show: it is left out.
            most = (n - 1) // 2 if kind_ == "periodic" else n - 1
            top = most if modes is None else modes
            if not 0 <= top <= most or (kind_ == "dirichlet" and top < 1):
                raise ValueError(f"modes must be from 0 (walls of value zero: 1) to {most} for {n} points, got {modes}")
            number = torch.arange(2 * top + 1 if kind_ == "periodic" else top + 1, dtype=torch.float64, device=device)
            phase = torch.zeros_like(number)
            if kind_ == "periodic":
                phase[2::2] = math.pi / 2
                number = torch.ceil(number / 2)
            elif kind_ == "dirichlet":
                number, phase = number[1:], phase[1:] + math.pi / 2
            k = number * ((2 if kind_ == "periodic" else 1) * math.pi / side)
            weight = torch.ones_like(number)
            if unit:
                weight[number > 0] = math.sqrt(2.0)
            self.axes.append((k, phase, weight))

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(len(k) for k, _, _ in self.axes)

    def wavenumber(self) -> Tensor:
        """|k| of all modes, (1, 1, *counts)."""
        dims = len(self.axes)
        parts = [k.reshape([-1 if j == axis else 1 for j in range(dims)]) for axis, (k, _, _) in enumerate(self.axes)]
        return torch.as_tensor(sum(k.square() for k in parts)).sqrt()[None, None]

    def sigma(self, spectrum: Spectrum, mean: bool = False) -> Tensor:
        k = self.wavenumber()
        zero = k == 0
        sigma = spectrum(k if mean else torch.where(zero, 1.0, k))
        return sigma if mean else torch.where(zero, 0.0, sigma)

    def normals(self, seed: int, samples: Tensor, channels: int) -> Tensor:
        """z_b of each sample and channel, (batch, channels, *counts): two of a block along the last axis."""
        if not 1 <= channels < 64:
            raise ValueError(f"channels must be from 1 to 63, got {channels}")
        *others, last = self.counts
        dims = len(self.axes)
        index = torch.arange(channels, device=self.device).reshape(-1, *[1] * dims) << (3 * _BITS)
        for axis, count in enumerate([*others, -(-last // 2)]):
            number = torch.arange(count, device=self.device).reshape([-1 if j == axis else 1 for j in range(dims)])
            index = index + (number << (_BITS * (dims - 1 - axis)))
        return normals_at(seed, samples.to(self.device), index).flatten(-2)[..., :last]

    def table(self, axis: int, at: str, derivative: str | None = None) -> Tensor:
        """Values of the axis' functions at its centres or nodes, or their derivatives, or differences over one cell; (n, count)."""
        k, phase, weight = self.axes[axis]
        h = self.grid.spacing[axis]
        y = (torch.arange(self.grid.size[axis], dtype=torch.float64, device=self.device) + 0.5 * (at == "centres")) * h
        angle = y[:, None] * k - phase
        if derivative is None:
            return weight * angle.cos()
        # (cos(a + kh/2) - cos(a - kh/2))/h = -(2/h) sin(kh/2) sin a.
        factor = k if derivative == "exact" else 2 / h * torch.sin(k * h / 2)
        return -weight * factor * angle.sin()

    def evaluate(self, c: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """The series with coefficients (batch, channel, *counts) at the points of the tables."""
        for table in tables:
            # The axis in turn stands third, and its points come last.
            c = torch.tensordot(c, table, dims=([2], [1]))
        return c

    def field(self, c: Tensor) -> Tensor:
        return self.evaluate(c, [self.table(axis, self.at) for axis in range(len(self.axes))])


def _place(at: str) -> str:
    if at not in ("centres", "nodes"):
        raise ValueError(f"at must be 'centres' or 'nodes', got {at!r}")
    return at


def gaussian_field(
    seed: int,
    samples: Samples,
    grid: Grid,
    spectrum: Spectrum,
    *,
    channels: int = 1,
    kind: str | Sequence[str] = "periodic",
    modes: int | None = None,
    mean: bool = False,
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch channels *size"]:
    """u(x) = Σ_b z_b σ(|k_b|) φ_b(x), a Gaussian field whose mean square over the box has the expectation Σ_b σ(|k_b|)².

    Channels are independent. It is differentiable in the parameters of the spectrum.

    Args:
        seed: seed.
        samples: sample numbers; row i depends on ``samples[i]`` alone.
        grid: where it is evaluated.
        spectrum: σ; see ``power_law``, ``matern``, ``band``, ``lognormal``, ``shell_energy``.
        channels: number of channels.
        kind: "periodic", "neumann" or "dirichlet", for all axes or one each.
        modes: largest |m_j| along each axis; all that the grid resolves if left out, n/2 and above not among them.
        mean: keep the constant mode; σ(0) must then be finite.
        at: "centres" or "nodes".
        dtype: result's dtype; the sums are done in float64.
        device: result's device.
    Raises:
        ValueError: a kind or place that is unknown, modes that the grid does not resolve, a spectrum that is not finite.
    """
    series = _Series(grid, kind, modes, _place(at), device)
    sigma = series.sigma(spectrum, mean)
    if sigma.device.type == "cpu" and not bool(sigma.isfinite().all()):
        raise ValueError("spectrum must be finite at all modes; at k = 0 too if mean is True")
    return series.field(series.normals(fold_in(seed, "gaussian field"), samples, channels) * sigma).to(dtype)


def fourier_series(
    seed: int,
    samples: Samples,
    grid: Grid,
    modes: int,
    *,
    bounds: tuple[float | int, float | int] = (-1.0, 1.0),
    spectrum: Spectrum | None = None,
    channels: int = 1,
    kind: str | Sequence[str] = "periodic",
    mean: bool = False,
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch channels *size"]:
    """u(x) = Σ a_m cos(2πmx/L) + b_m sin(2πmx/L), 1 <= m <= modes, a and b uniform in ``bounds``; products in more dimensions.

    Args:
        bounds: range of the coefficients.
        spectrum: factor of the coefficients, a function of k; 1 if left out.
        seed, samples, grid, modes, channels, kind, mean, at, dtype, device: as ``gaussian_field``.
    Raises:
        ValueError: as ``gaussian_field``; bounds out of order.
    """
    low, high = bounds
    if not low <= high:
        raise ValueError(f"bounds must be (low, high), got {bounds}")
    series = _Series(grid, kind, modes, _place(at), device, unit=False)
    # Normals of modes become uniforms of modes.
    chance = torch.special.ndtr(series.normals(fold_in(seed, "fourier series"), samples, channels))
    sigma = series.sigma(spectrum or torch.ones_like, mean)
    return series.field((low + (high - low) * chance) * sigma).to(dtype)


def solenoidal_field(
    seed: int,
    samples: Samples,
    grid: Grid,
    spectrum: Spectrum,
    *,
    speed: Number | None = None,
    kind: str | Sequence[str] = "periodic",
    modes: int | None = None,
    at: str = "centres",
    staggered: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch dims *size"]:
    """A random velocity without divergence: the curl of a Gaussian potential with standard deviation σ(k)/k.

    In a periodic box its law is that of Gaussian components of spectrum σ after their projection, so with ``lognormal`` it is
    the start of jax-cfd's turbulence. In the plane, walls of kind "dirichlet" let nothing through.

    Args:
        speed: largest |v| over the grid's points, a number or (batch,); not scaled if left out.
        kind: of the potential; in three dimensions "periodic" only.
        staggered: component j on the lower faces of axis j, from differences of the potential over a cell: the difference
            divergence in each cell is zero to rounding.
        seed, samples, grid, spectrum, modes, at, dtype, device: as ``gaussian_field``.
    Raises:
        ValueError: as ``gaussian_field``; a grid of one dimension; walls in three.
    """
    series = _Series(grid, kind, modes, _place(at), device)
    d = grid.dims
    if d == 1 or (d == 3 and set(series.kinds) != {"periodic"}):
        raise ValueError(f"grid must have two axes, or three periodic ones, got {d} of kind {series.kinds}")
    sigma = series.sigma(lambda k: spectrum(k) / k)
    c = series.normals(fold_in(seed, "potential"), samples, 1 if d == 2 else 3) * sigma
    way = "difference" if staggered else "exact"

    def derivative(potential: int, axis: int, component: int) -> Tensor:
        """∂_axis of a potential where the velocity component lives."""
        places = ["nodes" if axis_ == component else "centres" for axis_ in range(d)] if staggered else [series.at] * d
        tables = [series.table(j, places[j], way if j == axis else None) for j in range(d)]
        return series.evaluate(c[:, potential : potential + 1], tables)

    if d == 2:
        v = torch.cat([derivative(0, 1, 0), -derivative(0, 0, 1)], 1)
    else:
        turns = [(j, (j + 1) % 3, (j + 2) % 3) for j in range(3)]
        v = torch.cat([derivative(k, j, i) - derivative(j, k, i) for i, j, k in turns], 1)
    if speed is not None:
        largest = v.square().sum(1, keepdim=True).flatten(1).amax(1).sqrt()
        if v.device.type == "cpu" and not bool((largest.detach() > 0).all()):
            raise ValueError("spectrum must not vanish at all modes of the grid if a speed is given")
        v = v * each(torch.as_tensor(speed, dtype=torch.float64, device=v.device) / largest, v)
    return v.to(dtype)

"""Smooth exact and manufactured solutions; the Riemann problems are in ``riemann``.

Functions of coordinates take tensors that broadcast against each other (``Grid.coordinates``) and return values of that shape, vectors
with the components in front: (2, ...) or (3, ...).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.pde.grid import Grid

__all__ = [
    "ManufacturedVorticity",
    "abc_flow",
    "advected",
    "cole_hopf",
    "fisher_wave",
    "heat_kernel",
    "kdv_solitons",
    "taylor_green",
]

Number = float | int | Tensor
_LARGEST_EXPONENT = 600.0


def advected(
    profile: Callable[..., Tensor],
    coordinates: Sequence[Tensor],
    t: Number,
    velocity: Sequence[Number],
    length: Sequence[float | int],
    origin: Sequence[float | int] | None = None,
) -> Tensor:
    """u(x, t) = u_0(x - a t) on a periodic box: solves u_t + a·∇u = 0.

    Args:
        profile: u_0, a function of as many coordinates; it is asked inside the box only.
        coordinates: x along each axis.
        t: time.
        velocity: a along each axis.
        length: length of the box along each axis.
        origin: lower corner, zero if left out.
    Raises:
        ValueError: numbers of axes that differ.
    """
    corner = [0.0] * len(coordinates) if origin is None else list(origin)
    if not len(coordinates) == len(velocity) == len(length) == len(corner):
        raise ValueError(
            f"velocity, length and origin must have {len(coordinates)} entries, one for each of the coordinates, "
            f"got {len(velocity)}, {len(length)} and {len(corner)}"
        )
    return profile(
        *(
            low + torch.remainder(x - a * t - low, side)
            for x, a, side, low in zip(coordinates, velocity, length, corner, strict=True)
        )
    )


def heat_kernel(
    coordinates: Sequence[Tensor],
    t: Number,
    diffusivity: Number,
    width: Number,
    length: Sequence[float | int],
    centre: Sequence[float | int],
) -> Tensor:
    """A Gaussian that spreads on a periodic box, of mass 1: solves u_t = ν Δu.

        u = Π_j Σ_m exp(-(x_j - c_j - m L_j)² / 2s) / sqrt(2π s),    s = w² + 2νt

    Args:
        coordinates: x along each axis.
        t: time.
        diffusivity: ν.
        width: standard deviation w at t = 0, positive.
        length: length of the box along each axis.
        centre: c.
    Raises:
        ValueError: a variance s that is not positive, or numbers of axes that differ.
    """
    if not len(coordinates) == len(length) == len(centre):
        raise ValueError(
            f"length and centre must have {len(coordinates)} entries, one for each of the coordinates, "
            f"got {len(length)} and {len(centre)}"
        )
    variance = torch.as_tensor(width, dtype=coordinates[0].dtype) ** 2 + 2 * diffusivity * t
    if not bool((variance > 0).all()):
        raise ValueError(f"width must make width² + 2 diffusivity t positive, got {float(variance.detach().min()):g}")
    total = torch.ones((), dtype=coordinates[0].dtype)
    for x, side, c in zip(coordinates, length, centre, strict=True):
        # Images as far as nine standard deviations: what is left out is below 1e-17 of the peak.
        images = 1 + math.ceil(9.0 * math.sqrt(float(variance.detach().max())) / side)
        nearest = torch.remainder(x - c + side / 2, side) - side / 2
        sums = sum(torch.exp(-((nearest - m * side) ** 2) / (2 * variance)) for m in range(-images, images + 1))
        total = total * sums / torch.sqrt(2 * math.pi * variance)
    return total


def cole_hopf(
    u0: Float[Tensor, "batch 1 x"], t: float | int, viscosity: float | int, length: float | int = 1.0
) -> Float[Tensor, "batch 1 x"]:
    """The solution of u_t + (u²/2)_x = ν u_xx on a periodic line, by the transform of Cole and Hopf.

        u = m - 2ν θ_x/θ in the frame that moves with the mean m,    θ_t = ν θ_xx,    θ(0) = exp(-U/2ν),  U_x = u_0 - m

    The heat equation is solved by FFT on the start's grid, which must resolve θ: give a start on a finer grid than the answer is
    wanted on. float64 serves best.

    Args:
        u0: start, at the nodes of the periodic grid.
        t: time, not negative.
        viscosity: ν, positive.
        length: length of the line.
    Raises:
        ValueError: a time or viscosity out of range, or a start whose exponents U/2ν span more than 600, where θ cannot be held.
    """
    if not viscosity > 0 or not t >= 0:
        raise ValueError(f"viscosity must be positive and t not negative, got {viscosity} and {t}")
    n = u0.shape[-1]
    k = 2 * math.pi / length * torch.arange(n // 2 + 1, dtype=u0.dtype, device=u0.device)
    ik = 1j * torch.where(2 * torch.arange(n // 2 + 1, device=u0.device) == n, 0.0, k)
    mean = u0.mean(-1, keepdim=True)
    c = torch.fft.rfft(u0 - mean)
    potential = torch.fft.irfft(torch.where(ik == 0, 0.0, c / torch.where(ik == 0, 1.0, ik)), n=n)
    exponent = (potential - potential.amin(-1, keepdim=True)) / (2 * viscosity)
    # Smaller types hold less: e^-80 in float32.
    limit = min(_LARGEST_EXPONENT, -math.log(torch.finfo(u0.dtype).tiny) - 10.0)
    if float(exponent.detach().max()) > limit:
        raise ValueError(
            f"u0 must keep its integral's range / 2 viscosity below {limit:.0f} in {u0.dtype}, "
            f"got {float(exponent.detach().max()):.0f}"
        )
    heat = torch.fft.rfft(torch.exp(-exponent)) * torch.exp(-viscosity * t * k.square())
    # The frame's shift is a phase.
    heat = heat * torch.exp(-ik * mean * t)
    theta, slope = torch.fft.irfft(heat, n=n), torch.fft.irfft(ik * heat, n=n)
    return mean - 2 * viscosity * slope / theta


def kdv_solitons(x: Tensor, t: Number, wavenumbers: Sequence[float | int], centres: Sequence[float | int]) -> Tensor:
    """N solitons of u_t + 6 u u_x + u_xxx = 0 on the line; one is (κ²/2) sech²(κ (x - κ² t - c)/2).

        u = 2 ∂_xx log τ,    τ = Σ_S Π_{i<j in S} ((κ_i - κ_j)/(κ_i + κ_j))² exp(Σ_{i in S} κ_i (x - κ_i² t - c_i))

    S runs over all subsets (Hirota). The larger κ is the taller and faster soliton; they pass each other and keep their shape. On
    a periodic box choose it so long that u vanishes at its ends.

    Args:
        x: coordinates.
        t: time.
        wavenumbers: κ_i, positive and different.
        centres: c_i, where each would be at t = 0 if it were alone on the left.
    Raises:
        ValueError: wavenumbers that are not positive and different, or another number of centres.
    """
    if len(set(wavenumbers)) != len(wavenumbers) or not wavenumbers or min(wavenumbers) <= 0:
        raise ValueError(f"wavenumbers must be positive and different, got {tuple(wavenumbers)}")
    if len(centres) != len(wavenumbers):
        raise ValueError(f"centres must hold {len(wavenumbers)} numbers, one for each soliton, got {len(centres)}")
    exponents, slopes = [], []
    for count in range(len(wavenumbers) + 1):
        for members in combinations(range(len(wavenumbers)), count):
            pairs = combinations([wavenumbers[i] for i in members], 2)
            shift = sum(2 * math.log(abs(a - b) / (a + b)) for a, b in pairs)
            phases = (wavenumbers[i] * (x - wavenumbers[i] ** 2 * t - centres[i]) for i in members)
            exponents.append(sum(phases, torch.zeros_like(x)) + shift)
            slopes.append(float(sum(wavenumbers[i] for i in members)))
    # ∂_xx log Σ e^{a_i x} is the variance of the slopes a_i under the terms' shares.
    shares = torch.stack(torch.broadcast_tensors(*exponents)).softmax(0)
    rates = torch.tensor(slopes, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (shares.ndim - 1))
    centred = rates - (shares * rates).sum(0)
    return 2 * (shares * centred.square()).sum(0)


def fisher_wave(x: Tensor, t: Number, diffusivity: Number = 1.0, rate: Number = 1.0) -> Tensor:
    """A front of u_t = ν u_xx + ρ u (1 - u) that moves at 5 sqrt(ρν/6) to the right, from 1 to 0.

        u = (1 + exp(sqrt(ρ/6ν) x - 5ρt/6))⁻²

    Source: Ablowitz and Zeppetella, Bull. Math. Biol. 41 (1979).
    """
    slope = (torch.as_tensor(rate / diffusivity, dtype=x.dtype, device=x.device) / 6).sqrt()
    return torch.sigmoid(5 * rate * t / 6 - slope * x).square()


def taylor_green(
    x: Tensor, y: Tensor, t: Number, viscosity: Number, wavenumber: float | int = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Decaying vortices of the plane's Navier-Stokes equations: velocity (2, ...), pressure and vorticity.

        (u, v) = (cos κx sin κy, -sin κx cos κy) g,    p = -(cos 2κx + cos 2κy) g²/4,    ω = -2κ cos κx cos κy g,    g = e^{-2νκ²t}

    The periods are 2π/κ.
    """
    decay = torch.exp(torch.as_tensor(-2 * viscosity * wavenumber**2 * t, dtype=x.dtype, device=x.device))
    kx, ky = wavenumber * x, wavenumber * y
    velocity = torch.stack([kx.cos() * ky.sin(), -kx.sin() * ky.cos()]) * decay
    pressure = -0.25 * ((2 * kx).cos() + (2 * ky).cos()) * decay.square()
    return velocity, pressure, -2 * wavenumber * kx.cos() * ky.cos() * decay


def abc_flow(
    x: Tensor,
    y: Tensor,
    z: Tensor,
    t: Number,
    viscosity: Number,
    amplitudes: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Float[Tensor, "3 *grid"]:
    """The flow of Arnold, Beltrami and Childress, an exact solution of the Navier-Stokes equations in space: its vorticity is itself.

        (A sin z + C cos y, B sin x + A cos z, C sin y + B cos x) e^{-νt}

    The periods are 2π.
    """
    a, b, c = amplitudes
    decay = torch.exp(torch.as_tensor(-viscosity * t, dtype=x.dtype, device=x.device))
    parts = (a * z.sin() + c * y.cos(), b * x.sin() + a * z.cos(), c * y.sin() + b * x.cos())
    return torch.stack(torch.broadcast_tensors(*parts)) * decay


@dataclass(frozen=True)
class ManufacturedVorticity:
    """Two vortex systems that act on each other and swing in time, made a solution of the vorticity equation by its source.

        ψ = cos(t) ψ_1 + sin(2t) ψ_2,    ψ_1 = sin X sin Y,    ψ_2 = cos 2X cos Y,    (X, Y) = 2π (x, y)/L,    ω = -Δψ

    Attributes:
        grid: square periodic grid of two dimensions.
        viscosity: ν of the equation.
        drag: its drag.
    Raises:
        ValueError: a grid of other dimensions, or a box that is not square.
    """

    grid: Grid
    viscosity: float
    drag: float = 0.0

    def __post_init__(self) -> None:
        if self.grid.dims != 2 or self.grid.length[0] != self.grid.length[1]:
            raise ValueError(f"grid must be a square of two dimensions, got lengths {self.grid.length}")

    def _parts(self, like: Tensor | None) -> tuple[float, Tensor, Tensor, Tensor]:
        """q = 2π/L, ψ_1, ψ_2 and ∂(ψ_1, ψ_2)/∂(y, x)."""
        q = 2 * math.pi / self.grid.length[0]
        dtype, device = (torch.float64, None) if like is None else (like.dtype, like.device)
        x, y = (q * part for part in self.grid.mesh("nodes", dtype=dtype, device=device))
        first, second = x.sin() * y.sin(), (2 * x).cos() * y.cos()
        jacobian = -2 * x.sin() * y.cos() * (2 * x).sin() * y.cos() + x.cos() * y.sin() * (2 * x).cos() * y.sin()
        return q, first, second, q * q * jacobian

    def vorticity(self, t: float, like: Tensor | None = None) -> Float[Tensor, "1 1 x y"]:
        """ω at time t, in float64 or as ``like``."""
        q, first, second, _ = self._parts(like)
        return q * q * (2 * math.cos(t) * first + 5 * math.sin(2 * t) * second)[None, None]

    def source(self, t: float, like: Tensor | None = None) -> Float[Tensor, "1 1 x y"]:
        """s = ω_t + u·∇ω - ν Δω + α ω."""
        q, first, second, jacobian = self._parts(like)
        a, b = math.cos(t), math.sin(2 * t)
        q2 = q * q
        swing = q2 * (-2 * math.sin(t) * first + 10 * math.cos(2 * t) * second)
        # u·∇ω = ψ_y ω_x - ψ_x ω_y, ω = q² (2 a ψ_1 + 5 b ψ_2): what ψ_1 does to ω_2 and ψ_2 to ω_1.
        carried = 3 * q2 * a * b * jacobian
        decay = self.viscosity * q2 * q2 * (4 * a * first + 25 * b * second)
        return (swing + carried + decay)[None, None] + self.drag * self.vorticity(t, like)

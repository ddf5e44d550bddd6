"""Spectra of random fields: standard deviations of their coefficients as functions of the wavenumber; see ``fields``."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pdebook.pde.grid import Grid

__all__ = ["Number", "Spectrum", "band", "each", "lognormal", "matern", "mcwilliams", "power_law", "shell_energy"]

Number = float | int | Tensor
Spectrum = Callable[[Tensor], Tensor]
"""Standard deviation σ(k) of the coefficients at wavenumber k > 0; its parameters may be tensors (batch,)."""


def each(value: Number, k: Tensor) -> Any:
    """A parameter as a tensor that broadcasts against k, whose first axis is the batch."""
    value = torch.as_tensor(value, dtype=torch.float64, device=k.device)
    return value.reshape(-1, *[1] * (k.ndim - 1)) if value.ndim else value


def power_law(alpha: Number, shift: Number = 0.0, scale: Number = 1.0) -> Spectrum:
    """σ(k) = scale (k² + shift²)^(-alpha/2).

    The starts of the Fourier neural operator on the unit square, N(0, 7^{3/2} (-Δ + 49)^{-5/2}) as released, have alpha 2.5, shift 7
    and scale √2 7^{3/2}; the forces of the multi-grid operator on (0, 2π)² alpha 4, shift 3 and scale 27 √2.
    """
    return lambda k: each(scale, k) * (k.square() + each(shift, k) ** 2) ** (-each(alpha, k) / 2)


def matern(grid: Grid, length: Number, smoothness: float | int = 1.5, variance: Number = 1.0) -> Spectrum:
    """Covariance of Matérn: smoothness ν = 1/2 is exp(-r/length), infinity exp(-r²/2 length²).

    In a periodic box the covariance is C summed over the images, between walls over the mirror images; with ``mean=True``
    it is that exactly, up to the modes that are cut.

    Args:
        grid: the box, for its volume and dimension.
        length: correlation length, positive.
        smoothness: ν > 0; the field has fewer than ν derivatives.
        variance: C(0).
    Raises:
        ValueError: a length or smoothness that is not positive.
    """
    if not smoothness > 0 or not bool((torch.as_tensor(length) > 0).all()):
        raise ValueError(f"length and smoothness must be positive, got {length} and {smoothness}")
    d, volume = grid.dims, math.prod(grid.length)

    def sigma(k: Tensor) -> Tensor:
        ell = each(length, k)
        if math.isinf(smoothness):
            density = (2 * math.pi) ** (d / 2) * ell**d * torch.exp(-0.5 * (ell * k).square())
        else:
            log_factor = math.lgamma(smoothness + d / 2) - math.lgamma(smoothness) + d / 2 * math.log(2 * math.pi)
            # S = 2^d π^{d/2} Γ(ν + d/2)/Γ(ν) (2ν)^ν ℓ^{-2ν} (2ν/ℓ² + k²)^{-ν - d/2}, with the powers of ℓ gathered.
            log_factor += d / 2 * (math.log(2) - math.log(2 * smoothness))
            power = (1 + (ell * k).square() / (2 * smoothness)) ** -(smoothness + d / 2)
            density = math.exp(log_factor) * ell**d * power
        return (each(variance, k) * density / volume).sqrt()

    return sigma


def band(low: float | int, high: float | int, scale: Number = 1.0) -> Spectrum:
    """σ(k) = scale for low <= k <= high, else 0."""
    # The ends belong to the band whatever the rounding of k.
    return lambda k: each(scale, k) * ((k >= low * (1 - 1e-9)) & (k <= high * (1 + 1e-9)))


def lognormal(peak: Number, dims: int, variance: float | int = 0.25) -> Spectrum:
    """σ(k) = exp(-(ln peak + variance - ln k)²/(2 variance)) / k^dims, the filter of jax-cfd's random velocities.

    σ(k) k^(dims - 1) is a log-normal density with its maximum at ``peak``.
    """
    return lambda k: torch.exp(-((each(peak, k).log() + variance - k.log()) ** 2) / (2 * variance)) / k**dims


def shell_energy(energy: Callable[[Tensor], Tensor], dims: int) -> Spectrum:
    """σ(k) = sqrt(E(k) / k^(dims - 1)): the power in a shell at k is proportional to E(k)."""
    return lambda k: (energy(k) / k ** (dims - 1)).sqrt()


def mcwilliams(peak: Number) -> Spectrum:
    """Velocity with energy E(k) ∝ k / (1 + (k/k_0)⁴) in shells of the plane; k_0 = 3^(1/4) peak puts the maximum at ``peak``.

    Source: McWilliams, The emergence of isolated coherent vortices in turbulent flow, Journal of Fluid Mechanics 146 (1984).
    """
    return shell_energy(lambda k: k / (1 + (k / each(peak, k)) ** 4 / 3), 2)

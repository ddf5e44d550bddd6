"""Blobs, media of several phases, and fields brought to a range."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.pde.grid import Grid
from pdebook.rng import fold_in, uniform

__all__ = ["blobs", "gaussian_bumps", "phases", "rescale"]

Samples = Shaped[Tensor, " batch"]


def gaussian_bumps(
    grid: Grid,
    centre: Float[Tensor, "batch count dims"],
    width: Float[Tensor, "batch count"],
    amplitude: Float[Tensor, "batch count"],
    *,
    periodic: bool = True,
    at: str = "centres",
) -> Float[Tensor, "batch 1 *size"]:
    """u(x) = Σ_i amplitude_i exp(-|x - centre_i|² / (2 width_i²)), in a periodic box with the images next to it.

    Raises:
        ValueError: centres that do not match the grid's axes.
    """
    if centre.shape[-1] != grid.dims:
        raise ValueError(f"centre must have {grid.dims} coordinates, got {centre.shape[-1]}")
    u, letters = amplitude, "xyz"[: grid.dims]
    factors = []
    for axis, (x, side) in enumerate(zip(grid.coordinates(at, device=u.device), grid.length, strict=True)):
        shifts = torch.tensor([-side, 0.0, side] if periodic else [0.0], dtype=torch.float64, device=u.device)
        distance = x.flatten() - (centre[..., axis, None] + shifts)[..., None]
        factors.append(torch.exp(-0.5 * (distance / width[..., None, None]).square()).sum(2).to(u.dtype))
    spec = "bi," + ",".join(f"bi{letter}" for letter in letters) + f"->b{letters}"
    return torch.einsum(spec, u, *factors)[:, None]


def blobs(
    seed: int,
    samples: Samples,
    grid: Grid,
    count: int,
    *,
    width: tuple[float | int, float | int],
    amplitude: tuple[float | int, float | int] = (1.0, 1.0),
    periodic: bool = True,
    at: str = "centres",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch 1 *size"]:
    """``count`` Gaussian bumps with centres uniform in the box, widths and amplitudes uniform in their ranges.

    Raises:
        ValueError: a count below 1, or widths that are not positive.
    """
    if count < 1 or not 0 < width[0] <= width[1]:
        raise ValueError(f"count must be positive and width 0 < low <= high, got {count} and {width}")
    d = grid.dims
    draws = uniform(fold_in(seed, "blobs"), samples, (count, d + 2), dtype=torch.float64, device=device)
    low, side = (torch.tensor(t, dtype=torch.float64, device=device) for t in (grid.origin, grid.length))
    sigma = width[0] + (width[1] - width[0]) * draws[..., d]
    height = amplitude[0] + (amplitude[1] - amplitude[0]) * draws[..., d + 1]
    return gaussian_bumps(grid, low + side * draws[..., :d], sigma, height, periodic=periodic, at=at).to(dtype)


def phases(
    u: Float[Tensor, "batch channel *size"],
    values: Sequence[float | int],
    *,
    levels: Sequence[float | int] | None = None,
    fractions: Sequence[float | int] | None = None,
) -> Float[Tensor, "batch channel *size"]:
    """A medium of several phases: values[0] where u is lowest, values[-1] where it is highest.

    The phases part at the given levels of u, or hold the given fractions of each sample's cells.

    Args:
        u: a random field.
        values: value of each phase.
        levels: rising levels, one fewer than values; [0] if neither is given, so that two values are wanted.
        fractions: share of each phase, positive, summing to 1.
    Raises:
        ValueError: both given, or numbers that do not match.
    """
    if levels is not None and fractions is not None:
        raise ValueError("levels and fractions must not both be given")
    if fractions is not None:
        if len(fractions) != len(values) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError(f"fractions must be {len(values)} positive numbers that sum to 1, got {list(fractions)}")
        # Ranks, not quantiles: the shares are exact.
        flat = u.flatten(2)
        rank = flat.argsort(-1).argsort(-1).reshape(u.shape)
        limits = (torch.tensor(fractions, dtype=torch.float64).cumsum(0)[:-1] * flat.shape[-1]).round()
        region = torch.bucketize(rank.double(), limits.to(u.device), right=True)
    else:
        levels = [0.0] if levels is None else list(levels)
        if len(levels) != len(values) - 1 or any(a >= b for a, b in pairwise(levels)):
            raise ValueError(f"levels must be {len(values) - 1} rising numbers, got {levels}")
        region = torch.bucketize(u, torch.tensor(levels, dtype=u.dtype, device=u.device))
    return torch.tensor(values, dtype=u.dtype, device=u.device)[region]


def rescale(
    u: Float[Tensor, "batch channel *size"], low: float | int = 0.0, high: float | int = 1.0
) -> Float[Tensor, "batch channel *size"]:
    """Each sample's channel, mapped linearly so that its least value is ``low`` and its greatest ``high``; a constant becomes low."""
    flat = u.flatten(2)
    least, greatest = flat.amin(-1), flat.amax(-1)
    span = torch.where(greatest > least, greatest - least, torch.ones_like(least))
    shape = [*least.shape, *[1] * (u.ndim - 2)]
    return low + (high - low) * (u - least.view(shape)) / span.view(shape)

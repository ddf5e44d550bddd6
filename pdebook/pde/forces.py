"""Forces on staggered grids, and velocities on coarser ones."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.pde.grid import Grid
from pdebook.pde.staggered import Number, Staggered, column

__all__ = ["buoyancy", "kolmogorov", "restrict"]


def kolmogorov(
    grid: Grid,
    amplitude: float | int = 1.0,
    wavenumber: int = 4,
    *,
    average: str = "cell",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "1 dims *size"]:
    """f = A sin(k y) along the first axis, y along the second: the force of Kolmogorov's flow.

    Args:
        grid: the box, 2 or 3 axes.
        amplitude: A.
        wavenumber: k in waves per 2π of y.
        average: "cell", the mean over a face, sinc(kh/2) smaller, which restriction keeps; "point", the value at its middle;
            "official", sin(ky) sinc(h/2), as the code of temporal stencil modeling has it.
    Raises:
        ValueError: one axis, or another average.
    """
    if grid.dims < 2:
        raise ValueError(f"grid must have 2 or 3 axes, got {grid.dims}")
    factors = {"cell": wavenumber * grid.spacing[1] / 2, "point": 0.0, "official": grid.spacing[1] / 2}
    if average not in factors:
        raise ValueError(f"average must be 'cell', 'point' or 'official', got {average!r}")
    half = factors[average]
    y = grid.coordinates(face=0, device=device)[1]
    along = amplitude * torch.sin(wavenumber * y) * (math.sin(half) / half if half else 1.0)
    force = torch.zeros(1, grid.dims, *grid.size, dtype=torch.float64, device=device)
    force[:, 0] = along
    return force.to(dtype)


def buoyancy(
    c: Float[Tensor, "batch 1 *size"], mac: Staggered, axis: int, strength: Number = 1.0
) -> Float[Tensor, "batch dims *size"]:
    """strength x c along an axis, c by linear interpolation at its faces; zero on walls."""
    mac.grid.check(c, "c", 1)
    if not 0 <= axis < mac.grid.dims:
        raise ValueError(f"axis must be from 0 to {mac.grid.dims - 1}, got {axis}")
    u = c[:, 0]
    n = u.shape[axis + 1]
    before = (
        u.roll(1, axis + 1)
        if mac.periodic[axis]
        else torch.cat([-u.narrow(axis + 1, 0, 1), u.narrow(axis + 1, 0, n - 1)], axis + 1)
    )
    own = column(strength, u) * 0.5 * (u + before)
    return torch.stack([own if j == axis else torch.zeros_like(own) for j in range(mac.grid.dims)], 1)


def restrict(v: Float[Tensor, "batch dims *size"], factor: int) -> Float[Tensor, "batch dims *coarse"]:
    """The velocity on cells ``factor`` times as long: means over the fine faces that tile a coarse one.

    The coarse divergence is the mean of the fine ones, so none appears; momentum flux through coarse faces is kept.

    Raises:
        ValueError: a factor that does not divide the size.
    """
    size = v.shape[2:]
    if v.shape[1] != len(size):
        raise ValueError(f"v must have a component for each of the {len(size)} axes, got {v.shape[1]}")
    if not isinstance(factor, int) or factor < 1 or any(n % factor for n in size):
        raise ValueError(f"factor must be a positive divisor of the size {tuple(size)}, got {factor}")
    parts = []
    for component in range(v.shape[1]):
        u = v[:, component]
        for axis, n in enumerate(size):
            blocks = u.unflatten(axis + 1, (n // factor, factor))
            u = blocks.select(axis + 2, 0) if axis == component else blocks.mean(axis + 2)
        parts.append(u)
    return torch.stack(parts, 1)

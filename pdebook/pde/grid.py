"""Uniform grids on boxes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.fourier import check_length, check_size

__all__ = ["Grid"]

_PLACES = ("centres", "nodes")


@dataclass(frozen=True, init=False)
class Grid:
    """Box of n_1 x ... x n_d equal cells, 1 <= d <= 3.

    Fields are tensors (batch, channel, *size). The number i along an axis stands for the cell [x_0 + i h, x_0 + (i + 1) h],
    h = L/n; a field holds its mean or the value at its centre ("centres"), or the value at its lower end ("nodes", as on the
    periodic grids of Fourier methods), or on the lower face along one axis ("faces", as on staggered grids).

    Attributes:
        size: number of cells along each axis.
        length: length of the box along each axis; one number serves all axes.
        origin: lower corner; likewise.
    Raises:
        ValueError: sizes, lengths or origins that make no sense or do not match.
    """

    size: tuple[int, ...]
    length: tuple[float, ...]
    origin: tuple[float, ...]

    def __init__(
        self,
        size: Sequence[int] | int,
        length: Sequence[float | int] | float | int = 1.0,
        origin: Sequence[float | int] | float | int = 0.0,
    ) -> None:
        sizes = check_size((size,) if isinstance(size, int) else size)
        if len(sizes) > 3:
            raise ValueError(f"size must have at most three axes, got {sizes}")
        object.__setattr__(self, "size", sizes)
        object.__setattr__(self, "length", check_length(length, len(sizes)))
        corner = (float(origin),) * len(sizes) if isinstance(origin, (int, float)) else tuple(map(float, origin))
        if len(corner) != len(sizes) or not all(map(math.isfinite, corner)):
            raise ValueError(f"origin must be finite, one number or {len(sizes)}, got {origin}")
        object.__setattr__(self, "origin", corner)

    @property
    def dims(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def spacing(self) -> tuple[float, ...]:
        """h = L/n of each axis."""
        return tuple(side / n for side, n in zip(self.length, self.size, strict=True))

    @property
    def cell(self) -> float:
        """Volume of a cell."""
        return math.prod(self.spacing)

    def coordinates(
        self,
        at: str = "centres",
        *,
        face: int | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> tuple[Float[Tensor, "..."], ...]:
        """Coordinates along each axis, shaped to broadcast over the grid.

        Args:
            at: "centres" or "nodes".
            face: an axis along which the lower faces are meant: its coordinates are those of the nodes.
            dtype: floating type.
            device: where they are put.
        Raises:
            ValueError: another place, or an axis that the grid lacks.
        """
        if at not in _PLACES:
            raise ValueError(f"at must be 'centres' or 'nodes', got {at!r}")
        if face is not None and not 0 <= face < self.dims:
            raise ValueError(f"face must be an axis from 0 to {self.dims - 1}, got {face}")
        axes = []
        for axis, (n, h, low) in enumerate(zip(self.size, self.spacing, self.origin, strict=True)):
            shift = 0.0 if at == "nodes" or axis == face else 0.5
            x = low + (torch.arange(n, dtype=torch.float64, device=device) + shift) * h
            axes.append(x.to(dtype).reshape([-1 if other == axis else 1 for other in range(self.dims)]))
        return tuple(axes)

    def mesh(
        self,
        at: str = "centres",
        *,
        face: int | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> Float[Tensor, "dims *size"]:
        """``coordinates``, expanded and stacked."""
        parts = self.coordinates(at, face=face, dtype=dtype, device=device)
        return torch.stack([part.expand(self.size) for part in parts])

    def check(self, u: Shaped[Tensor, "..."], name: str = "u", channels: int | None = None) -> None:
        """Raise ValueError unless u is a floating-point field (batch, channel, *size), with so many channels if given."""
        wanted = f"(batch, {'channel' if channels is None else channels}, {', '.join(map(str, self.size))})"
        right = u.ndim == self.dims + 2 and tuple(u.shape[2:]) == self.size
        if not right or (channels is not None and u.shape[1] != channels):
            raise ValueError(f"{name} must have shape {wanted}, got {tuple(u.shape)}")
        if not u.is_floating_point():
            raise ValueError(f"{name} must be floating-point, got {u.dtype}")

    def coarser(self, factor: int) -> "Grid":
        """The grid of this box with cells ``factor`` times as long.

        Raises:
            ValueError: a factor that does not divide the size.
        """
        if not isinstance(factor, int) or factor < 1 or any(n % factor for n in self.size):
            raise ValueError(f"factor must be a positive divisor of the size {self.size}, got {factor}")
        return Grid(tuple(n // factor for n in self.size), self.length, self.origin)


def sides(given: Any, dims: int, name: str) -> tuple[tuple[Any, Any], ...]:
    """A (lower, upper) pair for each axis, from one thing for all sides, one for each axis, or the pairs themselves.

    Raises:
        ValueError: neither one nor ``dims`` entries, or an entry of more than two.
    """
    entries = list(given) if isinstance(given, (list, tuple)) else [given] * dims
    if len(entries) != dims:
        raise ValueError(f"{name} must be one or {dims}, an entry for each axis, got {len(entries)}")
    pairs = []
    for entry in entries:
        pair = tuple(entry) if isinstance(entry, (list, tuple)) else (entry, entry)
        if len(pair) != 2:
            raise ValueError(f"{name} must have a lower and an upper side for an axis, got {len(pair)}")
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)

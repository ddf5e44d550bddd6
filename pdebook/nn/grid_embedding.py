"""Coordinates as further channels of a field."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def coordinates(
    size: Sequence[int],
    bounds: Sequence[tuple[float | int, float | int]],
    *,
    closed: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "axes *size"]:
    """The coordinates of a uniform grid's points, a field for each axis.

    Args:
        size: number of points along each axis.
        bounds: ends of each axis.
        closed: whether the last point is the end itself; else the grid is periodic, and the end is the first point again.
        dtype: floating type.
        device: where they are put.
    Raises:
        ValueError: bounds of another number of axes.
    """
    if len(bounds) != len(size):
        raise ValueError(f"bounds must have a pair for each of {len(size)} axes, got {tuple(bounds)}")
    axes = []
    for n, (low, high) in zip(size, bounds, strict=True):
        step = (high - low) / max(n - closed, 1)
        axes.append((low + step * torch.arange(n, dtype=torch.float64, device=device)).to(dtype))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


class GridEmbedding(nn.Module):
    """[v, x_1, ..., x_d]: the points' coordinates appended to the channels, on whatever grid v has.

    Args:
        bounds: ends of each axis; its number is the dimension.
        closed: whether the last point is the end itself; see ``coordinates``.
    Raises:
        ValueError: bounds that do not rise; on use, another number of axes.
    """

    def __init__(self, bounds: Sequence[tuple[float | int, float | int]], *, closed: bool = False) -> None:
        super().__init__()
        pairs = all(isinstance(pair, Sequence) and len(pair) == 2 for pair in bounds)
        if not bounds or not pairs or not all(-math.inf < low < high < math.inf for low, high in bounds):
            raise ValueError(f"bounds must be rising pairs, one for each axis, got {tuple(bounds)}")
        self.bounds, self.closed = tuple(bounds), closed

    def forward(self, v: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch more *grid"]:
        """The field with d more channels."""
        if v.ndim != len(self.bounds) + 2:
            raise ValueError(f"v must have a grid of {len(self.bounds)} axes, got shape {tuple(v.shape)}")
        grid = coordinates(v.shape[2:], self.bounds, closed=self.closed, dtype=v.dtype, device=v.device)
        return torch.cat([v, grid.expand(len(v), *grid.shape)], 1)

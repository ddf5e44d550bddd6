"""What the benchmarks' starts are drawn with: numbers that depend on seed, purpose and sample alone, and smooth windows."""

import math

import torch
from jaxtyping import Shaped
from torch import Tensor

from pdebook.pde.grid import Grid
from pdebook.pde.laws import check_number
from pdebook.rng import fold_in, uniform

Samples = Shaped[Tensor, " batch"]
Device = torch.device | str
Number = float | int | Tensor

WIDTH = 0.01
"""Width of the windows' flanks."""


def draw(seed: int, name: str, samples: Tensor, shape: tuple[int, ...], device: Device) -> Tensor:
    """Uniform doubles of a purpose of their own."""
    return uniform(fold_in(seed, name), samples, shape, dtype=torch.float64, device=device)


def between(draws: Tensor, low: float | int, high: float | int) -> Tensor:
    """Uniform numbers, brought from (0, 1) to (low, high)."""
    return low + (high - low) * draws


def log_between(draws: Tensor, low: float, high: float) -> Tensor:
    """Numbers whose logarithm is uniform, in (low, high)."""
    return torch.exp(between(draws, math.log(low), math.log(high)))


def need_axes(grid: Grid, dims: tuple[int, ...]) -> None:
    """Raise ValueError unless the grid has one of these numbers of axes."""
    if grid.dims not in dims:
        raise ValueError(f"grid must have {' or '.join(map(str, dims))} axes, got {grid.dims}")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ValueError unless the value is known."""
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")


def as_field(name: str, value: Number, dims: int, device: Device, *, strict: bool = True) -> Tensor:
    """A positive number (not negative, if not strict), or one for each sample, as a tensor that broadcasts against (batch, *size)."""
    check_number(name, value, least=0.0, strict=strict)
    return torch.as_tensor(value, dtype=torch.float64, device=device).reshape(-1, *[1] * dims)


def pair(like: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
    """Two numbers as tensors for ``torch.where``."""
    # Two plain numbers would make torch.where single-precision.
    return like.new_tensor(a), like.new_tensor(b)


def window(x: Tensor, left: Tensor, right: Tensor, width: float = WIDTH) -> Tensor:
    """½ [tanh((x - left)/width) - tanh((x - right)/width)]: one inside, zero outside."""
    return 0.5 * (torch.tanh((x - left) / width) - torch.tanh((x - right) / width))


def window_ends(seed: int, samples: Tensor, count: int, chance: float, device: Device) -> tuple[Tensor, Tensor, Tensor]:
    """Ends of the windows, (batch, count) each, in absolute coordinates, and whether a sample has them."""
    draws = draw(seed, "window", samples, (2 * count + 1,), device)
    left, right = between(draws[:, 1 : count + 1], 0.1, 0.45), between(draws[:, count + 1 :], 0.55, 0.9)
    return left, right, draws[:, 0] < chance

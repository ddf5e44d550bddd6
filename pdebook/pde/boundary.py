"""Ghost cells: what stands beyond the sides of a box, for fields of cell means or centre values.

A side's condition fills the ghost cells 1, 2, ... outwards from the inner cells 1, 2, ... inwards, which mirror them at the
wall; the centres of a pair are (2j - 1) h apart.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.pde.grid import sides

__all__ = [
    "Boundary",
    "Fixed",
    "Ghost",
    "Outflow",
    "Periodic",
    "Robin",
    "Wall",
    "dirichlet",
    "neumann",
    "pad",
    "paired",
    "wall_flux",
]

Value = float | int | Tensor | Callable[[Any], Any]
"""A number, a tensor that broadcasts to the side, (batch, channel, 1 along the axis, the rest), or such a function of time."""


@dataclass(frozen=True)
class Periodic:
    """The other end of the box."""


@dataclass(frozen=True)
class Outflow:
    """An open side: the nearest value (order 0), or the line through the last two (order 1)."""

    order: int = 0

    def __post_init__(self) -> None:
        if self.order not in (0, 1):
            raise ValueError(f"order of an outflow must be 0 or 1, got {self.order}")


@dataclass(frozen=True)
class Wall:
    """A reflecting wall: the mirror image, with the sign turned in the channels that ``odd`` of ``pad`` names for the axis."""


@dataclass(frozen=True)
class Ghost:
    """Ghost cells of a given value: a Dirichlet condition half a cell beyond the wall, and further."""

    value: Value = 0.0


@dataclass(frozen=True)
class Robin:
    """a u + b ∂u/∂n = g on the wall, n outwards: of second order by the mean and the difference of a mirrored pair.

    Attributes:
        a: weight of the value.
        b: weight of the outward derivative.
        g: right-hand side.
    Raises:
        ValueError: weights that are both zero or not finite.
    """

    a: float
    b: float
    g: Value = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.a) and math.isfinite(self.b)) or (self.a == 0 and self.b == 0):
            raise ValueError(f"a and b must be finite and not both zero, got {self.a} and {self.b}")


Fixed = Robin | Ghost
Boundary = Periodic | Outflow | Wall | Ghost | Robin


def dirichlet(value: Value = 0.0) -> Robin:
    """u = value on the wall."""
    return Robin(1.0, 0.0, value)


def neumann(slope: Value = 0.0) -> Robin:
    """∂u/∂n = slope on the wall, n outwards; zero: no flux."""
    return Robin(0.0, 1.0, slope)


def paired(boundary: Any, dims: int) -> tuple[tuple[Boundary, Boundary], ...]:
    """The conditions as (lower, upper) for each axis.

    Args:
        boundary: one for all sides, or a sequence with an entry for each axis: one for both sides, or a pair.
        dims: number of axes.
    Raises:
        ValueError: a number of entries that does not fit, something that is no condition, or a periodic side without its partner.
    """
    pairs = sides(boundary, dims, "boundary")
    for pair in pairs:
        for side in pair:
            if not isinstance(side, Boundary):
                raise ValueError(
                    f"boundary must hold Periodic, Outflow, Wall, Ghost or Robin conditions, got {type(side).__name__}"
                )
        if isinstance(pair[0], Periodic) != isinstance(pair[1], Periodic):
            raise ValueError("boundary must be periodic on both sides of an axis or on neither")
    return pairs


def _at(value: Value, t: Any, u: Tensor, axis: int, size: Sequence[int], periodic: Sequence[bool]) -> Any:
    """A condition's value at a time, continued over the ghosts that u has along other axes, of which ``size`` knows nothing.

    Raises ValueError unless it broadcasts to a side across the axis of a field of that size.
    """
    value = value(t) if callable(value) else value
    if not isinstance(value, Tensor):
        return value
    shape = [1 if place == axis else n for place, n in enumerate(size)]
    if value.ndim > u.ndim or any(m not in (1, n) for m, n in zip(value.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(f"boundary must hold values that broadcast to a side's {shape}, got shape {list(value.shape)}")
    value = value.to(u)
    for place in range(2, u.ndim):
        n, ghosts = size[place], (u.shape[place] - size[place]) // 2
        if place != axis and ghosts and value.ndim >= u.ndim - place and value.shape[place - u.ndim] == n > 1:
            index = torch.arange(-ghosts, n + ghosts, device=u.device)
            index = index % n if periodic[place - 2] else index.clamp(0, n - 1)
            value = value.index_select(place - u.ndim, index)
    return value


def _beyond(
    u: Tensor,
    axis: int,
    side: Boundary,
    upper: bool,
    width: int,
    h: float,
    odd: Sequence[int],
    at: Callable[[Value], Any],
) -> Tensor:
    """Ghost cells on one side that is not periodic, ordered as on the grid; ``at`` evaluates a condition's value."""
    n = u.shape[axis]
    inner = u.narrow(axis, n - width if upper else 0, width)
    if isinstance(side, Ghost):
        shape = [width if d == axis % u.ndim else s for d, s in enumerate(u.shape)]
        return torch.as_tensor(at(side.value), dtype=u.dtype, device=u.device).expand(shape)
    # Number of each ghost cell, counted outwards from the wall, along the axis.
    number = torch.arange(1, width + 1, dtype=u.dtype, device=u.device)
    number = (number if upper else number.flip(0)).reshape([-1 if d == axis % u.ndim else 1 for d in range(u.ndim)])
    if isinstance(side, Outflow):
        last = u.narrow(axis, n - 1 if upper else 0, 1)
        if side.order == 0:
            return last.expand_as(inner)
        return last + number * (last - u.narrow(axis, n - 2 if upper else 1, 1))
    mirrored = inner.flip(axis)
    if isinstance(side, Wall):
        signs = torch.ones(u.shape[1], dtype=u.dtype, device=u.device)
        signs[list(odd)] = -1.0
        return mirrored * signs.view(-1, *[1] * (u.ndim - 2))
    assert isinstance(side, Robin)
    slope = side.b / ((2 * number - 1) * h)
    return (at(side.g) - mirrored * (side.a / 2 - slope)) / (side.a / 2 + slope)


def pad(
    u: Float[Tensor, "batch channel *shape"],
    width: int,
    boundary: Any,
    spacing: Sequence[float],
    *,
    axes: Sequence[int] | None = None,
    odd: Sequence[Sequence[int]] = (),
    t: Any = 0.0,
) -> Float[Tensor, "batch channel *padded"]:
    """u with ``width`` ghost cells on the sides of each axis; corners hold the last axis' rule applied to the first axes' ghosts.

    Args:
        u: fields.
        width: ghost cells on a side, at most the number of cells.
        boundary: conditions; see ``paired``.
        spacing: h of each axis.
        axes: which axes of the grid, all if left out.
        odd: for each axis the channels whose sign turns at a ``Wall``: the velocity normal to it.
        t: time, handed to values that are functions of it.
    Raises:
        ValueError: conditions that do not fit, a width that is not positive or exceeds the grid, a Robin condition that has
            no solution at this spacing, spacings or axes that are not the grid's.
    """
    dims, size = u.ndim - 2, u.shape
    pairs = paired(boundary, dims)
    periodic = [isinstance(lower, Periodic) for lower, _ in pairs]
    if len(spacing) != dims or not all(h > 0 for h in spacing):
        raise ValueError(f"spacing must be positive, one for each of the {dims} axes, got {tuple(spacing)}")
    if axes is not None and not all(0 <= axis < dims for axis in axes):
        raise ValueError(f"axes must be from 0 to {dims - 1}, got {tuple(axes)}")
    if odd and (len(odd) != dims or not all(-u.shape[1] <= j < u.shape[1] for turned in odd for j in turned)):
        raise ValueError(f"odd must name channels below {u.shape[1]} for each of the {dims} axes, got {odd}")
    if width < 1 or any(width > u.shape[2 + axis] for axis in (axes if axes is not None else range(dims))):
        raise ValueError(f"width must be from 1 to the number of cells {tuple(u.shape[2:])}, got {width}")
    for axis in range(dims) if axes is None else axes:
        lower, upper = pairs[axis]
        place = 2 + axis
        n = u.shape[place]
        if isinstance(lower, Periodic):
            u = torch.cat([u.narrow(place, n - width, width), u, u.narrow(place, 0, width)], place)
            continue
        for side in (lower, upper):
            if isinstance(side, Outflow) and side.order == 1 and n < 2:
                raise ValueError("boundary must not be Outflow of order 1 along an axis of one cell")
            if isinstance(side, Robin):
                for j in range(1, width + 1):
                    if side.a / 2 + side.b / ((2 * j - 1) * spacing[axis]) == 0:
                        raise ValueError(
                            f"boundary has no ghost value: a/2 + b/h vanishes for a = {side.a}, b = {side.b}"
                        )
        turned = odd[axis] if odd else ()
        at = partial(_at, t=t, u=u, axis=place, size=size, periodic=periodic)
        parts = [
            _beyond(u, place, side, side_is_upper, width, spacing[axis], turned, at)
            for side, side_is_upper in ((lower, False), (upper, True))
        ]
        u = torch.cat([parts[0], u, parts[1]], place)
    return u


def wall_flux(side: Boundary, h: float) -> tuple[float, float, Any]:
    """(weight, factor, g) of a side: the flux of -a ∇u out of the last cell is a (weight u - factor g)/h.

    Raises:
        ValueError: a side that has no such flux, or whose flux would feed the box the more, the larger u is.
    """
    if isinstance(side, Ghost):
        return 1.0, 1.0, side.value
    if isinstance(side, Wall) or (isinstance(side, Outflow) and side.order == 0):
        return 0.0, 0.0, 0.0
    if not isinstance(side, Robin):
        raise ValueError(f"boundary must be Periodic, Robin, Ghost, Wall or Outflow of order 0 here, got {side}")
    below = side.a / 2 + side.b / h
    if below == 0 or side.a / below < 0:
        raise ValueError(
            f"boundary must take from the box what a positive u gives it: a/(a/2 + b/h) >= 0, got a = {side.a}, b = {side.b}, "
            f"h = {h:.3g}"
        )
    return side.a / below, 1.0 / below, side.g

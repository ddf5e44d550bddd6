"""Interpolation between the points of a grid: along an axis for fluxes, with and without limiters, and anywhere for paths."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

__all__ = ["ALIKE", "Interpolation", "Neighbours", "lax_wendroff", "limited", "linear", "sample", "upwind", "van_leer"]


@dataclass(frozen=True)
class Neighbours:
    """What an interpolation sees: values along an axis, wanted half way between the points j - 1 and j, j = 0, ..., n.

    Attributes:
        values: the field (batch, *size) that is interpolated.
        padded: with two ghosts on each side along the axis.
        axis: the axis of the grid.
        component: number of the velocity component, or None for a scalar.
        velocity: velocity along the axis at the n + 1 points; None where the carrying velocity itself is wanted.
        courant: Δt/h times it, zero if no step was given.
    """

    values: Tensor
    padded: Tensor
    axis: int
    component: int | None = None
    velocity: Tensor | None = None
    courant: Tensor | float = 0.0

    def at(self, offset: int) -> Tensor:
        """Values at the points j + offset, -2 <= offset <= 1: -1 and 0 are next to the wanted point."""
        place = self.axis + 1
        return self.padded.narrow(place, offset + 2, self.padded.shape[place] - 3)


Interpolation = Callable[[Neighbours], Tensor]
"""Neighbours to the n + 1 values between them; a network, a table of weights or one of the functions here."""


def linear(near: Neighbours) -> Tensor:
    """The mean of both neighbours: second order, without dissipation."""
    return torch.lerp(near.at(-1), near.at(0), 0.5)


def _velocity(near: Neighbours) -> Tensor:
    if near.velocity is None:
        raise ValueError(
            "carrier must not ask for a velocity, which it is to give: take linear or a function of the values"
        )
    return near.velocity


def _upwards(near: Neighbours) -> Tensor:
    """One where the flow goes upwards, else zero: a weight with which torch.lerp chooses exactly, on a CPU faster than torch.where."""
    return _velocity(near).detach().sign().relu_()


def upwind(near: Neighbours) -> Tensor:
    """The value on the side that the flow comes from: first order, monotone."""
    return torch.lerp(near.at(0), near.at(-1), _upwards(near))


def lax_wendroff(near: Neighbours) -> Tensor:
    """The mean along the path of a step: second order in space and time for one explicit step."""
    low, high = near.at(-1), near.at(0)
    return 0.5 * (low + high) - 0.5 * near.courant * (high - low)


def limited(near: Neighbours, proposal: Tensor) -> Tensor:
    """c_up - φ(r) (c_up - proposal), van Leer's φ(r) = 2r/(1 + r) for r > 0, else 0; r is the upwind slope over the central one."""
    upwards = _upwards(near)
    share, _ = _share(near, upwards)
    return torch.lerp(torch.lerp(near.at(0), near.at(-1), upwards), proposal, 2 * share)


def _share(near: Neighbours, upwards: Tensor) -> tuple[Tensor, Tensor]:
    """φ(r)/2 = a/(a + b) for ab > 0, else zero, a the difference on the upwind side and b the central one; and b."""
    place = near.axis + 1
    differences = torch.diff(near.padded, dim=place)
    n = differences.shape[place] - 2
    centre = differences.narrow(place, 1, n)
    slope = torch.lerp(differences.narrow(place, 2, n), differences.narrow(place, 0, n), upwards)
    product = (slope * centre).relu_()
    # ab/(ab + b²), kept from 0/0, whose gradient is not a number.
    return product / torch.addcmul(product, centre, centre).add_(torch.finfo(centre.dtype).tiny), centre


def van_leer(near: Neighbours) -> Tensor:
    """Lax and Wendroff's value under van Leer's limiter: second order where smooth, no new extrema."""
    # ``limited`` of ``lax_wendroff``, with the common factors multiplied out: c_up + (±1 - courant) ab/(a + b).
    upwards = _upwards(near)
    share, centre = _share(near, upwards)
    slope = share * centre
    low = torch.lerp(near.at(0), near.at(-1), upwards).sub_(slope)
    return torch.addcmul(low, torch.sub(upwards, near.courant, alpha=0.5), slope, value=2)


ALIKE = (linear, upwind, lax_wendroff, van_leer)
"""Interpolations that look at neighbours along the axis alone, so that several fields can go through them as one batch."""


def sample(
    u: Shaped[Tensor, "batch channel *size"], at: Float[Tensor, "rows axes *points"], periodic: Sequence[bool]
) -> Float[Tensor, "batch channel *points"]:
    """Multilinear interpolation of u at positions counted in points, 0 being the first; wrapped, or held at the ends.

    Args:
        u: fields.
        at: positions along each axis.
        periodic: which axes close on themselves.
    Raises:
        ValueError: positions or ``periodic`` of other numbers of samples or axes than u.
    """
    size, dims = u.shape[2:], u.ndim - 2
    if len(periodic) != dims:
        raise ValueError(f"periodic must have an entry for each of the {dims} axes, got {len(periodic)}")
    if at.ndim < 2 or tuple(at.shape[:2]) != (len(u), dims):
        raise ValueError(f"at must have shape ({len(u)}, {dims}, ...), got {tuple(at.shape)}")
    weights, indices = [], []
    for axis, (n, closed) in enumerate(zip(size, periodic, strict=True)):
        x = at[:, axis] if closed else at[:, axis].clamp(0, n - 1)
        low = x.detach().floor()
        weight = x - low
        index = low.long()
        # A position that is not a number must not become an index beyond the field.
        pair = [index % n, (index + 1) % n] if closed else [index.clamp(0, n - 1), (index + 1).clamp(0, n - 1)]
        weights.append([1 - weight, weight])
        indices.append(pair)
    flat = u.flatten(2)
    total: Any = 0.0
    for corner in itertools.product((0, 1), repeat=dims):
        index, weight = torch.zeros_like(indices[0][0]), torch.ones_like(weights[0][0])
        for axis, bit in enumerate(corner):
            index = index * size[axis] + indices[axis][bit]
            weight = weight * weights[axis][bit]
        picked = flat.gather(2, index.reshape(len(u), 1, -1).expand(-1, u.shape[1], -1))
        total = total + picked.view(len(u), u.shape[1], *at.shape[2:]) * weight[:, None]
    return total

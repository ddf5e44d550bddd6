"""Fluxes that keep density, depth and pressure positive."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdebook.pde.fluxes import Rusanov
from pdebook.pde.laws import Law

__all__ = ["axis_shares", "limited_flux"]

_MARGIN = 1e-13
"""Share of the smaller half-update's density and pressure that the limited flux leaves."""


def axis_shares(law: Law, w: Tensor, spacing: Sequence[float]) -> list[Tensor]:
    """How much of a cell each axis may use up: its part of the Courant number, (batch, 1, 1, ...)."""
    rates = law.rates(w.detach(), spacing)
    total = torch.stack(rates).sum(0)
    return [(rate / total).view(-1, *[1] * (w.ndim - 1)) for rate in rates]


def limited_flux(law: Law, flux: Tensor, w: Tensor, axis: int, ratio: Tensor) -> Tensor:
    """The flux, moved to Rusanov's of first order until the half of the cell on each side of the face stays positive.

    A cell's update is the mean of the half-updates u ∓ ratio F over its faces; Rusanov's keep it positive at half the Courant
    number 1. Density is linear in F, and pressure concave, so that a share of the way can be given.

    Args:
        law: the equation.
        flux: on n + 1 faces.
        w: primitive variables of the n + 2 cells around them.
        axis: of the faces.
        ratio: 2Δt over the cell's size and the axis' share.
    Source: Hu, Adams and Shu 2013.
    """
    place = 2 + axis
    faces = flux.shape[place]
    w_lower, w_upper = w.narrow(place, 0, faces), w.narrow(place, 1, faces)
    safe = Rusanov()(law, w_lower, w_upper, axis)
    means = law.conserved(w_lower), law.conserved(w_upper)
    for channel in law.positive:
        share: Any = 1.0
        for mean, sign in zip(means, (-1.0, 1.0), strict=True):
            kept = law.primitive(mean + sign * ratio * safe)[:, channel : channel + 1]
            now = law.primitive(mean + sign * ratio * flux)[:, channel : channel + 1]
            least = kept * _MARGIN
            part = torch.where(now < least, (kept - least) / (kept - now).clamp_min(torch.finfo(w.dtype).tiny), 1.0)
            share = part.clamp(0.0, 1.0) if isinstance(share, float) else torch.minimum(share, part.clamp(0.0, 1.0))
        flux = torch.lerp(safe, flux, share)
    return flux

"""Pressure around obstacles and below a free surface: cells that are fluid, air or solid."""

import math
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from pdebook.algebra.multigrid import BoxOperator
from pdebook.pde.boundary import Periodic, Wall, paired, wall_flux

__all__ = ["obstacle_operator"]


def obstacle_operator(
    fluid: Shaped[Tensor, "batch 1 *size"],
    spacing: Any = None,
    *,
    air: Shaped[Tensor, "..."] | None = None,
    boundary: Any = None,
    dtype: torch.dtype = torch.float32,
) -> BoxOperator:
    """The pressure equation around obstacles: (A p)_i = Σ_{fluid j ~ i} (p_i - p_j)/h² + p_i/h² for each neighbour in the air.

    Cells that are neither fluid nor air are solid: no flux, a weight of zero. Rows of cells that are not fluid are zero, and their
    right-hand side must be, too; CG then leaves p = 0 there.

    Args:
        fluid: which cells have an unknown.
        spacing: h of each axis; one if left out.
        air: which cells hold the pressure zero at their centres; none if left out.
        boundary: of the box, one for all sides or as in ``paired``: Ghost() for air beyond the box, a wall's ``neumann()``
            or ``Wall()``, Periodic(); walls if left out.
        dtype: of the weights.
    Raises:
        ValueError: conditions or spacings that do not fit, or cells that are fluid and air at once.
    """
    dims = fluid.ndim - 2
    h = (1.0,) * dims if spacing is None else tuple(map(float, spacing))
    if len(h) != dims:
        raise ValueError(f"spacing must have {dims} entries, got {len(h)}")
    if not all(0 < side < math.inf for side in h):
        raise ValueError(f"spacing must be positive, got {h}")
    if fluid.dtype != torch.bool or (air is not None and air.dtype != torch.bool):
        raise ValueError(f"fluid and air must be boolean, got {fluid.dtype}")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be floating-point, got {dtype}")
    if air is not None and (air.shape != fluid.shape or bool((air & fluid).any())):
        raise ValueError(f"air must have the shape of fluid, {tuple(fluid.shape)}, and share no cell with it")
    pairs = paired(Wall() if boundary is None else boundary, dims)
    wet = fluid.to(dtype)
    open_air = torch.zeros_like(wet) if air is None else air.to(dtype)
    shift, faces = torch.zeros_like(wet), []
    for axis, (pair, side) in enumerate(zip(pairs, h, strict=True)):
        place, n = axis + 2, fluid.shape[axis + 2]
        periodic = isinstance(pair[0], Periodic)

        def beyond(u: Tensor, place: int = place, n: int = n, periodic: bool = periodic) -> Tensor:
            first, last = u.narrow(place, 0, 1), u.narrow(place, n - 1, 1)
            ends = [last, first] if periodic else [torch.zeros_like(first), torch.zeros_like(last)]
            return torch.cat([ends[0], u, ends[1]], place)

        wide, wide_air = beyond(wet), beyond(open_air)
        between = wide.narrow(place, 0, n + 1) * wide.narrow(place, 1, n + 1)
        if not periodic:
            walls = [wall_flux(condition, side)[0] for condition in pair]
            between = torch.cat(
                [
                    walls[0] * wet.narrow(place, 0, 1),
                    between.narrow(place, 1, n - 1),
                    walls[1] * wet.narrow(place, n - 1, 1),
                ],
                place,
            )
        faces.append(between / side**2)
        shift = shift + wet * (wide_air.narrow(place, 0, n) + wide_air.narrow(place, 2, n)) / side**2
    return BoxOperator(tuple(faces), shift, tuple(isinstance(pair[0], Periodic) for pair in pairs))

"""The flows of ``jax_cfd_cases`` stepped by jax-cfd, in double precision; imports it where it is needed."""

from typing import Any

import torch
from comparison import solved
from jax_cfd_cases import CASES, Case, ours, start
from torch import Tensor


def theirs(case: Case) -> Tensor:
    """Their result. Its velocities stand on the upper faces: ours, one place further."""
    import jax

    jax.config.update("jax_enable_x64", True)
    if not hasattr(jax, "tree_map"):  # which jax-cfd 0.2.1 asks for, and newer versions of jax have elsewhere
        jax.tree_map = jax.tree_util.tree_map
    import jax.numpy as jnp
    import jax_cfd.base as cfd
    import numpy as np

    mac, v = start(case)
    grid = cfd.grids.Grid(case.size, domain=tuple((0, side) for side in mac.grid.length))
    sides = cfd.boundaries.periodic_boundary_conditions(2)
    equations = cfd.equations
    make = equations.semi_implicit_navier_stokes if case.explicit else equations.implicit_diffusion_navier_stokes
    convect = cfd.advection.convect_linear if case.carried == "linear" else None
    step = make(density=1.0, viscosity=case.viscosity, dt=case.dt, grid=grid, convect=convect)
    fields = tuple(
        cfd.grids.GridVariable(cfd.grids.GridArray(jnp.asarray(v[0, j].roll(-1, j).numpy()), offset, grid), sides)
        for j, offset in enumerate(grid.cell_faces)
    )
    end = cfd.funcutils.repeated(step, case.steps)(fields)
    return torch.stack([torch.from_numpy(np.array(u.data)).roll(1, j) for j, u in enumerate(end)]).flatten()


def references() -> dict[str, Any]:
    """Run the peer, print how far ours is from it, and return what is to be stored."""
    return solved(CASES, ours, theirs)

"""Staggered flows that jax-cfd steps too, and our solutions. The peer's side is in ``jax_cfd_peers``."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pdebook.pde.grid import Grid
from pdebook.pde.interpolation import linear, van_leer
from pdebook.pde.mac import MAC


class Case(NamedTuple):
    """A periodic flow on a box of 2π x 4π, of cells that are no squares, and how far it is followed."""

    name: str
    carried: str
    explicit: bool = False
    size: tuple[int, int] = (16, 12)
    dt: float = 0.02
    steps: int = 25
    viscosity: float = 0.02


CASES = {
    case.name: case
    for case in (
        Case("van Leer, implicit diffusion", "van_leer"),
        Case("linear, implicit diffusion", "linear"),
        Case("linear, explicit diffusion", "linear", True),
    )
}


def start(case: Case) -> tuple[MAC, Tensor]:
    """The grid, and a few waves without divergence."""
    grid = Grid(case.size, (2 * math.pi, 4 * math.pi))
    x, y = grid.mesh(face=0)
    p, q = grid.mesh(face=1)
    v = torch.stack([torch.sin(x + q / 2) + torch.cos(1.5 * y) + 0.3, torch.cos(2 * p) + 0.5 * torch.sin(p - q) - 0.2])[
        None
    ]
    mac = MAC(grid)
    return mac, mac.project(v)


def ours(case: Case, dtype: torch.dtype = torch.float64) -> Tensor:
    """Our velocity at the end, as one row."""
    mac, v = start(case)
    v = v.to(dtype)
    for _ in range(case.steps):
        if case.explicit:
            v = v + case.dt * mac.tendency(v, case.viscosity)
        else:
            v = mac.step(v, case.dt, case.viscosity, carried=van_leer if case.carried == "van_leer" else linear)
    return v.flatten()

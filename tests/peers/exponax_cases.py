"""Problems that exponax solves too, and our solutions. The peer's side is in ``exponax_peers``."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdebook.pde.equation import Semilinear
from pdebook.pde.equations import AllenCahn, Burgers, FisherKPP, GrayScott, KuramotoSivashinsky
from pdebook.pde.grid import Grid
from pdebook.pde.navier_stokes import NavierStokes, Vorticity, kolmogorov
from pdebook.pde.semilinear import Stepper

TWO_PI = 2 * math.pi


@dataclass(frozen=True)
class Case:
    """An equation on a cube of n^dims points, and how far it is followed.

    ``peer`` is the name of their stepper and ``options`` its arguments.
    """

    name: str
    peer: str
    dims: int
    n: int
    length: float
    dt: float
    steps: int
    channels: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    order: int = 4

    @property
    def grid(self) -> Grid:
        """Our grid; theirs has the same points."""
        return Grid((self.n,) * self.dims, self.length)


CASES = {
    case.name: case
    for case in (
        Case("burgers 1d", "Burgers", 1, 48, 1.0, 0.005, 40, 1, {"diffusivity": 0.01}),
        *(
            Case(f"burgers 1d, order {order}", "Burgers", 1, 48, 1.0, 0.005, 40, 1, {"diffusivity": 0.01}, order)
            for order in (1, 2, 3)
        ),
        Case("burgers 2d", "Burgers", 2, 24, 1.0, 0.005, 20, 2, {"diffusivity": 0.01}),
        Case("ks, convection", "KuramotoSivashinskyConservative", 1, 48, 22.0, 0.1, 50),
        Case("ks, gradient", "KuramotoSivashinsky", 1, 48, 22.0, 0.1, 50),
        Case("fisher-kpp", "FisherKPP", 2, 24, 1.0, 0.05, 20, 1, {"diffusivity": 0.01, "reactivity": 1.5}),
        Case("allen-cahn", "AllenCahn", 1, 48, 1.0, 0.05, 20, 1, {"diffusivity": 0.005}),
        # They leave the feed and the decay to the nonlinear part: small steps agree.
        Case("gray-scott", "GrayScott", 2, 24, 1.0, 0.1, 20, 2, {"feed_rate": 0.04, "kill_rate": 0.06}),
        Case("vorticity", "NavierStokesVorticity", 2, 24, 1.0, 0.005, 20, 1, {"diffusivity": 0.002, "drag": -0.1}),
        Case(
            "kolmogorov",
            "KolmogorovFlowVorticity",
            2,
            24,
            TWO_PI,
            0.02,
            20,
            1,
            {"diffusivity": 0.02, "drag": -0.1, "injection_mode": 4, "injection_scale": 1.5},
        ),
        Case("velocity 3d", "NavierStokesVelocity", 3, 12, TWO_PI, 0.02, 10, 3, {"diffusivity": 0.05}),
    )
}


def start(case: Case) -> Tensor:
    """A few waves: free of divergence where the velocity must be."""
    parts = [TWO_PI * x / case.length for x in case.grid.mesh("nodes")]
    if case.name == "velocity 3d":
        x, y, z = parts
        return torch.stack([torch.sin(y) + torch.cos(2 * z), torch.sin(z + x), 0.5 * torch.cos(x) + torch.sin(2 * y)])[
            None
        ]
    rows = []
    for channel in range(case.channels):
        wave = sum(torch.sin((1 + axis + channel) * x + axis + channel) for axis, x in enumerate(parts))
        rows.append(wave * torch.cos(parts[-1] + 0.3) + 0.2 * torch.sin(parts[0]))
    u = torch.stack(rows)[None]
    return u if case.peer not in ("FisherKPP", "GrayScott") else 0.5 + 0.15 * u


def equation(case: Case) -> Semilinear:
    """Ours."""
    grid, o = case.grid, case.options
    match case.peer:
        case "Burgers":
            return Burgers(grid, o["diffusivity"])
        case "KuramotoSivashinskyConservative":
            return KuramotoSivashinsky(grid)
        case "KuramotoSivashinsky":
            return KuramotoSivashinsky(grid, "gradient")
        case "FisherKPP":
            return FisherKPP(grid, o["diffusivity"], o["reactivity"])
        case "AllenCahn":
            return AllenCahn(grid, o["diffusivity"])
        case "GrayScott":
            return GrayScott(grid, feed=o["feed_rate"], kill=o["kill_rate"])
        case "NavierStokesVorticity":
            return Vorticity(grid, o["diffusivity"], drag=-o["drag"])
        case "KolmogorovFlowVorticity":
            force = kolmogorov(grid, o["injection_mode"], o["injection_scale"])
            return Vorticity(grid, o["diffusivity"], drag=-o["drag"], source=-force)
        case "NavierStokesVelocity":
            return NavierStokes(grid, o["diffusivity"])
    raise ValueError(f"no equation for {case.peer}")


def ours(case: Case, dtype: torch.dtype = torch.float64) -> Tensor:
    """Our result, every second point of each axis, as one row."""
    # Their vorticity is ∂u/∂y - ∂v/∂x.
    sign = -1.0 if "Vorticity" in case.peer else 1.0
    with torch.no_grad():
        stepper = Stepper(equation(case), case.dt, f"etdrk{case.order}")
        return sign * thinned(stepper.rollout(sign * start(case).to(dtype), case.steps, case.steps)[0, 0])


def thinned(u: Tensor) -> Tensor:
    """Every second point of each axis of a field (channel, *grid), as one row."""
    return u[(slice(None), *[slice(None, None, 2)] * (u.ndim - 1))].flatten()

"""PDEBench's eleven problems, each a function from sample numbers to trajectories: a start, a solver, channels as the files have them.

"released" follows what the files hold, with what they do otherwise than they say; "exact" is the problem as the paper states it,
solved on finer grids, or by formula. Both draw the same random numbers.

| problem | released | exact |
|---|---|---|
| ``advection`` | MUSCL, midpoint | the start, shifted |
| ``burgers`` | MUSCL, Roe's flux without an entropy fix, midpoint | ETDRK4 on a grid that resolves the shocks |
| ``reaction_diffusion`` | start with a jump over the periodic end | without; ETDRK4 for both |
| ``sorption`` | left value half a cell outside | on the wall; smaller steps |
| ``reaction`` | Dormand-Prince, relative tolerance 1e-3 | 1e-7 |
| ``darcy`` | t = 1.75, arithmetic faces, zero half a cell outside | steady, harmonic faces, zero on the walls, a level by sample |
| ``flow`` | kinematic, diagonal viscosity; MUSCL, HLLC, midpoint | full stress; twice the cells, SSPRK3 |
| ``shock_tube`` | as ``flow`` | the exact Riemann solution |
| ``dam_break`` | MUSCL, Roe with an entropy fix | twice the cells |
| ``incompressible`` | semi-Lagrangian splitting | none |

Source: Takamoto et al., PDEBench, NeurIPS 2022 (arXiv:2210.07182); the released schemes are written anew from their formulas.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.diffeq.controllers import PID
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import ODE
from pdebook.pde import equations, starts
from pdebook.pde.boundary import Outflow, Periodic, dirichlet, neumann, pad
from pdebook.pde.darcy import darcy as steady_darcy
from pdebook.pde.darcy import darcy_released
from pdebook.pde.exact import advected
from pdebook.pde.finite_volume import FiniteVolume
from pdebook.pde.fluids import NavierStokes, ShallowWater
from pdebook.pde.fluxes import Roe
from pdebook.pde.grid import Grid
from pdebook.pde.laws import Advection, Burgers, Law
from pdebook.pde.mac import MAC
from pdebook.pde.riemann import euler
from pdebook.pde.semilinear import Stepper
from pdebook.pde.sorption import Sorption

__all__ = [
    "DARCY_LEVEL",
    "Case",
    "advection",
    "burgers",
    "dam_break",
    "darcy",
    "flow",
    "incompressible",
    "reaction",
    "reaction_diffusion",
    "shock_tube",
    "sorption",
]

Made = tuple[Tensor, dict[str, Tensor]]
"""Fields (sample, time, channel, *size), and what a sample has besides, by dataset of its file."""

_FASTEST = 4.0
"""More than a sine sum of four terms reaches."""

DARCY_LEVEL = 1.852145
"""Mean of Darcy's sum of bumps over a large batch: 10 ∫_0^½ I(s)² ds with I(s) = sqrt(πs) erf(1/sqrt(s)) - s (1 - e^(-1/s))."""


@dataclass(frozen=True)
class Case:
    """What is to be made.

    Attributes:
        seed: seed of the starts.
        numbers: sample numbers.
        grid: where the fields are wanted.
        times: of the frames, from 0 on.
        released: whether the files are followed in what they do otherwise than they say.
        dtype: floating type of the state.
        device: where it is made.
    """

    seed: int
    numbers: Shaped[Tensor, " batch"]
    grid: Grid
    times: Float[Tensor, " frames"]
    released: bool = True
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    @property
    def period(self) -> str:
        """Which period the sine sums have."""
        return "released" if self.released else "exact"

    @property
    def options(self) -> dict[str, Any]:
        """Type and device, for what makes tensors."""
        return {"dtype": self.dtype, "device": self.device}

    def finer(self, factor: int) -> Grid:
        """The grid with cells so many times shorter."""
        return Grid([n * factor for n in self.grid.size], self.grid.length, self.grid.origin)


def _averaged(u: Tensor, grid: Grid) -> Tensor:
    """Means over the cells of a coarser grid, for u (..., *finer size)."""
    for axis, n in enumerate(grid.size):
        place = u.ndim - grid.dims + axis
        if u.shape[place] != n:
            u = u.unflatten(place, (n, -1)).mean(place + 1)
    return u


def _volumes(case: Case, law: Law, grid: Grid, **options: Any) -> FiniteVolume:
    """The finite-volume method of the released data, or a third-order one in time that keeps what must be positive."""
    options = {"method": "midpoint", "positivity": "floor"} | options
    if not case.released:
        options |= {"method": "ssprk3", "positivity": "fluxes"}
    return FiniteVolume(law, grid, **options)


# -------------------- one dimension


def advection(case: Case, beta: float) -> Made:
    """∂_t u + β ∂_x u = 0, periodic, from a sine sum."""
    sums = starts.SineSums.draw(case.seed, case.numbers, case.grid, period=case.period, device=case.device)
    (x,) = case.grid.coordinates(device=case.device)
    if case.released:
        method = _volumes(case, Advection(1, speed=beta), case.grid, cfl=0.4)
        return method.advance(sums(x[None])[:, None].to(case.dtype), case.times).u, {}
    length, origin = case.grid.length, case.grid.origin
    frames = [advected(lambda y: sums(y[None]), [x], float(t), [beta], length, origin) for t in case.times]
    return torch.stack(frames, 1)[:, :, None].to(case.dtype), {}


def burgers(case: Case, nu: float) -> Made:
    """∂_t u + ∂_x (u²/2) = (ν/π) ∂_xx u, periodic, from a sine sum. Mind the π: the file of ν has the viscosity ν/π."""
    viscosity = nu / math.pi

    def start(grid: Grid) -> Tensor:
        return starts.sine_sums(case.seed, case.numbers, grid, period=case.period, **case.options)

    if case.released:
        law = Burgers(1, viscosity=viscosity)
        # Split off where the viscous step would be far the shorter one.
        stages = 10 if viscosity > 4 * case.grid.spacing[0] else 0
        flux = Roe(entropy_fix=False)
        method = _volumes(case, law, case.grid, cfl=0.25, flux=flux, viscous_stages=stages)
        return method.advance(start(case.grid), case.times).u, {}
    refine = 1
    while case.grid.spacing[0] / refine > 2 * viscosity:
        refine *= 2
    grid = case.finer(refine)
    frames = _spectral(case, equations.Burgers(grid, viscosity), start(grid), grid.spacing[0] / _FASTEST)
    return _averaged(frames, case.grid), {}


def _spectral(case: Case, equation: Any, u: Tensor, longest: float) -> Tensor:
    """Frames of a semilinear equation by ETDRK4, in steps of at most so long that divide the time between frames."""
    gap = float(case.times[1] - case.times[0])
    every = max(1, math.ceil(gap / longest))
    with torch.no_grad():
        stepper = Stepper(equation, gap / every)
        return stepper.rollout(u, every * (len(case.times) - 1), every, start=True)


def reaction_diffusion(case: Case, nu: float, rho: float) -> Made:
    """∂_t u = ν ∂_xx u + ρ u (1 - u), periodic, from a sine sum brought to [0, 1]."""
    u = starts.sine_sums(case.seed, case.numbers, case.grid, period=case.period, unit=True, **case.options)
    return _spectral(case, equations.FisherKPP(case.grid, nu, rho), u, 2e-3), {}


def sorption(case: Case) -> Made:
    """∂_t u = D/R(u) ∂_xx u from a constant, with u = 1 on the left and an outflow on the right; see ``pde.sorption``."""
    law = Sorption(walls="released" if case.released else "ends")
    u = starts.sorption_start(case.seed, case.numbers, case.grid, dtype=torch.float64, device=case.device)
    later = law.solve(u, case.grid, case.times[1:].tolist(), steps=4 if case.released else 16)
    return torch.cat([u, later], 1)[:, :, None].to(case.dtype), {}


def shock_tube(case: Case, test: int) -> Made:
    """Euler's equations from two constant states: density, pressure, velocity."""
    problem = starts.SOD[test]
    w = starts.riemann(case.grid, problem, **case.options).expand(len(case.numbers), -1, -1)
    if case.released:
        return _gas(case, NavierStokes(1), lambda grid: w, Outflow()), {}
    (x,) = case.grid.coordinates(device=case.device)
    low, length = case.grid.origin[0], case.grid.length[0]
    jump = low + length * round(problem.position * len(x)) / len(x)
    left, right = (
        torch.tensor(side, dtype=torch.float64, device=case.device) for side in (problem.left, problem.right)
    )
    later = [euler(left, right, (x - jump) / float(t)) for t in case.times[1:]]
    frames = torch.stack([w[:1].double(), *later], 1)[:, :, [0, 2, 1]]
    return frames.expand(len(case.numbers), -1, -1, -1).to(case.dtype), {}


# -------------------- gases in one to three dimensions


def _gas(case: Case, law: NavierStokes, start: Callable[[Grid], Tensor], boundary: Any) -> Tensor:
    """Frames of a gas, as density, pressure, velocity."""
    d = case.grid.dims
    grid = case.grid if case.released else case.finer(2)
    # Split off where the viscous step would be the shorter one.
    stages = 10 if float(law.shear) + float(law.bulk) > 0.1 * min(grid.spacing) else 0
    method = _volumes(case, law, grid, boundary=boundary, cfl=0.3, viscous_stages=stages)
    u = _averaged(method.advance(law.conserved(start(grid)), case.times).u, case.grid)
    w = law.primitive(u.flatten(0, 1)).unflatten(0, u.shape[:2])
    return w[:, :, [0, d + 1, *range(1, d + 1)]]


def flow(
    case: Case, start: str, eta: float = 1e-8, zeta: float = 1e-8, mach: float = 1.0, boundary: str = "periodic"
) -> Made:
    """Compressible flow: density, pressure, velocity, with Γ = 5/3.

    Args:
        case: what is to be made.
        start: "rand", "shock", "turb", "kh", "orszag-tang" or "blast"; see ``pde.starts``.
        eta: shear viscosity.
        zeta: bulk viscosity.
        mach: Mach number of the start, where it has one.
        boundary: "periodic", "trans" (open), or "channel" (open along the last axis only).
    """
    kinds: dict[str, Any] = {"periodic": Periodic(), "trans": Outflow(), "channel": [Periodic(), Outflow()]}
    choose = {"released": case.released}

    def state(grid: Grid) -> Tensor:
        drawn = (case.seed, case.numbers, grid)
        if start == "rand" and grid.dims == 1:
            return starts.random_flow_1d(*drawn, period=case.period, **case.options)
        if start == "rand":
            return starts.random_flow(*drawn, mach, **case.options)
        if start == "shock":
            return starts.shocks_1d(*drawn, velocity="released" if choose["released"] else "intended", **case.options)
        if start == "turb":
            projection = "released" if choose["released"] else "correct"
            return starts.turbulence(*drawn, mach, projection=projection, **case.options)
        single: dict[str, Callable[[], Tensor]] = {
            "kh": lambda: starts.kelvin_helmholtz(grid, mach, **case.options),
            "orszag-tang": lambda: starts.orszag_tang(grid, **case.options),
            "blast": lambda: starts.blast(grid, **case.options),
        }
        if start not in single:
            raise ValueError(f"start must be rand, shock, turb, {', '.join(single)}, got {start!r}")
        one = single[start]()
        return one.expand(len(case.numbers), *one.shape[1:])

    law = NavierStokes(case.grid.dims, shear=eta, bulk=zeta, viscosity="released" if case.released else "paper")
    return _gas(case, law, state, kinds[boundary]), {}


# -------------------- two dimensions


def reaction(case: Case) -> Made:
    """FitzHugh-Nagumo equations between walls without flux, from noise in each cell: the method of lines with five points."""
    u = starts.reaction_noise(case.seed, case.numbers, case.grid, dtype=torch.float64, device=case.device)
    h = case.grid.spacing
    rate = torch.tensor([1e-3, 5e-3], dtype=torch.float64, device=case.device).view(1, 2, 1, 1)

    def slope(t: Tensor, y: Tensor) -> Tensor:
        around = pad(y, 1, neumann(), h)
        inner: list[Any] = [slice(1, -1)] * 2
        laplacian = torch.zeros_like(y)
        for axis in range(2):
            low: Any = list(inner)
            high: Any = list(inner)
            low[axis], high[axis] = slice(0, -2), slice(2, None)
            laplacian = laplacian + (around[(..., *low)] - 2 * y + around[(..., *high)]) / h[axis] ** 2
        a, b = y[:, :1], y[:, 1:]
        return rate * laplacian + torch.cat([a - a**3 - 5e-3 - b, a - b], 1)

    rtol, atol = (1e-3, 1e-6) if case.released else (1e-7, 1e-9)
    control = PID(rtol=rtol, atol=atol)
    found = solve(
        ODE(slope),
        u,
        0.0,
        float(case.times[-1]),
        solver="dopri5",
        controller=control,
        ts=case.times.to(case.device),
        max_steps=100_000,
    )
    return found.ys.to(case.dtype), {}


def darcy(case: Case, beta: float) -> Made:
    """-∇·(a ∇u) = β, or what the files hold of it; a is the dataset "nu"."""
    drawn: tuple[Any, ...] = (case.seed, case.numbers, case.grid)
    double: dict[str, Any] = {"dtype": torch.float64, "device": case.device}
    # In the release it is the mean over the batch, so that a sample would depend on its company.
    a = starts.darcy_coefficient(*drawn, level=DARCY_LEVEL if case.released else "sample", **double)
    if case.released:
        u = darcy_released(a, starts.darcy_start(*drawn, **double), case.grid, beta, steps=28)
    else:
        u = steady_darcy(a, case.grid, beta)
    return u[:, None].to(case.dtype), {"nu": a.to(case.dtype)}


def dam_break(case: Case) -> Made:
    """Shallow water after a round dam has gone; the depth alone."""
    grid = case.grid if case.released else case.finer(2)
    law = ShallowWater(2)
    method = _volumes(case, law, grid, boundary=Outflow(), flux=Roe(), cfl=0.4)
    u = method.advance(starts.dam_break(case.seed, case.numbers, grid, **case.options), case.times).u
    return _averaged(u[:, :, :1], case.grid), {}


def incompressible(case: Case, nu: float = 0.01) -> Made:
    """Incompressible flow in a box without slip, pushed by a frozen force where there are particles; see ``MAC.smoke_step``.

    Velocity, then the density of particles, at centres; the force is the dataset "force". Time steps keep the Courant number of the
    released data, 5e-5 on 512 cells.

    Raises:
        ValueError: "exact" is asked for: there is no better solution of this problem to be had.
    """
    if not case.released:
        raise ValueError("fidelity must be 'released' for the incompressible problem, got 'exact'")
    grid = case.grid
    box = MAC(grid, dirichlet(), device=case.device)
    noise = starts.smooth_noise(case.seed, case.numbers, grid, channels=5, **case.options)
    v, density, force = box.project(box.clear_walls(noise[:, :2])), noise[:, 2:3], noise[:, 3:]
    gap = float(case.times[1] - case.times[0]) if len(case.times) > 1 else 1.0
    count = math.ceil(gap / (5e-5 * 512 / max(grid.size)))
    frames = [torch.cat([box.at_faces(v, None), density], 1)]
    for _ in case.times[1:]:
        for _ in range(count):
            v, density = box.smoke_step(v, density, gap / count, nu, force)
        frames.append(torch.cat([box.at_faces(v, None), density], 1))
    return torch.stack(frames, 1), {"force": force}

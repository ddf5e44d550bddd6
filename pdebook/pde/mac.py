"""Incompressible flow on staggered grids (marker and cell): each velocity component lives on the faces that it crosses.

    ∂_t v + ∇·(v ⊗ v) = -∇p + ν Δv + f,    ∇·v = 0

A velocity is a tensor (batch, dims, *size); component j stands on the lower faces along axis j, so that divergence and gradient
are differences of neighbours, are each other's negative transpose, and the projection removes the divergence to rounding. Along an
axis with walls the first face of its component is the lower wall, where it is zero, as it is on the upper wall, which is not stored.
Sides are ``Periodic()``, ``Wall()`` (free slip) or ``dirichlet(w)`` (no slip; the wall moves with w along itself, a number, or one
for each component).

Source: Harlow and Welch 1965; Kochkov et al., PNAS 2021, for the form of the transport.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.algebra.results import check_start
from pdebook.algebra.transforms import SeparableLaplacian
from pdebook.pde.boundary import Periodic, Robin, Wall, pad, paired
from pdebook.pde.grid import Grid
from pdebook.pde.interpolation import Interpolation, Neighbours, linear, sample, van_leer
from pdebook.pde.semilinear import Diverged

__all__ = ["MAC", "buoyancy", "kolmogorov", "restrict"]

Number = float | int | Tensor
Force = Tensor | float | int | Callable[[Tensor, Any], Tensor]
"""What broadcasts to a velocity, or a function of velocity and time."""


class MAC:
    """A staggered grid with its differences, its projection and its transport.

    Attributes:
        grid: the box.
        periodic: which axes close on themselves.
    Args:
        grid: the box.
        boundary: sides as in the module's text, one for all or as in ``paired``.
        device: where the eigenvalues are put.
    Raises:
        ValueError: other conditions, or a moving wall whose velocity does not fit.
    """

    def __init__(self, grid: Grid, boundary: Any = None, *, device: torch.device | str | None = None) -> None:
        self.grid = grid
        self._pairs = paired(Periodic() if boundary is None else boundary, grid.dims)
        for axis, pair in enumerate(self._pairs):
            for side in pair:
                no_slip = isinstance(side, Robin) and side.a != 0 and side.b == 0
                if not (isinstance(side, (Periodic, Wall)) or no_slip):
                    raise ValueError(f"boundary must be Periodic, Wall (free slip) or dirichlet (no slip), got {side}")
                for component in range(grid.dims) if no_slip else ():
                    self._wall_speed(side, component, axis)
        self.periodic = tuple(isinstance(pair[0], Periodic) for pair in self._pairs)
        names = ["periodic" if closed else "neumann" for closed in self.periodic]
        self._pressure = SeparableLaplacian(grid.size, grid.spacing, names, device=device)
        self._diffusions = [self._component_laplacian(j, device) for j in range(grid.dims)]

    def _wall_speed(self, side: Any, component: int, axis: int) -> float:
        """Velocity of a no-slip wall, by component; zero along its normal."""
        value = side.g / side.a if isinstance(side.g, (int, float)) else side.g
        if isinstance(value, (int, float)):
            if self.grid.dims == 3 and value != 0:
                raise ValueError(
                    f"boundary must give a moving wall's velocity for each of the 3 components, got {value}"
                )
            return 0.0 if component == axis else float(value)
        speeds = [float(v) / side.a for v in torch.as_tensor(value).flatten().tolist()]
        if len(speeds) != self.grid.dims or speeds[axis] != 0:
            raise ValueError(
                f"boundary must give a moving wall's velocity for each of the {self.grid.dims} components, zero along its "
                f"normal, got {speeds}"
            )
        return speeds[component]

    def _component_laplacian(self, component: int, device: Any) -> SeparableLaplacian:
        names, size = [], list(self.grid.size)
        for axis, pair in enumerate(self._pairs):
            if self.periodic[axis]:
                names.append("periodic")
            elif axis == component:
                names.append("dirichlet-nodes")
                size[axis] -= 1
                if size[axis] < 1:
                    raise ValueError(f"grid must have 2 cells at least between walls, got {self.grid.size}")
            else:
                kinds = ["neumann" if isinstance(side, Wall) else "dirichlet" for side in pair]
                names.append(kinds[0] if kinds[0] == kinds[1] else "-".join(kinds))
        return SeparableLaplacian(size, self.grid.spacing, names, device=device)

    def check(self, v: Shaped[Tensor, "..."], name: str = "v") -> None:
        """Raise ValueError unless v is a velocity on this grid."""
        self.grid.check(v, name, self.grid.dims)

    def _beyond(self, u: Tensor, component: int, axis: int, below: int, above: int) -> Tensor:
        """A component (batch, *size) with ghosts along an axis."""
        place, n = axis + 1, u.shape[axis + 1]
        if self.periodic[axis]:
            return torch.cat([u.narrow(place, n - below, below), u, u.narrow(place, 0, above)], place)
        if axis == component:  # odd about the walls, of which the upper one comes first
            wall = torch.zeros_like(u.narrow(place, 0, 1))
            lower = -u.narrow(place, 1, below).flip(place)
            upper = -u.narrow(place, n - above + 1, above - 1).flip(place) if above > 1 else u.narrow(place, 0, 0)
            return torch.cat([lower, u, wall, upper], place)
        ends = []
        for side, width, start in zip(self._pairs[axis], (below, above), (0, n - above), strict=True):
            mirror = u.narrow(place, start, width).flip(place)
            ends.append(mirror if isinstance(side, Wall) else 2 * self._wall_speed(side, component, axis) - mirror)
        return torch.cat([ends[0], u, ends[1]], place)

    def _with_upper(self, u: Tensor, axis: int) -> Tensor:
        """A component with its face on the upper end of its own axis."""
        first = u.narrow(axis + 1, 0, 1)
        return torch.cat([u, first if self.periodic[axis] else torch.zeros_like(first)], axis + 1)

    def _wall_is_zero(self, u: Tensor, component: int) -> Tensor:
        """A component whose values on the lower wall of its own axis are set to zero."""
        if self.periodic[component]:
            return u
        inner = u.narrow(component + 1, 1, u.shape[component + 1] - 1)
        return torch.cat([torch.zeros_like(u.narrow(component + 1, 0, 1)), inner], component + 1)

    def clear_walls(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch dims *size"]:
        """v with nothing through the walls."""
        if all(self.periodic):
            return v
        return torch.stack([self._wall_is_zero(v[:, j], j) for j in range(self.grid.dims)], 1)

    def divergence(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch 1 *size"]:
        """∇·v at centres: Σ_j (v_j above - v_j below)/h_j."""
        parts = [torch.diff(self._with_upper(v[:, j], j), dim=j + 1) / h for j, h in enumerate(self.grid.spacing)]
        return sum(parts[1:], parts[0])[:, None]

    def gradient(self, p: Float[Tensor, "batch 1 *size"]) -> Float[Tensor, "batch dims *size"]:
        """∇p on faces, zero on walls: minus the transpose of ``divergence``."""
        parts = []
        for j, h in enumerate(self.grid.spacing):
            q = p[:, 0]
            last = q.narrow(j + 1, q.shape[j + 1] - 1, 1) if self.periodic[j] else q.narrow(j + 1, 0, 1)
            parts.append(torch.diff(torch.cat([last, q], j + 1), dim=j + 1) / h)
        return torch.stack(parts, 1)

    def pressure(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch 1 *size"]:
        """q of mean zero with Δ_h q = ∇·v, so that v - ∇q is free of divergence; q/Δt is the pressure after a step of Δt."""
        return self._pressure.solve(-self.divergence(v))

    def project(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch dims *size"]:
        """The nearest velocity without divergence and without flow through walls: orthogonal, exact to rounding.

        The Laplacian is ∇·∇ as differences have it, (2/h)² sin²(kh/2) in Fourier space; the symbol k² would leave divergence.
        """
        v = self.clear_walls(v)
        return v - self.gradient(self.pressure(v))

    def laplacian(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch dims *size"]:
        """Δ_h v component by component, with the walls' conditions; zero on the walls themselves."""
        parts = []
        for component in range(self.grid.dims):
            u = v[:, component]
            total: Any = 0.0
            for axis, (h, n) in enumerate(zip(self.grid.spacing, self.grid.size, strict=True)):
                wide = self._beyond(u, component, axis, 1, 1)
                total = total + (wide.narrow(axis + 1, 0, n) + wide.narrow(axis + 1, 2, n) - 2 * u) / h**2
            parts.append(self._wall_is_zero(total, component))
        return torch.stack(parts, 1)

    def diffuse(self, v: Float[Tensor, "batch dims *size"], amount: Number) -> Float[Tensor, "batch dims *size"]:
        """(1 - νΔt Δ_h)^{-1} v, one implicit Euler step of diffusion, for ``amount`` = νΔt > 0, a number or one for each sample.

        Solved for the increment, so that in single precision a small one is not lost in v.
        """
        rate = 1.0 / _column(amount, v)
        change = self.laplacian(v)
        if all(self.periodic):
            return v + self._diffusions[0].solve(change, rate)
        parts = []
        rate = rate[:, 0] if rate.ndim else rate
        for component, laplacian in enumerate(self._diffusions):
            u = change[:, component]
            if self.periodic[component]:
                parts.append(laplacian.solve(u, rate))
            else:
                place = component + 1
                inner = laplacian.solve(u.narrow(place, 1, u.shape[place] - 1), rate)
                parts.append(torch.cat([torch.zeros_like(u.narrow(place, 0, 1)), inner], place))
        return v + torch.stack(parts, 1)

    def convection(
        self,
        v: Float[Tensor, "batch dims *size"],
        dt: Number | None = None,
        *,
        carried: Interpolation = van_leer,
        carrier: Interpolation = linear,
    ) -> Float[Tensor, "batch dims *size"]:
        """-∇·(v ⊗ v): differences of the fluxes (carrying velocity) x (carried component) through each component's own cells.

        Whatever the interpolations, momentum is conserved.

        Args:
            v: velocity.
            dt: step, for interpolations that use the Courant number.
            carried: of the component that is transported: ``van_leer``, ``linear``, ``upwind``, or a function of ``Neighbours``.
            carrier: of the velocity that transports; it sees no velocity.
        """
        axes = range(self.grid.dims)
        # Component j with ghosts along axis k serves as carried along k and as carrier for component k.
        padded = {(j, k): self._beyond(v[:, j], j, k, 2, 2) for j in axes for k in axes}
        parts = []
        for component in axes:
            u = v[:, component]
            total: Any = 0.0
            for axis, h in enumerate(self.grid.spacing):
                speed = carrier(Neighbours(v[:, axis], padded[axis, component], component, axis))
                if axis != component:
                    speed = speed.narrow(component + 1, 0, self.grid.size[component])
                    speed = self._with_upper(speed, axis)
                value = carried(Neighbours(u, padded[component, axis], axis, component, speed, _courant(dt, h, speed)))
                total = total - torch.diff(speed * value, dim=axis + 1) / h
            parts.append(self._wall_is_zero(total, component))
        return torch.stack(parts, 1)

    def transport(
        self,
        c: Float[Tensor, "batch channel *size"],
        v: Float[Tensor, "batch dims *size"],
        dt: Number | None = None,
        *,
        boundary: Any = None,
        carried: Interpolation = van_leer,
    ) -> Float[Tensor, "batch channel *size"]:
        """-∇·(v c) for scalars at centres: conservative.

        Args:
            c: scalars.
            v: velocity.
            dt: step, as in ``convection``.
            boundary: conditions of c, see ``boundary``; periodic and no-flux if left out.
            carried: interpolation of c.
        """
        sides = [Periodic() if closed else Wall() for closed in self.periodic] if boundary is None else boundary
        batch, channels = c.shape[:2]
        flat = c.flatten(0, 1)
        total: Any = 0.0
        for axis, h in enumerate(self.grid.spacing):
            wide = pad(c, 2, sides, self.grid.spacing, axes=[axis]).flatten(0, 1)
            speed = self._with_upper(v[:, axis], axis).repeat_interleave(channels, 0)
            value = carried(Neighbours(flat, wide, axis, None, speed, _courant(dt, h, speed, channels)))
            total = total - torch.diff(speed * value, dim=axis + 1) / h
        return total.unflatten(0, (batch, channels))

    def at_faces(
        self, v: Float[Tensor, "batch dims *size"], component: int | None
    ) -> Float[Tensor, "batch dims *size"]:
        """All components by linear interpolation at the faces of one, or at centres (None)."""
        parts = []
        for other in range(self.grid.dims):
            u = v[:, other]
            if other != component:
                wide = self._with_upper(u, other)
                u = 0.5 * (
                    wide.narrow(other + 1, 0, u.shape[other + 1]) + wide.narrow(other + 1, 1, u.shape[other + 1])
                )
                if component is not None:
                    n = u.shape[component + 1]
                    wide = self._beyond(u, other, component, 1, 0)
                    u = 0.5 * (wide.narrow(component + 1, 0, n) + wide.narrow(component + 1, 1, n))
            parts.append(u)
        return torch.stack(parts, 1)

    def trace(
        self, v: Float[Tensor, "batch dims *size"], dt: Number, component: int | None, *, order: int = 2
    ) -> Float[Tensor, "batch dims *size"]:
        """Feet of the characteristics x - Δt v that end at the faces of a component or at centres, in cells from the lower corner."""
        like = v[:, 0]
        starts = []
        for axis, n in enumerate(self.grid.size):
            shape = [-1 if other == axis else 1 for other in range(self.grid.dims)]
            x = torch.arange(n, dtype=v.dtype, device=v.device).view(shape) + (0.0 if axis == component else 0.5)
            starts.append(x.expand_as(like))
        x = torch.stack(starts, 1)
        scale = torch.as_tensor(self.grid.spacing, dtype=v.dtype, device=v.device).view(1, -1, *[1] * self.grid.dims)
        step = _column(dt, v) / scale
        if order == 1:
            return x - step * self.at_faces(v, component)
        middle = x - 0.5 * step * self.at_faces(v, component)
        return x - step * torch.cat([self.value_at(v, j, middle) for j in range(self.grid.dims)], 1)

    def value_at(
        self, v: Float[Tensor, "batch dims *size"], component: int, at: Float[Tensor, "batch dims *points"]
    ) -> Float[Tensor, "batch 1 *points"]:
        """A component anywhere, by multilinear interpolation; positions in cells from the lower corner, held inside the walls."""
        u, shifts, sides = v[:, component], [], []
        for axis, closed in enumerate(self.periodic):
            own = axis == component
            shifts.append(0.0 if own else -0.5 if closed else 0.5)
            sides.append(closed)
            if not closed:
                u = self._with_upper(u, axis) if own else self._beyond(u, component, axis, 1, 1)
        inside = self._inside(at)
        shift = torch.as_tensor(shifts, dtype=at.dtype, device=at.device).view(1, -1, *[1] * (at.ndim - 2))
        return sample(u[:, None], inside + shift, sides)

    def _inside(self, at: Tensor) -> Tensor:
        parts = [
            at[:, axis] if closed else at[:, axis].clamp(0, n)
            for axis, (n, closed) in enumerate(zip(self.grid.size, self.periodic, strict=True))
        ]
        return torch.stack(parts, 1)

    def advect(
        self,
        v: Float[Tensor, "batch dims *size"],
        dt: Number,
        *,
        by: Float[Tensor, "batch dims *size"] | None = None,
        order: int = 2,
    ) -> Float[Tensor, "batch dims *size"]:
        """Semi-Lagrangian step: v at the feet of the characteristics of ``by`` (v itself if left out); stable for any Δt.

        Linear interpolation diffuses by h² a (1 - a)/(2Δt), a the fraction of a cell that is crossed.

        Args:
            v: velocity that is carried.
            dt: step, a number or one for each sample.
            by: velocity that carries.
            order: of the path: 1 or 2 (midpoint).
        """
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order}")
        by = v if by is None else by
        parts = [self.value_at(v, j, self.trace(by, dt, j, order=order)) for j in range(self.grid.dims)]
        return self.clear_walls(torch.cat(parts, 1))

    def advect_scalar(
        self,
        c: Float[Tensor, "batch channel *size"],
        v: Float[Tensor, "batch dims *size"],
        dt: Number,
        *,
        order: int = 2,
    ) -> Float[Tensor, "batch channel *size"]:
        """Semi-Lagrangian step of scalars at centres; arguments as ``advect``. Not conservative; extrema don't grow."""
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order}")
        return sample(c, self._inside(self.trace(v, dt, None, order=order)) - 0.5, self.periodic)

    def tendency(
        self,
        v: Float[Tensor, "batch dims *size"],
        viscosity: Number = 0.0,
        force: Force = 0.0,
        *,
        t: Any = 0.0,
        carried: Interpolation = linear,
        carrier: Interpolation = linear,
    ) -> Float[Tensor, "batch dims *size"]:
        """∂_t v = P(-∇·(v ⊗ v) + ν Δv + f), for explicit methods: v stays free of divergence in every stage.

        Args: as ``step``; stable for Δt up to about h²/(2 dims ν).
        """
        v = self.clear_walls(v)
        rate = self.convection(v, carried=carried, carrier=carrier) + _column(viscosity, v) * self.laplacian(v)
        return self.project(rate + (force(v, t) if callable(force) else force))

    def step(
        self,
        v: Float[Tensor, "batch dims *size"],
        dt: Number,
        viscosity: Number = 0.0,
        force: Force = 0.0,
        *,
        t: Any = 0.0,
        carried: Interpolation = van_leer,
        carrier: Interpolation = linear,
    ) -> Float[Tensor, "batch dims *size"]:
        """One semi-implicit step: explicit Euler for transport and force, projection, implicit diffusion (first order in time).

        Args:
            v: velocity without divergence.
            dt: step; |v| Δt < h in every direction.
            viscosity: ν, a number or one for each sample; zero: no diffusion.
            force: broadcasts to v, or a function of v and t, as drag -α v is.
            t: time, for the force.
            carried, carrier: as in ``convection``.
        """
        v = self.clear_walls(v)
        push = force(v, t) if callable(force) else force
        v = v + _column(dt, v) * (self.convection(v, dt, carried=carried, carrier=carrier) + push)
        v = self.project(v)
        if isinstance(viscosity, (int, float)) and viscosity == 0:
            return v
        v = self.diffuse(v, viscosity * dt)
        # Between walls implicit diffusion, component by component, brings back some divergence.
        return v if all(self.periodic) else self.project(v)

    def run(
        self,
        v: Shaped[Tensor, "batch dims *size"],
        dt: float,
        steps: int,
        viscosity: Number = 0.0,
        force: Force = 0.0,
        *,
        every: int | None = None,
        **interpolations: Interpolation,
    ) -> Float[Tensor, "batch times dims *size"]:
        """States after every ``every`` of ``steps`` steps; only the last one if left out.

        Args:
            v: start; its divergence is removed.
            dt: step.
            steps: number of steps.
            viscosity, force, interpolations: as in ``step``.
            every: steps between two stored states, a divisor of ``steps``.
        Raises:
            ValueError: a velocity that does not fit the grid or is not finite, steps that don't match, or a start whose Courant
                number exceeds one.
            Diverged: a sample stopped being finite.
        """
        self.check(v)
        every = steps if every is None else every
        if steps < 1 or every < 1 or steps % every or not 0 < dt < math.inf:
            raise ValueError(
                f"dt must be positive, and steps a multiple of every >= 1, got dt = {dt}, steps = {steps}, every = {every}"
            )
        check_start("v", v.detach())
        v = self.project(v)
        number = float(self.courant(v.detach(), dt).max())
        if number > 1:
            raise ValueError(f"dt must keep the Courant number below 1 at the start, got {number:.3g} for dt = {dt}")
        good = torch.zeros(len(v), dtype=torch.int64, device=v.device)
        states = []
        for step in range(1, steps + 1):
            v = self.step(v, dt, viscosity, force, t=(step - 1) * dt, **interpolations)
            good += v.detach().flatten(1).isfinite().all(1) & (good == step - 1)
            if step % every == 0:
                states.append(v)
        result = torch.stack(states, 1)
        first_bad = torch.where(good == steps, 0, good + 1).cpu()
        bad = first_bad.nonzero().flatten().tolist()
        if bad:
            step = int(first_bad[bad].min())
            named = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
            raise Diverged(
                f"{len(bad)} of {len(v)} samples stopped being finite (samples {named}), first in step {step}, which ends at "
                f"t = {step * dt:.6g}; dt = {dt:g}; the start's Courant number is {number:.3g}",
                first_bad,
                result,
            )
        return result

    def courant(self, v: Float[Tensor, "batch dims *size"], dt: Number) -> Float[Tensor, " batch"]:
        """Δt max_x Σ_j |v_j|/h_j of each sample; explicit transport asks for less than one."""
        speeds = self.at_faces(v, None).abs()
        scale = torch.as_tensor(self.grid.spacing, dtype=v.dtype, device=v.device).view(1, -1, *[1] * self.grid.dims)
        return (speeds / scale).sum(1).flatten(1).amax(1) * dt

    def smoke_step(
        self,
        v: Float[Tensor, "batch dims *size"],
        density: Float[Tensor, "batch 1 *size"],
        dt: Number,
        viscosity: Number,
        force: Float[Tensor, "..."],
    ) -> tuple[Tensor, Tensor]:
        """One step of PDEBench's inhomogeneous flow, split: advect v, diffuse explicitly, add θ f, project, advect θ.

        Args:
            v: velocity.
            density: θ at centres, which multiplies the force.
            dt: step; νΔt < h²/(2 dims).
            viscosity: ν.
            force: f on faces (batch, dims, *size).
        Returns:
            v and θ after the step.
        """
        v = self.advect(v, dt, order=1)
        v = v + _column(viscosity * dt, v) * self.laplacian(v)
        mean = torch.stack([buoyancy(density, self, axis)[:, axis] for axis in range(self.grid.dims)], 1)
        v = self.project(v + _column(dt, v) * mean * force)
        return v, self.advect_scalar(density, v, dt, order=1)


def _column(value: Number, v: Tensor) -> Tensor:
    """A number, or one for each sample, shaped to broadcast over fields."""
    column = torch.as_tensor(value, dtype=v.dtype, device=v.device)
    if column.ndim > 1 or (column.ndim and len(column) not in (1, len(v))):
        raise ValueError(f"expected a number or one for each of the {len(v)} samples, got shape {tuple(column.shape)}")
    return column.view(-1, *[1] * (v.ndim - 1)) if column.ndim else column


def _courant(dt: Number | None, h: float, speed: Tensor, repeat: int = 1) -> Tensor | float:
    if dt is None:
        return 0.0
    if isinstance(dt, Tensor) and dt.ndim:
        dt = dt.repeat_interleave(repeat).view(-1, *[1] * (speed.ndim - 1))
    return speed * dt / h


def kolmogorov(
    grid: Grid,
    amplitude: float | int = 1.0,
    wavenumber: int = 4,
    *,
    average: str = "cell",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "1 dims *size"]:
    """f = A sin(k y) along the first axis, y along the second: the force of Kolmogorov's flow.

    Args:
        grid: the box, 2 or 3 axes.
        amplitude: A.
        wavenumber: k in waves per 2π of y.
        average: "cell", the mean over a face, sinc(kh/2) smaller, which restriction keeps; "point", the value at its middle;
            "official", sin(ky) sinc(h/2), as the code of temporal stencil modeling has it.
    Raises:
        ValueError: one axis, or another average.
    """
    if grid.dims < 2:
        raise ValueError(f"grid must have 2 or 3 axes, got {grid.dims}")
    factors = {"cell": wavenumber * grid.spacing[1] / 2, "point": 0.0, "official": grid.spacing[1] / 2}
    if average not in factors:
        raise ValueError(f"average must be 'cell', 'point' or 'official', got {average!r}")
    half = factors[average]
    y = grid.coordinates(face=0, device=device)[1]
    along = amplitude * torch.sin(wavenumber * y) * (math.sin(half) / half if half else 1.0)
    force = torch.zeros(1, grid.dims, *grid.size, dtype=torch.float64, device=device)
    force[:, 0] = along
    return force.to(dtype)


def buoyancy(
    c: Float[Tensor, "batch 1 *size"], mac: MAC, axis: int, strength: Number = 1.0
) -> Float[Tensor, "batch dims *size"]:
    """strength x c along an axis, c by linear interpolation at its faces; zero on walls."""
    u = c[:, 0]
    n = u.shape[axis + 1]
    before = (
        u.roll(1, axis + 1)
        if mac.periodic[axis]
        else torch.cat([-u.narrow(axis + 1, 0, 1), u.narrow(axis + 1, 0, n - 1)], axis + 1)
    )
    own = _column(strength, u) * 0.5 * (u + before)
    return torch.stack([own if j == axis else torch.zeros_like(own) for j in range(mac.grid.dims)], 1)


def restrict(v: Float[Tensor, "batch dims *size"], factor: int) -> Float[Tensor, "batch dims *coarse"]:
    """The velocity on cells ``factor`` times as long: means over the fine faces that tile a coarse one.

    The coarse divergence is the mean of the fine ones, so none appears; momentum flux through coarse faces is kept.

    Raises:
        ValueError: a factor that does not divide the size.
    """
    size = v.shape[2:]
    if factor < 1 or any(n % factor for n in size):
        raise ValueError(f"factor must be a positive divisor of the size {tuple(size)}, got {factor}")
    parts = []
    for component in range(v.shape[1]):
        u = v[:, component]
        for axis, n in enumerate(size):
            blocks = u.unflatten(axis + 1, (n // factor, factor))
            u = blocks.select(axis + 2, 0) if axis == component else blocks.mean(axis + 2)
        parts.append(u)
    return torch.stack(parts, 1)

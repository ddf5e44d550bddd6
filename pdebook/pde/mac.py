"""Incompressible flow on staggered grids: transport, semi-implicit and split steps, rollouts.

    ∂_t v + ∇·(v ⊗ v) = -∇p + ν Δv + f,    ∇·v = 0

Where velocities live and what their sides may be, ``staggered`` says.

Source: Harlow and Welch 1965; Kochkov et al., PNAS 2021, for the form of the transport.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.algebra.results import check_start
from pdebook.pde.boundary import Periodic, Wall, pad
from pdebook.pde.failure import Diverged, listed
from pdebook.pde.forces import buoyancy
from pdebook.pde.interpolation import ALIKE, Interpolation, Neighbours, linear, sample, van_leer
from pdebook.pde.staggered import Number, Staggered, column

__all__ = ["MAC"]

Force = Tensor | float | int | Callable[[Tensor, Any], Tensor]
"""What broadcasts to a velocity, or a function of velocity and time."""


class MAC(Staggered):
    """A staggered grid on which fluids flow. Attributes, Args, Raises: as ``Staggered``."""

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
        return self.clear_walls(self._convection(v, self._wide(v), dt, carried, carrier))

    def _convection(
        self, v: Tensor, wide: Tensor, dt: Number | None, carried: Interpolation, carrier: Interpolation
    ) -> Tensor:
        """``convection``, of v with two ghosts on every side; anything on the walls."""
        total: Any = None
        for axis, h in enumerate(self.grid.spacing):
            speed = self._carrier(v, wide, axis, carrier)
            along = wide[self._inner(axis)]
            if carried in ALIKE:  # all components in one batch
                courant = _courant(dt, h, speed)
                courant = courant.flatten(0, 1) if isinstance(courant, Tensor) else courant
                near = Neighbours(v.flatten(0, 1), along.flatten(0, 1), axis, None, speed.flatten(0, 1), courant)
                value = carried(near).view_as(speed)
            else:
                parts = [
                    carried(Neighbours(v[:, j], along[:, j], axis, j, speed[:, j], _courant(dt, h, speed[:, j])))
                    for j in range(self.grid.dims)
                ]
                value = torch.stack(parts, 1)
            total = _minus(total, torch.diff(speed * value, dim=axis + 2), h)
        return total

    def _carrier(self, v: Tensor, wide: Tensor, axis: int, carrier: Interpolation) -> Tensor:
        """Velocity along an axis at the faces of each component's cells, (batch, dims, *size), one point more along the axis."""
        parts = []
        for component, n in enumerate(self.grid.size):
            # What looks along ``component`` only takes the upper wall of ``axis`` along with the rest.
            upper = axis if carrier in ALIKE and axis != component else None
            speed = carrier(Neighbours(v[:, axis], wide[self._inner(component, upper)][:, axis], component, axis))
            if axis != component:
                speed = speed.narrow(component + 1, 0, n)
                speed = speed if upper is not None else self._with_upper(speed, axis)
            parts.append(speed)
        return torch.stack(parts, 1)

    def transport(
        self,
        c: Shaped[Tensor, "batch channel *cells"],
        v: Float[Tensor, "batch dims *size"],
        dt: Number | None = None,
        *,
        boundary: Any = None,
        carried: Interpolation = van_leer,
    ) -> Float[Tensor, "batch channel *cells"]:
        """-∇·(v c) for scalars at centres: conservative.

        Args:
            c: scalars.
            v: velocity.
            dt: step, as in ``convection``.
            boundary: conditions of c, see ``boundary``; periodic and no-flux if left out.
            carried: interpolation of c.
        """
        self.check(v)
        self.grid.check(c, "c")
        sides = [Periodic() if closed else Wall() for closed in self.periodic] if boundary is None else boundary
        batch, channels = c.shape[:2]
        flat = c.flatten(0, 1)
        total: Any = None
        for axis, h in enumerate(self.grid.spacing):
            wide = pad(c, 2, sides, self.grid.spacing, axes=[axis]).flatten(0, 1)
            speed = self._with_upper(v[:, axis], axis).repeat_interleave(channels, 0)
            value = carried(Neighbours(flat, wide, axis, None, speed, _courant(dt, h, speed, channels)))
            total = _minus(total, torch.diff(speed * value, dim=axis + 1), h)
        return total.unflatten(0, (batch, channels))

    def advect(
        self,
        v: Float[Tensor, "batch dims *size"],
        dt: Number,
        *,
        by: Shaped[Tensor, "batch components *size"] | None = None,
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
        self.check(v)
        self.check(by, "by")
        parts = [self.value_at(v, j, self.trace(by, dt, j, order=order)) for j in range(self.grid.dims)]
        return self.clear_walls(torch.cat(parts, 1))

    def advect_scalar(
        self,
        c: Shaped[Tensor, "batch channel *cells"],
        v: Float[Tensor, "batch dims *size"],
        dt: Number,
        *,
        order: int = 2,
    ) -> Float[Tensor, "batch channel *cells"]:
        """Semi-Lagrangian step of scalars at centres; arguments as ``advect``. Not conservative; extrema don't grow."""
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order}")
        self.check(v)
        self.grid.check(c, "c")
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
        self.check(v)
        v = self.clear_walls(v)
        wide = self._wide(v)
        rate = _plus(self._convection(v, wide, None, carried, carrier), viscosity, self._laplacian(wide))
        return self.project(_plus(rate, 1.0, _push(force, v, t)))

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
        self.check(v)
        _check_step(dt, v)
        v = self.clear_walls(v)
        push = _push(force, v, t)
        v = _plus(v, dt, _plus(self._convection(v, self._wide(v), dt, carried, carrier), 1.0, push))
        if isinstance(viscosity, (int, float)) and viscosity == 0:
            return self.project(v)
        if all(self.periodic):
            return self._project_and_diffuse(v, viscosity * dt)
        # Between walls implicit diffusion, component by component, brings back some divergence.
        return self.project(self.diffuse(self.project(v), viscosity * dt))

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
            ValueError: a velocity or a force that does not fit the grid, a start that is not finite, a negative viscosity, steps
                that don't match, or a start whose Courant number exceeds one.
            pdebook.pde.failure.Diverged: a sample stopped being finite.
        """
        self.check(v)
        every = steps if every is None else every
        if not isinstance(dt, (int, float)):
            raise ValueError(f"dt must be a number, one for the whole batch, got {type(dt).__name__}")
        whole = isinstance(steps, int) and isinstance(every, int)
        if not whole or steps < 1 or every < 1 or steps % every or not 0 < dt < math.inf:
            raise ValueError(
                f"dt must be positive, and steps a multiple of every >= 1, got dt = {dt}, steps = {steps}, every = {every}"
            )
        check_start("v", v.detach())
        nu = column(viscosity, v)
        if not bool(((nu >= 0) & nu.isfinite()).all()):
            raise ValueError(f"viscosity must be finite and not negative, got {viscosity}")
        v = self.project(v)
        number = float(self.courant(v.detach(), dt).max())
        if number > 1:
            raise ValueError(f"dt must keep the Courant number below 1 at the start, got {number:.3g} for dt = {dt}")
        good = torch.zeros(len(v), dtype=torch.int64, device=v.device)
        states = []
        for step in range(1, steps + 1):
            v = self.step(v, dt, viscosity, force, t=(step - 1) * dt, **interpolations)
            good += v.detach().flatten(1).abs().amax(1).isfinite() & (good == step - 1)
            if step % every == 0:
                states.append(v)
        result = torch.stack(states, 1)
        first_bad = torch.where(good == steps, 0, good + 1).cpu()
        bad = first_bad.nonzero().flatten().tolist()
        if bad:
            step = int(first_bad[bad].min())
            raise Diverged(
                f"{len(bad)} of {len(v)} samples stopped being finite (samples {listed(bad)}), first in step {step}, which ends at "
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
        density: Shaped[Tensor, "batch channel *cells"],
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
        _check_step(dt, v)
        self.grid.check(density, "density", 1)
        v = self.advect(v, dt, order=1)
        v = v + column(viscosity * dt, v) * self.laplacian(v)
        mean = torch.stack([buoyancy(density, self, axis)[:, axis] for axis in range(self.grid.dims)], 1)
        v = self.project(v + column(dt, v) * mean * force)
        return v, self.advect_scalar(density, v, dt, order=1)


def _check_step(dt: Number, v: Tensor) -> None:
    """Raise ValueError for what is no step; steps of single samples are not read from their device."""
    if isinstance(dt, Tensor):
        column(dt, v)
    elif not 0 < dt < math.inf:
        raise ValueError(f"dt must be positive and finite, got {dt}")


def _push(force: Force, v: Tensor, t: Any) -> Tensor | float | int:
    """The force's value. Raises ValueError unless it broadcasts to v."""
    push = force(v, t) if callable(force) else force
    if isinstance(push, Tensor):
        fits = all(m in (1, n) for m, n in zip(push.shape[::-1], v.shape[::-1], strict=False))
        if push.ndim > v.ndim or not fits:
            raise ValueError(f"force must broadcast to {tuple(v.shape)}, got shape {tuple(push.shape)}")
    return push


def _courant(dt: Number | None, h: float, speed: Tensor, repeat: int = 1) -> Tensor | float:
    if dt is None:
        return 0.0
    if isinstance(dt, Tensor):
        dt = dt.to(speed.dtype)
        dt = dt.repeat_interleave(repeat).view(-1, *[1] * (speed.ndim - 1)) if dt.ndim else dt
    return speed * (dt / h)


def _minus(total: Tensor | None, change: Tensor, h: float) -> Tensor:
    """total - change/h, in the place of one of them."""
    return change.mul_(-1.0 / h) if total is None else total.sub_(change, alpha=1.0 / h)


def _plus(v: Tensor, factor: Number, rate: Tensor | float | int) -> Tensor:
    """v + factor x rate, for a factor that is a number or one for each sample."""
    if isinstance(factor, (int, float)) and isinstance(rate, Tensor):
        return torch.add(v, rate, alpha=factor)
    return v if isinstance(rate, (int, float)) and rate == 0 else v + column(factor, v) * rate

"""Finite volumes on boxes: conservation laws solved so that jumps stay sharp and nothing is lost.

    d/dt u_i = -Σ_j (F_{i+1/2,j} - F_{i-1/2,j})/h_j + s_i

The means u_i of the conserved variables change by the fluxes F through the faces of the cell. ``FiniteVolume`` reconstructs the
primitive variables on both sides of each face (``reconstruction``), makes one flux of the two (``fluxes``) for an equation
(``laws``), unsplit in space, and steps in time by an explicit Runge-Kutta method. Every sample has its own time steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from pdebook.diffeq.butcher import ButcherTableau
from pdebook.diffeq.tableaus import EULER, HEUN, MIDPOINT
from pdebook.pde.admissible import check_options, check_sides, check_state
from pdebook.pde.boundary import Ghost, Periodic, Robin, pad, paired
from pdebook.pde.fluxes import Flux
from pdebook.pde.grid import Grid
from pdebook.pde.laws import Law
from pdebook.pde.legendre import legendre_step
from pdebook.pde.marching import FlowError, Trajectory, listed, march, per_sample, raise_faults, save_times
from pdebook.pde.positivity import axis_shares, limited_flux
from pdebook.pde.reconstruction import Muscl, Reconstruction

__all__ = ["METHODS", "SSPRK3", "FiniteVolume", "FlowError", "Trajectory"]

SSPRK3 = ButcherTableau("ssprk3", 3, ((), (1.0,), (0.25, 0.25)), (1 / 6, 1 / 6, 2 / 3))
"""Convex combinations of Euler steps: what an Euler step keeps (bounds, positivity), it keeps. Source: Shu and Osher 1988."""

METHODS: dict[str, ButcherTableau] = {tableau.name: tableau for tableau in (EULER, HEUN, MIDPOINT, SSPRK3)}
"""Methods in time, by name. "midpoint" is PDEBench's; the others preserve strong stability at Courant numbers up to 1."""

_CACHE = 1 << 19
"""Bytes of a field that are advanced together on a CPU: so that the temporaries stay in the second-level cache."""


@dataclass(frozen=True)
class FiniteVolume:
    """A method for ∂_t u + Σ_j ∂_j f_j = Σ_j ∂_j g_j + s on a box; see the module.

    Second order where the solution is smooth with ``Muscl``, first order at shocks, whatever the reconstruction.

    Args:
        law: the equation; its ``dims`` are the grid's.
        grid: the box.
        boundary: conditions on the primitive variables; see ``boundary.paired``. Values that are functions of time are
            given t of shape (batch, 1, 1, ...), so that their results broadcast to the side.
        reconstruction: values at the faces.
        flux: of two states, or its name in ``fluxes.FLUXES``; if left out, Godunov's for scalar laws and HLLC for fluids.
        source: s(u, t) with u as the state and t of shape (batch, 1, 1, ...), or None.
        method: method in time, or its name in ``METHODS``.
        cfl: Courant number Σ_j (max(|v| + c)_j / h_j + 2ν / h_j²) Δt of the steps, from 0 to 1 without 0. Muscl with the
            monotonised central limiter is monotone up to 1/2.
        variables: what is reconstructed: "primitive", or "conserved" (with Weno5Z of fifth order in one dimension).
        positivity: "fallback": face values that are not positive are replaced by the cell's mean. "fluxes": moreover, fluxes
            are blended with Rusanov's of first order as far as the means need it to stay positive, which a method that preserves
            strong stability then guarantees for cfl <= 1/2 without viscosity and source. "floor": after each step pressures
            of at most 1e-8 become 1e-4, as in PDEBench's data.
        viscous_stages: 0: viscous fluxes are part of the method in time, whose steps they shorten. From 3 on: they are split off
            (Strang) and advanced by Runge-Kutta-Legendre steps of so many stages, which reach (s² + s - 2)/2 times as far.
        compiled: the right-hand side through ``torch.compile``: some times faster after a minute of compilation.
    Raises:
        ValueError: an argument that makes no sense or does not fit another; the message names it.
    Source: LeVeque 2002; Toro 2009; for "fluxes" Hu, Adams and Shu 2013.
    """

    law: Law
    grid: Grid
    boundary: Any = field(default_factory=Periodic)
    reconstruction: Reconstruction = field(default_factory=Muscl)
    flux: Flux | str | None = None
    source: Callable[[Tensor, Tensor], Tensor] | None = None
    method: ButcherTableau | str = "ssprk3"
    cfl: float | int = 0.4
    variables: str = "primitive"
    positivity: str = "fallback"
    viscous_stages: int = 0
    compiled: bool = False
    _flux: Flux = field(init=False, repr=False, compare=False)
    _method: ButcherTableau = field(init=False, repr=False, compare=False)
    _pairs: Any = field(init=False, repr=False, compare=False)
    _odd: Any = field(init=False, repr=False, compare=False)
    _rhs: Callable[..., Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.law.dims != self.grid.dims:
            raise ValueError(f"law must have the grid's {self.grid.dims} axes, got {self.law.dims}")
        pairs = paired(self.boundary, self.grid.dims)
        flux, method = check_options(self, METHODS)
        object.__setattr__(self, "_flux", flux)
        object.__setattr__(self, "_method", method)
        object.__setattr__(self, "_pairs", pairs)
        object.__setattr__(self, "_odd", tuple(self.law.odd(axis) for axis in range(self.grid.dims)))
        object.__setattr__(self, "_rhs", torch.compile(self._tendency) if self.compiled else self._tendency)

    def tendency(self, t: Any, u: Float[Tensor, "batch channel *grid"]) -> Float[Tensor, "batch channel *grid"]:
        """du/dt; a field for ``diffeq.solve``.

        Args:
            t: time, a number or (batch,).
            u: cell means of the conserved variables.
        """
        self.grid.check(u, "u", self.law.channels)
        return self._rhs(self._clock("t", t, u), u, self.law.primitive(u), None)

    def stable_dt(self, u: Float[Tensor, "batch channel *grid"]) -> Float[Tensor, " batch"]:
        """The step that ``cfl`` allows each sample."""
        self.grid.check(u, "u", self.law.channels)
        return self._stable(self.law.primitive(u))[0]

    def _stable(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The step that ``cfl`` allows each sample, and the rate that makes the Courant number of a step, both in float64."""
        w, h = w.detach(), self.grid.spacing
        rate = self.law.rate(w, h).double()
        if not self.law.viscous:
            return self.cfl / rate, rate
        diffusion = self.law.diffusivity(w).double() * sum(2.0 / side**2 for side in h)
        if not self.viscous_stages:
            return self.cfl / (rate + diffusion), rate + diffusion
        # Two halves of a step, each with a method that is stable up to (s² + s - 2)/4 of Euler's steps, for which a cell's
        # diffusion number Σ_j 2ν Δt/h_j² is 1; 1/10 is left in reserve.
        s = self.viscous_stages
        reach = 0.9 * (s * s + s - 2) / 2
        return torch.minimum(self.cfl / rate, reach / diffusion), torch.maximum(rate, diffusion / reach)

    def step(
        self, u: Float[Tensor, "batch channel *grid"], dt: Any, t: Any = 0.0
    ) -> Float[Tensor, "batch channel *grid"]:
        """One step; nothing is checked but the shape.

        Args:
            u: cell means of the conserved variables.
            dt: length of the step, a number or (batch,).
            t: time at its start, likewise.
        Raises:
            ValueError: u of another shape than the grid and the law have.
        """
        self.grid.check(u, "u", self.law.channels)
        return self._step(u, self.law.primitive(u), dt, t)

    def totals(self, u: Float[Tensor, "batch channel *grid"]) -> dict[str, Float[Tensor, " batch"]]:
        """Integrals of the conserved variables over the box, by name."""
        self.grid.check(u, "u", self.law.channels)
        sums = u.flatten(2).sum(2) * self.grid.cell
        return dict(zip(self.law.names, sums.unbind(1), strict=True))

    def _clock(self, name: str, t: Any, u: Tensor) -> Tensor:
        """A number or (batch,) as (batch or 1, 1, 1, ...) in u's type."""
        clock = torch.as_tensor(t, dtype=u.dtype, device=u.device)
        if clock.numel() not in (1, len(u)):
            raise ValueError(f"{name} must be a number or of shape ({len(u)},), got shape {tuple(clock.shape)}")
        return clock.reshape(-1, *[1] * (u.ndim - 1))

    def _step(self, u: Tensor, w: Tensor, dt: Any, t: Any) -> Tensor:
        """One step from u, whose primitive variables are w."""
        dt, t = self._clock("dt", dt, u), self._clock("t", t, u)
        if self.viscous_stages and self.law.viscous:
            # Boundary values stand at the middle of each half.
            half = dt / 2
            u = self._advected(self._diffused(u, half, t + half / 2), None, dt, t)
            u = self._diffused(u, half, t + half * 1.5)
        else:
            u = self._advected(u, w, dt, t)
        if self.positivity == "floor":
            w = self.law.primitive(u)
            lifted = self.law.floored(w)
            u = torch.where((lifted != w).any(1, keepdim=True), self.law.conserved(lifted), u)
        return u

    def _diffused(self, u: Tensor, dt: Tensor, t: Tensor) -> Tensor:
        """A step under the viscous fluxes alone."""
        return legendre_step(lambda now: self._viscous(now, t), u, dt, self.viscous_stages)

    def _viscous(self, u: Tensor, t: Tensor) -> Tensor:
        """Σ_j ∂_j g_j."""
        h = self.grid.spacing
        around = pad(self.law.primitive(u), 1, self.boundary, h, odd=self._odd, t=t)
        parts = [self.law.viscous_flux(around, axis, h).diff(dim=2 + axis) * (1 / h[axis]) for axis in range(len(h))]
        return torch.stack(parts).sum(0)

    def _advected(self, u: Tensor, w: Tensor | None, dt: Tensor, t: Tensor) -> Tensor:
        """A step of the Runge-Kutta method."""
        method = self._method
        slopes: list[Tensor] = []
        # The last stage of a tableau is the field at the end of the step, which is not needed.
        for row, node in zip(method.stage_matrix, method.c, strict=True):
            if slopes:
                total = None
                for a, k in zip(row, slopes, strict=False):
                    if a:
                        total = k * a if total is None else torch.add(total, k, alpha=float(a))
                assert total is not None
                stage = torch.addcmul(u, total, dt)
            else:
                stage = u
            if len(slopes) == method.stages - 1:
                break
            at = t if node == 0 else t + dt * node
            primitive = w if w is not None and not slopes else self.law.primitive(stage)
            slopes.append(self._rhs(at, stage, primitive, dt))
        return stage

    def _tendency(self, t: Tensor, u: Tensor, w: Tensor, dt: Tensor | None) -> Tensor:
        """du/dt of u with primitive variables w. Without dt nothing can be said of the next means, and fluxes stay as they are."""
        h = self.grid.spacing
        # Outside of a step (dt is None) nothing is split either.
        unsplit = self.law.viscous and not (self.viscous_stages and dt is not None)
        limited = self.positivity == "fluxes" and dt is not None and bool(self.law.positive)
        shares = axis_shares(self.law, w, h) if limited else []
        around = pad(w, 1, self.boundary, h, odd=self._odd, t=t) if unsplit else None
        total: Tensor | None = None
        for axis in range(self.grid.dims):
            place = 2 + axis
            width = self.reconstruction.ghosts
            padded = pad(w, width, self.boundary, h, axes=[axis], odd=self._odd, t=t)
            flux = self._flux(self.law, *self._faces(padded, axis), axis)
            if limited:
                assert dt is not None
                cells = padded.narrow(place, width - 1, w.shape[place] + 2)
                flux = limited_flux(self.law, flux, cells, axis, 2 * dt / (h[axis] * shares[axis]))
            if around is not None:
                flux = flux - self.law.viscous_flux(around, axis, h)
            n = w.shape[place]
            lower, upper = flux.narrow(place, 0, n), flux.narrow(place, 1, n)
            change = (lower - upper) if h[axis] == 1.0 else (lower - upper).mul_(1 / h[axis])
            total = change if total is None else total.add_(change)
        assert total is not None
        return total if self.source is None else total + self._source(t, u)

    def _source(self, t: Tensor, u: Tensor) -> Tensor:
        """What the source gives, in u's type and shape."""
        assert self.source is not None
        given = torch.as_tensor(self.source(u, t), dtype=u.dtype, device=u.device)
        fits = given.ndim <= u.ndim and all(a in (1, b) for a, b in zip(given.shape[::-1], u.shape[::-1], strict=False))
        if not fits:
            raise ValueError(f"source must give shape {tuple(u.shape)} or broadcast to it, got {tuple(given.shape)}")
        return given

    def _faces(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Primitive states on the lower and the upper side of the faces."""
        law, place = self.law, 2 + axis
        if self.variables == "primitive":
            sides = self.reconstruction(w, place)
        else:
            lower, upper = self.reconstruction(law.conserved(w), place)
            sides = law.primitive(lower), law.primitive(upper)
        if not law.positive or (self.reconstruction.bounded and self.variables == "primitive"):
            return sides
        first, count = self.reconstruction.ghosts - 1, sides[0].shape[place]
        means = w.narrow(place, first, count), w.narrow(place, first + 1, count)
        kept = [(side[:, list(law.positive)] > 0).all(1, keepdim=True) for side in sides]
        return torch.where(kept[0], sides[0], means[0]), torch.where(kept[1], sides[1], means[1])

    def check(self, u: Num[Tensor, "..."]) -> None:
        """Raise ValueError unless u is a state: of the right shape, finite, with positive density, depth and pressure."""
        self.grid.check(u, "u", self.law.channels)
        check_state(self.law, u)

    def advance(
        self,
        u: Num[Tensor, "batch channel *grid"],
        times: Sequence[float | int] | Sequence[Sequence[float | int]] | Num[Tensor, "..."],
        *,
        start: float | int | Num[Tensor, "..."] = 0.0,
        dt: float | int | Num[Tensor, "..."] | None = None,
        max_dt: float | int | Num[Tensor, "..."] | None = None,
        block: int | None = None,
        read_every: int | None = None,
        max_steps: int = 1_000_000,
        on_failure: str = "raise",
    ) -> Trajectory:
        """States at given times; each sample steps at its own Courant number, ends steps at its times, and rests at its last.

        Whether all have arrived is read from the device only every ``read_every`` steps. Step sizes are constants for
        differentiation; every state is then kept.

        Args:
            u: cell means of the conserved variables at the start.
            times: when to save, not before ``start`` and increasing, (n,) or (batch, n).
            start: a number or (batch,).
            dt: length of the steps, if not by ``cfl``: a number or (batch,). A Courant number above 1 is then an error.
            max_dt: longest step: where a source or a boundary sets a fluid at rest in motion, ``cfl`` allows any step at first.
            block: samples that are advanced together; if left out, on a CPU what fits its cache, elsewhere all. Where boundary
                values or the source are functions, which may know the batch, always all.
            read_every: steps between two looks at the samples' state; if left out, 1 on a CPU, elsewhere 16.
            max_steps: most steps.
            on_failure: "raise" ``FlowError``, or "status": return what was reached.
        Raises:
            ValueError: an argument that makes no sense; a state that is not finite or not positive; a dt that is too long at
                once. The message names samples.
            FlowError: a sample fails on the way, or ``max_steps`` do not suffice. The message names step, time and samples.
        """
        self.check(u)
        check_sides(self._pairs, u)
        if on_failure not in ("raise", "status"):
            raise ValueError(f"on_failure must be 'raise' or 'status', got {on_failure!r}")
        if read_every is None:
            read_every = 1 if u.device.type == "cpu" else 16
        for name, number in (("read_every", read_every), ("max_steps", max_steps), ("block", block)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        batch = u.shape[0]
        began = per_sample("start", start, batch, u.device)
        saves = save_times(times, began, batch)
        fixed = None if dt is None else per_sample("dt", dt, batch, u.device)
        longest = None if max_dt is None else per_sample("max_dt", max_dt, batch, u.device)
        for name, steps_given in (("dt", fixed), ("max_dt", longest)):
            if steps_given is not None and not bool((steps_given > 0).all()):
                raise ValueError(f"{name} must be positive, got {steps_given.tolist()}")
        if fixed is not None:
            self._check_dt(u, fixed)
        whole = self.source is not None or any(
            callable(side.value if isinstance(side, Ghost) else side.g)
            for pair in self._pairs
            for side in pair
            if isinstance(side, (Ghost, Robin))
        )
        if block is None or whole:
            field_bytes = u[0].numel() * u.element_size()
            block = batch if whole or u.device.type != "cpu" else max(1, _CACHE // field_bytes)
        if u.device.type == "cpu":
            # glibc hands freed memory back to the system, and every temporary would be mapped anew, until it has once seen a
            # block as large as this; it is never touched.
            torch.empty(31 << 20, dtype=torch.uint8)
        parts = []
        for first in range(0, batch, block):
            rows = slice(first, min(first + block, batch))
            method = self if block >= batch else self._select(rows)
            parts.append(
                march(
                    method._step,
                    method._look,
                    u[rows],
                    began[rows],
                    saves[rows],
                    fixed=None if fixed is None else fixed[rows],
                    longest=None if longest is None else longest[rows],
                    read_every=read_every,
                    max_steps=max_steps,
                    stop=on_failure == "raise",
                )
            )
        joined = (torch.cat(values) if len(values) > 1 else values[0] for values in zip(*parts, strict=True))
        states, steps, fault, failed_step, failed_time, arrived = joined
        trajectory = Trajectory(states, saves, steps, fault, failed_step, failed_time)
        if on_failure == "raise":
            raise_faults(trajectory, arrived, max_steps)
        return trajectory

    def _check_dt(self, u: Tensor, dt: Tensor) -> None:
        courant = dt * self._stable(self.law.primitive(u.detach()))[1]
        if bool((courant > 1).any()):
            raise ValueError(
                f"dt violates the CFL condition: the Courant number must be at most 1, it is {float(courant.max()):.3g} at the "
                f"start, in samples {listed(courant > 1)}"
            )

    def _select(self, rows: slice) -> "FiniteVolume":
        """The method for some of the samples."""

        def cut(side: Any) -> Any:
            name = {Ghost: "value", Robin: "g"}.get(type(side))
            value = None if name is None else getattr(side, name)
            if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] == 1:
                return side
            return replace(side, **{str(name): value[rows]})

        pairs = [tuple(cut(side) for side in pair) for pair in self._pairs]
        law = self.law.select(rows)
        if law is self.law and all(
            new is old for a, b in zip(pairs, self._pairs, strict=True) for new, old in zip(a, b, strict=True)
        ):
            return self
        return replace(self, law=law, boundary=pairs)

    def _look(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What ``march`` wants to know of a state."""
        w = self.law.primitive(u)
        stable, rate = self._stable(w)
        least = w.detach().flatten(2).amin(2)
        fault = torch.where(rate.isfinite() & least.isfinite().all(1), 0, 1)
        if self.law.positive:
            # The speed of sound is not a number where the pressure is negative, hence in this order.
            fault = torch.where((least[:, list(self.law.positive)] <= 0).any(1), 2, fault)
        return w, stable, rate, fault

"""Finite volumes on boxes: conservation laws solved so that jumps stay sharp and nothing is lost.

    d/dt u_i = -Σ_j (F_{i+1/2,j} - F_{i-1/2,j})/h_j + s_i

The means u_i of the conserved variables change by the fluxes F through the faces of the cell. ``FiniteVolume`` reconstructs the
primitive variables on both sides of each face (``reconstruction``), makes one flux of the two (``fluxes``) for an equation
(``laws``), unsplit in space, and steps in time by an explicit Runge-Kutta method. Every sample has its own time steps.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.diffeq.butcher import ButcherTableau
from pdebook.diffeq.tableaus import EULER, HEUN, MIDPOINT
from pdebook.pde.boundary import Ghost, Periodic, Robin, pad, paired
from pdebook.pde.fluxes import FLUXES, HLLC, Flux, Godunov
from pdebook.pde.grid import Grid
from pdebook.pde.laws import Fluid, Law, Scalar
from pdebook.pde.reconstruction import Muscl, Reconstruction

__all__ = ["METHODS", "SSPRK3", "FiniteVolume", "FlowError", "Trajectory"]

SSPRK3 = ButcherTableau("ssprk3", 3, ((), (1.0,), (0.25, 0.25)), (1 / 6, 1 / 6, 2 / 3))
"""Convex combinations of Euler steps: what an Euler step keeps (bounds, positivity), it keeps. Source: Shu and Osher 1988."""

METHODS: dict[str, ButcherTableau] = {tableau.name: tableau for tableau in (EULER, HEUN, MIDPOINT, SSPRK3)}
"""Methods in time, by name. "midpoint" is PDEBench's; the others preserve strong stability at Courant numbers up to 1."""

POSITIVITY = ("fallback", "fluxes", "floor")
VARIABLES = ("primitive", "conserved")

_CACHE = 1 << 20
"""Bytes of a field that are advanced together on a CPU: so that the temporaries stay in the second-level cache."""

_MARGIN = 1e-13
"""Share of the smaller half-update's density and pressure that the limited flux leaves."""

_FAULTS = ("", "is not finite", "has density, depth or pressure that is not positive", "violates the CFL condition")


class FlowError(ArithmeticError):
    """A solution that could not be continued.

    Attributes:
        trajectory: what was reached.
    """

    def __init__(self, message: str, trajectory: "Trajectory") -> None:
        super().__init__(message)
        self.trajectory = trajectory


@dataclass(frozen=True)
class Trajectory:
    """What ``advance`` gives.

    Attributes:
        u: states at the times, (batch, times, channel, *grid); not numbers where a sample did not arrive.
        times: (batch, times).
        steps: steps that each sample took, (batch,).
        fault: 0 for samples that arrived; 1: not finite, 2: not positive, 3: step too long; (batch,).
        failed_step: number of the step that led to the fault (would have been too long), from 1, or 0; (batch,).
        failed_time: time at its end (start), or 0; (batch,).
    """

    u: Tensor
    times: Tensor
    steps: Tensor
    fault: Tensor
    failed_step: Tensor
    failed_time: Tensor


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
    _flux: Flux = field(init=False, repr=False, compare=False)
    _method: ButcherTableau = field(init=False, repr=False, compare=False)
    _pairs: Any = field(init=False, repr=False, compare=False)
    _odd: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.law.dims != self.grid.dims:
            raise ValueError(f"law must have the grid's {self.grid.dims} axes, got {self.law.dims}")
        pairs = paired(self.boundary, self.grid.dims)
        for name, value, table in (
            ("flux", self.flux, tuple(FLUXES)),
            ("method", self.method, tuple(METHODS)),
        ):
            if isinstance(value, str) and value not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}, got {value!r}")
        for name, value, table in (
            ("variables", self.variables, VARIABLES),
            ("positivity", self.positivity, POSITIVITY),
        ):
            if value not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}, got {value!r}")
        if not 0 < self.cfl <= 1:
            raise ValueError(f"cfl must be more than 0 and at most 1, got {self.cfl}")
        flux: Any = FLUXES[self.flux] if isinstance(self.flux, str) else self.flux
        if flux is None:
            flux = Godunov() if isinstance(self.law, Scalar) else HLLC()
        wrong = Scalar if isinstance(flux, HLLC) else Fluid if isinstance(flux, Godunov) else None
        if wrong is not None and isinstance(self.law, wrong):
            raise ValueError(f"flux must fit the law: {type(flux).__name__} is not for {type(self.law).__name__}")
        method = METHODS[self.method] if isinstance(self.method, str) else self.method
        if method.implicit:
            raise ValueError(f"method must be explicit, {method.name} is not")
        if self.positivity == "fluxes" and method.name not in ("euler", "heun", "ssprk3"):
            raise ValueError(f"method must be euler, heun or ssprk3 for positivity='fluxes', got {method.name}")
        if min(self.grid.size) < self.reconstruction.ghosts:
            raise ValueError(
                f"grid must have at least {self.reconstruction.ghosts} cells along each axis, got {self.grid.size}"
            )
        object.__setattr__(self, "_flux", flux)
        object.__setattr__(self, "_method", method)
        object.__setattr__(self, "_pairs", pairs)
        object.__setattr__(self, "_odd", tuple(self.law.odd(axis) for axis in range(self.grid.dims)))

    def tendency(self, t: Any, u: Float[Tensor, "batch channel *grid"]) -> Float[Tensor, "batch channel *grid"]:
        """du/dt; a field for ``diffeq.solve``.

        Args:
            t: time, a number or (batch,).
            u: cell means of the conserved variables.
        """
        return self._tendency(self._clock(t, u), u, self.law.primitive(u), None)

    def stable_dt(self, u: Float[Tensor, "batch channel *grid"]) -> Float[Tensor, " batch"]:
        """The step that ``cfl`` allows each sample."""
        return self.cfl / self.law.rate(self.law.primitive(u), self.grid.spacing)

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
        return self._step(u, self.law.primitive(u), self._clock(dt, u), self._clock(t, u))

    def totals(self, u: Float[Tensor, "batch channel *grid"]) -> dict[str, Float[Tensor, " batch"]]:
        """Integrals of the conserved variables over the box, by name."""
        sums = u.flatten(2).sum(2) * self.grid.cell
        return dict(zip(self.law.names, sums.unbind(1), strict=True))

    def _clock(self, t: Any, u: Tensor) -> Tensor:
        """A number or (batch,) as (batch or 1, 1, 1, ...) in u's type."""
        return torch.as_tensor(t, device=u.device).to(u.dtype).reshape(-1, *[1] * (u.ndim - 1))

    def _step(self, u: Tensor, w: Tensor, dt: Tensor, t: Tensor) -> Tensor:
        """One step from u, whose primitive variables are w."""
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
            slopes.append(self._tendency(at, stage, w if not slopes else self.law.primitive(stage), dt))
        if self.positivity == "floor":
            w = self.law.primitive(stage)
            lifted = self.law.floored(w)
            low = (lifted != w).any(1, keepdim=True)
            stage = torch.where(low, self.law.conserved(lifted), stage)
        return stage

    def _tendency(self, t: Tensor, u: Tensor, w: Tensor, dt: Tensor | None) -> Tensor:
        """du/dt of u with primitive variables w. Without dt nothing can be said of the next means, and fluxes stay as they are."""
        h = self.grid.spacing
        limited = self.positivity == "fluxes" and dt is not None and bool(self.law.positive)
        shares = self._shares(w) if limited else []
        around = pad(w, 1, self.boundary, h, odd=self._odd, t=t) if self.law.viscous else None
        total: Tensor | None = None
        for axis in range(self.grid.dims):
            place = 2 + axis
            width = self.reconstruction.ghosts
            padded = pad(w, width, self.boundary, h, axes=[axis], odd=self._odd, t=t)
            flux = self._flux(self.law, *self._faces(padded, axis), axis)
            if limited:
                assert dt is not None
                cells = padded.narrow(place, width - 1, w.shape[place] + 2)
                flux = self._limited(flux, cells, axis, 2 * dt / (h[axis] * shares[axis]))
            if around is not None:
                flux = flux - self.law.viscous_flux(around, axis, h)
            n = w.shape[place]
            lower, upper = flux.narrow(place, 0, n), flux.narrow(place, 1, n)
            change = (lower - upper) if h[axis] == 1.0 else (lower - upper).mul_(1 / h[axis])
            total = change if total is None else total.add_(change)
        assert total is not None
        return total if self.source is None else total + self.source(u, t)

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

    def _shares(self, w: Tensor) -> list[Tensor]:
        """How much of a cell each axis may use up: its part of the Courant number, (batch, 1, 1, ...)."""
        rates = []
        for axis, h in enumerate(self.grid.spacing):
            v, c = self.law.waves(w, axis)
            speed = v.abs() if c is None else v.abs() + c
            rates.append(speed.flatten(1).amax(1).detach() / h)
        total = torch.stack(rates).sum(0)
        return [(rate / total).view(-1, *[1] * (w.ndim - 1)) for rate in rates]

    def _limited(self, flux: Tensor, w: Tensor, axis: int, ratio: Tensor) -> Tensor:
        """The flux, moved to Rusanov's of first order until the half of the cell on each side of the face stays positive.

        A cell's update is the mean of the half-updates u ∓ ratio F over its faces; Rusanov's keep it positive at half the Courant
        number 1. Density is linear in F, and pressure concave, so that a share of the way can be given.
        """
        law, place = self.law, 2 + axis
        faces = flux.shape[place]
        w_lower, w_upper = w.narrow(place, 0, faces), w.narrow(place, 1, faces)
        safe = FLUXES["rusanov"](law, w_lower, w_upper, axis)
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

    def check(self, u: Float[Tensor, "..."]) -> None:
        """Raise ValueError unless u is a state: of the right shape, finite, with positive density, depth and pressure."""
        self.grid.check(u, "u", self.law.channels)
        state = u.detach()
        finite = state.flatten(1).isfinite().all(1)
        w = self.law.primitive(state)
        rows = {"finite": finite}
        for channel in self.law.positive:
            name = "density" if channel == 0 and self.law.dims + 1 in self.law.positive else "depth"
            rows[name if channel == 0 else "pressure"] = (w[:, channel] > 0).flatten(1).all(1) | ~finite
        for name, good in rows.items():
            if not bool(good.all()):
                wanted = "finite" if name == "finite" else f"of positive {name}"
                raise ValueError(f"u must be {wanted}, samples {_listed(~good)} are not")

    def advance(
        self,
        u: Float[Tensor, "batch channel *grid"],
        times: Sequence[float | int] | Float[Tensor, "..."],
        *,
        start: float | int | Float[Tensor, " batch"] = 0.0,
        dt: float | int | Float[Tensor, " batch"] | None = None,
        max_dt: float | int | Float[Tensor, " batch"] | None = None,
        block: int | None = None,
        read_every: int = 16,
        max_steps: int = 1_000_000,
        on_failure: str = "raise",
    ) -> Trajectory:
        """States at given times; each sample steps at its own Courant number, ends steps at its times, and rests at its last.

        Whether all have arrived is read from the device every ``read_every`` steps only. Step sizes are constants for
        differentiation; every state is then kept.

        Args:
            u: cell means of the conserved variables at the start.
            times: when to save, not before ``start`` and increasing, (n,) or (batch, n).
            start: a number or (batch,).
            dt: length of the steps, if not by ``cfl``: a number or (batch,). A Courant number above 1 is then an error.
            max_dt: longest step: where a source or a boundary sets a fluid at rest in motion, ``cfl`` allows any step at first.
            block: samples that are advanced together; if left out, on a CPU what fits its cache, elsewhere all. Where boundary
                values or the source are functions, which may know the batch, always all.
            read_every: steps between two looks at the samples' state.
            max_steps: most steps.
            on_failure: "raise" ``FlowError``, or "status": return what was reached.
        Raises:
            ValueError: an argument that makes no sense; a state that is not finite or not positive; a dt that is too long at
                once. The message names samples.
            FlowError: a sample fails on the way, or ``max_steps`` do not suffice. The message names step, time and samples.
        """
        self.check(u)
        if on_failure not in ("raise", "status"):
            raise ValueError(f"on_failure must be 'raise' or 'status', got {on_failure!r}")
        for name, number in (("read_every", read_every), ("max_steps", max_steps), ("block", block or 1)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        batch = u.shape[0]
        began = _per_sample("start", start, batch, u.device)
        saves = _saves(times, began, batch)
        fixed = None if dt is None else _per_sample("dt", dt, batch, u.device)
        longest = None if max_dt is None else _per_sample("max_dt", max_dt, batch, u.device)
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
        parts = []
        for first in range(0, batch, block):
            rows = slice(first, min(first + block, batch))
            method = self if block >= batch else self._select(rows)
            limits = (None if given is None else given[rows] for given in (fixed, longest))
            stop = on_failure == "raise"
            parts.append(method._march(u[rows], began[rows], saves[rows], *limits, read_every, max_steps, stop))
        joined = (torch.cat(values) if len(values) > 1 else values[0] for values in zip(*parts, strict=True))
        states, steps, fault, failed_step, failed_time, arrived = joined
        trajectory = Trajectory(states, saves, steps, fault, failed_step, failed_time)
        if on_failure == "raise":
            _raise(trajectory, arrived, max_steps)
        return trajectory

    def _check_dt(self, u: Tensor, dt: Tensor) -> None:
        courant = dt * self.law.rate(self.law.primitive(u.detach()), self.grid.spacing)
        if bool((courant > 1).any()):
            raise ValueError(
                f"dt violates the CFL condition: the Courant number must be at most 1, it is {float(courant.max()):.3g} at the "
                f"start, in samples {_listed(courant > 1)}"
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
        return replace(self, law=self.law.select(rows), boundary=pairs)

    def _march(
        self,
        u: Tensor,
        t: Tensor,
        saves: Tensor,
        fixed: Tensor | None,
        max_dt: Tensor | None,
        read_every: int,
        max_steps: int,
        stop: bool,
    ) -> tuple[Tensor, ...]:
        """States at ``saves``, and of each sample: steps, fault, failed step, failed time, whether it arrived."""
        batch, count = saves.shape
        rows, last = torch.arange(batch, device=u.device), count - 1
        zero = torch.zeros(batch, dtype=torch.long, device=u.device)
        slot = (saves[:, 0] == t).long()
        record = _Record(zero, zero, zero, torch.zeros_like(t))
        places = torch.zeros(batch, count, dtype=torch.long, device=u.device)
        kept, out = [u], None
        for number in range(max_steps + 1):
            w = self.law.primitive(u)
            rate, sound = self._look(w)
            record = record.note(sound, record.steps, t)
            dt = self.cfl / rate if fixed is None else fixed
            if max_dt is not None:
                dt = torch.minimum(dt, max_dt)
            active = (slot < count) & (record.fault == 0)
            if fixed is not None:
                # A last digit more than the limit is rounding.
                long = active & (fixed * rate > 1 + 1e-6)
                record = record.note(torch.where(long, 3, 0), record.steps + 1, t)
                active = active & ~long
            if number % read_every == 0 or number == max_steps:
                going = active.any()
                if stop:
                    going = going & (record.fault == 0).all()
                if not bool(going):
                    break
            if number == max_steps:
                break
            here = slot.clamp_max(last)
            target = saves.gather(1, here[:, None])[:, 0]
            # A step that would leave next to nothing goes all the way.
            lands = active & (dt >= (target - t) * (1 - 1e-9))
            dt = torch.where(active, torch.where(lands, target - t, dt), 0.0)
            u = self._step(u, w, self._clock(dt, u), self._clock(t, u))
            t = torch.where(lands, target, t + dt)
            # A state is written to the next place to save until the time has come, so that nobody has to ask. While gradients
            # are recorded the graph holds every state anyway; which ones were saved is read at the end.
            if u.requires_grad:
                kept.append(u)
                places[rows, here] = torch.where(active, len(kept) - 1, places[rows, here])
            else:
                if out is None:
                    out = u.new_empty(batch, count, *u.shape[1:])
                    out[:, 0] = kept[0]
                out[rows, here] = u
            slot, record = slot + lands, replace(record, steps=record.steps + active)
        arrived = slot == count
        states = _gathered(kept, places) if out is None else out
        if not bool(arrived.all()):
            reached = torch.arange(count, device=u.device) < slot[:, None]
            states = torch.where(reached.view(batch, count, *[1] * (u.ndim - 1)), states, math.nan)
        return states, record.steps, record.fault, record.failed_step, record.failed_time, arrived

    def _look(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The largest rate of each sample in float64, and its fault: 1 if not finite, 2 if not positive."""
        w = w.detach()
        rate = self.law.rate(w, self.grid.spacing).double()
        least = w.flatten(2).amin(2)
        fault = torch.where(rate.isfinite() & least.isfinite().all(1), 0, 1)
        if self.law.positive:
            # The speed of sound is not a number where the pressure is negative, hence in this order.
            fault = torch.where((least[:, list(self.law.positive)] <= 0).any(1), 2, fault)
        return rate, fault


@dataclass(frozen=True)
class _Record:
    """Steps, and the first fault of each sample."""

    steps: Tensor
    fault: Tensor
    failed_step: Tensor
    failed_time: Tensor

    def note(self, fault: Tensor, step: Tensor, t: Tensor) -> "_Record":
        new = (self.fault == 0) & (fault != 0)
        return _Record(
            self.steps,
            torch.where(new, fault, self.fault),
            torch.where(new, step, self.failed_step),
            torch.where(new, t, self.failed_time),
        )


def _gathered(kept: list[Tensor], places: Tensor) -> Tensor:
    """Of each sample and time the state whose number stands in ``places``."""
    columns = []
    for column in places.cpu().unbind(1):
        numbers = column.unique().tolist()
        members = [(column == number).nonzero().flatten() for number in numbers]
        order = torch.cat(members).argsort().to(kept[0].device)
        picked = [kept[number][rows.to(kept[0].device)] for number, rows in zip(numbers, members, strict=True)]
        columns.append(torch.cat(picked)[order])
    return torch.stack(columns, 1)


def _listed(bad: Tensor) -> str:
    """Numbers of samples, the first eight of them."""
    numbers = bad.nonzero().flatten().tolist()
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def _per_sample(name: str, value: Any, batch: int, device: torch.device) -> Tensor:
    """One finite number for each sample, in float64."""
    numbers = torch.as_tensor(value, dtype=torch.float64).detach().to(device)
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != batch):
        raise ValueError(f"{name} must be a number or of shape ({batch},), got shape {tuple(numbers.shape)}")
    if not bool(numbers.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {numbers.tolist()}")
    return numbers.expand(batch)


def _saves(times: Any, start: Tensor, batch: int) -> Tensor:
    """Times for each sample, (batch, n), in float64."""
    saves = torch.as_tensor(times, dtype=torch.float64).detach().to(start.device)
    if saves.ndim not in (1, 2) or saves.shape[-1] == 0 or (saves.ndim == 2 and saves.shape[0] != batch):
        raise ValueError(f"times must have shape (n,) or ({batch}, n), n > 0, got shape {tuple(saves.shape)}")
    saves = saves.expand(batch, -1)
    if not bool(saves.isfinite().all() & (saves.diff(dim=1) > 0).all() & (saves[:, 0] >= start).all()):
        raise ValueError(f"times must be finite and increasing, from start = {start.tolist()} on, got {saves.tolist()}")
    return saves


def _raise(trajectory: Trajectory, arrived: Tensor, max_steps: int) -> None:
    """Raise for samples that did not arrive, the earliest fault first."""
    fault = trajectory.fault
    if bool(fault.any()):
        first = torch.where(fault != 0, trajectory.failed_step, trajectory.failed_step.max() + 1).argmin()
        kind, step, t = int(fault[first]), int(trajectory.failed_step[first]), float(trajectory.failed_time[first])
        same = (fault == kind) & (trajectory.failed_step == step)
        raise FlowError(
            f"the solution {_FAULTS[kind]} in step {step} at t = {t:.6g}, samples {_listed(same)}"
            + (f"; {int((fault != 0).sum())} samples failed in all" if bool((~same & (fault != 0)).any()) else ""),
            trajectory,
        )
    if not bool(arrived.all()):
        raise FlowError(
            f"max_steps = {max_steps} did not suffice, samples {_listed(~arrived)} are under way", trajectory
        )

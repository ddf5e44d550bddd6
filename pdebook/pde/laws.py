"""Conservation laws ∂_t u + Σ_j ∂_j f_j(w) = Σ_j ∂_j g_j(w, ∇w): what a finite-volume method has to know of an equation.

A law has conserved variables u, whose cell means are the state, and primitive variables w, in which it is reconstructed and
in which boundary values are given; both are (batch, channel, *grid). Parameters are numbers, or tensors (batch,) that differ by sample.
Channel 1 + j of a fluid is momentum or velocity along axis j.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "Advection",
    "Burgers",
    "Euler",
    "Fluid",
    "Law",
    "NavierStokes",
    "Scalar",
    "ShallowWater",
    "Traffic",
    "harten_hyman",
]

Number = float | int | Tensor
"""A number, or a tensor (batch,) with one for each sample."""

VISCOSITIES = ("paper", "released")


def _check_number(name: str, value: Any, *, least: float = -math.inf, strict: bool = False) -> None:
    """Raise ValueError unless all values are finite and at least (more than, if strict) ``least``."""
    values = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    if values.ndim > 1:
        raise ValueError(f"{name} must be a number or of shape (batch,), got shape {tuple(values.shape)}")
    low = values > least if strict else values >= least
    if not bool((low & values.isfinite()).all()):
        bound = "" if least == -math.inf else f" and {'more than' if strict else 'at least'} {least:g}"
        raise ValueError(f"{name} must be finite{bound}, got {value}")


def _spread(value: Number, like: Tensor) -> Number:
    """A parameter shaped to broadcast over a channel of ``like``, (batch, *grid)."""
    if not isinstance(value, Tensor):
        return value
    value = value.to(like)
    return value.view(-1, *[1] * (like.ndim - 2)) if value.ndim else value


def _largest(speed: Tensor) -> Tensor:
    """The largest value of each sample."""
    return speed.flatten(1).amax(1)


class Law:
    """What all laws share; the primitive variables are the conserved ones unless a law says otherwise.

    Attributes:
        dims: number of axes of the grid.
        names: names of the conserved variables; one for each channel.
        positive: channels that must be positive in the primitive variables.
    """

    dims: int
    names: tuple[str, ...]
    positive: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.names)

    def odd(self, axis: int) -> tuple[int, ...]:
        """Channels whose sign turns at a wall across this axis."""
        return ()

    def primitive(self, u: Float[Tensor, "batch channel *grid"]) -> Float[Tensor, "batch channel *grid"]:
        """w of u."""
        return u

    def conserved(self, w: Float[Tensor, "batch channel *grid"]) -> Float[Tensor, "batch channel *grid"]:
        """u of w."""
        return w

    def floored(self, w: Tensor) -> Tensor:
        """w, lifted where it is not positive."""
        return w

    def flux(self, w: Float[Tensor, "batch channel *grid"], axis: int) -> Float[Tensor, "batch channel *grid"]:
        """f_axis of w."""
        raise NotImplementedError

    def waves(self, w: Float[Tensor, "batch channel *grid"], axis: int) -> tuple[Tensor, Tensor | None]:
        """v and c, (batch, *grid): the outermost waves along the axis run at v - c and v + c. None for c = 0."""
        raise NotImplementedError

    def rate(self, w: Tensor, spacing: Sequence[float]) -> Float[Tensor, " batch"]:
        """Σ_j max(|v| + c)_j / h_j + Σ_j 2 ν / h_j²: the inverse of the time in which something crosses a cell."""
        total: Any = 0.0
        for axis, h in enumerate(spacing):
            v, c = self.waves(w, axis)
            total = total + _largest(v.abs() if c is None else v.abs() + c) / h
        if self.viscous:
            total = total + self.diffusivity(w) * sum(2.0 / h**2 for h in spacing)
        return total

    @property
    def viscous(self) -> bool:
        """Whether there are viscous fluxes."""
        return False

    def diffusivity(self, w: Tensor) -> Tensor:
        """Largest coefficient ν of a second derivative, (batch,)."""
        raise NotImplementedError

    def viscous_flux(self, w: Tensor, axis: int, spacing: Sequence[float]) -> Tensor:
        """g_axis on the faces across the axis, (batch, channel, ..., n + 1, ...), of w with one ghost cell all around."""
        raise NotImplementedError

    def select(self, rows: slice) -> Self:
        """The law for some of the samples."""
        cut = {
            f.name: _rows(getattr(self, f.name), rows)
            for f in fields(self)  # type: ignore[arg-type]
        }
        return replace(self, **cut)  # type: ignore[type-var]


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, tuple):
        return tuple(_rows(entry, rows) for entry in value)
    return value[rows] if isinstance(value, Tensor) and value.ndim else value


@dataclass(frozen=True)
class Scalar(Law):
    """One conserved variable, u_t + Σ_j ∂_j f_j(u) = ν Δu.

    Args:
        dims: number of axes.
        viscosity: ν, not negative.
    Raises:
        ValueError: a parameter out of its range; the message names it.
    """

    dims: int = 1
    viscosity: Number = 0.0
    names = ("u",)

    def __post_init__(self) -> None:
        if self.dims not in (1, 2, 3):
            raise ValueError(f"dims must be 1, 2 or 3, got {self.dims}")
        _check_number("viscosity", self.viscosity, least=0.0)

    @property
    def viscous(self) -> bool:
        """Whether ν is not zero."""
        return isinstance(self.viscosity, Tensor) or self.viscosity > 0

    def diffusivity(self, w: Tensor) -> Tensor:
        """ν."""
        return torch.as_tensor(self.viscosity).to(w).expand(w.shape[0])

    def viscous_flux(self, w: Tensor, axis: int, spacing: Sequence[float]) -> Tensor:
        """ν ∂u/∂x by the difference across the face."""
        nu = _spread(self.viscosity, w)
        nu = nu.unsqueeze(1) if isinstance(nu, Tensor) and nu.ndim else nu
        return _normal(w, axis).diff(dim=2 + axis) * (nu / spacing[axis])

    def godunov(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Flux of the exact solution of the Riemann problem, on the face."""
        raise NotImplementedError

    def chord(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Speed (f(right) - f(left))/(right - left) of a jump."""
        raise NotImplementedError


def _normal(w: Tensor, axis: int) -> Tensor:
    """w with one ghost cell all around, cut to the inner cells across the other axes."""
    for other in range(w.ndim - 2):
        if other != axis:
            w = w.narrow(2 + other, 1, w.shape[2 + other] - 2)
    return w


@dataclass(frozen=True)
class Advection(Scalar):
    """u_t + Σ_j a_j ∂_j u = ν Δu: profiles move without change, and spread if ν > 0.

    Args:
        dims: number of axes.
        viscosity: ν.
        speed: a for all axes, or (a_1, ..., a_d); numbers or tensors (batch,).
    """

    speed: Number | tuple[Number, ...] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        speeds = self.speed if isinstance(self.speed, tuple) else (self.speed,) * self.dims
        if len(speeds) != self.dims:
            raise ValueError(f"speed must be one or {self.dims}, an entry for each axis, got {len(speeds)}")
        for speed in speeds:
            _check_number("speed", speed)

    def _speed(self, w: Tensor, axis: int) -> Tensor:
        speed = self.speed[axis] if isinstance(self.speed, tuple) else self.speed
        return torch.as_tensor(_spread(speed, w), dtype=w.dtype, device=w.device)

    def flux(self, w: Tensor, axis: int) -> Tensor:
        """a u."""
        return w * _over_channels(self._speed(w, axis))

    def waves(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor | None]:
        """a, and no other."""
        return self._speed(w, axis).expand(w[:, 0].shape), None

    def rate(self, w: Tensor, spacing: Sequence[float]) -> Tensor:
        """As in ``Law``, from the parameters alone."""
        total = sum(self._speed(w, axis).abs().flatten() / h for axis, h in enumerate(spacing))
        if self.viscous:
            total = total + self.diffusivity(w) * sum(2.0 / h**2 for h in spacing)
        return torch.as_tensor(total).expand(w.shape[0])

    def godunov(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The upwind value's flux."""
        a = _over_channels(self._speed(left, axis))
        return left * a.clamp_min(0.0) + right * a.clamp_max(0.0)

    def chord(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """a."""
        return _over_channels(self._speed(left, axis))


def _over_channels(value: Tensor) -> Tensor:
    return value.unsqueeze(1) if value.ndim else value


@dataclass(frozen=True)
class Burgers(Scalar):
    """u_t + Σ_j ∂_j (u²/2) = ν Δu: high values overtake low ones, in shocks or layers of width about ν/jump.

    PDEBench's files with the viscosity "Nu" have ν = Nu/π.
    """

    def flux(self, w: Tensor, axis: int) -> Tensor:
        """u²/2."""
        return w * w * 0.5

    def waves(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor | None]:
        """u."""
        return w[:, 0], None

    def godunov(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """max(f(max(left, 0)), f(min(right, 0)))."""
        high = torch.maximum(left.clamp_min(0.0), -right.clamp_max(0.0))
        return high * high * 0.5

    def chord(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The mean of both sides."""
        return (left + right) * 0.5


@dataclass(frozen=True)
class Traffic(Scalar):
    """u_t + Σ_j ∂_j (v u (1 - u/u_max)) = ν Δu: cars slow down where they are dense, so that jams run backwards.

    Args:
        dims: number of axes.
        viscosity: ν.
        speed: v of an empty road, positive.
        capacity: u_max, at which nothing moves, positive.
    Source: Lighthill and Whitham 1955, Richards 1956.
    """

    speed: Number = 1.0
    capacity: Number = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number("speed", self.speed, least=0.0, strict=True)
        _check_number("capacity", self.capacity, least=0.0, strict=True)

    def _parameters(self, w: Tensor) -> tuple[Number, Number]:
        speed, capacity = (_spread(value, w) for value in (self.speed, self.capacity))
        return tuple(_over_channels(v) if isinstance(v, Tensor) else v for v in (speed, capacity))  # type: ignore[return-value]

    def flux(self, w: Tensor, axis: int) -> Tensor:
        """v u (1 - u/u_max)."""
        speed, capacity = self._parameters(w)
        return speed * w * (1 - w / capacity)

    def waves(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor | None]:
        """v (1 - 2u/u_max)."""
        speed, capacity = self._parameters(w)
        return (speed * (1 - 2 * w / capacity))[:, 0], None

    def godunov(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The smaller of what can come, f(min(left, u_max/2)), and what can go, f(max(right, u_max/2))."""
        top = torch.as_tensor(self._parameters(left)[1]).to(left) / 2
        return torch.minimum(self.flux(torch.minimum(left, top), axis), self.flux(torch.maximum(right, top), axis))

    def chord(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """v (1 - (left + right)/u_max)."""
        speed, capacity = self._parameters(left)
        return speed * (1 - (left + right) / capacity)


def harten_hyman(speed: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """|λ|, raised in a rarefaction that holds λ = 0, which Roe's linearisation would turn into a shock."""
    return torch.maximum(speed.abs(), torch.maximum(speed - left, right - speed))


@dataclass(frozen=True)
class Fluid(Law):
    """What shallow water and gases share: a density (depth), momenta, and scalars q that the flow carries, all conserved.

    Args:
        dims: number of axes.
        scalars: number of passive scalars; conserved is density times q.
    """

    dims: int = 1
    scalars: int = 0

    def __post_init__(self) -> None:
        if self.dims not in (1, 2, 3):
            raise ValueError(f"dims must be 1, 2 or 3, got {self.dims}")
        if self.scalars < 0:
            raise ValueError(f"scalars must not be negative, got {self.scalars}")

    def odd(self, axis: int) -> tuple[int, ...]:
        """The velocity along the axis."""
        return (1 + axis,)

    def contact(self, left: Tensor, right: Tensor, slow: Tensor, fast: Tensor, axis: int) -> Tensor:
        """Speed of the contact between waves of given speeds, as HLLC estimates it."""
        raise NotImplementedError

    def behind(self, w: Tensor, wave: Tensor, contact: Tensor, axis: int) -> Tensor:
        """Flux between a wave that runs into w and the contact; the flux of w itself where the contact moves as w does."""
        raise NotImplementedError

    def roe(self, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """v and c of Roe's mean of both sides."""
        raise NotImplementedError

    def roe_dissipation(self, left: Tensor, right: Tensor, axis: int, fix: bool) -> Tensor:
        """|A| (u_right - u_left) with Roe's matrix A; ``fix``: with Harten and Hyman's entropy fix."""
        raise NotImplementedError


@dataclass(frozen=True)
class ShallowWater(Fluid):
    """∂_t h + ∇·(hv) = 0, ∂_t (hv) + ∇·(hv⊗v) + ∇(g h²/2) = 0, ∂_t (hq) + ∇·(hqv) = 0: waves longer than the water is deep.

    Conserved (h, hv_1, ..., hv_d, hq_1, ...), primitive (h, v_1, ..., v_d, q_1, ...); the bottom is flat.

    Args:
        dims: number of axes, 1 or 2.
        scalars: number of passive scalars.
        gravity: g, positive.
    Raises:
        ValueError: a parameter out of its range; the message names it.
    """

    gravity: Number = 1.0
    positive = (0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dims == 3:
            raise ValueError("dims of shallow water must be 1 or 2, got 3")
        _check_number("gravity", self.gravity, least=0.0, strict=True)

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Conserved variables."""
        return ("mass", *_axes("momentum", self.dims), *(f"scalar_{k}" for k in range(self.scalars)))

    def primitive(self, u: Tensor) -> Tensor:
        """(h, v, q)."""
        return torch.cat([u[:, :1], u[:, 1:] / u[:, :1]], 1)

    def conserved(self, w: Tensor) -> Tensor:
        """(h, hv, hq)."""
        return torch.cat([w[:, :1], w[:, 1:] * w[:, :1]], 1)

    def flux(self, w: Tensor, axis: int) -> Tensor:
        """v_n (h, hv, hq) + (0, g h²/2 n, 0)."""
        depth, v = w[:, 0], w[:, 1 + axis]
        return self._moved(w, depth * v, v, _spread(self.gravity, w) * 0.5 * depth * depth, axis)

    def _moved(self, w: Tensor, mass: Tensor, v: Tensor, pressure: Tensor, axis: int) -> Tensor:
        """The flux of water of this flow of mass, normal velocity and pressure, all else as in w."""
        rows = [mass] + [mass * w[:, k] for k in range(1, self.channels)]
        rows[1 + axis] = torch.addcmul(pressure, mass, v)
        return torch.stack(rows, 1)

    def waves(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor | None]:
        """v_n ∓ sqrt(g h)."""
        return w[:, 1 + axis], (w[:, 0] * _spread(self.gravity, w)).sqrt_()

    def contact(self, left: Tensor, right: Tensor, slow: Tensor, fast: Tensor, axis: int) -> Tensor:
        """Toro 2001, section 10.6."""
        into, out = left[:, 0] * (left[:, 1 + axis] - slow), right[:, 0] * (right[:, 1 + axis] - fast)
        return (slow * out - fast * into) / (out - into)

    def behind(self, w: Tensor, wave: Tensor, contact: Tensor, axis: int) -> Tensor:
        """F + S (U* - U) with h* = h (S - v)/(S - S*)."""
        depth, v = w[:, 0], w[:, 1 + axis]
        inflow = depth * (wave - v)
        # By Rankine and Hugoniot across the wave; where contact = v it is the pressure of w.
        pressure = torch.addcmul(_spread(self.gravity, w) * 0.5 * depth * depth, inflow, contact - v)
        return self._moved(w, inflow / (wave - contact) * contact, contact, pressure, axis)

    def roe(self, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Mean of v with weights sqrt(h), and c of the mean depth."""
        weight = _roe_weight(left, right)
        v = torch.lerp(left[:, 1 + axis], right[:, 1 + axis], weight)
        return v, ((left[:, 0] + right[:, 0]) * (_spread(self.gravity, left) * 0.5)).sqrt()

    def roe_dissipation(self, left: Tensor, right: Tensor, axis: int, fix: bool) -> Tensor:
        """Over the waves v - c, v and v + c."""
        mean = torch.lerp(left, right, _roe_weight(left, right).unsqueeze(1))
        v, c = self.roe(left, right, axis)
        jump, depth = right - left, (left[:, 0] * right[:, 0]).sqrt()
        half = depth / c * jump[:, 1 + axis]
        below, above = 0.5 * (jump[:, 0] - half), 0.5 * (jump[:, 0] + half)
        below, above = _acoustic(self, left, right, axis, v, c, below, above, fix)
        inside = v.abs() * depth
        rows = [below + above]
        rows += [rows[0] * mean[:, k] + inside * jump[:, k] for k in range(1, self.channels)]
        rows[1 + axis] = below * (v - c) + above * (v + c)
        return torch.stack(rows, 1)


def _axes(name: str, dims: int) -> tuple[str, ...]:
    return tuple(f"{name}_{axis}" for axis in "xyz"[:dims])


def _roe_weight(left: Tensor, right: Tensor) -> Tensor:
    """Weight sqrt(ρ_R)/(sqrt(ρ_L) + sqrt(ρ_R)) of the upper side in Roe's mean."""
    root = right[:, 0].sqrt()
    return root / (root + left[:, 0].sqrt())


def _acoustic(
    law: Fluid, left: Tensor, right: Tensor, axis: int, v: Tensor, c: Tensor, below: Tensor, above: Tensor, fix: bool
) -> tuple[Tensor, Tensor]:
    """Strengths of the two outer waves times their |speed|."""
    slow, fast = v - c, v + c
    if not fix:
        return below * slow.abs(), above * fast.abs()
    (v_left, c_left), (v_right, c_right) = law.waves(left, axis), law.waves(right, axis)
    assert c_left is not None
    assert c_right is not None
    return (
        below * harten_hyman(slow, v_left - c_left, v_right - c_right),
        above * harten_hyman(fast, v_left + c_left, v_right + c_right),
    )


@dataclass(frozen=True)
class Euler(Fluid):
    """∂_t ρ + ∇·(ρv) = 0, ∂_t (ρv) + ∇·(ρv⊗v) + ∇p = 0, ∂_t E + ∇·((E + p)v) = 0, E = p/(γ - 1) + ρ|v|²/2: an ideal gas.

    Conserved (ρ, ρv_1, ..., ρv_d, E, ρq_1, ...), primitive (ρ, v_1, ..., v_d, p, q_1, ...).

    Args:
        dims: number of axes.
        scalars: number of passive scalars.
        gamma: ratio of specific heats γ, more than 1.
    Raises:
        ValueError: a parameter out of its range; the message names it.
    """

    gamma: Number = 5 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number("gamma", self.gamma, least=1.0, strict=True)

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Conserved variables."""
        return ("mass", *_axes("momentum", self.dims), "energy", *(f"scalar_{k}" for k in range(self.scalars)))

    @property
    def positive(self) -> tuple[int, ...]:  # type: ignore[override]
        """Density and pressure."""
        return (0, 1 + self.dims)

    def _heat(self, w: Tensor) -> Number:
        """γ - 1."""
        return _spread(self.gamma, w) - 1.0

    def primitive(self, u: Tensor) -> Tensor:
        """(ρ, v, p, q)."""
        d = self.dims
        w = u / u[:, :1]
        kinetic = _dot(u[:, 1 : 1 + d], w[:, 1 : 1 + d])
        pressure = torch.sub(u[:, 1 + d], kinetic, alpha=0.5) * self._heat(u)
        return torch.cat([u[:, :1], w[:, 1 : 1 + d], pressure.unsqueeze(1), w[:, 2 + d :]], 1)

    def conserved(self, w: Tensor) -> Tensor:
        """(ρ, ρv, E, ρq)."""
        d = self.dims
        u = w * w[:, :1]
        energy = w[:, 1 + d] / self._heat(w) + 0.5 * _dot(u[:, 1 : 1 + d], w[:, 1 : 1 + d])
        return torch.cat([w[:, :1], u[:, 1 : 1 + d], energy.unsqueeze(1), u[:, 2 + d :]], 1)

    def floored(self, w: Tensor) -> Tensor:
        """The pressure 1e-4 where it is at most 1e-8, as in PDEBench's data."""
        p = 1 + self.dims
        pressure = w[:, p : p + 1]
        return torch.cat([w[:, :p], torch.where(pressure <= 1e-8, 1e-4, pressure), w[:, p + 1 :]], 1)

    def flux(self, w: Tensor, axis: int) -> Tensor:
        """v_n (ρ, ρv, E + p, ρq) + (0, p n, 0, 0)."""
        return self._moved(w, w[:, 0], w[:, 1 + axis], w[:, 1 + self.dims], self._energy(w), axis)

    def _energy(self, w: Tensor) -> Tensor:
        """E/ρ."""
        velocity = w[:, 1 : 1 + self.dims]
        return torch.add(w[:, 1 + self.dims] / (w[:, 0] * self._heat(w)), _dot(velocity, velocity), alpha=0.5)

    def _moved(self, w: Tensor, density: Tensor, v: Tensor, pressure: Tensor, energy: Tensor, axis: int) -> Tensor:
        """The flux of a gas of this density, normal velocity, pressure and E/ρ, all else as in w."""
        mass = density * v
        rows = [mass] + [mass * w[:, k] for k in range(1, self.channels)]
        rows[1 + axis] = torch.addcmul(pressure, mass, v)
        rows[1 + self.dims] = torch.addcmul(pressure * v, mass, energy)
        return torch.stack(rows, 1)

    def waves(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor | None]:
        """v_n ∓ sqrt(γp/ρ)."""
        return w[:, 1 + axis], self._sound(w)

    def _sound(self, w: Tensor) -> Tensor:
        return (w[:, 1 + self.dims] / w[:, 0]).mul_(_spread(self.gamma, w)).sqrt_()

    def rate(self, w: Tensor, spacing: Sequence[float]) -> Tensor:
        """As in ``Law``, with c found once."""
        c = self._sound(w)
        total: Any = 0.0
        for axis, h in enumerate(spacing):
            total = total + _largest(w[:, 1 + axis].abs().add_(c)) / h
        if self.viscous:
            total = total + self.diffusivity(w) * sum(2.0 / h**2 for h in spacing)
        return total

    def contact(self, left: Tensor, right: Tensor, slow: Tensor, fast: Tensor, axis: int) -> Tensor:
        """Toro 2009, equation 10.37."""
        p, v_left, v_right = 1 + self.dims, left[:, 1 + axis], right[:, 1 + axis]
        into, out = left[:, 0] * (slow - v_left), right[:, 0] * (fast - v_right)
        top = torch.addcmul(right[:, p] - left[:, p], into, v_left).addcmul_(out, v_right, value=-1.0)
        return top / (into - out)

    def behind(self, w: Tensor, wave: Tensor, contact: Tensor, axis: int) -> Tensor:
        """F + S (U* - U) of Toro 2009, equations 10.38 and 10.39, which is the flux of the gas behind the wave."""
        density, v, pressure = w[:, 0], w[:, 1 + axis], w[:, 1 + self.dims]
        ahead = wave - v
        inflow = density * ahead
        push = contact - v
        star_pressure = torch.addcmul(pressure, inflow, push)
        star_energy = self._energy(w) + push * (contact + pressure / inflow)
        return self._moved(w, inflow / (wave - contact), contact, star_pressure, star_energy, axis)

    def roe(self, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Roe's mean velocity and speed of sound."""
        mean, _, c = self._roe_mean(left, right)
        return mean[:, 1 + axis], c

    def _roe_mean(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means with weights sqrt(ρ) of w and of the enthalpy H = (E + p)/ρ, and c² = (γ - 1)(H - |v|²/2)."""
        weight, p = _roe_weight(left, right), 1 + self.dims
        mean = torch.lerp(left, right, weight.unsqueeze(1))
        enthalpy = torch.lerp(
            self._energy(left) + left[:, p] / left[:, 0], self._energy(right) + right[:, p] / right[:, 0], weight
        )
        velocity = mean[:, 1:p]
        return mean, enthalpy, ((enthalpy - 0.5 * _dot(velocity, velocity)) * self._heat(left)).sqrt()

    def roe_dissipation(self, left: Tensor, right: Tensor, axis: int, fix: bool) -> Tensor:
        """Over the waves v - c, v and v + c; Toro 2009, section 11.2."""
        mean, enthalpy, c = self._roe_mean(left, right)
        n, p = 1 + axis, 1 + self.dims
        v, jump = mean[:, n], right - left
        density = (left[:, 0] * right[:, 0]).sqrt()
        push = density * c * jump[:, n]
        below, above = (jump[:, p] - push) / (2 * c * c), (jump[:, p] + push) / (2 * c * c)
        speed = v.abs()
        entropy, shear = (jump[:, 0] - jump[:, p] / (c * c)) * speed, density * speed
        below, above = _acoustic(self, left, right, axis, v, c, below, above, fix)
        mass = below + above + entropy
        rows = [mass] + [torch.addcmul(shear * jump[:, k], mass, mean[:, k]) for k in range(1, self.channels)]
        rows[n] = mass * v + (above - below) * c
        velocity = mean[:, 1:p]
        work = _dot(velocity, jump[:, 1:p]) - v * jump[:, n]
        rows[p] = (
            (below + above) * enthalpy
            + (above - below) * v * c
            + entropy * 0.5 * _dot(velocity, velocity)
            + shear * work
        )
        return torch.stack(rows, 1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Σ_k a_k b_k over the channels."""
    total = a[:, 0] * b[:, 0]
    for k in range(1, a.shape[1]):
        total = torch.addcmul(total, a[:, k], b[:, k])
    return total


@dataclass(frozen=True)
class NavierStokes(Euler):
    """Euler's equations with the stress σ = η (∇v + ∇vᵀ) + (ζ - 2η/3)(∇·v) 1: + ∇·σ in the momentum, + ∇·(σv) in the energy.

    That is η Δv + (ζ + η/3) ∇(∇·v) for constant η and ζ; heat is not conducted. Channels as in ``Euler``.

    Args:
        dims: number of axes.
        scalars: number of passive scalars, which do not diffuse.
        gamma: ratio of specific heats γ.
        shear: η, not negative.
        bulk: ζ, not negative.
        viscosity: "paper": as above. "released": as in PDEBench's files, η and ζ are kinematic (times the density), and of
            the stress only (4η/3 + ζ) ∂_j v_j and η ∂_j v_k act across the faces of axis j.
    Raises:
        ValueError: a parameter out of its range; the message names it.
    """

    shear: Number = 0.0
    bulk: Number = 0.0
    viscosity: str = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number("shear", self.shear, least=0.0)
        _check_number("bulk", self.bulk, least=0.0)
        if self.viscosity not in VISCOSITIES:
            raise ValueError(f"viscosity must be one of {', '.join(VISCOSITIES)}, got {self.viscosity!r}")

    @property
    def viscous(self) -> bool:
        """Whether η or ζ is not zero."""
        return any(isinstance(value, Tensor) or value > 0 for value in (self.shear, self.bulk))

    def diffusivity(self, w: Tensor) -> Tensor:
        """4η/3 + ζ, divided by the smallest density if it is not kinematic."""
        total = torch.as_tensor(4 / 3 * self.shear + self.bulk).to(w).expand(w.shape[0])
        return total if self.viscosity == "released" else total / w[:, 0].flatten(1).amin(1)

    def viscous_flux(self, w: Tensor, axis: int, spacing: Sequence[float]) -> Tensor:
        """(0, σ_j, σ_j·v, 0) on the faces: differences across them, and along them means of central differences."""
        d, place = self.dims, 2 + axis
        shear, bulk = _spread(self.shear, w), _spread(self.bulk, w)
        inner = _normal(w, axis)
        faces = inner.shape[place] - 1
        lower, upper = inner.narrow(place, 0, faces), inner.narrow(place, 1, faces)
        mean, slope = (lower + upper) * 0.5, (upper - lower) / spacing[axis]
        stress = [shear * slope[:, 1 + k] for k in range(d)]
        if self.viscosity == "released":
            stress[axis] = (4 / 3 * shear + bulk) * slope[:, 1 + axis]
            stress = [mean[:, 0] * s for s in stress]
        else:
            divergence = slope[:, 1 + axis]
            for k in range(d):
                if k != axis:
                    along = self._along(w, axis, k, spacing[k])
                    divergence = divergence + along[:, 1]
                    stress[k] = stress[k] + shear * along[:, 0]
            stress[axis] = 2 * stress[axis] + (bulk - 2 / 3 * shear) * divergence
        # The released scheme takes differences of v²/2, which are the mean velocity times the difference.
        work = sum(stress[k] * mean[:, 1 + k] for k in range(d))
        empty = torch.zeros_like(stress[0])
        return torch.stack([empty, *stress, work, *[empty] * self.scalars], 1)

    def _along(self, w: Tensor, axis: int, k: int, h: float) -> Tensor:
        """∂_k of v_axis and v_k on the faces across ``axis``, of w with one ghost cell all around."""
        v = w[:, [1 + axis, 1 + k]]
        for other in range(self.dims):
            if other not in (axis, k):
                v = v.narrow(2 + other, 1, v.shape[2 + other] - 2)
        cells = v.shape[2 + k] - 2
        slope = (v.narrow(2 + k, 2, cells) - v.narrow(2 + k, 0, cells)) / (2 * h)
        faces = slope.shape[2 + axis] - 1
        return (slope.narrow(2 + axis, 0, faces) + slope.narrow(2 + axis, 1, faces)) * 0.5

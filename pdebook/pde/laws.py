"""Conservation laws ∂_t u + Σ_j ∂_j f_j(w) = Σ_j ∂_j g_j(w, ∇w): what a finite-volume method has to know of an equation.

A law has conserved variables u, whose cell means are the state, and primitive variables w, in which it is reconstructed and
in which boundary values are given; both are (batch, channel, *grid). Parameters are numbers, or tensors (batch,) that differ by
sample. Channel 1 + j of a fluid is momentum or velocity along axis j.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Advection", "Burgers", "Law", "Number", "Scalar", "Traffic", "harten_hyman"]

Number = float | int | Tensor
"""A number, or a tensor (batch,) with one for each sample."""


def check_number(name: str, value: Any, *, least: float = -math.inf, strict: bool = False) -> None:
    """Raise ValueError unless all values are finite and at least (more than, if strict) ``least``."""
    if not isinstance(value, (Real, Tensor)):
        raise ValueError(f"{name} must be a number or a tensor of shape (batch,), got {value!r}")
    values = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    if values.ndim > 1:
        raise ValueError(f"{name} must be a number or of shape (batch,), got shape {tuple(values.shape)}")
    low = values > least if strict else values >= least
    if not bool((low & values.isfinite()).all()):
        bound = "" if least == -math.inf else f" and {'more than' if strict else 'at least'} {least:g}"
        raise ValueError(f"{name} must be finite{bound}, got {value}")


def spread(value: Number, like: Tensor) -> Number:
    """A parameter shaped to broadcast over a channel of ``like``, (batch, *grid)."""
    if not isinstance(value, Tensor):
        return value
    value = value.to(like)
    return value.view(-1, *[1] * (like.ndim - 2)) if value.ndim else value


def largest(speed: Tensor) -> Tensor:
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
        """Σ_j max(|v| + c)_j / h_j: the inverse of the time in which a wave crosses a cell."""
        return torch.stack(self.rates(w, spacing)).sum(0)

    def rates(self, w: Tensor, spacing: Sequence[float]) -> list[Tensor]:
        """The terms of ``rate``."""
        terms = []
        for axis, h in enumerate(spacing):
            v, c = self.waves(w, axis)
            terms.append(largest(v.abs() if c is None else v.abs() + c) / h)
        return terms

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

    def select(self, rows: slice) -> "Law":
        """The law for some of the samples."""
        cut = {
            f.name: _rows(getattr(self, f.name), rows)
            for f in fields(self)  # type: ignore[arg-type]
        }
        same = all(new is getattr(self, name) for name, new in cut.items())
        return self if same else replace(self, **cut)  # type: ignore[type-var]


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, tuple) and any(isinstance(entry, Tensor) for entry in value):
        return tuple(_rows(entry, rows) for entry in value)
    return value[rows] if isinstance(value, Tensor) and value.ndim and len(value) > 1 else value


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
        check_number("viscosity", self.viscosity, least=0.0)

    @property
    def viscous(self) -> bool:
        """Whether ν is not zero."""
        return isinstance(self.viscosity, Tensor) or self.viscosity > 0

    def diffusivity(self, w: Tensor) -> Tensor:
        """ν."""
        return torch.as_tensor(self.viscosity).to(w).expand(w.shape[0])

    def viscous_flux(self, w: Tensor, axis: int, spacing: Sequence[float]) -> Tensor:
        """ν ∂u/∂x by the difference across the face."""
        nu = spread(self.viscosity, w)
        nu = nu.unsqueeze(1) if isinstance(nu, Tensor) and nu.ndim else nu
        return normal(w, axis).diff(dim=2 + axis) * (nu / spacing[axis])

    def godunov(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Flux of the exact solution of the Riemann problem, on the face."""
        raise NotImplementedError

    def chord(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Speed (f(right) - f(left))/(right - left) of a jump."""
        raise NotImplementedError


def normal(w: Tensor, axis: int) -> Tensor:
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
            check_number("speed", speed)

    def _speed(self, w: Tensor, axis: int) -> Tensor:
        speed = self.speed[axis] if isinstance(self.speed, tuple) else self.speed
        return torch.as_tensor(spread(speed, w), dtype=w.dtype, device=w.device)

    def flux(self, w: Tensor, axis: int) -> Tensor:
        """a u."""
        return w * _over_channels(self._speed(w, axis))

    def waves(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor | None]:
        """a, and no other."""
        return self._speed(w, axis).expand(w[:, 0].shape), None

    def rates(self, w: Tensor, spacing: Sequence[float]) -> list[Tensor]:
        """As in ``Law``, from the parameters alone."""
        return [(self._speed(w, axis).abs().flatten() / h).expand(w.shape[0]) for axis, h in enumerate(spacing)]

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
        check_number("speed", self.speed, least=0.0, strict=True)
        check_number("capacity", self.capacity, least=0.0, strict=True)

    def _parameters(self, w: Tensor) -> tuple[Number, Number]:
        speed, capacity = (spread(value, w) for value in (self.speed, self.capacity))
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

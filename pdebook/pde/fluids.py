"""Fluids as conservation laws: shallow water, ideal gases without and with viscosity, in 1 to 3 dimensions, with passive scalars."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdebook.pde.laws import Law, Number, check_number, harten_hyman, largest, normal, spread

__all__ = ["Euler", "Fluid", "NavierStokes", "ShallowWater"]

VISCOSITIES = ("paper", "released")


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
        if not isinstance(self.scalars, int) or self.scalars < 0:
            raise ValueError(f"scalars must be a whole number and not negative, got {self.scalars}")

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
        check_number("gravity", self.gravity, least=0.0, strict=True)

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
        return self._moved(w, depth * v, v, spread(self.gravity, w) * 0.5 * depth * depth, axis)

    def _moved(self, w: Tensor, mass: Tensor, v: Tensor, pressure: Tensor, axis: int) -> Tensor:
        """The flux of water of this flow of mass, normal velocity and pressure, all else as in w."""
        push = torch.addcmul(pressure, mass, v)
        rows = [push if k == 1 + axis else mass * w[:, k] for k in range(1, self.channels)]
        return torch.stack([mass, *rows], 1)

    def waves(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor | None]:
        """v_n ∓ sqrt(g h)."""
        return w[:, 1 + axis], (w[:, 0] * spread(self.gravity, w)).sqrt_()

    def contact(self, left: Tensor, right: Tensor, slow: Tensor, fast: Tensor, axis: int) -> Tensor:
        """Toro 2001, section 10.6."""
        into, out = left[:, 0] * (left[:, 1 + axis] - slow), right[:, 0] * (right[:, 1 + axis] - fast)
        return (slow * out - fast * into) / (out - into)

    def behind(self, w: Tensor, wave: Tensor, contact: Tensor, axis: int) -> Tensor:
        """F + S (U* - U) with h* = h (S - v)/(S - S*)."""
        depth, v = w[:, 0], w[:, 1 + axis]
        inflow = depth * (wave - v)
        # By Rankine and Hugoniot across the wave; where contact = v it is the pressure of w.
        pressure = torch.addcmul(spread(self.gravity, w) * 0.5 * depth * depth, inflow, contact - v)
        return self._moved(w, inflow / (wave - contact) * contact, contact, pressure, axis)

    def roe(self, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Mean of v with weights sqrt(h), and c of the mean depth."""
        weight = _roe_weight(left, right)
        v = torch.lerp(left[:, 1 + axis], right[:, 1 + axis], weight)
        return v, ((left[:, 0] + right[:, 0]) * (spread(self.gravity, left) * 0.5)).sqrt()

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
        check_number("gamma", self.gamma, least=1.0, strict=True)

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
        return spread(self.gamma, w) - 1.0

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
        special = {1 + axis: torch.addcmul(pressure, mass, v), 1 + self.dims: torch.addcmul(pressure * v, mass, energy)}
        rows = [special[k] if k in special else mass * w[:, k] for k in range(1, self.channels)]
        return torch.stack([mass, *rows], 1)

    def waves(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor | None]:
        """v_n ∓ sqrt(γp/ρ)."""
        return w[:, 1 + axis], self._sound(w)

    def _sound(self, w: Tensor) -> Tensor:
        return (w[:, 1 + self.dims] / w[:, 0]).mul_(spread(self.gamma, w)).sqrt_()

    def rates(self, w: Tensor, spacing: Sequence[float]) -> list[Tensor]:
        """As in ``Law``, with c found once."""
        c = self._sound(w)
        return [largest(w[:, 1 + axis].abs().add_(c)) / h for axis, h in enumerate(spacing)]

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
        check_number("shear", self.shear, least=0.0)
        check_number("bulk", self.bulk, least=0.0)
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
        shear, bulk = spread(self.shear, w), spread(self.bulk, w)
        inner = normal(w, axis)
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
        work = _dot(torch.stack(stress, 1), mean[:, 1 : 1 + d])
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

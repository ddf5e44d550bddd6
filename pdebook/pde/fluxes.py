"""Numerical fluxes: one flux at a face from the primitive states on its two sides.

| flux | what it resolves |
|---|---|
| ``Godunov`` | exact; scalar laws |
| ``Rusanov`` | one wave speed: robust, smears everything |
| ``HLL`` | the two outer waves; contacts and shear smear |
| ``HLLC`` | and the contact, which stands still exactly |
| ``Roe`` | all waves of a linearised problem |

Any callable flux(law, left, right, axis) is one, with left and right (batch, channel, *faces).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdebook.pde.fluids import Fluid
from pdebook.pde.laws import Law, Scalar, harten_hyman

__all__ = ["FLUXES", "HLL", "HLLC", "SPEEDS", "Flux", "Godunov", "Roe", "Rusanov", "davis", "einfeldt"]

Flux = Callable[[Law, Tensor, Tensor, int], Tensor]


def davis(law: Law, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """min(v_L, v_R) - max(c_L, c_R) and max(v_L, v_R) + max(c_L, c_R), as in PDEBench's data."""
    (v_left, c_left), (v_right, c_right) = law.waves(left, axis), law.waves(right, axis)
    slow, fast = torch.minimum(v_left, v_right), torch.maximum(v_left, v_right)
    if c_left is None or c_right is None:
        return slow, fast
    c = torch.maximum(c_left, c_right)
    return slow - c, fast + c


def einfeldt(law: Law, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """min(v_L - c_L, v - c) and max(v_R + c_R, v + c) with Roe's mean v and c: tighter. Source: Einfeldt 1988."""
    (v_left, c_left), (v_right, c_right) = law.waves(left, axis), law.waves(right, axis)
    if not isinstance(law, Fluid) or c_left is None or c_right is None:
        return torch.minimum(v_left, v_right), torch.maximum(v_left, v_right)
    v, c = law.roe(left, right, axis)
    return torch.minimum(v_left - c_left, v - c), torch.maximum(v_right + c_right, v + c)


SPEEDS: dict[str, Callable[[Law, Tensor, Tensor, int], tuple[Tensor, Tensor]]] = {"davis": davis, "einfeldt": einfeldt}
"""Estimates of the outer wave speeds, by name."""


def _check_speeds(name: str) -> None:
    if name not in SPEEDS:
        raise ValueError(f"speeds must be one of {', '.join(SPEEDS)}, got {name!r}")


@dataclass(frozen=True)
class Godunov:
    """f at the face of the Riemann problem's exact solution: upwind for advection. Scalar laws only.

    Raises:
        ValueError: when called with another law.
    """

    def __call__(self, law: Law, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The flux."""
        if not isinstance(law, Scalar):
            raise ValueError(f"flux must be for systems: Godunov's is for scalar laws, not for {type(law).__name__}")
        return law.godunov(left, right, axis)


@dataclass(frozen=True)
class Rusanov:
    """(f_L + f_R)/2 - s (u_R - u_L)/2, s the largest |speed| on both sides."""

    def __call__(self, law: Law, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The flux."""
        speeds = [v.abs() if c is None else v.abs() + c for v, c in (law.waves(left, axis), law.waves(right, axis))]
        largest = torch.maximum(*speeds).unsqueeze(1)
        mean = law.flux(left, axis) + law.flux(right, axis)
        return torch.addcmul(mean, largest, law.conserved(right) - law.conserved(left), value=-1.0) * 0.5


@dataclass(frozen=True)
class HLL:
    """(S_R f_L - S_L f_R + S_L S_R (u_R - u_L))/(S_R - S_L) with S_L <= 0 <= S_R, the outer wave speeds cut at zero.

    Args:
        speeds: their estimate; see ``SPEEDS``.
    Source: Harten, Lax and van Leer 1983.
    """

    speeds: str = "davis"

    def __post_init__(self) -> None:
        _check_speeds(self.speeds)

    def __call__(self, law: Law, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The flux."""
        slow, fast = SPEEDS[self.speeds](law, left, right, axis)
        slow, fast = slow.clamp_max(0.0).unsqueeze(1), fast.clamp_min(0.0).unsqueeze(1)
        # Both vanish where nothing moves; then the two fluxes are the same, and any weight will do.
        width = (fast - slow).clamp_min(torch.finfo(left.dtype).tiny)
        f_left, f_right = law.flux(left, axis), law.flux(right, axis)
        weight = fast / width
        jump = law.conserved(right) - law.conserved(left)
        return torch.lerp(f_right, f_left, weight) + (slow * weight) * jump


@dataclass(frozen=True)
class HLLC:
    """HLL with the contact restored, at which the flux is taken on the side that faces the axis t. For fluids.

    Args:
        speeds: estimate of the outer wave speeds; see ``SPEEDS``.
    Raises:
        ValueError: when called with a scalar law.
    Source: Toro, Spruce and Speares 1994.
    """

    speeds: str = "davis"

    def __post_init__(self) -> None:
        _check_speeds(self.speeds)

    def __call__(self, law: Law, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The flux."""
        if not isinstance(law, Fluid):
            raise ValueError(f"flux must be for scalar laws: HLLC is for fluids, not for {type(law).__name__}")
        slow, fast = SPEEDS[self.speeds](law, left, right, axis)
        contact = law.contact(left, right, slow, fast, axis)
        # Only the side that the face is in is worked out. Where even its outer wave runs away from the face, the contact is taken
        # to move as the gas does, so that nothing lies behind the wave.
        lower = contact >= 0
        w = torch.where(lower.unsqueeze(1), left, right)
        wave = torch.where(lower, slow, fast)
        contact = torch.where((wave >= 0) == lower, w[:, 1 + axis], contact)
        return law.behind(w, wave, contact, axis)


@dataclass(frozen=True)
class Roe:
    """(f_L + f_R)/2 - |A| (u_R - u_L)/2 with A the Jacobian at Roe's mean.

    For Burgers' equation without the entropy fix that is the flux of PDEBench's data.

    Args:
        entropy_fix: Harten and Hyman's, without which a rarefaction through the sonic point is a shock.
    Source: Roe 1981; Harten and Hyman 1983.
    """

    entropy_fix: bool = True

    def __call__(self, law: Law, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The flux."""
        mean = (law.flux(left, axis) + law.flux(right, axis)) * 0.5
        if isinstance(law, Fluid):
            return mean - 0.5 * law.roe_dissipation(left, right, axis, self.entropy_fix)
        if not isinstance(law, Scalar):
            raise ValueError(f"flux must not be Roe's for {type(law).__name__}, whose mean it does not know")
        speed = law.chord(left, right, axis)
        if self.entropy_fix:
            below, above = (law.waves(side, axis)[0].unsqueeze(1) for side in (left, right))
            return mean - 0.5 * harten_hyman(speed, below, above) * (right - left)
        return mean - 0.5 * speed.abs() * (right - left)


FLUXES: dict[str, Flux] = {"godunov": Godunov(), "rusanov": Rusanov(), "hll": HLL(), "hllc": HLLC(), "roe": Roe()}
"""The fluxes by name, with their defaults."""

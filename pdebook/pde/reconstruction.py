"""From cell means to the two values at each face: constant, limited linear (MUSCL) and fifth-order weighted (WENO5-Z).

A reconstruction takes a field with ``ghosts`` ghost cells on both sides of one axis and gives the values on the lower and the upper
side of the n + 1 faces, each (batch, channel, ..., n + 1, ...). Any callable with the attributes of ``Reconstruction`` is one, a
network too.

A limiter φ(a, b) makes one slope of the differences a = u_i - u_{i-1} and b = u_{i+1} - u_i: zero where they differ in sign, odd,
symmetric, exact for lines. All of ``LIMITERS`` but "central" keep the face values of a cell between its mean and its
neighbours' (|φ| <= 2 min(|a|, |b|)), so a positive field keeps positive face values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "LIMITERS",
    "Constant",
    "Limiter",
    "Muscl",
    "Reconstruction",
    "Weno5Z",
    "central",
    "generalised_minmod",
    "mc",
    "minmod",
    "superbee",
    "van_albada",
    "van_leer",
]

Limiter = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class Reconstruction(Protocol):
    """What a finite-volume method asks of a reconstruction."""

    @property
    def ghosts(self) -> int:
        """Ghost cells on a side."""

    @property
    def bounded(self) -> bool:
        """Whether face values stay between the means of neighbouring cells, so that positive fields stay positive."""

    def __call__(self, u: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Values on the lower and the upper side of the faces along this axis of the tensor."""


def _central(a: Tensor, b: Tensor, theta: float) -> Tensor:
    """(a + b)/2 cut to the range from 0 to θ times the smaller of a and b; 0 where they differ in sign."""
    # In place on what is made here: the fields are large, and the cache is not.
    low, high = torch.maximum(a, b).clamp_max_(0.0), torch.minimum(a, b).clamp_min_(0.0)
    return torch.clamp((a + b).mul_(0.5 / theta), low, high).mul_(theta)


def minmod(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The smaller of a and b in magnitude, 0 where they differ in sign."""
    return torch.maximum(a, b).clamp_max_(0.0).add_(torch.minimum(a, b).clamp_min_(0.0))


def mc(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Monotonised central: (a + b)/2, at most 2|a| and 2|b|; 0 where a and b differ in sign. Source: van Leer 1977."""
    return _central(a, b, 2.0)


def generalised_minmod(theta: float | int) -> Limiter:
    """The family minmod(θa, (a + b)/2, θb), from minmod at θ = 1 to monotonised central at θ = 2.

    Raises:
        ValueError: θ outside [1, 2].
    """
    if not 1 <= theta <= 2:
        raise ValueError(f"theta must be from 1 to 2, got {theta}")

    def limiter(a: Tensor, b: Tensor) -> Tensor:
        return _central(a, b, float(theta))

    return limiter


def superbee(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The larger of minmod(2a, b) and minmod(a, 2b): steepens what it can. Source: Roe 1985."""
    # Of same-sign a and b that is min(2 min, max) in magnitude.
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return torch.minimum(2 * low.clamp_min(0.0), high.clamp_min(0.0)) + torch.maximum(
        2 * high.clamp_max(0.0), low.clamp_max(0.0)
    )


def van_leer(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The harmonic mean 2ab/(a + b), 0 where a and b differ in sign. Source: van Leer 1974."""
    product = (a * b).clamp_min(0.0)
    positive = product > 0
    return torch.where(positive, 2 * product / torch.where(positive, a + b, 1.0), 0.0)


def van_albada(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """ab(a + b)/(a² + b²), 0 where a and b differ in sign: smooth where they agree. Source: van Albada et al. 1982."""
    product = (a * b).clamp_min(0.0)
    positive = product > 0
    return torch.where(positive, product * (a + b) / torch.where(positive, a * a + b * b, 1.0), 0.0)


def central(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(a + b)/2 without a limit: second order, and rings at jumps."""
    return (a + b) * 0.5


LIMITERS: dict[str, Limiter] = {
    "minmod": minmod,
    "mc": mc,
    "van-leer": van_leer,
    "van-albada": van_albada,
    "superbee": superbee,
    "central": central,
}
"""The limiters by name."""


@dataclass(frozen=True)
class Constant:
    """The cell means themselves: first order."""

    ghosts = 1
    bounded = True

    def __call__(self, u: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Values on the lower and the upper side of the faces."""
        faces = u.shape[axis] - 1
        return u.narrow(axis, 0, faces), u.narrow(axis, 1, faces)


@dataclass(frozen=True)
class Muscl:
    """u_i ± φ(a, b)/2 at the upper and the lower face of cell i: second order, monotone. Source: van Leer 1979.

    Args:
        limiter: φ, or its name in ``LIMITERS``.
    Raises:
        ValueError: a name that is not there.
    """

    limiter: Limiter | str = "mc"
    ghosts = 2

    def __post_init__(self) -> None:
        if isinstance(self.limiter, str) and self.limiter not in LIMITERS:
            raise ValueError(f"limiter must be a function or one of {', '.join(LIMITERS)}, got {self.limiter!r}")

    @property
    def bounded(self) -> bool:
        """Whether face values stay between the means of neighbouring cells."""
        return isinstance(self.limiter, str) and self.limiter != "central"

    def __call__(self, u: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Values on the lower and the upper side of the faces."""
        limiter = LIMITERS[self.limiter] if isinstance(self.limiter, str) else self.limiter
        differences = u.diff(dim=axis)
        cells = differences.shape[axis] - 1
        slope = limiter(differences.narrow(axis, 0, cells), differences.narrow(axis, 1, cells))
        inner, faces = u.narrow(axis, 1, cells), cells - 1
        return (
            torch.add(inner.narrow(axis, 0, faces), slope.narrow(axis, 0, faces), alpha=0.5),
            torch.sub(inner.narrow(axis, 1, faces), slope.narrow(axis, 1, faces), alpha=0.5),
        )


@dataclass(frozen=True)
class Weno5Z:
    """Fifth order where the field is smooth: three parabolas, weighted by how smooth each is.

    With Jiang and Shu's indicators β_k and τ = |β_0 - β_2|, the weights are d_k (1 + (τ/(β_k + ετ))²), normalised,
    d = (1/10, 6/10, 3/10); ε, the rounding unit, keeps them finite where β_k vanishes. Face values may leave the range of their
    neighbours.

    Source: Borges, Carmona, Costa and Don 2008.
    """

    ghosts = 3
    bounded = False

    def __call__(self, u: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Values on the lower and the upper side of the faces."""
        faces = u.shape[axis] - 5
        v = [u.narrow(axis, k, faces) for k in range(6)]
        return _weno(*v[:5]), _weno(*v[:0:-1])


def _weno(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:
    """The value between c and d of the cell means a ... e."""
    ab, cb, dc, ed = b - a, c - b, d - c, e - d
    # Second differences, and first ones at c of the three parabolas, from differences: no cancellation of large means.
    smooth = [
        13 / 12 * (cb - ab).square() + 0.25 * (3 * cb - ab).square(),
        13 / 12 * (dc - cb).square() + 0.25 * (cb + dc).square(),
        13 / 12 * (ed - dc).square() + 0.25 * (3 * dc - ed).square(),
    ]
    spread = (smooth[0] - smooth[2]).abs()
    values = [(5 * cb - 2 * ab) / 6, (2 * dc + cb) / 6, (4 * dc - ed) / 6]
    info = torch.finfo(a.dtype)
    floor = spread * info.eps + info.tiny
    weights = [w * (1 + (spread / (s + floor)).square()) for w, s in zip((0.1, 0.6, 0.3), smooth, strict=True)]
    total = weights[0] + weights[1] + weights[2]
    return c + (weights[0] * values[0] + weights[1] * values[1] + weights[2] * values[2]) / total

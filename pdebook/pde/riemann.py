"""Exact solutions of Riemann problems: two constant states, one wave fan. For gases of any γ, and for shallow water.

States are w = (ρ, v, p) or (h, v), shape (batch, channel), as ``laws`` orders them; the solution depends on s = x/t alone. Vacuum
and dry ground, given or left behind by the flow, are states with ρ = p = 0 or h = 0; between the waves that leave it behind, v is
set to s, which joins their ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["SOD", "Shocktube", "euler", "euler_star", "shallow_water", "shallow_water_star"]

State = tuple[Tensor, ...]

_ITERATIONS = 40


@dataclass(frozen=True)
class Shocktube:
    """A Riemann problem for a gas, as in a file of test cases.

    Attributes:
        left: (ρ, v, p) below the jump.
        right: and above.
        position: place of the jump as a fraction of the box.
        end: time of comparison.
    """

    left: tuple[float, float, float]
    right: tuple[float, float, float]
    position: float
    end: float


SOD: dict[int, Shocktube] = {
    1: Shocktube((1.0, 0.75, 1.0), (0.125, 0.0, 0.1), 0.3, 0.4),
    2: Shocktube((1.0, -2.0, 0.4), (1.0, 2.0, 0.4), 0.5, 0.15),
    3: Shocktube((1.0, 0.0, 1000.0), (1.0, 0.0, 0.01), 0.5, 0.012),
    4: Shocktube((5.99924, 19.5975, 460.894), (5.99242, -6.19633, 46.095), 0.4, 0.035),
    5: Shocktube((1.0, -19.59745, 1000.0), (1.0, -19.59745, 0.01), 0.8, 0.012),
    6: Shocktube((1.4, 0.0, 1.0), (1.0, 0.0, 1.0), 0.5, 2.0),
    7: Shocktube((1.4, 0.1, 1.0), (1.0, 0.1, 1.0), 0.5, 2.0),
}
"""PDEBench's seven shock tubes (γ = 5/3), after Toro 2009, table 10.1: a transonic rarefaction, near vacuum, a strong shock, two
colliding shocks, a slow contact, and contacts that stand and drift."""


def _checked(name: str, state: Any, channels: int, positive: tuple[int, ...]) -> Tensor:
    w = torch.as_tensor(state)
    w = (w if w.is_floating_point() else w.double()).reshape(-1, w.shape[-1] if w.ndim else 1)
    if w.shape[1] != channels:
        raise ValueError(f"{name} must have {channels} numbers, got {w.shape[1]}")
    if not bool(w.detach().isfinite().all()) or bool((w.detach()[:, list(positive)] < 0).any()):
        raise ValueError(f"{name} must be finite, and its channels {list(positive)} not negative, got {state}")
    return w


def _check_rows(**values: Tensor) -> None:
    batch = max(len(value) for value in values.values())
    if any(len(value) not in (1, batch) for value in values.values()):
        raise ValueError(
            f"{', '.join(values)} must have one row or the same number, got {[*map(len, values.values())]}"
        )


def _root(f: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, start: Tensor) -> Tensor:
    """The root of a concave increasing function: Newton's method rises to it from any point below.

    ``start`` serves where f(low) is not negative; there is the root when all waves are rarefactions.
    """
    x = torch.where(f(low)[0] < 0, low, start)
    for _ in range(_ITERATIONS):
        value, slope = f(x)
        x = torch.maximum(x - value / slope, 0.1 * x)
    return x


def _fan(lower: State, upper: State, v_lower: Tensor, v_upper: Tensor, s: Tensor) -> Tensor:
    """The half-solutions on the two sides of the contact, and nothing between the speeds of two contacts."""
    empty = [torch.zeros_like(s) for _ in lower]
    empty[1] = s
    rows = [
        torch.where(s <= v_lower, a, torch.where(s >= v_upper, b, e))
        for a, b, e in zip(lower, upper, empty, strict=True)
    ]
    return torch.stack(rows, 1)


class _Gas:
    """The functions of one side of the contact; channels are (batch, 1)."""

    def __init__(self, w: Tensor, gamma: Tensor) -> None:
        self.density, self.v, self.pressure = (w[:, k : k + 1] for k in range(3))
        self.gamma, self.full = gamma, (self.density > 0) & (self.pressure > 0)
        self.p = torch.where(self.full, self.pressure, 1.0)
        self.rho = torch.where(self.full, self.density, 1.0)
        self.c = torch.where(self.full, (gamma * self.p / self.rho).sqrt(), 0.0)
        self.power = (gamma - 1) / (2 * gamma)
        self.ratio = (gamma - 1) / (gamma + 1)

    def escape(self) -> Tensor:
        """How much faster than v the gas runs into a vacuum."""
        return 2 * self.c / (self.gamma - 1)

    def change(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity that is lost on the way to the pressure p, and its derivative."""
        a, b = 2 / ((self.gamma + 1) * self.rho), self.ratio * self.p
        root = (a / (p + b)).sqrt()
        shock = (p - self.p) * root, root * (1 - (p - self.p) / (2 * (p + b)))
        quotient = p / self.p
        rarefaction = (
            self.escape() * (quotient**self.power - 1),
            quotient ** (self.power - 1) * self.c / (self.gamma * self.p),
        )
        return tuple(torch.where(p > self.p, x, y) for x, y in zip(shock, rarefaction, strict=True))  # type: ignore[return-value]

    def at(self, p: Tensor, v: Tensor, s: Tensor, sign: float) -> State:
        """The solution on this side, with pressure p and velocity v at the contact; sign -1 mirrors the upper side."""
        own, v, s = sign * self.v, sign * v, sign * s
        gamma, quotient = self.gamma, p / self.p
        shock = own - self.c * ((gamma + 1) / (2 * gamma) * quotient + self.power).sqrt()
        tail = v - self.c * quotient**self.power
        inside = ((2 * self.c + (gamma - 1) * (own - s)) / (gamma + 1)).clamp_min(0.0)
        thinner = inside / torch.where(self.full, self.c, 1.0)
        compressed = p > self.p
        edge = torch.where(compressed, shock, own - self.c)
        still, behind = s <= edge, compressed | (s >= tail)
        density = torch.where(
            compressed, (quotient + self.ratio) / (self.ratio * quotient + 1), quotient ** (1 / gamma)
        )
        parts = (
            (self.density, self.rho * density, self.rho * thinner ** (2 / (gamma - 1))),
            (own, v, s + inside),
            (self.pressure, p, self.p * thinner ** (1 / self.power)),
        )
        rows = [torch.where(still, a, torch.where(behind, b, c)) for a, b, c in parts]
        return rows[0], sign * rows[1], rows[2]


class _Water:
    """The same for shallow water; the depth takes the place of the pressure."""

    def __init__(self, w: Tensor, gravity: Tensor) -> None:
        self.depth, self.v = w[:, :1], w[:, 1:2]
        self.gravity, self.full = gravity, self.depth > 0
        self.h = torch.where(self.full, self.depth, 1.0)
        self.c = torch.where(self.full, (gravity * self.h).sqrt(), 0.0)

    def escape(self) -> Tensor:
        return 2 * self.c

    def change(self, h: Tensor) -> tuple[Tensor, Tensor]:
        g, root = self.gravity, (self.gravity * (h + self.h) / (2 * h * self.h)).sqrt()
        shock = (h - self.h) * root, root - g * (h - self.h) / (4 * h * h * root)
        c = (g * h).sqrt()
        rarefaction = 2 * (c - self.c), g / c
        return tuple(torch.where(h > self.h, x, y) for x, y in zip(shock, rarefaction, strict=True))  # type: ignore[return-value]

    def at(self, h: Tensor, v: Tensor, s: Tensor, sign: float) -> State:
        own, v, s = sign * self.v, sign * v, sign * s
        shock = own - self.c * ((h + self.h) * h / 2).sqrt() / self.h
        tail = v - (self.gravity * h).sqrt()
        inside = ((2 * self.c + own - s) / 3).clamp_min(0.0)
        compressed = h > self.h
        still, behind = s <= torch.where(compressed, shock, own - self.c), compressed | (s >= tail)
        parts = ((self.depth, h, inside * inside / self.gravity), (own, v, s + inside))
        rows = [torch.where(still, a, torch.where(behind, b, c)) for a, b, c in parts]
        return rows[0], sign * rows[1]


def _star(lower: Any, upper: Any, low: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pressure (depth) and velocity at the contact; two velocities, those of the ends of the vacuum, if there is one."""
    gap = upper.v - lower.v

    def mismatch(p: Tensor) -> tuple[Tensor, Tensor]:
        (f, df), (g, dg) = lower.change(p), upper.change(p)
        return f + g + gap, df + dg

    vacuum = ~(lower.full & upper.full) | (lower.escape() + upper.escape() <= gap)
    # Where there is a vacuum no root exists; any state keeps the arithmetic finite.
    p = _root(mismatch, low, torch.where(vacuum, low, start))
    v = 0.5 * (lower.v + upper.v + upper.change(p)[0] - lower.change(p)[0])
    # The gas's ends; an empty side, which has none, ends no later than the other begins.
    first, last = lower.v + lower.escape(), upper.v - upper.escape()
    first, last = (
        torch.where(lower.full, first, torch.minimum(first, last)),
        torch.where(upper.full, last, torch.maximum(first, last)),
    )
    return torch.where(vacuum, 0.0, p), torch.where(vacuum, first, v), torch.where(vacuum, last, v)


def _gas(left: Any, right: Any, gamma: float | int | Tensor) -> tuple[_Gas, _Gas, tuple[Tensor, Tensor, Tensor]]:
    w_left, w_right = _checked("left", left, 3, (0, 2)), _checked("right", right, 3, (0, 2))
    exponent = torch.as_tensor(gamma, dtype=w_left.dtype, device=w_left.device).reshape(-1, 1)
    _check_rows(left=w_left, right=w_right, gamma=exponent)
    if not bool((exponent.detach() > 1).all()):
        raise ValueError(f"gamma must be more than 1, got {gamma}")
    lower, upper = _Gas(w_left, exponent), _Gas(w_right, exponent)
    z = lower.power
    top = lower.c + upper.c - (exponent - 1) / 2 * (upper.v - lower.v)
    # The pressure between two rarefactions.
    bottom = torch.where(lower.full, lower.c / lower.p**z, 0.0) + torch.where(upper.full, upper.c / upper.p**z, 0.0)
    start = (top.clamp_min(torch.finfo(top.dtype).tiny) / torch.where(bottom > 0, bottom, 1.0)) ** (1 / z)
    return lower, upper, _star(lower, upper, torch.minimum(lower.p, upper.p), start)


def euler_star(left: Any, right: Any, gamma: float | int | Tensor = 5 / 3) -> tuple[Tensor, Tensor]:
    """Pressure and velocity (batch,) at the contact of a gas; zero and the lower end's speed if a vacuum opens.

    Args:
        left: (ρ, v, p) below the jump, (3,) or (batch, 3).
        right: and above.
        gamma: ratio of specific heats, a number or (batch,).
    Raises:
        ValueError: a state of another size, not finite, or with negative density or pressure; γ not above 1.
    """
    p, v, _ = _gas(left, right, gamma)[2]
    return p[:, 0], v[:, 0]


def euler(
    left: Any, right: Any, s: Float[Tensor, "..."], gamma: float | int | Tensor = 5 / 3
) -> Float[Tensor, "batch 3 points"]:
    """(ρ, v, p) of a gas at s = x/t.

    Args:
        left: (ρ, v, p) below the jump, (3,) or (batch, 3).
        right: and above.
        s: (points,), or (batch, points).
        gamma: ratio of specific heats, a number or (batch,).
    Raises:
        ValueError: as ``euler_star``.
    Source: Toro 2009, chapter 4.
    """
    lower, upper, (p, v_lower, v_upper) = _gas(left, right, gamma)
    s = _points(s, p)
    return _fan(lower.at(p, v_lower, s, 1.0), upper.at(p, v_upper, s, -1.0), v_lower, v_upper, s)


def _water(
    left: Any, right: Any, gravity: float | int | Tensor
) -> tuple[_Water, _Water, tuple[Tensor, Tensor, Tensor]]:
    w_left, w_right = _checked("left", left, 2, (0,)), _checked("right", right, 2, (0,))
    g = torch.as_tensor(gravity, dtype=w_left.dtype, device=w_left.device).reshape(-1, 1)
    _check_rows(left=w_left, right=w_right, gravity=g)
    if not bool((g.detach() > 0).all()):
        raise ValueError(f"gravity must be positive, got {gravity}")
    lower, upper = _Water(w_left, g), _Water(w_right, g)
    start = (0.5 * (lower.c + upper.c) - 0.25 * (upper.v - lower.v)).clamp_min(
        torch.finfo(g.dtype).tiny ** 0.5
    ) ** 2 / g
    return lower, upper, _star(lower, upper, torch.minimum(lower.h, upper.h), start)


def shallow_water_star(left: Any, right: Any, gravity: float | int | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """Depth and velocity (batch,) between the two waves; zero and the lower end's speed if the ground falls dry.

    Args:
        left: (h, v) below the jump, (2,) or (batch, 2).
        right: and above.
        gravity: g, a number or (batch,).
    Raises:
        ValueError: a state of another size, not finite, or with negative depth; g not positive.
    """
    h, v, _ = _water(left, right, gravity)[2]
    return h[:, 0], v[:, 0]


def shallow_water(
    left: Any, right: Any, s: Float[Tensor, "..."], gravity: float | int | Tensor = 1.0
) -> Float[Tensor, "batch 2 points"]:
    """(h, v) of shallow water at s = x/t.

    Args:
        left: (h, v) below the jump, (2,) or (batch, 2).
        right: and above.
        s: (points,), or (batch, points).
        gravity: g, a number or (batch,).
    Raises:
        ValueError: as ``shallow_water_star``.
    Source: Toro 2001, chapters 5 and 6.
    """
    lower, upper, (h, v_lower, v_upper) = _water(left, right, gravity)
    s = _points(s, h)
    return _fan(lower.at(h, v_lower, s, 1.0), upper.at(h, v_upper, s, -1.0), v_lower, v_upper, s)


def _points(s: Tensor, like: Tensor) -> Tensor:
    if s.ndim not in (1, 2) or (s.ndim == 2 and len(s) not in (1, len(like))):
        raise ValueError(f"s must have shape (points,) or ({len(like)}, points), got {tuple(s.shape)}")
    s = s.to(like)
    return (s[None] if s.ndim == 1 else s).expand(like.shape[0], -1)

"""Methods for stochastic differential equations dy = f dt + g dW, in Ito's or Stratonovich's sense.

Increments of the Brownian motion are functions of a seed (``brownian``), so a rejected step is repeated on the same path.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pdebook.diffeq.runge_kutta import Carry, Step, step_size
from pdebook.diffeq.terms import SDE, Bound, Noise


def increments(bound: Bound, t0: Tensor, t1: Tensor) -> Tensor | None:
    """ΔW of a step, (batch, noise), or None for an ordinary equation."""
    return path(bound, t0, t1)[0] if isinstance(bound.term, SDE) else None


def path(bound: Bound, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor | None]:
    """ΔW and the space-time Lévy area H of a step, each (batch, noise); H is None where the path has none.

    Raises:
        ValueError: a path whose shape does not go with the noise.
    """
    term, layout = bound.term, bound.layout
    piece = term.brownian.increment(t0, t1)
    w = piece.w.flatten(1).to(layout.dtype)
    size = sum(layout.sizes)
    wanted = {"diagonal": size, "scalar": 1}.get(term.noise)
    if len(w) != layout.batch or (wanted is not None and w.shape[1] != wanted):
        shape = (layout.batch, "noise" if wanted is None else wanted)
        raise ValueError(f"brownian must give increments of shape {shape} for {term.noise} noise, got {tuple(w.shape)}")
    return w, None if piece.area is None else piece.area.flatten(1).to(layout.dtype)


def linear(step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor) -> Tensor:
    """The straight line between both ends of a step; exactly its ends there."""
    length = (t1 - t0)[rows]
    theta = torch.where(
        length == 0, torch.ones_like(length), (times - t0[rows]) / torch.where(length == 0, 1.0, length)
    )
    u = theta.to(y0.dtype)[:, None]
    return torch.where(u == 1.0, step.y[rows], y0[rows] + u * (step.y[rows] - y0[rows]))


@dataclass(frozen=True)
class Stochastic:
    """What the methods of this module share.

    Attributes:
        name: the method's name.
        order: strong order.
        calculus: whose integral it converges to.
        noises: kinds of noise that it is for.
        levy: whether it needs space-time Lévy areas.
        adaptive: whether it has an error estimate.
    """

    name: str = ""
    order: float | int = 0.5
    calculus: Literal["ito", "stratonovich"] = "ito"
    noises: tuple[Noise, ...] = ("diagonal", "scalar", "additive", "general")
    levy: bool = False
    adaptive: bool = False

    @property
    def error_order(self) -> float | int:
        """Power of h in the error estimate: strong order and a half."""
        return self.order + 0.5

    def check(self, term: Any) -> None:
        """Raise ValueError for an ordinary equation, the other calculus, or noise that the method is not for."""
        if not isinstance(term, SDE):
            raise ValueError(f"solver {self.name} is for stochastic equations; the term must be an SDE")
        if term.noise not in self.noises:
            raise ValueError(f"solver {self.name} is for {' and '.join(self.noises)} noise, got {term.noise}")
        # Without dependence on the state both integrals are one.
        if term.calculus != self.calculus and term.noise != "additive":
            raise ValueError(
                f"solver {self.name} converges to {self.calculus.capitalize()}'s solution, "
                f"the term is meant in {term.calculus.capitalize()}'s sense"
            )

    def start(self, bound: Bound, t: Tensor, y: Tensor) -> Carry:
        """Nothing is carried from step to step."""
        return ()

    def slope(self, bound: Bound, t: Tensor, y: Tensor, carry: Carry) -> Tensor:
        """The drift."""
        return bound.field(t, y)

    def interpolate(self, step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor) -> Tensor:
        """The straight line between the ends of the step; save where steps end for the method's own accuracy."""
        return linear(step, y0, t0, t1, rows, times)

    def area(self, h: Tensor | None) -> Tensor:
        """The space-time Lévy area, which the path must give."""
        if h is None:
            raise ValueError(
                f"brownian must give space-time Lévy areas for {self.name}: BrownianTree(..., space_time=True)"
            )
        return h


def _done(y: Tensor, error: Tensor | None = None) -> Step:
    return Step(y, error, (), y[None])


@dataclass(frozen=True)
class EulerMaruyama(Stochastic):
    """Euler and Maruyama's method, y_1 = y + f h + g ΔW: strong order 1/2 to Ito's solution, 1 for additive noise."""

    name: str = "euler-maruyama"

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step."""
        w, _ = path(bound, t0, t1)
        return _done(y + bound.field(t0, y) * step_size(t0, t1, y) + bound.term.product(bound.diffusion(t0, y), w))


@dataclass(frozen=True)
class Milstein(Stochastic):
    """Milstein's method for diagonal noise, where g_i depends on y_i alone, and for scalar noise.

        y_1 = y + f h + g ΔW + 1/2 (∇g · g) (ΔW² - h)

    Strong order 1 to Ito's solution. The derivative is a Jacobian-vector product.

    Source: Kloeden and Platen 1992, equation 10.3.1.
    """

    name: str = "milstein"
    order: float | int = 1.0
    noises: tuple[Noise, ...] = ("diagonal", "scalar")

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step."""
        w, _ = path(bound, t0, t1)
        h = step_size(t0, t1, y)
        g = bound.diffusion(t0, y)
        along = torch.func.jvp(lambda z: bound.diffusion(t0, z), (y,), (g,))[1]
        return _done(y + bound.field(t0, y) * h + g * w + 0.5 * along * (w**2 - h.abs()))


@dataclass(frozen=True)
class EulerHeun(Stochastic):
    """Euler for the drift, Heun for the noise: y_1 = y + f h + (g(y) + g(y + g ΔW))/2 ΔW.

    Strong order 1/2 to Stratonovich's solution, 1 for commutative noise.
    """

    name: str = "euler-heun"
    calculus: Literal["ito", "stratonovich"] = "stratonovich"

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step."""
        w, _ = path(bound, t0, t1)
        product = bound.term.product
        first = product(bound.diffusion(t0, y), w)
        last = product(bound.diffusion(t1, y + first), w)
        return _done(y + bound.field(t0, y) * step_size(t0, t1, y) + 0.5 * (first + last))


@dataclass(frozen=True)
class StochasticHeun(Stochastic):
    """Heun's method on both: y_1 = y + (F(y) + F(y + F ΔX))/2 ΔX with F ΔX = f h + g ΔW.

    Strong order 1/2 to Stratonovich's solution, 1 for commutative noise; the difference to Euler's step estimates the error.
    """

    name: str = "heun-sde"
    calculus: Literal["ito", "stratonovich"] = "stratonovich"
    adaptive: bool = True

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step."""
        w, _ = path(bound, t0, t1)
        h, product = step_size(t0, t1, y), bound.term.product
        first = bound.field(t0, y) * h + product(bound.diffusion(t0, y), w)
        last = bound.field(t1, y + first) * h + product(bound.diffusion(t1, y + first), w)
        return _done(y + 0.5 * (first + last), 0.5 * (last - first))


@dataclass(frozen=True)
class SRA1(Stochastic):
    """Rößler's method for additive noise, of strong order 3/2.

        y_1 = y + h (f(t, y)/3 + 2 f(t + 3h/4, H_2)/3) + g(t) ΔW + (g(t_1) - g(t)) (ΔW/2 - H),
        H_2 = y + 3/4 h f(t, y) + 3/2 g(t_1) (ΔW/2 + H)

    Source: Rößler 2010, table 6.2; H is the space-time Lévy area, I_10/h = ΔW/2 + H.
    """

    name: str = "sra1"
    order: float | int = 1.5
    noises: tuple[Noise, ...] = ("additive",)
    levy: bool = True

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step."""
        w, area = path(bound, t0, t1)
        h, product, mean = step_size(t0, t1, y), bound.term.product, 0.5 * w + self.area(area)
        before, after = bound.diffusion(t0, y), bound.diffusion(t1, y)
        f = bound.field(t0, y)
        middle = bound.field(t0 + 0.75 * (t1 - t0), y + 0.75 * h * f + 1.5 * product(after, mean))
        noise = product(before, w) + product(after - before, w - mean)
        return _done(y + h * (f + 2.0 * middle) / 3.0 + noise)


_A0 = ((), (1.0,), (0.25, 0.25), ())
_A1 = ((), (0.25,), (1.0, 0.0), (0.0, 0.0, 0.25))
_B0 = ((), (), (1.0, 0.5), ())
_B1 = ((), (-0.5,), (1.0, 0.0), (2.0, -1.0, 0.5))
_C0, _C1 = (0.0, 1.0, 0.5, 0.0), (0.0, 0.25, 1.0, 0.25)
_ALPHA = (1 / 6, 1 / 6, 2 / 3, 0.0)
_BETA = (
    (-1.0, 4 / 3, 2 / 3, 0.0),
    (1.0, -4 / 3, 1 / 3, 0.0),
    (2.0, -4 / 3, -2 / 3, 0.0),
    (-2.0, 5 / 3, -2 / 3, 1.0),
)


@dataclass(frozen=True)
class SRID2(Stochastic):
    """Rößler's SRI method for diagonal (g_i of y_i alone) and scalar noise, of strong order 3/2 to Ito's solution.

        H0_s = y + h Σ a0_sj f_j + Σ b0_sj g_j I_10/h,    H1_s = y + h Σ a1_sj f_j + sqrt(h) Σ b1_sj g_j
        y_1 = y + h Σ α_s f_s + Σ g_s (β1_s I_1 + β2_s I_11/sqrt(h) + β3_s I_10/h + β4_s I_111/h)

    with f_s at H0_s, g_s at H1_s, I_1 = ΔW, I_10 = h (ΔW/2 + H), I_11 = (ΔW² - h)/2, I_111 = (ΔW³ - 3 h ΔW)/6. The error estimate
    is h/6 Σ f_s + Σ g_s (β3_s I_10/h + β4_s I_111/h).

    Source: Rößler 2010, table 6.1 and Rackauckas and Nie 2017 for the error estimate.
    """

    name: str = "srid2"
    order: float | int = 1.5
    noises: tuple[Noise, ...] = ("diagonal", "scalar")
    levy: bool = True
    adaptive: bool = True

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step, forwards in time.

        Raises:
            ValueError: a step backwards in time.
        """
        w, area = path(bound, t0, t1)
        h, span = step_size(t0, t1, y), t1 - t0
        if not torch._C._functorch.is_functorch_wrapped_tensor(y) and bool((span < 0).any()):
            raise ValueError(f"solver {self.name} goes forwards in time: t1 must not be before t0")
        root = h.sqrt()
        mean = 0.5 * w + self.area(area)
        # At rest h = 0 and so is every integral; the quotients must not be 0/0.
        size = torch.where(h == 0, torch.ones_like(h), h)
        double, triple = 0.5 * (w**2 - h), (w**3 - 3.0 * h * w) / 6.0
        drift: list[Tensor] = []
        noise: list[Tensor] = []
        for s in range(4):
            at = y + h * _total(_A0[s], drift, y) + _total(_B0[s], noise, y) * mean
            beside = y + h * _total(_A1[s], drift, y) + root * _total(_B1[s], noise, y)
            # The last drift has no weight in the result.
            if s < 3:
                drift.append(bound.field(t0 + _C0[s] * span, at))
            noise.append(bound.diffusion(t0 + _C1[s] * span, beside))
        b1, b2, b3, b4 = (_total(row, noise, y) for row in _BETA)
        second = b3 * mean + b4 * triple / size
        new = y + h * _total(_ALPHA[:3], drift, y) + b1 * w + b2 * double / size.sqrt() + second
        return _done(new, h * _total((1.0, 1.0, 1.0), drift, y) / 6.0 + second)


def _total(weights: tuple[float, ...], values: list[Tensor], y: Tensor) -> Tensor:
    pairs = [(a, k) for a, k in zip(weights, values, strict=False) if a]
    return sum((a * k for a, k in pairs[1:]), pairs[0][0] * pairs[0][1]) if pairs else torch.zeros_like(y)

"""Stochastic interpolants: x_t = α(t) x_0 + β(t) x_1 + γ(t) z, a path from any distribution to any other.

Here time runs from x_0 (t = 0) to x_1 (t = 1) and z is a latent standard normal; in a *one-sided* interpolant x_0 itself is normal
and takes z's place. The signal-to-noise ratio of such a path rises and falls again, so it has no inverse in time and is no
``NoiseSchedule``. A model may predict any of the fields

    b = E[ẋ_t | x],   v = E[α̇ x_0 + β̇ x_1 | x],   η = E[z | x],   s = ∇ log p_t(x),

which ``Interpolant`` converts into each other. γ̇ is infinite at the ends of the Brownian γ, so γ γ̇ is what is stored.

Source: Albergo, Boffi and Vanden-Eijnden, Stochastic Interpolants, 2023; sections 2 to 4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pdebook.diffusion.scalars import Scalar, exp, sin, softplus, sqrt

Curve = Callable[[Scalar], Scalar]


def _cos(value: Scalar) -> Scalar:
    return sin(value + 0.5 * math.pi)


@dataclass(frozen=True)
class Gamma:
    """Size γ(t) of the latent noise.

    Attributes:
        squared: γ(t)².
        product: γ(t) γ̇(t), half the derivative of γ²; finite where γ̇ is not.
        rate: γ̇(t).
    """

    squared: Curve
    product: Curve
    rate: Curve

    def __call__(self, t: Scalar) -> Scalar:
        """γ(t)."""
        return sqrt(self.squared(t))


def brownian(a: float = 1.0) -> Gamma:
    """γ² = a t (1 - t), the variance of a Brownian bridge; a > 0."""
    if not a > 0:
        raise ValueError(f"a must be positive, got {a}")

    def squared(t: Scalar) -> Scalar:
        return a * t * (1.0 - t)

    def product(t: Scalar) -> Scalar:
        return 0.5 * a * (1.0 - 2.0 * t)

    return Gamma(squared, product, lambda t: product(t) / sqrt(squared(t)))


def _of_value(value: Curve, rate: Curve) -> Gamma:
    return Gamma(lambda t: value(t) ** 2, lambda t: value(t) * rate(t), rate)


def _logistic(value: Scalar) -> Scalar:
    return exp(-softplus(-value))


def _bump_rate(t: Scalar) -> Scalar:
    up, down = _logistic(10.0 * t - 4.0), _logistic(10.0 * t - 6.0)
    return 10.0 * (up * (1.0 - up) - down * (1.0 - down))


_EDGE = float(_logistic(-4.0)) - float(_logistic(-6.0))

GAMMAS: dict[str, Callable[[], Gamma]] = {
    "brownian": brownian,
    "quadratic": lambda: _of_value(lambda t: t * (1.0 - t), lambda t: 1.0 - 2.0 * t),
    "sine-squared": lambda: _of_value(lambda t: sin(math.pi * t) ** 2, lambda t: math.pi * sin(2.0 * math.pi * t)),
    "sigmoid": lambda: _of_value(lambda t: _logistic(10.0 * t - 4.0) - _logistic(10.0 * t - 6.0) - _EDGE, _bump_rate),
    "zero": lambda: _of_value(lambda t: 0.0 * t, lambda t: 0.0 * t),
}
"""Latent noise by name."""


@dataclass(frozen=True)
class Interpolant:
    """x_t = α(t) x_0 + β(t) x_1 + γ(t) z, with the derivatives of its coefficients.

    Attributes:
        alpha, beta: coefficients of x_0 and x_1.
        alpha_rate, beta_rate: their time derivatives.
        gamma: size of the latent noise.
        one_sided: x_0 is standard normal and serves as z; γ is zero.
    Raises:
        ValueError: the path does not lead from x_0 to x_1, or its noise does not vanish at the ends.
    """

    alpha: Curve
    alpha_rate: Curve
    beta: Curve
    beta_rate: Curve
    gamma: Gamma
    one_sided: bool = False

    def __post_init__(self) -> None:
        ends = {"alpha": (self.alpha, 1.0, 0.0), "beta": (self.beta, 0.0, 1.0), "gamma": (self.gamma.squared, 0.0, 0.0)}
        for name, (curve, first, last) in ends.items():
            got = float(curve(0.0)), float(curve(1.0))
            if not (abs(got[0] - first) <= 1e-12 and abs(got[1] - last) <= 1e-12):
                raise ValueError(
                    f"{name} must be {first:g} at t = 0 and {last:g} at t = 1, got {got[0]:g} and {got[1]:g}"
                )
        if self.one_sided and any(float(self.gamma.squared(t)) != 0.0 for t in (0.25, 0.5, 0.75)):
            raise ValueError("gamma must be zero in a one-sided interpolant, whose x_0 is the noise")

    def _noise(self, t: Scalar) -> tuple[Scalar, Scalar]:
        """Coefficient n of the normal variable, and n ṅ."""
        if self.one_sided:
            return self.alpha(t), self.alpha(t) * self.alpha_rate(t)
        return self.gamma(t), self.gamma.product(t)

    def sample(
        self, t: Scalar, x0: Float[Tensor, "batch ..."], x1: Float[Tensor, "batch ..."], z: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch ..."]:
        """x_t; z is not used in a one-sided interpolant."""
        return self.alpha(t) * x0 + self.beta(t) * x1 + self.gamma(t) * z

    def rate(
        self, t: Scalar, x0: Float[Tensor, "batch ..."], x1: Float[Tensor, "batch ..."], z: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch ..."]:
        """ẋ_t = α̇ x_0 + β̇ x_1 + γ̇ z, whose mean given x_t is b; 0 < t < 1 for the Brownian γ."""
        mean = self.alpha_rate(t) * x0 + self.beta_rate(t) * x1
        return mean if self.one_sided else mean + self.gamma.rate(t) * z

    def score(self, t: Scalar, eta: Tensor) -> Tensor:
        """s = -η/γ (one-sided: -η/α)."""
        return -eta / self._noise(t)[0]

    def denoiser(self, t: Scalar, score: Tensor) -> Tensor:
        """η = -γ s (one-sided: -α s)."""
        return -self._noise(t)[0] * score

    def velocity(self, t: Scalar, v: Tensor, score: Tensor) -> Tensor:
        """b = v - γ γ̇ s; in a one-sided interpolant v = E[β̇ x_1 | x] and b = v - α α̇ s."""
        return v - self._noise(t)[1] * score

    def deterministic_part(self, t: Scalar, b: Tensor, score: Tensor) -> Tensor:
        """v = b + γ γ̇ s, the inverse of ``velocity``."""
        return b + self._noise(t)[1] * score

    def velocity_of_score(self, t: Scalar, x: Tensor, score: Tensor) -> Tensor:
        """b = (β̇/β) x - (α̇ - α β̇/β) α s of a one-sided interpolant, where one field gives all others; t > 0."""
        ratio, factor = self._single_field(t)
        return ratio * x - factor * score

    def score_of_velocity(self, t: Scalar, x: Tensor, b: Tensor) -> Tensor:
        """Score of a one-sided interpolant, the inverse of ``velocity_of_score``; 0 < t < 1."""
        ratio, factor = self._single_field(t)
        return (ratio * x - b) / factor

    def _single_field(self, t: Scalar) -> tuple[Scalar, Scalar]:
        if not self.one_sided:
            raise ValueError("velocity and score determine each other in a one-sided interpolant only")
        ratio = self.beta_rate(t) / self.beta(t)
        return ratio, (self.alpha_rate(t) - self.alpha(t) * ratio) * self.alpha(t)


def linear(gamma: Gamma | None = None, *, one_sided: bool = False) -> Interpolant:
    """α = 1 - t, β = t."""
    gamma = _default(gamma, one_sided)
    return Interpolant(
        lambda t: 1.0 - t, lambda t: 0.0 * t - 1.0, lambda t: 1.0 * t, lambda t: 0.0 * t + 1.0, gamma, one_sided
    )


def trigonometric(gamma: Gamma | None = None, *, one_sided: bool = False) -> Interpolant:
    """α = sqrt(1 - γ²) cos(π t/2), β = sqrt(1 - γ²) sin(π t/2): with unit variances at both ends, it stays one; γ < 1."""
    gamma = _default(gamma, one_sided)

    def size(t: Scalar) -> Scalar:
        return sqrt(1.0 - gamma.squared(t))

    def turned(t: Scalar, along: Scalar, across: Scalar) -> Scalar:
        return -gamma.product(t) / size(t) * along + 0.5 * math.pi * size(t) * across

    def angle(t: Scalar) -> Scalar:
        return 0.5 * math.pi * t

    return Interpolant(
        lambda t: size(t) * _cos(angle(t)),
        lambda t: turned(t, _cos(angle(t)), -sin(angle(t))),
        lambda t: size(t) * sin(angle(t)),
        lambda t: turned(t, sin(angle(t)), _cos(angle(t))),
        gamma,
        one_sided,
    )


def encoding_decoding(gamma: Gamma | None = None) -> Interpolant:
    """α = cos²(π t) up to t = 1/2 and β = cos²(π t) from there: half way only the noise N(0, γ(1/2)²) is left."""

    def early(t: Scalar) -> Scalar:
        return (t <= 0.5).to(t.dtype) if isinstance(t, Tensor) else float(t <= 0.5)

    def square(t: Scalar) -> Scalar:
        return _cos(math.pi * t) ** 2

    def rate(t: Scalar) -> Scalar:
        return -math.pi * sin(2.0 * math.pi * t)

    return Interpolant(
        lambda t: early(t) * square(t),
        lambda t: early(t) * rate(t),
        lambda t: (1.0 - early(t)) * square(t),
        lambda t: (1.0 - early(t)) * rate(t),
        _default(gamma, one_sided=False),
    )


def _default(gamma: Gamma | None, one_sided: bool) -> Gamma:
    return gamma or GAMMAS["zero" if one_sided else "brownian"]()


INTERPOLANTS: dict[str, Callable[[], Interpolant]] = {
    "linear": linear,
    "trigonometric": trigonometric,
    "encoding-decoding": encoding_decoding,
    "one-sided-linear": lambda: linear(one_sided=True),
    "one-sided-trigonometric": lambda: trigonometric(one_sided=True),
}
"""Interpolants by name, with their usual latent noise."""

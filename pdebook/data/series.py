"""Time series whose law is known, and small problems to make more: every sample is a function of the seed and of its number alone.

| name | what it is |
|---|---|
| ``two_moons`` | points of the plane around two half circles |
| ``spirals`` | rotating or counter-rotating decaying spirals, with their class |
| ``TimeDependentOU`` | an Ornstein-Uhlenbeck process whose drift and noise grow with time, by its exact transitions |
| ``decaying_oscillation`` | linear decaying oscillations, each seen at irregular times of its own |
| ``damped_pendulum``, ``lotka_volterra``, ``rational`` | fields f(t, y) to solve, for states (..., 2) |
| ``box``, ``noisy`` | initial states, uniform in a box; observations with noise |

Gaps are made by ``pdebook.diffeq.paths.drop_observations``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pdebook.rng import fold_in, normal, uniform

__all__ = [
    "TimeDependentOU",
    "box",
    "damped_pendulum",
    "decaying_oscillation",
    "lotka_volterra",
    "noisy",
    "rational",
    "spirals",
    "two_moons",
]

Samples = Int64[Tensor, " batch"]


def noisy(
    seed: int, samples: Samples, data: Float[Tensor, "batch *dims"], scale: float | int
) -> Float[Tensor, "batch *dims"]:
    """Observations: the data plus Gaussian noise of standard deviation ``scale``.

    Raises:
        ValueError: a negative scale, or data of another number of samples.
    """
    if not scale >= 0:
        raise ValueError(f"scale must not be negative, got {scale}")
    if len(data) != len(samples):
        raise ValueError(f"data must have a row for each of {len(samples)} samples, got shape {tuple(data.shape)}")
    seed = fold_in(seed, "observation noise")
    return data + scale * normal(seed, samples, data.shape[1:], dtype=data.dtype, device=data.device)


def box(
    seed: int,
    samples: Samples,
    low: Sequence[float | int],
    high: Sequence[float | int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch dim"]:
    """Initial states, uniform in the box from ``low`` to ``high``.

    Raises:
        ValueError: bounds of different lengths, or low above high.
    """
    if len(low) != len(high) or not all(a <= b for a, b in zip(low, high, strict=True)):
        raise ValueError(f"low must be as long as high and not above it, got {list(low)} and {list(high)}")
    lower, upper = (torch.tensor(end, dtype=dtype, device=device) for end in (low, high))
    draws = uniform(fold_in(seed, "box"), samples, (len(low),), dtype=dtype, device=device)
    return lower + (upper - lower) * draws


def two_moons(
    seed: int,
    samples: Samples,
    *,
    noise: float | int = 0.05,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Float[Tensor, "batch 2"], Int64[Tensor, " batch"]]:
    """Points on two interleaved half circles with Gaussian noise, and which of the two: (cos a, sin a) or (1 - cos a, 1/2 - sin a).

    The curves are those of scikit-learn's ``make_moons``; here a uniform in [0, π] and the moon are drawn for each sample.
    """
    draws = uniform(fold_in(seed, "moons"), samples, (2,), dtype=dtype, device=device)
    angle, moon = math.pi * draws[:, 0], (draws[:, 1] < 0.5).long()
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    points = torch.where(moon[:, None] == 0, upper, upper.new_tensor([1.0, 0.5]) - upper)
    return noisy(seed, samples, points, noise), moon


def _rotated(y0: Tensor, angle: Tensor, decay: Tensor) -> Tensor:
    """exp(-decay) times y0 turned clockwise by the angle, both (batch or 1, time): (batch, time, 2)."""
    x, y = y0[:, None].unbind(-1)
    c, s = angle.cos(), angle.sin()
    return torch.exp(-decay)[..., None] * torch.stack([c * x + s * y, c * y - s * x], -1)


def spirals(
    seed: int,
    samples: Samples,
    times: Float[Tensor, " time"],
    *,
    noise: float | int = 0.0,
) -> tuple[Float[Tensor, "batch time 2"], Int64[Tensor, " batch"]]:
    """Spirals exp(t A) y_0, A = [[-0.3, 2], [-2, -0.3]], y_0 on the unit circle; in class 1 the first coordinate is mirrored.

    Class 0 turns clockwise, class 1 the other way, and both look alike at any single time. Even numbers are of class 0.

    Source: the example ``neural_cde`` of Kidger's diffrax.
    """
    draws = uniform(fold_in(seed, "spirals"), samples, dtype=times.dtype, device=times.device)
    start = torch.stack([(2.0 * math.pi * draws).cos(), (2.0 * math.pi * draws).sin()], 1)
    label = (samples % 2).to(times.device)
    data = _rotated(start, 2.0 * times[None], 0.3 * times[None])
    mirror = torch.stack([1.0 - 2.0 * label, torch.ones_like(label)], 1).to(data.dtype)
    return noisy(seed, samples, data * mirror[:, None], noise), label


def decaying_oscillation(
    seed: int,
    samples: Samples,
    count: int = 20,
    *,
    latest: tuple[float, float] = (2.0, 3.0),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time 2"]]:
    """Times and states of dy/dt = [[-0.1, 1.3], [-1, -0.1]] y, y(0) ~ N(0, 1), at ``count`` irregular times of each sample's own.

    The times are a sample's sorted uniform draws from (0, T), T uniform in ``latest``.

    Raises:
        ValueError: a count below 1, or times that aren't 0 < first <= last.
    Source: the example ``latent_ode`` of Kidger's diffrax.
    """
    if count < 1 or not 0 < latest[0] <= latest[1]:
        raise ValueError(f"count must be at least 1 and latest rise from above 0, got {count} and {latest}")
    draws = uniform(fold_in(seed, "times"), samples, (count + 1,), dtype=torch.float64, device=device)
    end = latest[0] + (latest[1] - latest[0]) * draws[:, :1]
    times = (end * draws[:, 1:]).sort(1).values
    start = normal(fold_in(seed, "start"), samples, (2,), dtype=torch.float64, device=device)
    return times.to(dtype), oscillation(start, times).to(dtype)


def oscillation(start: Float[Tensor, "batch 2"], times: Float[Tensor, "series time"]) -> Float[Tensor, "batch time 2"]:
    """Exact states of ``decaying_oscillation`` from given starts, at times (batch, time) or (1, time)."""
    # In (x, √1.3 y) the matrix is -0.1 and a rotation with frequency √1.3.
    stretch = start.new_tensor([1.0, math.sqrt(1.3)])
    return _rotated(start * stretch, math.sqrt(1.3) * times, 0.1 * times) / stretch


@dataclass(frozen=True)
class TimeDependentOU:
    """Ornstein and Uhlenbeck's process with a drift and a noise that grow with time, dy = (a t - b y) dt + c t dW.

    The start is uniform in [-1, 1]. Transitions are Gaussian with moments in closed form, so samples at any times are exact.

    Args:
        drift: a.
        decay: b, positive.
        diffusion: c.
    Raises:
        ValueError: a decay that is not positive.
    Source: the example ``sde_gan`` of torchsde, with its constants.
    """

    drift: float = 0.02
    decay: float = 0.1
    diffusion: float = 0.0125

    def __post_init__(self) -> None:
        if not self.decay > 0:
            raise ValueError(f"decay must be positive, got {self.decay}")

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factor, offset and variance with y(t) | y(s) ~ N(factor y(s) + offset, variance), for s <= t."""
        b, k = self.decay, 2.0 * self.decay

        def first(r: Tensor) -> Tensor:
            return r / b - 1.0 / b**2

        def second(r: Tensor) -> Tensor:
            return r**2 / k - 2.0 * r / k**2 + 2.0 / k**3

        factor = torch.exp(-b * (t - s))
        offset = self.drift * (first(t) - factor * first(s))
        # Over short steps the difference of two large terms may round below zero.
        variance = self.diffusion**2 * (second(t) - factor**2 * second(s)).clamp(min=0)
        return factor, offset, variance

    def moments(self, times: Float[Tensor, " time"]) -> tuple[Float[Tensor, " time"], Float[Tensor, " time"]]:
        """Mean and variance of y at these times."""
        factor, offset, variance = self.transition(torch.zeros_like(times), times)
        return offset, factor**2 / 3.0 + variance

    def sample(
        self,
        seed: int,
        samples: Samples,
        times: Float[Tensor, " time"],
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "batch time 1"]:
        """Paths at rising times, the first of which may be 0.

        Raises:
            ValueError: times that do not rise from 0 or later.
        """
        if not len(times) or not bool((times.diff() > 0).all() and times[0] >= 0):
            raise ValueError(f"times must rise strictly, from 0 or later, got {times.tolist()}")
        clock = torch.cat([times.new_zeros(1), times]).double()
        factors, offsets, variances = self.transition(clock[:-1], clock[1:])
        device = times.device
        y = 2.0 * uniform(fold_in(seed, "start"), samples, dtype=torch.float64, device=device) - 1.0
        draws = normal(fold_in(seed, "path"), samples, (len(times),), dtype=torch.float64, device=device)
        path = []
        for factor, offset, spread, z in zip(factors, offsets, variances.sqrt(), draws.unbind(1), strict=True):
            y = factor * y + offset + spread * z
            path.append(y)
        return torch.stack(path, 1)[..., None].to(dtype)


def damped_pendulum(t: Tensor, y: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """dθ/dt = ω, dω/dt = -sin θ - 0.15 ω - 0.1 ω |ω|."""
    angle, speed = y.unbind(-1)
    return torch.stack([speed, -angle.sin() - 0.15 * speed - 0.1 * speed * speed.abs()], -1)


def lotka_volterra(t: Tensor, y: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """Prey and predator, dx/dt = 1.3 x - 0.9 x y, dy/dt = 0.8 x y - 1.8 y.

    Source: Rackauckas et al. 2020 (arXiv:2001.04385), equation 11 and its parameters.
    """
    prey, predator = y.unbind(-1)
    return torch.stack([1.3 * prey - 0.9 * prey * predator, 0.8 * prey * predator - 1.8 * predator], -1)


def rational(t: Tensor, y: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """dx/dt = y/(1 + y), dy/dt = -x/(1 + x), for x, y > -1.

    Source: the example ``symbolic_regression`` of Kidger's diffrax.
    """
    x, z = y.unbind(-1)
    return torch.stack([z / (1.0 + z), -x / (1.0 + x)], -1)

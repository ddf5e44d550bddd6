"""Noise schedules: how much signal α(t) and noise σ(t) a noisy sample x_t = α(t) x_0 + σ(t) ε holds, and grids of times.

Everything is computed in float64: a float in, a float out; a tensor in, a tensor of its dtype out, so hand in float64. Half the
logarithm of the signal-to-noise ratio, λ(t) = log(α(t)/σ(t)) (``half_log_snr``), falls strictly in t. ``SCHEDULES`` registers one
of each kind.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pdebook.diffusion.scalars import Scalar, atan, exp, expm1, log, log1p, sin, softplus, sqrt, tan


class NoiseSchedule(ABC):
    """A schedule is log α(t), log σ(t), their time derivatives, and the inverse of λ(t).

    The forward process is dx = f(t) x dt + g(t) dw with f = d log α / dt and g² = 2 σ² d(log σ - log α)/dt.

    Attributes:
        t_max: the noisiest time; sampling starts there.
        t_min: the smallest time that may be asked for.
    """

    t_max: float
    t_min: float = 0.0

    @abstractmethod
    def log_alpha(self, t: Scalar) -> Scalar:
        """Logarithm of the signal's coefficient."""

    @abstractmethod
    def log_sigma(self, t: Scalar) -> Scalar:
        """Logarithm of the noise's standard deviation."""

    @abstractmethod
    def drift(self, t: Scalar) -> Scalar:
        """f(t) = d log α / dt."""

    @abstractmethod
    def diffusion_squared(self, t: Scalar) -> Scalar:
        """g(t)² = 2 σ² d(log σ - log α)/dt = -2 σ² dλ/dt."""

    @abstractmethod
    def time(self, half_log_snr: Scalar) -> Scalar:
        """The time t at which λ(t) equals ``half_log_snr``."""

    def alpha(self, t: Scalar) -> Scalar:
        """Signal coefficient α(t): the mean coefficient, sqrt(alphas_cumprod) in DDPM's notation."""
        return exp(self.log_alpha(t))

    def sigma(self, t: Scalar) -> Scalar:
        """Noise standard deviation σ(t)."""
        return exp(self.log_sigma(t))

    def half_log_snr(self, t: Scalar) -> Scalar:
        """λ(t) = log(α(t) / σ(t))."""
        return self.log_alpha(t) - self.log_sigma(t)

    def rho(self, t: Scalar) -> Scalar:
        """ρ(t) = σ(t) / α(t) = e^{-λ(t)}: the noise level of x / α."""
        return exp(self.log_sigma(t) - self.log_alpha(t))


class VariancePreserving(NoiseSchedule):
    """Schedules with α² + σ² = 1, so that log σ = log(1 - α²) / 2 and g² = -2 f."""

    def log_sigma(self, t: Scalar) -> Scalar:
        """Logarithm of sqrt(1 - α²), without cancellation near t = 0."""
        return 0.5 * log(-expm1(2.0 * self.log_alpha(t)))

    def diffusion_squared(self, t: Scalar) -> Scalar:
        """g² = -2 f = β(t)."""
        return -2.0 * self.drift(t)


def log_alpha_of_half_log_snr(half_log_snr: Scalar) -> Scalar:
    """Log α of a variance-preserving schedule at λ: -log(1 + e^{-2λ}) / 2."""
    return -0.5 * softplus(-2.0 * half_log_snr)


@dataclass(frozen=True)
class VPLinear(VariancePreserving):
    """Variance preserving with linear β(t) = β_0 + t (β_1 - β_0): log α = -t² (β_1 - β_0)/4 - t β_0/2 on [0, 1].

    Source: Song et al. 2021, appendix C; the stable inverse is Lu et al. 2022, appendix D.4.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_max: float = 1.0
    t_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"beta_min and beta_max must satisfy 0 < beta_min <= beta_max, got {self.beta_min}, {self.beta_max}"
            )

    def log_alpha(self, t: Scalar) -> Scalar:
        """-t² (β_1 - β_0)/4 - t β_0/2."""
        return -0.25 * t * t * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def drift(self, t: Scalar) -> Scalar:
        """-β(t)/2."""
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))

    def time(self, half_log_snr: Scalar) -> Scalar:
        """t = 2 L / (sqrt(β_0² + 2 (β_1 - β_0) L) + β_0) with L = log(1 + e^{-2λ}) = -2 log α."""
        level = -2.0 * log_alpha_of_half_log_snr(half_log_snr)
        return 2.0 * level / (sqrt(self.beta_min**2 + 2.0 * (self.beta_max - self.beta_min) * level) + self.beta_min)


@dataclass(frozen=True)
class VPCosine(VariancePreserving):
    """Variance preserving with α(t) = cos(π/2 (t + s)/(1 + s)) / cos(π/2 s/(1 + s)) on [0, 0.9946].

    α vanishes at t = 1; the range ends before, as in the released models.
    Source: Nichol and Dhariwal 2021, equation 17; the inverse is Lu et al. 2022, appendix D.4.
    """

    offset: float = 0.008
    t_max: float = 0.9946
    t_min: float = 0.0

    def _angle(self, t: Scalar) -> Scalar:
        return 0.5 * math.pi * (t + self.offset) / (1.0 + self.offset)

    def log_alpha(self, t: Scalar) -> Scalar:
        """Log of cos(angle(t)) / cos(angle(0)) = 1 - 2 sin((angle(t) + angle(0))/2) sin((angle(t) - angle(0))/2) / cos(angle(0)).

        In this form nothing cancels near t = 0, where α is close to 1.
        """
        first = self._angle(0.0)
        half_gap = 0.25 * math.pi * t / (1.0 + self.offset)
        return log1p(-2.0 * sin(first + half_gap) * sin(half_gap) / math.cos(first))

    def drift(self, t: Scalar) -> Scalar:
        """-π/2 tan(angle(t)) / (1 + s)."""
        return -0.5 * math.pi / (1.0 + self.offset) * tan(self._angle(t))

    def time(self, half_log_snr: Scalar) -> Scalar:
        """2 (1 + s)/π angle - s with tan² angle = (sin² angle(0) + σ² cos² angle(0)) / (α² cos² angle(0)).

        The arccosine of α cos(angle(0)), which is close to 1 near t = 0, would lose digits.
        """
        noise_to_signal = exp(-2.0 * half_log_snr)
        slope = sqrt(noise_to_signal + math.tan(self._angle(0.0)) ** 2 * (1.0 + noise_to_signal))
        return atan(slope) * (2.0 * (1.0 + self.offset) / math.pi) - self.offset


@dataclass(frozen=True)
class EDM(NoiseSchedule):
    """α = 1 and σ = t: time is the noise level. Variance exploding in the coordinates of Karras et al. 2022.

    Source: Karras et al. 2022, table 1.
    """

    t_max: float = 80.0
    t_min: float = 0.0

    def log_alpha(self, t: Scalar) -> Scalar:
        """Zero."""
        return 0.0 * t

    def log_sigma(self, t: Scalar) -> Scalar:
        """Log t."""
        return log(t)

    def drift(self, t: Scalar) -> Scalar:
        """Zero."""
        return 0.0 * t

    def diffusion_squared(self, t: Scalar) -> Scalar:
        """2 t."""
        return 2.0 * t

    def time(self, half_log_snr: Scalar) -> Scalar:
        """e^{-λ}."""
        return exp(-half_log_snr)


@dataclass(frozen=True)
class VE(NoiseSchedule):
    """Variance exploding: α = 1 and σ(t) = σ_min (σ_max/σ_min)^t on [0, 1].

    Source: Song et al. 2021, appendix C.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_max: float = 1.0
    t_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min must be positive and below sigma_max, got {self.sigma_min}, {self.sigma_max}")

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def log_alpha(self, t: Scalar) -> Scalar:
        """Zero."""
        return 0.0 * t

    def log_sigma(self, t: Scalar) -> Scalar:
        """Log σ_min + t log(σ_max/σ_min)."""
        return math.log(self.sigma_min) + t * self._rate

    def drift(self, t: Scalar) -> Scalar:
        """Zero."""
        return 0.0 * t

    def diffusion_squared(self, t: Scalar) -> Scalar:
        """2 σ² log(σ_max/σ_min)."""
        return 2.0 * exp(2.0 * self.log_sigma(t)) * self._rate

    def time(self, half_log_snr: Scalar) -> Scalar:
        """(-λ - log σ_min) / log(σ_max/σ_min)."""
        return (-half_log_snr - math.log(self.sigma_min)) / self._rate


@dataclass(frozen=True)
class LinearFlow(NoiseSchedule):
    """α = 1 - t and σ = t on [0, 1): straight lines from data to noise, as in rectified flow.

    λ is infinite at both ends, so sampling starts at t_max = 0.999 unless told otherwise.
    Source: Liu, Gong and Liu 2023; a one-sided stochastic interpolant.
    """

    t_max: float = 0.999
    t_min: float = 0.0

    def log_alpha(self, t: Scalar) -> Scalar:
        """Log(1 - t)."""
        return log1p(-t)

    def log_sigma(self, t: Scalar) -> Scalar:
        """Log t."""
        return log(t)

    def drift(self, t: Scalar) -> Scalar:
        """-1 / (1 - t)."""
        return -1.0 / (1.0 - t)

    def diffusion_squared(self, t: Scalar) -> Scalar:
        """2 t / (1 - t)."""
        return 2.0 * t / (1.0 - t)

    def time(self, half_log_snr: Scalar) -> Scalar:
        """1 / (1 + e^λ)."""
        return exp(-softplus(half_log_snr))


class DiscreteVP(VariancePreserving):
    """A released model's N noise levels as a continuous schedule: log α piecewise linear between t_n = (n + 1)/N.

    Before t_0 the first segment is continued. The steep tail beyond λ = ``clip`` is cut, as in the official code.

    Args:
        alphas_cumprod: products ᾱ_n = Π_{m<=n} (1 - β_m) in (0, 1), strictly falling; α(t_n) = sqrt(ᾱ_n).
        clip: half log-SNR below which levels are dropped.
    Raises:
        ValueError: fewer than two levels, levels outside (0, 1), or a signal-to-noise ratio that does not fall strictly.
    Source: Lu et al. 2022, section 3.4 and appendix D.2.
    """

    def __init__(self, alphas_cumprod: Sequence[float] | Tensor, clip: float = -5.1) -> None:
        levels = torch.as_tensor(alphas_cumprod, dtype=torch.float64).cpu()
        if levels.ndim != 1 or len(levels) < 2:
            raise ValueError(f"alphas_cumprod must be a vector of at least 2 levels, got shape {tuple(levels.shape)}")
        if not bool(((levels > 0) & (levels < 1)).all()):
            raise ValueError("alphas_cumprod must lie strictly between 0 and 1")
        if not bool((levels.diff() < 0).all()):
            where = int((levels.diff() >= 0).nonzero()[0]) + 1
            raise ValueError(
                f"alphas_cumprod must fall strictly (a monotone signal-to-noise ratio); it does not at index {where}"
            )
        log_alpha = 0.5 * levels.log()
        half_log_snr = log_alpha - 0.5 * torch.log(-torch.expm1(2.0 * log_alpha))
        kept = int((half_log_snr > clip).sum())
        if kept < 2:
            raise ValueError(f"clip = {clip} keeps {kept} of {len(levels)} levels; at least 2 are needed")
        self.steps = len(levels)
        self.t_max = kept / self.steps
        self.t_min = 0.0
        times = torch.arange(1, kept + 1, dtype=torch.float64) / self.steps
        slope = (log_alpha[1] - log_alpha[0]) * self.steps
        # The first segment goes on to t = 0, but never above log alpha = 0, where no noise is left.
        first = (log_alpha[0] - slope / self.steps).clamp(max=0.0)
        times, log_alpha = torch.cat([times.new_zeros(1), times]), torch.cat([first[None], log_alpha[:kept]])
        self._times, self._values = times, log_alpha
        self._time_list, self._value_list = times.tolist(), log_alpha.tolist()
        self._rising = (-log_alpha).contiguous()
        self._rising_list = self._rising.tolist()

    @classmethod
    def from_betas(cls, betas: Sequence[float] | Tensor, clip: float = -5.1) -> "DiscreteVP":
        """Schedule of DDPM's β_1, ..., β_N in (0, 1)."""
        values = torch.as_tensor(betas, dtype=torch.float64)
        if not bool(((values > 0) & (values < 1)).all()):
            raise ValueError("betas must lie strictly between 0 and 1")
        return cls(torch.cumprod(1.0 - values, 0), clip)

    def _segment(self, t: Scalar) -> tuple[Scalar, Scalar, Scalar]:
        """Left time, left value and slope of the segment that holds t."""
        if isinstance(t, Tensor):
            times, values = self._times.to(t.device), self._values.to(t.device)
            index = torch.searchsorted(times, t.detach().to(times.dtype).contiguous()).clamp(1, len(times) - 1)
            left, right = times[index - 1], times[index]
            return left, values[index - 1], (values[index] - values[index - 1]) / (right - left)
        i = min(max(bisect_left(self._time_list, t), 1), len(self._time_list) - 1)
        left, right = self._time_list[i - 1], self._time_list[i]
        return left, self._value_list[i - 1], (self._value_list[i] - self._value_list[i - 1]) / (right - left)

    def log_alpha(self, t: Scalar) -> Scalar:
        """Linear interpolation of log α."""
        left, value, slope = self._segment(t)
        return value + slope * (t - left)

    def drift(self, t: Scalar) -> Scalar:
        """Slope of the segment."""
        return self._segment(t)[2] + 0.0 * t

    def time(self, half_log_snr: Scalar) -> Scalar:
        """Inverse interpolation of log α at -log(1 + e^{-2λ})/2."""
        target = log_alpha_of_half_log_snr(half_log_snr)
        if isinstance(target, Tensor):
            rising = self._rising.to(target.device)
            index = torch.searchsorted(rising, (-target.detach()).contiguous()).clamp(1, len(rising) - 1)
            times, values = self._times.to(target.device), self._values.to(target.device)
            left, low, high = times[index - 1], values[index - 1], values[index]
            return left + (target - low) * (times[index] - left) / (high - low)
        i = min(max(bisect_left(self._rising_list, -target), 1), len(self._rising_list) - 1)
        left, low, high = self._time_list[i - 1], self._value_list[i - 1], self._value_list[i]
        return left + (target - low) * (self._time_list[i] - left) / (high - low)


def ddpm_betas(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Tensor:
    """DDPM's linear β_1, ..., β_N. Source: Ho et al. 2020, section 4."""
    return torch.linspace(beta_min, beta_max, steps, dtype=torch.float64)


def scaled_linear_betas(steps: int = 1000, beta_min: float = 0.00085, beta_max: float = 0.012) -> Tensor:
    """β linear in its square root, as Stable Diffusion's released models have it."""
    return torch.linspace(beta_min**0.5, beta_max**0.5, steps, dtype=torch.float64) ** 2


SCHEDULES: dict[str, Callable[[], NoiseSchedule]] = {
    "vp-linear": VPLinear,
    "vp-cosine": VPCosine,
    "ve": VE,
    "edm": EDM,
    "linear-flow": LinearFlow,
    "ddpm": lambda: DiscreteVP.from_betas(ddpm_betas()),
    "stable-diffusion": lambda: DiscreteVP.from_betas(scaled_linear_betas()),
}


def time_grid(
    schedule: NoiseSchedule,
    steps: int,
    kind: str = "half_log_snr",
    *,
    start: float | None = None,
    end: float = 1e-3,
    power: float = 7.0,
) -> list[float]:
    """``steps + 1`` strictly falling times from ``start`` to ``end``.

    Args:
        schedule: noise schedule.
        steps: number of intervals, at least 1.
        kind: "half_log_snr" (uniform in λ), "time" (uniform in t), "quadratic" (uniform in sqrt(t)), "rho" (uniform in
            ρ^(1/power), the grid of EDM), or "discrete" (the integer steps of a ``DiscreteVP``, evenly spaced, last one kept).
        start: first time; the schedule's ``t_max`` if left out.
        end: last time, above the schedule's ``t_min``.
        power: exponent of "rho".
    Raises:
        ValueError: no step, times out of range, or an unknown kind.
    Source: Lu et al. 2022, section 3.4; Song et al. 2021 (DDIM), appendix D.2; Karras et al. 2022, equation 5.
    """
    start = schedule.t_max if start is None else start
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not schedule.t_min <= end < start <= schedule.t_max:
        raise ValueError(
            f"start and end must satisfy {schedule.t_min} <= end < start <= {schedule.t_max}, got start = {start}, end = {end}"
        )
    fractions = [i / steps for i in range(steps + 1)]

    def between(forward: Callable[[float], float], backward: Callable[[float], float]) -> list[float]:
        first, last = forward(start), forward(end)
        if not math.isfinite(first) or not math.isfinite(last):
            raise ValueError(
                f"kind {kind!r} needs a positive noise level at both ends, got start = {start}, end = {end}"
            )
        inner = [backward(first + fraction * (last - first)) for fraction in fractions[1:-1]]
        return [start, *inner, end]

    if kind == "half_log_snr":
        times = between(lambda t: float(schedule.half_log_snr(t)), lambda lam: float(schedule.time(lam)))
    elif kind == "time":
        times = between(lambda t: t, lambda value: value)
    elif kind == "quadratic":
        times = between(math.sqrt, lambda value: value * value)
    elif kind == "rho":
        times = between(
            lambda t: float(schedule.rho(t)) ** (1.0 / power),
            lambda value: float(schedule.time(-math.log(value**power))),
        )
    elif kind == "discrete":
        if not isinstance(schedule, DiscreteVP):
            raise ValueError(f"kind 'discrete' needs a DiscreteVP schedule, got {type(schedule).__name__}")
        first, last = round(start * schedule.steps), max(round(end * schedule.steps), 1)
        if steps > first - last:
            raise ValueError(
                f"steps must be at most {first - last} on the discrete grid from {start} to {end}, got {steps}"
            )
        times = [round(first + fraction * (last - first)) / schedule.steps for fraction in fractions]
    else:
        raise ValueError(f"kind must be half_log_snr, time, quadratic, rho or discrete, got {kind!r}")
    if any(later >= earlier for earlier, later in pairwise(times)):
        raise ValueError(
            f"steps must leave room between start and end: {steps} steps from {start} to {end} are not distinct"
        )
    return times

"""From a trained network to what a sampler asks for: parameterisation, time input, guidance and hooks live here, and only here."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pdebook.diffusion.scalars import Scalar
from pdebook.diffusion.schedules import DiscreteVP, NoiseSchedule

PARAMETERISATIONS: dict[str, Callable[[Scalar, Scalar], tuple[Scalar, Scalar]]] = {
    "noise": lambda alpha, sigma: (0.0, 1.0),
    "data": lambda alpha, sigma: (1.0, 0.0),
    "velocity": lambda alpha, sigma: (-sigma, alpha),
    "score": lambda alpha, sigma: (0.0, -1.0 / sigma),
    "flow": lambda alpha, sigma: (-1.0, 1.0),
}
"""What a network may predict: numbers (p, q) with output = p x_0 + q ε, at given α and σ.

noise ε; data x_0; velocity α ε - σ x_0 (Salimans and Ho 2022); score -ε/σ; flow ε - x_0 (rectified flow).
"""


def edm_parameterisation(sigma_data: float) -> Callable[[Scalar, Scalar], tuple[Scalar, Scalar]]:
    """EDM's raw network F in D(x; ρ) = c_skip x/α + c_out F(c_in x/α, log(ρ)/4), as numbers (p, q) with F = p x_0 + q ε.

    c_skip = s²/(ρ² + s²), c_out = ρ s/sqrt(ρ² + s²), s = ``sigma_data``. Source: Karras et al. 2022, table 1.
    """
    if not sigma_data > 0:
        raise ValueError(f"sigma_data must be positive, got {sigma_data}")

    def numbers(alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
        rho = sigma / alpha
        root = (rho**2 + sigma_data**2) ** 0.5
        return rho / (sigma_data * root), -sigma_data / root

    return numbers


def split(
    parameters: tuple[Scalar, Scalar], alpha: Scalar, sigma: Scalar, x: Tensor, output: Tensor
) -> tuple[Tensor, Tensor]:
    """Data x_0 and noise ε of a network's output.

    Solves α x_0 + σ ε = x and p x_0 + q ε = output for (x_0, ε); all parameterisations are converted exactly this way.
    """
    p, q = parameters
    determinant = alpha * q - sigma * p
    data = _combine(q / determinant, x, -sigma / determinant, output)
    noise = _combine(-p / determinant, x, alpha / determinant, output)
    return data, noise


def _combine(a: Scalar, x: Tensor, b: Scalar, y: Tensor) -> Tensor:
    return _cast(a, x) * x + _cast(b, x) * y


def _cast(value: Scalar, x: Tensor) -> Any:
    return value.to(x.dtype) if isinstance(value, Tensor) else value


TIME_INPUTS: dict[str, Callable[[Scalar, NoiseSchedule], Scalar]] = {
    "time": lambda t, schedule: t,
    "half_log_snr": lambda t, schedule: schedule.half_log_snr(t),
    "edm": lambda t, schedule: -0.25 * schedule.half_log_snr(t),
    "discrete-1": lambda t, schedule: _clip_below(1000.0 * (t - 1.0 / _levels(schedule))),
    "discrete-2": lambda t, schedule: 1000.0 * t * (_levels(schedule) - 1.0) / _levels(schedule),
}
"""What a network is told about the time: t itself, λ(t), EDM's log(ρ)/4, or a discrete model's step number on [0, 1000)
("discrete-1": 1000 max(t - 1/N, 0); "discrete-2": 1000 t (N - 1)/N; Lu et al. 2022, section 3.4)."""


def _levels(schedule: NoiseSchedule) -> float:
    return float(schedule.steps) if isinstance(schedule, DiscreteVP) else 1000.0


def _clip_below(value: Scalar) -> Scalar:
    return value.clamp(min=0.0) if isinstance(value, Tensor) else max(value, 0.0)


class ClassifierFree:
    """Classifier-free guidance: out = out_∅ + w (out_c - out_∅).

    The combination is linear, so it is the same in every parameterisation. Both outputs come from one call on a doubled batch.

    Args:
        label: classes, shape (batch,), or any conditioning tensor with a batch axis.
        null: conditioning that stands for "none", same shape, or one number.
        scale: w; 1 is the plain conditional model.
        interval: λ range (low, high) in which guidance acts; the conditional output elsewhere.
    Source: Ho and Salimans 2022, equation 6; the interval is Kynkäänniemi et al. 2024.
    """

    cost = 2

    def __init__(
        self, label: Tensor, null: Tensor | int, scale: float, interval: tuple[float, float] = (-math.inf, math.inf)
    ) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"scale must be finite, got {scale}")
        self.label = label
        self.null = torch.full_like(label, null) if isinstance(null, int) else null
        self.scale = scale
        self.interval = interval

    def output(self, evaluate: Callable[..., Tensor], x: Tensor, t: Scalar, half_log_snr: Scalar) -> Tensor:
        """Guided output."""
        low, high = self.interval
        both = evaluate(torch.cat([x, x]), _double(t), torch.cat([self.null, self.label]))
        without, given = both.chunk(2)
        if isinstance(half_log_snr, Tensor):
            inside = (half_log_snr >= low) & (half_log_snr <= high)
            return without + torch.where(inside, self.scale, 1.0).to(x.dtype) * (given - without)
        return without + (self.scale if low <= half_log_snr <= high else 1.0) * (given - without)


def _double(t: Scalar) -> Scalar:
    return torch.cat([t, t]) if isinstance(t, Tensor) else t


class ClassifierGuidance:
    """Classifier guidance: ε - w σ ∇_x log p(c | x_t).

    Args:
        log_probability: log p(c | x_t) of each sample, called as ``log_probability(x, t)``; differentiable in x.
        scale: w.
    Source: Dhariwal and Nichol 2021, algorithm 2.
    """

    def __init__(self, log_probability: Callable[[Tensor, Scalar], Tensor], scale: float) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"scale must be finite, got {scale}")
        self.log_probability = log_probability
        self.scale = scale

    def gradient(self, x: Tensor, t: Scalar) -> Tensor:
        """w ∇_x log p(c | x_t)."""
        with torch.enable_grad():
            inside = x.detach().requires_grad_()
            total = self.log_probability(inside, t).sum()
            return self.scale * torch.autograd.grad(total, inside)[0]


def clip(low: float = -1.0, high: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Hook that clamps the data prediction to a known range."""
    return lambda data: data.clamp(low, high)


def dynamic_thresholding(quantile: float = 0.995, limit: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Hook: s = max(quantile of \\|x_0\\| in each sample, limit); clamp x_0 to [-s, s] and multiply by limit/s.

    Source: Saharia et al. 2022 (Imagen), section 2.3; DPM-Solver++, section 4.1.
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must be in (0, 1], got {quantile}")
    if not limit > 0:
        raise ValueError(f"limit must be positive, got {limit}")

    def hook(data: Tensor) -> Tensor:
        flat = data.abs().flatten(1)
        s = (
            torch.quantile(flat.float(), quantile, dim=1)
            .to(data.dtype)
            .clamp(min=limit)
            .reshape(-1, *[1] * (data.ndim - 1))
        )
        return torch.maximum(torch.minimum(data, s), -s) * (limit / s)

    return hook


class Denoiser:
    """A network as a function of (x, t) that says what is noise and what is data.

    Args:
        net: called as ``net(x, time)`` with time of shape (batch,), or ``net(x, time, condition)``; its output has x's shape
            and dtype.
        schedule: noise schedule the network was trained with.
        predicts: a name in ``PARAMETERISATIONS``, or a function like its values (``edm_parameterisation``).
        time_input: a name in ``TIME_INPUTS``, a function (t, schedule) -> number, or "raw": pass t as the sampler gives it.
        condition: tensor with a batch axis for a conditional network without guidance.
        guidance: ``ClassifierFree`` or ``ClassifierGuidance``.
        hook: maps the data prediction to a better one (``clip``, ``dynamic_thresholding``); the noise is recomputed from it.
        scale_input: whether the network takes c_in x/α with EDM's c_in = 1/sqrt(ρ² + sigma_data²); that number, or None.
    Attributes:
        evaluations: predictions made so far (NFE as the papers count it).
        passes: network passes so far; classifier-free guidance needs two an evaluation.
    Raises:
        ValueError: an unknown name; on use, an output of another shape or dtype than x.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        schedule: NoiseSchedule,
        *,
        predicts: str | Callable[[Scalar, Scalar], tuple[Scalar, Scalar]] = "noise",
        time_input: str | Callable[[Scalar, NoiseSchedule], Scalar] = "time",
        condition: Tensor | None = None,
        guidance: ClassifierFree | ClassifierGuidance | None = None,
        hook: Callable[[Tensor], Tensor] | None = None,
        scale_input: float | None = None,
    ) -> None:
        if isinstance(predicts, str) and predicts not in PARAMETERISATIONS:
            raise ValueError(f"predicts must be one of {', '.join(PARAMETERISATIONS)}, got {predicts!r}")
        if isinstance(time_input, str) and time_input not in (*TIME_INPUTS, "raw"):
            raise ValueError(f"time_input must be one of {', '.join(TIME_INPUTS)} or raw, got {time_input!r}")
        if guidance is not None and not isinstance(guidance, ClassifierFree | ClassifierGuidance):
            raise ValueError(f"guidance must be ClassifierFree, ClassifierGuidance or None, got {guidance!r}")
        if isinstance(guidance, ClassifierFree) and condition is not None:
            raise ValueError("condition must be left out with ClassifierFree, which holds the label itself")
        self.net = net
        self.schedule = schedule
        self.predicts = predicts
        self._parameters = PARAMETERISATIONS[predicts] if isinstance(predicts, str) else predicts
        self._time_input = TIME_INPUTS.get(time_input) if isinstance(time_input, str) else time_input
        self.condition = condition
        self.guidance = guidance
        self.hook = hook
        self.scale_input = scale_input
        self.evaluations = 0
        self.passes = 0

    def _evaluate(self, x: Tensor, t: Scalar, condition: Tensor | None) -> Tensor:
        if self._time_input is None:
            time: Any = t
        else:
            value = self._time_input(t, self.schedule)
            time = value.flatten().to(x.dtype) if isinstance(value, Tensor) else x.new_full((len(x),), value)
        if self.scale_input is not None:
            alpha, rho = self.schedule.alpha(t), self.schedule.rho(t)
            factor = 1.0 / (alpha * (rho**2 + self.scale_input**2) ** 0.5)
            x = x * (factor.to(x.dtype) if isinstance(factor, Tensor) else factor)
        output = self.net(x, time) if condition is None else self.net(x, time, condition)
        if output.shape != x.shape or output.dtype != x.dtype:
            raise ValueError(
                f"net must return {x.dtype} of shape {tuple(x.shape)}, as its input; got {output.dtype} of shape {tuple(output.shape)}"
            )
        return output

    def both(self, x: Tensor, t: Scalar) -> tuple[Tensor, Tensor]:
        """Data and noise predictions (x_0, ε) from one evaluation.

        Raises:
            ValueError: times that differ by sample without the shape (batch, 1, ..., 1), or a wrong output of the network.
        """
        if isinstance(t, Tensor) and t.ndim and t.shape != (len(x), *[1] * (x.ndim - 1)):
            expected = (len(x), *[1] * (x.ndim - 1))
            raise ValueError(f"t must be a number or a tensor of shape {expected}, got shape {tuple(t.shape)}")
        self.evaluations += 1
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        if isinstance(self.guidance, ClassifierFree):
            self.passes += self.guidance.cost
            output = self.guidance.output(self._evaluate, x, t, self.schedule.half_log_snr(t))
        else:
            self.passes += 1
            output = self._evaluate(x, t, self.condition)
        data, noise = split(self._parameters(alpha, sigma), alpha, sigma, x, output)
        if isinstance(self.guidance, ClassifierGuidance):
            noise = _combine(1.0, noise, -sigma, self.guidance.gradient(x, t))
            data = _combine(1.0 / alpha, x, -sigma / alpha, noise)
        if self.hook is not None:
            data = self.hook(data)
            noise = _combine(1.0 / sigma, x, -alpha / sigma, data)
        return data, noise

    def noise(self, x: Tensor, t: Scalar) -> Tensor:
        """Noise prediction ε(x, t)."""
        return self.both(x, t)[1]

    def data(self, x: Tensor, t: Scalar) -> Tensor:
        """Data prediction x_0(x, t) = (x - σ ε)/α."""
        return self.both(x, t)[0]

    def score(self, x: Tensor, t: Scalar) -> Tensor:
        """Score ∇_x log q_t(x) = -ε/σ."""
        sigma = self.schedule.sigma(t)
        return _combine(0.0, x, -1.0 / sigma, self.noise(x, t))

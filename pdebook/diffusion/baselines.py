"""Samplers to compare with: DDIM, classical Runge-Kutta methods in three variables, and scipy's adaptive RK45."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from pdebook.diffusion.affine import State, axpby
from pdebook.diffusion.sampling import DivergenceError, Model, Steps, check_state, columns, sampler, walk
from pdebook.diffusion.scalars import Scalar, log, sqrt
from pdebook.rng import NoiseSource


@sampler
def ddim(denoiser: Model, x: State, times: list[Scalar], *, eta: float = 0.0, noise: Any = None) -> Steps:
    """DDIM: jump to the predicted data, and back to the noise level of the next time with the predicted noise.

        x_t = α_t x_0 + sqrt(σ_t² - s²) ε + s z,   s² = η² σ_t²/σ_s² (σ_s² - σ_t² α_s²/α_t²)

    η = 0 is deterministic and equals DPM-Solver-1; η = 1 is DDPM's ancestral sampling.

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times.
        eta: amount of noise, 0 <= eta <= 1.
        noise: source of draws, ``noise(k, x)`` for step k; ``NoiseSource(0)`` if left out.
    Source: Song, Meng and Ermon 2021, equations 12 and 16.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 and 1, got {eta}")
    noise = NoiseSource(0) if noise is None else noise
    schedule = denoiser.schedule
    for i, s, t in walk(times):
        alpha, sigma, alpha_s, sigma_s = schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)
        eps = denoiser.noise(x, s)
        variance = (eta * sigma / sigma_s) ** 2 * (sigma_s**2 - (sigma * alpha_s / alpha) ** 2)
        direction = sqrt(sigma**2 - variance)
        draws = [sqrt(variance), noise(i, x)] if eta > 0 else []
        x = axpby(alpha / alpha_s, x, direction - alpha * sigma_s / alpha_s, eps, *draws)
        yield t, x


@dataclass(frozen=True)
class RungeKutta:
    """Explicit Runge-Kutta tableau: stage i at c_i, combining earlier stages with row a_i; the step with b."""

    name: str
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    @property
    def c(self) -> tuple[float, ...]:
        """Stage positions: row sums of a."""
        return tuple(sum(row, 0.0) for row in self.a)

    def __post_init__(self) -> None:
        if len(self.a) != len(self.b) or any(len(row) > i for i, row in enumerate(self.a)):
            raise ValueError(f"a must have one row for each of the {len(self.b)} stages, and row i at most i numbers")
        if abs(sum(self.b) - 1.0) > 1e-12:
            raise ValueError(f"b must sum to 1, got {sum(self.b)}")


RUNGE_KUTTA: dict[str, RungeKutta] = {
    method.name: method
    for method in (
        RungeKutta("euler", 1, ((),), (1.0,)),
        RungeKutta("heun", 2, ((), (1.0,)), (0.5, 0.5)),
        RungeKutta("midpoint", 2, ((), (0.5,)), (0.0, 1.0)),
        RungeKutta("kutta3", 3, ((), (0.5,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6)),
        RungeKutta("heun3", 3, ((), (1 / 3,), (0.0, 2 / 3)), (0.25, 0.0, 0.75)),
        RungeKutta("ralston3", 3, ((), (0.5,), (0.0, 0.75)), (2 / 9, 1 / 3, 4 / 9)),
        RungeKutta("van-der-houwen3", 3, ((), (8 / 15,), (0.25, 5 / 12)), (0.25, 0.0, 0.75)),
        RungeKutta("ssprk3", 3, ((), (1.0,), (0.25, 0.25)), (1 / 6, 1 / 6, 2 / 3)),
        RungeKutta("rk4", 4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    )
}
"""Explicit methods by name."""

Variable = Literal["time", "half_log_snr", "rho"]


@sampler
def runge_kutta(
    denoiser: Model, x: State, times: list[Scalar], *, method: str | RungeKutta = "heun", variable: Variable = "time"
) -> Steps:
    """A classical Runge-Kutta method on the whole right-hand side of the probability-flow ODE.

        "time"           dx/dt = f x + g²/(2σ) ε
        "half_log_snr"   dx/dλ = (d log α/dλ) x - σ ε
        "rho"            d(x/α)/dρ = ε,  ρ = σ/α      (with "heun": EDM's sampler)

    Unlike the exponential methods the first two discretise the linear part as well.

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times; stages lie at fractions of the interval in the chosen variable.
        method: a name in ``RUNGE_KUTTA``, or a tableau.
        variable: independent variable.
    Raises:
        ValueError: an unknown method or variable.
    """
    if not isinstance(method, RungeKutta) and method not in RUNGE_KUTTA:
        raise ValueError(f"method must be a RungeKutta or one of {', '.join(RUNGE_KUTTA)}, got {method!r}")
    if variable not in ("time", "half_log_snr", "rho"):
        raise ValueError(f"variable must be 'time', 'half_log_snr' or 'rho', got {variable!r}")
    schedule, tableau = denoiser.schedule, method if isinstance(method, RungeKutta) else RUNGE_KUTTA[method]

    def position(t: Scalar) -> Scalar:
        return t if variable == "time" else getattr(schedule, variable)(t)

    def time(value: Scalar) -> Scalar:
        if variable == "time":
            return value
        return schedule.time(value if variable == "half_log_snr" else -log(value))

    def slope(y: State, t: Scalar) -> State:
        if variable == "rho":
            return denoiser.noise(axpby(schedule.alpha(t), y, 0.0, y), t)
        drift, rate = schedule.drift(t), schedule.diffusion_squared(t) / (2.0 * schedule.sigma(t))
        if variable == "half_log_snr":
            # dλ/dt = -g²/(2σ²)
            drift, rate = -drift * schedule.sigma(t) / rate, -schedule.sigma(t)
        return axpby(drift, y, rate, denoiser.noise(y, t))

    for _, s, t in walk(times):
        start, length = position(s), position(t) - position(s)
        y = axpby(1.0 / schedule.alpha(s), x, 0.0, x) if variable == "rho" else x
        slopes: list[State] = []
        for c, row in zip(tableau.c, tableau.a, strict=True):
            stage = s if c == 0 else (t if c == 1 else time(start + c * length))
            slopes.append(slope(_advance(y, length, row, slopes), stage))
        y = _advance(y, length, tableau.b, slopes)
        x = axpby(schedule.alpha(t), y, 0.0, y) if variable == "rho" else y
        yield t, x


def _advance(y: State, length: Scalar, row: Sequence[float], slopes: list[State]) -> Any:
    terms: list[Any] = [item for weight, k in zip(row, slopes, strict=False) if weight for item in (length * weight, k)]
    return axpby(1.0, y, *terms) if terms else y


def rk45(
    denoiser: Model, x: Tensor, times: Sequence[float], *, rtol: float = 1e-5, atol: float = 1e-5
) -> tuple[Tensor, int]:
    """Adaptive Dormand-Prince 4(5) of scipy on dx/dt = f x + g²/(2σ) ε, the whole batch as one system, on the CPU.

    Args:
        denoiser: model.
        x: samples at ``times[0]``.
        times: first and last time.
        rtol: relative tolerance.
        atol: absolute tolerance.
    Returns:
        Samples at the last time and the number of model evaluations.
    Raises:
        DivergenceError: a slope is not finite, or scipy reports a failure.
    Source: the black-box solver of Song et al. 2021, appendix D.4.
    """
    if len(times) != 2:
        raise ValueError(f"times must be the first and the last time, got {len(times)} values")
    check_state(x)
    for name, value in {"rtol": rtol, "atol": atol}.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive, got {value}")
    schedule = denoiser.schedule
    start, end = (float(t) for t in columns(times, x, schedule))

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        state = torch.as_tensor(flat, dtype=x.dtype, device=x.device).reshape(x.shape)
        rate = schedule.diffusion_squared(t) / (2.0 * schedule.sigma(t))
        derivative = axpby(schedule.drift(t), state, rate, denoiser.noise(state, t))
        result = derivative.detach().cpu().double().flatten().numpy()
        # With a slope that is not finite scipy would try ever again, and never end.
        if not np.isfinite(result).all():
            raise DivergenceError(f"rk45 stopped at time {t:.6g}: the slope is not finite")
        return result

    with torch.no_grad():
        solution = solve_ivp(slope, (start, end), x.detach().cpu().double().flatten().numpy(), rtol=rtol, atol=atol)
    if not solution.success:
        raise DivergenceError(f"rk45 stopped at time {solution.t[-1]:.6g}: {solution.message}")
    return torch.as_tensor(solution.y[:, -1], dtype=x.dtype, device=x.device).reshape(x.shape), int(solution.nfev)

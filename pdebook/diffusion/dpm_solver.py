"""DPM-Solver: exponential Runge-Kutta methods for the diffusion ODE, in half the log signal-to-noise ratio.

``singlestep`` holds DPM-Solver-1, -2 and -3 (noise prediction) and DPM-Solver++ 2S and 3S (data prediction), ``fast_orders`` the
paper's recipe for a small budget of evaluations, ``adaptive`` its step-size control.

Source: Lu, Zhou, Bao, Chen, Li, Zhu: DPM-Solver, NeurIPS 2022; DPM-Solver++, 2022.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pdebook.diffusion.affine import State, axpby
from pdebook.diffusion.sampling import (
    DivergenceError,
    Model,
    Prediction,
    Steps,
    check_state,
    columns,
    exponential_step,
    predictor,
    sampler,
)
from pdebook.diffusion.scalars import Scalar

Variant = Literal["released", "taylor"]


def dpm_step(
    denoiser: Model,
    x: State,
    s: Scalar,
    t: Scalar,
    order: int,
    *,
    prediction: Prediction = "noise",
    variant: Variant = "released",
    r1: Scalar | None = None,
    r2: Scalar | None = None,
    known: list[Any] | None = None,
) -> Any:
    """One step of DPM-Solver-1, -2 or -3 from time s to t.

    With m the prediction, h = λ_t - λ_s, stages at λ_s + r h, and the weights w_k = scale h φ_k(z) of ``ExponentialStep``:

        order 1   x_t = ratio x_s + w_1 m_s
        order 2   x_t = ratio x_s + w_1 m_s + w_1/(2 r1) (m_1 - m_s)
        order 3   x_t = ratio x_s + w_1 m_s + w_2/r2 (m_2 - m_s)

    "taylor" takes the Taylor weights instead: w_2/r1 in order 2, and in order 3 the derivatives of the parabola through all three
    values.

    Args:
        denoiser: model.
        x: state at s.
        s: time before the step.
        t: time after it.
        order: 1, 2 or 3: the number of evaluations.
        prediction: "noise" (DPM-Solver) or "data" (DPM-Solver++).
        variant: "released" or "taylor".
        r1: first stage; 1/2 in order 2 and 1/3 in order 3 if left out.
        r2: second stage; 2/3 if left out. Any other value leaves order 3 with second-order accuracy, as released.
        known: predictions of this step that were evaluated before, in order; new ones are appended.
    Source: algorithms 1 and 2 and appendix D of the paper; "taylor" is an option of the official code.
    """
    schedule = denoiser.schedule
    predict = predictor(denoiser, prediction)
    known = [] if known is None else known

    step = exponential_step(schedule, s, t, prediction)
    m = _known(known, 0, predict, x, s)
    if order == 1:
        return axpby(step.ratio, x, step.weight(1), m)

    half_log_snr = schedule.half_log_snr(s)
    r1 = (0.5 if order == 2 else 1.0 / 3.0) if r1 is None else r1
    s1 = schedule.time(half_log_snr + r1 * step.h)
    inner = exponential_step(schedule, s, s1, prediction)
    m1 = _known(known, 1, predict, axpby(inner.ratio, x, inner.weight(1), m), s1)
    if order == 2:
        slope = step.weight(2) / r1 if variant == "taylor" else step.weight(1) / (2.0 * r1)
        return axpby(step.ratio, x, step.weight(1) - slope, m, slope, m1)

    r2 = 2.0 / 3.0 if r2 is None else r2
    s2 = schedule.time(half_log_snr + r2 * step.h)
    inner = exponential_step(schedule, s, s2, prediction)
    slope = inner.weight(2) * (r2 / r1)
    m2 = _known(known, 2, predict, axpby(inner.ratio, x, inner.weight(1) - slope, m, slope, m1), s2)
    if variant == "released":
        slope = step.weight(2) / r2
        return axpby(step.ratio, x, step.weight(1) - slope, m, slope, m2)
    # Derivatives at s of the parabola through (0, m), (r1, m1), (r2, m2), in units of h.
    gap = r2 - r1
    c1 = step.weight(2) * r2 / (r1 * gap) - step.weight(3) * 2.0 / (r1 * gap)
    c2 = -step.weight(2) * r1 / (r2 * gap) + step.weight(3) * 2.0 / (r2 * gap)
    return axpby(step.ratio, x, step.weight(1) - c1 - c2, m, c1, m1, c2, m2)


def _known(known: list[Any], stage: int, predict: Callable[[Any, Scalar], Any], point: State, time: Scalar) -> Any:
    """Prediction of a stage, evaluated if it is not known yet."""
    if len(known) == stage:
        known.append(predict(point, time))
    return known[stage]


@sampler
def singlestep(
    denoiser: Model,
    x: State,
    times: list[Scalar],
    *,
    order: int | Sequence[int] = 3,
    prediction: Prediction = "noise",
    variant: Variant = "released",
    r1: Scalar | None = None,
    r2: Scalar | None = None,
) -> Steps:
    """DPM-Solver (noise prediction) or DPM-Solver++ S (data prediction) on a fixed grid.

    ``order`` is one number, or one for each step. If ``times`` has one interval a step, the stages lie at λ_s + r h; if it has one
    interval an evaluation, a step of order k jumps over k intervals and takes its stages from the grid between, as the official
    code does on grids that are not uniform in λ.

    Raises:
        ValueError: an order that is not 1, 2 or 3, or orders that do not fit the grid.
    """
    intervals = len(times) - 1
    orders = [order] * intervals if isinstance(order, int) else list(order)
    if any(k not in (1, 2, 3) for k in orders):
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    if variant not in ("released", "taylor"):
        raise ValueError(f"variant must be 'released' or 'taylor', got {variant!r}")
    if len(orders) == intervals:
        for k, s, t in zip(orders, times[:-1], times[1:], strict=True):
            x = dpm_step(denoiser, x, s, t, k, prediction=prediction, variant=variant, r1=r1, r2=r2)
            yield t, x
    elif sum(orders) == intervals:
        i = 0
        for k in orders:
            knots = [denoiser.schedule.half_log_snr(t) for t in times[i : i + k + 1]]
            stages = [(knot - knots[0]) / (knots[-1] - knots[0]) for knot in knots[1:-1]]
            r1, r2 = [*stages, None, None][:2]
            x = dpm_step(denoiser, x, times[i], times[i + k], k, prediction=prediction, variant=variant, r1=r1, r2=r2)
            i += k
            yield times[i], x
    else:
        raise ValueError(
            f"order gives {len(orders)} steps with {sum(orders)} evaluations, which fit a grid of {len(orders)} or {sum(orders)} "
            f"intervals; times has {intervals}"
        )


def fast_orders(evaluations: int) -> list[int]:
    """Orders of DPM-Solver-fast: as many third-order steps as a budget allows, then what is left of it.

    K = 3 M': [3] * (M' - 1) + [2, 1];  K = 3 M' + 1: [3] * M' + [1];  K = 3 M' + 2: [3] * M' + [2]. They sum to K. Use them with
    ``time_grid(schedule, len(orders))``.

    Raises:
        ValueError: a budget below 1.
    Source: appendix B.4 of the paper.
    """
    if evaluations < 1:
        raise ValueError(f"evaluations must be at least 1, got {evaluations}")
    thirds, rest = divmod(evaluations, 3)
    return [3] * (thirds - 1) + [2, 1] if rest == 0 else [3] * thirds + [rest]


@dataclass(frozen=True)
class AdaptiveSolution:
    """Result of ``adaptive``.

    Attributes:
        x: state at the end.
        times: accepted times, the first and last included.
        attempts: (time, trial time, error estimate, accepted) of each attempt.
        evaluations: model evaluations; a rejected attempt costs one less than its order, since it starts where it stood.
    """

    x: Tensor
    times: tuple[float, ...]
    attempts: tuple[tuple[float, float, float, bool], ...]
    evaluations: int

    @property
    def accepted(self) -> int:
        """Number of accepted steps."""
        return sum(attempt[3] for attempt in self.attempts)

    @property
    def rejected(self) -> int:
        """Number of rejected attempts."""
        return len(self.attempts) - self.accepted


def adaptive(
    denoiser: Model,
    x: Tensor,
    times: Sequence[float],
    *,
    order: int = 3,
    prediction: Prediction = "noise",
    atol: float = 0.0078,
    rtol: float = 0.05,
    safety: float = 0.9,
    first_step: float = 0.05,
    max_attempts: int = 1000,
) -> AdaptiveSolution:
    """DPM-Solver-12 (``order=2``) or -23 (``order=3``): step size in λ chosen by an embedded lower-order step.

    Both steps share their evaluations. The error is the largest over the batch of the root mean square of
    (high - low) / max(atol, rtol max(\\|low\\|, \\|previous low\\|)); at most 1, the step is accepted; the next one is
    h safety error^(-1/order). The batch maximum couples the samples: a result depends on the batch it was computed in.
    One value a step is read on the host.

    Args:
        denoiser: model.
        x: samples at ``times[0]``.
        times: first and last time.
        order: 2 or 3.
        prediction: "noise" or "data".
        atol: absolute tolerance; 0.0078 is half a grey level of images in [-1, 1].
        rtol: relative tolerance.
        safety: factor on the next step.
        first_step: first step in λ.
        max_attempts: limit on accepted and rejected steps together.
    Raises:
        ValueError: options out of range.
        DivergenceError: a state that is not finite, or ``max_attempts`` reached.
    Source: algorithm of appendix C of the paper.
    """
    if order not in (2, 3):
        raise ValueError(f"order must be 2 (DPM-Solver-12) or 3 (DPM-Solver-23), got {order}")
    if len(times) != 2:
        raise ValueError(f"times must be the first and the last time, got {len(times)} values")
    for name, value in {"atol": atol, "rtol": rtol, "safety": safety, "first_step": first_step}.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive, got {value}")
    check_state(x)
    schedule = denoiser.schedule
    start, end = (float(t) for t in columns(times, x, schedule))
    last = float(schedule.half_log_snr(end))
    if not math.isfinite(last):
        raise ValueError(f"times must end where some noise is left, got {end}")
    s, h, previous = start, first_step, x
    accepted, attempts, evaluations = [start], [], 0
    known: list[Any] = []
    while s > end:
        here = float(schedule.half_log_snr(s))
        h = min(h, last - here)
        t = end if here + h >= last - 1e-9 else float(schedule.time(here + h))
        evaluations += order - len(known)
        high = dpm_step(denoiser, x, s, t, order, prediction=prediction, known=known)
        # Third order takes its first stage at 1/3; the step of second order inside it must use the same one.
        low = dpm_step(denoiser, x, s, t, order - 1, prediction=prediction, r1=(order - 2) / 3.0 or None, known=known)
        scale = (rtol * torch.maximum(low.abs(), previous.abs())).clamp(min=atol)
        error = float((((high - low) / scale) ** 2).flatten(1).mean(1).sqrt().max())
        attempts.append((s, t, error, error <= 1.0))
        arrived = error <= 1.0 and t == end
        if not math.isfinite(error) or (len(attempts) >= max_attempts and not arrived):
            reason = (
                "the error estimate is not finite"
                if not math.isfinite(error)
                else f"no end after {max_attempts} attempts"
            )
            raise DivergenceError(f"adaptive stopped at attempt {len(attempts)}, time {s:.6g}: {reason}")
        # After a rejection the prediction at (x, s) is still known; the released code evaluates it again.
        known = known[:1]
        if error <= 1.0:
            previous, x, s, known = low, high, t, []
            accepted.append(t)
        h = safety * h * max(error, 1e-8) ** (-1.0 / order)
    return AdaptiveSolution(x, tuple(accepted), tuple(attempts), evaluations)

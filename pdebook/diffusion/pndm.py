"""PNDM: classical weights for the network's noise predictions, and DDIM's own move for the state.

A classical method adds slopes to the state. A pseudo numerical method splits its step in two: the *gradient part* combines noise
predictions ε with the weights of a Runge-Kutta or Adams-Bashforth method, and the *transfer part* φ (``transfer``) carries the
state to the next noise level with the combined ε. ``pndm`` holds S-PNDM, F-PNDM and the PLMS of Stable Diffusion, ``ipndm`` the
form without a warm-up, ``fon`` the classical method to compare with.

Source: Liu, Ren, Lin, Zhao: Pseudo Numerical Methods for Diffusion Models on Manifolds, ICLR 2022.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from pdebook.diffusion.affine import State, axpby
from pdebook.diffusion.sampling import Model, Steps, sampler, step_orders, walk
from pdebook.diffusion.scalars import Scalar, sqrt
from pdebook.diffusion.schedules import DiscreteVP, NoiseSchedule

Warmup = Literal["runge-kutta", "heun", "lower"]

ADAMS: dict[int, tuple[float, ...]] = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Adams-Bashforth weights of the last 1 to 4 values at equal steps, newest first; each row sums to 1."""

RK4 = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
"""Weights of the four stages of the classical Runge-Kutta method."""

GROWTH = 2.0
"""Largest factor by which a pseudo Runge-Kutta step may stretch standard normal data, which the exact flow leaves alone."""


def transfer(schedule: NoiseSchedule, x: State, noise: State, s: Scalar, t: Scalar) -> State:
    """Transfer part φ: carry the state from the noise level of s to that of t with one noise ε.

        φ(x, ε, s, t) = α_t/α_s x + (σ_t - α_t/α_s σ_s) ε

    If x = α_s x_0 + σ_s ε, then φ is α_t x_0 + σ_t ε exactly, whatever the step: a noisy sample stays a noisy sample. With ρ = σ/α it
    is Euler's step of x/α in ρ, and so the factor of ε is α_t (ρ_t - ρ_s). The paper writes the same factor, for variance-preserving
    schedules with ᾱ = α², as -(ᾱ_t - ᾱ_s) / (sqrt(ᾱ_s) (sqrt((1 - ᾱ_t) ᾱ_s) + sqrt((1 - ᾱ_s) ᾱ_t))).

    Args:
        schedule: noise schedule.
        x: state at s.
        noise: ε, from one prediction (then this is a step of DDIM) or combined from several.
        s: time before the move.
        t: time after it; it may lie on either side.
    Source: the paper's transfer part, ``transfer`` in its code; Song, Meng and Ermon 2021 (DDIM), equation 12.
    """
    alpha = schedule.alpha(t)
    result: State = axpby(alpha / schedule.alpha(s), x, alpha * (schedule.rho(t) - schedule.rho(s)), noise)
    return result


def _combine(weights: Sequence[float], values: Sequence[State]) -> State:
    """Σ_i weights_i values_i."""
    if len(values) == 1:
        return values[0]
    terms: list[Any] = [item for pair in zip(weights, values, strict=True) for item in pair]
    result: State = axpby(*terms)
    return result


def pseudo_runge_kutta(denoiser: Model, x: State, e1: State, s: Scalar, t: Scalar) -> State:
    """Gradient part of the classical Runge-Kutta method, ε' = (e_1 + 2 e_2 + 2 e_3 + e_4)/6.

        e_2 = ε(φ(x, e_1, s, m), m),   e_3 = ε(φ(x, e_2, s, m), m),   e_4 = ε(φ(x, e_3, s, t), t),   m = (s + t)/2

    Args:
        denoiser: model.
        x: state at s.
        e1: ε(x, s).
        s: time before the step.
        t: time after it.
    Source: algorithm 2 of the paper.
    """
    schedule, middle = denoiser.schedule, (s + t) / 2
    e2 = denoiser.noise(transfer(schedule, x, e1, s, middle), middle)
    e3 = denoiser.noise(transfer(schedule, x, e2, s, middle), middle)
    e4 = denoiser.noise(transfer(schedule, x, e3, s, t), t)
    return _combine(RK4, [e1, e2, e3, e4])


def pseudo_heun(denoiser: Model, x: State, e1: State, s: Scalar, t: Scalar) -> State:
    """Gradient part of the improved Euler method, ε' = (e_1 + ε(φ(x, e_1, s, t), t))/2; arguments as ``pseudo_runge_kutta``."""
    e2 = denoiser.noise(transfer(denoiser.schedule, x, e1, s, t), t)
    return _combine((0.5, 0.5), [e1, e2])


def pseudo_steps(denoiser: Model, x: State, times: list[Scalar], order: int, warmup: Warmup) -> Steps:
    """The loop of ``pndm`` and ``ipndm``: a gradient part, then the transfer; only the first ε of a step enters the history."""
    past: list[State] = []
    for i, s, t in walk(times):
        past = [denoiser.noise(x, s), *past[: order - 1]]
        if warmup == "runge-kutta" and i < order - 1:
            noise = pseudo_runge_kutta(denoiser, x, past[0], s, t)
        elif warmup == "heun" and i == 0 and order > 1:
            noise = pseudo_heun(denoiser, x, past[0], s, t)
        else:
            noise = _combine(ADAMS[len(past)], past)
        x = transfer(denoiser.schedule, x, noise, s, t)
        yield t, x


def _check(times: list[Scalar], order: int) -> None:
    if isinstance(order, bool) or not isinstance(order, int) or order not in ADAMS:
        raise ValueError(f"order must be 1, 2, 3 or 4, got {order!r}")
    step_orders(len(times) - 1, order, "full")


@sampler
def ipndm(denoiser: Model, x: State, times: list[Scalar], *, order: int = 4) -> Steps:
    """Pseudo linear multistep method from the first step on: the order grows with the history, one evaluation a step.

        ε' = Σ_j w_j ε_{i-j},   x_{i+1} = φ(x_i, ε', t_i, t_{i+1}),   w = ADAMS[min(order, i + 1)]

    Second order in the limit, whatever the ``order`` from 2 on. Order 1 is DDIM.

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times; the weights are those of equal steps in t.
        order: number of past predictions that are combined, 1 to 4.
    Raises:
        ValueError: an order out of range, or fewer steps than the order.
    Source: "improved PNDM" of Zhang and Chen 2023 (DEIS).
    """
    _check(times, order)
    return pseudo_steps(denoiser, x, times, order, "lower")


def runge_kutta_growth(schedule: NoiseSchedule, s: Scalar, t: Scalar) -> Scalar:
    """Factor by which a pseudo Runge-Kutta step from s to t stretches standard normal data, over that of the exact flow.

    It is 1 up to the step's error. A step out of nearly pure noise multiplies the state by α_t/α_s, which may be tens, and leaves
    it to the combined ε to take that away again. Each stage hands its error to the next one, multiplied; where the product is large,
    so is the growth, and the step is useless.
    """
    middle = (s + t) / 2
    power = [schedule.alpha(u) ** 2 + schedule.sigma(u) ** 2 for u in (s, middle, t)]
    # On these data ε(x, t) = k(t) x, so that a stage is a number.
    k_s, k_middle, k_t = (schedule.sigma(u) / p for u, p in zip((s, middle, t), power, strict=True))

    def moved(noise: Scalar, u: Scalar) -> Scalar:
        return schedule.alpha(u) * (1.0 / schedule.alpha(s) + (schedule.rho(u) - schedule.rho(s)) * noise)

    e2 = k_middle * moved(k_s, middle)
    e3 = k_middle * moved(e2, middle)
    e4 = k_t * moved(e3, t)
    step = moved(RK4[0] * k_s + RK4[1] * e2 + RK4[2] * e3 + RK4[3] * e4, t)
    return sqrt(step**2 * power[0] / power[2])


@sampler
def pndm(
    denoiser: Model,
    x: State,
    times: list[Scalar],
    *,
    order: int = 4,
    warmup: Warmup = "runge-kutta",
    fallback: bool = True,
) -> Steps:
    """PNDM: pseudo linear multistep steps after a warm-up that fills their history.

        ε' = Σ_j w_j ε_{i-j},   x_{i+1} = φ(x_i, ε', t_i, t_{i+1}),   w = ADAMS[order]

    =========  =================================  ==============================  ============
    name       options                            warm-up                         evaluations
    =========  =================================  ==============================  ============
    F-PNDM     order=4, warmup="runge-kutta"      three pseudo Runge-Kutta steps  steps + 9
    S-PNDM     order=2, warmup="heun"             one pseudo improved Euler step  steps + 1
    PLMS       order=4, warmup="heun"             the same, then lower orders     steps + 1
    iPNDM      order=4, warmup="lower"            lower orders                    steps
    =========  =================================  ==============================  ============

    PLMS is what Stable Diffusion calls so: its first step is evaluated twice ("skip_prk_steps"). Only the first ε of a warm-up
    step enters the history. All are of second order in the limit: the transfer weighs ε within a step unevenly, the classical
    weights evenly, and the difference is of third order in each step.

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times; the weights are those of equal steps in t, and the midpoints of the warm-up lie midway in t.
        order: number of past predictions that are combined, 1 to 4; 1 is DDIM.
        warmup: "runge-kutta", "heun" or "lower".
        fallback: warm up with lower orders, and warn, where a pseudo Runge-Kutta step would be unstable (see
            ``runge_kutta_growth``); False takes the step all the same.
    Raises:
        ValueError: an option out of range, or fewer steps than the order.
    Source: algorithm 2 of the paper, and ``runner/method.py`` of the official code.
    """
    _check(times, order)
    if warmup not in ("runge-kutta", "heun", "lower"):
        raise ValueError(f"warmup must be 'runge-kutta', 'heun' or 'lower', got {warmup!r}")
    if warmup == "runge-kutta" and fallback:
        # Read once, before the first step; growth above the limit in one sample changes the warm-up of all.
        first = list(pairwise(times))[: order - 1]
        growth = max(
            (float(torch.as_tensor(runge_kutta_growth(denoiser.schedule, s, t)).max()) for s, t in first), default=1.0
        )
        if not growth <= GROWTH:
            warnings.warn(
                f"the pseudo Runge-Kutta warm-up on these times would stretch standard normal data by {growth:.1f}; "
                "lower orders warm up instead (fallback=False keeps it, more steps or smaller first steps cure it)",
                RuntimeWarning,
                stacklevel=4,
            )
            warmup = "lower"
    return pseudo_steps(denoiser, x, times, order, warmup)


@sampler
def fon(
    denoiser: Model, x: State, times: list[Scalar], *, variant: Literal["faithful", "released"] = "faithful"
) -> Steps:
    """FON, the classical method that PNDM is compared with: Runge-Kutta 4, then Adams-Bashforth 4, on the whole right-hand side.

        dx/dt = f(t) x + g(t)²/(2σ(t)) ε(x, t)

    The same weights as F-PNDM and the same steps + 9 evaluations, but straight moves: on point-mass data, where F-PNDM is exact,
    it is not. Fourth order on equal steps; on others the weights don't fit, and second order is left.

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times; the weights are those of equal steps in t.
        variant: "released" is the official code: slopes are increments of DDIM over one of N noise levels, and all stages of a
            Runge-Kutta step take f, g, σ and the linear part from its *start*, only ε from the stage, by which the step is of first
            order.
    Raises:
        ValueError: an unknown variant, fewer steps than four, or a "released" slope less than a level above t = 0.
    Source: section 4 of the paper, and the official code.
    """
    _check(times, 4)
    if variant not in ("faithful", "released"):
        raise ValueError(f"variant must be 'faithful' or 'released', got {variant!r}")
    schedule = denoiser.schedule
    levels = schedule.steps if isinstance(schedule, DiscreteVP) else 1000
    lowest = min(float(torch.as_tensor(s, dtype=torch.float64).min()) for s in times[:-1])
    if variant == "released" and lowest < (1.0 - 1e-9) / levels:
        raise ValueError(f"times before the last must be at least 1/{levels} in the released variant, got {lowest}")

    def slope(linear: State, noise: State, t: Scalar) -> State:
        if variant == "released":
            # Their increment over one level, x(t - 1/N) - x(t), times -N.
            moved = transfer(schedule, linear, noise, t, t - 1.0 / levels)
            return axpby(float(levels), linear, -float(levels), moved)
        return axpby(schedule.drift(t), linear, schedule.diffusion_squared(t) / (2.0 * schedule.sigma(t)), noise)

    past: list[State] = []
    for i, s, t in walk(times):
        h = t - s
        past = [slope(x, denoiser.noise(x, s), s), *past[:3]]
        weights, slopes = ADAMS[len(past)], past
        if i < 3:
            weights, slopes = RK4, past[:1]
            for fraction in (0.5, 0.5, 1.0):
                at = t if fraction == 1.0 else (s + t) / 2
                stage = axpby(1.0, x, fraction * h, slopes[-1])
                noise = denoiser.noise(stage, at)
                slopes = [*slopes, slope(stage, noise, at) if variant == "faithful" else slope(x, noise, s)]
        x = axpby(1.0, x, h, _combine(weights, slopes))
        yield t, x


class OfficialLevels(DiscreteVP):
    """The noise levels as the official code reads them: between two levels it takes the one of the index truncated to zero.

    Time t = (n + 2)/N stands for its step n. Only the midpoints of a warm-up lie between levels, and only if ``skip`` is odd.
    """

    def log_alpha(self, t: Scalar) -> Scalar:
        """Log α of level trunc(n) + 1, n = N t - 2."""
        # Rounding of t must not change the integer part.
        n = torch.round(torch.as_tensor(t, dtype=torch.float64) * self.steps - 2.0, decimals=6)
        level = (n.trunc() + 2.0) / self.steps
        return super().log_alpha(level if isinstance(t, Tensor) else float(level))


def official_step(t: Scalar, schedule: NoiseSchedule) -> Scalar:
    """The step n = N t - 2 that the official code tells its network at time t (``time_input`` of ``Denoiser``)."""
    steps = schedule.steps if isinstance(schedule, DiscreteVP) else 1000
    return t * steps - 2.0


def discrete_times(schedule: DiscreteVP, steps: int, *, official_offset: bool = False) -> list[float]:
    """Falling times for the steps 0, skip, 2 skip, ... < N of the model, backwards, and -1 at the end; skip = N // steps.

    The first step is the largest multiple of skip below N: one or two steps begin far from pure noise.

    Step n is level n, at t = (n + 1)/N, and -1 is clean data at t = 0. The official code is off by one: it shows its network step n
    at level n + 1, and ends at level 0. ``official_offset=True`` gives its times, t = (n + 2)/N, for use with ``OfficialLevels`` and
    ``official_step``.

    Args:
        schedule: the model's N noise levels.
        steps: how many steps are wanted; it becomes ceil(N / skip) steps, more than asked where ``steps`` does not divide N.
        official_offset: whether to reproduce the official code.
    Raises:
        ValueError: a schedule without levels, steps that are not between 1 and N, or a first step beyond the last level.
    Source: ``runner/runner.py`` and ``runner/method.py`` of the official code.
    """
    if not isinstance(schedule, DiscreteVP):
        raise ValueError(f"schedule must be a DiscreteVP, got {type(schedule).__name__}")
    levels = schedule.steps
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= levels:
        raise ValueError(f"steps must be between 1 and the model's {levels}, got {steps!r}")
    numbers = [*reversed(range(0, levels, levels // steps)), -1]
    times = [(n + (2 if official_offset else 1)) / levels for n in numbers]
    if times[0] > schedule.t_max:
        raise ValueError(
            f"steps must leave the first step below the last level, {schedule.t_max}: {steps} begin at {times[0]}"
        )
    return times

"""Multistep exponential methods: one model evaluation a step, the past does the rest.

``multistep`` holds DPM-Solver++ 2M and 3M (data prediction) and their noise-prediction twins, ``sde_multistep`` SDE-DPM-Solver++.

Source: Lu, Zhou, Bao, Chen, Li, Zhu: DPM-Solver++, 2022, and the official code.
"""

from typing import Any, Literal

from pdebook.diffusion.affine import State, axpby
from pdebook.diffusion.sampling import (
    Ending,
    Model,
    Prediction,
    Steps,
    exponential_step,
    predictor,
    sampler,
    step_orders,
    walk,
)
from pdebook.diffusion.scalars import Scalar, exp, expm1, sqrt
from pdebook.rng import NoiseSource


@sampler
def multistep(
    denoiser: Model,
    x: State,
    times: list[Scalar],
    *,
    order: int = 2,
    prediction: Prediction = "data",
    variant: Literal["released", "taylor"] = "released",
    ending: Ending = "auto",
) -> Steps:
    """DPM-Solver++ 1, 2M or 3M: differences of past predictions stand for the derivatives in λ.

    With m_0 the newest prediction, r_k = h_k / h the ratios of past steps to this one, w_k = scale h φ_k(z), and the divided
    differences D_10 = (m_0 - m_1)/r_0, D_11 = (m_1 - m_2)/r_1:

        order 1   x_t = ratio x_s + w_1 m_0                      (DDIM)
        order 2   ... + w_1/2 D_10                               ("taylor": w_2 D_10)
        order 3   ... + w_2 D_1 + w_3 D_2,   D_1 = D_10 + r_0/(r_0 + r_1) (D_10 - D_11)

    As released, D_2 = (D_10 - D_11)/(r_0 + r_1), which is half of h² m'': third order only in name, second order in the limit.
    "taylor" uses the full 2 (D_10 - D_11)/(r_0 + r_1).

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times.
        order: 1, 2 or 3; the first steps build it up.
        prediction: "data" (DPM-Solver++) or "noise".
        variant: "released" or "taylor" (the corrected weights).
        ending: see ``step_orders``.
    Raises:
        ValueError: an unknown option, or fewer steps than the order.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    if variant not in ("released", "taylor"):
        raise ValueError(f"variant must be 'released' or 'taylor', got {variant!r}")
    predict = predictor(denoiser, prediction)
    orders = step_orders(len(times) - 1, order, ending)
    past: list[State] = []
    lengths: list[Scalar] = []
    for i, s, t in walk(times):
        step = exponential_step(denoiser.schedule, s, t, prediction)
        past = [predict(x, s), *past[: order - 1]]
        w1, rest = step.weight(1), []
        if orders[i] > 1:
            r0 = lengths[0] / step.h
        if orders[i] == 2:
            slope = (step.weight(2) if variant == "taylor" else 0.5 * w1) / r0
            rest = [-slope, past[1]]
            w1 = w1 + slope
        elif orders[i] == 3:
            r1 = lengths[1] / step.h
            curvature = (2.0 if variant == "taylor" else 1.0) * step.weight(3) / (r0 + r1)
            c10 = step.weight(2) * (1.0 + r0 / (r0 + r1)) + curvature
            c11 = -step.weight(2) * r0 / (r0 + r1) - curvature
            rest = [c11 / r1 - c10 / r0, past[1], -c11 / r1, past[2]]
            w1 = w1 + c10 / r0
        x = axpby(step.ratio, x, w1, past[0], *rest)
        lengths = [step.h, *lengths[:1]]
        yield t, x


@sampler
def sde_multistep(
    denoiser: Model,
    x: State,
    times: list[Scalar],
    *,
    order: int = 2,
    eta: float = 1.0,
    noise: Any = None,
    ending: Ending = "auto",
) -> Steps:
    """SDE-DPM-Solver++ 1 and 2M: the reverse-time SDE, its linear part and its noise integrated exactly.

        x_t = σ_t/σ_s e^{-η h} x_s + α_t (1 - e^{-(1+η) h}) (m_0 + 1/2 D_10) + σ_t sqrt(1 - e^{-2 η h}) z

    with data prediction m; η = 1 is the reverse SDE whose marginals are those of the ODE, η = 0 the ODE (DPM-Solver++ 2M).

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times.
        order: 1 or 2.
        eta: amount of noise, at least 0.
        noise: source of draws, ``noise(k, x)`` for step k; ``NoiseSource(0)`` if left out.
        ending: see ``step_orders``.
    Raises:
        ValueError: an unknown option, or fewer steps than the order.
    Source: DPM-Solver++, section 5 and appendix B.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    if not eta >= 0:
        raise ValueError(f"eta must be at least 0, got {eta}")
    noise = NoiseSource(0) if noise is None else noise
    orders = step_orders(len(times) - 1, order, ending)
    past: State | None = None
    last: Scalar = 0.0
    for i, s, t in walk(times):
        step = exponential_step(denoiser.schedule, s, t, "data")
        m = denoiser.data(x, s)
        weight = -step.scale * expm1(-(1.0 + eta) * step.h)
        slope = 0.5 * weight * step.h / last if orders[i] == 2 else 0.0
        spread = denoiser.schedule.sigma(t) * sqrt(-expm1(-2.0 * eta * step.h))
        draw = noise(i, x)
        rest = [] if orders[i] == 1 else [-slope, past]
        x = axpby(step.ratio * exp(-eta * step.h), x, weight + slope, m, spread, draw, *rest)
        past, last = m, step.h
        yield t, x

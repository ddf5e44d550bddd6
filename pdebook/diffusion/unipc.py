"""UniPC: a multistep predictor, and a corrector that costs no evaluation.

Source: Zhao, Bai, Rao, Zhou, Lu: UniPC, NeurIPS 2023, and the official code.
"""

import math
from typing import Literal

from pdebook.diffusion.affine import State, axpby
from pdebook.diffusion.sampling import (
    Ending,
    ExponentialStep,
    Model,
    Prediction,
    Steps,
    exponential_step,
    predictor,
    sampler,
    step_orders,
    walk,
)
from pdebook.diffusion.scalars import Scalar, solve_moments


def unipc_weights(step: ExponentialStep, nodes: list[Scalar], b: Literal["bh1", "bh2"]) -> list[Scalar]:
    """Weights of the differences (m(λ_s + r_j h) - m_s) for nodes r_j, all but the last of them in the past.

        x_t = ratio x_s + w_1 m_s + scale B Σ_j ρ_j (m_j - m_s)/r_j,   Σ_j r_j^{q-1} ρ_j = q! h φ_{q+1}(z)/B,   q = 1, ..., p

    with B = h (bh1) or h φ_1(z) (bh2). A single unknown is set to ρ = 1/2, its limit for h -> 0, as released.
    """
    size = step.h if b == "bh1" else step.weight(1) / step.scale
    if len(nodes) == 1:
        return [0.5 * step.scale * size / nodes[0]]
    moments = [math.factorial(q) * step.weight(q + 1) / step.scale / size for q in range(1, len(nodes) + 1)]
    return [step.scale * size * rho / r for rho, r in zip(solve_moments(nodes, moments), nodes, strict=True)]


@sampler
def unipc(
    denoiser: Model,
    x: State,
    times: list[Scalar],
    *,
    order: int = 2,
    prediction: Prediction = "data",
    b: Literal["bh1", "bh2"] = "bh2",
    corrector: bool = True,
    ending: Ending = "lower",
) -> Steps:
    """UniPC-p: predict with p - 1 past values, evaluate once, correct with the new value, which then serves the next step.

    The corrector raises the order to p + 1. The prediction that was made at the *predicted* point is kept, so a step costs one
    evaluation. With ``ending`` "lower" (as released) the order falls to 1 and the last step is not corrected, which limits the
    whole to second order; "full" keeps the order and corrects the last step too, for one more evaluation at the end.

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times.
        order: p >= 1; the first steps build it up.
        prediction: "data" or "noise".
        b: the function B: "bh1" is h, "bh2" is e^h - 1.
        corrector: whether to correct.
        ending: see ``step_orders``.
    Raises:
        ValueError: an unknown option, or fewer steps than the order.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    if b not in ("bh1", "bh2"):
        raise ValueError(f"b must be 'bh1' or 'bh2', got {b!r}")
    schedule, predict = denoiser.schedule, predictor(denoiser, prediction)
    orders = step_orders(len(times) - 1, order, ending)
    correct_last = corrector and orders[-1] == order and ending != "lower"
    newest = predict(x, times[0])
    past: list[tuple[Scalar, State]] = []
    for i, s, t in walk(times):
        step = exponential_step(schedule, s, t, prediction)
        here = schedule.half_log_snr(s)
        history = past[: orders[i] - 1]
        nodes = [(lam - here) / step.h for lam, _ in history]
        values = [value for _, value in history]
        predicted = _update(step, x, newest, nodes, values, b)
        past = [(here, newest), *past[: order - 1]]
        last = i == len(orders) - 1
        if last and not correct_last:
            yield t, predicted
            return
        new = predict(predicted, t)
        x = _update(step, x, newest, [*nodes, 1.0], [*values, new], b) if corrector else predicted
        newest = new
        yield t, x


def _update(
    step: ExponentialStep, x: State, m: State, nodes: list[Scalar], values: list[State], b: Literal["bh1", "bh2"]
) -> State:
    weights = unipc_weights(step, nodes, b) if nodes else []
    pairs = [item for pair in zip(weights, values, strict=True) for item in pair]
    return axpby(step.ratio, x, step.weight(1) - sum(weights), m, *pairs)

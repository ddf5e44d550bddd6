"""DPM-Solver-v3: what is interpolated is chosen by statistics of the model, one choice for each noise level and dimension.

``dpm_solver_v3`` is the multistep predictor-corrector, ``Statistics`` (of ``model_statistics``) what it needs to know of a model,
and ``shipped`` gives the statistics of the book's problems.

Source: Zheng, Lu, Chen, Zhu: DPM-Solver-v3, NeurIPS 2023, and the official code.
"""

# ruff: noqa: E741 - l is the paper's name

import math
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from pdebook import weights
from pdebook.data.digits import digits
from pdebook.diffusion.affine import Affine, State, axpby
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.digits import score_network
from pdebook.diffusion.model_statistics import Statistics
from pdebook.diffusion.sampling import Ending, Model, Steps, sampler, step_orders, walk
from pdebook.diffusion.scalars import Scalar
from pdebook.diffusion.schedules import VPLinear
from pdebook.diffusion.testbeds import digits_gm
from pdebook.rng import fold_in, normal, permutation, uniform

__all__ = [
    "Statistics",
    "digit_points",
    "dpm_solver_v3",
    "make_mixture_statistics",
    "make_network_statistics",
    "mixture_points",
    "shipped",
]

Corrector = Literal["none", "true", "pseudo"]


@sampler
def dpm_solver_v3(
    denoiser: Model,
    x: State,
    times: list[Scalar],
    *,
    statistics: Statistics,
    order: int = 2,
    pseudo_predictor: bool = False,
    corrector: Corrector = "pseudo",
    corrector_interval: tuple[float, float] = (-math.inf, math.inf),
    ending: Ending = "lower",
) -> Steps:
    """DPM-Solver-v3, multistep: predict with the last p values of f, evaluate once, correct with the new value.

    A step costs one evaluation; the last one is not corrected. The correction moves x and leaves f as it was evaluated, at the
    predicted point. Each update is ``Statistics.step`` times α; its weights are arrays over a sample's dimensions.

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times. They are snapped to the statistics' grid (``Statistics.snap``), and the snapped times are what
            ``iterate`` yields; the ends must lie on it.
        statistics: of this model (without guidance), for its schedule and the shape of a sample.
        order: p >= 1, the order of the predictor; the first steps build it up.
        pseudo_predictor: take derivative k from k + 1 values only; lower order, and steadier with few steps.
        corrector: "none"; "true" with as many values as the predictor, the new one among them; "pseudo" with one more, each
            derivative from as few as it needs.
        corrector_interval: times (low, high) at which to correct. The official code's ``half`` corrects above 0.5; its
            documentation says below.
        ending: see ``step_orders``.
    Raises:
        ValueError: statistics of another schedule or shape, times that can't be snapped, an unknown option, or fewer steps
            than the order.
    Source: section 3 of the paper and its algorithm for the multistep solver; the official code.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    if corrector not in ("none", "true", "pseudo"):
        raise ValueError(f"corrector must be 'none', 'true' or 'pseudo', got {corrector!r}")
    schedule = denoiser.schedule
    statistics.check(schedule, x)
    orders = step_orders(len(times) - 1, order, ending)
    levels, snapped = statistics.snap(schedule, times)
    device = x.device if isinstance(x, Tensor) else torch.device("cpu")
    one = torch.ones((), dtype=x.dtype, device=device) if isinstance(x, Tensor) else Affine.symbol("one")
    offset = bool(statistics.b.any())
    l = statistics.l.to(device)
    low, high = corrector_interval

    def value(x: State, i: int) -> Any:
        """f = (1 - l) x/α - x_0: unlike (σ ε - l x)/α, it does not cancel where nearly all is noise."""
        return axpby((1.0 - l[levels[i]]) / schedule.alpha(snapped[i]), x, -1.0, denoiser.data(x, snapped[i]))

    def update(x: State, i: int, known: list[tuple[int, Any]], pseudo: bool) -> Any:
        alpha = schedule.alpha(snapped[i + 1])
        decay, constant, weights = statistics.step(tuple(level for level, _ in known), levels[i + 1], pseudo, device)
        pairs = [item for weight, (_, f) in zip(weights, known, strict=True) for item in (alpha * weight, f)]
        pairs += [alpha * constant, one] if offset else []
        return axpby(alpha / schedule.alpha(snapped[i]) * decay, x, *pairs)

    past = [(levels[0], value(x, 0))]
    for i, _, t in walk(list(snapped)):
        predicted = update(x, i, past[: orders[i]], pseudo_predictor)
        if i == len(orders) - 1:
            yield t, predicted
            return
        new = (levels[i + 1], value(predicted, i + 1))
        size = orders[i] + (corrector == "pseudo")
        correct = corrector != "none" and size > 1 and low <= t <= high
        known = [past[0], new, *past[1 : size - 1]]
        x = update(x, i, known, corrector == "pseudo") if correct else predicted
        past = [new, *past[: order - 1]]
        yield t, x


# -------------------- statistics of the book's problems

POINTS = 512
"""Points from which the shipped statistics are estimated."""

INTERVALS = 120
"""Intervals of their grid, which 5, 8, 10, 12, 15, 20 and 30 steps divide."""


def mixture_points(points: int, seed: int = 0) -> Float64[Tensor, "points 64"]:
    """Samples of the mixture ``digits_gm``."""
    index, dim = torch.arange(points), digits_gm().mixture.dim
    draws = uniform(fold_in(seed, "components"), index, dtype=torch.float64)
    return digits_gm().mixture.sample(
        draws.flatten(), normal(fold_in(seed, "samples"), index, (dim,), dtype=torch.float64)
    )


def digit_points(points: int, seed: int = 0) -> Float64[Tensor, "points 64"]:
    """Different images of the digits, at most all 1797."""
    images = digits(dtype=torch.float64)[0].flatten(1)
    return images[permutation(fold_in(seed, "images"), len(images))[:points]]


def _made(statistics: Statistics) -> weights.Made:
    assert statistics.errors is not None
    named = zip(("l", "s", "b"), statistics.errors, strict=True)
    return weights.Made(
        statistics.tensors(torch.float32), {f"mean_standard_error_{name}": float(error.mean()) for name, error in named}
    )


def make_mixture_statistics(seed: int = 0) -> weights.Made:
    """Statistics of ``digits_gm`` from samples of the mixture."""
    bed = digits_gm()
    return _made(
        Statistics.estimate(
            bed.mixture.denoiser(bed.schedule),
            mixture_points(POINTS, seed),
            intervals=INTERVALS,
            end=bed.end,
            seed=seed,
        )
    )


def make_network_statistics(seed: int = 0) -> weights.Made:
    """Statistics of the shipped score network, without a class, from the digits that it was trained on."""
    net = Denoiser(score_network().double(), VPLinear(), predicts="velocity", time_input="half_log_snr")
    return _made(Statistics.estimate(net, digit_points(POINTS, seed), intervals=INTERVALS, seed=seed))


@cache
def shipped(problem: str) -> Statistics | None:
    """Statistics that the book ships for a problem of the arena, or None: "digits_gm", or "digits_net" without a class."""
    if problem not in ("digits_gm", "digits_net"):
        return None
    name = f"dpm_solver_v3_{problem}"
    return Statistics.from_tensors(weights.load(name), name)

"""Schedules as a family: derivatives, inverses, identities, precision; and the grids of times."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pdebook.diffusion.schedules import (
    EDM,
    SCHEDULES,
    VE,
    DiscreteVP,
    LinearFlow,
    NoiseSchedule,
    VariancePreserving,
    VPCosine,
    VPLinear,
    ddpm_betas,
    scaled_linear_betas,
    time_grid,
)

BUILT = {name: build() for name, build in SCHEDULES.items()}
family = pytest.mark.parametrize("schedule", BUILT.values(), ids=BUILT)


def points(schedule: NoiseSchedule, n: int = 41) -> list[float]:
    """Times over the whole range, the smallest 1e-4; off the knots of a discrete schedule."""
    low, high = math.log(1.0001e-4), math.log(schedule.t_max * 0.99997)
    return [math.exp(low + (high - low) * i / (n - 1)) for i in range(n)]


@family
def test_derivatives(schedule: NoiseSchedule) -> None:
    t = torch.tensor(points(schedule), dtype=torch.float64, requires_grad=True)
    log_alpha, half_log_snr = schedule.log_alpha(t), schedule.half_log_snr(t)
    assert isinstance(log_alpha, Tensor)
    assert isinstance(half_log_snr, Tensor)
    (drift,) = torch.autograd.grad(log_alpha.sum(), t)
    (rate,) = torch.autograd.grad(half_log_snr.sum(), t)
    torch.testing.assert_close(torch.as_tensor(schedule.drift(t)), drift, rtol=1e-11, atol=1e-13)
    g2 = -2.0 * torch.as_tensor(schedule.sigma(t)) ** 2 * rate
    torch.testing.assert_close(torch.as_tensor(schedule.diffusion_squared(t)), g2, rtol=1e-10, atol=1e-13)


@family
def test_half_log_snr_falls_and_is_inverted(schedule: NoiseSchedule) -> None:
    times = points(schedule)
    levels = [float(schedule.half_log_snr(t)) for t in times]
    assert all(b < a for a, b in pairwise(levels))
    assert [schedule.time(level) for level in levels] == pytest.approx(times, rel=1e-12)


@given(name=st.sampled_from(list(SCHEDULES)), fraction=st.floats(0, 1))
def test_inverse_from_the_other_side(name: str, fraction: float) -> None:
    schedule = BUILT[name]
    high, low = float(schedule.half_log_snr(1e-4)), float(schedule.half_log_snr(schedule.t_max))
    level = low + fraction * (high - low)
    assert schedule.half_log_snr(schedule.time(level)) == pytest.approx(level, rel=1e-11, abs=1e-11)


@family
def test_floats_and_tensors_agree(schedule: NoiseSchedule, device: torch.device) -> None:
    times = points(schedule)
    t = torch.tensor(times, dtype=torch.float64, device=device).reshape(-1, 1)
    for name in ("log_alpha", "log_sigma", "alpha", "sigma", "rho", "half_log_snr", "drift", "diffusion_squared"):
        function = getattr(schedule, name)
        values = function(t)
        assert values.shape == t.shape
        assert values.dtype == torch.float64
        assert all(isinstance(function(x), float) for x in times)
        torch.testing.assert_close(values.flatten().tolist(), [function(x) for x in times], rtol=1e-14, atol=1e-14)
    levels = [schedule.half_log_snr(x) for x in times]
    inverse = schedule.time(torch.tensor(levels, dtype=torch.float64, device=device))
    assert isinstance(inverse, Tensor)
    torch.testing.assert_close(inverse.tolist(), [schedule.time(x) for x in levels], rtol=1e-14, atol=1e-14)


@family
def test_the_parts_belong_together(schedule: NoiseSchedule) -> None:
    for t in points(schedule):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        assert schedule.half_log_snr(t) == pytest.approx(math.log(alpha / sigma), rel=1e-10, abs=1e-12)
        assert schedule.rho(t) == pytest.approx(sigma / alpha, rel=1e-13)
        if isinstance(schedule, VariancePreserving):
            assert alpha**2 + sigma**2 == pytest.approx(1.0, rel=1e-14)
        elif isinstance(schedule, LinearFlow):
            assert alpha + sigma == pytest.approx(1.0, rel=1e-14)
        else:
            assert alpha == 1.0


def test_pinned_values() -> None:
    vp = VPLinear()
    assert vp.half_log_snr(1.0) == pytest.approx(-5.024978406659, abs=5e-13)
    assert vp.half_log_snr(1e-3) == pytest.approx(4.557714932730, abs=5e-13)
    assert vp.time(0.0) == pytest.approx(0.258960262433, abs=5e-13)
    assert EDM().sigma(3.0) == pytest.approx(3.0, rel=1e-15)
    assert (VE().sigma(0.0), VE().sigma(1.0)) == (pytest.approx(0.01), pytest.approx(50.0))
    cosine = VPCosine()
    assert cosine.alpha(0.5) == pytest.approx(
        math.cos(0.254 / 0.504 * math.pi / 2) / math.cos(0.002 / 0.252 * math.pi / 2)
    )
    assert LinearFlow().time(0.0) == pytest.approx(0.5, rel=1e-15)


def test_nothing_cancels_near_zero() -> None:
    """λ at t = 1e-4 to the last digits, against extended precision."""
    for t in (1e-4, 1.7e-4, 3e-3):
        time = np.longdouble(t)
        vp = VPLinear()
        beta = np.longdouble(vp.beta_max) - np.longdouble(vp.beta_min)
        angle = np.longdouble("3.14159265358979323846264338327950288") / 2
        offset = np.longdouble(VPCosine().offset)
        first, now = angle * offset / (1 + offset), angle * (time + offset) / (1 + offset)
        for schedule, log_alpha in (
            (vp, -time * time * beta / 4 - time * np.longdouble(vp.beta_min) / 2),
            (VPCosine(), np.log(np.cos(now)) - np.log(np.cos(first))),
        ):
            exact = log_alpha - np.log(-np.expm1(2 * log_alpha)) / 2
            # Extended precision itself leaves 1e-13 of the cosine's difference of logarithms.
            assert abs(float(schedule.half_log_snr(t) - exact)) < 2e-13
            assert schedule.time(float(exact)) == pytest.approx(t, rel=1e-12)


@pytest.mark.parametrize("betas", [ddpm_betas(), scaled_linear_betas()], ids=["ddpm", "stable-diffusion"])
def test_discrete_levels_are_hit(betas: Tensor) -> None:
    schedule = DiscreteVP.from_betas(betas)
    levels = torch.cumprod(1 - betas, 0)
    kept = round(schedule.t_max * schedule.steps)
    assert kept > 900
    for n in (0, 1, 17, 500, kept - 1):
        assert schedule.alpha((n + 1) / schedule.steps) == pytest.approx(float(levels[n]) ** 0.5, rel=1e-13)
    middle = 0.5 * (levels[16].log() + levels[17].log())
    assert schedule.log_alpha(17.5 / schedule.steps) == pytest.approx(0.5 * float(middle), rel=1e-12)


def test_betas_of_released_models() -> None:
    assert (ddpm_betas()[0], ddpm_betas()[-1], len(ddpm_betas())) == (1e-4, 0.02, 1000)
    square_roots = scaled_linear_betas().sqrt()
    assert (float(square_roots[0] ** 2), float(square_roots[-1] ** 2)) == (pytest.approx(0.00085), pytest.approx(0.012))
    torch.testing.assert_close(square_roots.diff(), square_roots.diff()[:1].expand(999), rtol=1e-9, atol=0)


def test_steep_tail_is_cut() -> None:
    levels = torch.tensor([0.9, 0.5, 1e-3, 1e-6], dtype=torch.float64)
    schedule = DiscreteVP(levels)
    assert schedule.t_max == 0.75
    assert schedule.half_log_snr(0.75) > -5.1
    assert DiscreteVP(levels, clip=-10.0).t_max == 1.0


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DiscreteVP([0.9, 0.5, 0.5, 0.1]), "must fall strictly .* index 2"),
        (lambda: DiscreteVP([0.5, 0.9]), "monotone signal-to-noise ratio.* index 1"),
        (lambda: DiscreteVP([1.0, 0.5]), "alphas_cumprod must lie strictly between 0 and 1"),
        (lambda: DiscreteVP([0.5, math.nan]), "alphas_cumprod must lie strictly between 0 and 1"),
        (lambda: DiscreteVP([0.5]), r"at least 2 levels, got shape \(1,\)"),
        (lambda: DiscreteVP(torch.full((2, 2), 0.5)), r"got shape \(2, 2\)"),
        (lambda: DiscreteVP([0.9, 1e-7]), "clip = -5.1 keeps 1 of 2 levels"),
        (lambda: DiscreteVP.from_betas([0.1, 1.0]), "betas must lie strictly between 0 and 1"),
        (lambda: DiscreteVP.from_betas([0.1, -0.1]), "betas must lie strictly between 0 and 1"),
        (lambda: VPLinear(beta_min=0.0), "beta_min and beta_max must satisfy .* got 0.0, 20.0"),
        (lambda: VPLinear(beta_min=3.0, beta_max=2.0), "got 3.0, 2.0"),
        (lambda: VE(sigma_min=2.0, sigma_max=1.0), "sigma_min must be positive and below sigma_max, got 2.0, 1.0"),
    ],
)
def test_bad_schedules(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


# -------------------- grids

UNIFORM: dict[str, Any] = {
    "half_log_snr": lambda schedule, t: schedule.half_log_snr(t),
    "time": lambda schedule, t: t,
    "quadratic": lambda schedule, t: math.sqrt(t),
    "rho": lambda schedule, t: schedule.rho(t) ** (1 / 7),
}


@family
@pytest.mark.parametrize("kind", UNIFORM)
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_each_grid_is_uniform_in_its_variable(schedule: NoiseSchedule, kind: str, steps: int) -> None:
    times = time_grid(schedule, steps, kind, end=2e-3)
    assert (len(times), times[0], times[-1]) == (steps + 1, schedule.t_max, 2e-3)
    assert all(b < a for a, b in pairwise(times))
    values = [UNIFORM[kind](schedule, t) for t in times]
    gaps = [b - a for a, b in pairwise(values)]
    assert gaps == pytest.approx([gaps[0]] * steps, rel=1e-9)


def test_grid_options() -> None:
    schedule = EDM()
    assert time_grid(schedule, 4, "time", start=9.0, end=1.0) == [9.0, 7.0, 5.0, 3.0, 1.0]
    assert time_grid(schedule, 2, "rho", start=9.0, end=1.0, power=2.0) == pytest.approx([9.0, 4.0, 1.0], rel=1e-14)
    discrete = DiscreteVP.from_betas(ddpm_betas())
    times = time_grid(discrete, 10, "discrete", end=1e-3)
    assert (times[0], times[-1]) == (discrete.t_max, 1e-3)
    assert all(t * discrete.steps == pytest.approx(round(t * discrete.steps), abs=1e-9) for t in times)


@pytest.mark.parametrize(
    ("steps", "kind", "options", "words"),
    [
        (0, "time", {}, "steps must be at least 1, got 0"),
        (-3, "half_log_snr", {}, "steps must be at least 1, got -3"),
        (3, "sideways", {}, "kind must be half_log_snr, time, quadratic, rho or discrete, got 'sideways'"),
        (
            3,
            "time",
            {"end": -0.1},
            r"start and end must satisfy 0.0 <= end < start <= 1.0, got start = 1.0, end = -0.1",
        ),
        (3, "time", {"start": 1.5}, "got start = 1.5"),
        (3, "time", {"start": 0.1, "end": 0.2}, "got start = 0.1, end = 0.2"),
        (3, "time", {"end": math.nan}, "end = nan"),
        (3, "half_log_snr", {"end": 0.0}, "needs a positive noise level at both ends, got start = 1.0, end = 0.0"),
        (3, "discrete", {}, "kind 'discrete' needs a DiscreteVP schedule, got VPLinear"),
    ],
)
def test_bad_grids(steps: int, kind: str, options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        time_grid(VPLinear(), steps, kind, **options)


def test_a_discrete_grid_has_only_so_many_steps() -> None:
    schedule = DiscreteVP.from_betas(ddpm_betas(20))
    with pytest.raises(ValueError, match="steps must be at most 19 on the discrete grid"):
        time_grid(schedule, 25, "discrete", end=1 / 20)

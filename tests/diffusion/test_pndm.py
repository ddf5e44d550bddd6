"""PNDM: the transfer, the gradient parts, exactness on point masses, what is second order and what is not."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.diffusion.affine import trace
from pdebook.diffusion.baselines import ddim
from pdebook.diffusion.exact import gaussian_flow
from pdebook.diffusion.pndm import ADAMS, ipndm, transfer
from pdebook.diffusion.schedules import EDM, NoiseSchedule, VPLinear, time_grid
from pdebook.diffusion.testbeds import gauss
from pdebook.rng import normal

SCHEDULE = VPLinear()


def draws(stream: int, batch: int = 5) -> torch.Tensor:
    return normal(1, torch.arange(batch), (3,), stream=stream, dtype=torch.float64)


# -------------------- the transfer


@pytest.mark.parametrize("schedule", [VPLinear(), EDM()], ids=["vp", "edm"])
@settings(deadline=None)
@given(s=st.floats(1e-3, 1.0), t=st.floats(1e-3, 1.0))
def test_the_transfer_keeps_noisy_samples_noisy_samples(schedule: NoiseSchedule, s: float, t: float) -> None:
    data, noise = draws(0), draws(1)
    before, after = (schedule.alpha(u) * data + schedule.sigma(u) * noise for u in (s, t))
    moved = transfer(schedule, before, noise, s, t)
    # Rounding of the state is multiplied by the ratio of the signals, at most 150.
    torch.testing.assert_close(moved, after, rtol=0, atol=1e-12)
    torch.testing.assert_close(transfer(schedule, moved, noise, t, s), before, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(s=st.floats(1e-3, 1.0), t=st.floats(1e-3, 1.0))
def test_the_transfer_is_the_papers_quotient(s: float, t: float) -> None:
    a, b = float(SCHEDULE.alpha(s)) ** 2, float(SCHEDULE.alpha(t)) ** 2
    x, noise = draws(0), draws(1)
    quotient = (b - a) / (math.sqrt(a) * (math.sqrt((1 - b) * a) + math.sqrt((1 - a) * b)))
    moved = transfer(SCHEDULE, x, noise, s, t)
    torch.testing.assert_close(moved, math.sqrt(b / a) * x - quotient * noise, rtol=1e-11, atol=1e-12)


def test_the_transfer_reaches_clean_data() -> None:
    schedule = EDM()
    data, noise = draws(0), draws(1)
    assert torch.equal(transfer(schedule, data + 2.0 * noise, noise, 2.0, 0.0), data + 2.0 * noise - 2.0 * noise)


# -------------------- weights


@pytest.mark.parametrize("count", ADAMS)
def test_adams_weights_integrate_polynomials_over_the_next_step(count: int) -> None:
    """Σ_j w_j (-j)^q = ∫_0^1 u^q du = 1/(q + 1) for q below the number of values."""
    weights = [Fraction(w).limit_denominator(24) for w in ADAMS[count]]
    assert len(weights) == count
    for q in range(count):
        assert sum(w * (-j) ** q for j, w in enumerate(weights)) == Fraction(1, q + 1)


def test_ipndm_of_order_one_is_ddim() -> None:
    grid = time_grid(SCHEDULE, 6, "quadratic")
    assert trace(ipndm, SCHEDULE, grid, order=1).distance(trace(ddim, SCHEDULE, grid)) < 1e-13


def test_ipndm_is_exact_on_point_masses() -> None:
    bed = gauss(0.0)
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(16)
    exact = gaussian_flow(bed.mixture.means[0], 0.0, bed.schedule, x, 1.0, bed.end)
    y = ipndm(denoiser, x, time_grid(bed.schedule, 8, end=bed.end))
    assert denoiser.evaluations == 8
    assert float((y - exact).abs().max()) < 1e-10

"""The stochastic samplers, exactly: on Gaussian data every sampler is linear, so its variance is a sum of squares."""

from typing import Any

import pytest
import torch

from pdebook.diffusion.affine import Affine, symbolic_noise
from pdebook.diffusion.baselines import ddim
from pdebook.diffusion.multistep import multistep, sde_multistep
from pdebook.diffusion.sampling import Sampler
from pdebook.diffusion.schedules import EDM, NoiseSchedule, VPLinear, time_grid
from pdebook.diffusion.testbeds import ring2d

VARIANCE = 0.25


class LinearDenoiser:
    """Exact denoiser of N(0, 1/4) on expressions: ε = σ x / (α²/4 + σ²)."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def noise(self, x: Affine, t: Any) -> Affine:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return Affine().plus(sigma / (alpha**2 * VARIANCE + sigma**2), x)

    def data(self, x: Affine, t: Any) -> Affine:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return Affine().plus(1 / alpha, x).plus(-sigma / alpha, self.noise(x, t))


def spread(schedule: NoiseSchedule, t: float) -> float:
    return float(schedule.alpha(t)) ** 2 * VARIANCE + float(schedule.sigma(t)) ** 2


def error(sampler: Sampler, schedule: NoiseSchedule, steps: int, **options: Any) -> float:
    """Relative error of the variance at the end, when samples start with the exact one."""
    grid = time_grid(schedule, steps, end=1e-2)
    result = sampler(LinearDenoiser(schedule), Affine.symbol("x"), grid, **options)
    variance = sum(w**2 * (spread(schedule, grid[0]) if name == "x" else 1.0) for name, w in result.terms.items())
    return abs(variance / spread(schedule, grid[-1]) - 1)


@pytest.mark.parametrize("schedule", [VPLinear(), EDM(20.0)], ids=["vp", "edm"])
@pytest.mark.parametrize("eta", [0.3, 1.0, 1.7])
def test_the_sde_has_the_right_marginal_whatever_its_noise(schedule: NoiseSchedule, eta: float) -> None:
    errors = [error(sde_multistep, schedule, n, eta=eta, noise=symbolic_noise, ending="full") for n in (50, 100, 200)]
    assert errors[-1] < 2e-3
    assert errors[0] / errors[1] > 3
    assert errors[1] / errors[2] > 3


@pytest.mark.parametrize("order", [1, 2])
def test_first_order_sde_is_ddim_with_all_its_noise(order: int) -> None:
    """At order 1 and η = 1, SDE-DPM-Solver++ is ancestral sampling: DDIM with η = 1."""
    schedule = VPLinear()
    grid = time_grid(schedule, 8, end=1e-2)
    options: dict[str, Any] = {"noise": symbolic_noise}
    sde = sde_multistep(LinearDenoiser(schedule), Affine.symbol("x"), grid, order=order, **options)
    ancestral = ddim(LinearDenoiser(schedule), Affine.symbol("x"), grid, eta=1.0, **options)
    gap = max(abs(sde.terms[name] - ancestral.terms[name]) for name in ancestral.terms)
    assert gap < 1e-13 if order == 1 else gap > 1e-3


def test_ancestral_noise_is_ddpms_posterior_variance() -> None:
    schedule = VPLinear()
    s, t = 0.6, 0.4
    result = ddim(LinearDenoiser(schedule), Affine.symbol("x"), [s, t], eta=1.0, noise=symbolic_noise)
    beta = 1 - (schedule.alpha(s) / schedule.alpha(t)) ** 2
    posterior = schedule.sigma(t) ** 2 / schedule.sigma(s) ** 2 * beta
    assert result.terms["z0"] ** 2 == pytest.approx(posterior, rel=1e-12)
    half = ddim(LinearDenoiser(schedule), Affine.symbol("x"), [s, t], eta=0.5, noise=symbolic_noise)
    assert half.terms["z0"] == pytest.approx(0.5 * result.terms["z0"], rel=1e-12)
    errors = [error(ddim, schedule, n, eta=1.0, noise=symbolic_noise) for n in (100, 200, 400)]
    assert errors[-1] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.3)


def test_without_noise_the_sde_is_the_ode() -> None:
    bed = ring2d()
    denoiser, x, grid = bed.mixture.denoiser(bed.schedule), bed.initial(6), time_grid(bed.schedule, 12, end=1e-2)
    for order in (1, 2):
        quiet = sde_multistep(denoiser, x, grid, order=order, eta=0.0)
        torch.testing.assert_close(quiet, multistep(denoiser, x, grid, order=order), rtol=1e-12, atol=1e-13)
    assert not torch.allclose(sde_multistep(denoiser, x, grid), multistep(denoiser, x, grid), atol=0.1)


def test_one_evaluation_a_step() -> None:
    bed = ring2d()
    for sampler, options in ((multistep, {"order": 3}), (sde_multistep, {"order": 2}), (ddim, {})):
        denoiser = bed.mixture.denoiser(bed.schedule)
        sampler(denoiser, bed.initial(2), time_grid(bed.schedule, 7, end=1e-2), **options)
        assert denoiser.evaluations == 7

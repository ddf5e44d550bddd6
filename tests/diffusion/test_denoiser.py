"""Denoisers: exact conversions, guidance against exact mixtures, hooks, counts, and what a network must not return."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pdebook.diffusion.denoiser import (
    PARAMETERISATIONS,
    TIME_INPUTS,
    ClassifierFree,
    ClassifierGuidance,
    Denoiser,
    clip,
    dynamic_thresholding,
    edm_parameterisation,
)
from pdebook.diffusion.exact import GaussianMixture
from pdebook.diffusion.schedules import EDM, VE, DiscreteVP, LinearFlow, NoiseSchedule, VPCosine, VPLinear, ddpm_betas
from pdebook.diffusion.testbeds import ring2d

CLEAN, NOISE = torch.randn(2, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FORMULAS: dict[str, Any] = {
    "noise": lambda a, s: NOISE,
    "data": lambda a, s: CLEAN,
    "velocity": lambda a, s: a * NOISE - s * CLEAN,
    "score": lambda a, s: -NOISE / s,
    "flow": lambda a, s: NOISE - CLEAN,
}


def test_every_parameterisation_has_its_formula() -> None:
    assert set(FORMULAS) == set(PARAMETERISATIONS)


@pytest.mark.parametrize(
    "schedule", [VPLinear(), VPCosine(), EDM(), VE(), LinearFlow()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("t", [1e-3, 0.4, 0.99])
@pytest.mark.parametrize("shared", [True, False])
def test_round_trip(schedule: NoiseSchedule, name: str, t: float, shared: bool, device: torch.device) -> None:
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    x, output = (alpha * CLEAN + sigma * NOISE).to(device), FORMULAS[name](alpha, sigma).to(device)
    denoiser = Denoiser(lambda x, time: output, schedule, predicts=name)
    time = t if shared else torch.full((4, 1, 1), t, dtype=torch.float64, device=device)
    data, noise = denoiser.both(x, time)
    # Solving for the part that was not predicted divides the rounding of x by σ or by α.
    torch.testing.assert_close(data.cpu(), CLEAN, rtol=0, atol=1e-14 * max(sigma, 1.0) / min(alpha, 1.0))
    torch.testing.assert_close(noise.cpu(), NOISE, rtol=0, atol=1e-14 / min(sigma, 1.0))
    torch.testing.assert_close(denoiser.data(x, time), data, rtol=0, atol=0)
    torch.testing.assert_close(denoiser.noise(x, time), noise, rtol=0, atol=0)
    torch.testing.assert_close(denoiser.score(x, time), -noise / sigma)
    assert (denoiser.evaluations, denoiser.passes) == (4, 4)


@pytest.mark.parametrize("schedule", [EDM(), VPLinear()], ids=["edm", "vp"])
def test_edm_preconditioning(schedule: NoiseSchedule) -> None:
    """D = c_skip y + c_out F(c_in y, log(ρ)/4), with y = x/α."""
    s, t, seen = 0.5, 0.7, []
    alpha, rho = float(schedule.alpha(t)), float(schedule.rho(t))
    y = CLEAN + rho * NOISE
    c_skip, c_out, c_in = s**2 / (rho**2 + s**2), rho * s / math.sqrt(rho**2 + s**2), 1 / math.sqrt(rho**2 + s**2)

    def net(x: Tensor, time: Tensor) -> Tensor:
        seen.append((x, time))
        return (CLEAN - c_skip * y) / c_out

    denoiser = Denoiser(net, schedule, predicts=edm_parameterisation(s), time_input="edm", scale_input=s)
    data, noise = denoiser.both(alpha * y, t)
    torch.testing.assert_close(data, CLEAN, rtol=0, atol=1e-13)
    torch.testing.assert_close(noise, NOISE, rtol=0, atol=1e-13)
    torch.testing.assert_close(seen[0][0], c_in * y, rtol=1e-13, atol=0)
    torch.testing.assert_close(seen[0][1], torch.full((4,), math.log(rho) / 4, dtype=torch.float64))
    rows = denoiser.data(alpha * y, torch.full((4, 1, 1), t, dtype=torch.float64))
    torch.testing.assert_close(rows, CLEAN, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "schedule", "t", "value"),
    [
        ("time", VPLinear(), 0.3, 0.3),
        ("half_log_snr", EDM(), 2.0, -math.log(2.0)),
        ("edm", EDM(), 2.0, math.log(2.0) / 4),
        ("discrete-1", VPLinear(), 0.3, 299.0),
        ("discrete-1", VPLinear(), 5e-4, 0.0),
        ("discrete-2", VPLinear(), 0.3, 299.7),
        ("discrete-1", DiscreteVP.from_betas(ddpm_betas(100)), 0.3, 290.0),
        ("discrete-2", DiscreteVP.from_betas(ddpm_betas(100)), 0.3, 297.0),
        (lambda t, schedule: 7.0 * t, VPLinear(), 0.3, 2.1),
    ],
)
def test_what_the_network_is_told(name: Any, schedule: NoiseSchedule, t: float, value: float) -> None:
    seen = []

    def net(x: Tensor, time: Tensor) -> Tensor:
        seen.append(time)
        return x

    denoiser = Denoiser(net, schedule, time_input=name)
    denoiser.noise(CLEAN, t)
    denoiser.noise(CLEAN.float(), torch.full((4, 1, 1), t, dtype=torch.float64))
    torch.testing.assert_close(seen[0], torch.full((4,), value, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen[1], torch.full((4,), value), rtol=1e-6, atol=1e-6)
    assert set(TIME_INPUTS) == {"time", "half_log_snr", "edm", "discrete-1", "discrete-2"}


def test_raw_time_is_passed_as_it_comes() -> None:
    seen = []
    denoiser = Denoiser(lambda x, t: seen.append(t) or x, VPLinear(), time_input="raw")  # type: ignore[func-returns-value]
    denoiser.noise(CLEAN, 0.3)
    assert seen == [0.3]


# -------------------- guidance


def problem() -> tuple[GaussianMixture, VPLinear, Tensor, Tensor]:
    bed = ring2d(4, 0.3)
    return bed.mixture, VPLinear(), bed.initial(6), torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("t", [0.05, 0.6])
def test_classifier_free_guidance_of_a_mixture_is_exact(t: float) -> None:
    mixture, schedule, x, label = problem()
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    given, without = mixture.noise(x, alpha, sigma, label), mixture.noise(x, alpha, sigma)
    for w in (0.0, 1.0, 7.5):
        denoiser = mixture.denoiser(schedule, label=label, guidance=w)
        torch.testing.assert_close(denoiser.noise(x, t), without + w * (given - without), rtol=1e-12, atol=1e-12)
        assert (denoiser.evaluations, denoiser.passes) == (1, 2)
        rows = denoiser.noise(x, torch.full((6, 1), t, dtype=torch.float64))
        torch.testing.assert_close(rows, without + w * (given - without), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixture.denoiser(schedule, label=label).noise(x, t), given, rtol=0, atol=0)


def test_classifier_guidance_with_the_exact_classifier_is_the_conditional_model() -> None:
    mixture, schedule, x, label = problem()
    t = 0.3
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)

    def log_probability(x: Tensor, t: float) -> Tensor:
        return mixture.log_posterior(x, label, schedule.alpha(t), schedule.sigma(t))

    net = mixture.denoiser(schedule).net
    for w in (0.0, 1.0, 3.0):
        guided = Denoiser(net, schedule, time_input="raw", guidance=ClassifierGuidance(log_probability, w))
        data, noise = guided.both(x, t)
        given, without = mixture.noise(x, alpha, sigma, label), mixture.noise(x, alpha, sigma)
        torch.testing.assert_close(noise, without + w * (given - without), rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(alpha * data + sigma * noise, x, rtol=1e-12, atol=1e-13)
        assert (guided.evaluations, guided.passes) == (1, 1)


def test_guidance_acts_in_its_interval_only() -> None:
    mixture, schedule, x, label = problem()
    guidance = ClassifierFree(label, -1, 5.0, interval=(-1.0, 1.0))
    denoiser = Denoiser(mixture.denoiser(schedule).net, schedule, time_input="raw", guidance=guidance)
    plain, full = mixture.denoiser(schedule, label=label), mixture.denoiser(schedule, label=label, guidance=5.0)
    for level, expected in ((-1.5, plain), (0.0, full), (1.5, plain)):
        t = schedule.time(level)
        torch.testing.assert_close(denoiser.noise(x, t), expected.noise(x, t), rtol=1e-12, atol=1e-12)
    t = torch.tensor([schedule.time(v) for v in (-1.5, -1.5, 0.0, 0.0, 1.5, 1.5)], dtype=torch.float64)[:, None]
    rows = torch.cat([plain.noise(x, t)[:2], full.noise(x, t)[2:4], plain.noise(x, t)[4:]])
    torch.testing.assert_close(denoiser.noise(x, t), rows, rtol=1e-12, atol=1e-12)


def test_guidance_takes_embeddings_as_conditions() -> None:
    context, null = torch.ones(4, 5, dtype=torch.float64), torch.zeros(4, 5, dtype=torch.float64)

    def net(x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return x * 0.0 + condition.sum(1)[:, None, None]

    denoiser = Denoiser(net, VPLinear(), guidance=ClassifierFree(context, null, 3.0))
    torch.testing.assert_close(denoiser.noise(CLEAN, 0.5), torch.full_like(CLEAN, 15.0))


# -------------------- hooks


def test_dynamic_thresholding_values() -> None:
    data = torch.tensor([[-4.0, 1.0, 2.0], [0.1, -0.2, 0.3]], dtype=torch.float64)
    hook = dynamic_thresholding(quantile=0.5, limit=1.0)
    # The median of |x_0| is 2 in the first sample; the second stays below the limit and is left alone.
    torch.testing.assert_close(hook(data), torch.tensor([[-1.0, 0.5, 1.0], [0.1, -0.2, 0.3]], dtype=torch.float64))
    torch.testing.assert_close(dynamic_thresholding(1.0, 2.0)(data)[0], data[0] / 2)
    assert clip(-0.5, 0.2)(data).unique().tolist() == [-0.5, -0.2, 0.1, 0.2]


@pytest.mark.parametrize("hook", [clip(), dynamic_thresholding(0.9)])
def test_noise_belongs_to_the_hooked_data(hook: Any) -> None:
    schedule, t = VPLinear(), 0.7
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    denoiser = Denoiser(lambda x, time: NOISE, schedule, hook=hook)
    x = 3.0 * CLEAN
    data, noise = denoiser.both(x, t)
    torch.testing.assert_close(data, hook((x - sigma * NOISE) / alpha))
    torch.testing.assert_close(alpha * data + sigma * noise, x)
    assert not torch.allclose(noise, NOISE)


# -------------------- errors

LABEL = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: Denoiser(lambda x, t: x, VPLinear(), predicts="eps"),
            "predicts must be one of noise, data, .* got 'eps'",
        ),
        (
            lambda: Denoiser(lambda x, t: x, VPLinear(), time_input="t"),
            "time_input must be one of time, .* or raw, got 't'",
        ),
        (lambda: edm_parameterisation(0.0), "sigma_data must be positive, got 0.0"),
        (lambda: ClassifierFree(LABEL, 10, math.inf), "scale must be finite, got inf"),
        (lambda: ClassifierGuidance(lambda x, t: x, math.nan), "scale must be finite, got nan"),
        (lambda: dynamic_thresholding(0.0), r"quantile must be in \(0, 1\], got 0.0"),
        (lambda: dynamic_thresholding(0.9, 0.0), "limit must be positive, got 0.0"),
        (
            lambda: Denoiser(lambda x, t: x[:, :1], VPLinear()).noise(CLEAN, 0.5),
            r"net must return torch.float64 of shape \(4, 3, 2\), as its input; got torch.float64 of shape \(4, 1, 2\)",
        ),
        (lambda: Denoiser(lambda x, t: x.float(), VPLinear()).data(CLEAN, 0.5), "got torch.float32 of shape"),
    ],
)
def test_bad_denoisers(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()

"""Derivatives of a denoiser: against finite differences along the flow, and against the exact Jacobian of a mixture."""

import pytest
import torch

from pdebook.diffusion.denoiser import ClassifierFree, Denoiser, clip
from pdebook.diffusion.derivatives import noise_diagonal, noise_jvp
from pdebook.diffusion.digits import score_network
from pdebook.diffusion.schedules import SCHEDULES, VPLinear
from pdebook.diffusion.testbeds import gauss, ring2d
from pdebook.rng import normal


def moved(denoiser, x, t, dx, rate, h):
    """Noise prediction at the point that lies h further in x and λ."""
    schedule = denoiser.schedule
    return denoiser.noise(x + h * dx, schedule.time(schedule.half_log_snr(t) + h * rate))


@pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))
@pytest.mark.parametrize("rate", [0.0, 1.0, -0.7])
def test_jvp_is_the_derivative_along_a_direction(schedule, rate):
    bed = ring2d(schedule=schedule)
    denoiser = bed.mixture.denoiser(schedule)
    # Between the knots of a discrete schedule, so that the difference quotient does not straddle one.
    t = 0.3504 * schedule.t_max
    x = bed.initial(5) * float(schedule.sigma(t))
    dx = normal(9, torch.arange(5), (2,), dtype=torch.float64)
    h = 1e-5
    noise, derivative = noise_jvp(denoiser, x, t, dx, rate)
    torch.testing.assert_close(noise, denoiser.noise(x, t), rtol=1e-9, atol=1e-9)
    quotient = (moved(denoiser, x, t, dx, rate, h) - moved(denoiser, x, t, dx, rate, -h)) / (2 * h)
    torch.testing.assert_close(derivative, quotient, rtol=1e-6, atol=1e-7)


def test_jvp_of_the_network_with_guidance_and_hook():
    labels = torch.tensor([1, 2, 3])
    denoiser = Denoiser(
        score_network().double(),
        VPLinear(),
        predicts="velocity",
        time_input="half_log_snr",
        guidance=ClassifierFree(labels, 10, 2.0),
        hook=clip(-1.5, 1.5),
    )
    x, dx = (normal(s, torch.arange(3), (64,), dtype=torch.float64) for s in (1, 2))
    _, derivative = noise_jvp(denoiser, x, 0.4, dx, 1.0)
    assert denoiser.evaluations == 1
    h = 1e-5
    quotient = (moved(denoiser, x, 0.4, dx, 1.0, h) - moved(denoiser, x, 0.4, dx, 1.0, -h)) / (2 * h)
    torch.testing.assert_close(derivative, quotient, rtol=1e-5, atol=1e-6)


def test_exact_diagonal_and_divergence_of_a_mixture():
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(4)
    noise, diagonal = noise_diagonal(denoiser, x, 0.3)
    jacobian = torch.stack([torch.func.jacrev(lambda y: denoiser.noise(y[None], 0.3)[0])(y) for y in x])
    torch.testing.assert_close(diagonal, jacobian.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(noise, denoiser.noise(x, 0.3))
    single = bed.mixture.to(torch.float32).denoiser(bed.schedule)
    torch.testing.assert_close(noise_diagonal(single, x.float(), 0.3)[1], diagonal.float(), rtol=1e-4, atol=1e-4)


def test_one_probe_is_exact_for_a_diagonal_jacobian():
    bed = gauss(0.3)
    denoiser, x, t = bed.mixture.denoiser(bed.schedule), bed.initial(6), 0.4
    alpha, sigma = bed.schedule.alpha(t), bed.schedule.sigma(t)
    _, diagonal = noise_diagonal(denoiser, x, t, probes=1)
    torch.testing.assert_close(diagonal, torch.full_like(x, sigma / (alpha**2 * 0.3 + sigma**2)))


def test_probes_are_unbiased_and_belong_to_the_sample():
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(3)
    _, exact = noise_diagonal(denoiser, x, 0.3)
    _, some = noise_diagonal(denoiser, x, 0.3, probes=4, seed=3)
    _, first = noise_diagonal(denoiser, x[:1], 0.3, probes=4, seed=3)
    torch.testing.assert_close(first, some[:1])
    assert not torch.allclose(some, noise_diagonal(denoiser, x, 0.3, probes=4, seed=4)[1])
    # In two dimensions a probe's error is the off-diagonal entry with a random sign: 1000 of them average it to 3 %.
    jacobian = torch.stack([torch.func.jacrev(lambda y: denoiser.noise(y[None], 0.3)[0])(y) for y in x])
    _, mean = noise_diagonal(denoiser, x, 0.3, probes=1000)
    assert bool(((mean - exact).abs() < 0.13 * jacobian[:, 0, 1:].abs()).all())


def test_bad_input():
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(3)
    with pytest.raises(ValueError, match="dx must have the shape of x"):
        noise_jvp(denoiser, x, 0.5, x[:, :1])
    with pytest.raises(ValueError, match="probes must be at least 1"):
        noise_diagonal(denoiser, x, 0.5, probes=0)

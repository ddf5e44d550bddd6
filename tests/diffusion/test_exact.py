"""Mixtures: the noise prediction is -σ times the gradient of the log-density; forms of covariance agree; flows are solved."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pdebook.diffusion.exact import GaussianMixture, gaussian_flow
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.schedules import EDM, NoiseSchedule, VPCosine, VPLinear
from pdebook.diffusion.testbeds import digits_gm, gauss, ring2d


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mixture() -> GaussianMixture:
    """Three components in three dimensions, full covariances, two classes."""
    roots = normals(3, 3, 3, seed=1)
    weights = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    return GaussianMixture(weights, normals(3, 3, seed=2), roots @ roots.mT / 3, torch.tensor([0, 1, 0]))


@pytest.mark.parametrize("alpha_sigma", [(1.0, 0.3), (0.6, 0.8), (0.01, 5.0)])
def test_noise_is_the_scaled_score(alpha_sigma: tuple[float, float], device: torch.device) -> None:
    alpha, sigma = alpha_sigma
    exact, x = mixture().to(device), normals(6, 3).to(device).requires_grad_()
    (score,) = torch.autograd.grad(exact.log_density(x, alpha, sigma).sum(), x)
    torch.testing.assert_close(exact.noise(x, alpha, sigma), -sigma * score, rtol=1e-11, atol=1e-13)
    label = torch.tensor([0, 1, 0, 1, 0, -1], device=device)
    given = exact.log_posterior(x, label, alpha, sigma) + exact.log_density(x, alpha, sigma)
    (score,) = torch.autograd.grad(given.sum(), x)
    torch.testing.assert_close(exact.noise(x, alpha, sigma, label), -sigma * score, rtol=1e-11, atol=1e-13)


def test_log_density_is_that_of_a_mixture_of_normals() -> None:
    exact, x, alpha, sigma = mixture(), normals(6, 3), 0.6, 0.8
    covariances = exact.basis @ torch.diag_embed(exact.variances) @ exact.basis.mT  # type: ignore[operator,union-attr]
    noisy = alpha**2 * covariances + sigma**2 * torch.eye(3, dtype=torch.float64)
    parts = torch.distributions.MultivariateNormal(alpha * exact.means, noisy).log_prob(x[:, None])
    torch.testing.assert_close(exact.log_density(x, alpha, sigma), (parts + exact.log_weights).logsumexp(1))
    torch.testing.assert_close(exact.responsibilities(x, alpha, sigma), (parts + exact.log_weights).softmax(1))
    assert float(exact.log_weights.exp().sum()) == pytest.approx(1.0)


def test_forms_of_covariance_agree() -> None:
    weights, means, x = torch.tensor([1.0, 3.0], dtype=torch.float64), normals(2, 3), normals(5, 3, seed=4)
    isotropic = torch.tensor([0.3, 0.0], dtype=torch.float64)
    diagonal = isotropic[:, None].expand(2, 3).contiguous()
    forms = [GaussianMixture(weights, means, c) for c in (isotropic, diagonal, torch.diag_embed(diagonal))]
    for form in forms[1:]:
        torch.testing.assert_close(form.noise(x, 0.6, 0.8), forms[0].noise(x, 0.6, 0.8), rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(form.log_density(x, 0.6, 0.8), forms[0].log_density(x, 0.6, 0.8))


def test_a_point_mass_is_always_recognised() -> None:
    point = GaussianMixture(torch.ones(1, dtype=torch.float64), normals(1, 3), torch.zeros(1, dtype=torch.float64))
    x = normals(5, 3, seed=4)
    torch.testing.assert_close((x - 0.8 * point.noise(x, 0.6, 0.8)) / 0.6, point.means.expand(5, 3))


def test_classes() -> None:
    exact, x = mixture(), normals(6, 3)
    posterior = torch.stack([exact.log_posterior(x, torch.full((6,), c), 0.6, 0.8).exp() for c in (0, 1)], 1)
    r = exact.responsibilities(x, 0.6, 0.8)
    torch.testing.assert_close(posterior, torch.stack([r[:, 0] + r[:, 2], r[:, 1]], 1))
    everything = torch.full((6,), -1)
    torch.testing.assert_close(exact.noise(x, 0.6, 0.8, everything), exact.noise(x, 0.6, 0.8), rtol=0, atol=0)


def test_numbers_for_each_sample_equal_numbers_for_all() -> None:
    exact, x = mixture(), normals(4, 3)
    alpha, sigma = normals(2, 4, 1).abs()
    rows = exact.noise(x, alpha, sigma)
    single = [exact.noise(x[i : i + 1], float(alpha[i]), float(sigma[i])) for i in range(4)]
    torch.testing.assert_close(rows, torch.cat(single), rtol=1e-13, atol=1e-14)


def test_sampled_moments() -> None:
    exact, n = mixture(), 40000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    y = exact.sample(uniform, normals(n, 3))
    weights = exact.log_weights.exp()
    mean = weights @ exact.means
    covariances = exact.basis @ torch.diag_embed(exact.variances) @ exact.basis.mT  # type: ignore[operator,union-attr]
    second = torch.einsum("k,kij->ij", weights, covariances + exact.means[:, :, None] * exact.means[:, None, :])
    # Standard errors are about sqrt(3/40000) = 0.009; five of them.
    torch.testing.assert_close(y.mean(0), mean, rtol=0, atol=0.045)
    torch.testing.assert_close(y.T @ y / n, second, rtol=0, atol=0.1)


def test_to_changes_dtype_and_device(device: torch.device) -> None:
    single = mixture().to(device=device, dtype=torch.float32)
    assert (single.means.dtype, single.classes.dtype) == (torch.float32, torch.int64)
    assert single.dim == 3
    x = normals(5, 3)
    value = single.noise(x.float().to(device), 0.6, 0.8, torch.zeros(5, dtype=torch.int64, device=device))
    assert value.dtype == torch.float32
    wide = mixture().noise(x, 0.6, 0.8, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(value.double().cpu(), wide, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", [VPLinear(), VPCosine(), EDM()])
@pytest.mark.parametrize("variance", [0.0, 0.25, 4.0])
def test_gaussian_flow_solves_the_equation(schedule: NoiseSchedule, variance: float) -> None:
    bed = gauss(variance, schedule)
    mean, s, x = bed.mixture.means[0], schedule.t_max, bed.initial(6) * float(schedule.sigma(schedule.t_max))
    reference = probability_flow(bed.mixture.denoiser(schedule), x, s, 1e-2, tolerance=1e-9)
    torch.testing.assert_close(reference.x, gaussian_flow(mean, variance, schedule, x, s, 1e-2), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.ones(2), torch.zeros(3, 2), torch.ones(3)), r"weights \(components,\), got \(3, 2\), \(2,\)"),
        ((torch.ones(2), torch.zeros(2), torch.ones(2)), "means must have shape"),
        (
            (torch.ones(2), torch.zeros(2, 3), torch.ones(3)),
            r"covariances must have shape \(2,\), \(2, 3\) or \(2, 3, 3\)",
        ),
        ((torch.tensor([1.0, 0.0]), torch.zeros(2, 3), torch.ones(2)), "weights must be positive"),
        ((torch.ones(1), torch.zeros(1, 2), -torch.eye(2)[None]), "positive semidefinite"),
        ((torch.ones(2), torch.zeros(2, 3), torch.tensor([1.0, -1.0])), "covariances must not be negative"),
    ],
)
def test_bad_mixtures(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GaussianMixture(*arguments)


def test_guidance_needs_a_label() -> None:
    with pytest.raises(ValueError, match="label must be given with guidance"):
        mixture().denoiser(VPLinear(), guidance=2.0)


def test_test_beds() -> None:
    ring = ring2d(5, 0.2)
    torch.testing.assert_close(ring.mixture.means.norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert ring.mixture.means[1].tolist() == pytest.approx([math.cos(0.4 * math.pi), math.sin(0.4 * math.pi)])
    assert ring.mixture.variances.unique().tolist() == pytest.approx([0.04])
    assert torch.equal(ring.initial(8)[:3], ring.initial(3))
    assert not torch.equal(ring.initial(3), ring.initial(3, seed=1))
    digits = digits_gm().mixture
    weights = digits.log_weights.exp()
    mean = weights @ digits.means
    # The images have second moment 1/4; the mixture adds a ridge of 5e-4, and covariances with n - 1 a little more.
    moment = (weights * (digits.variances.sum(1) + digits.means.square().sum(1))).sum() / 64
    assert float(moment) == pytest.approx(0.2505, abs=2e-3)
    assert float(mean.mean()) == pytest.approx(0.0, abs=1e-6)

"""Distances: closed forms and identities, agreement with scipy, calibrated errors and floors, and bad input."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import sqrtm
from torch import Tensor

from pdebook.metrics import distributions as D
from pdebook.metrics.sampling import Estimate


def normal(*shape: int, seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)


DISTANCES: dict[str, Callable[..., Estimate]] = {
    "sliced": D.sliced_wasserstein,
    "wasserstein": D.wasserstein_1d,
    "energy": D.energy_distance,
    "frechet": D.frechet_distance,
    "ks": D.kolmogorov_smirnov,
}


def sample(name: str, n: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    return (
        normal(n, seed=seed, device=device) if name in ("wasserstein", "ks") else normal(n, 3, seed=seed, device=device)
    )


@pytest.mark.parametrize("name", DISTANCES)
def test_bootstrap_error_matches_the_spread_of_independent_repetitions(name: str) -> None:
    distance = DISTANCES[name]
    shift = 1.0  # away from zero, where the bootstrap is consistent
    options = {"directions": 16, "quantiles": 49} if name == "sliced" else {}
    values = torch.tensor(
        [float(distance(sample(name, 200, s), sample(name, 150, s + 999) + shift, **options)) for s in range(60)]
    )
    error = distance(sample(name, 200, 0), sample(name, 150, 999) + shift, resamples=100, **options).standard_error
    # 60 repetitions and 100 replicates of 200 draws: each side is known to about 10 %.
    assert 0.65 < float(error) / float(values.std()) < 1.5


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_symmetric_in_value_deterministic_and_independent_of_dtype(
    name: str, device: torch.device
) -> None:
    distance = DISTANCES[name]
    x, y = sample(name, 60, 1, device), sample(name, 50, 2, device) * 1.5
    first = distance(x, y, resamples=5)
    assert first.value.dtype == torch.float64
    assert float(distance(y, x)) == pytest.approx(float(first), rel=1e-10, abs=1e-12)
    again = distance(x, y, resamples=5)
    assert (float(again), float(again.standard_error)) == (float(first), float(first.standard_error))
    assert float(distance(x, y, resamples=5, seed=1).standard_error) != float(first.standard_error)
    assert distance(x, y).standard_error is None
    # float32 inputs are widened first: only their own rounding (6e-8) is seen.
    assert float(distance(x.float(), y.float())) == pytest.approx(float(first), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["sliced", "wasserstein", "energy", "frechet"])
def test_scaling_both_samples(name: str) -> None:
    x, y = sample(name, 60, 1), sample(name, 50, 2) + 1
    power = 2 if name == "frechet" else 1
    assert float(DISTANCES[name](3 * x, 3 * y)) == pytest.approx(3**power * float(DISTANCES[name](x, y)), rel=1e-10)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_translation_of_both_samples_changes_nothing(name: str) -> None:
    x, y = sample(name, 60, 1), sample(name, 50, 2) + 1
    assert float(DISTANCES[name](x + 5, y + 5)) == pytest.approx(float(DISTANCES[name](x, y)), rel=1e-10)


@pytest.mark.parametrize("name", ["sliced", "wasserstein", "energy"])
def test_gradients(name: str) -> None:
    x, y = sample(name, 6, 1).requires_grad_(), sample(name, 5, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: DISTANCES[name](a, b).value, (x, y))


def test_trajectory_error_by_hand() -> None:
    reference = normal(4, 2, 3)
    offsets = torch.tensor([1.0, 2.0, 3.0, 8.0])
    error = D.trajectory_error(reference + offsets[:, None, None], reference)
    assert error.per_sample.tolist() == pytest.approx([1, 2, 3, 8])
    assert float(error.median) == pytest.approx(2.5)
    assert float(error.rms) == pytest.approx(math.sqrt((1 + 4 + 9 + 64) / 4))


def test_a_diverged_sample_is_infinitely_wrong_and_leaves_the_median_alone() -> None:
    reference = torch.zeros(5, 2)
    x = torch.tensor([1.0, 1.0, 1.0, math.nan, math.inf])[:, None].expand(5, 2)
    error = D.trajectory_error(x, reference)
    assert float(error.median) == 1
    assert float(error.rms) == math.inf
    assert float(D.trajectory_error(torch.full((4, 2), math.nan), reference[:4]).median) == math.inf


def test_the_standard_error_of_the_rms_is_that_of_theory() -> None:
    # Squares of unit normals have variance 2, so the RMS of n of them has standard error sqrt(2) / (2 sqrt(n)).
    error = D.trajectory_error(normal(2000, 1), torch.zeros(2000, 1), resamples=200)
    assert float(error.rms.standard_error) == pytest.approx(math.sqrt(2 / 2000) / 2, rel=0.2)
    assert float(error.median.standard_error) > 0


@settings(max_examples=30, deadline=None)
@given(
    x=st.lists(st.floats(-100, 100), min_size=1, max_size=9),
    y=st.lists(st.floats(-100, 100), min_size=1, max_size=9),
)
def test_wasserstein_1_is_that_of_scipy(x: list[float], y: list[float]) -> None:
    ours = D.wasserstein_1d(torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64))
    assert float(ours) == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_wasserstein_of_a_shift_is_the_shift(p: float) -> None:
    x = normal(50)
    assert float(D.wasserstein_1d(x, x + 0.7, p=p)) == pytest.approx(0.7, rel=1e-12)
    # A sample and the same sample with every draw doubled are one law, whatever the sizes.
    assert float(D.wasserstein_1d(x, x.repeat(2) - 0.7, p=p)) == pytest.approx(0.7, rel=1e-12)


def test_sliced_wasserstein_of_a_shift() -> None:
    x = normal(40, 1)
    assert float(D.sliced_wasserstein(x, x + 0.7)) == pytest.approx(0.7, rel=1e-12)
    # In d dimensions a direction sees |v| cos(angle), of mean square 1/d; 4096 directions leave about 1 %.
    x, v = normal(40, 5), torch.tensor([3.0, 0, 4.0, 0, 0], dtype=torch.float64)
    assert float(D.sliced_wasserstein(x, x + v, directions=4096)) == pytest.approx(5 / math.sqrt(5), rel=0.03)


def test_sliced_wasserstein_of_two_gaussians_of_unequal_size() -> None:
    # N(0, 1) against N(0, 4) on the line: W2 = 1, of which the 499 quantiles cut off the tails.
    distance = D.sliced_wasserstein(normal(20000, 1), 2 * normal(15000, 1, seed=1), directions=1)
    levels = torch.arange(1, 500, dtype=torch.float64) / 500
    exact = torch.special.ndtri(levels).square().mean().sqrt()
    assert float(distance) == pytest.approx(float(exact), rel=0.02)


def test_directions_are_unit_vectors_without_a_preferred_side(device: torch.device) -> None:
    unit = D.unit_directions(4000, 3, 0, device)
    assert unit.norm(dim=1).tolist() == pytest.approx([1.0] * 4000, rel=1e-12)
    # Second moments of the uniform law on the sphere are 1/3, known to about 1 / sqrt(4000).
    assert (unit.T @ unit / 4000).cpu().tolist() == [
        pytest.approx(row, abs=0.025) for row in (torch.eye(3) / 3).tolist()
    ]
    assert unit.mean(0).abs().max() < 0.03


def test_sliced_wasserstein_uses_the_quantiles_of_torch_and_all_directions() -> None:
    x, y = normal(33, 4), normal(20, 4, seed=1)
    unit = D.unit_directions(100, 4, 0, x.device)
    levels = torch.arange(1, 100, dtype=torch.float64) / 100
    gap = (x @ unit.T).quantile(levels, dim=0) - (y @ unit.T).quantile(levels, dim=0)
    ours = D.sliced_wasserstein(x, y, directions=100, quantiles=99)
    assert float(ours) == pytest.approx(float(gap.square().mean().sqrt()), rel=1e-12)


def test_energy_distance_of_point_masses_and_of_a_sample_with_itself() -> None:
    x, y = torch.zeros(3, 2), torch.tensor([[3.0, 4.0]]).expand(5, 2)
    assert float(D.energy_distance(x, y)) == pytest.approx(10, rel=1e-14)
    # With itself the pairs (i, i) are zero but count in E|X - Y|: -2/(n-1) of the mean distance over all n^2 pairs.
    z = normal(7, 2)
    assert float(D.energy_distance(z, z)) == pytest.approx(-2 / 6 * float(torch.cdist(z, z).mean()), rel=1e-12)


def test_energy_distance_is_that_of_scipy_without_its_bias() -> None:
    x, y = normal(30), normal(20, seed=1) + 1
    within_x, within_y = (torch.cdist(s[:, None], s[:, None]).mean() for s in (x, y))
    biased = float(D.energy_distance(x[:, None], y[:, None])) + float(within_x / 29 + within_y / 19)
    assert biased == pytest.approx(stats.energy_distance(x.numpy(), y.numpy()) ** 2, rel=1e-12)


def test_energy_distance_does_not_depend_on_the_chunk() -> None:
    x, y = normal(50, 3), normal(41, 3, seed=1)
    whole, parts = D.energy_distance(x, y, resamples=5), D.energy_distance(x, y, resamples=5, chunk=7)
    assert float(parts) == pytest.approx(float(whole), rel=1e-12)
    assert float(parts.standard_error) == pytest.approx(float(whole.standard_error), rel=1e-10)


def test_energy_distance_of_one_law_is_zero_on_average() -> None:
    values = torch.tensor(
        [float(D.energy_distance(normal(20, 2, seed=s), normal(15, 2, seed=s + 500))) for s in range(200)]
    )
    assert abs(float(values.mean())) < 3 * float(values.std()) / math.sqrt(200)


def test_frechet_distance_of_commuting_gaussians() -> None:
    a, b = torch.tensor([1.0, 4.0, 0.0], dtype=torch.float64), torch.tensor([9.0, 1.0, 2.0], dtype=torch.float64)
    rotation = torch.linalg.qr(normal(3, 3)).Q
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    distance = D.frechet_gaussian(
        torch.zeros_like(shift), rotation @ a.diag() @ rotation.T, shift, rotation @ b.diag() @ rotation.T
    )
    expected = shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    # A singular covariance is rounded to about 1e-16, whose root is 1e-8.
    assert float(distance) == pytest.approx(float(expected), rel=1e-7)


def test_frechet_distance_is_the_matrix_root_formula() -> None:
    roots = normal(2, 4, 4)
    cov_a, cov_b = roots @ roots.mT + 0.1 * torch.eye(4, dtype=torch.float64)
    expected = float(cov_a.trace() + cov_b.trace()) - 2 * float(sqrtm((cov_a @ cov_b).numpy()).real.trace())
    zero = torch.zeros(4, dtype=torch.float64)
    assert float(D.frechet_gaussian(zero, cov_a, zero, cov_b)) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_samples() -> None:
    x = normal(50, 6)
    assert float(D.frechet_distance(x, x)) == pytest.approx(0, abs=1e-12)
    assert float(D.frechet_distance(x, x + 2)) == pytest.approx(24, rel=1e-12)
    assert float(D.frechet_distance(x[:, :1], 3 * x[:, :1])) == pytest.approx(
        4 * float(x[:, 0].var() + x[:, 0].mean() ** 2), rel=1e-12
    )


def test_frechet_floor_is_what_two_samples_of_one_law_score() -> None:
    # Sizes unlike the halves', so that the scaling with 1/n + 1/m is seen.
    scores = torch.tensor(
        [float(D.frechet_distance(normal(400, 4, seed=s), normal(1000, 4, seed=s + 99))) for s in range(40)]
    )
    floor = D.frechet_distance(normal(400, 4), normal(1000, 4, seed=99), splits=32).floor
    assert float(floor) == pytest.approx(float(scores.mean()), rel=0.25)


@settings(max_examples=30, deadline=None)
@given(
    x=st.lists(st.floats(-3, 3).map(lambda v: round(v, 1)), min_size=1, max_size=12),
    y=st.lists(st.floats(-3, 3).map(lambda v: round(v, 1)), min_size=1, max_size=12),
)
def test_kolmogorov_smirnov_is_that_of_scipy_ties_included(x: list[float], y: list[float]) -> None:
    a, b = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    assert float(D.kolmogorov_smirnov(a, b)) == pytest.approx(stats.ks_2samp(x, y).statistic, abs=1e-14)
    one_sample = D.kolmogorov_smirnov(a, torch.special.ndtr)
    assert float(one_sample) == pytest.approx(stats.ks_1samp(x, stats.norm.cdf).statistic, abs=1e-14)


def test_kl_of_histograms() -> None:
    p, q = torch.tensor([[1.0, 3.0, 0.0], [1.0, 1.0, 2.0]]), torch.tensor([[2.0, 2.0, 4.0], [1.0, 0.0, 1.0]])
    values = D.kl_histogram(p, q).tolist()
    assert values[0] == pytest.approx(float(stats.entropy([1, 3, 0], [2, 2, 4])), rel=1e-14)
    assert values[1] == math.inf
    assert D.kl_histogram(p, 7 * p).tolist() == pytest.approx([0, 0], abs=1e-15)


def test_kl_of_gaussians() -> None:
    def line(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)

    value = D.kl_gaussian(line(1), line(4)[None], line(3), line(9)[None])
    assert float(value) == pytest.approx(math.log(3 / 2) + (4 + 4) / 18 - 0.5, rel=1e-14)
    # Invariant under any invertible map of both.
    roots, mean, map_ = normal(2, 3, 3, seed=1), normal(2, 3, seed=2), normal(3, 3, seed=3)
    cov = roots @ roots.mT
    mapped = D.kl_gaussian(map_ @ mean[0], map_ @ cov[0] @ map_.T, map_ @ mean[1], map_ @ cov[1] @ map_.T)
    assert float(mapped) == pytest.approx(float(D.kl_gaussian(mean[0], cov[0], mean[1], cov[1])), rel=1e-9)


def test_ess_of_weights() -> None:
    assert float(D.ess_of_weights(torch.full((8,), -1e4))) == pytest.approx(8, rel=1e-12)
    assert float(D.ess_of_weights(torch.tensor([0.0, -1e3, -1e3]))) == pytest.approx(1)
    weights = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    assert float(D.ess_of_weights(weights.log() + 900)) == pytest.approx(64 / 30, rel=1e-10)


@pytest.mark.parametrize("phi", [0.9, 0.0, -0.5])
def test_ess_of_an_autoregressive_chain(phi: float) -> None:
    # Integrated autocorrelation time (1 + phi) / (1 - phi) exactly.
    noise = normal(8, 4000, 2)
    chain = [noise[:, 0] / math.sqrt(1 - phi**2)]
    for step in range(1, 4000):
        chain.append(phi * chain[-1] + noise[:, step])
    expected = 8 * 4000 * (1 - phi) / (1 + phi)
    assert D.ess_of_chain(torch.stack(chain, 1)).tolist() == pytest.approx([expected] * 2, rel=0.12)


def test_ess_is_geyers_sequence_term_by_term() -> None:
    chains = normal(3, 12).cumsum(1)  # strongly correlated and short, so that every rule is at work
    m, n = chains.shape
    centred = chains - chains.mean(1, keepdim=True)
    covariance = [float((centred[:, : n - t] * centred[:, t:]).sum(1).mean()) / n for t in range(n)]
    within = covariance[0] * n / (n - 1)
    total = within * (n - 1) / n + float(chains.mean(1).var())
    rho = [1.0] + [1 - (within - covariance[t]) / total for t in range(1, n)]
    pairs = [rho[2 * k] + rho[2 * k + 1] for k in range(n // 2)]
    kept = pairs[: next((k for k, pair in enumerate(pairs) if pair <= 0), len(pairs))]
    tau = 2 * sum(min(kept[: k + 1]) for k in range(len(kept))) - 1
    assert any(b > a for a, b in pairwise(kept))
    assert float(D.ess_of_chain(chains)) == pytest.approx(m * n / tau, rel=1e-10)


def test_ess_of_chains_that_disagree_is_small() -> None:
    chains = normal(4, 500)
    apart = chains + torch.arange(4.0)[:, None] * 5
    assert float(D.ess_of_chain(chains)) > 1500
    assert float(D.ess_of_chain(apart)) < 10
    assert float(D.ess_of_chain(chains[:1])) > 300


X, Y, NAN = normal(6, 2), normal(5, 2, seed=1), torch.full((6, 2), math.nan)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: D.sliced_wasserstein(X, normal(5, 3)), "y: expected draws of dimension 2 as in x, got 3"),
        (lambda: D.sliced_wasserstein(NAN, Y), "x: expected finite draws"),
        (lambda: D.sliced_wasserstein(X, Y[:0]), "y: expected at least 1 draws, got 0"),
        (lambda: D.sliced_wasserstein(X, Y, directions=0), "directions, quantiles: expected at least 1"),
        (lambda: D.energy_distance(X, Y[:1]), "y: expected at least 2 draws, got 1"),
        (lambda: D.energy_distance(X, Y, resamples=-1), "resamples: expected 0 or at least 2"),
        (lambda: D.wasserstein_1d(X[:, 0], Y[:, 0], p=0.5), "p: expected an exponent of at least 1"),
        (lambda: D.wasserstein_1d(X[:, 0], Y[:, 0], resamples=1), "resamples: expected 0 or at least 2"),
        (lambda: D.frechet_distance(X[:1], Y), "x: expected at least 2 draws"),
        (lambda: D.frechet_distance(X, Y[:3]), "sample: expected at least 4 draws"),
        (lambda: D.trajectory_error(X, NAN), "reference: expected finite samples"),
        (lambda: D.kl_histogram(torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1.0])), "p: expected non-negative"),
        (lambda: D.kl_histogram(torch.tensor([1.0, 1.0]), torch.zeros(2)), "q: expected non-negative"),
        (lambda: D.kl_gaussian(X[0], torch.eye(2), X[0], -torch.eye(2)), "cov_q: expected positive definite"),
        (lambda: D.ess_of_chain(normal(2, 3)), "chains: expected at least 4 finite draws"),
        (lambda: D.ess_of_chain(torch.ones(2, 9)), "chains: expected quantities that move"),
    ],
)
def test_bad_input(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()

"""Bootstrap and floor: what theory says of a mean, independence of the caller's seeds, and bad input."""

import math

import pytest
import torch
from torch import Tensor

from pdebook.metrics.distributions import wasserstein_1d
from pdebook.metrics.sampling import Estimate, bootstrap, redraw_counts, sampling_floor
from pdebook.rng import uniform


def normal(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sampling_floor_of_any_distance() -> None:
    def mean_gap(a: Tensor, b: Tensor) -> Tensor:
        return (a.mean() - b.mean()).square()

    floor = sampling_floor(mean_gap, normal(1001), splits=200)
    # Variance of the difference of two means of 500; its square has a standard deviation sqrt(2) times as large.
    assert float(floor) == pytest.approx(4 / 1001, rel=0.25)
    assert float(floor.standard_error) == pytest.approx(math.sqrt(2 / 200) * 4 / 1001, rel=0.4)
    assert float(sampling_floor(wasserstein_1d, normal(100))) > 0


def test_estimates_print_value_error_and_floor() -> None:
    one = torch.tensor(1.2345, dtype=torch.float64)
    assert str(Estimate(one)) == "1.23"
    assert str(Estimate(one, one / 100, one / 10)) == "1.23 ± 0.01 (floor 0.123)"


def test_bootstrap_of_a_mean() -> None:
    estimate = bootstrap(torch.mean, normal(400), resamples=400)
    assert float(estimate.standard_error) == pytest.approx(1 / 20, rel=0.15)


def test_bootstrap_of_two_samples_adds_their_variances() -> None:
    estimate = bootstrap(lambda a, b: a.mean() - b.mean(), normal(100), normal(100, 1), resamples=400)
    # Of one stream for both samples the errors would be the same draws; the variances still add.
    assert float(estimate.standard_error) == pytest.approx(math.sqrt(2) / 10, rel=0.2)


def test_floor_of_a_sample_drawn_with_the_same_seed() -> None:
    # Were the splits' keys the sample's own numbers, the halves would be the lower and the upper half.
    draws = uniform(0, torch.arange(8), (500,), dtype=torch.float64)
    floor = sampling_floor(wasserstein_1d, draws[0], splits=8)
    assert float(floor) < 0.06


def test_redraws_count_every_draw_and_differ_between_samples(device: torch.device) -> None:
    first, second = (redraw_counts(3, 4, 50, stream, device) for stream in (0, 1))
    assert first.sum(1).tolist() == [50] * 5
    assert first[0].tolist() == [1] * 50
    assert not torch.equal(first[1:], second[1:])
    assert torch.equal(first, redraw_counts(3, 4, 50, 0, device))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="resamples: expected 0 or at least 2 replicates, got 1"):
        bootstrap(torch.mean, normal(5), resamples=1)
    with pytest.raises(ValueError, match="splits: expected at least 2, got 1"):
        sampling_floor(wasserstein_1d, normal(5), splits=1)
    with pytest.raises(ValueError, match="sample: expected at least 4 draws, got 3"):
        sampling_floor(wasserstein_1d, normal(3))

"""Series against the solution of their equations, their exact moments, and the same series in another batch."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm
from sklearn.datasets import make_moons
from torch import Tensor

from pdebook.data.series import (
    TimeDependentOU,
    box,
    damped_pendulum,
    decaying_oscillation,
    lotka_volterra,
    noisy,
    oscillation,
    rational,
    spirals,
    two_moons,
)

TIMES = torch.linspace(0.0, 4.0, 9, dtype=torch.float64)
MAKERS: dict[str, Callable[[int, Tensor], Any]] = {
    "moons": two_moons,
    "spirals": lambda seed, samples: spirals(seed, samples, TIMES, noise=0.1),
    "oscillation": decaying_oscillation,
    "ou": lambda seed, samples: (TimeDependentOU().sample(seed, samples, TIMES),),
    "box": lambda seed, samples: (box(seed, samples, [-1, 0], [1, 3]),),
    "noisy": lambda seed, samples: (noisy(seed, samples, torch.zeros(len(samples), 3), 0.5),),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_sample_depends_on_its_number_and_the_seed_alone(name: str) -> None:
    whole, part = (MAKERS[name](3, samples) for samples in (torch.arange(8), torch.tensor([5, 2])))
    other = MAKERS[name](4, torch.arange(8))
    for full, chosen in zip(whole, part, strict=True):
        assert torch.equal(full[[5, 2]], chosen)
    assert not torch.equal(whole[0], other[0])


def exact(matrix: list[list[float]], y0: Tensor, times: Tensor) -> Tensor:
    """exp(t A) y0 for each time."""
    a = np.array(matrix)
    return torch.stack([torch.from_numpy(expm(float(t) * a)) @ y0 for t in times])


def test_spirals_solve_their_equation() -> None:
    data, label = spirals(0, torch.arange(6), TIMES)
    assert label.tolist() == [0, 1, 0, 1, 0, 1]
    for k in range(6):
        path = data[k] * torch.tensor([-1.0 if label[k] else 1.0, 1.0])
        assert path[0].norm().item() == pytest.approx(1.0, abs=1e-12)
        torch.testing.assert_close(path, exact([[-0.3, 2.0], [-2.0, -0.3]], path[0], TIMES), rtol=0, atol=1e-12)
    # Starts are spread over the circle.
    assert data[:, 0, 0].std() > 0.3


def test_oscillations_solve_their_equation_at_their_own_times() -> None:
    times, data = decaying_oscillation(1, torch.arange(200), 20, dtype=torch.float64)
    start = torch.randn(3, 2, dtype=torch.float64)
    for k in range(3):
        expected = exact([[-0.1, 1.3], [-1.0, -0.1]], start[k], times[k])
        torch.testing.assert_close(oscillation(start, times[:3])[k], expected, rtol=0, atol=1e-12)
        # Run backwards in time, a sample's states have one common start.
        back = torch.stack(
            [exact([[-0.1, 1.3], [-1.0, -0.1]], y, -t[None])[0] for y, t in zip(data[k], times[k], strict=True)]
        )
        torch.testing.assert_close(back, back[:1].expand(20, 2), rtol=0, atol=1e-11)
    assert times.shape == (200, 20)
    assert (times.diff(dim=1) > 0).all()
    assert 0 < times.min() < 0.05
    assert 2.8 < times.max() < 3.0
    assert times.max(1).values.std() > 0.2


def test_moons_lie_on_the_curves_of_scikit_learn() -> None:
    points, moon = two_moons(0, torch.arange(4000), noise=0.0, dtype=torch.float64)
    curve, label = make_moons(4000, noise=None, shuffle=False)
    for k in range(2):
        other = torch.from_numpy(curve[label == k])
        gap = torch.cdist(points[moon == k], other).min(1).values
        assert gap.max() < math.pi / 2000
        # And they fill them evenly: the mean agrees within five standard errors.
        assert (points[moon == k].mean(0) - other.mean(0)).abs().max() < 5 * 0.71 / math.sqrt(1900)
    assert 0.45 < moon.double().mean() < 0.55
    blurred, _ = two_moons(0, torch.arange(4000), noise=0.05, dtype=torch.float64)
    assert (blurred - points).std().item() == pytest.approx(0.05, rel=0.05)


def test_ou_transition_is_the_integral_of_its_equation() -> None:
    law = TimeDependentOU(drift=0.3, decay=0.7, diffusion=0.4)
    s, t = 0.8, 2.5
    factor, offset, variance = (
        float(part) for part in law.transition(*(torch.tensor(r, dtype=torch.float64) for r in (s, t)))
    )
    assert factor == pytest.approx(math.exp(-0.7 * (t - s)), rel=1e-13)
    assert offset == pytest.approx(quad(lambda r: math.exp(-0.7 * (t - r)) * 0.3 * r, s, t)[0], rel=1e-10)
    assert variance == pytest.approx(quad(lambda r: math.exp(-1.4 * (t - r)) * (0.4 * r) ** 2, s, t)[0], rel=1e-10)


def test_ou_samples_have_the_exact_moments_at_any_times() -> None:
    law, n = TimeDependentOU(), 40_000
    for times in (torch.linspace(0.0, 63.0, 8), torch.tensor([1.0, 5.0, 20.0, 63.0])):
        y = law.sample(0, torch.arange(n), times, dtype=torch.float64)[..., 0]
        mean, variance = law.moments(times.double())
        # Five standard errors; the start is uniform, later values are nearly Gaussian.
        assert ((y.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all()
        assert ((y.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / n)).all()
    assert law.sample(0, torch.arange(n), torch.tensor([0.0])).abs().max() <= 1


@pytest.mark.parametrize(
    ("field", "rate"),
    [
        (damped_pendulum, lambda y: [y[1], -math.sin(y[0]) - 0.15 * y[1] - 0.1 * y[1] * abs(y[1])]),
        (lotka_volterra, lambda y: [1.3 * y[0] - 0.9 * y[0] * y[1], 0.8 * y[0] * y[1] - 1.8 * y[1]]),
        (rational, lambda y: [y[1] / (1 + y[1]), -y[0] / (1 + y[0])]),
    ],
)
def test_fields_are_their_formulas(field: Any, rate: Any) -> None:
    points = torch.tensor([[0.3, 0.7], [0.5, -0.4], [2.0, 1.0]], dtype=torch.float64)
    expected = torch.tensor([rate(y) for y in points.tolist()], dtype=torch.float64)
    torch.testing.assert_close(field(torch.zeros(3), points), expected, rtol=1e-14, atol=1e-14)


def test_lotka_volterra_keeps_its_invariant() -> None:
    def field(t: float, y: Any) -> Any:
        return lotka_volterra(torch.tensor(t), torch.from_numpy(y)).numpy()

    y = torch.from_numpy(solve_ivp(field, (0, 10), [1.0, 0.6], rtol=1e-10, atol=1e-12).y)
    invariant = 0.8 * y[0] - 1.8 * y[0].log() + 0.9 * y[1] - 1.3 * y[1].log()
    assert (invariant - invariant[0]).abs().max() < 1e-7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noisy(0, torch.arange(1), torch.zeros(1, 2), -1.0), "scale must not be negative, got -1"),
        (lambda: noisy(0, torch.arange(1), torch.zeros(1, 2), math.nan), "scale must not be negative, got nan"),
        (lambda: box(0, torch.arange(1), [math.nan], [1]), "low must be as long as high and not above it"),
        (lambda: TimeDependentOU().sample(0, torch.arange(1), torch.tensor([])), "times must rise strictly"),
        (lambda: TimeDependentOU().sample(0, torch.arange(1), torch.tensor([math.nan])), "times must rise strictly"),
        (lambda: box(0, torch.arange(1), [0, 0], [1]), "low must be as long as high"),
        (lambda: box(0, torch.arange(1), [2], [1]), r"not above it, got \[2\] and \[1\]"),
        (lambda: TimeDependentOU(decay=0.0), "decay must be positive, got 0"),
        (
            lambda: TimeDependentOU().sample(0, torch.arange(1), torch.tensor([1.0, 1.0])),
            r"times must rise strictly, from 0 or later, got \[1.0, 1.0\]",
        ),
        (lambda: TimeDependentOU().sample(0, torch.arange(1), torch.tensor([-1.0])), "from 0 or later"),
        (lambda: decaying_oscillation(0, torch.arange(1), 0), "count must be at least 1 and latest rise"),
        (lambda: decaying_oscillation(0, torch.arange(1), 5, latest=(3.0, 2.0)), r"got 5 and \(3.0, 2.0\)"),
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

"""Levenberg and Marquardt's method against SciPy and hand computation; Jacobians point by point."""

import itertools

import pytest
import scipy.optimize
import torch

from pdebook.algebra.least_squares import levenberg_marquardt, per_point
from pdebook.algebra.results import NotConverged, Status

F64 = torch.float64
T = torch.linspace(0, 2, 25, dtype=F64)


def decays() -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters (amplitude, rate) of four decays and their noisy samples."""
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(4, 2, dtype=F64, generator=generator) + 0.5
    clean = true[:, :1] * torch.exp(-true[:, 1:] * T)
    return true, clean + 0.01 * torch.randn(4, 25, dtype=F64, generator=generator)


def test_fits_are_those_of_scipy_and_do_not_depend_on_the_batch():
    _, data = decays()
    result = levenberg_marquardt(lambda x: x[:, :1] * torch.exp(-x[:, 1:] * T) - data, torch.ones(4, 2, dtype=F64))
    for i in range(4):
        fit = scipy.optimize.least_squares(
            lambda x, i=i: x[0] * torch.exp(-x[1] * T).numpy() - data[i].numpy(), [1.0, 1.0], xtol=1e-13, ftol=1e-13
        )
        torch.testing.assert_close(result.x[i], torch.tensor(fit.x), rtol=1e-6, atol=0)
        alone = levenberg_marquardt(
            lambda x, i=i: x[:, :1] * torch.exp(-x[:, 1:] * T) - data[i : i + 1], torch.ones(1, 2, dtype=F64)
        )
        torch.testing.assert_close(alone.x[0], result.x[i], rtol=1e-13, atol=0)
        assert int(alone.iterations) == int(result.iterations[i])


def test_one_step_by_hand_and_the_damping_after_it():
    # r = 3 x - 6 with decay 2: objective 9 (x - 2)² + 2 x², minimum 18/11.
    options = {"decay": 2.0, "damping": 5.0, "raise_on_failure": False}
    x0 = torch.zeros(1, 1, dtype=F64)
    one = levenberg_marquardt(lambda x: 3 * x - 6, x0, max_iterations=1, **options)
    assert one.x.item() == pytest.approx(18 / (9 + 5 + 2))
    two = levenberg_marquardt(lambda x: 3 * x - 6, x0, max_iterations=2, **options)
    gradient = 3 * (3 * one.x.item() - 6) + 2 * one.x.item()
    assert two.x.item() == pytest.approx(one.x.item() - gradient / (9 + 5 / 3 + 2))
    assert two.history.flatten().tolist() == pytest.approx([6, abs(3 * one.x.item() - 6), abs(3 * two.x.item() - 6)])
    assert levenberg_marquardt(lambda x: 3 * x - 6, x0, decay=2.0).x.item() == pytest.approx(18 / 11)


def test_a_step_that_does_not_help_is_not_taken():
    # From 3 the Gauss-Newton step of arctan overshoots; the damping grows threefold until a step helps.
    x0, options = torch.tensor([[3.0]], dtype=F64), {"damping": 1e-4, "raise_on_failure": False}
    stays = levenberg_marquardt(torch.atan, x0, max_iterations=2, **options)
    assert stays.x.item() == 3.0
    assert stays.history.flatten().tolist() == [torch.atan(x0).item()] * 3
    slope = 0.1
    tries = 0
    while abs(torch.atan(x0 - slope * torch.atan(x0) / (slope**2 + 1e-4 * 3**tries)).item()) >= torch.atan(x0).item():
        tries += 1
    moved = levenberg_marquardt(torch.atan, x0, max_iterations=tries + 1, **options)
    assert moved.x.item() == pytest.approx((x0 - slope * torch.atan(x0) / (slope**2 + 1e-4 * 3**tries)).item())
    assert tries > 2
    assert levenberg_marquardt(torch.atan, x0, atol=1e-9).x.item() == pytest.approx(0, abs=1e-9)


def test_no_step_raises_the_objective_with_its_decay():
    seen = []

    def residual(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([3 * (2 * x).sin() - 2, x - 3], 1)

    def objective(x: torch.Tensor) -> torch.Tensor:
        return residual(x).square().sum(1) + 4.0 * x.square().sum(1)

    def linearise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(objective(x))
        return residual(x), torch.stack([6 * (2 * x).cos(), torch.ones_like(x)], 1)

    x0 = torch.linspace(-3, 3, 64, dtype=F64)[:, None]
    options = {"damping": 1e-3, "decay": 4.0, "max_iterations": 15, "raise_on_failure": False}
    found = levenberg_marquardt(None, x0, linearise=linearise, **options)
    torch.testing.assert_close(objective(found.x), torch.stack(seen).amin(0), rtol=1e-14, atol=0)
    assert any(
        bool((later > before).any()) for before, later in itertools.pairwise(seen)
    )  # a trial would have raised it


def test_rosenbrock_and_an_unused_unknown():
    x0 = torch.tensor([[-1.2, 1.0, 7.0], [0.0, 0.0, -3.0]], dtype=F64)
    result = levenberg_marquardt(lambda x: torch.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], 1), x0)
    torch.testing.assert_close(result.x, torch.tensor([[1.0, 1.0, 7.0], [1.0, 1.0, -3.0]], dtype=F64))
    assert bool((result.residual < 1e-10).all())


def test_jacobian_point_by_point():
    true, data = decays()
    scalar = per_point(lambda x, t, y: x[0] * torch.exp(-x[1] * t) - y, T.expand(4, 25), data)
    r, jacobian = scalar(true)
    whole = torch.func.jacrev(lambda x: x[:, :1] * torch.exp(-x[:, 1:] * T) - data)(true)
    torch.testing.assert_close(r, true[:, :1] * torch.exp(-true[:, 1:] * T) - data)
    torch.testing.assert_close(jacobian, torch.stack([whole[i, :, i] for i in range(4)]), rtol=1e-12, atol=1e-15)
    fit = levenberg_marquardt(None, torch.ones(4, 2, dtype=F64), linearise=scalar)
    plain = levenberg_marquardt(lambda x: x[:, :1] * torch.exp(-x[:, 1:] * T) - data, torch.ones(4, 2, dtype=F64))
    torch.testing.assert_close(fit.x, plain.x, rtol=1e-12, atol=0)
    # Residuals that are vectors stay together, point by point.
    r, jacobian = per_point(lambda x, t: torch.stack([x[0] * t, x[1] + 0 * t]), T.expand(4, 25))(true)
    assert r.shape == (4, 50)
    torch.testing.assert_close(r[:, 2:4], torch.stack([true[:, 0] * T[1], true[:, 1]], 1))
    torch.testing.assert_close(jacobian[0, 2:4], torch.tensor([[T[1], 0.0], [0.0, 1.0]], dtype=F64))


def test_failures_are_counted_named_or_returned():
    def residual(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[0].log() - 1, x[1] - 1, x[2].log() - 1])

    x0 = torch.tensor([[1.0], [5.0], [-1.0]], dtype=F64)
    result = levenberg_marquardt(residual, x0, raise_on_failure=False)
    assert result.status.tolist() == [0, 0, Status.NOT_FINITE]
    assert result.x.flatten().tolist() == pytest.approx([2.718281828, 1.0, -1.0])
    with pytest.raises(NotConverged, match=r"levenberg_marquardt failed for 1 of 3 samples \(samples 2\)"):
        levenberg_marquardt(residual, x0)
    short = levenberg_marquardt(residual, x0, max_iterations=1, raise_on_failure=False)
    assert short.status.tolist() == [Status.MAX_ITERATIONS, Status.MAX_ITERATIONS, Status.NOT_FINITE]
    assert short.iterations.tolist() == [1, 1, 0]
    # Steps out of the domain are not finite, and are not taken.
    far = levenberg_marquardt(lambda x: x.log(), torch.tensor([[9.0]], dtype=F64))
    assert far.x.item() == pytest.approx(1)
    assert levenberg_marquardt(lambda x: x - 1, torch.zeros(1, 1)).x.dtype == torch.float32


ONE = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: levenberg_marquardt(lambda x: x, torch.full((2, 2), torch.nan)), "x0 must be finite; sample 0 is not"),
        (lambda: levenberg_marquardt(None, ONE), "residual or linearise must be given"),
        (lambda: levenberg_marquardt(lambda x: x, ONE, damping=0), "damping must be positive and decay not negative"),
        (lambda: levenberg_marquardt(lambda x: x, ONE, decay=-1), "got 0.01 and -1"),
        (lambda: levenberg_marquardt(lambda x: x, ONE, max_iterations=0), "max_iterations must be at least 1"),
        (lambda: levenberg_marquardt(lambda x: x, ONE, rtol=0), "rtol and atol must not be negative"),
        (
            lambda: levenberg_marquardt(None, ONE, linearise=lambda x: (x, x[:, None])),
            r"Jacobians \(batch, m, p\) for x0 of shape \(2, 2\); got \(2, 2\) and \(2, 1, 2\)",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_problem_has_an_unknown_at_least() -> None:
    with pytest.raises(ValueError, match=r"x0 must have shape \(batch, p\) with an unknown at least"):
        levenberg_marquardt(lambda x: x, torch.ones(2, 0))

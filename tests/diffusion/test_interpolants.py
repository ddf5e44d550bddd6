"""Interpolants as a family: derivatives, ends, and conversions between fields against Gaussians in closed form."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pdebook.diffusion.interpolants import (
    GAMMAS,
    INTERPOLANTS,
    Gamma,
    Interpolant,
    brownian,
    encoding_decoding,
    linear,
    trigonometric,
)

BUILT = {name: build() for name, build in INTERPOLANTS.items()} | {
    f"{path.__name__}, {name}": path(gamma())
    for path in (linear, trigonometric, encoding_decoding)
    for name, gamma in GAMMAS.items()
}
family = pytest.mark.parametrize("path", BUILT.values(), ids=BUILT)
TIMES = [0.013, 0.2, 0.47, 0.61, 0.9, 0.995]


def derivative(curve: Any, t: Tensor) -> Tensor:
    value = curve(t)
    return torch.autograd.grad(value.sum(), t)[0] if value.requires_grad else torch.zeros_like(t)


@family
def test_rates_are_derivatives(path: Interpolant) -> None:
    t = torch.tensor(TIMES, dtype=torch.float64, requires_grad=True)
    for curve, rate in ((path.alpha, path.alpha_rate), (path.beta, path.beta_rate)):
        torch.testing.assert_close(torch.as_tensor(rate(t)), derivative(curve, t), rtol=1e-12, atol=1e-13)
    half = 0.5 * derivative(path.gamma.squared, t)
    torch.testing.assert_close(torch.as_tensor(path.gamma.product(t)), half, rtol=1e-11, atol=1e-13)


@family
def test_floats_and_tensors_agree(path: Interpolant) -> None:
    t = torch.tensor(TIMES, dtype=torch.float64)
    for curve in (path.alpha, path.alpha_rate, path.beta, path.beta_rate, path.gamma, path.gamma.product):
        torch.testing.assert_close(
            torch.as_tensor(curve(t)).tolist(), [curve(s) for s in TIMES], rtol=1e-13, atol=1e-14
        )


@family
def test_the_path_leads_from_x0_to_x1(path: Interpolant) -> None:
    x0, x1, z = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(path.sample(0.0, x0, x1, z), x0, rtol=0, atol=1e-8)  # the root of rounding in γ²
    torch.testing.assert_close(path.sample(1.0, x0, x1, z), x1, rtol=0, atol=1e-8)


def test_some_values() -> None:
    assert brownian(2.0)(0.5) == pytest.approx(math.sqrt(0.5))
    assert BUILT["encoding-decoding"].alpha(0.5) == pytest.approx(0.0, abs=1e-30)
    assert BUILT["encoding-decoding"].beta(0.75) == pytest.approx(0.5)
    path = BUILT["trigonometric"]
    assert path.alpha(0.3) ** 2 + path.beta(0.3) ** 2 + path.gamma(0.3) ** 2 == pytest.approx(1.0, rel=1e-14)
    assert BUILT["one-sided-linear"].alpha(0.3) == pytest.approx(0.7)


@family
def test_rate_is_the_derivative_of_the_sample(path: Interpolant) -> None:
    x0, x1, z = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    size = 1e-5
    difference = (path.sample(0.3 + size, x0, x1, z) - path.sample(0.3 - size, x0, x1, z)) / (2 * size)
    torch.testing.assert_close(path.rate(0.3, x0, x1, z), difference, rtol=0, atol=1e-7)


@family
@pytest.mark.parametrize("t", TIMES)
def test_conversions_on_gaussians(path: Interpolant, t: float) -> None:
    """x_0 ~ N(m0, v0), x_1 ~ N(m1, v1): all fields are linear in x and known."""
    (m0, v0), (m1, v1) = ((0.0, 1.0) if path.one_sided else (-1.0, 0.3)), (2.0, 0.7)
    alpha, beta, gamma = path.alpha(t), path.beta(t), path.gamma(t)
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    variance = alpha**2 * v0 + beta**2 * v1 + gamma**2
    residual = (x - alpha * m0 - beta * m1) / variance
    score = -residual
    # E[x_i | x] = m_i + Cov(x_i, x) (x - mean) / variance
    start, end = m0 + alpha * v0 * residual, m1 + beta * v1 * residual
    eta = alpha * residual if path.one_sided else gamma * residual
    v = path.beta_rate(t) * end + (0.0 if path.one_sided else path.alpha_rate(t) * start)
    rate = 2 * (alpha * path.alpha_rate(t) * v0 + beta * path.beta_rate(t) * v1 + path.gamma.product(t))
    b = path.alpha_rate(t) * m0 + path.beta_rate(t) * m1 + 0.5 * rate * residual
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(path.velocity(t, v, score), b, **close)
    torch.testing.assert_close(path.deterministic_part(t, b, score), v, **close)
    torch.testing.assert_close(path.denoiser(t, score), eta, **close)
    if gamma > 0 or path.one_sided:
        torch.testing.assert_close(path.score(t, eta), score, **close)
    if path.one_sided:
        torch.testing.assert_close(path.velocity_of_score(t, x, score), b, **close)
        torch.testing.assert_close(path.score_of_velocity(t, x, b), score, **close)


def test_bad_interpolants() -> None:
    good = linear()
    with pytest.raises(ValueError, match="alpha must be 1 at t = 0 and 0 at t = 1, got 0 and 1"):
        Interpolant(good.beta, good.beta_rate, good.beta, good.beta_rate, good.gamma)
    with pytest.raises(ValueError, match="beta must be 0 at t = 0 and 1 at t = 1, got 1 and 0"):
        Interpolant(good.alpha, good.alpha_rate, good.alpha, good.alpha_rate, good.gamma)
    noisy = Gamma(lambda t: 1.0 + 0.0 * t, lambda t: 0.0 * t, lambda t: 0.0 * t)
    with pytest.raises(ValueError, match="gamma must be 0 at t = 0"):
        linear(noisy)
    with pytest.raises(ValueError, match="gamma must be zero in a one-sided interpolant"):
        linear(brownian(), one_sided=True)
    with pytest.raises(ValueError, match="a must be positive, got 0"):
        brownian(0.0)
    with pytest.raises(ValueError, match="one-sided interpolant only"):
        good.velocity_of_score(0.5, torch.zeros(1, 1), torch.zeros(1, 1))

"""φ functions against quadrature and their recursion, floats against tensors, moment systems against their definition."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from pdebook.diffusion import scalars
from pdebook.diffusion.scalars import phi, solve_moments

Z = [-20.0, -3.0, -1.0001, -1.0, -0.9999, -0.3, -1e-6, 0.0, 1e-9, 0.2, 0.9999, 1.0, 1.0001, 2.5, 15.0]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("z", Z)
def test_phi_is_its_integral(k: int, z: float) -> None:
    integral = quad(
        lambda u: math.exp((1 - u) * z) * u ** (k - 1) / math.factorial(k - 1), 0, 1, epsabs=0, epsrel=1e-13
    )
    # Each division by z near 1 in the recursion loses a few last digits; quadrature gives about 1e-14.
    assert phi(k, z) == pytest.approx(integral[0], rel=2e-13)


@given(z=st.floats(-30, 30), k=st.integers(0, 4))
def test_phi_recursion(z: float, k: int) -> None:
    left, right = z * phi(k + 1, z), phi(k, z) - 1 / math.factorial(k)
    assert left == pytest.approx(right, rel=1e-13, abs=1e-13)


def test_phi_at_zero_and_phi_zero() -> None:
    assert [phi(k, 0.0) for k in range(5)] == [1.0, 1.0, 0.5, 1 / 6, 1 / 24]
    assert phi(0, 0.3) == pytest.approx(math.exp(0.3), rel=1e-15)
    assert phi(0, -2.0) == math.exp(-2.0)


@pytest.mark.parametrize("k", range(5))
def test_phi_of_a_tensor_is_phi_of_its_numbers(k: int, device: torch.device) -> None:
    z = torch.tensor(Z, dtype=torch.float64, device=device, requires_grad=True)
    values = phi(k, z)
    assert isinstance(values, Tensor)
    torch.testing.assert_close(values.tolist(), [phi(k, v) for v in Z], rtol=1e-14, atol=0)
    # Both branches are computed for all entries: neither may make the other's gradient NaN.
    (gradient,) = torch.autograd.grad(values.sum(), z)
    steps = [(phi(k, v + 1e-5) - phi(k, v - 1e-5)) / 2e-5 for v in Z if abs(abs(v) - 1) > 1e-3]
    kept = [g for g, v in zip(gradient.tolist(), Z, strict=True) if abs(abs(v) - 1) > 1e-3]
    assert kept == pytest.approx(steps, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "sqrt", "sin", "tan", "atan", "softplus"])
def test_functions_agree_on_floats_and_tensors(name: str) -> None:
    function: Any = getattr(scalars, name)
    values = [1e-6, 0.3, 1.0, 1.5, 30.0]
    tensor = function(torch.tensor(values, dtype=torch.float64))
    torch.testing.assert_close(tensor.tolist(), [function(v) for v in values], rtol=1e-14, atol=0)


def test_extremes_are_infinite_and_raise_nothing() -> None:
    assert scalars.log(0.0) == scalars.log1p(-1.0) == -math.inf
    assert scalars.exp(1e4) == scalars.expm1(1e4) == scalars.exp(math.inf) == math.inf
    assert scalars.softplus(1e4) == 1e4
    assert scalars.softplus(-1e4) == 0.0
    assert scalars.softplus(-math.inf) == 0.0


@given(nodes=st.lists(st.integers(-8, 4), min_size=1, max_size=4, unique=True))
def test_moments_are_met(nodes: list[int]) -> None:
    r, moments = [n / 3 for n in nodes], [1.0, -0.5, 0.25, 2.0][: len(nodes)]
    weights = solve_moments(r, moments)
    for q, moment in enumerate(moments):
        terms = [node**q * w for node, w in zip(r, weights, strict=True)]
        assert sum(terms) == pytest.approx(moment, abs=1e-12 * max(1.0, *map(abs, terms)))
    columns = [torch.full((3, 1), node, dtype=torch.float64) for node in r[:1]]
    rows = solve_moments([*columns, *r[1:]], moments)
    for row, w in zip(rows, weights, strict=True):
        torch.testing.assert_close(row, torch.full((3, 1), w, dtype=torch.float64), rtol=1e-9, atol=1e-9)

"""Exact solutions satisfy their equations: derivatives by automatic differentiation, or on the grid."""

import math

import pytest
import torch
from torch import Tensor

from pdebook.pde import exact
from pdebook.pde.grid import Grid
from pdebook.pde.spectral import Spectral

X = torch.linspace(-3.0, 3.0, 41, dtype=torch.float64)


def derivative(value: Tensor, x: Tensor, order: int = 1) -> Tensor:
    for _ in range(order):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    return value


def variables(*values: Tensor | float) -> list[Tensor]:
    return [torch.as_tensor(value, dtype=torch.float64).expand(41).clone().requires_grad_() for value in values]


@pytest.mark.parametrize(
    ("wavenumbers", "centres"), [((1.3,), (0.2,)), ((1.5, 0.8), (-1.0, 0.5)), ((1.6, 1.1, 0.7), (-1.0, 0.0, 1.0))]
)
def test_solitons(wavenumbers: tuple[float, ...], centres: tuple[float, ...]) -> None:
    x, t = variables(X, 0.3)
    u = exact.kdv_solitons(x, t, wavenumbers, centres)
    residual = derivative(u, t) + 6 * u * derivative(u, x) + derivative(u, x, 3)
    assert residual.abs().max() < 1e-11 * derivative(u, x, 3).abs().max()


def test_one_soliton_and_the_shift_of_two() -> None:
    u = exact.kdv_solitons(X, 0.5, [1.2], [-0.4])
    torch.testing.assert_close(u, 0.72 / torch.cosh(0.6 * (X - 1.44 * 0.5 + 0.4)) ** 2)
    # Long before and after they meet they are two of these, moved against each other.
    late = exact.kdv_solitons(X + 1.5**2 * 20, 20.0, [1.5, 0.5], [0.0, 0.0])
    # Ahead of the slower one, the faster one's exponent gains log A.
    shift = 2 * math.log((1.5 + 0.5) / (1.5 - 0.5)) / 1.5
    torch.testing.assert_close(late, 1.125 / torch.cosh(0.75 * (X - shift)) ** 2, rtol=1e-6, atol=1e-6)


def test_fisher_wave() -> None:
    x, t = variables(X, 0.4)
    u = exact.fisher_wave(x, t, 0.7, 2.0)
    residual = derivative(u, t) - 0.7 * derivative(u, x, 2) - 2.0 * u * (1 - u)
    assert residual.abs().max() < 1e-14
    assert exact.fisher_wave(X - 90, 0.0)[0] == pytest.approx(1.0, abs=1e-15)
    torch.testing.assert_close(exact.fisher_wave(X + 5 / math.sqrt(6) * 3, 3.0), exact.fisher_wave(X, 0.0))


def test_heat_kernel() -> None:
    x, t = variables(X, 0.02)
    y = torch.full_like(x, 0.3).requires_grad_()
    u = exact.heat_kernel([x, y], t, 0.7, 0.3, (2.0, 1.5), (0.2, 1.4))
    residual = derivative(u, t) - 0.7 * (derivative(u, x, 2) + derivative(u, y, 2))
    assert residual.abs().max() < 1e-12
    grid = Grid(64, 2.0, -1.0)
    (x,) = grid.coordinates("nodes")
    spread = exact.heat_kernel([x], 5.0, 0.2, 0.1, [2.0], [0.9])
    assert spread.mean().item() * 2.0 == pytest.approx(1.0, abs=1e-13)
    narrow = exact.heat_kernel([x], 0.0, 0.2, 0.1, [2.0], [0.0])
    torch.testing.assert_close(narrow, torch.exp(-(x**2) / 0.02) / math.sqrt(2 * math.pi * 0.01))


def test_what_is_advected_comes_around() -> None:
    grid = Grid((16, 8), (2.0, 1.0), (-1.0, 0.5))
    x, y = grid.coordinates("nodes")

    def profile(x: Tensor, y: Tensor) -> Tensor:
        assert x.min() >= -1.0
        assert x.max() < 1.0
        assert y.min() >= 0.5
        return x + 10 * y

    start = exact.advected(profile, [x, y], 0.0, [1.0, 1.0], grid.length, grid.origin)
    torch.testing.assert_close(start, x + 10 * y)
    moved = exact.advected(profile, [x, y], 0.25, [2.0, -1.0], grid.length, grid.origin)
    torch.testing.assert_close(moved, start.roll((4, -2), (0, 1)))
    around = exact.advected(lambda x: x, [x], 3.0, [2.0], [2.0], [-1.0])
    torch.testing.assert_close(around, x)


@pytest.mark.parametrize("n", [64, 65])
def test_cole_hopf(n: int) -> None:
    grid = Grid(n, 3.0)
    basis = Spectral(grid)
    (x,) = grid.coordinates("nodes")
    u0 = (0.4 + torch.sin(2 * math.pi * x / 3.0) * torch.tensor([[[0.5]], [[1.0]]], dtype=torch.float64)).contiguous()
    torch.testing.assert_close(exact.cole_hopf(u0, 0.0, 0.2, 3.0), u0, rtol=1e-9, atol=1e-9)

    def at(t: float) -> Tensor:
        return exact.cole_hopf(u0, t, 0.2, 3.0)

    h, u = 1e-3, at(0.5)
    rate = (8 * (at(0.5 + h) - at(0.5 - h)) - (at(0.5 + 2 * h) - at(0.5 - 2 * h))) / (12 * h)
    residual = rate + 0.5 * basis.derivative(u * u, [1]) - 0.2 * basis.derivative(u, [2])
    assert residual.abs().max() < 1e-8
    torch.testing.assert_close(u.mean(-1), u0.mean(-1))


def test_taylor_green_with_its_pressure() -> None:
    k = 2.0
    grid = Grid((24, 24), 2 * math.pi / k)
    basis, (x, y) = Spectral(grid), grid.mesh("nodes")
    u, p, w = exact.taylor_green(x, y, 0.3, 0.1, k)
    u, p, w = u[None], p[None, None], w[None, None]
    torch.testing.assert_close(basis.vorticity(u), w)
    assert basis.divergence(u).abs().max() < 1e-12
    # u_t = -2νk² u = νΔu: what is left is (u·∇)u = -∇p.
    torch.testing.assert_close(-2 * k * k * u, basis.laplacian(u))
    convection = (basis.jacobian(u) * u[:, None]).sum(2)
    torch.testing.assert_close(convection, -basis.gradient(p), rtol=0, atol=1e-12)
    torch.testing.assert_close(exact.taylor_green(x, y, 0.0, 0.1, k)[0] * math.exp(-2 * 0.1 * 4 * 0.3), u[0])


def test_abc_flow_is_its_own_vorticity() -> None:
    grid = Grid((8, 8, 8), 2 * math.pi)
    basis = Spectral(grid)
    u = exact.abc_flow(*grid.coordinates("nodes"), 0.5, 0.3, (1.0, 0.7, 0.4))[None]
    torch.testing.assert_close(basis.vorticity(u), u)
    assert basis.divergence(u).abs().max() < 1e-12
    start = exact.abc_flow(*grid.coordinates("nodes"), 0.0, 0.3, (1.0, 0.7, 0.4))[None]
    torch.testing.assert_close(u, start * math.exp(-0.15))


def test_manufactured_vorticity() -> None:
    grid = Grid((24, 24), 3.0)
    basis = Spectral(grid)
    flow = exact.ManufacturedVorticity(grid, 0.2, 0.3)
    t, h = 0.7, 1e-3
    w = flow.vorticity(t)
    rate = (
        8 * (flow.vorticity(t + h) - flow.vorticity(t - h)) - flow.vorticity(t + 2 * h) + flow.vorticity(t - 2 * h)
    ) / (12 * h)
    carried = (basis.velocity(w) * basis.gradient(w)).sum(1, keepdim=True)
    assert carried.abs().max() > 1.0
    torch.testing.assert_close(
        flow.source(t), rate + carried - 0.2 * basis.laplacian(w) + 0.3 * w, rtol=1e-9, atol=1e-9
    )
    assert flow.source(t, w.float()).dtype == torch.float32
    assert flow.vorticity(t, w.float()).dtype == torch.float32


GRID = Grid((8, 8), (1.0, 2.0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: exact.kdv_solitons(X, 0.0, [1.0, 1.0], [0.0, 0.0]), "wavenumbers must be positive and different"),
        (lambda: exact.kdv_solitons(X, 0.0, [-1.0], [0.0]), "wavenumbers must be positive and different"),
        (lambda: exact.kdv_solitons(X, 0.0, [], []), "wavenumbers must be positive and different"),
        (lambda: exact.kdv_solitons(X, 0.0, [1.0], []), "centres must hold 1 numbers"),
        (lambda: exact.cole_hopf(X[None, None], 1.0, 0.0), "viscosity must be positive and t not negative, got 0.0"),
        (lambda: exact.cole_hopf(X[None, None], -1.0, 1.0), "t not negative, got 1.0 and -1.0"),
        (lambda: exact.cole_hopf(X[None, None], 1.0, 1e-5), "integral's range / 2 viscosity below 600"),
        (lambda: exact.cole_hopf(X[None, None].float(), 1.0, 1e-3), "below 77 in torch.float32"),
        (lambda: exact.heat_kernel([X], 0.0, 1.0, 0.0, [1.0], [0.0]), "width must make"),
        (lambda: exact.heat_kernel([X], 0.0, 1.0, 0.1, [1.0, 1.0], [0.0]), "length and centre must have 1 entries"),
        (lambda: exact.advected(torch.sin, [X], 0.0, [1.0, 1.0], [1.0]), "must have 1 entries"),
        (lambda: exact.ManufacturedVorticity(GRID, 0.1), "grid must be a square"),
        (lambda: exact.ManufacturedVorticity(Grid(8), 0.1), "grid must be a square of two dimensions"),
    ],
)
def test_bad_input_is_named(call, words) -> None:
    with pytest.raises(ValueError, match=words):
        call()

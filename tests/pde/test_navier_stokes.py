"""Incompressible flow: exact solutions, invariants, and the two forms against each other."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pdebook.metrics.order import observed_order
from pdebook.pde import exact
from pdebook.pde.grid import Grid
from pdebook.pde.navier_stokes import NavierStokes, Vorticity, kolmogorov
from pdebook.pde.semilinear import Stepper

TWO_PI = 2 * math.pi
SQUARE = Grid((24, 24), TWO_PI)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def turbulent(grid: Grid, batch: int = 1, seed: int = 0) -> Tensor:
    """A vorticity of random low modes, mean zero, size one."""
    flow = Vorticity(grid)
    w = torch.randn(batch, 1, *grid.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis = flow.basis
    c = basis.forward(w)
    k2 = -basis.laplacian_symbol
    c = c * basis.mask * torch.exp(-k2 / 8) * (k2 > 0)
    w = basis.inverse(c)
    return w / w.std()


def test_taylor_green_decays_by_itself() -> None:
    x, y = SQUARE.mesh("nodes")
    nu = torch.tensor([0.1, 0.02], dtype=torch.float64)
    u, _, w = exact.taylor_green(x, y, 0.0, 0.1)
    flow = Stepper(Vorticity(SQUARE, nu), 0.05).rollout(w.expand(2, 1, -1, -1), 20, 20)[:, 0]
    velocity = Stepper(NavierStokes(SQUARE, nu), 0.05).rollout(u.expand(2, -1, -1, -1), 20, 20)[:, 0]
    for i in (0, 1):
        u, _, w = exact.taylor_green(x, y, 1.0, float(nu[i]))
        assert (flow[i, 0] - w).abs().max() < 1e-12
        assert (velocity[i] - u).abs().max() < 1e-12


def test_abc_flow_decays_by_itself() -> None:
    grid = Grid((12, 12, 12), TWO_PI)
    start, end = (exact.abc_flow(*grid.coordinates("nodes"), t, 0.1, (1.0, 0.8, 0.6))[None] for t in (0.0, 1.0))
    assert (Stepper(NavierStokes(grid, 0.1), 0.05).rollout(start, 20, 20)[:, 0] - end).abs().max() < 1e-10


@pytest.mark.parametrize(("method", "order"), [("etdrk4", 4), ("ars443", 3), ("sbdf2", 2)])
def test_manufactured_flow_converges(method: str, order: int) -> None:
    flow = exact.ManufacturedVorticity(Grid((16, 16), 3.0), 0.05, 0.2)
    equation = Vorticity(flow.grid, 0.05, drag=0.2, source=flow.source)
    counts = (10, 20, 40)
    errors = [
        float(
            (Stepper(equation, 1 / n, method).rollout(flow.vorticity(0.3), n, n, t=0.3)[:, 0] - flow.vorticity(1.3))
            .abs()
            .max()
        )
        for n in counts
    ]
    assert observed_order(errors, n=counts).order == pytest.approx(order, abs=0.3)


def test_manufactured_flow_by_its_velocity() -> None:
    """The same force, as the velocity whose curl it is."""
    flow = exact.ManufacturedVorticity(Grid((16, 16), 3.0), 0.05, 0.2)
    vorticity = Vorticity(flow.grid, 0.05)
    basis = vorticity.basis
    equation = NavierStokes(flow.grid, 0.05, drag=0.2, source=lambda t: basis.velocity(flow.source(t)))
    end = Stepper(equation, 0.02).rollout(basis.velocity(flow.vorticity(0.0)), 50, 50)[:, 0]
    assert (basis.vorticity(end) - flow.vorticity(1.0)).abs().max() < 1e-5


def test_both_forms_are_one_flow() -> None:
    grid = Grid((24, 20), (TWO_PI, 5.0))
    w = turbulent(grid, 2)
    flow, velocity = Vorticity(grid, 0.01, drag=0.1), NavierStokes(grid, 0.01, drag=0.1)
    end = Stepper(flow, 0.01).rollout(w, 50, 50)[:, 0]
    u = Stepper(velocity, 0.01).rollout(flow.basis.velocity(w), 50, 50)[:, 0]
    torch.testing.assert_close(flow.basis.vorticity(u), end, rtol=0, atol=1e-7)
    assert flow.basis.divergence(u).abs().max() < 1e-12
    assert (end - w).abs().max() > 0.1


def test_the_plane_in_space() -> None:
    plane, space = Grid((12, 12), TWO_PI), Grid((12, 12, 8), TWO_PI)
    u = Vorticity(plane).basis.velocity(turbulent(plane))
    wide = torch.zeros(1, 3, 12, 12, 8, dtype=torch.float64)
    wide[:, :2] = u[..., None]
    wide[:, 2] = 0.1 * u[:, 0, ..., None]
    flat = Stepper(NavierStokes(plane, 0.02), 0.02).rollout(u, 10, 10)[:, 0]
    deep = Stepper(NavierStokes(space, 0.02), 0.02).rollout(wide, 10, 10)[:, 0]
    torch.testing.assert_close(deep[:, :2, :, :, 3], flat)
    assert (deep[:, 2] - wide[:, 2]).abs().max() > 1e-3


def test_energy_and_enstrophy_are_conserved_without_viscosity() -> None:
    equation = Vorticity(SQUARE, 0.0)
    basis = equation.basis
    w = turbulent(SQUARE, 3)
    rate = equation.rhs(w)
    assert (w * rate).mean((1, 2, 3)).abs().max() < 1e-13
    assert (basis.stream(w) * rate).mean((1, 2, 3)).abs().max() < 1e-13
    space = NavierStokes(Grid((12, 12, 12), TWO_PI), 0.0)
    u = space.basis.leray(space.basis.truncate(torch.randn(1, 3, 12, 12, 12, dtype=torch.float64)))
    assert (u * space.rhs(u)).mean().abs() < 1e-12
    assert (space.basis.vorticity(u) * space.rhs(u)).mean().abs() < 1e-12


def test_a_quarter_turn() -> None:
    w = turbulent(SQUARE)
    stepper = Stepper(Vorticity(SQUARE, 0.01), 0.02)
    turned = stepper.rollout(w.rot90(1, (2, 3)).roll(1, 2), 10, 10)[:, 0]
    torch.testing.assert_close(turned, stepper.rollout(w, 10, 10)[:, 0].rot90(1, (2, 3)).roll(1, 2), rtol=0, atol=1e-12)


def test_rossby_waves_travel_west() -> None:
    """One wave is an exact solution: frequency -β k_x/|k|²; drag and viscosity damp it."""
    grid = Grid((16, 16), (TWO_PI, math.pi))
    x, y = grid.mesh("nodes")
    beta = torch.tensor([3.0, -1.0], dtype=torch.float64)
    phase = 2 * x + 2 * y
    u = torch.cos(phase).expand(2, 1, -1, -1)
    end = Stepper(Vorticity(grid, 0.01, beta=beta, drag=0.1), 0.1).rollout(u, 7, 7)[:, 0]
    truth = torch.cos(phase + (beta * 2 / 8 * 0.7)[:, None, None]) * math.exp(-(0.01 * 8 + 0.1) * 0.7)
    torch.testing.assert_close(end[:, 0], truth, rtol=0, atol=1e-12)


def test_dissipation_by_scale() -> None:
    x, y = SQUARE.mesh("nodes")
    w = (torch.cos(3 * x) + 0 * y)[None, None]
    end = Stepper(Vorticity(SQUARE, 0.0, dissipation=lambda k2: 0.01 * k2**1.5), 0.1).step(w)
    torch.testing.assert_close(end, math.exp(-0.27 * 0.1) * w)


def test_kolmogorov_flow_has_its_laminar_state() -> None:
    grid = Grid((8, 24), (TWO_PI, 3.0), (0.0, 1.0))
    _, y = grid.mesh("nodes")
    kappa = 2 * TWO_PI / 3.0
    laminar = 1.5 / (0.5 * kappa**2 + 0.2) * torch.sin(kappa * (y - 1.0))
    u = torch.stack([laminar, 0 * laminar])[None]
    velocity = NavierStokes(grid, 0.5, drag=0.2, source=kolmogorov(grid, 2, 1.5, of="velocity"))
    torch.testing.assert_close(Stepper(velocity, 0.1).rollout(u, 5, 5)[:, 0], u, rtol=0, atol=1e-13)
    flow = Vorticity(grid, 0.5, drag=0.2, source=kolmogorov(grid, 2, 1.5))
    w = flow.basis.vorticity(u)
    torch.testing.assert_close(Stepper(flow, 0.1).rollout(w, 5, 5)[:, 0], w, rtol=0, atol=1e-12)
    assert kolmogorov(Grid((8, 8, 8)), 2, of="velocity").shape == (1, 3, 8, 8, 8)


def test_a_start_that_is_not_free_of_divergence_is_projected() -> None:
    u = torch.randn(2, 2, 24, 24, dtype=torch.float64)
    equation = NavierStokes(SQUARE, 0.1)
    stepper = Stepper(equation, 1e-3)
    end = stepper.step(u)
    assert equation.basis.divergence(end).abs().max() < 1e-10
    torch.testing.assert_close(end, stepper.step(equation.whole.leray(u)))
    torch.testing.assert_close(end.mean((2, 3)), u.mean((2, 3)))
    pushed = NavierStokes(SQUARE, 0.1, source=u)
    assert pushed.basis.divergence(Stepper(pushed, 1e-3).step(u)).abs().max() < 1e-10


def test_the_speed_is_the_velocity() -> None:
    x, y = SQUARE.mesh("nodes")
    w = (-2 * torch.cos(x) * torch.cos(y))[None, None]
    h = TWO_PI / 24
    assert float(Vorticity(SQUARE).courant(w, 0.1)) == pytest.approx(0.1 / h)
    u = torch.stack([x.cos() * y.sin(), -x.sin() * y.cos()])[None]
    assert float(NavierStokes(SQUARE).courant(u, 0.1)) == pytest.approx(0.1 / h)


LINE, CUBE = Grid(12), Grid((12, 12, 12))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Vorticity(CUBE), "grid must have two dimensions, got .*; see NavierStokes"),
        (lambda: NavierStokes(LINE), "grid must have two or three dimensions"),
        (lambda: Vorticity(SQUARE, -1.0), "viscosity must be finite and not negative"),
        (lambda: Vorticity(SQUARE, drag=math.nan), "drag must be finite"),
        (lambda: Vorticity(SQUARE, beta=math.inf), "beta must be finite"),
        (lambda: NavierStokes(SQUARE, -1.0), "viscosity must be finite and not negative"),
        (lambda: NavierStokes(SQUARE, drag=math.nan), "drag must be finite"),
        (lambda: kolmogorov(SQUARE, 12), "mode must be from 1 to less than 24/2, got 12"),
        (lambda: kolmogorov(SQUARE, 0), "mode must be from 1"),
        (lambda: kolmogorov(CUBE), "grid must have two dimensions"),
        (lambda: kolmogorov(LINE, of="velocity"), "grid must have two dimensions"),
        (lambda: kolmogorov(SQUARE, of="force"), "of must be 'vorticity' or 'velocity', got 'force'"),
        (
            lambda: Stepper(Vorticity(SQUARE), 0.1).step(torch.zeros(1, 2, 24, 24)),
            r"u must have shape \(batch, 1, 24, 24\)",
        ),
    ],
)
def test_bad_input_is_named(call, words) -> None:
    with pytest.raises(ValueError, match=words):
        call()

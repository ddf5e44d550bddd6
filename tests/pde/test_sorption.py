"""Diffusion with sorption: limits with exact solutions, a converged reference, bounds, conservation, the sign of the outflow."""

import math

import pytest
import torch

from pdebook.metrics.order import observed_order
from pdebook.pde.failure import Diverged
from pdebook.pde.grid import Grid
from pdebook.pde.sorption import Sorption


def constant(values, n: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1).expand(-1, 1, n).contiguous()


def test_retardation_and_storage():
    model = Sorption()
    u = torch.linspace(0, 1, 11, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(model.storage(u).sum(), u)
    torch.testing.assert_close(slope, model.retardation(u))
    assert float(model.retardation(torch.ones(1).double())) == pytest.approx(
        1 + 0.71 / 0.29 * 2880 * 3.5e-4 * 0.874, rel=1e-6
    )
    assert float(model.retardation(torch.zeros(1).double())) == pytest.approx(13.3, abs=0.05)
    below = torch.tensor([-1.0, -0.5, 0.0], dtype=torch.float64)
    assert model.storage(below).diff().tolist() == pytest.approx([0.5 * float(model.retardation(below)[0])] * 2)
    assert model.retardation(torch.ones(2, dtype=torch.float32)).dtype == torch.float32


def test_without_sorption_it_is_the_heat_equation():
    """With R constant and a far right end: u = erfc(x / sqrt(4 D t / R))."""
    model = Sorption(exponent=1.0, diffusivity=1e-3)
    r = 1 + 0.71 / 0.29 * 2880 * 3.5e-4
    errors = []
    for n in (24, 48):
        grid = Grid(n)
        x = grid.coordinates()[0]
        u = model.solve(constant([0.0], n), grid, [20.0, 60.0], steps=n // 2)
        exact = torch.erfc(x / math.sqrt(4 * 1e-3 * 60.0 / r))
        errors.append(float((u[0, 1] - exact).abs().max()))
    assert errors[1] < 1e-3
    assert observed_order(errors, n=[24, 48]).order == pytest.approx(2.0, abs=0.3)


def test_the_steady_state_is_the_line_between_both_ends():
    """u'' = 0, u(0) = 1, u(1) + D u'(1) = 0: u = 1 - x/(1 + D)."""
    model = Sorption(diffusivity=0.25, left=2.0)
    grid = Grid(16)
    u = model.solve(constant([0.1, 0.0], 16), grid, [400.0], steps=20)
    torch.testing.assert_close(u[1, 0], 2 * (1 - grid.coordinates()[0] / 1.25), rtol=0, atol=1e-10)
    assert model.rhs(u[:1], grid).abs().max() < 1e-10
    released = Sorption(diffusivity=0.25, walls="released").solve(constant([0.1], 16), grid, [400.0], steps=20)
    h = 1 / 16
    slope = -1 / (16 * h + h + 0.25)  # zero where the line leaves the ghost value D/h (u_{N-2} - u_{N-1})
    ghost = released[0, 0, -1] + slope * h
    assert float(ghost) == pytest.approx(0.25 / h * float(released[0, 0, -2] - released[0, 0, -1]), abs=1e-9)
    assert float(released[0, 0, 0] - slope * h) == pytest.approx(1.0, abs=1e-9)


def test_against_a_converged_solution():
    """The grid's error alone, against a grid eight times finer with the same steps."""
    values = [0.01, 0.19]
    times = [50.0, 200.0]
    model, fine = Sorption(), 1024
    reference = model.solve(constant(values, fine), Grid(fine), times, steps=8)
    grid_errors = [
        float(
            (model.solve(constant(values, n), Grid(n), times, steps=8) - reference.unflatten(2, (n, fine // n)).mean(3))
            .abs()
            .max()
        )
        for n in (32, 64, 128)
    ]
    assert observed_order(grid_errors, n=[32, 64, 128]).order > 1.7
    assert grid_errors[-1] < 4e-4


def test_orders_in_time():
    grid, model = Grid(24), Sorption()
    start = model.solve(constant([0.05], 24), grid, [40.0], steps=8)  # smooth by now
    exact = model.solve(start, grid, [40.0], steps=60)
    for method, order in (("euler", 1.0), ("sdirk2", 2.0)):
        errors = []
        for steps in (5, 10, 20):
            u = model.solve(start, grid, [40.0], steps=steps, method=method)
            errors.append(float((u - exact).abs().max()))
        assert observed_order(errors, n=[5, 10, 20]).order == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("walls", ["ends", "released"])
def test_a_linear_step_is_the_rational_function_of_its_matrix(walls):
    """With n_f = 1 the equation is u' = A u + s: Euler's step has 1/(1 - z), the other (1 + (1 - 2γ) z)/(1 - γ z)²."""
    model, grid, dt = Sorption(exponent=1.0, diffusivity=0.05, left=0.8, walls=walls), Grid(6), 3.0
    u = torch.tensor([[[0.5, 0.1, 0.3, 0.2, 0.6, 0.4]]], dtype=torch.float64)
    a = torch.autograd.functional.jacobian(lambda u: model.rhs(u, grid)[0, 0], u)[:, 0, 0]
    unit, gamma = torch.eye(6, dtype=torch.float64), 1 - math.sqrt(0.5)
    rest = torch.linalg.solve(a, -model.rhs(torch.zeros_like(u), grid)[0, 0])
    resolvent = torch.linalg.inv(unit - gamma * dt * a)
    for method, factor in (
        ("euler", torch.linalg.inv(unit - dt * a)),
        ("sdirk2", resolvent @ resolvent @ (unit + (1 - 2 * gamma) * dt * a)),
    ):
        found = model.solve(u, grid, [dt], steps=1, method=method)[0, 0]
        torch.testing.assert_close(found, rest + factor @ (u[0, 0] - rest), rtol=0, atol=1e-11)


def test_fronts_are_monotone_and_bounded_and_what_enters_is_stored():
    grid, model = Grid(64), Sorption()
    h, dt = 1 / 64, 5.0
    start = constant([0.0, 0.2], 64)
    u = model.solve(start, grid, [dt], steps=1, method="euler")
    assert float(u.min()) >= 0.0
    assert float(u.max()) <= 1.0
    assert bool((u[0].diff() <= 0).all())
    gained = (model.storage(u[:, 0]) - model.storage(start[:, 0])).sum(1) * h
    end = u[:, 0, -1]
    outflow = end * 5e-4 / (5e-4 + h / 2)  # D (u - value on the end)/(h/2) with u_end = -D u_x
    flux = 5e-4 * (1 - u[:, 0, 0]) / (h / 2) - outflow
    torch.testing.assert_close(gained, dt * flux, rtol=1e-9, atol=1e-12)
    long = model.solve(start, grid, [5.0 * i for i in range(1, 11)], steps=3)
    assert float(long.min()) > -1e-6
    assert float(long.max()) < 1.0
    assert bool((long[0].diff(dim=1) < 1e-7).all())


def test_newton_finds_the_solution_from_any_side_in_one_huge_step():
    grid, model = Grid(64), Sorption()
    for value in (0.0, 1e-7, 0.2, 1.0):
        u = model.solve(constant([value], 64), grid, [1e4], steps=1, method="euler", newton=30)
        flow = model.rhs(u, grid)[:, 0] * model.retardation(u[:, 0])
        torch.testing.assert_close(
            model.storage(u[:, 0]) - 1e4 * flow, model.storage(constant([value], 64)[:, 0]), rtol=1e-8, atol=1e-8
        )


def test_the_papers_sign_of_the_outflow_can_not_be():
    """The mode e^{(x-1)/D} satisfies u = D ∂_x u at x = 1 and grows at the rate 1/(R D) of ∂_t u = D/R ∂_xx u."""
    d, n, r = 0.05, 400, 3.0
    h = 1 / n
    matrix = torch.diag(torch.full((n,), -2.0)) + torch.diag(torch.ones(n - 1), 1) + torch.diag(torch.ones(n - 1), -1)
    matrix[0, 0] = -3.0
    growth = {}
    for sign in (1, -1):
        ghost = (sign * d / h - 0.5) / (sign * d / h + 0.5)  # (u + g)/2 = -sign D (g - u)/h
        matrix[-1, -1] = -2.0 + ghost
        growth[sign] = float(torch.linalg.eigvals(matrix.double() * d / (r * h * h)).real.max())
    assert growth[1] < 0
    assert growth[-1] == pytest.approx(1 / (r * d), rel=0.01)


def test_the_step_is_the_tridiagonal_system_of_the_rates():
    grid = Grid(5)
    for walls in ("ends", "released"):
        model = Sorption(diffusivity=0.3, left=0.7, walls=walls)
        u = torch.tensor([0.5, 0.4, 0.6, 0.1, 0.3], dtype=torch.float64)[None, None]
        h = 0.2
        if walls == "ends":
            left, ratio = 1.4 - 0.5, 0.3 / h
            right = 0.3 * (ratio - 0.5) / (ratio + 0.5)
        else:
            left, right = 0.7, 0.3 / h * (0.1 - 0.3)
        wide = torch.cat([torch.tensor([left]), u[0, 0], torch.tensor([right])]).double()
        wanted = 0.3 * wide.diff().diff() / h**2 / model.retardation(u[0, 0])
        torch.testing.assert_close(model.rhs(u, grid)[0, 0], wanted, rtol=1e-6, atol=0)


def test_parameters_and_batches():
    grid = Grid(32)
    d = torch.tensor([5e-4, 2e-3], dtype=torch.float64)
    left = torch.tensor([1.0, 0.5], dtype=torch.float64)
    both = Sorption(diffusivity=d, left=left).solve(constant([0.1, 0.1], 32), grid, [10.0, 20.0], steps=3)
    for i in range(2):
        alone = Sorption(diffusivity=float(d[i]), left=float(left[i])).solve(
            constant([0.1], 32), grid, [10.0, 20.0], steps=3
        )
        torch.testing.assert_close(alone[0], both[i], rtol=0, atol=1e-12)
    single = Sorption().solve(constant([0.1], 32).float(), grid, [10.0, 20.0], steps=3)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single[0].double(), both[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["euler", "sdirk2"])
def test_gradients(method):
    u0 = torch.tensor([[[0.1, 0.3, 0.2, 0.15]]], dtype=torch.float64, requires_grad=True)
    d = torch.tensor([0.02], dtype=torch.float64, requires_grad=True)
    left = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)

    def solve(u0, d, left):
        return Sorption(diffusivity=d, left=left).solve(u0, Grid(4), [1.0, 3.0], steps=2, method=method)

    assert torch.autograd.gradcheck(solve, (u0, d, left))


def test_failed_iterations_are_named():
    with pytest.raises(
        Diverged, match=r"failed for 2 of 2 samples \(samples 0, 1\), first in step 1, which ends at t = 50; take"
    ) as e:
        Sorption().solve(constant([0.0, 0.1], 64), Grid(64), [50.0], steps=1, newton=1)
    assert e.value.first_bad.tolist() == [1, 1]
    # Steps before the first time are those of cubes; later ones are equal.
    with pytest.raises(Diverged, match=r"first in step 1, which ends at t = 6.25;"):
        Sorption().solve(constant([0.0], 64), Grid(64), [50.0], steps=2, newton=1)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_failure_in_either_stage_counts(monkeypatch, stage):
    solved, calls = Sorption._implicit, []

    def implicit(*args):
        calls.append(1)
        end, good = solved(*args)
        return end, good & torch.tensor([True, len(calls) != stage])

    monkeypatch.setattr(Sorption, "_implicit", implicit)
    with pytest.raises(Diverged, match=r"failed for 1 of 2 samples \(samples 1\), first in step 1,"):
        Sorption().solve(constant([0.0, 0.1], 16), Grid(16), [50.0], steps=4)


U = torch.full((2, 1, 8), 0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Sorption(diffusivity=0.0), "diffusivity must be positive and finite, got 0.0"),
        (lambda: Sorption(diffusivity=math.inf), "diffusivity must be positive and finite, got inf"),
        (lambda: Sorption(left=-1.0), "left must be finite and not negative, got -1.0"),
        (lambda: Sorption(left=torch.tensor([0.5, math.nan])), "left must be finite"),
        (lambda: Sorption(bulk_density=math.nan), "bulk_density and factor not negative"),
        (lambda: Sorption().rhs(torch.ones(1, 1, 4, 4), Grid((4, 4))), "grid must be a line, got 2 axes"),
        (lambda: Sorption().rhs(torch.ones(1, 1, 1), Grid(1)), "2 cells at least, got 1"),
        (lambda: Sorption().solve(U.half(), Grid(8), [1.0]), "u0 must be floating-point, float32 or float64"),
        (lambda: Sorption().solve(U[:0], Grid(8), [1.0]), "u0 must be .* with a sample at least"),
        (lambda: Sorption().solve(U, Grid(8), [1.0], tolerance=-1.0), "tolerance must be positive, got -1.0"),
        (lambda: Sorption().solve(U, Grid(8), [math.nan]), "times must be positive and increase"),
        (lambda: Sorption(porosity=1.0), r"porosity must be in \(0, 1\)"),
        (lambda: Sorption(exponent=1.5), r"exponent in \(0, 1\]"),
        (lambda: Sorption(factor=-1.0), "factor not negative"),
        (lambda: Sorption(walls="paper"), "walls must be 'ends' or 'released', got 'paper'"),
        (lambda: Sorption().solve(torch.ones(1, 1, 4), Grid((4, 4)), [1.0]), "grid must be a line, got 2 axes"),
        (lambda: Sorption().solve(U, Grid(9), [1.0]), r"u0 must have shape \(batch, 1, 9\)"),
        (lambda: Sorption().solve(torch.ones(1, 1, 1), Grid(1), [1.0]), "2 cells at least, got 1"),
        (lambda: Sorption().solve(U.int(), Grid(8), [1.0]), "u0 must be floating-point"),
        (lambda: Sorption().solve(U * torch.nan, Grid(8), [1.0]), "u0 must be finite; sample 0"),
        (lambda: Sorption().solve(-U, Grid(8), [1.0]), "u0 must not be negative, got -0.1"),
        (lambda: Sorption().solve(U, Grid(8), [2.0, 1.0]), r"times must be positive and increase, got \[2.0, 1.0\]"),
        (lambda: Sorption().solve(U, Grid(8), []), "times must be positive and increase"),
        (lambda: Sorption().solve(U, Grid(8), [1.0], method="rk4"), "method must be 'sdirk2' or 'euler', got 'rk4'"),
        (
            lambda: Sorption().solve(U, Grid(8), [1.0], steps=0),
            "steps and newton must be integers, at least 1, got 0 and 12",
        ),
        (lambda: Sorption(diffusivity=torch.ones(3)).solve(U, Grid(8), [1.0]), "one for each of the 2 samples"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

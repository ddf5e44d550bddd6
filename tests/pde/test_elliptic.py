"""Elliptic solves: exact and manufactured solutions, series resistance, counts of iterations, gradients, honest refusals."""

import math

import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.algebra.conjugate_gradient import conjugate_gradient
from pdebook.algebra.multigrid import Multigrid
from pdebook.algebra.results import NotConverged
from pdebook.metrics.order import observed_order
from pdebook.pde import boundary as bc
from pdebook.pde.darcy import darcy, darcy_released, diffuse
from pdebook.pde.elliptic import Diffusion, box_bases, poisson
from pdebook.pde.grid import Grid
from pdebook.pde.obstacles import obstacle_operator
from pdebook.pde.starts import darcy_coefficient, darcy_start

PI = math.pi


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def media(n: int, batch: int = 2) -> tuple[Grid, torch.Tensor]:
    grid = Grid((n, n))
    return grid, darcy_coefficient(1, torch.arange(batch), grid, dtype=torch.float64)


def dense(problem: Diffusion) -> torch.Tensor:
    shape = (1, *problem.grid.size)
    return problem.operator.operator(shape).dense(len(problem.operator.faces[0]), torch.float64)


# --- Poisson by transforms ---------------------------------------------------------------------------------------------------


def centre(u: torch.Tensor, n: int) -> float:
    """u(1/2, 1/2) from the four cells around it, with the Laplacian -1 to take out what their mean adds."""
    return float(u[0, 0, n // 2 - 1 : n // 2 + 1, n // 2 - 1 : n // 2 + 1].mean()) + 1 / (8 * n * n)


def test_the_centre_of_the_unit_square():
    odd = [(i, j) for i in range(1, 400, 2) for j in range(1, 400, 2)]
    series = sum(16 * math.sin(i * PI / 2) * math.sin(j * PI / 2) / (PI**4 * i * j * (i * i + j * j)) for i, j in odd)
    assert series == pytest.approx(0.0736713, abs=1e-7)
    for solve in (lambda a, g: poisson(torch.ones_like(a), g), lambda a, g: 3.0 * darcy(3.0 * a, g, rtol=1e-11)):
        errors = [
            abs(centre(solve(torch.ones(1, 1, n, n, dtype=torch.float64), Grid((n, n))), n) - 0.07367135328)
            for n in (16, 32, 64)
        ]
        assert observed_order(errors, n=[16, 32, 64]).order == pytest.approx(2.0, abs=0.05)


PAIRS = {
    "periodic": (bc.Periodic(), lambda x: torch.sin(2 * PI * x)),
    "neumann": (bc.Wall(), lambda x: torch.cos(2 * PI * x)),
    "dirichlet": (bc.dirichlet(), lambda x: torch.sin(2 * PI * x)),
    "neumann-dirichlet": ((bc.neumann(), bc.dirichlet()), lambda x: torch.cos(2.5 * PI * x)),
    "dirichlet-neumann": ((bc.dirichlet(), bc.Outflow()), lambda x: torch.sin(2.5 * PI * x)),
}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(sorted(PAIRS)), min_size=1, max_size=3))
def test_poisson_on_any_mix_of_sides(names):
    grid = Grid((8, 6, 10)[: len(names)], (1.0, 1.0, 1.0)[: len(names)])
    boundary = [PAIRS[name][0] for name in names]
    assert box_bases(boundary, grid.dims) == tuple(names)
    parts = [PAIRS[name][1](x) for name, x in zip(names, grid.coordinates(), strict=True)]
    u = math.prod(parts)[None, None]
    number = sum((2.5 if "-" in name else 2.0) ** 2 for name in names) * PI**2
    torch.testing.assert_close(poisson(number * u, grid, boundary, spectral=True), u, rtol=0, atol=1e-12)
    # By differences it inverts the operator of Diffusion, also with a shift for each sample.
    f = draw(2, 1, *grid.size)
    shift = torch.tensor([0.5, 2.0], dtype=torch.float64)
    solved = poisson(f, grid, boundary, shift=shift)
    problem = Diffusion(grid, torch.ones_like(f), boundary, shift=shift)
    torch.testing.assert_close(problem.operator(solved), f, rtol=0, atol=1e-11)


def test_values_and_slopes_on_the_walls():
    def exact(x, y):
        return torch.exp(x) * torch.sin(y) + x * x

    def errors(solve):
        found = []
        for n in (16, 32, 64):
            grid = Grid((n, n + 2))
            x, y = grid.coordinates()
            sides = [
                (bc.neumann(-torch.sin(y)[None, None]), bc.dirichlet((math.e * torch.sin(y) + 1)[None, None])),
                (
                    bc.dirichlet(lambda t, x=x: (x * x)[None, None] * t),
                    bc.neumann(torch.exp(x)[None, None] * math.cos(1)),
                ),
            ]
            u = exact(x, y)[None, None]
            found.append(float((solve(-2 * torch.ones_like(u), grid, sides) - u).abs().max()))
        return observed_order(found, n=[16, 32, 64]).order

    assert errors(lambda f, grid, sides: poisson(f, grid, sides, t=1.0)) > 1.9
    assert errors(lambda f, grid, sides: Diffusion(grid, torch.ones_like(f), sides, t=1.0).solve(f, rtol=1e-11)) > 1.9


def test_both_kinds_of_solve_agree_and_a_free_solution_has_no_mean():
    grid = Grid((16, 8), (2.0, 1.0))
    for boundary in (bc.Periodic(), bc.Wall(), [bc.Periodic(), bc.Wall()]):
        f = draw(2, 1, 16, 8)
        f = f - f.mean((2, 3), keepdim=True)
        fast = poisson(f, grid, boundary)
        problem = Diffusion(grid, torch.ones_like(f), boundary)
        assert problem.singular
        for name in ("multigrid", "poisson", "jacobi"):
            torch.testing.assert_close(problem.solve(f, preconditioner=name), fast, rtol=0, atol=1e-9)
        assert fast.mean((2, 3)).abs().max() < 1e-15
    # A slope on a wall may balance the source.
    sides = [(bc.neumann(-0.5), bc.neumann(0.0)), bc.Wall()]
    u = poisson(torch.full((1, 1, 16, 8), 0.25, dtype=torch.float64), grid, sides)
    x = grid.coordinates()[0]
    exact = -((x - 2) ** 2) / 8  # -u'' = 1/4, u'(2) = 0, outward slope -u'(0) = -1/2
    torch.testing.assert_close(u, (exact - exact.mean()).expand(1, 1, 16, 8), rtol=0, atol=1e-12)


# --- variable coefficients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faces", ["harmonic", "arithmetic"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_order_two_for_a_smooth_coefficient(faces, dims):
    errors, sizes = [], (8, 16, 32) if dims == 3 else (16, 32, 64)
    for n in sizes:
        grid = Grid((n,) * dims)
        x = [part.requires_grad_() for part in grid.mesh()]
        a = torch.exp(sum(torch.sin((j + 1) * part) for j, part in enumerate(x)))
        u = math.prod(torch.sin(PI * part) * (1 + part) for part in x)
        grads = torch.autograd.grad(u.sum(), x, create_graph=True)
        f = -sum(
            torch.autograd.grad((a * g).sum(), part, retain_graph=True)[0] for g, part in zip(grads, x, strict=True)
        )
        c = 1.0 + x[0].detach() ** 2
        right = (f + c * u).detach()[None, None]
        problem = Diffusion(grid, a.detach()[None, None], shift=c[None, None], faces=faces)
        errors.append(float((problem.solve(right, rtol=1e-10) - u.detach()).square().mean().sqrt()))
    assert observed_order(errors, n=sizes).order == pytest.approx(2.0, abs=0.15)


def test_layers_conduct_in_series_exactly_and_robin_walls_too():
    grid = Grid(12, 3.0)
    a = torch.tensor([1.0] * 3 + [0.01] * 5 + [7.0] * 4, dtype=torch.float64)[None, None]
    problem = Diffusion(grid, a, [(bc.dirichlet(2.0), bc.Robin(5.0, 1.0, 5.0 * 0.5))])
    u = problem.solve(torch.zeros_like(a), rtol=1e-13)
    # a ∂u/∂n = a 5 (0.5 - u) on the right: a film of resistance 1/(5 a) before the value 0.5.
    flux = (2.0 - 0.5) / (3 * 0.25 + 5 * 0.25 / 0.01 + 4 * 0.25 / 7.0 + 1 / (5 * 7.0))
    torch.testing.assert_close(
        problem.fluxes(u)[0], torch.full((1, 1, 13), flux, dtype=torch.float64), rtol=1e-9, atol=0
    )
    arithmetic = Diffusion(grid, a, [(bc.dirichlet(2.0), bc.dirichlet(0.0))], faces="arithmetic")
    wrong = arithmetic.fluxes(arithmetic.solve(torch.zeros_like(a), rtol=1e-13))[0]
    assert float((wrong[0, 0, 0] * (3 * 0.25 + 5 * 0.25 / 0.01 + 4 * 0.25 / 7.0) / 2 - 1).abs()) > 0.1


def test_fluxes_leave_what_the_source_brings():
    grid, a = media(16)
    f = draw(2, 1, 16, 16)
    y = grid.coordinates()[1]
    for boundary in (None, [bc.Periodic(), (bc.Robin(1.0, 0.3, 2.0), bc.neumann(y[:, :1, None, None] + 0.5))]):
        problem = Diffusion(grid, a, boundary)
        u = problem.solve(f, rtol=1e-12)
        out = sum(
            torch.diff(flux, dim=axis + 2) / h
            for axis, (flux, h) in enumerate(zip(problem.fluxes(u), grid.spacing, strict=True))
        )
        torch.testing.assert_close(out, f, rtol=0, atol=1e-8)


def test_against_a_sparse_factorisation_with_a_coefficient_for_each_axis():
    grid = Grid((12, 10), (1.0, 2.0))
    a = draw(2, 2, 12, 10).exp()
    f = draw(2, 1, 12, 10)
    problem = Diffusion(grid, a, [bc.Periodic(), (bc.dirichlet(1.0), bc.Ghost(2.0))])
    u = problem.solve(f, rtol=1e-12)
    matrix, right = dense(problem), problem.right_hand_side(f)
    for i in range(2):
        sparse = scipy.sparse.linalg.spsolve(scipy.sparse.csc_array(matrix[i].numpy()), right[i].flatten().numpy())
        torch.testing.assert_close(u[i].flatten(), torch.as_tensor(sparse), rtol=0, atol=1e-10)
    # One coefficient for many sources, and one source for many coefficients.
    shared = Diffusion(grid, a[:1], [bc.Periodic(), (bc.dirichlet(1.0), bc.Ghost(2.0))])
    torch.testing.assert_close(shared.solve(f, rtol=1e-12)[:1], u[:1], rtol=0, atol=1e-10)
    torch.testing.assert_close(problem.solve(f[:1], rtol=1e-12)[:1], u[:1], rtol=0, atol=1e-10)
    assert problem.solve(f[:1]).shape == (2, 1, 12, 10)


def test_counts_are_bounded_by_the_contrast():
    for n in (32, 64, 128):
        grid, a = media(n, 4)
        f = torch.ones_like(a)
        for faces in ("harmonic", "arithmetic"):
            problem = Diffusion(grid, a, faces=faces)
            # |e_j|_A <= 2 ((√κ-1)/(√κ+1))^j |e_0|_A with κ = 10: 30 steps to 1e-8.
            assert int(problem.result(f, rtol=1e-8, preconditioner="poisson").iterations.max()) <= 31
            assert int(problem.result(f, rtol=1e-8, preconditioner="multigrid").iterations.max()) <= 14
    plain = problem.result(f, rtol=1e-8, preconditioner="jacobi", max_iterations=60, raise_on_failure=False)
    assert not bool(plain.converged.any())


def test_the_fast_preconditioner_inverts_constant_coefficients_and_multigrid_comes_first():
    grid = Grid((8, 6), (1.0, 2.0))
    a = torch.tensor([3.0, 0.5], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 1, 8, 6)
    r = draw(2, 1, 8, 6)
    problem = Diffusion(grid, a, [bc.dirichlet(), bc.Wall()], shift=torch.tensor([0.7, 2.0]).double())
    torch.testing.assert_close(problem.operator(problem.preconditioner("poisson")(r)), r, rtol=0, atol=1e-11)
    rough = Diffusion(*media(32))
    f = torch.ones(2, 1, 32, 32, dtype=torch.float64)
    counts = {name: rough.result(f, preconditioner=name).iterations.tolist() for name in (None, "multigrid", "poisson")}
    assert counts[None] == counts["multigrid"] != counts["poisson"]


def test_constants_are_left_out_of_a_singular_problem_whatever_the_start():
    grid, a = media(16)
    f = draw(2, 1, 16, 16)
    f = f - f.mean((2, 3), keepdim=True)
    problem = Diffusion(grid, a, [bc.Periodic(), bc.Wall()])
    u = problem.solve(f, rtol=1e-12)
    assert u.mean((2, 3)).abs().max() < 1e-15
    # A constant in the start, and a source that is balanced to less than the tolerance of the solve.
    again = problem.solve(f + 2e-10 * f.abs().mean(), x0=u + 7.0, rtol=1e-12)
    assert again.mean((2, 3)).abs().max() < 1e-14
    torch.testing.assert_close(again, u, rtol=0, atol=1e-10)
    for g in (f.float(), f.float() - f.float().mean((2, 3), keepdim=True)):  # balanced to single precision
        single = Diffusion(grid, a.float(), [bc.Periodic(), bc.Wall()]).solve(g)
        torch.testing.assert_close(single.double(), u, rtol=0, atol=1e-3 * float(u.abs().max()))
        torch.testing.assert_close(poisson(g, grid, bc.Wall()).double(), poisson(f, grid, bc.Wall()), rtol=0, atol=1e-5)


def test_odd_sizes_take_the_fast_solve_and_multigrid_says_why_not():
    grid, a = media(37)
    f = torch.ones_like(a)
    problem = Diffusion(grid, a)
    u = problem.solve(f)
    torch.testing.assert_close(problem.operator(u), f, rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match=r"size must halve until at most 256 cells are left, got \(37, 37\)"):
        problem.solve(f, preconditioner="multigrid")


def test_single_precision_is_as_good_as_it_can_be():
    grid, a = media(64)
    f = torch.ones_like(a)
    exact = Diffusion(grid, a).solve(f, rtol=1e-12)
    for name in ("multigrid", "poisson"):
        u = Diffusion(grid, a.float()).solve(f.float(), preconditioner=name)
        assert u.dtype == torch.float32
        assert float((u - exact).norm() / exact.norm()) < 3e-5


def test_a_sample_does_not_depend_on_its_batch():
    grid, a = media(32, 4)
    f = draw(4, 1, 32, 32)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        whole = Diffusion(grid, a.to(dtype)).solve(f.to(dtype))
        for i in range(4):
            alone = Diffusion(grid, a[i : i + 1].to(dtype)).solve(f[i : i + 1].to(dtype))
            torch.testing.assert_close(alone[0], whole[i], rtol=0, atol=tolerance * float(whole[i].abs().max()))


# --- gradients ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["walls", "ring", "box"])
def test_gradients_with_respect_to_everything(kind):
    grid = Grid((3, 3), (1.0, 2.0))
    a, f = (draw(2, 1, 3, 3).exp()).requires_grad_(), draw(2, 1, 3, 3, seed=1).requires_grad_()
    g, c = draw(2, 1, 1, 3, seed=2).requires_grad_(), draw(2, seed=3).exp().requires_grad_()

    def solve(a, f, g, c):
        options = {"preconditioner": "poisson", "rtol": 1e-13}
        if kind == "walls":
            sides = [(bc.Robin(1.0, 0.2, g), bc.neumann(g)), (bc.dirichlet(), bc.Ghost(1.0))]
            return Diffusion(grid, a, sides, shift=c).solve(f, **options)
        if kind == "ring":
            return (
                Diffusion(grid, a, [bc.Periodic(), bc.dirichlet(0.5)]).solve(f * c[:, None, None, None], **options)
                + g.sum()
            )
        f = f * c[:, None, None, None]
        balanced = f - f.mean((2, 3), keepdim=True)
        return Diffusion(grid, a, [bc.Periodic(), bc.Wall()]).solve(balanced, **options) + g.sum()

    assert torch.autograd.gradcheck(solve, (a, f, g, c), rtol=1e-4, fast_mode=True)
    assert torch.autograd.gradgradcheck(solve, (a, f, g, c), rtol=1e-3, atol=1e-4, fast_mode=True)


def test_the_adjoint_gradient_is_minus_the_products_of_gradients():
    grid, a = media(16, 1)
    f = draw(1, 1, 16, 16)
    leaf = a.clone().requires_grad_()
    (darcy(leaf, grid, 2.0, rtol=1e-12, faces="arithmetic") * f).sum().backward()
    bump = torch.zeros_like(a)
    bump[0, 0, 5, 7] = 1e-5
    up, down = ((darcy(a + s * bump, grid, 2.0, rtol=1e-13, faces="arithmetic") * f).sum() for s in (1, -1))
    assert float(leaf.grad[0, 0, 5, 7]) == pytest.approx(float(up - down) / 2e-5, rel=1e-5)


def test_poisson_has_gradients():
    grid = Grid((3, 4))
    f, g = draw(2, 2, 3, 4).requires_grad_(), draw(2, 2, 1, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, g: poisson(f, grid, [(bc.dirichlet(g), bc.neumann(g)), bc.Periodic()]), (f, g)
    )


# --- obstacles ---------------------------------------------------------------------------------------------------------------


def test_obstacles():
    fluid = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    fluid[..., 5:9, 6:12] = False
    air = torch.zeros_like(fluid)
    air[..., 12:, :] = True
    fluid = fluid & ~air
    operator = obstacle_operator(fluid, air=air, dtype=torch.float64, boundary=[bc.Wall(), (bc.Ghost(), bc.Wall())])
    u = draw(1, 1, 16, 16)
    image = operator(u)
    assert image[~fluid].abs().max() == 0
    for i in range(12):
        for j in range(16):
            if not fluid[0, 0, i, j]:
                continue
            value = u[0, 0, i, j]
            wanted = float(value) if j == 0 else 0.0
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= k < 16 and 0 <= m < 16:
                    if fluid[0, 0, k, m]:
                        wanted += float(value - u[0, 0, k, m])
                    elif air[0, 0, k, m]:
                        wanted += float(value)
            assert float(image[0, 0, i, j]) == pytest.approx(wanted, abs=1e-12)
    right = torch.where(fluid, u, 0.0)
    result = conjugate_gradient(operator, right, preconditioner=Multigrid(operator), rtol=1e-10)
    assert int(result.iterations) < 20
    assert result.x[~fluid].abs().max() == 0
    # Across the ring, with spacings: the sample's only fluid cell has air above it and, through the end, below it.
    pond = torch.zeros(1, 1, 4, 3, dtype=torch.bool)
    pond[..., 0, 1] = True
    sky = torch.zeros_like(pond)
    sky[..., 1, 1] = sky[..., 3, 1] = sky[..., 0, 0] = True
    free = obstacle_operator(pond, (0.5, 2.0), air=sky, boundary=[bc.Periodic(), bc.Wall()], dtype=torch.float64)
    assert float(free(pond.double())[0, 0, 0, 1]) == pytest.approx(4.0 + 4.0 + 0.25)
    scaled = obstacle_operator(fluid, (0.5, 1.0), boundary=bc.Periodic(), dtype=torch.float64)
    alone = torch.zeros_like(u)
    alone[..., 0, 3] = 1.0
    assert float(scaled(alone)[0, 0, 0, 3]) == pytest.approx(4.0 + 1.0 + 1.0)  # air beyond the ring is solid


# --- Darcy's transient -------------------------------------------------------------------------------------------------------


def test_the_transient_is_exact_in_space_and_second_order_in_time():
    grid = Grid((12, 8))
    x, y = grid.coordinates()
    a = torch.full((1, 1, 12, 8), 0.3, dtype=torch.float64)
    u0 = (torch.sin(PI * x) * torch.cos(2 * PI * y))[None, None]
    rate = 0.3 * ((24 * math.sin(PI / 24)) ** 2 + (16 * math.sin(PI / 8)) ** 2)
    boundary = [bc.dirichlet(), bc.Wall()]
    errors = []
    z = -rate * 0.4
    gamma = 1 - math.sqrt(0.5)
    amplification = (1 + (1 - 2 * gamma) * z) / (1 - gamma * z) ** 2
    once = diffuse(u0, a, torch.zeros(()).double(), grid, boundary, time=0.4, steps=1, rtol=1e-13)
    torch.testing.assert_close(once, amplification * u0, rtol=0, atol=1e-11)
    for steps in (8, 16):
        u = diffuse(u0, a, torch.zeros(()).double(), grid, boundary, time=0.4, steps=steps, rtol=1e-12)
        errors.append(float((u - math.exp(-0.4 * rate) * u0).abs().max()))
    assert observed_order(errors, n=[8, 16]).order == pytest.approx(2.0, abs=0.15)
    states = diffuse(u0, a, torch.zeros(()).double(), grid, boundary, time=0.4, steps=8, every=4, rtol=1e-12)
    assert states.shape == (1, 2, 12, 8)
    half = diffuse(u0, a, torch.zeros(()).double(), grid, boundary, time=0.2, steps=4, rtol=1e-12)
    torch.testing.assert_close(states[:, :1], half, rtol=0, atol=1e-11)
    # No flux through any wall: mass grows by the source alone.
    closed = diffuse(
        u0, draw(1, 1, 12, 8).exp(), 2.0 * torch.ones(()).double(), grid, bc.Wall(), time=0.5, steps=3, rtol=1e-12
    )
    assert float(closed.mean() - u0.mean()) == pytest.approx(1.0, abs=1e-9)
    leaf = a.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: diffuse(u0[..., :4, :4], a, u0[..., :4, :4], Grid((4, 4)), time=0.1, steps=2, rtol=1e-13),
        leaf.detach()[..., :4, :4].contiguous().requires_grad_(),
        rtol=1e-4,
        fast_mode=True,
    )


def test_the_released_files_are_no_steady_states():
    """Claim C3: the forgotten start, measured against the steady state, is an error floor that falls like 1/β."""
    grid, samples = Grid((16, 16)), torch.arange(24)
    a, start = darcy_coefficient(0, samples, grid), darcy_start(0, samples, grid)
    means = {}
    for beta in (0.01, 0.1, 10.0):
        steady = darcy_released(a, start, grid, beta, time=None)
        gap = (darcy_released(a, start, grid, beta, steps=10) - steady).flatten(1).norm(dim=1) / steady.flatten(1).norm(
            dim=1
        )
        means[beta] = float(gap.mean())
    assert means[0.01] > 0.5
    assert 0.05 < means[0.1] < 1.5
    assert means[10.0] < 0.02
    assert 8 < means[0.01] / means[0.1] < 12
    late = darcy_released(a[:4], start[:4], grid, 0.01, time=40.0, steps=12)
    torch.testing.assert_close(late, darcy_released(a[:4], start[:4], grid, 0.01, time=None), rtol=1e-3, atol=1e-6)


def test_what_is_released_has_arithmetic_means_and_zero_ghosts():
    grid = Grid((8, 8))
    a, start = darcy_coefficient(0, torch.arange(2), grid), darcy_start(0, torch.arange(2), grid)
    a, start, f = a.double(), start.double(), torch.full((2, 1, 8, 8), 0.1, dtype=torch.float64)
    steady = Diffusion(grid, a, bc.Ghost(), faces="arithmetic").solve(f, rtol=1e-12)
    torch.testing.assert_close(darcy_released(a, start, grid, 0.1, time=None, rtol=1e-12), steady, rtol=0, atol=1e-10)
    wanted = diffuse(start, a, f, grid, bc.Ghost(), time=1.75, steps=56, faces="arithmetic", rtol=1e-12)
    torch.testing.assert_close(darcy_released(a, start, grid, 0.1, rtol=1e-12), wanted, rtol=0, atol=1e-10)


def test_the_released_walls_stand_half_a_cell_outside():
    n = 16
    grid = Grid(n)
    a = torch.ones(1, 1, n, dtype=torch.float64)
    u = Diffusion(grid, a, bc.Ghost(), faces="arithmetic").solve(torch.ones_like(a), rtol=1e-12)
    x, h = grid.coordinates()[0], 1 / n
    torch.testing.assert_close(u[0, 0], (x + h / 2) * (1 + h / 2 - x) / 2, rtol=0, atol=1e-10)


# --- bad input ---------------------------------------------------------------------------------------------------------------

G = Grid((4, 4))
ONE = torch.ones(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: poisson(torch.ones(2, 1, 4, 5), G), r"f must have shape \(batch, channel, 4, 4\)"),
        (lambda: poisson(ONE.int(), G), "f must be floating-point"),
        (lambda: poisson(ONE, G, bc.Periodic()), "f must have as much source .* leave 1 in sample 0"),
        (lambda: poisson(ONE, G, [(bc.neumann(-0.5), bc.neumann(-0.4)), bc.Wall()]), "leave 0.1 in sample 0"),
        (lambda: poisson(ONE, G, bc.Robin(1.0, 1.0)), "boundary must be periodic, or fix the value or the slope"),
        (lambda: poisson(ONE, G, bc.Ghost()), "boundary must be periodic, or fix"),
        (lambda: poisson(ONE, G, bc.dirichlet(1.0), spectral=True), "value zero for the spectral Laplacian"),
        (lambda: poisson(ONE, G, shift=-1.0), "shift must not be negative, got -1"),
        (lambda: poisson(ONE, G, shift=torch.ones(3)), r"one for each of the 2 samples, got shape \(3,\)"),
        (lambda: poisson(ONE, G, bc.Outflow(1)), "Outflow of order 0 here"),
        (lambda: Diffusion(G, torch.ones(2, 3, 4, 4)), "a must have one channel or one for each of the 2 axes, got 3"),
        (lambda: Diffusion(G, torch.ones(2, 1, 3, 4)), "a must have shape"),
        (lambda: Diffusion(G, ONE.int()), "a must be floating-point"),
        (lambda: Diffusion(G, torch.stack([ONE[0], 0 * ONE[0]])), "a must be positive and finite; sample 1 reaches 0"),
        (lambda: Diffusion(G, ONE * torch.nan), "a must be positive and finite; sample 0"),
        (lambda: Diffusion(G, ONE, faces="geometric"), "faces must be 'harmonic' or 'arithmetic', got 'geometric'"),
        (lambda: Diffusion(G, ONE, bc.Robin(1.0, -1.0)), "take from the box what a positive u gives it"),
        (lambda: Diffusion(G, ONE, bc.Robin(2.0, -0.25)), "take from the box"),
        (lambda: Diffusion(G, ONE, bc.Outflow(1)), "Outflow of order 0 here"),
        (lambda: Diffusion(G, ONE, shift=-1.0), "shift must not be negative, got -1"),
        (lambda: Diffusion(G, ONE, shift=torch.ones(2, 1, 4, 3)), "shift must be a number"),
        (lambda: Diffusion(G, ONE).solve(ONE.double()), "f must have the dtype of a, torch.float32, got torch.float64"),
        (lambda: Diffusion(G, ONE).solve(torch.ones(3, 1, 4, 4)), "f must have as many samples as a, 2, got 3"),
        (lambda: Diffusion(G, ONE).solve(torch.ones(2, 2, 4, 4)), r"f must have shape \(batch, 1, 4, 4\)"),
        (lambda: Diffusion(G, ONE).solve(ONE * torch.inf), "f must be finite; sample 0"),
        (lambda: Diffusion(G, ONE, bc.Wall()).solve(ONE), "f must have as much source"),
        (lambda: Diffusion(G, ONE).solve(ONE, preconditioner="lu"), "preconditioner must be 'multigrid', 'poisson'"),
        (lambda: poisson(ONE * torch.nan, G), "f must be finite; sample 0"),
        (lambda: poisson(ONE[:0], G), "f must be .* with a sample at least"),
        (lambda: poisson(ONE.half(), G), "f must be floating-point, float32 or float64, got torch.float16"),
        (lambda: poisson(ONE.to(torch.complex64), G), "f must be floating-point, got torch.complex64"),
        (lambda: poisson(ONE, G, shift=math.nan), "shift must not be negative, got nan"),
        (lambda: poisson(ONE, G, bc.dirichlet(math.inf)), "boundary must hold finite values, got inf"),
        (lambda: poisson(ONE, G, bc.dirichlet(torch.ones(3))), r"boundary must hold values .* got shape \(3,\)"),
        (lambda: poisson(ONE, G, [bc.dirichlet(ONE), bc.Wall()]), r"side's \(2, 1, 1, 4\), got shape \(2, 1, 4, 4\)"),
        (lambda: Diffusion(G, ONE.half()), "a must be floating-point, float32 or float64, got torch.float16"),
        (lambda: Diffusion(G, ONE[:0]), "a must have a sample at least"),
        (lambda: Diffusion(G, ONE, shift=math.nan), "shift must not be negative, got nan"),
        (lambda: Diffusion(G, ONE, shift=torch.ones(3)), r"shift must .* with the batch 2 of a, got \(3, 1, 1, 1\)"),
        (lambda: Diffusion(G, ONE[:1], shift=torch.ones(3)).solve(ONE), "f must have as many samples as a, 3, got 2"),
        (lambda: Diffusion(G, ONE, bc.dirichlet(math.nan)), "boundary must hold finite values"),
        (lambda: darcy(ONE, G, math.nan), "beta must be finite, got nan"),
        (lambda: darcy(torch.ones(2, 2, 4, 4), G), r"a must have shape \(batch, 1, 4, 4\)"),
        (lambda: diffuse(ONE * torch.nan, ONE, ONE, G, time=1.0, steps=1), "u0 must be finite; sample 0"),
        (lambda: diffuse(ONE.double(), ONE, ONE, G, time=1.0, steps=1), "u0 and f must have the dtype of a"),
        (
            lambda: diffuse(torch.ones(3, 1, 4, 4), ONE, ONE, G, time=1.0, steps=1),
            "u0 must have as many samples as a, 2",
        ),
        (lambda: diffuse(ONE, ONE, torch.ones(3), G, time=1.0, steps=1), r"f must broadcast to \(2, 1, 4, 4\)"),
        (lambda: obstacle_operator(ONE > 0, (0.0, 1.0)), "spacing must be positive"),
        (lambda: obstacle_operator(ONE), "fluid and air must be boolean, got torch.float32"),
        (lambda: obstacle_operator(ONE > 0, dtype=torch.int32), "dtype must be floating-point, got torch.int32"),
        (lambda: darcy(ONE, G, torch.ones(3)), "beta must be a number or one for each of the 2 samples"),
        (lambda: diffuse(ONE, ONE, ONE, G, time=0.0, steps=1), "time must be positive"),
        (lambda: diffuse(ONE, ONE, ONE, G, time=1.0, steps=3, every=2), "steps a multiple of every"),
        (lambda: obstacle_operator(ONE > 0, air=ONE > 0), "share no cell"),
        (lambda: obstacle_operator(ONE > 0, (1.0,)), "spacing must have 2 entries, got 1"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_failed_solves_are_named():
    grid, a = media(32)
    with pytest.raises(NotConverged, match="conjugate_gradient failed for 2 of 2 samples"):
        Diffusion(grid, a).solve(torch.ones_like(a), preconditioner="jacobi", max_iterations=3)

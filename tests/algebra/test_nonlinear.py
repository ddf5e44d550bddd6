"""Fixed points and roots: theory's rates, samples apart, failures; gradients against unrolling and finite differences."""

import math
from functools import partial

import pytest
import scipy.optimize
import torch
from torch import nn

from pdebook.algebra import nonlinear
from pdebook.algebra.implicit import implicit, implicit_root
from pdebook.algebra.nonlinear import anderson, broyden, newton, picard
from pdebook.algebra.results import NotConverged, Status

F64 = torch.float64


def layer(width: int = 32, batch: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of spectral norm 0.9 and inputs of a layer z = tanh(W z + x) that contracts."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(width, width, dtype=F64, generator=generator)
    return 0.9 * w / torch.linalg.matrix_norm(w, 2), torch.randn(batch, width, dtype=F64, generator=generator)


def cell(z: torch.Tensor, w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(z @ w.T + x)


def unrolled(w: torch.Tensor, x: torch.Tensor, steps: int = 400) -> torch.Tensor:
    z = torch.zeros_like(x)
    for _ in range(steps):
        z = cell(z, w, x)
    return z


SOLVERS = [
    picard,
    partial(picard, damping=0.5),
    anderson,
    partial(anderson, damping=0.5, memory=3),
    broyden,
    partial(broyden, memory=4),
]


@pytest.mark.parametrize("solver", SOLVERS)
def test_fixed_points_do_not_depend_on_the_batch(solver):
    w, x = layer(batch=4)
    x[2] *= 4  # a saturated sample, which ends early
    exact = unrolled(w, x)
    whole = solver(lambda z: cell(z, w, x), torch.zeros_like(x), rtol=1e-11)
    torch.testing.assert_close(whole.x, exact, rtol=0, atol=1e-9)
    assert int(whole.iterations[2]) < int(whole.iterations.max())
    assert len(whole.history) == int(whole.iterations.max()) + 1
    assert bool((whole.residual <= 1e-11 * exact.norm(dim=1) * 1.001).all())
    assert torch.equal(whole.history[-1], whole.residual)
    for i in range(4):
        alone = solver(lambda z, i=i: cell(z, w, x[i : i + 1]), torch.zeros_like(x[:1]), rtol=1e-11)
        assert int(alone.iterations) == int(whole.iterations[i])
        torch.testing.assert_close(alone.x[0], whole.x[i], rtol=0, atol=1e-13)


def test_picard_converges_with_the_damped_rate():
    # z -> a z + 1: the error is multiplied by 1 - damping (1 - a).
    a = torch.tensor([[0.5], [-0.8], [0.9]], dtype=F64)
    result = picard(
        lambda z: a * z + 1, torch.zeros(3, 1, dtype=F64), damping=0.7, max_iterations=9, raise_on_failure=False
    )
    ratio = result.history[1:] / result.history[:-1]
    torch.testing.assert_close(ratio, (1 - 0.7 * (1 - a)).abs().T.expand(9, 3))
    assert set(result.status.tolist()) == {Status.MAX_ITERATIONS}
    assert result.iterations.tolist() == [9, 9, 9]


def test_anderson_on_a_linear_map_is_gmres_one_step_late():
    generator = torch.Generator().manual_seed(1)
    a = 0.5 * torch.randn(2, 6, 6, dtype=F64, generator=generator)
    b = torch.randn(2, 6, dtype=F64, generator=generator)

    def f(z: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bij,bj->bi", a, z) + b

    full = anderson(f, torch.zeros(2, 6, dtype=F64), memory=6, ridge=0.0, rtol=1e-9)
    krylov = nonlinear.gmres(lambda v: v - torch.einsum("bij,bj->bi", a, v), b, rtol=1e-12)
    # Walker and Ni, theorem 2.2: the next iterate is f of GMRES' iterate, so its gap is A times GMRES' residual.
    assert int(full.iterations.max()) <= 7
    torch.testing.assert_close(full.x, krylov.x, rtol=1e-7, atol=1e-8)
    short = anderson(f, torch.zeros(2, 6, dtype=F64), memory=6, ridge=0.0, max_iterations=4, raise_on_failure=False)
    third = nonlinear.gmres(
        lambda v: v - torch.einsum("bij,bj->bi", a, v), b, max_iterations=3, rtol=1e-12, raise_on_failure=False
    )
    torch.testing.assert_close(short.x, f(third.x), rtol=1e-8, atol=1e-8)


def test_the_ridge_is_relative_to_the_mean_diagonal():
    # Two steps of z -> a z + b, by hand: γ = <ΔG, g> / (|ΔG|² (1 + ridge)).
    a, b, z0 = (
        torch.tensor([[0.5, -0.3]], dtype=F64),
        torch.tensor([[1.0, 2.0]], dtype=F64),
        torch.zeros(1, 2, dtype=F64),
    )
    result = anderson(lambda z: a * z + b, z0, ridge=0.5, damping=0.8, max_iterations=2, raise_on_failure=False)
    z1 = 0.8 * b
    g0, g1 = b, a * z1 + b - z1
    gamma = ((g1 - g0) * g1).sum() / ((g1 - g0).square().sum() * 1.5)
    torch.testing.assert_close(result.x, z1 + 0.8 * g1 - ((z1 - z0) + 0.8 * (g1 - g0)) * gamma)


def test_broyden_ends_a_linear_map_after_two_n_steps_and_follows_scipy():
    generator = torch.Generator().manual_seed(2)
    a = 0.4 * torch.randn(3, 4, 4, dtype=F64, generator=generator)
    b = torch.randn(3, 4, dtype=F64, generator=generator)

    def f(z: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bij,bj->bi", a, z) + b

    result = broyden(f, torch.zeros(3, 4, dtype=F64), rtol=1e-10)
    assert int(result.iterations.max()) <= 8
    for i in range(3):
        matrix, right = a[i].numpy(), b[i].numpy()
        gaps: list[float] = []
        # SciPy's inverse Jacobian begins with -alpha, as ours does with -1.
        scipy.optimize.broyden1(
            lambda z, m=matrix, r=right: m @ z + r - z,
            torch.zeros(4, dtype=F64).numpy(),
            alpha=1.0,
            line_search=None,
            f_tol=1e-9,
            callback=lambda z, g, gaps=gaps: gaps.append(float(abs(g).max())),
        )
        ours = broyden(
            f, torch.zeros(3, 4, dtype=F64), norm=lambda g: g.abs().amax(1), max_iterations=5, raise_on_failure=False
        )
        torch.testing.assert_close(ours.history[1:6, i], torch.tensor(gaps[:5], dtype=F64), rtol=1e-6, atol=1e-10)


def test_broyden_that_stands_still_leaves_its_update_out():
    # f(z) = z + 1 has no fixed point, and its gap never changes: Δg = 0.
    result = broyden(lambda z: z + 1, torch.zeros(1, 2, dtype=F64), max_iterations=4, raise_on_failure=False)
    assert result.x.tolist() == [[4.0, 4.0]]
    assert result.status.tolist() == [Status.MAX_ITERATIONS]


def test_newton_is_quadratic():
    def cube(z: torch.Tensor) -> torch.Tensor:
        return z**3 - torch.tensor([[8.0], [27.0]], dtype=F64)

    result = newton(cube, torch.tensor([[3.0], [4.0]], dtype=F64), rtol=1e-14, atol=1e-13)
    torch.testing.assert_close(result.x, torch.tensor([[2.0], [3.0]], dtype=F64))
    error = (result.history[1:5] / result.history[:4] ** 2)[:, 0]
    # F_{k+1} / F_k² tends to F''/(2 F'²) = 12 / (2 · 144).
    assert float(error[-1]) == pytest.approx(12 / 288, rel=0.05)


@pytest.mark.parametrize("limit", [64, 1])
def test_newton_dense_and_krylov_find_the_fixed_point(limit):
    w, x = layer()
    exact = unrolled(w, x)
    result = newton(lambda z: cell(z, w, x) - z, torch.zeros_like(x), dense_limit=limit, rtol=1e-12)
    torch.testing.assert_close(result.x, exact, rtol=0, atol=1e-10)
    assert int(result.iterations.max()) <= 6


def test_dense_jacobian_keeps_samples_apart_and_takes_fields():
    scale = torch.tensor([1.0, 2.0], dtype=F64).view(2, 1, 1)
    z = torch.rand(2, 2, 3, dtype=F64)
    jacobian = nonlinear.dense_jacobian(lambda z: scale * z**2 + z.flip(2), z)
    expected = torch.diag_embed((2 * scale * z).flatten(1))
    for i in range(6):
        expected[:, i, i + 2 - 2 * (i % 3)] += 1
    torch.testing.assert_close(jacobian, expected)


def test_the_linear_solver_is_data():
    a = torch.tensor([[2.0], [4.0]], dtype=F64)
    # A chord: the slope at the start for ever, here 10% wrong, so that the error shrinks to a tenth.
    result = newton(
        lambda z: a * z - 1, torch.zeros(2, 1, dtype=F64), solver=lambda z, r: r / (a / 0.9), max_iterations=30
    )
    torch.testing.assert_close(result.history[1:8] / result.history[:7], torch.full((7, 2), 0.1, dtype=F64))


def test_line_search_saves_newton_on_the_arctangent():
    # From 3 the full steps of Newton's method on arctan diverge.
    z0 = torch.tensor([[3.0], [0.5], [-20.0]], dtype=F64)
    plain = newton(torch.atan, z0, raise_on_failure=False)
    assert plain.status[0] != Status.CONVERGED
    assert plain.status[1] == Status.CONVERGED
    searched = newton(torch.atan, z0, line_search=20, atol=1e-12)
    torch.testing.assert_close(searched.x, torch.zeros_like(z0), rtol=0, atol=1e-12)
    assert bool((searched.history.diff(dim=0) <= 0).all())
    # One halving isn't enough from -20, and the first sample that needs none is left alone.
    assert newton(torch.atan, z0, line_search=1, raise_on_failure=False).status.tolist()[1:] == [0, Status.NOT_FINITE]
    # A trial that leaves the domain of F is shortened too.
    assert newton(torch.log, torch.tensor([[6.0]], dtype=F64), line_search=5).x.item() == pytest.approx(1.0)


def test_a_stiff_root_is_found_by_its_step():
    # Rounding errors of F alone exceed the absolute tolerance; the step is exact.
    c = torch.tensor([[2.0], [3.0]], dtype=F64).sqrt()

    def stiff(z: torch.Tensor) -> torch.Tensor:
        return 1e12 * (z.square() - torch.tensor([[2.0], [3.0]], dtype=F64))

    options = {"rtol": 0, "atol": 1e-9, "max_iterations": 20}
    assert newton(stiff, c + 0.3, raise_on_failure=False, **options).status.tolist() != [0, 0]
    result = newton(stiff, c + 0.3, stop="step", **options)
    torch.testing.assert_close(result.x, c, rtol=0, atol=1e-14)
    assert newton(lambda z: z - c, c, stop="step", **options).iterations.tolist() == [0, 0]
    assert float(newton(stiff, c + 0.3, stop="step", rtol=1e-1).residual.max()) > 1e-3


def test_failures_are_counted_named_or_returned():
    def roots(z: torch.Tensor) -> torch.Tensor:
        return torch.stack([z[0] ** 2 - 2, z[1] ** 2 + 1, z[2].log() + 3, 0 * z[3] + 1])

    z0 = torch.tensor([[1.0], [0.7], [9.0], [1.0]], dtype=F64)
    result = newton(roots, z0, raise_on_failure=False, max_iterations=20)
    assert result.status.tolist() == [0, Status.MAX_ITERATIONS, Status.NOT_FINITE, Status.NOT_FINITE]
    assert result.x[0].item() == pytest.approx(math.sqrt(2))
    # A sample that fails keeps its last finite iterate.
    assert result.x[2:].tolist() == z0[2:].tolist()
    words = r"newton failed for 3 of 4 samples \(samples 1, 2, 3\) after 20 iterations: 1 used up the iterations, 2 met"
    with pytest.raises(NotConverged, match=words) as error:
        newton(roots, z0, max_iterations=20)
    assert torch.equal(error.value.result.status, result.status)
    krylov = newton(roots, z0, raise_on_failure=False, max_iterations=20, dense_limit=0)
    assert krylov.status.tolist()[:3] == result.status.tolist()[:3]
    with pytest.raises(NotConverged, match="picard failed for 1 of 2 samples"):
        picard(lambda z: torch.tensor([[0.5], [2.0]]) * z + 1, torch.zeros(2, 1))


# Gradients.


@pytest.mark.parametrize("solver", [None, *(partial(s, rtol=1e-13) for s in (picard, anderson, broyden))])
def test_implicit_gradient_is_the_unrolled_one(solver):
    w, x = layer()
    w.requires_grad_()
    x.requires_grad_()
    weights = torch.randn(x.shape, dtype=F64, generator=torch.Generator().manual_seed(5))
    expected = torch.autograd.grad((unrolled(w, x) * weights).sum(), (w, x))
    z = newton(lambda z: cell(z, w, x) - z, torch.zeros_like(x), rtol=0, atol=1e-13).x
    out = implicit(cell, z, w, x, solver=solver)
    assert torch.equal(out, z)
    for ours, theirs in zip(torch.autograd.grad((out * weights).sum(), (w, x)), expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) <= 1e-9
    # One step alone is biased, and yet points the right way.
    (step,) = torch.autograd.grad((implicit(cell, z, w, x, one_step=True) * weights).sum(), w)
    assert float((step - expected[0]).norm() / expected[0].norm()) > 0.05
    assert float(torch.cosine_similarity(step.flatten(), expected[0].flatten(), 0)) > 0.8
    assert torch.equal(implicit(cell, z, w, x, one_step=True), z)


def test_the_gradient_is_as_accurate_as_the_solution():
    w, x = layer()
    w.requires_grad_()
    (exact,) = torch.autograd.grad(unrolled(w, x).square().sum(), w)
    errors = []
    for tolerance in (1e-2, 1e-4, 1e-6, 1e-8):
        z = picard(lambda z: cell(z, w, x), torch.zeros_like(x), rtol=tolerance).x
        (ours,) = torch.autograd.grad(implicit(cell, z, w, x).square().sum(), w)
        errors.append(float((ours - exact).norm() / exact.norm()) / tolerance)
    # Proportional to the tolerance over six orders of magnitude.
    assert max(errors) / min(errors) < 3
    assert 0.05 < min(errors) < max(errors) < 5


def test_gradients_reach_modules_and_closures():
    torch.manual_seed(0)
    inner, hidden = nn.Linear(3, 3, dtype=F64), torch.tensor(0.3, dtype=F64, requires_grad=True)
    x = torch.randn(4, 3, dtype=F64)

    def f(z: torch.Tensor) -> torch.Tensor:
        return hidden * torch.tanh(inner(z) + x)

    z = picard(f, torch.zeros_like(x), rtol=1e-14, atol=1e-14).x
    assert not z.requires_grad
    ours = torch.autograd.grad(implicit(f, z).sum(), [*inner.parameters(), hidden])
    roll = torch.zeros_like(x)
    for _ in range(60):
        roll = f(roll)
    for a, b in zip(ours, torch.autograd.grad(roll.sum(), [*inner.parameters(), hidden]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        assert not implicit(f, z).requires_grad
    assert not implicit(lambda z: 0.5 * z, torch.zeros(1, 1)).requires_grad


def solve_cell(w: torch.Tensor, x: torch.Tensor, order: int) -> torch.Tensor:
    z = newton(lambda z: cell(z, w, x) - z, torch.zeros_like(x), rtol=0, atol=1e-14).x
    return implicit(cell, z, w, x, order=order)


def test_gradcheck_to_second_order():
    w, x = layer(width=2, batch=2)
    w.requires_grad_()
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda w, x: solve_cell(w, x, 1), (w, x))
    assert torch.autograd.gradgradcheck(lambda w, x: solve_cell(w, x, 2), (w, x), fast_mode=True)
    (first,) = torch.autograd.grad(solve_cell(w, x, 2).pow(3).sum(), w, create_graph=True)
    (again,) = torch.autograd.grad(unrolled(w, x).pow(3).sum(), w, create_graph=True)
    for a, b in zip(
        torch.autograd.grad(first.square().sum(), (w, x)),
        torch.autograd.grad(again.square().sum(), (w, x)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    with pytest.raises(RuntimeError, match="ask for order=2"):
        torch.autograd.grad(solve_cell(w, x, 1).sum(), w, create_graph=True)


def test_gradient_of_a_linear_solve():
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(2, 2, 2, dtype=F64, generator=generator) + 4 * torch.eye(2, dtype=F64)
    b = torch.randn(2, 2, dtype=F64, generator=generator)
    a.requires_grad_()
    b.requires_grad_()

    def solve(a: torch.Tensor, b: torch.Tensor, order: int = 1) -> torch.Tensor:
        x = nonlinear.gmres(lambda v: torch.einsum("bij,bj->bi", a, v), b, rtol=1e-14).x
        return implicit_root(lambda x, a, b: torch.einsum("bij,bj->bi", a, x) - b, x, a, b, order=order)

    assert torch.autograd.gradcheck(solve, (a, b))
    assert torch.autograd.gradgradcheck(partial(solve, order=2), (a, b), fast_mode=True)
    for ours, theirs in zip(
        torch.autograd.grad(solve(a, b).square().sum(), (a, b)),
        torch.autograd.grad(torch.linalg.solve(a, b).square().sum(), (a, b)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_backward_solve_that_fails_raises():
    w, x = layer(width=3, batch=2)
    x.requires_grad_()
    z = unrolled(w, x).detach()
    out = implicit(cell, z, w, x, solver=partial(picard, max_iterations=2))
    with pytest.raises(NotConverged, match="picard failed for 2 of 2 samples"):
        out.sum().backward()


def test_dtype_shapes_and_options_of_results():
    w, x = layer(batch=2)
    w, x = w.float(), x.float()
    for solver in (picard, anderson, broyden):
        result = solver(lambda z: cell(z, w, x), torch.zeros_like(x))
        assert result.x.dtype == torch.float32
        assert float(result.residual.max()) < 3e-4
    # Fields, and a batch of numbers.
    for solver in (picard, anderson, broyden):
        assert solver(lambda z: 0.5 * z.flip(2) + 1, torch.zeros(2, 3, 2, dtype=F64)).x.sum().item() == pytest.approx(
            24
        )
        assert solver(torch.cos, torch.zeros(2, dtype=F64)).x.tolist() == pytest.approx([0.7390851332] * 2)
    assert newton(lambda z: z.cos() - z, torch.zeros(2, dtype=F64)).x.tolist() == pytest.approx([0.7390851332] * 2)
    assert newton(lambda z: 0.5 * z.flip(2) + 1 - z, torch.zeros(2, 3, 2, dtype=F64)).x.sum().item() == pytest.approx(
        24
    )


def half(z: torch.Tensor) -> torch.Tensor:
    return 0.5 * z


ONE = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: picard(half, torch.full((2, 2), torch.nan)), "z0 must be finite; sample 0 is not"),
        (lambda: picard(half, ONE, damping=0), "damping must be positive, got 0"),
        (lambda: picard(lambda z: z[:, :1], ONE), r"f must keep the shape \(2, 2\), got \(2, 1\)"),
        (lambda: anderson(half, ONE, memory=0), "memory must be at least 1, got 0"),
        (lambda: anderson(half, ONE, ridge=-1.0), "damping must be positive and ridge not negative, got 1.0 and -1.0"),
        (lambda: anderson(half, ONE, damping=0), "damping must be positive and ridge not negative"),
        (lambda: broyden(half, ONE, memory=0), "memory must be at least 1, got 0"),
        (lambda: broyden(half, ONE, rtol=-1), "rtol and atol must not be negative"),
        (lambda: newton(half, torch.ones(0, 2)), "z0 must be a floating-point tensor.*with a sample at least"),
        (lambda: newton(half, ONE, line_search=-1), "line_search must not be negative, got -1"),
        (lambda: newton(lambda z: z.sum(1), ONE), "residual must keep the shape"),
        (lambda: newton(half, ONE, max_iterations=0), "max_iterations must be at least 1"),
        (lambda: implicit(lambda z: z.sum(1), ONE), "f must keep the shape"),
        (lambda: implicit(half, ONE, order=3), "order must be 1 or 2, got 3"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

"""Conjugate gradients against elimination, SciPy and their own theory."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.algebra.conjugate_gradient import conjugate_gradient, flexible_conjugate_gradient
from pdebook.algebra.implicit import implicit_root
from pdebook.algebra.operators import from_matrix
from pdebook.algebra.results import NotConverged, Status

BOTH = pytest.mark.parametrize("solver", [conjugate_gradient, flexible_conjugate_gradient])


def systems(
    batch: int, n: int, condition: float = 50.0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    q = torch.linalg.qr(torch.randn(batch, n, n, dtype=dtype, generator=generator))[0]
    spectrum = torch.logspace(0, np.log10(condition), n, dtype=torch.float64).to(dtype)
    return (q * spectrum) @ q.mH, torch.randn(batch, n, dtype=dtype, generator=generator)


def energy(a, e):
    return torch.einsum("bi,bij,bj->b", e.conj(), a, e).real


@BOTH
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12), st.sampled_from([torch.float64, torch.complex128]))
def test_a_system_of_n_unknowns_ends_after_n_steps(solver, n, dtype):
    a, b = systems(3, n, 20.0, dtype)
    result = solver(from_matrix(a), b, rtol=1e-9)
    assert int(result.iterations.max()) <= n
    torch.testing.assert_close(result.x, torch.linalg.solve(a, b), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("precondition", [False, True])
def test_iterates_are_those_of_scipy(precondition):
    a, b = systems(2, 40)
    a = a + torch.diag(torch.linspace(0, 30, 40, dtype=torch.float64))
    inverse = 1 / a.diagonal(dim1=1, dim2=2)
    jacobi = (lambda r: inverse * r) if precondition else None
    result = conjugate_gradient(from_matrix(a), b, preconditioner=jacobi, rtol=1e-8)
    for i in range(2):
        norms = [float(b[i].norm())]
        matrix, right = a[i].numpy(), b[i].numpy()
        scipy.sparse.linalg.cg(
            matrix,
            right,
            rtol=1e-8,
            M=np.diag(inverse[i].numpy()) if precondition else None,
            callback=lambda x, m=matrix, r=right, n=norms: n.append(np.linalg.norm(r - m @ x)),
        )
        assert int(result.iterations[i]) == len(norms) - 1
        np.testing.assert_allclose(result.history[: len(norms), i], norms, rtol=1e-5)
        assert float((b[i] - a[i] @ result.x[i]).norm()) == pytest.approx(float(result.residual[i]), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("memory", [1, 2, None])
def test_flexible_directions_with_a_linear_preconditioner_are_conjugate_gradients(dtype, memory):
    a, b = systems(3, 30, 10.0, dtype=dtype)
    inverse = torch.linspace(1, 2, 30, dtype=torch.float64)
    for preconditioner in (None, lambda r: inverse * r):
        plain = conjugate_gradient(from_matrix(a), b, preconditioner=preconditioner, rtol=1e-6)
        flexible = flexible_conjugate_gradient(
            from_matrix(a), b, preconditioner=preconditioner, memory=memory, rtol=1e-6
        )
        # Roundings of the two grow apart with the steps.
        torch.testing.assert_close(flexible.x, plain.x, rtol=0, atol=1e-6)
        assert (flexible.iterations - plain.iterations).abs().max() <= 1


def test_the_bound_of_the_condition_number_holds():
    a, b = systems(1, 200, 100.0)
    exact = torch.linalg.solve(a, b)
    start = energy(a, exact).sqrt()
    for steps in (5, 20, 40):
        x = conjugate_gradient(from_matrix(a), b, max_iterations=steps, rtol=1e-14, raise_on_failure=False).x
        assert bool(energy(a, x - exact).sqrt() <= 2 * (9 / 11) ** steps * start)


def test_any_proposal_lowers_the_energy_by_the_formula():
    a, b = systems(2, 20)
    exact = torch.linalg.solve(a, b)
    seen, generator = [], torch.Generator().manual_seed(3)

    def proposal(r):
        seen.append((r.clone(), torch.randn(r.shape, generator=generator, dtype=r.dtype)))
        return seen[-1][1]

    errors = [energy(a, exact)]
    for steps in (1, 2, 3, 4):
        generator.manual_seed(3)
        seen.clear()
        x = flexible_conjugate_gradient(
            from_matrix(a), b, preconditioner=proposal, memory=0, max_iterations=steps, raise_on_failure=False
        ).x
        errors.append(energy(a, x - exact))
        r, d = seen[steps - 1]
        drop = (r * d).sum(1) ** 2 / energy(a, d)
        torch.testing.assert_close(errors[-2] - errors[-1], drop, rtol=1e-9, atol=1e-10)
        assert bool((errors[-1] < errors[-2]).all())


def test_a_nonlinear_preconditioner_gains_from_memory_and_all_directions_end_after_n_steps():
    a, b = systems(2, 40, 300.0)
    inverse = torch.linalg.inv(a)

    def rough(r):  # the inverse, spoilt by an odd function of the residual
        scaled = r / r.norm(dim=1, keepdim=True)
        return torch.einsum("bij,bj->bi", inverse, torch.tanh(6 * scaled))

    counts = [
        int(
            flexible_conjugate_gradient(
                from_matrix(a), b, preconditioner=rough, memory=memory, rtol=1e-8
            ).iterations.max()
        )
        for memory in (0, 1, None)
    ]
    assert counts[2] <= counts[1] < counts[0]
    random = torch.Generator().manual_seed(1)
    result = flexible_conjugate_gradient(
        from_matrix(a[:, :8, :8].contiguous()),
        b[:, :8],
        preconditioner=lambda r: torch.randn(r.shape, generator=random, dtype=r.dtype),
        memory=None,
        rtol=1e-9,
    )
    assert result.iterations.tolist() == [8, 8]


@BOTH
def test_a_sample_does_not_depend_on_its_batch(solver):
    a, b = systems(4, 30)
    a[1] += 100 * torch.eye(30, dtype=a.dtype)  # converges early
    whole = solver(from_matrix(a), b)
    assert len(set(whole.iterations.tolist())) > 1
    for i in range(4):
        alone = solver(from_matrix(a[i : i + 1]), b[i : i + 1])
        torch.testing.assert_close(alone.x[0], whole.x[i], rtol=1e-10, atol=1e-12)
        assert int(alone.iterations) == int(whole.iterations[i])
        rest = whole.history[int(alone.iterations) :, i]
        torch.testing.assert_close(rest, rest[:1].expand_as(rest), rtol=1e-3, atol=0)


@BOTH
def test_preconditioner_start_shapes_and_tolerances(solver):
    a, b = systems(2, 12)
    exact = torch.linalg.solve(a, b)
    assert solver(from_matrix(a), b, preconditioner=from_matrix(torch.linalg.inv(a))).iterations.tolist() == [1, 1]
    started = solver(from_matrix(a), b, exact)
    assert started.iterations.tolist() == [0, 0]
    assert torch.equal(started.x, exact)
    guess = exact + 1e-3
    torch.testing.assert_close(solver(from_matrix(a), b, guess, rtol=1e-11).x, exact, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(guess, exact + 1e-3, rtol=0, atol=0)
    fields = solver(lambda v: torch.einsum("bij,bj->bi", a, v.flatten(1)).view_as(v), b.view(2, 3, 4))
    torch.testing.assert_close(fields.x.flatten(1), exact, rtol=1e-8, atol=1e-8)
    numbers = solver(lambda v: 2 * v, torch.ones(3, dtype=torch.float64))
    assert numbers.x.tolist() == [0.5] * 3
    assert solver(from_matrix(a.float()), b.float()).x.dtype == torch.float32
    absolute = solver(from_matrix(a), b, rtol=0, atol=0.1)
    assert 1e-3 < float(absolute.residual.max()) <= 0.1
    zero = solver(from_matrix(a), torch.zeros_like(b))
    assert zero.iterations.tolist() == [0, 0]


@BOTH
def test_the_true_residual_decides_but_for_what_rounding_makes(solver):
    a, b = systems(3, 100, 3e3)
    result = solver(from_matrix(a.float()), b.float(), rtol=1e-7, max_iterations=5000)
    true = (b - torch.einsum("bij,bj->bi", a.float().double(), result.x.double())).norm(dim=1)
    assert bool((true > 1e-6 * b.norm(dim=1)).any())  # rtol can't be met
    rounding = torch.finfo(torch.float32).eps * (
        torch.linalg.matrix_norm(a, "fro") / 10 * result.x.double().norm(dim=1)
    )
    assert bool((true < 6 * rounding).all())
    torch.testing.assert_close(result.residual.double(), true, rtol=0.5, atol=0)
    # In double precision there is room, and the recurrence alone is not believed.
    tight = solver(from_matrix(a), b, rtol=1e-11)
    assert bool(((b - torch.einsum("bij,bj->bi", a, tight.x)).norm(dim=1) <= 1.001e-11 * b.norm(dim=1)).all())


@BOTH
def test_failures_are_counted_named_or_returned(solver):
    a, b = systems(5, 6)
    a[1] = -a[1]
    result = solver(from_matrix(a), b, raise_on_failure=False)
    assert result.status.tolist() == [0, Status.BREAKDOWN, 0, 0, 0]
    good = [0, 2, 3, 4]
    torch.testing.assert_close(result.x[good], torch.linalg.solve(a[good], b[good]), rtol=1e-7, atol=1e-7)
    with pytest.raises(NotConverged, match=r"conjugate_gradient failed for 1 of 5 samples \(samples 1\)"):
        solver(from_matrix(a), b)
    a[1] = -a[1]
    short = solver(from_matrix(a), b, max_iterations=3, rtol=1e-13, raise_on_failure=False)
    assert short.status.tolist() == [Status.MAX_ITERATIONS] * 5
    assert short.iterations.tolist() == [3] * 5
    assert len(short.history) == 4
    calls = 0

    def poisoned(v):
        nonlocal calls
        calls += 1
        image = torch.einsum("bij,bj->bi", a, v)
        image[3] = torch.nan if calls > 2 else image[3]
        return image

    result = solver(poisoned, b, raise_on_failure=False)
    assert result.status.tolist() == [0, 0, 0, Status.NOT_FINITE, 0]
    assert bool(result.x.isfinite().all())
    assert result.x[3].abs().max() > 0


def test_an_indefinite_preconditioner_breaks_down():
    a, b = systems(2, 6)
    result = conjugate_gradient(from_matrix(a), b, preconditioner=lambda r: -r, raise_on_failure=False)
    assert result.status.tolist() == [Status.BREAKDOWN] * 2


def test_gradients_come_from_the_implicit_root():
    a, b = systems(2, 5)
    parts = (a.requires_grad_(), b.requires_grad_())

    def solve(a, b):
        symmetric = (a + a.mT) / 2
        x = conjugate_gradient(from_matrix(symmetric), b, rtol=1e-13).x
        return implicit_root(lambda x: torch.einsum("bij,bj->bi", symmetric, x) - b, x)

    assert torch.autograd.gradcheck(solve, parts)


@BOTH
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s(lambda v: v, torch.tensor([[1.0], [torch.nan]])), "b must be finite; sample 1 is not"),
        (lambda s: s(lambda v: v, torch.tensor([[1]])), "b must be a floating-point or complex tensor.*int64"),
        (lambda s: s(lambda v: v, torch.ones(2, 3), torch.ones(2, 4)), r"x0 must have the shape of b, \(2, 3\)"),
        (lambda s: s(lambda v: v, torch.ones(2, 3), torch.full((2, 3), torch.inf)), "x0 must be finite"),
        (lambda s: s(lambda v: v, torch.ones(0, 3)), "b must be .* with a sample at least"),
        (lambda s: s(lambda v: v, torch.ones(2, 3), torch.ones(2, 3) + 0j), "x0 must be real, as b is"),
        (
            lambda s: s(lambda v: v.double(), torch.ones(2, 3)),
            "operator must keep the dtype torch.float32, got torch.float64",
        ),
        (lambda s: s(lambda v: v[:, :2], torch.ones(2, 3)), r"operator must keep the shape \(2, 3\), got \(2, 2\)"),
        (lambda s: s(lambda v: v, torch.ones(2, 3), preconditioner=lambda v: v.sum(1)), "preconditioner must keep"),
        (lambda s: s(lambda v: v, torch.ones(2, 3), rtol=0), "rtol and atol must not be negative"),
        (lambda s: s(lambda v: v, torch.ones(2, 3), max_iterations=0), "max_iterations must be at least 1, got 0"),
        (
            lambda s: flexible_conjugate_gradient(lambda v: v, torch.ones(2, 3), memory=-1),
            "memory must not be negative, got -1",
        ),
    ],
)
def test_bad_input_is_named(solver, call, words):
    with pytest.raises(ValueError, match=words):
        call(solver)

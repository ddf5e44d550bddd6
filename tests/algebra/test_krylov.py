"""GMRES against elimination and SciPy: exact end after n steps, optimal residuals, samples apart, honest failures."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.algebra.krylov import gmres
from pdebook.algebra.operators import from_matrix
from pdebook.algebra.results import NotConverged, Status


def systems(batch: int, n: int, shift: float, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    a = torch.randn(batch, n, n, dtype=dtype, generator=generator) + shift * torch.eye(n, dtype=dtype)
    return a, torch.randn(batch, n, dtype=dtype, generator=generator)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 12), st.sampled_from([torch.float64, torch.complex128]))
def test_a_system_of_n_unknowns_ends_after_n_steps(n, dtype):
    a, b = systems(3, n, 3.0, dtype)
    result = gmres(from_matrix(a), b, rtol=1e-12)
    assert int(result.iterations.max()) <= n
    torch.testing.assert_close(result.x, torch.linalg.solve(a, b), rtol=1e-8, atol=1e-8)  # condition up to 1e3


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_each_residual_is_the_smallest_in_its_krylov_space(dtype):
    a, b = systems(2, 10, 0.0, dtype)
    history = gmres(from_matrix(a), b, rtol=1e-12).history
    for i in range(2):
        matrix, right = a[i].numpy(), b[i].numpy()
        power, basis = right, []
        for j in range(1, 8):
            power = matrix @ power
            basis.append(power / np.linalg.norm(power))
            columns = np.stack(basis, 1)
            least = np.linalg.norm(right - columns @ np.linalg.lstsq(columns, right, rcond=None)[0])
            assert float(history[j, i]) == pytest.approx(least, rel=1e-6)  # the power basis loses half the digits


def test_the_basis_stays_orthogonal_where_the_matrix_is_ill_conditioned():
    # Singular values from 1 to 1e-8; orthogonalised once instead of twice, the error is 0.2.
    n, generator = 40, torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))[0] for _ in range(2))
    a = (left @ torch.diag(torch.logspace(0, -8, n, dtype=torch.float64)) @ right)[None]
    b = torch.randn(1, n, dtype=torch.float64, generator=generator)
    result = gmres(from_matrix(a), b, rtol=1e-12, restart=n, max_iterations=n, raise_on_failure=False)
    assert float(result.residual) < 1e-7 * float(b.norm())


def test_restarts_agree_with_scipy():
    a, b = systems(2, 30, 12.0)
    result = gmres(from_matrix(a), b, restart=4, rtol=1e-9)
    for i in range(2):
        norms: list[float] = []
        scipy.sparse.linalg.gmres(
            a[i].numpy(), b[i].numpy(), rtol=1e-9, restart=4, callback=norms.append, callback_type="pr_norm"
        )
        count = int(result.iterations[i])
        assert count > 8
        # The last step before a restart may differ: SciPy looks at the estimate, we at the true residual.
        np.testing.assert_allclose(result.history[1 : count + 1, i] / b[i].norm(), norms[:count], rtol=1e-6)
        assert float((b[i] - a[i] @ result.x[i]).norm()) == pytest.approx(float(result.residual[i]), rel=1e-3)
    assert bool((result.residual <= 1e-9 * b.norm(dim=1)).all())


def test_a_sample_does_not_depend_on_its_batch():
    a, b = systems(4, 20, 8.0)
    a[1] += 20 * torch.eye(20, dtype=a.dtype)  # converges early
    whole = gmres(from_matrix(a), b, restart=6)
    assert len(set(whole.iterations.tolist())) > 1
    for i in range(4):
        alone = gmres(from_matrix(a[i : i + 1]), b[i : i + 1], restart=6)
        torch.testing.assert_close(alone.x[0], whole.x[i], rtol=1e-12, atol=1e-13)
        assert int(alone.iterations) == int(whole.iterations[i])
        # Estimates and the true norm after a restart differ by rounding.
        rest = whole.history[int(alone.iterations) :, i]
        torch.testing.assert_close(rest, rest[:1].expand_as(rest), rtol=1e-3, atol=0)


def test_preconditioner_start_and_shapes():
    a, b = systems(2, 12, 5.0)
    exact = torch.linalg.solve(a, b)
    inverse = from_matrix(torch.linalg.inv(a))
    assert gmres(from_matrix(a), b, preconditioner=inverse).iterations.tolist() == [1, 1]
    diagonal = gmres(from_matrix(a), b, preconditioner=lambda v: v / a.diagonal(dim1=1, dim2=2), restart=5, rtol=1e-11)
    torch.testing.assert_close(diagonal.x, exact, rtol=1e-9, atol=1e-9)
    started = gmres(from_matrix(a), b, exact)
    assert started.iterations.tolist() == [0, 0]
    assert torch.equal(started.x, exact)
    near = gmres(from_matrix(a), b, exact + 1e-6, rtol=1e-12)
    torch.testing.assert_close(near.x, exact, rtol=1e-9, atol=1e-9)
    fields = gmres(lambda v: torch.einsum("bij,bj->bi", a, v.flatten(1)).view_as(v), b.view(2, 3, 4))
    torch.testing.assert_close(fields.x.flatten(1), exact, rtol=1e-8, atol=1e-8)
    assert gmres(lambda v: 2 * v, torch.ones(3, dtype=torch.float64)).x.tolist() == [0.5] * 3
    assert gmres(from_matrix(a.float()), b.float()).x.dtype == torch.float32


def test_tolerances():
    a, b = systems(1, 20, 6.0)
    norm = float(b.norm())
    loose = gmres(from_matrix(a), b, rtol=0.1)
    assert norm * 1e-3 < float(loose.residual) <= 0.1 * norm
    absolute = gmres(from_matrix(a), b, rtol=0, atol=1e-4)
    assert 1e-7 < float(absolute.residual) <= 1e-4
    zero = gmres(from_matrix(a), torch.zeros_like(b))
    assert zero.iterations.tolist() == [0]
    assert zero.x.abs().max() == 0


def test_failures_are_counted_named_or_returned():
    a, b = systems(5, 6, 3.0)
    a[1], b[1] = torch.diag(torch.tensor([1.0, 2.0, 0, 0, 0, 0])).double(), torch.ones(6)
    result = gmres(from_matrix(a), b, raise_on_failure=False)
    assert result.status.tolist() == [0, Status.BREAKDOWN, 0, 0, 0]
    assert result.converged.tolist() == [True, False, True, True, True]
    good = [0, 2, 3, 4]
    torch.testing.assert_close(result.x[good], torch.linalg.solve(a[good], b[good]), rtol=1e-7, atol=1e-7)
    words = r"gmres failed for 1 of 5 samples \(samples 1\) after \d iterations: 1 broke down .*; largest residual 2"
    with pytest.raises(NotConverged, match=words) as error:
        gmres(from_matrix(a), b)
    assert torch.equal(error.value.result.x, result.x)
    # A singular but consistent system is solved.
    b[1, 2:] = 0
    assert bool(gmres(from_matrix(a), b).converged.all())

    short = gmres(from_matrix(a), b, max_iterations=4, restart=3, rtol=1e-13, raise_on_failure=False)
    assert int(short.iterations.max()) == 4
    assert Status.MAX_ITERATIONS in short.status.tolist()
    assert len(short.history) == 5

    def poisoned(v: torch.Tensor) -> torch.Tensor:
        image = torch.einsum("bij,bj->bi", a, v)
        image[3] = torch.nan
        return image

    result = gmres(poisoned, b, raise_on_failure=False)
    assert result.status.tolist() == [0, 0, 0, Status.NOT_FINITE, 0]
    assert bool(result.x.isfinite().all())


def test_many_failures_are_listed_briefly():
    with pytest.raises(NotConverged, match=r"12 of 12 samples \(samples 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.\)"):
        gmres(lambda v: v.roll(1, 1), torch.eye(12, dtype=torch.float64), max_iterations=5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gmres(lambda v: v, torch.tensor([[1.0], [torch.nan]])), "b must be finite; sample 1 is not"),
        (lambda: gmres(lambda v: v, torch.tensor([[1]])), "b must be a floating-point or complex tensor.*int64"),
        (lambda: gmres(lambda v: v, torch.zeros(0, 3)), "with a sample at least"),
        (lambda: gmres(lambda v: v, torch.ones(2, 3), torch.ones(2, 4)), r"x0 must have the shape of b, \(2, 3\)"),
        (lambda: gmres(lambda v: v, torch.ones(2, 3), torch.full((2, 3), torch.inf)), "x0 must be finite; sample 0"),
        (
            lambda: gmres(lambda v: v[:, :2], torch.ones(2, 3)),
            r"operator must keep the shape \(2, 3\), got \(2, 2\)",
        ),
        (lambda: gmres(lambda v: v, torch.ones(2, 3), preconditioner=lambda v: v.sum(1)), "preconditioner must keep"),
        (lambda: gmres(lambda v: v, torch.ones(2, 3), rtol=0), "rtol and atol must not be negative, and one must"),
        (lambda: gmres(lambda v: v, torch.ones(2, 3), atol=-1), "got rtol = .*, atol = -1"),
        (lambda: gmres(lambda v: v, torch.ones(2, 3), restart=0), "restart must be at least 1, got 0"),
        (lambda: gmres(lambda v: v, torch.ones(2, 3), max_iterations=0), "max_iterations must be at least 1, got 0"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_an_operator_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"operator must keep the dtype torch.float32, got torch.complex64"):
        gmres(lambda v: 1j * v, torch.ones(2, 3))

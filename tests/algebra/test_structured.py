"""Structured matrices against their dense selves."""

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.algebra import structured
from pdebook.algebra.krylov import gmres


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def diagonals(*shape: int, seed: int = 0) -> list[torch.Tensor]:
    lower, upper, b = draw(*shape, seed=seed), draw(*shape, seed=seed + 1), draw(*shape, seed=seed + 2)
    return [lower, lower.abs() + upper.abs() + 0.5, upper, b]


def dense(lower, diagonal, upper, cyclic=False):
    n = diagonal.shape[-1]
    matrix = torch.diag_embed(diagonal)
    for i in range(n):
        if i or cyclic:
            matrix[..., i, i - 1] += lower[..., i]
        if i < n - 1 or cyclic:
            matrix[..., i, (i + 1) % n] += upper[..., i]
    return matrix


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.booleans(), st.integers(0, 1000))
def test_tridiagonal_solves_are_those_of_the_matrix(n, cyclic, seed):
    n = max(n, 3) if cyclic else n
    lower, diagonal, upper, b = diagonals(3, n, seed=seed)
    solve = structured.cyclic_tridiagonal_solve if cyclic else structured.tridiagonal_solve
    x = solve(lower, diagonal, upper, b)
    matrix = dense(lower, diagonal, upper, cyclic)
    torch.testing.assert_close((matrix @ x[..., None])[..., 0], b, rtol=0, atol=1e-11)
    if not cyclic:
        torch.testing.assert_close(structured.tridiagonal_product(lower, diagonal, upper, x), b, rtol=0, atol=1e-11)


def test_diagonals_broadcast_and_unused_corners_do_not_matter():
    lower, diagonal, upper, b = diagonals(4, 9)
    x = structured.tridiagonal_solve(lower[0], diagonal[0], upper[0], b)
    torch.testing.assert_close(x, b @ torch.linalg.inv(dense(lower[0], diagonal[0], upper[0])).T)
    lower[:, 0], upper[:, -1] = torch.nan, torch.inf
    assert bool(structured.tridiagonal_solve(lower, diagonal, upper, b).isfinite().all())
    alone = structured.tridiagonal_solve(lower[2:3], diagonal[2:3], upper[2:3], b[2:3])
    assert torch.equal(alone[0], structured.tridiagonal_solve(lower, diagonal, upper, b)[2])
    assert structured.tridiagonal_solve(*(part.float() for part in diagonals(2, 5))).dtype == torch.float32


def test_a_long_system_in_single_precision():
    lower, diagonal, upper, b = diagonals(2, 5000)
    exact = structured.tridiagonal_solve(lower, diagonal, upper, b)
    single = structured.tridiagonal_solve(lower.float(), diagonal.float(), upper.float(), b.float())
    assert (single - exact).abs().max() < 1e-4 * exact.abs().max()
    banded = torch.stack([upper[0].roll(1), diagonal[0], lower[0].roll(-1)]).numpy()
    torch.testing.assert_close(exact[0], torch.as_tensor(scipy.linalg.solve_banded((1, 1), banded, b[0].numpy())))


@pytest.mark.parametrize("solve", [structured.tridiagonal_solve, structured.cyclic_tridiagonal_solve])
@pytest.mark.parametrize("n", [5, 6])
def test_tridiagonal_gradients_of_first_and_second_order(solve, n):
    parts = [part.requires_grad_() for part in diagonals(2, n)]
    assert torch.autograd.gradcheck(solve, parts)
    assert torch.autograd.gradgradcheck(solve, parts)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_toeplitz_products(n, dtype):
    column, row, v = draw(3, n, dtype=dtype), draw(3, n, seed=1, dtype=dtype), draw(3, n, seed=2, dtype=dtype)
    matrix = structured.toeplitz_matrix(column, row)
    for i in range(3):
        wanted = scipy.linalg.toeplitz(column[i].numpy(), row[i].numpy())
        torch.testing.assert_close(matrix[i], torch.as_tensor(wanted))
    operator = structured.toeplitz(column, row)
    torch.testing.assert_close(operator(v), (matrix @ v[..., None])[..., 0])
    torch.testing.assert_close(operator.adjoint(v), (matrix.mH @ v[..., None])[..., 0])
    torch.testing.assert_close(operator.diagonal, matrix.diagonal(dim1=1, dim2=2))
    hermitian = structured.toeplitz_matrix(column)
    torch.testing.assert_close(structured.toeplitz(column)(v), (hermitian @ v[..., None])[..., 0])
    torch.testing.assert_close(hermitian.tril(-1), hermitian.mH.tril(-1))
    shared = structured.toeplitz(column[0], row[0])
    torch.testing.assert_close(shared(v), v @ matrix[0].T)
    assert shared.diagonal.shape == (1, n)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n", [1, 6, 7])
def test_circulants(n, dtype):
    column, v = draw(2, n, dtype=dtype), draw(2, n, seed=2, dtype=dtype)
    matrix = torch.stack([torch.as_tensor(scipy.linalg.circulant(c.numpy())) for c in column])
    operator = structured.circulant(column)
    torch.testing.assert_close(operator(v), (matrix @ v[..., None])[..., 0])
    torch.testing.assert_close(operator.adjoint(v), (matrix.mH @ v[..., None])[..., 0])
    torch.testing.assert_close(operator.diagonal, matrix.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(structured.circulant_solve(column, operator(v)), v)
    wave = draw(2, n, dtype=torch.complex128)
    torch.testing.assert_close(operator(wave), (matrix.to(wave) @ wave[..., None])[..., 0])
    torch.testing.assert_close(structured.circulant_solve(column, operator(wave)), wave)


def test_structured_lengths_must_match():
    with pytest.raises(
        ValueError, match=r"b must have the 4 entries of column along its last axis, got shape \(2, 5\)"
    ):
        structured.circulant_solve(torch.ones(4), torch.ones(2, 5))
    with pytest.raises(ValueError, match="row must have the 0 entries of column, one at least"):
        structured.toeplitz(torch.ones(0))


def test_a_circulant_preconditions_its_toeplitz_matrix():
    n = 64
    lags = torch.arange(n, dtype=torch.float64)
    column = (1 + lags) ** -1.1
    chan = ((n - lags) * column + lags * column.flip(0).roll(1)) / n
    operator, b = structured.toeplitz(column), draw(2, n)
    plain = gmres(operator, b, rtol=1e-10)
    better = gmres(operator, b, rtol=1e-10, preconditioner=lambda v: structured.circulant_solve(chan, v))
    torch.testing.assert_close(better.x, plain.x, rtol=1e-6, atol=1e-7)
    assert int(better.iterations.max()) < int(plain.iterations.min()) / 1.5


def test_structured_products_have_gradients():
    column, v = draw(2, 5).requires_grad_(), draw(2, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda c, v: structured.toeplitz(c)(v), (column, v))
    assert torch.autograd.gradcheck(structured.circulant_solve, (column, v))


@pytest.mark.parametrize("batched", [True, False])
def test_kronecker_products(batched):
    shapes = [(2, 3), (4, 2), (3, 3)]
    factors = [draw(*([5] if batched else []), *shape, seed=i) for i, shape in enumerate(shapes)]
    operator = structured.kronecker(*factors)
    v, w = draw(5, 3, 2, 3), draw(5, 2, 4, 3, seed=1)
    for i in range(5):
        a, b, c = (factor[i] if batched else factor for factor in factors)
        whole = torch.kron(torch.kron(a, b), c)
        torch.testing.assert_close(operator(v)[i].flatten(), whole @ v[i].flatten())
        torch.testing.assert_close(operator.adjoint(w)[i].flatten(), whole.T @ w[i].flatten())
    square = [draw(*([5] if batched else []), n, n, seed=n) + 3 * torch.eye(n) for n in (2, 4, 3)]
    x = structured.kronecker_solve(square, w)
    torch.testing.assert_close(structured.kronecker(*square)(x), w)
    line = draw(5, 3)
    torch.testing.assert_close(structured.kronecker(square[2])(structured.kronecker_solve(square[2:], line)), line)


ONES = torch.ones(2, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: structured.tridiagonal_solve(ONES[:, 1:], ONES, ONES, ONES),
            "lower must have n entries .* diagonal's 4",
        ),
        (lambda: structured.tridiagonal_solve(ONES, ONES, ONES, ONES.double()), "b must be floating-point .*float64"),
        (lambda: structured.tridiagonal_solve(*[ONES.int()] * 4), "lower must be floating-point"),
        (lambda: structured.tridiagonal_solve(ONES, ONES, ONES, torch.ones(3, 4)), "must broadcast to one shape"),
        (lambda: structured.cyclic_tridiagonal_solve(*[ONES[:, :2]] * 4), "3 entries at least .* got 2"),
        (lambda: structured.toeplitz(torch.ones(4), torch.ones(3)), "row must have the 4 entries of column"),
        (lambda: structured.toeplitz_matrix(torch.ones(4), torch.ones(3)), "row must have the 4 entries of column"),
        (lambda: structured.toeplitz(torch.ones(4))(torch.ones(2, 5)), r"v must have shape \(batch, \*\(4,\)\)"),
        (lambda: structured.kronecker(), "factors must be matrices"),
        (lambda: structured.kronecker(torch.ones(3)), "factors must be matrices"),
        (lambda: structured.kronecker_solve([torch.ones(2, 3)], torch.ones(1, 3)), "factors must be square"),
        (lambda: structured.kronecker_solve([torch.eye(2)], torch.ones(1, 3)), "b must have shape"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

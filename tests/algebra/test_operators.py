"""Operators against their matrices: sums, products, adjoints, diagonals, Jacobians."""

import pytest
import torch

from pdebook.algebra.operators import LinearOperator, from_matrix, identity, jacobian


def matrices(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch", [(), (2,)])
def test_algebra_of_operators_is_that_of_matrices(batch):
    a, b, c = matrices(*batch, 3, 4), matrices(*batch, 3, 4, seed=1), matrices(*batch, 4, 3, seed=2)
    scale = torch.tensor([2.0, 1.0 - 3.0j], dtype=torch.complex128)
    operator = (from_matrix(a) + (2j * from_matrix(b) - from_matrix(a) * scale)) @ from_matrix(c)
    expected = ((1 - scale[:, None, None]) * a + 2j * b) @ c
    torch.testing.assert_close(operator.dense(2, torch.complex128), expected)
    torch.testing.assert_close(operator.adjoint.dense(2, torch.complex128), expected.mH)
    assert operator.diagonal is None
    assert (operator.in_shape, operator.out_shape) == ((3,), (3,))
    v = matrices(2, 3, seed=3)
    torch.testing.assert_close(operator(v), torch.einsum("bij,bj->bi", expected, v))
    torch.testing.assert_close(operator.adjoint.adjoint(v), operator(v))


def test_diagonals_follow_sums_scales_and_adjoints():
    a = matrices(2, 3, 3)
    scale = torch.tensor([2.0, 1.0j], dtype=torch.complex128)
    operator = scale * (from_matrix(a) + identity((3,)))
    expected = scale[:, None] * (a.diagonal(dim1=1, dim2=2) + 1)
    torch.testing.assert_close(operator.diagonal, expected)
    torch.testing.assert_close(operator.adjoint.diagonal, expected.conj())
    assert (from_matrix(a) + jacobian(lambda z: z, torch.zeros(2, 3, dtype=torch.float64))).diagonal is None
    assert from_matrix(matrices(2, 3)).diagonal is None
    torch.testing.assert_close(identity((2, 2)).adjoint.dense(1), torch.eye(4)[None])


def test_jacobian_of_a_function_of_fields():
    z = torch.rand(3, 2, 2, dtype=torch.float64)
    operator = jacobian(lambda z: torch.stack([z.sum((1, 2)), z[:, 0, 0] * z[:, 1, 1]], 1), z)
    assert (operator.in_shape, operator.out_shape) == ((2, 2), (2,))
    expected = torch.zeros(3, 2, 4, dtype=torch.float64)
    expected[:, 0] = 1
    expected[:, 1, 0], expected[:, 1, 3] = z[:, 1, 1], z[:, 0, 0]
    torch.testing.assert_close(operator.dense(3, torch.float64), expected)
    torch.testing.assert_close(operator.adjoint.dense(3, torch.float64), expected.mT)


def test_an_operator_without_an_adjoint_has_none():
    one_way = LinearOperator(lambda v: v, (3,), (3,))
    for operator in (one_way, one_way + identity((3,)), identity((3,)) @ one_way, 2.0 * one_way):
        with pytest.raises(ValueError, match="rmatvec is needed for the adjoint"):
            _ = operator.adjoint


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: identity((3,))(torch.zeros(2, 4)), r"v must have shape \(batch, \*\(3,\)\), got \(2, 4\)"),
        (lambda: identity((3,)) + identity((4,)), r"shapes \(3,\) to \(3,\) and \(4,\) to \(4,\) have no sum"),
        (lambda: identity((3,)) @ identity((4,)), r"shapes \(4,\) to \(4,\) and \(3,\) to \(3,\) have no product"),
        (lambda: from_matrix(torch.zeros(1, 1, 2, 3)), r"shape \(m, n\) or \(batch, m, n\), got \(1, 1, 2, 3\)"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

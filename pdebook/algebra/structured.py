"""Matrices that are known by few numbers: tridiagonal systems, Toeplitz and circulant products, Kronecker products.

| function | matrix | cost |
|---|---|---|
| ``tridiagonal_solve``, ``cyclic_tridiagonal_solve`` | three diagonals, and the two corners | O(n), 2 log2 n stages |
| ``toeplitz`` | constant along each diagonal | O(n log n) a product |
| ``circulant``, ``circulant_solve`` | Toeplitz and periodic | O(n log n) |
| ``kronecker``, ``kronecker_solve`` | A ⊗ B ⊗ ... acting on a box, an axis each | one small product an axis |
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import pad

from pdebook.algebra.operators import LinearOperator

__all__ = [
    "circulant",
    "circulant_solve",
    "cyclic_tridiagonal_solve",
    "kronecker",
    "kronecker_solve",
    "toeplitz",
    "toeplitz_matrix",
    "tridiagonal_product",
    "tridiagonal_solve",
]


def _reduce(a: Tensor, d: Tensor, c: Tensor, b: Tensor) -> Tensor:
    """Cyclic reduction: the even unknowns are eliminated from the odd equations, which are tridiagonal again."""
    n = d.shape[-1]
    if n == 1:
        return b / d
    if n % 2 == 0:  # one more equation, x = 0
        a, d, c, b = pad(a, (0, 1)), pad(d, (0, 1), value=1.0), pad(c, (0, 1)), pad(b, (0, 1))
        return _reduce(a, d, c, b)[..., :n]
    a_even, c_even, b_even = a[..., ::2], c[..., ::2], b[..., ::2]
    inverse = 1.0 / d[..., ::2]
    below, above = -a[..., 1::2] * inverse[..., :-1], -c[..., 1::2] * inverse[..., 1:]
    odd = _reduce(
        below * a_even[..., :-1],
        torch.addcmul(torch.addcmul(d[..., 1::2], below, c_even[..., :-1]), above, a_even[..., 1:]),
        above * c_even[..., 1:],
        torch.addcmul(torch.addcmul(b[..., 1::2], below, b_even[..., :-1]), above, b_even[..., 1:]),
    )
    even = b_even.clone()
    even[..., 1:].addcmul_(a_even[..., 1:], odd, value=-1.0)
    even[..., :-1].addcmul_(c_even[..., :-1], odd, value=-1.0)
    x = torch.empty_like(b)
    x[..., 1::2] = odd
    x[..., ::2] = even.mul_(inverse)
    return x


class _Tridiagonal(torch.autograd.Function):
    """The solution, with the gradient of the transposed system; differentiable as often as one likes."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor, diagonal: Tensor, upper: Tensor, b: Tensor) -> Tensor:
        x = _reduce(lower, diagonal, upper, b)
        ctx.save_for_backward(lower, diagonal, upper, x)
        return x

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lower, diagonal, upper, x = ctx.saved_tensors
        # Entry (i, i - 1) of the transpose is entry (i - 1, i).
        w = _Tridiagonal.apply(pad(upper[..., :-1], (1, 0)), diagonal, pad(lower[..., 1:], (0, 1)), v)
        return -w * pad(x[..., :-1], (1, 0)), -w * x, -w * pad(x[..., 1:], (0, 1)), w


def _diagonals(lower: Tensor, diagonal: Tensor, upper: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four tensors broadcast to one shape. Raises ValueError unless they match."""
    parts = {"lower": lower, "diagonal": diagonal, "upper": upper, "b": b}
    for name, part in parts.items():
        if not part.is_floating_point() or part.dtype != diagonal.dtype:
            raise ValueError(
                f"{name} must be floating-point and of diagonal's dtype {diagonal.dtype}, got {part.dtype}"
            )
        if part.ndim < 1 or part.shape[-1] != diagonal.shape[-1] or not part.shape[-1]:
            raise ValueError(
                f"{name} must have n entries along its last axis, one for each row, as diagonal's {diagonal.shape[-1]}; "
                f"got shape {tuple(part.shape)}"
            )
    try:
        return torch.broadcast_tensors(lower, diagonal, upper, b)
    except RuntimeError:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts.values())
        raise ValueError(f"lower, diagonal, upper and b must broadcast to one shape, got {shapes}") from None


def tridiagonal_product(
    lower: Float[Tensor, "*#shape"],
    diagonal: Float[Tensor, "*#shape"],
    upper: Float[Tensor, "*#shape"],
    x: Float[Tensor, "*#shape"],
) -> Float[Tensor, "*shape"]:
    """b_i = lower_i x_{i-1} + diagonal_i x_i + upper_i x_{i+1}; arguments as those of ``tridiagonal_solve``."""
    lower, diagonal, upper, x = _diagonals(lower, diagonal, upper, x)
    before, after = pad(x[..., :-1], (1, 0)), pad(x[..., 1:], (0, 1))
    return diagonal * x + lower * before + upper * after


def tridiagonal_solve(
    lower: Shaped[Tensor, "..."],
    diagonal: Shaped[Tensor, "..."],
    upper: Shaped[Tensor, "..."],
    b: Shaped[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """x with lower_i x_{i-1} + diagonal_i x_i + upper_i x_{i+1} = b_i, by cyclic reduction.

    No pivots: accurate for diagonally dominant or positive definite matrices, as those of diffusion; a zero pivot gives values
    that are not finite. 2 log2 n batched stages on halved sizes, so nothing is sequential along the axis: with 64 systems of
    1024 unknowns ten times as fast as elimination row by row and four times as parallel cyclic reduction, which does log2 n
    times the work. Gradients with respect to all four arguments, of any order, come from the transposed system.

    Args:
        lower: (..., n); lower_0 is not used.
        diagonal: (..., n).
        upper: (..., n); upper_{n-1} is not used.
        b: (..., n); the four broadcast.
    Raises:
        ValueError: dtypes or shapes that do not match.
    Source: Hockney 1965; Golub and Van Loan, Matrix Computations, section 4.5.4.
    """
    lower, diagonal, upper, b = _diagonals(lower, diagonal, upper, b)
    # The unused corners must not enter the products.
    return _Tridiagonal.apply(pad(lower[..., 1:], (1, 0)), diagonal, pad(upper[..., :-1], (0, 1)), b)


def cyclic_tridiagonal_solve(
    lower: Shaped[Tensor, "..."],
    diagonal: Shaped[Tensor, "..."],
    upper: Shaped[Tensor, "..."],
    b: Shaped[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """x with lower_i x_{i-1} + diagonal_i x_i + upper_i x_{i+1} = b_i, indices modulo n >= 3: the period of a ring.

    Two tridiagonal systems, by the formula of Sherman and Morrison. Args, Raises: as ``tridiagonal_solve``; ValueError also for
    fewer than three unknowns.
    """
    lower, diagonal, upper, b = _diagonals(lower, diagonal, upper, b)
    n = diagonal.shape[-1]
    if n < 3:
        raise ValueError(f"diagonal must have 3 entries at least in a periodic system, got {n}")
    # A = T + p qᵀ with p = (γ, 0, ..., 0, upper_{n-1}) and q = (1, 0, ..., 0, lower_0/γ), γ = -diagonal_0 so that T is no worse.
    gamma = -diagonal[..., :1]
    corner, last = lower[..., :1] / gamma, upper[..., -1:]
    middle = torch.cat([diagonal[..., :1] - gamma, diagonal[..., 1:-1], diagonal[..., -1:] - corner * last], -1)
    p = torch.cat([gamma, torch.zeros_like(b[..., 1:-1]), last], -1)
    x, z = tridiagonal_solve(lower, middle, upper, torch.stack([b, p])).unbind(0)
    at_x, at_z = (v[..., :1] + corner * v[..., -1:] for v in (x, z))
    return x - at_x / (1.0 + at_z) * z


def _circular(symbol: Tensor, v: Tensor, length: int) -> Tensor:
    """The first entries of the circular convolution of length ``length`` with the column whose transform is ``symbol``."""
    if v.is_complex():
        return torch.fft.ifft(torch.fft.fft(v, n=length) * symbol)[..., : v.shape[-1]]
    half = symbol[..., : length // 2 + 1]
    return torch.fft.irfft(torch.fft.rfft(v, n=length) * half, n=length)[..., : v.shape[-1]]


def toeplitz_matrix(
    column: Shaped[Tensor, "*batch n"], row: Shaped[Tensor, "..."] | None = None
) -> Shaped[Tensor, "*batch n n"]:
    """A_ij = column_{i-j} for i >= j, else row_{j-i}; row is the column's conjugate if left out, and row_0 is not used."""
    row = column.conj() if row is None else row
    n = column.shape[-1]
    if row.shape[-1] != n:
        raise ValueError(f"row must have the {n} entries of column, got shape {tuple(row.shape)}")
    lags = torch.arange(n, device=column.device)
    index = lags[:, None] - lags
    return torch.where(index >= 0, column[..., index.clamp(min=0)], row[..., (-index).clamp(min=0)])


def toeplitz(column: Shaped[Tensor, "*batch n"], row: Shaped[Tensor, "..."] | None = None) -> LinearOperator:
    """Operator of the Toeplitz matrix A_ij = column_{i-j} for i >= j, row_{j-i} above, by FFTs of twice the length.

    Args:
        column: first column, (n,) for all samples or (batch, n).
        row: first row, whose own first entry is not used; the column's conjugate (a Hermitian matrix) if left out.
    Raises:
        ValueError: a row of another length.
    """
    row = column.conj() if row is None else row
    n = column.shape[-1]
    if row.shape[-1] != n or not n:
        raise ValueError(f"row must have the {n} entries of column, one at least, got shape {tuple(row.shape)}")
    length = 2 * n  # a column, one entry that is never met, and the row backwards
    wrapped = torch.cat([column, torch.zeros_like(column[..., :1]), row[..., 1:].flip(-1)], -1)
    symbol = torch.fft.fft(wrapped)
    # The adjoint's column is the conjugate of (column_0, row_1, ...), whose transform is the conjugate of the symbol.
    real = not wrapped.is_complex()

    def product(s: Tensor, v: Tensor) -> Tensor:
        return _circular(s, v if real else v.to(torch.promote_types(v.dtype, wrapped.dtype)), length)

    diagonal = column[..., :1].expand(*column.shape[:-1], n).reshape(-1, n)
    return LinearOperator(lambda v: product(symbol, v), (n,), (n,), lambda w: product(symbol.conj(), w), diagonal)


def circulant(column: Shaped[Tensor, "*batch n"]) -> LinearOperator:
    """Operator of the circulant matrix A_ij = column_{(i-j) mod n}.

    Args:
        column: first column, (n,) for all samples or (batch, n).
    """
    n = column.shape[-1]
    symbol = torch.fft.fft(column)
    real = not column.is_complex()

    def product(s: Tensor, v: Tensor) -> Tensor:
        return _circular(s, v if real else v.to(torch.promote_types(v.dtype, column.dtype)), n)

    diagonal = column[..., :1].expand(*column.shape[:-1], n).reshape(-1, n)
    return LinearOperator(lambda v: product(symbol, v), (n,), (n,), lambda w: product(symbol.conj(), w), diagonal)


def circulant_solve(column: Shaped[Tensor, "*batch n"], b: Shaped[Tensor, "*rows m"]) -> Shaped[Tensor, "*rows m"]:
    """x with A x = b for the circulant matrix of this first column; an eigenvalue zero gives values that are not finite.

    With Chan's column, the mean along each wrapped diagonal of a Toeplitz matrix, it preconditions that matrix.

    Raises:
        ValueError: a b of another length than the column.
    """
    if b.shape[-1] != column.shape[-1]:
        raise ValueError(
            f"b must have the {column.shape[-1]} entries of column along its last axis, got shape {tuple(b.shape)}"
        )
    symbol = torch.fft.fft(column)
    if column.is_complex() or b.is_complex():
        return torch.fft.ifft(torch.fft.fft(b) / symbol)
    n = b.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(b) / symbol[..., : n // 2 + 1], n=n)


def _check_factors(factors: Sequence[Tensor]) -> None:
    if not factors or any(factor.ndim not in (2, 3) for factor in factors):
        raise ValueError(
            f"factors must be matrices (m, n) or (batch, m, n), one for each axis, got shapes {[tuple(f.shape) for f in factors]}"
        )


def _along(factor: Tensor, v: Tensor, axis: int) -> Tensor:
    """The factor applied along an axis of v, (batch, *shape)."""
    moved = v.movedim(axis, 1)
    image = factor @ moved.flatten(2) if moved.ndim > 2 else (factor @ moved[..., None])[..., 0]
    return image.reshape(len(v), factor.shape[-2], *moved.shape[2:]).movedim(1, axis)


def kronecker(*factors: Shaped[Tensor, "..."]) -> LinearOperator:
    """Operator of A_1 ⊗ A_2 ⊗ ... on fields (batch, n_1, n_2, ...): each matrix acts along its axis.

    Args:
        factors: matrices (m_j, n_j), or (batch, m_j, n_j) for each sample.
    Raises:
        ValueError: no factors, or something that is no matrix.
    """
    _check_factors(factors)

    def product(matrices: Sequence[Tensor], v: Tensor) -> Tensor:
        for axis, matrix in enumerate(matrices, 1):
            v = _along(matrix, v, axis)
        return v

    adjoints = [factor.mH for factor in factors]
    return LinearOperator(
        lambda v: product(factors, v),
        tuple(factor.shape[-1] for factor in factors),
        tuple(factor.shape[-2] for factor in factors),
        lambda w: product(adjoints, w),
    )


def kronecker_solve(factors: Sequence[Tensor], b: Shaped[Tensor, "batch *shape"]) -> Shaped[Tensor, "batch *shape"]:
    """x with (A_1 ⊗ A_2 ⊗ ...) x = b: a solve along each axis.

    Args:
        factors: square matrices (n_j, n_j) or (batch, n_j, n_j).
        b: (batch, n_1, n_2, ...).
    Raises:
        ValueError: no factors, factors that are not square, or a b that does not fit.
    """
    _check_factors(factors)
    sizes = tuple(factor.shape[-1] for factor in factors)
    if any(factor.shape[-2] != factor.shape[-1] for factor in factors) or tuple(b.shape[1:]) != sizes:
        raise ValueError(
            f"factors must be square and b must have shape (batch, *{sizes}), got {tuple(b.shape)} and "
            f"{[tuple(f.shape) for f in factors]}"
        )
    for axis, factor in enumerate(factors, 1):
        moved = b.movedim(axis, 1)
        columns = math.prod(moved.shape[2:])
        solved = torch.linalg.solve(factor, moved.reshape(len(b), factor.shape[-1], columns))
        b = solved.reshape(moved.shape).movedim(1, axis)
    return b

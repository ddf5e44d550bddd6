"""Linear operators that are known by their products: A v for a batch of vectors of any shape.

An operator maps (batch, *in_shape) to (batch, *out_shape), sample by sample, and may differ from sample to sample. Operators are
called, added, multiplied (``A @ B``), scaled, and turned into their adjoint (``A.adjoint``). Any function of v does for
``krylov.gmres``; what needs more than products asks for an operator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

__all__ = ["LinearOperator", "from_matrix", "identity", "jacobian"]


@dataclass(frozen=True)
class LinearOperator:
    """A linear operator v to A v, (batch, *in_shape) to (batch, *out_shape).

    Attributes:
        matvec: v to A v.
        in_shape: shape of one v.
        out_shape: shape of one A v.
        rmatvec: w to A* w, with the conjugate transpose; None if it is not known.
        diagonal: the diagonal of A as a tensor that broadcasts to (batch, *in_shape); None if it is not known.
    """

    matvec: Callable[[Tensor], Tensor]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    rmatvec: Callable[[Tensor], Tensor] | None = None
    diagonal: Shaped[Tensor, "..."] | None = None

    def __call__(self, v: Shaped[Tensor, "batch *shape"]) -> Shaped[Tensor, "batch *image"]:
        """A v. Raises ValueError unless v has the shape (batch, *in_shape)."""
        if tuple(v.shape[1:]) != self.in_shape:
            raise ValueError(f"v must have shape (batch, *{self.in_shape}), got {tuple(v.shape)}")
        return self.matvec(v)

    @property
    def adjoint(self) -> "LinearOperator":
        """A*, the conjugate transpose. Raises ValueError if it is not known."""
        if self.rmatvec is None:
            raise ValueError("rmatvec is needed for the adjoint, and this operator has none")
        diagonal = None if self.diagonal is None else self.diagonal.conj()
        return LinearOperator(self.rmatvec, self.out_shape, self.in_shape, self.matvec, diagonal)

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        if (self.in_shape, self.out_shape) != (other.in_shape, other.out_shape):
            raise ValueError(
                f"operators of shapes {self.in_shape} to {self.out_shape} and {other.in_shape} to {other.out_shape} have no sum"
            )
        first, second = self.rmatvec, other.rmatvec
        return LinearOperator(
            lambda v: self.matvec(v) + other.matvec(v),
            self.in_shape,
            self.out_shape,
            None if first is None or second is None else lambda w: first(w) + second(w),
            None if self.diagonal is None or other.diagonal is None else self.diagonal + other.diagonal,
        )

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        return self + (-1.0) * other

    def __mul__(self, scale: complex | float | int | Tensor) -> "LinearOperator":
        """Operator times a number, or a number for each sample, shape (batch,)."""
        factor = torch.as_tensor(scale)
        adjoint = self.rmatvec

        def scaled(v: Tensor, by: Tensor) -> Tensor:
            return by.to(v.device).view(-1, *[1] * (v.ndim - 1)) * v

        return LinearOperator(
            lambda v: scaled(self.matvec(v), factor),
            self.in_shape,
            self.out_shape,
            None if adjoint is None else lambda w: scaled(adjoint(w), factor.conj()),
            None if self.diagonal is None else scaled(self.diagonal, factor),
        )

    __rmul__ = __mul__

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        if self.in_shape != other.out_shape:
            raise ValueError(
                f"operators of shapes {other.in_shape} to {other.out_shape} and {self.in_shape} to {self.out_shape} have no product"
            )
        first, second = self.rmatvec, other.rmatvec
        return LinearOperator(
            lambda v: self.matvec(other.matvec(v)),
            other.in_shape,
            self.out_shape,
            None if first is None or second is None else lambda w: second(first(w)),
        )

    def dense(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Shaped[Tensor, "batch m n"]:
        """The matrices of a batch, column by column: for tests and small problems."""
        size = math.prod(self.in_shape)
        units = torch.eye(size, dtype=dtype, device=device).view(size, 1, *self.in_shape)
        columns = [self.matvec(unit.expand(batch, *self.in_shape)).reshape(batch, -1) for unit in units]
        return torch.stack(columns, 2)


def from_matrix(matrix: Shaped[Tensor, "*batch m n"]) -> LinearOperator:
    """Operator of one matrix (m, n) for all samples, or of a matrix (batch, m, n) for each.

    Raises:
        ValueError: neither two nor three axes.
    """
    if matrix.ndim not in (2, 3):
        raise ValueError(f"matrix must have shape (m, n) or (batch, m, n), got {tuple(matrix.shape)}")
    rows, columns = matrix.shape[-2:]
    return LinearOperator(
        lambda v: (matrix @ v[..., None])[..., 0],
        (columns,),
        (rows,),
        lambda w: (matrix.mH @ w[..., None])[..., 0],
        matrix.diagonal(dim1=-2, dim2=-1).reshape(-1, rows) if rows == columns else None,
    )


def identity(
    shape: tuple[int, ...], dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> LinearOperator:
    """The identity on (batch, *shape); dtype and device are those of its diagonal."""
    return LinearOperator(lambda v: v, shape, shape, lambda w: w, torch.ones(1, *shape, dtype=dtype, device=device))


def jacobian(f: Callable[[Tensor], Tensor], z: Float[Tensor, "batch *shape"]) -> LinearOperator:
    """∂f/∂z at z: products J v in forward mode, Jᵀ w in reverse mode.

    f is evaluated once here and once for each product J v; it acts sample by sample.
    """
    value, pull = torch.func.vjp(f, z)[:2]
    return LinearOperator(
        lambda v: torch.func.jvp(f, (z,), (v,))[1],
        tuple(z.shape[1:]),
        tuple(value.shape[1:]),
        lambda w: pull(w)[0],
    )

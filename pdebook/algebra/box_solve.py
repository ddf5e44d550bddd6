"""Solutions of box systems A u = b, A a ``BoxOperator``, with gradients with respect to its weights, its shift and b.

A is symmetric, so the backward pass is one more solve with it, which has gradients in turn.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.algebra.conjugate_gradient import conjugate_gradient
from pdebook.algebra.multigrid import BoxOperator, Multigrid

__all__ = ["differences", "named_preconditioner", "solve_box"]

Product = Callable[[Tensor], Tensor]


class _Solve(torch.autograd.Function):
    """A⁺ b for a symmetric BoxOperator, with constants left out of b and x if they are its kernel."""

    @staticmethod
    def forward(ctx: Any, solver: Any, periodic: Any, singular: bool, b: Tensor, shift: Any, *faces: Tensor) -> Tensor:
        ctx.solver, ctx.periodic, ctx.singular, ctx.has_shift = solver, periodic, singular, shift is not None
        axes = tuple(range(1, b.ndim))
        b = b - b.mean(axes, keepdim=True) if singular else b
        x = solver(BoxOperator(faces, shift, periodic), b)
        x = x - x.mean(axes, keepdim=True) if singular else x
        ctx.save_for_backward(x, *([shift] if shift is not None else []), *faces)
        return x

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        shift, faces = (rest[0], rest[1:]) if ctx.has_shift else (None, rest)
        y = _Solve.apply(ctx.solver, ctx.periodic, ctx.singular, v, shift, *faces)
        grads = []
        dims = len(faces)
        for axis, (face, periodic) in enumerate(zip(faces, ctx.periodic, strict=True)):
            place = axis - dims
            grad = -differences(y, place, periodic) * differences(x, place, periodic)
            if periodic:  # one face, stored twice
                weight = torch.ones(face.shape[place], dtype=x.dtype, device=x.device)
                weight[[0, -1]] = 0.5
                grad = grad * weight.reshape([-1] + [1] * (-place - 1))
            grads.append(grad.sum_to_size(face.shape))
        return None, None, None, y, None if shift is None else (-y * x).sum_to_size(shift.shape), *grads


def differences(u: Tensor, axis: int, periodic: bool) -> Tensor:
    """u_i - u_{i-1} on all faces along an axis; beyond a wall u = 0."""
    n = u.shape[axis]
    first, last = u.narrow(axis, 0, 1), u.narrow(axis, n - 1, 1)
    zero = torch.zeros_like(first)
    return torch.diff(torch.cat([last if periodic else zero, u, first if periodic else zero], axis), dim=axis)


def solve_box(
    operator: BoxOperator,
    b: Float[Tensor, "batch *shape"],
    *,
    preconditioner: str | Product = "multigrid",
    singular: bool = False,
    x0: Tensor | None = None,
    rtol: float | int | None = None,
    max_iterations: int = 500,
) -> Float[Tensor, "batch *shape"]:
    """u with A u = b for the operator of a box, with gradients with respect to its weights, its shift and b, of any order.

    Args:
        operator: A.
        b: right-hand sides.
        preconditioner: "multigrid", "jacobi", or r to M r, symmetric and positive definite.
        singular: constants are the kernel of A: they are left out of b and u.
        x0: initial guess.
        rtol, max_iterations: as in ``conjugate_gradient``.
    Raises:
        ValueError, NotConverged: as ``conjugate_gradient`` and ``Multigrid``.
    """
    kept: list[Product] = []
    guess = [x0]

    def solver(a: BoxOperator, right: Tensor) -> Tensor:
        if not kept:  # the backward pass has the same operator
            kept.append(named_preconditioner(a, preconditioner))
        start = guess.pop() if guess else None
        return conjugate_gradient(a, right, start, preconditioner=kept[0], rtol=rtol, max_iterations=max_iterations).x

    return _Solve.apply(solver, operator.periodic, singular, b, operator.shift, *operator.faces)


def named_preconditioner(operator: BoxOperator, given: str | Product) -> Product:
    """A function itself, or the one that "multigrid" or "jacobi" means. Raises ValueError for another name."""
    if callable(given):
        return given
    if given == "multigrid":
        return Multigrid(operator)
    if given == "jacobi":
        inverse = torch.where(operator.diagonal > 0, 1 / operator.diagonal, 0.0)
        return lambda r: inverse * r
    raise ValueError(f"preconditioner must be 'multigrid', 'poisson', 'jacobi' or a function, got {given!r}")

"""Gradients through the solutions of fixed points z = f(z) and roots F(z) = 0, by the implicit function theorem.

The solvers of ``nonlinear`` run without a graph. ``implicit`` and ``implicit_root`` put a solution back into it.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.algebra.krylov import gmres
from pdebook.algebra.nonlinear import Map, check_map
from pdebook.algebra.results import Result

__all__ = ["implicit", "implicit_root"]


class _NewtonStep(torch.autograd.Function):
    """(1 - ∂f/∂z)^{-1} g for a gap g = f(z) - z that vanishes: the value is zero, the derivative with respect to g is not."""

    @staticmethod
    def forward(ctx: Any, gap: Tensor, z: Tensor, f: Map, solver: Callable[..., Result] | None, order: int) -> Tensor:
        """Zero."""
        ctx.f, ctx.solver, ctx.order = f, solver, order
        ctx.save_for_backward(z)
        return torch.zeros_like(gap)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Solve w = (∂f/∂z)ᵀ w + v."""
        (z,) = ctx.saved_tensors
        twice = torch.is_grad_enabled() and ctx.order > 0
        if twice and ctx.order == 1:
            raise RuntimeError("the gradient of this implicit solution can't be differentiated; ask for order=2")
        with torch.enable_grad():
            point = z if twice else z.detach().requires_grad_()
            value = ctx.f(point)

        def transposed(w: Tensor) -> Tensor:
            return torch.autograd.grad(value, point, w, retain_graph=True, create_graph=twice, materialize_grads=True)[
                0
            ]

        start = v.detach()
        if ctx.solver is None:
            w = gmres(lambda w: w - transposed(w).detach(), start).x
        else:
            w = ctx.solver(lambda w: transposed(w).detach() + start, start).x
        # For second derivatives w is a fixed point in its own right, of a map that depends on v and on z.
        return implicit(lambda w: transposed(w) + v, w, solver=ctx.solver) if twice else w, None, None, None, None


def implicit(
    f: Callable[..., Tensor],
    z: Float[Tensor, "batch *shape"],
    *args: Any,
    solver: Callable[..., Result] | None = None,
    one_step: bool = False,
    order: int = 1,
) -> Float[Tensor, "batch *shape"]:
    """Put a fixed point z = f(z, θ) back into the graph: dz/dθ = (1 - ∂f/∂z)^{-1} ∂f/∂θ, by the implicit function theorem.

    f is called once with a graph, and the backward pass solves w = (∂f/∂z)ᵀ w + v for the incoming gradient v. Nothing of the
    forward iteration is stored. **Everything that f uses gets its gradient**: ``args``, the parameters of a module, and tensors that
    f holds as a closure, since that call is ordinary autograd. Their values must not change before the backward pass.

    Args:
        f: f(z, *args), sample by sample.
        z: its fixed point, as accurate as the gradient is to be: the error of the gradient is proportional to that of z.
        args: further arguments of f.
        solver: solver of the backward equation, called as ``solver(map, start)``: one of the fixed-point solvers of this module,
            with its options set by ``functools.partial``; GMRES with the default tolerance if left out.
        one_step: leave the solve out, w = v: the "Jacobian-free" gradient of the last step alone, cheap and biased.
        order: highest derivative that will be asked for, 1 or 2. For 2 (``create_graph``, Hessians) the solution is one Newton
            step from an implicit solution of order 1, which makes each backward pass two solves.
    Returns:
        z, with a graph.
    Raises:
        ValueError: f changes the shape, or an order other than 1 and 2.
        NotConverged: in the backward pass, if its solve fails.
        RuntimeError: in the backward pass, if second derivatives are asked of order 1.
    Source: Bai, Kolter and Koltun 2019, theorem 1; Fung et al. 2022 for one step.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    return _attach(lambda y: f(y, *args), z, solver, one_step, order)


def _attach(f: Map, z: Tensor, solver: Callable[..., Result] | None, one_step: bool, order: int) -> Tensor:
    point = z.detach()
    if order == 2 and not one_step:
        # Its own first derivative cancels in the Newton step, (1 - J)^{-1} (J - 1) = -1, and gives the second one its share.
        point = _attach(f, z, solver, False, 0)
    gap = check_map(f, "f", point) - point
    if not gap.requires_grad:
        return point
    return point + (gap - gap.detach() if one_step else _NewtonStep.apply(gap, point, f, solver, order))


def implicit_root(
    residual: Callable[..., Tensor],
    z: Float[Tensor, "batch *shape"],
    *args: Any,
    solver: Callable[..., Result] | None = None,
    order: int = 1,
) -> Float[Tensor, "batch *shape"]:
    """Put a root of F(z, θ) = 0 back into the graph: dz/dθ = -(∂F/∂z)^{-1} ∂F/∂θ.

    It is ``implicit`` of f(z) = z - F(z, θ), whose backward pass solves (∂F/∂z)ᵀ w = v; so too for a linear system, F = A x - b. A
    fixed-point solver converges only where f contracts; leave ``solver`` out unless it does.

    Args, Raises: as ``implicit``.
    """
    return implicit(lambda y, *rest: y - residual(y, *rest), z, *args, solver=solver, order=order)

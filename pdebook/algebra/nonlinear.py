"""Nonlinear equations, a batch at a time: fixed points z = f(z) and roots F(z) = 0.

Each sample is an equation of its own: f maps (batch, ...) to (batch, ...) and row i of the result depends on row i of the input
alone. A sample that has converged is left alone while the others go on, so its solution does not depend on them. Every
iteration reads one flag from the device and nothing else.

| solver | equation | an iteration |
|---|---|---|
| ``picard`` | z = f(z) | a step towards f(z) |
| ``anderson`` | z = f(z) | the best combination of the last m steps |
| ``broyden`` | z = f(z) | a step with an inverse Jacobian that learns from each step |
| ``newton`` | F(z) = 0 | a linear solve with the Jacobian: dense for few unknowns, GMRES for many |

The solvers run without a graph; ``implicit`` puts a solution back into it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.algebra.krylov import gmres
from pdebook.algebra.results import Norm, Result, Status, check_start, check_tolerances, euclidean

__all__ = [
    "anderson",
    "broyden",
    "check_map",
    "dense_jacobian",
    "dense_solver",
    "krylov_solver",
    "newton",
    "picard",
]

Map = Callable[[Tensor], Tensor]
LinearSolver = Callable[[Tensor, Tensor], Tensor]
"""(z, r) to d with J(z) d = r, sample by sample; a sample that has no such d gets NaN."""


def check_map(f: Map, name: str, z: Tensor) -> Tensor:
    """f(z); ValueError if it changes the shape."""
    image = f(z)
    if image.shape != z.shape:
        raise ValueError(f"{name} must keep the shape {tuple(z.shape)}, got {tuple(image.shape)}")
    return image


def _iterate(
    solver: str,
    z: Tensor,
    gap: Tensor,
    advance: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    small: Callable[[Tensor, Tensor, Tensor], Tensor],
    norm: Norm,
    max_iterations: int,
    raise_on_failure: bool,
) -> Result:
    """Repeat (z, gap) = advance(z, gap) until ``small(gap's norm, z, new gap)`` holds; samples that have ended are frozen."""
    batch, shape = len(z), (-1, *[1] * (z.ndim - 1))
    size = norm(gap)
    finite = size.isfinite()
    done = small(size, z, gap) & finite
    iterations = torch.zeros(batch, dtype=torch.int64, device=z.device)
    history = [size]
    for _ in range(max_iterations):
        active = finite & ~done
        if not bool(active.any()):
            break
        new, new_gap = advance(z, gap)
        new_size = norm(new_gap)
        finite = finite & (new_size.isfinite() | ~active)
        moved = active & finite
        done = done | (moved & small(new_size, new, new_gap))
        z, gap = torch.where(moved.view(shape), new, z), torch.where(moved.view(shape), new_gap, gap)
        size = torch.where(moved, new_size, size)
        iterations += active
        history.append(size)
    status = torch.full_like(iterations, Status.MAX_ITERATIONS)
    status[done] = Status.CONVERGED
    status[~finite] = Status.NOT_FINITE
    result = Result(z, size, torch.stack(history), iterations, status)
    return result.checked(solver) if raise_on_failure else result


def _fixed_point(
    solver: str,
    f: Map,
    z0: Tensor,
    step: Callable[[Tensor, Tensor], Tensor],
    rtol: float | int | None,
    atol: float | int,
    norm: Norm,
    max_iterations: int,
    raise_on_failure: bool,
) -> Result:
    """Iterate z to ``step(z, f(z) - z)``."""
    check_start("z0", z0)
    relative = check_tolerances(rtol, atol, max_iterations, z0.dtype)

    def gap(z: Tensor) -> Tensor:
        return check_map(f, "f", z) - z

    def advance(z: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        new = step(z, g)
        return new, gap(new)

    def small(size: Tensor, z: Tensor, g: Tensor) -> Tensor:
        return size <= atol + relative * norm(z + g)

    return _iterate(solver, z0, gap(z0), advance, small, norm, max_iterations, raise_on_failure)


@torch.no_grad()
def picard(
    f: Map,
    z0: Float[Tensor, "batch *shape"],
    *,
    damping: float | int = 1.0,
    rtol: float | int | None = None,
    atol: float | int = 0.0,
    norm: Norm = euclidean,
    max_iterations: int = 1000,
    raise_on_failure: bool = True,
) -> Result:
    """Fixed point by z_{k+1} = z_k + β (f(z_k) - z_k).

    Converges for β = 1 where f contracts, with the rate of its Lipschitz constant q; in general with the largest
    |1 - β + β λ| over the eigenvalues λ of ∂f/∂z. A sample ends when |f(z) - z| <= atol + rtol |f(z)|.

    Args:
        f: map of (batch, ...) to itself, sample by sample.
        z0: where to begin.
        damping: β > 0.
        rtol: relative tolerance, ε^(2/3) of the dtype if left out.
        atol: absolute tolerance.
        norm: norm of each sample, (batch, ...) to (batch,).
        max_iterations: largest number of iterations.
        raise_on_failure: raise if a sample fails; otherwise read ``status``.
    Returns:
        Fixed points, with the norms of f(z) - z.
    Raises:
        ValueError: z0 not finite, damping, tolerances or counts out of range, f changes the shape.
        NotConverged: some samples failed; the message counts and names them.
    """
    if not damping > 0:
        raise ValueError(f"damping must be positive, got {damping}")
    return _fixed_point(
        "picard", f, z0, lambda z, g: z + damping * g, rtol, atol, norm, max_iterations, raise_on_failure
    )


@torch.no_grad()
def anderson(
    f: Map,
    z0: Float[Tensor, "batch *shape"],
    *,
    memory: int = 5,
    ridge: float | int = 1e-10,
    damping: float | int = 1.0,
    rtol: float | int | None = None,
    atol: float | int = 0.0,
    norm: Norm = euclidean,
    max_iterations: int = 200,
    raise_on_failure: bool = True,
) -> Result:
    """Fixed point by Anderson acceleration: z_{k+1} = z_k + β g_k - (ΔZ + β ΔG) γ with g = f(z) - z.

    The columns of ΔZ and ΔG are the last m differences of z and g, and γ minimises |g_k - ΔG γ|² + ridge · mean |ΔG_i|² |γ|².
    For a linear f and no limit on m it is GMRES, one step late. Args, Returns and Raises: as ``picard``, and

    Args:
        memory: m >= 1, differences that are kept.
        ridge: regularisation of the least squares problem, relative.
        damping: β > 0.
    Source: Anderson 1965; Walker and Ni 2011, section 2.
    """
    if memory < 1:
        raise ValueError(f"memory must be at least 1, got {memory}")
    if not (damping > 0 and ridge >= 0):
        raise ValueError(f"damping must be positive and ridge not negative, got {damping} and {ridge}")
    tiny = torch.finfo(z0.dtype).tiny
    last: list[Tensor] = []
    steps: list[Tensor] = []
    gaps: list[Tensor] = []

    def step(z: Tensor, g: Tensor) -> Tensor:
        if last:
            steps.append((z - last[0]).flatten(1) if z.ndim > 1 else (z - last[0])[:, None])
            gaps.append((g - last[1]).flatten(1) if z.ndim > 1 else (g - last[1])[:, None])
            del steps[:-memory], gaps[:-memory]
        last[:] = [z, g]
        if not steps:
            return z + damping * g
        columns, flat = torch.stack(gaps, 1), g.reshape(len(g), -1)
        gram = torch.einsum("bki,bli->bkl", columns, columns)
        diagonal = gram.diagonal(dim1=1, dim2=2)
        # The tiny number keeps the system of a frozen sample, whose differences are zero, regular.
        diagonal += (ridge * diagonal.mean(1) + tiny)[:, None]
        weights, _ = torch.linalg.solve_ex(gram, torch.einsum("bki,bi->bk", columns, flat))
        change = damping * flat - torch.einsum("bk,bki->bi", weights, torch.stack(steps, 1) + damping * columns)
        return z + change.reshape(z.shape)

    return _fixed_point("anderson", f, z0, step, rtol, atol, norm, max_iterations, raise_on_failure)


@torch.no_grad()
def broyden(
    f: Map,
    z0: Float[Tensor, "batch *shape"],
    *,
    memory: int = 30,
    rtol: float | int | None = None,
    atol: float | int = 0.0,
    norm: Norm = euclidean,
    max_iterations: int = 200,
    raise_on_failure: bool = True,
) -> Result:
    """Fixed point by Broyden's first method for g(z) = f(z) - z = 0: z_{k+1} = z_k - H_k g_k.

    H begins with -I, so that the first step is Picard's, and is kept as a sum of rank-one terms:

        H_{k+1} = H_k + (Δz - H_k Δg) (Δzᵀ H_k) / (Δzᵀ H_k Δg)

    For a linear f on n unknowns it ends in at most 2 n steps. An update by a vanishing denominator is left out; when ``memory``
    terms are full the sum begins anew. Args, Returns and Raises: as ``picard``, and

    Args:
        memory: rank-one terms that are kept, two vectors each.
    Source: Broyden 1965; Gay 1979 for the 2 n steps.
    """
    if memory < 1:
        raise ValueError(f"memory must be at least 1, got {memory}")
    tiny = torch.finfo(z0.dtype).tiny
    last: list[Tensor] = []
    left: list[Tensor] = []
    right: list[Tensor] = []

    def inverse(v: Tensor, columns: list[Tensor], rows: list[Tensor]) -> Tensor:
        if not columns:
            return -v
        return (
            torch.einsum("bki,bk->bi", torch.stack(columns, 1), torch.einsum("bki,bi->bk", torch.stack(rows, 1), v)) - v
        )

    def step(z: Tensor, g: Tensor) -> Tensor:
        flat = g.reshape(len(g), -1)
        if last:
            if len(left) == memory:
                left.clear()
                right.clear()
            dz, dg = z.reshape(flat.shape) - last[0], flat - last[1]
            row = inverse(dz, right, left)
            scale = (row * dg).sum(1, keepdim=True)
            usable = scale.abs() > tiny
            left.append(torch.where(usable, (dz - inverse(dg, left, right)) / torch.where(usable, scale, 1.0), 0.0))
            right.append(row)
        last[:] = [z.reshape(flat.shape), flat]
        return z - inverse(flat, left, right).reshape(z.shape)

    return _fixed_point("broyden", f, z0, step, rtol, atol, norm, max_iterations, raise_on_failure)


def dense_jacobian(f: Map, z: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch m n"]:
    """∂f/∂z of each sample, flattened, by one forward-mode product for each of the n unknowns, all at once.

    f may hold data of its batch, since it is always called with the whole batch; it must work under ``torch.func.vmap``.
    """
    directions = torch.eye(z[0].numel(), dtype=z.dtype, device=z.device).reshape(-1, 1, *z.shape[1:])

    def product(v: Tensor) -> Tensor:
        return torch.func.jvp(f, (z,), (v.expand_as(z),))[1]

    columns = torch.func.vmap(product)(directions)
    return columns.reshape(len(columns), len(z), -1).movedim(0, 2)


def dense_solver(f: Map) -> LinearSolver:
    """Newton's linear solve with the dense Jacobian of f, by elimination; NaN where that is singular."""

    def solve(z: Tensor, r: Tensor) -> Tensor:
        solution, info = torch.linalg.solve_ex(dense_jacobian(f, z), r.reshape(len(r), -1))
        return torch.where((info == 0)[:, None], solution, torch.nan).reshape(r.shape)

    return solve


def krylov_solver(f: Map, rtol: float | int = 1e-4, **options: Any) -> LinearSolver:
    """Newton's linear solve by GMRES with Jacobian-vector products of f; ``options`` go to ``krylov.gmres``."""

    def solve(z: Tensor, r: Tensor) -> Tensor:
        # A frozen or failed sample must not stop the others.
        right = torch.where(r.isfinite(), r, 0.0)
        product = gmres(lambda v: torch.func.jvp(f, (z,), (v,))[1], right, rtol=rtol, raise_on_failure=False, **options)
        return product.x

    return solve


@torch.no_grad()
def newton(
    residual: Map,
    z0: Float[Tensor, "batch *shape"],
    *,
    solver: LinearSolver | None = None,
    dense_limit: int = 64,
    line_search: int = 0,
    stop: Literal["residual", "step"] = "residual",
    rtol: float | int | None = None,
    atol: float | int = 0.0,
    norm: Norm = euclidean,
    max_iterations: int = 50,
    raise_on_failure: bool = True,
) -> Result:
    """Root of F(z) = 0 by Newton's method: z_{k+1} = z_k - t J(z_k)^{-1} F(z_k), with t = 1 unless a line search shortens it.

    Quadratic near a regular root. A chord method is a ``solver`` that keeps the factors of one Jacobian. A sample ends by

    - "residual": |F(z)| <= max(atol, rtol |F(z_0)|), or
    - "step": the last full step |d| <= atol + rtol |z|. For stiff problems, where F is the error magnified by a large
      Jacobian and its rounding errors alone exceed a tolerance for z.

    Args:
        residual: F, a map of (batch, ...) to the same shape, sample by sample; it must be differentiable in forward mode.
        z0: where to begin.
        solver: (z, r) to d with J(z) d = r; if left out ``dense_solver`` up to ``dense_limit`` unknowns, else ``krylov_solver``.
        dense_limit: largest number of unknowns for the dense Jacobian.
        line_search: how often t may be halved until |F(z - t d)| <= (1 - t/10⁴) |F(z)|; each trial costs an evaluation.
        stop: which of the two tests ends a sample.
        rtol: relative tolerance, ε^(2/3) of the dtype if left out.
        atol: absolute tolerance.
        norm: norm of each sample, (batch, ...) to (batch,).
        max_iterations: largest number of iterations.
        raise_on_failure: raise if a sample fails; otherwise read ``status``.
    Returns:
        Roots, with the norms of F(z). A sample whose step or residual was not finite keeps its last finite iterate.
    Raises:
        ValueError: z0 not finite, tolerances or counts out of range, F changes the shape, an unknown ``stop``.
        NotConverged: some samples failed; the message counts and names them.
    Source: Kelley, Iterative Methods for Linear and Nonlinear Equations, chapters 5, 6 and 8.
    """
    check_start("z0", z0)
    relative = check_tolerances(rtol, atol, max_iterations, z0.dtype)
    if line_search < 0:
        raise ValueError(f"line_search must not be negative, got {line_search}")
    if stop not in ("residual", "step"):
        raise ValueError(f"stop must be 'residual' or 'step', got {stop!r}")
    evaluate = partial(check_map, residual, "residual")
    solve = solver or (dense_solver if z0[0].numel() <= dense_limit else krylov_solver)(evaluate)
    start = evaluate(z0)
    limit = (relative * norm(start)).clamp(min=float(atol))
    shape = (-1, *[1] * (z0.ndim - 1))
    step = torch.full_like(limit, torch.inf)

    def advance(z: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal step
        d = solve(z, r)
        step = norm(d)
        new = z - d
        new_r = evaluate(new)
        scale, size = torch.ones_like(step), norm(r)
        for _ in range(line_search):
            short = ~(norm(new_r) <= (1 - 1e-4 * scale) * size) & (size > 0)
            if not bool(short.any()):
                break
            scale = torch.where(short, 0.5 * scale, scale)
            new = z - scale.view(shape) * d
            new_r = evaluate(new)
        return new, new_r

    def small(size: Tensor, z: Tensor, r: Tensor) -> Tensor:
        if stop == "residual":
            return size <= limit
        return (size == 0) | (step <= atol + relative * norm(z))

    return _iterate("newton", z0, start, advance, small, norm, max_iterations, raise_on_failure)

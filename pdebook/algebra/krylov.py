"""Krylov methods: linear systems A x = b of which only the products A v are known, a batch at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

from pdebook.algebra.results import Result, Status, check_start, check_tolerances, euclidean

__all__ = ["gmres"]


@torch.no_grad()
def gmres(
    operator: Callable[[Tensor], Tensor],
    b: Shaped[Tensor, "batch *shape"],
    x0: Shaped[Tensor, "..."] | None = None,
    *,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    rtol: float | int | None = None,
    atol: float | int = 0.0,
    restart: int = 30,
    max_iterations: int = 300,
    raise_on_failure: bool = True,
) -> Result:
    """Restarted GMRES: after j iterations x_j minimises |b - A x| over x_0 + M K_j, K_j = span{r_0, A M r_0, ..., (A M)^{j-1} r_0}.

    Each sample is a system of its own. One that has converged, |b - A x| <= max(atol, rtol |b|), is left alone while the others
    go on, so its solution does not depend on them. The preconditioner M ≈ A^{-1} acts on the right, so all residuals are those of
    the system itself. The basis is orthogonalised twice by classical Gram-Schmidt; the only host synchronisation is one flag an
    iteration. Memory: ``restart + 1`` vectors a sample. A nonsingular system of n unknowns takes at most n iterations
    without a restart; with one, an indefinite system may stagnate.

    The solution carries no graph: hand it to ``implicit.implicit_root`` with the residual A x - b for gradients.

    Args:
        operator: v to A v, linear, both of shape (batch, ...), sample by sample; real or complex.
        b: right-hand sides.
        x0: initial guesses, zero if left out.
        preconditioner: v to M v, a fixed linear map.
        rtol: relative tolerance, ε^(2/3) of the dtype if left out; a smaller one than rounding allows is never met.
        atol: absolute tolerance on the Euclidean norm.
        restart: iterations between restarts.
        max_iterations: largest number of iterations, all restarts together.
        raise_on_failure: raise if a sample fails; otherwise read ``status``.
    Returns:
        Solutions. ``history`` holds the norms that the recurrence gives, ``residual`` the true ones at the end.
    Raises:
        ValueError: b or x0 not finite or of another shape, tolerances or counts out of range, an operator that changes the shape.
        NotConverged: a sample used up the iterations, met values that are not finite, or broke down on a singular operator.
    Source: Saad and Schultz 1986; Saad, Iterative Methods for Sparse Linear Systems, algorithms 6.11 and 9.5.
    """
    check_start("b", b, complex_too=True)
    rtol = check_tolerances(rtol, atol, max_iterations, b.dtype)
    if restart < 1:
        raise ValueError(f"restart must be at least 1, got {restart}")
    if x0 is not None:
        check_start("x0", x0, complex_too=True)
        if x0.shape != b.shape:
            raise ValueError(f"x0 must have the shape of b, {tuple(b.shape)}, got {tuple(x0.shape)}")
    batch, size = len(b), b[0].numel()
    restart = min(restart, size)

    def apply(function: Callable[[Tensor], Tensor], v: Tensor, name: str) -> Tensor:
        image = function(v.reshape(b.shape))
        if image.shape != b.shape:
            raise ValueError(f"{name} must keep the shape {tuple(b.shape)}, got {tuple(image.shape)}")
        if image.dtype != b.dtype:
            raise ValueError(f"{name} must keep the dtype {b.dtype}, got {image.dtype}")
        return image.reshape(batch, size)

    def precondition(v: Tensor) -> Tensor:
        return v if preconditioner is None else apply(preconditioner, v, "preconditioner")

    target = b.reshape(batch, size)
    limit = (rtol * euclidean(target)).clamp(min=float(atol))
    x = torch.zeros_like(target) if x0 is None else x0.reshape(batch, size).to(b.dtype)
    residual = target if x0 is None else target - apply(operator, x, "operator")
    norm = euclidean(residual)
    broken = torch.zeros_like(norm, dtype=torch.bool)
    finite = norm.isfinite()
    active = finite & (norm > limit)
    iterations = torch.zeros_like(norm, dtype=torch.int64)
    history, done = [norm], 0
    while done < max_iterations and bool(active.any()):
        cycle = min(restart, max_iterations - done)
        correction, estimates, used, failed = _cycle(
            lambda v: apply(operator, precondition(v), "operator"), residual, norm, limit, active, cycle
        )
        done += len(estimates)
        history += estimates
        iterations += used
        new = x + precondition(correction)
        new_residual = target - apply(operator, new, "operator")
        new_norm = euclidean(new_residual)
        finite = finite & (new_norm.isfinite() | ~active)
        moved = active & finite
        x, residual = torch.where(moved[:, None], new, x), torch.where(moved[:, None], new_residual, residual)
        norm = torch.where(moved, new_norm, norm)
        broken = broken | (failed & (norm > limit))
        active = active & finite & ~broken & (norm > limit)
    status = torch.full_like(iterations, Status.MAX_ITERATIONS)
    status[norm <= limit] = Status.CONVERGED
    status[broken] = Status.BREAKDOWN
    status[~finite] = Status.NOT_FINITE
    result = Result(x.reshape(b.shape), norm, torch.stack(history), iterations, status)
    return result.checked("gmres") if raise_on_failure else result


def _cycle(
    apply: Callable[[Tensor], Tensor], residual: Tensor, norm: Tensor, limit: Tensor, active: Tensor, steps: int
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """One cycle between restarts: the correction before the preconditioner, estimated norms, steps used, breakdowns."""
    batch, size = residual.shape
    safe = torch.where(norm > 0, norm, 1.0)
    basis = residual.new_zeros(batch, steps + 1, size)
    basis[:, 0] = residual / safe[:, None]
    # The Hessenberg matrix is triangularised as it grows: ``rotation`` is the product of all Givens rotations so far.
    triangle = torch.eye(steps, dtype=residual.dtype, device=residual.device).repeat(batch, 1, 1)
    rotation = torch.eye(steps + 1, dtype=residual.dtype, device=residual.device).repeat(batch, 1, 1)
    used = torch.zeros(batch, steps, dtype=torch.bool, device=residual.device)
    failed = torch.zeros_like(active)
    running, estimate, estimates = active, norm, []
    for j in range(steps):
        w = apply(basis[:, j])
        known = basis[:, : j + 1]
        column = residual.new_zeros(batch, steps + 1)
        for _ in range(2):
            overlap = torch.einsum("bki,bi->bk", known.conj(), w)
            column[:, : j + 1] += overlap
            w = w - torch.einsum("bk,bki->bi", overlap, known)
        below = euclidean(w)
        column[:, j + 1] = below
        length = euclidean(column)
        column = torch.einsum("bij,bj->bi", rotation, column)
        a, c = column[:, j], column[:, j + 1]
        rho = torch.hypot(a.abs(), c.abs())
        # A new column that vanishes, but for rounding, means that A M is singular on the space.
        singular = rho <= 10 * torch.finfo(norm.dtype).eps * length
        failed = failed | (running & singular)
        running = running & ~singular
        rho = torch.where(rho > 0, rho, 1.0)
        upper = (a.conj() / rho)[:, None] * rotation[:, j] + (c.conj() / rho)[:, None] * rotation[:, j + 1]
        lower = (a / rho)[:, None] * rotation[:, j + 1] - (c / rho)[:, None] * rotation[:, j]
        rotation[:, j] = torch.where(running[:, None], upper, rotation[:, j])
        rotation[:, j + 1] = torch.where(running[:, None], lower, rotation[:, j + 1])
        triangle[:, :j, j] = torch.where(running[:, None], column[:, :j], triangle[:, :j, j])
        triangle[:, j, j] = torch.where(running, rho.to(column.dtype), triangle[:, j, j])
        used[:, j] = running
        estimate = torch.where(running, norm * rotation[:, j + 1, 0].abs(), estimate)
        estimates.append(estimate)
        running = running & (estimate > limit)
        basis[:, j + 1] = torch.where(running[:, None], w / torch.where(below > 0, below, 1.0)[:, None], 0.0)
        if not bool(running.any()):
            break
    right = torch.where(used, rotation[:, :steps, 0] * norm[:, None], 0.0)
    weights = torch.linalg.solve_triangular(triangle, right[..., None], upper=True)[..., 0]
    return torch.einsum("bk,bki->bi", weights, basis[:, :steps]), estimates, used.sum(1), failed

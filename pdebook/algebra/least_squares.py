"""Nonlinear least squares, a batch of small problems at a time: min |r(x)|² + ρ |x|²."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.algebra.nonlinear import dense_jacobian
from pdebook.algebra.results import Result, Status, check_start, check_tolerances, euclidean

__all__ = ["levenberg_marquardt", "per_point"]

Linearise = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x, shape (batch, p), to residuals r, shape (batch, m), and their Jacobians ∂r/∂x, shape (batch, m, p)."""


def per_point(function: Callable[..., Tensor], *data: Shaped[Tensor, "batch points ..."]) -> Linearise:
    """Linearisation of residuals that belong to points, r_k(x) = function(x, data_1[k], data_2[k], ...).

    The gradient is taken for each point apart, all at once: a row of the Jacobian costs one reverse pass through a single point,
    where reverse mode on all the residuals together would pass through all points for each of them.

    Args:
        function: (x of shape (p,), one point's data) to that point's residual, a number or a vector.
        data: what belongs to the points of each problem, shape (batch, points, ...).
    """

    def residual(x: Tensor, *point: Tensor) -> tuple[Tensor, Tensor]:
        value = function(x, *point).reshape(-1)
        return value, value

    points = torch.func.vmap(torch.func.jacrev(residual, has_aux=True), (None, *[0] * len(data)))
    problems = torch.func.vmap(points)

    def linearise(x: Tensor) -> tuple[Tensor, Tensor]:
        jacobian, value = problems(x, *data)
        return value.flatten(1), jacobian.flatten(1, 2)

    return linearise


@torch.no_grad()
def levenberg_marquardt(
    residual: Callable[[Tensor], Tensor] | None,
    x0: Float[Tensor, "batch p"],
    *,
    linearise: Linearise | None = None,
    damping: float | int = 1e-2,
    decay: float | int = 0.0,
    rtol: float | int | None = None,
    atol: float | int = 0.0,
    max_iterations: int = 100,
    raise_on_failure: bool = True,
) -> Result:
    """Minimum of |r(x)|² + ρ |x|² by damped Gauss-Newton steps, (Jᵀ J + (μ + ρ) 1) s = Jᵀ r + ρ x, x to x - s.

    Each sample is a problem of its own with its own damping: μ falls to a third, not below 1e-10, after a step that lowers the
    objective; otherwise the step is not taken and μ grows threefold. Each iteration evaluates r and J once for all samples and
    reads one flag from the device. A sample ends when its step, taken or not, has |s| <= atol + rtol |x|. A column of J that
    vanishes, for an unknown that a sample does not use, leaves that unknown alone.

    Args:
        residual: r, a map of (batch, p) to (batch, m), sample by sample; its Jacobian is taken in forward mode, one product for
            each of the p unknowns. It may be None if ``linearise`` is given.
        x0: where to begin.
        linearise: x to (r, J), where there is a cheaper way to the Jacobian, such as ``per_point``.
        damping: μ > 0 to begin with.
        decay: ρ >= 0.
        rtol: relative tolerance of the step, ε^(2/3) of the dtype if left out.
        atol: absolute tolerance of the step.
        max_iterations: largest number of steps, taken or not.
        raise_on_failure: raise if a sample fails; otherwise read ``status``. A search that takes a few steps only wants False.
    Returns:
        Minimisers, with the norms |r|, without the decay. A sample that is not finite at the start keeps x0 and says so.
    Raises:
        ValueError: x0 not finite, neither residual nor linearise, damping, decay, tolerances or counts out of range.
        NotConverged: some samples failed; the message counts and names them.
    Source: Levenberg 1944; Marquardt 1963.
    """
    check_start("x0", x0)
    if x0.ndim != 2 or not x0.shape[1]:
        raise ValueError(f"x0 must have shape (batch, p) with an unknown at least, got {tuple(x0.shape)}")
    relative = check_tolerances(rtol, atol, max_iterations, x0.dtype)
    if not (damping > 0 and decay >= 0):
        raise ValueError(f"damping must be positive and decay not negative, got {damping} and {decay}")
    if linearise is None:
        if residual is None:
            raise ValueError("residual or linearise must be given, got neither")
        function = residual

        def linearise(x: Tensor) -> tuple[Tensor, Tensor]:
            return function(x), dense_jacobian(function, x)

    x = x0
    r, jacobian = linearise(x)
    if r.shape[0] != len(x) or jacobian.shape != (*r.shape, x.shape[1]):
        raise ValueError(
            f"residuals must have shape (batch, m) and Jacobians (batch, m, p) for x0 of shape {tuple(x.shape)}; "
            f"got {tuple(r.shape)} and {tuple(jacobian.shape)}"
        )
    objective = r.square().sum(1) + decay * x.square().sum(1)
    finite = objective.isfinite() & jacobian.isfinite().flatten(1).all(1)
    done = torch.zeros_like(finite)
    mu = torch.full_like(objective, damping)
    unit = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    history = [euclidean(r)]
    for _ in range(max_iterations):
        active = finite & ~done
        if not bool(active.any()):
            break
        normal = jacobian.mT @ jacobian + (mu + decay)[:, None, None] * unit
        factor, failed = torch.linalg.cholesky_ex(normal)
        right = (r[:, None] @ jacobian)[:, 0] + decay * x
        step = torch.cholesky_solve(right[..., None], factor)[..., 0]
        step = torch.where((failed == 0)[:, None], step, torch.nan)
        new = x - step
        new_r, new_jacobian = linearise(new)
        new_objective = new_r.square().sum(1) + decay * new.square().sum(1)
        better = active & (new_objective < objective) & new_jacobian.isfinite().flatten(1).all(1)
        done = done | (active & (euclidean(step) <= atol + relative * euclidean(x)))
        x, r = torch.where(better[:, None], new, x), torch.where(better[:, None], new_r, r)
        jacobian = torch.where(better[:, None, None], new_jacobian, jacobian)
        objective = torch.where(better, new_objective, objective)
        mu = torch.where(better, (mu / 3).clamp(min=1e-10), 3 * mu)
        iterations += active
        history.append(euclidean(r))
    status = torch.full_like(iterations, Status.MAX_ITERATIONS)
    status[done] = Status.CONVERGED
    status[~finite] = Status.NOT_FINITE
    result = Result(x, history[-1], torch.stack(history), iterations, status)
    return result.checked("levenberg_marquardt") if raise_on_failure else result

"""Conjugate gradients for Hermitian systems A x = b that are known by the products A v, a batch at a time.

| solver | A | preconditioner | an iteration |
|---|---|---|---|
| ``conjugate_gradient`` | positive definite | fixed, positive definite | one product, three vectors kept |
| ``flexible_conjugate_gradient`` | positive definite | anything, also a network | one product, 2 m + 3 vectors kept |

Each sample is a system of its own; one that has ended is left alone while the others go on, so its solution does not depend on
them. The solutions carry no graph: hand them to ``implicit.implicit_root`` for gradients. A semidefinite A does as well, if b and
the preconditioner's images are orthogonal to its kernel.
"""

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

from pdebook.algebra.results import Result, Status, check_start, check_tolerances, euclidean

__all__ = ["conjugate_gradient", "flexible_conjugate_gradient"]

Product = Callable[[Tensor], Tensor]


def _inner(x: Tensor, y: Tensor) -> Tensor:
    """x* y of each sample."""
    return torch.linalg.vecdot(x.flatten(1), y.flatten(1)) if x.ndim > 1 else x.conj() * y


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Re x* y of each sample."""
    product = _inner(x, y)
    return product.real if product.is_complex() else product


class LinearSystem:
    """The checked input of a solver, and what all of them keep count of."""

    def __init__(
        self,
        solver: str,
        operator: Product,
        b: Tensor,
        x0: Tensor | None,
        preconditioner: Product | None,
        rtol: float | int | None,
        atol: float | int,
        max_iterations: int,
    ) -> None:
        check_start("b", b, complex_too=True)
        rtol = check_tolerances(rtol, atol, max_iterations, b.dtype)
        if x0 is not None:
            check_start("x0", x0, complex_too=True)
            if x0.shape != b.shape:
                raise ValueError(f"x0 must have the shape of b, {tuple(b.shape)}, got {tuple(x0.shape)}")
            if x0.is_complex() and not b.is_complex():
                raise ValueError("x0 must be real, as b is")
        self.solver, self.b, self.max_iterations = solver, b, max_iterations
        self._operator, self._preconditioner = operator, preconditioner
        self.column = (-1, *[1] * (b.ndim - 1))
        self.limit = (rtol * euclidean(b)).clamp(min=float(atol))
        self.x = torch.zeros_like(b) if x0 is None else x0.to(b.dtype, copy=True)
        self.residual = b.clone() if x0 is None else b - self.product(self.x)
        self.norm = euclidean(self.residual)
        self.finite = self.norm.isfinite()
        self.broken = torch.zeros_like(self.finite)
        self.iterations = torch.zeros(len(b), dtype=torch.int64, device=b.device)
        self.history = [self.norm]

    def _apply(self, function: Product, name: str, v: Tensor) -> Tensor:
        image = function(v)
        if image.shape != self.b.shape:
            raise ValueError(f"{name} must keep the shape {tuple(self.b.shape)}, got {tuple(image.shape)}")
        if image.dtype != self.b.dtype:
            raise ValueError(f"{name} must keep the dtype {self.b.dtype}, got {image.dtype}")
        return image

    def product(self, v: Tensor) -> Tensor:
        """A v."""
        return self._apply(self._operator, "operator", v)

    def precondition(self, r: Tensor) -> Tensor:
        """M r."""
        return r if self._preconditioner is None else self._apply(self._preconditioner, "preconditioner", r)

    def settle(self) -> None:
        """Put the true residual b - A x in the place of the recurrence's, and see what rounding allows where it is too large."""
        residual = self.b - self.product(self.x)
        norm = euclidean(residual)
        good = norm.isfinite()
        self.residual = torch.where(good.view(self.column), residual, self.residual)
        self.norm = torch.where(good, norm, self.norm)
        if bool(self.active.any()):
            # x is known to relative roundings of changing sign; A makes them a residual.
            number = torch.arange(self.b[0].numel(), device=self.b.device).view(self.b.shape[1:])
            signs = torch.where((number * 0.6180339887498949) % 1.0 < 0.5, 1.0, -1.0).to(self.norm.dtype)
            noise = 2 * torch.finfo(self.norm.dtype).eps * euclidean(self.product(self.x * signs))
            self.limit = torch.where(noise.isfinite(), torch.maximum(self.limit, noise), self.limit)

    @property
    def active(self) -> Tensor:
        """Samples that go on."""
        return self.finite & ~self.broken & (self.norm > self.limit)

    def left(self) -> int:
        """Iterations left."""
        return self.max_iterations - len(self.history) + 1

    def record(self, active: Tensor) -> None:
        """Count an iteration of the active samples."""
        self.iterations += active
        self.history.append(self.norm)

    def result(self, raise_on_failure: bool) -> Result:
        """What came out."""
        status = torch.full_like(self.iterations, Status.MAX_ITERATIONS)
        status[self.norm <= self.limit] = Status.CONVERGED
        status[self.broken & (self.norm > self.limit)] = Status.BREAKDOWN
        status[~self.finite] = Status.NOT_FINITE
        result = Result(self.x, self.norm, torch.stack(self.history), self.iterations, status)
        return result.checked(self.solver) if raise_on_failure else result


@torch.no_grad()
def conjugate_gradient(
    operator: Product,
    b: Shaped[Tensor, "batch *shape"],
    x0: Shaped[Tensor, "..."] | None = None,
    *,
    preconditioner: Product | None = None,
    rtol: float | int | None = None,
    atol: float | int = 0.0,
    max_iterations: int = 1000,
    raise_on_failure: bool = True,
) -> Result:
    """Conjugate gradients: x_j minimises (x - x*)* A (x - x*) over x_0 + span{M r_0, ..., (M A)^{j-1} M r_0}.

        |x_j - x*|_A <= 2 ((√κ - 1)/(√κ + 1))^j |x_0 - x*|_A,   κ the ratio of the largest to the smallest eigenvalue of M A.

    A sample has converged when |b - A x| <= max(atol, rtol |b|) holds for the true residual, or when the roundings of x alone make
    up the residual, as they do on fine grids in single precision. Where the recurrence has drifted from the true residual, the method
    begins anew from there. One flag is read from the device an iteration, and nothing else.

    Args:
        operator: v to A v, Hermitian and positive definite, both of shape (batch, ...), sample by sample; real or complex.
        b: right-hand sides.
        x0: initial guesses, zero if left out.
        preconditioner: r to M r ≈ A^{-1} r, linear, fixed, Hermitian and positive definite.
        rtol: relative tolerance, ε^(2/3) of the dtype if left out.
        atol: absolute tolerance on the Euclidean norm.
        max_iterations: largest number of iterations.
        raise_on_failure: raise if a sample fails; otherwise read ``status``.
    Returns:
        Solutions. ``history`` holds the norms that the recurrence gives, ``residual`` the true ones at the end.
    Raises:
        ValueError: b or x0 not finite or of another shape, tolerances or counts out of range, a map that changes the shape.
        NotConverged: a sample used up the iterations, met values that are not finite, or broke down: v* A v or r* M r was not
            positive.
    Source: Hestenes and Stiefel 1952; Saad, Iterative Methods for Sparse Linear Systems, algorithm 9.1.
    """
    system = LinearSystem("conjugate_gradient", operator, b, x0, preconditioner, rtol, atol, max_iterations)
    column = system.column
    while system.left() > 0 and bool((active := system.active).any()):
        z = system.precondition(system.residual)
        rho = _dot(system.residual, z)
        p = torch.where(active.view(column), z, 0.0)
        while True:
            image = system.product(p)
            curvature = _dot(p, image)
            system.finite = system.finite & ((curvature.isfinite() & rho.isfinite()) | ~active)
            system.broken = system.broken | (active & system.finite & ((curvature <= 0) | (rho <= 0)))
            active = active & system.finite & ~system.broken
            alpha = torch.where(active, rho / curvature, 0.0).view(column)
            # p is finite and zero where a sample has ended; A p may be neither.
            system.x = torch.addcmul(system.x, alpha.to(b.dtype), p)
            residual = torch.addcmul(system.residual, -alpha.to(b.dtype), image)
            system.residual = torch.where(active.view(column), residual, system.residual)
            system.norm = torch.where(active, euclidean(system.residual), system.norm)
            system.record(active)
            active = active & (system.norm > system.limit)
            if system.left() <= 0 or not bool(active.any()):
                break
            z = system.precondition(system.residual)
            new = _dot(system.residual, z)
            beta = torch.where(active, new / rho, 0.0).view(column)
            p = torch.where((active & new.isfinite()).view(column), torch.addcmul(z, beta.to(b.dtype), p), 0.0)
            rho = new
        system.settle()
    return system.result(raise_on_failure)


@torch.no_grad()
def flexible_conjugate_gradient(
    operator: Product,
    b: Shaped[Tensor, "batch *shape"],
    x0: Shaped[Tensor, "..."] | None = None,
    *,
    preconditioner: Product | None = None,
    memory: int | None = 2,
    rtol: float | int | None = None,
    atol: float | int = 0.0,
    max_iterations: int = 1000,
    raise_on_failure: bool = True,
) -> Result:
    """Conjugate directions from any proposal: d = M(r), made A-orthogonal to the last m directions, and a step r*d / d*A d along it.

    Whatever the proposal, the error in the norm of A falls in each step, |e_{k+1}|_A² = |e_k|_A² - (r*d)²/(d*A d). With a fixed linear
    positive definite M and m >= 1 it is ``conjugate_gradient``; without a preconditioner, plain CG. M may be nonlinear or change
    from step to step: a network, an inner iteration, a multigrid cycle that is not symmetric. It is handed the residual itself;
    a network that expects unit length scales for itself. A sample whose direction vanishes or has no positive d*A d has broken down.

    Args:
        operator, b, x0, rtol, atol, max_iterations, raise_on_failure: as ``conjugate_gradient``.
        preconditioner: r to a direction, (batch, ...) to the same shape, sample by sample.
        memory: m, the number of directions kept; None for all, at the cost of two vectors an iteration.
    Returns, Raises: as ``conjugate_gradient``; ValueError also for a negative memory.
    Source: Notay, Flexible conjugate gradients, SIAM J. Sci. Comput. 2000.
    """
    if memory is not None and memory < 0:
        raise ValueError(f"memory must not be negative, got {memory}")
    system = LinearSystem("flexible_conjugate_gradient", operator, b, x0, preconditioner, rtol, atol, max_iterations)
    column = system.column
    while system.left() > 0 and bool((active := system.active).any()):
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        while True:
            d = torch.where(active.view(column), system.precondition(system.residual), 0.0)
            for old, old_image, old_curvature in reversed(kept):  # modified Gram-Schmidt, the most recent first
                weight = _inner(old_image, d) / old_curvature
                d = torch.addcmul(d, -weight.view(column), old)
            image = system.product(d)
            curvature = _dot(d, image)
            system.finite = system.finite & (curvature.isfinite() | ~active)
            system.broken = system.broken | (active & system.finite & (curvature <= 0))
            active = active & system.finite & ~system.broken
            shown = active.view(column)
            d, image = torch.where(shown, d, 0.0), torch.where(shown, image, 0.0)
            curvature = torch.where(active, curvature, 1.0)
            alpha = torch.where(active, _inner(d, system.residual) / curvature, 0.0).view(column)
            system.x = torch.addcmul(system.x, alpha, d)
            system.residual = torch.addcmul(system.residual, -alpha, image)
            system.norm = torch.where(active, euclidean(system.residual), system.norm)
            system.record(active)
            active = active & (system.norm > system.limit)
            if system.left() <= 0 or not bool(active.any()):
                break
            kept.append((d, image, curvature))
            kept = kept if memory is None else kept[len(kept) - min(memory, len(kept)) :]
        system.settle()
    return system.result(raise_on_failure)

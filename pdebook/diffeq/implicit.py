"""Diagonally implicit Runge-Kutta methods for stiff equations: each stage is solved for by Newton's method."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from pdebook.algebra.implicit import implicit_root
from pdebook.algebra.krylov import gmres
from pdebook.algebra.nonlinear import dense_jacobian, newton
from pdebook.algebra.results import Status
from pdebook.diffeq.butcher import ButcherTableau
from pdebook.diffeq.runge_kutta import Carry, Step, TableauMethod, interpolate, stage_times, step_size
from pdebook.diffeq.terms import Bound

_NEWTON_SHARE = 0.01
"""Error of a stage's solution as a part of the tolerance of a step."""


@lru_cache(maxsize=64)
def _polynomials(tableau: ButcherTableau, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.as_tensor(tableau.interpolation, device=device).to(dtype)


@dataclass(frozen=True)
class DiagonallyImplicit(TableauMethod):
    """A Runge-Kutta method whose stages are implicit one after the other, with an explicit first stage.

        k_i = f(t + c_i h, Y_i),   Y_i = y + h Σ_{j<i} a_ij k_j + h γ k_i

    Y_i is found by a chord Newton method: one Jacobian a step, dense up to ``dense_limit`` numbers and factored once, matrix-free
    with GMRES above. A step whose Newton iteration fails is rejected, and repeated with a smaller h; on a fixed grid its result is
    NaN, so that the solve fails. Gradients go through the solutions by the implicit function theorem, not through the iterations.
    The field must allow forward-mode differentiation.

    Args:
        tableau: coefficients with one diagonal value γ.
        dense_limit: largest state for a dense Jacobian.
        max_iterations: most Newton iterations for a stage; by default 10 where a smaller step can be tried, 50 on a fixed grid.
        rtol: relative tolerance of the state, of which each stage gets a hundredth; the step size controller's is taken over.
        atol: absolute tolerance, likewise.
    Raises:
        ValueError: a tableau without implicit stages, or limits that are not positive.
    Source: Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.8.
    """

    dense_limit: int = 64
    max_iterations: int | None = None
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        if not self.tableau.implicit:
            raise ValueError(f"tableau must be implicit, {self.tableau.name} is not; use RungeKutta")
        if self.dense_limit < 0 or (self.max_iterations is not None and self.max_iterations < 1):
            raise ValueError("dense_limit must not be negative and max_iterations at least 1")

    def adapted(self, tolerances: tuple[float, float]) -> "DiagonallyImplicit":
        """The method with Newton tolerances that fit those of the steps."""
        if self.rtol is not None or self.atol is not None:
            return self
        return replace(self, rtol=tolerances[0], atol=tolerances[1])

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step; the last stage is the field at its end."""
        times, h = stage_times(self.tableau, t0, t1, t1 - t0), step_size(t0, t1, y)
        a = self.tableau.stage_matrix
        gamma = float(a.diagonal().max()) * h
        # A trajectory at rest has h = 0: nothing is solved there, and k stays what it is.
        divisor = torch.where(gamma == 0, torch.ones_like(gamma), gamma)
        solve = self._linear_solver(bound, t0, y.detach(), gamma.detach())
        stages, ok = [carry[0]], torch.ones(len(y), dtype=torch.bool, device=y.device)
        new = y
        for i in range(1, self.tableau.stages):
            base = y + h * sum(float(a[i, j]) * k for j, k in enumerate(stages) if a[i, j])
            new, fine = self._stage(bound, times[i], base, gamma, stages[-1], y, solve)
            ok &= fine
            stages.append(torch.where(gamma == 0, carry[0], (new - base) / divisor))
        estimate = None
        if self.adaptive:
            estimate = h * sum(e * k for e, k in zip(self.tableau.b_error, stages, strict=True) if e)
        new = torch.where(ok[:, None], new, torch.nan)
        return Step(new, estimate, (stages[-1],), h * torch.stack(stages), ok)

    def interpolate(self, step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor) -> Tensor:
        """The cubic Hermite interpolant; at the end of the step its very result."""
        return interpolate(_polynomials(self.tableau, y0.dtype, y0.device), step, y0, t0, t1, rows, times)

    def _stage(
        self,
        bound: Bound,
        t: Tensor,
        base: Tensor,
        gamma: Tensor,
        slope: Tensor,
        y: Tensor,
        solve: Callable[[Tensor, Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Solve Y = base + h γ f(t, Y); Y and where that went well."""
        rtol, atol = self._newton_tolerances(y.dtype)
        scale = y.detach().abs() * rtol + atol
        root = math.sqrt(y.shape[1])

        def residual(z: Tensor) -> Tensor:
            return z - base - gamma * bound.field(t, z)

        def norm(v: Tensor) -> Tensor:
            return torch.linalg.vector_norm(v / scale, dim=1) / root

        with torch.no_grad():
            guess = base + gamma * slope
            finite = guess.isfinite().all(1)
            found = newton(
                residual,
                torch.where(finite[:, None], guess, y),
                solver=solve,
                stop="step",
                atol=_NEWTON_SHARE,
                norm=norm,
                max_iterations=self.max_iterations or (50 if self.rtol is None and self.atol is None else 10),
                raise_on_failure=False,
            )
        fine = finite & (found.status == Status.CONVERGED)
        if torch.is_grad_enabled():
            return implicit_root(residual, found.x), fine
        return found.x, fine

    def _newton_tolerances(self, dtype: torch.dtype) -> tuple[float, float]:
        eps = torch.finfo(dtype).eps
        # Without a controller: what rounding leaves room for.
        return (self.rtol or eps**0.75, self.atol or eps**0.75)

    def _linear_solver(self, bound: Bound, t: Tensor, y: Tensor, gamma: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """(z, r) to (1 - h γ J)^{-1} r with the Jacobian J at the start of the step."""

        def field(z: Tensor) -> Tensor:
            return bound.field(t, z)

        if y.shape[1] <= self.dense_limit:
            with torch.no_grad():
                matrix = torch.eye(y.shape[1], dtype=y.dtype, device=y.device) - gamma[..., None] * dense_jacobian(
                    field, y
                )
                # A matrix that is not finite can't be factored; the sample's step is rejected.
                finite = matrix.isfinite().flatten(1).all(1)[:, None, None]
                factors = torch.linalg.lu_factor_ex(torch.where(finite, matrix, torch.eye(y.shape[1]).to(matrix)))

            def dense(z: Tensor, r: Tensor) -> Tensor:
                solution = torch.linalg.lu_solve(factors.LU, factors.pivots, r[..., None])[..., 0]
                return torch.where(finite[..., 0], solution, torch.nan)

            return dense

        def krylov(z: Tensor, r: Tensor) -> Tensor:
            right = torch.where(r.isfinite(), r, 0.0)

            def product(v: Tensor) -> Tensor:
                return v - gamma * torch.func.jvp(field, (y,), (v,))[1]

            return gmres(product, right, rtol=1e-3, raise_on_failure=False).x

        return krylov

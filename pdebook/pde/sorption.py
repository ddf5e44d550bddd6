"""Diffusion with sorption: a solute moves slowly through soil, which holds back the more of it the less there is.

    ∂_t u = D/R(u) ∂_xx u,    R(u) = 1 + (1-φ)/φ ρ_s k n_f (u + ε)^{n_f - 1},    ε = 10^{-6}

R, Freundlich's retardation, grows from 3 at u = 1 to 13 at u = 0: fronts are steep and explicit steps tiny. The dissolved and
the sorbed amount together, S(u) = ∫ R du, obey a conservation law, ∂_t S(u) = D ∂_xx u, and it is this law that is stepped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.algebra.results import check_start
from pdebook.algebra.structured import tridiagonal_product, tridiagonal_solve
from pdebook.algebra.transforms import check_precision
from pdebook.pde.failure import Diverged, listed
from pdebook.pde.grid import Grid

__all__ = ["Sorption"]

_GAMMA = 1.0 - math.sqrt(0.5)


@dataclass(frozen=True)
class Sorption:
    """∂_t u = D/R(u) ∂_xx u with u = ``left`` at the lower end and the outflow u + D ∂_x u = 0 at the upper one.

    The paper prints u = D ∂_x u for the outflow. With that sign the end feeds the box: u = e^{(x-L)/D} grows like e^{t/(R D)}, more
    than e^{150 t} for its numbers, so nothing can be computed; its data were made with the sign above.

    Attributes:
        diffusivity: D > 0, a number or one for each sample.
        porosity: φ in (0, 1).
        bulk_density: ρ_s.
        factor: k, Freundlich's coefficient.
        exponent: n_f in (0, 1].
        left: value of u at the lower end.
        walls: "ends" holds the conditions on the ends themselves, to second order; "released" as PDEBench's data do: the left
            value at the ghost centre half a cell outside, and D (u_{N-2} - u_{N-1})/h as the ghost value on the right.
    Raises:
        ValueError: parameters out of range, or other walls.
    """

    diffusivity: float | int | Tensor = 5e-4
    porosity: float = 0.29
    bulk_density: float | int = 2880.0
    factor: float = 3.5e-4
    exponent: float | int = 0.874
    left: float | int | Tensor = 1.0
    walls: str = "ends"

    def __post_init__(self) -> None:
        d, left = torch.as_tensor(self.diffusivity), torch.as_tensor(self.left)
        if not bool(((d > 0) & d.isfinite()).all()):
            raise ValueError(f"diffusivity must be positive and finite, got {self.diffusivity}")
        if not bool(((left >= 0) & left.isfinite()).all()):
            raise ValueError(f"left must be finite and not negative, got {self.left}")
        sorbed = 0 <= self.bulk_density < math.inf and 0 <= self.factor < math.inf
        if not 0 < self.porosity < 1 or not 0 < self.exponent <= 1 or not sorbed:
            raise ValueError(
                "porosity must be in (0, 1), exponent in (0, 1], bulk_density and factor not negative, got "
                f"{self.porosity}, {self.exponent}, {self.bulk_density}, {self.factor}"
            )
        if self.walls not in ("ends", "released"):
            raise ValueError(f"walls must be 'ends' or 'released', got {self.walls!r}")

    @property
    def _scale(self) -> float:
        return (1 - self.porosity) / self.porosity * self.bulk_density * self.factor

    def retardation(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """R(u), held at R(0) for u < 0."""
        return 1.0 + self._scale * self.exponent * (u.clamp(min=0.0) + 1e-6) ** (self.exponent - 1)

    def storage(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """S(u) = u + (1-φ)/φ ρ_s k (u + ε)^{n_f}, continued in a line for u < 0; S' = R."""
        positive = u.clamp(min=0.0)
        slope = 1.0 + self._scale * self.exponent * 1e-6 ** (self.exponent - 1)
        return positive + self._scale * (positive + 1e-6) ** self.exponent + slope * (u - positive)

    def _laplacian(self, grid: Grid, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """D ∂_xx u as three diagonals and a source, shape (batch or 1, cells)."""

        def column(value: float | int | Tensor, name: str) -> Tensor:
            tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
            if tensor.ndim > 1 or (tensor.ndim and len(tensor) not in (1, len(like))):
                raise ValueError(
                    f"{name} must be a number or one for each of the {len(like)} samples, got {tuple(tensor.shape)}"
                )
            return tensor.reshape(-1, 1)

        n, h = grid.size[0], grid.spacing[0]
        d, left = column(self.diffusivity, "diffusivity"), column(self.left, "left")
        ones = torch.ones(1, n, dtype=like.dtype, device=like.device)
        first, last = torch.zeros_like(ones), torch.zeros_like(ones)
        first[0, 0], last[0, -1] = 1.0, 1.0
        lower, upper, diagonal = ones - first, ones - last, -2.0 * ones
        if self.walls == "ends":
            # Ghosts 2 left - u_0, and u_{N-1} (D/h - 1/2)/(D/h + 1/2) from (u + ghost)/2 + D (ghost - u)/h = 0.
            source = 2.0 * left * first
            diagonal = diagonal - first + last * (d / h - 0.5) / (d / h + 0.5)
        else:
            source = left * first
            diagonal, lower = diagonal - last * d / h, lower + last * d / h
        scale = d / h**2
        return scale * lower, scale * diagonal, scale * upper, scale * source

    def _check(self, u: Tensor, grid: Grid, name: str) -> None:
        """Raise ValueError unless u is a field on a line of two cells at least."""
        if grid.dims != 1:
            raise ValueError(f"grid must be a line, got {grid.dims} axes")
        grid.check(u, name, 1)
        check_precision(u, name)
        if grid.size[0] < 2:
            raise ValueError(f"grid must have 2 cells at least, got {grid.size[0]}")

    def rhs(self, u: Shaped[Tensor, "*shape"], grid: Grid) -> Float[Tensor, "*shape"]:
        """∂_t u for the method of lines."""
        self._check(u, grid, "u")
        lower, diagonal, upper, source = self._laplacian(grid, u)
        flow = tridiagonal_product(lower, diagonal, upper, u[:, 0]) + source
        return (flow / self.retardation(u[:, 0]))[:, None]

    def solve(
        self,
        u0: Shaped[Tensor, "batch 1 n"],
        grid: Grid,
        times: Sequence[float | int],
        *,
        steps: int = 10,
        method: str = "sdirk2",
        newton: int = 12,
        tolerance: float | None = None,
    ) -> Float[Tensor, "batch times n"]:
        """States at the times, from t = 0, by implicit steps with Newton's method on the tridiagonal system.

            S(U) - Δt γ D ∂_xx U = S(u) + known,    S(u⁺) = S(u) + what flowed in

        S is concave and the Laplacian of the right sign, so Newton's iterates, from wherever they start, climb to the one solution
        from the second on: it needs no damping. ``euler`` (first order) keeps 0 <= u <= max(left, u0) exactly for any step;
        ``sdirk2`` (second order, damping) nearly. Solutions have gradients with respect to u0, diffusivity and left value.

        Args:
            u0: start at centres.
            grid: a line.
            times: increasing, the first one positive; the unit of PDEBench is such that 500 is the end.
            steps: steps from one time to the next; those before the first time grow from tiny ones, since the start does
                not match the left end.
            method: "sdirk2" or "euler".
            newton: largest number of Newton steps.
            tolerance: of Newton's last step, in u; 30 roundings if left out.
        Raises:
            ValueError: a start that is not finite, negative or of another shape, times that do not increase, an unknown method.
            pdebook.pde.failure.Diverged: a sample whose Newton iteration did not converge; the message names step, time and samples.
        """
        self._check(u0, grid, "u0")
        check_start("u0", u0.detach())
        if bool((u0 < 0).any()):
            raise ValueError(f"u0 must not be negative, got {float(u0.min()):.3g}")
        points = [0.0, *map(float, times)]
        if len(points) < 2 or any(not a < b < math.inf for a, b in pairwise(points)):
            raise ValueError(f"times must be positive and increase, got {list(times)}")
        if method not in ("sdirk2", "euler"):
            raise ValueError(f"method must be 'sdirk2' or 'euler', got {method!r}")
        if not isinstance(steps, int) or not isinstance(newton, int) or steps < 1 or newton < 1:
            raise ValueError(f"steps and newton must be integers, at least 1, got {steps} and {newton}")
        if tolerance is not None and not 0 < tolerance < math.inf:
            raise ValueError(f"tolerance must be positive, got {tolerance}")
        limit = 30 * torch.finfo(u0.dtype).eps if tolerance is None else tolerance
        flow = self._laplacian(grid, u0)
        u, ends, states = u0[:, 0], [], []
        bad = torch.zeros(len(u0), dtype=torch.int64, device=u0.device)
        for number, (start, stop) in enumerate(pairwise(points)):
            # Cubes of equal steps where the start is rough.
            marks = [(i / steps) ** (3 if number == 0 else 1) for i in range(steps + 1)]
            for a, b in pairwise(marks):
                dt = (b - a) * (stop - start)
                u, good = self._step(u, flow, dt, method, newton, limit)
                ends.append(start + b * (stop - start))
                bad = torch.where((bad == 0) & ~good, len(ends), bad)
            states.append(u)
        result = torch.stack(states, 1)
        first_bad = bad.cpu()
        failed = first_bad.nonzero().flatten().tolist()
        if failed:
            step = int(first_bad[failed].min())
            raise Diverged(
                f"Newton's iteration failed for {len(failed)} of {len(u0)} samples (samples {listed(failed)}), first in step {step}, "
                f"which ends at t = {ends[step - 1]:.6g}; take more steps or more Newton steps than {newton}",
                first_bad,
                result,
            )
        return result

    def _step(
        self, u: Tensor, flow: tuple[Tensor, ...], dt: float, method: str, newton: int, limit: float
    ) -> tuple[Tensor, Tensor]:
        """The state after Δt, and which samples' iterations converged."""
        before = self.storage(u)
        if method == "euler":
            return self._implicit(u, before, flow, dt, newton, limit)
        middle, good = self._implicit(u, before, flow, _GAMMA * dt, newton, limit)
        gained = self.storage(middle) - before
        end, good_too = self._implicit(
            middle, before + (1 - _GAMMA) / _GAMMA * gained, flow, _GAMMA * dt, newton, limit
        )
        return end, good & good_too

    def _implicit(
        self, u: Tensor, known: Tensor, flow: tuple[Tensor, ...], dt: float, newton: int, limit: float
    ) -> tuple[Tensor, Tensor]:
        """U with S(U) - Δt (D ∂_xx U) = known, from the guess u."""

        def change(guess: Tensor, parts: tuple[Tensor, ...], right: Tensor) -> Tensor:
            low, middle, high, extra = parts
            gap = self.storage(guess) - dt * (tridiagonal_product(low, middle, high, guess) + extra) - right
            slope = self.retardation(guess.detach())
            return tridiagonal_solve(-dt * low.detach(), slope - dt * middle.detach(), -dt * high.detach(), gap)

        with torch.no_grad():
            guess = u.detach()
            for _ in range(newton):
                step = change(guess, flow, known)
                guess = guess - step
                good = step.abs().amax(1) <= limit * (1.0 + guess.abs().amax(1))
                if bool(good.all()):
                    break
        # One more Newton step carries the gradient of the implicit solution.
        return guess - change(guess, flow, known), good

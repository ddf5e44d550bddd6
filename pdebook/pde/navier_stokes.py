"""Incompressible flow on periodic grids: the vorticity equation of the plane, the velocity equation in two and three dimensions."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.pde.equation import Number, Semilinear
from pdebook.pde.grid import Grid
from pdebook.pde.spectral import Spectral

__all__ = ["NavierStokes", "Vorticity", "kolmogorov"]


class Vorticity(Semilinear):
    """Two-dimensional flow by its vorticity ω = ∂v/∂x - ∂u/∂y.

        ω_t + u·∇ω + β v = ν Δω - α ω + s,    (u, v) = (∂ψ/∂y, -∂ψ/∂x),    -Δψ = ω

    One channel; the mean of ω is free, the mean velocity is zero. β is the gradient of the planet's rotation: single waves
    e^{i k·x} move with frequency -β k_x/|k|² (Rossby). The forces of ``spectral_refiner``, ``sinenet`` and PDEBench-like
    data are sources; for a Kolmogorov flow see ``kolmogorov``.

    Args:
        grid: periodic grid of two dimensions.
        viscosity: ν, not negative.
        drag: α, linear friction.
        beta: β.
        dissipation: a further rate of decay as a function of |k|², such as ``lambda k2: 1e-8 * k2**2``.
        source: s, a force's curl: (batch or 1, 1, *grid), or a function of time.
        options: see ``Semilinear``.
    """

    def __init__(
        self,
        grid: Grid,
        viscosity: Number = 1e-3,
        *,
        drag: Number = 0.0,
        beta: Number = 0.0,
        dissipation: Callable[[Tensor], Tensor] | None = None,
        **options: Any,
    ) -> None:
        if grid.dims != 2:
            raise ValueError(f"grid must have two dimensions, got {grid.size}; see NavierStokes for three")
        super().__init__(grid, 1, degree=2, **options)
        self.add("viscosity", viscosity, nonnegative=True)
        self.add("drag", drag)
        self.add("beta", beta)
        self.dissipation = dissipation
        ik, stream = self.basis.gradient_symbol, self.basis.inverse_laplacian_symbol
        # (-u, -v, ω_x, ω_y) of ω: the signs give -u·∇ω by two products.
        self._fields = torch.stack([ik[1] * stream, -ik[0] * stream, ik[0], ik[1]])

    def linear(self, basis: Spectral) -> Tensor:
        """-ν|k|² - α + iβ k_x/|k|²."""
        p = self.parameters
        symbol = p["viscosity"] * basis.laplacian_symbol - p["drag"]
        if self.dissipation is not None:
            symbol = symbol - self.dissipation(-basis.laplacian_symbol)
        if isinstance(p["beta"], Tensor) or p["beta"]:
            symbol = symbol - p["beta"] * basis.gradient_symbol[0] * basis.inverse_laplacian_symbol
        return symbol

    def nonlinear(self, c: Tensor, t: float) -> Tensor:
        """-u·∇ω: four inverse transforms at once, one forward."""
        u, v, slope_x, slope_y = self.basis.fields(self._symbols(c), c)
        return self.basis.forward(torch.addcmul(u * slope_x, v, slope_y))

    def _symbols(self, like: Tensor) -> Tensor:
        key = ("fields", like.dtype, like.device)
        if key not in self._cache:
            self._cache[key] = self.basis.arranged(self._fields.to(device=like.device, dtype=like.dtype))
        return self._cache[key]

    def speed(self, u: Float[Tensor, "batch 1 x y"]) -> Float[Tensor, "batch 2 x y"]:
        """The velocity of a vorticity."""
        return self.basis.velocity(u)


class NavierStokes(Semilinear):
    """Incompressible flow by its velocity, in two or three dimensions.

        u_t + (u·∇)u = -∇p + ν Δu - α u + s,    ∇·u = 0

    A channel for each axis. The pressure is what the projection takes away: N = P(u × ω), P of ``Spectral.leray``. A start and
    a source that are not free of divergence are projected first. The mean velocity is free.

    Args:
        grid: periodic grid of two or three dimensions.
        viscosity: ν, not negative.
        drag: α, linear friction.
        source: s, a force (batch or 1, dims, *grid), or a function of time.
        options: see ``Semilinear``.
    """

    def __init__(self, grid: Grid, viscosity: Number = 1e-3, *, drag: Number = 0.0, **options: Any) -> None:
        if grid.dims == 1:
            raise ValueError(f"grid must have two or three dimensions, got {grid.size}")
        super().__init__(grid, grid.dims, degree=2, **options)
        self.add("viscosity", viscosity, nonnegative=True)
        self.add("drag", drag)

    def linear(self, basis: Spectral) -> Tensor:
        """-ν|k|² - α."""
        return self.parameters["viscosity"] * basis.laplacian_symbol - self.parameters["drag"]

    def prepare(self, c: Tensor, basis: Spectral) -> Tensor:
        """The divergence-free part."""
        return basis.leray_of(c)

    def nonlinear(self, c: Tensor, t: float) -> Tensor:
        """u × ω, all transforms of a direction at once; ``tendency`` projects it."""
        basis, d = self.basis, self.grid.dims
        f = basis.inverse(torch.cat([c, basis.vorticity_of(c)], 1))
        u, w = f[:, :d], f[:, d:]
        if d == 2:
            return basis.forward(torch.cat([u[:, 1:] * w, -u[:, :1] * w], 1))
        return basis.forward(torch.linalg.cross(u, w, dim=1))

    def tendency(self, c: Tensor, t: float) -> Tensor | None:
        """P(u × ω + s)."""
        total = super().tendency(c, t)
        assert total is not None
        return self.basis.leray_of(total)

    def speed(self, u: Tensor) -> Tensor:
        """u."""
        return u


def kolmogorov(
    grid: Grid, mode: int = 4, amplitude: float | int = 1.0, *, of: str = "vorticity"
) -> Float[Tensor, "1 channel *grid"]:
    """Kolmogorov's force as a source: a force A sin(κ y) along x, κ = 2π mode / L_y; its curl is -A κ cos(κ y).

    Args:
        grid: grid of two or three dimensions; y is its second axis, from the origin on.
        mode: number of waves along y, at least 1.
        amplitude: A.
        of: "vorticity", for ``Vorticity`` (two dimensions), or "velocity", for ``NavierStokes``.
    Raises:
        ValueError: a mode that the grid doesn't hold, another kind, or a grid of the wrong dimension.
    """
    if of not in ("vorticity", "velocity"):
        raise ValueError(f"of must be 'vorticity' or 'velocity', got {of!r}")
    if grid.dims == 1 or (of == "vorticity" and grid.dims != 2):
        raise ValueError(f"grid must have two dimensions (or three, for the velocity), got {grid.size}")
    if not 1 <= mode < grid.size[1] / 2:
        raise ValueError(f"mode must be from 1 to less than {grid.size[1]}/2, got {mode}")
    kappa = 2 * math.pi * mode / grid.length[1]
    y = grid.coordinates("nodes")[1] - grid.origin[1]
    if of == "vorticity":
        return (-amplitude * kappa * torch.cos(kappa * y)).expand(grid.size)[None, None].clone()
    force = torch.zeros(1, grid.dims, *grid.size, dtype=torch.float64)
    force[:, 0] = amplitude * torch.sin(kappa * y)
    return force

"""Semilinear equations of one or a few fields: transport, waves that steepen, patterns and fronts.

Each is a ``Semilinear``; hand it to a ``semilinear.Stepper``. Parameters are numbers, or tensors (batch,) with one for each sample.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdebook.pde.equation import Number, Semilinear, stacked
from pdebook.pde.grid import Grid
from pdebook.pde.spectral import Spectral

__all__ = [
    "EQUATIONS",
    "Advection",
    "AllenCahn",
    "Burgers",
    "Diffusion",
    "FisherKPP",
    "FitzHughNagumo",
    "GrayScott",
    "KortewegDeVries",
    "KuramotoSivashinsky",
    "ReactionDiffusion",
]


class Advection(Semilinear):
    """Transport with a constant velocity, and diffusion if wanted.

        u_t + a·∇u = ν Δu

    Every channel is carried alike: u(x, t) = u_0(x - a t) where ν is zero, exactly at any step.

    Args:
        grid: periodic grid.
        velocity: a: one number for all axes, or one for each; each may be a tensor (batch,).
        diffusivity: ν, not negative.
        channels: number of channels.
        options: see ``Semilinear``.
    """

    def __init__(
        self,
        grid: Grid,
        velocity: Number | Sequence[Number] = 1.0,
        diffusivity: Number = 0.0,
        *,
        channels: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(grid, channels, **options)
        parts = [velocity] * grid.dims if isinstance(velocity, (float, int, Tensor)) else list(velocity)
        if len(parts) != grid.dims:
            raise ValueError(f"velocity must be one or {grid.dims}, one for each axis, got {len(parts)}")
        for axis, part in enumerate(parts):
            self.add(f"velocity[{axis}]", part)
        self.add("diffusivity", diffusivity, nonnegative=True)

    def linear(self, basis: Spectral) -> Tensor:
        """-i a·k - ν|k|²."""
        symbol = self.parameters["diffusivity"] * basis.laplacian_symbol
        for axis, ik in enumerate(basis.gradient_symbol):
            symbol = symbol - self.parameters[f"velocity[{axis}]"] * ik
        return symbol


class Diffusion(Semilinear):
    """Heat.

        u_t = ν Δu

    Args:
        grid: periodic grid.
        diffusivity: ν, not negative.
        channels: number of channels.
        options: see ``Semilinear``.
    """

    def __init__(self, grid: Grid, diffusivity: Number = 1.0, *, channels: int = 1, **options: Any) -> None:
        super().__init__(grid, channels, **options)
        self.add("diffusivity", diffusivity, nonnegative=True)

    def linear(self, basis: Spectral) -> Tensor:
        """-ν|k|²."""
        return self.parameters["diffusivity"] * basis.laplacian_symbol


class _Convection(Semilinear):
    """What carries itself: N = -c (u·∇)u, a channel for each axis; in one dimension -c (u²/2)_x."""

    def __init__(self, grid: Grid, convection: Number, **options: Any) -> None:
        super().__init__(grid, grid.dims, degree=2, **options)
        self.add("convection", convection)

    def nonlinear(self, c: Tensor, t: float) -> Tensor:
        """-c (u·∇)u."""
        basis, ik = self.basis, self.basis.constant("gradient", c)
        scale = self.cast("convection", c)
        if self.grid.dims == 1:
            u = basis.inverse(c)
            flux = basis.constant("flux", c)
            return basis.forward(u * u) * (flux if isinstance(scale, float) and scale == 1.0 else flux * scale)
        d = self.grid.dims
        slopes = (ik * c.unsqueeze(2)).flatten(1, 2)
        fields = basis.inverse(torch.cat([c, slopes], 1))
        u, slopes = fields[:, :d], fields[:, d:].unflatten(1, (d, d))
        return basis.forward((slopes * u.unsqueeze(1)).sum(2) * -scale)

    def speed(self, u: Tensor) -> Tensor:
        """c u."""
        return self.cast("convection", u) * u


class Burgers(_Convection):
    """Burgers' equation: what moves faster catches up, until viscosity balances the steepening.

        u_t + (u·∇)u = ν Δu,    in one dimension  u_t + (u²/2)_x = ν u_xx

    One channel for each axis. Shocks are about ν/|jump| wide: resolve them, h < ν/max|u|, or the solution rings. Exact solution:
    ``exact.cole_hopf``. PDEBench's file of "Nu" has ν = Nu/π.

    Args:
        grid: periodic grid.
        viscosity: ν, not negative.
        options: see ``Semilinear``.
    """

    def __init__(self, grid: Grid, viscosity: Number = 0.01, **options: Any) -> None:
        super().__init__(grid, 1.0, **options)
        self.add("viscosity", viscosity, nonnegative=True)

    def linear(self, basis: Spectral) -> Tensor:
        """-ν|k|²."""
        return self.parameters["viscosity"] * basis.laplacian_symbol


class KortewegDeVries(_Convection):
    """The Korteweg-de Vries equation: steepening against dispersion, which solitons survive.

        u_t + c (u·∇)u + δ Σ_j ∂_j³ u + μ Σ_j ∂_j⁴ u = 0,    in one dimension  u_t + c u u_x + δ u_xxx + μ u_xxxx = 0

    One channel for each axis. Exact solution for c = 6, δ = 1, μ = 0: ``exact.kdv_solitons``.

    Args:
        grid: periodic grid.
        convection: c.
        dispersion: δ.
        hyperdiffusion: μ, not negative.
        options: see ``Semilinear``.
    """

    def __init__(
        self,
        grid: Grid,
        convection: Number = 6.0,
        dispersion: Number = 1.0,
        hyperdiffusion: Number = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(grid, convection, **options)
        self.add("dispersion", dispersion)
        self.add("hyperdiffusion", hyperdiffusion, nonnegative=True)

    def linear(self, basis: Spectral) -> Tensor:
        """-δ Σ (i k_j)³ - μ Σ k_j⁴."""
        dims = basis.grid.dims
        third, fourth = (
            torch.stack(
                [
                    basis.derivative_symbol([order * (a == b) for b in range(dims)]).expand(basis.modes)
                    for a in range(dims)
                ]
            ).sum(0)
            for order in (3, 4)
        )
        return -(self.parameters["dispersion"] * third) - self.parameters["hyperdiffusion"] * fourth


class KuramotoSivashinsky(Semilinear):
    """The Kuramoto-Sivashinsky equation: long waves grow, short ones decay, and the nonlinear term carries from one to the other.

        "gradient":    u_t + |∇u|²/2 + Δu + Δ²u = 0
        "convection":  u_t + u u_x + u_xx + u_xxxx = 0,  one dimension: the slope of the former

    One channel. Chaotic from lengths of about 22 on (leading Lyapunov exponent 0.05 there, 0.09 at 32π). In the first form the
    mean sinks without bound, and nothing depends on it: it is held at its start.

    Args:
        grid: periodic grid.
        form: "convection" (default in one dimension) or "gradient".
        options: see ``Semilinear``.
    Raises:
        ValueError: another form, or "convection" in more than one dimension.
    """

    def __init__(self, grid: Grid, form: str | None = None, **options: Any) -> None:
        super().__init__(grid, 1, degree=2, **options)
        self.form = form or ("convection" if grid.dims == 1 else "gradient")
        if self.form not in (("convection", "gradient") if grid.dims == 1 else ("gradient",)):
            raise ValueError(f"form must be 'gradient', or in one dimension 'convection', got {form!r}")

    def linear(self, basis: Spectral) -> Tensor:
        """|k|² - |k|⁴."""
        return -basis.laplacian_symbol - basis.laplacian_symbol.square()

    def nonlinear(self, c: Tensor, t: float) -> Tensor:
        """-(u²/2)_x, or -|∇u|²/2 without its mean."""
        basis, ik = self.basis, self.basis.constant("gradient", c)
        if self.form == "convection":
            u = basis.inverse(c)
            return basis.forward(u * u) * basis.constant("flux", c)
        slopes = basis.inverse(ik * c)
        square = (slopes * slopes).sum(1, keepdim=True)
        return -0.5 * basis.forward(square - square.mean(tuple(range(2, square.ndim)), keepdim=True))

    def speed(self, u: Tensor) -> Tensor | None:
        """u, or ∇u."""
        return u if self.form == "convection" else self.basis.gradient(u)


class ReactionDiffusion(Semilinear):
    """Fields that diffuse, each at its rate, and react with each other where they are.

        u_t = D Δu + A u + R(u),    D diagonal, A a matrix of numbers

    Subclasses state ``reaction``, the polynomial R without its linear part, whose degree the dealiasing follows.

    Args:
        grid: periodic grid.
        diffusivity: D of each channel, not negative.
        exchange: A by rows, left out: zero. A diagonal one costs no matrices.
        degree: degree of R.
        options: see ``Semilinear``.
    """

    def __init__(
        self,
        grid: Grid,
        diffusivity: Sequence[Number],
        exchange: Sequence[Sequence[Number]] | None = None,
        *,
        degree: int,
        **options: Any,
    ) -> None:
        super().__init__(grid, channels := len(diffusivity), degree=degree, **options)
        rows = exchange or [[0.0] * channels] * channels
        if len(rows) != channels or any(len(row) != channels for row in rows):
            raise ValueError(
                f"exchange must hold {channels} rows of {channels} numbers, got {[len(row) for row in rows]}"
            )
        for i, (d, row) in enumerate(zip(diffusivity, rows, strict=True)):
            self.add(f"diffusivity[{i}]", d, nonnegative=True)
            for j, a in enumerate(row):
                self.add(f"exchange[{i}][{j}]", a)

    def linear(self, basis: Spectral) -> Tensor:
        """A - D|k|²: a number for each channel and mode, or a matrix for each mode if A couples channels."""
        p, count = self.parameters, self.channels
        zero = torch.zeros(1, 1, *basis.modes, dtype=torch.float64)
        rows = [[zero + p[f"exchange[{i}][{j}]"] for j in range(count)] for i in range(count)]
        for i, row in enumerate(rows):
            row[i] = row[i] + p[f"diffusivity[{i}]"] * basis.laplacian_symbol
        others = [p[f"exchange[{i}][{j}]"] for i in range(count) for j in range(count) if i != j]
        if all(isinstance(a, float) and a == 0 for a in others):
            return stacked([row[i] for i, row in enumerate(rows)])
        return stacked([stacked(row).unsqueeze(1) for row in rows])

    def nonlinear(self, c: Tensor, t: float) -> Tensor:
        """R, worked out on the grid."""
        return self.basis.forward(self.reaction(self.basis.inverse(c)))

    def reaction(self, u: Tensor) -> Tensor:
        """R(u) of fields (batch, channel, *grid)."""
        raise NotImplementedError


class AllenCahn(ReactionDiffusion):
    """The Allen-Cahn equation: two phases, u = 1 and u = -1, and interfaces that shorten.

        u_t = D Δu + r (u - u³)

    Interfaces are sqrt(2D/r) wide.

    Args:
        grid: periodic grid.
        diffusivity: D, not negative.
        rate: r.
        options: see ``Semilinear``.
    """

    def __init__(self, grid: Grid, diffusivity: Number = 1e-3, rate: Number = 1.0, **options: Any) -> None:
        super().__init__(grid, [diffusivity], [[rate]], degree=3, **options)
        self.add("rate", rate)

    def reaction(self, u: Tensor) -> Tensor:
        """-r u³."""
        return -self.cast("rate", u) * (u * u * u)


class FisherKPP(ReactionDiffusion):
    """The Fisher-KPP equation: growth up to 1, and fronts that invade.

        u_t = ν Δu + ρ u (1 - u)

    Fronts move at 2 sqrt(ρν) or faster; one at 5 sqrt(ρν/6) is known exactly (``exact.fisher_wave``).

    Args:
        grid: periodic grid.
        diffusivity: ν, not negative.
        rate: ρ.
        options: see ``Semilinear``.
    """

    def __init__(self, grid: Grid, diffusivity: Number = 1.0, rate: Number = 1.0, **options: Any) -> None:
        super().__init__(grid, [diffusivity], [[rate]], degree=2, **options)
        self.add("rate", rate)

    def reaction(self, u: Tensor) -> Tensor:
        """-ρ u²."""
        return -self.cast("rate", u) * (u * u)


class FitzHughNagumo(ReactionDiffusion):
    """The FitzHugh-Nagumo equations in PDEBench's form: an activator u and an inhibitor v.

        u_t = D_u Δu + u - u³ - k - v
        v_t = D_v Δv + u - v

    Args:
        grid: periodic grid.
        diffusivity: D_u and D_v, not negative.
        threshold: k.
        options: see ``Semilinear``.
    """

    def __init__(
        self, grid: Grid, diffusivity: Sequence[Number] = (1e-3, 5e-3), threshold: Number = 5e-3, **options: Any
    ) -> None:
        if len(diffusivity) != 2:
            raise ValueError(f"diffusivity must hold 2 numbers, got {len(diffusivity)}")
        super().__init__(grid, diffusivity, [[1.0, -1.0], [1.0, -1.0]], degree=3, **options)
        self.add("threshold", threshold)

    def reaction(self, u: Tensor) -> Tensor:
        """(-u³ - k, 0)."""
        first = u[:, :1]
        return torch.cat([-first * first * first - self.cast("threshold", u), torch.zeros_like(first)], 1)


class GrayScott(ReactionDiffusion):
    """The Gray-Scott model: spots that divide, stripes and waves, on a narrow map of (F, κ).

        u_t = D_u Δu - u v² + F (1 - u)
        v_t = D_v Δv + u v² - (F + κ) v

    Args:
        grid: periodic grid.
        diffusivity: D_u and D_v, not negative.
        feed: F.
        kill: κ.
        options: see ``Semilinear``.
    """

    def __init__(
        self,
        grid: Grid,
        diffusivity: Sequence[Number] = (2e-5, 1e-5),
        feed: Number = 0.04,
        kill: Number = 0.06,
        **options: Any,
    ) -> None:
        if len(diffusivity) != 2:
            raise ValueError(f"diffusivity must hold 2 numbers, got {len(diffusivity)}")
        decay = [[-feed, 0.0], [0.0, -(feed + kill)]]
        super().__init__(grid, diffusivity, decay, degree=3, **options)
        self.add("feed", feed, nonnegative=True)
        self.add("kill", kill)

    def reaction(self, u: Tensor) -> Tensor:
        """(F - u v², u v²)."""
        burnt = u[:, :1] * u[:, 1:] * u[:, 1:]
        return torch.cat([self.cast("feed", u) - burnt, burnt], 1)


EQUATIONS: dict[str, type[Semilinear]] = {
    "advection": Advection,
    "diffusion": Diffusion,
    "burgers": Burgers,
    "kdv": KortewegDeVries,
    "kuramoto-sivashinsky": KuramotoSivashinsky,
    "allen-cahn": AllenCahn,
    "fisher-kpp": FisherKPP,
    "fitzhugh-nagumo": FitzHughNagumo,
    "gray-scott": GrayScott,
}
"""The equations of this module by name."""

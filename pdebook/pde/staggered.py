"""Staggered grids (marker and cell): each velocity component lives on the faces that it crosses.

A velocity is a tensor (batch, dims, *size); component j stands on the lower faces along axis j, so that divergence and gradient
are differences of neighbours, are each other's negative transpose, and the projection removes the divergence to rounding. Along an
axis with walls the first face of its component is the lower wall, where it is zero, as it is on the upper wall, which is not stored.
Sides are ``Periodic()``, ``Wall()`` (free slip) or ``dirichlet(w)`` (no slip; the wall moves with w along itself, a number, or one
for each component).

Source: Harlow and Welch 1965.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.algebra.transforms import SeparableLaplacian, check_precision
from pdebook.pde.boundary import Periodic, Robin, Wall, paired
from pdebook.pde.grid import Grid
from pdebook.pde.interpolation import sample

__all__ = ["Number", "Staggered", "column"]

Number = float | int | Tensor


def column(value: Number, v: Tensor) -> Tensor:
    """A number, or one for each sample, shaped to broadcast over fields."""
    column = torch.as_tensor(value, dtype=v.dtype, device=v.device)
    if column.ndim > 1 or (column.ndim and len(column) not in (1, len(v))):
        raise ValueError(f"expected a number or one for each of the {len(v)} samples, got shape {tuple(column.shape)}")
    return column.view(-1, *[1] * (v.ndim - 1)) if column.ndim else column


def _check_amount(amount: Number) -> None:
    if isinstance(amount, (int, float)) and not 0 < amount < math.inf:
        raise ValueError(f"amount must be positive and finite, got {amount}")


def _unit_divergence(laplacian: SeparableLaplacian) -> Tensor:
    """e = (e^{iθ_j} - 1)/h_j over its length, zero for the mean: what ``divergence`` is for the modes of a periodic grid."""
    symbol, parts = laplacian.symbol, []
    for axis, (n, h) in enumerate(zip(laplacian.size, laplacian.spacing, strict=True)):
        theta = 2 * math.pi / n * torch.arange(symbol.shape[axis], dtype=torch.float64, device=symbol.device)
        part = (torch.polar(torch.ones_like(theta), theta) - 1) / h
        parts.append(part.view([-1 if other == axis else 1 for other in range(symbol.ndim)]).expand(symbol.shape))
    return torch.stack(parts) / torch.where(symbol == 0, 1.0, symbol).sqrt()


class Staggered:
    """A staggered grid with its sides: differences, projection, implicit diffusion, interpolation between its faces.

    Attributes:
        grid: the box.
        periodic: which axes close on themselves.
    Args:
        grid: the box.
        boundary: sides as in the module's text, one for all or as in ``paired``.
        device: where the eigenvalues are put.
    Raises:
        ValueError: other conditions, or a moving wall whose velocity does not fit.
    """

    def __init__(self, grid: Grid, boundary: Any = None, *, device: torch.device | str | None = None) -> None:
        self.grid = grid
        if min(grid.size) < 2:
            raise ValueError(f"grid must have 2 cells at least along each axis and between walls, got {grid.size}")
        self._pairs = paired(Periodic() if boundary is None else boundary, grid.dims)
        for axis, pair in enumerate(self._pairs):
            for side in pair:
                no_slip = isinstance(side, Robin) and side.a != 0 and side.b == 0
                if not (isinstance(side, (Periodic, Wall)) or no_slip):
                    raise ValueError(f"boundary must be Periodic, Wall (free slip) or dirichlet (no slip), got {side}")
                for component in range(grid.dims) if no_slip else ():
                    self._wall_speed(side, component, axis)
        self.periodic = tuple(isinstance(pair[0], Periodic) for pair in self._pairs)
        names = ["periodic" if closed else "neumann" for closed in self.periodic]
        self._pressure = SeparableLaplacian(grid.size, grid.spacing, names, device=device)
        self._diffusions = [self._component_laplacian(j, device) for j in range(grid.dims)]
        self._known: dict[Any, tuple[Any, Tensor]] = {}

    def _wall_speed(self, side: Any, component: int, axis: int) -> float:
        """Velocity of a no-slip wall, by component; zero along its normal."""
        value = side.g / side.a if isinstance(side.g, (int, float)) else side.g
        if isinstance(value, (int, float)):
            if not math.isfinite(value):
                raise ValueError(f"boundary must give a wall a finite velocity, got {value}")
            if self.grid.dims == 3 and value != 0:
                raise ValueError(
                    f"boundary must give a moving wall's velocity for each of the 3 components, got {value}"
                )
            return 0.0 if component == axis else float(value)
        if callable(value):
            raise ValueError("boundary must give a moving wall's velocity as numbers, got a function of time")
        speeds = [float(v) / side.a for v in torch.as_tensor(value).flatten().tolist()]
        if len(speeds) != self.grid.dims or speeds[axis] != 0 or not all(map(math.isfinite, speeds)):
            raise ValueError(
                f"boundary must give a moving wall's velocity for each of the {self.grid.dims} components, zero along its "
                f"normal, got {speeds}"
            )
        return speeds[component]

    def _component_laplacian(self, component: int, device: Any) -> SeparableLaplacian:
        names, size = [], list(self.grid.size)
        for axis, pair in enumerate(self._pairs):
            if self.periodic[axis]:
                names.append("periodic")
            elif axis == component:
                names.append("dirichlet-nodes")
                size[axis] -= 1
            else:
                kinds = ["neumann" if isinstance(side, Wall) else "dirichlet" for side in pair]
                names.append(kinds[0] if kinds[0] == kinds[1] else "-".join(kinds))
        return SeparableLaplacian(size, self.grid.spacing, names, device=device)

    def check(self, v: Shaped[Tensor, "..."], name: str = "v") -> None:
        """Raise ValueError unless v is a velocity on this grid."""
        self.grid.check(v, name, self.grid.dims)
        check_precision(v, name)

    def _beyond(self, u: Tensor, component: int, axis: int, below: int, above: int) -> Tensor:
        """A component (batch, *size) with ghosts along an axis."""
        place, n = axis + 1, u.shape[axis + 1]
        if self.periodic[axis]:
            return torch.cat([u.narrow(place, n - below, below), u, u.narrow(place, 0, above)], place)
        if axis == component:  # odd about the walls, of which the upper one comes first
            wall = torch.zeros_like(u.narrow(place, 0, 1))
            lower = -torch.cat([u, wall], place).narrow(place, 1, below).flip(place)
            upper = -u.narrow(place, n - above + 1, above - 1).flip(place) if above > 1 else u.narrow(place, 0, 0)
            return torch.cat([lower, u, wall, upper], place)
        ends = []
        for side, width, start in zip(self._pairs[axis], (below, above), (0, n - above), strict=True):
            mirror = u.narrow(place, start, width).flip(place)
            ends.append(mirror if isinstance(side, Wall) else 2 * self._wall_speed(side, component, axis) - mirror)
        return torch.cat([ends[0], u, ends[1]], place)

    def _wide(self, v: Tensor) -> Tensor:
        """A velocity with two ghosts on every side."""
        for axis, n in enumerate(self.grid.size):
            if self.periodic[axis]:
                v = torch.cat([v.narrow(axis + 2, n - 2, 2), v, v.narrow(axis + 2, 0, 2)], axis + 2)
            else:
                v = torch.stack([self._beyond(v[:, j], j, axis, 2, 2) for j in range(self.grid.dims)], 1)
        return v

    def _inner(self, axis: int | None = None, upper: int | None = None) -> tuple[slice, ...]:
        """Where the ghosts of ``_wide`` are left out but for those along an axis, and one at the upper end of another."""
        places = [slice(2, n + 3 if other == upper else n + 2) for other, n in enumerate(self.grid.size)]
        if axis is not None:
            places[axis] = slice(None)
        return (slice(None), slice(None), *places)

    def _with_upper(self, u: Tensor, axis: int) -> Tensor:
        """A component with its face on the upper end of its own axis."""
        first = u.narrow(axis + 1, 0, 1)
        return torch.cat([u, first if self.periodic[axis] else torch.zeros_like(first)], axis + 1)

    def _wall_is_zero(self, u: Tensor, component: int) -> Tensor:
        """A component whose values on the lower wall of its own axis are set to zero."""
        if self.periodic[component]:
            return u
        inner = u.narrow(component + 1, 1, u.shape[component + 1] - 1)
        return torch.cat([torch.zeros_like(u.narrow(component + 1, 0, 1)), inner], component + 1)

    def clear_walls(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch dims *size"]:
        """v with nothing through the walls."""
        if all(self.periodic):
            return v
        return torch.stack([self._wall_is_zero(v[:, j], j) for j in range(self.grid.dims)], 1)

    def divergence(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch 1 *size"]:
        """∇·v at centres: Σ_j (v_j above - v_j below)/h_j."""
        parts = [torch.diff(self._with_upper(v[:, j], j), dim=j + 1) / h for j, h in enumerate(self.grid.spacing)]
        return sum(parts[1:], parts[0])[:, None]

    def gradient(self, p: Float[Tensor, "batch 1 *size"]) -> Float[Tensor, "batch dims *size"]:
        """∇p on faces, zero on walls: minus the transpose of ``divergence``."""
        parts = []
        for j, h in enumerate(self.grid.spacing):
            q = p[:, 0]
            last = q.narrow(j + 1, q.shape[j + 1] - 1, 1) if self.periodic[j] else q.narrow(j + 1, 0, 1)
            parts.append(torch.diff(torch.cat([last, q], j + 1), dim=j + 1) / h)
        return torch.stack(parts, 1)

    def pressure(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch 1 *size"]:
        """q of mean zero with Δ_h q = ∇·v, so that v - ∇q is free of divergence; q/Δt is the pressure after a step of Δt."""
        symbol = self._pressure.symbol
        factor = self._kept("pressure", None, v.dtype, v, lambda: torch.where(symbol == 0, 0.0, -1.0 / symbol))
        return self._pressure.apply(self.divergence(v), factor)

    def project(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch dims *size"]:
        """The nearest velocity without divergence and without flow through walls: orthogonal, exact to rounding.

        The Laplacian is ∇·∇ as differences have it, (2/h)² sin²(kh/2) in Fourier space; the symbol k² would leave divergence.
        """
        self.check(v)
        if all(self.periodic):
            return self._project_and_diffuse(v)
        v = self.clear_walls(v)
        return v - self.gradient(self.pressure(v))

    def laplacian(self, v: Float[Tensor, "batch dims *size"]) -> Float[Tensor, "batch dims *size"]:
        """Δ_h v component by component, with the walls' conditions; zero on the walls themselves."""
        return self.clear_walls(self._laplacian(self._wide(v)))

    def _laplacian(self, wide: Tensor) -> Tensor:
        """``laplacian`` of what has two ghosts on every side; anything on the walls."""
        total: Any = None
        for axis, (h, n) in enumerate(zip(self.grid.spacing, self.grid.size, strict=True)):
            along, place = wide[self._inner(axis)], axis + 2
            second = torch.diff(along.narrow(place, 1, n + 2), n=2, dim=place)
            total = second.mul_(1 / h**2) if total is None else total.add_(second, alpha=1 / h**2)
        return total

    def diffuse(self, v: Float[Tensor, "batch dims *size"], amount: Number) -> Float[Tensor, "batch dims *size"]:
        """(1 - νΔt Δ_h)^{-1} v, one implicit Euler step of diffusion, for ``amount`` = νΔt > 0, a number or one for each sample.

        Solved for the increment, so that in single precision a small one is not lost in v.
        """
        self.check(v)
        if all(self.periodic):
            return self._pressure.inverse(self._pressure.transform(v) * self._damping(amount, v)).add_(v)
        _check_amount(amount)
        rate = 1.0 / column(amount, v)
        change = self.laplacian(v)
        parts = []
        rate = rate[:, 0] if rate.ndim else rate
        for component, laplacian in enumerate(self._diffusions):
            u = change[:, component]
            if self.periodic[component]:
                parts.append(laplacian.solve(u, rate))
            else:
                place = component + 1
                inner = laplacian.solve(u.narrow(place, 1, u.shape[place] - 1), rate)
                parts.append(torch.cat([torch.zeros_like(u.narrow(place, 0, 1)), inner], place))
        return v + torch.stack(parts, 1)

    def _kept(self, name: str, value: Any, dtype: torch.dtype, v: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` gives, of a type and where v is, kept for the next call with the same value."""
        known = self._known.get((name, dtype, v.device))
        if known is None or known[0] != value:
            with torch.inference_mode(False):
                known = self._known[name, dtype, v.device] = (value, make().to(device=v.device, dtype=dtype))
        return known[1]

    def _damping(self, amount: Number, v: Tensor) -> Tensor:
        """1/(1 + νΔt λ) - 1 for the eigenvalues λ of -Δ_h on a periodic grid."""
        _check_amount(amount)
        symbol, dtype = self._pressure.symbol, v.dtype.to_complex()
        if isinstance(amount, (int, float)):
            return self._kept("damping", amount, dtype, v, lambda: -amount * symbol / (1 + amount * symbol))
        scaled = symbol.to(v.device) * column(amount, v).double()
        return (-scaled / (1 + scaled)).to(dtype)

    def _project_and_diffuse(self, v: Tensor, amount: Number | None = None) -> Tensor:
        """``diffuse`` of ``project``, or the latter alone, on a periodic grid: by one transform and one back.

        With the divergence e·v, |e| = 1, the transform of v - ∇q is v - ē (e·v). Like ``diffuse``, solved for the increment.
        """
        dtype = v.dtype.to_complex()
        unit = self._kept("divergence", None, dtype, v, lambda: _unit_divergence(self._pressure))
        back = self._kept("gradient", None, dtype, v, lambda: -_unit_divergence(self._pressure).conj().resolve_conj())
        c = self._pressure.transform(v)
        change = back * (unit * c).sum(1, keepdim=True)
        if amount is not None:
            damping = self._damping(amount, v)
            change = torch.addcmul(change, damping, c + change)
        return self._pressure.inverse(change).add_(v)

    def at_faces(
        self, v: Float[Tensor, "batch dims *size"], component: int | None
    ) -> Float[Tensor, "batch dims *size"]:
        """All components by linear interpolation at the faces of one, or at centres (None)."""
        parts = []
        for other in range(self.grid.dims):
            u = v[:, other]
            if other != component:
                wide = self._with_upper(u, other)
                u = 0.5 * (
                    wide.narrow(other + 1, 0, u.shape[other + 1]) + wide.narrow(other + 1, 1, u.shape[other + 1])
                )
                if component is not None:
                    n = u.shape[component + 1]
                    wide = self._beyond(u, other, component, 1, 0)
                    u = 0.5 * (wide.narrow(component + 1, 0, n) + wide.narrow(component + 1, 1, n))
            parts.append(u)
        return torch.stack(parts, 1)

    def trace(
        self, v: Float[Tensor, "batch dims *size"], dt: Number, component: int | None, *, order: int = 2
    ) -> Float[Tensor, "batch dims *size"]:
        """Feet of the characteristics x - Δt v that end at the faces of a component or at centres, in cells from the lower corner."""
        like = v[:, 0]
        starts = []
        for axis, n in enumerate(self.grid.size):
            shape = [-1 if other == axis else 1 for other in range(self.grid.dims)]
            x = torch.arange(n, dtype=v.dtype, device=v.device).view(shape) + (0.0 if axis == component else 0.5)
            starts.append(x.expand_as(like))
        x = torch.stack(starts, 1)
        scale = torch.as_tensor(self.grid.spacing, dtype=v.dtype, device=v.device).view(1, -1, *[1] * self.grid.dims)
        step = column(dt, v) / scale
        if order == 1:
            return x - step * self.at_faces(v, component)
        middle = x - 0.5 * step * self.at_faces(v, component)
        return x - step * torch.cat([self.value_at(v, j, middle) for j in range(self.grid.dims)], 1)

    def value_at(
        self, v: Float[Tensor, "batch dims *size"], component: int, at: Float[Tensor, "batch dims *points"]
    ) -> Float[Tensor, "batch 1 *points"]:
        """A component anywhere, by multilinear interpolation; positions in cells from the lower corner, held inside the walls."""
        u, shifts, sides = v[:, component], [], []
        for axis, closed in enumerate(self.periodic):
            own = axis == component
            shifts.append(0.0 if own else -0.5 if closed else 0.5)
            sides.append(closed)
            if not closed:
                u = self._with_upper(u, axis) if own else self._beyond(u, component, axis, 1, 1)
        inside = self._inside(at)
        shift = torch.as_tensor(shifts, dtype=at.dtype, device=at.device).view(1, -1, *[1] * (at.ndim - 2))
        return sample(u[:, None], inside + shift, sides)

    def _inside(self, at: Tensor) -> Tensor:
        parts = [
            at[:, axis] if closed else at[:, axis].clamp(0, n)
            for axis, (n, closed) in enumerate(zip(self.grid.size, self.periodic, strict=True))
        ]
        return torch.stack(parts, 1)

"""Elliptic equations on boxes: Poisson's by fast transforms, -∇·(a ∇u) + c u = f by preconditioned conjugate gradients.

Finite volumes, second order: fluxes through faces by differences of neighbours, so what leaves a cell enters the next. Boundary
conditions are those of ``boundary``. Every solution has gradients with respect to the coefficient, the right-hand side, the shift
and the boundary values: the operator is symmetric, so the backward pass is one more solve with it, and it may be differentiated
again.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.algebra.box_solve import Product, differences, named_preconditioner, solve_box
from pdebook.algebra.conjugate_gradient import conjugate_gradient
from pdebook.algebra.multigrid import BoxOperator, coarsest
from pdebook.algebra.results import Result, check_start, default_tolerance
from pdebook.algebra.transforms import SeparableLaplacian, check_precision
from pdebook.pde.boundary import Boundary, Ghost, Outflow, Periodic, Robin, Wall, dirichlet, paired, wall_flux
from pdebook.pde.grid import Grid

__all__ = ["Diffusion", "box_bases", "poisson"]

Number = float | int | Tensor


def _value(value: Any, t: Any, edge: Tensor) -> Tensor:
    """A condition's value at a time. Raises ValueError unless it is finite and broadcasts to the cells of the side."""
    found = torch.as_tensor(value(t) if callable(value) else value, dtype=edge.dtype, device=edge.device)
    shape = (max(len(edge), len(found) if found.ndim == edge.ndim else 1), *edge.shape[1:])
    if found.ndim > edge.ndim or any(m not in (1, n) for m, n in zip(found.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(
            f"boundary must hold values that broadcast to a side's {shape}, got shape {tuple(found.shape)}"
        )
    if not bool(found.isfinite().all()):
        raise ValueError(f"boundary must hold finite values, got {value if found.ndim == 0 else 'others'}")
    return found


def _kind(side: Boundary) -> str:
    """The basis that fits a side: exactly for pure conditions, else its neighbour."""
    free = isinstance(side, (Wall, Outflow)) or (isinstance(side, Robin) and side.a == 0)
    return "neumann" if free else "dirichlet"


def box_bases(boundary: Any, dims: int) -> tuple[str, ...]:
    """Names of the bases of ``transforms`` that fit the conditions axis by axis."""
    bases = []
    for lower, upper in paired(boundary, dims):
        if isinstance(lower, Periodic):
            bases.append("periodic")
        else:
            low, high = _kind(lower), _kind(upper)
            bases.append(low if low == high else f"{low}-{high}")
    return tuple(bases)


def _check_balance(b: Tensor) -> None:
    """Raise ValueError unless the entries of each sample's b sum to zero, as they must where constants are in the kernel."""
    flat = b.detach().flatten(1)
    gap = flat.mean(1).abs()
    bad = gap > 10 * default_tolerance(b.dtype) * flat.abs().mean(1)
    if bool(bad.any()):
        sample = int(bad.nonzero()[0])
        raise ValueError(
            "f must have as much source as flows out through the walls, since no value of u is fixed: mean(f) and the walls' "
            f"share leave {float(flat[sample].mean()):.3g} in sample {sample}; subtract it from f"
        )


def poisson(
    f: Shaped[Tensor, "batch channel *size"],
    grid: Grid,
    boundary: Any = None,
    *,
    shift: Number = 0.0,
    spectral: bool = False,
    t: Any = 0.0,
) -> Float[Tensor, "batch channel *size"]:
    """u with -Δu + c u = f, in one transform and one back: second order at cell centres, or spectral.

    Where no side fixes a value and c = 0, u is determined up to a constant: the one of mean zero is given.

    Args:
        f: right-hand sides at centres.
        grid: the box.
        boundary: Periodic, Wall, dirichlet or neumann conditions (see ``boundary``); zero on all walls if left out.
        shift: c >= 0, a number or one for each sample (batch,).
        spectral: the exact Laplacian of the trigonometric series instead of differences; for conditions of value zero.
        t: time at which the conditions' values are taken.
    Raises:
        ValueError: fields, conditions or shifts that do not fit, a Robin or Ghost side, sources that don't balance where they must.
    """
    grid.check(f, "f")
    check_precision(f, "f")
    check_start("f", f.detach())
    pairs = paired(dirichlet() if boundary is None else boundary, grid.dims)
    for pair in pairs:
        for side in pair:
            if isinstance(side, Ghost) or (isinstance(side, Robin) and side.a != 0 and side.b != 0):
                raise ValueError(
                    f"boundary must be periodic, or fix the value or the slope, got {side}; Diffusion takes the rest"
                )
    laplacian = SeparableLaplacian(
        grid.size, grid.spacing, box_bases(pairs, grid.dims), spectral=spectral, device=f.device
    )
    walls = _wall_sources(pairs, torch.ones_like(f), grid, t)
    if walls and spectral:
        raise ValueError("boundary must have the value zero for the spectral Laplacian; take it off u first")
    for axis, upper, value in walls:
        f = _add_at(f, axis, upper, value / grid.spacing[axis])
    c = torch.as_tensor(shift, dtype=f.dtype, device=f.device)
    if c.ndim > 1 or (c.ndim == 1 and len(c) not in (1, len(f))):
        raise ValueError(f"shift must be a number or one for each of the {len(f)} samples, got shape {tuple(c.shape)}")
    if not bool(((c >= 0) & c.isfinite()).all()):
        raise ValueError(f"shift must not be negative, got {float(c.min()):.3g}")
    if laplacian.singular and bool((c == 0).any()):
        _check_balance(f)
    return laplacian.solve(f, c.reshape(-1, *[1] * (f.ndim - 1)) if c.ndim else c)


def _wall_sources(pairs: Any, a: Tensor, grid: Grid, t: Any) -> list[tuple[int, bool, Tensor]]:
    """(axis, upper, flux into the box through the wall for u = 0) of the sides that have one."""
    found = []
    for axis, pair in enumerate(pairs):
        for upper, side in zip((False, True), pair, strict=True):
            if isinstance(side, Periodic):
                continue
            _, factor, g = wall_flux(side, grid.spacing[axis])
            if isinstance(g, (int, float)) and g == 0:
                continue
            edge = a.narrow(axis + 2, grid.size[axis] - 1 if upper else 0, 1)
            found.append((axis, upper, edge * _value(g, t, edge) * (factor / grid.spacing[axis])))
    return found


def _add_at(f: Tensor, axis: int, upper: bool, value: Tensor) -> Tensor:
    """f with a value added in the cells of one side."""
    place, n = axis + 2, f.shape[axis + 2]
    if n == 1:
        return f + value
    edge = f.narrow(place, n - 1 if upper else 0, 1) + value
    rest = f.narrow(place, 0 if upper else 1, n - 1)
    batch = max(len(edge), len(rest))
    parts = [part.expand(batch, *part.shape[1:]) for part in ([rest, edge] if upper else [edge, rest])]
    return torch.cat(parts, place)


class Diffusion:
    """-∇·(a ∇u) + c u = f on a box: steady heat, Darcy's flow, electric potentials, implicit steps.

    (1/h_j) of the differences of face fluxes -a_f (u_i - u_{i-1})/h_j. With harmonic means a_f is the series resistance of two half
    cells: exact in one dimension for a coefficient that jumps at faces, and the right choice across layers; the arithmetic mean is
    PDEBench's. On walls the half cell next to them carries the flux, so values, slopes and Robin conditions hold on the wall itself.

    Attributes:
        operator: the matrix, as a ``BoxOperator``.
        singular: whether no side fixes u and there is no shift, so that u is determined up to a constant.
    Args:
        grid: the box.
        a: coefficient at centres (batch, 1, *size) > 0, or one for each axis (batch, dims, *size); a batch of one serves all.
        boundary: conditions, see ``boundary``; zero on all walls if left out.
        shift: c >= 0, a number, one for each sample (batch,), or a field (batch, 1, *size); None or 0: none.
        faces: "harmonic" or "arithmetic" means.
        t: time at which the conditions' values are taken.
    Raises:
        ValueError: a coefficient that is not positive, floating-point or of the grid's shape, a negative shift, a condition that
            makes the operator indefinite.
    """

    def __init__(
        self,
        grid: Grid,
        a: Shaped[Tensor, "..."],
        boundary: Any = None,
        *,
        shift: Number | None = None,
        faces: str = "harmonic",
        t: Any = 0.0,
    ) -> None:
        grid.check(a, "a")
        check_precision(a, "a")
        if not len(a):
            raise ValueError("a must have a sample at least, got none")
        if a.shape[1] not in (1, grid.dims):
            raise ValueError(f"a must have one channel or one for each of the {grid.dims} axes, got {a.shape[1]}")
        if faces not in ("harmonic", "arithmetic"):
            raise ValueError(f"faces must be 'harmonic' or 'arithmetic', got {faces!r}")
        bad = ~((a > 0) & a.isfinite()).flatten(1).all(1)
        if bool(bad.any()):
            sample = int(bad.nonzero()[0])
            raise ValueError(f"a must be positive and finite; sample {sample} reaches {float(a[sample].min()):.3g}")
        self.grid = grid
        self._pairs = paired(dirichlet() if boundary is None else boundary, grid.dims)
        self._bases = box_bases(self._pairs, grid.dims)
        weights, self._walls = [], []
        for axis, (pair, h) in enumerate(zip(self._pairs, grid.spacing, strict=True)):
            own = a[:, axis : axis + 1] if a.shape[1] > 1 else a
            weights.append(_face_weights(own, axis, pair, h, faces))
            sources = _wall_sources(
                [pair if other == axis else (Periodic(),) * 2 for other in range(grid.dims)], own, grid, t
            )
            self._walls += sources
        given = None if shift is None or (isinstance(shift, (int, float)) and shift == 0) else shift
        self.operator = BoxOperator(
            tuple(weights),
            None if given is None else self._field(given, a),
            tuple(base == "periodic" for base in self._bases),
        )
        free = all(isinstance(side, Periodic) or wall_flux(side, 1.0)[0] == 0 for pair in self._pairs for side in pair)
        self.singular = free and given is None
        self._rows = len(self.operator.diagonal)
        self._mean = a.detach().mean(tuple(range(1, a.ndim)), keepdim=True)

    def _field(self, shift: Number, a: Tensor) -> Tensor:
        c = torch.as_tensor(shift, dtype=a.dtype, device=a.device)
        c = c.reshape(-1, *[1] * (a.ndim - 1)) if c.ndim < 2 else c
        if (
            c.ndim != a.ndim
            or c.shape[1] != 1
            or any(m not in (1, n) for m, n in zip(c.shape[2:], a.shape[2:], strict=True))
            or (len(c) != len(a) and 1 not in (len(c), len(a)))
        ):
            raise ValueError(
                f"shift must be a number, (batch,) or (batch, 1, *{self.grid.size}) with the batch {len(a)} of a, got {tuple(c.shape)}"
            )
        if not bool(((c >= 0) & c.isfinite()).all()):
            raise ValueError(f"shift must not be negative, got {float(c.min()):.3g}")
        return c

    def right_hand_side(self, f: Float[Tensor, "rows 1 *size"]) -> Float[Tensor, "batch 1 *size"]:
        """f and what the boundary values add to it: A u = b."""
        for axis, upper, value in self._walls:
            f = _add_at(f, axis, upper, value / self.grid.spacing[axis])
        return f

    def preconditioner(self, kind: str | Product | None = None) -> Product:
        """M ≈ A^{-1}.

        Args:
            kind: "poisson", the fast solve with the mean coefficient and shift: CG's count is bounded by the contrast alone,
                κ <= max a / min a; "multigrid", whose count hardly feels the contrast; "jacobi"; None for multigrid where the size
                halves often enough, else Poisson.
        """
        if kind is None:
            kind = "multigrid" if torch.Size(coarsest(self.grid.size)).numel() <= 256 else "poisson"
        if kind != "poisson":
            return named_preconditioner(self.operator, kind)
        laplacian = SeparableLaplacian(self.grid.size, self.grid.spacing, self._bases, device=self._mean.device)
        own = self.operator.shift
        shift = 0.0 if own is None else own.detach().mean(tuple(range(1, own.ndim)), keepdim=True) / self._mean
        return lambda r: laplacian.solve(r, shift) / self._mean

    def solve(
        self,
        f: Shaped[Tensor, "rows channel *size"],
        *,
        preconditioner: str | Product | None = None,
        x0: Tensor | None = None,
        rtol: float | int | None = None,
        max_iterations: int = 500,
    ) -> Float[Tensor, "batch 1 *size"]:
        """u, with gradients; of mean zero where it is determined up to a constant.

        Args:
            f: right-hand sides at centres (batch, 1, *size).
            preconditioner: see ``preconditioner``, or a function r to M r.
            x0: initial guess.
            rtol, max_iterations: as in ``conjugate_gradient``.
        Raises:
            ValueError: f of another shape or dtype, not finite, or not balanced where no side fixes u.
            NotConverged: some samples failed.
        """
        b = self._checked(f)
        return solve_box(
            self.operator,
            b,
            preconditioner=self.preconditioner(preconditioner),
            singular=self.singular,
            x0=x0,
            rtol=rtol,
            max_iterations=max_iterations,
        )

    def result(self, f: Shaped[Tensor, "rows channel *size"], **options: Any) -> Result:
        """The ``Result`` of conjugate gradients, with history and status, without gradients.

        Args:
            f: as in ``solve``.
            options: those of ``conjugate_gradient``; ``preconditioner`` may also be a name.
        """
        kind = options.pop("preconditioner", None)
        b = self._checked(f).detach()
        b = b - b.mean(tuple(range(1, b.ndim)), keepdim=True) if self.singular else b
        return conjugate_gradient(self.operator, b, preconditioner=self.preconditioner(kind), **options)

    def _checked(self, f: Tensor) -> Tensor:
        self.grid.check(f, "f", 1)
        if f.dtype != self._mean.dtype:
            raise ValueError(f"f must have the dtype of a, {self._mean.dtype}, got {f.dtype}")
        check_start("f", f.detach())
        if len({len(f), self._rows} - {1}) > 1:
            raise ValueError(f"f must have as many samples as a, {self._rows}, got {len(f)}")
        b = self.right_hand_side(f)
        if len(b) < self._rows:
            b = b.expand(self._rows, *b.shape[1:])
        if self.singular:
            _check_balance(b)
        return b

    def fluxes(self, u: Float[Tensor, "batch 1 *size"]) -> tuple[Tensor, ...]:
        """-a ∂u/∂x_j on the faces of each axis, n_j + 1 along it: what leaves one cell enters the next, to rounding.

        For Darcy's flow this is the velocity; its divergence over a cell is f - c u.
        """
        fluxes = []
        for axis, (face, periodic, h) in enumerate(
            zip(self.operator.faces, self.operator.periodic, self.grid.spacing, strict=True)
        ):
            fluxes.append(-face * h * differences(u, axis + 2, periodic))
        for axis, upper, value in self._walls:  # inwards
            fluxes[axis] = _add_at(fluxes[axis], axis, upper, -value if upper else value)
        return tuple(fluxes)


def _face_weights(a: Tensor, axis: int, pair: tuple[Boundary, Boundary], h: float, means: str) -> Tensor:
    """a_f/h² on the faces along an axis, with the conditions' weights on the walls."""
    place, n = axis + 2, a.shape[axis + 2]
    first, last = a.narrow(place, 0, 1), a.narrow(place, n - 1, 1)
    periodic = isinstance(pair[0], Periodic)
    wide = torch.cat([last, a], place) if periodic else a
    low, high = wide.narrow(place, 0, wide.shape[place] - 1), wide.narrow(place, 1, wide.shape[place] - 1)
    inner = 2 * low * high / (low + high) if means == "harmonic" else (low + high) / 2
    if periodic:
        return torch.cat([inner, inner.narrow(place, 0, 1)], place) / h**2
    parts = [first * wall_flux(pair[0], h)[0], inner, last * wall_flux(pair[1], h)[0]]
    return torch.cat(parts, place) / h**2

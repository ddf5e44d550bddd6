"""Elliptic equations on boxes: Poisson's by fast transforms, -∇·(a ∇u) + c u = f by preconditioned conjugate gradients.

Finite volumes, second order: fluxes through faces by differences of neighbours, so what leaves a cell enters the next. Boundary
conditions are those of ``boundary``. Every solution has gradients with respect to the coefficient, the right-hand side, the shift
and the boundary values: the operator is symmetric, so the backward pass is one more solve with it, and it may be differentiated
again.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from pdebook.algebra.conjugate_gradient import conjugate_gradient
from pdebook.algebra.multigrid import BoxOperator, Multigrid, coarsest
from pdebook.algebra.results import Result, check_start, default_tolerance
from pdebook.algebra.transforms import SeparableLaplacian
from pdebook.pde.boundary import Boundary, Ghost, Outflow, Periodic, Robin, Wall, dirichlet, paired
from pdebook.pde.grid import Grid

__all__ = ["Diffusion", "box_bases", "obstacle_operator", "poisson", "solve_box"]

Number = float | int | Tensor
Product = Callable[[Tensor], Tensor]


def _value(value: Any, t: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value(t) if callable(value) else value, dtype=like.dtype, device=like.device)


def _side(side: Boundary, h: float) -> tuple[float, float, Any]:
    """(weight, factor, g): the flux out of the last cell is a (weight u - factor g)/h. Raises ValueError for a side that has none."""
    if isinstance(side, Ghost):
        return 1.0, 1.0, side.value
    if isinstance(side, Wall) or (isinstance(side, Outflow) and side.order == 0):
        return 0.0, 0.0, 0.0
    if not isinstance(side, Robin):
        raise ValueError(f"boundary must be Periodic, Robin, Ghost, Wall or Outflow of order 0 here, got {side}")
    below = side.a / 2 + side.b / h
    if below == 0 or side.a / below < 0:
        raise ValueError(
            f"boundary must take from the box what a positive u gives it: a/(a/2 + b/h) >= 0, got a = {side.a}, b = {side.b}, "
            f"h = {h:.3g}"
        )
    return side.a / below, 1.0 / below, side.g


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
    if bool((c < 0).any()):
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
            _, factor, g = _side(side, grid.spacing[axis])
            if isinstance(g, (int, float)) and g == 0:
                continue
            edge = a.narrow(axis + 2, grid.size[axis] - 1 if upper else 0, 1)
            found.append((axis, upper, edge * _value(g, t, a) * (factor / grid.spacing[axis])))
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


class _Solve(torch.autograd.Function):
    """A⁺ b for a symmetric BoxOperator, with constants left out of b and x if they are its kernel."""

    @staticmethod
    def forward(ctx: Any, solver: Any, periodic: Any, singular: bool, b: Tensor, shift: Any, *faces: Tensor) -> Tensor:
        ctx.solver, ctx.periodic, ctx.singular, ctx.has_shift = solver, periodic, singular, shift is not None
        axes = tuple(range(1, b.ndim))
        b = b - b.mean(axes, keepdim=True) if singular else b
        x = solver(BoxOperator(faces, shift, periodic), b)
        x = x - x.mean(axes, keepdim=True) if singular else x
        ctx.save_for_backward(x, *([shift] if shift is not None else []), *faces)
        return x

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        shift, faces = (rest[0], rest[1:]) if ctx.has_shift else (None, rest)
        y = _Solve.apply(ctx.solver, ctx.periodic, ctx.singular, v, shift, *faces)
        grads = []
        dims = len(faces)
        for axis, (face, periodic) in enumerate(zip(faces, ctx.periodic, strict=True)):
            place = axis - dims
            grad = -_differences(y, place, periodic) * _differences(x, place, periodic)
            if periodic:  # one face, stored twice
                weight = torch.ones(face.shape[place], dtype=x.dtype, device=x.device)
                weight[[0, -1]] = 0.5
                grad = grad * weight.reshape([-1] + [1] * (-place - 1))
            grads.append(grad.sum_to_size(face.shape))
        return None, None, None, y, None if shift is None else (-y * x).sum_to_size(shift.shape), *grads


def _differences(u: Tensor, axis: int, periodic: bool) -> Tensor:
    """u_i - u_{i-1} on all faces along an axis; beyond a wall u = 0."""
    n = u.shape[axis]
    first, last = u.narrow(axis, 0, 1), u.narrow(axis, n - 1, 1)
    zero = torch.zeros_like(first)
    return torch.diff(torch.cat([last if periodic else zero, u, first if periodic else zero], axis), dim=axis)


def solve_box(
    operator: BoxOperator,
    b: Float[Tensor, "batch *shape"],
    *,
    preconditioner: str | Product = "multigrid",
    singular: bool = False,
    x0: Tensor | None = None,
    rtol: float | int | None = None,
    max_iterations: int = 500,
) -> Float[Tensor, "batch *shape"]:
    """u with A u = b for the operator of a box, with gradients with respect to its weights, its shift and b, of any order.

    Args:
        operator: A.
        b: right-hand sides.
        preconditioner: "multigrid", "jacobi", or r to M r, symmetric and positive definite.
        singular: constants are the kernel of A: they are left out of b and u.
        x0: initial guess.
        rtol, max_iterations: as in ``conjugate_gradient``.
    Raises:
        ValueError, NotConverged: as ``conjugate_gradient`` and ``Multigrid``.
    """
    kept: list[Product] = []
    guess = [x0]

    def solver(a: BoxOperator, right: Tensor) -> Tensor:
        if not kept:  # the backward pass has the same operator
            kept.append(_preconditioner(a, preconditioner))
        start = guess.pop() if guess else None
        return conjugate_gradient(a, right, start, preconditioner=kept[0], rtol=rtol, max_iterations=max_iterations).x

    return _Solve.apply(solver, operator.periodic, singular, b, operator.shift, *operator.faces)


def _preconditioner(operator: BoxOperator, given: str | Product) -> Product:
    if callable(given):
        return given
    if given == "multigrid":
        return Multigrid(operator)
    if given == "jacobi":
        inverse = torch.where(operator.diagonal > 0, 1 / operator.diagonal, 0.0)
        return lambda r: inverse * r
    raise ValueError(f"preconditioner must be 'multigrid', 'poisson', 'jacobi' or a function, got {given!r}")


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
        free = all(isinstance(side, Periodic) or _side(side, 1.0)[0] == 0 for pair in self._pairs for side in pair)
        self.singular = free and given is None
        self._mean = a.detach().mean(tuple(range(1, a.ndim)), keepdim=True)

    def _field(self, shift: Number, a: Tensor) -> Tensor:
        c = torch.as_tensor(shift, dtype=a.dtype, device=a.device)
        c = c.reshape(-1, *[1] * (a.ndim - 1)) if c.ndim < 2 else c
        if (
            c.ndim != a.ndim
            or c.shape[1] != 1
            or any(m not in (1, n) for m, n in zip(c.shape[2:], a.shape[2:], strict=True))
        ):
            raise ValueError(f"shift must be a number, (batch,) or (batch, 1, *{self.grid.size}), got {tuple(c.shape)}")
        if bool((c < 0).any()):
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
            return _preconditioner(self.operator, kind)
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
        batches = {len(f), len(self._mean)} - {1}
        if len(batches) > 1:
            raise ValueError(f"f must have as many samples as a, {len(self._mean)}, got {len(f)}")
        b = self.right_hand_side(f)
        if len(b) < len(self._mean):
            b = b.expand(len(self._mean), *b.shape[1:])
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
            fluxes.append(-face * h * _differences(u, axis + 2, periodic))
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
    parts = [first * _side(pair[0], h)[0], inner, last * _side(pair[1], h)[0]]
    return torch.cat(parts, place) / h**2


def obstacle_operator(
    fluid: Bool[Tensor, "batch 1 *size"],
    spacing: Any = None,
    *,
    air: Bool[Tensor, "batch 1 *size"] | None = None,
    boundary: Any = None,
    dtype: torch.dtype = torch.float32,
) -> BoxOperator:
    """The pressure equation around obstacles: (A p)_i = Σ_{fluid j ~ i} (p_i - p_j)/h² + p_i/h² for each neighbour in the air.

    Cells that are neither fluid nor air are solid: no flux, a weight of zero. Rows of cells that are not fluid are zero, and their
    right-hand side must be, too; CG then leaves p = 0 there.

    Args:
        fluid: which cells have an unknown.
        spacing: h of each axis; one if left out.
        air: which cells hold the pressure zero at their centres; none if left out.
        boundary: of the box, one for all sides or as in ``paired``: Ghost() for air beyond the box, a wall's ``neumann()``
            or ``Wall()``, Periodic(); walls if left out.
        dtype: of the weights.
    Raises:
        ValueError: conditions or spacings that do not fit, or cells that are fluid and air at once.
    """
    dims = fluid.ndim - 2
    h = (1.0,) * dims if spacing is None else tuple(map(float, spacing))
    if len(h) != dims:
        raise ValueError(f"spacing must have {dims} entries, got {len(h)}")
    if air is not None and (air.shape != fluid.shape or bool((air & fluid).any())):
        raise ValueError(f"air must have the shape of fluid, {tuple(fluid.shape)}, and share no cell with it")
    pairs = paired(Wall() if boundary is None else boundary, dims)
    wet = fluid.to(dtype)
    open_air = torch.zeros_like(wet) if air is None else air.to(dtype)
    shift, faces = torch.zeros_like(wet), []
    for axis, (pair, side) in enumerate(zip(pairs, h, strict=True)):
        place, n = axis + 2, fluid.shape[axis + 2]
        periodic = isinstance(pair[0], Periodic)

        def beyond(u: Tensor, place: int = place, n: int = n, periodic: bool = periodic) -> Tensor:
            first, last = u.narrow(place, 0, 1), u.narrow(place, n - 1, 1)
            ends = [last, first] if periodic else [torch.zeros_like(first), torch.zeros_like(last)]
            return torch.cat([ends[0], u, ends[1]], place)

        wide, wide_air = beyond(wet), beyond(open_air)
        between = wide.narrow(place, 0, n + 1) * wide.narrow(place, 1, n + 1)
        if not periodic:
            walls = [_side(condition, side)[0] for condition in pair]
            between = torch.cat(
                [
                    walls[0] * wet.narrow(place, 0, 1),
                    between.narrow(place, 1, n - 1),
                    walls[1] * wet.narrow(place, n - 1, 1),
                ],
                place,
            )
        faces.append(between / side**2)
        shift = shift + wet * (wide_air.narrow(place, 0, n) + wide_air.narrow(place, 2, n)) / side**2
    return BoxOperator(tuple(faces), shift, tuple(isinstance(pair[0], Periodic) for pair in pairs))

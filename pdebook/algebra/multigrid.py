"""Diffusion on a box of cells, known by a weight for each face, and the multigrid cycle that inverts it nearly.

    (A u)_i = c_i u_i + Σ_{faces f of cell i} w_f (u_i - u_j),   j the cell beyond f; beyond a wall u_j = 0

covers -∇·(a ∇u) + c u with any boundary condition by its face weights: a/h² inside, 0 on a wall without flux, 2a/h² on one with
a given value, and what Robin's condition asks. Obstacles are faces of weight zero.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from pdebook.algebra.conjugate_gradient import LinearSystem
from pdebook.algebra.operators import LinearOperator
from pdebook.algebra.results import Result

__all__ = ["BoxOperator", "Multigrid", "coarsest"]


@dataclass(frozen=True)
class BoxOperator:
    """(A u)_i = c_i u_i + Σ_f w_f (u_i - u_j) for fields (batch, ..., *size): symmetric, and not negative if the weights are not.

    Attributes:
        faces: for each axis of the box the weights of its faces, tensors whose last axes are the box's with one face more than
            cells along their own axis, and whose leading axes broadcast to the fields'. Along a periodic axis the first face and the
            last are one and the same, and must be equal.
        shift: c, a tensor that broadcasts to the fields, or None.
        periodic: for each axis whether it closes on itself; none if left out.
        diagonal: the diagonal of A.
    Raises:
        ValueError: weights whose shapes do not belong to one box.
    """

    faces: tuple[Tensor, ...]
    shift: Tensor | None = None
    periodic: tuple[bool, ...] = ()
    diagonal: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        dims = len(self.faces)
        object.__setattr__(self, "periodic", tuple(self.periodic) or (False,) * dims)
        if not dims:
            raise ValueError("faces must hold the weights of one axis at least, got none")
        if len(self.periodic) != dims:
            raise ValueError(f"periodic must have one entry for each of the {dims} axes, got {len(self.periodic)}")
        for axis, face in enumerate(self.faces):
            shape = tuple(face.shape[face.ndim - dims :])
            wanted = tuple(n + (other == axis) for other, n in enumerate(self.size))
            if (
                shape != wanted
                or min(self.size) < 1
                or not face.is_floating_point()
                or face.dtype != self.faces[0].dtype
            ):
                raise ValueError(
                    f"faces must hold floating-point weights (..., {', '.join(map(str, wanted))}) along axis {axis}, of one dtype, "
                    "for a cell at least, got "
                    f"{face.dtype} of shape {tuple(face.shape)}"
                )
        if self.shift is not None and any(
            m not in (1, n) for m, n in zip(self.shift.shape[self.shift.ndim - dims :], self.size, strict=False)
        ):
            raise ValueError(
                f"shift must broadcast to (..., {', '.join(map(str, self.size))}), got {tuple(self.shift.shape)}"
            )
        diagonal = 0.0 if self.shift is None else self.shift
        for axis, face, n in zip(range(-dims, 0), self.faces, self.size, strict=True):
            diagonal = diagonal + face.narrow(axis, 0, n) + face.narrow(axis, 1, n)
        object.__setattr__(self, "diagonal", diagonal)

    @property
    def dims(self) -> int:
        """Number of axes of the box."""
        return len(self.faces)

    @property
    def size(self) -> tuple[int, ...]:
        """Number of cells along each axis."""
        dims = len(self.faces)
        return tuple(face.shape[face.ndim - dims + axis] - 1 for axis, face in enumerate(self.faces))

    def subtract(self, f: Tensor | None, u: Tensor) -> Tensor:
        """f - A u, or -A u without f."""
        out = -self.diagonal * u if f is None else torch.addcmul(f, self.diagonal, u, value=-1.0)
        for axis, face, n, periodic in zip(range(-self.dims, 0), self.faces, self.size, self.periodic, strict=True):
            inner = face.narrow(axis, 1, n - 1)
            out.narrow(axis, 1, n - 1).addcmul_(inner, u.narrow(axis, 0, n - 1))
            out.narrow(axis, 0, n - 1).addcmul_(inner, u.narrow(axis, 1, n - 1))
            if periodic:
                out.narrow(axis, 0, 1).addcmul_(face.narrow(axis, 0, 1), u.narrow(axis, n - 1, 1))
                out.narrow(axis, n - 1, 1).addcmul_(face.narrow(axis, n, 1), u.narrow(axis, 0, 1))
        return out

    def __call__(self, u: Shaped[Tensor, "batch *shape"]) -> Shaped[Tensor, "batch *shape"]:
        """A u."""
        return self.subtract(None, u).neg_()

    def operator(self, shape: Sequence[int]) -> LinearOperator:
        """As an operator on fields (batch, *shape), its own adjoint.

        Args:
            shape: shape of one field, whose last axes are the box's.
        """
        return LinearOperator(self, tuple(shape), tuple(shape), self, self.diagonal)

    def coarser(self) -> "BoxOperator":
        """The operator on cells twice as long: Pᵀ A P with P constant on 2^d cells, its fluxes halved.

        A constant prolongation has jumps of double the gradient; the half restores the operator of the coarse grid, exactly so for
        constant weights. ``shift`` is averaged.

        Raises:
            ValueError: an odd number of cells.
        """
        if any(n % 2 for n in self.size):
            raise ValueError(f"size must be even along each axis to be halved, got {self.size}")
        dims = self.dims
        faces = []
        for own, face in zip(range(-dims, 0), self.faces, strict=True):
            face = _every_second(face, own, 0)
            for other in range(-dims, 0):
                if other != own:
                    face = _every_second(face, other, 0) + _every_second(face, other, 1)
            faces.append(face * 0.5 ** (dims + 1))
        shift = None if self.shift is None else _average(self.shift.expand(*self.shift.shape[:-dims], *self.size), dims)
        return BoxOperator(tuple(faces), shift, self.periodic)


def _every_second(u: Tensor, axis: int, start: int) -> Tensor:
    index: list[Any] = [..., slice(start, None, 2), *[slice(None)] * (-axis - 1)]
    return u[tuple(index)]


def _average(u: Tensor, dims: int) -> Tensor:
    """Means of 2^d cells: the restriction."""
    for axis in range(-dims, 0):
        u = _every_second(u, axis, 0) + _every_second(u, axis, 1)
    return u * 0.5**dims


def _add_to_children(u: Tensor, coarse: Tensor, dims: int) -> Tensor:
    """u plus its cell's coarse value, in place: the prolongation."""
    for starts in itertools.product((0, 1), repeat=dims):
        index: list[Any] = [..., *[slice(start, None, 2) for start in starts]]
        u[tuple(index)] += coarse
    return u


def coarsest(size: Sequence[int], cells: int = 64) -> tuple[int, ...]:
    """The size that halving ends at: until an axis is odd, or so few cells are left."""
    size = tuple(size)
    total = 1
    for n in size:
        total *= n
    return coarsest([n // 2 for n in size], cells) if total > cells and not any(n % 2 for n in size) else size


class Multigrid:
    """A multigrid cycle for a ``BoxOperator``: M r ≈ A^{-1} r in O(n) operations, symmetric, so a preconditioner of CG.

    Each level smooths by Chebyshev's polynomial of Jacobi's iteration on [1/2, 2], the upper part of the spectrum of D^{-1} A, whose
    end 2 no diffusion exceeds: degree 1 is Jacobi's iteration damped by 4/5, degree 2 smooths like a sweep of red-black
    Gauss-Seidel (0.22 to 0.25) at its cost. Then it restricts the residual by means, takes the coarse level's correction, and smooths
    again. The coarsest level is inverted exactly; what is in the kernel of A there, constants without a wall or closed pockets of
    an obstacle, is left out.

    For smooth coefficients, or regions with jumps up to 10^3 between them, CG needs 7 to 20 cycles; a coefficient that jumps by 10^3
    from cell to cell at random defeats it, as any geometric cycle.

    Attributes:
        levels: the operators, finest first.
    Args:
        operator: A.
        cycle: "V" visits the coarse level once, "W" twice, which makes the count of cycles independent of the size also for
            rough coefficients, at the cost of many small products.
        degree: of the smoothing polynomial.
        cells: halving goes on while there are more cells than that.
    Raises:
        ValueError: sizes so odd that more than 256 cells would be left, an option that does not exist, weights that are negative,
            not finite, or different on the two ends of a periodic axis.
    Source: Trottenberg, Oosterlee and Schüller, Multigrid; Braess 1995 for the factor of the coarse operator; Adams et al. 2003 for
        the smoother.
    """

    def __init__(self, operator: BoxOperator, *, cycle: str = "V", degree: int = 3, cells: int = 64) -> None:
        if cycle not in ("V", "W"):
            raise ValueError(f"cycle must be 'V' or 'W', got {cycle!r}")
        if degree < 1:
            raise ValueError(f"degree must be at least 1, got {degree}")
        last = coarsest(operator.size, cells)
        if torch.Size(last).numel() > max(256, cells):
            raise ValueError(
                f"size must halve until at most 256 cells are left, got {operator.size}, which ends at {last}: "
                "take sizes with more factors 2"
            )
        for axis, (face, periodic) in enumerate(zip(operator.faces, operator.periodic, strict=True)):
            if not bool((face >= 0).all() & face.isfinite().all()):
                raise ValueError(
                    f"operator must have finite weights that are not negative; along axis {axis} it has others"
                )
            place = axis - operator.dims
            if periodic and not bool((face.narrow(place, 0, 1) == face.narrow(place, operator.size[axis], 1)).all()):
                raise ValueError(
                    f"operator must have equal weights on the first and the last face of the periodic axis {axis}"
                )
        self.cycle, self.degree = cycle, degree
        self.levels = [operator]
        while self.levels[-1].size != last:
            self.levels.append(self.levels[-1].coarser())
        # Cells without neighbours have an empty row.
        self._inverses = [torch.where(a.diagonal > 0, 1 / a.diagonal, 0.0) for a in self.levels]
        # and no correction may enter them from the coarse level.
        rows = [a.diagonal > 0 for a in self.levels]
        self._rows = [None if bool(row.all()) else row for row in rows]
        self._coarse_inverse = _pseudo_inverse(self.levels[-1])

    def _smooth(self, level: int, u: Tensor | None, f: Tensor) -> Tensor:
        """Chebyshev's iteration from u, or from zero."""
        a, inverse = self.levels[level], self._inverses[level]
        middle, half = 1.25, 0.75
        sigma = middle / half
        rho = 1 / sigma
        step = inverse * (f if u is None else a.subtract(f, u)) / middle
        u = step if u is None else u + step
        for _ in range(self.degree - 1):
            new = 1 / (2 * sigma - rho)
            step = torch.addcmul(rho * new * step, inverse, a.subtract(f, u), value=2 * new / half)
            u, rho = u + step, new
        return u

    def _visit(self, level: int, f: Tensor) -> Tensor:
        """One cycle for A u = f from zero."""
        if level == len(self.levels) - 1:
            dims = self.levels[0].dims
            flat = f.flatten(-dims)
            return torch.einsum("...ij,...j->...i", self._coarse_inverse.to(f.dtype), flat).reshape(f.shape)
        a = self.levels[level]
        u = self._smooth(level, None, f)
        below = _average(a.subtract(f, u), a.dims)
        coarse = self._visit(level + 1, below)
        if self.cycle == "W" and level < len(self.levels) - 2:
            coarse = coarse + self._visit(level + 1, self.levels[level + 1].subtract(below, coarse))
        u, rows = _add_to_children(u, coarse, a.dims), self._rows[level]
        return self._smooth(level, u if rows is None else torch.where(rows, u, 0.0), f)

    def __call__(self, r: Shaped[Tensor, "batch *shape"]) -> Shaped[Tensor, "batch *shape"]:
        """M r, one cycle from zero. Raises ValueError for an r that is no field on the box, or of another batch."""
        operator = self.levels[0]
        shape = (*operator.diagonal.shape[: operator.diagonal.ndim - operator.dims], *operator.size)
        lead = [m in (1, n) for m, n in zip(shape[::-1], tuple(r.shape)[::-1], strict=False)]
        if tuple(r.shape[r.ndim - operator.dims :]) != operator.size or r.ndim < len(shape) or not all(lead):
            raise ValueError(f"r must have the box as its last axes and broadcast with {shape}, got {tuple(r.shape)}")
        return self._visit(0, r)

    @torch.no_grad()
    def solve(
        self,
        b: Shaped[Tensor, "batch *shape"],
        x0: Shaped[Tensor, "..."] | None = None,
        *,
        rtol: float | int | None = None,
        atol: float | int = 0.0,
        max_iterations: int = 100,
        raise_on_failure: bool = True,
    ) -> Result:
        """Cycles alone, x_{k+1} = x_k + M (b - A x_k), without the acceleration of CG.

        Args, Returns, Raises: as ``conjugate_gradient``.
        """
        system = LinearSystem("multigrid", self.levels[0], b, x0, self, rtol, atol, max_iterations)
        while system.left() > 0 and bool((active := system.active).any()):
            x = torch.where(active.view(system.column), system.x + system.precondition(system.residual), system.x)
            good = x.isfinite().flatten(1).all(1)
            system.finite = system.finite & (good | ~active)
            system.x = torch.where(good.view(system.column), x, system.x)
            system.settle()
            system.record(active)
        return system.result(raise_on_failure)


def _pseudo_inverse(a: BoxOperator) -> Tensor:
    """A⁺ of a small box, (..., cells, cells) with the weights' leading axes, in double precision."""
    cells = torch.Size(a.size).numel()
    lead = a.diagonal.shape[: a.diagonal.ndim - a.dims]
    units = torch.eye(cells, dtype=a.diagonal.dtype, device=a.diagonal.device)
    units = units.reshape(cells, *[1] * len(lead), *a.size).expand(cells, *lead, *a.size)
    matrix = torch.stack([a(unit).flatten(-a.dims) for unit in units], -1).double()
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > 1e-10 * values[..., -1:].clamp(min=torch.finfo(torch.float64).tiny)
    return (vectors * torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)[..., None, :]) @ vectors.mT

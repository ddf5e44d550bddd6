"""Semilinear equations u_t = L u + N(u, t) on periodic grids: what an equation is; ``semilinear`` advances it.

L is a number (or a small matrix over the channels) for each Fourier mode; N is evaluated on the grid, its products free of aliases.
An equation is these two and the meaning of its channels; see ``equations`` and ``navier_stokes``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor

from pdebook.pde.grid import Grid
from pdebook.pde.spectral import Spectral

__all__ = ["Semilinear", "laid_out", "parameter", "times"]

Source = Tensor | Callable[[float], Tensor]
Number = float | int | Tensor


def parameter(value: Number, name: str, dims: int, *, nonnegative: bool = False) -> float | Tensor:
    """A number as it is, or one for each sample as a float64 column (batch, 1, 1, ...) that broadcasts over fields.

    Raises:
        ValueError: another shape, values that are not finite or have the wrong sign.
    """
    numbers = (value.cpu() if isinstance(value, Tensor) else torch.tensor(value)).double()
    if numbers.ndim > 1 or not numbers.numel():
        raise ValueError(f"{name} must be a number or one for each sample, (batch,), got shape {tuple(numbers.shape)}")
    exact = numbers.detach()
    good = exact.isfinite() & (exact >= 0) if nonnegative else exact.isfinite()
    if not bool(good.all()):
        sign = "finite and not negative" if nonnegative else "finite"
        raise ValueError(f"{name} must be {sign}, got {exact[~good].flatten()[0].item():g}")
    return numbers.reshape(-1, *[1] * (dims + 1)) if isinstance(value, Tensor) else float(value)


class Semilinear(ABC):
    """An equation u_t = L u + N(u, t) + s(x, t) for fields (batch, channel, *grid) on a periodic grid.

    A subclass states ``linear`` and ``nonlinear``. Modes that the dealiasing mask excludes take part in no product: they see L alone,
    and neither N nor the source reaches them.

    Args:
        grid: the grid; values stand at its nodes.
        channels: number of channels.
        degree: most factors in a product of N; 1 for a linear equation.
        source: s, a field (batch or 1, channels, *grid) or a function of time that gives one.
        dealias: False leaves the aliases in.
    Raises:
        ValueError: a source of the wrong shape, or a grid too small for the mask.
    """

    def __init__(
        self, grid: Grid, channels: int, *, degree: int = 1, source: Source | None = None, dealias: bool = True
    ) -> None:
        self.grid = grid
        self.channels = channels
        self.basis = Spectral(grid, degree if dealias else 1)
        self.whole = Spectral(grid) if self.basis.degree > 1 else self.basis
        self.source = source
        if isinstance(source, Tensor):
            grid.check(source, "source", channels)
            if not bool(source.detach().isfinite().all()):
                raise ValueError("source must be finite")
        self.parameters: dict[str, float | Tensor] = {}
        self._cache: dict[Any, Tensor] = {}

    def add(self, name: str, value: Number, *, nonnegative: bool = False) -> None:
        """Take a parameter in (see ``parameter``)."""
        self.parameters[name] = parameter(value, name, self.grid.dims, nonnegative=nonnegative)

    def part(self, samples: slice) -> "Semilinear":
        """The equation with the parameters and the source of some samples."""
        other = copy(self)
        other.parameters = {name: _part(value, samples) for name, value in self.parameters.items()}
        other.source = _part(self.source, samples)
        other._cache = {}
        return other

    @property
    def batch(self) -> int:
        """How many samples the parameters and the source are for; 1 where they serve any number."""
        tensors = [value for value in (*self.parameters.values(), self.source) if isinstance(value, Tensor)]
        return max([1, *map(len, tensors)])

    @abstractmethod
    def linear(self, basis: Spectral) -> Tensor:
        """The symbol of L on a basis, in double precision, broadcasting to (batch, channel, *modes).

        One that couples channels is (batch or 1, channel, channel, *modes).
        """

    def nonlinear(self, c: Complex[Tensor, "batch channel *modes"], t: float) -> Tensor | None:
        """Coefficients of N(u, t); what lies outside the mask does not count. None: the equation is linear."""
        return None

    def prepare(self, c: Complex[Tensor, "batch channel *modes"], basis: Spectral) -> Tensor:
        """Coefficients of a start as the equation can hold them."""
        return c

    def speed(self, u: Float[Tensor, "batch channel *grid"]) -> Float[Tensor, "batch dims *grid"] | None:
        """How fast N carries things along each axis; None where it carries nothing."""
        return None

    def tendency(self, c: Complex[Tensor, "batch channel *modes"], t: float) -> Tensor | None:
        """Coefficients of N(u, t) + s(t), or None."""
        total = self.nonlinear(c, t)
        if self.source is None:
            return total
        if callable(self.source):
            field = self.source(t)
            self.grid.check(field, "source", self.channels)
            forced = self.basis.forward(field.to(c.real.dtype))
        else:
            forced = self._kept("source", self.source, c, self.basis.forward)
        return forced.expand_as(c) if total is None else total + forced

    def cast(self, name: str, like: Tensor) -> Any:
        """A parameter in the precision and on the device of a field or its coefficients; a number as it is."""
        value = self.parameters[name]
        return self._kept(name, value, like, lambda v: v) if isinstance(value, Tensor) else value

    def _kept(self, name: str, value: Tensor, like: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """``change`` of a tensor in another precision and place; what has no gradient is kept."""
        key = (name, like.dtype, like.device)
        if key in self._cache:
            return self._cache[key]
        made = change(value.to(device=like.device, dtype=like.real.dtype if like.is_complex() else like.dtype))
        if not value.requires_grad:
            self._cache[key] = made
        return made

    @property
    def requires_grad(self) -> bool:
        """Whether a parameter wants a gradient."""
        return any(isinstance(value, Tensor) and value.requires_grad for value in self.parameters.values())

    def symbol(self, basis: Spectral) -> tuple[Tensor, bool]:
        """``linear`` as (batch or 1, channel or 1, *modes), False; or (batch or 1, *modes, channel, channel), True."""
        symbol = self.linear(basis)
        if symbol.ndim == self.grid.dims + 3:
            return symbol.movedim((1, 2), (-2, -1)).contiguous(), True
        return symbol.reshape(*[1] * (self.grid.dims + 2 - symbol.ndim), *symbol.shape), False

    def _laid_out_symbol(self, like: Tensor) -> Tensor:
        """The symbol on the whole basis as coefficients are laid out, kept unless a parameter wants a gradient."""
        key = ("symbol", like.dtype, like.device)
        if key in self._cache:
            return self._cache[key]
        symbol = laid_out(*self.symbol(self.whole)).to(device=like.device, dtype=like.dtype)
        if not self.requires_grad:
            self._cache[key] = symbol
        return symbol

    def rhs(self, u: Shaped[Tensor, "..."], t: float = 0.0) -> Float[Tensor, "batch channel *grid"]:
        """u_t of a field, for the solvers of ``pdebook.diffeq`` and for residuals."""
        self.grid.check(u, channels=self.channels)
        c = self.prepare(self.whole.forward(u), self.whole)
        symbol = self._laid_out_symbol(c)
        result = self.whole.inverse(times(symbol, c, symbol.ndim == c.ndim + 1))
        kept = c[..., : self.basis.columns] * self.basis.constant("mask", c)
        slope = self.tendency(kept, t)
        return result if slope is None else result + self.basis.inverse(self.basis.constant("mask", c) * slope)

    def courant(self, u: Float[Tensor, "batch channel *grid"], dt: float | int) -> Float[Tensor, " batch"]:
        """max_x Σ_j |a_j| dt / h_j for each sample: explicit methods of fourth order bear about 1.3."""
        a = self.speed(u)
        if a is None:
            return u.new_zeros(len(u))
        h = torch.tensor(self.grid.spacing, dtype=u.dtype, device=u.device).reshape(-1, *[1] * self.grid.dims)
        return (a.abs() / h).sum(1).flatten(1).amax(1) * dt


def _part(value: Any, samples: slice) -> Any:
    return value[samples] if isinstance(value, Tensor) and len(value) > 1 else value


def laid_out(values: Tensor, matrix: bool) -> Tensor:
    """The channels of a matrix symbol back in front of the modes."""
    return values.movedim((-2, -1), (1, 2)) if matrix else values


def times(coefficient: Tensor, c: Tensor, matrix: bool) -> Tensor:
    """A symbol times coefficients; with ``matrix`` it couples the channels."""
    return (coefficient * c.unsqueeze(1)).sum(2) if matrix else coefficient * c


def stacked(parts: list[Tensor]) -> Tensor:
    """Parts (batch or 1, 1, ...) side by side on axis 1."""
    batch = max(len(part) for part in parts)
    return torch.cat([part.expand(batch, *part.shape[1:]) for part in parts], 1)

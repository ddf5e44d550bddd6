"""What is solved: ordinary, controlled, stochastic and second-order equations, each as a term that a solver asks.

States are tensors (batch, ...) or tuples of such; a field is called with times of shape (batch,), so each trajectory may stand at a
time of its own. A function of one shared time is wrapped by ``shared_time``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

State = Tensor | tuple[Tensor, ...]
"""A batch of states: one tensor (batch, ...), or several that belong together."""

Noise = Literal["diagonal", "scalar", "additive", "general"]
Calculus = Literal["ito", "stratonovich"]
Field = Callable[..., Any]

NOISES = ("diagonal", "scalar", "additive", "general")


class Layout:
    """How a state is laid out as one matrix (batch, size), on which solvers work.

    Args:
        state: tensor (batch, ...) or tuple of tensors with one batch size, floating type and device.
    Raises:
        ValueError: anything else, or a state that is not finite.
    """

    def __init__(self, state: State) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        if not parts or not all(isinstance(part, Tensor) and part.ndim >= 1 for part in parts):
            raise ValueError("y0 must be a tensor with a leading batch axis, or a tuple of such tensors")
        first = parts[0]
        if not all(part.is_floating_point() or part.is_complex() for part in parts):
            raise ValueError(f"y0 must be floating point, got {', '.join(str(part.dtype) for part in parts)}")
        if len({(len(part), part.dtype, part.device) for part in parts}) > 1:
            raise ValueError("y0: all tensors must have the same batch size, dtype and device")
        self.is_tuple = isinstance(state, tuple)
        self.shapes = [tuple(part.shape[1:]) for part in parts]
        self.sizes = [part[0].numel() if len(part) else 0 for part in parts]
        self.batch, self.dtype, self.device = len(first), first.dtype, first.device
        self.plain = not self.is_tuple and first.ndim == 2
        if not self.batch or not sum(self.sizes):
            raise ValueError(f"y0 must hold at least one number for at least one sample, got {self.shapes}")

    @property
    def real_dtype(self) -> torch.dtype:
        """The dtype of times and norms that go with the state."""
        return self.dtype.to_real()

    def flatten(self, state: State) -> Tensor:
        """The state as a matrix (batch, size)."""
        if isinstance(state, tuple):
            return torch.cat([part.reshape(len(part), -1) for part in state], 1)
        return state if self.plain else state.reshape(len(state), -1)

    def unflatten(self, flat: Tensor) -> Any:
        """Inverse of ``flatten``; axes before the last are kept, so (batch, time, size) works too."""
        if self.plain:
            return flat
        lead = flat.shape[:-1]
        if not self.is_tuple:
            return flat.reshape(*lead, *self.shapes[0])
        parts = flat.split(self.sizes, -1)
        return tuple(part.reshape(*lead, *shape) for part, shape in zip(parts, self.shapes, strict=True))

    def check(self, value: Any, name: str) -> None:
        """Raise ValueError unless ``value`` is laid out like the state."""
        parts = value if isinstance(value, tuple) else (value,)
        shapes = [(self.batch, *shape) for shape in self.shapes]
        right = isinstance(value, tuple) == self.is_tuple and [tuple(getattr(p, "shape", ())) for p in parts] == shapes
        if not right or any(part.dtype != self.dtype for part in parts):
            what = ", ".join(f"{getattr(p, 'dtype', type(p).__name__)} {tuple(getattr(p, 'shape', ()))}" for p in parts)
            raise ValueError(f"{name} must return {self.dtype} of shape {shapes}, as the state; got {what}")

    def times(self, value: float | int | Tensor, name: str) -> Tensor:
        """A time for each sample, (batch,), float64, detached, on the state's device; ValueError for another shape or not finite."""
        times = torch.as_tensor(value, dtype=torch.float64).detach().to(self.device)
        if times.ndim > 1 or (times.ndim == 1 and len(times) != self.batch):
            raise ValueError(f"{name} must be a number or of shape ({self.batch},), got shape {tuple(times.shape)}")
        if not bool(times.isfinite().all()):
            raise ValueError(f"{name} must be finite, got {value}")
        return times.expand(self.batch).clone()


@runtime_checkable
class Term(Protocol):
    """An equation: the field of an ODE; a stochastic one has a diffusion as well."""

    def field(self, t: Tensor, y: Any, *args: Any) -> Any:
        """Dy/dt, laid out as y."""

    def modules(self) -> Iterator[nn.Module]:
        """Modules whose parameters the adjoints differentiate with respect to."""


def _modules(*functions: Any) -> Iterator[nn.Module]:
    for function in functions:
        owner = getattr(function, "__self__", function)
        if isinstance(owner, nn.Module):
            yield owner


@dataclass(frozen=True)
class ODE:
    """Ordinary differential equation dy/dt = f(t, y).

    Args:
        function: f, called as ``function(t, y, *args)`` with t of shape (batch,).
    """

    function: Field

    def field(self, t: Tensor, y: Any, *args: Any) -> Any:
        """f(t, y)."""
        return self.function(t, y, *args)

    def modules(self) -> Iterator[nn.Module]:
        """The field, if it is a module or a method of one."""
        return _modules(self.function)


@dataclass(frozen=True)
class CDE:
    """Controlled differential equation dy = f(t, y) dX, as the ordinary one dy/dt = f(t, y) X'(t).

    Args:
        function: f, which returns (batch, size, channels) for a state (batch, size).
        path: control with ``derivative(t)`` of shape (batch, channels) for times (batch,); see ``paths``. Where the derivative
            jumps, as at the knots of a linear control, ``PID(jumps=knots)`` makes steps end there. Fixed steps that begin or end
            at one of the times in its attribute ``corners``, (n,), (1, n) or (batch, n), see the derivative of their own side.
    Source: Kidger et al. 2020, Neural controlled differential equations for irregular time series, equation 4.
    """

    function: Field
    path: Any

    def field(self, t: Tensor, y: Tensor, *args: Any) -> Tensor:
        """f(t, y) X'(t).

        Raises:
            ValueError: f does not return one column for each channel of the control.
        """
        # Near a knot rounding would pick the wrong piece of the control.
        matrix, slope = self.function(t.to(y.dtype), y, *args), self.path.derivative(t).to(y.dtype)
        if matrix.shape != (*y.shape, slope.shape[-1]):
            expected = (*tuple(y.shape), slope.shape[-1])
            raise ValueError(f"function must return shape {expected}, got {tuple(matrix.shape)}")
        return (matrix @ slope.unsqueeze(-1)).squeeze(-1)

    def modules(self) -> Iterator[nn.Module]:
        """The field, if it is a module."""
        return _modules(self.function)


@dataclass(frozen=True)
class SDE:
    """Stochastic differential equation dy = f(t, y) dt + g(t, y) dW.

    Args:
        drift: f.
        diffusion: g, called as the drift. "diagonal": shape of y, one Brownian motion for each number; "scalar": shape of y, one
            Brownian motion for each sample; "additive" and "general": (batch, size, noise); "additive" does not depend on y.
        brownian: Brownian motion with ``increment(s, t)``; see ``brownian.BrownianTree``.
        noise: kind of noise.
        calculus: how the integral is meant. A solver of the other calculus is refused.
    Raises:
        ValueError: an unknown kind of noise or calculus.
    """

    drift: Field
    diffusion: Field
    brownian: Any
    noise: str = "diagonal"
    calculus: str = "ito"

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {self.noise!r}")
        if self.calculus not in ("ito", "stratonovich"):
            raise ValueError(f"calculus must be 'ito' or 'stratonovich', got {self.calculus!r}")

    def field(self, t: Tensor, y: Any, *args: Any) -> Any:
        """The drift."""
        return self.drift(t, y, *args)

    def modules(self) -> Iterator[nn.Module]:
        """Drift and diffusion, as far as they are modules."""
        return _modules(self.drift, self.diffusion)

    def product(self, g: Tensor, w: Tensor) -> Tensor:
        """g times an increment w of the Brownian motion: (batch, size).

        Raises:
            ValueError: a matrix g without one column for each number of w.
        """
        if g.ndim == 3 and g.shape[2] != w.shape[1]:
            raise ValueError(
                f"the diffusion must return {w.shape[1]} columns, as brownian has numbers, got {g.shape[2]}"
            )
        return g * w if self.noise in ("diagonal", "scalar") else (g @ w.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class SecondOrder:
    """Second-order equation d²q/dt² + γ(t) dq/dt = a(t, q), as a pair (q, p) with p = dq/dt.

    Without damping the system is separable, and symplectic methods apply. With γ = 3/t and a = -∇F it is Nesterov's.

    Args:
        acceleration: a.
        damping: γ, a function of t (shape (batch,)); none if left out.
    """

    acceleration: Field
    damping: Callable[[Tensor], Tensor] | None = None

    def field(self, t: Tensor, y: tuple[Tensor, Tensor], *args: Any) -> tuple[Tensor, Tensor]:
        """(p, a(t, q) - γ(t) p)."""
        q, p = y
        force = self.acceleration(t, q, *args)
        if self.damping is not None:
            force = force - self.damping(t).reshape(-1, *[1] * (p.ndim - 1)) * p
        return p, force

    def modules(self) -> Iterator[nn.Module]:
        """The acceleration, if it is a module."""
        return _modules(self.acceleration)


@dataclass(frozen=True)
class Augmented:
    """An equation with integrals along its solution: dy/dt = f(t, y), dq_i/dt = r_i(t, y); the state is (y, q_1, q_2, ...).

    Args:
        term: equation whose state is one tensor.
        integrands: r_i, each called as ``r(t, y, *args)``, with values (batch, ...).
    """

    term: Any
    integrands: tuple[Field, ...]

    def field(self, t: Tensor, y: tuple[Tensor, ...], *args: Any) -> tuple[Tensor, ...]:
        """(f(t, y), r_1(t, y), ...)."""
        # Only a control needs the exact time.
        rounded = t.to(y[0].dtype.to_real())
        return self.term.field(t, y[0], *args), *(r(rounded, y[0], *args) for r in self.integrands)

    def modules(self) -> Iterator[nn.Module]:
        """Modules of the equation and of the integrands."""
        yield from self.term.modules()
        yield from _modules(*self.integrands)


def _control(term: Any) -> Any:
    """The path that drives a controlled equation, with integrals along its solution or without; None for another term."""
    inner = term.term if isinstance(term, Augmented) else term
    return inner.path if isinstance(inner, CDE) else None


def corners(term: Any) -> Tensor | None:
    """Times at which the field of a controlled equation jumps, (1, n) or (batch, n); None if there are none."""
    times = getattr(_control(term), "corners", None)
    return times if times is None or times.ndim == 2 else times[None]


def shared_time(function: Field) -> Field:
    """A field of one time, from a function that expects a number t; all trajectories must then stand at the same time."""
    return lambda t, y, *args: function(t[0], y, *args)


class Bound:
    """A term with its arguments, on flat states; counts evaluations and checks the first result.

    Attributes:
        evaluations: calls of the field so far.
        diffusions: calls of the diffusion so far.
    """

    def __init__(self, term: Any, layout: Layout, args: tuple[Any, ...] = ()) -> None:
        self.term, self.layout, self.args = term, layout, args
        self.evaluations = self.diffusions = 0
        # A control's pieces are told apart by the exact time.
        self._exact_times = _control(term) is not None or layout.real_dtype == torch.float64
        self._checked = False

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        """The field, or drift, of flat states (batch, size) at times (batch,)."""
        self.evaluations += 1
        layout = self.layout
        times = t if self._exact_times else t.to(layout.real_dtype)
        result = self.term.field(times, layout.unflatten(y), *self.args)
        if not self._checked:
            layout.check(result, "the field")
            self._checked = True
        return layout.flatten(result)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """The diffusion of flat states.

        Raises:
            ValueError: a shape that does not go with the kind of noise.
        """
        self.diffusions += 1
        layout = self.layout
        g = self.term.diffusion(t.to(layout.real_dtype), layout.unflatten(y), *self.args)
        if self.term.noise in ("diagonal", "scalar"):
            layout.check(g, "the diffusion")
            return layout.flatten(g)
        if not isinstance(g, Tensor) or g.ndim != 3 or g.shape[:2] != y.shape or g.dtype != y.dtype:
            what = f"{g.dtype} {tuple(g.shape)}" if isinstance(g, Tensor) else type(g).__name__
            raise ValueError(f"the diffusion must return shape {(*tuple(y.shape), 'noise')} of {y.dtype}, got {what}")
        return g

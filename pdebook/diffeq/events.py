"""Events: a trajectory ends where a function of time and state is zero, and gradients know that this time moves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.adaptive import STATUS, Inspect, Search
from pdebook.diffeq.runge_kutta import Solver, Step
from pdebook.diffeq.terms import Bound, Layout

_HALVINGS = 60


@dataclass(frozen=True)
class Event:
    """The end of a trajectory where g(t, y) = 0.

    A root is looked for in each step across which g changes sign, by bisection on the step's interpolant; two changes inside one
    step are missed. The event time t* depends on the parameters, dt* = -dg/ġ with ġ = ∂g/∂t + ∇g·f, and gradients of the
    event time and of the state there follow this formula.

    Args:
        function: g, called as ``function(t, y, *args)``; one number for each sample.
        direction: 1 for rising roots only, -1 for falling ones, 0 for both.
    Raises:
        ValueError: an unknown direction; on use, a function of the wrong shape.
    """

    function: Callable[..., Tensor]
    direction: int = 0

    def __post_init__(self) -> None:
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"direction must be -1, 0 or 1, got {self.direction}")

    def value(self, t: Tensor, y: Tensor, layout: Layout, args: tuple[Any, ...]) -> Tensor:
        """g at flat states, (batch,)."""
        g = self.function(t.to(layout.real_dtype), layout.unflatten(y), *args)
        if not isinstance(g, Tensor) or g.shape != t.shape or not g.is_floating_point():
            what = f"{g.dtype} of shape {tuple(g.shape)}" if isinstance(g, Tensor) else type(g).__name__
            raise ValueError(
                f"event must return one number for each sample, floats of shape {tuple(t.shape)}, got {what}"
            )
        return g

    def inspector(self, solver: Solver, layout: Layout, args: tuple[Any, ...]) -> Inspect:
        """What the search calls after each step."""

        def inspect(t0: Tensor, t1: Tensor, y0: Tensor, step: Step) -> tuple[Tensor, Tensor]:
            before, after = self.value(t0, y0, layout, args), self.value(t1, step.y, layout, args)
            rising, falling = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
            hit = {1: rising, -1: falling, 0: rising | falling}[self.direction]
            wrong = before.isnan()
            if not bool((hit | wrong).any()):
                return t1, hit
            if bool(wrong.any()):
                sample = int(wrong.nonzero()[0])
                raise ValueError(
                    f"event must return numbers, got NaN for sample {sample} at t = {float(t0[sample]):.6g}"
                )
            rows = torch.arange(len(t0), device=t0.device)
            low, high = t0, t1
            for _ in range(_HALVINGS):
                middle = 0.5 * (low + high)
                value = self.value(middle, solver.interpolate(step, y0, t0, t1, rows, middle), layout, args)
                same = value.sign() == before.sign()
                low, high = torch.where(same, middle, low), torch.where(same, high, middle)
            return torch.where(hit, high, t1), hit

        return inspect

    def differentiate(
        self, bound: Bound, found: Search, y: Tensor, layout: Layout, args: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        """State and time of the event, after a last step of Newton's method that carries their gradients."""
        hit = found.status == STATUS.index("event")
        f = bound.field(found.t, y)
        g = self.value(found.t, y, layout, args)
        with torch.enable_grad():
            t_in, y_in = found.t.detach().clone().requires_grad_(), y.detach().requires_grad_()
            value = self.value(t_in, y_in, layout, args)
            by_t, by_y = torch.autograd.grad(value.sum(), (t_in, y_in), allow_unused=True)
        rate = (0.0 if by_t is None else by_t) + (0.0 if by_y is None else (by_y * f.detach()).sum(1).double())
        rate = torch.where(hit, torch.as_tensor(rate, dtype=torch.float64, device=y.device), 1.0)
        flat = rate == 0
        if g.requires_grad and bool(flat.any()):
            raise ValueError(
                f"event must cross zero with a slope, or its time has no gradient: sample {int(flat.nonzero()[0])}"
            )
        rate = torch.where(flat, torch.inf, rate)
        change = torch.where(hit, -g.double() / rate, torch.zeros_like(found.t))
        return y + f.detach() * change.to(y.dtype)[:, None], found.t + change

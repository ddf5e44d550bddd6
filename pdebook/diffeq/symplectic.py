"""Leapfrog for second-order equations without damping: symplectic, time-reversible, one evaluation a step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.runge_kutta import Carry, Step, step_size
from pdebook.diffeq.terms import Bound, SecondOrder


@dataclass(frozen=True)
class Leapfrog:
    """Velocity Verlet, also called Störmer-Verlet or kick-drift-kick.

        p_{1/2} = p + h/2 a(t, q),   q_1 = q + h p_{1/2},   p_1 = p_{1/2} + h/2 a(t_1, q_1)

    Of second order. Its energy error stays bounded over exponentially long times, since it is exact for a nearby Hamiltonian.

    Source: Hairer, Lubich and Wanner, Geometric Numerical Integration, section I.1.4.
    """

    name: str = "leapfrog"
    order: float | int = 2
    error_order: float | int = 3
    adaptive: bool = False

    def check(self, term: Any) -> None:
        """Raise ValueError unless the term is a second-order equation without damping."""
        if not isinstance(term, SecondOrder) or term.damping is not None:
            raise ValueError("solver leapfrog needs a SecondOrder term without damping")

    def start(self, bound: Bound, t: Tensor, y: Tensor) -> Carry:
        """The field, whose second half is the acceleration."""
        return (bound.field(t, y),)

    def slope(self, bound: Bound, t: Tensor, y: Tensor, carry: Carry) -> Tensor:
        """The field at the start of a step."""
        return carry[0]

    def step(self, bound: Bound, t0: Tensor, t1: Tensor, y: Tensor, carry: Carry) -> Step:
        """One step."""
        h, (slope,) = step_size(t0, t1, y), carry
        n = y.shape[1] // 2
        half = y[:, n:] + 0.5 * h * slope[:, n:]
        q = y[:, :n] + h * half
        # The field's first half is p itself, so any momentum serves to ask for the acceleration.
        force = bound.field(t1, torch.cat([q, half], 1))[:, n:]
        p = half + 0.5 * h * force
        new = torch.cat([q, p], 1)
        end = torch.cat([p, force], 1)
        return Step(new, None, (end,), h * torch.stack([slope, end]))

    def interpolate(self, step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor) -> Tensor:
        """Cubic Hermite polynomial through both ends."""
        return hermite(step, y0, t0, t1, rows, times)


def hermite(step: Step, y0: Tensor, t0: Tensor, t1: Tensor, rows: Tensor, times: Tensor) -> Tensor:
    """The cubic through states and slopes at both ends of a step, ``step.stages`` holding h times the slopes."""
    length = (t1 - t0)[rows]
    theta = torch.where(
        length == 0, torch.ones_like(length), (times - t0[rows]) / torch.where(length == 0, 1.0, length)
    )
    u = theta.to(y0.dtype)[:, None]
    start, end = y0[rows], step.y[rows]
    first, last = step.stages[0, rows], step.stages[-1, rows]
    value = start + u**2 * (3.0 - 2.0 * u) * (end - start) + u * (1.0 - u) * ((1.0 - u) * first - u * last)
    return torch.where(u == 1.0, end, value)

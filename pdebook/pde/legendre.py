"""Explicit steps that reach far in diffusion."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["legendre_step"]


def legendre_step(field: Callable[[Tensor], Tensor], u: Tensor, dt: Tensor, stages: int) -> Tensor:
    """A step of ∂_t u = field(u) by the Runge-Kutta-Legendre method of second order.

    It is stable up to (s² + s - 2)/4 of Euler's longest step when the field's eigenvalues are real and negative.

    Args:
        field: du/dt.
        u: state.
        dt: length of the step, of a shape that broadcasts against u.
        stages: s, at least 3.
    Source: Meyer, Balsara and Aslam 2014, equations 16 to 20.
    """
    s = stages
    b = [1 / 3, 1 / 3] + [(j * j + j - 2) / (2 * j * (j + 1)) for j in range(2, s + 1)]
    width = 4 / (s * s + s - 2)
    first = field(u)
    # In changes from u, so that a step of length zero changes nothing.
    before, now = torch.zeros_like(u), first * (dt * (b[1] * width))
    for j in range(2, s + 1):
        mu, nu = (2 * j - 1) / j * b[j] / b[j - 1], -(j - 1) / j * b[j] / b[j - 2]
        slope = field(u + now) - first * (1 - b[j - 1])
        before, now = now, torch.addcmul(mu * now + nu * before, slope, dt * (mu * width))
    return u + now

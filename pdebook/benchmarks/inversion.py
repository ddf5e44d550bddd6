"""The start of a trajectory from its end: gradient descent through a solver, or through a surrogate of it.

    z* = argmin_z mean_x |F(I z) - u_K|² / mean_x |u_K|²,    u_0 = I z*

F carries a start to the later time; I interpolates a few values to the grid, and keeps out what the end says nothing about.

Source: Takamoto et al. 2022, PDEBench, section 4 and appendix; there, the truth's mean and spread are given away to the search, z
is not begun anew for each sample, and Adam decays it. Nothing of this is done here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Inversion", "interpolate", "invert"]

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Inversion:
    """What a search found.

    Attributes:
        start: u_0.
        latent: z.
        misfits: relative misfit |F(u_0) - u_K| / |u_K| before each step, (steps, sample).
    """

    start: Tensor
    latent: Tensor
    misfits: Float[Tensor, "steps sample"]


def interpolate(
    z: Float[Tensor, "sample channel *coarse"], size: Sequence[int], *, periodic: bool = True
) -> Float[Tensor, "sample channel *size"]:
    """Linear interpolation of values at the centres of coarse cells to those of fine ones; the identity for equal sizes.

    Beyond the ends stands the periodic continuation, or the last value.

    Raises:
        ValueError: a size that is no multiple of the coarse one.
    """
    dims = z.ndim - 2
    if len(size) != dims or any(n % m for n, m in zip(size, z.shape[2:], strict=True)):
        raise ValueError(f"size must hold multiples of {tuple(z.shape[2:])}, got {tuple(size)}")
    factors = [n // m for n, m in zip(size, z.shape[2:], strict=True)]
    for axis in range(2, z.ndim):
        ends = [z.narrow(axis, z.shape[axis] - 1, 1), z, z.narrow(axis, 0, 1)]
        z = torch.cat(ends if periodic else [ends[2], z, ends[0]], axis)
    fine = [n + 2 * factor for n, factor in zip(size, factors, strict=True)]
    u = torch.nn.functional.interpolate(z, fine, mode=_MODES[dims], align_corners=False)
    for axis, (n, factor) in enumerate(zip(size, factors, strict=True), 2):
        u = u.narrow(axis, factor, n)
    return u


def invert(
    forward: Callable[[Tensor], Tensor],
    end: Float[Tensor, "sample channel *size"],
    *,
    latent: int | Sequence[int] = 64,
    steps: int = 100,
    lr: float = 0.2,
    periodic: bool = True,
    first: Tensor | None = None,
) -> Inversion:
    """Find starts whose images are the given ends, each sample by itself, by Adam.

    Args:
        forward: F, differentiable.
        end: u_K.
        latent: values of z along each axis.
        steps: of Adam.
        lr: its rate.
        periodic: see ``interpolate``.
        first: z to begin with; zero if left out.
    Raises:
        ValueError: sizes that do not fit, numbers that are not positive.
    """
    if steps < 1 or lr <= 0:
        raise ValueError(f"steps and lr must be positive, got {steps} and {lr}")
    dims = end.ndim - 2
    coarse = [latent] * dims if isinstance(latent, int) else list(latent)
    begun = end.new_zeros(*end.shape[:2], *coarse) if first is None else first.detach().clone()
    z = begun.requires_grad_()
    size = end.flatten(1).square().mean(1)
    # A common step counter, and otherwise each number by itself: samples do not meet in Adam.
    optimizer = torch.optim.Adam([z], lr=lr)
    misfits = []
    for _ in range(steps):
        optimizer.zero_grad()
        error = (forward(interpolate(z, end.shape[2:], periodic=periodic)) - end).flatten(1)
        loss = error.square().mean(1) / size
        loss.sum().backward()
        misfits.append(loss.detach().sqrt())
        optimizer.step()
    found = z.detach()
    return Inversion(interpolate(found, end.shape[2:], periodic=periodic), found, torch.stack(misfits))

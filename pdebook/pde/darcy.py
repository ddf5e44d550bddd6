"""Darcy's flow as PDEBench has it, and diffusion in time by an L-stable implicit method.

    steady: -∇·(a ∇u) = β, u = 0 on the walls;    transient: ∂_t u = ∇·(a ∇u) + β

PDEBench's files hold the transient at t = 1.75, not the steady state, and with zero half a cell outside the box.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.algebra.results import check_start
from pdebook.pde.boundary import Ghost
from pdebook.pde.elliptic import Diffusion
from pdebook.pde.grid import Grid

__all__ = ["darcy", "darcy_released", "diffuse"]

_GAMMA = 1.0 - math.sqrt(0.5)


def darcy(
    a: Shaped[Tensor, "batch channel *size"],
    grid: Grid,
    beta: float | int | Tensor = 1.0,
    *,
    faces: str = "harmonic",
    **options: Any,
) -> Float[Tensor, "batch 1 *size"]:
    """u with -∇·(a ∇u) = β and u = 0 on the walls.

    Args:
        a: permeability at centres, positive.
        grid: the box.
        beta: strength of the source, a number or one for each sample.
        faces: means of the coefficient, see ``Diffusion``.
        options: of ``Diffusion.solve``.
    """
    grid.check(a, "a", 1)
    return Diffusion(grid, a, faces=faces).solve(_strength(beta, a).expand_as(a), **options)


def _strength(beta: float | int | Tensor, a: Tensor) -> Tensor:
    """β, shaped to broadcast over fields. Raises ValueError unless it is a number or one for each sample."""
    strength = torch.as_tensor(beta, dtype=a.dtype, device=a.device)
    if strength.ndim > 1 or (strength.ndim and len(strength) not in (1, len(a))):
        raise ValueError(
            f"beta must be a number or one for each of the {len(a)} samples, got shape {tuple(strength.shape)}"
        )
    if not bool(strength.isfinite().all()):
        raise ValueError(f"beta must be finite, got {beta}")
    return strength.reshape(-1, *[1] * (a.ndim - 1))


def diffuse(
    u0: Shaped[Tensor, "starts 1 *size"],
    a: Shaped[Tensor, "batch 1 *size"],
    f: Shaped[Tensor, "..."],
    grid: Grid,
    boundary: Any = None,
    *,
    time: float | int,
    steps: int,
    every: int | None = None,
    faces: str = "harmonic",
    rtol: float | int | None = None,
) -> Float[Tensor, "rows times *size"]:
    """∂_t u = ∇·(a ∇u) + f from u_0, by SDIRK2: second order, stable and damping for any step, conservative.

        U = u + γ Δt F(U),    u⁺ = u + (1-γ) Δt F(U) + γ Δt F(u⁺),    γ = 1 - 1/√2

    Both stages have one symmetric operator, 1/(γΔt) - ∇·(a ∇), made once and inverted by multigrid-preconditioned CG.

    Args:
        u0: start at centres.
        a: coefficient, as in ``Diffusion``.
        f: source, constant in time, broadcasts to u0.
        grid: the box.
        boundary: conditions, constant in time; zero on all walls if left out.
        time: end.
        steps: number of steps.
        every: steps between two stored states; only the end if left out.
        faces: means of the coefficient.
        rtol: of the linear solves.
    Returns:
        The stored states after the start, one after another where the channel was.
    Raises:
        ValueError: fields that do not fit, times or steps that are not positive, a number of steps that ``every`` does not divide.
        NotConverged: a linear solve failed.
    Source: Alexander, SIAM J. Numer. Anal. 1977.
    """
    grid.check(u0, "u0", 1)
    check_start("u0", u0.detach())
    if u0.dtype != a.dtype or f.dtype != a.dtype:
        raise ValueError(f"u0 and f must have the dtype of a, {a.dtype}, got {u0.dtype} and {f.dtype}")
    rows = max(len(u0), len(a))
    if min(len(u0), len(a)) not in (1, rows):
        raise ValueError(f"u0 must have as many samples as a, {len(a)}, got {len(u0)}")
    shape = (rows, 1, *grid.size)
    if f.ndim > len(shape) or any(m not in (1, n) for m, n in zip(f.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(f"f must broadcast to {shape}, got shape {tuple(f.shape)}")
    every = steps if every is None else every
    whole = isinstance(steps, int) and isinstance(every, int)
    if not (0 < time < math.inf) or not whole or steps < 1 or every < 1 or steps % every:
        raise ValueError(
            f"time must be positive, and steps a multiple of every >= 1, got time = {time}, steps = {steps}, every = {every}"
        )
    rate = steps / (_GAMMA * time)
    problem = Diffusion(grid, a, boundary, shift=rate, faces=faces)
    inverse = problem.preconditioner()
    u, states = u0.expand(shape), []
    for step in range(1, steps + 1):
        middle = problem.solve(rate * u + f, preconditioner=inverse, x0=u.detach(), rtol=rtol)
        u = problem.solve(
            rate * (u + (1 - _GAMMA) / _GAMMA * (middle - u)) + f, preconditioner=inverse, x0=middle.detach(), rtol=rtol
        )
        if step % every == 0:
            states.append(u)
    return torch.cat(states, 1)


def darcy_released(
    a: Shaped[Tensor, "batch 1 nx ny"],
    start: Shaped[Tensor, "batch 1 nx ny"],
    grid: Grid,
    beta: float | int | Tensor = 1.0,
    *,
    time: float | int | None = 1.75,
    steps: int = 56,
    rtol: float | int | None = None,
) -> Float[Tensor, "batch 1 nx ny"]:
    """What PDEBench's Darcy files hold: the transient at t = 1.75 from a random start, arithmetic means, zero at ghost centres.

    Its distance from the steady state (``time=None``) decays like e^{-λt}, λ about 2 π² min a, and does not depend on β, while u
    grows with β: at β = 0.01 most of what is stored is the forgotten start.

    Args:
        a: coefficient, as ``starts.darcy_coefficient`` draws it.
        start: as ``starts.darcy_start`` draws it.
        grid: the box.
        beta: strength of the source, a number or one for each sample.
        time: of the snapshot; None for the steady state.
        steps: of SDIRK2.
        rtol: of the linear solves.
    """
    f = _strength(beta, a).expand_as(a)
    if time is None:
        return Diffusion(grid, a, Ghost(), faces="arithmetic").solve(f, rtol=rtol)
    return diffuse(start, a, f, grid, Ghost(), time=time, steps=steps, faces="arithmetic", rtol=rtol)

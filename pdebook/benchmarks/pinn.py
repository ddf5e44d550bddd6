"""Physics-informed networks for systems of equations: residuals by Taylor jets, kept apart or summed before they are squared.

A field is a function of points (t, x, ...), made of operations that jets know; see ``nn.jets``. PDEBench adds the residuals of a
system's equations and squares the sum, a loss that is blind: where r_1 = -r_2 it vanishes although no equation holds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.nn import collocation
from pdebook.nn.jets import partials
from pdebook.nn.mlp import MLP, initialised
from pdebook.rng import fold_in
from pdebook.training import History, fit

__all__ = [
    "acoustics",
    "advection",
    "burgers",
    "diffusion_reaction",
    "mean_square",
    "network",
    "on_grid",
    "train_pinn",
]

Field = Callable[[Any], Any]
Residual = Callable[[Field, Tensor], Tensor]
"""Residuals (points, equations) of a field at points."""

COMBINATIONS = ("vector", "sum")


def advection(f: Field, x: Float[Tensor, "points 2"], beta: float = 1.0) -> Float[Tensor, "points 1"]:
    """u_t + β u_x at points (t, x)."""
    _, first = partials(f, x, 1)
    return first[:, 0] + beta * first[:, 1]


def burgers(f: Field, x: Float[Tensor, "points 2"], viscosity: float = 0.01) -> Float[Tensor, "points 1"]:
    """u_t + u u_x - ν u_xx at points (t, x)."""
    u, first, second = partials(f, x, 2)
    return first[:, 0] + u * first[:, 1] - viscosity * second[:, 1]


def diffusion_reaction(f: Field, x: Float[Tensor, "points dim"]) -> Float[Tensor, "points 2"]:
    """Both residuals of PDEBench's diffusion-reaction system for f = (u, v) at points (t, x, y).

    r_1 = u_t - D_u Δu - (u - u³ - k - v), r_2 = v_t - D_v Δv - (u - v).
    """
    w, first, second = partials(f, x, 2)
    u, v = w[:, 0], w[:, 1]
    laplacian = second[:, 1:].sum(1)
    one = first[:, 0, 0] - 1e-3 * laplacian[:, 0] - (u - u**3 - 5e-3 - v)
    two = first[:, 0, 1] - 5e-3 * laplacian[:, 1] - (u - v)
    return torch.stack([one, two], 1)


def acoustics(f: Field, x: Float[Tensor, "points 2"], sign: float = 1.0) -> Float[Tensor, "points 2"]:
    """Residuals p_t + v_x and v_t + sign p_x of sound of speed one, f = (p, v) at points (t, x).

    PDEBench's residual of compressible flow has the pressure gradient with sign = -1.
    """
    _, first = partials(f, x, 1)
    return torch.stack([first[:, 0, 0] + first[:, 1, 1], first[:, 0, 1] + sign * first[:, 1, 0]], 1)


def mean_square(residuals: Float[Tensor, "points equations"], combine: str = "vector") -> Tensor:
    """mean Σ_i r_i² ("vector"), or mean (Σ_i r_i)² ("sum").

    Raises:
        ValueError: another combination.
    """
    if combine not in COMBINATIONS:
        raise ValueError(f"combine must be one of {', '.join(COMBINATIONS)}, got {combine!r}")
    if combine == "sum":
        return residuals.sum(1).square().mean()
    return residuals.square().sum(1).mean()


def network(inputs: int, outputs: int, *, width: int = 40, depth: int = 6, seed: int = 0) -> MLP:
    """PDEBench's network: a perceptron with tanh, six layers of forty."""
    return initialised(lambda: MLP(inputs, outputs, width=width, depth=depth), seed)


def train_pinn(
    model: nn.Module,
    residual: Residual,
    start: Callable[[Tensor], Tensor],
    *,
    end: float,
    steps: int,
    length: float = 1.0,
    points: tuple[int, int, int] = (1000, 1000, 5000),
    combine: str = "vector",
    lr: float = 1e-3,
    seed: int = 0,
    **options: Any,
) -> History:
    """Train u(t, x) on a periodic line: equation inside, equal values at both ends, and the start.

    Args:
        model: of points (t, x).
        residual: of the equation.
        start: u_0 at x (points, 1).
        end: last time.
        steps: optimiser steps, each with points of its own.
        length: of the box, which begins at 0.
        points: inside, at the ends, at the start.
        combine: see ``mean_square``.
        lr, seed, options: as in ``training.fit``.
    """
    inside, ends, begin = points

    def batch(seed: int, step: int) -> Any:
        box = [collocation.box([0.0, 0.0], [end, length], inside, seed=fold_in(seed, "inside"), stream=step)]
        box += [collocation.box([0.0], [end], ends, seed=fold_in(seed, "ends"), stream=step)]
        box += [collocation.box([0.0], [length], begin, seed=fold_in(seed, "start"), stream=step)]
        return box

    def loss(module: nn.Module, drawn: Any) -> Tensor:
        x, t, s = drawn
        low, high = (module(torch.cat([t, torch.full_like(t, value)], 1)) for value in (0.0, length))
        first = module(torch.cat([torch.zeros_like(s), s], 1)) - start(s)
        return mean_square(residual(module, x), combine) + (low - high).square().mean() + first.square().mean()

    return fit(model, loss, batch, steps=steps, lr=lr, seed=seed, **options)


def on_grid(
    fields: Sequence[Field], times: Float[Tensor, " time"], x: Float[Tensor, " n"]
) -> Float[Tensor, "sample time channel n"]:
    """u_θ(t, x) of one network for each sample at all times and places: frames as ``tasks.Forward.compare`` takes them.

    A network that solves for one start is no map from frame to frame, so there is nothing to roll out: it is asked for each
    time directly.

    Args:
        fields: one function of points (t, x) for each sample, to (points, channels).
        times: of the frames.
        x: places.
    Raises:
        ValueError: no fields.
    """
    if not fields:
        raise ValueError("fields must hold one function for each sample, got none")
    points = torch.cartesian_prod(times.to(x), x)
    with torch.no_grad():
        frames = [field(points).reshape(len(times), len(x), -1).transpose(1, 2) for field in fields]
    return torch.stack(frames)

"""The chapter's physics-informed networks: one for each of two starts and each of three problems, trained without data.

| problem | equation | why it is there |
|---|---|---|
| ``advection_beta0.1`` | u_t + 0.1 u_x = 0 | easy: until t = 2 the start moves by a fifth of the box |
| ``burgers_nu0.1`` | u_t + u u_x = (0.1/π) u_xx | the problem of the one-step networks in ``baselines`` |
| ``advection_beta4`` | u_t + 4 u_x = 0 | hard: the same start goes round eight times |

The starts are sine sums of a seed of their own, so no data set of the chapter holds them, and they are the same for all problems.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pdebook import weights
from pdebook.benchmarks import pdebench, pinn
from pdebook.benchmarks.tasks import Forward
from pdebook.data.trajectories import TensorSource
from pdebook.pde import starts
from pdebook.pde.grid import Grid
from pdebook.rng import fold_in
from pdebook.weights import Made

__all__ = ["END", "PROBLEMS", "SAMPLES", "Problem", "make_pinns", "places", "predicted", "shipped", "start", "task"]

END = 2.0
"""Last time; there are 21 frames from 0 on."""

SAMPLES = (0, 2)
"""Numbers of the starts: the first two without kinks, which a draw with bars has."""

STEPS, POINTS, RATE = 4000, (256, 64, 256), 3e-3
"""Optimiser steps; points inside, at the ends and at the start, drawn anew in each step; learning rate, which falls as a cosine."""

_SEED, _CELLS, _FINE = fold_in(0, "pinn"), 64, 256


class Problem(NamedTuple):
    """An equation for a physics-informed network.

    Attributes:
        residual: of a field at points (t, x).
        refine: cells of the solver for each cell of the task.
    """

    residual: pinn.Residual
    refine: int = 1


PROBLEMS = {
    "advection_beta0.1": Problem(partial(pinn.advection, beta=0.1)),
    "burgers_nu0.1": Problem(partial(pinn.burgers, viscosity=0.1 / math.pi), _FINE // _CELLS),
    "advection_beta4": Problem(partial(pinn.advection, beta=4.0)),
}
"""The problems by the names of their data sets."""


def _problem(name: str) -> Problem:
    if name not in PROBLEMS:
        raise ValueError(f"name must be one of {', '.join(PROBLEMS)}, got {name!r}")
    return PROBLEMS[name]


def start(sample: int, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """u_0 of a start's number as ``pinn.train_pinn`` takes it: from x (points, 1) to (points, 1), at any place on the device."""
    sums = starts.SineSums.draw(_SEED, torch.tensor([sample]), Grid(_CELLS), period="exact", device=device)
    return lambda x: sums(x.T).T.to(x)


def task(name: str, device: torch.device | str = "cpu") -> Forward:
    """The trajectories of ``SAMPLES`` as a forward task without training samples: 64 points, frame 0 given and 20 to predict.

    Burgers' equation is solved on 256 cells of which every fourth is kept, as in ``baselines.burgers_task``; advection is exact.

    Raises:
        ValueError: another problem.
    """
    refine = _problem(name).refine
    options: dict[str, Any] = {"fidelity": "exact", "resolution": _CELLS * refine, "frames": 21, "end": END}
    made = pdebench.make(name, SAMPLES, seed=_SEED, device=device, **options)
    return Forward(TensorSource(made.u[..., ::refine], made.times), [], range(len(SAMPLES)), history=1)


def places(name: str, device: torch.device | str = "cpu") -> Tensor:
    """Where the task of this name has its 64 values: the centres of cells of the solver's grid."""
    refine = _problem(name).refine
    return Grid(_CELLS * refine).coordinates(device=device)[0][::refine].float()


def predicted(name: str, networks: Sequence[nn.Module]) -> Tensor:
    """What networks, one for each sample, say for the 20 frames of a task: (sample, time, channel, n).

    Raises:
        ValueError: another problem, or not one network for each sample.
    """
    if len(networks) != len(SAMPLES):
        raise ValueError(f"networks must be one for each of {len(SAMPLES)} samples, got {len(networks)}")
    device = next(networks[0].parameters()).device
    return pinn.on_grid(networks, torch.linspace(0, END, 21, device=device)[1:], places(name, device))


def make_pinns(seed: int = 0) -> Made:
    """Train a network for each problem and each start; stored in single precision."""
    tensors: dict[str, Tensor] = {}
    metrics = {}
    for name, problem in PROBLEMS.items():
        networks = []
        for sample in SAMPLES:
            network = pinn.network(2, 1, seed=fold_in(seed, f"{name} {sample}"))
            pinn.train_pinn(
                network,
                problem.residual,
                start(sample),
                end=END,
                steps=STEPS,
                points=POINTS,
                lr=RATE,
                seed=fold_in(seed, f"points {name} {sample}"),
            )
            networks.append(network)
            tensors |= {f"{name}/{sample}/{key}": value for key, value in network.state_dict().items()}
        metrics[f"{name}: nRMSE"] = round(task(name).compare(predicted(name, networks)).mean("nrmse"), 4)
    return Made(tensors, metrics)


def shipped(name: str, device: torch.device | str = "cpu") -> list[nn.Module]:
    """The shipped networks of a problem, one for each of ``SAMPLES``, in evaluation mode.

    Raises:
        ValueError: another problem.
    """
    _problem(name)
    stored = weights.load("pdebench_pinns")
    networks: list[nn.Module] = []
    for sample in SAMPLES:
        network = pinn.network(2, 1)
        prefix = f"{name}/{sample}/"
        network.load_state_dict({k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)})
        networks.append(network.to(device).eval())
    return networks

"""Runs the official PNDM and the schedulers of diffusers on the cases of ``pndm_cases``; imported only where they are at hand."""

from pathlib import Path
from typing import Any

import torch
from diffusion_cases import initial, mixture
from diffusion_peers import official as load
from pndm_cases import DIFFUSERS, LEVELS, DiffusersCase, alphas_cumprod, diffusers_levels, network, official_names
from torch import Tensor

from pdebook.diffusion.schedules import scaled_linear_betas

REPOSITORY = "https://github.com/luping-liu/PNDM"
FILE = "runner/method.py"


def official(folder: Path) -> dict[str, Any]:
    """Results and numbers of evaluations of the official code in a clone of its repository."""
    method = load(folder / FILE)
    return {"cases": {name: _run(method, name) for name in official_names()}}


def _run(method: Any, name: str) -> dict[str, Any]:
    kind, steps = name.split()
    calls: list[float] = []

    def model(x: Tensor, step: Tensor) -> Tensor:
        calls.append(float(step[0]))
        return network(x.flatten(1), step).reshape(x.shape)

    # What runner/runner.py does with its sequence of steps.
    numbers = range(0, LEVELS, LEVELS // int(steps))
    x = initial(torch.float64)
    state, history = x.reshape(len(x), -1, 1, 1), []
    for n, following in zip(reversed(numbers), reversed([-1, *numbers[:-1]]), strict=True):
        now, then = (torch.full((len(x),), float(step)) for step in (n, following))
        state = method.choose_method(kind)(state, now, then, model, alphas_cumprod(), history)
    return {"result": state.flatten(1).tolist(), "evaluations": len(calls), "first": calls[0], "last": calls[-1]}


def diffusers() -> dict[str, Any]:
    """Float32 results of PNDMScheduler and IPNDMScheduler."""
    return {"cases": {name: {"result": run_diffusers(case).tolist()} for name, case in DIFFUSERS.items()}}


def run_diffusers(case: DiffusersCase) -> Tensor:
    """Float32 result of one scheduler."""
    import diffusers as package

    x, model = initial(torch.float32), mixture(torch.float32)
    if case.scheduler == "IPNDMScheduler":
        scheduler = package.IPNDMScheduler()
        scheduler.set_timesteps(case.steps)
        # Their first level holds no signal at all; the comparison begins at the second.
        scheduler.set_begin_index(1)
        for i, t in enumerate(scheduler.timesteps[1:], start=1):
            alpha, sigma = float(scheduler.alphas[i]), float(scheduler.betas[i])
            noise = model.noise(x, alpha, sigma)
            velocity = alpha * noise - sigma * (x - sigma * noise) / alpha
            x = scheduler.step(velocity, t, x, return_dict=False)[0]
        return x
    config = {"trained_betas": scaled_linear_betas(LEVELS).numpy(), "num_train_timesteps": LEVELS, **case.config}
    scheduler = package.PNDMScheduler(**config)
    scheduler.set_timesteps(case.steps)
    for t in scheduler.timesteps:
        level = float(diffusers_levels()[int(t)])
        x = scheduler.step(model.noise(x, level**0.5, (1.0 - level) ** 0.5), int(t), x, return_dict=False)[0]
    return x

"""The learned baselines of PDEBench: FNO and U-Net of its sizes, and the ways of training a one-step map for a rollout.

| training | calls without a gradient, then with one | loss on |
|---|---|---|
| one step | 0, 1 | the next frame, from true frames with a little noise |
| autoregressive | 0, K | K frames |
| pushforward | F, K | the last K: the inputs are such as the model makes them, and no gradient flows into them |
| temporal bundling | any of these | b frames from each call |

Source: Takamoto et al. 2022, PDEBench, appendix; pushforward and bundling are Brandstetter, Worrall and Welling 2022.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pdebook import weights
from pdebook.benchmarks import pdebench
from pdebook.benchmarks.tasks import Forward
from pdebook.data.trajectories import batches
from pdebook.nn.fno import FNO
from pdebook.nn.mlp import initialised
from pdebook.nn.padding import DomainPad
from pdebook.nn.pde_unet import conv_unet
from pdebook.rng import fold_in
from pdebook.rollout import gaussian_noise, rollout
from pdebook.training import History, fit
from pdebook.weights import Made

__all__ = ["NETWORKS", "Plan", "burgers_models", "burgers_task", "fno", "make_burgers", "shipped", "train", "unet"]


def fno(
    inputs: int,
    outputs: int,
    dims: int,
    *,
    modes: int = 12,
    width: int = 20,
    padding: int = 2,
    seed: int = 0,
) -> FNO:
    """PDEBench's FNO: four layers GELU(Kv + Wv), the last without GELU, ``modes`` lowest modes of each axis in either direction.

    Two cells of zeros at the end of each axis; 23 937 parameters in one dimension for ten frames of one channel.

    Args:
        inputs: frames times channels that go in.
        outputs: channels that come out.
        dims: axes of the grid.
        modes: non-negative wavenumbers that are kept along each axis.
        width: channels between.
        padding: cells of zeros.
        seed: of the first weights.
    """
    kept = [2 * modes] * (dims - 1) + [2 * modes - 1]
    return initialised(
        lambda: FNO(
            inputs,
            outputs,
            kept,
            width=width,
            lifting=0,
            projection=128,
            padding=DomainPad(padding) if padding else None,
            mlp=None,
            skip_bias=True,
            bias=False,
            init="uniform",
        ),
        seed,
    )


def unet(inputs: int, outputs: int, dims: int, *, features: int = 32, seed: int = 0, **options: Any) -> nn.Module:
    """PDEBench's U-Net: five levels, batch norm, tanh, zeros beyond the walls; 2 708 673 parameters in one dimension.

    Args:
        inputs, outputs, dims, seed: as in ``fno``.
        features: channels of the finest level.
        options: of ``conv_unet``, such as ``padding_mode="circular"``.
    """
    return initialised(lambda: conv_unet(inputs, outputs, dims, features=features, **options), seed)


@dataclass(frozen=True)
class Plan:
    """How a one-step map is trained; see the module's table.

    Attributes:
        calls: calls with a gradient, whose frames the loss sees.
        free: calls before them without one.
        bundle: frames of one call.
        warm: share of the run that takes one step from true frames, before ``free`` and ``calls`` count.
        noise: standard deviation of what is added to the inputs of each call.
    Raises:
        ValueError: numbers out of range.
    """

    calls: int = 1
    free: int = 0
    bundle: int = 1
    warm: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.calls < 1 or self.free < 0 or self.bundle < 1 or not 0 <= self.warm <= 1 or self.noise < 0:
            raise ValueError(
                "calls and bundle must be positive, free and noise not negative, warm in [0, 1], got "
                f"{self.calls}, {self.bundle}, {self.free}, {self.noise} and {self.warm}"
            )

    @property
    def ahead(self) -> int:
        """Frames after the history that an example holds."""
        return (self.free + self.calls) * self.bundle

    def loss(self, model: nn.Module, batch: Any, *, warm: bool = False, seed: int = 0) -> Tensor:
        """Mean square error of the frames that the loss sees.

        Args:
            model: the map.
            batch: with "history" and "target", as ``Windows`` makes them.
            warm: one step from true frames.
            seed: of the noise.
        """
        free, calls = (0, 1) if warm else (self.free, self.calls)
        frames = (free + calls) * self.bundle
        predicted = rollout(
            model,
            batch["history"],
            frames,
            bundle=self.bundle,
            gradient_calls=calls,
            perturb=gaussian_noise(self.noise, seed) if self.noise else None,
        )
        seen = slice(free * self.bundle, frames)
        return (predicted[:, seen] - batch["target"][:, seen]).square().mean()


def train(
    model: nn.Module,
    task: Forward,
    plan: Plan | None = None,
    *,
    steps: int,
    batch: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    **options: Any,
) -> History:
    """Train a one-step map on a task's training samples, in place.

    Args:
        model: the map.
        task: the task.
        plan: how; one step if left out.
        steps: optimiser steps.
        batch: windows in a step.
        lr: learning rate at the start.
        seed: of the order of the windows, and of noise.
        options: of ``training.fit``.
    """
    chosen = Plan() if plan is None else plan
    make = batches(task.windows(chosen.ahead), batch, device=next(model.parameters()).device)
    warm = round(chosen.warm * steps)

    def numbered(seed: int, step: int) -> Any:
        return {**make(seed, step), "step": torch.tensor(step)}

    def loss(module: nn.Module, examples: Any) -> Tensor:
        step = int(examples["step"])
        return chosen.loss(module, examples, warm=step < warm, seed=fold_in(seed, f"noise {step}"))

    return fit(model, loss, numbered, steps=steps, lr=lr, seed=seed, **options)


# -------------------- the chapter's example: Burgers' equation, small


def burgers_task(*, train: int = 200, test: int = 40, seed: int = 0, nu: float = 0.1, device: Any = "cpu") -> Forward:
    """PDEBench's Burgers file of ν, made by ETDRK4 on 256 cells, every fourth of them kept; 21 frames up to t = 2.

    Samples for testing have numbers from 0 of the given seed; those for training are the same for all seeds.
    """
    options: dict[str, Any] = {"fidelity": "exact", "resolution": 256, "frames": 21, "device": device}
    name = f"burgers_nu{nu:g}"
    tested = pdebench.make(name, test, seed=fold_in(seed, "test"), **options)
    trained = pdebench.make(name, train, seed=fold_in(0, "train"), **options)
    return Forward.of(torch.cat([tested.u, trained.u])[..., ::4], tested.times, test=test, history=1)


STEPS = 900
_ONE, _PUSHED = Plan(), Plan(free=2, warm=0.3)

NETWORKS: dict[str, tuple[Callable[[int], nn.Module], Plan, float, int]] = {
    "fno": (lambda seed: fno(1, 1, 1, seed=seed), _ONE, 4e-3, 0),
    "fno, pushforward": (lambda seed: fno(1, 1, 1, seed=seed), _PUSHED, 4e-3, 0),
    "unet 0": (lambda seed: unet(1, 1, 1, features=8, seed=seed), _ONE, 3e-3, 0),
    "unet 1": (lambda seed: unet(1, 1, 1, features=8, seed=seed), _ONE, 3e-3, 1),
    "unet 0, pushforward": (lambda seed: unet(1, 1, 1, features=8, seed=seed), _PUSHED, 3e-3, 0),
    "unet 1, pushforward": (lambda seed: unet(1, 1, 1, features=8, seed=seed), _PUSHED, 3e-3, 1),
}
"""The shipped networks: how they are built and trained, with which learning rate and seed. All take the same number of steps."""


def make_burgers(seed: int = 0) -> Made:
    """Train all of ``NETWORKS``; stored in half precision, complex weights as pairs."""
    task = burgers_task()
    tensors, metrics = {}, {}
    for name, (build, plan, lr, own) in NETWORKS.items():
        model = build(own)
        train(model, task, plan, steps=STEPS, lr=lr, seed=fold_in(seed, f"run {own}"))
        for key, value in model.state_dict().items():
            stored = torch.view_as_real(value) if value.is_complex() else value
            tensors[f"{name}/{key}"] = stored.half() if stored.is_floating_point() else stored
        _load(model, name, tensors)
        metrics[f"{name}: rollout nRMSE"] = round(task.evaluate(model).mean("nrmse"), 4)
    return Made(tensors, metrics)


def _load(model: nn.Module, name: str, tensors: dict[str, Tensor]) -> None:
    state = {}
    for key, value in model.state_dict().items():
        found = tensors[f"{name}/{key}"]
        if value.is_complex():
            found = torch.view_as_complex(found.float())
        state[key] = found.to(value.dtype)
    model.load_state_dict(state)


def shipped(name: str, device: torch.device | str = "cpu") -> nn.Module:
    """A network of ``NETWORKS`` with its shipped weights, in evaluation mode.

    Raises:
        ValueError: another name.
    """
    if name not in NETWORKS:
        raise ValueError(f"name must be one of {', '.join(NETWORKS)}, got {name!r}")
    build, _, _, own = NETWORKS[name]
    model = build(own)
    _load(model, name, weights.load("pdebench_burgers"))
    return model.to(device).eval()


def burgers_models(device: torch.device | str = "cpu") -> dict[str, nn.Module]:
    """All shipped networks by name."""
    return {name: shipped(name, device) for name in NETWORKS}

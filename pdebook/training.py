"""The one training loop of the book: ``fit``; its schedules are in ``learning_rates``.

A batch is a function of (seed, step), so there is no loader whose place must be kept: a run that was killed goes on
from its checkpoint with the same losses to the last bit (on a CPU). Several processes, GPUs or machines share each batch,
and the curve is that of one process up to rounding. They are started by accelerate on GPUs, and by torchrun on CPUs, where
``accelerate launch --cpu`` starts a single process unless MPI does it::

    accelerate launch --multi_gpu --num_processes 4 train.py
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 train.py
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import recursively_apply
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from pdebook import checkpoints
from pdebook.learning_rates import (
    SCHEDULES,
    Schedule,
    constant,
    exponential,
    inverse_sqrt,
    one_cycle,
    warmup_cosine,
)
from pdebook.rng import fold_in

__all__ = [
    "SCHEDULES",
    "Diverged",
    "History",
    "constant",
    "decay_matrices",
    "exponential",
    "fit",
    "inverse_sqrt",
    "one_cycle",
    "swapped",
    "warmup_cosine",
]

Groups = Iterable[Mapping[str, Any]] | Callable[[nn.Module], Iterable[Mapping[str, Any]]]
Precision = Literal["full", "bf16", "fp16"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_KIND = "pdebook.training 1"


class Diverged(FloatingPointError):
    """The loss is no longer finite.

    Attributes:
        step: first bad step.
        checkpoint: the last good checkpoint, or None.
    """

    def __init__(self, step: int, what: str, checkpoint: Path | None, saved: int) -> None:
        good = f"step {saved} in {checkpoint}" if checkpoint and saved else "none was written"
        super().__init__(f"{what} at step {step}; last good checkpoint: {good}")
        self.step = step
        self.checkpoint = checkpoint if saved else None


@dataclass(frozen=True)
class History:
    """What a run did.

    Attributes:
        losses: loss of each step, on the CPU, those before a resumption included.
        rates: learning rate of each step, of the first parameter group.
        seconds: wall time, that before a resumption included up to its checkpoint.
        ema: averaged weights as a state dict, or None; see `swapped`.
    """

    losses: Float[Tensor, " steps"]
    rates: Float64[Tensor, " steps"]
    seconds: float
    ema: dict[str, Tensor] | None


# -------------------- parameters


def decay_matrices(weight_decay: float) -> Callable[[nn.Module], list[dict[str, Any]]]:
    """Parameter groups for ``fit``: weight decay for what has two axes or more, none for biases, gains and offsets."""

    def groups(module: nn.Module) -> list[dict[str, Any]]:
        parameters = [p for p in module.parameters() if p.requires_grad]
        return [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]

    return groups


def _parameter_groups(module: nn.Module, groups: Groups | None) -> list[dict[str, Any]]:
    """The groups as lists, after a check that each trainable parameter is in exactly one of them."""
    trainable = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("module must have a parameter to train, got none that requires a gradient")
    if groups is None:
        return [{"params": [p for p in module.parameters() if p.requires_grad]}]
    listed = groups(module) if callable(groups) else groups
    found = [{**group, "params": list(group["params"])} for group in listed]
    seen: set[int] = set()
    for group in found:
        for parameter in group["params"]:
            if id(parameter) not in trainable or id(parameter) in seen:
                name = trainable.get(id(parameter), f"of shape {tuple(parameter.shape)}")
                raise ValueError(f"groups must hold each trainable parameter of the module once, got {name} besides")
            seen.add(id(parameter))
    if missing := [name for key, name in trainable.items() if key not in seen]:
        raise ValueError(f"groups must hold each trainable parameter of the module once; {missing[0]} is in none")
    return [group for group in found if group["params"]]


class _Average:
    """Exponential moving average of a module's parameters; buffers are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.parameters = list(module.parameters())
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters after ``step``; early steps weigh more, so that the start is forgotten soon."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        get_ema_multi_avg_fn(decay)(self.values, self.parameters, step)

    def state_dict(self) -> dict[str, Tensor]:
        """The module's state dict with averages in place of parameters."""
        values = {id(p): value for p, value in zip(self.parameters, self.values, strict=True)}
        return {k: values.get(id(v), v.detach()) for k, v in self.module.state_dict(keep_vars=True).items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the averages from a state dict."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])


@contextlib.contextmanager
def swapped(module: nn.Module, state: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """The module with other weights, such as ``History.ema``, inside the ``with`` block."""
    own = {name: value.detach().clone() for name, value in module.state_dict().items()}
    module.load_state_dict(state)
    try:
        yield module
    finally:
        module.load_state_dict(own)


# -------------------- the loop


class _Objective(nn.Module):
    """The loss as a module's forward pass, so that several processes can wrap it whatever the loss does with the module."""

    def __init__(self, module: nn.Module, loss: Callable[[Any, Any], Tensor], device: str, precision: str) -> None:
        super().__init__()
        self.module, self.loss = module, loss
        # Not accelerate's own autocast: its precision is fixed for the life of the process, and a book trains in several.
        dtype = _AUTOCAST.get(precision)
        self.autocast = lambda: torch.autocast(device, dtype, enabled=dtype is not None)

    def forward(self, batch: Any) -> Tensor:
        with self.autocast():
            value = self.loss(self.module, batch)
        if not isinstance(value, Tensor) or value.ndim:
            raise ValueError(f"loss must return a scalar tensor, got {getattr(value, 'shape', type(value).__name__)}")
        return value


def fit(
    module: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batches: Callable[[int, int], Any],
    *,
    steps: int,
    lr: float = 1e-3,
    seed: int = 0,
    schedule: Schedule | None = None,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    groups: Groups | None = None,
    clip: float | None = None,
    ema: float | None = None,
    precision: Precision = "full",
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    resume: bool = True,
    log_every: int = 50,
    progress: bool | None = None,
) -> History:
    """Train a module in place with AdamW.

    With several processes the module moves to the process's device, each process takes its slice of the first axis of all
    tensors in a batch, and ``loss`` must be a mean over the batch. The checkpoint must be on a disk that all of them see.

    Args:
        module: what to train, on the device where it is to be trained.
        loss: ``loss(module, batch)``, a scalar tensor. PyTorch's generators are seeded from (seed, step) before each call.
        batches: ``batches(seed, step)``, the batch of a step: tensors, possibly in dicts, lists and tuples; a pure function.
        steps: number of steps.
        lr: learning rate, times ``schedule(step, steps)``.
        seed: seed of the run, 0 <= seed < 2^63.
        schedule: factor of the learning rate; ``warmup_cosine()`` if left out.
        weight_decay: decoupled weight decay.
        betas: decay rates of Adam's averages.
        groups: parameter groups with their own ``lr`` or ``weight_decay``, or a function of the module that makes them.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights, such as 0.999.
        precision: "full", or "bf16" or "fp16" under autocast; the weights stay as they are.
        checkpoint: file that holds the whole state, replaced atomically; ``*.safetensors``.
        checkpoint_every: steps between checkpoints; the last step always makes one.
        resume: go on from the checkpoint if there is one, else start anew and replace it.
        log_every: steps between looks at the loss: only there does the device wait for the host.
        progress: show a progress bar; if None, on a terminal only.
    Raises:
        ValueError: arguments out of range, parameter groups that don't cover the module, a loss that is no scalar, a batch that
            does not split, a checkpoint that is damaged, foreign or of another run.
        Diverged: a loss or a weight that is not finite, noticed at the next look; the checkpoint stays as it was.
    """
    path = None if checkpoint is None else Path(checkpoint)
    _check_arguments(steps, lr, clip, ema, precision, path, checkpoint_every, log_every)
    schedule = warmup_cosine() if schedule is None else schedule
    accelerator = Accelerator()
    single, rank = accelerator.num_processes == 1, accelerator.process_index
    device = next(module.parameters(), torch.empty(0)).device if single else accelerator.device
    module.to(device)
    listed = _parameter_groups(module, groups)
    optimizer = torch.optim.AdamW(listed, lr=lr, betas=betas, weight_decay=weight_decay)
    rates = [group["lr"] for group in optimizer.param_groups]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    average = None if ema is None else _Average(module, ema)
    settings = {
        "steps": steps,
        "seed": seed,
        "rates": [[rate * schedule(k * (steps - 1) // 4, steps) for k in range(5)] for rate in rates],
        "weight_decay": [group["weight_decay"] for group in optimizer.param_groups],
        "betas": list(betas),
        "clip": clip,
        "ema": ema,
        "precision": precision,
    }
    dtype = torch.promote_types(torch.float32, next(module.parameters()).dtype.to_real())
    losses = torch.zeros(steps, dtype=dtype, device=device)
    run = _Run(module, optimizer, average, scaler, losses, settings)
    start, before = run.load(path) if path and resume and path.exists() else (0, 0.0)
    objective: Any = _Objective(module, loss, device.type, precision)
    if not single:
        objective = accelerator.prepare(objective)
    size, began = accelerator.num_processes, time.perf_counter()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    was_training, seen, saved = module.training, start, start
    module.train()
    bar = tqdm(total=steps, initial=start, disable=True if rank else None if progress is None else not progress)
    with bar, torch.random.fork_rng([device] if device.type == "cuda" else []):
        for step in range(start, steps):
            torch.manual_seed(fold_in(seed, f"step {step} of process {rank}"))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(step, steps)
            batch = recursively_apply(lambda x: _share(x, rank, size).to(device), batches(seed, step))
            optimizer.zero_grad()
            value = objective(batch)
            scaler.scale(value).backward()
            if clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(parameters, clip)
            scaler.step(optimizer)
            scaler.update()
            losses[step] = value.detach()
            if average is not None:
                average.update(step)
            bar.update()
            done = step + 1
            due = path is not None and (done % checkpoint_every == 0 or done == steps)
            if due or done % log_every == 0 or done == steps:
                recent = losses[seen:done]
                if not single:
                    recent.copy_(accelerator.reduce(recent.clone(), "mean"))
                if bad := (~recent.isfinite()).nonzero().flatten().tolist():
                    raise Diverged(seen + bad[0], f"the loss became {float(recent[bad[0]])}", path, saved)
                seen = done
                bar.set_postfix(loss=f"{float(recent[-1]):.4g}", refresh=False)
                run.check_finite(step, path, saved)
            if due and path is not None:
                if accelerator.is_main_process:
                    run.save(path, done, before + time.perf_counter() - began)
                accelerator.wait_for_everyone()
                saved = done
    module.train(was_training)
    return History(
        losses.cpu(),
        torch.tensor([rates[0] * schedule(step, steps) for step in range(steps)], dtype=torch.float64),
        before + time.perf_counter() - began,
        None if average is None else {name: value.clone() for name, value in average.state_dict().items()},
    )


def _check_arguments(
    steps: int,
    lr: float,
    clip: float | None,
    ema: float | None,
    precision: str,
    path: Path | None,
    checkpoint_every: int,
    log_every: int,
) -> None:
    for name, value in (("steps", steps), ("checkpoint_every", checkpoint_every), ("log_every", log_every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be positive, got {lr}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, got {clip}")
    if ema is not None and not 0 <= ema < 1:
        raise ValueError(f"ema must be in [0, 1), got {ema}")
    if precision not in ("full", *_AUTOCAST):
        raise ValueError(f"precision must be full, {' or '.join(_AUTOCAST)}, got {precision!r}")
    # Noticed now, not when the first checkpoint is due.
    if path is not None and (path.suffix.lower() in checkpoints.PICKLE_SUFFIXES or not path.parent.is_dir()):
        raise ValueError(f"checkpoint must be a .safetensors file in a folder that exists, got {path}")


def _share(x: Tensor, rank: int, size: int) -> Tensor:
    """The part of a batch's tensor that belongs to process ``rank`` of ``size``."""
    if size == 1 or not x.ndim:
        return x
    if len(x) % size:
        raise ValueError(f"batches must give batches that split evenly over {size} processes, got one of {len(x)}")
    part = len(x) // size
    return x[rank * part : (rank + 1) * part]


class _Run:
    """The state of a run, as one file: weights, averages, optimiser, losses, and the settings that a resumption must share."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: _Average | None,
        scaler: torch.amp.GradScaler,
        losses: Tensor,
        settings: Mapping[str, Any],
    ) -> None:
        self.module, self.optimizer, self.average = module, optimizer, average
        self.scaler, self.losses, self.settings = scaler, losses, settings
        names = {id(p): name for name, p in module.named_parameters()}
        self.names = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]

    def _weights(self) -> dict[str, Tensor]:
        state = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        if self.average is not None:
            state |= {f"ema.{name}": value for name, value in self.average.state_dict().items()}
        return state

    def check_finite(self, step: int, path: Path | None, saved: int) -> None:
        """Raise Diverged if a parameter is not finite, after a finite loss: such a state is no good checkpoint."""
        values = [p.detach() for group in self.optimizer.param_groups for p in group["params"]]
        if not bool(torch.stack([value.isfinite().all() for value in values]).all()):
            raise Diverged(step, "a weight is no longer finite", path, saved)

    def save(self, path: Path, step: int, seconds: float) -> None:
        """Write the state after ``step`` steps."""
        state = self.optimizer.state_dict()["state"]
        moments = {f"optimizer.{self.names[i]}/{k}": v for i, entry in state.items() for k, v in entry.items()}
        note = {"kind": _KIND, "step": step, "seconds": seconds, "settings": self.settings}
        note["scaler"] = self.scaler.state_dict()
        checkpoints.save(path, self._weights() | moments | {"losses": self.losses}, note)

    def load(self, path: Path) -> tuple[int, float]:
        """Take the state of a checkpoint, after all checks; its number of steps and its seconds."""
        tensors, note = checkpoints.load(path, own=True)
        if note.get("kind") != _KIND:
            raise ValueError(f"checkpoint {path} does not hold the state of a run")
        for name, value in self.settings.items():
            if note["settings"][name] != value:
                raise ValueError(
                    f"checkpoint {path} is of another run: its {name} is {note['settings'][name]}, this one's is {value}; "
                    "use another file, or resume=False to replace it"
                )
        moments = {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
        weights = {name: value for name, value in tensors.items() if name.startswith(("module.", "ema."))}
        checkpoints.check_shapes(path, weights, {name: value.shape for name, value in self._weights().items()})
        state: dict[int, dict[str, Tensor]] = {}
        index = {name: i for i, name in enumerate(self.names)}
        for key, value in moments.items():
            name, _, entry = key.rpartition("/")
            if name not in index:
                raise ValueError(f"checkpoint {path} is of another run: there, {name} was trained")
            state.setdefault(index[name], {})[entry] = value
        self.module.load_state_dict(
            {k.removeprefix("module."): v for k, v in weights.items() if k.startswith("module.")}
        )
        if self.average is not None:
            self.average.load({k.removeprefix("ema."): v for k, v in weights.items() if k.startswith("ema.")})
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.scaler.load_state_dict(note["scaler"])
        self.losses.copy_(tensors["losses"])
        return int(note["step"]), float(note["seconds"])

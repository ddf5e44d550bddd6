"""Autoregressive rollout of a one-step model, with history, bundles of times, pushforward, noise, hooks and checkpointing."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pdebook.rng import NoiseSource

__all__ = ["gaussian_noise", "rollout"]

Map = Callable[[Tensor], Tensor]
Hook = Callable[[int, Tensor], Tensor]


def rollout(
    model: Map,
    history: Float[Tensor, "batch times channels *grid"],
    steps: int,
    *,
    bundle: int = 1,
    gradient_calls: int | None = None,
    perturb: Hook | None = None,
    hook: Hook | None = None,
    encode: Map | None = None,
    decode: Map | None = None,
    chunk: int = 0,
) -> Float[Tensor, "batch steps channels *grid"]:
    """(u_{t+1}, ..., u_{t+b}) = model(u_{t-ℓ+1}, ..., u_t), fed back until there are ``steps`` new times.

    The model maps (batch, ℓ channels, *grid), times first, to (batch, b channels, *grid). Pushforward is ``gradient_calls=1``:
    the model is trained on inputs as it will make them. A rollout that blows up returns what it finds, for metrics to see.

    Args:
        model: the one-step map.
        history: the first ℓ times.
        steps: number of times to predict.
        bundle: b, the times that come from one call; of the last bundle the surplus is cut.
        gradient_calls: calls of the model, the last ones, that gradients flow through; all of them if left out. Calls before
            them leave the running statistics of batch norms alone.
        perturb: ``perturb(i, window)``: the input of call i, (batch, ℓ channels, *grid), such as with noise added.
        hook: ``hook(i, prediction)``: what stands in place of the prediction of call i, (batch, b, channels, *grid): boundary
            values set, a projection, a look.
        encode: applied to the history, once; the loop runs on what it returns.
        decode: applied to all predictions, once.
        chunk: calls whose activations are dropped and computed anew in the backward pass, so many at a time; 0 keeps them all.
    Raises:
        ValueError: numbers out of range, or a model or a hook whose output does not fit.
    Source: Brandstetter, Worrall and Welling 2022, Message passing neural PDE solvers, section 3 (pushforward, bundling).
    """
    if history.ndim < 4:
        raise ValueError(f"history must be (batch, times, channels, *grid), got shape {tuple(history.shape)}")
    if steps < 1 or bundle < 1 or chunk < 0:
        raise ValueError(f"steps and bundle must be at least 1, chunk not negative, got {steps}, {bundle} and {chunk}")
    if gradient_calls is not None and gradient_calls < 0:
        raise ValueError(f"gradient_calls must not be negative, got {gradient_calls}")
    window = history if encode is None else encode(history)
    times, channels = window.shape[1:3]
    if not times:
        raise ValueError(f"history must hold a time or more, got shape {tuple(window.shape)}")

    def run(start: int, stop: int, window: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for i in range(start, stop):
            flat = window.flatten(1, 2)
            output = model(flat if perturb is None else perturb(i, flat))
            if output.shape != (len(flat), bundle * channels, *flat.shape[2:]):
                raise ValueError(
                    f"model must return {bundle} x {channels} channels for inputs {tuple(flat.shape)}, "
                    f"got {tuple(output.shape)}"
                )
            new = output.unflatten(1, (bundle, channels))
            found.append(new if hook is None else hook(i, new))
            if found[-1].shape != new.shape:
                raise ValueError(f"hook must return shape {tuple(new.shape)}, got {tuple(found[-1].shape)}")
            window = torch.cat([window, found[-1]], 1)[:, -times:]
        return torch.cat(found, 1), window

    calls = -(-steps // bundle)
    free = 0 if gradient_calls is None else max(calls - gradient_calls, 0)
    predictions: list[Tensor] = []
    if free:
        with torch.no_grad(), _frozen(model):
            new, window = run(0, free, window)
        predictions.append(new)
    for start in range(free, calls, chunk or calls):
        stop = min(start + (chunk or calls), calls)
        new, window = checkpoint(run, start, stop, window, use_reentrant=False) if chunk else run(start, stop, window)
        predictions.append(new)
    result = torch.cat(predictions, 1)[:, :steps]
    return result if decode is None else decode(result)


@contextlib.contextmanager
def _frozen(model: Map) -> Iterator[None]:
    """Batch norms use the batch's statistics, if they are in training, and keep their running ones."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def gaussian_noise(std: float | int, seed: int) -> Hook:
    """A ``perturb`` that adds normal noise: the same for the same seed, call and sample, in any batch.

    Raises:
        ValueError: a negative std.
    """
    if not std >= 0:
        raise ValueError(f"std must not be negative, got {std}")
    source = NoiseSource(seed)
    return lambda i, window: window + std * source(i, window)

"""Runs neuraloperator on the shared inputs; imported only where it is installed."""

import warnings
from typing import Any

import torch
from comparison import difference
from neuraloperator_cases import LOSSES, MODELS, arguments, inputs, ours, set_weights, weights
from neuraloperator_cases import loss as our_loss
from torch import Tensor, nn


def model(name: str) -> nn.Module:
    """Their FNO, in float64 but for its weights' complex numbers, whose precision it fixes."""
    from neuralop.models import FNO

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FNO(**arguments(name))


def names(net: nn.Module) -> tuple[dict[str, list[int]], list[str]]:
    """Shapes of their parameters, and which of them are complex."""
    shapes = {name: list(p.shape) for name, p in net.named_parameters()}
    return shapes, [name for name, p in net.named_parameters() if p.is_complex()]


def theirs(name: str) -> dict[str, Any]:
    """Shapes, complex names, and float32 results as ``ours`` has them."""
    net, dims = model(name), MODELS[name]["dims"]
    shapes, complex_names = names(net)
    set_weights(net, weights(shapes, complex_names))
    net.eval()
    with torch.no_grad():
        layer = net.fno_blocks.convs[0](inputs(dims, 4, seed=2)[:1].float())
        return {"shapes": shapes, "complex": complex_names, "layer": layer, "model": net(inputs(dims, 2).float())}


def their_loss(name: str) -> Tensor:
    """Their loss, float64."""
    from neuralop.losses import H1Loss, LpLoss

    kind, dims = name.split()[0], int(name[-2])
    prediction, target = inputs(dims, 3, seed=3), inputs(dims, 3, seed=4)
    return H1Loss(d=dims)(prediction, target) if kind == "h1" else LpLoss(d=dims, p=int(kind[1]))(prediction, target)


def digits(value: Tensor) -> Any:
    """Nested lists with the nine digits that single precision has."""
    if value.ndim:
        return [digits(part) for part in value]
    return float(f"{float(value):.9g}")


def references() -> dict[str, Any]:
    """Results of all cases; prints how far ours are."""
    stored: dict[str, Any] = {}
    print("    layer     model  neuraloperator: relative difference of ours, float32")
    for name in MODELS:
        found = theirs(name)
        mine = ours(name, found["shapes"], found["complex"], torch.float32)
        print(
            f"{difference(mine['layer'], found['layer']):9.1e} {difference(mine['model'], found['model']):9.1e}  {name}"
        )
        stored[name] = {key: digits(value) if isinstance(value, Tensor) else value for key, value in found.items()}
    losses = {}
    for name in LOSSES:
        value = their_loss(name)
        print(f"{difference(our_loss(name), value):9.1e} {'':9}  {name}")
        losses[name] = float(value)
    return {"cases": stored, "losses": losses}

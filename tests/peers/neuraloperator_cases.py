"""What is compared with neuraloperator: inputs and weights by name, configurations of theirs, and for each our result.

Weights are functions of a seed and of their names there, so nothing but results and shapes is stored; ours take them through the
converter.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pdebook.losses import relative_h1, relative_lp
from pdebook.nn.fno import FNO
from pdebook.nn.neuraloperator import take_neuraloperator
from pdebook.nn.padding import DomainPad
from pdebook.rng import fold_in, normal

# On an odd number of points theirs shifts the spectrum back to another place than it came from (2.0.0), so all are even.
SIZES = {1: (12,), 2: (8, 10), 3: (6, 4, 8)}
MODES = {1: (6,), 2: (4, 6), 3: (4, 2, 4)}

MODELS: dict[str, dict[str, Any]] = {
    "dense 1d": {"dims": 1},
    "dense 2d": {"dims": 2},
    "dense 3d": {"dims": 3},
    "dense 2d, odd modes": {"dims": 2, "modes": (5, 5)},
    "tucker 1d": {"dims": 1, "factorization": "tucker"},
    "tucker 2d": {"dims": 2, "factorization": "tucker"},
    "tucker 3d": {"dims": 3, "factorization": "tucker"},
    "cp 2d": {"dims": 2, "factorization": "cp"},
    "cp 3d": {"dims": 3, "factorization": "cp"},
    "tt 2d": {"dims": 2, "factorization": "tt"},
    "tt 3d": {"dims": 3, "factorization": "tt"},
    "separable 2d": {"dims": 2, "separable": True},
    "separable tucker 2d": {"dims": 2, "separable": True, "factorization": "tucker"},
    "separable cp 2d": {"dims": 2, "separable": True, "factorization": "cp"},
    "group norm": {"dims": 2, "norm": "group_norm"},
    "instance norm": {"dims": 2, "norm": "instance_norm"},
    "preactivation": {"dims": 2, "preactivation": True, "norm": "group_norm"},
    "stabiliser": {"dims": 2, "stabilizer": "tanh"},
    "padding": {"dims": 2, "domain_padding": [0.25, 0.2]},
    "no grid": {"dims": 2, "positional_embedding": None},
    "skips": {"dims": 2, "fno_skip": "soft-gating", "channel_mlp_skip": "linear"},
    "identity skips": {"dims": 2, "fno_skip": "identity", "channel_mlp_skip": "identity"},
    "no skips": {"dims": 2, "fno_skip": None, "channel_mlp_skip": None},
    "linear lifting": {"dims": 2, "lifting_channel_ratio": 0},
    "expansion": {"dims": 2, "channel_mlp_expansion": 1.5},
    "four layers": {"dims": 2, "n_layers": 4},
}
"""Arguments of their FNO that differ from the defaults; ``dims`` and ``modes`` are ours."""

LOSSES = ("l1 2d", "l2 1d", "l2 2d", "h1 1d", "h1 2d", "h1 3d")
RANK = 0.4
_SKIPS = {"soft-gating": "soft"}
_NORMS = {"group_norm": "group", "instance_norm": "instance"}


def arguments(name: str) -> dict[str, Any]:
    """What their FNO is called with."""
    options = dict(MODELS[name])
    dims = options.pop("dims")
    factors = {"rank": RANK, "implementation": "factorized"} if "factorization" in options else {}
    fixed = {"n_modes": options.pop("modes", MODES[dims]), "in_channels": 2, "out_channels": 1, "hidden_channels": 4}
    return {"n_layers": 2, **fixed, **factors, **options}


def network(name: str) -> FNO:
    """Our FNO of the same configuration."""
    given = arguments(name)
    padding = given.get("domain_padding")
    skips = {
        ours: given[theirs]
        for ours, theirs in (("skip_kind", "fno_skip"), ("mlp_skip", "channel_mlp_skip"))
        if theirs in given
    }
    return FNO(
        2,
        1,
        given["n_modes"],
        width=4,
        layers=given["n_layers"],
        lifting=0 if given.get("lifting_channel_ratio") == 0 else None,
        grid=given.get("positional_embedding", "grid") is not None,
        padding=None if padding is None else DomainPad(padding, sides="both"),
        weight=given.get("factorization", "dense"),
        rank=given.get("rank", 1.0),
        separable=given.get("separable", False),
        mlp=given.get("channel_mlp_expansion", 0.5),
        norm_kind=_NORMS.get(given.get("norm")),
        preactivation=given.get("preactivation", False),
        stabiliser=given.get("stabilizer") == "tanh",
        **{ours: _SKIPS.get(kind, kind) for ours, kind in skips.items()},
    )


def inputs(dims: int, channels: int, seed: int = 1) -> Tensor:
    """Two fields, float64."""
    return normal(seed, torch.arange(2), (channels, *SIZES[dims]), dtype=torch.float64)


def weights(shapes: dict[str, list[int]], complex_names: list[str]) -> dict[str, Tensor]:
    """Numbers for tensors of these names and shapes, of a size that keeps signals alive."""
    state = {}
    for name, shape in shapes.items():
        pair = 2 if name in complex_names else 1
        draws = normal(fold_in(7, name), torch.arange(1), (pair, max(math.prod(shape), 1)), dtype=torch.float64)[0]
        value = 0.5 * draws.reshape(pair, *shape)
        state[name] = torch.complex(value[0], value[1]) if pair == 2 else value[0]
    return state


def ours(name: str, shapes: dict[str, list[int]], complex_names: list[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Output of our model, and of its first spectral layer alone."""
    net = network(name).double()
    take_neuraloperator(net, weights(shapes, complex_names))
    net = net.to(dtype)
    dims = MODELS[name]["dims"]
    with torch.no_grad():
        layer = net.blocks[0].spectral(inputs(dims, 4, seed=2)[:1].to(dtype))
        return {"layer": layer, "model": net(inputs(dims, 2).to(dtype))}


def loss(name: str) -> Tensor:
    """Our loss, summed over samples and channels as theirs is."""
    kind, dims = name.split()[0], int(name[-2])
    prediction, target = inputs(dims, 3, seed=3), inputs(dims, 3, seed=4)
    if kind == "h1":
        return relative_h1(prediction, target, dims=dims, method="central2", over="grid", mean=False).sum()
    return relative_lp(prediction, target, dims=dims, p=int(kind[1]), over="grid", mean=False).sum()


def set_weights(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Put the numbers into their model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])

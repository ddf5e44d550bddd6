"""Weights of neuraloperator's FNO and TFNO, taken into ours.

A file is read by ``torch.load(weights_only=True)``, which builds tensors and plain containers and runs nothing else. The two
names beside tensors that such a file holds, an activation and a class, are read as their names, never as what they name. Each
tensor must be on the list below, and it must fit a tensor of the network; what is not known is refused.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.serialization import safe_globals

from pdebook import checkpoints
from pdebook.nn.factorized import Dense, TensorTrain
from pdebook.nn.fno import FNO, FNOBlock

__all__ = ["load_neuraloperator", "take_neuraloperator"]

_SPECTRAL = r"fno_blocks\.convs\.(\d+)\."
NAMES: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"lifting\.fcs\.(\d+)\.(weight|bias)", lambda i, part: f"lift.{2 * int(i)}.{part}"),
    (r"projection\.fcs\.(\d+)\.(weight|bias)", lambda i, part: f"project.{2 * int(i)}.{part}"),
    (_SPECTRAL + "bias", lambda i: f"blocks.{i}.spectral.bias"),
    (_SPECTRAL + r"weight\.tensor", lambda i: f"blocks.{i}.spectral.weight.matrices"),
    (_SPECTRAL + r"weight\.(core|weights)", lambda i, part: f"blocks.{i}.spectral.weight.{part}"),
    (_SPECTRAL + r"weight\.factors\.factor_(\d+)", lambda i, k: f"blocks.{i}.spectral.weight.factors.{k}"),
    (r"fno_blocks\.fno_skips\.(\d+)\.(?:conv\.)?weight", lambda i: f"blocks.{i}.skip.weight"),
    (
        r"fno_blocks\.channel_mlp\.(\d+)\.fcs\.(\d+)\.(weight|bias)",
        lambda i, j, part: f"blocks.{i}.mlp.{2 * int(j)}.{part}",
    ),
    (r"fno_blocks\.channel_mlp_skips\.(\d+)\.(?:conv\.)?weight", lambda i: f"blocks.{i}.mlp_skip.weight"),
    (
        r"fno_blocks\.norm\.(\d+)\.(weight|bias)",
        lambda i, part: f"blocks.{int(i) // 2}.norms.{int(i) % 2}.{part}",
    ),
)
"""Their names, and ours."""

ALLOWED = ("torch._C._nn.gelu", "neuralop.layers.spectral_convolution.SpectralConv")
"""What a file may name beside tensors: the default activation and the default convolution, in its note of arguments."""


class _Named:
    """Stands for what a file names."""


def load_neuraloperator(net: FNO, path: str | os.PathLike[str]) -> None:
    """Take the weights of a file of neuraloperator's ``save_checkpoint`` or of ``torch.save(model.state_dict())``.

    Args:
        net: a network of the same configuration; it stays as it is if the file does not fit.
        path: the ``.pt`` file.
    Raises:
        ValueError: a file that names anything else than tensors, is damaged, or belongs to another configuration.
    """
    with safe_globals([(_Named, name) for name in ALLOWED]):
        content = checkpoints.load_torch(path)
    take_neuraloperator(net, content, path)


def take_neuraloperator(net: FNO, state: Mapping[str, Any], path: str | os.PathLike[str] = "state") -> None:
    """Take the weights of a state dict of neuraloperator; see ``load_neuraloperator``.

    Args:
        net: a network of the same configuration, without shared weights and with channel perceptrons.
        state: their state dict.
        path: what messages call it.
    """
    if any(block.mlp is None or block.spectral.layer is not None for block in _blocks(net)):
        raise ValueError(
            "net must have channel perceptrons and weights of its own in each block, as neuraloperator has them"
        )
    _check_arguments(net, state.get("_metadata"), path)
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "_metadata":
            continue
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path} is refused: {name!r} is {type(value).__name__}, expected a tensor with a name")
        ours = _our_name(net, name, path)
        found[ours] = _our_layout(net, ours, value, shapes.get(ours))
    checkpoints.check_shapes(path, found, shapes)
    net.load_state_dict(found)


def _blocks(net: FNO) -> list[FNOBlock]:
    return [cast(FNOBlock, block) for block in net.blocks]


def _check_arguments(net: FNO, arguments: Any, path: str | os.PathLike[str]) -> None:
    """Compare the note of arguments, if there is one: for what leaves no trace in names and shapes."""
    if not isinstance(arguments, Mapping):
        return
    block = _blocks(net)[0]
    expected = {
        "n_modes": tuple(block.spectral.modes),
        "preactivation": block.preactivation,
        "stabilizer": "tanh" if block.stabiliser else None,
        "complex_data": False,
        "resolution_scaling_factor": None,
        "use_channel_mlp": True,
    }
    for name, ours in expected.items():
        theirs = arguments.get(name, ours)
        if (tuple(theirs) if isinstance(theirs, list | tuple) else theirs) != ours:
            raise ValueError(f"{path} is of another configuration: its {name} is {theirs}, the network's is {ours}")
    if "domain_padding" in arguments and bool(arguments["domain_padding"]) != (net.padding is not None):
        theirs = arguments["domain_padding"]
        raise ValueError(
            f"{path} is of another configuration: its domain_padding is {theirs}, the network has {net.padding}"
        )


def _our_name(net: FNO, name: str, path: str | os.PathLike[str]) -> str:
    for pattern, ours in NAMES:
        if match := re.fullmatch(pattern, name):
            new = ours(*match.groups())
            if ".factors." in new and isinstance(_blocks(net)[0].spectral.weight, TensorTrain):
                return new.replace(".factors.", ".cores.")
            # One linear layer is no sequence here.
            root, _, part = new.partition(".0.")
            return f"{root}.{part}" if root in ("lift", "project") and new not in net.state_dict() else new
    raise ValueError(f"{path} is refused: {name!r} is no tensor that an FNO of neuraloperator holds")


def _our_layout(net: FNO, name: str, value: Tensor, shape: torch.Size | None) -> Tensor:
    """Wavenumbers in the transform's order instead of rising, pairs instead of complex numbers, no axes of size 1."""
    if not value.is_complex():
        if shape is None or [n for n in value.shape if n > 1] != [n for n in shape if n > 1]:
            return value
        return value.reshape(shape)
    conv = _blocks(net)[0].spectral
    channels, dims = 2 - conv.separable, len(conv.modes)
    full = range(channels, channels + dims - 1)
    if isinstance(conv.weight, Dense):
        if value.ndim != channels + dims:
            return value
        value = torch.fft.ifftshift(value, dim=tuple(full)) if full else value
        value = value.flatten(channels).movedim(-1, 0)
    elif (match := re.search(r"\.(factors|cores)\.(\d+)$", name)) and int(match[2]) in full:
        value = torch.fft.ifftshift(value, dim=0 if match[1] == "factors" else 1)
    return torch.view_as_real(value.contiguous())

"""Maps of the channels at each point: linear maps, perceptrons, gates, skip connections, norms that know no resolution."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["ChannelLinear", "ChannelMLP", "InstanceNorm", "SoftGate", "norm", "skip"]


def _check_channels(**channels: int) -> None:
    for name, number in channels.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


class ChannelLinear(nn.Module):
    """y_o(x) = Σ_i W_oi v_i(x) + b_o, a 1x1 convolution in any dimension, as one matrix product for each sample.

    Args:
        inputs: channels of v.
        outputs: channels of y.
        bias: whether there is a b.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        _check_channels(inputs=inputs, outputs=outputs)
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, v: Float[Tensor, "batch inputs *grid"]) -> Float[Tensor, "batch outputs *grid"]:
        """The map at each point."""
        if v.ndim < 2 or v.shape[1] != self.weight.shape[1]:
            raise ValueError(f"v must have {self.weight.shape[1]} channels, got shape {tuple(v.shape)}")
        flat, batch = v.flatten(2) if v.ndim > 2 else v[..., None], len(v)
        weight = self.weight.expand(batch, -1, -1)
        # The product adds to the bias: no pass of its own.
        out = torch.bmm(weight, flat) if self.bias is None else torch.baddbmm(self.bias[:, None], weight, flat)
        return out.reshape(batch, -1, *v.shape[2:])


class ChannelMLP(nn.Sequential):
    """Perceptron of the channels at each point: linear maps with an activation between them.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        hidden: channels of each hidden layer.
        depth: number of hidden layers; 0 is a linear map.
        activation: makes the activation.
    Raises:
        ValueError: a size below 1, or a negative depth.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden: int,
        depth: int = 1,
        activation: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        if depth < 0:
            raise ValueError(f"depth must not be negative, got {depth}")
        _check_channels(inputs=inputs, outputs=outputs, **({"hidden": hidden} if depth else {}))
        sizes = [inputs, *[hidden] * depth, outputs]
        layers: list[nn.Module] = []
        for i in range(depth + 1):
            layers += [ChannelLinear(sizes[i], sizes[i + 1])] + ([activation()] if i < depth else [])
        super().__init__(*layers)


class SoftGate(nn.Module):
    """w_c v_c(x) + b_c: each channel times a number, 1 at the start.

    Args:
        channels: number of channels.
        bias: whether there is a b, 1 at the start.
    """

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__()
        _check_channels(channels=channels)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.ones(channels)) if bias else None

    def forward(self, v: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
        """The gated channels."""
        if v.ndim < 2 or v.shape[1] != len(self.weight):
            raise ValueError(f"v must have {len(self.weight)} channels, got shape {tuple(v.shape)}")
        shape = (-1, *[1] * (v.ndim - 2))
        gated = self.weight.reshape(shape) * v
        return gated if self.bias is None else gated + self.bias.reshape(shape)


class InstanceNorm(nn.Module):
    """Each channel of each sample with mean 0 and variance 1 over the grid; nothing is learned."""

    def forward(self, v: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
        """The normalised channels."""
        if math.prod(v.shape[2:]) < 2:
            raise ValueError(f"v must have two points or more, got shape {tuple(v.shape)}")
        return nn.functional.instance_norm(v)


def norm(kind: str | None, channels: int) -> nn.Module:
    """A norm whose result does not depend on the resolution: None, "instance", or "group" (one group, gain and offset).

    Batch norms are not among them: their running statistics are those of the training's grid.

    Raises:
        ValueError: another kind.
    """
    _check_channels(channels=channels)
    if kind is None:
        return nn.Identity()
    if kind == "instance":
        return InstanceNorm()
    if kind == "group":
        return nn.GroupNorm(1, channels)
    raise ValueError(f"norm must be None, 'instance' or 'group', got {kind!r}")


def skip(kind: str, inputs: int, outputs: int, *, bias: bool = False) -> nn.Module:
    """A skip connection: "identity", "linear" (1x1 convolution) or "soft" (a number for each channel).

    Raises:
        ValueError: another kind, or one that cannot change the number of channels.
    """
    if kind == "linear":
        return ChannelLinear(inputs, outputs, bias=bias)
    if kind not in ("identity", "soft"):
        raise ValueError(f"skip must be 'identity', 'linear' or 'soft', got {kind!r}")
    if inputs != outputs:
        raise ValueError(f"skip must be 'linear' where {inputs} channels become {outputs}, got {kind!r}")
    return nn.Identity() if kind == "identity" else SoftGate(inputs, bias=bias)

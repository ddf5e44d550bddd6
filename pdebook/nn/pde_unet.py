"""U-Nets for fields: one skeleton whose blocks, ways down and up, and skips are handed in, and the plain convolutional one."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.nn.conv import group_norm

__all__ = ["CONV", "ConvBlock", "UNetSkeleton", "Upsample", "conv_unet"]

CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""Convolutions by the number of axes."""
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: dict[tuple[str, int], Any] = {
    ("max", 1): nn.MaxPool1d,
    ("max", 2): nn.MaxPool2d,
    ("max", 3): nn.MaxPool3d,
    ("average", 1): nn.AvgPool1d,
    ("average", 2): nn.AvgPool2d,
    ("average", 3): nn.AvgPool3d,
}


class UNetSkeleton(nn.Module):
    """Down through the levels, and up again, each level joined by what left it on the way down.

    Level ℓ: a_ℓ = block(v), v ← down(a_ℓ); back up: v ← up(v), v ← block(join(hook_ℓ(a_ℓ), v)). The bottom's output goes through
    its hook too. Everything is made by functions that are told the channels, so that any parts fit in.

    Args:
        inputs: channels of the input.
        widths: channels of the levels' outputs, finest first.
        block: ``block(inputs, outputs)``: a level's network, once on the way down and once on the way up.
        down: ``down(channels, wider)``: a module to the next coarser grid and the channels it returns.
        up: ``up(channels, narrower)``: the same to the next finer grid.
        hook: ``hook(level, channels)``: what is done to the output of a level before it is joined, and to the bottom's; nothing if
            left out.
        join: "skip_first" or "up_first" (the order of the joined channels), or "add".
    Attributes:
        outputs: channels of the output.
    Raises:
        ValueError: no level or channel, an unknown join, or channels that can't be added; on use, other channels than promised.
    Source: Ronneberger, Fischer and Brox 2015.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        *,
        block: Callable[[int, int], nn.Module],
        down: Callable[[int, int], tuple[nn.Module, int]],
        up: Callable[[int, int], tuple[nn.Module, int]],
        hook: Callable[[int, int], nn.Module] | None = None,
        join: str = "skip_first",
    ) -> None:
        super().__init__()
        if inputs < 1:
            raise ValueError(f"inputs must be at least 1, got {inputs}")
        if not widths or any(width < 1 for width in widths):
            raise ValueError(f"widths must be positive, one for each level, got {tuple(widths)}")
        if join not in ("skip_first", "up_first", "add"):
            raise ValueError(f"join must be 'skip_first', 'up_first' or 'add', got {join!r}")
        self.join, self.inputs, self.outputs = join, inputs, widths[0]
        self.encode, self.down, self.hooks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.up, self.decode = nn.ModuleList(), nn.ModuleList()
        channels = inputs
        for level, width in enumerate(widths):
            self.encode.append(block(channels, width))
            self.hooks.append(nn.Identity() if hook is None else hook(level, width))
            if level < len(widths) - 1:
                way, channels = down(width, widths[level + 1])
                self.down.append(way)
        channels = widths[-1]
        for width in reversed(widths[:-1]):
            way, channels = up(channels, width)
            self.up.append(way)
            if join == "add" and channels != width:
                raise ValueError(f"join must not be 'add' where {channels} channels meet {width}")
            self.decode.append(block(width if join == "add" else width + channels, width))
            channels = width

    def forward(self, v: Float[Tensor, "batch inputs *grid"]) -> Float[Tensor, "batch outputs *grid"]:
        """The finest level's output."""
        if v.ndim < 3 or v.shape[1] != self.inputs:
            raise ValueError(f"v must have {self.inputs} channels on a grid, got shape {tuple(v.shape)}")
        waiting = []
        for level, block in enumerate(self.encode):
            v = block(v)
            waiting.append(self.hooks[level](v))
            if level < len(self.down):
                v = self.down[level](v)
        v = waiting.pop()
        for way, block in zip(self.up, self.decode, strict=True):
            v, other = way(v), waiting.pop()
            if v.shape[2:] != other.shape[2:]:
                raise ValueError(
                    f"v must have sides that halve {len(self.down)} times, got {tuple(other.shape[2:])} on the way down "
                    f"and {tuple(v.shape[2:])} on the way up"
                )
            parts = [v, other] if self.join == "up_first" else [other, v]
            v = block(other + v if self.join == "add" else torch.cat(parts, 1))
        return v


class ConvBlock(nn.Sequential):
    """Convolution, norm and activation, so many times.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        dims: axes of the grid.
        padding_mode: "zeros" or "circular".
        norm: "batch", "group" (one group), "groups" (8 channels each), or None.
        activation: makes the activation.
        bias: whether the convolutions have one.
        repeats: number of times.
        kernel: odd size of the kernel.
    Raises:
        ValueError: arguments out of range.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dims: int,
        *,
        padding_mode: str = "zeros",
        norm: str | None = "group",
        activation: Callable[[], nn.Module] = nn.GELU,
        bias: bool = True,
        repeats: int = 2,
        kernel: int = 3,
    ) -> None:
        _check(dims, padding_mode)
        if inputs < 1 or outputs < 1:
            raise ValueError(f"inputs and outputs must be at least 1, got {inputs} and {outputs}")
        if norm not in ("batch", "group", "groups", None):
            raise ValueError(f"norm must be 'batch', 'group', 'groups' or None, got {norm!r}")
        if repeats < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"repeats must be at least 1 and kernel odd, got {repeats} and {kernel}")
        layers: list[nn.Module] = []
        for i in range(repeats):
            channels = inputs if i == 0 else outputs
            layers.append(
                CONV[dims](channels, outputs, kernel, padding=kernel // 2, padding_mode=padding_mode, bias=bias)
            )
            if norm is not None:
                layers.append(_norm(norm, outputs, dims))
            layers.append(activation())
        super().__init__(*layers)


def _check(dims: int, padding_mode: str) -> None:
    if dims not in CONV:
        raise ValueError(f"dims must be 1, 2 or 3, got {dims}")
    if padding_mode not in ("zeros", "circular"):
        raise ValueError(f"padding_mode must be 'zeros' or 'circular', got {padding_mode!r}")


def _norm(kind: str, channels: int, dims: int) -> nn.Module:
    if kind == "batch":
        return _BATCH_NORM[dims](channels)
    return nn.GroupNorm(1, channels) if kind == "group" else group_norm(channels)


class Upsample(nn.Module):
    """Twice the points along each axis, by fixed interpolation, as one matrix product for each axis.

    New points lie at a quarter of a cell to both sides of the old ones, as in ``interpolate`` without aligned corners; beyond a
    side stands the periodic continuation ("circular") or the last value ("replicate").

    Args:
        dims: axes of the grid.
        kind: "nearest", "linear", or "cubic" (Keys' kernel with PyTorch's a = -3/4, of order 1).
        mode: "circular" or "replicate".
    Raises:
        ValueError: arguments out of range.
    """

    def __init__(self, dims: int, kind: str = "linear", *, mode: str = "circular") -> None:
        super().__init__()
        if kind not in _TAPS:
            raise ValueError(f"kind must be one of {sorted(_TAPS)}, got {kind!r}")
        if mode not in ("circular", "replicate"):
            raise ValueError(f"mode must be 'circular' or 'replicate', got {mode!r}")
        if dims not in CONV:
            raise ValueError(f"dims must be 1, 2 or 3, got {dims}")
        self.dims, self.kind, self.mode = dims, kind, mode

    def forward(self, v: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *fine"]:
        """The field on the grid of twice the size."""
        if v.ndim != self.dims + 2:
            raise ValueError(f"v must have a grid of {self.dims} axes, got shape {tuple(v.shape)}")
        for axis in range(-self.dims, 0):
            matrix = _upsampling(v.shape[axis], self.kind, self.mode, v.dtype, v.device)
            before, after = v.shape[: v.ndim + axis], v.shape[v.ndim + axis + 1 :]
            v = (matrix @ v.reshape(*before, matrix.shape[1], -1)).reshape(*before, len(matrix), *after)
        return v


# Weights of the old points around the new one at -1/4, from left to right; the old point itself is the one after the middle.
_TAPS: dict[str, tuple[float, ...]] = {
    "nearest": (0.0, 1.0),
    "linear": (0.25, 0.75),
    "cubic": (-0.03515625, 0.26171875, 0.87890625, -0.10546875),
}


@lru_cache(maxsize=64)
def _upsampling(n: int, kind: str, mode: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix (2n, n) of one axis."""
    taps = _TAPS[kind]
    # A matrix made under inference mode could not be used for training later.
    with torch.inference_mode(False):
        matrix, rows = torch.zeros(n, 2, n, dtype=torch.float64), torch.arange(n)
        for shift, tap in enumerate(taps, -(len(taps) // 2)):
            # The right one of two new points sees the mirror image.
            for side, places in enumerate((rows + shift, rows - shift)):
                places = places % n if mode == "circular" else places.clamp(0, n - 1)
                matrix[rows, side, places] += tap
        return matrix.reshape(2 * n, n).to(device, dtype)


def conv_unet(
    inputs: int,
    outputs: int,
    dims: int,
    *,
    features: int = 32,
    levels: int = 5,
    padding_mode: str = "zeros",
    norm: str | None = "batch",
    activation: Callable[[], nn.Module] = nn.Tanh,
    bias: bool = False,
    pool: str = "max",
) -> nn.Module:
    """The plain U-Net, with PDEBench's as the default: doubling widths, pooling, transposed convolutions, a 1x1 head.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        dims: axes of the grid.
        features: channels of the finest level.
        levels: number of levels, the bottom included.
        padding_mode: "zeros" or "circular".
        norm: of the blocks; see ``ConvBlock``.
        activation: of the blocks.
        bias: of the blocks' convolutions.
        pool: "max" or "average".
    Raises:
        ValueError: arguments out of range; on use, sides that can't be halved often enough.
    Source: Takamoto et al. 2022, PDEBench, appendix on baselines, and its code.
    """
    _check(dims, padding_mode)
    if levels < 1 or features < 1 or outputs < 1:
        raise ValueError(f"levels, features and outputs must be at least 1, got {levels}, {features} and {outputs}")
    if pool not in ("max", "average"):
        raise ValueError(f"pool must be 'max' or 'average', got {pool!r}")
    trunk = UNetSkeleton(
        inputs,
        [features * 2**level for level in range(levels)],
        block=lambda a, b: ConvBlock(
            a, b, dims, padding_mode=padding_mode, norm=norm, activation=activation, bias=bias
        ),
        down=lambda a, b: (_POOL[pool, dims](2), a),
        up=lambda a, b: (_TRANSPOSED[dims](a, b, kernel_size=2, stride=2), b),
        join="up_first",
    )
    return nn.Sequential(trunk, CONV[dims](features, outputs, 1))

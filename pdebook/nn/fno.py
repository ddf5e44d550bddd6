"""The Fourier neural operator: its block in all variants that the book's papers use, and the model."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.fourier import resample
from pdebook.nn.channel import ChannelLinear, ChannelMLP, norm, skip
from pdebook.nn.decompositions import Rank
from pdebook.nn.factorized import WEIGHTS, Factorized
from pdebook.nn.grid_embedding import GridEmbedding
from pdebook.nn.padding import DomainPad
from pdebook.nn.spectral import SpectralConv
from pdebook.truncated import check_modes, kept_shape


class FNOBlock(nn.Module):
    """y = ρ(N_1(Kv) + S_1 v), then ρ(N_2(M y + S_2 v)): spectral convolution K with skip S_1, channel perceptron M with skip S_2.

    Before them ("preactivation"): u = N_1(ρ(v)), y = N_2(ρ(Ku + S_1 u)), then M y + S_2 u. Without a perceptron the block
    ends after its first formula. In the last block of a network the activation ρ is left out where it would act on the result.

    Args:
        width: channels.
        modes: see ``SpectralConv``.
        skip_kind: S_1: None, "identity", "linear" or "soft"; see ``channel.skip``.
        skip_bias: whether S_1 and S_2 have a bias.
        mlp: hidden channels of M over the width, or None for no perceptron.
        mlp_skip: S_2.
        norm_kind: N_1 and N_2: None, "instance" or "group".
        preactivation: which of the two orders.
        activation: makes ρ.
        last: whether the block is a network's last.
        stabiliser: whether K sees tanh(v), whose coefficients fit into half precision.
        spectral: further arguments of ``SpectralConv``.
    Source: Kossaifi et al. 2024, Multi-grid tensorized Fourier neural operator, section 4.3; Tu et al. 2024 for the stabiliser.
    """

    def __init__(
        self,
        width: int,
        modes: Sequence[int],
        *,
        skip_kind: str | None = "linear",
        skip_bias: bool = False,
        mlp: float | None = 0.5,
        mlp_skip: str | None = "soft",
        norm_kind: str | None = None,
        preactivation: bool = False,
        activation: Callable[[], nn.Module] = nn.GELU,
        last: bool = False,
        stabiliser: bool = False,
        **spectral: object,
    ) -> None:
        super().__init__()
        self.preactivation, self.last, self.stabiliser = preactivation, last, stabiliser
        self.spectral = SpectralConv(width, width, modes, **spectral)  # type: ignore[arg-type]
        self.skip = None if skip_kind is None else skip(skip_kind, width, width, bias=skip_bias)
        self.activation = activation()
        self.mlp = self.mlp_skip = None
        self.norms = nn.ModuleList([norm(norm_kind, width)])
        if mlp is not None:
            if round(mlp * width) < 1:
                raise ValueError(f"mlp must give a hidden channel or more of {width}, got {mlp}")
            self.mlp = ChannelMLP(width, width, hidden=round(mlp * width), activation=activation)
            self.mlp_skip = None if mlp_skip is None else skip(mlp_skip, width, width, bias=skip_bias)
            self.norms.append(norm(norm_kind, width))

    def forward(
        self, v: Float[Tensor, "batch width *grid"], size: Sequence[int] | None = None
    ) -> Float[Tensor, "batch width *new_grid"]:
        """The block's output, on a grid of another size if one is given."""
        if self.preactivation:
            v = self.norms[0](self.activation(v))
        y = self.spectral(torch.tanh(v) if self.stabiliser else v, size)
        if not self.preactivation:
            y = self.norms[0](y)
        if self.skip is not None:
            y = y + _at(self.skip(v), size)
        if not self.last:
            y = self.activation(y)
        if self.mlp is None:
            return y
        if self.preactivation:
            y = self.norms[1](y)
        y = self.mlp(y)
        if self.mlp_skip is not None:
            y = y + _at(self.mlp_skip(v), size)
        if self.preactivation:
            return y
        y = self.norms[1](y)
        return y if self.last else self.activation(y)


def _at(v: Tensor, size: Sequence[int] | None) -> Tensor:
    return v if size is None else resample(v, size)


class FNO(nn.Module):
    """Coordinates appended, channels lifted to the width, domain padded, blocks, domain cropped, channels projected.

    Args:
        inputs: channels of the input field, a history of it counted once for each time.
        outputs: channels of the output field.
        modes: modes of each axis in total; its number is the dimension.
        width: channels between.
        layers: number of blocks.
        lifting: hidden channels of the perceptron that lifts; 0 is a linear map, twice the width if left out.
        projection: hidden channels of the one that projects.
        grid: appends coordinates: those of [0, 1) if True.
        padding: pads the domain.
        weight: "dense", or the kind of the factors; see ``SpectralConv``.
        rank: their rank.
        joint: whether one tensor in factors serves all blocks.
        activation: makes the activation everywhere.
        block: further arguments of ``FNOBlock`` and ``SpectralConv``.
    Raises:
        ValueError: sizes below 1, dense weights that are to be joint, what the blocks refuse; on use, another number of channels
            or axes, or padding that the output's grid does not hold a whole number of times.
    Source: Li et al. 2021, Fourier neural operator for parametric partial differential equations.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: Sequence[int],
        *,
        width: int,
        layers: int = 4,
        lifting: int | None = None,
        projection: int | None = None,
        grid: bool | GridEmbedding = True,
        padding: DomainPad | None = None,
        weight: str = "dense",
        rank: Rank = 1.0,
        joint: bool = False,
        activation: Callable[[], nn.Module] = nn.GELU,
        **block: object,
    ) -> None:
        super().__init__()
        modes = check_modes(modes)
        for name, number, least in (
            ("inputs", inputs, 1),
            ("outputs", outputs, 1),
            ("width", width, 1),
            ("layers", layers, 1),
            ("lifting", lifting or 0, 0),
            ("projection", projection or 0, 0),
        ):
            if number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}")
        if padding is not None and not isinstance(padding, DomainPad):
            raise ValueError(f"padding must be a DomainPad or None, got {padding!r}")
        self.inputs, dims = inputs, len(modes)
        self.grid = GridEmbedding([(0, 1)] * dims) if grid is True else grid or None
        self.padding = padding
        self.lift = _channels(inputs + (dims if self.grid else 0), width, lifting, 2 * width, activation)
        shared = _shared(layers, width, modes, weight, rank, block) if joint else weight
        self.blocks = nn.ModuleList(
            FNOBlock(
                width,
                modes,
                weight=shared,
                rank=rank,
                layer=i if joint else None,
                last=i == layers - 1,
                activation=activation,
                **block,  # type: ignore[arg-type]
            )
            for i in range(layers)
        )
        self.project = _channels(width, outputs, projection, 2 * width, activation)

    def set_modes(self, modes: Sequence[int]) -> None:
        """Use the lowest modes alone in all blocks; see ``SpectralConv.set_modes``."""
        for module in self.modules():
            if isinstance(module, SpectralConv):
                module.set_modes(modes)

    def forward(
        self, v: Float[Tensor, "batch inputs *grid"], size: Sequence[int] | None = None
    ) -> Float[Tensor, "batch outputs *new_grid"]:
        """The output field on the input's grid, or on another one, to which the last block goes."""
        if v.ndim < 3 or v.shape[1] != self.inputs:
            raise ValueError(f"v must have {self.inputs} channels on a grid, got shape {tuple(v.shape)}")
        v = self.lift(v if self.grid is None else self.grid(v))
        cells: tuple[tuple[int, int], ...] = ()
        if self.padding is not None:
            cells, before = self.padding.cells(v.shape[2:]), v.shape[2:]
            v = self.padding.pad(v)
            if size is not None:
                cells = _scaled(cells, before, size)
                size = tuple(n + sum(pair) for n, pair in zip(size, cells, strict=True))
        for block in self.blocks[:-1]:
            v = block(v)
        return self.project(DomainPad.crop(self.blocks[-1](v, size), cells))


def _channels(
    inputs: int, outputs: int, hidden: int | None, default: int, activation: Callable[[], nn.Module]
) -> nn.Module:
    if hidden == 0:
        return ChannelLinear(inputs, outputs)
    return ChannelMLP(inputs, outputs, hidden=default if hidden is None else hidden, activation=activation)


def _shared(
    layers: int, width: int, modes: Sequence[int], weight: str, rank: Rank, block: dict[str, object]
) -> Factorized:
    """One tensor for all layers, with the initial scale of each layer's own."""
    separable = bool(block.get("separable", False))
    shape = (layers, *((width,) if separable else (width, width)), *kept_shape(modes))
    if weight not in WEIGHTS:
        raise ValueError(f"weight must be one of {sorted(WEIGHTS)}, got {weight!r}")
    tensor = WEIGHTS[weight](shape, rank, separable=separable, shared=True)
    tensor.initialise(width**-0.5)
    return tensor


def _scaled(cells: Sequence[tuple[int, int]], old: Sequence[int], new: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The same lengths of padding in cells of a new grid."""
    if any(count * n % m for pair, m, n in zip(cells, old, new, strict=True) for count in pair):
        raise ValueError(
            f"size must hold the padding {tuple(cells)} of {tuple(old)} a whole number of times, got {tuple(new)}"
        )
    return tuple((a * n // m, b * n // m) for (a, b), m, n in zip(cells, old, new, strict=True))

"""Residual perceptron whose blocks are scaled and shifted by a conditioning vector."""

from typing import TypeVar

from jaxtyping import Float
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def zeroed(layer: Layer) -> Layer:
    """The layer with all its parameters at zero, so that what it ends starts as the identity or as the zero function."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ModulatedBlock(nn.Module):
    """h + W_2 silu(W_1 silu((1 + a(c)) norm(h) + b(c))), with a, b linear in the condition c and W_2 = 0 at the start.

    Args:
        width: size of h.
        condition: size of c.
    Source: the modulation of Perez et al. 2018 (FiLM), placed as in Dhariwal and Nichol 2021.
    """

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.modulation = nn.Linear(condition, 2 * width)
        self.layers = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), zeroed(nn.Linear(width, width)))

    def forward(
        self, h: Float[Tensor, "*batch width"], condition: Float[Tensor, "*batch condition"]
    ) -> Float[Tensor, "*batch width"]:
        """One residual step."""
        scale, shift = self.modulation(condition).chunk(2, -1)
        return h + self.layers((1.0 + scale) * self.norm(h) + shift)


class ModulatedMLP(nn.Module):
    """Linear, modulated blocks, then norm, SiLU and Linear; exactly zero at the start.

    Args:
        inputs: size of the input.
        outputs: size of the output.
        width: size of the hidden state.
        blocks: number of blocks.
        condition: size of the conditioning vector.
    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int, blocks: int, condition: int) -> None:
        super().__init__()
        sizes = {"inputs": inputs, "outputs": outputs, "width": width, "blocks": blocks, "condition": condition}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(ModulatedBlock(width, condition) for _ in range(blocks))
        self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), zeroed(nn.Linear(width, outputs)))

    def forward(
        self, x: Float[Tensor, "*batch inputs"], condition: Float[Tensor, "*batch condition"]
    ) -> Float[Tensor, "*batch outputs"]:
        """The output for x under its condition."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h, condition)
        return self.last(h)

"""Plain perceptron, and a residual one whose blocks are scaled and shifted by a conditioning vector."""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.rng import fold_in

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
Module = TypeVar("Module", bound=nn.Module)


def initialised(build: Callable[[], Module], seed: int) -> Module:
    """A module whose first weights depend on the seed alone; PyTorch's generator is left as it was.

    Args:
        build: makes the module, such as ``lambda: MLP(2, 1, width=32)``.
        seed: seed, 0 <= seed < 2^63.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold_in(seed, "initialisation"))
        return build()


class LipSwish(nn.Module):
    """0.909 x σ(x), σ the logistic function: smooth, and its slope is at most 1 in size.

    Source: Chen, Behrmann, Duvenaud and Jacobsen 2019, Residual flows for invertible generative modeling, section 3.2.
    """

    def forward(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The activation of each number."""
        return 0.909 * nn.functional.silu(x)


class MLP(nn.Sequential):
    """Perceptron W_d ρ(... ρ(W_1 ρ(W_0 x + b_0) + b_1) ...) + b_d, and after it a final activation if there is one.

    Args:
        inputs: size of the input.
        outputs: size of the output.
        width: size of each hidden layer.
        depth: d, number of hidden layers; 0 is a linear map.
        activation: makes ρ: a module class or a function of no arguments.
        final: makes what the output is sent through; nothing if left out.
    Raises:
        ValueError: a size below 1, or a negative depth.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int,
        depth: int = 1,
        activation: Callable[[], nn.Module] = nn.Tanh,
        final: Callable[[], nn.Module] | None = None,
    ) -> None:
        _check_sizes(inputs=inputs, outputs=outputs, width=width)
        if depth < 0:
            raise ValueError(f"depth must not be negative, got {depth}")
        sizes = [inputs, *[width] * depth, outputs]
        layers: list[nn.Module] = []
        for i in range(depth + 1):
            layers += [nn.Linear(sizes[i], sizes[i + 1])] + ([activation()] if i < depth else [])
        super().__init__(*layers, *([] if final is None else [final()]))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


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
        _check_sizes(inputs=inputs, outputs=outputs, width=width, blocks=blocks, condition=condition)
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

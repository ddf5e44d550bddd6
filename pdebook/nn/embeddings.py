"""Embeddings of what a network is told beside its input: a scalar (a time, a noise level), a class."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """γ(s) = [sin(ω_1 s), ..., sin(ω_K s), cos(ω_1 s), ..., cos(ω_K s)] with ω geometric from ``low`` to ``high``.

    Low frequencies make what is built on the features smooth in s; high ones let it vary fast. The frequencies are fixed and
    follow from the arguments, so they are not in the state dict.

    Args:
        count: K, at least 2.
        low: smallest frequency, in radians per unit of s.
        high: largest frequency.
    Raises:
        ValueError: fewer than two frequencies, or not 0 < low < high.
    """

    frequencies: Tensor

    def __init__(self, count: int, low: float, high: float) -> None:
        super().__init__()
        if count < 2:
            raise ValueError(f"count must be at least 2, got {count}")
        if not 0 < low < high:
            raise ValueError(f"low and high must satisfy 0 < low < high, got {low} and {high}")
        exponent = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
        self.register_buffer("frequencies", (low * (high / low) ** exponent).float(), persistent=False)

    def forward(self, scalar: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch features"]:
        """The 2K features of each scalar."""
        angle = scalar[..., None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1)


class NoiseAndClass(nn.Module):
    """silu(W_2 silu(W_1 γ(λ)) + e_label): conditioning vector of a noise level λ and a class.

    γ has 32 frequencies in [0.05, 2], low on purpose: the network is smooth in λ, and solvers can take long steps in it.

    Args:
        width: size of the vector.
        classes: number of classes; label ``classes`` stands for none.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.noise = nn.Sequential(
            FourierFeatures(32, 0.05, 2.0), nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(classes + 1, width)

    def forward(
        self, half_log_snr: Float[Tensor, " batch"], label: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch width"]:
        """The vector of each sample; without a label, that of no class."""
        given = self.label.weight[self.classes] if label is None else self.label(label)
        return nn.functional.silu(self.noise(half_log_snr) + given)

"""U-Net for noisy images at a noise level, with or without a class."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pdebook.nn.conv import ModulatedConvBlock, PixelAttention, group_norm
from pdebook.nn.embeddings import NoiseAndClass
from pdebook.nn.mlp import zeroed


class UNet(nn.Module):
    """Down through the levels, across the bottom with attention, and up again, each block joined by one from the way down.

    Exactly zero at the start. Resolution halves by a convolution of stride 2 and doubles by nearest neighbours and a convolution.

    Args:
        channels: channels of the image.
        widths: channels of each level, finest first, multiples of 8.
        blocks: blocks of a level on the way down; one more on the way up.
        classes: number of classes; label ``classes`` stands for none.
        condition: size of the conditioning vector.
    Raises:
        ValueError: no level, or a width that is no positive multiple of 8; on use, sides that can't be halved often enough.
    Source: Ronneberger et al. 2015, in the form of Dhariwal and Nichol 2021.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], *, blocks: int = 2, classes: int = 10, condition: int = 256
    ) -> None:
        super().__init__()
        if not widths or any(width < 8 or width % 8 for width in widths):
            raise ValueError(f"widths must be positive multiples of 8, one for each level, got {tuple(widths)}")
        self.factor = 2 ** (len(widths) - 1)
        self.condition = NoiseAndClass(condition, classes)
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        # Channels of what waits to be joined on the way up.
        waiting, width = [widths[0]], widths[0]
        for level, wide in enumerate(widths):
            if level:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                waiting.append(width)
            for _ in range(blocks):
                self.down.append(ModulatedConvBlock(width, wide, condition))
                width = wide
                waiting.append(width)
        self.middle = ModulatedConvBlock(width, width, condition)
        self.attention = PixelAttention(width, heads=max(width // 64, 1) if width % 64 == 0 else 1)
        for level, wide in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(ModulatedConvBlock(width + waiting.pop(), wide, condition))
                width = wide
            if level:
                upsample = nn.Upsample(scale_factor=2.0, mode="nearest")
                self.up.append(nn.Sequential(upsample, nn.Conv2d(width, width, 3, padding=1)))
        self.last = nn.Sequential(group_norm(width), nn.SiLU(), zeroed(nn.Conv2d(width, channels, 3, padding=1)))

    def forward(
        self,
        x: Float[Tensor, "batch channels x y"],
        half_log_snr: Float[Tensor, " batch"],
        label: Int64[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels x y"]:
        """The output for noisy images x at noise levels λ; without a label, that of no class."""
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise ValueError(f"x must have sides that are multiples of {self.factor}, got {tuple(x.shape)}")
        condition = self.condition(half_log_snr, label)
        h = self.first(x)
        waiting = [h]
        for layer in self.down:
            h = layer(h, condition) if isinstance(layer, ModulatedConvBlock) else layer(h)
            waiting.append(h)
        h = self.attention(self.middle(h, condition))
        for layer in self.up:
            h = (
                layer(torch.cat([h, waiting.pop()], 1), condition)
                if isinstance(layer, ModulatedConvBlock)
                else layer(h)
            )
        return self.last(h)

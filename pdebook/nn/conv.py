"""Blocks for images: convolutional residual block with conditioning, attention among pixels, a small classifier."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.nn.mlp import zeroed


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with 8 channels a group, or one group if 8 does not divide them."""
    return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)


class ModulatedConvBlock(nn.Module):
    """skip(h) + conv(silu((1 + a(c)) norm(conv(silu(norm(h)))) + b(c))), the last convolution zero at the start.

    Args:
        inputs: channels of h.
        outputs: channels of the result; where they differ, the skip is a 1x1 convolution.
        condition: size of the conditioning vector c, in which a and b are linear.
    Source: Dhariwal and Nichol 2021, section 3.
    """

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.before = nn.Sequential(group_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.norm = group_norm(outputs)
        self.modulation = nn.Linear(condition, 2 * outputs)
        self.after = nn.Sequential(nn.SiLU(), zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(
        self, h: Float[Tensor, "batch inputs x y"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch outputs x y"]:
        """One residual step."""
        scale, shift = self.modulation(condition)[..., None, None].chunk(2, 1)
        return self.skip(h) + self.after((1.0 + scale) * self.norm(self.before(h)) + shift)


class PixelAttention(nn.Module):
    """h + W attention(norm(h)): each pixel attends to all, W zero at the start. For coarse grids: the cost is quadratic.

    Args:
        channels: channels of h.
        heads: number of heads; it divides the channels.
    Raises:
        ValueError: heads that don't divide the channels.
    """

    def __init__(self, channels: int, heads: int = 1) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"heads must divide the {channels} channels, got {heads}")
        self.heads = heads
        self.norm = group_norm(channels)
        self.project = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, h: Float[Tensor, "batch channels x y"]) -> Float[Tensor, "batch channels x y"]:
        """One residual step."""
        batch, channels = h.shape[:2]
        parts = self.project(self.norm(h)).reshape(batch, 3, self.heads, channels // self.heads, -1)
        query, key, value = parts.transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return h + self.out(mixed.transpose(-1, -2).reshape(h.shape))


class ConvClassifier(nn.Module):
    """Two convolutions of 32 and 64 channels, average pooling by 2, 64 features (after a ReLU), and the classes' logits.

    Args:
        size: side of the images, even.
        classes: number of classes.
    Raises:
        ValueError: an odd size.
    """

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        if size < 2 or size % 2:
            raise ValueError(f"size must be even and at least 2, got {size}")
        self.size = size
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (size // 2) ** 2, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, classes)

    def features(self, images: Float[Tensor, "batch *pixels"]) -> Float[Tensor, "batch 64"]:
        """Features of images of shape (batch, 1, size, size) or flat."""
        return self.body(images.reshape(-1, 1, self.size, self.size))

    def forward(self, images: Float[Tensor, "batch *pixels"]) -> Float[Tensor, "batch classes"]:
        """Logits of the classes."""
        return self.head(self.features(images))

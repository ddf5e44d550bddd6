"""Normalisers whose statistics are buffers: they travel in the state dict with the model that was trained on them."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Normalizer"]


class Normalizer(nn.Module):
    """encode(u) = (u - mean) / (std + eps), with the statistics of the training set; decode is its inverse.

    A field is (batch, ..., channel, *grid). Statistics are those of each channel, of each channel at each point ("pointwise",
    which ties the model to one grid), or of all numbers ("global"). Batches are merged exactly: any division gives the same result.

    Args:
        channels: number of channels.
        dims: axes of the grid.
        over: "channel", "pointwise" or "global".
        size: the grid, for pointwise statistics.
        eps: added to the standard deviation.
    Attributes:
        mean, std, count: buffers; without an update they are 0, 1 and 0.
    Raises:
        ValueError: unknown ``over``, a size that is missing or in vain, a negative eps; on use, fields of another shape,
            complex or empty ones.
    """

    mean: Tensor
    std: Tensor
    count: Tensor

    def __init__(
        self,
        channels: int,
        *,
        dims: int,
        over: str = "channel",
        size: Sequence[int] | None = None,
        eps: float | int = 1e-6,
    ) -> None:
        super().__init__()
        if over not in ("channel", "pointwise", "global"):
            raise ValueError(f"over must be 'channel', 'pointwise' or 'global', got {over!r}")
        if (over == "pointwise") != (size is not None) or (
            size is not None and not (isinstance(size, Sequence) and len(size) == dims and min(size, default=0) > 0)
        ):
            raise ValueError(
                f"size must hold {dims} positive numbers for pointwise statistics and be None for others, got {size}"
            )
        if channels < 1 or dims < 1 or not 0 <= eps < math.inf:
            raise ValueError(f"channels and dims must be positive, eps not negative, got {channels}, {dims} and {eps}")
        self.channels, self.dims, self.over, self.eps = channels, dims, over, eps
        shape = (1 if over == "global" else channels, *(size or (1,) * dims))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, u: Float[Tensor, "batch *rest"]) -> "Normalizer":
        """Take a batch into the statistics; the first one replaces what stood there. Returns the normaliser.

        Source: Chan, Golub and LeVeque 1983 for the merging of variances.
        """
        self._check(u)
        if not u.numel():
            raise ValueError(f"u must hold a number or more, got shape {tuple(u.shape)}")
        axes = list(range(u.ndim - self.dims - 1))
        if self.over != "pointwise":
            axes += list(range(u.ndim - self.dims, u.ndim))
        if self.over == "global":
            axes.append(u.ndim - self.dims - 1)
        fresh = u.double()
        count = math.prod(u.shape[axis] for axis in axes)
        mean = fresh.mean(axes, keepdim=True)
        square = (fresh - mean).square().sum(axes, keepdim=True).reshape(self.mean.shape)
        mean = mean.reshape(self.mean.shape)
        before, total = self.count, self.count + count
        # The buffers are 0 and 1 before the first batch: the old part has no weight then.
        gap = mean - self.mean.double()
        merged = self.std.double().square() * before + square + gap.square() * (before * count / total)
        self.mean.copy_(self.mean.double() + gap * (count / total))
        self.std.copy_((merged / total).sqrt())
        self.count.copy_(total)
        return self

    def encode(self, u: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        """Normalised fields."""
        self._check(u)
        return (u - self.mean) / (self.std + self.eps)

    def decode(self, u: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        """Fields in their own units."""
        self._check(u)
        return u * (self.std + self.eps) + self.mean

    forward = encode

    def _check(self, u: Tensor) -> None:
        if u.is_complex():
            raise ValueError(f"u must be real, got {u.dtype}")
        right = u.ndim >= self.dims + 2 and u.shape[-self.dims - 1] == self.channels
        if right and self.over == "pointwise":
            right = u.shape[-self.dims :] == self.mean.shape[1:]
        if not right:
            grid = (
                f" on the grid {tuple(self.mean.shape[1:])}"
                if self.over == "pointwise"
                else f" and {self.dims} axes of a grid"
            )
            raise ValueError(f"u must have a batch, {self.channels} channels{grid}, got shape {tuple(u.shape)}")

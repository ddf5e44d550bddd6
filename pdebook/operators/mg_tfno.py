"""Multi-grid domain decomposition: patches of a field that still see the whole of it.

A grid of n points an axis is cut into P = 2^Λ patches of s = n / P points an axis. Patch (i, j) is given to the network on
Λ + 1 levels at once: the patch itself with p points around it, and on level l a window of as many points, s + 2p, of the field
with every 2^l-th point, with the same centre. Level Λ covers the whole domain. All patches are samples of one network, so the
largest field that it meets has (s + 2p)^d points instead of n^d.

The spectral weights of the layers, in factors and one tensor for all layers, are those of ``pdebook.nn.factorized``; the network is
``pdebook.nn.fno.FNO(..., weight="tucker", rank=0.1, joint=True)``.

Source: Kossaifi, Kovachki, Azizzadenesheli, Anandkumar: Multi-grid tensorized Fourier neural operator for high-resolution PDEs,
TMLR 2024.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pdebook.fourier import resample

__all__ = ["Compression", "MultiGrid", "compression", "patches", "saved_bytes", "stitch", "window_starts"]

BOUNDARIES = ("periodic", "reflect", "zeros")
COARSENINGS = ("stride", "spectral")


def _check(size: Sequence[int], levels: int, padding: int) -> tuple[int, ...]:
    """Points of a patch along each axis. Raises ValueError unless windows on all levels begin at grid points."""
    if not all(isinstance(k, int) and k >= 0 for k in (levels, padding)):
        raise ValueError(f"levels and padding must be integers that are not negative, got {levels} and {padding}")
    if not size or min(size) < 1:
        raise ValueError(f"size must hold a positive number for each axis, got {tuple(size)}")
    parts, unit = 2**levels, 2 ** (2 * levels + 1) if levels else 1
    if any(n % unit for n in size):
        raise ValueError(
            f"size must be divisible by {unit} along each axis, into {parts} patches of a multiple of 2^(levels + 1) points, so "
            f"that all windows of a patch have one centre; got {tuple(size)}"
        )
    if any(n // parts + 2 * padding > n for n in size):
        raise ValueError(f"padding must leave patches smaller than the grid {tuple(size)}, got {padding}")
    return tuple(n // parts for n in size)


def _check_options(boundary: str = "periodic", coarsening: str = "stride") -> None:
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}")
    if coarsening not in COARSENINGS or (coarsening == "spectral" and boundary != "periodic"):
        raise ValueError(f"coarsening must be 'stride', or 'spectral' for periodic fields, got {coarsening!r}")


def window_starts(n: int, levels: int, padding: int, level: int) -> Int64[Tensor, " patches"]:
    """First point of each patch's window on a level, counted in points of that level; negative ones lie beyond the lower side.

        start_i = i s / 2^l - (s/2 - s/2^{l+1}) - p

    The centre of patch i is at (i + 1/2) s on the fine grid, that is (i + 1/2) s / 2^l on level l; half a window, s/2 + p, is
    taken off.

    Args:
        n: points of the axis on the fine grid.
        levels: Λ.
        padding: p.
        level: l, from 0 to Λ.
    Raises:
        ValueError: a level out of range, or sizes that don't fit.
    """
    (s,) = _check((n,), levels, padding)
    if not 0 <= level <= levels:
        raise ValueError(f"level must be from 0 to {levels}, got {level}")
    shift = s // 2 - s // 2 ** (level + 1) if level else 0
    return torch.arange(2**levels) * (s // 2**level) - shift - padding


def _windows(x: Tensor, axis: int, starts: Tensor, width: int, boundary: str) -> Tensor:
    """x with an axis replaced by (patches, width)."""
    n = x.shape[axis]
    index = starts.to(x.device)[:, None] + torch.arange(width, device=x.device)
    inside = (index >= 0) & (index < n)
    index = (n - 1) - (index.abs() - (n - 1)).abs() if boundary == "reflect" else index % n
    taken = x.index_select(axis, index.flatten()).unflatten(axis, index.shape)
    if boundary == "zeros":
        taken = taken * inside.to(x.dtype).reshape([*index.shape, *[1] * (x.ndim - 1 - axis % x.ndim)])
    return taken


def _cut(x: Tensor, dims: int, part: slice) -> Tensor:
    """The same part of every axis of the grid."""
    index: tuple[Any, ...] = (..., *[part] * dims)
    return x[index]


def patches(
    x: Float[Tensor, "batch channel *grid"],
    levels: int,
    padding: int,
    *,
    boundary: str = "periodic",
    coarsening: str = "stride",
) -> Float[Tensor, "parts channels *window"]:
    """All patches of fields, on all levels: (batch P^d, (levels + 1) channels, s + 2p, ...).

    Samples are ordered by field, then by patch, the last axis fastest; channels by level, the fine one first.

    Args:
        x: fields.
        levels: Λ, number of coarser levels; 0 leaves the field as one patch.
        padding: p, points around a window, the same number on all levels.
        boundary: what stands beyond the sides: "periodic", "reflect" (mirrored at the last points), "zeros".
        coarsening: "stride" takes every 2^l-th point, which aliases what the coarse grid cannot hold; "spectral" cuts that off
            first, for periodic fields.
    Raises:
        ValueError: sizes that the levels don't divide, padding that reaches around the domain, unknown options.
    Source: section 4.4; the official code is "stride", "periodic".
    """
    _check_options(boundary, coarsening)
    size = x.shape[2:]
    s, dims = _check(size, levels, padding), len(size)
    if boundary == "reflect" and levels and any(padding >= n // 2 for n in s):
        raise ValueError(f"padding must be less than half a patch {s} where fields are mirrored, got {padding}")
    parts = []
    for level in range(levels + 1):
        factor = 2**level
        coarse = _cut(x, dims, slice(None, None, factor))
        if coarsening == "spectral":
            coarse = resample(x, coarse.shape[2:])
        for axis in range(dims):
            starts = window_starts(size[axis], levels, padding, level)
            coarse = _windows(coarse, 2 + 2 * axis, starts, s[axis] + 2 * padding, boundary)
        # (batch, channel, patch, window, patch, window, ...) to (batch, patch, ..., channel, window, ...)
        order = [0, *range(2, 2 + 2 * dims, 2), 1, *range(3, 2 + 2 * dims, 2)]
        parts.append(coarse.permute(order))
    return torch.cat(parts, 1 + dims).flatten(0, dims)


def stitch(
    y: Float[Tensor, "parts channel *window"], levels: int, padding: int
) -> Float[Tensor, "batch channel *grid"]:
    """The fields whose patches these are: crops the padding and puts the patches side by side.

    Args:
        y: outputs for the patches, in the order of ``patches``.
        levels: Λ.
        padding: p.
    Raises:
        ValueError: a number of patches that is not a multiple of P^d, or windows that have no points left.
    """
    dims = y.ndim - 2
    if dims < 1 or levels < 0:
        raise ValueError(f"y must have axes of a grid and levels not be negative, got {tuple(y.shape)} and {levels}")
    count = 2**levels
    if not len(y) or len(y) % count**dims:
        raise ValueError(f"y must hold a multiple of {count}^{dims} patches, got {len(y)}")
    if padding < 0 or any(w <= 2 * padding for w in y.shape[2:]):
        raise ValueError(f"padding must leave a point of the windows {tuple(y.shape[2:])}, got {padding}")
    y = _cut(y, dims, slice(padding, -padding if padding else None))
    y = y.unflatten(0, (-1, *[count] * dims))
    order = [0, 1 + dims]
    for axis in range(dims):
        order += [1 + axis, 2 + dims + axis]
    y = y.permute(order)
    for axis in range(dims):
        y = y.flatten(2 + axis, 3 + axis)
    return y


@dataclass(frozen=True)
class Compression:
    """How much smaller the network's input is than the field.

    Attributes:
        points: points of the field over those of a window.
        memory: numbers of one channel of the field over those of a patch on all levels.
    """

    points: float
    memory: float


def compression(size: Sequence[int], levels: int, padding: int) -> Compression:
    """n^d / (s + 2p)^d, and that over Λ + 1.

    Raises:
        ValueError: as ``patches``.
    """
    s = _check(size, levels, padding)
    points = math.prod(size) / math.prod(n + 2 * padding for n in s)
    return Compression(points, points / (levels + 1))


def saved_bytes(run: Callable[[], Any], *, without: nn.Module | None = None) -> int:
    """Bytes that automatic differentiation keeps from a forward pass for the backward pass, each storage once.

    Args:
        run: the forward pass; what it returns is held while the bytes are counted.
        without: a module whose parameters are not counted.
    """
    known = {p.untyped_storage().data_ptr() for p in (without.parameters() if without is not None else ())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    total = sum(found.values())
    del result
    return total


class _Gather(torch.autograd.Function):
    """Shares of all ranks joined; the gradient of a share is the sum over what all ranks ask of it."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        longest = torch.nn.functional.pad(share, (*[0] * (2 * share.ndim - 1), max(sizes) - len(share)))
        parts = [torch.empty_like(longest) for _ in sizes]
        torch.distributed.all_gather(parts, longest.contiguous())
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # A copy: the sum is formed in place, and the gradient may be somebody else's too.
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total.split(ctx.sizes)[torch.distributed.get_rank()], None


class MultiGrid(nn.Module):
    """A network applied patch by patch: stitch(model(patches(x))).

    Args:
        model: from (parts, (levels + 1) channels, *window) to (parts, outputs, *window).
        levels: Λ.
        padding: p.
        chunk: patches that go through the model at a time, all if 0; bounds the memory where no gradients are recorded.
        distributed: share the patches among the ranks of ``torch.distributed``. Every rank is given the same fields and returns
            the same, whole output. Each rank's loss is then the whole one, and the mean of the ranks' gradients, as
            ``DistributedDataParallel`` forms it, is the gradient that one process would have.
        options: as for ``patches``.
    Raises:
        ValueError: as ``patches``; a negative chunk; on use, distributed without a process group, and a model whose outputs are
            not one for each patch on its window.
    Source: section 4.4.
    """

    def __init__(
        self, model: nn.Module, levels: int, padding: int, *, chunk: int = 0, distributed: bool = False, **options: str
    ) -> None:
        super().__init__()
        if not all(isinstance(k, int) and k >= 0 for k in (levels, padding, chunk)):
            raise ValueError(
                f"levels, padding and chunk must be integers that are not negative, got {levels}, {padding} and {chunk}"
            )
        _check_options(**options)
        self.model = model
        self.levels, self.padding = levels, padding
        self.chunk, self.distributed, self.options = chunk, distributed, options

    def forward(self, x: Float[Tensor, "batch channel *grid"]) -> Float[Tensor, "batch outputs *grid"]:
        """The stitched output."""
        parts = patches(x, self.levels, self.padding, **self.options)
        if not self.distributed:
            return stitch(self._run(parts), self.levels, self.padding)
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            raise ValueError("distributed needs a process group: call torch.distributed.init_process_group first")
        world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        sizes = [len(share) for share in parts.tensor_split(world)]
        share = self._run(parts.split(sizes)[rank])
        return stitch(_Gather.apply(share, sizes), self.levels, self.padding)

    def _run(self, parts: Tensor) -> Tensor:
        pieces = parts.split(self.chunk) if self.chunk else [parts]
        y = torch.cat([self.model(piece) for piece in pieces]) if len(pieces) > 1 else self.model(parts)
        if y.ndim != parts.ndim or len(y) != len(parts) or y.shape[2:] != parts.shape[2:]:
            raise ValueError(
                f"model must return ({len(parts)}, outputs, {', '.join(map(str, parts.shape[2:]))}), got {tuple(y.shape)}"
            )
        return y

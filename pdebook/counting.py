"""Counts of parameters and operations, in the conventions of papers on operators; bytes that are alive, as they are allocated."""

import copy
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["LiveBytes", "flop_count", "parameter_count"]


def parameter_count(module: nn.Module, *, trainable: bool = False, complex_as: int = 2) -> int:
    """Number of parameters; one that several modules share counts once.

    Complex numbers count as two real ones, or as one (``complex_as=1``), as papers on Fourier operators count them. A module
    that stores them as pairs says which by a method ``complex_pairs``.

    Args:
        module: the module.
        trainable: whether only those that require a gradient count.
        complex_as: 1 or 2.
    Raises:
        ValueError: another ``complex_as``.
    """
    if complex_as not in (1, 2):
        raise ValueError(f"complex_as must be 1 or 2, got {complex_as}")
    pairs = {id(p) for m in module.modules() for p in getattr(m, "complex_pairs", tuple)()}
    total = 0
    for p in module.parameters():
        if p.requires_grad or not trainable:
            reals = p.numel() * (2 if p.is_complex() else 1)
            total += reals // 2 if complex_as == 1 and (p.is_complex() or id(p) in pairs) else reals
    return total


def flop_count(module: nn.Module, *inputs: Any, by_module: bool = False) -> Any:
    """Floating-point operations of one forward pass: matrix products, convolutions, attention and Fourier transforms.

    A multiply-add of real numbers is 2, of complex ones 8; a Fourier transform of N complex points 5 N log2 N, of real ones
    half of that. Pointwise work is not counted. A copy is run in evaluation mode: the module stays as it is.

    Args:
        module: the module.
        inputs: what it is called with.
        by_module: whether a dictionary from the modules' names to their counts is returned; "" is the whole.
    """
    aten = torch.ops.aten
    products = {op: _product_flops(op) for op in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm)}
    transforms = {aten._fft_r2c: _fft_flops, aten._fft_c2c: _fft_flops, aten._fft_c2r: _fft_flops}
    with torch.no_grad(), FlopCounterMode(display=False, depth=99, custom_mapping=products | transforms) as counter:
        twin = copy.deepcopy(module).eval()
        twin(*inputs)
    if not by_module:
        return counter.get_total_flops()
    found = {"": counter.get_total_flops()}
    root = type(module).__name__
    for name, counts in counter.get_flop_counts().items():
        if name.startswith(f"{root}."):
            found[name.removeprefix(f"{root}.")] = sum(counts.values())
    return found


def _raw(formula: Callable[..., int]) -> Callable[..., int]:
    formula._get_raw = True  # type: ignore[attr-defined]
    return formula


def _product_flops(op: Any) -> Callable[..., int]:
    """2 n k m for each matrix product, times 4 where the numbers are complex; the last two tensors are the factors."""
    added = op in (torch.ops.aten.addmm, torch.ops.aten.baddbmm)

    @_raw
    def formula(*operands: Any, out_val: Tensor, **_: Any) -> int:
        a = operands[1 if added else 0]
        return 2 * out_val.numel() * a.shape[-1] * (4 if out_val.is_complex() else 1)

    return formula


@_raw
def _fft_flops(x: Tensor, axes: Sequence[int], *_: Any, out_val: Tensor, **__: Any) -> int:
    real = not (x.is_complex() and out_val.is_complex())
    full = out_val if x.is_complex() else x
    points = math.prod(full.shape[axis] for axis in axes)
    return round((2.5 if real else 5.0) * full.numel() * math.log2(points)) if points > 1 else 0


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors made inside a ``with`` block that are still in use, on any device, backward passes included.

    Storages are counted, so views cost nothing. What an operation allocates for itself and frees again is not seen.

    Attributes:
        now: bytes in use.
        peak: the largest number so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and count what it made."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in self._alive:
                    self._alive.add(id(storage))
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._freed, id(storage), storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size

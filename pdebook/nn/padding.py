"""Padding of a field's domain, by a part of its size or by cells, and its exact removal: for what a network takes as periodic."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Inexact
from torch import Tensor, nn


class DomainPad(nn.Module):
    """``pad`` adds cells at the ends of the grid's axes, real or complex; ``crop`` takes them off.

    An FNO sees a periodic field; zeros beyond a wall keep what is left of it from leaking to the right.

    Args:
        amount: for all axes or each: a float is a part of the axis' size (rounded to cells), an integer a number of cells.
        sides: "end", or "both" (the amount on each).
        mode: "zeros", "replicate", "reflect" or "circular".
    Raises:
        ValueError: an amount that is negative, an unknown mode or side; on use, amounts for another number of axes, or more
            cells than a mode can take from the field.
    """

    def __init__(self, amount: float | int | Sequence[float | int], *, sides: str = "end", mode: str = "zeros") -> None:
        super().__init__()
        amounts = tuple(amount) if isinstance(amount, Sequence) else (amount,)
        if not amounts or any(isinstance(a, str | bool) or not 0 <= a < math.inf for a in amounts):
            raise ValueError(f"amount must not be negative, one number or one for each axis, got {amount!r}")
        if sides not in ("end", "both"):
            raise ValueError(f"sides must be 'end' or 'both', got {sides!r}")
        if mode not in ("zeros", "replicate", "reflect", "circular"):
            raise ValueError(f"mode must be 'zeros', 'replicate', 'reflect' or 'circular', got {mode!r}")
        self.amounts, self.same = amounts, not isinstance(amount, Sequence)
        self.sides, self.mode = sides, mode

    def cells(self, size: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Number of cells before and after each axis of a grid of this size."""
        amounts = self.amounts * len(size) if self.same else self.amounts
        if len(amounts) != len(size):
            raise ValueError(f"amount must have a number for each of {len(size)} axes, got {amounts}")
        counts = [round(a * n) if isinstance(a, float) else a for a, n in zip(amounts, size, strict=True)]
        return tuple((count if self.sides == "both" else 0, count) for count in counts)

    def pad(self, v: Inexact[Tensor, "batch channels *grid"]) -> Inexact[Tensor, "batch channels *padded"]:
        """The field on the larger grid."""
        size = v.shape[2:]
        for axis, (n, (before, after)) in enumerate(zip(size, self.cells(size), strict=True), 2):
            if not (before or after):
                continue
            if max(before, after) > (n - 1 if self.mode == "reflect" else n) and self.mode in ("reflect", "circular"):
                raise ValueError(f"amount must be at most the axis for mode {self.mode!r}, got {after} cells on {n}")
            places = torch.arange(-before, n + after, device=v.device)
            if self.mode == "circular":
                v = v.index_select(axis, places % n)
            elif self.mode == "replicate":
                v = v.index_select(axis, places.clamp(0, n - 1))
            elif self.mode == "reflect":
                v = v.index_select(axis, (n - 1) - ((n - 1) - places.abs()).abs())
            else:
                v = nn.functional.pad(v, (*(0, 0) * (v.ndim - 1 - axis), before, after))
        return v

    @staticmethod
    def crop(
        v: Inexact[Tensor, "batch channels *padded"], cells: Sequence[tuple[int, int]]
    ) -> Inexact[Tensor, "batch channels *grid"]:
        """The field without so many cells before and after each axis; no pairs leave it as it is."""
        size = v.shape[2:]
        if cells and (
            len(cells) != len(size) or any(min(pair) < 0 or sum(pair) >= n for pair, n in zip(cells, size, strict=True))
        ):
            raise ValueError(
                f"cells must be pairs that leave a point of each axis of {tuple(size)}, got {tuple(cells)}"
            )
        for axis, (before, after) in enumerate(cells, 2):
            v = v.narrow(axis, before, v.shape[axis] - before - after)
        return v

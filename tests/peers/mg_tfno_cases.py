"""What is compared with neuraloperator's patching: sizes, levels and padding, on a field whose value tells where it stands.

A window of such a field is an outer sum, of 1000 times its rows and its columns; only these are stored.
"""

from typing import Any

import torch
from torch import Tensor

from pdebook.operators.mg_tfno import patches

CASES: dict[str, tuple[tuple[int, int], int, float]] = {
    "32, 1 level": ((32, 32), 1, 0.0),
    "32, 1 level, padded": ((32, 32), 1, 0.125),
    "64, 2 levels": ((64, 64), 2, 0.0),
    "64, 2 levels, padded": ((64, 64), 2, 0.046875),
    "128, 3 levels, padded": ((128, 128), 3, 0.03125),
    "64 x 32, 1 level, padded": ((64, 32), 1, 0.0625),
}
"""Size of the grid, levels, and padding as a part of the size."""

REFUSED: dict[str, tuple[tuple[int, int], int]] = {"24, 2 levels": ((24, 24), 2), "12, 1 level": ((12, 12), 1)}
"""Sizes whose coarse windows have no common centre on the grid."""


def numbered(size: tuple[int, int]) -> Tensor:
    """Two channels of 1000 i + j, the second one negative."""
    i, j = (torch.arange(float(n)) for n in size)
    field = 1000 * i[:, None] + j
    return torch.stack([field, -field])[None]


def cells(name: str) -> int:
    """Padding in points; that of the longer axis, for ours takes one number."""
    size, _, part = CASES[name]
    return round(size[0] * part)


def ours(name: str) -> Tensor:
    """Our patches."""
    size, levels, _ = CASES[name]
    return patches(numbered(size), levels, cells(name))


def places(windows: Tensor, levels: int) -> list[list[list[list[int]]]]:
    """Rows and columns of each patch on each level.

    Raises:
        ValueError: windows that are not parts of the numbered field, or whose second channel is another part.
    """
    found: list[Any] = []
    for patch in windows.unflatten(1, (levels + 1, 2)):
        found.append([])
        for first, second in patch:
            rows, columns = first[:, 0] // 1000, first[0] % 1000
            if not torch.equal(first, 1000 * rows[:, None] + columns) or not torch.equal(first, -second):
                raise ValueError("windows must be parts of the numbered field")
            found[-1].append([rows.long().tolist(), columns.long().tolist()])
    return found

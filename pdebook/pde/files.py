"""Files of PDEBench (HDF5), Poseidon (NetCDF), PDEArena (HDF5) and the Fourier neural operator (.mat), read where asked and no more.

``Reader`` gives what any layout of ``pdebook.pde.file_layouts`` holds as (time, channel, *grid), sample by sample, so that a file
may be larger than the memory. ``pdebook.pde.file_writer`` writes them.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.pde.file_layouts import LAYOUTS, LETTERS, Layout, Piece, Split, split
from pdebook.pde.file_stores import Store, read_mat
from pdebook.pde.grid import Grid

__all__ = ["Reader", "read_mat"]

_BLOCK = 1 << 22
"""Values that are read at a time before they are thinned out."""


class Reader:
    """Trajectories of a file: (sample, time, channel, *grid), of which only what is asked for is read.

    The file is opened at the first read of each process, so that a reader can be handed to the workers of a data loader.

    Attributes:
        path: the file.
        layout: its layout.
        channels: names of the channels, in the order in which they are read.
        shape: (samples, frames, channels, *size), thinned out.
        grid: the grid, thinned out; values stand at the centres of its cells.
        times: times of the frames, thinned out.
        attributes: numbers and texts that the file or its first group carries, such as "Nu" or "config".
    Raises:
        ValueError: a file that is truncated, damaged or of another layout: a missing dataset, a wrong rank or channel count,
            lengths that do not agree, coordinates that are not uniform; arguments that make no sense.
        FileNotFoundError: no such file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        layout: str | Layout,
        *,
        channels: Sequence[str] | None = None,
        every: int = 1,
        reduce: int = 1,
        how: str = "stride",
        check: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Look at the file, and close it again.

        Args:
            path: the file.
            layout: a name of ``LAYOUTS``, or a layout.
            channels: names of the channels wanted, in this order; all if left out.
            every: keep every such frame.
            reduce: keep every such cell along each axis, or the mean of so many.
            how: "stride" as in the official loaders, point values of a finer grid, whose cells lose their centring; or "average".
            check: refuse values that are not finite, or not positive where they must be.
            dtype: dtype of what is read.
        """
        self.path = Path(path)
        if isinstance(layout, str):
            if layout not in LAYOUTS:
                raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
            layout = LAYOUTS[layout]
        if every < 1 or reduce < 1 or how not in ("stride", "average"):
            raise ValueError(
                f"every and reduce must be positive and how 'stride' or 'average', got {every}, {reduce} and {how!r}"
            )
        self.layout, self.every, self.reduce, self.how, self.check, self.dtype = (
            layout,
            every,
            reduce,
            how,
            check,
            dtype,
        )
        self.channels = tuple(layout.channels if channels is None else channels)
        if not self.channels or any(name not in layout.channels for name in self.channels):
            raise ValueError(f"channels must be among {', '.join(layout.channels)}, got {channels}")
        self._store: Store | None = None
        self._owner = -1
        store = Store(self.path)
        try:
            self._look(store)
        finally:
            store.close()

    # ---- the look at the file

    def _axes(self, store: Store, piece: Piece) -> str:
        return piece.axes[::-1] if store.backwards else piece.axes

    def _lengths(self, store: Store, piece: Piece) -> dict[str, int]:
        """Length of each axis of a dataset, after a look at its rank, kind and channels."""
        name = self.layout.place(piece.name, self._first)
        dataset, axes = store[name], self._axes(store, piece)
        if not hasattr(dataset, "shape"):
            raise ValueError(f"{self.path}: {name!r} is a group, expected a dataset")
        kind = np.dtype(getattr(dataset, "dtype", None) or dataset.data.dtype).kind
        if kind not in "fiu":
            raise ValueError(f"{self.path}: dataset {name!r} must hold real numbers, got kind {kind!r}")
        if len(dataset.shape) != len(axes):
            words = ", ".join(LETTERS[a] for a in axes)
            raise ValueError(
                f"{self.path}: dataset {name!r} has rank {len(dataset.shape)} (shape {tuple(dataset.shape)}), "
                f"expected {len(axes)} ({words})"
            )
        lengths = dict(zip(axes, dataset.shape, strict=True))
        if lengths.get("c", len(piece.channels)) != len(piece.channels):
            raise ValueError(
                f"{self.path}: dataset {name!r} has {lengths['c']} channels, expected {len(piece.channels)} "
                f"({', '.join(piece.channels)})"
            )
        return lengths

    def _look(self, store: Store) -> None:
        layout = self.layout
        self._groups = self._sorted_groups(store) if layout.group is not None else []
        self._first = self._groups[0] if self._groups else 0
        found: dict[str, tuple[int, str]] = {}
        for piece in (*layout.state, *layout.static):
            for letter, length in self._lengths(store, piece).items():
                if letter != "c" and found.setdefault(letter, (length, piece.name))[0] != length:
                    other, name = found[letter]
                    raise ValueError(
                        f"{self.path}: dataset {piece.name!r} has length {length} along {LETTERS[letter]}, "
                        f"{name!r} has {other}"
                    )
        lengths = {letter: length for letter, (length, _) in found.items()}
        if min(lengths.values()) == 0:
            raise ValueError(f"{self.path} is empty: its lengths are {lengths}")
        size = tuple(lengths[letter] for letter in "xyz"[: layout.dims])
        if self.how == "average" and any(n % self.reduce for n in size):
            raise ValueError(f"reduce must divide the size {size} to average, got {self.reduce}")
        self._frames = lengths.get("t", 1)
        self._file_grid = self._read_grid(store, size)
        self.times = self._read_times(store)[:: self.every]
        self.grid = self._thin_grid()
        samples = len(self._groups) if layout.group is not None else lengths["s"]
        self.shape = (samples, len(range(0, self._frames, self.every)), len(self.channels), *self.grid.size)
        held = store[layout.group.format(self._first)].attrs if layout.group is not None else {}
        self.attributes = {
            key: value.decode()
            if isinstance(value, bytes)
            else value.item()
            if isinstance(value, np.generic)
            else value
            for key, value in {**store.attributes, **held}.items()
        }

    def _sorted_groups(self, store: Store) -> list[int]:
        assert self.layout.group is not None
        before = self.layout.group.partition("{")[0]
        numbers = []
        for name in store.names():
            number = name.removeprefix(before)
            if number.isdigit() and self.layout.group.format(int(number)) == name:
                numbers.append(int(number))
        if not numbers:
            raise ValueError(f"{self.path} lacks groups of samples, such as {self.layout.group.format(0)!r}")
        return sorted(numbers)

    def _line(self, store: Store, name: str, what: str) -> np.ndarray:
        """A coordinate, after a look at its values."""
        full = self.layout.place(name, self._first)
        values = store.read(full).astype(np.float64)
        if self.layout.times_by_sample and name == self.layout.times and values.ndim == 2:
            values = values[0]
        if values.ndim != 1:
            raise ValueError(f"{self.path}: {what} {full!r} has rank {values.ndim}, expected 1")
        if not np.isfinite(values).all():
            raise ValueError(f"{self.path}: {what} {full!r} has values that are not finite")
        return values

    def _read_grid(self, store: Store, size: tuple[int, ...]) -> Grid:
        lengths, origins = [], []
        for axis, n in enumerate(size):
            if not self.layout.coordinates:
                h = 1.0 / (max(n - 1, 1) if self.layout.points == "ends" else n)
                lengths.append(n * h)
                origins.append(0.0 if self.layout.points == "centres" else -h / 2)
                continue
            name = self.layout.coordinates[axis]
            x = self._line(store, name, "coordinate")
            if len(x) != n:
                raise ValueError(f"{self.path}: coordinate {name!r} has {len(x)} entries for {n} cells")
            h = (x[-1] - x[0]) / max(n - 1, 1) if n > 1 else 1.0
            # Single-precision coordinates are uniform up to their own rounding.
            slack = 1e-3 * abs(h) + 4 * float(np.finfo(np.float32).eps) * float(np.abs(x).max())
            if not h > 0 or (n > 1 and np.abs(np.diff(x) - h).max() > slack):
                raise ValueError(f"{self.path}: coordinate {name!r} is not uniform and rising: the grid must be")
            lengths.append(float(f"{n * h:.6g}"))
            origins.append(_rounded(x[0] - h / 2, n * h))
        return Grid(size, lengths, origins)

    def _read_times(self, store: Store) -> Tensor:
        layout = self.layout
        if layout.times is None:
            scale = layout.time_scale or max(self._frames - 1, 1)
            return torch.arange(self._frames, dtype=torch.float64) / scale
        t = self._line(store, layout.times, "time axis")
        if len(t) not in (self._frames, self._frames + layout.late):
            wanted = self._frames if not layout.late else f"{self._frames} or {self._frames + layout.late}"
            raise ValueError(
                f"{self.path}: time axis {layout.times!r} has {len(t)} entries, expected {wanted} for {self._frames} frames"
            )
        if not (np.diff(t) > 0).all():
            raise ValueError(f"{self.path}: time axis {layout.times!r} does not rise")
        return torch.from_numpy(t[: self._frames].copy())

    def _thin_grid(self) -> Grid:
        full, r = self._file_grid, self.reduce
        size = tuple(-(-n // r) for n in full.size)
        spacing = [h * r for h in full.spacing]
        # A kept cell's value stays where it was: the box moves around it.
        shift = [0.0 if self.how == "average" else 0.5 * h * (1 - r) for h in full.spacing]
        origin = [low + move for low, move in zip(full.origin, shift, strict=True)]
        return Grid(size, [n * h for n, h in zip(size, spacing, strict=True)], origin)

    # ---- reading

    def _open(self) -> Store:
        if self._store is None or self._owner != os.getpid():
            # Never close what another process opened.
            self._store, self._owner = Store(self.path), os.getpid()
        return self._store

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._store is not None and self._owner == os.getpid():
            self._store.close()
        self._store = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None, "_owner": -1}

    def __len__(self) -> int:
        return self.shape[0]

    def _number(self, sample: int) -> int:
        if not 0 <= sample < len(self):
            raise ValueError(f"sample must be from 0 to {len(self) - 1}, got {sample}")
        return self._groups[sample] if self._groups else sample

    def _frames_of(self, frames: slice) -> range:
        """The frames of a slice, counted after ``every``; none beyond the file."""
        count = self.shape[1]
        start, stop, step = frames.start or 0, count if frames.stop is None else frames.stop, frames.step or 1
        if step < 1 or start < 0 or stop <= start:
            raise ValueError(f"frames must be a forward slice that is not empty, got {frames}")
        if stop > count:
            last = float(self.times[-1])
            raise ValueError(
                f"frames go to {stop - 1}, beyond the file {self.path}, which ends with frame {count - 1} at t = {last:g}"
            )
        return range(start, stop, step)

    def _blocks(self, frames: range) -> Iterator[range]:
        step = max(1, _BLOCK // math.prod(self._file_grid.size))
        for begin in range(0, len(frames), step):
            yield frames[begin : begin + step]

    def _thin(self, values: np.ndarray) -> np.ndarray:
        """(..., *size), thinned out."""
        d, r = self.layout.dims, self.reduce
        if r == 1:
            return values
        if self.how == "stride":
            thinned: tuple[Any, ...] = (..., *[slice(None, None, r)] * d)
            return values[thinned]
        shape = [*values.shape[:-d]]
        for n in values.shape[-d:]:
            shape += [n // r, r]
        return values.reshape(shape).mean(axis=tuple(range(-1, -2 * d, -2)))

    def _part(self, store: Store, piece: Piece, number: int, frames: range | None) -> np.ndarray:
        """A dataset's part as (time, channel, *size), thinned out; axes that it lacks have length one."""
        axes = self._axes(store, piece)
        index: list[Any] = []
        for letter in axes:
            if letter == "s":
                index.append(number)
            elif letter == "t" and frames is not None:
                index.append(slice(frames.start, frames.stop, frames.step))
            else:
                index.append(slice(None))
        values = store.read(self.layout.place(piece.name, number), tuple(index))
        left = axes.replace("s", "")
        order = [letter for letter in "tcxyz" if letter in left]
        values = values.transpose([left.index(letter) for letter in order])
        for place, letter in enumerate("tc"):
            if letter not in left:
                values = np.expand_dims(values, place)
        return self._thin(values) if "x" in left else values

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))).to(self.dtype)

    def _refuse_bad(self, values: Tensor, names: Sequence[str], sample: int, frames: range) -> None:
        """Raise ValueError if a value is not finite, or not positive where it must be."""
        for channel, name in enumerate(names):
            least, greatest = values[:, channel].flatten(1).aminmax(dim=1)
            bad, what = ~(least.isfinite() & greatest.isfinite()), "not finite"
            if not bool(bad.any()) and name in self.layout.positive:
                bad, what = least <= 0, "not positive (are the channels in their places?)"
            if bool(bad.any()):
                frame = frames[int(bad.int().argmax())]
                raise ValueError(f"{self.path}: {name} of sample {sample} is {what} at frame {frame}")

    def read(self, sample: int, frames: slice = slice(None)) -> Float[Tensor, "time channel *size"]:
        """A sample's frames.

        Args:
            sample: its number in the file, from 0.
            frames: which of the thinned-out frames, forwards.
        Raises:
            ValueError: a sample or frame beyond the file, values that are not finite or not positive, damage.
        """
        store, number, chosen = self._open(), self._number(sample), self._frames_of(frames)
        file_frames = range(chosen.start * self.every, (chosen[-1]) * self.every + 1, chosen.step * self.every)
        out = torch.empty(len(chosen), *self.shape[2:], dtype=self.dtype)
        for piece in self.layout.state:
            wanted = [(name, self.channels.index(name)) for name in piece.channels if name in self.channels]
            if not wanted:
                continue
            done = 0
            for block in self._blocks(file_frames):
                values = self._tensor(self._part(store, piece, number, block if "t" in piece.axes else None))
                for name, place in wanted:
                    out[done : done + len(block), place] = values[:, piece.channels.index(name)]
                done += len(block)
        if self.check:
            self._refuse_bad(out, self.channels, sample, chosen)
        return out

    def static(self, sample: int) -> dict[str, Tensor]:
        """What a sample has besides its frames, by dataset: fields (channel, *size), or (channel,) for numbers.

        Raises:
            ValueError: as ``read``.
        """
        store, number = self._open(), self._number(sample)
        parts = {}
        for piece in self.layout.static:
            values = self._tensor(self._part(store, piece, number, None))
            if self.check:
                self._refuse_bad(values.reshape(1, values.shape[1], -1), piece.channels, sample, range(1))
            parts[piece.name.rpartition("/")[2]] = values[0]
        return parts

    def batch(self, samples: Sequence[int], frames: slice = slice(None)) -> Float[Tensor, "batch time channel *size"]:
        """Several samples' frames."""
        return torch.stack([self.read(sample, frames) for sample in samples])

    def official(
        self, samples: Sequence[int], frames: slice = slice(None)
    ) -> tuple[Float[Tensor, "batch *size_time_channel"], Float[Tensor, "*size dims"]]:
        """As PDEBench's loaders give it: fields (batch, *size, time, channel), and the grid (*size, dims)."""
        d = self.layout.dims
        u = self.batch(samples, frames).permute(0, *range(3, 3 + d), 1, 2)
        return u, self.grid.mesh(dtype=self.dtype).movedim(0, -1)

    def frame(self, t: float | int) -> int:
        """Number of the last frame that is not later than t.

        Raises:
            ValueError: a time before the first frame or beyond the last.
        """
        first, last = float(self.times[0]), float(self.times[-1])
        slack = 1e-6 * max(abs(first), abs(last))
        if not first - slack <= t <= last + slack:
            raise ValueError(f"t = {t:g} is beyond the file {self.path}, whose frames go from {first:g} to {last:g}")
        return max(int((self.times <= t + slack).sum()) - 1, 0)

    def split(self, fraction: float = 0.1) -> Split:
        """The official split of this layout; see ``split``."""
        return split(len(self), self.layout.test, fraction)


def _rounded(value: float, scale: float) -> float:
    """A corner without the rounding of single-precision coordinates."""
    digits = 6 - math.ceil(math.log10(scale))
    return round(value, digits) + 0.0

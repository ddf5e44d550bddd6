"""Files in the benchmarks' layouts, written whole or not at all, or piece by piece over many runs.

``write_file`` holds a set in memory and writes it: a reader sees the old file or the new one, never a part.

``generate`` makes a set that need not fit into the memory. It lays the whole file out beside its final name, contiguous and empty,
and then puts each block of samples straight to its place in the bytes, so that the file's own structure is touched no more; a
journal says how many blocks are on the disk. Killed at any moment, it goes on from there, and the file is the same to the last bit,
if sample i is a function of i (as all random fields of this library are). The file takes its name when it is complete.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.pde.file_layouts import LAYOUTS, Layout, Piece
from pdebook.pde.grid import Grid

__all__ = ["generate", "write_file"]

Static = Mapping[str, Tensor]
Made = Tensor | tuple[Tensor, Static]
_MARK = "pdebook"


def _layout(layout: str | Layout) -> Layout:
    if isinstance(layout, Layout):
        return layout
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    return LAYOUTS[layout]


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name for a new file that takes the place of ``path`` at the end, or vanishes if something goes wrong."""
    path.parent.stat()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


# -------------------- arrays for datasets


class _Plan:
    """The arrays of a set of samples in a layout: their names, shapes and places."""

    def __init__(
        self,
        layout: Layout,
        samples: int,
        frames: int,
        grid: Grid,
        times: Tensor | Sequence[float | int] | None,
        attributes: Mapping[str, Any],
        config: str | Mapping[str, Any] | None,
    ) -> None:
        if samples < 1 or frames < 1:
            raise ValueError(f"samples and frames must be positive, got {samples} and {frames}")
        if grid.dims != layout.dims:
            raise ValueError(f"grid must have {layout.dims} axes for layout {layout.name!r}, got {grid.dims}")
        steady = [piece.name for piece in layout.state if "t" not in piece.axes]
        if steady and frames != 1:
            raise ValueError(
                f"layout {layout.name!r} has no time axis in {steady[0]!r}: it takes one frame, got {frames}"
            )
        self.layout, self.samples, self.frames, self.grid = layout, samples, frames, grid
        self.times, self.attributes = self._checked_times(times), dict(attributes)
        # JSON is YAML.
        self.config = json.dumps(dict(config), indent=2) if isinstance(config, Mapping) else config

    def _checked_times(self, times: Tensor | Sequence[float | int] | None) -> np.ndarray | None:
        layout, frames = self.layout, self.frames
        if layout.times is None:
            return None
        if times is None:
            raise ValueError(f"times must be given for layout {layout.name!r}")
        t = np.asarray(times, dtype=np.float64)
        if t.ndim != 1 or len(t) not in (frames, frames + layout.late) or not (np.diff(t) > 0).all():
            raise ValueError(f"times must be {frames} rising numbers, one for each frame, got shape {t.shape}")
        if layout.late and len(t) == frames:
            step = t[-1] - t[-2] if frames > 1 else 1.0
            t = np.append(t, t[-1] + step * np.arange(1, layout.late + 1))
        return t

    def shape(self, piece: Piece) -> tuple[int, ...]:
        lengths = {"s": self.samples, "t": self.frames, "c": len(piece.channels)}
        lengths |= dict(zip("xyz", self.grid.size, strict=False))
        return tuple(lengths[letter] for letter in piece.axes)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return (*self.layout.state, *self.layout.static)

    def arrays(self, made: Made, first: int, count: int) -> dict[str, np.ndarray]:
        """For each dataset an array whose first axis is the sample, the others in the dataset's order."""
        state, static = made if isinstance(made, tuple) else (made, {})
        layout = self.layout
        self._check(state, "state", (count, self.frames, len(layout.channels), *self.grid.size), first)
        if missing := {piece.name for piece in layout.static} ^ set(static):
            names = ", ".join(piece.name for piece in layout.static) or "nothing"
            raise ValueError(f"static must hold {names} for layout {layout.name!r}; {min(missing)!r} differs")
        out, begin = {}, 0
        for piece in layout.state:
            part = state[:, :, begin : begin + len(piece.channels)]
            begin += len(piece.channels)
            out[piece.name] = self._ordered(piece, part)
        for piece in layout.static:
            value = static[piece.name]
            size = self.grid.size if "x" in piece.axes else ()
            self._check(value, f"static[{piece.name!r}]", (count, len(piece.channels), *size), first)
            out[piece.name] = self._ordered(piece, value[:, None])
        return out

    def _check(self, value: Tensor, name: str, shape: tuple[int, ...], first: int) -> None:
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
        # In single precision, which may overflow; the extremes hold any value that is not finite, and cost one pass.
        least, greatest = value.detach().float().flatten(1).aminmax(dim=1)
        bad = ~(least.isfinite() & greatest.isfinite())
        if bool(bad.any()):
            raise ValueError(f"{name} is not finite in sample {first + int(bad.int().argmax())}")

    def _ordered(self, piece: Piece, value: Tensor) -> np.ndarray:
        """(sample, time, channel, *size) in the order of the dataset, the sample first, without axes that it lacks."""
        values = value.detach().to("cpu", torch.float32).numpy()
        letters = ["s", "t", "c", *("xyz"[: self.layout.dims] if "x" in piece.axes else "")]
        order = ["s", *piece.axes.replace("s", "")]
        lost = [letter for letter in letters if letter not in order]
        values = values.transpose([letters.index(letter) for letter in (*order, *lost)])
        return np.ascontiguousarray(values.reshape(values.shape[: len(order)]))


def _lay_out(file: h5py.File, plan: _Plan, *, allocate: bool) -> None:
    """All datasets of a file, their coordinates and attributes, without the fields' values."""
    layout = plan.layout
    for key, value in plan.attributes.items():
        file.attrs[key] = value
    groups = [file]
    if layout.group is not None:
        groups = [file.create_group(layout.group.format(i)) for i in range(plan.samples)]
    elif plan.config is not None:
        file.attrs["config"] = plan.config
    for group in groups:
        if layout.group is not None and plan.config is not None:
            group.attrs["config"] = plan.config
        for piece in plan.pieces:
            kept = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            if allocate:
                kept.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                kept.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            chunks = {}
            if piece.options:
                # One frame.
                chunks = {
                    "chunks": tuple(1 if a in "st" else n for a, n in zip(piece.axes, plan.shape(piece), strict=True))
                }
            group.create_dataset(piece.name, plan.shape(piece), np.float32, dcpl=kept, **chunks, **piece.options)
        for name, x in zip(layout.coordinates, plan.grid.coordinates(), strict=False):
            group[name] = x.flatten().numpy().astype(np.float32)
        if layout.times is not None:
            assert plan.times is not None
            t = plan.times.astype(np.float32)
            group[layout.times] = np.tile(t, (plan.samples, 1)) if layout.times_by_sample else t
    if layout.times_by_sample:
        file.attrs["latestIndex"] = plan.frames - 1


def _net_dimensions(file: h5py.File, plan: _Plan) -> None:
    """Dimension scales, which make an HDF5 file a NetCDF file."""
    names = {"s": "member", "t": "time", "c": "channel", "x": "x", "y": "y", "z": "z"}
    for piece in plan.pieces:
        for axis, (letter, n) in enumerate(zip(piece.axes, plan.shape(piece), strict=True)):
            name = names[letter]
            if name not in file:
                file.create_dataset(name, (n,), np.float32)
                # The library's own words for a dimension without coordinates.
                file[name].make_scale(f"This is a netCDF dimension but not a netCDF variable.{n:10d}")
            file[piece.name].dims[axis].attach_scale(file[name])


def write_file(
    path: str | os.PathLike[str],
    layout: str | Layout,
    state: Float[Tensor, "sample time channel *size"],
    *,
    grid: Grid,
    times: Tensor | Sequence[float | int] | None = None,
    static: Static | None = None,
    attributes: Mapping[str, Any] | None = None,
    config: str | Mapping[str, Any] | None = None,
) -> None:
    """Write samples to one file, which appears whole or not at all; an older file of the name stays until then.

    A name that ends in ``.mat`` makes a MATLAB file of version 5, ``.nc`` an HDF5 file that NetCDF 4 reads, any other HDF5.
    A process that is killed leaves a hidden ``.tmp`` file at most.

    Args:
        path: the file; its folder exists.
        layout: a name of ``LAYOUTS``, or a layout.
        state: fields, channels in the layout's order; stored in single precision.
        grid: gives the coordinates.
        times: of the frames, if the layout has them; the time that files have beyond the last frame is added.
        static: what the layout holds besides, by dataset: (sample, channel, *size), or (sample, channel) for numbers.
        attributes: numbers and texts of the file, such as {"Nu": 0.01}.
        config: text (YAML) or mapping that the file, or each sample's group, carries.
    Raises:
        ValueError: shapes, channels, times or statics that do not fit the layout, values that are not finite.
        OSError: the disk is full, the folder is missing, ...; an older file is intact.
    """
    path, kind = Path(path), _layout(layout)
    if state.ndim < 3:
        raise ValueError(f"state must have shape (sample, time, channel, *size), got {tuple(state.shape)}")
    plan = _Plan(kind, state.shape[0], state.shape[1], grid, times, attributes or {}, config)
    arrays = plan.arrays((state, static or {}), 0, plan.samples)
    with _replacing(path) as temporary:
        if path.suffix == ".mat":
            if kind.group is not None:
                raise ValueError(f"layout {kind.name!r} has a group for each sample, which no MATLAB file holds")
            whole = {piece.name: _whole(piece, arrays[piece.name]) for piece in plan.pieces}
            with open(temporary, "wb") as file:
                scipy.io.savemat(file, whole)
            return
        with h5py.File(temporary, "w") as file:
            _lay_out(file, plan, allocate=False)
            for piece in plan.pieces:
                if kind.group is None:
                    file[piece.name][...] = _whole(piece, arrays[piece.name])
                else:
                    for i, value in enumerate(arrays[piece.name]):
                        file[kind.place(piece.name, i)][...] = value
            if path.suffix == ".nc":
                _net_dimensions(file, plan)


def _whole(piece: Piece, array: np.ndarray) -> np.ndarray:
    """The array with its sample axis where the dataset has it."""
    return np.moveaxis(array, 0, piece.axes.index("s"))


# -------------------- sets larger than the memory


def _places(path: Path, plan: _Plan) -> dict[str, list[int]]:
    """Byte at which each dataset begins: one entry, or one for each sample's group."""
    with h5py.File(path, "r") as file:
        base = file.userblock_size
        samples = range(plan.samples) if plan.layout.group is not None else range(1)
        return {
            piece.name: [base + file[plan.layout.place(piece.name, i)].id.get_offset() for i in samples]
            for piece in plan.pieces
        }


def _put(descriptor: int, array: np.ndarray, place: int) -> None:
    view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    while len(view):
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written


def _write_journal(path: Path, content: Mapping[str, Any]) -> None:
    with _replacing(path) as temporary:
        temporary.write_text(json.dumps(content))


def generate(
    path: str | os.PathLike[str],
    layout: str | Layout,
    make: Callable[[Shaped[Tensor, " block"]], Made],
    *,
    samples: int,
    frames: int,
    grid: Grid,
    times: Tensor | Sequence[float | int] | None = None,
    attributes: Mapping[str, Any] | None = None,
    config: str | Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    block: int = 64,
) -> bool:
    """Make a file block by block; a run that was killed is gone on with by the same call. Whether there was anything to do.

    While it grows it is called ``<path>.partial``, with ``<path>.journal`` beside it.

    Args:
        path: the file; HDF5 or, if it ends in ``.nc``, HDF5 that NetCDF 4 reads.
        layout: a name of ``LAYOUTS`` whose datasets are contiguous, or such a layout.
        make: fields (block, frames, channels, *size) of the samples with these numbers, on any device; with statics, a pair of
            fields and a mapping as for ``write_file``.
        samples: how many samples.
        frames: how many frames.
        grid: gives the coordinates.
        times: of the frames.
        attributes: numbers and texts of the file.
        config: text or mapping that the file, or each group, carries.
        settings: what the samples are made from (seed, equation, its parameters): anything that JSON can hold. It is kept in the
            file, and a run with others does not go on with it.
        block: samples made at a time; the memory holds one block.
    Raises:
        ValueError: arguments that do not fit the layout, samples of a wrong shape or not finite, a file or a part of one that
            was made from other settings.
        OSError: the disk is full, the folder is missing, ...; what is on the disk can be gone on with.
    """
    path, kind = Path(path), _layout(layout)
    if block < 1:
        raise ValueError(f"block must be positive, got {block}")
    if path.suffix == ".mat" or any(piece.options or piece.axes.find("s") > 0 for piece in (*kind.state, *kind.static)):
        raise ValueError(f"layout {kind.name!r} in {path.name!r} has no place for single samples: use write_file")
    plan = _Plan(kind, samples, frames, grid, times, attributes or {}, config)
    about = {
        "layout": kind.name,
        "samples": samples,
        "frames": frames,
        "size": list(grid.size),
        "settings": dict(settings or {}),
    }
    mark = json.dumps(about, sort_keys=True)
    partial, journal = path.with_name(path.name + ".partial"), path.with_name(path.name + ".journal")
    if path.exists():
        _compare(path, _mark_of(path), mark)
        journal.unlink(missing_ok=True)
        return False
    done = 0
    if journal.exists() and partial.exists():
        note = json.loads(journal.read_text())
        _compare(partial, note["about"], mark)
        done = note["done"]
    else:
        with h5py.File(partial, "w") as file:
            _lay_out(file, plan, allocate=True)
            file.attrs[_MARK] = mark
            if path.suffix == ".nc":
                _net_dimensions(file, plan)
        _sync(partial)
        _write_journal(journal, {"about": mark, "done": 0})
    places = _places(partial, plan)
    with open(partial, "r+b") as file:
        for first in range(done, samples, block):
            numbers = torch.arange(first, min(first + block, samples))
            for name, array in plan.arrays(make(numbers), first, len(numbers)).items():
                if kind.group is None:
                    _put(file.fileno(), array, places[name][0] + first * array[0].nbytes)
                    continue
                for i, value in enumerate(array, first):
                    _put(file.fileno(), value, places[name][i])
            os.fsync(file.fileno())
            _write_journal(journal, {"about": mark, "done": first + len(numbers)})
    os.replace(partial, path)
    _sync(path.parent)
    journal.unlink()
    return True


def _mark_of(path: Path) -> str | None:
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get(_MARK)
    except OSError:
        return None


def _compare(path: Path, found: str | None, mark: str) -> None:
    if found != mark:
        raise ValueError(
            f"{path} was made from other settings ({found or 'unknown'}) than these ({mark}): remove it, or take another name"
        )

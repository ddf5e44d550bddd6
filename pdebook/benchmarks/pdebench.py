"""The data sets of PDEBench, made in memory or streamed into files that its own loaders read.

``make`` gives trajectories, ``generate`` a file; ``data_sets`` lists what there is. Sample i of seed s is the same alone, in any batch
and in any file.

Source: Takamoto et al., PDEBench: an extensive benchmark for scientific machine learning, NeurIPS 2022 (arXiv:2210.07182).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.benchmarks.data_sets import DataSet, data_set
from pdebook.benchmarks.problems import Case, Made
from pdebook.pde import file_writer
from pdebook.pde.grid import Grid

__all__ = ["FIDELITIES", "Simulation", "generate", "make"]

FIDELITIES = ("released", "exact")


@dataclass(frozen=True)
class Simulation:
    """Trajectories in memory.

    Attributes:
        u: fields; channels as the layout names them.
        times: of the frames.
        grid: cells.
        static: what a sample has besides: coefficients, forces.
        channels: names of the channels.
    """

    u: Tensor
    times: Float[Tensor, " time"]
    grid: Grid
    static: Mapping[str, Tensor]
    channels: tuple[str, ...]


def _case(
    one: DataSet,
    numbers: Tensor,
    seed: int,
    fidelity: str,
    resolution: int | None,
    frames: int | None,
    end: float | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Case:
    if fidelity not in FIDELITIES:
        raise ValueError(f"fidelity must be one of {', '.join(FIDELITIES)}, got {fidelity!r}")
    if resolution is not None and resolution < 6:
        raise ValueError(f"resolution must be at least 6 cells, got {resolution}")
    grid, times = one.grid(resolution), one.times(frames, end)
    return Case(seed, numbers.to(device), grid, times, fidelity == "released", dtype, device)


def make(
    data: DataSet | str,
    samples: int | Sequence[int],
    *,
    seed: int = 0,
    fidelity: str = "released",
    resolution: int | None = None,
    frames: int | None = None,
    end: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Simulation:
    """Trajectories of a data set.

    Args:
        data: a data set, or its name.
        samples: how many, or which numbers.
        seed: seed of the starts.
        fidelity: "released", with what the files do otherwise than they say; or "exact". See ``problems``.
        resolution: cells along the first axis; as released if left out.
        frames: number of frames, the start included.
        end: time of the last one.
        dtype: floating type.
        device: where they are made.
    Raises:
        ValueError: another name or fidelity, numbers out of range.
    """
    one = data_set(data) if isinstance(data, str) else data
    numbers = torch.arange(samples) if isinstance(samples, int) else torch.as_tensor(list(samples))
    if not len(numbers):
        raise ValueError(f"samples must be one or more, got {samples}")
    case = _case(one, numbers, seed, fidelity, resolution, frames, end, dtype, device)
    u, static = one.problem(case, **one.parameters)
    return Simulation(u, case.times, case.grid, static, one.kind.channels)


def generate(
    data: DataSet | str,
    path: str | os.PathLike[str],
    *,
    samples: int | None = None,
    seed: int = 0,
    fidelity: str = "released",
    resolution: int | None = None,
    frames: int | None = None,
    end: float | None = None,
    block: int = 32,
    device: torch.device | str = "cpu",
) -> Path:
    """Make a file in the release's layout, a block of samples at a time; a run that was killed is gone on with by the same call.

    The incompressible layout is compressed and is written whole, from memory.

    Args:
        data: a data set, or its name.
        path: the file, or a folder, where it gets the release's name.
        samples: how many; as released if left out.
        block: samples made at a time.
        seed, fidelity, resolution, frames, end, device: as in ``make``.
    Returns:
        The file.
    Raises:
        ValueError: as ``make``; a file made from other settings is in the way.
    """
    one = data_set(data) if isinstance(data, str) else data
    target = Path(path) / one.file if Path(path).is_dir() else Path(path)
    count = one.samples if samples is None else samples

    def block_of(numbers: Tensor) -> Made:
        case = _case(one, numbers, seed, fidelity, resolution, frames, end, torch.float32, device)
        u, static = one.problem(case, **one.parameters)
        return u, static

    grid, times = one.grid(resolution), one.times(frames, end)
    settings = {"name": one.name, "parameters": dict(one.parameters), "seed": seed, "fidelity": fidelity}
    common: dict[str, Any] = {"grid": grid, "times": None if one.steady else times, "attributes": one.attributes}
    common["config"] = settings | {"end": one.end if end is None else end} if one.kind.group else None
    if any(piece.options for piece in one.kind.state):
        u, static = block_of(torch.arange(count))
        file_writer.write_file(target, one.layout, u, static=static, **common | {"config": settings})
        return target

    def maker(numbers: Tensor) -> Any:
        u, static = block_of(numbers)
        return (u, static) if static else u

    file_writer.generate(
        target,
        one.layout,
        maker,
        samples=count,
        frames=len(times),
        settings=settings | {"times": [float(times[0]), float(times[-1])]},
        block=block,
        **common,
    )
    return target

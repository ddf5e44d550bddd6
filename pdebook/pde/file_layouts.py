"""What the benchmarks' files hold, and where: layouts as data, and the official splits.

| layout | file |
|---|---|
| ``scalar_1d`` | PDEBench's advection, Burgers, reaction-diffusion: ``tensor`` |
| ``darcy`` | ``tensor``, ``nu`` |
| ``cfd_1d``, ``cfd_2d``, ``cfd_3d`` | ``density``, ``pressure``, ``Vx``, ``Vy``, ``Vz`` |
| ``sorption``, ``reaction``, ``dam_break`` | a group for each sample: ``data``, ``grid/x``, ``grid/t`` |
| ``incompressible`` | ``velocity``, ``particles``, ``force``, ``t`` |
| ``poseidon_...`` | Poseidon's ``velocity``, ``solution``, ``data``, ``c``, ``source``; no coordinates |
| ``fno_...`` | the Fourier neural operator's MATLAB arrays ``a``, ``u``, ``coeff``, ``sol`` |
| ``pdearena_train``, ``_valid``, ``_test`` | ``u``, ``vx``, ``vy``, ``buo_y`` in a group of that name |

Without coordinates the box is the unit box, with values where ``points`` of the layout says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["LAYOUTS", "LETTERS", "Layout", "Piece", "Split", "split"]

LETTERS = {"s": "sample", "t": "time", "c": "channel", "x": "x", "y": "y", "z": "z"}


@dataclass(frozen=True)
class Piece:
    """A dataset: its name, one letter for each of its axes (s, t, c, x, y, z), and the channels that it holds."""

    name: str
    axes: str
    channels: tuple[str, ...] = ("u",)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Layout:
    """What a family of files holds, and where.

    Attributes:
        name: its name.
        dims: number of space axes.
        state: datasets of the fields.
        static: datasets of what a sample has besides: coefficients, forces.
        coordinates: dataset of each space axis, or none.
        times: dataset of the times, (time,), or (sample, time) if ``times_by_sample``.
        times_by_sample: see ``times``.
        late: entries that the times have beyond the frames.
        group: pattern of the group of a sample, if each has its own; it ends with the number.
        time_scale: number of frames in unit time where there are no times; one fewer than the frames if left out.
        test: the official test set: the "first" or "last" tenth, or the last of (training, validation, test) counts.
        positive: channels that must be positive.
        points: where the values stand on the unit box if there are no coordinates: at the "centres" of the cells, at their
            lower ends ("nodes"), or evenly from wall to wall ("ends").
    """

    name: str
    dims: int
    state: tuple[Piece, ...]
    static: tuple[Piece, ...] = ()
    coordinates: tuple[str, ...] = ()
    times: str | None = None
    times_by_sample: bool = False
    late: int = 0
    group: str | None = None
    time_scale: int | None = None
    test: str | tuple[int, int] = "first"
    positive: tuple[str, ...] = ()
    points: str = "centres"

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of all channels."""
        return tuple(name for piece in self.state for name in piece.channels)

    def place(self, name: str, sample: int) -> str:
        """A dataset's name in the file, for a sample."""
        return name if self.group is None else f"{self.group.format(sample)}/{name}"


def _cfd(dims: int) -> Layout:
    names = ("density", "pressure", *("Vx", "Vy", "Vz")[:dims])
    return Layout(
        f"cfd_{dims}d",
        dims,
        tuple(Piece(name, "stxyz"[: 2 + dims], (name,)) for name in names),
        coordinates=tuple(f"{axis}-coordinate" for axis in "xyz"[:dims]),
        times="t-coordinate",
        late=1,
        positive=("density", "pressure"),
    )


def _grouped(name: str, axes: str, channels: tuple[str, ...]) -> Layout:
    dims = len(axes) - 2
    places = tuple(f"grid/{axis}" for axis in "xyz"[:dims])
    return Layout(
        name, dims, (Piece("data", axes, channels),), coordinates=places, times="grid/t", group="{:04d}", test="last"
    )


def _poseidon(
    name: str, dataset: str, axes: str, channels: tuple[str, ...], held_out: tuple[int, int], **more: Any
) -> Layout:
    return Layout(f"poseidon_{name}", 2, (Piece(dataset, axes, channels),), test=held_out, **more)


def _pdearena(part: str) -> Layout:
    state = tuple(Piece(f"{part}/{name}", "stxy", (name,)) for name in ("u", "vx", "vy"))
    return Layout(f"pdearena_{part}", 2, state, static=(Piece(f"{part}/buo_y", "s", ("buo_y",)),))


_FRAME = {"compression": "lzf", "shuffle": True}
_GAS = ("density", "Vx", "Vy", "pressure")
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("scalar_1d", 1, (Piece("tensor", "stx"),), coordinates=("x-coordinate",), times="t-coordinate", late=1),
        Layout(
            "darcy",
            2,
            (Piece("tensor", "stxy"),),
            static=(Piece("nu", "sxy", ("nu",)),),
            coordinates=("x-coordinate", "y-coordinate"),
        ),
        *(_cfd(dims) for dims in (1, 2, 3)),
        _grouped("sorption", "txc", ("u",)),
        _grouped("reaction", "tyxc", ("u", "v")),
        _grouped("dam_break", "txyc", ("h",)),
        Layout(
            "incompressible",
            2,
            (
                Piece("velocity", "stxyc", ("Vx", "Vy"), _FRAME),
                Piece("particles", "stxyc", ("particles",), _FRAME),
            ),
            static=(Piece("force", "sxyc", ("force_x", "force_y")),),
            times="t",
            times_by_sample=True,
            test="last",
        ),
        _poseidon("velocity", "velocity", "stcxy", ("Vx", "Vy"), (120, 240)),
        _poseidon("velocity_transposed", "velocity", "stcyx", ("Vx", "Vy"), (120, 240)),
        _poseidon("tracer", "velocity", "stcxy", ("Vx", "Vy", "tracer"), (120, 240)),
        _poseidon("kolmogorov", "solution", "stcxy", ("Vx", "Vy"), (120, 240)),
        _poseidon("euler", "data", "stcxy", (*_GAS, "energy"), (120, 240), positive=("density", "pressure")),
        _poseidon(
            "wave_layer", "solution", "stxy", ("u",), (60, 240), static=(Piece("c", "sxy", ("c",)),), time_scale=20
        ),
        _poseidon(
            "wave_gauss", "solution", "stxy", ("u",), (60, 240), static=(Piece("c", "sxy", ("c",)),), time_scale=15
        ),
        _poseidon("allen_cahn", "solution", "stxy", ("u",), (60, 240), time_scale=19),
        _poseidon("poisson", "solution", "sxy", ("u",), (120, 240), static=(Piece("source", "sxy", ("source",)),)),
        _poseidon("airfoil", "solution", "scxy", ("mask", "density"), (120, 240)),
        _poseidon(
            "helmholtz",
            "u",
            "xy",
            ("u",),
            (120, 240),
            static=(Piece("a", "xy", ("a",)), Piece("bc", "", ("bc",))),
            group="Sample_{}",
        ),
        Layout("fno_burgers", 1, (Piece("u", "sx"),), static=(Piece("a", "sx", ("a",)),), test="last", points="nodes"),
        Layout(
            "fno_darcy",
            2,
            (Piece("sol", "sxy"),),
            static=(Piece("coeff", "sxy", ("coeff",)),),
            test="last",
            points="ends",
        ),
        Layout(
            "fno_navier_stokes",
            2,
            (Piece("u", "sxyt"),),
            static=(Piece("a", "sxy", ("a",)),),
            test="last",
            points="nodes",
        ),
        *(_pdearena(part) for part in ("train", "valid", "test")),
    )
}
"""All layouts by name. Make your own from ``Layout`` and ``Piece``."""


# -------------------- splits


class Split(NamedTuple):
    """Sample numbers for training, validation and testing."""

    train: range
    validation: range
    test: range


def split(samples: int, rule: str | tuple[int, int], fraction: float = 0.1) -> Split:
    """The official split of a file.

    Args:
        samples: how many the file holds.
        rule: "first", the first tenth is for testing (PDEBench's files with all samples in one dataset); "last", the last
            tenth (those with a group for each); or the numbers of the last samples for (validation, testing), as in Poseidon.
        fraction: instead of a tenth.
    Raises:
        ValueError: an unknown rule, a fraction outside (0, 1), or no sample left to train on.
    """
    if isinstance(rule, tuple):
        validation, test = rule
        begin = samples - validation - test
        if begin < 1 or min(rule) < 0:
            raise ValueError(f"rule takes {validation} + {test} samples for validation and testing, of {samples}")
        return Split(range(begin), range(begin, begin + validation), range(begin + validation, samples))
    if rule not in ("first", "last") or not 0 < fraction < 1:
        raise ValueError(
            f"rule must be 'first', 'last' or two counts and fraction in (0, 1), got {rule!r} and {fraction}"
        )
    if rule == "first":
        cut = int(samples * fraction)
        return Split(range(cut, samples), range(0), range(cut))
    cut = int(samples * (1 - fraction))
    return Split(range(cut), range(0), range(cut, samples))

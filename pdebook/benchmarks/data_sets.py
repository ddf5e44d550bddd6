"""The data sets of PDEBench by name: which problem, with which parameters, where, when, and how it is stored.

``names()`` lists them. Parameters, resolution, times and number of samples can be other than released: ``dataclasses.replace`` a
``DataSet``.

Source: Takamoto et al., PDEBench: an extensive benchmark for scientific machine learning, NeurIPS 2022 (arXiv:2210.07182).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from pdebook.benchmarks import problems
from pdebook.benchmarks.problems import Made
from pdebook.catalogue import closest
from pdebook.pde import starts
from pdebook.pde.file_layouts import LAYOUTS, Layout
from pdebook.pde.grid import Grid

__all__ = ["DataSet", "data_set", "names"]


@dataclass(frozen=True)
class DataSet:
    """A data set: which problem, with which parameters, where, when, and how it is stored.

    Attributes:
        name: its name here.
        file: its name in the release.
        equation: the equation, for readers.
        problem: of ``problems``.
        layout: name of the layout of its file.
        size: cells along each axis.
        end: time of the last frame.
        frames: number of frames.
        samples: number of samples.
        parameters: arguments of the problem.
        attributes: numbers that the file carries.
        length, origin: of the box.
    """

    name: str
    file: str
    equation: str
    problem: Callable[..., Made]
    layout: str
    size: tuple[int, ...]
    end: float
    frames: int
    samples: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    length: float = 1.0
    origin: float = 0.0

    @property
    def kind(self) -> Layout:
        """The layout itself."""
        return LAYOUTS[self.layout]

    @property
    def steady(self) -> bool:
        """Whether there is one field and no time."""
        return self.kind.times is None

    def grid(self, resolution: int | None = None) -> Grid:
        """The grid, with so many cells along the first axis, or as released."""
        if resolution is None:
            return Grid(self.size, self.length, self.origin)
        return Grid([resolution * n // self.size[0] for n in self.size], self.length, self.origin)

    def times(self, frames: int | None = None, end: float | None = None) -> Float64[Tensor, " frames"]:
        """Times of the frames, the first one 0."""
        count = self.frames if frames is None else frames
        if self.steady:
            return torch.zeros(1, dtype=torch.float64)
        if count < 2:
            raise ValueError(f"frames must be at least 2, got {count}")
        last = self.end if end is None else end
        if not 0 < last < math.inf:
            raise ValueError(f"end must be positive, got {last}")
        return torch.linspace(0.0, last, count, dtype=torch.float64)


def _number(value: float) -> str:
    return f"{value:g}"


def _one_dimension() -> list[DataSet]:
    unit: dict[str, Any] = {"layout": "scalar_1d", "size": (1024,), "samples": 10_000}
    sets = [
        DataSet(
            f"advection_beta{_number(beta)}",
            f"1D_Advection_Sols_beta{beta}.hdf5",
            "u_t + β u_x = 0",
            problems.advection,
            end=2.0,
            frames=201,
            parameters={"beta": beta},
            attributes={"beta": beta},
            **unit,
        )
        for beta in (0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 4.0, 7.0)
    ]
    sets += [
        DataSet(
            f"burgers_nu{_number(nu)}",
            f"1D_Burgers_Sols_Nu{nu}.hdf5",
            "u_t + (u²/2)_x = (ν/π) u_xx",
            problems.burgers,
            end=2.0,
            frames=201,
            parameters={"nu": nu},
            attributes={"Nu": nu},
            **unit,
        )
        for nu in (0.001, 0.002, 0.004, 0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 1.0, 2.0, 4.0)
    ]
    sets += [
        DataSet(
            f"reacdiff_nu{_number(nu)}_rho{_number(rho)}",
            f"ReacDiff_Nu{nu}_Rho{rho}.hdf5",
            "u_t = ν u_xx + ρ u (1 - u)",
            problems.reaction_diffusion,
            end=1.0,
            frames=101,
            parameters={"nu": nu, "rho": rho},
            attributes={"Nu": nu, "rho": rho},
            **unit,
        )
        for nu in (0.5, 1.0, 2.0, 5.0)
        for rho in (1.0, 2.0, 5.0, 10.0)
    ]
    sorption = DataSet(
        "diff_sorp",
        "1D_diff-sorp_NA_NA.h5",
        "u_t = D/R(u) u_xx",
        problems.sorption,
        "sorption",
        (1024,),
        500.0,
        101,
        10_000,
    )
    return [*sets, sorption]


def _viscosities(d: int) -> tuple[float, ...]:
    return (1e-8,) if d == 3 else (1e-8, 0.01, 0.1)


def _gas(
    d: int, start: str, size: int, samples: int, *, mach: float = 1.0, eta: float = 1e-8, boundary: str = "periodic"
) -> DataSet:
    named = f"cfd{d}d_{start}" + (f"_M{_number(mach)}" if d > 1 else "") + f"_eta{_number(eta)}"
    word, strength = start.capitalize(), f"_M{mach}" if d > 1 else ""
    file = f"{d}D_CFD_{word}{strength}_Eta{eta:g}_Zeta{eta:g}_{boundary}" + (f"_{size}" if d == 2 else "")
    attributes = {"eta": eta, "zeta": eta} | ({"M": mach} if d > 1 else {})
    return DataSet(
        named,
        f"{file}_Train.hdf5",
        "compressible Navier-Stokes",
        problems.flow,
        f"cfd_{d}d",
        (size,) * d,
        1.0,
        101 if d == 1 else 21,
        samples,
        parameters={"start": start, "eta": eta, "zeta": eta, "mach": mach, "boundary": boundary},
        attributes=attributes,
        length=2.0 if d == 1 else 1.0,
        origin=-1.0 if d == 1 else 0.0,
    )


def _single_flow(name: str, file: str, size: tuple[int, ...], **parameters: Any) -> DataSet:
    return DataSet(
        name,
        file,
        "compressible Euler, one case",
        problems.flow,
        f"cfd_{len(size)}d",
        size,
        1.0,
        21,
        1,
        parameters=parameters,
        attributes={"eta": 1e-8, "zeta": 1e-8},
    )


def _gases() -> list[DataSet]:
    sets = [_gas(1, "rand", 1024, 10_000, eta=eta) for eta in _viscosities(1)]
    sets += [_gas(1, "shock", 1024, 10_000, eta=eta, boundary="trans") for eta in _viscosities(1)]
    sets += [
        _gas(2, start, *((512, 1000) if eta < 1e-3 else (128, 10_000)), mach=mach, eta=eta)
        for start in ("rand", "turb")
        for mach in (0.1, 1.0)
        for eta in _viscosities(2)
    ]
    sets += [_gas(3, "rand", 128, 100), _gas(3, "turb", 64, 600)]
    sets += [
        DataSet(
            f"sod{test}",
            f"Sod{test}.hdf5",
            "compressible Euler, a shock tube",
            problems.shock_tube,
            "cfd_1d",
            (1024,),
            tube.end,
            101,
            1,
            parameters={"test": test},
            attributes={"eta": 1e-8, "zeta": 1e-8},
            length=2.0,
            origin=-1.0,
        )
        for test, tube in starts.SOD.items()
    ]
    return [
        *sets,
        _single_flow("kelvin_helmholtz", "KH_M1_dk1_Re1e3.hdf5", (512, 512), start="kh", boundary="channel"),
        _single_flow("orszag_tang", "OTVortex.hdf5", (512, 512), start="orszag-tang"),
        _single_flow("blast", "2D_shock.hdf5", (512, 512), start="blast", boundary="trans"),
    ]


def _two_dimensions() -> list[DataSet]:
    darcy = [
        DataSet(
            f"darcy_beta{_number(beta)}",
            f"2D_DarcyFlow_beta{beta}_Train.hdf5",
            "-∇·(a ∇u) = β",
            problems.darcy,
            "darcy",
            (128, 128),
            1.75,
            1,
            10_000,
            parameters={"beta": beta},
            attributes={"beta": beta},
        )
        for beta in (0.01, 0.1, 1.0, 10.0, 100.0)
    ]
    return [
        *darcy,
        DataSet(
            "diff_react",
            "2D_diff-react_NA_NA.h5",
            "u_t = D_u Δu + u - u³ - k - v, v_t = D_v Δv + u - v",
            problems.reaction,
            "reaction",
            (128, 128),
            5.0,
            101,
            1000,
            length=2.0,
            origin=-1.0,
        ),
        DataSet(
            "dam_break",
            "2D_rdb_NA_NA.h5",
            "shallow water",
            problems.dam_break,
            "dam_break",
            (128, 128),
            1.0,
            101,
            1000,
            length=5.0,
            origin=-2.5,
        ),
        DataSet(
            "ns_incom",
            "ns_incom_inhom_2d_512-0.h5",
            "incompressible Navier-Stokes with a force",
            problems.incompressible,
            "incompressible",
            (512, 512),
            4.995,
            1000,
            4,
        ),
    ]


_SETS = {one.name: one for one in (*_one_dimension(), *_two_dimensions(), *_gases())}


def names() -> tuple[str, ...]:
    """Names of all data sets."""
    return tuple(_SETS)


def data_set(name: str) -> DataSet:
    """A data set by name. Raises ValueError, which lists what comes close, for another name."""
    if name not in _SETS:
        raise closest(name, "data set", tuple(_SETS))
    return _SETS[name]

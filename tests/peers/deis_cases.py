"""What DEIS is compared on: one mixture, grids of the official code and noise levels of diffusers, and our calls."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusion_cases import initial, mixture
from torch import Tensor

from pdebook.diffusion.baselines import runge_kutta
from pdebook.diffusion.deis import deis
from pdebook.diffusion.pndm import ipndm
from pdebook.diffusion.sampling import Sampler
from pdebook.diffusion.schedules import VPLinear, time_grid

STEPS, END = 10, 1e-3
SCHEDULE = VPLinear()
GRIDS = {
    "t 1": ("time", {}),
    "t 2": ("quadratic", {}),
    "rho 7": ("rho", {"power": 7.0}),
    "log 1": ("half_log_snr", {}),
}
"""The official code's names of grids (variable, exponent) and ours."""

RUNGE_KUTTA = {
    "1euler": "euler",
    "2heun": "heun",
    "3kutta": "kutta3",
    "3ral": "ralston3",
    "3heun": "heun3",
    "3vdh": "van-der-houwen3",
    "3ssprk": "ssprk3",
    "4rk": "rk4",
}
"""The official code's names of Runge-Kutta methods and ours."""


@dataclass(frozen=True)
class OfficialCase:
    """One setting of the official code, and ours.

    Attributes:
        method: its name of the method.
        grid: its name of the grid.
        options: further arguments of its ``get_sampler``.
        quadrature: "released" (10,000 points from the left), or "gauss": its formula, integrated by Gauss and Legendre's rule.
        sampler: our sampler.
        ours: its options.
    """

    method: str
    grid: str
    options: dict[str, Any]
    quadrature: str
    sampler: Sampler
    ours: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique name."""
        return " ".join([self.method, *map(str, self.options.values()), f"{self.grid},", self.quadrature])


def _official() -> Iterator[OfficialCase]:
    for quadrature in ("released", "gauss"):
        for grid in GRIDS:
            for method, variable in (("t_ab", "time"), ("rho_ab", "rho")):
                for degree in (0, 1, 2, 3) if method == "t_ab" else (1, 2, 3):
                    options = {"degree": degree, "variable": variable}
                    yield OfficialCase(method, grid, {"ab_order": degree}, quadrature, deis, options)
    for theirs, name in RUNGE_KUTTA.items():
        options = {"method": name, "variable": "rho"}
        yield OfficialCase("rho_rk", "t 2", {"rk_method": theirs}, "released", runge_kutta, options)
    yield OfficialCase("ipndm", "t 1", {}, "released", ipndm)


OFFICIAL = {case.name: case for case in _official()}


def ours_official(case: OfficialCase) -> Tensor:
    """Our float64 result on our own grid."""
    kind, options = GRIDS[case.grid]
    times = time_grid(SCHEDULE, STEPS, kind, end=END, **options)
    return case.sampler(mixture(torch.float64).denoiser(SCHEDULE), initial(torch.float64), times, **case.ours)


@dataclass(frozen=True)
class DiffusersCase:
    """One setting of ``DEISMultistepScheduler``, and ours.

    Attributes:
        steps: number of steps.
        order: its ``solver_order``, our degree and one.
        config: its further settings.
        double: whether its noise levels are made float64 before it runs.
    """

    steps: int
    order: int
    config: dict[str, Any]
    double: bool

    @property
    def name(self) -> str:
        """Unique name."""
        words = [f"DEISMultistep {self.steps}", f"order {self.order}", "float64" if self.double else "float32"]
        return ", ".join([*words, *(f"{key}={value}" for key, value in self.config.items())])

    @property
    def dtype(self) -> torch.dtype:
        """Of the states."""
        return torch.float64 if self.double else torch.float32


def _diffusers() -> Iterator[DiffusersCase]:
    for double in (False, True):
        for order in (1, 2, 3):
            for steps, config in (
                (8, {}),
                (10, {"lower_order_final": False}),
                (20, {}),
                (10, {"use_karras_sigmas": True, "lower_order_final": False}),
            ):
                yield DiffusersCase(steps, order, config, double)


DIFFUSERS = {case.name: case for case in _diffusers()}


def ours_diffusers(case: DiffusersCase, sigmas: list[float]) -> Tensor:
    """Our result at the scheduler's noise levels σ/α. Any variance-preserving schedule holds them: only the times differ."""
    levels = torch.tensor(sigmas, dtype=torch.float64)
    times = torch.as_tensor(SCHEDULE.time(-levels.log())).tolist()
    # With fewer than 15 steps it lets the order fall at the end.
    ending = "lower" if case.config.get("lower_order_final", True) and case.steps < 15 else "full"
    options = {"degree": case.order - 1, "variable": "half_log_snr", "ending": ending}
    return deis(mixture(case.dtype).denoiser(SCHEDULE), initial(case.dtype), times, **options)

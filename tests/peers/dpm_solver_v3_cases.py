"""Settings of DPM-Solver-v3 that are compared with the official code, on statistics that both get as the same arrays."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusion_cases import DIM, initial, mixture
from torch import Tensor

from pdebook.diffusion.dpm_solver_v3 import Statistics, dpm_solver_v3
from pdebook.diffusion.schedules import VPLinear, time_grid

INTERVALS, END = 60, 1e-3
GRIDS = {"logSNR": "half_log_snr", "time_uniform": "time"}


@dataclass(frozen=True)
class Case:
    """One setting, in the official code's words."""

    steps: int
    skip_type: str = "logSNR"
    order: int = 2
    p_pseudo: bool = False
    use_corrector: bool = True
    c_pseudo: bool = True
    lower_order_final: bool = True
    half: bool = False

    @property
    def name(self) -> str:
        """All that is set."""
        words = ("p_pseudo", "use_corrector", "c_pseudo", "lower_order_final", "half")
        flags = [word for word in words if getattr(self, word)]
        return " ".join([f"{self.steps} {self.skip_type} order {self.order}", *flags])


def _cases() -> list[Case]:
    found = [
        Case(steps, skip, order, use_corrector=corrector, c_pseudo=pseudo, lower_order_final=lower)
        for steps, skip, lower in ((10, "logSNR", True), (7, "logSNR", True), (9, "time_uniform", False))
        for order in (1, 2, 3)
        for corrector, pseudo in ((False, False), (True, False), (True, True))
    ]
    found += [
        Case(5, order=3, p_pseudo=True, c_pseudo=pseudo, lower_order_final=lower)
        for pseudo in (False, True)
        for lower in (False, True)
    ]
    return found + [
        Case(9, "time_uniform", order, half=True, c_pseudo=pseudo) for order in (2, 3) for pseudo in (False, True)
    ]


CASES = {case.name: case for case in _cases()}


@cache
def arrays() -> dict[str, np.ndarray]:
    """l, s, b of shape (N + 1, 1, 1, 3): made up, with the slopes and the size of estimated ones."""
    lam = np.linspace(VPLinear().half_log_snr(1.0), VPLinear().half_log_snr(END), INTERVALS + 1)[:, None, None, None]
    d = np.arange(DIM)[None, None, None]
    return {
        "l": 1.0 / (1.0 + np.exp(1.5 * (lam - 2.0 + 0.3 * d))),
        "s": -0.8 + 0.3 * np.sin(0.9 * lam + d),
        "b": 0.2 * np.cos(0.5 * lam - d) * np.exp(-0.1 * lam**2),
    }


def write(folder: Path) -> None:
    """The arrays as the two files of a release."""
    content = arrays()
    np.savez(folder / "l.npz", l=content["l"])
    np.savez(folder / "sb.npz", s=content["s"], b=content["b"])


def ours(case: Case, statistics: Statistics) -> Tensor:
    """Our result."""
    options: dict[str, Any] = {
        "corrector": "none" if not case.use_corrector else "pseudo" if case.c_pseudo else "true",
        "corrector_interval": (0.5, 1.0) if case.half else (-math.inf, math.inf),
        "ending": "lower" if case.lower_order_final else "full",
    }
    schedule = VPLinear()
    model = mixture(torch.float64).denoiser(schedule)
    times = time_grid(schedule, case.steps, GRIDS[case.skip_type], end=END)
    # The official code wants images; the mixture is of vectors.
    vectors = Statistics(
        statistics.half_log_snr,
        *(value.reshape(len(value), -1) for value in (statistics.l, statistics.s, statistics.b)),
        statistics.schedule,
    )
    return dpm_solver_v3(
        model,
        initial(torch.float64),
        times,
        statistics=vectors,
        order=case.order,
        pseudo_predictor=case.p_pseudo,
        **options,
    )

"""What is compared with the official code of USF: solver schedules in its own form, which also reads here, and our side.

Three released schedules are among them: those that need neither DPM-Solver-v3's statistics nor a scaled U-Net.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdebook.diffusion.exact import GaussianMixture
from pdebook.diffusion.schedules import VPLinear, time_grid
from pdebook.diffusion.unified_sampling import SolverSchedule, from_official
from pdebook.rng import normal

SCHEDULE = VPLinear()
MEAN = [0.25, 0.15, -0.1]
RELEASED = {
    "imagenet256_nfe3": "codebases/imagenet256/solver_schedules/imagenet256_nfe3.pth",
    "imagenet256_nfe4": "codebases/imagenet256/solver_schedules/imagenet256_nfe4.pth",
    "cifar10_sde_nfe9": "codebases/score_sde/solver_schedules/cifar10_sde_nfe9.pth",
}
"""Released schedules by name, with their paths in the repository."""


def mixture() -> GaussianMixture:
    """Three Gaussians in three dimensions, float64."""
    means = torch.tensor([[1.0, -0.5, 0.2], [-0.8, 0.3, 0.9], [0.1, 1.1, -1.0]], dtype=torch.float64)
    weights, variances = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.09, 0.16, 0.25]).double()
    return GaussianMixture(weights, means, variances)


def initial() -> Tensor:
    """Four samples to start from."""
    return normal(3, torch.arange(4), (3,), dtype=torch.float64)


NONE: dict[str, Any] = {"type": "no_corrector", "start_point": None, "taylor_order": None, "derivative_type": None}


def difference(points: list[int], relaxation: str | None = None, gamma: float | None = None) -> dict[str, Any]:
    """How the official code estimates one derivative."""
    entry: dict[str, Any] = {"estimate": f"Difference_{len(points)}", "active_points": points, "relaxation": relaxation}
    return entry if gamma is None else entry | {"relaxation_coefficient": gamma}


def corrector(order: int, points: list[list[int]]) -> dict[str, Any]:
    """A pseudo corrector from the last node but one."""
    return {
        "type": "pseudo",
        "start_point": -2,
        "taylor_order": order,
        "derivative_type": [difference(p) for p in points],
    }


def _decisions(
    times: list[float],
    orders: list[int],
    predictions: str,
    derivatives: list[list[dict[str, Any]]],
    correctors: list[dict[str, Any]] | None = None,
    starts: list[int] | None = None,
    afs: str = "no_afs",
) -> dict[str, Any]:
    names = {"n": "noise_prediction", "d": "data_prediction"}
    return {
        "timesteps": torch.tensor(times, dtype=torch.float64),
        "orders": orders,
        "prediction_types": [names[letter] for letter in predictions],
        "start_points": starts or [-1] * len(orders),
        "derivative_types": derivatives,
        "corrector_types": correctors or [NONE] * len(orders),
        "afs": afs,
    }


def decisions() -> dict[str, dict[str, Any]]:
    """Schedules in the official form that together use every decision."""
    grid = time_grid(SCHEDULE, 6, "quadratic", end=1e-2)
    two, full = difference([-2]), [difference([-2, -3]), difference([-2, -3])]
    ramp = [[], [two], *[full] * 4]
    cases = {f"taylor 3m, {kind}": _decisions(grid, [1, 2, 3, 3, 3, 3], kind * 6, ramp) for kind in ("n", "d")}
    for name in ("dpmsolver-2", "unipc-bh1", "unipc-bh2", "0.5exp", "-0.5exp", "linear"):
        for kind in ("n", "d"):
            scaled = difference([-2], name, 0.3 if name == "linear" else None)
            cases[f"2m {name}, {kind}"] = _decisions(grid, [1, *[2] * 5], kind * 6, [[], *[[scaled]] * 5])
    corrected = [corrector(2, [[-1]]), corrector(3, [[-3, -1]] * 2), *[corrector(4, [[-3, -4, -1]] * 3)] * 3, NONE]
    for kinds in ("nnnnnn", "dddddd", "ndndnd"):
        cases[f"corrected 3m, {kinds}"] = _decisions(grid, [1, 2, 3, 3, 3, 3], kinds, ramp, corrected)
    single, newest = [-1, -2, -3] * 2, difference([-1])
    cases["dpm-solver-3"] = _decisions(grid, [1, 2, 2] * 2, "nnnnnn", [[], [newest], [newest]] * 2, starts=single)
    mixed = [[], [two], [difference([-2], "linear", -0.2), full[1]], full, [two], []]
    for afs in ("zero_x0", "average_x0"):
        cases[f"mixed, {afs}"] = _decisions(
            grid, [1, 2, 3, 3, 2, 1], "dnndnd", mixed, corrected[:3] + [NONE] * 3, afs=afs
        )
    return cases


def read(content: dict[str, Any]) -> SolverSchedule:
    """Our schedule of an official one, through a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "schedule.pth"
        torch.save(content, path)
        return from_official(path, drop_skips=True)


def ours(schedule: SolverSchedule) -> Tensor:
    """Our samples."""
    mean = torch.tensor(MEAN, dtype=torch.float64)
    return schedule.run(mixture().denoiser(SCHEDULE), initial(), mean=mean)

"""What is compared with other libraries: one small problem with an exact denoiser, and for each setting of a peer our call.

A peer is ``diffusers`` (from its package), ``dpm-solver`` or ``unipc`` (the papers' official code, which no package holds).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pdebook.diffusion.baselines import ddim, runge_kutta
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.dpm_solver import adaptive, fast_orders, singlestep
from pdebook.diffusion.exact import GaussianMixture
from pdebook.diffusion.multistep import multistep, sde_multistep
from pdebook.diffusion.sampling import Sampler
from pdebook.diffusion.schedules import (
    EDM,
    DiscreteVP,
    NoiseSchedule,
    VPLinear,
    ddpm_betas,
    time_grid,
)
from pdebook.diffusion.unipc import unipc
from pdebook.rng import NoiseSource, normal

BATCH, DIM = 4, 3
NOISE = NoiseSource(seed=5)
SAMPLERS: dict[str, Sampler] = {
    "singlestep": singlestep,
    "multistep": multistep,
    "sde_multistep": sde_multistep,
    "unipc": unipc,
    "ddim": ddim,
    "runge_kutta": runge_kutta,
}


@cache
def mixture(dtype: torch.dtype) -> GaussianMixture:
    """Three Gaussians in three dimensions: not Gaussian, and smooth enough that rounding is not amplified."""
    means = torch.tensor([[1.0, -0.5, 0.2], [-0.8, 0.3, 0.9], [0.1, 1.1, -1.0]], dtype=torch.float64)
    weights, variances = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.09, 0.16, 0.25]).double()
    return GaussianMixture(weights, means, variances).to(dtype)


def initial(dtype: torch.dtype) -> Tensor:
    """Samples to start from, the same for all."""
    return normal(3, torch.arange(BATCH), (DIM,), dtype=torch.float64).to(dtype)


@dataclass(frozen=True)
class Case:
    """One setting of a peer, and ours.

    Attributes:
        name: unique name.
        peer: who it is compared with.
        config: the peer's settings, as its runner reads them.
        sampler: our sampler.
        options: its options.
        schedule: our noise schedule.
        grid: (intervals, kind, end) of our own grid; None: the peer's noise levels are taken over.
    """

    name: str
    peer: str
    config: dict[str, Any]
    sampler: str
    options: dict[str, Any] = field(default_factory=dict)
    schedule: str = "vp-linear"
    grid: tuple[int, str, float] | None = None


SCHEDULES: dict[str, Callable[[], NoiseSchedule]] = {
    "vp-linear": VPLinear,
    "edm": lambda: EDM(t_max=200.0),
    "ddpm": lambda: DiscreteVP.from_betas(ddpm_betas()),
}


@cache
def schedule(name: str) -> NoiseSchedule:
    """Our schedule by name."""
    return SCHEDULES[name]()


def ours(case: Case, dtype: torch.dtype, sigmas: Sequence[float] | None = None) -> Tensor:
    """Our result, on the peer's noise levels σ/α or on our own grid."""
    noise_schedule = schedule(case.schedule)
    if case.grid is not None:
        steps, kind, end = case.grid
        times = time_grid(noise_schedule, steps, kind, end=end)
    else:
        assert sigmas is not None
        levels = torch.tensor(sigmas, dtype=torch.float64)
        times = noise_schedule.time(-levels.log()).tolist()  # type: ignore[union-attr]
        # A last level of zero is the time of clean data.
        times = [0.0 if level == 0 else time for time, level in zip(times, sigmas, strict=True)]
    x = initial(dtype)
    if case.schedule == "edm":
        # The peer starts from pure noise at its first level.
        x = x * times[0]
    denoiser = mixture(dtype).denoiser(noise_schedule)
    options = dict(case.options)
    if case.sampler in ("sde_multistep", "ddim"):
        options["noise"] = NOISE
    return SAMPLERS[case.sampler](denoiser, x, times, **options)


def ours_adaptive(config: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, int]:
    """Our adaptive result, and its evaluations as the official code counts them: all of them again after a rejection."""
    denoiser: Denoiser = mixture(dtype).denoiser(schedule("vp-linear"))
    result = adaptive(
        denoiser,
        initial(dtype),
        (1.0, 1e-3),
        order=config["order"],
        prediction=PREDICTION[config["algorithm_type"]],
    )
    return result.x, config["order"] * len(result.attempts)


PREDICTION = {"dpmsolver": "noise", "dpmsolver++": "data", "noise_prediction": "noise", "data_prediction": "data"}
_GRIDS = {"logSNR": "half_log_snr", "time_uniform": "time", "time_quadratic": "quadratic"}
_VARIANTS = {"dpmsolver": "released", "taylor": "taylor", "midpoint": "released", "heun": "taylor"}


def _official(
    sampler: str, options: dict[str, Any], *, intervals: int, schedule: str = "vp-linear", **call: Any
) -> Case:
    words = [str(call[key]) for key in ("algorithm_type", "method", "order", "steps", "skip_type", "solver_type")]
    words += [schedule] if schedule != "vp-linear" else []
    options = {"prediction": PREDICTION[call["algorithm_type"]], **options}
    grid = (intervals, _GRIDS[call["skip_type"]], 1e-3)
    return Case(" ".join(words), "dpm-solver", call, sampler, options, schedule, grid)


def dpm_solver_cases() -> Iterator[Case]:
    """Official DPM-Solver: fixed orders, DPM-Solver-fast on every grid, multistep below and above its ten steps."""
    for algorithm in ("dpmsolver", "dpmsolver++"):
        for order in (1, 2, 3):
            for kind in ("dpmsolver", "taylor")[: 1 if order == 1 else 2]:
                for skip in ("logSNR", "time_uniform"):
                    # On grids that are not uniform in λ the stages lie on the grid.
                    yield _official(
                        "singlestep",
                        {"order": [order] * (12 // order), "variant": _VARIANTS[kind]},
                        intervals=12 // order if skip == "logSNR" else 12,
                        algorithm_type=algorithm,
                        method="singlestep_fixed",
                        order=order,
                        steps=12,
                        skip_type=skip,
                        solver_type=kind,
                    )
        for steps in (9, 10, 11):
            for skip in _GRIDS:
                for name in ("vp-linear", "ddpm"):
                    orders = fast_orders(steps)
                    yield _official(
                        "singlestep",
                        {"order": orders},
                        intervals=len(orders) if skip == "logSNR" else steps,
                        schedule=name,
                        algorithm_type=algorithm,
                        method="singlestep",
                        order=3,
                        steps=steps,
                        skip_type=skip,
                        solver_type="dpmsolver",
                    )
        for steps in (8, 12):
            for order, kind in ((1, "dpmsolver"), (2, "dpmsolver"), (2, "taylor"), (3, "dpmsolver")):
                for name in ("vp-linear", "ddpm"):
                    yield _official(
                        "multistep",
                        {"order": order, "variant": _VARIANTS[kind]},
                        intervals=steps,
                        schedule=name,
                        algorithm_type=algorithm,
                        method="multistep",
                        order=order,
                        steps=steps,
                        skip_type="time_uniform",
                        solver_type=kind,
                    )


def unipc_cases() -> Iterator[Case]:
    """Official UniPC."""
    for algorithm in ("noise_prediction", "data_prediction"):
        for variant in ("bh1", "bh2"):
            for order in (1, 2, 3):
                for skip in ("logSNR", "time_uniform"):
                    options = {"order": order, "b": variant, "prediction": PREDICTION[algorithm]}
                    call = {
                        "algorithm_type": algorithm,
                        "variant": variant,
                        "order": order,
                        "steps": 8,
                        "skip_type": skip,
                    }
                    name = " ".join(str(word) for word in call.values())
                    yield Case(name, "unipc", call, "unipc", options, grid=(8, _GRIDS[skip], 1e-3))


def _diffusers(scheduler: str, sampler: str, options: dict[str, Any], steps: int, **config: Any) -> Case:
    eta = config.pop("eta", None)
    words = [scheduler.removesuffix("Scheduler"), str(steps), *(f"{key}={value}" for key, value in config.items())]
    words += [] if eta is None else [f"eta={eta}"]
    # Any variance-preserving schedule holds their noise levels: only the times differ.
    name = "edm" if sampler == "runge_kutta" else "vp-linear"
    call = {"scheduler": scheduler, "steps": steps, "config": config, "eta": eta}
    return Case(" ".join(words), "diffusers", call, sampler, options, name)


def diffusers_cases() -> Iterator[Case]:
    """Schedulers of diffusers.

    Their multistep scheduler lowers its order below 15 steps, ours below 10: the ending is given. Their singlestep scheduler of
    third order agrees with the official code in its "heun" form only; "midpoint" takes the second stage with other weights.
    """
    for steps, ending in ((10, "lower"), (20, "full")):
        for algorithm in ("dpmsolver++", "dpmsolver"):
            for order, kind in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")):
                options = {"order": order, "variant": _VARIANTS[kind], "ending": ending}
                yield _diffusers(
                    "DPMSolverMultistepScheduler",
                    "multistep",
                    {**options, "prediction": PREDICTION[algorithm]},
                    steps,
                    algorithm_type=algorithm,
                    solver_order=order,
                    solver_type=kind,
                    final_sigmas_type="sigma_min",
                )
        for order in (1, 2):
            yield _diffusers(
                "DPMSolverMultistepScheduler",
                "sde_multistep",
                {"order": order, "ending": ending},
                steps,
                algorithm_type="sde-dpmsolver++",
                solver_order=order,
                solver_type="midpoint",
                final_sigmas_type="sigma_min",
            )
        yield _diffusers(
            "DPMSolverMultistepScheduler",
            "multistep",
            {"order": 2, "ending": "lower"},
            steps,
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            final_sigmas_type="zero",
        )
    for steps in (9, 10, 11):
        for algorithm in ("dpmsolver++", "dpmsolver"):
            for order, kind in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "heun")):
                pairs = [2] * (steps // 2) + [1] if steps % 2 else [2] * (steps // 2 - 1) + [1, 1]
                orders = {1: [1] * steps, 2: pairs, 3: fast_orders(steps)}[order]
                yield _diffusers(
                    "DPMSolverSinglestepScheduler",
                    "singlestep",
                    {"order": orders, "variant": _VARIANTS[kind], "prediction": PREDICTION[algorithm]},
                    steps,
                    algorithm_type=algorithm,
                    solver_order=order,
                    solver_type=kind,
                    final_sigmas_type="sigma_min",
                    lower_order_final=True,
                )
    for predict_x0 in (True, False):
        for variant in ("bh1", "bh2"):
            for order in (1, 2, 3):
                options = {"order": order, "b": variant, "prediction": "data" if predict_x0 else "noise"}
                yield _diffusers(
                    "UniPCMultistepScheduler",
                    "unipc",
                    options,
                    10,
                    solver_order=order,
                    solver_type=variant,
                    predict_x0=predict_x0,
                    final_sigmas_type="sigma_min",
                )
    for eta in (0.0, 0.5, 1.0):
        yield _diffusers("DDIMScheduler", "ddim", {"eta": eta}, 10, eta=eta)
    yield _diffusers("EulerDiscreteScheduler", "runge_kutta", {"method": "euler", "variable": "rho"}, 10)
    yield _diffusers("HeunDiscreteScheduler", "runge_kutta", {"method": "heun", "variable": "rho"}, 10)


CASES: dict[str, dict[str, Case]] = {
    "dpm-solver": {case.name: case for case in dpm_solver_cases()},
    "unipc": {case.name: case for case in unipc_cases()},
    "diffusers": {case.name: case for case in diffusers_cases()},
}
ADAPTIVE = [
    {"algorithm_type": algorithm, "order": order} for algorithm in ("dpmsolver", "dpmsolver++") for order in (2, 3)
]
TIMES = (1.0, 0.9, 0.5, 0.25, 0.1234, 0.05, 0.01, 0.001)
"""Times at which the schedules are compared."""

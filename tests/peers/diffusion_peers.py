"""Runs the peers on the shared problem; imported only where they are installed."""

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusion_cases import NOISE, TIMES, Case, initial, mixture, schedule
from torch import Tensor

from pdebook.diffusion.schedules import ddpm_betas, scaled_linear_betas


def run_diffusers(case: Case) -> tuple[list[float], Tensor]:
    """Noise levels and float32 result of a scheduler of diffusers."""
    import diffusers

    config = {"num_train_timesteps": 1000, "trained_betas": scaled_linear_betas().numpy(), **case.config["config"]}
    if case.config["scheduler"] == "DDIMScheduler":
        config |= {"clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "leading"}
    scheduler = getattr(diffusers, case.config["scheduler"])(**config)
    scheduler.set_timesteps(case.config["steps"])
    x, model = initial(torch.float32), mixture(torch.float32)
    if case.config["scheduler"] == "DDIMScheduler":
        levels = scheduler.alphas_cumprod.double()[scheduler.timesteps]
        sigmas = ((1 - levels) / levels).sqrt()
    else:
        sigmas = scheduler.sigmas.double()
    if case.sampler == "runge_kutta":
        # Their states are x/α. A step of Heun is two calls, each with a level of its own; the last one goes to zero, where
        # the noise prediction is not defined.
        x = (x * sigmas[0]).float()
        calls = int((sigmas > 0).sum()) - 1
        for t in scheduler.timesteps[:calls]:
            scheduler.scale_model_input(x, t)
            eps = model.noise(x, 1.0, float(sigmas[scheduler.step_index]))
            x = scheduler.step(eps, t, x, return_dict=False)[0]
        return torch.unique_consecutive(sigmas[: calls + 1]).tolist(), x
    if case.config["scheduler"] == "DDIMScheduler":
        # Its last step leads to the level of the one before it.
        steps = list(enumerate(scheduler.timesteps[:-1]))
    else:
        steps = list(enumerate(scheduler.timesteps))
    for i, t in steps:
        alpha = float(1.0 / (1.0 + sigmas[i] ** 2).sqrt())
        options: dict[str, Any] = {} if case.config["eta"] is None else {"eta": case.config["eta"]}
        if case.sampler in ("sde_multistep", "ddim"):
            options["variance_noise"] = NOISE(i, x)
        eps = model.noise(x, alpha, alpha * float(sigmas[i]))
        x = scheduler.step(eps, t, x, return_dict=False, **options)[0]
    return sigmas.tolist(), x


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """The official code makes its constants in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def official(path: Path) -> ModuleType:
    """A file of the official code as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official_schedule(module: ModuleType, name: str) -> Any:
    """The official code's schedule by our name."""
    if name == "ddpm":
        return module.NoiseScheduleVP("discrete", betas=ddpm_betas(), dtype=torch.float64)
    return module.NoiseScheduleVP({"vp-linear": "linear", "vp-cosine": "cosine"}[name], dtype=torch.float64)


def _exact_model(name: str) -> Any:
    def model(x: Tensor, t: Tensor) -> Tensor:
        noise_schedule, time = schedule(name), float(t.flatten()[0])
        flat = mixture(torch.float64).noise(x.flatten(1), noise_schedule.alpha(time), noise_schedule.sigma(time))
        return flat.reshape(x.shape)

    return model


def run_official(module: ModuleType, case: Case) -> Tensor:
    """Float64 result of the official DPM-Solver or UniPC."""
    call = dict(case.config)
    with double_precision(), contextlib.redirect_stdout(io.StringIO()):
        noise_schedule = official_schedule(module, case.schedule)
        # UniPC's formulas are written for images.
        x = initial(torch.float64).reshape(len(initial(torch.float64)), -1, 1, 1)
        if case.peer == "unipc":
            chosen = {"algorithm_type": call.pop("algorithm_type"), "variant": call.pop("variant")}
            solver = module.UniPC(_exact_model(case.schedule), noise_schedule, **chosen)
        else:
            algorithm = call.pop("algorithm_type")
            solver = module.DPM_Solver(_exact_model(case.schedule), noise_schedule, algorithm_type=algorithm)
        return solver.sample(x, t_end=1e-3, **call).flatten(1)


def run_official_adaptive(module: ModuleType, config: dict[str, Any]) -> tuple[Tensor, int]:
    """Float64 result and printed number of evaluations of the official adaptive solver."""
    printed = io.StringIO()
    with double_precision(), contextlib.redirect_stdout(printed):
        solver = module.DPM_Solver(
            _exact_model("vp-linear"),
            official_schedule(module, "vp-linear"),
            algorithm_type=config["algorithm_type"],
        )
        x = solver.sample(initial(torch.float64), method="adaptive", order=config["order"], t_end=1e-3)
    return x, int(printed.getvalue().split()[-1])


def official_values(module: ModuleType, name: str) -> dict[str, list[float]]:
    """log α, λ and the inverse of λ at ``TIMES``; a cosine schedule starts at its own last time."""
    with double_precision():
        noise_schedule = official_schedule(module, name)
        times = torch.tensor([min(t, noise_schedule.T) for t in TIMES])
        half_log_snr = noise_schedule.marginal_lambda(times)
        return {
            "times": times.tolist(),
            "log_alpha": noise_schedule.marginal_log_mean_coeff(times).tolist(),
            "half_log_snr": half_log_snr.tolist(),
            "inverse": noise_schedule.inverse_lambda(half_log_snr).flatten().tolist(),
        }

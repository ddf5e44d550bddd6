"""What PNDM is compared on: one mixture, as the network of the official code's steps and of diffusers' timesteps, and our calls."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusion_cases import initial, mixture
from torch import Tensor

from pdebook.diffusion.baselines import ddim
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.pndm import OfficialLevels, discrete_times, fon, ipndm, official_step, pndm
from pdebook.diffusion.sampling import Sampler
from pdebook.diffusion.schedules import DiscreteVP, VPLinear, ddpm_betas, scaled_linear_betas

LEVELS = 1000
METHODS: dict[str, tuple[Sampler, dict[str, Any]]] = {
    "DDIM": (ddim, {}),
    "S-PNDM": (pndm, {"order": 2, "warmup": "heun"}),
    "F-PNDM": (pndm, {"order": 4, "warmup": "runge-kutta"}),
    "FON": (fon, {"variant": "released"}),
}
STEPS = (4, 10, 13, 40, 50)
"""13 does not divide the number of levels, and 40 has midpoints between two of them."""


def alphas_cumprod() -> Tensor:
    """DDPM's levels in float64."""
    return torch.cumprod(1.0 - ddpm_betas(LEVELS), 0)


def network(x: Tensor, step: Tensor) -> Tensor:
    """Exact noise prediction at a real step number, as a network of a discrete model would learn it; x has the shape (batch, dim)."""
    schedule, t = VPLinear(), (float(step.flatten()[0]) + 1.0) / LEVELS
    return mixture(x.dtype).noise(x, schedule.alpha(t), schedule.sigma(t))


def official_names() -> list[str]:
    """Names of the settings of the official code."""
    return [f"{method} {steps}" for method in METHODS for steps in STEPS]


def ours_official(name: str) -> tuple[Tensor, int]:
    """Our float64 result with the official code's bookkeeping, and its evaluations."""
    method, steps = name.split()
    sampler, options = METHODS[method]
    schedule = OfficialLevels(alphas_cumprod())
    denoiser = Denoiser(network, schedule, time_input=official_step)
    times = discrete_times(schedule, int(steps), official_offset=True)
    return sampler(denoiser, initial(torch.float64), times, **options), denoiser.evaluations


@dataclass(frozen=True)
class DiffusersCase:
    """One setting of a scheduler of diffusers, and ours.

    Attributes:
        scheduler: its name.
        steps: number of steps.
        config: its settings.
        sampler: our sampler.
        options: its options.
    """

    scheduler: str
    steps: int
    config: dict[str, Any]
    sampler: Sampler
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique name."""
        words = [self.scheduler.removesuffix("Scheduler"), str(self.steps)]
        return " ".join([*words, *(f"{key}={value}" for key, value in self.config.items())])


def _diffusers() -> Iterator[DiffusersCase]:
    for steps in (10, 20, 50):
        # An even number of levels to a step: their midpoints are rounded down.
        for skip, warmup in ((False, "runge-kutta"), (True, "heun")):
            for last in ({"steps_offset": 1, "set_alpha_to_one": False}, {"steps_offset": 0, "set_alpha_to_one": True}):
                config = {"skip_prk_steps": skip, **last}
                yield DiffusersCase("PNDMScheduler", steps, config, pndm, {"order": 4, "warmup": warmup})
    for steps in (8, 12, 20):
        yield DiffusersCase("IPNDMScheduler", steps, {}, ipndm, {"order": 4})


DIFFUSERS = {case.name: case for case in _diffusers()}


def diffusers_levels() -> Tensor:
    """ᾱ of the discrete model, in float32 as the scheduler holds it."""
    return torch.cumprod(1.0 - scaled_linear_betas(LEVELS).float(), 0)


def improved_levels(steps: int) -> list[float]:
    """σ of IPNDMScheduler, without the first level, which holds no signal: sin²(π u/2) for u falling from 1 - 1/steps to 0."""
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[1:]
    return (torch.sin(u * torch.pi / 2) ** 2).tolist()


def ours_diffusers(case: DiffusersCase) -> Tensor:
    """Our float32 result at the scheduler's noise levels."""
    x = initial(torch.float32)
    if case.scheduler == "IPNDMScheduler":
        # Any variance-preserving schedule holds these levels: only the times differ.
        vp = VPLinear()
        half_log_snr = [
            0.5 * torch.log(torch.tensor(1.0 - s**2, dtype=torch.float64) / s**2)
            for s in improved_levels(case.steps)[:-1]
        ]
        times = [*(float(vp.time(float(level))) for level in half_log_snr), 0.0]
        return case.sampler(mixture(torch.float32).denoiser(vp), x, times, **case.options)
    schedule = DiscreteVP(diffusers_levels().double())
    skip, offset = LEVELS // case.steps, case.config["steps_offset"]
    numbers = [offset + skip * k for k in reversed(range(case.steps))]
    # The last step leads to level 0, or to clean data at t = 0.
    times = [*((n + 1) / LEVELS for n in numbers), 0.0 if case.config["set_alpha_to_one"] else 1 / LEVELS]
    return case.sampler(mixture(torch.float32).denoiser(schedule), x, times, **case.options)

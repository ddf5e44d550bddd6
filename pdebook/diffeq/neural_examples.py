"""Data, batches and training runs of the chapter on neural differential equations, and the small networks that it ships.

| weights | made by | loaded by |
|---|---|---|
| ``lotka_volterra`` | ``make_lotka_volterra`` | ``lotka_volterra_fields``: hybrid and black box |
| ``latent_ode`` | ``make_latent_ode`` | ``latent_ode`` |
| ``latent_sde`` | ``make_latent_sde`` | ``latent_sde``: with the KL, and without |
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pdebook import weights
from pdebook.data.series import TimeDependentOU, box, decaying_oscillation, lotka_volterra, noisy
from pdebook.diffeq.brownian import PrecomputedPath
from pdebook.diffeq.controllers import PID
from pdebook.diffeq.forecasts import forecast, forecast_loss, growing_horizon
from pdebook.diffeq.neural_differential_equations import HybridField, LatentODE, latent_ode_loss
from pdebook.diffeq.neural_sdes import SDEGAN, CDEDiscriminator, LatentSDE, SDEGenerator, latent_sde_loss
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import ODE
from pdebook.nn.mlp import MLP, initialised
from pdebook.rng import fold_in, integers, normal
from pdebook.training import fit, warmup_cosine

Samples = Int64[Tensor, " batch"]
Module = TypeVar("Module", bound=nn.Module)


def simulate(
    field: Callable[..., Tensor], start: Float[Tensor, "batch dim"], times: Float[Tensor, " time"]
) -> Float[Tensor, "batch time dim"]:
    """Accurate states of dy/dt = field(t, y) at the times, the first of which is the start's: tolerance 1e-9, in float64."""
    clock = times.double()
    span = float(clock[0]), float(clock[-1])
    ys = solve(ODE(field), start.double(), *span, controller=PID(1e-9, 1e-9), ts=clock, max_steps=100_000).ys
    return ys.to(start.dtype)


def relative_error(prediction: Float[Tensor, "*dims"], truth: Float[Tensor, "*dims"]) -> float:
    """|prediction - truth| / |truth| over everything."""
    return float((prediction - truth).norm() / truth.norm())


# -------------------- Lotka and Volterra's equations with a part that is not known

LOTKA_TIMES = torch.linspace(0.0, 6.0, 31)
"""Times of the training series: more than one period."""


def lotka_known(t: Tensor, y: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """What is known: growth of the prey and death of the predators, without their meeting."""
    return y * y.new_tensor([1.3, -1.8])


def lotka_series(seed: int, count: int = 8) -> Float[Tensor, "batch time 2"]:
    """Series of whole orbits at ``LOTKA_TIMES``, with noise of 0.01."""
    start = box(seed, torch.arange(count), [1.0, 0.8], [3.0, 2.0])
    return noisy(seed, torch.arange(count), simulate(lotka_volterra, start, LOTKA_TIMES), 0.01)


def _lotka_fields(seed: int) -> nn.ModuleDict:
    def build(known: Callable[..., Tensor] | None, start: float) -> HybridField:
        return initialised(lambda: HybridField(MLP(2, 2, width=32), known, start=start), seed)

    return nn.ModuleDict({"hybrid": build(lotka_known, 0.01), "black_box": build(None, 1.0)})


def make_lotka_volterra(seed: int = 0, *, steps: int = 1500) -> weights.Made:
    """Train hybrid and black box alike: Adam with 1e-2 and a cosine, forecasts of 5 intervals that grow to all in 500 steps.

    Returns:
        The weights; errors of forecasts twice as long as the series, from the same orbits and from smaller ones.
    """
    data, fields = lotka_series(seed), _lotka_fields(seed)
    batches = growing_horizon(LOTKA_TIMES, data, first=5, over=steps // 3)
    for field in fields.values():
        fit(field, forecast_loss, batches, steps=steps, lr=1e-2, seed=seed)
    metrics = {f"{name}_{where}": error for (name, where), error in lotka_errors(fields, seed).items()}
    return weights.Made(dict(fields.state_dict()), metrics)


def lotka_errors(fields: nn.ModuleDict, seed: int) -> dict[tuple[str, str], float]:
    """Relative errors of both fields up to t = 12, from starts like those of the training, and from smaller populations."""
    far = torch.linspace(0.0, 12.0, 61)
    errors = {}
    for where, low, high in (("inside", [1.0, 0.8], [3.0, 2.0]), ("outside", [0.4, 0.3], [0.8, 0.6])):
        start = box(fold_in(seed, where), torch.arange(64), low, high)
        truth = simulate(lotka_volterra, start, far)
        for name, field in fields.items():
            with torch.no_grad():
                errors[name, where] = relative_error(forecast(field, start, far), truth)
    return errors


def lotka_volterra_fields() -> nn.ModuleDict:
    """The shipped ``hybrid`` and ``black_box`` fields."""
    return _loaded(_lotka_fields(0), "lotka_volterra")


# -------------------- latent ODE


def latent_ode_batches(size: int) -> Callable[[int, int], tuple[Tensor, Tensor, Tensor]]:
    """Fresh decaying oscillations at irregular times for each step, with ε."""

    def batches(seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        samples = step * size + torch.arange(size)
        return *decaying_oscillation(seed, samples), normal(fold_in(seed, "latent"), samples, (16,))

    return batches


def make_latent_ode(seed: int = 0, *, steps: int = 600) -> weights.Made:
    """Train on fresh series, 256 at a time: Adam with 1e-2, 20 steps of warm-up and a cosine.

    Returns:
        The weights; the loss on series that training has not seen.
    """
    model = initialised(lambda: LatentODE(2), seed)
    fit(model, latent_ode_loss, latent_ode_batches(256), steps=steps, lr=1e-2, seed=seed, schedule=warmup_cosine(20))
    with torch.no_grad():
        loss = latent_ode_loss(model, latent_ode_batches(1000)(fold_in(seed, "held out"), 0))
    return weights.Made(dict(model.state_dict()), {"loss": loss.item()})


def latent_ode() -> LatentODE:
    """The shipped latent ODE."""
    return _loaded(LatentODE(2), "latent_ode")


# -------------------- neural SDEs on a time-dependent Ornstein-Uhlenbeck process

OU_TIMES = torch.linspace(0.0, 63.0, 16)
"""Times at which the process is seen."""


def brownian_values(
    seed: int, samples: Samples, times: Float[Tensor, " time"], size: int
) -> Float[Tensor, "batch time size"]:
    """Brownian motion at rising times, zero at the first."""
    draws = normal(fold_in(seed, "Brownian values"), samples, (len(times) - 1, size), device=times.device)
    steps = draws * times.diff().sqrt()[:, None].to(draws.dtype)
    return torch.cat([torch.zeros_like(steps[:, :1]), steps], 1).cumsum(1)


def gan_noise(
    seed: int, samples: Samples, times: Float[Tensor, " time"], generator: SDEGenerator
) -> tuple[Float[Tensor, "batch start"], Float[Tensor, "batch time noise"]]:
    """v and W for a generator."""
    v = normal(fold_in(seed, "v"), samples, (generator.noise_at_start,), device=times.device)
    return v, brownian_values(seed, samples, times, generator.noise)


def gan_batches(
    times: Float[Tensor, " time"], data: Float[Tensor, "series time channels"], size: int, generator: SDEGenerator
) -> Callable[[int, int], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Batches for ``gan_loss``: series drawn with replacement, fresh noise."""

    def batches(seed: int, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        samples = step * size + torch.arange(size, device=data.device)
        chosen = integers(fold_in(seed, "series"), samples, len(data), device=data.device)
        return times, data[chosen], *gan_noise(seed, samples, times, generator)

    return batches


def new_gan(seed: int) -> SDEGAN:
    """An untrained pair for series of one channel; the start's weights are tripled and those of drift and diffusion halved.

    Source: the example ``sde_gan`` of torchsde.
    """
    gan = initialised(lambda: SDEGAN(SDEGenerator(1), CDEDiscriminator(1)), seed)
    generator = gan.generator
    with torch.no_grad():
        for network, factor in (
            (generator.start, 3.0),
            (generator.drift_network, 0.5),
            (generator.diffusion_network, 0.5),
        ):
            for parameter in network.parameters():
                parameter.mul_(factor)
    return gan


LATENT_TIMES = torch.linspace(0.0, 3.0, 16)
"""Times of ``OU_TIMES`` in the units of the latent SDE, whose state and time are of size one."""
LATENT_STEPS = torch.linspace(0.0, 3.0, 31)
"""Ends of its steps: two between observations."""


def normalised_ou(seed: int, samples: Samples) -> Float[Tensor, "batch time 1"]:
    """Series of the process at ``OU_TIMES``, with mean 0 and variance 1 over all times."""
    process = TimeDependentOU()
    mean, variance = process.moments(OU_TIMES.double())
    spread = (variance.mean() + mean.var(correction=0)).sqrt()
    return (process.sample(seed, samples, OU_TIMES) - float(mean.mean())) / float(spread)


def latent_sde_batches(size: int) -> Callable[[int, int], tuple[Tensor, ...]]:
    """Fresh series with noise for each step."""

    def batches(seed: int, step: int) -> tuple[Tensor, ...]:
        samples = step * size + torch.arange(size)
        w = brownian_values(seed, samples, LATENT_STEPS, 5)
        noise = normal(fold_in(seed, "latent"), samples, (4,))
        return LATENT_TIMES, normalised_ou(seed, samples), noise, LATENT_STEPS, w

    return batches


def latent_sde_samples(model: LatentSDE, seed: int, count: int) -> Float[Tensor, "batch time 1"]:
    """Series of a model's prior."""
    samples = torch.arange(count)
    w = brownian_values(seed, samples, LATENT_STEPS, 4)
    with torch.no_grad():
        return model.sample(
            LATENT_TIMES, normal(seed, samples, (4,)), PrecomputedPath(LATENT_STEPS.double(), w), LATENT_STEPS
        )


def _latent_sdes(seed: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: initialised(lambda: LatentSDE(1), seed) for name in ("full", "without_kl")})


def make_latent_sde(seed: int = 0, *, steps: int = 800) -> weights.Made:
    """Train twice on the same fresh series, 128 at a time, with the KL and without: Adam with 1e-2, warm-up 50, clip 10, EMA 0.99.

    Returns:
        The averaged weights; the negative evidence bound of the first on series that training has not seen.
    """
    models = _latent_sdes(seed)
    for name, model in models.items():
        loss = partial(latent_sde_loss, weight=1.0 if name == "full" else 0.0)
        history = fit(
            model,
            loss,
            latent_sde_batches(128),
            steps=steps,
            lr=1e-2,
            seed=seed,
            schedule=warmup_cosine(50),
            clip=10.0,
            ema=0.99,
        )
        model.load_state_dict(history.ema or {})
    with torch.no_grad():
        bound = latent_sde_loss(models["full"], latent_sde_batches(1000)(fold_in(seed, "held out"), 0))
    return weights.Made(dict(models.state_dict()), {"negative_evidence_bound": bound.item()})


def latent_sde() -> nn.ModuleDict:
    """The shipped latent SDE, ``full``, and the one that was trained ``without_kl``."""
    return _loaded(_latent_sdes(0), "latent_sde")


def _loaded(model: Module, name: str) -> Module:
    model.load_state_dict(weights.load(name))
    return model.eval().requires_grad_(False)

"""Runs the official DEIS and diffusers' scheduler on the cases of ``deis_cases``; imported only where they are at hand.

The official code makes its coefficients with JAX, which is needed as well.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deis_cases import DIFFUSERS, END, OFFICIAL, SCHEDULE, STEPS, DiffusersCase, OfficialCase
from diffusion_cases import initial, mixture
from torch import Tensor

from pdebook.diffusion.schedules import scaled_linear_betas

REPOSITORY = "https://github.com/qsh-zh/deis"
FILE = "th_deis/multistep.py"
POINTS = 200
"""Gauss points in t of the "gauss" cases; 400 give the same to rounding."""


def official(folder: Path) -> dict[str, Any]:
    """Float64 results of the official code in a clone of its repository."""
    import jax
    from jax._src.numpy import lax_numpy

    jax.config.update("jax_enable_x64", True)
    # A private name that JAX has since renamed. The package imports it, and uses it for discrete models only.
    if not hasattr(lax_numpy, "_promote_dtypes_inexact"):
        lax_numpy._promote_dtypes_inexact = None
    sys.path.insert(0, str(folder))
    try:
        return {"cases": {name: {"result": run_official(case).tolist()} for name, case in OFFICIAL.items()}}
    finally:
        sys.path.remove(str(folder))


def run_official(case: OfficialCase, points: int = POINTS) -> Tensor:
    """Float64 result of one case; the package ``th_deis`` must be importable and JAX in double precision."""
    import th_deis
    from th_deis import multistep

    sde = th_deis.VPSDE(*th_deis.get_linear_alpha_fns(SCHEDULE.beta_min, SCHEDULE.beta_max), END, SCHEDULE.t_max)
    phase, power = case.grid.split()

    def noise(x: Tensor, t: Tensor) -> Tensor:
        return mixture(torch.float64).noise(x, SCHEDULE.alpha(float(t)), SCHEDULE.sigma(float(t)))

    released = multistep.get_integrator_basis_fn
    if case.quadrature == "gauss":
        multistep.get_integrator_basis_fn = lambda sde: _gauss(sde, points)
    try:
        sampler = th_deis.get_sampler(sde, noise, phase, float(power), STEPS, method=case.method, **case.options)
        result: Tensor = sampler(initial(torch.float64))
    finally:
        multistep.get_integrator_basis_fn = released
    return result


def _gauss(sde: Any, points: int) -> Any:
    """Their integrand at other points: values times weights, the points, and the factor by which they multiply the sum."""
    import jax.numpy as jnp

    nodes, weights = (jnp.asarray(part) for part in np.polynomial.legendre.leggauss(points))

    def worker(start: Any, end: Any, number: int) -> Any:
        t = start + 0.5 * (end - start) * (nodes + 1.0)
        return sde.psi(t, end) * sde.eps_integrand(t) * 0.5 * weights * number, t, (end - start) / number

    return worker


def diffusers() -> dict[str, Any]:
    """Results of DEISMultistepScheduler with the noise levels that it took."""
    stored = {}
    for name, case in DIFFUSERS.items():
        sigmas, result = run_diffusers(case)
        stored[name] = {"result": result.tolist(), "sigmas": sigmas}
    return {"cases": stored}


def run_diffusers(case: DiffusersCase) -> tuple[list[float], Tensor]:
    """Noise levels and result of one case."""
    import diffusers as package

    scheduler = package.DEISMultistepScheduler(
        trained_betas=scaled_linear_betas().numpy(), solver_order=case.order, **case.config
    )
    scheduler.set_timesteps(case.steps)
    # With Karras' levels the last one comes twice: a step that does nothing.
    calls = case.steps - 1 if case.config.get("use_karras_sigmas") else case.steps
    if case.double:
        scheduler.sigmas = scheduler.sigmas.double()
    x, model = initial(case.dtype), mixture(case.dtype)
    sigmas = scheduler.sigmas.double().tolist()[: calls + 1]
    scheduler.set_begin_index(0)
    for i, t in enumerate(scheduler.timesteps[:calls]):
        alpha = float((1.0 + sigmas[i] ** 2) ** -0.5)
        x = scheduler.step(model.noise(x, alpha, alpha * sigmas[i]), t, x, return_dict=False)[0]
    return sigmas, x

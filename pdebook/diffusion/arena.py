"""Every deterministic sampler of the part against every other: error and quality at equal budgets of model evaluations.

``pdebook arena diffusion`` records what ``run`` measures. The error is the median over samples of the root mean square distance
between a sampler's result and the converged solution of the same model from the same noise. The quality is the Fréchet digit
distance of its samples to the converged ones: the Fréchet distance of the features of the shipped classifier.

A new sampler is a new row of ``SAMPLERS``; nothing else changes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdebook.diffusion.baselines import ddim, runge_kutta
from pdebook.diffusion.deis import deis
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.digits import classifier, score_network
from pdebook.diffusion.dpm_solver import fast_orders, singlestep
from pdebook.diffusion.dpm_solver_v3 import dpm_solver_v3
from pdebook.diffusion.dpm_solver_v3 import shipped as shipped_statistics
from pdebook.diffusion.multistep import multistep
from pdebook.diffusion.pndm import fon, ipndm, pndm
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.sampling import DivergenceError, Sampler
from pdebook.diffusion.schedules import NoiseSchedule, VPLinear, time_grid
from pdebook.diffusion.testbeds import digits_gm
from pdebook.diffusion.unified_sampling import shipped as shipped_schedule
from pdebook.diffusion.unified_sampling import usf
from pdebook.diffusion.unipc import unipc
from pdebook.metrics.distributions import frechet_distance
from pdebook.rng import normal

BUDGETS = (5, 8, 10, 12, 15, 20, 30, 50)
"""Numbers of model evaluations that are compared."""


@dataclass(frozen=True)
class ArenaSampler:
    """A sampler as it is entered: what it is called with, and how it spends a budget.

    Attributes:
        name: the method's name in figures and tables.
        sampler: the algorithm.
        order: order of convergence of the whole, in the limit of many steps, its ending included; None where there is no limit.
        options: the sampler's options.
        cost: evaluations a step; a budget buys as many whole steps as it pays for.
        extra: evaluations on top of those, for a warm-up.
        smallest: smallest budget that the method can use.
        kind: grid of ``time_grid``.
        plan: orders of the steps for a budget, where they differ ("fast").
        fitted: what the method knows of a problem and a budget: further options, among them ``times`` if it has a grid of its
            own; None where it knows nothing, and so does not compete.
    """

    name: str
    sampler: Sampler
    order: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    cost: int = 1
    extra: int = 0
    smallest: int = 1
    kind: str = "half_log_snr"
    plan: Callable[[int], list[int]] | None = None
    fitted: Callable[[str, int], Mapping[str, Any] | None] | None = None

    def competes(self, problem: str, budget: int) -> bool:
        """Whether the method can use a budget on a problem."""
        return budget >= self.smallest and (self.fitted is None or self.fitted(problem, budget) is not None)

    def __call__(self, denoiser: Denoiser, x: Tensor, budget: int, *, end: float, problem: str = "") -> Tensor:
        """Samples at time ``end`` with at most ``budget`` evaluations.

        Raises:
            ValueError: a budget below ``smallest``, or a problem that the method was not fitted to.
        """
        if budget < self.smallest:
            raise ValueError(f"budget must be at least {self.smallest} for {self.name}, got {budget}")
        options = dict(self.options)
        if self.fitted is not None:
            fitted = self.fitted(problem, budget)
            if fitted is None:
                raise ValueError(
                    f"problem must be one that {self.name} was fitted to, got {problem!r} with {budget} evaluations"
                )
            options |= fitted
        if self.plan is not None:
            options["order"] = self.plan(budget)
        steps = len(options["order"]) if self.plan else (budget - self.extra) // self.cost
        times = options.pop("times", None) or time_grid(denoiser.schedule, steps, self.kind, end=end)
        return self.sampler(denoiser, x, times, **options)


def _runge_kutta(name: str, order: int, cost: int, method: str, variable: str, kind: str) -> ArenaSampler:
    options = {"method": method, "variable": variable}
    return ArenaSampler(name, runge_kutta, order, options, cost, smallest=cost, kind=kind)


def _statistics(problem: str, budget: int) -> Mapping[str, Any] | None:
    """What DPM-Solver-v3 knows of a problem."""
    statistics = shipped_statistics(problem)
    return None if statistics is None else {"statistics": statistics}


def _schedule(problem: str, budget: int) -> Mapping[str, Any] | None:
    """What was searched for a problem and a budget."""
    found = shipped_schedule(problem, budget)
    return None if found is None else {"times": list(found.times), **found.options()}


SAMPLERS: dict[str, ArenaSampler] = {
    entry.name: entry
    for entry in (
        ArenaSampler("ddim", ddim, 1),
        _runge_kutta("euler", 1, 1, "euler", "time", "time"),
        _runge_kutta("heun", 2, 2, "heun", "time", "time"),
        _runge_kutta("edm", 2, 2, "heun", "rho", "rho"),
        _runge_kutta("rk3-t", 3, 3, "heun3", "time", "time"),
        _runge_kutta("rk3-lambda", 3, 3, "heun3", "half_log_snr", "half_log_snr"),
        ArenaSampler("dpm-solver-2", singlestep, 2, {"order": 2}, cost=2, smallest=2),
        ArenaSampler("dpm-solver-3", singlestep, 3, {"order": 3}, cost=3, smallest=3),
        ArenaSampler("dpm-solver-fast", singlestep, 2, plan=fast_orders),
        ArenaSampler("dpm-solver++2s", singlestep, 2, {"order": 2, "prediction": "data"}, cost=2, smallest=2),
        ArenaSampler("dpm-solver++3s", singlestep, 3, {"order": 3, "prediction": "data"}, cost=3, smallest=3),
        ArenaSampler("dpm-solver++2m", multistep, 2, {"order": 2}, smallest=2),
        ArenaSampler("dpm-solver++3m", multistep, 2, {"order": 3}, smallest=3),
        ArenaSampler("unipc-2", unipc, 2, {"order": 2}, smallest=2),
        ArenaSampler("unipc-3", unipc, 2, {"order": 3}, smallest=3),
        *(ArenaSampler(f"tab-{r}", deis, 2, {"degree": r}, smallest=r + 1, kind="quadratic") for r in (1, 2, 3)),
        ArenaSampler("rho-ab-3", deis, 2, {"degree": 3, "variable": "rho"}, smallest=4, kind="quadratic"),
        ArenaSampler("lambda-ab-3", deis, 2, {"degree": 3, "variable": "half_log_snr"}, smallest=4),
        _runge_kutta("rho-rk-3", 3, 3, "kutta3", "rho", "quadratic"),
        ArenaSampler("ipndm", ipndm, 2, smallest=4, kind="quadratic"),
        ArenaSampler("s-pndm", pndm, 2, {"order": 2, "warmup": "heun"}, extra=1, smallest=3, kind="quadratic"),
        ArenaSampler("f-pndm", pndm, 2, {"fallback": False}, extra=9, smallest=13, kind="quadratic"),
        ArenaSampler("fon", fon, 4, extra=9, smallest=13, kind="time"),
        ArenaSampler("dpm-solver-v3", dpm_solver_v3, 2, smallest=2, fitted=_statistics),
        ArenaSampler("usf", usf, None, fitted=_schedule),
    )
}
"""The entries by name; a sampler of a later chapter adds its row here."""


def compare(
    denoiser: Denoiser,
    x: Tensor,
    exact: Tensor,
    *,
    end: float,
    problem: str = "",
    budgets: tuple[int, ...] = BUDGETS,
    score: Callable[[Tensor, Tensor], float] | None = None,
) -> list[dict[str, Any]]:
    """One row a sampler: its order, and under each budget 1000 times its median error, or its ``score`` against ``exact``.

    Nothing stands where a sampler does not compete, infinity where it diverged.
    """
    score = _median_error if score is None else score
    rows = []
    for entry in SAMPLERS.values():
        row: dict[str, Any] = {"method": entry.name, "order": entry.order}
        for budget in budgets:
            value: float | None = None
            if entry.competes(problem, budget):
                try:
                    value = score(entry(denoiser, x, budget, end=end, problem=problem), exact)
                except DivergenceError:
                    value = math.inf
            row[str(budget)] = value
        rows.append(row)
    return rows


def _median_error(y: Tensor, exact: Tensor) -> float:
    return 1000.0 * float((y - exact).flatten(1).square().mean(1).sqrt().median())


def digit_distance(device: torch.device | str = "cpu") -> Callable[[Tensor, Tensor], float]:
    """Fréchet distance of two samples of digits, by the shipped classifier's features; 0 for equal samples."""
    judge = classifier().to(device)

    def distance(y: Tensor, z: Tensor) -> float:
        features = [judge.features(samples.float().reshape(-1, 1, 8, 8)).double() for samples in (y, z)]
        return float(frechet_distance(*features)) if bool(features[0].isfinite().all()) else math.inf

    return distance


def problems(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
) -> dict[str, tuple[Denoiser, NoiseSchedule, float]]:
    """What the samplers are compared on: the exact mixture of digits and the shipped network."""
    bed, schedule = digits_gm(), VPLinear()
    net = score_network().to(device, dtype)
    mixture = bed.mixture.to(torch.device(device), dtype).denoiser(bed.schedule)
    network = Denoiser(net, schedule, predicts="velocity", time_input="half_log_snr")
    return {"digits_gm": (mixture, bed.schedule, bed.end), "digits_net": (network, schedule, 1e-3)}


@torch.no_grad()
def run(*, profile: str, seed: int, device: torch.device | str) -> dict[str, list[dict[str, Any]]]:
    """All samplers on all problems.

    Args:
        profile: "quick" (128 and 48 samples, 500 for the quality) or "full" (2048, 5000).
        seed: seed of the initial noise.
        device: where to run.
    Returns:
        Tables of rows: the errors on each problem, the quality on the network, sizes and reference errors of the problems.
    """
    quick = profile == "quick"
    sizes = {"digits_gm": 128 if quick else 2048, "digits_net": 48 if quick else 2048}
    place = torch.device(device)
    tables: dict[str, list[dict[str, Any]]] = {}
    facts = []
    for name, (denoiser, schedule, end) in problems(device).items():
        x = normal(seed, torch.arange(sizes[name]), (64,), dtype=torch.float64, device=place)
        reference = probability_flow(denoiser, x, schedule.t_max, end, tolerance=1e-5)
        tables[f"Median trajectory error × 1000 on {name}, by evaluations"] = compare(
            denoiser, x, reference.x, end=end, problem=name
        )
        facts.append(
            {"problem": name, "samples": len(x), "reference_error": reference.error, "reference_steps": reference.steps}
        )
    # The quality is that of the network in its own precision.
    denoiser, schedule, end = problems(device, torch.float32)["digits_net"]
    x = normal(seed, torch.arange(500 if quick else 5000), (64,), device=place)
    grid = time_grid(schedule, 100, end=end)
    converged = multistep(denoiser, x, grid, order=3, variant="taylor")
    coarser = multistep(denoiser, x, grid[::2], order=3, variant="taylor")
    score = digit_distance(device)
    tables["Fréchet digit distance to converged samples on digits_net, by evaluations"] = compare(
        denoiser, x, converged, end=end, problem="digits_net", score=score
    )
    facts.append(
        {
            "problem": "digits_net, quality",
            "samples": len(x),
            "reference_error": float((coarser - converged).square().mean(1).sqrt().median()),
            "reference_steps": 100,
        }
    )
    return {**tables, "Problems": facts}

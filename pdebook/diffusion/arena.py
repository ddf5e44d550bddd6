"""Every deterministic sampler of the part against every other: trajectory error at equal budgets of model evaluations.

``pdebook arena diffusion`` records what ``run`` measures. The error is the median over samples of the root mean square distance
between a sampler's result and the converged solution of the same model from the same noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdebook.diffusion.baselines import ddim, runge_kutta
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.digits import score_network
from pdebook.diffusion.dpm_solver import fast_orders, singlestep
from pdebook.diffusion.multistep import multistep
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.sampling import DivergenceError, Sampler
from pdebook.diffusion.schedules import NoiseSchedule, VPLinear, time_grid
from pdebook.diffusion.testbeds import digits_gm
from pdebook.diffusion.unipc import unipc
from pdebook.rng import normal

BUDGETS = (5, 8, 10, 12, 15, 20, 30, 50)
"""Numbers of model evaluations that are compared."""


@dataclass(frozen=True)
class ArenaSampler:
    """A sampler as it is entered: what it is called with, and how it spends a budget.

    Attributes:
        name: the method's name in figures and tables.
        sampler: the algorithm.
        order: order of convergence of the whole, in the limit of many steps, its ending included.
        options: the sampler's options.
        cost: evaluations a step; a budget buys as many whole steps as it pays for.
        smallest: smallest budget that the method can use.
        kind: grid of ``time_grid``.
        plan: orders of the steps for a budget, where they differ ("fast").
    """

    name: str
    sampler: Sampler
    order: int
    options: Mapping[str, Any] = field(default_factory=dict)
    cost: int = 1
    smallest: int = 1
    kind: str = "half_log_snr"
    plan: Callable[[int], list[int]] | None = None

    def __call__(self, denoiser: Denoiser, x: Tensor, budget: int, *, end: float) -> Tensor:
        """Samples at time ``end`` with at most ``budget`` evaluations.

        Raises:
            ValueError: a budget below ``smallest``.
        """
        if budget < self.smallest:
            raise ValueError(f"budget must be at least {self.smallest} for {self.name}, got {budget}")
        orders = self.plan(budget) if self.plan else []
        grid = time_grid(denoiser.schedule, len(orders) or budget // self.cost, self.kind, end=end)
        return self.sampler(denoiser, x, grid, **self.options, **({"order": orders} if orders else {}))


def _runge_kutta(name: str, order: int, cost: int, method: str, variable: str, kind: str) -> ArenaSampler:
    options = {"method": method, "variable": variable}
    return ArenaSampler(name, runge_kutta, order, options, cost, smallest=cost, kind=kind)


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
    )
}
"""The entries by name; a sampler of a later chapter adds its row here."""


def compare(
    denoiser: Denoiser, x: Tensor, exact: Tensor, *, end: float, budgets: tuple[int, ...] = BUDGETS
) -> list[dict[str, Any]]:
    """One row a sampler: its order, and 1000 times its median error at each budget.

    Nothing stands where a budget is too small, infinity where the sampler diverged.
    """
    rows = []
    for entry in SAMPLERS.values():
        row: dict[str, Any] = {"method": entry.name, "order": entry.order}
        for budget in budgets:
            try:
                y = entry(denoiser, x, budget, end=end) if budget >= entry.smallest else None
            except DivergenceError:
                y = torch.full_like(x, torch.inf)
            row[f"{budget} evaluations"] = None if y is None else 1000.0 * _median_error(y, exact)
        rows.append(row)
    return rows


def _median_error(y: Tensor, exact: Tensor) -> float:
    return float((y - exact).flatten(1).square().mean(1).sqrt().median())


def problems(device: torch.device | str = "cpu") -> dict[str, tuple[Denoiser, NoiseSchedule, float]]:
    """What the samplers are compared on: the exact mixture of digits and the shipped network, in float64."""
    bed, schedule = digits_gm(), VPLinear()
    net = score_network().double().to(device)
    mixture = bed.mixture.to(torch.device(device)).denoiser(bed.schedule)
    network = Denoiser(net, schedule, predicts="velocity", time_input="half_log_snr")
    return {"digits_gm": (mixture, bed.schedule, bed.end), "digits_net": (network, schedule, 1e-3)}


@torch.no_grad()
def run(*, profile: str, seed: int, device: torch.device | str) -> dict[str, list[dict[str, Any]]]:
    """All samplers on all problems.

    Args:
        profile: "quick" (128 and 48 samples) or "full" (2048).
        seed: seed of the initial noise.
        device: where to run.
    Returns:
        Tables of rows: the errors on each problem, then sizes and reference errors of the problems.
    """
    quick = {"digits_gm": 128, "digits_net": 48}
    tables: dict[str, list[dict[str, Any]]] = {}
    facts = []
    for name, (denoiser, schedule, end) in problems(device).items():
        count = quick[name] if profile == "quick" else 2048
        x = normal(seed, torch.arange(count), (64,), dtype=torch.float64, device=torch.device(device))
        reference = probability_flow(denoiser, x, schedule.t_max, end, tolerance=1e-5)
        tables[f"Median trajectory error × 1000 on {name}"] = compare(denoiser, x, reference.x, end=end)
        facts.append(
            {"problem": name, "samples": count, "reference_error": reference.error, "reference_steps": reference.steps}
        )
    return {**tables, "Problems": facts}

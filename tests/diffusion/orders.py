"""Orders of convergence of all samplers: theory as data, the measurement, and the table of both.

Errors are the median over samples of the root mean square distance to the reference solution on ``ring2d`` in float64.
Print the table with ``PYTHONPATH=tests python -m diffusion.orders``.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pdebook.diffusion import baselines, dpm_solver, multistep, unipc
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.dpm_solver import fast_orders
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.sampling import exponential_step, sampler
from pdebook.diffusion.schedules import time_grid
from pdebook.diffusion.testbeds import TestBed, ring2d
from pdebook.metrics.order import ObservedOrder, observed_order, order_table

BATCH = 32


@sampler
def thirds_in_time(denoiser: Any, x: Any, times: list[Any]) -> Any:
    """DPM-Solver-3 done wrong: stages are weighed as if they were at thirds in λ, but lie at thirds in t.

    Uniform steps in t are nearly uniform in λ: the stages are off by O(h), which costs one order. (It costs DPM-Solver-2
    none: there a stage off by O(h) changes a step by O(h³), which is its local error anyway.)
    """
    for s, t in pairwise(times):
        step = exponential_step(denoiser.schedule, s, t, "noise")
        m = denoiser.noise(x, s)
        s1, s2 = s + (t - s) / 3.0, s + 2.0 * (t - s) / 3.0
        inner = exponential_step(denoiser.schedule, s, s1, "noise")
        m1 = denoiser.noise(inner.ratio * x + inner.weight(1) * m, s1)
        inner = exponential_step(denoiser.schedule, s, s2, "noise")
        m2 = denoiser.noise(inner.ratio * x + inner.weight(1) * m + 2.0 * inner.weight(2) * (m1 - m), s2)
        x = step.ratio * x + step.weight(1) * m + 1.5 * step.weight(2) * (m2 - m)
        yield t, x


@dataclass(frozen=True)
class Row:
    """One method, what theory says of it, and the step counts at which that is measured."""

    name: str
    sampler: Callable[..., Tensor]
    order: float
    options: dict[str, Any] = field(default_factory=dict)
    n: tuple[int, ...] = (80, 160, 320)
    kind: str = "half_log_snr"


def _rows() -> list[Row]:
    one, many, pc, rk = dpm_solver.singlestep, multistep.multistep, unipc.unipc, baselines.runge_kutta
    rows = [Row("ddim", baselines.ddim, 1)]
    for prediction, name in (("noise", "dpm-solver-{}"), ("data", "dpm-solver++{}s")):
        rows += [
            Row(f"{name.format(order)} {variant}", one, order, {**both, "order": order})
            for order in (1, 2, 3)
            for variant in ("released", "taylor")
            for both in [{"prediction": prediction, "variant": variant}]
            if order > 1 or variant == "released"
        ]
        rows += [
            Row(f"{name.format(order)} r1 = 0.3", one, order, {"order": order, "prediction": prediction, "r1": 0.3})
            for order in (2, 3)
        ]
    for variant in ("released", "taylor"):
        rows.append(Row(f"dpm-solver-3 {variant}, r2 = 0.9", one, 2, {"r2": 0.9, "variant": variant}))
    rows.append(Row("dpm-solver-3, stages at thirds in t", thirds_in_time, 2, kind="time"))
    for rest, order in ((0, 2), (1, 2), (2, 3)):
        # With one step of order 1 at the end the whole is of second order: its local error is h².
        budgets = (180 + rest, 360 + rest, 720 + rest) if order == 2 else (60 + rest, 120 + rest, 240 + rest)
        rows.append(Row(f"dpm-solver-fast, K mod 3 = {rest}", fast, order, n=budgets))
    for prediction in ("data", "noise"):
        for variant in ("released", "taylor"):
            options = {"prediction": prediction, "variant": variant, "ending": "full"}
            rows += [
                Row(f"multistep-2 {prediction} {variant}", many, 2, {**options, "order": 2}),
                Row(
                    f"multistep-3 {prediction} {variant}",
                    many,
                    2 if variant == "released" else 3,
                    {**options, "order": 3},
                    (160, 320, 640),
                ),
            ]
    rows += [
        Row(
            "multistep-3 data taylor, lower ending",
            many,
            2,
            {"order": 3, "variant": "taylor", "ending": "lower"},
            (320, 640, 1280),
        ),
        Row("sde-multistep-2, eta = 0", multistep.sde_multistep, 2, {"eta": 0.0, "ending": "full"}),
    ]
    for order in (1, 2, 3):
        for b in ("bh1", "bh2"):
            for prediction in ("data", "noise"):
                options = {"order": order, "b": b, "prediction": prediction, "ending": "full"}
                n = (80, 160, 320) if order < 3 else (160, 320, 640)
                rows.append(Row(f"unipc-{order} {b} {prediction}", pc, order + 1, options, n))
    rows += [
        Row(f"unip-{order} {b}", pc, order, {"order": order, "b": b, "corrector": False, "ending": "full"})
        for order in (2, 3)
        for b in ("bh1", "bh2")
    ]
    rows += [Row(f"unipc-{order} lower ending", pc, 2, {"order": order}, (320, 640, 1280)) for order in (2, 3)]
    for name, method in baselines.RUNGE_KUTTA.items():
        for variable, kind in (("time", "time"), ("half_log_snr", "half_log_snr"), ("rho", "half_log_snr")):
            rows.append(
                Row(f"{name} in {variable}", rk, method.order, {"method": name, "variable": variable}, kind=kind)
            )
    return rows


def fast(denoiser: Denoiser, x: Tensor, times: list[float]) -> Tensor:
    """DPM-Solver-fast with as many evaluations as the grid has intervals."""
    orders = fast_orders(len(times) - 1)
    grid = time_grid(denoiser.schedule, len(orders), start=times[0], end=times[-1])
    return dpm_solver.singlestep(denoiser, x, grid, order=orders)


ROWS = _rows()


@cache
def problem() -> tuple[TestBed, Denoiser, Tensor, Tensor]:
    """Bed, denoiser, samples at the start, and where the flow takes them."""
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(BATCH)
    return bed, denoiser, x, probability_flow(denoiser, x, bed.schedule.t_max, bed.end, tolerance=1e-11).x


def measure(row: Row) -> ObservedOrder:
    """Observed order of a row."""
    bed, denoiser, x, exact = problem()
    errors = []
    for n in row.n:
        y = row.sampler(denoiser, x, time_grid(bed.schedule, n, row.kind, end=bed.end), **row.options)
        errors.append(float((y - exact).square().mean(1).sqrt().median()))
    return observed_order(errors, n=row.n)


def table() -> str:
    """All rows: range of n, order in theory and as measured."""
    return order_table({row.name: measure(row) for row in ROWS}, {row.name: row.order for row in ROWS})


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({row.name: measure(row).order for row in ROWS}) if "--json" in sys.argv else table())

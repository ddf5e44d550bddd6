"""The arena: who is in it, that budgets are kept, and that a small comparison has the shape that is recorded."""

import json
import math

import pytest
import torch

from pdebook.diffusion import arena, dpm_solver, multistep, unipc
from pdebook.diffusion.arena import BUDGETS, SAMPLERS, ArenaSampler
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.testbeds import ring2d
from pdebook.plotting import METHODS


def test_the_registry_is_complete() -> None:
    assert set(SAMPLERS) <= set(METHODS)
    assert set(SAMPLERS) == {
        "ddim", "euler", "heun", "edm", "rk3-t", "rk3-lambda", "dpm-solver-2", "dpm-solver-3", "dpm-solver-fast",
        "dpm-solver++2s", "dpm-solver++3s", "dpm-solver++2m", "dpm-solver++3m", "unipc-2", "unipc-3",
    }  # fmt: skip
    assert {entry.sampler for entry in SAMPLERS.values()} >= {dpm_solver.singlestep, multistep.multistep, unipc.unipc}


@pytest.mark.parametrize("entry", SAMPLERS.values(), ids=SAMPLERS)
def test_budgets_are_kept_and_used(entry: ArenaSampler) -> None:
    bed = ring2d()
    x = bed.initial(2)
    for budget in (entry.smallest, entry.smallest + 1, *BUDGETS[:5]):
        denoiser = bed.mixture.denoiser(bed.schedule)
        assert entry(denoiser, x, budget, end=bed.end).shape == x.shape
        assert budget - entry.cost < denoiser.evaluations <= budget
    if entry.smallest > 1:
        with pytest.raises(
            ValueError, match=f"budget must be at least {entry.smallest} for .*, got {entry.smallest - 1}"
        ):
            entry(denoiser, x, entry.smallest - 1, end=bed.end)


def test_a_small_comparison() -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(8)
    exact = probability_flow(denoiser, x, 1.0, bed.end).x
    rows = arena.compare(denoiser, x, exact, end=bed.end, budgets=(2, 24))
    assert [row["method"] for row in rows] == list(SAMPLERS)
    assert all(list(row) == ["method", "order", "2 evaluations", "24 evaluations"] for row in rows)
    errors = {row["method"]: (row["2 evaluations"], row["24 evaluations"]) for row in rows}
    assert errors["dpm-solver-3"][0] is None
    assert all(error < 400 and (few is None or error < few) for few, error in errors.values())
    assert errors["unipc-3"][1] < errors["dpm-solver++2m"][1] < errors["ddim"][1]
    y = SAMPLERS["ddim"](denoiser, x, 24, end=bed.end)
    assert errors["ddim"][1] == pytest.approx(1000 * float((y - exact).square().mean(1).sqrt().median()))


def test_a_diverged_sampler_is_recorded_as_such() -> None:
    bed = ring2d()
    denoiser = bed.mixture.denoiser(bed.schedule)
    rows = arena.compare(denoiser, bed.initial(2) * torch.nan, bed.initial(2), end=bed.end, budgets=(6,))
    assert all(row["6 evaluations"] == math.inf for row in rows)


@pytest.mark.slow
def test_run_gives_tables_for_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    found = arena.problems()
    assert list(found) == ["digits_gm", "digits_net"]
    denoiser, schedule, end = found["digits_net"]
    assert denoiser.noise(torch.zeros(2, 64, dtype=torch.float64), 0.5).dtype == torch.float64
    monkeypatch.setattr(arena, "SAMPLERS", {"ddim": SAMPLERS["ddim"]})
    monkeypatch.setattr(arena, "problems", lambda device: {"digits_net": (denoiser, schedule, end)})
    tables = arena.run(profile="quick", seed=1, device=torch.device("cpu"))
    assert list(tables) == ["Median trajectory error × 1000 on digits_net", "Problems"]
    (row,), (fact,) = tables.values()
    assert list(row) == ["method", "order", *(f"{budget} evaluations" for budget in BUDGETS)]
    errors = list(row.values())[2:]
    assert errors == sorted(errors, reverse=True)
    assert fact["problem"] == "digits_net"
    assert fact["samples"] == 48
    assert fact["reference_error"] <= 1e-5
    json.dumps(tables, allow_nan=False)

"""The arena: who is in it, that budgets are kept, and that a small comparison has the shape that is recorded."""

import json
import math

import pytest
import torch

from pdebook.diffusion import arena, baselines, dpm_solver, multistep, unipc
from pdebook.diffusion.arena import BUDGETS, SAMPLERS, ArenaSampler
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.testbeds import digits_gm, ring2d


def test_the_registry_holds_what_the_chapters_teach() -> None:
    assert all(name == entry.name for name, entry in SAMPLERS.items())
    assert {entry.sampler for entry in SAMPLERS.values()} >= {
        baselines.ddim, baselines.runge_kutta, dpm_solver.singlestep, multistep.multistep, unipc.unipc,
    }  # fmt: skip


@pytest.mark.parametrize("entry", SAMPLERS.values(), ids=SAMPLERS)
def test_budgets_are_kept_and_used(entry: ArenaSampler) -> None:
    bed, problem = (digits_gm(), "digits_gm") if entry.fitted else (ring2d(), "")
    x = bed.initial(2)
    for budget in (entry.smallest, entry.smallest + 1, *BUDGETS[:5]):
        if not entry.competes(problem, budget):
            continue
        denoiser = bed.mixture.denoiser(bed.schedule)
        assert entry(denoiser, x, budget, end=bed.end, problem=problem).shape == x.shape
        assert budget - entry.cost < denoiser.evaluations <= budget
    assert any(entry.competes(problem, budget) for budget in BUDGETS)
    if entry.smallest > 1:
        with pytest.raises(
            ValueError, match=f"budget must be at least {entry.smallest} for .*, got {entry.smallest - 1}"
        ):
            entry(denoiser, x, entry.smallest - 1, end=bed.end)


def test_a_fitted_sampler_brings_options_and_times() -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(2)
    times = [1.0, 0.3, bed.end]
    entry = ArenaSampler(
        "fitted",
        multistep.multistep,
        2,
        fitted=lambda problem, budget: {"order": 1, "times": times} if problem == "ring" else None,
    )
    assert entry.competes("ring", 2)
    assert not entry.competes("", 2)
    assert torch.equal(
        entry(denoiser, x, 2, end=bed.end, problem="ring"), baselines.ddim(denoiser, x, times)
    ) or torch.allclose(
        entry(denoiser, x, 2, end=bed.end, problem="ring"), baselines.ddim(denoiser, x, times), rtol=1e-12
    )
    with pytest.raises(ValueError, match=r"problem must be one that fitted was fitted to, got 'other' with 2"):
        entry(denoiser, x, 2, end=bed.end, problem="other")


def test_a_small_comparison() -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(8)
    exact = probability_flow(denoiser, x, 1.0, bed.end).x
    rows = arena.compare(denoiser, x, exact, end=bed.end, budgets=(2, 24))
    assert [row["method"] for row in rows] == list(SAMPLERS)
    assert all(list(row) == ["method", "order", "2", "24"] for row in rows)
    errors = {row["method"]: (row["2"], row["24"]) for row in rows}
    assert errors["dpm-solver-3"][0] is None
    # Without a problem's name, methods that were fitted to one don't compete.
    assert {name for name, (_, error) in errors.items() if error is None} == {"dpm-solver-v3", "usf"}
    assert all(error < 400 and (few is None or error < few) for few, error in errors.values() if error is not None)
    assert errors["unipc-3"][1] < errors["dpm-solver++2m"][1] < errors["ddim"][1]
    y = SAMPLERS["ddim"](denoiser, x, 24, end=bed.end)
    assert errors["ddim"][1] == pytest.approx(1000 * float((y - exact).square().mean(1).sqrt().median()))
    scored = arena.compare(
        denoiser, x, exact, end=bed.end, budgets=(24,), score=lambda y, z: float((y - z).abs().max())
    )
    assert scored[0]["24"] == float((y - exact).abs().max())


def test_the_quality_is_a_distance_of_features() -> None:
    distance = arena.digit_distance()
    y = digits_gm().initial(100)
    assert distance(y, y) == pytest.approx(0.0, abs=1e-6)
    assert distance(y, 0.5 * y) > 1.0
    assert distance(y * torch.nan, y) == math.inf


def test_a_diverged_sampler_is_recorded_as_such() -> None:
    bed = ring2d()
    denoiser = bed.mixture.denoiser(bed.schedule)
    rows = arena.compare(denoiser, bed.initial(2) * torch.nan, bed.initial(2), end=bed.end, budgets=(6,))
    assert {row["6"] for row in rows} == {math.inf, None}
    assert all(row["6"] == math.inf for row in rows if SAMPLERS[row["method"]].competes("", 6))


@pytest.mark.slow
def test_run_gives_tables_for_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    found = arena.problems()
    assert list(found) == ["digits_gm", "digits_net"]
    denoiser, schedule, end = found["digits_net"]
    assert denoiser.noise(torch.zeros(2, 64, dtype=torch.float64), 0.5).dtype == torch.float64
    monkeypatch.setattr(arena, "SAMPLERS", {"ddim": SAMPLERS["ddim"]})
    single = arena.problems(dtype=torch.float32)["digits_net"]
    assert single[0].noise(torch.zeros(2, 64), 0.5).dtype == torch.float32
    monkeypatch.setattr(
        arena, "problems", lambda device, dtype=None: {"digits_net": single if dtype else (denoiser, schedule, end)}
    )
    tables = arena.run(profile="quick", seed=1, device=torch.device("cpu"))
    assert list(tables) == [
        "Median trajectory error × 1000 on digits_net, by evaluations",
        "Fréchet digit distance to converged samples on digits_net, by evaluations",
        "Problems",
    ]
    (row,), (quality,), (fact, other) = tables.values()
    assert list(row) == list(quality) == ["method", "order", *map(str, BUDGETS)]
    for column in (row, quality):
        values = list(column.values())[2:]
        assert values == sorted(values, reverse=True)
    assert fact["problem"] == "digits_net"
    assert fact["samples"] == 48
    assert fact["reference_error"] <= 1e-5
    assert other["samples"] == 500
    assert other["reference_error"] < 1e-3
    json.dumps(tables, allow_nan=False)

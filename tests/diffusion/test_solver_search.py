"""The search for schedules: budgets kept and counted, determinism, constraints, the predictor, gradients, the shipped file."""

import itertools
import json
import math
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.schedules import EDM, VPLinear, time_grid
from pdebook.diffusion.solver_search import Fitness, Predictor, SearchSpace, make_shipped, refine, search
from pdebook.diffusion.testbeds import ring2d
from pdebook.diffusion.unified_sampling import SolverSchedule, Step, Update, from_solver, shipped

SCHEDULE = VPLinear()


@cache
def space(**options: Any) -> SearchSpace:
    return SearchSpace(SCHEDULE, 5, 1e-2, **options)


@cache
def fitness(seed: int = 1) -> Fitness:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(32, seed=seed)
    exact = probability_flow(denoiser, x, 1.0, 1e-2, tolerance=1e-6).x
    return Fitness(denoiser, x, exact, mean=bed.mixture.means.mean(0))


def cheap(schedule: SolverSchedule) -> float:
    """A stand-in for an error: few corrections, noise prediction, and the second time near 0.6 are good."""
    steps = schedule.steps
    bad = sum(s.corrector != "none" for s in steps) + 2.0 * sum(s.prediction == "data" for s in steps)
    return 0.1 + 0.1 * bad + abs(schedule.times[1] - 0.6)


def test_fitness_is_the_geometric_mean_of_the_samples_errors() -> None:
    measured = fitness()
    before = measured.evaluations
    schedule = from_solver("ddim", time_grid(SCHEDULE, 5, end=1e-2))
    y = schedule.run(measured.denoiser, measured.x)
    errors = (y - measured.exact).square().mean(1).sqrt()
    assert measured(schedule) == pytest.approx(float(errors.log().mean().exp()), rel=1e-12)
    assert measured.evaluations == before + 1
    with pytest.raises(ValueError, match="exact must have the shape of x"):
        Fitness(measured.denoiser, measured.x, measured.exact[:3])


def test_a_schedule_that_diverges_is_infinitely_bad() -> None:
    bed = ring2d()
    broken = bed.mixture.denoiser(bed.schedule, hook=lambda data: data * math.inf)
    x = bed.initial(2)
    assert Fitness(broken, x, x)(from_solver("ddim", (1.0, 0.5, 0.01))) == math.inf


@pytest.mark.parametrize("strategy", ["random", "evolution", "predictor"])
def test_budgets_are_kept_and_results_are_functions_of_the_seed(strategy: Any) -> None:
    count = itertools.count(1)
    calls = 0

    def counted(schedule: SolverSchedule) -> float:
        nonlocal calls
        calls = next(count)
        return cheap(schedule)

    begin = space().seeds()[:6]
    result = search(counted, space(), 40, strategy=strategy, seed=3, start=begin)
    assert calls == len(result.population) == 40
    assert [schedule for schedule, _ in result.population[:6]] == begin
    again = search(cheap, space(), 40, strategy=strategy, seed=3, start=begin)
    other = search(cheap, space(), 40, strategy=strategy, seed=4, start=begin)
    assert (again.best, again.population, again.tau) == (result.best, result.population, result.tau)
    assert other.population != result.population
    assert result.error == min(error for _, error in result.population) == cheap(result.best) == result.progress[-1]
    assert sorted(result.progress, reverse=True) == result.progress
    assert all(space().feasible(schedule) for schedule, _ in result.population)
    assert len(result.tau) == (4 if strategy == "predictor" else 0)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    search(cheap, space(), 30, start=space().seeds()[:4])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("budget", [0, 4, -3])
def test_a_budget_that_the_seeds_exhaust_is_refused_before_anything_is_spent(budget: int) -> None:
    def never(schedule: SolverSchedule) -> float:
        raise AssertionError

    with pytest.raises(ValueError, match=f"budget must be more than the 4 schedules to begin with, got {budget}"):
        search(never, space(), budget, start=space().seeds()[:4])


def test_bad_inputs() -> None:
    with pytest.raises(ValueError, match="strategy must be one of random, evolution, predictor"):
        search(cheap, space(), 60, strategy="grid")
    with pytest.raises(ValueError, match="evaluations must be at least 1"):
        SearchSpace(SCHEDULE, 0)
    with pytest.raises(ValueError, match="orders must be probabilities that sum to 1"):
        SearchSpace(SCHEDULE, 5, orders={1: 0.5, 2: 0.4})
    with pytest.raises(ValueError, match="corrector must be a probability"):
        SearchSpace(SCHEDULE, 5, corrector=1.5)
    with pytest.raises(ValueError, match="times must be 6, without an analytic start"):
        SearchSpace(SCHEDULE, 5, times=(1.0, 0.5, 0.1))
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        refine(fitness(), space().seeds()[0], iterations=0)


def test_moves_stay_in_the_space_and_reach_all_of_it() -> None:
    rng = random.Random(0)
    here = SearchSpace(SCHEDULE, 5, 1e-2, analytic={"none": 0.5, "noise": 0.5})
    schedule = here.draw(rng)
    seen: set[Any] = set()
    previous = schedule
    for _ in range(300):
        schedule, previous = here.crossover(here.mutate(schedule, rng), previous, rng), schedule
        assert here.feasible(schedule)
        assert schedule.evaluations == 5
        assert (schedule.times[0], schedule.times[-1]) == (1.0, 1e-2)
        assert schedule.steps[-1].corrector == "none"
        lam = [SCHEDULE.half_log_snr(t) for t in schedule.times]
        assert min(b - a for a, b in itertools.pairwise(lam)) >= 0.03
        seen |= {schedule.analytic, len(schedule.steps), *(s.prediction for s in schedule.steps)}
        seen |= {(s.corrector, s.update.order) for s in schedule.steps} | {s.update.scaling for s in schedule.steps}
        seen |= {("first", len(s.update.points[0]), s.update.order) for s in schedule.steps if s.update.points}
    assert {"none", "noise", "data", 5, 6, ("pseudo", 4), ("none", 1), "linear"} <= seen
    assert {("first", 1, 3), ("first", 2, 3), ("first", 1, 4), ("first", 2, 4), ("first", 3, 4)} <= seen


def test_constraints_hold() -> None:
    rng = random.Random(1)
    grid = tuple(time_grid(SCHEDULE, 5, "quadratic", end=1e-2))
    fixed = SearchSpace(
        SCHEDULE, 5, 1e-2, times=grid, corrector=0.0, predictions={"data": 1.0}, orders={1: 0.5, 2: 0.5}
    )
    result = search(cheap, fixed, len(fixed.seeds()) + 30, strategy="evolution")
    drawn = [fixed.draw(rng) for _ in range(20)]
    for schedule in [*drawn, *(s for s, _ in result.population)]:
        assert schedule.times == grid
        assert all(s.corrector == "none" and s.prediction == "data" and s.update.order <= 2 for s in schedule.steps)


def test_seeds_are_known_solvers_on_four_grids() -> None:
    seeds = space().seeds()
    assert len(seeds) == 48
    assert len({schedule.times for schedule in seeds}) == 4
    assert from_solver("unipc-2", time_grid(SCHEDULE, 5, "rho", end=1e-2), prediction="noise") in seeds
    assert SearchSpace(EDM(), 5, 0.01).seeds()


def test_infeasible_schedules() -> None:
    here = space()
    assert not here.feasible(from_solver("ddim", (1.0, 0.5, 1e-2)))
    assert not here.feasible(from_solver("ddim", (1.0, 0.5, 0.4999, 0.3, 0.2, 1e-2)))
    assert here.feasible(from_solver("ddim", (1.0, 0.5, 0.4, 0.3, 0.2, 1e-2)))
    implicit = (Step("data", Update(), "implicit"), *[Step()] * 4)
    assert not here.feasible(SolverSchedule((1.0, 0.5, 0.4, 0.3, 0.2, 1e-2), implicit))


def test_the_predictor_learns_a_ranking() -> None:
    rng = random.Random(2)
    here = space()
    schedules = [here.draw(rng) for _ in range(160)]
    errors = [cheap(s) for s in schedules]
    predictor = Predictor(here, 0)
    predictor.fit(list(zip(schedules[:120], errors[:120], strict=True)))
    with torch.no_grad():
        values = predictor.values(schedules[120:]).tolist()
    agree = [
        (values[i] > values[j]) == (errors[120 + i] > errors[120 + j]) for i, j in itertools.combinations(range(40), 2)
    ]
    assert sum(agree) / len(agree) > 0.8
    # Infinite errors (diverged schedules) do no harm.
    predictor.fit([(schedules[0], math.inf), (schedules[1], math.inf), (schedules[2], 0.1)])
    with torch.no_grad():
        assert bool(predictor.values(schedules).isfinite().all())


def test_every_choice_has_its_place_in_the_code() -> None:
    """No two schedules that differ have the same code."""
    rng = random.Random(3)
    here = SearchSpace(SCHEDULE, 5, 1e-2, analytic={"none": 0.5, "noise": 0.5})
    predictor = Predictor(here, 0)
    codes = [tuple(predictor.encode(here.draw(rng))) for _ in range(200)]
    assert len({len(code) for code in codes}) == 1
    assert len(set(codes)) == 200


@pytest.mark.slow
def test_search_beats_the_known_solvers_and_random_search_on_fresh_noise() -> None:
    trained, fresh = fitness(1), fitness(2)
    known = min(fresh(schedule) for schedule in space().seeds())
    found = {s: search(trained, space(), 150, strategy=s, seed=0) for s in ("random", "evolution", "predictor")}
    assert fresh(found["predictor"].best) < 0.9 * known
    assert fresh(found["evolution"].best) < 0.9 * known
    assert found["predictor"].error <= found["random"].error


def test_refinement_goes_down_and_keeps_the_choices() -> None:
    measured = fitness()
    begin = from_solver("taylor-2m", time_grid(SCHEDULE, 5, "quadratic", end=1e-2), prediction="noise", ending="full")
    spent = measured.evaluations
    best, errors = refine(measured, begin, iterations=12)
    assert measured.evaluations == spent + 12
    # It begins where the schedule is: γ = 0 changes nothing.
    assert errors[0] == pytest.approx(measured(begin), rel=1e-9)
    assert min(errors) < 0.8 * errors[0]
    assert measured(best) == pytest.approx(min(errors), rel=1e-9)
    assert [s.update.order for s in best.steps] == [s.update.order for s in begin.steps]
    assert (best.times[0], best.times[-1]) == (begin.times[0], begin.times[-1])
    assert best.times[1:-1] != begin.times[1:-1]
    still, _ = refine(measured, begin, iterations=3, fixed_times=True)
    assert still.times == pytest.approx(begin.times, rel=1e-12)
    assert any(s.update.gamma != 0 for s in still.steps)
    # UniPC's own factors stay.
    unipc = from_solver("unipc-2", time_grid(SCHEDULE, 5, "quadratic", end=1e-2))
    refined, _ = refine(measured, unipc, iterations=2)
    assert refined.steps == unipc.steps


@pytest.mark.slow
def test_the_shipped_file_is_made_anew_at_small_size(tmp_path: Path) -> None:
    path = tmp_path / "schedules.json"
    made = make_shipped(path, budgets=(5,), batch=8, evaluations=60, iterations=2, seed=1)
    assert json.loads(path.read_text()) == made
    entry = made["digits_gm"]["5"]
    schedule = SolverSchedule.from_record(entry)
    assert schedule.evaluations == 5
    assert entry["provenance"]["refined"]["evaluations"] == 62
    assert entry["provenance"]["refined"]["error"] <= entry["provenance"]["searched"]["error"]
    assert entry["provenance"]["settings"] == {
        "budgets": [5],
        "batch": 8,
        "evaluations": 60,
        "iterations": 2,
        "seed": 1,
    }
    stored = shipped("digits_gm", 5)
    assert stored is not None
    assert set(stored.provenance) == set(entry["provenance"])

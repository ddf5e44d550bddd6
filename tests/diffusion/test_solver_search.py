"""The search for schedules: budgets kept and counted, determinism, constraints, the predictor, gradients, the shipped file."""

import itertools
import json
import math
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from pdebook.diffusion import solver_search
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


class Watched(SearchSpace):
    """A space that tells of its moves."""

    moves: list[tuple[str, tuple[SolverSchedule, ...]]]

    def mutate(self, parent: SolverSchedule, rng: random.Random) -> SolverSchedule:
        self.moves.append(("mutate", (parent,)))
        return super().mutate(parent, rng)

    def crossover(self, one: SolverSchedule, two: SolverSchedule, rng: random.Random) -> SolverSchedule:
        self.moves.append(("crossover", (one, two)))
        return super().crossover(one, two, rng)


def test_children_come_from_the_best() -> None:
    """Each is mutated once, three of ten after a crossover; parents are among the best so far."""
    here = Watched(SCHEDULE, 5, 1e-2)
    object.__setattr__(here, "moves", [])
    begin = here.seeds()
    result = search(cheap, here, len(begin) + 100, strategy="evolution", parents=5)
    assert [name for name, _ in here.moves].count("mutate") == 100
    crossed = [parents for name, parents in here.moves if name == "crossover"]
    assert len(crossed) / 100 == pytest.approx(0.3, abs=0.14)
    done, after = len(begin), False
    for name, parents in here.moves:
        best = sorted(error for _, error in result.population[:done])[4]
        if not after:
            assert all(cheap(parent) <= best for parent in parents)
        after = name == "crossover"
        done += name == "mutate"
    assert any(one != two for one, two in crossed)
    # Mutation makes what is evaluated: nothing is evaluated twice for long.
    assert len({schedule for schedule, _ in result.population}) > 0.8 * len(result.population)


def test_the_predictor_decides_what_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A predictor that knows the errors: all children that are evaluated are better than those that are not."""
    trained: list[list[tuple[SolverSchedule, float]]] = []
    asked: list[list[SolverSchedule]] = []

    class Oracle:
        def __init__(self, space: SearchSpace, seed: int) -> None:
            pass

        def fit(self, evaluated: Any) -> None:
            trained.append(list(evaluated))

        def values(self, schedules: Any) -> torch.Tensor:
            asked.append(list(schedules))
            return torch.tensor([cheap(schedule) for schedule in schedules])

    monkeypatch.setattr(solver_search, "Predictor", Oracle)
    begin = space().seeds()[:8]
    result = search(cheap, space(), 58, start=begin, pool=6)
    assert result.tau == pytest.approx((1.0,) * 4)
    known = 8 + 10
    for stage in range(4):
        # First on four fifths, asked about the rest; then on all, asked about children that are new.
        population = list(result.population[:known])
        held_out, children = asked[2 * stage : 2 * stage + 2]
        assert len(held_out) == known // 5
        assert sorted([*map(id, held_out), *(id(s) for s, _ in trained[2 * stage])]) == sorted(
            id(s) for s, _ in population
        )
        assert trained[2 * stage + 1] == population
        assert 30 < len(children) <= 60
        assert not {schedule for schedule, _ in population} & set(children)
        chosen = [error for _, error in result.population[known : known + 10]]
        assert chosen == sorted(cheap(child) for child in children)[:10]
        known += 10
    assert known == len(result.population) == 58


def test_no_stage_evaluates_what_is_known() -> None:
    """In a space of eight schedules nearly all children are; it is not searched twice."""
    few = SearchSpace(SCHEDULE, 2, 1e-2, times=(1.0, 0.3, 1e-2), orders={1: 1.0})
    population = [schedule for schedule, _ in search(cheap, few, 31, start=few.seeds()[:1], stages=2).population]
    assert len(set(population)) <= 8 < len(population) <= 31
    drawn = 1 + 10
    assert all(schedule not in population[:k] for k, schedule in enumerate(population) if k >= drawn)


def test_an_error_that_is_not_a_number_is_the_worst() -> None:
    count = itertools.count()
    result = search(lambda s: math.nan if next(count) % 3 == 0 else cheap(s), space(), 60, strategy="random")
    assert result.error == min(error for _, error in result.population if error < math.inf) == result.progress[-1]
    assert sum(error == math.inf for _, error in result.population) == 20


@pytest.mark.parametrize("strategy", ["random", "evolution", "predictor"])
def test_small_searches(strategy: str) -> None:
    """One schedule to begin with, fewer evaluations than stages, spaces that are soon exhausted."""
    one = space().seeds()[:1]
    result = search(cheap, space(), 3, strategy=strategy, start=one, parents=1)
    assert len(result.population) == 3
    assert all(math.isnan(value) for value in result.tau)
    single = SearchSpace(SCHEDULE, 1, 1e-2)
    assert len(single.seeds()) == 1
    assert search(lambda s: 1.0, single, 12, strategy=strategy, stages=2).error == 1.0


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
    with pytest.raises(ValueError, match="orders must be probabilities"):
        SearchSpace(SCHEDULE, 5, orders={})
    with pytest.raises(ValueError, match="predictions must be probabilities"):
        SearchSpace(SCHEDULE, 5, predictions={"data": math.nan})
    for end in (2.0, -0.1, 0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=f"end must fall from 1.0 and keep some noise, got {end}"):
            SearchSpace(SCHEDULE, 5, end)
    for times in ((0.1, 0.5, 1.0), (1.0, math.nan, 0.1), (2.0, 0.5, 0.1), (1.0, 0.5, 0.0)):
        with pytest.raises(ValueError, match="times must fall from 1"):
            SearchSpace(SCHEDULE, 2, times=times)
    with pytest.raises(ValueError, match="gap must leave room in λ for 5 evaluations, got 2"):
        SearchSpace(SCHEDULE, 5, gap=2.0)
    with pytest.raises(ValueError, match="gap must leave room"):
        SearchSpace(SCHEDULE, 2, times=(1.0, 0.101, 0.1))
    with pytest.raises(ValueError, match="start must hold a schedule for the strategy 'evolution', got none"):
        search(cheap, space(), 5, strategy="evolution", start=[])
    for name in ("stages", "parents", "pool"):
        with pytest.raises(ValueError, match="stages, parents and pool must be at least 1, got"):
            search(cheap, space(), 60, **{name: 0})
    measured = fitness()
    for name, change in (("x", {"x": measured.x * math.nan}), ("exact", {"exact": measured.exact / 0.0})):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            Fitness(measured.denoiser, **{"x": measured.x, "exact": measured.exact, **change})
    with pytest.raises(ValueError, match="schedule must have an inner time or a γ that can move"):
        refine(measured, from_solver("ddim", (1.0, 1e-2)))
    with pytest.raises(ValueError, match="schedule must have an inner time or a γ"):
        refine(measured, from_solver("ddim", (1.0, 0.5, 1e-2)), fixed_times=True)
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        refine(fitness(), space().seeds()[0], iterations=0)


def test_moves_have_the_probabilities_that_are_said() -> None:
    """Those of the released search, counted over many children of one schedule (4 standard deviations)."""
    grid = tuple(time_grid(SCHEDULE, 5, end=1e-2))
    here = SearchSpace(SCHEDULE, 5, 1e-2, times=grid, corrector=0.8)
    full = ((-2, -3), (-2, -3))
    steps = [
        Step("noise"),
        Step("noise", Update(2, ((-2,),), -1, "linear", 0.5)),
        *[Step("noise", Update(3, full))] * 2,
        Step("noise", Update(3, full, -1, "linear", 0.5)),
    ]
    parent, rng, n = SolverSchedule(grid, tuple(steps)), random.Random(5), 500
    children = [here.mutate(parent, rng) for _ in range(n)]
    third, second = [child.steps[3] for child in children], [child.steps[1] for child in children]
    seen = {
        "prediction": (sum(s.prediction == "data" for s in third), 0.3 * 0.5),
        "corrector": (sum(s.corrector == "pseudo" for s in third), 0.3 * 0.8),
        "order 2": (sum(s.update.order == 2 for s in third), 0.3 * 0.4),
        "order 4": (sum(s.update.order == 4 for s in third), 0.3 * 0.1),
        "one point": (
            sum(s.update == replace(steps[3].update, points=((-2,), (-2, -3))) for s in third),
            0.79 * 0.1 * 0.8,
        ),
        "scaling": (sum(s.update.scaling == "linear" for s in third), 0.2 * (1.0 - 0.3 * 0.2)),
        # Step 1 allows orders 1 and 2 alone, so that it stays of order 2 unless 1 is drawn.
        "gamma": (sum(s.update.gamma == 0.5 for s in second), (1.0 - 0.3 * 0.2) * 0.8),
    }
    for name, (count, probability) in seen.items():
        assert abs(count / n - probability) < 4.0 * (probability * (1.0 - probability) / n) ** 0.5, name
    new = torch.tensor([s.update.gamma for s in third if s.update.scaling == "linear"])
    moved = torch.tensor([s.update.gamma for s in second if s.update.order == 2]) - 0.5
    moved = moved[(moved != 0) & (moved > -0.5)]
    for gammas in (new, moved):
        assert abs(float(gammas.mean())) < 0.02
        assert float(gammas.std()) == pytest.approx(0.06, rel=0.3)

    # Another order begins anew: all points, and no scaling unless one is drawn.
    fresh = [child.steps[4].update for child in children if child.steps[4].update.order in (2, 4)]
    assert sum(update.scaling == "linear" for update in fresh) / len(fresh) == pytest.approx(0.2, abs=0.1)
    assert max(abs(update.gamma) for update in fresh) < 0.3


def test_analytic_starts_come_and_go_with_a_step() -> None:
    """Drawn anew three times of ten, whatever that costs in steps."""
    here, rng, n = SearchSpace(SCHEDULE, 5, 1e-2, analytic={"none": 0.5, "noise": 0.5}), random.Random(9), 200
    plain = from_solver("ddim", time_grid(SCHEDULE, 5, end=1e-2))
    analytic = replace(from_solver("ddim", time_grid(SCHEDULE, 6, end=1e-2)), analytic="noise")
    for parent, other in ((plain, analytic), (analytic, plain)):
        children = [here.mutate(parent, rng) for _ in range(n)]
        changed = [child for child in children if child.analytic == other.analytic]
        assert len(changed) / n == pytest.approx(0.15, abs=0.08)
        assert {len(child.steps) for child in changed} == {len(other.steps)}


def test_any_step_may_be_taken_out_or_put_in() -> None:
    here, rng = SearchSpace(SCHEDULE, 4, 1e-2), random.Random(11)
    gone, places = set(), set()
    for _ in range(100):
        times, genes = [1.0, 0.7, 0.5, 0.2, 1e-2], [here._gene(i, rng) for i in range(4)]
        less_times, less = list(times), list(genes)
        here._resize(less_times, less, True, rng)
        (t,) = set(times) - set(less_times)
        gone.add(t)
        # The step that ends there goes with it.
        assert [id(gene) for gene in less] == [id(g) for g, end in zip(genes, times[1:], strict=True) if end != t]
        here._resize(times, genes, False, rng)
        assert times == sorted(times, reverse=True)
        places.add(times.index(*(set(times) - {1.0, 0.7, 0.5, 0.2, 1e-2})))
        assert len(genes) == 5
    assert (gone, places) == ({0.7, 0.5, 0.2}, {1, 2, 3, 4})


def test_a_space_without_correctors_takes_them_from_what_is_given() -> None:
    here, rng = SearchSpace(SCHEDULE, 5, 1e-2, corrector=0.0), random.Random(10)
    given = from_solver("unipc-2", time_grid(SCHEDULE, 5, end=1e-2))
    assert all(step.corrector == "none" for _ in range(20) for step in here.mutate(given, rng).steps)


def test_times_move_by_what_is_said() -> None:
    """A time stays with probability 1/2, unless its step is taken out: 1/5, of which the new one is taken out again in half."""
    here, rng, n = SearchSpace(SCHEDULE, 2, 1e-2), random.Random(6), 500
    times = [here.mutate(from_solver("ddim", (1.0, 0.5, 1e-2)), rng).times for _ in range(n)]
    moved = torch.tensor([abs(t[1] - 0.5) for t in times if t[1] != 0.5])
    assert 1.0 - len(moved) / n == pytest.approx(0.5 * 0.9, abs=0.05)
    # The median of a normal distribution's size is 0.67 of its deviation; a fifth are new times.
    assert 0.04 < float(moved.median()) < 0.06


def test_random_times_are_uniform_one_by_one_and_lean_together() -> None:
    """Uniform, square root, or one less square root, the same for all times of a schedule."""
    here, rng = SearchSpace(SCHEDULE, 5, 1e-2, gap=1e-6), random.Random(7)
    drawn = [here.draw(rng) for _ in range(300)]
    inner = torch.tensor([schedule.times[1:-1] for schedule in drawn])
    assert float(inner.mean()) == pytest.approx(0.505, abs=0.03)
    # Of independent uniform ones it would be 1/48 = 0.021.
    assert float(inner.mean(1).var()) == pytest.approx(0.0347, abs=0.006)
    orders = [schedule.steps[4].update.order for schedule in drawn]
    for order, probability in here.orders.items():
        assert orders.count(order) / 300 == pytest.approx(probability, abs=0.06)
    assert sum(s.steps[1].corrector == "pseudo" for s in drawn) / 300 == pytest.approx(0.5, abs=0.07)


def test_crossover_takes_each_kind_of_decision_from_a_parent() -> None:
    one = from_solver("taylor-2m", (1.0, 0.6, 0.4, 0.2, 0.1, 1e-2), prediction="noise", ending="full")
    two = from_solver("unipc-3", (1.0, 0.7, 0.5, 0.3, 0.15, 1e-2), prediction="data", ending="full")
    rng, n = random.Random(8), 400
    children = [space().crossover(one, two, rng) for _ in range(n)]

    def parts(schedule: SolverSchedule) -> tuple[Any, ...]:
        middle = schedule.steps[2:-1]
        kinds = tuple(s.prediction == "noise" for s in middle)
        return schedule.times, kinds, tuple(s.update.order == 2 for s in middle), tuple(s.corrector for s in middle)

    found = [parts(child) for child in children]
    assert {times for times, _, _, _ in found} == {one.times, two.times}
    assert sum(times == one.times for times, _, _, _ in found) / n == pytest.approx(0.5, abs=0.1)
    assert {correctors for _, _, _, correctors in found} == {("none",) * 2, ("pseudo",) * 2}
    assert sum(correctors[0] == "none" for _, _, _, correctors in found) / n == pytest.approx(0.5, abs=0.1)
    # Half of them mix step by step, both decisions of a step from one parent: of two steps, half differ.
    mixed = [kinds[0] != kinds[1] for _, kinds, _, _ in found]
    assert sum(mixed) / n == pytest.approx(0.25, abs=0.08)
    assert all(kinds == orders for (_, kinds, orders, _), mix in zip(found, mixed, strict=True) if mix)
    # The others take all predictions from one and all updates from either.
    assert sum(kinds[0] != orders[0] for _, kinds, orders, _ in found) / n == pytest.approx(0.25, abs=0.08)


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
    near = SearchSpace(SCHEDULE, 5, 1e-2, gap=0.0)
    close = (1.0, 0.5, 0.5 - 1e-10, 0.3, 0.2, 1e-2)
    assert near.feasible(from_solver("ddim", close))
    assert not near.feasible(from_solver("taylor-3m", close))
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
    # A pair is pushed apart to the margin 0.1 at least, whatever the weights to begin with, which are the seed's.
    for seed in range(3):
        pair, [low, high] = Predictor(here, seed), sorted(schedules[:2], key=cheap)
        other = Predictor(here, seed + 1)
        with torch.no_grad():
            assert not torch.equal(pair.values([low]), other.values([low]))
        pair.fit([(low, 0.1), (high, 0.2)])
        with torch.no_grad():
            assert float(pair.values([high]) - pair.values([low])) > 0.08
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
    times = tuple(time_grid(SCHEDULE, 5, end=1e-2))
    steps = [Step("data"), Step("data", Update(2, ((-2,),))), *[Step("data", Update(3, ((-2, -3), (-2, -3))))] * 3]

    def changed(i: int, **change: Any) -> SolverSchedule:
        return SolverSchedule(times, tuple(replace(step, **change) if k == i else step for k, step in enumerate(steps)))

    one = (-2, -3)
    variants = [
        SolverSchedule(times, tuple(steps)),
        SolverSchedule((times[0], times[1] - 0.01, *times[2:]), tuple(steps)),
        *(changed(i, prediction="noise") for i in range(5)),
        changed(2, corrector="pseudo"),
        *(changed(1, update=update) for update in (Update(), Update(2, ((-2,),), -1, "bh2"))),
        *(changed(1, update=Update(2, ((-2,),), -1, "linear", gamma)) for gamma in (0.1, 0.2)),
        changed(2, update=Update(3, ((-2,), one))),
        changed(3, update=Update(4, ((-2, -3, -4),) * 3)),
    ]
    assert len({tuple(predictor.encode(variant)) for variant in variants}) == len(variants)


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
    assert any(s.update.gamma != 0 for s in best.steps)
    still, _ = refine(measured, begin, iterations=3, fixed_times=True)
    assert still.times == pytest.approx(begin.times, rel=1e-12)
    assert any(s.update.gamma != 0 for s in still.steps)
    # The best that was seen is kept, though too large a rate leaves it again; an analytic start stays.
    best, errors = refine(measured, replace(begin, analytic="noise"), iterations=8, rate=0.7)
    assert min(errors) < errors[-1]
    assert best.analytic == "noise"
    assert measured(best) == pytest.approx(min(errors), rel=1e-9)
    assert errors[0] == pytest.approx(measured(replace(begin, analytic="noise")), rel=1e-9)
    # UniPC's own factors stay.
    unipc = from_solver("unipc-2", time_grid(SCHEDULE, 5, "quadratic", end=1e-2))
    refined, _ = refine(measured, unipc, iterations=2)
    assert refined.steps == unipc.steps


def test_the_shipped_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends where the new file would take its place leaves the old one."""
    with pytest.raises(FileNotFoundError, match="path must be in a folder that exists"):
        make_shipped(tmp_path / "no" / "schedules.json")
    path = tmp_path / "schedules.json"
    path.write_text("what was there")

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(solver_search.os, "replace", end)
        with pytest.raises(KeyboardInterrupt):
            make_shipped(path, budgets=(), batch=2)
    assert path.read_text() == "what was there"
    assert make_shipped(path, budgets=(), batch=2) == json.loads(path.read_text()) == {"digits_gm": {}}


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

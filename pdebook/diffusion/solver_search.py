"""S³: the search for a solver schedule, guided by a cheap predictor, with evolution and random search to compare with; and gradients.

A candidate's fitness is measured on trajectories whose exact end is known. That is the costly part: it is counted, and has a budget.

Source: Liu, Ning, Yang, Wang: A Unified Sampling Framework for Solver Searching of Diffusion Probabilistic Models, ICLR 2024. Moves
and probabilities are those of the official code (``evo_search.yml`` of ImageNet-256); the predictor is our own.
"""

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import unwrap
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from scipy.stats import kendalltau
from torch import Tensor, nn

from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.sampling import DivergenceError
from pdebook.diffusion.solver_space import SearchSpace
from pdebook.diffusion.testbeds import digits_gm
from pdebook.diffusion.unified_sampling import Analytic, SolverSchedule, usf
from pdebook.rng import fold_in

STRATEGIES = ("random", "evolution", "predictor")


class Fitness:
    """Error of a schedule: geometric mean over samples of the root mean square distance to the exact end; smaller is better.

    The geometric mean, since a root mean square is ruled by the few samples that end in another mode, and a search would fit those.

    Args:
        denoiser: model.
        x: samples at the first time, shape (batch, ...).
        exact: where the flow takes them, same shape.
        mean: mean of the data, for schedules that use it.
    Attributes:
        evaluations: schedules evaluated so far.
    """

    def __init__(self, denoiser: Denoiser, x: Float[Tensor, "batch ..."], exact: Tensor, mean: Any = None) -> None:
        if exact.shape != x.shape:
            raise ValueError(f"exact must have the shape of x, {tuple(x.shape)}, got {tuple(exact.shape)}")
        for name, value in (("x", x), ("exact", exact)):
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite")
        self.denoiser, self.x, self.exact, self.mean = denoiser, x, exact, mean
        self.evaluations = 0

    @torch.no_grad()
    def __call__(self, schedule: SolverSchedule) -> float:
        """Error of a schedule; infinite if it diverges."""
        self.evaluations += 1
        try:
            return float(self.error(schedule.run(self.denoiser, self.x, mean=self.mean)).exp())
        except DivergenceError:
            return math.inf

    def error(self, y: Tensor) -> Tensor:
        """Mean logarithm of the distance; differentiable."""
        return 0.5 * (y - self.exact).flatten(1).square().mean(1).log().mean()


# -------------------- the predictor


class Predictor:
    """A small network that ranks schedules: it is trained so that of two schedules the worse one gets the larger value.

        mean over pairs of relu(margin - sign(y_i - y_j) (p_i - p_j))

    Only the ranking means something.

    Args:
        space: where the schedules come from.
        seed: seed of the initial weights.
        steps: training steps, each on all pairs.
    """

    def __init__(self, space: SearchSpace, seed: int, *, steps: int = 100) -> None:
        self.space, self.steps = space, steps
        width = len(self.encode(space.seeds()[0]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(width, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def encode(self, schedule: SolverSchedule) -> list[float]:
        """Numbers of each step: where it ends in λ and how long it is, one-hot choices, γ; padded where it starts analytically."""
        lam = [float(self.space.schedule.half_log_snr(t)) for t in schedule.times]
        span = lam[-1] - lam[0]
        numbers: list[float] = [float(schedule.analytic == kind) for kind in get_args(Analytic)]
        for i, step in enumerate(schedule.steps):
            update = step.update
            choices = [update.order == k for k in (1, 2, 3, 4)] + [step.prediction == "noise", step.corrector != "none"]
            choices += [update.scaling in ("bh1", "bh2"), bool(update.points) and len(update.points[0]) == 1]
            numbers += [(lam[i + 1] - lam[0]) / span, 3.0 * (lam[i + 1] - lam[i]) / span, 5.0 * update.gamma]
            numbers += [float(choice) for choice in choices]
        longest = self.space.evaluations + (set(self.space.analytic) != {"none"})
        return numbers + [0.0] * (11 * (longest - len(schedule.steps)))

    def values(self, schedules: Sequence[SolverSchedule]) -> Tensor:
        """One number for each schedule: small is promising."""
        if not schedules:
            return torch.empty(0)
        return self.net(torch.tensor([self.encode(s) for s in schedules]))[:, 0]

    def fit(self, evaluated: Sequence[tuple[SolverSchedule, float]]) -> None:
        """Train on schedules and their errors."""
        inputs = torch.tensor([self.encode(schedule) for schedule, _ in evaluated])
        y = torch.tensor([error for _, error in evaluated], dtype=torch.float64)
        sign = (y[:, None] - y[None]).nan_to_num().sign().float()
        optimiser = torch.optim.AdamW(self.net.parameters(), lr=3e-3, weight_decay=1e-2)
        for _ in range(self.steps):
            optimiser.zero_grad()
            p = self.net(inputs)[:, 0]
            loss = torch.relu(0.1 - sign * (p[:, None] - p[None])).mul(sign.abs()).mean()
            loss.backward()
            optimiser.step()


# -------------------- the search


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: the best schedule.
        error: its fitness.
        population: all schedules that were evaluated, with their fitness, in order.
        tau: Kendall's rank correlation of the predictor on the fifth of the population that it had not seen, in each stage; NaN
            if that are less than two.
    """

    best: SolverSchedule
    error: float
    population: tuple[tuple[SolverSchedule, float], ...]
    tau: tuple[float, ...] = ()

    @property
    def progress(self) -> list[float]:
        """Smallest error after each evaluation."""
        errors = [error for _, error in self.population]
        return [min(errors[: i + 1]) for i in range(len(errors))]


def search(
    fitness: Callable[[SolverSchedule], float],
    space: SearchSpace,
    budget: int,
    *,
    strategy: str = "predictor",
    seed: int = 0,
    start: Sequence[SolverSchedule] | None = None,
    stages: int = 4,
    parents: int = 20,
    pool: int = 10,
) -> SearchResult:
    """Find a schedule with at most ``budget`` evaluations of the fitness.

    All strategies begin with the known solvers. "random" goes on with random schedules. "evolution" evaluates children of the best so
    far, one at a time. "predictor" spends a part on random schedules, then goes through stages: fit the predictor on all that was
    evaluated, make ``pool`` times as many children as it can afford, and evaluate those that the predictor ranks best.

    Args:
        fitness: error of a schedule, smaller is better; not a number is as bad as infinite.
        space: what may be chosen.
        budget: number of true evaluations, at least one more than the known solvers.
        strategy: "random", "evolution" or "predictor".
        seed: the result is a function of it.
        start: schedules to begin with; ``space.seeds()`` if left out.
        stages: stages of "predictor".
        parents: number of the best from which children come.
        pool: children for each evaluation in a stage.
    Raises:
        ValueError: an unknown strategy, a budget that the known solvers exhaust, or nothing to begin with.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    begin = space.seeds() if start is None else list(start)
    if budget <= len(begin):
        raise ValueError(f"budget must be more than the {len(begin)} schedules to begin with, got {budget}")
    if not begin and strategy != "random":
        raise ValueError(f"start must hold a schedule for the strategy {strategy!r}, got none")
    if min(stages, parents, pool) < 1:
        raise ValueError(f"stages, parents and pool must be at least 1, got {stages}, {parents} and {pool}")
    rng = random.Random(fold_in(seed, f"search {strategy}"))
    population: list[tuple[SolverSchedule, float]] = []

    def evaluate(schedules: Sequence[SolverSchedule]) -> None:
        for schedule in schedules:
            error = fitness(schedule)
            population.append((schedule, math.inf if math.isnan(error) else error))

    def child(best: Sequence[SolverSchedule]) -> SolverSchedule:
        parent = rng.choice(best)
        if len(best) > 1 and rng.random() < 0.3:
            one, two = rng.sample(best, 2)
            parent = space.crossover(one, two, rng)
        return space.mutate(parent, rng)

    def leaders() -> list[SolverSchedule]:
        return [schedule for schedule, _ in sorted(population, key=lambda pair: pair[1])[:parents]]

    evaluate(begin)
    tau: list[float] = []
    left = budget - len(begin)
    if strategy == "random":
        evaluate([space.draw(rng) for _ in range(left)])
    elif strategy == "evolution":
        for _ in range(left):
            evaluate([child(leaders())])
    else:
        each = left // (stages + 1)
        evaluate([space.draw(rng) for _ in range(left - stages * each)])
        for stage in range(stages):
            tau.append(_held_out(space, population, rng, fold_in(seed, f"held out {stage}")))
            predictor = Predictor(space, fold_in(seed, f"predictor {stage}"))
            predictor.fit(population)
            seen, best = {schedule for schedule, _ in population}, leaders()
            children = [c for c in dict.fromkeys(child(best) for _ in range(pool * each)) if c not in seen]
            with torch.no_grad():
                ranked = predictor.values(children).argsort(stable=True).tolist()
            evaluate([children[i] for i in ranked[:each]])
    schedule, error = min(population, key=lambda pair: pair[1])
    return SearchResult(schedule, error, tuple(population), tuple(tau))


def _held_out(
    space: SearchSpace, population: Sequence[tuple[SolverSchedule, float]], rng: random.Random, seed: int
) -> float:
    """Rank correlation of a predictor on a fifth of the population, after training on the rest."""
    shuffled = rng.sample(list(population), len(population))
    cut = len(shuffled) // 5
    if cut < 2:
        return math.nan
    predictor = Predictor(space, seed)
    predictor.fit(shuffled[cut:])
    with torch.no_grad():
        values = predictor.values([schedule for schedule, _ in shuffled[:cut]]).tolist()
    return float(kendalltau(values, [error for _, error in shuffled[:cut]]).statistic)


# -------------------- continuous choices, by their gradient


def refine(
    fitness: Fitness, schedule: SolverSchedule, *, iterations: int = 50, rate: float = 0.05, fixed_times: bool = False
) -> tuple[SolverSchedule, list[float]]:
    """Move the inner times and every γ along the gradient of the fitness (Adam); the discrete choices stay.

    The steps of λ are span · softmax(u), so the times stay in order; u and γ are what is learned. Steps of order 2 and more without a
    scaling get γ = 0 to begin with, which changes nothing.

    Args:
        fitness: error, counted once an iteration (an iteration runs the model forward and back).
        schedule: where to begin.
        iterations: at least 1.
        rate: learning rate.
        fixed_times: learn only γ.
    Returns:
        The best schedule that was seen, and the error before each iteration.
    Raises:
        ValueError: no iteration, or a schedule without inner times and γ.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    noise_schedule = fitness.denoiser.schedule
    lam = torch.tensor([float(noise_schedule.half_log_snr(t)) for t in schedule.times], dtype=torch.float64)
    free = [step.update.order > 1 and step.update.scaling in ("none", "linear") for step in schedule.steps]
    if not any(free) and (fixed_times or len(free) < 2):
        raise ValueError("schedule must have an inner time or a γ that can move")
    steps = tuple(
        replace(step, update=replace(step.update, scaling="linear")) if moves else step
        for step, moves in zip(schedule.steps, free, strict=True)
    )
    logits = lam.diff().log().requires_grad_(not fixed_times)
    gammas = torch.tensor([step.update.gamma for step in steps], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits, gammas] if not fixed_times else [gammas], lr=rate)
    best, errors = schedule, []
    for _ in range(iterations):
        optimiser.zero_grad()
        levels = lam[0] + (lam[-1] - lam[0]) * logits.softmax(0).cumsum(0)[:-1]
        inner = torch.as_tensor(noise_schedule.time(levels))
        grid: list[Any] = [schedule.times[0], *inner, schedule.times[-1]]
        now = [gamma if moves else gamma.detach() for gamma, moves in zip(gammas, free, strict=True)]
        y = fitness.x
        options = {"steps": steps, "analytic": schedule.analytic, "mean": fitness.mean, "gammas": now}
        for _, y in unwrap(usf)(fitness.denoiser, fitness.x, grid, **options):  # noqa: B007
            pass
        loss = fitness.error(y)
        fitness.evaluations += 1
        errors.append(float(loss.detach().exp()))
        if errors[-1] <= min(errors):
            chosen = tuple(
                replace(step, update=replace(step.update, gamma=float(gamma.detach()))) if moves else step
                for step, gamma, moves in zip(steps, gammas, free, strict=True)
            )
            times = (schedule.times[0], *inner.detach().tolist(), schedule.times[-1])
            best = SolverSchedule(times, chosen, schedule.analytic)
        loss.backward()
        optimiser.step()
    return best, errors


# -------------------- schedules that are shipped

BUDGETS = (5, 6, 8, 10, 12, 15)
"""Evaluations for which schedules are shipped."""


def make_shipped(
    path: Path | str,
    *,
    budgets: Sequence[int] = BUDGETS,
    batch: int = 256,
    evaluations: int = 400,
    iterations: int = 100,
    seed: int = 0,
) -> dict[str, Any]:
    """Make ``unified_sampling.json`` anew: for each budget a search on ``digits_gm``, then a refinement of the times and γ it found.

    Args:
        path: where to write, in a folder that exists; a file there stays as it was until all is made.
        budgets: model evaluations.
        batch: trajectories of the fitness. Their noise has the seed ``fold_in(seed, "schedules")``, which no table is measured on.
        evaluations: true evaluations of each search; the refinement comes on top.
        iterations: of the refinement.
        seed: seed of noise and search.
    Returns:
        What was written: by problem and budget a schedule with its provenance.
    """
    if not Path(path).parent.is_dir():  # known before the hours of work
        raise FileNotFoundError(f"path must be in a folder that exists, got {path}")
    bed = digits_gm()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(batch, seed=fold_in(seed, "schedules"))
    exact = probability_flow(denoiser, x, bed.schedule.t_max, bed.end, tolerance=1e-5).x
    settings = {
        "budgets": list(budgets),
        "batch": batch,
        "evaluations": evaluations,
        "iterations": iterations,
        "seed": seed,
    }
    made = {}
    for budget in budgets:
        fitness = Fitness(denoiser, x, exact)
        found = search(fitness, SearchSpace(bed.schedule, budget, bed.end), evaluations, seed=fold_in(seed, budget))
        best, _ = refine(fitness, found.best, iterations=iterations)
        spent = fitness.evaluations
        provenance = {
            "made_by": "pdebook.diffusion.solver_search.make_shipped",
            "settings": settings,
            "searched": {"error": float(f"{found.error:.6g}"), "evaluations": evaluations},
            "refined": {"error": float(f"{fitness(best):.6g}"), "evaluations": spent},
        }
        made[str(budget)] = json.loads(replace(best, provenance=provenance).to_json())
    lines = ",\n".join(f"{json.dumps(budget)}: {json.dumps(entry)}" for budget, entry in made.items())
    temporary = Path(path).with_suffix(".tmp")
    temporary.write_text(f'{{"{bed.name}": {{\n{lines}\n}}}}\n')
    os.replace(temporary, path)
    return {bed.name: made}

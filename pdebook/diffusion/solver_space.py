"""Where solver schedules are searched for: random schedules, the moves from one to another, and what is allowed.

Source: Liu, Ning, Yang, Wang: A Unified Sampling Framework for Solver Searching of Diffusion Probabilistic Models, ICLR 2024. Moves
and probabilities are those of the official code (``evo_search.yml`` of ImageNet-256).
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

from pdebook.diffusion.sampling import Prediction
from pdebook.diffusion.schedules import NoiseSchedule, time_grid
from pdebook.diffusion.solver_decisions import Analytic, Step, Update
from pdebook.diffusion.unified_sampling import CONDITION, SolverSchedule, from_solver

Item = TypeVar("Item")


@dataclass(frozen=True)
class SearchSpace:
    """What may be chosen, with which probability; and the moves. All schedules cost the same number of evaluations.

    Attributes:
        schedule: noise schedule.
        evaluations: model evaluations of every schedule.
        end: last time.
        predictions: probabilities of the predictions.
        orders: probabilities of the orders; an order is clipped to what the history allows.
        corrector: probability that a step is corrected; 0 for no correctors. The last step is never corrected.
        analytic: probabilities of the ways to start.
        times: None, or fixed times that no move changes.
        gap: smallest distance of two times in λ.
    Raises:
        ValueError: no evaluation, probabilities that don't sum to 1, fixed times of another number, or times, an end or a gap that
            leave no room.
    """

    schedule: NoiseSchedule
    evaluations: int
    end: float = 1e-3
    predictions: Mapping[Prediction, float] = field(default_factory=lambda: {"noise": 0.5, "data": 0.5})
    orders: Mapping[int, float] = field(default_factory=lambda: {1: 0.2, 2: 0.4, 3: 0.3, 4: 0.1})
    corrector: float = 0.5
    analytic: Mapping[Analytic, float] = field(default_factory=lambda: {"none": 1.0})
    times: tuple[float, ...] | None = None
    gap: float = 0.03

    def __post_init__(self) -> None:
        if self.evaluations < 1:
            raise ValueError(f"evaluations must be at least 1, got {self.evaluations}")
        for name in ("predictions", "orders", "analytic"):
            values = getattr(self, name).values()
            if any(value < 0 for value in values) or not abs(sum(values) - 1.0) <= 1e-9:
                raise ValueError(f"{name} must be probabilities that sum to 1, got {dict(getattr(self, name))}")
        if not 0 <= self.corrector <= 1:
            raise ValueError(f"corrector must be a probability, got {self.corrector}")
        if self.times is not None and (len(self.times) != self.evaluations + 1 or set(self.analytic) != {"none"}):
            raise ValueError(
                f"times must be {self.evaluations + 1}, without an analytic start, if they are fixed; got {len(self.times)}"
            )
        grid, name = (self.times, "times") if self.times else ((self.schedule.t_max, self.end), "end")
        falling = self.schedule.t_max >= grid[0] and all(s > t >= self.schedule.t_min for s, t in pairwise(grid))
        if not falling or not math.isfinite(self.schedule.half_log_snr(grid[-1])):
            raise ValueError(
                f"{name} must fall from {self.schedule.t_max} and keep some noise, got {getattr(self, name)}"
            )
        # Without room a search would draw for ever.
        lam = [float(self.schedule.half_log_snr(t)) for t in grid]
        intervals = 1 if self.times else self.evaluations + (set(self.analytic) != {"none"})
        if not min(b - a for a, b in pairwise(lam)) > intervals * self.gap:
            raise ValueError(f"gap must leave room in λ for {self.evaluations} evaluations, got {self.gap}")

    def feasible(self, schedule: SolverSchedule) -> bool:
        """Whether a schedule has the right cost, times that are apart, and differences that are well conditioned."""
        lam = [float(self.schedule.half_log_snr(t)) for t in schedule.times]
        apart = min(b - a for a, b in pairwise(lam)) >= self.gap
        return schedule.evaluations == self.evaluations and apart and schedule.condition(self.schedule) <= CONDITION

    def seeds(self) -> list[SolverSchedule]:
        """Known solvers on known grids: where a search begins."""
        found = []
        names: list[tuple[str, dict[str, Any]]] = [("ddim", {}), ("dpm-solver++2m", {}), ("taylor-3m", {})]
        names += [("taylor-2m", {"prediction": p, "ending": "full"}) for p in ("noise", "data")]
        names += [("taylor-3m", {"prediction": p, "ending": "full"}) for p in ("noise", "data")]
        names += [("dpm-solver++2m", {"ending": "full"}), ("lambda-ab-3", {})]
        names += [(f"unipc-{p}", {"prediction": kind}) for p in (2, 3) for kind in ("noise", "data")][: 12 - len(names)]
        for name, options in names:
            for kind in ("half_log_snr", "time", "quadratic", "rho"):
                grid = self.times or time_grid(self.schedule, self.evaluations, kind, end=self.end)
                try:
                    found.append(from_solver(name, grid, **options))
                except ValueError:  # fewer steps than its order
                    continue
        return [s for s in dict.fromkeys(map(self._allowed, found)) if self.feasible(s)]

    def draw(self, rng: random.Random) -> SolverSchedule:
        """A schedule with random times and random decisions."""
        while True:
            analytic = _draw(self.analytic, rng)
            count = self.evaluations + (analytic != "none")
            bend = rng.choice((lambda u: u, math.sqrt, lambda u: 1.0 - math.sqrt(u)))
            inner = [self._between(bend(rng.random())) for _ in range(count - 1)]
            times = self.times or (self.schedule.t_max, *sorted(inner, reverse=True), self.end)
            genes = [self._gene(i, rng) for i in range(count)]
            child = self._assemble(times, genes, analytic)
            if child is not None:
                return child

    def mutate(self, parent: SolverSchedule, rng: random.Random) -> SolverSchedule:
        """A neighbour: times move by 0.06 in t, γ by 0.06, orders, points, predictions and correctors are drawn anew, each sometimes;
        now and then a step is taken out and another put in, which the released search does in two moves."""
        while True:
            genes, times, analytic = [_genes(step) for step in parent.steps], list(parent.times), parent.analytic
            if len(self.analytic) > 1 and rng.random() < 0.3:
                analytic = _draw(self.analytic, rng)
            change = (analytic != "none") - (parent.analytic != "none")
            swap = self.times is None and len(genes) > 1 and rng.random() < 0.2
            for remove in [False] * (swap + (change > 0)) + [True] * (swap + (change < 0)):
                self._resize(times, genes, remove, rng)
            for i, gene in enumerate(genes):
                if self.times is None and i < len(genes) - 1 and rng.random() < 0.5:
                    times[i + 1] += rng.gauss(0.0, 0.06 * self.schedule.t_max)
                if rng.random() < 0.3:
                    order = min(_draw(self.orders, rng), i + 1)
                    if order != gene.order:
                        gene.order, gene.first, gene.scaling, gene.gamma = order, order - 1, "none", 0.0
                if rng.random() < 0.3:
                    gene.prediction = _draw(self.predictions, rng)
                if gene.order > 1 and rng.random() < 0.2:
                    gene.gamma = rng.gauss(gene.gamma if gene.scaling == "linear" else 0.0, 0.06)
                    gene.scaling = "linear"
                if gene.order > 1 and rng.random() < 0.2:
                    gene.first = min(rng.choice((1, 2)), gene.order - 1)
                if rng.random() < 0.3:
                    gene.corrected = rng.random() < self.corrector
            inner = sorted(times[1:-1], reverse=True)
            child = self._assemble((times[0], *inner, times[-1]), genes, analytic)
            if child is not None:
                return child

    def crossover(self, one: SolverSchedule, two: SolverSchedule, rng: random.Random) -> SolverSchedule:
        """Times, updates, predictions and correctors, each from one of two parents; half of the time updates and predictions mix step
        by step instead."""
        if len(one.steps) != len(two.steps):
            return rng.choice((one, two))
        parents, pick = [[_genes(step) for step in parent.steps] for parent in (one, two)], rng.getrandbits
        from_update, from_prediction, from_corrector, deep = pick(1), pick(1), pick(1), rng.random() < 0.5
        genes = []
        for i in range(len(one.steps)):
            if deep:
                from_update = from_prediction = pick(1)
            update, kind, corrected = parents[from_update][i], parents[from_prediction][i], parents[from_corrector][i]
            genes.append(replace(update, prediction=kind.prediction, corrected=corrected.corrected))
        times, analytic = rng.choice((one, two)).times, rng.choice((one, two)).analytic
        child = self._assemble(
            times, genes, analytic if len(genes) == self.evaluations + (analytic != "none") else one.analytic
        )
        return one if child is None else child

    def _between(self, u: float) -> float:
        return self.end + u * (self.schedule.t_max - self.end)

    def _gene(self, i: int, rng: random.Random) -> "_Gene":
        order = min(_draw(self.orders, rng), i + 1)
        first = min(rng.choice((1, 2)), order - 1)
        return _Gene(_draw(self.predictions, rng), order, first, "none", 0.0, rng.random() < self.corrector)

    def _resize(self, times: list[float], genes: list["_Gene"], remove: bool, rng: random.Random) -> None:
        if remove:
            i = rng.randrange(1, len(genes))
            del times[i], genes[i - 1]
            return
        t = self._between(rng.random())
        i = sum(t < other for other in times)
        times.insert(i, t)
        genes.insert(i - 1, self._gene(i - 1, rng))

    def _assemble(self, times: Sequence[float], genes: Sequence["_Gene"], analytic: Analytic) -> SolverSchedule | None:
        """A schedule of genes, orders clipped to the history; None if it is not feasible."""
        if any(b >= a for a, b in pairwise(times)):
            return None
        last = len(genes) - 1
        steps = tuple(gene.step(i, last, self.corrector > 0) for i, gene in enumerate(genes))
        child = SolverSchedule(tuple(times), steps, analytic)
        return child if self.feasible(child) else None

    def _allowed(self, schedule: SolverSchedule) -> SolverSchedule:
        """A known solver within the constraints of the space."""
        if self.corrector > 0 and len(self.predictions) == 2 and max(self.orders) >= 3:
            return schedule
        steps = []
        for step in schedule.steps:
            kind = step.prediction if step.prediction in self.predictions else next(iter(self.predictions))
            update = (
                step.update if step.update.order in self.orders else _update(max(self.orders), max(self.orders) - 1)
            )
            steps.append(Step(kind, update))
        return SolverSchedule(schedule.times, tuple(steps))


@dataclass
class _Gene:
    """The decisions of a step that the search moves."""

    prediction: Prediction
    order: int
    first: int
    scaling: Any
    gamma: float
    corrected: bool

    def step(self, i: int, last: int, correctors: bool) -> Step:
        order = min(self.order, i + 1)
        update = _update(order, min(self.first, order - 1), self.scaling, self.gamma)
        return Step(self.prediction, update, "pseudo" if self.corrected and correctors and i < last else "none")


def _update(order: int, first: int, scaling: Any = "none", gamma: float = 0.0) -> Update:
    """Full estimates, but for the first derivative, which uses the nearest ``first`` nodes."""
    if order == 1:
        return Update()
    full = tuple(range(-2, -order - 1, -1))
    return Update(
        order, (full[:first], *[full] * (order - 2)), scaling=scaling, gamma=gamma if scaling == "linear" else 0.0
    )


def _genes(step: Step) -> _Gene:
    update = step.update
    first = len(update.points[0]) if update.points else 0
    return _Gene(step.prediction, update.order, first, update.scaling, update.gamma, step.corrector != "none")


def _draw(probabilities: Mapping[Item, float], rng: random.Random) -> Item:
    return rng.choices(list(probabilities), list(probabilities.values()))[0]

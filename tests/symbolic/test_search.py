"""Searches: known laws are found, fronts are fronts, mutations make valid trees; deterministic in the seed; bad input."""

import math

import pytest
import torch

from pdebook.algebra.least_squares import levenberg_marquardt
from pdebook.symbolic import evolution
from pdebook.symbolic.edge import equivalent
from pdebook.symbolic.enumeration import enumerate_expressions, linear_library, monomials
from pdebook.symbolic.evolution import ARITHMETIC, evolve, mutated, random_programs
from pdebook.symbolic.expressions import OPERATORS, Expression, constant, parse_infix
from pdebook.symbolic.front import Candidate, ParetoFront, nmse
from pdebook.symbolic.programs import compiled
from pdebook.symbolic.search import refit, search

F64 = torch.float64
NAMES = ("x", "y")


def refine(residual, parameters, linearise):
    return levenberg_marquardt(residual, parameters, linearise=linearise, max_iterations=3, raise_on_failure=False).x


def keep(residual, parameters, linearise):
    return parameters


def points(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 2, dtype=F64, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.6


def noisy(y: torch.Tensor, level: float = 0.02) -> torch.Tensor:
    noise = torch.randn(y.shape, dtype=F64, generator=torch.Generator().manual_seed(9))
    return y + level * y.std() * noise


# Evolution.


@pytest.mark.parametrize("law", ["y / (1.0 + y)", "-x / (1.0 + x)"])
def test_evolution_recovers_the_laws_of_the_thesis(law):
    truth, x, new = parse_infix(law), points(200, 0), points(500, 1)
    y = noisy(truth(dict(zip(NAMES, x.unbind(1), strict=True))))
    chosen = [evolve(x, y, refine, variables=NAMES, seed=seed, budget=1500).choose() for seed in range(3)]
    best = min(chosen, key=lambda c: c.loss)
    values = dict(zip(NAMES, new.unbind(1), strict=True))
    assert float(nmse(best.expression(values), truth(values))) <= 1e-2
    assert best.size <= 9


def test_without_noise_the_rounded_formula_is_the_law():
    truth, x = parse_infix("y / (1.0 + y)"), points(100, 0)
    y = truth(dict(zip(NAMES, x.unbind(1), strict=True)))
    front = search(x, y, engine="evolution", refine=refine, variables=NAMES, seed=0, budget=2000)
    best = front.choose()
    assert best.loss < 1e-20
    assert equivalent(best.expression.rounded(0.01), truth)


def test_evolution_is_deterministic_and_keeps_its_budget():
    x = points(30, 0)
    y = x[:, 0] * x[:, 1] + 0.3
    counted = []

    def counting(residual, parameters, linearise):
        counted.append(len(parameters))
        return parameters

    options = {"populations": 3, "population_size": 10, "brood": 2, "budget": 151, "migration_every": 4}
    first = evolve(x, y, counting, seed=3, **options)
    # 30 at first, 20 cycles of 6; the hall of fame comes after the budget.
    assert counted[:-1] == [30] + [6] * 20
    assert first.evaluated == 150
    assert evolve(x, y, keep, seed=3, **options) == first
    assert evolve(x, y, keep, seed=4, **options) != first
    assert evolve(x.float(), y.float(), keep, seed=3, **options).choose().size <= 11


def test_losses_are_those_of_the_expressions_and_fall_along_the_front():
    x = points(40, 0)
    y = x[:, 0].sin() + 0.1
    front = evolve(
        x, y, refine, operators=("add", "mul", "sin", "neg"), variables=NAMES, max_size=6, budget=600, seed=0
    )
    for candidate in front:
        value = candidate.expression(dict(zip(NAMES, x.unbind(1), strict=True)))
        assert float(nmse(value, y)) == pytest.approx(candidate.loss, rel=1e-9, abs=1e-25)
        assert candidate.size <= 6
    assert {n.head for c in front for n in c.expression if n.arguments} <= {"add", "mul", "sin", "neg"}
    losses = [c.loss for c in front]
    assert losses == sorted(losses, reverse=True)
    assert front.choose().loss < 1e-20


def test_a_residual_of_the_callers_own_is_what_counts():
    x = points(30, 0)
    target = 2.0 * x[:, 0] + 1.0

    def squared(programs, parameters):
        return programs(x, parameters) - target

    def own(residual, parameters, linearise):
        assert linearise is None
        return parameters

    front = evolve(x, torch.ones(30, dtype=F64), own, residual=squared, variables=NAMES, budget=500, seed=0)
    # It may be refined like the search's own.
    assert evolve(x, x[:, 0], refine, residual=squared, variables=NAMES, budget=400, seed=0).choose().loss < 1e-20
    best = front.candidates[-1]
    value = best.expression(dict(zip(NAMES, x.unbind(1), strict=True)))
    assert float((value - target).square().mean()) == pytest.approx(best.loss)


def test_random_programs_have_uniform_sizes_and_all_tokens():
    like = torch.zeros(1, dtype=F64)
    odd = random_programs(0, 4000, NAMES, ARITHMETIC, 7, 9, like)
    assert odd.code.shape == (4000, 9)
    counts = odd.sizes.bincount(minlength=8)
    assert set(counts.nonzero().flatten().tolist()) == {1, 3, 5, 7}
    # 1000 each, five standard deviations.
    assert bool(((counts[1::2] - 1000).abs() < 5 * math.sqrt(750)).all())
    assert set(odd.code.unique().tolist()) == set(range(2 + 2 + 4))
    unary = random_programs(0, 500, NAMES, ("sin", "neg"), 4, 4, like)
    assert set(unary.sizes.tolist()) == {1, 2, 3, 4}
    both = random_programs(0, 2000, NAMES, ("sin", "add"), 4, 4, like)
    assert set(both.sizes.tolist()) == {1, 2, 3, 4}
    for programs in (odd, unary, both):
        assert all(
            tree.size == size for tree, size in zip(programs.expressions(), programs.sizes.tolist(), strict=True)
        )
    values = odd.constants[odd.is_constant]
    assert abs(float(values.mean())) < 5 / math.sqrt(len(values))
    assert float(values.std()) == pytest.approx(1, abs=0.1)
    leaves = odd.code[odd.sizes == 1, 0]
    assert bool(((leaves.bincount()[1:] - len(leaves) / 3).abs() < 5 * math.sqrt(len(leaves) * 2 / 9)).all())


def change(text: str, *draws: float, mate: str = "x", pool: str = "y", length: int = 9, value: float = 7.0) -> str:
    """The child of a tree; draws: change, place, operator, leaf, side, place in the mate, tree, arity."""
    parent, other, tree = (
        compiled([parse_infix(t)], NAMES, operators=("sin", "add", "mul"), length=length, dtype=F64)
        for t in (text, mate, pool)
    )
    numbers = torch.tensor([[*draws, *[0.0] * (8 - len(draws))]], dtype=F64)
    return str(mutated(parent, other, tree, numbers, torch.tensor([value], dtype=F64)).expressions()[0])


REPLACE, INSERT, DELETE, SUBTREE, CROSSOVER = 0.2, 0.5, 0.7, 0.9, 0.05


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        # Tokens of x + 2 y in prefix order: add x mul 2 y; a place of 0.3 is x, 0.5 is mul, 0.7 is 2, 0.9 is y.
        (change("x + 2*y", REPLACE, 0.0, 0.9), "x * (2.0 * y)"),
        (change("x + 2*y", REPLACE, 0.3, 0, 0.0), "7.0 + 2.0 * y"),
        (change("x + 2*y", REPLACE, 0.3, 0, 0.9), "y + 2.0 * y"),
        (change("x + 2*y", REPLACE, 0.7, 0, 0.0), "x + 7.0 * y"),
        (change("x + sin(y)", REPLACE, 0.6), "x + sin(y)"),
        (change("x + 2*y", INSERT, 0.5, 0, 0, 0, 0, 0, 0.0), "x + sin(2.0 * y)"),
        (change("x + 2*y", INSERT, 0.5, 0.0, 0.5, 0.9, 0, 0, 0.9), "x + (2.0 * y + x)"),
        (change("x + 2*y", INSERT, 0.5, 0.9, 0.5, 0.1, 0, 0, 0.9), "x + x * (2.0 * y)"),
        (change("x + 2*y", INSERT, 0.9, 0.9, 0.0, 0.1, 0, 0, 0.9), "x + 2.0 * (7.0 * y)"),
        (change("x + 2*y", DELETE, 0.0, 0, 0, 0.9), "x"),
        (change("x + 2*y", DELETE, 0.0, 0, 0, 0.1), "2.0 * y"),
        (change("x + 2*y", DELETE, 0.9, 0, 0, 0.1), "x + y"),
        (change("x + 2*y", DELETE, 0.9, 0, 0, 0.9), "x + 2.0"),
        (change("x + sin(y)", DELETE, 0.9, 0, 0, 0.1), "x + y"),
        (change("sin(x) + 2*y", DELETE, 0.0, 0, 0, 0.1), "2.0 * y"),
        (change("sin(x) + 2*y", DELETE, 0.0, 0, 0, 0.9), "sin(x)"),
        (change("x", DELETE, 0.0, 0, 0.9), "y"),
        (change("x + 2*y", SUBTREE, 0.3, pool="sin(3*y)"), "sin(3.0 * y) + 2.0 * y"),
        (change("x + 2*y", SUBTREE, 0.5, pool="3"), "x + 3.0"),
        (change("x + 2*y", CROSSOVER, 0.3, 0, 0, 0, 0.4, mate="x * sin(4*y)"), "sin(4.0 * y) + 2.0 * y"),
        (change("x + 2*y", CROSSOVER, 0.0, 0, 0, 0, 0.3, mate="x * sin(4*y)"), "x"),
        # What would grow beyond the length replaces a token instead.
        (change("x + 2*y", SUBTREE, 0.3, 0, 0.9, pool="sin(3*y)", length=7), "y + 2.0 * y"),
        (change("x + 2*y", SUBTREE, 0.3, 0, 0.9, pool="sin(3*y)", length=8), "sin(3.0 * y) + 2.0 * y"),
        (change("x + 2*y", INSERT, 0.9, 0.9, 0.0, 0.1, 0, 0, 0.9, length=6), "x + 2.0 * 7.0"),
        # The edges between the changes: 0.1, 0.37, 0.64, 0.82.
        (change("x + 2*y", 0.0999, 0.0, mate="y"), "y"),
        (change("x + 2*y", 0.1001, 0.0, 0.9, mate="y"), "x * (2.0 * y)"),
        (change("x + 2*y", 0.3699, 0.0, 0.9), "x * (2.0 * y)"),
        (change("x + 2*y", 0.3701, 0.0), "sin(x + 2.0 * y)"),
        (change("x + 2*y", 0.6399, 0.0), "sin(x + 2.0 * y)"),
        (change("x + 2*y", 0.6401, 0.0, 0, 0, 0.9), "x"),
        (change("x + 2*y", 0.8199, 0.0, 0, 0, 0.9, pool="3"), "x"),
        (change("x + 2*y", 0.8201, 0.0, 0, 0, 0.9, pool="3"), "3.0"),
    ],
)
def test_changes_by_hand(child, expected):
    assert child == expected


def test_children_of_many_random_parents_are_valid():
    like = torch.zeros(1, dtype=F64)
    operators = tuple(OPERATORS)
    parents, mates = (random_programs(s, 3000, NAMES, operators, 9, 11, like) for s in (0, 1))
    pool = random_programs(2, 50, NAMES, operators, 5, 11, like)
    draws = evolution.uniform(3, torch.arange(3000), (8,), dtype=F64)
    children = mutated(parents, mates, pool, draws, draws[:, 0])
    trees = children.expressions()
    assert [tree.size for tree in trees] == children.sizes.tolist()
    again = compiled(trees, NAMES, operators=operators, length=11, dtype=F64)
    assert torch.equal(again.code, children.code)
    assert torch.equal(again.constants, children.constants)


def test_the_hall_of_fame_keeps_the_best_of_each_size():
    like = torch.zeros(1, dtype=F64)
    best = evolution._HallOfFame(5, like)
    programs = compiled([parse_infix(t) for t in ("x", "y", "x + y", "x + 1", "2")], NAMES, length=5, dtype=F64)
    best.admit(programs, torch.tensor([0.5, 0.4, 0.3, 0.2, math.inf], dtype=F64))
    best.admit(programs[torch.tensor([0, 2])], torch.tensor([0.45, 0.1], dtype=F64))
    assert best.loss.tolist() == [math.inf, 0.4, math.inf, 0.1, math.inf, math.inf]
    assert best.code[1].tolist() == programs.code[1].tolist()
    assert best.code[3].tolist() == programs.code[2].tolist()
    assert best.drawn(torch.tensor([[0.0, 0.49], [0.51, 0.999]], dtype=F64)).tolist() == [[1, 1], [3, 3]]


def test_the_famous_return_when_it_is_time(monkeypatch):
    x = points(20, 0)
    drawn, shapes = evolution._HallOfFame.drawn, []
    monkeypatch.setattr(evolution._HallOfFame, "drawn", lambda self, d: shapes.append(d.shape) or drawn(self, d))
    options = {"populations": 3, "population_size": 6, "brood": 2, "variables": NAMES}
    # 20 cycles are 40 births in each population.
    for every, times in ((4, 10), (5, 8), (41, 0)):
        shapes.clear()
        evolve(x, x[:, 0] + 1, keep, budget=18 + 20 * 6, migration_every=every, **options)
        assert shapes == [(3, 2)] * times


@pytest.mark.parametrize(("parsimony", "smallest"), [(1e6, True), (0.0, False)])
def test_parsimony_lets_small_parents_win(monkeypatch, parsimony, smallest):
    x, mothers = points(20, 0), []
    monkeypatch.setattr(
        evolution, "mutated", lambda chosen, mates, pool, draws, values: mothers.append(chosen) or chosen
    )
    options = {"populations": 4, "population_size": 12, "tournament": 200, "brood": 4, "variables": NAMES, "seed": 0}
    evolve(x, x[:, 0] * x[:, 1] + x[:, 0], keep, budget=48 + 16, parsimony=parsimony, **options)
    first = random_programs(evolution.fold_in(0, "first"), 48, NAMES, ARITHMETIC, 7, 11, x)
    # With a tournament so large that it meets everybody, the winner has the smallest score of its population.
    least = first.sizes.view(4, 12).amin(1).repeat_interleave(4)
    assert torch.equal(mothers[0].sizes, least) == smallest


def test_the_oldest_die(monkeypatch):
    x = points(20, 0)
    y = x[:, 0] * x[:, 1]
    seen = []
    monkeypatch.setattr(
        evolution, "mutated", lambda mothers, mates, pool, draws, values: seen.append((mothers, mates)) or mothers
    )
    options = {"populations": 2, "population_size": 4, "tournament": 1, "brood": 2, "variables": NAMES, "seed": 0}
    evolve(x, y, keep, budget=8 + 4 * 3, migration_every=100, **options)
    assert len(seen) == 3
    assert [len(mothers) for mothers, _ in seen] == [4, 4, 4]
    first = {
        str(e) for e in random_programs(evolution.fold_in(0, "first"), 8, NAMES, ARITHMETIC, 7, 11, x).expressions()
    }
    assert {str(e) for pair in seen for programs in pair for e in programs.expressions()} <= first
    # All eight founders are gone after 8 births in each population of 4, even where they were best.
    seen.clear()
    monkeypatch.setattr(
        evolution,
        "mutated",
        lambda mothers, mates, pool, draws, values: (
            seen.append(mothers)
            or compiled([constant(9)] * len(mothers), NAMES, operators=ARITHMETIC, length=11, dtype=F64)
        ),
    )
    evolve(x, y, keep, budget=8 + 4 * 4, migration_every=100, **options)
    assert {str(e) for e in seen[1].expressions()} & first
    assert {str(e) for mothers in seen[2:] for e in mothers.expressions()} == {"9.0"}
    monkeypatch.setattr(
        evolution, "mutated", lambda mothers, mates, pool, draws, values: seen.append((mothers, mates)) or mothers
    )
    # A tournament of many finds the best of a population by loss and size.
    seen.clear()
    evolve(x, y, keep, budget=8 + 4, **{**options, "tournament": 60, "parsimony": 1e9})
    (mothers, mates), smallest = seen[0], 1
    assert set(mothers.sizes.tolist()) == set(mates.sizes.tolist())
    assert min(mothers.sizes.tolist()) == smallest


# Enumeration and library.


def test_enumeration_finds_the_interaction_and_its_constants():
    x = points(80, 0)
    y = noisy(-1.33 * x[:, 0] * x[:, 1], 0.01)
    front = search(x, y, variables=NAMES)
    best = front.choose()
    assert str(best.expression.with_constants([1])) == "1.0 * (x * y)"
    assert best.expression.constants[0] == pytest.approx(-1.33, rel=0.01)
    assert 1000 < front.evaluated < 20_000
    assert search(x, y, variables=NAMES) == front
    assert str(search(x, 3 - 2 * x[:, 0].exp(), variables=NAMES).choose().expression.rounded()) == "3.0 + -2.0 * exp(x)"
    assert str(search(x, x[:, 0] * x[:, 1], variables=NAMES).choose().expression) == "x * y"
    # Values are float64 inside.
    assert search(x.float(), y.float(), variables=NAMES).choose().size == best.size


def test_enumeration_counts_and_deduplicates():
    x = points(50, 2) + 1
    target = torch.ones(50, dtype=F64) + x[:, 0] * 0.1
    # Size 1: x, y. Size 3, add: x+x (= x), x+y, y+x, y+y (= y).
    assert enumerate_expressions(x, target, variables=NAMES, operators=("add",), max_size=3).evaluated == 2 + 4
    # Size 4 is empty; size 5 adds (1, 3) only, for a symmetric operator: 2 of size 1 by the one of size 3 that is new.
    assert enumerate_expressions(x, target, variables=NAMES, operators=("add",), max_size=5).evaluated == 2 + 4 + 2
    # A difference: x-x is constant, x-y, and y-x the same up to its sign; then both orders of arguments.
    assert enumerate_expressions(x, target, variables=NAMES, operators=("sub",), max_size=5).evaluated == 2 + 4 + 4
    assert enumerate_expressions(x, target, variables=NAMES, operators=("sin",), max_size=3).evaluated == 2 + 2 + 2
    assert enumerate_expressions(x, target, variables=NAMES, budget=5).evaluated == 5
    # log of negative numbers and exp(exp(exp)) above 10⁶ are dropped.
    front = enumerate_expressions(-x * 4, target, variables=NAMES, operators=("log", "neg"), max_size=3)
    assert front.evaluated == 2 + 4 + 0
    assert (
        enumerate_expressions(x * 20, target, variables=NAMES, operators=("exp", "neg"), max_size=3).evaluated == 2 + 4
    )


def test_library_finds_sparse_sums():
    x = points(100, 0)
    y = noisy(0.5 * x[:, 0] - x[:, 0] * x[:, 1] + 0.25, 0.01)
    front = search(x, y, engine="library", variables=NAMES)
    sparse = next(c for c in front if c.loss < 1e-3)
    assert str(sparse.expression.with_constants([1, 2, 3])) == "1.0 + 2.0 * x + 3.0 * (x * y)"
    assert sparse.expression.constants == pytest.approx((0.25, 0.5, -1), abs=0.02)
    terms = [parse_infix(t) for t in ("sin(x)", "exp(x)", "cos(x)")]
    exact = linear_library(x, 2 * x[:, 0].sin(), terms=terms, variables=NAMES).choose()
    assert str(exact.expression.rounded()) == "2.0 * sin(x)"
    assert linear_library(x, y, budget=2).evaluated == 2
    # A threshold of 0 keeps all, and is least squares.
    full = linear_library(x, y, variables=NAMES, thresholds=(0.0,))
    assert full.evaluated == 1
    assert full.candidates[-1].size == 27
    # Terms count by their share of the signal, not by their weights.
    scaled = linear_library(x * torch.tensor([1e3, 1.0]), y, variables=NAMES)
    assert [c.size for c in scaled] == [c.size for c in front]
    assert [str(m) for m in monomials("xy")] == ["1.0", "x", "y", "x * x", "x * y", "y * y"]
    assert len(monomials("xyz", 3)) == 20


# Fronts, refit.


def test_front_and_choice():
    x, big = Expression("x"), parse_infix("x + y * 2")
    middle, double = parse_infix("x + y"), parse_infix("x * y")
    found = [(big, 1e-3), (x, 1.0), (middle, 0.2), (double, 0.1), (parse_infix("sin(x)"), math.nan), (constant(2), 1.5)]
    front = ParetoFront.of([Candidate(e, loss) for e, loss in found], 6)
    assert [(str(c.expression), c.loss) for c in front] == [("x", 1.0), ("x * y", 0.1), ("x + y * 2.0", 1e-3)]
    assert len(front) == 3
    assert front.gains == pytest.approx((0, math.log(10) / 2, math.log(100) / 2))
    assert front.choose().expression == big
    assert str(front).splitlines()[2] == "   3  1.000e-01    1.15  x * y"
    exact = ParetoFront.of([Candidate(x, 1.0), Candidate(middle, 0.0), Candidate(big, -0.0)], 3)
    assert exact.choose().expression == middle
    assert ParetoFront.of([Candidate(x, 1.0)], 1).choose().expression == x
    even = ParetoFront.of([Candidate(x, 1.0), Candidate(middle, 1 / 4), Candidate(big, 1 / 16)], 3)
    assert even.gains[1] == even.gains[2]
    assert even.choose().expression == middle
    with pytest.raises(ValueError, match="candidates must hold one with a finite loss"):
        ParetoFront.of([Candidate(x, math.inf)], 1)


def test_refit_of_constants():
    x = torch.linspace(0, 1, 30, dtype=F64)
    tree = parse_infix("2.0 * exp(-1.0 * x)")
    y = 2.3 * torch.exp(-1.7 * x)
    fitted = refit(tree, lambda c: tree({"x": x}, c[:, None]) - y, lambda r, c: levenberg_marquardt(r, c).x)
    assert fitted.constants == pytest.approx((2.3, -1.7))
    plain = Expression("x")
    assert refit(plain, lambda c: c, lambda r, c: c) is plain
    with pytest.raises(ValueError, match=r"residual must let the constants of .* stay finite"):
        refit(tree, lambda c: c, lambda r, c: c * math.nan)


X, Y = points(20, 0), points(20, 1)[:, 0]
BAD = Y.clone()
BAD[3] = math.nan


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: search(X, Y, engine="magic"), "engine must be one of evolution, enumeration, library, got 'magic'"),
        (lambda: search(X, BAD), "y must be finite, but 1 points are not, the first of them 3"),
        (lambda: search(X / 0, Y, engine="library"), "x must be finite, but 20 points are not, the first of them 0"),
        (
            lambda: search(X, Y[:-1]),
            r"x must have shape \(points, variables\) and y \(points,\), got \(20, 2\) and \(19,\)",
        ),
        (lambda: search(X[:0], Y[:0]), "x must have shape"),
        (
            lambda: search(X, Y.float()),
            "x and y must be of one floating-point dtype, got torch.float64 and torch.float32",
        ),
        (lambda: search(X, 0 * Y), "y must not vanish everywhere"),
        (lambda: search(X, Y, variables=("x",)), r"variables must be 2 different names, got \('x',\)"),
        (lambda: search(X, Y, variables=("x", "x")), "variables must be 2 different names"),
        (lambda: search(X, Y, variables=("x", "add")), "operator 'add' takes 2 arguments, got 0"),
        (lambda: search(X, Y, operators=("plus",)), "operators must be among add, sub, .*, got 'plus'"),
        (lambda: search(X, Y, operators=()), "operators must name one at least"),
        (lambda: search(X, Y, budget=0), "budget must be at least 1, got 0"),
        (lambda: search(X, Y, max_size=0), "max_size must be at least 1, got 0"),
        (lambda: search(X, Y, engine="library", budget=0), "budget must be at least 1, got 0"),
        (
            lambda: search(X, Y, engine="library", thresholds=(2.0,)),
            r"thresholds must be shares in \[0, 1\], got \(2.0,\)",
        ),
        (lambda: search(X, Y, engine="library", thresholds=()), "thresholds must be shares"),
        (
            lambda: search(X, Y, engine="library", variables=NAMES, terms=[parse_infix("log(x)")]),
            r"terms must be finite at all points, but log\(x\) is not",
        ),
        (lambda: monomials("xy", 0), "degree must be at least 1, got 0"),
        (lambda: evolve(X, Y, keep, budget=0), "budget must be at least populations \\* population_size = 384, got 0"),
        (lambda: evolve(X, Y, keep, operators=("plus",)), "operators must be among"),
        (lambda: evolve(X, Y, keep, brood=30), "brood must be at most population_size = 24, got 30"),
        (lambda: evolve(X, Y, keep, tournament=0), "tournament must be at least 1, got 0"),
        (lambda: evolve(X, Y, keep, migration_every=0), "migration_every must be at least 1, got 0"),
        (lambda: evolve(X, BAD, keep), "y must be finite"),
        (
            lambda: evolve(X, Y, keep, residual=lambda programs, p: p[:, :1] * math.nan),
            "x must leave some expression finite",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

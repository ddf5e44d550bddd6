"""Symbolic regression by regularised evolution, with all populations as tensors on one device.

Each population is a ring of individuals by age. A child comes from the best of a few drawn at random, by a mutation or a crossover;
the oldest individual dies, however good it is: that is what keeps the search moving. The best of each size ever seen are kept
apart, in the hall of fame, and return into the populations now and then. Constants are refined by whatever optimiser is
handed in.

Source: Real et al. 2019 (regularised evolution); Cranmer 2023 (PySR), from which mutations and migration follow.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pdebook.rng import fold_in, normal, uniform
from pdebook.symbolic.expressions import OPERATORS
from pdebook.symbolic.front import Candidate, ParetoFront, check_operators, checked_data
from pdebook.symbolic.programs import CONSTANT, PADDING, Programs, subtree_sizes

__all__ = ["ARITHMETIC", "Refine", "evolve", "mutated", "random_programs"]

ARITHMETIC = ("add", "sub", "mul", "div")

Residual = Callable[[Programs, Tensor], Tensor]
"""(programs, parameters) to residuals, shape (programs, m), whose mean square is the loss."""
Refine = Callable[[Callable[[Tensor], Tensor], Tensor, Callable[[Tensor], tuple[Tensor, Tensor]] | None], Tensor]
"""(residual, parameters, linearise) to better parameters, shape (programs, slots), for all programs at once.

residual maps parameters to residuals (programs, m), and linearise to residuals and their Jacobians (programs, m, slots). It is None
for a residual of the caller's own, which is differentiable in any mode if what the caller does with the programs' values is.
"""

# Where a uniform draw chooses what: a crossover below 0.1; of the rest, 30 % replace a token, 30 % insert a node, 20 % delete one,
# and 20 % put a random subtree.
_CROSSOVER, _REPLACE, _INSERT, _DELETE = 0.1, 0.37, 0.64, 0.82


def evolve(
    x: Float[Tensor, "points variables"],
    y: Float[Tensor, " samples"],
    refine: Refine,
    *,
    variables: Sequence[str] | None = None,
    operators: Sequence[str] = ARITHMETIC,
    max_size: int = 11,
    budget: int = 2000,
    seed: int = 0,
    populations: int = 16,
    population_size: int = 24,
    tournament: int = 6,
    brood: int = 4,
    parsimony: float = 0.002,
    migration_every: int = 50,
    residual: Residual | None = None,
) -> ParetoFront:
    """Search for y ≈ f(x) by regularised evolution.

    A cycle gives each population ``brood`` children, each from tournaments by loss + parsimony · size, and removes as many of its
    oldest. A child is a crossover (10 %), or else a mutation: replace a token (30 %), insert a node (30 %), delete one (20 %), put
    a random subtree (20 %). One that would grow beyond ``max_size`` replaces a token instead.
    The result is a function of the data and the seed, on one kind of device. Use as refinement, for instance::

        def refine(residual, parameters, linearise):
            return levenberg_marquardt(
                residual, parameters, linearise=linearise, max_iterations=3, raise_on_failure=False
            ).x

    Args:
        x: points.
        y: values at the points; their dtype is that of the constants.
        refine: improves the constants of many programs; the identity, ``lambda residual, parameters, linearise: parameters``,
            leaves them to chance.
        variables: names, x0, x1, ... if left out.
        operators: names of the operators.
        max_size: largest number of nodes.
        budget: expressions to evaluate, the first populations included; refining one counts no further.
        seed: seed.
        populations: number of populations; they run side by side.
        population_size: individuals in each.
        tournament: how many are drawn, with replacement, for each parent.
        brood: children of each population in a cycle.
        parsimony: price of a node.
        migration_every: after how many births in each population the hall of fame replaces two of its members, drawn at random.
        residual: residuals whose mean square is the loss, in place of (f(x) - y) / rms(y).
    Returns:
        The hall of fame, its constants refined once more, as a front.
    Raises:
        ValueError: data that do not fit or aren't finite, unknown operators, counts out of range, or a budget below the
            first populations.
    """
    names = checked_data(x, y, variables)
    check_operators(operators)
    _check_settings(max_size, populations, population_size, tournament, brood, migration_every)
    individuals, children = populations * population_size, populations * brood
    if budget < individuals:
        raise ValueError(f"budget must be at least populations * population_size = {individuals}, got {budget}")
    scale = y.square().mean().sqrt()

    def evaluate(programs: Programs) -> tuple[Programs, Tensor]:
        """Refined programs and their losses."""
        start = programs.parameters
        if residual is None:
            function = lambda p: (programs(x, p) - y) / scale  # noqa: E731

            def linearise(p: Tensor) -> tuple[Tensor, Tensor]:
                values, slopes = programs.linearise(x, p)
                return (values - y) / scale, slopes / scale

            better = refine(function, start, linearise).detach()
        else:
            function = partial(residual, programs)
            better = refine(function, start, None).detach()
        with torch.no_grad():
            error = (programs.values(x, better) - y) / scale if residual is None else function(better)
            loss = error.square().mean(1)
        return programs.with_parameters(better), torch.where(loss.isfinite(), loss, torch.inf)

    best = _HallOfFame(max_size, y)
    first = random_programs(fold_in(seed, "first"), individuals, names, operators, min(max_size, 7), max_size, y)
    first, loss = evaluate(first)
    best.admit(first, loss)
    shape = (populations, population_size)
    code, constants, loss = first.code.view(*shape, -1), first.constants.view(*shape, -1), loss.view(shape)
    birth = torch.arange(population_size, device=x.device).repeat(populations, 1)
    pool = random_programs(fold_in(seed, "pool"), 1024, names, operators, min(max_size, 5), max_size, y)
    row = torch.arange(populations, device=x.device)[:, None]
    numbers = torch.arange(children, device=x.device)
    cycles = (budget - individuals) // children
    for cycle in range(cycles):
        draws = uniform(
            fold_in(seed, "cycle"),
            numbers,
            (_DRAWS + 2 * tournament,),
            index=cycle,
            dtype=torch.float64,
            device=x.device,
        )
        score = loss + parsimony * (code != PADDING).sum(2)
        entrants = (draws[:, _DRAWS:] * population_size).long().view(populations, 2 * brood, tournament)
        places = score.gather(1, entrants.flatten(1)).view_as(entrants).argmin(2, keepdim=True)
        winners = entrants.gather(2, places)[..., 0]
        mothers, mates = (
            replace(first, code=code[row, w].flatten(0, 1), constants=constants[row, w].flatten(0, 1))
            for w in winners.split(brood, 1)
        )
        fresh = normal(fold_in(seed, "constant"), numbers, index=cycle, dtype=y.dtype, device=x.device)
        born, born_loss = evaluate(mutated(mothers, mates, pool, draws[:, :_DRAWS], fresh))
        best.admit(born, born_loss)
        # The oldest die.
        oldest = birth.argsort(dim=1, stable=True)[:, :brood]
        code[row, oldest] = born.code.view(populations, brood, -1)
        constants[row, oldest] = born.constants.view(populations, brood, -1)
        loss[row, oldest] = born_loss.view(populations, brood)
        birth[row, oldest] = population_size + cycle
        if (cycle + 1) * brood // migration_every > cycle * brood // migration_every:
            draws = uniform(
                fold_in(seed, "migration"), row[:, 0], (4,), index=cycle, dtype=torch.float64, device=x.device
            )
            guest = best.drawn(draws[:, :2])
            host = (draws[:, 2:] * population_size).long()
            code[row, host], constants[row, host], loss[row, host] = (
                best.code[guest],
                best.constants[guest],
                best.loss[guest],
            )
    final = replace(first, code=best.code, constants=best.constants)[best.loss.isfinite()]
    if not len(final):
        raise ValueError("x must leave some expression finite: every one that was tried left its domain somewhere")
    final, loss = evaluate(final)
    front = [Candidate(e, value) for e, value in zip(final.expressions(), loss.tolist(), strict=True)]
    return ParetoFront.of(front, individuals + cycles * children)


def _check_settings(
    max_size: int,
    populations: int,
    population_size: int,
    tournament: int,
    brood: int,
    migration_every: int,
) -> None:
    counts = {
        "max_size": max_size,
        "populations": populations,
        "population_size": population_size,
        "tournament": tournament,
        "brood": brood,
        "migration_every": migration_every,
    }
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if brood > population_size:
        raise ValueError(f"brood must be at most population_size = {population_size}, got {brood}")


class _HallOfFame:
    """The best program of each size so far; row s belongs to size s, and row 0 stays empty."""

    def __init__(self, max_size: int, like: Tensor) -> None:
        self.code = torch.zeros(max_size + 1, max_size, dtype=torch.int64, device=like.device)
        self.constants = like.new_zeros(max_size + 1, max_size)
        self.loss = like.new_full((max_size + 1,), torch.inf)

    def admit(self, programs: Programs, loss: Tensor) -> None:
        """Put in those that are better."""
        rows = torch.arange(len(self.loss), device=loss.device)
        least, who = torch.where(programs.sizes[:, None] == rows, loss[:, None], torch.inf).min(0)
        better = least < self.loss
        self.code = torch.where(better[:, None], programs.code[who], self.code)
        self.constants = torch.where(better[:, None], programs.constants[who], self.constants)
        self.loss = torch.where(better, least, self.loss)

    def drawn(self, draws: Float[Tensor, "*some"]) -> Int64[Tensor, "*some"]:
        """Rows that are taken, at random."""
        taken = self.loss.isfinite().cumsum(0)
        return torch.searchsorted(taken, 1 + (draws * taken[-1]).long()).clamp(max=len(self.loss) - 1)


def random_programs(
    seed: int, count: int, variables: Sequence[str], operators: Sequence[str], size: int, length: int, like: Tensor
) -> Programs:
    """Random programs of sizes that are uniform on 1, ..., ``size``, as far as the arities allow.

    Tokens are drawn from the left. A kind of token (leaf, unary, binary) may come if the program can still end at its size, and
    all kinds that may come are equally likely; so are a variable or a constant among leaves. Constants are standard normal.

    Args:
        seed: seed.
        count: how many.
        variables: names.
        operators: names.
        size: largest size.
        length: number of tokens.
        like: a tensor of the dtype and device of the constants.
    """
    device = like.device
    programs = Programs(
        torch.zeros(count, length, dtype=torch.int64, device=device),
        like.new_zeros(count, length),
        tuple(variables),
        tuple(operators),
    )
    samples = torch.arange(count, device=device)
    draws = uniform(seed, samples, (size + 1, 2), dtype=torch.float64, device=device)
    arities = [OPERATORS[name].arity for name in operators]
    # Without unary operators sizes are odd.
    possible = torch.tensor([s for s in range(1, size + 1) if s % 2 or 1 in arities], device=device)
    target = possible[(draws[:, size, 0] * len(possible)).long()]
    kinds = torch.tensor([0, *sorted(set(arities))], device=device)
    code = programs.code
    slots = torch.ones(count, dtype=torch.int64, device=device)
    for t in range(size):
        left = target - t - 1
        after = slots[:, None] - 1 + kinds
        # What is left must fill the open slots: each token at least one, and exactly, if leaves and pairs alone are at hand.
        feasible = (after <= left[:, None]) & ((after > 0) | (left[:, None] == 0))
        if 1 not in arities:
            feasible &= (left[:, None] - after) % 2 == 0
        rank = (draws[:, t, 0] * feasible.sum(1)).long()
        kind = kinds[(feasible.cumsum(1) > rank[:, None]).to(torch.uint8).argmax(1)]
        token = torch.where(kind == 0, _leaf(programs, draws[:, t, 1]), _operator(programs, kind, draws[:, t, 1]))
        code[:, t] = torch.where(left >= 0, token, PADDING)
        slots = slots - 1 + kind
    values = normal(seed, samples, (length,), stream=1, dtype=like.dtype, device=device)
    return replace(programs, constants=torch.where(programs.is_constant, values, 0.0))


def _leaf(programs: Programs, draws: Tensor) -> Tensor:
    """Codes of leaves: a constant or any variable."""
    return CONSTANT + (draws * (programs.first_operator - CONSTANT)).long()


def _operator(programs: Programs, arity: Tensor, draws: Tensor) -> Tensor:
    """Codes of operators of given arities; where there is none, of any."""
    table = programs.arities[programs.first_operator :]
    fits = table == arity[:, None]
    fits = fits | ~fits.any(1, keepdim=True)
    rank = (draws * fits.sum(1)).long()
    return programs.first_operator + (fits.cumsum(1) > rank[:, None]).to(torch.uint8).argmax(1)


_DRAWS = 8


def mutated(
    parents: Programs,
    mates: Programs,
    pool: Programs,
    draws: Float[Tensor, "programs 8"],
    values: Float[Tensor, " programs"],
) -> Programs:
    """A child of each parent, by one change drawn at random.

    Every change is a splice: the subtree at a place i of the parent makes way for a block of tokens with their constants.

    | change | goes | comes |
    |---|---|---|
    | replace | the token at i | another of its arity |
    | insert | the subtree at i | an operator with that subtree and, if it takes two, a leaf |
    | delete | the subtree of an operator at i | one of its arguments |
    | random subtree | the subtree at i | a tree of the pool |
    | crossover | the subtree at i | a subtree of the mate |

    Args:
        parents: programs.
        mates: as many, for crossover.
        pool: trees for random subtrees.
        draws: uniform numbers: change, place, operator, leaf, side, place in the mate, tree of the pool, and one more for the
            arity of what is inserted.
        values: constants for new leaves.
    """
    change, place, which, leaf_draw, side, mate_place, tree, kind_draw = draws.unbind(1)
    code, constants = parents.code, parents.constants
    length, device = code.shape[1], code.device
    arities = parents.arities
    sizes, total = subtree_sizes(code, arities), parents.sizes
    position = torch.arange(length, device=device)

    def at(table: Tensor, index: Tensor) -> Tensor:
        return table.gather(1, index[:, None])[:, 0]

    i = (place * total).long()
    leaf = _leaf(parents, leaf_draw)

    # Replace: the block is one token. This is also what is done instead of a change that would grow too far.
    arity = arities[at(code, i)]
    token = torch.where(arity == 0, leaf, _operator(parents, arity, which))
    block, block_values = token[:, None].expand(-1, length), values[:, None].expand(-1, length)
    start, goes, comes, offset = i, torch.ones_like(i), torch.ones_like(i), torch.zeros_like(i)

    def use(
        chosen: Tensor,
        source: tuple[Tensor, Tensor],
        new_start: Tensor,
        new_goes: Tensor,
        new_offset: Tensor,
        new_comes: Tensor,
    ) -> None:
        nonlocal block, block_values, start, goes, offset, comes
        chosen = chosen & (total - new_goes + new_comes <= length)
        block, block_values = (
            torch.where(chosen[:, None], new, old) for new, old in zip(source, (block, block_values), strict=True)
        )
        start, goes = torch.where(chosen, new_start, start), torch.where(chosen, new_goes, goes)
        offset, comes = torch.where(chosen, new_offset, offset), torch.where(chosen, new_comes, comes)

    def between(low: float, high: float) -> Tensor:
        return (change >= low) & (change < high)

    # Insert.
    kinds = torch.tensor(sorted({OPERATORS[name].arity for name in parents.operators}), device=device)
    kind = kinds[(kind_draw * len(kinds)).long()]
    here = at(sizes, i)
    left = (side < 0.5) & (kind == 2)
    body = 1 + left.long()
    inside = (position >= body[:, None]) & (position < (body + here)[:, None])
    taken = (i[:, None] + position - body[:, None]).clamp(0, length - 1)
    grown = torch.where(inside, code.gather(1, taken), leaf[:, None])
    grown[:, 0] = _operator(parents, kind, which)
    grown_values = torch.where(inside, constants.gather(1, taken), values[:, None])
    use(between(_REPLACE, _INSERT), (grown, grown_values), i, here, torch.zeros_like(i), here + kind)

    # Delete.
    nodes = arities[code] > 0
    rank = (place * nodes.sum(1)).long()
    j = (nodes.cumsum(1) > rank[:, None]).to(torch.uint8).argmax(1)
    second = (side < 0.5) & (arities[at(code, j)] == 2)
    child = (j + 1 + torch.where(second, at(sizes, (j + 1).clamp(max=length - 1)), 0)).clamp(max=length - 1)
    use(between(_INSERT, _DELETE) & nodes.any(1), (code, constants), j, at(sizes, j), child, at(sizes, child))

    # Random subtree.
    number = (tree * len(pool)).long()
    use(
        between(_DELETE, 1.0),
        (pool.code[number], pool.constants[number]),
        i,
        here,
        torch.zeros_like(i),
        pool.sizes[number],
    )

    # Crossover.
    k = (mate_place * mates.sizes).long()
    use(between(0.0, _CROSSOVER), (mates.code, mates.constants), i, here, k, at(subtree_sizes(mates.code, arities), k))

    # The splice.
    shift = position - start[:, None]
    from_block = (shift >= 0) & (shift < comes[:, None])
    in_block = (shift + offset[:, None]).clamp(0, length - 1)
    in_parent = torch.where(shift < 0, position, position + (goes - comes)[:, None])
    ends = in_parent >= length
    in_parent = in_parent.clamp(0, length - 1)
    new_code = torch.where(from_block, block.gather(1, in_block), code.gather(1, in_parent).masked_fill(ends, PADDING))
    new_values = torch.where(from_block, block_values.gather(1, in_block), constants.gather(1, in_parent))
    return replace(parents, code=new_code, constants=torch.where(new_code == CONSTANT, new_values, 0.0))

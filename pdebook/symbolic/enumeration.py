"""Symbolic regression without chance: all small expressions, and sums of given terms."""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.rng import random_bits
from pdebook.symbolic.expressions import OPERATORS, Expression, constant
from pdebook.symbolic.front import Candidate, ParetoFront, check_operators, checked_data, nmse

__all__ = ["enumerate_expressions", "linear_library", "monomials"]

_SYMMETRIC = ("add", "mul")
_LARGEST, _DIGITS = 1e6, 1e7


def enumerate_expressions(
    x: Float[Tensor, "points variables"],
    y: Float[Tensor, " samples"],
    *,
    variables: Sequence[str] | None = None,
    operators: Sequence[str] = ("add", "sub", "mul", "div", "pow2", "exp", "log", "sqrt", "sin", "inv"),
    max_size: int = 5,
    budget: int = 200_000,
) -> ParetoFront:
    """All expressions e of the variables up to a size, each in the forms e, c e and a + c e with the best constants.

    Expressions are built from smaller ones, size by size. Those whose values at the points are not finite, above 10⁶ or all equal
    are dropped, and so are those that equal an earlier one up to a factor, to seven digits: x y and y x, x x and x², but
    also x - y and y - x, or x + x and x, so that a factor inside a function may be missed. It draws nothing; same data, same front.

    Args:
        x: points; values are computed in float64.
        y: values at the points.
        variables: names, x0, x1, ... if left out.
        operators: names of the operators.
        max_size: largest size of e; a constant factor adds two nodes, an offset two more.
        budget: expressions to evaluate; what comes after them is left out.
    Raises:
        ValueError: data that do not fit or aren't finite, unknown operators, counts below 1.
    Source: the brute-force stage of Udrescu and Tegmark 2020 (AI Feynman).
    """
    names = checked_data(x, y, variables)
    check_operators(operators)
    for name, count in (("max_size", max_size), ("budget", budget)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    columns, y = x.double().mT, y.double()
    mean = float(y.mean())
    found = [Candidate(constant(mean), float(nmse(torch.full_like(y, mean), y)))]
    key = random_bits(0, torch.arange(len(y), device=y.device), torch.arange(1, device=y.device))[:, 0, :2]
    # Odd multipliers, so that the sum of the multiplied digits hashes the whole row.
    weights = (key[:, 0] << 32 | key[:, 1]) | 1
    seen = np.empty(0, dtype=np.int64)
    levels: list[tuple[list[Expression], Tensor]] = [([], columns[:0])]
    evaluated = 0
    for size in range(1, max_size + 1):
        # Each block: how to name entry k, and all values.
        trees: list[Expression] = []
        rows = [columns[:0]]
        for head, arguments in _blocks(size, names, operators):
            if not arguments:
                parts, values = [], columns[names.index(head)][None]
            else:
                parts = [levels[s][1] for s in arguments]
                pairs = [parts[0][:, None], parts[1][None]] if len(parts) == 2 else parts
                values = OPERATORS[head].function(*pairs).reshape(-1, len(y))
            values = values[: budget - evaluated]
            evaluated += len(values)
            scale = values.abs().amax(1) if len(values) else values.sum(1)
            usable = values.isfinite().all(1) & (scale <= _LARGEST)
            usable &= (values.amax(1) - values.amin(1) > scale / _DIGITS) if len(values) else usable
            kept = usable.nonzero()[:, 0]
            hashes = _hashes(values[kept], weights)
            new, first = np.unique(hashes, return_index=True)
            fresh = np.sort(first[~np.isin(new, seen)])
            seen = np.concatenate([seen, hashes[fresh]])
            kept = kept[torch.from_numpy(fresh).to(kept.device)]
            rows.append(values[kept])
            for place in kept.tolist():
                where = np.unravel_index(place, tuple(map(len, parts))) if parts else ()
                trees.append(Expression(head, tuple(levels[s][0][i] for s, i in zip(arguments, where, strict=True))))
        values = torch.cat(rows)
        levels.append((trees, values))
        if trees:
            found += _best_forms(trees, values, y)
    return ParetoFront.of(found, evaluated)


def _blocks(size: int, names: Sequence[str], operators: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """Heads of the expressions of a size, with the sizes of their arguments."""
    if size == 1:
        return [(name, ()) for name in names]
    blocks: list[tuple[str, tuple[int, ...]]] = []
    for name in operators:
        if OPERATORS[name].arity == 1:
            blocks.append((name, (size - 1,)))
        else:
            last = (size - 1) // 2 if name in _SYMMETRIC else size - 2
            blocks += [(name, (a, size - 1 - a)) for a in range(1, last + 1)]
    return blocks


def _hashes(values: Tensor, weights: Tensor) -> np.ndarray:
    """A number for each row that is the same for rows that agree up to a factor, to seven digits."""
    peak = values.gather(1, values.abs().argmax(1, keepdim=True)) if len(values) else values[:, :1]
    digits = (values / peak * _DIGITS).round().long()
    return (digits * weights).sum(1).cpu().numpy()


def _best_forms(trees: list[Expression], values: Tensor, y: Tensor) -> list[Candidate]:
    """The best of one size in each of the forms e, c e and a + c e."""
    factor = (values @ y) / values.square().sum(1)
    centred = values - values.mean(1, keepdim=True)
    slope = (centred @ y) / centred.square().sum(1)
    offset = y.mean() - slope * values.mean(1)
    found = []
    for a, c in ((None, None), (None, factor), (offset, slope)):
        fit = values if c is None else c[:, None] * values
        loss, who = nmse(fit if a is None else fit + a[:, None], y).min(0)
        tree = trees[int(who)]
        if c is not None:
            tree = Expression("mul", (constant(float(c[who])), tree))
        if a is not None:
            tree = Expression("add", (constant(float(a[who])), tree))
        found.append(Candidate(tree, float(loss)))
    return found


def monomials(variables: Sequence[str], degree: int = 2) -> list[Expression]:
    """The constant 1 and all products of up to ``degree`` variables.

    Raises:
        ValueError: a degree below 1.
    """
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    terms = [constant(1)]
    for d in range(1, degree + 1):
        for names in combinations_with_replacement(variables, d):
            term = Expression(names[0])
            for name in names[1:]:
                term = Expression("mul", (term, Expression(name)))
            terms.append(term)
    return terms


def linear_library(
    x: Float[Tensor, "points variables"],
    y: Float[Tensor, " samples"],
    *,
    variables: Sequence[str] | None = None,
    terms: Sequence[Expression] | None = None,
    thresholds: Sequence[float] = tuple(10 ** (-k / 4) for k in range(17)),
    budget: int = 1000,
) -> ParetoFront:
    """Sums of few terms, y ≈ Σ ξ_k θ_k(x), by sequentially thresholded least squares.

    For each threshold: least squares on the terms that are left; drop those with |ξ_k| rms(θ_k) < threshold · rms(y); repeat until
    none is dropped. A threshold is so a share of the signal, whatever the units of the terms.

    Args:
        x: points.
        y: values at the points.
        variables: names, x0, x1, ... if left out.
        terms: θ_k; the monomials up to degree 2 if left out.
        thresholds: shares of the signal, from 1 to 10⁻⁴ if left out.
        budget: least squares problems to solve; thresholds that come after them are left out.
    Raises:
        ValueError: data that do not fit or aren't finite, a term that isn't finite at the points, thresholds out of
            range, a budget below 1.
    Source: Brunton, Proctor and Kutz 2016 (SINDy).
    """
    names = checked_data(x, y, variables)
    if budget < 1:
        raise ValueError(f"budget must be at least 1, got {budget}")
    if not thresholds or not all(0 <= t <= 1 for t in thresholds):
        raise ValueError(f"thresholds must be shares in [0, 1], got {tuple(thresholds)}")
    terms = monomials(names) if terms is None else list(terms)
    points = dict(zip(names, x.double().unbind(1), strict=True))
    matrix, y = torch.stack([term(points) for term in terms], 1), y.double()
    for term, finite in zip(terms, matrix.isfinite().all(0).tolist(), strict=True):
        if not finite:
            raise ValueError(f"terms must be finite at all points, but {term} is not")
    mean = float(y.mean())
    found = [Candidate(constant(mean), float(nmse(torch.full_like(y, mean), y)))]
    size, signal, solved = matrix.square().mean(0).sqrt(), y.square().mean().sqrt(), 0
    for threshold in thresholds:
        left = list(range(len(terms)))
        while left and solved < budget:
            weights = torch.linalg.lstsq(matrix[:, left], y[:, None]).solution[:, 0]
            solved += 1
            large = (weights.abs() * size[left] >= threshold * signal).tolist()
            if all(large):
                tree = _sum([terms[k] for k in left], weights.tolist())
                found.append(Candidate(tree, float(nmse(matrix[:, left] @ weights, y))))
                break
            left = [k for k, keep in zip(left, large, strict=True) if keep]
    return ParetoFront.of(found, solved)


def _sum(terms: list[Expression], weights: list[float]) -> Expression:
    parts = [
        constant(w * t.head) if isinstance(t.head, float) else Expression("mul", (constant(w), t))
        for t, w in zip(terms, weights, strict=True)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = Expression("add", (total, part))
    return total

"""Ranks and decompositions of complex tensors: Tucker, CP and tensor train.

Source: De Lathauwer, De Moor and Vandewalle 2000 (HOSVD); Oseledets 2011 (TT-SVD); Kolda and Bader 2009 (CP). Ranks from a
fraction of the parameters are those of tensorly, which the operators' papers use.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Complex
from torch import Tensor

__all__ = [
    "Rank",
    "alternating_least_squares",
    "check_shape",
    "cp_rank",
    "hosvd",
    "khatri_rao",
    "tt_rank",
    "tt_svd",
    "tucker_rank",
]

Rank = float | int | Sequence[int]
"""A float is a fraction of the dense tensor's parameters; an integer the same rank everywhere; or one rank for each place."""


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape as a tuple. Raises ValueError unless it has two positive axes or more."""
    if len(shape) < 2 or not all(isinstance(s, int) and s > 0 for s in shape):
        raise ValueError(f"shape must have two positive axes or more, got {tuple(shape)}")
    return tuple(shape)


def _explicit(rank: Rank, full: Sequence[int]) -> tuple[int, ...] | float:
    """One rank for each place, or a fraction, after a check."""
    if isinstance(rank, float):
        if not 0 < rank <= 1:
            raise ValueError(f"rank as a fraction must be in (0, 1], got {rank}")
        return rank
    ranks = tuple(rank) if isinstance(rank, Sequence) else (rank,) * len(full)
    whole = all(isinstance(r, int) and not isinstance(r, bool) for r in ranks)
    if not whole or len(ranks) != len(full) or not all(1 <= r <= most for r, most in zip(ranks, full, strict=True)):
        raise ValueError(f"rank must be at least 1 and at most the full rank {tuple(full)}, got {rank!r}")
    return ranks


def tucker_rank(shape: Sequence[int], rank: Rank) -> tuple[int, ...]:
    """r_k = max(1, round(c s_k)) with c^N Π s_k + c Σ s_k² = ρ Π s_k: core and factors hold a part ρ of the numbers."""
    shape = check_shape(shape)
    if not isinstance(given := _explicit(rank, shape), float):
        return given
    total, squares = math.prod(shape), sum(s * s for s in shape)
    low, high = 0.0, 1.0
    for _ in range(100):
        c = 0.5 * (low + high)
        low, high = (c, high) if c ** len(shape) * total + c * squares < given * total else (low, c)
    return tuple(max(1, round(high * s)) for s in shape)


def cp_rank(shape: Sequence[int], rank: Rank) -> int:
    """R = round(ρ Π s_k / Σ s_k) for a fraction ρ."""
    shape = check_shape(shape)
    # Enough for any tensor of this shape.
    full = math.prod(shape) // max(shape)
    if not isinstance(given := _explicit(rank, (full,)), float):
        return given[0]
    return max(1, round(given * math.prod(shape) / sum(shape)))


def tt_rank(shape: Sequence[int], rank: Rank) -> tuple[int, ...]:
    """Interior ranks r_k = round(c (s_k + s_{k+1}) / 2) with c such that the cores hold a part ρ of the numbers."""
    shape = check_shape(shape)
    full = [min(math.prod(shape[:k]), math.prod(shape[k:])) for k in range(1, len(shape))]
    if not isinstance(given := _explicit(rank, full), float):
        return given
    means = [0.5 * (a + b) for a, b in pairwise(shape)]
    a = sum(means[k - 1] * shape[k] * means[k] for k in range(1, len(shape) - 1))
    b = shape[0] * means[0] + shape[-1] * means[-1]
    target = given * math.prod(shape)
    c = 2 * target / (b + math.sqrt(b * b + 4 * a * target))
    return tuple(max(1, round(c * mean)) for mean in means)


def khatri_rao(
    factors: Sequence[Complex[Tensor, "_ rank"]], weights: Complex[Tensor, " rank"] | None = None
) -> Complex[Tensor, "places rank"]:
    """Outer products of the columns of the same number, times the column's weight: a row for each place of all axes."""
    rows = factors[0] if weights is None else factors[0] * weights
    for u in factors[1:]:
        rows = (rows[:, None] * u).flatten(0, 1)
    return rows


def _unfold(w: Tensor, axis: int) -> Tensor:
    return w.movedim(axis, 0).flatten(1)


def hosvd(w: Complex[Tensor, "..."], ranks: Sequence[int]) -> tuple[Complex[Tensor, "..."], list[Tensor]]:
    """Core and factors U^(k), the leading left singular vectors of the k-th unfolding; exact if no rank is below the unfolding's."""
    _explicit(tuple(ranks), w.shape)
    factors = []
    for k, r in enumerate(ranks):
        unfolded = _unfold(w, k)
        # More vectors than the unfolding has columns are completed to a unitary matrix.
        factors.append(torch.linalg.svd(unfolded, full_matrices=r > unfolded.shape[1])[0][:, :r])
    core = w
    for u in factors:
        core = torch.tensordot(core, u.conj(), dims=([0], [0]))
    return core, factors


def tt_svd(w: Complex[Tensor, "..."], ranks: Sequence[int]) -> list[Tensor]:
    """Cores (r_{k-1}, s_k, r_k) by one truncated SVD after the other, from the first axis on; surplus ranks are filled with zeros."""
    if len(ranks) != w.ndim - 1 or min(ranks) < 1:
        raise ValueError(f"ranks must be {w.ndim - 1} positive integers, got {tuple(ranks)}")
    shape, rest, left = w.shape, w, 1
    cores = []
    for s, r in zip(shape[:-1], ranks, strict=True):
        u, sigma, v = torch.linalg.svd(rest.reshape(left * s, -1), full_matrices=False)
        core, rest = u.new_zeros(left * s, r), v.new_zeros(r, v.shape[1])
        core[:, : len(sigma)] = u[:, :r]
        rest[: len(sigma)] = (sigma[:, None] * v)[:r]
        cores.append(core.reshape(left, s, r))
        left = r
    return [*cores, rest.reshape(left, shape[-1], 1)]


def alternating_least_squares(
    w: Complex[Tensor, "..."], rank: int, *, sweeps: int = 100
) -> tuple[Complex[Tensor, " rank"], list[Tensor]]:
    """Weights and factors of a CP decomposition, from the leading singular vectors, ``sweeps`` times around the axes.

    There is no finite algorithm: a tensor that has this rank is reached up to what the iteration leaves.
    """
    if rank < 1 or sweeps < 1:
        raise ValueError(f"rank and sweeps must be at least 1, got {rank} and {sweeps}")
    # Terms that vanish stay zero.
    tiny = torch.finfo(w.dtype).tiny
    generator = torch.Generator(w.device).manual_seed(0)
    factors = []
    for k, s in enumerate(w.shape):
        u = torch.linalg.svd(_unfold(w, k), full_matrices=False)[0][:, :rank]
        fill = torch.randn(s, rank - u.shape[1], generator=generator, dtype=w.dtype, device=w.device)
        factors.append(torch.cat([u, fill], 1))
    for _ in range(sweeps):
        for k in range(len(factors)):
            others = khatri_rao([u for j, u in enumerate(factors) if j != k])
            factors[k] = torch.linalg.lstsq(others, _unfold(w, k).mT).solution.mT
            if k < len(factors) - 1:
                factors[k] = factors[k] / torch.linalg.vector_norm(factors[k], dim=0).clamp(min=tiny)
    norms = torch.linalg.vector_norm(factors[-1], dim=0)
    factors[-1] = factors[-1] / norms.clamp(min=tiny)
    return norms.to(w.dtype), factors

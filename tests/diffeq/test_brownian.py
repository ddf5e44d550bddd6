"""Brownian motion: its joint law exactly, one path whatever is asked, statistics, steps that add, and bad input."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdebook.diffeq.brownian import Brownian, BrownianTree, Increment, PrecomputedPath
from pdebook.metrics.distributions import kolmogorov_smirnov

# Rounding of float64 in sums of some tens of terms of order one.
ROUNDING = 1e-14
SPAN = (-0.5, 1.5)


def unit_tree(depth: int, space_time: bool, t0: float = SPAN[0], t1: float = SPAN[1]) -> BrownianTree:
    """A tree whose normals are the unit vectors: what it returns are the weights of the normals, so its law is known exactly."""
    draws, nodes = 1 + space_time, 2 ** (depth + 1)
    tree = BrownianTree(
        0,
        t0,
        t1,
        (draws * nodes,),
        tolerance=(t1 - t0) / 2**depth,
        samples=1,
        space_time=space_time,
        dtype=torch.float64,
    )
    units = torch.eye(draws * nodes, dtype=torch.float64).reshape(nodes, draws, -1).transpose(1, 2)

    def normals(samples: Tensor, index: Tensor) -> Tensor:
        return units[index.expand(torch.broadcast_shapes(index.shape, samples.shape))]

    tree._normals = normals  # type: ignore[method-assign]
    assert tree.depth == depth
    return tree


def area(step: Increment) -> Tensor:
    """The step's area, which must be there."""
    assert step.area is not None
    return step.area


def rows(steps: list[Increment]) -> Tensor:
    """Weights of W, and of H, of each step: one row for each."""
    return torch.cat([part for step in steps for part in (step.w, step.area) if part is not None])


def covariance(pieces: list[tuple[float, float]], space_time: bool) -> Tensor:
    """Exact covariances of W = ∫ dW and H = ∫ (1/2 - (u-s)/h) dW on the pieces, by Simpson's rule, exact for quadratics."""
    kernels: list[tuple[float, float, Callable[[float], float]]] = []
    for s, t in pieces:
        kernels.append((s, t, lambda u: 1.0))
        if space_time:
            kernels.append((s, t, lambda u, s=s, t=t: 0.5 - (u - s) / (t - s)))  # type: ignore[misc]
    result = torch.zeros(len(kernels), len(kernels), dtype=torch.float64)
    for i, (a, b, f) in enumerate(kernels):
        for j, (c, d, g) in enumerate(kernels):
            low, high = max(a, c), min(b, d)
            if low < high:
                values = [f(u) * g(u) for u in (low, 0.5 * (low + high), high)]
                result[i, j] = (high - low) / 6.0 * (values[0] + 4.0 * values[1] + values[2])
    return result


@pytest.mark.parametrize("space_time", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 3, 5])
def test_the_joint_law_is_exact(depth: int, space_time: bool) -> None:
    # At most one time strictly inside a leaf: one of every second leaf, both ends, and some dyadic times.
    length = 2.0 / 2**depth
    inside = [SPAN[0] + (k + (0.17 + 0.61 * k) % 1) * length for k in range(0, 2**depth, 2)]
    times = sorted({*SPAN, *inside, *(SPAN[0] + 2.0 * k / 2 ** min(depth, 2) for k in range(2 ** min(depth, 2)))})
    pieces = [(s, t) for i, s in enumerate(times) for t in times[i + 1 :]][:60]
    tree = unit_tree(depth, space_time)
    weights = rows([tree.increment(s, t) for s, t in pieces])
    # H divides by h, here at least 0.01.
    assert float((weights @ weights.T - covariance(pieces, space_time)).abs().max()) < 100 * ROUNDING


@pytest.mark.parametrize("space_time", [False, True])
def test_marginals_are_exact_at_any_time(space_time: bool) -> None:
    tree = unit_tree(2, space_time)
    for t in torch.linspace(-0.49, 1.5, 41, dtype=torch.float64).tolist():
        weights = rows([tree.increment(SPAN[0], t)])
        assert torch.allclose(weights @ weights.T, covariance([(SPAN[0], t)], space_time), atol=ROUNDING, rtol=0)


def test_two_queries_in_one_leaf_are_as_documented() -> None:
    tree = unit_tree(1, False, 0.0, 2.0)
    p, q = 0.3, 0.55
    step = tree.increment(1.0 + p, 1.0 + q).w.square().sum()
    arcs = math.sqrt(q * (1 - q)) - math.sqrt(p * (1 - p))
    assert float(step) == pytest.approx((q - p) ** 2 + arcs**2, rel=1e-12)
    # Smoother than Brownian motion, whose variance is 0.25; across a leaf's end it is exact.
    assert float(step) < 0.08
    assert float(tree.increment(0.9, 1.2).w.square().sum()) == pytest.approx(0.3, rel=1e-12)


@pytest.mark.parametrize("space_time", [False, True])
def test_paths_are_continuous_and_joined_at_the_end(space_time: bool) -> None:
    tree = BrownianTree(1, 0.0, 1.0, (2,), tolerance=0.1, samples=3, space_time=space_time)
    for t in (0.25, 0.5, 0.75, 0.96875, 1.0):
        gap = tree.increment(t - 1e-12, t).w.abs().max()
        assert float(gap) < 1e-5
    assert float(tree.value(0.0).abs().max()) == 0.0


@pytest.mark.parametrize("space_time", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 2)])
def test_grid_gives_the_increments(space_time: bool, shape: tuple[int, ...], device: torch.device) -> None:
    tree = BrownianTree(
        5, *SPAN, shape, tolerance=0.05, samples=torch.tensor([7, 2, 9]), space_time=space_time, device=device
    )
    for n in (1, 2, 16, 2**tree.depth):
        grid = tree.grid(n)
        assert grid.w.shape == (3, n, *shape)
        assert float(grid.h) == 2.0 / n
        for k in range(0, n, 3):
            step = tree.increment(SPAN[0] + k * 2.0 / n, SPAN[0] + (k + 1) * 2.0 / n)
            assert torch.allclose(step.w, grid.w[:, k], atol=ROUNDING, rtol=0)
            if space_time:
                # J_t - J_s cancels: units of J over h.
                assert torch.allclose(area(step), area(grid)[:, k], atol=4 * n * ROUNDING, rtol=0)
            else:
                assert step.area is grid.area is None


def test_area_is_the_integral_of_the_path() -> None:
    tree = BrownianTree(3, 0.0, 2.0, (2,), tolerance=2.0**-13, samples=4, space_time=True)
    n = 2**14
    steps = tree.grid(n)
    left = steps.w.cumsum(1) - steps.w
    s, t = n // 8, 3 * n // 4
    h = 2.0 * (t - s) / n
    # Left values and the area within each fine step.
    within = float(steps.h) * (0.5 * steps.w + area(steps))
    integral = (float(steps.h) * (left - left[:, s : s + 1]) + within)[:, s:t].sum(1)
    whole = tree.increment(2.0 * s / n, 2.0 * t / n)
    assert torch.allclose(integral, h * (0.5 * whole.w + area(whole)), atol=1e-11, rtol=0)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**63 - 1),
    st.booleans(),
    st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 3.0)), min_size=1, max_size=6),
    st.permutations(range(5)),
    st.integers(0, 30),
    st.sampled_from([(), (1,), (3,), (8,)]),
)
def test_one_path_whatever_was_asked_before_and_in_whatever_batch(
    seed: int, space_time: bool, pairs: list[tuple[float, float]], order: list[int], depth: int, shape: tuple[int, ...]
) -> None:
    def tree(samples: int | Tensor) -> BrownianTree:
        return BrownianTree(seed, 0.0, 3.0, shape, tolerance=3.0 / 2**depth, samples=samples, space_time=space_time)

    def parts(step: Increment) -> list[Tensor]:
        return [step.w] if step.area is None else [step.w, area(step)]

    whole = tree(5)
    shared = [parts(whole.increment(s, t)) for s, t in pairs]
    # In the other order, after other questions, by samples of which each has its own times, and alone.
    again = [parts(whole.increment(s, t)) for s, t in reversed(pairs)][::-1]
    picked = tree(torch.tensor(order))
    for (s, t), first, second in zip(pairs, shared, again, strict=True):
        times = torch.linspace(0.0, 3.0, 5, dtype=torch.float64)
        starts, ends = torch.where(times < 1.5, s, times), torch.where(times < 1.5, t, 0.5 * times)
        mixed = parts(picked.increment(starts, ends))
        alone = parts(tree(torch.tensor([order[0]])).increment(s, t))
        value = tree(torch.tensor([order[0]])).value(t)
        assert torch.equal(value, whole.value(t)[order[0]][None])
        for a, b, c, d in zip(first, second, mixed, alone, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(c[:2], a[order[:2]])
            assert torch.equal(d, a[order[0]][None])


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.floats(0.0, 3.0)] * 3), st.integers(0, 20))
def test_steps_add_and_reverse(times: tuple[float, float, float], depth: int) -> None:
    tree = BrownianTree(11, 0.0, 3.0, (2,), tolerance=3.0 / 2**depth, samples=2, space_time=True)
    s, t, u = times
    first, second, both, back = (tree.increment(*pair) for pair in ((s, t), (t, u), (s, u), (t, s)))
    before, after = t - s, u - t
    assert torch.allclose(first.w + second.w, both.w, atol=ROUNDING, rtol=0)
    sums = before * area(first) + after * area(second) + 0.5 * (after * first.w - before * second.w)
    assert torch.allclose(sums, (u - s) * area(both), atol=10 * ROUNDING, rtol=0)
    assert torch.equal(back.w, -first.w)
    assert torch.equal(area(back), area(first))
    assert float(back.h) == -float(first.h) == s - t


def test_queries_near_the_last_one_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = BrownianTree(2, 0.0, 1.0, (), tolerance=2.0**-20, samples=1)
    made, normals = [], tree._normals
    monkeypatch.setattr(tree, "_normals", lambda samples, nodes: made.append(nodes.numel()) or normals(samples, nodes))
    # Root, twenty midpoints and a leaf; then, of the second time and of the next step, what lies below the common ancestor.
    tree.increment(0.3, 0.3 + 2.0**-19)
    tree.increment(0.3 + 2.0**-19, 0.3 + 2.0**-18)
    assert 22 < made[0] < 30
    assert made[1] < 8


def test_no_step_is_zero() -> None:
    tree = BrownianTree(2, 0.0, 1.0, (2,), tolerance=0.1, samples=2, space_time=True)
    times = torch.tensor([0.3, 0.4], dtype=torch.float64)
    step = tree.increment(times, torch.tensor([0.3, 0.7], dtype=torch.float64))
    assert step.w[0].tolist() == area(step)[0].tolist() == [0.0, 0.0]
    assert float(area(step)[1].abs().min()) > 0


def test_a_finer_tree_refines_the_coarser_one() -> None:
    coarse, fine = (BrownianTree(4, 0.0, 1.0, (3,), tolerance=tol, samples=4, space_time=True) for tol in (0.25, 1e-4))
    for k in range(4):
        a, b = coarse.increment(k / 4, (k + 1) / 4), fine.increment(k / 4, (k + 1) / 4)
        assert torch.allclose(a.w, b.w, atol=ROUNDING, rtol=0)
        assert torch.allclose(area(a), area(b), atol=10 * ROUNDING, rtol=0)
    assert not torch.allclose(coarse.value(0.3), fine.value(0.3), atol=1e-3)


def test_float32_is_float64_rounded() -> None:
    double, single = (
        BrownianTree(6, 0.0, 1.0, (3,), tolerance=1e-3, samples=4, space_time=True, dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    times = torch.tensor([0.1, 0.9, 0.5, 0.123], dtype=torch.float64)
    for a, b in zip(double.increment(0.05, times), single.increment(0.05, times), strict=True):
        assert torch.equal(a.to(b.dtype), b)
    assert single.value(0.4).dtype == single.grid(4).w.dtype == torch.float32
    assert torch.equal(double.value(0.4).float(), single.value(0.4))
    assert single.increment(0.0, 0.5).h.dtype == torch.float64
    # Times of float32 are those numbers, and may pass the end by their own rounding.
    assert torch.equal(double.value(times.float()), double.value(times.float().double()))
    last = torch.tensor(0.1, dtype=torch.float32)
    tree = BrownianTree(6, 0.0, 0.1, (3,), tolerance=1e-3, samples=4)
    assert last.double() > 0.1
    assert torch.equal(tree.value(last), tree.value(0.1))
    assert torch.equal(tree.value(math.nextafter(0.1, 1.0)), tree.value(0.1))


@pytest.mark.parametrize("space_time", [False, True])
def test_law_of_draws_at_nested_levels(space_time: bool) -> None:
    n = 100_000
    tree = BrownianTree(0, 0.0, 1.0, (2,), tolerance=1 / 64, samples=n // 2, space_time=space_time)
    times = [0.0, 0.5, 0.6875, 0.71]
    for s, t in pairwise(times):
        step = tree.increment(s, t)
        h = t - s
        for part, variance in ((step.w, h), (step.area, h / 12)):
            if part is not None:
                z = part.flatten() / math.sqrt(variance)
                assert float(z.square().mean()) == pytest.approx(1.0, abs=0.05)
                distance = kolmogorov_smirnov(z, lambda x: 0.5 * torch.erfc(-x / math.sqrt(2.0)))
                assert math.sqrt(n) * float(distance) <= 2.2
        if step.area is not None:
            assert correlation(step.w, area(step)) <= 4.5 / math.sqrt(n)
        # The two numbers of a sample share a block; neighbours are other blocks.
        assert correlation(step.w[:, 0], step.w[:, 1]) <= 4.5 / math.sqrt(n / 2)
        assert correlation(step.w[1:], step.w[:-1]) <= 4.5 / math.sqrt(n)
    # Overlap [0.4, 0.6875]: 0.2875 of lengths 0.6875 and 0.6.
    first, second = tree.increment(0.0, 0.6875).w, tree.increment(0.4, 1.0).w
    assert float((first * second).mean()) == pytest.approx(0.2875, abs=4.5 / math.sqrt(n))


def correlation(a: Tensor, b: Tensor) -> float:
    return abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]))


def test_seeds_samples_and_kinds_are_independent() -> None:
    n = 20_000

    def draws(seed: int, start: int, space_time: bool) -> Tensor:
        samples = torch.arange(start, start + n)
        return BrownianTree(seed, 0.0, 1.0, (), tolerance=1 / 4, samples=samples, space_time=space_time).value(0.3)

    base = draws(1, 0, False)
    for other in (draws(2, 0, False), draws(1, n, False), draws(1, 0, True)):
        assert correlation(base, other) <= 4.5 / math.sqrt(n)
    assert torch.equal(draws(1, n // 2, False)[: n // 2], base[n // 2 :])


@pytest.mark.parametrize("space_time", [False, True])
def test_numbers_of_a_sample_are_independent(space_time: bool) -> None:
    n = 2000
    grid = BrownianTree(3, 0.0, 8.0, (6,), tolerance=1.0, samples=n, space_time=space_time).grid(8)
    parts = [grid.w] if grid.area is None else [grid.w, grid.area * math.sqrt(12.0)]
    numbers = torch.cat([part.flatten(1) for part in parts], 1)
    covariance = numbers.T @ numbers / n
    # The largest of at most 4656 deviations of size 1/sqrt(n), or sqrt(2/n) on the diagonal.
    assert float((covariance - torch.eye(len(covariance))).abs().max()) <= 6.5 / math.sqrt(n)


def test_rejected_steps_do_not_bias_the_tree() -> None:
    """Halving steps whose noise is large leaves W_1 with variance one; redrawing the noise does not (it gives about 0.35)."""
    n = 4000

    def variance(increment: Callable[[Tensor, Tensor], Tensor]) -> float:
        t, h = torch.zeros(n, dtype=torch.float64), torch.full((n,), 0.25, dtype=torch.float64)
        w = torch.zeros(n, dtype=torch.float64)
        while bool((t < 1).any()):
            end = torch.minimum(t + h, torch.ones(()))
            step = increment(t, end)
            accept = (step.abs() <= 0.5) | (h <= 2.0**-10)
            w, t = torch.where(accept, w + step, w), torch.where(accept, end, t)
            h = torch.where(accept, (2.0 * h).clamp(max=0.25), 0.5 * h)
        return float(w.square().mean())

    tree = BrownianTree(8, 0.0, 1.0, (), tolerance=2.0**-11, samples=n)
    generator = torch.Generator().manual_seed(0)
    fresh = variance(lambda s, t: (t - s).sqrt() * torch.randn(n, generator=generator, dtype=torch.float64))
    assert variance(lambda s, t: tree.increment(s, t).w) == pytest.approx(1.0, abs=4.5 * math.sqrt(2 / n))
    assert fresh < 0.5


def test_precomputed_path_is_linear_between_its_values() -> None:
    tree = BrownianTree(9, 0.0, 1.0, (2,), tolerance=2.0**-9, samples=3, space_time=True)
    grid = tree.grid(256)
    values = torch.cat([torch.zeros(3, 1, 2, dtype=torch.float64), grid.w.cumsum(1)], 1)
    path = PrecomputedPath(torch.linspace(0, 1, 257, dtype=torch.float64), 5.0 + values, space_time=True)
    assert isinstance(path, Brownian)
    assert isinstance(tree, Brownian)
    assert (path.t0, path.t1, path.batch, path.shape) == (0.0, 1.0, 3, (2,))
    coarse, ours = path.increment(0.25, 0.75), tree.increment(0.25, 0.75)
    assert torch.allclose(coarse.w, ours.w, atol=ROUNDING, rtol=0)
    # What the polygon lacks has a variance of h/(12 n²), n = 128 pieces.
    assert 0 < float((area(coarse) - area(ours)).abs().max()) < 4.5 * math.sqrt(0.5 / 12) / 128
    times = torch.tensor([0.1, 0.7, 1.0], dtype=torch.float64)
    k = (times * 256).floor().long().clamp(max=255)
    share = (times * 256 - k)[:, None]
    rows = torch.arange(3)
    expected = (1 - share) * values[rows, k] + share * values[rows, k + 1]
    assert torch.allclose(path.value(times), expected, atol=ROUNDING, rtol=0)
    # The area of the polygon, by Chen's relation from the values alone.
    a, b = path.increment(times, 0.55), path.increment(0.55, 0.3)
    both = path.increment(times, 0.3)
    before, after = (0.55 - times)[:, None], 0.3 - 0.55
    assert torch.allclose(
        before * area(a) + after * area(b) + 0.5 * (after * a.w - before * b.w),
        (before + after) * area(both),
        atol=ROUNDING,
        rtol=0,
    )
    # Within one piece the path is straight.
    assert float(area(path.increment(0.2505, 0.2530)).abs().max()) < 1e-11
    assert PrecomputedPath(torch.linspace(0, 1, 257), values).increment(0.1, 0.2).area is None


def test_gradients_reach_precomputed_values() -> None:
    values = torch.randn(2, 4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)

    def both(x: Tensor) -> tuple[Tensor, ...]:
        step = PrecomputedPath(times, x, space_time=True).increment(0.1, 0.8)
        return step.w, area(step)

    assert torch.autograd.gradcheck(both, values)
    # A step of no length too.
    (gradient,) = torch.autograd.grad(
        area(PrecomputedPath(times, values, space_time=True).increment(0.2, 0.2)).sum(), values
    )
    assert float(gradient.abs().max()) == 0.0


def test_cpu_and_device_agree(device: torch.device) -> None:
    results = []
    for place in ("cpu", device):
        tree = BrownianTree(3, 0.0, 1.0, (3,), tolerance=1e-4, samples=5, space_time=True, device=place)
        step = tree.increment(torch.linspace(0, 0.9, 5, dtype=torch.float64), 0.95)
        results.append(torch.stack([step.w, area(step)]).cpu())
    assert torch.allclose(*results, atol=1e-12, rtol=0)
    if device.type == "cuda":
        # There a look would wait for the device.
        outside = tree.value(torch.tensor([0.0, 0.5, 1.1, 1.0, -1.0], dtype=torch.float64))
        assert outside.isnan().all(1).tolist() == [False, False, True, False, True]


TREE: dict[str, Any] = {"seed": 0, "t0": 0.0, "t1": 1.0, "shape": (2,), "tolerance": 0.1, "samples": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"t1": 0.0}, "t0 and t1 must be finite with t0 < t1, got 0.0 and 0.0"),
        ({"t0": math.nan}, "t0 and t1 must be finite"),
        ({"t1": math.inf}, "t0 and t1 must be finite"),
        ({"tolerance": 0.0}, r"tolerance must be at least \(t1 - t0\)/2\^40 = .*, got 0.0"),
        ({"tolerance": math.nan}, "tolerance must be at least"),
        ({"tolerance": math.inf}, "tolerance must be at least"),
        ({"tolerance": 1e-13}, "tolerance must be at least"),
        ({"dtype": torch.int64}, "dtype must be a floating type, got torch.int64"),
        ({"shape": (2, 0)}, r"shape must be positive and hold at most 2\^22 numbers, got \(2, 0\)"),
        ({"shape": (2**23 + 1,)}, "shape must be positive and hold at most"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"samples": torch.zeros(2)}, r"samples must be integers of shape \(batch,\), got torch.float32"),
        ({"samples": torch.tensor([1, -1])}, "samples must not be negative, got -1"),
        ({"seed": -1}, r"seed must be an integer in \[0, 2\^63\), got -1"),
    ],
)
def test_bad_trees(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BrownianTree(**{**TREE, **change})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda b: b.value(1.01), r"t must lie in \[0.0, 1.0\], got 1.01"),
        (lambda b: b.value(math.nan), "t must lie in .*, got nan"),
        (lambda b: b.increment(-0.5, 0.5), r"s must lie in \[0.0, 1.0\], got -0.5"),
        (lambda b: b.increment(0.5, 2.0), "t must lie in .*, got 2.0"),
        (lambda b: b.increment(torch.tensor([0.1, 0.2, 1.5]), 0.5), "s must lie in .*, got 1.5"),
        (lambda b: b.increment(torch.tensor([0.1, -0.2, 0.5]), 0.5), "s must lie in .*, got -0.2"),
        (lambda b: b.value(torch.tensor([0.1, math.nan, 0.5])), "t must lie in .*, got nan"),
        (
            lambda b: b.value(torch.tensor([0.1, 0.2])),
            r"t must be a float or floats of shape \(\) or \(3,\), got .*\(2,\)",
        ),
        (lambda b: b.value(torch.tensor([0, 1, 0])), "t must be a float or floats .* got torch.int64"),
    ],
)
@pytest.mark.parametrize("kind", ["tree", "precomputed"])
def test_bad_queries(kind: str, call: Callable[[Brownian], Any], words: str) -> None:
    tree = BrownianTree(**TREE)
    with pytest.raises(ValueError, match=words):
        call(tree if kind == "tree" else PrecomputedPath(torch.tensor([0.0, 1.0]), torch.zeros(3, 2, 2)))


@pytest.mark.parametrize("n", [0, 3, 32])
def test_bad_grids(n: int) -> None:
    with pytest.raises(ValueError, match=rf"n must be a power of two, at most 2\^depth = 16, got {n}"):
        BrownianTree(**TREE).grid(n)


@pytest.mark.parametrize(
    ("times", "values", "words"),
    [
        (torch.tensor([0.0, 0.0, 1.0]), torch.zeros(2, 3, 1), "times must be a vector of at least two strictly rising"),
        (torch.tensor([0.0]), torch.zeros(2, 1, 1), "times must be a vector of at least two strictly rising floats"),
        (torch.tensor([0, 1]), torch.zeros(2, 2, 1), "times must be .* floats, got torch.int64"),
        (torch.tensor([[0.0, 1.0]]), torch.zeros(2, 2, 1), "times must be a vector"),
        (
            torch.tensor([0.0, 1.0]),
            torch.zeros(2, 3, 1),
            r"values must be floats of shape \(batch, 2, \.\.\.\), got .*\(2, 3, 1\)",
        ),
        (torch.tensor([0.0, 1.0]), torch.zeros(2), "values must be floats of shape"),
        (torch.tensor([0.0, 1.0]), torch.zeros(2, 2, dtype=torch.int64), "values must be floats .* got torch.int64"),
    ],
)
def test_bad_precomputed_paths(times: Tensor, values: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PrecomputedPath(times, values)

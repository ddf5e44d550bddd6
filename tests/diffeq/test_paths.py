"""Controls: interpolation, smoothness, causality, gaps, ragged series, gradients, and bad input."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline, CubicSpline
from torch import Tensor

from pdebook.diffeq.paths import (
    CubicPath,
    HermitePath,
    LinearPath,
    PiecewisePath,
    RectilinearPath,
    drop_observations,
    fill_forward,
    fill_linear,
    observation_counts,
    with_time,
)

NAN = math.nan
# A few sums and products of numbers of order one.
ROUNDING = 1e-12
PATHS = (LinearPath, RectilinearPath, HermitePath, CubicPath)


def series(batch: int, length: int, channels: int, seed: int = 0, shared: bool = True) -> tuple[Tensor, Tensor]:
    """Irregular times and observations."""
    generator = torch.Generator().manual_seed(seed)
    steps = 0.1 + torch.rand(1 if shared else batch, length, generator=generator, dtype=torch.float64)
    data = torch.randn(batch, length, channels, generator=generator, dtype=torch.float64)
    times = steps.cumsum(1) - 0.5
    return times[0] if shared else times, data


def with_gaps(data: Tensor, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.where(torch.rand(data.shape, generator=generator) < 0.4, NAN, data)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", PATHS)
def test_paths_interpolate(kind: type[PiecewisePath], shared: bool, device: torch.device) -> None:
    times, data = (x.to(device) for x in series(3, 7, 2, shared=shared))
    path = kind(times, data)
    assert torch.allclose(path(times.expand(3, -1)), data, atol=ROUNDING, rtol=0)
    assert (path.batch, path.channels) == (3, 2)
    assert torch.equal(path.t0, times.reshape(-1, 7)[:, 0])
    assert torch.equal(path.t1, times.reshape(-1, 7)[:, -1])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", PATHS)
def test_shapes_of_times(kind: type[PiecewisePath], shared: bool) -> None:
    times, data = series(3, 7, 2, shared=shared)
    path = kind(times, data)
    each = path.t0 + (path.t1 - path.t0) * torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    common = torch.stack([path.t0.max(), path.t1.min()])
    several = torch.stack([each, common[0].expand(3)], 1)
    for call in (path, path.derivative, lambda t: path.increment(path.t0.max(), t)):
        first, last = call(common[0]), call(common[1])
        assert call(each).shape == first.shape == (3, 2)
        assert torch.equal(call(several), torch.stack([call(each), first], 1))
        assert torch.equal(call(common[None]), torch.stack([first, last], 1))
        assert torch.equal(call(common[1].item()), last)
        assert torch.equal(call(common[1].expand(3)), last)
    assert torch.equal(path.increment(several, each), -path.increment(each, several))
    assert torch.equal(path.increment(several, common[None]), path(common[None]) - path(several))
    # One sample's path is its own.
    for i in range(3):
        alone = kind(times if shared else times[i : i + 1], data[i : i + 1])
        assert torch.equal(alone(each[i : i + 1]), path(each)[i : i + 1])


@pytest.mark.parametrize("kind", PATHS)
def test_derivative_is_that_of_the_value(kind: type[PiecewisePath]) -> None:
    times, data = series(2, 6, 2)
    path = kind(times, data)
    t = torch.linspace(float(times[0]) + 0.013, float(times[-1]) - 0.017, 23, dtype=torch.float64)[None]
    t = t.expand(2, -1).clone().requires_grad_()
    rows = [torch.autograd.grad(path(t)[..., k].sum(), t)[0] for k in range(2)]
    assert torch.allclose(torch.stack(rows, 2), path.derivative(t), atol=ROUNDING, rtol=0)
    # At the knots too, where it is the left one, and at both ends of the span, where times are clamped.
    ends = times[None].expand(2, -1).clone().requires_grad_()
    slopes = torch.stack([torch.autograd.grad(path(ends)[..., k].sum(), ends)[0] for k in range(2)], 2)
    assert torch.allclose(slopes, path.derivative(ends), atol=ROUNDING, rtol=0)


def test_sides_of_a_knot() -> None:
    times = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    path = LinearPath(times, torch.tensor([[[0.0], [2.0], [8.0]]], dtype=torch.float64))
    assert [path.derivative(t).item() for t in (0.0, 1.0, 3.0)] == [2.0, 2.0, 3.0]
    assert [path.derivative(t, "right").item() for t in (0.0, 1.0, 3.0)] == [2.0, 3.0, 3.0]
    assert path.increment(0.5, 2.0).item() == 4.0


@pytest.mark.parametrize(("kind", "smooth"), [(HermitePath, 1), (CubicPath, 2)])
def test_smooth_at_the_knots(kind: type[PiecewisePath], smooth: int) -> None:
    times, data = series(2, 9, 3)
    path = kind(times, data)
    c, h = path.coefficients, times.diff()[:-1, None]
    _, first, second, third = c[:, :-1].unbind(2)
    ends = [first + h * (2 * second + 3 * h * third), second + 3 * h * third]
    for k in range(2):
        gap = float((ends[k] - c[:, 1:, k + 1]).abs().max())
        # Slopes and curvatures here reach hundreds.
        assert gap < 1e-11 if k < smooth else gap > 0.1
    if smooth == 2:
        last = times[-1] - times[-2]
        assert float(c[:, 0, 2].abs().max()) == 0.0
        assert float((c[:, -1, 2] + 3 * last * c[:, -1, 3]).abs().max()) < 1e-11


@pytest.mark.parametrize("shared", [True, False])
def test_natural_spline_and_hermite_are_scipys(shared: bool) -> None:
    times, data = series(3, 8, 2, shared=shared)
    natural, hermite = CubicPath(times, data), HermitePath(times, data)
    for i in range(3):
        t, x = (times if shared else times[i]).numpy(), data[i].numpy()
        slopes = np.diff(x, axis=0) / np.diff(t)[:, None]
        query = np.linspace(t[0], t[-1], 50)
        for path, reference in (
            (natural, CubicSpline(t, x, bc_type="natural")),
            (hermite, CubicHermiteSpline(t, x, np.concatenate([slopes[:1], slopes]))),
        ):
            one = torch.from_numpy(np.broadcast_to(query, (3, 50)).copy())
            alone = type(path)(torch.from_numpy(t), torch.from_numpy(x)[None])
            assert torch.allclose(alone(one[:1])[0], torch.from_numpy(reference(query)), atol=1e-11, rtol=0)
            assert torch.equal(alone.coefficients[0], path.coefficients[i])


def test_two_observations_are_a_line() -> None:
    times, data = series(2, 2, 3)
    for kind in (HermitePath, CubicPath):
        path = kind(times, data)
        middle = 0.5 * float(times.sum())
        assert torch.allclose(path(middle), data.mean(1), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("fill", ["linear", "forward"])
@pytest.mark.parametrize("kind", [LinearPath, RectilinearPath, HermitePath])
def test_later_observations_change_nothing(kind: type[LinearPath], fill: Any) -> None:
    times, data = series(2, 8, 3)
    data[:, :, 0] = times
    changed = data.clone()
    i = 3
    changed[:, i + 2 :] = 100.0 * torch.arange(data[:, i + 2 :].numel(), dtype=torch.float64).reshape(2, -1, 3)
    before = torch.linspace(float(times[0]), float(times[i + 1]), 60, dtype=torch.float64)[None]
    before = torch.cat([before, times[None, : i + 2]], 1)
    first, second = kind(times, data, fill=fill), kind(times, changed, fill=fill)
    assert torch.equal(first(before), second(before))
    assert torch.equal(first.derivative(before), second.derivative(before))
    assert not torch.equal(first(times[i + 2]), second(times[i + 2]))
    # The observation that comes next does count.
    changed = data.clone()
    changed[:, i + 1] += 1.0
    assert not torch.equal(first(before), kind(times, changed, fill=fill)(before))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 8), st.booleans())
def test_forward_fill_is_strictly_causal(seed: int, cut: int, clock: bool) -> None:
    times, data = series(2, 9, 3, seed)
    gaps = with_gaps(data, seed)
    gaps[:, :, 0] = times
    changed = gaps.clone()
    changed[:, cut + 1 :, 1:] = with_gaps(data + 5.0, seed + 1)[:, cut + 1 :, 1:]
    before = torch.linspace(float(times[0]), float(times[cut]), 20, dtype=torch.float64)[None]
    for kind in (LinearPath, RectilinearPath, HermitePath):
        first, second = kind(times, gaps, fill="forward"), kind(times, changed, fill="forward")
        assert torch.equal(first(before), second(before))


def test_rectilinear_moves_the_clock_first() -> None:
    times = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    data = torch.tensor([[[5.0, 0.0], [7.0, 1.0], [-1.0, 3.0]]], dtype=torch.float64)
    path = RectilinearPath(times, data, clock=1)
    expected = {
        0.0: [5, 0],
        0.25: [5, 0.5],
        0.5: [5, 1],
        0.75: [6, 1],
        1.0: [7, 1],
        2.0: [7, 3],
        2.5: [3, 3],
        3.0: [-1, 3],
    }
    for t, x in expected.items():
        assert path(t)[0].tolist() == x
    # A missing one is not looked ahead for, unless asked.
    gap = data.clone()
    gap[0, 1, 0] = NAN
    assert RectilinearPath(times, gap, clock=1)(1.0)[0].tolist() == [5, 1]
    # While the clock moves, the next observation is unknown.
    other = data.clone()
    other[0, 2, 0] = 50.0
    half = torch.linspace(0, 2, 21, dtype=torch.float64)[None]
    assert torch.equal(path(half), RectilinearPath(times, other, clock=1)(half))


def test_linear_fill_by_hand() -> None:
    times = torch.tensor([0.0, 1.0, 3.0, 4.0], dtype=torch.float64)
    data = torch.tensor([[[NAN, 1.0, NAN], [2.0, NAN, NAN], [NAN, NAN, NAN], [8.0, NAN, NAN]]], dtype=torch.float64)
    linear = [[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [6.0, 1.0, 0.0], [8.0, 1.0, 0.0]]
    assert fill_linear(times, data)[0].tolist() == linear
    assert LinearPath(times, data)(times[None])[0].tolist() == linear
    forward = [[0.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [8.0, 1.0, 0.0]]
    assert fill_forward(data)[0].tolist() == forward
    assert LinearPath(times, data, fill="forward")(times[None])[0].tolist() == forward
    assert observation_counts(data)[0].tolist() == [[0, 1, 0], [1, 1, 0], [1, 1, 0], [2, 1, 0]]
    assert with_time(times, data)[0, :, 0].tolist() == times.tolist()
    assert torch.equal(with_time(times.expand(1, 4), data)[..., 1:].isnan(), data.isnan())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 12), st.booleans())
def test_linear_fill_is_numpys(seed: int, length: int, shared: bool) -> None:
    times, data = series(2, length, 2, seed, shared)
    gaps = with_gaps(data, seed)
    filled = fill_linear(times, gaps)
    assert torch.equal(torch.where(gaps.isnan(), filled, gaps), filled)
    for i in range(2):
        t = (times if shared else times[i]).numpy()
        for k in range(2):
            column = gaps[i, :, k].numpy()
            seen = ~np.isnan(column)
            expected = np.interp(t, t[seen], column[seen]) if seen.any() else np.zeros(length)
            assert np.allclose(filled[i, :, k].numpy(), expected, atol=ROUNDING)


@pytest.mark.parametrize("kind", PATHS)
def test_ragged_series(kind: type[PiecewisePath]) -> None:
    times, data = series(3, 8, 2, shared=False)
    lengths = [8, 5, 2]
    padded_times, padded = times.clone(), data.clone()
    for i, length in enumerate(lengths):
        padded[i, length:] = NAN
        padded_times[i, length:] = NAN
    # Padded in time, each sample's path is the one of its series alone, and ends with it.
    path = kind(padded_times, padded)
    for i, length in enumerate(lengths):
        alone = kind(times[i, :length], data[i : i + 1, :length])
        assert path.t1[i] == alone.t1[0] == times[i, length - 1]
        share = torch.linspace(0, 1, 11, dtype=torch.float64)
        query = (path.t0[:, None] + share * (path.t1 - path.t0)[:, None]).clone()
        assert torch.allclose(path(query)[i], alone(query[i : i + 1])[0], atol=ROUNDING, rtol=0)
        assert torch.allclose(path.derivative(query)[i], alone.derivative(query[i : i + 1])[0], atol=1e-10, rtol=0)
    with pytest.raises(ValueError, match=rf"t must lie in the span .* of the {kind.__name__} of sample 1"):
        path(torch.stack([path.t1[0], path.t1[1] + 0.1, path.t1[2]]))
    # Padded in the data alone it stays where it was.
    if kind is not CubicPath:
        stays = kind(times, padded)
        assert torch.allclose(stays(times[:, -1])[1], data[1, 4], atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("fill", ["linear", "forward"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", PATHS)
def test_gradients_reach_the_data(kind: type[LinearPath], shared: bool, fill: Any) -> None:
    times, data = series(2, 5, 2, shared=shared)
    hidden = torch.rand(data.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    t = torch.stack(
        [
            torch.linspace(float(a), float(b), 4, dtype=torch.float64)
            for a, b in zip(
                *(x.expand(2) for x in (times.reshape(-1, 5)[:, 0], times.reshape(-1, 5)[:, -1])), strict=True
            )
        ]
    )

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        path = kind(times, torch.where(hidden, NAN, x), fill=fill)
        return path(t), path.derivative(t)

    data.requires_grad_()
    assert torch.autograd.gradcheck(both, data)
    (gradient,) = torch.autograd.grad(both(data)[0].sum(), data)
    assert float(gradient[hidden].abs().max()) == 0.0


def test_padding_leaves_gradients_finite() -> None:
    times, data = series(2, 6, 2, shared=False)
    times[1, 3:] = NAN
    data[1, 3:] = NAN
    data.requires_grad_()
    for kind in PATHS:
        (gradient,) = torch.autograd.grad(kind(times, data)(torch.stack([times[0, -1], times[1, 2]])).sum(), data)
        assert bool(gradient.isfinite().all())


def test_float32_data_with_times_of_float64() -> None:
    times, data = series(2, 6, 2)
    # Far from zero, float32 times would fall together.
    path, reference = HermitePath(1e6 + times, data.float()), HermitePath(times, data)
    t = torch.linspace(float(times[0]), float(times[-1]), 9, dtype=torch.float64)[None]
    assert path(1e6 + t).dtype == path.derivative(1e6 + t).dtype == torch.float32
    # 1e6 + t itself is rounded by 1e-10, data by 6e-8.
    assert torch.allclose(path(1e6 + t).double(), reference(t), atol=1e-5)
    # A state's float32 may round the last time past the end.
    short = LinearPath(torch.tensor([0.0, 0.1], dtype=torch.float64), data[:, :2])
    assert torch.equal(short(torch.tensor(0.1)), short(0.1))


def test_dropped_observations() -> None:
    data = torch.randn(200, 20, 3, generator=torch.Generator().manual_seed(0))
    samples = torch.arange(200)
    channels, whole = (drop_observations(1, samples, data, 0.37, each) for each in ("channel", "time"))
    assert channels.isnan().sum(1).unique().tolist() == whole.isnan().sum(1).unique().tolist() == [7]
    assert torch.equal(whole.isnan().any(2), whole.isnan().all(2))
    # Channels lose 7 of 20 independently: 7²/20 in common.
    common = (channels[..., 0].isnan() & channels[..., 1].isnan()).double().sum(1)
    assert float(common.mean()) == pytest.approx(49 / 20, abs=4.5 * 1.2 / math.sqrt(200))
    kept = ~channels.isnan()
    assert torch.equal(channels[kept], data[kept])
    # A sample's gaps are its own, whatever its batch.
    some = drop_observations(1, samples[50:60], data[50:60], 0.37, "channel")
    assert torch.equal(some.isnan(), channels[50:60].isnan())
    assert not torch.equal(drop_observations(2, samples, data, 0.37, "channel").isnan(), channels.isnan())
    assert torch.equal(drop_observations(1, samples, data, 0.0, "time"), data)
    assert bool(drop_observations(1, samples, data, 1.0, "time").isnan().all())
    assert channels.dtype == torch.float32


TIMES, DATA = torch.arange(3, dtype=torch.float64), torch.zeros(2, 3, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("times", "data", "words"),
    [
        (TIMES, DATA[0], r"data must be floats \(batch, time, channel\), got torch.float64 of shape \(3, 1\)"),
        (TIMES, DATA.long(), "data must be floats .* got torch.int64"),
        (TIMES[:1], DATA[:, :1], r"data must hold at least .* two times .* got shape \(2, 1, 1\)"),
        (TIMES, DATA[..., :0], "data must hold at least one sample, two times and one channel"),
        (TIMES[:2], DATA, r"times must be \(3,\) or \(2, 3\) .* got \(2,\)"),
        (TIMES.expand(3, 3), DATA, r"times must be \(3,\) or \(2, 3\)"),
        (TIMES.long(), DATA, "times must be floats of at least the precision of data, torch.float64, got torch.int64"),
        (
            TIMES.float(),
            DATA,
            "times must be floats of at least the precision of data, torch.float64, got torch.float32",
        ),
        (TIMES.flip(0), DATA, "times must be .* rise strictly.*; got 2, 1, 0$"),
        (torch.tensor([0.0, 1.0, 1.0]).double(), DATA, "times must be .* rise strictly"),
        (torch.tensor([0.0, 1.0, NAN]).double(), DATA, "times must be .* padded by NaN at the end only if they are"),
        (
            torch.tensor([[0.0, 1.0, 2.0], [0.0, NAN, 1.0]]).double(),
            DATA,
            "times must be .* got 0, nan, 1 for sample 1",
        ),
        (torch.tensor([[0.0, 1.0, 2.0], [0.0, NAN, NAN]]).double(), DATA, "times must be at least two numbers"),
        (torch.tensor([[NAN, NAN, NAN], [0.0, 1.0, NAN]]).double(), DATA, "times must be at least two .* for sample 0"),
        (torch.tensor([0.0, 1.0, math.inf]).double(), DATA, "times must be .* rise strictly"),
        (
            torch.tensor([[0.0, 1.0, math.inf], [0.0, 1.0, 2.0]]).double(),
            DATA,
            "times must be .* got 0, 1, inf for sample 0",
        ),
    ],
)
def test_bad_series(times: Tensor, data: Tensor, words: str) -> None:
    for kind in (HermitePath, CubicPath):
        with pytest.raises(ValueError, match=words):
            kind(times, data)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LinearPath(TIMES, DATA, fill="cubic"), "fill must be 'linear' or 'forward', got 'cubic'"),
        (lambda: RectilinearPath(TIMES, DATA, clock=1), "clock must be a channel of data, 0 to 0, got 1"),
        (lambda: drop_observations(0, torch.arange(2), DATA, 1.5, "time"), r"rate must be in \[0, 1\], got 1.5"),
        (lambda: drop_observations(0, torch.arange(2), DATA, NAN, "time"), r"rate must be in \[0, 1\], got nan"),
        (
            lambda: drop_observations(0, torch.arange(2), DATA, 0.5, "block"),
            "each must be 'channel' or 'time', got 'block'",
        ),
        (lambda: fill_linear(TIMES.flip(0), DATA), "times must be .* rise strictly"),
    ],
)
def test_bad_words(call: Callable[[], Any], words: str) -> None:
    # Type hints would refuse some of them before us.
    with pytest.raises((ValueError, TypeError), match=f"{words}|Type-check error"):
        call()


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize(
    ("t", "words"),
    [
        (2.5, r"t must lie in the span \[0.0, 2.0\] of the {}, got 2.5"),
        (-0.1, "t must lie in the span .* got -0.1"),
        (NAN, "t must lie in the span .* got nan"),
        (torch.tensor([0.5, 3.0]), "t must lie in the span .* got 3"),
        (torch.tensor([[0.5, 3.0]]), "t must lie in the span .* got 3"),
        (
            torch.tensor([0.5, 1.0, 1.0]),
            r"t must be a float or floats of shape \(\), \(2,\), \(2, k\) or \(1, k\), got .*\(3,\)",
        ),
        (torch.zeros(3, 2), "t must be a float or floats of shape"),
        (torch.zeros(2, 2, 2), "t must be a float or floats of shape"),
        (torch.tensor([0, 1]), "t must be a float or floats .* got torch.int64"),
    ],
)
def test_bad_queries(kind: type[PiecewisePath], t: Any, words: str) -> None:
    path = kind(TIMES, DATA)
    for call in (path, path.derivative, lambda t: path.increment(0.0, t)):
        with pytest.raises(ValueError, match=words.format(kind.__name__)):
            call(t)


def test_queries_outside_are_nan_on_a_gpu(device: torch.device) -> None:
    if device.type == "cuda":
        path = LinearPath(TIMES.to(device), DATA.to(device))
        assert path(torch.tensor([1.0, 2.5], device=device))[:, 0].isnan().tolist() == [False, True]

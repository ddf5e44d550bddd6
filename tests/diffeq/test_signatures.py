"""Log-signatures: exact values, Chen's and the shuffle relation; the log-ODE against a fine solution of a linear equation."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pdebook.diffeq.paths import HermitePath, LinearPath, RectilinearPath
from pdebook.diffeq.signatures import (
    LogSignature,
    LogSignaturePath,
    bracket_fields,
    log_ode_field,
    log_signature,
    pairs,
)

ROUNDING = 1e-12


def walk(length: int, channels: int = 3, batch: int = 2, seed: int = 0, shared: bool = True) -> tuple[Tensor, Tensor]:
    """Irregular times and a random walk."""
    generator = torch.Generator().manual_seed(seed)
    steps = 0.2 + torch.rand(1 if shared else batch, length, generator=generator, dtype=torch.float64)
    data = torch.randn(batch, length, channels, generator=generator, dtype=torch.float64).cumsum(1)
    times = steps.cumsum(1) / length
    return times[0] if shared else times, data


def merged(a: LogSignature, b: LogSignature) -> tuple[Tensor, Tensor]:
    """Chen's relation for one window after another."""
    i, j = pairs(a.increments.shape[2])
    first, second = a.increments, b.increments
    cross = 0.5 * (first[..., i] * second[..., j] - first[..., j] * second[..., i])
    return first + second, a.areas + b.areas + cross


def test_area_of_a_triangle_and_a_square(device: torch.device) -> None:
    times = torch.arange(5, dtype=torch.float64, device=device)
    corners = [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]]
    path = LinearPath(times, torch.tensor(corners, dtype=torch.float64, device=device) + 7.0)
    # Counterclockwise area between path and chord.
    signature = log_signature(path, torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64, device=device))
    assert signature.areas.flatten().tolist() == [0.5, 0.5]
    assert signature.increments[0].tolist() == [[1.0, 1.0], [-1.0, -1.0]]
    assert log_signature(path, times[[0, 4]]).areas.item() == 1.0
    assert log_signature(path, times[[0, 1]]).areas.item() == 0.0
    # In the middle of sides: from (1/2, 0) over two corners to (1/2, 1).
    middle = log_signature(path, torch.tensor([0.5, 2.5], dtype=torch.float64, device=device))
    assert middle.areas.item() == pytest.approx(0.5, abs=ROUNDING)
    assert pairs(3)[0].tolist() == [0, 0, 1]
    assert pairs(3)[1].tolist() == [1, 2, 2]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", [LinearPath, RectilinearPath])
def test_chen_and_shuffle(kind: type[LinearPath], shared: bool) -> None:
    times, data = walk(30, shared=shared)
    path = kind(times, data)
    ends = path.t0[:, None] + (path.t1 - path.t0)[:, None] * torch.tensor([0.0, 0.13, 0.5, 1.0], dtype=torch.float64)
    parts = log_signature(path, ends)
    whole = log_signature(path, ends[:, [0, 2, 3]])
    one, two = (LogSignature(ends, parts.increments[:, k : k + 1], parts.areas[:, k : k + 1]) for k in range(2))
    for value, expected in zip(merged(one, two), (whole.increments, whole.areas), strict=True):
        assert torch.allclose(value[:, 0], expected[:, 0], atol=ROUNDING, rtol=0)
    # Second level of the signature by left sums of exact trapezoids: symmetric part is half the square, the rest the area.
    knots = path.times.expand(2, -1)
    x = path(knots) - path(knots[:, :1])
    second = torch.einsum("bti,btj->bij", 0.5 * (x[:, 1:] + x[:, :-1]), x.diff(dim=1))
    total = log_signature(path, ends[:, [0, 3]])
    increment = total.increments[:, 0]
    assert torch.allclose(
        second + second.transpose(1, 2), increment[:, :, None] * increment[:, None], atol=1e-10, rtol=0
    )
    i, j = pairs(3)
    assert torch.allclose(0.5 * (second - second.transpose(1, 2))[:, i, j], total.areas[:, 0], atol=1e-11, rtol=0)


def test_windows_may_differ_by_sample_and_samples_do_not_mix() -> None:
    times, data = walk(12, shared=False)
    times[1, 9:] = math.nan
    data[1, 9:] = math.nan
    path = LinearPath(times, data)
    ends = path.t0[:, None] + (path.t1 - path.t0)[:, None] * torch.tensor([[0.1, 0.4, 1.0], [0.0, 0.7, 0.9]]).double()
    both = log_signature(path, ends)
    for i, length in enumerate((12, 9)):
        alone = log_signature(LinearPath(times[i, :length], data[i : i + 1, :length]), ends[i])
        assert torch.allclose(both.areas[i], alone.areas[0], atol=ROUNDING, rtol=0)
        assert torch.allclose(both.increments[i], alone.increments[0], atol=ROUNDING, rtol=0)
    # Windows of each sample on a path whose times are shared.
    shared_times, shared_data = walk(12)
    ends = torch.stack([shared_times[[0, 5, 9]], shared_times[[1, 2, 11]]])
    both = log_signature(LinearPath(shared_times, shared_data), ends)
    for i in range(2):
        alone = log_signature(LinearPath(shared_times, shared_data[i : i + 1]), ends[i])
        assert torch.allclose(both.areas[i], alone.areas[0], atol=ROUNDING, rtol=0)


def test_log_signature_paths() -> None:
    times, data = walk(16)
    path, ends = LinearPath(times, data), times[[0, 3, 8, 15]]
    first, second = LogSignaturePath(path, ends, depth=1), LogSignaturePath(path, ends)
    coarse = LinearPath(ends, path(ends[None]))
    query = torch.linspace(float(ends[0]), float(ends[-1]), 21, dtype=torch.float64)[None]
    assert torch.allclose(first(query), coarse(query) - coarse(ends[0])[:, None], atol=ROUNDING, rtol=0)
    assert torch.allclose(first.derivative(query), coarse.derivative(query), atol=ROUNDING, rtol=0)
    assert torch.equal(second(query)[..., :3], first(query))
    assert (first.channels, second.channels) == (3, 6)
    areas = torch.stack([second.increment(a, b)[:, 3:] for a, b in pairwise(ends)], 1)
    assert torch.allclose(areas, log_signature(path, ends).areas, atol=ROUNDING, rtol=0)
    # One channel has no area.
    single = LinearPath(times, data[..., :1])
    assert torch.equal(LogSignaturePath(single, ends)(query), LogSignaturePath(single, ends, depth=1)(query))
    assert LogSignaturePath(LinearPath(times, data.float()), ends)(query).dtype == torch.float32


def test_gradients_of_log_signatures() -> None:
    times, data = walk(6)
    ends = times[[0, 2, 5]] - torch.tensor([0.0, 0.01, 0.02], dtype=torch.float64)
    hidden = torch.rand(data.shape, generator=torch.Generator().manual_seed(0)) < 0.2

    def areas(x: Tensor) -> Tensor:
        return log_signature(LinearPath(times, torch.where(hidden, math.nan, x)), ends).areas

    assert torch.autograd.gradcheck(areas, data.requires_grad_())


def linear_fields(matrices: Tensor) -> Any:
    return lambda t, y: torch.einsum("isj,bj->bsi", matrices, y)


def test_bracket_of_linear_fields() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    columns = bracket_fields(linear_fields(a))(torch.zeros(5), y)
    assert columns.shape == (5, 4, 6)
    for k, (i, j) in enumerate(zip(*(index.tolist() for index in pairs(3)), strict=True)):
        assert torch.allclose(columns[:, :, 3 + k], y @ (a[j] @ a[i] - a[i] @ a[j]).T, atol=ROUNDING, rtol=0)
    assert torch.equal(columns[:, :, :3], linear_fields(a)(torch.zeros(5), y))


def test_bracket_of_curved_fields_and_its_gradients() -> None:
    # f_0 = (1, y_0²), f_1 = (y_1, 0): (∂f_1) f_0 = (y_0², 0) and (∂f_0) f_1 = (0, 2 y_0 y_1).
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def fields(t: Tensor, y: Tensor) -> Tensor:
        zero, one = torch.zeros_like(y[:, 0]), torch.ones_like(y[:, 0])
        return torch.stack([torch.stack([one, weight * y[:, 0] ** 2], 1), torch.stack([weight * y[:, 1], zero], 1)], 2)

    y = torch.tensor([[2.0, 3.0], [-1.0, 0.5]], dtype=torch.float64)
    bracket = bracket_fields(fields)(torch.zeros(2), y)[..., 2]
    assert torch.allclose(bracket, torch.stack([y[:, 0] ** 2, -2.0 * y[:, 0] * y[:, 1]], 1).to(bracket))
    # The bracket is quadratic in the weight.
    (gradient,) = torch.autograd.grad(bracket.sum(), weight)
    assert float(gradient) == pytest.approx(2.0 * bracket.sum().item())


def transported(field: Any, path: Any, ends: Tensor, y: Tensor, substeps: int) -> Tensor:
    """RK4 on each window, driven by the path's increments, which are linear within it."""
    for a, b in pairwise(ends.tolist()):
        step = path.increment(a, b) / substeps
        times = torch.full((len(y),), a, dtype=torch.float64)

        def slope(z: Tensor, step: Tensor = step, times: Tensor = times) -> Tensor:
            return (field(times, z) @ step[..., None])[..., 0]

        for _ in range(substeps):
            k1 = slope(y)
            k2 = slope(y + 0.5 * k1)
            k3 = slope(y + 0.5 * k2)
            y = y + (k1 + 2.0 * k2 + 2.0 * k3 + slope(y + k3)) / 6.0
    return y


def test_areas_make_long_steps_exact_to_the_next_order() -> None:
    """A linear equation with three channels on a random walk of 512 steps, in 16 windows."""
    generator = torch.Generator().manual_seed(0)
    a = 0.5 * torch.randn(3, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    length, windows = 512, 16
    steps = torch.randn(8, length, 3, generator=generator, dtype=torch.float64) / math.sqrt(length)
    data = torch.cat([torch.zeros(8, 1, 3, dtype=torch.float64), steps.cumsum(1)], 1)
    times = torch.linspace(0, 1, length + 1, dtype=torch.float64)
    path, ends = LinearPath(times, data), times[:: length // windows]
    # The exact flow of each straight piece.
    reference = y[..., None]
    for flow in torch.matrix_exp(torch.einsum("bti,ijk->btjk", steps, a)).unbind(1):
        reference = flow @ reference
    reference = reference[..., 0]
    brackets = bracket_fields(linear_fields(a))

    def wrong_sign(t: Tensor, z: Tensor) -> Tensor:
        columns = brackets(t, z)
        return torch.cat([columns[..., :3], -columns[..., 3:]], 2)

    def error(field: Any, depth: int) -> float:
        result = transported(field, LogSignaturePath(path, ends, depth), ends, y, 4)
        return float((result - reference).norm())

    right, wrong, first = error(brackets, 2), error(wrong_sign, 2), error(linear_fields(a), 1)
    assert right <= 0.5 * first
    assert wrong >= 3.0 * right
    # Half the windows' length quarters the error at least; at depth 1 it falls as the root of it.
    finer = times[:: length // (4 * windows)]
    better = transported(brackets, LogSignaturePath(path, finer), finer, y, 4)
    assert float((better - reference).norm()) < 0.4 * right


def test_log_ode_field() -> None:
    times, data = walk(9)
    a = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    path, ends = LinearPath(times, data), times[[0, 4, 8]]
    y = torch.ones(2, 4, dtype=torch.float64)
    t = torch.tensor([0.3, 0.7], dtype=torch.float64) * times[-1]
    for depth, columns in ((1, linear_fields(a)), (2, bracket_fields(linear_fields(a)))):
        driver = LogSignaturePath(path, ends, depth)
        expected = (columns(t, y) @ driver.derivative(t)[..., None])[..., 0]
        assert torch.allclose(log_ode_field(linear_fields(a), driver)(t, y), expected, atol=ROUNDING, rtol=0)
    # One channel has no brackets.
    single = LogSignaturePath(LinearPath(times, data[..., :1]), ends)
    field = log_ode_field(linear_fields(a[:1]), single)
    assert torch.allclose(field(t, y), single.derivative(t) * (y @ a[0].T), atol=ROUNDING, rtol=0)
    with pytest.raises(ValueError, match="path must have 3 or 6 channels for 3 fields, got 1"):
        log_ode_field(linear_fields(a), single)(t, y)


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        (torch.tensor([0.0]), r"windows must be floats \(ends,\) or \(2, ends\), at least two ends, got .*\(1,\)"),
        (torch.tensor([0, 1]), "windows must be floats .* got torch.int64"),
        (torch.zeros(3, 2), r"windows must be floats .*\(3, 2\)"),
        (torch.tensor(0.5), r"windows must be floats .*\(\)"),
        (torch.tensor([0.5, 0.5]), r"windows must rise strictly, got \[0.5, 0.5\]"),
        (torch.tensor([0.5, 1.5]), "t must lie in the span .* of the LinearPath, got 1.5"),
    ],
)
def test_bad_windows(windows: Tensor, words: str) -> None:
    path = LinearPath(torch.tensor([0.0, 1.0]), torch.zeros(2, 2, 2))
    for call in (log_signature, LogSignaturePath):
        with pytest.raises(ValueError, match=words):
            call(path, windows)


def test_bad_depths_and_paths() -> None:
    path = LinearPath(torch.tensor([0.0, 1.0]), torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match="depth must be 1 or 2, got 3"):
        LogSignaturePath(path, torch.tensor([0.0, 1.0]), depth=3)
    with pytest.raises(ValueError, match="path must be piecewise linear, got a HermitePath"):
        log_signature(HermitePath(torch.tensor([0.0, 1.0]), torch.zeros(2, 2, 2)), torch.tensor([0.0, 1.0]))

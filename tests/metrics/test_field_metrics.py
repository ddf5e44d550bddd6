"""Errors of fields: definitions on fields whose errors are known, and the same result from any batches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.losses import relative_h1
from pdebook.metrics.fields import FieldMetrics, correlation, crossing_time

CONVENTIONS = ("isotropic", "paper", "official")


def fields(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def metrics(prediction: torch.Tensor, target: torch.Tensor, dims: int, **options) -> dict[str, torch.Tensor]:
    return FieldMetrics(dims, **options).update(prediction, target).compute()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 6), unique=True, max_size=3), st.integers(1, 3), st.sampled_from(CONVENTIONS))
def test_batches_do_not_matter(cuts, dims, convention):
    prediction, target = fields(7, 2, *(6,) * dims), fields(7, 2, *(6,) * dims, seed=1)
    whole = metrics(prediction, target, dims, convention=convention, cuts=(1, 2))
    parts = FieldMetrics(dims, convention=convention, cuts=(1, 2))
    for p, t in zip(prediction.tensor_split(sorted(cuts)), target.tensor_split(sorted(cuts)), strict=True):
        parts.update(p, t)
    for name, value in parts.compute().items():
        torch.testing.assert_close(value, whole[name], rtol=1e-12, atol=1e-12)
        assert value.shape == (2,)


def test_errors_by_definition():
    prediction, target = fields(5, 3, 2, 8, 6), fields(5, 3, 2, 8, 6, seed=1)
    found, e = metrics(prediction, target, 2), prediction - target
    torch.testing.assert_close(found["rmse"], e.square().mean((-2, -1)).sqrt().mean(0))
    ratio = e.square().mean((-2, -1)).sqrt() / target.square().mean((-2, -1)).sqrt()
    torch.testing.assert_close(found["nrmse"], ratio.mean(0))
    torch.testing.assert_close(found["relative_l1"], (e.abs().mean((-2, -1)) / target.abs().mean((-2, -1))).mean(0))
    torch.testing.assert_close(found["crmse"], e.sum((-2, -1)).square().mean(0).sqrt() / 48)
    torch.testing.assert_close(found["max"], e.abs().amax((0, 3, 4)))
    edges = e[..., 0, :].square().sum(-1) + e[..., -1, :].square().sum(-1)
    edges = edges + e[..., :, 0].square().sum(-1) + e[..., :, -1].square().sum(-1)
    torch.testing.assert_close(found["brmse"], (edges / (2 * 8 + 2 * 6)).sqrt().mean(0))


@pytest.mark.parametrize(("periodic", "method"), [(True, "spectral"), (False, "central2")])
def test_relative_h1_of_each_channel(periodic, method):
    prediction, target = fields(3, 2, 8, 6), fields(3, 2, 8, 6, seed=1)
    options = {"length": (2.0, 3.0), "periodic": periodic}
    expected = relative_h1(prediction, target, dims=2, over="grid", method=method, mean=False, **options).mean(0)
    torch.testing.assert_close(metrics(prediction, target, 2, **options)["relative_h1"], expected)
    # Without channels, and with times besides.
    alone = metrics(prediction[:, 0], target[:, 0], 2, **options)["relative_h1"]
    torch.testing.assert_close(alone, expected[0])
    timed = metrics(prediction[:, None], target[:, None], 2, **options)["relative_h1"]
    torch.testing.assert_close(timed, expected[None])


def test_ends_of_an_interval():
    prediction, target = fields(4, 1, 9), fields(4, 1, 9, seed=1)
    e = prediction - target
    expected = ((e[..., 0] ** 2 + e[..., -1] ** 2) / 2).sqrt().mean(0)
    torch.testing.assert_close(metrics(prediction, target, 1)["brmse"], expected)


@pytest.mark.parametrize("size", [(32,), (31,), (16, 12), (8, 9, 10)])
def test_isotropic_bands_sum_to_the_mean_square(size):
    prediction, target = fields(1, 2, *size), fields(1, 2, *size, seed=1)
    found = metrics(prediction, target, len(size), cuts=(2, 4))
    total = sum(found[f"frmse_{name}"].square() for name in ("low", "mid", "high"))
    torch.testing.assert_close(total, found["rmse"].square())


def wave(k: tuple[int, ...], n: int) -> torch.Tensor:
    x = torch.meshgrid(*(torch.arange(n).double() * 2 * math.pi / n for _ in k), indexing="ij")
    return torch.cos(sum(kj * xj for kj, xj in zip(k, x, strict=True)) + 0.3)[None, None]


@pytest.mark.parametrize(
    ("k", "band"),
    [((3,), 0), ((4,), 1), ((11,), 1), ((12,), 2), ((16,), 2), ((2, 3), 1), ((3, 1), 0), ((-2, 3), 1), ((9, 8), 2)],
)
def test_single_modes_in_isotropic_bands(k, band):
    e = wave(k, 40)
    found = metrics(e, torch.zeros_like(e), len(k))
    values = [found[f"frmse_{name}"].item() for name in ("low", "mid", "high")]
    expected = [0.0] * 3
    expected[band] = math.sqrt(0.5)
    assert values == pytest.approx(expected, abs=1e-12)


def test_single_modes_in_the_papers_bands():
    for k, band, count in ((0, 0, 5), (4, 0, 5), (5, 1, 8), (12, 1, 8), (13, 2, 8)):
        e = 2.0 * wave((k,), 40)
        found = metrics(e, torch.zeros_like(e), 1, convention="paper")
        values = [found[f"frmse_{name}"].item() for name in ("low", "mid", "high")]
        expected = [0.0] * 3
        expected[band] = (2 * math.cos(0.3) if k == 0 else 1) / count
        assert values == pytest.approx(expected, abs=1e-12), k


def official(error: torch.Tensor, length: float) -> list[torch.Tensor]:
    """What PDEBench's code computes, written anew with loops: (batch, channel, *grid)."""
    *lead, n = error.shape[0], error.shape[1], error.shape[2]
    if error.ndim == 3:
        size = torch.fft.rfft(error, dim=2).abs().square().mean(0).sqrt() / n * length
    else:
        power = torch.fft.fftn(error, dim=tuple(range(2, error.ndim))).abs().square()
        shape = error.shape[2:]
        last = min(m // 2 for m in shape)
        sums = torch.zeros(*lead, last, dtype=error.dtype)
        for index in torch.cartesian_prod(*(torch.arange(m // 2) for m in shape)).tolist():
            shell = math.floor(math.sqrt(sum(i * i for i in index)))
            if shell < last:
                sums[..., shell] += power[(..., *index)]
        size = sums.mean(0).sqrt() / math.prod(shape) * length ** len(shape)
    return [size[:, :4].mean(1), size[:, 4:12].mean(1), size[:, 12:].mean(1)]


@pytest.mark.parametrize("size", [(40,), (41,), (28, 32), (26, 28, 27)])
def test_official_bands(size):
    prediction, target = fields(3, 2, *size), fields(3, 2, *size, seed=1)
    found = metrics(prediction, target, len(size), convention="official", length=2.0)
    for name, expected in zip(("low", "mid", "high"), official(prediction - target, 2.0), strict=True):
        torch.testing.assert_close(found[f"frmse_{name}"], expected)


def test_correlation():
    x = torch.arange(16).double() * 2 * math.pi / 16
    target = 5 + x.sin()
    for shift in (0.0, 0.5, 2.0):
        assert correlation(3 * (x + shift).sin(), target, dims=1).item() == pytest.approx(math.cos(shift))
    u, v = fields(2, 3, 4, 5), fields(2, 3, 4, 5, seed=1)
    expected = torch.corrcoef(torch.stack([u[1, 2].flatten(), v[1, 2].flatten()]))[0, 1]
    torch.testing.assert_close(correlation(u, v, dims=2)[1, 2], expected)


def test_crossing_times():
    values = torch.tensor([[1.0, 0.9, 0.7, 0.95], [1, 0.9, 0.8, 0.8], [0.5, 1, 1, 1], [1, math.nan, 1, 1]])
    times = torch.tensor([0.1, 0.2, 0.4, 0.8])
    torch.testing.assert_close(crossing_time(values, times, 0.8), torch.tensor([0.4, 0.8, 0.1, 0.2]))
    torch.testing.assert_close(crossing_time(-values, times, -0.8, below=False), torch.tensor([0.4, 0.8, 0.1, 0.2]))


U = torch.zeros(2, 1, 8, 8)
BAD = [
    (lambda: FieldMetrics(4), "dims must be 1, 2 or 3, got 4"),
    (lambda: FieldMetrics(2, cuts=(4, 4)), r"cuts must rise from above 0, got \(4, 4\)"),
    (lambda: FieldMetrics(2).update(U[:0], U[:0]), "target must be real and hold a sample or more"),
    (lambda: correlation(U, U, dims=0), "dims must be from 1 to 4, got 0"),
    (lambda: correlation(U, U, dims=5), "dims must be from 1 to 4, got 5"),
    (lambda: crossing_time(torch.zeros(2, 0), torch.zeros(0), 0.5), "times and threshold must hold a number, got 0"),
    (lambda: crossing_time(torch.zeros(2, 3), torch.zeros(3), math.nan), "must hold a number, got 3 times and nan"),
    (lambda: FieldMetrics(2, convention="code"), "convention must be 'isotropic', 'paper' or 'official', got 'code'"),
    (lambda: FieldMetrics(2, length=0.0), "length must be positive"),
    (lambda: FieldMetrics(2).compute(), "metrics must see a batch first"),
    (
        lambda: FieldMetrics(2).update(U, U[:1]),
        r"prediction and target must be alike.*\(2, 1, 8, 8\) and \(1, 1, 8, 8\)",
    ),
    (lambda: FieldMetrics(2).update(U[0, 0], U[0, 0]), "with 2 axes of a grid"),
    (
        lambda: FieldMetrics(2, convention="official").update(U, U).update(U[..., :6], U[..., :6]),
        "shape of earlier batches",
    ),
    (lambda: FieldMetrics(2).update(U, U).update(U[:, 0], U[:, 0]), "shape of earlier batches"),
    (lambda: correlation(U, U[:1], dims=2), "prediction must have the target's shape"),
    (lambda: crossing_time(torch.zeros(2, 3), torch.zeros(4), 0.5), r"times must hold 3 numbers, got shape \(4,\)"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

"""Norms of fields: exact on single modes, at any resolution, pooled as said."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.losses import relative_h1, relative_lp, relative_sobolev, sobolev, weighted_spectrum

TWO_PI = 2 * math.pi


def grid(*size: int, length: float = TWO_PI) -> tuple[torch.Tensor, ...]:
    return torch.meshgrid(*(torch.arange(n).double() * length / n for n in size), indexing="ij")


def fields(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -------------------- Lp


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_relative_lp_of_constants_and_its_pooling(p):
    target = torch.tensor([[[1.0, 1], [2, 2]], [[4, 4], [4, 4]]]).double()
    prediction = target + torch.tensor([[[0.5, 0.5], [0, 0]], [[0, 0], [2, 2]]])
    each = relative_lp(prediction, target, dims=1, p=p, over="grid", mean=False)
    torch.testing.assert_close(each, torch.tensor([[0.5, 0], [0, 0.5]]).double())
    pooled = relative_lp(prediction, target, dims=1, p=p, mean=False)
    expected = [0.5 / (1 + 2**p) ** (1 / p), 2 / (2 * 4**p) ** (1 / p)]
    torch.testing.assert_close(pooled, torch.tensor(expected).double())
    batch = relative_lp(prediction, target, dims=1, p=p, over="batch", mean=False)
    assert float(batch) == pytest.approx(((0.5**p + 2**p) / (1 + 2**p + 2 * 4**p)) ** (1 / p))
    assert relative_lp(prediction, target, dims=1, p=p, over="grid") == pytest.approx(0.25)


def test_more_axes_stand_for_themselves():
    prediction, target = fields(2, 5, 3, 8, 6), fields(2, 5, 3, 8, 6, seed=1)
    assert relative_lp(prediction, target, dims=2, over="grid", mean=False).shape == (2, 5, 3)
    assert relative_lp(prediction, target, dims=2, mean=False).shape == (2, 5)
    assert relative_lp(prediction, target, dims=2, over="batch", mean=False).shape == (5,)
    one = torch.linalg.vector_norm(prediction[1, 2] - target[1, 2]) / torch.linalg.vector_norm(target[1, 2])
    torch.testing.assert_close(relative_lp(prediction, target, dims=2, mean=False)[1, 2], one)


def test_groups_of_channels():
    prediction, target = fields(2, 4, 8), fields(2, 4, 8, seed=1)
    groups = ((0,), (1, 2), (3,))
    found = relative_lp(prediction, target, dims=1, p=1, groups=groups, mean=False)
    assert found.shape == (2, 3)
    torch.testing.assert_close(found[:, 1], relative_lp(prediction[:, 1:3], target[:, 1:3], dims=1, p=1, mean=False))
    over_batch = relative_lp(prediction, target, dims=1, p=1, over="batch", groups=groups)
    parts = [
        (prediction - target)[:, list(group)].abs().mean() / target[:, list(group)].abs().mean() for group in groups
    ]
    torch.testing.assert_close(over_batch, torch.stack(parts).mean())
    each = relative_lp(prediction, target, dims=1, over="grid", groups=[[i] for i in range(4)], mean=False)
    torch.testing.assert_close(each, relative_lp(prediction, target, dims=1, over="grid", mean=False))


def test_epsilon_guards_a_target_of_zeros():
    zero = torch.zeros(1, 1, 4)
    assert relative_lp(zero, zero, dims=1).isnan()
    assert relative_lp(zero + 2, zero, dims=1, eps=0.5) == 4
    u = torch.zeros(1, 1, 4, requires_grad=True)
    relative_lp(u, zero, dims=1, eps=0.5).backward()
    assert u.grad.abs().max() == 0, "no NaN where the error vanishes"


# -------------------- H1


@pytest.mark.parametrize("length", [1.0, (2.0, 3.0)])
def test_h1_of_single_modes(length):
    lengths = (length,) * 2 if isinstance(length, float) else length
    for n in (16, 24):
        x, y = torch.meshgrid(*(torch.arange(n).double() / n * TWO_PI for _ in range(2)), indexing="ij")
        target, error = torch.cos(2 * x - y)[None, None], 0.1 * torch.sin(3 * x)[None, None]
        k, e = (
            1 + sum((m * TWO_PI / side) ** 2 for m, side in zip(ms, lengths, strict=True)) for ms in ((2, 1), (3, 0))
        )
        measured = relative_h1(target + error, target, dims=2, length=length)
        assert float(measured) == pytest.approx(0.1 * math.sqrt(e / k), rel=1e-12)


@pytest.mark.parametrize(("method", "order"), [("central2", 2), ("central4", 4)])
def test_finite_differences_have_their_factor(method, order):
    n, m = 24, 3
    (x,) = grid(n)
    h = TWO_PI / n
    factor = math.sin(m * h) / h if order == 2 else (8 * math.sin(m * h) - math.sin(2 * m * h)) / (6 * h)
    target = torch.ones(1, 1, n).double()
    measured = relative_h1(target + torch.sin(m * x), target, dims=1, length=TWO_PI, method=method)
    assert float(measured) == pytest.approx(math.sqrt(0.5 * (1 + factor**2)), rel=1e-12)


def test_one_sided_ends_are_exact_for_parabolas():
    x = torch.linspace(0, 2, 9).double()
    target = (1 + x - 3 * x**2)[None, None]
    expected = target.square().mean() + (1 - 6 * x).square().mean()
    measured = relative_h1(2 * target, torch.ones_like(target), dims=1, length=2.0, method="central2", periodic=False)
    error = 2 * target - 1
    torch.testing.assert_close(measured.square(), error.square().mean() + 4 * (1 - 6 * x).square().mean())
    assert expected > 0


@pytest.mark.parametrize("over", ["grid", "channels", "batch"])
@pytest.mark.parametrize("method", ["spectral", "central2"])
def test_h1_pools_like_l2(over, method):
    """The squares of value and derivatives are pooled."""
    prediction, target = fields(2, 3, 8, 6), fields(2, 3, 8, 6, seed=1)
    measured = relative_h1(prediction, target, dims=2, method=method, over=over, mean=False)
    axes = {"grid": (2, 3), "channels": (1, 2, 3), "batch": (0, 1, 2, 3)}[over]

    def size(u):
        each = torch.stack(
            [
                relative_h1(u[b : b + 1, c : c + 1], torch.ones(1, 1, 8, 6).double(), dims=2, method=method).square()
                for b in range(2)
                for c in range(3)
            ]
        )
        return each.reshape(2, 3).sum([a for a in axes if a < 2]) if any(a < 2 for a in axes) else each.reshape(2, 3)

    expected = (size(prediction - target + 1) / size(target + 1)).sqrt()
    torch.testing.assert_close(measured, expected)


# -------------------- Sobolev norms of any order


@pytest.mark.parametrize("order", [-2, -1, -0.5, 0, 0.5, 1, 2.5])
@pytest.mark.parametrize("n", [16, 17, 48])
def test_single_modes_at_any_resolution(order, n):
    x, y = grid(n, n)
    for kx, ky in ((1, 0), (0, 3), (2, -5), (4, 4)):
        size = math.sqrt(0.5) * (kx**2 + ky**2) ** (order / 2)
        measured = sobolev(torch.cos(kx * x + ky * y + 0.4), order, dims=2)
        assert float(measured) == pytest.approx(size, rel=1e-12)
        shifted = sobolev(torch.cos(kx * x + ky * y), order, dims=2, alpha=2.0, length=2 * TWO_PI)
        assert float(shifted) == pytest.approx(math.sqrt(0.5) * (2 + (kx**2 + ky**2) / 4) ** (order / 2), rel=1e-12)


def test_the_mean_counts_unless_its_weight_is_infinite():
    u = torch.full((8, 8), 3.0).double()
    assert sobolev(u, 0, dims=2) == pytest.approx(3)
    assert sobolev(u, -1, dims=2) == 0
    assert sobolev(u, 1, dims=2) == 0
    assert sobolev(u, -1, dims=2, alpha=4) == pytest.approx(1.5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(0, 99))
def test_order_zero_is_the_root_mean_square_and_the_half_plane_the_whole(size, seed):
    u = fields(2, *size, seed=seed)
    dims = len(size)
    axes = tuple(range(1, dims + 1))
    torch.testing.assert_close(sobolev(u, 0, dims=dims), u.square().mean(axes).sqrt())
    c = torch.fft.fftn(u, dim=axes, norm="forward")
    k = torch.meshgrid(*(torch.fft.fftfreq(n, 1 / n).double() for n in size), indexing="ij")
    whole = ((3.0 + sum(kj.square() for kj in k)) ** -0.7 * c.abs().square()).sum(axes).sqrt()
    torch.testing.assert_close(sobolev(u, -0.7, dims=dims, alpha=3), whole)


def test_norm_in_time_and_space():
    u = fields(2, 5, 8, 8)
    each = sobolev(u, -1, dims=2)
    assert each.shape == (2, 5)
    torch.testing.assert_close(sobolev(u, -1, dims=2, pool=1), each.square().mean(1).sqrt())
    target = fields(2, 5, 8, 8, seed=1)
    ratio = relative_sobolev(u, target, -1, dims=2, pool=1, mean=False)
    torch.testing.assert_close(ratio, sobolev(u - target, -1, dims=2, pool=1) / sobolev(target, -1, dims=2, pool=1))
    torch.testing.assert_close(relative_sobolev(u, target, -1, dims=2, pool=1), ratio.mean())


def test_sobolev_norm_of_order_one_is_the_h1_norm():
    u, one = fields(1, 1, 9, 8), torch.ones(1, 1, 9, 8).double()
    h1 = relative_h1(u + one, one, dims=2, length=(2.0, 3.0))
    torch.testing.assert_close(sobolev(u, 1, dims=2, length=(2.0, 3.0), alpha=1)[0, 0], h1)


def test_weighted_spectrum_of_single_modes():
    for n in (16, 32):
        x, y = grid(n, n)
        u = 2 * torch.cos(3 * x - y)
        # The largest wavenumber on the grid is (n/2, n/2).
        ratio = math.sqrt(10) / (n / 2 * math.sqrt(2))
        assert float(weighted_spectrum(u, dims=2, exponent=1.5)) == pytest.approx(2 * ratio**1.5, rel=1e-12)
    assert weighted_spectrum(torch.ones(4, 4), dims=2, exponent=1) == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda u, v: relative_lp(u, v, dims=2, p=2),
        lambda u, v: relative_lp(u, v, dims=2, p=3, over="grid"),
        lambda u, v: relative_h1(u, v, dims=2),
        lambda u, v: relative_h1(u, v, dims=2, method="central4"),
        lambda u, v: relative_sobolev(u, v, -1, dims=2),
        lambda u, v: weighted_spectrum(u - v, dims=2, exponent=1.5),
    ],
)
def test_gradients(loss):
    u, v = fields(1, 1, 4, 5).requires_grad_(), fields(1, 1, 4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(loss, (u, v))


U = torch.ones(2, 3, 8, 8)
BAD = [
    (
        lambda: relative_lp(U, U[:1], dims=2),
        r"prediction must have the target's shape \(1, 3, 8, 8\), got \(2, 3, 8, 8\)",
    ),
    (lambda: relative_lp(U, U, dims=3), r"dims must leave a batch and channels, 1 ... 2, got 3"),
    (lambda: relative_lp(U, U, dims=0), "dims must leave a batch and channels"),
    (lambda: relative_lp(U, U, dims=2, over="time"), "over must be 'grid', 'channels' or 'batch', got 'time'"),
    (lambda: relative_lp(U, U, dims=2, p=0.5), "p must be at least 1, got 0.5"),
    (lambda: relative_h1(U, U, dims=2, length=0.0), "length must be positive"),
    (lambda: relative_h1(U, U, dims=2, length=(1.0,)), "length must be positive, one number or 2"),
    (lambda: relative_h1(U, U, dims=2, method="fd"), "method must be 'spectral', 'central2' or 'central4', got 'fd'"),
    (lambda: relative_h1(U, U, dims=2, periodic=False), "method must be 'central2' on a grid that is not periodic"),
    (lambda: sobolev(U, 1, dims=2, alpha=-1), "alpha must not be negative and order finite, got -1"),
    (lambda: sobolev(U, math.nan, dims=2), "order finite, got 0.0 and nan"),
    (lambda: relative_lp(U, U, dims=2, p=math.nan), "p must be at least 1, got nan"),
    (lambda: relative_lp(U, U, dims=2, eps=-1.0), "eps must not be negative, got -1"),
    *[
        (lambda bad=bad: relative_lp(U, U, dims=2, groups=bad), "groups must hold lists of channels from 0 to 2, got")
        for bad in ([], [[0], []], [[3]])
    ],
    (
        lambda: relative_h1(U[..., :2], U[..., :2], dims=2, method="central2", periodic=False),
        "target must have 3 points along each axis that is not periodic, got",
    ),
    (lambda: weighted_spectrum(U[..., :1, :1], dims=2, exponent=1), "u must have two points along an axis"),
    (lambda: weighted_spectrum(U, dims=2, exponent=math.nan), "exponent must be positive, got nan"),
    (lambda: sobolev(U, 1, dims=0), "dims and pool must be within the 4 axes of u, got 0 and 0"),
    (lambda: sobolev(U, 1, dims=2, pool=3), "dims and pool must be within the 4 axes of u, got 2 and 3"),
    (lambda: relative_sobolev(U, U[:1], 1, dims=2), "prediction must have the target's shape"),
    (lambda: weighted_spectrum(U, dims=2, exponent=0), "exponent must be positive, got 0"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

"""Maps of the channels, coordinates and padding: the small parts of a neural operator."""

import math

import pytest
import torch
from torch import nn

from pdebook.nn.channel import ChannelLinear, ChannelMLP, InstanceNorm, SoftGate, norm, skip
from pdebook.nn.grid_embedding import GridEmbedding, coordinates
from pdebook.nn.padding import DomainPad

GRIDS = [(), (5,), (4, 3), (2, 3, 4)]


def fields(channels: int, grid: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("bias", [False, True])
def test_channel_linear_is_a_matrix_at_each_point(grid, bias):
    linear, v = ChannelLinear(3, 4, bias=bias).double(), fields(3, grid)
    expected = nn.functional.linear(v.movedim(1, -1), linear.weight, linear.bias).movedim(-1, 1)
    torch.testing.assert_close(linear(v), expected)
    torch.testing.assert_close(linear(v.flip(0)), expected.flip(0))


def test_channel_linear_starts_as_a_convolution_of_pytorch():
    torch.manual_seed(0)
    linear = ChannelLinear(16, 400)
    assert linear.weight.abs().max() <= 0.25
    assert linear.weight.abs().max() > 0.24
    assert linear.bias.abs().max() <= 0.25
    assert linear.weight.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_channel_mlp(depth):
    mlp, v = ChannelMLP(3, 2, hidden=5, depth=depth, activation=nn.Tanh).double(), fields(3, (4, 3))
    expected = v.movedim(1, -1)
    for i in range(depth + 1):
        expected = nn.functional.linear(expected, mlp[2 * i].weight, mlp[2 * i].bias)
        expected = expected.tanh() if i < depth else expected
    torch.testing.assert_close(mlp(v), expected.movedim(-1, 1))
    assert [m.weight.shape[0] for m in mlp if isinstance(m, ChannelLinear)] == [5] * depth + [2]


def test_soft_gate():
    gate, v = SoftGate(3, bias=True).double(), fields(3, (4, 3))
    torch.testing.assert_close(gate(v), v + 1)
    gate.weight.data = torch.tensor([1.0, 2, 3]).double()
    torch.testing.assert_close(gate(v)[:, 2], 3 * v[:, 2] + 1)
    assert SoftGate(3).bias is None
    torch.testing.assert_close(SoftGate(3).double()(v), v)


def test_norms_are_those_of_each_sample():
    v = 3.0 + 2.0 * fields(4, (16, 16))
    assert norm(None, 4)(v) is v
    each = InstanceNorm()(v)
    torch.testing.assert_close(each.mean((2, 3)), torch.zeros(2, 4).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(each.var((2, 3), correction=0), torch.ones(2, 4).double(), atol=1e-4, rtol=0)
    group = norm("group", 4).double()(v)
    torch.testing.assert_close(group.mean((1, 2, 3)), torch.zeros(2).double(), atol=1e-12, rtol=0)
    assert isinstance(norm("instance", 4), InstanceNorm)
    assert not list(InstanceNorm().parameters())


def test_skips():
    assert isinstance(skip("identity", 3, 3), nn.Identity)
    assert isinstance(skip("soft", 3, 3), SoftGate)
    assert isinstance(skip("linear", 3, 4), ChannelLinear)
    assert skip("linear", 3, 4).bias is None
    assert skip("linear", 3, 4, bias=True).bias is not None
    assert skip("soft", 3, 3, bias=True).bias is not None


def test_coordinates_of_periodic_and_closed_grids():
    x, y = coordinates((4, 3), [(0, 1), (-1, 1)])
    assert x[:, 0].tolist() == [0, 0.25, 0.5, 0.75]
    assert y[0].tolist() == pytest.approx([-1, -1 / 3, 1 / 3])
    x, y = coordinates((5, 3), [(0, 1), (-1, 1)], closed=True)
    assert x[:, 2].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert y[2].tolist() == [-1, 0, 1]
    assert coordinates((1,), [(2, 3)], closed=True).tolist() == [[2]]


def test_grid_embedding_appends_the_coordinates_on_any_grid():
    embedding = GridEmbedding([(0, 1), (0, 2)])
    for size in ((4, 3), (8, 6)):
        v = fields(3, size)
        out = embedding(v)
        assert out.shape == (2, 5, *size)
        assert out.dtype == v.dtype
        torch.testing.assert_close(out[:, :3], v)
        torch.testing.assert_close(out[1, 3:], coordinates(size, [(0, 1), (0, 2)], dtype=v.dtype))
    assert not list(embedding.state_dict())


@pytest.mark.parametrize("sides", ["end", "both"])
@pytest.mark.parametrize(
    ("mode", "torchs"),
    [("zeros", "constant"), ("replicate", "replicate"), ("reflect", "reflect"), ("circular", "circular")],
)
@pytest.mark.parametrize("grid", [(6,), (6, 5), (6, 5, 4)])
def test_padding_is_that_of_pytorch_and_cropping_its_inverse(grid, mode, torchs, sides):
    pad, v = DomainPad(2, sides=sides, mode=mode), fields(3, grid)
    padded = pad.pad(v)
    both = (2 if sides == "both" else 0, 2) * len(grid)
    torch.testing.assert_close(padded, nn.functional.pad(v, both, mode=torchs))
    assert torch.equal(pad.crop(padded, pad.cells(grid)), v)
    z = torch.complex(v, v.flip(0))
    torch.testing.assert_close(pad.pad(z).real, padded)


def test_padding_by_fractions_and_axes():
    assert DomainPad(0.078125).cells((128, 128)) == ((0, 10), (0, 10))
    assert DomainPad((0.25, 3), sides="both").cells((8, 8)) == ((2, 2), (3, 3))
    assert DomainPad((0, 6)).pad(fields(1, (4, 4))).shape == (2, 1, 4, 10)
    v = fields(1, (4, 4))
    assert DomainPad(0).pad(v) is v


BAD = [
    (lambda: ChannelLinear(0, 3), "inputs must be at least 1, got 0"),
    (lambda: ChannelLinear(3, 4)(torch.zeros(2, 4, 5)), r"v must have 3 channels, got shape \(2, 4, 5\)"),
    (lambda: ChannelMLP(3, 3, hidden=0), "hidden must be at least 1, got 0"),
    (lambda: ChannelMLP(3, 3, hidden=3, depth=-1), "depth must not be negative, got -1"),
    (lambda: SoftGate(0), "channels must be at least 1"),
    (lambda: norm("batch", 3), "norm must be None, 'instance' or 'group', got 'batch'"),
    (lambda: skip("conv", 3, 3), "skip must be 'identity', 'linear' or 'soft', got 'conv'"),
    (lambda: skip("soft", 3, 4), "skip must be 'linear' where 3 channels become 4, got 'soft'"),
    (lambda: GridEmbedding([]), "bounds must be rising pairs"),
    (lambda: GridEmbedding([(0, 1), (1, 1)]), "bounds must be rising pairs"),
    (
        lambda: GridEmbedding([(0, 1)])(torch.zeros(2, 3, 4, 4)),
        r"v must have a grid of 1 axes, got shape \(2, 3, 4, 4\)",
    ),
    (lambda: ChannelMLP(3, 0, hidden=3), "outputs must be at least 1, got 0"),
    (lambda: SoftGate(3)(torch.zeros(2, 1, 5)), r"v must have 3 channels, got shape \(2, 1, 5\)"),
    (lambda: norm("instance", 2)(torch.zeros(2, 2, 1)), r"v must have two points or more, got shape \(2, 2, 1\)"),
    (lambda: norm("group", 0), "channels must be at least 1, got 0"),
    (lambda: GridEmbedding([(0, math.inf)]), "bounds must be rising pairs"),
    (lambda: coordinates((4, 4), [(0, 1)]), r"bounds must have a pair for each of 2 axes, got \(\(0, 1\),\)"),
    *[(lambda bad=bad: DomainPad(bad), "amount must not be negative") for bad in (-1, math.nan, math.inf, True, ())],
    *[
        (lambda cells=cells: DomainPad.crop(torch.zeros(1, 1, 8), cells), r"leave a point of each axis of \(8,\), got")
        for cells in ([(5, 3)], [(-1, 0)], [(1, 1), (1, 1)])
    ],
    (lambda: DomainPad(1, sides="left"), "sides must be 'end' or 'both', got 'left'"),
    (lambda: DomainPad(1, mode="mirror"), "mode must be 'zeros', 'replicate', 'reflect' or 'circular', got 'mirror'"),
    (
        lambda: DomainPad((1, 2)).pad(torch.zeros(1, 1, 4)),
        r"amount must have a number for each of 1 axes, got \(1, 2\)",
    ),
    (
        lambda: DomainPad(4, mode="reflect").pad(torch.zeros(1, 1, 4)),
        "at most the axis for mode 'reflect', got 4 cells on 4",
    ),
    (lambda: DomainPad(5, mode="circular").pad(torch.zeros(1, 1, 4)), "at most the axis for mode 'circular', got 5"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

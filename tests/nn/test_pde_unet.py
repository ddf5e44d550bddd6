"""U-Nets for fields: the skeleton's wiring, PDEBench's baseline, and interpolation by matrices."""

import math

import pytest
import torch
from torch import nn

from pdebook.counting import parameter_count
from pdebook.nn.pde_unet import CONV, ConvBlock, UNetSkeleton, Upsample, conv_unet


class Note(nn.Module):
    """Pads or cuts the channels, and notes what it was made for."""

    def __init__(self, outputs: int, scale: float = 1.0) -> None:
        super().__init__()
        self.outputs, self.scale = outputs, scale

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        v = self.scale * v[:, : self.outputs]
        return torch.cat([v, v.new_zeros(len(v), self.outputs - v.shape[1], *v.shape[2:])], 1)


def skeleton(widths, join="skip_first", hook=None, made=None):
    made = [] if made is None else made

    def block(a, b):
        made.append((a, b))
        return Note(b)

    return UNetSkeleton(
        2,
        widths,
        block=block,
        down=lambda a, b: (nn.AvgPool1d(2), a),
        up=lambda a, b: (nn.Sequential(nn.Upsample(scale_factor=2.0), Note(b)), b),
        hook=hook,
        join=join,
    )


def test_channels_that_the_blocks_are_told():
    made = []
    net = skeleton((3, 5, 7), made=made)
    assert made == [(2, 3), (3, 5), (5, 7), (10, 5), (6, 3)]
    assert net.outputs == 3
    assert net(torch.randn(1, 2, 8)).shape == (1, 3, 8)
    added = []
    skeleton((3, 5), join="add", made=added)
    assert added == [(2, 3), (3, 5), (3, 3)]


def test_what_is_joined_in_which_order():
    v = torch.randn(1, 2, 4)
    coarse = v.unflatten(-1, (2, 2)).mean(-1)
    up = coarse.repeat_interleave(2, -1)
    # The blocks keep the first two channels of what is joined.
    torch.testing.assert_close(skeleton((2, 2), "skip_first")(v), v)
    torch.testing.assert_close(skeleton((2, 2), "up_first")(v), up)
    torch.testing.assert_close(skeleton((2, 2), "add")(v), v + up)


def test_hooks_act_on_skips_and_bottom_but_not_on_the_way_down():
    seen = []

    def hook(level, channels):
        seen.append((level, channels))
        return Note(channels, 10.0 ** (level + 1))

    net, v = skeleton((2, 2), "add", hook), torch.randn(1, 2, 4)
    up = v.unflatten(-1, (2, 2)).mean(-1).repeat_interleave(2, -1)
    torch.testing.assert_close(net(v), 10 * v + 100 * up)
    assert seen == [(0, 2), (1, 2)]


@pytest.mark.parametrize(("inputs", "outputs", "dims", "count"), [(10, 1, 1, 2_708_673), (20, 2, 2, 7_767_970)])
def test_the_baseline_of_pdebench_has_its_parameters(inputs, outputs, dims, count):
    assert parameter_count(conv_unet(inputs, outputs, dims)) == count


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"padding_mode": "circular", "norm": "group", "bias": True, "pool": "average"}]
)
def test_plain_unet(dims, options):
    torch.manual_seed(0)
    net = conv_unet(2, 3, dims, features=4, levels=3, **options)
    v = torch.randn(2, 2, *(8,) * dims)
    output = net(v)
    assert output.shape == (2, 3, *(8,) * dims)
    output.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    shifted = net(v.roll(4, -1))
    error = (shifted - output.roll(4, -1)).abs().max()
    # Two poolings: shifts by multiples of four cells commute with a periodic network.
    assert (error < 1e-5) == ("padding_mode" in options)


def test_blocks_in_order():
    block = ConvBlock(2, 3, 2, norm="batch", activation=nn.Tanh, bias=False)
    kinds = [type(m) for m in block]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.Tanh] * 2
    assert [m.in_channels for m in block if isinstance(m, nn.Conv2d)] == [2, 3]
    assert all(m.bias is None for m in block if isinstance(m, nn.Conv2d))
    assert [type(m) for m in ConvBlock(2, 3, 1, norm=None, repeats=1)] == [CONV[1], nn.GELU]
    assert ConvBlock(2, 16, 1, norm="groups")[1].num_groups == 2
    assert ConvBlock(2, 16, 1, norm="group")[1].num_groups == 1
    assert ConvBlock(2, 3, 1, kernel=5)(torch.zeros(1, 2, 7)).shape == (1, 3, 7)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("nearest", ("nearest",) * 3),
        ("linear", ("linear", "bilinear", "trilinear")),
        ("cubic", (None, "bicubic", None)),
    ],
)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_upsampling_is_that_of_pytorch(kind, names, dims):
    if names[dims - 1] is None:
        pytest.skip("PyTorch has no such interpolation")
    v = torch.randn(2, 3, *(6, 5, 4)[:dims], dtype=torch.float64)
    mine = Upsample(dims, kind, mode="replicate")(v)
    torch.testing.assert_close(mine, nn.functional.interpolate(v, scale_factor=2.0, mode=names[dims - 1]))
    wrapped = nn.functional.pad(v, (2, 2) * dims, mode="circular")
    wrapped = nn.functional.interpolate(wrapped, scale_factor=2.0, mode=names[dims - 1])
    for axis in range(2, dims + 2):
        wrapped = wrapped.narrow(axis, 4, 2 * v.shape[axis])
    torch.testing.assert_close(Upsample(dims, kind)(v), wrapped)


def test_upsampling_converges_with_its_order():
    """Linear interpolation has order 2; cubic convolution has order 1 unless a = -1/2, and PyTorch's a is -3/4."""
    for kind, order in (("linear", 2), ("cubic", 1)):
        errors = []
        for n in (32, 64):
            x = torch.arange(n).double() * 2 * math.pi / n
            fine = ((torch.arange(2 * n).double() - 0.5) / 2) * 2 * math.pi / n
            errors.append((Upsample(1, kind)(x.sin()[None, None])[0, 0] - fine.sin()).abs().max().item())
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)
    assert Upsample(1, "nearest")(torch.tensor([[[1.0, 2.0]]])).tolist() == [[[1, 1, 2, 2]]]


def test_upsampling_matrix_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        Upsample(1)(torch.ones(1, 1, 7))
    v = torch.ones(1, 1, 7, requires_grad=True)
    Upsample(1)(v).sum().backward()
    torch.testing.assert_close(v.grad, torch.full_like(v, 2.0))


BAD = [
    (lambda: skeleton(()), "widths must be positive, one for each level"),
    (lambda: skeleton((2, 0)), "widths must be positive"),
    (lambda: skeleton((2,), join="mean"), "join must be 'skip_first', 'up_first' or 'add', got 'mean'"),
    (
        lambda: UNetSkeleton(
            1,
            (2, 4),
            block=lambda a, b: Note(b),
            down=lambda a, b: (nn.AvgPool1d(2), a),
            up=lambda a, b: (nn.Upsample(scale_factor=2.0), a),
            join="add",
        ),
        "join must not be 'add' where 4 channels meet 2",
    ),
    (
        lambda: skeleton((2, 2, 2))(torch.zeros(1, 2, 6)),
        r"sides that halve 2 times, got \(3,\) on the way down and \(2,\)",
    ),
    (lambda: ConvBlock(2, 3, 4), "dims must be 1, 2 or 3, got 4"),
    (lambda: ConvBlock(2, 3, 2, padding_mode="reflect"), "padding_mode must be 'zeros' or 'circular', got 'reflect'"),
    (lambda: ConvBlock(2, 3, 2, norm="layer"), "norm must be 'batch', 'group', 'groups' or None, got 'layer'"),
    (lambda: ConvBlock(2, 3, 2, kernel=2), "kernel odd, got 2 and 2"),
    (lambda: ConvBlock(2, 3, 2, repeats=0), "repeats must be at least 1"),
    (lambda: conv_unet(0, 1, 2), "inputs must be at least 1, got 0"),
    (lambda: conv_unet(1, 0, 2), "levels, features and outputs must be at least 1, got 5, 32 and 0"),
    (lambda: ConvBlock(2, 0, 2), "inputs and outputs must be at least 1, got 2 and 0"),
    (
        lambda: conv_unet(1, 1, 2, features=2, levels=2)(torch.zeros(1, 2, 8, 8)),
        r"v must have 1 channels on a grid, got shape \(1, 2, 8, 8\)",
    ),
    (lambda: Upsample(2)(torch.zeros(2, 2, 4)), r"v must have a grid of 2 axes, got shape \(2, 2, 4\)"),
    (lambda: Upsample(2, "spline"), r"kind must be one of \['cubic', 'linear', 'nearest'\], got 'spline'"),
    (lambda: Upsample(2, mode="zeros"), "mode must be 'circular' or 'replicate', got 'zeros'"),
    (lambda: Upsample(0), "dims must be 1, 2 or 3, got 0"),
    (lambda: conv_unet(1, 1, 2, levels=0), "levels, features and outputs must be at least 1, got 0, 32 and 1"),
    (lambda: conv_unet(1, 1, 2, pool="min"), "pool must be 'max' or 'average', got 'min'"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

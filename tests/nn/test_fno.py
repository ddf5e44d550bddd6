"""The Fourier neural operator: block by block, on every grid, in the sizes of its baselines."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from pdebook.counting import parameter_count
from pdebook.fourier import resample
from pdebook.nn.fno import FNO, FNOBlock
from pdebook.nn.grid_embedding import GridEmbedding
from pdebook.nn.padding import DomainPad
from pdebook.truncated import from_modes, to_modes


def made(build, *arguments, **options):
    torch.manual_seed(0)
    return build(*arguments, **options).double()


def fields(channels: int, size: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def smooth(channels: int, size: tuple[int, ...]) -> torch.Tensor:
    return from_modes(to_modes(fields(channels, (8,) * len(size)), (5,) * len(size)), (5,) * len(size), size)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", [None, "group"])
def test_block_with_activation_after(kind, last):
    block, v = made(FNOBlock, 4, (4, 4), norm_kind=kind, last=last, activation=nn.Tanh), fields(4, (8, 8))
    block.mlp_skip.weight.data.uniform_(-2.0, 2.0)
    y = block.norms[0](block.spectral(v)) + block.skip(v)
    y = y if last else y.tanh()
    y = block.norms[1](block.mlp(y) + block.mlp_skip(v))
    torch.testing.assert_close(block(v), y if last else y.tanh())


@pytest.mark.parametrize("last", [False, True])
def test_block_with_activation_before(last):
    block = made(FNOBlock, 4, (4, 4), norm_kind="group", last=last, activation=nn.Tanh, preactivation=True)
    block.mlp_skip.weight.data.uniform_(-2.0, 2.0)
    v = fields(4, (8, 8))
    u = block.norms[0](v.tanh())
    y = block.spectral(u) + block.skip(u)
    y = block.norms[1](y if last else y.tanh())
    torch.testing.assert_close(block(v), block.mlp(y) + block.mlp_skip(u))


def test_block_without_perceptron_or_skips():
    block, v = made(FNOBlock, 4, (4, 4), mlp=None, activation=nn.Tanh, skip_bias=True), fields(4, (8, 8))
    torch.testing.assert_close(block(v), (block.spectral(v) + block.skip(v)).tanh())
    assert block.skip.bias is not None
    bare = made(FNOBlock, 4, (4, 4), mlp=1.5, skip_kind=None, mlp_skip=None, last=True)
    torch.testing.assert_close(bare(v), bare.mlp(bare.spectral(v)))
    assert bare.mlp[0].weight.shape == (6, 4)


def test_stabiliser_bounds_what_the_spectral_path_sees():
    block, v = made(FNOBlock, 4, (4, 4), stabiliser=True, mlp=None, skip_kind="identity", last=True), fields(4, (8, 8))
    torch.testing.assert_close(block(1e3 * v), block.spectral((1e3 * v).tanh()) + 1e3 * v)
    half = made(FNOBlock, 4, (4, 4), stabiliser=True, mlp=None, skip_kind=None, last=True, precision=torch.float16)
    assert half(1e6 * v).isfinite().all()
    half.stabiliser = False
    assert not half(1e6 * v).isfinite().all()


@pytest.mark.parametrize("preactivation", [False, True])
def test_block_to_another_grid(preactivation):
    """With nothing but linear parts the finer output is the interpolant of the coarse one."""
    block = made(FNOBlock, 4, (5, 5), activation=nn.Identity, preactivation=preactivation)
    v = smooth(4, (8, 8))
    torch.testing.assert_close(block(v, (12, 10)), resample(block(v), (12, 10)))


@pytest.mark.parametrize("modes", [(5,), (4, 5), (4, 3, 2)])
@pytest.mark.parametrize("weight", ["dense", "tucker"])
def test_model_fits_together_in_all_dimensions(modes, weight):
    net = made(FNO, 2, 3, modes, width=6, layers=2, weight=weight, rank=0.5)
    v = fields(2, (8,) * len(modes))
    output = net(v)
    assert output.shape == (2, 3, *v.shape[2:])
    torch.testing.assert_close(net(v[1:]), output[1:])
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert [block.last for block in net.blocks] == [False, True]


def test_linear_model_gives_samples_of_one_function_on_every_grid():
    net = made(FNO, 2, 3, (5, 5), width=6, grid=False, activation=nn.Identity, norm_kind=None)
    coarse = smooth(2, (8, 8))
    output = net(coarse)
    for n in (16, 32):
        torch.testing.assert_close(net(resample(coarse, (n, n))), resample(output, (n, n)), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(net(coarse, (n, n)), resample(output, (n, n)), rtol=1e-9, atol=1e-10)


def test_resolutions_differ_by_the_aliases_of_the_activation_alone():
    net = made(FNO, 1, 1, (5, 5), width=8, grid=False)
    v = smooth(1, (8, 8))
    outputs = [net(resample(v, (n, n)))[..., :: n // 8, :: n // 8] for n in (16, 32, 64)]
    first, second = ((a - b).abs().max() for a, b in pairwise(outputs))
    assert 0 < 4 * second < first


def test_coordinates_break_the_symmetry():
    v = fields(1, (8, 8)).expand(2, 1, 8, 8)
    shifted = [made(FNO, 1, 1, (4, 4), width=4, grid=grid) for grid in (False, True)]
    without, with_grid = ((net(v.roll(3, -1)) - net(v).roll(3, -1)).abs().max() for net in shifted)
    assert without < 1e-12 < 1e-3 < with_grid
    closed = made(FNO, 1, 1, (4, 4), width=4, grid=GridEmbedding([(0, 1), (0, 1)], closed=True))
    assert (closed(v) - shifted[1](v)).abs().max() > 1e-3


def test_padding_makes_the_ends_no_neighbours():
    pad = DomainPad(4)
    net, v = made(FNO, 1, 1, (4,), width=4, grid=False, padding=pad), fields(1, (8,))
    by_hand = net.lift(v)
    by_hand = pad.pad(by_hand)
    for block in net.blocks:
        by_hand = block(by_hand)
    torch.testing.assert_close(net(v), net.project(by_hand[..., :8]))
    # On a finer grid the padding keeps its length.
    linear = made(FNO, 1, 1, (4,), width=4, grid=False, padding=DomainPad(0.5, sides="both"), activation=nn.Identity)
    assert linear(v, (16,)).shape == (2, 1, 16)
    torch.testing.assert_close(linear(v, (16,))[..., ::2], linear(v))
    with pytest.raises(ValueError, match=r"size must hold the padding \(\(4, 4\),\) of \(8,\) a whole number of times"):
        linear(v, (9,))


@pytest.mark.parametrize("weight", ["tucker", "cp", "tt"])
def test_one_tensor_for_all_layers(weight):
    net = made(FNO, 1, 1, (4, 4), width=6, layers=3, weight=weight, rank=0.4, joint=True)
    assert [block.last for block in net.blocks] == [False, False, True]
    tensors = {id(block.spectral.weight) for block in net.blocks}
    assert len(tensors) == 1
    assert net.blocks[0].spectral.weight.shape == (3, 6, 6, 4, 3)
    shared = parameter_count(net.blocks[0].spectral.weight)
    assert parameter_count(net.blocks) == shared + sum(
        p.numel() for name, p in net.blocks.named_parameters() if "spectral.weight" not in name
    )
    v = fields(1, (8, 8))
    assert not torch.allclose(net.blocks[0].spectral.to_dense(), net.blocks[1].spectral.to_dense())
    # The state dict goes into another one.
    other = FNO(1, 1, (4, 4), width=6, layers=3, weight=weight, rank=0.4, joint=True).double()
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(v), net(v))


@pytest.mark.parametrize("weight", ["tucker", "cp", "tt"])
def test_a_shared_tensor_starts_in_the_scale_of_separate_ones(weight):
    torch.manual_seed(0)
    nets = [FNO(1, 1, (8, 8), width=16, layers=4, weight=weight, rank=0.5, joint=joint) for joint in (False, True)]
    scales = [
        torch.stack([b.spectral.to_dense() for b in net.blocks]).detach().abs().square().mean().sqrt() for net in nets
    ]
    assert float(scales[1]) == pytest.approx(float(scales[0]), rel=0.3)
    assert float(scales[1]) == pytest.approx(16**-0.5, rel=0.3)


def test_separable_shared_tensor():
    net = made(FNO, 1, 1, (4, 4), width=6, layers=3, weight="cp", rank=0.5, joint=True, separable=True)
    assert net.blocks[0].spectral.weight.shape == (3, 6, 4, 3)
    assert net(fields(1, (8, 8))).shape == (2, 1, 8, 8)


def test_incremental_modes_reach_all_blocks():
    net, v = made(FNO, 1, 1, (6, 6), width=4, layers=2), fields(1, (8, 8))
    before = net(v)
    net.set_modes((2, 2))
    assert (net(v) - before).abs().max() > 1e-4
    assert {block.spectral.active for block in net.blocks} == {(2, 2)}
    net.set_modes((6, 6))
    torch.testing.assert_close(net(v), before)


@pytest.mark.parametrize(("inputs", "outputs", "modes", "count"), [(10, 1, (23,), 23_937), (20, 2, (24, 23), 465_886)])
def test_the_baseline_of_pdebench_has_its_parameters(inputs, outputs, modes, count):
    """12 modes kept along the last axis, which is 23 in total; its weights count as complex numbers."""
    net = FNO(
        inputs,
        outputs,
        modes,
        width=20,
        lifting=0,
        projection=128,
        mlp=None,
        skip_bias=True,
        bias=False,
        init="uniform",
        padding=DomainPad(2),
    )
    assert parameter_count(net, complex_as=1) == count
    assert net(torch.randn(1, inputs, *(32,) * len(modes))).shape == (1, outputs, *(32,) * len(modes))


def test_the_default_has_the_parameters_of_neuraloperators():
    assert parameter_count(FNO(1, 1, (24, 24), width=64), complex_as=1) == 5_162_689


BAD = [
    (lambda: FNO(1, 1, (4,), width=4, layers=0), "layers must be at least 1, got 0"),
    *[
        (lambda bad=bad: FNO(**{"inputs": 1, "outputs": 1, "modes": (4,), "width": 4} | bad), words)
        for bad, words in (
            ({"inputs": 0}, "inputs must be at least 1, got 0"),
            ({"outputs": 0}, "outputs must be at least 1, got 0"),
            ({"width": 0}, "width must be at least 1, got 0"),
            ({"lifting": -1}, "lifting must be at least 0, got -1"),
            ({"projection": -2}, "projection must be at least 0, got -2"),
            ({"mlp": 0.1}, "mlp must give a hidden channel or more of 4, got 0.1"),
        )
    ],
    (lambda: FNO(1, 1, (4, 0), width=4), "modes must hold a positive integer"),
    (lambda: FNO(1, 1, (4,), width=4, joint=True), "shared must be False for a dense tensor"),
    (lambda: FNO(1, 1, (4,), width=4, joint=True, weight="svd"), "weight must be one of .* got 'svd'"),
    (lambda: FNO(1, 1, (4,), width=4, weight="tucker", rank=0), "rank must be at least 1"),
    (lambda: FNO(1, 1, (4,), width=4, norm_kind="batch"), "norm must be None, 'instance' or 'group', got 'batch'"),
    (
        lambda: FNO(2, 1, (4,), width=4)(torch.zeros(1, 1, 8)),
        r"v must have 2 channels on a grid, got shape \(1, 1, 8\)",
    ),
    (lambda: FNO(2, 1, (4,), width=4)(torch.zeros(1, 2, 3)), r"modes must be at most the grid's size"),
    (lambda: FNO(2, 1, (4,), width=4)(torch.zeros(1, 2, 8, 8)), "v must have a grid of 1 axes"),
    (lambda: FNO(2, 1, (4, 4), width=4).set_modes((6, 4)), r"modes must be at most \(4, 4\), got \(6, 4\)"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

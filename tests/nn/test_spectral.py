"""Spectral convolution: against its definition, on several grids, in parts, in half precision."""

import copy
import math

import pytest
import torch

from pdebook.fourier import resample
from pdebook.nn.factorized import WEIGHTS, Tucker
from pdebook.nn.spectral import SpectralConv
from pdebook.truncated import from_modes, kept_shape, kept_within, to_modes

CASES = [((12,), (5,)), ((12,), (6,)), ((10, 8), (4, 6)), ((10, 8), (5, 3)), ((6, 8, 5), (4, 3, 4))]


def layer(*arguments, seed: int = 0, **options) -> SpectralConv:
    torch.manual_seed(seed)
    return SpectralConv(*arguments, **options).double()


def fields(channels: int, size: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def by_definition(conv: SpectralConv, x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """With the reference transforms and einsum."""
    c = to_modes(x, conv.modes, backend="fft")
    letters = "xyz"[: len(size)]
    pattern = f"bc{letters},c{letters}->bc{letters}" if conv.separable else f"bi{letters},io{letters}->bo{letters}"
    y = from_modes(torch.einsum(pattern, c, conv.to_dense()), conv.modes, size, backend="fft")
    return y if conv.bias is None else y + conv.bias.reshape(-1, *[1] * len(size))


@pytest.mark.parametrize(("size", "modes"), CASES)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("separable", [False, True])
def test_definition(size, modes, weight, separable):
    conv = layer(3, 3 if separable else 4, modes, weight=weight, rank=0.5, separable=separable)
    x = fields(3, size)
    for out in (size, tuple(n + 3 for n in size), modes):
        expected = by_definition(conv, x, out)
        torch.testing.assert_close(conv(x, out), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(conv(x), by_definition(conv, x, size), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "modes"), CASES)
def test_backends_agree_in_single_precision(size, modes):
    conv = layer(8, 8, modes).float()
    x = fields(8, size).float()
    outputs = []
    for backend in ("fft", "crop", "dft"):
        conv.backend = backend
        outputs.append(conv(x))
    for output in outputs[1:]:
        assert (output - outputs[0]).abs().max() < 1e-6 * outputs[0].abs().max()


def test_the_same_weights_on_every_grid():
    """A field without modes beyond the coarsest grid: outputs are samples of one function."""
    conv = layer(2, 3, (6, 7))
    coarse = from_modes(to_modes(fields(2, (16, 16)), (7, 7)), (7, 7), (9, 10))
    output = conv(coarse)
    for n in (16, 32, 31):
        torch.testing.assert_close(conv(resample(coarse, (n, n))), resample(output, (n, n)), rtol=1e-11, atol=1e-12)


def test_it_commutes_with_shifts():
    conv, x = layer(2, 2, (5, 4)), fields(2, (8, 10))
    torch.testing.assert_close(conv(x.roll((3, 4), (-2, -1))), conv(x).roll((3, 4), (-2, -1)))


def test_bias_is_a_constant_and_can_be_left_out():
    conv, x = layer(2, 3, (4, 4)), fields(2, (8, 8))
    with_bias = conv(x)
    torch.testing.assert_close(conv(torch.zeros_like(x)), conv.bias[:, None, None].expand(2, 3, 8, 8))
    bias, conv.bias = conv.bias, None
    torch.testing.assert_close(conv(x) + bias[:, None, None], with_bias)
    assert layer(2, 3, (4, 4), bias=False).bias is None


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("few", [(3, 4), (6, 3), (1, 1)])
def test_fewer_modes_are_those_of_the_centre(weight, few):
    conv, x = layer(2, 3, (6, 5), weight=weight, rank=0.6), fields(2, (10, 8))
    kept = kept_within(few, (6, 5))
    expected = to_modes(x, (6, 5), backend="fft")
    mask = torch.zeros(6, 3, dtype=torch.float64)
    mask[kept[0][:, None], kept[1]] = 1
    expected = from_modes(torch.einsum("bixy,ioxy->boxy", expected * mask, conv.to_dense()), (6, 5), (10, 8))
    conv.set_modes(few)
    torch.testing.assert_close(conv(x), expected + conv.bias[:, None, None])
    # A grid too small for all modes holds the few.
    assert conv(fields(2, few)).shape == (2, 3, *few)
    conv(x).square().sum().backward()
    conv.set_modes((6, 5))
    torch.testing.assert_close(conv(x), by_definition(conv, x, (10, 8)))


def test_unused_modes_get_no_gradient():
    conv = layer(2, 2, (6, 5))
    conv.set_modes((3, 2))
    conv(fields(2, (8, 8))).square().sum().backward()
    used = conv.weight.matrices.grad.abs().sum((1, 2, 3)).reshape(kept_shape((6, 5))) > 0
    assert used.sum() == 6
    assert used[[0, 1, -1]][:, :2].all()


@pytest.mark.parametrize("weight", ["tucker", "tt"])
@pytest.mark.parametrize("separable", [False, True])
def test_exact_decomposition_of_a_dense_layer(weight, separable):
    conv, x = layer(3, 3, (4, 5), separable=separable), fields(3, (8, 8))
    conv.set_modes((4, 3))
    shape = conv.to_dense().shape
    full = (
        shape if weight == "tucker" else [min(math.prod(shape[:k]), math.prod(shape[k:])) for k in range(1, len(shape))]
    )
    found = conv.factorized(weight, tuple(full))
    assert found.weight.kind == weight
    assert found.bias is not conv.bias
    torch.testing.assert_close(found(x), conv(x), rtol=1e-12, atol=1e-12)
    # In single precision, and back to dense.
    single = conv.float().factorized(weight, tuple(full))
    torch.testing.assert_close(single(x.float()), conv(x.float()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.factorized("dense", 1.0).to_dense(), found.to_dense())


def test_low_rank_decomposition_by_least_squares():
    conv = layer(3, 4, (4, 5), weight="cp", rank=2)
    found = conv.factorized("dense", 1.0).factorized("cp", 2)
    torch.testing.assert_close(found.to_dense(), conv.to_dense(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight", ["tucker", "cp", "tt"])
def test_layers_that_share_one_tensor(weight):
    torch.manual_seed(0)
    shared = WEIGHTS[weight]((3, 2, 4, *kept_shape((4, 5))), 0.5, shared=True)
    shared.initialise(0.3)
    layers = torch.nn.ModuleList(SpectralConv(2, 4, (4, 5), weight=shared, layer=i) for i in range(3)).double()
    x = fields(2, (8, 8))
    for conv in layers:
        torch.testing.assert_close(conv(x), by_definition(conv, x, (8, 8)), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(layers[0].to_dense(), layers[1].to_dense())
    # The tensor counts once, and a copy keeps it shared.
    twin = copy.deepcopy(layers)
    assert twin[0].weight is twin[2].weight is not shared
    assert len(list(twin.parameters())) == len(list(shared.parameters())) + 3
    sum(conv(x).square().sum() for conv in layers).backward()
    assert all(p.grad is not None and p.grad.any() for p in layers.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weight", ["dense", "tucker"])
@pytest.mark.parametrize("separable", [False, True])
def test_half_precision_path(dtype, weight, separable):
    conv = layer(4, 4, (6, 5), weight=weight, rank=0.5, separable=separable, precision=dtype).float()
    x = torch.tanh(fields(4, (12, 10)).float())
    for modes in ((6, 5), (4, 3)):
        conv.set_modes(modes)
        low = conv(x)
        conv.precision = None
        exact = conv(x)
        conv.precision = dtype
        assert low.dtype == torch.float32
        # Three rounded products, whose terms average out.
        assert (low - exact).abs().max() < 4 * torch.finfo(dtype).eps * exact.abs().max()
        assert (low - exact).abs().max() > 0
    low.square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in conv.parameters())


def test_autocast_does_not_touch_the_transforms():
    conv, x = layer(4, 4, (6, 5)).float(), fields(4, (12, 10)).float()
    with torch.autocast("cpu", torch.bfloat16):
        output = conv(x.bfloat16())
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, conv(x.bfloat16().float()))


def test_gradients():
    conv, x = layer(2, 2, (3, 2)), fields(2, (4, 3), batch=1).requires_grad_()
    matrices, bias = conv.weight.matrices, conv.bias
    call = lambda x, w, b: torch.func.functional_call(conv, {"weight.matrices": w, "bias": b}, (x, (3, 3)))  # noqa: E731
    assert torch.autograd.gradcheck(call, (x, matrices, bias))
    assert torch.autograd.gradgradcheck(call, (x, matrices, bias))


def test_derivative_along_a_direction_and_per_sample_gradients():
    conv, x = layer(2, 2, (3, 4)), fields(2, (6, 6))
    _, tangent = torch.func.jvp(conv, (x,), (x,))
    torch.testing.assert_close(tangent, conv(x) - conv(torch.zeros_like(x)))
    each = torch.func.vmap(lambda one: conv(one[None])[0])(x)
    torch.testing.assert_close(each, conv(x))


def test_initial_scales():
    normal = layer(8, 24, (12, 12))
    assert normal.to_dense().detach().abs().square().mean().sqrt() == pytest.approx(math.sqrt(2 / 32), rel=0.05)
    assert layer(8, 8, (4, 4), scale=0.01).to_dense().abs().max() < 0.06
    uniform = layer(5, 4, (12, 12), init="uniform").to_dense().detach()
    parts = torch.view_as_real(uniform)
    assert parts.min() >= 0
    assert parts.max() < 1 / 20
    assert parts.mean() == pytest.approx(1 / 40, rel=0.05)


SHARED = Tucker((3, 2, 4, 4, 3), 0.5, shared=True)
BAD = [
    (lambda: layer(0, 2, (4, 4)), "inputs and outputs must be at least 1"),
    (lambda: layer(2, 3, (4, 4), separable=True), "equal if separable, got 2 and 3"),
    (lambda: layer(2, 3, (4, 0)), "modes must hold a positive integer"),
    *[(lambda s=s: layer(2, 3, (4, 4), scale=s), f"scale must be positive, got {s}") for s in (0.0, -1.0, math.nan)],
    (lambda: layer(2, 3, (4, 4), backend="nufft"), "backend must be 'auto', 'fft', 'crop' or 'dft', got 'nufft'"),
    (lambda: layer(2, 3, (4, 4))(fields(2, (8, 8)), (8, -8)), r"size must hold a positive integer .* \(8, -8\)"),
    (lambda: layer(2, 3, (4, 4), weight="svd"), r"weight must be one of \['cp', 'dense', 'tt', 'tucker'\].*got 'svd'"),
    (lambda: layer(2, 3, (4, 4), weight="tucker", rank=0), "rank must be at least 1"),
    (lambda: layer(2, 3, (4, 4), layer=1), "layer must be None for weights that are not shared, got 1"),
    (lambda: layer(2, 4, (4, 4), weight=SHARED), "layer must be a layer of the shared tensor, 0 ... 2, got None"),
    (lambda: layer(2, 4, (4, 4), weight=SHARED, layer=3), "0 ... 2, got 3"),
    (lambda: layer(2, 5, (4, 4), weight=SHARED, layer=0), r"shape \(layers, 2, 5, 4, 3\), got \(3, 2, 4, 4, 3\)"),
    (lambda: layer(2, 3, (4, 4), init="zeros"), "init must be 'normal' or 'uniform', got 'zeros'"),
    (lambda: layer(2, 3, (4, 4), weight="cp", init="uniform"), "init must be 'normal' for weights in factors"),
    (lambda: layer(2, 3, (4, 4), precision=torch.float64), "precision must be torch.float16 or torch.bfloat16"),
    (lambda: layer(2, 3, (4, 4), precision=torch.float16, backend="fft"), "with backend 'auto' or 'dft'"),
    (
        lambda: layer(2, 3, (4, 4))(fields(3, (8, 8))),
        r"x must have 2 channels and 2 axes of a grid, got shape \(2, 3, 8, 8\)",
    ),
    (lambda: layer(2, 3, (4, 4))(fields(2, (8,))), "x must have 2 channels and 2 axes"),
    (lambda: layer(2, 3, (4, 4))(fields(2, (8, 3))), r"modes must be at most the grid's size.*\(4, 4\) on \(8, 3\)"),
    (lambda: layer(2, 3, (4, 4))(fields(2, (8, 8)), (2, 8)), r"modes must be at most.*\(4, 4\) on \(2, 8\)"),
    (lambda: layer(2, 3, (4, 4), precision=torch.bfloat16)(fields(2, (8, 3))), r"modes must be at most.* on \(8, 3\)"),
    (lambda: layer(2, 3, (4, 4), precision=torch.bfloat16)(fields(2, (8, 8)), (2, 8)), r"modes must be .* on \(2, 8\)"),
    (lambda: layer(2, 3, (4, 4)).set_modes((6, 4)), r"modes must be at most \(4, 4\), got \(6, 4\)"),
    (lambda: layer(2, 3, (4, 4), backend="nufft")(fields(2, (8, 8))), "backend must be 'auto', 'fft', 'crop' or 'dft'"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

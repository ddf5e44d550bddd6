import pytest
import torch
from torch import nn

from pdebook.nn.mlp import MLP, LipSwish, ModulatedBlock, ModulatedMLP, initialised


def test_starts_at_exactly_zero_and_learns_to_leave_it() -> None:
    net = ModulatedMLP(3, 2, width=8, blocks=2, condition=4)
    x, condition = torch.randn(5, 3), torch.randn(5, 4)
    assert torch.equal(net(x, condition), torch.zeros(5, 2))
    net(x, condition).sum().backward()
    assert net.last[-1].weight.grad.any()


def test_a_block_starts_as_the_identity() -> None:
    block, h = ModulatedBlock(8, 4), torch.randn(5, 8)
    assert torch.equal(block(h, torch.randn(5, 4)), h)


def test_a_block_is_its_formula() -> None:
    block, h = ModulatedBlock(6, 2).double(), torch.randn(3, 6, dtype=torch.float64)
    torch.nn.init.normal_(block.layers[-1].weight)
    c = torch.randn(3, 2, dtype=torch.float64)
    scale, shift = block.modulation(c)[:, :6], block.modulation(c)[:, 6:]
    centred = h - h.mean(1, keepdim=True)
    normed = centred / (centred.square().mean(1, keepdim=True) + block.norm.eps).sqrt()
    _, first, _, second = block.layers
    inner = torch.nn.functional.silu((1 + scale) * normed + shift)
    expected = h + second(torch.nn.functional.silu(first(inner)))
    torch.testing.assert_close(block(h, c), expected, rtol=1e-12, atol=1e-12)


def test_blocks_follow_each_other() -> None:
    net = ModulatedMLP(3, 2, width=8, blocks=2, condition=4)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    x, c = torch.randn(4, 5, 3), torch.randn(4, 5, 4)
    first, second = net.blocks
    assert torch.equal(net(x, c), net.last(second(first(net.first(x), c), c)))


@pytest.mark.parametrize("name", ["inputs", "outputs", "width", "blocks", "condition"])
def test_bad_sizes(name: str) -> None:
    sizes = dict.fromkeys(["inputs", "outputs", "width", "blocks", "condition"], 2) | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ModulatedMLP(**sizes)


def test_a_perceptron_is_its_formula() -> None:
    net = MLP(3, 2, width=5, depth=2, activation=nn.Softplus, final=nn.Tanh).double()
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    first, second, last = (layer for layer in net if isinstance(layer, nn.Linear))
    rho = nn.functional.softplus
    torch.testing.assert_close(net(x), torch.tanh(last(rho(second(rho(first(x)))))), rtol=0, atol=0)
    assert [tuple(layer.weight.shape) for layer in (first, second, last)] == [(5, 3), (5, 5), (2, 5)]
    # Without a final activation the output is linear in the last layer.
    assert isinstance(MLP(3, 2, width=5)[-1], nn.Linear)
    assert isinstance(MLP(3, 2, width=5)[1], nn.Tanh)


def test_a_perceptron_without_hidden_layers_is_linear() -> None:
    net = MLP(3, 2, width=5, depth=0)
    assert [type(layer) for layer in net] == [nn.Linear]


def test_lipswish_has_slope_at_most_one_and_nearly_reaches_it() -> None:
    x = torch.linspace(-30.0, 30.0, 600_001, dtype=torch.float64).requires_grad_()
    y = LipSwish()(x)
    torch.testing.assert_close(y, 0.909 * x * torch.sigmoid(x))
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert 0.999 < slope.abs().max() <= 1.0


def test_first_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    nets = [initialised(lambda: MLP(2, 1, width=4), seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(nets[0][0].weight, nets[1][0].weight)
    assert not torch.equal(nets[0][0].weight, nets[2][0].weight)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"inputs": 0}, "inputs must be at least 1, got 0"),
        ({"outputs": 0}, "outputs must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": -1}, "depth must not be negative, got -1"),
    ],
)
def test_bad_sizes_of_a_perceptron(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(**({"inputs": 2, "outputs": 2, "width": 2, "depth": 1} | sizes))

import pytest
import torch

from pdebook.nn.mlp import ModulatedBlock, ModulatedMLP


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

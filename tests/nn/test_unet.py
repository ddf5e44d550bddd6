import pytest
import torch

from pdebook.nn.conv import ModulatedConvBlock
from pdebook.nn.unet import UNet


def trained(net: UNet) -> UNet:
    """With layers that start at zero set to something else."""
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def test_starts_at_exactly_zero() -> None:
    net = UNet(2, (8, 16))
    assert torch.equal(net(torch.randn(3, 2, 8, 8), torch.randn(3)), torch.zeros(3, 2, 8, 8))


@pytest.mark.parametrize("widths", [(8,), (8, 16), (16, 8, 24)])
@pytest.mark.parametrize("blocks", [1, 2])
def test_levels_fit_together(widths: tuple[int, ...], blocks: int) -> None:
    net = trained(UNet(1, widths, blocks=blocks, classes=3))
    x, level, label = torch.randn(2, 1, 8, 12), torch.randn(2), torch.tensor([0, 1])
    output = net(x, level, label)
    assert output.shape == x.shape
    # Down, up with one more, one across the bottom.
    assert sum(isinstance(module, ModulatedConvBlock) for module in net.modules()) == len(widths) * (2 * blocks + 1) + 1
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters()), "every parameter takes part"


def test_depends_on_noise_level_and_class_sample_by_sample() -> None:
    net = trained(UNet(1, (8, 16))).double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64).expand(4, -1, -1, -1)
    level, label = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64), torch.tensor([10, 10, 4, 10])
    output = net(x, level, label)
    # Summation order may differ with the place in the batch.
    torch.testing.assert_close(output[0], output[3], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net(x[:1], level[:1])[0], output[0], rtol=1e-12, atol=1e-12)
    assert (output[1] - output[0]).abs().max() > 1e-6
    assert (output[2] - output[0]).abs().max() > 1e-6


def test_attention_at_the_bottom_takes_part() -> None:
    net, x, level = trained(UNet(1, (8, 16))), torch.randn(1, 1, 8, 8), torch.zeros(1)
    before = net(x, level)
    torch.nn.init.zeros_(net.attention.out.weight)
    assert (net(x, level) - before).abs().max() > 1e-4


def test_gradients() -> None:
    """Through the skip connections too."""
    net = trained(UNet(1, (8, 8), blocks=1)).double()
    x, level = torch.randn(1, 1, 2, 4).double().requires_grad_(), torch.zeros(1).double().requires_grad_()
    assert torch.autograd.gradcheck(net, (x, level))


@pytest.mark.parametrize("widths", [(), (12,), (8, 0)])
def test_bad_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="widths must be positive multiples of 8"):
        UNet(1, widths)


def test_sides_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"sides that are multiples of 4, got \(1, 1, 8, 6\)"):
        UNet(1, (8, 8, 8))(torch.randn(1, 1, 8, 6), torch.zeros(1))

import pytest
import torch

from pdebook.nn.conv import ConvClassifier, ModulatedConvBlock, PixelAttention, group_norm


def test_blocks_start_as_the_identity() -> None:
    h = torch.randn(2, 16, 4, 4)
    assert torch.equal(ModulatedConvBlock(16, 16, 3)(h, torch.randn(2, 3)), h)
    assert torch.equal(PixelAttention(16, heads=2)(h), h)


def test_a_block_changes_the_number_of_channels_by_its_skip() -> None:
    block, h = ModulatedConvBlock(16, 24, 3), torch.randn(2, 16, 4, 4)
    assert torch.equal(block(h, torch.randn(2, 3)), block.skip(h))


def test_scale_and_shift_act_after_the_second_norm() -> None:
    block, h = ModulatedConvBlock(8, 8, 3).double(), torch.randn(2, 8, 4, 4, dtype=torch.float64)
    torch.nn.init.normal_(block.after[-1].weight)
    c = torch.randn(2, 3, dtype=torch.float64)
    scale, shift = block.modulation(c)[:, :8, None, None], block.modulation(c)[:, 8:, None, None]
    inner = block.norm(block.before(h)) * (1 + scale) + shift
    torch.testing.assert_close(block(h, c), h + block.after(inner), rtol=1e-12, atol=1e-12)


def test_attention_is_attention_among_pixels() -> None:
    """Against the formula, head by head, in float64."""
    layer, h = PixelAttention(16, heads=2).double(), torch.randn(3, 16, 2, 3, dtype=torch.float64)
    torch.nn.init.normal_(layer.out.weight)
    query, key, value = layer.project(layer.norm(h)).flatten(2).chunk(3, 1)
    heads = []
    for head in range(2):
        q, k, v = (part[:, 8 * head : 8 * head + 8] for part in (query, key, value))
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / 8**0.5, -1)
        heads.append(torch.einsum("bij,bcj->bci", weights, v))
    expected = h + layer.out(torch.cat(heads, 1).reshape(h.shape))
    torch.testing.assert_close(layer(h), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="heads must divide the 12 channels, got 5"):
        PixelAttention(12, heads=5)


@pytest.mark.parametrize(("channels", "groups"), [(64, 8), (24, 3), (7, 1)])
def test_groups_hold_eight_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_classifier() -> None:
    net = ConvClassifier(8, 10)
    images = torch.randn(5, 1, 8, 8)
    features = net.features(images)
    assert features.shape == (5, 64)
    assert (features >= 0).all()
    assert torch.equal(net(images), net.head(features))
    assert torch.equal(net(images.flatten(1)), net(images))
    with pytest.raises(ValueError, match="size must be even and at least 2, got 7"):
        ConvClassifier(7, 10)

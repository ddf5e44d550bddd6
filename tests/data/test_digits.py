"""The digits: normalisation, split and pictures."""

import pytest
import torch

from pdebook.data import digits as module


@pytest.mark.parametrize("size", [8, 16])
def test_normalisation_is_exact(size):
    images, labels = module.digits(size=size, dtype=torch.float64)
    assert images.shape == (1797, 1, size, size)
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # Sums over up to 460,032 pixels, each rounded.
    assert abs(float(images.mean())) < 1e-11
    assert abs(float(images.square().mean()) - 0.25) < 1e-11


def test_grey_levels_undo_the_normalisation():
    images, _ = module.digits(dtype=torch.float64)
    grey = module.to_grey(images)
    assert float(grey.min()) == 0
    assert torch.allclose(grey * 16, (grey * 16).round(), atol=1e-12)


def test_split_is_a_partition():
    train, test = module.split()
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(1797))
    assert len(test) == 360


def test_bad_input():
    with pytest.raises(ValueError, match="size"):
        module.digits(size=12)
    with pytest.raises(ValueError, match="test_fraction"):
        module.split(0.9)

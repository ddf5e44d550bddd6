import pytest
import torch

from pdebook.nn.embeddings import FourierFeatures, NoiseAndClass


def test_frequencies_are_geometric_and_features_are_sine_and_cosine() -> None:
    features = FourierFeatures(32, 0.05, 2.0)
    frequencies = features.frequencies.double()
    ratio = torch.full((31,), (2.0 / 0.05) ** (1.0 / 31.0), dtype=torch.float64)
    # Float32 frequencies: relative rounding of 6e-8 each.
    torch.testing.assert_close(frequencies[1:] / frequencies[:-1], ratio, rtol=2e-7, atol=0)
    assert frequencies[0].item() == pytest.approx(0.05, rel=1e-7)
    assert frequencies[-1].item() == pytest.approx(2.0, rel=1e-7)
    scalar = torch.tensor([0.0, 1.3, -4.0])
    sine, cosine = features(scalar).chunk(2, -1)
    assert torch.equal(sine, (scalar[:, None] * features.frequencies).sin())
    assert torch.equal(cosine, (scalar[:, None] * features.frequencies).cos())


def test_frequencies_are_not_stored() -> None:
    assert not FourierFeatures(4, 0.1, 1.0).state_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0.1, 1.0), "count must be at least 2, got 1"),
        ((4, 0.0, 1.0), "0 < low < high, got 0.0 and 1.0"),
        ((4, 2.0, 1.0), "0 < low < high, got 2.0 and 1.0"),
    ],
)
def test_bad_frequencies(arguments: tuple[int, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FourierFeatures(*arguments)


def test_no_label_is_the_last_class() -> None:
    condition = NoiseAndClass(8, classes=3)
    scalar = torch.linspace(-5, 5, 4)
    null = condition(scalar)
    assert torch.equal(null, condition(scalar, torch.full((4,), 3)))
    assert (null != condition(scalar, torch.full((4,), 2))).any(1).all()

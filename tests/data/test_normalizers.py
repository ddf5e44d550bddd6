"""Normalisers: statistics of the whole set whatever the batches, and in the state dict."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.checkpoints import load, save
from pdebook.data.normalizers import Normalizer

KINDS = {"channel": (0, 1, 3, 4), "pointwise": (0, 1), "global": (0, 1, 2, 3, 4)}


def fields(batch: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 10, 0.1])[:, None, None] * (1 + torch.arange(20.0).reshape(4, 5))
    return 50.0 + scale * torch.randn(batch, 2, 3, 4, 5, generator=generator)


def made(over: str, eps: float = 0.0) -> Normalizer:
    return Normalizer(3, dims=2, over=over, size=(4, 5) if over == "pointwise" else None, eps=eps)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(KINDS)), st.lists(st.integers(1, 11), unique=True, max_size=3))
def test_statistics_do_not_depend_on_the_batches(over, cuts):
    u, axes = fields(), KINDS[over]
    normalizer = made(over)
    for part in u.tensor_split(sorted(cuts)):
        normalizer.update(part)
    shape = normalizer.mean.shape
    torch.testing.assert_close(normalizer.mean, u.double().mean(axes).reshape(shape).float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        normalizer.std, u.double().std(axes, correction=0).reshape(shape).float(), rtol=1e-4, atol=1e-6
    )
    assert normalizer.count == u.numel() / normalizer.mean.numel()


@pytest.mark.parametrize("over", KINDS)
def test_encoded_fields_have_mean_zero_and_variance_one_and_decode_inverts(over):
    u = fields().double()
    normalizer = made(over).double().update(u)
    z = normalizer(u)
    assert z.mean(KINDS[over]).abs().max() < 1e-12
    torch.testing.assert_close(z.var(KINDS[over], correction=0), torch.ones_like(z.var(KINDS[over])))
    torch.testing.assert_close(normalizer.decode(z), u)
    torch.testing.assert_close(normalizer.encode(u[:, 0]), z[:, 0])


def test_a_constant_field_needs_eps():
    u = torch.full((4, 3, 4, 5), 2.0)
    assert made("channel", 1e-3).update(u).encode(u).abs().max() == 0
    assert made("channel", 1e-3).update(u).encode(u + 1).max() == pytest.approx(1e3)


def test_decode_inverts_with_eps_too():
    u = fields().double()
    normalizer = made("channel", 0.5).double().update(u)
    torch.testing.assert_close(normalizer.decode(normalizer.encode(u)), u)


def test_without_an_update_it_does_nothing():
    u = fields()
    torch.testing.assert_close(made("global").encode(u), u)


def test_it_travels_in_the_state_dict_of_the_model(tmp_path):
    model = torch.nn.Sequential(made("channel").update(fields()), torch.nn.Conv2d(3, 1, 1))
    save(tmp_path / "model.safetensors", model.state_dict())
    twin = torch.nn.Sequential(made("channel"), torch.nn.Conv2d(3, 1, 1))
    twin.load_state_dict(load(tmp_path / "model.safetensors")[0])
    u = fields(seed=1)[:, 0]
    torch.testing.assert_close(twin(u), model(u))
    # And goes on from there.
    torch.testing.assert_close(twin[0].update(fields(seed=1)).std, model[0].update(fields(seed=1)).std)


BAD = [
    (lambda: Normalizer(3, dims=2, over="sample"), "over must be 'channel', 'pointwise' or 'global', got 'sample'"),
    (
        lambda: Normalizer(3, dims=2, over="pointwise"),
        "size must hold 2 positive numbers for pointwise statistics.*got None",
    ),
    (lambda: Normalizer(3, dims=2, over="pointwise", size=(4,)), r"size must hold 2 positive numbers.*got \(4,\)"),
    (lambda: Normalizer(3, dims=2, over="pointwise", size=(4, 0)), r"size must hold 2 positive.*got \(4, 0\)"),
    (lambda: Normalizer(3, dims=2, eps=float("nan")), "eps not negative, got 3, 2 and nan"),
    (
        lambda: Normalizer(3, dims=1).update(torch.zeros(0, 3, 8)),
        r"u must hold a number or more, got shape \(0, 3, 8\)",
    ),
    (lambda: Normalizer(3, dims=2, size=(4, 5)), r"be None for others, got \(4, 5\)"),
    (lambda: Normalizer(0, dims=2), "channels and dims must be positive, eps not negative, got 0, 2"),
    (lambda: Normalizer(3, dims=2, eps=-1), "eps not negative, got 3, 2 and -1"),
    (
        lambda: made("channel").encode(torch.zeros(2, 4, 4, 5)),
        r"3 channels and 2 axes of a grid, got shape \(2, 4, 4, 5\)",
    ),
    (lambda: made("channel").decode(torch.zeros(3, 4, 5)), "u must have a batch, 3 channels"),
    (
        lambda: made("pointwise").update(torch.zeros(2, 3, 4, 6)),
        r"3 channels on the grid \(4, 5\), got shape \(2, 3, 4, 6\)",
    ),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

"""Counts of parameters and operations against numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from pdebook.counting import LiveBytes, flop_count, parameter_count
from pdebook.nn.fno import FNO
from pdebook.nn.spectral import SpectralConv


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 4, dtype=torch.complex64))
        self.other = nn.Linear(2, 5)
        self.same = self.other
        self.other.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def test_parameters_real_complex_shared_and_frozen():
    assert parameter_count(Complex()) == 24 + 15
    assert parameter_count(Complex(), complex_as=1) == 12 + 15
    assert parameter_count(Complex(), trainable=True) == 24 + 10


@pytest.mark.parametrize("weight", ["dense", "tucker", "cp", "tt"])
def test_pairs_count_as_complex_numbers(weight):
    conv = SpectralConv(6, 6, (8, 9), weight=weight, rank=0.5)
    count = sum(p.numel() for p in conv.weight.parameters())
    assert parameter_count(conv) == count + 6
    assert parameter_count(conv, complex_as=1) == count // 2 + 6
    assert parameter_count(nn.Sequential(conv, nn.Linear(2, 3)), complex_as=1) == count // 2 + 6 + 9
    if weight == "dense":
        assert count == 2 * 6 * 6 * 8 * 5


def test_products_real_and_complex():
    assert flop_count(nn.Linear(3, 5), torch.ones(7, 3)) == 2 * 7 * 3 * 5
    assert flop_count(nn.Conv1d(2, 4, 3), torch.ones(1, 2, 10)) == 2 * 8 * 2 * 4 * 3
    assert flop_count(Complex(), torch.ones(7, 3, dtype=torch.complex64)) == 8 * 7 * 3 * 4


class Transform(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c = torch.fft.rfft2(x)
        return torch.fft.irfft2(torch.fft.ifft(torch.fft.fft(c, dim=-2), dim=-2), s=x.shape[-2:])


def test_transforms():
    n, m, batch = 16, 8, 3
    real = 2.5 * batch * n * m * math.log2(n * m)
    columns = 5 * batch * n * (m // 2 + 1) * math.log2(n)
    # A real transform over two axes may be counted whole, or axis by axis as it is computed.
    split = 2.5 * batch * n * m * math.log2(m) + columns
    assert flop_count(Transform(), torch.ones(batch, n, m)) in {
        round(a + b + 2 * columns) for a in (real, split) for b in (real, split)
    }
    assert flop_count(nn.Identity(), torch.ones(3)) == 0


def test_spectral_convolution():
    """The matrix form: real products along the last axis, pairs along the first, complex ones between."""
    conv = SpectralConv(3, 4, (6, 5), backend="dft")
    last = lambda channels: 2 * 2 * channels * 16 * 12 * 6  # noqa: E731
    first = lambda channels: 2 * 2 * channels * 12 * 32 * 3  # noqa: E731
    modes = 8 * 2 * 18 * 3 * 4
    assert flop_count(conv, torch.ones(2, 3, 16, 12)) == last(3) + first(3) + modes + last(4) + first(4)


def test_counts_of_the_parts():
    net = FNO(1, 1, (4, 4), width=8, layers=2, activation=nn.Tanh)
    v = torch.ones(2, 1, 16, 16)
    found = flop_count(net, v, by_module=True)
    assert found[""] == flop_count(net, v)
    assert found["lift"] == 2 * 2 * 256 * (3 * 16 + 16 * 8)
    assert found[""] == found["lift"] + found["project"] + found["blocks.0"] + found["blocks.1"]
    assert found["blocks.0"] == found["blocks.0.spectral"] + found["blocks.0.skip"] + found["blocks.0.mlp"]


def test_the_module_stays_as_it_is():
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    flop_count(module, torch.randn(4, 3))
    assert module.training
    assert module[0].num_batches_tracked == 0


def test_a_batch_norm_is_counted_as_in_evaluation():
    """In training it would refuse a single sample."""
    assert flop_count(nn.BatchNorm1d(3), torch.randn(1, 3)) == 0


def test_bad_input():
    with pytest.raises(ValueError, match="complex_as must be 1 or 2, got 3"):
        parameter_count(nn.Linear(1, 1), complex_as=3)


def test_live_bytes_see_what_is_made_kept_and_freed():
    with LiveBytes() as meter:
        a = torch.zeros(1000, dtype=torch.float64)
        assert meter.now == 8000
        view = a.view(10, 100)[2:]
        assert meter.now == 8000
        b = a + 1.0
        assert meter.now == 16000
        del b
        assert meter.now == 8000
        del a
        assert meter.now == 8000
        del view
        assert meter.now == 0
        x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
        y = x.exp().sin().sum()
        # The exponential is kept for the sine's derivative; x, what exp gave, and the sum are alive.
        held = meter.now
        assert held >= 16000
        y.backward()
    assert meter.peak >= 24000


def test_counting_leaves_the_module_as_it_is():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flop_count(module, torch.randn(5, 3))
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

"""Fields: their formulas, their first weights, their derivatives and Jacobians."""

import math

import pytest
import torch
from torch import nn

from pdebook.nn import fields, jets

FLOAT = torch.float64


def points(batch: int = 6, dim: int = 2) -> torch.Tensor:
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(0), dtype=FLOAT)


def test_fourier_features_have_period_one_over_the_frequency():
    torch.manual_seed(0)
    features = fields.FourierFeatures(1, 3, 2.0).double()
    b = features.frequencies[1, 0]
    x = points(4, 1)
    out = features(x)
    torch.testing.assert_close(out[:, 1], torch.sin(2 * math.pi * b * x[:, 0]))
    torch.testing.assert_close(out[:, 4], torch.cos(2 * math.pi * b * x[:, 0]))
    torch.testing.assert_close(features(x + 1 / b)[:, [1, 4]], out[:, [1, 4]])
    assert fields.FourierFeatures(4, 4000, 3.0).frequencies.std().item() == pytest.approx(3.0, rel=0.03)
    assert not list(features.parameters())


def test_siren_is_its_formula_and_its_phases_stay_normal_at_every_depth():
    torch.manual_seed(0)
    net = fields.Siren(2, 1, width=256, depth=3)
    x = 2 * torch.rand(2000, 2) - 1
    h = x
    for number, layer in enumerate(net.hidden):
        phase = 30.0 * layer(h)
        if number:
            centred = phase - 30.0 * layer.bias
            assert centred.std().item() == pytest.approx(1.0, abs=0.15)
        h = torch.sin(phase)
    torch.testing.assert_close(net(x), net.last(h))
    assert net.hidden[0].weight.abs().max() <= 0.5
    assert net.last.weight.abs().max() <= math.sqrt(6 / 256) / 30
    assert len(net.hidden) == 4


def test_multiplicative_filters_are_their_formula():
    torch.manual_seed(0)
    net = fields.MultiplicativeFilters(2, 3, width=8, depth=2, latent=4).double()
    x, alpha = points(), points(6, 4)
    g = [torch.cat([torch.sin(x @ f.weight.T), torch.cos(x @ f.weight.T)], -1) for f in net.filters]
    z = (net.first + alpha @ net.shifts[0].weight.T) * g[0]
    z = (net.linear[0](z) + alpha @ net.shifts[1].weight.T) * g[1]
    torch.testing.assert_close(net(x, alpha), net.last(z))
    assert net.shifts[0].bias is None
    wide = fields.MultiplicativeFilters(3, 1, width=4000, depth=1, scale=5.0)
    assert wide.filters[0].weight.std().item() == pytest.approx(5 * math.sqrt(2 / 3), rel=0.05)


@pytest.mark.parametrize(
    "net",
    [
        fields.Siren(2, 2, width=8, omega=3.0),
        fields.MultiplicativeFilters(2, 2, width=8),
        nn.Sequential(fields.FourierFeatures(2, 4), nn.Linear(8, 2)),
    ],
)
def test_jets_go_through(net):
    net = net.double()
    x, v = points(), points(3, 2)
    for a, b in zip(jets.directional(net, x, v, 3), jets.directional(net, x, v, 3, engine="jvp"), strict=True):
        torch.testing.assert_close(a, b)


def test_hard_constraint_holds_for_any_network_and_jets_go_through():
    net = fields.HardConstraint(
        fields.Siren(2, 1, width=8, omega=3.0), lambda x: x[..., :1] * (1 - x[..., :1]), lambda x: torch.sin(x[..., 1:])
    ).double()
    x = points()
    x[:3, 0], x[3:, 0] = 0.0, 1.0
    torch.testing.assert_close(net(x), torch.sin(x[:, 1:]))
    y = points()
    for a, b in zip(jets.partials(net, y, 2), jets.partials(net, y, 2, engine="jvp"), strict=True):
        torch.testing.assert_close(a, b)
    plain = fields.HardConstraint(net.network, net.distance)
    torch.testing.assert_close(plain(y) + torch.sin(y[:, 1:]), net(y))


def test_decoder_jacobian_is_that_of_reverse_mode():
    torch.manual_seed(0)
    net = fields.MultiplicativeFilters(2, 3, width=8, latent=4).double()
    x, alpha = torch.randn(2, 5, 2, dtype=FLOAT), torch.randn(2, 4, dtype=FLOAT)
    value, jacobian = fields.decoder_jacobian(net, x, alpha)
    torch.testing.assert_close(value, net(x, alpha[:, None]))
    for sample in range(2):
        exact = torch.autograd.functional.jacobian(lambda a: net(x[sample], a[None]), alpha[sample])  # noqa: B023
        torch.testing.assert_close(jacobian[sample], exact)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fields.FourierFeatures(0, 1), "inputs must be at least 1, got 0"),
        (lambda: fields.FourierFeatures(1, 1, 0.0), "scale must be positive"),
        (lambda: fields.Siren(1, 1, width=0), "width must be at least 1"),
        (lambda: fields.Siren(1, 1, width=4, depth=-1), "depth must not be negative"),
        (lambda: fields.Siren(1, 1, width=4, omega=0), "omega must be positive"),
        (lambda: fields.MultiplicativeFilters(1, 1, width=3), "width must be even, got 3"),
        (lambda: fields.MultiplicativeFilters(1, 1, width=4, latent=-1), "latent must not be negative"),
        (lambda: fields.MultiplicativeFilters(1, 1, width=4, scale=-1), "scale must be positive"),
        (lambda: fields.MultiplicativeFilters(1, 1, width=4, depth=0), "depth must be at least 1"),
        (
            lambda: fields.MultiplicativeFilters(1, 1, width=4, latent=2)(torch.zeros(3, 1)),
            "latent must be given exactly if",
        ),
        (
            lambda: fields.MultiplicativeFilters(1, 1, width=4)(torch.zeros(3, 1), torch.zeros(3, 1)),
            "latent must be given exactly",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

"""The chapter's maps solve their equations, its loop is deterministic, and the shipped networks do what their cards say."""

import itertools
import math

import pytest
import torch
from torch import nn

from pdebook import weights
from pdebook.counting import parameter_count
from pdebook.nn.fno import FNO
from pdebook.operators import mg_tfno_examples as examples
from pdebook.operators.mg_tfno import saved_bytes
from pdebook.operators.mg_tfno_examples import Examples, forced_flow, relative_error, sizes, standardised, train
from pdebook.pde.grid import Grid
from pdebook.pde.spectral import Spectral


def test_the_force_has_its_standard_deviation():
    k = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    expected = 27 * math.sqrt(2) / (k.square() + 9) ** 2
    torch.testing.assert_close(examples.FORCING(k), expected)
    force = forced_flow(0, torch.arange(300), 16, time=0.01).inputs
    number = torch.arange(-7.0, 8.0)
    k = (number[:, None].square() + number.square()).sqrt()
    variance = torch.where(k > 0, examples.FORCING(k).square(), 0.0).sum()
    # the mean square of 300 fields of about ten strong modes: 4 % is four standard errors
    assert float(force.square().mean() / variance) == pytest.approx(1, abs=0.08)
    assert force.mean((-2, -1)).abs().max() < 1e-6


def test_the_flow_starts_at_rest_and_follows_the_force():
    f, w = forced_flow(0, torch.arange(3), 32, time=0.01, modes=8)
    torch.testing.assert_close(w, 0.01 * f, rtol=0, atol=2e-3 * 0.01 * float(f.abs().max()))
    # a longer run, against half the step and against a batch of its own
    w = forced_flow(0, torch.arange(2), 32, time=1.0).outputs
    fine = forced_flow(0, torch.arange(1, 2), 32, time=1.0, dt=0.005).outputs
    assert (w[1:] - fine).abs().max() < 1e-4 * fine.abs().max()
    thick = forced_flow(0, torch.arange(2), 32, time=1.0, viscosity=0.5).outputs
    assert thick.square().mean() < 0.8 * w.square().mean()


def test_a_grid_twice_as_fine_shows_the_same_flow():
    coarse = forced_flow(0, torch.arange(2), 32, time=0.5, modes=8)
    fine = examples.subsampled(forced_flow(0, torch.arange(2), 64, time=0.5, modes=8), 2)
    for a, b in zip(coarse, fine, strict=True):
        assert (a - b).abs().max() < 2e-3 * b.abs().max()


def test_poisson_is_solved():
    f, u = examples.poisson(0, torch.arange(2), 32)
    torch.testing.assert_close(-Spectral(Grid((32, 32), 2 * math.pi)).laplacian(u), f, rtol=0, atol=1e-3)
    assert u.mean((-2, -1)).abs().max() < 1e-6


def test_burgers_holds_its_start_and_mean_and_loses_energy():
    a, u = examples.burgers(0, torch.arange(2), points=64, times=11)
    assert a.shape == u.shape == (2, 1, 64, 11)
    assert torch.equal(a, u[..., :1].expand_as(u))
    torch.testing.assert_close(u.mean(2), u[..., :1].mean(2).expand(-1, -1, 11), rtol=0, atol=1e-5)
    energy = u.square().mean(2)[:, 0]
    assert bool((energy.diff(dim=-1) < 0).all())
    thick = examples.burgers(0, torch.arange(2), points=64, times=11, viscosity=0.1).outputs
    assert bool((thick[..., -1].square().mean(-1) < 0.5 * u[..., -1].square().mean(-1)).all())
    fine = examples.burgers(0, torch.arange(2), points=128, times=11).outputs[:, :, ::2]
    assert (u - fine).abs().max() < 5e-3 * fine.abs().max()


def test_scaled_and_subsampled():
    pairs = Examples(3 * torch.randn(4, 1, 8, 8), 5 * torch.randn(4, 1, 8, 8))
    assert torch.allclose(sizes(standardised(pairs, sizes(pairs))), torch.ones(2))
    assert examples.subsampled(pairs, 4).inputs.shape == (4, 1, 2, 2)
    assert torch.equal(examples.subsampled(pairs, 2).outputs, pairs.outputs[..., ::2, ::2])


class Zero(nn.Module):
    def forward(self, x):
        return 0 * x


def test_the_error_is_relative():
    pairs = Examples(torch.randn(4, 1, 8), torch.randn(4, 1, 8))
    assert relative_error(Zero(), pairs) == pytest.approx(1)
    assert relative_error(nn.Identity(), Examples(pairs.inputs, pairs.inputs)) == 0


def small(seed: int = 0) -> FNO:
    torch.manual_seed(seed)
    return FNO(1, 1, (4, 4), width=4, layers=1)


def test_training_lowers_the_error_and_is_a_function_of_the_seed():
    x = torch.randn(8, 1, 8, 8)
    pairs = Examples(x, 0.5 * x)
    nets = [small() for _ in range(3)]
    before = relative_error(nets[0], pairs)
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        train(net, pairs, steps=30, batch=4, seed=seed)
    assert relative_error(nets[0], pairs) < 0.95 * before
    states = [torch.cat([p.detach().flatten() for p in net.parameters()]) for net in nets]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_every_sample_comes_once_in_an_epoch():
    x = torch.arange(6.0).reshape(6, 1, 1).expand(6, 1, 4).contiguous()
    seen = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, v):
            seen.append(v[:, 0, 0].detach().tolist())
            return self.gain * v

    train(Watch(), Examples(x + 1, x + 1), steps=6, batch=2)
    for epoch in (seen[:3], seen[3:]):
        assert sorted(itertools.chain(*epoch)) == [1, 2, 3, 4, 5, 6]
    assert seen[:3] != seen[3:]


def test_a_loss_can_be_chosen():
    x = torch.randn(4, 1, 8, 8)
    called = []

    def loss(prediction, target):
        called.append(1)
        return examples.h1(prediction, target)

    train(small(), Examples(x, x), steps=2, batch=2, loss=loss)
    assert len(called) == 2
    wave = torch.sin(torch.arange(8.0) * math.pi / 4).expand(1, 1, 8, 8)
    assert float(examples.h1(0.5 * wave, wave)) == pytest.approx(0.5, rel=1e-5)
    # wavenumbers 3 and 1 on (0, 2π): their squared sizes are as 1 + 9 to 1 + 1
    error = torch.sin(3 * torch.arange(8.0) * math.pi / 4).expand(1, 1, 8, 8)
    assert float(examples.h1(wave + error, wave)) == pytest.approx(5**0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: forced_flow(0, torch.arange(1), 16, time=0.015), "time must be a positive multiple of dt, got 0.015 and 0.01"),
        (lambda: train(small(), Examples(torch.ones(2, 1, 8, 8), torch.ones(2, 1, 8, 8)), steps=1, batch=3), "from 1 to 2, got 3"),
        (lambda: examples.load_networks("mg_tfno_poisson", {"half": small()}), "must be among those of 'mg_tfno_poisson', got 'half'"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_each_step_of_the_backbone_keeps_those_before():
    steps = list(examples.BACKBONES.values())
    assert steps[0] == {"mlp": None}
    assert steps[-1] == {"mlp": 0.5, "norm_kind": "group", "preactivation": True}
    assert all(steps[i].items() - {("mlp", None)} <= steps[i + 1].items() for i in range(len(steps) - 1))


def test_ranks_are_parts_of_the_axes():
    assert examples.fraction(0.55) == [13, 13, 9, 5]
    assert examples.fraction(0.01) == [1, 1, 1, 1]


def test_shipped_networks_have_the_errors_of_their_cards():
    unseen = examples.subsampled(examples.flow_tests(0), 2)
    ladder = {
        name: examples.flow_network("tucker", examples.fraction(0.35), **o) for name, o in examples.BACKBONES.items()
    }
    swept = {f"{name}, 24": examples.flow_network(*examples.RANKS[name]) for name in examples.RANKS}
    burgers = {name: examples.burgers_network(**options) for name, options in examples.BURGERS.items()}
    whole = {"whole": examples.poisson_network()}
    for name, nets, test in (
        ("mg_tfno_backbones", ladder, None),
        ("mg_tfno_ranks", swept, None),
        ("mg_tfno_burgers", burgers, examples.burgers_data(0)[1]),
        ("mg_tfno_poisson", whole, examples.poisson_data(0)[1]),
    ):
        others = examples.load_networks(name, nets)
        data = test or standardised(unseen, others.get("sizes_24", others.get("sizes_96")))
        metrics = weights.card(name)["metrics"]
        for each, net in nets.items():
            key = f"{each}: test" if name == "mg_tfno_ranks" else each
            # other processors round otherwise
            assert relative_error(net, data) == pytest.approx(metrics[key], rel=2e-3), (name, each)


@pytest.mark.slow
def test_makers_make_what_is_shipped():
    for name, make in (
        ("mg_tfno_backbones", examples.make_backbones),
        ("mg_tfno_burgers", examples.make_burgers),
        ("mg_tfno_poisson", examples.make_poisson),
        ("mg_tfno_ranks", examples.make_ranks),
    ):
        made, shipped = make(steps=1), weights.load(name)
        assert {key: value.shape for key, value in made.tensors.items()} == {key: v.shape for key, v in shipped.items()}
        assert made.metrics.keys() == weights.card(name)["metrics"].keys()
        assert len(made.metrics) == len({*made.metrics})
    assert parameter_count(examples.flow_network()) > 40 * parameter_count(
        examples.flow_network("tucker", examples.fraction(0.1))
    )


def test_saved_bytes_count_each_storage_once_and_no_parameter():
    x = torch.zeros(10, 4, requires_grad=True)
    # x is kept for both products, once; its square for the exponential's gradient is the result itself
    assert saved_bytes(lambda: (x * x + x * x.view(10, 4)).sum()) == 160
    assert saved_bytes(lambda: x.exp()) == 160
    assert saved_bytes(lambda: x + 1) == 0
    layer = nn.Linear(4, 3)
    assert saved_bytes(lambda: layer(x), without=layer) == 160
    assert saved_bytes(lambda: layer(x)) == 160 + 48
    with torch.no_grad():
        assert saved_bytes(lambda: layer(x)) == 0

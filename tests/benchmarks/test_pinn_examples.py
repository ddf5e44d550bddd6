import pytest
import torch

from pdebook import weights
from pdebook.benchmarks import pinn_examples
from pdebook.benchmarks.pinn_examples import PROBLEMS, SAMPLES, places, predicted, shipped, start, task
from pdebook.pde import starts
from pdebook.pde.grid import Grid
from pdebook.rng import fold_in


def test_the_same_starts_are_given_to_the_networks_and_to_the_solvers():
    for name in PROBLEMS:
        first = task(name).source.data[:, 0, 0]
        x = places(name)
        assert first.shape == (len(SAMPLES), 64)
        for row, sample in zip(first, SAMPLES, strict=True):
            found = start(sample)(x[:, None])
            assert found.shape == (64, 1)
            assert found.dtype == x.dtype
            assert torch.allclose(found[:, 0], row, atol=1e-5)


def test_the_starts_are_smooth_and_in_no_task_of_the_chapter():
    x = torch.linspace(0, 1, 257)[:, None]
    for sample in SAMPLES:
        u = start(sample)(x)[:, 0]
        assert float(u[0] - u[-1]) == pytest.approx(0.0, abs=1e-4)
        # A kink would make a second difference of the size of a first one.
        assert float(u.diff(n=2).abs().max()) < 0.3 * float(u.diff().abs().max())
    grid, own = Grid(64), torch.stack([start(sample)(x[:-1:4])[:, 0] for sample in SAMPLES])
    for part in ("train", "test"):
        drawn = starts.SineSums.draw(fold_in(0, part), torch.arange(200), grid, period="exact")(x[:-1:4].T)
        assert float((drawn[:, None] - own).abs().amax(-1).min()) > 0.1


def test_a_task_has_twenty_frames_to_predict_and_none_to_train_on():
    one = task("advection_beta0.1")
    assert one.source.shape == (2, 21, 1, 64)
    assert not len(one.train)
    assert float(one.source.times[-1]) == 2.0


@pytest.mark.parametrize("name", PROBLEMS)
def test_shipped_networks_are_those_that_the_card_describes(name):
    networks = shipped(name)
    assert len(networks) == len(SAMPLES)
    report = task(name).compare(predicted(name, networks), name)
    card = weights.card("pdebench_pinns")
    assert report.mean("nrmse") == pytest.approx(card["metrics"][f"{name}: nRMSE"], rel=0.01, abs=1e-4)


def test_a_network_satisfies_its_equation_and_not_another():
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 1.0])
    for network in shipped("burgers_nu0.1"):
        own, other = (
            float(PROBLEMS[name].residual(network, x).detach().square().mean())
            for name in ("burgers_nu0.1", "advection_beta0.1")
        )
        assert own < 0.01 * other


@pytest.mark.slow
def test_the_maker_stores_what_shipped_reads(monkeypatch):
    monkeypatch.setattr(pinn_examples, "STEPS", 2)
    made = pinn_examples.make_pinns(0)
    stored = weights.load("pdebench_pinns")
    assert {key: value.shape for key, value in made.tensors.items()} == {k: v.shape for k, v in stored.items()}
    assert set(made.metrics) == set(weights.card("pdebench_pinns")["metrics"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shipped("burgers_nu1"), "name must be one of advection_beta0.1, burgers_nu0.1"),
        (lambda: task("darcy_beta1"), "name must be one of"),
        (lambda: places("darcy_beta1"), "name must be one of"),
        (
            lambda: predicted("burgers_nu0.1", shipped("burgers_nu0.1")[:1]),
            "networks must be one for each of 2 samples, got 1",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

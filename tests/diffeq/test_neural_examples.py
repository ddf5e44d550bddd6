"""What the chapter ships: makers run, loaders give what the cards measured, batches are functions of seed and step."""

import math

import pytest
import torch

from pdebook import weights
from pdebook.data.series import damped_pendulum, lotka_volterra
from pdebook.diffeq.neural_differential_equations import latent_ode_loss
from pdebook.diffeq.neural_examples import (
    LATENT_STEPS,
    LATENT_TIMES,
    LOTKA_TIMES,
    brownian_values,
    gan_batches,
    gan_noise,
    latent_ode,
    latent_ode_batches,
    latent_sde,
    latent_sde_batches,
    latent_sde_samples,
    lotka_errors,
    lotka_known,
    lotka_series,
    lotka_volterra_fields,
    make_latent_ode,
    make_latent_sde,
    make_lotka_volterra,
    new_gan,
    normalised_ou,
    relative_error,
    simulate,
)
from pdebook.diffeq.neural_sdes import gan_loss, latent_sde_loss
from pdebook.rng import fold_in


@pytest.mark.slow
@pytest.mark.parametrize(
    ("maker", "name"),
    [(make_lotka_volterra, "lotka_volterra"), (make_latent_ode, "latent_ode"), (make_latent_sde, "latent_sde")],
)
def test_makers_train_what_is_shipped(maker, name) -> None:
    made, shipped = maker(0, steps=2), weights.load(name)
    assert {key: value.shape for key, value in made.tensors.items()} == {k: v.shape for k, v in shipped.items()}
    assert made.metrics.keys() == weights.card(name)["metrics"].keys()
    assert all(math.isfinite(value) for value in made.metrics.values())


def test_shipped_networks_measure_what_their_cards_say() -> None:
    # Float32 sums differ between machines in the last digits, and a long forecast amplifies them.
    errors = lotka_errors(lotka_volterra_fields(), 0)
    card = weights.card("lotka_volterra")["metrics"]
    assert {f"{name}_{where}": error for (name, where), error in errors.items()} == pytest.approx(card, rel=1e-2)
    with torch.no_grad():
        loss = latent_ode_loss(latent_ode(), latent_ode_batches(1000)(fold_in(0, "held out"), 0))
        bound = latent_sde_loss(latent_sde()["full"], latent_sde_batches(1000)(fold_in(0, "held out"), 0))
    assert loss.item() == pytest.approx(weights.card("latent_ode")["metrics"]["loss"], rel=1e-3)
    assert bound.item() == pytest.approx(weights.card("latent_sde")["metrics"]["negative_evidence_bound"], rel=1e-3)


def test_known_part_lacks_the_meeting_alone() -> None:
    y = torch.tensor([[2.0, 0.5], [1.0, 3.0]])
    missing = lotka_volterra(torch.zeros(2), y) - lotka_known(torch.zeros(2), y)
    torch.testing.assert_close(missing, y.prod(1, keepdim=True) * torch.tensor([-0.9, 0.8]))


def test_series_are_noisy_orbits() -> None:
    data = lotka_series(0, 4)
    assert data.shape == (4, len(LOTKA_TIMES), 2)
    invariant = 0.8 * data[..., 0] - 1.8 * data[..., 0].log() + 0.9 * data[..., 1] - 1.3 * data[..., 1].log()
    assert 0 < (invariant - invariant.mean(1, keepdim=True)).abs().max() < 0.2


def test_simulation_is_accurate_and_keeps_the_dtype() -> None:
    start, times = torch.tensor([[1.0, 0.5]]), torch.tensor([0.0, 1.0, 4.0])
    result = simulate(damped_pendulum, start, times)
    assert result.dtype == torch.float32
    fine = simulate(damped_pendulum, start.double(), torch.linspace(0, 4, 41))
    torch.testing.assert_close(result[:, 1:].double(), fine[:, [10, 40]], rtol=0, atol=1e-6)


def test_relative_error() -> None:
    truth = torch.tensor([[3.0, 4.0]])
    assert relative_error(1.1 * truth, truth) == pytest.approx(0.1, rel=1e-5)


def test_brownian_values_have_the_variance_of_their_time_and_independent_steps() -> None:
    times = torch.tensor([0.5, 1.0, 3.0])
    w = brownian_values(0, torch.arange(20_000), times, 2).double()
    assert not w[:, 0].any()
    # Five standard errors of a variance.
    assert (w[:, 1:].var(0) / torch.tensor([[0.5], [2.5]]) - 1).abs().max() < 5 * math.sqrt(2 / 20_000)
    correlation = torch.corrcoef(torch.cat([w[:, 1], w[:, 2] - w[:, 1]], 1).T) - torch.eye(4)
    assert correlation.abs().max() < 5 / math.sqrt(20_000)


def test_gan_and_its_batches() -> None:
    gan, plain_scale = new_gan(0), 1.0 / math.sqrt(17)

    def largest(network: torch.nn.Module) -> float:
        return float(network[0].weight.detach().abs().max())  # type: ignore[index]

    # PyTorch's first weights are uniform up to 1/sqrt(inputs); here they are halved, and those of the start tripled.
    assert largest(gan.generator.drift_network) == pytest.approx(0.5 * plain_scale, rel=0.02)
    assert largest(gan.generator.start) == pytest.approx(3.0 / math.sqrt(5), rel=0.05)
    assert largest(gan.discriminator.drift_network) == pytest.approx(plain_scale, rel=0.02)
    times, data = torch.arange(4.0), torch.randn(9, 4, 1)
    batches = gan_batches(times, data, 6, gan.generator)
    first, again, other = batches(0, 3), batches(0, 3), batches(0, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first[1:], other[1:], strict=True))
    assert all(any(torch.equal(row, series) for series in data) for row in first[1])
    v, w = gan_noise(0, 3 * 6 + torch.arange(6), times, gan.generator)
    assert torch.equal(v, first[2])
    assert torch.equal(w, first[3])
    assert gan_loss(gan, first).isfinite()


def test_normalised_process_has_mean_zero_and_variance_one_over_all_times() -> None:
    y = normalised_ou(0, torch.arange(20_000))
    assert y.mean().abs() < 0.02
    assert y.square().mean().item() == pytest.approx(1.0, abs=0.03)


def test_latent_sde_batches_and_samples() -> None:
    times, data, noise, steps, w = latent_sde_batches(5)(0, 2)
    assert torch.equal(times, LATENT_TIMES)
    assert torch.equal(steps, LATENT_STEPS)
    assert data.shape == (5, 16, 1)
    assert noise.shape == (5, 4)
    assert w.shape == (5, 31, 5)
    samples = latent_sde_samples(latent_sde()["full"], 0, 7)
    assert samples.shape == (7, 16, 1)
    torch.testing.assert_close(latent_sde_samples(latent_sde()["full"], 0, 3), samples[:3])

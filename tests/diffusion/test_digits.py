from itertools import pairwise

import pytest
import torch

from pdebook import weights
from pdebook.data.digits import digits, split
from pdebook.diffusion import digits as networks
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.schedules import VPLinear
from pdebook.rng import normal


def parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_parameter_counts() -> None:
    assert parameters(networks.ScoreNetwork()) == 488_800
    assert parameters(networks.ConvClassifier(8, 10)) == 85_066
    assert 6.0e6 < parameters(networks.full_network()) < 6.5e6


def test_the_score_network_starts_at_exactly_zero() -> None:
    net = networks.ScoreNetwork()
    output = net(torch.randn(5, 64), torch.linspace(-5, 4, 5), torch.arange(5))
    assert torch.equal(output, torch.zeros(5, 64))


def test_velocity_gives_back_data_and_noise() -> None:
    """x_0 = α x - σ v and ε = σ x + α v, to rounding in float64."""
    data, noise = torch.randn(2, 6, 64, dtype=torch.float64)
    t = torch.linspace(1e-3, 1.0, 6, dtype=torch.float64)[:, None]
    alpha, sigma = VPLinear().alpha(t), VPLinear().sigma(t)
    x, v = alpha * data + sigma * noise, networks.velocity(data, noise, alpha, sigma)
    torch.testing.assert_close(alpha * x - sigma * v, data, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(sigma * x + alpha * v, noise, rtol=1e-13, atol=1e-13)


def test_the_denoiser_converts_the_velocity_in_the_same_way() -> None:
    data, noise = torch.randn(2, 4, 64, dtype=torch.float64)
    schedule, t = VPLinear(), 0.6
    alpha, sigma = (torch.tensor(part(t), dtype=torch.float64) for part in (schedule.alpha, schedule.sigma))
    x, v = alpha * data + sigma * noise, networks.velocity(data, noise, alpha, sigma)
    model = Denoiser(lambda x, level: v, schedule, predicts="velocity", time_input="half_log_snr")
    found_data, found_noise = model.both(x, t)
    # σ/α is 6 at this time and multiplies rounding.
    torch.testing.assert_close(found_data, data, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_noise, noise, rtol=1e-12, atol=1e-12)


class TestBatches:
    images = torch.arange(50.0, dtype=torch.float64)[:, None] * torch.ones(3)
    labels = torch.arange(50) % 10

    def test_hold_one_consistent_noisy_sample_each(self) -> None:
        """Data and noise recovered from (x, λ, v) are the images with these labels, and noise of unit variance."""
        batches = networks.noisy_batches(self.images, self.labels, size=512)
        x, half_log_snr, label, v = batches(0, 0)
        # For a variance-preserving schedule α² = 1/(1 + e^{-2λ}).
        alpha = torch.sigmoid(2 * half_log_snr).sqrt()[:, None]
        sigma = torch.sigmoid(-2 * half_log_snr).sqrt()[:, None]
        data, noise = alpha * x - sigma * v, sigma * x + alpha * v
        chosen = data[:, 0].round()
        torch.testing.assert_close(data, chosen[:, None].expand(-1, 3), rtol=0, atol=1e-10)
        kept = label != networks.NULL
        assert torch.equal(label[kept], chosen[kept].long() % 10)
        # 512 draws from 50 images leave one out with probability 50 (49/50)^512 = 0.002; this seed has all.
        assert len(chosen.unique()) == 50
        # Four standard errors of mean and variance of 1536 standard normals, 4/sqrt(1536) and 4 sqrt(2/1536).
        assert abs(noise.mean().item()) < 0.10
        assert abs(noise.var().item() - 1) < 0.145
        assert torch.corrcoef(noise.T).triu(1).abs().max() < 4 / 512**0.5

    def test_times_are_stratified_from_the_smallest_to_one(self) -> None:
        size = 64
        _, half_log_snr, _, _ = networks.noisy_batches(self.images, self.labels, size=size)(3, 5)
        t = VPLinear().time(half_log_snr)
        assert torch.equal(((t - 1e-3) / (1 - 1e-3) * size).floor().long(), torch.arange(size))

    @pytest.mark.parametrize(("dropout", "low", "high"), [(0.0, 0.0, 0.0), (0.3, 0.22, 0.38), (1.0, 1.0, 1.0)])
    def test_labels_are_dropped(self, dropout: float, low: float, high: float) -> None:
        """The bounds at 0.3 are four standard errors, 4 sqrt(0.21/512)."""
        batches = networks.noisy_batches(self.images, self.labels, size=512, dropout=dropout)
        fraction = (batches(0, 0)[2] == networks.NULL).double().mean().item()
        assert low <= fraction <= high

    def test_are_a_function_of_seed_and_step(self) -> None:
        batches = networks.noisy_batches(self.images, self.labels, size=16)
        again = networks.noisy_batches(self.images, self.labels, size=16)
        batches(0, 4)
        for one, other in zip(batches(0, 5), again(0, 5), strict=True):
            assert torch.equal(one, other)
        nothing = networks.noisy_batches(torch.zeros_like(self.images), self.labels, size=16)
        for other in ((0, 6), (1, 5)):
            (x, level, _, v), (x_other, level_other, _, v_other) = nothing(0, 5), nothing(*other)
            assert (level != level_other).all()
            # Without data x = σ ε and v = α ε, so x² + v² = ε².
            assert not torch.isclose(x**2 + v**2, x_other**2 + v_other**2, rtol=1e-9).any()
            assert not torch.equal(batches(0, 5)[2], batches(*other)[2])


def test_the_loss_of_zero_velocity_is_known() -> None:
    """E|v|² / 64 = E[α² + σ² E|x_0|²/64], with E|x_0|²/64 = 1/4 exactly, averaged over times."""
    net = networks.ScoreNetwork()
    t = torch.linspace(1e-3, 1, 2001, dtype=torch.float64)
    alpha, sigma = VPLinear().alpha(t), VPLinear().sigma(t)
    expected = torch.trapezoid(alpha**2 + 0.25 * sigma**2, t).item() / (1 - 1e-3)
    # The square norms of 1797 samples of 64 pixels: relative standard error about 0.005.
    assert networks.velocity_error(net, seed=0, conditional=False, draws=1) == pytest.approx(expected, rel=0.02)


def test_makers_are_reproducible_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = networks.make_classifier(1, steps=3), networks.make_classifier(1, steps=3)
    assert torch.equal(torch.get_rng_state(), state)
    other = networks.make_classifier(2, steps=3)
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert first.metrics == second.metrics
    assert not torch.equal(first.tensors["head.weight"], other.tensors["head.weight"])


def test_initialisation_is_a_function_of_the_seed() -> None:
    def first(seed: int) -> torch.Tensor:
        return networks._initialised(networks.ScoreNetwork, seed).trunk.first.weight

    assert torch.equal(first(1), first(1))
    assert (first(1) != first(2)).all()


def test_training_lowers_the_loss_and_metrics_belong_to_the_stored_weights() -> None:
    made = networks.make_score_network(steps=20)
    assert all(value.dtype == torch.float16 for value in made.tensors.values())
    net = networks.ScoreNetwork()
    untrained = networks.velocity_error(net, seed=0, conditional=True, draws=1)
    net.load_state_dict(made.tensors)
    error = made.metrics["velocity_error_conditional"]
    assert networks.velocity_error(net, seed=0, conditional=True) == error
    assert error < untrained


def test_full_network_trains() -> None:
    net = networks.train_full(device="cpu", steps=2, size=4)
    x = torch.randn(2, 1, 16, 16)
    assert net(x, torch.zeros(2)).shape == x.shape
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert net(x, torch.zeros(2)).any(), "two steps have moved the output off zero"


class TestShipped:
    def test_loaders_give_float32_for_evaluation(self) -> None:
        for net in (networks.score_network(), networks.classifier()):
            assert not net.training
            assert all(p.dtype == torch.float32 and not p.requires_grad for p in net.parameters())

    def test_no_label_is_label_ten(self) -> None:
        net, x, level = networks.score_network(), torch.randn(4, 64), torch.linspace(-5, 4, 4)
        null, given = net(x, level), net(x, level, torch.full((4,), 3))
        # Only the embedding is read in another way.
        torch.testing.assert_close(null, net(x, level, torch.full((4,), 10)), rtol=1e-6, atol=1e-6)
        assert (null - given).abs().max() > 0.01

    @pytest.mark.parametrize("conditional", [True, False])
    def test_velocity_error_is_the_cards(self, conditional: bool) -> None:
        """On other noise than the card's. The batch-to-batch spread of the error is about 1 %; 5 % leaves room."""
        card = weights.card("digits_net")["metrics"]
        expected = card[f"velocity_error_{'conditional' if conditional else 'unconditional'}"]
        error = networks.velocity_error(networks.score_network(), seed=1, conditional=conditional, draws=2)
        assert error == pytest.approx(expected, rel=0.05)
        # Predicting zero has an error of 0.42, and a good network ends near 0.135 with 30 % of labels dropped.
        assert error < 0.19

    def test_classifier_is_as_accurate_as_on_its_card(self) -> None:
        train, test = split()
        net, card = networks.classifier(), weights.card("digits_classifier")["metrics"]
        assert networks.accuracy(net, test) > 0.97
        # One digit more or less may fall on the other side on another processor.
        assert networks.accuracy(net, test) == pytest.approx(card["accuracy_test"], abs=1.5 / len(test))
        assert networks.accuracy(net, train) == pytest.approx(card["accuracy_train"], abs=1.5 / len(train))

    def test_features_feed_the_scores(self) -> None:
        net, (images, _) = networks.classifier(), digits()
        features = net.features(images[:50])
        assert features.shape == (50, 64)
        assert (features >= 0).all()
        assert torch.equal(net.head(features), net(images[:50]))

    def test_a_guided_sample_is_the_asked_for_digit(self) -> None:
        """Fifty DDIM steps with classes: the classifier, trained apart, must recognise nearly all."""
        schedule, steps = VPLinear(), 50
        label = torch.arange(100) % 10
        model = Denoiser(
            networks.score_network(), schedule, predicts="velocity", time_input="half_log_snr", condition=label
        )
        level = torch.linspace(schedule.half_log_snr(1.0), schedule.half_log_snr(1e-3), steps + 1).tolist()
        times = [schedule.time(value) for value in level]
        x = normal(0, torch.arange(100), (64,))
        with torch.no_grad():
            for start, end in pairwise(times):
                data, noise = model.both(x, min(start, 1.0))
                x = schedule.alpha(end) * data + schedule.sigma(end) * noise
        assert (networks.classifier()(x).argmax(1) == label).double().mean() > 0.9

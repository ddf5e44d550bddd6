"""Neural SDEs: exact gradients of the generator, Lipschitz constants after clipping, and the KL against Girsanov's closed forms."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from pdebook.diffeq.adjoints import Direct
from pdebook.diffeq.brownian import PrecomputedPath
from pdebook.diffeq.neural_sdes import (
    SDEGAN,
    CDEDiscriminator,
    DiagonalDiffusion,
    LatentSDE,
    SDEGenerator,
    clip_weights,
    gan_loss,
    latent_sde_loss,
)
from pdebook.metrics.distributions import kl_gaussian
from pdebook.nn.mlp import MLP, LipSwish, initialised
from pdebook.rng import normal

F64 = torch.float64
TIMES = torch.tensor([0.0, 0.4, 1.0, 1.3, 2.0], dtype=F64)


def path(times: Tensor, size: int, batch: int, seed: int = 0) -> Tensor:
    steps = normal(seed, torch.arange(batch), (len(times) - 1, size), dtype=F64) * times.diff().sqrt()[:, None]
    return torch.cat([torch.zeros(batch, 1, size, dtype=F64), steps], 1).cumsum(1)


def generator_case() -> tuple[SDEGenerator, Tensor, Tensor]:
    model = initialised(lambda: SDEGenerator(2, start=3, noise=2, hidden=4, width=5), 0).double()
    return model, normal(1, torch.arange(6), (3,), dtype=F64), path(TIMES, 2, 6)


# -------------------- generator and critic


def test_generator_has_exact_gradients_without_its_steps() -> None:
    model, v, w = generator_case()
    brownian = PrecomputedPath(TIMES, w)
    weight = normal(2, torch.arange(6), (5, 2), dtype=F64)
    results = {}
    for adjoint in (None, Direct()):
        start = v.clone().requires_grad_()
        x = model(TIMES, start, brownian, adjoint)
        results[adjoint is None] = [x, *torch.autograd.grad((x * weight).sum(), [start, *model.parameters()])]
    for reversed_, direct in zip(results[True], results[False], strict=True):
        torch.testing.assert_close(reversed_, direct, rtol=1e-11, atol=1e-12)


def test_generator_takes_reversible_heun_steps() -> None:
    model, v, w = generator_case()

    def rate(t: Tensor, y: Tensor, h: Tensor, dw: Tensor) -> Tensor:
        inputs = torch.cat([t.expand(6, 1), y], 1)
        sigma = model.diffusion_network(inputs).reshape(6, 4, 2)
        return model.drift_network(inputs) * h + torch.einsum("bij,bj->bi", sigma, dw)

    y = hat = model.start(v)
    expected = [model.reading(y)]
    for k in range(4):
        h, dw = TIMES[k + 1] - TIMES[k], w[:, k + 1] - w[:, k]
        first = rate(TIMES[k], hat, h, dw)
        hat = 2 * y - hat + first
        y = y + 0.5 * (first + rate(TIMES[k + 1], hat, h, dw))
        expected.append(model.reading(y))
    torch.testing.assert_close(
        model(TIMES, v, PrecomputedPath(TIMES, w)), torch.stack(expected, 1), rtol=1e-12, atol=1e-12
    )


def test_critic_is_driven_by_the_increments_of_its_series() -> None:
    critic = initialised(lambda: CDEDiscriminator(2, hidden=4, width=5), 0).double()
    # Without drift and with a constant matrix the state adds up the increments.
    for network in (critic.drift_network, critic.driven_network):
        nn.init.zeros_(network[-2].weight)
    nn.init.zeros_(critic.drift_network[-2].bias)
    series = path(TIMES, 2, 6, seed=3) + 1.5
    matrix = torch.tanh(critic.driven_network[-2].bias).reshape(4, 2)
    start = critic.start(torch.cat([TIMES[:1].expand(6, 1), series[:, 0]], 1))
    state = start + (series[:, -1] - series[:, 0]) @ matrix.T
    torch.testing.assert_close(critic(TIMES, series), critic.reading(state)[:, 0], rtol=1e-12, atol=1e-12)


def test_critic_is_differentiable_in_its_series() -> None:
    critic = initialised(lambda: CDEDiscriminator(1, hidden=3, width=4), 0).double()
    series = path(TIMES, 1, 2, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(partial(critic, TIMES), (series,))
    # Drift feels time: a series read over a longer span scores differently.
    assert not torch.allclose(critic(TIMES, series), critic(2 * TIMES, series))


@pytest.mark.parametrize(("by", "order"), [("outputs", 1), ("inputs", math.inf)])
def test_clipping_bounds_the_lipschitz_constant(by: str, order: float) -> None:
    net = initialised(lambda: MLP(6, 4, width=16, depth=2, activation=LipSwish, final=nn.Tanh), 0).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(20.0)
    biases = [layer.bias.clone() for layer in net if isinstance(layer, nn.Linear)]

    def constant() -> float:
        """Largest norm of the Jacobian over many points: of columns' sums for the sum norm, of rows' for the maximum norm."""
        x = normal(0, torch.arange(200), (6,), dtype=F64)
        jacobian = torch.func.vmap(torch.func.jacrev(net))(x)
        return float(jacobian.detach().abs().sum(1 if order == 1 else 2).max())

    assert constant() > 10
    clip_weights(net, by)
    assert constant() <= 1.0
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer, bias in zip(layers, biases, strict=True):
        assert torch.equal(layer.bias, bias)
        bound = 1.0 / (layer.out_features if by == "outputs" else layer.in_features)
        assert layer.weight.abs().max() == bound
    before = [layer.weight.clone() for layer in layers]
    clip_weights(net, by)
    assert all(torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True))


def test_clipping_refuses_another_word() -> None:
    with pytest.raises(ValueError, match="by must be 'outputs' or 'inputs', got 'rows'"):
        clip_weights(nn.Linear(1, 1), "rows")


def gan_case() -> tuple[SDEGAN, tuple[Tensor, Tensor, Tensor, Tensor]]:
    gan = initialised(
        lambda: SDEGAN(SDEGenerator(1, start=3, noise=2, hidden=4, width=5), CDEDiscriminator(1, hidden=4, width=5)), 0
    ).double()
    v = normal(1, torch.arange(6), (3,), dtype=F64)
    return gan, (TIMES, path(TIMES, 1, 7, seed=4), v, path(TIMES, 2, 6))


def test_one_minimisation_plays_both_sides() -> None:
    gan, (times, real, v, w) = gan_case()
    value = gan(times, real, v, w)
    fake = gan.generator(times, v, PrecomputedPath(times, w), Direct())
    plain = gan.discriminator(times, fake).mean() - gan.discriminator(times, real).mean()
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-12)
    for part, sign in ((gan.generator, -1.0), (gan.discriminator, 1.0)):
        found = torch.autograd.grad(value, list(part.parameters()), retain_graph=True)
        expected = torch.autograd.grad(plain, list(part.parameters()), retain_graph=True)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, sign * b, rtol=1e-10, atol=1e-12)


def test_loss_clips_the_critic_alone() -> None:
    gan, batch = gan_case()
    with torch.no_grad():
        for parameter in gan.parameters():
            parameter.mul_(5.0)
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    value = gan_loss(gan, batch)
    for layer in gan.discriminator.modules():
        if isinstance(layer, nn.Linear):
            assert layer.weight.abs().max() <= 1.0 / layer.out_features
    assert all(torch.equal(gan.state_dict()[name], old) for name, old in before.items() if name.startswith("generator"))
    torch.testing.assert_close(value, gan(*batch))


# -------------------- latent SDE


def test_diffusion_is_diagonal_and_within_its_bounds() -> None:
    noise = initialised(lambda: DiagonalDiffusion(3, least=0.2, most=0.5), 0).double()
    z, t = 3 * normal(0, torch.arange(50), (3,), dtype=F64), torch.linspace(0, 4, 50, dtype=F64)
    g = noise(t, z)
    assert ((g > 0.2) & (g < 0.5)).all()
    k = 1
    hidden = torch.tanh(torch.stack([t, z[:, k]], 1) @ noise.inner[k].T + noise.bias[k])
    expected = 0.2 + 0.3 * torch.sigmoid(hidden @ noise.outer[k] + noise.offset[k])
    torch.testing.assert_close(g[:, k], expected, rtol=1e-12, atol=1e-12)


STEPS = torch.linspace(0.0, 2.0, 41, dtype=F64)
SEEN = STEPS[::8]


class Affine(nn.Module):
    """a z + b of the state, whatever stands beside it."""

    def __init__(self, a: float, b: float, latent: int) -> None:
        super().__init__()
        self.a, self.b, self.latent = a, b, latent

    def forward(self, inputs: Tensor) -> Tensor:
        return self.a * inputs[:, 1 : 1 + self.latent] + self.b


class Fixed(nn.Module):
    """A diffusion that is a number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.full_like(z, self.value)


def latent_case(prior: tuple[float, float], posterior: tuple[float, float], sigma: float) -> LatentSDE:
    """A latent SDE of Ornstein-Uhlenbeck processes that starts at 0.7 ± 0.3 after whatever data, with prior start N(0, 1)."""
    model = initialised(lambda: LatentSDE(1, latent=2, context=3, width=4), 0).double()
    model.prior_network, model.posterior_network = Affine(*prior, 2), Affine(*posterior, 2)
    model.noise = Fixed(sigma)
    nn.init.zeros_(model.law.weight)
    with torch.no_grad():
        model.law.bias.copy_(torch.tensor([0.7, 0.7, math.log(0.3), math.log(0.3)], dtype=F64))
    return model


def run(model: LatentSDE, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    data = normal(seed + 1, torch.arange(batch), (len(SEEN), 1), dtype=F64)
    noise = normal(seed + 2, torch.arange(batch), (2,), dtype=F64)
    return model(SEEN, data, noise, PrecomputedPath(STEPS, path(STEPS, 3, batch, seed)), STEPS)


def start_kl(mean: float = 0.0, std: float = 1.0) -> float:
    """KL of the posterior's start to a prior's."""
    one = torch.eye(2, dtype=F64)
    means = [torch.full((2,), value, dtype=F64) for value in (0.7, mean)]
    return float(kl_gaussian(means[0], 0.3**2 * one, means[1], std**2 * one))


def test_kl_of_shifted_drifts_is_exact() -> None:
    # f - h = b is constant, so KL = b² T / (2 σ²) for each of two coordinates, on every path.
    model = latent_case((-0.5, 0.0), (-0.5, 0.4), 0.25)
    _, kl = run(model, 5)
    torch.testing.assert_close(kl, torch.full((5,), 0.4**2 * 2.0 / 0.25**2 + start_kl(), dtype=F64), rtol=1e-12, atol=0)


def test_equal_drifts_cost_only_the_start_and_no_start_costs_nothing() -> None:
    model = latent_case((-0.5, 0.1), (-0.5, 0.1), 0.25)
    torch.testing.assert_close(run(model, 3)[1], torch.full((3,), start_kl(), dtype=F64), rtol=1e-12, atol=0)
    for mean, std in ((0.2, 0.5), (0.7, 0.3)):
        with torch.no_grad():
            model.prior_mean.fill_(mean)
            model.prior_log_std.fill_(math.log(std))
        torch.testing.assert_close(
            run(model, 3)[1], torch.full((3,), start_kl(mean, std), dtype=F64), rtol=1e-12, atol=1e-14
        )
    assert start_kl(0.7, 0.3) == pytest.approx(0.0, abs=1e-14)


def test_kl_of_ornstein_uhlenbeck_processes_against_the_closed_form() -> None:
    a, c, sigma, n = -0.4, -1.3, 0.6, 20_000
    _, kl = run(latent_case((a, 0.0), (c, 0.0), sigma), n)
    # Euler's recursion z <- (1 + c h) z + σ dW keeps second moments in closed form, so only the sampling error is left.
    h, moment, total = 0.05, 0.7**2 + 0.3**2, 0.0
    for _ in range(40):
        total += 0.5 * ((c - a) / sigma) ** 2 * moment * h
        moment = (1 + c * h) ** 2 * moment + sigma**2 * h
    expected = 2 * total + start_kl()
    assert abs(float(kl.detach().mean()) - expected) < 5 * float(kl.detach().std()) / math.sqrt(n)
    # And that recursion is within its step of the process itself, E z² = e^{2ct} m + σ²/(2c) (e^{2ct} - 1).
    m, T = 0.7**2 + 0.3**2, 2.0
    growth = (math.exp(2 * c * T) - 1) / (2 * c)
    integral = m * growth + sigma**2 / (2 * c) * (growth - T)
    assert expected == pytest.approx(((c - a) / sigma) ** 2 * integral + start_kl(), rel=0.05)


def test_posterior_and_prior_share_one_diffusion_and_reading() -> None:
    model = latent_case((-0.5, 0.2), (-0.5, 0.2), 0.25)
    n = 6
    w = path(STEPS, 3, n)
    noise = normal(2, torch.arange(n), (2,), dtype=F64)
    rebuilt, _ = run(model, n)
    with torch.no_grad():
        model.prior_mean.fill_(0.7)
        model.prior_log_std.fill_(math.log(0.3))
    drawn = model.sample(SEEN, noise, PrecomputedPath(STEPS, w[..., :2]), STEPS)
    torch.testing.assert_close(rebuilt, drawn, rtol=1e-12, atol=1e-12)


def test_posterior_sees_the_context_of_the_next_observation_and_later_ones() -> None:
    model = initialised(lambda: LatentSDE(1, latent=2, context=3, width=4), 0).double()
    context = normal(0, torch.arange(4), (len(SEEN), 3), dtype=F64)
    z = normal(1, torch.arange(4), (2,), dtype=F64)
    # Before the second observation, at it, inside, and at the last.
    t = torch.stack([SEEN[1] - 0.01, SEEN[1], SEEN[3] + 0.1, SEEN[-1]])
    expected = torch.cat([t[:, None], z, torch.stack([context[0, 1], context[1, 2], context[2, 4], context[3, -1]])], 1)
    torch.testing.assert_close(model.posterior(t, z, SEEN, context), model.posterior_network(expected))
    # The encoder reads backwards: an early observation changes no later context.
    seen: list[Tensor] = []
    model.posterior = lambda t, z, times, context: seen.append(context) or torch.zeros_like(z)  # type: ignore
    data = normal(3, torch.arange(4), (len(SEEN), 1), dtype=F64)
    other = data.clone()
    other[:, 1] += 1.0
    for series in (data, other):
        model(SEEN, series, z, PrecomputedPath(STEPS, path(STEPS, 3, 4)), STEPS)
    assert torch.equal(seen[0][:, 2:], seen[-1][:, 2:])
    assert (seen[0][:, :2] != seen[-1][:, :2]).all()


def test_bound_weighs_squares_and_kl() -> None:
    model = latent_case((-0.5, 0.0), (-0.5, 0.4), 0.25)
    n = 3
    data = normal(1, torch.arange(n), (len(SEEN), 1), dtype=F64)
    noise, w = normal(2, torch.arange(n), (2,), dtype=F64), path(STEPS, 3, n)
    prediction, kl = model(SEEN, data, noise, PrecomputedPath(STEPS, w), STEPS)
    squares = ((data - prediction) ** 2).sum((1, 2))
    batch = (SEEN, data, noise, STEPS, w)
    torch.testing.assert_close(
        latent_sde_loss(model, batch, scale=0.5, weight=0.3),
        (squares / 0.5 + 0.3 * kl).mean() - (squares / 0.5 - 2 * squares).mean(),
    )

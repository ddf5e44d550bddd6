"""Neural stochastic differential equations: generators of series, trained against a critic or as latent paths.

| model | equation | training |
|---|---|---|
| ``SDEGenerator``, ``CDEDiscriminator`` | dY = μ dt + σ ∘ dW against dH = f dt + g ∘ dX | ``SDEGAN``, ``gan_loss`` |
| ``LatentSDE`` | prior and posterior drift, one ``DiagonalDiffusion`` | ``latent_sde_loss`` |

A model takes its random numbers as arguments. Losses are means over the batch, as ``training.fit`` wants them.

Source: Kidger 2022, On neural differential equations (arXiv:2202.02435), chapter 4.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.diffeq.adjoints import Adjoint
from pdebook.diffeq.brownian import Brownian, PrecomputedPath
from pdebook.diffeq.controllers import Grid
from pdebook.diffeq.neural_differential_equations import gaussian_kl
from pdebook.diffeq.reversible import Reversible
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import SDE
from pdebook.nn.mlp import MLP, LipSwish

Function = Callable[..., Tensor]


def _with_time(t: Tensor, y: Tensor) -> Tensor:
    return torch.cat([t[:, None].to(y.dtype), y], 1)


class SDEGenerator(nn.Module):
    """Y(t_0) = ζ(v), dY = μ(t, Y) dt + σ(t, Y) ∘ dW, X = α Y + β: a sampler of series from normal v and Brownian W.

    Args:
        outputs: size of X.
        start: size of v.
        noise: size of W.
        hidden: size of Y.
        width, depth: of the hidden layers, LipSwish; μ and σ end in tanh.
    Source: Kidger, Foster, Li, Oberhauser and Lyons 2021 (arXiv:2102.03657), section 3.1.
    """

    def __init__(
        self, outputs: int, *, start: int = 5, noise: int = 3, hidden: int = 16, width: int = 16, depth: int = 1
    ) -> None:
        super().__init__()
        mlp = partial(MLP, width=width, depth=depth, activation=LipSwish)
        self.hidden, self.noise, self.noise_at_start = hidden, noise, start
        self.start = mlp(start, hidden)
        self.drift_network = mlp(1 + hidden, hidden, final=nn.Tanh)
        self.diffusion_network = mlp(1 + hidden, hidden * noise, final=nn.Tanh)
        self.reading = nn.Linear(hidden, outputs)

    def drift(self, t: Tensor, y: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch hidden"]:
        """μ(t, y)."""
        return self.drift_network(_with_time(t, y))

    def diffusion(self, t: Tensor, y: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch hidden noise"]:
        """σ(t, y)."""
        return self.diffusion_network(_with_time(t, y)).reshape(len(y), self.hidden, self.noise)

    def forward(
        self,
        times: Float[Tensor, " time"],
        v: Float[Tensor, "batch start"],
        brownian: Brownian,
        adjoint: Adjoint | None = None,
    ) -> Float[Tensor, "batch time outputs"]:
        """Series at the times, with one step of reversible Heun between them.

        Args:
            times: rising times.
            v: normal numbers for the start.
            brownian: of shape (noise,).
            adjoint: how gradients are formed; ``Reversible``, exact at constant memory, if left out.
        """
        term = SDE(self.drift, self.diffusion, brownian, noise="general", calculus="stratonovich")
        clock = times.double()
        span = float(clock[0]), float(clock[-1])
        adjoint = Reversible() if adjoint is None else adjoint
        ys = solve(
            term, self.start(v), *span, solver="reversible-heun", controller=Grid(clock), ts=clock, adjoint=adjoint
        ).ys
        return self.reading(ys)


class CDEDiscriminator(nn.Module):
    """H(t_0) = ξ(t_0, X(t_0)), dH = f(t, H) dt + g(t, H) ∘ dX, score m · H(t_1): a critic of whole series.

    X is the broken line through the series; as a driver it takes the place of a Brownian path, step by step.

    Args:
        inputs: size of X.
        hidden: size of H.
        width, depth: of the hidden layers, LipSwish; f and g end in tanh.
    Source: Kidger, Foster, Li, Oberhauser and Lyons 2021 (arXiv:2102.03657), section 3.2.
    """

    def __init__(self, inputs: int, *, hidden: int = 16, width: int = 16, depth: int = 1) -> None:
        super().__init__()
        mlp = partial(MLP, width=width, depth=depth, activation=LipSwish)
        self.hidden, self.inputs = hidden, inputs
        self.start = mlp(1 + inputs, hidden)
        self.drift_network = mlp(1 + hidden, hidden, final=nn.Tanh)
        self.driven_network = mlp(1 + hidden, hidden * inputs, final=nn.Tanh)
        self.reading = nn.Linear(hidden, 1)

    def drift(self, t: Tensor, h: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch hidden"]:
        """f(t, h)."""
        return self.drift_network(_with_time(t, h))

    def driven(self, t: Tensor, h: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch hidden inputs"]:
        """g(t, h)."""
        return self.driven_network(_with_time(t, h)).reshape(len(h), self.hidden, self.inputs)

    def forward(
        self, times: Float[Tensor, " time"], series: Float[Tensor, "batch time inputs"]
    ) -> Float[Tensor, " batch"]:
        """Scores of series without gaps, differentiable with respect to them."""
        clock = times.double()
        term = SDE(self.drift, self.driven, PrecomputedPath(clock, series), noise="general", calculus="stratonovich")
        h = self.start(_with_time(times[:1].expand(len(series)), series[:, 0]))
        span = float(clock[0]), float(clock[-1])
        # Gradients with respect to the series flow through the increments, which Reversible takes as given.
        final = solve(term, h, *span, solver="reversible-heun", controller=Grid(clock)).ys
        return self.reading(final)[:, 0]


@torch.no_grad()
def clip_weights(module: nn.Module, by: str = "outputs") -> None:
    """Clip the weights of every linear map, in place, to ±1/outputs or ±1/inputs; biases stay.

    Columns then sum to at most 1 in size, or rows do: each map, and with LipSwish or tanh each perceptron, has Lipschitz constant
    at most 1 in the norm Σ |x_i|, or in max |x_i|.

    Args:
        module: what to clip.
        by: whose number bounds the weights.
    Raises:
        ValueError: another word.
    Source: Kidger, Foster, Li and Lyons 2021 (arXiv:2105.13493), section 5; "outputs" as in torchsde's example.
    """
    if by not in ("outputs", "inputs"):
        raise ValueError(f"by must be 'outputs' or 'inputs', got {by!r}")
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            bound = 1.0 / (layer.out_features if by == "outputs" else layer.in_features)
            layer.weight.clamp_(-bound, bound)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class SDEGAN(nn.Module):
    """A generator and a critic that play min over θ, max over φ of E D(X_true) - E D(X_θ).

    Args:
        generator: makes series.
        discriminator: scores them.
    Source: Kidger, Foster, Li, Oberhauser and Lyons 2021 (arXiv:2102.03657), section 3.3.
    """

    def __init__(self, generator: SDEGenerator, discriminator: CDEDiscriminator) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def forward(
        self,
        times: Float[Tensor, " time"],
        real: Float[Tensor, "series time channels"],
        v: Float[Tensor, "batch start"],
        w: Float[Tensor, "batch time noise"],
    ) -> Float[Tensor, ""]:
        """E D(X_θ) - E D(X_true); its gradient with respect to θ has the sign turned, so one minimisation plays both sides."""
        fake = _Reversed.apply(self.generator(times, v, PrecomputedPath(times.double(), w)))
        scores = self.discriminator(times, torch.cat([fake, real]))
        return scores[: len(v)].mean() - scores[len(v) :].mean()


def gan_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Float[Tensor, ""]:
    """Minus the critic's estimate of the distance; the critic's weights are clipped first. A batch is (times, real, v, W)."""
    clip_weights(model.discriminator)  # type: ignore[arg-type]
    return model(*batch)


class DiagonalDiffusion(nn.Module):
    """g_i(t, z_i) between ``least`` and ``most``: a small network for each coordinate, with logistic output.

    Args:
        dim: number of coordinates.
        width: hidden units of each.
        least: lower bound, positive, since the KL divides by g.
        most: upper bound.
    """

    def __init__(self, dim: int, *, width: int = 8, least: float | int = 0.05, most: float | int = 1.0) -> None:
        super().__init__()
        self.least, self.most = least, most
        self.inner = nn.Parameter(torch.randn(dim, width, 2))
        self.bias = nn.Parameter(torch.zeros(dim, width))
        self.outer = nn.Parameter(torch.randn(dim, width) / math.sqrt(width))
        self.offset = nn.Parameter(torch.zeros(dim))

    def forward(self, t: Float[Tensor, " batch"], z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """g(t, z)."""
        inputs = torch.stack([t[:, None].to(z.dtype).expand_as(z), z], -1)
        hidden = torch.tanh((self.inner * inputs[:, :, None]).sum(-1) + self.bias)
        gate = torch.sigmoid((self.outer * hidden).sum(-1) + self.offset)
        return self.least + (self.most - self.least) * gate


class LatentSDE(nn.Module):
    """Variational autoencoder of series whose latent is a path: prior dz = h dt + g dW, posterior dz = f dt + g dW, in Ito's sense.

        KL of the paths' laws = E ∫ |(f - h)/g|²/2 dt + KL of the starts,   x̂(t) = C z(t) + c

    The integral is one more channel of the solve. f knows the data through a context that the encoder, reading backwards, leaves at
    each observation: between two of them f sees that of the next.

    Args:
        channels: size of an observation.
        latent: size of z.
        context: size of the context.
        width: of the drifts' hidden layers.
    Source: Li, Wong, Chen and Duvenaud 2020 (arXiv:2001.01328), section 5.
    """

    def __init__(self, channels: int, *, latent: int = 4, context: int = 16, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.GRU(channels + 1, context, batch_first=True)
        self.law = nn.Linear(context, 2 * latent)
        self.prior_network = MLP(1 + latent, latent, width=width, activation=nn.Softplus)
        self.posterior_network = MLP(1 + latent + context, latent, width=width, activation=nn.Softplus)
        self.noise = DiagonalDiffusion(latent)
        self.reading = nn.Linear(latent, channels)
        self.prior_mean, self.prior_log_std = (nn.Parameter(torch.zeros(latent)) for _ in range(2))

    def prior(self, t: Tensor, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
        """h(t, z)."""
        return self.prior_network(_with_time(t, z))

    def posterior(self, t: Tensor, z: Tensor, times: Tensor, context: Tensor) -> Float[Tensor, "batch latent"]:
        """f(t, z, context)."""
        clock = t.to(times.dtype).contiguous()
        following = torch.searchsorted(times.contiguous(), clock, right=True).clamp(max=len(times) - 1)
        known = context[torch.arange(len(z), device=z.device), following]
        return self.posterior_network(torch.cat([_with_time(t, z), known], 1))

    def drift(self, t: Tensor, state: tuple[Tensor, Tensor], *data: Tensor) -> tuple[Tensor, Tensor]:
        """(f, |(f - h)/g|²/2) for the state (z, KL so far)."""
        z = state[0]
        f = self.posterior(t, z, *data)
        u = (f - self.prior(t, z)) / self.noise(t, z)
        return f, 0.5 * u.square().sum(1, keepdim=True)

    def diffusion(self, t: Tensor, state: tuple[Tensor, Tensor], *data: Tensor) -> tuple[Tensor, Tensor]:
        """(g, 0)."""
        return self.noise(t, state[0]), torch.zeros_like(state[1])

    def forward(
        self,
        times: Float[Tensor, " time"],
        data: Float[Tensor, "batch time channels"],
        noise: Float[Tensor, "batch latent"],
        brownian: Brownian,
        steps: Float[Tensor, " step"],
    ) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, " batch"]]:
        """Reconstruction and KL by Euler-Maruyama.

        Args:
            times: times of the observations.
            data: observations without gaps.
            noise: normal numbers for the start.
            brownian: of shape (latent + 1,); the last channel is not used.
            steps: ends of the steps, the times among them.
        """
        clock = times[:, None].to(data.dtype).expand(len(data), -1, 1)
        context = self.encoder(torch.cat([clock, data], 2).flip(1))[0].flip(1)
        mean, log_std = self.law(context[:, 0]).chunk(2, -1)
        start = mean + log_std.exp() * noise
        scale = self.prior_log_std.exp()
        kl = gaussian_kl((mean - self.prior_mean) / scale, log_std - self.prior_log_std)
        z, path_kl = self._solve(self.drift, self.diffusion, (start, kl[:, None]), times, steps, brownian, context)
        return self.reading(z), path_kl[:, -1, 0]

    def sample(
        self,
        times: Float[Tensor, " time"],
        noise: Float[Tensor, "batch latent"],
        brownian: Brownian,
        steps: Float[Tensor, " step"],
    ) -> Float[Tensor, "batch time channels"]:
        """Series of the prior; ``brownian`` has shape (latent,)."""
        start = self.prior_mean + self.prior_log_std.exp() * noise
        return self.reading(self._solve(self.prior, self.noise, start, times, steps, brownian))

    def _solve(
        self,
        drift: Function | Any,
        noise: Any,
        start: Any,
        times: Tensor,
        steps: Tensor,
        brownian: Brownian,
        *data: Tensor,
    ) -> Any:
        term = SDE(drift, noise, brownian)
        clock = times.double()
        args = (clock, *data) if data else ()
        span = float(clock[0]), float(clock[-1])
        return solve(
            term, start, *span, solver="euler-maruyama", controller=Grid(steps.double()), ts=clock, args=args
        ).ys


def latent_sde_loss(
    model: nn.Module, batch: tuple[Tensor, ...], *, scale: float | int = 0.1, weight: float | int = 1.0
) -> Float[Tensor, ""]:
    """Negative evidence bound of observations with Gaussian noise of standard deviation ``scale``, its KL times ``weight``.

    A batch is (times, series, ε, steps, W) with W of shape (batch, step, latent + 1) at the ends of the steps.
    """
    times, data, noise, steps, w = batch
    prediction, kl = model(times, data, noise, PrecomputedPath(steps.double(), w), steps)
    return (0.5 * ((data - prediction) / scale).square().sum((1, 2)) + weight * kl).mean()

"""Models whose forward pass is a differential equation: the families of Kidger's thesis, each a network handed to ``solve``.

| model | what it is |
|---|---|
| ``HybridField`` | neural and universal ODEs: dy/dt = known(t, y) + network(y) |
| ``LatentODE`` | variational autoencoder of series: a latent ODE from a Gaussian start, whose law an encoder gives |
| ``ContinuousFlow`` | continuous normalising flow: dy/dt = f(t, y), d log p/dt = -tr ∂f/∂y |
| ``NeuralCDE`` | continuous recurrent network: dy = f(y) dX along irregular data X |
| ``DeepEquilibrium`` | network of infinite depth: z = f(z, x) |
| ``SymbolicField`` | symbolic regression: dy/dt = formulas with constants to fit |

Neural SDEs are in ``neural_sdes``. A model takes its random numbers as arguments. Losses are means over the batch, as
``training.fit`` wants them.

Source: Kidger 2022, On neural differential equations (arXiv:2202.02435).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.algebra.implicit import implicit
from pdebook.algebra.nonlinear import anderson
from pdebook.algebra.results import Result
from pdebook.diffeq.controllers import PID, Constant, Grid
from pdebook.diffeq.paths import PiecewisePath
from pdebook.diffeq.runge_kutta import Solver
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import CDE, ODE
from pdebook.nn.mlp import MLP
from pdebook.symbolic.expressions import Expression

Function = Callable[..., Tensor]
Controller = PID | Constant | Grid


# -------------------- ordinary equations


class HybridField(nn.Module):
    """dy/dt = known(t, y) + network(y): known physics plus a network for what it lacks; without the first, a neural ODE.

    Args:
        network: maps states to rates; an ``MLP``.
        known: the known part, f(t, y); none if left out.
        start: factor of the network's last layer at first, so that training begins near the known physics.
    Source: Rackauckas et al. 2020 (arXiv:2001.04385), section 2.
    """

    def __init__(self, network: nn.Sequential, known: Function | None = None, *, start: float | int = 1.0) -> None:
        super().__init__()
        self.network, self.known = network, known
        last = [layer for layer in network if isinstance(layer, nn.Linear)][-1]
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(start)

    def forward(self, t: Tensor, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The rate at (t, y)."""
        return self.network(y) if self.known is None else self.known(t, y) + self.network(y)


class ScaledField(nn.Module):
    """dy/dt = s tanh(network(y)) with a learnt scale s, 1 at first: bounded, so that no early state can run away.

    Args:
        dim: size of the state.
        width, depth: of the network's hidden layers, with softplus.
    """

    def __init__(self, dim: int, *, width: int, depth: int = 2) -> None:
        super().__init__()
        self.network = MLP(dim, dim, width=width, depth=depth, activation=nn.Softplus, final=nn.Tanh)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, t: Tensor, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The rate at y."""
        return self.scale * self.network(y)


def gaussian_kl(mean: Float[Tensor, "*batch d"], log_std: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """KL(N(mean, std²) | N(0, 1)) = Σ (std² + mean² - 1)/2 - log std."""
    return (0.5 * ((2.0 * log_std).exp() + mean.square() - 1.0) - log_std).sum(-1)


class LatentODE(nn.Module):
    """Variational autoencoder of series at irregular times: a latent Gaussian start, an ODE from t = 0, a linear reading.

        (μ, log σ) = encoder of (t_n, x_n), ..., (t_1, x_1),   z = μ + σ ε,   y(0) = D(z),   dy/dt = f(y),   x̂(t) = C y(t) + c

    The encoder reads backwards in time, so what it knows last is the start.

    Args:
        channels: size of an observation.
        latent: size of z.
        hidden: size of the ODE's state and of the encoder's.
        width: of the networks' hidden layers.
    Source: Rubanova, Chen and Duvenaud 2019 (arXiv:1907.03907); Kidger 2022, section 2.2.4.
    """

    def __init__(self, channels: int, *, latent: int = 16, hidden: int = 16, width: int = 16) -> None:
        super().__init__()
        self.encoder = nn.GRU(channels + 1, hidden, batch_first=True)
        self.law = nn.Linear(hidden, 2 * latent)
        self.start = MLP(latent, hidden, width=width, depth=2, activation=nn.Softplus)
        self.field = ScaledField(hidden, width=width)
        self.reading = nn.Linear(hidden, channels)

    def encode(
        self, times: Float[Tensor, "batch time"], data: Float[Tensor, "batch time channels"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Mean and logarithm of the standard deviation of the latent start."""
        series = torch.cat([times[..., None].to(data.dtype), data], 2).flip(1)
        mean, log_std = self.law(self.encoder(series)[1][0]).chunk(2, -1)
        return mean, log_std

    def decode(
        self, latent: Float[Tensor, "batch latent"], times: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time channels"]:
        """The series at positive, strictly rising times, with one step of RK4 between them."""
        clock = torch.cat([torch.zeros_like(times[:, :1]), times], 1).double()
        end, grid = clock[:, -1], Grid(clock)
        return self.reading(
            solve(ODE(self.field), self.start(latent), 0.0, end, solver="rk4", controller=grid, ts=clock[:, 1:]).ys
        )

    def forward(
        self,
        times: Float[Tensor, "batch time"],
        data: Float[Tensor, "batch time channels"],
        noise: Float[Tensor, "batch latent"],
    ) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, " batch"]]:
        """Reconstruction with ε = ``noise``, and KL of the latent's law to N(0, 1)."""
        mean, log_std = self.encode(times, data)
        return self.decode(mean + log_std.exp() * noise, times), gaussian_kl(mean, log_std)


def latent_ode_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Float[Tensor, ""]:
    """Σ |x - x̂|²/2 + KL, the negative evidence bound of unit observation noise; a batch is (times, series, ε)."""
    prediction, kl = model(*batch)
    return (0.5 * (batch[1] - prediction).square().sum((1, 2)) + kl).mean()


# -------------------- continuous normalising flows


class ConcatSquash(nn.Module):
    """(W x + b) σ(w_g t + b_g) + w_b t: a linear layer that time gates and shifts.

    Source: Grathwohl et al. 2019 (arXiv:1810.01367), its code.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.gate = nn.Linear(inputs, outputs), nn.Linear(1, outputs)
        self.shift = nn.Linear(1, outputs, bias=False)

    def forward(self, t: Float[Tensor, " batch"], x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """The layer at times t."""
        clock = t[:, None].to(x.dtype)
        return self.linear(x) * torch.sigmoid(self.gate(clock)) + self.shift(clock)


class FlowField(nn.Module):
    """Field f(t, y) of a flow: ``ConcatSquash`` layers with tanh between them.

    Args:
        dim: size of the state.
        width, depth: of the hidden layers.
    """

    def __init__(self, dim: int, *, width: int, depth: int = 2) -> None:
        super().__init__()
        sizes = [dim, *[width] * depth, dim]
        self.layers = nn.ModuleList(ConcatSquash(a, b) for a, b in pairwise(sizes))

    def forward(self, t: Float[Tensor, " batch"], y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The field at (t, y)."""
        for layer in self.layers[:-1]:
            y = torch.tanh(layer(t, y))
        return self.layers[-1](t, y)


def with_trace(
    field: Function, t: Tensor, y: Float[Tensor, "batch d"], probe: Float[Tensor, "batch d"] | None = None
) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch 1"]]:
    """f(t, y) and tr ∂f/∂y: exactly, by d vector-Jacobian products, or as Hutchinson's estimate εᵀ (∂f/∂y) ε by one.

    Args:
        field: f, sample by sample.
        t: times (batch,).
        y: states.
        probe: ε with mean 0 and covariance 1, such as random signs; exact if left out.
    """
    differentiable = torch.is_grad_enabled()
    directions = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)[:, None].expand(-1, *y.shape)
    with torch.enable_grad():
        point = y if y.requires_grad else y.detach().requires_grad_()
        value = field(t, point)
        trace = torch.zeros_like(y[:, :1])
        for v in directions if probe is None else probe[None]:
            (pulled,) = torch.autograd.grad(value, point, v, create_graph=differentiable, retain_graph=True)
            trace = trace + (pulled * v).sum(1, keepdim=True)
    return (value, trace) if differentiable else (value.detach(), trace)


class ContinuousFlow(nn.Module):
    """Density of x = y(1), where dy/dt = f(t, y) and y(0) ~ N(0, 1).

        log p(x) = log N(y(0)) - ∫_0^1 tr ∂f/∂y dt

    Both come from one solve backwards in time, of (y, a) with da/dt = tr ∂f/∂y and a(1) = 0; then a(0) is minus the integral.

    Args:
        field: f(t, y), such as ``FlowField``.
        solver: method, and
        controller: steps; by default six of RK4.
    Source: Chen et al. 2018 (arXiv:1806.07366), theorem 1; Grathwohl et al. 2019 for the estimate.
    """

    def __init__(self, field: nn.Module, *, solver: Solver | str = "rk4", controller: Controller | None = None) -> None:
        super().__init__()
        self.field, self.solver = field, solver
        self.controller = Constant(steps=6) if controller is None else controller

    def rate(self, t: Tensor, state: tuple[Tensor, Tensor], probe: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(f, tr ∂f/∂y) for the state (y, a)."""
        return with_trace(self.field, t, state[0], probe)

    def transport(
        self,
        y: Float[Tensor, "batch d"],
        t0: float | int,
        t1: float | int,
        probe: Float[Tensor, "batch d"] | None = None,
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, " batch"]]:
        """The state at t1 of what is y at t0, and ∫_t0^t1 tr ∂f/∂y dt = log |det ∂y(t1)/∂y(t0)|.

        One probe serves the whole solve: with a new one at each call the right-hand side would be no function.
        """
        args = () if probe is None else (probe,)
        start = (y, torch.zeros_like(y[:, :1]))
        end, trace = solve(ODE(self.rate), start, t0, t1, solver=self.solver, controller=self.controller, args=args).ys
        return end, trace[:, 0]

    def log_prob(
        self, x: Float[Tensor, "batch d"], probe: Float[Tensor, "batch d"] | None = None
    ) -> Float[Tensor, " batch"]:
        """log p(x); with a probe its trace is Hutchinson's estimate."""
        base, trace = self.transport(x, 1.0, 0.0, probe)
        return trace - 0.5 * (base.square() + math.log(2.0 * math.pi)).sum(1)

    def sample(self, noise: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """What normal noise becomes."""
        return solve(ODE(self.field), noise, 0.0, 1.0, solver=self.solver, controller=self.controller).ys


def flow_loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Float[Tensor, ""]:
    """Mean of -log p; a batch is (x,) or (x, probe)."""
    return -model.log_prob(*batch).mean()  # type: ignore[operator]


# -------------------- controlled equations


class NeuralCDE(nn.Module):
    """dy = f(y) dX, y(t_0) = l(X(t_0)), and a linear reading of y at the end, along a path X through irregular data.

    Time must be a channel of X unless its speed shall not matter; ``paths.with_time`` adds it. The solution depends on X as a curve
    alone, not on how fast it is run through.

    Args:
        channels: size of X.
        outputs: size of the reading.
        hidden: size of y.
        width, depth: of the field's hidden layers, ReLU, with a final tanh.
    Source: Kidger et al. 2020 (arXiv:2005.08926).
    """

    def __init__(self, channels: int, outputs: int, *, hidden: int = 8, width: int = 64, depth: int = 1) -> None:
        super().__init__()
        self.hidden, self.channels = hidden, channels
        self.start = MLP(channels, hidden, width=width, activation=nn.ReLU)
        self.network = MLP(hidden, hidden * channels, width=width, depth=depth, activation=nn.ReLU, final=nn.Tanh)
        self.reading = nn.Linear(hidden, outputs)

    def field(self, t: Tensor, y: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch hidden channels"]:
        """f(y)."""
        return self.network(y).reshape(len(y), self.hidden, self.channels)

    def forward(
        self, path: PiecewisePath, *, solver: Solver | str = "midpoint", controller: Controller | None = None
    ) -> Float[Tensor, "batch outputs"]:
        """The reading at the end of the path.

        Args:
            path: control, with one channel for each that the model knows.
            solver: method, and
            controller: steps; by default one from knot to knot, for series of one length.
        """
        start, end = (t.expand(path.batch) for t in (path.t0, path.t1))
        steps = Grid(path.times.expand(path.batch, -1)) if controller is None else controller
        final = solve(CDE(self.field, path), self.start(path(start)), start, end, solver=solver, controller=steps)
        return self.reading(final.ys)


# -------------------- equilibria and formulas


class DeepEquilibrium(nn.Module):
    """z = f(z, x): a layer repeated until nothing changes, differentiated at the fixed point without its iterations.

    Args:
        cell: f, called as ``cell(z, x)``; it should contract in z.
        size: size of z.
        solver: fixed-point solver for both passes, such as ``partial(anderson, rtol=1e-10)``.
        one_step: take the gradient of the last step alone.
    Source: Bai, Kolter and Koltun 2019 (arXiv:1909.01377).
    """

    def __init__(
        self, cell: Function, size: int, *, solver: Callable[..., Result] = anderson, one_step: bool = False
    ) -> None:
        super().__init__()
        self.cell, self.size, self.solver, self.one_step = cell, size, solver, one_step

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch size"]:
        """The fixed point for x."""
        with torch.no_grad():
            z = self.solver(lambda z: self.cell(z, x), x.new_zeros(len(x), self.size)).x
        return implicit(self.cell, z, x, solver=self.solver, one_step=self.one_step)


class SymbolicField(nn.Module):
    """dy_i/dt = e_i(y): formulas as a field, whose constants are parameters, to be fitted through a solve.

    Args:
        expressions: one formula for each component.
        variables: names of the components in the formulas.
        dtype: of the constants.
    Raises:
        ValueError: not as many formulas as variables.
    Source: Kidger 2022, section 6.1.
    """

    def __init__(
        self, expressions: Sequence[Expression], variables: Sequence[str], dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        if len(expressions) != len(variables):
            raise ValueError(f"expressions must be one for each of {', '.join(variables)}, got {len(expressions)}")
        self.expressions, self.variables = tuple(expressions), tuple(variables)
        self.constants = nn.ParameterList(torch.tensor(e.constants, dtype=dtype) for e in expressions)

    def forward(self, t: Tensor, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The rate at y."""
        values = dict(zip(self.variables, y.unbind(-1), strict=True))
        return torch.stack([e(values, c) for e, c in zip(self.expressions, self.constants, strict=True)], -1)

    def fitted(self, step: float | int | None = None) -> tuple[Expression, ...]:
        """The formulas with the constants as they are now, rounded to multiples of ``step`` if it is given."""
        pairs = zip(self.expressions, self.constants, strict=True)
        current = [e.with_constants(c.detach().tolist()) for e, c in pairs]
        return tuple(e if step is None else e.rounded(step) for e in current)

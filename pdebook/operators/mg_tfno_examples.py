"""The maps that the chapter on multi-grid tensorised operators learns, one loop to learn them, and its shipped networks.

| map | from | to |
|---|---|---|
| ``forced_flow`` | a force's curl f | the vorticity at time T of a flow at rest at time 0 |
| ``poisson`` | f | u with -Δu = f |
| ``burgers`` | a start u_0, repeated for all times | u(x, t) on a grid of space and time |
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pdebook import weights
from pdebook.losses import relative_h1, relative_lp
from pdebook.nn.decompositions import Rank
from pdebook.nn.fno import FNO
from pdebook.nn.padding import DomainPad
from pdebook.pde.equations import Burgers
from pdebook.pde.fields import gaussian_field, power_law
from pdebook.pde.grid import Grid
from pdebook.pde.navier_stokes import Vorticity
from pdebook.pde.semilinear import Stepper
from pdebook.pde.spectral import Spectral
from pdebook.rng import fold_in, permutation
from pdebook.training import fit, one_cycle

__all__ = [
    "BACKBONES",
    "BURGERS",
    "FORCING",
    "RANKS",
    "Examples",
    "burgers",
    "burgers_data",
    "burgers_network",
    "flow_data",
    "flow_network",
    "flow_tests",
    "forced_flow",
    "fraction",
    "h1",
    "load_networks",
    "make_backbones",
    "make_burgers",
    "make_poisson",
    "make_ranks",
    "poisson",
    "poisson_data",
    "poisson_network",
    "relative_error",
    "sizes",
    "standardised",
    "subsampled",
    "train",
]

FORCING = power_law(4, 3, 27 * math.sqrt(2))
"""Standard deviation of the force's coefficients: 27 √2 (k² + 9)^{-2} in the basis of ``pde.fields``, on the box (0, 2π)²."""


class Examples(NamedTuple):
    """Inputs and outputs of a map, sample by sample.

    Attributes:
        inputs: (batch, channels, *grid).
        outputs: (batch, channels, *grid).
    """

    inputs: Tensor
    outputs: Tensor


def forced_flow(
    seed: int,
    samples: Int64[Tensor, " batch"],
    n: int,
    *,
    viscosity: float = 1 / 500,
    time: float | int = 4.0,
    dt: float = 0.01,
    modes: int | None = None,
    device: torch.device | str = "cpu",
) -> Examples:
    """f and ω(T) of ω_t + u·∇ω = ν Δω + f on (0, 2π)², ω(0) = 0, by ETDRK4.

    Args:
        seed: of the forces.
        samples: their numbers; row i depends on ``samples[i]`` alone.
        n: points of each axis.
        viscosity: ν.
        time: T, a multiple of the step.
        dt: step.
        modes: largest wavenumber of f; all that the grid holds if left out.
        device: where it is computed.
    Raises:
        ValueError: a time that the step does not divide.
    """
    steps = round(time / dt)
    if steps < 1 or not math.isclose(steps * dt, time):
        raise ValueError(f"time must be a positive multiple of dt, got {time} and {dt}")
    grid = Grid((n, n), 2 * math.pi)
    force = gaussian_field(seed, samples, grid, FORCING, modes=modes, at="nodes", device=device)
    with torch.no_grad():
        flow = Stepper(Vorticity(grid, viscosity, source=force), dt)
        return Examples(force, flow.rollout(torch.zeros_like(force), steps, steps)[:, 0])


def poisson(seed: int, samples: Int64[Tensor, " batch"], n: int, *, device: torch.device | str = "cpu") -> Examples:
    """f with coefficients of standard deviation e^{-|k|²/72}, and u with -Δu = f and mean 0, on (0, 2π)²."""
    grid = Grid((n, n), 2 * math.pi)
    f = gaussian_field(seed, samples, grid, lambda k: torch.exp(-k.square() / 72), at="nodes", device=device)
    return Examples(f, -Spectral(grid).inverse_laplacian(f))


def burgers(
    seed: int,
    samples: Int64[Tensor, " batch"],
    points: int = 128,
    times: int = 26,
    *,
    viscosity: float = 0.01,
    device: torch.device | str = "cpu",
) -> Examples:
    """u_t + u u_x = ν u_xx on the unit circle: the start at all times, and the solution at t = 0, ..., 1, on (x, t).

    Starts have coefficients of standard deviation 25 / (k² + 25); the solver uses twice the points.
    """
    grid = Grid(2 * points, 1.0)
    start = gaussian_field(seed, samples, grid, power_law(2, 5, 25), at="nodes", device=device)
    steps = 16 * (times - 1)
    with torch.no_grad():
        path = Stepper(Burgers(grid, viscosity), 1.0 / steps).rollout(start, steps, 16, start=True)
    path = path[:, :, 0, ::2].mT[:, None].contiguous()
    return Examples(path[..., :1].expand_as(path).contiguous(), path)


def subsampled(pairs: Examples, factor: int) -> Examples:
    """Every so many points of each axis of the grid."""

    def every(u: Tensor) -> Tensor:
        for axis in range(2, u.ndim):
            u = u[(slice(None),) * axis + (slice(None, None, factor),)]
        return u

    return Examples(*map(every, pairs))


def sizes(pairs: Examples) -> Float[Tensor, " 2"]:
    """Root mean squares of inputs and outputs."""
    return torch.stack([u.square().mean().sqrt() for u in pairs])


def standardised(pairs: Examples, by: Float[Tensor, " 2"]) -> Examples:
    """Inputs and outputs over the sizes of a training set."""
    return Examples(*(u / size for u, size in zip(pairs, by, strict=True)))


def relative_error(model: nn.Module, pairs: Examples) -> float:
    """Mean of ‖model(f) - u‖ / ‖u‖ in L2."""
    with torch.no_grad():
        return float(relative_lp(model(pairs.inputs), pairs.outputs, dims=pairs.inputs.ndim - 2))


def train(
    model: nn.Module,
    pairs: Examples,
    *,
    steps: int,
    batch: int,
    lr: float = 4e-3,
    weight_decay: float = 1e-4,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> None:
    """Train in place on batches of a shuffled set, one cycle of the learning rate.

    Args:
        model: the network.
        pairs: training set.
        steps: number of batches.
        batch: samples of a batch.
        lr: largest learning rate.
        weight_decay: of AdamW.
        seed: of the order of the samples.
        loss: of prediction and target; ``relative_lp`` if left out.
    Raises:
        ValueError: a batch that is larger than the training set.
    """
    count, dims = len(pairs.inputs), pairs.inputs.ndim - 2
    if not 1 <= batch <= count:
        raise ValueError(f"batch must be from 1 to {count}, got {batch}")
    epoch = count // batch

    def chosen(seed: int, step: int) -> tuple[Tensor, Tensor]:
        order = permutation(fold_in(seed, f"epoch {step // epoch}"), count)
        rows = order[step % epoch * batch :][:batch].to(pairs.inputs.device)
        return pairs.inputs[rows], pairs.outputs[rows]

    measure = loss or (lambda prediction, target: relative_lp(prediction, target, dims=dims))
    fit(
        model,
        lambda module, pair: measure(module(pair[0]), pair[1]),
        chosen,
        steps=steps,
        lr=lr,
        seed=seed,
        schedule=one_cycle(),
        weight_decay=weight_decay,
        progress=False,
        log_every=steps,
    )


# -------------------- networks


def fraction(part: float) -> list[int]:
    """Ranks of a Tucker tensor as one part of each axis of the layers' weights."""
    return [max(1, round(part * s)) for s in (24, 24, 16, 9)]


def flow_network(weight: str = "dense", rank: Rank = 1.0, **options: Any) -> FNO:
    """The operator of the forced flow: 24 channels, 16 modes an axis, four layers, no coordinates."""
    return FNO(1, 1, (16, 16), width=24, grid=False, weight=weight, rank=rank, **options)


def flow_data(seed: int, count: int, *, time: float | int = 2.0) -> Examples:
    """Training set of the forced flow, solved on 64² and given on 32²; not scaled."""
    return subsampled(forced_flow(seed, torch.arange(count), 64, time=time), 2)


def flow_tests(seed: int, count: int = 32, n: int = 64, *, time: float | int = 2.0) -> Examples:
    """Test set of the forced flow on n²: samples of numbers from 10000 on; not scaled."""
    return forced_flow(seed, 10_000 + torch.arange(count), n, time=time)


def poisson_data(seed: int, *, count: int = 128, tests: int = 32) -> tuple[Examples, Examples]:
    """Training and test set of Poisson's equation on 64², both over the training set's sizes."""
    f, u = poisson(seed, torch.cat([torch.arange(count), 10_000 + torch.arange(tests)]), 64)
    raw = Examples(f[:count], u[:count])
    return standardised(raw, sizes(raw)), standardised(Examples(f[count:], u[count:]), sizes(raw))


def poisson_network(inputs: int = 1) -> FNO:
    """The operator of Poisson's equation: 20 channels, 12 modes an axis, four layers, no coordinates."""
    return FNO(inputs, 1, (12, 12), width=20, grid=False)


def burgers_data(seed: int, *, count: int = 96, tests: int = 32) -> tuple[Examples, Examples]:
    """Training and test set of Burgers' equation on 128 x 26 points, both over the training set's sizes."""
    a, u = burgers(seed, torch.cat([torch.arange(count), 10_000 + torch.arange(tests)]))
    raw = Examples(a[:count], u[:count])
    return standardised(raw, sizes(raw)), standardised(Examples(a[count:], u[count:]), sizes(raw))


RANKS: dict[str, tuple[str, Rank]] = {
    "Tucker 0.1": ("tucker", fraction(0.1)),
    "Tucker 0.35": ("tucker", fraction(0.35)),
    "Tucker 0.55": ("tucker", fraction(0.55)),
    "CP": ("cp", 0.03),
    "TT": ("tt", 0.03),
}
"""Formats and ranks of the flow's networks that are shipped, for 24 and 96 training samples."""

_BLOCK = {"mlp": None}
_STEPS: dict[str, dict[str, Any]] = {
    "FNO block": {"mlp": None},
    "channel MLP": {"mlp": 0.5},
    "norm": {"norm_kind": "group"},
    "preactivation": {"preactivation": True},
    "H1 loss": {},
}
BACKBONES: dict[str, dict[str, Any]] = {}
"""Arguments of the improved backbone's steps, each with those before it; "H1 loss" changes the loss alone."""
for _name, _change in _STEPS.items():
    _BLOCK = {**_BLOCK, **_change}
    BACKBONES[_name] = _BLOCK

BURGERS: dict[str, dict[str, Any]] = {
    "dense, padded": {"padding": True},
    "Tucker, padded": {"padding": True, "weight": "tucker", "rank": 0.1},
    "Tucker, not padded": {"padding": False, "weight": "tucker", "rank": 0.1},
}
"""The shipped networks of Burgers' equation."""


def burgers_network(*, padding: bool, **options: Any) -> FNO:
    """The operator of Burgers' equation in space and time: 16 channels, 16 x 12 modes; time can be padded by a quarter."""
    pad = DomainPad((0, 0.25)) if padding else None
    return FNO(1, 1, (16, 12), width=16, padding=pad, **options)


def h1(prediction: Tensor, target: Tensor) -> Tensor:
    """The relative error in H1 on (0, 2π)²."""
    return relative_h1(prediction, target, dims=2, length=2 * math.pi)


# -------------------- shipped weights


def load_networks(name: str, networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Put shipped weights into networks of the right kind, in place; the file's other tensors, such as sizes of training sets.

    Raises:
        ValueError: as ``weights.load``; a network that the file does not hold.
    """
    tensors = weights.load(name)
    for each, net in networks.items():
        state = {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{each}/")}
        if not state:
            raise ValueError(f"networks must be among those of {name!r}, got {each!r}")
        net.load_state_dict(state)
    return {key: value for key, value in tensors.items() if "/" not in key}


def _made(networks: Mapping[str, nn.Module], metrics: Mapping[str, float], **others: Tensor) -> weights.Made:
    stored = {f"{name}/{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    return weights.Made(stored | others, dict(metrics))


def make_ranks(seed: int = 0, *, steps: int = 200) -> weights.Made:
    """Networks of ``RANKS`` on 24 and 96 samples of the forced flow, and dense ones of which the errors alone are kept."""
    networks: dict[str, nn.Module] = {}
    metrics = {}
    scales = {}
    tests = subsampled(flow_tests(seed), 2)
    for count in (24, 96):
        raw = flow_data(seed, count)
        scales[f"sizes_{count}"] = sizes(raw)
        learn, test = (standardised(pairs, sizes(raw)) for pairs in (raw, tests))
        for name, (weight, rank) in {"dense": ("dense", 1.0), **RANKS}.items():
            torch.manual_seed(seed)
            net = flow_network(weight, rank)
            train(net, learn, steps=steps, batch=8, seed=seed)
            metrics[f"{name}, {count}: train"] = relative_error(net, learn)
            metrics[f"{name}, {count}: test"] = relative_error(net, test)
            if name != "dense":
                networks[f"{name}, {count}"] = net
    return _made(networks, metrics, **scales)


def make_backbones(seed: int = 0, *, steps: int = 200) -> weights.Made:
    """Networks of ``BACKBONES`` on 96 samples of the forced flow."""
    raw = flow_data(seed, 96)
    learn = standardised(raw, sizes(raw))
    test = standardised(subsampled(flow_tests(seed), 2), sizes(raw))
    networks: dict[str, nn.Module] = {}
    metrics = {}
    for name, options in BACKBONES.items():
        torch.manual_seed(seed)
        networks[name] = net = flow_network("tucker", fraction(0.35), **options)
        train(net, learn, steps=steps, batch=8, seed=seed, loss=h1 if name == "H1 loss" else None)
        metrics[name] = relative_error(net, test)
    return _made(networks, metrics, sizes_96=sizes(raw))


def make_burgers(seed: int = 0, *, steps: int = 300) -> weights.Made:
    """Networks of ``BURGERS`` on 96 samples."""
    learn, test = burgers_data(seed)
    networks: dict[str, nn.Module] = {}
    metrics = {}
    for name, options in BURGERS.items():
        torch.manual_seed(seed)
        networks[name] = net = burgers_network(**options)
        train(net, learn, steps=steps, batch=8, seed=seed)
        metrics[name] = relative_error(net, test)
    return _made(networks, metrics)


def make_poisson(seed: int = 0, *, steps: int = 150) -> weights.Made:
    """The undivided operator of Poisson's equation, on 128 samples."""
    learn, test = poisson_data(seed)
    torch.manual_seed(seed)
    net = poisson_network()
    train(net, learn, steps=steps, batch=2, seed=seed)
    return _made({"whole": net}, {"whole": relative_error(net, test)})

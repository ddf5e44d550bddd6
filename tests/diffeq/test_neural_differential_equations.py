"""Exact identities of the models: determinants, invariances, closed forms, and gradients against autograd through everything."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdebook.algebra.nonlinear import anderson, picard
from pdebook.diffeq.controllers import PID, Constant, Grid
from pdebook.diffeq.forecasts import forecast, forecast_loss
from pdebook.diffeq.neural_differential_equations import (
    ConcatSquash,
    ContinuousFlow,
    DeepEquilibrium,
    FlowField,
    HybridField,
    LatentODE,
    NeuralCDE,
    ScaledField,
    SymbolicField,
    flow_loss,
    gaussian_kl,
    latent_ode_loss,
    with_trace,
)
from pdebook.diffeq.paths import HermitePath, LinearPath, with_time
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import CDE
from pdebook.metrics.distributions import kl_gaussian
from pdebook.nn.mlp import MLP, initialised
from pdebook.symbolic.expressions import parse_infix

ROUNDING = 1e-12
F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


# -------------------- ordinary equations


def known(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[:, 1] + t, -y[:, 0].sin()], 1)


def test_hybrid_with_zero_network_is_the_known_physics() -> None:
    field = initialised(lambda: HybridField(MLP(2, 2, width=8), known, start=0.0), 0).double()
    t, y = torch.full((5,), 0.3, dtype=F64), normal(5, 2)
    assert torch.equal(field(t, y), known(t, y))
    times = torch.linspace(0.0, 2.0, 9, dtype=F64)
    assert torch.equal(forecast(field, y, times), forecast(known, y, times))


def test_hybrid_is_a_sum_and_its_start_scales_the_last_layer_alone() -> None:
    full, tenth = (initialised(lambda s=s: HybridField(MLP(2, 2, width=8), known, start=s), 0) for s in (1.0, 0.1))
    t, y = torch.full((5,), 0.3), torch.randn(5, 2)
    assert torch.equal(full.network[0].weight, tenth.network[0].weight)
    torch.testing.assert_close(tenth.network(y), 0.1 * full.network(y))
    assert torch.equal(full(t, y), known(t, y) + full.network(y))
    assert torch.equal(HybridField(full.network)(t, y), full.network(y))


def test_scaled_field_is_bounded_by_its_scale() -> None:
    field, y = ScaledField(3, width=8), 1e3 * torch.randn(7, 3)
    assert field(torch.zeros(7), y).abs().max() <= 1.0
    before = field(torch.zeros(7), y)
    nn.init.constant_(field.scale, 2.5)
    torch.testing.assert_close(field(torch.zeros(7), y), 2.5 * before)
    assert isinstance(field.network[1], nn.Softplus)


# -------------------- latent ODE


def test_kl_of_gaussians_against_the_general_formula() -> None:
    mean, log_std = normal(6, 3), normal(6, 3, seed=1)
    general = kl_gaussian(
        mean, torch.diag_embed((2 * log_std).exp()), torch.zeros_like(mean), torch.eye(3, dtype=F64).expand(6, 3, 3)
    )
    torch.testing.assert_close(gaussian_kl(mean, log_std), general, rtol=ROUNDING, atol=ROUNDING)
    assert not gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).any()


def latent_case() -> tuple[LatentODE, Tensor, Tensor]:
    model = initialised(lambda: LatentODE(2, latent=3, hidden=4, width=5), 0).double()
    return (
        model,
        torch.rand(5, 6, dtype=F64, generator=torch.Generator().manual_seed(0)).sort(1).values + 0.1,
        normal(5, 6, 2),
    )


def test_latent_ode_of_a_sample_ignores_its_batch() -> None:
    model, times, data = latent_case()
    noise = normal(5, 3, seed=2)
    whole, kl = model(times, data, noise)
    for k in range(5):
        alone, own = model(times[k : k + 1], data[k : k + 1], noise[k : k + 1])
        torch.testing.assert_close(alone[0], whole[k], rtol=ROUNDING, atol=ROUNDING)
        torch.testing.assert_close(own[0], kl[k], rtol=ROUNDING, atol=ROUNDING)


def test_latent_ode_reads_backwards_and_solves_from_zero() -> None:
    model, times, data = latent_case()
    # The encoder by hand, last observation first.
    state = torch.zeros(1, 5, 4, dtype=F64)
    for i in range(5, -1, -1):
        state = model.encoder(torch.cat([times[:, i : i + 1], data[:, i]], 1)[:, None], state)[1]
    mean, log_std = model.encode(times, data)
    torch.testing.assert_close(torch.cat([mean, log_std], 1), model.law(state[0]), rtol=ROUNDING, atol=ROUNDING)
    # RK4 from 0 to the first time by hand.
    y, h = model.start(mean), times[:, :1]
    f = partial(model.field, times[:, 0])
    k1 = f(y)
    k2 = f(y + h / 2 * k1)
    k3 = f(y + h / 2 * k2)
    k4 = f(y + h * k3)
    first = model.reading(y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    torch.testing.assert_close(model.decode(mean, times)[:, 0], first, rtol=ROUNDING, atol=ROUNDING)
    # Noise moves the latent by the standard deviation.
    noise = normal(5, 3, seed=2)
    shifted = model(times, data, noise)[0]
    torch.testing.assert_close(shifted, model.decode(mean + log_std.exp() * noise, times), rtol=0, atol=0)


def test_latent_loss_is_half_the_squares_and_the_kl() -> None:
    model, times, data = latent_case()
    noise = normal(5, 3, seed=2)
    prediction, kl = model(times, data, noise)
    expected = sum(0.5 * ((data[k] - prediction[k]) ** 2).sum() + kl[k] for k in range(5)) / 5
    torch.testing.assert_close(latent_ode_loss(model, (times, data, noise)), expected)


# -------------------- continuous flows


def test_concat_squash_is_its_formula() -> None:
    layer, t, x = ConcatSquash(3, 2).double(), normal(4), normal(4, 3)
    w, b = layer.linear.weight, layer.linear.bias
    gate = torch.sigmoid(t[:, None] * layer.gate.weight[:, 0] + layer.gate.bias)
    torch.testing.assert_close(layer(t, x), (x @ w.T + b) * gate + t[:, None] * layer.shift.weight[:, 0])


def test_flow_field_has_tanh_between_its_layers() -> None:
    field, t, y = FlowField(2, width=5, depth=2).double(), normal(4), normal(4, 2)
    first, second, third = field.layers
    torch.testing.assert_close(field(t, y), third(t, torch.tanh(second(t, torch.tanh(first(t, y))))))


def test_trace_is_that_of_the_jacobian_and_all_signs_average_to_it() -> None:
    field, t, y = FlowField(3, width=6).double(), normal(5), normal(5, 3)
    value, trace = with_trace(field, t, y)
    assert torch.equal(value, field(t, y))
    for k in range(5):
        jacobian = torch.func.jacrev(lambda z, k=k: field(t[k : k + 1], z[None])[0])(y[k])
        torch.testing.assert_close(trace[k, 0], jacobian.trace(), rtol=ROUNDING, atol=ROUNDING)
    signs = [torch.tensor(s, dtype=F64).expand(5, 3) for s in itertools.product((-1.0, 1.0), repeat=3)]
    estimates = torch.stack([with_trace(field, t, y, probe)[1] for probe in signs])
    torch.testing.assert_close(estimates.mean(0), trace, rtol=ROUNDING, atol=ROUNDING)
    assert estimates.std(0).min() > 1e-3
    with torch.no_grad():
        quiet = with_trace(field, t, y)
    assert not any(part.requires_grad for part in quiet)
    torch.testing.assert_close(quiet, (value, trace), rtol=0, atol=0)


def fine_flow(d: int = 2) -> ContinuousFlow:
    field = initialised(lambda: FlowField(d, width=8), 1).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.mul_(2.5)
    return ContinuousFlow(field, solver="dopri8", controller=Constant(steps=10))


def test_accumulated_trace_is_log_det_of_the_flow_map() -> None:
    flow, y = fine_flow(3), normal(4, 3)
    for t0, t1 in ((0.0, 1.0), (1.0, 0.0), (0.2, 0.7)):
        start = y.clone().requires_grad_()
        end, trace = flow.transport(start, t0, t1)
        rows = [torch.autograd.grad(end[:, i].sum(), start, retain_graph=True)[0] for i in range(3)]
        log_det = torch.stack(rows, 1).det().abs().log()
        assert log_det.abs().max() > 0.01
        torch.testing.assert_close(trace, log_det, rtol=0, atol=1e-9)


def test_density_of_a_linear_flow_is_gaussian() -> None:
    class Linear(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return 0.7 * y

    flow, x = ContinuousFlow(Linear(), controller=Constant(steps=100)), normal(5, 3)
    # y(1) = e^a y(0), so log p(x) = log N(e^-a x) - a d; RK4 with h = 0.01 errs by about 1e-10.
    base = torch.distributions.Normal(torch.zeros((), dtype=F64), 1.0)
    exact = base.log_prob(math.exp(-0.7) * x).sum(1) - 3 * 0.7
    torch.testing.assert_close(flow.log_prob(x), exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(flow.sample(x), math.exp(0.7) * x, rtol=0, atol=1e-8)
    # A sign as probe gives the trace of a multiple of the identity exactly.
    torch.testing.assert_close(flow.log_prob(x, torch.ones_like(x)), exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(flow_loss(flow, (x,)), -exact.mean(), rtol=0, atol=1e-8)


def test_samples_and_densities_belong_to_one_flow() -> None:
    flow, z = fine_flow(), normal(6, 2)
    back, trace = flow.transport(flow.sample(z), 1.0, 0.0)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-9)
    base = -0.5 * (z.square().sum(1) + 2 * math.log(2 * math.pi))
    torch.testing.assert_close(flow.log_prob(flow.sample(z)), base + trace, rtol=0, atol=1e-9)


def test_one_probe_serves_a_whole_solve_and_leaves_the_flow_alone() -> None:
    flow, x = fine_flow(), normal(4, 2)
    seen: list[Tensor] = []
    rate = flow.rate

    def watched(t: Tensor, state: Any, probe: Any = None) -> Any:
        seen.append(probe)
        return rate(t, state, probe)

    flow.rate = watched  # type: ignore[method-assign]
    probe = torch.ones_like(x)
    end, estimate = flow.transport(x, 1.0, 0.0, probe)
    assert len(seen) > 40
    assert all(torch.equal(used, probe) for used in seen)
    exact_end, exact = flow.transport(x, 1.0, 0.0)
    assert seen[-1] is None
    torch.testing.assert_close(end, exact_end, rtol=0, atol=ROUNDING)
    # The states do not feel the probe, so the mean over all signs is the exact integral.
    signs = [torch.tensor(s, dtype=F64).expand(4, 2) for s in itertools.product((-1.0, 1.0), repeat=2)]
    mean = torch.stack([flow.transport(x, 1.0, 0.0, s)[1] for s in signs]).mean(0)
    torch.testing.assert_close(mean, exact, rtol=0, atol=1e-11)
    assert (estimate - exact).abs().max() > 1e-3


def test_gradient_of_the_likelihood() -> None:
    flow, x = fine_flow(), normal(3, 2)
    flow.controller = Constant(steps=3)
    weight = flow.field.layers[0].linear.weight  # type: ignore[union-attr, index]
    (grad,) = torch.autograd.grad(flow_loss(flow, (x,)), weight)
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            weight[0, 0] += sign * 1e-5
            values.append(flow_loss(flow, (x,)))
            weight[0, 0] -= sign * 1e-5
    torch.testing.assert_close(grad[0, 0], (values[0] - values[1]) / 2e-5, rtol=1e-6, atol=1e-9)


# -------------------- controlled equations


def cde_case() -> tuple[NeuralCDE, Tensor, Tensor]:
    times = torch.cumsum(0.2 + torch.rand(9, dtype=F64, generator=torch.Generator().manual_seed(3)), 0)
    return initialised(lambda: NeuralCDE(3, 2, hidden=4, width=6), 0).double(), times, with_time(times, normal(5, 9, 2))


def test_cde_does_not_feel_how_fast_its_path_is_run_through() -> None:
    model, times, curve = cde_case()
    warped = times + 0.3 * (times - times[0]).sin()
    assert (warped.diff() > 0).all()
    readings = [
        model(LinearPath(clock, curve), solver="tsit5", controller=PID(1e-9, 1e-9, jumps=tuple(clock.tolist())))
        for clock in (times, warped)
    ]
    torch.testing.assert_close(readings[0], readings[1], rtol=0, atol=1e-6)
    # At a constant factor the spline scales too, and so does every step.
    torch.testing.assert_close(
        model(HermitePath(times / 3, curve)), model(HermitePath(times, curve)), rtol=0, atol=ROUNDING
    )


def test_cde_with_a_constant_matrix_adds_up_its_path() -> None:
    model, times, curve = cde_case()
    nn.init.zeros_(model.network[-2].weight)
    matrix = torch.tanh(model.network[-2].bias).reshape(4, 3)
    state = model.start(curve[:, 0]) + (curve[:, -1] - curve[:, 0]) @ matrix.T
    # A cubic's slope at the middle of a step is not its mean; RK4's weights, Simpson's, integrate it exactly.
    reading = model(HermitePath(times, curve), solver="rk4")
    torch.testing.assert_close(reading, model.reading(state), rtol=0, atol=1e-11)


def test_cde_with_hermite_control_is_causal() -> None:
    model, times, curve = cde_case()
    other = curve.clone()
    other[:, 6:] += 1.0
    end = float(times[5])

    def state(data: Tensor, last: float) -> Tensor:
        path = HermitePath(times, data)
        steps = Grid(times[times <= last])
        return solve(
            CDE(model.field, path), model.start(data[:, 0]), float(times[0]), last, solver="midpoint", controller=steps
        ).ys

    assert torch.equal(state(curve, end), state(other, end))
    assert not torch.equal(state(curve, float(times[6])), state(other, float(times[6])))


def test_cde_needs_a_column_for_each_channel() -> None:
    model, times, curve = cde_case()
    model.start = MLP(2, 4, width=3).double()
    path = HermitePath(times, curve[..., :2])
    with pytest.raises(ValueError, match=r"function must return shape \(5, 4, 2\), got \(5, 4, 3\)"):
        model(path)


# -------------------- equilibria and formulas


class Cell(nn.Module):
    """tanh(W z + U x) with |W| = 0.9."""

    def __init__(self, size: int = 6, inputs: int = 3) -> None:
        super().__init__()
        w = normal(size, size)
        self.w = nn.Parameter(0.9 * w / torch.linalg.matrix_norm(w, 2))
        self.u = nn.Parameter(normal(size, inputs, seed=1))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.w.T + x @ self.u.T)


def test_equilibrium_is_a_fixed_point_with_the_gradient_of_the_unrolled_iteration() -> None:
    cell, x = Cell(), normal(4, 3).requires_grad_()
    layer = DeepEquilibrium(cell, 6, solver=partial(anderson, rtol=1e-13))
    z = layer(x)
    torch.testing.assert_close(cell(z, x), z, rtol=0, atol=1e-11)
    unrolled = torch.zeros(4, 6, dtype=F64)
    for _ in range(400):
        unrolled = cell(unrolled, x)
    weight = normal(4, 6, seed=5)
    found = torch.autograd.grad((z * weight).sum(), [x, cell.w, cell.u])
    expected = torch.autograd.grad((unrolled * weight).sum(), [x, cell.w, cell.u])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    one_step = DeepEquilibrium(cell, 6, solver=partial(picard, rtol=1e-12, max_iterations=1000), one_step=True)
    biased = torch.autograd.grad((one_step(x) * weight).sum(), cell.w)[0]
    assert (biased - expected[1]).norm() > 0.05 * expected[1].norm()


def test_formulas_are_a_field_with_constants_to_fit() -> None:
    names = ("x", "y")
    field = SymbolicField([parse_infix("1.25 * y / (0.5 + y)", names), parse_infix("-2.0 * x", names)], names)
    y = normal(5, 2).abs()
    rate = field(torch.zeros(5), y)
    torch.testing.assert_close(rate, torch.stack([1.25 * y[:, 1] / (0.5 + y[:, 1]), -2.0 * y[:, 0]], 1))
    (grad,) = torch.autograd.grad(rate[:, 0].sum(), field.constants[0])
    torch.testing.assert_close(grad[0], (y[:, 1] / (0.5 + y[:, 1])).sum())
    with torch.no_grad():
        field.constants[0][0] = 1.337
    assert [e.constants for e in field.fitted()] == [(1.337, 0.5), (-2.0,)]
    assert [e.constants for e in field.fitted(0.01)] == [(1.34, 0.5), (-2.0,)]
    times = torch.linspace(0, 1, 3, dtype=F64)
    assert forecast_loss(field, (times, forecast(field, y, times))) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: SymbolicField([parse_infix("x", ("x",))], ("x", "y")),
            "expressions must be one for each of x, y, got 1",
        ),
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

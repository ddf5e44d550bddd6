"""Taylor polynomials through networks: equal to nested reverse mode, order by order."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from pdebook.nn import jets
from pdebook.nn.mlp import MLP, LipSwish

FLOAT = torch.float64


def points(batch: int = 5, dim: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def nested(f, x, v, order):
    """Derivatives along v by reverse mode on reverse mode."""
    epsilon = torch.zeros(len(x), 1, dtype=FLOAT, requires_grad=True)
    out = f(x + epsilon * v)
    columns = []
    for o in range(out.shape[1]):
        g, ks = out[:, o], []
        for _ in range(order):
            tracked = g.requires_grad
            found = torch.autograd.grad(g.sum(), epsilon, create_graph=True, allow_unused=True)[0] if tracked else None
            g = torch.zeros(len(x), dtype=FLOAT) if found is None else found[:, 0]
            ks.append(g)
        columns.append(torch.stack(ks))
    return torch.stack(columns, -1)


FUNCTIONS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "softplus-2": lambda a: functional.softplus(a, 2.0),
    "gelu": functional.gelu,
    "gelu-tanh": lambda a: functional.gelu(a, approximate="tanh"),
    "log": lambda a: torch.log(a * a + 0.5),
    "sqrt": lambda a: torch.sqrt(a * a + 0.5),
    "square": torch.square,
    "cube": lambda a: a**3,
    "power": lambda a: (a * a + 0.5) ** -1.3,
    "reciprocal": lambda a: 1.0 / (a * a + 0.5),
    "quotient": lambda a: torch.sin(a) / (2.0 + torch.cos(a)),
    "product": lambda a: torch.sin(a) * torch.exp(a) - a,
    "right": lambda a: 2.0 - a * 3.0 + 1.0,
    "slices": lambda a: torch.cat([a[..., :1] * a[..., 1:2], a[..., 2:], torch.sin(a[..., :2])], -1),
    "sum": lambda a: torch.sum(a * a, -1, keepdim=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_rule_is_nested_reverse_mode_to_fourth_order(name):
    f, x, directions = FUNCTIONS[name], points(), points(2, 3, 1)
    # a polynomial of second order in ε goes in, so that every coefficient of the rule is exercised
    bent = lambda y: f(y + 0.3 * y * y)  # noqa: E731
    value, *derivatives = jets.directional(bent, x, directions, 4)
    torch.testing.assert_close(value, bent(x))
    for number, v in enumerate(directions):
        exact = nested(bent, x, v, 4)
        for k in range(4):
            torch.testing.assert_close(derivatives[k][:, number], exact[k], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("engine", ["taylor", "jvp"])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.SiLU, nn.GELU, nn.Softplus, LipSwish])
def test_a_perceptron_needs_no_second_version(activation, engine):
    torch.manual_seed(0)
    net = MLP(3, 2, width=8, depth=2, activation=activation).double()
    if activation is LipSwish and engine == "taylor":
        net = nn.Sequential(*[Silu() if isinstance(layer, LipSwish) else layer for layer in net])
    x, v = points(), points(2, 3, 1)
    _, first, second = jets.directional(net, x, v, 2, engine=engine)
    exact = nested(net, x, v[1], 2)
    torch.testing.assert_close(first[:, 1], exact[0])
    torch.testing.assert_close(second[:, 1], exact[1])


class Silu(nn.Module):
    def forward(self, x):
        return 0.909 * functional.silu(x)


def test_engines_agree_on_directions_that_differ_by_point():
    net = MLP(3, 2, width=8).double()
    x, v = points(), torch.randn(5, 4, 3, dtype=FLOAT)
    for a, b in zip(jets.directional(net, x, v, 3), jets.directional(net, x, v, 3, engine="jvp"), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(jets.directional(net, x, v, 1)[1][2], jets.directional(net, x[2:3], v[2], 1)[1][0])


def test_hard_constraint_and_constant_tensors_take_the_batch_axis():
    net = MLP(3, 1, width=8).double()
    weight = points(5, 1, 3)

    def f(y):
        return (1.0 - torch.sum(y * y, -1, keepdim=True)) * net(y) * weight + weight - weight * y[..., :1]

    x, v = points(), points(1, 3, 1)
    exact = nested(f, x, v[0], 3)
    for k, d in enumerate(jets.directional(f, x, v, 3)[1:]):
        torch.testing.assert_close(d[:, 0], exact[k])


def test_partials_mixed_and_laplacian():
    def f(y):
        return torch.sin(2 * y[..., :1]) * torch.exp(y[..., 1:2]) * y[..., 2:] ** 2

    x = points()
    a, b, c = x.unbind(-1)
    value, first, second = jets.partials(f, x, 2, (0, 2))
    torch.testing.assert_close(value[:, 0], torch.sin(2 * a) * b.exp() * c**2)
    torch.testing.assert_close(
        first[:, :, 0].T, torch.stack([2 * torch.cos(2 * a) * b.exp() * c**2, torch.sin(2 * a) * b.exp() * 2 * c])
    )
    torch.testing.assert_close(second[:, 0, 0], -4 * value[:, 0])
    torch.testing.assert_close(jets.mixed(f, x, 0, 2)[:, 0], 4 * torch.cos(2 * a) * b.exp() * c)
    torch.testing.assert_close(jets.laplacian(f, x)[:, 0], torch.sin(2 * a) * b.exp() * (-4 * c**2 + c**2 + 2))
    torch.testing.assert_close(jets.laplacian(f, x, (1,))[:, 0], value[:, 0])


def test_trace_of_the_hessian_is_the_mean_over_all_signs():
    net = MLP(4, 1, width=6).double()
    x = points(3, 4)
    signs = torch.tensor([[1.0 if n >> i & 1 else -1.0 for i in range(4)] for n in range(16)], dtype=FLOAT)
    second = jets.directional(net, x, signs, 2)[2].mean(1)
    torch.testing.assert_close(second, jets.laplacian(net, x))


@pytest.mark.parametrize("power", [0, 1, 2, 9, 12])
def test_whole_powers_have_their_derivatives_at_zero_too(power):
    x = torch.tensor([[0.0], [-1.5]], dtype=FLOAT)
    value, *rest = jets.partials(lambda y: y**power, x, 3)
    for k, derivative in enumerate([value, *rest]):
        factor = math.perm(power, k)
        expected = factor * x ** max(power - k, 0)
        torch.testing.assert_close(derivative.reshape(2, 1), expected, rtol=1e-12, atol=0)


def test_gradients_reach_the_parameters():
    net = MLP(2, 1, width=4).double()
    x = points(3, 2)
    parameters = tuple(net.parameters())

    def loss(*values):
        def model(y):
            return torch.func.functional_call(net, dict(zip(dict(net.named_parameters()), values, strict=True)), (y,))

        return jets.laplacian(model, x).square().sum()

    assert torch.autograd.gradcheck(loss, parameters)


def test_the_value_is_computed_once_for_all_directions():
    shapes = []

    class Watched(nn.Module):
        def forward(self, jet):
            shapes.append([None if c is None else c.shape for c in jet.coefficients])
            return torch.tanh(jet)

    jets.directional(
        nn.Sequential(nn.Linear(3, 8), Watched(), nn.Linear(8, 1)).double(), points(), torch.eye(3, dtype=FLOAT), 2
    )
    assert shapes == [[(5, 1, 8), (1, 3, 8), None]]


def test_a_derivative_that_vanishes_is_zero_and_has_its_shape():
    value, first, second = jets.directional(nn.Linear(3, 2).double(), points(), torch.eye(3, dtype=FLOAT), 2)
    assert first.shape == second.shape == (5, 3, 2)
    assert second.abs().max() == 0
    assert value.shape == (5, 2)
    assert jets.variable(points(), torch.eye(3, dtype=FLOAT), 3).derivative(3).abs().max() == 0
    assert math.isclose(float(jets.partials(lambda y: y**3, points(1, 1), 3)[3]), 6.0)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: jets.directional(torch.tanh, x, torch.eye(3), 0), ValueError, "order must be at least 1, got 0"),
        (
            lambda x: jets.directional(torch.tanh, x, torch.eye(2), 1),
            ValueError,
            r"directions must have shape \(directions, 3\)",
        ),
        (lambda x: jets.directional(torch.tanh, x, torch.zeros(4, 1, 3), 1), ValueError, r"got \(4, 1, 3\)"),
        (
            lambda x: jets.directional(torch.tanh, x, torch.eye(3), 1, engine="ad"),
            ValueError,
            "'taylor' or 'jvp', got 'ad'",
        ),
        (lambda x: jets.directional(torch.relu, x, torch.eye(3), 1), NotImplementedError, "relu has no Taylor rule"),
        (
            lambda x: jets.directional(lambda y: y[0], x, torch.eye(3), 1),
            ValueError,
            "begin the index with an ellipsis",
        ),
        (lambda x: jets.directional(lambda y: x, x, torch.eye(3), 1), ValueError, "got a constant"),
        (lambda x: jets.directional(lambda y: torch.sum(y, 1), x, torch.eye(3), 1), ValueError, "keepdim=True"),
        (
            lambda x: jets.directional(lambda y: torch.cat([y, x], -1), x, torch.eye(3), 1),
            ValueError,
            "joined with jets",
        ),
        (lambda x: jets.partials(torch.tanh, x, 1, [3]), ValueError, r"axes must be from 0 to 2, got \(3,\)"),
        (lambda x: jets.mixed(torch.tanh, x, 0, -4), ValueError, r"axes must be from 0 to 2, got \(0, -4\)"),
        (lambda x: jets.directional(lambda y: y**math.nan, x, torch.eye(3), 1), ValueError, "exponent .* got nan"),
        (
            lambda x: jets.directional(lambda y: y + jets.variable(x, torch.eye(3), 2), x, torch.eye(3), 1),
            ValueError,
            "jets must be of one order, got 1 and 2",
        ),
        (
            lambda x: jets.directional(lambda y: y / jets.variable(x, torch.eye(3), 2), x, torch.eye(3), 1),
            ValueError,
            "jets must be of one order",
        ),
        *[
            (lambda x, k=k: jets.variable(x, torch.eye(3), 2).derivative(k), ValueError, f"order 2, got {k}")
            for k in (-1, 3)
        ],
        (lambda x: jets.Jet([]), ValueError, "must begin with a tensor"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(torch.randn(5, 3))

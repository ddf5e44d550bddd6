"""Methods for stochastic equations: strong orders against exact solutions, the two calculi, adaptivity, gradients."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdebook.diffeq.adjoints import Checkpointed, Direct
from pdebook.diffeq.brownian import BrownianTree
from pdebook.diffeq.controllers import PID, Constant
from pdebook.diffeq.methods import SOLVERS
from pdebook.diffeq.reversible import Reversible
from pdebook.diffeq.single_step import single_step
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import SDE
from pdebook.metrics.order import observed_order

PATHS, MU, SIGMA = 1000, 0.5, 0.8
COUNTS = (8, 16, 32, 64)


@cache
def tree(shape: int = 1, areas: bool = True, paths: int = PATHS, seed: int = 3) -> BrownianTree:
    return BrownianTree(seed, 0.0, 1.0, (shape,), tolerance=1 / 256, samples=paths, space_time=areas)


def geometric(calculus: Any, noise: Any = "diagonal") -> SDE:
    """dy = μ y dt + σ y dW."""
    return SDE(lambda t, y: MU * y, lambda t, y: SIGMA * y, tree(), noise, calculus)


def exact(calculus: str) -> Tensor:
    """Its solution at t = 1 from y = 1."""
    drift = MU - 0.5 * SIGMA**2 if calculus == "ito" else MU
    return (drift + SIGMA * tree().value(1.0)).exp()


def strong_errors(term: SDE, solver: str, goal: Tensor, y0: Tensor | None = None) -> list[float]:
    """Mean absolute error at t = 1."""
    start = torch.ones(PATHS, 1).double() if y0 is None else y0
    return [
        float((solve(term, start, 0.0, 1.0, solver=solver, controller=Constant(steps=n)).ys - goal).abs().mean())
        for n in COUNTS
    ]


@pytest.mark.parametrize(
    ("solver", "calculus", "order"),
    [
        ("euler-maruyama", "ito", 0.5),
        ("milstein", "ito", 1.0),
        ("srid2", "ito", 1.5),
        ("euler-heun", "stratonovich", 1.0),
        ("heun-sde", "stratonovich", 1.0),
        ("reversible-heun", "stratonovich", 1.0),
    ],
)
def test_strong_orders_on_geometric_brownian_motion(solver: str, calculus: str, order: float) -> None:
    # Scalar noise commutes, so the Stratonovich methods of order 1/2 have order 1 here.
    found = observed_order(strong_errors(geometric(calculus), solver, exact(calculus)), n=COUNTS).order
    assert order - 0.2 < found < order + 0.25


@pytest.mark.parametrize(
    ("solver", "calculus", "order"),
    [
        ("milstein", "ito", 1.0),
        ("srid2", "ito", 1.5),
        ("euler-heun", "stratonovich", 1.0),
        ("heun-sde", "stratonovich", 1.0),
        ("reversible-heun", "stratonovich", 1.0),
    ],
)
def test_strong_orders_with_coefficients_that_depend_on_time(solver: str, calculus: Any, order: float) -> None:
    # d log y = (t or t - a²/2) dt + a dW with a = 0.8 (1 + t); as below, ∫ (1 + t) dW = 1.5 W - H, and ∫ a² dt = 0.64 · 7/3.
    term = SDE(lambda t, y: t[:, None] * y, lambda t, y: SIGMA * (1.0 + t)[:, None] * y, tree(), "diagonal", calculus)
    whole = tree().increment(0.0, 1.0)
    assert whole.area is not None
    half_variance = 0.5 * SIGMA**2 * 7 / 3 if calculus == "ito" else 0.0
    goal = (0.5 - half_variance + SIGMA * (1.5 * whole.w - whole.area)).exp()
    found = observed_order(strong_errors(term, solver, goal), n=COUNTS).order
    assert order - 0.2 < found < order + 0.35


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_step_of_milstein_and_of_euler_heun_is_the_formula(sign: float) -> None:
    y = torch.linspace(0.5, 1.5, PATHS).double()[:, None]
    ends = (0.25, 0.5)[:: int(sign)]
    t, h = ends[0], sign * 0.25
    w = sign * (tree().value(0.5) - tree().value(0.25))

    def g(t: Any, y: Tensor) -> Tensor:
        return (1.0 + t) * y.sin()

    def stepped(solver: str, calculus: Any) -> Tensor:
        term = SDE(lambda t, y: y.cos(), lambda t, y: g(t[:, None], y), tree(), "diagonal", calculus)
        return solve(term, y, *ends, solver=solver, controller=Constant(steps=1)).ys

    euler = y + y.cos() * h
    slope = (1.0 + t) * y.cos()
    milstein = euler + g(t, y) * w + 0.5 * slope * g(t, y) * (w**2 - abs(h))
    torch.testing.assert_close(stepped("milstein", "ito"), milstein, rtol=1e-12, atol=1e-12)
    first = g(t, y) * w
    torch.testing.assert_close(
        stepped("euler-heun", "stratonovich"),
        euler + 0.5 * (first + g(ends[1], y + first) * w),
        rtol=1e-12,
        atol=1e-12,
    )


def test_the_error_estimate_of_srid2() -> None:
    # One step of dy = a dt + (1 + t) y dW: the last two columns of the table, and a sixth of the three drifts.
    w, h = tree().increment(0.0, 0.25), 0.25
    assert w.area is not None
    term = SDE(lambda t, y: 0.0 * y + MU, lambda t, y: (1.0 + t)[:, None] * y, tree(), "diagonal", "ito")
    error = single_step(term, 0.0, torch.ones(PATHS, 1).double(), h, solver="srid2").error
    assert error is not None
    mean, triple = 0.5 * w.w + w.area, (w.w**3 - 3 * h * w.w) / (6 * h)
    root, early, late = h**0.5, 1 + h / 4, 1 + h
    g = [torch.ones(PATHS, 1).double()]
    g.append(early * (1 + h * MU / 4 - root * g[0] / 2))
    g.append(late * (1 + h * MU + root * g[0]))
    g.append(early * (1 + h * MU / 4 + root * (2 * g[0] - g[1] + g[2] / 2)))
    third = 2 * g[0] - 4 / 3 * g[1] - 2 / 3 * g[2]
    fourth = -2 * g[0] + 5 / 3 * g[1] - 2 / 3 * g[2] + g[3]
    torch.testing.assert_close(error, h * MU / 2 + third * mean + fourth * triple, rtol=1e-12, atol=1e-12)


def test_the_other_calculus_is_another_process() -> None:
    for solver, calculus, other in (("heun-sde", "stratonovich", "ito"), ("euler-maruyama", "ito", "stratonovich")):
        errors = strong_errors(geometric(calculus), solver, exact(other))
        assert observed_order(errors, n=COUNTS).order < 0.2


def test_scalar_noise_is_diagonal_noise_shared_by_the_state() -> None:
    y0 = torch.ones(PATHS, 2).double()
    for solver in ("milstein", "srid2"):
        term = geometric("ito", "scalar")
        wide = solve(term, y0, 0.0, 1.0, solver=solver, controller=Constant(steps=16)).ys
        narrow = solve(geometric("ito"), y0[:, :1], 0.0, 1.0, solver=solver, controller=Constant(steps=16)).ys
        torch.testing.assert_close(wide, narrow.expand(-1, 2), rtol=1e-12, atol=1e-12)


def test_sra1_is_of_order_three_halves_for_additive_noise() -> None:
    # dy = -y³ dt + (1 + t) dW against itself with many steps; Euler has order 1 there.
    term = SDE(lambda t, y: -(y**3), lambda t, y: (1.0 + t)[:, None, None].expand(-1, 1, 1), tree(), "additive")
    goal = solve(term, torch.ones(PATHS, 1).double(), 0.0, 1.0, solver="sra1", controller=Constant(steps=256)).ys
    orders = {
        solver: observed_order(strong_errors(term, solver, goal), n=COUNTS).order
        for solver in ("sra1", "euler-maruyama")
    }
    assert 1.3 < orders["sra1"] < 2.05
    assert 0.85 < orders["euler-maruyama"] < 1.2


@pytest.mark.parametrize("steps", [1, 5])
def test_sra1_is_exact_for_noise_that_is_linear_in_time(steps: int) -> None:
    # ∫ (1 + t) dW over [0, 1] is 2 W_1 - ∫ W dt, and ∫ W dt is W_1/2 + H.
    term = SDE(lambda t, y: 0.0 * y, lambda t, y: (1.0 + t)[:, None, None].expand(-1, 1, 1), tree(), "additive")
    y = solve(term, torch.zeros(PATHS, 1).double(), 0.0, 1.0, solver="sra1", controller=Constant(steps=steps)).ys
    whole = tree().increment(0.0, 1.0)
    assert whole.area is not None
    torch.testing.assert_close(y, 1.5 * whole.w - whole.area, rtol=1e-10, atol=1e-10)


def test_general_noise() -> None:
    # Two commuting multiplicative noises: dy = y (a dW_1 + b dW_2), Stratonovich: y = exp(a W_1 + b W_2).
    path = tree(2)
    mix = torch.tensor([0.5, -0.3]).double()
    term = SDE(lambda t, y: 0.0 * y, lambda t, y: y[..., None] * mix, path, "general", "stratonovich")
    goal = (path.value(1.0) @ mix).exp()[:, None]
    for solver in ("heun-sde", "euler-heun", "reversible-heun"):
        assert observed_order(strong_errors(term, solver, goal), n=COUNTS).order > 0.8


@pytest.mark.parametrize("solver", ["srid2", "heun-sde"])
def test_adaptive_steps_stay_on_one_path(solver: str) -> None:
    calculus = "ito" if solver == "srid2" else "stratonovich"
    path = BrownianTree(5, 0.0, 1.0, (1,), tolerance=1e-5, samples=16, space_time=True)
    term = SDE(lambda t, y: MU * y, lambda t, y: SIGMA * y, path, "diagonal", calculus)
    drift = MU - 0.5 * SIGMA**2 if calculus == "ito" else MU
    ts = torch.tensor([0.3, 1.0]).double()
    goal = torch.stack([(drift * t + SIGMA * path.value(float(t))).exp() for t in ts], 1)
    errors = []
    for tol in (1e-2, 1e-3):
        control = PID(tol, tol, p=0.1, i=0.3, first_step=0.05)
        s = solve(
            term, torch.ones(16, 1).double(), 0.0, 1.0, ts=ts, solver=solver, controller=control, max_steps=20_000
        )
        errors.append(float((s.ys - goal).abs().mean()))
    assert errors[1] < errors[0] / 1.5
    assert errors[1] < 0.02
    again = solve(
        term, torch.ones(16, 1).double(), 0.0, 1.0, ts=ts, solver=solver, controller=control, max_steps=20_000
    )
    assert torch.equal(again.ys, s.ys)


class Both(nn.Module):
    """Drift and diffusion with parameters."""

    def __init__(self, noise: str) -> None:
        super().__init__()
        self.a, self.b = (
            nn.Parameter(torch.tensor([0.3, -0.4]).double()),
            nn.Parameter(torch.tensor([0.5, 0.2]).double()),
        )
        self.noise = noise

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        return (self.a * y).sin() - y

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        g = (self.b * y).cos()
        return g if self.noise in ("diagonal", "scalar") else torch.stack([g, 0.1 * y, g * y], 2)


@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
def test_gradients_of_stochastic_solves(noise: Any) -> None:
    path = tree({"diagonal": 2, "scalar": 1, "general": 3}[noise], False, 4)
    grads = []
    for adjoint in (Direct(), Checkpointed(), Reversible()):
        model, y0 = Both(noise), torch.ones(4, 2).double().requires_grad_()
        term = SDE(model.drift, model.diffusion, path, noise, "stratonovich")
        ts = torch.tensor([0.5, 1.0]).double()
        ys = solve(
            term, y0, 0.0, 1.0, ts=ts, solver="reversible-heun", controller=Constant(steps=10), adjoint=adjoint
        ).ys
        grads.append(torch.cat([g.flatten() for g in torch.autograd.grad((ys**2).sum(), [y0, model.a, model.b])]))
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0], rtol=1e-11, atol=1e-11)


def test_bad_input() -> None:
    y0 = torch.ones(PATHS, 1).double()
    fixed = Constant(steps=4)
    cases: list[tuple[Any, str, str]] = [
        (geometric("ito"), "heun-sde", "converges to Stratonovich's solution, the term is meant in Ito's"),
        (geometric("stratonovich"), "milstein", "converges to Ito's solution"),
        (geometric("ito"), "reversible-heun", "is for Stratonovich equations"),
        (geometric("ito"), "sra1", "sra1 is for additive noise, got diagonal"),
        (geometric("ito"), "rk4", "rk4 is for ordinary equations"),
        (
            SDE(lambda t, y: y, lambda t, y: y, tree(2)),
            "euler-maruyama",
            r"brownian must give increments of shape \(1000, 1\)",
        ),
        (SDE(lambda t, y: y, lambda t, y: y[..., None], tree()), "euler-maruyama", "the diffusion must return"),
        (SDE(lambda t, y: y, lambda t, y: y, tree(), "general"), "euler-maruyama", "the diffusion must return shape"),
        (SDE(lambda t, y: y, lambda t, y: 0.1, tree(), "general"), "euler-maruyama", "the diffusion must return shape"),
        (
            SDE(lambda t, y: y, lambda t, y: y[..., None].float(), tree(), "general"),
            "euler-maruyama",
            r"of torch.float64, got torch.float32",
        ),
        (
            SDE(lambda t, y: y, lambda t, y: torch.stack([y, y, y], 2), tree(2), "general"),
            "euler-maruyama",
            "the diffusion must return 2 columns, as brownian has numbers, got 3",
        ),
        (SDE(lambda t, y: y, lambda t, y: y, None), "euler-maruyama", "brownian must be a path"),
        (
            SDE(lambda t, y: y, lambda t, y: y, tree(1, True, 7)),
            "euler-maruyama",
            "brownian must hold as many samples as y0",
        ),
        (SDE(lambda t, y: y, lambda t, y: y, tree(1, False)), "srid2", "brownian must give space-time Lévy areas"),
    ]
    for term, solver, words in cases:
        with pytest.raises(ValueError, match=words):
            solve(term, y0, 0.0, 1.0, solver=solver, controller=fixed)
    with pytest.raises(ValueError, match="noise must be one of"):
        SDE(lambda t, y: y, lambda t, y: y, tree(), "coloured")
    with pytest.raises(ValueError, match="calculus must be"):
        SDE(lambda t, y: y, lambda t, y: y, tree(), "diagonal", "newton")
    with pytest.raises(ValueError, match="goes forwards in time"):
        solve(geometric("ito"), y0, 1.0, 0.0, solver="srid2", controller=fixed)
    assert {name for name, solver in SOLVERS.items() if getattr(solver, "levy", False)} == {"srid2", "sra1"}

"""What recorders see of a solve, its gradients, and a single step by itself."""

import math
from typing import Any

import pytest
import torch
from problems import Network, pendulum, pendulum_start
from torch import Tensor

from pdebook.diffeq.adjoints import Checkpointed, Direct
from pdebook.diffeq.brownian import BrownianTree
from pdebook.diffeq.controllers import PID, Constant
from pdebook.diffeq.paths import LinearPath
from pdebook.diffeq.recorders import (
    ErrorEstimate,
    Noted,
    StiffnessEstimate,
    reduced,
    snapshot,
    snapshots,
    stage_states,
    work,
)
from pdebook.diffeq.single_step import single_step
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import CDE, ODE, SDE
from pdebook.metrics.order import observed_order
from pdebook.rng import normal

CONTROL = PID(1e-5, 1e-5)
TERM = ODE(pendulum)


def linear(rate: Any) -> ODE:
    return ODE(lambda t, y: rate * y)


@pytest.mark.parametrize("rate", [-3.0, -30.0, 2.0])
@pytest.mark.parametrize("solver", ["heun", "rk4", "tsit5", "dopri5", "kvaerno3"])
@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_stiffness_of_a_linear_equation_is_its_rate(rate: float, solver: str, scope: Any) -> None:
    y0 = torch.tensor([[1.0, 2.0], [0.5, -1.0]]).double()
    control = Constant(step=0.5 / abs(rate))
    s = solve(
        linear(rate), y0, 0.0, 1.0 / abs(rate), solver=solver, controller=control, record=(StiffnessEstimate(scope),)
    )
    for value, moved in s.records[0]:
        torch.testing.assert_close(value, torch.full((2,), abs(rate)).double(), rtol=1e-8, atol=0)
        assert bool(moved.all())


def test_stiffness_of_a_symmetric_matrix_lies_between_its_eigenvalues() -> None:
    root = normal(1, torch.arange(1), (8, 8), dtype=torch.float64)[0]
    matrix = 0.5 * (root + root.T)
    size = torch.linalg.eigvalsh(matrix).abs()
    y0 = normal(2, torch.arange(3), (8,), dtype=torch.float64)
    s = solve(ODE(lambda t, y: y @ matrix), y0, 0.0, 2.0, controller=CONTROL, record=(StiffnessEstimate(),))
    found = torch.stack([value[moved].aminmax().max for value, moved in s.records[0] if bool(moved.any())])
    assert float(found.max()) <= float(size.max()) * (1 + 1e-8)
    assert float(found.min()) >= float(size.min())


def test_stiffness_over_the_batch_is_that_of_both_together() -> None:
    rates = torch.tensor([[-1.0], [-7.0]]).double()
    y0, h = torch.tensor([[1.0, 3.0], [2.0, -1.0]]).double(), torch.tensor([0.1, 0.02]).double()
    one = single_step(linear(rates), 0.0, y0, h, solver="heun")
    # Heun's last two states are Euler's step and its own: k differs by rate times that.
    apart = one.y - (y0 + h[:, None] * rates * y0)
    expected = (rates * apart).norm() / apart.norm()
    torch.testing.assert_close(StiffnessEstimate("batch")(one.info).value, expected.expand(2), rtol=1e-12, atol=0)


def test_no_difference_of_states_is_no_stiffness() -> None:
    one = single_step(ODE(lambda t, y: 0.0 * y), 0.0, torch.ones(2, 2).double(), 0.1)
    for scope in ("sample", "batch"):
        assert StiffnessEstimate(scope)(one.info).value.tolist() == [0.0, 0.0]


def test_error_estimates_are_the_controllers_own() -> None:
    y0, spans = pendulum_start(), torch.tensor([2.0, 6.0]).double()
    options = {"controller": CONTROL, "steps": True}
    kinds = (ErrorEstimate(CONTROL), ErrorEstimate(CONTROL, by_step=False), ErrorEstimate(scaled=False), work)
    s = solve(TERM, y0, 0.0, spans, record=kinds, **options)
    assert s.steps is not None
    h = s.steps.diff(dim=0)
    scaled, plain, raw, calls = (torch.stack([value for value, _ in record]) for record in s.records)
    moved = torch.stack([note.moved for note in s.records[0]])
    assert torch.equal(moved.sum(0), s.statistics.accepted)
    assert float(plain.max()) <= 1.0
    assert float(plain.max()) > 0.3
    torch.testing.assert_close(scaled, plain * h, rtol=1e-14, atol=0)
    assert torch.equal(scaled == 0, ~moved)
    assert torch.equal(calls, 6.0 * moved)
    # One step by hand: the norm's mean is over the components.
    one = single_step(TERM, 0.0, y0, h[0])
    assert one.error is not None
    scale = 1e-5 + 1e-5 * torch.maximum(y0.abs(), one.y.abs())
    torch.testing.assert_close(plain[0], (one.error / scale).square().mean(1).sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(raw[0], h[0] * one.error.square().mean(1).sqrt(), rtol=1e-12, atol=0)
    back = solve(TERM, y0, 0.0, -2.0, record=kinds[:2], **options)
    assert back.steps is not None
    for (size, _), (error, _), step in zip(*back.records, -back.steps.diff(dim=0), strict=True):
        torch.testing.assert_close(size, error * step, rtol=1e-14, atol=0)
    # Together they take steps, so one number serves both.
    shared = PID(1e-5, 1e-5, scope="batch")
    s = solve(TERM, y0, 0.0, 2.0, controller=shared, record=(ErrorEstimate(shared, by_step=False),))
    for value, _ in s.records[0]:
        assert float(value[0]) == float(value[1]) <= 1.0
    ratio = shared.ratio(one.error, y0, one.y, (1e-5, 1e-5), None)
    torch.testing.assert_close(ratio, (one.error / scale).square().mean().sqrt().expand(2), rtol=1e-12, atol=0)


def test_reductions() -> None:
    yes, no = torch.tensor([True, True]), torch.tensor([True, False])
    records = [Noted(torch.tensor([1.0, 3.0]), yes), Noted(torch.tensor([5.0, 0.0]), no)]
    assert reduced(records, "sum").tolist() == [6.0, 3.0]
    assert reduced(records, "mean").tolist() == [3.0, 3.0]
    assert reduced(records).tolist() == [3.0, 3.0]
    assert reduced(records, "max").tolist() == [5.0, 3.0]
    assert reduced([Noted(torch.zeros(1), torch.tensor([False]))]).tolist() == [0.0]


def test_the_error_of_a_step_is_of_the_methods_order() -> None:
    for solver, order, longest in (("bosh3", 3, 0.1), ("tsit5", 5, 0.2)):
        sizes = (longest, longest / 2, longest / 4)
        estimate = ErrorEstimate(scaled=False, by_step=False)
        errors = [
            float(estimate(single_step(TERM, 0.0, pendulum_start(), h, solver=solver).info).value[0]) for h in sizes
        ]
        assert observed_order(errors, n=(1, 2, 4)).order == pytest.approx(order, abs=0.4)


RECORDERS = (ErrorEstimate(CONTROL), StiffnessEstimate(), snapshot, lambda info: {"all": [info.y0, info.y1], "no": 1})


def regulariser(
    adjoint: Any, controller: Any, t1: Any = 2.0, scale: float = 1.0, solver: str = "tsit5"
) -> list[Tensor]:
    """Value of a loss of all that was recorded, and its gradient."""
    field, y0 = Network(), normal(4, torch.arange(3), (2,), dtype=torch.float64).requires_grad_()
    with torch.no_grad():
        field.outer.bias.mul_(scale)
    s = solve(
        ODE(field), y0, 0.0, t1, ts=[1.0], solver=solver, adjoint=adjoint, controller=controller, record=RECORDERS
    )
    errors, stiffness, shots, extra = s.records
    _, states, fields = snapshots(shots)
    loss = (
        1e4 * reduced(errors, "sum").sum() + reduced(stiffness, "max").sum() + reduced(stiffness, "mean").sum()
        + (states * fields).sum() + sum((entry["all"][0] * entry["all"][1]).sum() for entry in extra) + s.ys.sum()
    )  # fmt: skip
    assert all(entry["no"] == 1 for entry in extra)
    return [loss.detach(), *torch.autograd.grad(loss, [y0, *field.parameters()])]


@pytest.mark.parametrize("checkpoints", [None, 1])
def test_checkpoints_give_the_direct_gradient_of_what_is_recorded(checkpoints: int | None) -> None:
    cases: list[tuple[Any, Any, str]] = [
        (PID(1e-6, 1e-6), torch.tensor([1.0, 2.0, 1.5]).double(), "tsit5"),
        (Constant(steps=7), 2.0, "heun"),
        (PID(1e-5, 1e-5, jumps=(0.7,)), 2.0, "dopri5"),
    ]
    for control, t1, solver in cases:
        direct = regulariser(Direct(), control, t1, solver=solver)
        for a, b in zip(regulariser(Checkpointed(checkpoints), control, t1, solver=solver), direct, strict=True):
            # Stiffness is a quotient of small differences: rounding is seen.
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
            assert bool(a.isfinite().all())


def test_gradients_of_what_is_recorded_are_those_of_finite_differences() -> None:
    base = regulariser(Direct(), Constant(steps=9))
    ends = [regulariser(Direct(), Constant(steps=9), scale=1.0 + s * 1e-5)[0] for s in (1, -1)]
    slope = (ends[0] - ends[1]) / 2e-5
    torch.testing.assert_close((base[-1] * Network().outer.bias.detach()).sum(), slope, rtol=2e-5, atol=0)


def test_recording_changes_nothing_else_and_needs_no_gradient() -> None:
    y0 = pendulum_start()
    for adjoint in (Direct(), Checkpointed()):
        plain = solve(TERM, y0, 0.0, 3.0, controller=CONTROL)
        noted = solve(TERM, y0, 0.0, 3.0, controller=CONTROL, record=(work,), adjoint=adjoint)
        torch.testing.assert_close(plain.ys, noted.ys, rtol=1e-13, atol=1e-13)
        assert torch.equal(reduced(noted.records[0], "sum"), 6.0 * plain.statistics.accepted)


def test_snapshots_are_the_points_of_the_solve_with_the_field_there() -> None:
    y0, spans = pendulum_start(), torch.tensor([2.0, 6.0]).double()
    for solver in ("rk4", "tsit5", "kvaerno3"):
        control = PID(1e-4, 1e-4) if solver == "tsit5" else Constant(step=1.5)
        s = solve(TERM, y0, 0.0, spans, solver=solver, controller=control, record=(snapshot,), steps=True)
        t, y, f = snapshots(s.records[0])
        assert len(t) == int(s.statistics.accepted.sum()) + 2
        torch.testing.assert_close(f, pendulum(t, y), rtol=1e-8, atol=1e-8)
        assert torch.equal(y[:2], y0)
        torch.testing.assert_close(
            t.sort().values, torch.cat([s.steps[:1].flatten(), s.steps[1:][s.steps.diff(dim=0) != 0]]).sort().values
        )
        assert bool((y == s.ys[1]).all(1).any())


def test_stage_states_are_where_the_field_was_asked() -> None:
    for solver in ("heun", "dopri5", "dopri8", "kvaerno3"):
        seen: list[Tensor] = []

        def field(t: Tensor, y: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(y.detach())
            return pendulum(t, y)

        one = single_step(ODE(field), 0.0, pendulum_start(), 0.3, solver=solver)
        states = stage_states(one.info)
        if solver == "kvaerno3":  # whose stages are iterated
            slopes = torch.stack([pendulum(torch.zeros(2), state) for state in states])
            torch.testing.assert_close(0.3 * slopes, one.stages, rtol=1e-8, atol=1e-8)
        else:
            torch.testing.assert_close(states, torch.stack(seen), rtol=1e-13, atol=1e-13)


def test_a_single_step_is_a_step_of_the_solve() -> None:
    y0 = (pendulum_start()[:, :1], pendulum_start()[:, 1:])
    term = ODE(lambda t, y: (y[1], -y[0].sin() + t[:, None]))
    for h in (0.3, -0.3, torch.tensor([0.2, -0.1]).double()):
        one = single_step(term, 0.5, y0, h, solver="dopri5")
        end = 0.5 + torch.as_tensor(h, dtype=torch.float64)
        whole = solve(term, y0, 0.5, end, solver="dopri5", controller=Constant(steps=1), record=(lambda info: info,))
        for mine, theirs in zip(one.y, whole.ys, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(one.error, whole.records[0][0].error)
        torch.testing.assert_close(one.stages, whole.records[0][0].stages)
        torch.testing.assert_close(one.h, end.expand(2) - 0.5, rtol=1e-14, atol=0)
        assert one.info.evaluations == 6


def test_the_automatic_size_is_that_of_a_solve() -> None:
    y0 = pendulum_start()
    for end in (5.0, -5.0):
        s = solve(TERM, y0, 0.0, end, controller=CONTROL, steps=True)
        assert s.steps is not None
        one = single_step(TERM, 0.0, y0, controller=CONTROL, t1=end)
        torch.testing.assert_close(one.h, s.steps[1], rtol=1e-14, atol=0)
    torch.testing.assert_close(single_step(TERM, 0.0, y0, controller=CONTROL).h, -one.h, rtol=1e-14, atol=0)
    assert bool((single_step(TERM, 1.0, y0, t1=torch.tensor([1.001, 0.999]).double()).h.abs() <= 0.001 + 1e-7).all())
    assert len(set(single_step(TERM, 1.0, y0, controller=PID(scope="batch")).h.tolist())) == 1
    # The size is a constant, the rest is not.
    rate = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    one = single_step(linear(rate), 0.0, torch.ones(1, 1).double(), solver="heun")
    h = float(one.h)
    assert float(torch.autograd.grad(one.y.sum(), rate)[0]) == pytest.approx(h - 2.0 * h**2, rel=1e-12)


@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5"])
def test_a_single_step_from_a_corner_of_a_control_takes_the_slope_of_its_own_side(solver: str) -> None:
    # X has slope 1 before t = 1 and -2 after it.
    path = LinearPath(torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([[[0.0], [1.0], [-1.0]]] * 2).double())
    term, y = CDE(lambda t, y: torch.ones_like(y)[..., None], path), torch.zeros(2, 1).double()
    h = torch.tensor([0.5, -0.5]).double()
    one = single_step(term, 1.0, y, h, solver=solver)
    torch.testing.assert_close(one.y[:, 0], torch.tensor([-1.0, -0.5]).double(), rtol=1e-12, atol=1e-12)
    # The same where the step ends at the corner.
    one = single_step(term, torch.tensor([0.5, 1.5]).double(), y, h, solver=solver)
    torch.testing.assert_close(one.y[:, 0], torch.tensor([0.5, 1.0]).double(), rtol=1e-12, atol=1e-12)


def test_the_automatic_size_at_a_corner_knows_the_slope_of_its_side() -> None:
    path = LinearPath(torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([[[0.0], [1.0], [-9.0]]]).double())
    term = CDE(lambda t, y: (-y)[..., None], path)
    y = torch.ones(1, 1).double()
    for end, rate in ((2.0, 10.0), (0.0, -1.0)):
        alone = float(single_step(linear(rate), 1.0, y, t1=end).h)
        assert float(single_step(term, 1.0, y, t1=end).h) == pytest.approx(alone, rel=1e-9)
    assert float(single_step(term, 1.0, y).h) == float(single_step(term, 1.0, y, t1=2.0).h)


def test_a_frozen_first_stage_has_no_gradient() -> None:
    rate, h = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True), 0.1
    y0 = torch.ones(1, 1).double()
    for frozen, expected in ((False, h + h**2 * -2.0), (True, h * (1 + 0.5 * h * -2.0))):
        one = single_step(linear(rate), 0.0, y0, h, solver="midpoint", freeze_first_stage=frozen)
        # y_1 = y + h r (y + h/2 k_1) with k_1 = r y, or constant.
        assert float(torch.autograd.grad(one.y.sum(), rate)[0]) == pytest.approx(expected, rel=1e-12)
    euler = single_step(linear(rate), 0.0, y0, h, solver="euler", freeze_first_stage=True)
    assert not euler.y.requires_grad


def test_a_single_step_of_a_stochastic_equation() -> None:
    path = BrownianTree(3, 0.0, 1.0, (1,), tolerance=0.01, samples=2, space_time=True)
    term = SDE(lambda t, y: 0.5 * y, lambda t, y: 0.8 * y, path)
    one = single_step(term, 0.25, torch.ones(2, 1).double(), 0.125, solver="srid2")
    assert one.error is not None
    gone = (0.5 - 0.32) * 0.125 + 0.8 * path.increment(0.25, 0.375).w
    torch.testing.assert_close(one.y, gone.exp(), rtol=5e-3, atol=0)
    value = ErrorEstimate(PID(1e-2, 1e-2), by_step=False)(one.info).value
    scale = 1e-2 + 1e-2 * one.y.clamp(min=1.0)
    torch.testing.assert_close(value, (one.error / scale).abs()[:, 0], rtol=1e-12, atol=0)


Y = torch.ones(2, 1).double()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: reduced([]), "records must hold at least one step"),
        (lambda: snapshots([]), "records must hold at least one step"),
        (
            lambda: reduced([Noted(torch.zeros(1), torch.ones(1) > 0)], "median"),
            "reduction must be 'sum', 'mean' or 'max'",
        ),
        (
            lambda: ErrorEstimate()(single_step(linear(1.0), 0.0, Y, 0.1, solver="rk4").info),
            "rk4 has no error estimate",
        ),
        (
            lambda: StiffnessEstimate()(single_step(linear(1.0), 0.0, Y, 0.1, solver="bosh3").info),
            "bosh3 has no two stages at the end of a step",
        ),
        (
            lambda: StiffnessEstimate()(single_step(linear(1.0), 0.0, Y, 0.1, solver="reversible-heun").info),
            "reversible-heun has no two stages",
        ),
        (
            lambda: stage_states(single_step(linear(1.0), 0.0, Y, 0.1, solver="reversible-heun").info),
            "reversible-heun has no tableau",
        ),
        (
            lambda: snapshot(single_step(linear(1.0), 0.0, Y, 0.1, solver="reversible-heun").info),
            "reversible-heun has no tableau",
        ),
        (lambda: single_step(linear(1.0), 0.0, Y, 0.0), "h must not be zero"),
        (lambda: single_step(linear(1.0), 0.0, Y, math.inf), "h must be finite"),
        (lambda: single_step(linear(1.0), 0.0, Y, torch.ones(3)), r"h must be a number or of shape \(2,\)"),
        (lambda: single_step(linear(1.0), 0.0, Y, "large"), "h must be a number, sizes or 'auto', got 'large'"),
        (lambda: single_step(linear(1.0), 0.0, Y, solver="rk4"), "h must be given for rk4"),
        (lambda: single_step(linear(1.0), 0.0, Y, t1=0.0), "t1 must differ from t"),
        (lambda: single_step(linear(1.0), math.nan, Y), "t must be finite"),
        (lambda: single_step(linear(1.0), 0.0, Y, 0.1, solver="milstein"), "milstein is for stochastic equations"),
    ],
)
def test_bad_input(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()

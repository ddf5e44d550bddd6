"""The engine: orders of all methods, tolerances, trajectories that don't see each other, saving, failures, bad input."""

import itertools
import math
import re
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Network, pendulum, pendulum_start, van_der_pol
from scipy.integrate import solve_ivp
from torch import Tensor

from pdebook.diffeq.adaptive import STATUS
from pdebook.diffeq.adjoints import Direct
from pdebook.diffeq.controllers import PID, Constant, Grid
from pdebook.diffeq.events import Event
from pdebook.diffeq.implicit import DiagonallyImplicit
from pdebook.diffeq.methods import SOLVERS
from pdebook.diffeq.paths import LinearPath
from pdebook.diffeq.runge_kutta import RungeKutta
from pdebook.diffeq.single_step import single_step
from pdebook.diffeq.solve import SolveError, _check_kinds, solve
from pdebook.diffeq.tableaus import TABLEAUS
from pdebook.diffeq.terms import CDE, ODE, Augmented, SecondOrder, shared_time
from pdebook.metrics.order import observed_order
from pdebook.rng import normal

TERM = ODE(pendulum)
ORDINARY = [name for name, solver in SOLVERS.items() if isinstance(solver, RungeKutta | DiagonallyImplicit)]


@pytest.fixture(scope="module")
def reference() -> Tensor:
    """Both pendulums at t = 10, by scipy's DOP853."""
    ends = [
        solve_ivp(
            lambda t, y: [y[1], -math.sin(y[0])], (0, 10), start.numpy(), method="DOP853", rtol=1e-13, atol=1e-13
        ).y[:, -1]
        for start in pendulum_start()
    ]
    return torch.tensor(np.array(ends))


# The implicit methods are slower: a shorter time.
ENDS = dict.fromkeys(("implicit-euler", "kvaerno3", "kvaerno5"), 2.0)
# Range of steps in which the error is above rounding and the leading term rules.
COUNTS = {
    "dopri8": (10, 20, 40),
    "euler": (800, 1600, 3200),
    "implicit-euler": (25, 50, 100),
    "kvaerno3": (10, 20, 40),
    "kvaerno5": (5, 10, 20),
}


@pytest.mark.parametrize("name", [*ORDINARY, "reversible-heun"])
def test_orders(name: str, reference: Tensor) -> None:
    counts, end = COUNTS.get(name, (100, 200, 400)), ENDS.get(name, 10.0)
    if end < 10.0:
        reference = solve(TERM, pendulum_start(), 0.0, end, solver="dopri8", controller=PID(1e-13, 1e-13)).ys
    errors = [
        float(
            (solve(TERM, pendulum_start(), 0.0, end, solver=name, controller=Constant(steps=n)).ys - reference)
            .abs()
            .max()
        )
        for n in counts
    ]
    order = observed_order(errors, n=counts).order
    assert SOLVERS[name].order - 0.15 <= order <= SOLVERS[name].order + 0.8


def test_error_constant_of_a_step() -> None:
    # For y' = y the error of a step of order p is 1/(p+1)! - Σ b Φ(tall tree) times h^{p+1}: Heun, RK4, Euler.
    for name, p in (("euler", 1), ("heun", 2), ("midpoint", 2), ("bosh3", 3), ("rk4", 4)):
        h = 1e-2
        y = solve(ODE(lambda t, y: y), torch.ones(1, 1).double(), 0.0, h, solver=name, controller=Constant(steps=1)).ys
        constant = (math.exp(h) - float(y)) / h ** (p + 1)
        assert constant == pytest.approx(1.0 / math.factorial(p + 1), rel=1e-2)


def test_leapfrog_is_of_second_order_and_keeps_the_energy(reference: Tensor) -> None:
    term = SecondOrder(lambda t, q: -q.sin())
    q0, p0 = pendulum_start().split(1, 1)
    errors = []
    for n in (100, 200, 400):
        q, _ = solve(term, (q0, p0), 0.0, 10.0, solver="leapfrog", controller=Constant(steps=n)).ys
        errors.append(float((q[:, 0] - reference[:, 0]).abs().max()))
    assert 1.85 < observed_order(errors, n=(100, 200, 400)).order < 2.2

    def drift(name: str, span: float) -> float:
        ts = torch.linspace(0.0, span, 20)
        q, p = solve(term, (q0, p0), 0.0, span, solver=name, controller=Constant(step=0.2), ts=ts).ys
        energy = 0.5 * p**2 - q.cos()
        return float((energy - energy[:, :1]).abs().max())

    assert drift("leapfrog", 400.0) < 1.5 * drift("leapfrog", 50.0)
    assert drift("heun", 400.0) > 3.0 * drift("heun", 50.0)


@pytest.mark.parametrize(
    "name", [name for name in ORDINARY if SOLVERS[name].adaptive and name not in ("implicit-euler", "kvaerno3")]
)
def test_the_error_follows_the_tolerance(name: str, reference: Tensor) -> None:
    errors = [
        float(
            (
                solve(TERM, pendulum_start(), 0.0, 10.0, solver=name, controller=PID(tol, tol), max_steps=20_000).ys
                - reference
            )
            .abs()
            .max()
        )
        for tol in ((1e-4, 1e-7) if SOLVERS[name].order > 2 else (1e-3, 1e-5))
    ]
    assert errors[1] < (3e-5 if SOLVERS[name].order > 2 else 2e-3)
    # Local error control gives errors in proportion to the tolerance, but for a power a little below 1.
    assert errors[1] < errors[0] / (30 if SOLVERS[name].order > 2 else 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["heun", "bosh3", "dopri5", "tsit5", "dopri8", "kvaerno5"])
@pytest.mark.parametrize("scope", ["sample", "batch"])
@pytest.mark.parametrize("backwards", [False, True])
def test_all_combinations_reach_the_solution(
    name: str, dtype: torch.dtype, scope: Any, backwards: bool, reference: Tensor
) -> None:
    start, goal = (reference, pendulum_start()) if backwards else (pendulum_start(), reference)
    span = (10.0, 0.0) if backwards else (0.0, 10.0)
    control = PID(1e-5, 1e-5, scope=scope)
    solution = solve(TERM, start.to(dtype), *span, solver=name, controller=control, max_steps=20_000)
    assert solution.ys.dtype == dtype
    torch.testing.assert_close(solution.ys, goal.to(dtype), rtol=0, atol=3e-3)
    if scope == "batch":
        assert len(set(solution.statistics.accepted.tolist())) == 1


def test_a_trajectory_does_not_see_the_others() -> None:
    y0 = 2.0 * normal(1, torch.arange(12), (2,), dtype=torch.float64)
    ts = torch.linspace(0.0, 6.0, 7)
    whole = solve(ODE(van_der_pol), y0, 0.0, 6.0, ts=ts)
    order = torch.tensor([7, 2, 11])
    part = solve(ODE(van_der_pol), y0[order], 0.0, 6.0, ts=ts)
    assert torch.equal(part.ys, whole.ys[order])
    assert torch.equal(part.statistics.accepted, whole.statistics.accepted[order])
    assert torch.equal(part.statistics.evaluations, whole.statistics.evaluations[order])
    # A broken control, one step for all, makes it depend on them.
    shared = PID(scope="batch")
    assert not torch.equal(
        solve(ODE(van_der_pol), y0[order], 0.0, 6.0, controller=shared).ys,
        solve(ODE(van_der_pol), y0, 0.0, 6.0, controller=shared).ys[order],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_rounding_does_not_see_the_others(size: int, dtype: torch.dtype) -> None:
    y0 = normal(1, torch.arange(40), (size,), dtype=torch.float64).to(dtype)
    ts = torch.tensor([0.3, 1.1, 2.0])
    whole = solve(ODE(lambda t, y: -y * (1 + y**2)), y0, 0.0, 2.0, ts=ts, solver="dopri5").ys
    for part in ([5], [39, 0, 17], [*range(3, 14)]):
        assert torch.equal(
            solve(ODE(lambda t, y: -y * (1 + y**2)), y0[part], 0.0, 2.0, ts=ts, solver="dopri5").ys, whole[part]
        )


def test_steps_of_their_own_pay_for_oscillators_out_of_phase() -> None:
    limit = solve(ODE(van_der_pol), torch.tensor([[2.0, 0.0]]).double(), 0.0, 60.0, max_steps=20_000).ys
    # The period is 19.08; start all around the limit cycle.
    phases = torch.linspace(0.0, 19.08, 17)[:-1]
    y0 = solve(ODE(van_der_pol), limit, 0.0, 19.08, ts=phases, max_steps=20_000).ys[0]
    tight = solve(ODE(van_der_pol), y0, 0.0, 20.0, solver="dopri8", controller=PID(1e-11, 1e-11), max_steps=20_000).ys
    cost, error = {}, {}
    for scope in ("sample", "batch"):
        found = solve(ODE(van_der_pol), y0, 0.0, 20.0, solver="dopri5", controller=PID(1e-6, 1e-6, scope=scope))
        cost[scope], error[scope] = found.statistics.iterations, float((found.ys - tight).abs().max())
    assert cost["batch"] > 2.2 * cost["sample"]
    assert error["sample"] < 5e-3


def test_components_of_unlike_scales_count_each_by_its_own() -> None:
    # The tolerance of a component is that of its own size: a maximum outside the norm would let the small one go.
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([-0.1 * y[:, 0], 1e-6 * 5.0 * (5.0 * t).cos()], 1)

    y0 = torch.tensor([[1.0, 1e-6]]).double()
    y = solve(ODE(field), y0, 0.0, 4.0, controller=PID(1e-6, 1e-14)).ys
    assert float(y[0, 1]) == pytest.approx(1e-6 * (1.0 + math.sin(20.0)), rel=1e-4)


def test_the_controllers_formula() -> None:
    ratio, old, older = (
        torch.tensor(r).double() for r in ([0.3, 0.9, 1.5, 1e9], [0.5, 0.8, 0.4, 0.5], [0.7, 0.6, 0.9, 0.5])
    )
    control = PID(p=0.4, i=0.3, d=0.1, min_factor=0.25)
    # ε = 1/r; coefficients over the order: k_I + k_P + k_D, -(k_P + 2 k_D), k_D.
    gain = 0.9 * (1 / ratio) ** (0.8 / 5) * (1 / old) ** (-0.6 / 5) * (1 / older) ** (0.1 / 5)
    expected = gain.clamp(0.25, 10.0)
    expected[2] = min(float(expected[2]), 0.9)
    torch.testing.assert_close(control.factor(ratio, (old, older), 5), expected)
    assert float(control.factor(ratio, (old, older), 5)[3]) == 0.25
    # A rejected step is not tried again as it was, whatever the past says.
    just_above, past = torch.tensor([1.0001]).double(), torch.tensor([1e-3]).double()
    assert float(PID(p=-2.0).factor(just_above, (past, past), 5)) == 0.9


def test_the_past_of_the_controller_is_that_of_accepted_steps() -> None:
    y0, control = torch.tensor([[2.0, 0.0], [0.1, 0.1]]).double(), PID(1e-5, 1e-5, p=0.4, i=0.3, d=0.05)
    s = solve(ODE(van_der_pol), y0, 0.0, 6.0, solver="dopri5", controller=control, steps=True)
    assert s.steps is not None
    for k in range(2):
        # The same by hand, one trajectory at a time.
        t, y, past, ends = 0.0, y0[k : k + 1], (torch.ones(1).double(), torch.ones(1).double()), [0.0]
        h = float(s.steps[1, k])
        while t < 6.0 and len(ends) < 400:
            h = min(h, 6.0 - t)
            one = single_step(ODE(van_der_pol), t, y, h, solver="dopri5")
            assert one.error is not None
            ratio = control.ratio(one.error, y, one.y, (1e-5, 1e-5), None)
            h_new = h * float(control.factor(ratio, past, 5))
            if float(ratio) <= 1.0:
                t, y, past = t + h, one.y, (ratio, past[0])
                ends.append(t)
            h = h_new
        found = s.steps[: int(s.statistics.accepted[k]) + 1, k]
        torch.testing.assert_close(found, torch.tensor(ends).double(), rtol=1e-6, atol=1e-6)
    # No error at all is no reason to shrink.
    rest = solve(ODE(lambda t, y: 0.0 * y), torch.ones(1, 1).double(), 0.0, 1e6, controller=control).statistics
    assert int(rest.accepted) < 40


def test_largest_step_and_directions_side_by_side() -> None:
    y0, ends = pendulum_start(), torch.tensor([3.0, -3.0]).double()
    control = PID(1e-6, 1e-6, max_step=0.1, jumps=(1.0, -1.0), land=True)
    ts = torch.stack([torch.linspace(0, 3, 4), torch.linspace(0, -3, 4)]).double()
    s = solve(TERM, y0, 0.0, ends, ts=ts, controller=control, steps=True)
    assert s.steps is not None
    assert float(s.steps.diff(dim=0).abs().max()) <= 0.1 * (1 + 1e-6)
    tight = solve(TERM, y0, 0.0, ends, ts=ts, controller=PID(1e-11, 1e-11)).ys
    torch.testing.assert_close(s.ys, tight, rtol=0, atol=1e-7)
    # One step for both, also when one of them is through.
    spans = torch.tensor([1.0, 5.0]).double()
    shared = solve(TERM, y0, 0.0, spans, controller=PID(1e-6, 1e-6, scope="batch"))
    assert int(shared.statistics.accepted[1]) > int(shared.statistics.accepted[0])
    torch.testing.assert_close(
        shared.ys, solve(TERM, y0, 0.0, spans, controller=PID(1e-11, 1e-11)).ys, rtol=0, atol=1e-4
    )


def test_statistics_count_what_was_done() -> None:
    calls = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        calls.append(len(y))
        return van_der_pol(t, y)

    y0 = torch.tensor([[2.0, 0.0], [0.1, 0.1]]).double()
    s = solve(ODE(field), y0, 0.0, torch.tensor([3.0, 9.0]), solver="dopri5").statistics
    assert s.calls == len(calls)
    # First stage, one for the first step's size, six an attempt.
    assert torch.equal(s.evaluations, 2 + 6 * (s.accepted + s.rejected))
    assert s.iterations == int((s.accepted + s.rejected).max())
    assert int(s.rejected.sum()) > 0
    assert s.accepted[0] < s.accepted[1]
    rest = solve(ODE(field), y0, 1.0, 1.0)
    assert torch.equal(rest.ys, y0)
    assert rest.statistics.evaluations.tolist() == [0, 0]


def test_saved_times_are_solver_values_or_interpolants_of_like_accuracy() -> None:
    y0 = pendulum_start()
    ts = torch.tensor([0.0, 0.0, 1.2345, 5.0, 5.0, 10.0]).double()
    exact = solve(TERM, y0, 0.0, 10.0, ts=ts, solver="dopri8", controller=PID(1e-12, 1e-12)).ys
    for name in ("bosh3", "dopri5", "tsit5", "kvaerno5"):
        inside = solve(TERM, y0, 0.0, 10.0, ts=ts, solver=name, controller=PID(1e-6, 1e-6), max_steps=9999)
        landed = solve(TERM, y0, 0.0, 10.0, ts=ts, solver=name, controller=PID(1e-6, 1e-6, land=True), max_steps=9999)
        assert torch.equal(inside.ys[:, 0], y0)
        assert torch.equal(inside.ys[:, 3], inside.ys[:, 4])
        torch.testing.assert_close(inside.ys, exact, rtol=0, atol=1e-4)
        torch.testing.assert_close(landed.ys, exact, rtol=0, atol=1e-4)
        end = solve(TERM, y0, 0.0, 10.0, solver=name, controller=PID(1e-6, 1e-6), max_steps=9999).ys
        if name != "kvaerno5":  # whose steps end at the times that are saved
            assert torch.equal(inside.ys[:, -1], end)


def test_each_trajectory_may_have_its_own_span_and_times() -> None:
    y0 = pendulum_start()
    t0, t1 = torch.tensor([0.0, 5.0]).double(), torch.tensor([4.0, 1.0]).double()
    ts = torch.stack([torch.linspace(0, 4, 5), torch.linspace(5, 1, 5)]).double()
    for control in (PID(1e-9, 1e-9), Constant(steps=400)):
        both = solve(TERM, y0, t0, t1, ts=ts, controller=control, solver="dopri5").ys
        for k in range(2):
            alone = solve(TERM, y0[k : k + 1], float(t0[k]), float(t1[k]), ts=ts[k], controller=PID(1e-10, 1e-10)).ys
            torch.testing.assert_close(both[k : k + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("end", [2.0, -2.0])
def test_between_steps_hermites_cubic_is_exact_where_the_method_is(end: float) -> None:
    ts = torch.linspace(0.0, end, 23).double()
    clock = ts[None, :, None]
    q, p = torch.tensor([[1.0], [-2.0]]).double(), torch.tensor([[0.5], [3.0]]).double()
    falling = SecondOrder(lambda t, q: torch.full_like(q, -9.0))
    found = solve(falling, (q, p), 0.0, end, ts=ts, solver="leapfrog", controller=Constant(steps=3)).ys
    torch.testing.assert_close(found[0], q[:, None] + p[:, None] * clock - 4.5 * clock**2, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], p[:, None] - 9.0 * clock, rtol=1e-12, atol=1e-12)
    ramp = ODE(lambda t, y: (2.0 * t + 1.0)[:, None].expand_as(y))
    ys = solve(ramp, q, 0.0, end, ts=ts, solver="reversible-heun", controller=Constant(steps=3)).ys
    torch.testing.assert_close(ys, q[:, None] + clock**2 + clock, rtol=1e-12, atol=1e-12)


def test_dense_output_steps_and_records() -> None:
    y0, seen = pendulum_start(), []
    s = solve(TERM, y0, 0.0, 5.0, dense=True, steps=True, record=(lambda info: seen.append(info) or info.error,))
    assert s.dense is not None
    assert s.steps is not None
    torch.testing.assert_close(s.dense(5.0), s.ys, rtol=0, atol=0)
    torch.testing.assert_close(s.dense(0.0), y0, rtol=0, atol=0)
    many = s.dense(torch.linspace(0, 5, 11))
    fine = solve(TERM, y0, 0.0, 5.0, ts=torch.linspace(0, 5, 11), controller=PID(1e-11, 1e-11)).ys
    torch.testing.assert_close(many, fine, rtol=0, atol=1e-5)
    assert torch.equal(s.steps[0], torch.zeros(2).double())
    assert torch.equal(s.steps[-1], torch.full((2,), 5.0).double())
    assert torch.equal((s.steps.diff(dim=0) > 0).sum(0), s.statistics.accepted)
    assert len(seen) == len(s.steps) - 1 == len(s.records[0])
    assert torch.equal(seen[3].t1, s.steps[4])
    torch.testing.assert_close(seen[0].stages[0], pendulum(seen[0].t0, y0) * (seen[0].t1 - seen[0].t0)[:, None])
    with pytest.raises(ValueError, match="t must lie in the span"):
        s.dense(5.1)


def test_tuples_and_any_shape() -> None:
    y0 = (torch.ones(3, 2, 2).double(), torch.ones(3, 1).double())
    solution = solve(
        ODE(lambda t, y: (-y[0] * y[1][..., None], 0.0 * y[1])), y0, 0.0, 1.0, ts=[0.5, 1.0], controller=PID(1e-9, 1e-9)
    )
    assert solution.ys[0].shape == (3, 2, 2, 2)
    torch.testing.assert_close(solution.ys[0][:, 1], torch.full((3, 2, 2), math.exp(-1)).double())
    complex_state = solve(ODE(lambda t, y: 1j * y), torch.ones(2, 1, dtype=torch.complex128), 0.0, math.pi).ys
    torch.testing.assert_close(complex_state, -torch.ones(2, 1, dtype=torch.complex128), rtol=0, atol=1e-6)


def test_terms() -> None:
    ones = torch.ones(2, 1).double()
    # ∫ t y dt along y' = y.
    y, q = solve(Augmented(ODE(lambda t, y: y), (lambda t, y: t[:, None] * y,)), (ones, 0 * ones), 0.0, 1.0).ys
    torch.testing.assert_close(q, ones, rtol=0, atol=1e-6)
    # Damped oscillation q'' + 2 q' + 2 q = 0 from (1, 0): e^{-t}(cos t + sin t).
    q, _ = solve(SecondOrder(lambda t, q: -2 * q, lambda t: 2.0 + 0 * t), (ones, 0 * ones), 0.0, 1.0).ys
    torch.testing.assert_close(q, ones * math.exp(-1) * (math.cos(1) + math.sin(1)), rtol=0, atol=1e-6)
    y = solve(ODE(shared_time(lambda t, y: t * y)), ones, 0.0, 1.0).ys
    torch.testing.assert_close(y, ones * math.exp(0.5), rtol=0, atol=1e-6)

    class Path:
        def derivative(self, t: Tensor) -> Tensor:
            return torch.stack([torch.ones_like(t), 2 * t], 1)

    y = solve(CDE(lambda t, y: torch.stack([y, y], 2), Path()), ones, 0.0, 1.0).ys
    torch.testing.assert_close(y, ones * math.exp(2.0), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="function must return shape"):
        solve(CDE(lambda t, y: y, Path()), ones, 0.0, 1.0)


@pytest.mark.parametrize("solver", ["heun", "bosh3", "tsit5"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("backwards", [False, True])
def test_jumps_are_stepped_on(solver: str, side: str, backwards: bool) -> None:
    jump = 0.7312

    def field(t: Tensor, y: Tensor) -> Tensor:
        early = t[:, None] < jump if side == "right" else t[:, None] <= jump
        return torch.where(early, 0.0, 1.0).to(y) + 0.0 * y

    y0, span = torch.zeros(1, 1).double(), (2.0, 0.0) if backwards else (0.0, 2.0)
    without = solve(ODE(field), y0, *span, solver=solver, controller=PID(1e-8, 1e-8))
    aware = solve(ODE(field), y0, *span, solver=solver, controller=PID(1e-8, 1e-8, jumps=(jump,)), steps=True)
    assert abs(float(aware.ys)) == pytest.approx(2.0 - jump, abs=1e-14)
    assert aware.steps is not None
    assert float((aware.steps - jump).abs().min()) < 1e-15
    assert int(aware.statistics.rejected.sum()) == 0 < int(without.statistics.rejected.sum())


@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0), (0.3, 0.9)])
@pytest.mark.parametrize(
    ("solver", "order"), [("euler", 1), ("heun", 2), ("rk4", 4), ("kvaerno3", 3), ("reversible-heun", 2)]
)
def test_fixed_steps_between_corners_keep_their_order(solver: str, order: int, span: tuple[float, float]) -> None:
    # Knots of tenths that the steps' own arithmetic misses by an ulp, and a slope of another size on each interval.
    knots = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    path = LinearPath(knots, torch.tensor([0.0, 1.0, 1.5, 2.2]).double()[None, :, None])
    term, one = CDE(lambda t, y: y[..., None], path), torch.ones(1, 1).double()
    exact = (path(span[1]) - path(span[0])).exp()
    per_unit = (80, 160, 320)
    errors = []
    for n in per_unit:
        steps = Constant(steps=round(n * abs(span[1] - span[0])))
        errors.append(float((solve(term, one, *span, solver=solver, controller=steps).ys - exact).abs()))
    assert math.log2(errors[1] / errors[2]) > order - 0.2
    # The same on one interval at a time, where there is no corner to see.
    ends = [
        span[0],
        *sorted((k for k in knots.tolist() if min(span) < k < max(span)), reverse=span[0] > span[1]),
        span[1],
    ]
    y = one
    for a, b in itertools.pairwise(ends):
        y = solve(term, y, a, b, solver=solver, controller=Constant(steps=round(80 * abs(b - a)))).ys
    assert float((y - exact).abs()) == pytest.approx(errors[0], rel=1e-6, abs=1e-12)


def test_eulers_steps_from_knot_to_knot_take_the_slope_ahead() -> None:
    knots = torch.linspace(0, 1, 4, dtype=torch.float64)
    path = LinearPath(knots, torch.tensor([[0.0, 1.0, -0.5, 0.4], [0.2, 0.1, 0.7, 0.0]]).double()[..., None])
    integrals = Augmented(CDE(lambda t, y: y[..., None], path), (lambda t, y: y,))
    start = (torch.ones(2, 1), torch.zeros(2, 1))
    for dtype, error in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        y0 = tuple(part.to(dtype) for part in start)
        ys, total = solve(integrals, y0, 0.0, 1.0, solver="euler", controller=Grid(knots), ts=knots).ys
        by_hand = torch.cat([torch.ones(2, 1, 1).double(), (1.0 + path.coefficients[:, :, 1] / 3.0).cumprod(1)], 1)
        torch.testing.assert_close(ys, by_hand.to(dtype), rtol=0, atol=error)
        torch.testing.assert_close(total[:, -1], by_hand[:, :-1].mean(1).to(dtype), rtol=0, atol=error)


def test_a_norm_mask_leaves_numbers_out() -> None:
    y0 = torch.ones(2, 2).double()
    wild = ODE(lambda t, y: torch.stack([-y[:, 0], 50.0 * (50.0 * t).sin()], 1))
    whole, part = (solve(wild, y0, 0.0, 3.0, norm_mask=mask) for mask in (None, torch.tensor([True, False])))
    assert part.statistics.calls < whole.statistics.calls / 2
    torch.testing.assert_close(part.ys[:, 0], torch.full((2,), math.exp(-3)).double(), rtol=0, atol=1e-6)


def explodes(t: Tensor, y: Tensor) -> Tensor:
    """y' = y²: infinite at t = 1/y(0)."""
    return y * y


def test_a_failed_trajectory_is_named_and_the_others_are_kept() -> None:
    y0 = torch.full((10_000, 1), 0.1).double()
    y0[4321] = 2.0
    with pytest.raises(
        SolveError, match=r"1 of 10000 trajectories .* \(samples 4321; sample 4321 at t = 0\.(49|5)"
    ) as caught:
        solve(ODE(explodes), y0, 0.0, 1.0)
    for solution in (caught.value.solution, solve(ODE(explodes), y0, 0.0, 1.0, on_failure="status")):
        assert solution.status.bool().nonzero().flatten().tolist() == [4321]
        assert STATUS[int(solution.status[4321])] in ("min_step", "not_finite")
        assert float(solution.t[4321]) == pytest.approx(0.5, abs=1e-3)
        torch.testing.assert_close(solution.ys[:10], torch.full((10, 1), 1 / 9).double(), rtol=1e-6, atol=0)
        assert bool(solution.ys.isfinite().all())


def test_failures_say_why_and_where() -> None:
    y0 = torch.tensor([[2.0, 0.0]]).double()
    with pytest.raises(SolveError, match=r"needed more than 20 steps .* at t = 0\.") as caught:
        solve(ODE(van_der_pol), y0, 0.0, 20.0, max_steps=20)
    assert STATUS[int(caught.value.solution.status[0])] == "max_steps"
    assert bool(caught.value.solution.ys.isfinite().all())
    with pytest.raises(SolveError, match="needed a step below min_step"):
        solve(ODE(van_der_pol), y0, 0.0, 20.0, controller=PID(1e-9, 1e-9, min_step=0.1))
    with pytest.raises(SolveError, match=r"stopped being finite \(samples 0; first in step 5, which ends at t = 5\)"):
        solve(
            ODE(lambda t, y: torch.where(t[:, None] >= 5, torch.nan, 0.0 * y)),
            torch.zeros(1, 1).double(),
            0.0,
            9.0,
            solver="rk4",
            controller=Constant(step=1),
        )
    saved = solve(ODE(explodes), torch.ones(1, 1).double(), 0.0, 2.0, ts=[0.5, 1.5], on_failure="status")
    assert float(saved.ys[0, 0]) == pytest.approx(2.0, rel=1e-5)
    assert bool(saved.ys[0, 1].isnan().all())


def test_a_trial_step_outside_the_domain_is_rejected() -> None:
    # sqrt(1 - y) is not a number beyond y = 1, which the solution y = 1 - (1 - t/2)² only touches at t = 2.
    y = solve(
        ODE(lambda t, y: (1.0 - y).sqrt()), torch.zeros(1, 1).double(), 0.0, 1.9, controller=PID(first_step=1.9)
    ).ys
    assert float(y) == pytest.approx(1 - (1 - 0.95) ** 2, abs=1e-6)


def test_fixed_grids_under_vmap_and_adaptive_steps_not() -> None:
    def end(rate: Tensor, control: Any) -> Tensor:
        term = ODE(lambda t, y: -rate * y)
        return solve(term, torch.ones(1, 1).double(), 0.0, 1.0, solver="rk4", controller=control).ys

    rates = torch.tensor([0.5, 1.0, 2.0]).double()
    ys = torch.func.vmap(lambda rate: end(rate, Constant(steps=20)))(rates)
    torch.testing.assert_close(ys.flatten(), (-rates).exp(), rtol=1e-5, atol=0)
    with pytest.raises(ValueError, match=r"controller must be Constant or Grid under torch\.func\.vmap"):
        torch.func.vmap(lambda y: solve(TERM, y, 0.0, 1.0).ys)(torch.ones(3, 1, 2).double())


def test_cost_grows_linearly_with_the_time_span() -> None:
    y0 = pendulum_start()
    short, long = (solve(TERM, y0, 0.0, end, max_steps=99_999).statistics.calls for end in (50.0, 400.0))
    assert long / short == pytest.approx(8.0, rel=0.1)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["bosh3", "dopri5", "tsit5"]),
    st.floats(-3, 3),
    st.floats(0.1, 5),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.booleans(),
)
def test_linear_equations_at_any_times(
    name: str, rate: float, span: float, parts: list[float], backwards: bool
) -> None:
    ts = torch.tensor(sorted(parts)).double() * span
    term, y0, start, end = ODE(lambda t, y: rate * y), torch.ones(1, 1).double(), 0.0, span
    if backwards:
        ts, start, end = ts.flip(0), span, 0.0
    ys = solve(term, y0, start, end, ts=ts, solver=name, controller=PID(1e-8, 1e-10), max_steps=99_999).ys[0, :, 0]
    torch.testing.assert_close(ys, (rate * (ts - start)).exp(), rtol=2e-5, atol=1e-7)


CURVE = LinearPath(torch.tensor([0.0, 1.0]).double(), torch.ones(2, 2, 1).double())

BAD: list[tuple[dict[str, Any], str]] = [
    ({"y0": torch.ones(2, 2, dtype=torch.long)}, "y0 must be floating point"),
    ({"y0": torch.tensor(1.0)}, "y0 must be a tensor with a leading batch axis"),
    ({"y0": torch.empty(0, 2)}, "y0 must hold at least one number"),
    ({"y0": (torch.ones(2, 1), torch.ones(3, 1))}, "same batch size"),
    ({"y0": torch.tensor([[1.0, torch.nan], [0.0, 0.0]]).double()}, "y0 must be finite, samples 0"),
    ({"y0": torch.ones(2, 2, dtype=torch.float16)}, "y0 must be float32 or float64"),
    ({"t0": torch.nan}, "t0 must be finite"),
    ({"t1": torch.zeros(3)}, r"t1 must be a number or of shape \(2,\)"),
    ({"ts": [0.5, 0.2]}, "ts must be monotone"),
    ({"ts": [0.5, 1.2]}, "ts must lie between t0 and t1"),
    ({"ts": []}, r"ts must have shape"),
    ({"solver": "rk5"}, "solver must be one of euler, .*, got 'rk5'"),
    ({"solver": "rk4"}, "controller must be Constant or Grid for rk4"),
    ({"solver": "rk4", "controller": PID()}, "rk4 has no error estimate"),
    ({"solver": "milstein"}, "milstein is for stochastic equations"),
    ({"solver": "leapfrog", "controller": Constant(steps=3)}, "leapfrog needs a SecondOrder term"),
    ({"max_steps": 0}, "max_steps must be at least 1"),
    ({"on_failure": "ignore"}, "on_failure must be"),
    ({"norm_mask": torch.ones(3, dtype=torch.bool)}, "norm_mask must hold truth values"),
    ({"norm_mask": torch.zeros(2, dtype=torch.bool)}, "norm_mask must let at least one"),
    ({"controller": Grid([0.0, 0.5, 0.4, 1.0])}, "times must rise or fall strictly"),
    ({"controller": Grid([0.0, 0.5])}, "times must lead from t0 to t1"),
    ({"term": ODE(lambda t, y: y[:, :1])}, r"the field must return torch.float64 of shape \[\(2, 2\)\]"),
    ({"term": ODE(lambda t, y: y.float())}, r"the field must return torch.float64"),
    ({"norm_mask": [True, True]}, "norm_mask must hold truth values"),
    ({"controller": Grid(torch.zeros(3, 4))}, r"times must have shape \(n \+ 1,\) or \(2, n \+ 1\)"),
    ({"y0": torch.ones(2, 2).cfloat(), "solver": "kvaerno3"}, "y0 must be float32 or float64 for the implicit method"),
    (
        {"y0": torch.ones(3, 2).double(), "term": CDE(TERM.function, CURVE)},
        "path must hold as many samples as y0, 3, got 2",
    ),
    ({"term": CDE(TERM.function, None)}, "path must be a path"),
    ({"y0": (torch.ones(2, 2),), "term": CDE(TERM.function, CURVE)}, "y0 must be one tensor"),
    ({"t1": 2.0, "term": CDE(lambda t, y: y[..., None], CURVE)}, r"t must lie in the span \[0.0, 1.0\]"),
    ({"event": Event(lambda t, y: y[:, 0] > 0.5)}, "event must return one number for each sample, floats"),
    ({"event": Event(lambda t, y: y[:, 0] * math.nan)}, "event must return numbers, got NaN for sample 0 at t = 0"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words[:30] for _, words in BAD])
def test_bad_input(change: dict[str, Any], words: str) -> None:
    call: dict[str, Any] = {"term": TERM, "y0": torch.ones(2, 2).double(), "t0": 0.0, "t1": 1.0, **change}
    with pytest.raises(ValueError, match=words):
        solve(call.pop("term"), call.pop("y0"), call.pop("t0"), call.pop("t1"), **call)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PID(0.0), "rtol must be positive"),
        (lambda: PID(1e-3, -1.0), "atol must be positive"),
        (lambda: PID(first_step=0.0), "first_step must be positive"),
        (lambda: PID(min_step=1.0, max_step=0.5), "min_step must be at least 0 and below max_step"),
        (lambda: PID(max_factor=1.0), "factors must satisfy"),
        (lambda: PID(safety=1.5), "safety must lie between"),
        (lambda: PID(scope="all"), "scope must be"),
        (lambda: PID(p=math.nan), "coefficients and jumps must be finite"),
        (lambda: Constant(), "either step or steps"),
        (lambda: Constant(step=-0.1), "step must be positive"),
        (lambda: Constant(steps=0), "steps must be at least 1"),
        (lambda: RungeKutta(TABLEAUS["kvaerno3"]), "tableau must be explicit"),
        (lambda: DiagonallyImplicit(TABLEAUS["rk4"]), "tableau must be implicit"),
    ],
)
def test_bad_options(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"term": lambda t, y: -y}, "term must be an equation, such as ODE(function), got function"),
        ({"solver": None}, "solver must be a name or a method, got NoneType"),
        ({"controller": "pid"}, "controller must be PID, Constant or Grid, got str"),
        ({"adjoint": Direct}, "adjoint must be a way to form gradients, such as Direct(), got <class"),
        ({"args": torch.ones(2)}, "args must be a tuple, got Tensor"),
    ],
)
def test_arguments_of_a_wrong_kind(change: dict[str, Any], words: str) -> None:
    # The tests' own check of annotations would be first; a user's call does not have it.
    kinds = {"term": TERM, "solver": SOLVERS["tsit5"], "controller": None, "adjoint": Direct(), "args": (), **change}
    with pytest.raises(ValueError, match=re.escape(words)):
        _check_kinds(**kinds)
    with pytest.raises(ValueError, match=r"steps must be at least 1, and whole, got 2.5"):
        Constant.__post_init__(SimpleNamespace(step=None, steps=2.5))  # type: ignore[arg-type]


def test_a_tolerance_below_rounding_is_warned_of() -> None:
    field = ODE(Network().float())
    with pytest.warns(UserWarning, match="rtol 1e-08 is below what float32 resolves") as seen:
        y = solve(field, torch.zeros(1, 2), 0.0, 0.01, controller=PID(1e-8, 1e-3)).ys
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(solve(field, torch.zeros(1, 2), 0.0, 0.01).ys, y, rtol=1e-4, atol=1e-6)


def test_a_failed_newton_iteration_is_not_passed_over_on_a_fixed_grid() -> None:
    # Y = 1 + 3 Y² has no real solution.
    with pytest.raises(SolveError, match="stopped being finite"):
        solve(ODE(explodes), torch.ones(1, 1).double(), 0.0, 3.0, solver="implicit-euler", controller=Constant(steps=1))

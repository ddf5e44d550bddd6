"""Implicit methods on stiff equations: against scipy, dense and matrix-free, trajectories at rest, failed iterations."""

import numpy as np
import pytest
import torch
from problems import pendulum, pendulum_start, robertson
from scipy.integrate import solve_ivp
from torch import Tensor

from pdebook.diffeq.adaptive import STATUS
from pdebook.diffeq.controllers import PID, Constant
from pdebook.diffeq.implicit import DiagonallyImplicit
from pdebook.diffeq.solve import solve
from pdebook.diffeq.tableaus import TABLEAUS
from pdebook.diffeq.terms import ODE

KVAERNO3 = TABLEAUS["kvaerno3"]


def test_a_stiff_reaction_against_scipy() -> None:
    y0 = np.array([1.0, 0.0, 0.0])

    def field(t: float, y: np.ndarray) -> np.ndarray:
        return robertson(torch.zeros(1), torch.as_tensor(y)[None])[0].numpy()

    exact = solve_ivp(field, (0.0, 40.0), y0, method="Radau", rtol=1e-10, atol=1e-12).y[:, -1]
    s = solve(
        ODE(robertson),
        torch.as_tensor(y0)[None],
        0.0,
        40.0,
        solver="kvaerno3",
        controller=PID(1e-5, 1e-8, p=0.3, i=0.3),
    )
    torch.testing.assert_close(s.ys[0], torch.as_tensor(exact), rtol=1e-4, atol=1e-8)
    # Stability would hold an explicit method to steps of about 1e-3.
    assert int(s.statistics.accepted) < 200


def test_dense_and_matrix_free_newton_agree() -> None:
    ends = [
        solve(
            ODE(pendulum), pendulum_start(), 0.0, 1.0, controller=Constant(steps=4),
            solver=DiagonallyImplicit(KVAERNO3, dense_limit=limit, rtol=1e-10, atol=1e-10),
        ).ys
        for limit in (64, 0)
    ]  # fmt: skip
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)
    calls: list[int] = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        calls.append(y.shape[-1])
        return pendulum(t, y)

    # One Jacobian a step costs as many products as the state has numbers; none is formed above the limit.
    for limit in (2, 1):
        calls.clear()
        method = DiagonallyImplicit(KVAERNO3, dense_limit=limit, rtol=1e-6, atol=1e-6)
        solve(ODE(field), pendulum_start(), 0.0, 0.1, controller=Constant(steps=1), solver=method)
        assert calls


def test_a_trajectory_at_rest_keeps_its_state_and_slope() -> None:
    y0, spans = pendulum_start(), torch.tensor([0.2, 1.0]).double()
    for control in (PID(1e-4, 1e-6), Constant(step=0.2)):
        both = solve(ODE(pendulum), y0, 0.0, spans, solver="kvaerno3", controller=control)
        for k in range(2):
            alone = solve(ODE(pendulum), y0[k : k + 1], 0.0, float(spans[k]), solver="kvaerno3", controller=control)
            torch.testing.assert_close(both.ys[k], alone.ys[0], rtol=1e-12, atol=1e-12)
        assert bool(both.ys.isfinite().all())


def test_evaluations_are_counted_where_each_step_takes_its_own_number() -> None:
    seen: list[int] = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        seen.append(1)
        return pendulum(t, y)

    # With gradients on, one more call asks whether the field needs any.
    with torch.no_grad():
        s = solve(ODE(field), pendulum_start()[:1], 0.0, 2.0, solver="kvaerno3", controller=PID(1e-4, 1e-4)).statistics
    assert int(s.evaluations) == s.calls == len(seen)


def test_a_failed_iteration_is_tried_again_with_a_smaller_step() -> None:
    # Y = 1 + h Y² has no solution for h > 1/4.
    s = solve(
        ODE(lambda t, y: y * y), torch.ones(1, 1).double(), 0.0, 0.5, solver="implicit-euler",
        controller=PID(1e-4, 1e-4, first_step=0.5), max_steps=999,
    )  # fmt: skip
    assert int(s.statistics.rejected) > 0
    assert float(s.ys) == pytest.approx(2.0, rel=0.03)
    stuck = solve(
        ODE(lambda t, y: y * y), torch.ones(1, 1).double(), 0.0, 0.5, solver="implicit-euler",
        controller=PID(1e-2, 1e-2, first_step=0.5, min_step=0.4), on_failure="status",
    )  # fmt: skip
    assert STATUS[int(stuck.status)] == "not_finite"


def test_newton_tolerances_are_those_of_the_steps() -> None:
    method = DiagonallyImplicit(KVAERNO3)
    assert (method.adapted((1e-3, 1e-4)).rtol, method.adapted((1e-3, 1e-4)).atol) == (1e-3, 1e-4)
    own = DiagonallyImplicit(KVAERNO3, rtol=1e-8)
    assert own.adapted((1e-3, 1e-4)) is own
    with pytest.raises(ValueError, match="dense_limit must not be negative and max_iterations at least 1"):
        DiagonallyImplicit(KVAERNO3, max_iterations=0)

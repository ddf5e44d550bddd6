"""USF: known solvers as points of one space, difference weights, orders, correctors, counting, and what schedules refuse."""

import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.orders import Row, problem
from pdebook.diffusion.affine import trace
from pdebook.diffusion.baselines import ddim
from pdebook.diffusion.deis import deis
from pdebook.diffusion.dpm_solver import singlestep
from pdebook.diffusion.exact import gaussian_flow
from pdebook.diffusion.multistep import multistep
from pdebook.diffusion.sampling import ExponentialStep, exponential_step, sampler
from pdebook.diffusion.scalars import phi
from pdebook.diffusion.schedules import EDM, VPCosine, VPLinear, time_grid
from pdebook.diffusion.testbeds import gauss, ring2d
from pdebook.diffusion.unified_sampling import (
    SOLVERS,
    SolverSchedule,
    Step,
    Update,
    _Node,
    advance,
    condition,
    difference_weights,
    from_official,
    from_solver,
    scaling_factor,
    shipped,
    usf,
)
from pdebook.diffusion.unipc import unipc

SCHEDULE = VPLinear()
# On uneven grids too, so that every ratio of steps counts.
GRIDS = {kind: time_grid(SCHEDULE, 12, kind, end=1e-3) for kind in ("half_log_snr", "quadratic", "rho")}


def identities() -> dict[str, tuple[str, dict[str, Any], Any, dict[str, Any]]]:
    """A solver's name and options here, and the sampler that it must equal."""
    found: dict[str, tuple[str, dict[str, Any], Any, dict[str, Any]]] = {"ddim": ("ddim", {}, ddim, {})}
    for kind in ("noise", "data"):
        own = {"prediction": kind}
        found |= {
            f"order 1, {kind}": ("ddim", own, ddim, {}),
            f"dpm-solver-2, {kind}": ("dpm-solver-2", own, singlestep, {"order": [2] * 6, **own}),
            f"dpm-solver-3, {kind}": ("dpm-solver-3", own, singlestep, {"order": [3] * 4, **own}),
            f"2m, {kind}": ("dpm-solver++2m", own, multistep, {"order": 2, **own}),
            f"taylor 2m, {kind}": ("taylor-2m", own, multistep, {"order": 2, "variant": "taylor", **own}),
            f"taylor 3m, {kind}": ("taylor-3m", own, multistep, {"order": 3, "variant": "taylor", **own}),
            f"2m lower, {kind}": (
                "dpm-solver++2m",
                {"ending": "lower", **own},
                multistep,
                {"order": 2, "ending": "lower", **own},
            ),
        }
        for order in (1, 2, 3):
            for options in ({"b": "bh1"}, {"b": "bh2"}, {"b": "bh2", "ending": "full"}):
                both = {**own, **options}
                found[f"unipc-{order} {both}"] = (f"unipc-{order}", both, unipc, {"order": order, **both})
    for r in range(4):
        found[f"λAB{r}"] = (f"lambda-ab-{r}", {}, deis, {"degree": r, "variable": "half_log_snr"})
    found["++2s"] = ("dpm-solver++2s", {}, singlestep, {"order": [2] * 6, "prediction": "data"})
    found["++3s"] = ("dpm-solver++3s", {}, singlestep, {"order": [3] * 4, "prediction": "data"})
    return found


IDENTITIES = identities()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", IDENTITIES)
def test_known_solvers_are_points_of_the_space(name: str, grid: str) -> None:
    solver, options, reference, its = IDENTITIES[name]
    table = from_solver(solver, GRIDS[grid], **options).to_tableau(SCHEDULE)
    # Rounding alone: weights up to 150, a quadrature in λAB.
    assert table.distance(trace(reference, SCHEDULE, GRIDS[grid], **its)) < 1e-12


@pytest.mark.parametrize("schedule", [VPCosine(), EDM()], ids=["cosine", "edm"])
@pytest.mark.parametrize("name", ["dpm-solver-3, noise", "unipc-3 {'prediction': 'data', 'b': 'bh2'}", "λAB3"])
def test_known_solvers_on_other_schedules(name: str, schedule: Any) -> None:
    solver, options, reference, its = IDENTITIES[name]
    grid = time_grid(schedule, 12, end=0.01)
    table = from_solver(solver, grid, **options).to_tableau(schedule)
    assert table.distance(trace(reference, schedule, grid, **its)) < 1e-11


@pytest.mark.parametrize("name", SOLVERS)
def test_every_named_solver_counts_its_evaluations_and_survives_json(name: str) -> None:
    schedule = from_solver(name, GRIDS["quadratic"])
    table = schedule.to_tableau(SCHEDULE)
    assert len(table.times) == schedule.evaluations == 12
    assert SolverSchedule.from_json(schedule.to_json()) == schedule


def test_a_prediction_matters_only_above_order_one() -> None:
    noise, data = (from_solver("taylor-2m", GRIDS["rho"], prediction=kind) for kind in ("noise", "data"))
    assert noise.to_tableau(SCHEDULE).distance(data.to_tableau(SCHEDULE)) > 1e-4


# -------------------- weights


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-3, 3).filter(lambda d: abs(d) > 0.2), min_size=1, max_size=4, unique_by=lambda d: round(d * 4)),
    st.data(),
)
def test_difference_weights_are_exact_on_polynomials(distances: list[float], data: st.DataObject) -> None:
    q = data.draw(st.integers(1, len(distances)))
    coefficients = [0.7, -1.3, 0.4, 2.0, -0.6][: len(distances) + 1]

    def value(d: float) -> float:
        return sum(c * d**k for k, c in enumerate(coefficients))

    weights = difference_weights(distances, q)
    found = sum(a * (value(d) - value(0.0)) for a, d in zip(weights, distances, strict=True))
    size = sum(abs(a) for a in weights) * 200.0
    assert abs(found - math.factorial(q) * coefficients[q]) < 1e-13 * (size + 1) * condition(distances)


def test_difference_weights_by_hand() -> None:
    assert difference_weights([-2.0], 1) == [-0.5]
    np.testing.assert_allclose(difference_weights([-1.0, 1.0], 1), [-0.5, 0.5])
    np.testing.assert_allclose(difference_weights([-1.0, 1.0], 2), [1.0, 1.0])
    np.testing.assert_allclose(difference_weights([-1.0, -2.0], 1), [-2.0, 0.5])


def test_the_condition_counts_correctors() -> None:
    """The node that a correction adds may come close to the others while those of the prediction are far apart."""
    close = (1.0, 0.5, 0.5 - 1e-10)
    plain = SolverSchedule(close, (Step(), Step("noise", Update(2, ((-2,),)))))
    corrected = SolverSchedule(close, (Step(), Step("noise", Update(2, ((-2,),)), "pseudo")))
    assert plain.condition(SCHEDULE) == 1.0
    assert corrected.condition(SCHEDULE) > 1e8


def test_coincident_nodes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"times must keep the nodes.*condition number.*1e\+08"):
        difference_weights([-1.0, -1.0 - 1e-9], 1)
    close = SolverSchedule(
        (1.0, 0.5, 0.5 - 1e-10, 0.1), (Step(), Step(), Step("noise", Update(3, ((-2, -3), (-2, -3)))))
    )
    assert close.condition(SCHEDULE) > 1e8
    with pytest.raises(ValueError, match="condition number"):
        close.to_tableau(SCHEDULE)
    assert condition([-1.0]) == 1.0
    # Distances in any unit have the same condition number.
    assert condition([-1.0, -2.0]) == pytest.approx(condition([-10.0, -20.0]))
    with pytest.raises(ValueError, match="q must be between 1"):
        difference_weights([1.0], 2)


@pytest.mark.parametrize("scaling", ["linear", "bh1", "bh2", "exp+", "exp-"])
@pytest.mark.parametrize("kind", ["noise", "data"])
def test_scalings_by_their_formulas(kind: Any, scaling: Any) -> None:
    step = exponential_step(SCHEDULE, 0.6, 0.4, kind)
    h = step.h
    z = h if kind == "noise" else -h
    rest = math.expm1(z) - z
    formula = {
        "linear": 1 + 0.3 * h,
        "bh1": 0.5 * z * z / rest,
        "bh2": 0.5 * z * math.expm1(z) / rest,
        "exp+": 1 + 0.5 * math.expm1(z),
        "exp-": 1 - 0.5 * math.expm1(z),
    }
    assert scaling_factor(step, scaling, 0.3) == pytest.approx(formula[scaling], rel=1e-12)
    assert scaling_factor(step, "none", 0.3) == 1.0
    # 1 + O(h): the factor approaches 1 linearly.
    small = [ExponentialStep(1.0, 1.0, s, s, 1.0) for s in (1e-3, 1e-4)]
    ratio = (scaling_factor(small[0], scaling, 0.3) - 1) / (scaling_factor(small[1], scaling, 0.3) - 1)
    assert ratio == pytest.approx(10.0, rel=1e-2)


def test_a_step_is_exact_for_polynomial_predictions_of_the_order_of_its_points() -> None:
    """A start inside the buffer, more points than derivatives, and points on both sides."""

    class Polynomial:
        schedule = SCHEDULE

        def noise(self, x: Any, t: Any) -> Any:
            lam = SCHEDULE.half_log_snr(t)
            return torch.full_like(x, 0.3 - 0.5 * lam + 0.2 * lam**2)

        def data(self, x: Any, t: Any) -> Any:
            return (x - SCHEDULE.sigma(t) * self.noise(x, t)) / SCHEDULE.alpha(t)

    times = (0.7, 0.6, 0.5, 0.4, 0.3)
    first = Step("noise")
    update = Update(3, ((-1, -3), (-1, -3)), start=-2)
    x = torch.zeros(1, 1, dtype=torch.float64)
    states = [y for _, y in usf.iterate(Polynomial(), x, times[:4], steps=(first,) * 3)]
    y = usf(Polynomial(), x, times, steps=(*(first,) * 3, Step("noise", update)))
    s, t = times[2], times[4]
    lam, h = SCHEDULE.half_log_snr(s), SCHEDULE.half_log_snr(t) - SCHEDULE.half_log_snr(s)
    derivatives = (0.3 - 0.5 * lam + 0.2 * lam**2, -0.5 + 0.4 * lam, 0.4)
    exact = SCHEDULE.alpha(t) / SCHEDULE.alpha(s) * float(states[1]) - SCHEDULE.sigma(t) * sum(
        h ** (k + 1) * phi(k + 1, h) * m for k, m in enumerate(derivatives)
    )
    assert float(y) == pytest.approx(exact, rel=1e-11)


# -------------------- orders


def scheduled(name: str, **options: Any) -> Callable[..., torch.Tensor]:
    return lambda denoiser, x, times: from_solver(name, times, **options).run(denoiser, x)


def repeated(step: Step) -> Callable[..., torch.Tensor]:
    """The same decisions in every step that has the nodes for it, order 1 before."""
    start = step.update.reach - 1

    def run(denoiser: Any, x: Any, times: Any) -> torch.Tensor:
        count = len(times) - 1
        last = Step(step.prediction, step.update)
        warm = (Step("noise", Update(), "pseudo"),) * start
        return usf(denoiser, x, times, steps=(*warm, *(step,) * (count - start - 1), last))

    return run


ORDERS = [
    Row("taylor-3m", scheduled("taylor-3m", ending="full"), 3, {}, (160, 320, 640)),
    Row("linear scaling keeps order 2", repeated(Step("noise", Update(2, ((-2,),), -1, "linear", 0.4))), 2),
    Row("scaling exp+ keeps order 2", repeated(Step("data", Update(2, ((-2,),), -1, "exp+"))), 2),
    Row("one point for both is order 2", repeated(Step("data", Update(3, ((-2,), (-2, -3))))), 2),
    Row("a pseudo corrector gains one", repeated(Step("noise", Update(2, ((-2,),)), "pseudo")), 3, {}, (160, 320, 640)),
    Row(
        "an implicit corrector gains one",
        repeated(Step("noise", Update(2, ((-2,),)), "implicit")),
        3,
        {},
        (160, 320, 640),
    ),
]


@pytest.fixture(scope="module")
def observed() -> dict[str, float]:
    """Orders of all rows, from a process of its own: the run-time check of shapes costs ten times what the steps do."""
    code = "import json; from diffusion.orders import measure; from diffusion.test_unified_sampling import ORDERS; "
    code += "print(json.dumps({row.name: measure(row).order for row in ORDERS}))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("row", ORDERS, ids=lambda row: row.name)
def test_order(row: Row, observed: dict[str, float]) -> None:
    assert row.order - 0.2 <= observed[row.name] <= row.order + 0.6


def test_point_masses_are_sampled_exactly_by_any_schedule() -> None:
    bed = gauss(0.0)
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(8)
    exact = gaussian_flow(bed.mixture.means[0], 0.0, bed.schedule, x, 1.0, 1e-3)
    steps = (
        Step("data", Update(), "pseudo"),
        Step("noise", Update(2, ((-2,),), -1, "linear", 0.7), "implicit"),
        Step("data", Update(2, ((-1,),), -2)),
        Step("noise", Update(3, ((-2,), (-2, -3)), -1, "exp-"), "pseudo"),
    )
    schedule = SolverSchedule((1.0, 0.7, 0.4, 0.1, 1e-3), steps)
    y = schedule.run(denoiser, x)
    assert float((y - exact).abs().max()) < 1e-10
    assert denoiser.evaluations == schedule.evaluations == 6


# -------------------- counting, correctors, analytic first step


def test_correctors_by_hand() -> None:
    """Predict, ask at the prediction, go again from the start with the new value; pseudo keeps that value, implicit asks again."""
    _, denoiser, x, _ = problem()
    times, schedule = (0.8, 0.5, 0.3), denoiser.schedule
    e0 = denoiser.noise(x, 0.8)
    step = exponential_step(schedule, 0.8, 0.5, "noise")
    predicted = step.ratio * x + step.weight(1) * e0
    e1 = denoiser.noise(predicted, 0.5)
    corrected = step.ratio * x + step.weight(1) * e0 + step.weight(2) * (e1 - e0)
    last = exponential_step(schedule, 0.5, 0.3, "noise")
    for corrector, value in (("pseudo", e1), ("implicit", denoiser.noise(corrected, 0.5))):
        steps = (Step("noise", Update(), corrector), Step("noise"))  # type: ignore[arg-type]
        states = [y for _, y in usf.iterate(denoiser, x, times, steps=steps)]
        torch.testing.assert_close(states[0], corrected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(states[1], last.ratio * corrected + last.weight(1) * value, rtol=1e-12, atol=1e-12)


def test_a_correction_has_its_own_gamma() -> None:
    """Neither the prediction's γ nor the given ones touch it."""
    _, denoiser, x, _ = problem()
    again = Update(2, ((-1,),), -2, "linear", 0.4)
    steps = (Step("noise", Update(gamma=0.9), "pseudo", again), Step("noise"))
    step = exponential_step(denoiser.schedule, 0.8, 0.5, "noise")
    e0 = denoiser.noise(x, 0.8)
    e1 = denoiser.noise(step.ratio * x + step.weight(1) * e0, 0.5)
    expected = step.ratio * x + step.weight(1) * e0 + step.weight(2) * (1.0 + 0.4 * step.h) * (e1 - e0)
    for gammas in (None, [0.7, 0.7]):
        _, y = next(usf.iterate(denoiser, x, (0.8, 0.5, 0.3), steps=steps, gammas=gammas))
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_inversion_runs_the_same_formulas_upwards() -> None:
    """Steps of λ are negative, their ratios are not."""
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(SCHEDULE), bed.initial(4)
    rising = time_grid(SCHEDULE, 12, end=1e-2)[::-1]
    for order in (2, 3):
        steps = from_solver(f"taylor-{order}m", rising[::-1], ending="full").steps
        up = usf.invert(denoiser, x, rising, steps=steps)
        torch.testing.assert_close(
            up,
            multistep.invert(denoiser, x, rising, order=order, variant="taylor", ending="full"),
            rtol=1e-10,
            atol=1e-10,
        )


def test_a_corrected_node_keeps_its_evaluation_where_it_was_made() -> None:
    """After a pseudo corrector the data prediction is that of the predicted point, not a mixture of old noise and new state."""
    _, denoiser, x, _ = problem()
    times = (0.8, 0.5, 0.3)
    mixed = (Step("noise", Update(), "pseudo"), Step("data"))
    schedule = denoiser.schedule
    states = [y for _, y in usf.iterate(denoiser, x, times, steps=mixed)]
    step = exponential_step(schedule, 0.8, 0.5, "noise")
    predicted = step.ratio * x + step.weight(1) * denoiser.noise(x, 0.8)
    last = exponential_step(schedule, 0.5, 0.3, "data")
    expected = last.ratio * states[0] + last.weight(1) * denoiser.data(predicted, 0.5)
    torch.testing.assert_close(states[1], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("correctors", "analytic", "evaluations"),
    [
        (("none", "none", "none"), "none", 3),
        (("pseudo", "pseudo", "none"), "none", 3),
        (("none", "none", "pseudo"), "none", 4),
        (("implicit", "none", "none"), "none", 4),
        (("implicit", "implicit", "implicit"), "none", 6),
        (("none", "none", "none"), "noise", 2),
        (("implicit", "pseudo", "none"), "mean", 3),
    ],
)
def test_evaluations_are_counted_exactly(correctors: tuple[Any, ...], analytic: Any, evaluations: int) -> None:
    bed = ring2d()
    schedule = SolverSchedule((1.0, 0.6, 0.3, 0.01), tuple(Step("noise", Update(), c) for c in correctors), analytic)
    denoiser = bed.mixture.denoiser(bed.schedule)
    schedule.run(denoiser, bed.initial(2), mean=bed.mixture.means.mean(0))
    assert denoiser.evaluations == schedule.evaluations == evaluations
    assert len(schedule.to_tableau(SCHEDULE).times) == evaluations


def test_the_analytic_start_replaces_the_first_answer() -> None:
    """ε ≈ x, and x_0 ≈ mean: the tableau of DDIM with e0 replaced."""
    grid = (1.0, 0.5, 1e-3)
    plain = trace(ddim, SCHEDULE, grid).weights[-1]
    steps = (Step("noise"), Step("noise"))
    noise = SolverSchedule(grid, steps, "noise").to_tableau(SCHEDULE)
    np.testing.assert_allclose(noise.weights[-1], [plain[0] + plain[1], plain[2]], rtol=1e-12)
    mean = SolverSchedule(grid, steps, "mean").to_tableau(SCHEDULE)
    alpha, sigma = SCHEDULE.alpha(1.0), SCHEDULE.sigma(1.0)
    assert mean.symbols == ("x", "e0", "mu")
    expected = [plain[0] + plain[1] / sigma, plain[2], -plain[1] * alpha / sigma]
    np.testing.assert_allclose(mean.weights[-1], expected, rtol=1e-11)
    bed = ring2d()
    with pytest.raises(ValueError, match="mean must be given"):
        SolverSchedule(grid, steps, "mean").run(bed.mixture.denoiser(bed.schedule), bed.initial(2))


def test_one_evaluation_serves_both_predictions() -> None:
    denoiser = ring2d().mixture.denoiser(SCHEDULE)
    kinds = ("noise", "data", "noise", "data")
    steps = tuple(Step(kind, Update(2, ((-2,),)) if i else Update()) for i, kind in enumerate(kinds))
    SolverSchedule((1.0, 0.7, 0.4, 0.2, 0.01), steps).run(denoiser, ring2d().initial(2))
    assert denoiser.evaluations == 4


def test_gammas_may_be_tensors_and_carry_gradients() -> None:
    bed = ring2d()
    steps = (Step("noise"), Step("noise", Update(2, ((-2,),), -1, "linear", 0.2)))
    grid = (1.0, 0.4, 0.01)
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(3)
    gamma = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    y = usf(denoiser, x, grid, steps=steps, gammas=[0.0, gamma])
    torch.testing.assert_close(y, usf(denoiser, x, grid, steps=steps), rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(y.sum(), gamma)
    shifted = [usf(denoiser, x, grid, steps=steps, gammas=[0.0, 0.2 + d]).sum() for d in (1e-4, -1e-4)]
    assert float(gradient) == pytest.approx(float(shifted[0] - shifted[1]) / 2e-4, rel=1e-6)


def test_a_long_run_keeps_only_the_nodes_it_needs() -> None:
    """Whatever is dropped, the result is that of the whole history (tableaux of 40 steps agree with the reference)."""
    grid = time_grid(SCHEDULE, 40)
    assert from_solver("taylor-3m", grid).to_tableau(SCHEDULE).distance(
        trace(multistep, SCHEDULE, grid, order=3, variant="taylor")
    ) < 1e-12  # fmt: skip


# -------------------- bad inputs


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Update(0), "order must be an integer, at least 1"),
        (lambda: Update(True), "order must be an integer, at least 1, got True"),
        (
            lambda: SolverSchedule((1.0, 0.5, 0.1), (Step(), Step("data", Update(2, ((-1,),), -3)))),
            r"steps\[1\].update needs 3 nodes, but there are 2",
        ),
        (
            lambda: trace(usf, SCHEDULE, (1.0, 0.5, 0.1), steps=(Step(), Step()), gammas=[0.1]),
            "gammas must be one for each of the 2 steps, got 1",
        ),
        (lambda: Update(2), "points must have one set for each of the 1 derivatives"),
        (lambda: Update(3, ((-2,), (-2,))), "points of derivative 2 must be at least 2 distinct nodes"),
        (lambda: Update(2, ((-1,),)), "other than the start -1"),
        (lambda: Update(3, ((-2, -2), (-2, -3))), "distinct"),
        (lambda: Update(2, ((0,),)), "points must be an integer, -1 or less"),
        (lambda: Update(1, (), 0), "start must be an integer, -1 or less"),
        (lambda: Update(2, ((-2,),), -1, "none", math.nan), "gamma must be finite"),
        (lambda: Step("data", Update(), "none", Update(2, ((-1,),), -2)), "correction must be left out"),
        (lambda: Step("data", Update(), "pseudo", Update()), "correction must not start from -1"),
        (lambda: SolverSchedule((1.0, 0.5), (Step(), Step())), "times must be one more than steps"),
        (lambda: SolverSchedule((1.0,), ()), "at least one"),
        (lambda: SolverSchedule((1.0, 0.5, 0.5), (Step(), Step())), r"times\[2\] = 0.5 follows 0.5"),
        (lambda: SolverSchedule((1.0, math.inf), (Step(),)), "times must be finite"),
        (lambda: SolverSchedule((1.0, 0.5), (Step("data", Update(2, ((-2,),))),)), r"steps\[0\].update needs 2 nodes, but"),
        (
            lambda: SolverSchedule((1.0, 0.5), (Step("data", Update(), "pseudo", Update(3, ((-1, -3), (-1, -3)), -2)),)),
            r"steps\[0\].correction needs 3 nodes, but there are 2",
        ),
        (lambda: from_solver("dpm-solver-9", GRIDS["rho"]), "name must be one of ddim"),
        (lambda: from_solver("dpm-solver-3", (1.0, 0.5, 0.1)), "times must hold a multiple of 3 intervals"),
        (lambda: from_solver("taylor-3m", (1.0, 0.5, 0.1)), "times must hold at least 3 steps"),
        (lambda: trace(usf, SCHEDULE, (1.0, 0.5), steps=()), "steps must be one for each of the 1"),
        (
            lambda: usf(
                ring2d().mixture.denoiser(SCHEDULE),
                ring2d().initial(2),
                torch.tensor([[1.0, 0.5], [1.0, 0.4]]),
                steps=(Step(),),
            ),
            "times must be shared by the batch",
        ),
    ],
)  # fmt: skip
def test_bad_inputs(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


GOOD_TEXT = from_solver("unipc-2", (1.0, 0.5, 0.2, 0.01)).to_json()
GOOD = json.loads(GOOD_TEXT)


def broken(change: Callable[[Any], Any]) -> str:
    record = json.loads(json.dumps(GOOD))
    return json.dumps(change(record) or record)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (pickle.dumps(GOOD), "text must be JSON"),
        (b"\x80\x04\x95", "text must be JSON"),
        ("{", "text must be JSON"),
        ("[]", "schedule must be an object, got list"),
        ('{"times": [1, 0.5], "times": [1, 0.1], "steps": [{}]}', "fields must not be repeated"),
        ('{"times": [1, NaN], "steps": [{}]}', "numbers must be finite, got NaN"),
        ('{"times": [true, 0.5], "steps": [{}]}', "times"),
        ('{"times": [1e999, 0.5], "steps": [{}]}', "times must be finite numbers, got inf"),
        ('{"times": [1, 0.5], "steps": [{"prediction": "data", "prediction": "noise"}]}', "fields must not be repeated"),
        ('{"times": [1, 0.5], "steps": [{"update": null}]}', r"steps\[0\].update must be an object, got NoneType"),
        (GOOD_TEXT[:-20], "text must be JSON"),
        (broken(lambda r: r.pop("times") and None), "schedule must have times"),
        (broken(lambda r: r.update(extra=1)), "schedule has unknown fields: extra"),
        (broken(lambda r: r["steps"][1].update(prediction="v")), r"(?s)schedule.steps\[1\].*prediction"),
        (broken(lambda r: r["steps"][1]["update"].update(order=3)), r"schedule.steps\[1\].update: points must have"),
        (broken(lambda r: r["steps"][1]["update"].update(order="two")), r"(?s)schedule.steps\[1\].update.*order"),
        (broken(lambda r: r["steps"][1]["update"].update(relaxation="no")), r"steps\[1\].update has unknown fields: relaxation"),
        (broken(lambda r: r["steps"][1]["update"].update(points=[2])), r"update.points must be a list of lists"),
        (broken(lambda r: r.update(times=[1.0, 0.5, 0.6, 0.01])), r"times\[2\] = 0.6 follows 0.5"),
        (broken(lambda r: r.update(times=[1.0, "0.5", 0.2, 0.01])), "times"),
        (broken(lambda r: r.update(steps=3)), "steps must be a list"),
        (broken(lambda r: r.update(provenance=3)), "provenance must be an object"),
        (broken(lambda r: r.update(analytic="average")), "analytic"),
    ],
)  # fmt: skip
def test_json_that_is_no_schedule(text: str | bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        SolverSchedule.from_json(text)
    path = tmp_path / "bad.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"path bad\.json holds no solver schedule"):
        SolverSchedule.load(path)


def test_json_without_measure() -> None:
    """Numbers beyond the largest real one, more digits than Python reads, more brackets than it follows."""
    for text, words in (
        ('{"times": [1' + 400 * "0" + ', 0.5], "steps": [{}]}', "times"),
        ('{"times": [1' + 5000 * "0" + ', 0.5], "steps": [{}]}', "digits"),
        ("[" * 200_000, "text must be JSON, and is not: maximum recursion"),
    ):
        with pytest.raises(ValueError, match=words):
            SolverSchedule.from_json(text)


def test_json_is_readable_and_complete(tmp_path: Path) -> None:
    steps = (
        Step("noise", Update(), "implicit"),
        Step("data", Update(2, ((-2,),), -1, "linear", 0.25), "pseudo", Update(2, ((-1,),), -2, "bh1")),
    )
    schedule = SolverSchedule((1.0, 0.5, 0.1), steps, "mean", {"seed": 3})
    path = tmp_path / "schedule.json"
    path.write_text(schedule.to_json())
    again = SolverSchedule.load(path)
    assert again == schedule
    assert again.provenance == {"seed": 3}
    assert len(schedule.to_json().splitlines()) == 6
    # Defaults are left out.
    assert from_solver("ddim", (1.0, 0.5)).to_json() == '{"times": [1.0, 0.5],\n "steps": [\n  {}]}'
    # Whole numbers are numbers.
    assert SolverSchedule.from_json('{"times": [1, 0.5], "steps": [{}]}').times == (1.0, 0.5)


# -------------------- released files


def official() -> dict[str, Any]:
    """A file in the released form: two steps, the second scaled, the first corrected."""
    none = {"type": "no_corrector", "start_point": None, "taylor_order": None, "derivative_type": None}
    first = {"estimate": "Difference_1", "active_points": [-1], "relaxation": None}
    second = {"estimate": "Difference_1", "active_points": [-2], "relaxation": "linear", "relaxation_coefficient": 0.3}
    return {
        "timesteps": torch.tensor([1.0, 0.5, 0.25]),
        "orders": [1, 2],
        "prediction_types": ["data_prediction", "noise_prediction"],
        "start_points": [-1, -1],
        "derivative_types": [[], [second]],
        "corrector_types": [{"type": "pseudo", "start_point": -2, "taylor_order": 2, "derivative_type": [first]}, none],
        "afs": "zero_x0",
        "skip_coefficients": torch.ones(4),
    }


def saved(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "schedule.pth"
    torch.save(content, path)
    return path


def test_released_files_are_converted(tmp_path: Path) -> None:
    schedule = from_official(saved(tmp_path, official()))
    steps = (Step("data", Update(), "pseudo"), Step("noise", Update(2, ((-2,),), -1, "linear", 0.3)))
    assert schedule == SolverSchedule((1.0, 0.5, 0.25), steps, "noise")
    assert schedule.evaluations == 1


def test_released_corrections_and_sets_of_points(tmp_path: Path) -> None:
    """What is not the default: a correction's own points and relaxation, points in any order, a missing coefficient."""
    content = official()
    one, two = (
        {"estimate": f"Difference_{len(points)}", "active_points": points, "relaxation": "linear"}
        for points in ([-2], [-3, -2])
    )
    again = {"estimate": "Difference_1", "active_points": [-1], "relaxation": "0.5exp"}
    content["timesteps"] = torch.tensor([1.0, 0.5, 0.25, 0.125])
    content["orders"], content["start_points"] = [1, 2, 3], [-1, -1, -1]
    content["prediction_types"] = ["data_prediction"] * 3
    content["derivative_types"] = [[], [one], [one, two]]
    corrected = {"type": "pseudo", "start_point": -2, "taylor_order": 2, "derivative_type": [again]}
    content["corrector_types"] = [content["corrector_types"][1], corrected, content["corrector_types"][1]]
    steps = from_official(saved(tmp_path, content)).steps
    assert steps[1] == Step("data", Update(2, ((-2,),), -1, "linear"), "pseudo", Update(2, ((-1,),), -2, "exp+"))
    assert steps[2] == Step("data", Update(3, ((-2,), (-2, -3)), -1, "linear"))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("dpmsolver-2", "bh2"), ("unipc-bh2", "bh2"), ("unipc-bh1", "bh1"), ("0.5exp", "exp+"), ("-0.5exp", "exp-"), (None, "none"),
    ],
)  # fmt: skip
def test_relaxation_names(theirs: str | None, ours: str, tmp_path: Path) -> None:
    content = official()
    content["derivative_types"][1][0]["relaxation"] = theirs
    assert from_official(saved(tmp_path, content)).steps[1].update.scaling == ours


def test_skip_coefficients_are_dropped_only_on_request(tmp_path: Path) -> None:
    content = official() | {"skip_coefficients": torch.tensor([1.0, 0.9])}
    with pytest.raises(ValueError, match="skip_coefficients differ from 1"):
        from_official(saved(tmp_path, content))
    schedule = from_official(saved(tmp_path, content), drop_skips=True)
    assert schedule.provenance["skip_coefficients"] == "dropped"


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/unified_sampling_was_executed"),))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(prediction_types=["dpmsolver_v3_prediction"] * 2), "step 0 has prediction 'dpmsolver_v3_prediction'"),
        (lambda c: c["derivative_types"][1][0].update(relaxation="cubic"), "step 1 has relaxation 'cubic'"),
        (lambda c: c["derivative_types"][1][0].update(active_points=None), "step 1 estimates a derivative"),
        (lambda c: c["derivative_types"][1][0].update(estimate="Difference_3"), "step 1 estimates a derivative"),
        (lambda c: c["corrector_types"][0].update(type="other"), "step 0 has corrector 'other'"),
        (lambda c: c.update(afs="other"), "afs must be one of"),
        (lambda c: c.update(orders=[1]), "orders must be one for each of the 2 steps"),
        (lambda c: c.update(more=1), "fields must be"),
        (lambda c: c.pop("orders"), "fields must be"),
        (lambda c: c.update(orders=[2, 2]), "points must have one set"),
        (lambda c: c.update(timesteps=torch.tensor([1.0, 0.2, 0.5])), "times must fall"),
        (lambda c: c.update(timesteps=torch.tensor([1.0, math.nan, 0.5])), "times must be finite"),
        (lambda c: c.update(timesteps=torch.ones(3).to_sparse()), "no released solver schedule"),
    ],
)  # fmt: skip
def test_released_files_that_are_refused(change: Callable[[Any], Any], words: str, tmp_path: Path) -> None:
    content = official()
    change(content)
    with pytest.raises(ValueError, match=r"path schedule\.pth holds no") as caught:
        from_official(saved(tmp_path, content))
    assert words in str(caught.value)


def test_files_with_objects_are_not_executed(tmp_path: Path) -> None:
    mark = Path("/tmp/unified_sampling_was_executed")
    mark.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"path schedule\.pth is not a file of plain tensors"):
        from_official(saved(tmp_path, {"timesteps": Evil()}))
    raw = tmp_path / "raw.pth"
    raw.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match=r"path raw\.pth is not a file of plain tensors"):
        from_official(raw)
    raw.write_bytes(b"no file of torch")
    with pytest.raises(ValueError, match=r"path raw.pth is not"):
        from_official(raw)
    whole = saved(tmp_path, official()).read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 30):
        raw.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"path raw.pth is not a file of plain tensors.*read: ."):
            from_official(raw)
    with pytest.raises(ValueError, match="holds no released solver schedule"):
        from_official(saved(tmp_path, [1, 2, 3]))
    assert not mark.exists()


# -------------------- shipped


def test_shipped_schedules_cost_what_they_say_and_know_their_origin() -> None:
    for budget in (5, 8, 10):
        schedule = shipped("digits_gm", budget)
        assert schedule is not None
        assert schedule.evaluations == budget
        assert (schedule.times[0], schedule.times[-1]) == (1.0, 1e-3)
        assert schedule.provenance["made_by"].startswith("pdebook.diffusion.solver_search.make_shipped")
        assert schedule is shipped("digits_net", budget)
    assert shipped("digits_gm", 7) is None
    assert shipped("ring2d", 5) is None


def test_update_rule_on_its_own() -> None:
    """``advance`` with a start inside the buffer, against a formula written out."""
    schedule = SCHEDULE
    nodes, x = [], torch.tensor([[0.4]], dtype=torch.float64)
    values = [0.3, -0.2, 0.9]
    for t, m in zip((0.9, 0.7, 0.5), values, strict=True):
        nodes.append(_Node(t, schedule.half_log_snr(t), x, x, {"data": torch.full_like(x, m)}))
    y = advance(schedule, nodes, 0.3, "data", Update(2, ((-1,),), -3, "linear"), 0.5)
    lam = [schedule.half_log_snr(t) for t in (0.9, 0.5, 0.3)]
    h = lam[2] - lam[0]
    slope = (values[2] - values[0]) / (lam[1] - lam[0]) * (1 + 0.5 * h)
    exact = (
        schedule.sigma(0.3) / schedule.sigma(0.9) * 0.4
        + schedule.alpha(0.3) * (h * phi(1, -h) * values[0] + h * h * phi(2, -h) * slope)
    )  # fmt: skip
    assert float(y) == pytest.approx(exact, rel=1e-13)


def test_it_is_a_sampler() -> None:
    assert type(usf) is type(sampler(lambda: iter(())))
    bed = ring2d()
    schedule = from_solver("dpm-solver++2m", time_grid(bed.schedule, 5, end=0.01))
    seen = list(usf.iterate(bed.mixture.denoiser(bed.schedule), bed.initial(2), schedule.times, **schedule.options()))
    assert [t for t, _ in seen] == list(schedule.times[1:])
    assert all(a > b for a, b in pairwise(schedule.times))

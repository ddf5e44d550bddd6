"""PNDM: the transfer, the gradient parts, exactness on point masses, what is second order and what is not, step numbers."""

import json
import math
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffusion.orders import Row, measure, problem
from pdebook.diffusion.affine import Affine, trace
from pdebook.diffusion.baselines import ddim, runge_kutta
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.exact import gaussian_flow
from pdebook.diffusion.multistep import multistep
from pdebook.diffusion.pndm import (
    ADAMS,
    GROWTH,
    OfficialLevels,
    discrete_times,
    fon,
    ipndm,
    official_step,
    pndm,
    runge_kutta_growth,
    transfer,
)
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.sampling import Sampler
from pdebook.diffusion.schedules import EDM, DiscreteVP, NoiseSchedule, VPCosine, VPLinear, ddpm_betas, time_grid
from pdebook.diffusion.testbeds import gauss, ring2d
from pdebook.metrics.order import observed_order
from pdebook.rng import normal

SCHEDULE = VPLinear()
F_PNDM: dict[str, Any] = {"order": 4, "warmup": "runge-kutta"}
S_PNDM: dict[str, Any] = {"order": 2, "warmup": "heun"}
PLMS: dict[str, Any] = {"order": 4, "warmup": "heun"}
METHODS = [
    pytest.param(pndm, F_PNDM, 9, id="f-pndm"),
    pytest.param(pndm, S_PNDM, 1, id="s-pndm"),
    pytest.param(pndm, PLMS, 1, id="plms"),
    pytest.param(ipndm, {}, 0, id="ipndm"),
]


def draws(stream: int, batch: int = 5) -> torch.Tensor:
    return normal(1, torch.arange(batch), (3,), stream=stream, dtype=torch.float64)


# -------------------- the transfer


@pytest.mark.parametrize("schedule", [VPLinear(), EDM()], ids=["vp", "edm"])
@settings(deadline=None)
@given(s=st.floats(1e-3, 1.0), t=st.floats(1e-3, 1.0))
def test_the_transfer_keeps_noisy_samples_noisy_samples(schedule: NoiseSchedule, s: float, t: float) -> None:
    data, noise = draws(0), draws(1)
    before, after = (schedule.alpha(u) * data + schedule.sigma(u) * noise for u in (s, t))
    moved = transfer(schedule, before, noise, s, t)
    # Rounding of the state is multiplied by the ratio of the signals, at most 150.
    torch.testing.assert_close(moved, after, rtol=0, atol=1e-12)
    torch.testing.assert_close(transfer(schedule, moved, noise, t, s), before, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(s=st.floats(1e-3, 1.0), t=st.floats(1e-3, 1.0))
def test_the_transfer_is_the_papers_quotient(s: float, t: float) -> None:
    a, b = float(SCHEDULE.alpha(s)) ** 2, float(SCHEDULE.alpha(t)) ** 2
    x, noise = draws(0), draws(1)
    quotient = (b - a) / (math.sqrt(a) * (math.sqrt((1 - b) * a) + math.sqrt((1 - a) * b)))
    moved = transfer(SCHEDULE, x, noise, s, t)
    torch.testing.assert_close(moved, math.sqrt(b / a) * x - quotient * noise, rtol=1e-11, atol=1e-12)


def test_the_transfer_reaches_clean_data() -> None:
    schedule = EDM()
    data, noise = draws(0), draws(1)
    assert torch.equal(transfer(schedule, data + 2.0 * noise, noise, 2.0, 0.0), data + 2.0 * noise - 2.0 * noise)


# -------------------- weights


@pytest.mark.parametrize("count", ADAMS)
def test_adams_weights_integrate_polynomials_over_the_next_step(count: int) -> None:
    """Σ_j w_j (-j)^q = ∫_0^1 u^q du = 1/(q + 1) for q below the number of values."""
    weights = [Fraction(w).limit_denominator(24) for w in ADAMS[count]]
    assert len(weights) == count
    for q in range(count):
        assert sum(w * (-j) ** q for j, w in enumerate(weights)) == Fraction(1, q + 1)


# -------------------- which algorithm it is


@pytest.mark.parametrize("warmup", ["runge-kutta", "heun", "lower"])
def test_order_one_is_ddim(warmup: str) -> None:
    grid = time_grid(SCHEDULE, 6, "quadratic")
    table = trace(ddim, SCHEDULE, grid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trace(pndm, SCHEDULE, grid, order=1, warmup=warmup).distance(table) < 1e-13
    assert trace(ipndm, SCHEDULE, grid, order=1).distance(table) < 1e-13


@pytest.mark.parametrize("order", [2, 3, 4])
def test_ipndm_is_pndm_with_the_lowest_warm_up(order: int) -> None:
    grid = time_grid(SCHEDULE, 6, "quadratic")
    table = trace(ipndm, SCHEDULE, grid, order=order)
    assert trace(pndm, SCHEDULE, grid, order=order, warmup="lower").distance(table) == 0
    assert table.distance(trace(ipndm, SCHEDULE, grid, order=order - 1)) > 1e-3


def test_on_equal_steps_in_half_log_snr_second_order_ipndm_is_the_noise_form_of_2m() -> None:
    """Equal steps in λ: the released slope of 2M is half a difference of ε, as Adams and Bashforth have it."""
    options: dict[str, Any] = {"order": 2, "prediction": "noise", "ending": "full"}
    for kind, equal in (("half_log_snr", True), ("time", False)):
        grid = time_grid(SCHEDULE, 9, kind)
        distance = trace(ipndm, SCHEDULE, grid, order=2).distance(trace(multistep, SCHEDULE, grid, **options))
        assert (distance < 1e-12) if equal else (distance > 1e-3)


def quotient_move(schedule: NoiseSchedule, x: Affine, e: Affine, s: float, t: float) -> Affine:
    a, b = float(schedule.alpha(s)) ** 2, float(schedule.alpha(t)) ** 2
    weight = (b - a) / (math.sqrt(a) * (math.sqrt((1 - b) * a) + math.sqrt((1 - a) * b)))
    return Affine().plus(math.sqrt(b / a), x).plus(-weight, e)


def combined(*terms: Any) -> Affine:
    total = Affine()
    for weight, e in zip(terms[::2], terms[1::2], strict=True):
        total = total.plus(weight, e)
    return total


def paper_f(denoiser: Any, x: Affine, times: list[float], stored: int = 0) -> Affine:
    """Algorithm 2 of the paper in its own formulas; ``stored`` is which ε of a warm-up step enters the history."""
    history: list[Affine] = []
    for i, (s, t) in enumerate(pairwise(times)):
        e1 = denoiser.noise(x, s)
        if i < 3:
            m = (s + t) / 2
            e2 = denoiser.noise(quotient_move(denoiser.schedule, x, e1, s, m), m)
            e3 = denoiser.noise(quotient_move(denoiser.schedule, x, e2, s, m), m)
            e4 = denoiser.noise(quotient_move(denoiser.schedule, x, e3, s, t), t)
            history.append([e1, e2, e3, e4][stored])
            e = combined(1 / 6, e1, 2 / 6, e2, 2 / 6, e3, 1 / 6, e4)
        else:
            history.append(e1)
            e = combined(55 / 24, history[-1], -59 / 24, history[-2], 37 / 24, history[-3], -9 / 24, history[-4])
        x = quotient_move(denoiser.schedule, x, e, s, t)
    return x


def paper_s(denoiser: Any, x: Affine, times: list[float], order: int = 2) -> Affine:
    """S-PNDM in the paper's formulas; with order 4 the PLMS of Stable Diffusion, which climbs to it after the same first step."""
    history: list[Affine] = []
    for i, (s, t) in enumerate(pairwise(times)):
        history.append(denoiser.noise(x, s))
        count = min(len(history), order)
        e = {
            1: lambda h: h[-1],
            2: lambda h: combined(3 / 2, h[-1], -1 / 2, h[-2]),
            3: lambda h: combined(23 / 12, h[-1], -16 / 12, h[-2], 5 / 12, h[-3]),
            4: lambda h: combined(55 / 24, h[-1], -59 / 24, h[-2], 37 / 24, h[-3], -9 / 24, h[-4]),
        }[count](history)
        if i == 0:
            e2 = denoiser.noise(quotient_move(denoiser.schedule, x, history[0], s, t), t)
            e = combined(1 / 2, history[0], 1 / 2, e2)
        x = quotient_move(denoiser.schedule, x, e, s, t)
    return x


def test_f_pndm_is_the_papers_algorithm() -> None:
    grid = time_grid(SCHEDULE, 7, "time")
    table = trace(pndm, SCHEDULE, grid, **F_PNDM)
    assert table.distance(trace(paper_f, SCHEDULE, grid)) < 1e-12
    # No slope and no exactness would show this.
    assert table.distance(trace(paper_f, SCHEDULE, grid, stored=3)) > 1e-2
    assert table.times[:5] == (grid[0], (grid[0] + grid[1]) / 2, (grid[0] + grid[1]) / 2, grid[1], grid[1])


@pytest.mark.parametrize("order", [2, 3, 4])
def test_s_pndm_and_plms_are_the_papers_algorithm_with_one_improved_step(order: int) -> None:
    grid = time_grid(SCHEDULE, 7, "time")
    table = trace(pndm, SCHEDULE, grid, order=order, warmup="heun")
    assert table.distance(trace(paper_s, SCHEDULE, grid, order=order)) < 1e-12


@pytest.mark.parametrize(("sampler", "options", "extra"), METHODS)
def test_every_pseudo_method_moves_signal_and_noise_exactly(
    sampler: Sampler, options: dict[str, Any], extra: int
) -> None:
    """The result holds α_0/α_T of the start, and its weights of ε sum to α_0 (ρ_0 - ρ_T): what a constant ε would need."""
    grid = time_grid(SCHEDULE, 8, "quadratic")
    table = trace(sampler, SCHEDULE, grid, **options)
    alpha = float(SCHEDULE.alpha(grid[-1]))
    assert len(table.times) == 8 + extra
    assert table.weights[-1, 0] == pytest.approx(alpha / float(SCHEDULE.alpha(1.0)), rel=1e-12)
    assert table.weights[-1, 1:].sum() == pytest.approx(
        alpha * float(SCHEDULE.rho(grid[-1]) - SCHEDULE.rho(1.0)), rel=1e-12
    )


# -------------------- exactness


def point_mass_error(sampler: Sampler, kind: str = "half_log_snr", **options: Any) -> tuple[float, int]:
    bed = gauss(0.0)
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(16)
    exact = gaussian_flow(bed.mixture.means[0], 0.0, bed.schedule, x, 1.0, bed.end)
    y = sampler(denoiser, x, time_grid(bed.schedule, 8, kind, end=bed.end), **options)
    return float((y - exact).abs().max()), denoiser.evaluations


@pytest.mark.parametrize("kind", ["half_log_snr", "time", "quadratic"])
@pytest.mark.parametrize(("sampler", "options", "extra"), METHODS)
def test_pseudo_methods_are_exact_on_point_masses(
    sampler: Sampler, options: dict[str, Any], extra: int, kind: str
) -> None:
    error, evaluations = point_mass_error(sampler, kind, **options)
    # Rounding, times α_t/α_s of up to 150.
    assert error < 1e-10
    assert evaluations == 8 + extra


@pytest.mark.parametrize("variant", ["faithful", "released"])
def test_the_classical_method_is_not(variant: str) -> None:
    error, evaluations = point_mass_error(fon, variant=variant)
    assert error > 5e-3
    assert evaluations == 17


def test_the_leading_error_of_a_step() -> None:
    """With ε linear in t, two or more exact past values give x_t an error of -α_t ρ''(t) ε' δ³/12: no weights of ε help."""

    def local_error(delta: float) -> tuple[float, float]:
        s, t = 0.5, 0.5 - delta
        nodes = [s - delta * (0.5 + 0.5 * u) for u in (-math.sqrt(0.6), 0.0, math.sqrt(0.6))]
        rate = [SCHEDULE.rho(u) * SCHEDULE.diffusion_squared(u) / (2 * SCHEDULE.sigma(u) ** 2) for u in nodes]
        exact = -delta * sum(w * r * u for w, r, u in zip((5 / 18, 8 / 18, 5 / 18), rate, nodes, strict=True))
        alpha = float(SCHEDULE.alpha(t))
        mean = s - 0.5 * delta  # what any of the weights makes of ε = t
        moved = transfer(SCHEDULE, torch.zeros(1, 1).double(), torch.full((1, 1), mean).double(), s, t)
        curvature = float(SCHEDULE.rho(s + 1e-3) - 2 * SCHEDULE.rho(s) + SCHEDULE.rho(s - 1e-3)) / 1e-6
        return float(moved) - alpha * exact, alpha * curvature * delta**3 / 12

    for delta in (0.01, 0.005):
        error, theory = local_error(delta)
        # The next term is of relative size δ.
        assert error == pytest.approx(theory, rel=6 * delta)


# -------------------- order

RUNS = [
    Row("f-pndm", pndm, 2, F_PNDM, kind="quadratic"),
    Row("s-pndm", pndm, 2, S_PNDM, kind="quadratic"),
    Row("plms", pndm, 2, PLMS, kind="quadratic"),
    *(Row(f"ipndm {order}", ipndm, 2, {"order": order}, kind="quadratic") for order in (2, 3, 4)),
]


@pytest.fixture(scope="module")
def observed() -> dict[str, float]:
    """Orders of all rows, from a process without the run-time check of shapes, which costs ten times what the steps do."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "diffusion.test_pndm"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("row", RUNS, ids=[row.name for row in RUNS])
def test_order(row: Row, observed: dict[str, float]) -> None:
    # Second order, in spite of weights of order four: no less, and no more.
    assert row.order - 0.15 <= observed[row.name] <= row.order + 0.3


def classical_order() -> float:
    """Order of FON away from t = 0, where the right-hand side is smooth, on equal steps."""
    bed, denoiser, x, _ = problem()
    exact = probability_flow(denoiser, x, 1.0, 0.2, tolerance=1e-11).x
    counts, errors = (40, 80, 160), []
    for n in counts:
        y = fon(denoiser, x, time_grid(bed.schedule, n, "time", end=0.2))
        errors.append(float((y - exact).square().mean(1).sqrt().median()))
    return observed_order(errors, n=counts).order


@pytest.mark.slow
def test_the_classical_method_is_of_fourth_order(observed: dict[str, float]) -> None:
    assert observed["fon"] == pytest.approx(4.0, abs=0.3)


def test_the_faithful_classical_method_starts_with_runge_kutta_and_goes_on_with_adams() -> None:
    bed, denoiser, x, _ = problem()
    grid = time_grid(bed.schedule, 6, "time", end=bed.end)
    states = [state for _, state in fon.iterate(denoiser, x, grid)]
    torch.testing.assert_close(states[2], runge_kutta(denoiser, x, grid[:4], method="rk4"), rtol=1e-12, atol=1e-12)

    def slope(y: Tensor, t: float) -> Tensor:
        rate = bed.schedule.diffusion_squared(t) / (2 * bed.schedule.sigma(t))
        return bed.schedule.drift(t) * y + rate * denoiser.noise(y, t)

    k = [slope(y, t) for y, t in zip([x, *states], grid, strict=False)]
    step = (55 * k[3] - 59 * k[2] + 37 * k[1] - 9 * k[0]) / 24 * (grid[4] - grid[3])
    torch.testing.assert_close(states[3], states[2] + step, rtol=1e-12, atol=1e-12)


def test_the_slip_of_the_released_classical_method() -> None:
    """Its stages keep linear part and level of the step's start: with ε = 0 four equal slopes, an Euler step."""
    quiet = Denoiser(lambda x, t: torch.zeros_like(x), SCHEDULE)
    x, grid = draws(0), time_grid(SCHEDULE, 5, "time", end=0.5)
    one = next(fon.iterate(quiet, x, grid, variant="released"))[1]
    increment = SCHEDULE.alpha(1.0 - 1e-3) / SCHEDULE.alpha(1.0) - 1.0
    torch.testing.assert_close(one, x * (1.0 + 100 * increment), rtol=1e-11, atol=0)


# -------------------- the unstable warm-up


@pytest.mark.parametrize("schedule", [VPLinear(), VPCosine(), EDM()], ids=["linear", "cosine", "edm"])
def test_the_growth_is_that_of_the_step_itself(schedule: NoiseSchedule) -> None:
    s, t = 0.99, 0.75

    def net(x: Tensor, time: Any) -> Tensor:
        return x * (schedule.sigma(s_t := float(time[0])) / (schedule.alpha(s_t) ** 2 + schedule.sigma(s_t) ** 2))

    x = torch.ones(1, 1, dtype=torch.float64)
    end = next(pndm.iterate(Denoiser(net, schedule), x, [s, t, 0.5, 0.4, 0.3], fallback=False))[1]
    spread = [math.sqrt(schedule.alpha(u) ** 2 + schedule.sigma(u) ** 2) for u in (s, t)]
    assert runge_kutta_growth(schedule, s, t) == pytest.approx(abs(float(end)) * spread[0] / spread[1], rel=1e-11)
    both = runge_kutta_growth(
        schedule, *(torch.tensor(pair, dtype=torch.float64).reshape(2, 1) for pair in ((s, 0.5), (t, 0.4)))
    )
    assert float(both[0]) == pytest.approx(float(runge_kutta_growth(schedule, s, t)), rel=1e-12)
    assert float(both[1]) == pytest.approx(float(runge_kutta_growth(schedule, 0.5, 0.4)), rel=1e-12)


def test_an_unstable_warm_up_is_replaced_with_a_warning() -> None:
    bed = ring2d(schedule=VPCosine())
    grid = time_grid(bed.schedule, 12, "quadratic", end=bed.end)
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(16)
    exact = problem_end(bed, x)
    with pytest.warns(RuntimeWarning, match=r"stretch standard normal data by 1\d\.\d; lower orders warm up instead"):
        y = pndm(denoiser, x, grid)
    assert denoiser.evaluations == 12
    torch.testing.assert_close(y, ipndm(denoiser, x, grid), rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = pndm(denoiser, x, grid, fallback=False)
        pndm(denoiser, x, grid, **PLMS)
    # Points lie at distance 1 from the origin.
    assert float((kept - exact).square().mean(1).sqrt().median()) > 1.0
    assert float((y - exact).square().mean(1).sqrt().median()) < 0.1


def problem_end(bed: Any, x: Tensor) -> Tensor:
    grid = time_grid(bed.schedule, 400, end=bed.end)
    return multistep(bed.mixture.denoiser(bed.schedule), x, grid, order=3, variant="taylor", ending="full")


def test_every_step_of_the_warm_up_is_looked_at() -> None:
    """The first step is tiny and the second one unstable; a warm-up of order 2 ends before it."""
    denoiser, grid = ring2d(schedule=VPCosine()).mixture.denoiser(VPCosine()), [0.9946, 0.994, 0.7, 0.5, 0.3, 0.1]
    x = draws(0, 2)[:, :2]
    with pytest.warns(RuntimeWarning, match="lower orders"):
        fallen = pndm(denoiser, x, grid)
    assert torch.equal(fallen, ipndm(denoiser, x, grid))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = pndm(denoiser, x, grid, order=2)
    assert torch.equal(kept, pndm(denoiser, x, grid, order=2, fallback=False))
    assert not torch.equal(kept, ipndm(denoiser, x, grid, order=2))


@pytest.mark.parametrize("kind", ["time", "quadratic", "half_log_snr"])
@pytest.mark.parametrize("steps", [5, 10, 50])
def test_the_usual_grids_keep_their_warm_up(kind: str, steps: int) -> None:
    bed = ring2d()
    denoiser = bed.mixture.denoiser(bed.schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pndm(denoiser, bed.initial(1), time_grid(bed.schedule, steps, kind, end=bed.end))
    assert denoiser.evaluations == steps + 9


def test_the_limit_of_the_growth_is_two() -> None:
    """Twelve steps equal in t are too few under a cosine schedule, fourteen are not."""
    schedule = VPCosine()
    few, enough = (time_grid(schedule, n, "time", end=1e-2) for n in (12, 14))
    assert 1.4 < runge_kutta_growth(schedule, *enough[:2]) < 2.0 < runge_kutta_growth(schedule, *few[:2]) < 2.2
    denoiser, x = ring2d(schedule=schedule).mixture.denoiser(schedule), draws(0, 2)[:, :2]
    with pytest.warns(RuntimeWarning, match=r"by 2\.1; lower orders"):
        pndm(denoiser, x, few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pndm(denoiser, x, enough)


def test_one_unstable_sample_changes_the_warm_up_of_all() -> None:
    schedule = VPCosine()
    calm, wild = time_grid(schedule, 12, end=1e-2), time_grid(schedule, 12, "quadratic", end=1e-2)
    assert runge_kutta_growth(schedule, *wild[:2]) > GROWTH > runge_kutta_growth(schedule, *calm[:2])
    denoiser, x = ring2d(schedule=schedule).mixture.denoiser(schedule), draws(0, 2)[:, :2]
    with pytest.warns(RuntimeWarning, match="lower orders"):
        pndm(denoiser, x, torch.tensor([calm, wild], dtype=torch.float64))


# -------------------- as any sampler


@pytest.mark.parametrize(("sampler", "options"), [(pndm, F_PNDM), (pndm, PLMS), (ipndm, {}), (fon, {})])
def test_times_that_differ_by_sample(sampler: Sampler, options: dict[str, Any]) -> None:
    bed = ring2d()
    x, grids = bed.initial(2), [time_grid(bed.schedule, 6, kind, end=bed.end) for kind in ("time", "half_log_snr")]
    denoiser = bed.mixture.denoiser(bed.schedule)
    together = sampler(denoiser, x, torch.tensor(grids, dtype=torch.float64), **options)
    for i, grid in enumerate(grids):
        torch.testing.assert_close(together[i : i + 1], sampler(denoiser, x[i : i + 1], grid, **options))


@pytest.mark.parametrize(("sampler", "options", "extra"), METHODS)
def test_inversion(sampler: Sampler, options: dict[str, Any], extra: int) -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(8)
    grid = time_grid(bed.schedule, 200, end=bed.end)
    back = sampler.invert(denoiser, sampler(denoiser, x, grid, **options), grid[::-1], **options)
    # Second order in 200 steps; without the way back the distance is of size 1.
    assert float((back - x).abs().max()) < 2e-2


def test_gradients() -> None:
    bed = ring2d()
    denoiser, grid = bed.mixture.denoiser(bed.schedule), time_grid(bed.schedule, 4, "time", end=0.2)
    x = bed.initial(2).requires_grad_()
    for sampler in (pndm, fon):
        assert torch.autograd.gradcheck(lambda y, sampler=sampler: sampler(denoiser, y, grid), (x,))


def test_states_keep_their_dtype() -> None:
    denoiser = Denoiser(lambda x, t: 0.5 * x, SCHEDULE)
    for sampler in (pndm, ipndm, fon):
        assert sampler(denoiser, draws(0).float(), [1.0, 0.8, 0.6, 0.5, 0.4]).dtype == torch.float32


BETAS = ddpm_betas()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d, x: pndm(d, x, [1.0, 0.5, 0.4, 0.3]), "times must hold at least 4 steps for a method of order 4, got 3"),
        (lambda d, x: pndm(d, x, [1.0, 0.5], **S_PNDM), "times must hold at least 2 steps"),
        (lambda d, x: ipndm(d, x, [1.0, 0.5], order=3), "times must hold at least 3 steps for a method of order 3, got 1"),
        (lambda d, x: fon(d, x, [1.0, 0.5, 0.3]), "times must hold at least 4 steps"),
        (lambda d, x: pndm(d, x, [1.0, 0.5, 0.6, 0.3, 0.2]), "times must fall strictly"),
        (lambda d, x: pndm(d, x, [1.0, 0.5], order=5), "order must be 1, 2, 3 or 4, got 5"),
        (lambda d, x: ipndm(d, x, [1.0, 0.5], order=0), "order must be 1, 2, 3 or 4, got 0"),
        (lambda d, x: pndm(d, x, [1.0, 0.5], order=True), "order must be 1, 2, 3 or 4, got True"),
        (
            lambda d, x: fon(d, x, [1.0, 0.5, 0.3, 0.0009, 0.0], variant="released"),
            "times before the last must be at least 1/1000 in the released variant, got 0.0009",
        ),
        (lambda d, x: discrete_times(DiscreteVP.from_betas(BETAS), 0), "steps must be between 1 and .* 1000, got 0"),
        (lambda d, x: discrete_times(DiscreteVP.from_betas(BETAS), 1001), "steps must be between 1 and .*, got 1001"),
        (lambda d, x: discrete_times(DiscreteVP.from_betas(BETAS), True), "steps must be between 1 and .*, got True"),
        (
            lambda d, x: discrete_times(DiscreteVP.from_betas(BETAS), 1000, official_offset=True),
            "steps must leave the first step below the last level, 1.0: 1000 begin at 1.001",
        ),
    ],
)  # fmt: skip
def test_bad_input(call: Callable[[Denoiser, Tensor], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(Denoiser(lambda x, t: x, SCHEDULE), draws(0))


def check_choices() -> None:
    denoiser, x, grid = Denoiser(lambda x, t: x, SCHEDULE), draws(0), [1.0, 0.8, 0.7, 0.6, 0.5]
    with pytest.raises(ValueError, match="warmup must be 'runge-kutta', 'heun' or 'lower', got 'prk'"):
        pndm(denoiser, x, grid, warmup="prk")
    with pytest.raises(ValueError, match="variant must be 'faithful' or 'released', got 'official'"):
        fon(denoiser, x, grid, variant="official")
    orders: list[Any] = [2.0, "3", [1]]
    for order in orders:
        with pytest.raises(ValueError, match=re.escape(f"order must be 1, 2, 3 or 4, got {order!r}")):
            pndm(denoiser, x, grid, order=order)
    counts: list[Any] = [10.0, "10"]
    for steps in counts:
        with pytest.raises(ValueError, match=f"steps must be between 1 and the model's 1000, got {steps!r}"):
            discrete_times(DiscreteVP.from_betas(BETAS), steps)
    with pytest.raises(ValueError, match="schedule must be a DiscreteVP, got VPLinear"):
        discrete_times(SCHEDULE, 10)  # type: ignore[arg-type]
    # The warning points at the call, not into the library.
    with pytest.warns(RuntimeWarning, match="lower orders") as caught:
        pndm(Denoiser(lambda x, t: x, VPCosine()), x, time_grid(VPCosine(), 8, "quadratic"))
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]


def test_bad_choices() -> None:
    """In a process without the run-time check of types, which refuses these words before the library does."""
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", "from diffusion.test_pndm import check_choices; check_choices()"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": tests}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -------------------- step numbers of a discrete model


def told(schedule: DiscreteVP, times: list[float], sampler: Sampler, time_input: Any, **options: Any) -> list[float]:
    """What the network is told about the time, one number an evaluation."""
    numbers: list[float] = []

    def net(x: Tensor, n: Tensor) -> Tensor:
        numbers.append(round(float(n[0]), 6))
        return 0.5 * x

    sampler(Denoiser(net, schedule, time_input=time_input), draws(0), times, **options)
    return numbers


@pytest.mark.parametrize(("steps", "extra"), [(10, 9), (20, 9), (50, 9)])
def test_evaluations_and_step_numbers(steps: int, extra: int) -> None:
    schedule = DiscreteVP.from_betas(BETAS)
    skip = 1000 // steps
    for offset, time_input in ((False, "discrete-1"), (True, official_step)):
        times = discrete_times(schedule, steps, official_offset=offset)
        assert len(times) == steps + 1
        numbers = told(schedule, times, pndm, time_input, **F_PNDM)
        n = 1000 - skip
        assert numbers[:5] == [n, n - skip / 2, n - skip / 2, n - skip, n - skip]
        assert numbers[12:] == [float(k) for k in range(n - 3 * skip, -1, -skip)]
        assert len(numbers) == steps + extra
        assert len(told(schedule, times, pndm, time_input, **S_PNDM)) == steps + 1


def test_a_number_of_steps_that_does_not_divide_the_levels() -> None:
    schedule = DiscreteVP.from_betas(BETAS)
    times = discrete_times(schedule, 30)
    assert len(times) == 32
    assert times[:2] == [991 / 1000, 958 / 1000]
    assert times[-2:] == [1 / 1000, 0.0]
    assert schedule.sigma(0.0) == 0.0
    assert discrete_times(schedule, 1000)[0] == 1.0


def test_a_model_of_twenty_levels() -> None:
    """Step numbers, offset and FON's increment follow the model's own N."""
    schedule = DiscreteVP.from_betas(20 * ddpm_betas(20))
    times = discrete_times(schedule, 10)
    assert times == pytest.approx([(n + 1) / 20 for n in range(18, -1, -2)] + [0.0], abs=1e-15)
    assert official_step(0.5, schedule) == 8.0
    quiet = Denoiser(lambda x, t: torch.zeros_like(x), schedule)
    x, grid = draws(0), time_grid(schedule, 5, "time", end=0.5)
    one = next(fon.iterate(quiet, x, grid, variant="released"))[1]
    # A step of 0.1 is two levels.
    torch.testing.assert_close(one, x * (2.0 * schedule.alpha(0.95) / schedule.alpha(1.0) - 1.0), rtol=1e-11, atol=0)


def test_official_levels() -> None:
    """Level n + 1 for step n; between two steps the index is cut, towards zero."""
    levels = torch.cumprod(1.0 - BETAS, 0)
    schedule = OfficialLevels(levels)
    for n, index in ((0.0, 1), (7.0, 8), (7.5, 8), (7.999, 8), (-1.0, 0), (-0.5, 1)):
        t = (n + 2.0) / 1000
        assert float(schedule.alpha(t)) ** 2 == pytest.approx(float(levels[index]), rel=1e-12)
        assert float(schedule.alpha(torch.tensor([t]).double())) ** 2 == pytest.approx(float(levels[index]), rel=1e-12)
        assert official_step(t, schedule) == pytest.approx(n, abs=1e-9)
    assert official_step(0.5, VPLinear()) == 498.0


def test_the_official_offset_is_one_level() -> None:
    """The same steps of the same network, one level apart: the states differ, but little."""
    schedule = DiscreteVP.from_betas(BETAS)
    bed = ring2d(schedule=schedule)

    def net(x: Tensor, n: Tensor) -> Tensor:
        t = (float(n[0]) + 1.0) / 1000
        return bed.mixture.noise(x, schedule.alpha(t), schedule.sigma(t))

    plain = pndm(Denoiser(net, schedule, time_input="discrete-1"), bed.initial(8), discrete_times(schedule, 50))
    levels = OfficialLevels(torch.cumprod(1.0 - BETAS, 0))
    times = discrete_times(levels, 50, official_offset=True)
    theirs = pndm(Denoiser(net, levels, time_input=official_step), bed.initial(8), times)
    assert 1e-4 < float((plain - theirs).abs().max()) < 5e-2


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({row.name: measure(row).order for row in RUNS} | {"fon": classical_order()}))

"""DEIS: its weights against independent integrals, its members against other chapters' methods, likelihood against exact densities."""

import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from diffusion.orders import Row, measure
from pdebook.diffusion.affine import trace
from pdebook.diffusion.baselines import ddim, runge_kutta
from pdebook.diffusion.deis import adams_weights, deis, frozen_score, log_likelihood
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.dpm_solver import singlestep
from pdebook.diffusion.exact import gaussian_flow
from pdebook.diffusion.multistep import multistep
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.sampling import exponential_step
from pdebook.diffusion.schedules import (
    EDM,
    SCHEDULES,
    VE,
    DiscreteVP,
    NoiseSchedule,
    VPCosine,
    VPLinear,
    time_grid,
)
from pdebook.diffusion.testbeds import gauss, ring2d
from pdebook.rng import normal

SCHEDULE = VPLinear()
UNEVEN = [1.0, 0.8, 0.65, 0.3, 0.2, 0.05]
VARIABLES = ("time", "rho", "half_log_snr")
schedules = pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))
variables = pytest.mark.parametrize("variable", VARIABLES)
predictions = pytest.mark.parametrize("prediction", ["noise", "data"])


def position(schedule: NoiseSchedule, t: float, variable: str) -> float:
    return t if variable == "time" else float(getattr(schedule, variable)(t))


# -------------------- weights


@schedules
@variables
@predictions
def test_weights_are_the_integrals_of_the_paper(schedule: NoiseSchedule, variable: Any, prediction: Any) -> None:
    """In t, as the paper writes them: ∫ Ψ(t, τ) g²/(2σ) l_j dτ; for data prediction with σ_t/σ_τ and -α g²/(2σ²)."""
    s, t = 0.3 * schedule.t_max, 0.285 * schedule.t_max
    nodes = [s, 0.37 * schedule.t_max, 0.5 * schedule.t_max]
    weights = adams_weights(schedule, s, t, nodes, variable=variable, prediction=prediction)
    # A discrete schedule is smooth between its levels only; quad is told of them.
    kinks = [n / 1000 for n in range(1, 1000) if t < n / 1000 < s] if isinstance(schedule, DiscreteVP) else []
    edges = [s, *reversed(kinks), t]
    for j, node in enumerate(nodes):

        def integrand(tau: float, j: int = j, node: float = node) -> float:
            u, own = position(schedule, tau, variable), position(schedule, node, variable)
            basis = 1.0
            for k, other in enumerate(nodes):
                if k != j:
                    basis *= (u - position(schedule, other, variable)) / (own - position(schedule, other, variable))
            alpha, sigma, g2 = (float(f(tau)) for f in (schedule.alpha, schedule.sigma, schedule.diffusion_squared))
            if prediction == "noise":
                return float(schedule.alpha(t)) / alpha * g2 / (2 * sigma) * basis
            return -float(schedule.sigma(t)) / sigma * alpha * g2 / (2 * sigma**2) * basis

        expected = sum(quad(integrand, a, b, epsabs=1e-13, epsrel=1e-13)[0] for a, b in pairwise(edges))
        assert weights[j] == pytest.approx(expected, rel=1e-10, abs=1e-12)


@given(
    name=st.sampled_from(list(SCHEDULES)),
    variable=st.sampled_from(VARIABLES),
    prediction=st.sampled_from(["noise", "data"]),
    cuts=st.lists(st.floats(0.02, 0.98), min_size=3, max_size=5, unique_by=lambda cut: round(cut, 2)),
    rising=st.booleans(),
)
def test_weights_sum_to_that_of_ddim(
    name: str, variable: Any, prediction: Any, cuts: list[float], rising: bool
) -> None:
    schedule = SCHEDULES[name]()
    # Between times of similar noise: the sum cancels where weights are large.
    times = [schedule.t_max * cut for cut in sorted(cuts, reverse=not rising)]
    *past, s, t = times
    weights = adams_weights(schedule, s, t, [s, *reversed(past)], variable=variable, prediction=prediction)
    (alone,) = adams_weights(schedule, s, t, [s], variable=variable, prediction=prediction)
    # Rounding of the terms, and of a few hundred Gauss points.
    assert sum(weights) == pytest.approx(alone, abs=1e-12 * max(1.0, *map(abs, weights), abs(alone)))


def test_on_equal_steps_in_rho_the_weights_are_adams_and_bashforths() -> None:
    levels = [3.0, 2.5, 2.0, 1.5, 1.0]
    nodes = [SCHEDULE.time(-math.log(level)) for level in levels]
    weights = adams_weights(SCHEDULE, nodes[3], nodes[4], nodes[3::-1], variable="rho")
    expected = [SCHEDULE.alpha(nodes[4]) * -0.5 * c / 24 for c in (55, -59, 37, -9)]
    assert weights == pytest.approx(expected, rel=1e-12)


@variables
def test_few_gauss_points_are_not_enough_and_many_add_nothing(variable: Any) -> None:
    nodes = UNEVEN[2::-1]
    exact = adams_weights(SCHEDULE, UNEVEN[2], UNEVEN[3], nodes, variable=variable, points=100)
    off = {
        points: max(
            abs(a - b)
            for a, b in zip(
                adams_weights(SCHEDULE, UNEVEN[2], UNEVEN[3], nodes, variable=variable, points=points),
                exact,
                strict=True,
            )
        )
        for points in (2, 8, 32)
    }
    assert off[2] > 1e-4
    assert off[8] < 1e-6
    assert off[32] < 1e-13


def test_kept_weights_are_those_of_their_own_step() -> None:
    """The same nodes, other ends; then the same ends, and a schedule that can't be hashed and changes."""

    class Changing(VPLinear):
        """Unhashable."""

        __hash__ = None  # type: ignore[assignment]

    nodes = [0.6, 0.7, 0.8]
    for s, t in ((0.6, 0.5), (0.55, 0.5), (0.6, 0.45)):
        step = exponential_step(SCHEDULE, s, t, "noise")
        assert sum(adams_weights(SCHEDULE, s, t, nodes, variable="time")) == pytest.approx(step.first, rel=1e-12)
    schedule = Changing()
    for beta_max in (20.0, 10.0):
        object.__setattr__(schedule, "beta_max", beta_max)
        expected = adams_weights(VPLinear(beta_max=beta_max), 0.6, 0.5, nodes, variable="time")
        assert adams_weights(schedule, 0.6, 0.5, nodes, variable="time") == pytest.approx(expected, rel=1e-12)


@predictions
def test_a_step_over_levels_is_the_steps_between_them(prediction: Any) -> None:
    """C(s, t) = ratio(m, t) C(s, m) + C(m, t), down to the first level, below which log α has another slope."""
    schedule = SCHEDULES["ddpm"]()
    size = schedule.alpha if prediction == "noise" else schedule.sigma
    nodes, edges = [0.0025, 0.0034, 0.0051], [0.0025, 0.002, 0.001, 0.0004]
    options: dict[str, Any] = {"variable": "time", "prediction": prediction}
    total = [0.0, 0.0, 0.0]
    for s, t in pairwise(edges):
        part = adams_weights(schedule, s, t, nodes, **options)
        total = [float(size(t)) / float(size(s)) * a + b for a, b in zip(total, part, strict=True)]
    assert adams_weights(schedule, edges[0], edges[-1], nodes, **options) == pytest.approx(total, rel=1e-10)


def test_weights_for_times_of_which_some_are_shared() -> None:
    rows = adams_weights(SCHEDULE, 0.5, 0.4, [0.5, torch.tensor([[0.6], [0.7]], dtype=torch.float64)], variable="time")
    for i, node in enumerate((0.6, 0.7)):
        alone = adams_weights(SCHEDULE, 0.5, 0.4, [0.5, node], variable="time")
        assert [float(row[i]) for row in rows] == pytest.approx(alone, rel=1e-12)


# -------------------- members of the family


@variables
@predictions
@pytest.mark.parametrize("kind", ["half_log_snr", "quadratic"])
def test_degree_zero_is_ddim(variable: Any, prediction: Any, kind: str) -> None:
    grid = time_grid(SCHEDULE, 8, kind)
    table = trace(deis, SCHEDULE, grid, degree=0, variable=variable, prediction=prediction)
    assert table.distance(trace(ddim, SCHEDULE, grid)) < 1e-14
    assert table.distance(trace(singlestep, SCHEDULE, grid, order=1)) < 1e-14


@predictions
@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("kind", ["half_log_snr", "quadratic"])
@pytest.mark.parametrize("ending", ["full", "lower"])
def test_a_polynomial_in_half_log_snr_is_the_taylor_multistep_method(
    prediction: Any, degree: int, kind: str, ending: Any
) -> None:
    grid = time_grid(SCHEDULE, 7, kind)
    ours = trace(deis, SCHEDULE, grid, degree=degree, variable="half_log_snr", prediction=prediction, ending=ending)
    options = {"prediction": prediction, "variant": "taylor", "ending": ending}
    assert ours.distance(trace(multistep, SCHEDULE, grid, order=degree + 1, **options)) < 1e-12


@pytest.mark.parametrize(("schedule", "variable"), [(EDM(), "rho"), (VE(), "half_log_snr")])
def test_time_is_the_variable_that_it_is_linear_in(schedule: NoiseSchedule, variable: str) -> None:
    grid = time_grid(schedule, 7, "rho", end=1e-2)
    for warmup in ("lower", "rk"):
        ours = trace(deis, schedule, grid, warmup=warmup)
        assert ours.distance(trace(deis, schedule, grid, variable=variable, warmup=warmup)) < 1e-12


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_first_steps_are_runge_kuttas(degree: int) -> None:
    method, calls = {1: ("heun", 2), 2: ("kutta3", 3), 3: ("rk4", 4)}[degree]
    table = trace(deis, SCHEDULE, UNEVEN, degree=degree, warmup="rk")
    assert len(table.times) == 5 + degree**2
    reference = trace(runge_kutta, SCHEDULE, UNEVEN[: degree + 1], method=method, variable="rho")
    assert table.times[: degree * calls] == pytest.approx(reference.times, abs=1e-13)
    # The row of the first multistep step is where Runge and Kutta's last one ended.
    size = 1 + degree * calls
    torch.testing.assert_close(
        torch.tensor(table.weights[degree * calls, :size]), torch.tensor(reference.weights[-1]), rtol=1e-12, atol=1e-12
    )


@variables
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_point_masses_are_sampled_exactly(variable: Any, degree: int) -> None:
    bed = gauss(0.0)
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(4)
    exact = gaussian_flow(bed.mixture.means[0], 0.0, bed.schedule, x, 1.0, bed.end)
    for warmup in ("lower", "rk"):
        y = deis(denoiser, x, time_grid(SCHEDULE, 6, "quadratic"), degree=degree, variable=variable, warmup=warmup)
        assert float((y - exact).abs().max()) < 1e-10


class Power:
    """Prediction u^power of a variable, whatever the state."""

    def __init__(self, schedule: NoiseSchedule, variable: str, power: int) -> None:
        self.schedule, self.variable, self.power = schedule, variable, power

    def noise(self, x: Any, t: Any) -> Any:
        return torch.full_like(x, position(self.schedule, t, self.variable) ** self.power)

    data = noise


@variables
@predictions
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_step_is_exact_for_polynomials_of_its_degree_and_no_more(variable: Any, prediction: Any, degree: int) -> None:
    x, grid = torch.ones(1, 1, dtype=torch.float64), [0.5, 0.45, 0.4, 0.3, 0.2, 0.05]
    alpha, sigma = SCHEDULE.alpha(grid[5]), SCHEDULE.sigma(grid[5])
    for power in range(degree + 2):
        model = Power(SCHEDULE, variable, power)
        options = {"degree": degree, "variable": variable, "prediction": prediction}
        states = [state for _, state in deis.iterate(model, x, grid, **options)]  # type: ignore[arg-type]
        ends = [SCHEDULE.half_log_snr(t) for t in grid[4:]]

        def integrand(lam: float, model: Power = model) -> float:
            value = position(SCHEDULE, SCHEDULE.time(lam), model.variable) ** model.power
            return -alpha * math.exp(-lam) * value if prediction == "noise" else sigma * math.exp(lam) * value

        ratio = alpha / SCHEDULE.alpha(grid[4]) if prediction == "noise" else sigma / SCHEDULE.sigma(grid[4])
        expected = ratio * float(states[3]) + quad(integrand, *ends, epsabs=1e-13)[0]
        off = abs(float(states[4]) - expected)
        assert off < 1e-10 if power <= degree else off > 1e-6


def test_the_schedule_does_not_matter_unless_the_polynomial_is_in_time() -> None:
    levels = [-4.0 + 8.0 * i / 12 for i in range(13)]
    mixture, y = ring2d().mixture, ring2d().initial(4) * math.exp(4.0)

    def result(schedule: NoiseSchedule, **options: Any) -> Any:
        times = [schedule.time(level) for level in levels]
        state = deis(mixture.denoiser(schedule), y * schedule.alpha(times[0]), times, **options)
        return state / schedule.alpha(times[-1])

    for variable in VARIABLES:
        one, two, three = (result(schedule, variable=variable) for schedule in (VPLinear(), VPCosine(), EDM(1000.0)))
        same = max(float((one - other).abs().max()) for other in (two, three))
        assert same > 1e-3 if variable == "time" else same < 1e-10


# -------------------- samplers


def _row(name: str, order: int, n: tuple[int, ...] = (160, 320, 640), sampler: Any = deis, **options: Any) -> Row:
    return Row(name, sampler, order, options, n, "quadratic")


ROWS = [
    *(
        _row(f"{variable} {degree}", degree + 1, degree=degree, variable=variable, warmup="rk")
        for variable in VARIABLES
        for degree in (1, 2, 3)
    ),
    _row("data", 4, prediction="data", variable="half_log_snr", warmup="rk"),
    # One step of first order at either end has the error h²: two steps of degree 0 and 1 begin, or end, the whole.
    _row("lower start", 2, (1280, 2560)),
    _row("lower ending", 2, (640, 1280), degree=2, warmup="rk", ending="lower"),
    _row("frozen score", 1, sampler=frozen_score),
]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_order(row: Row) -> None:
    assert row.order - 0.25 <= measure(row).order <= row.order + 0.6


def test_one_evaluation_a_step() -> None:
    bed = ring2d()
    grid = time_grid(bed.schedule, 6, "quadratic", end=bed.end)
    for warmup, degree, count in (("lower", 3, 6), ("rk", 1, 7), ("rk", 2, 10), ("rk", 3, 15)):
        denoiser = bed.mixture.denoiser(bed.schedule)
        deis(denoiser, bed.initial(2), grid, degree=degree, warmup=warmup)
        assert denoiser.evaluations == count


@pytest.mark.parametrize("schedule", [VPLinear(), SCHEDULES["ddpm"](), EDM()], ids=["vp", "discrete", "edm"])
@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (deis, {}),
        (deis, {"degree": 2, "variable": "rho", "prediction": "data", "warmup": "rk"}),
        (deis, {"degree": 1, "variable": "half_log_snr"}),
        (frozen_score, {}),
    ],
    ids=["tab", "rho-ab, rk", "lambda-ab", "frozen"],
)
def test_times_for_each_sample_equal_shared_times(
    sampler: Any, options: dict[str, Any], schedule: NoiseSchedule
) -> None:
    bed = ring2d(schedule=schedule)
    denoiser, x = bed.mixture.denoiser(schedule), bed.initial(3) * float(schedule.sigma(schedule.t_max))
    kinds = ("time", "rho", "half_log_snr")
    grids = [
        time_grid(schedule, 5, kind, start=schedule.t_max * (1 - 0.1 * i), end=0.02) for i, kind in enumerate(kinds)
    ]
    rows = sampler(denoiser, x, torch.tensor(grids, dtype=torch.float64), **options)
    single = [sampler(denoiser, x[i : i + 1], grids[i], **options) for i in range(3)]
    torch.testing.assert_close(rows, torch.cat(single), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"variable": "rho", "warmup": "rk"}, {"prediction": "data"}])
def test_batches_dtypes_and_steps(options: dict[str, Any]) -> None:
    bed = ring2d()
    mixture, x, grid = bed.mixture.to(torch.float32), bed.initial(4).float(), time_grid(bed.schedule, 5, end=0.02)
    kept = x.clone()
    denoiser = mixture.denoiser(bed.schedule)
    seen = list(deis.iterate(denoiser, x, grid, **options))
    assert [t for t, _ in seen] == grid[1:]
    assert seen[-1][1].dtype == torch.float32  # type: ignore[union-attr]
    torch.testing.assert_close(deis(denoiser, x[1:2], grid, **options), seen[-1][1][1:2])  # type: ignore[index]
    assert torch.equal(x, kept)


@variables
def test_inversion_returns_with_the_methods_order(variable: Any) -> None:
    bed = ring2d()
    denoiser = bed.mixture.denoiser(bed.schedule)
    data = probability_flow(denoiser, bed.initial(8), 1.0, bed.end, tolerance=1e-10).x
    errors = []
    for n in (40, 80):
        grid = time_grid(bed.schedule, n, "quadratic", end=bed.end)
        options = {"degree": 2, "variable": variable, "warmup": "rk"}
        noise = deis.invert(denoiser, data, grid[::-1], **options)
        errors.append(float((deis(denoiser, noise, grid, **options) - data).abs().median()))
    assert errors[1] < 1e-2
    assert errors[0] / errors[1] > 2**2.5


def test_the_last_step_may_lead_to_clean_data() -> None:
    bed = gauss(0.0)
    grid = [*time_grid(SCHEDULE, 6, "quadratic"), 0.0]
    for options in ({"prediction": "noise"}, {"prediction": "data"}):
        y = deis(bed.mixture.denoiser(SCHEDULE), bed.initial(3), grid, ending="lower", **options)
        torch.testing.assert_close(y, bed.mixture.means.expand(3, -1), rtol=0, atol=1e-10)
    with pytest.raises(
        ValueError, match=r"nodes must be one in a step to or from a level without noise or signal, got 4"
    ):
        deis(bed.mixture.denoiser(SCHEDULE), bed.initial(3), grid)


@schedules
def test_frozen_score_is_exact_where_the_score_is_constant(schedule: NoiseSchedule) -> None:
    class Constant:
        """Score -1 everywhere."""

        def __init__(self) -> None:
            self.schedule = schedule

        def noise(self, x: Any, t: Any) -> Any:
            return torch.full_like(x, float(schedule.sigma(t)))

        data = noise

    s, t = 0.6 * schedule.t_max, 0.3 * schedule.t_max
    rho_s, rho_t = float(schedule.rho(s)), float(schedule.rho(t))
    # ∫ σ dρ: α is 1, or 1/sqrt(1 + ρ²), or 1/(1 + ρ).
    integral = {
        "VE": lambda rho: rho**2 / 2,
        "EDM": lambda rho: rho**2 / 2,
        "LinearFlow": lambda rho: rho - math.log1p(rho),
    }.get(type(schedule).__name__, lambda rho: math.sqrt(1 + rho**2))
    x = torch.ones(1, 1, dtype=torch.float64)
    expected = float(schedule.alpha(t)) * (1.0 / float(schedule.alpha(s)) + integral(rho_t) - integral(rho_s))
    assert float(frozen_score(Constant(), x, [s, t])) == pytest.approx(expected, rel=1e-12)


# -------------------- likelihood


@pytest.mark.parametrize("schedule", [VPLinear(), EDM()], ids=["vp", "edm"])
@pytest.mark.parametrize("options", [{}, {"variable": "rho"}, {"variable": "half_log_snr", "prediction": "data"}])
def test_density_of_a_gaussian(schedule: NoiseSchedule, options: dict[str, Any]) -> None:
    bed = gauss(0.3, schedule)
    end = float(schedule.time(4.0))
    alpha, sigma = float(schedule.alpha(end)), float(schedule.sigma(end))
    x = bed.mixture.means * alpha + 0.6 * normal(1, torch.arange(5), (4,), dtype=torch.float64)
    grid = time_grid(schedule, 100, end=end)[::-1]
    found = log_likelihood(
        bed.mixture.denoiser(schedule),
        x,
        grid,
        warmup="rk",
        probes=1,  # exact, since the Jacobian is a multiple of the identity
        prior=lambda y: bed.mixture.log_density(y, float(schedule.alpha(grid[-1])), float(schedule.sigma(grid[-1]))),
        **options,
    )
    exact = bed.mixture.log_density(x, alpha, sigma)
    # What is left is the method's own error, smallest in the variable in which the grid is uniform. A term left out weighs 0.1.
    off = 1e-3 if options.get("variable") == "half_log_snr" else 2e-2
    torch.testing.assert_close(found.log_density, exact, rtol=0, atol=off)
    latent = gaussian_flow(bed.mixture.means[0], 0.3, schedule, x, end, grid[-1])
    torch.testing.assert_close(found.latent, latent, rtol=off, atol=off)
    assert found.evaluations == 109
    bits = found.bits_per_dimension(0.25)
    torch.testing.assert_close(bits, -found.log_density / (4 * math.log(2)) + 2.0)


@pytest.mark.slow
@pytest.mark.parametrize(("degree", "order"), [(1, 2), (3, 4)])
def test_likelihood_converges_with_the_samplers_order(degree: int, order: int) -> None:
    bed = ring2d()
    denoiser = bed.mixture.denoiser(bed.schedule)
    x = probability_flow(denoiser, bed.initial(8), 1.0, bed.end).x
    exact = bed.mixture.log_density(x, bed.schedule.alpha(bed.end), bed.schedule.sigma(bed.end))
    errors = []
    for n in (80, 160):
        grid = time_grid(bed.schedule, n, end=bed.end)[::-1]
        found = log_likelihood(
            denoiser,
            x,
            grid,
            degree=degree,
            variable="half_log_snr",
            warmup="rk",
            prior=lambda y: bed.mixture.log_density(y, bed.schedule.alpha(1.0), bed.schedule.sigma(1.0)),
        )
        errors.append(float((found.log_density - exact).abs().median()))
    assert order - 0.3 < math.log2(errors[0] / errors[1]) < order + 1


def test_likelihood_of_images_with_the_normal_prior() -> None:
    """Any shape; the default prior is N(0, σ_T²); each sample's estimate is its own; more probes come closer."""
    bed = ring2d()
    plane, schedule = bed.mixture.denoiser(bed.schedule), bed.schedule

    def net(x: Tensor, t: Any) -> Tensor:
        return bed.mixture.noise(x.flatten(1), schedule.alpha(t), schedule.sigma(t)).reshape(x.shape)

    pictures = Denoiser(net, schedule, time_input="raw")
    x = 0.5 * normal(2, torch.arange(3), (1, 2, 1), dtype=torch.float64)
    grid = time_grid(bed.schedule, 6, end=bed.end)[::-1]
    images = log_likelihood(pictures, x, grid)
    same = log_likelihood(plane, x.flatten(1), grid)
    torch.testing.assert_close(images.log_density, same.log_density)
    assert images.latent.shape == x.shape
    sigma = bed.schedule.sigma(1.0)
    shifted = log_likelihood(plane, x.flatten(1), grid, prior=lambda y: y.new_zeros(len(y)))
    gauss_log = -0.5 * (same.latent / sigma).square().sum(1) - math.log(2 * math.pi) - 2 * math.log(sigma)
    torch.testing.assert_close(same.log_density - shifted.log_density, gauss_log)
    data = log_likelihood(plane, x.flatten(1), grid, prediction="data", warmup="rk").latent
    torch.testing.assert_close(data, deis.invert(plane, x.flatten(1), grid, prediction="data", warmup="rk"))
    assert float((data - same.latent).abs().max()) > 1e-3
    one, other = (log_likelihood(plane, x.flatten(1), grid, probes=1, seed=seed) for seed in (1, 2))
    assert not torch.allclose(one.log_density, other.log_density)
    alone = log_likelihood(plane, x.flatten(1)[:1], grid, probes=1, seed=1)
    torch.testing.assert_close(alone.log_density, one.log_density[:1])
    many = log_likelihood(plane, x.flatten(1), grid, probes=24, seed=1)
    off = [float((found.log_density - same.log_density).abs().mean()) for found in (one, many)]
    assert off[1] < 0.5 * off[0]
    assert many.evaluations == 24 * 6


def test_without_noise_only_the_volume_changes() -> None:
    """ε = 0: the flow multiplies by α_T/α_s, and the density of three numbers changes by its cube; a prior sees pictures."""
    quiet = Denoiser(lambda x, t: torch.zeros_like(x), SCHEDULE)
    x = normal(3, torch.arange(2), (1, 3, 1), dtype=torch.float64)
    found = log_likelihood(quiet, x, [0.2, 0.6, 1.0], degree=1, prior=lambda y: -y.square().sum((1, 2, 3)))
    ratio = SCHEDULE.alpha(1.0) / SCHEDULE.alpha(0.2)
    torch.testing.assert_close(found.latent, ratio * x)
    torch.testing.assert_close(found.log_density, 3 * math.log(ratio) - (ratio * x).square().sum((1, 2, 3)))


# -------------------- bad input


def _sample(grid: Any = UNEVEN, **options: Any) -> Any:
    bed = ring2d()
    return deis(bed.mixture.denoiser(SCHEDULE), bed.initial(2), grid, **options)


def _likelihood(times: Any = (0.1, 0.5, 1.0), *, x: Any = None, **options: Any) -> Any:
    bed = ring2d()
    samples = bed.initial(2) if x is None else x
    return log_likelihood(bed.mixture.denoiser(SCHEDULE), samples, times, **{"degree": 1, **options})


def _weights(nodes: Any, **options: Any) -> Any:
    return adams_weights(SCHEDULE, 0.5, 0.4, nodes, **{"variable": "rho", **options})


ERRORS: list[tuple[Any, str]] = [
    (lambda: _weights([]), "nodes must hold at least one time"),
    (lambda: _weights([0.5, 0.6], points=0), "points must be an integer, at least 1, got 0"),
    (lambda: _weights([0.5, 0.6], points=True), "points must be an integer, at least 1, got True"),
    (lambda: _weights([0.5, 1.1]), r"s, t and nodes must lie in \[0.0, 1.0\], got 0.5, 0.4 and \[0.5, 1.1\]"),
    (lambda: _weights([-0.1]), r"s, t and nodes must lie in .* and \[-0.1\]"),
    (lambda: _weights([0.5, math.nan]), r"s, t and nodes must lie in .* and \[0.5, nan\]"),
    (lambda: adams_weights(SCHEDULE, math.nan, 0.4, [0.5], variable="rho"), r"s, t and nodes must lie in .* got nan, 0.4"),
    (lambda: adams_weights(SCHEDULE, 0.5, 1.2, [0.5], variable="rho"), r"s, t and nodes must lie in .* got 0.5, 1.2"),
    (lambda: _weights([0.5, 0.0], variable="half_log_snr"), r"nodes must be times at which half_log_snr is finite, got \[0.5, 0.0\]"),
    (lambda: _weights([0.5, 0.5]), r"nodes must be distinct times, got \[0.5, 0.5\]"),
    (lambda: _sample(degree=4), "degree must be 0, 1, 2 or 3, got 4"),
    (lambda: _sample(degree=True), "degree must be 0, 1, 2 or 3, got True"),
    (lambda: frozen_score(ring2d().mixture.denoiser(SCHEDULE), ring2d().initial(2), [1.0, 0.5, 0.0]),
     "times must stop before a level without noise or signal, got a step from 0.5 to 0.0"),
    (lambda: _sample([0.9, 0.5, 0.1]), "times must hold at least 4 steps for a method of order 4, got 2"),
    (lambda: _likelihood([0.5, 0.1]), "times must rise strictly"),
    (lambda: _likelihood(torch.tensor([[0.1, 0.5], [0.1, 0.5]])), r"times must be shared by the batch, got shape \(2, 2\)"),
    (lambda: _likelihood(probes=0), "probes must be at least 1"),
    (lambda: _likelihood(x=torch.zeros(0, 2)), r"x must hold at least one sample of at least one number, got shape \(0, 2\)"),
    (lambda: _likelihood(x=torch.zeros(2, 0)), r"x must hold at least one sample .*, got shape \(2, 0\)"),
    (lambda: _likelihood(prior=lambda y: y[:, :1]), r"prior must return one number for each sample, \(2,\), got shape \(2, 1\)"),
    (lambda: _likelihood(prior=lambda y: y.sum()), r"prior must return one number for each sample, \(2,\), got shape \(\)"),
    (lambda: _likelihood().bits_per_dimension(0.0), "width must be positive and finite, got 0.0"),
    (lambda: _likelihood().bits_per_dimension(math.nan), "width must be positive and finite, got nan"),
]  # fmt: skip
CHOICES: list[tuple[Any, str]] = [
    (lambda: _weights([0.5], variable="t"), "variable must be 'time', 'rho' or 'half_log_snr', got 't'"),
    (lambda: _weights([0.5], prediction="x0"), "prediction must be 'noise' or 'data', got 'x0'"),
    (lambda: _sample(variable="sigma"), "variable must be .* got 'sigma'"),
    (lambda: _sample(prediction="score"), "prediction must be 'noise' or 'data', got 'score'"),
    (lambda: _sample(warmup="none"), "warmup must be 'lower' or 'rk', got 'none'"),
    (lambda: _sample(ending="soft"), "ending must be .* got 'soft'"),
    (lambda: _sample(degree="3"), "degree must be 0, 1, 2 or 3, got '3'"),
    (lambda: _sample(degree=2.0), "degree must be 0, 1, 2 or 3, got 2.0"),
    (lambda: _weights([0.5, 0.6], points="8"), "points must be an integer, at least 1, got '8'"),
]


@pytest.mark.parametrize(("build", "words"), ERRORS, ids=[words for _, words in ERRORS])
def test_bad_input(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def check_choices() -> None:
    for build, words in CHOICES:
        with pytest.raises(ValueError, match=words):
            build()


def test_bad_choices() -> None:
    """In a process without the run-time check of types, which refuses these words before the library does."""
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", "from diffusion.test_deis import check_choices; check_choices()"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": tests}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

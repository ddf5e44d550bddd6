"""DPM-Solver-v3: equal to known methods in the limits, exact where it should be, of the order that theory gives."""

import math
import subprocess
import sys
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.orders import Row, measure
from diffusion.test_model_statistics import GAUSSIAN, MEAN, SCHEDULE, VARIANCE, points, smooth
from pdebook import weights
from pdebook.diffusion import dpm_solver_v3 as module
from pdebook.diffusion.affine import Affine, trace
from pdebook.diffusion.arena import problems
from pdebook.diffusion.baselines import ddim
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.dpm_solver_v3 import Statistics, dpm_solver_v3, shipped
from pdebook.diffusion.exact import gaussian_flow
from pdebook.diffusion.multistep import multistep
from pdebook.diffusion.sampling import exponential_step
from pdebook.diffusion.schedules import VPCosine, time_grid
from pdebook.diffusion.testbeds import ring2d
from pdebook.rng import normal

END = 1e-2
GRID = time_grid(SCHEDULE, 12, end=END)


def short(steps: int) -> list[float]:
    return time_grid(SCHEDULE, steps, end=END)


def plain(statistics: Statistics, order: int, **options: Any) -> dict[str, Any]:
    """The predictor alone, its order kept to the end."""
    return {"statistics": statistics, "order": order, "corrector": "none", "ending": "full", **options}


@cache
def degenerate(prediction: str, intervals: int = 960) -> Statistics:
    return Statistics.degenerate(prediction, SCHEDULE, intervals=intervals, end=END)


@cache
def ring_statistics() -> Statistics:
    bed = ring2d()
    data = points(bed.mixture, 128)
    return Statistics.estimate(bed.mixture.denoiser(SCHEDULE), data, intervals=40, end=bed.end, probes=None).refined(
        1920
    )


# -------------------- limits


@pytest.mark.parametrize("prediction", ["noise", "data"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_degenerate_statistics_give_the_taylor_multistep_methods(prediction: str, order: int) -> None:
    """The weights are those of the closed integrals, up to the trapezoidal rule: error N^-2."""
    expected = trace(multistep, SCHEDULE, GRID, order=order, prediction=prediction, variant="taylor", ending="full")
    off = [
        trace(dpm_solver_v3, SCHEDULE, GRID, **plain(degenerate(prediction, n), order)).distance(expected)
        for n in (240, 480, 960)
    ]
    assert off[-1] < 1e-4
    assert all(3.9 < a / b < 4.1 for a, b in pairwise(off))


def test_the_corrector_by_hand() -> None:
    """Two steps, order 1, data prediction: the corrected x_1 weighs the first difference by the φ_2 weight of its step."""
    table = trace(dpm_solver_v3, SCHEDULE, GRID[:3], statistics=degenerate("data"), order=1, ending="full")
    step = exponential_step(SCHEDULE, GRID[0], GRID[1], "data")
    alpha, sigma = SCHEDULE.alpha(GRID[0]), SCHEDULE.sigma(GRID[0])
    # The corrected x_1 = ratio x_0 + (w_1 - w_2) m_0 + w_2 m_1 goes into x_2 = ratio' x_1 + w_1' m_1.
    second = exponential_step(SCHEDULE, GRID[1], GRID[2], "data")
    m0 = {"x": 1.0 / alpha, "e0": -sigma / alpha}
    first = {"x": step.ratio + step.weight(1) * m0["x"], "e0": step.weight(1) * m0["e0"]}
    alpha, sigma = SCHEDULE.alpha(GRID[1]), SCHEDULE.sigma(GRID[1])
    m1 = {"x": first["x"] / alpha, "e0": first["e0"] / alpha, "e1": -sigma / alpha}
    w1, w2 = step.weight(1) - step.weight(2), step.weight(2)
    expected = []
    for name in table.symbols:
        corrected = (name == "x") * step.ratio + w1 * m0.get(name, 0.0) + w2 * m1.get(name, 0.0)
        expected.append(second.ratio * corrected + second.weight(1) * m1.get(name, 0.0))
    assert table.weights[-1] == pytest.approx(expected, rel=2e-4)


def test_one_step_is_exact_for_gaussians() -> None:
    """Up to l' by a spline and the trapezoidal rule; DDIM's single step errs by half of the data."""
    denoiser, data = GAUSSIAN.denoiser(SCHEDULE), points(GAUSSIAN, 3)
    x = normal(0, torch.arange(32), (4,), dtype=torch.float64)
    exact = gaussian_flow(MEAN[0], VARIANCE[0], SCHEDULE, x, 1.0, 1e-3)
    errors = []
    for intervals in (30, 60):
        statistics = Statistics.estimate(denoiser, data, intervals=intervals)
        errors.append(
            float((dpm_solver_v3(denoiser, x, [1.0, 1e-3], statistics=statistics, order=1) - exact).abs().max())
        )
    assert errors[1] < 2e-4
    assert errors[0] > 3.0 * errors[1]
    assert float((ddim(denoiser, x, [1.0, 1e-3]) - exact).abs().max()) > 0.5


# -------------------- orders


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "options"),
    [
        (1, {"order": 1, "corrector": "none"}),
        (2, {"order": 2, "corrector": "none"}),
        (3, {"order": 3, "corrector": "none"}),
        (2, {"order": 3, "corrector": "none", "pseudo_predictor": True}),
        (2, {"order": 1, "corrector": "pseudo"}),
        (2, {"order": 2, "corrector": "pseudo"}),
        (3, {"order": 3, "corrector": "true"}),
        (2, {"order": 2, "corrector": "true"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("estimated", [True, False])
def test_order(order: int, options: dict[str, Any], estimated: bool) -> None:
    """The formula is exact for any smooth l, s, b: made-up ones give the same order."""
    statistics = ring_statistics() if estimated else smooth(1920, (2,))
    row = Row("v3", dpm_solver_v3, order, {"ending": "full", "statistics": statistics, **options}, n=(60, 120, 240))
    assert order - 0.25 <= measure(row).order <= order + 0.6


# -------------------- the algorithm


@pytest.mark.parametrize("corrector", ["none", "true", "pseudo"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_step_costs_one_evaluation_and_the_tableau_tells_all(order: int, corrector: str) -> None:
    bed, statistics = ring2d(), smooth(120, (2,))
    denoiser, x = bed.mixture.denoiser(SCHEDULE), bed.initial(4)
    options = {"statistics": statistics, "order": order, "corrector": corrector}
    y = dpm_solver_v3(denoiser, x, GRID, **options)
    assert denoiser.evaluations == 12
    table = trace(dpm_solver_v3, SCHEDULE, GRID, **options)
    assert table.weights.shape == (13, 14, 2)
    torch.testing.assert_close(table.run(denoiser, x, {"one": torch.ones(())}), y, rtol=0, atol=1e-11)


def test_the_corrector_acts_where_it_is_told() -> None:
    statistics = smooth(120, (2,))
    table = {
        interval: trace(dpm_solver_v3, SCHEDULE, GRID, statistics=statistics, order=2, corrector_interval=interval)
        for interval in ((-math.inf, math.inf), (0.5, 1.0), (0.0, 0.5), (2.0, 3.0))
    }
    none = trace(dpm_solver_v3, SCHEDULE, GRID, statistics=statistics, order=2, corrector="none")
    assert table[2.0, 3.0].distance(none) == 0
    assert min(table[key].distance(none) for key in ((0.5, 1.0), (0.0, 0.5))) > 1e-3
    assert table[0.5, 1.0].distance(table[0.0, 0.5]) > 1e-3
    # A point depends on the corrections before it: at first nothing is corrected below 0.5.
    first = sum(t > 0.5 for t in GRID)
    assert abs(table[0.0, 0.5].weights[: first + 1] - none.weights[: first + 1]).max() == 0
    assert abs(table[0.5, 1.0].weights[2] - none.weights[2]).max() > 1e-6


def test_endings_and_the_pseudo_predictor() -> None:
    statistics = smooth(120, (2,))
    full, lower, auto, ramp = (
        trace(dpm_solver_v3, SCHEDULE, short(8), statistics=statistics, order=3, **options)
        for options in ({"ending": "full"}, {"ending": "lower"}, {"ending": "auto"}, {"pseudo_predictor": True})
    )
    assert auto.distance(lower) == 0
    assert full.distance(lower) > 1e-4
    assert ramp.distance(lower) > 1e-4
    # With two values both estimates are the same.
    second = [
        trace(dpm_solver_v3, SCHEDULE, short(8), statistics=statistics, order=2, pseudo_predictor=flag)
        for flag in (False, True)
    ]
    assert second[0].distance(second[1]) < 1e-14


def test_times_snap_to_the_grid() -> None:
    bed, statistics = ring2d(), smooth(40, (2,))
    denoiser, x = bed.mixture.denoiser(SCHEDULE), bed.initial(4)
    asked = short(7)  # 40/7 is no integer
    times = [t for t, _ in dpm_solver_v3.iterate(denoiser, x, asked, statistics=statistics)]
    levels, snapped = statistics.snap(SCHEDULE, list(asked))
    assert times == snapped[1:]
    assert levels == [0, 6, 11, 17, 23, 29, 34, 40]
    assert (snapped[0], snapped[-1]) == (asked[0], asked[-1])
    for level, t, wanted in zip(levels, snapped, asked, strict=True):
        lam = SCHEDULE.half_log_snr(t)
        assert lam == pytest.approx(float(statistics.half_log_snr[level]), abs=1e-9)
        assert abs(lam - SCHEDULE.half_log_snr(wanted)) <= 0.5 * statistics.spacing + 1e-9
    assert statistics.snap(SCHEDULE, list(short(8)))[1] == short(8)


def test_inversion_runs_the_same_formulas_upwards() -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(SCHEDULE), points(bed.mixture, 4)
    rising = short(40)[::-1]
    options = {"order": 2, "ending": "full"}
    up = dpm_solver_v3.invert(denoiser, x, rising, statistics=degenerate("data"), corrector="none", **options)
    torch.testing.assert_close(
        up, multistep.invert(denoiser, x, rising, variant="taylor", **options), rtol=0, atol=1e-4
    )


def test_one_coefficient_for_all_dimensions_and_images() -> None:
    """Statistics without dimensions fit any sample; those of images need samples of that shape."""
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(SCHEDULE), bed.initial(4)
    one = smooth(120, ())
    per = Statistics(one.half_log_snr, *(v[:, None].expand(-1, 2) for v in (one.l, one.s, one.b)), one.schedule)
    a, b = (dpm_solver_v3(denoiser, x, GRID, statistics=statistics, order=3) for statistics in (one, per))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)

    def net(x: Tensor, t: float) -> Tensor:
        return denoiser.noise(x.flatten(1), t).reshape(x.shape)

    images = Denoiser(net, SCHEDULE, time_input="raw")
    image = Statistics(per.half_log_snr, *(v.reshape(-1, 1, 2, 1) for v in (per.l, per.s, per.b)), per.schedule)
    c = dpm_solver_v3(images, x.reshape(4, 1, 2, 1), GRID, statistics=image, order=3)
    torch.testing.assert_close(c.flatten(1), b, rtol=0, atol=1e-12)


def test_single_precision_and_devices(device: torch.device) -> None:
    """f is formed from the data prediction, so that nothing cancels where nearly all is noise."""
    denoiser, _, end = problems(device, torch.float64)["digits_gm"]
    single, _, _ = problems(device, torch.float32)["digits_gm"]
    x = normal(0, torch.arange(8), (64,), dtype=torch.float64, device=device)
    statistics, grid = shipped("digits_gm"), time_grid(denoiser.schedule, 10, end=end)
    y = dpm_solver_v3(denoiser, x, grid, statistics=statistics)
    z = dpm_solver_v3(single, x.float(), grid, statistics=statistics)
    assert z.dtype == torch.float32
    assert float((y - z).abs().max()) < 1e-4


# -------------------- what can't be used


@pytest.mark.parametrize(
    ("times", "options", "words"),
    [
        (GRID, {"order": 0}, "order must be at least 1, got 0"),
        (GRID, {"order": 13}, "times must hold at least 13 steps"),
        (time_grid(SCHEDULE, 130, end=END), {}, "two of 131 snap to one level .* of 120 intervals"),
        (time_grid(SCHEDULE, 4, end=1e-3), {}, "times must begin and end on the statistics' grid .* got 0.001"),
        (time_grid(SCHEDULE, 4, start=0.99, end=END), {}, r"begin and end on the .*from time 1 to 0.01.* got 0.99"),
        ([1.0, 0.001, 0.0005], {}, "and stay in it; got 0.001"),
        ([1.0, 0.5, 0.0], {}, "times must begin and end on the statistics' grid .* got 0$"),
        ([1.0, 0.5, 0.4999, END], {}, "times must be further apart: two of 4 snap to one level"),
        (torch.tensor([GRID, GRID, GRID, GRID]), {}, "times must be shared by the batch"),
    ],
)
def test_bad_calls(times: Any, options: dict[str, Any], words: str) -> None:
    bed = ring2d()
    with pytest.raises(ValueError, match=words):
        dpm_solver_v3(bed.mixture.denoiser(SCHEDULE), bed.initial(4), times, statistics=smooth(120, (2,)), **options)


def test_unknown_choices() -> None:
    """As users meet them, without this suite's check of types, which would answer first."""
    code = """
import torch
from pdebook.diffusion.dpm_solver_v3 import Statistics, dpm_solver_v3
from pdebook.diffusion.testbeds import ring2d
bed = ring2d()
known = Statistics.degenerate("data", bed.schedule, intervals=4, end=0.01)
for options in ({"corrector": "half"}, {"ending": "never"}):
    try:
        dpm_solver_v3(bed.mixture.denoiser(bed.schedule), bed.initial(2), [1.0, 0.01], statistics=known, order=1, **options)
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "corrector must be 'none', 'true' or 'pseudo', got 'half'",
        "ending must be 'full', 'lower' or 'auto', got 'never'",
    ]


def test_statistics_of_something_else() -> None:
    bed = ring2d()
    x = bed.initial(4)
    with pytest.raises(ValueError, match=r"statistics are of samples of shape \(3,\), x has samples of \(2,\)"):
        dpm_solver_v3(bed.mixture.denoiser(SCHEDULE), x, GRID, statistics=smooth(120, (3,)))
    other = VPCosine()
    with pytest.raises(ValueError, match="statistics are of another noise schedule"):
        dpm_solver_v3(bed.mixture.denoiser(other), x, time_grid(other, 12, end=END), statistics=smooth(120, (2,)))


# -------------------- shipped statistics


@pytest.mark.parametrize("problem", ["digits_gm", "digits_net"])
def test_shipped_statistics_fit_their_problem_alone(problem: str) -> None:
    known = shipped(problem)
    assert known is not None
    assert (known.intervals, known.dims) == (120, (64,))
    every = problems()
    denoiser, schedule, _ = every[problem]
    known.check(schedule, Affine())
    known.check_model(denoiser)
    other = every["digits_net" if problem == "digits_gm" else "digits_gm"][0]
    with pytest.raises(ValueError, match="another model"):
        known.check_model(other)
    assert known.errors is not None
    metrics = weights.card(f"dpm_solver_v3_{problem}")["metrics"]
    assert float(known.errors[0].mean()) == pytest.approx(metrics["mean_standard_error_l"], rel=1e-5)


def test_no_statistics_of_other_problems() -> None:
    assert shipped("ring2d") is None
    assert shipped("digits_net, quality") is None


def test_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small: each is a function of its seed, and what it makes can be read."""
    monkeypatch.setattr(module, "POINTS", 6)
    monkeypatch.setattr(module, "INTERVALS", 2)
    seeds, estimate = [], Statistics.estimate

    def watched(*args: Any, **options: Any) -> Statistics:
        seeds.append(options["seed"])
        return estimate(*args, **options)

    monkeypatch.setattr(Statistics, "estimate", staticmethod(watched))
    for maker in (module.make_mixture_statistics, module.make_network_statistics):
        made, again, other = maker(0), maker(0), maker(1)
        statistics = Statistics.from_tensors(made.tensors)
        assert (statistics.intervals, statistics.dims) == (2, (64,))
        assert float(statistics.schedule[0, -1]) == pytest.approx(1e-3)
        assert made.tensors["l"].dtype == torch.float32
        assert all(torch.equal(made.tensors[name], again.tensors[name]) for name in made.tensors)
        assert not torch.equal(made.tensors["l"], other.tensors["l"])
        expected = {
            f"mean_standard_error_{name}": float(made.tensors["errors"][k].mean()) for k, name in enumerate("lsb")
        }
        assert made.metrics == pytest.approx(expected, rel=1e-5)
    assert seeds == [0, 0, 1] * 2


def test_points_are_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = module.digit_points(20, seed=3)
    assert digits.shape == (20, 64)
    assert len(digits.unique(dim=0)) == 20
    assert not torch.equal(digits, module.digit_points(20, seed=4))
    samples = module.mixture_points(4000)
    # The mixture has the digits' mean and covariance; 4000 samples of standard deviation 1/2.
    assert float((samples.mean(0) - module.digits(dtype=torch.float64)[0].flatten(1).mean(0)).abs().max()) < 0.05
    # Components and noise both are functions of the seed.
    seeds = []
    for name in ("uniform", "normal"):
        draw = getattr(module, name)
        monkeypatch.setattr(module, name, lambda seed, *a, draw=draw, **k: (seeds.append(seed), draw(seed, *a, **k))[1])
    for seed in (0, 1):
        module.mixture_points(3, seed)
    assert len(set(seeds)) == 4


def test_fewer_calls_than_ddim_needs() -> None:
    """The gain of the first order member over DDIM, which it would be with other statistics."""
    denoiser, schedule, end = problems()["digits_gm"]
    x = normal(1, torch.arange(32), (64,), dtype=torch.float64)
    exact = multistep(denoiser, x, time_grid(schedule, 120, end=end), order=3, variant="taylor")
    grid = time_grid(schedule, 10, end=end)

    def error(y: Tensor) -> float:
        return float((y - exact).square().mean(1).sqrt().median())

    first = error(dpm_solver_v3(denoiser, x, grid, statistics=shipped("digits_gm"), order=1, corrector="none"))
    assert first < 0.7 * error(ddim(denoiser, x, grid))

"""DPM-Solver and its relatives: exactness, invariance under the schedule, the fast recipe, adaptive steps."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from pdebook.diffusion.baselines import runge_kutta
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.dpm_solver import AdaptiveSolution, adaptive, dpm_step, fast_orders, singlestep
from pdebook.diffusion.exact import gaussian_flow
from pdebook.diffusion.multistep import multistep
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.sampling import DivergenceError, Sampler
from pdebook.diffusion.schedules import EDM, VPCosine, VPLinear, time_grid
from pdebook.diffusion.testbeds import gauss, ring2d
from pdebook.diffusion.unipc import unipc


@pytest.mark.parametrize(
    ("sampler", "steps", "options"),
    [
        (singlestep, 8, {"order": 1}),
        (singlestep, 4, {"order": 2}),
        (singlestep, 4, {"order": 2, "prediction": "data", "variant": "taylor"}),
        (singlestep, 3, {"order": [3, 3, 2]}),
        (singlestep, 3, {"order": [3, 3, 2], "prediction": "data", "variant": "taylor"}),
        (multistep, 8, {"order": 2}),
        (multistep, 8, {"order": 3}),
        (unipc, 8, {"order": 2}),
        (unipc, 8, {"order": 3}),
    ],
)
def test_point_masses_are_sampled_exactly_with_eight_evaluations(
    sampler: Sampler, steps: int, options: dict[str, Any]
) -> None:
    bed = gauss(0.0)
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(16)
    exact = gaussian_flow(bed.mixture.means[0], 0.0, bed.schedule, x, 1.0, bed.end)
    y = sampler(denoiser, x, time_grid(bed.schedule, steps, end=bed.end), **options)
    assert denoiser.evaluations == 8
    assert float((y - exact).abs().max()) < 1e-10


@pytest.mark.parametrize("variable", ["time", "half_log_snr"])
def test_euler_is_not_exact_on_point_masses(variable: str) -> None:
    bed = gauss(0.0)
    x = bed.initial(16)
    exact = gaussian_flow(bed.mixture.means[0], 0.0, bed.schedule, x, 1.0, bed.end)
    grid = time_grid(bed.schedule, 8, end=bed.end)
    y = runge_kutta(bed.mixture.denoiser(bed.schedule), x, grid, method="euler", variable=variable)
    assert float((y - exact).abs().max()) > 1e-3


def test_the_schedule_does_not_matter() -> None:
    """The same 12 steps in λ with three schedules: x/α agrees to rounding, and Runge-Kutta in λ does not."""
    mixture, y = ring2d().mixture, ring2d().initial(16) * math.exp(4.0)
    levels = [-4.0 + 8.0 * i / 12 for i in range(13)]

    def results(sampler: Sampler, **options: Any) -> list[Tensor]:
        found = []
        for schedule in (VPLinear(), VPCosine(), EDM(1000.0)):
            times = [schedule.time(level) for level in levels]
            state = sampler(mixture.denoiser(schedule), y * schedule.alpha(times[0]), times, **options)
            found.append(state / schedule.alpha(times[-1]))
        return found

    for sampler, options in ((singlestep, {"order": 3}), (multistep, {"order": 2}), (unipc, {"order": 2})):
        one, two, three = results(sampler, **options)
        assert float((one - two).abs().max()) < 1e-10
        assert float((one - three).abs().max()) < 1e-10
    one, _, three = results(runge_kutta, method="heun3", variable="half_log_snr")
    assert float((one - three).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("budget", "orders"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (4, [3, 1]), (5, [3, 2]), (6, [3, 2, 1]), (12, [3, 3, 3, 2, 1])],
)
def test_fast_orders(budget: int, orders: list[int]) -> None:
    assert fast_orders(budget) == orders


def test_fast_spends_exactly_its_budget() -> None:
    bed = ring2d()
    for budget in range(1, 40):
        orders = fast_orders(budget)
        assert (sum(orders), len(orders)) == (budget, budget // 3 + 1)
    denoiser = bed.mixture.denoiser(bed.schedule)
    singlestep(denoiser, bed.initial(2), time_grid(bed.schedule, 4, end=bed.end), order=fast_orders(11))
    assert denoiser.evaluations == 11


def test_known_predictions_are_used_again() -> None:
    bed = ring2d()
    denoiser, x, known = bed.mixture.denoiser(bed.schedule), bed.initial(4), []
    third = dpm_step(denoiser, x, 0.8, 0.5, 3, known=known)
    second = dpm_step(denoiser, x, 0.8, 0.5, 2, r1=1 / 3, known=known)
    assert (denoiser.evaluations, len(known)) == (3, 3)
    torch.testing.assert_close(second, dpm_step(denoiser, x, 0.8, 0.5, 2, r1=1 / 3), rtol=0, atol=0)
    torch.testing.assert_close(third, dpm_step(denoiser, x, 0.8, 0.5, 3), rtol=0, atol=0)


# -------------------- adaptive steps


@cache
def flow() -> Tensor:
    bed = ring2d()
    return probability_flow(bed.mixture.denoiser(bed.schedule), bed.initial(8), 1.0, bed.end).x


def solve(order: int, **options: Any) -> tuple[AdaptiveSolution, int, float]:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(8)
    solution = adaptive(denoiser, x, (1.0, bed.end), order=order, **options)
    return solution, denoiser.evaluations, float((solution.x - flow()).square().mean(1).sqrt().median())


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_tighter_tolerances_cost_more_and_err_less(order: int, prediction: str) -> None:
    runs = [solve(order, rtol=rtol, atol=0.1 * rtol, prediction=prediction) for rtol in (0.1, 0.01, 0.001)]
    errors, counts = [run[2] for run in runs], [run[0].evaluations for run in runs]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("order", [2, 3])
def test_adaptive_counts(order: int) -> None:
    solution, evaluations, _ = solve(order, first_step=4.0)
    assert solution.rejected > 0
    assert solution.evaluations == evaluations == order * len(solution.attempts) - solution.rejected
    assert len(solution.attempts) == solution.accepted + solution.rejected
    assert len(solution.times) == solution.accepted + 1
    assert (solution.times[0], solution.times[-1]) == (1.0, 1e-2)
    assert [s for s, *_, accepted in solution.attempts if accepted] == list(solution.times[:-1])
    assert all((error <= 1.0) == accepted for *_, error, accepted in solution.attempts)


def test_the_step_size_rule() -> None:
    """Each attempt is h safety E^(-1/q), cut at the end; the error is recomputed here from two plain steps."""
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(8)
    solution = adaptive(denoiser, x, (1.0, bed.end), order=3)
    lam = [bed.schedule.half_log_snr(t) for s, trial, *_ in solution.attempts for t in (s, trial)]
    steps = [b - a for a, b in zip(lam[::2], lam[1::2], strict=True)]
    assert steps[0] == pytest.approx(0.05, rel=1e-9)
    last = bed.schedule.half_log_snr(bed.end)
    for (*_, error, _), h, after, here in zip(solution.attempts[:-1], steps, steps[1:], lam[2::2], strict=False):
        assert after == pytest.approx(min(0.9 * h * error ** (-1 / 3), last - here), rel=1e-6)
    s, t, error, _ = solution.attempts[0]
    high, low = dpm_step(denoiser, x, s, t, 3), dpm_step(denoiser, x, s, t, 2, r1=1 / 3)
    scale = (0.05 * torch.maximum(low.abs(), x.abs())).clamp(min=0.0078)
    assert error == pytest.approx(float(((high - low) / scale).square().mean(1).sqrt().max()), rel=1e-9)


def test_no_error_at_all_is_safe() -> None:
    bed = gauss(0.0)
    x = bed.initial(4)
    solution = adaptive(bed.mixture.denoiser(bed.schedule), x, (1.0, bed.end))
    exact = gaussian_flow(bed.mixture.means[0], 0.0, bed.schedule, x, 1.0, bed.end)
    assert solution.rejected == 0
    assert solution.accepted <= 3
    # One step over all of λ multiplies rounding by α_0/α_T, about 150, and again by the size of its terms.
    assert float((solution.x - exact).abs().max()) < 1e-9


def test_adaptive_gives_up_with_a_reason() -> None:
    with pytest.raises(DivergenceError, match=r"adaptive stopped at attempt 3, time .*: no end after 3 attempts"):
        solve(3, max_attempts=3)
    needed = len(solve(3)[0].attempts)
    assert len(solve(3, max_attempts=needed)[0].attempts) == needed
    with pytest.raises(DivergenceError, match=f"no end after {needed - 1} attempts"):
        solve(3, max_attempts=needed - 1)
    broken = Denoiser(lambda x, t: x * torch.nan, VPLinear())
    with pytest.raises(
        DivergenceError, match="adaptive stopped at attempt 1, time 1: the error estimate is not finite"
    ):
        adaptive(broken, torch.ones(2, 2), (1.0, 0.1))

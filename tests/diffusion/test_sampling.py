"""What holds for every sampler: times for each sample, dtypes, steps, inversion, gradients, divergence, and bad input."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from pdebook.diffusion.baselines import ddim, rk45, runge_kutta
from pdebook.diffusion.deis import deis, frozen_score
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.dpm_solver import adaptive, fast_orders, singlestep
from pdebook.diffusion.multistep import multistep, sde_multistep
from pdebook.diffusion.pndm import fon, ipndm, pndm
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.sampling import DivergenceError, Sampler, exponential_step, step_orders
from pdebook.diffusion.schedules import EDM, VPLinear, time_grid
from pdebook.diffusion.testbeds import ring2d
from pdebook.diffusion.unipc import unipc
from pdebook.rng import NoiseSource

ALL: dict[str, tuple[Sampler, dict[str, Any]]] = {
    "ddim": (ddim, {}),
    "ddim, eta": (ddim, {"eta": 0.8}),
    "dpm-solver": (singlestep, {"order": 3}),
    "dpm-solver, orders": (singlestep, {"order": [3, 2, 1, 2]}),
    "dpm-solver++ taylor": (singlestep, {"order": 3, "prediction": "data", "variant": "taylor"}),
    "dpm-solver, stages from the grid": (singlestep, {"order": [3, 1]}),
    "2m": (multistep, {"order": 2}),
    "3m": (multistep, {"order": 3, "ending": "full"}),
    "3m taylor": (multistep, {"order": 3, "variant": "taylor", "prediction": "noise"}),
    "sde": (sde_multistep, {}),
    "unipc": (unipc, {"order": 3}),
    "unipc, bh1, full": (unipc, {"order": 3, "b": "bh1", "ending": "full", "prediction": "noise"}),
    "heun in time": (runge_kutta, {"method": "heun"}),
    "rk3 in λ": (runge_kutta, {"method": "heun3", "variable": "half_log_snr"}),
    "midpoint in ρ": (runge_kutta, {"method": "midpoint", "variable": "rho"}),
    "tAB3": (deis, {"degree": 3}),
    "ρAB2, Runge-Kutta start": (deis, {"degree": 2, "variable": "rho", "warmup": "rk"}),
    "λAB3, data": (deis, {"degree": 3, "variable": "half_log_snr", "prediction": "data"}),
    "frozen score": (frozen_score, {}),
    "ipndm": (ipndm, {}),
    "f-pndm": (pndm, {"fallback": False}),
    "s-pndm": (pndm, {"order": 2, "warmup": "heun"}),
    "fon": (fon, {}),
}
every = pytest.mark.parametrize(("sampler", "options"), ALL.values(), ids=ALL)


def stochastic(sampler: Sampler, options: dict[str, Any], offset: int = 0) -> dict[str, Any]:
    draws = sampler is sde_multistep or options.get("eta", 0.0) > 0
    return {**options, "noise": NoiseSource(5, offset=offset)} if draws else options


@every
def test_times_for_each_sample_equal_shared_times(
    sampler: Sampler, options: dict[str, Any], device: torch.device
) -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.to(device).denoiser(bed.schedule), bed.initial(3).to(device)
    grids = [
        time_grid(bed.schedule, 4, kind, start=1.0 - 0.1 * i, end=0.02)
        for i, kind in enumerate(("time", "rho", "half_log_snr"))
    ]
    rows = sampler(denoiser, x, torch.tensor(grids, dtype=torch.float64, device=device), **stochastic(sampler, options))
    single = [
        sampler(denoiser, x[i : i + 1], grids[i], **stochastic(sampler, options, offset=i)) for i in range(len(grids))
    ]
    # Runge-Kutta in t starts with slopes of a few thousand.
    torch.testing.assert_close(rows, torch.cat(single), rtol=1e-10, atol=1e-10)


@every
def test_a_sample_does_not_depend_on_its_batch(sampler: Sampler, options: dict[str, Any]) -> None:
    bed = ring2d()
    denoiser, x, grid = bed.mixture.denoiser(bed.schedule), bed.initial(6), time_grid(bed.schedule, 4, end=0.02)
    whole = sampler(denoiser, x, grid, **stochastic(sampler, options))
    torch.testing.assert_close(sampler(denoiser, x[:2], grid, **stochastic(sampler, options)), whole[:2])
    piece = sampler(denoiser, x[2:], grid, **stochastic(sampler, options, offset=2))
    torch.testing.assert_close(piece, whole[2:])


@every
def test_steps_can_be_watched_and_dtype_stays(sampler: Sampler, options: dict[str, Any]) -> None:
    bed = ring2d()
    grid = time_grid(bed.schedule, 4, end=0.02)
    mixture = bed.mixture.to(torch.float32)
    x = bed.initial(3).float()
    kept = x.clone()
    seen = list(sampler.iterate(mixture.denoiser(bed.schedule), x, grid, **stochastic(sampler, options)))
    assert [t for t, _ in seen] == (grid[1:] if len(seen) == 4 else [grid[3], grid[4]])
    assert all(state.dtype == torch.float32 for _, state in seen if isinstance(state, Tensor))
    final = sampler(
        mixture.denoiser(bed.schedule), x, torch.tensor(grid, dtype=torch.float64), **stochastic(sampler, options)
    )
    torch.testing.assert_close(final, seen[-1][1], rtol=0, atol=0)
    assert torch.equal(x, kept)
    assert sampler.__name__ in repr(sampler)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sampler", "options", "order"),
    [
        (ddim, {}, 1),
        (singlestep, {"order": 2}, 2),
        (singlestep, {"order": 3, "prediction": "data"}, 3),
        (multistep, {"order": 3, "variant": "taylor", "ending": "full"}, 3),
        (unipc, {"order": 2, "ending": "full"}, 3),
    ],
    ids=["ddim", "dpm-solver-2", "dpm-solver++3s", "3m", "unipc-2"],
)
def test_inversion_returns(sampler: Sampler, options: dict[str, Any], order: int) -> None:
    """Data to noise and back: what is left is two discretisation errors, of the sampler's own order."""
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(8)
    data = probability_flow(denoiser, x, 1.0, bed.end, tolerance=1e-8).x
    errors = []
    for n in (40, 80):
        grid = time_grid(bed.schedule, n, end=bed.end)
        noise = sampler.invert(denoiser, data, grid[::-1], **options)
        errors.append(float((sampler(denoiser, noise, grid, **options) - data).abs().median()))
    assert errors[1] < 0.05 / 4 ** (order - 1)
    assert errors[0] / errors[1] > 2 ** (order - 0.5)


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.tensor([[0.4, -0.3], [0.2, 0.7]], dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x @ self.matrix + t[:, None])


@pytest.mark.parametrize(
    "name", ["dpm-solver", "dpm-solver++ taylor", "2m", "3m taylor", "unipc", "midpoint in ρ", "sde"]
)
def test_gradients(name: str) -> None:
    sampler, options = ALL[name]
    grid = time_grid(VPLinear(), 3, end=0.1)
    tiny = Tiny()

    def result(x: Tensor, matrix: Tensor) -> Tensor:
        def net(x: Tensor, t: Tensor) -> Tensor:
            return torch.func.functional_call(tiny, {"matrix": matrix}, (x, t))

        return sampler(Denoiser(net, VPLinear(), predicts="velocity"), x, grid, **stochastic(sampler, options))

    x = torch.tensor([[0.3, -0.8], [1.1, 0.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(result, (x, tiny.matrix.detach().clone().requires_grad_()))


def test_exact_step_of_both_predictions_is_one() -> None:
    """For a constant noise (or data) the step is exact, and the forms are each other's rewriting."""
    schedule, s, t = VPLinear(), 0.8, 0.3
    noise, data = exponential_step(schedule, s, t, "noise"), exponential_step(schedule, s, t, "data")
    x0, eps = 0.7, -1.2
    start, end = (schedule.alpha(u) * x0 + schedule.sigma(u) * eps for u in (s, t))
    assert noise.ratio * start + noise.weight(1) * eps == pytest.approx(end, rel=1e-13)
    assert data.ratio * start + data.weight(1) * x0 == pytest.approx(end, rel=1e-13)
    assert noise.weight(2) == pytest.approx(-schedule.sigma(t) * (math.expm1(noise.h) - noise.h) / noise.h, rel=1e-12)
    assert data.weight(2) == pytest.approx(schedule.alpha(t) * (math.expm1(-data.h) + data.h) / data.h, rel=1e-12)


class Polynomial:
    """A model that predicts λ^q whatever the state, so that a step is a quadrature and its exact value an integral."""

    def __init__(self, degree: int, prediction: str) -> None:
        self.schedule = VPLinear()
        self.degree, self.prediction = degree, prediction

    def value(self, x: Tensor, t: float) -> Tensor:
        return torch.full_like(x, self.schedule.half_log_snr(t) ** self.degree)

    noise = data = value

    def step(self, x: float, s: float, t: float) -> float:
        """x_t = α_t (x_s/α_s - ∫ e^{-λ} m dλ) for noise, σ_t (x_s/σ_s + ∫ e^λ m dλ) for data."""
        sign = -1.0 if self.prediction == "noise" else 1.0
        part = self.schedule.alpha if self.prediction == "noise" else self.schedule.sigma
        ends = self.schedule.half_log_snr(s), self.schedule.half_log_snr(t)
        integral = quad(lambda level: math.exp(sign * level) * level**self.degree, *ends, epsrel=1e-13)[0]
        return part(t) * (x / part(s) + sign * integral)


@pytest.mark.parametrize("prediction", ["noise", "data"])
@pytest.mark.parametrize(
    ("sampler", "options", "degree"),
    [
        (singlestep, {"order": 1}, 0),
        (singlestep, {"order": 2, "variant": "taylor"}, 1),
        (singlestep, {"order": 2, "variant": "taylor", "r1": 0.3}, 1),
        (singlestep, {"order": 3}, 1),
        (singlestep, {"order": 3, "variant": "taylor"}, 2),
        (singlestep, {"order": 3, "variant": "taylor", "r1": 0.2, "r2": 0.9}, 2),
        (multistep, {"order": 1}, 0),
        (multistep, {"order": 2, "variant": "taylor"}, 1),
        (multistep, {"order": 3, "variant": "taylor"}, 2),
        (unipc, {"order": 3, "corrector": False}, 2),
        (unipc, {"order": 2}, 2),
        (unipc, {"order": 3, "b": "bh1"}, 3),
    ],
)
def test_a_step_integrates_polynomials_exactly(
    sampler: Sampler, options: dict[str, Any], degree: int, prediction: str
) -> None:
    ending = {} if sampler is singlestep else {"ending": "full"}
    for q in range(degree + 2):
        model, x = Polynomial(q, prediction), torch.ones(1, 1, dtype=torch.float64)
        states = list(sampler.iterate(model, x, [0.9, 0.7, 0.6, 0.35], prediction=prediction, **options, **ending))
        (s, before), (t, after) = states[-2:]
        gap = abs(float(after) - model.step(float(before), float(s), float(t)))
        # Seven digits lie between a rule that is exact and one that is not.
        assert gap < 1e-12 if q <= degree else gap > 1e-5


@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_the_released_third_order_step_has_half_its_curvature(prediction: str) -> None:
    """Official 3M: for m = λ² what is missing is one half of w_3 h² m''."""
    model, x = Polynomial(2, prediction), torch.ones(1, 1, dtype=torch.float64)
    options: dict[str, Any] = {"order": 3, "prediction": prediction, "ending": "full"}
    (s, before), (t, after) = list(multistep.iterate(model, x, [0.9, 0.7, 0.6, 0.35], **options))[-2:]
    step = exponential_step(model.schedule, s, t, prediction)
    missing = model.step(float(before), float(s), float(t)) - float(after)
    assert missing == pytest.approx(0.5 * step.weight(3) * step.h**2 * 2.0, rel=1e-10)


@pytest.mark.parametrize(
    ("arguments", "orders"),
    [
        ((5, 3, "full"), [1, 2, 3, 3, 3]),
        ((5, 3, "lower"), [1, 2, 3, 2, 1]),
        ((9, 2, "auto"), [1, *[2] * 7, 1]),
        ((10, 2, "auto"), [1, *[2] * 9]),
        ((1, 1, "lower"), [1]),
    ],
)
def test_step_orders(arguments: Any, orders: list[int]) -> None:
    assert step_orders(*arguments) == orders


# -------------------- a step onto the end of the schedule


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (ddim, {}),
        (singlestep, {"order": [2, 1]}),
        (multistep, {"ending": "lower"}),
        (multistep, {"order": 1, "prediction": "noise"}),
        (unipc, {"corrector": False}),
    ],
)
@pytest.mark.parametrize("schedule", [VPLinear(), EDM()])
def test_first_order_steps_reach_the_noise_free_end(sampler: Sampler, options: dict[str, Any], schedule: Any) -> None:
    denoiser, x = ring2d().mixture.denoiser(schedule), ring2d().initial(4) * schedule.sigma(schedule.t_max)
    *_, (_, before), (_, after) = sampler.iterate(denoiser, x, [schedule.t_max, 0.1, 0.0], **options)
    torch.testing.assert_close(after, denoiser.data(before, 0.1), rtol=1e-12, atol=1e-12)


# -------------------- divergence

GRID = [1.0, 0.6, 0.3, 0.1]


def exploding(when: float) -> Denoiser:
    def net(x: Tensor, t: Tensor) -> Tensor:
        bad = (t < when) & (torch.arange(len(x)) % 3 == 1)
        return torch.where(bad[:, None], torch.inf, x)

    return Denoiser(net, VPLinear())


@pytest.mark.parametrize("sampler", [ddim, multistep, unipc, sde_multistep])
def test_a_diverging_run_says_where(sampler: Sampler) -> None:
    words = r"diverged at step 3, time 0.1: 2 of 6 samples are not finite \(samples 1, 4\)"
    options: dict[str, Any] = {"corrector": False} if sampler is unipc else {}
    with pytest.raises(DivergenceError, match=f"{sampler.__name__} {words}"):  # type: ignore[attr-defined]
        sampler(exploding(0.5), ring2d().initial(6), GRID, **options)


def test_a_diverging_run_with_own_times_names_the_samples_time() -> None:
    times = torch.tensor([[1.0, 0.6, 0.3], [0.9, 0.4, 0.2], [1.0, 0.7, 0.6]], dtype=torch.float64)
    with pytest.raises(DivergenceError, match=r"ddim diverged at step 2, time 0.2: 1 of 3 samples .*\(samples 1\)"):
        ddim(exploding(0.5), ring2d().initial(3), times)


def test_many_bad_samples_are_abridged() -> None:
    with pytest.raises(DivergenceError, match=r"50 of 50 .*\(samples 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.\)"):
        ddim(exploding(0.5), torch.full((50, 2), torch.nan), GRID)


# -------------------- bad input

X = ring2d().initial(4)
DENOISER = ring2d().mixture.denoiser(VPLinear())
ERRORS: list[tuple[Any, str]] = [
    (lambda: ddim(DENOISER, X, []), r"times must hold at least one step: .* got \(0,\)"),
    (lambda: ddim(DENOISER, X, [1.0]), r"times must hold at least one step: .* got \(1,\)"),
    (lambda: ddim(DENOISER, X, torch.zeros(2, 2, 2)), r"got \(2, 2, 2\)"),
    (lambda: ddim(DENOISER, X, [1.1, 0.5]), r"times must lie in \[0.0, 1.0\], got values from 0.5 to 1.1"),
    (lambda: ddim(DENOISER, X, [1.0, -0.1]), "got values from -0.1 to 1.0"),
    (lambda: ddim(DENOISER, X, [1.0, math.nan]), r"times must lie in \[0.0, 1.0\], got values from nan to nan"),
    (lambda: ddim(DENOISER, X, [1.0, 0.5, 0.5]), "times must fall strictly"),
    (lambda: ddim(DENOISER, X, [0.1, 0.5]), "times must fall strictly"),
    (lambda: ddim.invert(DENOISER, X, [0.5, 0.1]), "times must rise strictly"),
    (lambda: ddim(DENOISER, X, torch.rand(3, 4)), r"times of shape \(3, 4\) need a batch of 3 samples in x"),
    (lambda: ddim(DENOISER, X.long(), GRID), r"x must be a floating-point tensor .*, got torch.int64 of shape \(4, 2\)"),
    (lambda: ddim(DENOISER, X[:, 0], GRID), r"x must be .* leading batch axis, got torch.float64 of shape \(4,\)"),
    (lambda: multistep.invert(DENOISER, X.long(), GRID[::-1]), "x must be a floating-point tensor"),
    (lambda: multistep.iterate(DENOISER, X.long(), GRID), "x must be a floating-point tensor"),
    (lambda: adaptive(DENOISER, X.long(), (1.0, 0.1)), "x must be a floating-point tensor"),
    (lambda: adaptive(DENOISER, X[:, 0], (1.0, 0.1)), "x must be a floating-point tensor"),
    (lambda: rk45(DENOISER, X.long(), (1.0, 0.1)), "x must be a floating-point tensor"),
    (lambda: ddim(DENOISER, X, GRID, eta=1.5), "eta must be between 0 and 1, got 1.5"),
    (lambda: ddim(DENOISER, X, GRID, eta=-0.1), "eta must be between 0 and 1, got -0.1"),
    (lambda: singlestep(DENOISER, X, GRID, order=4), "order must be 1, 2 or 3, got 4"),
    (lambda: singlestep(DENOISER, X, GRID, order=[3, 0, 1]), r"order must be 1, 2 or 3, got \[3, 0, 1\]"),
    (lambda: singlestep(DENOISER, X, GRID, order=[3, 2]), "2 steps with 5 evaluations, which fit .* 2 or 5 intervals; times has 3"),
    (lambda: fast_orders(0), "evaluations must be at least 1, got 0"),
    (lambda: multistep(DENOISER, X, GRID, order=4), "order must be 1, 2 or 3, got 4"),
    (lambda: multistep(DENOISER, X, GRID, order=0), "order must be 1, 2 or 3, got 0"),
    (lambda: multistep(DENOISER, X, GRID[:3], order=3), "times must hold at least 3 steps for a method of order 3, got 2"),
    (lambda: multistep(DENOISER, X, [1.0, 0.5, 0.0], ending="full"), "times reach a level without noise or signal"),
    (lambda: multistep.invert(DENOISER, X, [0.0, 0.5, 1.0]), "times reach a level without noise or signal"),
    (lambda: sde_multistep(DENOISER, X, GRID, order=3), "order must be 1 or 2, got 3"),
    (lambda: sde_multistep(DENOISER, X, GRID, eta=-1.0), "eta must be at least 0, got -1.0"),
    (lambda: sde_multistep(DENOISER, X, GRID, eta=math.nan), "eta must be at least 0, got nan"),
    (lambda: unipc(DENOISER, X, GRID, order=0), "order must be at least 1, got 0"),
    (lambda: unipc(DENOISER, X, GRID, order=4), "times must hold at least 4 steps for a method of order 4, got 3"),
    (lambda: runge_kutta(DENOISER, X, GRID, method="rk9"), "method must be a RungeKutta or one of euler, heun, .* got 'rk9'"),
    (lambda: rk45(DENOISER, X, GRID), "times must be the first and the last time, got 4 values"),
    (lambda: adaptive(DENOISER, X, GRID), "times must be the first and the last time, got 4 values"),
    (lambda: adaptive(DENOISER, X, (1.0, 0.0)), "times must end where some noise is left, got 0.0"),
    (lambda: adaptive(DENOISER, X, (0.1, 1.0)), "times must fall strictly"),
    (lambda: adaptive(DENOISER, X, (1.0, 0.1), order=1), r"order must be 2 \(DPM-Solver-12\) or 3"),
    (lambda: adaptive(DENOISER, X, (1.0, 0.1), atol=0.0), "atol must be positive, got 0.0"),
    (lambda: adaptive(DENOISER, X, (1.0, 0.1), rtol=-1.0), "rtol must be positive, got -1.0"),
    (lambda: adaptive(DENOISER, X, (1.0, 0.1), safety=math.nan), "safety must be positive, got nan"),
    (lambda: adaptive(DENOISER, X, (1.0, 0.1), first_step=math.inf), "first_step must be positive, got inf"),
    (lambda: multistep(Denoiser(lambda x, t: x[:2], VPLinear()), X, GRID), r"net must return .* got torch.float64 of shape \(2, 2\)"),
    (lambda: multistep(DENOISER, X.float(), GRID), "net must return torch.float32 .* got torch.float64"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "words"), ERRORS, ids=[words for _, words in ERRORS])
def test_bad_input(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


CHOICES: list[tuple[Any, str]] = [
    (lambda: singlestep(DENOISER, X, GRID, variant="exact"), "variant must be 'released' or 'taylor', got 'exact'"),
    (lambda: singlestep(DENOISER, X, GRID, prediction="eps"), "prediction must be 'noise' or 'data', got 'eps'"),
    (lambda: multistep(DENOISER, X, GRID, variant="x"), "variant must be 'released' or 'taylor', got 'x'"),
    (lambda: multistep(DENOISER, X, GRID, prediction="x"), "prediction must be 'noise' or 'data', got 'x'"),
    (lambda: multistep(DENOISER, X, GRID, ending="never"), "ending must be 'full', 'lower' or 'auto', got 'never'"),
    (lambda: unipc(DENOISER, X, GRID, b="bh3"), "b must be 'bh1' or 'bh2', got 'bh3'"),
    (lambda: unipc(DENOISER, X, GRID, prediction="x"), "prediction must be 'noise' or 'data', got 'x'"),
    (lambda: unipc(DENOISER, X, GRID, ending="x"), "ending must be 'full', 'lower' or 'auto', got 'x'"),
    (lambda: runge_kutta(DENOISER, X, GRID, variable="x"), "variable must be 'time', 'half_log_snr' or 'rho', got 'x'"),
    (lambda: adaptive(DENOISER, X, (1.0, 0.1), prediction="x"), "prediction must be 'noise' or 'data', got 'x'"),
]  # fmt: skip


def check_choices() -> None:
    for build, words in CHOICES:
        with pytest.raises(ValueError, match=words):
            build()


def test_bad_choices() -> None:
    """In a process without the run-time check of types, which refuses these words before the library does."""
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", "from diffusion.test_sampling import check_choices; check_choices()"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": tests}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

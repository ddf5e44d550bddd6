"""Tableaux: they are what the sampler computes; identities between methods; invariants of exponential methods."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pdebook.diffusion.affine import Affine, Tableau, axpby, symbolic_noise, trace
from pdebook.diffusion.baselines import RUNGE_KUTTA, ddim, runge_kutta
from pdebook.diffusion.dpm_solver import fast_orders, singlestep
from pdebook.diffusion.multistep import multistep, sde_multistep
from pdebook.diffusion.sampling import Sampler
from pdebook.diffusion.schedules import EDM, VPCosine, VPLinear, time_grid
from pdebook.diffusion.testbeds import ring2d
from pdebook.diffusion.unipc import unipc
from pdebook.rng import NoiseSource

SCHEDULE = VPLinear()
GRID = time_grid(SCHEDULE, 6, "quadratic", end=1e-2)

EXPONENTIAL: dict[str, tuple[Sampler, dict[str, Any]]] = {
    "ddim": (ddim, {}),
    "fast": (singlestep, {"order": [3, 2, 1, 3, 1, 2]}),
    "sde, eta = 0": (sde_multistep, {"eta": 0.0, "noise": lambda k, x: Affine()}),
} | {
    f"{sampler.__name__} {options}": (sampler, options)  # type: ignore[attr-defined]
    for prediction in ("noise", "data")
    for order in (1, 2, 3)
    for sampler, options in (
        *((singlestep, {"order": order, "prediction": prediction, "variant": v}) for v in ("released", "taylor")),
        *((multistep, {"order": order, "prediction": prediction, "variant": v}) for v in ("released", "taylor")),
        *((unipc, {"order": order, "prediction": prediction, "b": b}) for b in ("bh1", "bh2")),
        (unipc, {"order": order, "prediction": prediction, "ending": "full"}),
        (unipc, {"order": order, "prediction": prediction, "corrector": False}),
    )
}
OTHERS: dict[str, tuple[Sampler, dict[str, Any]]] = {
    f"{name} in {variable}": (runge_kutta, {"method": name, "variable": variable})
    for name in RUNGE_KUTTA
    for variable in ("time", "half_log_snr")
}


def exponential_defect(table: Tableau, schedule: Any, grid: list[float]) -> float:
    """Relative violation of W_x = α_0/α_T and Σ W_e = α_0 (ρ_0 - ρ_T), which exactness on point masses means."""
    alpha = schedule.alpha(grid[-1])
    signal = alpha / schedule.alpha(grid[0])
    noise = alpha * (schedule.rho(grid[-1]) - schedule.rho(grid[0]))
    row = table.weights[-1]
    return max(abs(row[0] / signal - 1), abs(row[1:].sum() / noise - 1))


@pytest.mark.parametrize("schedule", [SCHEDULE, VPCosine(), EDM(20.0)], ids=["linear", "cosine", "edm"])
@pytest.mark.parametrize("name", EXPONENTIAL)
def test_exponential_methods_have_the_universal_invariants(name: str, schedule: Any) -> None:
    sampler, options = EXPONENTIAL[name]
    grid = time_grid(schedule, 6, "rho", end=1e-2)
    assert exponential_defect(trace(sampler, schedule, grid, **options), schedule, grid) < 1e-12


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_violate_them(name: str) -> None:
    sampler, options = OTHERS[name]
    assert exponential_defect(trace(sampler, SCHEDULE, GRID, **options), SCHEDULE, GRID) > 1e-3


@pytest.mark.parametrize("name", [*EXPONENTIAL, *OTHERS, "heun in rho"])
def test_the_table_computes_what_the_sampler_does(name: str) -> None:
    rho = {"heun in rho": (runge_kutta, {"method": "heun", "variable": "rho"})}
    sampler, options = {**EXPONENTIAL, **OTHERS, **rho}[name]
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(SCHEDULE), bed.initial(4)
    table = trace(sampler, SCHEDULE, GRID, **options)
    direct = sampler(denoiser, x, GRID, **{key: value for key, value in options.items() if key != "noise"})
    assert len(table.times) == denoiser.evaluations
    # Runge-Kutta in t or λ starts with weights of a few thousand, which cancel.
    atol = 1e-12 * max(1.0, float(np.abs(table.weights).max()))
    torch.testing.assert_close(table.run(denoiser, x), direct, rtol=1e-12, atol=atol)


def test_draws_are_symbols() -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(SCHEDULE), bed.initial(4)
    source = NoiseSource(3)
    for sampler, options in ((sde_multistep, {"order": 2}), (ddim, {"eta": 0.7})):
        table = trace(sampler, SCHEDULE, GRID, noise=symbolic_noise, **options)
        assert table.symbols == ("x", *(f"e{i}" for i in range(6)), *(f"z{i}" for i in range(6)))
        draws = {f"z{k}": source(k, x) for k in range(6)}
        direct = sampler(denoiser, x, GRID, noise=source, **options)
        torch.testing.assert_close(table.run(denoiser, x, draws), direct, rtol=1e-12, atol=1e-12)
        with pytest.raises(ValueError, match="symbols must give a value for z0"):
            table.run(denoiser, x)


# -------------------- identities


def same(one: Tableau, other: Tableau) -> bool:
    return one.distance(other) < 1e-12


@pytest.mark.parametrize("schedule", [SCHEDULE, VPCosine(), EDM()], ids=["linear", "cosine", "edm"])
def test_first_order_methods_are_one(schedule: Any) -> None:
    grid = time_grid(schedule, 6, "rho", end=1e-2)
    table = trace(ddim, schedule, grid)
    for prediction in ("noise", "data"):
        assert same(trace(singlestep, schedule, grid, order=1, prediction=prediction), table)
        assert same(trace(multistep, schedule, grid, order=1, prediction=prediction), table)
        assert same(trace(unipc, schedule, grid, order=1, prediction=prediction, corrector=False), table)
    quiet = {"eta": 0.0, "noise": lambda k, x: Affine()}
    assert same(trace(sde_multistep, schedule, grid, order=1, **quiet), table)
    assert same(trace(singlestep, schedule, grid, order=[1] * 6), table)
    assert same(trace(runge_kutta, schedule, grid, method="euler", variable="rho"), table)
    assert not same(trace(runge_kutta, schedule, grid, method="euler", variable="half_log_snr"), table)


@pytest.mark.parametrize("ending", ["full", "lower", "auto"])
def test_second_order_multistep_methods_are_one(ending: str) -> None:
    table = trace(multistep, SCHEDULE, GRID, order=2, ending=ending)
    quiet = {"eta": 0.0, "noise": lambda k, x: Affine()}
    assert same(trace(sde_multistep, SCHEDULE, GRID, order=2, ending=ending, **quiet), table)
    assert same(trace(unipc, SCHEDULE, GRID, order=2, b="bh2", corrector=False, ending=ending), table)
    assert not same(trace(unipc, SCHEDULE, GRID, order=2, b="bh1", corrector=False, ending=ending), table)
    assert not same(trace(multistep, SCHEDULE, GRID, order=2, ending=ending, variant="taylor"), table)


def test_third_order_predictor_of_unipc_is_the_taylor_multistep() -> None:
    one = trace(unipc, SCHEDULE, GRID, order=3, corrector=False, ending="full")
    three = trace(multistep, SCHEDULE, GRID, order=3, variant="taylor", ending="full")
    # They differ in the second step alone, which both take at second order, with ρ = 1/2 and with Taylor weights.
    steps = trace(multistep, SCHEDULE, GRID, order=3, ending="full")
    assert np.abs(one.weights[2] - steps.weights[2]).max() < 1e-13
    assert np.abs(one.weights[2] - three.weights[2]).max() > 1e-3


def test_second_stage_orders_on_a_grid_of_stages() -> None:
    """A grid with one interval an evaluation takes its stages from the grid; at thirds it is the same method."""
    coarse = time_grid(SCHEDULE, 2, end=1e-2)
    fine = time_grid(SCHEDULE, 6, end=1e-2)
    assert same(trace(singlestep, SCHEDULE, fine, order=[3, 3]), trace(singlestep, SCHEDULE, coarse, order=3))
    halves = time_grid(SCHEDULE, 4, end=1e-2)
    assert same(trace(singlestep, SCHEDULE, halves, order=[2, 2]), trace(singlestep, SCHEDULE, coarse, order=2))
    assert sum(fast_orders(6)) == len(fine) - 1
    uneven = trace(singlestep, SCHEDULE, GRID, order=[2, 1, 3])
    assert len(uneven.times) == 6
    assert uneven.times == pytest.approx(GRID[:-1], rel=1e-12)


def test_a_formula_by_hand() -> None:
    """DPM-Solver-2 over one step: x_t = α_t/α_s x - σ_t (e^h - 1) ε(u, s_1)."""
    s, t = 0.8, 0.3
    h = SCHEDULE.half_log_snr(t) - SCHEDULE.half_log_snr(s)
    middle = SCHEDULE.time(SCHEDULE.half_log_snr(s) + h / 2)
    table = trace(singlestep, SCHEDULE, [s, t], order=2)
    assert table.times == (s, middle)
    expected = [
        [1.0, 0.0, 0.0],
        [SCHEDULE.alpha(middle) / SCHEDULE.alpha(s), -SCHEDULE.sigma(middle) * np.expm1(h / 2), 0.0],
        [SCHEDULE.alpha(t) / SCHEDULE.alpha(s), 0.0, -SCHEDULE.sigma(t) * np.expm1(h)],
    ]
    np.testing.assert_allclose(table.weights, expected, rtol=1e-14, atol=1e-15)


# -------------------- the table as an object


def test_round_trip_through_json() -> None:
    table = trace(singlestep, SCHEDULE, GRID, order=3)
    again = Tableau.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again.distance(table) == 0.0
    assert again.symbols == table.symbols


def test_distance_ignores_the_order_of_columns_and_sees_all_else() -> None:
    table = trace(multistep, SCHEDULE, GRID)
    swapped = Tableau(table.times, table.symbols[::-1], table.weights[:, ::-1])
    assert table.distance(swapped) == 0.0
    moved = Tableau((*table.times[:-1], table.times[-1] + 1e-3), table.symbols, table.weights)
    assert table.distance(moved) == pytest.approx(1e-3)
    assert table.distance(trace(multistep, SCHEDULE, GRID[:-1])) == float("inf")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"times": [1.0], "symbols": ["x", "e0"]}, "missing: weights"),
        ({}, "missing: symbols, times, weights"),
        (
            {"times": [1.0], "symbols": ["x"], "weights": [[1.0]]},
            r"weights must have shape \(times \+ 1, symbols\), got \(1, 1\)",
        ),
        ({"times": [1.0], "symbols": ["x", "e0"], "weights": [1.0, 2.0]}, r"got \(2,\)"),
    ],
)
def test_bad_tables(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Tableau.from_dict(table)


def test_coefficients_may_differ_by_dimension() -> None:
    decay = np.array([0.5, 2.0])

    def two_rates(denoiser: Any, x: Any, times: list[float]) -> Any:
        for t in times[:-1]:
            factor = decay if isinstance(x, Affine) else torch.as_tensor(decay)
            x = axpby(factor, x, 1.0 - factor, denoiser.noise(x, t))
        return x

    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(SCHEDULE), bed.initial(4)
    table = trace(two_rates, SCHEDULE, GRID[:3])
    assert table.weights.shape == (3, 3, 2)
    np.testing.assert_allclose(table.weights[-1], [decay**2, decay * (1 - decay), 1 - decay])
    torch.testing.assert_close(table.run(denoiser, x), two_rates(denoiser, x, GRID[:3]), rtol=1e-13, atol=1e-13)
    assert Tableau.from_dict(table.to_dict()).distance(table) == 0.0


def test_axpby_is_one_linear_combination(device: torch.device) -> None:
    x, y, z = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    row = torch.rand(4, 1, dtype=torch.float64, device=device)
    torch.testing.assert_close(axpby(2.0, x, -3.0, y, row, z), 2 * x - 3 * y + row * z)
    torch.testing.assert_close(axpby(row, x, row, y), row * (x + y))
    single = axpby(row, x.float(), 0.5, y.float())
    assert single.dtype == torch.float32
    kept: list[Tensor] = [x.clone(), y.clone(), z.clone()]
    axpby(2.0, x, -3.0, y, row, z)
    assert all(torch.equal(a, b) for a, b in zip((x, y, z), kept, strict=True))
    expression = axpby(2.0, Affine.symbol("x"), 1.0, Affine({"x": 1.0, "y": 4.0}), 0.5, Affine.symbol("z"))
    assert dict(expression.terms) == {"x": 3.0, "y": 4.0, "z": 0.5}

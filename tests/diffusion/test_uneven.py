"""What grids uniform in λ and single solves can't see: uneven grids, the adaptive solver replayed, hostile inputs."""

import math

import pytest
import torch

from pdebook.diffusion import baselines
from pdebook.diffusion.affine import Tableau, trace
from pdebook.diffusion.denoiser import ClassifierFree, ClassifierGuidance, Denoiser
from pdebook.diffusion.dpm_solver import adaptive, dpm_step, singlestep
from pdebook.diffusion.exact import GaussianMixture
from pdebook.diffusion.multistep import multistep
from pdebook.diffusion.reference import _solve, probability_flow
from pdebook.diffusion.sampling import exponential_step
from pdebook.diffusion.schedules import VPLinear, time_grid
from pdebook.diffusion.testbeds import ring2d
from pdebook.diffusion.unipc import unipc

SCHEDULE = VPLinear()
UNEVEN = [1.0, 0.8, 0.65, 0.3, 0.2, 0.05]


class Parabola:
    """Data prediction λ², whatever the state."""

    schedule = SCHEDULE

    def data(self, x, t):
        return torch.full_like(x, self.schedule.half_log_snr(t) ** 2)

    noise = data


@pytest.mark.parametrize(("sampler", "first"), [(multistep, 2), (singlestep, 0)])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_third_order_is_exact_for_a_parabola_on_an_uneven_grid(sampler, first, prediction):
    x = torch.ones(1, 1, dtype=torch.float64)
    options = {"order": 3, "variant": "taylor", "prediction": prediction}
    if sampler is multistep:
        options["ending"] = "full"
    states = [x, *(state for _, state in sampler.iterate(Parabola(), x, UNEVEN, **options))]
    for i in range(first, 5):
        step, lam = exponential_step(SCHEDULE, UNEVEN[i], UNEVEN[i + 1], prediction), SCHEDULE.half_log_snr(UNEVEN[i])
        terms = step.weight(1) * lam**2 + step.weight(2) * step.h * 2 * lam + step.weight(3) * step.h**2 * 2
        # The Taylor series of a parabola ends, so only rounding is left.
        torch.testing.assert_close(states[i + 1], step.ratio * states[i] + terms, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", [2, 3])
def test_adaptive_replayed_step_by_step(order):
    bed = ring2d()
    model, x = bed.mixture.denoiser(bed.schedule), bed.initial(8)
    solution, previous = adaptive(model, x, (1.0, bed.end), order=order, atol=1e-4), x
    for s, t, error, accepted in solution.attempts:
        high = dpm_step(model, x, s, t, order)
        low = dpm_step(model, x, s, t, order - 1, r1=1 / 3 if order == 3 else None)
        scale = (0.05 * torch.maximum(low.abs(), previous.abs())).clamp(min=1e-4)
        assert error == pytest.approx(float(((high - low) / scale).square().mean(1).sqrt().max()), rel=1e-8)
        assert accepted == (error <= 1)
        if accepted:
            x, previous = high, low
    assert solution.rejected > 0
    torch.testing.assert_close(solution.x, x, rtol=1e-12, atol=1e-12)


def test_unipc_corrects_no_lowered_last_step():
    assert len(trace(unipc, SCHEDULE, UNEVEN, order=2, ending="auto").times) == 5
    assert len(trace(unipc, SCHEDULE, UNEVEN, order=2, ending="full").times) == 6


def test_guidance_leaves_the_state_alone_and_keeps_float32():
    x, t = torch.ones(4, 2), torch.full((4, 1), 0.5, dtype=torch.float64)
    guidance = ClassifierGuidance(lambda y, _: -y.square().sum(1), 1.0)
    data, noise = Denoiser(lambda y, _: y, SCHEDULE, guidance=guidance).both(x, t)
    assert not x.requires_grad
    assert data.dtype == noise.dtype == torch.float32


def test_rk45_hands_its_tolerances_on(monkeypatch):
    seen = {}
    solve = baselines.solve_ivp
    monkeypatch.setattr(baselines, "solve_ivp", lambda *args, **kwargs: seen.update(kwargs) or solve(*args, **kwargs))
    bed = ring2d()
    baselines.rk45(bed.mixture.denoiser(SCHEDULE), bed.initial(2), (1.0, 0.1), rtol=1e-3, atol=1e-7)
    assert (seen["rtol"], seen["atol"]) == (1e-3, 1e-7)


def test_reference_states_the_worst_sample():
    bed = ring2d()
    model, x = bed.mixture.denoiser(SCHEDULE), bed.initial(16)
    reference = probability_flow(model, x, 1.0, bed.end, tolerance=1e-3, steps=4)
    fine, coarse = (_solve(model, x, 1.0, bed.end, n) for n in (reference.steps, reference.steps // 2))
    assert reference.error == float((fine - coarse).square().mean(1).sqrt().max())


MODEL = ring2d().mixture.denoiser(SCHEDULE)
X = torch.zeros(4, 2, dtype=torch.float64)
MEANS = torch.zeros(2, 2)


def table(**changes):
    return {"times": [0.5], "symbols": ["x", "e0"], "weights": [[1.0, 0.0], [1.0, 1.0]], **changes}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: Denoiser(lambda x, t: x, SCHEDULE).both(torch.ones(4, 4), torch.tensor([0.2, 0.4, 0.6, 0.8])),
            "t must be",
        ),
        (
            lambda: Denoiser(lambda x, t: x, SCHEDULE, guidance=ClassifierFree(torch.zeros(4), 0, 1.0), condition=X),
            "condition",
        ),
        (lambda: probability_flow(MODEL, X, 2.0, 0.1), "times"),
        (lambda: probability_flow(MODEL, X, 0.1, 0.1), "times"),
        (lambda: probability_flow(MODEL, X, 1.0, 0.1, steps=0), "steps"),
        (lambda: time_grid(SCHEDULE, 1000, start=0.5, end=0.5 - 1e-13), "steps"),
        (lambda: baselines.rk45(MODEL, X, (1.0, 0.1), atol=math.nan), "atol"),
        (lambda: GaussianMixture(torch.ones(2), MEANS * math.nan, torch.ones(2)), "means"),
        (lambda: GaussianMixture(torch.ones(2), MEANS, torch.ones(2), torch.zeros(3)), "classes"),
        (lambda: GaussianMixture(torch.zeros(0), torch.zeros(0, 2), torch.zeros(0)), "weights"),
        (lambda: Tableau.from_dict(table(times=[math.nan])), "finite"),
        (lambda: Tableau.from_dict(table(symbols=["x", "x"])), "symbols"),
        (lambda: Tableau.from_dict(table(weights=[[1.0, 1.0], [1.0, 1.0]])), "row 0"),
    ],
)
def test_hostile_inputs(call, words):
    with pytest.raises(ValueError, match=words):
        call()

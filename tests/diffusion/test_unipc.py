"""UniPC: its weights meet the order conditions, and it spends one evaluation a step."""

import math

import pytest

from pdebook.diffusion.sampling import exponential_step
from pdebook.diffusion.schedules import VPLinear, time_grid
from pdebook.diffusion.testbeds import ring2d
from pdebook.diffusion.unipc import unipc, unipc_weights


@pytest.mark.parametrize("b", ["bh1", "bh2"])
@pytest.mark.parametrize("prediction", ["noise", "data"])
@pytest.mark.parametrize("nodes", [[-1.2, -0.5], [-0.7, 1.0], [-2.0, -0.9, 1.0]])
def test_weights_integrate_polynomials_exactly(b: str, prediction: str, nodes: list[float]) -> None:
    """For m = ((λ - λ_s)/h)^q the exact step is scale h q! φ_{q+1}(z); the weights must give it for q up to their number."""
    step = exponential_step(VPLinear(), 0.8, 0.4, prediction)
    weights = unipc_weights(step, nodes, b)
    for q in range(1, len(nodes) + 1):
        applied = sum(w * r**q for w, r in zip(weights, nodes, strict=True))
        assert applied == pytest.approx(math.factorial(q) * step.weight(q + 1), rel=1e-11)


@pytest.mark.parametrize("node", [-0.8, 1.0])
def test_a_single_weight_is_one_half(node: float) -> None:
    step = exponential_step(VPLinear(), 0.8, 0.4, "data")
    assert unipc_weights(step, [node], "bh2") == [pytest.approx(0.5 * step.weight(1) / node, rel=1e-13)]
    assert unipc_weights(step, [node], "bh1") == [pytest.approx(0.5 * step.scale * step.h / node, rel=1e-13)]


@pytest.mark.parametrize(
    ("options", "evaluations"),
    [
        ({}, 8),
        ({"corrector": False}, 8),
        ({"ending": "full"}, 9),
        ({"ending": "full", "corrector": False}, 8),
        ({"order": 1}, 8),
    ],
)
def test_evaluations(options: dict[str, object], evaluations: int) -> None:
    bed = ring2d()
    denoiser = bed.mixture.denoiser(bed.schedule)
    unipc(denoiser, bed.initial(2), time_grid(bed.schedule, 8, end=1e-2), **options)
    assert denoiser.evaluations == evaluations

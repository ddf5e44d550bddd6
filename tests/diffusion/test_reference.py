"""The reference states its error truly, reaches ten digits, and says when it can't."""

import pytest
import torch

from pdebook.diffusion.exact import gaussian_flow
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.testbeds import gauss, ring2d


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-10])
def test_the_stated_error_bounds_the_true_one(tolerance: float) -> None:
    bed = gauss(0.25)
    x = bed.initial(16)
    solution = probability_flow(bed.mixture.denoiser(bed.schedule), x, 1.0, bed.end, tolerance=tolerance, steps=1)
    exact = gaussian_flow(bed.mixture.means[0], 0.25, bed.schedule, x, 1.0, bed.end)
    error = float((solution.x - exact).square().mean(1).sqrt().max())
    assert error <= solution.error + 1e-14  # rounding
    assert solution.error <= tolerance


def test_ten_digits_on_the_ring_and_order_eight() -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(16)
    fine = probability_flow(denoiser, x, 1.0, bed.end, tolerance=1e-10)
    assert fine.error <= 1e-10
    rough = probability_flow(denoiser, x, 1.0, bed.end, tolerance=1e-4)
    error = float((rough.x - fine.x).square().mean(1).sqrt().max())
    assert error <= rough.error
    # Order 8: halving the step divides the change by 256 in the limit; order 6 by 64, before the limit 130.
    changes = [probability_flow(denoiser, x, 1.0, bed.end, tolerance=1.0, steps=steps).error for steps in (16, 32)]
    assert changes[0] / changes[1] > 250


def test_result_keeps_the_dtype_and_runs_both_ways() -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(4)
    there = probability_flow(denoiser, x, 1.0, bed.end, tolerance=1e-9).x
    back = probability_flow(denoiser, there, bed.end, 1.0, tolerance=1e-9).x
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6)
    assert probability_flow(denoiser, x.float(), 1.0, bed.end).x.dtype == torch.float32


def test_what_cannot_be_reached_raises() -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(4)
    with pytest.raises(ArithmeticError, match="tolerance 1e-12 was not reached with 16 steps: the last change was"):
        probability_flow(denoiser, x, 1.0, bed.end, tolerance=1e-12, steps=8, max_steps=16)
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        probability_flow(denoiser, x, 1.0, bed.end, tolerance=0.0)

"""Runge-Kutta tableaux meet their order conditions; variables are the ones they say; scipy's solver agrees."""

import pytest
import torch

from pdebook.diffusion.baselines import RUNGE_KUTTA, RungeKutta, ddim, rk45, runge_kutta
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.exact import gaussian_flow
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.sampling import DivergenceError
from pdebook.diffusion.schedules import EDM, VPLinear, time_grid
from pdebook.diffusion.testbeds import gauss, ring2d


@pytest.mark.parametrize("method", RUNGE_KUTTA.values(), ids=RUNGE_KUTTA)
def test_order_conditions(method: RungeKutta) -> None:
    b, c = method.b, method.c
    assert [len(row) for row in method.a] == list(range(len(b)))
    for q in range(method.order):
        assert sum(w * node**q for w, node in zip(b, c, strict=True)) == pytest.approx(1 / (q + 1), rel=1e-14)
    if method.order >= 3:
        inner = [sum(a * node for a, node in zip(row, c, strict=False)) for row in method.a]
        assert sum(w * value for w, value in zip(b, inner, strict=True)) == pytest.approx(1 / 6, rel=1e-14)
    assert RUNGE_KUTTA[method.name] is method


def test_a_step_of_heun_by_hand() -> None:
    """In EDM's coordinates dx/dt = (x - D)/t = ε: EDM's own sampler."""
    mixture, x = ring2d().mixture, 5.0 * ring2d().initial(4)
    denoiser, s, t = mixture.denoiser(EDM()), 5.0, 2.0
    first = denoiser.noise(x, s)
    second = denoiser.noise(x + (t - s) * first, t)
    expected = x + (t - s) * (first + second) / 2
    for variable in ("time", "rho"):
        result = runge_kutta(denoiser, x, [s, t], method="heun", variable=variable)
        torch.testing.assert_close(result, expected, rtol=1e-13, atol=1e-13)


def test_a_step_of_ddim_by_hand() -> None:
    schedule, x = VPLinear(), ring2d().initial(4)
    denoiser, s, t = ring2d().mixture.denoiser(VPLinear()), 0.9, 0.5
    data, noise = denoiser.both(x, s)
    torch.testing.assert_close(ddim(denoiser, x, [s, t]), schedule.alpha(t) * data + schedule.sigma(t) * noise)


def test_scipys_solver_reaches_the_exact_flow() -> None:
    bed = gauss(0.25)
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(4)
    exact = gaussian_flow(bed.mixture.means[0], 0.25, bed.schedule, x, 1.0, bed.end)
    results = [rk45(denoiser, x, (1.0, bed.end), rtol=tol, atol=tol) for tol in (1e-3, 1e-6)]
    errors = [float((y - exact).abs().max()) for y, _ in results]
    assert errors[1] < 1e-4
    assert errors[1] < errors[0] / 20
    assert sum(count for _, count in results) == denoiser.evaluations
    assert rk45(denoiser, x, (1.0, 0.5))[0].dtype == torch.float64


def test_scipys_failure_is_reported() -> None:
    broken = Denoiser(lambda x, t: x * torch.nan, VPLinear())
    with pytest.raises(DivergenceError, match=r"rk45 stopped at time"):
        rk45(broken, torch.ones(2, 2, dtype=torch.float64), (1.0, 0.1))


def test_runge_kutta_in_every_variable_converges_to_one_flow() -> None:
    bed = ring2d()
    denoiser, x = bed.mixture.denoiser(bed.schedule), bed.initial(4)
    exact = probability_flow(denoiser, x, 1.0, bed.end).x
    for variable in ("time", "half_log_snr", "rho"):
        y = runge_kutta(denoiser, x, time_grid(bed.schedule, 100, end=bed.end), method="rk4", variable=variable)
        assert float((y - exact).abs().median()) < 1e-4

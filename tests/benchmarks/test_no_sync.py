"""A step on a fixed grid never waits for the device: nothing is read back on the host between the first step and the last.

On CUDA the driver's own check says so. Without one, every way in which a tensor's value reaches Python is counted; there it must
be zero from the first step on, whatever the number of steps.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pdebook.diffusion.baselines import ddim, runge_kutta
from pdebook.diffusion.denoiser import ClassifierFree, Denoiser, dynamic_thresholding
from pdebook.diffusion.dpm_solver import fast_orders, singlestep
from pdebook.diffusion.multistep import multistep, sde_multistep
from pdebook.diffusion.sampling import Sampler
from pdebook.diffusion.schedules import DiscreteVP, VPLinear, ddpm_betas, time_grid
from pdebook.diffusion.unipc import unipc

SAMPLERS: dict[str, tuple[Sampler, dict[str, Any]]] = {
    "singlestep": (singlestep, {"order": 3}),
    "singlestep data": (singlestep, {"order": 2, "prediction": "data", "variant": "taylor"}),
    "multistep 2": (multistep, {"order": 2}),
    "multistep 3": (multistep, {"order": 3, "prediction": "noise"}),
    "sde_multistep": (sde_multistep, {}),
    "unipc": (unipc, {"order": 3}),
    "ddim": (ddim, {"eta": 1.0}),
    "runge_kutta": (runge_kutta, {"method": "heun", "variable": "rho"}),
}


def guided(device: str) -> Denoiser:
    """A denoiser with guidance and thresholding, on a discrete schedule; its network is a toy."""
    label = torch.zeros(8, dtype=torch.int64, device=device)
    schedule = DiscreteVP.from_betas(ddpm_betas())
    return Denoiser(
        lambda x, t, condition: 0.5 * x + t[:, None] * 1e-3 + condition[:, None],
        schedule,
        time_input="discrete-1",
        guidance=ClassifierFree(label, -1, 2.0),
        hook=dynamic_thresholding(),
    )


def plain(device: str) -> Denoiser:
    return Denoiser(lambda x, t: 0.5 * x + t[:, None], VPLinear())


@pytest.mark.parametrize("make", [plain, guided])
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [6, 12])
def test_nothing_is_read_between_steps(name: str, make: Callable[[str], Denoiser], steps: int, reads: Any) -> None:
    sampler, options = SAMPLERS[name]
    if name in ("sde_multistep", "ddim"):
        # The generator looks at its sample numbers, on a CPU only.
        options = {**options, "noise": lambda k, x: torch.ones_like(x)}
    denoiser = make("cpu")
    iteration = sampler.iterate(denoiser, torch.ones(8, 4), time_grid(denoiser.schedule, steps), **options)
    reads.count = 0
    assert len(list(iteration)) == steps
    assert reads.count == 0


def test_a_grid_that_holds_the_stages_is_not_read(reads: Any) -> None:
    denoiser = plain("cpu")
    iteration = singlestep.iterate(denoiser, torch.ones(8, 4), time_grid(denoiser.schedule, 11), order=fast_orders(11))
    reads.count = 0
    assert len(list(iteration)) == len(fast_orders(11))
    assert reads.count == 0


def test_times_that_differ_by_sample_are_not_read_either(reads: Any) -> None:
    denoiser = plain("cpu")
    times = torch.tensor(time_grid(denoiser.schedule, 6)).repeat(8, 1)
    iteration = multistep.iterate(denoiser, torch.ones(8, 4), times, order=2)
    reads.count = 0
    assert len(list(iteration)) == 6
    assert reads.count == 0


def test_the_counter_counts(reads: Any) -> None:
    x = torch.ones(3)
    before = reads.count
    float(x[0]), bool(x[0] > 0), x.sum().item(), x.tolist(), x.cpu()
    assert reads.count - before == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("make", [plain, guided])
@pytest.mark.parametrize("name", SAMPLERS)
def test_no_synchronisation_on_cuda(name: str, make: Callable[[str], Denoiser]) -> None:
    sampler, options = SAMPLERS[name]
    denoiser, x = make("cuda"), torch.ones(8, 4, device="cuda")

    def start(steps: int) -> Iterator[Any]:
        return sampler.iterate(denoiser, x, time_grid(denoiser.schedule, steps), **options)

    list(start(6))
    iteration = start(12)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(iteration)) == 12
    finally:
        torch.cuda.set_sync_debug_mode("default")

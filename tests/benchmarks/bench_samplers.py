"""Time and memory of a sampler's own arithmetic, a step, against diffusers' schedulers.

    python tests/benchmarks/bench_samplers.py            (make bench; diffusers is in the environment that make peers makes)

The model and its conversions are left out: it returns one ready tensor, our denoiser is a stub, and the schedulers are told that
they get the data prediction. Ours and theirs take turns, one thread, the same noise levels; the table holds medians. Making the
scheduler's grid is not counted; our checks of the grid and of the result are.
"""

import argparse
import inspect
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pdebook.diffusion.deis import deis
from pdebook.diffusion.multistep import multistep
from pdebook.diffusion.pndm import ipndm, pndm
from pdebook.diffusion.schedules import NoiseSchedule, VPLinear
from pdebook.diffusion.unipc import unipc

try:
    import diffusers
except ImportError:
    diffusers = None

SHAPES = ((128, 64), (4, 4, 64, 64), (16, 3, 256, 256))
STEPS = 20
GOAL = 0.5
PAIRS: dict[str, tuple[Callable[..., Tensor], str, dict[str, Any]]] = {
    "DPM-Solver++ 2M": (multistep, "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "UniPC-2": (unipc, "UniPCMultistepScheduler", {"solver_type": "bh2"}),
    "DEIS λAB1": (partial(deis, degree=1, variable="half_log_snr"), "DEISMultistepScheduler", {}),
    "PNDM (PLMS)": (
        partial(pndm, warmup="heun"),
        "PNDMScheduler",
        {"skip_prk_steps": True, "prediction_type": "epsilon"},
    ),
    "iPNDM": (ipndm, "IPNDMScheduler", {}),
}
"""Ours and theirs of one order. Their DEIS has λAB only; their iPNDM has a schedule of its own."""


class Stub:
    """A model that costs nothing."""

    def __init__(self, schedule: NoiseSchedule, answer: Tensor) -> None:
        self.schedule = schedule
        self.answer = answer

    def data(self, x: Tensor, t: Any) -> Tensor:
        return self.answer

    noise = data


def theirs(name: str, config: dict[str, Any]) -> Any:
    """A scheduler of diffusers, told that the model predicts the data where it may."""
    options = {
        "prediction_type": "sample",
        "solver_order": 2,
        "final_sigmas_type": "sigma_min",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        **config,
    }
    scheduler = getattr(diffusers, name)
    known = inspect.signature(scheduler.__init__).parameters
    return scheduler(**{key: value for key, value in options.items() if key in known})


def run_theirs(scheduler: Any, x: Tensor, answer: Tensor) -> Tensor:
    for t in scheduler.timesteps:
        x = scheduler.step(answer, t, x, return_dict=False)[0]
    return x


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def allocated(run: Callable[[], Any]) -> int:
    """Most bytes of tensors that a run holds at once beyond what it was given."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def measure(shape: tuple[int, ...], label: str, repeats: int) -> dict[str, float]:
    """Medians for one shape and sampler."""
    sampler, name, config = PAIRS[label]
    generator = torch.Generator().manual_seed(0)
    x, answer = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    schedule = VPLinear()
    times = [1.0 - 0.999 * i / STEPS for i in range(STEPS + 1)]
    if diffusers is not None:
        scheduler = theirs(name, config)
        scheduler.set_timesteps(STEPS)
        if "solver_order" in scheduler.config:
            times = schedule.time(-scheduler.sigmas.double().log()).tolist()
    model = Stub(schedule, answer)
    runs: dict[str, Callable[[], Any]] = {"ours": lambda: sampler(model, x, times)}
    elapsed: dict[str, list[float]] = {"ours": [], "theirs": []}

    def fresh() -> Callable[[], Any]:
        scheduler.set_timesteps(STEPS)
        return lambda: run_theirs(scheduler, x, answer)

    with torch.no_grad():
        for turn in range(repeats + 2):
            ours_first = timed(runs["ours"])
            other = timed(fresh()) if diffusers is not None else float("nan")
            if turn >= 2:
                elapsed["ours"].append(ours_first / STEPS)
                elapsed["theirs"].append(other / STEPS)
        result = {key: statistics.median(values) for key, values in elapsed.items()}
        unit = x.numel() * x.element_size()
        result["ours memory"] = allocated(runs["ours"]) / unit
        result["theirs memory"] = allocated(fresh()) / unit if diffusers is not None else float("nan")
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=0, help="runs of each; chosen by size if left out")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    if diffusers is None:
        print("diffusers is not installed here (make peers): only our own figures")
    version = "none" if diffusers is None else diffusers.__version__
    print(f"torch {torch.__version__}, diffusers {version}, CPU, one thread, {STEPS} steps, float32")
    print("microseconds a step; memory in units of the state, the most held at once; goal for the ratio: at most", GOAL)
    header = ("sampler", "state", "ours", "theirs", "ratio", "memory", "theirs")
    print("{:16} {:18} {:>10} {:>10} {:>6} {:>7} {:>7}".format(*header))
    for label in PAIRS:
        for shape in SHAPES:
            count = repeats or (100 if torch.Size(shape).numel() < 1e6 else 9)
            result = measure(shape, label, count)
            ratio = result["ours"] / result["theirs"]
            print(
                f"{label:16} {shape!s:18} {result['ours'] * 1e6:10.1f} {result['theirs'] * 1e6:10.1f} {ratio:6.2f} "
                f"{result['ours memory']:7.2f} {result['theirs memory']:7.2f}"
            )


if __name__ == "__main__":
    main()

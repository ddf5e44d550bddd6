"""Time of Brownian increments over steps whose times differ by sample, against torchsde's BrownianInterval.

    python tests/benchmarks/bench_brownian.py            (make bench; torchsde is in the environment that make peers makes)

A sample of torchsde's has an interval of its own, since one interval answers one pair of times: it must loop over them. Ours
answers all samples in one call. Both see the same times: steps of a solver, one after another, and steps at random places. In the
row "shared" all samples have the same times, and torchsde has one interval for the batch. One thread, float64; ours and theirs take
turns by the run of steps, and the table holds medians of processor time, per batch of 256 samples and step.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.brownian import BrownianTree

try:
    import torchsde
except ImportError:
    torchsde = None

BATCH = 256
STEP = 2.0**-7
GOAL = 10.0


def steps(kind: str, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Times (batch,) of starts and ends in [0, 1]: steps of 0.5 to 1.5 times STEP."""
    generator = torch.Generator().manual_seed(seed)
    h = STEP * (0.5 + torch.rand(count, BATCH, generator=generator, dtype=torch.float64))
    if kind == "random":
        start = torch.rand(count, BATCH, generator=generator, dtype=torch.float64) * (1.0 - 2.0 * STEP)
    else:
        if kind == "shared":
            h = h[:, :1].expand(-1, BATCH)
        start = h.cumsum(0) - h
    return list(zip(start, start + h, strict=True))


def run_ours(tree: BrownianTree, grid: list[tuple[Any, Any]]) -> float:
    """Seconds of a run of steps."""
    start = time.process_time()
    for s, t in grid:
        tree.increment(s, t)
    return time.process_time() - start


def run_theirs(intervals: list[Any], grid: list[tuple[list[float], list[float]]], space_time: bool) -> float:
    """Seconds of a run of steps, one interval for each sample or one for all."""
    start = time.process_time()
    for starts, ends in grid:
        results = [interval(s, t, return_U=space_time) for interval, s, t in zip(intervals, starts, ends, strict=False)]
        for part in zip(*results, strict=True) if space_time else [results]:
            torch.stack(part)
    return time.process_time() - start


def measure(kind: str, noise: int, space_time: bool, count: int, repeats: int) -> tuple[float, float]:
    """Medians of the seconds per step: ours, theirs."""
    ours, theirs = [], []
    # The first run of each warms up.
    for repeat in range(repeats + 1):
        grid = steps(kind, count, repeat)
        shared = kind == "shared"
        tree = BrownianTree(repeat, 0.0, 1.0, (noise,), tolerance=STEP / 4, samples=BATCH, space_time=space_time)
        ours.append(run_ours(tree, [(float(s[0]), float(t[0])) for s, t in grid] if shared else grid) / count)
        if torchsde is None:
            theirs.append(float("nan"))
            continue
        options = {"levy_area_approximation": "space-time" if space_time else "none", "dtype": torch.float64}
        size = (BATCH, noise) if shared else (noise,)
        intervals = [
            torchsde.BrownianInterval(0.0, 1.0, size=size, entropy=BATCH * repeat + i, **options)
            for i in range(1 if shared else BATCH)
        ]
        theirs.append(run_theirs(intervals, [(s.tolist(), t.tolist()) for s, t in grid], space_time) / count)
    return statistics.median(ours[1:]), statistics.median(theirs[1:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each")
    parser.add_argument("--steps", type=int, default=60, help="steps in a run, at most 80")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if torchsde is None:
        print("torchsde is not installed here (make peers): only our own figures")
    version = "none" if torchsde is None else torchsde.__version__
    print(f"torch {torch.__version__}, torchsde {version}, CPU, one thread, {BATCH} samples, float64, steps of 1/128")
    print(f"milliseconds a step of the batch; goal for the ratio where times differ by sample: at least {GOAL:g}")
    print("{:8} {:>5} {:>5} {:>8} {:>8} {:>6}".format("times", "noise", "area", "ours", "theirs", "ratio"))
    for kind in ("steps", "random", "shared"):
        for noise in (1, 4):
            for space_time in (False, True):
                result = measure(kind, noise, space_time, options.steps, options.repeats)
                ours, theirs = (1e3 * seconds for seconds in result)
                area = "yes" if space_time else "no"
                print(f"{kind:8} {noise:5} {area:>5} {ours:8.3f} {theirs:8.3f} {theirs / ours:6.1f}")


if __name__ == "__main__":
    main()

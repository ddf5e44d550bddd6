"""Timing side by side: programs that do the same work take turns, so that a busy moment hits all of them."""

import statistics
import time
from collections.abc import Callable

from torch import Tensor

Run = Callable[[], Tensor]


def take_turns(runs: dict[str, Run], steps: int, repeats: int) -> dict[str, tuple[float, Tensor]]:
    """Median process time of a step, and the result."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            before = time.process_time()
            results[name] = run()
            if repeat:  # the first round warms up
                seconds[name].append((time.process_time() - before) / steps)
    return {name: (statistics.median(values), results[name]) for name, values in seconds.items()}

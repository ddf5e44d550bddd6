"""Time of spectral convolutions and of a whole FNO step against neuraloperator with its default options.

    python tests/benchmarks/bench_operators.py            (make bench; neuraloperator is in the environment that make peers makes)

Forward and backward pass with gradients of input and weights, float32, one thread, process time on a CPU and events on a GPU. Ours
and theirs take turns on the same sizes; a figure is the least of so many runs after three to warm up. Tucker weights of rank 0.1
are compared with the faster of their two implementations. Exits with an error where a goal is missed.
"""

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pdebook.nn.fno import FNO
from pdebook.nn.spectral import SpectralConv

try:
    import neuralop.layers.spectral_convolution
    import neuralop.models
except ImportError:
    neuralop = None

CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], int, int], ...] = (
    ((1024,), (32,), 64, 16),
    ((64, 64), (12, 12), 32, 8),
    ((64, 64), (24, 24), 64, 8),
    ((128, 128), (32, 32), 64, 4),
    ((32, 32, 32), (8, 8, 8), 20, 4),
    ((64, 64, 16), (12, 12, 8), 20, 2),
)
"""Grid, modes, channels, batch: the six layer sizes of the chapters on operators."""
GOALS = {"dense": (1.0, 1.8), "tucker": (0.0, 1.3), "step": (0.0, 1.3)}
"""Least ratio of a single case, and of the geometric mean."""


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds."""
    if device.type == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop)
    begin = time.process_time()
    run()
    return 1e3 * (time.process_time() - begin)


def least(runs: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, float]:
    """Least time of each, all of them taking turns."""
    for run in runs.values():
        for _ in range(3):
            run()
    found = dict.fromkeys(runs, math.inf)
    for _ in range(repeats):
        for name, run in runs.items():
            found[name] = min(found[name], timed(run, device))
    return found


def both_ways(layer: nn.Module, x: Tensor, g: Tensor) -> Callable[[], Any]:
    """One forward and backward pass."""
    parameters = list(layer.parameters())
    return lambda: torch.autograd.grad(layer(x), [x, *parameters], g)


def step(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Any]:
    """One step of training."""
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)

    def run() -> None:
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()

    return run


def layers(kind: str, size: tuple[int, ...], modes: tuple[int, ...], channels: int) -> dict[str, nn.Module]:
    """Ours, and theirs if it is there."""
    rank = {"rank": 0.1} if kind == "tucker" else {}
    found: dict[str, nn.Module] = {"ours": SpectralConv(channels, channels, modes, weight=kind, **rank)}
    if neuralop is not None:
        conv = neuralop.layers.spectral_convolution.SpectralConv
        if kind == "dense":
            found["theirs"] = conv(channels, channels, modes)
        else:
            for way in ("factorized", "reconstructed"):
                found[f"theirs, {way}"] = conv(
                    channels, channels, modes, factorization=kind, implementation=way, **rank
                )
    return found


def line(name: str, found: dict[str, float]) -> float:
    """Prints a line; ratio of the faster of theirs to ours."""
    theirs = [value for key, value in found.items() if key != "ours"]
    ratio = min(theirs) / found["ours"] if theirs else math.nan
    print(f"{name:36} {found['ours']:9.1f}  " + " ".join(f"{value:9.1f}" for value in theirs) + f"  {ratio:6.2f}")
    return ratio


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device, repeats = torch.device(arguments.device), arguments.repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    missed = []
    if neuralop is None:
        print("neuraloperator is not installed (make peers installs it): our times alone")
    for kind in ("dense", "tucker"):
        print(f"{kind + ', ms forward and backward':36} {'ours':>9}  {'theirs':>9}")
        ratios = []
        for size, modes, channels, batch in CASES:
            x = torch.randn(batch, channels, *size, device=device, requires_grad=True)
            g = torch.randn_like(x)
            found = {
                name: both_ways(layer.to(device), x, g) for name, layer in layers(kind, size, modes, channels).items()
            }
            ratios.append(line(f"{size}, {modes}, {channels}, {batch}", least(found, repeats, device)))
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if neuralop is not None else math.nan
        print(f"geometric mean {mean:.2f}\n")
        one, all_of_them = GOALS[kind]
        if min(ratios) < one or mean < all_of_them:
            missed.append(kind)
    x, y = (torch.randn(8, 1, 64, 64, device=device) for _ in range(2))
    nets: dict[str, nn.Module] = {"ours": FNO(1, 1, (24, 24), width=64)}
    if neuralop is not None:
        nets["theirs"] = neuralop.models.FNO(n_modes=(24, 24), in_channels=1, out_channels=1, hidden_channels=64)
    runs = {name: step(net.to(device), x, y) for name, net in nets.items()}
    if line("FNO step 64², 24² modes, 64, 8", least(runs, repeats, device)) < GOALS["step"][1]:
        missed.append("step")
    if missed:
        sys.exit(f"goals missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()

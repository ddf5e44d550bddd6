"""Time per step of the finite-volume method, eager and compiled.

    python tests/benchmarks/bench_finite_volume.py             (make bench)

float32, one thread, no gradients, CPU seconds (process time), the best of the repeats. A step of "midpoint" evaluates the
right-hand side twice, of "ssprk3" three times. ``--compiled`` adds the compiled method, which takes minutes to compile.
``--small`` only shows that it runs. ``--profile`` shows the operators that take most time.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pdebook.pde.finite_volume import FiniteVolume
from pdebook.pde.fluids import Euler, ShallowWater
from pdebook.pde.grid import Grid
from pdebook.pde.laws import Burgers, Law
from pdebook.pde.reconstruction import Muscl, Weno5Z
from pdebook.rng import uniform


def gas(batch: int, size: int, dims: int) -> tuple[Euler, Grid, Tensor]:
    """Smooth flow with an amplitude for each sample."""
    law, grid = Euler(dims), Grid((size,) * dims)
    wave = sum(torch.sin(2 * math.pi * (x + 0.1 * k)) for k, x in enumerate(grid.coordinates(dtype=torch.float32)))
    wave = wave * uniform(1, torch.arange(batch), dtype=torch.float32).view(-1, *[1] * dims)
    w = torch.stack([1 + 0.1 * wave, *[0.3 * wave] * dims, 1 + 0.1 * wave], 1)
    return law, grid, law.conserved(w)


def water(batch: int, size: int) -> tuple[ShallowWater, Grid, Tensor]:
    """Radial dams."""
    law, grid = ShallowWater(2), Grid((size, size), 5.0, -2.5)
    x, y = grid.coordinates(dtype=torch.float32)
    radius = 0.3 + 0.4 * uniform(1, torch.arange(batch), dtype=torch.float32).view(-1, 1, 1)
    h = torch.where(x * x + y * y <= radius * radius, 2.0, 1.0)
    return law, grid, torch.stack([h, 0 * h, 0 * h], 1)


def lines(batch: int, size: int) -> tuple[Burgers, Grid, Tensor]:
    """Sines of several amplitudes."""
    grid = Grid(size)
    (x,) = grid.coordinates(dtype=torch.float32)
    return Burgers(1), grid, torch.sin(2 * math.pi * x) * torch.linspace(0.5, 1.5, batch)[:, None, None]


def cases(small: bool) -> dict[str, Callable[[], tuple[Law, Grid, Tensor]]]:
    """Problems by name, or small ones of the same kinds."""
    if small:
        return {
            "Euler 2D, 2 x 32^2": lambda: gas(2, 32, 2),
            "Euler 1D, 4 x 128": lambda: gas(4, 128, 1),
            "Euler 3D, 1 x 12^3": lambda: gas(1, 12, 3),
            "shallow water 2D, 2 x 32^2": lambda: water(2, 32),
            "Burgers 1D, 10 x 128": lambda: lines(10, 128),
        }
    return {
        "Euler 2D, 32 x 256^2": lambda: gas(32, 256, 2),
        "Euler 1D, 64 x 1024": lambda: gas(64, 1024, 1),
        "Euler 3D, 1 x 64^3": lambda: gas(1, 64, 3),
        "shallow water 2D, 16 x 128^2": lambda: water(16, 128),
        "Burgers 1D, 1000 x 1024": lambda: lines(1000, 1024),
    }


def milliseconds(fv: FiniteVolume, u: Tensor, repeats: int, steps: int = 4) -> float:
    """CPU time of a step of ``advance``, all that it does included."""
    dt = 0.5 * fv.stable_dt(u).min()
    fv.advance(u, [float(dt)], dt=float(dt))
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        fv.advance(u, [float(steps * dt)], dt=float(dt))
        best = min(best, time.process_time() - start)
    return 1e3 * best / steps


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="small problems, to see that it runs")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        for name, make in cases(arguments.small).items():
            law, grid, u = make()
            variants = {
                "midpoint, MUSCL": FiniteVolume(law, grid, method="midpoint"),
                "ssprk3, MUSCL": FiniteVolume(law, grid),
                "ssprk3, minmod": FiniteVolume(law, grid, reconstruction=Muscl("minmod")),
                "ssprk3, WENO5-Z": FiniteVolume(law, grid, reconstruction=Weno5Z()),
            }
            if arguments.compiled:
                variants["midpoint, MUSCL, compiled"] = FiniteVolume(law, grid, method="midpoint", compiled=True)
            print(name)
            for variant, fv in variants.items():
                took = milliseconds(fv, u, arguments.repeats)
                cells = u.shape[0] * math.prod(grid.size)
                print(f"  {variant:28s} {took:9.2f} ms a step  {1e6 * took / cells:7.1f} ns a cell", flush=True)
            if arguments.profile:
                with profile(activities=[ProfilerActivity.CPU]) as record:
                    variants["midpoint, MUSCL"].step(u[:1], 1e-4)
                print(
                    record.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=30)
                )


if __name__ == "__main__":
    main()

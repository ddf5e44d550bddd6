"""Time of a spectral step against exponax and torch-cfd: same equation, grid, step and scheme, in one run; and growth with size.

    python tests/benchmarks/bench_semilinear.py [--repeats 5] [--growth]

One CPU thread, float32, no gradients; process time of a step, the median of rounds in which the programs take turns; compilation and
coefficients are not counted. exponax runs as one compiled loop over its vmapped ETDRK4 step; torch-cfd with its low-storage
Carpenter-Kennedy and Crank-Nicolson scheme, ours with the same. What is printed beside a time is the largest difference of the
results over the largest value. A peer that is not installed is left out.
"""

import argparse
import math
import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor
from turns import Run, take_turns

from pdebook.pde.equation import Semilinear
from pdebook.pde.equations import Burgers, KuramotoSivashinsky
from pdebook.pde.grid import Grid
from pdebook.pde.navier_stokes import Vorticity
from pdebook.pde.semilinear import Stepper
from pdebook.rng import uniform

try:
    import exponax
    import jax
    import jax.numpy as jnp
except ImportError:
    exponax = None
try:
    from torch_cfd.grids import Grid as PeerGrid
    from torch_cfd.spectral import NavierStokes2DSpectral, RK4CrankNicolsonStepper
except ImportError:
    NavierStokes2DSpectral = None

GOALS = {
    ("exponax", "Burgers 1000 x 1024"): 2.0,
    ("exponax", "vorticity 1 x 256^2"): 1.0,
    ("exponax", "vorticity 16 x 64^2"): 1 / 1.5,
    ("torch-cfd", "vorticity 1 x 256^2"): 1.3,
    ("torch-cfd", "vorticity 1 x 512^2"): 1.5,
    ("torch-cfd", "vorticity 1 x 1024^2"): 1.5,
}
VISCOSITY = 1e-3


def waves(grid: Grid, batch: int) -> Tensor:
    """A start of a few random low waves for each sample, of size one."""
    parts = grid.coordinates("nodes", dtype=torch.float32)
    numbers = uniform(1, torch.arange(batch), (4, grid.dims + 1))
    total = torch.zeros(batch, 1, *grid.size)
    for k in range(4):
        phase: Tensor = 2 * math.pi * numbers[:, k, -1].reshape(-1, 1, *[1] * grid.dims)
        for axis, x in enumerate(parts):
            wave = (1 + 3 * numbers[:, k, axis]).floor().reshape(-1, 1, *[1] * grid.dims)
            phase = phase + 2 * math.pi / grid.length[axis] * wave * x
        total += torch.sin(phase) / 2
    return total


def ours(equation: Semilinear, u: Tensor, dt: float, steps: int, method: str = "etdrk4") -> Run:
    """Our steps."""
    stepper = Stepper(equation, dt, method)
    return lambda: stepper.rollout(u, steps, steps)[:, 0]


def with_exponax(stepper: object, u: Tensor, steps: int, sign: float = 1.0) -> Run:
    """Theirs, compiled; its vorticity is minus ours."""
    step = jax.jit(lambda v: jax.lax.fori_loop(0, steps, lambda _, w: jax.vmap(stepper)(w), v))
    start = jnp.asarray(sign * u.numpy())
    return lambda: sign * torch.from_numpy(np.array(step(start).block_until_ready()))


def with_torch_cfd(n: int, u: Tensor, dt: float, steps: int) -> Run:
    """Theirs: coefficients of the vorticity, stepped in Fourier space as it is meant."""
    grid = PeerGrid((n, n), domain=((0, 1.0), (0, 1.0)))
    equation = NavierStokes2DSpectral(
        viscosity=VISCOSITY, grid=grid, drag=0.0, smooth=True, step_fn=RK4CrankNicolsonStepper()
    )
    start = torch.fft.rfft2(u[:, 0])
    return lambda: torch.fft.irfft2(equation(start, dt, steps=steps)[0])[:, None]


def table(case: str, measured: dict[str, tuple[float, Tensor]]) -> None:
    """Print a case."""
    own, result = measured["ours"]
    print(case)
    for name, (seconds, other) in measured.items():
        note = ""
        if name != "ours":
            goal = GOALS.get((name, case))
            difference = float((other - result).abs().max() / result.abs().max())
            note = (
                f"  {seconds / own:5.2f} times ours"
                + (f" (goal {goal:.2f})" if goal else "")
                + f", differs by {difference:.1e}"
            )
        print(f"  {name:10s} {1e3 * seconds:9.3f} ms{note}")


def against_exponax(repeats: int) -> None:
    """Fourth order on both sides."""
    for batch, n, steps in ((1000, 1024, 10), (64, 256, 100)):
        u = waves(Grid(n), batch)
        runs = {"ours": ours(Burgers(Grid(n), 0.01 / math.pi), u, 2e-4, steps)}
        peer = exponax.stepper.Burgers(1, 1.0, n, 2e-4, diffusivity=0.01 / math.pi, order=4)
        runs["exponax"] = with_exponax(peer, u, steps)
        table(f"Burgers {batch} x {n}", take_turns(runs, steps, repeats))
    u = waves(Grid(200, 60.0), 64)
    runs = {"ours": ours(KuramotoSivashinsky(Grid(200, 60.0)), u, 0.05, 100)}
    runs["exponax"] = with_exponax(exponax.stepper.KuramotoSivashinskyConservative(1, 60.0, 200, 0.05, order=4), u, 100)
    table("Kuramoto-Sivashinsky 64 x 200", take_turns(runs, 100, repeats))
    for batch, n, steps in ((1, 64, 100), (1, 256, 20), (16, 64, 20), (1, 512, 10)):
        u = 10 * waves(Grid((n, n)), batch)
        runs = {"ours": ours(Vorticity(Grid((n, n)), VISCOSITY), u, 1e-3, steps)}
        peer = exponax.stepper.NavierStokesVorticity(2, 1.0, n, 1e-3, diffusivity=VISCOSITY, order=4)
        runs["exponax"] = with_exponax(peer, u, steps, -1.0)
        table(f"vorticity {batch} x {n}^2", take_turns(runs, steps, repeats))


def against_torch_cfd(repeats: int) -> None:
    """Its scheme on both sides; then the time to equal error with a scheme of fourth order on ours."""
    for n, steps in ((256, 10), (512, 5), (1024, 3)):
        u = 10 * waves(Grid((n, n)), 1)
        equation = Vorticity(Grid((n, n)), VISCOSITY)
        runs = {"ours": ours(equation, u, 2e-4, steps, "carpenter-kennedy4")}
        runs["torch-cfd"] = with_torch_cfd(n, u, 2e-4, steps)
        table(f"vorticity 1 x {n}^2", take_turns(runs, steps, repeats))
    equal_error(repeats)


def equal_error(repeats: int) -> None:
    """Seconds to t = 0.5 against the error in time, from a fine solution in float64."""
    n, end = 256, 0.5
    grid = Grid((n, n))
    u = 10 * waves(grid, 1)
    equation = Vorticity(grid, VISCOSITY)
    truth = Stepper(equation, end / 400).rollout(u.double(), 400, 400)[:, 0]

    def error(result: Tensor) -> float:
        return float((result - truth).norm() / truth.norm())

    print(f"vorticity 1 x {n}^2 to t = {end}: relative error and seconds")
    rows: dict[str, list[tuple[float, float]]] = {"ours": [], "torch-cfd": []}
    for name, counts in (("ours", (25, 28, 32, 36, 40, 50, 64)), ("torch-cfd", (25, 28, 32, 36, 40, 50, 64, 100, 200))):
        for steps in counts:
            dt = end / steps
            run = ours(equation, u, dt, steps) if name == "ours" else with_torch_cfd(n, u, dt, steps)
            try:
                seconds, result = take_turns({name: run}, 1, max(1, repeats // 3))[name]
            except ArithmeticError:
                print(f"  {name:10s} {steps:5d} steps   unstable")
                continue
            rows[name].append((error(result), seconds))
            print(f"  {name:10s} {steps:5d} steps   {error(result):.1e}  {seconds:7.3f} s")
    for wanted, seconds in rows["torch-cfd"]:
        better = [time for reached, time in rows["ours"] if reached <= wanted]
        if better:
            print(f"  at {wanted:.1e}: {seconds / min(better):.1f} times our time (goal 2)")


def growth(repeats: int) -> None:
    """Time of a step as the grid grows, and over N log N."""
    print("growth: ms a step, and ns a step over N log2 N")
    for name, sizes, make in (
        ("Burgers", [1 << p for p in range(8, 21, 2)], lambda n: (Burgers(Grid(n), 0.01), waves(Grid(n), 1))),
        ("vorticity", [32, 64, 128, 256, 512, 1024], lambda n: (Vorticity(Grid((n, n)), 1e-3), waves(Grid((n, n)), 1))),
    ):
        for n in sizes:
            equation, u = make(n)
            points = u[0].numel()
            steps = max(2, min(200, (1 << 21) // points))
            seconds, _ = take_turns({"ours": ours(equation, u, 1e-5, steps)}, steps, repeats)["ours"]
            print(f"  {name:10s} {n:8d} {1e3 * seconds:10.4f} {1e9 * seconds / (points * math.log2(points)):8.2f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="only the growth with the grid")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        if not options.growth:
            if exponax is not None:
                against_exponax(options.repeats)
            if NavierStokes2DSpectral is not None:
                against_torch_cfd(options.repeats)
        growth(options.repeats)


if __name__ == "__main__":
    main()

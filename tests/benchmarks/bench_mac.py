"""Time of a staggered step against jax-cfd: same scheme, grid, start and step, in one run.

    python tests/benchmarks/bench_mac.py [--repeats 7] [--profile] [--compiled]

One CPU thread, float32, periodic, no gradients; process time of a step, the median of rounds in which the programs take turns;
compilation is not counted. jax-cfd runs as one compiled loop over its vmapped step, ours as plain calls, and with --compiled also
under ``torch.compile``. What is printed beside a time is the largest difference of the results over the largest value. Without
jax-cfd only our times are printed.

| scheme | jax-cfd | ours |
|---|---|---|
| van Leer, implicit diffusion | ``implicit_diffusion_navier_stokes`` | ``step`` |
| linear, implicit diffusion | the same with ``convect_linear`` | ``step`` with ``linear`` |
| linear, explicit Euler | ``semi_implicit_navier_stokes`` with ``convect_linear`` | v + Δt ``tendency`` |
"""

import argparse
import math
import os
from collections.abc import Callable
from functools import partial

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor
from turns import Run, take_turns

from pdebook.pde.grid import Grid
from pdebook.pde.interpolation import linear, van_leer
from pdebook.pde.mac import MAC

try:
    import jax

    if not hasattr(jax, "tree_map"):  # which jax-cfd 0.2.1 asks for, and newer versions of jax have elsewhere
        jax.tree_map = jax.tree_util.tree_map
    import jax.numpy as jnp
    import jax_cfd.base as cfd
except ImportError:
    cfd = None

Step = Callable[[Tensor], Tensor]
VISCOSITY, COURANT, GOAL = 1e-2, 0.2, 3.0
SCHEMES = ("van Leer, implicit diffusion", "linear, implicit diffusion", "linear, explicit Euler")


def start(mac: MAC, batch: int) -> Tensor:
    """A few random waves, without divergence, of speed one at most."""
    n = mac.grid.size[0]
    noise = torch.randn(batch, 2, n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    waves = torch.fft.rfft2(noise)
    k = torch.fft.fftfreq(n, 1 / n).abs()
    waves[..., (k[:, None] > 6) | (k[: n // 2 + 1] > 6)] = 0
    v = mac.project(torch.fft.irfft2(waves, s=(n, n)))
    return (v / v.abs().amax((1, 2, 3), keepdim=True)).float()


def ours(mac: MAC, scheme: str, dt: float) -> Step:
    """Our step."""
    if scheme == "linear, explicit Euler":
        return lambda v: v + dt * mac.tendency(v, VISCOSITY)
    return partial(mac.step, dt=dt, viscosity=VISCOSITY, carried=linear if scheme.startswith("linear") else van_leer)


def repeated(step: Step, v: Tensor, steps: int) -> Run:
    """Many steps."""

    def run() -> Tensor:
        u = v
        for _ in range(steps):
            u = step(u)
        return u

    return run


def with_jax_cfd(n: int, scheme: str, dt: float, v: Tensor, steps: int) -> Run:
    """Theirs, compiled. Its velocities stand on the upper faces: ours, one place further."""
    grid = cfd.grids.Grid((n, n), domain=((0, 2 * math.pi), (0, 2 * math.pi)))
    sides = cfd.boundaries.periodic_boundary_conditions(2)
    convect = cfd.advection.convect_linear if scheme.startswith("linear") else None
    explicit = scheme == "linear, explicit Euler"
    make = cfd.equations.semi_implicit_navier_stokes if explicit else cfd.equations.implicit_diffusion_navier_stokes
    inner = make(density=1.0, viscosity=VISCOSITY, dt=dt, grid=grid, convect=convect)

    def step(w: "jax.Array") -> "jax.Array":
        fields = [
            cfd.grids.GridVariable(cfd.grids.GridArray(w[j], offset, grid), sides)
            for j, offset in enumerate(grid.cell_faces)
        ]
        return jnp.stack([u.data for u in inner(tuple(fields))])

    loop = jax.jit(lambda w: jax.lax.fori_loop(0, steps, lambda _, x: jax.vmap(step)(x), w))

    def moved(u: Tensor, by: int) -> Tensor:
        return torch.stack([u[:, 0].roll(by, 1), u[:, 1].roll(by, 2)], 1)

    first = jnp.asarray(moved(v, -1).numpy())
    return lambda: moved(torch.from_numpy(np.array(loop(first).block_until_ready())), 1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="print the operations of our steps")
    parser.add_argument("--compiled", action="store_true", help="also time our steps under torch.compile")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'ms a step':44s} {'ours':>8s} {'compiled' if options.compiled else '':>9s} {'jax-cfd':>8s}  ratio  difference"
    )
    with torch.no_grad():
        for scheme in SCHEMES:
            for n, batch in ((64, 1), (128, 1), (256, 1), (64, 16), (128, 16), (256, 16)):
                mac = MAC(Grid((n, n), 2 * math.pi))
                v, dt = start(mac, batch), COURANT * 2 * math.pi / n
                steps = max(3, min(100, (1 << 20) // (batch * n * n)))
                step = ours(mac, scheme, dt)
                runs = {"ours": repeated(step, v, steps)}
                if options.compiled:
                    torch.compiler.reset()
                    runs["compiled"] = repeated(torch.compile(step, dynamic=False), v, steps)
                if cfd is not None:
                    runs["jax-cfd"] = with_jax_cfd(n, scheme, dt, v, steps)
                measured = take_turns(runs, steps, options.repeats)
                own, result = measured["ours"]
                line = f"{scheme:30s} {batch:2d} x {n:3d}^2   {1e3 * own:8.3f}"
                line += f" {1e3 * measured['compiled'][0]:9.3f}" if options.compiled else " " * 10
                if cfd is not None:
                    theirs, other = measured["jax-cfd"]
                    difference = float((other - result).abs().max() / result.abs().max())
                    line += f" {1e3 * theirs:8.3f} {own / theirs:6.2f}  {difference:.1e}"
                print(line, flush=True)
                if options.profile and batch == 1:
                    with torch.profiler.profile() as record:
                        step(v)
                    table = record.key_averages().table(sort_by="self_cpu_time_total", row_limit=14)
                    print(table, f"\n{sum(event.name.startswith('aten::') for event in record.events())} operations")
    if cfd is not None:
        print(f"goal: at most {GOAL:g} times jax-cfd's time")


if __name__ == "__main__":
    main()

"""Time of elliptic solves against SciPy's sparse factorisation, and of a staggered step: same systems, same accuracy, one thread.

    python tests/benchmarks/bench_elliptic.py             (make bench)

Darcy's problem with PDEBench's coefficients, 32 samples. SciPy factorises each matrix; building it is not counted. Ours include
all set-up. The table holds medians of process time, and errors against a tight solution. Counts are those of conjugate gradients.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from pdebook.algebra.structured import tridiagonal_solve
from pdebook.pde.elliptic import Diffusion, poisson
from pdebook.pde.grid import Grid
from pdebook.pde.mac import MAC
from pdebook.pde.starts import darcy_coefficient

SAMPLES, GOAL = 32, 5.0


def matrix(problem: Diffusion, sample: int) -> scipy.sparse.csc_array:
    """The sparse matrix of one sample."""
    n, m = problem.grid.size
    number = np.arange(n * m).reshape(n, m)
    along_x, along_y = (face[sample, 0].numpy() for face in problem.operator.faces)
    x, y = along_x[1:-1].ravel(), along_y[:, 1:-1].ravel()
    pairs = [(number[:-1].ravel(), number[1:].ravel(), x), (number[:, :-1].ravel(), number[:, 1:].ravel(), y)]
    rows = np.concatenate([number.ravel(), *[part for low, high, _ in pairs for part in (low, high)]])
    columns = np.concatenate([number.ravel(), *[part for low, high, _ in pairs for part in (high, low)]])
    values = np.concatenate(
        [problem.operator.diagonal[sample, 0].numpy().ravel(), *[-w for _, _, w in pairs for _ in (0, 1)]]
    )
    return scipy.sparse.csc_array((values, (rows, columns)))


def solved(grid: Grid, a: Tensor, f: Tensor, options: dict) -> Tensor:
    """Our solution, set-up included."""
    return Diffusion(grid, a).solve(f, **options)


def timed(run: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Median process time after a first round that warms up, and the result."""
    result, seconds = run(), []
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    for n in (64, 128, 256):
        grid = Grid((n, n))
        a = darcy_coefficient(0, torch.arange(SAMPLES), grid, dtype=torch.float64)
        f = torch.ones_like(a)
        exact = Diffusion(grid, a).result(f, rtol=1e-12).x
        matrices = [matrix(Diffusion(grid, a), sample) for sample in range(SAMPLES)]

        def sparse(matrices: list = matrices, f: Tensor = f) -> Tensor:
            right = f[0].numpy().ravel()
            return torch.stack([torch.as_tensor(scipy.sparse.linalg.spsolve(m, right)) for m in matrices]).view_as(f)

        print(f"Darcy, {SAMPLES} x {n}^2")
        base, x = timed(sparse, 1)
        print(
            f"  {'scipy spsolve, float64':32s} {1e3 * base:9.1f} ms  error {float((x - exact).norm() / exact.norm()):.1e}"
        )
        for dtype, rtol in ((torch.float32, None), (torch.float64, 1e-6), (torch.float64, 1e-10)):
            for name in ("multigrid", "poisson"):
                coefficient, source = a.to(dtype), f.to(dtype)
                options = {"preconditioner": name} if rtol is None else {"preconditioner": name, "rtol": rtol}
                ours = partial(solved, grid, coefficient, source, options)
                seconds, x = timed(ours, repeats)
                count = int(Diffusion(grid, coefficient).result(source, **options).iterations.max())
                label = f"{name}, {str(dtype)[6:]}, {'default' if rtol is None else rtol}"
                print(
                    f"  {label:32s} {1e3 * seconds:9.1f} ms  error {float((x - exact).norm() / exact.norm()):.1e}  {count:3d} steps"
                    f"  {base / seconds:5.1f} times as fast" + (f" (goal {GOAL})" if n == 128 else "")
                )
        seconds, _ = timed(lambda f=f, grid=grid: poisson(f.float(), grid), repeats)
        print(f"  {'constant a: one fast solve':32s} {1e3 * seconds:9.1f} ms")
    for batch in (1, 64, 1024):
        parts = [torch.rand(batch, 1024) for _ in range(4)]
        parts[1] = parts[1] + 2.0
        seconds, _ = timed(lambda parts=parts: tridiagonal_solve(*parts), 10)
        print(f"tridiagonal, {batch} x 1024, float32   {1e3 * seconds:9.2f} ms")
    for n in (64, 128, 256):
        mac = MAC(Grid((n, n), 6.283185307179586))
        v = mac.project(torch.randn(1, 2, n, n, generator=torch.Generator().manual_seed(0)))
        with torch.no_grad():
            seconds, _ = timed(lambda mac=mac, v=v: mac.step(v, 1e-3, 1e-3), 20)
        print(f"staggered step, 1 x {n}^2, float32     {1e3 * seconds:9.2f} ms")


if __name__ == "__main__":
    main()

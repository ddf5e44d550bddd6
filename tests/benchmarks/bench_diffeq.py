"""Time of ``solve`` against torchdiffeq and torchode: same equation, method, tolerance and trajectories, in one run.

    python tests/benchmarks/bench_diffeq.py             (make bench; the peers are in the environment that make peers makes)

Dopri5, tolerance 1e-6, float64, 256 trajectories, one thread; no gradients. Ours and theirs take turns; the table holds medians of
processor time, passes of the loop (theirs: calls of the field over six), and the largest error against a tight solution, so that
speed is not bought with accuracy. The peers' error estimate of Dopri5 is 2/3 of Dormand and Prince's own, which is ours: the
second line has our tolerance at 3/2 of theirs, so that both mean the same by it.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pdebook.diffeq.controllers import PID
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import ODE
from pdebook.rng import normal, uniform

try:
    import torchdiffeq
except ImportError:
    torchdiffeq = None
try:
    import torchode
except ImportError:
    torchode = None

Field = Callable[[Tensor, Tensor], Tensor]
BATCH, TOLERANCE = 256, 1e-6


def van_der_pol(t: Tensor, y: Tensor) -> Tensor:
    """Van der Pol's oscillator with one damping for each trajectory, between 5 and 10."""
    x, v = y[:, 0], y[:, 1]
    return torch.stack([v, MU * (1 - x * x) * v - x], 1)


def lorenz(t: Tensor, y: Tensor) -> Tensor:
    """Lorenz's equations."""
    x, v, z = y[:, 0], y[:, 1], y[:, 2]
    return torch.stack([10.0 * (v - x), x * (28.0 - z) - v, x * v - 8.0 / 3.0 * z], 1)


MU = uniform(1, torch.arange(BATCH), dtype=torch.float64) * 5.0 + 5.0
PROBLEMS: dict[str, tuple[Field, Tensor, float]] = {
    "van der Pol, 5 <= mu <= 10, t <= 20": (
        van_der_pol,
        2.0 * normal(2, torch.arange(BATCH), (2,), dtype=torch.float64).tanh(),
        20.0,
    ),
    "Lorenz, t <= 5": (lorenz, 5.0 * normal(3, torch.arange(BATCH), (3,), dtype=torch.float64), 5.0),
}
GOALS = {"torchdiffeq": {"van der Pol, 5 <= mu <= 10, t <= 20": 4.0, "Lorenz, t <= 5": 2.0}, "torchode": {}}


def ours(field: Field, y0: Tensor, end: float, tolerance: float = TOLERANCE) -> Tensor:
    """Our solution."""
    return solve(ODE(field), y0, 0.0, end, solver="dopri5", controller=PID(tolerance, tolerance), max_steps=100_000).ys


def ours_scaled(field: Field, y0: Tensor, end: float) -> Tensor:
    """Our solution with the tolerance that means what theirs does."""
    return ours(field, y0, end, 1.5 * TOLERANCE)


def with_torchdiffeq(field: Field, y0: Tensor, end: float) -> Tensor:
    """Theirs: one step for the whole batch."""
    times = torch.tensor([0.0, end], dtype=torch.float64)
    return torchdiffeq.odeint(field, y0, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")[-1]


def with_torchode(compiled: bool) -> Callable[..., Tensor]:
    """Theirs: a step for each trajectory; eager, or with its step compiled by TorchScript."""
    solvers: dict[int, object] = {}

    def run(field: Field, y0: Tensor, end: float) -> Tensor:
        if id(field) not in solvers:
            term = torchode.ODETerm(field)
            method = torchode.Dopri5(term=term)
            control = torchode.IntegralController(atol=TOLERANCE, rtol=TOLERANCE, term=term)
            adjoint = torchode.AutoDiffAdjoint(method, control)
            solvers[id(field)] = torch.compile(adjoint) if compiled else adjoint
        start, stop = torch.zeros(BATCH, dtype=torch.float64), torch.full((BATCH,), end, dtype=torch.float64)
        problem = torchode.InitialValueProblem(y0=y0, t_start=start, t_end=stop, t_eval=stop[:, None])
        return solvers[id(field)].solve(problem).ys[:, -1]

    return run


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    methods: dict[str, Callable[..., Tensor]] = {"ours": ours, "ours, 3/2": ours_scaled}
    if torchdiffeq is not None:
        methods["torchdiffeq"] = with_torchdiffeq
    if torchode is not None:
        methods["torchode"] = with_torchode(compiled=False)
    with torch.no_grad():
        for name, (field, y0, end) in PROBLEMS.items():
            tight = solve(ODE(field), y0, 0.0, end, solver="dopri8", controller=PID(1e-11, 1e-11), max_steps=100_000).ys
            seconds: dict[str, list[float]] = {peer: [] for peer in methods}
            errors, passes = {}, {}
            for peer, run in methods.items():
                count = [0]

                def counted(t: Tensor, y: Tensor, field: Field = field, count: list[int] = count) -> Tensor:
                    count[0] += 1
                    return field(t, y)

                run(counted, y0, end)
                passes[peer] = count[0] // 6
            for repeat in range(repeats + 1):
                for peer, run in methods.items():
                    start = time.process_time()
                    result = run(field, y0, end)
                    if repeat:  # the first round warms up
                        seconds[peer].append(time.process_time() - start)
                    errors[peer] = float((result - tight).abs().max())
            print(name)
            own = statistics.median(seconds["ours"])
            for peer, values in seconds.items():
                median = statistics.median(values)
                goal = GOALS.get(peer, {}).get(name)
                note = (
                    "" if peer == "ours" else f"  {median / own:5.2f} times ours" + (f" (goal {goal})" if goal else "")
                )
                print(f"  {peer:12s} {1e3 * median:9.1f} ms  {passes[peer]:5d} passes  error {errors[peer]:.1e}{note}")
            calls = 500
            start, t = time.process_time(), torch.zeros(BATCH, dtype=torch.float64)
            for _ in range(calls):
                field(t, y0)
            spent = (time.process_time() - start) / calls * 6 * passes["ours"]
            print(f"  of ours {1e3 * spent:5.1f} ms in the field")


if __name__ == "__main__":
    main()

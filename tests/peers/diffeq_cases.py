"""Differential equations that ours and the peers solve: problems written once for torch and jax, and our results."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.backsolve import Backsolve
from pdebook.diffeq.brownian import BrownianTree
from pdebook.diffeq.compat import odeint
from pdebook.diffeq.controllers import PID, Constant
from pdebook.diffeq.events import Event
from pdebook.diffeq.implicit import DiagonallyImplicit
from pdebook.diffeq.reversible import Reversible
from pdebook.diffeq.solve import solve
from pdebook.diffeq.tableaus import TABLEAUS
from pdebook.diffeq.terms import ODE, SDE

# Steps of length 1/8 are exact in binary, so that all add them up to the same times.
STEPS, END = 8, 1.0
START = ((1.5, 0.0), (0.3, 1.2))
WEIGHTS = ((0.3, -0.2), (0.5, 0.1))
# Scaled errors of a series of trials; those above 1 are rejected. No accepted one asks for a smaller step.
ERRORS = (0.01, 0.005, 0.004, 3.0, 40.0, 0.001, 0.0005, 1e9, 5.0, 0.0004, 0.0003)
PID_COEFFICIENTS = {"i": (0.0, 1.0, 0.0), "pi": (0.4, 0.3, 0.0), "pid": (0.2, 0.4, 0.1)}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: unique within its peer.
        kind: what is compared: "fixed", "steps", "first step", "control", "adaptive", "dense", "event", "gradient", "stochastic" or
            "reversal".
        method: our name of the method.
        bound: largest difference over largest magnitude, float64.
        config: what else the kind needs.
    """

    name: str
    kind: str
    method: str
    bound: float
    config: dict[str, Any] = field(default_factory=dict)


def forced_pendulum(xp: Any, t: Any, y: Any) -> Any:
    """θ'' = -sin θ + 0.3 cos t, for xp torch or jax.numpy."""
    return xp.stack([y[..., 1], -xp.sin(y[..., 0]) + 0.3 * xp.cos(t)], -1)


def decay(xp: Any, t: Any, y: Any) -> Any:
    """y' = -y²: from a fitting first step, all accepted steps grow."""
    return -(y**2)


def layer(xp: Any, t: Any, y: Any, w: Any) -> Any:
    """A layer that depends on time."""
    return xp.tanh(y @ w) + 0.3 * xp.cos(t)


FIELDS = {"pendulum": forced_pendulum, "decay": decay}


def drift(xp: Any, t: Any, y: Any) -> Any:
    """Drift of the stochastic problems, of one sample or of samples with one time."""
    return xp.sin(t) - y**2 / (1.0 + y**2)


def diffusion(xp: Any, noise: str, t: Any, y: Any) -> Any:
    """Diffusion by kind of noise; (..., 2, 3) for additive (or even constant) and general noise."""
    if noise in ("diagonal", "scalar"):
        return 0.2 + 0.3 * xp.cos(y)
    t = 0.0 * t if noise == "constant" else t
    ones = xp.ones_like(y)
    columns = [(0.5 + 0.2 * xp.cos(t)) * ones, 0.3 * ones * xp.cos(2.0 * t), 0.1 * ones]
    if noise == "general":
        columns = [columns[0] * xp.cos(y), columns[1] + 0.2 * y, columns[2]]
    return xp.stack(columns, -1)


def tree(noise: str) -> BrownianTree:
    """The path that everybody sees."""
    size = {"diagonal": 2, "scalar": 1}.get(noise, 3)
    return BrownianTree(7, 0.0, END, (size,), tolerance=END / (2 * STEPS), samples=2, space_time=True)


def start() -> Tensor:
    """Two initial states."""
    return torch.tensor(START, dtype=torch.float64)


def times_of(case: Case) -> Tensor:
    """Times inside one step, for dense output."""
    count = 2 if case.config.get("ends") else 6
    return torch.linspace(0.0, case.config["step"], count, dtype=torch.float64)


def _ode(case: Case) -> ODE:
    function = FIELDS[case.config.get("field", "pendulum")]
    return ODE(lambda t, y: function(torch, t, y))


def _sde(case: Case) -> SDE:
    """The stochastic problem, with one factor of both functions as argument."""
    noise = case.config["noise"]
    return SDE(
        lambda t, y, s: s * drift(torch, t[:, None], y),
        lambda t, y, s: s * diffusion(torch, noise, t[:, None], y),
        tree(noise),
        "additive" if noise == "constant" else noise,
        case.config["calculus"],
    )


def ours(case: Case) -> Tensor:
    """Our result, as one tensor."""
    kinds = {
        "fixed": _fixed,
        "steps": _steps,
        "first step": _first_step,
        "control": _control,
        "adaptive": _adaptive,
        "dense": _dense,
        "event": _event,
        "gradient": _gradient,
        "stochastic": _stochastic,
        "reversal": _reversal,
    }
    return kinds[case.kind](case)


def _fixed(case: Case) -> Tensor:
    if "compat" in case.config:
        times = torch.linspace(0.0, END, STEPS + 1, dtype=torch.float64)
        return odeint(lambda t, y: forced_pendulum(torch, t, y), start(), times, method=case.config["compat"])[-1]
    solver: Any = case.method
    if case.method in TABLEAUS and TABLEAUS[case.method].implicit:
        solver = DiagonallyImplicit(TABLEAUS[case.method], rtol=1e-12, atol=1e-12)
    return solve(_ode(case), start(), 0.0, END, solver=solver, controller=Constant(steps=STEPS)).ys


def _pid(case: Case) -> PID:
    tolerance = case.config["tolerance"] * case.config.get("error ratio", 1.0)
    p, i, d = PID_COEFFICIENTS[case.config.get("control", "i")]
    return PID(tolerance, tolerance, p=p, i=i, d=d, first_step=case.config.get("first"))


def _steps(case: Case) -> Tensor:
    y0 = torch.tensor([case.config.get("start", START[0])], dtype=torch.float64)
    term, end = _ode(case), case.config["end"]
    solution = solve(term, y0, 0.0, end, solver=case.method, controller=_pid(case), steps=True)
    assert solution.steps is not None
    return torch.cat([solution.steps[:, 0], solution.ys[0]])


def _first_step(case: Case) -> Tensor:
    return _steps(case)[1:2]


def _control(case: Case) -> Tensor:
    """Sizes of the steps that a controller wants after a series of errors, some too large."""
    control, h, past, sizes = _pid(case), 0.1, (torch.ones(1).double(), torch.ones(1).double()), []
    for error in ERRORS:
        ratio = torch.tensor([error], dtype=torch.float64)
        h = h * float(control.factor(ratio, past, case.config["order"]))
        past = (ratio, past[0]) if error <= 1 else past
        sizes.append(h)
    return torch.tensor(sizes, dtype=torch.float64)


def _adaptive(case: Case) -> Tensor:
    return solve(_ode(case), start(), 0.0, 5.0, solver=case.method, controller=_pid(case), max_steps=100_000).ys


def _dense(case: Case) -> Tensor:
    step, times = case.config["step"], times_of(case)
    return solve(_ode(case), start(), 0.0, step, solver=case.method, controller=Constant(steps=1), ts=times).ys


def _event(case: Case) -> Tensor:
    event = Event(lambda t, y: y[:, 0])
    return solve(_ode(case), start(), 0.0, 10.0, solver=case.method, controller=_pid(case), event=event).t


def _gradient(case: Case) -> Tensor:
    y0, w = start().requires_grad_(), torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True)
    control = _pid(case)
    adjoint = Backsolve(controller=control, seminorm=case.config["seminorm"])
    term = ODE(lambda t, y, w: layer(torch, t[:, None], y, w))
    ys = solve(term, y0, 0.0, 2.0, solver="dopri5", controller=control, ts=[1.0, 2.0], args=(w,), adjoint=adjoint).ys
    return torch.cat([g.flatten() for g in torch.autograd.grad((ys**2).sum(), [y0, w])])


def _sde_ends(case: Case, y0: Tensor, factor: Tensor, **options: Any) -> Tensor:
    fixed = Constant(steps=STEPS)
    return solve(_sde(case), y0, 0.0, END, solver=case.method, controller=fixed, args=(factor,), **options).ys


def _stochastic(case: Case) -> Tensor:
    return _sde_ends(case, start(), torch.tensor(1.0, dtype=torch.float64))


def _reversal(case: Case) -> Tensor:
    y0, factor = start().requires_grad_(), torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    ys = _sde_ends(case, y0, factor, adjoint=Reversible())
    return torch.cat([g.flatten() for g in torch.autograd.grad((ys**2).sum(), [y0, factor])])


def _cases() -> dict[str, tuple[Case, ...]]:
    exact, tight = 1e-13, {"tolerance": 1e-10}
    walk = {"field": "decay", "start": (1.0, 2.0), "end": 40.0, "tolerance": 1e-6}
    # Theirs for dopri5 is the embedded method with 1951/21600 as first weight; its distance to the step is 2/3 of that of Dormand
    # and Prince's own, with 5179/57600. So a tolerance of ours is one of theirs times 3/2.
    ratio = {"dopri5": 1.5}

    def steps(method: str, control: str, bound: float = 1e-9, **config: Any) -> Case:
        """Accepted times, and the state at the end."""
        found = {**walk, "error ratio": ratio.get(method, 1.0), "control": control, **config}
        return Case(f"{method}: {control} steps, {found.get('field')}", "steps", method, bound, found)

    def first(method: str, bound: float) -> Case:
        return Case(f"{method}: first step", "first step", method, bound, {**walk, "end": 1.0, "first": None})

    def stochastic(method: str, calculus: str, noises: tuple[str, ...]) -> list[Case]:
        return [
            Case(f"{method}, {noise}", "stochastic", method, exact, {"noise": noise, "calculus": calculus})
            for noise in noises
        ]

    every = ("diagonal", "scalar", "additive", "general")
    compat = ("euler", "midpoint", "rk4")
    fixed = ("euler", "heun", "midpoint", "ralston", "bosh3", "dopri5", "tsit5", "dopri8", "reversible-heun")
    return {
        "torchdiffeq": (
            *(Case(f"{method}: fixed steps", "fixed", method, exact, {"compat": method}) for method in compat),
            *(Case(f"{m}: one step", "dense", m, exact, {"step": 0.5, "ends": True}) for m in ("bosh3", "heun")),
            Case("dopri8: one step", "dense", "dopri8", 1e-12, {"step": 0.5, "ends": True}),
            Case("dopri5: inside a step", "dense", "dopri5", exact, {"step": 0.5}),
            first("dopri5", 1e-12),
            steps("dopri5", "i", first=0.05),
            Case("dopri5: tolerance", "adaptive", "dopri5", 1e-8, tight),
            Case("dopri5: event", "event", "dopri5", 1e-8, tight),
            *(
                Case(f"adjoint, {name}", "gradient", "dopri5", 1e-8, {**tight, "seminorm": name == "seminorm"})
                for name in ("full norm", "seminorm")
            ),
        ),
        "torchode": (
            *(Case(f"{m}: inside a step", "dense", m, exact, {"step": 0.5}) for m in ("dopri5", "tsit5")),
            first("dopri5", 1e-7),
            # Their tolerances are float32 numbers.
            *(
                steps(method, control, 1e-7, first=8.0, **other)
                for method in ("dopri5", "tsit5")
                for control in PID_COEFFICIENTS
                for other in ({}, {"field": "pendulum", "start": START[0], "end": 10.0})
            ),
        ),
        "torchsde": (
            *stochastic("euler-maruyama", "ito", every),
            *stochastic("milstein", "ito", ("diagonal", "scalar")),
            *stochastic("srid2", "ito", ("diagonal", "scalar")),
            *stochastic("sra1", "ito", ("additive",)),
            *stochastic("euler-heun", "stratonovich", every),
            *stochastic("heun-sde", "stratonovich", every),
            *stochastic("reversible-heun", "stratonovich", every),
            *(
                Case(
                    f"reversible-heun: adjoint, {noise}",
                    "reversal",
                    "reversible-heun",
                    1e-12,
                    {"noise": noise, "calculus": "stratonovich"},
                )
                for noise in every
            ),
        ),
        "diffrax": (
            *(Case(f"{method}: fixed steps", "fixed", method, exact) for method in fixed),
            *(Case(f"{m}: fixed steps", "fixed", m, 1e-11) for m in ("implicit-euler", "kvaerno3", "kvaerno5")),
            *(Case(f"{m}: inside a step", "dense", m, exact, {"step": 0.5}) for m in ("bosh3", "dopri5", "tsit5")),
            steps("dopri5", "i", first=0.05),
            steps("tsit5", "i", first=3.0),
            *(steps("dopri8", control, 1e-8, first=0.15) for control in PID_COEFFICIENTS),
            *(
                Case(f"{control}: control", "control", "", exact, {"tolerance": 1.0, "control": control, "order": 5})
                for control in PID_COEFFICIENTS
            ),
            Case("tsit5: tolerance", "adaptive", "tsit5", 1e-8, tight),
            Case("kvaerno5: tolerance", "adaptive", "kvaerno5", 1e-6, {"tolerance": 1e-8}),
            Case("tsit5: event", "event", "tsit5", 1e-8, tight),
            *stochastic("euler-maruyama", "ito", every),
            *stochastic("milstein", "ito", ("diagonal", "scalar")),
            # Theirs takes all diffusions of a step of Euler-Heun and SRA1 at other times than the papers.
            *stochastic("sra1", "ito", ("constant",)),
            *stochastic("euler-heun", "stratonovich", ("diagonal", "scalar", "constant")),
            *stochastic("heun-sde", "stratonovich", every),
            *stochastic("reversible-heun", "stratonovich", every),
        ),
    }


CASES = _cases()
"""By peer. Tolerances: rounding where both sides take the same steps, the tolerance of the solve where they do not."""

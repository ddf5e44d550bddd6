"""The problems of ``diffeq_cases`` solved by torchdiffeq, torchode, torchsde and diffrax; imports each where it is needed.

There is no case where theirs is another method: torchdiffeq's interpolants of ``bosh3`` and ``dopri8`` (so only ends of steps are
compared); classical RK4, velocity Verlet and SRID2, which diffrax does not have, its interpolant of ``Dopri8``, and its automatic
first step, which is 0.01 whatever the equation (version 0.7.2). torchdiffeq and diffrax never shrink a step after one that was
accepted, ours and torchode do where the error says so: whole step sequences are compared with torchode, and with the others where
accepted steps only grow.
"""

from typing import Any

import comparison
import torch
from diffeq_cases import (
    CASES,
    END,
    ERRORS,
    FIELDS,
    PID_COEFFICIENTS,
    START,
    STEPS,
    WEIGHTS,
    Case,
    diffusion,
    drift,
    layer,
    ours,
    start,
    times_of,
    tree,
)
from torch import Tensor


def with_torchdiffeq(case: Case) -> Tensor:
    """Their result."""
    import torchdiffeq

    config = case.config
    function = FIELDS[config.get("field", "pendulum")]

    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(WEIGHTS, dtype=torch.float64))
            self.ends = [0.0]

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return layer(torch, t, y, self.w) if case.kind == "gradient" else function(torch, t, y)

        def callback_accept_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
            self.ends.append(float(t0 + dt))

    model = Field()
    method = {"heun": "adaptive_heun"}.get(case.method, case.method)
    tolerance = {"rtol": config.get("tolerance", 1e3), "atol": config.get("tolerance", 1e3)}
    if case.kind == "fixed":
        times = torch.linspace(0.0, END, STEPS + 1, dtype=torch.float64)
        return torchdiffeq.odeint(model, start(), times, method=method)[-1].detach()
    if case.kind == "gradient":
        y0 = start().requires_grad_()
        times = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        options = {"norm": "seminorm"} if config["seminorm"] else {}
        ys = torchdiffeq.odeint_adjoint(model, y0, times, method=method, adjoint_options=options, **tolerance)
        return torch.cat([g.flatten() for g in torch.autograd.grad((ys[1:] ** 2).sum(), [y0, model.w])])
    with torch.no_grad():
        if case.kind == "dense":
            # One step of the whole length, whatever its error.
            options = {"first_step": config["step"]}
            ys = torchdiffeq.odeint(model, start(), times_of(case), method=method, options=options, **tolerance)
            return ys.movedim(0, 1)
        if case.kind == "adaptive":
            times = torch.tensor([0.0, 5.0], dtype=torch.float64)
            return torchdiffeq.odeint(model, start(), times, method=method, **tolerance)[-1]
        if case.kind == "event":
            found = []
            for y0 in start():
                when, _ = torchdiffeq.odeint_event(
                    model,
                    y0,
                    torch.zeros((), dtype=torch.float64),
                    event_fn=lambda t, y: y[0],
                    method=method,
                    **tolerance,
                )
                found.append(when)
            return torch.stack(found)
        y0, end = torch.tensor(config.get("start", START[0]), dtype=torch.float64), config["end"]
        options = {} if config["first"] is None else {"first_step": config["first"]}
        times = torch.tensor([0.0, end], dtype=torch.float64)
        torchdiffeq.odeint(model, y0, times, method=method, options=options, **tolerance)
        # Their last step goes past the end, where they interpolate.
        ends = torch.tensor([t for t in model.ends if t < end], dtype=torch.float64)
        return ends[1:2] if case.kind == "first step" else ends


def with_torchode(case: Case) -> Tensor:
    """Their result."""
    import torchode

    config = case.config
    function = FIELDS[config.get("field", "pendulum")]
    term = torchode.ODETerm(lambda t, y: function(torch, t, y))
    method = {"dopri5": torchode.Dopri5, "tsit5": torchode.Tsit5}[case.method](term=term)
    ends = [0.0]
    p, i, d = PID_COEFFICIENTS[config.get("control", "i")]

    class Recording(torchode.PIDController):
        def adapt_step_size(self, t0: Tensor, dt: Tensor, *args: Any) -> Any:
            result = super().adapt_step_size(t0, dt, *args)
            if bool(result[0].all()):
                ends.append(float((t0 + dt)[0]))
            return result

    tolerance = config.get("tolerance", 1e3)
    control = Recording(atol=tolerance, rtol=tolerance, pcoeff=p, icoeff=i, dcoeff=d, term=term)
    solver = torchode.AutoDiffAdjoint(method, control)
    with torch.no_grad():
        if case.kind == "dense":
            y0, times, first = start(), times_of(case).expand(2, -1), torch.full((2,), config["step"])
        else:
            y0 = torch.tensor([config.get("start", START[0])], dtype=torch.float64)
            times = torch.tensor([[0.0, config["end"]]], dtype=torch.float64)
            first = None if config.get("first") is None else torch.full((1,), config["first"])
        problem = torchode.InitialValueProblem(y0=y0, t_start=times[:, 0], t_end=times[:, -1], t_eval=times)
        ys = solver.solve(problem, dt0=None if first is None else first.double()).ys
    if case.kind == "dense":
        return ys
    if case.kind == "first step":
        return torch.tensor(ends[1:2], dtype=torch.float64)
    return torch.cat([torch.tensor(ends, dtype=torch.float64), ys[0, -1]])


def with_torchsde(case: Case) -> Tensor:
    """Their result."""
    import torchsde

    noise, calculus = case.config["noise"], case.config["calculus"]
    path = tree(noise)

    class Path(torchsde.BaseBrownian):
        dtype, device, levy_area_approximation = torch.float64, torch.device("cpu"), "space-time"
        shape = torch.Size((2, *path.shape))

        def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
            step = path.increment(ta, tb)
            return (step.w, step.h * (0.5 * step.w + step.area)) if return_U else step.w

        def __repr__(self) -> str:
            return "path"

    class Problem(torch.nn.Module):
        noise_type, sde_type = noise, calculus

        def __init__(self) -> None:
            super().__init__()
            factor = 0.8 if case.kind == "reversal" else 1.0
            self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return self.factor * drift(torch, t, y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            values = self.factor * diffusion(torch, noise, t, y)
            return values[..., None] if noise == "scalar" else values

    method = {
        "euler-maruyama": "euler",
        "srid2": "srk",
        "sra1": "srk",
        "euler-heun": "euler_heun",
        "heun-sde": "heun",
        "reversible-heun": "reversible_heun",
    }.get(case.method, case.method)
    model, times = Problem(), torch.tensor([0.0, END], dtype=torch.float64)
    options: dict[str, Any] = {"bm": Path(), "method": method, "dt": END / STEPS}
    if case.kind == "reversal":
        y0 = start().requires_grad_()
        ys = torchsde.sdeint_adjoint(model, y0, times, adjoint_method="adjoint_reversible_heun", **options)
        return torch.cat([g.flatten() for g in torch.autograd.grad((ys[-1] ** 2).sum(), [y0, model.factor])])
    return torchsde.sdeint(model, start(), times, **options)[-1].detach()


def with_diffrax(case: Case) -> Tensor:
    """Their result."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import optimistix

    jax.config.update("jax_enable_x64", True)
    config, name = case.config, case.method
    if case.kind == "stochastic":
        return _diffrax_stochastic(case)
    if case.kind == "control":
        return _diffrax_control(case)
    solvers = {
        "euler": diffrax.Euler,
        "heun": diffrax.Heun,
        "midpoint": diffrax.Midpoint,
        "ralston": diffrax.Ralston,
        "bosh3": diffrax.Bosh3,
        "dopri5": diffrax.Dopri5,
        "tsit5": diffrax.Tsit5,
        "dopri8": diffrax.Dopri8,
        "reversible-heun": diffrax.ReversibleHeun,
    }
    implicit = {"implicit-euler": diffrax.ImplicitEuler, "kvaerno3": diffrax.Kvaerno3, "kvaerno5": diffrax.Kvaerno5}
    if name in implicit:
        solver: Any = implicit[name](root_finder=optimistix.Newton(1e-13, 1e-13))
    else:
        solver = solvers[name]()
    function = FIELDS[config.get("field", "pendulum")]
    term = diffrax.ODETerm(lambda t, y, args: function(jnp, t, y))
    fixed, saved = diffrax.ConstantStepSize(), diffrax.SaveAt(t1=True)
    states = jnp.array(START)

    def tensor(value: Any) -> Tensor:
        import numpy as np

        return torch.from_numpy(np.array(value))

    if case.kind == "fixed":
        run = diffrax.diffeqsolve(
            term, solver, 0.0, END, END / STEPS, states, saveat=saved, stepsize_controller=fixed, max_steps=STEPS
        )
        return tensor(run.ys[-1])
    if case.kind == "dense":
        at = diffrax.SaveAt(ts=jnp.array(times_of(case).numpy()))
        run = diffrax.diffeqsolve(
            term, solver, 0.0, config["step"], config["step"], states, saveat=at, stepsize_controller=fixed
        )
        return tensor(jnp.moveaxis(run.ys, 0, 1))
    p, i, d = PID_COEFFICIENTS[config.get("control", "i")]
    control = diffrax.PIDController(config["tolerance"], config["tolerance"], pcoeff=p, icoeff=i, dcoeff=d)
    if case.kind in ("steps", "first step"):
        run = diffrax.diffeqsolve(
            term,
            solver,
            0.0,
            config["end"],
            config["first"],
            jnp.array(config.get("start", START[0])),
            saveat=diffrax.SaveAt(t0=True, steps=True),
            stepsize_controller=control,
        )
        count = int(jnp.isfinite(run.ts).sum())
        if case.kind == "first step":
            return tensor(run.ts[1:2])
        return torch.cat([tensor(run.ts[:count]), tensor(run.ys[count - 1])])
    event = None
    if case.kind == "event":
        root = optimistix.Newton(1e-12, 1e-12)
        event = diffrax.Event(lambda t, y, args, **_: y[0], root_finder=root)

    def one(y0: Any) -> Any:
        end = 10.0 if event is not None else 5.0
        return diffrax.diffeqsolve(
            term, solver, 0.0, end, None, y0, stepsize_controller=control, event=event, max_steps=100_000
        )

    runs = [one(y0) for y0 in states]
    return torch.stack([tensor(run.ts[-1] if event is not None else run.ys[-1]) for run in runs])


def _diffrax_control(case: Case) -> Tensor:
    import diffrax
    import jax.numpy as jnp

    p, i, d = PID_COEFFICIENTS[case.config["control"]]
    control = diffrax.PIDController(0.0, 1.0, pcoeff=p, icoeff=i, dcoeff=d)
    state: Any = (jnp.array(1.0), jnp.array(1.0), jnp.array(False))
    t, h, y, sizes = jnp.array(0.0), jnp.array(0.1), jnp.zeros(1), []
    for error in ERRORS:
        _, t, t_next, _, state, _ = control.adapt_step_size(
            t, t + h, y, y, None, jnp.full(1, error), case.config["order"], state
        )
        h = t_next - t
        sizes.append(float(h))
    return torch.tensor(sizes, dtype=torch.float64)


def _diffrax_stochastic(case: Case) -> Tensor:
    import diffrax
    import jax
    import jax.numpy as jnp
    import lineax
    import numpy as np

    noise, path = case.config["noise"], tree(case.config["noise"])
    steps = [path.increment(k * END / STEPS, (k + 1) * END / STEPS) for k in range(STEPS)]
    # (sample, step, noise)
    increments, areas = (
        jnp.array(torch.stack(parts, 1).numpy()) for parts in ([s.w for s in steps], [s.area for s in steps])
    )

    class Path(diffrax.AbstractBrownianPath):
        w: jax.Array
        h: jax.Array
        levy_area: Any = diffrax.SpaceTimeLevyArea

        @property
        def t0(self) -> float:
            return 0.0

        @property
        def t1(self) -> float:
            return END

        def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
            k = jnp.round(t0 * STEPS / END).astype(int)
            if not use_levy:
                return self.w[k]
            return diffrax.SpaceTimeLevyArea(dt=t1 - t0, W=self.w[k], H=self.h[k])

    def g(t: Any, y: Any, args: Any) -> Any:
        values = diffusion(jnp, noise, t, y)
        if noise == "diagonal":
            return lineax.DiagonalLinearOperator(values)
        return lineax.MatrixLinearOperator(values[:, None] if noise == "scalar" else values)

    solver = {
        "euler-maruyama": diffrax.Euler,
        "milstein": diffrax.ItoMilstein,
        "sra1": diffrax.SRA1,
        "euler-heun": diffrax.EulerHeun,
        "heun-sde": diffrax.Heun,
        "reversible-heun": diffrax.ReversibleHeun,
    }[case.method]()

    def one(y0: Any, w: Any, h: Any) -> Any:
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: drift(jnp, t, y)), diffrax.ControlTerm(g, Path(w, h))
        )
        return diffrax.diffeqsolve(terms, solver, 0.0, END, END / STEPS, y0, max_steps=STEPS).ys[-1]

    return torch.from_numpy(np.array(jax.vmap(one)(jnp.array(START), increments, areas)))


THEIRS = {
    "torchdiffeq": with_torchdiffeq,
    "torchode": with_torchode,
    "torchsde": with_torchsde,
    "diffrax": with_diffrax,
}


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference over largest magnitude; a shorter list of steps is compared as far as it goes."""
    if a.ndim == 1 and len(b) < len(a):
        a = a[: len(b)]
    return comparison.difference(a, b)


def references(peer: str) -> dict[str, Any]:
    """Run a peer, print how far ours is from it, and return what is to be stored."""
    cases = {}
    for case in CASES[peer]:
        result = THEIRS[peer](case)
        off = difference(ours(case), result)
        print(f"{off:9.1e}  {peer}: {case.name}" + ("" if off < case.bound else f"  ABOVE {case.bound:g}"))
        cases[case.name] = {"value": result.tolist()}
    return {"cases": cases}

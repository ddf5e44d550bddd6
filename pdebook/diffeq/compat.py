"""``odeint`` and ``sdeint`` with the arguments of torchdiffeq and torchsde, for code that was written for them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pdebook.diffeq.adjoints import Adjoint
from pdebook.diffeq.brownian import Brownian, BrownianTree
from pdebook.diffeq.controllers import PID, Constant, Grid
from pdebook.diffeq.methods import solver_by_name
from pdebook.diffeq.reversible import Reversible
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import ODE, SDE

ODE_METHODS = {
    "dopri8": "dopri8",
    "dopri5": "dopri5",
    "bosh3": "bosh3",
    "adaptive_heun": "heun",
    "euler": "euler",
    "midpoint": "midpoint",
    "rk4": "three-eighths",
    "tsit5": "tsit5",
}
"""Names of torchdiffeq, and ours."""

SDE_METHODS = {
    ("ito", "euler"): "euler-maruyama",
    ("ito", "milstein"): "milstein",
    ("ito", "srk"): "srid2",
    ("stratonovich", "euler_heun"): "euler-heun",
    ("stratonovich", "heun"): "heun-sde",
    ("stratonovich", "reversible_heun"): "reversible-heun",
}
"""Calculus and name of torchsde, and ours."""


class _OfOneTime(torch.nn.Module):
    """A field of one number t and a state without a batch, as a field of a batch of one."""

    def __init__(self, func: Any) -> None:
        super().__init__()
        self.func = func

    def forward(self, t: Tensor, y: Any) -> Any:
        """The field at t[0]."""
        inside = tuple(part[0] for part in y) if isinstance(y, tuple) else y[0]
        result = self.func(t[0], inside)
        return tuple(part[None] for part in result) if isinstance(result, tuple) else result[None]


def odeint(
    func: Callable[[Tensor, Any], Any],
    y0: Any,
    t: Tensor,
    *,
    rtol: float | int = 1e-7,
    atol: float | int = 1e-9,
    method: str = "dopri5",
    step_size: float | int | None = None,
    adjoint: Adjoint | None = None,
    max_steps: int = 100_000,
) -> Any:
    """Solve dy/dt = func(t, y) and save it at all of ``t``, with torchdiffeq's arguments.

    The whole state, a tensor of any shape or a tuple of tensors, takes one step size, as there. For a step of its own for each
    trajectory of a batch use ``solve``.

    Args:
        func: field of one number t and the state.
        y0: state at ``t[0]``.
        t: times, (n,), monotone; n >= 2.
        rtol: relative tolerance.
        atol: absolute tolerance.
        method: a name in ``ODE_METHODS``. Those without error estimate step from each time to the next, or by ``step_size``.
        step_size: size of fixed steps.
        adjoint: how gradients are formed; see ``adjoints``.
        max_steps: most steps of an adaptive solve.
    Returns:
        States, (n, ...), laid out as y0.
    Raises:
        ValueError: an unknown method, or times that are not monotone.
    """
    if method not in ODE_METHODS:
        raise ValueError(f"method must be one of {', '.join(ODE_METHODS)}, got {method!r}")
    if not isinstance(t, Tensor) or t.ndim != 1 or len(t) < 2:
        raise ValueError("t must be a tensor of at least two times")
    change = t.detach().diff()
    if not bool((change > 0).all() or (change < 0).all()):
        raise ValueError("t must rise or fall strictly")
    solver = solver_by_name(ODE_METHODS[method])
    controller: PID | Constant | Grid
    if method in ("euler", "midpoint", "rk4"):
        controller = Grid(t) if step_size is None else Constant(step=step_size)
    else:
        controller = PID(rtol=rtol, atol=atol)
    lifted = tuple(part[None] for part in y0) if isinstance(y0, tuple) else y0[None]
    single = not isinstance(y0, tuple) and y0.ndim == 0
    if single:
        raise ValueError("y0 must have at least one axis")
    field = _OfOneTime(func)
    solution = solve(
        ODE(field),
        lifted,
        t[0],
        t[-1],
        solver=solver,
        controller=controller,
        ts=t,
        adjoint=adjoint,
        max_steps=max_steps,
    )
    ys = solution.ys
    return tuple(part[0] for part in ys) if isinstance(ys, tuple) else ys[0]


def sdeint(
    sde: Any,
    y0: Tensor,
    ts: Tensor,
    *,
    bm: Brownian | None = None,
    method: str | None = None,
    dt: float | int = 1e-3,
    seed: int = 0,
    adjoint: Adjoint | None = None,
) -> Tensor:
    """Solve dy = f dt + g dW with fixed steps, with torchsde's arguments.

    Args:
        sde: object with methods ``f(t, y)`` and ``g(t, y)`` of one number t, and attributes ``noise_type`` and ``sde_type``.
        y0: states at ``ts[0]``, (batch, size).
        ts: times to save, (n,), rising; n >= 2.
        bm: Brownian motion; one of ``seed`` if left out.
        method: a name in ``SDE_METHODS``; by calculus and noise if left out, as there.
        dt: size of a step; shortened so that steps end at each of ``ts``.
        seed: seed of the Brownian motion.
        adjoint: how gradients are formed.
    Returns:
        States, (n, batch, size).
    Raises:
        ValueError: a method that the calculus does not have, times that do not rise, or a ``dt`` that is not positive.
    """
    calculus, noise = sde.sde_type, sde.noise_type
    if method is None:
        method = {"ito": "srk" if noise in ("diagonal", "scalar") else "euler", "stratonovich": "heun"}[calculus]
    if (calculus, method) not in SDE_METHODS:
        known = ", ".join(name for kind, name in SDE_METHODS if kind == calculus)
        raise ValueError(f"method must be one of {known} for the {calculus} calculus, got {method!r}")
    if not dt > 0:
        raise ValueError(f"dt must be positive, got {dt}")
    times = ts.detach().double().cpu()
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise ValueError("ts must hold at least two rising times")
    pieces = [times[:1]]
    for start, end in pairwise(times):
        count = max(1, int(torch.ceil((end - start) / dt - 1e-9)))
        inside = start + (end - start) * torch.arange(1, count, dtype=torch.float64) / count
        pieces += [inside, end[None]]
    grid = torch.cat(pieces)
    solver = solver_by_name(SDE_METHODS[calculus, method])
    if bm is None:
        size = {"diagonal": y0.shape[1], "scalar": 1}.get(noise) or sde.g(ts[0], y0).shape[-1]
        smallest = float(grid.diff().min())
        bm = BrownianTree(
            seed,
            float(times[0]),
            float(times[-1]),
            (size,),
            tolerance=0.5 * smallest,
            samples=len(y0),
            space_time=getattr(solver, "levy", False),
            dtype=y0.dtype,
            device=y0.device,
        )
    fields = _Fields(sde)
    term = SDE(fields.drift, fields.diffusion, bm, noise, calculus)
    if adjoint is None and method == "reversible_heun":
        adjoint = Reversible()
    solution = solve(term, y0, times[0], times[-1], solver=solver, controller=Grid(grid), ts=times, adjoint=adjoint)
    return solution.ys.movedim(1, 0)


class _Fields(torch.nn.Module):
    """Drift and diffusion of an object in torchsde's manner, as functions of a batch of equal times."""

    def __init__(self, sde: Any) -> None:
        super().__init__()
        self.sde = sde

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        """f at t[0]."""
        return self.sde.f(t[0], y)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """g at t[0]; scalar noise comes as (batch, size, 1) there."""
        g = self.sde.g(t[0], y)
        return g[..., 0] if self.sde.noise_type == "scalar" and g.ndim == 3 else g

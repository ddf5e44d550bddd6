"""What a finite-volume method may be made of and be given."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pdebook.diffeq.butcher import ButcherTableau
from pdebook.pde.boundary import Boundary, Ghost, Robin
from pdebook.pde.fluids import Fluid
from pdebook.pde.fluxes import FLUXES, HLLC, Flux, Godunov
from pdebook.pde.laws import Law, Scalar
from pdebook.pde.marching import listed
from pdebook.pde.reconstruction import Reconstruction

__all__ = ["check_options", "check_sides", "check_state"]

POSITIVITY = ("fallback", "fluxes", "floor")
VARIABLES = ("primitive", "conserved")


def check_options(given: Any, methods: Mapping[str, ButcherTableau]) -> tuple[Flux, ButcherTableau]:
    """The flux and the method in time of a ``FiniteVolume``; ValueError if an argument makes no sense or does not fit another."""
    for name, value, table in (
        ("flux", given.flux, tuple(FLUXES)),
        ("method", given.method, tuple(methods)),
        ("variables", given.variables, VARIABLES),
        ("positivity", given.positivity, POSITIVITY),
    ):
        own = name in ("flux", "method") and not isinstance(value, str)
        if not own and value not in table:
            raise ValueError(f"{name} must be one of {', '.join(table)}, got {value!r}")
    if not isinstance(given.viscous_stages, int) or (given.viscous_stages != 0 and given.viscous_stages < 3):
        raise ValueError(f"viscous_stages must be 0 or at least 3, got {given.viscous_stages}")
    if not isinstance(given.reconstruction, Reconstruction):
        raise ValueError(f"reconstruction must be one of module reconstruction's kind, got {given.reconstruction!r}")
    if not 0 < given.cfl <= 1:
        raise ValueError(f"cfl must be more than 0 and at most 1, got {given.cfl}")
    flux: Any = FLUXES[given.flux] if isinstance(given.flux, str) else given.flux
    if flux is None:
        flux = Godunov() if isinstance(given.law, Scalar) else HLLC()
    wrong = Scalar if isinstance(flux, HLLC) else Fluid if isinstance(flux, Godunov) else None
    if wrong is not None and isinstance(given.law, wrong):
        raise ValueError(f"flux must fit the law: {type(flux).__name__} is not for {type(given.law).__name__}")
    if not callable(flux):
        raise ValueError(f"flux must be a function or a name, got {flux!r}")
    method = methods[given.method] if isinstance(given.method, str) else given.method
    if not isinstance(method, ButcherTableau) or method.implicit:
        raise ValueError(f"method must be an explicit tableau or a name, got {getattr(method, 'name', method)!r}")
    if given.positivity == "fluxes" and method.name not in ("euler", "heun", "ssprk3"):
        raise ValueError(f"method must be euler, heun or ssprk3 for positivity='fluxes', got {method.name}")
    ghosts, size = given.reconstruction.ghosts, given.grid.size
    if min(size) < ghosts:
        raise ValueError(f"grid must have at least {ghosts} cells along each axis, got {size}")
    return flux, method


def check_sides(pairs: Sequence[Sequence[Boundary]], u: Tensor) -> None:
    """Raise ValueError unless tensors that are given for sides broadcast to them."""
    for axis, pair in enumerate(pairs):
        for side in pair:
            value = side.value if isinstance(side, Ghost) else side.g if isinstance(side, Robin) else None
            if isinstance(value, Tensor):
                shape = [1 if d == 2 + axis else n for d, n in enumerate(u.shape)]
                fits = zip(value.shape[::-1], shape[::-1], strict=False)
                if value.ndim > u.ndim or any(n not in (1, wanted) for n, wanted in fits):
                    raise ValueError(
                        f"boundary values across axis {axis} must have shape {tuple(shape)} or broadcast to it, "
                        f"got {tuple(value.shape)}"
                    )


def check_state(law: Law, u: Tensor) -> None:
    """Raise ValueError unless u is finite, with positive density, depth and pressure, and the law's parameters fit its batch."""
    if len(u) == 0:
        raise ValueError("u must hold at least one sample")
    for name, value in vars(law).items():
        for entry in value if isinstance(value, tuple) else (value,):
            if isinstance(entry, Tensor) and entry.ndim and len(entry) not in (1, len(u)):
                raise ValueError(f"{name} of the law must have one entry or {len(u)}, as u, got {len(entry)}")
    state = u.detach()
    finite = state.flatten(1).isfinite().all(1)
    w = law.primitive(state)
    rows = {"finite": finite}
    for channel in law.positive:
        name = "density" if channel == 0 and law.dims + 1 in law.positive else "depth"
        rows[name if channel == 0 else "pressure"] = (w[:, channel] > 0).flatten(1).all(1) | ~finite
    for name, good in rows.items():
        if not bool(good.all()):
            wanted = "finite" if name == "finite" else f"of positive {name}"
            raise ValueError(f"u must be {wanted}, samples {listed(~good)} are not")

"""All methods by name."""

from pdebook.diffeq.implicit import DiagonallyImplicit
from pdebook.diffeq.reversible import ReversibleHeun
from pdebook.diffeq.runge_kutta import RungeKutta, Solver
from pdebook.diffeq.stochastic import SRA1, SRID2, EulerHeun, EulerMaruyama, Milstein, StochasticHeun
from pdebook.diffeq.symplectic import Leapfrog
from pdebook.diffeq.tableaus import TABLEAUS

SOLVERS: dict[str, Solver] = {
    **{
        name: DiagonallyImplicit(tableau) if tableau.implicit else RungeKutta(tableau)
        for name, tableau in TABLEAUS.items()
    },
    **{
        solver.name: solver
        for solver in (
            Leapfrog(),
            ReversibleHeun(),
            EulerMaruyama(),
            Milstein(),
            EulerHeun(),
            StochasticHeun(),
            SRA1(),
            SRID2(),
        )
    },
}
"""The methods by name."""


def solver_by_name(name: str) -> Solver:
    """A method; ValueError that lists the names for an unknown one."""
    if name not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {name!r}")
    return SOLVERS[name]

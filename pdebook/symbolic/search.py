"""One interface to the symbolic searches, and the refit of an expression's constants.

| engine | finds | by |
|---|---|---|
| "evolution" | expressions with constants anywhere, up to a dozen nodes | chance, deterministic in the seed |
| "enumeration" | all small expressions, with a factor and an offset | exhaustion |
| "library" | sums of given terms | sequentially thresholded least squares |
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.symbolic.enumeration import enumerate_expressions, linear_library
from pdebook.symbolic.evolution import evolve
from pdebook.symbolic.expressions import Expression
from pdebook.symbolic.front import ParetoFront

__all__ = ["ENGINES", "refit", "search"]

ENGINES: dict[str, Callable[..., ParetoFront]] = {
    "evolution": evolve,
    "enumeration": enumerate_expressions,
    "library": linear_library,
}
"""Searches by name."""


def search(
    x: Float[Tensor, "points variables"], y: Float[Tensor, " samples"], *, engine: str = "enumeration", **options: Any
) -> ParetoFront:
    """Expressions f with y ≈ f(x): the best of each size.

    Args:
        x: points.
        y: values at the points, one component.
        engine: which search.
        options: the engine's: ``variables``, ``operators``, ``max_size``, ``budget``, and its own. "evolution" needs ``refine``.
    Raises:
        ValueError: an unknown engine, or what the engine raises.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    return ENGINES[engine](x, y, **options)


def refit(
    expression: Expression,
    residual: Callable[[Tensor], Tensor],
    optimiser: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Expression:
    """The expression with its constants fitted to whatever the residual measures, such as the solution of an equation that holds it.

    For data, ``residual = lambda c: expression(values, c[:, None]) - y``. With an optimiser from ``pdebook.algebra``::

        refit(expression, residual, lambda r, c: levenberg_marquardt(r, c).x)

    Args:
        expression: where to begin.
        residual: constants in prefix order, shape (batch, constants), to residuals (batch, m).
        optimiser: (residual, start of shape (1, constants)) to better constants.
        dtype: of the constants.
        device: of the constants.
    Raises:
        ValueError: fitted constants that are not finite.
    """
    if not expression.constants:
        return expression
    start = torch.tensor([expression.constants], dtype=dtype, device=device)
    fitted = optimiser(residual, start)
    if not bool(fitted.isfinite().all()):
        raise ValueError(
            f"residual must let the constants of {expression} stay finite; the optimiser returned {fitted.tolist()}"
        )
    return expression.with_constants(fitted[0].tolist())

"""Nodes and weights of quadrature rules, in float64: ∫ f ≈ Σ_k w_k f(x_k)."""

from functools import cache

import numpy as np

__all__ = ["gauss_legendre"]


def gauss_legendre(n: int, start: float | int = -1.0, end: float | int = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's rule on [start, end]: exact for polynomials of degree 2 n - 1.

    The error for a function that is analytic around the interval falls geometrically in n.

    Args:
        n: number of nodes, at least 1.
        start: where the integral begins; it may lie above ``end``, which turns the sign of the weights.
        end: where it ends.
    Returns:
        Nodes, in the order from ``start`` to ``end``, and weights, each of shape (n,).
    Raises:
        ValueError: no nodes, or bounds that are not finite.
    Source: Golub and Welsch 1969; computed by NumPy.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if not np.isfinite([start, end]).all():
        raise ValueError(f"start and end must be finite, got {start} and {end}")
    nodes, weights = _legendre(n)
    half = 0.5 * (end - start)
    return start + half * (nodes + 1.0), half * weights


@cache
def _legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    nodes.flags.writeable = weights.flags.writeable = False
    return nodes, weights

"""Functions of one number that take a Python float (fast, float64) or a tensor (one value for each sample).

A schedule and a sampler's coefficients are written once with these; a fixed grid that the whole batch shares then costs no tensor
operation and no synchronisation, and times that differ by sample still work.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Scalar = float | Tensor
"""A number that the batch shares, or a float64 tensor of shape (batch, 1, ..., 1)."""


def _lift(
    of_float: Callable[[float], float], of_tensor: Callable[[Tensor], Tensor], name: str
) -> Callable[[Scalar], Scalar]:
    def function(value: Scalar) -> Scalar:
        return of_tensor(value) if isinstance(value, Tensor) else of_float(value)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name} of a float or, elementwise, of a tensor."
    return function


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _log1p(value: float) -> float:
    return math.log1p(value) if value > -1 else -math.inf


def _exp(value: float) -> float:
    return math.exp(value) if value < 709.0 else math.inf


def _expm1(value: float) -> float:
    return math.expm1(value) if value < 709.0 else math.inf


def _softplus(value: float) -> float:
    return value + math.log1p(math.exp(-value)) if value > 0 else math.log1p(math.exp(value))


exp = _lift(_exp, torch.exp, "exp")
expm1 = _lift(_expm1, torch.expm1, "expm1")
log = _lift(_log, torch.log, "log")
log1p = _lift(_log1p, torch.log1p, "log1p")
sqrt = _lift(math.sqrt, torch.sqrt, "sqrt")
cos = _lift(math.cos, torch.cos, "cos")
sin = _lift(math.sin, torch.sin, "sin")
tan = _lift(math.tan, torch.tan, "tan")
atan = _lift(math.atan, torch.atan, "atan")
softplus = _lift(_softplus, lambda value: torch.logaddexp(value, torch.zeros_like(value)), "softplus")

_TERMS = 18


def phi(k: int, z: Scalar) -> Scalar:
    """φ function of exponential integrators, φ_k(z) = ∫_0^1 e^{(1-u) z} u^{k-1} / (k-1)! du, with φ_0 = exp.

    φ_{k+1}(z) = (φ_k(z) - 1/k!) / z and φ_k(0) = 1/k!. The recursion cancels for small z, so there the Taylor series
    Σ_j z^j / (j+k)! is summed instead.

    Args:
        k: index, k >= 0.
        z: argument, a float or a tensor.
    Source: Hochbruck and Ostermann 2010, equation 2.11.
    """
    if isinstance(z, Tensor):
        small = z.abs() < 1.0
        safe = torch.where(small, torch.ones_like(z), z)
        return torch.where(small, _phi_series(k, torch.where(small, z, torch.zeros_like(z))), _phi_recursion(k, safe))
    return _phi_series(k, z) if abs(z) < 1.0 else _phi_recursion(k, z)


def _phi_series(k: int, z: Scalar) -> Scalar:
    total: Scalar = z * 0.0 + 1.0 / math.factorial(k + _TERMS)
    for j in range(_TERMS - 1, -1, -1):
        total = total * z + 1.0 / math.factorial(j + k)
    return total


def _phi_recursion(k: int, z: Scalar) -> Scalar:
    if k == 0:
        return exp(z)
    value = expm1(z) / z
    for j in range(1, k):
        value = (value - 1.0 / math.factorial(j)) / z
    return value


def solve_moments(nodes: Sequence[Scalar], moments: Sequence[Scalar]) -> list[Scalar]:
    """Weights w with Σ_j nodes_j^q w_j = moments_q for q = 0, ..., len(nodes) - 1 (a transposed Vandermonde system)."""
    device = next((value.device for value in (*nodes, *moments) if isinstance(value, Tensor)), None)
    if device is not None:
        both = [torch.as_tensor(value, dtype=torch.float64, device=device) for value in (*nodes, *moments)]
        rows = torch.broadcast_tensors(*both)
        stacked = torch.stack(rows[: len(nodes)], -1)
        powers = torch.stack([stacked**q for q in range(len(nodes))], -2)
        return list(torch.linalg.solve(powers, torch.stack(rows[len(nodes) :], -1)).unbind(-1))
    matrix = np.vander(np.asarray(nodes, dtype=np.float64), increasing=True).T
    return list(np.linalg.solve(matrix, np.asarray(moments, dtype=np.float64)).tolist())

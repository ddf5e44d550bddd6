"""Relative norms of fields: Lp, H1 by Fourier or finite differences, and Sobolev norms of any real order.

A field is (batch, ..., channel, *grid); ``dims`` is the number of the grid's axes, the last ones. Norms are means over the grid,
not sums, so that they do not depend on the resolution. What a relative norm pools besides the grid is said by ``over``:

| ``over`` | numerator and denominator are norms of |
|---|---|
| "grid" | each channel by itself |
| "channels" | all channels of a sample (and time) together |
| "batch" | all channels and samples together |

The ratios are averaged over whatever axes are left, or returned as they are (``mean=False``).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.fourier import check_length, coefficients, mode_numbers, multiplicity, wavenumbers

__all__ = ["relative_h1", "relative_lp", "relative_sobolev", "sobolev", "weighted_spectrum"]

Length = Sequence[float | int] | float | int


def _check(prediction: Tensor, target: Tensor, dims: int, over: str) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction must have the target's shape {tuple(target.shape)}, got {tuple(prediction.shape)}"
        )
    if not 1 <= dims <= target.ndim - 2:
        raise ValueError(f"dims must leave a batch and channels, 1 ... {target.ndim - 2}, got {dims}")
    if over not in ("grid", "channels", "batch"):
        raise ValueError(f"over must be 'grid', 'channels' or 'batch', got {over!r}")


def _pooled(parts: Tensor, dims: int, over: str, p: float) -> Tensor:
    """p-norm of the mean over the grid and over what is pooled besides."""
    axes = [*range(-dims, 0)]
    if over != "grid":
        axes.append(-dims - 1)
    if over == "batch":
        axes.append(0)
    count = math.prod(parts.shape[axis] for axis in axes)
    return torch.linalg.vector_norm(parts, p, dim=axes) / count ** (1.0 / p)


def _ratio(error: Tensor, size: Tensor, eps: float, mean: bool) -> Tensor:
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    ratio = error / (size + eps)
    return ratio.mean() if mean else ratio


def relative_lp(
    prediction: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
    *,
    dims: int,
    p: float | int = 2,
    over: str = "channels",
    groups: Sequence[Sequence[int]] | None = None,
    eps: float = 0.0,
    mean: bool = True,
) -> Float[Tensor, "..."]:
    """‖prediction - target‖_p / ‖target‖_p.

    Args:
        prediction: fields.
        target: fields of the same shape.
        dims: axes of the grid.
        p: order of the norm, at least 1.
        over: what is pooled.
        groups: channels that form one field each, such as a vector's; a ratio for each group stands in place of the channels.
        eps: added to the denominator.
        mean: whether the mean is returned.
    Raises:
        ValueError: shapes that differ, an unknown ``over``, p below 1, groups of channels that are not there, a negative
            eps, or dims that leave no batch and channels.
    """
    _check(prediction, target, dims, over)
    if not p >= 1:
        raise ValueError(f"p must be at least 1, got {p}")
    if groups is not None:
        channels = target.shape[-dims - 1]
        if not groups or not all(isinstance(g, Sequence) and g and all(0 <= c < channels for c in g) for g in groups):
            raise ValueError(f"groups must hold lists of channels from 0 to {channels - 1}, got {groups}")
        parts = [
            relative_lp(
                *(u.index_select(-dims - 1, torch.tensor(group, device=u.device)) for u in (prediction, target)),
                dims=dims,
                p=p,
                over="channels" if over == "grid" else over,
                eps=eps,
                mean=False,
            )
            for group in groups
        ]
        stacked = torch.stack(parts, -1)
        return stacked.mean() if mean else stacked
    error, size = (_pooled(u, dims, over, float(p)) for u in (prediction - target, target))
    return _ratio(error, size, eps, mean)


def _gradient(u: Tensor, dims: int, lengths: Sequence[float], method: str, periodic: bool) -> list[Tensor]:
    """Value and first derivatives."""
    parts = [u]
    for axis, length in zip(range(-dims, 0), lengths, strict=True):
        n = u.shape[axis]
        h = length / (n if periodic else n - 1)
        if not periodic:
            (derivative,) = torch.gradient(u, spacing=h, dim=axis, edge_order=2)
        else:
            derivative = (u.roll(-1, axis) - u.roll(1, axis)) / (2 * h)
            if method == "central4":
                derivative = (4 * derivative - (u.roll(-2, axis) - u.roll(2, axis)) / (4 * h)) / 3
        parts.append(derivative)
    return parts


def relative_h1(
    prediction: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
    *,
    dims: int,
    length: Length = 1.0,
    method: str = "spectral",
    periodic: bool = True,
    over: str = "channels",
    eps: float = 0.0,
    mean: bool = True,
) -> Float[Tensor, "..."]:
    """‖prediction - target‖ / ‖target‖ in H1: ‖u‖² = mean(u²) + Σ_j mean((∂_j u)²).

    Finite differences see less of high modes than there is: their factor is sin(kh)/h in place of k.

    Args:
        prediction: fields.
        target: fields of the same shape.
        dims: axes of the grid.
        length: of each axis.
        method: derivatives: "spectral"; "central2" or "central4", central differences of second or fourth order.
        periodic: whether the grid is; else points stand at both ends and ends take one-sided differences ("central2" alone).
        over: what is pooled.
        eps: added to the denominator.
        mean: whether the mean is returned.
    Raises:
        ValueError: what ``relative_lp`` refuses, lengths that are not positive, an unknown method, or one that needs a periodic grid.
    """
    _check(prediction, target, dims, over)
    lengths = check_length(length, dims)
    if method not in ("spectral", "central2", "central4"):
        raise ValueError(f"method must be 'spectral', 'central2' or 'central4', got {method!r}")
    if not periodic and method != "central2":
        raise ValueError(f"method must be 'central2' on a grid that is not periodic, got {method!r}")

    if not periodic and min(target.shape[-dims:]) < 3:
        raise ValueError(f"target must have 3 points along each axis that is not periodic, got {tuple(target.shape)}")

    def size(u: Tensor) -> Tensor:
        if method == "spectral":
            weighted = _weighted(u, dims, 1.0, lengths, 1.0)
            # A sum over modes is a mean over the grid.
            return _pooled(weighted, dims, over, 2.0) * math.sqrt(math.prod(weighted.shape[-dims:]))
        parts = [_pooled(part, dims, over, 2.0) for part in _gradient(u, dims, lengths, method, periodic)]
        return torch.linalg.vector_norm(torch.stack(parts), dim=0)

    return _ratio(size(prediction - target), size(target), eps, mean)


def _weighted(u: Tensor, dims: int, order: float, lengths: Sequence[float], alpha: float) -> Tensor:
    """Weighted magnitudes of the coefficients, whose squares sum to the squared Sobolev norm."""
    size = u.shape[-dims:]
    squares = sum(k.square() for k in wavenumbers(size, lengths, device=u.device))
    weight = torch.as_tensor(squares + alpha) ** order
    if alpha == 0 and order < 0:
        weight = torch.where(torch.as_tensor(squares) > 0, weight, 0.0)
    root = (weight * multiplicity(size, device=u.device)).sqrt().to(u.dtype)
    return (coefficients(u, dims) * root).abs()


def sobolev(
    u: Float[Tensor, "*shape"],
    order: float | int,
    *,
    dims: int,
    length: Length = 2 * math.pi,
    alpha: float | int = 0.0,
    pool: int = 0,
) -> Float[Tensor, "*batch"]:
    """‖u‖_s = (Σ_k (α + |k|²)^s |û_k|²)^{1/2} over all wavenumbers k, for any real order s: -1 forgives what oscillates.

    Order 0 is the root mean square. For α = 0 and s < 0 the mean, k = 0, is left out.

    Args:
        u: periodic fields.
        order: s.
        dims: axes of the grid.
        length: of each axis.
        alpha: α, not negative.
        pool: number of axes before the grid over which the squares are averaged: 1 for a norm in time and space.
    Raises:
        ValueError: a negative alpha, lengths that are not positive, or more axes than u has.
    """
    if not alpha >= 0 or not math.isfinite(order):
        raise ValueError(f"alpha must not be negative and order finite, got {alpha} and {order}")
    if dims < 1 or pool < 0 or dims + pool > u.ndim:
        raise ValueError(f"dims and pool must be within the {u.ndim} axes of u, got {dims} and {pool}")
    parts = _weighted(u, dims, float(order), check_length(length, dims), float(alpha))
    norms = torch.linalg.vector_norm(parts, dim=tuple(range(-dims - pool, 0)))
    return norms / math.sqrt(math.prod(u.shape[u.ndim - dims - pool : u.ndim - dims]))


def relative_sobolev(
    prediction: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
    order: float | int,
    *,
    dims: int,
    length: Length = 2 * math.pi,
    alpha: float | int = 0.0,
    pool: int = 0,
    eps: float = 0.0,
    mean: bool = True,
) -> Float[Tensor, "..."]:
    """‖prediction - target‖_s / ‖target‖_s; see ``sobolev``."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction must have the target's shape {tuple(target.shape)}, got {tuple(prediction.shape)}"
        )
    error, size = (
        sobolev(u, order, dims=dims, length=length, alpha=alpha, pool=pool) for u in (prediction - target, target)
    )
    return _ratio(error, size, eps, mean)


def weighted_spectrum(u: Float[Tensor, "*shape"], *, dims: int, exponent: float | int) -> Float[Tensor, "*batch"]:
    """Σ_m w_m |û_m|² with w = (r / max r)^exponent, r² = Σ_j (2 m_j / n_j)²: a penalty on the grid's fine scales.

    Args:
        u: periodic fields.
        dims: axes of the grid.
        exponent: of the weight, positive.
    Raises:
        ValueError: an exponent that is not positive.
    """
    if not 0 < exponent < math.inf:
        raise ValueError(f"exponent must be positive, got {exponent}")
    size = u.shape[-dims:]
    numbers = zip(mode_numbers(size, device=u.device), size, strict=True)
    squares = torch.as_tensor(sum((2 * m.double() / n).square() for m, n in numbers))
    if u.ndim and max(size) < 2:
        raise ValueError(f"u must have two points along an axis, got shape {tuple(u.shape)}")
    weight = (squares / squares.max()) ** (0.5 * exponent) * multiplicity(size, device=u.device)
    return (weight.to(u.dtype) * coefficients(u, dims).abs().square()).sum(tuple(range(-dims, 0)))

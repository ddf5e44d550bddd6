"""Points at which an equation is asked to hold: drawn in a domain and on its boundary, as a function of a seed."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook import rng

__all__ = ["ball", "box", "faces", "sphere"]

_LAWS = ("uniform", "latin", "sobol", "grid")


def _bounds(low: Sequence[float | int], high: Sequence[float | int]) -> tuple[Tensor, Tensor]:
    a, b = torch.tensor([low, high], dtype=torch.float64) if len(low) == len(high) else (torch.zeros(1), torch.zeros(0))
    if not len(a) or a.shape != b.shape or not bool((a < b).all() and (b - a).isfinite().all()):
        raise ValueError(
            f"low and high must be finite and of one length, low below high, got {tuple(low)} and {tuple(high)}"
        )
    return a, b


def _check_points(points: int) -> None:
    if not isinstance(points, int) or points < 1:
        raise ValueError(f"points must be at least 1, an integer, got {points}")


def box(
    low: Sequence[float | int],
    high: Sequence[float | int],
    points: int,
    *,
    law: str = "uniform",
    seed: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "points dim"]:
    """Points of the box [low, high].

    Args:
        low: lower corner.
        high: upper corner.
        points: how many; for "grid" the number along each axis.
        law: "uniform": independent; "latin": each axis cut in ``points`` strata, one point in each, in a random
            order; "sobol": a scrambled Sobol sequence; "grid": the midpoints of equal cells, the same for every seed.
        seed: seed, 0 <= seed < 2^63.
        stream: another stream of the seed, such as the number of a training step.
        dtype: floating type.
        device: where they are put.
    Raises:
        ValueError: corners that do not match, no points, another law, a negative stream.
    """
    a, b = _bounds(low, high)
    _check_points(points)
    dim = len(a)
    if stream < 0:
        raise ValueError(f"stream must not be negative, got {stream}")
    if law == "uniform":
        unit = rng.uniform(seed, torch.arange(points), (dim,), stream=stream, dtype=torch.float64)
    elif law == "latin":
        inside = rng.uniform(seed, torch.arange(points), (dim,), stream=stream, dtype=torch.float64)
        orders = [rng.permutation(rng.fold_in(seed, f"{stream}:{axis}"), points) for axis in range(dim)]
        unit = (torch.stack(orders, 1) + inside) / points
    elif law == "sobol":
        engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=rng.fold_in(seed, stream) % 2**31)
        unit = engine.draw(points, dtype=torch.float64)
    elif law == "grid":
        axis = (torch.arange(points, dtype=torch.float64) + 0.5) / points
        unit = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    else:
        raise ValueError(f"law must be one of {', '.join(_LAWS)}, got {law!r}")
    return (a + (b - a) * unit).to(device=device, dtype=dtype)


def faces(
    low: Sequence[float | int],
    high: Sequence[float | int],
    points: int,
    *,
    axes: Sequence[int] | None = None,
    **options: Any,
) -> Float[Tensor, "axes 2 points dim"]:
    """Points of the lower and the upper face of a box along each axis.

    Those of opposite faces are partners, as periodic conditions want.

    Args:
        low: lower corner.
        high: upper corner.
        points: how many on each face.
        axes: the axes whose faces are meant, all if left out.
        options: as for ``box``.
    Raises:
        ValueError: as ``box``, and for an axis that the box lacks.
    """
    a, b = _bounds(low, high)
    dim = len(a)
    chosen = range(dim) if axes is None else axes
    if not all(0 <= axis < dim for axis in chosen):
        raise ValueError(f"axes must be from 0 to {dim - 1}, got {tuple(chosen)}")
    inside = box(low, high, points, **options)
    sides = inside.expand(len(chosen), 2, *inside.shape).clone()
    for number, axis in enumerate(chosen):
        sides[number, 0, :, axis] = float(a[axis])
        sides[number, 1, :, axis] = float(b[axis])
    return sides


def sphere(
    dim: int,
    points: int,
    *,
    seed: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "points dim"]:
    """Points uniform on the unit sphere: normal vectors over their length.

    Raises:
        ValueError: no points, or a dimension below 1.
    """
    _check_points(points)
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    draw = rng.normal(seed, torch.arange(points), (dim,), stream=stream, dtype=torch.float64)
    return (draw / draw.norm(dim=1, keepdim=True)).to(device=device, dtype=dtype)


def ball(
    dim: int,
    points: int,
    *,
    radius: str = "volume",
    seed: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "points dim"]:
    """Points of the unit ball.

    Args:
        dim: dimension.
        points: how many.
        radius: "volume": uniform in the ball, which in high dimension means close to the sphere; "uniform": the radius is
            uniform in [0, 1].
        seed: seed, 0 <= seed < 2^63.
        stream: another stream of the seed.
        dtype: floating type.
        device: where they are put.
    Raises:
        ValueError: no points, a dimension below 1, another radius.
    """
    if radius not in ("volume", "uniform"):
        raise ValueError(f"radius must be 'volume' or 'uniform', got {radius!r}")
    direction = sphere(dim, points, seed=seed, stream=stream, dtype=torch.float64)
    unit = rng.uniform(rng.fold_in(seed, "radius"), torch.arange(points), (1,), stream=stream, dtype=torch.float64)
    length = unit ** (1.0 / dim) if radius == "volume" else unit
    return (direction * length).to(device=device, dtype=dtype)

"""Observed order of convergence: the slope of log error against log resolution, and how far to believe it.

A method of order p at resolution n (steps, evaluations, or 1/h) has ``error = C n^-p (1 + O(1/n))`` down to round-off.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

__all__ = ["ObservedOrder", "observed_order", "order_table"]

Numbers = Sequence[float | int] | np.ndarray | Tensor

_WINDOW = 3  # points of a local slope
_STALL = 0.5  # a point that falls by less than half the expected slope no longer decreases


@dataclass(frozen=True)
class ObservedOrder:
    """Result of `observed_order`; everything that a table or a convergence plot needs.

    Attributes:
        n: resolutions in increasing order (``1 / h`` if spacings were given).
        errors: positive errors, one for each resolution.
        stalled: points from which on the error no longer decreases, for whatever reason.
        used: points of the fit: all but those that are stalled below the round-off level.
        order: least-squares slope p of ``log error = log C - p log n`` over the used points.
        standard_error: standard error of `order`; NaN with two points, where nothing is left to estimate it from.
        constant: C of the fit.
        spacings: whether the caller gave spacings h, which the table then shows.
    """

    n: tuple[float, ...]
    errors: tuple[float, ...]
    stalled: tuple[bool, ...]
    used: tuple[bool, ...]
    order: float
    standard_error: float
    constant: float
    spacings: bool = False

    @property
    def pairwise(self) -> tuple[float, ...]:
        """Slopes ``log(e_i / e_{i+1}) / log(n_{i+1} / n_i)`` between neighbours; NaN where the finer one is unused."""
        pairs = zip(self.n, self.n[1:], self.errors, self.errors[1:], self.used[1:], strict=False)
        return tuple(math.log(e / f) / math.log(m / n) if ok else math.nan for n, m, e, f, ok in pairs)

    @property
    def local(self) -> tuple[float, ...]:
        """Least-squares slope over a window of three used points around each point; NaN at an unused point."""
        last = sum(self.used)
        slopes = [math.nan] * len(self.n)
        for i in range(last):
            start = max(0, min(i - _WINDOW // 2, last - _WINDOW))
            stop = min(last, start + _WINDOW)
            slopes[i] = _fit(self.n[start:stop], self.errors[start:stop])[0]
        return tuple(slopes)

    def leading_constant(self, order: float | int) -> float:
        """C of ``C n^-order``: the two finest used points, extrapolated to remove ``D n^-(order+1)`` (Richardson)."""
        last = sum(self.used)
        coarse, fine = (self.errors[i] * self.n[i] ** order for i in (last - 2, last - 1))
        return (self.n[last - 1] * fine - self.n[last - 2] * coarse) / (self.n[last - 1] - self.n[last - 2])

    def fitted(self, n: float | int) -> float:
        """Error that the fit gives at resolution `n`; with `n` and `errors` this is the plot's data."""
        return self.constant * n**-self.order

    def table(self) -> str:
        """Text table whose rounding does not show the machine: errors at the round-off level are named, not printed."""
        rows = [f"{'h' if self.spacings else 'n':>9}  {'error':>9}  {'slope':>6}"]
        slopes = ("", *(f"{slope:.2f}" for slope in self.pairwise))
        for n, error, slope, used, stalled in zip(self.n, self.errors, slopes, self.used, self.stalled, strict=True):
            size = f"{1 / n if self.spacings else n:>9.4g}"
            note = "  no longer decreases" if stalled else ""
            rows.append(f"{size}  {error:>9.1e}  {slope:>6}{note}" if used else f"{size}  round-off")
        return "\n".join([*rows, f"order {self}"])

    def __str__(self) -> str:
        spread = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.2f}"
        return f"{self.order:.2f}{spread}"


def observed_order(
    errors: Numbers,
    *,
    n: Numbers | None = None,
    h: Numbers | None = None,
    roundoff: float = 1e-11,
) -> ObservedOrder:
    """Observed order of convergence of a sequence of errors.

        log error = log C - p log n,  least squares over the points above round-off

    A point counts as stalled when neither it nor any later one has fallen by half of what the median slope promises. It
    is left out only if its error is below `roundoff`: an error that stops falling at a visible level is a fault of the
    method, and lowers its order.

    Args:
        errors: positive errors, at least two.
        n: resolutions (number of steps or evaluations), positive and strictly increasing. Either this or `h`.
        h: spacings, positive and strictly decreasing.
        roundoff: level below which a stalled error is taken for accumulated round-off; the default suits float64 and
            solutions of size 1, for float32 take 1e-4 or so.
    Raises:
        ValueError: fewer than two points, different lengths, values not positive and finite, points out of order.
    """
    if (n is None) == (h is None):
        raise ValueError(f"n, h: expected exactly one of the two, got {'neither' if n is None else 'both'}")
    values = _positive("errors", errors)
    sizes = _positive("n" if h is None else "h", n if h is None else h)
    if len(sizes) != len(values):
        raise ValueError(f"errors: expected one for each of the {len(sizes)} resolutions, got {len(values)}")
    if n is not None and any(b <= a for a, b in pairwise(sizes)):
        raise ValueError(f"n: expected strictly increasing resolutions, got {sizes}")
    if h is not None and any(b >= a for a, b in pairwise(sizes)):
        raise ValueError(f"h: expected strictly decreasing spacings, got {sizes}")
    resolution = sizes if h is None else tuple(1 / size for size in sizes)
    first = _first_stalled(resolution, values)
    stalled = tuple(i >= first for i in range(len(values)))
    # Everything from the first stalled point below round-off on is left out: the used points are the first ones.
    floor = next((i for i in range(first, len(values)) if values[i] <= roundoff), len(values))
    order, standard_error, constant = _fit(resolution[:floor], values[:floor])
    used = tuple(i < floor for i in range(len(values)))
    return ObservedOrder(resolution, values, stalled, used, order, standard_error, constant, h is not None)


def order_table(results: Mapping[str, ObservedOrder], theory: Mapping[str, float | int] | None = None) -> str:
    """One line a method: its name, the range of n that was used, its order in theory (if given) and as observed."""
    width = max([6, *map(len, results)])
    rows = [f"{'method':<{width}}  {'n':>13}  {'theory':>6}  observed"]
    for name, result in results.items():
        finest = result.n[sum(result.used) - 1]
        expected = f"{theory[name]:g}" if theory and name in theory else ""
        rows.append(f"{name:<{width}}  {f'{result.n[0]:g} to {finest:g}':>13}  {expected:>6}  {result}")
    return "\n".join(rows)


def _positive(name: str, values: Numbers | None) -> tuple[float, ...]:
    """Floats of a sequence that must be one-dimensional, positive and finite."""
    array = torch.as_tensor(values, dtype=torch.float64)
    if array.ndim != 1 or array.numel() < 2:
        raise ValueError(f"{name}: expected a sequence of at least two numbers, got shape {tuple(array.shape)}")
    numbers = tuple(array.tolist())
    if not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{name}: expected positive finite numbers, got {numbers}")
    return numbers


def _fit(n: tuple[float, ...], errors: tuple[float, ...]) -> tuple[float, float, float]:
    """Slope, its standard error and the constant of ``log error = log C - p log n``."""
    x, y = [math.log(value) for value in n], [math.log(value) for value in errors]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((value - mean_x) ** 2 for value in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    residual = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    error = math.sqrt(residual / (len(x) - 2) / spread) if len(x) > 2 else math.nan
    return -slope, error, math.exp(mean_y - slope * mean_x)


def _first_stalled(n: tuple[float, ...], errors: tuple[float, ...]) -> int:
    """Index of the first point, from the third on, from which nothing falls by half the median slope before it."""

    def slope(i: int, j: int) -> float:
        return math.log(errors[i] / errors[j]) / math.log(n[j] / n[i])

    before: list[float] = []
    for i in range(1, len(n)):
        expected = sorted(before)[len(before) // 2] if before else -math.inf
        if i > 1 and all(slope(i - 1, j) < _STALL * expected for j in range(i, len(n))):
            return i
        before.append(slope(i - 1, i))
    return len(n)

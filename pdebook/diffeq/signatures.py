"""Log-signatures to depth 2, and the log-ODE method: long steps of a controlled equation that still see the path's areas.

Over a window [r, r'] the log-signature of a path X to depth 2 holds the increments and the areas

    ΔX^i = X^i_{r'} - X^i_r,      A^{ij} = 1/2 ∫_r^{r'} (X^i - X^i_r) dX^j - (X^j - X^j_r) dX^i,   i < j,

and dy = f(y) dX with columns f_1, ..., f_c is replaced on the window by

    dy/dt = (Σ_i ΔX^i f_i(y) + Σ_{i<j} A^{ij} [f_i, f_j](y)) / (r' - r),      [f_i, f_j] = (∂f_j) f_i - (∂f_i) f_j.

For linear fields f_i(y) = A_i y the bracket is (A_j A_i - A_i A_j) y. A neural rough differential equation drops the brackets and
learns a field with one column for each number of the log-signature, driven by the ``LogSignaturePath``.

Source: Morrill, Salvi, Kidger, Foster and Lyons 2021 (arXiv:2009.08295).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pdebook.diffeq.paths import LinearPath, PiecewisePath

Fields = Callable[[Tensor, Tensor], Tensor]
"""Columns f_1, ..., f_c: called with times (batch,) and states (batch, size), returns (batch, size, c)."""


@dataclass(frozen=True)
class LogSignature:
    """Log-signatures of consecutive windows.

    Attributes:
        windows: ends of the windows, (1, n + 1) or (batch, n + 1).
        increments: ΔX, (batch, n, channel).
        areas: A^{ij} for i < j in the order (0, 1), (0, 2), ..., (1, 2), ..., of shape (batch, n, pair).
    """

    windows: Float64[Tensor, "series end"]
    increments: Float[Tensor, "batch window channel"]
    areas: Float[Tensor, "batch window pair"]


def pairs(channels: int) -> tuple[Tensor, Tensor]:
    """Indices i and j of the areas, i < j."""
    first, second = torch.triu_indices(channels, channels, 1).unbind(0)
    return first, second


def _wedge(a: Tensor, b: Tensor) -> Tensor:
    """(a^i b^j - a^j b^i) / 2 for i < j."""
    i, j = pairs(a.shape[-1])
    return 0.5 * (a[..., i] * b[..., j] - a[..., j] * b[..., i])


def _windows(path: PiecewisePath, windows: Tensor) -> Tensor:
    if not isinstance(path, LinearPath):
        raise ValueError(f"path must be piecewise linear, got a {type(path).__name__}")
    fits = windows.ndim == 1 or (windows.ndim == 2 and len(windows) in (1, path.batch))
    if not (fits and windows.is_floating_point() and windows.shape[-1] > 1):
        raise ValueError(
            f"windows must be floats (ends,) or ({path.batch}, ends), at least two ends, "
            f"got {windows.dtype} of shape {tuple(windows.shape)}"
        )
    ends = windows.double().reshape(-1, windows.shape[-1])
    if not bool((ends.diff(dim=1) > 0).all()):
        raise ValueError(f"windows must rise strictly, got {windows.tolist()}")
    return ends


def log_signature(path: PiecewisePath, windows: Tensor) -> LogSignature:
    """Log-signatures to depth 2 of a piecewise linear path, exactly, over consecutive windows.

    Args:
        path: linear or rectilinear path.
        windows: strictly rising ends of the windows, (ends,) or (batch, ends), in the path's span; they need not be knots.
    Raises:
        ValueError: windows that do not rise strictly, of a wrong shape, or outside the path's span; another path.
    """
    ends = _windows(path, windows)
    values = path(ends)
    # All straight pieces of all windows; those outside the windows count in a window too many at either end, which is left out.
    series = max(len(path.times), len(ends))
    knots = path.times.expand(series, -1)
    knots = torch.minimum(torch.maximum(knots, path.t0[:, None]), path.t1[:, None])
    clock = torch.cat([knots, ends.expand(series, -1)], 1).sort(1).values
    x = path(clock)
    window = torch.searchsorted(ends.expand(series, -1).contiguous(), clock[:, 1:].contiguous()).expand(path.batch, -1)
    start = torch.cat([values[:, :1], values], 1).gather(1, window[..., None].expand(-1, -1, path.channels))
    pieces = _wedge(x[:, :-1] - start, x.diff(dim=1))
    areas = pieces.new_zeros(path.batch, ends.shape[1] + 1, pieces.shape[2])
    areas = areas.scatter_add(1, window[..., None].expand_as(pieces), pieces)
    return LogSignature(ends, values.diff(dim=1), areas[:, 1:-1])


class LogSignaturePath(PiecewisePath):
    """The path whose slope on each window is the window's log-signature divided by its length; zero at the first time.

    At depth 1 it is the linear path through the ends of the windows; at depth 2 the areas are further channels.

    Args:
        path: linear or rectilinear path.
        windows: as for ``log_signature``.
        depth: 1 or 2.
    Raises:
        ValueError: as ``log_signature``, or another depth.
    """

    def __init__(self, path: PiecewisePath, windows: Tensor, depth: int = 2) -> None:
        if depth not in (1, 2):
            raise ValueError(f"depth must be 1 or 2, got {depth}")
        signature = log_signature(path, windows)
        parts = [signature.increments] if depth == 1 else [signature.increments, signature.areas]
        steps = torch.cat(parts, 2)
        ends = signature.windows
        count = torch.full((len(ends),), ends.shape[1], device=ends.device)
        slopes = steps / ends.diff(dim=1)[..., None].to(steps.dtype)
        super().__init__(ends, count, [steps.cumsum(1) - steps, slopes])


def bracket_fields(fields: Fields) -> Fields:
    """The columns f_1, ..., f_c, then the brackets [f_i, f_j] for i < j: one for each channel of a ``LogSignaturePath`` of depth 2.

    Driven by that path they are the log-ODE, also for a solver that takes the path's increments. Forward-mode derivatives, one for
    each column; gradients of any parameters go through. Time must be a part of the state where the fields depend on it.

    Args:
        fields: called with times (batch,) and states (batch, size), returns (batch, size, c).
    """

    def extended(t: Tensor, y: Tensor) -> Tensor:
        columns = fields(t, y)
        moves = [torch.func.jvp(lambda z: fields(t, z), (y,), (column,))[1] for column in columns.unbind(2)]
        # Entry (i, j) is the derivative of f_j along f_i.
        along = torch.stack(moves, 2)
        i, j = pairs(columns.shape[2])
        return torch.cat([columns, along[:, :, i, j] - along[:, :, j, i]], 2)

    return extended


def log_ode_field(fields: Fields, path: LogSignaturePath) -> Fields:
    """The log-ODE dy/dt of known fields on a log-signature path of depth 1 or 2.

    A window's end belongs to the window before it. A solver that steps from window to window evaluates at both ends, so it should
    rather take ``bracket_fields`` and the path's increments.

    Args:
        fields: called with times (batch,) and states (batch, size), returns (batch, size, c).
        path: log-signature path of the control with c channels.
    Raises:
        ValueError: at a call, a path whose channels are neither c nor c + c (c - 1)/2.
    """

    def field(t: Tensor, y: Tensor) -> Tensor:
        slope = path.derivative(t)
        columns = fields(t, y)
        c = columns.shape[2]
        if slope.shape[1] == c + c * (c - 1) // 2 and c > 1:
            columns = bracket_fields(fields)(t, y)
        elif slope.shape[1] != c:
            raise ValueError(
                f"path must have {c} or {c + c * (c - 1) // 2} channels for {c} fields, got {slope.shape[1]}"
            )
        return torch.einsum("bsc,bc->bs", columns, slope)

    return field

"""Controls from irregular data: continuous paths through observations with gaps, one for each sample of a batch.

| path | between observations | sees |
|---|---|---|
| ``LinearPath`` | straight lines | the next observation |
| ``RectilinearPath`` | time moves first, then the values | no observation before its time has moved |
| ``HermitePath`` | cubics, C¹, slopes by backward differences | the next observation |
| ``CubicPath`` | the natural cubic spline, C² | all observations |

Data are (batch, time, channel) at strictly rising times, (time,) for all samples or (batch, time). NaN is a missing observation;
``fill`` says what stands for it:

- "linear": the straight line between the channel's neighbouring observations, before its first one that value, after its last one
  that value. It looks ahead to the next observation.
- "forward": the channel's last observation, and zero before the first. Strictly causal.

A channel that a sample never observes is zero; ``observation_counts`` tells it from an observed zero. A series that is shorter than
the batch's is padded by NaN at its end. If the times are (batch, time) they may be padded as well: the path then ends at the last
time that is a number.

A path is called with a time, of shape () or (batch,), or with k times for each sample, (batch, k) or (1, k) for the same ones; the
result is (batch, channel) or (batch, k, channel). Times are kept in float64 and results have the data's dtype. Everything is
differentiable with respect to data and queried times.

Source: Kidger 2022 (arXiv:2202.02435); Morrill, Kidger, Yang and Lyons 2022 (arXiv:2106.11028), Hermite and rectilinear controls.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pdebook.rng import fold_in, uniform

Fill = Literal["linear", "forward"]


def _checked(times: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Times in float64, (1, time) or (batch, time), and the number of those that are numbers, (1,) or (batch,)."""
    if data.ndim != 3 or not data.is_floating_point():
        raise ValueError(f"data must be floats (batch, time, channel), got {data.dtype} of shape {tuple(data.shape)}")
    batch, length, channels = data.shape
    if not batch or not channels or length < 2:
        raise ValueError(
            f"data must hold at least one sample, two times and one channel, got shape {tuple(data.shape)}"
        )
    if times.shape not in ((length,), (batch, length)) or times.device != data.device:
        raise ValueError(
            f"times must be ({length},) or ({batch}, {length}) on {data.device}, as data; got {tuple(times.shape)} on {times.device}"
        )
    if not times.is_floating_point() or torch.finfo(times.dtype).bits < torch.finfo(data.dtype).bits:
        raise ValueError(f"times must be floats of at least the precision of data, {data.dtype}, got {times.dtype}")
    shared = times.ndim == 1
    times = times.double().reshape(-1, length)
    place, count = torch.arange(length, device=times.device), times.isfinite().sum(1)
    last = times.gather(1, (count - 1).clamp(min=0)[:, None])
    # Padding goes on by units of time, so that all differences are finite; no query reaches it.
    filled = torch.where(place < count[:, None], times, last + (place - count[:, None] + 1))
    # NaN before the padding makes a difference that is not positive.
    wrong = times.isinf().any(1) | ~(filled.diff(dim=1) > 0).all(1)
    wrong |= count < (length if shared else 2)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        listed = ", ".join(f"{time:g}" for time in times[row, :8].tolist())
        raise ValueError(
            "times must be at least two numbers that rise strictly, padded by NaN at the end only if they are (batch, time); "
            f"got {listed}{', ...' if length > 8 else ''}{'' if shared else f' for sample {row}'}"
        )
    return filled, count


def fill_forward(data: Float[Tensor, "batch time channel"]) -> Float[Tensor, "batch time channel"]:
    """Missing values replaced by the channel's last observation, or by zero before the first."""
    steps = torch.arange(data.shape[1], device=data.device)[:, None]
    seen = ~data.isnan()
    last = torch.where(seen, steps, 0).cummax(1).values
    # Before the first observation that is the zero of the missing first one.
    return torch.where(seen, data, 0.0).gather(1, last)


def fill_linear(
    times: Float[Tensor, "*series time"], data: Float[Tensor, "batch time channel"]
) -> Float[Tensor, "batch time channel"]:
    """Missing values replaced by straight lines, and by the nearest observation at both ends.

    Args:
        times: strictly rising, (time,) or (batch, time), as in the module's text.
        data: NaN where missing.
    Raises:
        ValueError: as the paths.
    """
    return _fill_linear(_checked(times, data)[0], data)


def _fill_linear(times: Tensor, data: Tensor) -> Tensor:
    length = data.shape[1]
    steps = torch.arange(length, device=data.device)[:, None]
    seen = ~data.isnan()
    last = torch.where(seen, steps, -1).cummax(1).values
    following = torch.where(seen, steps, length).flip(1).cummin(1).values.flip(1)
    # At the ends both neighbours are the same; of a channel without observations they are its zeros.
    left = torch.where(last >= 0, last, following).clamp(max=length - 1)
    right = torch.where(following < length, following, last).clamp(min=0)
    clean = torch.where(seen, data, 0.0)
    clock = times[..., None].expand_as(data)
    start, end = clock.gather(1, left), clock.gather(1, right)
    share = torch.where(end > start, (clock - start) / (end - start), 0.0).to(data.dtype)
    below, above = clean.gather(1, left), clean.gather(1, right)
    return torch.where(seen, clean, below + share * (above - below))


def with_time(
    times: Float[Tensor, "*series time"], data: Float[Tensor, "batch time channel"]
) -> Float[Tensor, "batch time channel1"]:
    """The data with the times as a further, first channel, without which a control does not know its speed.

    Args:
        times: (time,) or (batch, time); padding by NaN is filled as any missing value.
        data: observations.
    """
    return torch.cat([times.to(data.dtype).expand(data.shape[:2])[..., None], data], 2)


def observation_counts(data: Float[Tensor, "batch time channel"]) -> Float[Tensor, "batch time channel"]:
    """How many observations each channel has had so far: further channels that tell what was measured from what was filled in."""
    return (~data.isnan()).to(data.dtype).cumsum(1)


def drop_observations(
    seed: int, samples: Int64[Tensor, " batch"], data: Float[Tensor, "batch time channel"], rate: float, each: str
) -> Float[Tensor, "batch time channel"]:
    """The data with floor(rate · time) observations at random made NaN.

    Args:
        seed: seed.
        samples: sample numbers; what a sample loses depends on its number alone.
        data: observations.
        rate: share to drop, in [0, 1].
        each: "channel" drops them independently in each channel, "time" drops all channels of the same times.
    Raises:
        ValueError: a rate out of range, or another word.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")
    if each not in ("channel", "time"):
        raise ValueError(f"each must be 'channel' or 'time', got {each!r}")
    _, length, channels = data.shape
    shape = (length, channels if each == "channel" else 1)
    draws = uniform(fold_in(seed, "drop"), samples, shape, dtype=torch.float64, device=data.device)
    # A random order of the times: where its numbers are small is a random set.
    return torch.where(draws.argsort(1) < math.floor(rate * length), math.nan, data)


class PiecewisePath:
    """A path that is a polynomial of degree at most three on each interval [t_i, t_{i+1}], in powers of t - t_i.

    At an observation the derivative is the left interval's, so that whatever holds on [t_0, t_{i+1}] is a matter of the intervals up
    to that time; ``derivative`` gives the right one's on request.

    Attributes:
        times: knots, (1, n) or (batch, n), float64.
        coefficients: of the powers, (batch, n - 1, power, channel).
        t0: first time of each sample, (1,) or (batch,).
        t1: last time.
        batch: number of samples.
        channels: number of channels.
    """

    def __init__(self, times: Float64[Tensor, "series knot"], count: Tensor, coefficients: list[Tensor]) -> None:
        self.times = times
        self.coefficients = torch.stack(coefficients, 2)
        self.batch, self.channels = len(self.coefficients), self.coefficients.shape[-1]
        self.t0, self.t1 = times[:, 0], times.gather(1, count[:, None] - 1)[:, 0]
        self._pieces = count[:, None] - 2
        self._rows = torch.arange(self.batch, device=times.device)[:, None]

    @property
    def corners(self) -> Float64[Tensor, "series knot"] | None:
        """Times at which the derivative jumps; None for a path that has none. Fixed steps of a ``terms.CDE`` take their own side's."""
        return self.times if self.coefficients.shape[2] == 2 else None

    def __call__(self, t: float | Tensor) -> Tensor:
        """The path at t: (batch, channel), or (batch, k, channel) for k times of each sample.

        Raises:
            ValueError: a time outside a sample's span, of a wrong shape or no float. On a GPU, where a look would wait for the
                device, a time outside gives NaN.
        """
        offset, pieces, squeeze = self._find(t, "left")
        value = pieces[:, :, -1]
        for k in range(pieces.shape[2] - 2, -1, -1):
            value = value * offset + pieces[:, :, k]
        return value[:, 0] if squeeze else value

    def derivative(self, t: float | Tensor, side: Literal["left", "right"] = "left") -> Tensor:
        """The path's derivative at t, shaped as its value.

        Args:
            t: as for the value.
            side: at a knot, the derivative of the interval that ends there, or of the one that begins there.
        Raises:
            ValueError: as for the value.
        """
        offset, pieces, squeeze = self._find(t, side)
        degree = pieces.shape[2] - 1
        value = degree * pieces[:, :, degree]
        for k in range(degree - 1, 0, -1):
            value = value * offset + k * pieces[:, :, k]
        return value[:, 0] if squeeze else value

    def increment(self, s: float | Tensor, t: float | Tensor) -> Tensor:
        """X_t - X_s, shaped as the value at the one with more axes.

        Raises:
            ValueError: as for the value.
        """
        start, end = self(s), self(t)
        if start.ndim < end.ndim:
            start = start[:, None]
        elif end.ndim < start.ndim:
            end = end[:, None]
        return end - start

    def _find(self, t: float | Tensor, side: str) -> tuple[Tensor, Tensor, bool]:
        """Offset in the interval (batch or 1, k, 1), its coefficients (batch, k, power, channel), and whether k is no axis."""
        if side not in ("left", "right"):
            raise ValueError(f"side must be 'left' or 'right', got {side!r}")
        clock, squeeze = self._clock(t)
        knots = self.times[0] if len(self.times) == 1 else self.times
        index = torch.searchsorted(knots.contiguous(), clock.detach().contiguous(), side=side) - 1
        index = torch.minimum(index.clamp(min=0), self._pieces)
        start = self.times.expand(len(index), -1).gather(1, index)
        offset = (clock - start).to(self.coefficients.dtype)[..., None]
        return offset, self.coefficients[self._rows, index], squeeze

    def _clock(self, t: float | Tensor) -> tuple[Tensor, bool]:
        """Queried times (batch, k) or, if all is shared, (1, k), within the span."""
        device = self.times.device
        if not isinstance(t, Tensor):
            t = torch.full((), t, dtype=torch.float64, device=device)
        fits = t.ndim == 0 or t.shape == (self.batch,) or (t.ndim == 2 and len(t) in (1, self.batch))
        if not (fits and t.is_floating_point()):
            raise ValueError(
                f"t must be a float or floats of shape (), ({self.batch},), ({self.batch}, k) or (1, k), "
                f"got {t.dtype} of shape {tuple(t.shape)}"
            )
        squeeze = t.ndim < 2
        clock = t.to(device, torch.float64).reshape(-1, 1) if squeeze else t.to(device, torch.float64)
        if len(self.times) > 1:
            clock = clock.expand(self.batch, -1)
        t0, t1 = self.t0[:, None], self.t1[:, None]
        # Times that a solver has summed, or rounded to the state's type, may miss an end by a few units in the last place.
        slack = 8.0 * torch.finfo(t.dtype).eps * torch.maximum(t0.abs(), t1.abs())
        outside = ~((clock >= t0 - slack) & (clock <= t1 + slack))
        if device.type != "cpu":
            clock = torch.where(outside, math.nan, clock)
        elif bool(outside.any()):
            row, column = outside.nonzero()[0].tolist()
            which = f" of sample {row}" if len(outside) > 1 else ""
            span = self.t0[row % len(self.t0)].item(), self.t1[row % len(self.t1)].item()
            raise ValueError(
                f"t must lie in the span [{span[0]}, {span[1]}] of the {type(self).__name__}{which}, got {clock[row, column].item()}"
            )
        return torch.where(clock < t0, t0, torch.where(clock > t1, t1, clock)), squeeze


def _filled(times: Tensor, data: Tensor, fill: str) -> tuple[Tensor, Tensor, Tensor]:
    """Checked times, their count, and data without gaps."""
    checked, count = _checked(times, data)
    if fill not in ("linear", "forward"):
        raise ValueError(f"fill must be 'linear' or 'forward', got {fill!r}")
    return checked, count, fill_forward(data) if fill == "forward" else _fill_linear(checked, data)


def _steps(times: Tensor, data: Tensor) -> Tensor:
    """Lengths of the intervals (batch or 1, interval, 1), of the data's dtype."""
    return times.diff(dim=1)[..., None].to(data.dtype)


class LinearPath(PiecewisePath):
    """Straight lines between observations: X = x_i + (t - t_i) (x_{i+1} - x_i)/(t_{i+1} - t_i).

    Args:
        times: strictly rising, (time,) or (batch, time).
        data: observations (batch, time, channel), NaN where missing.
        fill: what stands for missing values, "linear" or "forward".
    Raises:
        ValueError: times that do not rise strictly, wrong shapes or types, or an unknown fill.
    """

    def __init__(self, times: Tensor, data: Tensor, *, fill: Fill = "linear") -> None:
        checked, count, x = _filled(times, data, fill)
        super().__init__(checked, count, [x[:, :-1], x.diff(dim=1) / _steps(checked, data)])


class RectilinearPath(LinearPath):
    """In the first half of [t_i, t_{i+1}] the clock channel moves on and the others wait; in the second half they move.

    So whatever is computed from the path while the clock moves knows no later observation: what an online model needs. The path is
    parametrised by the times of the data, and has a knot at each interval's middle.

    Args:
        times: strictly rising, (time,) or (batch, time).
        data: observations (batch, time, channel), of which one channel is the time; see ``with_time``.
        clock: that channel.
        fill: what stands for missing values; "linear" looks ahead.
    Raises:
        ValueError: as ``LinearPath``, or no such channel.
    """

    def __init__(self, times: Tensor, data: Tensor, *, clock: int = 0, fill: Fill = "forward") -> None:
        checked, count, x = _filled(times, data, fill)
        if not 0 <= clock < data.shape[2]:
            raise ValueError(f"clock must be a channel of data, 0 to {data.shape[2] - 1}, got {clock}")
        is_clock = torch.arange(data.shape[2], device=data.device) == clock
        waiting = torch.where(is_clock, x[:, 1:], x[:, :-1])
        middle = 0.5 * (checked[:, 1:] + checked[:, :-1])
        knots = torch.cat([torch.stack([checked[:, :-1], middle], 2).flatten(1), checked[:, -1:]], 1)
        values = torch.cat([torch.stack([x[:, :-1], waiting], 2).flatten(1, 2), x[:, -1:]], 1)
        PiecewisePath.__init__(self, knots, 2 * count - 1, [values[:, :-1], values.diff(dim=1) / _steps(knots, data)])


class HermitePath(PiecewisePath):
    """Cubic Hermite interpolation whose slope at an observation is the backward difference; C¹, local, causal to the next observation.

    With m_i = (x_i - x_{i-1})/(t_i - t_{i-1}) and m_0 = m_1, on [t_i, t_{i+1}] with Δ = t_{i+1} - t_i and δ = t - t_i,

        X = x_i + m_i δ + 2 (m_{i+1} - m_i)/Δ δ² - (m_{i+1} - m_i)/Δ² δ³.

    Observations after t_{i+1} do not change the path on [t_0, t_{i+1}]. A linear fill does look ahead, a forward fill does not.

    Args and Raises: as ``LinearPath``.
    Source: Morrill, Kidger, Yang and Lyons 2022.
    """

    def __init__(self, times: Tensor, data: Tensor, *, fill: Fill = "linear") -> None:
        checked, count, x = _filled(times, data, fill)
        h = _steps(checked, data)
        secant = x.diff(dim=1) / h
        start = torch.cat([secant[:, :1], secant[:, :-1]], 1)
        change = (secant - start) / h
        super().__init__(checked, count, [x[:, :-1], start, 2.0 * change, -change / h])


class CubicPath(PiecewisePath):
    """The natural cubic spline: C², second derivative zero at both ends. Every observation changes it everywhere.

    With M_i = X''(t_i) and h_i = t_{i+1} - t_i, M_0 = M_n = 0 and

        h_{i-1} M_{i-1} + 2 (h_{i-1} + h_i) M_i + h_i M_{i+1} = 6 ((x_{i+1} - x_i)/h_i - (x_i - x_{i-1})/h_{i-1}).

    Missing values are filled before, so the spline passes through the filled ones too.

    Args and Raises: as ``LinearPath``.
    """

    def __init__(self, times: Tensor, data: Tensor, *, fill: Fill = "linear") -> None:
        checked, count, x = _filled(times, data, fill)
        h = _steps(checked, data)
        secant = x.diff(dim=1) / h
        # A padded series ends at its last time: there, and beyond, M is zero.
        inner = torch.arange(1, data.shape[1] - 1, device=data.device) < count[:, None] - 1
        second = _tridiagonal(h, 6.0 * secant.diff(dim=1), inner[..., None])
        start = secant - h * (2.0 * second[:, :-1] + second[:, 1:]) / 6.0
        cubic = second.diff(dim=1) / (6.0 * h)
        super().__init__(checked, count, [x[:, :-1], start, 0.5 * second[:, :-1], cubic])


def _tridiagonal(
    h: Float[Tensor, "series interval 1"], right: Float[Tensor, "batch inner channel"], inner: Bool[Tensor, "s inner 1"]
) -> Float[Tensor, "batch knot channel"]:
    """M of ``CubicPath``, zero at both ends and wherever ``inner`` is false, by elimination in order of time.

    The matrix is diagonally dominant, so no pivots are needed.
    """
    zero = right.new_zeros(len(right), right.shape[2])
    ratios, values = [torch.zeros_like(h[:, 0])], [zero]
    for i in range(right.shape[1]):
        pivot = 2.0 * (h[:, i] + h[:, i + 1]) - h[:, i] * ratios[-1]
        ratios.append(torch.where(inner[:, i], h[:, i + 1] / pivot, 0.0))
        values.append(torch.where(inner[:, i], (right[:, i] - h[:, i] * values[-1]) / pivot, 0.0))
    result = [zero]
    for ratio, value in zip(reversed(ratios), reversed(values), strict=True):
        result.append(value - ratio * result[-1])
    return torch.stack(result[::-1], 1)

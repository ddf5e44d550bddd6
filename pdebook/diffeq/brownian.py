"""Brownian motion that a solver can query at any times: one seed, one path, whatever was asked before and in whatever order.

``BrownianTree`` is a dyadic tree whose every normal is a function of (seed, sample, node) and of nothing else, so no path is stored:
a rejected step, a backward sweep or another batch sees the same one, and each sample may have its own times. ``PrecomputedPath``
joins given values by straight lines. Solvers take either, as a ``Brownian``.

On s < t, with h = t - s and W_{s,t} = W_t - W_s, the space-time Lévy area is

    H_{s,t} = 1/h ∫_s^t (W_{s,r} - (r-s)/h W_{s,t}) dr,      ∫_s^t W_{s,r} dr = h (W_{s,t}/2 + H_{s,t}).

W ~ N(0, h) and H ~ N(0, h/12) are independent. Both formulas hold for t < s too, with h < 0: W_{t,s} = -W_{s,t} and
H_{t,s} = H_{s,t}. Two steps add as W_{s,u} = W_{s,t} + W_{t,u} and, with l = t - s and k = u - t,
(l+k) H_{s,u} = l H_{s,t} + k H_{t,u} + (k W_{s,t} - l W_{t,u})/2.

Source: Jelinčič, Foster, Kidger 2024 (arXiv:2405.06464); Kidger 2022 (arXiv:2202.02435).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.rng import check_samples, fold_in, normals_of

# A block's index is the node's heap number, below 2^(MAX_DEPTH + 1), plus the place in the sample's shape times that.
MAX_DEPTH = 40
MAX_BLOCKS = 2**22


class Increment(NamedTuple):
    """Brownian motion over steps from s to t.

    Attributes:
        h: t - s in float64, of shape () or (batch,).
        w: W_t - W_s, of shape (batch, *shape); of a grid (batch, n, *shape).
        area: H_{s,t} of the same shape, or None if it was not asked for.
    """

    h: Tensor
    w: Tensor
    area: Tensor | None


@runtime_checkable
class Brownian(Protocol):
    """What a solver asks of Brownian motion on [t0, t1]."""

    t0: float
    t1: float
    batch: int
    shape: tuple[int, ...]
    space_time: bool

    def increment(self, s: float | Tensor, t: float | Tensor) -> Increment:
        """Increment from s to t."""
        ...

    def value(self, t: float | Tensor) -> Tensor:
        """W_t - W_{t0}."""
        ...


def _times(name: str, t: float | Tensor, t0: float, t1: float, batch: int, device: torch.device) -> Tensor:
    """Times in float64, of shape () or (batch,), in [t0, t1]; NaN for those outside where a look would wait for the device."""
    # Times that a solver has summed, or rounded to the state's type, may miss an end by a few units in the last place.
    if isinstance(t, Tensor) and (not t.is_floating_point() or t.shape not in ((), (batch,))):
        raise ValueError(
            f"{name} must be a float or floats of shape () or ({batch},), got {t.dtype} of shape {tuple(t.shape)}"
        )
    slack = 8.0 * max(abs(t0), abs(t1)) * torch.finfo(t.dtype if isinstance(t, Tensor) else torch.float64).eps
    if isinstance(t, Tensor):
        times = t.to(device, torch.float64)
        if device.type != "cpu":
            return torch.where((times >= t0 - slack) & (times <= t1 + slack), times.clamp(t0, t1), math.nan)
        low, high = (bound.item() for bound in times.aminmax())
        if not (t0 - slack <= low and high <= t1 + slack):
            raise ValueError(f"{name} must lie in [{t0}, {t1}], got {high if low >= t0 - slack else low}")
        return times if t0 <= low and high <= t1 else times.clamp(t0, t1)
    if not t0 - slack <= t <= t1 + slack:
        raise ValueError(f"{name} must lie in [{t0}, {t1}], got {t}")
    return torch.full((), min(max(t, t0), t1), dtype=torch.float64, device=device)


def _increment(s: Tensor, t: Tensor, ends: Tensor, integrals: Tensor | None) -> Increment:
    """From W at both ends, ``ends`` of shape (2, batch, *shape), and the integrals of W from t0 to both ends."""
    h = t - s
    w = ends[1] - ends[0]
    if integrals is None:
        return Increment(h, w, None)
    length = h.reshape([*h.shape, *[1] * (w.ndim - 1 if h.ndim else 0)]).to(w.dtype)
    empty = length == 0
    mean = (integrals[1] - integrals[0]) / torch.where(empty, 1.0, length)
    return Increment(h, w, torch.where(empty, 0.0, mean - 0.5 * (ends[0] + ends[1])))


class BrownianTree:
    """Brownian motion on [t0, t1] with W_{t0} = 0, made anew at each query by descending a dyadic tree.

    The motion over the whole interval is a normal draw; each midpoint adds another, given what the coarser intervals have; after
    ``depth`` halvings the conditional law at the queried time itself adds the last. With s an interval's start, l its length, y the
    distance to its nearer end over l/2, and normals z_1, z_2 of its node, a midpoint adds to W_t and, of a tree with areas, to
    J_t = ∫_{t0}^t W dr (σ = 1 in the left half and -1 in the right one)

        without areas   W: √l/2 y z_1
        with areas      W: √l/4 y (3y-2) z_1 + σ √(l/12) 3y(1-y) z_2,   J: σ l/2 √l/4 (y³-y²) z_1 + l/2 √(l/12) (3/2 y² - y³) z_2

    and the leaf, with p = (t-s)/l, q = 1-p and d² = p³+q³,

        without areas   W: √(l p q) z_1
        with areas      W: √(l p q) d z_1,   J: l^{3/2} (p/2 √(pq) d - p^{7/2} q^{1/2}/(2d)) z_1 + l^{3/2} √(3p³q³)/(6d) z_2.

    Exactness: the law of each W_t - W_{t0} (and H) is exact at any t. So is the joint law of all queries as long as no leaf, an
    interval of length ``resolution`` <= tolerance, holds two of them strictly inside. Two that it does hold share its normals, and
    what lies between them is smoother than Brownian motion: without areas, p_1 and p_2 of a leaf of length l are apart by a variance
    of l ((p_2-p_1)² + (√(p_2 q_2) - √(p_1 q_1))²) instead of l (p_2-p_1). So take a tolerance below the smallest step; half of it
    serves. Trees that differ in tolerance alone agree at the coarser one's dyadic times.

    A tree with areas is another path than one without. The rounding error of H is about 1e-16 (t1-t0)^{3/2}/h. On a CPU the normals
    of the last query are kept: one nearby shares most of them, and is the same bit for bit without.

    Args:
        seed: seed, 0 <= seed < 2^63.
        t0: first time.
        t1: last time, t0 < t1.
        shape: shape of one sample's Brownian motion, for instance (noise,).
        tolerance: largest length of a leaf, in units of time; at least (t1-t0)/2^40.
        samples: batch size, or the samples' numbers, (batch,) integers; a sample's path depends on its number alone.
        space_time: whether ``increment`` gives the space-time Lévy area.
        dtype: dtype of what is returned; it is made in float64 and rounded.
        device: device.
    Raises:
        ValueError: an argument out of range.
    Source: Jelinčič, Foster, Kidger 2024, for the recursion and the leaf's law, here summed in closed form.
    """

    def __init__(
        self,
        seed: int,
        t0: float,
        t1: float,
        shape: Sequence[int],
        *,
        tolerance: float,
        samples: int | Tensor,
        space_time: bool = False,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not (math.isfinite(t0) and math.isfinite(t1) and t0 < t1):
            raise ValueError(f"t0 and t1 must be finite with t0 < t1, got {t0} and {t1}")
        span = t1 - t0
        if not span / 2**MAX_DEPTH <= tolerance < math.inf:
            raise ValueError(
                f"tolerance must be at least (t1 - t0)/2^{MAX_DEPTH} = {span / 2**MAX_DEPTH}, got {tolerance}"
            )
        if not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating type, got {dtype}")
        self.t0, self.t1, self.shape = float(t0), float(t1), tuple(shape)
        self.space_time, self.dtype, self.device = space_time, dtype, torch.device(device)
        self._size = math.prod(self.shape)
        self._blocks = self._size if space_time else -(-self._size // 2)
        if min(self.shape, default=1) < 1 or self._blocks > MAX_BLOCKS:
            raise ValueError(f"shape must be positive and hold at most 2^22 numbers, got {self.shape}")
        if isinstance(samples, int):
            if samples < 1:
                raise ValueError(f"samples must be at least 1, got {samples}")
            samples = torch.arange(samples, device=self.device)
        check_samples(samples)
        self._samples = samples.to(self.device)
        self.batch = len(samples)
        self.depth = max(0, math.ceil(math.log2(span / tolerance)))
        self.resolution = span / 2**self.depth
        self._levels = 2 ** torch.arange(self.depth + 1, device=self.device)[:, None, None]
        self._last: tuple[Tensor, Tensor] | None = None
        self._seed = fold_in(seed, "space-time" if space_time else "Brownian motion")

    def value(self, t: float | Tensor) -> Float[Tensor, "batch *shape"]:
        """W_t - W_{t0}.

        Args:
            t: a time, or one for each sample, (batch,).
        Raises:
            ValueError: a time outside [t0, t1], of a wrong shape or no float. On a GPU, where a look would wait for the device,
                such a time gives NaN.
        """
        time = _times("t", t, self.t0, self.t1, self.batch, self.device)
        return self._ends(time[None])[0][0].to(self.dtype)

    def increment(self, s: float | Tensor, t: float | Tensor) -> Increment:
        """W, and the space-time Lévy area of a tree that has it, from s to t; either may be the larger.

        Args:
            s: start, or one for each sample, (batch,).
            t: end, or one for each sample.
        Raises:
            ValueError: as ``value``.
        """
        start = _times("s", s, self.t0, self.t1, self.batch, self.device)
        end = _times("t", t, self.t0, self.t1, self.batch, self.device)
        h, w, area = _increment(start, end, *self._ends(torch.stack(torch.broadcast_tensors(start, end))))
        return Increment(h, w.to(self.dtype), None if area is None else area.to(self.dtype))

    def grid(self, n: int) -> Increment:
        """The increments over n equal steps at once, n a power of two up to 2^depth: those of ``increment``, to rounding.

        Each node is made once, not once for every query below it.

        Raises:
            ValueError: n is no such power.
        """
        if n < 1 or n & (n - 1) or n > 2**self.depth:
            raise ValueError(f"n must be a power of two, at most 2^depth = {2**self.depth}, got {n}")
        z = self._normals(self._samples, torch.arange(n, device=self.device)[:, None])
        # All have shape (node, batch, size); bridge is H times the interval's length.
        w, bridge, length = z[:1, ..., 0], z[:1, ..., -1] / math.sqrt(12.0), 1.0
        while len(w) < n:
            midpoint = z[len(w) : 2 * len(w)]
            if self.space_time:
                first, second = 0.25 * math.sqrt(length) * midpoint[..., 0], math.sqrt(length / 12.0) * midpoint[..., 1]
                tilt, mean, gap = (
                    1.5 / length * bridge + first,
                    0.125 * bridge - 0.25 * length * first,
                    0.25 * length * second,
                )
                bridge = torch.stack([mean + gap, mean - gap], 1).flatten(0, 1)
            else:
                tilt = 0.5 * math.sqrt(length) * midpoint[..., 0]
            w = torch.stack([0.5 * w + tilt, 0.5 * w - tilt], 1).flatten(0, 1)
            length *= 0.5
        h = torch.full((), (self.t1 - self.t0) / n, dtype=torch.float64, device=self.device)
        return Increment(h, self._grid_output(w), self._grid_output(bridge / length) if self.space_time else None)

    def _grid_output(self, x: Tensor) -> Tensor:
        scaled = math.sqrt(self.t1 - self.t0) * x.transpose(0, 1)
        return scaled.reshape(self.batch, -1, *self.shape).to(self.dtype)

    def _normals(self, samples: Tensor, nodes: Tensor) -> Tensor:
        """Normals of nodes that broadcast with samples, of shape (*broadcast, size, draws)."""
        columns = nodes[..., None] + (torch.arange(self._blocks, device=self.device) << (MAX_DEPTH + 1))
        pairs = normals_of(self._seed, samples[..., None], columns)
        return pairs if self.space_time else pairs.flatten(-2)[..., : self._size, None]

    def _ends(self, times: Tensor) -> tuple[Tensor, Tensor | None]:
        """W and, of a tree with areas, its integral from t0 at one or two times (queries,) or (queries, batch).

        Both are sums over levels of a normal times a weight, so there is no recursion; they have shape (queries, batch, *shape).
        """
        r = ((times.detach() - self.t0) / (self.t1 - self.t0)).reshape(len(times), -1)
        x = r * self._levels
        # The last time is the right end of the last interval, and NaN has to stay within the tree.
        place = torch.minimum(x.long(), self._levels - 1).clamp_(min=0)
        weights, integral_weights = self._weights(r, x - place)
        nodes = torch.cat([torch.zeros_like(place[:1]), self._levels + place])
        z = self._normals_of_queries(nodes.transpose(0, 1)).transpose(0, 1)
        scale = math.sqrt(self.t1 - self.t0)
        w = scale * self._sum(weights, z)
        if integral_weights is None:
            return w, None
        return w, scale**3 * self._sum(integral_weights, z)

    def _normals_of_queries(self, nodes: Tensor) -> Tensor:
        """Normals of nodes (queries, level, batch or 1): (queries, level, batch, size, draws)."""
        if self.device.type != "cpu":
            return self._normals(self._samples, nodes)
        # A query shares most nodes with the one before it, whose normals are at hand. Only the others are made; on a GPU, to count
        # them would wait for the device.
        nodes = nodes.expand(-1, -1, self.batch).contiguous()
        known, z = self._last or (torch.full_like(nodes[0], -1), torch.zeros(1, dtype=torch.float64))
        fresh = nodes != known
        repeats = nodes[1:] == nodes[:-1]
        fresh[1:] &= ~repeats
        where = fresh.flatten().nonzero().squeeze(1)
        new = self._normals(self._samples[where % self.batch], nodes.flatten()[where])
        result = z.expand(len(nodes), *known.shape, *new.shape[1:]).clone()
        result.view(-1, *new.shape[1:])[where] = new
        if len(nodes) == 2:
            result[1] = torch.where(repeats[0][..., None, None], result[0], result[1])
        self._last = nodes[-1], result[-1]
        return result

    def _weights(self, r: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights (level, queries, batch or 1, 1, draws) of the normals in W and in its integral, on [0, 1].

        Args:
            r: queries, in [0, 1].
            x: place of r in the interval of each level that holds it, in [0, 1].
        """
        length = 1.0 / self._levels.double()
        scale, leaf_scale = length[:-1].sqrt(), length[-1:].sqrt()
        near = 2.0 * torch.minimum(x, 1.0 - x)[:-1]
        p, q = x[-1:], 1.0 - x[-1:]
        arc = leaf_scale * (p * q).sqrt()
        if not self.space_time:
            return torch.cat([r[None], 0.5 * scale * near, arc])[..., None, None], None
        side = torch.where(x[:-1] < 0.5, scale, -scale)
        d = (p**3 + q**3).sqrt()
        first = [r[None], 0.25 * scale * near * (3.0 * near - 2.0), arc * d]
        second = [math.sqrt(3.0) * (r * (1.0 - r))[None], math.sqrt(0.75) * side * near * (1.0 - near), 0.0 * p]
        half, leaf = 0.5 * length[:-1], length[-1:] * arc
        integral_first = [
            0.5 * (r * r)[None],
            0.25 * half * side * near * near * (near - 1.0),
            leaf * (0.5 * p * d - 0.5 * p**3 / d),
        ]
        integral_second = [
            (r * r * (3.0 - 2.0 * r))[None] / math.sqrt(12.0),
            half * scale * near * near * (1.5 - near) / math.sqrt(12.0),
            leaf * p * q / (math.sqrt(12.0) * d),
        ]
        value = torch.stack([torch.cat(first), torch.cat(second)], -1)
        integral = torch.stack([torch.cat(integral_first), torch.cat(integral_second)], -1)
        return value[..., None, :], integral[..., None, :]

    def _sum(self, weights: Tensor, z: Tensor) -> Tensor:
        # Term by term, in one order for every batch: a reduction's order may depend on the shape.
        first, *others = (weights * z).unbind(0)
        for term in others:
            first = first + term
        total = first[..., 0] if first.shape[-1] == 1 else first[..., 0] + first[..., 1]
        return total.reshape(*total.shape[:2], *self.shape)


class PrecomputedPath:
    """A path through given values, by straight lines: for tests, and for coarse and fine steps of one path.

    The area is that of the polygon. It tends to Brownian motion's as the times get denser; on one piece it is zero.

    Args:
        times: (n,) floats, strictly rising, at least two.
        values: W at these times, (batch, n, *shape); only differences matter.
        space_time: whether ``increment`` gives the area.
    Raises:
        ValueError: times that do not rise, or values that do not go with them.
    """

    def __init__(self, times: Tensor, values: Tensor, *, space_time: bool = False) -> None:
        if times.ndim != 1 or len(times) < 2 or not times.is_floating_point() or not bool((times.diff() > 0).all()):
            raise ValueError(
                f"times must be a vector of at least two strictly rising floats, got {times.dtype} of shape {tuple(times.shape)}"
            )
        if values.ndim < 2 or values.shape[1] != len(times) or not values.is_floating_point():
            raise ValueError(
                f"values must be floats of shape (batch, {len(times)}, ...), got {values.dtype} of shape {tuple(values.shape)}"
            )
        self._times, self._values, self.space_time = times.to(values.device, torch.float64), values, space_time
        self.t0, self.t1 = times[0].item(), times[-1].item()
        self.batch, self.shape = len(values), tuple(values.shape[2:])
        self.dtype, self.device = values.dtype, values.device
        steps = self._columns(self._times.diff())
        areas = (0.5 * steps * (values[:, 1:] + values[:, :-1])).cumsum(1)
        self._integrals = torch.cat([torch.zeros_like(values[:, :1]), areas], 1)

    def _columns(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).reshape(*x.shape, *[1] * len(self.shape))

    def _ends(self, times: Tensor) -> tuple[Tensor, Tensor | None]:
        piece = (torch.searchsorted(self._times, times) - 1).clamp(0, len(self._times) - 2).expand(-1, self.batch)
        rows = torch.arange(self.batch, device=self.device)
        left, right = self._values[rows, piece], self._values[rows, piece + 1]
        offset, length = times - self._times[piece], self._times[piece + 1] - self._times[piece]
        w = left + self._columns(offset / length) * (right - left)
        if not self.space_time:
            return w, None
        return w, self._integrals[rows, piece] + self._columns(0.5 * offset) * (left + w)

    def value(self, t: float | Tensor) -> Float[Tensor, "batch *shape"]:
        """W_t - W_{t0}, as ``BrownianTree.value``."""
        time = _times("t", t, self.t0, self.t1, self.batch, self.device)
        return self._ends(time.reshape(1, -1))[0][0] - self._values[:, 0]

    def increment(self, s: float | Tensor, t: float | Tensor) -> Increment:
        """W, and the area of a path made with it, from s to t, as ``BrownianTree.increment``."""
        start = _times("s", s, self.t0, self.t1, self.batch, self.device)
        end = _times("t", t, self.t0, self.t1, self.batch, self.device)
        times = torch.stack(torch.broadcast_tensors(start, end))
        return _increment(start, end, *self._ends(times.reshape(2, -1)))

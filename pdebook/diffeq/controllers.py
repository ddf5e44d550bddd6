"""How long a step is: fixed grids, or what the error estimate allows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdebook.diffeq.terms import Bound

Times = float | int | Tensor
"""A time that the batch shares, or one for each sample, shape (batch,)."""


@dataclass(frozen=True)
class Constant:
    """Steps of one size, or a number of equal steps; the last is shortened to end exactly at t1.

    Args:
        step: size of a step, positive.
        steps: or the number of steps, which divides each trajectory's own span.
    Raises:
        ValueError: not exactly one of them, or one that is not positive.
    """

    step: float | int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.step is None) == (self.steps is None):
            raise ValueError("give either step or steps")
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise ValueError(f"step must be positive and finite, got {self.step}")
        if self.steps is not None and not (
            self.steps >= 1 and math.isfinite(self.steps) and self.steps == int(self.steps)
        ):
            raise ValueError(f"steps must be at least 1, and whole, got {self.steps}")

    def grid(self, t0: Tensor, t1: Tensor) -> Tensor:
        """Times (steps + 1, batch) from t0 to t1, both of shape (batch,) on the CPU."""
        span = t1 - t0
        if self.steps is not None:
            fractions = torch.arange(self.steps + 1, dtype=torch.float64)[:, None] / self.steps
            times = t0 + span * fractions
        else:
            count = max(1, math.ceil(float(span.abs().max()) / float(self.step or 1.0) - 1e-9))
            walked = torch.arange(count + 1, dtype=torch.float64)[:, None] * float(self.step or 1.0)
            times = t0 + span.sign() * torch.minimum(walked, span.abs())
        times[-1] = t1
        return times


@dataclass(frozen=True)
class Grid:
    """Steps from each time of a grid to the next.

    Args:
        times: (n + 1) times shared by the batch, or a tensor (batch, n + 1), strictly monotone, from t0 to t1.
    """

    times: Sequence[float] | Tensor

    def grid(self, t0: Tensor, t1: Tensor) -> Tensor:
        """Times (n + 1, batch).

        Raises:
            ValueError: times that are not strictly monotone, or do not lead from t0 to t1.
        """
        times = torch.as_tensor(self.times, dtype=torch.float64).detach().cpu()
        if times.ndim not in (1, 2) or (times.ndim == 2 and len(times) not in (1, len(t0))):
            raise ValueError(f"times must have shape (n + 1,) or ({len(t0)}, n + 1), got {tuple(times.shape)}")
        times = (times[:, None] if times.ndim == 1 else times.T).expand(-1, len(t0)).clone()
        change = times.diff(dim=0)
        if len(times) < 2 or not bool(((change > 0).all(0) | (change < 0).all(0)).all()):
            raise ValueError("times must rise or fall strictly and hold at least one step")
        if not torch.allclose(times[0], t0, rtol=1e-12, atol=1e-12) or not torch.allclose(
            times[-1], t1, rtol=1e-12, atol=1e-12
        ):
            raise ValueError("times must lead from t0 to t1")
        times[0], times[-1] = t0, t1
        return times


DEFAULT_TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float32: (1e-4, 1e-6),
    torch.float64: (1e-7, 1e-9),
}
"""(rtol, atol) for each dtype: what rounding leaves room for."""


@dataclass(frozen=True)
class PID:
    """Steps that keep the estimated error near the tolerance, each trajectory its own.

        r = RMS over the components of  error / (atol + rtol max(|y|, |y_1|)),       accepted if r <= 1
        h <- h clip(S ε_n^{(k_I + k_P + k_D)/k} ε_{n-1}^{-(k_P + 2 k_D)/k} ε_{n-2}^{k_D/k}, f_min, f_max),   ε = 1/r

    with k the order of the error estimate, S the safety factor, and the past over accepted steps only. After a rejected step f_max
    is 0.9. A step whose result is not finite is rejected.

    Args:
        rtol: relative tolerance; by dtype if left out (``DEFAULT_TOLERANCES``).
        atol: absolute tolerance; likewise.
        p: proportional coefficient k_P.
        i: integral coefficient k_I.
        d: derivative coefficient k_D.
        first_step: size of the first step; chosen from two evaluations if left out.
        min_step: a trajectory that needs a smaller one fails.
        max_step: largest step.
        safety: S.
        min_factor: f_min.
        max_factor: f_max.
        scope: "sample" for a step of its own for each trajectory; "batch" for one step for all, as most libraries do.
        jumps: times at which the field is discontinuous; steps end there, and the field is evaluated anew.
        land: whether steps also end exactly at the times that are saved.
    Raises:
        ValueError: a tolerance that is not positive, or sizes and factors that contradict each other.
    Source: Söderlind 2003; Hairer, Norsett and Wanner, section II.4.
    """

    rtol: float | int | None = None
    atol: float | int | None = None
    p: float | int = 0.0
    i: float | int = 1.0
    d: float | int = 0.0
    first_step: float | int | None = None
    min_step: float | int = 0.0
    max_step: float | int = math.inf
    safety: float | int = 0.9
    min_factor: float | int = 0.2
    max_factor: float | int = 10.0
    scope: str = "sample"
    jumps: tuple[float | int, ...] = ()
    land: bool = False

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "first_step"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not 0 <= self.min_step < self.max_step:
            raise ValueError(f"min_step must be at least 0 and below max_step, got {self.min_step} and {self.max_step}")
        if not 0 < self.min_factor < 1 < self.max_factor:
            raise ValueError(f"factors must satisfy 0 < min < 1 < max, got {self.min_factor} and {self.max_factor}")
        if not 0 < self.safety < 1:
            raise ValueError(f"safety must lie between 0 and 1, got {self.safety}")
        if self.scope not in ("sample", "batch"):
            raise ValueError(f"scope must be 'sample' or 'batch', got {self.scope!r}")
        if not all(map(math.isfinite, (self.p, self.i, self.d, *self.jumps))):
            raise ValueError("coefficients and jumps must be finite")

    @property
    def remembers(self) -> bool:
        """Whether the steps before this one count."""
        return bool(self.p or self.d)

    def tolerances(self, dtype: torch.dtype) -> tuple[float, float]:
        """(rtol, atol) for a dtype.

        Raises:
            ValueError: a dtype that has too few digits for error control.
        """
        real = dtype.to_real()
        if real not in DEFAULT_TOLERANCES:
            raise ValueError(f"y0 must be float32 or float64 (or complex) for adaptive steps, got {dtype}")
        rtol, atol = DEFAULT_TOLERANCES[real]
        return float(rtol if self.rtol is None else self.rtol), float(atol if self.atol is None else self.atol)

    def ratio(
        self, error: Tensor, y0: Tensor, y1: Tensor, tolerances: tuple[float, float], mask: Tensor | None
    ) -> Tensor:
        """r for each sample, shape (batch,), in float64; not a number where the step is none."""
        rtol, atol = tolerances
        if mask is not None:
            error, y0, y1 = error[:, mask], y0[:, mask], y1[:, mask]
        # The norm's mean is taken out of the root here, where it costs nothing.
        root = math.sqrt(error.numel() if self.scope == "batch" else error.shape[1])
        scaled = error / torch.maximum(y0.abs(), y1.abs()).mul_(rtol * root).add_(atol * root)
        if self.scope == "batch":
            return torch.linalg.vector_norm(scaled).double().expand(len(y0))
        return torch.linalg.vector_norm(scaled, dim=1).double()

    def first(
        self, bound: Bound, t: Tensor, y: Tensor, f: Tensor, direction: Tensor, span: Tensor, order: float | int
    ) -> Tensor:
        """Size of the first step for each sample, from the scales of y, f and of f's change.

        Source: Hairer, Norsett and Wanner, section II.4.
        """
        if self.first_step is not None:
            return torch.minimum(torch.full_like(span, float(self.first_step)), span)
        rtol, atol = self.tolerances(y.dtype)
        scale = y.abs() * rtol + atol
        root = math.sqrt(y.shape[1])

        def norm(value: Tensor) -> Tensor:
            return torch.linalg.vector_norm(value / scale, dim=1).double() / root

        d0, d1 = norm(y), norm(f)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1.clamp(min=1e-300))
        h0 = torch.minimum(h0, span)
        step = (direction * h0).to(y.real.dtype).unsqueeze(1)
        d2 = norm(bound.field(t + direction * h0, y + step * f) - f) / h0.clamp(min=1e-300)
        largest = torch.maximum(d1, d2)
        h1 = torch.where(
            largest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), _power(0.01 / largest.clamp(min=1e-300), 1.0 / order)
        )
        h = torch.minimum(torch.minimum(100.0 * h0, h1), span).clamp(max=self.max_step)
        # A start that is not finite is found by the first step, which must be one.
        h = torch.where(h.isfinite(), h, torch.minimum(span, torch.full_like(span, 1e-6)))
        return h.amin().expand_as(h).clone() if self.scope == "batch" else h

    def factor(self, ratio: Tensor, past: tuple[Tensor, Tensor], order: float | int) -> Tensor:
        """Factor of the next step, from this and the two accepted steps before it."""
        if not self.remembers and self.i >= 0 and self.safety <= 0.9:
            # Then a rejected step shrinks by more than the safety factor anyway.
            return _power(ratio, -self.i / order).mul_(self.safety).clamp_(self.min_factor, self.max_factor)
        gain = self.safety * _power(ratio.clamp(min=1e-10), -(self.i + self.p + self.d) / order)
        if self.remembers:
            last, before = (r.clamp(min=1e-10) for r in past)
            gain = gain * _power(last, (self.p + 2.0 * self.d) / order) * _power(before, -self.d / order)
        # A rejected step must not be tried again as it was.
        gain = gain.clamp(self.min_factor, self.max_factor)
        return torch.where(ratio > 1.0, gain.clamp(max=0.9), gain)


def _power(x: Tensor, exponent: float) -> Tensor:
    # ``pow`` rounds the last few numbers of a vector in another way: a result would depend on the others in the batch.
    return x.log().mul_(exponent).exp_()

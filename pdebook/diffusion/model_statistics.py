"""Empirical model statistics: the coefficients of DPM-Solver-v3, estimated from a model, in memory and in files.

Source: Zheng, Lu, Chen, Zhu: DPM-Solver-v3, NeurIPS 2023, and the official code.
"""

# ruff: noqa: E741 - l is the paper's name

import math
import os
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook import checkpoints
from pdebook.diffusion.affine import Affine, State
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.derivatives import noise_diagonal
from pdebook.diffusion.scalars import Scalar
from pdebook.diffusion.schedules import NoiseSchedule, time_grid
from pdebook.diffusion.statistics_fit import (
    PARTS,
    array_of,
    differences,
    f_and_rate,
    least_squares,
    levels_between,
    probed_level,
    recognised,
    spline,
)
from pdebook.rng import fold_in, normal

ON_GRID = 1e-4
"""How far, in units of the spacing, the first and the last time may lie off the statistics' grid."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Empirical model statistics: l, s, b on an equidistant grid of the half log-SNR λ, in float64.

    With f = (σ ε - l x)/α = (1 - l) x/α - x_0 the sampling equation is, for any l, s, b and with products element by element,

        d(x/α)/dλ = -l x/α - f,      f' = s f + b + (what is left)

    and all but what is left is integrated exactly. (l, s, b) = (0, -1, 0) is noise prediction and (1, 0, 0) data prediction.

    Attributes:
        half_log_snr: rising grid, shape (N + 1,), from the noisiest level on.
        l, s, b: coefficients at each level, shape (N + 1, *dims): one for each dimension of a sample, or (N + 1,): one for all.
        schedule: times and log α at nine levels, shape (2, 9), by which the noise schedule is recognised.
        model: two points at one level and the noise predicted there, shape (2, 2, *dims), by which the model is recognised.
        errors: standard errors of l, s and b, shape (3, N + 1, *dims).
    Raises:
        ValueError: shapes that disagree, values that are not finite, or a grid that does not rise in equal steps.
    Source: section 3 of the paper.
    """

    # Shapes are checked below, with errors that name the attribute: files are read into this class.
    half_log_snr: Float[Tensor, "..."]
    l: Float[Tensor, "..."]
    s: Float[Tensor, "..."]
    b: Float[Tensor, "..."]
    schedule: Float[Tensor, "..."]
    model: Float[Tensor, "..."] | None = None
    errors: Float[Tensor, "..."] | None = None
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("half_log_snr", "l", "s", "b", "schedule", "model", "errors"):
            value = getattr(self, name)
            if value is None:
                continue
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite")
            object.__setattr__(self, name, value.detach().to("cpu", torch.float64))
        grid = self.half_log_snr
        if grid.ndim != 1 or len(grid) < 3:
            raise ValueError(f"half_log_snr must hold at least 3 levels, got shape {tuple(grid.shape)}")
        if not float(grid.diff().min()) > 0 or float(grid.diff().std() / grid.diff().mean()) > 1e-6:
            raise ValueError("half_log_snr must rise in equal steps")
        for name in ("l", "s", "b"):
            shape = tuple(getattr(self, name).shape)
            if shape != (len(grid), *self.dims):
                raise ValueError(f"{name} must have shape {(len(grid), *self.dims)}, got {shape}")
        if self.schedule.shape != (2, PARTS + 1):
            raise ValueError(f"schedule must have shape {(2, PARTS + 1)}, got {tuple(self.schedule.shape)}")
        if self.model is not None and (self.model.shape[:2] != (2, 2) or self.dims not in ((), self.model.shape[2:])):
            raise ValueError(f"model must have shape {(2, 2, *self.dims)}, got {tuple(self.model.shape)}")
        if self.errors is not None and self.errors.shape != (3, *self.l.shape):
            raise ValueError(f"errors must have shape {(3, *self.l.shape)}, got {tuple(self.errors.shape)}")

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of a sample, or () if all dimensions share their coefficients."""
        return tuple(self.l.shape[1:])

    @property
    def intervals(self) -> int:
        """N, the number of intervals of the grid."""
        return len(self.half_log_snr) - 1

    @property
    def spacing(self) -> float:
        """Distance of neighbouring levels."""
        return float(self.half_log_snr[-1] - self.half_log_snr[0]) / self.intervals

    # -------------------- where they come from

    @staticmethod
    def degenerate(
        prediction: str,
        schedule: NoiseSchedule,
        *,
        intervals: int = 960,
        start: float | None = None,
        end: float = 1e-3,
    ) -> "Statistics":
        """The coefficients that make DPM-Solver-v3 a Taylor multistep method in noise or data prediction; for any sample."""
        if prediction not in ("noise", "data"):
            raise ValueError(f"prediction must be 'noise' or 'data', got {prediction!r}")
        grid = levels_between(schedule, time_grid(schedule, intervals, start=start, end=end))
        zero, one = torch.zeros_like(grid), torch.ones_like(grid)
        l, s = (zero, -one) if prediction == "noise" else (one, zero)
        return Statistics(grid, l, s, zero, recognised(schedule, grid))

    @staticmethod
    @torch.no_grad()
    def estimate(
        denoiser: Denoiser,
        data: Float[Tensor, "points *dims"],
        *,
        intervals: int = 120,
        start: float | None = None,
        end: float = 1e-3,
        probes: int | None = 1,
        seed: int = 0,
        batch: int | None = None,
    ) -> "Statistics":
        """Estimate l, s, b from a model and samples of its data, by forward-mode derivatives.

        Each point is noised once, x = α x_0 + σ z with z the same at all levels. Then, with means over the points,

            l = E[σ diag(∇_x ε)],      (s, b) = least squares of f' on f,   each dimension by itself,
            f' = e^{-λ} ((l - 1) ε + ε') - l' x/α,   ε' the derivative of ε along the flow, l' by differences of l.

        A dimension in which f does not vary (a constant pixel) gets s = 0 and b = E[f']. The signs of the probes are the same
        at all levels too: l then errs smoothly in λ, and the differences l' hardly at all.

        Args:
            denoiser: model, without guidance. In float64: at high noise f is a small difference over α.
            data: at least 3 samples of what the model was trained on, in the dtype in which the model is evaluated.
            intervals: N >= 2; a number that the step counts divide keeps times where they are asked for.
            start: noisiest time; the schedule's ``t_max`` if left out.
            end: last time.
            probes: sign vectors for each point, or None for the exact diagonal: one product for each dimension.
            seed: seed of noise and signs.
            batch: points in one pass; all if left out. f and f' of all points are held for one level at a time.
        Raises:
            ValueError: too few points or intervals, no probes, or a model whose answers are not finite.
        Source: section 3 of the paper and its appendix on the estimation; the spline, the guard and the shared signs are ours.
        """
        if len(data) < 3:
            raise ValueError(f"data must hold at least 3 points, got {len(data)}")
        if intervals < 2:
            raise ValueError(f"intervals must be at least 2, got {intervals}")
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        schedule, times = denoiser.schedule, time_grid(denoiser.schedule, intervals, start=start, end=end)
        grid = levels_between(schedule, times)
        z = normal(fold_in(seed, "noise"), torch.arange(len(data)), data.shape[1:], dtype=data.dtype).to(data.device)
        chunks = range(0, len(data), batch or len(data))
        size = batch or len(data)

        def noised(t: float, first: int) -> Tensor:
            part = slice(first, first + size)
            return schedule.alpha(t) * data[part] + schedule.sigma(t) * z[part]

        mean, error = [], []
        for t in times:
            products = [
                noise_diagonal(denoiser, noised(t, i), t, probes=probes, seed=fold_in(seed, f"signs {i}"))[1]
                for i in chunks
            ]
            diagonal = schedule.sigma(t) * torch.cat(products).double()
            mean.append(diagonal.mean(0))
            error.append(diagonal.std(0) / len(data) ** 0.5)
        l = torch.stack(mean)
        if not bool(l.isfinite().all()):
            raise ValueError("denoiser must give finite predictions and derivatives at all levels")
        slope = torch.from_numpy(spline(grid, l)(grid.numpy(), 1)).to(l.device)
        scale, rows = data.double().square().mean(), []
        for j, t in enumerate(times):
            parts = [f_and_rate(denoiser, noised(t, i), t, l[j], slope[j]) for i in chunks]
            f, rate = (torch.cat(part) for part in zip(*parts, strict=True))
            rows.append(least_squares(f, rate, scale))
        s, b, s_error, b_error = (torch.stack(column) for column in zip(*rows, strict=True))
        t = times[probed_level(intervals)]
        points = noised(t, 0)
        model = torch.stack([points[:2], denoiser.noise(points, t)[:2]])
        errors = torch.stack([torch.stack(error), s_error, b_error])
        return Statistics(grid, l, s, b, recognised(schedule, grid), model, errors)

    def refined(self, intervals: int) -> "Statistics":
        """The same functions l, s, b on a finer grid, by cubic splines in λ: no evaluation, and smaller errors of the integrals.

        The solution formula is exact for *any* l, s and b, so the interpolation itself brings no error into a sample.
        """
        if intervals < self.intervals:
            raise ValueError(f"intervals must be at least {self.intervals}, as they are, got {intervals}")
        first, last = self.half_log_snr[[0, -1]].tolist()
        grid = torch.linspace(first, last, intervals + 1, dtype=torch.float64)
        l, s, b = (
            torch.from_numpy(spline(self.half_log_snr, value)(grid.numpy())) for value in (self.l, self.s, self.b)
        )
        return replace(self, half_log_snr=grid, l=l, s=s, b=b, errors=None)

    # -------------------- what they fit

    def check(self, schedule: NoiseSchedule, x: State) -> None:
        """Raise ValueError unless they were made for this schedule and for samples of this shape."""
        found = recognised(schedule, self.half_log_snr)
        if not torch.allclose(found, self.schedule, rtol=1e-6, atol=1e-9):
            worst = int((found - self.schedule).abs().amax(0).argmax())
            (t, _), (u, _) = self.schedule[:, worst].tolist(), found[:, worst].tolist()
            raise ValueError(
                f"statistics are of another noise schedule: a level that was at time {t:.4g} with them is at {u:.4g} "
                f"with the denoiser's {type(schedule).__name__}"
            )
        if not isinstance(x, Affine) and self.dims not in ((), tuple(x.shape[1:])):
            raise ValueError(f"statistics are of samples of shape {self.dims}, x has samples of {tuple(x.shape[1:])}")

    def check_model(self, denoiser: Denoiser, *, tolerance: float = 1e-2) -> None:
        """Raise ValueError if the denoiser is not the model they were estimated from; costs one evaluation on two samples.

        Ask with the model without guidance, as it was estimated. ``tolerance`` is relative to the largest prediction.
        """
        if self.model is None:
            raise ValueError("statistics do not say of which model they are")
        points, known = self.model
        t = float(denoiser.schedule.time(float(self.half_log_snr[probed_level(self.intervals)])))
        try:
            answer = denoiser.noise(points, t).double()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"statistics are of another model, which takes samples of {tuple(points.shape[1:])} in float64: {error}"
            ) from error
        off = float((answer - known).abs().max() / known.abs().max())
        if not off <= tolerance:
            raise ValueError(f"statistics are of another model: its prediction differs by {off:.2g} of its size")

    def snap(self, schedule: NoiseSchedule, times: list[Scalar]) -> tuple[list[int], list[float]]:
        """Levels of the grid next to the times (in λ), and the times of those levels.

        Only there the integrals are known. A time within moves by at most half a spacing in λ; the first and the last must
        lie on the grid, since moving them would change the problem. A time that lies on the grid is returned as it is.

        Raises:
            ValueError: times that differ by sample, end points off the grid, or two times that snap to one level.
        """
        if any(isinstance(t, Tensor) for t in times):
            raise ValueError("times must be shared by the batch: they are snapped to the statistics' grid")
        first, levels, snapped = float(self.half_log_snr[0]), [], []
        for k, t in enumerate(times):
            place = (float(schedule.half_log_snr(t)) - first) / self.spacing
            level = round(place) if math.isfinite(place) else -1
            exact = abs(place - level) < ON_GRID
            if not (0 <= level <= self.intervals and (exact or 0 < k < len(times) - 1)):
                ends = [float(schedule.time(float(value))) for value in self.half_log_snr[[0, -1]]]
                raise ValueError(
                    f"times must begin and end on the statistics' grid of {self.intervals} intervals in λ from time "
                    f"{ends[0]:.6g} to {ends[1]:.6g}, and stay in it; got {float(t):.6g}"
                )
            levels.append(level)
            snapped.append(float(t) if exact else float(schedule.time(first + level * self.spacing)))
        if any(i == j for i, j in pairwise(levels)):
            raise ValueError(
                f"times must be further apart: two of {len(times)} snap to one level of the statistics' grid of "
                f"{self.intervals} intervals"
            )
        return levels, snapped

    # -------------------- the integrals

    def step(
        self, nodes: tuple[int, ...], target: int, pseudo: bool, device: torch.device
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """``update_weights`` on a device, kept for the next call; ``target`` may be one of the nodes (corrector)."""
        key = (nodes, target, pseudo, device)
        if key not in self._kept:
            if len(self._kept) >= 512:  # more than any one run needs; grids that change would fill the memory
                self._kept.clear()
            decay, constant, rows = self.update_weights(nodes, target, pseudo)
            self._kept[key] = (decay.to(device), constant.to(device), [row.to(device) for row in rows])
        kept: tuple[Tensor, Tensor, list[Tensor]] = self._kept[key]
        return kept

    def _integral(self, values: Tensor, zero: int) -> Tensor:
        """∫ values dλ from the index ``zero`` to each index."""
        total = torch.cat([torch.zeros_like(values[:1]), torch.cumulative_trapezoid(values, dx=self.spacing, dim=0)])
        return total - total[zero]

    def update_weights(self, nodes: tuple[int, ...], target: int, pseudo: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Weights of the update from level s = nodes[0] to level t = target, which knows f at the nodes.

            x_t/α_t = decay x_s/α_s + constant + Σ_i w_i f_i

        With L = ∫ l, S = ∫ s from λ_s on, B = ∫ e^{-S} b, g = e^{-S} f - B, which is constant if nothing was left, and its
        derivatives at s by differences over the nodes, g^(k) = Σ_i D_ki g_i:

            x_t/α_t = e^{-L_t} (x_s/α_s - ∫ e^{L+S} B dλ - Σ_k g^(k) ∫ e^{L+S} (λ - λ_s)^k/k! dλ),   all ∫ from λ_s to λ_t.

        Integrals are trapezoidal sums on the grid, all relative to s, so that no exponential overflows.

        Args:
            nodes: levels at which f is known, s first; one more than the number of derivatives.
            target: level of t; it may be one of the nodes (corrector).
            pseudo: derivative k from the first k + 1 nodes only, instead of all.
        Source: section 3 of the paper; the official code, whose sums are all taken from the first level on.
        """
        low, high = min(*nodes, target), max(*nodes, target)
        window, start, end = slice(low, high + 1), nodes[0] - low, target - low
        big_l, big_s = self._integral(self.l[window], start), self._integral(self.s[window], start)
        big_b = self._integral(torch.exp(-big_s) * self.b[window], start)
        growth = torch.exp(big_l + big_s)
        u = (self.half_log_snr[window] - self.half_log_snr[nodes[0]]).reshape(-1, *[1] * len(self.dims))
        taylor = [self._integral(growth * u**k / math.factorial(k), start)[end] for k in range(len(nodes))]
        matrix = differences([(node - nodes[0]) * self.spacing for node in nodes], pseudo)
        decay = torch.exp(-big_l[end])
        constant, rows = self._integral(growth * big_b, start)[end], []
        for i, node in enumerate(nodes):
            weight = sum(float(row[i]) * moment for row, moment in zip(matrix, taylor, strict=True))
            rows.append(-decay * weight * torch.exp(-big_s[node - low]))
            constant = constant - weight * big_b[node - low]
        return decay, -decay * constant, rows

    # -------------------- files

    def tensors(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """Everything by name; l, s, b in ``dtype``, which rounds them to other statistics that serve as well."""
        named = {name: getattr(self, name) for name in ("half_log_snr", "l", "s", "b", "schedule", "model", "errors")}
        rounded = ("l", "s", "b", "errors")
        return {
            name: value.to(dtype) if name in rounded else value for name, value in named.items() if value is not None
        }

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], source: str = "tensors") -> "Statistics":
        """Inverse of ``tensors``; ValueError that names the source if an entry is missing, unknown or wrong."""
        needed, optional = {"half_log_snr", "l", "s", "b", "schedule"}, {"model", "errors"}
        if not needed <= tensors.keys() or not tensors.keys() <= needed | optional:
            raise ValueError(f"{source} holds no statistics: its entries are {', '.join(sorted(tensors)) or 'none'}")
        if any(not value.is_floating_point() for value in tensors.values()):
            raise ValueError(f"{source} holds no statistics: its entries are not floating-point numbers")
        try:
            return Statistics(**tensors)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source} holds no statistics that can be used: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all; its metadata say the range of λ and N."""
        note = {
            "kind": "statistics of DPM-Solver-v3",
            "half_log_snr": self.half_log_snr[[0, -1]].tolist(),
            "intervals": self.intervals,
            "times": self.schedule[0].tolist(),
        }
        checkpoints.save(path, self.tensors(), note)

    @staticmethod
    def load(path: str | os.PathLike[str], denoiser: Denoiser | None = None) -> "Statistics":
        """Read a file of ``save``.

        Args:
            path: the file.
            denoiser: if given, schedule and model must be those of the statistics (one evaluation on two samples).
        Raises:
            ValueError: a pickle, a truncated, altered or foreign file, values that are not finite, another schedule or model.
            FileNotFoundError: no such file.
        """
        statistics = Statistics.from_tensors(checkpoints.load(path, own=True)[0], str(path))
        if denoiser is not None:
            statistics.check(denoiser.schedule, Affine())
            statistics.check_model(denoiser)
        return statistics

    @staticmethod
    def load_npz(
        folder: str | os.PathLike[str], schedule: NoiseSchedule, *, end: float, start: float | None = None
    ) -> "Statistics":
        """Read released statistics: ``l.npz`` with l, ``sb.npz`` with s and b, each of shape (N + 1, channel, height, width).

        The files do not say for which schedule and range they are: that is the caller's knowledge.

        Args:
            folder: the folder that holds both.
            schedule: noise schedule of the model.
            end: last time of their grid, which is equidistant in λ.
            start: first time; the schedule's ``t_max`` if left out.
        Raises:
            ValueError: a file that is no npz, holds pickles, lacks an entry or does not fit the other.
            FileNotFoundError: a file is missing.
        """
        arrays = {name: array_of(Path(folder) / f"{name}.npz", key) for name, key in (("l", "l"), ("sb", "s"))}
        arrays |= {"b": array_of(Path(folder) / "sb.npz", "b")}
        l, s, b = (torch.from_numpy(arrays[name]).double() for name in ("l", "sb", "b"))
        if len(l) < 3:
            raise ValueError(f"{folder}: l must hold at least 3 levels, got shape {tuple(l.shape)}")
        grid = levels_between(schedule, time_grid(schedule, len(l) - 1, start=start, end=end))
        tensors = {"half_log_snr": grid, "l": l, "s": s, "b": b, "schedule": recognised(schedule, grid)}
        return Statistics.from_tensors(tensors, str(folder))

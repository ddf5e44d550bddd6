"""What a benchmark asks: to carry a history forward, to map coefficients to a solution, to find a start from an end.

A task holds trajectories, in memory or in a file, and its split; it hands out training examples, and measures any model by all of
``metrics.fields``. The trivial baselines say what a number is worth.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.data.trajectories import Source, TensorSource, Windows
from pdebook.metrics.fields import FieldMetrics
from pdebook.pde.files import Reader
from pdebook.rollout import rollout

__all__ = ["METRICS", "Coefficients", "Forward", "Inverse", "Report", "extrapolation", "persistence", "table"]

Model = Callable[[Tensor], Tensor]

METRICS = (
    "rmse", "nrmse", "crmse", "max", "brmse", "frmse_low", "frmse_mid", "frmse_high", "relative_l1", "relative_h1",
)  # fmt: skip
"""Metrics of a report, in the order of its table."""


@dataclass(frozen=True)
class Report:
    """How a model did.

    Attributes:
        name: of the model.
        metrics: each a tensor over what the fields have between sample and grid: (time, channel), or (channel,).
        times: of the predicted frames, if there are any.
    """

    name: str
    metrics: Mapping[str, Tensor]
    times: Tensor | None = None

    def mean(self, metric: str) -> float:
        """A metric's mean over times and channels."""
        return float(self[metric].mean())

    def curve(self, metric: str) -> Float[Tensor, " time"]:
        """A metric's mean over channels, at each time."""
        return self[metric].mean(-1)

    def __getitem__(self, metric: str) -> Tensor:
        if metric not in self.metrics:
            raise ValueError(f"metric must be one of {', '.join(self.metrics)}, got {metric!r}")
        return self.metrics[metric]


class table:
    """Reports side by side: a row for each, a column for each metric; text, or Markdown in a notebook.

    Args:
        reports: the reports.
        metrics: the columns.
    """

    def __init__(self, reports: Sequence[Report], metrics: Sequence[str] = METRICS) -> None:
        self.head = ["", *metrics]
        self.rows = [[report.name, *(f"{report.mean(metric):.2g}" for metric in metrics)] for report in reports]

    def __str__(self) -> str:
        wide = [max(len(row[i]) for row in (self.head, *self.rows)) for i in range(len(self.head))]
        lines = [
            "  ".join([row[0].ljust(wide[0]), *(cell.rjust(w) for cell, w in zip(row[1:], wide[1:], strict=True))])
            for row in (self.head, *self.rows)
        ]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        lines = [self.head, ["---", *["--:"] * (len(self.head) - 1)], *self.rows]
        return "\n".join("| " + " | ".join(row) + " |" for row in lines)


# -------------------- trivial baselines


def persistence(channels: int, bundle: int = 1) -> Model:
    """The last frame of the history, again."""
    return lambda window: window[:, -channels:].repeat(1, bundle, *[1] * (window.ndim - 2))


def extrapolation(channels: int) -> Model:
    """The line through the last two frames. Raises ValueError for a history of one."""

    def model(window: Tensor) -> Tensor:
        if window.shape[1] < 2 * channels:
            raise ValueError(f"window must hold 2 frames of {channels} channels, got {window.shape[1]} channels")
        return 2 * window[:, -channels:] - window[:, -2 * channels : -channels]

    return model


def _evaluating(model: Model) -> Model:
    return model.eval() if isinstance(model, nn.Module) else model


# -------------------- tasks


@dataclass(frozen=True)
class Forward:
    """From the first ``history`` frames to all others, by a model of one step that is fed its own predictions.

    Attributes:
        source: trajectories.
        train: numbers of the samples to train on.
        test: numbers of the samples to measure on.
        history: frames given, which the metrics leave out.
        length: of the box, along each axis or all.
        periodic: whether the box is.
    Raises:
        ValueError: a history that leaves nothing to predict, samples for both training and testing.
    """

    source: Source
    train: Sequence[int]
    test: Sequence[int]
    history: int = 10
    length: float | Sequence[float] = 1.0
    periodic: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.history < self.source.shape[1]:
            raise ValueError(
                f"history must leave some of {self.source.shape[1]} frames to predict and be positive, got {self.history}"
            )
        if set(self.train) & set(self.test):
            raise ValueError("train and test must have no sample in common")

    @classmethod
    def of(
        cls, u: Tensor, times: Tensor | Sequence[float] | None = None, *, test: int, history: int = 10, **more: Any
    ) -> "Forward":
        """Trajectories (sample, time, channel, *size) in memory, of which the first ``test`` samples are for testing."""
        if not 0 < test < len(u):
            raise ValueError(f"test must be between 0 and {len(u)}, got {test}")
        return cls(TensorSource(u, times), range(test, len(u)), range(test), history, **more)

    @classmethod
    def from_file(cls, reader: Reader, *, history: int = 10, fraction: float = 0.1, **more: Any) -> "Forward":
        """A file's trajectories, of which no more is read than is asked for, in their official split."""
        parts = reader.split(fraction)
        return cls(reader, parts.train, parts.test, history, length=reader.grid.length, **more)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.source.shape[2]

    def windows(self, ahead: int = 1, samples: Sequence[int] | None = None) -> Windows:
        """Training examples: windows of the history and so many frames after it."""
        return Windows(
            self.source, history=self.history, ahead=ahead, samples=self.train if samples is None else samples
        )

    @torch.no_grad()
    def evaluate(
        self,
        model: Model,
        name: str = "",
        *,
        bundle: int = 1,
        batch: int = 64,
        convention: str = "isotropic",
        device: torch.device | str | None = None,
    ) -> Report:
        """Roll the model out on the test samples, and measure every predicted frame.

        Args:
            model: (batch, history channels, *size) to (batch, bundle channels, *size); a module is put into evaluation mode.
            name: for the report.
            bundle: frames of one call.
            batch: samples at a time, which changes nothing but the memory.
            convention: of the Fourier bands; see ``FieldMetrics``.
            device: where the model is; where the data are if left out.
        """

        def predict(history: Tensor, first: int) -> Tensor:
            return rollout(_evaluating(model), history, self.source.shape[1] - self.history, bundle=bundle)

        return self._measured(predict, name, batch, convention, device)

    @torch.no_grad()
    def compare(
        self, predicted: Float[Tensor, "sample time channel *size"], name: str = "", *, convention: str = "isotropic"
    ) -> Report:
        """Measure given frames after the history, by whatever was made without steps: a function of time and place, say.

        Args:
            predicted: for all test samples, in their order.
            name, convention: as in ``evaluate``.
        Raises:
            ValueError: another shape than that of the test samples without their history.
        """
        wanted = (len(self.test), self.source.shape[1] - self.history, *self.source.shape[2:])
        if predicted.shape != wanted:
            raise ValueError(f"predicted must have the shape {wanted}, got {tuple(predicted.shape)}")

        def predict(history: Tensor, first: int) -> Tensor:
            return predicted[first : first + len(history)]

        return self._measured(predict, name, 64, convention, predicted.device)

    def _measured(
        self,
        predict: Callable[[Tensor, int], Tensor],
        name: str,
        batch: int,
        convention: str,
        device: torch.device | str | None,
    ) -> Report:
        """Metrics of predict(history, place among the test samples), a batch at a time."""
        dims = len(self.source.shape) - 3
        metrics = FieldMetrics(dims, convention=convention, length=self.length, periodic=self.periodic)
        numbers = list(self.test)
        for first in range(0, len(numbers), batch):
            u = torch.stack([self.source.read(i, slice(None)) for i in numbers[first : first + batch]])
            u = u if device is None else u.to(device)
            metrics.update(predict(u[:, : self.history], first), u[:, self.history :])
        return Report(name, metrics.compute(), self.source.times[self.history :])


@dataclass(frozen=True)
class Coefficients:
    """From a coefficient field to the solution of a steady problem.

    Attributes:
        inputs: coefficients (sample, channel, *size).
        targets: solutions.
        test: the first so many samples are for testing.
        length: of the box.
    """

    inputs: Tensor
    targets: Tensor
    test: int
    length: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        if self.inputs.shape[:1] != self.targets.shape[:1] or not 0 < self.test < len(self.inputs):
            raise ValueError(
                f"inputs and targets must be as many, of which test are for testing, got {len(self.inputs)}, "
                f"{len(self.targets)} and {self.test}"
            )

    def batches(self, size: int) -> Callable[[int, int], dict[str, Tensor]]:
        """The batch of a step, as ``training.fit`` takes it: "input" and "target"."""
        count = len(self.inputs) - self.test

        def batch(seed: int, step: int) -> dict[str, Tensor]:
            places = torch.randint(count, (size,), generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
            places = places.to(self.inputs.device) + self.test
            return {"input": self.inputs[places], "target": self.targets[places]}

        return batch

    @torch.no_grad()
    def evaluate(self, model: Model, name: str = "") -> Report:
        """Measure the model on the test samples."""
        metrics = FieldMetrics(self.targets.ndim - 2, length=self.length, periodic=False)
        metrics.update(_evaluating(model)(self.inputs[: self.test]), self.targets[: self.test])
        return Report(name, metrics.compute())


@dataclass(frozen=True)
class Inverse:
    """From the state at one time back to the start.

    Attributes:
        forward: from a start (sample, channel, *size) to the later state.
        start: the true starts, which only the metrics see.
        end: the later states.
    """

    forward: Model
    start: Tensor
    end: Tensor

    @torch.no_grad()
    def evaluate(self, found: Float[Tensor, "sample channel *size"], name: str = "") -> Report:
        """Errors of a found start, and of what it becomes.

        ``mse``, ``l2``, ``l3``: mean square, and norms over those of the truth, of the start; with ``end_`` before it, of its
        image. ``low``, ``mid``, ``high``: the start's relative error by wavenumbers 0-3, 4-11 and from 12 on; the sum of their
        squares is that of l2 for one sample. All are means over samples, for each channel.
        """
        if found.shape != self.start.shape:
            raise ValueError(f"found must have the shape {tuple(self.start.shape)}, got {tuple(found.shape)}")
        dims = self.start.ndim - 2
        parts: dict[str, Tensor] = {}
        for prefix, guess, truth in (("", found, self.start), ("end_", self.forward(found), self.end)):
            error, size = (v.flatten(2).double() for v in (guess - truth, truth))
            parts[f"{prefix}mse"] = error.square().mean(-1).mean(0)
            for p in (2, 3):
                ratio = torch.linalg.vector_norm(error, p, -1) / torch.linalg.vector_norm(size, p, -1)
                parts[f"{prefix}l{p}"] = ratio.mean(0)
        scale = self.start.flatten(2).square().mean(-1).sqrt().reshape(*self.start.shape[:2], *[1] * dims)
        bands = FieldMetrics(dims).update(found / scale, self.start / scale).compute()
        return Report(name, parts | {band: bands[f"frmse_{band}"] for band in ("low", "mid", "high")})

"""Sets of trajectories as training examples: windows for autoregressive training, and pairs of snapshots at all leads.

A source is anything that has a ``shape`` (samples, frames, channels, *size), ``times`` of its frames, and
``read(sample, frames)``, the frames of a slice: a tensor in ``TensorSource``, or a reader of files, of which only what is asked for
is read. ``Windows`` and ``Pairs`` are data sets of PyTorch over a source; ``batches`` makes of them the function of (seed, step)
that ``pdebook.training.fit`` takes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from pdebook.rng import fold_in, permutation, uniform

__all__ = ["Pairs", "Source", "TensorSource", "Windows", "batches"]

Example = dict[str, Any]


@runtime_checkable
class Source(Protocol):
    """Trajectories by number."""

    shape: tuple[int, ...]
    times: Tensor

    def read(self, sample: int, frames: slice) -> Tensor:
        """Frames of a sample, (time, channel, *size)."""
        ...


class TensorSource:
    """Trajectories in a tensor, on any device.

    Attributes:
        data: the trajectories.
        times: times of the frames; 0, 1, ... if left out.
        shape: the data's.
    Raises:
        ValueError: data with too few axes, or times that are not one rising number for each frame.
    """

    def __init__(
        self,
        data: Float[Tensor, "sample time channel *size"],
        times: Tensor | Sequence[float | int] | None = None,
    ) -> None:
        self.data = data
        if data.ndim < 3:
            raise ValueError(f"data must be (sample, time, channel, *size), got shape {tuple(data.shape)}")
        self.times = torch.as_tensor(range(data.shape[1]) if times is None else times, dtype=torch.float64)
        if self.times.shape != data.shape[1:2] or not bool(
            (self.times.diff() > 0).all() and self.times.isfinite().all()
        ):
            raise ValueError(f"times must be {data.shape[1]} rising numbers, got shape {tuple(self.times.shape)}")
        self.shape = tuple(data.shape)

    def read(self, sample: int, frames: slice = slice(None)) -> Tensor:
        """Frames of a sample."""
        return self.data[sample, frames]


class _Examples(Dataset[Example]):
    """What windows and pairs share: which samples and frames of a source they draw on, and what goes with a sample."""

    def __init__(
        self,
        source: Source | Tensor,
        samples: Sequence[int] | None,
        first: int,
        last: int | None,
        every: int,
        parameters: Mapping[str, Tensor] | None,
        static: bool,
    ) -> None:
        self.source: Source = TensorSource(source) if isinstance(source, Tensor) else source
        count, frames = self.source.shape[:2]
        last = frames - 1 if last is None else last
        if every < 1 or not 0 <= first <= last < frames:
            raise ValueError(
                f"first, last and every must choose from frames 0 to {frames - 1}, got {first}, {last} and {every}"
            )
        self.frames = range(first, last + 1, every)
        """Frames of the source that are used."""
        self.samples = torch.arange(count) if samples is None else torch.as_tensor(list(samples))
        whole = self.samples.dtype == torch.int64
        if not whole or not len(self.samples) or int(self.samples.min()) < 0 or int(self.samples.max()) >= count:
            raise ValueError(f"samples must be one or more of 0 to {count - 1}, got {samples}")
        if static and not hasattr(self.source, "static"):
            raise ValueError("static needs a source that has it, such as a reader of files; else use parameters")
        self.static = static
        self.parameters = dict(parameters or {})
        for name, value in self.parameters.items():
            if not isinstance(value, Tensor) or value.shape[:1] != (count,):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"parameters[{name!r}] must have one row for each of {count} samples, a tensor, got {got}"
                )

    def _with_parameters(self, example: Example, sample: Any) -> Example:
        if self.parameters:
            example["parameters"] = {
                name: value[sample.to(value.device) if isinstance(sample, Tensor) else sample]
                for name, value in self.parameters.items()
            }
        if self.static:
            example["static"] = self.source.static(sample)  # type: ignore[attr-defined]
        return example

    def _frame(self, sample: Tensor, place: Tensor) -> Tensor:
        """Frames of a tensor source by number of sample and place in ``frames``; the result has their common shape in front."""
        assert isinstance(self.source, TensorSource)
        data = self.source.data
        frame = self.frames.start + self.frames.step * place
        return data[sample.to(data.device), frame.to(data.device)]

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, number: int) -> Example:
        raise NotImplementedError

    def gather(self, numbers: Int64[Tensor, " batch"]) -> Example:
        """A batch of examples: by one look into a tensor, or one read an example.

        Raises:
            IndexError: a number that is negative or too large.
        """
        if bool(((numbers < 0) | (numbers >= len(self))).any()):
            raise IndexError(f"numbers must be below {len(self)} and not negative, got {numbers.tolist()}")
        if isinstance(self.source, TensorSource):
            return self._gather(numbers)
        return default_collate([self[number] for number in numbers.tolist()])

    def _gather(self, numbers: Tensor) -> Example:
        raise NotImplementedError

    def _checked(self, number: int) -> int:
        if not -len(self) <= number < len(self):
            raise IndexError(f"number must be below {len(self)}, got {number}")
        return number % len(self)


class Windows(_Examples):
    """Windows of ``history`` frames and the ``ahead`` frames that follow, at every place of every trajectory.

    An example holds ``history`` (history, channel, *size), ``target`` (ahead, channel, *size), ``sample`` and ``start`` (its first
    frame's place among the frames used), and ``parameters`` and ``static`` if asked for. Numbers run through a sample's windows
    first. With history 0 and ``static`` it is a set of coefficients and solutions.

    Args:
        source: trajectories, or a tensor of them.
        history: frames given, perhaps none.
        ahead: frames asked for.
        stride: frames between the starts of neighbouring windows.
        samples: which samples, such as the training part of a split; all if left out.
        first, last, every: which frames: every ``every``-th of first, ..., last.
        parameters: tensors with a row for each sample of the source, handed on with its examples.
        static: hand on what the source's ``static(sample)`` gives: a file's coefficients or forces.
    Raises:
        ValueError: numbers that are not positive, more frames in a window than there are, samples that the source lacks.
    """

    def __init__(
        self,
        source: Source | Tensor,
        *,
        history: int = 1,
        ahead: int = 1,
        stride: int = 1,
        samples: Sequence[int] | None = None,
        first: int = 0,
        last: int | None = None,
        every: int = 1,
        parameters: Mapping[str, Tensor] | None = None,
        static: bool = False,
    ) -> None:
        super().__init__(source, samples, first, last, every, parameters, static)
        if history < 0 or min(ahead, stride) < 1:
            raise ValueError(
                f"ahead and stride must be positive and history not negative, got {ahead}, {stride} and {history}"
            )
        if history + ahead > len(self.frames):
            raise ValueError(f"history + ahead = {history + ahead} must not exceed the {len(self.frames)} frames used")
        self.history, self.ahead, self.stride = history, ahead, stride
        self.per_sample = (len(self.frames) - history - ahead) // stride + 1
        """Windows in a trajectory."""

    def __len__(self) -> int:
        return len(self.samples) * self.per_sample

    def __getitem__(self, number: int) -> Example:
        row, place = divmod(self._checked(number), self.per_sample)
        sample, start = int(self.samples[row]), place * self.stride
        used = self.frames[start : start + self.history + self.ahead]
        window = self.source.read(sample, slice(used.start, used[-1] + 1, used.step))
        example = {
            "history": window[: self.history],
            "target": window[self.history :],
            "sample": sample,
            "start": start,
        }
        return self._with_parameters(example, sample)

    def _gather(self, numbers: Tensor) -> Example:
        sample = self.samples[numbers // self.per_sample]
        start = numbers % self.per_sample * self.stride
        window = self._frame(sample[:, None], start[:, None] + torch.arange(self.history + self.ahead))
        parts = {"history": window[:, : self.history], "target": window[:, self.history :]}
        return self._with_parameters({**parts, "sample": sample, "start": start}, sample)


class Pairs(_Examples):
    """Pairs of snapshots (u(t_i), u(t_j)) with the lead time t_j - t_i.

    | scheme | pairs of frames 0, ..., K |
    |---|---|
    | "all_to_all" | i <= j: (K + 1)(K + 2)/2 |
    | "one_to_all" | i = 0 |
    | "final" | i = 0, j = K |

    An example holds ``start`` and ``target`` (channel, *size), ``lead`` (a number), ``sample``, ``i`` and ``j`` (places among the
    frames used), and ``parameters`` and ``static`` if asked for. Numbers run through a sample's pairs first.

    Args:
        source: trajectories, or a tensor of them.
        scheme: see the table.
        identity: whether i = j counts.
        max_lead: largest j - i; any if left out.
        time_scale: what the difference of times is divided by, such as the time of the last frame.
        samples, first, last, every, parameters, static: as in ``Windows``.
    Raises:
        ValueError: another scheme, no pair left, numbers out of range.
    """

    def __init__(
        self,
        source: Source | Tensor,
        *,
        scheme: str = "all_to_all",
        identity: bool = True,
        max_lead: int | None = None,
        time_scale: float | int = 1.0,
        samples: Sequence[int] | None = None,
        first: int = 0,
        last: int | None = None,
        every: int = 1,
        parameters: Mapping[str, Tensor] | None = None,
        static: bool = False,
    ) -> None:
        super().__init__(source, samples, first, last, every, parameters, static)
        if scheme not in ("all_to_all", "one_to_all", "final"):
            raise ValueError(f"scheme must be 'all_to_all', 'one_to_all' or 'final', got {scheme!r}")
        if not 0 < time_scale < math.inf:
            raise ValueError(f"time_scale must be positive, got {time_scale}")
        k = len(self.frames)
        chosen = [
            (i, j)
            for i in range(k if scheme == "all_to_all" else 1)
            for j in range(k - 1 if scheme == "final" else i, k)
            if (identity or i < j) and (max_lead is None or j - i <= max_lead)
        ]
        if not chosen:
            raise ValueError(f"no pair is left of {k} frames with identity={identity} and max_lead={max_lead}")
        self.pairs = torch.tensor(chosen)
        """Places (i, j) of each pair among the frames used."""
        t = self.source.times.double()[list(self.frames)]
        self.leads = ((t[self.pairs[:, 1]] - t[self.pairs[:, 0]]) / time_scale).float()
        """Lead time of each pair."""

    def __len__(self) -> int:
        return len(self.samples) * len(self.pairs)

    def __getitem__(self, number: int) -> Example:
        row, pair = divmod(self._checked(number), len(self.pairs))
        sample, (i, j) = int(self.samples[row]), self.pairs[pair].tolist()
        start, target = (self.source.read(sample, slice(self.frames[k], self.frames[k] + 1))[0] for k in (i, j))
        example = {"start": start, "target": target, "lead": self.leads[pair], "sample": sample, "i": i, "j": j}
        return self._with_parameters(example, sample)

    def _gather(self, numbers: Tensor) -> Example:
        sample, pair = self.samples[numbers // len(self.pairs)], numbers % len(self.pairs)
        i, j = self.pairs[pair].unbind(1)
        example = {"start": self._frame(sample, i), "target": self._frame(sample, j), "lead": self.leads[pair]}
        return self._with_parameters({**example, "sample": sample, "i": i, "j": j}, sample)


def _moved(value: Any, device: torch.device | str | None) -> Any:
    if isinstance(value, Tensor):
        return value if device is None else value.to(device, non_blocking=True)
    return {name: _moved(part, device) for name, part in value.items()}


def batches(
    examples: Windows | Pairs,
    size: int,
    *,
    weights: Float[Tensor, " examples"] | None = None,
    device: torch.device | str | None = None,
) -> Callable[[int, int], Example]:
    """``batches(seed, step)``: the batch of a step, a pure function, as ``pdebook.training.fit`` takes it.

    Every example comes once in an epoch, in an order of the epoch's own; a batch may reach into the next epoch, so that all
    batches are of one size. With weights, examples are drawn independently, with chances proportional to them.

    Args:
        examples: windows or pairs.
        size: examples in a batch.
        weights: not negative, not all zero; one for each example, such as the inverse frequency of its lead time.
        device: where the batch is put; where the source has it if left out.
    Raises:
        ValueError: a size below 1, weights that do not fit.
    """
    count = len(examples)
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be positive, got {size}")
    if weights is not None:
        fits = weights.shape == (count,) and bool((weights >= 0).all()) and 0 < float(weights.sum()) < math.inf
        if not fits:
            raise ValueError(f"weights must be {count} numbers that are not negative, nor all zero")
        ends = weights.double().cpu().cumsum(0)

    @lru_cache(maxsize=2)
    def order(seed: int, epoch: int) -> Tensor:
        return permutation(fold_in(seed, f"epoch {epoch}"), count)

    def numbers(seed: int, step: int) -> Tensor:
        if weights is not None:
            draws = uniform(fold_in(seed, "weighted"), torch.tensor([step]), (size,), dtype=torch.float64)[0]
            # From the right, so that an example of weight zero never comes.
            return torch.searchsorted(ends, draws * ends[-1], right=True).clamp_(max=count - 1)
        place = torch.arange(step * size, (step + 1) * size)
        chosen = torch.empty_like(place)
        for epoch in range(int(place[0]) // count, int(place[-1]) // count + 1):
            inside = place // count == epoch
            chosen[inside] = order(seed, epoch)[place[inside] % count]
        return chosen

    def batch(seed: int, step: int) -> Example:
        return _moved(examples.gather(numbers(seed, step)), device)

    return batch

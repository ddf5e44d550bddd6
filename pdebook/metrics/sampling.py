"""What a finite sample leaves open: estimates with their bootstrap error, and the floor of a distance."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pdebook.rng import fold_in, uniform

__all__ = [
    "Estimate",
    "as_draws",
    "bootstrap",
    "check_resamples",
    "redraw_counts",
    "sampling_floor",
]


@dataclass(frozen=True)
class Estimate:
    """A measured number with what is known of its error; ``float(estimate)`` is the number.

    Attributes:
        value: the number, float64, on the device of the samples and differentiable with respect to them.
        standard_error: bootstrap standard error, if it was asked for.
        floor: what two samples of one law score on average at these sample sizes, where that is known.
    """

    value: Float[Tensor, ""]
    standard_error: Float[Tensor, ""] | None = None
    floor: Float[Tensor, ""] | None = None

    def __float__(self) -> float:
        return float(self.value.detach())

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {float(self.standard_error):.1g}"
        floor = "" if self.floor is None else f" (floor {float(self.floor):.3g})"
        return f"{float(self):.3g}{error}{floor}"


def bootstrap(
    statistic: Callable[..., Float[Tensor, ""]], *samples: Float[Tensor, "..."], resamples: int = 100, seed: int = 0
) -> Estimate:
    """Any statistic of independent samples with its standard error: the spread over samples redrawn with replacement.

    Near zero the bootstrap of a distance measures its scale, not its law: resampling moves a distance away from zero.

    Args:
        statistic: function of as many tensors as there are samples; their first axis counts the draws.
        samples: independent samples. Quantities that belong together (pairs) are one sample.
        resamples: replicates; the standard error itself is then known to about ``1 / sqrt(2 resamples)``. 0 for none.
        seed: makes it reproducible on any device.
    Raises:
        ValueError: `resamples` is 1 or negative.
    """
    check_resamples(resamples)
    value = statistic(*samples)
    if not resamples:
        return Estimate(value)
    redrawn = [_redraws(seed, resamples, len(s), stream, s.device) for stream, s in enumerate(samples)]
    with torch.no_grad():
        replicates = torch.stack(
            [statistic(*(s[index[k]] for s, index in zip(samples, redrawn, strict=True))) for k in range(resamples)]
        )
    return Estimate(value, replicates.std())


def sampling_floor(
    distance: Callable[..., Estimate | Float[Tensor, ""]],
    sample: Float[Tensor, "n *dims"],
    *,
    splits: int = 8,
    seed: int = 0,
) -> Estimate:
    """What `distance` scores between random halves of one sample: nothing below it says anything.

    The standard error is that of the mean over the splits, which share their samples and so are not quite independent.

    Raises:
        ValueError: fewer than four draws, or fewer than two splits.
    """
    if splits < 2:
        raise ValueError(f"splits: expected at least 2, got {splits}")
    as_draws("sample", sample, at_least=4)
    rows = torch.arange(splits)
    keys = uniform(fold_in(seed, "split"), rows, (len(sample),), dtype=torch.float64, device=sample.device)
    order = keys.argsort(dim=1)
    half = len(sample) // 2
    scores = [distance(sample[index[:half]], sample[index[half:]]) for index in order]
    values = torch.stack([score.value if isinstance(score, Estimate) else score for score in scores])
    return Estimate(values.mean(), values.std() / math.sqrt(splits))


def check_resamples(resamples: int) -> None:
    """Raise ValueError unless the number of replicates is 0 (none) or at least 2."""
    if resamples < 0 or resamples == 1:
        raise ValueError(f"resamples: expected 0 or at least 2 replicates, got {resamples}")


def as_draws(name: str, x: Tensor, at_least: int = 1) -> Float[Tensor, "n d"]:
    """Draws as rows of a finite float64 matrix."""
    if len(x) < at_least:
        raise ValueError(f"{name}: expected at least {at_least} draws, got {len(x)}")
    if not x.isfinite().all():
        raise ValueError(f"{name}: expected finite draws, got NaN or infinity")
    return x.double().reshape(len(x), -1)


def _redraws(seed: int, resamples: int, n: int, stream: int, device: torch.device) -> Int[Tensor, "resamples n"]:
    """Indices of n draws with replacement for each replicate."""
    # A seed of its own keeps the redraws apart from samples that were drawn with the caller's seed.
    seed = fold_in(seed, "bootstrap")
    unit = uniform(seed, torch.arange(resamples), (n,), stream=stream, dtype=torch.float64, device=device)
    return (unit * n).long().clamp(max=n - 1)


def redraw_counts(
    seed: int, resamples: int, n: int, stream: int, device: torch.device
) -> Float[Tensor, "replicates n"]:
    """How often each draw occurs in each replicate; the first row is the sample itself."""
    times = torch.zeros(resamples, n, dtype=torch.float64, device=device)
    redraws = _redraws(seed, resamples, n, stream, device)
    times.scatter_add_(1, redraws, torch.ones_like(redraws, dtype=torch.float64))
    return torch.cat([times.new_ones(1, n), times])

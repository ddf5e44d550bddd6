"""What a rollout raises that went wrong."""

from collections.abc import Sequence

from torch import Tensor

__all__ = ["Diverged", "listed"]


class Diverged(ArithmeticError):
    """A rollout stopped being finite.

    Attributes:
        first_bad: the first step whose result is not finite, counted from 1, or 0, for each sample.
        result: what was computed, NaN included.
    """

    def __init__(self, message: str, first_bad: Tensor, result: Tensor) -> None:
        super().__init__(message)
        self.first_bad = first_bad
        self.result = result


def listed(samples: Sequence[int]) -> str:
    """Numbers of the first eight samples, and dots if there are more."""
    return ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")

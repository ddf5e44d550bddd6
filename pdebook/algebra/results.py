"""What an iterative solver hands back: for each sample its solution, its residuals and how it ended."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

__all__ = ["NotConverged", "Result", "Status", "default_tolerance", "euclidean"]


class Status(IntEnum):
    """How a sample ended."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    NOT_FINITE = 2
    BREAKDOWN = 3


_WORDS = {
    Status.MAX_ITERATIONS: "used up the iterations",
    Status.NOT_FINITE: "met values that are not finite",
    Status.BREAKDOWN: "broke down (a singular operator)",
}


class NotConverged(ArithmeticError):
    """A solver failed for some samples. The message counts and names them; ``result`` holds what was reached."""

    def __init__(self, message: str, result: "Result") -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True)
class Result:
    """Outcome of an iterative solver, one entry for each sample of the batch.

    Attributes:
        x: last finite iterates, shape (batch, ...), without a graph.
        residual: norms of their residuals.
        history: norms of the residuals after 0, 1, ... iterations; those of a finished sample repeat.
        iterations: iterations that the sample took before it ended.
        status: ``Status`` as integers.
    """

    x: Tensor
    residual: Float[Tensor, " batch"]
    history: Float[Tensor, "steps batch"]
    iterations: Int64[Tensor, " batch"]
    status: Int64[Tensor, " batch"]

    @property
    def converged(self) -> Bool[Tensor, " batch"]:
        """Which samples met the tolerance."""
        return self.status == Status.CONVERGED

    def checked(self, solver: str) -> "Result":
        """This result, if all samples converged.

        Raises:
            NotConverged: names the solver, the samples, and how they ended.
        """
        failed = (self.status != Status.CONVERGED).nonzero().flatten().tolist()
        if failed:
            listed = ", ".join(map(str, failed[:8])) + (", ..." if len(failed) > 8 else "")
            counts = Counter(Status(s) for s in self.status[failed].tolist())
            why = ", ".join(f"{counts[s]} {words}" for s, words in _WORDS.items() if s in counts)
            raise NotConverged(
                f"{solver} failed for {len(failed)} of {len(self.status)} samples (samples {listed}) "
                f"after {len(self.history) - 1} iterations: {why}; largest residual {float(self.residual[failed].max()):.3g}",
                self,
            )
        return self


Norm = Callable[[Tensor], Tensor]
"""Norm of each sample: (batch, ...) to (batch,)."""


def euclidean(x: Shaped[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
    """Euclidean norm of each sample."""
    return torch.linalg.vector_norm(x.flatten(1) if x.ndim > 1 else x[:, None], dim=1)


def default_tolerance(dtype: torch.dtype) -> float:
    """ε^(2/3) for the rounding unit ε of the dtype: 4e-11 in float64, 2e-5 in float32."""
    return float(torch.finfo(dtype).eps ** (2 / 3))


def check_start(name: str, x: Tensor, *, complex_too: bool = False) -> None:
    """Raise ValueError unless x is a finite floating-point tensor with a batch axis."""
    wanted = "floating-point or complex" if complex_too else "floating-point"
    if x.ndim < 1 or not len(x) or not (x.is_floating_point() or (complex_too and x.is_complex())):
        raise ValueError(
            f"{name} must be a {wanted} tensor of shape (batch, ...) with a sample at least, got {x.dtype} of shape {tuple(x.shape)}"
        )
    bad = (~x.isfinite()).flatten(1).any(1) if x.ndim > 1 else ~x.isfinite()
    if bool(bad.any()):
        raise ValueError(f"{name} must be finite; sample {int(bad.nonzero()[0])} is not")


def check_tolerances(rtol: float | int | None, atol: float | int, max_iterations: int, dtype: torch.dtype) -> float:
    """The relative tolerance in use.

    Raises:
        ValueError: a negative tolerance, both zero, or no iterations.
    """
    rtol = default_tolerance(dtype) if rtol is None else float(rtol)
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
        raise ValueError(
            f"rtol and atol must not be negative, and one must be positive; got rtol = {rtol}, atol = {atol}"
        )
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    return rtol

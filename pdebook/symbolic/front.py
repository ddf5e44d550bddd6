"""What a symbolic search returns: the best expression of each size, and which of them to choose."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdebook.symbolic.expressions import OPERATORS, Expression

__all__ = ["Candidate", "ParetoFront", "nmse"]


@dataclass(frozen=True)
class Candidate:
    """An expression with its loss, the normalised mean square error |y - f(x)|² / |y|²."""

    expression: Expression
    loss: float

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.expression.size


@dataclass(frozen=True)
class ParetoFront:
    """Expressions of rising size and strictly falling loss: none is beaten by one that is no larger.

    Attributes:
        candidates: the front.
        evaluated: expressions that the search evaluated.
    """

    candidates: tuple[Candidate, ...]
    evaluated: int

    @classmethod
    def of(cls, candidates: Iterable[Candidate], evaluated: int) -> "ParetoFront":
        """The front of any candidates; those with a loss that is not finite are dropped.

        Raises:
            ValueError: no candidate with a finite loss.
        """
        front: list[Candidate] = []
        for candidate in sorted(candidates, key=lambda c: (c.size, c.loss)):
            if math.isfinite(candidate.loss) and (not front or candidate.loss < front[-1].loss):
                front.append(candidate)
        if not front:
            raise ValueError("candidates must hold one with a finite loss; every expression left its domain somewhere")
        # Among equal sizes the best came first.
        return cls(tuple(front), evaluated)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    @property
    def gains(self) -> tuple[float, ...]:
        """-Δ log loss / Δ size from each candidate to the next smaller one; zero for the smallest. Losses count from 1e-30 up."""
        logs = [math.log(max(c.loss, 1e-30)) for c in self.candidates]
        sizes = [c.size for c in self.candidates]
        return (0.0, *((logs[i - 1] - logs[i]) / (sizes[i] - sizes[i - 1]) for i in range(1, len(logs))))

    def choose(self) -> Candidate:
        """The candidate that gains most, -Δ log loss / Δ size, over the next smaller one."""
        return max(
            zip(self.gains, range(len(self)), self.candidates, strict=True), key=lambda entry: (entry[0], -entry[1])
        )[2]

    def __str__(self) -> str:
        """A table: size, loss, gain, formula."""
        rows = [
            f"{c.size:4d}  {c.loss:9.3e}  {gain:6.2f}  {c.expression}" for c, gain in zip(self, self.gains, strict=True)
        ]
        return "\n".join(["size       loss    gain  formula", *rows])


def nmse(prediction: Tensor, y: Tensor) -> Tensor:
    """Normalised mean square error |y - f|² / |y|² along the last axis; infinite where f is not finite."""
    loss = (prediction - y).square().mean(-1) / y.square().mean(-1)
    return torch.where(loss.isfinite(), loss, torch.inf)


def checked_data(x: Tensor, y: Tensor, variables: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the variables, x0, x1, ... if left out.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, y that vanishes, names that do not fit.
    """
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(y) or not x.shape[1]:
        raise ValueError(
            f"x must have shape (points, variables) and y (points,), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if x.dtype != y.dtype or not x.is_floating_point():
        raise ValueError(f"x and y must be of one floating-point dtype, got {x.dtype} and {y.dtype}")
    for name, value in (("x", x), ("y", y)):
        if not bool(value.isfinite().all()):
            bad = (~value.isfinite().reshape(len(value), -1)).any(1).nonzero().flatten()
            raise ValueError(f"{name} must be finite, but {len(bad)} points are not, the first of them {int(bad[0])}")
    if not bool(y.any()):
        raise ValueError("y must not vanish everywhere: the error is relative to its size")
    names = tuple(variables) if variables is not None else tuple(f"x{i}" for i in range(x.shape[1]))
    if len(names) != x.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"variables must be {x.shape[1]} different names, got {names}")
    for name in names:
        Expression(name)
    return names


def check_operators(operators: Sequence[str]) -> None:
    """Raise ValueError unless there are operators and all are known."""
    if not operators:
        raise ValueError("operators must name one at least, got none")
    for name in operators:
        if name not in OPERATORS:
            raise ValueError(f"operators must be among {', '.join(OPERATORS)}, got {name!r}")

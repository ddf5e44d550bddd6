"""One primitive for all samplers, and a tracer that reads a sampler's coefficients off its own code.

A sampler only ever forms linear combinations of its state and of the model's outputs, through ``axpby``. Run on tensors it
samples; run on ``Affine`` expressions it tells what it computes: each point at which the model is evaluated, and the result, as a
combination of the initial state ``x``, the model's noise predictions ``e0, e1, ...``, noise draws ``z0, z1, ...`` and, where a
process reverts to one, a mean ``mu``. That table is the sampler's tableau: two samplers are the same algorithm if and only if
their tableaux agree.

What can't be traced: adaptive steps (they depend on values), thresholding and clipping (not linear), replacement of known
components. Coefficients may be numbers or arrays over the state's dimensions.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdebook.diffusion.scalars import Scalar
from pdebook.diffusion.schedules import NoiseSchedule

Coefficient = Scalar | np.ndarray


@dataclass(frozen=True)
class Affine:
    """A linear combination of named symbols: ``{"x": 0.9, "e0": -0.4}`` is 0.9 x - 0.4 e0."""

    terms: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def symbol(name: str) -> "Affine":
        """The symbol itself, with coefficient 1."""
        return Affine({name: 1.0})

    def plus(self, coefficient: Any, other: "Affine") -> "Affine":
        """self + coefficient * other."""
        terms = dict(self.terms)
        for name, value in other.terms.items():
            terms[name] = terms.get(name, 0.0) + coefficient * value
        return Affine(terms)


State = Tensor | Affine
"""What a sampler moves: a batch of samples, or an expression that stands for one."""


def axpby(a: Any, x: State, b: Any, y: State, *more: Any) -> Any:
    """Form a x + b y (+ c z + ...), the one operation that samplers use.

    Coefficients are floats, or tensors that broadcast against the state (one value for each sample, or for each dimension); the
    result has the state's dtype. On tensors one buffer is allocated whatever the number of terms.
    """
    pairs = ((b, y), *zip(more[::2], more[1::2], strict=True))
    if isinstance(x, Affine):
        total = Affine().plus(a, x)
        for coefficient, term in pairs:
            total = total.plus(coefficient, term)
        return total
    out = x * (a.to(x.dtype) if isinstance(a, Tensor) else a)
    for coefficient, term in pairs:
        if isinstance(coefficient, Tensor):
            out.addcmul_(coefficient.to(x.dtype), term)
        else:
            out.add_(term, alpha=coefficient)
    return out


class TracingDenoiser:
    """Stands in for a model: returns a fresh symbol for each evaluation, and remembers where it was asked."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule
        self.times: list[float] = []
        self.points: list[Affine] = []

    @property
    def evaluations(self) -> int:
        """Number of model evaluations so far."""
        return len(self.times)

    def noise(self, x: Affine, t: Scalar) -> Affine:
        """The next symbol e_i."""
        self.times.append(float(t))
        self.points.append(x)
        return Affine.symbol(f"e{len(self.times) - 1}")

    def data(self, x: Affine, t: Scalar) -> Affine:
        """Data prediction (x - σ e_i) / α."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return Affine().plus(1.0 / alpha, x).plus(-sigma / alpha, self.noise(x, t))


@dataclass(frozen=True)
class Tableau:
    """What a sampler computes, whatever the model.

    Attributes:
        times: the n times at which the model is evaluated.
        symbols: names of the columns: x, e0, ..., then draws and others.
        weights: shape (n + 1, symbols) (and the state's shape where coefficients are arrays); row i < n is the i-th point at
            which the model is evaluated, the last row is the result.
    """

    times: tuple[float, ...]
    symbols: tuple[str, ...]
    weights: np.ndarray

    def distance(self, other: "Tableau") -> float:
        """Largest difference of times and weights, relative to the largest weight; infinite if the shapes differ."""
        if len(self.times) != len(other.times) or set(self.symbols) != set(other.symbols):
            return float("inf")
        order = [other.symbols.index(name) for name in self.symbols]
        scale = max(1.0, float(np.abs(self.weights).max()))
        weights = np.abs(self.weights - other.weights[:, order]).max() / scale
        return float(max(weights, np.abs(np.subtract(self.times, other.times)).max(initial=0.0)))

    def run(self, denoiser: Any, x: Tensor, symbols: Mapping[str, Tensor] | None = None) -> Tensor:
        """Execute the table: each point is one combination of what is known so far.

        Args:
            denoiser: model with ``noise(x, t)``.
            x: initial state.
            symbols: values of the other symbols (draws z0, z1, ..., a mean mu).
        Raises:
            ValueError: a symbol of the table has no value.
        """
        values = {"x": x, **(symbols or {})}
        for row, t in zip(self.weights[:-1], self.times, strict=True):
            values[f"e{sum(name[0] == 'e' for name in values)}"] = denoiser.noise(self._combine(row, values), t)
        return self._combine(self.weights[-1], values)

    def _combine(self, row: np.ndarray, values: Mapping[str, Tensor]) -> Tensor:
        used = [(weight, name) for weight, name in zip(row, self.symbols, strict=True) if np.any(weight != 0)]
        missing = [name for _, name in used if name not in values]
        if missing:
            raise ValueError(f"symbols must give a value for {', '.join(missing)}")
        x = values["x"]
        total = torch.zeros_like(x)
        for weight, name in used:
            if np.ndim(weight):
                total = total + torch.as_tensor(weight, dtype=x.dtype, device=x.device) * values[name]
            else:
                total = total.add(values[name], alpha=float(weight))
        return total

    def to_dict(self) -> dict[str, Any]:
        """The table as plain lists, for JSON."""
        return {"times": list(self.times), "symbols": list(self.symbols), "weights": self.weights.tolist()}

    @staticmethod
    def from_dict(table: Mapping[str, Any]) -> "Tableau":
        """Inverse of ``to_dict``; raises ValueError when entries are missing, disagree or make no table."""
        missing = {"times", "symbols", "weights"} - set(table)
        if missing:
            raise ValueError(f"table must have times, symbols and weights; missing: {', '.join(sorted(missing))}")
        weights = np.asarray(table["weights"], dtype=np.float64)
        if weights.ndim < 2 or weights.shape[:2] != (len(table["times"]) + 1, len(table["symbols"])):
            raise ValueError(f"weights must have shape (times + 1, symbols), got {weights.shape}")
        times, symbols = tuple(float(t) for t in table["times"]), tuple(table["symbols"])
        if not np.isfinite(weights).all() or not np.isfinite(times).all():
            raise ValueError("times and weights must be finite")
        if len(set(symbols)) != len(symbols) or "x" not in symbols:
            raise ValueError(f"symbols must be distinct and hold x, got {', '.join(map(str, symbols))}")
        for i, row in enumerate(weights[:-1]):
            early = {f"e{j}" for j in range(i, len(times))}
            if any(name in early and np.any(weight != 0) for name, weight in zip(symbols, row, strict=True)):
                raise ValueError(f"weights of row {i} must not use an evaluation that comes later")
        return Tableau(times, symbols, weights)


def symbolic_noise(k: int, x: State) -> Affine:
    """Noise source for tracing: draw k is the symbol z_k."""
    return Affine.symbol(f"z{k}")


def trace(sampler: Callable[..., Affine], schedule: NoiseSchedule, times: Iterable[float], **options: Any) -> Tableau:
    """Tableau of a sampler on a grid of times.

    Args:
        sampler: a sampler of this package that forms its state with ``axpby`` only.
        schedule: noise schedule.
        times: the grid, shared by the batch.
        options: the sampler's options. A stochastic sampler gets ``noise=symbolic_noise``.
    """
    denoiser = TracingDenoiser(schedule)
    result = sampler(denoiser, Affine.symbol("x"), times, **options)
    rows = [*denoiser.points, result]
    names = {name for row in rows for name in row.terms}
    evaluations = [f"e{i}" for i in range(denoiser.evaluations)]
    symbols = ("x", *evaluations, *sorted(names - {"x", *evaluations}))
    entries = [[np.asarray(row.terms.get(name, 0.0), dtype=np.float64) for name in symbols] for row in rows]
    shape = np.broadcast_shapes(*[entry.shape for row in entries for entry in row])
    weights = np.array([[np.broadcast_to(entry, shape) for entry in row] for row in entries])
    return Tableau(tuple(denoiser.times), symbols, weights)

"""Derivatives of a network in its input, by propagating Taylor polynomials through its layers.

Along a direction v a function has the polynomial f(x + εv) = Σ_k c_k ε^k + O(ε^{n+1}), and D^k f = k! c_k. A ``Jet`` holds the c_k for
several directions at once. It goes through the same code as a tensor does: linear layers, products and quotients, slices, and the
elementary functions below know what to do with it, so a model made of them needs no second version. All of it is
ordinary differentiable arithmetic: one backward pass gives the gradient in the parameters.

The cost grows with the square of the order, where nested reverse passes grow exponentially; the value is computed once
for all directions.

Source: Griewank and Walther 2008, Evaluating derivatives, chapter 13 (the recursions); Bettencourt, Johnson and Duvenaud 2019.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["Jet", "directional", "laplacian", "mixed", "partials", "variable"]

Coefficient = Tensor | None
"""A coefficient; None stands for zero."""


def _plus(a: Coefficient, b: Coefficient) -> Coefficient:
    return b if a is None else a if b is None else a + b


def _times(a: Coefficient, b: Coefficient) -> Coefficient:
    return None if a is None or b is None else a * b


def _scaled(a: Coefficient, factor: float) -> Coefficient:
    return a if a is None or factor == 1.0 else a * factor


def _cauchy(a: Sequence[Coefficient], b: Sequence[Coefficient], k: int) -> Coefficient:
    """Coefficient k of the product."""
    total: Coefficient = None
    for j in range(k + 1):
        total = _plus(total, _times(a[j], b[k - j]))
    return total


class Jet:
    """Taylor polynomials of one order along several directions.

    Attributes:
        coefficients: c_0 of shape (batch, 1, ...), and c_1, c_2, ... of shape (batch, directions, ...); None for a c_k that is zero.
    """

    def __init__(self, coefficients: Sequence[Coefficient]) -> None:
        self.coefficients = list(coefficients)
        if not self.coefficients or self.coefficients[0] is None:
            raise ValueError("coefficients must begin with a tensor, the value")

    @property
    def value(self) -> Tensor:
        """c_0."""
        return cast(Tensor, self.coefficients[0])

    @property
    def order(self) -> int:
        """Order of the polynomial."""
        return len(self.coefficients) - 1

    def derivative(self, k: int) -> Tensor:
        """D^k f = k! c_k, also where it is zero."""
        if not 0 <= k <= self.order:
            raise ValueError(f"k must be from 0 to the order {self.order}, got {k}")
        c = self.coefficients[k]
        return torch.zeros_like(self.value) if c is None else c * math.factorial(k)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What a torch function does to jets; NotImplementedError, which names it, for one without a rule."""
        rule = _RULES.get(func)
        if rule is None:
            name = getattr(func, "__name__", str(func))
            raise NotImplementedError(
                f"{name} has no Taylor rule; use engine='jvp', or write it with functions that have one"
            )
        return rule(*args, **(kwargs or {}))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Jet":
        """A linear function of every coefficient."""
        return Jet([None if c is None else function(c) for c in self.coefficients])

    def __getitem__(self, index: Any) -> "Jet":
        """Components: the index must begin with an ellipsis, since the first two axes are those of batch and directions."""
        if not isinstance(index, tuple) or index[0] is not Ellipsis:
            raise ValueError("a jet is indexed along its last axes: begin the index with an ellipsis")
        return self.map(lambda c: c[index])

    def __neg__(self) -> "Jet":
        return self.map(torch.neg)

    def __add__(self, other: Any) -> "Jet":
        if isinstance(other, Jet):
            _check_order(self, other)
            return Jet([_plus(a, b) for a, b in zip(self.coefficients, other.coefficients, strict=True)])
        return Jet([self.value + _lifted(other), *self.coefficients[1:]])

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Jet":
        return self + (-other)

    def __rsub__(self, other: Any) -> "Jet":
        return -self + other

    def __mul__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            factor = _lifted(other)
            return self.map(lambda c: c * factor)
        _check_order(self, other)
        return Jet([_cauchy(self.coefficients, other.coefficients, k) for k in range(self.order + 1)])

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            return self * (1.0 / _lifted(other) if isinstance(other, Tensor) else 1.0 / other)
        _check_order(self, other)
        quotient: list[Coefficient] = []
        for k, a in enumerate(self.coefficients):
            known = _cauchy([None, *other.coefficients[1:]], [*quotient, None], k)
            rest = _plus(a, _scaled(known, -1.0))
            quotient.append(None if rest is None else rest / other.value)
        return Jet(quotient)

    def __rtruediv__(self, other: Any) -> "Jet":
        return _constant(other, self) / self

    def __pow__(self, exponent: float | int) -> "Jet":
        """A constant power: whole ones by products, others by y' = p y a' / a, for positive values."""
        if not isinstance(exponent, float | int) or not math.isfinite(exponent):
            raise ValueError(f"exponent must be a finite number, got {exponent}")
        if exponent == int(exponent) and exponent >= 0:
            if exponent < 2:
                return self if exponent else _constant(1.0, self)
            half = self ** (exponent // 2)
            return half * half * self if exponent % 2 else half * half
        power: list[Coefficient] = [self.value**exponent]
        for k in range(1, self.order + 1):
            total: Coefficient = None
            for j in range(1, k + 1):
                total = _plus(total, _scaled(_times(self.coefficients[j], power[k - j]), exponent * j - (k - j)))
            power.append(None if total is None else total / (k * self.value))
        return Jet(power)


def _check_order(a: Jet, b: Jet) -> None:
    if a.order != b.order:
        raise ValueError(f"jets must be of one order, got {a.order} and {b.order}")


def _lifted(other: Any) -> Any:
    """A constant tensor of the network's shape with the axis of directions put in, where it has a batch axis."""
    return other.unsqueeze(-2) if isinstance(other, Tensor) and other.ndim > 1 else other


def _constant(value: Any, like: Jet) -> Jet:
    return Jet([torch.zeros_like(like.value) + _lifted(value), *[None] * like.order])


def _by_slope(a: Jet, first: Tensor, slope: Callable[[list[Coefficient], int], Coefficient]) -> Jet:
    """y with y_0 = first and y' = g a', where slope(y_0 ... y_k, k) is the coefficient k of g."""
    y: list[Coefficient] = [first]
    g: list[Coefficient] = []
    for k in range(1, a.order + 1):
        g.append(slope(y, k - 1))
        total: Coefficient = None
        for j in range(1, k + 1):
            total = _plus(total, _scaled(_times(a.coefficients[j], g[k - j]), j / k))
        y.append(total)
    return Jet(y)


def _one_minus(c: Coefficient, k: int) -> Coefficient:
    return _scaled(c, -1.0) if k or c is None else 1.0 - c


def _tanh(a: Jet) -> Jet:
    return _by_slope(a, a.value.tanh(), lambda y, k: _one_minus(_cauchy(y, y, k), k))


def _sigmoid(a: Jet) -> Jet:
    def slope(y: list[Coefficient], k: int) -> Coefficient:
        return _plus(y[k], _scaled(_cauchy(y, y, k), -1.0))

    return _by_slope(a, a.value.sigmoid(), slope)


def _exp(a: Jet) -> Jet:
    return _by_slope(a, a.value.exp(), lambda y, k: y[k])


def _log(a: Jet) -> Jet:
    reciprocal = 1.0 / a
    return _by_slope(a, a.value.log(), lambda y, k: reciprocal.coefficients[k])


def _wave(a: Jet) -> tuple[Jet, Jet]:
    """sin a and cos a, each the slope of the other."""
    sines: list[Coefficient] = [a.value.sin()]
    cosines: list[Coefficient] = [a.value.cos()]
    for k in range(1, a.order + 1):
        sine: Coefficient = None
        cosine: Coefficient = None
        for j in range(1, k + 1):
            sine = _plus(sine, _scaled(_times(a.coefficients[j], cosines[k - j]), j / k))
            cosine = _plus(cosine, _scaled(_times(a.coefficients[j], sines[k - j]), -j / k))
        sines.append(sine)
        cosines.append(cosine)
    return Jet(sines), Jet(cosines)


def _silu(a: Jet, inplace: bool = False) -> Jet:
    return a * _sigmoid(a)


def _softplus(a: Jet, beta: float = 1.0, threshold: float = 20.0) -> Jet:
    gate = _sigmoid(a * float(beta))
    return _by_slope(a, functional.softplus(a.value, beta, threshold), lambda y, k: gate.coefficients[k])


def _gelu(a: Jet, approximate: str = "none") -> Jet:
    if approximate != "none":
        scale = math.sqrt(2.0 / math.pi)
        return a * 0.5 * (_tanh(scale * (a + 0.044715 * a**3)) + 1.0)
    density = _exp(a * a * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
    first = 0.5 * (1.0 + torch.erf(a.value * math.sqrt(0.5)))
    return a * _by_slope(a, first, lambda y, k: density.coefficients[k])


def _linear(a: Jet, weight: Tensor, bias: Tensor | None = None) -> Jet:
    higher = [None if c is None else functional.linear(c, weight) for c in a.coefficients[1:]]
    return Jet([functional.linear(a.value, weight, bias), *higher])


def _joined(jets: Sequence[Any], dim: int = -1) -> Jet:
    if dim != -1 or not all(isinstance(jet, Jet) for jet in jets):
        raise ValueError("jets are joined with jets, along the last axis: dim must be -1")
    joined: list[Coefficient] = []
    for parts in zip(*[jet.coefficients for jet in jets], strict=True):
        known = [c for c in parts if c is not None]
        if not known:
            joined.append(None)
            continue
        lead = torch.broadcast_shapes(*[c.shape[:-1] for c in known])
        filled = [
            (torch.zeros_like(jet.value) if c is None else c).expand(*lead, -1)
            for c, jet in zip(parts, jets, strict=True)
        ]
        joined.append(torch.cat(filled, -1))
    return Jet(joined)


def _summed(a: Jet, dim: int | tuple[int, ...], keepdim: bool = False) -> Jet:
    if dim not in (-1, (-1,)) or not keepdim:
        raise ValueError("a jet is summed over its last axis with keepdim=True")
    return a.map(lambda c: c.sum(-1, keepdim=True))


# What a tensor on the left of an operator, or a function of torch, does with a jet.
_RULES: dict[Any, Callable[..., Any]] = {
    functional.linear: _linear,
    functional.silu: _silu,
    functional.softplus: _softplus,
    functional.gelu: _gelu,
    torch.tanh: _tanh,
    torch.sigmoid: _sigmoid,
    torch.exp: _exp,
    torch.log: _log,
    torch.sin: lambda a: _wave(a)[0],
    torch.cos: lambda a: _wave(a)[1],
    torch.sqrt: lambda a: a**0.5,
    torch.square: lambda a: a * a,
    torch.neg: lambda a: -a,
    torch.cat: _joined,
    torch.sum: _summed,
    **dict.fromkeys((torch.add, Tensor.__add__, Tensor.add), lambda a, b: b + a),
    **dict.fromkeys((torch.mul, Tensor.__mul__, Tensor.mul), lambda a, b: b * a),
    **dict.fromkeys((torch.sub, Tensor.__sub__, Tensor.sub), lambda a, b: -b + a),
    **dict.fromkeys(
        (torch.div, Tensor.__truediv__, Tensor.div), lambda a, b: a / b if isinstance(a, Jet) else _constant(a, b) / b
    ),
    Tensor.__rsub__: lambda a, b: b - a,
    Tensor.__rtruediv__: lambda a, b: b / a,
}


def variable(x: Float[Tensor, "batch dim"], directions: Float[Tensor, "..."], order: int) -> Jet:
    """The jet of x + εv.

    Args:
        x: points.
        directions: v, (directions, dim) for all points or (batch, directions, dim).
        order: order of the polynomials, at least 1.
    Raises:
        ValueError: shapes that do not match, or an order below 1.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    fits = directions.ndim in (2, 3) and directions.shape[-1] == x.shape[-1]
    if not fits or (directions.ndim == 3 and len(directions) != len(x)):
        raise ValueError(
            f"directions must have shape (directions, {x.shape[-1]}) or ({len(x)}, directions, {x.shape[-1]}), "
            f"got {tuple(directions.shape)}"
        )
    return Jet([x[:, None], directions if directions.ndim == 3 else directions[None], *[None] * (order - 1)])


def directional(
    f: Callable[[Any], Any],
    x: Float[Tensor, "batch dim"],
    directions: Float[Tensor, "..."],
    order: int,
    *,
    engine: str = "taylor",
) -> tuple[Tensor, ...]:
    """Value and directional derivatives D^k f(x) = d^k/dε^k f(x + εv) at ε = 0, k = 1 ... order.

    Args:
        f: a network or function that acts point by point, (batch, dim) to (batch, outputs).
        x: points.
        directions: v, (directions, dim) for all points or (batch, directions, dim).
        order: highest derivative.
        engine: "taylor"; or "jvp", nested forward mode, slower, for an f that uses operations without a Taylor rule.
    Returns:
        f(x), (batch, outputs), then for each k a tensor (batch, directions, outputs).
    Raises:
        ValueError: shapes, order or engine.
        NotImplementedError: "taylor" met an operation without a rule; the message names it.
    """
    jet = variable(x, directions, order)
    if engine == "taylor":
        image = f(jet)
        if not isinstance(image, Jet):
            raise ValueError("f must depend on its input through operations on jets, got a constant")
        shape = (len(x), directions.shape[-2], image.value.shape[-1])
        return image.value[:, 0], *[image.derivative(k).expand(shape) for k in range(1, order + 1)]
    if engine != "jvp":
        raise ValueError(f"engine must be 'taylor' or 'jvp', got {engine!r}")
    every = jet.derivative(1).expand(len(x), -1, -1)

    def along(v: Tensor) -> tuple[Tensor, ...]:
        def differentiate(g: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda y: torch.func.jvp(g, (y,), (v,))[1]

        values, g = [], f
        for _ in range(order):
            g = differentiate(g)
            values.append(g(x))
        return tuple(values)

    return f(x), *torch.func.vmap(along, in_dims=1, out_dims=1)(every)


def _units(x: Tensor, axes: Sequence[int]) -> Tensor:
    if not all(-x.shape[-1] <= axis < x.shape[-1] for axis in axes):
        raise ValueError(f"axes must be from 0 to {x.shape[-1] - 1}, got {tuple(axes)}")
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)[list(axes)]


def partials(
    f: Callable[[Any], Any],
    x: Float[Tensor, "batch dim"],
    order: int,
    axes: Sequence[int] | None = None,
    **options: Any,
) -> tuple[Tensor, ...]:
    """Value and pure partial derivatives ∂^k f/∂x_i^k for the given axes, all if left out; see ``directional``.

    Returns:
        f(x), (batch, outputs), then for each k = 1 ... order a tensor (batch, axes, outputs).
    """
    return directional(f, x, _units(x, range(x.shape[-1]) if axes is None else axes), order, **options)


def mixed(f: Callable[[Any], Any], x: Float[Tensor, "batch dim"], i: int, j: int) -> Float[Tensor, "batch outputs"]:
    """∂²f/∂x_i∂x_j = (D²_{e_i + e_j} f - D²_{e_i - e_j} f) / 4."""
    a, b = _units(x, (i, j))
    second = directional(f, x, torch.stack([a + b, a - b]), 2)[2]
    return (second[:, 0] - second[:, 1]) / 4


def laplacian(
    f: Callable[[Any], Any], x: Float[Tensor, "batch dim"], axes: Sequence[int] | None = None
) -> Float[Tensor, "batch outputs"]:
    """Σ_i ∂²f/∂x_i² over the given axes, all if left out."""
    return partials(f, x, 2, axes)[2].sum(1)

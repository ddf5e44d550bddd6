"""Semilinear equations in time: the stepper that all share, with rollouts, gradients and failures.

L is integrated exactly (``etd``) or implicitly (``imex``), N explicitly. What an equation is, ``equation`` says.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from pdebook import fourier
from pdebook.pde import etd, imex
from pdebook.pde.equation import Semilinear, laid_out, parameter, times
from pdebook.pde.failure import Diverged, listed
from pdebook.pde.spectral import Spectral

__all__ = ["METHODS", "Diverged", "Semilinear", "Stepper", "parameter"]

Method = etd.ExponentialMethod | imex.ImexMethod | imex.MultistepMethod

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        etd.ETDRK1,
        etd.ETDRK2,
        etd.ETDRK3,
        etd.ETDRK4,
        etd.KROGSTAD4,
        imex.IMEX_EULER,
        imex.CNHEUN,
        imex.ARS222,
        imex.ARS443,
        imex.CARPENTER_KENNEDY4,
        imex.CNAB2,
        imex.SBDF2,
        imex.SBDF3,
    )
} | {"ifrk4": etd.IFRK4}
"""All methods by name."""

_STRETCH = 1024
"""Most steps between looks at what was finite."""

_BLOCK = 1 << 16
"""Numbers of a block of samples on a CPU: a few such arrays fit into a core's cache."""


def _add(total: Tensor, coefficient: Tensor, c: Tensor, matrix: bool, keep: bool = False) -> Tensor:
    """total + coefficient c, in place unless ``total`` is needed again."""
    if matrix:
        return total + times(coefficient, c, True) if keep else total.add_(times(coefficient, c, True))
    return torch.addcmul(total, coefficient, c) if keep else total.addcmul_(coefficient, c)


class Stepper:
    """Steps of one length for an equation: one step size and one time for the whole batch.

    Coefficients are worked out in double precision on first use, and kept for each dtype and device unless a parameter of the
    equation wants a gradient. Run under ``torch.no_grad()`` where no gradient is wanted.

    Args:
        equation: the equation.
        dt: the step, positive.
        method: a name of ``METHODS``, or a method.
    Raises:
        ValueError: an unknown method, or a step that is not positive and finite.
    """

    def __init__(self, equation: Semilinear, dt: float | int, method: str | Method = "etdrk4") -> None:
        if not 0 < dt < math.inf:
            raise ValueError(f"dt must be positive and finite, got {dt}")
        if isinstance(method, str):
            if method not in METHODS:
                raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
            method = METHODS[method]
        self.equation = equation
        self.dt = float(dt)
        self.method: Method = method
        self._cache: dict[Any, Any] = {}

    def step(self, u: Shaped[Tensor, "..."], t: float | int = 0.0) -> Float[Tensor, "batch channel *grid"]:
        """The field one step after time t; not checked for being finite."""
        return self.rollout(u, 1, t=t, check=False)[:, 0]

    def rollout(
        self,
        u: Shaped[Tensor, "..."],
        steps: int,
        every: int = 1,
        *,
        t: float | int = 0.0,
        start: bool = False,
        checkpoint: int = 0,
        check: bool = True,
    ) -> Float[Tensor, "batch times channel *grid"]:
        """Fields after every so many steps.

        Args:
            u: start.
            steps: number of steps; a multiple of ``every``.
            every: steps between the fields that are returned.
            t: time of the start.
            start: whether to return the start too, as the first.
            checkpoint: for gradients, recompute stretches of so many steps instead of storing them; 0 stores all.
            check: whether to look for values that are not finite: before the first step, and, read once, after the last.
        Raises:
            ValueError: a field that does not fit the equation or is not finite, or counts that make no sense.
            pdebook.pde.failure.Diverged: a sample that stopped being finite; the message names step, time, samples and the start's
                Courant number.
        """
        equation = self.equation
        equation.grid.check(u, channels=equation.channels)
        if u.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"u must be float32 or float64, got {u.dtype}")
        if every < 1 or steps < 1 or steps % every:
            raise ValueError(f"steps must be a positive multiple of every, got {steps} and {every}")
        if checkpoint < 0:
            raise ValueError(f"checkpoint must not be negative, got {checkpoint}")
        if check:
            _check_finite(u)
        if equation.batch not in (1, len(u)):
            raise ValueError(f"u has {len(u)} samples, but the equation's parameters are for {equation.batch}")
        options = (steps, every, float(t), start, checkpoint, check)
        size = self._block(u)
        if size < len(u):
            blocks = [slice(first, first + size) for first in range(0, len(u), size)]
            results = [self._for(samples)._march(u[samples], *options) for samples in blocks]
            result, good = (torch.cat(parts) for parts in zip(*results, strict=True))
        else:
            result, good = self._march(u, *options)
        if check:
            self._raise(good, steps, float(t), u, result)
        return result

    def _block(self, u: Tensor) -> int:
        """Samples that go through the steps together. A CPU is twice as fast if all that a step touches stays in its caches."""
        if u.device.type != "cpu" or torch.is_grad_enabled() or callable(self.equation.source):
            return len(u)
        return max(1, _BLOCK // u[0].numel())

    def _for(self, samples: slice) -> "Stepper":
        """The stepper of some samples: this one, unless parameters differ."""
        if self.equation.batch == 1:
            return self
        return self._kept(
            ("part", samples.start, samples.stop),
            lambda: Stepper(self.equation.part(samples), self.dt, self.method),
        )

    def _march(
        self, u: Tensor, steps: int, every: int, t: float, start: bool, checkpoint: int, check: bool
    ) -> tuple[Tensor, Tensor]:
        """Fields after every so many steps, and how many steps each sample and channel was finite."""
        basis = self.equation.basis
        whole = fourier.coefficients(u, self.equation.grid.dims)
        if type(self.equation).prepare is not Semilinear.prepare:
            whole = self.equation.prepare(whole, self.equation.whole)
        mask = basis.constant("mask", whole)
        state = _State(basis.arranged(whole[..., : basis.columns] * mask))
        rest = self._rest(whole, mask, u.requires_grad, check)
        good = torch.zeros(u.shape[:2], dtype=torch.int64, device=u.device)
        fields = [u] if start else []
        stretch = checkpoint or min(every, _STRETCH)
        for done in range(0, steps, every):
            for first in range(done, done + every, stretch):
                count = min(stretch, done + every - first)
                advance = partial(self._advance, first=first, count=count, t=t, good=good, check=check)
                store = not checkpoint or not torch.is_grad_enabled()
                state = advance(state) if store else recomputed(advance, state, use_reentrant=False)
            if rest is None:
                fields.append(basis.inverse(state.c))
            else:
                rest = times(self._decay(every, rest), rest, self._matrix)
                missing = rest.shape[-1] - basis.columns
                fields.append(fourier.field(rest + torch.nn.functional.pad(state.c, (0, missing)), basis.grid.size))
        return torch.stack(fields, 1), good

    @property
    def _matrix(self) -> bool:
        return self._kept("matrix", lambda: self.equation.symbol(self.equation.basis)[1])

    def _kept(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def _per_device(self, key: Any, like: Tensor, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, kept unless a gradient may run through it."""
        if self.equation.requires_grad:
            return make()
        return self._kept((key, like.dtype, like.device), make)

    def _rest(self, whole: Tensor, mask: Tensor, keep: bool, check: bool) -> Tensor | None:
        """The modes outside the mask, or None if there are none or only rounding."""
        if self.equation.basis.degree == 1:
            return None
        missing = whole.shape[-1] - mask.shape[-1]
        rest = whole * (1 - torch.nn.functional.pad(mask, (0, missing)).to(whole.dtype))
        if check and not keep:
            level = 8 * torch.finfo(whole.real.dtype).eps
            if bool(rest.detach().abs().max() <= level * whole.detach().abs().max()):
                return None
        return rest

    def _z(self, basis: Spectral, like: Tensor) -> tuple[Tensor, bool]:
        symbol, matrix = self.equation.symbol(basis)
        return self.dt * symbol.to(like.device), matrix

    def _decay(self, count: int, like: Tensor) -> Tensor:
        """e^{count z} for all modes."""

        def make() -> Tensor:
            z, matrix = self._z(self.equation.whole, like)
            return laid_out(etd.exponential(count * z, matrix), matrix).to(like.dtype)

        return self._per_device(("decay", count), like, make)

    def _coefficients(self, like: Tensor, starting: bool) -> Any:
        """What multiplies states and slopes, masked; for a multistep method those of its start, if asked for."""
        method = self.method
        if starting and isinstance(method, imex.MultistepMethod):
            method = method.start

        def make() -> Any:
            z, matrix = self._z(self.equation.basis, like)
            mask = self.equation.basis.mask.to(like.device)

            def ready(values: Tensor | None, masked: bool) -> Tensor | None:
                if values is None:
                    return None
                values = laid_out(values, matrix)
                return self.equation.basis.arranged((values * mask if masked else values).to(like.dtype))

            if isinstance(method, imex.MultistepMethod):
                states, slopes = method.coefficients(z, self.dt, matrix)
                return [ready(value, False) for value in states], [ready(value, True) for value in slopes]
            rows = method.rows(z, self.dt, matrix)
            decays = {id(decay): ready(decay, False) for decay, _ in rows}
            weights = {id(w): ready(w, True) for _, row in rows for w in row if w is not None}
            return [(decays[id(decay)], [None if w is None else weights[id(w)] for w in row]) for decay, row in rows]

        return self._per_device(("coefficients", starting), like, make)

    def _advance(self, state: "_State", first: int, count: int, t: float, good: Tensor, check: bool) -> "_State":
        """``count`` steps from step number ``first`` on."""
        mean: tuple[Any, ...] = (slice(None), slice(None), *[0] * self.equation.grid.dims)
        means = []
        for k in range(first, first + count):
            state = self._one_step(state, t + k * self.dt)
            if check:
                # A value that is not finite spreads to all modes in one step: the mean tells.
                means.append(state.c.detach()[mean].real.clone())
        if check:
            good += torch.stack(means).isfinite().sum(0)
        return state

    def _one_step(self, state: "_State", t: float) -> "_State":
        method = self.method
        if isinstance(method, imex.MultistepMethod):
            slope = self.equation.tendency(state.c, t)
            past = (_State.Entry(state.c, slope), *state.past)
            if len(past) < len(method.slopes):
                rows = self._coefficients(state.c, True)
                return _State(self._rows(rows, method.start.nodes, state.c, t, slope), past)
            states, slopes = self._coefficients(state.c, False)
            new = times(states[0], state.c, self._matrix)
            for weight, entry in zip(states[1:], past[1:], strict=False):
                new = _add(new, weight, entry.c, self._matrix)
            for weight, entry in zip(slopes, past, strict=False):
                if entry.slope is not None:
                    new = _add(new, weight, entry.slope, self._matrix)
            return _State(new, past[: len(method.slopes) - 1])
        rows = self._coefficients(state.c, False)
        return _State(self._rows(rows, method.nodes, state.c, t, self.equation.tendency(state.c, t)))

    def _rows(self, rows: Any, nodes: Sequence[float], v: Tensor, t: float, slope: Tensor | None) -> Tensor:
        """A step of a one-step method whose first slope is known."""
        matrix = self._matrix
        if slope is None:
            return times(rows[-1][0], v, matrix)
        slopes: list[Any] = [slope]
        products: dict[int, Tensor] = {}
        uses = [id(decay) for decay, _ in rows]
        y = v
        for i, (decay, weights) in enumerate(rows):
            if i:
                slopes.append(self.equation.tendency(y, t + nodes[i - 1] * self.dt))
            product = products.pop(id(decay), None)
            if product is None:
                product = times(decay, v, matrix)
            y = product
            keep = id(decay) in uses[i + 1 :]
            if keep:
                products[id(decay)] = product
            for weight, known in zip(weights, slopes, strict=True):
                if weight is not None:
                    y = _add(y, weight, known, matrix, keep)
                    keep = False
        return y

    def _raise(self, good: Tensor, steps: int, t: float, u: Tensor, result: Tensor) -> None:
        """Raise Diverged if a sample is not finite."""
        finite = result[:, -1].detach().flatten(1).isfinite().all(1)
        first_bad = torch.where(finite & (good.amin(1) == steps), 0, (good.amin(1) + 1).clamp(max=steps)).cpu()
        bad = first_bad.nonzero().flatten().tolist()
        if not bad:
            return
        step = int(first_bad[bad].min())
        courant = self.equation.courant(u.detach(), self.dt)[bad].max()
        hint = f"; the start's Courant number is {float(courant):.3g}" if courant > 0 else ""
        raise Diverged(
            f"{len(bad)} of {len(u)} samples stopped being finite (samples {listed(bad)}), first in step {step}, which ends at "
            f"t = {t + step * self.dt:.6g}; dt = {self.dt:g}{hint}",
            first_bad,
            result,
        )


class _State:
    """Coefficients, and what a multistep method remembers: earlier coefficients with their slopes, newest first."""

    class Entry:
        """One memory."""

        def __init__(self, c: Tensor, slope: Tensor | None) -> None:
            self.c, self.slope = c, slope

    def __init__(self, c: Tensor, past: "tuple[_State.Entry, ...]" = ()) -> None:
        self.c, self.past = c, past


def _check_finite(u: Tensor) -> None:
    bad = (~u.detach().isfinite()).flatten(1).any(1)
    if bool(bad.any()):
        samples = bad.nonzero().flatten().tolist()
        raise ValueError(f"u must be finite, samples {', '.join(map(str, samples[:8]))} are not")

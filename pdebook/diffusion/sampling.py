"""What every sampler shares: its signature, its checks, and the exact exponential step.

A sampler is ``sampler(denoiser, x, times, *, ...)``: it carries samples x at ``times[0]`` to ``times[-1]``. Its code is a generator
that yields the time and the state after each step, so progress bars and recordings belong to the caller
(``sampler.iterate(...)``), and inversion is the same code on a rising grid (``sampler.invert(...)``).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from pdebook.diffusion.affine import Affine, State
from pdebook.diffusion.scalars import Scalar, expm1, phi
from pdebook.diffusion.schedules import NoiseSchedule

Prediction = Literal["noise", "data"]
Ending = Literal["full", "lower", "auto"]


@runtime_checkable
class Model(Protocol):
    """What a sampler asks of a denoiser (or of the tracer that stands in for one)."""

    schedule: NoiseSchedule

    def noise(self, x: Any, t: Scalar) -> Any:
        """ε(x, t), the noise in x."""

    def data(self, x: Any, t: Scalar) -> Any:
        """x_0(x, t) = (x - σ ε) / α, the data in x."""


class DivergenceError(ArithmeticError):
    """A sampler's state stopped being finite."""


@dataclass(frozen=True)
class ExponentialStep:
    """The exact solution from time s to t, for a prediction m that is interpolated in λ.

        x_t = ratio x_s + scale Σ_k h^k φ_k(z) m^{(k-1)}(λ_s),   h = λ_t - λ_s

    with (ratio, scale, z) = (α_t/α_s, -σ_t, h) for noise prediction and (σ_t/σ_s, α_t, -h) for data prediction: the two forms of
    one variation-of-constants formula. ``weight(k)`` is scale h φ_k(z), the factor of h^{k-1} m^{(k-1)}; ``first`` is weight(1),
    which is finite where h is infinite: on a first-order step onto, or from, a level without noise.

    Source: Lu et al. 2022, equation 3.4; Lu et al. 2023 (DPM-Solver++), equation 8.
    """

    ratio: Scalar
    scale: Scalar
    h: Scalar
    z: Scalar
    first: Scalar

    def weight(self, k: int) -> Scalar:
        """Scale h φ_k(z)."""
        return self.first if k == 1 else self.scale * self.h * phi(k, self.z)


def exponential_step(schedule: NoiseSchedule, s: Scalar, t: Scalar, prediction: Prediction) -> ExponentialStep:
    """Coefficients of the exact solution from s to t; see ``ExponentialStep``."""
    h = schedule.half_log_snr(t) - schedule.half_log_snr(s)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if prediction == "data":
        return ExponentialStep(sigma / schedule.sigma(s), alpha, h, -h, -alpha * expm1(-h))
    # -σ_t (e^h - 1) = α_t ρ_s (e^{-h} - 1): of the two, the one whose exponential doesn't overflow.
    down, up = alpha * schedule.rho(s) * expm1(-h), -sigma * expm1(h)
    first = torch.where(h > 0, down, up) if isinstance(h, Tensor) else down if h > 0 else up
    return ExponentialStep(alpha / schedule.alpha(s), -sigma, h, h, first)


def predictor(denoiser: Model, prediction: Prediction) -> Callable[[Any, Scalar], Any]:
    """The denoiser's method for a prediction type; ValueError for an unknown one."""
    if prediction not in ("noise", "data"):
        raise ValueError(f"prediction must be 'noise' or 'data', got {prediction!r}")
    return denoiser.noise if prediction == "noise" else denoiser.data


def step_orders(steps: int, order: int, ending: Ending) -> list[int]:
    """Order of each step of a multistep method: 1, 2, ... up to ``order`` as history grows; see ``ending``.

    Args:
        steps: number of steps, at least ``order``.
        order: largest order.
        ending: "full" keeps the order to the end; "lower" ends ..., 2, 1; "auto" lowers below ten steps (the released default).
    """
    if steps < order:
        raise ValueError(f"times must hold at least {order} steps for a method of order {order}, got {steps}")
    if ending not in ("full", "lower", "auto"):
        raise ValueError(f"ending must be 'full', 'lower' or 'auto', got {ending!r}")
    lower = ending == "lower" or (ending == "auto" and steps < 10)
    return [min(order, i + 1, steps - i if lower else order) for i in range(steps)]


def columns(
    times: Sequence[float] | Tensor, x: State, schedule: NoiseSchedule, *, rising: bool = False
) -> list[Scalar]:
    """The grid as a list of floats, or for times that differ by sample of float64 tensors (batch, 1, ..., 1) on x's device.

    Args:
        times: (n + 1) times shared by the batch, or a tensor (batch, n + 1).
        x: initial state.
        schedule: its range must hold all times.
        rising: expect rising times (inversion).
    Raises:
        ValueError: fewer than two times, a time that is not finite or out of range, or times that are not strictly monotone.
    """
    grid = (
        torch.as_tensor(times, dtype=torch.float64)
        if not isinstance(times, Tensor)
        else times.detach().to(torch.float64)
    )
    if grid.ndim not in (1, 2) or grid.shape[-1] < 2:
        raise ValueError(
            f"times must hold at least one step: shape (n + 1) or (batch, n + 1), n >= 1, got {tuple(grid.shape)}"
        )
    if grid.ndim == 2 and (isinstance(x, Affine) or len(grid) != len(x)):
        raise ValueError(f"times of shape {tuple(grid.shape)} need a batch of {len(grid)} samples in x")
    host = grid.cpu()
    if not bool(host.isfinite().all()) or float(host.min()) < schedule.t_min or float(host.max()) > schedule.t_max:
        raise ValueError(
            f"times must lie in [{schedule.t_min}, {schedule.t_max}], got values from {float(host.min())} to {float(host.max())}"
        )
    change = host.diff(dim=-1)
    if not bool((change > 0).all() if rising else (change < 0).all()):
        raise ValueError(f"times must {'rise' if rising else 'fall'} strictly")
    if grid.ndim == 1:
        return list(host.tolist())
    return [column.reshape(-1, *[1] * (x.ndim - 1)) for column in grid.to(x.device).unbind(-1)]  # type: ignore[union-attr]


Steps = Iterator[tuple[Scalar, State]]


class Sampler:
    """A sampling algorithm: call it for the final state, ``iterate`` for every step, ``invert`` from data to noise.

    Made by the decorator ``@sampler`` from a generator function ``(denoiser, x, times, *, ...)``.
    """

    def __init__(self, steps: Callable[..., Steps]) -> None:
        self._steps = steps
        functools.update_wrapper(self, steps)

    def __repr__(self) -> str:
        return f"<sampler {self._steps.__module__}.{self._steps.__qualname__}>"

    def iterate(self, denoiser: Model, x: State, times: Sequence[float] | Tensor, **options: Any) -> Steps:
        """Yield (time, state) after each step."""
        check_state(x)
        return self._steps(denoiser, x, columns(times, x, denoiser.schedule), **options)

    def __call__(self, denoiser: Model, x: State, times: Sequence[float] | Tensor, **options: Any) -> Any:
        """State at ``times[-1]``.

        Raises:
            ValueError: times or options that the method can't use.
            DivergenceError: the result is not finite; names the step and the samples.
        """
        check_state(x)
        grid = columns(times, x, denoiser.schedule)
        return self._run(denoiser, x, grid, options)

    def invert(self, denoiser: Model, x: State, times: Sequence[float] | Tensor, **options: Any) -> Any:
        """Carry samples at ``times[0]`` to noise at ``times[-1]`` along rising times, with the same formulas."""
        check_state(x)
        return self._run(denoiser, x, columns(times, x, denoiser.schedule, rising=True), options)

    def _run(self, denoiser: Model, x: State, grid: list[Scalar], options: dict[str, Any]) -> State:
        state = x
        try:
            for _, state in self._steps(denoiser, x, grid, **options):  # noqa: B007
                pass
        except ZeroDivisionError as error:
            raise ValueError(
                f"times reach a level without noise or signal, by which {self.__name__} would divide; "  # type: ignore[attr-defined]
                "stop before it, or reach it by a step of first order"
            ) from error
        # One reduction at the very end. Only a failed run is repeated, step by step, to say where it failed.
        if isinstance(state, Tensor) and not bool(state.detach().isfinite().all()):
            self._locate(denoiser, x, grid, options)
        return state

    def _locate(self, denoiser: Model, x: State, grid: list[Scalar], options: dict[str, Any]) -> None:
        for k, (t, state) in enumerate(self._steps(denoiser, x, grid, **options), start=1):
            bad = ~state.detach().isfinite().flatten(1).all(1)  # type: ignore[union-attr]
            if bool(bad.any()):
                when = f"{float(t):.6g}" if not isinstance(t, Tensor) else f"{float(t[bad].flatten()[0]):.6g}"
                samples = bad.nonzero().flatten().tolist()
                listed = ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")
                raise DivergenceError(
                    f"{self.__name__} diverged at step {k}, time {when}: "  # type: ignore[attr-defined]
                    f"{len(samples)} of {len(bad)} samples are not finite (samples {listed})"
                )
        raise DivergenceError(f"{self.__name__} gave values that are not finite")  # type: ignore[attr-defined]


def sampler(steps: Callable[..., Steps]) -> Sampler:
    """Decorator that makes a ``Sampler`` of a generator function."""
    return Sampler(steps)


def check_state(x: State) -> None:
    """Raise ValueError unless x is a floating-point tensor with a batch axis and others, or an expression."""
    if isinstance(x, Affine):
        return
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2:
        what = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be a floating-point tensor with a leading batch axis, got {what}")


def walk(grid: list[Scalar]) -> Iterator[tuple[int, Scalar, Scalar]]:
    """Indexed steps (i, s, t) of a grid."""
    return ((i, s, t) for i, (s, t) in enumerate(pairwise(grid)))

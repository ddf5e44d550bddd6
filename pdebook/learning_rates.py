"""Learning-rate schedules: factors of the learning rate, as functions of the step and of the number of steps of the run."""

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "Schedule", "constant", "exponential", "inverse_sqrt", "one_cycle", "warmup_cosine"]

Schedule = Callable[[int, int], float]
"""Factor of the learning rate at a step of a run of so many steps."""


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")


def _check_warmup(warmup: int, least: int = 0) -> None:
    if not warmup >= least:
        raise ValueError(f"warmup must be at least {least}, got {warmup}")


def _warmup(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / (warmup + 1))


def constant(warmup: int = 0) -> Schedule:
    """Linear rise over ``warmup`` steps, then 1."""
    _check_warmup(warmup)
    return lambda step, steps: _warmup(step, warmup)


def warmup_cosine(warmup: int = 0, final: float = 0.0) -> Schedule:
    """Linear rise over ``warmup`` steps, then half a cosine from 1 down to ``final`` at the end of the run."""
    _check_warmup(warmup)
    _check_fraction("final", final)

    def factor(step: int, steps: int) -> float:
        if step < warmup:
            return _warmup(step, warmup)
        done = (step - warmup) / max(steps - warmup, 1)
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


def one_cycle(rise: float = 0.3, start: float = 0.04, final: float = 4e-6) -> Schedule:
    """Half a cosine from ``start`` up to 1 over the fraction ``rise`` of the run, then half a cosine down to ``final``.

    Source: Smith and Topin 2018, in the form and with the defaults of PyTorch's OneCycleLR.
    """
    _check_fraction("rise", rise)
    if not (0 <= start <= 1 and 0 <= final <= 1):
        raise ValueError(f"start and final must be in [0, 1], got {start} and {final}")

    def factor(step: int, steps: int) -> float:
        # PyTorch's phases: the peak at step rise * steps - 1, the lowest rate at the last step.
        peak = rise * steps - 1.0
        low, high, done = (start, 1.0, step / peak) if step < peak else (1.0, final, (step - peak) / (steps - 1 - peak))
        return high + (low - high) * 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


def exponential(final: float = 0.01, warmup: int = 0) -> Schedule:
    """Linear rise over ``warmup`` steps times a geometric decay from 1 to ``final`` over the run."""
    if not 0 < final <= 1:
        raise ValueError(f"final must be in (0, 1], got {final}")
    _check_warmup(warmup)
    return lambda step, steps: _warmup(step, warmup) * final ** (step / max(steps - 1, 1))


def inverse_sqrt(warmup: int = 100) -> Schedule:
    """Linear rise over ``warmup`` steps, then sqrt(warmup / step): no end of the run is needed. Source: Vaswani et al. 2017."""
    _check_warmup(warmup, least=1)
    return lambda step, steps: min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "constant": constant,
    "warmup_cosine": warmup_cosine,
    "one_cycle": one_cycle,
    "exponential": exponential,
    "inverse_sqrt": inverse_sqrt,
}

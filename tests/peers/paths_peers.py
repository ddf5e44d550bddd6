"""Controls and log-signatures: inputs, our results, and the peers' (torchcde for controls, esig for log-signatures)."""

import math
from itertools import pairwise
from typing import Any

import torch
from comparison import difference
from torch import Tensor

from pdebook.diffeq.paths import CubicPath, HermitePath, LinearPath, PiecewisePath, RectilinearPath
from pdebook.diffeq.signatures import log_signature
from pdebook.rng import uniform

CASES = ("linear, gaps", "rectilinear, gaps", "hermite", "hermite, gaps", "natural", "log-signature")
KINDS: dict[str, type[PiecewisePath]] = {
    "linear": LinearPath,
    "rectilinear": RectilinearPath,
    "hermite": HermitePath,
    "natural": CubicPath,
}


def inputs(gaps: bool) -> tuple[Tensor, Tensor]:
    """Six irregular times, and two series of them with the time as first of three channels."""
    times = (0.2 + uniform(1, torch.arange(1), (6,), dtype=torch.float64))[0].cumsum(0)
    data = 2.0 * uniform(2, torch.arange(2), (6, 3), dtype=torch.float64) - 1.0
    data[:, :, 0] = times
    if gaps:
        missing = uniform(3, torch.arange(2), (6, 3), dtype=torch.float64) < 0.4
        # Theirs needs the first observation of a rectilinear control, and the times.
        missing[:, 0], missing[:, :, 0] = False, False
        data = torch.where(missing, math.nan, data)
    return times, data


def queries(times: Tensor) -> Tensor:
    """Places between the knots, and the knots."""
    inner = times[:-1] + torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64) * times.diff()
    return torch.cat([inner, times]).sort().values


def windows(times: Tensor) -> Tensor:
    """Ends of two windows, at knots."""
    return times[[0, 2, 5]]


def ours(case: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Values and derivatives (batch, query, channel), or increments and areas side by side."""
    kind, *options = case.split(", ")
    times, data = inputs(bool(options))
    data = data.to(dtype)
    if kind == "log-signature":
        signature = log_signature(LinearPath(times, data), windows(times))
        return {"value": torch.cat([signature.increments, signature.areas], 2)}
    path, t = KINDS[kind](times, data), queries(times)[None]
    return {"value": path(t), "derivative": path.derivative(t)}


def theirs(case: str) -> dict[str, Tensor]:
    """The same of the peer, in float64."""
    import numpy as np

    kind, *options = case.split(", ")
    times, data = inputs(bool(options))
    if kind == "log-signature":
        import esig

        ends = [int((times == end).nonzero()) for end in windows(times)]
        parts = [[esig.stream2logsig(series[a : b + 1].numpy(), 2) for a, b in pairwise(ends)] for series in data]
        return {"value": torch.from_numpy(np.array(parts))}
    import torchcde

    t = queries(times)
    if kind == "rectilinear":
        # Their parameter counts knots: two to each interval, at its middle and its end in ours.
        path = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(data, rectilinear=0))
        knots = torch.stack([times[:-1], 0.5 * (times[:-1] + times[1:])], 1).flatten()
        knots = torch.cat([knots, times[-1:]])
        piece = (torch.searchsorted(knots, t) - 1).clamp(min=0)
        speed = 1.0 / (knots[piece + 1] - knots[piece])
        s = piece + speed * (t - knots[piece])
        values, slopes = (torch.stack([call(u) for u in s], 1) for call in (path.evaluate, path.derivative))
        return {"value": values, "derivative": slopes * speed[:, None]}
    if kind == "linear":
        path = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(data, times), times)
    else:
        make = {
            "hermite": torchcde.hermite_cubic_coefficients_with_backward_differences,
            "natural": torchcde.natural_cubic_coeffs,
        }[kind]
        path = torchcde.CubicSpline(make(data, times), times)
    values, slopes = (torch.stack([call(u) for u in t], 1) for call in (path.evaluate, path.derivative))
    return {"value": values, "derivative": slopes}


def references() -> dict[str, Any]:
    """Run the peers, print how far ours is from them, and return what is to be stored."""
    cases = {}
    for case in CASES:
        result, single, double = theirs(case), ours(case, torch.float32), ours(case)
        for part, value in result.items():
            print(f"{difference(single[part], value):9.1e} {difference(double[part], value):9.1e}  {case}: {part}")
        cases[case] = {part: value.tolist() for part, value in result.items()}
    return {"cases": cases}

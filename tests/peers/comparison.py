"""What comparisons with peers share: their stored results, and the distance from them."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

REFERENCES = Path(__file__).parent / "references"


@cache
def stored(peer: str) -> dict[str, Any]:
    """A peer's results with their card."""
    return json.loads((REFERENCES / f"{peer}.json").read_text())


def difference(value: Tensor, reference: Any) -> float:
    """Largest difference over largest magnitude, for a tensor or lists of the same shape."""
    expected = torch.as_tensor(reference, dtype=torch.float64)
    assert value.shape == expected.shape, f"{tuple(value.shape)} and {tuple(expected.shape)}"
    return float((value.double() - expected).abs().max() / expected.abs().max())


def solved(
    cases: Mapping[str, Any], ours: Callable[..., Tensor], theirs: Callable[[Any], Tensor]
) -> dict[str, dict[str, Any]]:
    """Their results by case, as lists to be stored; prints how far ours are, in single and in double precision."""
    results = {}
    for name, case in cases.items():
        result = theirs(case)
        single, double = (difference(ours(case, dtype), result) for dtype in (torch.float32, torch.float64))
        print(f"{single:9.1e} {double:9.1e}  {name}")
        results[name] = result.tolist()
    return {"cases": results}

"""Runs neuraloperator's ``MultigridPatching2D`` on the shared fields; imported only where it is installed.

python tests/peers/mg_tfno_peers.py    # writes references/mg_tfno.json
"""

import contextlib
import io
from typing import Any

import torch
from mg_tfno_cases import CASES, REFUSED, cells, numbered, ours, places
from torch import Tensor, nn


def patching(size: tuple[int, int], levels: int, padding: int) -> Any:
    """Their module, with the same number of points on both axes."""
    from neuralop.training.patching import MultigridPatching2D

    with contextlib.redirect_stdout(io.StringIO()):
        return MultigridPatching2D(nn.Identity(), levels=levels, padding_fraction=[padding / n for n in size])


def theirs(name: str) -> Tensor:
    """Their patches."""
    size, levels, _ = CASES[name]
    field = numbered(size)
    return patching(size, levels, cells(name)).patch(field, field)[0]


def their_stitched(name: str, windows: Tensor) -> Tensor:
    """Their field from patches."""
    size, levels, _ = CASES[name]
    module = patching(size, levels, cells(name))
    module.padding_height = module.padding_width = cells(name)
    return module.unpatch(windows, windows)[0]


def their_error(name: str) -> str:
    """What they raise for a size that the levels do not divide."""
    size, levels = REFUSED[name]
    field = numbered(size)
    try:
        patching(size, levels, 0).patch(field, field)
    except (RuntimeError, AssertionError) as error:
        return f"{type(error).__name__}: {str(error)[:60]}"
    return ""


def references() -> dict[str, Any]:
    """Places of all windows, and the errors; prints whether ours are the same."""
    stored: dict[str, Any] = {}
    for name, (_, levels, _) in CASES.items():
        found = theirs(name)
        print(f"{name}: {'equal' if torch.equal(found, ours(name)) else 'DIFFERENT'}")
        stored[name] = places(found, levels)
    return {"cases": stored, "refused": {name: their_error(name) for name in REFUSED}}


if __name__ == "__main__":
    from importlib import metadata

    from make_references import store

    store("mg_tfno", references(), {"package": "neuraloperator", "version": metadata.version("neuraloperator")})

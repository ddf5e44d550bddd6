"""Multi-grid patches against neuraloperator's: the stored places of all windows, and live where it is installed."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mg_tfno_cases import CASES, REFUSED, cells, numbered, ours, places
from mg_tfno_peers import their_error, their_stitched, theirs

from pdebook.operators.mg_tfno import patches, stitch


@cache
def stored() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "references" / "mg_tfno.json").read_text())


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored()["cases"]) == set(CASES)
    assert set(stored()["refused"]) == set(REFUSED)
    assert {"package", "version", "torch", "command", "date"} <= set(stored()["card"])


@pytest.mark.parametrize("name", CASES)
def test_windows_are_theirs(name: str) -> None:
    _, levels, _ = CASES[name]
    assert places(ours(name), levels) == stored()["cases"][name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_they_cannot_centre_we_refuse_with_the_reason(name: str) -> None:
    # Theirs fails in a reshape, or shifts the coarse windows by half a cell and says nothing.
    assert bool(stored()["refused"][name]) == (name == "24, 2 levels")
    with pytest.raises(ValueError, match="size must be divisible by"):
        patches(numbered(REFUSED[name][0]), REFUSED[name][1], 0)


@pytest.mark.peer
@pytest.mark.parametrize("name", CASES)
def test_live(name: str) -> None:
    pytest.importorskip("neuralop", reason="not installed here (make peers)")
    assert torch.equal(ours(name), theirs(name))
    if cells(name):  # without padding theirs crops everything
        _, levels, _ = CASES[name]
        windows = torch.randn(len(theirs(name)), 3, *theirs(name).shape[2:])
        assert torch.equal(stitch(windows, levels, cells(name)), their_stitched(name, windows))


@pytest.mark.peer
@pytest.mark.parametrize("name", REFUSED)
def test_live_errors(name: str) -> None:
    pytest.importorskip("neuralop", reason="not installed here (make peers)")
    assert their_error(name) == stored()["refused"][name]

"""Multi-grid patches against neuraloperator's: the stored places of all windows, and live where it is installed."""

import pytest
import torch
from comparison import stored
from mg_tfno_cases import CASES, REFUSED, cells, numbered, ours, places
from mg_tfno_peers import their_error, their_stitched, theirs

from pdebook.operators.mg_tfno import patches, stitch


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored("mg_tfno")["cases"]) == set(CASES)
    assert set(stored("mg_tfno")["refused"]) == set(REFUSED)
    assert {"package", "version", "torch", "command", "date"} <= set(stored("mg_tfno")["card"])


@pytest.mark.parametrize("name", CASES)
def test_windows_are_theirs(name: str) -> None:
    _, levels, _ = CASES[name]
    assert places(ours(name), levels) == stored("mg_tfno")["cases"][name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_they_cannot_centre_we_refuse_with_the_reason(name: str) -> None:
    # Theirs fails in a reshape, or shifts the coarse windows by half a cell and says nothing.
    assert bool(stored("mg_tfno")["refused"][name]) == (name == "24, 2 levels")
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
    assert their_error(name) == stored("mg_tfno")["refused"][name]

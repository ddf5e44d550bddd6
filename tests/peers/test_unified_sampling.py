"""USF against the official code: stored results of theirs, in float64, among them released schedules."""

import os
from pathlib import Path

import pytest
import torch
from comparison import difference, stored
from unified_sampling_cases import RELEASED, decisions, ours, read

from pdebook.diffusion.unified_sampling import from_official


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored("unified_sampling")["cases"]) == {*decisions(), *RELEASED}
    assert {"repository", "commit", "file", "torch", "date", "command"} <= set(stored("unified_sampling")["card"])


@pytest.mark.parametrize("name", decisions())
def test_official(name: str) -> None:
    # Rounding in float64: their φ by recursion, their σ² by subtraction (1e-4 at the last time).
    assert difference(ours(read(decisions()[name])), stored("unified_sampling")["cases"][name]["result"]) < 1e-11


@pytest.mark.peer
@pytest.mark.parametrize("name", RELEASED)
def test_released_schedules(name: str) -> None:
    """Files of the authors, which have no licence and so are not stored here: USF_REPOSITORY names a clone."""
    if "USF_REPOSITORY" not in os.environ:
        pytest.skip("USF_REPOSITORY names no clone of the official repository")
    schedule = from_official(Path(os.environ["USF_REPOSITORY"]) / RELEASED[name], drop_skips=True)
    assert schedule.evaluations == int(name.split("nfe")[1])
    # σ² is 1e-7 at their last times, of which their subtraction loses nine digits.
    assert difference(ours(schedule), stored("unified_sampling")["cases"][name]["result"]) < 1e-9


@pytest.mark.peer
def test_official_live() -> None:
    """The official code runs, and says what is stored."""
    if "USF_REPOSITORY" not in os.environ:
        pytest.skip("USF_REPOSITORY names no clone of the official repository")
    from unified_sampling_official import official

    live = official(Path(os.environ["USF_REPOSITORY"]))["cases"]
    off = {
        name: difference(torch.tensor(live[name]["result"], dtype=torch.float64), case["result"])
        for name, case in stored("unified_sampling")["cases"].items()
    }
    assert {name: value for name, value in off.items() if not value < 1e-11} == {}

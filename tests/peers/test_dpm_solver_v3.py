"""DPM-Solver-v3 against the official code, on the same statistics and inputs: stored results of theirs, and live from a clone."""

import os
from pathlib import Path

import pytest
import torch
from comparison import difference, stored
from dpm_solver_v3_cases import CASES, END, Case, arrays, ours, write

from pdebook.diffusion.dpm_solver_v3 import Statistics
from pdebook.diffusion.schedules import VPLinear

# Rounding in float64; the widest of the cases differs by 1e-14 of the largest value.
DOUBLE = 1e-12


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    """Read from the files that the official code reads."""
    folder = tmp_path_factory.mktemp("statistics")
    write(folder)
    return Statistics.load_npz(folder, VPLinear(), end=END)


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored("dpm_solver_v3")["cases"]) == set(CASES)
    assert {"repository", "commit", "file", "torch", "python", "date", "command"} <= set(
        stored("dpm_solver_v3")["card"]
    )


def test_the_arrays_are_read_as_they_are(statistics: Statistics) -> None:
    for name, array in arrays().items():
        assert torch.equal(getattr(statistics, name), torch.from_numpy(array))


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_official(case: Case, statistics: Statistics) -> None:
    assert difference(ours(case, statistics), stored("dpm_solver_v3")["cases"][case.name]["result"]) < DOUBLE


@pytest.mark.peer
def test_official_live(statistics: Statistics) -> None:
    folder = os.environ.get("DPM_SOLVER_V3")
    if folder is None:
        pytest.skip("set DPM_SOLVER_V3 to a clone of the official repository")
    from dpm_solver_v3_official import official

    results = official(Path(folder))["cases"]
    off = {name: difference(ours(case, statistics), results[name]["result"]) for name, case in CASES.items()}
    assert {name: value for name, value in off.items() if not value < DOUBLE} == {}

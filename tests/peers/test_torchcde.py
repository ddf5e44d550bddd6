"""Controls against torchcde and log-signatures against esig: stored results of theirs, and live where they are installed."""

import pytest
import torch
from comparison import difference, stored
from paths_peers import CASES, ours, theirs

# Rounding: values and slopes of a handful of sums and products, and a system of four equations; in float32 the same.
DOUBLE, SINGLE = 1e-14, 2e-6


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored("torchcde")["cases"]) == set(CASES)
    assert {"package", "version", "esig", "torch", "command", "date"} <= set(stored("torchcde")["card"])


@pytest.mark.parametrize("case", CASES)
def test_stored_results(case: str) -> None:
    reference = {
        part: torch.tensor(value, dtype=torch.float64) for part, value in stored("torchcde")["cases"][case].items()
    }
    for dtype, bound in ((torch.float64, DOUBLE), (torch.float32, SINGLE)):
        result = ours(case, dtype)
        assert set(result) == set(reference)
        for part, value in result.items():
            assert value.shape == reference[part].shape
            assert difference(value, reference[part]) < bound


@pytest.mark.peer
@pytest.mark.parametrize("case", CASES)
def test_live(case: str) -> None:
    pytest.importorskip("esig" if case == "log-signature" else "torchcde", reason="not installed here (make peers)")
    for part, value in theirs(case).items():
        assert difference(ours(case)[part], value) < DOUBLE

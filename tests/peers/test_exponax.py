"""Spectral steppers against exponax: stored results of its, and live where it is installed."""

import pytest
import torch
from comparison import difference, stored
from exponax_cases import CASES, ours
from exponax_peers import theirs

# The same method on the same modes: rounding; Gray-Scott's linear part is split differently there.
DOUBLE = dict.fromkeys(CASES, 1e-11) | {"gray-scott": 1e-7}
SINGLE = 1e-5


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored("exponax")["cases"]) == set(CASES)
    assert {"package", "version", "torch", "command", "date"} <= set(stored("exponax")["card"])


@pytest.mark.parametrize("name", CASES)
def test_stored_results(name: str) -> None:
    reference = torch.tensor(stored("exponax")["cases"][name], dtype=torch.float64)
    for dtype, bound in ((torch.float64, DOUBLE[name]), (torch.float32, SINGLE)):
        result = ours(CASES[name], dtype)
        assert result.shape == reference.shape
        assert difference(result, reference) < bound


@pytest.mark.peer
@pytest.mark.parametrize("name", CASES)
def test_live(name: str) -> None:
    pytest.importorskip("exponax", reason="not installed here (make peers)")
    assert difference(ours(CASES[name]), theirs(CASES[name])) < DOUBLE[name]

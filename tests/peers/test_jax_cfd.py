"""Staggered flow against jax-cfd: stored results of its, and live where it is installed."""

import pytest
import torch
from comparison import difference, stored
from jax_cfd_cases import CASES, ours
from jax_cfd_peers import theirs

# The same scheme on the same faces: rounding.
DOUBLE = dict.fromkeys(CASES, 1e-11)
SINGLE = 1e-5


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored("jax_cfd")["cases"]) == set(CASES)
    assert {"package", "version", "torch", "command", "date"} <= set(stored("jax_cfd")["card"])


@pytest.mark.parametrize("name", CASES)
def test_stored_results(name: str) -> None:
    reference = torch.tensor(stored("jax_cfd")["cases"][name], dtype=torch.float64)
    for dtype, bound in ((torch.float64, DOUBLE[name]), (torch.float32, SINGLE)):
        result = ours(CASES[name], dtype)
        assert result.shape == reference.shape
        assert difference(result, reference) < bound


@pytest.mark.peer
@pytest.mark.parametrize("name", CASES)
def test_live(name: str) -> None:
    pytest.importorskip("jax_cfd", reason="not installed here (make peers)")
    assert difference(ours(CASES[name]), theirs(CASES[name])) < DOUBLE[name]

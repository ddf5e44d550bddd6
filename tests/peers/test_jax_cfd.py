"""Staggered flow against jax-cfd: stored results of its, and live where it is installed."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from jax_cfd_cases import CASES, difference, ours
from jax_cfd_peers import theirs

# The same scheme on the same faces: rounding.
DOUBLE = dict.fromkeys(CASES, 1e-11)
SINGLE = 1e-5


@cache
def stored() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "references" / "jax_cfd.json").read_text())


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored()["cases"]) == set(CASES)
    assert {"package", "version", "torch", "command", "date"} <= set(stored()["card"])


@pytest.mark.parametrize("name", CASES)
def test_stored_results(name: str) -> None:
    reference = torch.tensor(stored()["cases"][name], dtype=torch.float64)
    for dtype, bound in ((torch.float64, DOUBLE[name]), (torch.float32, SINGLE)):
        result = ours(CASES[name], dtype)
        assert result.shape == reference.shape
        assert difference(result, reference) < bound


@pytest.mark.peer
@pytest.mark.parametrize("name", CASES)
def test_live(name: str) -> None:
    pytest.importorskip("jax_cfd", reason="not installed here (make peers)")
    assert difference(ours(CASES[name]), theirs(CASES[name])) < DOUBLE[name]

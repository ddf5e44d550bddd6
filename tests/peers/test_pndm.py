"""PNDM against its official code and against diffusers: stored results of theirs, and live where diffusers is installed."""

import pytest
from comparison import difference, stored
from pndm_cases import DIFFUSERS, official_names, ours_diffusers, ours_official

# Rounding of float32 states; noise predictions are combined with weights of up to 2.5.
SINGLE = 2e-6
# Rounding of float64. FON's slopes are differences over one of a thousand levels on their side: three digits less.
DOUBLE = {"DDIM": 1e-13, "S-PNDM": 1e-13, "F-PNDM": 1e-13, "FON": 1e-11}


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored("pndm")["cases"]) == set(official_names())
    assert {"repository", "commit", "file", "torch", "python", "date", "command"} <= set(stored("pndm")["card"])
    assert set(stored("pndm_diffusers")["cases"]) == set(DIFFUSERS)
    assert {"package", "version", "date", "command"} <= set(stored("pndm_diffusers")["card"])


@pytest.mark.parametrize("name", official_names())
def test_official(name: str) -> None:
    reference = stored("pndm")["cases"][name]
    result, evaluations = ours_official(name)
    assert evaluations == reference["evaluations"]
    assert difference(result, reference["result"]) < DOUBLE[name.split()[0]]


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers(name: str) -> None:
    assert difference(ours_diffusers(DIFFUSERS[name]), stored("pndm_diffusers")["cases"][name]["result"]) < SINGLE


@pytest.mark.peer
def test_diffusers_live() -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed here (make peers)")
    from pndm_official import run_diffusers

    off = {name: difference(ours_diffusers(case), run_diffusers(case)) for name, case in DIFFUSERS.items()}
    assert {name: value for name, value in off.items() if not value < SINGLE} == {}

"""DEIS against its official code and against diffusers: stored results of theirs, and live where diffusers is installed."""

import pytest
from comparison import difference, stored
from deis_cases import DIFFUSERS, OFFICIAL, ours_diffusers, ours_official

# Rounding of float32 states, and of their coefficients: differences of products of logarithms, formed in float32.
SINGLE = 5e-5
# Rounding of float64.
DOUBLE = 1e-12
# Coefficients of the official code are sums of 10,000 points from the left ends: off by one part in a few thousand at most.
RIEMANN = 5e-4


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored("deis")["cases"]) == set(OFFICIAL)
    assert {"repository", "commit", "file", "torch", "python", "date", "command"} <= set(stored("deis")["card"])
    assert set(stored("deis_diffusers")["cases"]) == set(DIFFUSERS)
    assert {"package", "version", "date", "command"} <= set(stored("deis_diffusers")["card"])


@pytest.mark.parametrize("name", OFFICIAL)
def test_official(name: str) -> None:
    case = OFFICIAL[name]
    off = difference(ours_official(case), stored("deis")["cases"][name]["result"])
    if case.quadrature == "released" and case.method in ("t_ab", "rho_ab"):
        assert off < RIEMANN
    else:
        assert off < DOUBLE


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers(name: str) -> None:
    reference = stored("deis_diffusers")["cases"][name]
    off = difference(ours_diffusers(DIFFUSERS[name], reference["sigmas"]), reference["result"])
    assert off < (DOUBLE if DIFFUSERS[name].double else SINGLE)


@pytest.mark.peer
def test_diffusers_live() -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed here (make peers)")
    from deis_official import run_diffusers

    for name, case in DIFFUSERS.items():
        sigmas, result = run_diffusers(case)
        assert difference(ours_diffusers(case, sigmas), result) < (DOUBLE if case.double else SINGLE), name

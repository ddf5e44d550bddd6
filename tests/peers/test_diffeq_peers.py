"""Solvers against torchdiffeq, torchode, torchsde and diffrax: stored results of theirs, and live where they are installed."""

import pytest
import torch
from comparison import stored
from diffeq_cases import CASES, Case, ours
from diffeq_peers import THEIRS, difference

ALL = [(peer, case) for peer, cases in CASES.items() for case in cases]
NAMES = [f"{peer}: {case.name}" for peer, case in ALL]


@pytest.mark.parametrize("peer", CASES)
def test_every_case_is_stored_and_its_origin_known(peer: str) -> None:
    names = [case.name for case in CASES[peer]]
    assert list(stored(peer)["cases"]) == names
    assert len(set(names)) == len(names)
    assert {"package", "version", "torch", "command", "date"} <= set(stored(peer)["card"])


@pytest.mark.parametrize(("peer", "case"), ALL, ids=NAMES)
def test_stored_results(peer: str, case: Case) -> None:
    reference = torch.tensor(stored(peer)["cases"][case.name]["value"], dtype=torch.float64)
    assert difference(ours(case), reference) < case.bound


@pytest.mark.peer
@pytest.mark.parametrize(("peer", "case"), ALL, ids=NAMES)
def test_live(peer: str, case: Case) -> None:
    pytest.importorskip(peer, reason="not installed here (make peers)")
    assert difference(ours(case), THEIRS[peer](case)) < case.bound

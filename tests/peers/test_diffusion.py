"""Samplers against diffusers and the papers' official code: stored results of theirs, and live where they are installed.

Both sides see the same model, noise levels, start and noise. What remains is rounding: float32 states on their side and ours for
diffusers, float64 for the official code.
"""

from typing import Any

import pytest
import torch
from comparison import difference, stored
from diffusion_cases import ADAPTIVE, CASES, Case, ours, ours_adaptive, schedule
from diffusion_peers import run_diffusers

from pdebook.diffusion.schedules import VPCosine

# Rounding: ten to thirty steps in float32, each within a few units of 6e-8 of the state.
SINGLE = 1e-6
# Rounding in float64; third-order noise prediction on a quadratic grid has weights of hundreds that cancel.
DOUBLE = 1e-11
OFFICIAL = [case for peer in ("dpm-solver", "unipc") for case in CASES[peer].values()]


@pytest.mark.parametrize("peer", CASES)
def test_every_case_is_stored_and_its_origin_known(peer: str) -> None:
    assert set(stored(peer)["cases"]) == set(CASES[peer])
    card = stored(peer)["card"]
    assert {"date", "command", "torch"} <= set(card)
    assert {"package", "version"} <= set(card) or {"repository", "commit", "file"} <= set(card)


@pytest.mark.parametrize("case", CASES["diffusers"].values(), ids=lambda case: case.name)
def test_diffusers(case: Case) -> None:
    reference = stored("diffusers")["cases"][case.name]
    assert difference(ours(case, torch.float32, reference["sigmas"]), reference["result"]) < SINGLE


@pytest.mark.parametrize("case", OFFICIAL, ids=lambda case: f"{case.peer} {case.name}")
def test_official(case: Case) -> None:
    # On our own grids, which thereby agree with theirs too.
    assert difference(ours(case, torch.float64), stored(case.peer)["cases"][case.name]["result"]) < DOUBLE


@pytest.mark.parametrize("config", ADAPTIVE, ids=lambda config: f"{config['algorithm_type']} {config['order']}")
def test_official_adaptive(config: dict[str, Any]) -> None:
    reference = stored("dpm-solver")["adaptive"][f"{config['algorithm_type']} {config['order']}"]
    x, evaluations = ours_adaptive(config, torch.float64)
    assert evaluations == reference["evaluations"]
    # They round the factor of each new step to float32 (6e-8), which moves the accepted times; the effect is of higher order.
    assert difference(x, reference["result"]) < 1e-7


@pytest.mark.parametrize(
    ("peer", "name"),
    [(peer, name) for peer in ("dpm-solver", "unipc") for name in ("vp-linear", "ddpm")] + [("unipc", "vp-cosine")],
)
def test_official_schedules(peer: str, name: str) -> None:
    values = stored(peer)["schedules"][name]
    noise_schedule = VPCosine() if name == "vp-cosine" else schedule(name)
    times, half_log_snr = (torch.tensor(values[key], dtype=torch.float64) for key in ("times", "half_log_snr"))
    # Theirs takes 1 - α² by subtraction: one unit of float64 over σ², which is 1e-4 at the last time.
    assert difference(noise_schedule.log_alpha(times), values["log_alpha"]) < 1e-12
    assert difference(noise_schedule.half_log_snr(times), values["half_log_snr"]) < 1e-12
    assert difference(noise_schedule.time(half_log_snr), values["inverse"]) < 1e-12


@pytest.mark.peer
def test_diffusers_live() -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed here (make peers)")
    off = {}
    for case in CASES["diffusers"].values():
        sigmas, result = run_diffusers(case)
        off[case.name] = difference(ours(case, torch.float32, sigmas), result)
    assert {name: value for name, value in off.items() if not value < SINGLE} == {}

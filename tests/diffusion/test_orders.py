"""Every sampler converges with the order that theory gives it, no less and no more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion.orders import ROWS, Row
from pdebook.diffusion import baselines, dpm_solver, multistep, unipc


@pytest.fixture(scope="module")
def observed() -> dict[str, float]:
    """Orders of all rows, from a process of its own: the run-time check of shapes costs ten times what the steps do."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "diffusion.orders", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_order(row: Row, observed: dict[str, float]) -> None:
    # Below: the usual approach to an integer slope. Above: a method that is better than its name is mislabelled.
    assert row.order - 0.15 <= observed[row.name] <= row.order + 0.6


def test_the_table_misses_no_method() -> None:
    used = {row.sampler for row in ROWS}
    assert used >= {
        baselines.ddim, baselines.runge_kutta, dpm_solver.singlestep, multistep.multistep, multistep.sde_multistep, unipc.unipc
    }  # fmt: skip
    assert {row.options["method"] for row in ROWS if "method" in row.options} == set(baselines.RUNGE_KUTTA)

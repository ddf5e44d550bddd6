"""Runs the official DPM-Solver-v3 on the cases of ``dpm_solver_v3_cases``; imported only where a clone is at hand."""

import contextlib
import io
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusion_cases import initial, mixture
from dpm_solver_v3_cases import CASES, END, Case, write
from torch import Tensor

REPOSITORY = "https://github.com/thu-ml/DPM-Solver-v3"
FILE = "codebases/stable-diffusion/ldm/models/diffusion/dpm_solver_v3/dpm_solver_v3.py"
"""Of the four copies in the repository the one that has the half corrector."""


def official(folder: Path) -> dict[str, Any]:
    """Results of the official code in a clone of its repository."""
    module, default = _load(folder / FILE), torch.get_default_dtype()
    mixture(torch.float64)  # made before the default changes: some of its numbers are rounded to float32 on the way
    try:
        torch.set_default_dtype(torch.float64)
        with tempfile.TemporaryDirectory() as statistics:
            write(Path(statistics))
            return {"cases": {name: _run(module, case, statistics) for name, case in CASES.items()}}
    finally:
        torch.set_default_dtype(default)


def _load(path: Path) -> ModuleType:
    """The code with its arrays on the CPU and its times in float64: it asks for CUDA and float32 by name."""
    text = path.read_text().replace(".cuda()", "").replace("torch.FloatTensor(", "torch.DoubleTensor(")
    module = ModuleType("official_dpm_solver_v3")
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module


def _run(module: Any, case: Case, statistics: str) -> dict[str, Any]:
    schedule = module.NoiseScheduleVP("linear", continuous_beta_0=0.1, continuous_beta_1=20.0)
    calls: list[float] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        alpha, sigma = (float(part(t[:1])) for part in (schedule.marginal_alpha, schedule.marginal_std))
        return mixture(torch.float64).noise(x.flatten(1), alpha, sigma).reshape(x.shape)

    with contextlib.redirect_stdout(io.StringIO()):
        solver = module.DPM_Solver_v3(
            statistics, schedule, case.steps, t_start=1.0, t_end=END, skip_type=case.skip_type, device="cpu"
        )
    x = initial(torch.float64)
    result = solver.sample(
        x.reshape(len(x), 1, 1, -1),
        model,
        order=case.order,
        p_pseudo=case.p_pseudo,
        use_corrector=case.use_corrector,
        c_pseudo=case.c_pseudo,
        lower_order_final=case.lower_order_final,
        half=case.half,
    )
    return {"result": result.flatten(1).tolist(), "times": calls}

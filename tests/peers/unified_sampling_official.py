"""Runs the official sampler of USF on the same cases, from a clone of its repository; nothing of it is stored but results."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from unified_sampling_cases import MEAN, RELEASED, SCHEDULE, decisions, initial, mixture

REPOSITORY = "https://github.com/thu-nics/USF"
FILE = "uni_sampler.py"


def official(folder: Path) -> dict[str, Any]:
    """Results of the official code in float64, by case.

    Its constructor wants DPM-Solver-v3's statistics and a CUDA device; no case needs them, so they are stubs here.

    Args:
        folder: clone of the repository.
    """
    spec = importlib.util.spec_from_file_location("usf_official", folder / FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["usf_official"] = module
    spec.loader.exec_module(module)

    class Stubbed(module.uni_sampler):  # type: ignore[name-defined, misc]
        def statistics_init(self, *args: Any, **kwargs: Any) -> None:
            pass

        def f_prediction_from_noise(self, x: Any, noise: Any, t: Any) -> Any:
            return noise

    mix = mixture()

    def net(x: Any, t: Any) -> Any:
        time = t.double()[:, None]
        return mix.noise(x[:, :, 0, 0], SCHEDULE.alpha(time), SCHEDULE.sigma(time))[:, :, None, None]

    def run(content: dict[str, Any]) -> list[Any]:
        content = {**content, "timesteps": content["timesteps"].double()}
        content.pop("skip_coefficients", None)
        result = sampler.sample(initial()[:, :, None, None], content)
        return [[float(value) for value in row] for row in result[:, :, 0, 0]]

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    load = torch.load
    try:
        mean = torch.tensor(MEAN, dtype=torch.float64)[None, :, None, None]
        torch.load = lambda *args, **kwargs: mean  # its constructor reads the mean of the data from a file
        schedule = module.NoiseScheduleVP("linear", dtype=torch.float64)
        sampler = Stubbed(net, schedule)
        torch.load = load
        cases = {name: {"result": run(content)} for name, content in decisions().items()}
        for name, path in RELEASED.items():
            cases[name] = {"result": run(torch.load(folder / path, weights_only=True, map_location="cpu"))}
    finally:
        torch.load = load
        torch.set_default_dtype(before)
    return {"cases": cases}

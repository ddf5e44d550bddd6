"""The page that helps to choose a solver: its code runs, and the names in its tables exist."""

import re
from pathlib import Path
from typing import Any

from pdebook.diffeq import adjoints, backsolve, brownian, compat, controllers, events, reversible, terms
from pdebook.diffeq.methods import SOLVERS

PAGE = (Path(__file__).parents[2] / "book" / "choose_a_solver.md").read_text("utf-8")


def test_its_code_runs() -> None:
    namespace: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, namespace)  # the page's own code
    assert namespace["solution"].ys.shape == (256, 50, 2)


def test_it_names_every_method_and_nothing_that_is_not_there() -> None:
    named = set(re.findall(r"`([a-z]+[a-z0-9-]*)`", PAGE))
    missing = set(SOLVERS) - named - {"euler", "midpoint", "heun", "ralston", "rk4", "implicit-euler"}
    assert not missing
    modules = (adjoints, backsolve, brownian, compat, controllers, events, reversible, terms)
    for column in re.findall(r"^\| .* \| (.*) \|$", PAGE, re.MULTILINE):
        for name in re.findall(r"`([A-Z][A-Za-z]+)\b", column):
            assert any(hasattr(module, name) for module in modules), name

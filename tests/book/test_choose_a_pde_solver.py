"""The page that helps to choose a PDE solver: its code runs, and the names in its tables exist."""

import re
from pathlib import Path
from typing import Any

import pytest

from pdebook.pde import (
    darcy,
    elliptic,
    equation,
    equations,
    fields,
    file_writer,
    files,
    finite_volume,
    fluxes,
    forces,
    grid,
    interpolation,
    mac,
    marching,
    navier_stokes,
    reconstruction,
    riemann,
    semilinear,
    sorption,
)

PAGE = (Path(__file__).parents[2] / "book" / "choose_a_pde_solver.md").read_text("utf-8")
MODULES = (
    *(darcy, elliptic, equation, equations, fields, file_writer, files, finite_volume, fluxes, forces, grid),
    *(interpolation, mac, marching, navier_stokes, reconstruction, semilinear, sorption),
)


def test_its_code_runs_and_is_right() -> None:
    namespace: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, namespace)  # the page's own code
    assert namespace["vorticity"].shape == (16, 5, 1, 64, 64)
    x = namespace["tube"].coordinates()[0]
    left, right = (namespace[side].flatten() for side in ("left", "right"))
    exact = riemann.euler(left.double(), right.double(), (x - 0.5) / 0.2, 1.4)[0, 0]
    error = (namespace["density"][0].double() - exact).abs().mean()
    assert float(error) < 0.005


def test_names_in_its_tables_exist() -> None:
    here = re.findall(r"^\| .* \| (.*) \|$", PAGE, re.MULTILINE) + re.findall(
        r"^\| [^|]+ \| (.*) \| .* \|$", PAGE, re.MULTILINE
    )
    names = {name for column in here for name in re.findall(r"`([A-Z][A-Za-z0-9]+)\b", column)}
    assert {"Stepper", "FiniteVolume", "MAC", "Vorticity"} <= names
    for name in names - {"METHODS"}:
        assert any(hasattr(module, name) for module in MODULES), name
    methods = set(re.findall(r'`(?:method=)?"([a-z0-9-]+)"`', PAGE))
    assert methods <= set(semilinear.METHODS), methods


@pytest.mark.parametrize(
    "name", ["poisson", "darcy", "diffuse", "Sorption", "restrict", "gaussian_field", "generate", "write_file"]
)
def test_functions_that_it_names_exist(name: str) -> None:
    assert f"`{name}" in PAGE
    assert any(hasattr(module, name) for module in MODULES)

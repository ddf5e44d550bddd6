"""A book of two papers in a temporary folder, for the tests of the tooling."""

from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PAPERS = """
[book]
title = "A tiny book"
repository = "https://github.com/OWNER/pdebook" # a placeholder: `pdebook repository URL` sets the book's home

[[part]]
slug = "toys"
number = 1
title = "Toys"

[[paper]]
slug = "demo"
part = "toys"
state = "ready"
title = "A Demo of Demos"
authors = ["Ada One", "Bo Two", "Cy Three"]
year = 2020
venue = "DEMO 2020"
arxiv = "2001.00001"
doi = "10.1/22"
code = "https://example.org/code"
claim = "Demos work."
learn = ["Run a demo"]
prerequisites = ["Patience"]
requires = ["later"]

[[paper]]
slug = "later"
part = "toys"
state = "planned"
title = "Later"
authors = ["Dee Four"]
year = 2021
venue = "arXiv preprint"
doi = "10.1/33"
claim = "Not yet."
"""

BIBLIOGRAPHY = r"""
@inproceedings{one2020, author = {One, Ada and M{\"u}ller, Bo}, title = {A {Demo} of {ODE} Demos_2},
  booktitle = {DEMO}, year = {2020}, pages = {1--9}, eprint = {2001.00001}}
@article{four2021, author = {Four, Dee}, title = {Later}, journal = {J. Later}, volume = {3}, number = {2},
  year = {2021}, doi = {10.1/33}, url = {https://example.org/later}}
"""

EXERCISE = {"grade": False, "solution": True, "locked": False, "grade_id": "square", "schema_version": 3, "task": False}
CHECKS = {**EXERCISE, "grade": True, "solution": False, "locked": True, "grade_id": "square-checks", "points": 2}
SOLUTION = """def square(x):
    \"\"\"x times x.\"\"\"
    ### BEGIN SOLUTION
    return x * x
    ### END SOLUTION"""
TESTS = """assert square(2) == 4
### BEGIN HIDDEN TESTS
assert square(-3) == 9
### END HIDDEN TESTS"""


def exercise_cells() -> list[Any]:
    """One exercise: a solution cell and a cell of checks."""
    return [
        new_markdown_cell("## Exercise\n\nBack to the [part](../../book/chapters.md#toys).", id="exercise"),
        new_code_cell(SOLUTION, id="square", metadata={"nbgrader": dict(EXERCISE)}),
        new_code_cell(TESTS, id="checks", metadata={"nbgrader": dict(CHECKS)}),
    ]


def make_book(root: Path, cells: list[Any]) -> Path:
    """Write the book, with ``cells`` as the chapter ``demo``; returns the notebook's path."""
    for folder in ("book/results", "chapters/toys", "pdebook"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "pdebook/papers.toml").write_text(PAPERS)
    (root / "book/references.bib").write_text(BIBLIOGRAPHY)
    (root / "pyproject.toml").write_text('[project]\nname = "pdebook"\nversion = "0.1.0"\n')
    path = root / "chapters/toys/demo.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path

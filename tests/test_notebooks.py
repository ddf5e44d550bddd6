"""Notebooks as files: the cells that the library writes, the stored form, and what must not be stored."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tiny_book import CHECKS, EXERCISE, PAPERS, SOLUTION, TESTS, exercise_cells, make_book

from pdebook import catalogue, notebooks, records
from pdebook.notebooks import NotebookError
from pdebook.records import Record

HOME = catalogue.Home("https://github.com/me/book", "1.2.3")
MODEL_A, MODEL_B = "a" * 32, "b" * 32


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_book(tmp_path, [])
    monkeypatch.setenv("PDEBOOK_HOME", str(tmp_path))
    return tmp_path


def record(profile: str, device: str, seconds: float, processor: str) -> Record:
    return Record("demo", profile, 0, (), device, seconds, 1.0, (), "", processor)


def executed(*cells: NotebookNode) -> NotebookNode:
    """A notebook as it comes out of a kernel."""
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), 5):
        cell.execution_count = count
        cell.metadata["execution"] = {"iopub.execute_input": "2020-01-01T00:00:00Z"}
    return new_notebook(
        cells=list(cells), metadata={"vscode": 1, "language_info": {"name": "python", "version": "3.11"}}
    )


# -------------------- card and set-up


def test_card_says_what_the_catalogue_knows() -> None:
    assert notebooks.card("demo").split("\n\n") == [
        "# A Demo of Demos",
        "**Paper.** [One et al. 2020](https://arxiv.org/abs/2001.00001) · DEMO 2020 · [DOI](https://doi.org/10.1/22) · "
        "[official code](https://example.org/code)",
        "**Authors.** Ada One, Bo Two, Cy Three",
        "**Claim.** Demos work.",
        "**What you will learn**",
        "- Run a demo",
        "**What you need**",
        "- Patience\n- Chapter [Later](../../book/chapters.md) (planned)",
        "**Time.** Quick profile: not recorded on a CPU yet. Full profile: not recorded on a GPU yet.",
    ]


def test_card_shows_a_page_once() -> None:
    assert "**Paper.** [Four 2021](https://doi.org/10.1/33) · arXiv preprint\n" in notebooks.card("later")


def test_card_links_ready_chapters_and_colab(book: Path) -> None:
    ready = PAPERS.replace('state = "planned"', 'state = "ready"\nlearn = ["x"]')
    (book / "pdebook/papers.toml").write_text(ready)
    blocks = notebooks.card("demo", home=HOME).split("\n\n")
    assert "- Chapter [Later](../toys/later.ipynb)" in blocks[7]
    page = "https://colab.research.google.com/github/me/book/blob/v1.2.3/chapters/toys/demo.ipynb"
    assert blocks[-1] == f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({page})"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.0, "10 seconds"), (40.1, "50 seconds"), (60.0, "60 seconds"), (60.1, "2 minutes"), (300.0, "5 minutes")],
)
def test_card_tells_the_recorded_times(seconds: float, words: str) -> None:
    full = record("full", "cuda", seconds, "A GPU")
    records.replace_files({records.record_path("demo", "full"): full.to_json()})
    text = notebooks.card("demo", quick=record("quick", "cpu", seconds, "A CPU"))
    assert f"Quick profile: about {words} on one CPU core. Full profile: about {words} on a GPU (A GPU)." in text
    records.replace_files({records.record_path("demo", "full"): replace(full, device="cpu").to_json()})
    assert "Full profile: not recorded on a GPU yet" in notebooks.card("demo")


def run_setup(text: str, monkeypatch: pytest.MonkeyPatch, installed: bool) -> tuple[dict[str, Any], list[list[str]]]:
    """Execute a set-up cell where pdebook is (not) installed; returns its names and the commands that it ran."""
    commands: list[list[str]] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    names: dict[str, Any] = {}
    exec(compile(text, "setup", "exec"), names)
    return names, commands


def test_setup_installs_only_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = notebooks.setup_cell("demo", HOME)
    names, commands = run_setup(text, monkeypatch, installed=True)
    assert (names["ch"].slug, commands) == ("demo", [])
    _, commands = run_setup(text, monkeypatch, installed=False)
    assert [command[1:] for command in commands] == [
        ["-m", "pip", "install", "--quiet", "git+https://github.com/me/book@v1.2.3"]
    ]


def test_setup_without_a_home_refuses_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    text = notebooks.setup_cell("demo")
    assert run_setup(text, monkeypatch, installed=True)[0]["ch"].slug == "demo"
    with pytest.raises(RuntimeError, match="does not know its home on the web yet"):
        run_setup(text, monkeypatch, installed=False)


def test_setup_is_one_text_for_all_chapters() -> None:
    assert notebooks.setup_cell("demo", HOME).replace('"demo"', '"later"') == notebooks.setup_cell("later", HOME)


def test_refresh_writes_its_cells_and_no_others() -> None:
    own = new_code_cell("x = 1", id="own")
    notebook = notebooks.refresh(new_notebook(cells=[own]), "demo")
    assert [cell.id for cell in notebook.cells] == ["card", "setup", "own"]
    notebook.cells[0].source = "# Old"
    notebook.cells[1].source = "old = 1"
    notebooks.refresh(notebook, "demo", home=HOME)
    assert [cell.source for cell in notebook.cells] == [
        notebooks.card("demo", home=HOME),
        notebooks.setup_cell("demo", HOME),
        "x = 1",
    ]
    notebook.cells.append(new_code_cell("", metadata={"tags": ["setup"]}))
    with pytest.raises(NotebookError, match="2 cells have the tag 'setup'"):
        notebooks.refresh(notebook, "demo")
    swapped = new_notebook(cells=[new_code_cell("x", metadata={"tags": ["card"]})])
    with pytest.raises(NotebookError, match="tag 'card' is a code cell"):
        notebooks.refresh(swapped, "demo")


def test_refresh_moves_the_links_of_shown_sources_there_and_back() -> None:
    def shown(text: str) -> NotebookNode:
        return new_code_cell("ch.source(f)", outputs=[new_output("display_data", {"text/markdown": text})])

    plain = "`pdebook.catalogue.paper`\n\n```python\ndef f(): ...\n```"
    prose = "`pdebook.catalogue.paper` is prose"
    notebook = new_notebook(cells=[shown(plain), shown(prose)])
    notebooks.refresh(notebook, "demo", home=HOME)
    texts = [cell.outputs[0].data["text/markdown"] for cell in notebook.cells[2:]]
    link = "https://github.com/me/book/blob/v1.2.3/pdebook/catalogue.py"
    assert texts == [plain.replace("`pdebook.catalogue.paper`", f"[`pdebook.catalogue.paper`]({link})"), prose]
    notebooks.refresh(notebook, "demo")
    assert notebook.cells[2].outputs[0].data["text/markdown"] == plain


# -------------------- the stored form


def test_normalised_notebook_says_nothing_about_when_it_ran() -> None:
    result = new_output("execute_result", {"text/plain": "2"}, execution_count=6)
    picture = new_output(
        "display_data", {"image/png": "AAAA", "text/plain": "<Figure>"}, metadata={"needs_background": "light"}
    )
    notebook = notebooks.normalise(
        executed(
            new_markdown_cell("# Title", id="title"),
            new_code_cell("", id="empty"),
            new_code_cell("1 + 1", id="sum", outputs=[result], metadata={"scrolled": True, "tags": []}),
            new_code_cell("plot()", id="plot", outputs=[picture], metadata={"tags": ["b"], "mystnb": {"image": 1}}),
        )
    )
    assert [cell.id for cell in notebook.cells] == ["title", "sum", "plot"]
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert notebook.cells[1].outputs[0].execution_count == 1
    assert notebook.cells[2].outputs[0].data["image/png"] == "AAAA"
    assert notebook.cells[2].outputs[0].metadata == {}
    assert [dict(cell.metadata) for cell in notebook.cells] == [{}, {}, {"tags": ["b"], "mystnb": {"image": 1}}]
    assert set(notebook.metadata) == {"accelerator", "colab", "kernelspec", "language_info"}
    assert (notebook.metadata.accelerator, notebook.metadata.kernelspec.name) == ("GPU", "python3")
    assert "version" not in notebook.metadata.language_info
    nbformat.validate(notebook)
    assert notebooks.dumps(notebooks.normalise(notebook)) == notebooks.dumps(notebook)


def with_widget(first: str, second: str) -> NotebookNode:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": second, "version_major": 2, "version_minor": 0}}
    notebook = executed(new_code_cell("show()", id="show", outputs=[new_output("display_data", view)]))
    box = {"model_name": "VBoxModel", "state": {"children": [f"IPY_MODEL_{first}"]}}
    state = {first: {"model_name": "IntSliderModel", "state": {}}, second: box}
    notebook.metadata["widgets"] = {notebooks.WIDGETS: {"state": state, "version_major": 2, "version_minor": 0}}
    return notebook


def test_widget_models_are_named_in_order_wherever_they_occur() -> None:
    one = notebooks.normalise(with_widget(MODEL_A, MODEL_B))
    assert notebooks.dumps(one) == notebooks.dumps(notebooks.normalise(with_widget(MODEL_B, MODEL_A)))
    state = one.metadata.widgets[notebooks.WIDGETS]["state"]
    assert list(state) == [f"{0:032x}", f"{1:032x}"]
    assert state[f"{1:032x}"]["state"]["children"] == [f"IPY_MODEL_{0:032x}"]
    assert one.cells[0].outputs[0].data["application/vnd.jupyter.widget-view+json"]["model_id"] == f"{1:032x}"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (new_output("stream", name="stderr", text="careful"), "wrote on stderr, which differs .*: careful"),
        (new_output("error", ename="KeyError", evalue="'x'", traceback=[]), "ended in KeyError"),
        (
            new_output("stream", name="stdout", text="<f at 0x7f12abcdef>"),
            "no two runs print the same 'at 0x7f12abcdef'",
        ),
        (new_output("execute_result", {"text/plain": "/t/ipykernel_12/3.py"}), "ipykernel_12"),
    ],
)
def test_what_another_run_cannot_reproduce_is_refused(output: NotebookNode, words: str) -> None:
    with pytest.raises(NotebookError, match=rf"code cell 1 \(go\(\)\).*{words}"):
        notebooks.normalise(executed(new_code_cell("go()", outputs=[output])))


def test_a_cell_that_nbval_skips_may_print_what_it_likes() -> None:
    output = new_output("stream", name="stdout", text="<f at 0x7f12abcdef>")
    cell = new_code_cell("go()", outputs=[output], metadata={"tags": ["nbval-ignore-output"]})
    kept = notebooks.normalise(executed(cell)).cells[-1].outputs
    assert [item.text for item in kept] == [output.text]


def test_a_cell_that_never_ran_and_a_notebook_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotebookError, match="code cell 1 was never run: x = 1"):
        notebooks.normalise(new_notebook(cells=[new_code_cell("x = 1")]))
    big = new_notebook(cells=[new_markdown_cell("x" * 1_000_000)])
    with pytest.raises(NotebookError, match=r"demo has 1,000,\d+ bytes, more than 1,000,000"):
        notebooks.dumps(big, "demo")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'])
def test_a_damaged_notebook_is_refused(book: Path, text: str) -> None:
    path = book / "chapters/toys/demo.ipynb"
    path.write_text(text)
    with pytest.raises(NotebookError, match=r"demo\.ipynb is not a valid notebook"):
        notebooks.read(path)
    path.unlink()
    with pytest.raises(NotebookError, match=r"there is no notebook demo\.ipynb"):
        notebooks.read(path)


def test_library_imports_see_through_magics() -> None:
    cells = [
        new_code_cell("%matplotlib inline\nfrom pdebook import Chapter, records"),
        new_code_cell("!ls\nimport torch"),
    ]
    cells += [
        new_code_cell("from pdebook.diffusion.schedules import VPLinear"),
        new_markdown_cell("import pdebook.rng"),
    ]
    assert notebooks.library_imports(new_notebook(cells=cells)) == {"pdebook.diffusion.schedules"}


# -------------------- exercises


def test_solutions_and_hidden_tests_are_folded_and_keep_their_metadata() -> None:
    notebook = notebooks.normalise(executed(*exercise_cells()))
    for cell, meta in zip(notebook.cells[1:], (EXERCISE, CHECKS), strict=True):
        assert dict(cell.metadata) == {"cellView": "form", "nbgrader": meta, "tags": ["hide-input"]}


Edit = Callable[[list[NotebookNode]], Any]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c[1].update(source=SOLUTION.replace("### END SOLUTION", "")), "'square': ### BEGIN SOLUTION .*pair"),
        (lambda c: c[1].update(source="### END SOLUTION\n### BEGIN SOLUTION"), "do not pair up"),
        (lambda c: c[2].update(source=TESTS.replace("### BEGIN HIDDEN TESTS", "")), "HIDDEN TESTS do not pair up"),
        (lambda c: c[1].metadata.pop("nbgrader"), "needs nbgrader metadata with solution: true"),
        (lambda c: c[2].metadata.nbgrader.update(grade=False), "needs nbgrader metadata with grade: true"),
        (lambda c: c[2].metadata.nbgrader.update(grade_id="square"), "this grade_id is used twice"),
        (lambda c: c[2].metadata.nbgrader.update(grade_id="a b"), "grade_id is 'a b'"),
        (lambda c: c[2].metadata.nbgrader.pop("grade_id"), "grade_id is None"),
        (lambda c: c[2].metadata.nbgrader.update(points=0), "points is 0, expected a positive number"),
        (lambda c: c[2].metadata.nbgrader.pop("points"), "points is 0"),
        (lambda c: c[2].metadata.nbgrader.update(schema_version=2), "schema_version is 2, expected 3"),
        (lambda c: c[2].metadata.nbgrader.pop("locked"), "'locked' is missing"),
    ],
)
def test_a_damaged_exercise_is_named(edit: Edit, words: str) -> None:
    cells = nbformat.from_dict(exercise_cells())
    notebooks.check_exercises(new_notebook(cells=cells))
    edit(cells)
    with pytest.raises(NotebookError, match=words):
        notebooks.check_exercises(new_notebook(cells=cells))

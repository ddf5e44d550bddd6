"""Every stored chapter has the rooms that a reader expects, and nothing that another run could not reproduce."""

import ast
import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from nbformat import NotebookNode

from pdebook import catalogue, notebooks, records, widgets

READY = [paper.slug for paper in catalogue.papers() if paper.ready]
# What nbval leaves out when it compares, and what looks different on another machine.
NOT_COMPARED = {"image/png", "text/html", "application/vnd.jupyter.widget-view+json"}
MYST = re.compile(
    r"^(?:`{3,}|:{3,})\s*\{[\w:-]+\}|\{(?:cite|ref|eq|doc|term|numref|math|prf)[\w:]*\}`|^\([\w-]+\)=\s*$|^%\s|^\+\+\+",
    re.MULTILINE,
)


@pytest.fixture(params=READY, scope="module")
def slug(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def notebook(slug: str) -> NotebookNode:
    return notebooks.read(catalogue.chapter_path(slug))


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def calls(notebook: NotebookNode, method: str) -> list[tuple[NotebookNode, ast.Call]]:
    """Calls of ``ch.<method>`` with the cells that they stand in."""
    nodes = [(cell, node) for cell in notebooks.code_cells(notebook) for node in ast.walk(ast.parse(cell.source))]
    return [
        (cell, node) for cell, node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == f"ch.{method}"
    ]


def printed(notebook: NotebookNode) -> str:
    """All text that the stored outputs hold."""
    outputs = [output for cell in notebooks.code_cells(notebook) for output in cell.outputs]
    return "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def widget_state(notebook: NotebookNode) -> dict[str, Any]:
    return notebook.metadata.get("widgets", {}).get(notebooks.WIDGETS, {}).get("state", {})


def test_stored_as_the_library_stores_it(slug: str, notebook: NotebookNode) -> None:
    """Execution counts 1..n, no errors, no stderr, no timing; the card and the set-up cell are up to date."""
    again = notebooks.refresh(notebooks.normalise(copy.deepcopy(notebook)), slug)
    assert notebooks.dumps(again) == catalogue.chapter_path(slug).read_text("utf-8")


def test_executed_top_to_bottom_without_errors(notebook: NotebookNode) -> None:
    cells = notebooks.code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not [cell for cell in cells if "execution" in cell.metadata]


def test_small_enough(slug: str) -> None:
    assert catalogue.chapter_path(slug).stat().st_size <= notebooks.MAX_BYTES


def test_card_and_setup(slug: str, notebook: NotebookNode) -> None:
    (card,), (setup,) = tagged(notebook, "card"), tagged(notebook, "setup")
    assert notebook.cells[0] is card
    assert card.source == notebooks.card(slug)
    assert notebooks.code_cells(notebook)[0] is setup
    assert setup.source == notebooks.setup_cell(slug)


def test_at_least_half_of_the_outputs_are_compared(notebook: NotebookNode) -> None:
    """A picture or a widget is not compared, so it counts only through what is printed beside it."""
    cells = [cell for cell in notebooks.code_cells(notebook) if cell.outputs]

    def compared(cell: NotebookNode) -> bool:
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            return False
        return any(output.output_type == "stream" or not NOT_COMPARED & set(output.data) for output in cell.outputs)

    assert 2 * sum(map(compared, cells)) >= len(cells)


def test_claims_are_compared_and_can_fail(notebook: NotebookNode) -> None:
    """Their lines are compared by every test run, and some show that a wrong method fails them."""
    made = calls(notebook, "claim")
    assert made
    assert not [cell for cell, _ in made if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    assert any(keyword.arg == "broken" for _, call in made for keyword in call.keywords)


def test_record_and_outputs_tell_the_same(slug: str, notebook: NotebookNode) -> None:
    record, state = records.status(slug, "quick")
    assert record is not None, f"the quick record is {state}"
    assert record.passed
    assert len(record.claims) >= 3
    assert sum(claim.broken is not None for claim in record.claims) >= 2
    text = printed(notebook)
    assert [claim.line for claim in record.claims if claim.line not in text] == []
    assert (record.device, record.seed) == ("cpu", 0)


def test_scorecard_and_references(notebook: NotebookNode) -> None:
    ((cell, _),) = calls(notebook, "scorecard")
    assert "nbval-ignore-output" in cell.metadata["tags"]
    assert len(calls(notebook, "references")) == 1


def test_three_exercises_with_solutions_and_checks(notebook: NotebookNode) -> None:
    graded = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    solutions = [cell for cell in graded if cell.metadata.nbgrader.solution]
    assert len(solutions) >= 3
    assert not [cell.id for cell in solutions if cell.cell_type == "code" and "### BEGIN SOLUTION" not in cell.source]
    checks = [cell for cell in graded if cell.metadata.nbgrader.grade and not cell.metadata.nbgrader.solution]
    assert sum("### BEGIN HIDDEN TESTS" in cell.source for cell in checks) >= 2
    for cell in graded:
        if "### BEGIN" in cell.source:
            assert "hide-input" in cell.metadata.tags
            assert cell.metadata.cellView == "form"


class Figures(HTMLParser):
    """The pictures of an HTML output, and how many captions stand beside them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.captions = 0
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        self.captions += tag == "figcaption"


def test_figures_have_caption_and_alternative_text(notebook: NotebookNode) -> None:
    shown = 0
    for cell in notebooks.code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            pictures = {kind for kind in data if kind.startswith("image/")}
            assert not pictures, f"{cell.id}: show figures with pdebook.plotting.figure, not as {pictures}"
            if "<img" in data.get("text/html", ""):
                figures = Figures(data["text/html"])
                assert figures.captions == len(figures.images), cell.id
                assert all((image.get("alt") or "").strip() for image in figures.images), cell.id
                assert all((image["src"] or "").startswith("data:image/png;base64,") for image in figures.images)
                shown += len(figures.images)
    assert shown >= 3


def test_prose_is_plain_markdown(notebook: NotebookNode) -> None:
    """Colab knows no MyST."""
    found = [
        match.group() for cell in notebook.cells if cell.cell_type == "markdown" for match in MYST.finditer(cell.source)
    ]
    assert found == []


def test_widget_moves_without_a_kernel_and_is_small(notebook: NotebookNode) -> None:
    state = widget_state(notebook)
    kinds = [model["model_name"] for model in state.values()]
    assert "StackModel" in kinds
    assert "LinkModel" in kinds
    pages = [model["state"]["value"] for model in state.values() if model["model_name"] == "HTMLModel"]
    frames = [page for page in pages if "<img" in page]
    assert 2 <= len(frames) <= widgets.MAX_FRAMES
    assert sum(map(len, frames)) <= widgets.MAX_BYTES
    for frame in frames:
        (image,) = Figures(frame).images
        assert (image["alt"] or "").strip()
        assert re.match(r"data:image/(png|webp);base64,", image["src"] or "")


def test_asks_for_a_gpu_in_colab(notebook: NotebookNode) -> None:
    assert notebook.metadata["accelerator"] == "GPU"
    assert notebook.metadata["kernelspec"]["language"] == "python"

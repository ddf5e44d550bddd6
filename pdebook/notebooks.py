"""Chapter notebooks as files: the cells that the library writes, and the one form in which they are stored.

The card (tag ``card``) and the set-up cell (tag ``setup``) are made from the catalogue and the records. A stored
notebook says nothing about when or how long it ran: `normalise` numbers executions 1..n, names widget models in order,
keeps only the metadata that readers need, and refuses what a rerun could not reproduce.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from pdebook import catalogue
from pdebook.chapter import source_heading
from pdebook.records import Record, imported_modules, status

__all__ = [
    "MAX_BYTES",
    "NotebookError",
    "card",
    "check_exercises",
    "code_cells",
    "dumps",
    "library_imports",
    "normalise",
    "read",
    "refresh",
    "setup_cell",
]

MAX_BYTES = 1_000_000
CELL_METADATA = ("cellView", "mystnb", "nbgrader", "tags")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}
COLAB = {"gpuType": "T4", "provenance": [], "toc_visible": True}
WIDGETS = "application/vnd.jupyter.widget-state+json"
HEADING = re.compile(r"\A(?:\[`(?P<linked>pdebook[\w.]*)`\]\([^)\n]*\)|`(?P<plain>pdebook[\w.]*)`)(?=\n\n```python\n)")
# An object's address, a kernel's temporary file: no two runs agree on them.
FLEETING = re.compile(r"\bat 0x[0-9a-fA-F]{6,}|ipykernel_\d+")
EXERCISE = {"SOLUTION": "solution", "HIDDEN TESTS": "grade"}


class NotebookError(ValueError):
    """A notebook is not fit to be stored or handed out; the message names the cell."""


def read(path: Path) -> NotebookNode:
    """Read a notebook. Raises NotebookError if it is missing or damaged."""
    if not path.is_file():
        raise NotebookError(f"there is no notebook {path.name} in {path.parent}")
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (nbformat.ValidationError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotebookError(f"{path.name} is not a valid notebook: {str(error).splitlines()[0]}") from error
    return notebook


def dumps(notebook: NotebookNode, name: str = "the notebook") -> str:
    """The notebook as the text of its file. Raises NotebookError if it is larger than a chapter may be."""
    text = nbformat.writes(notebook) + "\n"
    if (size := len(text.encode())) > MAX_BYTES:
        raise NotebookError(f"{name} has {size:,} bytes, more than {MAX_BYTES:,}: use fewer or smaller pictures")
    return text


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that a run executes."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def library_imports(notebook: NotebookNode) -> set[str]:
    """Modules of the library that the notebook's code imports."""
    transform = TransformerManager().transform_cell  # magics are not Python
    return imported_modules("\n".join(transform(cell.source) for cell in code_cells(notebook)))


# -------------------- the cells that the library writes


def card(slug: str, *, quick: Record | None = None, home: catalogue.Home | None = None) -> str:
    """Title and card of a chapter in Markdown that HTML, JupyterLab and Colab read alike.

    ``quick`` is a run that is about to be recorded, ``home`` one that the book is about to move to.
    """
    paper, home = catalogue.paper(slug), home or catalogue.home()
    links = [f"[{paper.citation}]({paper.url})" if paper.url else paper.citation, paper.venue]
    links += [f"[DOI](https://doi.org/{paper.doi})"] if paper.doi and paper.arxiv else []
    links += [f"[official code]({paper.code})"] if paper.code else []
    needs = list(paper.prerequisites)
    for required in map(catalogue.paper, paper.requires):
        page = f"../{required.part}/{required.slug}.ipynb" if required.ready else "../../book/chapters.md"
        needs.append(f"Chapter [{required.title}]({page})" + ("" if required.ready else " (planned)"))
    blocks = [
        f"# {paper.title}",
        f"**Paper.** {' · '.join(links)}",
        f"**Authors.** {', '.join(paper.authors)}",
        f"**Claim.** {paper.claim}",
        "**What you will learn**",
        _bullets(paper.learn),
    ]
    blocks += ["**What you need**", _bullets(needs)] if needs else []
    blocks.append(f"**Time.** {_time(slug, quick)}")
    if colab := home.colab_url(f"chapters/{paper.part}/{slug}.ipynb"):
        blocks.append(f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})")
    return "\n\n".join(blocks)


def setup_cell(slug: str, home: catalogue.Home | None = None) -> str:
    """The set-up cell: the same text in every chapter but for its slug."""
    home = home or catalogue.home()
    if home.is_placeholder:
        install = """    raise RuntimeError(
        "pdebook is not installed, and this copy of the book does not know its home on the web yet: "
        "install it from a clone, or let `pdebook repository URL` say where it lives"
    )"""
    else:
        install = f"""    package = "git+{home.repository}@v{home.version}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package], check=True)
    importlib.invalidate_caches()"""
    modules = "import importlib.util\n" + ("" if home.is_placeholder else "import subprocess\nimport sys\n")
    return f"""{modules}
if importlib.util.find_spec("pdebook") is None:  # as in Colab; what is installed stays as it is
{install}

from pdebook import Chapter

ch = Chapter("{slug}")"""


def refresh(
    notebook: NotebookNode, slug: str, *, quick: Record | None = None, home: catalogue.Home | None = None
) -> NotebookNode:
    """Write the card, the set-up cell and the links of the shown sources anew, in place; cells that lack are added."""
    _own_cell(notebook, "card", 0, nbformat.v4.new_markdown_cell, card(slug, quick=quick, home=home))
    _own_cell(notebook, "setup", 1, nbformat.v4.new_code_cell, setup_cell(slug, home))
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if text := output.get("data", {}).get("text/markdown"):
                output.data["text/markdown"] = HEADING.sub(
                    lambda found: source_heading(found["linked"] or found["plain"], home), text
                )
    return notebook


def _own_cell(notebook: NotebookNode, tag: str, position: int, new: Any, source: str) -> None:
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    if len(cells) > 1:
        raise NotebookError(f"{len(cells)} cells have the tag {tag!r}; expected one")
    if not cells:
        cells = [new(id=tag, metadata={"tags": [tag]})]
        notebook.cells.insert(position, cells[0])
    if cells[0].cell_type != new().cell_type:
        raise NotebookError(f"the cell with the tag {tag!r} is a {cells[0].cell_type} cell")
    cells[0].source = source


def _bullets(items: Any) -> str:
    return "\n".join(f"- {item}" for item in items)


def _time(slug: str, quick: Record | None) -> str:
    quick = quick or status(slug, "quick")[0]
    full = status(slug, "full")[0]
    cpu = f"about {_about(quick.seconds)} on one CPU core" if quick else "not recorded on a CPU yet"
    on_gpu = full is not None and full.device.startswith("cuda")
    gpu = (
        f"about {_about(full.seconds)} on a GPU ({full.processor})" if full and on_gpu else "not recorded on a GPU yet"
    )
    return f"Quick profile: {cpu}. Full profile: {gpu}."


def _about(seconds: float) -> str:
    """A duration, rounded up so that a rerun rarely changes it."""
    if seconds <= 60:
        return f"{max(10, 10 * math.ceil(seconds / 10))} seconds"
    return f"{math.ceil(seconds / 60)} minutes"


# -------------------- the stored form


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Bring an executed notebook into the form in which it is stored, in place.

    Raises NotebookError for what must not be stored: a cell that did not run, an error, text on stderr, or text that
    another run can't reproduce in a cell that nbval compares.
    """
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    check_exercises(notebook)
    for count, cell in enumerate(code_cells(notebook), 1):
        if cell.execution_count is None:
            raise NotebookError(f"code cell {count} was never run: {_excerpt(cell)}")
        cell.execution_count = count
        cell.outputs = [_output(output, count, cell) for output in cell.outputs]
    for position, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{position}")
        if cell.cell_type == "code" and _folds(cell):
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "hide-input"})
            cell.metadata["cellView"] = "form"
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)})
    widgets = {"widgets": notebook.metadata["widgets"]} if notebook.metadata.get("widgets") else {}
    metadata = {"accelerator": "GPU", "colab": COLAB, "kernelspec": KERNEL, "language_info": LANGUAGE} | widgets
    notebook.metadata = nbformat.from_dict(metadata)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return _name_widgets(notebook)


def check_exercises(notebook: NotebookNode) -> None:
    """Check the exercises' nbgrader metadata and markers. Raises NotebookError with the cell's grade_id or source."""
    seen: set[str] = set()
    for cell in notebook.cells:
        meta, lines = cell.metadata.get("nbgrader"), cell.source.splitlines()
        where = f"exercise cell {(meta or {}).get('grade_id') or _excerpt(cell)!r}"
        for marker, role in EXERCISE.items():
            marks = [
                line.split(marker)[0].split()[-1] for line in lines if re.search(rf"### (BEGIN|END) {marker}", line)
            ]
            if marks != ["BEGIN", "END"] * (len(marks) // 2):
                raise NotebookError(f"{where}: ### BEGIN {marker} and ### END {marker} do not pair up")
            if marks and not (meta and meta.get(role)):
                raise NotebookError(f"{where}: ### BEGIN {marker} needs nbgrader metadata with {role}: true")
        if meta is None:
            continue
        if meta.get("schema_version") != 3:
            raise NotebookError(f"{where}: nbgrader's schema_version is {meta.get('schema_version')!r}, expected 3")
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", str(meta.get("grade_id", ""))):
            raise NotebookError(f"{where}: grade_id is {meta.get('grade_id')!r}, expected letters, digits, - and _")
        if meta["grade_id"] in seen:
            raise NotebookError(f"{where}: this grade_id is used twice")
        seen.add(meta["grade_id"])
        if missing := {"grade", "solution", "locked"} - set(meta):
            raise NotebookError(f"{where}: nbgrader's {min(missing)!r} is missing")
        points = meta.get("points", 0)
        if meta["grade"] and not (isinstance(points, int | float) and points > 0):
            raise NotebookError(f"{where}: points is {points!r}, expected a positive number")


def _folds(cell: NotebookNode) -> bool:
    return re.search(r"### BEGIN (SOLUTION|HIDDEN TESTS)", cell.source) is not None


def _output(output: NotebookNode, count: int, cell: NotebookNode) -> NotebookNode:
    where = f"code cell {count} ({_excerpt(cell)})"
    if output.output_type == "error":
        raise NotebookError(f"{where} ended in {output.ename}: {output.evalue}")
    if output.get("name") == "stderr":
        raise NotebookError(f"{where} wrote on stderr, which differs between machines: {output.text.strip()[:200]}")
    if "nbval-ignore-output" not in cell.metadata.get("tags", []):
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        if found := FLEETING.search(text):
            raise NotebookError(f"{where}: no two runs print the same {found[0]!r}; show something else")
    output.pop("transient", None)
    if "metadata" in output:
        output.metadata = NotebookNode({k: v for k, v in output.metadata.items() if k != "needs_background"})
    if output.output_type == "execute_result":
        output.execution_count = count
    return output


def _name_widgets(notebook: NotebookNode) -> NotebookNode:
    """Number the widget models in the order in which they were made, so that a rerun changes no names."""
    models = notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    text = json.dumps(notebook)
    for number, model in enumerate(models):
        text = text.replace(model, f"{number:032x}")
    return nbformat.from_dict(json.loads(text))


def _excerpt(cell: NotebookNode) -> str:
    return cell.source.strip().split("\n")[0][:60]

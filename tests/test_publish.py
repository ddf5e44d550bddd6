"""What leaves the house: the home on the web, a release, coursework; all new files or none."""

import errno
import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from tiny_book import exercise_cells, make_book

from pdebook import catalogue, notebooks, publish, records

URL = "https://github.com/me/my.book-2"
README = """See https://github.com/OWNER/pdebook, <https://github.com/OWNER/pdebook/issues> and https://github.com/OWNER/pdebook.
Read https://OWNER.github.io/pdebook/ or [Colab](https://colab.research.google.com/github/OWNER/pdebook/blob/main/x.ipynb);
`git clone https://github.com/OWNER/pdebook.git`. Not ours: https://github.com/OWNER/pdebook-data and OWNER/pdebook.
"""
SHOWN = "`pdebook.catalogue.paper`\n\n```python\ndef paper(): ...\n```"


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shown = new_output("display_data", {"text/markdown": SHOWN})
    picture = new_markdown_cell("![a plot](../../book/_static/a.png) [Later](../toys/later.ipynb) [web](https://x.org)")
    cells = [picture, new_code_cell("ch.source(paper)", execution_count=1, outputs=[shown]), *exercise_cells()]
    for cell in cells[-2:]:  # as a stored chapter folds them
        cell.metadata |= {"cellView": "form", "tags": ["hide-input"]}
    notebook = nbformat.read(make_book(tmp_path, cells), as_version=4)
    monkeypatch.setenv("PDEBOOK_HOME", str(tmp_path))
    (tmp_path / "chapters/toys/demo.ipynb").write_text(notebooks.dumps(notebooks.refresh(notebook, "demo")))
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/OWNER/pdebook # a placeholder: x\n")
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 0.1.0\ndate-released: 2020-01-01\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## Unreleased\n\n- A thing\n\n## 0.0.9\n")
    return tmp_path


def contents(book: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(book.rglob("*")) if path.is_file()}


# -------------------- the home


def test_repository_moves_everything_and_back(book: Path) -> None:
    before = contents(book)
    changed = publish.set_repository(URL + ".git")
    names = {path.relative_to(book).as_posix() for path in changed}
    assert names == {"README.md", "_config.yml", "pdebook/papers.toml", "chapters/toys/demo.ipynb"}
    assert (book / "README.md").read_text() == (
        f"See {URL}, <{URL}/issues> and {URL}.\n"
        "Read https://me.github.io/my.book-2/ or "
        "[Colab](https://colab.research.google.com/github/me/my.book-2/blob/main/x.ipynb);\n"
        f"`git clone {URL}.git`. Not ours: https://github.com/OWNER/pdebook-data and OWNER/pdebook.\n"
    )
    assert f'repository = "{URL}" # `pdebook repository URL` sets' in (book / "pdebook/papers.toml").read_text()
    assert catalogue.book().repository == URL
    stored = notebooks.read(book / "chapters/toys/demo.ipynb")
    assert stored.cells[0].source == notebooks.card("demo")
    assert "colab-badge.svg" in stored.cells[0].source
    assert stored.cells[1].source == notebooks.setup_cell("demo")
    assert f"git+{URL}@v0.1.0" in stored.cells[1].source
    heading = stored.cells[3].outputs[0].data["text/markdown"].splitlines()[0]
    assert heading == f"[`pdebook.catalogue.paper`]({URL}/blob/v0.1.0/pdebook/catalogue.py)"
    assert publish.set_repository(URL) == []
    publish.set_repository(catalogue.PLACEHOLDER)
    assert contents(book) == before


@pytest.mark.parametrize(
    "url",
    [
        "",
        "github.com/me/book",
        "http://github.com/me/book",
        "https://gitlab.com/me/book",
        "https://github.com/me",
        "https://github.com/me/book/tree/main",
        "https://github.com/me/bo ok",
        "git@github.com:me/book.git",
        "https://github.com/me/book\nx",
    ],
)
def test_an_address_that_is_no_repository_is_refused(book: Path, url: str) -> None:
    before = contents(book)
    with pytest.raises(ValueError, match=r"expected https://github\.com/OWNER/NAME"):
        publish.set_repository(url)
    assert contents(book) == before


def test_a_full_disk_changes_nothing(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(book)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records.os, "fsync", fail)
    for command in (lambda: publish.set_repository(URL), lambda: publish.release("0.2.0")):
        with pytest.raises(records.RecordError, match="No space left on device"):
            command()
    assert contents(book) == before


# -------------------- a release


def test_release_writes_the_version_everywhere(book: Path) -> None:
    publish.set_repository(URL)
    publish.release("0.2.0", today="2030-01-02")
    assert catalogue.version() == "0.2.0"
    assert (book / "CITATION.cff").read_text() == "title: x\nversion: 0.2.0\ndate-released: 2030-01-02\n"
    assert (book / "CHANGELOG.md").read_text() == (
        "# Changes\n\n## Unreleased\n\n## 0.2.0 (2030-01-02)\n\n- A thing\n\n## 0.0.9\n"
    )
    text = (book / "chapters/toys/demo.ipynb").read_text()
    assert f"git+{URL}@v0.2.0" in text
    assert "blob/v0.2.0/pdebook/catalogue.py" in text
    assert "0.1.0" not in text


def test_the_first_release_may_keep_the_version_that_nobody_has_seen(book: Path) -> None:
    publish.release("0.1.0", today="2030-01-02")
    assert "## 0.1.0 (2030-01-02)" in (book / "CHANGELOG.md").read_text()
    with pytest.raises(ValueError, match="not released before"):
        publish.release("0.1.0")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("0.2", "expected three numbers"),
        ("v0.2.0", "expected three numbers"),
        ("0.0.10", "expected one after 0.1.0"),
        ("0.3.0", "not released before"),
    ],
)
def test_a_wrong_version_is_refused(book: Path, version: str, words: str) -> None:
    (book / "CHANGELOG.md").write_text("## Unreleased\n\n## 0.3.0 (2020-01-01)\n")
    before = contents(book)
    with pytest.raises(ValueError, match=words):
        publish.release(version)
    assert contents(book) == before


def test_a_change_log_without_news_is_refused(book: Path) -> None:
    (book / "CHANGELOG.md").write_text("# Changes\n")
    before = contents(book)
    with pytest.raises(ValueError, match=r"CHANGELOG\.md has no line that matches"):
        publish.release("0.2.0")
    assert contents(book) == before


# -------------------- coursework


def run_cells(notebook: nbformat.NotebookNode, answer: str = "") -> None:
    """Execute the exercise's cells as a student's machine would, with ``answer`` in place of the stub."""
    names: dict[str, object] = {}
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            exec(cell.source.replace("raise NotImplementedError()", answer or "raise NotImplementedError()"), names)


def test_assignment_hides_what_students_must_not_see(book: Path) -> None:
    pytest.importorskip("nbgrader")
    source, release = publish.assignment("demo", book / "course")
    assert source == book / "course/source/demo/demo.ipynb"
    assert release == book / "course/release/demo/demo.ipynb"
    instructor, student = (nbformat.read(path, as_version=4) for path in (source, release))
    nbformat.validate(student)
    run_cells(instructor)
    assert "assert square(-3) == 9" in source.read_text()
    text = release.read_text()
    for secret in ("return x * x", "square(-3)", "BEGIN", "hide-input", "cellView"):
        assert secret not in text
    solution, checks = (cell for cell in student.cells if "nbgrader" in cell.metadata)
    assert (
        solution.source == 'def square(x):\n    """x times x."""\n    # YOUR CODE HERE\n    raise NotImplementedError()'
    )
    assert (solution.metadata.nbgrader.locked, checks.metadata.nbgrader.locked) == (False, True)
    assert (checks.metadata.nbgrader.points, len(checks.metadata.nbgrader.checksum)) == (2, 32)
    assert all(
        cell.outputs == [] and cell.execution_count is None for cell in student.cells if cell.cell_type == "code"
    )
    with pytest.raises(NotImplementedError):
        run_cells(student)
    run_cells(student, "return x**2")
    with pytest.raises(AssertionError):
        run_cells(student, "return x + 1")


def test_assignment_links_lead_to_the_repository_or_nowhere(book: Path) -> None:
    pytest.importorskip("nbgrader")
    text = publish.assignment("demo", book / "a")[1].read_text()
    assert "a plot Later [web](https://x.org)" in text
    assert "Back to the part." in text
    publish.set_repository(URL)
    text = publish.assignment("demo", book / "b")[1].read_text()
    assert f"[Later]({URL}/blob/v0.1.0/chapters/toys/later.ipynb)" in text
    assert f"[part]({URL}/blob/v0.1.0/book/chapters.md#toys)" in text


def test_assignment_says_what_is_wrong(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (book / "file").write_text("")
    with pytest.raises(records.RecordError, match=r"cannot make .*file"):
        publish.assignment("demo", book / "file")
    with pytest.raises(ValueError, match="unknown chapter 'dmo'"):
        publish.assignment("dmo", book)
    path = book / "chapters/toys/demo.ipynb"
    text = path.read_text()
    path.write_text(text.replace("### END SOLUTION", "###"))
    with pytest.raises(ValueError, match="do not pair up"):
        publish.assignment("demo", book)
    make_book(book, [new_code_cell("x = 1")])
    with pytest.raises(ValueError, match="chapter 'demo' has no exercises"):
        publish.assignment("demo", book)
    monkeypatch.setitem(__import__("sys").modules, "nbgrader", None)
    with pytest.raises(publish.MissingExtra, match=r"pip install 'pdebook\[teach\]'"):
        publish.assignment("demo", book)

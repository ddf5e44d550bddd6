"""What leaves the house: the book's home on the web, a release, and a chapter as coursework.

Each command works out all new files first, and replaces the old ones only when every new one is complete on the disk.
"""

import copy
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from pdebook import catalogue, notebooks
from pdebook.catalogue import Home
from pdebook.records import Failure, RecordError, replace_files

__all__ = ["MissingExtra", "assignment", "release", "set_repository"]

TEXTS = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "README.md", "_config.yml", "pyproject.toml")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((\.{1,2}/[^)\s]*)\)")


class MissingExtra(Failure):
    """A command needs an optional part of the installation; the message is the line that installs it."""


def set_repository(url: str) -> list[Path]:
    """Move the book's home to ``url`` in the catalogue, the configuration, the prose and every notebook.

    Returns the files that changed. Raises ValueError unless ``url`` is ``https://github.com/OWNER/NAME``: Colab, which
    opens the chapters, and the links into the sources know no other host.
    """
    url = url.strip().removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", url):
        raise ValueError(f"url is {url!r}, expected https://github.com/OWNER/NAME")
    root, old = _root(), catalogue.home()
    new = replace(old, repository=url)
    moves = [
        (re.compile(re.escape(a) + r"(?=\.git\b|[^\w.-]|\.?$|\.\s)", re.M), b)
        for a, b in zip(_forms(old), _forms(new), strict=True)
    ]

    def move(text: str) -> str:
        for pattern, target in moves:
            text = pattern.sub(target, text)
        # The comment beside the address says what the address is.
        marks = ("# a placeholder: `pdebook repository", "# `pdebook repository")
        return text.replace(*(reversed(marks) if new.is_placeholder else marks))

    texts = [root / name for name in TEXTS] + [catalogue.papers_path()]
    texts += sorted(
        [*(root / "book").rglob("*.md"), *(root / "book").rglob("*.html"), *(root / ".github").rglob("*.yml")]
    )
    return _rewrite({path: move for path in texts if path.is_file()}, new, move)


def release(version: str, *, today: str = "") -> list[Path]:
    """Write a version into the project file, the citation, the change log and every chapter's set-up cell.

    Returns the files that changed. Raises ValueError for a version that is not ``X.Y.Z`` or that was released before,
    and for a change log without a heading ``## Unreleased``. ``today`` is an ISO date, by default the present day.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"version is {version!r}, expected three numbers, such as 0.2.0")
    root, old, today = _root(), catalogue.home(), today or datetime.now(UTC).strftime("%Y-%m-%d")
    log = (root / "CHANGELOG.md").read_text("utf-8") if (root / "CHANGELOG.md").is_file() else ""
    if _numbers(version) < _numbers(old.version) or re.search(rf"^## \[?{re.escape(version)}\b", log, re.M):
        raise ValueError(f"version is {version!r}, expected one after {old.version}, not released before")

    def sub(pattern: str, text: str, where: str) -> Callable[[str], str]:
        def edit(old_text: str) -> str:
            new_text, count = re.subn(pattern, text, old_text, count=1, flags=re.M)
            if not count:
                raise ValueError(f"{where} has no line that matches {pattern!r}")
            return new_text

        return edit

    def citation(text: str) -> str:
        text = sub(r"^version: .*$", f"version: {version}", "CITATION.cff")(text)
        return re.sub(r"^date-released: .*$", f"date-released: {today}", text, flags=re.M)

    edits = {
        root / "pyproject.toml": sub(r'^version = ".*"$', f'version = "{version}"', "pyproject.toml"),
        root / "CITATION.cff": citation,
        root / "CHANGELOG.md": sub(
            r"^## \[?Unreleased\]?[ \t]*$", f"## Unreleased\n\n## {version} ({today})", "CHANGELOG.md"
        ),
    }
    return _rewrite({path: edit for path, edit in edits.items() if path.is_file()}, replace(old, version=version))


def assignment(slug: str, folder: Path) -> tuple[Path, Path]:
    """Write a chapter as coursework into ``folder``, laid out as nbgrader lays out a course.

    Returns the instructor's notebook (``source/<slug>/``: solutions and hidden tests, as in the book) and the students'
    (``release/<slug>/``: stubs, no outputs, tests locked). Raises MissingExtra without nbgrader, and ValueError for a
    chapter without exercises or with damaged ones.
    """
    chain = _student_chain()
    notebook = notebooks.read(catalogue.chapter_path(slug))
    notebooks.check_exercises(notebook)
    if not any(cell.metadata.get("nbgrader", {}).get("solution") for cell in notebook.cells):
        raise ValueError(f"chapter {slug!r} has no exercises")
    notebook = _with_absolute_links(notebook, slug)
    student = copy.deepcopy(notebook)
    for preprocessor in chain:
        student, _ = preprocessor().preprocess(student, {})
    student.metadata.pop("widgets", None)
    for cell in student.cells:
        if "nbgrader" in cell.metadata:  # what a student works on is not folded away
            cell.metadata.pop("cellView", None)
            cell.metadata["tags"] = [tag for tag in cell.metadata.get("tags", []) if tag != "hide-input"]
    paths = (folder / "source" / slug / f"{slug}.ipynb", folder / "release" / slug / f"{slug}.ipynb")
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot make {folder}: {error.strerror or error}") from error
    replace_files({path: nbformat.writes(nb) + "\n" for path, nb in zip(paths, (notebook, student), strict=True)})
    return paths


def _student_chain() -> list[Any]:
    """nbgrader's preprocessors from the source to the release version, without those that need its data base."""
    try:
        from nbgrader import preprocessors as p
    except ModuleNotFoundError as error:
        raise MissingExtra("assignments need nbgrader: pip install 'pdebook[teach]'") from error
    chain = [p.LockCells, p.ClearSolutions, p.ClearOutput, p.ClearHiddenTests, p.ClearMarkScheme]
    return [*chain, p.ComputeChecksums, p.CheckCellMetadata]


def _with_absolute_links(notebook: NotebookNode, slug: str) -> NotebookNode:
    """Links between the book's files lead to the repository, or become plain text while it has no home."""
    root, home = _root(), catalogue.home()
    folder = catalogue.chapter_path(slug).parent

    def absolute(found: re.Match[str]) -> str:
        path, _, anchor = found[3].partition("#")
        url = home.file_url((folder / path).resolve().relative_to(root).as_posix()) if not found[1] else ""
        return f"[{found[2]}]({url}{'#' + anchor if anchor else ''})" if url else found[2]

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(absolute, cell.source)
    return notebook


def _rewrite(
    edits: dict[Path, Callable[[str], str]], home: Home, prose: Callable[[str], str] = lambda text: text
) -> list[Path]:
    """Apply ``edits`` to text files and bring every notebook to ``home``; returns what changed, none of it half-way."""
    files = {path: edit(path.read_text("utf-8")) for path, edit in edits.items()}
    for path in catalogue.notebook_paths():
        notebook = notebooks.read(path)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = prose(cell.source)
        files[path] = notebooks.dumps(notebooks.refresh(notebook, path.stem, home=home), path.name)
    changed = {path: text for path, text in files.items() if text != path.read_text("utf-8")}
    replace_files(changed)
    return sorted(changed)


def _forms(home: Home) -> Iterable[str]:
    """The ways in which a home is written: its address, Colab's address for it, and its pages."""
    owner, name = home.repository.split("/")[-2:]
    return home.repository, f"colab.research.google.com/github/{owner}/{name}", f"https://{owner}.github.io/{name}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _root() -> Path:
    root = catalogue.checkout()
    if root is None:
        raise ValueError(
            "this works on the book's sources: run it in a clone of the repository, or set PDEBOOK_HOME to one"
        )
    return root

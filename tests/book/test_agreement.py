"""Catalogue, table of contents, chapters, modules, tests, bibliography, records and reference pages agree."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from pdebook_sphinx.api import WITHOUT_PAGE, modules

from pdebook import catalogue, records
from pdebook.catalogue import Paper

READY = [paper for paper in catalogue.papers() if paper.ready]
PLANNED = [paper for paper in catalogue.papers() if not paper.ready]
PAPER_LINK = re.compile(r"https?://(?:arxiv\.org/(?:abs|pdf)|(?:dx\.)?doi\.org)/[^\s)>\]\"'`]+")


@pytest.fixture(scope="module")
def toc(root: Path) -> dict:
    return yaml.safe_load((root / "_toc.yml").read_text("utf-8"))


@pytest.fixture(scope="module")
def config(root: Path) -> dict:
    return yaml.safe_load((root / "_config.yml").read_text("utf-8"))


def files(entry: dict) -> list[str]:
    """The pages of a part of the table of contents, in order."""
    found = [entry["file"]] if "file" in entry else [entry["root"]] if "root" in entry else []
    for group in ("parts", "chapters", "sections"):
        for below in entry.get(group, []):
            found += files(below)
    return found


def test_toc_names_files_that_exist_and_each_once(root: Path, toc: dict) -> None:
    pages = files(toc)
    assert len(pages) == len(set(pages))
    for page in pages:
        assert any((root / f"{page}{suffix}").is_file() for suffix in (".md", ".rst", ".ipynb")), page


def test_toc_holds_the_ready_chapters_in_book_order_under_their_parts(toc: dict) -> None:
    parts = next(part["chapters"] for part in toc["parts"] if part["caption"] == "The parts")
    assert [part["file"] for part in parts] == [f"book/parts/{part.slug}" for part in catalogue.parts()]
    for entry, part in zip(parts, catalogue.parts(), strict=True):
        below = [section["file"] for section in entry.get("sections", [])]
        assert below == [f"chapters/{part.slug}/{paper.slug}" for paper in READY if paper.part == part.slug]


def test_every_page_of_the_book_is_in_the_toc(root: Path, toc: dict) -> None:
    prose = {path.relative_to(root).with_suffix("").as_posix() for path in (root / "book").rglob("*.md")}
    prose |= {path.relative_to(root).with_suffix("").as_posix() for path in (root / "book").rglob("*.rst")}
    assert prose == {page for page in files(toc) if page.startswith("book/")}


def test_notebooks_are_the_ready_chapters(root: Path) -> None:
    stored = {
        path.relative_to(root).as_posix()
        for path in (root / "chapters").rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    }
    assert stored == {f"chapters/{paper.part}/{paper.slug}.ipynb" for paper in READY}


@pytest.mark.parametrize("paper", READY, ids=lambda paper: paper.slug)
def test_ready_chapter_is_whole(root: Path, paper: Paper) -> None:
    assert (root / "pdebook" / paper.part / f"{paper.slug}.py").is_file()
    assert (root / "tests" / paper.part / f"test_{paper.slug}.py").is_file()
    assert records.status(paper.slug, "quick")[1] in {"current", "stale"}


@pytest.mark.parametrize("paper", catalogue.papers(), ids=lambda paper: paper.slug)
def test_paper_is_in_the_bibliography_under_its_slug(paper: Paper) -> None:
    reference = catalogue.reference(paper.slug)
    assert reference is not None
    assert reference.key == paper.slug
    assert not paper.url or paper.url in reference.urls


@pytest.mark.parametrize("paper", READY, ids=lambda paper: paper.slug)
def test_papers_that_a_chapter_links_to_are_in_the_bibliography(paper: Paper) -> None:
    notebook = nbformat.read(catalogue.chapter_path(paper.slug), as_version=4)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    known = {url for reference in catalogue.bibliography().values() for url in reference.urls}
    linked = {url.rstrip(".,;") for url in PAPER_LINK.findall(prose)}
    assert linked, "a chapter links at least to its own paper"
    assert linked <= known, f"not in references.bib: {sorted(linked - known)}"


@pytest.mark.parametrize("paper", PLANNED, ids=lambda paper: paper.slug)
def test_planned_chapter_has_no_record(paper: Paper) -> None:
    assert records.status(paper.slug, "quick")[1] == records.status(paper.slug, "full")[1] == "missing"


def test_recorded_results_belong_to_the_catalogue() -> None:
    known = {records.record_path(paper.slug, profile).name for paper in READY for profile in ("quick", "full")}
    known |= {records.arena_path(part.slug).name for part in catalogue.parts()}
    assert {path.name for path in catalogue.results_path().glob("*.json")} <= known


def test_every_public_module_has_one_place_in_the_reference(root: Path) -> None:
    documented: list[str] = []
    for page in (root / "book/api").glob("*.rst"):
        for line in re.findall(r"^\.\. api:: (.+)$", page.read_text("utf-8"), re.MULTILINE):
            documented += [name for package in line.split() for name, _ in modules(package)]
    assert len(documented) == len(set(documented))
    assert set(documented) == {name for name, _ in modules("pdebook")} - WITHOUT_PAGE


def test_configuration_agrees_with_the_catalogue(config: dict) -> None:
    assert config["title"] == catalogue.book().title
    assert config["repository"]["url"] == catalogue.book().repository


def test_widget_scripts_are_the_packages_of_the_browser_test(root: Path, config: dict) -> None:
    packages = json.loads((root / "tests/book/package.json").read_text("utf-8"))["dependencies"]
    urls = [*config["sphinx"]["config"]["nb_ipywidgets_js"], config["sphinx"]["config"]["mathjax_path"]]
    for name, version in packages.items():
        assert any(url.startswith(f"https://cdn.jsdelivr.net/npm/{name}@{version}/") for url in urls), name
    assert len(urls) == len(packages)

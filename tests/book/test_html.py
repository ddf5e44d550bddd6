"""The built pages: no warning, no dead link, and on each page what belongs to every page."""

import ast
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urldefrag, urljoin, urlsplit

import pytest
from pdebook_sphinx.api import WITHOUT_PAGE, modules

from pdebook import catalogue

pytestmark = pytest.mark.slow
READY = [paper for paper in catalogue.papers() if paper.ready]


@dataclass
class Page(HTMLParser):
    """What a page links to, what can be linked to in it, and its pictures."""

    path: Path
    ids: set[str] = field(default_factory=set)
    repeated: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    images: list[dict[str, str | None]] = field(default_factory=list)
    headings: int = 0
    language: str | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.source = self.path.read_text("utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if name := values.get("id"):
            (self.repeated if name in self.ids else self.ids).add(name)
        for attribute in ("href", "src"):
            if link := values.get(attribute):
                self.links.append(link)
        if tag == "img":
            self.images.append(values)
        if tag == "html":
            self.language = values.get("lang")
        self.headings += tag == "h1" and values.get("class") != "onlyprint"


@pytest.fixture(scope="module")
def built(html: Path) -> dict[str, Page]:
    names = {path.relative_to(html).as_posix(): path for path in sorted(html.rglob("*.html"))}
    return {name: Page(path) for name, path in names.items() if not name.startswith("_")}


@pytest.fixture(scope="module")
def content(built: dict[str, Page]) -> dict[str, Page]:
    """Pages with a source."""
    return {name: page for name, page in built.items() if name.startswith(("book/", "chapters/"))}


def test_no_dead_internal_link(html: Path, built: dict[str, Page]) -> None:
    dead = []
    for name, page in built.items():
        for link in page.links:
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            target, fragment = urldefrag(urljoin(f"/{name}", link))
            target = unquote(urlsplit(target).path).lstrip("/") or "index.html"
            if not (html / target).is_file():
                dead.append(f"{name}: {link}")
            elif fragment and target in built and unquote(fragment) not in built[target].ids:
                dead.append(f"{name}: {link} (no such anchor)")
    assert dead == []


def test_every_page_is_built(root: Path, content: dict[str, Page]) -> None:
    sources = [path for folder in ("book", "chapters") for path in (root / folder).rglob("*")]
    names = {
        path.relative_to(root).with_suffix(".html").as_posix()
        for path in sources
        if path.suffix in {".md", ".rst", ".ipynb"} and ".ipynb_checkpoints" not in path.parts
    }
    assert set(content) == names


def test_pages_are_well_formed(content: dict[str, Page]) -> None:
    for name, page in content.items():
        assert page.language == "en", name
        assert not page.repeated, f"{name}: ids that stand twice: {sorted(page.repeated)}"
        assert 'href="#main-content"' in page.source, f"{name} has no skip link"


def test_pictures_have_alternative_text(content: dict[str, Page]) -> None:
    for name, page in content.items():
        for image in page.images:
            alt = (image.get("alt") or "").strip()
            assert alt, f"{name}: {(image.get('src') or '')[:80]}"
            assert not re.search(r"\.(png|webp|svg|jpe?g)$", alt), f"{name}: {alt} is a file's name"


def test_every_page_says_version_citation_and_how_to_report(content: dict[str, Page]) -> None:
    for name, page in content.items():
        assert f"Version {catalogue.version()}" in page.source, name
        report = next(link for link in page.links if "/issues/new?title=Error" in link)
        assert report.startswith(catalogue.book().repository)
        query = parse_qs(urlsplit(report).query)
        assert name.removesuffix(".html") in query["title"][0]
        assert catalogue.version() in query["body"][0]
        assert ("@incollection{pdebook-" if name.startswith("chapters/") else "@book{pdebook,") in page.source, name


@pytest.mark.parametrize("paper", READY, ids=lambda paper: paper.slug)
def test_chapter_page(content: dict[str, Page], paper: catalogue.Paper) -> None:
    page = content[f"chapters/{paper.part}/{paper.slug}.html"]
    assert f"@incollection{{pdebook-{paper.slug}," in page.source
    assert f"{{{paper.slug}," in page.source, "the paper's own BibTeX"
    home = catalogue.book().repository.removeprefix("https://github.com/")
    notebook = f"blob/v{catalogue.version()}/chapters/{paper.part}/{paper.slug}.ipynb"
    assert f"https://colab.research.google.com/github/{home}/{notebook}" in page.links


def test_index_and_map_hold_every_paper(content: dict[str, Page]) -> None:
    page = content["book/chapters.html"]
    for paper in catalogue.papers():
        assert f'data-slug="{paper.slug}"' in page.source
        assert f"chapter-{paper.slug.replace('_', '-')}" in page.ids
        assert not paper.url or paper.url in page.links
        assert not paper.code or paper.code in page.links
        for required in paper.requires:
            assert f'data-from="{required}" data-to="{paper.slug}"' in page.source


def test_scorecard_and_arena_mark_what_is_missing(content: dict[str, Page]) -> None:
    scores = content["book/scorecards.html"]
    for paper in READY:
        assert f"score-{paper.slug.replace('_', '-')}" in scores.ids
        assert scores.source.count("pde-run") >= 2
    recorded = [part for part in catalogue.parts() if (catalogue.results_path() / f"arena_{part.slug}.json").is_file()]
    arena = content["book/arena.html"]
    assert all(f"arena-{part.slug}" in arena.ids for part in recorded)
    assert recorded or "No comparison has been recorded yet" in arena.source


def test_reference_documents_every_public_function_and_class(content: dict[str, Page]) -> None:
    documented = set().union(*(page.ids for name, page in content.items() if name.startswith("book/api/")))
    for module, file in modules("pdebook"):
        for node in ast.parse(Path(file).read_text("utf-8")).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and module not in WITHOUT_PAGE:
                assert f"{module}.{node.name}" in documented


def test_references_hold_the_whole_bibliography(content: dict[str, Page]) -> None:
    assert content["book/references.html"].source.count('role="doc-biblioentry"') == len(catalogue.bibliography())

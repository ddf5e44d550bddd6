"""The catalogue of the book: papers, parts, bibliography, and where the book's files lie.

``papers.toml`` and ``references.bib`` are read here and nowhere else, in a checkout and from an installed wheel alike.
The environment variable ``PDEBOOK_HOME`` points to another book: a folder with ``chapters/``, ``book/results/``,
``book/references.bib`` and, if it has papers of its own, ``pdebook/papers.toml``.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = [
    "PLACEHOLDER",
    "Book",
    "Home",
    "Paper",
    "Part",
    "Reference",
    "bibliography",
    "bibliography_path",
    "book",
    "chapter_path",
    "checkout",
    "closest",
    "home",
    "notebook_paths",
    "paper",
    "papers",
    "papers_path",
    "part",
    "parts",
    "reference",
    "repository_is_placeholder",
    "results_path",
    "version",
]

PLACEHOLDER = "https://github.com/OWNER/pdebook"
STATES = ("planned", "ready")
_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Book:
    """What belongs to the book as a whole: title, licences, and its home on the web."""

    title: str
    repository: str
    subtitle: str = ""
    license: str = "MIT"
    license_prose: str = "CC BY 4.0"


@dataclass(frozen=True)
class Home:
    """Where a version of the book lives on the web; links are empty while that is a placeholder."""

    repository: str
    version: str

    @property
    def is_placeholder(self) -> bool:
        """Whether the book has no home yet."""
        return self.repository == PLACEHOLDER

    def file_url(self, path: str) -> str:
        """Page of a file of the repository, given by its path from the root."""
        return "" if self.is_placeholder else f"{self.repository}/blob/v{self.version}/{path}"

    def source_url(self, name: str) -> str:
        """Page of the module that holds ``name``, such as ``pdebook.rng.uniform``; empty for other libraries."""
        words = name.split(".")
        while words and words[0] == "pdebook":
            base = _PACKAGE.parent.joinpath(*words)
            file = base / "__init__.py" if base.is_dir() else base.with_name(f"{base.name}.py")
            if file.is_file():
                return self.file_url(file.relative_to(_PACKAGE.parent).as_posix())
            words.pop()
        return ""

    def colab_url(self, path: str) -> str:
        """Page that opens a notebook of the repository in Colab."""
        return self.file_url(path).replace("https://github.com/", "https://colab.research.google.com/github/")


@dataclass(frozen=True)
class Part:
    """One part of the book; its slug is the name of its package."""

    slug: str
    number: int
    title: str
    summary: str = ""


@dataclass(frozen=True)
class Paper:
    """One paper, which is one chapter: ``chapters/<part>/<slug>.ipynb`` on ``pdebook.<part>.<slug>``."""

    slug: str
    part: str
    state: str
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    claim: str
    arxiv: str = ""
    doi: str = ""
    code: str = ""
    requires: tuple[str, ...] = ()
    learn: tuple[str, ...] = ()
    prerequisites: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the chapter is written."""
        return self.state == "ready"

    @property
    def module(self) -> str:
        """Dotted name of the module that holds the paper's method."""
        return f"pdebook.{self.part}.{self.slug}"

    @property
    def url(self) -> str:
        """The paper's page: arXiv, else its DOI; empty if it has neither."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://doi.org/{self.doi}" if self.doi else ""

    @property
    def citation(self) -> str:
        """Short citation, such as ``Lu et al. 2022``."""
        names = [name.split()[-1] for name in self.authors]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        return f"{who} {self.year}"


@dataclass(frozen=True)
class Reference:
    """One entry of the bibliography: its text as Markdown and plain, and the pages that it links to."""

    key: str
    markdown: str
    text: str
    urls: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.markdown


def checkout() -> Path | None:
    """Root of the book's sources (``chapters/``, ``book/``), or None in an installed wheel."""
    if home := os.environ.get("PDEBOOK_HOME"):
        return Path(home).resolve()
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "book").is_dir() else None


def papers_path() -> Path:
    """The catalogue file."""
    root = checkout()
    own = root / "pdebook" / "papers.toml" if root else None
    return own if own and own.is_file() else _PACKAGE / "papers.toml"


def results_path() -> Path:
    """Folder of the recorded runs."""
    root = checkout()
    return root / "book" / "results" if root else _PACKAGE / "_book" / "results"


def bibliography_path() -> Path:
    """The BibTeX file of the whole book."""
    root = checkout()
    return root / "book" / "references.bib" if root else _PACKAGE / "_book" / "references.bib"


def chapter_path(slug: str) -> Path:
    """The notebook of a chapter. Raises ValueError for an unknown slug, or where there are only installed files."""
    entry, root = paper(slug), checkout()
    if root is None:
        raise ValueError(
            "the chapters' notebooks are not part of an installed pdebook: "
            "clone the repository, or set PDEBOOK_HOME to a clone"
        )
    return root / "chapters" / entry.part / f"{slug}.ipynb"


def notebook_paths() -> tuple[Path, ...]:
    """The notebooks that exist, in book order."""
    return tuple(path for p in papers() if (path := chapter_path(p.slug)).is_file())


def version() -> str:
    """Version of the library; a checkout's ``pyproject.toml`` counts, since a release is ahead of what is installed."""
    root = checkout()
    if root and (file := root / "pyproject.toml").is_file():
        return str(tomllib.loads(file.read_text("utf-8"))["project"]["version"])
    return metadata.version("pdebook")


def closest(name: str, what: str, choices: Iterable[str]) -> ValueError:
    """The error for an unknown ``name``: says what it is, and which choices come close (else all of them)."""
    known = list(choices)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"choose from {', '.join(known) or 'none'}"
    return ValueError(f"unknown {what} {name!r}: {hint}")


def book() -> Book:
    """The book's own entry."""
    return _catalogue()[0]


def parts() -> tuple[Part, ...]:
    """All parts in book order."""
    return _catalogue()[1]


def papers() -> tuple[Paper, ...]:
    """All papers in book order."""
    return _catalogue()[2]


def paper(slug: str) -> Paper:
    """The paper of a chapter. Raises ValueError with close matches if there is none."""
    found = {p.slug: p for p in papers()}
    if slug not in found:
        raise closest(slug, "chapter", found)
    return found[slug]


def part(slug: str) -> Part:
    """One part of the book. Raises ValueError with close matches if there is none."""
    found = {p.slug: p for p in parts()}
    if slug not in found:
        raise closest(slug, "part", found)
    return found[slug]


def home() -> Home:
    """The book's home at this version."""
    return Home(book().repository, version())


def repository_is_placeholder() -> bool:
    """Whether the book has no home on the web yet."""
    return home().is_placeholder


def _catalogue() -> tuple[Book, tuple[Part, ...], tuple[Paper, ...]]:
    path = papers_path()
    return _read_catalogue(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read_catalogue(path: Path, modified: int) -> tuple[Book, tuple[Part, ...], tuple[Paper, ...]]:
    """Parse and check the catalogue; ``modified`` keeps the cache honest."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}") from error
    home = _table(Book, data.get("book", {}), "[book]")
    all_parts = tuple(_table(Part, row, f"part {row.get('slug', '?')!r}") for row in data.get("part", []))
    all_papers = tuple(_table(Paper, row, f"paper {row.get('slug', '?')!r}") for row in data.get("paper", []))
    known_parts = _unique("part", (p.slug for p in all_parts))
    known_papers = _unique("paper", (p.slug for p in all_papers))
    for p in all_papers:
        if p.state not in STATES:
            raise ValueError(f"paper {p.slug!r}: state is {p.state!r}, expected one of {', '.join(STATES)}")
        if p.part not in known_parts:
            raise ValueError(f"paper {p.slug!r}: part {p.part!r} is not in the catalogue")
        if unknown := [slug for slug in p.requires if slug not in known_papers or slug == p.slug]:
            raise ValueError(f"paper {p.slug!r}: requires names {unknown}, which are not other papers of the catalogue")
        if not p.authors:
            raise ValueError(f"paper {p.slug!r}: authors is empty")
        if p.ready and not p.learn:
            raise ValueError(f"paper {p.slug!r} is ready, so its card needs 'learn'")
    return home, all_parts, all_papers


def _table(kind: Any, row: dict[str, Any], where: str) -> Any:
    """A dataclass from one TOML table, with unknown and missing keys and wrong types reported by name."""
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(row) - set(known)):
        raise ValueError(f"{where}: unknown key {unknown[0]!r}, expected {', '.join(known)}")
    if missing := [name for name, f in known.items() if f.default is MISSING and name not in row]:
        raise ValueError(f"{where}: {missing[0]!r} is missing")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    for name, value in values.items():
        annotation: Any = known[name].type
        expected = annotation if isinstance(annotation, type) and annotation in (str, int) else tuple
        if not isinstance(value, expected) or (isinstance(value, tuple) and not all(isinstance(v, str) for v in value)):
            raise ValueError(f"{where}: {name!r} is {value!r}, expected {expected.__name__}")
    return kind(**values)


def _unique(what: str, slugs: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    for slug in slugs:
        if slug in seen:
            raise ValueError(f"{what} {slug!r} stands twice in the catalogue")
        seen.add(slug)
    return seen


def bibliography() -> dict[str, Reference]:
    """All entries of ``references.bib`` by key, formatted; empty if there is no such file."""
    path = bibliography_path()
    return _read_bibliography(path, path.stat().st_mtime_ns) if path.is_file() else {}


def reference(slug: str) -> Reference | None:
    """The bibliography's entry of a chapter's own paper (by key, else by arXiv number or DOI), or None."""
    entry, entries = paper(slug), bibliography()
    if slug in entries:
        return entries[slug]
    pages = {entry.url, f"https://doi.org/{entry.doi}"} - {"", "https://doi.org/"}
    return next((ref for ref in entries.values() if pages & set(ref.urls)), None)


@lru_cache(maxsize=8)
def _read_bibliography(path: Path, modified: int) -> dict[str, Reference]:
    from pybtex.database import parse_file  # slow to import, and only references need it

    return {key: _format_entry(key, entry) for key, entry in parse_file(str(path), "bibtex").entries.items()}


def _format_entry(key: str, entry: Any) -> Reference:
    """``Authors (year). Title. Venue. link`` from a pybtex entry, titles in the case in which the file has them."""
    from pybtex.richtext import Text

    def plain(name: str) -> str:
        return str(Text.from_latex(" ".join(entry.fields[name].split()))) if name in entry.fields else ""

    people = [
        " ".join(
            str(Text.from_latex(" ".join(names)))
            for names in (p.first_names + p.middle_names, p.prelast_names + p.last_names)
            if names
        )
        for p in entry.persons.get("author", entry.persons.get("editor", []))
    ]
    if len(people) > 6:
        people = [*people[:5], "and others"]
    elif len(people) > 1:
        people[-2:] = [f"{people[-2]} and {people[-1]}"]
    venue = next(
        (v for name in ("journal", "booktitle", "publisher", "school", "howpublished") if (v := plain(name))), ""
    )
    volume = plain("volume") + (f"({plain('number')})" if plain("number") else "")
    venue = ", ".join(piece for piece in (venue, volume, plain("pages").replace("--", "–")) if piece)
    doi, eprint = entry.fields.get("doi", ""), entry.fields.get("eprint", "")
    links = {
        f"https://arxiv.org/abs/{eprint}": f"arXiv:{eprint}" if eprint else "",
        f"https://doi.org/{doi}": f"doi:{doi}" if doi else "",
    }
    urls = [url for url, label in links.items() if label]
    if (url := entry.fields.get("url", "")) and url not in urls:
        urls.append(url)
    head = f"{', '.join(people)} ({plain('year') or 'n.d.'}). "
    title = plain("title").rstrip(".")
    tail = f". {venue}." if venue else "."
    shown = [f"[{_escape(links.get(u) or u)}]({u})" for u in urls]
    markdown = f"{_escape(head)}*{_escape(title)}*{_escape(tail)} {', '.join(shown)}".strip()
    return Reference(key, markdown, f"{head}{title}{tail} {', '.join(urls)}".strip(), tuple(urls))


def _escape(text: str) -> str:
    """Text with Markdown's own characters taken literally."""
    return re.sub(r"([\\`*_\[\]<>$])", r"\\\1", text)

"""The catalogue: what it holds, what it refuses, and where the book's files lie."""

from pathlib import Path

import pytest
from tiny_book import BIBLIOGRAPHY, PAPERS, make_book

from pdebook import catalogue


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_book(tmp_path, [])
    monkeypatch.setenv("PDEBOOK_HOME", str(tmp_path))
    return tmp_path


def test_reads_papers_in_book_order_with_their_links() -> None:
    demo, later = catalogue.papers()
    assert (demo.slug, demo.ready, demo.module, demo.requires) == ("demo", True, "pdebook.toys.demo", ("later",))
    assert demo.url == "https://arxiv.org/abs/2001.00001"
    assert later.url == "https://doi.org/10.1/33"
    assert demo.citation == "One et al. 2020"
    assert later.citation == "Four 2021"
    assert catalogue.part("toys").title == "Toys"


def test_paths_follow_the_home(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalogue.chapter_path("demo") == book / "chapters/toys/demo.ipynb"
    assert catalogue.notebook_paths() == (book / "chapters/toys/demo.ipynb",)
    assert catalogue.version() == "0.1.0"
    installed = book / "site-packages" / "pdebook"
    installed.mkdir(parents=True)
    (installed / "papers.toml").write_text(PAPERS)
    monkeypatch.delenv("PDEBOOK_HOME")
    monkeypatch.setattr(catalogue, "_PACKAGE", installed)
    assert catalogue.results_path() == installed / "_book/results"
    assert catalogue.bibliography_path() == installed / "_book/references.bib"
    assert catalogue.bibliography() == {}
    with pytest.raises(ValueError, match="clone the repository"):
        catalogue.chapter_path("demo")


def test_a_changed_catalogue_is_read_again(book: Path) -> None:
    assert catalogue.book().title == "A tiny book"
    (book / "pdebook/papers.toml").write_text(PAPERS.replace("A tiny book", "Another book with a longer title"))
    assert catalogue.book().title == "Another book with a longer title"


@pytest.mark.parametrize(("name", "words"), [("dmo", "did you mean 'demo'"), ("zzzzzz", "choose from demo, later")])
def test_unknown_chapter_names_what_comes_close(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"unknown chapter {name!r}: {words}"):
        catalogue.paper(name)
    with pytest.raises(ValueError, match="unknown part"):
        catalogue.part(name)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('state = "planned"', 'state = "soon"', "state is 'soon', expected one of planned, ready"),
        ('slug = "later"\npart = "toys"', 'slug = "later"\npart = "games"', "part 'games' is not in the catalogue"),
        ('requires = ["later"]', 'requires = ["demo"]', "requires names"),
        ('requires = ["later"]', 'requires = ["never"]', "never"),
        ('slug = "later"', 'slug = "demo"', "'demo' stands twice"),
        ("year = 2021", 'year = "2021"', "'year' is '2021', expected int"),
        ("year = 2021", "", "'year' is missing"),
        ("year = 2021", "yaer = 1\nyear = 2021", "unknown key 'yaer'"),
        ('learn = ["Run a demo"]', "learn = [1]", "'learn' is"),
        ('learn = ["Run a demo"]', "", "its card needs 'learn'"),
        ('authors = ["Dee Four"]', "authors = []", "authors is empty"),
        ("[[part]]", "[[part", "not valid TOML"),
    ],
)
def test_a_wrong_catalogue_is_refused_by_name(book: Path, old: str, new: str, words: str) -> None:
    assert old in PAPERS
    (book / "pdebook/papers.toml").write_text(PAPERS.replace(old, new, 1) + "\n" * len(words))
    with pytest.raises(ValueError, match=words):
        catalogue.papers()


def test_bibliography_is_formatted_and_escaped() -> None:
    entries = catalogue.bibliography()
    one = entries["one2020"]
    assert str(one) == (
        "Ada One and Bo Müller (2020). *A Demo of ODE Demos\\_2*. DEMO, 1–9. "
        "[arXiv:2001.00001](https://arxiv.org/abs/2001.00001)"
    )
    assert entries["four2021"].text == (
        "Dee Four (2021). Later. J. Later, 3(2). https://doi.org/10.1/33, https://example.org/later"
    )


def test_a_paper_finds_its_own_reference_by_its_page_or_key(book: Path) -> None:
    demo, later = catalogue.reference("demo"), catalogue.reference("later")
    assert demo is not None
    assert later is not None
    assert (demo.key, later.key) == ("one2020", "four2021")
    (book / "book/references.bib").write_text(BIBLIOGRAPHY.replace("four2021", "demo"))
    own = catalogue.reference("demo")
    assert own is not None
    assert own.key == "demo"


def test_long_author_lists_are_cut(book: Path) -> None:
    many = " and ".join(f"{letter}, Al" for letter in "ABCDEFG")
    (book / "book/references.bib").write_text(f"@misc{{m, author = {{{many}}}, title = {{T}}, year = 2020}}")
    assert catalogue.bibliography()["m"].text == "Al A, Al B, Al C, Al D, Al E, and others (2020). T."


def test_home_links_only_once_there_is_one() -> None:
    nowhere = catalogue.home()
    assert nowhere.is_placeholder
    assert catalogue.repository_is_placeholder()
    assert nowhere.source_url("pdebook.catalogue.paper") == nowhere.colab_url("chapters/x.ipynb") == ""
    home = catalogue.Home("https://github.com/me/book", "1.2.3")
    assert (
        home.source_url("pdebook.catalogue.Paper.url") == "https://github.com/me/book/blob/v1.2.3/pdebook/catalogue.py"
    )
    assert home.source_url("pdebook") == "https://github.com/me/book/blob/v1.2.3/pdebook/__init__.py"
    assert home.source_url("torch.nn.Linear") == ""
    assert home.colab_url("c/x.ipynb") == "https://colab.research.google.com/github/me/book/blob/v1.2.3/c/x.ipynb"

"""The Sphinx extension by itself: docstrings as reStructuredText, the map, citations."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import docutils.core
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pdebook_sphinx.docstrings import to_rest
from pdebook_sphinx.index import depth, draw_map
from pdebook_sphinx.pages import citation, paper_bibtex, report_url
from pybtex.database import parse_string

from pdebook import catalogue
from pdebook.records import Claim, Record, method_hash


def rest(text: str) -> str:
    return "\n".join(to_rest(text.split("\n")))


def render(source: str) -> str:
    """XML of the document; any complaint of docutils is an error."""
    settings = {"halt_level": 2, "report_level": 2, "input_encoding": "unicode", "warning_stream": False}
    return docutils.core.publish_string(source, writer_name="pseudoxml", settings_overrides=settings).decode()


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("Norm |u| <= 1 and |v|, shape (*batch, n).", "|u| <= 1 and |v|, shape (*batch, n)"),
        ("A name x_ and y_1, twice *bold.", "x_ and y_1, twice *bold"),
        ("Equation:\n\n    u_t + |u| u_x = nu u_xx\n\nand more.", "<literal_block"),
        ("So:\nthe flow is\n\n    x = |y|\n\nagain.", "<literal_block"),
        ("Inline $\\lambda_t = \\log(\\alpha/\\sigma)$ is a half SNR.", "<math>"),
        ("A display\n\n$$\nx_t = \\alpha_t x_0\n$$\n\nends.", "<math_block"),
        ("Code `a*b` and ``c|d``.", "<literal>"),
        ("Table:\n\n| module | holds |\n|---|---|\n| `a` | one |\n| b | *two |\n\nend.", "<table"),
        ("List:\n\n- one\n- two *x", "<bullet_list"),
        ("Escape \\lambda outside of math.", "\\lambda"),
        ("Example::\n\n    a | b *c\n\nend.", "a | b *c"),
        ("Rounded `x`s and y.", "<literal>"),
    ],
)
def test_docstrings_become_valid_markup(text: str, holds: str) -> None:
    assert holds in render(rest(text))


def test_arguments_keep_their_section_for_napoleon() -> None:
    text = "Do it.\n\nArgs:\n    x: the state, |x| < 1.\n\n    more: *batch first.\nRaises:\n    ValueError: x is bad."
    assert rest(text).split("\n")[2:4] == ["Args:", "    x: the state, \\|x\\| < 1."]
    assert "::" not in rest(text)


@given(st.text(st.sampled_from("ab*|_ .,()^{}=<>-\n"), max_size=80))
def test_any_prose_without_markup_survives(text: str) -> None:
    """What was escaped is printed as it was written."""
    line = "x " + re.sub(r"\s+", " ", text).strip() + " z"
    shown = render(rest(line)).split("<paragraph>", 1)[1]
    assert shown.split() == line.split()


def test_map_is_valid_and_flows_to_the_right() -> None:
    links = {paper.slug: f"#chapter-{paper.slug}" for paper in catalogue.papers()}
    tree = ET.fromstring(draw_map(links))
    boxes = {box.get("data-slug"): box for box in tree.iter("a")}
    assert set(boxes) == set(links)
    place = {slug: float(box.find("rect").get("x")) for slug, box in boxes.items()}
    corners = [(box.find("rect").get("x"), box.find("rect").get("y")) for box in boxes.values()]
    assert len(corners) == len(set(corners)), "no box lies on another"
    arrows = [(path.get("data-from"), path.get("data-to")) for path in tree.iter("path") if path.get("data-from")]
    assert sorted(arrows) == sorted((need, paper.slug) for paper in catalogue.papers() for need in paper.requires)
    assert all(place[source] < place[target] for source, target in arrows)
    assert max(map(depth, catalogue.papers())) >= 2


def test_citations_are_valid_bibtex() -> None:
    paper = catalogue.paper("dpm_solver")
    text, bibtex = citation("chapters/diffusion/dpm_solver", paper.title, "2026", "https://example.org/x.html")
    entry = parse_string(bibtex, "bibtex").entries["pdebook-dpm_solver"]
    assert entry.type == "incollection"
    assert paper.title in text
    assert entry.fields["version"] == catalogue.version()
    assert [str(person) for person in entry.persons["author"]] == ["{The pdebook contributors}"]
    book = parse_string(citation("book/intro", "", "2026", "https://example.org")[1], "bibtex").entries["pdebook"]
    assert book.type == "book"
    assert parse_string(paper_bibtex(paper), "bibtex").entries["dpm_solver"].fields["year"] == "2022"


def test_report_goes_to_the_book_s_own_repository() -> None:
    assert report_url("book/intro").startswith(f"{catalogue.book().repository}/issues/new?")
    assert "Error+on+page+book%2Fintro" in report_url("book/intro")


@pytest.fixture
def small_book(tmp_path: Path, root: Path) -> Path:
    """Sources of a book of two pages, with the real catalogue and no records."""
    for folder in ("book/results", "pdebook", "chapters/diffusion"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pdebook/papers.toml").write_text((root / "pdebook/papers.toml").read_text("utf-8"), "utf-8")
    for paper in catalogue.papers():
        if paper.ready:
            page = tmp_path / f"chapters/{paper.part}/{paper.slug}.md"
            page.parent.mkdir(exist_ok=True)
            page.write_text("---\norphan: true\n---\n\n# A chapter\n", "utf-8")
    for name, directive in (("index", "scorecards"), ("arena", "arena")):
        (tmp_path / f"{name}.md").write_text(f"---\norphan: true\n---\n\n# A\n\n```{{{directive}}}\n```\n", "utf-8")
    return tmp_path


def build(book: Path, root: Path) -> str:
    """Text of both pages, built with what is left of earlier builds."""
    command = [sys.executable, "-m", "sphinx", "-C", "-q", "-b", "html", "-D", "html_theme=basic"]
    command += ["-D", "extensions=myst_parser,pdebook_sphinx"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "book/_ext"), str(root)])}
    done = subprocess.run([*command, str(book), str(book / "_build")], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    pages = (book / f"_build/{name}.html" for name in ("index", "arena"))
    return re.sub(r"<[^>]+>", "", "".join(page.read_text("utf-8") for page in pages))


@pytest.mark.slow
def test_measured_pages_follow_the_records_and_never_fail(small_book: Path, root: Path) -> None:
    results = small_book / "book/results"
    page = build(small_book, root)
    assert "not recorded yet pdebook run dpm_solver" in page
    assert "No comparison has been recorded yet" in page

    (results / "dpm_solver.quick.json").write_text("{half a rec", "utf-8")
    (results / "arena_operators.json").write_text("[]", "utf-8")
    page = build(small_book, root)
    assert page.count("the record is damaged") == 2

    claim = Claim("order-3", "third order", "at least 2.7", 3.0421, True, broken=1.94)
    modules = ("pdebook.metrics.order",)
    run = {"slug": "dpm_solver", "profile": "quick", "seed": 0, "device": "cpu", "seconds": 41.0, "peak_memory": 1.0}
    for method, word in ((method_hash(modules), "current"), ("0" * 64, "stale: the code has changed since")):
        record = Record(**run, claims=(claim,), modules=modules, method=method, date="2026-01-02")
        (results / "dpm_solver.quick.json").write_text(record.to_json(), "utf-8")
        page = build(small_book, root)
        assert f"Quick profile {word} cpu, 41 s, seed 0, 2026-01-02" in page
        assert all(cell in page for cell in ("✓ order-3 · third order", "3.042", "1.94", "at least 2.7"))

    rows = [{"method": "DDIM", "error_at_10": 0.123456}, {"method": "UniPC", "error_at_10": None}]
    rows.append({"method": "Euler", "error_at_10": 0.5})
    provenance = {"seed": 0, "device": "cpu", "processor": "A CPU", "seconds": 1.0, "date": "2026-01-02", "commit": "c"}
    arena = {"format": 1, "part": "diffusion", "profile": "quick", "modules": modules, "method": "0", **provenance}
    (results / "arena_diffusion.json").write_text(json.dumps(arena | {"results": {"On a ring": rows}}), "utf-8")
    page = build(small_book, root)
    assert all(cell in page for cell in ("On a ring", "error at 10", "0.1235", "UniPC", "A CPU, 1 s, seed 0"))
    # The best of a column stands out.
    source = (small_book / "_build/arena.html").read_text("utf-8")
    assert "<strong>0.1235</strong>" in source
    assert "<strong>0.5</strong>" not in source

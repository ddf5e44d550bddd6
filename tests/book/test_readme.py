"""README, CONTRIBUTING and the prose pages say what is true: tables as in the catalogue, links, commands and code that work.

``python tests/book/test_readme.py`` writes the tables of chapters anew after the catalogue has changed.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pdebook import catalogue
from pdebook.catalogue import Paper

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- chapters:begin -->", "<!-- chapters:end -->"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
CODE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"`+(?:\$ )?pdebook ([a-z]+)|^\$ pdebook ([a-z]+)", re.MULTILINE)
TARGET = re.compile(r"(?:`|^\$ )make ([a-z]+)", re.MULTILINE)
GUIDES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"book/{name}.md" for name in ("how_to_read", "how_to_run", "intro", "teach")),
]


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def describe(paper: Paper, chapter: str) -> list[str]:
    """Chapter, paper and state, as they stand in every table."""
    state = "**ready**" if paper.ready else "planned"
    return [chapter, f"[{paper.citation}]({paper.url}), {paper.title}", state]


def readme_table() -> str:
    """All papers in book order; the name of a part stands beside its first chapter."""
    lines = [row(["part", "chapter", "paper", "state"]), "|---|---|---|---|"]
    last = ""
    for paper in catalogue.papers():
        part = catalogue.part(paper.part)
        slug = f"`{paper.slug}`"
        chapter = f"[{slug}](chapters/{paper.part}/{paper.slug}.ipynb)" if paper.ready else slug
        lines.append(row([f"{part.number}. {part.title}" if paper.part != last else "", *describe(paper, chapter)]))
        last = paper.part
    return "\n".join(lines)


def part_table(part: str) -> str:
    """The papers of one part, for its introduction; a planned chapter leads to the list of all chapters."""
    lines = [row(["chapter", "paper", "state"]), "|---|---|---|"]
    for paper in catalogue.papers():
        if paper.part == part:
            page = f"../../chapters/{part}/{paper.slug}.ipynb" if paper.ready else "../chapters.md"
            lines.append(row(describe(paper, f"[{paper.slug}]({page})")))
    return "\n".join(lines)


def tables() -> dict[Path, str]:
    """The table of each file that has one."""
    parts = {ROOT / f"book/parts/{part.slug}.md": part_table(part.slug) for part in catalogue.parts()}
    return {ROOT / "README.md": readme_table(), **parts}


def with_table(text: str, table: str) -> str:
    """``text`` with ``table`` between its two markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


@pytest.mark.parametrize("path", tables(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_table_is_that_of_the_catalogue(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text == with_table(text, tables()[path]), "run `python tests/book/test_readme.py`"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_to_files(name: str) -> None:
    # Sphinx checks the links of the pages under book/.
    targets = [link for link in LINK.findall((ROOT / name).read_text("utf-8")) if "://" not in link]
    assert targets
    assert [link for link in targets if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", GUIDES)
def test_commands_exist(name: str) -> None:
    typer = pytest.importorskip("typer")
    from pdebook.cli import app

    text = (ROOT / name).read_text("utf-8")
    commands = {first or second for first, second in COMMAND.findall(text)}
    assert commands <= set(typer.main.get_command(app).commands)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert {
        target for target in TARGET.findall(text) if not re.search(rf"^{target}\b.*:", makefile, re.MULTILINE)
    } == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "book/how_to_run.md"])
def test_code_runs(name: str, tmp_path: Path) -> None:
    blocks = [code for language, code in CODE.findall((ROOT / name).read_text("utf-8")) if language == "python"]
    assert blocks
    for code in blocks:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "evaluations" in done.stdout


def test_licences_and_the_digits_are_named() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for words in ("MIT License", "CC BY 4.0", "https://doi.org/10.24432/C50P49", "CITATION.cff"):
        assert words in readme


if __name__ == "__main__":
    for file, table in tables().items():
        file.write_text(with_table(file.read_text("utf-8"), table), "utf-8")
        print(f"Wrote {file.relative_to(ROOT)}")

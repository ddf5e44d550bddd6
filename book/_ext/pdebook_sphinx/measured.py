"""Pages made from recorded runs: the scorecard of the whole book, and the part-wide comparisons.

A run that was never recorded, or that was made with older code, is marked and never an error. Both pages are read anew
in every build: whether a record still stands depends on the library's code.
"""

import json
from collections.abc import Mapping
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from pdebook import catalogue, records
from pdebook.catalogue import Paper, Part
from pdebook.records import Record
from pdebook.scorecard import Scorecard, format_number
from pdebook_sphinx.markup import BookDirective, badge, chapter_link, table

STATUS_TEXT = {
    "current": "current",
    "stale": "stale: the code has changed since",
    "missing": "not recorded yet",
    "damaged": "the record is damaged",
}


def provenance(run: Mapping[str, Any]) -> str:
    """Where and when a run was made, from the fields that records and comparisons share."""
    return (
        f"{run['processor'] or run['device']}, {format_number(run['seconds'])} s, seed {run['seed']}, "
        f"{run['date'] or 'undated'}, commit {run['commit']}"
    )


class Measured(BookDirective):
    """What both pages share: one line that says where a run comes from and whether it still stands."""

    def run_line(self, profile: str, command: str, run: Mapping[str, Any] | None, state: str) -> nodes.paragraph:
        """``Quick profile: CPU, 41 s, ... [current]``, or the command that would record it."""
        line = nodes.paragraph(classes=["pde-run"])
        line += [nodes.strong(profile, profile), nodes.Text(" "), badge(STATUS_TEXT[state], state), nodes.Text(" ")]
        line += nodes.Text(provenance(run)) if run else nodes.literal(command, command)
        return line


class Scorecards(Measured):
    """The claims of every ready chapter, by part."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for part in catalogue.parts():
            papers = [paper for paper in catalogue.papers() if paper.part == part.slug and paper.ready]
            if papers:
                section = self.section(f"Part {part.number}. {part.title}", f"scores-{part.slug}")
                section += [self.chapter(paper) for paper in papers]
                found.append(section)
        self.env.note_reread()
        return found

    def chapter(self, paper: Paper) -> nodes.section:
        """One chapter: where its two runs come from, and its claims."""
        section = nodes.section(ids=[f"score-{paper.slug.replace('_', '-')}"], names=[f"score-{paper.slug}"])
        section += nodes.title(paper.title, paper.title)
        section += nodes.paragraph("", "", chapter_link(paper, "Chapter"), nodes.Text(f" on {paper.citation}"))
        runs: dict[str, Record | None] = {}
        for profile, option in (("quick", ""), ("full", " --profile full --record")):
            runs[profile], state = records.status(paper.slug, profile)
            run = vars(runs[profile]) if runs[profile] else None
            section += self.run_line(f"{profile.capitalize()} profile", f"pdebook run {paper.slug}{option}", run, state)
        shown = runs["quick"] or runs["full"]
        if shown:
            card = Scorecard(paper.slug, shown.claims if runs["quick"] else (), here="")
            head = ["quick profile" if name == "measured here" else name for name in card.COLUMNS]
            rows = [[[nodes.Text(cell)] for cell in row] for row in card.rows()]
            section += table(head, rows, ["pde-scorecard"])
        return section


class Arena(Measured):
    """The recorded comparisons, by part."""

    def run(self) -> list[nodes.Node]:
        sections = [self.part(part) for part in catalogue.parts() if records.arena_path(part.slug).is_file()]
        self.env.note_reread()
        if sections:
            return sections
        note = nodes.note(classes=["pde-empty"])
        text = "No comparison has been recorded yet. `pdebook arena PART` makes one, where a part has an arena."
        note += nodes.paragraph("", "", *self.text(text))
        return [note]

    def part(self, part: Part) -> nodes.section:
        """One part: where the comparison comes from, and its tables."""
        section = self.section(f"Part {part.number}. {part.title}", f"arena-{part.slug}")
        command = f"pdebook arena {part.slug}"
        try:
            run = records.read_arena(part.slug)
        except ValueError:
            run = None
        if run is None:
            section += self.run_line("Comparison", command, None, "damaged")
            return section
        section += self.run_line(f"{str(run['profile']).capitalize()} profile", command, run, run["status"])
        results = run["results"]
        tables = results if isinstance(results, dict) else {"": results}
        for title, rows in tables.items():
            if title:
                section += nodes.rubric(title, title)
            section += self.results(rows)
        return section

    def results(self, rows: Any) -> nodes.Node:
        """Rows of equal keys as a table, anything else as it was recorded; of methods the smallest of each column is strong."""
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            head = list(dict.fromkeys(key for row in rows for key in row))
            best = {key: _smallest(rows, key) if "method" in head else None for key in head}
            cells = [[[_mark(row.get(key), best[key])] for key in head] for row in rows]
            return table([name.replace("_", " ") for name in head], cells, ["pde-arena"])
        text = json.dumps(rows, indent=1, ensure_ascii=False)
        return nodes.literal_block(text, text, language="json")


def _smallest(rows: list[dict[str, Any]], key: str) -> float | None:
    return min((row[key] for row in rows if isinstance(row.get(key), float)), default=None)


def _mark(value: Any, best: float | None) -> nodes.Node:
    text = _cell(value)
    return nodes.strong(text, text) if isinstance(value, float) and value == best else nodes.Text(text)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return format_number(value) if isinstance(value, float) else str(value)


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("scorecards", Scorecards)
    app.add_directive("arena", Arena)

"""The table that ends a chapter: each claim with the number of the paper, the measured ones, and the bound."""

import html
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pdebook.records import Claim, Status, status

__all__ = ["Scorecard", "format_number"]


def format_number(value: float | None) -> str:
    """A measured value with four significant digits; empty for None."""
    return "" if value is None else f"{value:.4g}"


@dataclass(frozen=True)
class Scorecard:
    """A chapter's claims as a table: HTML where it can be shown, aligned text elsewhere."""

    slug: str
    claims: Sequence[Claim]
    here: str

    COLUMNS: ClassVar[tuple[str, ...]] = ("claim", "paper", "measured here", "broken variant", "bound", "full scale")

    def rows(self) -> list[tuple[str, ...]]:
        """One row a claim, in the order of ``COLUMNS``."""
        record, state = status(self.slug, "full")
        full = {claim.id: claim for claim in record.claims} if record else {}
        return [
            (
                f"{claim.line[0]} {claim.id} · {claim.text}",
                claim.paper or "not verified",
                format_number(claim.measured) + ("" if claim.reproduced else " (not reproduced)"),
                format_number(claim.broken),
                claim.bound,
                _full_scale(claim, full.get(claim.id), state),
            )
            for claim in self.claims
        ]

    def caption(self) -> str:
        """Where the numbers come from."""
        record, state = status(self.slug, "full")
        full = f"{state}" if record is None else f"{record.processor}, {record.date}, commit {record.commit} ({state})"
        return f"Here: {self.here}. Full scale: {full}."

    def __str__(self) -> str:
        widths, lines = (44, 14, 16, 14, 20, 16), []
        for row in [self.COLUMNS, *self.rows()]:
            cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
            for i in range(max(map(len, cells))):
                words = (cell[i] if i < len(cell) else "" for cell in cells)
                lines.append("  ".join(word.ljust(w) for word, w in zip(words, widths, strict=True)).rstrip())
        return "\n".join([*lines, self.caption()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(cells: Iterable[str], tag: str) -> str:
            style = ' style="text-align: left"'
            return f"<tr>{''.join(f'<{tag}{style}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

        body = "".join(line(row, "td") for row in self.rows())
        return (
            f'<div style="overflow-x: auto"><table><thead>{line(self.COLUMNS, "th")}</thead>'
            f"<tbody>{body}</tbody></table>"
            f"<p>{html.escape(self.caption())}</p></div>"
        )


def _full_scale(claim: Claim, full: Claim | None, state: Status) -> str:
    if full is None:
        return "damaged" if state == "damaged" else "missing"
    marks = [] if full.passed else ["failed"]
    marks += [] if full.reproduced else ["not reproduced"]
    marks += ["stale"] if state == "stale" or full.text != claim.text else []
    return format_number(full.measured) + (f" ({', '.join(marks)})" if marks else "")

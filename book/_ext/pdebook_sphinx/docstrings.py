"""Docstrings as the library writes them (Google style, Unicode or LaTeX equations) made safe for reStructuredText.

A docstring is written for the reader of the source: an equation stands indented under a sentence, ``|x|`` is a norm,
``*batch`` any number of leading axes, and a name may end in an underscore. All four mean something else in
reStructuredText. This runs before napoleon, so a docstring never has to know.
"""

import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise

from sphinx.application import Sphinx

_SECTION = re.compile(r"^[A-Z][\w ]*:$")
_BULLET = re.compile(r"^\s*([-*+]|\d+[.)])\s+")
_GRID_RULE = re.compile(r"^\s*=+( +=+)+\s*$")
_VERBATIM_SPAN = re.compile(
    r"(?P<role>:[\w:+-]+:`[^`]+`)|(?P<literal>``.+?``)|(?P<single>(?<!`)`[^`]+?`(?!`)_{0,2})|(?P<math>\$[^$]+?\$)",
    re.DOTALL,
)
_DISPLAY_MATH = re.compile(r"^\s*\$\$(.*?)\$\$\s*$", re.DOTALL)


def to_rest(lines: list[str]) -> list[str]:
    """The docstring's lines as reStructuredText that napoleon can take over.

    Indented blocks after a blank line become literal blocks, ``$$...$$`` a displayed and ``$...$`` an inline equation,
    Markdown's tables become tables, single backticks code; what is left of ``*``, ``|`` and trailing underscores is
    escaped.
    """
    out: list[str] = []
    for kind, block in _blocks(lines):
        if kind == "prose":
            out += _inline("\n".join(block)).split("\n")
        elif kind == "math":
            out += [*_directive(block, ".. math::", _DISPLAY_MATH.sub(r"\1", "\n".join(block))), ""]
        elif kind == "equation":
            out += [*_directive(block, "::", "\n".join(block)), ""]
        elif kind == "table":
            out += _table(block)
        else:
            out += block
    return out


def _directive(block: list[str], head: str, body: str) -> list[str]:
    margin = " " * max(_indent(block[0]) - 4, 0)
    return [margin + head, "", *textwrap.indent(textwrap.dedent(body).strip("\n"), margin + "    ").split("\n")]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Paragraphs with what they are: prose, verbatim, equation, math, table."""
    in_section, literal_margin, bullet_margin = False, None, None
    for paragraph in _paragraphs(lines):
        first = next((line for line in paragraph if line.strip()), "")
        if not first:
            yield "verbatim", paragraph
            continue
        margin = _indent(first)
        if literal_margin is not None and margin > literal_margin:
            yield "verbatim", paragraph
            continue
        literal_margin = None
        if bullet_margin is not None and margin <= bullet_margin and not _BULLET.match(first):
            bullet_margin = None
        if margin == 0:
            in_section = False
        last = paragraph[-1].rstrip()
        if first.lstrip().startswith((">>>", ".. ")) or _GRID_RULE.match(first):
            literal_margin = margin if first.lstrip().startswith(".. ") else None
            yield "verbatim", paragraph
        elif _DISPLAY_MATH.match("\n".join(paragraph)):
            yield "math", paragraph
        elif all(line.lstrip().startswith("|") for line in paragraph) and len(paragraph) > 2:
            yield "table", paragraph
        elif margin > 0 and not in_section and bullet_margin is None:
            yield "equation", paragraph
        else:
            heads = pairwise(paragraph)
            in_section = in_section or any(_SECTION.match(line) and _indent(below) for line, below in heads)
            if _BULLET.match(first):
                bullet_margin = margin
            if last.endswith("::"):
                literal_margin = _indent(last)
            yield "prose", paragraph


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Runs of text and runs of blank lines."""
    run: list[str] = []
    for line in lines:
        if run and bool(line.strip()) != bool(run[-1].strip()):
            yield run
            run = []
        run.append(line)
    if run:
        yield run


def _inline(text: str) -> str:
    out, position = [], 0
    for match in _VERBATIM_SPAN.finditer(text):
        out.append(_escape(text[position : match.start()]))
        span = match.group()
        if match.lastgroup == "single":
            span = f"``{span.strip('_').strip('`')}``" if not span.endswith("_") else span
        elif match.lastgroup == "math":
            span = f":math:`{span.strip('$')}`"
        # A role or literal must be followed by white space or punctuation: an escaped blank ends it and prints nothing.
        following = text[match.end() : match.end() + 1]
        out.append(span + ("\\ " if following.isalnum() else ""))
        position = match.end()
    out.append(_escape(text[position:]))
    return "".join(out)


def _escape(text: str) -> str:
    escaped = []
    for line in text.split("\n"):
        bullet = _BULLET.match(line)
        head, rest = (bullet.group(), line[bullet.end() :]) if bullet else ("", line)
        rest = re.sub(r"\\(?=\S)", r"\\\\", rest)
        rest = re.sub(r"[*|]", r"\\\g<0>", rest)
        escaped.append(head + re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", rest))
    return "\n".join(escaped)


def _table(block: list[str]) -> list[str]:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block]
    rows = [row for row in rows if not all(set(cell) <= set(":- ") for cell in row)]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'* -' if position == 0 else '  -'} {_inline(cell)}" for position, cell in enumerate(row)]
    return [*lines, ""]


def _process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    # Napoleon reads "What it is: more" under a constant or property as its type, unless the first line is empty.
    lines[:] = [""] * (what in {"data", "attribute", "property"}) + to_rest(lines)


def setup(app: Sphinx) -> None:
    """Run before napoleon, whose handler has Sphinx's default priority of 500."""
    app.connect("autodoc-process-docstring", _process, priority=400)

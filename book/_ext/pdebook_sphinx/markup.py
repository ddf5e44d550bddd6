"""Small pieces that the directives share: sections, links, badges, tables."""

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from pdebook.catalogue import Paper


class BookDirective(SphinxDirective):
    """What the directives share: inline markup, sections, HTML."""

    def text(self, source: str) -> list[nodes.Node]:
        """Inline markup of the page's own language (Markdown, with mathematics)."""
        children, messages = self.state.inline_text(source, self.lineno)
        return [*children, *messages]

    def raw(self, html: str) -> nodes.raw:
        """HTML as it is."""
        return nodes.raw("", html, format="html")

    def section(self, title: str, name: str) -> nodes.section:
        """A section with a title and an anchor of the given name."""
        section = nodes.section(ids=[name], names=[name])
        section += nodes.title(title, title)
        return section


def chapter_docname(paper: Paper) -> str:
    """Name of the chapter's page."""
    return f"chapters/{paper.part}/{paper.slug}"


def chapter_link(paper: Paper, text: str) -> nodes.Node:
    """Link to a ready chapter; the bare text of a planned one."""
    inner = nodes.inline(text, text)
    if not paper.ready:
        return inner
    target = addnodes.pending_xref(
        "", refdomain="std", reftype="doc", reftarget=f"/{chapter_docname(paper)}", refexplicit=True, refwarn=True
    )
    target += inner
    return target


def link(text: str, url: str) -> nodes.reference:
    """Link to a page elsewhere."""
    return nodes.reference(text, text, refuri=url, internal=False)


def badge(text: str, kind: str) -> nodes.inline:
    """A word in a small box: a state must be readable without its colour."""
    return nodes.inline(text, text, classes=["pde-badge", f"pde-{kind}"])


def table(head: list[str], rows: list[list[list[nodes.Node]]], classes: list[str]) -> nodes.table:
    """A table from cells of inline nodes."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    header = nodes.thead()
    header += _row([[nodes.Text(title)] for title in head])
    body = nodes.tbody()
    body += [_row(cells) for cells in rows]
    group += [header, body]
    result = nodes.table(classes=classes)
    result += group
    return result


def _row(cells: list[list[nodes.Node]]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        entry = nodes.entry()
        entry += nodes.paragraph("", "", *cell)
        row += entry
    return row

"""The list of all chapters, and the map of what to read first."""

from html import escape
from itertools import groupby

from docutils import nodes
from sphinx.application import Sphinx

from pdebook import catalogue
from pdebook.catalogue import Paper
from pdebook_sphinx.markup import BookDirective, badge, chapter_docname, chapter_link, link

BOX_WIDTH, BOX_HEIGHT, ROW, COLUMN, MARGIN, BAND_HEAD = 238, 26, 34, 310, 16, 34


class ChapterIndex(BookDirective):
    """All papers by part, each with authors, year, venue, claim, links, state and what to read first."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(catalogue.papers_path()))
        sections: list[nodes.Node] = []
        for part in catalogue.parts():
            section = self.section(f"Part {part.number}. {part.title}", f"part-{part.slug}")
            section += nodes.paragraph("", "", *self.text(part.summary))
            entries = nodes.bullet_list(classes=["pde-chapters"])
            entries += [self.entry(paper) for paper in catalogue.papers() if paper.part == part.slug]
            section += entries
            sections.append(section)
        return sections

    def entry(self, paper: Paper) -> nodes.list_item:
        """One chapter of the list; its anchor is the slug."""
        title = nodes.paragraph(classes=["pde-chapter-title"])
        title += [
            nodes.strong("", "", chapter_link(paper, paper.title)),
            nodes.Text(" "),
            badge(paper.state, paper.state),
        ]
        people = ", ".join(paper.authors)
        venue = paper.venue if str(paper.year) in paper.venue else f"{paper.venue}, {paper.year}"
        links = [nodes.literal(paper.slug, paper.slug)]
        if paper.arxiv:
            links.append(link(f"arXiv:{paper.arxiv}", f"https://arxiv.org/abs/{paper.arxiv}"))
        if paper.doi:
            links.append(link(f"doi:{paper.doi}", f"https://doi.org/{paper.doi}"))
        if paper.code:
            links.append(link("code", paper.code))
        line = nodes.paragraph(classes=["pde-chapter-links"])
        for position, item in enumerate(links):
            line += [nodes.Text(" · ")] * bool(position) + [item]
        if paper.requires:
            line += nodes.Text(" · read first: ")
            for position, slug in enumerate(paper.requires):
                line += [nodes.Text(", ")] * bool(position)
                line += nodes.reference(slug, slug, refid=f"chapter-{slug.replace('_', '-')}")
        item = nodes.list_item(ids=[f"chapter-{paper.slug.replace('_', '-')}"])
        item += [
            title,
            nodes.paragraph(people, f"{people} · {venue}", classes=["pde-chapter-authors"]),
            nodes.paragraph("", "", *self.text(paper.claim)),
            line,
        ]
        return item


class ChapterMap(BookDirective):
    """The chapters as a drawing: one band for each part, an arrow from each chapter to those that build on it.

    Says nothing that the list of chapters doesn't say in words ("read first"), so that nobody needs to see it.
    """

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(catalogue.papers_path()))
        home = self.env.app.builder
        links = {
            paper.slug: home.get_relative_uri(self.env.docname, chapter_docname(paper))
            if paper.ready
            else f"#chapter-{paper.slug.replace('_', '-')}"
            for paper in catalogue.papers()
        }
        return [self.raw(draw_map(links))]


def depth(paper: Paper) -> int:
    """Length of the longest chain of chapters that must be read before this one."""
    return max((1 + depth(catalogue.paper(slug)) for slug in paper.requires), default=0)


def draw_map(links: dict[str, str]) -> str:
    """The map as SVG: columns are depth, so every arrow points to the right; ``links`` gives the target of each box."""
    papers = catalogue.papers()
    top, boxes, bands, place = 0, [], [], {}
    columns = 1 + max(depth(paper) for paper in papers)
    width = 2 * MARGIN + (columns - 1) * COLUMN + BOX_WIDTH
    for slug, group in groupby(papers, key=lambda paper: paper.part):
        part, members = catalogue.part(slug), list(group)
        filled = [0] * columns
        for paper in members:
            column = depth(paper)
            place[paper.slug] = (MARGIN + column * COLUMN, top + BAND_HEAD + filled[column] * ROW)
            filled[column] += 1
        height = BAND_HEAD + max(filled) * ROW + 4
        bands.append(
            f'<g class="pde-band pde-part-{slug}">'
            f'<rect x="2" y="{top + 2}" width="{width - 4}" height="{height - 4}" rx="6"/>'
            f'<text x="{MARGIN}" y="{top + 22}">{part.number}. {escape(part.title)}</text></g>'
        )
        boxes += [_box(paper, *place[paper.slug], links[paper.slug]) for paper in members]
        top += height
    arrows = [_arrow(slug, paper.slug, place[slug], place[paper.slug]) for paper in papers for slug in paper.requires]
    return (
        '<div class="pde-map" tabindex="0" role="region" aria-label="Map of the chapters, scrolls sideways">'
        f'<svg viewBox="0 0 {width} {top}" role="group" aria-label="Map of the chapters">'
        '<defs><marker id="pde-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{''.join(bands)}<g class='pde-arrows' aria-hidden='true'>{''.join(arrows)}</g>{''.join(boxes)}</svg></div>"
    )


def _box(paper: Paper, x: int, y: int, target: str) -> str:
    return (
        f'<a href="{escape(target)}" class="pde-box pde-{paper.state} pde-part-{paper.part}" data-slug="{paper.slug}"'
        f' aria-label="{escape(paper.title)} ({paper.state})"><title>{escape(paper.title)} ({paper.state})</title>'
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4"/>'
        f'<text x="{x + BOX_WIDTH // 2}" y="{y + 18}" text-anchor="middle">{paper.slug}</text></a>'
    )


def _arrow(source: str, target: str, start: tuple[int, int], end: tuple[int, int]) -> str:
    (x0, y0), (x1, y1) = (start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT // 2), (end[0], end[1] + BOX_HEIGHT // 2)
    # Arrows bend in the gap right of their source, so that long ones don't run through the boxes between.
    gap = COLUMN - BOX_WIDTH
    bend = x0 + gap // 2
    path = f"M{x0} {y0}C{bend} {y0} {bend} {y1} {x0 + gap} {y1}H{x1}"
    return f'<path d="{path}" marker-end="url(#pde-arrow)" data-from="{source}" data-to="{target}"/>'


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("chapter-index", ChapterIndex)
    app.add_directive("chapter-map", ChapterMap)

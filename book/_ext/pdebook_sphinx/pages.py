"""What stands at the foot of each page: version, how to cite it, how to report an error."""

from typing import Any
from urllib.parse import urlencode

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from pdebook import catalogue
from pdebook.catalogue import Paper

AUTHORS = "The pdebook contributors"


def chapter_of(pagename: str) -> Paper | None:
    """The paper of a chapter's page, None for every other page."""
    if not pagename.startswith("chapters/"):
        return None
    return catalogue.paper(pagename.rsplit("/", 1)[-1])


def citation(pagename: str, title: str, year: str, url: str) -> tuple[str, str]:
    """Plain text and BibTeX for a page: a chapter is cited as a part of the book, any other page as the book."""
    book, version, paper = catalogue.book(), catalogue.version(), chapter_of(pagename)
    name = f"{book.title}: {book.subtitle}" if book.subtitle else book.title
    entry = {"author": f"{{{AUTHORS}}}"}
    if paper:
        text = f"{AUTHORS} ({year}). {title}. In {name}, version {version}. {url}"
        entry |= {"title": f"{{{title}}}", "booktitle": f"{{{name}}}"}
    else:
        text = f"{AUTHORS} ({year}). {name}, version {version}. {url}"
        entry |= {"title": f"{{{name}}}"}
    entry |= {"year": year, "version": version, "url": url}
    kind, key = ("incollection", f"pdebook-{paper.slug}") if paper else ("book", "pdebook")
    fields = ",\n".join(f"  {field:<9} = {{{value}}}" for field, value in entry.items())
    return text, f"@{kind}{{{key},\n{fields}\n}}"


def paper_bibtex(paper: Paper) -> str:
    """The paper's own entry of the bibliography, as BibTeX."""
    from pybtex.database import parse_file

    reference = catalogue.reference(paper.slug)
    if reference is None:
        return ""
    entry = parse_file(str(catalogue.bibliography_path()), "bibtex").entries[reference.key]
    return str(entry.to_string("bibtex")).strip()


def report_url(pagename: str) -> str:
    """New-issue page of the repository with page and version filled in."""
    query = {
        "title": f"Error on page {pagename}",
        "body": f"Page: {pagename}\nVersion: {catalogue.version()}\n\nWhat is wrong, and what should stand there?\n",
    }
    return f"{catalogue.book().repository}/issues/new?{urlencode(query)}"


def add_tools(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the template ``page-tools.html`` what it shows."""
    paper = chapter_of(pagename) if doctree is not None else None
    home = app.config.html_baseurl.rstrip("/")
    url = f"{home}/{pagename}.html" if home else catalogue.book().repository
    title = next(iter(doctree.findall(nodes.title))).astext() if doctree is not None else ""
    text, bibtex = citation(pagename if paper else "", title, app.config.copyright, url)
    context["page_tools"] = {
        "version": catalogue.version(),
        "what": "chapter" if paper else "book",
        "text": text,
        "bibtex": bibtex,
        "paper": paper.citation if paper else "",
        "paper_bibtex": paper_bibtex(paper) if paper else "",
        "report_url": report_url(pagename),
        "placeholder": catalogue.repository_is_placeholder(),
        "licence": catalogue.book().license,
        "licence_prose": catalogue.book().license_prose,
        "authors": AUTHORS,
        "year": app.config.copyright,
    }


def set_branch(app: Sphinx, config: Config) -> None:
    """Links into the repository, Colab's among them, lead to the tag of this version, as set-up cells do."""
    if "repository_url" in config.html_theme_options:
        config.html_theme_options["repository_branch"] = f"v{catalogue.version()}"


def setup(app: Sphinx) -> None:
    """Fill the context of every page."""
    app.connect("config-inited", set_branch)
    app.connect("html-page-context", add_tools)

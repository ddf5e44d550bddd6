"""What the book's pages take from the catalogue and the records, as a Sphinx extension.

| module | gives |
|---|---|
| `index` | directives `chapter-index` and `chapter-map` |
| `measured` | directives `scorecards` and `arena`, made from the recorded runs |
| `api` | directive `api`: reference pages of the library's modules |
| `docstrings` | docstrings as reStructuredText |
| `pages` | what stands at the foot of each page: version, how to cite, how to report an error |
| `notebook_pages` | in a chapter: prompts that say what is folded away, claims that wrap |
"""

import os
from typing import Any

from sphinx.application import Sphinx

from pdebook_sphinx import api, docstrings, index, measured, notebook_pages, pages


def setup(app: Sphinx) -> dict[str, Any]:
    """Register everything. The book that is built is the book whose catalogue is read."""
    os.environ["PDEBOOK_HOME"] = str(app.srcdir)
    for extension in ("sphinx.ext.autodoc", "sphinx.ext.napoleon"):
        app.setup_extension(extension)
    for module in (api, docstrings, index, measured, notebook_pages, pages):
        module.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""What a chapter's page adds to its notebook: prompts that say what is folded away."""

from docutils import nodes
from sphinx.application import Sphinx

FOLDED = {"### BEGIN SOLUTION": "a solution", "### BEGIN HIDDEN TESTS": "the automatic checks"}


def name_folds(app: Sphinx, doctree: nodes.document) -> None:
    """Write ``Show a solution`` instead of ``Show code cell source``."""
    for cell in doctree.findall(nodes.container):
        if cell.get("hide_mode"):
            what = next((name for mark, name in FOLDED.items() if mark in cell.astext()), "the code")
            cell["prompt_show"], cell["prompt_hide"] = f"Show {what}", f"Hide {what}"


def setup(app: Sphinx) -> None:
    """Run on every page once it is read."""
    app.connect("doctree-read", name_folds)

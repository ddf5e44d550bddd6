"""What a chapter's page adds to its notebook: prompts that say what is folded away, and claims that wrap."""

from docutils import nodes
from sphinx.application import Sphinx

FOLDED = {"### BEGIN SOLUTION": "a solution", "### BEGIN HIDDEN TESTS": "the automatic checks"}
MARKS = ("✓ ", "○ ")


def complete_page(app: Sphinx, doctree: nodes.document) -> None:
    """Name what a fold holds, and mark printed claims, which are prose, not columns."""
    for cell in doctree.findall(nodes.container):
        if cell.get("hide_mode"):
            what = next((name for mark, name in FOLDED.items() if mark in cell.astext()), "the code")
            cell["prompt_show"], cell["prompt_hide"] = f"Show {what}", f"Hide {what}"
    for block in doctree.findall(nodes.literal_block):
        if all(line.startswith(MARKS) for line in block.astext().strip().split("\n")):
            block["classes"].append("pde-claims")


def setup(app: Sphinx) -> None:
    """Run on every page once it is read."""
    app.connect("doctree-read", complete_page)

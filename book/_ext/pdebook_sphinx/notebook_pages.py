"""What a chapter's page adds to its notebook: alternative text of figures, and prompts that say what is folded away.

``display(figure, metadata={"image/png": {"alt": "..."}})`` stores the text in the output, where JupyterLab finds it too. myst-nb
names an image after the hash of its bytes, which leads back to the output.
"""

import hashlib
import json
from base64 import b64decode
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

FOLDED = {"### BEGIN SOLUTION": "a solution", "### BEGIN HIDDEN TESTS": "the automatic checks"}


def alternative_texts(notebook: dict[str, Any]) -> dict[str, str]:
    """Alternative text by SHA-256 of the image, of every PNG output that has one."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            image = output.get("data", {}).get("image/png")
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if image and alt:
                found[hashlib.sha256(b64decode("".join(image))).hexdigest()] = alt
    return found


def complete_page(app: Sphinx, doctree: nodes.document) -> None:
    """Set ``alt`` on the images that came out of cells, and the prompts of folded cells."""
    source = Path(app.env.doc2path(app.env.docname))
    if source.suffix != ".ipynb":
        return
    texts = alternative_texts(json.loads(source.read_text("utf-8")))
    for image in doctree.findall(nodes.image):
        if alt := texts.get(PurePosixPath(image["uri"]).stem):
            image["alt"] = alt
    for cell in doctree.findall(nodes.container):
        if cell.get("hide_mode"):
            what = next((name for mark, name in FOLDED.items() if mark in cell.astext()), "the code")
            cell["prompt_show"], cell["prompt_hide"] = f"Show {what}", f"Hide {what}"


def setup(app: Sphinx) -> None:
    """Run on every page once it is read."""
    app.connect("doctree-read", complete_page)

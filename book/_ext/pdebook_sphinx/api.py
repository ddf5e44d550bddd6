"""The reference of the library, made from its docstrings.

    .. api:: pdebook.diffusion pdebook.training

documents each module under its own heading; of a package, its docstring and then every public module in it, found when
the page is built, so that a chapter's module appears by itself.
"""

import pkgutil
import re
from collections.abc import Iterator
from importlib.util import find_spec
from inspect import isclass, isfunction
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.autodoc import DataDocumenter, FunctionDocumenter
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

# The package itself only loads others; the commands document themselves (`pdebook --help`).
WITHOUT_PAGE = frozenset({"pdebook", "pdebook.cli"})


def modules(name: str) -> Iterator[tuple[str, str]]:
    """Name and file of the module and, if it is a package, of every public module below it."""
    spec = find_spec(name)
    if spec is None:
        raise ValueError(f"there is no module {name!r}")
    yield name, spec.origin or ""
    for found in pkgutil.iter_modules(spec.submodule_search_locations or []):
        if not found.name.startswith("_"):
            yield from modules(f"{name}.{found.name}")


class Api(SphinxDirective):
    """Headings and ``automodule`` for the modules that are named."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        lines = []
        for name in self.arguments[0].split():
            try:
                found = list(modules(name))
            except ValueError as error:
                raise self.error(str(error)) from error
            for module, file in found:
                self.env.note_dependency(file)
                lines += [module, "-" * len(module), "", f".. automodule:: {module}", "   :ignore-module-all:", ""]
        parent = nodes.section()
        nested_parse_with_titles(self.state, StringList(lines, source=self.env.doc2path(self.env.docname)), parent)
        return parent.children


class WrappedFunctionDocumenter(FunctionDocumenter):
    """Documents what a decorator made of a function, as that function: a sampler is an object that is called."""

    objtype = "wrappedfunction"
    directivetype = "function"
    priority = DataDocumenter.priority + 1

    @classmethod
    def can_document_member(cls, member: Any, membername: str, isattr: bool, parent: Any) -> bool:
        """Whether the member wraps a function and isn't one itself."""
        return callable(member) and not isclass(member) and isfunction(getattr(member, "__wrapped__", None))


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write ``...`` for a default that has no source form, such as ``<factory>``, so that Sphinx can parse the rest."""
    return re.sub(r"<[^<>]*>", "...", signature) if signature else signature, returns


def setup(app: Sphinx) -> None:
    """Register the directive. Values are left out: a registry's repr would print addresses of functions."""
    app.add_directive("api", Api)
    app.add_autodocumenter(WrappedFunctionDocumenter)
    app.connect("autodoc-process-signature", shorten_signature)
    app.config.autodoc_default_options = {"members": True, "no-value": True}

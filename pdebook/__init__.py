"""Methods for differential equations in and around neural networks, one module for each paper of the book.

``pdebook.<part>.<slug>`` holds the method of one paper; everything that two papers share has a home of its own.
Sub-packages load when they are first used, so that ``import pdebook.diffusion`` needs no plotting library.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdebook.chapter import Chapter

__all__ = ["Chapter", "__version__"]

__version__ = metadata.version("pdebook")


def __getattr__(name: str) -> Any:
    if name == "Chapter":
        return import_module("pdebook.chapter").Chapter
    raise AttributeError(f"module 'pdebook' has no attribute {name!r}")

"""Small trained networks that the book ships: safetensors of at most 2 MB, each with a card that says how it was made.

``<name>.json`` is the card of ``<name>.safetensors``: what it is, the command, maker, data and seed that make it, the file's
SHA-256, the versions it was made with and what the maker measured on it. A file that differs from its card is refused
before it is parsed; nothing is ever unpickled.

A maker is a function ``maker(seed=...) -> Made`` that the card names by a dotted path, so that this package imports no part.
"""

import hashlib
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from pdebook.catalogue import closest

__all__ = ["FOLDER", "MAX_BYTES", "Made", "card", "load", "make", "names", "verify"]

FOLDER = Path(__file__).resolve().parent
MAX_BYTES = 2_000_000
"""Largest file that is shipped."""

_WRITTEN_BY_HAND = ("name", "description", "command", "maker", "data", "seed")
_VERSIONS = ("pdebook", "torch", "numpy", "scikit-learn", "safetensors")


class Made(NamedTuple):
    """What a maker returns.

    Attributes:
        tensors: parameters and buffers by name, as they are to be stored.
        metrics: what was measured on exactly these tensors.
    """

    tensors: dict[str, Tensor]
    metrics: dict[str, float]


def names() -> tuple[str, ...]:
    """Names of the shipped weights, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def card(name: str) -> dict[str, Any]:
    """The card of the weights ``name``.

    Raises:
        ValueError: unknown name (the error lists what comes close), or a card that is no card.
    """
    if name not in names():
        raise closest(name, "weights", names())
    try:
        content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"weights {name!r}: the card is not JSON ({error})") from error
    missing = [key for key in _WRITTEN_BY_HAND if key not in content] if isinstance(content, dict) else _WRITTEN_BY_HAND
    if missing or content["name"] != name:
        raise ValueError(f"weights {name!r}: the card must name them and hold {', '.join(_WRITTEN_BY_HAND)}")
    return content


def load(name: str) -> dict[str, Tensor]:
    """Tensors of the weights ``name`` as they are stored, on the CPU, checked against the card.

    Raises:
        ValueError: unknown name, or a file that is missing, differs from its card or is no safetensors file.
    """
    data = _checked(name)
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError(f"weights {name!r}: not a safetensors file ({error})") from error


def verify(name: str | None = None) -> None:
    """Check a file, or all of them, against the size and hash of its card, and read it.

    Raises:
        ValueError: as ``load``.
    """
    for each in names() if name is None else [name]:
        load(each)


def make(name: str, out: Path | str | None = None) -> Path:
    """Make the weights ``name`` anew with the maker and seed of their card; write file and card, whole or not at all.

    Args:
        name: name of the weights.
        out: folder to write to; the shipped files are replaced if left out.
    Returns:
        Path of the safetensors file.
    Raises:
        ValueError: unknown name, or weights too large to ship.
    """
    known = card(name)
    folder = FOLDER if out is None else Path(out)
    module, function = known["maker"].split(":")
    start = time.perf_counter()
    made = getattr(import_module(module), function)(seed=known["seed"])
    seconds = time.perf_counter() - start
    data = safetensors.torch.save({key: value.contiguous() for key, value in made.tensors.items()})
    if len(data) > MAX_BYTES:
        raise ValueError(f"weights {name!r}: {len(data)} bytes are more than the {MAX_BYTES} that may be shipped")
    entry = {key: known[key] for key in _WRITTEN_BY_HAND} | {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "values": sum(value.numel() for value in made.tensors.values()),
        "metrics": made.metrics,
        "versions": {package: metadata.version(package) for package in _VERSIONS},
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.safetensors"
    text = json.dumps(entry, indent=2, ensure_ascii=False) + "\n"
    _replace({target: data, folder / f"{name}.json": text.encode()})
    return target


def _checked(name: str) -> bytes:
    """The file's bytes; only these are parsed, so nothing can change between the check and the reading."""
    expected = card(name).get("sha256")
    path = FOLDER / f"{name}.safetensors"
    if expected is None or not path.is_file():
        raise ValueError(f"weights {name!r} are not made yet: `pdebook weights make {name}` makes {path.name}")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ValueError(
            f"weights {name!r}: the file's hash is not the card's: {path.name} was altered or truncated "
            f"({len(data)} bytes, SHA-256 {found[:12]}..., expected {expected[:12]}...)"
        )
    return data


def _replace(files: dict[Path, bytes]) -> None:
    """Write all files beside their places, then move them there."""
    temporary: list[tuple[str, Path]] = []
    try:
        for path, data in files.items():
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            temporary.append((name, path))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
        for name, path in temporary:
            os.replace(name, path)
    finally:
        for name, _ in temporary:
            Path(name).unlink(missing_ok=True)

"""Tensors in files: safetensors with JSON metadata, written whole or not at all, checked before anything uses them.

A file written here carries a digest of its tensors and metadata, so one altered bit is noticed; a file from elsewhere
is checked against a SHA-256 that the caller knows. Pickles run code when they are loaded, so none is: they are known by
name (``.pt``, ``.pth``, ``.pkl``, ...) and, when renamed, by content. A paper's own ``.pth`` file is converted once::

    python -c "from pdebook.checkpoints import convert_pth; convert_pth('paper.pth', 'paper.safetensors')"
"""

import hashlib
import json
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

__all__ = ["check_shapes", "convert_pth", "load", "load_torch", "save", "sha256"]

PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin"})
_KEY = "pdebook"


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write tensors and metadata to one file; a reader sees the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and replace the file in one operation.

    Args:
        path: file to write, usually ``*.safetensors``; its folder exists.
        tensors: tensors by name, on any device; tensors that share memory are written separately.
        metadata: anything that JSON can hold.
    Raises:
        ValueError: a suffix that `load` would refuse, a value that is no dense tensor, metadata that JSON cannot hold.
        OSError: the disk is full, the folder is missing or read-only, ...; an older file is intact.
    """
    path = Path(path)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise ValueError(f"path must not end in {path.suffix}, which is a pickle's name; use .safetensors, got {path}")
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            raise ValueError(f"tensors[{name!r}] must be a dense tensor, got {_kind(value)}")
    try:
        note = json.loads(json.dumps(dict(metadata or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be JSON: {error}") from None
    # Complex numbers are not in every version of the format, so they are stored as pairs.
    pairs = sorted(name for name, value in tensors.items() if value.is_complex())
    stored = {name: _real(value.detach()).to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    header = {"metadata": note, "complex": pairs}
    header["digest"] = _digest(stored, header)
    _replace(path, safetensors.torch.save(stored, {_KEY: json.dumps(header)}))


def load(
    path: str | os.PathLike[str],
    *,
    expected_sha256: str | None = None,
    expected_shapes: Mapping[str, Sequence[int]] | None = None,
    own: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata of a file, after all checks.

    Args:
        path: a safetensors file, of `save` or from elsewhere (whose metadata are strings).
        expected_sha256: hash that the whole file must have, in hexadecimal.
        expected_shapes: shape of every tensor that the file must hold; it must hold no other.
        own: whether only a file of `save` will do, so that no alteration passes unnoticed.
    Raises:
        ValueError: a pickle (not opened), a truncated, altered or foreign file, another hash, other names or shapes.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise ValueError(
            f"{path} is refused by its name, unopened: {path.suffix} files are pickles, which run code when they are "
            "loaded; convert one that you trust with pdebook.checkpoints.convert_pth"
        )
    data = path.read_bytes()
    _refuse_foreign(path, data)
    if expected_sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != expected_sha256.lower():
        raise ValueError(
            f"{path} was altered or is another file: its SHA-256 is {found}, expected {expected_sha256.lower()}"
        )
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    strings = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    metadata: dict[str, Any] = dict(strings)
    if own and _KEY not in strings:
        raise ValueError(f"{path} was altered, or was not written by pdebook.checkpoints.save: it carries no digest")
    if _KEY in strings:
        tensors, metadata = _unpack(path, tensors, strings[_KEY])
    if expected_shapes is not None:
        check_shapes(path, tensors, expected_shapes)
    return tensors, metadata


def check_shapes(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]
) -> None:
    """Raise ValueError unless the tensors have exactly the expected names and shapes; ``path`` is for the message."""
    for what, names in (
        ("lacks", expected.keys() - tensors.keys()),
        ("has an unknown", tensors.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{path} does not fit: it {what} tensor {min(names)!r}{more}")
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != tuple(shape):
            raise ValueError(
                f"{path} does not fit: tensor {name!r} has shape {tuple(tensors[name].shape)}, expected {tuple(shape)}"
            )


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_torch(path: str | os.PathLike[str]) -> Mapping[Any, Any]:
    """The dictionary of a PyTorch file, read by ``torch.load(weights_only=True)``: tensors and plain containers, no code is run.

    Names that it may hold beside them are those of ``torch.serialization.safe_globals`` around the call.

    Args:
        path: the file.
    Raises:
        ValueError: the file needs code to be loaded, is damaged, or holds no dictionary.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, AttributeError, LookupError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path} is refused: it cannot be read as tensors without running its code: {reason}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} is refused: it holds {_kind(content)}, expected a dictionary of tensors")
    return content


def convert_pth(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Convert a PyTorch file that holds nothing but (nested dictionaries of) tensors into safetensors.

    It is read by ``torch.load(weights_only=True)``, which builds tensors and plain containers and runs nothing else.
    Nested names are joined by dots: ``{"model": {"w": ...}}`` becomes ``model.w``. The metadata hold the file's name
    and hash.

    Args:
        path: the ``.pt`` or ``.pth`` file.
        out: the file to write.
    Raises:
        ValueError: the file needs code to be loaded, is damaged, or holds anything but named dense tensors; nothing is
            written.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    for name, value in _leaves(path, load_torch(path), ""):
        if name in tensors:
            raise ValueError(f"{path} is refused: two tensors would be called {name!r}")
        tensors[name] = value
    if not tensors:
        raise ValueError(f"{path} is refused: it holds no tensors")
    save(out, tensors, {"converted_from": path.name, "sha256": sha256(path)})


def _leaves(path: Path, content: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if not isinstance(key, str):
            raise ValueError(f"{path} is refused: the key {name!r} is {_kind(key)}, expected a string")
        if isinstance(value, Mapping):
            yield from _leaves(path, value, f"{name}.")
        elif isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
            yield name, value
        else:
            raise ValueError(
                f"{path} is refused: {name!r} is {_kind(value)}, expected a dense tensor or a dictionary of them"
            )


def _kind(value: object) -> str:
    return f"a {value.layout} tensor" if isinstance(value, Tensor) else type(value).__name__


def _real(value: Tensor) -> Tensor:
    return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value


def _digest(stored: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Hash of names, types, shapes, bytes, and the header but its own entry."""
    digest = hashlib.sha256(json.dumps([header["metadata"], header["complex"]], sort_keys=True).encode())
    for name in sorted(stored):
        value = stored[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _unpack(path: Path, stored: dict[str, Tensor], text: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        header = json.loads(text)
        intact = header["digest"] == _digest(stored, header)
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise ValueError(f"{path} was altered after it was written: its content does not match its digest")
    pairs = set(header["complex"])
    return {k: torch.view_as_complex(v) if k in pairs else v for k, v in stored.items()}, header["metadata"]


def _refuse_foreign(path: Path, data: bytes) -> None:
    """Tell a file that is no safetensors by its first bytes: the length of a header, at most 100 MB, and its brace."""
    if data[4:8] == bytes(4) and data[8:9] == b"{":
        return
    # Protocol 2 and later begin with 0x80 and their number; a header of 640 bytes does so too, but went above.
    if data[:2] == b"PK" or (data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        kind = "a zip archive, as torch.save writes it around a pickle" if data[:2] == b"PK" else "a pickle"
        raise ValueError(
            f"{path} is refused: by its first bytes it is {kind}; loading it could run code; "
            "convert one that you trust with pdebook.checkpoints.convert_pth"
        )
    if len(data) < 10:
        raise ValueError(f"{path} is truncated: {len(data)} bytes cannot be a safetensors file")
    raise ValueError(f"{path} is not a safetensors file: it begins with {data[:8]!r}")


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

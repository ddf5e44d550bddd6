"""Recorded runs: what a chapter claimed, measured where, with which code; written atomically, marked when stale.

A record is ``book/results/<slug>.<profile>.json``; the book's pages are made from records alone. A record is *stale*
when the code that the chapter imports has changed since: the hash is taken over the syntax trees of those modules,
docstrings left out, so that neither prose nor layout counts.
"""

import ast
import contextlib
import getpass
import hashlib
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pdebook import catalogue

__all__ = [
    "Claim",
    "Failure",
    "Record",
    "RecordError",
    "Status",
    "arena_path",
    "check_writable",
    "imported_modules",
    "lock",
    "method_hash",
    "provenance",
    "read",
    "read_arena",
    "record_path",
    "replace_files",
    "status",
    "write_arena",
]

FORMAT = 1
# What shows and records a chapter: a change there says nothing about the numbers.
NOT_METHOD = frozenset(
    {"", "catalogue", "chapter", "cli", "notebooks", "plotting", "publish", "records", "runner", "scorecard", "widgets"}
)
Status = Literal["current", "stale", "missing", "damaged"]
_PACKAGE = Path(__file__).resolve().parent


class Failure(RuntimeError):
    """Something other than the input went wrong; the message is for the reader, and old files are intact."""


class RecordError(Failure):
    """A record could not be written; what was there before is intact."""


@dataclass(frozen=True)
class Claim:
    """One claim as measured: ``bound`` in words, ``broken`` the same quantity on a deliberately wrong variant."""

    id: str
    text: str
    bound: str
    measured: float
    passed: bool
    paper: str = ""
    broken: float | None = None
    reproduced: bool = True

    @property
    def line(self) -> str:
        """The claim in one line that does not depend on the machine."""
        mark = "✗" if not self.passed else "✓" if self.reproduced else "○"
        note = "" if self.reproduced else ": not reproduced at this scale"
        return f"{mark} {self.id} · {self.text} ({self.bound}){note}"


@dataclass(frozen=True)
class Record:
    """One run of a chapter. ``seconds`` of wall time, ``peak_memory`` in MiB, ``method`` the hash over ``modules``."""

    slug: str
    profile: str
    seed: int
    claims: tuple[Claim, ...]
    device: str
    seconds: float
    peak_memory: float
    modules: tuple[str, ...]
    method: str
    processor: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str = "unknown"
    date: str = ""

    @property
    def passed(self) -> bool:
        """Whether every claim held."""
        return all(claim.passed for claim in self.claims)

    def to_json(self) -> str:
        """The record as the text of its file."""
        return _dump(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str = "record") -> "Record":
        """Parse a record. Raises ValueError, naming ``where``, if the text is damaged or something else."""
        data = _load(text, where)
        try:
            rows = [{**row, "measured": float(row["measured"])} for row in data.pop("claims")]
            claims = tuple(Claim(**{**row, "broken": _optional(row.get("broken"))}) for row in rows)
            record = cls(**{**data, "claims": claims, "modules": tuple(data["modules"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where} is not a record of this format: {error}") from error
        return record


def record_path(slug: str, profile: str) -> Path:
    """File of a record."""
    return catalogue.results_path() / f"{slug}.{profile}.json"


def arena_path(part: str) -> Path:
    """File of a part-wide comparison."""
    return catalogue.results_path() / f"arena_{part}.json"


def read(slug: str, profile: str) -> Record | None:
    """The record of a run, or None if there is none. Raises ValueError if the file is damaged."""
    path = record_path(slug, profile)
    if not path.is_file():
        return None
    record = Record.from_json(_text(path), path.name)
    if (record.slug, record.profile) != (slug, profile):
        raise ValueError(f"{path.name} holds the {record.profile} run of {record.slug!r}")
    return record


def status(slug: str, profile: str) -> tuple[Record | None, Status]:
    """The record of a run and whether it still stands; never raises for what the file holds."""
    try:
        record = read(slug, profile)
    except ValueError:
        return None, "damaged"
    if record is None:
        return None, "missing"
    return record, "current" if method_hash(record.modules) == record.method else "stale"


def write_arena(part: str, results: Any, *, profile: str, seed: int, device: str, seconds: float) -> Path:
    """Record a part-wide comparison (``results``: anything that JSON can hold) with where it comes from."""
    path, modules = arena_path(part), (f"pdebook.{part}.arena",)
    run = {"part": part, "profile": profile, "seed": seed, "device": device, "seconds": round(seconds, 1)}
    stamp = provenance(device) | {"modules": modules, "method": method_hash(modules)}
    replace_files({path: _dump(run | stamp | {"results": results})})
    return path


def read_arena(part: str) -> dict[str, Any] | None:
    """A recorded comparison with its ``status`` (current or stale), or None. Raises ValueError if it is damaged."""
    path = arena_path(part)
    if not path.is_file():
        return None
    data = _load(_text(path), path.name)
    if missing := {"part", "modules", "method", "results"} - set(data):
        raise ValueError(f"{path.name} is not a comparison of this format: {min(missing)!r} is missing")
    return data | {"status": "current" if method_hash(data["modules"]) == data["method"] else "stale"}


def provenance(device: str) -> dict[str, Any]:
    """Processor, versions, commit and date of a run that happens now."""
    names = ("pdebook", "torch", "numpy", "scipy")
    versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in names}
    return {
        "processor": _processor(device),
        "versions": versions | {"pdebook": catalogue.version()},
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _processor(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        if name := next(names, ""):
            return name
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the checkout, with ``-dirty`` if the library differs from it."""
    root = catalogue.checkout()

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "-dirty" if git("status", "--porcelain", "--", "pdebook") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


# -------------------- what the method imports


def imported_modules(source: str, package: Path = _PACKAGE, module: str = "") -> set[str]:
    """Modules of the library that ``source`` imports, functions' own imports included; those left out are not listed.

    ``module`` is the dotted name of the source itself, for relative imports.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                is_package = _module_file(module, package).name == "__init__.py"
                parents = module.split(".")[: None if node.level == 1 and is_package else is_package - node.level]
                base = ".".join([*parents, *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if _module_file(inner, package).is_file() else base)
    inside = (name for name in found if name == "pdebook" or name.startswith("pdebook."))
    return {name for name in inside if name.partition(".")[2].partition(".")[0] not in NOT_METHOD}


def method_hash(modules: Iterable[str], package: Path = _PACKAGE) -> str:
    """SHA-256 over the syntax trees of ``modules`` and of all library modules that they import, docstrings left out."""
    trees: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        name = waiting.pop()
        file = _module_file(name, package)
        if name in trees:
            continue
        source = file.read_text("utf-8") if file.is_file() else ""
        trees[name] = _tree(_without_docstrings(ast.parse(source)))
        waiting += imported_modules(source, package, name)
    return hashlib.sha256("\n".join(f"{name} {trees[name]}" for name in sorted(trees)).encode()).hexdigest()


def _module_file(name: str, package: Path) -> Path:
    base = package.joinpath(*name.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_name(f"{base.name}.py")


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree


def _tree(node: Any) -> str:
    """A syntax tree as text; what is empty is left out, so that versions of Python agree (``ast.dump`` differs)."""
    if isinstance(node, ast.AST):
        parts = ((name, getattr(node, name, None)) for name in sorted(node._fields) if name != "ctx")
        return f"{type(node).__name__}({','.join(f'{n}={_tree(v)}' for n, v in parts if v is not None and v != [])})"
    if isinstance(node, list):
        return f"[{','.join(map(_tree, node))}]"
    return repr(node)


# -------------------- safe files


@contextlib.contextmanager
def lock(slug: str) -> Iterator[None]:
    """Hold the right to record ``slug``; it ends with the process. Raises RecordError if another one holds it."""
    place = hashlib.sha256(str(catalogue.results_path().resolve()).encode()).hexdigest()[:16]
    file = Path(tempfile.gettempdir()) / f"pdebook-{getpass.getuser()}-{place}-{slug}.lock"
    try:
        with FileLock(file, timeout=0):
            yield
    except Timeout:
        raise RecordError(f"another `pdebook run` is recording {slug!r} now; wait until it ends") from None


def check_writable(paths: Iterable[Path]) -> None:
    """Raise RecordError, before any work is done, if one of ``paths`` could not be replaced."""
    for folder in {path.parent for path in paths}:
        probe = folder / f".pdebook-{os.getpid()}.tmp"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise RecordError(f"cannot write into {folder}: {error.strerror or error}; nothing was changed") from error


def replace_files(files: Mapping[Path, str]) -> None:
    """Replace several files, each atomically, and none of them before all are safely on the disk.

    Raises RecordError (disk full, read-only, ...) with the old files intact.
    """
    waiting = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, temporary in waiting.items():
            with open(temporary, "w", encoding="utf-8", newline="\n") as out:
                out.write(files[path])
                out.flush()
                os.fsync(out.fileno())
            if path.exists():
                temporary.chmod(path.stat().st_mode)
        for path, temporary in waiting.items():
            os.replace(temporary, path)
    except OSError as error:
        names = ", ".join(path.name for path in files)
        raise RecordError(f"could not write {names}: {error.strerror or error}; the old files are intact") from error
    finally:
        for temporary in waiting.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def _dump(data: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **_plain(data)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _load(text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is damaged: {error}") from error
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError(f"{where} is not a record of format {FORMAT}")
    return data


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: both become text, which ``float`` reads back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)

"""A chapter as its notebook sees it: profile, seed and device, the sources it shows, the claims it tests.

    from pdebook import Chapter; ch = Chapter("dpm_solver")

One code path serves every profile: ``ch.pick(quick=..., full=...)`` chooses sizes and nothing else differs. A claim
prints a line that is the same on every machine and raises with the measured value when it fails; ``ch.scorecard()``
shows the numbers.
"""

import ast
import functools
import inspect
import json
import math
import os
import random
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display

from pdebook import catalogue
from pdebook.records import Claim, replace_files
from pdebook.scorecard import Scorecard, format_number

__all__ = ["PROFILES", "Chapter", "ClaimError", "settings", "source_heading"]

PROFILES = ("quick", "full")
T = TypeVar("T")


class ClaimError(AssertionError):
    """A claim does not hold, or its broken variant meets the same bound; the message holds the measured values."""


class Chapter:
    """One run of a chapter.

    Args:
        slug: the chapter's name in the catalogue.
        profile: ``"quick"`` (minutes on one CPU core) or ``"full"``; default ``PDEBOOK_PROFILE``, else quick.
        seed: a whole number from 0; default ``PDEBOOK_SEED``, else 0. The generators of PyTorch, NumPy and Python start
            from it, so that two runs of a notebook agree.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; default ``PDEBOOK_DEVICE``, else CUDA if there is one.
    Raises:
        ValueError: unknown chapter, profile, seed or device, or CUDA was asked for and is not there.
    """

    def __init__(
        self,
        slug: str,
        *,
        profile: str | None = None,
        seed: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.paper = catalogue.paper(slug)
        self.slug = slug
        self.profile, self.seed, self.device = settings(profile, seed, device)
        self._claims: dict[str, Claim] = {}
        self._made_in: dict[str, int | None] = {}
        self._report = os.environ.get("PDEBOOK_REPORT", "")
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)  # noqa: NPY002 - libraries that a notebook calls draw from the global generator
        torch.manual_seed(self.seed)
        if self._report and (shell := get_ipython()):
            shell.events.register("post_run_cell", lambda *_: self._write_report())

    def __repr__(self) -> str:
        return f"Chapter({self.slug!r}, profile={self.profile!r}, seed={self.seed}, device={str(self.device)!r})"

    def pick(self, *, quick: T, full: T) -> T:
        """The value for this run's profile."""
        return full if self.profile == "full" else quick

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims made so far."""
        return tuple(self._claims.values())

    def source(self, *objects: Any, docstring: bool = True) -> None:
        """Show the library's own source of functions, classes, methods or modules, and where each of them lives.

        ``docstring=False`` leaves the docstrings out, where the formula beside the source says it already.
        Raises ValueError for what has no Python source.
        """
        for item in objects:
            display(_Source(item, docstring))

    def claim(
        self,
        id: str,
        text: str,
        measured: Any,
        *,
        at_least: float | int | None = None,
        at_most: float | int | None = None,
        between: tuple[float | int, float | int] | None = None,
        close_to: float | int | None = None,
        rtol: float | int | None = None,
        paper: float | int | str | None = None,
        broken: Callable[[], Any] | None = None,
        reproduced: bool = True,
    ) -> None:
        """Test one claim of the paper, and say so in a line that does not depend on the machine.

        Args:
            id: short name in lower case, words joined by hyphens; once a chapter.
            text: the claim in one line.
            measured: a number, or several which must all meet the bound (the worst is shown); a tensor will do.
            at_least, at_most, between, close_to: the bound, exactly one of them; ``close_to`` needs ``rtol``.
            paper: the paper's value, if it was checked in the paper's text or code; else it shows as "not verified".
            broken: measures the same quantity on a deliberately wrong variant, which must miss the bound.
            reproduced: False states that the claim does not hold at this scale; then it must not.
        Raises:
            ClaimError: the claim fails, or its broken variant passes, or it holds in spite of ``reproduced=False``.
            ValueError: an argument is not as described, or the measured value is not a finite number.
        """
        self._check_name(id, text)
        bound = _Bound.of(id, at_least=at_least, at_most=at_most, between=between, close_to=close_to, rtol=rtol)
        if not reproduced and broken is not None:
            raise ValueError(f"claim {id!r}: broken= has no meaning with reproduced=False; give one of them")
        value = bound.worst(_numbers(id, "measured", measured))
        if not math.isfinite(value):
            raise ValueError(f"claim {id!r}: measured is {value}, expected a finite number")
        wrong = None if broken is None else bound.worst(_numbers(id, "broken", broken()))
        fault = _fault(bound, value, wrong, reproduced)
        source = "" if paper is None else paper if isinstance(paper, str) else f"{paper:g}"
        claim = Claim(id, " ".join(text.split()), bound.words, value, not fault, source, wrong, reproduced)
        self._claims[id], self._made_in[id] = claim, _execution()
        self._write_report()
        if fault and not os.environ.get("PDEBOOK_KEEP_GOING"):
            raise ClaimError(f"claim {id!r} ({claim.text}): {fault}")
        print(f"{claim.line}: {fault}" if fault else claim.line)

    def scorecard(self) -> Scorecard:
        """The claims made so far as a table, beside the paper's numbers and those of the recorded full run."""
        return Scorecard(self.slug, self.claims, f"{self.profile} profile, seed {self.seed}, {self.device}")

    def references(self, *keys: str) -> None:
        """Show the bibliography's entries: the chapter's own paper first, then those of ``keys``.

        Raises ValueError for a key that ``references.bib`` lacks.
        """
        entries = catalogue.bibliography()
        own = catalogue.reference(self.slug)
        if own is None:
            raise ValueError(f"{catalogue.bibliography_path().name} has no entry of {self.slug!r} ({self.paper.url})")
        for key in keys:
            if key not in entries:
                raise catalogue.closest(key, "reference", entries)
        display(_References([own, *(entries[key] for key in keys if key != own.key)]))

    def _check_name(self, id: str, text: str) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
            raise ValueError(f"claim id is {id!r}, expected lower-case words joined by hyphens, such as 'order-3'")
        if not text.strip():
            raise ValueError(f"claim {id!r}: text is empty")
        if id in self._claims:
            # A reader who runs a cell again makes the same claim again; a recorded run has no such excuse.
            again = _execution() is not None and _execution() != self._made_in[id] and not self._report
            if not again or self._claims[id].text != " ".join(text.split()):
                raise ValueError(f"claim id {id!r} is used twice; each claim of a chapter needs its own")

    def _write_report(self) -> None:
        """Tell the process that runs the notebook what was claimed, and what the run needed so far."""
        if self._report:
            state = {"slug": self.slug, "profile": self.profile, "seed": self.seed, "device": str(self.device)}
            state |= {"peak_memory": _peak_memory(self.device), "claims": [asdict(claim) for claim in self.claims]}
            replace_files({Path(self._report): json.dumps(state)})


def settings(
    profile: str | None = None, seed: int | None = None, device: str | torch.device | None = None
) -> tuple[str, int, torch.device]:
    """Profile, seed and device of a run: as given, else from the environment, else the defaults of `Chapter`.

    Raises ValueError that names the argument or the variable, what it is and what is expected.
    """
    return (
        _profile(*_setting("profile", profile, "quick")),
        _seed(*_setting("seed", seed, "0")),
        _device(*_setting("device", device, "")),
    )


def source_heading(name: str, home: catalogue.Home | None = None) -> str:
    """The line above a shown source, in Markdown: its dotted name, linked once the book has a home on the web."""
    url = (home or catalogue.home()).source_url(name)
    return f"[`{name}`]({url})" if url else f"`{name}`"


class _Source:
    """Source of one object as fenced Markdown, which HTML, JupyterLab and Colab all highlight."""

    def __init__(self, item: Any, docstring: bool) -> None:
        target: Any = (
            item.fget if isinstance(item, property) else item.func if isinstance(item, functools.partial) else item
        )
        target = inspect.unwrap(target) if callable(target) else target
        target = getattr(target, "__func__", target)
        try:
            text = textwrap.dedent(inspect.getsource(target)).rstrip()
        except (TypeError, OSError) as error:
            raise ValueError(
                f"source of {item!r}: expected a function, class, method or module written in Python"
            ) from error
        self.name = target.__name__ if inspect.ismodule(target) else f"{target.__module__}.{target.__qualname__}"
        self.text = text if docstring else _drop_docstrings(text)

    def __repr__(self) -> str:
        return f"# {self.name}\n{self.text}"

    def _repr_markdown_(self) -> str:
        return f"{source_heading(self.name)}\n\n```python\n{self.text}\n```"


class _References:
    def __init__(self, entries: list[catalogue.Reference]) -> None:
        self.entries = entries

    def __repr__(self) -> str:
        return "\n".join(f"{i}. {entry.text}" for i, entry in enumerate(self.entries, 1))

    def _repr_markdown_(self) -> str:
        return "\n".join(f"{i}. {entry.markdown}" for i, entry in enumerate(self.entries, 1))


@dataclass(frozen=True)
class _Bound:
    """An interval that a measured value must lie in, and its name in words."""

    low: float
    high: float
    words: str

    @classmethod
    def of(cls, id: str, *, at_least: Any, at_most: Any, between: Any, close_to: Any, rtol: Any) -> "_Bound":
        given = {"at_least": at_least, "at_most": at_most, "between": between, "close_to": close_to}
        names = [name for name, value in given.items() if value is not None]
        if len(names) != 1:
            raise ValueError(f"claim {id!r}: expected one of {', '.join(given)}; got {', '.join(names) or 'none'}")
        numbers = _numbers(id, names[0], given[names[0]])
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"claim {id!r}: {names[0]} is {given[names[0]]!r}, expected finite numbers")
        if (rtol is None) != (close_to is None):
            raise ValueError(f"claim {id!r}: close_to and rtol go together")
        if between is not None:
            if len(numbers) != 2 or numbers[0] >= numbers[1]:
                raise ValueError(f"claim {id!r}: between is {between!r}, expected (low, high) with low < high")
            return cls(numbers[0], numbers[1], f"between {numbers[0]:g} and {numbers[1]:g}")
        if len(numbers) != 1:
            raise ValueError(f"claim {id!r}: {names[0]} is {given[names[0]]!r}, expected one number")
        if close_to is not None:
            width = abs(numbers[0]) * _numbers(id, "rtol", rtol)[0]
            if not (width > 0 and math.isfinite(width)):
                raise ValueError(f"claim {id!r}: close_to {close_to!r} with rtol {rtol!r} allows nothing; use between")
            return cls(numbers[0] - width, numbers[0] + width, f"within {100 * rtol:g}% of {numbers[0]:g}")
        if at_least is not None:
            return cls(numbers[0], math.inf, f"at least {numbers[0]:g}")
        return cls(-math.inf, numbers[0], f"at most {numbers[0]:g}")

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def worst(self, values: list[float]) -> float:
        """The value that comes closest to missing the bound, or misses it by most; NaN if there is one."""
        if any(map(math.isnan, values)):
            return math.nan
        below, above = math.isfinite(self.low), math.isfinite(self.high)
        return max(
            values, key=lambda v: max(self.low - v if below else -math.inf, v - self.high if above else -math.inf)
        )


def _fault(bound: _Bound, value: float, wrong: float | None, reproduced: bool) -> str:
    """What speaks against a claim; empty if nothing does."""
    if not reproduced:
        return (
            f"it holds now (measured {value:.6g}, {bound.words}); drop reproduced=False" if bound.holds(value) else ""
        )
    if not bound.holds(value):
        return f"measured {value:.6g}, expected {bound.words}"
    if wrong is not None and bound.holds(wrong):
        return f"the broken variant passes as well (measured {format_number(wrong)}, {bound.words}): it tests nothing"
    return ""


def _numbers(id: str, name: str, value: Any) -> list[float]:
    """A number, tensor, array or sequence as a list of floats. Raises ValueError for anything else, bool included."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    elif isinstance(value, list | tuple):
        value = [v.item() if isinstance(v, torch.Tensor) and v.numel() == 1 else v for v in value]
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "iuf" or array.size == 0:
        raise ValueError(f"claim {id!r}: {name} is {value!r}, expected a number or several")
    return [float(v) for v in array.ravel()]


def _execution() -> int | None:
    """Number of the notebook cell that runs now, or None outside of a notebook."""
    shell = get_ipython()
    return None if shell is None else int(shell.execution_count)


def _peak_memory(device: torch.device) -> float:
    """Peak memory of this process in MiB: on the GPU if that is where it computes."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _drop_docstrings(text: str) -> str:
    """Python source without its docstrings; a body that held nothing else becomes ``...``."""
    lines: list[str | None] = list(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is None:
            continue
        first = node.body[0]
        end = first.end_lineno or first.lineno
        lines[first.lineno - 1 : end] = [None] * (end - first.lineno + 1)
        if len(node.body) == 1 and not isinstance(node, ast.Module):
            lines[first.lineno - 1] = " " * first.col_offset + "..."
        elif end < len(lines) and lines[end] == "":
            lines[end] = None
    return "\n".join(line for line in lines if line is not None)


def _setting(name: str, given: Any, default: str) -> tuple[str, str]:
    """What a setting is called and what it is: the argument, else the environment, else the default."""
    variable = f"PDEBOOK_{name.upper()}"
    return (name, str(given)) if given is not None else (variable, os.environ.get(variable, "") or default)


def _profile(name: str, value: str) -> str:
    if value not in PROFILES:
        raise ValueError(f"{name} is {value!r}, expected {' or '.join(PROFILES)}")
    return value


def _seed(name: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,18}", value):
        raise ValueError(f"{name} is {value!r}, expected a whole number from 0")
    return int(value)


def _device(name: str, value: str) -> torch.device:
    if not value:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise ValueError(f"{name} is {value!r}, expected cpu, cuda or cuda:N")
    device = torch.device(value)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{name} is {value!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices here; use cpu"
        )
    return device

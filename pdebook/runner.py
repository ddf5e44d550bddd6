"""Runs a chapter's notebook in a kernel of its own, and keeps what the run says where it may.

The canonical run (quick profile, CPU, seed 0) rewrites the notebook and its quick record; ``record=True`` with the full
profile writes the full record and brings the card up to date; any other run changes nothing. Old files stay as they are
until the new ones are complete on the disk.
"""

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

from pdebook import catalogue, notebooks
from pdebook.chapter import PROFILES
from pdebook.records import (
    Claim,
    Failure,
    Record,
    check_writable,
    lock,
    method_hash,
    provenance,
    record_path,
    replace_files,
)

__all__ = ["Run", "RunError", "parse_seeds", "run"]

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("MKL", "NUMEXPR", "OMP", "OPENBLAS")}
SECONDS, MEBIBYTES = 60, 2048  # what a chapter may take in its canonical run


class RunError(Failure):
    """A notebook did not run to its end; nothing was changed."""


@dataclass(frozen=True)
class Run:
    """One run of a chapter: its record (written or not) and the files that it replaced."""

    record: Record
    written: tuple[Path, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What a chapter's author should know about the run."""
        notes = []
        if not self.record.passed and not self.written:
            notes.append("a claim fails, so nothing was written")
        if self.record.profile == "quick" and self.record.seconds > SECONDS:
            notes.append(f"{self.record.seconds:.0f} s are more than the {SECONDS} s of the quick profile")
        if self.record.profile == "quick" and self.record.peak_memory > MEBIBYTES:
            notes.append(f"{self.record.peak_memory:.0f} MiB are more than the {MEBIBYTES} MiB of the quick profile")
        return notes


def run(slug: str, *, profile: str = "quick", seed: int = 0, device: str | None = None, record: bool = False) -> Run:
    """Run a chapter, and store the notebook and the record if this is a run that is stored.

    Args:
        slug: the chapter.
        profile, seed, device: as for `pdebook.chapter.Chapter`; the device is by default the CPU in the quick profile.
        record: write the record of a full run as well. A failing claim is then recorded as failed.
    Raises:
        ValueError: unknown chapter or profile, a run that can't be recorded, or a notebook that must not be stored.
        RunError: a cell raised, or the kernel died.
        RecordError: the files can't be written, or another process is recording this chapter.
    """
    path = catalogue.chapter_path(slug)
    if profile not in PROFILES:
        raise catalogue.closest(profile, "profile", PROFILES)
    device = device or ("cpu" if profile == "quick" else "")
    canonical = (profile, seed, device) == ("quick", 0, "cpu")
    if record and not canonical and (profile, seed) != ("full", 0):
        raise ValueError("record: only runs with seed 0 are recorded, and quick ones only on the CPU")
    stores = canonical or record
    target = record_path(slug, profile)
    with lock(slug) if stores else contextlib.nullcontext():
        if stores:
            check_writable([path, target])
        notebook = notebooks.refresh(notebooks.read(path), slug)
        notebooks.check_exercises(notebook)
        result = _execute(notebook, slug, profile, seed, device)
        files: dict[Path, str] = {}
        if canonical and result.passed:
            stored = notebooks.refresh(notebooks.normalise(notebook), slug, quick=result)
            files = {path: notebooks.dumps(stored, path.name), target: result.to_json()}
        elif record and not canonical:
            files = {target: result.to_json()}
        if files:
            replace_files(files)
        if record and not canonical:
            replace_files({path: notebooks.dumps(notebooks.refresh(notebooks.read(path), slug), path.name)})
    return Run(result, tuple(files))


def parse_seeds(text: str) -> list[int]:
    """Seeds from ``1-5``, ``3`` or ``1,3-5``. Raises ValueError for anything else."""
    seeds: list[int] = []
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", piece)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ValueError(f"seeds is {text!r}, expected whole numbers and ranges, such as 1-5 or 1,3,7")
        seeds += range(first, last + 1)
    return seeds


def _execute(notebook: NotebookNode, slug: str, profile: str, seed: int, device: str) -> Record:
    """Execute ``notebook`` in place, in a fresh kernel and an empty folder, and say what was measured."""
    with tempfile.TemporaryDirectory(prefix="pdebook-") as folder:
        report = Path(folder) / "report.json"
        empty = Path(folder) / "run"
        empty.mkdir()
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=True,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],  # the kernel's own notes are not the reader's business
            resources={"metadata": {"path": str(empty)}},
        )
        start = time.perf_counter()
        with tqdm(total=len(notebooks.code_cells(notebook)), desc=slug, unit="cell", disable=None) as bar:
            client.on_cell_complete = lambda cell, **_: bar.update(bool(cell.source.strip()))
            try:
                client.execute(env=_environment(profile, seed, device, report))
            except CellExecutionError as error:
                raise RunError(f"{slug} stopped in a cell.\n{error}") from error
            except (DeadKernelError, NoSuchKernel) as error:
                raise RunError(f"{slug}: the kernel died or could not start ({error})") from error
        seconds = time.perf_counter() - start
        state = json.loads(report.read_text("utf-8")) if report.is_file() else {}
    if state.get("slug") != slug:
        raise RunError(f"the notebook of {slug!r} never made Chapter({slug!r})")
    return _record(state, seconds, notebooks.library_imports(notebook))


def _environment(profile: str, seed: int, device: str, report: Path) -> dict[str, str]:
    ours = {
        "PDEBOOK_PROFILE": profile,
        "PDEBOOK_SEED": str(seed),
        "PDEBOOK_DEVICE": device,
        "PDEBOOK_REPORT": str(report),
        "PDEBOOK_KEEP_GOING": "1",
        "PDEBOOK_HOME": str(catalogue.checkout()),
    }
    return dict(os.environ) | ours | (ONE_THREAD if profile == "quick" else {})


def _record(state: dict[str, Any], seconds: float, imports: Sequence[str] | set[str]) -> Record:
    paper = catalogue.paper(state["slug"])
    modules = tuple(sorted({paper.module, *imports}))
    return Record(
        slug=paper.slug,
        profile=state["profile"],
        seed=state["seed"],
        claims=tuple(Claim(**claim) for claim in state["claims"]),
        device=state["device"],
        seconds=round(seconds, 1),
        peak_memory=state["peak_memory"],
        modules=modules,
        method=method_hash(modules),
        **provenance(state["device"]),
    )

"""Running chapters in a real kernel: what is stored, what is left alone, and what a failure leaves behind."""

import errno
import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell
from tiny_book import exercise_cells, make_book

from pdebook import catalogue, notebooks, records, runner
from pdebook.records import RecordError
from pdebook.runner import RunError, parse_seeds

CLAIMS = """import os
from pdebook.metrics import order

assert os.listdir() == []
ch.claim("sized", "Holds in the quick profile only", ch.pick(quick=1.0, full=0.0), at_least=0.5, broken=lambda: 0.0)
ch.claim("seeded", "Holds but for seed 3", float(ch.seed), at_most=2)"""
WIDGET = "import ipywidgets\n\nipywidgets.VBox([ipywidgets.IntSlider(description='steps')])"


def cells() -> list[nbformat.NotebookNode]:
    tagged = {"tags": ["nbval-ignore-output"]}
    return [
        new_markdown_cell("## The problem", id="problem"),
        new_code_cell("ch.source(ch.pick, docstring=False)", id="source"),
        new_code_cell(CLAIMS, id="claims"),
        new_code_cell(WIDGET, id="widget"),
        new_code_cell("ch.scorecard()", id="scorecard", metadata=tagged),
        *exercise_cells(),
        new_code_cell("ch.references()", id="references"),
    ]


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = make_book(tmp_path, cells())
    monkeypatch.setenv("PDEBOOK_HOME", str(tmp_path))
    monkeypatch.setenv("PDEBOOK_SEED", "9")  # what a reader's shell says is not what a recorded run does
    return path


def results(notebook: Path) -> list[str]:
    return sorted(path.name for path in catalogue.results_path().iterdir())


@pytest.mark.slow
def test_the_canonical_run_stores_notebook_and_record_and_repeats_itself(notebook: Path) -> None:
    done = runner.run("demo")
    assert done.written == (notebook, records.record_path("demo", "quick"))
    stored = notebooks.read(notebook)
    assert [cell.id for cell in stored.cells][:3] == ["card", "setup", "problem"]
    assert stored.cells[0].source == notebooks.card("demo")
    assert "about 10 seconds on one CPU core" in stored.cells[0].source
    outputs = {cell.id: cell.outputs for cell in stored.cells if cell.cell_type == "code"}
    assert outputs["setup"] == []
    assert outputs["claims"][0].text.splitlines() == [
        "✓ sized · Holds in the quick profile only (at least 0.5)",
        "✓ seeded · Holds but for seed 3 (at most 2)",
    ]
    assert (
        outputs["source"][0].data["text/markdown"].startswith("`pdebook.chapter.Chapter.pick`\n\n```python\ndef pick(")
    )
    assert "<table>" in outputs["scorecard"][0].data["text/html"]
    assert "Ada One" in outputs["references"][0].data["text/markdown"]
    assert len(stored.metadata.widgets[notebooks.WIDGETS]["state"]) == 5

    record = records.read("demo", "quick")
    assert record == done.record
    assert record is not None
    assert (record.device, record.seed, record.modules) == ("cpu", 0, ("pdebook.metrics.order", "pdebook.toys.demo"))
    assert [claim.broken for claim in record.claims] == [0.0, None]
    assert 1 < record.seconds < 60
    assert 50 < record.peak_memory < 2048
    assert records.status("demo", "quick")[1] == "current"

    before = notebook.read_text()
    runner.run("demo")
    assert notebook.read_text() == before


@pytest.mark.slow
def test_another_seed_goes_on_past_a_failing_claim_and_writes_nothing(notebook: Path) -> None:
    before = notebook.read_bytes()
    done = runner.run("demo", seed=3)
    assert [claim.passed for claim in done.record.claims] == [True, False]
    assert (done.written, done.notes) == ((), ["a claim fails, so nothing was written"])
    assert (notebook.read_bytes(), results(notebook)) == (before, [])


@pytest.mark.slow
def test_a_full_run_is_recorded_on_demand_with_its_failing_claim(notebook: Path) -> None:
    done = runner.run("demo", profile="full", device="cpu", record=True)
    assert done.written == (records.record_path("demo", "full"),)
    assert results(notebook) == ["demo.full.json"]
    record = records.read("demo", "full")
    assert record is not None
    assert [claim.passed for claim in record.claims] == [False, True]
    stored = notebooks.read(notebook)
    assert stored.cells[0].source == notebooks.card("demo")
    assert all(cell.execution_count is None for cell in stored.cells if cell.cell_type == "code")


@pytest.mark.slow
def test_a_failing_canonical_run_and_a_crash_leave_everything_as_it_was(notebook: Path) -> None:
    text = notebook.read_text()
    notebook.write_text(text.replace("at_most=2", "at_most=-1"))
    before = notebook.read_bytes()
    done = runner.run("demo")
    assert not done.record.passed
    assert (done.written, notebook.read_bytes(), results(notebook)) == ((), before, [])

    notebook.write_text(text.replace("import os", "import os\\n1 / 0", 1))
    before = notebook.read_bytes()
    with pytest.raises(RunError, match=r"(?s)demo stopped in a cell.*ZeroDivisionError"):
        runner.run("demo")
    assert (notebook.read_bytes(), results(notebook)) == (before, [])


@pytest.fixture
def no_kernel(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same book, where a run takes no time: the cells count as executed without output."""

    def execute(book: nbformat.NotebookNode, slug: str, profile: str, seed: int, device: str) -> records.Record:
        for cell in notebooks.code_cells(book):
            cell.execution_count = 1
        return records.Record(slug, profile, seed, (), "cpu", 1.0, 1.0, (), "")

    monkeypatch.setattr(runner, "_execute", execute)
    return notebook


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_leaves_the_old_files(
    no_kernel: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    runner.run("demo")
    old = {path: path.read_bytes() for path in (no_kernel, records.record_path("demo", "quick"))}
    no_kernel.write_bytes(old[no_kernel].replace(b"The problem", b"The question"))
    old[no_kernel] = no_kernel.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(records.os, "fsync", fail)
    with pytest.raises(RecordError, match=rf"could not write demo\.ipynb, demo\.quick\.json: {os.strerror(code)}"):
        runner.run("demo")
    monkeypatch.setattr(Path, "touch", fail)
    with pytest.raises(RecordError, match=f"cannot write into .*{os.strerror(code)}"):
        runner.run("demo")
    assert {path: path.read_bytes() for path in old} == old
    assert results(no_kernel) == ["demo.quick.json"]


def test_a_second_recording_of_the_same_chapter_is_refused(no_kernel: Path) -> None:
    before = no_kernel.read_bytes()
    with records.lock("demo"):
        with pytest.raises(RecordError, match="another `pdebook run` is recording 'demo' now"):
            runner.run("demo", profile="full", record=True)
        with pytest.raises(RecordError, match="another `pdebook run`"):
            runner.run("demo")
        assert runner.run("demo", seed=1).written == ()  # a run that stores nothing needs no lock
    assert no_kernel.read_bytes() == before


def test_runs_that_make_no_sense_are_refused(no_kernel: Path) -> None:
    for arguments, words in [
        ({"profile": "fulll"}, "unknown profile 'fulll': did you mean 'full'"),
        ({"record": True, "seed": 1}, "only runs with seed 0 are recorded"),
        ({"record": True, "device": "cuda"}, "quick ones only on the CPU"),
        ({"record": True, "profile": "full", "seed": 2}, "only runs with seed 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            runner.run("demo", **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown chapter 'dmo'"):
        runner.run("dmo")
    with pytest.raises(ValueError, match=r"there is no notebook later\.ipynb"):
        runner.run("later")


def test_a_run_over_budget_is_noted(no_kernel: Path) -> None:
    slow = records.Record("demo", "quick", 0, (), "cpu", 61.0, 2049.0, (), "")
    assert [note.split(" are ")[0] for note in runner.Run(slow, (no_kernel,)).notes] == ["61 s", "2049 MiB"]


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("1-5", [1, 2, 3, 4, 5]), ("1, 3-4", [1, 3, 4]), ("0-0,7", [0, 7])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "5-1", "-1", "1-", "1,,2", "1.5"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(ValueError, match=r"seeds is .*, expected whole numbers and ranges"):
        parse_seeds(text)

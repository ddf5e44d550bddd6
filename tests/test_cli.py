"""The command line: what it prints, its exit codes, and errors without a traceback."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from nbformat.v4 import new_code_cell
from tiny_book import exercise_cells, make_book

from pdebook import catalogue, cli, records, runner
from pdebook.records import Claim, Record
from pdebook.runner import Run, RunError

CLAIM = Claim("order", "Third order", "at least 2.7", 2.9, True, broken=1.5)
MODULES = ("pdebook.records",)


def record(profile: str = "quick", seed: int = 0, claim: Claim = CLAIM) -> Record:
    return Record("demo", profile, seed, (claim,), "cpu", 12.3, 400.0, MODULES, records.method_hash(MODULES), "A CPU")


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_book(tmp_path, exercise_cells())
    monkeypatch.setenv("PDEBOOK_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pdebook(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line: exit code, standard output, standard error."""

    def call(line: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            cli.main(line.split())
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(done.value.code or 0), out, err

    return call


def test_list(pdebook: Any) -> None:
    assert pdebook("list") == (
        0,
        "1. Toys (toys)\n  demo   ready    2020  A Demo of Demos\n  later  planned  2021  Later\n",
        "",
    )
    assert pdebook("list --ready --part toys")[1].count("\n") == 2
    assert pdebook("list --part toy")[0::2] == (2, "Error: unknown part 'toy': did you mean 'toys'?\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run dmo", "unknown chapter 'dmo': did you mean 'demo'?"),
        ("run demo --profile fast", "unknown profile 'fast': choose from quick, full"),
        ("run demo --seeds 5-1", "seeds is '5-1'"),
        ("run demo --record --seeds 1-5", "only seed 0 is recorded"),
        ("run later", "there is no notebook later.ipynb"),
        ("scorecard dmo", "unknown chapter"),
        ("assignment dmo", "unknown chapter"),
        ("repository example.org", "expected https://github.com/OWNER/NAME"),
        ("release one", "expected three numbers"),
        ("arena toy", "unknown part 'toy'"),
        ("arena toys", "part 'toys' has no arena: there is no module pdebook.toys.arena"),
    ],
)
def test_wrong_input_ends_with_2_and_a_message(pdebook: Any, line: str, words: str) -> None:
    code, out, err = pdebook(line)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert words in err


def test_usage_errors_are_typers_own(pdebook: Any) -> None:
    assert pdebook("nonsense")[0] == 2
    assert pdebook("run")[0] == 2
    code, out, _ = pdebook("--help")
    assert code == 0
    for command in ("list", "run", "scorecard", "assignment", "weights", "repository", "release", "arena"):
        assert command in out


def test_run_shows_the_claims_and_what_it_wrote(pdebook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(slug: str, **arguments: Any) -> Run:
        calls.append((slug, arguments))
        return Run(record(), (Path("a.ipynb"),))

    monkeypatch.setattr(runner, "run", run)
    code, out, _ = pdebook("run demo --device cpu")
    assert code == 0
    assert out.splitlines() == [
        "demo, quick profile, seed 0, cpu",
        "✓ order · Third order (at least 2.7)  [measured 2.9, broken 1.5]",
        "1 of 1 claims hold; 12 s, 400 MiB",
        "Wrote a.ipynb",
    ]
    assert calls == [("demo", {"profile": "quick", "seed": 0, "device": "cpu", "record": False})]


def test_seeds_all_run_and_a_failing_one_ends_with_1(pdebook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(slug: str, *, seed: int, **_: Any) -> Run:
        return Run(record(seed=seed, claim=replace(CLAIM, passed=seed != 2, measured=2.0 + seed)))

    monkeypatch.setattr(runner, "run", run)
    code, out, _ = pdebook("run demo --seeds 1-3")
    assert code == 1
    assert out.splitlines()[-2:] == [
        "claim  bound         seed 1  seed 2  seed 3",
        "order  at least 2.7  3       4 ✗     5",
    ]
    assert "✗ order · Third order (at least 2.7)  [measured 4, broken 1.5]" in out


def test_a_failed_run_ends_with_1_and_a_message(pdebook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(slug: str, **_: Any) -> Run:
        raise RunError("demo stopped in a cell.")

    monkeypatch.setattr(runner, "run", run)
    assert pdebook("run demo") == (1, "", "Error: demo stopped in a cell.\n")


def test_scorecards_of_the_book_and_of_a_chapter(pdebook: Any) -> None:
    assert pdebook("scorecard")[1].splitlines() == ["chapter  quick    full", "demo     missing  missing"]
    assert pdebook("scorecard demo")[1] == "demo: the quick record is missing; `pdebook run demo` makes it\n"
    full = replace(record("full"), claims=(replace(CLAIM, measured=3.1),), method="0")
    records.replace_files(
        {records.record_path("demo", "quick"): record().to_json(), records.record_path("demo", "full"): full.to_json()}
    )
    assert pdebook("scorecard")[1].splitlines()[1] == "demo     1 of 1  1 of 1 (stale)"
    out = pdebook("scorecard demo")[1]
    assert "✓ order · Third order" in out
    assert "3.1 (stale)" in out


def test_assignment(pdebook: Any, book: Path) -> None:
    pytest.importorskip("nbgrader")
    code, out, _ = pdebook("assignment demo -o course")
    assert code == 0
    assert out.splitlines() == [
        "Instructor: course/source/demo/demo.ipynb",
        "Students:   course/release/demo/demo.ipynb",
    ]
    assert (book / "course/release/demo/demo.ipynb").is_file()


def test_assignment_without_nbgrader_gives_the_line_that_installs_it(
    pdebook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    assert pdebook("assignment demo") == (1, "", "Error: assignments need nbgrader: pip install 'pdebook[teach]'\n")


def test_repository_and_release_say_what_changed(pdebook: Any, book: Path) -> None:
    code, out, _ = pdebook("repository https://github.com/me/book")
    assert code == 0
    assert out.splitlines() == [f"Changed {book}/chapters/toys/demo.ipynb", f"Changed {book}/pdebook/papers.toml"]
    assert pdebook("repository https://github.com/me/book")[1] == "Nothing to change\n"
    code, out, _ = pdebook("release 0.2.0")
    assert code == 0
    assert out.splitlines()[-1] == "Next: reinstall, test, commit, and `git tag v0.2.0`"
    assert catalogue.version() == "0.2.0"


def test_arena_is_recorded_once_at_a_time(pdebook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(**settings: Any) -> dict[str, Any]:
        calls.append(settings)
        return {"rows": [1, 2]}

    part = ModuleType("pdebook.toys.arena")
    part.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pdebook.toys", ModuleType("pdebook.toys"))
    monkeypatch.setitem(sys.modules, "pdebook.toys.arena", part)
    code, out, _ = pdebook("arena toys --seed 4")
    assert (code, out) == (0, f"Wrote {records.arena_path('toys')}\n")
    assert calls == [{"profile": "quick", "seed": 4, "device": torch.device("cpu")}]
    data = records.read_arena("toys")
    assert data is not None
    assert (data["results"], data["seed"], data["device"]) == ({"rows": [1, 2]}, 4, "cpu")
    with records.lock("arena_toys"):
        assert pdebook("arena toys")[0] == 1


def test_an_arena_that_lacks_a_library_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr(cli.importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="scipy"):
        cli._arena("toys")


def test_weights(pdebook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []

    def verify(name: str) -> None:
        verified.append(name)
        if name == "bad":
            raise ValueError("weights 'bad': the file's hash is not the card's")

    shipped = SimpleNamespace(
        names=lambda: ("good", "bad"),
        card=lambda name: {"description": f"The {name} network"},
        verify=verify,
        make=lambda name: Path(f"{name}.safetensors"),
    )
    monkeypatch.setattr(cli, "_weights", lambda: shipped)
    assert pdebook("weights list")[1] == "good  The good network\nbad   The bad network\n"
    assert pdebook("weights verify good")[:2] == (0, "good: as on its card\n")
    assert pdebook("weights verify")[0::2] == (2, "Error: weights 'bad': the file's hash is not the card's\n")
    assert verified == ["good", "good", "bad"]
    assert pdebook("weights make good")[1] == "Wrote good.safetensors\n"
    assert pdebook("weights make god")[0::2] == (2, "Error: unknown weights 'god': did you mean 'good'?\n")


def test_a_chapter_without_exercises_makes_no_coursework(pdebook: Any, book: Path) -> None:
    pytest.importorskip("nbgrader")
    make_book(book, [new_code_cell("x = 1")])
    assert pdebook("assignment demo")[0::2] == (2, "Error: chapter 'demo' has no exercises\n")

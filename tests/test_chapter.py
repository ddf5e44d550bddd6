"""A chapter's settings, its claims, and what it shows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_book import make_book

from pdebook import Chapter, catalogue, chapter
from pdebook.chapter import ClaimError, source_heading


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_book(tmp_path, [])
    monkeypatch.setenv("PDEBOOK_HOME", str(tmp_path))
    for name in ("PROFILE", "SEED", "DEVICE", "REPORT", "KEEP_GOING"):
        monkeypatch.delenv(f"PDEBOOK_{name}", raising=False)
    return tmp_path


@pytest.fixture
def ch() -> Chapter:
    return Chapter("demo", device="cpu")


# -------------------- settings


def test_defaults_environment_and_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Chapter("demo")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert (plain.profile, plain.seed, plain.device.type) == ("quick", 0, expected)
    monkeypatch.setenv("PDEBOOK_PROFILE", "full")
    monkeypatch.setenv("PDEBOOK_SEED", "7")
    monkeypatch.setenv("PDEBOOK_DEVICE", "cpu")
    ours = Chapter("demo")
    assert (ours.profile, ours.seed, ours.device, ours.pick(quick=1, full=2)) == ("full", 7, torch.device("cpu"), 2)
    given = Chapter("demo", profile="quick", seed=3, device=torch.device("cpu"))
    assert (given.profile, given.seed, given.pick(quick=1, full=2)) == ("quick", 3, 1)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PROFILE", "fast", "PDEBOOK_PROFILE is 'fast', expected quick or full"),
        ("SEED", "-1", "PDEBOOK_SEED is '-1', expected a whole number"),
        ("SEED", "1.5", "PDEBOOK_SEED"),
        ("DEVICE", "tpu", "PDEBOOK_DEVICE is 'tpu', expected cpu, cuda or cuda:N"),
        ("DEVICE", "cuda:99", "PDEBOOK_DEVICE is 'cuda:99', but PyTorch sees"),
    ],
)
def test_a_bad_environment_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str) -> None:
    monkeypatch.setenv(f"PDEBOOK_{variable}", value)
    with pytest.raises(ValueError, match=words):
        Chapter("demo")


@pytest.mark.parametrize(
    ("slug", "arguments", "words"),
    [
        ("dmo", {}, "unknown chapter 'dmo': did you mean 'demo'"),
        ("demo", {"profile": "slow"}, "profile is 'slow'"),
        ("demo", {"seed": -3}, "seed is '-3'"),
        ("demo", {"device": "gpu"}, "device is 'gpu'"),
    ],
)
def test_bad_arguments_are_named(slug: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Chapter(slug, **arguments)


def test_two_runs_draw_the_same_numbers() -> None:
    def draws(seed: int) -> list[float]:
        Chapter("demo", seed=seed)
        return [torch.rand(()).item(), np.random.rand()]  # noqa: NPY002 - the global generator is what is tested

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)


def test_an_import_of_the_package_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, pdebook; print(sorted({'torch', 'matplotlib', 'IPython'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# -------------------- claims


@pytest.mark.parametrize(
    ("measured", "bound", "words"),
    [
        (2.7, {"at_least": 2.7}, "at least 2.7"),
        (1e-7, {"at_most": 1e-6}, "at most 1e-06"),
        (2, {"between": (1, 2)}, "between 1 and 2"),
        (3.05, {"close_to": 3, "rtol": 0.02}, "within 2% of 3"),
        (-3.05, {"close_to": -3, "rtol": 0.02}, "within 2% of -3"),
        (torch.tensor([[3.0]], dtype=torch.bfloat16), {"at_least": 3}, "at least 3"),
        (np.float32(3), {"at_least": 3}, "at least 3"),
        ([torch.tensor(3), 4.0], {"at_least": 3}, "at least 3"),
    ],
)
def test_a_claim_that_holds_prints_one_line(
    ch: Chapter, capsys: pytest.CaptureFixture[str], measured: Any, bound: dict[str, Any], words: str
) -> None:
    ch.claim("order-3", "Third  order", measured, **bound)
    assert capsys.readouterr().out == f"✓ order-3 · Third order ({words})\n"
    assert ch.claims[0].passed


@pytest.mark.parametrize(
    ("measured", "bound"),
    [
        (2.69, {"at_least": 2.7}),
        (1.1e-6, {"at_most": 1e-6}),
        (0.99, {"between": (1, 2)}),
        (2.01, {"between": (1, 2)}),
        (3.07, {"close_to": 3, "rtol": 0.02}),
        (2.93, {"close_to": 3, "rtol": 0.02}),
        ([3, 2.6, 4], {"at_least": 2.7}),
        ([0, 5], {"at_most": 4}),
    ],
)
def test_a_claim_that_fails_raises_with_the_measured_value(
    ch: Chapter, capsys: pytest.CaptureFixture[str], measured: Any, bound: dict[str, Any]
) -> None:
    worst = {2: 5, 3: 2.6}[len(measured)] if isinstance(measured, list) else measured
    with pytest.raises(ClaimError, match=f"claim 'order' \\(Third order\\): measured {worst:.6g}, expected "):
        ch.claim("order", "Third order", measured, **bound)
    assert capsys.readouterr().out == ""
    assert not ch.claims[0].passed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "Order 3"}, "claim id is 'Order 3', expected lower-case"),
        ({"id": ""}, "claim id is ''"),
        ({"text": "  "}, "text is empty"),
        ({"measured": float("nan")}, "measured is nan, expected a finite number"),
        ({"measured": [1.0, float("nan")]}, "measured is nan"),
        ({"measured": float("inf")}, "measured is inf"),
        ({"measured": "3"}, "measured is '3', expected a number"),
        ({"measured": None}, "measured is None"),
        ({"measured": True}, "measured is True"),
        ({"measured": torch.tensor(True)}, "measured is"),
        ({"measured": 1j}, "measured is 1j"),
        ({"measured": []}, r"measured is \[\]"),
        ({"measured": [[1], [1, 2]]}, "measured is"),
        ({"at_least": None}, "expected one of at_least, at_most, between, close_to; got none"),
        ({"at_most": 3}, "got at_least, at_most"),
        ({"at_least": float("nan")}, "at_least is nan, expected finite"),
        ({"at_least": None, "between": (2, 1)}, r"between is \(2, 1\), expected \(low, high\)"),
        ({"at_least": None, "close_to": 1}, "close_to and rtol go together"),
        ({"rtol": 0.1}, "close_to and rtol go together"),
        ({"at_least": None, "close_to": 0, "rtol": 0.1}, "allows nothing"),
        ({"at_least": None, "close_to": 1, "rtol": -0.1}, "allows nothing"),
        ({"reproduced": False, "broken": lambda: 0.0}, "broken= has no meaning"),
        ({"broken": lambda: "0"}, "broken is '0', expected a number"),
    ],
)
def test_a_malformed_claim_is_refused(ch: Chapter, changes: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"id": "order", "text": "Third order", "measured": 3.0, "at_least": 2.7} | changes
    with pytest.raises(ValueError, match=words):
        ch.claim(**arguments)
    assert ch.claims == ()


def test_a_broken_variant_is_measured_and_must_fail(ch: Chapter) -> None:
    ch.claim("a", "Order", 3.0, at_least=2.7, broken=lambda: torch.tensor(1.2))
    assert ch.claims[0].broken == pytest.approx(1.2)
    ch.claim("diverged", "A broken variant that diverges has failed", 3.0, at_most=4, broken=lambda: float("nan"))
    with pytest.raises(
        ClaimError, match=r"broken variant passes as well .measured 2.8, at least 2.7.: it tests nothing"
    ):
        ch.claim("b", "Order", 3.0, at_least=2.7, broken=lambda: 2.8)
    with pytest.raises(ClaimError, match="broken variant passes"):
        ch.claim("c", "Order", 3.0, at_least=2.7, broken=lambda: float("inf"))


def test_what_is_not_reproduced_must_not_hold(ch: Chapter, capsys: pytest.CaptureFixture[str]) -> None:
    ch.claim("a", "Order", 2.0, at_least=2.7, reproduced=False, paper=3)
    assert capsys.readouterr().out == "○ a · Order (at least 2.7): not reproduced at this scale\n"
    assert (ch.claims[0].passed, ch.claims[0].paper) == (True, "3")
    with pytest.raises(ClaimError, match=r"it holds now .measured 2.8, at least 2.7.; drop reproduced=False"):
        ch.claim("b", "Order", 2.8, at_least=2.7, reproduced=False)


def test_an_id_is_used_once(ch: Chapter) -> None:
    ch.claim("a", "Order", 3.0, at_least=2.7)
    with pytest.raises(ValueError, match="claim id 'a' is used twice"):
        ch.claim("a", "Order", 3.0, at_least=2.7)


def test_a_reader_may_run_a_cell_again_but_not_reuse_an_id(
    monkeypatch: pytest.MonkeyPatch, book: Path, ch: Chapter
) -> None:
    cell = 4
    monkeypatch.setattr(chapter, "_execution", lambda: cell)
    ch.claim("a", "Order", 3.0, at_least=2.7)
    with pytest.raises(ValueError, match="used twice"):
        ch.claim("a", "Order", 3.0, at_least=2.7)  # a loop in one cell
    cell = 5
    ch.claim("a", "Order", 3.5, at_least=2.7)
    assert [claim.measured for claim in ch.claims] == [3.5]
    cell = 6
    with pytest.raises(ValueError, match="used twice"):
        ch.claim("a", "Another claim", 3.0, at_least=2.7)
    monkeypatch.setenv("PDEBOOK_REPORT", str(book / "report.json"))
    recorded = Chapter("demo", device="cpu")
    recorded.claim("a", "Order", 3.0, at_least=2.7)
    cell = 7
    with pytest.raises(ValueError, match="used twice"):
        recorded.claim("a", "Order", 3.0, at_least=2.7)


def test_a_run_that_is_watched_goes_on_and_reports(
    monkeypatch: pytest.MonkeyPatch, book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = book / "report.json"
    monkeypatch.setenv("PDEBOOK_REPORT", str(report))
    monkeypatch.setenv("PDEBOOK_KEEP_GOING", "1")
    ch = Chapter("demo", seed=2, device="cpu")
    ch.claim("bad", "Order", 2.0, at_least=2.7)
    ch.claim("good", "Order", 3.0, at_least=2.7)
    assert capsys.readouterr().out == (
        "✗ bad · Order (at least 2.7): measured 2, expected at least 2.7\n✓ good · Order (at least 2.7)\n"
    )
    state = json.loads(report.read_text())
    assert (state["slug"], state["profile"], state["seed"], state["device"]) == ("demo", "quick", 2, "cpu")
    assert [claim["passed"] for claim in state["claims"]] == [False, True]
    assert 10 < state["peak_memory"] < 1e5


def test_scorecard_holds_the_claims_of_this_run(ch: Chapter) -> None:
    ch.claim("a", "Order", 3.0, at_least=2.7)
    card = ch.scorecard()
    assert [row[0] for row in card.rows()] == ["✓ a · Order"]
    assert "quick profile, seed 0, cpu" in card.caption()


# -------------------- sources and references


class Sample:
    """A class with documented members."""

    factor = 2

    def method(self, x: float) -> float:
        """Return
        twice x."""

        return self.factor * x

    def nothing(self) -> None:
        """Nothing."""

    @property
    def half(self) -> float:
        """Half."""
        return 0.5


def shown(capsys: pytest.CaptureFixture[str], ch: Chapter, *objects: Any, **options: Any) -> str:
    ch.source(*objects, **options)
    return capsys.readouterr().out


def test_source_shows_dedented_text_and_its_name(ch: Chapter, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, ch, Chapter.pick)
    assert text.startswith(
        '# pdebook.chapter.Chapter.pick\ndef pick(self, *, quick: T, full: T) -> T:\n    """The value'
    )
    assert text == shown(capsys, ch, Chapter("demo").pick)  # bound or not
    both = shown(capsys, ch, Sample.method, Sample.half)
    assert both.count("# test_chapter.Sample.") == 2


def test_source_without_docstrings(ch: Chapter, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, ch, Sample.method, docstring=False) == (
        "# test_chapter.Sample.method\ndef method(self, x: float) -> float:\n    return self.factor * x\n"
    )
    text = shown(capsys, ch, Sample, docstring=False)
    assert '"""' not in text
    assert "def nothing(self) -> None:\n        ...\n" in text
    compile(text, "sample", "exec")


def test_source_of_modules_and_of_what_has_none(ch: Chapter, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, ch, catalogue).startswith('# pdebook.catalogue\n"""The catalogue of the book')
    for item in (3, len, torch.nn.functional.conv1d, "text"):
        with pytest.raises(ValueError, match="expected a function, class, method or module written in Python"):
            ch.source(item)


def test_source_in_a_notebook_is_fenced_markdown() -> None:
    text = chapter._Source(Chapter.pick, docstring=True)._repr_markdown_()
    assert text.startswith("`pdebook.chapter.Chapter.pick`\n\n```python\ndef pick(")
    assert text.endswith("\n```")
    home = catalogue.Home("https://github.com/me/book", "1.0.0")
    assert source_heading("pdebook.chapter.Chapter", home) == (
        "[`pdebook.chapter.Chapter`](https://github.com/me/book/blob/v1.0.0/pdebook/chapter.py)"
    )


def test_references_begin_with_the_paper_itself(ch: Chapter, capsys: pytest.CaptureFixture[str], book: Path) -> None:
    ch.references("four2021", "one2020")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines] == ["1. Ada", "2. Dee"]
    with pytest.raises(ValueError, match="unknown reference 'four2020': did you mean 'four2021'"):
        ch.references("four2020")
    (book / "book/references.bib").write_text("@misc{a, title = {A}}")
    with pytest.raises(ValueError, match="has no entry of 'demo'"):
        ch.references()

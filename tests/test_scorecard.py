"""The scorecard: what a row says, and how a full run that is missing, stale or damaged is marked."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_book import make_book

from pdebook import records
from pdebook.records import Claim, Record
from pdebook.scorecard import Scorecard

CLAIM = Claim("order", "Third order", "at least 2.7", 2.9, True, paper="3", broken=1.5)
MODULES = ("pdebook.records",)


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_book(tmp_path, [])
    monkeypatch.setenv("PDEBOOK_HOME", str(tmp_path))


def store_full(claim: Claim, method: str) -> None:
    record = Record("demo", "full", 0, (claim,), "cuda", 1.0, 2.0, MODULES, method, "A GPU", commit="abc")
    records.replace_files({records.record_path("demo", "full"): record.to_json()})


def full_scale_cell(card: Scorecard) -> str:
    return card.rows()[0][card.COLUMNS.index("full scale")]


def test_scorecard_shows_the_full_run_and_marks_it() -> None:
    card = Scorecard("demo", (CLAIM, replace(CLAIM, id="b<c", paper="", broken=None, reproduced=False)), "here")
    assert card.rows() == [
        ("✓ order · Third order", "3", "2.9", "1.5", "at least 2.7", "missing"),
        ("○ b<c · Third order", "not verified", "2.9 (not reproduced)", "", "at least 2.7", "missing"),
    ]
    current = records.method_hash(MODULES)
    store_full(replace(CLAIM, measured=3.01), current)
    assert full_scale_cell(card) == "3.01"
    assert "A GPU, , commit abc (current)" in card.caption()
    store_full(replace(CLAIM, measured=3.01), "0")
    assert full_scale_cell(card) == "3.01 (stale)"
    store_full(replace(CLAIM, measured=2.0, passed=False, text="Another text"), current)
    assert full_scale_cell(card) == "2 (failed, stale)"
    records.record_path("demo", "full").write_text("{")
    assert full_scale_cell(card) == "damaged"
    assert "b&lt;c" in card._repr_html_()
    assert "b<c" not in card._repr_html_()
    assert all(len(line) <= 140 for line in str(card).splitlines())

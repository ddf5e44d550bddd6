"""Records: they survive, they are refused when damaged, and they know when they are stale."""

import errno
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_book import make_book

from pdebook import records
from pdebook.records import Claim, Record

CLAIM = Claim("order", "Third order", "at least 2.7", 2.9, True, paper="3", broken=1.5)
MODULES = ("pdebook.records",)


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_book(tmp_path, [])
    monkeypatch.setenv("PDEBOOK_HOME", str(tmp_path))
    return tmp_path


def record(profile: str = "quick", *claims: Claim) -> Record:
    return Record(
        slug="demo",
        profile=profile,
        seed=0,
        claims=claims or (CLAIM,),
        device="cpu",
        seconds=12.3,
        peak_memory=400.5,
        modules=MODULES,
        method=records.method_hash(MODULES),
        **records.provenance("cpu"),
    )


def store(value: Record) -> None:
    records.replace_files({records.record_path(value.slug, value.profile): value.to_json()})


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(measured=finite, broken=st.none() | st.floats(allow_nan=False), text=st.text(), passed=st.booleans())
def test_a_record_comes_back_from_its_file(measured: float, broken: float | None, text: str, passed: bool) -> None:
    claim = Claim("a", text, "at most 1", measured, passed, broken=broken, reproduced=not passed)
    value = Record("demo", "quick", 3, (claim,), "cpu", 1.0, 2.0, MODULES, "hash", versions={"python": "3"})
    assert Record.from_json(value.to_json()) == value


def test_a_diverged_broken_variant_is_kept_as_valid_json() -> None:
    text = record("quick", replace(CLAIM, broken=math.nan)).to_json()
    assert '"broken": "nan"' in text
    broken = Record.from_json(text).claims[0].broken
    assert broken is not None
    assert math.isnan(broken)


def test_provenance_says_where_the_numbers_come_from() -> None:
    value = record()
    assert set(value.versions) == {"python", "pdebook", "torch", "numpy", "scipy"}
    assert value.processor
    assert len(value.date) == 10
    assert value.commit == "unknown"  # the temporary book is no git repository


def test_missing_current_stale_damaged(book: Path) -> None:
    assert records.status("demo", "quick") == (None, "missing")
    store(record())
    assert records.status("demo", "quick") == (record(), "current")
    store(replace(record(), method="0" * 64))
    assert records.status("demo", "quick")[1] == "stale"
    path = records.record_path("demo", "quick")
    whole = record().to_json()
    for text in (whole[: len(whole) // 2], "[]", "{}", '{"format": 1}', whole.replace('"format": 1', '"format": 9')):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"demo\.quick\.json"):
            records.read("demo", "quick")
        assert records.status("demo", "quick") == (None, "damaged")
    path.write_bytes(b"\xff\xfe\x00")
    assert records.status("demo", "quick") == (None, "damaged")
    path.write_text(record("full").to_json())
    with pytest.raises(ValueError, match="holds the full run"):
        records.read("demo", "quick")


# -------------------- the hash of the method


@pytest.fixture
def package(tmp_path: Path) -> Path:
    files = {
        "__init__.py": "",
        "toys/__init__.py": '"""Toys."""\n',
        "toys/demo.py": '"""Demo."""\nfrom .parts import f\nimport pdebook.plotting\n\ndef g(): return f(1)\n',
        "toys/parts.py": "def f(x):\n    from pdebook import deep\n    return deep.h(x)\n",
        "toys/other.py": "x = 1\n",
        "deep.py": "def h(x):\n    return x + 1.0\n",
        "plotting.py": "import pdebook.deep\n",
    }
    for name, text in files.items():
        path = tmp_path / "pdebook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pdebook"


def edited(package: Path, name: str, old: str, new: str) -> bool:
    """Whether an edit changes the hash of the demo's method."""
    before = records.method_hash(["pdebook.toys.demo"], package)
    text = (package / name).read_text()
    assert old in text
    (package / name).write_text(text.replace(old, new))
    return records.method_hash(["pdebook.toys.demo"], package) != before


def test_code_counts_through_all_imports_functions_own_included(package: Path) -> None:
    assert edited(package, "toys/demo.py", "f(1)", "f(2)")
    assert edited(package, "toys/parts.py", "deep.h(x)", "deep.h(-x)")
    assert edited(package, "deep.py", "x + 1.0", "x - 1.0")


def test_prose_layout_and_what_only_shows_do_not_count(package: Path) -> None:
    assert not edited(package, "toys/demo.py", "Demo.", "Another docstring.")
    assert not edited(
        package, "toys/demo.py", "def g(): return f(1)", "# why\ndef g():\n    '''New.'''\n    return f(\n 1)"
    )
    assert not edited(package, "plotting.py", "import", "x = 2\nimport")
    assert not edited(package, "toys/other.py", "1", "2")
    assert not edited(package, "toys/__init__.py", '"""Toys."""', "y = 3")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pdebook.rng as r, torch", {"pdebook.rng"}),
        ("from pdebook import Chapter, rng", {"pdebook.rng"}),
        ("from pdebook.chapter import Chapter", set()),
        ("from pdebook.plotting import style\nfrom pdebook_other import x", set()),
        ("from pdebook.rng import uniform", {"pdebook.rng"}),
        ("from .rng import uniform\nfrom . import deep", {"pdebook.toys.rng", "pdebook.toys"}),
        ("from ..deep import h", {"pdebook.deep"}),
        ("from .. import deep", {"pdebook.deep"}),
    ],
)
def test_imported_modules(package: Path, source: str, found: set[str]) -> None:
    (package / "rng.py").write_text("def uniform(): ...")
    assert records.imported_modules(source, package, "pdebook.toys.demo") == found


def test_relative_imports_of_a_package(package: Path) -> None:
    assert records.imported_modules("from .parts import f", package, "pdebook.toys") == {"pdebook.toys.parts"}


# -------------------- writing


def test_no_file_changes_when_the_disk_is_full(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = book / "a.txt", book / "b.txt"
    first.write_text("old a")
    second.write_text("old b")
    calls = []

    def full_after_one(number: int) -> None:
        calls.append(number)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records.os, "fsync", full_after_one)
    before = sorted(book.iterdir())
    with pytest.raises(records.RecordError, match=r"could not write a\.txt, b\.txt: No space left on device"):
        records.replace_files({first: "new a", second: "new b"})
    assert (first.read_text(), second.read_text(), sorted(book.iterdir())) == ("old a", "old b", before)


def test_replacing_keeps_the_mode_of_a_file(book: Path) -> None:
    path = book / "a.txt"
    path.write_text("old")
    path.chmod(0o640)
    records.replace_files({path: "new"})
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)


def test_a_place_that_cannot_be_written_is_found_before_the_run(book: Path) -> None:
    (book / "file").write_text("not a folder")
    with pytest.raises(records.RecordError, match=r"cannot write into .*file.*nothing was changed"):
        records.check_writable([book / "file" / "x.json"])


def test_two_at_once_and_a_killed_one(book: Path) -> None:
    hold = (
        "import sys; from pdebook.records import lock\nwith lock('demo'): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with (
        pytest.raises(records.RecordError, match="another `pdebook run` is recording 'demo' now"),
        records.lock("demo"),
    ):
        pass
    with records.lock("later"):
        pass
    other.kill()
    other.communicate()
    with records.lock("demo"):
        pass


# -------------------- arenas


def test_arena_round_trip_and_damage() -> None:
    assert records.read_arena("toys") is None
    path = records.write_arena("toys", {"a": [1, float("inf")]}, profile="quick", seed=0, device="cpu", seconds=1.23)
    data = records.read_arena("toys")
    assert data is not None
    assert (data["results"], data["status"], data["seconds"]) == ({"a": [1, "inf"]}, "current", 1.2)
    path.write_text('{"format": 1}')
    with pytest.raises(ValueError, match=r"arena_toys\.json is not a comparison"):
        records.read_arena("toys")

import hashlib
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from pdebook import weights

CARD = {
    "name": "tiny",
    "description": "A tiny network",
    "command": "pdebook weights make tiny",
    "maker": "tiny_maker:make",
    "data": "none",
    "seed": 7,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with one card, and its maker: one tensor that shows the seed."""

    def make(seed: int) -> weights.Made:
        return weights.Made({"w": torch.full((3, 2), float(seed)).half().T}, {"error": 0.25})

    monkeypatch.setitem(__import__("sys").modules, "tiny_maker", SimpleNamespace(make=make))
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(CARD))
    return tmp_path


def test_what_is_made_is_what_loads(folder: Path) -> None:
    assert weights.names() == ("tiny",)
    with pytest.raises(ValueError, match=r"'tiny' are not made yet: `pdebook weights make tiny`"):
        weights.load("tiny")
    path = weights.make("tiny")
    assert path == folder / "tiny.safetensors"
    tensors = weights.load("tiny")
    assert list(tensors) == ["w"]
    assert torch.equal(tensors["w"], torch.full((2, 3), 7.0, dtype=torch.float16))
    card = weights.card("tiny")
    assert card | CARD == card
    assert card["metrics"] == {"error": 0.25}
    assert card["values"] == 6
    assert card["bytes"] == path.stat().st_size
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["versions"]["torch"] == torch.__version__
    weights.verify()


def test_making_twice_gives_the_same_bytes(folder: Path) -> None:
    assert weights.make("tiny").read_bytes() == weights.make("tiny", out=folder / "again").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"tiny.json", "tiny.safetensors", "again"}
    assert {path.name for path in (folder / "again").iterdir()} == {"tiny.json", "tiny.safetensors"}


@pytest.mark.parametrize("damage", ["truncated", "altered", "swapped", "empty"])
def test_damaged_weights_are_refused(folder: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights.make("tiny")
    data = path.read_bytes()
    last = bytes([data[-1] ^ 1])
    other = safetensors.torch.save({"w": torch.zeros(2, 3).half()})
    path.write_bytes({"truncated": data[:-1], "altered": data[:-1] + last, "swapped": other, "empty": b""}[damage])
    monkeypatch.setattr(safetensors.torch, "load", lambda _: pytest.fail("parsed before the hash was checked"))
    for call in (lambda: weights.load("tiny"), lambda: weights.verify("tiny"), weights.verify):
        with pytest.raises(ValueError, match="'tiny': the file's hash is not the card's"):
            call()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.path,))  # type: ignore[return-value]


@pytest.mark.parametrize("hash_matches", [False, True])
def test_a_pickle_is_refused_and_never_opened(folder: Path, hash_matches: bool) -> None:
    weights.make("tiny")
    data = pickle.dumps(Bomb(folder / "boom"))
    (folder / "tiny.safetensors").write_bytes(data)
    if hash_matches:
        card = weights.card("tiny") | {"sha256": hashlib.sha256(data).hexdigest()}
        (folder / "tiny.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="not a safetensors file" if hash_matches else "hash is not the card's"):
        weights.load("tiny")
    assert not (folder / "boom").exists()
    pickle.loads(data)
    assert (folder / "boom").exists(), "the pickle would have acted"


def test_unknown_weights() -> None:
    with pytest.raises(ValueError, match=r"unknown weights 'digit_net': did you mean .*'digits_net'"):
        weights.load("digit_net")
    with pytest.raises(ValueError, match=r"unknown weights '../x': choose from .*digits_classifier, digits_net"):
        weights.card("../x")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "tiny"}', json.dumps(CARD | {"name": "other"})])
def test_a_card_that_is_no_card(folder: Path, text: str) -> None:
    (folder / "tiny.json").write_text(text)
    with pytest.raises(ValueError, match="weights 'tiny': the card"):
        weights.card("tiny")


def test_weights_too_large_to_ship(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="more than the 10 that may be shipped"):
        weights.make("tiny")
    assert not (folder / "tiny.safetensors").exists()


def test_a_failure_while_writing_leaves_the_old_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.make("tiny")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    calls: list[int] = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        weights.make("tiny")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_shipped_weights_are_as_on_their_cards_and_small() -> None:
    assert {"digits_classifier", "digits_net"} <= set(weights.names())
    weights.verify()
    for name in weights.names():
        card = weights.card(name)
        assert card["bytes"] <= weights.MAX_BYTES
        assert card["command"] == f"pdebook weights make {name}"
        assert card["metrics"]


def test_makers_exist() -> None:
    for name in weights.names():
        module, function = weights.card(name)["maker"].split(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))

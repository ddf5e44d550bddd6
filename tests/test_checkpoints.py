"""Tensors in files: exact round trips, and a refusal of each kind of bad file before anything is lost."""

import hashlib
import json
import os
import pickle
import stat
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook import checkpoints

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
    torch.int64,
    torch.uint8,
    torch.bool,
]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.safetensors"
    checkpoints.save(path, {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}, {"steps": 7})
    return path


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 3), max_size=3),
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__"),
    metadata=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.floats(-1, 1)),
)
def test_round_trip(tmp_path_factory, dtype, shape, name, metadata):
    path = tmp_path_factory.mktemp("round") / "x.safetensors"
    value = (torch.rand(shape, dtype=torch.float64) * 100).to(dtype)
    if dtype.is_complex:
        value = value * (1 + 2j)
    checkpoints.save(path, {name: value, "other": torch.tensor(0.1)} if name != "other" else {name: value}, metadata)
    tensors, found = checkpoints.load(path)
    assert found == metadata
    assert tensors[name].dtype == dtype
    assert torch.equal(tensors[name], value)


def test_views_conjugates_and_shared_memory_are_stored_as_they_look(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    z = torch.tensor([1 + 2j])
    tensors = {"a": base, "same": base, "t": base.T, "z": z.conj(), "grad": base.clone().requires_grad_()}
    checkpoints.save(tmp_path / "x.safetensors", tensors)
    back, metadata = checkpoints.load(tmp_path / "x.safetensors")
    assert metadata == {}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_whose_length_reads_like_a_pickle_is_no_pickle(tmp_path, length):
    # 640 = 0x0280: in little-endian order the file begins with the two bytes of a pickle of protocol 2.
    header = json.dumps(
        {"__metadata__": {"by": "another"}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    )
    data = length.to_bytes(8, "little") + header.ljust(length).encode() + torch.ones(1).numpy().tobytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert data[0] == 0x80
    tensors, metadata = checkpoints.load(path)
    assert torch.equal(tensors["w"], torch.ones(1))
    assert metadata == {"by": "another"}


def test_every_truncation_is_refused(good):
    data = good.read_bytes()
    for length in range(len(data)):
        good.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"good\.safetensors is truncated"):
            checkpoints.load(good)


def test_every_altered_byte_is_refused(good):
    data = good.read_bytes()
    tensors, metadata = checkpoints.load(good)
    # Without our key the metadata are another program's, so the caller misses the entries that it looks for.
    key = data.index(b'"pdebook"')
    for position in set(range(len(data))) - set(range(key + 1, key + 8)):
        good.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            found, note = checkpoints.load(good, own=True)
        except ValueError as error:
            assert "good.safetensors" in str(error)  # noqa: PT017
        else:
            # Only a blank of the JSON header can turn into something that means the same.
            assert note == metadata, position
            assert found.keys() == tensors.keys(), position
            assert all(torch.equal(found[name], tensors[name]) for name in tensors), position


def test_the_hash_is_that_of_the_file(good):
    value = hashlib.sha256(good.read_bytes()).hexdigest()
    assert checkpoints.sha256(good) == value
    checkpoints.load(good, expected_sha256=value.upper())
    with pytest.raises(ValueError, match=rf"altered or is another file: its SHA-256 is {value}, expected 00"):
        checkpoints.load(good, expected_sha256="00" * 32)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"w": (2, 3)}, "has an unknown tensor 'b'"),
        ({"w": (2, 3), "b": (3,), "c": ()}, "lacks tensor 'c'"),
        ({"w": (3, 2), "b": (3,)}, r"'w' has shape \(2, 3\), expected \(3, 2\)"),
    ],
)
def test_other_names_or_shapes_are_refused(good, shapes, words):
    checkpoints.load(good, expected_shapes={"w": (2, 3), "b": [3]})
    with pytest.raises(ValueError, match=words):
        checkpoints.load(good, expected_shapes=shapes)


def _zip(path, bomb):
    torch.save({"w": bomb}, path)


def _legacy(path, bomb):
    torch.save({"w": bomb}, path, _use_new_zipfile_serialization=False)


def _pickle(protocol):
    return lambda path, bomb: path.write_bytes(pickle.dumps(bomb, protocol))


@pytest.mark.parametrize("write", [_zip, _legacy, *map(_pickle, range(6))])
@pytest.mark.parametrize("name", ["x.pth", "x.PT", "x.pkl", "x.ckpt", "x.safetensors", "x"])
def test_pickles_are_refused_and_never_opened(tmp_path, write, name):
    write(tmp_path / name, Bomb(tmp_path / "exploded"))
    words = "is truncated|is not a safetensors file|pickle"
    with pytest.raises(ValueError, match=words) as error:
        checkpoints.load(tmp_path / name)
    assert name in str(error.value)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("write", "words"), [(_zip, "zip archive"), (_legacy, "is a pickle"), (_pickle(4), "is a pickle")]
)
def test_a_renamed_pickle_is_recognised(tmp_path, write, words):
    write(tmp_path / "x.safetensors", torch.ones(2))
    with pytest.raises(ValueError, match=words + r".*convert_pth"):
        checkpoints.load(tmp_path / "x.safetensors")


def test_a_pickle_by_name_is_not_read(tmp_path):
    # A folder cannot be read: a refusal by name alone never tries.
    (tmp_path / "x.pth").mkdir()
    with pytest.raises(ValueError, match="refused by its name, unopened"):
        checkpoints.load(tmp_path / "x.pth")


def test_foreign_and_missing_files(tmp_path):
    (tmp_path / "x.safetensors").write_text("<html>Not found</html>")
    with pytest.raises(ValueError, match=r"x\.safetensors is not a safetensors file: it begins with b'<html>No'"):
        checkpoints.load(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("name", "tensors", "metadata", "words"),
    [
        ("x.pt", {}, {}, "path must not end in .pt"),
        ("x.safetensors", {"a": 1.0}, {}, r"tensors\['a'\] must be a dense tensor, got float"),
        (
            "x.safetensors",
            {"a": torch.eye(2).to_sparse()},
            {},
            r"tensors\['a'\] must be a dense tensor, got a torch.sparse_coo",
        ),
        ("x.safetensors", {}, {"a": {1, 2}}, "metadata must be JSON"),
        ("x.safetensors", {}, {"a": float("nan")}, "metadata must be JSON"),
    ],
)
def test_bad_arguments_of_save(tmp_path, name, tensors, metadata, words):
    # Past the run-time check of annotations, as a caller outside the tests would come.
    save = getattr(checkpoints.save, "__wrapped__", checkpoints.save)
    with pytest.raises(ValueError, match=words):
        save(tmp_path / name, tensors, metadata)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(good, monkeypatch, broken):
    def fail(*_):
        raise OSError(28, "No space left on device")

    before = good.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(good, {"w": torch.zeros(1000)})
    assert good.read_bytes() == before
    assert list(good.parent.iterdir()) == [good]


def test_bytes_are_on_the_disk_before_the_name_changes(good, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=original: (order.append((n, a)), f(*a))[1])
    checkpoints.save(good, {"w": torch.zeros(1)})
    assert [name for name, _ in order] == ["fsync", "replace"]
    temporary, target = order[1][1]
    assert target == good
    assert temporary.parent == good.parent
    assert stat.S_ISREG(good.stat().st_mode)


def test_files_of_other_programs_are_read(tmp_path):
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    tensors, metadata = checkpoints.load(tmp_path / "x.safetensors", expected_shapes={"w": (2,)})
    assert torch.equal(tensors["w"], torch.ones(2))
    assert metadata == {}


@pytest.mark.parametrize("zipped", [True, False])
def test_convert_flattens_nested_dictionaries(tmp_path, zipped):
    layer = torch.nn.Linear(2, 3)
    content = {
        "model": layer.state_dict(),
        "ema": OrderedDict(w=torch.ones(2, dtype=torch.complex64)),
        "scale": torch.tensor(2),
    }
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    checkpoints.convert_pth(tmp_path / "a.pth", tmp_path / "a.safetensors")
    tensors, metadata = checkpoints.load(tmp_path / "a.safetensors")
    assert metadata == {"converted_from": "a.pth", "sha256": checkpoints.sha256(tmp_path / "a.pth")}
    assert tensors.keys() == {"model.weight", "model.bias", "ema.w", "scale"}
    assert torch.equal(tensors["model.weight"], layer.weight)
    assert torch.equal(tensors["scale"], torch.tensor(2))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"w": torch.ones(1), "epoch": 3}, "'epoch' is int"),
        ({"a": {"w": [torch.ones(1)]}}, "'a.w' is list"),
        ({"a": {0: torch.ones(1)}}, "key 'a.0' is int"),
        ({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, "two tensors would be called 'a.b'"),
        ({"w": torch.eye(2).to_sparse()}, "'w' is a torch.sparse_coo tensor"),
        (torch.ones(2), "it holds a torch.strided tensor, expected a dictionary"),
        ({}, "holds no tensors"),
    ],
)
def test_convert_refuses_anything_else(tmp_path, content, words):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=words):
        checkpoints.convert_pth(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [_zip, _legacy, *map(_pickle, range(6))])
def test_convert_runs_no_code(tmp_path, write):
    write(tmp_path / "a.pth", Bomb(tmp_path / "exploded"))
    with pytest.raises(ValueError, match=r"a\.pth is refused: it cannot be read as tensors without running its code"):
        checkpoints.convert_pth(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.pth"]


@pytest.mark.parametrize("data", [b"", b"\x80", b"PK\x03\x04", b"hello world", b"\x00" * 100])
def test_convert_refuses_damaged_files(tmp_path, data):
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.pth is refused"):
        checkpoints.convert_pth(tmp_path / "a.pth", tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError):
        checkpoints.convert_pth(tmp_path / "none.pth", tmp_path / "a.safetensors")

"""Files of neuraloperator: read as tensors and names alone; what is not on the list is refused."""

import collections
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from pdebook.nn.fno import FNO
from pdebook.nn.neuraloperator import ALLOWED, load_neuraloperator, take_neuraloperator


def theirs(**extra: object) -> dict[str, object]:
    """A state dict in their names for ``net()``."""
    torch.manual_seed(0)
    shapes = {
        "fno_blocks.convs.0.bias": (4, 1),
        "fno_blocks.fno_skips.0.conv.weight": (4, 4, 1),
        "fno_blocks.channel_mlp.0.fcs.0.weight": (2, 4, 1),
        "fno_blocks.channel_mlp.0.fcs.0.bias": (2,),
        "fno_blocks.channel_mlp.0.fcs.1.weight": (4, 2, 1),
        "fno_blocks.channel_mlp.0.fcs.1.bias": (4,),
        "fno_blocks.channel_mlp_skips.0.weight": (1, 4, 1),
        "lifting.fcs.0.weight": (8, 2, 1),
        "lifting.fcs.0.bias": (8,),
        "lifting.fcs.1.weight": (4, 8, 1),
        "lifting.fcs.1.bias": (4,),
        "projection.fcs.0.weight": (8, 4, 1),
        "projection.fcs.0.bias": (8,),
        "projection.fcs.1.weight": (1, 8, 1),
        "projection.fcs.1.bias": (1,),
    }
    state = collections.OrderedDict((name, torch.randn(shape)) for name, shape in shapes.items())
    state["fno_blocks.convs.0.weight.tensor"] = torch.randn(4, 4, 3, dtype=torch.complex64)
    return {**state, **extra}


def net() -> FNO:
    return FNO(1, 1, (4,), width=4, layers=1)


def with_global(path: Path, module: str, name: str) -> None:
    """A file whose note of arguments names something, as theirs name an activation."""
    torch.save(collections.OrderedDict(theirs(_metadata={"non_linearity": "PLACE"})), path)
    with zipfile.ZipFile(path) as source:
        entries = {entry: source.read(entry) for entry in source.namelist()}
    (pickled,) = [entry for entry in entries if entry.endswith("data.pkl")]
    # BINUNICODE of five characters becomes GLOBAL; it must not be memoised under another's number, and here it is not used again.
    assert entries[pickled].count(b"X\x05\x00\x00\x00PLACE") == 1
    entries[pickled] = entries[pickled].replace(b"X\x05\x00\x00\x00PLACE", f"c{module}\n{name}\n".encode())
    with zipfile.ZipFile(path, "w") as target:
        for entry, data in entries.items():
            target.writestr(entry, data)


def test_a_file_of_tensors(tmp_path: Path) -> None:
    torch.save(collections.OrderedDict(theirs()), tmp_path / "fno.pt")
    network = net()
    load_neuraloperator(network, tmp_path / "fno.pt")
    w = theirs()["fno_blocks.convs.0.weight.tensor"]
    torch.testing.assert_close(network.blocks[0].spectral.to_dense(), w)
    torch.testing.assert_close(network.lift[2].weight, theirs()["lifting.fcs.1.weight"][..., 0])
    torch.testing.assert_close(
        network.blocks[0].mlp_skip.weight, theirs()["fno_blocks.channel_mlp_skips.0.weight"].flatten()
    )


@pytest.mark.parametrize("kind", ["dense", "tucker", "tt"])
def test_wavenumbers_come_from_their_order_to_ours(kind: str) -> None:
    """Theirs rise along each axis but the last; rows 0 ... 3 of ours are the wavenumbers 0, 1, -2, -1."""
    network = FNO(1, 1, (4, 5), width=3, layers=1, weight=kind, rank=0.8)
    ours = network.blocks[0].spectral.weight
    state = {name: torch.randn_like(value) for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    renamed: dict[str, object] = {}
    for name, value in state.items():
        root, *rest = name.split(".")
        if root in ("lift", "project"):
            renamed[f"{root}{'ing' if root == 'lift' else 'ion'}.fcs.{int(rest[0]) // 2}.{rest[1]}"] = value
        elif "mlp." in name:
            renamed[f"fno_blocks.channel_mlp.0.fcs.{int(rest[2]) // 2}.{rest[3]}"] = value
        elif "skip" in name:
            renamed[f"fno_blocks.{'channel_mlp_skips' if 'mlp' in name else 'fno_skips'}.0.weight"] = value
        elif name.endswith("bias"):
            renamed["fno_blocks.convs.0.bias"] = value
        else:
            c = torch.view_as_complex(value)
            k = int(rest[-1]) if rest[-1].isdigit() else -1
            if k == 2:
                c = c.roll(2, 0 if kind == "tucker" else 1)
            if kind == "dense":
                c = ours.to_dense().detach().roll(2, 2)
            end = "tensor" if kind == "dense" else "core" if k < 0 else f"factors.factor_{k}"
            renamed[f"fno_blocks.convs.0.weight.{end}"] = c
    twin = FNO(1, 1, (4, 5), width=3, layers=1, weight=kind, rank=0.8)
    take_neuraloperator(twin, renamed)
    torch.testing.assert_close(twin.blocks[0].spectral.to_dense(), network.blocks[0].spectral.to_dense())


@pytest.mark.parametrize("name", ALLOWED)
def test_names_on_the_list_are_read_as_names(tmp_path: Path, name: str) -> None:
    with_global(tmp_path / "fno.pt", *name.rsplit(".", 1))
    load_neuraloperator(net(), tmp_path / "fno.pt")
    # The list is not left open.
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "fno.pt", weights_only=True)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "neuralop.models.fno.FNO", "torch.nn.functional.gelu"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with_global(tmp_path / "fno.pt", *name.rsplit(".", 1))
    with pytest.raises(ValueError, match="is refused: it cannot be read as tensors without running its code"):
        load_neuraloperator(net(), tmp_path / "fno.pt")


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    torch.save(collections.OrderedDict(theirs()), tmp_path / "fno.pt")
    data = (tmp_path / "fno.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(data[: len(data) // 2])
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"short.pt is refused"):
        load_neuraloperator(net(), tmp_path / "short.pt")
    with pytest.raises(ValueError, match="it holds list, expected a dictionary of tensors"):
        load_neuraloperator(net(), tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError):
        load_neuraloperator(net(), tmp_path / "none.pt")


BAD = [
    (
        {"fno_blocks.convs.0.weight.tensors": torch.zeros(3)},
        "'fno_blocks.convs.0.weight.tensors' is no tensor that an FNO",
    ),
    ({"encoder.weight": torch.zeros(3)}, "'encoder.weight' is no tensor that an FNO of neuraloperator holds"),
    ({7: torch.zeros(3)}, "7 is Tensor, expected a tensor with a name"),
    ({"lifting.fcs.0.weight": 3.0}, "'lifting.fcs.0.weight' is float, expected a tensor"),
    ({"fno_blocks.norm.1.weight": torch.zeros(4)}, "it has an unknown tensor 'blocks.0.norms.1.weight'"),
    ({"lifting.fcs.1.bias": torch.zeros(5)}, r"tensor 'lift.2.bias' has shape \(5,\), expected \(4,\)"),
    ({"fno_blocks.convs.0.weight.tensor": torch.zeros(4, 4, 3)}, r"has shape \(4, 4, 3\), expected \(3, 4, 4, 2\)"),
]


@pytest.mark.parametrize(("extra", "words"), BAD)
def test_bad_states(extra: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        take_neuraloperator(net(), theirs() | extra)


def test_networks_that_it_does_not_have() -> None:
    for network in (
        FNO(1, 1, (4,), width=4, layers=1, mlp=None),
        FNO(1, 1, (4,), width=4, layers=1, weight="cp", rank=0.5, joint=True),
    ):
        with pytest.raises(ValueError, match="net must have channel perceptrons and weights of its own"):
            take_neuraloperator(network, theirs())

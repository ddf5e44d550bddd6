"""FNO, TFNO and losses against neuraloperator at the same weights: stored results of theirs, and live where it is installed.

Theirs fixes complex numbers to single precision, so the results are float32; ours are compared in float32 and in float64.
"""

from typing import Any

import pytest
import torch
from comparison import difference, stored
from neuraloperator_cases import LOSSES, MODELS, loss, network, ours, weights
from neuraloperator_peers import their_loss, theirs

from pdebook.nn.neuraloperator import take_neuraloperator

# Rounding of theirs and ours in single precision: the goal for layers and models.
SINGLE = 1e-5
# Their denominators have 1e-8 added.
LOSS = 1e-7


def test_every_case_is_stored_and_its_origin_known() -> None:
    assert set(stored("neuraloperator")["cases"]) == set(MODELS)
    assert set(stored("neuraloperator")["losses"]) == set(LOSSES)
    assert {"package", "version", "torch", "command", "date"} <= set(stored("neuraloperator")["card"])


@pytest.mark.parametrize("name", MODELS)
def test_stored_results(name: str) -> None:
    reference = stored("neuraloperator")["cases"][name]
    for dtype in (torch.float32, torch.float64):
        found = ours(name, reference["shapes"], reference["complex"], dtype)
        for part, value in found.items():
            expected = torch.tensor(reference[part], dtype=torch.float64)
            assert value.shape == expected.shape
            assert difference(value, expected) < SINGLE, part


@pytest.mark.parametrize("name", LOSSES)
def test_stored_losses(name: str) -> None:
    assert float(loss(name)) == pytest.approx(stored("neuraloperator")["losses"][name], rel=LOSS)


def state(name: str) -> dict[str, Any]:
    reference = stored("neuraloperator")["cases"][name]
    return weights(reference["shapes"], reference["complex"])


def test_the_note_of_arguments_is_compared() -> None:
    note = {"n_modes": [4, 6], "preactivation": False, "stabilizer": None, "domain_padding": None}
    take_neuraloperator(network("dense 2d"), {**state("dense 2d"), "_metadata": note})
    wrong = {
        "n_modes": [4, 4],
        "preactivation": True,
        "stabilizer": "tanh",
        "complex_data": True,
        "domain_padding": 0.1,
    }
    for key, value in {**wrong, "use_channel_mlp": False, "resolution_scaling_factor": 2}.items():
        with pytest.raises(ValueError, match=f"is of another configuration: its {key} is"):
            take_neuraloperator(network("dense 2d"), {**state("dense 2d"), "_metadata": {**note, key: value}})


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        ("dense 2d", "tucker 2d", "state does not fit: it lacks tensor"),
        ("dense 2d", "dense 1d", "does not fit: tensor .* has shape"),
        ("dense 2d", "four layers", "it has an unknown tensor 'blocks.2"),
        ("four layers", "dense 2d", "it lacks tensor 'blocks.2"),
        ("dense 2d", "no grid", r"tensor 'lift.0.weight' has shape \(8, 2, 1\), expected \(8, 4\)"),
        ("dense 2d", "separable 2d", "has shape"),
        ("dense 2d", "group norm", "it has an unknown tensor 'blocks.0.norms.0.bias'"),
        ("dense 2d", "dense 2d, odd modes", "has shape"),
        ("dense 2d", "linear lifting", "it lacks tensor 'lift.2.bias'"),
    ],
)
def test_a_checkpoint_of_another_configuration_changes_nothing(name: str, other: str, words: str) -> None:
    net = network(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        take_neuraloperator(net, state(other))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.peer
@pytest.mark.parametrize("name", MODELS)
def test_live(name: str) -> None:
    pytest.importorskip("neuralop", reason="not installed here (make peers)")
    found = theirs(name)
    for part, value in ours(name, found["shapes"], found["complex"], torch.float32).items():
        assert difference(value, found[part]) < SINGLE


@pytest.mark.peer
@pytest.mark.parametrize("name", LOSSES)
def test_live_losses(name: str) -> None:
    pytest.importorskip("neuralop", reason="not installed here (make peers)")
    assert float(loss(name)) == pytest.approx(float(their_loss(name)), rel=LOSS)

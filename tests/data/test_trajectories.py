"""Windows and pairs by enumeration, and batches that are a function of (seed, step)."""

import math
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from pdebook.data.trajectories import Pairs, TensorSource, Windows, batches
from pdebook.training import fit

# The value says where it stands: sample, frame, channel, cell.
DATA = (
    1000.0 * torch.arange(5).view(5, 1, 1, 1)
    + 10.0 * torch.arange(12).view(1, 12, 1, 1)
    + torch.arange(2).view(1, 1, 2, 1)
    + 0.1 * torch.arange(3)
)
GIVEN = {"nu": torch.arange(5.0), "force": torch.arange(10.0).view(5, 2)}


class Files:
    """A source that is no tensor, and counts its reads."""

    def __init__(self) -> None:
        self.shape, self.times, self.reads = tuple(DATA.shape), 0.5 * torch.arange(12.0), 0

    def read(self, sample: int, frames: slice) -> torch.Tensor:
        self.reads += 1
        return DATA[sample, frames]


def equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], dict):
            equal(a[name], b[name])
        else:
            torch.testing.assert_close(a[name], b[name], check_dtype=True, rtol=0, atol=0)


def test_windows_by_enumeration():
    windows = Windows(DATA, history=3, ahead=2, stride=2, samples=[4, 1], first=1, last=10, every=1, parameters=GIVEN)
    # Frames 1..10: starts 0, 2, 4 (places), the last window being frames 5..9.
    assert len(windows) == 6
    assert windows.per_sample == 3
    expected = [(sample, start) for sample in (4, 1) for start in (0, 2, 4)]
    for number, (sample, start) in enumerate(expected):
        example = windows[number]
        frames = [1 + start + k for k in range(5)]
        assert torch.equal(example["history"], DATA[sample, frames[:3]])
        assert torch.equal(example["target"], DATA[sample, frames[3:]])
        assert (example["sample"], example["start"]) == (sample, start)
        assert example["parameters"]["nu"] == sample
        assert example["parameters"]["force"].tolist() == [2 * sample, 2 * sample + 1]
    assert windows[-1]["start"] == 4
    with pytest.raises(IndexError, match="number must be below 6, got 6"):
        windows[6]
    for wrong in ([0, 6], [-1, 0]):
        with pytest.raises(IndexError, match="numbers must be below 6 and not negative"):
            windows.gather(torch.tensor(wrong))


def test_windows_may_skip_frames():
    windows = Windows(DATA, history=2, ahead=1, every=3, first=1)
    assert list(windows.frames) == [1, 4, 7, 10]
    assert windows[1]["history"][:, 0, 0].tolist() == [40, 70]
    assert windows[1]["target"][:, 0, 0].tolist() == [100]
    assert len(windows) == 10
    assert len(Windows(DATA)) == 5 * 11
    assert len(Windows(DATA, history=6, ahead=6)) == 5


@pytest.mark.parametrize(
    "make",
    [
        lambda source: Windows(
            source, history=2, ahead=2, stride=2, samples=[4, 1, 0], first=1, every=2, parameters=GIVEN
        ),
        lambda source: Pairs(source, samples=[4, 0], first=1, last=9, every=2, max_lead=2, parameters=GIVEN),
    ],
    ids=["windows", "pairs"],
)
def test_a_gathered_batch_is_its_examples(make):
    numbers = torch.tensor([3, 0, 5, 3])
    source = Files()
    of_tensor, of_files = make(TensorSource(DATA, source.times)), make(source)
    for examples in (of_tensor, of_files):
        batch = examples.gather(numbers)
        for row, number in enumerate(numbers.tolist()):
            example = examples[number]
            for name, value in example.items():
                for key, part in value.items() if name == "parameters" else [(None, value)]:
                    whole = batch[name][key][row] if name == "parameters" else batch[name][row]
                    torch.testing.assert_close(whole, torch.as_tensor(part), rtol=0, atol=0)
    equal(of_tensor.gather(numbers), of_files.gather(numbers))
    loaded = next(iter(DataLoader(of_files, batch_size=4)))
    equal(loaded, of_files.gather(torch.arange(4)))


def test_coefficients_of_files_come_with_the_examples():
    source = Files()
    source.static = lambda sample: {"nu": torch.full((1, 3), float(sample))}
    windows = Windows(source, history=0, ahead=1, static=True)
    assert len(windows) == 60
    example = windows[15]
    assert example["history"].shape == (0, 2, 3)
    assert torch.equal(example["target"], DATA[1, 3:4])
    assert example["static"]["nu"].tolist() == [[1.0] * 3]
    batch = batches(Pairs(source, static=True), 4)(0, 0)
    assert torch.equal(batch["static"]["nu"][:, 0, 0], batch["sample"].float())
    empty = Windows(DATA, history=0).gather(torch.tensor([15]))
    assert empty["history"].shape == (1, 0, 2, 3)
    assert torch.equal(empty["target"][0], DATA[1, 3:4])


def test_a_window_is_one_read():
    source = Files()
    Windows(source, history=5, ahead=2)[3]
    assert source.reads == 1


@pytest.mark.parametrize("k", [7, 10])
def test_all_pairs_by_enumeration(k):
    pairs = Pairs(DATA, last=k, time_scale=k, samples=[2, 3])
    assert len(pairs) == 2 * (k + 1) * (k + 2) // 2
    seen = set()
    for number in range(len(pairs)):
        e = pairs[number]
        assert torch.equal(e["start"], DATA[e["sample"], e["i"]])
        assert torch.equal(e["target"], DATA[e["sample"], e["j"]])
        assert e["lead"].item() == pytest.approx((e["j"] - e["i"]) / k)
        seen.add((e["sample"], e["i"], e["j"]))
    assert seen == {(s, i, j) for s in (2, 3) for i in range(k + 1) for j in range(i, k + 1)}
    # The lead m occurs K + 1 - m times: identities are 2/(K + 2) of all, the mean lead is K/3.
    leads = (pairs.leads * k).round().long().bincount()
    assert leads.tolist() == [k + 1 - m for m in range(k + 1)]
    assert leads[0] / leads.sum() == pytest.approx(2 / (k + 2))
    assert (pairs.leads * k).mean().item() == pytest.approx(k / 3)


def test_other_schemes_of_pairs():
    def chosen(**kw):
        return Pairs(DATA, last=7, **kw).pairs.tolist()

    assert chosen(scheme="one_to_all") == [[0, j] for j in range(8)]
    assert chosen(scheme="final") == [[0, 7]]
    assert len(chosen(identity=False)) == 28
    assert chosen(scheme="one_to_all", identity=False, max_lead=2) == [[0, 1], [0, 2]]
    every = Pairs(TensorSource(DATA, 2.0 * torch.arange(12)), first=1, every=5, time_scale=10)
    assert every.pairs.tolist() == [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]]
    assert every.leads.tolist() == [0, 1, 2, 0, 1, 0]
    assert every[1]["target"][0, 0] == 60


def test_an_epoch_has_every_example_once_and_its_own_order():
    windows = Windows(DATA, history=2, ahead=1)
    batch = batches(windows, 8)
    count = len(windows)

    def numbers(seed, steps):
        found = [batch(seed, step) for step in steps]
        return torch.cat([b["sample"] * windows.per_sample + b["start"] for b in found])

    whole = numbers(0, range(2 * count))
    assert len(whole) == 16 * count
    for epoch in range(16):
        assert whole[epoch * count : (epoch + 1) * count].sort().values.tolist() == list(range(count))
    assert not torch.equal(whole[:count], whole[count : 2 * count])
    assert not torch.equal(whole[:count], numbers(1, range(8))[:count])
    # A pure function: any step alone, in any order.
    assert torch.equal(numbers(0, [13]), whole[13 * 8 : 14 * 8])
    assert len(batches(windows, 1)(0, 0)["sample"]) == 1
    # A batch larger than the set.
    large = batches(windows, 2 * count + 3)(0, 1)
    places = large["sample"] * windows.per_sample + large["start"]
    assert torch.equal(places, whole[2 * count + 3 : 4 * count + 6])


def test_weighted_batches():
    pairs = Pairs(DATA, last=4)
    # Inverse frequencies make all leads equally likely; the identity is left out.
    steps = (pairs.leads).long()
    weights = torch.where(steps > 0, 1.0 / steps.bincount()[steps], 0.0).repeat(5)
    batch = batches(pairs, 4000, weights=weights)
    drawn = batch(0, 7)["lead"].long().bincount()
    assert drawn[0] == 0
    assert ((drawn[1:] / 1000 - 1).abs() < 0.15).all()
    equal(batch(0, 7), batch(0, 7))
    assert not torch.equal(batch(0, 7)["sample"], batch(0, 8)["sample"])
    assert not torch.equal(batch(0, 7)["sample"], batch(1, 7)["sample"])
    alone = batches(pairs, 50, weights=torch.eye(75)[74])(0, 0)
    assert alone["sample"].tolist() == [4] * 50
    assert alone["i"].tolist() == [4] * 50


def test_batches_feed_the_training_loop(device):
    source = TensorSource(DATA.to(device) / 1000)
    make = batches(Windows(source, history=1, ahead=1), 4, device=device)
    model = torch.nn.Linear(1, 1).to(device)

    def loss(module, batch):
        x, y = batch["history"].flatten()[:, None], batch["target"].flatten()[:, None]
        return (module(x) - y).square().mean()

    losses = fit(model, loss, make, steps=20, lr=0.1, progress=False).losses
    assert losses[-1] < 0.2 * losses[0]


def test_sources_and_sets_can_be_pickled():
    windows = pickle.loads(pickle.dumps(Windows(DATA, parameters=GIVEN)))
    equal(windows.gather(torch.arange(3)), Windows(DATA, parameters=GIVEN).gather(torch.arange(3)))
    assert len(windows) == len(Windows(DATA, parameters=GIVEN)) > 0


def test_times_default_to_the_frames_numbers():
    assert TensorSource(DATA).times.tolist() == list(range(12))
    assert torch.equal(TensorSource(DATA).read(2), DATA[2])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TensorSource(DATA, [0.0, 1.0]), "times must be 12 rising numbers"),
        (lambda: TensorSource(DATA, [0.0] * 12), "times must be 12 rising numbers"),
        (
            lambda: Windows(DATA, history=-1),
            "ahead and stride must be positive and history not negative, got 1, 1 and -1",
        ),
        (lambda: Windows(DATA, stride=0), "must be positive and history not negative, got 1, 0 and 1"),
        (lambda: Windows(DATA, ahead=0), "must be positive and history not negative, got 0, 1 and 1"),
        (lambda: Windows(DATA, static=True), "static needs a source that has it"),
        (lambda: Windows(DATA, history=8, ahead=5), "history . ahead = 13 must not exceed the 12 frames used"),
        (lambda: Windows(DATA, every=6, history=2), "must not exceed the 2 frames"),
        (lambda: Windows(DATA, last=12), "must choose from frames 0 to 11, got 0, 12 and 1"),
        (lambda: Windows(DATA, first=5, last=4), "must choose from frames"),
        (lambda: Windows(DATA, every=0), "must choose from frames"),
        (lambda: TensorSource(DATA, [*range(11), math.inf]), "times must be 12 rising numbers"),
        (lambda: TensorSource(DATA, [math.nan] * 12), "times must be 12 rising numbers"),
        (lambda: Windows(DATA, samples=[True] * 5), "samples must be one or more of 0 to 4, got"),
        (lambda: Windows(DATA, samples=[]), "samples must be one or more of 0 to 4"),
        (lambda: Windows(DATA, samples=[5]), "samples must be one or more of 0 to 4"),
        (lambda: Windows(DATA, samples=[-1]), "samples must be one or more of 0 to 4"),
        (lambda: Windows(DATA, parameters={"nu": torch.ones(4)}), r"parameters\['nu'\] must have one row .* 5 samples"),
        (lambda: Pairs(DATA, scheme="some"), "scheme must be 'all_to_all'.* got 'some'"),
        (lambda: Pairs(DATA, time_scale=0.0), "time_scale must be positive, got 0"),
        (lambda: Pairs(DATA, time_scale=math.inf), "time_scale must be positive"),
        (lambda: Pairs(DATA, identity=False, max_lead=0), "no pair is left of 12 frames"),
        (lambda: batches(Windows(DATA), 0), "size must be positive, got 0"),
        (lambda: batches(Windows(DATA), 2, weights=torch.ones(3)), "weights must be 55 numbers"),
        (lambda: batches(Windows(DATA), 2, weights=torch.zeros(55)), "weights must be 55 numbers"),
        (lambda: batches(Windows(DATA), 2, weights=-torch.ones(55)), "weights must be 55 numbers"),
        (lambda: batches(Windows(DATA), 2, weights=torch.full((55,), math.inf)), "weights must be 55 numbers"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

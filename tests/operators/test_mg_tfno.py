"""Patches with coarse context: the windows are where the formula says, nothing is lost, ranks share the work exactly."""

import multiprocessing
import queue
import socket

import pytest
import torch
import torch.distributed
from torch import nn

from pdebook.operators.mg_tfno import MultiGrid, compression, patches, stitch, window_starts

CASES = [(32, 1, 0), (32, 1, 4), (64, 2, 0), (64, 2, 3), (256, 3, 0), (256, 3, 5)]


def numbered(n: int, dims: int = 2) -> torch.Tensor:
    """A field whose value tells where it stands."""
    axis = torch.arange(float(n))
    return sum(a * 1000.0**k for k, a in enumerate(torch.meshgrid(*[axis] * dims, indexing="ij")))[None, None]


@pytest.mark.parametrize(("n", "levels", "padding"), CASES)
def test_windows_hold_every_2_to_the_l_th_point_about_the_centre_of_the_patch(n, levels, padding):
    parts = 2**levels
    s = n // parts
    x = numbered(n)
    windows = patches(x, levels, padding).unflatten(0, (parts, parts))
    offsets = torch.arange(s + 2 * padding) - (s / 2 + padding) + 0.5
    for level in range(levels + 1):
        for i, j in ((0, 0), (parts - 1, 0), (parts // 2, parts - 1)):
            # positions on the fine grid: the centre of a window of points 2^l apart is that of the patch, less the half cell
            rows, columns = (
                ((k + 0.5) * s - 0.5 + offsets * 2**level - (2**level - 1) / 2).round().long() % n for k in (i, j)
            )
            assert torch.equal(windows[i, j, level], x[0, 0][rows][:, columns]), (level, i, j)


@pytest.mark.parametrize(("n", "levels", "padding"), CASES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_stitching_the_fine_level_gives_the_field_back_bit_for_bit(n, levels, padding, dims):
    if dims == 3 and n > 32:
        n, levels, padding = 32, min(levels, 2), min(padding, 2)
    x = torch.randn(2, 3, *[n] * dims)
    for boundary in ("periodic", "reflect", "zeros"):
        y = patches(x, levels, padding, boundary=boundary)
        assert y.shape == (2 * 2 ** (levels * dims), 3 * (levels + 1), *[n // 2**levels + 2 * padding] * dims)
        assert torch.equal(stitch(y[:, :3], levels, padding), x)


def test_patches_are_ordered_by_field_then_row_then_column_and_levels_by_channel():
    x = torch.randn(2, 2, 32, 64)
    y = patches(x, 1, 0)
    assert torch.equal(y[4 + 2 * 1 + 0, :2], x[1, :, 16:, :32])
    assert torch.equal(y[1, :2], x[0, :, :16, 32:])
    # the coarsest window without padding is the whole domain about the patch
    assert torch.equal(y[0, 2:].flatten(1).sort().values, x[0, :, ::2, ::2].flatten(1).sort().values)


def test_starts_are_the_integers_of_the_formula():
    assert window_starts(64, 2, 3, 0).tolist() == [-3, 13, 29, 45]
    assert window_starts(64, 2, 3, 1).tolist() == [-7, 1, 9, 17]
    assert window_starts(64, 2, 3, 2).tolist() == [-9, -5, -1, 3]
    assert window_starts(10, 0, 0, 0).tolist() == [0]


def test_what_stands_beyond_the_sides():
    x = torch.arange(1.0, 33.0).view(1, 1, 32)
    first = {b: patches(x, 1, 2, boundary=b)[0] for b in ("periodic", "reflect", "zeros")}
    assert first["periodic"][0, :3].tolist() == [31, 32, 1]
    assert first["reflect"][0, :3].tolist() == [3, 2, 1]
    assert first["zeros"][0, :3].tolist() == [0, 0, 1]
    # level 1: points 1, 3, 5 ..., the window begins at -4 - 2
    assert first["reflect"][1, :8].tolist() == [13, 11, 9, 7, 5, 3, 1, 3]
    last = {b: patches(x, 1, 2, boundary=b)[1] for b in ("reflect", "zeros")}
    assert last["reflect"][0, -3:].tolist() == [32, 31, 30]
    assert last["reflect"][1, -7:].tolist() == [31, 29, 27, 25, 23, 21, 19]
    assert last["zeros"][1, -7:].tolist() == [31, 0, 0, 0, 0, 0, 0]


def test_spectral_coarsening_keeps_aliases_out():
    points = torch.arange(64, dtype=torch.float64) * 2 * torch.pi / 64
    low, high = torch.cos(3 * points), torch.cos(29 * points)
    both = (low + high)[None, None]
    clean = patches(both, 1, 2, coarsening="spectral")[:, 1]
    torch.testing.assert_close(clean, patches(low[None, None], 1, 2)[:, 1])
    assert (patches(both, 1, 2)[:, 1] - clean).abs().max() > 0.5


def test_compression_counts_points_and_levels():
    c = compression((128, 128), 2, 8)
    assert c.points == pytest.approx(128**2 / 48**2)
    assert c.memory == pytest.approx(c.points / 3)


class Local(nn.Module):
    """A map that needs no context: patches of it are the map of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.mix(x))


@pytest.mark.parametrize("chunk", [0, 1, 5])
def test_a_local_map_is_not_changed_by_the_decomposition(chunk):
    torch.manual_seed(0)
    model, x = Local(), torch.randn(2, 1, 64, 64)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    seen = []
    # the map sees level 0 alone
    model.mix.weight.data[:, 1:] = 0
    cut = MultiGrid(model, 2, 2, chunk=chunk)(x)
    assert (max(seen), sum(seen)) == (chunk or 32, 32)
    whole = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
    weight = model.mix.weight[:, :1]
    torch.testing.assert_close(cut, torch.tanh(nn.functional.conv2d(whole, weight, model.mix.bias)))


def test_gradients_flow_to_the_field():
    x = torch.randn(1, 1, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: patches(v, 1, 3, boundary="reflect").square(), x)
    assert torch.autograd.gradcheck(
        lambda v: stitch(v, 0, 2), torch.randn(1, 1, 9, dtype=torch.float64, requires_grad=True)
    )


def _train(rank: int, world: int, port: int, results) -> None:
    """Three steps on shared patches; the batch is the same on every rank."""
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    torch.manual_seed(0)
    inner: nn.Module = Local().double()
    model = MultiGrid(inner, 2, 2, distributed=world > 1)
    trained = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.Adam(inner.parameters(), 1e-2)
    x, target = torch.randn(1, 1, 64, 64).double(), torch.randn(1, 2, 64, 64).double()
    losses = []
    for _ in range(3):
        loss = (trained(x) - target).square().mean().sqrt()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    results.put((rank, losses, [p.detach().numpy() for p in inner.parameters()]))
    if world > 1:
        torch.distributed.destroy_process_group()


def _runs(world: int) -> list:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    collected = context.Queue()
    ranks = [context.Process(target=_train, args=(rank, world, port, collected)) for rank in range(world)]
    for process in ranks:
        process.start()
    results = sorted((collected.get(timeout=240) for _ in ranks), key=lambda entry: entry[0])
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    return results


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_that_share_the_patches_train_as_one_process(world):
    """Three ranks share 16 patches unevenly."""
    alone = queue.Queue()
    threads = torch.get_num_threads()
    _train(0, 1, 0, alone)
    torch.set_num_threads(threads)
    _, losses, weights = alone.get()
    assert losses[2] < losses[0]
    for _, shared_losses, shared_weights in _runs(world):
        assert shared_losses == pytest.approx(losses, rel=1e-12)
        for a, b in zip(shared_weights, weights, strict=True):
            torch.testing.assert_close(torch.from_numpy(a), torch.from_numpy(b), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: patches(x[..., :20], 1, 0), r"size must be divisible by 8 .* got \(32, 20\)"),
        (lambda x: patches(x, 2, 40), r"padding must leave patches smaller than the grid \(32, 32\), got 40"),
        (lambda x: patches(x, -1, 0), "levels and padding must be integers that are not negative, got -1 and 0"),
        (lambda x: patches(x[:, :, 0, 0], 1, 0), r"size must hold a positive number for each axis, got \(\)"),
        (lambda x: compression((0,), 1, 0), r"size must hold a positive number for each axis, got \(0,\)"),
        (lambda x: stitch(x[:, :, 0, 0], 1, 0), r"y must have axes of a grid .* got \(4, 1\) and 1"),
        (lambda x: stitch(x, -1, 0), "levels not be negative, got .* and -1"),
        (lambda x: stitch(x[:0], 1, 0), r"y must hold a multiple of 2\^2 patches, got 0"),
        (lambda x: MultiGrid(nn.Identity(), 1, 0, boundary="wall"), "boundary must be one of .* got 'wall'"),
        (
            lambda x: MultiGrid(nn.AvgPool2d(2), 1, 2)(x),
            r"model must return \(16, outputs, 20, 20\), got \(16, 2, 10, 10\)",
        ),
        (
            lambda x: MultiGrid(nn.Flatten(), 1, 0, chunk=3)(x),
            r"model must return \(16, outputs, 16, 16\), got \(16, 512\)",
        ),
        (lambda x: patches(x, 1, 0, boundary="wall"), "boundary must be one of periodic, reflect, zeros, got 'wall'"),
        (
            lambda x: patches(x, 1, 0, boundary="zeros", coarsening="spectral"),
            "coarsening must be 'stride', or 'spectral'",
        ),
        (
            lambda x: patches(x, 1, 8, boundary="reflect"),
            r"less than half a patch \(16, 16\) where fields are mirrored, got 8",
        ),
        (lambda x: window_starts(32, 1, 0, 2), "level must be from 0 to 1, got 2"),
        (lambda x: stitch(x[:1], 1, 0), r"y must hold a multiple of 2\^2 patches, got 1"),
        (lambda x: stitch(x[:2], 1, 0), r"y must hold a multiple of 2\^2 patches, got 2"),
        (lambda x: stitch(x, 0, 16), r"padding must leave a point of the windows \(32, 32\), got 16"),
        (lambda x: MultiGrid(nn.Identity(), 1, 0, chunk=-1), "must be integers that are not negative, got 1, 0 and -1"),
        (lambda x: MultiGrid(nn.Identity(), 1, 0, distributed=True)(x), "init_process_group first"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.zeros(4, 1, 32, 32))

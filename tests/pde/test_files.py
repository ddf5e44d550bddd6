"""Files: every layout there and back with its exact keys, lazy reading, each corruption by name, and runs that are killed."""

import itertools
import json
import os
import pickle
import resource
import signal
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from torch.utils.data import DataLoader

from pdebook.data.trajectories import Windows
from pdebook.pde import file_writer
from pdebook.pde.fields import gaussian_field, power_law
from pdebook.pde.file_layouts import LAYOUTS, Layout, Piece, split
from pdebook.pde.file_writer import generate, write_file
from pdebook.pde.files import Reader, read_mat
from pdebook.pde.grid import Grid

SIZE = (6, 4, 3)
GRID = {1: Grid(6, 2.0, -1.0), 2: Grid((6, 4), (1.0, 2.0), (0.0, -1.0)), 3: Grid(SIZE)}
SUFFIX = {"fno": ".mat", "poseidon": ".nc"}


def made(layout: Layout, samples: int = 3, frames: int = 5, seed: int = 0):
    """A state and statics for a layout: positive numbers, all different."""
    generator = torch.Generator().manual_seed(seed)
    frames = frames if all("t" in piece.axes for piece in layout.state) and layout.name != "darcy" else 1
    size = SIZE[: layout.dims]
    state = torch.rand(samples, frames, len(layout.channels), *size, generator=generator) + 0.1
    static = {
        p.name: torch.rand(samples, len(p.channels), *(size if "x" in p.axes else ()), generator=generator)
        for p in layout.static
    }
    times = 0.25 * torch.arange(frames) if layout.times else None
    return state, static, times


def suffix(name: str) -> str:
    return SUFFIX.get(name.partition("_")[0], ".hdf5") if LAYOUTS[name].group is None else ".h5"


def write(tmp_path: Path, name: str, **more) -> Path:
    layout = LAYOUTS[name]
    state, static, times = made(layout)
    path = tmp_path / f"{name}{suffix(name)}"
    write_file(path, layout, state, grid=GRID[layout.dims], times=times, static=static, **more)
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_goes_there_and_back(tmp_path, name):
    layout = LAYOUTS[name]
    state, static, times = made(layout)
    path = write(tmp_path, name)
    reader = Reader(path, name)
    assert reader.shape == tuple(state.shape)
    assert torch.equal(reader.batch(range(3)), state)
    for i in range(3):
        assert torch.equal(reader.read(i, slice(0, 1)), state[i, :1])
        for key, value in reader.static(i).items():
            (full,) = [p.name for p in layout.static if p.name.endswith(key)]
            assert torch.equal(value, static[full][i])
        assert len(reader.static(i)) == len(static)
    if layout.coordinates:
        assert reader.grid == GRID[layout.dims]
    if times is not None:
        assert reader.times.tolist() == times.tolist()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def datasets(path: Path) -> dict[str, tuple]:
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, d: found.update({name: (d.shape, d.dtype.str)}) if isinstance(d, h5py.Dataset) else None
        )
    return found


def test_the_files_have_the_exact_keys_types_and_attributes(tmp_path):
    f4 = "<f4"
    path = write(tmp_path, "scalar_1d", attributes={"Nu": 0.5, "rho": 2.0})
    assert datasets(path) == {"tensor": ((3, 5, 6), f4), "x-coordinate": ((6,), f4), "t-coordinate": ((6,), f4)}
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"Nu": 0.5, "rho": 2.0}
        assert file["x-coordinate"][:].tolist() == pytest.approx([-5 / 6, -0.5, -1 / 6, 1 / 6, 0.5, 5 / 6])
        assert file["t-coordinate"][:].tolist() == [0, 0.25, 0.5, 0.75, 1.0, 1.25]
    assert Reader(path, "scalar_1d").attributes == {"Nu": 0.5, "rho": 2.0}
    assert datasets(write(tmp_path, "darcy")) == {
        "tensor": ((3, 1, 6, 4), f4),
        "nu": ((3, 6, 4), f4),
        "x-coordinate": ((6,), f4),
        "y-coordinate": ((4,), f4),
    }
    for d in (1, 2, 3):
        fields = ("density", "pressure", "Vx", "Vy", "Vz")[: 2 + d]
        axes = {f"{a}-coordinate": ((n,), f4) for a, n in zip("xyz", SIZE[:d], strict=False)}
        expected = dict.fromkeys(fields, ((3, 5, *SIZE[:d]), f4)) | axes | {"t-coordinate": ((6,), f4)}
        assert datasets(write(tmp_path, f"cfd_{d}d")) == expected
    for name, shape, axes in (
        ("sorption", (5, 6, 1), "x"),
        ("reaction", (5, 4, 6, 2), "xy"),
        ("dam_break", (5, 6, 4, 1), "xy"),
    ):
        path = write(tmp_path, name, config={"D": 5e-4, "name": "x"})
        expected = {}
        for i in range(3):
            expected[f"000{i}/data"] = (shape, f4)
            expected[f"000{i}/grid/t"] = ((5,), f4)
            expected |= {f"000{i}/grid/{a}": ((n,), f4) for a, n in zip(axes, SIZE, strict=False)}
        assert datasets(path) == expected
        with h5py.File(path) as file:
            assert json.loads(file["0002"].attrs["config"]) == {"D": 5e-4, "name": "x"}
        assert json.loads(Reader(path, name).attributes["config"])["D"] == 5e-4
    path = write(tmp_path, "incompressible", config="NU: 0.01\n")
    assert datasets(path) == {
        "velocity": ((3, 5, 6, 4, 2), f4),
        "particles": ((3, 5, 6, 4, 1), f4),
        "force": ((3, 6, 4, 2), f4),
        "t": ((3, 5), f4),
    }
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"config": "NU: 0.01\n", "latestIndex": 4}
        assert file["velocity"].chunks == (1, 1, 6, 4, 2)
        assert file["particles"].chunks == (1, 1, 6, 4, 1)
        assert file["velocity"].compression == "lzf"
        assert file["velocity"].shuffle
        assert file["force"].chunks is None
    path = write(tmp_path, "poseidon_velocity_transposed")
    with h5py.File(path) as file:
        assert file["velocity"].shape == (3, 5, 2, 4, 6)
        assert [d[0].name for d in file["velocity"].dims] == ["/member", "/time", "/channel", "/y", "/x"]
    mat = scipy.io.loadmat(write(tmp_path, "fno_navier_stokes"))
    assert mat["u"].shape == (3, 6, 4, 5)
    assert mat["a"].shape == (3, 6, 4)


def test_the_values_stand_where_the_layout_says(tmp_path):
    state, _, times = made(LAYOUTS["reaction"])
    write_file(tmp_path / "r.h5", "reaction", state, grid=GRID[2], times=times)
    with h5py.File(tmp_path / "r.h5") as file:
        assert file["0001/data"][2, 3, 5, 1] == state[1, 2, 1, 5, 3]
    state, _, times = made(LAYOUTS["cfd_2d"])
    write_file(tmp_path / "c.hdf5", "cfd_2d", state, grid=GRID[2], times=times)
    with h5py.File(tmp_path / "c.hdf5") as file:
        assert file["Vy"][2, 4, 5, 3] == state[2, 4, 3, 5, 3]


def test_poseidons_times_run_to_one(tmp_path):
    state = torch.rand(1, 21, 1, 6, 4)
    write_file(tmp_path / "w.nc", "poseidon_wave_layer", state, grid=GRID[2], static={"c": torch.rand(1, 1, 6, 4)})
    assert Reader(tmp_path / "w.nc", "poseidon_wave_layer").times[-1] == 1
    write_file(
        tmp_path / "g.nc", "poseidon_wave_gauss", state[:, :15], grid=GRID[2], static={"c": torch.rand(1, 1, 6, 4)}
    )
    assert Reader(tmp_path / "g.nc", "poseidon_wave_gauss").times[-1].item() == pytest.approx(14 / 15)
    write_file(tmp_path / "v.nc", "poseidon_velocity", torch.rand(1, 11, 2, 6, 4), grid=GRID[2])
    assert Reader(tmp_path / "v.nc", "poseidon_velocity").times.tolist() == pytest.approx([k / 10 for k in range(11)])
    assert Reader(tmp_path / "v.nc", "poseidon_velocity").grid == Grid((6, 4))


def test_without_coordinates_the_points_are_those_of_the_layout(tmp_path):
    x = {name: Reader(write(tmp_path, name), name).grid.coordinates()[0].flatten() for name in LAYOUTS if "fno" in name}
    torch.testing.assert_close(x["fno_burgers"], torch.arange(6).double() / 6, rtol=0, atol=1e-15)
    torch.testing.assert_close(x["fno_navier_stokes"], torch.arange(6).double() / 6, rtol=0, atol=1e-15)
    torch.testing.assert_close(x["fno_darcy"], torch.linspace(0, 1, 6).double(), rtol=0, atol=1e-7)
    assert Reader(write(tmp_path, "poseidon_velocity"), "poseidon_velocity").grid == Grid((6, 4))


def test_a_longer_time_axis_may_be_given(tmp_path):
    state, _, _ = made(LAYOUTS["scalar_1d"])
    write_file(tmp_path / "a.hdf5", "scalar_1d", state, grid=GRID[1], times=[0, 1, 2, 3, 4, 7])
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file["t-coordinate"][-1] == 7
    write_file(tmp_path / "b.hdf5", "scalar_1d", state[:, :1], grid=GRID[1], times=[3.0])
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file["t-coordinate"][:].tolist() == [3.0, 4.0]
    assert len(Reader(tmp_path / "a.hdf5", "scalar_1d").times) == 5


# -------------------- thinning out


def test_strides_and_averages(tmp_path):
    state = torch.rand(2, 9, 4, 12, 8, dtype=torch.float64).float() + 0.1
    grid = Grid((12, 8), (3.0, 4.0), (1.0, -2.0))
    write_file(tmp_path / "c.hdf5", "cfd_2d", state, grid=grid, times=0.1 * torch.arange(9))
    path = tmp_path / "c.hdf5"
    strided = Reader(path, "cfd_2d", reduce=4, every=2, channels=["Vx", "density"])
    assert strided.shape == (2, 5, 2, 3, 2)
    assert torch.equal(strided.read(1), state[1, ::2, [2, 0]][..., ::4, ::4])
    assert torch.equal(strided.read(1, slice(1, 4, 2)), state[1, 2:7:4, [2, 0]][..., ::4, ::4])
    assert strided.times.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    # The values stand where they stood.
    for axis, (x, full) in enumerate(zip(strided.grid.coordinates(), grid.coordinates(), strict=True)):
        torch.testing.assert_close(x.flatten(), full.flatten()[::4])
        assert strided.grid.spacing[axis] == pytest.approx(4 * grid.spacing[axis])
    averaged = Reader(path, "cfd_2d", reduce=4, how="average")
    expected = state[0].reshape(9, 4, 3, 4, 2, 4).mean((3, 5))
    torch.testing.assert_close(averaged.read(0), expected)
    assert averaged.grid == grid.coarser(4)
    uneven = Reader(path, "cfd_2d", reduce=5)
    assert torch.equal(uneven.read(0), state[0][..., ::5, ::5])
    assert uneven.grid.size == (3, 2)


def test_blocks_do_not_change_what_is_read(tmp_path, monkeypatch):
    state, _, _ = made(LAYOUTS["cfd_2d"], frames=7)
    write_file(tmp_path / "c.hdf5", "cfd_2d", state, grid=GRID[2], times=torch.arange(7.0))
    for block in (1, 48, 49):
        monkeypatch.setattr("pdebook.pde.files._BLOCK", block)
        assert torch.equal(Reader(tmp_path / "c.hdf5", "cfd_2d").read(2, slice(1, 7, 2)), state[2, 1:7:2])


def test_the_official_order_and_split(tmp_path):
    path = write(tmp_path, "cfd_2d")
    state = made(LAYOUTS["cfd_2d"])[0]
    u, grid = Reader(path, "cfd_2d").official([2, 0], slice(1, 4))
    assert u.shape == (2, 6, 4, 3, 4)
    assert u[0, 5, 3, 1, 2] == state[2, 2, 2, 5, 3]
    assert grid.shape == (6, 4, 2)
    assert grid[2, 3].tolist() == pytest.approx([2.5 / 6, 0.75])
    first = split(100, LAYOUTS["scalar_1d"].test)
    assert (first.train, first.validation, first.test) == (range(10, 100), range(0), range(10))
    last = split(105, LAYOUTS["dam_break"].test)
    assert (last.train, last.test) == (range(94), range(94, 105))
    counts = split(20000, LAYOUTS["poseidon_velocity"].test)
    assert counts == (range(19640), range(19640, 19760), range(19760, 20000))
    assert split(15000, LAYOUTS["poseidon_allen_cahn"].test).train == range(14700)
    assert Reader(path, "cfd_2d").split(0.4).test == range(1)
    assert Reader(path, "cfd_2d").split() == split(3, "first", 0.1)


def test_the_frame_of_a_time(tmp_path):
    reader = Reader(write(tmp_path, "scalar_1d"), "scalar_1d")
    assert [reader.frame(t) for t in (0, 0.25, 0.3, 1.0)] == [0, 1, 1, 4]
    with pytest.raises(ValueError, match=r"t = 1.25 is beyond the file .*, whose frames go from 0 to 1"):
        reader.frame(1.25)
    with pytest.raises(ValueError, match=r"t = -0.1 is beyond"):
        reader.frame(-0.1)


# -------------------- other kinds of files


def test_matlab_73_and_classic_netcdf(tmp_path):
    state, static, _ = made(LAYOUTS["fno_navier_stokes"])
    path = tmp_path / "v.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        # MATLAB lists the axes in reverse.
        file["u"] = state[:, :, 0].permute(0, 2, 3, 1).numpy().T
        file["a"] = static["a"][:, 0].numpy().T
        file["z"] = _pairs()
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, made by a test".ljust(512))
    reader = Reader(path, "fno_navier_stokes")
    assert torch.equal(reader.batch(range(3)), state)
    assert torch.equal(reader.static(2)["a"], static["a"][2])
    arrays = read_mat(path)
    assert arrays["u"].shape == (3, 6, 4, 5)
    assert arrays["z"].tolist() == [[1 + 2j, 3 + 0j]]
    assert list(read_mat(path, "a")) == ["a"]

    scipy.io.savemat(tmp_path / "5.mat", {"w1": np.arange(6.0).reshape(2, 3), "z": np.array([1j]), "name": "text"})
    five = read_mat(tmp_path / "5.mat")
    assert set(five) == {"w1", "z"}
    assert five["w1"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert five["z"].tolist() == [[1j]]

    classic = tmp_path / "classic.nc"
    state, _, _ = made(LAYOUTS["poseidon_velocity"])
    with scipy.io.netcdf_file(classic, "w") as file:
        for dimension, n in zip("stcxy", state.shape, strict=True):
            file.createDimension(dimension, n)
        variable = file.createVariable("velocity", "f4", tuple("stcxy"))
        variable[:] = state.numpy()
    with Reader(classic, "poseidon_velocity") as reader:
        assert torch.equal(reader.batch(range(3)), state)


def _pairs() -> np.ndarray:
    pairs = np.zeros((2, 1), dtype=[("real", "f8"), ("imag", "f8")])
    pairs["real"][:, 0], pairs["imag"][:, 0] = [1, 3], [2, 0]
    return pairs


def test_a_layout_of_ones_own(tmp_path):
    mine = Layout("mine", 1, (Piece("w", "xtsc", ("p", "q")),), times="when")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["w"] = np.random.default_rng(0).random((6, 4, 3, 2))
        file["when"] = np.arange(4)
        whole = file["w"][...]
    reader = Reader(tmp_path / "m.h5", mine, dtype=torch.float64)
    assert reader.shape == (3, 4, 2, 6)
    assert torch.equal(reader.batch(range(3)), torch.from_numpy(whole.transpose(2, 1, 3, 0).copy()))


# -------------------- lazy reading


@pytest.fixture
def large(tmp_path) -> Path:
    """A file of 1 GB, of which the disk holds next to nothing."""
    path = tmp_path / "large.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("tensor", (1300, 201, 1024), "f4", fill_time="never")[700, 5] = np.arange(1024)
        file["x-coordinate"] = (np.arange(1024, dtype="f4") + 0.5) / 1024
        file["t-coordinate"] = np.linspace(0, 2.01, 202, dtype="f4")
    return path


def test_a_sample_of_a_large_file_takes_little_memory(large):
    assert large.stat().st_size > 1e9
    tracemalloc.start()
    reader = Reader(large, "scalar_1d", reduce=2)
    u = reader.read(700)
    windows = Windows(reader, history=10, ahead=1)
    window = windows[700 * windows.per_sample]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # NumPy's arrays are traced, torch's 0.4 MB are not.
    assert peak < 50e6
    assert u.shape == (201, 1, 512)
    assert u[5, 0].tolist() == list(range(0, 1024, 2))
    assert torch.equal(window["history"], u[:10])
    assert killed(lambda: resident(large)) == 0


def resident(path: Path) -> None:
    """End by a signal if reading three samples of a file makes the process grow by 50 MB."""
    reader = Reader(path, "scalar_1d")
    reader.read(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for sample in (1, 700, 1299):
        reader.read(sample)
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > 50e6:
        os.kill(os.getpid(), signal.SIGUSR1)


def test_each_worker_opens_the_file_for_itself(tmp_path):
    path = write(tmp_path, "scalar_1d")
    state = made(LAYOUTS["scalar_1d"])[0]
    reader = Reader(path, "scalar_1d")
    assert reader._store is None
    reader.read(0)
    assert reader._store is not None
    assert pickle.loads(pickle.dumps(reader))._store is None
    windows = Windows(reader, history=2, ahead=1)
    alone = [windows[i]["history"] for i in range(len(windows))]
    for loader in (DataLoader(windows, batch_size=3, num_workers=2),):
        together = torch.cat([batch["history"] for batch in loader])
        assert torch.equal(together, torch.stack(alone))
    assert torch.equal(alone[4], state[1, 1:3])
    assert torch.equal(windows.gather(torch.tensor([4]))["history"][0], alone[4])
    reader.close()
    assert torch.equal(reader.read(2), state[2])
    with reader:
        pass
    assert reader._store is None


# -------------------- corruption, by name


def _edit(path: Path, action) -> None:
    with h5py.File(path, "r+") as file:
        action(file)


def _swap(file: h5py.File, name: str, value) -> None:
    del file[name]
    file[name] = value


def _cut(path: Path, size: int) -> None:
    os.truncate(path, size)


CORRUPTIONS = [
    (
        "scalar_1d",
        lambda f: f.move("tensor", "data"),
        "lacks dataset 'tensor'; it holds data, t-coordinate, x-coordinate",
    ),
    ("scalar_1d", lambda f: f.move("x-coordinate", "x"), "lacks dataset 'x-coordinate'"),
    ("scalar_1d", lambda f: f.move("t-coordinate", "t"), "lacks dataset 't-coordinate'"),
    (
        "scalar_1d",
        lambda f: _swap(f, "tensor", np.zeros((3, 5, 6, 1))),
        r"'tensor' has rank 4 .*expected 3 \(sample, time, x\)",
    ),
    ("scalar_1d", lambda f: _swap(f, "tensor", np.zeros((3, 6))), "'tensor' has rank 2"),
    (
        "scalar_1d",
        lambda f: _swap(f, "tensor", np.zeros((3, 5, 7))),
        "coordinate 'x-coordinate' has 6 entries for 7 cells",
    ),
    (
        "scalar_1d",
        lambda f: _swap(f, "tensor", np.zeros((3, 8, 6))),
        "time axis 't-coordinate' has 6 entries, expected 8 or 9",
    ),
    ("scalar_1d", lambda f: _swap(f, "tensor", np.zeros((0, 5, 6))), "is empty"),
    ("scalar_1d", lambda f: _swap(f, "tensor", np.zeros((3, 5, 6), "c8")), "must hold real numbers, got kind 'c'"),
    ("scalar_1d", lambda f: _swap(f, "x-coordinate", np.array([0, 1, 2, 3, 4, 6.0])), "'x-coordinate' is not uniform"),
    ("scalar_1d", lambda f: _swap(f, "x-coordinate", -np.arange(6.0)), "'x-coordinate' is not uniform and rising"),
    (
        "scalar_1d",
        lambda f: _swap(f, "x-coordinate", np.array([0, 1, 2, np.nan, 4, 5])),
        "'x-coordinate' has values that are not finite",
    ),
    ("scalar_1d", lambda f: _swap(f, "x-coordinate", np.zeros((6, 1))), "'x-coordinate' has rank 2, expected 1"),
    ("scalar_1d", lambda f: _swap(f, "t-coordinate", np.zeros(6)), "time axis 't-coordinate' does not rise"),
    (
        "scalar_1d",
        lambda f: (f.move("tensor", "a"), f.create_group("tensor")),
        "'tensor' is a group, expected a dataset",
    ),
    ("darcy", lambda f: f.move("nu", "a"), "lacks dataset 'nu'"),
    ("darcy", lambda f: _swap(f, "nu", np.zeros((2, 6, 4))), "'nu' has length 2 along sample, 'tensor' has 3"),
    ("cfd_2d", lambda f: f.move("Vy", "Vz"), "lacks dataset 'Vy'"),
    ("cfd_2d", lambda f: _swap(f, "Vx", np.zeros((3, 4, 6, 4))), "'Vx' has length 4 along time, 'density' has 5"),
    (
        "reaction",
        lambda f: _swap(f, "0000/data", np.zeros((5, 4, 6, 3))),
        r"'0000/data' has 3 channels, expected 2 \(u, v\)",
    ),
    ("sorption", lambda f: [f.move(k, "s" + k) for k in list(f)], "lacks groups of samples, such as '0000'"),
    ("sorption", lambda f: f.move("0000/data", "0000/u"), "lacks dataset '0000/data'"),
    (
        "incompressible",
        lambda f: _swap(f, "t", np.zeros((3, 2))),
        "time axis 't' has 2 entries, expected 5 for 5 frames",
    ),
    (
        "poseidon_velocity",
        lambda f: _swap(f, "velocity", np.zeros((3, 5, 3, 6, 4))),
        "'velocity' has 3 channels, expected 2",
    ),
]


@pytest.mark.parametrize(
    ("name", "action", "words"), CORRUPTIONS, ids=[f"{c[0]}-{i}" for i, c in enumerate(CORRUPTIONS)]
)
def test_a_corrupt_file_is_refused_by_name(tmp_path, name, action, words):
    path = write(tmp_path, name)
    _edit(path, action)
    with pytest.raises(ValueError, match=words) as error:
        Reader(path, name)
    assert str(path) in str(error.value)


def test_truncated_and_foreign_files(tmp_path):
    path = write(tmp_path, "scalar_1d")
    _cut(path, path.stat().st_size - 10)
    with pytest.raises(ValueError, match=r"scalar_1d.hdf5 is truncated"):
        Reader(path, "scalar_1d")
    (tmp_path / "text.h5").write_text("not a file of fields")
    with pytest.raises(ValueError, match=r"text.h5 is damaged, or no file of its kind"):
        Reader(tmp_path / "text.h5", "scalar_1d")
    (tmp_path / "empty.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty.h5 is damaged"):
        Reader(tmp_path / "empty.h5", "scalar_1d")
    mat = write(tmp_path, "fno_darcy")
    _cut(mat, 300)
    with pytest.raises(ValueError, match=r"fno_darcy.mat is damaged"):
        Reader(mat, "fno_darcy")
    classic = tmp_path / "c.nc"
    with scipy.io.netcdf_file(classic, "w") as file:
        for dimension, n in zip("stcxy", (3, 5, 2, 6, 4), strict=True):
            file.createDimension(dimension, n)
        file.createVariable("velocity", "f4", tuple("stcxy"))[:] = 1.0
    _cut(classic, 500)
    with pytest.raises(ValueError, match=r"c.nc is (damaged|truncated)"):
        Reader(classic, "poseidon_velocity")
    with pytest.raises(FileNotFoundError):
        Reader(tmp_path / "none.h5", "scalar_1d")


def test_damage_inside_compressed_frames_is_named(tmp_path):
    path = tmp_path / "i.h5"
    state = torch.rand(1, 4, 3, 64, 64)
    write_file(
        path,
        "incompressible",
        state,
        grid=Grid((64, 64)),
        times=torch.arange(4.0),
        static={"force": torch.rand(1, 2, 64, 64)},
    )
    with h5py.File(path) as file:
        chunk = file["velocity"].id.get_chunk_info_by_coord((0, 2, 0, 0, 0))
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    reader = Reader(path, "incompressible")
    reader.read(0, slice(0, 2))
    with pytest.raises(ValueError, match=r"i.h5 is truncated or damaged in 'velocity'"):
        reader.read(0)


def test_values_that_cannot_be_are_named(tmp_path):
    path = write(tmp_path, "cfd_1d")
    _edit(path, lambda f: f["Vx"].__setitem__((1, 3, 2), np.nan))
    _edit(path, lambda f: f["pressure"].__setitem__((2, 4, 0), -1.0))
    _edit(path, lambda f: f["density"].__setitem__((0, 2, 1), np.inf))
    reader = Reader(path, "cfd_1d")
    with pytest.raises(ValueError, match="Vx of sample 1 is not finite at frame 3"):
        reader.read(1)
    assert reader.read(1, slice(0, 3)).isfinite().all()
    with pytest.raises(
        ValueError, match=r"pressure of sample 2 is not positive .are the channels in their places.. at frame 4"
    ):
        reader.read(2)
    with pytest.raises(ValueError, match="density of sample 0 is not finite at frame 2"):
        reader.read(0)
    assert reader.read(2, slice(0, 4)).min() > 0
    assert Reader(path, "cfd_1d", check=False).read(1).isnan().sum() == 1
    assert Reader(path, "cfd_1d", channels=["density"]).read(1).isfinite().all()
    path = write(tmp_path, "darcy")
    _edit(path, lambda f: f["nu"].__setitem__((1, 3, 2), np.nan))
    with pytest.raises(ValueError, match="nu of sample 1 is not finite"):
        Reader(path, "darcy").static(1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: Reader(p, "burgers"), "layout must be one of scalar_1d, darcy, .* got 'burgers'"),
        (lambda p: Reader(p, "cfd_1d", every=0), "every and reduce must be positive"),
        (lambda p: Reader(p, "cfd_1d", reduce=0), "every and reduce must be positive"),
        (lambda p: Reader(p, "cfd_1d", how="mean"), "how 'stride' or 'average', got 1, 1 and 'mean'"),
        (
            lambda p: Reader(p, "cfd_1d", how="average", reduce=4),
            r"reduce must divide the size \(6,\) to average, got 4",
        ),
        (lambda p: Reader(p, "cfd_1d", channels=["Vy"]), "channels must be among density, pressure, Vx, got"),
        (lambda p: Reader(p, "cfd_1d", channels=[]), "channels must be among"),
        (lambda p: Reader(p, "cfd_1d").read(3), "sample must be from 0 to 2, got 3"),
        (lambda p: Reader(p, "cfd_1d").read(-1), "sample must be from 0 to 2, got -1"),
        (lambda p: Reader(p, "cfd_1d").read(0, slice(2, 7)), r"frames go to 6, beyond the file .* frame 4 at t = 1"),
        (lambda p: Reader(p, "cfd_1d", every=2).read(0, slice(0, 4)), r"which ends with frame 2 at t = 1"),
        (lambda p: Reader(p, "cfd_1d").read(0, slice(2, 2)), "frames must be a forward slice that is not empty"),
        (lambda p: Reader(p, "cfd_1d").read(0, slice(4, 0, -1)), "frames must be a forward slice"),
        (lambda p: Reader(p, "cfd_1d").read(0, slice(-2, None)), "frames must be a forward slice"),
        (lambda p: split(10, "middle"), "rule must be 'first', 'last' or two counts .* got 'middle'"),
        (lambda p: split(10, "first", 1.0), "fraction in .0, 1., got 'first' and 1.0"),
        (lambda p: split(10, (4, 6)), "rule takes 4 . 6 samples for validation and testing, of 10"),
        (lambda p: read_mat(p, "u"), "lacks dataset 'u'"),
    ],
)
def test_bad_requests_are_named(tmp_path, call, words):
    with pytest.raises(ValueError, match=words):
        call(write(tmp_path, "cfd_1d"))


S, G, T = torch.rand(3, 5, 1, 6), GRID[1], torch.arange(5.0)
NAN = torch.where(torch.arange(3).view(3, 1, 1, 1) == 1, torch.nan, S)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: write_file(p, "burgers", S, grid=G), "layout must be one of"),
        (lambda p: write_file(p, "scalar_1d", S, grid=G), "times must be given for layout 'scalar_1d'"),
        (lambda p: write_file(p, "scalar_1d", S, grid=G, times=T[:4]), "times must be 5 rising numbers"),
        (lambda p: write_file(p, "scalar_1d", S, grid=G, times=-T), "times must be 5 rising numbers"),
        (
            lambda p: write_file(p, "scalar_1d", S[..., :5], grid=G, times=T),
            r"state must have shape \(3, 5, 1, 6\), got",
        ),
        (
            lambda p: write_file(p, "cfd_1d", S, grid=G, times=T),
            r"state must have shape \(3, 5, 3, 6\), got \(3, 5, 1, 6\)",
        ),
        (lambda p: write_file(p, "darcy", S[..., None], grid=G), "grid must have 2 axes for layout 'darcy', got 1"),
        (lambda p: write_file(p, "scalar_1d", NAN, grid=G, times=T), "state is not finite in sample 1"),
        (lambda p: write_file(p, "scalar_1d", S.double() * 1e300, grid=G, times=T), "state is not finite in sample 0"),
        (lambda p: write_file(p, "scalar_1d", S, grid=G, times=T, static={"nu": S}), "static must hold nothing"),
        (lambda p: write_file(p, "fno_burgers", S[:, :1], grid=G), "static must hold a for layout 'fno_burgers'"),
        (
            lambda p: write_file(p, "fno_burgers", S[:, :1], grid=G, static={"a": S}),
            r"static\['a'\] must have shape \(3, 1, 6\)",
        ),
        (
            lambda p: write_file(p, "fno_burgers", S, grid=G, static={"a": S[:, 0]}),
            "no time axis in 'u': it takes one frame, got 5",
        ),
        (
            lambda p: write_file(p, "scalar_1d", S[:0], grid=G, times=T),
            "samples and frames must be positive, got 0 and 5",
        ),
        (lambda p: write_file(p.with_suffix(".mat"), "sorption", S, grid=G, times=T), "which no MATLAB file holds"),
        (
            lambda p: generate(p, "scalar_1d", lambda i: S, samples=3, frames=5, grid=G, times=T, block=0),
            "block must be positive",
        ),
        (
            lambda p: generate(p, "incompressible", lambda i: S, samples=3, frames=5, grid=GRID[2], times=T),
            "has no place for single samples: use write_file",
        ),
        (
            lambda p: generate(p, "scalar_1d", lambda i: NAN[i], samples=3, frames=5, grid=G, times=T, block=1),
            "not finite in sample 1",
        ),
        (
            lambda p: generate(p, "scalar_1d", lambda i: S[:1], samples=3, frames=5, grid=G, times=T),
            r"state must have shape \(3,",
        ),
    ],
)
def test_bad_writes_are_named_and_leave_no_file(tmp_path, call, words):
    path = tmp_path / "w.hdf5"
    with pytest.raises(ValueError, match=words):
        call(path)
    assert all(p.suffix in (".partial", ".journal") for p in tmp_path.iterdir())


# -------------------- whole or not at all


def test_an_older_file_outlives_a_write_that_fails(tmp_path, monkeypatch):
    path = write(tmp_path, "scalar_1d")
    before = path.read_bytes()
    monkeypatch.setattr(file_writer, "_whole", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, "scalar_1d", attributes={"Nu": 1.0})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="none"):
        write(tmp_path / "none", "scalar_1d")


def killed(action) -> int:
    """Run in a child process, which may kill itself; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        # Whatever happens, the child must not go on with the tests.
        try:
            action()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def kill_at(name: str, module, call: int, patch) -> None:
    """Let the call-th call of a function be the process's last moment, before it or half-way through it."""
    original, count = getattr(module, name), itertools.count(1)

    def last(*args, **kw):
        if next(count) == call:
            if name == "_put":
                original(args[0], args[1][: len(args[1]) // 2], args[2])
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kw)

    patch.setattr(module, name, last)


GRID_2 = Grid((8, 6))


def random_run(path: Path, layout: str, block: int = 4, seen: list | None = None) -> bool:
    kind = LAYOUTS[layout]
    frames = 1 if layout == "darcy" else 3

    def make(samples):
        if seen is not None:
            seen.append(int(samples[0]))
        count = len(kind.channels)
        u = gaussian_field(5, samples, GRID_2, power_law(2.0), channels=3 * count).exp()
        u = u.reshape(len(samples), 3, count, 8, 6)
        return (u[:, :1], {"nu": u[:, 1]}) if kind.static else u[:, :frames]

    times = None if layout == "darcy" else [0.0, 0.1, 0.2]
    return generate(
        path, layout, make, samples=23, frames=frames, grid=GRID_2, times=times, attributes={"M": 1.0}, config="a: 1",
        settings={"seed": 5}, block=block,
    )  # fmt: skip


def test_a_write_that_is_killed_leaves_no_half_file(tmp_path, monkeypatch):
    path = tmp_path / "a.hdf5"
    state, _, times = made(LAYOUTS["scalar_1d"])

    def write_whole(seed=0):
        write_file(path, "scalar_1d", state + seed, grid=GRID[1], times=times)

    for name, module in (("_whole", file_writer), ("replace", os)):
        with monkeypatch.context() as patch:
            kill_at(name, module, 1, patch)
            assert killed(write_whole) == signal.SIGKILL
        assert not path.exists()
    write_whole()
    with monkeypatch.context() as patch:
        kill_at("_whole", file_writer, 1, patch)
        assert killed(lambda: write_whole(1)) == signal.SIGKILL
    assert torch.equal(Reader(path, "scalar_1d").batch(range(3)), state)


# Bytes are half written, are written but not noted, and the file is complete but for its name.
MOMENTS = [
    ("_put", file_writer, 4),
    ("_write_journal", file_writer, 5),
    ("replace", os, 8),
    ("_lay_out", file_writer, 1),
]


@pytest.mark.parametrize("layout", ["darcy", "cfd_2d", "dam_break"])
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path, monkeypatch, layout):
    whole = tmp_path / "whole.hdf5"
    random_run(whole, layout)
    assert {p.name for p in tmp_path.iterdir()} == {"whole.hdf5"}
    for name, module, call in MOMENTS:
        path, seen = tmp_path / f"{name}.hdf5", []
        with monkeypatch.context() as patch:
            kill_at(name, module, call, patch)
            assert killed(lambda path=path: random_run(path, layout)) == signal.SIGKILL
        assert not path.exists()
        assert path.with_name(f"{name}.hdf5.partial").exists()
        assert random_run(path, layout, seen=seen)
        assert seen == {"replace": [], "_write_journal": [12, 16, 20]}.get(name, seen)
        assert path.read_bytes() == whole.read_bytes()
        path.unlink()
        # What the killed process had not yet given its name may be left over, but nothing else.
        assert all(p.name.endswith(".tmp") for p in tmp_path.iterdir() if p != whole)
    reader = Reader(whole, layout)
    assert reader.shape[:2] == (23, 1 if layout == "darcy" else 3)
    assert len(reader.batch(range(23)).unique()) > 1000
    assert not random_run(whole, layout)


def _make(scale: float = 1.0):
    def make(samples):
        return scale * (samples.view(-1, 1, 1, 1) + 0.1 * torch.arange(5.0).view(1, 5, 1, 1)) * torch.ones(1, 1, 6)

    return make


def run(path: Path, make=None, block: int = 2, **more) -> bool:
    return generate(path, "scalar_1d", make or _make(), samples=7, frames=5, grid=GRID[1], times=T, block=block, **more)


def test_a_run_equals_a_written_file(tmp_path):
    assert run(tmp_path / "a.hdf5", attributes={"Nu": 0.1}, settings={"seed": 0})
    state = _make()(torch.arange(7))
    write_file(tmp_path / "b.hdf5", "scalar_1d", state, grid=GRID[1], times=T, attributes={"Nu": 0.1})
    assert datasets(tmp_path / "a.hdf5") == datasets(tmp_path / "b.hdf5")
    a, b = Reader(tmp_path / "a.hdf5", "scalar_1d"), Reader(tmp_path / "b.hdf5", "scalar_1d")
    assert torch.equal(a.batch(range(7)), state)
    assert torch.equal(b.batch(range(7)), state)
    assert a.attributes["Nu"] == 0.1
    assert json.loads(a.attributes["pdebook"])["settings"] == {"seed": 0}
    with pytest.raises(ValueError, match="was made from other settings"):
        run(tmp_path / "a.hdf5", settings={"seed": 1})
    with pytest.raises(ValueError, match=r"was made from other settings .unknown."):
        run(tmp_path / "b.hdf5", settings={"seed": 0})
    assert not run(tmp_path / "a.hdf5", settings={"seed": 0})


def test_a_disk_may_take_part_of_the_bytes(tmp_path, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, place: whole(descriptor, data[:100], place))
    run(tmp_path / "a.hdf5")
    assert torch.equal(Reader(tmp_path / "a.hdf5", "scalar_1d").batch(range(7)), _make()(torch.arange(7)))


def test_a_run_goes_on_after_an_error_but_not_with_other_settings(tmp_path):
    calls = []

    def failing(samples):
        calls.append(samples.tolist())
        if 4 in samples and len(calls) < 4:
            raise RuntimeError("the solver blew up")
        return _make()(samples)

    path = tmp_path / "a.hdf5"
    with pytest.raises(RuntimeError, match="blew up"):
        run(path, failing, settings={"seed": 0})
    with pytest.raises(ValueError, match=r"a.hdf5.partial was made from other settings"):
        run(path, failing, settings={"seed": 1})
    assert run(path, failing, settings={"seed": 0}, block=3)
    assert calls == [[0, 1], [2, 3], [4, 5], [4, 5, 6]]
    assert torch.equal(Reader(path, "scalar_1d").batch(range(7)), _make()(torch.arange(7)))


def test_what_a_crash_leaves_between_two_steps_is_put_right(tmp_path):
    path, partial, journal = (tmp_path / f"a.hdf5{s}" for s in ("", ".partial", ".journal"))
    # Killed before the journal: the file is laid out anew.
    partial.write_bytes(b"half a layout")
    assert run(path)
    # Killed after the file took its name.
    journal.write_text("{}")
    assert not run(path)
    assert not journal.exists()
    # A journal without its file.
    path.unlink()
    journal.write_text(json.dumps({"about": "", "done": 5}))
    assert run(path)
    assert torch.equal(Reader(path, "scalar_1d").batch(range(7)), _make()(torch.arange(7)))


def test_netcdf_can_be_generated(tmp_path):
    generate(
        tmp_path / "v.nc", "poseidon_velocity", lambda s: s.view(-1, 1, 1, 1, 1) * torch.ones(5, 2, 6, 4),
        samples=5, frames=5, grid=Grid((6, 4)), block=2,
    )  # fmt: skip
    assert Reader(tmp_path / "v.nc", "poseidon_velocity").batch(range(5))[:, 4, 1, 5, 3].tolist() == [0, 1, 2, 3, 4]


def test_groups_are_read_in_the_order_of_their_numbers(tmp_path):
    path = write(tmp_path, "sorption")
    state = made(LAYOUTS["sorption"])[0]
    # Other groups are no samples.
    _edit(path, lambda f: (f.move("0002", "12345"), f.create_group("notes"), f.create_group("7")))
    reader = Reader(path, "sorption")
    assert len(reader) == 3
    assert torch.equal(reader.read(2), state[2])

import dataclasses
import math

import h5py
import pytest
import torch

from pdebook.benchmarks import pdebench
from pdebook.benchmarks.data_sets import data_set, names
from pdebook.benchmarks.pdebench import generate, make
from pdebook.pde import equations, starts
from pdebook.pde.exact import cole_hopf
from pdebook.pde.files import Reader
from pdebook.pde.grid import Grid

F64 = torch.float64
ONE_OF_EACH = (
    "advection_beta1", "burgers_nu0.01", "burgers_nu4", "reacdiff_nu5_rho10", "diff_sorp", "darcy_beta0.01",
    "diff_react", "dam_break", "ns_incom", "cfd1d_rand_eta0.1", "cfd1d_shock_eta1e-08", "cfd2d_rand_M0.1_eta0.01",
    "cfd2d_turb_M1_eta1e-08", "cfd3d_rand_M1_eta1e-08", "cfd3d_turb_M1_eta1e-08", "sod3", "kelvin_helmholtz",
    "orszag_tang", "blast",
)  # fmt: skip


def tiny(name, **more):
    one = data_set(name)
    # A cell of the dam's box must be smaller than the range of its radius.
    resolution = 24 if name == "dam_break" else {1: 48, 2: 12, 3: 6}[one.kind.dims]
    return {"resolution": resolution, "frames": 3, "end": one.end / 20, **more}


def test_the_registry_holds_the_released_files():
    count = {prefix: sum(name.startswith(prefix) for name in names()) for prefix in
             ("advection", "burgers", "reacdiff", "darcy", "cfd1d", "cfd2d", "cfd3d", "sod")}  # fmt: skip
    assert count == {
        "advection": 8, "burgers": 12, "reacdiff": 16, "darcy": 5, "cfd1d": 6, "cfd2d": 12, "cfd3d": 2, "sod": 7
    }  # fmt: skip
    assert len({data_set(name).file for name in names()}) == len(names())
    one = data_set("burgers_nu0.01")
    assert (one.file, one.size, one.frames, one.samples) == ("1D_Burgers_Sols_Nu0.01.hdf5", (1024,), 201, 10_000)
    assert float(one.times()[1]) == pytest.approx(0.01)
    wide = dataclasses.replace(data_set("diff_react"), size=(64, 32))
    assert wide.grid(16).size == (16, 8)
    assert wide.grid().size == (64, 32)
    assert data_set("cfd1d_rand_eta0.1").grid().origin == (-1.0,)
    assert data_set("cfd2d_rand_M1_eta1e-08").size == (512, 512)
    assert data_set("ns_incom").times()[1] == pytest.approx(0.005)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_problem_is_made_and_a_sample_does_not_depend_on_its_company(name):
    options = tiny(name)
    both = make(name, [3, 1], seed=5, **options)
    one = data_set(name)
    assert both.u.shape == (2, 1 if one.steady else 3, len(one.kind.channels), *both.grid.size)
    assert bool(both.u.isfinite().all())
    alone = make(name, [1], seed=5, **options)
    # Sums over a batch may round otherwise; adaptive and iterative solvers stop within their tolerance.
    scale = float(alone.u.abs().max())
    assert float((both.u[1:] - alone.u).abs().max()) < 2e-4 * scale
    for key, value in alone.static.items():
        assert torch.equal(both.static[key][1:], value)
    if one.samples > 1:
        other = make(name, [1], seed=6, **options)
        assert float((other.u - alone.u).abs().max()) > 1e-3 * scale


@pytest.mark.parametrize("name", [name for name in ONE_OF_EACH if name != "ns_incom"])
def test_exact_and_released_are_the_same_problem(name):
    options = tiny(name)
    released, exact = (make(name, 1, fidelity=word, **options).u for word in pdebench.FIDELITIES)
    gap = float((released - exact).norm() / exact.norm())
    # Darcy's file holds another field; coarse grids, jumps and the other projection do the rest.
    limit = {"darcy_beta0.01": 100.0, "cfd2d_turb_M1_eta1e-08": 0.5, "cfd3d_turb_M1_eta1e-08": 0.6}.get(name, 0.3)
    assert gap < limit
    # The layers' waves are flatter than a cell here: nothing moves.
    assert name == "kelvin_helmholtz" or gap > 1e-7


def test_exact_advection_is_the_shifted_start():
    sim = make("advection_beta0.4", 3, seed=1, fidelity="exact", resolution=64, frames=6, end=2.5, dtype=F64)
    sums = starts.SineSums.draw(1, torch.arange(3), sim.grid, period="exact")
    (x,) = sim.grid.coordinates()
    for i, t in enumerate(sim.times.tolist()):
        assert torch.allclose(sim.u[:, i, 0], sums(((x - 0.4 * t) % 1.0)[None]), atol=1e-9)
    # t = 2.5 is one period.
    assert torch.allclose(sim.u[:, 0], sim.u[:, -1], atol=1e-9)


def test_exact_burgers_is_cole_and_hopfs_solution_with_viscosity_nu_over_pi():
    options = {"seed": 2, "fidelity": "exact", "resolution": 128, "frames": 3, "end": 0.2, "dtype": F64}
    sim = make("burgers_nu0.1", [2, 5], **options)
    fine = Grid(128)
    start = starts.sine_sums(2, torch.tensor([2, 5]), fine, period="exact", dtype=F64)
    reference = cole_hopf(start, 0.2, 0.1 / math.pi)
    assert float((sim.u[:, -1] - reference).abs().max()) < 1e-5
    assert float((cole_hopf(start, 0.2, 0.1) - reference).abs().max()) > 1e-2


def test_released_burgers_comes_nearer_on_finer_grids():
    gaps = []
    for n in (64, 256):
        common = {"resolution": n, "frames": 2, "end": 0.3}
        released = make("burgers_nu0.1", 4, **common).u[:, -1]
        exact = make("burgers_nu0.1", 4, fidelity="exact", **common).u[:, -1]
        gaps.append(float((released - exact).norm() / exact.norm()))
    # The start's jump over the end is of first order in the cell.
    assert gaps[1] < 0.4 * gaps[0]


def test_reaction_without_space_is_logistic():
    one = data_set("reacdiff_nu0.5_rho5")
    flat = dataclasses.replace(one, parameters={"nu": 0.0, "rho": 5.0})
    u = make(flat, 2, resolution=32, frames=5, end=0.4, dtype=F64, fidelity="exact").u
    t = torch.linspace(0, 0.4, 5, dtype=F64).view(1, 5, 1, 1)
    e = torch.exp(5.0 * t)
    # Dealiasing leaves a mode that u² cannot reach, hence not to rounding.
    assert (
        float((u[:, :, 0].mean(-1) - (u[:, :1] * e / (1 - u[:, :1] + u[:, :1] * e))[:, :, 0].mean(-1)).abs().max())
        < 2e-2
    )
    assert issubclass(equations.FisherKPP, equations.ReactionDiffusion)


def test_diffusion_reaction_does_not_depend_on_the_order_of_its_axes():
    sim = make("diff_react", 1, resolution=16, frames=2, end=0.2, dtype=F64, fidelity="exact")
    assert float(sim.u[:, 0].mean().abs()) < 0.2
    # D_u Δu of a field without flux changes no mean: d/dt mean(v) = mean(u) - mean(v) at every instant.
    h = make("diff_react", 1, resolution=16, frames=2, end=1e-3, dtype=F64, fidelity="exact").u.mean((-2, -1))
    assert float((h[0, 1, 1] - h[0, 0, 1]) / 1e-3) == pytest.approx(float(h[0, 0, 0] - h[0, 0, 1]), abs=5e-3)


def test_periodic_gases_lose_no_mass_and_the_dam_loses_none_before_the_wave_is_out():
    sim = make("cfd2d_rand_M0.1_eta0.01", 2, resolution=16, frames=3, end=0.1, dtype=F64)
    mass = sim.u[:, :, 0].mean((-2, -1))
    assert torch.allclose(mass, mass[:, :1].expand_as(mass), rtol=1e-12)
    depth = make("dam_break", 2, resolution=32, frames=3, end=0.5, dtype=F64).u[:, :, 0].mean((-2, -1))
    assert torch.allclose(depth, depth[:, :1].expand_as(depth), rtol=1e-10)


def test_channels_stand_where_the_files_have_them():
    sim = make("sod1", 1, resolution=64, frames=2, end=0.01)
    assert sim.channels == ("density", "pressure", "Vx")
    left, right = sim.u[0, 0, :, 0], sim.u[0, 0, :, -1]
    assert left.tolist() == pytest.approx([1.0, 1.0, 0.75])
    assert right.tolist() == pytest.approx([0.125, 0.1, 0.0])
    start = make("cfd2d_rand_M0.1_eta0.01", 1, resolution=8, frames=2, end=0.01).u[0, 0]
    own = starts.random_flow(0, torch.arange(1), Grid((8, 8)), 0.1)[0]
    assert torch.allclose(start, own[[0, 3, 1, 2]], rtol=1e-5, atol=1e-5)


def test_viscosity_is_split_off_only_where_it_binds():
    # Sub-cycled or not, the same answer to the accuracy of the splitting.
    options = {"resolution": 32, "frames": 2, "end": 0.02, "dtype": F64}
    one = data_set("cfd1d_rand_eta0.1")
    little = make(dataclasses.replace(one, parameters={**one.parameters, "eta": 1e-3, "zeta": 1e-3}), 1, **options).u
    more = make(dataclasses.replace(one, parameters={**one.parameters, "eta": 4e-3, "zeta": 4e-3}), 1, **options).u
    none = make(dataclasses.replace(one, parameters={**one.parameters, "eta": 0.0, "zeta": 0.0}), 1, **options).u
    low, high = float((little - none).norm()), float((more - none).norm())
    assert 2.5 < high / low < 5.5


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_files_round_trip_with_the_releases_keys(name, tmp_path):
    options = tiny(name)
    path = generate(name, tmp_path, samples=3, seed=4, block=2, **options)
    one = data_set(name)
    assert path.name == one.file
    made = make(name, 3, seed=4, **options)
    with Reader(path, one.layout) as reader:
        assert reader.shape == tuple(made.u.shape)
        assert torch.allclose(reader.batch(range(3)), made.u, rtol=1e-4, atol=1e-4 * float(made.u.abs().max()))
        assert reader.channels == made.channels
        assert reader.grid.length == pytest.approx(made.grid.length)
        for key, value in one.attributes.items():
            assert reader.attributes[key] == pytest.approx(value)
        for key, value in made.static.items():
            assert torch.allclose(reader.static(2)[key], value[2], atol=1e-5)
        if not one.steady:
            assert torch.allclose(reader.times, made.times, rtol=1e-5, atol=1e-6)
    with h5py.File(path) as file:
        if one.kind.late:
            assert len(file["t-coordinate"]) == made.u.shape[1] + 1
        if one.kind.group:
            assert "config" in file["0000"].attrs


def test_generation_goes_on_where_it_stopped_and_refuses_another_run(tmp_path):
    path, options = tmp_path / "a.hdf5", {"samples": 4, "block": 1, "resolution": 32, "frames": 2, "end": 0.1}
    generate("advection_beta1", path, **options)
    first = path.read_bytes()
    generate("advection_beta1", path, **options)
    assert path.read_bytes() == first
    with pytest.raises(ValueError, match="other settings"):
        generate("advection_beta1", path, seed=1, **options)
    with pytest.raises(ValueError, match="other settings"):
        generate("advection_beta1", path, fidelity="exact", **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: data_set("burger_nu0.01"), "burgers_nu0.01"),
        (lambda: make("burgers_nu0.01", 1, fidelity="true"), "fidelity must be one of released, exact, got 'true'"),
        (lambda: make("burgers_nu0.01", 1, resolution=4), "resolution must be at least 6"),
        (lambda: make("burgers_nu0.01", []), "samples must be one or more"),
        (lambda: make("burgers_nu0.01", 1, frames=1), "frames must be at least 2"),
        (lambda: make("burgers_nu0.01", 1, end=0.0), "end must be positive"),
        (lambda: make("ns_incom", 1, resolution=8, fidelity="exact"), "must be 'released'"),
        (
            lambda: make(dataclasses.replace(data_set("blast"), parameters={"start": "bang"}), 1, resolution=8),
            "start must be",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

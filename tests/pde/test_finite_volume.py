"""The finite-volume method: exact solutions with their orders, conservation, symmetry, positivity, time steps, failures."""

import math

import pytest
import torch

from pdebook.diffeq.controllers import Constant as ConstantSteps
from pdebook.diffeq.solve import solve
from pdebook.diffeq.tableaus import IMPLICIT_EULER
from pdebook.diffeq.terms import ODE
from pdebook.metrics.order import observed_order
from pdebook.pde import riemann
from pdebook.pde.boundary import Ghost, Outflow, Periodic, Wall, dirichlet, neumann
from pdebook.pde.finite_volume import SSPRK3, FiniteVolume
from pdebook.pde.fluids import Euler, NavierStokes, ShallowWater
from pdebook.pde.fluxes import HLLC
from pdebook.pde.grid import Grid
from pdebook.pde.laws import Advection, Burgers, Traffic
from pdebook.pde.marching import FlowError
from pdebook.pde.reconstruction import Constant, Muscl, Weno5Z

F64 = torch.float64
TWO_PI = 2 * math.pi


def sine(grid, k=1):
    (x,) = grid.coordinates()
    return torch.sin(TWO_PI * k * x)[None, None]


def last(trajectory):
    return trajectory.u[:, -1]


def random_gas(law, *size, batch=2, seed=0, amplitude=0.2):
    w = torch.randn(batch, law.channels, *size, dtype=F64, generator=torch.Generator().manual_seed(seed)) * amplitude
    for channel in law.positive:
        w[:, channel] = w[:, channel].exp()
    return law.conserved(w)


# Exact solutions.


@pytest.mark.parametrize(
    ("reconstruction", "low", "high"),
    [
        (Muscl(), 1.75, 2.15),
        (Constant(), 0.8, 1.05),
        (Weno5Z(), 2.8, 3.2),
    ],  # Weno5Z: the error in time is of third order
)
def test_advection_of_a_sine_has_its_order(reconstruction, low, high):
    ns, errors = (64, 128), []
    for n in ns:
        grid = Grid(n)
        method = "midpoint" if isinstance(reconstruction, Muscl) else "ssprk3"
        fv = FiniteVolume(Advection(1), grid, reconstruction=reconstruction, method=method)
        errors.append(float((last(fv.advance(sine(grid), [0.5])) + sine(grid)).abs().mean()))
    assert low < observed_order(errors, n=ns).order < high


def test_weno_is_of_fifth_order_in_space_for_burgers():
    ns, errors = (32, 64, 128), []
    for n in ns:
        edges = torch.arange(n + 1, dtype=F64) / n
        u = ((-torch.cos(TWO_PI * edges) / TWO_PI).diff() * n)[None, None] + 2
        point = (2 + torch.sin(TWO_PI * edges)) ** 2 / 2
        fv = FiniteVolume(Burgers(1), Grid(n), reconstruction=Weno5Z())
        errors.append(float((fv.tendency(0.0, u) + point.diff() * n).abs().mean()))
    assert observed_order(errors, n=ns).order > 4.5


def test_the_released_truth_of_advection_has_a_measurable_error():
    # Sums of sines as in PDEBench's files, up to the wave number 8.
    generator = torch.Generator().manual_seed(0)
    amplitude = torch.rand(6, 2, 1, dtype=F64, generator=generator)
    phase = TWO_PI * torch.rand(6, 2, 1, dtype=F64, generator=generator)
    k = torch.randint(1, 9, (6, 2, 1), generator=generator)
    means = []
    for n in (64, 256):
        (x,) = Grid(n).coordinates()
        u = (amplitude * torch.sin(TWO_PI * k * x + phase)).sum(1, keepdim=True)
        got = last(FiniteVolume(Advection(1), Grid(n), method="midpoint").advance(u, [0.25]))
        u = u.roll(n // 4, 2)
        means.append(float(((got - u).square().mean(2).sqrt() / u.square().mean(2).sqrt()).mean()))
    assert means[0] / means[1] > 4
    assert 1e-3 < means[1] < 1e-1


@pytest.mark.parametrize(
    ("limiter", "grows"), [("mc", False), ("superbee", False), ("minmod", False), ("central", True)]
)
def test_a_square_wave_gains_no_variation_unless_slopes_are_unlimited(limiter, grows):
    grid = Grid(200)
    (x,) = grid.coordinates()
    u = ((x > 0.25) & (x < 0.75)).double()[None, None]
    fv = FiniteVolume(Advection(1), grid, reconstruction=Muscl(limiter), method="midpoint")
    u = last(fv.advance(u, [200 * 0.4 / 200], dt=0.4 / 200))
    variation = float((u - u.roll(1, 2)).abs().sum())
    assert (variation > 2 + 1e-2) == grows
    if not grows:
        assert variation < 2 + 1e-12


def tubes(tests, n, length=2.0, origin=-1.0):
    """Initial states of shock tubes, their end times, and the exact primitive states."""
    grid = Grid(n, length, origin)
    (x,) = grid.coordinates()
    data = [riemann.SOD[k] for k in tests]
    left, right = (torch.tensor([getattr(d, side) for d in data], dtype=F64) for side in ("left", "right"))
    jump = torch.tensor([origin + length * d.position for d in data], dtype=F64)[:, None]
    time = torch.tensor([d.end for d in data], dtype=F64)[:, None]
    w = torch.where((x < jump)[:, None], left[..., None], right[..., None])
    return grid, Euler(1).conserved(w), time, riemann.euler(left, right, (x - jump) / time)


def test_sods_tubes_come_as_near_as_published_and_nearer_on_finer_grids():
    published = torch.tensor([0.0059, 0.0046, 0.033, 0.0147, 0.018], dtype=F64)
    errors = []
    for n in (64, 256):
        grid, u, time, exact = tubes((1, 2, 3, 4, 5), n)
        fv = FiniteVolume(Euler(1), grid, Outflow(), cfl=0.3, method="midpoint", positivity="floor")
        w = fv.law.primitive(last(fv.advance(u, time)))
        errors.append((w - exact)[:, 0].abs().sum(1) / exact[:, 0].abs().sum(1))
    assert bool((errors[1] < 1.2 * published).all())
    assert bool((errors[1] < 0.9 * errors[0]).all())


def test_a_contact_stands_exactly_with_hllc_and_roe_and_not_with_hll():
    grid, u, time, exact = tubes((6, 7), 32)
    for flux, stands in (("hllc", True), ("roe", True), (HLLC("einfeldt"), True), ("hll", False), ("rusanov", False)):
        fv = FiniteVolume(Euler(1), grid, Outflow(), flux=flux, cfl=0.8)
        w = fv.law.primitive(last(fv.advance(u, time)))
        error = (w - exact).abs().amax((1, 2))
        assert bool(error[0] < 1e-12) == stands
        assert error[0] < 1e-12 or error[0] > 0.05
        # Pressure and velocity stay constant also across a contact that moves.
        assert bool((w[1, 1:] - torch.tensor([[0.1], [1.0]], dtype=F64)).abs().max() < 1e-12)


@pytest.mark.parametrize(("variables", "reconstruction"), [("primitive", Muscl()), ("conserved", Muscl("van-leer"))])
def test_a_smooth_density_wave_is_of_second_order(variables, reconstruction):
    law, ns, errors = Euler(1, scalars=1), (32, 64), []
    for n in ns:
        wave = 1 + 0.2 * sine(Grid(n))
        w = torch.cat([wave, torch.ones_like(wave), torch.ones_like(wave), wave], 1)
        fv = FiniteVolume(law, Grid(n), reconstruction=reconstruction, variables=variables)
        got = law.primitive(last(fv.advance(law.conserved(w), [0.5])))
        errors.append(float((got - w.roll(n // 2, 2))[:, [0, 3]].abs().mean()))
    assert observed_order(errors, n=ns).order > 1.8


def test_the_dam_breaks_as_exactly_known():
    law, published = ShallowWater(1), {64: 8.9e-3, 128: 4.6e-3}
    for n, bound in published.items():
        grid = Grid(n, 5.0, -2.5)
        (x,) = grid.coordinates()
        h = torch.where(x < 0, 2.0, 1.0).double()
        fv = FiniteVolume(law, grid, Outflow())
        u = torch.stack([h, 0 * h])[None]
        got = last(fv.advance(u, [1.0]))
        exact = riemann.shallow_water(torch.tensor([2.0, 0.0]).double(), torch.tensor([1.0, 0.0]).double(), x)[0, 0]
        # The means over the domain; nothing has reached its ends.
        assert float((got[0, 0] - exact).abs().mean()) < 1.5 * bound
        assert fv.totals(got)["mass"].item() == pytest.approx(7.5, rel=1e-12)


def test_burgers_opens_and_moves_jumps_as_exactly_known():
    grid = Grid(80, 4.0, -2.0)
    (x,) = grid.coordinates()
    fan = torch.where(x < 0, -1.0, 1.0).double()[None, None]
    shock = torch.where(x < 0, 1.0, 0.0).double()[None, None]
    jam = torch.where(x < 0, 0.8, 0.0).double()[None, None]
    for law, u, exact in (
        (Burgers(1), fan, x.clamp(-1, 1)),
        (Burgers(1), shock, (x < 0.5).double()),
        (Traffic(1), jam, torch.where(x < -0.6, 0.8, torch.where(x > 1, 0.0, (1 - x) / 2))),
        (Traffic(1), 0.2 + 0.6 * shock.flip(2), torch.where(x < 0, 0.2, 0.8)),
    ):
        for flux in ("godunov", "hll", "roe"):
            got = last(FiniteVolume(law, grid, Outflow(), flux=flux).advance(u, [1.0]))
            assert float((got[0, 0] - exact).abs().mean()) < 0.02


def test_a_radial_dam_agrees_with_the_equations_in_the_radius():
    radial = Grid(800, 3.75)
    (r,) = radial.coordinates()
    h = torch.where(r < 0.5, 2.0, 1.0).double()

    def source(u, t):
        flow = u[:, 1:] / r
        return -torch.cat([flow, flow * u[:, 1:] / u[:, :1]], 1)

    fv = FiniteVolume(ShallowWater(1), radial, [(Wall(), Outflow())], source=source, cfl=0.8)
    profile = last(fv.advance(torch.stack([h, 0 * h])[None], [1.0]))[0, 0]
    # A quarter of the box of 128 x 128 cells: its inner sides are walls by symmetry.
    grid = Grid((64, 64), 2.5)
    x, y = grid.mesh()
    fine = Grid((512, 512), 2.5).mesh().square().sum(0).sqrt()
    cells = torch.where(fine <= 0.5, 2.0, 1.0).double().view(64, 8, 64, 8).mean((1, 3))
    fv = FiniteVolume(ShallowWater(2), grid, [(Wall(), Outflow())] * 2)
    got = last(fv.advance(torch.stack([cells, 0 * cells, 0 * cells])[None], [1.0]))[0, 0]
    index = ((x * x + y * y).sqrt() / radial.spacing[0]).long()
    assert float((got - profile[index]).abs().mean() / profile[index].abs().mean()) < 0.01
    assert float((got - 1).abs().max()) > 0.05


def test_taylor_green_decays_in_nearly_incompressible_gas():
    # An exact solution of the incompressible equations; at Mach 0.1 they differ by about a hundredth.
    grid, nu = Grid((24, 24), TWO_PI), 0.1
    x, y = grid.mesh()
    pressure = 100 * 3 / 5 + (torch.cos(2 * x) + torch.cos(2 * y)) / 4
    w = torch.stack([torch.ones_like(x), torch.sin(x) * torch.cos(y), -torch.cos(x) * torch.sin(y), pressure])[None]
    law = NavierStokes(2, shear=nu)
    got = law.primitive(last(FiniteVolume(law, grid, cfl=0.8).advance(law.conserved(w), [1.0])))
    assert float((got[0, 1:3] - w[0, 1:3] * math.exp(-2 * nu)).abs().max()) < 0.03


# Viscosity split off.


@pytest.mark.parametrize("stages", [3, 6])
def test_split_viscosity_is_of_second_order_in_time_and_reaches_farther(stages):
    grid, law = Grid(32), Burgers(1, viscosity=0.02)
    u = 0.5 + sine(grid)
    reference = last(FiniteVolume(law, grid, cfl=0.05).advance(u, [0.2]))
    split = FiniteVolume(law, grid, cfl=0.4, viscous_stages=stages)
    errors = [float((last(split.advance(u, [0.2], dt=0.2 / n)) - reference).abs().max()) for n in (16, 32, 64)]
    assert observed_order(errors, n=(16, 32, 64)).order > 1.8
    assert errors[-1] < 1e-4
    rate = 2 * 0.02 * 32**2
    assert split.stable_dt(u * 0).item() == pytest.approx(0.9 * (stages**2 + stages - 2) / 2 / rate)


@pytest.mark.parametrize("stages", [3, 8, 13])
def test_split_viscosity_is_stable_at_its_longest_step_and_decays_as_it_should(stages):
    grid, law = Grid(64), Advection(1, viscosity=0.5, speed=0.0)
    fv = FiniteVolume(law, grid, viscous_stages=stages)
    u = sine(grid) + torch.randn(1, 1, 64, dtype=F64, generator=torch.Generator().manual_seed(0))
    steps = last(fv.advance(u, [50 * fv.stable_dt(u).item()], dt=fv.stable_dt(u) * 0.999))
    assert float(steps.abs().max()) <= float(u.abs().max())
    assert steps.mean().item() == pytest.approx(u.mean().item(), abs=1e-13)
    symbol = 0.5 * (2 * 64) ** 2 * math.sin(math.pi / 64) ** 2
    got = last(fv.advance(sine(grid), [0.05], dt=fv.stable_dt(u) / 4))
    torch.testing.assert_close(got, sine(grid) * math.exp(-symbol * 0.05), rtol=1e-3, atol=1e-12)


def test_walls_that_change_with_time_are_met_at_their_time_under_split_viscosity():
    grid, law = Grid(16), Advection(1, viscosity=0.2, speed=0.0)
    fv = FiniteVolume(law, grid, [(dirichlet(lambda t: torch.sin(3 * t)), neumann())], viscous_stages=6)
    start = torch.zeros(1, 1, 16, dtype=F64)
    ends = [last(fv.advance(start, [0.4], dt=0.4 / n)) for n in (8, 16, 32, 96)]
    errors = [float((end - ends[-1]).abs().max()) for end in ends[:-1]]
    assert observed_order(errors, n=(8, 16, 32)).order > 1.7
    assert errors[-1] < 2e-3  # at the starts of the halves: 4e-3


def test_steps_are_as_long_as_waves_and_viscosity_allow():
    line, plane = Grid(32), Grid((8, 16), (1.0, 4.0))
    burgers = Burgers(1, viscosity=torch.tensor([0.02, 0.5], dtype=F64))
    u = sine(line).abs().expand(2, 1, 32)
    rate = u.amax((1, 2)) * 32 + 2 * burgers.viscosity * 32**2
    torch.testing.assert_close(FiniteVolume(burgers, line).stable_dt(u), 0.4 / rate)
    gas = NavierStokes(2, shear=0.3, bulk=0.1)
    w = torch.tensor([0.5, 1.0, -2.0, 1.0], dtype=F64).view(1, 4, 1, 1).expand(1, 4, 8, 16)
    c = math.sqrt(5 / 3 / 0.5)
    rate = (1 + c) * 8 + (2 + c) * 4 + 2 * (0.4 + 0.1) / 0.5 * (8**2 + 4**2)
    assert FiniteVolume(gas, plane, cfl=0.8).stable_dt(gas.conserved(w)).item() == pytest.approx(0.8 / rate)
    # A step that is given is held against the same limits, those of split viscosity too.
    law = Burgers(1, viscosity=0.1)
    for stages, longest in ((0, 1 / (2 * 0.1 * 32**2)), (5, 0.9 * 14 / (2 * 0.1 * 32**2))):
        fv = FiniteVolume(law, line, viscous_stages=stages)
        assert fv.advance(0 * u[:1], [longest], dt=0.999 * longest).steps.item() == 2
        with pytest.raises(ValueError, match=r"dt violates the CFL condition: .* it is 1.01 at the start"):
            fv.advance(0 * u[:1], [1.0], dt=1.01 * longest)


# What must not change.


@pytest.mark.parametrize(("dims", "flux", "steps"), [(1, "hllc", 1000), (2, "roe", 100), (3, "hllc", 100)])
def test_nothing_is_lost_in_a_thousand_steps(dims, flux, steps):
    law = Euler(dims, scalars=1)
    grid = Grid((32,) if dims == 1 else (6,) * dims)
    u = random_gas(law, *grid.size)
    fv = FiniteVolume(law, grid, flux=flux, method="heun")
    before = fv.totals(u)
    dt = 0.5 * fv.stable_dt(u)
    for _ in range(steps):
        u = fv.step(u, dt)
    for name, value in fv.totals(u).items():
        assert float((value - before[name]).abs().max()) < 1e-12 * float(before["energy"].max())
    assert list(before) == list(law.names)


def test_a_closed_box_keeps_mass_and_energy_and_is_half_of_a_mirrored_one():
    law = Euler(2)
    u = random_gas(law, 8, 8)
    fv = FiniteVolume(law, Grid((8, 8)), Wall())
    got = last(fv.advance(u, [0.1]))
    for name in ("mass", "energy"):
        torch.testing.assert_close(fv.totals(got)[name], fv.totals(u)[name], rtol=1e-13, atol=0)
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=F64).view(1, 4, 1, 1)
    doubled = torch.cat([u, u.flip(2) * signs], 2)
    wide = FiniteVolume(law, Grid((16, 8), (2.0, 1.0)), [Periodic(), Wall()])
    torch.testing.assert_close(last(wide.advance(doubled, [0.1]))[:, :, :8], got, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("law", [Euler(2, scalars=1), ShallowWater(2, gravity=9.81)])
def test_uniform_flow_and_a_lake_at_rest_stay_exactly(law):
    w = torch.full((1, law.channels, 6, 6), 0.7, dtype=F64)
    u = law.conserved(w)
    assert (last(FiniteVolume(law, Grid((6, 6))).advance(u, [0.3])) - u).abs().max() < 1e-15
    rest = torch.zeros_like(w)
    rest[:, list(law.positive)] = 0.7
    u = law.conserved(rest)
    assert torch.equal(last(FiniteVolume(law, Grid((6, 6)), Wall()).advance(u, [0.3])), u)


@pytest.mark.parametrize(
    "law",
    [Euler(2, scalars=1), ShallowWater(2), NavierStokes(2, shear=0.01, bulk=0.01)],
    ids=lambda law: type(law).__name__,
)
def test_a_rotated_problem_has_the_rotated_solution(law):
    u = random_gas(law, 8, 8)

    def turned(u):
        u = u.rot90(1, (2, 3)).clone()  # new x is old -y
        u[:, [1, 2]] = torch.stack([-u[:, 2], u[:, 1]], 1)
        return u

    fv = FiniteVolume(law, Grid((8, 8)))
    torch.testing.assert_close(
        last(fv.advance(turned(u), [0.1])), turned(last(fv.advance(u, [0.1]))), rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("reconstruction", [Muscl(), Weno5Z()], ids=str)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_problem_of_one_dimension_is_the_same_in_more(dims, reconstruction):
    line = random_gas(Euler(1), 12)
    flat = FiniteVolume(Euler(1), Grid(12), reconstruction=reconstruction)
    for axis in range(dims):
        shape = [1] * dims
        shape[axis] = 12
        size = [3] * dims
        size[axis] = 12
        u = torch.zeros(2, 2 + dims, *size, dtype=F64)
        for k, channel in enumerate((0, 1 + axis, 1 + dims)):
            u[:, channel] = line[:, k].view(2, *shape)
        fv = FiniteVolume(Euler(dims), Grid(tuple(size)), reconstruction=reconstruction)
        got = fv.step(fv.step(u, 0.01), 0.01)[:, [0, 1 + axis, 1 + dims]]
        expected = flat.step(flat.step(line, 0.01), 0.01).view(2, 3, *shape)
        torch.testing.assert_close(got, expected.expand_as(got), rtol=1e-13, atol=1e-14)


# Boundary values and sources.


def test_an_inflow_may_change_with_time_and_differ_by_sample():
    grid = Grid(64)
    (x,) = grid.coordinates()
    speed = torch.tensor([1.0, 0.5], dtype=F64)
    inflow = Ghost(lambda t: torch.sin(3 * t))
    fv = FiniteVolume(Advection(1, speed=speed), grid, [(inflow, Outflow())])
    got = last(fv.advance(torch.zeros(2, 1, 64, dtype=F64), [1.5]))
    # Ghost cells of one value have no slope: the value stands at the wall.
    late = 1.5 - x / speed[:, None, None]
    expected = torch.where(late > 0, torch.sin(3 * late), 0.0)
    assert float((got - expected).abs().max()) < 0.1  # at the kink of the front
    assert float((got - expected).abs().mean()) < 0.01


def test_a_source_may_depend_on_state_and_time():
    grid = Grid(8)
    fv = FiniteVolume(Advection(1), grid, source=lambda u, t: torch.cos(t) - u, cfl=0.05)
    start = torch.tensor([0.0, 1.0], dtype=F64)
    u = torch.zeros(2, 1, 8, dtype=F64)
    got = fv.advance(u, torch.tensor([[1.0], [2.0]], dtype=F64), start=start).u[:, 0, 0, 0]

    def exact(t, start):
        return (math.cos(t) + math.sin(t)) / 2 - math.exp(start - t) * (math.cos(start) + math.sin(start)) / 2

    torch.testing.assert_close(got, torch.tensor([exact(1, 0), exact(2, 1)], dtype=F64), rtol=1e-6, atol=1e-6)


def test_viscous_walls_may_be_warm_or_still():
    grid, law = Grid(16), Burgers(1, viscosity=0.5)
    fv = FiniteVolume(law, grid, [(dirichlet(lambda t: 0.1 + 0 * t), neumann(0.3))], viscous_stages=8)
    got = last(fv.advance(torch.full((1, 1, 16), 0.1, dtype=F64), [20.0]))
    slope = (got[0, 0, -1] - got[0, 0, -2]) / grid.spacing[0]
    assert slope.item() == pytest.approx(0.3, rel=0.1)
    # Steady: the flux u²/2 - ν u' is the same everywhere.
    faces = (got[0, 0, 1:] + got[0, 0, :-1]) / 2
    flux = faces**2 / 2 - 0.5 * got[0, 0].diff() / grid.spacing[0]
    assert float(flux.max() - flux.min()) < 6e-3  # what the splitting leaves


# Steps in time.


def test_every_sample_has_its_own_steps_whatever_the_batch_blocks_and_looks():
    law = Euler(1, gamma=torch.linspace(1.2, 1.8, 8, dtype=F64))
    u = random_gas(law, 16, batch=8) * torch.linspace(0.5, 4, 8, dtype=F64).view(8, 1, 1)
    u[:, 2] *= torch.linspace(1, 20, 8, dtype=F64)[:, None]
    grid, times = Grid(16), [0.0, 0.05, 0.051, 0.1]
    value = Ghost(law.primitive(u)[:, :, :1])
    fv = FiniteVolume(law, grid, [(value, Outflow())])
    together = fv.advance(u, times, read_every=16)
    assert len(set(together.steps.tolist())) > 3
    assert torch.equal(together.u[:, 0], u)
    blocks = fv.advance(u, times, block=3, read_every=1)
    torch.testing.assert_close(blocks.u, together.u, rtol=1e-12, atol=1e-12)
    assert torch.equal(blocks.steps, together.steps)
    for k in range(8):
        single = FiniteVolume(law.select(slice(k, k + 1)), grid, [(Ghost(value.value[k : k + 1]), Outflow())])
        alone = single.advance(u[k : k + 1], times)
        assert alone.steps[0] == together.steps[k]
        torch.testing.assert_close(alone.u[0], together.u[k], rtol=1e-12, atol=1e-12)
    assert torch.equal(together.times, torch.tensor(times, dtype=F64).expand(8, 4))


def test_single_precision_is_near_and_keeps_its_type():
    law = Euler(2)
    u = random_gas(law, 12, 12)
    fv = FiniteVolume(law, Grid((12, 12)), source=lambda u, t: torch.full((1, 4, 1, 1), 0.1, dtype=F64))
    low = fv.advance(u.float(), [0.1]).u
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), fv.advance(u, [0.1]).u, rtol=1e-4, atol=1e-5)


def test_samples_end_at_their_own_times_and_rest():
    times = torch.tensor([[0.1, 0.2], [0.15, 0.6]], dtype=F64)
    u = torch.cat([sine(Grid(32)), sine(Grid(32))])
    fv = FiniteVolume(Advection(1, speed=torch.tensor([1.0, 2.0], dtype=F64)), Grid(32))
    got = fv.advance(u, times)
    for k, speed in enumerate((1.0, 2.0)):
        alone = FiniteVolume(Advection(1, speed=speed), Grid(32)).advance(u[:1], times[k])
        assert torch.equal(alone.u[0], got.u[k])
        assert alone.steps[0] == got.steps[k]


def test_a_time_to_save_that_is_the_start_takes_no_step():
    fv = FiniteVolume(Advection(1), Grid(16))
    u = torch.cat([sine(Grid(16)), 2 * sine(Grid(16))])
    times = torch.tensor([[0.5, 0.6], [0.7, 0.8]], dtype=F64)
    got = fv.advance(u, times, start=torch.tensor([0.5, 0.6], dtype=F64), dt=0.05)
    assert got.steps.tolist() == [2, 4]
    assert torch.equal(got.u[0, 0], u[0])


def test_a_sample_that_rests_does_not_change_under_split_viscosity():
    fv = FiniteVolume(Burgers(1, viscosity=0.3), Grid(16), viscous_stages=5)
    u = torch.cat([sine(Grid(16)), 0.1 * sine(Grid(16))])
    together = fv.advance(u, torch.tensor([[0.01], [0.3]], dtype=F64))
    assert together.steps[1] > 2 * together.steps[0]
    assert torch.equal(together.u[0], fv.advance(u[:1], [0.01]).u[0])


def test_a_parameter_of_one_entry_serves_all_blocks():
    law = Euler(1, gamma=torch.tensor([1.4], dtype=F64))
    u = random_gas(law, 8, batch=3)
    fv = FiniteVolume(law, Grid(8))
    torch.testing.assert_close(fv.advance(u, [0.05], block=1).u, fv.advance(u, [0.05]).u, rtol=1e-13, atol=0)


def test_steps_of_given_length_end_at_the_times_without_slivers():
    fv = FiniteVolume(Advection(1), Grid(16))
    got = fv.advance(sine(Grid(16)), [0.1, 0.3, 1.0], dt=0.01)
    assert got.steps.tolist() == [100]
    assert fv.advance(sine(Grid(16)), [0.1], dt=0.04).steps.tolist() == [3]
    assert fv.advance(sine(Grid(16)) * 0, [0.1], max_dt=0.03).steps.tolist() == [4]
    # A fluid at rest has no fastest wave; the first step goes to the first time, unless it is limited.
    still = FiniteVolume(Burgers(1), Grid(16), source=lambda u, t: 1.0 + 0 * u)
    assert still.advance(torch.zeros(1, 1, 16), [1.0]).steps.tolist() == [1]
    assert still.advance(torch.zeros(1, 1, 16), [1.0], max_dt=0.01).steps.item() > 30


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("midpoint", 2), ("ssprk3", 3)])
def test_methods_have_their_order_in_time(method, order):
    grid = Grid(16)
    u = 1 + 0.1 * sine(grid)
    fv = FiniteVolume(Burgers(1), grid, reconstruction=Constant(), method=method)
    ends = [last(fv.advance(u, [0.1], dt=0.1 / n)) for n in (8, 16, 32, 256)]
    errors = [float((end - ends[-1]).abs().max()) for end in ends[:-1]]
    assert observed_order(errors, n=(8, 16, 32), roundoff=1e-15).order == pytest.approx(order, abs=0.2)


def test_the_tendency_is_a_field_for_the_solvers_of_differential_equations():
    fv = FiniteVolume(Burgers(1, viscosity=0.01), Grid(32))
    u = sine(Grid(32))
    adaptive = solve(ODE(fv.tendency), u, 0.0, 0.1, solver="bosh3").ys
    torch.testing.assert_close(adaptive, last(fv.advance(u, [0.1], dt=0.001)), rtol=1e-3, atol=1e-3)
    fixed = solve(ODE(fv.tendency), u, 0.0, 0.1, solver="midpoint", controller=ConstantSteps(0.01)).ys
    own = FiniteVolume(Burgers(1, viscosity=0.01), Grid(32), method="midpoint").advance(u, [0.1], dt=0.01)
    torch.testing.assert_close(fixed, last(own), rtol=1e-12, atol=1e-12)


def test_the_stages_of_ssprk3_are_convex_combinations():
    fv = FiniteVolume(Advection(1), Grid(16), reconstruction=Constant())
    u, dt = sine(Grid(16)), 0.05

    def euler(u):
        return u + dt * fv.tendency(0.0, u)

    third = (u + 2 * euler(0.75 * u + 0.25 * euler(euler(u)))) / 3
    torch.testing.assert_close(fv.step(u, dt), third, rtol=1e-13, atol=1e-14)
    assert SSPRK3.order == 3


# Gradients.


GRADIENTS = {
    "burgers": (Burgers(1, viscosity=0.01), Grid(8), {}),
    "weno": (Advection(1), Grid(8), {"reconstruction": Weno5Z()}),
    "gas": (Euler(1, scalars=1), Grid(8), {"boundary": Wall()}),
    "gas2": (NavierStokes(2, shear=0.01), Grid((2, 8)), {"flux": "roe", "boundary": Outflow()}),
    "water": (ShallowWater(2), Grid((8, 2)), {"flux": "hll", "variables": "conserved"}),
    "split": (Burgers(1, viscosity=0.1), Grid(8), {"viscous_stages": 3}),
    "positive": (Euler(1), Grid(8), {"positivity": "fluxes"}),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_steps_have_gradients(name):
    law, grid, options = GRADIENTS[name]
    fv = FiniteVolume(law, grid, **options)
    u = random_gas(law, *grid.size, batch=1, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: fv.step(u, 0.01), u, fast_mode=True)


def test_trajectories_have_gradients_in_the_start_boundary_values_and_parameters():
    def run(u, inflow, speed):
        fv = FiniteVolume(Advection(1, speed=speed), Grid(8), [(Ghost(inflow), Outflow())])
        return fv.advance(u, [[0.03, 0.07], [0.05, 0.11]], dt=torch.tensor([0.01, 0.03])).u  # the second arrives first

    generator = torch.Generator().manual_seed(0)
    u, inflow = (torch.randn(2, 1, n, dtype=F64, generator=generator).requires_grad_() for n in (8, 1))
    speed = torch.tensor([0.5, 1.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (u, inflow, speed))
    with torch.no_grad():
        plain = run(u, inflow, speed)
    assert torch.equal(plain, run(u, inflow, speed))
    (gradient,) = torch.autograd.grad(run(u.detach(), inflow, speed).sum(), speed)
    assert bool((gradient != 0).all())


# Positivity.


def parting_streams(n, speed):
    grid = Grid(n)
    (x,) = grid.coordinates()
    v = torch.where(x < 0.5, -speed, speed).double()
    return grid, Euler(1).conserved(torch.stack([torch.ones_like(v), v, torch.full_like(v, 0.4)])[None])


@pytest.mark.parametrize("reconstruction", [Muscl(), Muscl("superbee"), Weno5Z()], ids=str)
@pytest.mark.parametrize("flux", ["hllc", "hll", "rusanov"])
def test_limited_fluxes_keep_a_near_vacuum_positive_and_conserve(reconstruction, flux):
    grid, u = parting_streams(30, 20.0)
    # Periodic: the streams meet again at the ends.
    fv = FiniteVolume(Euler(1), grid, flux=flux, reconstruction=reconstruction, positivity="fluxes", cfl=0.45)
    got = fv.advance(u, [0.01, 0.02])
    w = fv.law.primitive(got.u.flatten(0, 1))
    assert bool((w[:, [0, 2]] > 0).all())
    assert float(w[:, 0].min()) < 0.1
    for name in ("mass", "energy"):
        torch.testing.assert_close(fv.totals(last(got))[name], fv.totals(u)[name], rtol=1e-12, atol=0)


def test_limited_fluxes_keep_positive_in_two_dimensions_and_leave_smooth_flow_alone():
    law, generator = Euler(2), torch.Generator().manual_seed(0)
    w = torch.ones(3, 4, 8, 8, dtype=F64)
    w[:, 1:3] = 30 * torch.randn(3, 2, 8, 8, dtype=F64, generator=generator)
    fv = FiniteVolume(law, Grid((8, 8)), reconstruction=Weno5Z(), positivity="fluxes", cfl=0.5)
    u = law.conserved(w)
    for _ in range(20):
        u = fv.step(u, fv.stable_dt(u))
        assert bool((law.primitive(u)[:, [0, 3]] > 0).all())
    smooth = random_gas(law, 8, 8, amplitude=0.05)
    plain = FiniteVolume(law, Grid((8, 8)), reconstruction=Weno5Z())
    assert torch.equal(fv.step(smooth, 0.01), plain.step(smooth, 0.01))


def test_limited_fluxes_keep_any_gas_positive_over_one_step_at_half_the_courant_number():
    law, generator = Euler(1), torch.Generator().manual_seed(1)
    w = torch.randn(200, 3, 12, dtype=F64, generator=generator) * 2
    w = torch.stack([w[:, 0].exp(), 30 * w[:, 1], w[:, 2].exp()], 1)
    u = law.conserved(w)
    fv = FiniteVolume(law, Grid(12), reconstruction=Weno5Z(), method="euler", positivity="fluxes", cfl=0.5)
    plain = FiniteVolume(law, Grid(12), reconstruction=Weno5Z(), method="euler", cfl=0.5)
    dt = fv.stable_dt(u)
    lost = (law.primitive(plain.step(u, dt))[:, [0, 2]] <= 0).flatten(1).any(1)
    assert lost.sum() > 20
    assert bool((law.primitive(fv.step(u, dt))[:, [0, 2]] > 0).all())


def test_without_them_a_vacuum_is_an_error_that_names_step_time_and_sample():
    grid, u = parting_streams(50, 20.0)
    calm = parting_streams(50, 0.1)[1]
    fv = FiniteVolume(Euler(1), grid, Outflow(), reconstruction=Muscl("superbee"))
    with pytest.raises(FlowError, match=r"(not positive|not finite) in step \d+ at t = [\d.e-]+, samples 1$") as caught:
        fv.advance(torch.cat([calm, u, calm]), [0.001, 0.05])
    assert caught.value.trajectory.fault.tolist()[1] in (1, 2)
    got = fv.advance(torch.cat([calm, u, calm]), [0.001, 0.05], on_failure="status")
    assert [int(f != 0) for f in got.fault] == [0, 1, 0]
    assert got.failed_step[1] > 0
    assert 0 < got.failed_time[1] < 0.05
    assert bool(got.u[1, -1].isnan().all())
    assert bool(got.u[[0, 2]].isfinite().all())
    assert torch.equal(got.u[0], fv.advance(calm, [0.001, 0.05]).u[0])


def test_face_values_that_are_not_positive_fall_back_to_the_means():
    law, grid = Euler(1), Grid(12)
    w = torch.ones(1, 3, 12, dtype=F64)
    w[0, 1] = 0
    w[0, 0, 4], w[0, 2, 4] = 1e-3, 1e-3
    w[0, 0, 5], w[0, 2, 5] = 30.0, 30.0
    fv = FiniteVolume(law, grid, reconstruction=Muscl("central"))
    faces = fv._faces(torch.cat([w[..., -2:], w, w[..., :2]], 2), 0)
    raw = fv.reconstruction(torch.cat([w[..., -2:], w, w[..., :2]], 2), 2)
    assert bool((raw[1][:, [0, 2]] <= 0).any())
    for side, sharp, shift in zip(faces, raw, (1, 0), strict=True):
        assert bool((side[:, [0, 2]] > 0).all())
        fell = (sharp[:, [0, 2]] <= 0).any(1)[0]
        cells = torch.arange(13)[fell] - shift
        torch.testing.assert_close(side[0, :, fell], w[0, :, cells])
        torch.testing.assert_close(side[0, :, ~fell], sharp[0, :, ~fell])


def test_the_floor_lifts_pressure_only():
    law, grid = Euler(1), Grid(8)
    w = torch.ones(1, 3, 8, dtype=F64)
    w[0, 2, 3] = 1e-9
    fv = FiniteVolume(law, grid, positivity="floor")
    got = law.primitive(fv.step(law.conserved(w), 0.0))
    assert got[0, 2, 3].item() == pytest.approx(1e-4)
    torch.testing.assert_close(got[0, :2], w[0, :2])
    kept = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(got[0, 2, kept], law.primitive(law.conserved(w))[0, 2, kept])


def test_the_floor_leaves_all_that_is_above_it_to_the_last_bit():
    law = Euler(1)
    u = random_gas(law, 32)
    plain, floored = (FiniteVolume(law, Grid(32), positivity=word) for word in ("fallback", "floor"))
    assert torch.equal(floored.step(u, 1e-3), plain.step(u, 1e-3))


# Failures and bad input.


def test_a_solution_that_blows_up_is_named():
    fv = FiniteVolume(Burgers(1), Grid(16), source=lambda u, t: u**3)
    u = torch.ones(3, 1, 16, dtype=F64) * torch.tensor([0.1, 2.0, 0.1], dtype=F64).view(3, 1, 1)
    with pytest.raises(FlowError, match=r"the solution is not finite in step \d+ at t = 0.1\d*, samples 1"):
        fv.advance(u, [1.0])


def test_a_step_that_becomes_too_long_is_named():
    fv = FiniteVolume(Burgers(1), Grid(16), source=lambda u, t: 0 * u + 2.0)
    u = torch.tensor([0.0, 0.5], dtype=F64).view(2, 1, 1).expand(2, 1, 16)
    # 0.5 + 2t reaches the limit h/dt = 1 at t = 1/4, which is the start of step 5.
    with pytest.raises(FlowError, match=r"violates the CFL condition in step 6 at t = 0.3125, samples 1") as caught:
        fv.advance(u, [1.0], dt=1 / 16)
    assert caught.value.trajectory.fault[1] == 3


def test_the_last_state_is_looked_at_too():
    fv = FiniteVolume(Advection(1), Grid(8), source=lambda u, t: torch.where(t > 0.04, math.inf, 0.0) + 0 * u)
    with pytest.raises(FlowError, match=r"not finite in step 1 at t = 0.05, samples 0"):
        fv.advance(torch.ones(1, 1, 8, dtype=F64), [0.05], dt=0.05)


def test_a_gas_that_loses_its_pressure_is_named_and_stays_so():
    def source(u, t):
        return torch.tensor([0.0, 0.0, -1.0], dtype=F64).view(1, 3, 1) * drain + 0 * u

    fv = FiniteVolume(Euler(1), Grid(8), source=source, method="euler")
    u = fv.law.conserved(torch.tensor([1.0, 0.0, 1.0], dtype=F64).view(1, 3, 1).expand(2, 3, 8))
    drain = torch.tensor([5.3, 0.1], dtype=F64).view(2, 1, 1)
    # The energy 3/2 is used up at t = 0.28.
    with pytest.raises(FlowError, match=r"pressure that is not positive in step 6 at t = 0.3, samples 0"):
        fv.advance(u, [1.0], dt=0.05)
    got = fv.advance(u, [1.0], dt=0.05, on_failure="status")
    assert got.fault.tolist() == [2, 0]
    assert got.failed_step.tolist() == [6, 0]
    assert got.steps.tolist() == [6, 20]


def test_what_is_not_finite_on_the_way_is_named_at_its_step_also_where_speeds_are_given():
    fv = FiniteVolume(
        Advection(1), Grid(8), source=lambda u, t: torch.where(t > 0.14, math.nan, 0.0) + 0 * u, method="euler"
    )
    got = fv.advance(torch.ones(1, 1, 8, dtype=F64), [0.1, 1.0], dt=0.05, on_failure="status")
    assert got.fault.tolist() == [1]
    assert got.failed_step.tolist() == [4]
    assert got.failed_time.tolist() == pytest.approx([0.2])
    assert bool(got.u[0, 0].isfinite().all())


def test_one_infinite_cell_of_the_last_state_is_seen():
    def source(u, t):
        return torch.where((t > 0.04) & (torch.arange(8) == 3), math.inf, 0.0) + 0 * u

    fv = FiniteVolume(Advection(1), Grid(8), source=source, method="euler")
    with pytest.raises(FlowError, match=r"not finite in step 2 at t = 0.1, samples 0"):
        fv.advance(torch.ones(1, 1, 8, dtype=F64), [0.1], dt=0.05)


def test_too_few_steps_are_named():
    fv = FiniteVolume(Advection(1), Grid(16))
    with pytest.raises(FlowError, match="max_steps = 3 did not suffice, samples 0 are under way") as caught:
        fv.advance(sine(Grid(16)), [0.01, 1.0], max_steps=3)
    assert bool(caught.value.trajectory.u[0, 0].isfinite().all())
    assert bool(caught.value.trajectory.u[0, 1].isnan().all())


def test_compilation_is_asked_for_and_not_for_every_block(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f: compiled.append(f) or f)
    fv = FiniteVolume(Advection(1), Grid(16), compiled=True)
    plain = FiniteVolume(Advection(1), Grid(16))
    u = sine(Grid(16)).repeat(4, 1, 1)
    assert torch.equal(fv.advance(u, [0.1], block=1).u, plain.advance(u, [0.1]).u)
    assert len(compiled) == 1


GAS, LINE = Euler(1), Grid(8)
STATE = GAS.conserved(torch.ones(3, 3, 8, dtype=F64))


def spoiled(channel, value):
    u = STATE.clone()
    u[1, channel, 2] = value
    return u


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: FiniteVolume(Euler(2), LINE), "law must have the grid's 1 axes, got 2"),
        (lambda: FiniteVolume(GAS, LINE, flux="lax"), "flux must be one of godunov, .* got 'lax'"),
        (lambda: FiniteVolume(GAS, LINE, flux="godunov"), "flux must fit the law: Godunov is not for Euler"),
        (lambda: FiniteVolume(Burgers(1), LINE, flux="hllc"), "flux must fit the law: HLLC is not for Burgers"),
        (lambda: FiniteVolume(GAS, LINE, method="rk4"), "method must be one of .*ssprk3, got 'rk4'"),
        (lambda: FiniteVolume(GAS, LINE, method=IMPLICIT_EULER), "method must be an explicit tableau or a name, got 'implicit-euler'"),
        (lambda: FiniteVolume(GAS, LINE, method="midpoint", positivity="fluxes"), "method must be euler, heun or ssprk3"),
        (lambda: FiniteVolume(GAS, LINE, cfl=1.5), "cfl must be more than 0 and at most 1, got 1.5"),
        (lambda: FiniteVolume(GAS, LINE, cfl=0), "cfl must be more than 0"),
        (lambda: FiniteVolume(GAS, LINE, variables="characteristic"), "variables must be one of primitive, conserved"),
        (lambda: FiniteVolume(GAS, LINE, positivity="hope"), "positivity must be one of fallback, fluxes, floor"),
        (lambda: FiniteVolume(GAS, LINE, viscous_stages=2), "viscous_stages must be 0 or at least 3, got 2"),
        (lambda: FiniteVolume(GAS, Grid(2), reconstruction=Weno5Z()), r"at least 3 cells along each axis, got \(2,\)"),
        (lambda: FiniteVolume(GAS, LINE, "open"), "boundary must hold Periodic"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE[:, :2], [1.0]), r"u must have shape \(batch, 3, 8\), got \(3, 2, 8\)"),
        (lambda: FiniteVolume(GAS, LINE).step(STATE[..., :7], 0.1), r"u must have shape \(batch, 3, 8\)"),
        (lambda: FiniteVolume(GAS, LINE).step(STATE, torch.full((2,), 0.1)), r"dt must be a number or of shape \(3,\), got"),
        (lambda: FiniteVolume(GAS, LINE).step(STATE[:1], 0.1, torch.zeros(2)), r"t must be a number or of shape \(1,\)"),
        (lambda: FiniteVolume(GAS, LINE).tendency(0.0, STATE[..., :7]), r"u must have shape \(batch, 3, 8\)"),
        (lambda: FiniteVolume(GAS, LINE).stable_dt(STATE[:, :2]), r"u must have shape \(batch, 3, 8\)"),
        (lambda: FiniteVolume(GAS, LINE).totals(STATE[:, :2]), r"u must have shape \(batch, 3, 8\)"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE[:0], [1.0]), "u must hold at least one sample"),
        (
            lambda: FiniteVolume(GAS, LINE, source=lambda u, t: torch.ones(2, 3, 8)).step(STATE, 0.1),
            r"source must give shape \(3, 3, 8\) or broadcast to it, got \(2, 3, 8\)",
        ),
        (lambda: FiniteVolume(GAS, LINE, source=lambda u, t: u[None]).step(STATE, 0.1), "source must give shape"),
        (
            lambda: FiniteVolume(GAS, LINE, [(Ghost(torch.ones(2, 3, 1)), Outflow())]).advance(STATE, [1.0], block=1),
            r"boundary values across axis 0 must have shape \(3, 3, 1\) or broadcast to it, got \(2, 3, 1\)",
        ),
        (
            lambda: FiniteVolume(GAS, LINE, [(Outflow(), dirichlet(torch.ones(1, 3, 2)))]).advance(STATE, [1.0]),
            "boundary values across axis 0 must have shape",
        ),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE.long(), [1.0]), "u must be floating-point"),
        (lambda: FiniteVolume(GAS, LINE).advance(spoiled(1, math.nan), [1.0]), "u must be finite, samples 1 are not"),
        (lambda: FiniteVolume(GAS, LINE).advance(spoiled(0, -1.0), [1.0]), "u must be of positive density, samples 1 are not"),
        (lambda: FiniteVolume(GAS, LINE).advance(spoiled(2, 0.1), [1.0]), "u must be of positive pressure, samples 1 are not"),
        (
            lambda: FiniteVolume(ShallowWater(1), LINE).advance(-STATE[:, :2], [1.0]),
            "u must be of positive depth, samples 0, 1, 2 are not",
        ),
        (
            lambda: FiniteVolume(Euler(1, gamma=torch.tensor([1.2, 1.4])), LINE).advance(STATE, [1.0]),
            "gamma of the law must have one entry or 3, as u, got 2",
        ),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0, 1.0]), "times must be finite and increasing"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], start=2.0), "times must be finite and increasing, from start"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, []), r"times must have shape \(n,\) or \(3, n\), n > 0"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [[1.0], [2.0]]), r"times must have shape .* got shape \(2, 1\)"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], start=torch.zeros(2)), r"start must be a number or of shape \(3,\)"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], start=math.nan), "start must be finite"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], dt=-0.1), "dt must be positive"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], max_dt=0.0), "max_dt must be positive"),
        (
            lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], dt=torch.tensor([0.01, 0.2, 0.3])),
            "dt violates the CFL condition: the Courant number must be at most 1, it is 5.5 at the start, in samples 1, 2",
        ),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], block=0), "block must be at least 1, got 0"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], read_every=0), "read_every must be at least 1"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], max_steps=0), "max_steps must be at least 1"),
        (lambda: FiniteVolume(GAS, LINE).advance(STATE, [1.0], on_failure="ignore"), "on_failure must be 'raise' or 'status'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    "options",
    [{"viscous_stages": 3.5}, {"flux": 3}, {"method": 3}, {"reconstruction": "muscl"}],
    ids=str,
)
def test_wrong_types_are_named(options):
    # By the method, or by the check of types that tests run with.
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        FiniteVolume(GAS, LINE, **options)

"""Laws: variables there and back, wave speeds against the Jacobian, viscous terms against exact derivatives."""

import math

import pytest
import torch
from torch.func import jacfwd

from pdebook.metrics.order import observed_order
from pdebook.pde.finite_volume import FiniteVolume
from pdebook.pde.fluids import Euler, NavierStokes, ShallowWater
from pdebook.pde.grid import Grid
from pdebook.pde.laws import Advection, Burgers, Law, Traffic
from pdebook.pde.reconstruction import Constant

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


LAWS = {
    "advection": Advection(2, speed=(0.5, -2.0)),
    "burgers": Burgers(2),
    "traffic": Traffic(2, speed=1.5, capacity=3.0),
    "water1": ShallowWater(1, gravity=2.0),
    "water2": ShallowWater(2, scalars=1, gravity=0.7),
    "gas1": Euler(1),
    "gas2": Euler(2, gamma=1.4),
    "gas3": Euler(3, scalars=2, gamma=1.3),
}


def states(law, *grid, batch=3, seed=0):
    """Random primitive states."""
    w = random(batch, law.channels, *(grid or (2,) * law.dims), seed=seed)
    for channel in law.positive:
        w[:, channel] = w[:, channel].exp()
    return w


@pytest.mark.parametrize("name", LAWS)
def test_variables_go_there_and_back(name):
    law = LAWS[name]
    w = states(law)
    torch.testing.assert_close(law.primitive(law.conserved(w)), w)
    assert law.conserved(w).shape[1] == law.channels == len(law.names)


def test_conserved_variables_of_a_gas_and_of_water():
    w = torch.tensor([2.0, 3.0, -1.0, 5.0, 0.25], dtype=F64).view(1, 5, 1, 1)
    u = Euler(2, scalars=1, gamma=1.5).conserved(w).flatten().tolist()
    assert u == [2.0, 6.0, -2.0, 5.0 / 0.5 + 0.5 * 2.0 * 10.0, 0.5]
    assert ShallowWater(2).conserved(w[:, :3]).flatten().tolist() == [2.0, 6.0, -2.0]
    assert Euler(2, scalars=1).names == ("mass", "momentum_x", "momentum_y", "energy", "scalar_0")
    assert ShallowWater(1).names == ("mass", "momentum_x")


def test_fluxes_of_a_gas_and_of_water():
    w = torch.tensor([2.0, 3.0, -1.0, 5.0, 0.25], dtype=F64).view(1, 5, 1, 1)
    law = Euler(2, scalars=1, gamma=1.5)
    assert law.flux(w, 0).flatten().tolist() == [6.0, 23.0, -6.0, 3.0 * (20.0 + 5.0), 1.5]
    assert law.flux(w, 1).flatten().tolist() == [-2.0, -6.0, 7.0, -25.0, -0.5]
    assert ShallowWater(2, gravity=0.5).flux(w[:, :3], 1).flatten().tolist() == [-2.0, -6.0, 2.0 + 1.0]


@pytest.mark.parametrize("name", LAWS)
def test_waves_are_the_outermost_eigenvalues_of_the_jacobian(name):
    law = LAWS[name]
    w = states(law, *(1,) * law.dims, batch=1, seed=4)
    u = law.conserved(w).flatten()
    for axis in range(law.dims):

        def flux(u, axis=axis):
            return law.flux(law.primitive(u.view(1, -1, *[1] * law.dims)), axis).flatten()

        eigenvalues = torch.linalg.eigvals(jacfwd(flux)(u)).real
        v, c = law.waves(w, axis)
        c = torch.zeros(()) if c is None else c
        assert eigenvalues.min().item() == pytest.approx((v - c).item())
        assert eigenvalues.max().item() == pytest.approx((v + c).item())
        assert law.rates(w, (0.5,) * law.dims)[axis].item() == pytest.approx(eigenvalues.abs().max().item() / 0.5)


@pytest.mark.parametrize("name", LAWS)
def test_the_rate_is_a_sum_over_axes_of_largest_speeds(name):
    law = LAWS[name]
    w, spacing = states(law, *(4,) * law.dims), (0.1, 0.3, 0.2)[: law.dims]
    expected = 0.0
    for axis, h in enumerate(spacing):
        v, c = law.waves(w, axis)
        expected = expected + (v.abs() + (0 if c is None else c)).flatten(1).max(1).values / h
    torch.testing.assert_close(law.rate(w, spacing), expected)


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.dims == 2 and law.positive])
def test_axes_are_alike(name):
    law = LAWS[name]
    w = states(law, 3, 3)
    swap = list(range(law.channels))
    swap[1], swap[2] = 2, 1
    torch.testing.assert_close(law.flux(w, 1), law.flux(w[:, swap].mT, 0).mT[:, swap])
    assert law.odd(0) == (1,)
    assert law.odd(1) == (2,)
    assert Burgers(1).odd(0) == ()


@pytest.mark.parametrize("make", [
    lambda p: Advection(1, viscosity=p, speed=p - 3.0),
    lambda p: Burgers(1, viscosity=p),
    lambda p: Traffic(1, viscosity=p, speed=p, capacity=2 * p),
    lambda p: ShallowWater(1, gravity=p),
    lambda p: NavierStokes(1, gamma=1 + p, shear=p, bulk=2 * p),
    lambda p: NavierStokes(1, gamma=1 + p, shear=p, bulk=2 * p, viscosity="released"),
])  # fmt: skip
def test_parameters_may_differ_by_sample(make):
    values = torch.tensor([0.5, 1.0, 2.0], dtype=F64)
    law, grid = make(values), Grid(6)
    w = states(law, 6).abs()
    u = law.conserved(w)
    together = FiniteVolume(law, grid)
    for k, value in enumerate(values.tolist()):
        single = FiniteVolume(make(value), grid)
        torch.testing.assert_close(together.tendency(0.0, u)[k : k + 1], single.tendency(0.0, u[k : k + 1]))
        torch.testing.assert_close(together.stable_dt(u)[k : k + 1], single.stable_dt(u[k : k + 1]))
        torch.testing.assert_close(law.select(slice(k, k + 1)).flux(w[k : k + 1], 0), make(value).flux(w[k : k + 1], 0))


def test_choosing_samples_of_a_law_without_their_parameters_changes_nothing():
    law = Advection(2, speed=(1.0, 2.0))
    assert law.select(slice(0, 1)) is law
    cut = Advection(2, speed=(torch.arange(3.0), 2.0)).select(slice(1, 3))
    assert cut.speed[0].tolist() == [1, 2]
    assert cut.speed[1] == 2.0


def test_scalar_fluxes_know_their_axis_and_its_spacing():
    grid = Grid((6, 5), (3.0, 1.0))
    x, y = grid.coordinates(dtype=F64)
    plane = (2.0 * x + 3.0 * y).expand(1, 1, 6, 5)
    for axis, rate in ((0, 2.0), (1, 3.0)):
        got = Burgers(2, viscosity=0.4).viscous_flux(plane, axis, grid.spacing)
        torch.testing.assert_close(got, torch.full_like(got, 0.4 * rate))
        torch.testing.assert_close(Advection(2, speed=(7.0, -5.0)).flux(plane, axis), (7.0, -5.0)[axis] * plane)


def smooth(law, x):
    """Smooth positive periodic primitive fields at points x, (dims, *shape), on the unit box."""
    rows = []
    for k in range(law.channels):
        phase = 2 * math.pi * sum(x[j] for j in range(law.dims)) + k
        rows.append((2.0 if k in law.positive else 0.3) + 0.5 * torch.sin(phase) + 0.2 * torch.cos(2 * math.pi * x[0]))
    return torch.stack(rows)


def exact_viscous_terms(law, x, eta, zeta):
    """∇·(0, σ, σv, 0) at one point, by differentiating the fields twice."""
    d = law.dims

    def flux(x):
        w = smooth(law, x)
        slope = jacfwd(lambda x: smooth(law, x))(x)[1 : 1 + d]
        if law.viscosity == "released":
            stress = w[0] * (eta * slope + (eta / 3 + zeta) * torch.diag(slope.diagonal()))
        else:
            stress = eta * (slope + slope.T) + (zeta - 2 / 3 * eta) * slope.trace() * torch.eye(d, dtype=F64)
        zero = torch.zeros(1, d, dtype=F64)
        return torch.cat([zero, stress, (w[1 : 1 + d] @ stress)[None], zero.expand(law.scalars, d)])

    # The flux across the faces of axis j is column j; it may depend on where in the tensor a component stands.
    return torch.einsum("cjj->c", jacfwd(flux)(x))


@pytest.mark.parametrize("viscosity", ["paper", "released"])
@pytest.mark.parametrize(("dims", "sizes"), [(1, (32, 64)), (2, (32, 64)), (3, (12, 24))])
def test_viscous_terms_are_those_of_the_equations_to_second_order(dims, sizes, viscosity):
    eta, zeta = 0.3, 0.4
    law = NavierStokes(dims, 1, gamma=1.4, shear=eta, bulk=zeta, viscosity=viscosity)
    errors = []
    for n in sizes:
        grid = Grid((n,) * dims)
        u = law.conserved(smooth(law, grid.mesh())[None])
        with_them, without = (
            FiniteVolume(law, grid, reconstruction=Constant()).tendency(0.0, u)[0]
            for law in (law, Euler(dims, 1, gamma=1.4))
        )
        index = [int(p * n) for p in (0.1, 0.35, 0.7)[:dims]]
        x = torch.tensor([(i + 0.5) / n for i in index], dtype=F64)
        exact = exact_viscous_terms(law, x, eta, zeta)
        errors.append(float(((with_them - without)[(slice(None), *index)] - exact).abs().max() / exact.abs().max()))
    assert observed_order(errors, n=sizes).order > 1.7
    assert errors[-1] < (0.02 if dims < 3 else 0.1)


def test_released_viscosity_on_a_face_is_the_formula():
    eta, zeta = 0.3, 0.5
    law = NavierStokes(2, shear=eta, bulk=zeta, viscosity="released")
    w = states(law, 4, 4, batch=1)
    h = (0.2, 0.1)
    got = law.viscous_flux(w, 0, h)[0]
    a, b = w[0, :, :-1, 1:-1], w[0, :, 1:, 1:-1]
    density = (a[0] + b[0]) / 2
    along, across = 4 / 3 * eta + zeta, eta
    torch.testing.assert_close(got[1], along * density * (b[1] - a[1]) / h[0])
    torch.testing.assert_close(got[2], across * density * (b[2] - a[2]) / h[0])
    energy = 0.5 * density * (along * (b[1] ** 2 - a[1] ** 2) + across * (b[2] ** 2 - a[2] ** 2)) / h[0]
    torch.testing.assert_close(got[3], energy)
    assert got[0].abs().max() == 0


def test_a_rigid_rotation_has_no_stress_and_shear_has_its_own():
    grid = Grid((6, 6), 1.0, -0.5)
    x, y = grid.mesh()
    law = NavierStokes(2, shear=0.7, bulk=0.2)
    rotation = torch.stack([torch.ones_like(x), -y, x, torch.ones_like(x)])[None]
    assert law.viscous_flux(rotation, 0, grid.spacing).abs().max() < 1e-13
    shear = torch.stack([torch.ones_like(x), y, 0 * x, torch.ones_like(x)])[None]
    torch.testing.assert_close(law.viscous_flux(shear, 0, grid.spacing)[0, 2], torch.full((5, 4), 0.7, dtype=F64))
    torch.testing.assert_close(law.viscous_flux(shear, 1, grid.spacing)[0, 1], torch.full((4, 5), 0.7, dtype=F64))
    expansion = torch.stack([torch.ones_like(x), x, y, torch.ones_like(x)])[None]
    stress = law.viscous_flux(expansion, 0, grid.spacing)[0, 1]
    torch.testing.assert_close(stress, torch.full((5, 4), 2 * 0.7 + (0.2 - 2 / 3 * 0.7) * 2, dtype=F64))


def test_diffusivity_counts_in_the_stable_step():
    h = 0.1
    u = torch.zeros(1, 1, 10, 10, dtype=F64)
    step = FiniteVolume(Burgers(2, viscosity=0.3), Grid((10, 10)), cfl=0.5).stable_dt(u)
    assert step.item() == pytest.approx(0.5 * h * h / (4 * 0.3))
    for viscosity, nu in (("paper", (4 / 3 * 0.3 + 0.2) / 2.0), ("released", 4 / 3 * 0.3 + 0.2)):
        law = NavierStokes(1, shear=0.3, bulk=0.2, viscosity=viscosity)
        w = torch.tensor([2.0, 0.0, 1.2], dtype=F64).view(1, 3, 1).expand(1, 3, 10).clone()
        w[:, 0, 3] = 4.0
        rate = 1 / h + 2 * nu / h**2
        assert FiniteVolume(law, Grid(10), cfl=0.5).stable_dt(law.conserved(w)).item() == pytest.approx(0.5 / rate)


def test_pressure_is_floored_where_it_is_next_to_nothing():
    law = Euler(1)
    w = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 0.0], [-1.0, 1e-8, 1e-7]], dtype=F64)[None]
    assert law.floored(w)[0, 2].tolist() == [1e-4, 1e-4, 1e-7]
    assert torch.equal(law.floored(w)[:, :2], w[:, :2])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Burgers(4), "dims must be 1, 2 or 3, got 4"),
        (lambda: Burgers(1, viscosity=-1.0), "viscosity must be finite and at least 0, got -1.0"),
        (lambda: Burgers(1, viscosity=torch.zeros(2, 2)), r"viscosity must be a number or of shape \(batch,\), got"),
        (lambda: Advection(2, speed=(1.0,)), "speed must be one or 2, an entry for each axis, got 1"),
        (lambda: Advection(1, speed=math.inf), "speed must be finite, got inf"),
        (lambda: Traffic(1, speed=0.0), "speed must be finite and more than 0"),
        (lambda: Traffic(1, capacity=torch.tensor([1.0, 0.0])), "capacity must be finite and more than 0"),
        (lambda: ShallowWater(3), "dims of shallow water must be 1 or 2, got 3"),
        (lambda: ShallowWater(1, gravity=0.0), "gravity must be finite and more than 0"),
        (lambda: Euler(0), "dims must be 1, 2 or 3, got 0"),
        (lambda: Euler(1, scalars=-1), "scalars must be a whole number and not negative, got -1"),
        (lambda: Euler(1, gamma=1.0), "gamma must be finite and more than 1, got 1.0"),
        (lambda: NavierStokes(1, shear=-0.1), "shear must be finite and at least 0"),
        (lambda: NavierStokes(1, bulk=math.nan), "bulk must be finite"),
        (lambda: NavierStokes(1, viscosity="full"), "viscosity must be one of paper, released, got 'full'"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_law_of_ones_own_needs_its_fluxes():
    law = Law()
    with pytest.raises(NotImplementedError):
        law.flux(torch.zeros(1, 1, 3), 0)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: Euler(1, scalars=1.5), "scalars"),
        (lambda: Advection(2, speed=[1.0, 2.0]), "speed"),
        (lambda: Euler(1, gamma="high"), "gamma"),
    ],
)
def test_wrong_types_are_named(call, name):
    # By the law, or by the check of types that tests run with.
    with pytest.raises((ValueError, TypeError), match=name):
        call()

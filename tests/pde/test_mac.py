"""Staggered flow: adjoint differences, projections to rounding, Taylor and Green's vortices, walls, transport, restriction."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.metrics.order import observed_order
from pdebook.pde import boundary as bc
from pdebook.pde.exact import taylor_green
from pdebook.pde.failure import Diverged
from pdebook.pde.forces import buoyancy, kolmogorov, restrict
from pdebook.pde.grid import Grid
from pdebook.pde.interpolation import Neighbours, lax_wendroff, limited, linear, sample, upwind, van_leer
from pdebook.pde.mac import MAC

PI = math.pi
SIDES = {"ring": bc.Periodic(), "slip": bc.Wall(), "stick": bc.dirichlet(), "both": (bc.Wall(), bc.dirichlet())}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vortices(grid: Grid, t: float, viscosity: float = 0.01) -> torch.Tensor:
    x, y = grid.mesh(face=0)
    p, q = grid.mesh(face=1)
    return torch.stack([taylor_green(x, y, t, viscosity)[0][0], taylor_green(p, q, t, viscosity)[0][1]])[None]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(sorted(SIDES)), min_size=2, max_size=3), st.integers(0, 100))
def test_divergence_and_gradient_are_adjoint_and_the_projection_is_orthogonal(sides, seed):
    grid = Grid((5, 4, 3)[: len(sides)], (1.0, 2.0, 1.5)[: len(sides)])
    mac = MAC(grid, [SIDES[side] for side in sides])
    v, p = draw(2, grid.dims, *grid.size, seed=seed), draw(2, 1, *grid.size, seed=seed + 1)
    walled = mac.clear_walls(v)
    left, right = (mac.divergence(walled) * p).sum(), (walled * mac.gradient(p)).sum()
    torch.testing.assert_close(left, -right, rtol=1e-12, atol=1e-12)
    free = mac.project(v)
    assert mac.divergence(free).abs().max() < 1e-12
    torch.testing.assert_close(mac.project(free), free, rtol=0, atol=1e-13)
    assert ((walled - free) * free).sum().abs() < 1e-11
    torch.testing.assert_close(mac.clear_walls(free), free, rtol=0, atol=0)
    single = mac.project(v.float())
    assert single.dtype == torch.float32
    assert mac.divergence(single).abs().max() < 1e-5


def test_the_faces_of_divergence_and_gradient():
    grid = Grid((4, 3), (2.0, 3.0))
    x, y = grid.mesh(face=0)[0], grid.mesh(face=1)[1]
    v = torch.stack([x * x, 3 * y])[None]
    walls = MAC(grid, bc.Wall())
    inner = walls.divergence(v)[0, 0, :-1, :-1]
    torch.testing.assert_close(inner, (2 * grid.mesh()[0] + 3)[:-1, :-1])
    p = (grid.mesh()[0] ** 2 + 5 * grid.mesh()[1])[None, None]
    torch.testing.assert_close(walls.gradient(p)[0, 0, 1:], 2 * x[1:])
    torch.testing.assert_close(walls.gradient(p)[0, 1, :, 1:], torch.full((4, 2), 5.0, dtype=torch.float64))
    assert walls.gradient(p)[0, 0, 0].abs().max() == 0
    assert walls.gradient(p)[0, 1, :, 0].abs().max() == 0


def test_taylor_and_greens_vortices():
    """The same scheme of jax-cfd gives 2.4e-2, 1.2e-2 and 6.0e-3 at 32, 64 and 128."""
    implicit, explicit = [], []
    for n in (32, 64):
        grid = Grid((n, n), 2 * PI)
        mac = MAC(grid)
        steps = math.ceil(n / PI)  # Courant number 0.5
        start, end = vortices(grid, 0.0), vortices(grid, 1.0)
        v = mac.run(start, 1 / steps, steps, 0.01)[:, -1]
        implicit.append(float((v - end).norm() / end.norm()))
        v, dt = start, 1 / steps
        for _ in range(steps):
            k1 = mac.tendency(v, 0.01)
            k2 = mac.tendency(v + dt * k1, 0.01)
            k3 = mac.tendency(v + dt / 4 * (k1 + k2), 0.01)
            v = v + dt / 6 * (k1 + k2 + 4 * k3)
        explicit.append(float((v - end).abs().max()))
        assert mac.divergence(v).abs().max() < 1e-12
    assert implicit[0] == pytest.approx(2.4e-2, rel=0.2)
    assert implicit[1] == pytest.approx(1.2e-2, rel=0.2)
    assert observed_order(explicit, n=[32, 64]).order == pytest.approx(2.0, abs=0.05)
    assert explicit[1] < 2e-5


@pytest.mark.parametrize("carried", [linear, van_leer, upwind])
def test_convection_conserves_momentum_and_has_its_order(carried):
    errors = []
    for n in (32, 64):
        grid = Grid((n, n), 2 * PI)
        x, y = grid.mesh(face=0)
        p, q = grid.mesh(face=1)
        v = torch.stack([torch.sin(y) + 2.0, torch.sin(p) * torch.ones_like(q)])[
            None
        ]  # ∇·v = 0, v·∇v = (cos y sin x, ...)
        mac = MAC(grid)
        rate = mac.convection(v, carried=carried)
        exact = torch.stack([-torch.sin(x) * torch.cos(y), -(torch.sin(q) + 2) * torch.cos(p)])[None]
        errors.append(float((rate - exact).abs().mean()))
        noise = mac.convection(draw(2, 2, n, n), 0.1, carried=carried)
        assert noise.sum((2, 3)).abs().max() < 1e-9
    order = observed_order(errors, n=[32, 64]).order
    assert order > 1.9 if carried is linear else order > 0.9


def test_linear_transport_conserves_energy():
    """∫ v·(v·∇v) = 0 also for differences, if the velocity is free of divergence."""
    for sides in (bc.Periodic(), bc.Wall(), [bc.Periodic(), bc.dirichlet()]):
        mac = MAC(Grid((8, 6), (1.0, 2.0)), sides)
        v = mac.project(draw(2, 2, 8, 6))
        assert (v * mac.convection(v, carried=linear)).sum().abs() < 1e-10
        assert (v * mac.convection(v, carried=upwind)).sum() < -1.0


def test_interpolations_along_a_line():
    values = torch.tensor([[0.0, 1.0, 3.0, 4.0, 3.5]], dtype=torch.float64)
    padded = torch.cat([values[:, -2:], values, values[:, :2]], 1)

    def near(speed: float, courant: float = 0.0) -> Neighbours:
        ones = torch.ones(1, 6, dtype=torch.float64)
        return Neighbours(values, padded, 0, None, speed * ones, courant * ones)

    torch.testing.assert_close(linear(near(1.0))[0], torch.tensor([1.75, 0.5, 2.0, 3.5, 3.75, 1.75]).double())
    assert upwind(near(1.0))[0].tolist() == [3.5, 0.0, 1.0, 3.0, 4.0, 3.5]
    assert upwind(near(-1.0))[0].tolist() == [0.0, 1.0, 3.0, 4.0, 3.5, 0.0]
    torch.testing.assert_close(
        lax_wendroff(near(1.0, 1.0)), upwind(near(1.0))
    )  # a whole cell: what comes is what was there
    torch.testing.assert_close(lax_wendroff(near(-1.0, -1.0)), upwind(near(-1.0)))
    for speed, courant in ((1.0, 0.3), (-1.0, -0.3), (1.0, 0.0)):
        one = near(speed, courant)
        torch.testing.assert_close(van_leer(one), limited(one, lax_wendroff(one)))
    # Between 1 and 3 with upwind slope 1 and central slope 2: φ(1/2) = 2/3 of the way to the mean.
    assert float(van_leer(near(1.0))[0, 2]) == pytest.approx(1 + 2 / 3)
    assert float(van_leer(near(-1.0))[0, 2]) == pytest.approx(3 - 2 / 3)  # slope beyond is 1, the same ratio
    assert float(van_leer(near(1.0))[0, 4]) == 4.0  # an extremum: upwind


def test_a_hook_sees_what_it_needs():
    seen = []

    def learned(near: Neighbours) -> torch.Tensor:
        seen.append((near.axis, near.component, near.velocity is None, tuple(near.values.shape)))
        return linear(near)

    mac = MAC(Grid((4, 6)))
    v = draw(2, 2, 4, 6)
    torch.testing.assert_close(mac.convection(v, carried=learned, carrier=learned), mac.convection(v, carried=linear))
    assert len(seen) == 8
    assert {entry[:3] for entry in seen} == {(a, c, n) for a in (0, 1) for c in (0, 1) for n in (True, False)}
    with pytest.raises(ValueError, match="carrier must not ask for a velocity"):
        mac.convection(v, carrier=upwind)


def test_scalars_are_transported_conservatively_without_new_extrema():
    grid = Grid((24, 24))
    x, y = grid.mesh()
    c = torch.stack([((x - 0.5).abs() < 0.2).double() * ((y - 0.5).abs() < 0.2), torch.sin(2 * PI * x)])[None]
    for sides in (bc.Periodic(), bc.Wall()):
        mac = MAC(grid, sides)
        v = mac.project(draw(1, 2, 24, 24))
        v = v / v.abs().max()
        dt, box = 0.2 / 24, c
        for _ in range(20):
            box = box + dt * mac.transport(box, v, dt)
        torch.testing.assert_close(box.sum((2, 3)), c.sum((2, 3)), rtol=0, atol=1e-11)
        assert float(box[0, 0].min()) > -1e-12
        assert float(box[0, 0].max()) < 1 + 1e-12
        two = mac.transport(c.repeat(3, 1, 1, 1), v.repeat(3, 1, 1, 1), torch.tensor([0.1, dt, 0.2]))
        torch.testing.assert_close(two[1:2], mac.transport(c, v, dt))
        torch.testing.assert_close(two[0], mac.transport(c, v, 0.1)[0])


@pytest.mark.parametrize(
    "names", [("ring", "ring"), ("ring", "stick"), ("slip", "both"), ("stick", "slip"), ("ring", "slip", "stick")]
)
def test_implicit_diffusion_inverts_the_explicit_one(names):
    grid = Grid((5, 4, 6)[: len(names)], (1.0, 2.0, 1.0)[: len(names)])
    sides = [SIDES[name] for name in names]
    if len(names) == 2 and names[1] == "stick":
        sides[1] = (bc.dirichlet(0.7), bc.dirichlet(torch.tensor([-0.3, 0.0])))  # moving lids
    mac = MAC(grid, sides)
    v = mac.clear_walls(draw(2, grid.dims, *grid.size))
    amount = torch.tensor([0.1, 0.4], dtype=torch.float64)
    w = mac.diffuse(v, amount)
    torch.testing.assert_close(w - amount.view(-1, *[1] * (grid.dims + 1)) * mac.laplacian(w), v, rtol=0, atol=1e-11)
    torch.testing.assert_close(mac.diffuse(v, 0.4)[1], w[1], rtol=0, atol=1e-12)


def test_a_small_increment_survives_in_single_precision():
    mac = MAC(Grid((16, 16), 2 * PI))
    v = vortices(mac.grid, 0.0)
    exact = mac.diffuse(v, 1e-6) - v
    single = mac.diffuse(v.float(), 1e-6).double() - v.float().double()
    assert float((single - exact).abs().max()) < 0.1 * float(exact.abs().max())


def test_flow_between_plates():
    """Driven by a lid it becomes linear, by a force parabolic; both are exact for second differences but for the wall's cell."""
    n = 16
    grid = Grid((4, n), (1.0, 1.0))
    y = grid.mesh(face=0)[1]
    lid = MAC(grid, [bc.Periodic(), (bc.dirichlet(), bc.dirichlet(2.0))])
    v = torch.zeros(1, 2, 4, n, dtype=torch.float64)
    for _ in range(60):
        v = lid.step(v, 0.5, 1.0)
    torch.testing.assert_close(v[0, 0], 2 * y, rtol=0, atol=1e-10)
    assert v[0, 1].abs().max() < 1e-14
    channel = MAC(grid, [bc.Periodic(), bc.dirichlet()])
    force = torch.zeros_like(v)
    force[:, 0] = 1.0
    v = torch.zeros_like(v)
    for _ in range(60):
        v = channel.step(v, 0.5, 1.0, force)
    torch.testing.assert_close(v[0, 0], y * (1 - y) / 2 + 1 / (8 * n * n) * 1.0, rtol=0, atol=1e-3)
    slip = MAC(grid, [bc.Periodic(), bc.Wall()])
    torch.testing.assert_close(slip.step(force, 0.1, 1.0), force)


def test_a_wall_with_a_weight_moves_as_the_quotient_says():
    def shear(side):
        return MAC(Grid((4, 6)), [bc.Periodic(), (bc.dirichlet(), side)]).laplacian(torch.zeros(1, 2, 4, 6).double())

    wanted = shear(bc.dirichlet(2.0))
    assert float(wanted[0, 0, 0, -1]) == pytest.approx(4.0 * 36)
    for side in (bc.Robin(2.0, 0.0, 4.0), bc.Robin(2.0, 0.0, torch.tensor([4.0, 0.0]))):
        torch.testing.assert_close(shear(side), wanted)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_free_slip_is_the_mirror_image(n):
    """A box with walls is half of a period in which the other half is its mirror image: normal component odd, the rest even."""
    box, ring = MAC(Grid((n, 4), (1.0, 1.0)), [bc.Wall(), bc.Periodic()]), MAC(Grid((2 * n, 4), (2.0, 1.0)))
    v = box.project(draw(2, 2, n, 4))
    c = draw(2, 2, n, 4, seed=1)

    def mirrored(v):
        normal = torch.cat([v[:, :1], torch.zeros(2, 1, 1, 4).double(), -v[:, :1, 1:].flip(2)], 2)
        return torch.cat([normal, torch.cat([v[:, 1:], v[:, 1:].flip(2)], 2)], 1)

    wide, wide_c = mirrored(v), torch.cat([c, c.flip(2)], 2)
    dt = 0.2 / n / float(v.abs().max())
    for name, mine, theirs in [
        ("project", box.project(draw(2, 2, n, 4)), ring.project(mirrored(box.clear_walls(draw(2, 2, n, 4))))),
        ("convection", box.convection(v, dt), ring.convection(wide, dt)),
        ("upwind", box.convection(v, carried=upwind), ring.convection(wide, carried=upwind)),
        ("laplacian", box.laplacian(v), ring.laplacian(wide)),
        ("diffuse", box.diffuse(v, 0.3), ring.diffuse(wide, 0.3)),
        ("step", box.step(v, dt, 0.1), ring.step(wide, dt, 0.1)),
        ("advect", box.advect(v, dt), ring.advect(wide, dt)),
        ("transport", box.transport(c, v, dt), ring.transport(wide_c, wide, dt)),
        ("advect_scalar", box.advect_scalar(c, v, dt), ring.advect_scalar(wide_c, wide, dt)),
    ]:
        torch.testing.assert_close(theirs[:, :, :n], mine, rtol=0, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


def test_a_courant_number_of_one_carries_by_a_cell():
    mac = MAC(Grid((8, 6), (8.0, 6.0)))
    v = torch.stack([torch.full((8, 6), 2.0).double(), torch.zeros(8, 6).double()])[None]
    c = draw(1, 3, 8, 6)
    torch.testing.assert_close(c + 0.5 * mac.transport(c, v, 0.5), c.roll(1, 2))
    v[:, 1] = draw(8, 1, seed=2)  # constant along its own axis: carried by the first component alone
    torch.testing.assert_close((v + 0.5 * mac.convection(v, 0.5))[:, 1], v[:, 1].roll(1, 1))


def test_a_rollout_begins_with_the_projection():
    mac = MAC(Grid((6, 6)), [bc.Periodic(), bc.Wall()])
    v = 0.1 * draw(1, 2, 6, 6)
    torch.testing.assert_close(mac.run(v, 0.1, 1)[:, 0], mac.step(mac.project(v), 0.1), rtol=0, atol=1e-14)


def test_a_step_with_smoke_is_its_parts():
    mac = MAC(Grid((5, 4)))
    v, c, f = mac.project(draw(2, 2, 5, 4)), draw(2, 1, 5, 4, seed=1), draw(2, 2, 5, 4, seed=2)
    w = mac.advect(v, 0.03, order=1)
    w = w + 0.03 * 0.2 * mac.laplacian(w)
    means = torch.cat([0.5 * (c + c.roll(1, 2)), 0.5 * (c + c.roll(1, 3))], 1)
    w = mac.project(w + 0.03 * means * f)
    after, smoke = mac.smoke_step(v, c, 0.03, 0.2, f)
    torch.testing.assert_close(after, w, rtol=0, atol=1e-13)
    torch.testing.assert_close(smoke, mac.advect_scalar(c, w, 0.03, order=1), rtol=0, atol=1e-13)


def test_positions_that_are_no_numbers_give_no_numbers():
    at = torch.full((1, 2, 1), torch.nan)
    for closed in (True, False):
        assert bool(sample(torch.ones(1, 1, 4, 4), at, (closed, closed)).isnan().all())
    walls = MAC(Grid((4, 4)), bc.dirichlet())
    assert bool(walls.advect(torch.full((1, 2, 4, 4), torch.nan), 0.1)[..., 1:, 1:].isnan().all())


def test_a_lid_driven_cavity_stays_without_divergence():
    grid = Grid((12, 12))
    mac = MAC(grid, [bc.dirichlet(), (bc.dirichlet(), bc.dirichlet(1.0))])
    v = mac.run(torch.zeros(1, 2, 12, 12, dtype=torch.float64), 0.02, 100, 0.01, every=50)
    assert v.shape == (1, 2, 2, 12, 12)
    last = v[:, -1]
    assert mac.divergence(last).abs().max() < 1e-12
    assert last[0, 0, 0].abs().max() == 0
    assert last[0, 1, :, 0].abs().max() == 0
    assert 0.1 < float(last[0, 0, 6, -1]) < 1.0  # dragged along by the lid, back below
    assert float(last[0, 0, 6, 4:8].min()) < -0.02


# --- semi-Lagrangian ---------------------------------------------------------------------------------------------------------


def test_sampling_is_exact_for_linear_fields_and_wraps():
    u = (torch.arange(5.0)[:, None] * 2 + torch.arange(4.0) * 3).double()[None, None]
    at = torch.tensor([[1.25, 3.0, -2.0], [0.5, 2.75, 9.0]], dtype=torch.float64)[None]
    assert sample(u, at, (False, False)).flatten().tolist() == [4.0, 14.25, 9.0]
    ring = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)[None, None]
    places = torch.tensor([[[3.5, -0.25, 4.0, 7.75]]], dtype=torch.float64)
    assert sample(ring, places, (True,)).flatten().tolist() == [4.5, 2.75, 1.0, 2.75]
    leaf, where = ring.clone().requires_grad_(), (places + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda r, w: sample(r, w, (True,)), (leaf, where))


def test_whole_cells_are_carried_exactly_and_parts_diffuse_as_predicted():
    grid = Grid((16, 12), (16.0, 12.0))
    mac = MAC(grid)
    v = torch.stack([torch.full((16, 12), 2.0), torch.full((16, 12), -3.0)])[None].double()
    c = draw(1, 2, 16, 12)
    torch.testing.assert_close(mac.advect_scalar(c, v, 1.0), c.roll((2, -3), (2, 3)))
    w = draw(1, 2, 16, 12, seed=3)
    torch.testing.assert_close(mac.advect(w, 1.0, by=v), w.roll((2, -3), (2, 3)))
    # A fraction a of a cell: a wave loses 1 - 2 a (1 - a) (1 - cos kh) in its square.
    wave = torch.cos(2 * PI * grid.mesh()[0] / 16)[None, None]
    moved = mac.advect_scalar(wave, 0.15 * torch.stack([v[:, 0], 0 * v[:, 1]], 1), 1.0)
    ratio = float(moved.square().mean() / wave.square().mean())
    assert ratio == pytest.approx(1 - 2 * 0.3 * 0.7 * (1 - math.cos(2 * PI / 16)), rel=1e-12)


def test_paths_have_their_order_and_stay_inside():
    errors = {1: [], 2: []}
    for n in (64, 128):
        grid = Grid((n, n), 2 * PI)
        mac = MAC(grid)
        v = vortices(grid, 0.0, 0.0)
        for order in errors:  # Taylor and Green's flow carries its own stream function to itself
            x, y = grid.mesh()
            stream = (torch.cos(x) * torch.cos(y))[None, None]
            dt = 40 / n  # so long that interpolation hardly counts
            moved = mac.advect_scalar(stream, v, dt, order=order)
            errors[order].append(float((moved - stream).abs().max()) / dt)
    assert observed_order(errors[1], n=[64, 128]).order == pytest.approx(1.0, abs=0.25)
    assert observed_order(errors[2], n=[64, 128]).order == pytest.approx(2.0, abs=0.25)
    walls = MAC(Grid((6, 5)), bc.dirichlet())
    v = walls.project(draw(2, 2, 6, 5))
    far = walls.advect(v, torch.tensor([0.1, 50.0]).double())
    assert bool(far.isfinite().all())
    assert far.abs().max() <= v.abs().max()
    torch.testing.assert_close(far[:1], walls.advect(v[:1], 0.1))
    torch.testing.assert_close(walls.clear_walls(far), far)
    c = draw(2, 1, 6, 5)
    assert walls.advect_scalar(c, v, 50.0).max() <= c.max()
    # On a wall with free slip the flow along it is what it is next to it.
    slip = MAC(Grid((6, 5)), bc.Wall())
    at = torch.tensor([[2.0], [0.0]], dtype=torch.float64)[None]
    torch.testing.assert_close(slip.value_at(v[:1], 0, at).flatten(), v[0, 0, 2, :1])
    assert walls.value_at(v[:1], 0, at).abs().max() < 1e-15
    assert walls.value_at(v[:1], 1, at).abs().max() == 0


def test_components_meet_at_faces_and_centres():
    grid = Grid((6, 5))
    x, y = grid.mesh(face=0)
    p, q = grid.mesh(face=1)
    v = torch.stack([1 + 2 * x + 3 * y, 4 - p + 5 * q])[None]
    mac = MAC(grid)
    there = mac.at_faces(v, 0)
    torch.testing.assert_close(there[0, 0], v[0, 0])
    torch.testing.assert_close(there[0, 1, 1:, :-1], (4 - x + 5 * y)[1:, :-1])
    centre = mac.at_faces(v, None)
    a, b = grid.mesh()
    torch.testing.assert_close(centre[0, 0, :-1], (1 + 2 * a + 3 * b)[:-1])
    torch.testing.assert_close(centre[0, 1, :, :-1], (4 - a + 5 * b)[:, :-1])


# --- forces, restriction, rollouts -------------------------------------------------------------------------------------------


def test_kolmogorovs_force():
    grid = Grid((8, 64), 2 * PI)
    y, h = grid.coordinates()[1].flatten(), 2 * PI / 64
    exact = (torch.cos(4 * (y - h / 2)) - torch.cos(4 * (y + h / 2))) / (4 * h)
    cell = kolmogorov(grid, 1.5, 4, dtype=torch.float64)
    torch.testing.assert_close(cell[0, 0, 3], 1.5 * exact)
    assert cell[0, 1].abs().max() == 0
    torch.testing.assert_close(kolmogorov(grid, average="point", dtype=torch.float64)[0, 0, 0], torch.sin(4 * y))
    official = (torch.cos(4 * y - h / 2) - torch.cos(4 * y + h / 2)) / h
    torch.testing.assert_close(kolmogorov(grid, average="official", dtype=torch.float64)[0, 0, 0], official)
    # Restriction keeps cell means.
    coarse = kolmogorov(Grid((4, 32), 2 * PI), 1.5, 4, dtype=torch.float64)
    torch.testing.assert_close(restrict(cell, 2), coarse)
    assert kolmogorov(Grid((4, 4, 4), 2 * PI)).dtype == torch.float32


def test_a_force_against_drag_finds_its_balance():
    grid = Grid((8, 16), 2 * PI)
    mac = MAC(grid)
    push = kolmogorov(grid, 1.0, 1, dtype=torch.float64)
    v = mac.run(
        torch.zeros(2, 2, 8, 16, dtype=torch.float64),
        0.2,
        150,
        torch.tensor([0.0, 0.1]).double(),
        lambda v, t: push - 0.2 * v,
    )
    rate = 0.2 + 0.1 * (16 / PI * math.sin(PI / 16)) ** 2
    torch.testing.assert_close(v[0, -1], push[0] / 0.2, rtol=0, atol=2e-2)
    torch.testing.assert_close(v[1, -1], push[0] / rate, rtol=0, atol=5e-2)
    ramp = mac.run(torch.zeros(1, 2, 8, 16).double(), 0.1, 2, 0.0, lambda v, t: push * t)
    torch.testing.assert_close(ramp[0, -1], 0.01 * push[0])


def test_buoyancy_balances_hydrostatic_pressure():
    grid = Grid((4, 6))
    mac = MAC(grid, [bc.Periodic(), bc.Wall()])
    c = (1 + grid.mesh()[1])[None, None]
    lift = buoyancy(c, mac, 1, 2.0)
    torch.testing.assert_close(lift[0, 1, :, 1:], 2 * (1 + grid.mesh(face=1)[1][:, 1:]))
    assert lift[0, 1, :, 0].abs().max() == 0
    assert mac.project(lift).abs().max() < 1e-14
    ring = buoyancy(draw(1, 1, 4, 6), mac, 0)
    torch.testing.assert_close(ring[0, 0].sum(), draw(1, 1, 4, 6).sum())


def test_a_cavity_heated_from_the_side_carries_the_known_heat():
    # Steady heat over that of conduction for Rayleigh numbers 1e3, 1e4, 1e5 and Prandtl number 0.71, de Vahl Davis 1983.
    known, rayleigh = torch.tensor([1.118, 2.243, 4.519]).double(), torch.tensor([1e3, 1e4, 1e5]).double()
    warm, errors = [(bc.dirichlet(1.0), bc.dirichlet(0.0)), bc.Wall()], []
    for n, dt in ((12, 1e-3), (18, 4.5e-4)):
        grid = Grid((n, n))
        mac = MAC(grid, [bc.dirichlet(), bc.dirichlet()])
        c, v = (1 - grid.mesh()[0]).expand(3, 1, n, n), torch.zeros(3, 2, n, n, dtype=torch.float64)
        for _ in range(round(0.3 / dt)):
            v = mac.step(v, dt, 0.71, buoyancy(c, mac, 1, 0.71 * rayleigh), carried=linear)
            wide = bc.pad(c, 1, warm, grid.spacing)
            around = wide[..., 2:, 1:-1] + wide[..., :-2, 1:-1] + wide[..., 1:-1, 2:] + wide[..., 1:-1, :-2]
            c = c + dt * (mac.transport(c, v, boundary=warm, carried=linear) + (around - 4 * c) * n**2)
        enters, leaves = (2 * n * heat.mean(-1) for heat in (1 - c[:, 0, 0], c[:, 0, -1]))
        torch.testing.assert_close(enters, leaves, rtol=1e-9, atol=0)
        errors.append(enters / known - 1)
    assert bool((errors[1].abs() < torch.tensor([0.0075, 0.04, 0.13])).all())
    # Of second order, (18/12)² = 2.25 times less, in the limit.
    assert bool((errors[0] / errors[1] > torch.tensor([2.1, 2.0, 1.75])).all())


@pytest.mark.parametrize("sides", [bc.Periodic(), bc.Wall()])
def test_restriction_keeps_velocity_free_of_divergence(sides):
    fine = MAC(Grid((12, 6, 6)), sides)
    v = draw(2, 3, 12, 6, 6)
    coarse = MAC(fine.grid.coarser(3), sides)
    means = fine.divergence(v).unflatten(4, (2, 3)).unflatten(3, (2, 3)).unflatten(2, (4, 3)).mean((3, 5, 7))
    torch.testing.assert_close(coarse.divergence(restrict(v, 3)), means)
    assert coarse.divergence(restrict(fine.project(v), 3)).abs().max() < 1e-13


def test_smoke_rises_with_its_force():
    grid = Grid((16, 16))
    mac = MAC(grid, bc.dirichlet())
    x, y = grid.mesh()
    smoke = torch.exp(-40 * ((x - 0.5) ** 2 + (y - 0.3) ** 2))[None, None]
    force = torch.stack([torch.zeros(16, 16), torch.ones(16, 16)])[None].double()
    v, c = torch.zeros(1, 2, 16, 16, dtype=torch.float64), smoke
    for _ in range(10):
        v, c = mac.smoke_step(v, c, 0.05, 1e-3, force)
        assert mac.divergence(v).abs().max() < 1e-12
    height = [float((u * y).sum() / u.sum()) for u in (smoke, c)]
    assert height[1] > height[0] + 0.01
    assert float(c.max()) <= float(smoke.max())


def test_gradients_and_batches():
    mac = MAC(Grid((4, 3)), [bc.Periodic(), bc.dirichlet(0.5)])
    v = mac.project(draw(2, 2, 4, 3)).requires_grad_()
    nu = torch.tensor([0.1, 0.3], dtype=torch.float64, requires_grad=True)
    f = draw(1, 2, 4, 3, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, nu, f: mac.step(v, 0.05, nu, f), (v, nu, f), fast_mode=True)
    assert torch.autograd.gradcheck(lambda v, nu: mac.tendency(v, nu), (v, nu), fast_mode=True)
    assert torch.autograd.gradcheck(lambda v: mac.advect(v, 0.03), v, fast_mode=True)
    with torch.no_grad():
        start = draw(3, 2, 4, 3)
        whole = mac.run(start, 0.01, 4, 0.1 * torch.tensor([1.0, 2.0, 3.0]).double())
        for i in range(3):
            alone = mac.run(start[i : i + 1], 0.01, 4, 0.1 * (i + 1))
            torch.testing.assert_close(alone[0], whole[i], rtol=0, atol=1e-13)
        single = mac.run(start.float(), 0.01, 4, 0.1)
        torch.testing.assert_close(single[0].double(), whole[0], rtol=0, atol=1e-5)


def test_a_step_between_walls_is_its_parts():
    mac = MAC(Grid((5, 4), (1.0, 2.0)), [(bc.Wall(), bc.dirichlet(0.3)), bc.dirichlet()])
    v, force = mac.project(draw(2, 2, 5, 4)), draw(2, 2, 5, 4, seed=1)
    for field in (v, mac.convection(v), mac.laplacian(v)):
        assert float(field[:, 0, 0].abs().max()) == 0.0
    moved = mac.project(v + 0.05 * (mac.convection(v, 0.05) + force))
    expected = mac.project(mac.diffuse(moved, 0.05 * 0.3))
    torch.testing.assert_close(mac.step(v, 0.05, 0.3, force), expected, rtol=1e-12, atol=1e-12)


def test_what_was_made_without_gradients_serves_with_them():
    mac, v = MAC(Grid((4, 4))), draw(1, 2, 4, 4)
    with torch.inference_mode():
        quiet = mac.step(v, 0.1, 0.2)
    loud = mac.step(v.requires_grad_(), 0.1, 0.2)
    assert torch.equal(loud, quiet)
    loud.sum().backward()
    assert v.grad is not None


@pytest.mark.parametrize("size", [(7,), (6, 5), (4, 3, 6)])
def test_the_periodic_projection_takes_the_gradient_of_the_pressure_away(size):
    mac = MAC(Grid(size, (1.0, 2.0, 1.5)[: len(size)]))
    v = draw(2, len(size), *size)
    free = v - mac.gradient(mac.pressure(v))
    torch.testing.assert_close(mac.project(v), free, rtol=0, atol=1e-13)
    amount = torch.tensor([0.0, 0.3], dtype=torch.float64)
    both = mac.step(v, 1.0, amount, -mac.convection(v, 1.0))  # a force that leaves projection and diffusion alone
    torch.testing.assert_close(both[0], free[0], rtol=0, atol=1e-13)
    torch.testing.assert_close(both[1] - 0.3 * mac.laplacian(both)[1], free[1], rtol=0, atol=1e-12)
    for again in (0.3, 0.2, 0.3):  # what is kept between calls belongs to its amount
        one = mac.step(v, 1.0, again, -mac.convection(v, 1.0))
        torch.testing.assert_close(one - again * mac.laplacian(one), free, rtol=0, atol=1e-12)


@pytest.mark.parametrize("carried", [linear, upwind, lax_wendroff, van_leer])
@pytest.mark.parametrize("sides", [("ring", "ring"), ("ring", "stick"), ("slip", "both", "ring")])
def test_components_in_one_batch_are_components_one_by_one(sides, carried):
    size = (5, 4, 3)[: len(sides)]
    mac = MAC(Grid(size), [SIDES[side] for side in sides])
    v = mac.project(draw(2, len(size), *size))
    for dt in (None, 0.01, torch.tensor([0.01, 0.03], dtype=torch.float64)):
        alone = mac.convection(v, dt, carried=lambda near: carried(near), carrier=lambda near: linear(near))
        torch.testing.assert_close(mac.convection(v, dt, carried=carried), alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("side", ["ring", "slip"])
def test_gradients_of_every_interpolation(side):
    mac = MAC(Grid((4, 5)), SIDES[side])
    v = (0.1 * draw(2, 2, 4, 5)).requires_grad_()
    dt, nu = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in ([0.01, 0.02], [0.1, 0.2]))
    for carried in (linear, upwind, lax_wendroff, van_leer, lambda near: limited(near, lax_wendroff(near))):
        assert torch.autograd.gradcheck(
            lambda v, dt, nu, carried=carried: mac.step(v, dt, nu, carried=carried), (v, dt, nu), fast_mode=True
        )
        # At rest all slopes vanish.
        rest = torch.zeros(1, 2, 4, 5, requires_grad=True)
        (slope,) = torch.autograd.grad(mac.step(rest, 0.01, 0.1, carried=carried).square().sum() + rest.sum(), rest)
        torch.testing.assert_close(slope, torch.ones_like(slope))
    ring = MAC(Grid((4, 5)))
    still = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda nu: ring.step(v.detach(), 0.01, nu), still, fast_mode=True)


def test_a_flow_turned_by_a_right_angle_stays_so():
    mac = MAC(Grid((8, 8)))
    v = mac.project(draw(1, 2, 8, 8))
    turned = v.flip(1).transpose(2, 3)  # reflection at the diagonal
    torch.testing.assert_close(
        mac.step(turned, 0.02, 0.01), mac.step(v, 0.02, 0.01).flip(1).transpose(2, 3), rtol=0, atol=1e-13
    )


def test_a_plane_flow_in_space_is_the_plane_flow():
    plane, space = MAC(Grid((6, 5))), MAC(Grid((6, 5, 4)))
    v = plane.project(draw(1, 2, 6, 5))
    wide = torch.cat([v, torch.zeros(1, 1, 6, 5).double()], 1)[..., None].expand(1, 3, 6, 5, 4)
    torch.testing.assert_close(
        space.step(wide, 0.02, 0.01)[:, :2, ..., 1], plane.step(v, 0.02, 0.01), rtol=0, atol=1e-13
    )


def test_divergence_of_a_run_is_told_with_time_and_sample():
    mac = MAC(Grid((8, 8)))
    v = draw(3, 2, 8, 8)
    pump = torch.tensor([0.0, 1e300, 0.0]).double().view(-1, 1, 1, 1)
    with pytest.raises(
        Diverged, match=r"1 of 3 samples .* \(samples 1\), first in step 2, which ends at t = 0\.02"
    ) as error:
        mac.run(v * 0.1, 0.01, 6, 0.1, lambda v, t: pump * v * v * v if t > 0.005 else 0.0 * v)
    assert error.value.first_bad.tolist() == [0, 2, 0]
    assert bool(error.value.result[0].isfinite().all())


G = Grid((4, 4))
V = torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MAC(G, bc.Outflow()), "boundary must be Periodic, Wall .* or dirichlet .*Outflow"),
        (lambda: MAC(G, bc.neumann()), "boundary must be Periodic, Wall"),
        (lambda: MAC(Grid((4, 4, 4)), bc.dirichlet(1.0)), "each of the 3 components, got 1.0"),
        (lambda: MAC(G, bc.dirichlet(torch.ones(2))), r"zero along its normal, got \[1.0, 1.0\]"),
        (lambda: MAC(G, bc.dirichlet(torch.ones(3))), "each of the 2 components"),
        (lambda: MAC(Grid((1, 4)), bc.Wall()), "2 cells at least along each axis and between walls"),
        (lambda: MAC(G).check(torch.zeros(1, 3, 4, 4)), r"v must have shape \(batch, 2, 4, 4\)"),
        (lambda: MAC(G).run(torch.zeros(1, 2, 4, 5), 0.1, 1), "v must have shape"),
        (lambda: MAC(G).run(V.int(), 0.1, 1), "v must be floating-point"),
        (lambda: MAC(G).run(V * torch.nan, 0.1, 1), "v must be finite; sample 0"),
        (lambda: MAC(G).run(V + 1, 0.5, 1), "Courant number below 1 at the start, got 4"),
        (lambda: MAC(G).run(V, 0.1, 3, every=2), "steps a multiple of every"),
        (lambda: MAC(G).run(V, 0.0, 3), "dt must be positive"),
        (lambda: MAC(G).advect(V, 0.1, order=3), "order must be 1 or 2, got 3"),
        (lambda: MAC(G).advect_scalar(V, V, 0.1, order=0), "order must be 1 or 2, got 0"),
        (lambda: MAC(G).step(V, torch.ones(3)), "a number or one for each of the 1 samples"),
        (lambda: MAC(Grid((1, 4))), "grid must have 2 cells at least along each axis"),
        (lambda: MAC(G, bc.dirichlet(math.nan)), "a wall a finite velocity, got nan"),
        (lambda: MAC(G, bc.dirichlet(lambda t: t)), "got a function of time"),
        (lambda: MAC(G).run(V[:0], 0.1, 1), "v must be .* with a sample at least"),
        (lambda: MAC(G).run(V.half(), 0.1, 1), "v must be floating-point, float32 or float64, got torch.float16"),
        (lambda: MAC(G).run(V.to(torch.complex64), 0.1, 1), "v must be floating-point, got torch.complex64"),
        (lambda: MAC(G).run(V, 0.1, 1, -1.0), "viscosity must be finite and not negative, got -1.0"),
        (lambda: MAC(G).run(V, 0.1, 1, math.nan), "viscosity must be finite"),
        (lambda: MAC(G).run(V, 0.1, 1, 0.1, torch.ones(3, 2, 4, 4)), r"force must broadcast to \(1, 2, 4, 4\)"),
        (lambda: MAC(G).step(V, 0.1, 0.1, lambda v, t: torch.ones(3)), "force must broadcast"),
        (lambda: MAC(G).step(V, -0.1), "dt must be positive and finite, got -0.1"),
        (lambda: MAC(G).step(torch.zeros(1, 3, 4, 4), 0.1), "v must have shape"),
        (lambda: MAC(G).project(torch.zeros(1, 3, 4, 4)), "v must have shape"),
        (lambda: MAC(G).diffuse(V, 0.0), "amount must be positive and finite, got 0.0"),
        (lambda: MAC(G).tendency(torch.zeros(1, 2, 4, 5)), "v must have shape"),
        (lambda: MAC(G).transport(torch.ones(1, 1, 4, 5), V), "c must have shape"),
        (lambda: MAC(G).advect(V, 0.1, by=V[:, :1]), "by must have shape"),
        (lambda: MAC(G).advect_scalar(torch.ones(1, 1, 4, 5), V, 0.1), "c must have shape"),
        (lambda: MAC(G).smoke_step(V, torch.ones(1, 2, 4, 4), 0.1, 0.1, V), "density must have shape"),
        (lambda: MAC(G).smoke_step(V, V[:, :1], 0.0, 0.1, V), "dt must be positive"),
        (lambda: buoyancy(V[:, :1], MAC(G), -1), "axis must be from 0 to 1, got -1"),
        (lambda: buoyancy(torch.ones(1, 1, 4, 5), MAC(G), 1), "c must have shape"),
        (lambda: restrict(torch.zeros(1, 3, 4, 4), 2), "v must have a component for each of the 2 axes, got 3"),
        (lambda: sample(V, V[:, :, 0], (True,)), "periodic must have an entry for each of the 2 axes, got 1"),
        (lambda: sample(V, torch.zeros(3, 2, 1), (True, True)), r"at must have shape \(1, 2, ...\), got \(3, 2, 1\)"),
        (lambda: kolmogorov(Grid(4)), "grid must have 2 or 3 axes, got 1"),
        (lambda: kolmogorov(G, average="mean"), "average must be 'cell', 'point' or 'official', got 'mean'"),
        (lambda: restrict(V, 3), r"divisor of the size \(4, 4\), got 3"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

"""The benchmarks' starts: their formulas term by term, their moments, and that a sample depends on its number alone."""

import math

import pytest
import torch

from pdebook import fourier
from pdebook.pde import draws, flow_starts, starts
from pdebook.pde import poseidon_starts as poseidon
from pdebook.pde.grid import Grid

F64 = torch.float64
TWO_PI = 2 * math.pi
LINE, PLANE, BOX = Grid(32), Grid((20, 16)), Grid((10, 12, 9))
TUBE = Grid(64, 2.0, -1.0)

MAKERS = {
    "sine sums": lambda s, **kw: starts.sine_sums(3, s, LINE, **kw),
    "flow 1": lambda s, **kw: starts.random_flow_1d(3, s, TUBE, **kw),
    "shocks": lambda s, **kw: starts.shocks_1d(3, s, TUBE, **kw),
    "sorption": lambda s, **kw: starts.sorption_start(3, s, LINE, **kw),
    "flow 2": lambda s, **kw: starts.random_flow(3, s, PLANE, 0.1, **kw),
    "flow 3": lambda s, **kw: starts.random_flow(3, s, BOX, 1.0, **kw),
    "turbulence": lambda s, **kw: starts.turbulence(3, s, PLANE, **kw),
    "dam": lambda s, **kw: starts.dam_break(3, s, Grid((20, 20), 5.0, -2.5), **kw),
    "reaction": lambda s, **kw: starts.reaction_noise(3, s, PLANE, **kw),
    "noise": lambda s, **kw: starts.smooth_noise(3, s, PLANE, channels=2, **kw),
    "coefficient": lambda s, **kw: starts.darcy_coefficient(3, s, PLANE, **kw),
    "darcy": lambda s, **kw: starts.darcy_start(3, s, PLANE, **kw),
    "sines": lambda s, **kw: poseidon.sines(3, s, PLANE, modes=4, **kw),
    "vortices": lambda s, **kw: poseidon.vortices(3, s, PLANE, count=5, **kw),
    "squares": lambda s, **kw: poseidon.squares(3, s, PLANE, **kw),
    "shear": lambda s, **kw: poseidon.shear_layer(3, s, PLANE, **kw),
    "quadrants": lambda s, **kw: poseidon.quadrants(3, s, PLANE, **kw),
    "curved": lambda s, **kw: poseidon.quadrants(3, s, PLANE, curvature=0.1, **kw),
    "layers": lambda s, **kw: poseidon.mixing_layers(3, s, PLANE, **kw),
    "gas": lambda s, **kw: poseidon.gas_vortices(3, s, PLANE, count=5, **kw),
    "products": lambda s, **kw: poseidon.sine_products(3, s, PLANE, modes=(2, 5), **kw),
    "sources": lambda s, **kw: poseidon.gaussian_sources(3, s, PLANE, **kw),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_sample_depends_on_its_number_alone(name, device):
    whole = MAKERS[name](torch.arange(9), dtype=F64, device=device)
    part = MAKERS[name](torch.tensor([7, 2]), dtype=F64, device=device)
    torch.testing.assert_close(part, whole[[7, 2]], rtol=1e-11, atol=1e-12)
    assert MAKERS[name](torch.tensor([7, 2]), device=device).dtype == torch.float32
    torch.testing.assert_close(MAKERS[name](torch.tensor([7, 2]), device=device), part.float())
    assert (whole[:4] - whole[4:8]).abs().max() > 1e-3


# -------------------- sine sums and what is made of them


def test_sine_sums_are_their_formula():
    grid, count = Grid(40, 2.0, -1.0), 60
    sums = starts.SineSums.draw(1, torch.arange(count), grid, absolute=0.5, windowed=0.5)
    u = starts.sine_sums(1, torch.arange(count), grid, absolute=0.5, windowed=0.5, dtype=F64)[:, 0]
    x = [-1.0 + (i + 0.5) * 0.05 for i in range(40)]
    seen = set()
    for b in range(count):
        a, k, phase, sign, absolute, windowed, left, right = (
            getattr(sums, f)[b].tolist() for f in starts.SineSums.__dataclass_fields__
        )
        seen.add((absolute, windowed, sign))
        values = []
        for point in x:
            value = sum(a[j] * math.sin(k[j] * point + phase[j]) for j in range(4))
            value = sign * (abs(value) if absolute else value)
            inside = 0.5 * (math.tanh((point - left) / 0.01) - math.tanh((point - right) / 0.01))
            values.append(value * inside if windowed else value)
        torch.testing.assert_close(u[b], torch.tensor(values, dtype=F64), rtol=0, atol=1e-12)
    assert len(seen) == 8


def test_sine_sums_have_the_stated_draws():
    count = 20000
    sums = starts.SineSums.draw(0, torch.arange(count), LINE)
    times = sums.wavenumber / (TWO_PI / (1 - 1 / 32)) / torch.arange(1, 5)
    torch.testing.assert_close(times, times.round(), rtol=0, atol=1e-12)
    assert (times.sum(1) - 2).abs().max() < 1e-9
    # Two draws from four: a mode is drawn never, once, twice with 9/16, 6/16, 1/16.
    for value, chance in enumerate((9 / 16, 6 / 16, 1 / 16)):
        share = (times.round() == value).double().mean(0)
        assert (share - chance).abs().max() < 5 * math.sqrt(chance * (1 - chance) / count)
    assert sums.absolute.double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert sums.windowed.double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert sums.sign.mean().abs() < 0.03
    assert sums.sign.abs().unique().tolist() == [1.0]
    for draw, low, high in [
        (sums.amplitude, 0, 1),
        (sums.phase, 0, TWO_PI),
        (sums.left, 0.1, 0.45),
        (sums.right, 0.55, 0.9),
    ]:
        assert low <= draw.min() < low + 0.001 * (high - low)
        assert high - 0.001 * (high - low) < draw.max() <= high
        assert draw.mean().item() == pytest.approx((low + high) / 2, abs=0.01 * (high - low))
    # Bars, window, sign, and amplitudes do not follow each other.
    parts = torch.stack(
        [sums.absolute.double(), sums.windowed.double(), sums.sign, sums.amplitude[:, 0], sums.phase[:, 0]]
    )
    assert (torch.corrcoef(parts) - torch.eye(5, dtype=F64)).abs().max() < 5 / math.sqrt(count)


def test_the_released_period_jumps_and_the_exact_one_does_not():
    samples = torch.arange(50)
    ends = torch.tensor([[0.0, 1.0]], dtype=F64)
    jumps = {}
    for period in ("released", "exact"):
        sums = starts.SineSums.draw(0, samples, LINE, absolute=0.0, windowed=0.0, period=period)
        u = sums(ends)
        jumps[period] = (u[:, 1] - u[:, 0]).abs().mean().item()
    assert jumps["exact"] < 1e-14
    assert 0.05 < jumps["released"] < 0.5
    # The released one is periodic over the distance of the first and the last centre.
    sums = starts.SineSums.draw(0, samples, LINE, absolute=0.0, windowed=0.0)
    u = sums(torch.tensor([[0.5 / 32, 31.5 / 32]], dtype=F64))
    assert (u[:, 1] - u[:, 0]).abs().max() < 1e-13


def test_each_sample_may_have_points_of_its_own():
    sums = starts.SineSums.draw(0, torch.arange(2), LINE)
    x = torch.rand(2, 7, dtype=F64, generator=torch.Generator().manual_seed(0))
    both = sums(x)
    for i in range(2):
        torch.testing.assert_close(both[i], sums(x[i : i + 1])[i])


def test_unit_sine_sums_fill_the_unit_interval():
    u = starts.sine_sums(0, torch.arange(6), LINE, unit=True)
    assert u.amin((1, 2)).tolist() == [0.0] * 6
    assert u.amax((1, 2)).tolist() == [1.0] * 6


def test_random_flow_1d():
    w = starts.random_flow_1d(0, torch.arange(2000), TUBE, dtype=F64)
    for channel, least in ((0, 1.0), (2, 10.0)):
        low, span = w[:, channel].amin(1), w[:, channel].amax(1) - w[:, channel].amin(1)
        for part in (low, span):
            assert least <= part.min() < 1.01 * least
            assert 9.9 * least < part.max() <= 10 * least * (1 + 1e-12)
            # Log-uniform: the logarithm's mean is the middle.
            assert (part / least).log10().mean().item() == pytest.approx(0.5, abs=0.02)
        assert abs(torch.corrcoef(torch.stack([low.log(), span.log()]))[0, 1].item()) < 0.1
    windowed = (w[:, 1, :32].abs().amax(1) < 1e-8).double().mean()
    assert windowed.item() == pytest.approx(0.5, abs=0.05)
    assert w[:, 1].max() > 1.5
    assert w[:, 1].max() <= 3.0


def test_shocks_1d():
    n = TUBE.size[0]
    w = starts.shocks_1d(0, torch.arange(3000), TUBE, dtype=F64)
    steps = w[..., 1:] != w[..., :-1]
    assert (steps.sum(-1) == 1).all()
    place = steps[:, 0].int().argmax(-1) + 1
    assert (steps[:, 0] == steps[:, 2]).all()
    assert place.min() == n // 4
    assert place.max() == 3 * n // 4 - 1
    states = torch.cat([w[..., 0], w[..., -1]])
    for channel, low, high in ((0, 1.0, 10.0), (1, math.exp(-0.5), math.exp(0.5)), (2, 10.0, 100.0)):
        logs = (states[:, channel].log() - math.log(low)) / math.log(high / low)
        assert 0 <= logs.min() < 0.01
        assert 0.99 < logs.max() <= 1
        assert logs.mean().item() == pytest.approx(0.5, abs=0.02)
    intended = starts.shocks_1d(0, torch.arange(3000), TUBE, velocity="intended", dtype=F64)
    torch.testing.assert_close(intended[:, 1].exp(), w[:, 1])
    assert torch.equal(intended[:, 0], w[:, 0])


def test_shock_tubes():
    w = starts.riemann(Grid(10), starts.SOD[1], dtype=F64)
    assert w[0, 0].tolist() == [1.0] * 3 + [0.125] * 7
    assert w[0, 1].tolist() == [0.75] * 3 + [0.0] * 7
    assert w[0, 2].tolist() == [1.0] * 3 + [0.1] * 7
    assert starts.riemann(Grid(10), starts.SOD[5], dtype=F64)[0, 2].tolist() == [1000.0] * 8 + [0.01] * 2
    assert sorted(starts.SOD) == [1, 2, 3, 4, 5, 6, 7]
    other = {
        2: ((1.0, -2.0, 0.4), (1.0, 2.0, 0.4), 0.5, 0.15),
        5: ((1.0, -19.59745, 1000.0), (1.0, -19.59745, 0.01), 0.8, 0.012),
        6: ((1.4, 0.0, 1.0), (1.0, 0.0, 1.0), 0.5, 2.0),
        7: ((1.4, 0.1, 1.0), (1.0, 0.1, 1.0), 0.5, 2.0),
    }
    for number, expected in other.items():
        assert starts.SOD[number] == starts.Shocktube(*expected)
    assert [(starts.SOD[n].position, starts.SOD[n].end) for n in (1, 3, 4)] == [(0.3, 0.4), (0.5, 0.012), (0.4, 0.035)]


def star(problem: starts.Shocktube, gamma: float = 5 / 3) -> tuple[float, float]:
    """Pressure and velocity between the waves, by bisection of Toro's pressure function."""

    def side(state, p):
        rho, _, p0 = state
        if p > p0:
            return (p - p0) * math.sqrt(2 / (rho * ((gamma + 1) * p + (gamma - 1) * p0)))
        power = (gamma - 1) / (2 * gamma)
        return 2 * math.sqrt(gamma * p0 / rho) / (gamma - 1) * ((p / p0) ** power - 1)

    left, right = problem.left, problem.right
    low, high = 0.0, 1e5
    for _ in range(200):
        p = (low + high) / 2
        low, high = (p, high) if side(left, p) + side(right, p) + right[1] - left[1] < 0 else (low, p)
    return p, (left[1] + right[1] + side(right, p) - side(left, p)) / 2


@pytest.mark.parametrize(
    ("number", "pressure", "velocity"), [(1, 0.471293, 1.290992), (3, 445.6259, 18.28121), (4, 1841.822, 8.560449)]
)
def test_the_shock_tubes_have_their_known_star_states(number, pressure, velocity):
    assert star(starts.SOD[number]) == pytest.approx((pressure, velocity), rel=1e-6)


def test_sorption_start():
    u = starts.sorption_start(0, torch.arange(2000), LINE, dtype=F64)
    assert (u == u[..., :1]).all()
    assert u.max() < 0.2
    assert u.mean().item() == pytest.approx(0.1, abs=0.005)
    assert u.var().item() == pytest.approx(0.04 / 12, rel=0.05)


# -------------------- two and three dimensions


@pytest.mark.parametrize("grid", [Grid((12, 10), (2.0, 1.0)), Grid((10, 12, 11), (1.0, 1.0, 3.0))])
def test_wave_sums_have_the_weights_and_free_phases(grid):
    d = grid.dims
    u = starts.wave_sum(0, torch.arange(300), grid, channels=2)
    c = fourier.coefficients(u, d)
    numbers = fourier.mode_numbers(grid.size)
    k = fourier.wavenumbers(grid.size, grid.length)
    inside = torch.ones((), dtype=torch.bool)
    for m in numbers:
        inside = inside & (m != 0) & (m.abs() <= 4)
    assert c[..., ~inside].abs().max() < 1e-12
    # The sines of k and -k meet in one mode: |w e^{iφ} - w e^{-iφ'}|²/4 has the mean w²/2.
    weight = sum(part.square() for part in k).sqrt() ** (-0.5 if d == 2 else -1.0)
    ratio = c.abs().square().mean((0, 1)) / (weight.square() / 2)
    assert ratio[inside].mean().item() == pytest.approx(1.0, abs=0.03)
    assert (ratio[inside] - 1).abs().max() < 0.25


def test_random_flow_has_the_stated_moments():
    grid, mach = Grid((16, 16)), torch.rand(400, dtype=F64) + 0.1
    w = starts.random_flow(0, torch.arange(400), grid, mach, windowed=0.0, dtype=F64)
    rho, v, p = w[:, 0], w[:, 1:3], w[:, 3]
    d0, p0 = rho.mean((1, 2)), p.mean((1, 2))
    t0 = p0 / d0
    speed = v.square().sum(1).sqrt().mean((1, 2))
    torch.testing.assert_close(speed, mach * (5 / 3 * t0).sqrt())
    for draw in (d0, t0):
        assert 0.1 <= draw.min() < 0.2
        assert 9.9 < draw.max() <= 10
        assert draw.mean().item() == pytest.approx(5.05, abs=0.5)
    for part, mean in ((rho, d0), (p, p0)):
        delta = (part / mean[:, None, None] - 1).abs().mean((1, 2))
        assert 0.01 <= delta.min() < 0.012
        assert 0.198 < delta.max() <= 0.2
    assert abs(torch.corrcoef(torch.stack([d0, t0]))[0, 1].item()) < 0.2
    # Density and pressure vary on their own.
    a, b = ((part / part.mean((1, 2), keepdim=True) - 1) for part in (rho, p))
    assert ((a * b).sum((1, 2)) / (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt()).mean().abs() < 0.05


def test_a_window_leaves_the_rest_state_outside():
    grid = Grid((40, 40, 4))
    w = starts.random_flow(0, torch.arange(40), grid, 1.0, windowed=1.0, dtype=F64)
    edge = w[:, :, :2]
    assert edge[:, 1:4].abs().max() < 1e-2
    assert (edge[:, 0] - edge[:, 0].mean((1, 2, 3), keepdim=True)).abs().max() < 1e-2
    assert w[:, 1, 20, 20].abs().amax() > 0.1
    free = starts.random_flow(0, torch.arange(400), Grid((40, 40)), 1.0, dtype=F64)
    share = (free[:, 1, 0].abs().amax(-1) < 1e-2).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.1)
    one = starts.darcy_start(0, torch.arange(300), Grid((40, 40)), dtype=F64)[:, 0]
    flat = one[:, 0].std(-1) < 1e-4
    assert flat.double().mean().item() == pytest.approx(0.5, abs=0.1)


def divergence(v: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """rms of the divergence and of the gradient."""
    d = grid.dims
    first = torch.eye(d, dtype=torch.long).tolist()
    c = fourier.coefficients(v, d)
    gradients = torch.stack(
        [fourier.field(fourier.derivative_symbol(grid.size, first[j], grid.length) * c, grid.size) for j in range(d)], 1
    )
    return sum(gradients[:, j, j] for j in range(d)).square().mean().sqrt(), gradients.square().sum(
        (1, 2)
    ).mean().sqrt()


def test_the_projection_drops_the_modes_whose_divergence_is_invisible():
    # On eight points the waves of mode 4 are cosines.
    grid = Grid((8, 8))
    v = starts.turbulence(0, torch.arange(4), grid, dtype=F64)[:, 1:3]
    c = fourier.coefficients(v, 2)
    assert c[..., 4, :].abs().max() < 1e-15
    assert c[..., 4].abs().max() < 1e-15
    assert divergence(v, grid)[0] < 1e-13


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (16, 16, 16), (11, 10)])
def test_turbulence_is_solenoidal_by_the_correct_projection_only(size):
    grid, mach = Grid(size), torch.tensor([1.0, 0.1, 0.5, 2.0], dtype=F64)
    w = starts.turbulence(0, torch.arange(4), grid, mach, dtype=F64)
    d = grid.dims
    div, grad = divergence(w[:, 1 : 1 + d], grid)
    assert div < 1e-13 * grad
    torch.testing.assert_close(w[:, 1 : 1 + d].square().sum(1).sqrt().flatten(1).mean(1), torch.ones(4, dtype=F64))
    assert (w[:, 0] == 1).all()
    assert w[:, -1].flatten(1).amax(1).tolist() == pytest.approx((1 / (5 / 3 * mach**2)).tolist())
    released = starts.turbulence(0, torch.arange(4), grid, mach, projection="released", dtype=F64)
    div, grad = divergence(released[:, 1 : 1 + d], grid)
    # Measured in the benchmark's own files: 0.13 to 0.16 of the gradient.
    assert 0.08 < div / grad < 0.25
    assert released[:, 1 : 1 + d].square().sum(1).sqrt().flatten(1).mean(1).tolist() == pytest.approx([1.0] * 4)


def test_kelvin_helmholtz():
    grid = Grid((64, 400))
    w = starts.kelvin_helmholtz(grid, torch.tensor([1.0, 0.5]), ratio=3.0, waves=2.0, dtype=F64)
    x, y = grid.mesh()
    above = y > 0.5 + 0.005 * torch.sin(2 * TWO_PI * x)
    assert torch.equal(w[0, 0], torch.where(above, 0.5, 1.5).double())
    assert torch.equal(w[0, 1], torch.where(above, 1.0, -1.0).double())
    assert w[:, 2].abs().max() == 0
    assert w[:, 3, 0, 0].tolist() == pytest.approx([0.6, 2.4])
    plain = starts.kelvin_helmholtz(grid, dtype=F64)
    assert plain[0, 0].unique().tolist() == pytest.approx([2 / 3, 4 / 3])
    assert plain[0, 3, 0, 0].item() == pytest.approx(0.6)
    assert torch.equal(plain[0, 1] > 0, y > 0.5 + 0.005 * torch.sin(TWO_PI * x))


def test_orszag_tang_and_blast():
    w = starts.orszag_tang(Grid((16, 12)), dtype=F64)
    x, y = Grid((16, 12)).mesh()
    torch.testing.assert_close(
        w[0], torch.stack([25 / 9 + 0 * x, -torch.sin(TWO_PI * y), torch.sin(TWO_PI * x), 5 / 3 + 0 * x])
    )
    b = starts.blast(Grid((20, 20, 20), 2.0, -1.0), radius=torch.tensor([0.3, 0.6]), inner=7.0, dtype=F64)
    inside = Grid((20, 20, 20), 2.0, -1.0).mesh().square().sum(0).sqrt() < 0.6
    assert torch.equal(b[1, 4] == 7.0, inside)
    plain = starts.blast(Grid((100, 100)), dtype=F64)[0, 3]
    assert plain.unique().tolist() == [0.1, 10.0]
    assert (plain == 10.0).double().mean().item() == pytest.approx(0.01 * math.pi, rel=0.02)
    assert torch.equal(b[1, 4] == 0.1, ~inside)
    assert b.shape == (2, 5, 20, 20, 20)
    assert (b[:, 0] == 1).all()
    assert (b[:, 1:4] == 0).all()


def test_dam_break():
    grid = Grid((100, 100), 5.0, -2.5)
    w = starts.dam_break(0, torch.arange(300), grid, dtype=F64)
    area = (w[:, 0] == 2).double().mean((1, 2)) * 25
    radius = (area / math.pi).sqrt()
    assert 0.29 < radius.min() < 0.31
    assert 0.69 < radius.max() < 0.71
    assert radius.mean().item() == pytest.approx(0.5, abs=0.02)
    assert ((w[:, 0] == 1) | (w[:, 0] == 2)).all()
    assert w[:, 1:].abs().max() == 0
    assert (w[:, 0, 50, 50] == 2).all()


def test_reaction_noise_is_white():
    u = starts.reaction_noise(0, torch.arange(20), Grid((32, 32)), dtype=F64)
    assert u.mean().abs() < 0.02
    assert u.var().item() == pytest.approx(1.0, abs=0.03)
    assert (u * u.roll(1, -1)).mean().abs() < 0.02
    assert (u[:, 0] * u[:, 1]).mean().abs() < 0.03


def test_smooth_noise():
    grid = Grid((32, 32))
    u = starts.smooth_noise(0, torch.arange(200), grid, channels=2, dtype=F64)
    torch.testing.assert_close(u.var((2, 3), correction=0), torch.ones(200, 2, dtype=F64))
    c = fourier.coefficients(u, 2).abs().square().mean((0, 1))
    assert c[0, 2] < 1e-25
    assert (c[0, 3] / c[0, 6]).item() == pytest.approx(16.0, rel=0.3)


def test_darcy_coefficients_part_at_their_level():
    grid = Grid((24, 24))
    a = starts.darcy_coefficient(0, torch.arange(200), grid, dtype=F64)
    assert a.unique().tolist() == [0.1, 1.0]
    # Five bumps, near the middle on average, above their own mean: on about half of the box.
    assert (a == 1.0).double().mean().item() == pytest.approx(0.5, abs=0.06)
    released = starts.darcy_coefficient(0, torch.arange(200), grid, level="released", dtype=F64)
    share = (released == 1.0).double().mean((1, 2, 3))
    assert share.min() < 0.05
    assert share.max() > 0.9
    given = starts.darcy_coefficient(0, torch.arange(200), grid, level=0.0, low=2.0, high=3.0)
    assert given.unique().tolist() == [3.0]
    # One bump of variance s/2: the level set's area, by the formula at a single point of the drawn parameters.
    drawn = draws.draw(0, "darcy coefficient", torch.arange(1), (5, 3), "cpu")[0]
    x, y = grid.mesh()
    g = sum(torch.exp(-((x - m[0]) ** 2 + (y - m[1]) ** 2) / (0.5 * m[2])) for m in drawn)
    assert torch.equal(a[0, 0] == 1.0, g > g.mean())


def test_darcy_starts():
    u = starts.darcy_start(0, torch.arange(1000), Grid((16, 16)), windowed=0.0, dtype=F64)[:, 0]
    u0 = u.mean((1, 2))
    assert 0.1 <= u0.min() < 0.13
    assert 9.95 < u0.max() <= 10
    delta = (u - u0[:, None, None]).abs().mean((1, 2))
    assert abs(torch.corrcoef(torch.stack([u0, delta]))[0, 1].item()) < 0.15
    assert 0.01 <= delta.min() < 0.012
    assert 0.495 < delta.max() <= 0.5


# -------------------- Poseidon


def test_sines_are_the_projected_double_sum():
    grid = Grid((16, 18))
    v = poseidon.sines(0, torch.arange(2), grid, modes=3, dtype=F64)
    draws = poseidon._draw(0, "sines", torch.arange(2), (2, 3, 3, 3), "cpu")
    x, y = grid.mesh()
    raw = torch.zeros(2, 2, 16, 18, dtype=F64)
    for b, (component, function) in [(b, p) for b in range(2) for p in enumerate((torch.sin, torch.cos))]:
        for i in range(3):
            for j in range(3):
                a, beta, gamma = draws[b, component, :, i, j]
                scale = (2 * a - 1) / math.sqrt(TWO_PI * (i + j + 2))
                first, second = TWO_PI * ((i + 1) * x + beta), TWO_PI * ((j + 1) * y + gamma)
                raw[b, component] += scale * function(first) * function(second)
    torch.testing.assert_close(v, flow_starts._project(raw, grid, 0), rtol=0, atol=1e-13)
    omega = poseidon.sines(0, torch.arange(2), grid, modes=3, field="vorticity", dtype=F64)
    torch.testing.assert_close(omega, poseidon._vorticity(raw, grid), rtol=0, atol=1e-12)
    assert divergence(v, grid)[0] < 1e-13


def test_flows_of_vorticities():
    grid = Grid((32, 24), (1.0, 1.0))
    for make in (poseidon.vortices, poseidon.squares):
        omega = make(0, torch.arange(3), grid, field="vorticity", dtype=F64)
        v = make(0, torch.arange(3), grid, dtype=F64)
        assert divergence(v, grid)[0] < 1e-12
        assert v.mean((2, 3)).abs().max() < 1e-13
        # The mode n/2 has no velocity on the grid.
        again, wanted = (
            fourier.resample(u, (31, 23))
            for u in (poseidon._vorticity(v, grid), omega - omega.mean((2, 3), keepdim=True))
        )
        torch.testing.assert_close(again, wanted, rtol=0, atol=1e-11)


def test_vortices_are_the_stated_sum():
    grid = Grid((24, 24))
    omega = poseidon.vortices(0, torch.arange(2), grid, count=3, width=(0.05, 0.1), field="vorticity", dtype=F64)
    draws = poseidon._draw(0, "vortices", torch.arange(2), (3, 4), "cpu")
    x, y = grid.mesh()
    expected = torch.zeros(2, 1, 24, 24, dtype=F64)
    for b in range(2):
        for a, c, s, h in draws[b].tolist():
            sigma = 0.05 + 0.05 * s
            dx, dy = ((x - a + 0.5) % 1 - 0.5), ((y - c + 0.5) % 1 - 0.5)
            expected[b, 0] += (2 * h - 1) / sigma * torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    # The nearest image alone: the next is 5 widths away.
    torch.testing.assert_close(omega, expected, rtol=0, atol=1e-3)


def test_squares_are_constant_on_cells():
    omega = poseidon.squares(0, torch.arange(50), Grid((40, 60)), field="vorticity", dtype=F64)[:, 0]
    blocks = omega.reshape(50, 10, 4, 10, 6)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    values = blocks[:, :, 0, :, 0]
    assert -1 <= values.min() < -0.995
    assert 0.995 < values.max() <= 1
    assert values.mean().abs() < 0.05
    assert len(values[0].unique()) == 100
    finer = poseidon.squares(0, torch.arange(2), Grid((80, 120)), field="vorticity", dtype=F64)[:, 0]
    assert torch.equal(finer[:, ::2, ::2], omega[:2])


def test_shear_layers():
    grid = Grid((32, 64))
    v = poseidon.shear_layer(0, torch.arange(20), grid, perturbation=0.1, dtype=F64)
    _x, y = grid.mesh()
    torch.testing.assert_close(v[3, 0], torch.tanh(TWO_PI * (0.25 - (y - 0.5).abs()) / 0.1))
    assert (v[:, 1] == v[:, 1, :, :1]).all()
    assert v[:, 1].abs().max() <= 0.1
    assert v[:, 1].mean(1).abs().max() < 1e-13
    assert fourier.coefficients(v[:, 1, :, 0], 1)[:, 11:].abs().max() < 1e-14


def test_the_tracer_disc():
    u = poseidon.tracer_disc(Grid((200, 200)), dtype=F64)
    assert u.mean().item() == pytest.approx(math.pi / 16, rel=0.01)
    assert u[0, 0, 100, 100] == 1
    assert torch.equal(u, u.flip(2))
    assert torch.equal(u, u.flip(3))


def test_quadrants():
    w = poseidon.quadrants(0, torch.arange(500), Grid((8, 6)), dtype=F64)
    blocks = w.reshape(500, 4, 2, 4, 2, 3)
    assert (blocks == blocks[:, :, :, :1, :, :1]).all()
    values = blocks[:, :, :, 0, :, 0]
    for channel, low, high in ((0, 0.1, 1.0), (1, -1.0, 1.0), (2, -1.0, 1.0), (3, 0.1, 1.0)):
        part = values[:, channel]
        assert low <= part.min() < low + 0.01
        assert high - 0.01 < part.max() <= high
        assert part.mean().item() == pytest.approx((low + high) / 2, abs=0.05)
    curved = poseidon.quadrants(0, torch.arange(3), Grid((128, 128)), curvature=0.1, dtype=F64)
    straight = poseidon.quadrants(0, torch.arange(3), Grid((128, 128)), dtype=F64)
    for b in range(3):
        assert set(curved[b, 0].unique().tolist()) == set(straight[b, 0].unique().tolist())
    moved = (curved[:, 0] != straight[:, 0]).double().mean()
    assert 0.02 < moved < 0.4
    assert (curved[:, :, 0] != curved[:, :, 64]).any()
    # Nothing moves by more than the curvature: the middles of the cells are as they were.
    middle = torch.arange(128).add(0.5).div(128).remainder(0.5)
    middle = (middle > 0.1) & (middle < 0.4)
    assert torch.equal(curved[:, :, middle][..., middle], straight[:, :, middle][..., middle])
    assert (curved[:, :, ~middle] != straight[:, :, ~middle]).any()


def test_mixing_layers():
    grid = Grid((64, 400))
    w = poseidon.mixing_layers(0, torch.arange(10), grid, dtype=F64)
    inside = w[:, 0] == 2.0
    bend = 0.05 * poseidon._profiles(0, "mixing layers", torch.arange(10), grid.mesh()[0][:, 0], 2, 10, "cpu")
    y = grid.mesh()[1]
    assert torch.equal(inside, (y > 0.25 + bend[:, 0, :, None]) & (y < 0.75 + bend[:, 1, :, None]))
    assert w[:, :, 0, 0].tolist() == [[1.0, 0.5, 0.0, 2.5]] * 10
    assert w[:, :, 0, 200].tolist() == [[2.0, -0.5, 0.0, 2.5]] * 10
    assert torch.equal(w[:, 1], torch.where(inside, -0.5, 0.5).double())
    assert (w[:, 2] == 0).all()
    assert (w[:, 3] == 2.5).all()
    lower = inside.int().argmax(2) / 400
    upper = lower + inside.double().mean(2)
    for edge, middle in ((lower, 0.25), (upper, 0.75)):
        assert (edge - middle).abs().max() < 0.053
        assert (edge - middle).abs().amax(1).min() > 0.01
        assert (edge.mean(1) - middle).abs().max() < 0.003


def test_gas_vortices():
    w = poseidon.gas_vortices(0, torch.arange(2), PLANE, count=5, dtype=F64)
    assert (w[:, 0] == 0.1).all()
    assert (w[:, 3] == 2.5).all()
    torch.testing.assert_close(w[:, 1:3], poseidon.vortices(0, torch.arange(2), PLANE, count=5, dtype=F64))


def test_sine_products_are_the_stated_sum():
    grid, samples = Grid((16, 12)), torch.arange(40)
    u = poseidon.sine_products(0, samples, grid, modes=(2, 4), dtype=F64)
    parameters = poseidon._draw(0, "sine products", samples, (2,), "cpu")
    a = 2 * poseidon._draw(0, "sine amplitudes", samples, (4, 4), "cpu") - 1
    x, y = grid.mesh()
    sizes = set()
    for b in range(40):
        most, r = 2 + int(3 * parameters[b, 0]), 0.7 + 0.3 * parameters[b, 1]
        sizes.add(most)
        expected = sum(
            a[b, i - 1, j - 1] * (i * i + j * j) ** -r * torch.sin(math.pi * i * x) * torch.sin(math.pi * j * y)
            for i in range(1, most + 1)
            for j in range(1, most + 1)
        )
        torch.testing.assert_close(u[b, 0], expected / most**2)
    assert sizes == {2, 3, 4}


def test_gaussian_sources_have_geometric_numbers():
    grid = Grid((8, 8))
    samples = torch.arange(4000)
    u = poseidon.gaussian_sources(0, samples, grid, width=(0.0999, 0.1), dtype=F64)
    # E Σ = E N · E of one bump, over the box: 1/0.4 bumps.
    one = poseidon.gaussian_sources(0, samples, grid, width=(0.0999, 0.1), most=1, dtype=F64)
    assert (u.sum() / one.sum()).item() == pytest.approx(2.5, rel=0.05)
    single = (u == one).flatten(1).all(1).double().mean()
    assert single.item() == pytest.approx(0.4, abs=0.03)
    assert one.amax((1, 2, 3)).max() <= 1


# -------------------- bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: starts.sine_sums(0, s, PLANE), "grid must have 1 axes, got 2"),
        (lambda s: starts.sine_sums(0, s, LINE, period="own"), "period must be 'released' or 'exact', got 'own'"),
        (lambda s: starts.shocks_1d(0, s, LINE, velocity="up"), "velocity must be 'released' or 'intended', got 'up'"),
        (lambda s: starts.shocks_1d(0, s, PLANE), "grid must have 1 axes"),
        (lambda s: starts.riemann(PLANE, starts.SOD[1]), "grid must have 1 axes"),
        (lambda s: starts.turbulence(0, s, PLANE, 0.0), "mach must be finite and more than 0, got 0.0"),
        (lambda s: starts.random_flow(0, s, PLANE, -1.0), "mach must be finite and at least 0, got -1.0"),
        (lambda s: starts.kelvin_helmholtz(PLANE, ratio=-1.0), "ratio must be finite and more than 0"),
        (lambda s: starts.blast(PLANE, inner=-1.0), "inner must be finite and more than 0"),
        (lambda s: starts.dam_break(0, s, PLANE, outer=-1.0), "inner and outer must be positive, got 2.0 and -1.0"),
        (lambda s: starts.wave_sum(0, s, PLANE, largest=0), "largest must be at least 1, got 0"),
        (lambda s: starts.sine_sums(0, s, LINE, terms=0), "terms must be positive"),
        (lambda s: starts.sine_sums(0, s, Grid(1)), "the released period needs two cells"),
        (lambda s: starts.smooth_noise(0, s, PLANE, scale=0.05), "scale must be at least .* the shortest wavelength"),
        (lambda s: starts.sorption_start(0, s, PLANE), "grid must have 1 axes"),
        (lambda s: starts.wave_sum(0, s, LINE), "grid must have 2 or 3 axes, got 1"),
        (lambda s: starts.random_flow(0, s, LINE), "grid must have 2 or 3 axes, got 1"),
        (lambda s: starts.turbulence(0, s, PLANE, projection="none"), "projection must be 'correct' or 'released'"),
        (lambda s: starts.kelvin_helmholtz(BOX), "grid must have 2 axes, got 3"),
        (lambda s: starts.orszag_tang(BOX), "grid must have 2 axes, got 3"),
        (lambda s: starts.dam_break(0, s, BOX), "grid must have 2 axes, got 3"),
        (lambda s: starts.darcy_coefficient(0, s, BOX), "grid must have 2 axes, got 3"),
        (lambda s: starts.darcy_coefficient(0, s, PLANE, level="own"), "level must be 'sample' or 'released'"),
        (lambda s: starts.darcy_start(0, s, BOX), "grid must have 2 axes, got 3"),
        (lambda s: starts.sine_sums(0, s.double(), LINE), "samples must be integers"),
        (lambda s: poseidon.sines(0, s, BOX), "grid must be the unit square, got lengths .1.0, 1.0, 1.0"),
        (lambda s: poseidon.sines(0, s, PLANE, modes=8), r"modes must be from 1 to below half of \(20, 16\), got 8"),
        (lambda s: poseidon.sines(0, s, PLANE, modes=2, field="pressure"), "field must be 'velocity' or 'vorticity'"),
        (lambda s: poseidon.vortices(0, s, PLANE, width=(0.0, 0.1)), "width must be 0 < low"),
        (
            lambda s: poseidon.vortices(0, s, PLANE, field="speed"),
            "field must be 'velocity' or 'vorticity', got 'speed'",
        ),
        (
            lambda s: poseidon.squares(0, s, PLANE, field="speed"),
            "field must be 'velocity' or 'vorticity', got 'speed'",
        ),
        (lambda s: poseidon.vortices(0, s, LINE), "grid must be the unit square"),
        (
            lambda s: poseidon.squares(0, s, Grid((8, 8), 1.0, 0.5)),
            r"unit square, got lengths \(1.0, 1.0\) and origin \(0.5",
        ),
        (lambda s: poseidon.squares(0, s, Grid((8, 8), 2.0)), r"unit square, got lengths \(2.0, 2.0\) and origin"),
        (lambda s: poseidon.squares(0, s, LINE), "grid must be the unit square"),
        (lambda s: poseidon.shear_layer(0, s, LINE), "grid must be the unit square"),
        (lambda s: poseidon.tracer_disc(LINE), "grid must be the unit square"),
        (lambda s: poseidon.quadrants(0, s, LINE), "grid must be the unit square"),
        (lambda s: poseidon.mixing_layers(0, s, LINE), "grid must be the unit square"),
        (lambda s: poseidon.sine_products(0, s, PLANE), "modes must be 1 <= low <= high < 16, got .16, 32"),
        (lambda s: poseidon.gaussian_sources(0, s, PLANE, chance=1.0), r"chance must be in \(0, 1\), got 1.0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.arange(2))

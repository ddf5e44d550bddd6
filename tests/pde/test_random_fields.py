"""Random fields: their law against the formula, the same sample in any batch and at any resolution, and no divergence."""

import itertools
import math

import pytest
import torch

from pdebook import fourier
from pdebook.pde import fields
from pdebook.pde.fields import gaussian_field, matern, power_law
from pdebook.pde.grid import Grid

F64 = torch.float64
TWO_PI = 2 * math.pi
MIXED = Grid((12, 10), (2.0, 1.0), (-1.0, 0.5))
SMOOTH = power_law(2.5, 3.0)

MAKERS = {
    "gaussian": lambda samples, **kw: gaussian_field(3, samples, MIXED, SMOOTH, channels=2, **kw),
    "walls": lambda samples, **kw: gaussian_field(3, samples, MIXED, SMOOTH, kind=("neumann", "dirichlet"), **kw),
    "series": lambda samples, **kw: fields.fourier_series(3, samples, MIXED, 3, channels=2, **kw),
    "solenoidal": lambda samples, **kw: fields.solenoidal_field(3, samples, MIXED, SMOOTH, speed=2.0, **kw),
    "blobs": lambda samples, **kw: fields.blobs(3, samples, MIXED, 4, width=(0.1, 0.3), amplitude=(-1, 1), **kw),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_sample_depends_on_its_number_alone(name, device):
    whole = MAKERS[name](torch.arange(9), dtype=F64, device=device)
    part = MAKERS[name](torch.tensor([7, 2]), dtype=F64, device=device)
    torch.testing.assert_close(part, whole[[7, 2]], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(part.cpu(), MAKERS[name](torch.tensor([7, 2]), dtype=F64), rtol=1e-10, atol=1e-12)
    assert torch.equal(MAKERS[name](torch.tensor([7, 2]), device=device), part.float())
    assert (whole[0] - whole[1]).abs().max() > 1e-3


def test_coefficients_have_the_variance_of_the_spectrum_and_no_preferred_phase():
    grid, count = Grid((8, 6), (1.0, 2.0)), 6000
    u = gaussian_field(0, torch.arange(count), grid, power_law(3.0, 5.0, 40.0), channels=2, dtype=F64, mean=True)
    c = fourier.coefficients(u, 2)
    kx, ky = fourier.wavenumbers(grid.size, grid.length)
    k2 = kx.square() + ky.square()
    expected = 1600.0 * (k2 + 25.0) ** -3.0
    kept = (2 * fourier.mode_numbers(grid.size)[0].abs() < 8) & (2 * fourier.mode_numbers(grid.size)[1] < 6)
    power = c.abs().square().mean(0)
    # |c|²/σ² is exponential (of mean and deviation one), for the mean chi-square: 5 standard errors of the largest of 42.
    assert ((power / expected - 1).abs()[:, kept] < 5 * math.sqrt(2 / count)).all()
    assert (power[:, ~kept] < 1e-25).all()
    # E c² = 0 where the mode is not real; channels and modes are independent.
    assert (c.square().mean(0) / expected)[:, 1:3, 1:3].abs().max() < 5 / math.sqrt(count)
    z = c / expected.sqrt()
    for a, b in [(z[:, 0], z[:, 1]), (z[:, :, 1, 1], z[:, :, 1, 2]), (z[:, :, 1, 1], z[:, :, -1, 1].conj())]:
        assert (a * b.conj()).mean(0).abs().max() < 6 / math.sqrt(count)
    # The mean square is the sum of the variances over all real modes.
    weights = fourier.multiplicity(grid.size) * expected * kept
    assert u.square().mean().item() == pytest.approx(weights.sum().item(), rel=0.02)


def matern_covariance(r: torch.Tensor, length: float, smoothness: float) -> torch.Tensor:
    s = r.abs() / length
    return {
        0.5: torch.exp(-s),
        1.5: (1 + math.sqrt(3) * s) * torch.exp(-math.sqrt(3) * s),
        math.inf: torch.exp(-(s**2) / 2),
    }[smoothness]


@pytest.mark.parametrize("kind", ["periodic", "neumann", "dirichlet"])
@pytest.mark.parametrize("smoothness", [0.5, 1.5, math.inf])
def test_matern_fields_have_the_covariance_summed_over_images(kind, smoothness):
    side, length, variance = 2.0, 0.3, 1.7
    grid = Grid(2048, side, -0.5)
    series = fields._Series(grid, kind, None, "centres", "cpu")
    table = series.table(0, "centres")[::128]
    sigma = series.sigma(matern(grid, length, smoothness, variance), mean=True)[0, 0]
    covariance = (table * sigma.square()) @ table.T
    y = (torch.arange(2048, dtype=F64)[::128] + 0.5) * side / 2048
    shifts = torch.arange(-8, 9, dtype=F64) * side * (1 if kind == "periodic" else 2)
    exact = matern_covariance((y[:, None] - y)[..., None] + shifts, length, smoothness).sum(-1)
    if kind != "periodic":
        mirrored = matern_covariance((y[:, None] + y)[..., None] + shifts, length, smoothness).sum(-1)
        exact = exact + (1 if kind == "neumann" else -1) * mirrored
    # Only the tail of the cut modes is missing, 2/(π² ℓ m) for the roughest.
    torch.testing.assert_close(
        covariance, variance * exact, rtol=0, atol={0.5: 2e-3, 1.5: 1e-7, math.inf: 1e-12}[smoothness]
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_matern_in_more_dimensions_has_the_variance(dims):
    grid = Grid((33,) * dims, 1.0)
    series = fields._Series(grid, "periodic", None, "centres", "cpu")
    total = series.sigma(matern(grid, 0.08, math.inf, 2.5), mean=True).square().sum()
    assert total.item() == pytest.approx(2.5, rel=1e-6)
    rough = series.sigma(matern(grid, 0.15, 2.5, 2.5), mean=True).square().sum()
    assert rough.item() == pytest.approx(2.5, rel=1e-3)


def test_a_large_batch_has_the_covariance():
    grid = Grid(64)
    u = gaussian_field(1, torch.arange(8000), grid, matern(grid, 0.05, 1.5), mean=True, dtype=F64)[:, 0]
    lag = (u * u.roll(5, 1)).mean()
    assert lag.item() == pytest.approx(matern_covariance(torch.tensor(5 / 64), 0.05, 1.5).item(), rel=0.02)


@pytest.mark.parametrize("kind", ["periodic", "neumann", ("dirichlet", "periodic")])
def test_a_finer_grid_shows_the_same_modes(kind):
    coarse, fine = Grid((12, 10), (2.0, 1.0)), Grid((36, 30), (2.0, 1.0))

    def make(grid, at):
        return gaussian_field(5, torch.arange(3), grid, SMOOTH, kind=kind, modes=4, at=at, dtype=F64)

    torch.testing.assert_close(make(coarse, "nodes"), make(fine, "nodes")[..., ::3, ::3], rtol=0, atol=1e-13)
    # The centre of a coarse cell is that of its middle fine cell.
    torch.testing.assert_close(make(coarse, "centres"), make(fine, "centres")[..., 1::3, 1::3], rtol=0, atol=1e-13)


def test_without_a_bound_the_finer_grid_adds_modes():
    coarse = gaussian_field(5, torch.arange(3), Grid((8, 8)), SMOOTH, at="nodes", dtype=F64)
    fine = gaussian_field(5, torch.arange(3), Grid((32, 32)), SMOOTH, at="nodes", dtype=F64)
    c, f = fourier.coefficients(coarse, 2), fourier.coefficients(fine, 2)
    rows = [0, 1, 2, 3, -3, -2, -1]
    torch.testing.assert_close(f[..., rows, :4], c[..., rows, :4], rtol=0, atol=1e-15)
    assert f[..., 5, 5].abs().min() > 0


def test_walls_hold_their_condition():
    grid = Grid((16, 12))
    u = gaussian_field(0, torch.arange(2), grid, SMOOTH, kind=("dirichlet", "neumann"), at="nodes", dtype=F64)
    assert u[:, :, 0].abs().max() < 1e-15
    series = fields._Series(grid, ("dirichlet", "neumann"), None, "nodes", "cpu")
    assert series.table(1, "nodes", "exact")[0].abs().max() == 0
    assert fields._Series(grid, "dirichlet", None, "nodes", "cpu").counts == (15, 11)
    assert fields._Series(grid, "neumann", None, "nodes", "cpu").counts == (16, 12)
    assert fields._Series(grid, "periodic", None, "nodes", "cpu").counts == (15, 11)


@pytest.mark.parametrize("kind", ["periodic", "neumann", "dirichlet"])
def test_the_functions_are_orthonormal(kind):
    series = fields._Series(Grid(16, 3.0, 1.0), kind, 7, "centres", "cpu")
    table = series.table(0, "centres")
    torch.testing.assert_close(table.T @ table / 16, torch.eye(table.shape[1], dtype=F64), rtol=0, atol=1e-13)


def test_the_constant_mode_is_dropped_or_kept():
    u = gaussian_field(0, torch.arange(500), Grid(16), power_law(1.0, 1.0), dtype=F64)
    assert u.mean(-1).abs().max() < 1e-14
    v = gaussian_field(0, torch.arange(500), Grid(16), power_law(1.0, 1.0), dtype=F64, mean=True)
    torch.testing.assert_close(v - v.mean(-1, keepdim=True), u, rtol=0, atol=1e-13)
    assert v.mean(-1).var().item() == pytest.approx(1.0, rel=0.2)


def test_no_modes_but_the_constant():
    u = gaussian_field(0, torch.arange(2), Grid((4, 5)), power_law(1.0, 1.0), modes=0, mean=True, dtype=F64)
    assert torch.equal(u, u[..., :1, :1].expand_as(u))
    assert u.abs().min() > 0
    assert gaussian_field(0, torch.arange(2), Grid(4), SMOOTH, modes=1, kind="dirichlet").abs().min() > 0


def test_spectra():
    k = torch.linspace(0.5, 20.0, 4000, dtype=F64)[None, None]
    flat = k.flatten()
    assert torch.equal(fields.band(2.0, 5.0, 3.0)(k), 3.0 * ((k >= 2) & (k <= 5)))
    third = TWO_PI / 3.0
    assert fields.band(0.0, 3 * third)(torch.tensor([[3 * third * (1 + 1e-12)]], dtype=F64)).item() == 1
    for dims in (1, 2, 3):
        shape = (fields.lognormal(4.0, dims)(k) * k ** (dims - 1)).flatten()
        assert flat[shape.argmax()].item() == pytest.approx(4.0, abs=0.01)
        # A log-normal density whose logarithm has variance 1/4.
        expected = torch.exp(-((math.log(4.0) + 0.25 - flat.log()) ** 2) / 0.5) / flat
        torch.testing.assert_close(shape, expected)
    energy = (fields.mcwilliams(4.0)(k).square() * k).flatten()
    assert flat[energy.argmax()].item() == pytest.approx(4.0, abs=0.01)
    torch.testing.assert_close(energy, flat / (1 + flat**4 / (3 * 4.0**4)))
    torch.testing.assert_close(power_law(3.0, 2.0, 5.0)(k), 5.0 * (k**2 + 4.0) ** -1.5)
    torch.testing.assert_close(fields.shell_energy(lambda k: k**2, 3)(k), torch.ones_like(k))


def test_the_parameters_of_a_spectrum_may_differ_by_sample_and_have_gradients():
    grid = Grid((6, 5))
    samples = torch.arange(3)
    lengths = torch.tensor([0.1, 0.2, 0.4], dtype=F64, requires_grad=True)
    u = gaussian_field(0, samples, grid, matern(grid, lengths, 1.5), dtype=F64)
    for i in range(3):
        alone = gaussian_field(0, samples[i : i + 1], grid, matern(grid, lengths[i].item(), 1.5), dtype=F64)
        torch.testing.assert_close(u[i : i + 1], alone)
    assert torch.autograd.gradcheck(
        lambda a: gaussian_field(0, samples, grid, matern(grid, a, math.inf), dtype=F64), lengths
    )
    assert torch.autograd.gradcheck(
        lambda a, t, s: fields.solenoidal_field(0, samples, grid, power_law(a, t, s), dtype=F64, speed=s),
        [(1.0 + torch.rand(3, dtype=F64)).requires_grad_() for _ in range(3)],
    )


def test_fourier_series_is_the_stated_sum_with_uniform_coefficients():
    grid = Grid(16, 3.0)
    u = fields.fourier_series(0, torch.arange(3000), grid, 3, bounds=(0.5, 2.0), dtype=F64, at="nodes")
    c = fourier.coefficients(u, 1)[:, 0]
    a, b = 2 * c[:, 1:4].real, -2 * c[:, 1:4].imag
    assert c[:, [0, 4, 5, 6, 7, 8]].abs().max() < 1e-14
    for part in (a, b):
        assert 0.5 <= part.min() < 0.51
        assert 1.99 < part.max() <= 2.0
        assert part.mean().item() == pytest.approx(1.25, abs=0.02)
        assert part.var().item() == pytest.approx(1.5**2 / 12, rel=0.05)
    plain = fields.fourier_series(0, torch.arange(3000), grid, 3, dtype=F64, at="nodes")
    # The same draws in the default bounds, -1 and 1.
    torch.testing.assert_close(fourier.coefficients(plain, 1)[:, 0, 1:4].real, (2 * (a - 0.5) / 1.5 - 1) / 2)
    damped = fields.fourier_series(
        0, torch.arange(9), grid, 3, bounds=(0.5, 2.0), spectrum=lambda k: 1 / k, dtype=F64, at="nodes"
    )
    k = TWO_PI * torch.arange(1, 4) / 3.0
    torch.testing.assert_close(fourier.coefficients(damped, 1)[:, 0, 1:4] * k, c[:9, 1:4])


def divergence(v: torch.Tensor, grid: Grid) -> torch.Tensor:
    return sum(
        fourier.field(
            fourier.derivative_symbol(grid.size, [int(j == k) for k in range(grid.dims)], grid.length)
            * fourier.coefficients(v[:, j], grid.dims),
            grid.size,
        )
        for j in range(grid.dims)
    )


@pytest.mark.parametrize("grid", [Grid((15, 12), (2.0, 1.0)), Grid((8, 9, 10), (1.0, 2.0, 3.0), 0.5)])
def test_solenoidal_fields_have_no_divergence(grid):
    def make(**kw):
        return fields.solenoidal_field(0, torch.arange(4), grid, power_law(2.0), dtype=F64, **kw)

    v = make(at="nodes")
    assert divergence(v, grid).abs().max() < 1e-12 * v.abs().max()
    assert make().shape == (4, grid.dims, *grid.size)
    w = make(staggered=True)
    difference = sum((w[:, j].roll(-1, 1 + j) - w[:, j]) / grid.spacing[j] for j in range(grid.dims))
    assert difference.abs().max() < 1e-12 * w.abs().max()
    assert divergence(w, grid).abs().max() > 1e-3
    # On the faces stands the same flow, up to the differences' error.
    fine = Grid(tuple(4 * n for n in grid.size[:2]), grid.length[:2])

    def smooth(**kw):
        return fields.solenoidal_field(0, torch.arange(2), fine, fields.band(0, 9.0), dtype=F64, **kw)

    faces, nodes = smooth(staggered=True), smooth(at="nodes")
    shifted = torch.stack([(faces[:, 0] + faces[:, 0].roll(1, 2)) / 2, (faces[:, 1] + faces[:, 1].roll(1, 1)) / 2], 1)
    torch.testing.assert_close(shifted, nodes, rtol=0, atol=0.03 * nodes.abs().max().item())


def test_solenoidal_fields_have_the_law_of_projected_noise():
    grid, count = Grid((6, 6, 6)), 3000
    v = fields.solenoidal_field(0, torch.arange(count), grid, power_law(1.0, 4.0), dtype=F64, at="nodes")
    c = fourier.coefficients(v, 3)[:, :, 1, -2, 2]
    k = TWO_PI * torch.tensor([1.0, -2.0, 2.0], dtype=F64)
    law = torch.einsum("bi,bj->ij", c, c.conj()) / count * (k.square().sum() + 16.0)
    projection = torch.eye(3, dtype=F64) - torch.outer(k, k) / k.square().sum()
    torch.testing.assert_close(law.real, projection, rtol=0, atol=0.1)
    assert law.imag.abs().max() < 0.1
    plane = fields.solenoidal_field(0, torch.arange(count), Grid((6, 6)), power_law(1.0, 4.0), dtype=F64, at="nodes")
    q = fourier.coefficients(plane, 2)[:, :, 1, 2]
    power = q.abs().square().mean(0).sum() * (TWO_PI**2 * 5 + 16.0)
    assert power.item() == pytest.approx(1.0, abs=0.1)


def test_the_curl_turns_the_right_way():
    grid = Grid((12, 12), TWO_PI)
    series = fields._Series(grid, "periodic", None, "nodes", "cpu")
    z = series.normals(fields.fold_in(0, "potential"), torch.arange(1), 1)
    psi = series.field(z * series.sigma(lambda k: power_law(3.0)(k) / k))
    v = fields.solenoidal_field(0, torch.arange(1), grid, power_law(3.0), at="nodes", dtype=F64)
    dx, dy = (fourier.derivative_symbol((12, 12), order) for order in ((1, 0), (0, 1)))
    c = fourier.coefficients(psi, 2)
    torch.testing.assert_close(v, fourier.field(torch.cat([dy * c, -dx * c], 1), (12, 12)))


def test_speed_and_walls_of_solenoidal_fields():
    grid = Grid((16, 16))
    speed = torch.tensor([1.0, 7.0], dtype=F64)
    v = fields.solenoidal_field(0, torch.arange(2), grid, power_law(2.0), speed=speed, dtype=F64)
    torch.testing.assert_close(v.square().sum(1).sqrt().flatten(1).amax(1), speed)
    walled = fields.solenoidal_field(0, torch.arange(2), grid, power_law(2.0), kind="dirichlet", at="nodes")
    assert walled[:, 0, 0].abs().max() < 1e-6
    assert walled[:, 1, :, 0].abs().max() < 1e-6
    assert walled[:, 1, 0].abs().max() > 1e-2


def test_bumps_against_the_sum():
    grid = Grid((6, 5, 4), (1.0, 2.0, 1.5), (0.0, -1.0, 0.5))
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(shape, generator=generator, dtype=F64)

    centre = draw(2, 3, 3) * torch.tensor(grid.length, dtype=F64) + torch.tensor(grid.origin, dtype=F64)
    width, height = 0.1 + 0.1 * draw(2, 3), draw(2, 3) - 0.5
    mesh = grid.mesh()
    for periodic in (False, True):
        u = fields.gaussian_bumps(grid, centre, width, height, periodic=periodic)
        expected = torch.zeros(2, *grid.size, dtype=F64)
        shifts = list(itertools.product((-1, 0, 1), repeat=3)) if periodic else [(0, 0, 0)]
        for b, i, shift in itertools.product(range(2), range(3), shifts):
            middle = centre[b, i] + torch.tensor(shift, dtype=F64) * torch.tensor(grid.length, dtype=F64)
            square = (mesh - middle.view(3, 1, 1, 1)).square().sum(0)
            expected[b] += height[b, i] * torch.exp(-square / (2 * width[b, i] ** 2))
        torch.testing.assert_close(u[:, 0], expected)


def test_blobs_stay_in_their_ranges():
    grid = Grid(4000, 2.0, -1.0)
    u = fields.blobs(0, torch.arange(200), grid, 1, width=(0.02, 0.05), amplitude=(1.0, 3.0), dtype=F64)[:, 0]
    height = u.amax(1)
    width = u.sum(1) * grid.cell / height / math.sqrt(TWO_PI)
    assert 1.0 <= height.min() < 1.05
    assert 2.95 < height.max() <= 3.0
    assert 0.02 < width.min() < 0.021
    assert 0.049 < width.max() < 0.0501
    place = u.argmax(1) / 4000
    assert place.min() < 0.03
    assert place.max() > 0.97


def test_phases():
    u = torch.tensor([[-2.0, -1.0, 0.5, 3.0], [4.0, 1.0, 2.0, 3.0]])[:, None]
    assert fields.phases(u, [3.0, 12.0]).tolist() == [[[3, 3, 12, 12]], [[12, 12, 12, 12]]]
    assert fields.phases(u, [1, 2, 3], levels=[-1.5, 1.5])[0, 0].tolist() == [1, 2, 2, 3]
    assert fields.phases(u, [1, 2], fractions=[0.75, 0.25])[:, 0].tolist() == [[1, 1, 1, 2], [2, 1, 1, 1]]
    v = gaussian_field(0, torch.arange(3), Grid((32, 32)), SMOOTH, channels=2)
    shares = fields.phases(v, [0.0, 1.0, 2.0], fractions=[0.25, 0.25, 0.5])
    for value, share in enumerate((0.25, 0.25, 0.5)):
        assert ((shares == value).float().mean((2, 3)) == share).all()


def test_rescale():
    u = torch.tensor([[[1.0, 2.0, 5.0], [7.0, 7.0, 7.0]]])
    assert fields.rescale(u, 10, 14).tolist() == [[[10, 11, 14], [10, 10, 10]]]
    assert fields.rescale(u)[0, 0].tolist() == [0, 0.25, 1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: gaussian_field(0, s, Grid(8), SMOOTH, kind="open"), "kind must be 'periodic', .* got 'open'"),
        (lambda s: gaussian_field(0, s, Grid((8, 8)), SMOOTH, kind=("periodic",)), "one or 2"),
        (lambda s: gaussian_field(0, s, Grid(8), SMOOTH, modes=4), "modes must be from 0 .* to 3 for 8 points, got 4"),
        (lambda s: gaussian_field(0, s, Grid(8), SMOOTH, modes=-1), "modes must be from 0"),
        (lambda s: gaussian_field(0, s, Grid(8), SMOOTH, kind="neumann", modes=8), "to 7 for 8 points, got 8"),
        (lambda s: gaussian_field(0, s, Grid(8), SMOOTH, kind="dirichlet", modes=0), "walls of value zero: 1"),
        (
            lambda s: gaussian_field(0, s, Grid(8), SMOOTH, at="corners"),
            "at must be 'centres' or 'nodes', got 'corners'",
        ),
        (lambda s: gaussian_field(0, s, Grid(8), SMOOTH, channels=64), "channels must be from 1 to 63, got 64"),
        (lambda s: gaussian_field(0, s, Grid(8), power_law(2.0), mean=True), "spectrum must be finite at all modes"),
        (lambda s: gaussian_field(0, s - 5, Grid(8), SMOOTH), "samples must not be negative"),
        (lambda s: matern(Grid(8), 0.0), "length and smoothness must be positive, got 0.0 and 1.5"),
        (lambda s: matern(Grid(8), 0.1, 0.0), "length and smoothness must be positive"),
        (lambda s: matern(Grid(8), 0.1, -1.0), "length and smoothness must be positive"),
        (lambda s: fields.fourier_series(0, s, Grid(8), 2, bounds=(1.0, 0.0)), "bounds must be .* got .1.0, 0.0"),
        (lambda s: fields.solenoidal_field(0, s, Grid(8), SMOOTH), "grid must have two axes, or three periodic ones"),
        (lambda s: fields.solenoidal_field(0, s, Grid((8, 8, 8)), SMOOTH, kind="dirichlet"), "three periodic ones"),
        (
            lambda s: fields.solenoidal_field(0, s, Grid((8, 8)), fields.band(100.0, 200.0), speed=1.0),
            "spectrum must not vanish at all modes",
        ),
        (lambda s: fields.blobs(0, s, Grid(8), 0, width=(0.1, 0.2)), "count must be positive"),
        (lambda s: fields.blobs(0, s, Grid(8), 1, width=(0.2, 0.1)), "width 0 < low <= high, got 1 and .0.2, 0.1"),
        (
            lambda s: fields.gaussian_bumps(Grid(8), torch.zeros(1, 1, 2), torch.ones(1, 1), torch.ones(1, 1)),
            "centre must have 1 coordinates, got 2",
        ),
        (lambda s: fields.phases(torch.zeros(1, 1, 4), [1, 2], levels=[0], fractions=[0.5, 0.5]), "not both be given"),
        (
            lambda s: fields.phases(torch.zeros(1, 1, 4), [1, 2], fractions=[0.5, 0.6]),
            "2 positive numbers that sum to 1",
        ),
        (lambda s: fields.phases(torch.zeros(1, 1, 4), [1, 2, 3]), "levels must be 2 rising numbers"),
        (lambda s: fields.phases(torch.zeros(1, 1, 4), [1, 2, 3], levels=[1, 0]), "levels must be 2 rising numbers"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.arange(2))

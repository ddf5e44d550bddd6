"""Each equation against what is known of it: exact solutions, conservation, published numbers, a solver of another kind."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pdebook.diffeq.controllers import PID
from pdebook.diffeq.solve import solve
from pdebook.diffeq.terms import ODE
from pdebook.pde import exact
from pdebook.pde.equation import Semilinear
from pdebook.pde.equations import (
    EQUATIONS,
    Advection,
    AllenCahn,
    Burgers,
    Diffusion,
    FisherKPP,
    FitzHughNagumo,
    GrayScott,
    KortewegDeVries,
    KuramotoSivashinsky,
    ReactionDiffusion,
)
from pdebook.pde.grid import Grid
from pdebook.pde.navier_stokes import NavierStokes, Vorticity
from pdebook.pde.semilinear import Stepper

TWO_PI = 2 * math.pi


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def smooth(grid: Grid, channels: int, batch: int = 1) -> Tensor:
    """A few waves of size one."""
    parts = grid.coordinates("nodes")
    result = torch.zeros(batch, channels, *grid.size, dtype=torch.float64)
    for b in range(batch):
        for c in range(channels):
            phase = sum(
                (1 + (b + c + axis) % 2) * TWO_PI * x / side + axis
                for axis, (x, side) in enumerate(zip(parts, grid.length, strict=True))
            )
            result[b, c] = 0.5 * torch.sin(phase) + 0.3 * torch.cos(TWO_PI * parts[0] / grid.length[0] + b + c)
    return result


@pytest.mark.parametrize(
    "equation",
    [
        Advection(Grid(12), 0.7, 0.01),
        Diffusion(Grid((12, 12)), 0.02),
        Burgers(Grid(12), 0.02),
        Burgers(Grid((12, 12)), 0.02),
        Burgers(Grid((6, 6, 6)), 0.02),
        KortewegDeVries(Grid(12, 10.0), 3.0, 0.5, 0.01),
        KortewegDeVries(Grid((12, 12), 10.0), 3.0, 0.5, 0.01),
        KuramotoSivashinsky(Grid(12, 20.0)),
        KuramotoSivashinsky(Grid((12, 12), 20.0)),
        AllenCahn(Grid(12), 1e-3, 2.0),
        FisherKPP(Grid(12), 1e-3, 2.0),
        FitzHughNagumo(Grid((12, 12), 2.0)),
        GrayScott(Grid(12), (1e-3, 2e-3)),
        Vorticity(Grid((12, 12)), 1e-2, drag=0.1, beta=2.0),
        NavierStokes(Grid((12, 12)), 1e-2, drag=0.1),
        NavierStokes(Grid((6, 6, 6)), 1e-2),
    ],
    ids=lambda equation: f"{type(equation).__name__}{equation.grid.size}",
)
def test_an_adaptive_runge_kutta_method_agrees(equation: Semilinear) -> None:
    """It sees nothing but the right-hand side."""
    u = equation.basis.truncate(smooth(equation.grid, equation.channels, 2))
    u = equation.basis.leray(u) if isinstance(equation, NavierStokes) else u
    term = ODE(lambda t, y: equation.rhs(y, float(t[0])))
    other = solve(term, u, 0.0, 0.2, solver="dopri8", controller=PID(1e-9, 1e-10)).ys
    torch.testing.assert_close(Stepper(equation, 0.01).rollout(u, 20, 20)[:, 0], other, rtol=1e-6, atol=1e-7)


def test_advection_shifts_and_diffusion_spreads() -> None:
    grid = Grid((32, 16), (1.0, 2.0))
    parts = grid.coordinates("nodes")

    def profile(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(torch.sin(TWO_PI * x) + torch.cos(math.pi * y))

    speeds = torch.tensor([0.3, -1.1], dtype=torch.float64)
    u = profile(*parts)[None, None].expand(2, 1, -1, -1)
    moved = Stepper(Advection(grid, (speeds, 0.7)), 0.25).rollout(u, 4, 4)[:, 0]
    for i in (0, 1):
        truth = exact.advected(profile, parts, 1.0, [float(speeds[i]), 0.7], grid.length)
        torch.testing.assert_close(moved[i, 0], truth, rtol=0, atol=1e-5)
    grid = Grid((64, 64), 2.0)
    parts = grid.coordinates("nodes")
    start, end = (exact.heat_kernel(parts, t, 0.1, 0.15, grid.length, (0.3, 1.1))[None, None] for t in (0.0, 0.5))
    torch.testing.assert_close(Stepper(Diffusion(grid, 0.1), 0.5).step(start), end, rtol=0, atol=1e-9)
    both = Stepper(Advection(grid, 0.4, 0.1), 0.5).step(start)
    shifted = exact.heat_kernel(parts, 0.5, 0.1, 0.15, grid.length, (0.5, 1.3))[None, None]
    torch.testing.assert_close(both, shifted, rtol=0, atol=1e-9)


def test_dealiasing_keeps_the_energy() -> None:
    """∫u² of the inviscid equation, before the shock at t = 1/2π."""
    grid = Grid(64)
    (x,) = grid.coordinates("nodes")
    u = (torch.sin(TWO_PI * x) + 0.5 * torch.cos(2 * TWO_PI * x))[None, None]
    drift = {}
    for dealias in (True, False):
        end = Stepper(Burgers(grid, 0.0, dealias=dealias), 0.001).rollout(u, 100, 100)[:, 0]
        drift[dealias] = abs(float(end.square().mean() / u.square().mean()) - 1)
    assert drift[True] < 1e-8
    assert drift[False] > 10 * drift[True]
    assert drift[False] > 1e-7


@pytest.mark.parametrize("axis", [0, 1])
def test_a_line_in_the_plane(axis: int) -> None:
    line, plane = Grid(24, 2.0), Grid((24, 18) if axis == 0 else (18, 24), 2.0)
    u = smooth(line, 1)
    wide = torch.zeros(1, 2, *plane.size, dtype=torch.float64)
    wide[:, axis] = u[:, 0, :, None] if axis == 0 else u[:, 0, None]
    for make in (lambda g: Burgers(g, 0.05), lambda g: KortewegDeVries(g, 3.0, 0.01, 1e-4)):
        truth = Stepper(make(line), 0.01).rollout(u, 10, 10)[:, 0]
        result = Stepper(make(plane), 0.01).rollout(wide, 10, 10)[:, 0]
        got = result[:, axis, :, 3] if axis == 0 else result[:, axis, 3]
        torch.testing.assert_close(got, truth[:, 0], rtol=1e-9, atol=1e-10)
        assert result[:, 1 - axis].abs().max() < 1e-12
    single = torch.zeros(1, 1, *plane.size, dtype=torch.float64) + wide[:, axis : axis + 1]
    truth = Stepper(KuramotoSivashinsky(Grid(24, 2.0), "gradient"), 1e-3).rollout(u, 5, 5)[:, 0]
    result = Stepper(KuramotoSivashinsky(plane), 1e-3).rollout(single, 5, 5)[:, 0]
    torch.testing.assert_close(result[:, 0, :, 3] if axis == 0 else result[:, 0, 3], truth[:, 0])


@pytest.mark.parametrize("size", [(18, 16), (16, 18, 16)])
def test_every_component_is_carried_along_every_axis(size: tuple[int, ...]) -> None:
    grid = Grid(size)
    equation = Burgers(grid, 0.02)
    u = smooth(grid, grid.dims)
    basis = equation.whole
    carried = (basis.jacobian(u) * u.unsqueeze(1)).sum(2)
    torch.testing.assert_close(equation.rhs(u), 0.02 * basis.laplacian(u) - carried)
    convection = KortewegDeVries(grid, 3.0, 0.0)
    torch.testing.assert_close(convection.rhs(u), -3.0 * carried)


def test_rates_of_gray_and_scott() -> None:
    grid = Grid((8, 8))
    u = torch.tensor([0.7, 0.3], dtype=torch.float64)[None, :, None, None].expand(1, 2, 8, 8)
    rate = GrayScott(grid, feed=0.04, kill=0.06).rhs(u)[0, :, 0, 0].tolist()
    assert rate == pytest.approx([0.04 * 0.3 - 0.7 * 0.09, 0.7 * 0.09 - 0.1 * 0.3])


def test_solitons_pass_each_other() -> None:
    grid = Grid(256, 50.0, -25.0)
    (x,) = grid.coordinates("nodes")
    start, end = (exact.kdv_solitons(x, t, (1.4, 0.8), (-8.0, -4.0))[None, None] for t in (0.0, 5.0))
    result = Stepper(KortewegDeVries(grid), 0.008).rollout(start, 625, 625)[:, 0]
    assert (result - end).abs().max() < 1e-6 * end.abs().max()
    assert float(result.mean() / start.mean()) == pytest.approx(1.0, abs=1e-12)
    assert float(result.square().mean() / start.square().mean()) == pytest.approx(1.0, abs=1e-7)


def test_kuramoto_sivashinsky_converges_as_published() -> None:
    """Relative errors at T = 20 of Kassam and Trefethen's start, against a fine step."""
    grid = Grid(128, 32 * math.pi)
    (x,) = grid.coordinates("nodes")
    u = (torch.cos(x / 16) * (1 + torch.sin(x / 16)))[None, None]
    equation = KuramotoSivashinsky(grid)
    fine = Stepper(equation, 1 / 32).rollout(u, 640, 640)[:, 0]
    for dt, error in ((1 / 4, 5.0e-6), (1 / 8, 7.7e-7)):
        steps = round(20 / dt)
        measured = float((Stepper(equation, dt).rollout(u, steps, steps)[:, 0] - fine).abs().max() / fine.abs().max())
        assert error / 2 < measured < 2 * error


def test_the_slope_of_one_form_solves_the_other() -> None:
    grid = Grid(64, 22.0)
    u = 0.7 + smooth(grid, 1)
    height = Stepper(KuramotoSivashinsky(grid, "gradient"), 0.01)
    slope = Stepper(KuramotoSivashinsky(grid), 0.01)
    end = height.rollout(u, 100, 100)[:, 0]
    torch.testing.assert_close(
        height.equation.basis.gradient(end), slope.rollout(slope.equation.basis.gradient(u), 100, 100)[:, 0]
    )
    assert float(end.mean()) == pytest.approx(float(u.mean()), abs=1e-12)


def test_homogeneous_reactions_follow_their_ordinary_equations() -> None:
    grid, t = Grid((8, 8)), 1.5
    u0 = torch.tensor([0.1, 0.9], dtype=torch.float64)[:, None, None, None].expand(2, 1, 8, 8)
    rate = torch.tensor([1.0, 2.0], dtype=torch.float64)
    r = rate[:, None, None, None]
    grown = Stepper(FisherKPP(grid, 0.1, rate), 0.03).rollout(u0, 50, 50)[:, 0]
    torch.testing.assert_close(grown, 1 / (1 + (1 / u0 - 1) * torch.exp(-r * t)), rtol=1e-7, atol=1e-8)
    split = Stepper(AllenCahn(grid, 0.1, rate), 0.03).rollout(u0, 50, 50)[:, 0]
    power = torch.exp(2 * r * t)
    torch.testing.assert_close(split, u0 * (power / (1 + u0.square() * (power - 1))).sqrt(), rtol=1e-7, atol=1e-8)


def test_the_fisher_front_is_the_known_one() -> None:
    grid = Grid(512, 160.0, -80.0)
    (x,) = grid.coordinates("nodes")
    # A front and its mirror image, far apart.
    start, end = (exact.fisher_wave(x.abs() - 20.0, t)[None, None] for t in (0.0, 8.0))
    result = Stepper(FisherKPP(grid), 0.04).rollout(start, 200, 200)[:, 0]
    # The start's kink at 0 is as small as 1 - u there.
    torch.testing.assert_close(result, end, rtol=0, atol=2e-4)
    width = [float((u > 0.5).double().mean()) * 160 for u in (start, result)]
    assert (width[1] - width[0]) / 2 / 8.0 == pytest.approx(5 / math.sqrt(6), rel=0.02)


def test_an_interface_of_allen_and_cahn_stands_still() -> None:
    grid = Grid(384, 20.0, -10.0)
    (x,) = grid.coordinates("nodes")
    wall = torch.tanh((5.0 - x.abs()) / math.sqrt(2 * 0.1))[None, None]
    result = Stepper(AllenCahn(grid, 0.1), 0.05).rollout(wall, 40, 40)[:, 0]
    torch.testing.assert_close(result, wall, rtol=0, atol=1e-7)


def test_gray_scott_and_fitzhugh_nagumo_have_their_rest_states() -> None:
    grid = Grid((8, 8))
    rest = torch.tensor([1.0, 0.0], dtype=torch.float64)[None, :, None, None].expand(1, 2, 8, 8)
    torch.testing.assert_close(Stepper(GrayScott(grid), 1.0).step(rest), rest, rtol=0, atol=1e-13)
    # u = v where u³ = -k.
    level = torch.full((1, 2, 8, 8), -(0.027 ** (1 / 3)), dtype=torch.float64)
    torch.testing.assert_close(
        Stepper(FitzHughNagumo(grid, threshold=0.027), 0.5).step(level), level, rtol=0, atol=1e-12
    )


def test_the_registry() -> None:
    for kind in EQUATIONS.values():
        equation = kind(Grid(12))
        u = 0.1 * smooth(Grid(12), equation.channels)
        assert Stepper(equation, 1e-3).rollout(u, 2).isfinite().all()
        assert kind.__doc__ is not None
        assert "u_t" in kind.__doc__


GRID = Grid(12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Advection(GRID, (1.0, 2.0)), "velocity must be one or 1, one for each axis, got 2"),
        (lambda: Advection(GRID, math.nan), r"velocity\[0\] must be finite, got nan"),
        (lambda: Advection(GRID, 1.0, -1.0), "diffusivity must be finite and not negative"),
        (lambda: Diffusion(GRID, -1.0), "diffusivity must be finite and not negative"),
        (lambda: Burgers(GRID, -1.0), "viscosity must be finite and not negative"),
        (lambda: KortewegDeVries(GRID, math.inf), "convection must be finite"),
        (lambda: KortewegDeVries(GRID, 1.0, math.inf), "dispersion must be finite"),
        (lambda: KortewegDeVries(GRID, 1.0, 1.0, -1.0), "hyperdiffusion must be finite and not negative"),
        (lambda: KuramotoSivashinsky(Grid((12, 12)), "convection"), "form must be 'gradient', .* got 'convection'"),
        (lambda: KuramotoSivashinsky(GRID, "integral"), "form must be 'gradient', .* got 'integral'"),
        (lambda: AllenCahn(GRID, -1.0), r"diffusivity\[0\] must be finite and not negative"),
        (lambda: AllenCahn(Grid(4)), "size must exceed 4"),
        (lambda: FisherKPP(GRID, 1.0, math.nan), "must be finite, got nan"),
        (lambda: FitzHughNagumo(GRID, (1.0,)), "diffusivity must hold 2 numbers, got 1"),
        (lambda: FitzHughNagumo(GRID, threshold=math.nan), "threshold must be finite"),
        (lambda: GrayScott(GRID, (1.0, 1.0, 1.0)), "diffusivity must hold 2 numbers, got 3"),
        (lambda: GrayScott(GRID, feed=-0.1), "feed must be finite and not negative"),
        (lambda: GrayScott(GRID, kill=math.nan), "must be finite"),
        (
            lambda: ReactionDiffusion(GRID, [0.1, 0.1], [[0.0, 1.0]], degree=2),
            "exchange must hold 2 rows of 2 numbers",
        ),
        (
            lambda: ReactionDiffusion(GRID, [0.1], [[0.0, 1.0]], degree=2),
            "exchange must hold 1 rows of 1 numbers",
        ),
    ],
)
def test_bad_input_is_named(call, words) -> None:
    with pytest.raises(ValueError, match=words):
        call()

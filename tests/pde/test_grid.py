"""Grids and ghost cells: linear fields are continued exactly, mirrored ones by symmetry."""

import pytest
import torch

from pdebook.pde import boundary as bc
from pdebook.pde.grid import Grid


def line(grid: Grid, slope: float = 2.0, level: float = 3.0) -> torch.Tensor:
    (x,) = grid.coordinates()
    return (level + slope * x)[None, None]


def test_coordinates_of_cells_nodes_and_faces():
    grid = Grid((4, 2), (2.0, 1.0), (-1.0, 0.0))
    x, y = grid.coordinates()
    assert x.flatten().tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert y.flatten().tolist() == [0.25, 0.75]
    assert grid.coordinates("nodes")[0].flatten().tolist() == [-1.0, -0.5, 0.0, 0.5]
    faces = grid.mesh(face=1, dtype=torch.float32)
    assert faces.shape == (2, 4, 2)
    assert faces.dtype == torch.float32
    assert faces[1, 0].tolist() == [0.0, 0.5]
    assert faces[0, :, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert grid.spacing == (0.5, 0.5)
    assert grid.cell == 0.25
    assert grid.coarser(2) == Grid((2, 1), (2.0, 1.0), (-1.0, 0.0))
    assert Grid(5, 2) == Grid((5,), (2.0,), (0.0,))


def test_periodic_ghosts_are_the_other_end():
    u = torch.arange(5.0).view(1, 1, 5)
    assert bc.pad(u, 2, bc.Periodic(), (1.0,)).flatten().tolist() == [3, 4, 0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_lines_are_continued_exactly_by_values_slopes_and_extrapolation(width):
    grid = Grid(6, 3.0, 1.0)
    u = line(grid)
    wide = Grid(6 + 2 * width, 3.0 * (6 + 2 * width) / 6, 1.0 - width * grid.spacing[0])
    for pair in [
        (bc.dirichlet(3.0 + 2.0 * 1.0), bc.neumann(2.0)),
        (bc.neumann(-2.0), bc.dirichlet(lambda t: 3.0 + 2.0 * 4.0 * t)),
        (bc.Robin(0.7, 0.3, 0.7 * 5.0 - 0.3 * 2.0), bc.Robin(1.5, -0.4, 1.5 * 11.0 - 0.4 * 2.0)),
        (bc.Outflow(1), bc.Outflow(1)),
    ]:
        torch.testing.assert_close(bc.pad(u, width, [pair], grid.spacing, t=1.0), line(wide))


def test_a_value_may_differ_by_sample_channel_and_place():
    u = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    value = torch.randn(2, 3, 1, 5, dtype=torch.float64)
    padded = bc.pad(u, 1, [bc.dirichlet(value), bc.neumann()], (1.0, 1.0))
    torch.testing.assert_close(padded[:, :, :1, 1:-1], 2 * value)
    torch.testing.assert_close(padded[:, :, -1:, 1:-1], 2 * value)
    assert bc.pad(u, 1, bc.dirichlet(lambda t: t * value), (1.0, 1.0), axes=[0], t=0.5).shape == (2, 3, 6, 5)


def test_values_along_a_side_are_continued_over_ghosts_of_other_axes():
    u = torch.zeros(1, 1, 4, 5, dtype=torch.float64)
    along = torch.arange(1.0, 5.0, dtype=torch.float64).view(1, 1, 4, 1)
    wrapped = bc.pad(u, 1, [bc.Periodic(), (bc.Ghost(along), bc.dirichlet(along))], (1.0, 1.0))
    assert wrapped[0, 0, :, 0].tolist() == [4, 1, 2, 3, 4, 1]
    assert wrapped[0, 0, :, -1].tolist() == [8, 2, 4, 6, 8, 2]
    held = bc.pad(u, 2, [bc.Outflow(), (bc.Ghost(lambda t: t * along[0]), bc.Wall())], (1.0, 1.0), t=2.0)
    assert held[0, 0, :, 0].tolist() == [2, 2, 2, 4, 6, 8, 8, 8]
    with pytest.raises(ValueError, match="broadcast to a side's"):
        bc.pad(u, 1, [bc.Periodic(), (bc.Ghost(along.mT), bc.Outflow())], (1.0, 1.0))


def test_outflow_copies_and_ghosts_are_given():
    u = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 3)
    assert bc.pad(u, 2, [(bc.Outflow(), bc.Ghost(7.0))], (1.0,)).flatten().tolist() == [1, 1, 1, 2, 4, 7, 7]
    assert bc.pad(u, 2, [(bc.Ghost(lambda t: t), bc.Outflow(1))], (1.0,), t=9.0).flatten().tolist() == [
        9,
        9,
        1,
        2,
        4,
        6,
        8,
    ]


def test_walls_mirror_and_turn_the_normal_velocity_only():
    u = torch.arange(1.0, 13.0).view(1, 2, 2, 3)
    padded = bc.pad(u, 1, bc.Wall(), (1.0, 1.0), odd=[(1,), ()])
    assert torch.equal(padded[0, 0, :, 1:-1], u[0, 0][[0, 0, 1, 1]])
    assert torch.equal(padded[0, 1, :, 1:-1], u[0, 1][[0, 0, 1, 1]] * torch.tensor([[-1.0], [1.0], [1.0], [-1.0]]))
    assert torch.equal(padded[0, 1, 1:-1], u[0, 1][:, [0, 0, 1, 2, 2]])
    deep = bc.pad(torch.arange(4.0).view(1, 1, 4), 3, bc.Wall(), (1.0,), odd=[(0,)])
    assert deep.flatten().tolist() == [-2, -1, 0, 0, 1, 2, 3, -3, -2, -1]


def test_padding_has_gradients_in_field_and_boundary_value():
    u = torch.randn(2, 1, 4, dtype=torch.float64, requires_grad=True)
    g = torch.randn(2, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, g: bc.pad(u, 2, [(bc.Robin(1.0, 0.5, g), bc.Ghost(g))], (0.3,)), (u, g))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Grid(()), "size must hold a positive integer"),
        (lambda: Grid((2, 2, 2, 2)), "at most three axes"),
        (lambda: Grid((2, 2), (1.0,)), "length must be positive, one number or 2"),
        (lambda: Grid(2, 0.0), "length must be positive"),
        (lambda: Grid(2, 1.0, float("nan")), "origin must be finite"),
        (lambda: Grid(2).coordinates("corners"), "at must be 'centres' or 'nodes', got 'corners'"),
        (lambda: Grid(2).coordinates(face=1), "face must be an axis from 0 to 0, got 1"),
        (lambda: Grid(3).check(torch.zeros(1, 1, 4)), r"u must have shape \(batch, channel, 3\), got \(1, 1, 4\)"),
        (lambda: Grid(3).check(torch.zeros(1, 1, 3), "start", 2), r"start must have shape \(batch, 2, 3\)"),
        (lambda: Grid(3).check(torch.zeros(1, 1, 3, dtype=torch.int64)), "floating-point, got torch.int64"),
        (lambda: Grid((4, 6)).coarser(4), r"divisor of the size \(4, 6\), got 4"),
        (lambda: bc.Outflow(2), "order of an outflow must be 0 or 1"),
        (lambda: bc.Robin(0.0, 0.0), "not both zero"),
        (lambda: bc.paired([bc.Periodic()], 2), "one or 2, an entry for each axis, got 1"),
        (lambda: bc.paired("periodic", 1), "got str"),
        (lambda: bc.paired([(bc.Periodic(), bc.Wall())], 1), "periodic on both sides"),
        (lambda: bc.paired([(bc.Wall(),) * 3], 1), "lower and an upper side"),
        (lambda: bc.pad(torch.zeros(1, 1, 2), 3, bc.Periodic(), (1.0,)), r"width must be from 1 to .*\(2,\), got 3"),
        (
            lambda: bc.pad(torch.zeros(1, 1, 2), 1, bc.Wall(), (1.0, 1.0)),
            "spacing must be positive, one for each of the 1 axes",
        ),
        (lambda: bc.pad(torch.zeros(1, 1, 2), 1, bc.Wall(), (0.0,)), "spacing must be positive"),
        (lambda: bc.pad(torch.zeros(1, 1, 2), 1, bc.Wall(), (1.0,), axes=[1]), r"axes must be from 0 to 0, got \(1,\)"),
        (lambda: bc.pad(torch.zeros(1, 1, 2), 1, bc.Wall(), (1.0,), odd=[(1,)]), "odd must name channels below 1"),
        (
            lambda: bc.pad(torch.zeros(1, 1, 1), 1, bc.Outflow(1), (1.0,)),
            "Outflow of order 1 along an axis of one cell",
        ),
        (
            lambda: bc.pad(torch.zeros(1, 1, 2), 1, bc.dirichlet(torch.ones(3)), (1.0,)),
            r"a side's \[1, 1, 1\], got shape \[3\]",
        ),
        (lambda: bc.pad(torch.zeros(1, 1, 2), 1, bc.Ghost(torch.ones(3)), (1.0,)), "boundary must hold values"),
        (lambda: bc.pad(torch.zeros(1, 1, 2), 1, bc.Robin(2.0, -1.0), (1.0,)), "no ghost value"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

"""Spectral calculus: vector identities hold to rounding on any field, values on trigonometric ones are exact."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdebook import fourier
from pdebook.pde.grid import Grid
from pdebook.pde.spectral import Spectral

sizes = st.lists(st.integers(4, 9), min_size=2, max_size=3)


def noise(grid: Grid, channels: int, seed: int = 0, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *grid.size, generator=generator, dtype=torch.float64)


def smooth(grid: Grid, channels: int, seed: int = 0) -> Tensor:
    """Noise without the modes n/2, for which a derivative has no inverse."""
    return Spectral(grid, 2).truncate(noise(grid, channels, seed))


def box(size: list[int]) -> Grid:
    return Grid(size, [1.0 + 0.7 * axis for axis in range(len(size))])


def close(a: Tensor, b: Tensor | float) -> bool:
    """Whether all is equal to rounding; raises with the largest difference where it is not."""
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype).expand_as(a), rtol=1e-10, atol=1e-10)
    return True


def test_derivative_of_exp_sin() -> None:
    basis = Spectral(Grid(64, 2 * math.pi))
    (x,) = basis.grid.coordinates("nodes")
    u = x.sin().exp()[None, None]
    assert (basis.derivative(u, [1]) - x.cos() * u).abs().max() < 1e-12
    assert (basis.derivative(u, [2]) - (x.cos() ** 2 - x.sin()) * u).abs().max() < 1e-11
    assert (basis.laplacian(u) - basis.derivative(u, [2])).abs().max() < 1e-11
    torch.testing.assert_close(basis.laplacian(u, 2), basis.derivative(u, [4]), rtol=1e-7, atol=1e-7)


def test_values_in_the_plane_and_in_space() -> None:
    basis = Spectral(Grid((12, 10), (2 * math.pi, math.pi)))
    x, y = basis.grid.mesh("nodes")
    f = (x.sin() * (4 * y).cos())[None, None]
    slope_x, slope_y = x.cos() * (4 * y).cos(), -4 * x.sin() * (4 * y).sin()
    assert close(basis.gradient(f), torch.stack([slope_x, slope_y])[None])
    assert close(basis.jacobian(torch.cat([f, 2 * f], 1))[:, 1], 2 * torch.stack([slope_x, slope_y])[None])
    assert close(basis.divergence(torch.cat([f, f], 1)), (slope_x + slope_y)[None, None])
    assert close(basis.vorticity(torch.cat([f, 3 * f], 1)), (3 * slope_x - slope_y)[None, None])
    assert close(basis.laplacian(f), -17 * f)
    assert close(basis.inverse_laplacian(f + 5.0), -f / 17)
    assert close(basis.stream(f), f / 17)
    assert close(basis.velocity(f), torch.stack([slope_y, -slope_x])[None] / 17)
    assert close(basis.derivative(f, [1, 2]), -16 * slope_x[None, None])
    space = Spectral(Grid((8, 8, 8), 2 * math.pi))
    x, y, z = space.grid.mesh("nodes")
    u = torch.stack([y.sin(), z.sin() + x.cos(), 2 * x.sin()])[None]
    assert close(space.vorticity(u), torch.stack([-z.cos(), -2 * x.cos(), -x.sin() - y.cos()])[None])
    assert close(space.velocity(space.vorticity(u)), u)


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(0, 1000))
def test_vector_identities(size: list[int], seed: int) -> None:
    basis = Spectral(box(size))
    scalar, vector = noise(basis.grid, 1, seed), noise(basis.grid, len(size), seed + 1)
    assert close(basis.vorticity(basis.gradient(scalar)), 0.0)
    solenoidal = basis.leray(vector)
    assert close(basis.divergence(solenoidal), 0.0)
    assert close(basis.leray(solenoidal), solenoidal)
    assert close(solenoidal.mean((2, *range(3, vector.ndim))), vector.mean((2, *range(3, vector.ndim))))
    gradient = vector - solenoidal
    assert close((gradient * solenoidal).flatten(1).sum(1), 0.0)
    assert close(basis.vorticity(solenoidal), basis.vorticity(vector))
    even = smooth(basis.grid, 1, seed)
    assert close(basis.divergence(basis.gradient(even)), basis.laplacian(even))
    mean = even.mean(tuple(range(2, even.ndim)), keepdim=True)
    assert close(basis.laplacian(basis.inverse_laplacian(even)), even - mean)
    if len(size) == 3:
        assert close(basis.divergence(basis.vorticity(vector)), 0.0)


@settings(max_examples=20, deadline=None)
@given(sizes, st.integers(0, 1000))
def test_vorticity_and_velocity_invert_each_other(size: list[int], seed: int) -> None:
    basis = Spectral(box(size))
    u = basis.leray(smooth(basis.grid, len(size), seed))
    u = u - u.mean(tuple(range(2, u.ndim)), keepdim=True)
    w = basis.vorticity(u)
    assert close(basis.velocity(w), u)
    assert close(basis.vorticity(basis.velocity(w)), w)


@pytest.mark.parametrize("size", [(9,), (12,), (8, 9), (9, 12), (6, 7, 8)])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_cut_basis_is_the_whole_one_behind_the_mask(size: tuple[int, ...], degree: int) -> None:
    grid = Grid(size)
    basis = Spectral(grid, degree)
    u = noise(grid, 2)
    whole = fourier.coefficients(u, grid.dims)
    mask = fourier.dealiasing_mask(size, degree) if degree > 1 else torch.ones(whole.shape[2:], dtype=torch.bool)
    torch.testing.assert_close(basis.forward(u), whole[..., : basis.columns])
    assert torch.equal(basis.mask, mask[..., : basis.columns])
    assert not mask[..., basis.columns :].any()
    assert basis.modes == tuple(basis.mask.shape)
    assert close(basis.truncate(u), fourier.field(whole * mask, size))
    for name in ("gradient", "laplacian", "inverse laplacian", "stream"):
        full = Spectral(grid).constant(name, whole)[..., : basis.columns]
        torch.testing.assert_close(basis.constant(name, whole), full)


def test_symbols_follow_precision_and_are_in_memory_like_coefficients() -> None:
    basis = Spectral(Grid((8, 6)), 2)
    c = basis.forward(noise(basis.grid, 1).float())
    symbol = basis.constant("gradient", c)
    assert symbol.dtype == torch.complex64
    assert symbol is basis.constant("gradient", c)
    assert symbol[0].stride() == c[0, 0].stride()
    assert basis.constant("laplacian", c.real).dtype == torch.float32
    assert basis.constant("mask", c).dtype == torch.bool


@pytest.mark.parametrize("n", [16, 256])
def test_fields_of_several_symbols(n: int) -> None:
    """Small ones in one transform, large ones one by one."""
    basis = Spectral(Grid((n, n)), 2)
    c = basis.forward(noise(basis.grid, 1, batch=1))
    symbols = basis.constant("gradient", c)
    fields = basis.fields(symbols, c)
    for field, symbol in zip(fields, symbols, strict=True):
        assert close(field, basis.inverse(symbol * c))
    together = fields[0].untyped_storage().data_ptr() == fields[1].untyped_storage().data_ptr()
    assert together == (n == 16)


def test_gradients() -> None:
    basis = Spectral(Grid((5, 4)), 2)
    u = noise(basis.grid, 2, batch=1).requires_grad_()
    assert torch.autograd.gradcheck(basis.leray, u)
    assert torch.autograd.gradcheck(lambda v: basis.velocity(basis.vorticity(v)), u)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Spectral(Grid(8), 0), "degree must be at least 1, got 0"),
        (lambda: Spectral(Grid((3, 8)), 2), "size must exceed 3"),
        (
            lambda: Spectral(Grid(8)).gradient(torch.zeros(1, 2, 8)),
            r"u must have shape \(batch, 1, 8\), got \(1, 2, 8\)",
        ),
        (lambda: Spectral(Grid(8)).laplacian(torch.zeros(1, 1, 8), 0), "power must be at least 1, got 0"),
        (lambda: Spectral(Grid(8)).vorticity(torch.zeros(1, 1, 8)), "vorticity needs a grid of two or three"),
        (lambda: Spectral(Grid(8)).velocity(torch.zeros(1, 1, 8)), "velocity needs a grid of two or three"),
        (lambda: Spectral(Grid((8, 8))).leray(torch.zeros(1, 3, 8, 8)), r"u must have shape \(batch, 2, 8, 8\)"),
        (lambda: Spectral(Grid(8)).derivative(torch.zeros(1, 1, 8), [1, 1]), "orders must hold 1 numbers"),
        (lambda: Spectral(Grid(8)).derivative(torch.zeros(1, 1, 8).long(), [1]), "floating-point, got torch.int64"),
    ],
)
def test_bad_input_is_named(call, words) -> None:
    with pytest.raises(ValueError, match=words):
        call()

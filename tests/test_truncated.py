"""Truncated transforms: three backends, one result, and that result is exact for trigonometric polynomials."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook import fourier, truncated

BACKENDS = ("fft", "crop", "dft")


def random_field(size, seed=0, dtype=torch.float64):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@st.composite
def grids(draw):
    size = draw(st.lists(st.integers(1, 13), min_size=1, max_size=3))
    return tuple(size), tuple(draw(st.integers(1, n)) for n in size)


@settings(max_examples=60, deadline=None)
@given(grids(), st.integers(0, 5), st.sampled_from([(torch.float32, 1e-6), (torch.float64, 2e-14)]))
def test_backends_agree_both_ways_and_on_a_finer_grid(grid, more, precision):
    size, modes = grid
    dtype, bound = precision
    u = random_field(size, dtype=dtype)
    reference = truncated.to_modes(u, modes, backend="fft")
    assert reference.shape == (2, 3, *truncated.kept_shape(modes))
    c = torch.randn(reference.shape, dtype=reference.dtype, generator=torch.Generator().manual_seed(1))
    fine = tuple(n + more for n in size)
    back = truncated.from_modes(c, modes, fine, backend="fft")
    for backend in ("crop", "dft"):
        forth = truncated.to_modes(u, modes, backend=backend)
        assert (forth - reference).abs().max() <= bound * reference.abs().max()
        assert (truncated.from_modes(c, modes, fine, backend=backend) - back).abs().max() <= bound * back.abs().max()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(8,), (9,), (6, 8), (7, 5), (4, 5, 6)])
def test_nothing_is_lost_when_all_modes_are_kept(size, backend):
    u = random_field(size)
    c = truncated.to_modes(u, size, backend=backend)
    torch.testing.assert_close(c, fourier.coefficients(u, len(size)))
    torch.testing.assert_close(truncated.from_modes(c, size, size, backend=backend), u)


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_of_a_polynomial_at_a_new_size(backend):
    def value(nx, ny):
        x, y = torch.meshgrid(*(torch.arange(n).double() * 2 * math.pi / n for n in (nx, ny)), indexing="ij")
        return 1.5 + torch.cos(2 * x - 3 * y + 0.3) - 0.5 * torch.sin(2 * y) + torch.cos(-1 * x + 0.2)

    c = truncated.to_modes(value(12, 10), (5, 7), backend=backend)
    assert c[0, 0] == pytest.approx(1.5)
    # cos(2x - 3y + φ) has its coefficient at (-2, 3), conjugated; the rows are 0, 1, 2, -2, -1.
    torch.testing.assert_close(c[3, 3], 0.5 * torch.exp(torch.tensor(-0.3j, dtype=torch.complex128)))
    for size in ((12, 10), (15, 16), (5, 7)):
        torch.testing.assert_close(truncated.from_modes(c, (5, 7), size, backend=backend), value(*size))


def test_order_of_the_wavenumbers():
    size = (11, 9)
    x = torch.arange(11).double()[:, None] * 2 * math.pi / 11
    for place, number in enumerate((0, 1, 2, -3, -2, -1)):
        u = (torch.cos(number * x) + torch.zeros(9)).expand(11, 9)
        with_y = torch.cos(number * x + torch.arange(9).double() * 2 * math.pi / 9)
        assert truncated.to_modes(with_y, (6, 4))[place, 1].real == pytest.approx(0.5)
        assert truncated.to_modes(u, (6, 4))[:, 1].abs().max() < 1e-15
    assert truncated.kept_shape((6, 4)) == (6, 3) == tuple(truncated.to_modes(torch.zeros(size), (6, 4)).shape)


def test_a_mode_that_is_its_own_conjugate_counts_once_and_only_its_real_part():
    for backend in BACKENDS:
        c = torch.zeros(3, dtype=torch.complex128)
        c[0], c[2] = 2 + 5j, 1 + 7j
        u = truncated.from_modes(c, (4,), (4,), backend=backend)
        torch.testing.assert_close(u, torch.tensor([3.0, 1, 3, 1], dtype=torch.float64))
        # On a finer grid mode 2 is an ordinary one.
        fine = truncated.from_modes(c, (4,), (8,), backend=backend)
        torch.testing.assert_close(fine[:3], torch.tensor([4.0, -12, 0], dtype=torch.float64))


@pytest.mark.parametrize("few", [(3, 4), (4, 3), (1, 1), (6, 8)])
def test_places_of_fewer_modes(few):
    u, many = random_field((9, 10)), (6, 8)
    c = truncated.to_modes(u, many, backend="fft")
    for axis, place in zip((-2, -1), truncated.kept_within(few, many), strict=True):
        c = c.index_select(axis, place)
    torch.testing.assert_close(c, truncated.to_modes(u, few, backend="fft"), rtol=0, atol=0)


def test_auto_takes_matrices_where_they_pay():
    assert truncated._choose("auto", (32, 32), (64, 1024)) == "dft"
    assert truncated._choose("auto", (33, 32), (64, 1024)) == "crop"
    assert truncated._choose("auto", (32, 32), (64, 1025)) == "crop"


@pytest.mark.parametrize("backend", BACKENDS)
def test_conjugated_coefficients(backend):
    """PyTorch conjugates by a flag; a real field's conjugate coefficients are those of the field mirrored."""
    u = random_field((7, 9))
    c = truncated.to_modes(u, (5, 5), backend=backend)
    kept = truncated.from_modes(c, (5, 5), (7, 9), backend=backend)
    mirrored = truncated.from_modes(c.conj(), (5, 5), (7, 9), backend=backend)
    torch.testing.assert_close(mirrored, kept.flip((-2, -1)).roll((1, 1), (-2, -1)))


def test_memory_of_the_matrix_form_has_the_modes_first():
    c = truncated.to_modes(random_field((8, 8)), (4, 4), backend="dft")
    assert c.movedim((0, 1), (-2, -1)).is_contiguous()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend):
    u = random_field((5, 6))[:1, :1].requires_grad_()
    c = truncated.to_modes(random_field((5, 6)), (3, 4))[:1, :1].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: truncated.to_modes(v, (3, 4), backend=backend), (u,))
    assert torch.autograd.gradcheck(lambda v: truncated.from_modes(v, (3, 4), (6, 5), backend=backend), (c,))


def test_matrices_made_in_inference_mode_serve_training():
    truncated._last_axis.cache_clear()
    truncated._full_axis.cache_clear()
    with torch.inference_mode():
        truncated.to_modes(torch.zeros(8, 8), (4, 4))
    u = torch.ones(8, 8, requires_grad=True)
    truncated.to_modes(u, (4, 4)).abs().sum().backward()
    assert u.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_matrices_serve_half_precision(dtype):
    u = random_field((12, 10), dtype=dtype).clamp(-1, 1)
    pairs = truncated.analyse(u, (6, 4))
    assert pairs.dtype == dtype
    exact = torch.view_as_real(truncated.to_modes(u.double(), (6, 4))).movedim(-1, 2)
    unit = torch.finfo(dtype).eps
    # Sums of 12 and 10 numbers of size 1, divided by their count.
    assert (pairs.double() - exact).abs().max() < 4 * unit
    back = truncated.synthesise(pairs, (6, 4), (12, 10))
    assert back.dtype == dtype


U, C = torch.zeros(2, 6, 8), torch.zeros(2, 4, 3, dtype=torch.complex64)
BAD = [
    (lambda: truncated.to_modes(U, (7, 4)), r"modes must be at most the grid's size .*\(7, 4\) on \(6, 8\)"),
    (lambda: truncated.to_modes(U, (4, 9)), r"modes must be at most the grid's size .*\(4, 9\) on \(6, 8\)"),
    (lambda: truncated.to_modes(U, ()), "modes must hold a positive integer"),
    (lambda: truncated.to_modes(U, (4, 0)), r"modes must hold a positive integer .*\(4, 0\)"),
    (
        lambda: truncated.to_modes(U, (4, 4), backend="nufft"),
        "backend must be 'auto', 'fft', 'crop' or 'dft', got 'nufft'",
    ),
    (lambda: truncated.from_modes(C, (4, 4), (3, 8)), r"modes must be at most .*\(4, 4\) on \(3, 8\)"),
    (lambda: truncated.from_modes(C, (4, 4), (8,)), "modes must be at most"),
    (
        lambda: truncated.from_modes(C, (5, 4), (8, 8)),
        r"c must end in \(5, 3\) for modes \(5, 4\), got shape \(2, 4, 3\)",
    ),
    (lambda: truncated.kept_within((7, 4), (6, 4)), r"modes must be at most \(6, 4\), got \(7, 4\)"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()

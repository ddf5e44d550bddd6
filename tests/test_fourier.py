"""Transforms on periodic grids: what is exact for trigonometric polynomials must be exact here."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook import fourier

TWO_PI = 2 * math.pi


def points(n: int, length: float = TWO_PI) -> torch.Tensor:
    return torch.arange(n, dtype=torch.float64) * length / n


def random_polynomial(size: tuple[int, ...], largest: int, seed: int):
    """A real trigonometric polynomial with |m_j| <= largest as a function of coordinates."""
    generator = torch.Generator().manual_seed(seed)
    terms = [
        (
            torch.randint(-largest, largest + 1, (len(size),), generator=generator),
            torch.randn((), generator=generator, dtype=torch.float64),
            torch.rand((), generator=generator, dtype=torch.float64) * TWO_PI,
        )
        for _ in range(6)
    ]

    def value(*x: torch.Tensor) -> torch.Tensor:
        return sum(
            a * torch.cos(sum(int(m) * xj for m, xj in zip(ms, x, strict=True)) + phase) for ms, a, phase in terms
        )

    return value


def on_grid(value, size):
    return value(*torch.meshgrid(*[points(n) for n in size], indexing="ij"))


@pytest.mark.parametrize("n", [7, 8])
def test_mode_numbers_are_those_of_the_transform(n):
    full, half = fourier.mode_numbers((n, n))
    assert full.flatten().tolist() == (torch.fft.fftfreq(n) * n).round().int().tolist()
    assert half.flatten().tolist() == (torch.fft.rfftfreq(n) * n).round().int().tolist()
    assert full.shape == (n, 1)
    assert half.shape == (1, n // 2 + 1)


def test_wavenumbers_carry_the_length():
    k, q = fourier.wavenumbers((4, 4), (1.0, 3.0))
    assert k[1, 0].item() == pytest.approx(TWO_PI)
    assert q[0, 1].item() == pytest.approx(TWO_PI / 3)


def test_coefficients_do_not_depend_on_the_resolution_and_have_the_stated_sign():
    for n in (8, 9, 32):
        c = fourier.coefficients(3.0 + torch.cos(2 * points(n)) + 5 * torch.sin(points(n)), 1)
        torch.testing.assert_close(c[:3], torch.tensor([3.0, -2.5j, 0.5], dtype=torch.complex128), rtol=0, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(5, 12), min_size=1, max_size=3), st.integers(0, 1000))
def test_field_inverts_coefficients_and_parseval_holds(size, seed):
    u = torch.randn(2, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    c = fourier.coefficients(u, len(size))
    torch.testing.assert_close(fourier.field(c, size), u)
    power = (fourier.multiplicity(size) * c.abs().square()).flatten(1).sum(1)
    torch.testing.assert_close(power, u.square().flatten(1).mean(1))
    torch.testing.assert_close(fourier.spectrum(u, len(size)).sum(1), u.square().flatten(1).mean(1))


@pytest.mark.parametrize("n", [63, 64])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivatives_of_exp_sin(n, order):
    length = 3.0
    w = TWO_PI / length
    x = points(n, length).requires_grad_()
    u = torch.exp(torch.sin(w * x))
    exact = u
    for _ in range(order):
        (exact,) = torch.autograd.grad(exact.sum(), x, create_graph=True)
    symbol = fourier.derivative_symbol((n,), (order,), length)
    measured = fourier.field(symbol * fourier.coefficients(u.detach(), 1), (n,))
    assert (measured - exact).abs().max() < 1e-12 * (w * n / 2) ** order


def test_mixed_derivative_in_two_dimensions():
    size = (12, 10)
    x, y = torch.meshgrid(points(12), points(10), indexing="ij")
    symbol = fourier.derivative_symbol(size, (1, 2))
    measured = fourier.field(symbol * fourier.coefficients(torch.sin(2 * x) * torch.cos(3 * y), 2), size)
    torch.testing.assert_close(measured, -18 * torch.cos(2 * x) * torch.cos(3 * y))


def test_odd_derivatives_of_the_last_mode_vanish_and_even_ones_do_not():
    u = torch.cos(4 * points(8))
    first = fourier.field(fourier.derivative_symbol((8,), (1,)) * fourier.coefficients(u, 1), (8,))
    second = fourier.field(fourier.derivative_symbol((8,), (2,)) * fourier.coefficients(u, 1), (8,))
    assert first.abs().max() == 0
    torch.testing.assert_close(second, -16 * u)
    v = u[:, None] * torch.ones(8, dtype=torch.float64)
    along = fourier.derivative_symbol((8, 8), (1, 0))
    assert fourier.field(along * fourier.coefficients(v, 2), (8, 8)).abs().max() == 0


@pytest.mark.parametrize("n", [8, 9, 12, 15, 32])
@pytest.mark.parametrize("degree", [2, 3])
def test_masked_products_have_no_aliases_and_one_mode_more_would_have(n, degree):
    mask = fourier.dealiasing_mask((n,), degree)
    largest = int(mask.nonzero().max())
    for top, clean in ((largest, True), (largest + 1, False)):
        u = torch.cos(top * points(n)) + 0.5 * torch.sin(top * points(n))
        product = fourier.coefficients(u**degree, 1)[: top + 1]
        fine = 4 * n
        v = torch.cos(top * points(fine)) + 0.5 * torch.sin(top * points(fine))
        exact = fourier.coefficients(v**degree, 1)[: top + 1]
        assert bool((product - exact).abs().max() < 1e-13) == clean


def test_mask_acts_on_every_axis():
    mask = fourier.dealiasing_mask((12, 9))
    m, q = fourier.mode_numbers((12, 9))
    assert torch.equal(mask, (m.abs() <= 3) & (q.abs() <= 2))


def test_spectrum_puts_a_mode_into_its_shell():
    x, y = torch.meshgrid(points(16), points(16), indexing="ij")
    spectrum = fourier.spectrum(torch.cos(3 * x + 4 * y), 2)
    assert spectrum.argmax() == 5
    assert spectrum[5].item() == pytest.approx(0.5)
    assert torch.equal(fourier.shells((16, 16))[1, 1], torch.tensor(1))
    assert int(fourier.shells((16, 16))[2, 2]) == 3
    assert len(spectrum) == 12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 2), st.data())
def test_resampling_a_polynomial_evaluates_it_on_the_new_grid(seed, dims, data):
    size = tuple(data.draw(st.integers(7, 14)) for _ in range(dims))
    new = tuple(data.draw(st.integers(7, 14)) for _ in range(dims))
    value = random_polynomial(size, 3, seed)
    torch.testing.assert_close(fourier.resample(on_grid(value, size), new), on_grid(value, new))


@pytest.mark.parametrize(("old", "new"), [(8, 11), (8, 16), (7, 12), (8, 9)])
def test_up_and_down_again_is_the_identity(old, new):
    u = torch.randn(3, old, old, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(fourier.resample(fourier.resample(u, (new, new)), (old, old)), u)


def test_resampling_keeps_the_dtype_and_has_gradients():
    u = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert fourier.resample(u.float(), (9,)).dtype == torch.float32
    assert torch.autograd.gradcheck(lambda v: fourier.resample(v, (9,)), u)
    assert torch.autograd.gradcheck(lambda v: fourier.resample(v, (4,)), u)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fourier.mode_numbers(()), "size must hold a positive integer"),
        (lambda: fourier.mode_numbers((4, 0)), r"size .* got \(4, 0\)"),
        (lambda: fourier.wavenumbers((4, 4), (1.0,)), "length must be positive, one number or 2"),
        (lambda: fourier.wavenumbers((4,), -1.0), "length must be positive"),
        (lambda: fourier.derivative_symbol((4,), (1, 1)), "orders must hold 1 numbers"),
        (lambda: fourier.derivative_symbol((4,), (-1,)), "not negative"),
        (lambda: fourier.coefficients(torch.zeros(4), 2), "dims must be from 1 to the 1 axes of u, got 2"),
        (lambda: fourier.resample(torch.zeros(4).half(), (8,)), "u must be float32 or float64, got torch.float16"),
        (lambda: fourier.dealiasing_mask((8,), 0), "degree must be at least 1, got 0"),
        (lambda: fourier.dealiasing_mask((3, 8)), "size must exceed 3"),
        (lambda: fourier.resample(torch.zeros(4), (4, 4)), "more than u of shape"),
        (lambda: fourier.resample(torch.zeros(4), (0,)), "size must hold a positive integer"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

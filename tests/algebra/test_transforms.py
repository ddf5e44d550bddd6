"""Sine and cosine transforms against SciPy and their own definitions; separable Laplacians against their matrices."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.algebra import transforms

ORTHOGONAL = {
    "dct2": (scipy.fft.dct, 2, "idct2"),
    "idct2": (scipy.fft.dct, 3, "dct2"),
    "dct4": (scipy.fft.dct, 4, "dct4"),
    "dst1": (scipy.fft.dst, 1, "dst1"),
    "dst2": (scipy.fft.dst, 2, "idst2"),
    "idst2": (scipy.fft.dst, 3, "dst2"),
    "dst4": (scipy.fft.dst, 4, "dst4"),
}
PATHS = pytest.mark.parametrize("dense", [0, 10**6], ids=["fft", "matrix"])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@PATHS
@pytest.mark.parametrize("n", [1, 2, 3, 8, 13, 64])
@pytest.mark.parametrize("name", ORTHOGONAL)
def test_orthogonal_transforms_are_those_of_scipy(monkeypatch, dense, n, name):
    monkeypatch.setattr(transforms, "_DENSE", dense)
    theirs, kind, inverse = ORTHOGONAL[name]
    u = draw(2, n, 3)
    ours = getattr(transforms, name)(u, 1)
    np.testing.assert_allclose(ours, theirs(u.numpy(), type=kind, axis=1, norm="ortho"), atol=1e-13)
    torch.testing.assert_close(getattr(transforms, inverse)(ours, 1), u, rtol=0, atol=1e-13)
    torch.testing.assert_close(ours.square().sum(), u.square().sum())


@PATHS
@pytest.mark.parametrize("n", [2, 3, 8, 13])
def test_dct1_is_its_own_inverse(monkeypatch, dense, n):
    monkeypatch.setattr(transforms, "_DENSE", dense)
    u = draw(2, n)
    ours = transforms.dct1(u)
    np.testing.assert_allclose(ours, scipy.fft.dct(u.numpy(), type=1) / math.sqrt(2 * (n - 1)), atol=1e-13)
    torch.testing.assert_close(transforms.dct1(ours), u, rtol=0, atol=1e-13)


@PATHS
@pytest.mark.parametrize("name", [*ORTHOGONAL, "dct1"])
def test_gradients_and_single_precision(monkeypatch, dense, name):
    monkeypatch.setattr(transforms, "_DENSE", dense)
    transform = getattr(transforms, name)
    for n in (6, 7):
        assert torch.autograd.gradcheck(transform, draw(2, n).requires_grad_())
    u = draw(3, 300)
    single = transform(u.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), transform(u), rtol=0, atol=3e-6)


def difference(n: int, h: float, basis: str) -> torch.Tensor:
    """The matrix of -Δ_h, from ghost values."""
    matrix = 2 * torch.eye(n, dtype=torch.float64)
    for i in range(n):
        for j in (i - 1, i + 1):
            if 0 <= j < n:
                matrix[i, j] -= 1
            elif basis == "periodic":
                matrix[i, j % n] -= 1
            elif basis.endswith("nodes"):
                if basis == "neumann-nodes":
                    matrix[i, 1 if j < 0 else n - 2] -= 1  # the mirror image about the end node
            else:
                kinds = basis.split("-")
                matrix[i, i] += -1 if kinds[0 if j < 0 else -1] == "neumann" else 1
    return matrix / h**2


BASES = ["periodic", *transforms.BASES]


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("basis", BASES)
def test_each_basis_diagonalises_its_difference(basis, n):
    laplacian = transforms.SeparableLaplacian((n,), (0.3,), (basis,))
    u = draw(5, n)
    wanted = u @ difference(n, 0.3, basis).T
    torch.testing.assert_close(laplacian.apply(u, laplacian.symbol), wanted, rtol=0, atol=1e-11)
    assert laplacian.singular == (float(laplacian.symbol.flatten()[0]) == 0)
    shift = torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64)[:, None]
    solved = laplacian.solve(wanted + shift * u, shift)
    torch.testing.assert_close(solved, u, rtol=0, atol=1e-12)
    pseudo = torch.linalg.pinv(difference(n, 0.3, basis), hermitian=basis != "neumann-nodes")
    if basis != "neumann-nodes":  # not symmetric: the kernel's weights differ
        torch.testing.assert_close(laplacian.solve(u), u @ pseudo.T, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(BASES), min_size=2, max_size=3), st.integers(0, 1000))
def test_any_mix_of_axes(bases, seed):
    size, spacing = (4, 5, 6)[: len(bases)], (0.5, 1.0, 2.0)[: len(bases)]
    laplacian = transforms.SeparableLaplacian(size, spacing, bases)
    u = draw(2, *size, seed=seed)
    image = torch.zeros_like(u)
    for axis, (n, h, basis) in enumerate(zip(size, spacing, bases, strict=True)):
        image += torch.tensordot(u, difference(n, h, basis), ([axis + 1], [1])).movedim(-1, axis + 1)
    torch.testing.assert_close(laplacian.apply(u, laplacian.symbol), image, rtol=0, atol=1e-11)
    torch.testing.assert_close(laplacian.inverse(laplacian.transform(u)), u, rtol=0, atol=1e-13)
    torch.testing.assert_close(laplacian.solve(image + 3.0 * u, 3.0), u, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("basis", "start", "count", "profile"),
    [
        ("periodic", 0, 24, lambda x: torch.cos(4 * math.pi * x)),
        ("neumann", 0.5, 24, lambda x: torch.cos(4 * math.pi * x)),
        ("dirichlet", 0.5, 24, lambda x: torch.sin(4 * math.pi * x)),
        ("neumann-dirichlet", 0.5, 24, lambda x: torch.cos(4.5 * math.pi * x)),
        ("dirichlet-neumann", 0.5, 24, lambda x: torch.sin(4.5 * math.pi * x)),
        ("neumann-nodes", 0, 25, lambda x: torch.cos(4 * math.pi * x)),
        ("dirichlet-nodes", 1, 23, lambda x: torch.sin(4 * math.pi * x)),
    ],
)
def test_the_spectral_symbol_is_exact_for_a_mode(basis, start, count, profile):
    u = profile((torch.arange(count, dtype=torch.float64) + start) / 24)
    laplacian = transforms.SeparableLaplacian((count,), (1 / 24,), basis, spectral=True)
    wavenumber = (4.5 if "-" in basis and "nodes" not in basis else 4.0) * math.pi
    torch.testing.assert_close(laplacian.apply(u, laplacian.symbol), wavenumber**2 * u, rtol=0, atol=1e-9)


def test_a_singular_solve_has_no_mean_and_gradients():
    laplacian = transforms.SeparableLaplacian((4, 5), (1.0, 1.0), ("periodic", "neumann"))
    f = draw(2, 4, 5)
    u = laplacian.solve(f)
    assert u.mean((1, 2)).abs().max() < 1e-14
    torch.testing.assert_close(laplacian.apply(u, laplacian.symbol), f - f.mean((1, 2), keepdim=True))
    assert torch.autograd.gradcheck(laplacian.solve, f.requires_grad_())
    shift = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: laplacian.solve(f.detach(), s), shift)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: transforms.dct1(torch.ones(1)), "u must have 2 points at least along the axis of a DCT-I, got 1"),
        (
            lambda: transforms.dct2(torch.ones(3, dtype=torch.int64)),
            "u must be floating-point, float32 or float64, got torch.int64",
        ),
        (lambda: transforms.dct2(torch.ones(300).half()), "float32 or float64, got torch.float16"),
        (lambda: transforms.SeparableLaplacian((4,), (1.0,)).solve(torch.ones(4).half()), "got torch.float16"),
        (lambda: transforms.dst2(torch.ones(3), 1), r"dim must be an axis of u of shape \(3,\), got 1"),
        (
            lambda: transforms.SeparableLaplacian((4, 4), (1.0,)),
            r"spacing must be positive, one for each of the 2 axes",
        ),
        (lambda: transforms.SeparableLaplacian((4,), (0.0,)), "spacing must be positive"),
        (lambda: transforms.SeparableLaplacian((4,), (1.0,), "wall"), "bases must be one or 1 of periodic, neumann"),
        (lambda: transforms.SeparableLaplacian((4, 4), (1.0, 1.0), ("neumann",)), "bases must be one or 2"),
        (lambda: transforms.SeparableLaplacian((1,), (1.0,), "neumann-nodes"), "size must be 2 at least .* got 1"),
        (lambda: transforms.SeparableLaplacian((4,), (1.0,)).solve(torch.ones(5)), r"u must have shape \(\.\.\., 4\)"),
        (lambda: transforms.SeparableLaplacian((0,), (1.0,)), "size must hold a positive integer"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

"""Sine and cosine transforms, and the separable Laplacians that they and Fourier's diagonalise.

Along an axis of n points the second difference -(u_{j-1} - 2 u_j + u_{j+1}) has, under each kind of ends, known eigenvectors, with
eigenvalues 4 sin²(θ_k/2):

| basis | points; what holds at the ends | transform | θ_k, k = 0, 1, ... |
|---|---|---|---|
| ``periodic`` | period of n points | Fourier | 2πk/n |
| ``neumann`` | centres; no flux through the walls | DCT-II | πk/n |
| ``dirichlet`` | centres; zero on the walls | DST-II | π(k+1)/n |
| ``neumann-dirichlet`` | centres; no flux below, zero above | DCT-IV | π(k+1/2)/n |
| ``dirichlet-neumann`` | centres; zero below, no flux above | DST-IV | π(k+1/2)/n |
| ``neumann-nodes`` | nodes with both ends; no flux | DCT-I | πk/(n-1) |
| ``dirichlet-nodes`` | inner nodes; zero at the ends, n + 1 spacings apart | DST-I | π(k+1)/(n+1) |

The transforms act along one axis, are real, and have gradients. All but DCT-I are orthogonal matrices; the types I and IV are
their own inverses. A short axis is multiplied by the matrix, a long one goes through a real FFT.

Source: Strang, The discrete cosine transform, SIAM Review 1999; Makhoul 1980 for DCT-II by one real FFT of length n.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pdebook.fourier import check_size

__all__ = [
    "BASES",
    "SeparableLaplacian",
    "check_precision",
    "dct1",
    "dct2",
    "dct4",
    "dst1",
    "dst2",
    "dst4",
    "idct2",
    "idst2",
]

# Up to this length the product with the matrix is faster than the FFT with its reordering. One CPU thread, 32 x n^2 points: 3 times
# in float32 at 128, 1.5 times at 256, and in float64 about equal there.
_DENSE = 256


def check_precision(u: Tensor, name: str) -> None:
    """Raise ValueError unless u is of a type that Fourier transforms take on every device: float32 or float64."""
    if u.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be floating-point, float32 or float64, got {u.dtype}")


def _last(u: Tensor, dim: int, name: str, least: int = 1) -> Tensor:
    """u with the axis put last. Raises ValueError for an axis that is too short, or no floating point."""
    check_precision(u, "u")
    if not -u.ndim <= dim < u.ndim:
        raise ValueError(f"dim must be an axis of u of shape {tuple(u.shape)}, got {dim}")
    if u.shape[dim] < least:
        raise ValueError(f"u must have {least} points at least along the axis of a {name}, got {u.shape[dim]}")
    return u.movedim(dim, -1)


@lru_cache(maxsize=256)
def _matrix(name: str, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix of a transform, made in float64; row k holds mode k."""
    with torch.inference_mode(False):
        j = torch.arange(n, dtype=torch.float64)
        k = j[:, None]
        if name == "dct1":
            matrix = torch.cos(math.pi * k * j / (n - 1)) * math.sqrt(2 / (n - 1))
            matrix[:, [0, -1]] *= 0.5
        elif name == "dst1":
            matrix = torch.sin(math.pi * (k + 1) * (j + 1) / (n + 1)) * math.sqrt(2 / (n + 1))
        elif name == "dct2":
            matrix = torch.cos(math.pi * k * (j + 0.5) / n) * math.sqrt(2 / n)
            matrix[0] *= math.sqrt(0.5)
        elif name == "dst2":
            matrix = torch.sin(math.pi * (k + 1) * (j + 0.5) / n) * math.sqrt(2 / n)
            matrix[-1] *= math.sqrt(0.5)
        else:
            wave = torch.cos if name == "dct4" else torch.sin
            matrix = wave(math.pi * (k + 0.5) * (j + 0.5) / n) * math.sqrt(2 / n)
        return matrix.to(device=device, dtype=dtype)


@lru_cache(maxsize=256)
def _twiddle(n: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """e^{-iπ j/(2n)}, j < count, made in double precision."""
    with torch.inference_mode(False):
        angle = torch.arange(count, dtype=torch.float64) * (-math.pi / (2 * n))
        return torch.polar(torch.ones_like(angle), angle).to(device=device, dtype=dtype)


def _alternating(u: Tensor) -> Tensor:
    """1, -1, 1, ... along the last axis."""
    signs = torch.ones(u.shape[-1], dtype=u.dtype, device=u.device)
    signs[1::2] = -1.0
    return signs


def _product(u: Tensor, name: str, transposed: bool = False) -> Tensor:
    matrix = _matrix(name, u.shape[-1], u.dtype, u.device)
    return u @ (matrix if transposed else matrix.T)


def _dct1(u: Tensor) -> Tensor:
    n = u.shape[-1]
    if n <= _DENSE:
        return _product(u, "dct1")
    even = torch.cat([u, u[..., 1:-1].flip(-1)], -1)
    return torch.fft.rfft(even).real / math.sqrt(2 * (n - 1))


def _dst1(u: Tensor) -> Tensor:
    n = u.shape[-1]
    if n <= _DENSE:
        return _product(u, "dst1")
    zero = torch.zeros_like(u[..., :1])
    odd = torch.cat([zero, u, zero, -u.flip(-1)], -1)
    return -torch.fft.rfft(odd).imag[..., 1 : n + 1] / math.sqrt(2 * (n + 1))


def _dct2(u: Tensor) -> Tensor:
    n = u.shape[-1]
    if n <= _DENSE:
        return _product(u, "dct2")
    # Makhoul's order: even points upwards, odd ones downwards.
    c = torch.fft.rfft(torch.cat([u[..., ::2], u[..., 1::2].flip(-1)], -1), norm="ortho")
    c = c * _twiddle(n, n // 2 + 1, c.dtype, c.device)
    upper = -c.imag[..., 1 : (n + 1) // 2].flip(-1)
    return torch.cat([c.real[..., :1], math.sqrt(2) * c.real[..., 1:], math.sqrt(2) * upper], -1)


def _idct2(u: Tensor) -> Tensor:
    n = u.shape[-1]
    if n <= _DENSE:
        return _product(u, "dct2", transposed=True)
    scaled = torch.cat([u[..., :1], u[..., 1:] * math.sqrt(0.5)], -1)
    lower = scaled[..., : n // 2 + 1]
    # The coefficient -Im of mode k is mode n - k; mode 0 has none.
    upper = torch.cat([torch.zeros_like(u[..., :1]), scaled[..., n - n // 2 :].flip(-1)], -1)
    c = torch.complex(lower, -upper)
    c = c * _twiddle(n, n // 2 + 1, c.dtype, c.device).conj()
    v = torch.fft.irfft(c, n=n, norm="ortho")
    half = (n + 1) // 2
    result = torch.empty_like(v)
    result[..., ::2] = v[..., :half]
    result[..., 1::2] = v[..., half:].flip(-1)
    return result


def _dst2(u: Tensor) -> Tensor:
    if u.shape[-1] <= _DENSE:
        return _product(u, "dst2")
    return _dct2(u * _alternating(u)).flip(-1)


def _idst2(u: Tensor) -> Tensor:
    if u.shape[-1] <= _DENSE:
        return _product(u, "dst2", transposed=True)
    return _idct2(u.flip(-1)) * _alternating(u)


def _dct4(u: Tensor) -> Tensor:
    n = u.shape[-1]
    if n <= _DENSE:
        return _product(u, "dct4")
    # cos(π (j + 1/2) (k + 1/2) / n) = Re of e^{-iπ j k/n} between a factor of j and one of k.
    dtype = torch.promote_types(u.dtype, torch.complex64)
    turn = _twiddle(n, n, dtype, u.device)
    c = torch.fft.fft(u * turn, n=2 * n)[..., :n] * turn
    quarter = math.pi / (4 * n)
    return (c.real * math.cos(quarter) + c.imag * math.sin(quarter)) * math.sqrt(2 / n)


def _dst4(u: Tensor) -> Tensor:
    if u.shape[-1] <= _DENSE:
        return _product(u, "dst4")
    return _dct4(u.flip(-1)) * _alternating(u)


def dct1(u: Shaped[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """DCT-I: U_k = sqrt(2/(n-1)) [u_0/2 + Σ_{0<j<n-1} u_j cos(π j k/(n-1)) + (-1)^k u_{n-1}/2]; its own inverse.

    Raises:
        ValueError: fewer than two points, no floating point, or an axis that u lacks.
    """
    return _dct1(_last(u, dim, "DCT-I", 2)).movedim(-1, dim)


def dst1(u: Shaped[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """DST-I: U_k = sqrt(2/(n+1)) Σ_j u_j sin(π (j+1)(k+1)/(n+1)); its own inverse.

    Raises:
        ValueError: no floating point, or an axis that u lacks.
    """
    return _dst1(_last(u, dim, "DST-I")).movedim(-1, dim)


def dct2(u: Shaped[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """DCT-II: U_k = sqrt(2/n) Σ_j u_j cos(π (j+1/2) k/n), and U_0 divided by sqrt(2).

    Raises:
        ValueError: no floating point, or an axis that u lacks.
    """
    return _dct2(_last(u, dim, "DCT-II")).movedim(-1, dim)


def idct2(u: Shaped[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """The inverse of ``dct2``, which is its transpose (DCT-III). Raises as ``dct2``."""
    return _idct2(_last(u, dim, "DCT-II")).movedim(-1, dim)


def dst2(u: Shaped[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """DST-II: U_k = sqrt(2/n) Σ_j u_j sin(π (j+1/2)(k+1)/n), and U_{n-1} divided by sqrt(2).

    Raises:
        ValueError: no floating point, or an axis that u lacks.
    """
    return _dst2(_last(u, dim, "DST-II")).movedim(-1, dim)


def idst2(u: Shaped[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """The inverse of ``dst2``, which is its transpose (DST-III). Raises as ``dst2``."""
    return _idst2(_last(u, dim, "DST-II")).movedim(-1, dim)


def dct4(u: Shaped[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """DCT-IV: U_k = sqrt(2/n) Σ_j u_j cos(π (j+1/2)(k+1/2)/n); its own inverse.

    Raises:
        ValueError: no floating point, or an axis that u lacks.
    """
    return _dct4(_last(u, dim, "DCT-IV")).movedim(-1, dim)


def dst4(u: Shaped[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """DST-IV: U_k = sqrt(2/n) Σ_j u_j sin(π (j+1/2)(k+1/2)/n); its own inverse.

    Raises:
        ValueError: no floating point, or an axis that u lacks.
    """
    return _dst4(_last(u, dim, "DST-IV")).movedim(-1, dim)


@dataclass(frozen=True)
class Basis:
    """Eigenvectors along an axis: the transforms to them and back, and θ_k = π (k + offset)/(n + extra)."""

    forward: Callable[..., Tensor]
    inverse: Callable[..., Tensor]
    offset: float
    extra: int
    least: int = 1

    def angles(self, n: int) -> Float[Tensor, " n"]:
        """θ_k in float64."""
        return math.pi * (torch.arange(n, dtype=torch.float64) + self.offset) / (n + self.extra)


BASES = {
    "neumann": Basis(dct2, idct2, 0.0, 0),
    "dirichlet": Basis(dst2, idst2, 1.0, 0),
    "neumann-dirichlet": Basis(dct4, dct4, 0.5, 0),
    "dirichlet-neumann": Basis(dst4, dst4, 0.5, 0),
    "neumann-nodes": Basis(dct1, dct1, 0.0, -1, 2),
    "dirichlet-nodes": Basis(dst1, dst1, 1.0, 1),
}
"""The real bases by name; "periodic" is the Fourier transform."""


class SeparableLaplacian:
    """-Δ_h on a box with its ends' conditions axis by axis, diagonalised: any function of it costs one transform and one back.

    (-Δ_h u)_i = Σ_j (2 u_i - u_{i-e_j} - u_{i+e_j}) / h_j², with eigenvalues Σ_j (2/h_j)² sin²(θ_j/2), θ_j of the table above;
    or the spectral operator on the same basis, with Σ_j (θ_j/h_j)².

    Attributes:
        size: number of points along each axis.
        spacing: h of each axis.
        bases: name of each axis' basis.
        symbol: the eigenvalues, float64, shaped as the coefficients: real bases full, the last periodic axis halved.
        singular: whether constants have the eigenvalue zero.
    Args:
        size, spacing: as above.
        bases: "periodic" or a name of ``BASES`` for each axis, or one for all.
        spectral: take the squares of the wavenumbers for eigenvalues instead of the differences'.
        device: where the symbol is put.
    Raises:
        ValueError: sizes, spacings or names that do not match or make no sense.
    """

    def __init__(
        self,
        size: Sequence[int],
        spacing: Sequence[float | int],
        bases: Sequence[str] | str = "periodic",
        *,
        spectral: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        self.size = check_size(size)
        dims = len(self.size)
        self.spacing = tuple(map(float, spacing))
        self.bases = (bases,) * dims if isinstance(bases, str) else tuple(bases)
        if len(self.spacing) != dims or not all(0 < h < math.inf for h in self.spacing):
            raise ValueError(f"spacing must be positive, one for each of the {dims} axes, got {tuple(spacing)}")
        known = ["periodic", *BASES]
        if len(self.bases) != dims or any(name not in known for name in self.bases):
            raise ValueError(f"bases must be one or {dims} of {', '.join(known)}, got {bases!r}")
        for n, name in zip(self.size, self.bases, strict=True):
            if name in BASES and n < BASES[name].least:
                raise ValueError(f"size must be {BASES[name].least} at least along a {name} axis, got {n}")
        self._periodic = [axis for axis, name in enumerate(self.bases) if name == "periodic"]
        symbol = torch.zeros((1,) * dims, dtype=torch.float64, device=device)
        for axis, (n, h, name) in enumerate(zip(self.size, self.spacing, self.bases, strict=True)):
            if name == "periodic":
                last = axis == self._periodic[-1]
                k = torch.arange(n // 2 + 1 if last else n, dtype=torch.float64)
                theta = 2 * math.pi * torch.minimum(k, n - k) / n
            else:
                theta = BASES[name].angles(n)
            values = (theta / h).square() if spectral else (2 / h * torch.sin(theta / 2)).square()
            symbol = symbol + values.to(symbol.device).reshape([-1 if other == axis else 1 for other in range(dims)])
        self.symbol = symbol
        self.singular = all(name in ("periodic", "neumann", "neumann-nodes") for name in self.bases)

    def _check(self, u: Tensor) -> None:
        check_precision(u, "u")
        if tuple(u.shape[u.ndim - len(self.size) :]) != self.size:
            raise ValueError(f"u must have shape (..., {', '.join(map(str, self.size))}), got {tuple(u.shape)}")

    def transform(self, u: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*modes"]:
        """Coefficients of u, whose last axes are the grid's; complex if an axis is periodic."""
        self._check(u)
        dims = len(self.size)
        for axis, name in enumerate(self.bases):
            if name != "periodic":
                u = BASES[name].forward(u, axis - dims)
        if self._periodic:
            return torch.fft.rfftn(u, dim=[axis - dims for axis in self._periodic], norm="ortho")
        return u

    def inverse(self, c: Shaped[Tensor, "*modes"]) -> Float[Tensor, "*shape"]:
        """The field with the coefficients c."""
        dims = len(self.size)
        if self._periodic:
            axes = [axis - dims for axis in self._periodic]
            c = torch.fft.irfftn(c, s=[self.size[axis] for axis in self._periodic], dim=axes, norm="ortho")
        for axis, name in enumerate(self.bases):
            if name != "periodic":
                c = BASES[name].inverse(c, axis - dims)
        return c

    def apply(self, u: Float[Tensor, "*shape"], factor: Float[Tensor, "*modes"]) -> Float[Tensor, "*shape"]:
        """φ(-Δ_h) u for the values ``factor`` = φ(symbol), which may have leading axes of their own."""
        return self.inverse(self.transform(u) * factor.to(device=u.device, dtype=u.dtype))

    def solve(self, f: Float[Tensor, "*shape"], shift: Tensor | float | int = 0.0) -> Float[Tensor, "*shape"]:
        """u with (shift - Δ_h) u = f; without a shift and where constants are in the kernel, the mean of f is ignored and u has none.

        Args:
            f: right-hand sides; the grid is the last axes.
            shift: a number, or a tensor that broadcasts to f with ones along the grid's axes.
        """
        symbol = self.symbol.to(f.device) + torch.as_tensor(shift, dtype=torch.float64, device=f.device)
        # The eigenvalue zero has exactly the value zero in the symbol; its inverse is left out.
        return self.apply(f, torch.where(symbol == 0, 0.0, 1.0 / torch.where(symbol == 0, 1.0, symbol)))

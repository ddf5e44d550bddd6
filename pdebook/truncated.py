"""Truncated real Fourier transforms, the core of neural operators: few modes of a field, and the field of few modes.

``modes`` numbers of an axis are kept: the wavenumbers -(m // 2) ... (m - 1) // 2 in the transform's order (0, 1, ..., then the
negative ones), and of the last axis the columns 0 ... m // 2. Transforms are divided by the number of points, as in ``fourier``.

| backend | how |
|---|---|
| ``fft`` | transforms everything and selects: the reference |
| ``crop`` | transforms axis by axis, and drops modes as early as it can |
| ``dft`` | multiplies by the kept rows of the Fourier matrices, which are cached: any size, any floating type |
| ``auto`` | ``dft`` where at most half of the modes of at most 1024 points are kept, else ``crop`` |
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from pdebook.fourier import check_size, coefficients, field

__all__ = [
    "analyse",
    "check_backend",
    "check_modes",
    "from_modes",
    "kept_shape",
    "kept_within",
    "synthesise",
    "to_modes",
]


def check_modes(modes: Sequence[int], size: Sequence[int] | None = None) -> tuple[int, ...]:
    """The modes as a tuple. Raises ValueError unless they are positive integers, and at most ``size`` if that is given."""
    modes = tuple(modes) if isinstance(modes, Sequence) else (modes,)
    if not modes or not all(isinstance(m, int) and not isinstance(m, bool) and m > 0 for m in modes):
        raise ValueError(f"modes must hold a positive integer for each axis, got {modes}")
    if size is not None and (len(modes) != len(size) or any(m > n for m, n in zip(modes, size, strict=True))):
        raise ValueError(f"modes must be at most the grid's size along each of its axes, got {modes} on {tuple(size)}")
    return modes


def check_backend(backend: str) -> None:
    """Raises ValueError for an unknown one."""
    if backend not in ("auto", "fft", "crop", "dft"):
        raise ValueError(f"backend must be 'auto', 'fft', 'crop' or 'dft', got {backend!r}")


def kept_shape(modes: Sequence[int]) -> tuple[int, ...]:
    """Shape of the coefficients that a truncated transform keeps: all modes, of the last axis m // 2 + 1."""
    return (*modes[:-1], modes[-1] // 2 + 1)


def kept_within(
    few: Sequence[int], many: Sequence[int], *, device: torch.device | str | None = None
) -> tuple[Int64[Tensor, "_"], ...]:
    """For each axis the places of the wavenumbers of ``few`` modes among those of ``many``.

    Raises:
        ValueError: more modes than there are.
    """
    few = check_modes(few)
    if len(few) != len(many) or any(m > n for m, n in zip(few, many, strict=True)):
        raise ValueError(f"modes must be at most {tuple(many)}, got {few}")
    places = [
        torch.cat([torch.arange((m + 1) // 2), torch.arange(n - m // 2, n)]) for m, n in zip(few, many, strict=True)
    ]
    places[-1] = torch.arange(few[-1] // 2 + 1)
    return tuple(place.to(device) for place in places)


def _choose(backend: str, modes: Sequence[int], size: Sequence[int]) -> str:
    check_backend(backend)
    if backend != "auto":
        return backend
    return "dft" if all(2 * m <= n <= 1024 for m, n in zip(modes, size, strict=True)) else "crop"


def to_modes(
    u: Float[Tensor, "*batch_and_shape"], modes: Sequence[int], *, backend: str = "auto"
) -> Complex[Tensor, "*batch_and_modes"]:
    """The coefficients of u at the kept wavenumbers; the grid is the last ``len(modes)`` axes.

    In memory the result of ``dft`` has the modes' axes first, ready for a product with a matrix for each mode.

    Args:
        u: real fields.
        modes: number of modes along each axis, of any parity.
        backend: how it is computed.
    Raises:
        ValueError: more modes than the grid holds, or an unknown backend.
    """
    dims = len(modes)
    size = tuple(u.shape[-dims:]) if dims else ()
    modes = check_modes(modes, size)
    backend = _choose(backend, modes, size)
    if backend == "dft":
        pairs = analyse(u, modes)
        lead = pairs.ndim - dims - 1
        order = (*range(lead + 1, pairs.ndim), *range(lead + 1))
        c = torch.view_as_complex(pairs.permute(order).contiguous())
        return c.permute(*range(dims, c.ndim), *range(dims))
    if backend == "fft":
        c = coefficients(u, dims)
        for axis, place in zip(range(-dims, 0), kept_within(modes, size, device=u.device), strict=True):
            c = c.index_select(axis, place)
        return c
    c = torch.fft.rfft(u, dim=-1, norm="forward").narrow(-1, 0, modes[-1] // 2 + 1)
    for axis, m in zip(range(-2, -dims - 1, -1), reversed(modes[:-1]), strict=True):
        c = torch.fft.fft(c, dim=axis, norm="forward")
        if m < c.shape[axis]:
            c = torch.cat([c.narrow(axis, 0, (m + 1) // 2), c.narrow(axis, c.shape[axis] - m // 2, m // 2)], axis)
    return c


def from_modes(
    c: Complex[Tensor, "*batch_and_modes"], modes: Sequence[int], size: Sequence[int], *, backend: str = "auto"
) -> Float[Tensor, "*batch_and_shape"]:
    """The real field on a grid of any size whose kept coefficients are c, all others zero.

    Like ``irfftn`` it takes no notice of the imaginary part where the last axis' mode is its own conjugate. A field without the
    modes n/2 goes to another grid exactly; ``resample`` does so with them.

    Args:
        c: coefficients in the layout of ``to_modes``.
        modes: number of modes along each axis.
        size: number of points along each axis.
        backend: how it is computed.
    Raises:
        ValueError: more modes than the grid holds, coefficients of other modes, or an unknown backend.
    """
    size = check_size(size)
    modes = check_modes(modes, size)
    dims = len(modes)
    if c.shape[-dims:] != kept_shape(modes):
        raise ValueError(f"c must end in {kept_shape(modes)} for modes {modes}, got shape {tuple(c.shape)}")
    backend = _choose(backend, modes, size)
    if backend == "dft":
        return synthesise(torch.view_as_real(c.resolve_conj()).movedim(-1, c.ndim - dims), modes, size)
    for axis, m, n in zip(range(-dims, -1), modes[:-1], size[:-1], strict=True):
        if m < n:
            head, tail = c.split(((m + 1) // 2, m // 2), axis)
            gap = [*c.shape]
            gap[axis] = n - m
            c = torch.cat([head, c.new_zeros(gap), tail], axis)
        if backend == "crop":
            c = torch.fft.ifft(c, dim=axis, norm="forward")
    if backend == "crop":
        return torch.fft.irfft(c, n=size[-1], dim=-1, norm="forward")
    return field(torch.nn.functional.pad(c, (0, size[-1] // 2 + 1 - c.shape[-1])), size)


def analyse(u: Float[Tensor, "*batch_and_shape"], modes: Sequence[int]) -> Float[Tensor, "*batch_pair_and_modes"]:
    """``to_modes`` as products with real matrices, in u's own floating type: an axis of (real, imaginary) stands before the modes'."""
    dims = len(modes)
    size, batch = u.shape[-dims:], u.shape[:-dims]
    columns = modes[-1] // 2 + 1
    pairs = u.reshape(-1, size[-1]) @ _last_axis(size[-1], columns, u.dtype, u.device)[0]
    # Always (rows, points of the axis and the pair, all that is done): the next product needs no permutation.
    done = columns
    for n, m in zip(reversed(size[:-1]), reversed(modes[:-1]), strict=True):
        pairs = _full_axis(n, m, u.dtype, u.device)[0] @ pairs.reshape(-1, 2 * n, done)
        done *= m
    return pairs.reshape(*batch, 2, *kept_shape(modes))


def synthesise(
    pairs: Float[Tensor, "*batch_pair_and_modes"], modes: Sequence[int], size: Sequence[int]
) -> Float[Tensor, "*batch_and_shape"]:
    """``from_modes`` as products with real matrices, in the pairs' own floating type; inverts ``analyse``."""
    dims = len(modes)
    batch, columns = pairs.shape[: -dims - 1], modes[-1] // 2 + 1
    rest = math.prod(modes[:-1]) * columns
    for n, m in zip(size[:-1], modes[:-1], strict=True):
        rest //= m
        pairs = _full_axis(n, m, pairs.dtype, pairs.device)[1] @ pairs.reshape(-1, 2 * m, rest)
    last = _last_axis(size[-1], columns, pairs.dtype, pairs.device)[1]
    return (pairs.reshape(-1, 2 * columns) @ last).reshape(*batch, *size)


@lru_cache(maxsize=64)
def _last_axis(n: int, columns: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Real matrices (n, 2 columns) and (2 columns, n) between a real axis and the pairs of its columns, all real parts first."""
    # A matrix made under inference mode could not be used for training later.
    with torch.inference_mode(False):
        cos, sin = _circle(n, torch.arange(columns))
        twice = torch.full((columns,), 2.0, dtype=torch.float64)
        twice[0] = 1.0
        if n % 2 == 0 and columns == n // 2 + 1:
            twice[-1] = 1.0
        forward = torch.cat([cos, -sin], 1) / n
        backward = torch.cat([cos * twice, -sin * twice], 1).T.contiguous()
        return forward.to(device, dtype), backward.to(device, dtype)


@lru_cache(maxsize=64)
def _full_axis(n: int, m: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Real matrices (2m, 2n) and (2n, 2m) between an axis of complex numbers and its kept modes.

    The pair stands before the modes and after the points, so that (..., points, pair, ...) merge along the chain of axes.
    """
    with torch.inference_mode(False):
        cos, sin = _circle(n, torch.cat([torch.arange((m + 1) // 2), torch.arange(-(m // 2), 0)]))
        real, imaginary = torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)
        backward = torch.stack([real, imaginary], 0).permute(1, 2, 0, 3).reshape(2 * n, 2 * m)
        return (backward.T / n).to(device, dtype).contiguous(), backward.to(device, dtype).contiguous()


def _circle(n: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2π j m / n for the points j and the mode numbers m; the angle is reduced in integers."""
    angle = (torch.arange(n)[:, None] * numbers % n).double() * (2 * math.pi / n)
    return angle.cos(), angle.sin()

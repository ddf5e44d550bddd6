"""Real Fourier transforms on uniform periodic grids: wavenumbers, derivatives, masks, shells, resampling.

The coefficients of a real field are laid out as ``torch.fft.rfftn`` lays them out: full along all axes but the last, of which
only the modes 0 ... n/2 are kept. Transforms are divided by the number of points ("forward"), so that a coefficient does not
depend on the resolution. Fields have any number of leading axes; the grid's axes are the last ones.

The mode n/2 of an axis of even size n stands for n/2 and -n/2 at once: a real cosine on the grid, whose sine is invisible.
Derivatives of odd order set it to zero; resampling splits it.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Complex, Float, Int64
from torch import Tensor

__all__ = [
    "check_length",
    "check_size",
    "coefficients",
    "dealiasing_mask",
    "derivative_symbol",
    "field",
    "mode_numbers",
    "multiplicity",
    "resample",
    "shells",
    "spectrum",
    "wavenumbers",
]


def check_size(size: Sequence[int]) -> tuple[int, ...]:
    """The size as a tuple. Raises ValueError unless it holds one positive integer or more."""
    size = tuple(size)
    if not size or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size):
        raise ValueError(f"size must hold a positive integer for each axis, got {size}")
    return size


def coefficients(u: Float[Tensor, "*shape"], dims: int) -> Complex[Tensor, "*modes"]:
    """Coefficients c_m of u(x) = Σ_m c_m e^{2πi m·x/L} over the last ``dims`` axes."""
    if not 1 <= dims <= u.ndim:
        raise ValueError(f"dims must be from 1 to the {u.ndim} axes of u, got {dims}")
    return torch.fft.rfftn(u, dim=tuple(range(-dims, 0)), norm="forward")


def field(c: Complex[Tensor, "*modes"], size: Sequence[int]) -> Float[Tensor, "*shape"]:
    """The real field on a grid of this size that has the coefficients c; the inverse of ``coefficients``."""
    size = check_size(size)
    return torch.fft.irfftn(c, s=size, dim=tuple(range(-len(size), 0)), norm="forward")


def mode_numbers(size: Sequence[int], *, device: torch.device | str | None = None) -> tuple[Int64[Tensor, "..."], ...]:
    """Integer mode numbers of each axis, shaped to broadcast over the coefficients; n/2 counts as -n/2 but on the last axis.

    Args:
        size: number of points along each axis.
        device: where they are put.
    """
    size = check_size(size)
    numbers = []
    for axis, n in enumerate(size):
        last = axis == len(size) - 1
        m = torch.arange(n // 2 + 1 if last else n, device=device)
        if not last:
            m = (m + n // 2) % n - n // 2
        numbers.append(m.reshape([-1 if other == axis else 1 for other in range(len(size))]))
    return tuple(numbers)


def check_length(length: Sequence[float | int] | float | int, dims: int) -> tuple[float, ...]:
    """One positive length for each axis. Raises ValueError otherwise."""
    lengths = (float(length),) * dims if isinstance(length, (int, float)) else tuple(map(float, length))
    if len(lengths) != dims or not all(0 < side < math.inf for side in lengths):
        raise ValueError(f"length must be positive, one number or {dims}, got {length}")
    return lengths


def wavenumbers(
    size: Sequence[int],
    length: Sequence[float | int] | float | int = 2 * math.pi,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> tuple[Float[Tensor, "..."], ...]:
    """Angular wavenumbers k_j = 2π m_j / L_j of each axis, shaped to broadcast over the coefficients.

    Args:
        size: number of points along each axis.
        length: length of the period along each axis.
        dtype: floating type.
        device: where they are put.
    """
    numbers = mode_numbers(size, device=device)
    lengths = check_length(length, len(numbers))
    return tuple((m.double() * (2 * math.pi / side)).to(dtype) for m, side in zip(numbers, lengths, strict=True))


def derivative_symbol(
    size: Sequence[int],
    orders: Sequence[int],
    length: Sequence[float | int] | float | int = 2 * math.pi,
    *,
    dtype: torch.dtype = torch.complex128,
    device: torch.device | str | None = None,
) -> Complex[Tensor, "..."]:
    """Symbol Π_j (i k_j)^{o_j} of the derivative of order o_j along axis j.

    Along an axis of even size an odd order sets the mode n/2 to zero: its cosine has its derivative's zeros at the grid points.

    Args:
        size: number of points along each axis.
        orders: order along each axis, not negative.
        length: length of the period along each axis.
        dtype: complex type.
        device: where it is put.
    Raises:
        ValueError: sizes, lengths or orders that do not match or make no sense.
    """
    size = check_size(size)
    if len(orders) != len(size) or any(order < 0 or order != int(order) for order in orders):
        raise ValueError(f"orders must hold {len(size)} numbers, whole and not negative, got {tuple(orders)}")
    symbol = torch.ones((1,) * len(size), dtype=torch.complex128, device=device)
    numbers = mode_numbers(size, device=device)
    for n, m, k, order in zip(size, numbers, wavenumbers(size, length, device=device), orders, strict=True):
        if order:
            factor = (1j * k) ** order
            symbol = symbol * (torch.where(2 * m.abs() == n, 0.0, factor) if order % 2 else factor)
    return symbol.to(dtype)


def dealiasing_mask(
    size: Sequence[int], degree: int = 2, *, device: torch.device | str | None = None
) -> Bool[Tensor, "*modes"]:
    """Modes that a product of ``degree`` fields keeps free of aliases: (degree + 1) |m_j| < n_j along every axis.

    Degree 2 is the 2/3 rule, degree 3 the 1/2 rule. Masking the factors and the product makes the kept modes exact.

    Args:
        size: number of points along each axis.
        degree: number of factors, at least 1.
        device: where it is put.
    Raises:
        ValueError: a degree below 1, or an axis so short that only the mean would be left.
    """
    size = check_size(size)
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    if any(n <= degree + 1 and n > 1 for n in size):
        raise ValueError(f"size must exceed {degree + 1} along every axis for products of {degree} fields, got {size}")
    kept = torch.ones((), dtype=torch.bool, device=device)
    for n, m in zip(size, mode_numbers(size, device=device), strict=True):
        kept = kept & ((degree + 1) * m.abs() < n)
    return kept


def multiplicity(
    size: Sequence[int], *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Float[Tensor, "..."]:
    """How often each stored coefficient occurs in the full transform: 1 for the last axis' modes 0 and n/2 (n even), else 2.

    With it Parseval's identity reads mean(u²) = Σ w_m |c_m|².
    """
    size = check_size(size)
    m = mode_numbers(size, device=device)[-1]
    return torch.where((m == 0) | (2 * m == size[-1]), 1.0, 2.0).to(dtype)


def shells(size: Sequence[int], *, device: torch.device | str | None = None) -> Int64[Tensor, "*modes"]:
    """Shell of each coefficient: |m| = sqrt(Σ m_j²) rounded to the next integer."""
    squares = sum(m.square() for m in mode_numbers(size, device=device))
    return torch.as_tensor(squares).double().sqrt().round().long()


def spectrum(u: Float[Tensor, "*batch_and_shape"], dims: int) -> Float[Tensor, "*batch shells"]:
    """Power in shells: E_s = Σ_{|m| rounds to s} |c_m|², so that Σ_s E_s = mean(u²).

    Args:
        u: fields; the grid is the last ``dims`` axes.
        dims: number of axes of the grid.
    """
    size = u.shape[-dims:]
    power = coefficients(u, dims).abs().square() * multiplicity(size, dtype=u.dtype, device=u.device)
    index = shells(size, device=u.device).flatten()
    flat = power.flatten(-dims)
    count = int(math.sqrt(sum((n // 2) ** 2 for n in size)) + 0.5) + 1
    return flat.new_zeros(*flat.shape[:-1], count).index_add_(-1, index, flat)


def resample(u: Float[Tensor, "*batch_and_shape"], size: Sequence[int]) -> Float[Tensor, "*batch_and_size"]:
    """The trigonometric interpolant of u, cut to the modes that the new grid holds, on that grid; both grids start at the same point.

    Going to a finer grid and back is the identity. The mode n/2 of an even axis is split between n/2 and -n/2 on the way up
    and summed on the way down.

    Args:
        u: fields; the grid is the last ``len(size)`` axes.
        size: new number of points along each axis.
    Raises:
        ValueError: a size that is not positive, or more axes than u has.
    """
    size = check_size(size)
    if len(size) > u.ndim:
        raise ValueError(f"size has {len(size)} axes, more than u of shape {tuple(u.shape)}")
    if u.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"u must be float32 or float64, got {u.dtype}")
    for axis, new in zip(range(-len(size), 0), size, strict=True):
        old = u.shape[axis]
        if old == new:
            continue
        c = torch.fft.rfft(u, dim=axis, norm="forward")
        short = min(old, new)
        c = c.narrow(axis, 0, short // 2 + 1)
        if short % 2 == 0:
            edge = c.narrow(axis, short // 2, 1) * (0.5 if new > old else 2.0)
            c = torch.cat([c.narrow(axis, 0, short // 2), edge], axis)
        u = torch.fft.irfft(c, n=new, dim=axis, norm="forward")
    return u

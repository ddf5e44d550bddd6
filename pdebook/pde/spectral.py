"""Spectral calculus on periodic grids: derivatives, Poisson's equation, divergence-free fields, and the basis that steppers work in.

Fields are values at the nodes of a periodic ``Grid``, (batch, channel, *grid). ``Spectral`` works on coefficients as
``pdebook.fourier`` lays them out, but keeps of the last axis only the columns up to the largest mode that the dealiasing mask
lets through: the others take part in no product, and a third of all work is saved. In memory the columns come first, as the
transforms along the other axes leave them.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor

from pdebook import fourier
from pdebook.pde.grid import Grid

__all__ = ["Spectral"]

_ONE_BY_ONE = 1 << 14
"""Number of coefficients from which on fields are transformed one by one on a CPU: measured."""


class Spectral:
    """Fourier basis of a periodic grid, and the differential operators on it.

    First derivatives have the symbol i k_j, zero at the mode n/2 of an even axis (see ``fourier.derivative_symbol``). Divergence,
    gradient, curl and projection share it, so that vector identities hold to rounding.

    Args:
        grid: the grid; periodic along each axis.
        degree: products of so many fields are to be free of aliases: 2 keeps two thirds of the modes of each axis, 3 a half
            (``fourier.dealiasing_mask``). 1 keeps all modes, for linear equations, and where aliases are accepted.
    Raises:
        ValueError: a degree below 1, or a grid too small for it.
    """

    def __init__(self, grid: Grid, degree: int = 1) -> None:
        if degree < 1:
            raise ValueError(f"degree must be at least 1, got {degree}")
        self.grid = grid
        self.degree = degree
        self._axes = tuple(range(-grid.dims, -1))
        mask = fourier.dealiasing_mask(grid.size, degree) if degree > 1 else None
        last = grid.size[-1] // 2 if mask is None else int(mask.nonzero()[:, -1].max())
        self.columns = last + 1
        shape = (*grid.size[:-1], self.columns)
        self.modes = shape
        self._constants: dict[str, Tensor] = {
            "mask": torch.ones(shape, dtype=torch.bool) if mask is None else mask[..., : self.columns].contiguous()
        }
        self._cast: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    # Coefficients

    def forward(self, u: Float[Tensor, "..."]) -> Complex[Tensor, "..."]:
        """Coefficients (..., *modes) of fields (..., *grid). Those outside ``mask`` are cut only along the last axis."""
        c = torch.fft.rfft(u, norm="forward")
        if self.columns < c.shape[-1]:
            c = c[..., : self.columns]
        return torch.fft.fftn(c, dim=self._axes, norm="forward") if self._axes else c

    def inverse(self, c: Complex[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Fields (..., *grid) that have the coefficients (..., *modes)."""
        if self._axes:
            c = torch.fft.ifftn(c, dim=self._axes, norm="forward")
        return torch.fft.irfft(c, n=self.grid.size[-1], norm="forward")

    def constant(self, name: str, like: Tensor) -> Tensor:
        """A symbol in the precision and on the device of some coefficients or field.

        Args:
            name: "gradient", (dims, *modes): i k_j, without the modes n/2; "flux": -i k_j/2; "laplacian": -|k|²; "inverse
                laplacian", zero at the mean; "stream": 1/Σ_j k_j² of the gradient's k_j, zero where they all are; "mask".
            like: coefficients (complex), or a field (real): symbols that are real become real for a field.
        """
        key = (name, like.dtype, like.device)
        found = self._cast.get(key)
        if found is None:
            exact = self._exact(name)
            dtype = exact.dtype if name == "mask" else like.dtype
            found = self._cast[key] = self.arranged(exact.to(device=like.device, dtype=dtype))
        return found

    def arranged(self, c: Tensor) -> Tensor:
        """The same numbers, in memory as transforms leave coefficients: what is multiplied goes through memory alike."""
        return c.movedim(-1, -self.grid.dims).contiguous().movedim(-self.grid.dims, -1)

    def fields(
        self, symbols: Complex[Tensor, "count *modes"], c: Complex[Tensor, "batch 1 *modes"]
    ) -> Sequence[Tensor]:
        """The fields (batch, 1, *grid) whose coefficients are those of c times each symbol.

        One transform makes all, but on a CPU where they would leave the caches: there one follows the other.
        """
        if c.device.type == "cpu" and c.numel() > _ONE_BY_ONE:
            return [self.inverse(symbol * c) for symbol in symbols]
        return self.inverse(symbols * c).split(1, 1)

    def _exact(self, name: str) -> Tensor:
        """The symbol in double precision."""
        if name not in self._constants:
            self._constants[name] = _SYMBOLS[name](self)
        return self._constants[name]

    @property
    def mask(self) -> Tensor:
        """Modes that take part in products, (*modes)."""
        return self._constants["mask"]

    @property
    def gradient_symbol(self) -> Tensor:
        """i k_j, (dims, *modes), complex128."""
        return self._exact("gradient")

    @property
    def laplacian_symbol(self) -> Tensor:
        """-|k|², (*modes), float64."""
        return self._exact("laplacian")

    @property
    def inverse_laplacian_symbol(self) -> Tensor:
        """-1/|k|², zero at the mean, (*modes), float64."""
        return self._exact("inverse laplacian")

    def derivative_symbol(self, orders: Sequence[int]) -> Tensor:
        """Π_j (i k_j)^{o_j}, (*modes) after broadcasting, complex128."""
        symbol = fourier.derivative_symbol(self.grid.size, orders, self.grid.length)
        return symbol.expand(*self.grid.size[:-1], -1)[..., : self.columns] if symbol.shape[-1] > 1 else symbol

    # Operators on fields

    def _apply(self, u: Tensor, channels: int | None, symbol: Callable[[Tensor], Tensor]) -> Tensor:
        self.grid.check(u, channels=channels)
        return self.inverse(symbol(self.forward(u)))

    def derivative(self, u: Shaped[Tensor, "..."], orders: Sequence[int]) -> Float[Tensor, "..."]:
        """The derivative of order ``orders[j]`` along axis j."""
        symbol = self.derivative_symbol(orders)
        return self._apply(u, None, lambda c: symbol.to(device=c.device, dtype=c.dtype) * c)

    def gradient(self, u: Shaped[Tensor, "..."]) -> Float[Tensor, "batch dims *grid"]:
        """∇u."""
        return self._apply(u, 1, lambda c: self.constant("gradient", c) * c)

    def jacobian(self, u: Shaped[Tensor, "..."]) -> Float[Tensor, "batch channel dims *grid"]:
        """∂u_i / ∂x_j at [:, i, j]."""
        return self._apply(u, None, lambda c: self.constant("gradient", c) * c.unsqueeze(2))

    def divergence(self, u: Shaped[Tensor, "..."]) -> Float[Tensor, "batch 1 *grid"]:
        """∇·u."""
        return self._apply(u, self.grid.dims, lambda c: self.divergence_of(c))

    def laplacian(self, u: Shaped[Tensor, "..."], power: int = 1) -> Float[Tensor, "..."]:
        """Δᵖu, p >= 1."""
        if power < 1:
            raise ValueError(f"power must be at least 1, got {power}; see inverse_laplacian")
        return self._apply(u, None, lambda c: self.constant("laplacian", c) ** power * c)

    def inverse_laplacian(self, f: Shaped[Tensor, "..."]) -> Float[Tensor, "batch channel *grid"]:
        """The u of mean zero with Δu = f - mean(f)."""
        return self._apply(f, None, lambda c: self.constant("inverse laplacian", c) * c)

    def leray(self, u: Shaped[Tensor, "..."]) -> Float[Tensor, "batch dims *grid"]:
        """The divergence-free part u - ∇Δ⁻¹∇·u; its mean is that of u."""
        return self._apply(u, self.grid.dims, self.leray_of)

    def vorticity(self, u: Shaped[Tensor, "..."]) -> Float[Tensor, "batch _ *grid"]:
        """∇ × u: in two dimensions ∂v/∂x - ∂u/∂y, one channel; in three, three."""
        self._several("vorticity")
        return self._apply(u, self.grid.dims, self.vorticity_of)

    def velocity(self, vorticity: Shaped[Tensor, "..."]) -> Float[Tensor, "batch dims *grid"]:
        """The divergence-free velocity of mean zero with this vorticity: (∂ψ/∂y, -∂ψ/∂x), -Δψ = ω; in three dimensions ∇ × (-Δ)⁻¹ω."""
        self._several("velocity")
        return self._apply(vorticity, 1 if self.grid.dims == 2 else 3, self.velocity_of)

    def stream(self, vorticity: Shaped[Tensor, "..."]) -> Float[Tensor, "batch channel *grid"]:
        """The stream function (vector potential in three dimensions) of mean zero: -Δψ = ω."""
        return -self.inverse_laplacian(vorticity)

    def truncate(self, u: Shaped[Tensor, "..."]) -> Float[Tensor, "batch channel *grid"]:
        """The field without the modes outside ``mask``."""
        return self._apply(u, None, lambda c: self.constant("mask", c) * c)

    def _several(self, what: str) -> None:
        if self.grid.dims == 1:
            raise ValueError(f"{what} needs a grid of two or three dimensions, got {self.grid.size}")

    # Operators on coefficients

    def divergence_of(self, c: Complex[Tensor, "batch dims *modes"]) -> Complex[Tensor, "batch 1 *modes"]:
        """Coefficients of ∇·u."""
        return (self.constant("gradient", c) * c).sum(1, keepdim=True)

    def leray_of(self, c: Complex[Tensor, "batch dims *modes"]) -> Complex[Tensor, "batch dims *modes"]:
        """Coefficients of the divergence-free part: (1 - k kᵀ/|k|²) û."""
        return c + self.constant("gradient", c) * (self.constant("stream", c) * self.divergence_of(c))

    def vorticity_of(self, c: Complex[Tensor, "batch dims *modes"]) -> Complex[Tensor, "batch _ *modes"]:
        """Coefficients of ∇ × u."""
        ik = self.constant("gradient", c)
        if self.grid.dims == 2:
            return ik[0] * c[:, 1:] - ik[1] * c[:, :1]
        return torch.linalg.cross(ik.unsqueeze(0).expand_as(c), c, dim=1)

    def velocity_of(self, c: Complex[Tensor, "batch _ *modes"]) -> Complex[Tensor, "batch dims *modes"]:
        """Coefficients of the velocity with vorticity c."""
        psi = self.constant("stream", c) * c
        ik = self.constant("gradient", c)
        if self.grid.dims == 2:
            return torch.cat([ik[1] * psi, -ik[0] * psi], 1)
        return torch.linalg.cross(ik.unsqueeze(0).expand_as(psi), psi, dim=1)


def _gradient(basis: Spectral) -> Tensor:
    dims = basis.grid.dims
    orders = ([int(axis == other) for other in range(dims)] for axis in range(dims))
    return torch.stack([basis.derivative_symbol(order).expand(basis.modes) for order in orders])


def _laplacian(basis: Spectral) -> Tensor:
    k = fourier.wavenumbers(basis.grid.size, basis.grid.length)
    return -torch.as_tensor(sum(part.square() for part in k))[..., : basis.columns].contiguous()


def _inverse(symbol: Tensor) -> Tensor:
    return torch.where(symbol == 0, 0.0, 1 / symbol)


_SYMBOLS: dict[str, Callable[[Spectral], Tensor]] = {
    "gradient": _gradient,
    "flux": lambda basis: -0.5 * basis.gradient_symbol,
    "laplacian": _laplacian,
    "inverse laplacian": lambda basis: _inverse(_laplacian(basis)),
    "stream": lambda basis: _inverse(basis.gradient_symbol.imag.square().sum(0)),
}

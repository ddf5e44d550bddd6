"""Networks whose input is a point: u(x), and u(x; α) with a latent vector α that chooses the field.

They are made of operations that jets know (see ``jets``), so their derivatives in x come in forward mode, all at once.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pdebook.nn.mlp import _check_sizes

__all__ = ["FourierFeatures", "HardConstraint", "MultiplicativeFilters", "Siren", "decoder_jacobian"]


class FourierFeatures(nn.Module):
    """(sin 2πBx, cos 2πBx) with fixed frequencies B ~ N(0, scale²), shape (features, inputs).

    Args:
        inputs: size of x.
        features: number of frequencies; the output is twice as large.
        scale: standard deviation of the frequencies, in periods per unit length.
    Raises:
        ValueError: a size below 1, or a scale that is not positive.
    Source: Tancik et al. 2020, section 5.
    """

    frequencies: Tensor

    def __init__(self, inputs: int, features: int, scale: float | int = 1.0) -> None:
        super().__init__()
        _check_sizes(inputs=inputs, features=features)
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.register_buffer("frequencies", scale * torch.randn(features, inputs))

    def forward(self, x: Any) -> Any:
        """Features of points (..., inputs), or of their jet."""
        phase = nn.functional.linear(x, 2 * math.pi * self.frequencies)
        return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class Siren(nn.Module):
    """x to W_L φ(... φ(W_0 x + b_0) ...) + b_L with φ(z) = sin(ω z), for x in [-1, 1]^inputs or so.

    Weights begin uniform in ± sqrt(6 / fan-in) / ω, those of the first layer in ± 1 / fan-in, so that the phases are N(0, 1)
    at every depth; biases as ``nn.Linear`` has them.

    Args:
        inputs: size of x.
        outputs: size of u.
        width: size of each hidden layer.
        depth: number of square layers between the first and the last one.
        omega: ω.
    Raises:
        ValueError: a size below 1, a negative depth, an ω that is not positive.
    Source: Sitzmann et al. 2020, theorem 1.8 and section 3.2.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int, depth: int = 2, omega: float | int = 30.0) -> None:
        super().__init__()
        _check_sizes(inputs=inputs, outputs=outputs, width=width)
        if depth < 0:
            raise ValueError(f"depth must not be negative, got {depth}")
        if not omega > 0:
            raise ValueError(f"omega must be positive, got {omega}")
        self.omega = float(omega)
        sizes = [inputs, *[width] * (depth + 1)]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.last = nn.Linear(width, outputs)
        with torch.no_grad():
            for layer in [*self.hidden, self.last]:
                assert isinstance(layer, nn.Linear)
                first = layer is self.hidden[0]
                bound = 1.0 / inputs if first else math.sqrt(6.0 / layer.in_features) / self.omega
                layer.weight.uniform_(-bound, bound)

    def forward(self, x: Any) -> Any:
        """The field at points (..., inputs), or its jet."""
        for layer in self.hidden:
            x = torch.sin(layer(x) * self.omega)
        return self.last(x)


class MultiplicativeFilters(nn.Module):
    """z_1 = (b_0 + H_0 α) g_0(x), z_{l+1} = (A_l z_l + b_l + H_l α) g_l(x), output linear in the last z.

    The filters are g_l(x) = (sin W_l x, cos W_l x); products are entry by entry. A field of this kind is a sum of sines of x with
    many frequencies, and the latent vector shifts the biases.

    Args:
        inputs: size of x.
        outputs: size of u.
        width: size of z, even.
        depth: number of filters, at least 1.
        latent: size of α; 0 for a plain field.
        scale: the entries of W_l begin with standard deviation scale sqrt(2 / inputs).
    Raises:
        ValueError: sizes out of range, an odd width, a scale that is not positive.
    Source: Fathony et al. 2021, equation 2; with latent shifts Yin et al. 2023 (DINo), appendix.
    """

    def __init__(
        self, inputs: int, outputs: int, *, width: int, depth: int = 3, latent: int = 0, scale: float | int = 1.0
    ) -> None:
        super().__init__()
        _check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        if width % 2:
            raise ValueError(f"width must be even, got {width}")
        if latent < 0:
            raise ValueError(f"latent must not be negative, got {latent}")
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.filters = nn.ModuleList(nn.Linear(inputs, width // 2, bias=False) for _ in range(depth))
        self.linear = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.first = nn.Parameter(torch.empty(width).uniform_(-1.0, 1.0))
        self.shifts = nn.ModuleList(nn.Linear(latent, width, bias=False) for _ in range(depth)) if latent else None
        self.last = nn.Linear(width, outputs)
        with torch.no_grad():
            for layer in self.filters:
                assert isinstance(layer, nn.Linear)
                layer.weight.normal_(0.0, scale * math.sqrt(2.0 / inputs))

    def forward(self, x: Any, latent: Float[Tensor, "*batch latent"] | None = None) -> Any:
        """The field at points (..., inputs), or its jet; ``latent`` broadcasts against the points.

        Raises:
            ValueError: a latent vector that is missing or not wanted.
        """
        if (latent is None) != (self.shifts is None):
            raise ValueError("latent must be given exactly if the network was made with a latent size")
        z: Any = None
        for number, layer in enumerate(self.filters):
            phase = layer(x)
            g = torch.cat([torch.sin(phase), torch.cos(phase)], -1)
            shift = 0.0 if self.shifts is None else self.shifts[number](latent)
            z = g * (self.first + shift) if number == 0 else g * (self.linear[number - 1](z) + shift)
        return self.last(z)


class HardConstraint(nn.Module):
    """u(x) = g(x) + d(x) N(x): whatever the network N is, u = g where d = 0.

    Args:
        network: N.
        distance: d, zero where u is given.
        lift: g, the given values continued to the domain; zero if left out.
    Source: Lagaris, Likas and Fotiadis 1998.
    """

    def __init__(
        self, network: nn.Module, distance: Callable[[Any], Any], lift: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.distance = distance
        self.lift = lift

    def forward(self, x: Any) -> Any:
        """The field at points (..., inputs), or its jet."""
        inner = self.network(x) * self.distance(x)
        return inner if self.lift is None else inner + self.lift(x)


def decoder_jacobian(
    decoder: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "batch points dim"],
    latent: Float[Tensor, "batch latent"],
) -> tuple[Float[Tensor, "batch points outputs"], Float[Tensor, "batch points outputs latent"]]:
    """Values of u(x; α) and their Jacobian in α, by one forward derivative for each entry of α.

    Args:
        decoder: (points, latent vector broadcast to them) to values, point by point.
        x: points of each sample.
        latent: α of each sample.
    """
    units = torch.eye(latent.shape[1], dtype=latent.dtype, device=latent.device)

    def values(alpha: Tensor) -> Tensor:
        return decoder(x, alpha[:, None])

    def along(unit: Tensor) -> Tensor:
        return torch.func.jvp(values, (latent,), (unit.expand_as(latent),))[1]

    return values(latent), torch.func.vmap(along, out_dims=-1)(units)

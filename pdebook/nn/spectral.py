"""Spectral convolution: a linear map of the channels for each of the lowest Fourier modes, in one to three dimensions."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from pdebook.fourier import check_size
from pdebook.nn.decompositions import Rank
from pdebook.nn.factorized import WEIGHTS, Dense, Factorized
from pdebook.truncated import (
    analyse,
    check_backend,
    check_modes,
    from_modes,
    kept_shape,
    kept_within,
    synthesise,
    to_modes,
)


class SpectralConv(nn.Module):
    """(Kv)(x) = b + Σ_κ e^{2πi κ·x/L} W_κ v̂_κ over the kept wavenumbers κ; real fields in and out.

    Coefficients are divided by the number of points, so that the same weights act on every grid. The bias is the coefficient of
    mode 0. Weights start as complex normal numbers of standard deviation ``scale``, or ("uniform") with real and imaginary
    parts in [0, scale), as in the first FNO.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        modes: modes of each axis in total, also odd; of the last one modes // 2 + 1 columns are stored. See ``truncated``.
        bias: whether there is one, of the same standard deviation.
        weight: "dense", "tucker", "cp", "tt", or a tensor of ``factorized`` that layers share.
        rank: see ``factorized``; not used by dense weights.
        layer: which layer of a shared tensor this is.
        separable: one number for each channel and mode instead of a matrix; as many outputs as inputs.
        init: distribution of the weights.
        scale: its scale; sqrt(2 / (inputs + outputs)) for normal, 1 / (inputs outputs) for uniform ones if left out.
        backend: how the transforms are computed.
        precision: floating type of the whole spectral path, transforms included (as matrix products); weights are kept as they are.
    Attributes:
        weight: the tensor.
        active: modes in use; see ``set_modes``.
    Raises:
        ValueError: sizes below 1, a rank out of range, shared weights of another shape, unknown options; on use, other channels
            than promised, complex fields, or more modes than a grid holds.
    Source: Li et al. 2021, Fourier neural operator for parametric partial differential equations, equation (4).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: Sequence[int],
        *,
        bias: bool = True,
        weight: str | Factorized = "dense",
        rank: Rank = 1.0,
        layer: int | None = None,
        separable: bool = False,
        init: str = "normal",
        scale: float | None = None,
        backend: str = "auto",
        precision: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.modes = self.active = check_modes(modes)
        if inputs < 1 or outputs < 1 or (separable and inputs != outputs):
            raise ValueError(
                f"inputs and outputs must be at least 1, and equal if separable, got {inputs} and {outputs}"
            )
        if precision not in (None, torch.float16, torch.bfloat16) or (
            precision is not None and backend not in ("auto", "dft")
        ):
            raise ValueError(
                f"precision must be torch.float16 or torch.bfloat16, with backend 'auto' or 'dft', got {precision}, {backend!r}"
            )
        check_backend(backend)
        if scale is not None and not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive, got {scale}")
        self.inputs, self.outputs, self.separable = inputs, outputs, separable
        self.backend, self.precision, self.layer = backend, precision, layer
        shape = (*((inputs,) if separable else (inputs, outputs)), *kept_shape(self.modes))
        if init not in ("normal", "uniform"):
            raise ValueError(f"init must be 'normal' or 'uniform', got {init!r}")
        scale = scale or (math.sqrt(2.0 / (inputs + outputs)) if init == "normal" else 1.0 / (inputs * outputs))
        if isinstance(weight, Factorized):
            _check_shared(weight, shape, separable, layer)
            self.weight = weight
        else:
            if weight not in WEIGHTS:
                raise ValueError(f"weight must be one of {sorted(WEIGHTS)} or a shared tensor, got {weight!r}")
            if layer is not None:
                raise ValueError(f"layer must be None for weights that are not shared, got {layer}")
            self.weight = WEIGHTS[weight](shape, rank, separable=separable)
            if init == "uniform":
                if not isinstance(self.weight, Dense):
                    raise ValueError(f"init must be 'normal' for weights in factors, got {init!r} for {weight!r}")
                nn.init.uniform_(self.weight.matrices, 0.0, scale)
            else:
                self.weight.initialise(scale)
        self.bias = nn.Parameter(scale * torch.randn(outputs)) if bias else None

    def set_modes(self, modes: Sequence[int]) -> None:
        """Use the lowest modes alone, as incremental training does; at most those that the layer was made with."""
        kept_within(modes, self.modes)
        self.active = tuple(modes)

    def to_dense(self) -> Complex[Tensor, "..."]:
        """W with axes (inputs, outputs, *kept modes), or (channels, *kept modes) if separable."""
        dense = self.weight.to_dense()
        return dense if self.layer is None else dense[self.layer]

    @torch.no_grad()
    def factorized(self, weight: str, rank: Rank) -> "SpectralConv":
        """A layer whose weights are the decomposition of this one's: HOSVD, TT-SVD, or alternating least squares for "cp"."""
        layer = SpectralConv(
            self.inputs,
            self.outputs,
            self.modes,
            bias=self.bias is not None,
            weight=weight,
            rank=rank,
            separable=self.separable,
            backend=self.backend,
            precision=self.precision,
        )
        dense = self.to_dense()
        layer.to(device=dense.device, dtype=dense.real.dtype)
        layer.weight.load_dense(dense)
        if self.bias is not None and layer.bias is not None:
            layer.bias.copy_(self.bias)
        layer.active = self.active
        return layer

    def forward(
        self, x: Float[Tensor, "batch inputs *grid"], size: Sequence[int] | None = None
    ) -> Float[Tensor, "batch outputs *new_grid"]:
        """The output on the input's grid, or on one of another size that starts at the same point."""
        dims = len(self.modes)
        if x.ndim != dims + 2 or x.shape[1] != self.inputs:
            raise ValueError(
                f"x must have {self.inputs} channels and {dims} axes of a grid, got shape {tuple(x.shape)}"
            )
        if x.is_complex():
            raise ValueError(f"x must be real, got {x.dtype}")
        size = tuple(x.shape[2:]) if size is None else check_size(size)
        check_modes(self.active, size)
        # Autocast would run the transforms in half precision, unasked.
        with torch.autocast(x.device.type, enabled=False):
            if self.precision is not None:
                return self._reduced(x, size, self.precision)
            dtype = x.dtype if x.dtype == torch.float64 else torch.float32
            c = to_modes(x.to(dtype), self.active, backend=self.backend)
            c = c.movedim((0, 1), (-2, -1)).flatten(0, -3)
            y = self.weight.apply_to(c, self.layer, self._places(x.device))
            if self.bias is not None:
                y[0] = y[0] + self.bias
            y = y.reshape(*kept_shape(self.active), *y.shape[1:]).movedim((-2, -1), (0, 1))
            return from_modes(y, self.active, size, backend=self.backend)

    def _places(self, device: torch.device) -> tuple[Tensor, ...] | None:
        return None if self.active == self.modes else kept_within(self.active, self.modes, device=device)

    def _reduced(self, x: Tensor, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The same in half precision: there are no complex numbers of that kind, so pairs are multiplied out."""
        batch = len(x)
        pairs = analyse(x.to(dtype), self.active)
        # (modes, part and batch, inputs)
        pairs = pairs.flatten(3).permute(3, 2, 0, 1)
        w = self._matrices(x.device).to(dtype)
        if self.separable:
            parts = pairs[..., None] * w[:, None, None]
        else:
            parts = (pairs.flatten(1, 2) @ w.flatten(2)).reshape(*pairs.shape[:3], self.outputs, 2)
        real = parts[:, 0, ..., 0] - parts[:, 1, ..., 1]
        imaginary = parts[:, 0, ..., 1] + parts[:, 1, ..., 0]
        if self.bias is not None:
            real[0] = real[0] + self.bias.to(dtype)
        y = torch.stack([real, imaginary]).permute(2, 3, 0, 1)
        return synthesise(y.reshape(batch, self.outputs, 2, *kept_shape(self.active)), self.active, size).to(x.dtype)

    def _matrices(self, device: torch.device) -> Tensor:
        """Pairs (modes, inputs, outputs, 2), or (modes, channels, 2) if separable."""
        places = self._places(device)
        if isinstance(self.weight, Dense):
            return torch.view_as_real(self.weight.layer(None, places)[0])
        w = self.to_dense()
        if places is not None:
            for axis, place in zip(range(-len(places), 0), places, strict=True):
                w = w.index_select(axis, place)
        return torch.view_as_real(w.flatten(2 - self.separable).movedim(-1, 0).contiguous())


def _check_shared(weight: Factorized, shape: tuple[int, ...], separable: bool, layer: int | None) -> None:
    if not weight.shared or weight.separable != separable or weight.shape[1:] != shape:
        raise ValueError(
            f"weight must be a shared tensor of shape (layers, {', '.join(map(str, shape))}), got {weight.shape}"
        )
    if layer is None or not 0 <= layer < weight.shape[0]:
        raise ValueError(f"layer must be a layer of the shared tensor, 0 ... {weight.shape[0] - 1}, got {layer}")

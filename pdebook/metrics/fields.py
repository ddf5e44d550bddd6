"""Errors of predicted fields, accumulated exactly over batches: PDEBench's metrics, relative norms, correlation times.

A field is (batch, ..., *grid); ``dims`` is the number of the grid's axes. Every metric is a tensor over the axes between, such as
times and channels, so that curves over time are there; a mean over them is the reader's.

| name | definition, e the error |
|---|---|
| rmse | mean_b sqrt(mean_x e²) |
| nrmse | mean_b sqrt(mean_x e²) / sqrt(mean_x u²), the relative L2 error |
| relative_l1, relative_h1 | the same in L1, and in H1 by Fourier derivatives (by finite differences on a grid with ends) |
| crmse | sqrt(mean_b (mean_x e)²): the error of what should be conserved |
| brmse | mean_b of the root mean square of e on the faces of the grid, a corner counted once for each of its faces |
| max | max_{b,x} of the error's size |
| frmse_low, _mid, _high | bands of wavenumbers; see ``FieldMetrics`` |

Source: Takamoto et al. 2022, PDEBench, appendix B and its code, which divides sums over batches by their number less one.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.fourier import check_length, coefficients, multiplicity, shells
from pdebook.losses import relative_h1, relative_lp

__all__ = ["FieldMetrics", "correlation", "crossing_time"]

BANDS = ("low", "mid", "high")


class FieldMetrics:
    """Sums over all samples seen; any division into batches gives the same metrics.

    Bands of |k| are low, mid and high, and three conventions name their error:

    - "isotropic": mean_b sqrt(Σ power of e in the band), shells of |k| rounded, bands [0, c), [c, d), [d, ∞): for one sample the
      squares of the three sum to rmse². For readers.
    - "paper": mean_b sqrt(Σ |ê|²) / (number of shells), bands 0 ... c, c + 1 ... d, d + 1 ... n/2, in one dimension the stored modes.
    - "official": mean over the band's shells of L^d sqrt(mean_b Σ |ê|²), bands [0, c), [c, d), [d, ∞). In two and three dimensions
      the sum takes the wavenumbers that are not negative alone, in shells of |k| rounded down, up to the shortest axis' n/2.

    ê is divided by the number of points.

    Args:
        dims: axes of the grid, 1 to 3.
        cuts: c and d: 4 and 12.
        convention: of the bands.
        length: length of each axis, for "official" and H1.
        periodic: whether the grid is, for H1.
    Raises:
        ValueError: arguments out of range; on use, shapes that differ, and no samples.
    """

    def __init__(
        self,
        dims: int,
        *,
        cuts: tuple[int, int] = (4, 12),
        convention: str = "isotropic",
        length: Sequence[float | int] | float | int = 1.0,
        periodic: bool = True,
    ) -> None:
        if dims not in (1, 2, 3):
            raise ValueError(f"dims must be 1, 2 or 3, got {dims}")
        if len(cuts) != 2 or not all(isinstance(c, int) for c in cuts) or not 0 < cuts[0] < cuts[1]:
            raise ValueError(f"cuts must rise from above 0, got {cuts}")
        if convention not in ("isotropic", "paper", "official"):
            raise ValueError(f"convention must be 'isotropic', 'paper' or 'official', got {convention!r}")
        self.dims, self.cuts, self.convention = dims, cuts, convention
        self.length, self.periodic = check_length(length, dims), periodic
        self.count = 0
        self._sums: dict[str, Tensor] = {}
        self._largest: Tensor | None = None

    @torch.no_grad()
    def update(self, prediction: Float[Tensor, "..."], target: Float[Tensor, "..."]) -> "FieldMetrics":
        """Take a batch; returns the metrics."""
        if prediction.shape != target.shape or target.ndim < self.dims + 1:
            raise ValueError(
                f"prediction and target must be alike, (batch, ..., *grid) with {self.dims} axes of a grid, "
                f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        if target.is_complex() or prediction.is_complex() or not target.numel():
            raise ValueError(
                f"target must be real and hold a sample or more, got {tuple(target.shape)}, {target.dtype}"
            )
        grid = tuple(range(-self.dims, 0))
        error = (prediction - target).double()
        root = error.square().mean(grid).sqrt()
        parts = {
            "rmse": root,
            "nrmse": root / target.double().square().mean(grid).sqrt(),
            "relative_l1": self._relative(relative_lp, prediction, target, p=1),
            "relative_h1": self._relative(
                relative_h1,
                prediction,
                target,
                length=self.length,
                periodic=self.periodic,
                method="spectral" if self.periodic else "central2",
            ),
            "crmse": error.mean(grid).square(),
            "brmse": self._faces(error),
            "bands": self._bands(error),
        }
        sums = {name: part.sum(0) for name, part in parts.items()}
        largest = error.abs().amax((0, *grid))
        if self._largest is None:
            self._sums, self._largest = sums, largest
        elif largest.shape != self._largest.shape or sums["bands"].shape != self._sums["bands"].shape:
            raise ValueError(f"prediction must have the shape of earlier batches, got {tuple(prediction.shape)}")
        else:
            self._sums = {name: self._sums[name] + part for name, part in sums.items()}
            self._largest = torch.maximum(self._largest, largest)
        self.count += len(error)
        return self

    def compute(self) -> dict[str, Float[Tensor, "..."]]:
        """The metrics of all samples so far, float64."""
        if self._largest is None:
            raise ValueError("metrics must see a batch first, got none")
        means = {name: part / self.count for name, part in self._sums.items()}
        bands = means.pop("bands")
        means["crmse"] = means["crmse"].sqrt()
        if self.convention == "official":
            root = bands.sqrt() * math.prod(self.length)
            bands = torch.stack([root[..., a:b].mean(-1) for a, b in self._edges(root.shape[-1])], -1)
        return means | {"max": self._largest} | {f"frmse_{name}": bands[..., i] for i, name in enumerate(BANDS)}

    def _relative(self, norm: Callable[..., Tensor], prediction: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Of each field by itself, whatever axes stand before the grid."""
        pair = (u.double().unsqueeze(1) for u in (prediction, target))
        return norm(*pair, dims=self.dims, over="grid", mean=False, **options)[:, 0]

    def _edges(self, count: int) -> list[tuple[int, int]]:
        low, high = self.cuts
        if self.convention == "paper":
            low, high = low + 1, high + 1
        return [(0, low), (low, high), (high, max(count, high))]

    def _faces(self, error: Tensor) -> Tensor:
        """Root mean square over the cells of all faces."""
        squares, cells = torch.zeros((), dtype=error.dtype, device=error.device), 0
        for axis in range(-self.dims, 0):
            face = error.index_select(axis, torch.tensor([0, error.shape[axis] - 1], device=error.device)).square()
            squares = squares + face.sum(tuple(range(-self.dims, 0)))
            cells += math.prod(face.shape[-self.dims :])
        return (squares / cells).sqrt()

    def _bands(self, error: Tensor) -> Tensor:
        """What is to be averaged over samples: errors of the bands, or for "official" the power in each shell."""
        size = error.shape[-self.dims :]
        c = coefficients(error, self.dims)
        power = c.abs().square()
        if self.convention == "official" and self.dims == 1:
            return power
        if self.convention == "official":
            last = min(n // 2 for n in size)
            for axis in range(-self.dims, 0):
                power = power.narrow(axis, 0, size[axis] // 2)
            axes = [torch.arange(n // 2, device=error.device) for n in size]
            index = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).double().sqrt().floor().long()
            return _shell_sums(power, index, self.dims, last)
        if self.convention == "isotropic":
            power = power * multiplicity(size, device=error.device)
        count = math.isqrt(sum((n // 2) ** 2 for n in size)) + 2
        per_shell = _shell_sums(power, shells(size, device=error.device), self.dims, count)
        roots = []
        for a, b in self._edges(max(n // 2 for n in size) + 1 if self.convention == "paper" else count):
            root = per_shell[..., a:b].sum(-1).sqrt()
            roots.append(root / max(b - a, 1) if self.convention == "paper" else root)
        return torch.stack(roots, -1)


def _shell_sums(power: Tensor, index: Tensor, dims: int, count: int) -> Tensor:
    """Sums of the power over modes with the same index; indices from ``count`` on are dropped."""
    flat, index = power.flatten(-dims), index.flatten()
    sums = flat.new_zeros(*flat.shape[:-1], max(count, int(index.max()) + 1)).index_add_(-1, index, flat)
    return sums[..., :count]


def correlation(
    prediction: Float[Tensor, "..."], target: Float[Tensor, "..."], *, dims: int
) -> Float[Tensor, "*batch"]:
    """Pearson's correlation over the grid: of what is left when each field's mean is taken away.

    Raises:
        ValueError: shapes that differ, or more axes than there are.
    """
    if not 1 <= dims <= target.ndim:
        raise ValueError(f"dims must be from 1 to {target.ndim}, got {dims}")
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction must have the target's shape {tuple(target.shape)}, got {tuple(prediction.shape)}"
        )
    axes = tuple(range(-dims, 0))
    a, b = (u - u.mean(axes, keepdim=True) for u in (prediction, target))
    return (a * b).sum(axes) / (torch.linalg.vector_norm(a, dim=axes) * torch.linalg.vector_norm(b, dim=axes))


def crossing_time(
    values: Float[Tensor, "*batch _"], times: Float[Tensor, "..."], threshold: float | int, *, below: bool = True
) -> Float[Tensor, "*batch"]:
    """The first time at which a value lies below (or above) a threshold, or is not a number; the last time if none does.

    With correlations it is the correlation time, with errors and ``below=False`` the time for which a forecast is valid.

    Raises:
        ValueError: times of another number, none of them, or a threshold that is no number.
    """
    if times.ndim != 1 or values.shape[-1:] != times.shape:
        raise ValueError(f"times must hold {values.shape[-1]} numbers, got shape {tuple(times.shape)}")
    if not len(times) or math.isnan(threshold):
        raise ValueError(f"times and threshold must hold a number, got {len(times)} times and {threshold}")
    good = values >= threshold if below else values <= threshold
    # The number of good values before the first bad one.
    first = good.long().cumprod(-1).sum(-1).clamp(max=len(times) - 1)
    return times[first]

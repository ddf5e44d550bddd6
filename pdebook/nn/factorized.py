"""Complex weight tensors in factors: Tucker, CP and tensor train, and dense; contracted without building the tensor.

A weight W of a spectral convolution has the axes (inputs, outputs, *modes), of a separable one (channels, *modes), and one that
several layers share has the layers' axis first. All are stored as real pairs, the last axis of each parameter: optimisers,
checkpoints and half precision then need no complex numbers. ``complex_pairs`` names such parameters to who counts them.

Source: Kossaifi, Kovachki, Azizzadenesheli and Anandkumar 2024, Multi-grid tensorized Fourier neural operator, section 3.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Complex, Int64
from torch import Tensor, nn

from pdebook.nn.complex_product import product
from pdebook.nn.decompositions import (
    Rank,
    alternating_least_squares,
    check_shape,
    cp_rank,
    hosvd,
    khatri_rao,
    tt_rank,
    tt_svd,
    tucker_rank,
)

__all__ = ["CP", "WEIGHTS", "Dense", "Factorized", "TensorTrain", "Tucker"]

Places = Sequence[Int64[Tensor, "_"]] | None


def _pairs(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape, 2))


def _normal(parameter: Tensor, std: float) -> None:
    """Complex normal numbers z with E|z|² = std²."""
    nn.init.normal_(parameter, std=std / math.sqrt(2.0))


class Factorized(nn.Module):
    """A complex tensor of a given shape, stored as real pairs.

    Args:
        shape: of the tensor: ([layers], inputs, outputs, *modes), or ([layers], channels, *modes).
        separable: whether one axis of channels stands for inputs and outputs.
        shared: whether there is a first axis, of layers that share the tensor.
    Attributes:
        rank: ranks of the factors, as integers.
    Raises:
        ValueError: a shape with too few axes, or a rank out of range.
    """

    kind: ClassVar[str]

    def __init__(self, shape: Sequence[int], *, separable: bool = False, shared: bool = False) -> None:
        super().__init__()
        self.shape = check_shape(shape)
        self.separable, self.shared = separable, shared
        self.rank: tuple[int, ...] = ()
        if len(self.shape) < 3 - separable + shared:
            raise ValueError(
                f"shape must be ([layers], {'channels' if separable else 'inputs, outputs'}, *modes), got {shape}"
            )

    def complex_pairs(self) -> Iterator[nn.Parameter]:
        """The parameters that hold complex numbers as pairs."""
        yield from self.parameters()

    def parts(self) -> list[Tensor]:
        """The stored numbers as complex tensors that share their memory."""
        return [torch.view_as_complex(p) for p in self.parameters()]

    def initialise(self, std: float) -> None:
        """Draw the numbers so that those of the tensor have standard deviation ``std``."""
        raise NotImplementedError

    def to_dense(self) -> Complex[Tensor, "..."]:
        """The tensor."""
        raise NotImplementedError

    def load_dense(self, w: Complex[Tensor, "..."]) -> None:
        """Take the numbers from a dense tensor of this shape: exact at full rank, else its truncated decomposition."""
        raise NotImplementedError

    def layer(self, index: int | None, places: Places) -> "list[Tensor]":
        """Parts of one layer, at some of the modes only."""
        raise NotImplementedError

    def kernel(self, parts: list[Tensor], x: Tensor) -> Tensor:
        """``apply_to`` for the parts of a layer."""
        raise NotImplementedError

    def apply_to(
        self, x: Complex[Tensor, "modes batch inputs"], index: int | None = None, places: Places = None
    ) -> Complex[Tensor, "modes batch outputs"]:
        """y_{κbo} = Σ_i x_{κbi} W_{ioκ} (separable: y_{κbc} = x_{κbc} W_{cκ}), all modes κ on one axis.

        Args:
            x: coefficients.
            index: the layer, of a shared tensor.
            places: for each mode axis those of its modes that x has; all of them if left out.
        Raises:
            ValueError: an index that is missing, in vain or out of range, or coefficients of another shape.
        """
        if (index is None) == self.shared:
            raise ValueError(f"index must be given for a tensor that layers share and for no other, got {index}")
        if index is not None and not 0 <= index < self.shape[0]:
            raise ValueError(f"index must be from 0 to {self.shape[0] - 1}, got {index}")
        axes = self.shape[self.shared + 2 - self.separable :]
        modes = math.prod(axes if places is None else [len(place) for place in places])
        if x.ndim != 3 or x.shape[::2] != (modes, self.shape[self.shared]):
            raise ValueError(f"x must have shape ({modes}, batch, {self.shape[self.shared]}), got {tuple(x.shape)}")
        return self.kernel(self.layer(index, places), x)

    def _check_dense(self, w: Tensor) -> Tensor:
        if tuple(w.shape) != self.shape:
            raise ValueError(f"w must have shape {self.shape}, got {tuple(w.shape)}")
        return w.detach().to(torch.complex128)

    @torch.no_grad()
    def _store(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters(), values, strict=True):
            parameter.copy_(torch.view_as_real(value.resolve_conj()))


class Dense(Factorized):
    """The tensor itself, in memory as one (inputs, outputs) matrix for each mode."""

    kind = "dense"

    def __init__(
        self, shape: Sequence[int], rank: Rank = 1.0, *, separable: bool = False, shared: bool = False
    ) -> None:
        super().__init__(shape, separable=separable, shared=shared)
        if shared:
            raise ValueError("shared must be False for a dense tensor: it has nothing that layers could share")
        channels = self.shape[: 2 - separable]
        self.matrices = _pairs(math.prod(self.shape[len(channels) :]), *channels)

    def initialise(self, std: float) -> None:
        """Independent complex normal numbers."""
        _normal(self.matrices, std)

    def to_dense(self) -> Complex[Tensor, "..."]:
        """The tensor."""
        return self.parts()[0].movedim(0, -1).reshape(self.shape)

    def load_dense(self, w: Complex[Tensor, "..."]) -> None:
        """Take the tensor as it is."""
        self._store([self._check_dense(w).flatten(2 - self.separable).movedim(-1, 0)])

    def layer(self, index: int | None, places: Places) -> list[Tensor]:
        """The matrices of the chosen modes."""
        (w,) = self.parts()
        if places is not None:
            w = w.index_select(0, _flat(places, self.shape[2 - self.separable :]))
        return [w]

    def kernel(self, parts: list[Tensor], x: Tensor) -> Tensor:
        """One product for each mode."""
        return parts[0][:, None] * x if self.separable else product(x, parts[0])


def _flat(places: Sequence[Tensor], modes: Sequence[int]) -> Tensor:
    """Places on the one axis of all modes."""
    flat = places[0]
    for place, m in zip(places[1:], modes[1:], strict=True):
        flat = (flat[:, None] * m + place).flatten()
    return flat


class Tucker(Factorized):
    """W = G ×_1 U^(1) ... ×_N U^(N): a core of the ranks' shape, and a factor (s_k, r_k) for each axis.

    Only the modes' factors are expanded, to a small matrix for each mode between the ranks of the channels; inputs and outputs
    go through their factors.
    ``rank``: see ``tucker_rank``.
    """

    kind = "tucker"

    def __init__(
        self, shape: Sequence[int], rank: Rank = 1.0, *, separable: bool = False, shared: bool = False
    ) -> None:
        super().__init__(shape, separable=separable, shared=shared)
        self.rank = tucker_rank(self.shape, rank)
        self.core = _pairs(*self.rank)
        self.factors = nn.ParameterList(_pairs(s, r) for s, r in zip(self.shape, self.rank, strict=True))

    def initialise(self, std: float) -> None:
        """The same standard deviation for the core and the factors."""
        each = (std / math.sqrt(math.prod(self.rank))) ** (1.0 / (len(self.shape) + 1))
        for parameter in self.parameters():
            _normal(parameter, each)

    def to_dense(self) -> Complex[Tensor, "..."]:
        """The tensor."""
        core, *factors = self.parts()
        for u in factors:
            core = torch.tensordot(core, u, dims=([0], [1]))
        return core

    def load_dense(self, w: Complex[Tensor, "..."]) -> None:
        """Higher-order SVD: U^(k) are the leading left singular vectors of the k-th unfolding."""
        core, factors = hosvd(self._check_dense(w), self.rank)
        self._store([core, *factors])

    def layer(self, index: int | None, places: Places) -> list[Tensor]:
        """Core and factors, the layers' factor absorbed in the core."""
        core, *factors = self.parts()
        if index is not None:
            core = torch.tensordot(factors[0][index], core, dims=([0], [0]))
            factors = factors[1:]
        return [core, *_at(factors, 2 - self.separable, places)]

    def kernel(self, parts: list[Tensor], x: Tensor) -> Tensor:
        """Channels in, a small matrix for each mode, channels out."""
        core, *factors = parts
        channels = 2 - self.separable
        ranks = core.shape[:channels]
        core = core.movedim(tuple(range(channels)), tuple(range(-channels, 0)))
        done = math.prod(ranks)
        for u in reversed(factors[channels:]):
            # (earlier modes' ranks, this one's, later modes and the channels' ranks)
            core = core.reshape(-1, u.shape[1], done)
            core = product(u, core[0]) if len(core) == 1 else u @ core
            done *= len(u)
        core = core.reshape(-1, *ranks)
        if self.separable:
            return (core @ factors[0].mT)[:, None] * x
        return _through(product(_through(x, factors[0]), core), factors[1].mT)


def _through(x: Tensor, matrix: Tensor) -> Tensor:
    """The same matrix for all modes and samples."""
    return product(x.flatten(0, 1), matrix).reshape(*x.shape[:2], -1)


class CP(Factorized):
    """W = Σ_r λ_r u_r^(1) ⊗ ... ⊗ u_r^(N): weights of the R terms, and a factor (s_k, R) for each axis.
    ``rank``: see ``cp_rank``.
    """

    kind = "cp"

    def __init__(
        self, shape: Sequence[int], rank: Rank = 1.0, *, separable: bool = False, shared: bool = False
    ) -> None:
        super().__init__(shape, separable=separable, shared=shared)
        self.rank = (cp_rank(self.shape, rank),)
        self.weights = _pairs(*self.rank)
        self.factors = nn.ParameterList(_pairs(s, *self.rank) for s in self.shape)

    def initialise(self, std: float) -> None:
        """Weights 1, and the same standard deviation for all factors."""
        with torch.no_grad():
            self.weights.copy_(torch.tensor([1.0, 0.0]).expand_as(self.weights))
        for factor in self.factors:
            _normal(factor, (std / math.sqrt(self.rank[0])) ** (1.0 / len(self.shape)))

    def to_dense(self) -> Complex[Tensor, "..."]:
        """The tensor."""
        weights, *factors = self.parts()
        return (khatri_rao(factors[:-1], weights) @ factors[-1].mT).reshape(self.shape)

    def load_dense(self, w: Complex[Tensor, "..."], *, sweeps: int = 100) -> None:
        """Alternating least squares from the leading singular vectors, ``sweeps`` times around.

        Exact for a tensor that has this rank where the iteration gets there; there is no finite algorithm.
        """
        weights, factors = alternating_least_squares(self._check_dense(w), self.rank[0], sweeps=sweeps)
        self._store([weights, *factors])

    def layer(self, index: int | None, places: Places) -> list[Tensor]:
        """Weights and factors, the layers' factor absorbed in the weights."""
        weights, *factors = self.parts()
        if index is not None:
            weights, factors = weights * factors[0][index], factors[1:]
        return [weights, *_at(factors, 2 - self.separable, places)]

    def kernel(self, parts: list[Tensor], x: Tensor) -> Tensor:
        """Through the R terms, or through a matrix for each mode, whichever takes fewer operations."""
        weights, *factors = parts
        channels = 2 - self.separable
        terms = khatri_rao(factors[channels:], weights)
        if self.separable:
            return product(terms, factors[0].mT)[:, None] * x
        first, second = factors[:2]
        if x.shape[1] * (len(first) + len(second)) < len(first) * len(second):
            return _through(_through(x, first) * terms[:, None], second.mT)
        return product(x, product(terms, khatri_rao([first, second]).mT).reshape(-1, len(first), len(second)))


def _at(factors: list[Tensor], channels: int, places: Places) -> list[Tensor]:
    """The modes' factors at some of the modes."""
    if places is None:
        return factors
    return [
        *factors[:channels],
        *(u.index_select(0, place) for u, place in zip(factors[channels:], places, strict=True)),
    ]


class TensorTrain(Factorized):
    """W_{i_1 ... i_N} = G_1[i_1] ... G_N[i_N] with cores (r_{k-1}, s_k, r_k), r_0 = r_N = 1.
    ``rank``: those between the cores; see ``tt_rank``.
    """

    kind = "tt"

    def __init__(
        self, shape: Sequence[int], rank: Rank = 1.0, *, separable: bool = False, shared: bool = False
    ) -> None:
        super().__init__(shape, separable=separable, shared=shared)
        self.rank = tt_rank(self.shape, rank)
        self.cores = nn.ParameterList(
            _pairs(a, s, b) for (a, b), s in zip(pairwise((1, *self.rank, 1)), self.shape, strict=True)
        )

    def initialise(self, std: float) -> None:
        """The same standard deviation for all cores."""
        for core in self.cores:
            _normal(core, (std / math.sqrt(math.prod(self.rank))) ** (1.0 / len(self.shape)))

    def to_dense(self) -> Complex[Tensor, "..."]:
        """The tensor."""
        cores = self.parts()
        w = cores[0]
        for core in cores[1:]:
            w = torch.tensordot(w, core, dims=1)
        return w.reshape(self.shape)

    def load_dense(self, w: Complex[Tensor, "..."]) -> None:
        """TT-SVD: one truncated SVD after the other, from the first axis on."""
        self._store(tt_svd(self._check_dense(w), self.rank))

    def layer(self, index: int | None, places: Places) -> list[Tensor]:
        """Cores, the layers' core absorbed in the next one."""
        cores = self.parts()
        if index is not None:
            cores = [torch.tensordot(cores[0][:, index], cores[1], dims=1), *cores[2:]]
        if places is None:
            return cores
        channels = 2 - self.separable
        chosen = [core.index_select(1, place) for core, place in zip(cores[channels:], places, strict=True)]
        return [*cores[:channels], *chosen]

    def kernel(self, parts: list[Tensor], x: Tensor) -> Tensor:
        """Inputs through their core, then a small matrix for each mode."""
        channels = 2 - self.separable
        # (rank, modes) of the chain's end.
        end = parts[-1][:, :, 0]
        for core in reversed(parts[channels:-1]):
            end = product(core.flatten(0, 1), end).reshape(core.shape[0], -1)
        if self.separable:
            return product(end.mT, parts[0][0].mT)[:, None] * x
        first, second = parts[0][0], parts[1]
        matrices = product(end.mT, second.movedim(-1, 0).flatten(1)).reshape(-1, *second.shape[:2])
        return product(_through(x, first), matrices)


WEIGHTS: dict[str, type[Dense] | type[Tucker] | type[CP] | type[TensorTrain]] = {
    "dense": Dense,
    "tucker": Tucker,
    "cp": CP,
    "tt": TensorTrain,
}
"""Classes of weights by name."""

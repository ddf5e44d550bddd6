"""Counter-based random numbers: every draw is a function of (seed, stream, sample, index) and of nothing else.

Sample i is the same in a batch of one or of a thousand, first or last, on the CPU or a GPU: integers exactly, normals to rounding.
Nothing is consumed, so there is no state to save and nothing to skip when a run resumes.

The generator is Philox-4x32 with ten rounds. Its 64-bit key is the seed, or a hash of seed and stream for a stream other than 0.
Its 128-bit counter holds the block index in words 0 and 1 and the sample in words 2 and 3, low words first; both are below 2^63.

| who draws | block index |
|---|---|
| ``random_bits``, ``normals_at``, ``normals_of`` | given: for instance a heap number of a node of a Brownian tree |
| all the others | draw number times 2^24, plus the position in the sample's draw |

A block of 128 bits gives two numbers of 53 bits. Different purposes take different streams, or seeds from ``fold_in``.

Source: Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
# Blocks that the generator takes at a time on a CPU, so that its dozens of passes stay in the cache.
_CHUNK = 1 << 14


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a b, for 2^31 <= a < 2^32 and 0 <= b < 2^32, without leaving the range of int64."""
    # (a - 2^32) b lies in [-2^63, 0]; its low word is that of a b, and its high word lacks b.
    product = b * (a - 2**32)
    return (product >> 32) + b, product & _MASK


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox-4x32 on four int64 tensors that hold 32-bit words.

    Args:
        counter: four words, tensors that broadcast.
        key: two words.
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def fold_in(seed: int, name: str | int) -> int:
    """A seed for a named purpose, independent of the seeds of other names.

    Args:
        seed: seed, 0 <= seed < 2^63.
        name: any name or number.
    """
    _check("seed", seed)
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _check(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{name} must be an integer in [0, 2^63), got {value!r}")


def random_bits(
    seed: int, samples: Shaped[Tensor, " batch"], index: Int64[Tensor, "*shape"], *, stream: int = 0
) -> Int64[Tensor, "batch *shape 4"]:
    """Four words of 32 random bits for each sample and each index.

    Args:
        seed: seed, 0 <= seed < 2^63.
        samples: sample numbers, not negative.
        index: block indices, not negative.
        stream: a further number, 0 <= stream < 2^63, for independent sequences of the same samples.
    Raises:
        ValueError: a seed or stream out of range, or samples that are negative or no integers.
    """
    _check("seed", seed)
    _check("stream", stream)
    check_samples(samples)
    rows = samples.reshape(-1, *[1] * index.ndim)
    columns = index.to(samples.device)[None]
    return _bits(_key(seed, stream), rows, columns)


def _bits(key: tuple[int, int], rows: Tensor, columns: Tensor) -> Tensor:
    rows, columns = torch.broadcast_tensors(rows, columns)
    shape, rows, columns = rows.shape, rows.flatten(), columns.flatten()
    chunk = _CHUNK if rows.device.type == "cpu" else max(len(rows), 1)
    words = torch.empty(len(rows), 4, dtype=torch.int64, device=rows.device)
    for part, i, k in zip(words.split(chunk), rows.split(chunk), columns.split(chunk), strict=True):
        torch.stack(philox((k & _MASK, k >> 32, i & _MASK, i >> 32), key), -1, out=part)
    return words.reshape(*shape, 4)


def _key(seed: int, stream: int) -> tuple[int, int]:
    mixed = seed if stream == 0 else fold_in(seed, f"stream {stream}")
    return mixed & _MASK, mixed >> 32


def check_samples(samples: Tensor) -> None:
    """Raise ValueError unless ``samples`` are sample numbers: integers of shape (batch,), not negative."""
    if samples.ndim != 1 or samples.is_floating_point() or samples.is_complex() or samples.dtype == torch.bool:
        raise ValueError(
            f"samples must be integers of shape (batch,), got {samples.dtype} of shape {tuple(samples.shape)}"
        )
    # On a GPU the look would wait for all that was queued before it.
    if samples.device.type == "cpu" and bool((samples < 0).any()):
        raise ValueError(f"samples must not be negative, got {int(samples.min())}")


def _uniform_pairs(bits: Tensor) -> Tensor:
    """Two doubles in (0, 1) from each four words, shape (..., 2)."""
    # 26 + 27 bits, shifted by half a unit off zero.
    numbers = ((bits[..., 0::2] >> 6) << 27) + (bits[..., 1::2] >> 5)
    return numbers.double().add_(0.5).mul_(2.0**-53).clamp_(max=1.0 - 2.0**-53)


def _normal_pairs(bits: Tensor) -> Tensor:
    """Two standard normal doubles from each four words, by the transform of Box and Muller, shape (..., 2)."""
    pairs = _uniform_pairs(bits)
    radius, angle = (-2.0 * torch.log(pairs[..., 0])).sqrt_(), pairs[..., 1] * (2.0 * math.pi)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


def _draw(
    seed: int, samples: Tensor, shape: Sequence[int], stream: int, index: int, device: torch.device | str
) -> Tensor:
    """The bits of one draw: (batch, blocks, 4) for ``shape`` numbers a sample, two to a block."""
    _check("index", index)
    size = math.prod(shape)
    if size > 2**25 or index >= 2**39:
        raise ValueError(
            f"shape must hold at most 2^25 numbers and index must be below 2^39, got {tuple(shape)} and {index}"
        )
    blocks = torch.arange(-(-size // 2), device=device) + (index << 24)
    return random_bits(seed, samples.to(device), blocks, stream=stream)


def _shaped(pairs: Tensor, shape: Sequence[int]) -> Tensor:
    return pairs.flatten(1)[:, : math.prod(shape)].reshape(-1, *shape)


def uniform(
    seed: int,
    samples: Shaped[Tensor, " batch"],
    shape: Sequence[int] = (),
    *,
    stream: int = 0,
    index: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch *shape"]:
    """Uniform numbers in (0, 1), never 0 or 1, from 53 random bits each.

    Args:
        seed: seed.
        samples: sample numbers; row i of the result depends on ``samples[i]`` alone.
        shape: shape of one sample's draw; a shorter draw is the beginning of a longer one.
        stream: independent sequence.
        index: number of the draw, for repeated draws of the same sample.
        dtype: result's dtype; the numbers are made in float64 and rounded.
        device: result's device.
    Raises:
        ValueError: a seed, stream or index out of range, or samples that are negative or no integers.
    """
    numbers = _shaped(_uniform_pairs(_draw(seed, samples, shape, stream, index, device)), shape).to(dtype)
    # Rounding to few digits may reach either end.
    limits = torch.finfo(dtype)
    return numbers.clamp_(limits.tiny, 1.0 - limits.eps / 2)


def normal(
    seed: int,
    samples: Shaped[Tensor, " batch"],
    shape: Sequence[int] = (),
    *,
    stream: int = 0,
    index: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch *shape"]:
    """Standard normal numbers, by the Box-Muller transform in float64, so at most 8.7 in size.

    Args and Raises: as ``uniform``.
    """
    return _shaped(_normal_pairs(_draw(seed, samples, shape, stream, index, device)), shape).to(dtype)


def normals_at(
    seed: int, samples: Shaped[Tensor, " batch"], index: Int64[Tensor, "*shape"], *, stream: int = 0
) -> Float64[Tensor, "batch *shape 2"]:
    """Two standard normal numbers for each sample and each block index, for whoever lays out the indices himself.

    Args and Raises: as ``random_bits``.
    """
    return _normal_pairs(random_bits(seed, samples, index, stream=stream))


def normals_of(
    seed: int, samples: Int64[Tensor, "..."], index: Int64[Tensor, "..."], *, stream: int = 0
) -> Float64[Tensor, "... 2"]:
    """Two standard normal numbers for each pair of a sample and a block index, element by element; tensors that broadcast.

    ``normals_at`` takes each index for each sample; this takes an index of its own for each.

    Raises: as ``random_bits``, but negative samples are not looked for.
    """
    _check("seed", seed)
    _check("stream", stream)
    return _normal_pairs(_bits(_key(seed, stream), samples, index))


def integers(
    seed: int,
    samples: Shaped[Tensor, " batch"],
    high: int,
    shape: Sequence[int] = (),
    *,
    stream: int = 0,
    index: int = 0,
    device: torch.device | str = "cpu",
) -> Int64[Tensor, "batch *shape"]:
    """Integers in [0, high), each with probability 1/high up to 2^-53.

    Args and Raises: as ``uniform``; ValueError also unless 1 <= high <= 2^32.
    """
    if not 1 <= high <= 2**32:
        raise ValueError(f"high must be in [1, 2^32], got {high}")
    numbers = uniform(seed, samples, shape, stream=stream, index=index, dtype=torch.float64, device=device)
    return (numbers * high).long().clamp_(max=high - 1)


def rademacher(
    seed: int,
    samples: Shaped[Tensor, " batch"],
    shape: Sequence[int] = (),
    *,
    stream: int = 0,
    index: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch *shape"]:
    """Signs: 1 or -1, each with probability 1/2.

    Args and Raises: as ``uniform``.
    """
    numbers = uniform(seed, samples, shape, stream=stream, index=index, dtype=torch.float64, device=device)
    return (2.0 * (numbers < 0.5) - 1.0).to(dtype)


def permutation(seed: int, size: int, *, stream: int = 0) -> Int64[Tensor, " size"]:
    """A random order of 0, ..., size - 1, on the CPU.

    Args:
        seed: seed.
        size: how many.
        stream: independent sequence.
    Raises:
        ValueError: a negative size, or a seed or stream out of range.
    """
    if size < 0:
        raise ValueError(f"size must not be negative, got {size}")
    return uniform(seed, torch.arange(size), stream=stream, dtype=torch.float64).argsort(stable=True)


@dataclass(frozen=True)
class NoiseSource:
    """Draw number k of standard normal noise for a batch: ``source(k, x)`` has x's shape, dtype and device.

    Args:
        seed: seed.
        stream: independent sequence.
        offset: number of the batch's first sample, so that a large run can be made in pieces.
    Raises:
        ValueError: a seed, stream or offset out of range.
    """

    seed: int
    stream: int = 0
    offset: int = 0

    def __post_init__(self) -> None:
        _check("seed", self.seed)
        _check("stream", self.stream)
        _check("offset", self.offset)

    def __call__(self, k: int, x: Tensor) -> Tensor:
        """Draw k for each sample of x."""
        samples = torch.arange(self.offset, self.offset + len(x), device=x.device)
        return normal(self.seed, samples, x.shape[1:], stream=self.stream, index=k, dtype=x.dtype, device=x.device)

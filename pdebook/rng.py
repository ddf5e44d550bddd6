"""Counter-based random numbers: every draw is a function of (seed, stream, sample, index) and of nothing else.

Sample i is the same in a batch of one or of a thousand, first or last, on the CPU or a GPU: integers exactly, normals to rounding.
Nothing is consumed, so there is no state to save and nothing to skip when a run resumes.

The generator is Philox-4x32 with ten rounds. Its 64-bit key is the seed mixed with the stream; its 128-bit counter holds the
sample (64 bits) and the block index (64 bits), so a Brownian tree can address a node of depth 62 directly.

Source: Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a times b, both below 2^32, in wrapping 64-bit arithmetic."""
    low16, high16 = b & 0xFFFF, b >> 16
    # a * high16 stays below 2^48, so nothing wraps.
    upper = a * high16 + ((a * low16) >> 16)
    return (upper >> 16) & _MASK, ((upper & 0xFFFF) << 16) | ((a * low16) & 0xFFFF)


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
    _check_seed("seed", seed)
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _check_seed(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{name} must be an integer in [0, 2^63), got {value!r}")


def random_bits(
    seed: int, samples: Int64[Tensor, " batch"], index: Int64[Tensor, "*shape"], *, stream: int = 0
) -> Int64[Tensor, "batch *shape 4"]:
    """Four words of 32 random bits for each sample and each index.

    Args:
        seed: seed, 0 <= seed < 2^63.
        samples: sample numbers, not negative.
        index: block indices, not negative.
        stream: a further number, 0 <= stream < 2^63, for independent sequences of the same samples.
    Raises:
        ValueError: a seed or stream out of range.
    """
    _check_seed("seed", seed)
    _check_seed("stream", stream)
    mixed = seed if stream == 0 else fold_in(seed, stream)
    rows = samples.reshape(-1, *[1] * index.ndim)
    columns = index.to(samples.device)[None]
    counter = (columns & _MASK, columns >> 32, rows & _MASK, rows >> 32)
    return torch.stack(philox(counter, (mixed & _MASK, mixed >> 32)), -1)


def _blocks(shape: Sequence[int], per_block: int, device: torch.device, first: int) -> Tensor:
    return first + torch.arange(-(-math.prod(shape) // per_block), device=device)


def uniform(
    seed: int,
    samples: Int64[Tensor, " batch"],
    shape: Sequence[int] = (),
    *,
    stream: int = 0,
    index: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch *shape"]:
    """Uniform numbers in (0, 1) with 53 random bits, never 0 or 1 in float64.

    Args:
        seed: seed.
        samples: sample numbers; row i of the result depends on ``samples[i]`` alone.
        shape: shape of one sample's draw.
        stream: independent sequence.
        index: number of the draw, for repeated draws of the same sample.
        dtype: result's dtype.
        device: result's device.
    Raises:
        ValueError: a seed, stream or index out of range, or samples that are negative.
    """
    bits = _draw(seed, samples, shape, stream, index, torch.device(device))
    return _to_uniform(bits)[:, : math.prod(shape)].reshape(-1, *shape).to(dtype)


def _draw(seed: int, samples: Tensor, shape: Sequence[int], stream: int, index: int, device: torch.device) -> Tensor:
    _check_seed("index", index)
    if samples.device.type == "cpu" and bool((samples < 0).any()):
        raise ValueError("samples must not be negative")
    # A draw owns 2^24 blocks of four words, 2^25 numbers in double precision.
    if math.prod(shape) > 2**25 or index >= 2**39:
        raise ValueError(f"shape must hold at most 2^25 numbers and index must be below 2^39, got {tuple(shape)} and {index}")
    return random_bits(seed, samples.to(device), _blocks(shape, 2, device, index << 24), stream=stream)


def _to_uniform(bits: Tensor) -> Tensor:
    """Two doubles of 53 bits from each four words, shape (batch, 2 blocks)."""
    high, low = bits[..., 0::2], bits[..., 1::2]
    # 26 + 27 bits, shifted by half a unit off zero; the largest value rounds to 1 - 2^-54 < 1.
    return (((high >> 6) * 2.0**27 + (low >> 5)) + 0.5).mul(2.0**-53).clamp(max=1.0 - 2.0**-53).flatten(1)


def normal(
    seed: int,
    samples: Int64[Tensor, " batch"],
    shape: Sequence[int] = (),
    *,
    stream: int = 0,
    index: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch *shape"]:
    """Standard normal numbers, by the Box-Muller transform in float64.

    Args: as ``uniform``.
    """
    pairs = _to_uniform(_draw(seed, samples, shape, stream, index, torch.device(device)))
    radius, angle = (-2.0 * torch.log(pairs[:, 0::2])).sqrt(), 2.0 * math.pi * pairs[:, 1::2]
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten(1)
    return both[:, : math.prod(shape)].reshape(-1, *shape).to(dtype)


class NoiseSource:
    """Draw number k of standard normal noise for a batch: ``source(k, x)`` has x's shape, dtype and device.

    Args:
        seed: seed.
        stream: independent sequence.
        offset: number of the batch's first sample, so that a large run can be made in pieces.
    """

    def __init__(self, seed: int, *, stream: int = 0, offset: int = 0) -> None:
        _check_seed("seed", seed)
        _check_seed("offset", offset)
        self.seed, self.stream, self.offset = seed, stream, offset

    def __call__(self, k: int, x: Tensor) -> Tensor:
        """Draw k for each sample of x."""
        samples = torch.arange(self.offset, self.offset + len(x), device=x.device)
        return normal(self.seed, samples, x.shape[1:], stream=self.stream, index=k, dtype=x.dtype, device=x.device)

"""The 1797 handwritten digits of 8x8 pixels that scikit-learn ships: a data set that needs no download.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998; the copy in
scikit-learn is its test part.
"""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.datasets import load_digits
from torch import Tensor

SECOND_MOMENT = 0.25
"""Mean square of the normalised pixels, EDM's sigma_data = 0.5 squared."""


@cache
def _pixels() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return data.images.astype(np.float64) / 8.0 - 1.0, data.target.astype(np.int64)


def digits(
    *, size: int = 8, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "n 1 size size"], Int64[Tensor, " n"]]:
    """All digits with global mean 0 and second moment exactly 0.25, and their labels.

    z = (pixel/8 - 1 - mean) / (2 std), with mean and standard deviation over all pixels of all images.

    Args:
        size: 8, or 16 for bilinear up-sampling (normalised after it).
        dtype: dtype of the images.
        device: device.
    Raises:
        ValueError: another size.
    """
    if size not in (8, 16):
        raise ValueError(f"size must be 8 or 16, got {size}")
    pixels, labels = _pixels()
    images = torch.from_numpy(pixels)[:, None]
    if size == 16:
        images = torch.nn.functional.interpolate(images, size=(16, 16), mode="bilinear", align_corners=False)
    images = SECOND_MOMENT**0.5 * (images - images.mean()) / images.std(correction=0)
    return images.to(device, dtype), torch.from_numpy(labels.copy()).to(device)


def to_grey(images: Float[Tensor, "*batch size size"], size: int = 8) -> Float[Tensor, "*batch size size"]:
    """Normalised images as grey levels from 0 (white paper) to 1 (ink), clamped: for pictures."""
    pixels, _ = _pixels()
    values = torch.from_numpy(pixels)[:, None]
    if size == 16:
        values = torch.nn.functional.interpolate(values, size=(16, 16), mode="bilinear", align_corners=False)
    mean, std = float(values.mean()), float(values.std(correction=0))
    return ((images / SECOND_MOMENT**0.5 * std + mean + 1.0) / 2.0).clamp(0.0, 1.0)


def split(test_fraction: float = 0.2) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]:
    """Fixed indices of the training and the test part: every k-th digit is for testing, k = round(1/fraction).

    Raises:
        ValueError: a fraction outside (0, 0.5].
    """
    if not 0 < test_fraction <= 0.5:
        raise ValueError(f"test_fraction must be in (0, 0.5], got {test_fraction}")
    index = torch.arange(len(_pixels()[1]))
    test = index % round(1.0 / test_fraction) == 0
    return index[~test], index[test]

"""Images as environments hand them over: floats in [0, 1], or bytes from 0 to 255 that stand for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike


def to_floats(pixels: np.ndarray) -> np.ndarray:
    """Return images as float32, lying in memory as they do: bytes as what they stand for, other arrays as they are."""
    return np.divide(pixels, np.float32(255)) if pixels.dtype == np.uint8 else pixels


def blank(rows: int, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return zeros [rows, channels, height, width] with the channels last in memory, as convolutions read them."""
    channels, *plane = shape
    return np.moveaxis(np.zeros((rows, *plane, channels), dtype), -1, 1)

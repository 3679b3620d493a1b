"""Checks of saved state before it is taken over: a wrong value there would do harm long after it was loaded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LARGEST_WHOLE = 2**53


def whole(value: Any, what: str, least: int = 0, most: int = LARGEST_WHOLE) -> int:
    """Return the value if it is a whole number in a range.

    Raises:
        ValueError: it is not.
    """
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} is {value!r:.40}, and must be a whole number from {least:,} to {most:,}")
    return value


def number(value: Any, what: str) -> float:
    """Return the value if it is a finite number.

    Raises:
        ValueError: it is not.
    """
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{what} is {value!r:.40}, and must be a finite number")
    return float(value)


def array_of(value: Any, what: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the value if it is an array of this type and shape, in which -1 stands for any size.

    Raises:
        ValueError: it is not.
    """
    fits = isinstance(value, np.ndarray) and value.dtype == dtype and len(value.shape) == len(shape)
    if not fits or any(size not in (-1, found) for size, found in zip(shape, value.shape, strict=True)):
        found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{what} is {found}, and must be {np.dtype(dtype)} {shape}, where -1 is any size")
    array: np.ndarray = value
    return array


def indices(value: Any, what: str, rows: int, stop: int, least: int = -1) -> np.ndarray:
    """Return the value if it is an array [rows] (-1: any number) of indices from `least` to below `stop`.

    Raises:
        ValueError: it is not.
    """
    array = array_of(value, what, np.int64, (rows,))
    if len(array) and not (least <= array.min() and array.max() < stop):
        raise ValueError(f"{what} has numbers from {array.min()} to {array.max()}, and there are {stop:,} of them")
    return array

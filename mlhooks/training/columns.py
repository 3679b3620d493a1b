"""The columns of the store, arrays [rows, ...]: writing, moving and copying their rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlhooks.envs.pixels import blank
from mlhooks.fast.switch import kernel


@kernel("experience")
def put(columns: Sequence[np.ndarray], rows: slice, arrays: Sequence[np.ndarray]) -> None:
    """Write an array [rows, ...] into these rows of each column."""
    for column, array in zip(columns, arrays, strict=True):
        column[rows] = array


@kernel("experience")
def move_to_front(columns: Sequence[np.ndarray], start: int, rows: int) -> None:
    """Copy so many rows of each column, from `start` on, to its beginning."""
    for column in columns:
        column[:rows] = column[start : start + rows]


@kernel("experience")
def take(columns: Sequence[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
    """Return copies of some rows of each column; -1 gives the last row."""
    # `ndarray.take` is faster, but would first copy all images to the layout with channels first.
    return [column[rows] if column.ndim == 4 else column.take(rows, 0) for column in columns]


def grown(array: np.ndarray, rows: int, fill: int = 0) -> np.ndarray:
    """Return the array with more rows; images [rows, channels, height, width] get channels last in memory."""
    if array.ndim == 4:
        grown = blank(rows, array.shape[1:], array.dtype)
    elif fill:
        grown = np.full((rows, *array.shape[1:]), fill, array.dtype)
    else:
        grown = np.zeros((rows, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown

"""Arrays in shared memory that one process fills and another reads in place."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from math import prod
from multiprocessing.shared_memory import SharedMemory

import numpy as np

Field = tuple[tuple[int, ...], str]
"""Shape and dtype of one array."""
Layout = Sequence[Field]
"""The arrays that lie in a block, one behind the other."""

_ALIGNMENT = 16
_SPARE = 2  # A new block is so many times larger than needed.


class Block(SharedMemory):
    """Shared memory that stays while someone holds an array in it, and does not complain about it at the end."""

    def __del__(self) -> None:
        with contextlib.suppress(BufferError, OSError):
            self.close()


class ArrayWriter:
    """The writing end; makes a new block when the last one is too small.

    Attributes:
        block: the name of the block, which the reader needs where it has changed.
    """

    def __init__(self) -> None:
        self._memory: Block | None = None
        self._layout: Layout | None = None
        self._arrays: list[np.ndarray] = []

    @property
    def block(self) -> str:
        """The name of the block that holds the arrays."""
        return "" if self._memory is None else self._memory.name

    def arrays(self, layout: Layout) -> list[np.ndarray]:
        """Return arrays of a layout, to be filled; they take the place of the last ones."""
        if layout != self._layout:
            size = _size(layout)
            if self._memory is None or size > self._memory.size:
                self.close()
                self._memory = Block(create=True, size=_SPARE * max(size, 1))
            self._arrays, self._layout = _arrays(self._memory, layout), layout
        return self._arrays

    def close(self) -> None:
        """Let go of the block, and remove its name in case the reader did not come to that; may be called twice."""
        self._arrays, self._layout = [], None
        memory, self._memory = self._memory, None
        if memory is not None:
            with contextlib.suppress(FileNotFoundError):
                memory.unlink()
            _close(memory)


class ArrayReader:
    """The reading end. It removes the name of each block as soon as it has it: nothing is left when processes die."""

    def __init__(self) -> None:
        self._memory: Block | None = None
        self._layout: Layout | None = None
        self._arrays: list[np.ndarray] = []

    def arrays(self, block: str, layout: Layout) -> list[np.ndarray]:
        """Return the arrays of a layout in the block of that name, without a copy."""
        if self._memory is None or block != self._memory.name:
            self.close()
            self._memory = Block(block)
            self._memory.unlink()
        if layout != self._layout:
            self._arrays, self._layout = _arrays(self._memory, layout), layout
        return self._arrays

    def close(self) -> None:
        """Let go of the block; may be called twice."""
        self._arrays, self._layout = [], None
        memory, self._memory = self._memory, None
        if memory is not None:
            _close(memory)


_held: list[Block] = []
"""Blocks that are done with, but in which someone still holds an array."""


def _close(memory: Block) -> None:
    _held.append(memory)
    for block in _held[:]:
        with contextlib.suppress(BufferError):
            block.close()
            _held.remove(block)


def _size(layout: Layout) -> int:
    return sum(_aligned(shape, dtype) for shape, dtype in layout)


def _aligned(shape: tuple[int, ...], dtype: str) -> int:
    return -(-prod(shape) * np.dtype(dtype).itemsize // _ALIGNMENT) * _ALIGNMENT


def _arrays(memory: Block, layout: Layout) -> list[np.ndarray]:
    arrays, offset = [], 0
    for shape, dtype in layout:
        arrays.append(np.ndarray(shape, dtype, memory.buf, offset))
        offset += _aligned(shape, dtype)
    return arrays

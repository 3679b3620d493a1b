"""Forward and backward passes through plain layers, in numpy.

At the sizes of reinforcement learning's networks, most of a pass in torch is dispatch, and its tanh takes longer than
the matrix products around it. Many rows are computed in blocks that stay in the processor's cache, in arrays that are
used again. Where mlhooks was built with a compiler, `native/passes.pyx` does the same in one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mlhooks.nn.activations import ACTIVATIONS

BLOCK = 2**16  # numbers in an array that stays in the cache with its neighbours

Layer = tuple[np.ndarray, np.ndarray]
"""A linear layer's weight [out, in] and bias [out]."""
Arrays = Sequence[np.ndarray | None]
Sink = tuple[np.ndarray | None, np.ndarray | None]
"""What the gradients of a layer's weight and bias are added to, None where nobody wants one."""


@lru_cache(maxsize=16)
def _ones(size: int) -> np.ndarray:
    return np.ones(size, np.float32)


class Passed:
    """What a forward pass leaves behind for the backward pass; its arrays are used for one pass after another.

    Attributes:
        features: [rows, size].
        hidden: each layer's results [rows, units]; kept: what its activation keeps besides, or None.
    """

    def __init__(self, rows: int, sizes: Sequence[int], keeps: bool) -> None:
        self.features = np.empty((0, 0), np.float32)
        self.room, self.rows = rows, rows
        self._hidden = self.hidden = [np.empty((rows, size), np.float32) for size in sizes]
        self._kept = self.kept = [np.empty((rows, size), np.float32) if keeps else None for size in sizes]

    def of(self, rows: int) -> Passed:
        """The same arrays for so many rows."""
        if rows != self.rows:
            self.rows, self.hidden, self.kept = rows, _rows(self._hidden, slice(rows)), _rows(self._kept, slice(rows))
        return self


def _rows(arrays: Any, rows: slice) -> Any:
    return [None if array is None else array[rows] for array in arrays]


class Passes:
    """Passes through hidden layers and linear heads on the last of them.

    Args:
        hidden, heads: the layers; their arrays are read again in every pass.
        activation: of the hidden layers, by name.
    """

    def __init__(self, hidden: Sequence[Layer], heads: Sequence[Layer], activation: str) -> None:
        self.hidden = [(weight.T, bias) for weight, bias in hidden]  # weights [in, out], for rows of features
        self.heads = [(weight.T, bias) for weight, bias in heads]
        self.activation = ACTIVATIONS[activation]
        self._sizes = [len(bias) for _, bias in hidden]
        widest = max(self._sizes)
        self._rows = max(BLOCK // widest, 128)  # of a block
        self._scratch = [np.empty(self._rows * widest, np.float32) for _ in range(2)]
        self._free: list[Passed] = []

    @np.errstate(all="ignore")
    def forward(self, features: np.ndarray) -> list[np.ndarray]:
        """The output of each head, for float32 features [rows, size]."""
        rows = len(features)
        passed = self._room(min(rows, self._rows))
        if rows <= self._rows:
            outputs = self._forward(features, passed.hidden, passed.kept)
        else:
            parts = []
            for block in self._blocks(rows):
                part = passed.of(block.stop - block.start)
                parts.append(self._forward(features[block], part.hidden, part.kept))
            outputs = _joined(parts)
        self.release(passed)
        return outputs

    @np.errstate(all="ignore")
    def record(self, features: np.ndarray) -> tuple[list[np.ndarray], Passed]:
        """As `forward`, with what `backward` needs, until it is released."""
        rows = len(features)
        passed = self._room(rows)
        passed.features = features
        if rows <= self._rows:
            return self._forward(features, passed.hidden, passed.kept), passed
        parts = [self._forward(features[b], _rows(passed.hidden, b), _rows(passed.kept, b)) for b in self._blocks(rows)]
        return _joined(parts), passed

    def _forward(self, x: np.ndarray, hidden: list[np.ndarray], kept: Arrays) -> list[np.ndarray]:
        # dot asks less than matmul, and takes a product with one column to BLAS, too
        for (weight, bias), y, beside in zip(self.hidden, hidden, kept, strict=True):
            x.dot(weight, y)
            y += bias
            self.activation.forward(y, beside)
            x = y
        outputs = []
        for weight, bias in self.heads:
            output = x.dot(weight)
            output += bias
            outputs.append(output)
        return outputs

    def backward(self, passed: Passed, gradients: Arrays, sinks: Sequence[Sink]) -> None:
        """Add the gradients of the parameters to arrays.

        Args:
            passed: what `record` returned.
            gradients: of each head's output; None where it is of no use.
            sinks: where to add those of each layer, the hidden ones first; a head without a gradient adds nothing.
        """
        rows = len(passed.features)
        if rows <= self._rows:
            self._backward(passed.features, passed.hidden, passed.kept, gradients, sinks)
            return
        for b in self._blocks(rows):
            hidden, kept = _rows(passed.hidden, b), _rows(passed.kept, b)
            self._backward(passed.features[b], hidden, kept, _rows(gradients, b), sinks)

    def _backward(
        self,
        features: np.ndarray,
        hidden: list[np.ndarray],
        kept: Arrays,
        gradients: Arrays,
        sinks: Sequence[Sink],
    ) -> None:
        inputs = [features, *hidden]
        here, there = self._scratch
        above = None  # the gradient of the layer's results
        for (weight, _), sink, gradient in zip(self.heads, sinks[len(self.hidden) :], gradients, strict=True):
            if gradient is not None:
                _gather(sink, inputs[-1], gradient)
                below = gradient.dot(weight.T, _shaped(here if above is None else there, inputs[-1]))
                above = below if above is None else np.add(above, below, out=above)
        assert above is not None
        for index in reversed(range(len(self.hidden))):
            weight, x, y = self.hidden[index][0], inputs[index], inputs[index + 1]
            self.activation.backward(above, y, kept[index], _shaped(there, y))
            _gather(sinks[index], x, above)
            if index:
                here, there = there, here
                above = above.dot(weight.T, _shaped(here, x))

    def _blocks(self, rows: int) -> Iterator[slice]:
        for start in range(0, rows, self._rows):
            yield slice(start, min(start + self._rows, rows))

    def _room(self, rows: int) -> Passed:
        """Arrays for at least so many rows, those of before where they are large enough."""
        if self._free:
            passed = self._free.pop()
            if passed.room >= rows:
                return passed.of(rows)
        return Passed(rows, self._sizes, self.activation.keeps)

    def release(self, passed: Passed) -> None:
        """Let the next pass use the arrays."""
        self._free.append(passed)


def _gather(sink: Sink, x: np.ndarray, gradient: np.ndarray) -> None:
    """Add a layer's gradients; x: [rows, in], gradient: [rows, out]."""
    weight, bias = sink
    if weight is not None:
        weight += gradient.T.dot(x)
    if bias is not None:
        bias += _ones(len(gradient)).dot(gradient)  # a third of the time of a sum over rows


def _joined(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(blocks) for blocks in zip(*parts, strict=True)]


def _shaped(scratch: np.ndarray, like: np.ndarray) -> np.ndarray:
    return scratch[: like.size].reshape(like.shape)

"""Small networks in plain numpy: what torch computes, without what it costs to ask torch.

At the sizes of reinforcement learning's networks, most of a forward or backward pass in torch is dispatch, and its
tanh takes longer than the matrix products around it. A `Mirror` computes the same affine maps and activations, and
their gradients, on the very memory of the torch parameters, so it never holds stale weights. Many rows are computed in
blocks that stay in the processor's cache, in arrays that are used again. Acting uses it directly; learning through a
`GradientTape` (`tape.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.nn.activations import ACTIVATIONS
from mlhooks.nn.layers import MLP

LARGE = 2**20  # activations of one layer, [rows, hidden_units], beyond which torch's threads win, where it has several
BLOCK = 2**16  # numbers in an array that stays in the cache with its neighbours


@lru_cache(maxsize=16)
def _ones(size: int) -> np.ndarray:
    return np.ones(size, np.float32)


class ParameterGradient:
    """A parameter's gradient, gathered over blocks of rows."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter
        self._sum: np.ndarray | None = None
        self._grad: Tensor | None = None
        self._array: np.ndarray  # on the memory of `_grad`

    def gather(self, gradient: np.ndarray) -> None:
        """Take in that of a block."""
        self._sum = gradient if self._sum is None else self._sum + gradient

    def hand_on(self) -> None:
        """Add what was gathered to the parameter's `.grad`, which may not exist yet, past the parameter's hooks."""
        gradient, self._sum = self._sum, None
        parameter = self.parameter
        grad = parameter.grad
        if gradient is None:
            return
        if grad is None or parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            parameter.backward(torch.tensor(gradient))
            return
        if grad is not self._grad:
            self._grad, self._array = grad, grad.numpy()
        self._array += gradient


class _Layer:
    """A linear layer's weight, transposed for rows of features, and bias, as arrays on the parameters' memory."""

    def __init__(self, layer: nn.Linear) -> None:
        self.size = layer.out_features
        self.parameters = ParameterGradient(layer.weight), ParameterGradient(layer.bias)
        self.weight, self.bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()  # [in, out], [out]

    def backward(self, x: np.ndarray, gradient: np.ndarray) -> None:
        """Gather the parameters' gradients; x: [rows, in], gradient: [rows, out]."""
        weight, bias = self.parameters
        if weight.parameter.requires_grad:
            weight.gather(gradient.T.dot(x))
        if bias.parameter.requires_grad:
            bias.gather(_ones(len(gradient)).dot(gradient))  # a third of the time of a sum over rows


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


Arrays = Sequence[np.ndarray | None]


def _rows(arrays: Any, rows: slice) -> Any:
    return [None if array is None else array[rows] for array in arrays]


class Mirror:
    """Computes what plain layers and the linear heads on them compute on the CPU, to float32 rounding.

    Args:
        encoder: the plain layers.
        heads: linear layers on its output.
    """

    def __init__(self, encoder: MLP, heads: Sequence[nn.Linear]) -> None:
        self.hidden = [_Layer(layer) for layer in encoder.layers if isinstance(layer, nn.Linear)]
        self.activation = ACTIVATIONS[encoder.activation]
        self.heads = [_Layer(head) for head in heads]
        self.encoding_size = encoder.output_size
        layers = self.hidden + self.heads
        self._parameters = [p.parameter for layer in layers for p in layer.parameters]
        self._addresses = [parameter.data_ptr() for parameter in self._parameters]
        modules = encoder, *encoder.layers, *heads
        self._hooks = [hooks for module in modules for hooks in (module._forward_pre_hooks, module._forward_hooks)]
        widest = max([encoder.output_size, *(layer.size for layer in self.hidden)])
        self._rows = max(BLOCK // widest, 128)  # of a block
        self._scratch = [np.empty(self._rows * widest, np.float32) for _ in range(2)]
        self._free: list[Passed] = []

    @property
    def is_current(self) -> bool:
        """Whether the parameters are still where they were (values may have changed), and no hook waits for a call."""
        return not any(self._hooks) and [p.data_ptr() for p in self._parameters] == self._addresses

    @property
    def has_moved(self) -> bool:
        """Whether the parameters are elsewhere now; a look at the first of them."""
        return self._parameters[0].data_ptr() != self._addresses[0]

    @classmethod
    def renewed(cls, mirror: Mirror | None, encoder: nn.Module, heads: Sequence[nn.Linear]) -> Mirror | None:
        """That mirror of these where it is current, or else a new one; None where they cannot be mirrored."""
        if mirror is not None and mirror.is_current:
            return mirror
        return cls(encoder, heads) if cls.supports(encoder, heads) else None

    @staticmethod
    def supports(encoder: nn.Module, heads: Sequence[nn.Module]) -> TypeGuard[MLP]:
        """Whether these can be mirrored: plain layers on the CPU, none of a class that may compute something else."""
        if type(encoder) is not MLP or encoder.activation not in ACTIVATIONS:
            return False
        layers = [*encoder.layers, *heads]
        if any(type(layer) is not nn.Linear or layer.bias is None for layer in layers):
            return False
        if any(module._forward_hooks or module._forward_pre_hooks for module in (encoder, *layers)):
            return False
        return all(p.device.type == "cpu" and p.dtype == torch.float32 for layer in layers for p in layer.parameters())

    def __call__(self, features: np.ndarray) -> list[np.ndarray]:
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

    def record(self, features: np.ndarray) -> tuple[list[np.ndarray], Passed]:
        """As a call, with what `backward` needs, until it is released."""
        rows = len(features)
        passed = self._room(rows)
        passed.features = features
        if rows <= self._rows:
            return self._forward(features, passed.hidden, passed.kept), passed
        parts = [self._forward(features[b], _rows(passed.hidden, b), _rows(passed.kept, b)) for b in self._blocks(rows)]
        return _joined(parts), passed

    def _forward(self, x: np.ndarray, hidden: list[np.ndarray], kept: Arrays) -> list[np.ndarray]:
        # dot asks less than matmul, and takes a product with one column to BLAS, too
        for layer, y, beside in zip(self.hidden, hidden, kept, strict=True):
            x.dot(layer.weight, y)
            y += layer.bias
            self.activation.forward(y, beside)
            x = y
        outputs = []
        for head in self.heads:
            output = x.dot(head.weight)
            output += head.bias
            outputs.append(output)
        return outputs

    def backward(self, passed: Passed, gradients: Arrays) -> None:
        """Add to all parameters' `.grad` what follows from the gradients of the heads' outputs; None where unused."""
        if all(gradient is None for gradient in gradients):
            return
        rows = len(passed.features)
        if rows <= self._rows:
            self._backward(passed.features, passed.hidden, passed.kept, gradients)
        else:
            for b in self._blocks(rows):
                hidden, kept = _rows(passed.hidden, b), _rows(passed.kept, b)
                self._backward(passed.features[b], hidden, kept, _rows(gradients, b))
        for layer in self.hidden + self.heads:
            for parameter in layer.parameters:
                parameter.hand_on()

    def _backward(self, features: np.ndarray, hidden: list[np.ndarray], kept: Arrays, gradients: Arrays) -> None:
        inputs = [features, *hidden]
        here, there = self._scratch
        above = None  # the gradient of the layer's results
        for head, gradient in zip(self.heads, gradients, strict=True):
            if gradient is not None:
                head.backward(inputs[-1], gradient)
                below = gradient.dot(head.weight.T, _shaped(here if above is None else there, inputs[-1]))
                above = below if above is None else np.add(above, below, out=above)
        assert above is not None
        for index in reversed(range(len(self.hidden))):
            layer, x, y = self.hidden[index], inputs[index], inputs[index + 1]
            self.activation.backward(above, y, kept[index], _shaped(there, y))
            layer.backward(x, above)
            if index:
                here, there = there, here
                above = above.dot(layer.weight.T, _shaped(here, x))

    def _blocks(self, rows: int) -> Iterator[slice]:
        for start in range(0, rows, self._rows):
            yield slice(start, min(start + self._rows, rows))

    def _room(self, rows: int) -> Passed:
        """Arrays for at least so many rows, those of before where they are large enough."""
        if self._free:
            passed = self._free.pop()
            if passed.room >= rows:
                return passed.of(rows)
        return Passed(rows, [layer.size for layer in self.hidden], self.activation.keeps)

    def release(self, passed: Passed) -> None:
        """Let the next pass use the arrays."""
        self._free.append(passed)


def _joined(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(blocks) for blocks in zip(*parts, strict=True)]


def _shaped(scratch: np.ndarray, like: np.ndarray) -> np.ndarray:
    return scratch[: like.size].reshape(like.shape)

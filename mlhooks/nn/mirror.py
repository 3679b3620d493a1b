"""Small networks in plain numpy: what torch computes, without what it costs to ask torch.

At the sizes of reinforcement learning's networks, most of a forward or backward pass in torch is dispatch, and its
tanh takes longer than the matrix products around it. A `Mirror` computes the same affine maps and activations, and
their gradients, on the very memory of the torch parameters, so it never holds stale weights. Acting uses it directly;
learning through a `GradientTape` (`tape.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.nn.layers import MLP

LARGE = 2**20  # activations of one layer, [rows, hidden_units], beyond which torch's threads win


class Activation(NamedTuple):
    """An activation and its derivative.

    Attributes:
        forward: from x, which it may overwrite, to the result and what `backward` needs to know.
        backward: from the gradient of the result, which it may overwrite, and that knowledge, to the gradient of x.
    """

    forward: Callable[[np.ndarray], tuple[np.ndarray, Any]]
    backward: Callable[[np.ndarray, Any], np.ndarray]


def _swish(x: np.ndarray) -> tuple[np.ndarray, Any]:
    sigmoid = 1.0 / (1.0 + np.exp(-np.maximum(x, -80.0)))
    x *= sigmoid
    return x, (x, sigmoid)


def _swish_backward(gradient: np.ndarray, known: Any) -> np.ndarray:
    swished, sigmoid = known
    gradient *= sigmoid + swished * (1.0 - sigmoid)
    return gradient


def _of_result(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], tuple[np.ndarray, Any]]:
    def forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
        y = function(x)
        return y, y

    return forward


def _scaled_by(derivative: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, Any], np.ndarray]:
    def backward(gradient: np.ndarray, y: Any) -> np.ndarray:
        gradient *= derivative(y)
        return gradient

    return backward


ACTIVATIONS: dict[str, Activation] = {
    "swish": Activation(_swish, _swish_backward),
    "tanh": Activation(_of_result(lambda x: np.tanh(x, out=x)), _scaled_by(lambda y: 1.0 - y * y)),
    "relu": Activation(_of_result(lambda x: np.maximum(x, 0.0, out=x)), _scaled_by(lambda y: y > 0.0)),
    "leaky_relu": Activation(
        _of_result(lambda x: np.maximum(x, np.float32(0.01) * x)),
        _scaled_by(lambda y: np.where(y > 0.0, np.float32(1.0), np.float32(0.01))),
    ),
    "elu": Activation(
        _of_result(lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))),
        _scaled_by(lambda y: np.where(y > 0.0, np.float32(1.0), y + np.float32(1.0))),
    ),
}


@lru_cache(maxsize=16)
def _ones(size: int) -> np.ndarray:
    return np.ones(size, np.float32)


def add_gradient(parameter: Tensor, gradient: np.ndarray) -> None:
    """Add to the parameter's `.grad`, which may not exist yet, past the parameter's hooks."""
    if parameter.grad is None or parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
        parameter.backward(torch.tensor(gradient))
    else:
        grad = parameter.grad.numpy()
        grad += gradient


class _Layer:
    """A linear layer's weight, transposed for rows of features, and bias, as arrays on the parameters' memory."""

    def __init__(self, layer: nn.Linear) -> None:
        self.parameters = layer.weight, layer.bias
        self.weight, self.bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()  # [in, out], [out]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = x @ self.weight
        y += self.bias
        return y

    def backward(self, x: np.ndarray, gradient: np.ndarray) -> None:
        """Add to the parameters' `.grad`; x: [rows, in], gradient: [rows, out]."""
        weight, bias = self.parameters
        if weight.requires_grad:
            add_gradient(weight, gradient.T @ x)
        if bias.requires_grad:
            add_gradient(bias, _ones(len(gradient)) @ gradient)  # a third of the time of a sum over rows


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
        layers = self.hidden + self.heads
        self._parameters = [parameter for layer in layers for parameter in layer.parameters]
        self._addresses = [parameter.data_ptr() for parameter in self._parameters]
        modules = encoder, *encoder.layers, *heads
        self._hooks = [hooks for module in modules for hooks in (module._forward_pre_hooks, module._forward_hooks)]

    @property
    def is_current(self) -> bool:
        """Whether the parameters are still where they were (values may have changed), and no hook waits for a call."""
        return not any(self._hooks) and [p.data_ptr() for p in self._parameters] == self._addresses

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
        x = features
        for layer in self.hidden:
            x, _ = self.activation.forward(layer(x))
        return [head(x) for head in self.heads]

    def record(self, features: np.ndarray) -> tuple[list[np.ndarray], list[tuple[np.ndarray, Any]], np.ndarray]:
        """As a call, with what `backward` needs: each layer's input and activation, and the encoding."""
        x, passed = features, []
        for layer in self.hidden:
            y, known = self.activation.forward(layer(x))
            passed.append((x, known))
            x = y
        return [head(x) for head in self.heads], passed, x

    def backward(
        self, passed: list[tuple[np.ndarray, Any]], encoding: np.ndarray, gradients: Sequence[np.ndarray | None]
    ) -> None:
        """Add to all parameters' `.grad` what follows from the gradients of the heads' outputs; None where unused."""
        above = None
        for head, gradient in zip(self.heads, gradients, strict=True):
            if gradient is not None:
                head.backward(encoding, gradient)
                below = gradient @ head.weight.T
                above = below if above is None else above + below
        if above is None:
            return
        for layer, (x, known) in zip(reversed(self.hidden), reversed(passed), strict=True):
            above = self.activation.backward(above, known)
            layer.backward(x, above)
            if layer is not self.hidden[0]:
                above = above @ layer.weight.T

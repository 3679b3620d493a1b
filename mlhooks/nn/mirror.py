"""The forward pass of small networks in plain numpy, for acting without torch's dispatch.

At the batch sizes of acting, torch spends most of a forward pass on dispatch: numpy computes the same affine maps in a
fraction of the time. The mirror reads the very memory of the torch parameters, so it never holds stale weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeGuard

import numpy as np
from torch import Tensor, nn

from mlhooks.nn.layers import MLP

Layer = tuple[np.ndarray, np.ndarray]


def _swish(x: np.ndarray) -> np.ndarray:
    swished: np.ndarray = x / (1.0 + np.exp(-np.maximum(x, -80.0)))
    return swished


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "swish": _swish,
    "tanh": lambda x: np.tanh(x, out=x),
    "relu": lambda x: np.maximum(x, 0.0, out=x),
    "leaky_relu": lambda x: np.maximum(x, 0.01 * x),
    "elu": lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def _layer(layer: nn.Linear) -> Layer:
    return _array(layer.weight).T, _array(layer.bias)


class Mirror:
    """Computes what plain layers and the linear heads on them compute on the CPU, to float32 rounding.

    Args:
        encoder: the plain layers.
        heads: linear layers on its output.
    """

    def __init__(self, encoder: MLP, heads: Sequence[nn.Linear]) -> None:
        self.hidden = [_layer(layer) for layer in encoder.layers if isinstance(layer, nn.Linear)]
        self.activate = ACTIVATIONS[encoder.activation]
        self.heads = [_layer(head) for head in heads]

    @staticmethod
    def supports(encoder: nn.Module) -> TypeGuard[MLP]:
        """Whether an encoder is one that can be mirrored: plain layers on the CPU."""
        on_cpu = all(parameter.device.type == "cpu" for parameter in encoder.parameters())
        return on_cpu and isinstance(encoder, MLP) and encoder.activation in ACTIVATIONS

    def __call__(self, features: np.ndarray) -> list[np.ndarray]:
        """The output of each head, for float32 features [rows, size]."""
        x = features
        for weight, bias in self.hidden:
            x = x @ weight
            x += bias
            x = self.activate(x)
        return [x @ weight + bias for weight, bias in self.heads]

"""Small networks without torch: what it computes, without what it costs to ask it.

A `Mirror` computes the same affine maps and activations as plain layers, and their gradients, on the very memory of the
torch parameters, so it never holds stale weights. Acting uses it directly; learning through a `GradientTape`
(`tape.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks import native
from mlhooks.nn.activations import ACTIVATIONS
from mlhooks.nn.layers import MLP
from mlhooks.nn.passes import Arrays, Layer, Passes, Sink

COMPILED = native.load("passes")
WIDE = 512  # hidden_units beyond which BLAS is as fast as what is compiled
LARGE = 2**20  # activations of one layer, [rows, hidden_units], beyond which torch's threads win, where it has several
NOWHERE: Sink = (None, None)

Parts = Callable[[], tuple[nn.Module, Sequence[nn.Linear]]]
"""Gives an encoder and the heads on it."""


class ParameterGradient:
    """Where the gradient of a parameter is added up."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter
        self._grad: Tensor | None = None
        self._array: np.ndarray  # on the memory of `_grad`
        self._apart: np.ndarray | None = None

    def sink(self) -> np.ndarray | None:
        """What to add to before `hand_on`: the parameter's `.grad`, or numbers apart; None if it is frozen."""
        parameter = self.parameter
        if not parameter.requires_grad:
            return None
        grad = parameter.grad
        listened = parameter._backward_hooks or parameter._post_accumulate_grad_hooks
        if grad is None or listened:
            self._grad = None
        elif grad is not self._grad:
            self._grad = grad if grad.is_contiguous() else None
            self._array = grad.numpy()
        if self._grad is None:
            self._apart = np.zeros(parameter.shape, np.float32)
            return self._apart
        return self._array

    def hand_on(self) -> None:
        """Let torch add what was added up apart, because `.grad` does not exist yet or somebody listens."""
        if self._apart is not None:
            gradient, self._apart = self._apart, None
            self.parameter.backward(torch.from_numpy(gradient))


class Mirror:
    """Computes what plain layers and the linear heads on them compute on the CPU, to float32 rounding.

    Args:
        encoder: the plain layers.
        heads: linear layers on its output.
    """

    def __init__(self, encoder: MLP, heads: Sequence[nn.Linear]) -> None:
        hidden = [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]
        widest = max(layer.out_features for layer in hidden)
        made: type[Passes] = Passes if COMPILED is None or widest > WIDE else COMPILED.Passes
        self.passes = made([_arrays(layer) for layer in hidden], [_arrays(head) for head in heads], encoder.activation)
        self.in_numpy = made is Passes
        self.encoding_size = encoder.output_size
        self._hidden = len(hidden)
        layers = *hidden, *heads
        self._gradients = [(ParameterGradient(layer.weight), ParameterGradient(layer.bias)) for layer in layers]
        self._parameters = [gradient.parameter for layer in self._gradients for gradient in layer]
        self._addresses = [parameter.data_ptr() for parameter in self._parameters]
        modules = encoder, *encoder.layers, *heads
        self._hooks = [hooks for module in modules for hooks in (module._forward_pre_hooks, module._forward_hooks)]

    @property
    def is_current(self) -> bool:
        """Whether the parameters are still where they were (values may have changed), and no hook waits for a call."""
        return not any(self._hooks) and [p.data_ptr() for p in self._parameters] == self._addresses

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter wants a gradient."""
        return not any(parameter.requires_grad for parameter in self._parameters)

    @property
    def has_moved(self) -> bool:
        """Whether the parameters are elsewhere now; a look at the first of them."""
        return self._parameters[0].data_ptr() != self._addresses[0]

    @classmethod
    def renewed(cls, mirror: Mirror | None, parts: Parts) -> Mirror | None:
        """That mirror where it is current, or else one of these parts; None where they cannot be mirrored."""
        if mirror is not None and mirror.is_current:
            return mirror
        encoder, heads = parts()  # which need not be looked up for one that is current
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
        parameters = [p for layer in layers for p in layer.parameters()]
        return all(p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous() for p in parameters)

    def __call__(self, features: np.ndarray) -> list[np.ndarray]:
        """The output of each head, for float32 features [rows, size]."""
        return self.passes.forward(np.ascontiguousarray(features))

    def record(self, features: np.ndarray) -> tuple[list[np.ndarray], Any]:
        """As a call, with what `backward` needs, until it is released."""
        return self.passes.record(np.ascontiguousarray(features))

    def backward(self, passed: Any, gradients: Arrays) -> None:
        """Add to all parameters' `.grad` what follows from the gradients of the heads' outputs; None where unused."""
        used = [gradient is not None for gradient in gradients]
        if not any(used):
            return
        layers = zip(self._gradients, [True] * self._hidden + used, strict=True)
        sinks = [(weight.sink(), bias.sink()) if reached else NOWHERE for (weight, bias), reached in layers]
        self.passes.backward(passed, gradients, sinks)
        for layer in self._gradients:
            for gradient in layer:
                gradient.hand_on()

    def release(self, passed: Any) -> None:
        """Let the next pass use what `record` returned."""
        self.passes.release(passed)


def _arrays(layer: nn.Linear) -> Layer:
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()

"""Passes through networks that are computed without torch: functions of its autograd, and steps of losses on arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.convolutions import is_traced
from mlhooks.fast.mlp import FastMLP, ParameterGradient
from mlhooks.fast.recurrent import FastRecurrent


class MLPFunction(torch.autograd.Function):
    """A `FastMLP` as a function of torch's autograd, with gradients of its features and its parameters.

    Which of them have a gradient is settled in the forward pass. Gradients of gradients are torch's own.
    """

    @staticmethod
    def forward(ctx: Any, mlp: FastMLP, features: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs."""
        arrays, ctx.saved = mlp.record(features.detach().numpy())
        ctx.mlp = mlp
        ctx.save_for_backward(features, *parameters)
        ctx.set_materialize_grads(False)
        return tuple(map(torch.from_numpy, arrays))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        """Compute the gradients of features and parameters."""
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
        batched = any(map(torch._C._functorch.is_legacy_batchedtensor, filter(torch.is_tensor, gradients)))
        if torch.is_grad_enabled() or batched or is_traced():  # Torch has gradients of gradients, and many at once.
            return None, *ctx.mlp.gradients_in_torch(inputs, needed, gradients)
        arrays = [None if gradient is None else gradient.numpy() for gradient in gradients]
        found = ctx.mlp.gradients(ctx.saved, arrays, needed)
        return None, *(None if gradient is None else torch.from_numpy(gradient) for gradient in found)


class MLPStep(NamedTuple):
    """The step of a record that computed the outputs of a `FastMLP`, or of a `FastRecurrent`.

    Attributes:
        mlp: what computed them.
        saved: what its backward pass needs.
        outputs: the results.
        features: the input, if it has a gradient.
    """

    mlp: FastMLP | FastRecurrent
    saved: Any
    outputs: list[ArrayTensor]
    features: ArrayTensor | None

    def propagate(self) -> None:
        """Pass the gradients of the outputs on to parameters and features."""
        gradients = [output.take_gradient() for output in self.outputs]
        below = self.mlp.add_gradients(self.saved, gradients, inputs=self.features is not None)
        if below is not None and self.features is not None:
            self.features.add_gradient(below)


class TensorStep(NamedTuple):
    """The step of a record that took in a tensor of torch's graph, such as an encoding of images.

    Nothing else reads that tensor.

    Attributes:
        tensor: the tensor.
        array: what stands for it.
    """

    tensor: Tensor
    array: ArrayTensor

    def propagate(self) -> None:
        """Pass the gradient on to torch's graph."""
        gradient = self.array.take_gradient()
        if gradient is not None:  # The graph is kept, because a loss may propagate gradients more than once.
            self.tensor.backward(torch.from_numpy(np.ascontiguousarray(gradient)), retain_graph=True)


class ParameterStep(NamedTuple):
    """The step of a record that took in a parameter which is used together with outputs of networks."""

    parameter: ParameterGradient
    array: ArrayTensor

    def propagate(self) -> None:
        """Add the gradient to the parameter's."""
        gradient = self.array.take_gradient()
        sink = None if gradient is None else self.parameter.sink()
        if sink is not None:
            sink += gradient
            self.parameter.flush()

"""Multilayer perceptrons without torch, on the memory of torch's parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from mlhooks.fast.switch import is_plain, native
from mlhooks.nn.layers import ACTIVATIONS, MLP

KERNELS = native("mlp")
MAX_HIDDEN_UNITS = 512
"""The width of layers up to which the kernels are faster than BLAS."""
NO_SINKS = (None, None)

Arrays = Sequence[np.ndarray | None]
Parts = Callable[[], tuple[nn.Module, Sequence[nn.Linear]] | None]
"""Gives an encoder and the linear heads on it; None where a network is more than these."""
Kind = TypeVar("Kind", bound=nn.Module)
COMPUTING = ("__call__", "forward", "outputs", "_in_torch", "combine")
"""Methods by which networks compute."""


class FastMLP:
    """Computes what plain layers and the linear heads on them compute on the CPU, to float32 rounding.

    Weights are read where torch has them in every pass, so they are never stale. One thread at a time may use an
    object, because passes share its buffers.

    Args:
        encoder: the plain layers.
        heads: linear layers on its output.
    """

    def __init__(self, encoder: MLP, heads: Sequence[nn.Linear]) -> None:
        assert KERNELS is not None
        hidden = _linear(encoder)
        layers = *hidden, *heads
        self.encoding_size = encoder.output_size
        self._kernels = KERNELS.MLP([*map(_arrays, hidden)], [*map(_arrays, heads)], encoder.activation)
        self._activation = ACTIVATIONS[encoder.activation]
        self._hidden = len(hidden)
        self.parameters: list[Tensor] = [p for layer in layers for p in (layer.weight, layer.bias)]
        self._gradients = [(ParameterGradient(layer.weight), ParameterGradient(layer.bias)) for layer in layers]
        self._addresses = [parameter.data_ptr() for parameter in self.parameters]
        self._encoder, self._layers, self._list = encoder, hidden, encoder.layers
        self._modules = encoder, *hidden, *heads
        self._hooks = [hooks for module in self._modules for hooks in hooks_of(module)]
        self._attributes = [vars(module) for module in self._modules]
        self._places = [
            (layer._parameters, name, layer._parameters[name]) for layer in layers for name in ("weight", "bias")
        ]

    @property
    def is_current(self) -> bool:
        """Whether torch would compute the same: the parameters are those, and where they were, and no hook waits.

        Their values may have changed.
        """
        if any(self._hooks) or _has_any_global_hook() or self._encoder._activate is not self._activation:
            return False
        if self._encoder._modules["layers"] is not self._list or [*self._list._modules.values()] != self._layers:
            return False
        for attributes in self._attributes:
            if "forward" in attributes:
                return False
        for parameters, name, parameter in self._places:
            if parameters.get(name) is not parameter:
                return False
        return [parameter.data_ptr() for parameter in self.parameters] == self._addresses

    @property
    def has_gradient_hooks(self) -> bool:
        """Whether something waits for the gradient of a parameter."""
        return any(p._backward_hooks or p._post_accumulate_grad_hooks for p in self.parameters)

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter requires a gradient."""
        return not any(parameter.requires_grad for parameter in self.parameters)

    @property
    def has_moved(self) -> bool:
        """Whether the first parameter, and so probably all of them, has other memory than before."""
        return self.parameters[0].data_ptr() != self._addresses[0]

    @classmethod
    def refreshed(cls, mlp: FastMLP | None, encoder: nn.Module, heads: Sequence[nn.Linear]) -> FastMLP | None:
        """Return that one where it is current, or else one of these parts; None where torch must compute them."""
        if mlp is not None and mlp._modules == (encoder, *mlp._layers, *heads) and mlp.is_current:
            return mlp
        return cls(encoder, heads) if cls.supports(encoder, heads) else None

    @staticmethod
    def supports(encoder: nn.Module, heads: Sequence[nn.Module]) -> TypeGuard[MLP]:
        """Return whether these are plain layers on the CPU, and none is of a subclass that may compute otherwise."""
        if KERNELS is None or type(encoder) is not MLP or encoder.activation not in KERNELS.KINDS:
            return False
        layers = [*encoder.layers, *heads]
        if any(type(layer) is not nn.Linear or layer.bias is None for layer in layers):
            return False
        if max(layer.out_features for layer in _linear(encoder)) > MAX_HIDDEN_UNITS:
            return False
        if any(map(may_do_more, (encoder, *layers))) or _has_any_global_hook():
            return False
        parameters = [p for layer in layers for p in layer.parameters()]
        if any(type(p) is not nn.Parameter for p in parameters) or len(set(parameters)) < 2 * len(layers):
            return False  # others are there for a while, or layers share them
        return encoder._activate is ACTIVATIONS[encoder.activation] and all(map(_is_plain, parameters))

    def __call__(self, features: np.ndarray) -> list[np.ndarray]:
        """Return the output of each head, for float32 features [rows, size]."""
        outputs: list[np.ndarray] = self._kernels.forward(np.ascontiguousarray(features))
        return outputs

    def record(self, features: np.ndarray) -> tuple[list[np.ndarray], SavedPass]:
        """Return the output of each head, and what the backward pass needs."""
        outputs, activations = self._kernels.record(np.ascontiguousarray(features))
        return outputs, SavedPass(self._kernels, activations)

    def add_gradients(self, saved: SavedPass, gradients: Arrays) -> None:
        """Add the gradients of all parameters to their `.grad`.

        Args:
            saved: what `record` returned.
            gradients: [rows, out] of the loss with respect to each head's output; None for a head that it does not use.
        """
        used = [gradient is not None for gradient in gradients]
        if not any(used):
            return
        layers = zip(self._gradients, [True] * self._hidden + used, strict=True)
        sinks = [(weight.sink(), bias.sink()) if reached else NO_SINKS for (weight, bias), reached in layers]
        self._kernels.backward(saved.activations, gradients, sinks)
        for layer in self._gradients:
            for gradient in layer:
                gradient.flush()

    def gradients(self, saved: SavedPass, gradients: Arrays) -> list[np.ndarray]:
        """Return the gradients of all parameters, for the same arguments as `add_gradients`."""
        found = [np.zeros(parameter.shape, np.float32) for parameter in self.parameters]
        self._kernels.backward(saved.activations, gradients, list(zip(found[::2], found[1::2], strict=True)))
        return found

    def gradients_in_torch(
        self, features: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Return as `gradients`, as tensors of which torch has gradients again; None for parameters that are frozen."""
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            outputs = self.in_torch(features, parameters)
        used = [n for n, gradient in enumerate(gradients) if gradient is not None]
        found = iter(
            torch.autograd.grad(
                [outputs[n] for n in used],
                [parameter for parameter in parameters if parameter.requires_grad],
                [gradients[n] for n in used],
                create_graph=further,
                allow_unused=True,
            )
        )
        return [next(found) if parameter.requires_grad else None for parameter in parameters]

    def in_torch(self, features: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return the output of each head as torch computes it from these parameters."""
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        for weight, bias in layers[: self._hidden]:
            features = self._activation(nn.functional.linear(features, weight, bias))
        return [nn.functional.linear(features, weight, bias) for weight, bias in layers[self._hidden :]]


class SavedPass:
    """What a forward pass saved for the backward pass; another pass reuses its memory after it is deleted."""

    __slots__ = ("_kernels", "activations")

    def __init__(self, kernels: Any, activations: Any) -> None:
        self._kernels, self.activations = kernels, activations

    def __del__(self) -> None:
        self._kernels.release(self.activations)


class ParameterGradient:
    """The place in which the gradient of a parameter is accumulated."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter
        self._grad: Tensor | None = None
        self._array: np.ndarray  # on the memory of `_grad`
        self._buffer: np.ndarray | None = None

    def sink(self) -> np.ndarray | None:
        """Return the array to add a gradient to before `flush` is called; None if the parameter is frozen.

        It has the memory of the parameter's `.grad`, or is a buffer where torch has to do the addition.
        """
        parameter = self.parameter
        if not parameter.requires_grad:
            return None
        grad = parameter.grad
        if grad is None or parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            self._grad = None
        elif grad is not self._grad:
            self._grad = grad if grad.is_contiguous() else None
            self._array = grad.numpy()
        if self._grad is None:
            self._buffer = np.zeros(parameter.shape, np.float32)
            return self._buffer
        return self._array

    def flush(self) -> None:
        """Let torch add the buffer to `.grad`, where that did not exist yet or the parameter has hooks to be called."""
        if self._buffer is not None:
            gradient, self._buffer = self._buffer, None
            self.parameter.backward(torch.from_numpy(gradient))


class ActingNetwork:
    """The network of a policy that acts: a `FastMLP` where one can compute it, made again when parameters move.

    A copy begins without a `FastMLP`, because that belongs to the memory of its network.
    """

    def __init__(self) -> None:
        self._mlp: FastMLP | None = None
        self._is_stale = True

    def __reduce__(self) -> tuple[type[ActingNetwork], tuple[()]]:
        return ActingNetwork, ()

    def weights_changed(self) -> None:
        """Check before the next call whether a `FastMLP` can still compute the network."""
        self._is_stale = True

    def outputs(self, parts: Parts, features: np.ndarray) -> list[np.ndarray] | None:
        """Return the output of each head [rows, out] for features [rows, size]; None where torch must compute them."""
        if is_plain():
            return None
        if self._is_stale or (self._mlp is not None and self._mlp.has_moved):
            found = parts()
            self._mlp, self._is_stale = None if found is None else FastMLP.refreshed(self._mlp, *found), False
        return None if self._mlp is None else self._mlp(features)


def has_hooks(module: nn.Module) -> bool:
    """Return whether something waits for a module to be called, or for gradients to pass it."""
    return any(hooks_of(module))


def hooks_of(module: nn.Module) -> tuple[Any, ...]:
    """Return what a module has of each kind of hooks."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def may_do_more(module: nn.Module) -> bool:
    """Return whether a call of the module may do more than its class: it has hooks, or a `forward` of its own."""
    return has_hooks(module) or "forward" in vars(module)


def computes_as(network: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    """Return whether a call of the network computes what this class says: nothing is overridden, and nobody listens."""
    if not isinstance(network, kind) or may_do_more(network):
        return False
    own = type(network)
    return own is kind or all(getattr(own, name, None) is getattr(kind, name, None) for name in COMPUTING)


def has_gradient_hooks(parameter: Tensor) -> bool:
    """Return whether something waits for the gradient of a parameter."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


def _is_plain(parameter: Tensor) -> bool:
    return parameter.device.type == "cpu" and parameter.dtype == torch.float32 and parameter.is_contiguous()


def _linear(encoder: MLP) -> list[nn.Linear]:
    return [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]


def _arrays(layer: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()

"""Multilayer perceptrons without torch, on the memory of torch's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from mlhooks.fast.structure import Structure, may_do_more
from mlhooks.fast.switch import is_plain, native
from mlhooks.nn.layers import ACTIVATIONS, MLP

if TYPE_CHECKING:
    from mlhooks.nn.networks import Network

KERNELS = native("mlp")
MAX_HIDDEN_UNITS = 512
"""The width of layers up to which the kernels are faster than BLAS."""
NO_SINKS = (None, None)
REQUIRES_GRAD = attrgetter("requires_grad")

Arrays = Sequence[np.ndarray | None]


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
        self.layers, self.modules = encoder.layers, (encoder, *layers)
        self._structure = Structure([self.layers, *self.modules], self.modules, [encoder])

    @property
    def is_current(self) -> bool:
        """Whether torch would compute the same: the parameters are those, and where they were, and no hook waits.

        Their values may have changed.
        """
        return self._structure.is_same and self.is_in_place

    @property
    def is_in_place(self) -> bool:
        """Whether the parameters have the memory that they had."""
        return [parameter.data_ptr() for parameter in self.parameters] == self._addresses

    @property
    def has_gradient_hooks(self) -> bool:
        """Whether something waits for the gradient of a parameter."""
        return any(p._backward_hooks or p._post_accumulate_grad_hooks for p in self.parameters)

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter requires a gradient."""
        return not any(map(REQUIRES_GRAD, self.parameters))

    @property
    def has_moved(self) -> bool:
        """Whether the first parameter, and so probably all of them, has other memory than before."""
        return self.parameters[0].data_ptr() != self._addresses[0]

    @classmethod
    def refreshed(cls, mlp: FastMLP | None, encoder: nn.Module, heads: Sequence[nn.Linear]) -> FastMLP | None:
        """Return that one where it is current, or else one of these parts; None where torch must compute them."""
        if mlp is not None and mlp.modules == (encoder, *mlp.modules[1 : mlp._hidden + 1], *heads) and mlp.is_current:
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


class NetworkMLP:
    """The `FastMLP` of a network, which is looked for again only where the network has changed.

    A copy begins without one, because that belongs to the memory of its network.
    """

    def __init__(self) -> None:
        self.mlp: FastMLP | None = None
        self._structure: Structure | None = None  # the network's, in which the mlp was found

    def __reduce__(self) -> tuple[type[NetworkMLP], tuple[()]]:
        return type(self), ()

    def find(self, network: Network) -> FastMLP | None:
        """Return what computes the network's heads; None where torch must."""
        if self._structure is not None and self._structure.is_same and self.mlp is not None and self.mlp.is_in_place:
            return self.mlp
        self._structure = None
        encoder_and_heads = self._parts(network)
        mlp = None if encoder_and_heads is None else FastMLP.refreshed(self.mlp, *encoder_and_heads)
        if mlp is not None:  # else the former one may be current again, when other weights were there for a while only
            parts, deciding = [*network.modules(), mlp.layers, *mlp.modules], [network, mlp.modules[0]]
            self.mlp, self._structure = mlp, Structure(parts, self._called(network, mlp), deciding)
        return mlp

    def _parts(self, network: Network) -> tuple[nn.Module, Sequence[nn.Linear]] | None:
        return network.encoder, network.linear_heads()

    def _called(self, network: Network, mlp: FastMLP) -> Sequence[nn.Module]:  # noqa: ARG002 - for subclasses
        return mlp.modules


class ActingNetwork(NetworkMLP):
    """The `FastMLP` by which a network acts; losses have others, because both may be computed at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self._acting: FastMLP | None = None
        self._is_stale = True

    def weights_changed(self) -> None:
        """Look before the next call whether the `FastMLP` can still compute the network."""
        self._is_stale = True

    def outputs(self, network: Network, features: np.ndarray) -> list[np.ndarray] | None:
        """Return the output of each head for features [rows, size]; None where the network must be called."""
        if is_plain():
            return None
        if self._is_stale or (self._acting is not None and self._acting.has_moved):
            self._acting, self._is_stale = self.find(network), False
        return None if self._acting is None else self._acting(features)

    def _parts(self, network: Network) -> tuple[nn.Module, Sequence[nn.Linear]] | None:
        return super()._parts(network) if network.computes_heads_only() else None

    def _called(self, network: Network, mlp: FastMLP) -> Sequence[nn.Module]:
        return network, *mlp.modules


def _is_plain(parameter: Tensor) -> bool:
    return parameter.device.type == "cpu" and parameter.dtype == torch.float32 and parameter.is_contiguous()


def _linear(encoder: MLP) -> list[nn.Linear]:
    return [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]


def _arrays(layer: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()

"""Multilayer perceptrons without torch, on the memory of torch's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from mlhooks.fast.structure import Structure, has_hooks, may_do_more
from mlhooks.fast.switch import is_plain, native
from mlhooks.nn.encoders import MixedEncoder
from mlhooks.nn.layers import ACTIVATIONS, MLP

if TYPE_CHECKING:
    from mlhooks.nn.networks import Network

KERNELS = native("mlp")
STRUCTURE: Any = native("structure")
MAX_HIDDEN_UNITS = 512
"""The width of layers up to which the kernels are faster than BLAS."""
NO_SINKS = (None, None)
UNKNOWN = object()
"""It stands for a `.grad` that no parameter has."""
REQUIRES_GRAD = attrgetter("requires_grad")

Arrays = Sequence[np.ndarray | None]


class FastMLP:
    """Computes what plain layers and the linear heads on them compute on the CPU, to float32 rounding.

    Weights are read where torch has them in every pass, so they are never stale. One thread at a time may use an
    object, because passes share its buffers.

    Args:
        encoder: the plain layers.
        heads: linear layers on its output. Without any, the encoding itself is the one output.
    """

    def __init__(self, encoder: MLP, heads: Sequence[nn.Linear] = ()) -> None:
        assert KERNELS is not None
        hidden = _linear(encoder)
        layers = *hidden, *heads
        self.widest = encoder.widest
        self._kernels = KERNELS.MLP([*map(_arrays, hidden)], [*map(_arrays, heads)], encoder.activation)
        self._activation = ACTIVATIONS[encoder.activation]
        self._hidden = len(hidden)
        self.parameters: list[Tensor] = [p for layer in layers for p in (layer.weight, layer.bias)]
        self._gradients: LayerGradients = [
            (ParameterGradient(layer.weight), ParameterGradient(layer.bias)) for layer in layers
        ]
        self._grads: list[Any] = [UNKNOWN] * len(self.parameters)  # They are each `.grad`, once `_sinks` has them all.
        self._sinks: list[tuple[np.ndarray, np.ndarray]] = []
        self._address = self.parameters[0].data_ptr()
        self.layers, self.modules = encoder.layers, (encoder, *layers)
        self._structure = Structure([self.layers, *self.modules], self.modules, [encoder], self.parameters)

    @property
    def is_current(self) -> bool:
        """Whether torch would compute the same: the parameters are those, and where they were, and no hook waits.

        Their values may have changed.
        """
        return self._structure.is_same

    @property
    def has_gradient_hooks(self) -> bool:
        """Whether something waits for the gradient of a parameter."""
        hooked: bool = STRUCTURE.has_gradient_hooks(self.parameters)
        return hooked

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter requires a gradient."""
        return not any(map(REQUIRES_GRAD, self.parameters))

    @property
    def has_moved(self) -> bool:
        """Whether the first parameter, and so probably all of them, has other memory than before."""
        return self.parameters[0].data_ptr() != self._address

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
        if not len(encoder.layers) or any(type(layer) is not nn.Linear or layer.bias is None for layer in layers):
            return False
        if max(layer.out_features for layer in _linear(encoder)) > MAX_HIDDEN_UNITS:
            return False
        if any(map(may_do_more, (encoder, *layers))) or _has_any_global_hook():
            return False
        parameters = [p for layer in layers for p in layer.parameters()]
        if any(type(p) is not nn.Parameter for p in parameters) or len(set(parameters)) < 2 * len(layers):
            return False  # Others are there for a while, or layers share them.
        return encoder._activate is ACTIVATIONS[encoder.activation] and all(map(is_plain_parameter, parameters))

    def __call__(self, features: np.ndarray) -> list[np.ndarray]:
        """Return the outputs, for float32 features [rows, size]."""
        outputs: list[np.ndarray] = self._kernels.forward(np.ascontiguousarray(features))
        return outputs

    def record(self, features: np.ndarray) -> tuple[list[np.ndarray], SavedPass]:
        """Return the outputs, and what the backward pass needs; parameters that are frozen now get no gradient."""
        outputs, activations = self._kernels.record(np.ascontiguousarray(features))
        gradients, wanted = self._gradients, [*map(REQUIRES_GRAD, self.parameters)]
        if not all(wanted):
            weights_and_biases = zip(gradients, wanted[::2], wanted[1::2], strict=True)
            gradients = [(weight if w else None, bias if b else None) for (weight, bias), w, b in weights_and_biases]
        return outputs, SavedPass(self._kernels, activations, gradients)

    def add_gradients(self, saved: SavedPass, gradients: Arrays, *, inputs: bool = False) -> np.ndarray | None:
        """Add the gradients of parameters to their `.grad`.

        Args:
            saved: what `record` returned.
            gradients: [rows, out] of the loss with respect to each output; None for one that it does not use.
            inputs: whether the gradient of the features is wanted.

        Returns:
            The gradient of the features [rows, size]; None where it is not wanted, or the loss uses no output.
        """
        used = [gradient is not None for gradient in gradients]
        if not any(used):
            return None
        below = self._empty_inputs(gradients) if inputs else None
        if saved.gradients is self._gradients and STRUCTURE.are_in_place(self.parameters, self._grads):
            self._kernels.backward(saved.activations, gradients, self._sinks, below)
            return below
        reached = [True] * self._hidden + used  # Without heads there is one more than there are layers.
        sinks = [
            (weight and weight.sink(), bias and bias.sink()) if is_reached else NO_SINKS
            for (weight, bias), is_reached in zip(saved.gradients, reached, strict=False)
        ]
        self._kernels.backward(saved.activations, gradients, sinks, below)
        for layer in saved.gradients:
            for gradient in layer:
                if gradient is not None:
                    gradient.flush()
        if saved.gradients is self._gradients and all(used):
            self._remember_sinks(sinks)
        return below

    def _remember_sinks(self, sinks: list[Any]) -> None:
        """Keep the arrays on the memory of all `.grad`, which mostly stay where they are from one pass to the next."""
        own = [gradient.grad for layer in self._gradients for gradient in layer if gradient is not None]
        if None not in own:
            self._grads, self._sinks = own, sinks

    def _empty_inputs(self, gradients: Arrays) -> np.ndarray:
        rows = next(len(gradient) for gradient in gradients if gradient is not None)
        return np.empty((rows, self.parameters[0].shape[1]), np.float32)

    def gradients(self, saved: SavedPass, gradients: Arrays, needed: Sequence[bool]) -> list[np.ndarray | None]:
        """Return the gradients of the features and of all parameters.

        Args:
            saved: what `record` returned.
            gradients: as in `add_gradients`, at least one.
            needed: of which of them the gradient is wanted; that of others is None.
        """
        below = self._empty_inputs(gradients) if needed[0] else None
        reached = [True] * self._hidden + [gradient is not None for gradient in gradients]
        found = [
            np.zeros(parameter.shape, np.float32) if needed[n + 1] and reached[n // 2] else None
            for n, parameter in enumerate(self.parameters)
        ]
        self._kernels.backward(saved.activations, gradients, list(zip(found[::2], found[1::2], strict=True)), below)
        return [below, *found]

    def gradients_in_torch(
        self, inputs: Sequence[Tensor], needed: Sequence[bool], gradients: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Return as `gradients`, as tensors of which torch has gradients again.

        Args:
            inputs: the features and all parameters.
            needed: of which of them the gradient is wanted.
            gradients: of each output, or None.
        """
        further = torch.is_grad_enabled()
        inputs = [x if is_needed else x.detach() for x, is_needed in zip(inputs, needed, strict=True)]
        with torch.enable_grad():
            outputs = self.in_torch(inputs[0], inputs[1:])
        used = [n for n, gradient in enumerate(gradients) if gradient is not None]
        found = iter(
            torch.autograd.grad(
                [outputs[n] for n in used],
                [x for x in inputs if x.requires_grad],
                [gradients[n] for n in used],
                create_graph=further,
                allow_unused=True,
            )
        )
        return [next(found) if x.requires_grad else None for x in inputs]

    def in_torch(self, features: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs as torch computes them from these parameters."""
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        for weight, bias in layers[: self._hidden]:
            features = self._activation(nn.functional.linear(features, weight, bias))
        return [nn.functional.linear(features, weight, bias) for weight, bias in layers[self._hidden :]] or [features]


class SavedPass:
    """Results that a forward pass saved for the backward pass; another pass reuses its memory after it is deleted.

    Attributes:
        activations: those of the native extension.
        gradients: for each layer the places of the gradients of weight and bias; None where it had none to collect.
    """

    __slots__ = ("_kernels", "activations", "gradients")

    def __init__(self, kernels: Any, activations: Any, gradients: LayerGradients) -> None:
        self._kernels, self.activations, self.gradients = kernels, activations, gradients

    def __del__(self) -> None:
        self._kernels.release(self.activations)


class ParameterGradient:
    """The place in which the gradient of a parameter is accumulated."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter
        self.grad: Tensor | None = None  # This is the parameter's `.grad`, where arrays may be added to it.
        self._array: np.ndarray  # It has the memory of `grad`.
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
            self.grad = None
        elif grad is not self.grad:
            self.grad = grad if grad.is_contiguous() else None
            self._array = grad.numpy()
        if self.grad is None:
            self._buffer = np.zeros(parameter.shape, np.float32)
            return self._buffer
        return self._array

    def flush(self) -> None:
        """Let torch add the buffer to `.grad`, where that did not exist yet or the parameter has hooks to be called."""
        if self._buffer is not None:
            gradient, self._buffer = self._buffer, None
            self.parameter.backward(torch.from_numpy(gradient))


LayerGradients = list[tuple[ParameterGradient | None, ParameterGradient | None]]


class NetworkMLP:
    """The `FastMLP` of a network, which is looked for again only where the network has changed.

    A copy begins without one, because that belongs to the memory of its network.
    """

    def __init__(self) -> None:
        self.mlp: FastMLP | None = None
        self.images: MixedEncoder | None = None  # The mlp is the last layers of this encoder, if it reads images.
        self._structure: Structure | None = None  # The network had it when the mlp was found.

    def __reduce__(self) -> tuple[type[NetworkMLP], tuple[()]]:
        return type(self), ()

    def find(self, network: Network) -> FastMLP | None:
        """Return what computes the network's heads; None where torch must."""
        if self._structure is not None and self._structure.is_same:
            return self.mlp
        self._structure = None
        encoder_and_heads = self._parts(network)
        mlp = None if encoder_and_heads is None else FastMLP.refreshed(self.mlp, *encoder_and_heads)
        if mlp is not None:  # Otherwise the former one stays, which is current again once its weights come back.
            parts, deciding = [*network.modules(), mlp.layers, *mlp.modules], [network, network.encoder, mlp.modules[0]]
            self.images = network.encoder if isinstance(network.encoder, MixedEncoder) else None
            self.mlp, self._structure = mlp, Structure(parts, self._called(network, mlp), deciding, mlp.parameters)
        return mlp

    def computes_alike(self, network: Network) -> bool:
        """Return whether nothing of a network has changed since `find`, and no hook waits, also for gradients."""
        structure, mlp = self._structure, self.mlp
        if structure is None or mlp is None or not structure.is_same or mlp.has_gradient_hooks:
            return False
        return network.array_arithmetic and not has_hooks(network)

    def _parts(self, network: Network) -> tuple[nn.Module, Sequence[nn.Linear]] | None:
        return dense_part(network.encoder), network.linear_heads()

    def _called(self, network: Network, mlp: FastMLP) -> Sequence[nn.Module]:
        return network.encoder, *mlp.modules


def dense_part(encoder: nn.Module) -> nn.Module:
    """Return the plain layers at the end of an encoder of images, or else the encoder itself."""
    if type(encoder) is MixedEncoder and not may_do_more(encoder):
        return encoder.body
    return encoder


class EncoderMLP(NetworkMLP):
    """The `FastMLP` of a network's encoder alone."""

    def _parts(self, network: Network) -> tuple[nn.Module, Sequence[nn.Linear]] | None:
        return dense_part(network.encoder), ()


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
        if is_plain() or network.memory is not None:
            return None
        if self._is_stale or (self._acting is not None and self._acting.has_moved):
            self._acting, self._is_stale = self.find(network), False
        return None if self._acting is None else self._acting(features)

    def _parts(self, network: Network) -> tuple[nn.Module, Sequence[nn.Linear]] | None:
        return (network.encoder, network.linear_heads()) if network.computes_heads_only() else None

    def _called(self, network: Network, mlp: FastMLP) -> Sequence[nn.Module]:
        return network, *mlp.modules


def is_plain_parameter(parameter: Tensor) -> bool:
    """Return whether numpy can read a parameter where it is."""
    return parameter.device.type == "cpu" and parameter.dtype == torch.float32 and parameter.is_contiguous()


def _linear(encoder: MLP) -> list[nn.Linear]:
    return [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]


def _arrays(layer: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()

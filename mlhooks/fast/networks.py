"""The networks of a loss: small ones are computed without torch, inside its autograd or on arrays."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.convolutions import is_traced, is_watched
from mlhooks.fast.mlp import REQUIRES_GRAD, EncoderMLP, FastMLP, NetworkMLP, ParameterGradient
from mlhooks.fast.passes import MLPFunction, MLPStep, ParameterStep, TensorStep
from mlhooks.fast.record import Record
from mlhooks.fast.recurrent import FastRecurrent, RecurrentNetwork
from mlhooks.fast.structure import has_gradient_hooks, has_hooks
from mlhooks.fast.switch import is_plain
from mlhooks.nn.layers import MLP

if TYPE_CHECKING:
    from mlhooks.nn.encoders import MixedEncoder
    from mlhooks.nn.networks import Network

logger = logging.getLogger("mlhooks")
MAX_ACTIVATIONS = 2**20
"""Activations of one layer, rows times hidden units, beyond which torch is faster where it has several threads."""
BFLOAT16_UNITS, BFLOAT16_PRODUCTS = 256, 2**25
"""Hidden units, and multiplications of one layer, from which torch in bfloat16 is faster than the native extension."""


class _Known(NamedTuple):
    """The knowledge of a scope about a network.

    Attributes:
        mlp: what computes it; None for torch.
        images: what torch computes before that, if the network reads images.
        may_be_arrays: whether loss and network opted in to arrays, so that this holds until `invalidate` is called.
        is_hooked: whether hooks wait for gradients of parameters, which only torch can call.
        is_simple: whether it reads features alone and may be arrays, so that nothing else need be asked at each call.
    """

    mlp: FastMLP | None
    images: MixedEncoder | None
    may_be_arrays: bool
    is_hooked: bool
    is_simple: bool


class _Networks:
    """The networks of which a scope computes the heads, or those of which it computes the encoding."""

    def __init__(self, kind: type[NetworkMLP]) -> None:
        self._kind = kind
        self._mlps: dict[Network, NetworkMLP] = {}
        self._before: dict[Network, _Known] = {}  # This was known before `invalidate` was called.
        self.known: dict[Network, _Known] = {}

    def passes_of(self, network: Network) -> tuple[FastMLP | None, MixedEncoder | None]:
        """Return what computes a network, None for torch, and the encoder of images whose last layers that is."""
        if network not in self._mlps:
            self._mlps[network] = self._kind()
        mlp = self._mlps[network].find(network)
        return mlp, self._mlps[network].images

    def still_known(self, network: Network) -> _Known | None:
        """Return what was known of a network that is computed without torch, where nothing of it has changed."""
        known = self._before.get(network)
        if known is None or not known.is_simple or not self._mlps[network].computes_alike(network):
            return None
        self.known[network] = known
        return known

    def invalidate(self) -> None:
        """Look at networks again when they are computed next, and forget those that were not since the last time."""
        if self.known:
            if len(self.known) < len(self._mlps):
                self._mlps = {network: self._mlps[network] for network in self.known}
            self._before, self.known = self.known, {}


class LossScope:
    """A context in which networks are computed without torch where that is possible.

    Only one thread at a time may compute networks in a scope. What it found out about networks that give arrays is
    cached until `invalidate` is called; others are checked at each call, because a loss may do anything with them. A
    copy begins with an empty cache.

    Args:
        arrays: whether the code of the loss may get arrays for tensors.
        opted_in: the networks that may be arrays; None for all that opt in themselves.
        name: the name of the loss in messages.

    Attributes:
        fallbacks: how often a loss on arrays left something to torch, by what that was: functions, attributes,
            "computing Actor", or "the gradient of Actor", whose outputs were tensors.
    """

    entered: ClassVar[ContextVar[LossScope | None]] = ContextVar("entered", default=None)

    def __init__(
        self, *, arrays: bool = False, opted_in: frozenset[nn.Module] | None = None, name: str = "A loss"
    ) -> None:
        self.arrays = arrays
        self.opted_in = opted_in
        self.name = name
        self.fallbacks: Counter[str] = Counter()
        self._record: Record | None = None
        self._heads, self._encoders = _Networks(NetworkMLP), _Networks(EncoderMLP)
        self._recurrent: dict[Network, RecurrentNetwork] = {}
        self._entries: list[tuple[Token[LossScope | None], Token[Record | None]]] = []
        self._encodings: dict[tuple[Any, ...], tuple[Tensor, int, Tensor]] = {}
        self._gradients: dict[nn.Parameter, ParameterGradient] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _scope, (self.arrays, self.opted_in, self.name)

    def __enter__(self) -> LossScope:
        if not self._entries:  # A loss may call something that enters the same scope again.
            learns = self.arrays and torch.is_grad_enabled() and not is_plain()
            self._record = Record(self._count) if learns else None
        self._entries.append((self.entered.set(self), Record.entered.set(self._record)))
        return self

    def __exit__(self, *_: object) -> None:
        scope, record = self._entries.pop()
        self.entered.reset(scope)
        Record.entered.reset(record)
        if not self._entries:
            self._encodings = {}

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss to all parameters' `.grad`."""
        record, self._record = self._record, None
        # numpy need not warn of numbers that are not finite, because the optimizer names them before its step.
        with np.errstate(all="ignore") if record is not None and record.in_numpy else nullcontext():
            loss.backward()
            if record is not None:
                record.propagate()

    def invalidate(self) -> None:
        """Look at networks again when they are computed next, and forget those that were not since the last time."""
        self._heads.invalidate()
        self._encoders.invalidate()

    def encoding_in_torch(self, encoder: Any, features: Tensor, beside: Tensor | None = None) -> Tensor:
        """Return the encoding of the features by torch; it is computed once where actor and critic share an encoder.

        Only code that opts in gets the same one again, because other losses may have changed weights in between.
        """
        if beside is None:
            return self._once(encoder, encoder, features)
        encoding: Tensor = encoder.body(torch.cat([self._once(encoder, encoder.before_body, features), beside], 1))
        return encoding

    def _once(self, encoder: nn.Module, compute: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
        """Return what the encoder, or a part of it, computes; the same again for the same features in one loss."""
        if not self.arrays:
            return compute(features)
        key = compute, torch.is_grad_enabled(), *map(REQUIRES_GRAD, encoder.parameters())
        read, version, encoding = self._encodings.get(key, (None, 0, None))
        if read is not features or version != _version(features) or encoding is None or _is_hooked(encoder):
            encoding = compute(features)
            self._encodings[key] = features, _version(features), encoding
        return encoding

    def _before_body(self, images: MixedEncoder, features: Tensor, record: Record | None) -> Any:
        """Return the input of an encoder's last layers, by torch, as an array of the record where there is one."""
        tensor = self._once(images, images.before_body, features)
        is_compiled = any(module._compiled_call_impl is not None for module in images.modules())
        if record is None or not tensor.requires_grad or is_compiled:  # Compiled graphs pass gradients back only once.
            return tensor
        if id(tensor) not in record.sources:
            array = ArrayTensor(tensor.detach().numpy())
            record.sources[id(tensor)] = tensor, array
            record.steps.append(TensorStep(tensor, array))
        return record.sources[id(tensor)][1]

    def outputs(self, network: Network, features: Tensor, beside: Tensor | None = None) -> list[Tensor] | None:
        """Return as the function `outputs` does."""
        known = None if is_traced() else self._known(self._heads, network)
        if beside is not None or known is None or not known.is_simple or features.requires_grad:
            return self._computed(self._heads, network, features, beside)
        mlp, rows = cast("FastMLP", known.mlp), _rows(features)
        learns, record = torch.is_grad_enabled(), self._record
        if rows is None or _is_large(len(rows), mlp) or (learns and record is None):
            return self._computed(self._heads, network, features)
        if record is None:
            return [torch.from_numpy(output) for output in mlp(rows)]
        if not learns or mlp.is_frozen:
            return cast("list[Tensor]", [ArrayTensor(output, constant=True) for output in mlp(rows)])
        arrays, saved = mlp.record(rows)
        outputs = [ArrayTensor(array) for array in arrays]
        record.steps.append(MLPStep(mlp, saved, outputs, None))
        return cast("list[Tensor]", outputs)

    def encoding(self, network: Network, features: Tensor, beside: Tensor | None = None) -> Tensor | None:
        """Return as the function `encoding` does."""
        outputs = self._computed(self._encoders, network, features, beside)
        return None if outputs is None else outputs[0]

    def unrolled(
        self, network: Network, features: Tensor, memory: Tensor | None, width: int, lengths: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None] | None:
        """Return as the function `unrolled` does."""
        learns = torch.is_grad_enabled()
        found = None if is_traced() or is_watched() else self._recurrent_of(network)
        rows, kept = _rows(features), None if memory is None else _rows(memory)
        if found is None or rows is None or (memory is not None and kept is None) or features.requires_grad:
            self._count(f"computing {type(network).__name__}")
            return None
        units = len(rows) // width
        if kept is None:
            kept = np.zeros((units, found.memory.size), np.float32)
        elif len(kept) > units:
            kept = kept[::width]
        arguments = rows, np.ascontiguousarray(kept), width, None if lengths is None else lengths.numpy()
        if not learns:
            outputs, after = found(*arguments)
            return [torch.from_numpy(output) for output in outputs], torch.from_numpy(after)
        record = self._record if self.arrays and network.array_arithmetic and self._has_opted_in(network) else None
        if record is None or not found.learns:
            self._count(f"the gradient of {type(network).__name__}")
            return None
        arrays, saved = found.record(*arguments)
        results = [ArrayTensor(array) for array in arrays]
        record.steps.append(MLPStep(found, saved, results, None))
        record.in_numpy = True
        return cast("list[Tensor]", results), None

    def _recurrent_of(self, network: Network) -> FastRecurrent | None:
        if network not in self._recurrent:
            self._recurrent[network] = RecurrentNetwork()
        return self._recurrent[network].of(network)

    def _computed(
        self, networks: _Networks, network: Network, features: Any, beside: Tensor | None = None
    ) -> list[Tensor] | None:
        """Return outputs, by torch's autograd or on arrays; None where torch must compute them."""
        known = None if is_traced() else self._known(networks, network)
        on_arrays = known is not None and known.may_be_arrays and self._record is not None
        mlp = known.mlp if known is not None and (on_arrays or not is_watched()) else None
        if known is not None and mlp is not None and known.images is not None and not _is_large(len(features), mlp):
            features = self._before_body(known.images, features, None if known.is_hooked else self._record)
            if beside is not None:
                features = torch.cat([features, beside], 1)
        rows = None if mlp is None else _rows(features)
        if rows is None or known is None or mlp is None or _is_large(len(rows), mlp):
            self._count(f"computing {type(network).__name__}")
            return None
        learns = torch.is_grad_enabled()
        reaches_features = learns and features.requires_grad
        is_array = type(features) is ArrayTensor
        record = self._record if on_arrays and not known.is_hooked and (is_array or not reaches_features) else None
        if record is None:
            self._count(f"the gradient of {type(network).__name__}")
        if not learns or (mlp.is_frozen and not reaches_features):
            computed = mlp(rows)
            if record is None:
                return [torch.from_numpy(output) for output in computed]
            return cast("list[Tensor]", [ArrayTensor(output, constant=True) for output in computed])
        if record is None:
            tensor = features.tensor() if is_array else features
            return list(MLPFunction.apply(mlp, tensor, *mlp.parameters))  # type: ignore[no-untyped-call]
        arrays, saved = mlp.record(rows)
        outputs = [ArrayTensor(array) for array in arrays]
        record.steps.append(MLPStep(mlp, saved, outputs, features if reaches_features else None))
        return cast("list[Tensor]", outputs)

    def _known(self, networks: _Networks, network: Network) -> _Known:
        """Return what the scope knows about a network; it looks again where that may have changed."""
        known = networks.known.get(network) or networks.still_known(network)
        if known is None or not known.may_be_arrays:
            mlp, images = networks.passes_of(network)
            # What is behind the memory of a network is torch's where its encoder is computed alone.
            opts_in = network.array_arithmetic and network.memory is None
            may_be_arrays = self.arrays and opts_in and self._has_opted_in(network)
            is_hooked = mlp is not None and mlp.has_gradient_hooks
            is_simple = mlp is not None and images is None and may_be_arrays and not is_hooked
            known = _Known(mlp, images, may_be_arrays, is_hooked, is_simple)
            networks.known[network] = known
        return known

    def _count(self, what: str) -> None:
        """Count what a loss on arrays leaves to torch."""
        if self._record is None:
            return
        if what not in self.fallbacks:
            logger.debug("%s leaves %s to torch, which may take longer than array arithmetic.", self.name, what)
        self.fallbacks[what] += 1

    def _has_opted_in(self, network: Any) -> bool:
        return (self.opted_in is None or network in self.opted_in) and not has_hooks(network)

    def parameter_array(self, parameter: nn.Parameter) -> Tensor:
        """Return an array in place of a parameter, which is used beside the outputs of networks."""
        if has_gradient_hooks(parameter):
            return parameter
        if not parameter.requires_grad or not torch.is_grad_enabled() or self._record is None:
            return parameter.detach()
        array = ArrayTensor(parameter.detach().numpy())
        if parameter not in self._gradients:
            self._gradients[parameter] = ParameterGradient(parameter)
        self._record.steps.append(ParameterStep(self._gradients[parameter], array))
        self._record.in_numpy = True
        return cast("Tensor", array)


def _scope(arrays: bool, opted_in: frozenset[nn.Module] | None, name: str) -> LossScope:
    return LossScope(arrays=arrays, opted_in=opted_in, name=name)


def _version(features: Any) -> int:
    """Return a number that changes with what is computed from the features; arrays stay what they are."""
    return 0 if type(features) is ArrayTensor else features._version


def _is_hooked(encoder: nn.Module) -> bool:
    """Return whether hooks wait for every call of the encoder or of a part of it."""
    return any(map(has_hooks, encoder.modules()))


def outputs(network: Network, features: Tensor, beside: Tensor | None = None) -> list[Tensor] | None:
    """Return the output of each head [rows, out] for features [rows, size]; None where torch must compute them.

    Features may be outputs of other networks. Results are tensors of torch's autograd, or arrays in their place where
    the loss and the network opt in to that. With `beside` the encoder has a method `before_body`, and its body reads
    that behind the result.
    """
    scope = _scope_for(network, features)
    return None if scope is None else scope.outputs(network, features, beside)


def unrolled(
    network: Network, features: Tensor, memory: Tensor | None, width: int, lengths: Tensor | None
) -> tuple[list[Tensor], Tensor | None] | None:
    """Return the output of each head [units * width, out] of a network with a memory; None where torch must.

    Args:
        network: the network.
        features: [units * width, size], as `Network.unroll` takes them with all that follows.
        memory: the memory before each row or unit.
        width: rows of a unit.
        lengths: the rows of each unit that are no padding.

    Returns:
        The outputs, as `outputs` returns them; and the memories after each unit [units, size], which a loss with
        gradients does not get.
    """
    scope = _scope_for(network, features)
    return None if scope is None else scope.unrolled(network, features, memory, width, lengths)


def encoding(network: Network, features: Tensor, beside: Tensor | None = None) -> Tensor | None:
    """Return the encoder's output [rows, encoding_size], as `outputs` does those of the heads."""
    scope = _scope_for(network, features)
    return None if scope is None else scope.encoding(network, features, beside)


def encoding_in_torch(encoder: Any, features: Tensor, beside: Tensor | None = None) -> Tensor:
    """Return what torch computes for features [rows, size]; a loss computes it once for networks that share it."""
    scope = LossScope.entered.get()
    if scope is not None and not is_plain():
        return scope.encoding_in_torch(encoder, features, beside)
    if beside is None:
        computed: Tensor = encoder(features)
    else:
        computed = encoder.body(torch.cat([encoder.before_body(features), beside], 1))
    return computed


def _scope_for(network: Network, features: Tensor) -> LossScope | None:
    scope = LossScope.entered.get()
    if scope is None or is_plain() or (network.autocast is not None and _worth_torch(network.encoder, len(features))):
        return None
    return scope


def parameter_like(output: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a parameter as a tensor or an array, whichever the output of a network is that it is used with."""
    scope = LossScope.entered.get()
    return parameter if scope is None or not isinstance(output, ArrayTensor) else scope.parameter_array(parameter)


def _worth_torch(encoder: nn.Module, rows: int) -> bool:
    """Return whether layers are so large that torch in bfloat16 is faster than a `FastMLP`, as images always are."""
    if not isinstance(encoder, MLP):
        return True
    return encoder.widest >= BFLOAT16_UNITS and rows * encoder.widest**2 >= BFLOAT16_PRODUCTS


def _is_large(rows: int, mlp: FastMLP) -> bool:
    return rows * mlp.widest > MAX_ACTIVATIONS and torch.get_num_threads() > 1


def _rows(features: Any) -> np.ndarray | None:
    """Return features as an array [rows, size]; None if they are anything else than numbers in memory."""
    kind = type(features)
    if (kind is not Tensor and kind is not ArrayTensor) or features.dim() != 2:
        return None
    if kind is ArrayTensor:
        array: np.ndarray = features.array
        return array
    if features.dtype is not torch.float32 or not features.is_cpu:
        return None
    rows: np.ndarray = features.detach().numpy() if features.requires_grad else features.numpy()
    return rows

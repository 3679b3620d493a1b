"""The networks of a loss: small ones are computed without torch, inside its autograd or on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from contextvars import ContextVar, Token
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.convolutions import is_traced
from mlhooks.fast.mlp import FastMLP, ParameterGradient, SavedPass
from mlhooks.fast.record import Record
from mlhooks.fast.switch import is_plain
from mlhooks.nn.layers import MLP

MAX_ACTIVATIONS = 2**20
"""Activations of one layer, rows times hidden units, beyond which torch is faster where it has several threads."""
BFLOAT16_UNITS, BFLOAT16_PRODUCTS = 256, 2**25
"""Hidden units, and multiplications of one layer, from which torch in bfloat16 is faster than the native extension."""


class ArrayArithmetic:
    """The base of classes whose code takes part in losses, and may opt in to array arithmetic in them.

    A subclass that overrides a method opts out again until it says otherwise itself: its author wrote for tensors.

    Attributes:
        array_arithmetic: whether arrays may stand in for tensors in its code (`docs/fast.md`).
    """

    array_arithmetic: ClassVar[bool] = False
    OUTSIDE_LOSSES: ClassVar[frozenset[str]] = frozenset()
    """Names that a subclass may override without opting out, because they take no part in a loss."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        own = vars(cls)
        if "array_arithmetic" in own:
            return
        overridden = {name for name, value in own.items() if callable(value) and not name.startswith("__")}
        if any(hasattr(base, name) for base in cls.__bases__ for name in overridden - cls.OUTSIDE_LOSSES):
            cls.array_arithmetic = False


class NetworkWithHeads(Protocol):
    """What `outputs` needs of a network: an encoder, linear heads on it, and how it wants to be computed."""

    array_arithmetic: ClassVar[bool]
    autocast: torch.dtype | None

    @property
    def encoder(self) -> nn.Module:
        """The module that computes what the heads read from features."""
        ...


class LossScope:
    """A context in which `outputs` computes networks without torch where it can.

    Only one thread at a time may compute networks in a scope, because it caches what it found out about them until
    `invalidate` is called.

    Args:
        arrays: whether the code of the loss may get arrays for tensors.
    """

    entered: ClassVar[ContextVar[LossScope | None]] = ContextVar("entered", default=None)

    def __init__(self, *, arrays: bool = False) -> None:
        self.arrays = arrays
        self._record: Record | None = None
        self._mlps: dict[tuple[nn.Module, ...], FastMLP | None] = {}
        self._current: set[tuple[nn.Module, ...]] = set()  # those whose entry in `_mlps` need not be checked again
        self._entries: list[tuple[Token[LossScope | None], Token[Record | None]]] = []
        self._encodings: dict[tuple[nn.Module, bool], tuple[Tensor, int, Tensor]] = {}
        self._gradients: dict[nn.Parameter, ParameterGradient] = {}

    def __enter__(self) -> LossScope:
        if not self._entries:  # a loss may call something that enters the same scope again
            learns = self.arrays and torch.is_grad_enabled() and not is_plain()
            self._record = Record() if learns else None
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
        # numpy need not warn of numbers that are not finite, because the optimizer names them before its step
        with np.errstate(all="ignore") if record is not None and record.in_numpy else nullcontext():
            loss.backward()
            if record is not None:
                record.hand_on()

    def invalidate(self) -> None:
        """Check each network again when it is computed next, because its parameters or hooks may have changed."""
        self._current = set()

    def encoding(self, encoder: nn.Module, features: Tensor) -> Tensor:
        """Return the encoder's output for features [rows, size], computed once where actor and critic share it."""
        key = encoder, torch.is_grad_enabled()
        read, version, encoding = self._encodings.get(key, (None, 0, None))
        if read is not features or version != features._version or encoding is None:
            encoding = encoder(features)
            self._encodings[key] = features, features._version, encoding
        return encoding

    def outputs(self, network: NetworkWithHeads, heads: Sequence[nn.Linear], features: Tensor) -> list[Tensor] | None:
        """Return each head's output, as the function `outputs` does, or None."""
        mlp = self._mlp(network.encoder, heads)
        rows = None if mlp is None else _rows(mlp, features)
        if mlp is None or rows is None:
            return None
        record = self._record if self.arrays and network.array_arithmetic else None
        if not torch.is_grad_enabled() or mlp.is_frozen:
            computed = mlp(rows)
            if record is None:
                return [torch.from_numpy(output) for output in computed]
            return cast("list[Tensor]", [ArrayTensor(output, constant=True) for output in computed])
        if record is None:
            return list(_MLPFunction.apply(mlp, features, *mlp.parameters))  # type: ignore[no-untyped-call]
        arrays, saved = mlp.record(rows)
        outputs = [ArrayTensor(array) for array in arrays]
        record.steps.append(_MLPStep(mlp, saved, outputs))
        return cast("list[Tensor]", outputs)

    def parameter_array(self, parameter: nn.Parameter) -> Tensor:
        """Return an array in place of a parameter that a loss uses together with outputs of networks."""
        if not parameter.requires_grad or not torch.is_grad_enabled() or self._record is None:
            return parameter.detach()
        array = ArrayTensor(parameter.detach().numpy())
        if parameter not in self._gradients:
            self._gradients[parameter] = ParameterGradient(parameter)
        self._record.steps.append(_ParameterStep(self._gradients[parameter], array))
        self._record.in_numpy = True
        return cast("Tensor", array)

    def _mlp(self, encoder: nn.Module, heads: Sequence[nn.Linear]) -> FastMLP | None:
        key = (encoder, *heads)
        if key not in self._current:
            self._mlps[key] = FastMLP.refreshed(self._mlps.get(key), lambda: (encoder, heads))
            self._current.add(key)
        return self._mlps[key]


def outputs(network: NetworkWithHeads, heads: Sequence[nn.Linear], features: Tensor) -> list[Tensor] | None:
    """Return each head's output [rows, out] for features [rows, size]; None where torch must compute them.

    Outputs are tensors of torch's autograd, or arrays in their place where the loss and the network opt in to that.
    """
    scope = LossScope.entered.get()
    if scope is None or is_plain():
        return None
    if network.autocast is not None and _worth_torch(network.encoder, len(features)):
        return None
    return scope.outputs(network, heads, features)


def encoding(encoder: nn.Module, features: Tensor) -> Tensor:
    """Return the encoder's output for features [rows, size]; a loss computes it once for networks that share it."""
    scope = LossScope.entered.get()
    computed: Tensor = encoder(features) if scope is None or is_plain() else scope.encoding(encoder, features)
    return computed


def parameter_like(output: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a parameter as a tensor or an array, whichever the output of a network is that it is used with."""
    scope = LossScope.entered.get()
    return parameter if scope is None or not isinstance(output, ArrayTensor) else scope.parameter_array(parameter)


def _worth_torch(encoder: nn.Module, rows: int) -> bool:
    """Return whether layers are so large that torch in bfloat16 is faster than a `FastMLP`."""
    return (
        isinstance(encoder, MLP)
        and (size := encoder.output_size) >= BFLOAT16_UNITS
        and rows * size**2 >= BFLOAT16_PRODUCTS
    )


def _rows(mlp: FastMLP, features: Tensor) -> np.ndarray | None:
    """Return the features as an array; None where torch must compute with them."""
    if type(features) is not Tensor or features.requires_grad or features.dtype is not torch.float32:
        return None
    if features.dim() != 2 or not features.is_cpu or is_traced():
        return None
    rows = features.numpy()
    return None if len(rows) * mlp.encoding_size > MAX_ACTIVATIONS and torch.get_num_threads() > 1 else rows


class _MLPFunction(torch.autograd.Function):
    """A `FastMLP` as a function of torch's autograd, with gradients of its parameters and none of its features."""

    @staticmethod
    def forward(ctx: Any, mlp: FastMLP, features: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        arrays, ctx.saved = mlp.record(features.numpy())
        ctx.mlp = mlp
        ctx.save_for_backward(features, *parameters)
        ctx.set_materialize_grads(False)
        return tuple(map(torch.from_numpy, arrays))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        features, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of gradients are wanted, which only torch can compute
            outputs = ctx.mlp.in_torch(features, parameters)
            used = [n for n, gradient in enumerate(gradients) if gradient is not None]
            found = torch.autograd.grad(
                [outputs[n] for n in used],
                [parameter for parameter in parameters if parameter.requires_grad],
                [gradients[n] for n in used],
                create_graph=True,
                allow_unused=True,
            )
            ordered = iter(found)
            return None, None, *(next(ordered) if parameter.requires_grad else None for parameter in parameters)
        arrays = [None if gradient is None else gradient.numpy() for gradient in gradients]
        return None, None, *map(torch.from_numpy, ctx.mlp.gradients(ctx.saved, arrays))


class _MLPStep(NamedTuple):
    """The step of a record that computed the outputs of a `FastMLP`."""

    mlp: FastMLP
    saved: SavedPass
    outputs: list[ArrayTensor]

    def hand_on(self) -> None:
        self.mlp.add_gradients(self.saved, [output.received() for output in self.outputs])


class _ParameterStep(NamedTuple):
    """The step of a record that took in a parameter which is used together with outputs of networks."""

    parameter: ParameterGradient
    array: ArrayTensor

    def hand_on(self) -> None:
        gradient = self.array.received()
        sink = None if gradient is None else self.parameter.sink()
        if sink is not None:
            sink += gradient
            self.parameter.flush()

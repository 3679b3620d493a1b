"""The networks of a loss: small ones compute without torch, inside its autograd or on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from contextvars import ContextVar, Token
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.fast.arrays import ArrayTensor, Record
from mlhooks.fast.convolutions import is_followed
from mlhooks.fast.mlp import FastMLP, ParameterGradient, SavedPass
from mlhooks.fast.switch import is_plain
from mlhooks.nn.layers import MLP

LARGE = 2**20  # activations of one layer, [rows, hidden_units], beyond which torch's threads win, where it has several
WIDE, MANY = 256, 2**25
"""Hidden units, and multiplications of one layer, from which on a product in bfloat16 saves more than torch costs."""


class ArrayArithmetic:
    """A class whose code takes part in losses, and may opt in to array arithmetic in them.

    A subclass that overrides a method opts out again until it says otherwise itself: its author wrote for tensors.

    Attributes:
        array_arithmetic: whether arrays may stand in for tensors in its code (`docs/fast.md`).
    """

    array_arithmetic: ClassVar[bool] = False
    BESIDE_LOSSES: ClassVar[frozenset[str]] = frozenset()
    """Names that a subclass may override without opting out, because they take no part in a loss."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        own = vars(cls)
        if "array_arithmetic" in own:
            return
        overridden = {name for name, value in own.items() if callable(value) and not name.startswith("__")}
        if any(hasattr(base, name) for base in cls.__bases__ for name in overridden - cls.BESIDE_LOSSES):
            cls.array_arithmetic = False


class SomeNetwork(Protocol):
    """A network: an encoder with linear heads on it."""

    array_arithmetic: ClassVar[bool]
    autocast: torch.dtype | None

    @property
    def encoder(self) -> nn.Module:
        """From features to what the heads read."""
        ...


class LossScope:
    """While it is entered, `outputs` computes networks without torch where it can.

    Networks must be computed in it by one thread at a time. It remembers what it found out about them until `look`.

    Args:
        arrays: whether the code of the loss may get arrays for tensors.
    """

    entered: ClassVar[ContextVar[LossScope | None]] = ContextVar("entered", default=None)

    def __init__(self, *, arrays: bool = False) -> None:
        self.arrays = arrays
        self._record: Record | None = None
        self._mlps: dict[tuple[nn.Module, ...], FastMLP | None] = {}
        self._seen: set[tuple[nn.Module, ...]] = set()  # those of them that are known to be current
        self._entries: list[tuple[Token[LossScope | None], Token[Record | None]]] = []
        self._encodings: dict[tuple[nn.Module, bool], tuple[Tensor, int, Tensor]] = {}
        self._gradients: dict[nn.Parameter, ParameterGradient] = {}

    def __enter__(self) -> LossScope:
        if not self._entries:  # else a loss asks for something that enters the scope, too
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
        # what is not finite is found and named before the step
        with np.errstate(all="ignore") if record is not None and record.in_numpy else nullcontext():
            loss.backward()
            if record is not None:
                record.hand_on()

    def look(self) -> None:
        """Look at networks again when they are computed next: whether they are still what was found out."""
        self._seen = set()

    def encoding(self, encoder: nn.Module, features: Tensor) -> Tensor:
        """Return what torch makes of the features; once where actor and critic share an encoder."""
        key = encoder, torch.is_grad_enabled()
        read, version, encoding = self._encodings.get(key, (None, 0, None))
        if read is not features or version != features._version or encoding is None:
            encoding = encoder(features)
            self._encodings[key] = features, features._version, encoding
        return encoding

    def outputs(self, network: SomeNetwork, heads: Sequence[nn.Linear], features: Tensor) -> list[Tensor] | None:
        """Return as the function `outputs` does."""
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
            return list(_Pass.apply(mlp, features, *mlp.parameters))  # type: ignore[no-untyped-call]
        arrays, saved = mlp.record(rows)
        outputs = [ArrayTensor(array) for array in arrays]
        record.steps.append(_PassOnArrays(mlp, saved, outputs))
        return cast("list[Tensor]", outputs)

    def beside(self, parameter: nn.Parameter) -> Tensor:
        """Return an array in place of a parameter, which is used beside the outputs of networks."""
        if not parameter.requires_grad or not torch.is_grad_enabled() or self._record is None:
            return parameter.detach()
        recorded = ArrayTensor(parameter.detach().numpy())
        if parameter not in self._gradients:
            self._gradients[parameter] = ParameterGradient(parameter)
        self._record.steps.append(_Use(self._gradients[parameter], recorded))
        self._record.in_numpy = True
        return cast("Tensor", recorded)

    def _mlp(self, encoder: nn.Module, heads: Sequence[nn.Linear]) -> FastMLP | None:
        key = (encoder, *heads)
        if key not in self._seen:
            self._mlps[key] = FastMLP.renewed(self._mlps.get(key), lambda: (encoder, heads))
            self._seen.add(key)
        return self._mlps[key]


def outputs(network: SomeNetwork, heads: Sequence[nn.Linear], features: Tensor) -> list[Tensor] | None:
    """Return each head's output on the encoder's for features [rows, size]; None where torch must compute them.

    They are tensors of torch's autograd; or arrays in their place, where the loss and the network opt in to that.
    """
    scope = LossScope.entered.get()
    if scope is None or is_plain():
        return None
    if network.autocast is not None and _worth_torch(network.encoder, len(features)):
        return None
    return scope.outputs(network, heads, features)


def encoding(encoder: nn.Module, features: Tensor) -> Tensor:
    """Return what torch makes of the features; in a loss once, where several networks share an encoder."""
    scope = LossScope.entered.get()
    computed: Tensor = encoder(features) if scope is None or is_plain() else scope.encoding(encoder, features)
    return computed


def beside(output: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a parameter as what goes with an output of a network."""
    scope = LossScope.entered.get()
    return parameter if scope is None or not isinstance(output, ArrayTensor) else scope.beside(parameter)


def _worth_torch(encoder: nn.Module, rows: int) -> bool:
    """Whether layers are so large that torch in bfloat16 is faster than a `FastMLP`."""
    return isinstance(encoder, MLP) and (size := encoder.output_size) >= WIDE and rows * size**2 >= MANY


def _rows(mlp: FastMLP, features: Tensor) -> np.ndarray | None:
    """The features as an array; None where they are for torch."""
    if type(features) is not Tensor or features.requires_grad or features.dtype is not torch.float32:
        return None
    if features.dim() != 2 or not features.is_cpu or is_followed():
        return None
    rows = features.numpy()
    return None if len(rows) * mlp.encoding_size > LARGE and torch.get_num_threads() > 1 else rows


class _Pass(torch.autograd.Function):
    """A pass through a `FastMLP` in torch's autograd: of its parameters, not of its features."""

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
        if torch.is_grad_enabled():  # somebody wants gradients of gradients, which only torch has
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


class _PassOnArrays(NamedTuple):
    """A pass through a `FastMLP`, as a step of a record."""

    mlp: FastMLP
    saved: SavedPass
    outputs: list[ArrayTensor]

    def hand_on(self) -> None:
        self.mlp.add_gradients(self.saved, [output.received() for output in self.outputs])


class _Use(NamedTuple):
    """The use of a parameter beside networks, as a step of a record."""

    gradient: ParameterGradient
    recorded: ArrayTensor

    def hand_on(self) -> None:
        gradient = self.recorded.received()
        sink = None if gradient is None else self.gradient.sink()
        if sink is not None:
            sink += gradient
            self.gradient.hand_on()


Fused = Callable[..., Any]

"""The networks of a loss: small ones are computed without torch, inside its autograd or on arrays."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.convolutions import is_traced, is_watched
from mlhooks.fast.mlp import FastMLP, NetworkMLP, ParameterGradient, SavedPass
from mlhooks.fast.record import Record
from mlhooks.fast.structure import has_gradient_hooks, has_hooks
from mlhooks.fast.switch import is_plain
from mlhooks.nn.layers import MLP

if TYPE_CHECKING:
    from mlhooks.nn.networks import Network

MAX_ACTIVATIONS = 2**20
"""Activations of one layer, rows times hidden units, beyond which torch is faster where it has several threads."""
BFLOAT16_UNITS, BFLOAT16_PRODUCTS = 256, 2**25
"""Hidden units, and multiplications of one layer, from which torch in bfloat16 is faster than the native extension."""
CONTAINERS = (nn.ModuleDict, nn.ModuleList)
"""Modules that compute nothing themselves."""


class ArrayArithmetic:
    """The base of classes whose code takes part in losses, and may opt in to array arithmetic in them.

    A subclass that overrides a method, itself or by a mixin, opts out again until it says otherwise itself: its author
    wrote for tensors.

    Attributes:
        array_arithmetic: whether arrays may stand in for tensors in its code (`docs/fast.md`).
    """

    array_arithmetic: ClassVar[bool] = False
    OUTSIDE_LOSSES: ClassVar[frozenset[str]] = frozenset()
    """Names that a subclass may override without opting out, because they take no part in a loss."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        lineage = cls.__mro__
        said = next(n for n, kind in enumerate(lineage) if "array_arithmetic" in vars(kind))
        inherited = {name for kind in lineage[said:-1] for name in vars(kind)}
        if any(_overrides(kind, inherited - cls.OUTSIDE_LOSSES) for kind in lineage[:said]):
            cls.array_arithmetic = False


def _overrides(kind: type, names: set[str]) -> bool:
    """Whether a class defines code by one of these names: functions, properties and the like."""
    code = {name for name, value in vars(kind).items() if callable(value) or hasattr(type(value), "__get__")}
    return any(name == "__call__" or not name.startswith("__") for name in code & names)


def replaces_methods(owner: ArrayArithmetic) -> bool:
    """Return whether methods that take part in losses are replaced on this object, as by `owner.loss = mine`."""
    replaced = vars(owner).keys() - owner.OUTSIDE_LOSSES
    return any(callable(getattr(type(owner), name, None)) for name in replaced)


def opted_in(modules: Iterable[nn.Module]) -> frozenset[nn.Module]:
    """Return those of these modules, and of those inside, which are computed by code alone that opted in to arrays."""
    opted: set[nn.Module] = set()
    others: set[nn.Module] = set()
    for module in modules:
        _sort(module, True, opted, others)
    return frozenset(opted - others)


def _sort(module: nn.Module, above: bool, opted: set[nn.Module], others: set[nn.Module]) -> None:
    kind = type(module)
    (opted if above and "forward" not in vars(module) else others).add(module)
    opts_in = above and (getattr(kind, "array_arithmetic", False) or kind in CONTAINERS)
    for child in module.children():
        _sort(child, opts_in, opted, others)


class _Known(NamedTuple):
    """What a scope found out about a network.

    Attributes:
        mlp: what computes it; None for torch.
        may_be_arrays: whether loss and network opted in to arrays, so that this holds until `invalidate` is called.
        is_hooked: whether hooks wait for gradients of parameters, which only torch can call.
    """

    mlp: FastMLP | None
    may_be_arrays: bool
    is_hooked: bool


class LossScope:
    """A context in which `outputs` computes networks without torch where it can.

    Only one thread at a time may compute networks in a scope. What it found out about networks that give arrays is
    cached until `invalidate` is called; others are checked at each call, because a loss may do anything with them. A
    copy begins with an empty cache.

    Args:
        arrays: whether the code of the loss may get arrays for tensors.
        opted_in: the networks that may be arrays; None for all that opt in themselves.
    """

    entered: ClassVar[ContextVar[LossScope | None]] = ContextVar("entered", default=None)

    def __init__(self, *, arrays: bool = False, opted_in: frozenset[nn.Module] | None = None) -> None:
        self.arrays = arrays
        self.opted_in = opted_in
        self._record: Record | None = None
        self._mlps: dict[Network, NetworkMLP] = {}
        self._known: dict[Network, _Known] = {}
        self._entries: list[tuple[Token[LossScope | None], Token[Record | None]]] = []
        self._encodings: dict[tuple[nn.Module, bool], tuple[Tensor, int, Tensor]] = {}
        self._gradients: dict[nn.Parameter, ParameterGradient] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _scope, (self.arrays, self.opted_in)

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
                record.propagate()

    def invalidate(self) -> None:
        """Look at networks again when they are computed next, and forget those that were not since the last time."""
        if self._known:
            self._mlps = {network: mlp for network, mlp in self._mlps.items() if network in self._known}
        self._known = {}

    def encoding(self, encoder: nn.Module, features: Tensor) -> Tensor:
        """Return what torch makes of the features; once where actor and critic share an encoder.

        Only code that opts in gets one that was computed before, because other losses may have changed weights between.
        """
        if not self.arrays:
            return cast("Tensor", encoder(features))
        key = encoder, torch.is_grad_enabled()
        read, version, encoding = self._encodings.get(key, (None, 0, None))
        if read is not features or version != features._version or encoding is None or _changes(encoder):
            encoding = encoder(features)
            self._encodings[key] = features, features._version, encoding
        return encoding

    def outputs(self, network: Network, features: Tensor) -> list[Tensor] | None:
        """Return as the function `outputs` does."""
        if not _is_plain(features):
            return None
        known = self._known.get(network)
        if known is None or not known.may_be_arrays:
            known = self._look(network)
        mlp, on_arrays = known.mlp, known.may_be_arrays and self._record is not None
        if mlp is None or (not on_arrays and is_watched()):
            return None
        rows = features.numpy()
        if len(rows) * mlp.encoding_size > MAX_ACTIVATIONS and torch.get_num_threads() > 1:
            return None
        record = self._record if on_arrays and not known.is_hooked else None
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

    def _look(self, network: Network) -> _Known:
        """Find out about a network again."""
        if network not in self._mlps:
            self._mlps[network] = NetworkMLP()
        mlp = self._mlps[network].find(network)
        may_be_arrays = self.arrays and network.array_arithmetic and self._has_opted_in(network)
        self._known[network] = _Known(mlp, may_be_arrays, mlp is not None and mlp.has_gradient_hooks)
        return self._known[network]

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
        self._record.steps.append(_ParameterStep(self._gradients[parameter], array))
        self._record.in_numpy = True
        return cast("Tensor", array)


def _scope(arrays: bool, opted_in: frozenset[nn.Module] | None) -> LossScope:
    return LossScope(arrays=arrays, opted_in=opted_in)


def _changes(encoder: nn.Module) -> bool:
    """Whether something may follow from computing it again."""
    return any(map(has_hooks, encoder.modules()))


def outputs(network: Network, features: Tensor) -> list[Tensor] | None:
    """Return the output of each head [rows, out] for features [rows, size]; None where torch must compute them.

    Outputs are tensors of torch's autograd, or arrays in their place where the loss and the network opt in to that.
    """
    scope = LossScope.entered.get()
    if scope is None or is_plain():
        return None
    if network.autocast is not None and _worth_torch(network.encoder, len(features)):
        return None
    return scope.outputs(network, features)


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


def _is_plain(features: Tensor) -> bool:
    """Whether they are numbers in memory, of which nothing but gradients of parameters is asked."""
    if type(features) is not Tensor or features.requires_grad or features.dtype is not torch.float32:
        return False
    return features.dim() == 2 and features.is_cpu and not is_traced()


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
        batched = any(map(torch._C._functorch.is_legacy_batchedtensor, filter(torch.is_tensor, gradients)))
        if torch.is_grad_enabled() or batched or is_traced():  # gradients of gradients, or many at once
            return None, None, *ctx.mlp.gradients_in_torch(features, parameters, gradients)
        arrays = [None if gradient is None else gradient.numpy() for gradient in gradients]
        return None, None, *map(torch.from_numpy, ctx.mlp.gradients(ctx.saved, arrays))


class _MLPStep(NamedTuple):
    """The step of a record that computed the outputs of a `FastMLP`."""

    mlp: FastMLP
    saved: SavedPass
    outputs: list[ArrayTensor]

    def propagate(self) -> None:
        self.mlp.add_gradients(self.saved, [output.take_gradient() for output in self.outputs])


class _ParameterStep(NamedTuple):
    """The step of a record that took in a parameter which is used together with outputs of networks."""

    parameter: ParameterGradient
    array: ArrayTensor

    def propagate(self) -> None:
        gradient = self.array.take_gradient()
        sink = None if gradient is None else self.parameter.sink()
        if sink is not None:
            sink += gradient
            self.parameter.flush()

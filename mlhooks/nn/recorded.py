"""Tensors of small networks' losses: they compute on arrays, and remember how they came about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from mlhooks import native
from mlhooks.nn.operations import FUNCTIONS, METHODS, VIEWS, Backward, Operation, Result

COMPILED = native.load("arithmetic")
CONSTANT_NAMES = (
    *("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "lt", "le", "gt", "ge", "eq", "ne", "sign"),
    *("isfinite", "isnan", "isinf", "argmax", "argmin"),
    *("zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
)
CONSTANT = {getattr(place, name) for name in CONSTANT_NAMES for place in (torch, Tensor) if hasattr(place, name)}
"""Functions whose results have no gradient in any case."""
FLOAT32 = np.dtype(np.float32)


class Step(Protocol):
    """One step from parameters to a loss."""

    def hand_on(self) -> None:
        """Hand on the gradient that has come in to what the step began with, and forget it."""


class Record:
    """What was recorded.

    Attributes:
        steps: in the order in which they were taken, without those to constants.
        in_numpy: whether one of them has its derivatives in numpy, which may warn of what is not finite.
        views: of those that torch has in the memory of another one: the other, and how torch gets it from that.
    """

    entered: ClassVar[ContextVar[Record | None]] = ContextVar("entered", default=None)

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.in_numpy = False
        self.views: dict[Recorded, tuple[Recorded, Callable[[Tensor], Tensor]]] = {}

    @classmethod
    def active(cls) -> Record | None:
        """The record that is entered, where gradients are wanted at all."""
        return cls.entered.get() if torch.is_grad_enabled() else None

    def hand_on(self) -> None:
        """Take the gradients that have come in to where the record begins."""
        for step in reversed(self.steps):
            step.hand_on()

    def turn(self, recorded: Recorded) -> None:
        """Make a torch tensor of it, and of all that torch would have in the same memory."""
        while recorded in self.views:
            recorded = self.views[recorded][0]
        leaf = torch.from_numpy(np.asarray(recorded.array))
        if not recorded.constant:
            leaf.requires_grad_().register_post_accumulate_grad_hook(self._came_through_torch)
            recorded._leaf = leaf
        recorded._tensor = leaf.clone()  # which may be changed in place, as the result of an operation may
        for view, (base, see) in self.views.items():
            if base._tensor is not None and view._tensor is None:
                view._tensor = see(base._tensor)

    def _came_through_torch(self, _leaf: Tensor) -> None:
        if self.entered.get() is self:  # the loss itself called backward, and looks for gradients right after it
            self.hand_on()


class Arithmetic:
    """What is computed, how, and the gradient; in numpy, for where there is no compiled one."""

    __slots__ = ("_leaf", "_tensor", "array", "constant", "derivatives", "gradient", "inputs")

    def __init__(
        self,
        array: np.ndarray,
        inputs: Sequence[Any] = (),
        derivatives: Sequence[Backward | None] = (),
        constant: bool = False,
    ) -> None:
        self.array, self.inputs, self.derivatives, self.constant = array, inputs, derivatives, constant
        self.gradient: np.ndarray | None = None
        self._leaf: Tensor | None = None
        self._tensor: Tensor | None = None

    def hand_on(self) -> None:
        """Hand on the gradient to what this was computed from."""
        gradient = self.received()
        if gradient is not None:
            for value, derivative in zip(self.inputs, self.derivatives, strict=False):
                if type(value) is Recorded and derivative is not None and not value.constant:
                    value.receive(derivative(gradient))

    def received(self) -> np.ndarray | None:
        """The gradient, with what came through torch; it is taken away."""
        gradient, self.gradient = self.gradient, None
        if self._leaf is None or self._leaf.grad is None:
            return gradient
        through_torch: np.ndarray = self._leaf.grad.numpy()
        self._leaf.grad = None
        return through_torch if gradient is None else gradient + through_torch

    def receive(self, gradient: np.ndarray) -> None:
        """Add to the gradient; one of a broadcast result is summed to this shape."""
        shape = self.array.shape
        if gradient.shape != shape:
            gradient = gradient.sum(tuple(range(gradient.ndim - len(shape))))
            stretched = tuple(i for i, size in enumerate(shape) if size == 1 and gradient.shape[i] != 1)
            gradient = gradient.sum(stretched, keepdims=True) if stretched else gradient
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


if TYPE_CHECKING:
    Base = Arithmetic
else:
    Base = Arithmetic if COMPILED is None else COMPILED.Arithmetic


class Recorded(Base):
    """Stands for a tensor that depends on parameters, in a loss.

    A loss is a few dozen operations on a few hundred numbers, and torch takes longer to be asked for each, forward and
    backward, than to do it. This object takes part in torch's functions, operators and methods: those of
    `operations.py` it computes on arrays; for all others it turns into a torch tensor with autograd, once and for all,
    and gets its gradient from there. So whatever torch can do to a tensor can be done to it, with the same result.

    What depends on no parameter, or is computed where no gradients are wanted, is a constant: it has no gradient, and
    is not recorded.

    Attributes:
        array: the value, float32.
        constant: whether it is one.
        gradient: what has come in of the loss's gradient so far; None before there is any.
        inputs: what it was computed from; derivatives: what maps its gradient to each one's.
    """

    __slots__ = ()
    __array_ufunc__ = None  # numpy leaves operators to this class
    dtype = torch.float32
    device = torch.device("cpu")

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch's functions that get a Recorded."""
        kwargs = kwargs or {}
        result = None if COMPILED is None else COMPILED.call(function, args, kwargs)
        return _call(FUNCTIONS.get(function), function, args, kwargs) if result is None else result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.tensor(), name)

    def tensor(self) -> Tensor:
        """The torch tensor that this is from now on; one without gradient where nothing is recorded."""
        if self._tensor is None:
            record = Record.active()
            if record is None:
                return torch.from_numpy(np.asarray(self.array))
            record.turn(self)
        return cast("Tensor", self._tensor)

    def detach(self) -> Tensor:
        """The value without gradient."""
        return torch.from_numpy(np.asarray(self.array)) if self._tensor is None else self._tensor.detach()

    def item(self) -> float:
        """The value of a scalar."""
        if self._tensor is None and self.array.size == 1:
            return float(self.array.item())
        return self.detach().item()

    @property
    def requires_grad(self) -> bool:
        """As a tensor's."""
        return not self.constant if self._tensor is None else self._tensor.requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self.tensor().requires_grad = wanted

    @property
    def is_leaf(self) -> bool:
        """As a tensor's."""
        return self.constant if self._tensor is None else self._tensor.is_leaf

    @property
    def shape(self) -> torch.Size:
        """As a tensor's."""
        return torch.Size(self.array.shape)

    @property
    def ndim(self) -> int:
        """As a tensor's."""
        return self.array.ndim

    def dim(self) -> int:
        """As a tensor's."""
        return self.array.ndim

    def numel(self) -> int:
        """As a tensor's."""
        return self.array.size

    def __hash__(self) -> int:
        return id(self)

    def __len__(self) -> int:
        return len(self.array)

    def __float__(self) -> float:
        return self.item()

    def __bool__(self) -> bool:
        return bool(self.detach())

    def __repr__(self) -> str:
        return f"Recorded({self.array!r})"

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tensor()[index] = value

    def backward(self, gradient: Tensor | None = None, **options: Any) -> None:
        """As a tensor's; outside of a record, begin the gradients of a loss here, which the record hands on."""
        if self._tensor is not None or self.constant:
            self.tensor().backward(gradient, **options)
            return
        if self.array.size != 1 if gradient is None else gradient.shape != self.array.shape:
            raise RuntimeError(
                f"backward began at results of shape {self.array.shape}: a loss is one number, such as their mean, or "
                "goes with a gradient of that shape"
            )
        one = np.array(1.0, FLOAT32, ndmin=self.array.ndim)
        self.receive(one if gradient is None else gradient.detach().float().numpy())
        record = Record.entered.get()
        if record is not None:
            record.hand_on()


def _call(operation: Operation | None, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a torch function returns for these arguments: Recorded if it can be computed here, or else torch's own."""
    record = Record.entered.get()
    if operation is not None and record is not None:
        result = _computed(record, operation, args, kwargs)
        if result is not None:
            if operation in VIEWS:
                record.views[result] = args[0], lambda base: function(base, *args[1:], **kwargs)
            return result
    elif function in CONSTANT:
        args = [value.detach() if type(value) is Recorded else value for value in args]
    return function(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})


def _plain(value: Any) -> Any:
    if type(value) is Recorded:
        return value.tensor()
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _computed(record: Record, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Recorded | None:
    """The result, recorded if it is not a constant; None where these arguments are for torch."""
    if kwargs:
        if any(isinstance(value, (Tensor, Recorded)) for value in kwargs.values()):
            return None
        kwargs = {name: value for name, value in kwargs.items() if value is not None and name != "_stacklevel"}
    if not args:
        return None
    many = type(args[0]) is list or type(args[0]) is tuple
    inputs = tuple(args[0]) if many else args  # a list may be changed later
    try:
        arrays = _arrays(inputs)
        if arrays is None:
            return None
        with np.errstate(all="ignore"):
            array, derivatives = operation(arrays, *args[1:], **kwargs) if many else operation(*arrays, **kwargs)
    except (TypeError, ValueError, IndexError, ZeroDivisionError, RuntimeError):
        # what torch can, or says better why not
        return None
    known = len(derivatives)
    if array.dtype != FLOAT32 or (known < len(inputs) and any(type(value) is Recorded for value in inputs[known:])):
        return None
    if not torch.is_grad_enabled() or not any(map(_depends, inputs)):
        return Recorded(array, constant=True)
    result = Recorded(array, inputs, derivatives)
    record.steps.append(result)
    record.in_numpy = True
    return result


def _depends(value: Any) -> bool:
    """Whether it depends on parameters."""
    return type(value) is Recorded and not value.constant


def _arrays(inputs: Sequence[Any]) -> list[Any] | None:
    """The inputs with arrays for tensors; None where one has its gradient from torch, or is not on the CPU."""
    arrays = []
    for value in inputs:
        kind = type(value)
        if kind is Recorded:
            if value._tensor is not None:
                return None
            arrays.append(value.array)
        elif kind is Tensor:
            if value.requires_grad or not value.is_cpu:
                return None
            arrays.append(value.numpy())
        elif isinstance(value, Tensor):
            return None
        else:
            arrays.append(value)
    return arrays


def compute(operation: Callable[..., Sequence[Result]], *inputs: Any) -> list[Tensor] | None:
    """The results of an operation of several on tensors; None where it is left to torch."""
    record = Record.active()
    arrays = _arrays(inputs) if record is not None and any(map(_depends, inputs)) else None
    if record is None or arrays is None:
        return None
    with np.errstate(all="ignore"):
        results = [Recorded(array, inputs, derivatives) for array, derivatives in operation(*arrays)]
    record.steps += results
    record.in_numpy = True
    return cast("list[Tensor]", results)


def _method(name: str) -> Callable[..., Any]:
    operation, function = METHODS.get(name), getattr(Tensor, name)

    def method(self: Recorded, *args: Any, **kwargs: Any) -> Any:
        return _call(operation, function, (self, *args), kwargs)

    return method


LOOKED_UP_ON_THE_CLASS = (
    *("__matmul__", "__rmatmul__", "__rpow__", "__mod__", "__floordiv__", "__array__", "__int__", "__format__"),
    *("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__pos__", "__deepcopy__", "expand_as"),
)
_METHODS = {name: _method(name) for name in {*METHODS, *CONSTANT_NAMES, *LOOKED_UP_ON_THE_CLASS} & set(dir(Tensor))}
for _name in _METHODS.keys() - vars(Base).keys():
    setattr(Recorded, _name, _METHODS[_name])


def connect(entered: ContextVar[Record | None] = Record.entered) -> None:
    """Tell the compiled part of what it is a part; while nothing is entered it does nothing."""
    if COMPILED is not None:
        known = {
            f: operation.__name__ for f, operation in FUNCTIONS.items() if operation.__name__ in COMPILED.OPERATIONS
        }
        left = _METHODS | {"receive": Arithmetic.receive, "received": Arithmetic.received}
        COMPILED.connect(Recorded, entered, torch.is_grad_enabled, Tensor, torch.float32, known, left)


connect()

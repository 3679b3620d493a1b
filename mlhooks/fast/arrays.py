"""Array arithmetic: a loss computes on arrays, which stand in for tensors and remember how they came about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mlhooks.fast import operations
from mlhooks.fast.operations import FUNCTIONS, METHODS, Backward, Operation
from mlhooks.fast.switch import native

KERNELS, ACTIONS = native("arithmetic"), native("actions")
FLOAT32 = np.dtype(np.float32)

BY_NAME: dict[str, tuple[str, ...]] = {
    "add": ("add",),
    "sub": ("sub", "subtract"),
    "mul": ("mul", "multiply"),
    "div": ("div", "divide", "true_divide"),
    "minimum": ("min", "minimum"),
    "maximum": ("max", "maximum"),
    "neg": ("neg", "negative"),
    "exp": ("exp",),
    "square": ("square",),
    "smooth_l1_loss": ("smooth_l1_loss",),
    "mse_loss": ("mse_loss",),
}
"""Names of torch's functions that the native extension knows, by its own."""
CONSTANT_NAMES = (
    *("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "lt", "le", "gt", "ge", "eq", "ne", "sign"),
    *("isfinite", "isnan", "isinf", "argmax", "argmin"),
    *("zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
)
CONSTANT = {getattr(place, name) for name in CONSTANT_NAMES for place in (torch, Tensor) if hasattr(place, name)}
"""Functions whose results have no gradient in any case."""
Function = TypeVar("Function", bound=Callable[..., Any])


class Step(Protocol):
    """One step from parameters to a loss."""

    def hand_on(self) -> None:
        """Hand on the gradient that has come in to what the step began with, and forget it."""


class Record:
    """The steps that led to a loss.

    Attributes:
        entered: the record that `ArrayTensor`s add steps to now.
        steps: in the order in which they were taken, without those to constants.
        in_numpy: whether one of them has its derivatives in numpy, which may warn of what is not finite.
    """

    entered: ClassVar[ContextVar[Record | None]] = ContextVar("entered", default=None)

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.in_numpy = False

    @classmethod
    def active(cls) -> Record | None:
        """Return the record that is entered, where gradients are wanted at all."""
        return cls.entered.get() if torch.is_grad_enabled() else None

    def hand_on(self) -> None:
        """Take the gradients that have come in to where the record begins."""
        for step in reversed(self.steps):
            step.hand_on()

    def turn(self, recorded: ArrayTensor) -> Tensor:
        """Return a torch tensor in its place, through which gradients come back."""
        leaf = torch.from_numpy(np.asarray(recorded.array))
        if not recorded.constant:
            leaf.requires_grad_().register_post_accumulate_grad_hook(self._came_through_torch)
            recorded._leaf = leaf
        return leaf

    def _came_through_torch(self, _leaf: Tensor) -> None:
        if self.entered.get() is self:  # the loss itself called backward, and looks for gradients right after it
            self.hand_on()


if TYPE_CHECKING:

    class Base:
        """The native base, which does what losses do most often."""

        array: np.ndarray
        inputs: Sequence[Any]
        derivatives: Sequence[Backward | None]
        constant: bool
        gradient: np.ndarray | None
        _leaf: Tensor | None
        _tensor: Tensor | None

        def __init__(
            self,
            array: np.ndarray,
            inputs: Sequence[Any] = (),
            derivatives: Sequence[Backward | None] = (),
            constant: bool = False,
        ) -> None: ...

        def hand_on(self) -> None:
            """Hand on the gradient to what this was computed from."""

        def received(self) -> np.ndarray | None:
            """Return the gradient, with what came through torch, and forget it."""

        def receive(self, gradient: np.ndarray) -> None:
            """Add to the gradient; one of a broadcast result is summed to this shape."""
else:
    Base = object if KERNELS is None else KERNELS.Arithmetic


class ArrayTensor(Base):
    """Stands for a tensor that depends on parameters, in a loss that opted in.

    A loss is a few dozen operations on a few hundred numbers, and torch takes longer to dispatch each, forward and
    backward, than to compute it. This object takes part in torch's functions, operators and methods: those of the
    native extension and of `operations.py` it computes on arrays; for all others it turns into a torch tensor with
    autograd, once and for all, and gets its gradient from there. So whatever torch computes from tensors can be
    computed from it, with the same result. Nothing can be changed in place.

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
        """Compute one of torch's functions of this object."""
        kwargs = kwargs or {}
        result = KERNELS.call(function, args, kwargs)  # type: ignore[union-attr]  # else there were no such objects
        return _call(FUNCTIONS.get(function), function, args, kwargs) if result is None else result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if _is_in_place(name):
            _refuse(name)
        return getattr(self.tensor(), name)

    def tensor(self) -> Tensor:
        """Return the torch tensor that this is from now on; one without gradient where nothing is recorded."""
        if self._tensor is None:
            record = Record.active()
            if record is None:
                return torch.from_numpy(np.asarray(self.array))
            self._tensor = record.turn(self)
        return self._tensor

    def detach(self) -> Tensor:
        """Return the value without gradient."""
        return torch.from_numpy(np.asarray(self.array))

    def item(self) -> float:
        """Return the value of a scalar."""
        return self.detach().item()

    @property
    def requires_grad(self) -> bool:
        """As a tensor's."""
        return not self.constant

    @property
    def is_leaf(self) -> bool:
        """As a tensor's."""
        return self.constant

    @property
    def shape(self) -> torch.Size:
        """As a tensor's."""
        return torch.Size(self.array.shape)

    @property
    def ndim(self) -> int:
        """As a tensor's."""
        return self.array.ndim

    def dim(self) -> int:
        """Return the number of dimensions."""
        return self.array.ndim

    def numel(self) -> int:
        """Return the number of elements."""
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
        return f"ArrayTensor({self.array!r})"

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        _refuse("__setitem__")

    def backward(self, gradient: Tensor | None = None, **options: Any) -> None:
        """Begin the gradients of a loss here; inside of its scope they reach the parameters at once."""
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


def fused(function: Function) -> Function:
    """Compute a function of tensors on arrays, as one operation of several results, where array arithmetic is on."""
    operation = {"gaussian": operations.gaussian, "categorical": getattr(ACTIONS, "categorical", None)}[
        function.__name__
    ]

    @wraps(function)
    def chosen(*inputs: Any) -> Any:
        record = Record.entered.get()
        if record is None or not torch.is_grad_enabled() or not any(map(_depends, inputs)):
            return function(*inputs)
        arrays = _arrays(inputs)
        if arrays is None or operation is None:
            return function(*inputs)
        with np.errstate(all="ignore"):
            results = [ArrayTensor(array, inputs, derivatives) for array, derivatives in operation(*arrays)]
        record.steps += results
        record.in_numpy = True
        return tuple(results)

    return cast("Function", chosen)


def _is_in_place(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_")


def _refuse(name: str) -> NoReturn:
    raise TypeError(
        f"{name} would change numbers in place, which array arithmetic cannot follow. Write it without, as x = x + y "
        "in place of x += y, or set array_arithmetic = False on the class."
    )


def _call(operation: Operation | None, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return what a torch function does for these arguments: an ArrayTensor if it can be computed here, or torch's."""
    if _is_in_place(getattr(function, "__name__", "")) or kwargs.get("out") is not None:
        _refuse(function.__name__)
    record = Record.entered.get()
    if operation is not None and record is not None:
        result = _computed(record, operation, args, kwargs)
        if result is not None:
            return result
    elif function in CONSTANT:
        args = [value.detach() if type(value) is ArrayTensor else value for value in args]
    return function(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})


def _plain(value: Any) -> Any:
    if type(value) is ArrayTensor:
        return value.tensor()
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _computed(
    record: Record, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ArrayTensor | None:
    """Return the result, recorded if it is not a constant; None where these arguments are for torch."""
    if kwargs:
        if any(isinstance(value, (Tensor, ArrayTensor)) for value in kwargs.values()):
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
    if array.dtype != FLOAT32 or (known < len(inputs) and any(type(value) is ArrayTensor for value in inputs[known:])):
        return None
    if not torch.is_grad_enabled() or not any(map(_depends, inputs)):
        return ArrayTensor(array, constant=True)
    result = ArrayTensor(array, inputs, derivatives)
    record.steps.append(result)
    record.in_numpy = True
    return result


def _depends(value: Any) -> bool:
    """Whether it depends on parameters."""
    return type(value) is ArrayTensor and not value.constant


def _arrays(inputs: Sequence[Any]) -> list[Any] | None:
    """Return the inputs with arrays for tensors; None where one has its gradient from torch, or is not on the CPU."""
    arrays = []
    for value in inputs:
        kind = type(value)
        if kind is ArrayTensor:
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


def _receive(self: ArrayTensor, gradient: np.ndarray) -> None:
    """Add to the gradient what has another shape than the value, or is not plain."""
    shape = self.array.shape
    if gradient.shape != shape:
        gradient = gradient.sum(tuple(range(gradient.ndim - len(shape))))
        stretched = tuple(i for i, size in enumerate(shape) if size == 1 and gradient.shape[i] != 1)
        gradient = gradient.sum(stretched, keepdims=True) if stretched else gradient
    self.gradient = gradient if self.gradient is None else self.gradient + gradient


def _received(self: ArrayTensor) -> np.ndarray | None:
    """Return the gradient together with what came through torch, and forget it."""
    gradient, self.gradient = self.gradient, None
    if self._leaf is None or self._leaf.grad is None:
        return gradient
    through_torch: np.ndarray = self._leaf.grad.numpy()
    self._leaf.grad = None
    return through_torch if gradient is None else gradient + through_torch


def _method(name: str) -> Callable[..., Any]:
    operation, function = METHODS.get(name), getattr(Tensor, name)

    def method(self: ArrayTensor, *args: Any, **kwargs: Any) -> Any:
        return _call(operation, function, (self, *args), kwargs)

    return method


def _in_place(name: str) -> Callable[..., NoReturn]:
    return lambda *_: _refuse(name)


LOOKED_UP_ON_THE_CLASS = (
    *("__matmul__", "__rmatmul__", "__pow__", "__rpow__", "__mod__", "__floordiv__", "__abs__", "__pos__"),
    *("__array__", "__int__", "__format__", "__deepcopy__", "expand_as"),
)
IN_PLACE = ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imod__", "__ifloordiv__")
LEFT_TO_HERE = ("exp", "square", "clamp", "amax", "gather")  # by the native base
_METHODS = {
    name: _method(name)
    for name in {*METHODS, *CONSTANT_NAMES, *LOOKED_UP_ON_THE_CLASS, *LEFT_TO_HERE} & set(dir(Tensor))
}
_METHODS |= {name: _in_place(name) for name in IN_PLACE}
for _name in _METHODS.keys() - vars(Base).keys():
    setattr(ArrayTensor, _name, _METHODS[_name])

if KERNELS is not None:
    KERNELS.connect(
        ArrayTensor,
        Record.entered,
        torch.is_grad_enabled,
        Tensor,
        torch.float32,
        {
            getattr(place, name): kernel
            for kernel, names in BY_NAME.items()
            for name in names
            for place in (torch, Tensor, functional)
            if hasattr(place, name)
        },
        _METHODS | {"receive": _receive, "received": _received},
    )

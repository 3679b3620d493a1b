"""Array arithmetic: a loss computes on arrays, which stand in for tensors and record how they were computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from mlhooks.fast.operations import FUNCTIONS, METHODS, Backward, Operation
from mlhooks.fast.record import Record
from mlhooks.fast.switch import native
from mlhooks.fast.torch_names import (
    CONSTANT,
    CONSTANT_NAMES,
    FALLBACK_NAMES,
    GRAPH_NAMES,
    IN_PLACE_NAMES,
    NATIVE,
    SPECIAL_NAMES,
)

KERNELS = native("arithmetic")
FLOAT32 = np.dtype(np.float32)


if TYPE_CHECKING:

    class Base:
        """The native base class, which computes the operations that losses use most often."""

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

        def propagate(self) -> None:
            """Pass the gradient on to the inputs, and clear it."""

        def take_gradient(self) -> np.ndarray | None:
            """Return the gradient, including what came through torch, and clear it."""

        def add_gradient(self, gradient: np.ndarray) -> None:
            """Add to the gradient; that of a broadcast result is summed to the shape of the array."""
else:
    Base = object if KERNELS is None else KERNELS.Arithmetic


class ArrayTensor(Base):
    """A stand-in for a tensor, in a loss that opted in.

    A loss is a few dozen operations on a few hundred numbers, and torch takes longer to dispatch each, forward and
    backward, than to compute it. This class takes part in torch's functions, operators and methods. Those of the native
    extension and of `operations.py` it computes on arrays. For all others the object turns into a torch tensor with
    autograd, for good, and gets its gradient from there. So whatever torch computes from tensors can be computed from
    it, with the same result. Nothing can be changed in place.

    A result that depends on no parameter, or is computed where gradients are off, is a constant: it has no gradient and
    is not recorded.

    Attributes:
        array: the value, float32.
        constant: whether it depends on no parameter.
        gradient: the part of the loss's gradient that was propagated so far; None before there is any.
        inputs: the operands from which it was computed.
        derivatives: for each input a function that maps the gradient of the result to the input's, or None.
    """

    __slots__ = ()
    __array_ufunc__ = None  # This makes numpy leave operators to this class.
    dtype = torch.float32
    device = torch.device("cpu")

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute one of torch's functions that has such an object among its arguments."""
        kwargs = kwargs or {}
        result = KERNELS.call(function, args, kwargs)  # type: ignore[union-attr]  # Objects of this class exist only where the kernels do.
        return _dispatch(FUNCTIONS.get(function), function, args, kwargs) if result is None else result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if _is_in_place(name):
            _refuse(name)
        if name in GRAPH_NAMES and not self.constant:
            _refuse_graph(name)
        return getattr(self.tensor(name), name)

    def tensor(self, wanted_by: str = "tensor") -> Tensor:
        """Return the torch tensor that this object is from now on; where nothing is recorded, one without gradient.

        Args:
            wanted_by: the name of the function or attribute that needs it.
        """
        if self._tensor is None:
            record = Record.entered.get()
            if record is not None:
                record.count(wanted_by)
            if record is None or not torch.is_grad_enabled():
                return torch.from_numpy(np.asarray(self.array))
            leaf = torch.from_numpy(np.asarray(self.array))
            if not self.constant:
                leaf.requires_grad_().register_post_accumulate_grad_hook(record.leaf_hook())
                self._leaf = leaf
            self._tensor = leaf
        return self._tensor

    def detach(self) -> Tensor:
        """Return the value without gradient."""
        return torch.from_numpy(np.asarray(self.array))

    def item(self) -> float:
        """Return the value of a scalar."""
        return self.detach().item()

    @property
    def requires_grad(self) -> bool:
        """Whether it depends on a parameter."""
        return not self.constant

    @property
    def is_leaf(self) -> bool:
        """Whether it was not computed from parameters, as torch says of tensors without gradient."""
        return self.constant

    @property
    def shape(self) -> torch.Size:
        """The size of each dimension."""
        return torch.Size(self.array.shape)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
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
        """Start the backward pass here; inside the scope of the loss, gradients reach the parameters at once.

        Raises:
            RuntimeError: there is no `gradient`, and this is more than one number; or the gradient has another shape.
        """
        if self._tensor is not None or self.constant:
            self.tensor().backward(gradient, **options)
            return
        if self.array.size != 1 if gradient is None else gradient.shape != self.array.shape:
            raise RuntimeError(
                f"backward began at results of shape {self.array.shape}: a loss is one number, such as their mean, or "
                "goes with a gradient of that shape"
            )
        one = np.array(1.0, FLOAT32, ndmin=self.array.ndim)
        self.add_gradient(one if gradient is None else gradient.detach().float().numpy())
        record = Record.entered.get()
        if record is not None:
            record.propagate()


def _is_in_place(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_")


def _refuse(name: str) -> NoReturn:
    raise TypeError(
        f"{name} would change numbers in place, which array arithmetic cannot follow. Write it without, as x = x + y "
        "in place of x += y, or set array_arithmetic = False on the class."
    )


def _refuse_graph(name: str) -> NoReturn:
    raise TypeError(
        f"{name} would ask torch's autograd, which does not know what is computed by array arithmetic. Set "
        "array_arithmetic = False on the class."
    )


def _dispatch(operation: Operation | None, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the result of a torch function: an `ArrayTensor` where arrays can compute it, or else torch's result."""
    if _is_in_place(getattr(function, "__name__", "")) or kwargs.get("out") is not None:
        _refuse(function.__name__)
    if function is torch.autograd.grad:
        _refuse_graph("torch.autograd.grad")
    record = Record.entered.get()
    if operation is not None and record is not None:
        result = _compute(record, operation, args, kwargs)
        if result is not None:
            return result
    elif function in CONSTANT:
        args = [value.detach() if type(value) is ArrayTensor else value for value in args]
    name = getattr(function, "__name__", "?")
    tensors = {key: _with_tensors(value, name) for key, value in kwargs.items()}
    return function(*(_with_tensors(value, name) for value in args), **tensors)


def _with_tensors(value: Any, wanted_by: str) -> Any:
    if type(value) is ArrayTensor:
        return value.tensor(wanted_by)
    if type(value) in (list, tuple):
        return type(value)(_with_tensors(part, wanted_by) for part in value)
    return value


def _compute(
    record: Record, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ArrayTensor | None:
    """Return the result, recorded if it is not a constant; None where torch must compute it."""
    if kwargs:
        if any(isinstance(value, (Tensor, ArrayTensor)) for value in kwargs.values()):
            return None
        kwargs = {name: value for name, value in kwargs.items() if value is not None and name != "_stacklevel"}
    if not args:
        return None
    many = type(args[0]) is list or type(args[0]) is tuple
    inputs = tuple(args[0]) if many else args  # It is a copy, because a list may be changed later.
    try:
        arrays = as_arrays(inputs)
        if arrays is None:
            return None
        with np.errstate(all="ignore"):
            array, derivatives = operation(arrays, *args[1:], **kwargs) if many else operation(*arrays, **kwargs)
    except (TypeError, ValueError, IndexError, ZeroDivisionError, RuntimeError):
        # torch may support these arguments, and otherwise says better what is wrong with them.
        return None
    known = len(derivatives)
    if array.dtype != FLOAT32 or (known < len(inputs) and any(type(value) is ArrayTensor for value in inputs[known:])):
        return None
    if not torch.is_grad_enabled() or not any(map(depends_on_parameters, inputs)):
        return ArrayTensor(array, constant=True)
    result = ArrayTensor(array, inputs, derivatives)
    record.steps.append(result)
    record.in_numpy = True
    return result


def depends_on_parameters(value: Any) -> bool:
    """Return whether a value is an `ArrayTensor` that depends on parameters."""
    return type(value) is ArrayTensor and not value.constant


def as_arrays(inputs: Sequence[Any]) -> list[Any] | None:
    """Return the inputs with arrays for tensors; None where one gets its gradient from torch or is not on the CPU."""
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


def _add_gradient(self: ArrayTensor, gradient: np.ndarray) -> None:
    """Add a gradient of another shape than the value, or one that is not contiguous float32."""
    shape = self.array.shape
    if gradient.shape != shape:
        gradient = gradient.sum(tuple(range(gradient.ndim - len(shape))))
        stretched = tuple(i for i, size in enumerate(shape) if size == 1 and gradient.shape[i] != 1)
        gradient = gradient.sum(stretched, keepdims=True) if stretched else gradient
    self.gradient = gradient if self.gradient is None else self.gradient + gradient


def _take_gradient(self: ArrayTensor) -> np.ndarray | None:
    """Return the gradient together with what came through torch, and clear it."""
    gradient, self.gradient = self.gradient, None
    if self._leaf is None or self._leaf.grad is None:
        return gradient
    through_torch: np.ndarray = self._leaf.grad.numpy()
    self._leaf.grad = None
    return through_torch if gradient is None else gradient + through_torch


def _method(name: str) -> Callable[..., Any]:
    operation, function = METHODS.get(name), getattr(Tensor, name)

    def method(self: ArrayTensor, *args: Any, **kwargs: Any) -> Any:
        return _dispatch(operation, function, (self, *args), kwargs)

    return method


def _in_place(name: str) -> Callable[..., NoReturn]:
    return lambda *_: _refuse(name)


_METHODS = {
    name: _method(name) for name in {*METHODS, *CONSTANT_NAMES, *SPECIAL_NAMES, *FALLBACK_NAMES} & set(dir(Tensor))
}
_METHODS |= {name: _in_place(name) for name in IN_PLACE_NAMES}
for _name in _METHODS.keys() - vars(Base).keys():
    setattr(ArrayTensor, _name, _METHODS[_name])

if KERNELS is not None:
    KERNELS.connect(
        ArrayTensor,
        Record.entered,
        torch.is_grad_enabled,
        Tensor,
        torch.float32,
        NATIVE,
        _METHODS | {"add_gradient": _add_gradient, "take_gradient": _take_gradient},
    )

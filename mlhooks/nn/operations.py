"""Torch's operations on small arrays: results as torch gives them, and derivatives, in numpy.

Each function here takes arrays where torch takes tensors, and otherwise torch's arguments. It returns the result and,
for each array in order, what maps the gradient of the result to that array's, or None where there is none; that may
have the result's shape where torch would broadcast. Arguments that a function does not know raise TypeError, and torch
serves them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LOG_2PI = math.log(2.0 * math.pi)
# chosen, not multiplied by: a gradient may be infinite where it does not count; numpy chooses sooner from an array
ZERO = np.zeros(1, np.float32)

Backward = Callable[[np.ndarray], np.ndarray]
Result = tuple[np.ndarray, Sequence[Backward | None]]
Operation = Callable[..., Result]


def neg(x: np.ndarray) -> Result:
    return -x, (lambda g: -g,)


def exp(x: np.ndarray) -> Result:
    y = np.exp(x)
    return y, (lambda g: g * y,)


def log(x: np.ndarray) -> Result:
    return np.log(x), (lambda g: g / x,)


def sqrt(x: np.ndarray) -> Result:
    y = np.sqrt(x)
    return y, (lambda g: g * (0.5 / y),)


def square(x: np.ndarray) -> Result:
    return x * x, (lambda g: g * (x + x),)


def abs_(x: np.ndarray) -> Result:
    return np.abs(x), (lambda g: g * np.sign(x),)


def tanh(x: np.ndarray) -> Result:
    y = np.tanh(x)
    return y, (lambda g: g * (1.0 - y * y),)


def relu(x: np.ndarray, inplace: bool = False) -> Result:
    if inplace:
        raise TypeError
    return np.maximum(x, 0.0), (lambda g: np.where(x > 0.0, g, ZERO),)


def add(x: np.ndarray, y: np.ndarray) -> Result:
    return x + y, (lambda g: g, lambda g: g)


def sub(x: np.ndarray, y: np.ndarray) -> Result:
    return x - y, (lambda g: g, lambda g: -g)


def rsub(x: np.ndarray, y: np.ndarray) -> Result:
    return y - x, (lambda g: -g, lambda g: g)


def mul(x: np.ndarray, y: np.ndarray) -> Result:
    return x * y, (lambda g: g * y, lambda g: g * x)


def div(x: np.ndarray, y: np.ndarray) -> Result:
    z = x / y
    return z, (lambda g: g / y, lambda g: -g * z / y)


def rdiv(x: np.ndarray, y: np.ndarray) -> Result:
    z = y / x
    return z, (lambda g: -g * z / x, lambda g: g / x)


def pow_(x: np.ndarray, exponent: float) -> Result:
    if not isinstance(exponent, (int, float)):
        raise TypeError
    if exponent == 2:
        return square(x)
    if exponent == 0:
        raise TypeError  # has no gradient, even where that of the formula is infinite
    return x**exponent, (lambda g: g * exponent * x ** (exponent - 1),)


def minimum(x: np.ndarray, y: np.ndarray) -> Result:
    _both_arrays(x, y)
    return np.minimum(x, y), (lambda g: _share(x, y, g), lambda g: _share(y, x, g))


def maximum(x: np.ndarray, y: np.ndarray) -> Result:
    _both_arrays(x, y)
    return np.maximum(x, y), (lambda g: _share(y, x, g), lambda g: _share(x, y, g))


def _both_arrays(x: np.ndarray, y: np.ndarray) -> None:
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
        raise TypeError  # torch.max(x, dim) is something else


def _share(lower: np.ndarray, upper: np.ndarray, g: np.ndarray) -> np.ndarray:
    """0 where it is the upper one, half of the gradient where both are equal, as in torch, and else the gradient."""
    return np.where(lower > upper, ZERO, np.where(lower == upper, g * np.float32(0.5), g))


def clamp(x: np.ndarray, min: float | None = None, max: float | None = None) -> Result:  # noqa: A002 - torch's names
    low, high = -np.inf if min is None else min, np.inf if max is None else max
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        raise TypeError
    if not low <= high:
        raise TypeError  # has no gradient
    y = np.minimum(np.maximum(x, low), high)
    return y, (lambda g: np.where(x == y, g, ZERO),)


def where(condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> Result:
    _boolean(condition)
    return np.where(condition, x, y), (
        None,
        lambda g: np.where(condition, g, ZERO),
        lambda g: np.where(condition, ZERO, g),
    )


def masked_fill(x: np.ndarray, mask: np.ndarray, value: float) -> Result:
    _boolean(mask)
    if not isinstance(value, (int, float)):
        raise TypeError
    return np.where(mask, np.float32(value), x), (lambda g: np.where(mask, ZERO, g),)


def _boolean(mask: np.ndarray) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError


def sum_(x: np.ndarray, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Result:
    return x.sum(axis=dim, keepdims=keepdim), (_over(x, dim, keepdim, 1.0),)


def mean(x: np.ndarray, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Result:
    total = x.sum(axis=dim, keepdims=keepdim)
    share = float(total.size / x.size)
    return total * np.float32(share), (_over(x, dim, keepdim, share),)


def _over(x: np.ndarray, dim: int | tuple[int, ...] | None, keepdim: bool, share: float) -> Backward:
    """The gradient, times a factor, for each of those that were added up."""
    if dim == ():
        raise TypeError  # torch takes it for all dimensions

    def backward(g: np.ndarray) -> np.ndarray:
        if dim is None or x.ndim == 0:
            return np.full(x.shape, g.item() * share, np.float32)
        return np.broadcast_to((g if keepdim else np.expand_dims(g, dim)) * np.float32(share), x.shape)

    return backward


def amax(x: np.ndarray, dim: int, keepdim: bool = False) -> Result:
    y = x.max(axis=dim, keepdims=True)

    def backward(g: np.ndarray) -> np.ndarray:
        among = x == y  # equals share the gradient
        share: np.ndarray = (g if keepdim else np.expand_dims(g, dim)) / among.sum(axis=dim, keepdims=True)
        gradient: np.ndarray = among * share.astype(x.dtype)
        return gradient

    return y if keepdim else y.squeeze(dim), (backward,)


def log_softmax(x: np.ndarray, dim: int) -> Result:
    _last_of_two(x, dim)
    columns = np.ascontiguousarray(x.T)  # rows side by side: a few long loops in place of many short ones
    columns = columns - np.maximum.reduce(columns)
    weights = np.exp(columns)
    total = np.add.reduce(weights)
    weights /= total
    columns -= np.log(total)
    return np.ascontiguousarray(columns.T), (lambda g: g - (weights * np.add.reduce(g.T)).T,)


def softmax(x: np.ndarray, dim: int) -> Result:
    y = np.exp(log_softmax(x, dim)[0])
    return y, (lambda g: y * (g - np.add.reduce(g * y, axis=1, keepdims=True)),)


def gather(x: np.ndarray, dim: int, index: np.ndarray) -> Result:
    _last_of_two(x, dim)
    _last_of_two(index, dim)
    _within(index, x.shape[1])
    places = index + _numbers(len(index))[:, None] * x.shape[1]  # in the flat array

    def backward(g: np.ndarray) -> np.ndarray:
        gradient = np.zeros(x.shape, np.float32)
        if index.shape[1] == 1:
            gradient.put(places, g)
        else:
            np.add.at(gradient.reshape(-1), places, g)
        return gradient

    return x.take(places), (backward,)


def _within(index: np.ndarray, size: int) -> None:
    if np.count_nonzero(index.view(np.uint64) >= size):  # seen as unsigned, a negative index is a huge one
        raise IndexError(f"an index is not between 0 and {size - 1}")


def _last_of_two(x: np.ndarray, dim: int) -> None:
    if x.ndim != 2 or dim not in (1, -1):
        raise TypeError


def getitem(x: np.ndarray, index: Any) -> Result:
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, (slice, int, EllipsisType, type(None))) for part in parts):
        raise TypeError

    def backward(g: np.ndarray) -> np.ndarray:
        gradient = np.zeros_like(x)
        gradient[index] = g
        return gradient

    return x[index], (backward,)


def squeeze(x: np.ndarray, dim: int) -> Result:
    return (x.squeeze(dim) if x.shape[dim] == 1 else x), (lambda g: g.reshape(x.shape),)


def unsqueeze(x: np.ndarray, dim: int) -> Result:
    return np.expand_dims(x, dim), (lambda g: g.reshape(x.shape),)


def reshape(x: np.ndarray, *shape: Any) -> Result:
    return x.reshape(*shape), (lambda g: g.reshape(x.shape),)


def expand(x: np.ndarray, *shape: Any) -> Result:
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if -1 in sizes:
        raise TypeError
    return np.broadcast_to(x, sizes).copy(), (lambda g: g,)  # which torch may write to


def stack(arrays: Sequence[np.ndarray], dim: int = 0) -> Result:
    backward = [lambda g, i=i: np.take(g, i, axis=dim) for i in range(len(arrays))]
    return np.stack(arrays, axis=dim), backward


def cat(arrays: Sequence[np.ndarray], dim: int = 0) -> Result:
    ends = np.cumsum([0, *(array.shape[dim] for array in arrays)]).tolist()
    backward = [lambda g, a=a, b=b: np.take(g, range(a, b), axis=dim) for a, b in pairwise(ends)]
    return np.concatenate(arrays, axis=dim), backward


def categorical(logits: np.ndarray, actions: np.ndarray) -> tuple[Result, Result]:
    """Log-probabilities of actions [rows, 1] and entropies under categoricals with logits [rows, n]; each [rows]."""
    log_probs = logits.T.copy()  # [n, rows]: a few long loops in place of many short ones
    rows = log_probs.shape[1]
    _within(actions, len(log_probs))
    log_probs -= np.maximum.reduce(log_probs)
    probs = np.exp(log_probs)
    total = np.add.reduce(probs)
    probs /= total
    log_probs -= np.log(total, out=total)
    entropies = -np.add.reduce(probs * log_probs)
    taken = actions[:, 0] * rows + _numbers(rows)  # in the flat arrays

    def of_log_prob(g: np.ndarray) -> np.ndarray:
        gradient: np.ndarray = probs * -g
        gradient.reshape(-1)[taken] += g
        return gradient.T

    return (log_probs.take(taken), (of_log_prob,)), (entropies, (lambda g: ((log_probs + entropies) * (probs * -g)).T,))


def gaussian(mean: np.ndarray, log_std: np.ndarray, actions: np.ndarray) -> tuple[Result, Result]:
    """Log-probabilities of actions [rows, n] and entropies, each [rows], under Gaussians with means [rows, n]."""
    rows, size = mean.shape
    scale = np.exp(-log_std)
    z = actions - mean
    z *= scale
    squares = z * z
    constant = np.add.reduce(log_std) + np.float32(0.5 * size * LOG_2PI)
    log_prob = np.dot(squares, np.full(size, np.float32(-0.5)))
    log_prob -= constant
    entropy = np.full(rows, constant + np.float32(0.5 * size))
    return (
        (log_prob, (lambda g: z * (g[:, None] * scale), lambda g: np.dot(g, squares - 1.0))),
        (entropy, (None, lambda g: np.full(size, np.add.reduce(g)))),
    )


def mse_loss(x: np.ndarray, target: np.ndarray, reduction: str = "mean") -> Result:
    error = x - _alike(target, x)
    return _reduced(error * error, error + error, reduction)


def smooth_l1_loss(x: np.ndarray, target: np.ndarray, reduction: str = "mean", beta: float = 1.0) -> Result:
    if beta != 1.0:
        raise TypeError
    error = x - _alike(target, x)
    slope = np.minimum(np.maximum(error, -1.0), 1.0)
    return _reduced(slope * (error - np.float32(0.5) * slope), slope, reduction)


def _alike(target: np.ndarray, x: np.ndarray) -> np.ndarray:
    if target.shape != x.shape:
        raise TypeError  # torch warns of it
    return target


def _reduced(losses: np.ndarray, slope: np.ndarray, reduction: str) -> Result:
    """Losses of all elements, or their mean, of a function of x - target with that slope."""
    if reduction == "none":
        return losses, (lambda g: g * slope, lambda g: -g * slope)
    if reduction != "mean":
        raise TypeError
    share = np.float32(1.0 / losses.size)
    return np.add.reduce(losses, axis=None) * share, (lambda g: slope * (g * share), lambda g: slope * (-g * share))


@lru_cache(maxsize=64)
def _numbers(size: int) -> np.ndarray:
    return np.arange(size)


NAMES: dict[Operation, str] = {
    exp: "exp",
    log: "log",
    sqrt: "sqrt",
    square: "square",
    tanh: "tanh",
    relu: "relu",
    neg: "neg negative __neg__",
    abs_: "abs absolute __abs__",
    pow_: "pow __pow__",
    add: "add __add__ __radd__",
    sub: "sub subtract __sub__",
    rsub: "__rsub__",
    mul: "mul multiply __mul__ __rmul__",
    div: "div divide true_divide __truediv__",
    rdiv: "__rtruediv__",
    minimum: "minimum min",
    maximum: "maximum max",
    clamp: "clamp clip",
    masked_fill: "masked_fill",
    sum_: "sum",
    mean: "mean",
    amax: "amax",
    log_softmax: "log_softmax",
    softmax: "softmax",
    gather: "gather",
    getitem: "__getitem__",
    squeeze: "squeeze",
    unsqueeze: "unsqueeze",
    reshape: "reshape view",
    expand: "expand",
}
METHODS = {name: operation for operation, names in NAMES.items() for name in names.split()}
"""By the names of a tensor's methods."""

VIEWS = {getitem, squeeze, unsqueeze, reshape, expand}
"""Those whose results in torch are the same memory, so that a change in place of one changes the other."""

FUNCTIONS: dict[Any, Operation] = {
    torch.where: where,
    torch.stack: stack,
    torch.cat: cat,
    functional.mse_loss: mse_loss,
    functional.smooth_l1_loss: smooth_l1_loss,
    **{
        getattr(place, name): operation
        for name, operation in METHODS.items()
        for place in (torch, Tensor, functional)
        if hasattr(place, name)
    },
}
"""By the functions and methods of torch."""

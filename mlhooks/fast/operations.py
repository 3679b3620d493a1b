"""Operations on arrays that the native extension lacks, with torch's results and with derivatives.

Each function takes arrays where torch takes tensors, and otherwise torch's arguments. It returns the result and, for
each array in order, a function that maps the gradient of the result to the gradient of that array, or None where there
is none; a gradient may have the result's shape where torch broadcasts the array. A function raises TypeError for
arguments that it does not support, and torch then computes the operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from torch import Tensor

LOG_2PI = math.log(2.0 * math.pi)
# `np.where` chooses it, because multiplying an infinite gradient by 0 would give NaN. An array is faster than a number.
ZERO = np.zeros(1, np.float32)
LEAST_VARIANCE = 1e-6
"""What is added to the variance of noise that depends on the state, as in Stable-Baselines3."""

Backward = Callable[[np.ndarray], np.ndarray]
Result = tuple[np.ndarray, Sequence[Backward | None]]
Operation = Callable[..., Result]


def neg(x: np.ndarray) -> Result:
    return -x, (lambda g: -g,)


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
    """Return what gives each summand the gradient of the sum, times a factor."""
    if dim == ():
        raise TypeError  # torch takes it for all dimensions.

    def backward(g: np.ndarray) -> np.ndarray:
        if dim is None or x.ndim == 0:
            return np.full(x.shape, g.item() * share, np.float32)
        return np.broadcast_to((g if keepdim else np.expand_dims(g, dim)) * np.float32(share), x.shape)

    return backward


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
    return np.broadcast_to(x, sizes).copy(), (lambda g: g,)  # It is a copy, because torch may write to the result.


def expand_as(x: np.ndarray, y: np.ndarray) -> Result:
    return np.broadcast_to(x, y.shape).copy(), (lambda g: g, None)


def stack(arrays: Sequence[np.ndarray], dim: int = 0) -> Result:
    backward = [lambda g, i=i: np.take(g, i, axis=dim) for i in range(len(arrays))]
    return np.stack(arrays, axis=dim), backward


def cat(arrays: Sequence[np.ndarray], dim: int = 0) -> Result:
    ends = [*accumulate((array.shape[dim] for array in arrays), initial=0)]
    before = (slice(None),) * (dim % arrays[0].ndim)
    backward = [lambda g, a=a, b=b: np.ascontiguousarray(g[(*before, slice(a, b))]) for a, b in pairwise(ends)]
    return np.concatenate(arrays, axis=dim), backward


def gaussian(mean: np.ndarray, log_std: np.ndarray, actions: np.ndarray) -> tuple[Result, Result]:
    """Return log-probabilities of actions and entropies of Gaussians, each [rows, n], as their means are.

    Logarithms of deviations are [n] or [rows, n].
    """
    scale = np.exp(-log_std)
    z = actions - mean
    z *= scale
    squares = z * z
    constant = log_std + np.float32(0.5 * LOG_2PI)
    log_prob = squares * np.float32(-0.5)
    log_prob -= constant
    entropy = np.empty_like(log_prob)
    entropy[:] = constant + np.float32(0.5)
    over_rows = np.add.reduce if log_std.ndim == 1 else np.asarray
    return (
        (log_prob, (lambda g: z * (g * scale), lambda g: over_rows(g * (squares - 1.0)))),
        (entropy, (None, over_rows)),
    )


def squashed(mean: np.ndarray, log_std: np.ndarray, noise: np.ndarray) -> tuple[Result, Result]:
    """Return samples of squashed Gaussians and their log-probabilities, each [rows, n], as their means are."""
    spread = np.exp(log_std) * noise
    x = mean + spread
    actions = np.tanh(x)
    slope = 1.0 - actions * actions
    # log(1 - tanh^2 x) = 2 (log 2 - |x| - log(1 + e^(-2 |x|))), which has no overflow.
    size = np.abs(x)
    log_prob = noise * noise
    log_prob *= np.float32(-0.5)
    log_prob -= log_std
    log_prob += 2.0 * (size + np.log1p(np.exp(-2.0 * size)))
    log_prob -= np.float32(0.5 * LOG_2PI + 2.0 * math.log(2.0))
    return (
        (actions, (lambda g: g * slope, lambda g: g * slope * spread, None)),
        (log_prob, (lambda g: 2.0 * g * actions, lambda g: g * (2.0 * actions * spread - 1.0), None)),
    )


def probabilities(logits: np.ndarray) -> tuple[Result, Result]:
    """Return probabilities [rows, n] and entropies [rows, 1]."""
    log_probs = logits - logits.max(1, keepdims=True)
    log_probs -= np.log(np.exp(log_probs).sum(1, keepdims=True))
    probs = np.exp(log_probs)
    entropies = -(probs * log_probs).sum(1, keepdims=True)
    return (
        (probs, (lambda g: probs * (g - (g * probs).sum(1, keepdims=True)),)),
        (entropies, (lambda g: -g * probs * (log_probs + entropies),)),
    )


def explored(
    encoding: np.ndarray, latent: np.ndarray, weight: np.ndarray, bias: np.ndarray, log_std: np.ndarray
) -> tuple[Result, Result]:
    """Return means of actions and logarithms of their deviations, each [rows, n], under state-dependent exploration."""
    squares, variances = latent * latent, np.exp(2.0 * log_std)
    variance = squares @ variances + np.float32(LEAST_VARIANCE)
    width, size = variances.shape[1], len(weight)

    def of_variance(g: np.ndarray) -> np.ndarray:
        found: np.ndarray = 0.5 * (g.sum(1, keepdims=True) if width < size else g) / variance
        return found

    return (
        (encoding @ weight.T + bias, (lambda g: g @ weight, None, lambda g: g.T @ encoding, lambda g: g.sum(0), None)),
        (
            np.broadcast_to(0.5 * np.log(variance), (len(latent), size)).copy(),
            (
                None,
                lambda g: 2.0 * latent * (of_variance(g) @ variances.T),
                None,
                None,
                lambda g: 2.0 * variances * (squares.T @ of_variance(g)),
            ),
        ),
    )


METHODS: dict[str, Operation] = {
    "neg": neg,
    "__neg__": neg,
    "add": add,
    "__add__": add,
    "__radd__": add,
    "sub": sub,
    "__sub__": sub,
    "__rsub__": rsub,
    "mul": mul,
    "__mul__": mul,
    "__rmul__": mul,
    "div": div,
    "__truediv__": div,
    "__rtruediv__": rdiv,
    "masked_fill": masked_fill,
    "sum": sum_,
    "mean": mean,
    "__getitem__": getitem,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "reshape": reshape,
    "view": reshape,
    "expand": expand,
    "expand_as": expand_as,
}
"""Operations by the name of a tensor's method."""
FUNCTIONS: dict[Any, Operation] = {
    torch.stack: stack,
    torch.cat: cat,
    **{
        getattr(place, name): operation
        for name, operation in METHODS.items()
        for place in (torch, Tensor)
        if hasattr(place, name)
    },
}
"""Operations by torch's function or method."""

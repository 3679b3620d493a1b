"""The names of torch's functions and of a tensor's methods that array arithmetic serves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

NATIVE_NAMES: dict[str, tuple[str, ...]] = {
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
"""Names of torch's functions by the name of the native operation that computes them."""
CONSTANT_NAMES = (
    *("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "lt", "le", "gt", "ge", "eq", "ne", "sign"),
    *("isfinite", "isnan", "isinf", "argmax", "argmin"),
    *("zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
)
CONSTANT = {getattr(place, name) for name in CONSTANT_NAMES for place in (torch, Tensor) if hasattr(place, name)}
"""Functions whose results never have a gradient."""
NATIVE: dict[Any, str] = {
    getattr(place, name): operation
    for operation, names in NATIVE_NAMES.items()
    for name in names
    for place in (torch, Tensor, functional)
    if hasattr(place, name)
}
"""The native operation of each of these functions and methods."""
SPECIAL_NAMES = (
    *("__matmul__", "__rmatmul__", "__pow__", "__rpow__", "__mod__", "__floordiv__", "__abs__", "__pos__"),
    *("__array__", "__int__", "__format__", "__deepcopy__", "expand_as"),
)
"""Methods that Python looks up on the class, past `__getattr__`."""
IN_PLACE_NAMES = ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imod__", "__ifloordiv__")
"""Operators that change a tensor in place."""
GRAPH_NAMES = frozenset({"grad", "grad_fn", "register_hook", "register_post_accumulate_grad_hook", "retain_grad"})
"""Attributes of tensors that belong to torch's graph, of which arrays are no part."""
FALLBACK_NAMES = ("exp", "square", "clamp", "amax", "gather")
"""Methods that the native base computes for some arguments, and otherwise needs from Python."""

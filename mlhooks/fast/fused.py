"""Functions of several operations that array arithmetic computes as one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch

from mlhooks.fast import operations
from mlhooks.fast.arrays import ArrayTensor, as_arrays, depends_on_parameters
from mlhooks.fast.record import Record
from mlhooks.fast.switch import native

OPERATIONS: dict[str, Callable[..., Any] | None] = {
    "gaussian": operations.gaussian,
    "categorical": getattr(native("actions"), "categorical", None),
    "squashed": operations.squashed,
    "probabilities": operations.probabilities,
    "explored": operations.explored,
}
"""The operation on arrays for each function of tensors, by its name."""
Function = TypeVar("Function", bound=Callable[..., Any])


def fused(function: Function) -> Function:
    """Replace a function of tensors by its operation on arrays, where array arithmetic is on.

    The operation has the same inputs. For each result it returns the array with its derivatives, as those of
    `operations.py` do.
    """
    operation = OPERATIONS[function.__name__]

    @wraps(function)
    def chosen(*inputs: Any) -> Any:
        record = Record.entered.get()
        if record is None or operation is None or ArrayTensor not in map(type, inputs):
            return function(*inputs)
        arrays = as_arrays(inputs)
        if arrays is None:
            return function(*inputs)
        with np.errstate(all="ignore"):
            computed = operation(*arrays)
        if not torch.is_grad_enabled() or not any(map(depends_on_parameters, inputs)):
            return tuple(ArrayTensor(array, constant=True) for array, _ in computed)
        results = [ArrayTensor(array, inputs, derivatives) for array, derivatives in computed]
        record.steps += results
        record.in_numpy = True
        return tuple(results)

    return cast("Function", chosen)

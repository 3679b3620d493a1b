"""Checks of a plugin's optimizer, at its first update and after a failure."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mlhooks.describing import named, with_article
from mlhooks.errors import PluginError, UnsupportedError
from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.networks import LossScope
from mlhooks.fast.switch import is_plain
from mlhooks.places import defined_at, in_brackets, is_others, raised_at
from mlhooks.training.descent import NAMED
from mlhooks.training.learning_checks import check_probabilities
from mlhooks.training.part_checks import check_values

if TYPE_CHECKING:
    from mlhooks.fast.adam import FlatParameters
    from mlhooks.training.batch import Batch
    from mlhooks.training.optimizer import TorchOptimizer

logger = logging.getLogger("mlhooks")
TOLERANCE, ROUNDING = 1e-3, 1e-6
SATURATED = 1e-2
"""The tolerance with a memory: where its gates are nearly open, float32 holds few digits of their derivatives, whoever
computes them."""
_LEAVE_ARRAYS = "Write the loss with operators and torch's functions, or set array_arithmetic = False on the class."


def check_made(optimizer: TorchOptimizer) -> None:
    """Refuse an optimizer whose base was never initialized.

    Raises:
        PluginError: with the name of its `__init__`.
    """
    if "_checked" not in vars(optimizer):
        raise PluginError(f"{_named(optimizer, '__init__')} must call super().__init__(policy, settings).")


def check_kinds(behavior: str, parts: Mapping[str, nn.Module]) -> None:
    """Refuse parameters of several types or on several devices, which cannot be moved into one piece.

    Raises:
        PluginError: names one of each.
    """
    kinds: dict[tuple[torch.dtype, torch.device], str] = {}
    for part, module in parts.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                kinds.setdefault((parameter.dtype, parameter.device), f"{part}.{name}")
    if len(kinds) > 1:
        listed = " and ".join(f"{name} is {kind} on {device}" for (kind, device), name in kinds.items())
        raise PluginError(
            f"Behavior {behavior!r}: parameters that learn together must be of one type and on one device, and "
            f"{listed}. Make networks of torch.float32 on policy.device."
        )


def check_losses(optimizer: TorchOptimizer, losses: object) -> None:
    """Refuse what `loss` returned where it is no mapping of scalar tensors with the key 'loss'.

    Raises:
        PluginError: with the function and what is wrong with its result.
    """
    problem = _problem(losses)
    if problem is not None:
        raise PluginError(
            f"{_named(optimizer, 'loss')} must return a mapping of scalar tensors with the key 'loss'; {problem}."
        )


def _problem(losses: object) -> str | None:
    if not isinstance(losses, Mapping):
        shape = f" of shape {tuple(losses.shape)}" if isinstance(losses, (Tensor, ArrayTensor)) else ""
        return f"it returned {_a(losses)}{shape}"
    if "loss" not in losses:
        return f"it returned {', '.join(map(repr, losses)) or 'an empty one'}"
    for name, value in losses.items():
        if not isinstance(value, (Tensor, ArrayTensor)):
            return f"its {name!r} is {_a(value)}; for a number, leave out .item() or float()"
        if value.numel() != 1:
            return f"its {name!r} has the shape {tuple(value.shape)}; take the mean, as by batch.mean(...)"
    if not losses["loss"].requires_grad:
        return "its 'loss' has no gradient, because it was detached or does not depend on any parameter"
    return None


def checked_update(optimizer: TorchOptimizer, batch: Batch) -> dict[str, Tensor]:
    """Take the first step of an optimizer, and check its loss on the way.

    Raises:
        PluginError: `loss` returned something else than it must, pairs rows with rows, or fails or has another gradient
            on arrays.
        NonFiniteError: as `TorchOptimizer.gradients_ready`.
    """
    descent = optimizer.descent
    _check_values(optimizer, batch)
    check_probabilities(optimizer.policy, batch)
    wanted = _gradient_of_tensors(optimizer, batch) if descent.scope.arrays else None

    def loss() -> dict[str, Tensor]:
        losses = _loss_of_columns(optimizer, batch) if wanted is None else _loss_on_arrays(optimizer, batch)
        check_losses(optimizer, losses)
        return losses

    def gradients_ready(losses: dict[str, Tensor]) -> None:
        if wanted is not None:
            _check_gradient(optimizer, wanted)
        optimizer.gradients_ready(losses)

    return descent.step(loss, gradients_ready=gradients_ready)


def _check_values(optimizer: Any, batch: Batch) -> None:
    """Refuse values of a plugin that would be taken with returns of another shape.

    Raises:
        PluginError: with the function and what is wrong with its result.
    """
    values = getattr(optimizer, "values", None)
    if values is None or batch.returns is None or not is_others(getattr(values, "__module__", "mlhooks")):
        return
    with torch.no_grad(), optimizer._scope:
        check_values(optimizer, values(batch), *batch.returns.shape, method="values")


def _gradient_of_tensors(optimizer: TorchOptimizer, batch: Batch) -> Tensor | None:
    """Return the gradient [parameters] of a loss whose class opts in to array arithmetic, computed without it.

    None where arrays take no part anyway, or the loss is not what it must be. Torch's random numbers are drawn again,
    and buffers of modules are what they were.
    """
    if is_plain() or not optimizer.flat.data.is_cpu:
        return None
    state, scope = torch.get_rng_state(), LossScope()
    buffers = [(buffer, buffer.clone()) for module in optimizer.parts().values() for buffer in module.buffers()]
    optimizer.flat.zero()
    try:
        with scope:
            losses = _loss_of_columns(optimizer, batch)
        if _problem(losses) is not None:
            return None
        scope.backward(losses["loss"])
    finally:
        torch.set_rng_state(state)
        for buffer, before in buffers:
            buffer.copy_(before)
    optimizer.flat.collect()
    return optimizer.flat.grad.clone()


class _PairsError(Exception):
    """Numbers [rows] and numbers [rows, n] met in an operation that takes each row with its own."""


class _Columns(TorchFunctionMode):
    """Refuses to take numbers [rows] with numbers [rows, n], of which torch would pair each row with all rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute one of torch's functions."""
        if len(args) == 2 and getattr(function, "__name__", "") in _ROW_BY_ROW:
            shapes = sorted((tuple(x.shape) for x in args if isinstance(x, Tensor)), key=len)
            if [len(shape) for shape in shapes] == [1, 2] and shapes[0][0] == shapes[1][0] == self.rows != shapes[1][1]:
                raise _PairsError(f"{list(shapes[0])} and {list(shapes[1])}")
        return function(*args, **(kwargs or {}))


_OPERATORS = ("add", "sub", "mul", "truediv", "div", "radd", "rsub", "rmul", "rtruediv", "rdiv")
_ROW_BY_ROW = {"add", "sub", "mul", "div", "min", "max", "minimum", "maximum", *(f"__{name}__" for name in _OPERATORS)}


def _loss_of_columns(optimizer: TorchOptimizer, batch: Batch) -> dict[str, Tensor]:
    """Compute a loss with tensors, in which numbers of rows are columns beside those of action dimensions.

    Raises:
        PluginError: numbers of rows are no column, with the line, or the loss wrote to the batch.
    """
    before = _versions(batch)
    try:
        with _Columns(len(batch)):
            losses = optimizer.loss(batch)
    except _PairsError as error:
        raise PluginError(
            f"{_named(optimizer, 'loss')} takes numbers of the shapes {error} together{in_brackets(raised_at(error))}, "
            "of which torch would pair each row with all others. Log-probabilities and entropies have a column for "
            "each action dimension, [rows, dimensions], and advantages are a column, [rows, 1]: `whole_actions(x)` "
            "of mlhooks.plugin adds dimensions up to one column, and `column(x)` makes one of numbers [rows]."
        ) from error
    if changed := [name for name, version in _versions(batch).items() if version != before[name]]:
        columns = " and ".join(f"`batch.{name}`" for name in changed)
        raise PluginError(
            f"{_named(optimizer, 'loss')} wrote to {columns}, which the next epoch may read again: change a copy."
        )
    return losses


def _versions(batch: Batch) -> dict[str, int]:
    """Return how often torch wrote to each column."""
    columns = ((field.name, getattr(batch, field.name)) for field in fields(batch))
    return {name: column._version for name, column in columns if isinstance(column, Tensor)}


def _loss_on_arrays(optimizer: TorchOptimizer, batch: Batch) -> dict[str, Tensor]:
    """Compute a loss with array arithmetic that was just computed without it.

    Raises:
        PluginError: it fails now, with the line.
    """
    try:
        return optimizer.loss(batch)
    except Exception as error:
        raise PluginError(
            f"{_named(optimizer, 'loss')} fails with array arithmetic, and does not without it: {named(error)}"
            f"{in_brackets(raised_at(error))}. {_LEAVE_ARRAYS}"
        ) from error


def _check_gradient(optimizer: TorchOptimizer, wanted: Tensor) -> None:
    """Refuse array arithmetic that gives a loss another gradient than tensors do.

    Raises:
        PluginError: with the parameters whose gradients differ.
    """
    flat, size = optimizer.flat, float(wanted.abs().max())
    if not math.isfinite(size):
        return
    names = {id(p): f"{m}.{n}" for m, module in optimizer.parts().items() for n, p in module.named_parameters()}
    sizes = [parameter.numel() for parameter in flat.parameters]
    parts = zip(flat.parameters, flat.grad.split(sizes), wanted.split(sizes), strict=True)
    tolerance = SATURATED if optimizer.policy.memory_size else TOLERANCE
    differing = [names[id(p)] for p, found, right in parts if not _is_close(found, right, size, tolerance)]
    if not differing:
        return
    raise PluginError(
        f"{_named(optimizer, 'loss')} has another gradient with array arithmetic than with tensors, in "
        f"{', '.join(differing[:NAMED])}. A torch.autograd.Function does not follow arrays, and random numbers must be "
        f"torch's. {_LEAVE_ARRAYS}"
    )


def _is_close(found: Tensor, right: Tensor, size: float, tolerance: float) -> bool:
    """Return whether a gradient is right to rounding of `size`, the largest gradient of all parameters."""
    return torch.allclose(found, right, tolerance, tolerance * float(right.abs().max()) + ROUNDING * size)


def check_torch_optimizer(optimizer: TorchOptimizer, made: Any, parameters: FlatParameters) -> None:
    """Refuse what is no torch optimizer, or not the one that was asked for; warn where it leaves out parameters.

    Raises:
        PluginError: it is no torch optimizer.
        UnsupportedError: the settings name one, and this method makes another one.
    """
    name = _named(optimizer, "create_torch_optimizer")
    groups = getattr(made, "param_groups", None)
    if groups is None:
        raise PluginError(f"{name} must return a torch optimizer; it returned {_a(made)}.")
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise PluginError(
            f"{name} must return a torch optimizer that steps by the gradients that are there; {type(made).__name__} "
            "wants to compute the loss again. Take another one, or override `update` for it."
        )
    asked = optimizer.settings.hyperparameters.model_fields_set & {"optimizer", "optimizer_kwargs"}
    if asked:
        raise UnsupportedError(
            f"{name} makes a torch optimizer of its own, {with_article(made)}, whatever the settings ask for: remove "
            f"{' and '.join(f'hyperparameters.{key}' for key in sorted(asked))}."
        )
    if not all("params" in group for group in groups):
        return  # Such an optimizer keeps its parameters elsewhere, so none can be missed.
    given = {id(p) for group in groups for p in group["params"]}
    learned = {id(p) for p in parameters} - given
    left_out = [
        name for name, module in optimizer.parts().items() if any(id(p) in learned for p in module.parameters())
    ]
    if left_out:
        logger.warning(
            "%s leaves out parameters of the modules %s, which will not be learned. Give it all of "
            "`parameters.parameters`, or freeze those modules by requires_grad_(False).",
            name,
            ", ".join(map(repr, left_out)),
        )


def _named(optimizer: TorchOptimizer, method: str) -> str:
    function = inspect.unwrap(getattr(optimizer, method))
    return f"`{type(optimizer).__name__}.{method}`{in_brackets(defined_at(function))}"


def _a(value: object) -> str:
    return "a Tensor" if isinstance(value, ArrayTensor) else with_article(value)

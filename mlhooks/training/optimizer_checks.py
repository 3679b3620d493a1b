"""What is wrong with an optimizer of a plugin: looked for at its first update and after a failure."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mlhooks.describing import with_article
from mlhooks.errors import PluginError
from mlhooks.fast.arrays import ArrayTensor
from mlhooks.places import defined_at, in_brackets

if TYPE_CHECKING:
    from mlhooks.training.optimizer import TorchOptimizer

logger = logging.getLogger("mlhooks")


def check_made(optimizer: TorchOptimizer) -> None:
    """Refuse an optimizer whose base was never initialized.

    Raises:
        PluginError: names its `__init__`.
    """
    if "_checked" not in vars(optimizer):
        raise PluginError(f"{_named(optimizer, '__init__')} must call super().__init__(policy, settings).")


def check_losses(optimizer: TorchOptimizer, losses: object) -> None:
    """Refuse what `loss` returned where it is no mapping of scalar tensors with the key 'loss'.

    Raises:
        PluginError: names the function, and what of it is wrong.
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


def check_torch_optimizer(optimizer: TorchOptimizer, made: Any) -> None:
    """Refuse what is no torch optimizer, and warn where it leaves out parameters that are to be learned.

    Raises:
        PluginError: names `create_torch_optimizer`.
    """
    name = _named(optimizer, "create_torch_optimizer")
    groups = getattr(made, "param_groups", None)
    if groups is None:
        raise PluginError(f"{name} must return a torch optimizer; it returned {_a(made)}.")
    if not all("params" in group for group in groups):
        return  # of a kind that keeps them elsewhere
    given = {id(p) for group in groups for p in group["params"]}
    learned = {id(p) for p in optimizer.flat.parameters} - given
    modules = {**optimizer.policy.modules(), **optimizer.modules()}
    left_out = [name for name, module in modules.items() if any(id(p) in learned for p in module.parameters())]
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

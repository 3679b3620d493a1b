"""Networks that a loss passes gradients through without training them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let passes made in the block collect no gradients for the module's parameters, but pass them on to its inputs.

    That is settled when a pass is made: it does not matter where its backward pass runs, and passes of the same module
    before and after the block train it as usual.

    Args:
        module: such as a critic that judges a policy's actions, while it learns from others.
    """
    parameters = [parameter for parameter in _parameters(module) if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a module; `Module.parameters` also makes their names, and takes several times as long."""
    for parameter in module._parameters.values():
        if parameter is not None:
            yield parameter
    for part in module._modules.values():
        if part is not None:
            yield from _parameters(part)

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
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

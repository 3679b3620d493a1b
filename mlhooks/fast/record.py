"""The record of a loss that is computed on arrays, through which its gradients are passed back."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor


class Step(Protocol):
    """One step of the computation that leads from parameters to a loss."""

    def propagate(self) -> None:
        """Pass the gradient of the step's result on to its inputs, and clear it."""


class Record:
    """The steps that led to a loss, for the backward pass.

    Attributes:
        entered: the record to which `ArrayTensor`s add steps now.
        steps: the steps in order, without those that made constants.
        sources: the arrays that stand for tensors of torch's graph, by the tensor's id, with the tensor.
        in_numpy: whether numpy computes one of the derivatives, which may warn of numbers that are not finite.

    Args:
        count: gets the name of each operation that is left to torch.
    """

    entered: ClassVar[ContextVar[Record | None]] = ContextVar("entered", default=None)

    def __init__(self, count: Callable[[str], None]) -> None:
        self.steps: list[Step] = []
        self.in_numpy = False
        self.sources: dict[int, tuple[Tensor, Any]] = {}
        self.count = count

    @classmethod
    def active(cls) -> Record | None:
        """Return the entered record, or None where there is none or gradients are off."""
        return cls.entered.get() if torch.is_grad_enabled() else None

    def propagate(self) -> None:
        """Pass gradients back through all steps, from the loss to the parameters."""
        for step in reversed(self.steps):
            step.propagate()

    def leaf_hook(self) -> Callable[[Tensor], None]:
        """Return a hook for a leaf of torch's, which passes gradients back at once where the loss called `backward`.

        The loss then looks for the gradients. The hook does not keep the record, which keeps the leaf: the garbage
        collector does not see what hooks hold, so that neither would ever go.
        """
        record = weakref.ref(self)

        def gradient_came_through_torch(_leaf: Tensor) -> None:
            entered = Record.entered.get()
            if entered is not None and entered is record():
                entered.propagate()

        return gradient_came_through_torch

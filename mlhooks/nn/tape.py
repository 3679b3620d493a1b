"""A tape for learning: the loss stays plain torch, and what is below it has its derivatives written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.nn.mirror import LARGE, Mirror

Backward = Callable[[list[Tensor | None]], None]


class GradientTape:
    """While it is entered, networks made of plain layers run as mirrors, and `backward` goes through them.

    Autograd sees their outputs as leaves. So a loss is written in plain torch, and gets its gradients as from
    `loss.backward()`; the networks must have no inputs that need gradients themselves. Other operations may `cut` the
    graph in the same way: what they compute without autograd is a leaf, and they know its derivative.
    """

    _entered: ContextVar[GradientTape | None] = ContextVar("entered", default=None)

    def __init__(self) -> None:
        self._mirrors: dict[tuple[nn.Module, ...], Mirror | None] = {}
        self._operations: list[tuple[Sequence[Tensor], Backward]] = []
        self._token: Token[GradientTape | None] | None = None

    def __enter__(self) -> GradientTape:
        self._operations = []
        self._token = self._entered.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        self._entered.reset(self._token)

    @classmethod
    def active(cls) -> GradientTape | None:
        """The tape that is entered, where gradients are wanted at all."""
        return cls._entered.get() if torch.is_grad_enabled() else None

    def cut(self, outputs: Sequence[Tensor], backward: Backward) -> None:
        """Make results of an operation leaves of the graph.

        Args:
            outputs: the results.
            backward: gets the gradient of each of them, or None where it does not matter, and hands on what follows
                from these by `add_gradient`.
        """
        for output in outputs:
            output.requires_grad_()
        self._operations.append((outputs, backward))

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss to all parameters' `.grad`, which must exist."""
        if loss.is_leaf and loss.requires_grad:
            loss.grad = torch.ones_like(loss)
        else:
            loss.backward(retain_graph=True)  # an operation may have an input from the same graph
        with np.errstate(all="ignore"):  # what is not finite is found and named before the step
            for outputs, backward in reversed(self._operations):
                gradients = [output.grad for output in outputs]
                if any(gradient is not None for gradient in gradients):
                    backward(gradients)
        self._operations = []

    @classmethod
    def outputs(cls, encoder: nn.Module, heads: Sequence[nn.Linear], features: Tensor) -> list[Tensor]:
        """Each head's output on the encoder's for features [rows, size]: by the tape that is entered, or by torch."""
        tape = cls._entered.get()
        mirror = None if tape is None or features.requires_grad else tape._mirror(encoder, heads, len(features))
        if tape is None or mirror is None:
            encoding = encoder(features)
            return [head(encoding) for head in heads]
        with np.errstate(all="ignore"):
            if not torch.is_grad_enabled():
                return [torch.from_numpy(output) for output in mirror(features.numpy())]
            arrays, passed, encoding = mirror.record(features.numpy())
        outputs = [torch.from_numpy(array) for array in arrays]
        tape.cut(
            outputs,
            lambda gradients: mirror.backward(passed, encoding, [None if g is None else g.numpy() for g in gradients]),
        )
        return outputs

    def _mirror(self, encoder: nn.Module, heads: Sequence[nn.Linear], rows: int) -> Mirror | None:
        key = (encoder, *heads)
        mirror = self._mirrors.get(key)
        if key not in self._mirrors or (mirror is not None and not mirror.is_current):
            mirror = self._mirrors[key] = Mirror(encoder, heads) if Mirror.supports(encoder) else None
        return mirror if mirror is not None and rows * len(mirror.heads[0].weight) <= LARGE else None


def add_gradient(tensor: Tensor, gradient: Tensor) -> None:
    """Add a gradient to a tensor's `.grad`, or, where it is no leaf, to those of the leaves that it came from."""
    if not tensor.is_leaf:
        tensor.backward(gradient, retain_graph=True)
    elif tensor.grad is None:
        tensor.grad = gradient
    else:
        tensor.grad += gradient

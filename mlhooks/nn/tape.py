"""A tape for learning: the loss stays plain torch, and the networks below it run as mirrors."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar, Token
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.nn.mirror import LARGE, Mirror


class _Known(torch.autograd.Function):
    """A loss with a known gradient, for autograd."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *factors: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * factors[0], None, None


class GradientTape:
    """While it is entered, networks made of plain layers run as mirrors, and `backward` goes through them.

    Autograd sees their outputs as leaves. So a loss is written in plain torch, and gets its gradients as from
    `loss.backward()`; the networks must have no inputs that need gradients themselves. A loss whose gradient is `known`
    is a leaf, too: autograd then has nothing to do unless something is built on that loss.
    """

    _active: ContextVar[GradientTape | None] = ContextVar("active", default=None)

    def __init__(self) -> None:
        self._mirrors: dict[tuple[nn.Module, ...], Mirror | None] = {}
        self._records: list[tuple[Mirror, list[tuple[np.ndarray, Any]], np.ndarray, list[Tensor]]] = []
        self._known: list[tuple[Tensor, Tensor, Tensor]] = []
        self._token: Token[GradientTape | None] | None = None

    def __enter__(self) -> GradientTape:
        self._records, self._known = [], []
        self._token = self._active.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        self._active.reset(self._token)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss to all parameters' `.grad`, which must exist."""
        if all(loss is not known for known, _, _ in self._known):
            loss.backward(retain_graph=len(self._known) > 0)
        self._through_known(loss)
        with np.errstate(all="ignore"):  # what is not finite is found and named before the step
            for mirror, passed, encoding, outputs in reversed(self._records):
                mirror.backward(passed, encoding, [None if o.grad is None else o.grad.numpy() for o in outputs])
        self._records, self._known = [], []

    def _through_known(self, loss: Tensor) -> None:
        outputs, gradients = [], []
        for known, output, gradient in self._known:
            factor = known.grad
            if loss is known:
                total = gradient
            elif factor is not None:
                total = gradient * factor
            else:
                continue
            if output.is_leaf and output.grad is None:
                output.grad = total
            else:
                outputs.append(output)
                gradients.append(total)
        if outputs:
            torch.autograd.backward(outputs, gradients)

    @classmethod
    def known(cls, loss: Tensor, output: Tensor, gradient: Tensor) -> Tensor:
        """The loss, a scalar computed without autograd, as a function of a network's output whose gradient is known.

        Args:
            loss: the value.
            output: what it is a function of.
            gradient: its derivative, of the shape of `output`.
        """
        tape = cls._active.get()
        if tape is None or not (output.requires_grad and torch.is_grad_enabled()):
            traced: Tensor = _Known.apply(output, loss, gradient)  # type: ignore[no-untyped-call]
            return traced
        loss.requires_grad_()
        tape._known.append((loss, output, gradient))
        return loss

    @classmethod
    def outputs(cls, encoder: nn.Module, heads: Sequence[nn.Linear], features: Tensor) -> list[Tensor]:
        """Each head's output on the encoder's for features [rows, size]: by the active tape, or else by torch."""
        tape = cls._active.get()
        mirror = None if tape is None or features.requires_grad else tape._mirror(encoder, heads, len(features))
        if tape is None or mirror is None:
            encoding = encoder(features)
            return [head(encoding) for head in heads]
        with np.errstate(all="ignore"):
            if not torch.is_grad_enabled():
                return [torch.from_numpy(output) for output in mirror(features.numpy())]
            arrays, passed, encoding = mirror.record(features.numpy())
        outputs = [torch.from_numpy(array).requires_grad_() for array in arrays]
        tape._records.append((mirror, passed, encoding, outputs))
        return outputs

    def _mirror(self, encoder: nn.Module, heads: Sequence[nn.Linear], rows: int) -> Mirror | None:
        key = (encoder, *heads)
        mirror = self._mirrors.get(key)
        if key not in self._mirrors or (mirror is not None and not mirror.is_current):
            mirror = self._mirrors[key] = Mirror(encoder, heads) if Mirror.supports(encoder) else None
        return mirror if mirror is not None and rows * len(mirror.heads[0].weight) <= LARGE else None

"""Losses with their derivatives written down: what autograd would find out anew in every update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlhooks.nn.tape import GradientTape, add_gradient


def huber(values: Tensor, index: Tensor, targets: Tensor, loss_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean Huber loss of some of the values, and those values; its derivative is the error, clipped to [-1, 1].

    Huber 1964, https://doi.org/10.1214/aoms/1177703732; for Q-learning in Mnih et al. 2015, Methods.

    Args:
        values: [rows, n], a network's.
        index: [rows, k], the columns of the values that count, each at most once in a row.
        targets: [rows, k], or what broadcasts to it.
        loss_mask: [rows], True where a row counts; None where all do.
    """
    with torch.no_grad():
        chosen = values.gather(1, index)
        error = chosen - targets
        clipped = error.clamp(-1.0, 1.0)
        weighted = clipped / error.numel()
        if loss_mask is not None:
            weighted = clipped * loss_mask[:, None] / (loss_mask.sum() * error.shape[1]).clamp(min=1)
        loss = torch.vdot(weighted.view(-1), error.sub(clipped, alpha=0.5).view(-1))
        gradient = torch.zeros_like(values).scatter_(1, index, weighted)
    tape = GradientTape.active()
    if tape is None:
        traced: Tensor = _Known.apply(values, loss, gradient)  # type: ignore[no-untyped-call]
        return traced, chosen
    if values.requires_grad:
        tape.cut([loss], lambda factors: add_gradient(values, gradient * factors[0]))  # type: ignore[operator]
    return loss, chosen


class _Known(torch.autograd.Function):
    """A loss with a known gradient, for autograd."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *factors: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * factors[0], None, None

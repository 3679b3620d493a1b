"""The formulas that PPO and POCA share (Schulman et al. 2017, https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

import torch
from torch import Tensor

from mlhooks.training.batch import Batch


def clipped_surrogate(
    batch: Batch, log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return the negative of L^CLIP, equation 7, over the rows of a batch that count, and the probability ratios.

    Args:
        batch: the minibatch.
        log_probs: [rows, dimensions] of its actions under the policy that learns; one dimension for whole actions.
        old_log_probs: [rows, dimensions] under the policy that acted.
        advantages: [rows, 1].
        epsilon: how far a ratio may move from 1 and still be pushed on.
    """
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = ratio.clamp(1.0 - epsilon, 1.0 + epsilon)
    return -batch.mean(torch.min(ratio * advantages, clipped * advantages)), ratio


def clipped_errors(values: Tensor, old_values: Tensor | None, returns: Tensor, epsilon: float) -> Tensor:
    """Return squared errors of values [rows, signals], or of values kept near old ones where that is worse.

    Args:
        values: estimates that learn.
        old_values: estimates before the update; None where nothing is clipped.
        returns: their targets.
        epsilon: how far an estimate may move from the old one and still be pushed on.
    """
    errors = (values - returns).square()
    if old_values is None:
        return errors
    near = old_values + (values - old_values).clamp(-epsilon, epsilon)
    return torch.max(errors, (near - returns).square())


def surrogate_diagnostics(batch: Batch, ratio: Tensor, epsilon: float) -> dict[str, float]:
    """Return how far a minibatch moved the policy, and how well the critic predicted its returns, by statistics key.

    The KL estimate is Schulman's k3, http://joschu.net/blog/kl-approx.html.

    Args:
        batch: the minibatch.
        ratio: [rows, dimensions], its probability ratios.
        epsilon: beyond which distance from 1 they were clipped.
    """
    if batch.loss_mask is not None:  # Padding is left out.
        ratio, batch = ratio[batch.loss_mask], batch[batch.loss_mask]
    unexplained = (batch.returns - batch.values).var(correction=0) / batch.returns.var(correction=0).clamp(min=1e-8)
    return {
        "Policy/Clip Fraction": float(batch.mean(((ratio - 1.0).abs() > epsilon).float())),
        "Policy/KL Divergence": float(batch.mean(ratio - 1.0 - ratio.log())),
        "Losses/Explained Variance": 1.0 - float(unexplained),
    }

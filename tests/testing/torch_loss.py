"""A trainer type whose loss takes for granted what torch gives: real tensors, a function of its own, vmap and where."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlhooks.plugin import (
    ActorCriticOptimizer,
    ActorPolicy,
    Batch,
    OnPolicyHyperparameters,
    OnPolicyTrainer,
    Trainer,
    hookimpl,
)


class Square(torch.autograd.Function):
    """`x * x`, with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the squares."""
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient of `x`."""
        (x,) = ctx.saved_tensors
        return 2.0 * x * gradients[0]


class TorchLossOptimizer(ActorCriticOptimizer):
    """A clipped surrogate, row by row."""

    policy: ActorPolicy

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the surrogate and the critic's error."""
        log_probs, entropies = self.policy.evaluate(batch)
        values = self.values(batch)
        if not all(isinstance(x, Tensor) for x in (log_probs, entropies, values)):
            raise TypeError("networks gave something else than tensors")
        ratio = torch.exp(log_probs - batch.log_probs)
        surrogate = -batch.mean(torch.func.vmap(_surrogate)(ratio, batch.standardize(batch.advantages)))
        value_loss = batch.mean(Square.apply(batch.returns - values))  # type: ignore[no-untyped-call]
        return {
            "loss": surrogate + 0.5 * value_loss - 0.001 * batch.mean(entropies),
            "Losses/Policy Loss": surrogate,
            "Losses/Value Loss": value_loss,
        }


def _surrogate(ratio: Tensor, advantage: Tensor) -> Tensor:
    """Equation 7 of PPO's paper for one row."""
    clipped = torch.where(advantage > 0.0, ratio.clamp(max=1.2), ratio.clamp(min=0.8))
    return clipped * advantage


class TorchLossTrainer(OnPolicyTrainer):
    """One pass over each rollout."""

    hyperparameters_type = OnPolicyHyperparameters
    policy_type = ActorPolicy
    optimizer_type = TorchLossOptimizer


@hookimpl
def get_trainer_types() -> dict[str, type[Trainer]]:
    """Offer `torch_loss`."""
    return {"torch_loss": TorchLossTrainer}

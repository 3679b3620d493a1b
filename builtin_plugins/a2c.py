"""Advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016, https://arxiv.org/abs/1602.01783)."""

from __future__ import annotations

from torch import Tensor

from mlhooks.plugin import (
    ActorPolicy,
    Batch,
    Field,
    OnPolicyTrainer,
    PolicyGradientHyperparameters,
    PolicyGradientOptimizer,
    Supports,
    Trainer,
    column,
    counted_entropies,
    hookimpl,
    whole_actions,
)


class A2CSettings(PolicyGradientHyperparameters):
    """Hyperparameters of `trainer_type: a2c`; names and defaults are those of ML-Agents' example trainer."""

    BETA_FINAL = 1e-10
    num_epoch: int = Field(1, ge=1, le=1, description="Passes over each rollout: one, as the gradient is on-policy.")
    shared_critic: bool = Field(default=False, description="Put the value heads on the actor's encoder.")


class A2COptimizer(PolicyGradientOptimizer):
    """The policy gradient with a value baseline and an entropy bonus."""

    reads_bytes = True
    array_arithmetic = True

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss whose gradient the paper's algorithm S3 accumulates, averaged over rows."""
        log_probs, entropies = self.policy.evaluate(batch)  # [rows, dimensions]
        if self.has_dimensions:
            log_probs = whole_actions(log_probs)
            entropies = whole_actions(entropies) if self.joint_actions else counted_entropies(entropies, self.actions)
        advantages = column(batch.advantages)  # [rows, 1]
        if self.normalizes_minibatches:
            advantages = batch.standardize(advantages)
        policy_loss = -batch.mean(log_probs * advantages)
        value_loss = batch.mean((batch.returns - self.values(batch)).square())
        entropy = batch.mean(entropies)
        return {
            "loss": policy_loss + self.value_coefficient * value_loss - self.beta(self.step) * entropy,
            "Losses/Policy Loss": policy_loss,
            "Losses/Value Loss": value_loss,
            "Policy/Entropy": entropy,
        }


class A2CTrainer(OnPolicyTrainer):
    """One gradient step for each minibatch of a rollout, which by default is all of it."""

    hyperparameters_type = A2CSettings
    supports = Supports(memory=True, behavioral_cloning=True)
    policy_type = ActorPolicy
    optimizer_type = A2COptimizer
    optimizer: A2COptimizer


@hookimpl
def get_trainer_types() -> dict[str, type[Trainer]]:
    """Offer `a2c`."""
    return {"a2c": A2CTrainer}


@hookimpl
def summary_stats(trainer: Trainer, step: int) -> dict[str, float]:
    """Report the schedules."""
    optimizer = trainer.optimizer
    return optimizer.summary_stats(step) if isinstance(optimizer, A2COptimizer) else {}

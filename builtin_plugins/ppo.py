"""Proximal Policy Optimization (Schulman et al. 2017, https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mlhooks.plugin import (
    ActorPolicy,
    Batch,
    Field,
    OnPolicyTrainer,
    Problem,
    Schedule,
    ScheduleType,
    Supports,
    SurrogateHyperparameters,
    SurrogateOptimizer,
    Trainer,
    TrainerSettings,
    clipped_errors,
    clipped_surrogate,
    column,
    counted_entropies,
    extension,
    hookimpl,
    whole_actions,
)


class PPOSettings(SurrogateHyperparameters):
    """Hyperparameters of `trainer_type: ppo`; names and defaults are ML-Agents'."""

    shared_critic: bool = Field(default=False, description="Put the value heads on the actor's encoder.")
    value_clip_range: float | None = extension(
        None,
        gt=0,
        description="Clip value estimates in the value loss to this distance from the old ones, even where that lowers "
        "the loss: Stable-Baselines3's `clip_range_vf`; null: no.",
    )
    value_clip_range_schedule: ScheduleType = extension(
        ScheduleType.CONSTANT, description="How value_clip_range changes until max_steps; linear: to 0, as in RL Zoo."
    )
    target_kl: float | None = extension(
        None,
        gt=0,
        description="End the passes over a rollout at a minibatch whose KL divergence from the policy that acted is "
        "above 1.5 times this, as in Stable-Baselines3; null: never.",
    )

    def problems(self) -> Iterator[Problem]:
        """Refuse two ways to clip value estimates at once."""
        yield from super().problems()
        if self.value_clipping and self.value_clip_range is not None:
            yield Problem(("value_clip_range",), "value_clipping clips value estimates already: remove one of the two")


class PPOOptimizer(SurrogateOptimizer):
    """The clipped surrogate objective with a clipped value loss and an entropy bonus."""

    reads_bytes = True
    array_arithmetic = True

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        h = settings.hyperparameters
        assert isinstance(h, PPOSettings)
        limit = Schedule(h.value_clip_range_schedule, h.value_clip_range or 0.0, 0.0, settings.max_steps)
        self.value_clip_range = None if h.value_clip_range is None else limit
        self.target_kl = h.target_kl

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the negative of the paper's equation 9 on a minibatch.

        The paper's ratio is that of whole actions. As in ML-Agents, each action dimension has one of its own, unless
        the settings say `joint_actions`.
        """
        epsilon, beta = self.epsilon(self.step), self.beta(self.step)
        log_probs, entropies = self.policy.evaluate(batch)  # [rows, dimensions]
        old_log_probs = batch.log_probs
        if self.has_dimensions and self.joint_actions:
            log_probs, old_log_probs, entropies = map(whole_actions, (log_probs, old_log_probs, entropies))
        elif self.has_dimensions:
            entropies = counted_entropies(entropies, self.actions)
        advantages = column(batch.advantages)  # [rows, 1]
        if self.normalizes_minibatches:
            advantages = batch.standardize(advantages)

        # L^CLIP, equation 7
        policy_loss, ratio = clipped_surrogate(batch, log_probs, old_log_probs, advantages, epsilon)

        # L^VF, equation 9, where clipped with the estimate kept near the old one as the ratio is
        values = self.values(batch)  # [rows, signals]
        if self.value_clip_range is not None:
            most = self.value_clip_range(self.step)
            values = batch.values + (values - batch.values).clamp(-most, most)
        errors = clipped_errors(values, batch.values if self.value_clipping else None, batch.returns, epsilon)
        value_loss = batch.mean(errors)

        entropy = batch.mean(entropies)
        self.last = batch, ratio.detach()
        return {
            "loss": policy_loss + self.value_coefficient * value_loss - beta * entropy,
            "Losses/Policy Loss": policy_loss,
            "Losses/Value Loss": value_loss,
            "Policy/Entropy": entropy,
        }

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step, unless the policy has moved so far from the one that acted that no more are to follow."""
        self.ends_epochs = self.target_kl is not None and self.divergence(batch) > 1.5 * self.target_kl
        return {} if self.ends_epochs else super().update(batch)

    @torch.no_grad()
    def divergence(self, batch: Batch) -> float:
        """Return the KL divergence from the policy that acted on a minibatch, estimated as in `diagnostics`."""
        log_ratios = whole_actions(self.policy.evaluate(batch)[0] - batch.log_probs)
        return float(batch.mean(torch.exp(log_ratios) - 1.0 - log_ratios))


class PPOTrainer(OnPolicyTrainer):
    """Several epochs of minibatches over each rollout."""

    hyperparameters_type = PPOSettings
    supports = Supports(memory=True, behavioral_cloning=True)
    policy_type = ActorPolicy
    optimizer_type = PPOOptimizer
    optimizer: PPOOptimizer


@hookimpl
def get_trainer_types() -> dict[str, type[Trainer]]:
    """Offer `ppo`."""
    return {"ppo": PPOTrainer}


@hookimpl
def summary_stats(trainer: Trainer, step: int) -> dict[str, float]:
    """Report schedules and diagnostics."""
    optimizer = trainer.optimizer
    return optimizer.summary_stats(step) if isinstance(optimizer, PPOOptimizer) else {}

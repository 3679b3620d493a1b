"""Proximal Policy Optimization (Schulman et al. 2017, https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mlhooks.plugin import (
    ActorCriticOptimizer,
    ActorPolicy,
    AdvantageNormalization,
    Batch,
    Field,
    OnPolicyHyperparameters,
    OnPolicyTrainer,
    Problem,
    Schedule,
    ScheduleType,
    Supports,
    Trainer,
    TrainerSettings,
    clipped_errors,
    clipped_surrogate,
    column,
    counted_entropies,
    derived,
    extension,
    hookimpl,
    surrogate_diagnostics,
    whole_actions,
)


class PPOSettings(OnPolicyHyperparameters):
    """Hyperparameters of `trainer_type: ppo`; names and defaults are ML-Agents'."""

    beta: float = Field(5e-3, ge=0, description="Weight of the entropy bonus.")
    epsilon: float = Field(0.2, gt=0, description="How far the probability ratio may move from 1 in one update.")
    lambd: float = Field(0.95, ge=0, le=1, description="GAE's lambda: 0 trusts the critic, 1 the returns.")
    num_epoch: int = Field(3, ge=1, description="Passes over each rollout.")
    shared_critic: bool = Field(default=False, description="Put the value heads on the actor's encoder.")
    beta_final: float | None = extension(
        None,
        ge=0,
        description="Beta at max_steps where it is linear; null: ML-Agents' 1e-5 in PPO and POCA, and 1e-10 in A2C.",
    )
    epsilon_final: float = extension(
        0.1, ge=0, description="Epsilon at max_steps where it is linear; in Stable-Baselines3 and RL Zoo it is 0."
    )
    value_coefficient: float = extension(
        0.5, ge=0, description="Weight of the value loss: Stable-Baselines3's `vf_coef`."
    )
    value_clipping: bool = extension(False, description="Keep value estimates within epsilon of the old ones.")
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
    normalize_advantages: AdvantageNormalization = extension(
        AdvantageNormalization.ROLLOUT, description="Rows over which advantages are brought to mean 0 and deviation 1."
    )
    joint_actions: bool = extension(
        False, description="Take probability ratios and entropies of whole actions, not of each of their dimensions."
    )
    beta_schedule: ScheduleType = derived(
        lambda settings: settings.learning_rate_schedule,
        description="How beta changes until max_steps; by default as the learning rate.",
    )
    epsilon_schedule: ScheduleType = derived(
        lambda settings: settings.learning_rate_schedule,
        description="How epsilon changes until max_steps; by default as the learning rate.",
    )

    def problems(self) -> Iterator[Problem]:
        """Refuse two ways to clip value estimates at once."""
        yield from super().problems()
        if self.value_clipping and self.value_clip_range is not None:
            yield Problem(("value_clip_range",), "value_clipping clips value estimates already: remove one of the two")


class PPOOptimizer(ActorCriticOptimizer):
    """The clipped surrogate objective with a clipped value loss and an entropy bonus."""

    policy: ActorPolicy
    reads_bytes = True
    array_arithmetic = True

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        h = settings.hyperparameters
        assert isinstance(h, PPOSettings)
        self.epsilon = Schedule(h.epsilon_schedule, h.epsilon, h.epsilon_final, settings.max_steps)
        self.value_clipping, self.value_coefficient, self.target_kl = h.value_clipping, h.value_coefficient, h.target_kl
        limit = Schedule(h.value_clip_range_schedule, h.value_clip_range or 0.0, 0.0, settings.max_steps)
        self.value_clip_range = None if h.value_clip_range is None else limit
        self.normalizes_minibatches = h.normalize_advantages is AdvantageNormalization.MINIBATCH
        self.joint_actions = h.joint_actions
        self.actions = policy.behavior_spec.action_spec
        self.has_dimensions = self.actions.continuous_size + self.actions.discrete_size > 1
        self.last: tuple[Batch, Tensor] | None = None  # Diagnostics read the last minibatch and its ratios.
        self.resumed_diagnostics: dict[str, float] = {}
        final = 1e-5 if h.beta_final is None else h.beta_final
        self.beta = Schedule(h.beta_schedule, h.beta, final, settings.max_steps)

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

    def diagnostics(self) -> dict[str, float]:
        """Return how far the last minibatch moved the policy, and how well the critic predicted its returns."""
        if self.last is None:
            return self.resumed_diagnostics
        return surrogate_diagnostics(*self.last, self.epsilon(self.step))

    def state_dict(self) -> dict[str, Any]:
        """Return the torch optimizer's state and the diagnostics."""
        return {**super().state_dict(), "diagnostics": self.diagnostics()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.last, self.resumed_diagnostics = None, state["diagnostics"]


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
    if not isinstance(optimizer, PPOOptimizer):
        return {}
    schedules = {
        "Policy/Learning Rate": optimizer.learning_rate(step),
        "Policy/Epsilon": optimizer.epsilon(step),
        "Policy/Beta": optimizer.beta(step),
    }
    return schedules | optimizer.diagnostics()

"""Advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016, https://arxiv.org/abs/1602.01783)."""

from __future__ import annotations

from torch import Tensor

from mlhooks.plugin import (
    ActorCriticOptimizer,
    ActorPolicy,
    AdvantageNormalization,
    Batch,
    Field,
    OnPolicyHyperparameters,
    OnPolicyTrainer,
    Schedule,
    ScheduleType,
    Supports,
    Trainer,
    TrainerSettings,
    column,
    counted_entropies,
    derived,
    extension,
    hookimpl,
    whole_actions,
)


class A2CSettings(OnPolicyHyperparameters):
    """Hyperparameters of `trainer_type: a2c`; names and defaults are those of ML-Agents' example trainer."""

    beta: float = Field(5e-3, ge=0, description="Weight of the entropy bonus.")
    lambd: float = Field(0.95, ge=0, le=1, description="GAE's lambda: 0 trusts the critic, 1 the returns.")
    num_epoch: int = Field(1, ge=1, le=1, description="Passes over each rollout: one, as the gradient is on-policy.")
    shared_critic: bool = Field(default=False, description="Put the value heads on the actor's encoder.")
    beta_final: float | None = extension(
        None,
        ge=0,
        description="Beta at max_steps where it is linear; null: ML-Agents' 1e-5 in PPO and POCA, and 1e-10 in A2C.",
    )
    value_coefficient: float = extension(
        0.5, ge=0, description="Weight of the value loss: Stable-Baselines3's `vf_coef`."
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


class A2COptimizer(ActorCriticOptimizer):
    """The policy gradient with a value baseline and an entropy bonus."""

    policy: ActorPolicy
    reads_bytes = True
    array_arithmetic = True

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        h = settings.hyperparameters
        assert isinstance(h, A2CSettings)
        self.normalizes_minibatches = h.normalize_advantages is AdvantageNormalization.MINIBATCH
        self.joint_actions = h.joint_actions
        self.actions = policy.behavior_spec.action_spec
        self.has_dimensions = self.actions.continuous_size + self.actions.discrete_size > 1
        final = 1e-10 if h.beta_final is None else h.beta_final
        self.beta = Schedule(h.beta_schedule, h.beta, final, settings.max_steps)
        self.value_coefficient = h.value_coefficient

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
    if not isinstance(optimizer, A2COptimizer):
        return {}
    return {"Policy/Learning Rate": optimizer.learning_rate(step), "Policy/Beta": optimizer.beta(step)}

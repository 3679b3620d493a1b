"""Posthumous credit assignment for groups of agents, MA-POCA (Cohen et al. 2021, https://arxiv.org/abs/2111.05992)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mlhooks.plugin import (
    ActorPolicy,
    AdvantageNormalization,
    Batch,
    Field,
    GroupOptimizer,
    GroupTrainer,
    OnPolicyHyperparameters,
    Schedule,
    ScheduleType,
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


class POCASettings(OnPolicyHyperparameters):
    """Hyperparameters of `trainer_type: poca`; names and defaults are ML-Agents'."""

    beta: float = Field(5e-3, ge=0, description="Weight of the entropy bonus.")
    epsilon: float = Field(0.2, gt=0, description="How far probability ratio and baseline may move in one update.")
    lambd: float = Field(0.95, ge=0, le=1, description="Lambda of the returns: 0 trusts the critic, 1 the rewards.")
    num_epoch: int = Field(3, ge=1, description="Passes over each rollout.")
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


class POCAOptimizer(GroupOptimizer):
    """PPO's clipped surrogate objective on counterfactual advantages, with the losses of a group's value and baselines.

    The critic reads what all members of a group observe. The baseline of a member reads of the others what they observe
    and do, and of the member what it observes, so that the advantage tells what its own action added to the return.
    """

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        h = settings.hyperparameters
        assert isinstance(h, POCASettings)
        final = 1e-5 if h.beta_final is None else h.beta_final
        self.beta = Schedule(h.beta_schedule, h.beta, final, settings.max_steps)
        self.epsilon = Schedule(h.epsilon_schedule, h.epsilon, h.epsilon_final, settings.max_steps)
        self.value_clipping, self.value_coefficient = h.value_clipping, h.value_coefficient
        self.joint_actions = h.joint_actions
        self.normalizes_minibatches = h.normalize_advantages is AdvantageNormalization.MINIBATCH
        self.actions = policy.behavior_spec.action_spec
        self.last: tuple[Batch, Tensor] | None = None  # Diagnostics read the last minibatch and its ratios.
        self.resumed_diagnostics: dict[str, float] = {}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of a minibatch: policy + 0.5 * (value + 0.5 * baseline) - beta * entropy, as in ML-Agents.

        The first 0.5 is `value_coefficient`. Values and baselines have the same returns as targets. As in PPO, each
        action dimension has a ratio of its own, unless the settings say `joint_actions`.
        """
        epsilon, beta = self.epsilon(self.step), self.beta(self.step)
        log_probs, entropies = self.policy.evaluate(batch)  # [rows, dimensions]
        old_log_probs = batch.log_probs
        if self.joint_actions:
            log_probs, old_log_probs, entropies = map(whole_actions, (log_probs, old_log_probs, entropies))
        else:
            entropies = counted_entropies(entropies, self.actions)
        advantages = column(batch.advantages)  # [rows, 1], return - baseline
        if self.normalizes_minibatches:
            advantages = batch.standardize(advantages)
        policy_loss, ratio = clipped_surrogate(batch, log_probs, old_log_probs, advantages, epsilon)

        values, baselines = self.group_values(batch)  # [rows, signals]
        old_values = batch.values if self.value_clipping else None
        value_loss = batch.mean(clipped_errors(values, old_values, batch.returns, epsilon))
        baseline_loss = batch.mean(clipped_errors(baselines, batch.baselines, batch.returns, epsilon))

        entropy = batch.mean(entropies)
        self.last = batch, ratio.detach()
        return {
            "loss": policy_loss + self.value_coefficient * (value_loss + 0.5 * baseline_loss) - beta * entropy,
            "Losses/Policy Loss": policy_loss,
            "Losses/Value Loss": value_loss,
            "Losses/Baseline Loss": baseline_loss,
            "Policy/Entropy": entropy,
        }

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


class POCATrainer(GroupTrainer):
    """Several epochs of minibatches over each rollout, in which the members of a group stay together."""

    hyperparameters_type = POCASettings
    policy_type = ActorPolicy
    optimizer_type = POCAOptimizer
    optimizer: POCAOptimizer


@hookimpl
def get_trainer_types() -> dict[str, type[Trainer]]:
    """Offer `poca`."""
    return {"poca": POCATrainer}


@hookimpl
def summary_stats(trainer: Trainer, step: int) -> dict[str, float]:
    """Report schedules and diagnostics."""
    optimizer = trainer.optimizer
    if not isinstance(optimizer, POCAOptimizer):
        return {}
    schedules = {
        "Policy/Learning Rate": optimizer.learning_rate(step),
        "Policy/Epsilon": optimizer.epsilon(step),
        "Policy/Beta": optimizer.beta(step),
    }
    return schedules | optimizer.diagnostics()

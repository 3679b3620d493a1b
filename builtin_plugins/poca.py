"""Posthumous credit assignment for groups of agents, MA-POCA (Cohen et al. 2021, https://arxiv.org/abs/2111.05992)."""

from __future__ import annotations

from torch import Tensor

from mlhooks.plugin import (
    ActorPolicy,
    Batch,
    Field,
    GroupOptimizer,
    GroupTrainer,
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


class POCASettings(SurrogateHyperparameters):
    """Hyperparameters of `trainer_type: poca`; names and defaults are ML-Agents'."""

    epsilon: float = Field(0.2, gt=0, description="How far probability ratio and baseline may move in one update.")
    baseline_clipping: bool = extension(
        True,
        description="Keep baselines within epsilon of the old ones, as ML-Agents does; large returns need false.",
    )


class POCAOptimizer(SurrogateOptimizer, GroupOptimizer):
    """PPO's clipped surrogate objective on counterfactual advantages, with the losses of a group's value and baselines.

    The critic reads what all members of a group observe. The baseline of a member reads of the others what they observe
    and do, and of the member what it observes, so that the advantage tells what its own action added to the return.
    """

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        assert isinstance(settings.hyperparameters, POCASettings)
        self.baseline_clipping = settings.hyperparameters.baseline_clipping

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
        old_baselines = batch.baselines if self.baseline_clipping else None
        baseline_loss = batch.mean(clipped_errors(baselines, old_baselines, batch.returns, epsilon))

        entropy = batch.mean(entropies)
        self.last = batch, ratio.detach()
        return {
            "loss": policy_loss + self.value_coefficient * (value_loss + 0.5 * baseline_loss) - beta * entropy,
            "Losses/Policy Loss": policy_loss,
            "Losses/Value Loss": value_loss,
            "Losses/Baseline Loss": baseline_loss,
            "Policy/Entropy": entropy,
        }


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
    return optimizer.summary_stats(step) if isinstance(optimizer, POCAOptimizer) else {}

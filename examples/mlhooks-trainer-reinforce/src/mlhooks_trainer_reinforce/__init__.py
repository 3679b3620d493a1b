"""REINFORCE with a learned baseline (Williams 1992, https://doi.org/10.1007/BF00992696).

The whole trainer type stands here: its settings, its optimizer with the loss, its trainer, and the hooks that offer
them. Equations are those of section 13.4 of Sutton and Barto, Reinforcement Learning: An Introduction, 2nd edition
(2018), http://incompleteideas.net/book/the-book-2nd.html.
"""

from __future__ import annotations

from torch import Tensor

from mlhooks.plugin import (
    ActorCriticOptimizer,
    ActorPolicy,
    Batch,
    Field,
    OnPolicyHyperparameters,
    OnPolicyTrainer,
    Supports,
    Trainer,
    TrainerSettings,
    hookimpl,
    whole_actions,
)


class ReinforceSettings(OnPolicyHyperparameters):
    """Hyperparameters of `trainer_type: reinforce`, besides those that all on-policy trainers share."""

    entropy_bonus: float = Field(0.0, ge=0, description="Weight of the entropy, which keeps the policy exploring.")
    baseline_weight: float = Field(0.5, gt=0, description="Weight of the baseline's error in the loss.")


class ReinforceOptimizer(ActorCriticOptimizer):
    """Makes actions more likely by how much more than the baseline followed them."""

    policy: ActorPolicy

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        assert isinstance(settings.hyperparameters, ReinforceSettings)
        self.hyperparameters = settings.hyperparameters

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss whose negative gradient is, on average over the rows, the step of equation 13.11."""
        log_probs, entropies = map(whole_actions, self.policy.evaluate(batch))  # [rows, 1]: ln pi(A|S), H(pi(.|S))
        offsets = batch.standardize(batch.advantages)  # [rows, 1]: G - b(S), scaled; a constant in this gradient
        policy_loss = -batch.mean(log_probs * offsets)

        # The baseline b(S) learns the return G from S, as the box below equation 13.11 does.
        baseline_loss = batch.mean((batch.returns - self.values(batch)).square())

        entropy = batch.mean(entropies)
        h = self.hyperparameters
        return {
            "loss": policy_loss + h.baseline_weight * baseline_loss - h.entropy_bonus * entropy,
            "Losses/Policy Loss": policy_loss,
            "Losses/Baseline Loss": baseline_loss,
            "Policy/Entropy": entropy,
        }


class ReinforceTrainer(OnPolicyTrainer):
    """Gives each decision the discounted sum of all rewards that followed it.

    That is generalized advantage estimation with lambda 1. Where a trajectory is cut before its episode ends, by the
    end of the rollout, the time horizon or a step limit, the baseline stands for the rewards that were not seen.
    """

    hyperparameters_type = ReinforceSettings
    policy_type = ActorPolicy
    optimizer_type = ReinforceOptimizer
    supports = Supports(continuous=True, discrete=True)
    epochs = 1  # The gradient is that of the policy which acted.
    lambd = 1.0


@hookimpl
def get_trainer_types() -> dict[str, type[Trainer]]:
    """Offer `reinforce`."""
    return {"reinforce": ReinforceTrainer}


@hookimpl
def summary_stats(trainer: Trainer, step: int) -> dict[str, float]:
    """Return the learning rate of the moment."""
    if isinstance(trainer.optimizer, ReinforceOptimizer):
        return {"Policy/Learning Rate": trainer.optimizer.learning_rate(step)}
    return {}

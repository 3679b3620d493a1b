"""A2C and REINFORCE with a wrong loss."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

A2C = "builtin_plugins.a2c:A2COptimizer.loss"
CHOSEN = "column(batch.advantages)"
A2C_TOTAL = "policy_loss + self.value_coefficient * value_loss - self.beta(self.step) * entropy"
A2C_POLICY_LOSS = "-batch.mean(log_probs * advantages)"

REINFORCE = "mlhooks_trainer_reinforce:ReinforceOptimizer.loss"
EXAMPLE = "examples/mlhooks-trainer-reinforce"
STANDARDIZED = "batch.standardize(batch.advantages)"
REINFORCE_TOTAL = "policy_loss + h.baseline_weight * baseline_loss - h.entropy_bonus * entropy"


@mutant("a2c", caught_by="test_update_moves_the_policy_towards_what_was_good")
def a2c_policy_loss_sign(patch: Patch) -> None:
    patch.replace(A2C, A2C_POLICY_LOSS, "batch.mean(log_probs * advantages)")


@mutant("a2c", caught_by="test_policy_loss_has_the_policy_gradient")
def a2c_probability_instead_of_its_logarithm(patch: Patch) -> None:
    patch.replace(A2C, A2C_POLICY_LOSS, "-batch.mean(log_probs.exp() * advantages)")


@mutant("a2c", caught_by="test_policy_loss_does_not_train_the_critic")
def a2c_advantage_not_detached(patch: Patch) -> None:
    patch.replace(A2C, CHOSEN, "(batch.returns - self.values(batch)).mean(1, keepdim=True)")


@mutant("a2c", caught_by="test_advantages_are_scaled_as_told")
def a2c_normalizes_always(patch: Patch) -> None:
    patch.replace(A2C, CHOSEN, f"batch.standardize({CHOSEN})")


@mutant("a2c", caught_by="test_entropy_bonus_raises_the_entropy")
def a2c_entropy_sign(patch: Patch) -> None:
    patch.replace(A2C, A2C_TOTAL, A2C_TOTAL.replace("- self.beta", "+ self.beta"))


@mutant("a2c", caught_by="test_entropy_bonus_raises_the_entropy")
def a2c_beta_schedule_ignored(patch: Patch) -> None:
    patch.replace(A2C, "self.beta(self.step)", "self.beta.initial")


@mutant("a2c", caught_by="test_values_are_the_true_ones")
def a2c_returns_not_used(patch: Patch) -> None:
    patch.replace(A2C, "batch.returns", "batch.values")


@mutant(EXAMPLE, caught_by="test_learns_delayed_reward")
def reinforce_sign(patch: Patch) -> None:
    patch.replace(REINFORCE, "-batch.mean(log_probs * offsets)", "batch.mean(log_probs * offsets)")


@mutant(EXAMPLE, caught_by="test_gradients_reach_every_parameter")
def reinforce_baseline_not_trained(patch: Patch) -> None:
    patch.replace(REINFORCE, REINFORCE_TOTAL, "policy_loss - h.entropy_bonus * entropy")


@mutant(EXAMPLE, caught_by="test_value_loss_pulls_values_to_returns")
def reinforce_baseline_sign(patch: Patch) -> None:
    total = "policy_loss - h.baseline_weight * baseline_loss - h.entropy_bonus * entropy"
    patch.replace(REINFORCE, REINFORCE_TOTAL, total)


@mutant(EXAMPLE, caught_by="test_entropy_bonus_raises_the_entropy")
def reinforce_entropy_sign(patch: Patch) -> None:
    total = "policy_loss + h.baseline_weight * baseline_loss + h.entropy_bonus * entropy"
    patch.replace(REINFORCE, REINFORCE_TOTAL, total)


@mutant(EXAMPLE, caught_by="test_every_hyperparameter_is_read")
def reinforce_entropy_bonus_not_read(patch: Patch) -> None:
    patch.replace(REINFORCE, REINFORCE_TOTAL, "policy_loss + h.baseline_weight * baseline_loss")


@mutant(EXAMPLE, caught_by="test_policy_loss_has_the_policy_gradient")
def reinforce_baseline_not_subtracted(patch: Patch) -> None:
    patch.replace(REINFORCE, STANDARDIZED, "batch.standardize(batch.returns.mean(1, keepdim=True))")


@mutant(EXAMPLE, caught_by="test_policy_loss_does_not_train_the_critic")
def reinforce_offsets_not_detached(patch: Patch) -> None:
    not_detached = "batch.standardize((batch.returns - self.values(batch)).mean(1, keepdim=True))"
    patch.replace(REINFORCE, STANDARDIZED, not_detached)

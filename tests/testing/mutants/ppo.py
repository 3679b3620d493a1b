"""PPO with a wrong loss."""

from __future__ import annotations

from typing import Any

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

OPTIMIZER = "builtin_plugins.ppo:PPOOptimizer"
LOSS = f"{OPTIMIZER}.loss"
CLIPPED_SURROGATE = "mlhooks.training.surrogate:clipped_surrogate"
CLIPPED_ERRORS = "mlhooks.training.surrogate:clipped_errors"
SURROGATE = "torch.min(ratio * advantages, clipped * advantages)"
RATIO = "torch.exp(log_probs - old_log_probs)"
CLIPPED = "ratio.clamp(1.0 - epsilon, 1.0 + epsilon)"
ADVANTAGES = "column(batch.advantages)"
TOTAL = "policy_loss + self.value_coefficient * value_loss - beta * entropy"
OLD_VALUES = "batch.values if self.value_clipping else None"
ERRORS = f"clipped_errors(values, {OLD_VALUES}, batch.returns, epsilon)"
VALUE_LOSS = "batch.mean(errors)"


@mutant("ppo", caught_by=("test_policy_loss_has_the_policy_gradient", "test_learns_one_step"))
def ppo_policy_loss_sign(patch: Patch) -> None:
    patch.replace(CLIPPED_SURROGATE, f"-batch.mean({SURROGATE})", f"batch.mean({SURROGATE})")


@mutant("ppo", caught_by="test_padding_of_units_has_no_gradient")
def ppo_padding_counts(patch: Patch) -> None:
    patch.replace(LOSS, VALUE_LOSS, "errors.mean()")


@mutant("ppo", caught_by="test_estimates_are_the_values_of_learning")
def ppo_estimates_are_not_its_values(patch: Patch) -> None:
    patch.insert(OPTIMIZER, "def estimate(self, features): return 0.5 * super().estimate(features)")


@mutant("ppo", caught_by="test_estimates_are_the_values_of_learning")
def ppo_estimates_have_gradients(patch: Patch) -> None:
    patch.insert(OPTIMIZER, "def estimate(self, features): return self.critic(features)")


@mutant("ppo", caught_by=("test_estimates_are_the_values_of_learning", "test_gradients_reach_every_parameter"))
def ppo_values_are_detached(patch: Patch) -> None:
    patch.insert(OPTIMIZER, "def values(self, batch): return super().values(batch).detach()")


@mutant("ppo", caught_by="test_policy_loss_has_the_policy_gradient")
def ppo_ratio_inverted(patch: Patch) -> None:
    patch.replace(CLIPPED_SURROGATE, RATIO, "torch.exp(old_log_probs - log_probs)")


@mutant("ppo", caught_by="test_policy_loss_has_the_policy_gradient")
def ppo_difference_instead_of_ratio(patch: Patch) -> None:
    patch.replace(CLIPPED_SURROGATE, RATIO, "1.0 + torch.exp(log_probs) - torch.exp(old_log_probs)")


@mutant("ppo", caught_by="test_clips_the_ratio_on_both_sides")
def ppo_upper_clip_ignored(patch: Patch) -> None:
    patch.replace(CLIPPED_SURROGATE, CLIPPED, "ratio.clamp(min=1.0 - epsilon)")


@mutant("ppo", caught_by="test_clips_the_ratio_on_both_sides")
def ppo_lower_clip_ignored(patch: Patch) -> None:
    patch.replace(CLIPPED_SURROGATE, CLIPPED, "ratio.clamp(max=1.0 + epsilon)")


@mutant("ppo", caught_by="test_clips_the_ratio_on_both_sides")
def ppo_maximum_of_surrogates(patch: Patch) -> None:
    patch.replace(CLIPPED_SURROGATE, SURROGATE, "torch.max(ratio * advantages, clipped * advantages)")


@mutant("ppo", caught_by="test_clipping_follows_its_schedule")
def ppo_epsilon_schedule_ignored(patch: Patch) -> None:
    patch.replace(LOSS, "self.epsilon(self.step)", "self.epsilon(0)")


@mutant("ppo", caught_by="test_entropy_bonus_raises_the_entropy")
def ppo_beta_schedule_ignored(patch: Patch) -> None:
    patch.replace(LOSS, "self.beta(self.step)", "self.beta(0)")


@mutant("ppo", caught_by="test_entropy_bonus_raises_the_entropy")
def ppo_entropy_sign(patch: Patch) -> None:
    patch.replace(LOSS, TOTAL, TOTAL.replace("- beta", "+ beta"))


@mutant("ppo", caught_by="test_entropy_bonus_raises_the_entropy")
def ppo_entropy_detached(patch: Patch) -> None:
    patch.replace(LOSS, "batch.mean(entropies)", "batch.mean(entropies.detach())")


@mutant("ppo", caught_by="test_reported_entropy_is_the_policys")
def ppo_entropy_reported_negative(patch: Patch) -> None:
    @patch.around(LOSS)
    def loss(original: Any, self: Any, batch: Any) -> dict[str, Any]:
        losses = original(self, batch)
        return {**losses, "Policy/Entropy": -losses["Policy/Entropy"]}


@mutant("ppo", caught_by="test_clips_value_estimates")
def ppo_value_clipping_minimum(patch: Patch) -> None:
    clipped = "errors, (near - returns).square()"
    patch.replace(CLIPPED_ERRORS, f"torch.max({clipped})", f"torch.min({clipped})")


@mutant("ppo", caught_by="test_clips_value_estimates")
def ppo_value_clipping_inverted(patch: Patch) -> None:
    patch.replace(LOSS, "self.value_clipping", "not self.value_clipping")


@mutant("ppo", caught_by="test_gradients_reach_every_parameter")
def ppo_critic_never_trained(patch: Patch) -> None:
    patch.replace(LOSS, TOTAL, "policy_loss - beta * entropy")


@mutant("ppo", caught_by="test_every_parameter_changes_by_training")
def ppo_actor_never_trained(patch: Patch) -> None:
    patch.replace(LOSS, TOTAL, "0.5 * value_loss")


@mutant("ppo", caught_by="test_value_loss_pulls_values_to_returns")
def ppo_value_error_from_old_values(patch: Patch) -> None:
    patch.replace(LOSS, ERRORS, ERRORS.replace("batch.returns", "batch.values"))


@mutant("ppo", caught_by="test_value_loss_pulls_values_to_returns")
def ppo_value_loss_sign(patch: Patch) -> None:
    patch.replace(LOSS, TOTAL, TOTAL.replace("policy_loss +", "policy_loss -"))


@mutant("ppo", caught_by="test_policy_loss_does_not_train_the_critic")
def ppo_advantage_of_the_new_critic(patch: Patch) -> None:
    patch.replace(LOSS, ADVANTAGES, "(batch.returns - self.values(batch)).mean(1, keepdim=True)")


@mutant("ppo", caught_by="test_losses_are_means_over_the_rows_that_count")
def ppo_mean_over_rows_that_do_not_count(patch: Patch) -> None:
    patch.replace(LOSS, VALUE_LOSS, "errors.mean()")


@mutant("ppo", caught_by="test_losses_are_means_over_the_rows_that_count")
def ppo_sum_over_rows(patch: Patch) -> None:
    patch.replace(LOSS, VALUE_LOSS, "errors.sum()")


@mutant("ppo", caught_by="test_memory_does_not_grow")
def ppo_loss_logged_with_its_graph(patch: Patch) -> None:
    @patch.around(LOSS)
    def loss(original: Any, self: Any, batch: Any) -> dict[str, Any]:
        losses: dict[str, Any] = original(self, batch)
        self.history = [*getattr(self, "history", []), losses["Losses/Policy Loss"]]
        return losses

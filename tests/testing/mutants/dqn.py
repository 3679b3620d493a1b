"""DQN with a wrong loss, target network or exploration."""

from __future__ import annotations

from typing import Any

import torch

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

POLICY = "mlhooks.training.q_policy:QPolicy"
OPTIMIZER = "builtin_plugins.dqn:DQNOptimizer"
TRAINER = "builtin_plugins.dqn:DQNTrainer"
ONLINE = "self.following(self.policy.network, batch)"
FOLLOW = "target.lerp_(online, self.tau)"
DRAWN = "rng.binomial(agents, self.epsilon)"
COPY = "copy.deepcopy(policy.network).requires_grad_(False)"


@mutant("dqn", caught_by="test_values_are_the_true_ones")
def dqn_target_never_updated(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}._move_target", FOLLOW, "target.lerp_(online, 0.0)")


@mutant("dqn", caught_by="test_target_network_follows_as_told")
def dqn_target_follows_at_once(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}._move_target", FOLLOW, "target.copy_(online)")


@mutant("dqn", caught_by="test_target_network_follows_as_told")
def dqn_interval_ignored(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.update", "self.step - self.copied_at >= self.interval", "True")


@mutant("dqn", caught_by="test_target_network_follows_as_told")
def dqn_target_starts_elsewhere(patch: Patch) -> None:
    @patch.around(f"{OPTIMIZER}.__init__")
    def init(original: Any, self: Any, policy: Any, settings: Any) -> None:
        original(self, policy, settings)
        for parameter in self.target.parameters():
            torch.nn.init.normal_(parameter)


@mutant("dqn", caught_by="test_target_network_follows_as_told")
def dqn_target_is_the_network(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.__init__", COPY, "policy.network")


@mutant("dqn", caught_by="test_gradients_reach_every_parameter")
def dqn_targets_have_gradients(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.__init__", COPY, "copy.deepcopy(policy.network)")


@mutant("dqn", caught_by="test_saved_state_goes_on_as_if_never_saved")
def dqn_target_not_saved(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.modules", "{'target': self.target}", "{}")


@mutant("dqn", caught_by="test_saved_state_goes_on_as_if_never_saved")
def dqn_time_of_the_copy_not_restored(patch: Patch) -> None:
    patch.drop(f"{OPTIMIZER}.load_state_dict", "self.copied_at = state['copied_at']")


@mutant("dqn", caught_by=("test_bootstrapped_targets_are_right", "test_learns_with_masked_actions"))
def dqn_mask_ignored_in_the_target(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.targets", "batch.next_mask is not None", "False")


@mutant("dqn", caught_by="test_bootstrapped_targets_are_right")
def dqn_mask_inverted_in_the_target(patch: Patch) -> None:
    masked, inverted = (f"scores.masked_fill({mask}, MASKED_LOGIT)" for mask in ("batch.next_mask", "~batch.next_mask"))
    patch.replace(f"{OPTIMIZER}.targets", masked, inverted)


@mutant("dqn", caught_by="test_bootstrapped_targets_are_right")
def dqn_double_q_values_by_the_online_network(patch: Patch) -> None:
    values = "self.following(self.policy.network if self.double_q else self.target, batch)"
    patch.replace(f"{OPTIMIZER}.targets", "self.following(self.target, batch)", values)


@mutant("dqn", caught_by="test_bootstrapped_targets_are_right")
def dqn_double_q_inverted(patch: Patch) -> None:
    scores = f"{ONLINE} if not self.double_q else values"
    patch.replace(f"{OPTIMIZER}.targets", f"{ONLINE} if self.double_q else values", scores)


@mutant("dqn", caught_by="test_learns_one_step")
def dqn_sign_of_the_reward(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.targets", "batch.signal_rewards.view(-1)", "-batch.signal_rewards.view(-1)")


@mutant("dqn", caught_by="test_values_are_the_true_ones")
def dqn_discount_forgotten(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.targets", "batch.discounts.view(-1)", "(batch.discounts[:, 0] > 0).float()")


@mutant("dqn", caught_by="test_learns_several_branches")
def dqn_learns_the_wrong_branch(patch: Patch) -> None:
    starts, zeros = (f"[{start} for columns in policy.network.branches]" for start in ("columns.start", "0"))
    patch.replace(f"{OPTIMIZER}.__init__", starts, zeros)


@mutant("dqn", caught_by="test_loss_pulls_taken_actions_to_their_targets")
def dqn_loss_sign(patch: Patch) -> None:
    @patch.around(f"{OPTIMIZER}.loss")
    def loss(original: Any, self: Any, batch: Any) -> dict[str, Any]:
        losses = original(self, batch)
        return {**losses, "loss": -losses["loss"]}


@mutant("dqn", caught_by="test_losses_are_means_over_the_rows_that_count")
def dqn_sum_over_rows(patch: Patch) -> None:
    @patch.around(f"{OPTIMIZER}.loss")
    def loss(original: Any, self: Any, batch: Any) -> dict[str, Any]:
        losses = original(self, batch)
        return {**losses, "loss": losses["loss"] * len(batch)}


@mutant("dqn", caught_by="test_loss_pulls_taken_actions_to_their_targets")
def dqn_learns_the_best_action_instead_of_the_taken(patch: Patch) -> None:
    best = "[values[:, c].argmax(1) + c.start for c in self.policy.network.branches]"
    patch.replace(f"{OPTIMIZER}.loss", "values.gather(1, index)", f"values.gather(1, torch.stack({best}, 1))")


@mutant("dqn", caught_by="test_every_hyperparameter_is_read")
def dqn_dueling_not_read(patch: Patch) -> None:
    patch.replace(f"{POLICY}.__init__", "hyperparameter(settings, 'dueling')", "False")


@mutant("dqn", caught_by="test_never_takes_a_forbidden_action")
def dqn_mask_ignored_in_exploration(patch: Patch) -> None:
    patch.replace(f"{POLICY}.act", "mask is not None", "mask is not None and self.deterministic")


@mutant("dqn", caught_by="test_agents_decide_independently")
def dqn_epsilon_shared_by_the_batch(patch: Patch) -> None:
    patch.replace(f"{POLICY}.act", DRAWN, "agents * rng.binomial(1, self.epsilon)")


@mutant("dqn", caught_by="test_agents_decide_independently")
def dqn_explorers_choose_alike(patch: Patch) -> None:
    drawn = "rng.random(({}, branches[-1].stop), np.float32)"
    patch.replace(f"{POLICY}.act", drawn.format("exploring"), drawn.format("1"))


@mutant("dqn", caught_by="test_explores_as_often_as_it_is_told")
def dqn_epsilon_inverted(patch: Patch) -> None:
    patch.replace(f"{POLICY}.act", DRAWN, "rng.binomial(agents, 1.0 - self.epsilon)")


@mutant("dqn", caught_by="test_same_seed_gives_the_same_weights")
def dqn_explores_by_an_unseeded_generator(patch: Patch) -> None:
    patch.replace(f"{POLICY}.act", DRAWN, "np.random.default_rng().binomial(agents, self.epsilon)")


@mutant("dqn", caught_by="test_explores_as_often_as_it_is_told")
def dqn_exploration_never_falls(patch: Patch) -> None:
    patch.replace(f"{TRAINER}.act", "self.epsilon(self.step)", "self.epsilon(0)")


@mutant("dqn", caught_by="test_explores_as_often_as_it_is_told")
def dqn_exploration_steps_ignored(patch: Patch) -> None:
    steps = "self.settings.max_steps"
    patch.replace(f"{TRAINER}.__init__", f"h.exploration_steps or {steps}", steps)


@mutant("dqn", caught_by="test_explores_as_often_as_it_is_told")
def dqn_exploration_schedule_ignored(patch: Patch) -> None:
    patch.replace(f"{TRAINER}.__init__", "h.exploration_schedule", "ScheduleType.LINEAR")


@mutant("dqn", caught_by="test_reported_schedules_are_those_in_force")
def dqn_reports_the_first_epsilon(patch: Patch) -> None:
    patch.replace("builtin_plugins.dqn:summary_stats", "trainer.epsilon(step)", "trainer.epsilon(0)")


@mutant("dqn", caught_by="test_trains_on_every_action_kind_that_it_declares")
def dqn_supports_what_it_cannot(patch: Patch) -> None:
    patch.replace(TRAINER, "Supports(continuous=False, threaded=True, memory=True)", "Supports(memory=True)")


@mutant("dqn", caught_by="test_learns_from_two_signals")
def dqn_heeds_the_first_signal_alone(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.targets", "batch.signal_rewards.sum(1)", "batch.signal_rewards[:, 0]")


@mutant("dqn", caught_by="test_padding_of_units_has_no_gradient")
def dqn_padding_counts(patch: Patch) -> None:
    errors = "functional.smooth_l1_loss(taken, targets, reduction='none')"
    patch.replace(f"{OPTIMIZER}.loss", f"batch.mean({errors})", f"{errors}.mean()")

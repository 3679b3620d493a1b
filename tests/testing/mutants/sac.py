"""SAC with wrong losses, target networks or random numbers."""

from __future__ import annotations

from typing import Any

import torch

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

OPTIMIZER = "builtin_plugins.sac:SACOptimizer"


@mutant("sac", caught_by="test_target_network_follows_as_told")
def sac_target_never_moves(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.update", "self._following[0].lerp_(self._following[1], self.tau)", "pass")


@mutant("sac", caught_by="test_target_network_follows_as_told")
def sac_target_starts_elsewhere(patch: Patch) -> None:
    @patch.around(f"{OPTIMIZER}.__init__")
    def init(original: Any, self: Any, policy: Any, settings: Any) -> None:
        original(self, policy, settings)
        for parameter in self.target.parameters():
            torch.nn.init.normal_(parameter)


@mutant("sac", caught_by="test_values_are_the_true_ones")
def sac_discount_forgotten(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.targets", "batch.discounts", "(batch.discounts > 0).float()")


@mutant("sac", caught_by="test_learns_one_step")
def sac_sign_of_the_reward(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.targets", "batch.signal_rewards", "-batch.signal_rewards")


@mutant("sac", caught_by="test_learns_one_step")
def sac_sign_of_the_policy_loss(patch: Patch) -> None:
    @patch.around(f"{OPTIMIZER}.cost")
    def cost(original: Any, self: Any, values: Any, now: Any, weights: Any) -> Any:
        return original(self, -values, now, weights)


@mutant("sac", caught_by="test_learns_several_branches")
def sac_learns_the_wrong_branch(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.__init__", "k * self.choices + columns.start", "k * self.choices")


@mutant("sac", caught_by="test_learns_from_two_signals")
def sac_heeds_the_first_signal_alone(patch: Patch) -> None:
    means = "values.view(-1, len(self.signals), self.choices)"
    patch.replace(f"{OPTIMIZER}.cost", f"{means}.mean(1)", f"{means}[:, 0]")


@mutant("sac", caught_by="test_learns_continuous_actions")
def sac_policy_does_not_pass_through_the_critic(patch: Patch) -> None:
    patch.replace(
        f"{OPTIMIZER}.loss", "q1_now = self.q1(inputs[0], None, width, actions=inputs[1])", "q1_now = all_q1.detach()"
    )


@mutant("sac", caught_by="test_losses_are_means_over_the_rows_that_count")
def sac_sum_over_rows(patch: Patch) -> None:
    @patch.around(f"{OPTIMIZER}.loss")
    def loss(original: Any, self: Any, batch: Any) -> dict[str, Any]:
        losses = original(self, batch)
        return {**losses, "loss": losses["loss"] * len(batch)}


@mutant("sac", caught_by="test_padding_of_units_has_no_gradient")
def sac_padding_counts(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.loss", "batch.mean((q1 - targets).square())", "(q1 - targets).square().mean()")


@mutant("sac", caught_by="test_every_hyperparameter_is_read")
def sac_twin_targets_not_read(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.__init__", "h.twin_targets", "False")

"""Replay buffers that keep, draw or follow experience wrongly, and updates that come at a wrong time."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

TRANSITIONS = "mlhooks.training.replay:ReplayBuffer.transitions"
DRAW = "mlhooks.training.replay:ReplayBuffer.draw"
OFF_POLICY = "mlhooks.training.off_policy:OffPolicyLearning"


@mutant("dqn", caught_by=("test_samples_are_the_transitions_that_happened", "test_interruption_is_not_an_end"))
def replay_interruption_is_an_end(patch: Patch) -> None:
    @patch.around(TRANSITIONS)
    def transitions(original: Any, *arguments: Any) -> Any:
        path = original(*arguments)
        return path._replace(discounts=path.discounts * (path.next_rows >= 0)[:, None])


@mutant("dqn", caught_by="test_values_are_the_true_ones")
def replay_ends_are_bootstrapped(patch: Patch) -> None:
    @patch.around(TRANSITIONS)
    def transitions(original: Any, self: Any, rows: Any, powers: Any, ignores_ends: Any) -> Any:
        path = original(self, rows, powers, ignores_ends)
        return path._replace(discounts=powers[(path.steps >= 0).sum(1)])


@mutant("dqn", caught_by="test_samples_are_the_transitions_that_happened")
def replay_n_step_discounted_once(patch: Patch) -> None:
    @patch.around(TRANSITIONS)
    def transitions(original: Any, self: Any, rows: Any, powers: Any, ignores_ends: Any) -> Any:
        path = original(self, rows, powers, ignores_ends)
        return path._replace(discounts=powers[1] * (path.discounts > 0))


@mutant("dqn", caught_by="test_samples_are_the_transitions_that_happened")
def replay_discount_of_one_step_more(patch: Patch) -> None:
    @patch.around(TRANSITIONS)
    def transitions(original: Any, self: Any, rows: Any, powers: Any, ignores_ends: Any) -> Any:
        path = original(self, rows, powers, ignores_ends)
        return path._replace(discounts=powers[1] * path.discounts)


@mutant("dqn", caught_by="test_samples_are_the_transitions_that_happened", plain=True)
def replay_one_step_too_few(patch: Patch) -> None:
    patch.replace("mlhooks.training.replay:transitions", "range(steps.shape[1])", "range(steps.shape[1] - 1)")


@mutant("dqn", caught_by="test_samples_are_the_transitions_that_happened")
def replay_draws_open_rows(patch: Patch) -> None:
    @patch.around(DRAW)
    def draw(original: Any, self: Any, size: int, rng: np.random.Generator) -> Any:
        return (rng.random(size) * self.filled).astype(np.int64)


@mutant("dqn", caught_by="test_samples_cover_the_buffer")
def replay_draws_the_first_half(patch: Patch) -> None:
    @patch.around(DRAW)
    def draw(original: Any, self: Any, size: int, rng: np.random.Generator) -> Any:
        filled, self.filled = self.filled, max(1, self.filled // 2)
        rows = original(self, size, rng)
        self.filled = filled
        return rows


@mutant("dqn", caught_by="test_samples_are_the_transitions_that_happened")
def replay_rewards_not_discounted(patch: Patch) -> None:
    weights = "self._powers[:-1] * (steps >= 0)[:, :, None]"
    patch.replace(f"{OFF_POLICY}._returns", weights, "(steps >= 0).astype(np.float32)[:, :, None]")


@mutant("dqn", caught_by="test_samples_are_the_transitions_that_happened")
def replay_group_rewards_lost(patch: Patch) -> None:
    patch.replace(f"{OFF_POLICY}._columns", "store.grouped", "False")


@mutant("dqn", caught_by="test_replay_updates_as_often_as_told")
def replay_updates_ten_times_as_often(patch: Patch) -> None:
    patch.replace(f"{OFF_POLICY}.update", "range(count)", "range(10 * count)")


@mutant("dqn", caught_by="test_replay_updates_as_often_as_told")
def replay_does_not_wait(patch: Patch) -> None:
    patch.replace(f"{OFF_POLICY}.ready", "step < h.buffer_init_steps", "False")


@mutant("dqn", caught_by="test_resumed_run_equals_one_that_was_never_stopped")
def replay_not_saved(patch: Patch) -> None:
    patch.replace("mlhooks.training.off_policy:OffPolicyTrainer.state_dict", "not whole_buffer", "True")


@mutant("dqn", caught_by="test_reward_signals_have_futures_of_their_own")
def replay_no_signal_ignores_ends(patch: Patch) -> None:
    @patch.around(TRANSITIONS)
    def transitions(original: Any, self: Any, rows: Any, powers: Any, ignores_ends: Any) -> Any:
        return original(self, rows, powers, np.zeros_like(ignores_ends))


@mutant("dqn", caught_by="test_reward_signals_have_futures_of_their_own")
def replay_signals_share_a_rule_for_ends(patch: Patch) -> None:
    @patch.around(TRANSITIONS)
    def transitions(original: Any, self: Any, rows: Any, powers: Any, ignores_ends: Any) -> Any:
        return original(self, rows, powers, np.full_like(ignores_ends, ignores_ends.any()))

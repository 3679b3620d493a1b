"""Rollouts with wrong rewards, values, advantages or returns."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

STORE = "mlhooks.training.store:ExperienceStore"
NEXT_VALUES = "mlhooks.training.advantages:next_values"
GAE = "mlhooks.training.advantages:generalized_advantages"
ON_POLICY = "mlhooks.training.on_policy:OnPolicyLearning"
OBSERVED = "self.policy.features([obs[: store.size] for obs in store.obs])"
HORIZON = 3


@mutant("a2c", caught_by="test_advantages_are_those_of_gae")
def reward_of_another_agent(patch: Patch) -> None:
    def rolled(original: Any, self: Any, slots: Any, steps: Any, *worker: Any) -> None:
        steps = copy.copy(steps)
        steps.reward = np.roll(steps.reward, 1)
        original(self, slots, steps, *worker)

    patch.around(f"{STORE}.open_rows")(rolled)
    patch.around(f"{STORE}.end_episodes")(rolled)


@mutant("ppo", caught_by="test_advantages_are_those_of_gae")
def gae_goes_on_past_the_horizon(patch: Patch) -> None:
    @patch.around(GAE)
    def generalized_advantages(original: Any, store: Any, *arguments: Any) -> Any:
        store = copy.copy(store)
        store.end = np.where(store.end == HORIZON, 0, store.end).astype(np.int8)
        return original(store, *arguments)


@mutant("ppo", caught_by="test_advantages_are_those_of_gae")
def gae_decay_without_gamma(patch: Patch) -> None:
    @patch.around(GAE)
    def generalized_advantages(
        original: Any, store: Any, rewards: Any, values: Any, following: Any, gamma: Any, lambd: float
    ) -> Any:
        return original(store, rewards, values, gamma * following, np.ones_like(gamma), lambd)


@mutant("ppo", caught_by="test_advantages_are_those_of_gae", plain=True)
def gae_off_by_one(patch: Patch) -> None:
    patch.replace(GAE, "(goes_on * discount).tolist()", "np.roll(goes_on * discount, 1).tolist()")


@mutant("ppo", caught_by="test_values_are_the_true_ones")
def gamma_off_by_one(patch: Patch) -> None:
    @patch.around(GAE)
    def generalized_advantages(
        original: Any, store: Any, rewards: Any, values: Any, following: Any, gamma: Any, lambd: float
    ) -> Any:
        return original(store, rewards, values, gamma * following, gamma, lambd)


@mutant("a2c", caught_by="test_values_are_the_true_ones")
def gamma_on_the_reward(patch: Patch) -> None:
    @patch.around(GAE)
    def generalized_advantages(
        original: Any, store: Any, rewards: Any, values: Any, following: Any, gamma: Any, lambd: float
    ) -> Any:
        return original(store, gamma * rewards, values, following, gamma, lambd)


@mutant("ppo", caught_by=("test_interruption_is_not_an_end", "test_advantages_are_those_of_gae"), plain=True)
def interruption_is_an_end(patch: Patch) -> None:
    patch.replace(NEXT_VALUES, "final_values[store.final[interrupted]]", "0.0")


@mutant("ppo", caught_by="test_interruption_is_not_an_end", plain=True)
def terminal_is_bootstrapped(patch: Patch) -> None:
    patch.replace(NEXT_VALUES, "store.end[:n] == End.INTERRUPTED", "store.final[:n] >= 0")


@mutant("a2c", caught_by="test_values_are_the_true_ones", plain=True)
def terminal_is_bootstrapped_in_values(patch: Patch) -> None:
    patch.replace(NEXT_VALUES, "store.end[:n] == End.INTERRUPTED", "store.final[:n] >= 0")


@mutant("ppo", caught_by="test_values_are_the_true_ones", plain=True)
def horizon_is_an_end(patch: Patch) -> None:
    reached = "padded[store.successor[:n]] * (store.end[:n] == End.NONE)[:, None]"
    patch.replace(NEXT_VALUES, "padded[store.successor[:n]]", reached)


@mutant("ppo", caught_by="test_advantages_are_those_of_gae")
def final_observation_of_another_episode(patch: Patch) -> None:
    patch.replace(f"{ON_POLICY}.estimate", "obs[: store.finals]", "np.roll(obs[: store.finals], 1, 0)")


@mutant("ppo", caught_by="test_log_probabilities_of_acting_equal_those_of_learning")
def observation_of_the_next_step(patch: Patch) -> None:
    rolled = "self.policy.features([np.roll(obs[: store.size], -1, 0) for obs in store.obs])"
    patch.replace(f"{ON_POLICY}.rollout", OBSERVED, rolled)


@mutant("a2c", caught_by="test_learns_one_step")
def observation_of_the_next_step_learns_nothing(patch: Patch) -> None:
    rolled = "self.policy.features([np.roll(obs[: store.size], -16, 0) for obs in store.obs])"
    patch.replace(f"{ON_POLICY}.rollout", OBSERVED, rolled)


@mutant("ppo", caught_by="test_learns_continuous_actions")
def reward_sign(patch: Patch) -> None:
    patch.replace(f"{ON_POLICY}.signal_rewards", "signal.rewards(batch)", "-signal.rewards(batch)")


@mutant("ppo", caught_by="test_advantages_are_those_of_gae")
def strength_ignored(patch: Patch) -> None:
    patch.replace(f"{ON_POLICY}.signal_rewards", "signal.rewards(batch)", "signal.evaluate(batch)")


@mutant("ppo", caught_by="test_advantages_are_those_of_gae")
def returns_without_values(patch: Patch) -> None:
    patch.replace(f"{ON_POLICY}.rollout", "parts['value estimate'] + parts['advantage']", "parts['advantage']")


@mutant("ppo", caught_by="test_learns_from_two_signals")
def first_signal_counts_alone(patch: Patch) -> None:
    first = "parts['advantage'][:, :1].copy()"
    patch.replace(f"{ON_POLICY}.rollout", "np.dot(parts['advantage'], self._mean_of_signals)", first)


@mutant("a2c", caught_by="test_learns_from_two_signals")
def signals_see_the_observations_of_others(patch: Patch) -> None:
    seen = "self.policy.raw_features([obs[rows] for obs in store.obs], features)"
    patch.replace(f"{ON_POLICY}._seen_by_signals", seen, f"{seen}.roll(1, 0)")


@mutant("ppo", caught_by="test_reward_signals_have_futures_of_their_own", plain=True)
def no_signal_ignores_ends(patch: Patch) -> None:
    ignoring = "np.where(ignores_ends, final_values[store.final[terminal]], 0.0)"
    patch.replace(NEXT_VALUES, ignoring, "0.0")


@mutant("a2c", caught_by="test_reward_signals_have_futures_of_their_own", plain=True)
def one_signal_that_ignores_ends_speaks_for_all(patch: Patch) -> None:
    ignoring = "np.where(ignores_ends, final_values[store.final[terminal]], 0.0)"
    patch.replace(NEXT_VALUES, ignoring, "final_values[store.final[terminal]]")


@mutant("ppo", caught_by="test_reward_signals_have_futures_of_their_own")
def next_observation_is_the_same_one(patch: Patch) -> None:
    after = "store.obs_after(np.arange(store.size)[rows])"
    patch.replace(f"{ON_POLICY}._seen_by_signals", after, "store.obs_at(np.arange(store.size)[rows])")


@mutant("ppo", caught_by="test_every_row_of_a_rollout_is_learned_from_equally_often")
def rows_learned_from_again(patch: Patch) -> None:
    batches = "batch.minibatches(size, self.rng)"
    patch.replace(f"{ON_POLICY}.update", batches, f"[*{batches}][1:]")


@mutant("ppo", caught_by="test_trains_on_normalized_observations")
def normalizer_never_updated(patch: Patch) -> None:
    patch.drop(f"{ON_POLICY}._normalize_by", "self.policy.inputs.update([obs[rows] for obs in store.obs])")
    patch.drop(f"{ON_POLICY}.update_normalizer", "self.policy.inputs.update([obs[new] for obs in store.obs])")

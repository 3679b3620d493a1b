"""Gymnasium's environments with wrong episodes, seeds or rewards."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

VECTOR = "builtin_plugins.gymnasium_vector:GymnasiumVector"
COPIES = "builtin_plugins.gymnasium_copies:GymnasiumCopies"
REWARD = "reward = np.empty(self.num_agents, dtype=np.float32)"
BEGIN = "for part, first in zip(obs, self._begin(ended), strict=True): part[rows] = first"
SPLIT = """
    (acting,) = (~ended).nonzero()
    self._split = rows, acting
    obs, reward = _taken(obs, acting), reward[acting]
"""


@mutant("gymnasium_env", caught_by="test_interrupted_are_those_that_a_step_limit_cuts")
def gymnasium_interruptions_inverted(patch: Patch) -> None:
    patch.replace(f"{VECTOR}._advance", "~terminated[rows]", "terminated[rows]")


@mutant("gymnasium_env", caught_by="test_rewards_belong_to_their_own_episode")
def gymnasium_rewards_one_tick_late(patch: Patch) -> None:
    reward = "reward = answers.rewards(rewards, self.num_agents)"
    late = "reward, self._late = getattr(self, '_late', np.zeros_like(reward)), reward.copy()"
    patch.replace(f"{VECTOR}._advance", reward, f"{reward}; {late}")


@mutant("gymnasium_env", caught_by="test_final_observations_are_not_those_of_the_next_episode")
def gymnasium_reset_step_is_a_decision(patch: Patch) -> None:
    patch.drop(f"{VECTOR}._begin_after", SPLIT)


@mutant("gymnasium_env", caught_by="test_interrupted_are_those_that_a_step_limit_cuts")
def copies_interruptions_inverted(patch: Patch) -> None:
    patch.replace(f"{COPIES}._advance", "np.array(interrupted)", "~np.array(interrupted)")


@mutant("gymnasium_env", caught_by="test_interrupted_are_those_that_a_step_limit_cuts")
def copies_truncation_is_terminal(patch: Patch) -> None:
    patch.replace(f"{COPIES}._advance", "np.array(interrupted)", "np.zeros(len(rows), np.bool_)")


@mutant("gymnasium_env", caught_by="test_reset_goes_on_with_the_random_numbers")
def copies_seeded_at_every_reset(patch: Patch) -> None:
    patch.drop(f"{COPIES}._restart", "self._seeds = [None] * self.num_agents")


@mutant("gymnasium_env", caught_by="test_ends_and_beginnings_do_not_contradict")
def copies_reward_of_the_end_twice(patch: Patch) -> None:
    patch.drop(f"{COPIES}._advance", "reward[rows] = 0.0")


@mutant("gymnasium_env", caught_by="test_steps_stay_as_they_were_shown")
def copies_rewards_overwritten(patch: Patch) -> None:
    shared = "reward = self._rewards = getattr(self, '_rewards', np.empty(self.num_agents, dtype=np.float32))"
    patch.replace(f"{COPIES}._advance", REWARD, shared)


@mutant("gymnasium_env", caught_by="test_final_observations_are_not_those_of_the_next_episode")
def copies_final_observations_of_the_next_episode(patch: Patch) -> None:
    patch.drop(f"{COPIES}._advance", BEGIN)
    patch.replace(f"{COPIES}._advance", "rows = np.array(ended)", f"rows = np.array(ended)\n{BEGIN}")


@mutant("gymnasium_env", caught_by="test_final_observations_are_not_those_of_the_next_episode")
def copies_begin_with_the_final_observation(patch: Patch) -> None:
    patch.drop(f"{COPIES}._advance", "part[rows] = first")

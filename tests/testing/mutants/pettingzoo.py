"""PettingZoo's environments with wrong episodes, seeds, ids or rewards."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

FLAGS = "builtin_plugins.pettingzoo_copy:Copy._flags"
COPIES = "builtin_plugins.pettingzoo_behaviors:PettingZooEnv"
PARALLEL = "builtin_plugins.pettingzoo_parallel:ParallelCopy"


@mutant("pettingzoo_env", caught_by="test_interrupted_are_those_that_a_step_limit_cuts")
def zoo_interruptions_inverted(patch: Patch) -> None:
    patch.replace(FLAGS, "cut and not ended", "ended")


@mutant("pettingzoo_env", caught_by="test_reset_goes_on_with_the_random_numbers")
def zoo_seeded_at_every_reset(patch: Patch) -> None:
    patch.replace(f"{COPIES}.reset", "[None] * len(self._copies) if self._begun else self._seeds", "self._seeds")


@mutant("pettingzoo_env", caught_by="test_agent_ids_are_unique")
def zoo_copies_share_ids(patch: Patch) -> None:
    patch.replace(f"{COPIES}._id", "self._ids[number]", "self._ids[0]")


@mutant("pettingzoo_env", caught_by="test_num_areas_are_copies")
def zoo_copies_are_one(patch: Patch) -> None:
    patch.replace("builtin_plugins.pettingzoo_own:adapt", "range(num_areas)", "range(1)")


@mutant("pettingzoo_env", caught_by="test_ends_and_beginnings_do_not_contradict")
def zoo_first_decision_has_the_last_reward(patch: Patch) -> None:
    wait = "return [self._wait(agent, observations, infos) for agent in self._alive]"
    patch.replace(f"{PARALLEL}.begin", wait, wait.replace("infos)", "infos, (1.0, 0.0))"))


@mutant("pettingzoo_env", caught_by="test_steps_stay_as_they_were_shown")
def zoo_rewards_overwritten(patch: Patch) -> None:
    patch.replace(
        f"{COPIES}._decisions",
        "np.array([wait.reward for _, wait in waiting], dtype=np.float32)",
        "self.__dict__.setdefault('_kept', np.zeros(999, np.float32))[: len(waiting)].__iadd__(1)",
    )

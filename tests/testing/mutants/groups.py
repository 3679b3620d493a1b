"""Trainers of groups that mix up members, ends and rewards."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

GROUPS = "mlhooks.training.groups"
LEARNING = "mlhooks.training.group_learning:GroupLearning"
CRITIC = "mlhooks.nn.groups:GroupCritic"
ATTENTION = "mlhooks.nn.groups:GroupAttention.of_groups"


@mutant("poca", caught_by="test_cells_are_the_members_of_that_time", plain=True)
def mates_of_another_worker(patch: Patch) -> None:
    numbers = "groups + (worker << WORKER_BITS)"
    patch.replace("mlhooks.training.store:ExperienceStore._open", numbers, "groups")


@mutant("poca", caught_by="test_cells_are_the_members_of_that_time")
def dead_mates_stay_members(patch: Patch) -> None:
    patch.drop(f"{GROUPS}:_until", "until[ended] = np.maximum(store.end_tick[ended], tick[ended] + 1)")


@mutant("poca", caught_by="test_cells_are_the_members_of_that_time")
def only_who_decides_is_a_member(patch: Patch) -> None:
    patch.replace(f"{GROUPS}:_Members.at", "self._until[rows] > tick[:, None]", "self._tick[rows] == tick[:, None]")


@mutant("poca", caught_by="test_baselines_do_not_depend_on_ones_own_action")
def baseline_sees_its_own_action(patch: Patch) -> None:
    patch.replace(ATTENTION, "torch.cat([1 - sees, sees], 1)", "torch.cat([torch.ones_like(sees), 0 * sees], 1)")


@mutant("poca", caught_by="test_baselines_do_not_depend_on_ones_own_action")
def baseline_sees_nobodys_action(patch: Patch) -> None:
    patch.replace(f"{CRITIC}.encode", "functional.embedding(rows, acting)", "functional.embedding(rows, seen)")


@mutant("poca", caught_by="test_values_depend_on_members_alone")
def missing_members_are_not_masked(patch: Patch) -> None:
    patch.replace(f"{CRITIC}.encode", "(~present).to(seen.dtype)", "(0 * present).to(seen.dtype)")


@mutant("poca", caught_by="test_values_follow_ends_of_members")
def group_reward_counts_twice(patch: Patch) -> None:
    twice = "batch.rewards + 2.0 * batch.group_rewards"
    patch.replace("builtin_plugins.extrinsic:ExtrinsicReward.evaluate", "batch.rewards + batch.group_rewards", twice)


@mutant("poca", caught_by="test_values_follow_ends_of_members")
def rewards_of_mates_do_not_count(patch: Patch) -> None:
    patch.replace("builtin_plugins.extrinsic:ExtrinsicReward.evaluate", "rewards + batch.groupmate_rewards", "rewards")


@mutant("poca", caught_by=("test_values_follow_ends_of_members", "test_learns_what_pays_after_its_end"))
def nothing_follows_the_end_of_a_member(patch: Patch) -> None:
    ended = "(store.end[rows] == End.TERMINAL) & store.group_ended[rows]"
    patch.replace(f"{GROUPS}:is_whole_end", ended, "store.end[rows] == End.TERMINAL")


@mutant("poca", caught_by="test_values_follow_ends_of_members")
def next_episode_of_mates_follows_an_end(patch: Patch) -> None:
    patch.replace(f"{GROUPS}:after_ends", "~(whole & begins)", "~(whole & begins & False)")


@mutant("poca", caught_by="test_advantages_are_returns_less_baselines")
def advantages_without_baselines(patch: Patch) -> None:
    patch.replace(f"{LEARNING}.rollout", "batch.returns - column", "batch.returns - batch.values")

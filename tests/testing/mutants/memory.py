"""Trainers with a wrong memory."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

STORE = "mlhooks.training.store:ExperienceStore"
MEMORY = "mlhooks.nn.memory:Memory.forward"
OPENED = "np.where(self.open_row[slots, None] >= 0, self.slot_memory[slots], np.float32(0.0))"


@mutant("ppo", caught_by="test_learning_unrolls_what_acting_did")
def initial_memory_of_the_wrong_row(patch: Patch) -> None:
    patch.replace(MEMORY, "memory.view(-1, width, self.size)[:, 0]", "memory.view(-1, width, self.size)[:, -1]")


@mutant("ppo", caught_by="test_memory_is_that_of_the_episode")
def memory_kept_over_the_end_of_an_episode(patch: Patch) -> None:
    patch.replace(f"{STORE}._recall", OPENED, "self.slot_memory[slots]")


@mutant("a2c", caught_by="test_memory_is_that_of_the_episode")
def memory_lost_at_the_horizon(patch: Patch) -> None:
    cut = f"{OPENED} * (self.slot_length[slots, None] < self.time_horizon)"
    patch.replace(f"{STORE}._recall", OPENED, cut)


@mutant("ppo", caught_by="test_memory_is_that_of_the_episode")
def memory_is_forgotten_at_once(patch: Patch) -> None:
    patch.replace(f"{STORE}._recall", OPENED, "np.float32(0.0)")


@mutant("ppo", caught_by="test_learning_unrolls_what_acting_did")
def memory_of_another_agent_in_the_rollout(patch: Patch) -> None:
    patch.replace(
        "mlhooks.training.on_policy:OnPolicyLearning._memories",
        "self.tensor(store.memory[rows])",
        "self.tensor(np.roll(store.memory[rows], 1, 0))",
    )


@mutant("a2c", caught_by="test_learning_unrolls_what_acting_did")
def critic_begins_every_rollout_without_a_memory(patch: Patch) -> None:
    patch.replace(
        "mlhooks.training.on_policy:OnPolicyLearning._memories",
        "self.tensor(store.critic_memory[rows])",
        "self.tensor(0.0 * store.critic_memory[rows])",
    )


@mutant("ppo", caught_by="test_learning_unrolls_what_acting_did")
def sequences_run_over_the_ends_of_trajectories(patch: Patch) -> None:
    patch.replace(
        "mlhooks.training.recurrent:sequences_of", "store.trajectory[rows]", "np.zeros(len(store.slot[rows]), np.int64)"
    )


@mutant("dqn", caught_by="test_learns_what_was_seen_before")
def dqn_learns_without_the_memory(patch: Patch) -> None:
    patch.replace(
        "builtin_plugins.dqn:DQNOptimizer.loss", "(batch.memory, batch.width, batch.lengths)", "(None, 1, None)"
    )


@mutant("sac", caught_by="test_learns_what_was_seen_before")
def sac_policy_learns_without_the_memory(patch: Patch) -> None:
    decide = "self.policy.decide(features, batch.mask, noise[0], {})"
    with_memory, without = decide.format("batch.memory, width"), decide.format("None, 1")
    patch.replace("builtin_plugins.sac:SACOptimizer.loss", with_memory, without)

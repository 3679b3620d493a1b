"""Trainer plugins that answer for the trainers of others, or do not let others answer first."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

PPO = "builtin_plugins.ppo"


@mutant("ppo", caught_by="test_answers_for_its_own_trainers_only")
def ppo_policy_for_strangers(patch: Patch) -> None:
    patch.replace(f"{PPO}:create_policy", "isinstance(trainer, PPOTrainer)", "True")


@mutant("ppo", caught_by="test_answers_for_its_own_trainers_only")
def ppo_optimizer_for_strangers(patch: Patch) -> None:
    patch.replace(f"{PPO}:create_optimizer", "isinstance(trainer, PPOTrainer)", "True")


@mutant("ppo", caught_by="test_answers_for_its_own_trainers_only")
def ppo_summary_stats_of_strangers(patch: Patch) -> None:
    patch.replace(f"{PPO}:summary_stats", "isinstance(optimizer, PPOOptimizer)", "True")


@mutant("examples/mlhooks-trainer-reinforce", caught_by="test_answers_for_its_own_trainers_only")
def reinforce_policy_for_strangers(patch: Patch) -> None:
    patch.replace("mlhooks_trainer_reinforce:create_policy", "isinstance(trainer, ReinforceTrainer)", "True")


@mutant("ppo", caught_by="test_lets_others_answer_first")
def ppo_does_not_let_others_answer(patch: Patch) -> None:
    patch.replace(f"{PPO}:create_optimizer", "hookimpl(trylast=True)", "hookimpl")

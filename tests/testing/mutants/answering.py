"""Trainer plugins that answer for the trainers of others, or do not let others answer first."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

PPO = "builtin_plugins.ppo"
POLICY = """
    {mark}
    def create_policy(trainer, behavior_spec):
        if {condition}:
            return ActorPolicy(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)
"""
OPTIMIZER = """
    {mark}
    def create_optimizer(trainer, policy):
        return PPOOptimizer(policy, trainer.settings) if {condition} else None
"""
LAST, FIRST = "@hookimpl(trylast=True)", "@hookimpl"


@mutant("ppo", caught_by="test_answers_for_its_own_trainers_only")
def ppo_policy_for_strangers(patch: Patch) -> None:
    patch.insert(PPO, POLICY.format(mark=LAST, condition="True"))


@mutant("ppo", caught_by="test_answers_for_its_own_trainers_only")
def ppo_optimizer_for_strangers(patch: Patch) -> None:
    patch.insert(PPO, OPTIMIZER.format(mark=LAST, condition="True"))


@mutant("ppo", caught_by="test_answers_for_its_own_trainers_only")
def ppo_summary_stats_of_strangers(patch: Patch) -> None:
    patch.replace(f"{PPO}:summary_stats", "isinstance(optimizer, PPOOptimizer)", "True")


@mutant("examples/mlhooks-trainer-reinforce", caught_by="test_answers_for_its_own_trainers_only")
def reinforce_policy_for_strangers(patch: Patch) -> None:
    patch.insert("mlhooks_trainer_reinforce", POLICY.format(mark=LAST, condition="True"))


@mutant("ppo", caught_by="test_lets_others_answer_first")
def ppo_does_not_let_others_answer(patch: Patch) -> None:
    patch.insert(PPO, OPTIMIZER.format(mark=FIRST, condition="isinstance(trainer, PPOTrainer)"))

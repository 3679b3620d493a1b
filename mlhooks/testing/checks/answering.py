"""Checks of the hooks of a plugin with trainer types: whom they answer for, and who may answer first."""

from __future__ import annotations

import pytest

from mlhooks import hookimpl
from mlhooks.plugins import PluginManager
from mlhooks.testing.assertions import demand, works
from mlhooks.testing.managers import WRITERS, make_manager
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import OneStep
from mlhooks.testing.trainer_loop import make_trainer
from mlhooks.testing.trainer_trial import Trial
from mlhooks.testing.trainer_types import trainer_types
from mlhooks.training.optimizer import Optimizer
from mlhooks.training.policy import Policy
from mlhooks.training.trainer import Trainer

OTHERS = ("ppo", "a2c", "dqn")


@pytest.mark.parametrize("other", OTHERS)
def test_answers_for_its_own_trainers_only(trial: Trial, other: str) -> None:
    """For a trainer of another type, create_policy and create_optimizer give None, and summary_stats does not fail."""
    manager = make_manager(blocked={*WRITERS, trial.target.name})
    kind = manager.collect_mapping("get_trainer_types").get(other)
    own = tuple(trainer_types(trial.target).values())
    if kind is None or issubclass(kind, own) or any(issubclass(each, kind) for each in own):
        pytest.skip(f"{other} is its own trainer type, or one that it builds upon")
    stranger = make_trainer(manager, OneStep.spec, {"trainer_type": other})
    alone = _alone(trial)
    made = {
        "create_policy": alone.hook.create_policy(trainer=stranger, behavior_spec=OneStep.spec),
        "create_optimizer": alone.hook.create_optimizer(trainer=stranger, policy=stranger.policy),
    }
    answered = [hook for hook, answer in made.items() if answer is not None]
    demand(
        not answered,
        f"{' and '.join(answered)} answered for a trainer of type {other!r}: return None unless the trainer is one of "
        "yours, such as by isinstance().",
    )
    with works(f"summary_stats was called for a trainer of type {other!r}"):
        alone.collect_mapping("summary_stats", trainer=stranger, step=0)


def test_lets_others_answer_first(trial: Trial) -> None:
    """A plugin that was registered earlier can put its own policy and optimizer in place of the trainer's."""
    others = make_manager(blocked={*WRITERS, trial.target.name}).collect_mapping("get_trainer_types").values()
    if any(issubclass(trial.kind, other) for other in others):
        pytest.skip("it builds upon another trainer type, whose plugin it must answer before")
    trainer = trial.trainer(make_behavior_spec(**trial.any_actions))
    answers = _alone(trial, _Other())
    found = {
        "create_policy": answers.hook.create_policy(trainer=trainer, behavior_spec=trainer.behavior_spec),
        "create_optimizer": answers.hook.create_optimizer(trainer=trainer, policy=trainer.policy),
    }
    others_answers = {"create_policy": trainer.policy, "create_optimizer": trainer.optimizer}
    eager = [hook for hook, answer in found.items() if answer is not others_answers[hook]]
    demand(
        not eager,
        f"{' and '.join(eager)} answered before another plugin's: name what it makes as policy_type or optimizer_type "
        "of the trainer class instead, or mark it @hookimpl(trylast=True), so that others can change the policy or the "
        "optimizer of your trainers.",
    )


class _Other:
    """Answers for every trainer, with what that has already."""

    @hookimpl
    def create_policy(self, trainer: Trainer) -> Policy:
        return trainer.policy

    @hookimpl
    def create_optimizer(self, trainer: Trainer) -> Optimizer:
        return trainer.optimizer


def _alone(trial: Trial, *plugins: object) -> PluginManager:
    """Return a manager with the target, after `plugins`, and nothing else."""
    manager = PluginManager(strict=True)
    for plugin in plugins:
        manager.register(plugin)
    manager.register(trial.target.plugin, trial.target.name)
    return manager

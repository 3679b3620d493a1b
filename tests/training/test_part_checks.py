"""Mistakes in what a policy, a reward signal or a trainer of a plugin gives are said by its name and line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builtin_plugins.extrinsic import ExtrinsicReward
from builtin_plugins.ppo import PPOOptimizer, PPOTrainer
from mlhooks import hookimpl
from mlhooks.errors import PluginError
from mlhooks.nn.heads import SampledActions
from mlhooks.settings import RewardSignalSettings, TrainerSettings
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.training.batch import Batch
from mlhooks.training.learning import LearningHalf
from mlhooks.training.optimizer import Optimizer
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.run import Run
from tests.scripted import Env, config, train


def refused(folder: Path, plugin: object, function: Callable[..., Any], **settings: Any) -> str:
    """Return what is said of a run with a plugin; it must name the function and its line."""
    with pytest.raises(PluginError) as caught:
        train(config("Corridor", "test:x", max_steps=200, **settings), folder, Env(), plugin)
    place = f"({__file__}:{inspect.getsourcelines(function)[1]})".replace(f"{Path.cwd()}/", "")
    start, _, problem = str(caught.value).partition("; ")
    assert start.startswith(f"`{function.__qualname__.rpartition('<locals>.')[2]}` {place} must return")
    return problem


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda actions: None, "it returned None."),
        (lambda actions: actions.discrete, "it returned a ndarray."),
        (lambda actions: actions._replace(discrete=[0] * 4), "its discrete is a list, and must be a numpy array."),
        (
            lambda actions: actions._replace(discrete=actions.discrete[:1]),
            "its discrete has the shape (1, 1) and the type int64, and must be (4, 1), whole numbers.",
        ),
        (
            lambda actions: actions._replace(discrete=actions.discrete.astype(np.float32)),
            "its discrete has the shape (4, 1) and the type float32, and must be (4, 1), whole numbers.",
        ),
        (lambda actions: actions._replace(discrete=actions.discrete + 2), "choices that the branches [2] do not have."),
        (lambda actions: actions._replace(log_prob=actions.log_prob[:, 0]), "its log_prob has the shape (4,)"),
    ],
)
def test_wrong_actions_are_named(tmp_path: Path, spoil: Callable[[SampledActions], Any], problem: str) -> None:
    class Wrong(ActorPolicy):
        def act(self, *arguments: Any) -> Any:
            return spoil(super().act(*arguments))

    class Offer:
        @hookimpl
        def create_policy(self, trainer: Any, behavior_spec: Any) -> Any:
            return Wrong(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)

    assert problem in refused(tmp_path, Offer(), Wrong.act)


def test_actions_that_become_wrong_later_are_named_too(tmp_path: Path) -> None:
    class Tires(ActorPolicy):
        calls = 0

        def act(self, *arguments: Any) -> Any:
            self.calls += 1
            return super().act(*arguments) if self.calls < 20 else None

    class Offer:
        @hookimpl
        def create_policy(self, trainer: Any, behavior_spec: Any) -> Any:
            return Tires(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)

    assert refused(tmp_path, Offer(), Tires.act) == "it returned None."


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda rewards: None, "it returned None."),
        (lambda rewards: rewards.tolist(), "it returned a list."),
        (lambda rewards: rewards[:, None], "it returned a Tensor of shape (100, 1)."),
        (lambda rewards: rewards.mean(), "it returned a Tensor of shape ()."),
    ],
)
def test_wrong_rewards_are_named(tmp_path: Path, spoil: Callable[[torch.Tensor], Any], problem: str) -> None:
    class Wrong(ExtrinsicReward):
        def evaluate(self, batch: Any) -> Any:
            return spoil(super().evaluate(batch))

    class Offer:
        @hookimpl
        def get_reward_signals(self) -> Any:
            return {"wrong": (Wrong, RewardSignalSettings)}

    assert refused(tmp_path, Offer(), Wrong.evaluate, reward_signals={"wrong": {}}) == problem


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda values: values[:, 0], "it has the shape (100,) and the type torch.float32."),
        (lambda values: values.long(), "it has the shape (100, 1) and the type torch.int64."),
        (lambda values: values.numpy(), "it returned a ndarray."),
        (lambda values: None, "it returned None."),
    ],
)
def test_wrong_value_estimates_are_named(tmp_path: Path, spoil: Callable[[torch.Tensor], Any], problem: str) -> None:
    class Wrong(PPOOptimizer):
        def estimate(self, features: Any) -> Any:
            return spoil(super().estimate(features[:100]))

    class Offer:
        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return Wrong(policy, trainer.settings)

    assert refused(tmp_path, Offer(), Wrong.estimate) == problem


def test_finals_are_estimated_as_rows_are_and_gradients_are_left(tmp_path: Path) -> None:
    class Short(PPOOptimizer):
        def estimate(self, features: Any) -> Any:
            values = self.critic(features)  # This has gradients.
            return values if len(features) >= 100 else values[:1]

    class Goes(ExtrinsicReward):
        ignores_ends = True  # So that the value of final observations follows.

    class Offer:
        @hookimpl
        def get_reward_signals(self) -> Any:
            return {"goes": (Goes, RewardSignalSettings)}

        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return Short(policy, trainer.settings)

    assert "it has the shape (1, 1) and" in refused(tmp_path, Offer(), Short.estimate, reward_signals={"goes": {}})


@pytest.mark.parametrize(
    ("spoil", "shape"),
    [(lambda values: values.mean(0)[:, None], "(1, 1)"), (lambda values: values[:, 0], "(20,)")],
)
def test_wrong_values_of_a_loss_are_named(tmp_path: Path, spoil: Callable[[torch.Tensor], Any], shape: str) -> None:
    class Wrong(PPOOptimizer):
        def values(self, batch: Batch) -> Any:
            return spoil(super().values(batch))

    class Offer:
        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return Wrong(policy, trainer.settings)

    assert refused(tmp_path, Offer(), Wrong.values) == f"it has the shape {shape} and the type torch.float32."


def test_state_that_is_none_is_named_when_it_is_to_be_saved(tmp_path: Path) -> None:
    class Wrong(PPOOptimizer):
        def state_dict(self) -> Any:
            super().state_dict()

    class Offer:
        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return Wrong(policy, trainer.settings)

    assert refused(tmp_path, Offer(), Wrong.state_dict) == "it returned None."


@pytest.mark.parametrize(
    ("losses", "problem"),
    [
        ("fine", "it returned a str."),
        ([0.5], "it returned a list."),
        ({"Losses/Policy Loss": "low"}, "its 'Losses/Policy Loss' is a str."),
        ({"Losses/Policy Loss": torch.zeros(())}, "its 'Losses/Policy Loss' is a Tensor."),
        ({1: 0.5}, "its 1 is a float."),
    ],
)
def test_wrong_losses_of_an_update_are_named(tmp_path: Path, losses: Any, problem: str) -> None:
    class Wrong(PPOTrainer):
        def update(self) -> Any:
            super().update()
            return losses

    class Offer:
        @hookimpl
        def get_trainer_types(self) -> Any:
            return {"wrong": Wrong}

    assert refused(tmp_path, Offer(), Wrong.update, trainer_type="wrong") == problem


def test_policy_of_its_own_and_optimizer_add_to_the_modules_of_their_bases(tmp_path: Path) -> None:
    class Own(Policy):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.network = torch.nn.Linear(self.layout.size, 1)

        def act(self, *arguments: Any) -> Any:
            raise NotImplementedError

        def modules(self) -> dict[str, torch.nn.Module]:
            return {**super().modules(), "network": self.network}

    class Bare(Optimizer):
        def update(self, batch: Any) -> Any:
            raise NotImplementedError

        def modules(self) -> dict[str, torch.nn.Module]:
            return {**super().modules(), "target": torch.nn.Linear(1, 1)}

    settings = TrainerSettings(trainer_type="ppo")
    policy = Own("Corridor", make_behavior_spec((3,), branches=(2,)), settings, torch.device("cpu"))
    assert policy.behavior_name == "Corridor"
    assert policy.modules() == {"inputs": policy.inputs, "network": policy.network}
    assert list(Bare(policy, settings).modules()) == ["target"]


WRONG_REPORTS = pytest.mark.parametrize(
    ("reported", "problem"),
    [
        (None, "it returned None."),
        ({"Losses/X": 1.0}, "its 'Losses/X' is a float."),
        ({"Losses/X": torch.zeros(2)}, "its 'Losses/X' has the shape (2,)."),
        ({3: torch.zeros(())}, "it has the key 3, an int."),
        (
            {"Environment/Cumulative Reward": torch.zeros(())},
            "the run itself reports 'Environment/Cumulative Reward', so that it needs another name.",
        ),
    ],
)


@WRONG_REPORTS
@pytest.mark.parametrize("trainer_type", ["ppo", "dqn"])
def test_wrong_reports_of_reward_signals_are_named(
    tmp_path: Path, trainer_type: str, reported: Any, problem: str
) -> None:
    class Wrong(ExtrinsicReward):
        def update(self, batch: Any) -> Any:
            return reported

    class Offer:
        @hookimpl
        def get_reward_signals(self) -> Any:
            return {"wrong": (Wrong, RewardSignalSettings)}

    settings = {"trainer_type": trainer_type, "reward_signals": {"wrong": {}}}
    assert refused(tmp_path, Offer(), Wrong.update, **settings) == problem


@WRONG_REPORTS
def test_wrong_reports_of_optimizers_are_named(tmp_path: Path, reported: Any, problem: str) -> None:
    class Wrong(PPOOptimizer):
        def update(self, batch: Any) -> Any:
            super().update(batch)
            return reported

    class Offer:
        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return Wrong(policy, trainer.settings)

    assert refused(tmp_path, Offer(), Wrong.update) == problem


@pytest.mark.parametrize(
    ("wrong", "given"), [("OnPolicyLearning", "a str"), (None, "None"), (LearningHalf, "`LearningHalf`")]
)
def test_wrong_learning_types_are_named(tmp_path: Path, wrong: Any, given: str) -> None:
    class Wrong(PPOTrainer):
        learning_type = wrong

    class Offer:
        @hookimpl
        def get_trainer_types(self) -> Any:
            return {"wrong": Wrong}

    with pytest.raises(
        PluginError, match=rf"`Wrong\.learning_type` \(.*test_part_checks\.py:\d+\) must .*; it is {given}\."
    ):
        train(config("Corridor", "test:x", max_steps=200, trainer_type="wrong"), tmp_path, Env(), Offer())


def test_rewards_of_a_network_have_no_graph() -> None:
    class Judge(ExtrinsicReward):
        network = torch.nn.Linear(1, 1)

        def evaluate(self, batch: Any) -> Any:
            return self.network(batch.features).squeeze(1)

    rows = Batch(features=torch.ones(2, 1), continuous=torch.zeros(2, 0), discrete=torch.zeros(2, 1, dtype=torch.long))
    judge = Judge("judge", make_behavior_spec((1,), branches=(2,)), RewardSignalSettings(strength=2.0))
    found = judge.rewards(rows)
    assert not found.requires_grad
    torch.testing.assert_close(found, 2.0 * judge.evaluate(rows).detach())


def test_run_with_right_parts_goes_on(tmp_path: Path) -> None:
    run: Run = train(config("Corridor", "test:x", max_steps=200), tmp_path, Env())
    assert run.outcome.status == "finished"

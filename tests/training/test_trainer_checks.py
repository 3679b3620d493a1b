"""Mistakes in the trainer of a plugin, and in its learning half, are said by its name and line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from builtin_plugins.ppo import PPOOptimizer, PPOTrainer
from mlhooks import hookimpl
from mlhooks.cli.unforeseen import explained
from mlhooks.errors import PluginError
from mlhooks.places import classes_with
from mlhooks.training.learning_checks import SETTLED, ParameterChanges
from mlhooks.training.on_policy import OnPolicyLearning
from mlhooks.training.policy import ActorPolicy
from tests.scripted import Env, config, train


def run(folder: Path, members: dict[str, Any], learning: dict[str, Any] | None = None) -> Any:
    kind = type("Mine", (PPOTrainer,), {"learning_type": type("Half", (OnPolicyLearning,), learning or {}), **members})

    class Offer:
        @hookimpl
        def get_trainer_types(self) -> Any:
            return {"mine": kind}

    return train(config("Corridor", "test:x", max_steps=200, trainer_type="mine"), folder, Env(), Offer())


def make_nothing(self: Any, **arguments: Any) -> None:
    self.arguments = arguments


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        (
            {"store_rows": classmethod(lambda cls, settings: None)},
            r"rows, 1 at least; it returned None\.",
        ),
        (
            {"store_rows": classmethod(lambda cls, settings: 0)},
            r"rows, 1 at least; it returned 0, an int\.",
        ),
        ({"__init__": make_nothing}, r"must call super\(\)\.__init__\(\*\*arguments\), with all it gets\."),
        ({"modules": lambda self: {}}, r"lacks policy\.actor, policy\.inputs, optimizer\.critic: add yours"),
    ],
)
def test_wrong_trainers_are_named(tmp_path: Path, members: dict[str, Any], problem: str) -> None:
    with pytest.raises(PluginError, match=problem) as caught:
        run(tmp_path, members)
    assert str(caught.value).startswith("`Mine.")
    assert "test_trainer_checks.py:" in str(caught.value)


def test_modules_may_need_what_a_class_sets_after_its_base(tmp_path: Path) -> None:
    def make_more(self: Any, **arguments: Any) -> None:
        PPOTrainer.__init__(self, **arguments)
        self.more = nn.Linear(1, 1)

    def modules(self: Any) -> dict[str, nn.Module]:
        return {**PPOTrainer.modules(self), "more": self.more}

    trainer = run(tmp_path, {"__init__": make_more, "modules": modules}).trainers["Corridor"]
    assert trainer.updates
    assert "more" in trainer.state_dict()["modules"]


def test_policy_without_parameters_is_not_called_frozen(caplog: pytest.LogCaptureFixture) -> None:
    class Table:
        behavior_name = "Corridor"

        def modules(self) -> dict[str, nn.Module]:
            return {}

    parts: Any = SimpleNamespace(policy=Table(), optimizer=Table(), learning=None, reward_signals=[])
    changes = ParameterChanges(parts)
    assert not changes.done
    changes.count(SETTLED)
    assert changes.done
    assert not caplog.records


def test_networks_of_mlhooks_are_not_watched_for_a_reward_signal_of_a_plugin() -> None:
    class Signal:
        pass

    own: Any = SimpleNamespace(modules=lambda: {"actor": nn.Linear(1, 1)}, behavior_name="Corridor")
    parts: Any = SimpleNamespace(policy=own, optimizer=own, learning=None, reward_signals=[Signal()])
    assert ParameterChanges(parts).done


def test_ready_without_any_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"`Half\.ready` \(.*\) said that there is enough .*; no row is complete\."):
        run(tmp_path, {}, {"ready": lambda self, store, step: True})


def test_trainer_that_never_learned_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, {}, {"ready": lambda self, store, step: False})
    assert "no update was counted in 200 steps: `Half.ready` (" in caplog.text


def test_optimizer_of_another_policy_is_refused(tmp_path: Path) -> None:
    class Offer:
        @hookimpl
        def create_optimizer(self, trainer: Any) -> Any:
            other = ActorPolicy(trainer.behavior_name, trainer.behavior_spec, trainer.settings, trainer.device)
            return PPOOptimizer(other, trainer.settings)

    with pytest.raises(PluginError, match="PPOOptimizer was made with another policy than the one that acts"):
        train(config("Corridor", "test:x"), tmp_path, Env(), Offer())


def advantages_of_one_signal(self: Any, *arguments: Any) -> Any:
    return OnPolicyLearning.advantages(self, *arguments)[:, 0]


def test_error_of_mlhooks_that_a_plugin_may_have_caused_names_its_classes(tmp_path: Path) -> None:
    with pytest.raises(IndexError) as caught:
        run(tmp_path, {}, {"advantages": advantages_of_one_signal})
    said = classes_with(caught.value)
    assert said.startswith("Half")
    caught.value.__traceback__ = None  # Of a command, no line of others' code would be in it.
    assert f"A plugin takes part in it by {said}: look first" in explained(caught.value)

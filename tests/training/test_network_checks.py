"""Mistakes in a plugin's networks are told before the first decision, and what is not learned after some updates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from builtin_plugins.dqn import DQNOptimizer
from builtin_plugins.ppo import PPOOptimizer, PPOSettings
from mlhooks import hookimpl
from mlhooks.errors import PluginError
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.heads import ActionHeads, ActionParameters
from mlhooks.settings import TrainerSettings
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.training.network_checks import check_network
from mlhooks.training.policy import ActorPolicy
from tests.scripted import Corridor, Env, config, train

SMALL = {"batch_size": 10, "buffer_size": 40}
Compute = Callable[[Any, Tensor], Any]


class Net(nn.Module):
    """A network of a plugin, whose outputs a test spoils."""

    spoil: Compute = staticmethod(lambda network, logits: ActionParameters(None, None, logits))

    def __init__(self, inputs: int, action_spec: Any) -> None:
        super().__init__()
        self.body = nn.Linear(inputs, 8)
        self.heads = ActionHeads(8, action_spec, "torch")

    def forward(self, features: Tensor) -> Any:
        logits = self.heads(torch.tanh(self.body(features))).logits
        return type(self).spoil(self, logits)


class Offers:
    """Puts a network, an optimizer or a policy of a test into PPO."""

    def __init__(self, network: type[Net] | None = None, optimizer: Any = None, policy: Any = ActorPolicy) -> None:
        self.network, self.optimizer, self.policy = network, optimizer, policy

    @hookimpl
    def create_policy(self, trainer: Any, behavior_spec: Any) -> Any:
        actor = None
        if self.network is not None:
            actor = self.network(FeatureLayout("Corridor", behavior_spec).size, behavior_spec.action_spec)
        return self.policy(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device, actor)

    @hookimpl
    def create_optimizer(self, trainer: Any, policy: Any) -> Any:
        return None if self.optimizer is None else self.optimizer(policy, trainer.settings)


class Apart(Corridor):
    """Agents that see other things from the beginning on."""

    def _obs(self) -> list[np.ndarray]:
        return [obs + np.arange(len(obs), dtype=np.float32)[:, None] for obs in super()._obs()]


def spoiled(spoil: Compute) -> type[Net]:
    return type("Mine", (Net,), {"spoil": staticmethod(spoil)})


def run(folder: Path, plugin: object, steps: int = 200, **settings: Any) -> Any:
    settings = config("Corridor", "test:x", max_steps=steps, hyperparameters=SMALL, **settings)
    return train(settings, folder, Env(Apart), plugin)


def outputs(logits: Any) -> ActionParameters:
    return ActionParameters(None, None, logits)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda net, x: None, "it returned None, and must return ActionParameters."),
        (lambda net, x: x, "it returned a Tensor, and must return ActionParameters."),
        (lambda net, x: outputs(x[:1]), "its logits has the shape (1, 2), and must have (4, 2)."),
        (lambda net, x: outputs(x[:, :1]), "its logits has the shape (4, 1), and must have (4, 2)."),
        (lambda net, x: outputs(x[:4]), "its logits has the shape (4, 2), and must have (8, 2)."),
        (lambda net, x: outputs(x.detach().numpy()), "its logits is a ndarray, and must be a Tensor of floats."),
        (lambda net, x: outputs(x.long()), "its logits is a Tensor of torch.int64, and must be a Tensor of floats."),
        (lambda net, x: outputs(x * torch.nan), "its logits holds NaN."),
        (
            lambda net, x: ActionParameters(x, None, x),
            "its mean is a Tensor, and this behavior has no such actions: None",
        ),
    ],
)
def test_wrong_outputs_are_named(tmp_path: Path, spoil: Compute, problem: str) -> None:
    with pytest.raises(PluginError) as caught:
        run(tmp_path, Offers(spoiled(spoil)))
    assert str(caught.value).startswith("`Mine.forward` (")
    assert problem in str(caught.value)


def test_network_that_fails_or_writes_to_its_features_is_named(tmp_path: Path) -> None:
    class Fails(Net):
        def forward(self, features: Tensor) -> Any:
            return self.heads(features)

    class Writes(Net):
        def forward(self, features: Tensor) -> Any:
            return super().forward(features.mul_(0.5))

    class Forgets(Net):
        memory_size = 5

    with pytest.raises(PluginError, match=r"Fails\.forward` \(.*\) fails for features \[4, 3\]: RuntimeError: mat1"):
        run(tmp_path / "a", Offers(Fails))
    with pytest.raises(PluginError, match=r"Writes\.forward` \(.*\) writes to its features"):
        run(tmp_path / "b", Offers(Writes))
    with pytest.raises(PluginError, match=r"Forgets says by memory_size = 5 .* no method `step\(features, memory\)`"):
        run(tmp_path / "c", Offers(Forgets))


def kept(net: Any, logits: Tensor) -> ActionParameters:
    net.calls = getattr(net, "calls", 0) + 1
    return outputs(logits * net.calls)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda net, x: outputs(nn.functional.dropout(x, 0.5)), "when it is called again with the same features"),
        (kept, "when it is called again with the same features"),
        (lambda net, x: outputs(x - x.mean(0)), "when its batch has more rows"),
        (lambda net, x: outputs(x * (1.0 + torch.is_grad_enabled())), "with gradients than without"),
    ],
)
def test_other_outputs_than_those_of_acting_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Compute, told: str
) -> None:
    class Own(PPOOptimizer):
        array_arithmetic = False

    run(tmp_path, Offers(spoiled(spoil), Own), 60, network_settings={"normalize": False})
    found = [record.getMessage() for record in caplog.records if "gives other outputs" in record.getMessage()]
    assert len(found) == 1
    assert "`Mine.forward` (" in found[0]
    assert told in found[0]


@pytest.mark.parametrize("shape", [(), (1,), (2,), (1, 2)])
def test_deviation_that_is_one_for_all_rows_is_no_other_output(shape: tuple[int, ...], caplog: Any) -> None:
    class Wide(nn.Module):
        def forward(self, features: Tensor) -> ActionParameters:
            return ActionParameters(features[:, :2], torch.arange(2.0)[: int(np.prod(shape))].reshape(shape), None)

    settings = TrainerSettings(trainer_type="ppo", hyperparameters=PPOSettings())
    policy = ActorPolicy("A", make_behavior_spec((3,), continuous=2), settings, torch.device("cpu"), Wide())
    check_network(policy, [np.ones((1, 3), np.float32)])
    assert not caplog.records


def test_trying_a_network_changes_nothing(tmp_path: Path) -> None:
    class Counts(Net):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.calls = 0

        def forward(self, features: Tensor) -> Any:
            self.calls += 1
            return super().forward(features)

    run_of = run(tmp_path, Offers(Counts), 8)
    assert run_of.trainers["Corridor"].policy.actor.calls <= 3 + 1  # Acting, and the model for Unity.


class Frozen(Net):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.requires_grad_(False)


class Listed(Net):
    def __init__(self, inputs: int, action_spec: Any) -> None:
        super().__init__(inputs, action_spec)
        self.layers = [nn.Linear(inputs, 8)]

    def forward(self, features: Tensor) -> Any:
        return self.heads(torch.tanh(self.layers[0](features)))


class Halts(PPOOptimizer):
    def update(self, batch: Any) -> Any:
        return {"Losses/Policy Loss": batch.advantages.mean()}


class Detaches(PPOOptimizer):
    def values(self, batch: Any) -> Any:
        return super().values(batch).detach()


class Hides(PPOOptimizer):
    def modules(self) -> Any:
        return {}


@pytest.mark.parametrize(
    ("plugin", "what"),
    [
        (Offers(spoiled(lambda net, x: outputs(x.detach()))), "actor.body.weight, actor.body.bias, actor.heads.logits"),
        (Offers(Frozen), "with Frozen of a plugin: 32 updates have changed nothing in the policy."),
        (Offers(optimizer=Halts), "with Halts of a plugin: 32 updates have changed nothing in actor.encoder"),
        (Offers(optimizer=Detaches), "nothing in critic.encoder.layers.0.weight, critic.encoder.layers.0.bias"),
        (Offers(Listed), "`Listed.layers` has parameters that require gradients and that no module"),
        (Offers(optimizer=Hides), "`Hides.critic` has parameters that require gradients and that no module"),
    ],
)
def test_what_is_not_learned_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, plugin: object, what: str
) -> None:
    run(tmp_path, plugin, 120)
    assert what in caplog.text


def test_network_that_learns_is_told_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mlhooks"):
        run(tmp_path, Offers(Net), 120)
    assert "Net" not in caplog.text
    assert "nothing" not in caplog.text


def test_target_network_that_no_checkpoint_would_have_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Mine(DQNOptimizer):
        def modules(self) -> Any:
            return {"own": nn.Identity()}

    class Offer:
        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return Mine(policy, trainer.settings)

    settings = config("Corridor", "test:x", max_steps=20)
    settings["behaviors"]["Corridor"] |= {"trainer_type": "dqn", "hyperparameters": {}}
    train(settings, tmp_path, Env(), Offer())
    assert "leaves out 'target', which DQNOptimizer has and no checkpoint will have: add yours" in caplog.text


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        (None, "it returned None."),
        ([nn.Linear(1, 1)], "it returned a list."),
        (
            {"alpha": nn.Parameter(torch.ones(1))},
            "its 'alpha' is a Parameter; nn.ParameterDict holds such alone.",
        ),
    ],
)
def test_modules_that_are_none_are_named(tmp_path: Path, modules: Any, problem: str) -> None:
    class Wrong(PPOOptimizer):
        def modules(self) -> Any:
            return modules

    with pytest.raises(PluginError) as caught:
        run(tmp_path, Offers(optimizer=Wrong))
    assert str(caught.value).startswith("`Wrong.modules` (")
    assert str(caught.value).endswith(f"must return torch modules by name; {problem}")


def test_parameters_of_several_types_are_named(tmp_path: Path) -> None:
    class Double(Net):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.double()

        def forward(self, features: Tensor) -> Any:
            return super().forward(features.double())

    with pytest.raises(PluginError, match=r"actor\.body\.weight is torch\.float64 on cpu and critic.* torch\.float32"):
        run(tmp_path, Offers(Double))


@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        ({"state_dict": lambda self, *_, **__: {}}, "fails: RuntimeError: Error"),
        ({"load_state_dict": lambda self, *_, **__: None}, "does not bring back body.weight, body.bias"),
    ],
)
def test_network_that_a_checkpoint_would_lose_is_named(tmp_path: Path, methods: Any, problem: str) -> None:
    with pytest.raises(PluginError, match=r"would lose ActorPolicy\.actor: what `Mine\.load_state_dict`") as caught:
        run(tmp_path, Offers(type("Mine", (Net,), methods)))
    assert problem in str(caught.value)


def test_actions_that_are_no_numbers_are_the_policys_and_not_the_environments(tmp_path: Path) -> None:
    class Breaks(ActorPolicy):
        def act(self, *arguments: Any) -> Any:
            actions = super().act(*arguments)
            if self.settings.max_steps == 201 and self.behavior_name not in seen:
                seen.append(self.behavior_name)
            elif self.settings.max_steps == 201:
                actions.log_prob[0] = np.nan
            return actions

    seen: list[str] = []
    settings = config("Corridor", "test:x", max_steps=201, hyperparameters=SMALL)
    with pytest.raises(PluginError, match=r"`Breaks\.act` \(.*\) returned actions or log-probabilities that are NaN"):
        train(settings, tmp_path, Env(), Offers(policy=Breaks))
    resumed = train(settings, tmp_path, Env(), resume=True)  # Without the plugin, nothing of it is in the way.
    assert resumed.trainers["Corridor"].step == 204


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda log_probs: log_probs[:1], r"log-probabilities of .*, here \(10, 1\); they have the shape \(1, 1\)\."),
        (lambda log_probs: log_probs.sum(1), r"here \(10, 1\); they have the shape \(10,\)\."),
    ],
)
def test_log_probabilities_of_a_wrong_shape_are_named(tmp_path: Path, spoil: Any, problem: str) -> None:
    class Mine(ActorPolicy):
        def evaluate(self, batch: Any) -> Any:
            log_probs, entropies = super().evaluate(batch)
            return spoil(log_probs), entropies

    with pytest.raises(PluginError, match=problem) as caught:
        run(tmp_path, Offers(policy=Mine))
    assert str(caught.value).startswith("`Mine.evaluate` (")


@pytest.mark.parametrize("wrong", [True, False])
def test_acting_and_learning_by_other_probabilities_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: bool
) -> None:
    class Mine(ActorPolicy):
        def act(self, *arguments: Any) -> Any:
            actions = super().act(*arguments)
            return actions._replace(log_prob=actions.log_prob * np.float32(0.5 if wrong else 1.0))

    run(tmp_path, Offers(policy=Mine), network_settings={"normalize": False})
    assert ("gives other log-probabilities than `act` did for the same decisions" in caplog.text) is wrong


def test_features_of_other_rows_and_policies_for_other_actions_are_named(tmp_path: Path) -> None:
    class One(ActorPolicy):
        def features(self, obs: Any) -> Any:
            return super().features(obs)[:1]

    class Wider(ActorPolicy):
        def __init__(self, name: str, spec: Any, *arguments: Any) -> None:
            super().__init__(name, make_behavior_spec((3,), branches=(4,)), *arguments)

    with pytest.raises(PluginError, match=r"`One\.features` \(.*\) must .*; for 4 rows it is of shape \(1, 3\)\."):
        run(tmp_path / "a", Offers(policy=One))
    with pytest.raises(PluginError, match="Wider was made for other actions than the behavior has: hand over"):
        run(tmp_path / "c", Offers(policy=Wider))


def test_run_that_a_plugin_ends_twice_is_told_the_first_reason_and_closes_its_environments(tmp_path: Path) -> None:
    class Broken(ActorPolicy):
        def act(self, *arguments: Any) -> Any:
            self.modules = None
            raise ValueError("first")

    closed = []

    class Watched(Corridor):
        def close(self) -> None:
            closed.append(self)

    with pytest.raises(ValueError, match="first"):
        train(config("Corridor", "test:x"), tmp_path, Env(Watched), Offers(policy=Broken))
    assert closed


def test_environment_that_fails_by_wrong_actions_is_not_blamed(tmp_path: Path) -> None:
    class Breaks(ActorPolicy):
        def act(self, *arguments: Any) -> Any:
            actions = super().act(*arguments)
            return actions._replace(log_prob=actions.log_prob * np.float32(np.nan if self.tired else 1.0))

        tired = False

    def crash(step: int, obs: Any, rewards: Any) -> None:
        Breaks.tired = step > 10
        if step == 12:
            raise RuntimeError("what is this action?")

    with pytest.raises(PluginError, match=r"`Breaks\.act`"):
        train(config("Corridor", "test:x"), tmp_path, Env(lambda: Corridor(corrupt=crash)), Offers(policy=Breaks))

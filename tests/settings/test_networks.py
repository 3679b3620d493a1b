"""Settings of networks: widths per layer, critics of their own, distributions, and what contradicts itself."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.errors import SettingsError, UnsupportedError
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.networks import Actor, Critic, QNetwork
from mlhooks.plugins import load_plugins
from mlhooks.settings import NetworkSettings, SettingsRegistry, load_run_options
from mlhooks.settings.support import refuse_unsupported
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.trainer_loop import make_trainer


@pytest.fixture(scope="module")
def registry() -> SettingsRegistry:
    return SettingsRegistry.from_plugins(load_plugins(autoload=False))


def loaded(folder: Path, registry: SettingsRegistry, text: str) -> Any:
    path = folder / "config.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return load_run_options(path, registry)


def network(kind: str, **settings: Any) -> str:
    lines = "".join(f"      {key}: {value}\n" for key, value in settings.items())
    return f"behaviors:\n  A:\n    trainer_type: {kind}\n    network_settings:\n{lines}"


def test_layers_have_the_widths_that_were_written() -> None:
    settings = NetworkSettings(hidden_layers=[40, 30, 20], critic_hidden_layers=[10])
    assert (settings.layers, settings.num_layers) == ([40, 30, 20], 3)
    assert settings.of_critic.layers == [10]
    assert NetworkSettings(hidden_units=7, num_layers=3).layers == [7, 7, 7]
    assert NetworkSettings(hidden_layers=[4]).of_critic.layers == [4]


def shapes(module: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(layer.weight.shape) for layer in module.modules() if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize("kind", ["ppo", "a2c", "sac"])
def test_policy_and_critic_have_layers_of_their_own(kind: str) -> None:
    spec = make_behavior_spec((5,), continuous=2)
    entry = {"trainer_type": kind, "network_settings": {"hidden_layers": [40, 30], "critic_hidden_layers": [20, 10, 8]}}
    trainer: Any = make_trainer(load_plugins(), spec, entry)
    heads = [(2, 30)] * (2 if kind == "sac" else 1)
    assert shapes(trainer.policy.actor) == [(40, 5), (30, 40), *heads]
    assert shapes(trainer.optimizer.critic) == [(20, 5), (10, 20), (8, 10), (1, 8)]
    if kind == "sac":
        assert shapes(trainer.optimizer.q1) == shapes(trainer.optimizer.q2) == [(20, 7), (10, 20), (8, 10), (1, 8)]


def test_widths_hold_for_q_networks_signals_and_goals() -> None:
    spec = make_behavior_spec((5, 2), branches=(3,), goals=(2,))
    given = {"hidden_layers": [12, 9]}
    signals = {name: {"network_settings": given} for name in ("curiosity", "rnd")}
    entry = {"trainer_type": "dqn", "network_settings": given, "reward_signals": {"extrinsic": {}, **signals}}
    trainer: Any = make_trainer(load_plugins(), spec, entry)
    network: QNetwork = trainer.policy.network
    goal_encoder: Any = network.encoder
    assert shapes(goal_encoder.body) == [(12, goal_encoder.body.layers[0].in_features)]
    assert goal_encoder.conditional.shape == (12, 9)
    assert network.advantages.in_features == 9
    curiosity, rnd = trainer.reward_signals[1:]
    assert curiosity.encoding.encoding_size == 9
    assert {each.encoder.output_size for each in rnd.networks.values()} == {9}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_layers": "[64, 32]", "num_layers": 2}, "remove num_layers, or hidden_layers"),
        ({"hidden_layers": "[64, 0]"}, "at least 1"),
        ({"hidden_layers": "[64, -3]"}, "at least 1"),
        ({"hidden_layers": "[64, 3.5]"}, "whole number"),
        ({"hidden_layers": 64}, "list"),
        ({"hidden_layers": "[4000000]"}, "at most 1048576"),
        ({"use_sde": "true", "state_dependent_std": "true"}, "remove one of the two"),
        ({"sde_sample_freq": -2}, "at least -1"),
        ({"log_std_init": 30}, "at most 2"),
        ({"action_limit": 0}, "above 0"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_place(
    settings: dict[str, Any], said: str, tmp_path: Path, registry: SettingsRegistry
) -> None:
    with pytest.raises(SettingsError, match=r"config\.yaml:\d+:\d+: behaviors\.A\.network_settings\.") as caught:
        loaded(tmp_path, registry, network("ppo", **settings))
    assert said in str(caught.value)


def test_layers_of_a_critic_on_the_actors_encoder_are_refused(tmp_path: Path, registry: SettingsRegistry) -> None:
    text = network("ppo", critic_hidden_layers="[8]") + "    hyperparameters: {shared_critic: true}\n"
    with pytest.raises(SettingsError, match="shared_critic puts the value heads on the actor's layers"):
        loaded(tmp_path, registry, text)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("dqn", {"use_sde": "true"}),
        ("dqn", {"log_std_init": -1}),
        ("dqn", {"critic_hidden_layers": "[8]"}),
        ("dqn", {"action_limit": 1}),
        ("sac", {"action_limit": 1}),
    ],
)
def test_trainer_type_without_such_a_network_refuses_the_setting(
    kind: str, settings: dict[str, Any], tmp_path: Path, registry: SettingsRegistry
) -> None:
    (key,) = settings
    with pytest.raises(UnsupportedError, match=rf"network_settings\.{key}: the networks of the trainer type {kind}"):
        refuse_unsupported(loaded(tmp_path, registry, network(kind, **settings)), registry)


@pytest.mark.parametrize("kind", ["ppo", "a2c", "sac"])
def test_trainer_types_that_have_it_take_it(kind: str, tmp_path: Path, registry: SettingsRegistry) -> None:
    text = network(kind, use_sde="true", log_std_init=-3.29, sde_sample_freq=4, critic_hidden_layers="[8]")
    assert [f.severity for f in refuse_unsupported(loaded(tmp_path, registry, text), registry)] == []


def test_settings_without_effect_are_told(tmp_path: Path, registry: SettingsRegistry) -> None:
    signal = "    reward_signals:\n      rnd:\n        network_settings: {log_std_init: 1}\n"
    found = loaded(tmp_path, registry, network("ppo", sde_sample_freq=4) + signal).warnings
    assert [(f.severity, f.key.rpartition(".")[2]) for f in found] == [
        ("warning", "sde_sample_freq"),
        ("warning", "log_std_init"),
    ]


def test_resolved_settings_read_back_as_they_were(tmp_path: Path, registry: SettingsRegistry) -> None:
    text = network("ppo", hidden_layers="[64, 32]", critic_hidden_layers="[16]", use_sde="true")
    plain = loaded(tmp_path, registry, text).options.behaviors["A"].network_settings.as_dict()
    assert (plain["hidden_layers"], plain["critic_hidden_layers"]) == ([64, 32], [16])
    assert "num_layers" not in plain
    again = NetworkSettings(**plain)
    assert (again.layers, again.as_dict()) == ([64, 32], plain)
    assert NetworkSettings(**again.model_dump(mode="json")).layers == [64, 32]  # As files of policies have them.
    assert not list(NetworkSettings(**NetworkSettings().model_dump(mode="json")).problems())


def test_torch_initialization_is_that_of_torch_layers() -> None:
    spec = make_behavior_spec((300,), continuous=4)
    settings = NetworkSettings(hidden_layers=[200, 100], initialization="torch")
    layout = FeatureLayout("B", spec)
    for network in (Actor(layout, spec.action_spec, settings), Critic(layout, settings, 1)):
        for layer in network.requires_grad_(False).modules():
            if isinstance(layer, torch.nn.Linear):
                bound = layer.in_features**-0.5
                for numbers in (layer.weight.detach().numpy(), layer.bias.detach().numpy()):
                    assert np.abs(numbers).max() <= bound
                if layer.weight.numel() > 1000:
                    assert float(layer.weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
                    assert float(layer.weight.abs().max()) > 0.98 * bound


def test_orthogonal_initialization_has_the_gains_of_stable_baselines() -> None:
    spec = make_behavior_spec((30,), continuous=4)
    settings = NetworkSettings(hidden_layers=[20, 10], initialization="orthogonal")
    layout = FeatureLayout("B", spec)
    actor, critic = Actor(layout, spec.action_spec, settings), Critic(layout, settings, 1)
    gains = {2**0.5: [*actor.encoder.layers, *critic.encoder.layers], 0.01: [actor.heads.mean], 1.0: [critic.heads]}  # type: ignore[union-attr]
    for gain, layers in gains.items():
        for layer in layers:
            weight = layer.weight.detach().double()  # type: ignore[union-attr]
            narrow = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
            wanted = gain**2 * torch.eye(len(narrow), dtype=torch.float64)
            torch.testing.assert_close(narrow, wanted, rtol=1e-4, atol=1e-5)
            assert not layer.bias.any()  # type: ignore[union-attr]

"""Entries of RL Baselines3 Zoo as configurations, with the values that Stable-Baselines3 would train by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces

from mlhooks.cli import main
from mlhooks.errors import UsageError
from mlhooks.plugins import load_plugins
from mlhooks.settings import SettingsRegistry, load_run_options, read_configuration
from mlhooks.zoo import converting, python_text
from mlhooks.zoo.converting import Converted, convert
from mlhooks.zoo.entry import Entry
from mlhooks.zoo.environments import Found, look_up
from mlhooks.zoo.python_text import Name
from tests.zoo.entries import FILES


def converted(algo: str, name: str, **changes: Any) -> Converted:
    return convert(Entry(f"{algo}.yml, {name}", {**FILES[algo][name], **changes}), algo, name)


def behavior(found: Converted) -> dict[str, Any]:
    (settings,) = found.settings["behaviors"].values()
    return settings


@pytest.fixture
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let environments of packages that are not installed be known, by their bounds."""
    monkeypatch.setattr(converting, "look_up", lambda name, _: Found(name, bound_of(name), name == "CarRacing-v3"))


def bound_of(name: str) -> float | None:
    """Return the bound of all continuous actions, as Gymnasium's documentation has it; 0 where they are discrete."""
    if name.startswith("Humanoid"):
        return 0.4
    others = {"Pendulum-v1": 2.0, "InvertedPendulum-v4": 3.0, "CarRacing-v3": None}
    discrete = name.startswith(("CartPole", "MountainCar-", "Acrobot", "LunarLander-", "Pong", "atari"))
    return others.get(name, 0.0 if discrete else 1.0)


@pytest.fixture(scope="module")
def registry() -> SettingsRegistry:
    return SettingsRegistry.from_plugins(load_plugins(autoload=False))


MISSING = {
    ("ppo", "CarRacing-v3"): ["an encoder of images that policy and critic share", "actions in the units of the"],
}
"""The entries that say what no configuration can, and what that is; all others are expressed as a whole."""


@pytest.mark.parametrize(("algo", "name"), [(algo, name) for algo, entries in FILES.items() for name in entries])
@pytest.mark.usefixtures("all_installed")
def test_every_entry_is_a_valid_configuration_and_names_what_it_lacks(
    algo: str, name: str, registry: SettingsRegistry, tmp_path: Path
) -> None:
    game = "PongNoFrameskip-v4" if name == "atari" else name
    found = convert(Entry(f"{algo}.yml, {name}", FILES[algo][name]), algo, game)
    wanted = MISSING.get((algo, name), [])
    assert len(found.missing) == len(wanted)
    for what in wanted:
        assert any(what in said for said in found.missing), (what, found.missing)
    path = tmp_path / "converted.yaml"
    path.write_text(found.as_text(), encoding="utf-8")
    loaded = load_run_options(read_configuration(path), registry)
    assert loaded.warnings == []
    assert found.assumed == []
    network = behavior(found)["network_settings"]
    bound = 1.0 if bound_of(game) is None else bound_of(game)
    assert network.get("action_limit", 0.0) == (bound if algo in ("ppo", "a2c") else 0.0)
    (settings,) = loaded.options.behaviors.values()
    assert settings.max_steps == FILES[algo][name]["n_timesteps"]
    assert all(f"# Not expressed: {what}" in found.as_text() for what in found.missing)


def test_ppo_with_schedules_and_defaults_of_stable_baselines3() -> None:
    found = converted("ppo", "CartPole-v1")
    assert found.missing == found.assumed == []
    assert found.settings["env_settings"] == {"env_path": "gymnasium:CartPole-v1", "num_areas": 8}
    assert found.settings["behaviors"].keys() == {"CartPole"}
    assert behavior(found) == {
        "trainer_type": "ppo",
        "hyperparameters": {
            "batch_size": 256,
            "buffer_size": 32 * 8,
            "learning_rate": 0.001,
            "learning_rate_schedule": "linear",
            "learning_rate_final": 0,
            "epsilon": 0.2,
            "epsilon_schedule": "linear",
            "epsilon_final": 0,
            "num_epoch": 20,
            "beta": 0,
            "beta_schedule": "constant",
            "lambd": 0.8,
            "value_coefficient": 0.5,
            "max_grad_norm": 0.5,
            "normalize_advantages": "minibatch",
            "joint_actions": True,
            "optimizer_kwargs": {"eps": 1e-5},
        },
        "network_settings": {
            "hidden_units": 64,
            "num_layers": 2,
            "activation": "tanh",
            "initialization": "orthogonal",
        },
        "reward_signals": {"extrinsic": {"gamma": 0.98}},
        "time_horizon": 1_000_000,
        "max_steps": 100_000,
        "summary_freq": 2000,
    }


def test_noise_that_depends_on_the_state_and_normalization() -> None:
    found = behavior(converted("ppo", "MountainCarContinuous-v0"))
    network, h = found["network_settings"], found["hyperparameters"]
    assert network["use_sde"] is True
    assert network["log_std_init"] == -3.29
    assert network["initialization"] == "torch"
    assert network["action_limit"] == 1.0
    assert (network["normalize"], network["normalize_clip"], h["normalize_before_update"]) == (True, 10, False)
    assert h["normalize_rewards"] == "running"
    assert (h["batch_size"], h["buffer_size"]) == (8, 8)  # A minibatch is never larger than a rollout.
    assert h["value_coefficient"] == 0.19
    assert behavior(converted("ppo", "Pendulum-v1"))["network_settings"]["action_limit"] == 2.0


def test_a2c_by_rmsprop_and_by_what_an_entry_asks_for() -> None:
    usual = behavior(converted("a2c", "CartPole-v1"))["hyperparameters"]
    assert (usual["optimizer"], usual["optimizer_kwargs"]) == ("rmsprop", {"alpha": 0.99, "eps": 1e-5})
    assert (usual["buffer_size"], usual["batch_size"], usual["lambd"]) == (40, 40, 1)
    assert usual["normalize_advantages"] == "none"
    games = behavior(converted("a2c", "atari"))["hyperparameters"]
    assert (games["optimizer"], games["optimizer_kwargs"]) == ("rmsprop_tf", {"eps": 1e-5})
    adam = behavior(converted("a2c", "CartPole-v1", use_rms_prop=False))["hyperparameters"]
    assert (adam.get("optimizer"), adam["optimizer_kwargs"]) == (None, {"eps": 1e-5})
    named = {"policy_kwargs": "dict(optimizer_class=th.optim.Adam)"}  # Policies of actor and critic give it that, too.
    assert behavior(converted("a2c", "CartPole-v1", **named))["hyperparameters"]["optimizer_kwargs"] == {"eps": 1e-5}


def test_updates_of_dqn_and_its_exploration() -> None:
    h = behavior(converted("dqn", "MountainCar-v0"))["hyperparameters"]
    assert (h["update_interval"], h["steps_per_update"]) == (16, 2)
    assert (h["exploration_steps"], h["exploration_initial_eps"], h["exploration_final_eps"]) == (24_000, 1, 0.07)
    assert (h["buffer_init_steps"], h["random_steps"]) == (1000, 1000)
    assert (h["tau"], h["target_update_interval"], h["max_grad_norm"]) == (1, 600, 10)
    assert "optimizer_kwargs" not in h
    every = behavior(converted("dqn", "Acrobot-v1"))["hyperparameters"]
    assert (every["update_interval"], every["steps_per_update"]) == (4, 1)  # gradient_steps is -1.
    several = behavior(converted("dqn", "MountainCar-v0", n_envs=2))["hyperparameters"]
    assert (several["update_interval"], several["steps_per_update"]) == (32, 4)
    assert behavior(converted("dqn", "MountainCar-v0", n_steps=3))["hyperparameters"]["n_step"] == 3
    discounts = {"gamma": 0.98, "normalize": {"gamma": 0.9}}  # The algorithm's own is taken for rewards, too.
    assert "normalize_rewards_gamma" not in behavior(converted("dqn", "MountainCar-v0", **discounts))["hyperparameters"]


@pytest.mark.parametrize("updates", [-1, 64])
def test_rounds_of_whole_episodes_become_an_update_for_each_step(updates: int) -> None:
    changes = {"train_freq": [1, "episode"], "gradient_steps": updates}
    found = converted("sac", "MountainCarContinuous-v0", **changes)
    h = behavior(found)["hyperparameters"]
    assert (h["update_interval"], h["steps_per_update"]) == (1, 1)
    assert len(found.missing) == 1
    assert ("gradient_steps: 64" in found.missing[0]) == (updates == 64)


def test_arguments_of_the_environment_are_its_keyword_arguments() -> None:
    found = converted("sac", "MountainCarContinuous-v0", env_kwargs="dict(goal_velocity=0.01)")
    assert found.settings["env_settings"]["env_kwargs"] == {"goal_velocity": 0.01}
    assert not found.missing
    with pytest.raises(UsageError, match=r"env_kwargs.*must be a mapping"):
        converted("sac", "MountainCarContinuous-v0", env_kwargs=[0.01])


def test_sac_without_entropy_has_a_coefficient_that_is_as_good_as_0() -> None:
    found = converted("sac", "MountainCarContinuous-v0", ent_coef=0.0)
    h = behavior(found)["hyperparameters"]
    assert (h["init_entcoef"], h["learn_entcoef"]) == (1e-8, False)
    assert any("1e-8" in each for each in found.assumed)
    for wrong in ("auto_0", -0.1):
        with pytest.raises(UsageError, match=r"ent_coef.*must be greater than 0"):
            converted("sac", "MountainCarContinuous-v0", ent_coef=wrong)


class Either(gymnasium.Env[Any, Any]):
    """An environment whose actions are continuous where it is told so."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, continuous: bool = False) -> None:
        self.action_space = spaces.Box(-2, 2, (1,), np.float32) if continuous else spaces.Discrete(2)


def test_arguments_of_the_environment_decide_about_its_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium.envs.registration, "registry", gymnasium.registry)
    gymnasium.register("Either-v0", entry_point=Either)
    assert look_up("Either-v0", {}).bound == 0.0
    assert look_up("Either-v0", {"continuous": True}).bound == 2.0
    assert "odd" in look_up("Either-v0", {"odd": 1}).why_not
    values = {"policy": "MlpPolicy", "env_kwargs": "dict(continuous=True)", "use_sde": True}
    found = convert(Entry("sac", values), "sac", "Either-v0")
    assert behavior(found)["network_settings"]["use_sde"] is True
    assert found.settings["env_settings"]["env_kwargs"] == {"continuous": True}


def test_sac_with_and_without_a_learned_weight_of_the_entropy() -> None:
    fixed = behavior(converted("sac", "MountainCarContinuous-v0"))
    assert (fixed["hyperparameters"]["init_entcoef"], fixed["hyperparameters"]["learn_entcoef"]) == (0.1, False)
    assert fixed["network_settings"]["log_std_init"] == -3.67
    learned = behavior(converted("sac", "BipedalWalker-v3", ent_coef="auto_0.3"))
    assert learned["hyperparameters"]["init_entcoef"] == 0.3
    assert "learn_entcoef" not in learned["hyperparameters"]
    assert learned["network_settings"]["hidden_layers"] == [400, 300]
    assert learned["hyperparameters"]["twin_targets"] is True
    plain = behavior(converted("sac", "Pendulum-v1", use_sde=False, use_sde_at_warmup=True, learning_starts=300))
    assert plain["hyperparameters"]["random_steps"] == 300  # There is no state-dependent noise to begin with.


@pytest.mark.usefixtures("all_installed")
def test_images_are_encoded_by_what_nature_cnn_computes() -> None:
    found = behavior(converted("ppo", "atari"))
    assert found["hyperparameters"]["shared_critic"] is True
    assert found["network_settings"] == {
        "vis_encode_type": "nature_cnn",
        "visual_activation": "relu",
        "hidden_units": 512,
        "hidden_layers": [],
        "activation": "relu",
        "initialization": "orthogonal",
    }
    assert behavior(converted("dqn", "atari"))["network_settings"]["initialization"] == "torch"
    images = behavior(converted("sac", "Pendulum-v1", policy="CnnPolicy", policy_kwargs=None))
    assert images["network_settings"]["hidden_layers"] == [256, 256]  # Only PPO's, A2C's and DQN's are empty.


@pytest.mark.usefixtures("all_installed")
def test_wrappers_and_stacks_around_images() -> None:
    environment = converted("ppo", "CarRacing-v3").settings["env_settings"]
    assert environment["wrappers"] == [
        {"RepeatAction": {"num_repeats": 2}},
        {"ResizeObservation": {"shape": [64, 64]}},
        {"GrayscaleObservation": {}},
        {"FrameStackObservation": {"stack_size": 2, "padding_type": "zero"}},
    ]
    resized = {"env_wrapper": [{"rl_zoo3.wrappers.YAMLCompatResizeObservation": {"shape": [64, 48]}}]}
    found = converted("ppo", "CartPole-v1", **resized)
    assert found.settings["env_settings"]["wrappers"] == [{"ResizeObservation": {"shape": [64, 48]}}]
    assert not found.missing
    assert converted("dqn", "atari").settings["env_settings"]["atari"] is True
    vectors = converted("ppo", "CartPole-v1", frame_stack=3).settings["env_settings"]["wrappers"]
    assert vectors == [{"FrameStackObservation": {"stack_size": 3, "padding_type": "zero"}}, {"FlattenObservation": {}}]


def test_stacks_of_vectors_begin_with_zeros_and_end_with_the_newest() -> None:
    stacks = converted("ppo", "CartPole-v1", frame_stack=3).settings["env_settings"]["wrappers"]
    env: Any = gymnasium.make("CartPole-v1")
    for wrapper in stacks:
        ((name, arguments),) = wrapper.items()
        env = getattr(gymnasium.wrappers, name)(env, **arguments)
    first, _ = env.reset(seed=3)
    assert first.tolist() == [0.0] * 8 + env.unwrapped.state.astype("f4").tolist()


def test_masked_velocities_are_masked_here_too() -> None:
    found = converted("ppo", "CartPole-v1", env_wrapper="rl_zoo3.wrappers.MaskVelocityWrapper")
    assert found.settings["env_settings"]["wrappers"] == [{"MaskVelocity": {}}]
    assert not found.missing


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sample_weight": 3}, "sample_weight: 3"),
        ({"policy_kwargs": "dict(features_extractor_class=Mine)"}, "policy_kwargs: features_extractor_class=Mine"),
        ({"policy_kwargs": "dict(activation_fn=nn.Softplus)"}, "activation_fn=nn.Softplus"),
        (
            {"policy_kwargs": "dict(net_arch=[128, dict(pi=[32], vf=[16])])"},
            "layers [128] that policy and critic share",
        ),
        ({"env_wrapper": "rl_zoo3.wrappers.HistoryWrapper"}, "env_wrapper rl_zoo3.wrappers.HistoryWrapper"),
        ({"normalize": {"norm_obs": True, "epsilon": 1e-3}}, "normalize: epsilon: 0.001"),
        ({"policy": "Mine"}, "policy: Mine"),
        ({"policy_kwargs": "dict(optimizer_class=th.optim.Mine)"}, "policy_kwargs: optimizer_class=th.optim.Mine"),
    ],
)
def test_what_cannot_be_expressed_is_named(changes: dict[str, Any], said: str) -> None:
    found = converted("ppo", "CartPole-v1", **changes)
    assert len(found.missing) == 1
    assert said in found.missing[0]
    assert "Mine" not in str(found.settings)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("learning_rate", "lin_-3", "learning_rate: 'lin_-3' must not be negative"),
        ("learning_rate", -3, "learning_rate: -3 must be a number that is not negative"),
        ("clip_range", "lin_0.3_0.1", "clip_range: 'lin_0.3_0.1' is no schedule"),
        ("env_wrapper", [["Mine"]], r"env_wrapper: '\[Mine\]' must be the name of a wrapper"),
    ],
)
def test_values_that_rl_zoo_cannot_read_are_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        converted("ppo", "CartPole-v1", **{key: value})


VALUES = [None, "x", "auto_x", "lin_x", -1, 0.5, True, [1, "episode"], {"a": 1}, "nn.ReLU", [], float("nan")]
TEXTS = ["dict(a=b)", "dict(log_std_init=a)", "dict(optimizer_kwargs=dict(eps=a))", "dict(net_arch=3)"]
TEXTS += ["dict(optimizer_class=A)", "dict(clip_obs='x')", "dict(activation_fn=3, ortho_init=None)"]


def refusal(algo: str, key: str, value: Any) -> str:
    """Return what is said against a value; nothing where it is converted, into what a file can hold."""
    try:
        found = convert(Entry(algo, {"n_timesteps": 1000, key: value}), algo, "Nowhere-v0")
    except UsageError as error:
        return str(error)
    assert yaml.safe_load(found.as_text()) == found.settings
    return ""


@pytest.mark.parametrize("algo", FILES)
def test_wrong_values_are_refused_or_named_and_never_fail(algo: str) -> None:
    keys = {key for entry in FILES[algo].values() for key in entry}
    keys |= {"target_kl", "clip_range_vf", "ent_coef", "frame_stack", "env_wrapper", "normalize", "n_envs", "tau"}
    said = {(key, str(value)): refusal(algo, key, value) for key in keys for value in [*VALUES, *TEXTS]}
    assert all(key in text for (key, _), text in said.items() if text)
    assert sum(map(bool, said.values())) > 50


def test_text_of_python_is_read_and_never_run() -> None:
    read = python_text.read
    assert read("dict(net_arch=[dict(pi=[64, 2*32], vf=(8,))], a=-1.5e-3, activation_fn=nn.ReLU, b=None)") == {
        "net_arch": [{"pi": [64, 64], "vf": [8]}],
        "a": -0.0015,
        "activation_fn": Name("nn.ReLU"),
        "b": None,
    }
    for text in (
        "__import__('os').system('touch ran')",
        "dict(a=open('x'))",
        "[x for x in y]",
        "(lambda: 1)()",
        "dict(**{})",
        "dict(",
        "a" * 20_000,
        "(" * 5000,
        "9 ** 9 ** 9",
        "'x' * 3",
        "1 / 0",
    ):
        with pytest.raises(ValueError, match=r"."):
            read(text)


FILE = """
CartPole-v1: &base
  n_envs: 8
  n_timesteps: !!float 1e5
  policy: 'MlpPolicy'
  n_steps: 32
  learning_rate: lin_0.001
  normalize: "dict(norm_obs=False, norm_reward=True)"
Acrobot-v1:
  <<: *base
  n_steps: 64
  use_unheard_of: true
"""


def test_command_writes_a_configuration_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ppo.yml").write_text(FILE, encoding="utf-8")
    assert main(["zoo", "ppo.yml"]) == 0
    assert capsys.readouterr().out.split() == ["CartPole-v1", "Acrobot-v1"]
    assert main(["zoo", "ppo.yml", "Acrobot-v1"]) == 0
    said = capsys.readouterr()
    assert "not expressed: use_unheard_of: True" in said.err
    assert "# Not expressed: use_unheard_of: True" in said.out
    written = yaml.safe_load(said.out)
    h = written["behaviors"]["Acrobot"]["hyperparameters"]
    assert (h["buffer_size"], h["normalize_rewards"]) == (8 * 64, "running")
    assert "normalize" not in written["behaviors"]["Acrobot"]["network_settings"]
    assert main(["zoo", "ppo.yml", "CartPole-v1", "-o", "mine.yaml"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["config", "check", "--strict", "mine.yaml"]) == 0
    assert main(["zoo", "ppo.yml", "CartPole-v1", "-o", "mine.yaml"]) == 2
    assert "mine.yaml is there already" in capsys.readouterr().err
    assert main(["zoo", "ppo.yml", "CartPole-v1", "--algo", "A2C"]) == 0
    assert "# Assumed: settings of ppo suit a2c, whose defaults are taken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (FILE, ["ppo.yml", "CartPole-v0"], "no entry CartPole-v0. Did you mean CartPole-v1?"),
        (FILE, ["mine.yml", "CartPole-v1"], "add --algo, one of ppo, a2c, dqn, sac"),
        (FILE, ["mine.yml", "CartPole-v1", "--algo", "td3"], "--algo td3"),
        (f"{FILE}atari: {{n_timesteps: 1}}", ["ppo.yml", "atari"], "for all Atari games. Name one, such as PongNo"),
        (FILE, ["td3.yml", "CartPole-v1"], "td3.yml has settings of td3, and only those of ppo, a2c, dqn, sac can be"),
        (f"{FILE}A-v0: {{gamma: 1}}", ["ppo.yml", "A-v0"], "ppo.yml: the entry A-v0 has no n_timesteps"),
        (FILE.replace("8", "many", 1), ["ppo.yml", "CartPole-v1"], "n_envs: 'many' is no number"),
        (FILE.replace("dict(", "open(", 1), ["ppo.yml", "CartPole-v1"], "normalize: .* cannot be read"),
        ("behaviors: {A: {}}", ["ppo.yml", "CartPole-v1"], "holds no settings of RL Zoo"),
        ("- 1", ["ppo.yml"], "holds no settings of RL Zoo"),
        ("a: [", ["ppo.yml"], "ppo.yml"),
        (None, ["ppo.yml", "CartPole-v1"], "ppo.yml: there is no such file"),
        (None, ["mine.yml", "CartPole-v1"], "mine.yml: there is no such file"),
        (None, ["mine.yml", "CartPole-v1", "--algo", "td3"], "mine.yml: there is no such file"),
        ("behaviors: {A: {}}", ["mine.yml", "CartPole-v1"], "holds no settings of RL Zoo"),
        (FILE, ["mine.yml", "CartPole-v0"], "no entry CartPole-v0. Did you mean CartPole-v1?"),
    ],
)
def test_mistakes_are_said_without_a_traceback(
    text: str | None,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(arguments[0]).write_text(text, encoding="utf-8")
    assert main(["zoo", *arguments]) == 2
    found = capsys.readouterr().err
    assert re.search(said, found), found
    assert "Traceback" not in found

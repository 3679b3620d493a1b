"""What a run without a configuration trains with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import mlhooks
from mlhooks.cli import main
from mlhooks.errors import UsageError
from mlhooks.example_configs import example_names, find_config
from mlhooks.general_settings import FILE, choose, merged, tuned_example
from mlhooks.plugins import load_plugins
from mlhooks.settings import LoadedOptions, RunOptions, SettingsRegistry, load_run_options
from mlhooks.settings.support import refuse_unsupported
from tests.builtin_plugins.gymnasium_envs import Walk
from tests.scripted import QUIET, Env, train
from tests.scripted import Corridor as Batched

SECTIONS: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def chosen(
    env: str | None, algo: str | None = None, *, environment: Any = None, **flags: Any
) -> tuple[RunOptions, str]:
    plugins = load_plugins()
    path = {} if env is None else {"env_settings.env_path": env}
    choice = choose(plugins, algo, flags=path | flags, environment=environment)
    loaded = load_run_options(choice.source, SettingsRegistry.from_plugins(plugins), flags=path | flags)
    return loaded.options, choice.text


@pytest.mark.parametrize(
    ("env", "algo", "example"),
    [
        ("gymnasium:CartPole-v1", None, "cartpole_ppo"),
        ("gymnasium:CartPole", "dqn", "cartpole_dqn"),
        ("pettingzoo:simple_spread", "poca", "simple_spread_poca"),
        ("pettingzoo:mpe2.simple_spread_v3", "poca", "simple_spread_poca"),
        ("pettingzoo:pettingzoo.classic.connect_four_v3", None, "connect_four_ppo"),
        ("pettingzoo:mine.connect_four_v3", None, None),
        ("gymnasium:CartPole-v1", "a2c", "cartpole_a2c"),
        ("gymnasium:Acrobot-v1", "dqn", "acrobot_dqn"),
        ("gymnasium:Pendulum-v1", "sac", "pendulum_sac"),
        ("gymnasium:MountainCarContinuous-v0", None, "mountaincarcontinuous_ppo"),
        ("gymnasium:HalfCheetah-v5", "sac", "halfcheetah_sac"),
        ("gymnasium:Ant-v5", "sac", None),
        ("gymnasium:Acrobot-v1", "a2c", None),
        ("gymnasium:Taxi-v3", "ppo", None),
        ("sim:3DBall", "ppo", "3dball_ppo"),
        ("sim:GridWorld", "dqn", None),
        ("corridor.py:CartPole", "ppo", None),
    ],
)
def test_an_example_is_tuned_for_its_environment_and_trainer_type(env, algo, example):
    assert tuned_example(env, algo or "ppo") == example


def test_every_example_of_gymnasium_and_sims_is_found_by_its_environment_but_the_curriculum_and_wrapped_ones():
    found = {
        tuned_example(document["env_settings"]["env_path"], next(iter(document["behaviors"].values()))["trainer_type"])
        for document in (yaml.safe_load(find_config(name).read_text(encoding="utf-8")) for name in example_names())
    }
    assert found == set(example_names()) - {"3dball_curriculum", "cartpole_positions_ppo"}


def test_settings_of_the_example_are_used_as_they_are():
    options, text = chosen("gymnasium:Pendulum-v1")
    entry = yaml.safe_load(find_config("pendulum_ppo").read_text(encoding="utf-8"))
    assert options.behaviors["Pendulum"].hyperparameters.learning_rate == 0.001
    assert options.behaviors["Pendulum"].max_steps == entry["behaviors"]["Pendulum"]["max_steps"]
    assert options.env_settings.num_areas == entry["env_settings"]["num_areas"]
    assert text == "those of the example pendulum_ppo, tuned for it"


@pytest.mark.parametrize(
    ("env", "algo", "parts", "text"),
    [
        ("gymnasium:MountainCar-v0", "ppo", ["discrete"], "general ones for ppo, discrete actions"),
        ("gymnasium:mlhooks-tests/Walk-v2", "ppo", ["continuous"], "general ones for ppo, continuous actions"),
        ("gymnasium:MountainCarContinuous-v0", "a2c", ["continuous"], "general ones for a2c, continuous actions"),
        ("gymnasium:MountainCarContinuous-v0", "sac", ["continuous"], "general ones for sac, continuous actions"),
        (
            "gymnasium:Taxi",
            "dqn",
            ["discrete", "one_hot"],
            "general ones for dqn, discrete actions and one-hot observations",
        ),
        (
            "gymnasium:Blackjack",
            "ppo",
            ["discrete", "one_hot"],
            "general ones for ppo, discrete actions and one-hot observations",
        ),
        ("sim:GridWorld", "a2c", ["discrete"], "general ones for a2c, discrete actions"),
    ],
)
def test_general_settings_are_those_of_the_file_by_what_agents_do(env, algo, parts, text):
    options, said = chosen(env, algo)
    wanted = merged([SECTIONS[algo][part] for part in ("all", *parts) if part in SECTIONS[algo]])
    assert options.env_settings.num_areas == wanted.pop("num_areas")
    (entry,) = options.as_dict()["behaviors"].values()
    assert entry["trainer_type"] == algo
    assert said == text
    for key, value in wanted.items():
        written = {name: entry[key][name] for name in value} if isinstance(value, dict) else entry[key]
        if key == "reward_signals":
            assert entry[key]["extrinsic"]["gamma"] == value["extrinsic"]["gamma"]
        else:
            assert written == value


def test_images_have_settings_of_their_own():
    import gymnasium
    import numpy as np

    class Eyes(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(0, 255, (40, 40, 3), np.uint8)
        action_space = gymnasium.spaces.Discrete(2)

    options, text = chosen("python:x:Eyes", environment=Eyes)
    assert text == "general ones for ppo, discrete actions and images"
    assert options.behaviors["Eyes"].network_settings.vis_encode_type == "nature_cnn"


@pytest.mark.parametrize("algo", SECTIONS)
@pytest.mark.parametrize(
    "traits", [(), ("discrete",), ("continuous",), ("discrete", "images"), ("continuous", "images")]
)
def test_all_general_settings_are_valid_and_learn(algo, traits):
    registry = SettingsRegistry.from_plugins(load_plugins())
    entry = merged([SECTIONS[algo][part] for part in ("all", *traits) if part in SECTIONS[algo]])
    assert entry.pop("num_areas") >= 1
    loaded = load_run_options({"behaviors": {"A": {"trainer_type": algo, **entry}}}, registry)
    assert loaded.warnings == []
    assert refuse_unsupported(LoadedOptions(loaded.options, []), registry) == []


def test_general_settings_exist_for_every_built_in_trainer_type():
    assert set(SECTIONS) == {"ppo", "a2c", "dqn", "sac", "poca"}


@pytest.mark.parametrize(("env", "areas"), [(Walk, 8), (lambda: Walk(), 8), (Batched, 1), (lambda: Batched(), 1)])
def test_as_many_areas_as_can_be(env, areas):
    options, _ = chosen("python:x:X", environment=env)
    assert options.env_settings.num_areas == areas


def test_flags_outrank_what_was_chosen():
    options, _ = chosen("gymnasium:Taxi", **{"env_settings.num_areas": 3})
    assert options.env_settings.num_areas == 3


@pytest.mark.parametrize("env", [None, "Builds/Game", "Builds/Game.exe"])
@pytest.mark.parametrize("algo", [None, "ppo", "dqn"])
def test_unity_keeps_the_defaults_of_ml_agents(env, algo):
    options, _ = chosen(env, algo)
    plain = load_run_options(
        {"behaviors": {"A": {"trainer_type": algo or "ppo"}}}, SettingsRegistry.from_plugins(load_plugins())
    ).options
    assert options.settings_for("A") == plain.behaviors["A"]
    assert options.env_settings.num_areas == 1


def test_trainer_type_of_a_plugin_has_its_own_defaults():
    from builtin_plugins.a2c import A2CTrainer
    from mlhooks import hookimpl

    class Plugin:
        @hookimpl
        def get_trainer_types(self) -> dict[str, type]:
            return {"mine": A2CTrainer}

    plugins = load_plugins()
    plugins.register(Plugin())
    choice = choose(plugins, "mine", flags={"env_settings.env_path": "gymnasium:Taxi"})
    assert (choice.source, choice.text) == (
        {"behaviors": {"Taxi": {"trainer_type": "mine"}}},
        "the defaults of trainer type mine",
    )


def test_unknown_trainer_type_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"--algo pp0: .*installed are a2c, dqn, poca, ppo, sac. Did you mean ppo\?"):
        chosen("sim:Basic", "pp0")
    with pytest.raises(
        UsageError,
        match=r"--algo mlagents:poca: .*own package.*installed are a2c, dqn, poca, ppo, sac\. To get it: pip install",
    ):
        chosen("sim:Basic", "mlagents:poca")


def test_first_lines_of_a_run_name_the_settings(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--set", "behaviors.*.max_steps=40", "-p", "no:tensorboard", "-p", "no:curve"]
    assert main(["run", "--env", "gymnasium:FrozenLake-v1", "--algo", "a2c", *short]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[1:4] == [
        "  run          ppo",
        "  environment  gymnasium:FrozenLake-v1",
        "  settings     general ones for a2c, discrete actions and one-hot observations",
    ]
    assert "nothing will be learned: the run ends at max_steps 40" in said.err
    stored = yaml.safe_load(Path("results/ppo/configuration.yaml").read_text(encoding="utf-8"))
    assert stored["behaviors"]["FrozenLake"]["hyperparameters"]["buffer_size"] == 64


def test_environment_of_a_plugin_gets_general_settings_for_all_its_behaviors(tmp_path):
    run = mlhooks.train(
        env="test:x",
        plugins=[Env()],
        plugin_names=QUIET,
        results_dir=tmp_path,
        overrides=["behaviors.*.max_steps=40"],
    )
    assert (
        run.options.behaviors["Corridor"].hyperparameters.buffer_size
        == SECTIONS["ppo"]["all"]["hyperparameters"]["buffer_size"]
    )
    assert run.options.env_settings.num_areas == 1
    assert run.configuration == "general ones for ppo"


def test_trainer_type_with_a_file_must_be_that_of_the_file(tmp_path):
    with pytest.raises(UsageError, match=r"the configuration is for ppo.*mlhooks run cartpole_dqn"):
        mlhooks.train("cartpole_ppo", algo="dqn", results_dir=tmp_path)
    with pytest.raises(UsageError, match="mlhooks run --env gymnasium:Pendulum-v1 --algo a2c"):
        mlhooks.train("pendulum_ppo", algo="a2c", results_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    settings = {"behaviors": {"Corridor": {"max_steps": 8}}, "env_settings": {"env_path": "test:x"}}
    assert train(settings, tmp_path, Env(), algo="ppo").outcome.status == "finished"


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_an_environment_of_ones_own_is_learned_without_a_configuration(tmp_path, algo):
    """The way to the right end of a corridor: a random walk from 0 to 5 takes 30 steps, at 0.1 each."""
    import gymnasium
    import numpy as np

    class Corridor(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(0.0, 5.0, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.at = 0
            return np.array([self.at], np.float32), {}

        def step(self, action):
            self.at = max(0, self.at + (1 if action else -1))
            there = self.at == 5
            return np.array([self.at], np.float32), 1.0 if there else -0.1, there, False, {}

    run = mlhooks.train(
        env=Corridor,
        algo=algo,
        seed=1,
        results_dir=tmp_path,
        plugin_names=QUIET,
        overrides=["behaviors.*.max_steps=15000"],
    )
    assert run.trainers["Corridor"].mean_reward > 0.4  # 0.6 is the best


def test_config_show_prints_what_a_run_would_train_with(capsys):
    assert main(["config", "show", "--env", "gymnasium:Taxi", "--algo", "dqn"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# The settings are general ones for dqn, discrete actions and one-hot observations.\n")
    shown = yaml.safe_load(out)
    assert shown["behaviors"]["Taxi"]["hyperparameters"]["target_update_interval"] == 250
    assert shown["env_settings"]["env_path"] == "gymnasium:Taxi"
    assert main(["config", "show", "cartpole_ppo", "--env", "gymnasium:CartPole-v1", "--algo", "ppo"]) == 0
    assert main(["config", "show", "cartpole_ppo", "--algo", "dqn"]) == 2
    assert main(["config", "show"]) == 2
    assert "mlhooks config show --env gymnasium:CartPole-v1" in capsys.readouterr().err

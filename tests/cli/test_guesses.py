"""Words of other tools get the nearest right thing."""

from __future__ import annotations

import re

import click
import pytest

from mlhooks.cli import guesses, main
from mlhooks.cli.config import config
from mlhooks.cli.group import COMMANDS
from mlhooks.cli.plugins import plugins
from mlhooks.cli.run import RunCommand, run
from mlhooks.settings.schema import OTHER_NAMES, Homes, SettingsRegistry


def told(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("train", "mlhooks run?"),
        ("learn", "mlhooks run?"),
        ("eval", "mlhooks run --inference --episodes 20"),
        ("enjoy", "mlhooks run --inference"),
        ("list", "mlhooks examples"),
        ("validate", "mlhooks config check"),
        ("hooks", "mlhooks plugins hooks"),
        ("version", "mlhooks --version"),
        ("rnu", "did you mean run?"),
        ("cartpole_ppo", "a configuration is run by mlhooks run cartpole_ppo"),
        ("my.yaml", "a configuration is run by mlhooks run my.yaml"),
    ],
)
def test_word_in_place_of_a_command(capsys, word, meant):
    assert meant in told(capsys, word)


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        (["--max-steps", "100"], "--set 'behaviors.*.max_steps=100'"),
        (["--total-timesteps=1e5"], "--set 'behaviors.*.max_steps=1e5'"),
        (["--learning-rate", "3e-4"], "--set 'behaviors.*.hyperparameters.learning_rate=3e-4'"),
        (["--lr"], "--set 'behaviors.*.hyperparameters.learning_rate=VALUE'"),
        (["--gamma", "0.9"], "--set 'behaviors.*.reward_signals.extrinsic.gamma=0.9'"),
        (["--ent-coef", "0.1"], "--set 'behaviors.*.hyperparameters.beta=0.1'"),
        (["--n-envs", "8"], "Say --num-areas 8."),
        (["--env-id", "CartPole-v1"], "Say --env gymnasium:CartPole-v1."),
        (["--env-id", "sim:Basic"], "Say --env sim:Basic."),
        (["--device", "cpu"], "Say --torch-device cpu."),
        (["--eval"], "Say --inference."),
        (["--n-eval-episodes", "5"], "Say --inference --episodes 5."),
        (["--log-dir", "out"], "Say --results-dir out."),
        (["--render"], "render_mode: human"),
        (["--config", "x.yaml"], "Say the file as it is."),
        (["max_steps=7"], "--set 'behaviors.*.max_steps=7'"),
        (["behaviors.CartPole.max_steps=7"], "--set 'behaviors.*.max_steps=7'"),
    ],
)
def test_flag_of_another_tool(capsys, flag, meant):
    assert meant in told(capsys, "run", "cartpole_ppo", *flag)


def test_flag_that_nobody_knows_is_left_to_click(capsys):
    assert "No such option '--zorp'" in told(capsys, "run", "cartpole_ppo", "--zorp")


@pytest.mark.parametrize(("flag", "meant"), [("--runid", "--run-id"), ("--num-area", "--num-areas")])
def test_misspelt_flag_names_the_nearest_one_alone(capsys, flag, meant):
    assert f"No such option '{flag}'. Did you mean '{meant}'?" in told(capsys, "run", "cartpole_ppo", flag, "x")


@pytest.mark.parametrize(
    ("env", "meant"),
    [
        ("CartPole-v1", "Did you mean --env gymnasium:CartPole-v1?"),
        ("cartpole", "Did you mean --env gymnasium:CartPole-v1?"),
        ("LunarLandr-v3", "Did you mean --env gymnasium:LunarLander-v3?"),
        ("3dball", "Did you mean --env sim:3DBall?"),
        ("gym:CartPole-v1", "Did you mean gymnasium:CartPole-v1?"),
        ("gymnasium:", "--env gymnasium:: say which environment, as in gymnasium:CartPole-v1"),
        ("Corridor", "named as in --env sim:3DBall or --env corridor.py:Corridor"),
    ],
)
def test_environment_of_another_kind(capsys, env, meant):
    assert meant in told(capsys, "run", "--env", env)


@pytest.mark.parametrize(
    ("config", "meant"),
    [
        ("CartPole-v1", "mlhooks run --env gymnasium:CartPole-v1"),
        ("gymnasium:CartPole-v1", "mlhooks run --env gymnasium:CartPole-v1"),
        ("sim:3DBall", "mlhooks run --env sim:3DBall"),
        ("maze.py:Maze", "mlhooks run --env maze.py:Maze"),
        ("maze.py", "mlhooks run --env maze.py:CLASS"),
        ("cartpole", "did you mean cartpole_"),
    ],
)
def test_environment_in_place_of_a_configuration(capsys, config, meant):
    assert meant in told(capsys, "run", config)


def test_python_file_in_place_of_a_player_names_its_class(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maze.py").write_text("import nothing\nclass Maze: pass\n", encoding="utf-8")
    assert "--env maze.py:Maze" in told(capsys, "run", "--env", "maze.py")


def test_run_of_nothing_says_what_can_be_run(capsys):
    said = told(capsys, "run")
    for line in ("mlhooks run cartpole_ppo", "mlhooks run --env gymnasium:CartPole-v1", "mlhooks run --editor"):
        assert line in said
    assert "--env gymnasium:CartPole-v1 --algo dqn" in told(capsys, "run", "--algo", "dqn", "--run-id", "x")


def test_editor_and_another_environment_exclude_each_other(capsys):
    assert "say one of them" in told(capsys, "run", "--editor", "--env", "sim:Basic")


def test_what_is_advised_exists():
    commands = {
        *COMMANDS,
        *(f"config {name}" for name in config.commands),
        *(f"plugins {name}" for name in plugins.commands),
    }
    for text in guesses.COMMANDS.values():
        for command in re.findall(r"mlhooks ([a-z]+(?: (?:check|show|schema|new|hooks))?)", text):
            assert command in commands
    flags = {name for param in run.params if isinstance(param, click.Option) for name in param.opts}
    for text in guesses.FLAGS.values():
        assert set(text.split()) <= flags
    assert isinstance(run, RunCommand)
    assert not {*guesses.FLAGS, *guesses.ARGUMENTS} & {flag.lstrip("-") for flag in flags}


def test_every_name_of_another_tool_has_a_home(registry):
    assert [
        name for name, ours in OTHER_NAMES.items() if Homes(registry).of(ours, ("behaviors", "*", "")) is None
    ] == []


@pytest.fixture
def registry() -> SettingsRegistry:
    from mlhooks.plugins import load_plugins

    return SettingsRegistry.from_plugins(load_plugins())

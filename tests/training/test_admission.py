"""One verdict: what `config check` calls valid is what a run begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlhooks import hookimpl
from mlhooks.cli import main
from mlhooks.envs.factory import EnvironmentKind
from mlhooks.errors import PluginError, SettingsError
from tests.scripted import QUIET, Corridor, config, train

BASIC: dict[str, Any] = config("Basic", "sim:Basic", max_steps=40, hyperparameters={"batch_size": 10})


def changed(**behavior: Any) -> dict[str, Any]:
    return {**BASIC, "behaviors": {"Basic": {**BASIC["behaviors"]["Basic"], **behavior}}}


def with_env(**settings: Any) -> dict[str, Any]:
    return {**BASIC, "env_settings": {**BASIC["env_settings"], **settings}}


LESSONS = [{"name": "a", "value": 1, "completion_criteria": {"behavior": "4DBall", "measure": "progress"}}]
LESSONS += [{"name": "b", "value": 2}]

DQN_CLONES: dict[str, Any] = {"trainer_type": "dqn", "hyperparameters": {}, "behavioral_cloning": {"demo_path": "d"}}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "self_play": (changed(self_play={"window": 0}), "allowed: a whole number, at least 1"),
    "cloning": (changed(behavioral_cloning={"demo_path": "d"}), "There is no demonstration d"),
    "curiosity": (
        changed(reward_signals={"curiosity": {"strength": 0}}),
        "a strength of 0 lets the signal learn and reward nothing",
    ),
    "trainer": (changed(trainer_type="poka"), "no installed plugin provides this trainer type"),
    "device": ({**BASIC, "torch_settings": {"device": "gpu:0"}}, "The device 'gpu:0' cannot be used"),
    "no data": ({**BASIC, "torch_settings": {"device": "meta"}}, "The device 'meta' cannot be used"),
    "simulation": (with_env(env_path="sim:Basik"), "There is no simulation"),
    "id": (with_env(env_path="gymnasium:CartPol-v1"), "Gymnasium knows no environment"),
    "kind": (with_env(env_path="simm:Basic"), "there is no environment kind"),
    "long name": (with_env(env_path="x" * 5000), "There can be no player at xxx"),
    "ports": (with_env(env_path="player", num_envs=3, base_port=65534), "Choose a lower --base-port"),
    "run id": ({**BASIC, "checkpoint_settings": {"run_id": "x" * 300}}, "is too long for the name of a folder"),
    "way out": ({**BASIC, "checkpoint_settings": {"run_id": "../x"}}, "leads out of the results folder"),
    "escape": (with_env(env_path="C:\x85uts"), "use single quotes"),
    "player": (with_env(env_path="Builds/nothing"), "no Unity player"),
    "arguments": (with_env(env_kwargs={"sise": 3}), "does not take the argument"),
    "gymnasium's arguments": (
        {**with_env(env_path="gymnasium:CartPole-v1", env_kwargs={"num_envs": 2}), "behaviors": {"CartPole": {}}},
        "cannot take",
    ),
    "parameters": ({**BASIC, "environment_parameters": {"mass": 1}}, "has no environment parameter"),
    "gymnasium's parameters": (
        {
            **with_env(env_path="gymnasium:CartPole-v1"),
            "behaviors": {"CartPole": {}},
            "environment_parameters": {"mass": 1},
        },
        "takes no environment parameters",
    ),
    "typo": ({**BASIC, "behaviors": {"Basik": {}}, "default_settings": {}}, "did you mean Basic?"),
    "one too many": ({**BASIC, "behaviors": {**BASIC["behaviors"], "Basik": {}}}, "did you mean Basic?"),
    "none of them": ({**BASIC, "behaviors": {"Walker": {}}}, "has no behavior of this name"),
    "lesson": (
        {
            **with_env(env_path="sim:3DBall"),
            "behaviors": {},
            "default_settings": BASIC["behaviors"]["Basic"],
            "environment_parameters": {"mass": {"curriculum": LESSONS}},
        },
        "completion_criteria.behavior: the environment sim:3DBall has no behavior of this name",
    ),
    "two things": (
        {
            **changed(**DQN_CLONES),
            "env_settings": {"env_path": "sim:Basik"},
            "torch_settings": {"device": "gpu"},
        },
        "4 errors",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_run_refuses_is_an_error_of_config_check(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings, message = REFUSED[case]
    Path("c.yaml").write_text(yaml.safe_dump(settings))
    Path("player").write_text("#!/bin/sh\n")
    Path("player").chmod(0o755)
    assert main(["config", "check", "c.yaml"]) == 2
    checked = capsys.readouterr().out
    quiet = [word for name in QUIET for word in ("-p", name)]
    assert main(["run", "c.yaml", *quiet]) == 2
    assert message in capsys.readouterr().err
    assert message in checked
    assert not Path("results").exists()


def test_what_config_check_calls_valid_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(yaml.safe_dump(BASIC))
    assert main(["config", "check", "c.yaml", "--strict"]) == 2  # Nothing is learned in 40 steps, it warns.
    assert main(["config", "check", "c.yaml"]) == 0
    assert train(BASIC, tmp_path).outcome.status == "finished"


def test_a_typo_behind_set_is_named_with_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    option = "behaviors.CartPol.max_steps=3"
    assert main(["run", "--env", "gymnasium:CartPole-v1", "--set", option]) == 2
    expected = f"Error: --set {option}: behaviors.CartPol: no behavior has this name; found CartPol; allowed: CartPole"
    assert capsys.readouterr().err.startswith(expected)


class Kind:
    """A plugin whose environments tell their behaviors' names in advance."""

    def __init__(self, names: Any) -> None:
        self.names = names

    @hookimpl
    def get_env_types(self) -> dict[str, Any]:
        return {"test": EnvironmentKind(lambda name, **_: Corridor(), lambda *_: None, lambda *_: self.names)}


def test_kinds_of_plugins_may_tell_their_behaviors_and_need_not(tmp_path: Path) -> None:
    settings = config("Other", "test:x", max_steps=40)
    settings["default_settings"] = settings["behaviors"]["Other"]
    with pytest.raises(SettingsError, match="has no behavior of this name; found Other; allowed: Corridor"):
        train(settings, tmp_path, Kind(["Corridor"]))
    assert not (tmp_path / "run").exists()
    assert train(settings, tmp_path, Kind(None)).outcome.status == "finished"


@pytest.mark.parametrize("names", ["Corridor", [], [1], 3])
def test_wrong_answers_of_a_kind_are_named(tmp_path: Path, names: Any) -> None:
    with pytest.raises(PluginError, match=r"The environment kind 'test' of .* must tell its behaviors' names"):
        train(config("Corridor", "test:x"), tmp_path, Kind(names))

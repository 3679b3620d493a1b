"""Settings that are text keep what was written, whatever YAML takes it for."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from mlhooks.settings import HyperparameterSettings, SettingsRegistry, load_run_options
from mlhooks.settings.yaml_source import parse_yaml
from tests.settings.conftest import Load, Refuse

WORDS = [
    "007", "1.10", "12:30", "1_000", "0x1F", "0b11", "1e5", "1E400", "-0", ".inf", ".NaN", "+1", "yes", "No", "on",
    "off", "true", "FALSE", "null", "NULL", "2025-01-31", "2025-01-31 10:00:00", "=", "<<", "1" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_text_is_what_was_written(load: Load, word: str) -> None:
    name = "A" if word == "<<" or len(word) > 1024 else word  # YAML takes neither for a key.
    text = f"""\
        checkpoint_settings: {{run_id: {word}}}
        env_settings: {{env_args: [a, {word}]}}
        behaviors: {{{name}: {{}}}}
        environment_parameters:
          p:
            curriculum:
              - {{name: {word}, value: 1, completion_criteria: {{behavior: {name}, measure: progress}}}}
              - {{name: b, value: 2}}
        """
    options = load(text).options
    assert options.checkpoint_settings.run_id == word
    assert options.env_settings.env_args == ["a", word]
    assert list(options.behaviors) == [name]
    assert options.environment_parameters is not None
    lesson = options.environment_parameters["p"].curriculum[0]
    assert lesson.name == word
    assert lesson.completion_criteria is not None
    assert lesson.completion_criteria.behavior == name
    again = load(options.to_yaml()).options
    assert again == options


@pytest.mark.parametrize("word", WORDS)
def test_text_behind_set_is_what_was_written(load: Load, word: str) -> None:
    given = [f"checkpoint_settings.run_id={word}", f"env_settings={{env_args: [{word}]}}"]
    options = load("checkpoint_settings: {run_id: 08, results_dir: 1.50}", overrides=given).options
    assert options.checkpoint_settings.run_id == word
    assert options.checkpoint_settings.results_dir == "1.50"
    assert options.env_settings.env_args == [word]


def test_the_last_of_two_options_counts(load: Load) -> None:
    given = ["checkpoint_settings.run_id=007", "checkpoint_settings={run_id: 008}"]
    assert load("behaviors: {}", overrides=given).options.checkpoint_settings.run_id == "008"


def test_null_is_null_where_a_setting_may_be_null(load: Load, refuse: Refuse) -> None:
    options = load("checkpoint_settings: {initialize_from: null}\nenv_settings: {env_path: ~}").options
    assert options.checkpoint_settings.initialize_from is None
    assert options.env_settings.env_path is None
    for nothing in ("~", ""):
        (finding,) = refuse(f"checkpoint_settings: {{run_id: {nothing}}}")
        assert finding.key == "checkpoint_settings.run_id"


def test_inherited_text_is_what_default_settings_say(load: Load) -> None:
    options = load("default_settings: {init_path: 007}\nbehaviors: {A: {}, B: {init_path: 1.10}}").options
    assert (options.behaviors["A"].init_path, options.behaviors["B"].init_path) == ("007", "1.10")


def test_choices_of_a_plugin_may_be_called_on_and_off() -> None:
    class Switched(HyperparameterSettings):
        mode: Literal["on", "off"] = "off"

    class Trainer:
        hyperparameters_type = Switched

    text = "behaviors: {A: {trainer_type: t, hyperparameters: {mode: on}}}"
    loaded = load_run_options(None, SettingsRegistry({"t": Trainer}), overrides=[text.replace(": ", "=", 1)])
    hyperparameters: Any = loaded.options.behaviors["A"].hyperparameters
    assert hyperparameters.mode == "on"
    assert parse_yaml("on").value is True  # YAML 1.1 reads it so.

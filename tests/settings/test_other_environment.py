"""The configuration of one behavior, used for the one behavior of another environment."""

from __future__ import annotations

from typing import Any

import pytest

from mlhooks.cli import main
from mlhooks.settings import LoadedOptions, SettingsRegistry, load_run_options

FILE = """\
behaviors:
  Pole:
    trainer_type: ppo
    max_steps: 1000
env_settings:
  env_path: gym:Pole
"""
NAMES = {"gym:Pole": ["Pole"], "gym:Car": ["Car"], "gym:Two": ["A", "B"], "gym:Unknown": None}


@pytest.fixture
def load(tmp_path, registry: SettingsRegistry):
    def load(text: str = FILE, env: str | None = None, *overrides: str) -> LoadedOptions:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        flags: dict[str, Any] = {} if env is None else {"env_settings.env_path": env}
        return load_run_options(
            path,
            registry,
            flags=flags,
            overrides=overrides,
            behavior_names=lambda settings: NAMES[settings.env_path or "gym:Unknown"],
        )

    return load


@pytest.mark.parametrize("how", [("gym:Car",), (None, "env_settings.env_path=gym:Car")])
def test_single_behavior_takes_the_name_of_the_other_environments_one(load, how):
    loaded = load(FILE, *how)
    assert list(loaded.options.behaviors) == ["Car"]
    assert loaded.options.behaviors["Car"].max_steps == 1000
    (warning,) = loaded.warnings
    assert (warning.severity, warning.line, warning.key) == ("warning", 2, "behaviors.Pole")
    assert "used for the behavior 'Car' of gym:Car; they are chosen for gym:Pole" in warning.message


def test_overrides_name_the_behavior_of_the_other_environment(load):
    loaded = load(FILE, "gym:Car", "behaviors.Car.max_steps=5")
    assert loaded.options.behaviors["Car"].max_steps == 5


def test_what_is_wrong_in_the_file_is_still_found_at_its_line(load):
    with pytest.raises(Exception, match=r"config.yaml:5:5: behaviors.Car.max_step: unknown key"):
        load(
            FILE.replace("env_settings", "    max_step: 3\nenv_settings").replace(
                "    max_steps: 1000\n", "    time_horizon: 5\n"
            ),
            "gym:Car",
        )


@pytest.mark.parametrize(
    ("text", "env"),
    [
        (FILE, None),
        (FILE, "gym:Pole"),
        (FILE, "gym:Unknown"),
        (FILE, "gym:Two"),
        (FILE.replace("gym:Pole", "gym:Car"), None),  # The file names both: one of them is wrong.
        (FILE.replace("gym:Pole", "gym:Car"), "gym:Car"),
        ("default_settings: {}\n" + FILE, "gym:Car"),
        (FILE.replace("env_settings", "  Other: {}\nenv_settings"), "gym:Car"),
    ],
)
def test_all_else_stays_as_it_is(load, text, env):
    loaded = load(text, env)
    assert "Pole" in loaded.options.behaviors
    assert loaded.warnings == []


def test_example_runs_in_another_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["--set", "behaviors.MountainCar.max_steps=16", "-p", "no:tensorboard", "-p", "no:curve"]
    assert main(["run", "cartpole_ppo", "--env", "gymnasium:MountainCar-v0", *short]) == 0
    said = capsys.readouterr()
    assert "these settings are used for the behavior 'MountainCar' of gymnasium:MountainCar-v0" in said.err
    assert "MountainCar  ppo  to 16 steps" in said.out

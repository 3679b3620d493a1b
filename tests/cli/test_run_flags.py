from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlhooks.cli import main


@pytest.fixture(autouse=True)
def _no_autoload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").touch()
    monkeypatch.setenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("MLHOOKS_DEBUG", raising=False)


class Api:
    """Stands in for mlhooks.api and keeps what `train` was called with."""

    def __init__(self):
        self.outcome = SimpleNamespace(status="finished", error=None)

    def train(self, config, **arguments):
        self.config = config
        self.arguments = arguments
        return SimpleNamespace(outcome=self.outcome, evaluation=None)

    @property
    def flags(self):
        return self.arguments["flags"]


@pytest.fixture
def api(monkeypatch):
    api = Api()
    monkeypatch.setitem(sys.modules, "mlhooks.api", api)
    return api


def test_without_flags_the_configuration_decides_everything(api, tmp_path):
    config = tmp_path / "config.yaml"
    config.touch()
    assert main(["run", str(config)]) == 0
    assert api.config == config
    assert api.arguments == {
        "algo": None,
        "flags": {},
        "overrides": (),
        "plugin_names": (),
        "plugins_dir": None,
        "strict_plugins": False,
        "trace_hooks": False,
        "episodes": None,
        "policy": "last",
        "opponent": None,
    }


def test_configuration_is_optional(api):
    assert main(["run", "--env", "sim:3DBall"]) == 0
    assert api.config is None
    assert api.flags == {"env_settings.env_path": "sim:3DBall"}


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        ("--env players/ball.x86_64", "env_settings.env_path", "players/ball.x86_64"),
        ("--seed 7", "env_settings.seed", 7),
        ("--base-port 6000", "env_settings.base_port", 6000),
        ("--num-envs 4", "env_settings.num_envs", 4),
        ("--num-areas 8", "env_settings.num_areas", 8),
        ("--timeout-wait 30", "env_settings.timeout_wait", 30),
        ("--max-lifetime-restarts -1", "env_settings.max_lifetime_restarts", -1),
        ("--restarts-rate-limit-n 3", "env_settings.restarts_rate_limit_n", 3),
        ("--restarts-rate-limit-period-s 90", "env_settings.restarts_rate_limit_period_s", 90),
        ("--env-args --level 3", "env_settings.env_args", ["--level", "3"]),
        ("--run-id first", "checkpoint_settings.run_id", "first"),
        ("--initialize-from other", "checkpoint_settings.initialize_from", "other"),
        ("--resume", "checkpoint_settings.resume", True),
        ("--force", "checkpoint_settings.force", True),
        ("--inference", "checkpoint_settings.inference", True),
        ("--results-dir out", "checkpoint_settings.results_dir", "out"),
        ("--width 100", "engine_settings.width", 100),
        ("--height 200", "engine_settings.height", 200),
        ("--quality-level 1", "engine_settings.quality_level", 1),
        ("--time-scale 2.5", "engine_settings.time_scale", 2.5),
        ("--target-frame-rate 30", "engine_settings.target_frame_rate", 30),
        ("--capture-frame-rate 30", "engine_settings.capture_frame_rate", 30),
        ("--no-graphics", "engine_settings.no_graphics", True),
        ("--no-graphics-monitor", "engine_settings.no_graphics_monitor", True),
        ("--torch-device cuda:0", "torch_settings.device", "cuda:0"),
        ("--deterministic", "behaviors.*.network_settings.deterministic", True),
        ("--debug", "debug", True),
    ],
)
def test_each_flag_of_mlagents_learn_sets_its_setting_and_no_other(api, arguments, key, value):
    assert main(["run", "c.yaml", *arguments.split()]) == 0
    assert api.flags == {key: value}
    assert type(api.flags[key]) is type(value)


def test_value_that_equals_the_default_still_counts_as_given(api):
    assert main(["run", "c.yaml", "--num-envs", "1"]) == 0
    assert api.flags == {"env_settings.num_envs": 1}


def test_env_args_take_the_rest_of_the_line_whatever_it_looks_like(api):
    assert main(["run", "c.yaml", "--seed", "1", "--env-args", "--seed", "2", "--debug", "--", "x", "--env-args"]) == 0
    assert api.flags == {
        "env_settings.seed": 1,
        "env_settings.env_args": ["--seed", "2", "--debug", "--", "x", "--env-args"],
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--level 3 -batchmode", None),
        ("--level 3 --run-id=second --num-envs 2 --num-envs 3", "also --run-id, --num-envs, which"),
        ("-- --level 3 --run-id=second", None),
        ("--level 3 -- --seed 1", "also --seed, which"),
    ],
)
def test_flags_of_mlhooks_among_the_env_args_are_named_unless_they_are_meant(api, capsys, arguments, named):
    assert main(["run", "c.yaml", "--env-args", *arguments.split()]) == 0
    assert api.flags["env_settings.env_args"] == arguments.removeprefix("-- ").split()
    said = capsys.readouterr().err
    assert named in said if named else said == ""


def test_debug_among_the_env_args_is_the_players(api, capsys, monkeypatch):
    monkeypatch.setattr(api, "train", lambda *args, **kwargs: 1 / 0)
    assert main(["run", "c.yaml", "--env-args", "--debug"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_options_of_mlhooks_itself(api, tmp_path):
    line = f"--set a.b=1 --set c=[1,2] -p one -p no:two --plugins-dir {tmp_path} --strict-plugins --trace-hooks"
    assert main(["run", "c.yaml", "--inference", "--episodes", "5", *line.split()]) == 0
    assert api.flags == {"checkpoint_settings.inference": True}
    assert api.arguments["overrides"] == ("a.b=1", "c=[1,2]")
    assert api.arguments["plugin_names"] == ("one", "no:two")
    assert api.arguments["plugins_dir"] == Path(tmp_path)
    assert api.arguments["strict_plugins"]
    assert api.arguments["trace_hooks"]
    assert api.arguments["episodes"] == 5


def test_deprecated_load_resumes_with_a_warning(api, capsys):
    assert main(["run", "c.yaml", "--load"]) == 0
    assert api.flags == {"checkpoint_settings.resume": True}
    assert capsys.readouterr().err == "Warning: --load is an old spelling; say --resume\n"


@pytest.mark.parametrize("flag", ["--train", "--torch", "--tensorflow"])
def test_flag_without_meaning_is_accepted_with_a_warning(api, capsys, flag):
    assert main(["run", "c.yaml", flag]) == 0
    assert api.flags == {}
    assert f"Warning: {flag}" in capsys.readouterr().err


def test_missing_configuration_is_bad_usage(api, capsys):
    assert main(["run", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["--num-envs many", "--episodes 0", "--width"])
def test_bad_value_is_bad_usage(api, line):
    assert main(["run", *line.split()]) == 2


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("interrupted", 130), ("failed", 1)])
def test_exit_code_is_the_outcome(api, status, code):
    api.outcome.status = status
    assert main(["run", "c.yaml"]) == code


def test_failed_run_prints_its_error(api, capsys):
    api.outcome = SimpleNamespace(status="failed", error=RuntimeError("the environment is gone"))
    assert main(["run", "c.yaml"]) == 1
    assert "Error: RuntimeError: the environment is gone" in capsys.readouterr().err


def test_error_that_nobody_expected_names_the_line_that_it_came_from(api, capsys, monkeypatch):
    monkeypatch.setattr(api, "train", lambda *args, **kwargs: 1 / 0)
    assert main(["run", "c.yaml"]) == 1
    assert re.search(
        r"Error: ZeroDivisionError: division by zero \(.*test_run_flags\.py:\d+\)\n", capsys.readouterr().err
    )


def test_help_has_sections(capsys):
    assert main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    for title in ("Run:", "Environment:", "Engine (Unity players):", "Torch:", "Plugins:"):
        assert f"\n{title}\n" in out
    assert "--tensorflow" not in out


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--run-id", "--force"],
        ["run", "basic_ppo", "--results-dir", "--force"],
        ["run", "--env", "--num-envs", "2"],
        ["run", "--initialize-from", "--run-id=a"],
        ["run", "--set", "--force"],
        ["run", "--seed", "--force"],
        ["run", "--torch-device", "-p", "x"],
        ["run", "-p", "--force"],
        ["run", "--plugins-dir", "--", "x"],
        ["run", "--run-id", "--frce", "--env-args", "x"],
        ["config", "check", "basic_ppo", "--set", "--json"],
        ["plugins", "-p", "--json"],
        ["plugins", "new", "--kind", "--help"],
        ["plugins", "check", "x", "-k", "-x"],
        ["doctor", "--env", "-h"],
    ],
)
def test_a_flag_is_never_the_value_of_the_option_in_front_of_it(api, words, capsys):
    assert main(words) == 2
    option, flag = next((a, b) for a, b in pairwise(words) if a.startswith("-"))
    assert f"Error: {option} needs a value, and {flag} is a flag." in capsys.readouterr().err


def test_values_may_begin_with_a_dash_where_no_flag_does_or_by_an_equals_sign(api):
    assert main(["run", "c.yaml", "--seed", "-1", "--run-id=--force", "--env", "-1", "--target-frame-rate", "-1"]) == 0
    assert api.flags == {
        "env_settings.seed": -1,
        "checkpoint_settings.run_id": "--force",
        "env_settings.env_path": "-1",
        "engine_settings.target_frame_rate": -1,
    }
    assert main(["run", "c.yaml", "--run-id", "a", "--force", "--env-args", "--run-id", "--force"]) == 0
    assert api.flags["env_settings.env_args"] == ["--run-id", "--force"]

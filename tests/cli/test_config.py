from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from mlhooks.cli import main

GOOD = """\
behaviors:
  A:
    trainer_type: ppo
    hyperparameters: {batch_size: 64, learning_rate_schedule: constant}
    max_steps: 5e4
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_accepts_a_valid_file(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "good.yaml").write_text(GOOD)
    assert main(["config", "check", "good.yaml"]) == 0
    assert capsys.readouterr().out == "good.yaml is valid: 0 errors, 0 warnings.\n"


def test_check_lists_all_findings_and_exits_with_2(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "bad.yaml").write_text(
        GOOD + "    max_step: 3\n    network_settings: {normalise: true}\n    threaded: 7\n"
    )
    assert main(["config", "check", "bad.yaml"]) == 2
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert first.startswith("bad.yaml:6:5: error: behaviors.A.max_step: unknown key;")
    assert first.endswith("did you mean max_steps?")
    assert second.startswith("bad.yaml:7:24: warning: behaviors.A.network_settings.normalise: unknown key")
    assert third.startswith("bad.yaml:8:15: error: behaviors.A.threaded: not a valid value; found 7")
    assert last == "bad.yaml is not valid: 2 errors, 1 warning."


def test_check_strict_counts_warnings_as_errors(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "odd.yaml").write_text(GOOD + "    network_settings: {normalise: true}\n")
    assert main(["config", "check", "odd.yaml"]) == 0
    assert main(["config", "check", "--strict", "odd.yaml"]) == 2
    assert "odd.yaml is not valid: 0 errors, 1 warning." in capsys.readouterr().out


def test_check_tells_what_a_run_would_refuse(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "plugin.py").write_text(
        dedent("""\
        from mlhooks import hookimpl
        from tests.parts import AnyTrainer


        class Plain(AnyTrainer): ...


        @hookimpl
        def get_trainer_types():
            return {"plain": Plain}
        """)
    )
    cloning = "behavioral_cloning: {demo_path: x}"
    (write / "far.yaml").write_text(f"behaviors:\n  A:\n    trainer_type: plain\n    {cloning}\n")
    assert main(["config", "check", "far.yaml", "-p", "plugin.py"]) == 2
    out = capsys.readouterr().out
    said = "behaviors.A.behavioral_cloning: the trainer type plain does not support behavioral_cloning"
    assert f"far.yaml:4:5: error: {said}" in out
    assert main(["config", "check", "far.yaml"]) == 2
    assert "did you mean" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def write_stat(values): ...", "did you mean write_stats?"),
        ("def write_stats(vlaues): ...", "did you mean values?"),
    ],
    ids=["misspelt hook", "misspelt argument"],
)
@pytest.mark.parametrize("command", [["config", "check"], ["run"]])
def test_plugin_that_does_not_fit_is_bad_usage_as_one_that_is_not_there(
    write: Path, capsys: pytest.CaptureFixture[str], command: list[str], code: str, said: str
) -> None:
    (write / "mine.py").write_text(f"from mlhooks import hookimpl\n\n\n@hookimpl\n{code}\n")
    assert main([*command, "3dball_ppo", "-p", "nime.py"]) == 2
    assert "did you mean mine.py?" in capsys.readouterr().err
    assert main([*command, "3dball_ppo", "-p", "mine.py"]) == 2
    assert said in capsys.readouterr().err
    assert not (write / "results").exists()


def test_a_person_reads_twenty_findings_and_a_machine_all(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = "".join(f"    key{number}: 1\n" for number in range(500))
    long = f"    {'k' * 1000}: {'v' * 100_000}\n"
    (write / "many.yaml").write_text(GOOD + long + keys)
    for command in ("check", "show"):
        assert main(["config", command, "many.yaml"]) == 2
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert "behaviors.A.key18: unknown key" in text
        assert "key19" not in text
        assert "and 481 more; mlhooks config check --json lists all" in text
        assert len(text) < 20_000
    assert "501 errors in the configuration" in text
    assert main(["config", "check", "--json", "many.yaml"]) == 2
    assert len(json.loads(capsys.readouterr().out)["findings"]) == 501


def test_check_json_is_for_machines(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "bad.yaml").write_text("behaviors:\n  A: {max_step: 3}\n")
    assert main(["config", "check", "--json", "bad.yaml"]) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["valid"] is False
    (finding,) = result["findings"]
    assert finding["allowed"].startswith("trainer_type, ")
    del finding["allowed"]
    assert finding == {
        "severity": "error",
        "message": "unknown key",
        "key": "behaviors.A.max_step",
        "file": "bad.yaml",
        "line": 2,
        "column": 7,
        "option": None,
        "found": None,
        "nearest": "max_steps",
    }


def test_a_missing_file_is_named(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "show"):
        assert main(["config", command, "none.yaml"]) == 2
        assert "Error: There is no configuration file 'none.yaml'" in capsys.readouterr().err


def test_names_that_no_file_can_have_are_refused(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x" * 5000, "a\nb"):
        for command in ("check", "show"):
            assert main(["config", command, name]) == 2
            captured = capsys.readouterr()
            assert "configuration file" in captured.err
            assert len(captured.err) < 1000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_refused_without_waiting(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    assert main(["config", "check", "pipe"]) == 2
    assert "pipe: error: is a pipe or a device" in capsys.readouterr().out


def test_numbers_are_shown_as_they_are_written(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "bad.yaml").write_text(GOOD.replace("max_steps: 5e4", "num_envs: 1\n    time_horizon: -1e9"))
    assert main(["config", "check", "bad.yaml"]) == 2
    assert "found -1e9;" in capsys.readouterr().out


def test_what_the_output_cannot_encode_is_escaped(write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (write / "beetle.yaml").write_text("behaviors: {жук: {trainer_type: ppo}}\n", encoding="utf-8")
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["config", "show", "beetle.yaml"]) == 0
    assert rb"\u0436\u0443\u043a" in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_an_example_is_found_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "3dball_ppo"]) == 0
    assert "is valid: 0 errors, 0 warnings." in capsys.readouterr().out
    assert main(["config", "show", "--json", "3dball_ppo"]) == 0
    assert json.loads(capsys.readouterr().out)["behaviors"].keys() == {"3DBall"}


def test_show_json_is_sorted_with_every_value_resolved(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "good.yaml").write_text(GOOD)
    assert main(["config", "show", "--json", "good.yaml", "--set", "behaviors.A.time_horizon=7"]) == 0
    out = capsys.readouterr().out
    values = json.loads(out)
    assert out == json.dumps(values, indent=1, sort_keys=True) + "\n"
    behavior = values["behaviors"]["A"]
    assert (behavior["max_steps"], behavior["time_horizon"], behavior["keep_checkpoints"]) == (50000, 7, 5)
    assert behavior["hyperparameters"] == {
        "batch_size": 64,
        "beta": 0.005,
        "beta_schedule": "constant",
        "buffer_size": 10240,
        "epsilon": 0.2,
        "epsilon_schedule": "constant",
        "lambd": 0.95,
        "learning_rate": 0.0003,
        "learning_rate_schedule": "constant",
        "num_epoch": 3,
        "shared_critic": False,
    }


def test_show_prints_yaml_that_means_the_same(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "good.yaml").write_text(GOOD)
    assert main(["config", "show", "good.yaml"]) == 0
    shown = capsys.readouterr().out
    (write / "again.yaml").write_text(shown)
    assert main(["config", "show", "again.yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(shown)


def test_show_warns_on_stderr(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "odd.yaml").write_text(GOOD + "    framework: pytorch\n")
    assert main(["config", "show", "odd.yaml"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("Warning: odd.yaml:6:5: behaviors.A.framework: framework is deprecated")
    assert "framework" not in captured.out


def test_schema_knows_the_installed_trainer_types(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "ppo" in schema["$defs"]["TrainerSettings"]["properties"]["trainer_type"]["enum"]
    silent = [
        f"{name}.{key}"
        for name, model in schema["$defs"].items()
        for key, part in model.get("properties", {}).items()
        if "description" not in part and "$ref" not in part and "const" not in part
    ]
    assert silent == []
    assert main(["config", "schema", "-p", "no:ppo"]) == 0
    assert (
        "ppo"
        not in json.loads(capsys.readouterr().out)["$defs"]["TrainerSettings"]["properties"]["trainer_type"]["enum"]
    )


MINE = """\
from mlhooks.plugin import Field, SettingsModel, hookimpl
from tests.parts import AnyTrainer


class Plain(AnyTrainer): ...


class Settings(SettingsModel):
    digits: int = Field(default=2, description="Decimals.")


@hookimpl
def get_trainer_types():
    return {"plain": Plain}


@hookimpl
def get_plugin_settings():
    return {"mine": Settings}
"""


@pytest.fixture
def named(write: Path) -> Path:
    """A file in another folder, and beside it the plugin that it names."""
    (write / "sub").mkdir()
    (write / "sub" / "mine.py").write_text(MINE)
    path = write / "sub" / "named.yaml"
    path.write_text("behaviors:\n  A: {trainer_type: plain}\nplugins:\n  load: [mine.py]\n")
    return path


def test_check_loads_the_plugins_that_the_file_names(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "sub/named.yaml", "--set", "plugins.settings.mine.digits=3"]) == 0
    assert main(["config", "check", "sub/named.yaml", "--set", "plugins.settings.mien.digits=3"]) == 2
    assert "plugins.settings.mien: no plugin that is loaded has settings of this name" in capsys.readouterr().out
    assert main(["config", "check", "sub/named.yaml", "-p", "no:mine"]) == 2
    assert "no installed plugin provides this trainer type" in capsys.readouterr().out


def test_check_names_the_line_of_a_plugin_that_is_not_there(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named.write_text(named.read_text().replace("mine.py", "mien.py"))
    assert main(["config", "check", "sub/named.yaml"]) == 2
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{Path('sub', 'named.yaml')}:4:10: error: plugins.load.0: there is no file ")
    assert first.endswith("; did you mean mine.py?")
    assert last == f"{Path('sub', 'named.yaml')} is not valid: 1 error, 0 warnings."
    assert main(["config", "check", "--json", "sub/named.yaml"]) == 2
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["line"], finding["column"], finding["key"]) == (4, 10, "plugins.load.0")


def test_check_names_the_line_of_a_plugin_that_fails(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named.with_name("mine.py").write_text("1 / 0\n")
    assert main(["config", "check", "sub/named.yaml"]) == 1
    assert f"Error: {Path('sub', 'named.yaml')}:4:10: plugins.load.0: plugin 'mine' (file " in capsys.readouterr().err


def test_check_warns_of_a_name_that_blocks_nothing(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named.write_text(f"{named.read_text()}  block: [tensorbord]\n")
    assert main(["config", "check", "sub/named.yaml"]) == 0
    assert f"{Path('sub', 'named.yaml')}:5:11: warning: plugins.block.0: blocks nothing" in capsys.readouterr().out
    assert main(["config", "check", "--strict", "sub/named.yaml"]) == 2


def test_show_has_absolute_paths_and_all_settings(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "sub/named.yaml", "-p", "no:curve"]) == 0
    section = yaml.safe_load(capsys.readouterr().out)["plugins"]
    assert section == {
        "load": [str(named.with_name("mine.py"))],
        "block": ["curve"],
        "settings": {"mine": {"digits": 2}},
    }


def test_schema_of_a_file_knows_the_plugins_that_it_names(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema", "sub/named.yaml"]) == 0
    parts = json.loads(capsys.readouterr().out)["$defs"]
    assert parts["PluginsSettings"]["properties"]["settings"]["properties"].keys() == {"mine"}
    assert "plain" in parts["TrainerSettings"]["properties"]["trainer_type"]["enum"]
    assert main(["config", "schema"]) == 0
    parts = json.loads(capsys.readouterr().out)["$defs"]
    assert "plain" not in parts["TrainerSettings"]["properties"]["trainer_type"]["enum"]


def test_plugins_of_a_configuration_are_listed(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--names", "--config", "sub/named.yaml", "-p", "no:curve"]) == 0
    names = capsys.readouterr().out.split()
    assert names[-1] == "mine"
    assert "curve" not in names
    assert main(["plugins", "--json", "--config", "sub/named.yaml"]) == 0
    row = json.loads(capsys.readouterr().out)[-1]
    assert (row["name"], row["hooks"]) == ("mine", ["get_plugin_settings", "get_trainer_types"])
    assert row["source"] == f"file {named.with_name('mine.py')}"


@pytest.mark.skipif(not hasattr(os, "pipe") or sys.platform == "win32", reason="pipes have no paths there")
def test_file_that_names_plugins_may_be_a_pipe(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.write(writing, named.read_bytes().replace(b"mine.py", os.fsencode(named.with_name("mine.py"))))
    os.close(writing)
    try:
        assert main(["config", "check", f"/dev/fd/{reading}"]) == 0
    finally:
        os.close(reading)

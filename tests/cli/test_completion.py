"""Completion in shells: what is offered, how bash gets it, and what it must not import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from mlhooks.cli import claims, main
from mlhooks.cli.group import COMMANDS, build_cli
from mlhooks.cli.shells import Bash, script
from mlhooks.example_configs import example_names
from mlhooks.plugins import load_plugins


def offered(*words: str) -> list[str]:
    """Return what a shell offers for the last of the words behind `mlhooks`."""
    shell = ShellComplete(build_cli([]), {}, "mlhooks", "_MLHOOKS_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results/walk/first/run_logs").mkdir(parents=True)
    for file in ("results/walk/first/run_logs/training_status.json", "results/walk/first/configuration.yaml"):
        Path(file).write_text("{}", encoding="utf-8")
    Path("my.yaml").write_text("behaviors: {Walker: {}, My.Agent: {}}\n", encoding="utf-8")
    Path("maze.py").write_text("import torch_is_not_here\nclass Maze: pass\nclass Wide: pass\n", encoding="utf-8")
    Path("Builds").mkdir()
    return tmp_path


def test_commands(here):
    assert offered("") == [*COMMANDS]
    assert offered("ru") == ["run"]


def test_examples_and_files_of_configurations(here):
    assert offered("run", "") == [*example_names(), "Builds/", "my.yaml", "results/"]
    assert offered("run", "cartpole_") == ["cartpole_a2c", "cartpole_dqn", "cartpole_positions_ppo", "cartpole_ppo"]
    assert offered("config", "show", "my") == ["my.yaml"]


def test_run_ids(here):
    assert offered("run", "--run-id", "") == ["walk/first"]
    assert offered("run", "--resume", "--initialize-from", "wa") == ["walk/first"]
    assert offered("run", "--results-dir", "Builds", "--run-id", "") == []


def test_environments(here):
    assert offered("run", "--env", "") == [
        *("gymnasium:", "pettingzoo:", "sim:"),
        *("Builds/", "maze.py:", "my.yaml", "results/"),
    ]
    assert offered("run", "--env", "sim:3") == ["sim:3DBall"]
    assert "gymnasium:CartPole-v1" in offered("run", "--env", "gymnasium:Cart")
    assert offered("run", "--env", "maze.py:M") == ["maze.py:Maze"]
    assert offered("config", "show", "--env", "gym") == ["gymnasium:"]


def test_trainer_types_and_plugins(here):
    assert offered("run", "--algo", "") == ["a2c", "dqn", "poca", "ppo", "sac"]
    Path("mine.py").write_text("def get_trainer_types():\n    return {'mine': Mine}\n", encoding="utf-8")
    assert offered("run", "-p", "mine.py", "--algo", "") == ["a2c", "dqn", "mine", "poca", "ppo", "sac"]
    assert offered("run", "-p", "no:ten") == ["no:tensorboard"]
    assert "mine.py" in offered("run", "-p", "m")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["run", "--set", "env"], ["env_settings.", "environment_parameters="]),
        (["run", "--set", "env_settings.num_"], ["env_settings.num_envs=", "env_settings.num_areas="]),
        (["run", "--set", "behaviors."], ["behaviors.*."]),
        (["run", "my.yaml", "--set", "behaviors."], ["behaviors.*.", "behaviors.Walker.", 'behaviors."My.Agent".']),
        (["run", "cartpole_ppo", "--set", "behaviors.C"], ["behaviors.CartPole."]),
        (["config", "show", "cartpole_ppo", "--set", "behaviors.C"], ["behaviors.CartPole."]),
        (["run", "--set", "behaviors.*.hyperparameters.lam"], ["behaviors.*.hyperparameters.lambd="]),
        (["run", "--set", "default_settings.hyperparameters.n_"], ["default_settings.hyperparameters.n_step="]),
        (
            ["run", "--set", "behaviors.*.trainer_type="],
            [f"behaviors.*.trainer_type={n}" for n in ("a2c", "dqn", "poca", "ppo", "sac")],
        ),
        (
            ["run", "--set", "behaviors.*.network_settings.normalize=f"],
            ["behaviors.*.network_settings.normalize=false"],
        ),
        (
            ["run", "--set", "behaviors.*.network_settings.activation=t"],
            ["behaviors.*.network_settings.activation=tanh"],
        ),
        (["run", "--set", "nothing.at.all"], []),
    ],
)
def test_paths_of_settings_and_their_values(here, words, found):
    assert offered(*words) == found


def test_what_is_read_from_sources_is_what_plugins_answer():
    types = load_plugins().collect_mapping("get_trainer_types")
    assert claims.claimed(claims.TRAINER_TYPES) == sorted(types)
    assert claims.claimed(claims.ENVIRONMENT_KINDS) == sorted(load_plugins().collect_mapping("get_env_types"))
    import mlhooks.settings

    for name, (fields, bases) in claims.hyperparameters().items():
        inherited = {key for base in bases for key in getattr(mlhooks.settings, base).model_fields}
        assert {*fields, *inherited} == set(types[name].hyperparameters_type.model_fields)


def test_installed_plugins_are_read_and_not_imported(install):
    source = """
        raise SystemExit("imported")
        class Mine:
            hyperparameters_type = Settings
        def get_trainer_types():
            return {"mine": Mine}
    """
    install("mlhooks-mine", {"mine": "mlhooks_mine"}, mlhooks_mine=source)
    claims._sources.cache_clear()
    try:
        assert "mine" in offered("run", "--algo", "")
    finally:
        claims._sources.cache_clear()


@pytest.mark.parametrize(
    "line", ["run --set behaviors.*.h", "run --env gymnasium:C", "run c", "run --algo ", "run --run-id "]
)
def test_completion_imports_nothing_heavy(line, tmp_path):
    source = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('HEAVY', {'torch', 'rich', 'matplotlib'} & set(sys.modules)))\n"
        "from mlhooks.cli import main\n"
        "main([])\n"
    )
    environment = os.environ | {"_MLHOOKS_COMPLETE": "bash_complete", "COMP_LINE": f"mlhooks {line}"}
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("HEAVY set()\n"), done.stderr
    assert ("plain," in done.stdout) == ("run-id" not in line)


@pytest.mark.parametrize(
    ("line", "breaks", "args", "word", "sent"),
    [
        ("mlhooks run cart", " :=", ["run"], "cart", "cartpole_ppo"),
        ("mlhooks run ", " :=", ["run"], "", "cartpole_ppo"),
        ("mlhooks run --env sim:3", " :=", ["run", "--env"], "sim:3", "3DBall"),
        ("mlhooks run --env sim:3", " =", ["run", "--env"], "sim:3", "sim:3DBall"),
        ("mlhooks run --set a.b=t", " :=", ["run", "--set"], "a.b=t", "true"),
        ("mlhooks run 'my file.yaml' --algo p", " :=", ["run", "my file.yaml", "--algo"], "p", "ppo"),
    ],
)
def test_bash_gets_the_part_of_a_word_that_it_sees(monkeypatch, line, breaks, args, word, sent):
    from click.shell_completion import CompletionItem

    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_WORDBREAKS", breaks)
    bash = Bash(build_cli([]), {}, "mlhooks", "_MLHOOKS_COMPLETE")
    assert bash.get_completion_args() == (args, word)
    whole = {"3DBall": "sim:3DBall", "true": "a.b=true"}.get(sent, sent)
    assert bash.format_completion(CompletionItem(whole)) == f"plain,{sent}"


@pytest.mark.skipif(sys.platform == "win32" or shutil.which("bash") is None, reason="there is no bash")
def test_script_works_in_bash(tmp_path):
    run = f"mlhooks() {{ {sys.executable} -m mlhooks; }}; export -f mlhooks\n"
    wrapper = tmp_path / "mlhooks"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlhooks "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    del run
    asked = 'COMP_LINE="mlhooks run --env sim:3"; COMP_POINT=${#COMP_LINE}; _mlhooks_completion mlhooks\n'
    text = f'PATH="{tmp_path}:$PATH"\n{script("bash")}\n{asked}printf "%s\\n" "${{COMPREPLY[@]}}"\n'
    done = subprocess.run(["bash", "--norc", "-c", text], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["3DBall"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed(capsys, shell):
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"# To install it, run: mlhooks completion {shell} --install\n")
    assert f"_MLHOOKS_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize(
    ("shell", "file", "start"),
    [
        ("bash", ".config/mlhooks/completion.bash", ".bashrc"),
        ("zsh", ".config/mlhooks/completion.zsh", ".zshrc"),
        ("fish", ".config/fish/completions/mlhooks.fish", None),
    ],
)
def test_script_is_installed_once(tmp_path, monkeypatch, capsys, shell, file, start):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    if start:
        (tmp_path / start).write_text("alias ll='ls -l'\n", encoding="utf-8")
    for _ in range(2):
        assert main(["completion", shell, "--install"]) == 0
    assert (tmp_path / file).read_text(encoding="utf-8").strip() == script(shell).strip()
    assert str(tmp_path / file) in capsys.readouterr().out
    if start:
        lines = (tmp_path / start).read_text(encoding="utf-8").splitlines()
        assert lines[0] == "alias ll='ls -l'"
        assert [str(tmp_path / file) in line for line in lines].count(True) == 1

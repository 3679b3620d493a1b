from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mlhooks
from mlhooks.cli import main
from mlhooks.cli.new import MEANT, OFFERS, TEMPLATES, Kind, names_for, write_package
from mlhooks.errors import UsageError
from mlhooks.plugins import load_plugins
from mlhooks.settings import SettingsRegistry, load_run_options
from tests.scripted import QUIET, config

LONG = "mlhooks-a-name-of-forty-eight-letters-and-hyphens"
TEMPLATE_NAMES = ("my-distribution", "my_module", "my-plugin", "MyPlugin")


@pytest.fixture
def generate(tmp_path, monkeypatch, install):
    """Write a package and install it as `pip install -e` does, until the test ends."""
    monkeypatch.chdir(tmp_path)

    def generate(name: str, kind: str) -> Path:
        assert main(["plugins", "new", name, "--kind", kind]) == 0
        folder = tmp_path / names_for(name)["my-distribution"]
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        install(project["name"], project["entry-points"]["mlhooks"], version=project["version"])
        monkeypatch.syspath_prepend(folder / "src")
        return folder

    return generate


@pytest.mark.parametrize("name", ["mlhooks-tried", LONG])
@pytest.mark.parametrize("kind", OFFERS)
def test_package_is_clean_and_carries_its_own_names(generate, kind, name):
    folder = generate(name, kind)
    files = [path for path in folder.rglob("*") if path.is_file()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files) + str(files)
    assert not [word for word in TEMPLATE_NAMES if word in text]
    assert not [path for path in files if path.suffix == ".tmpl"]
    for command in (["check"], ["format", "--check", "--diff"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=folder, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", OFFERS)
def test_types_of_a_package_are_right(generate, kind, tmp_path_factory):
    folder = generate("mlhooks-tried", kind)
    cache = tmp_path_factory.getbasetemp() / "mypy"  # All kinds share one cache, which saves a lot of time.
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", ["mlhooks-x", LONG])
@pytest.mark.parametrize("kind", OFFERS)
def test_comments_behind_the_commands_of_the_readme_stand_below_each_other(tmp_path, kind, name):
    write_package(kind, tmp_path / "new", names_for(name))
    lines = (tmp_path / "new" / "README.md").read_text(encoding="utf-8").splitlines()
    commented = [line for line in lines if "  # " in line]
    assert len(commented) == 4
    assert len({line.index("# ") for line in commented}) == 1
    assert min(len(line.partition("#")[0]) - len(line.partition("#")[0].rstrip()) for line in commented) == 2


def test_off_policy_trainer_package_learns_by_its_configuration(generate):
    folder = generate("mlhooks-tried", "off-policy-trainer")
    changes = ["behaviors.Basic.max_steps=16000", "env_settings.seed=1"]
    run = mlhooks.train(
        folder / "example.yaml", plugin_names=QUIET, strict_plugins=True, overrides=changes, run_id="tried"
    )
    assert run.trainers["Basic"].mean_reward > 0.85  # The small reward alone gives less than 0.1.
    assert mlhooks.load(run.path).predict([0.0] * 20) in range(3)


def test_trainer_package_trains_by_its_configuration(generate):
    folder = generate("mlhooks-tried", "trainer")
    settings = {"max_steps": 1200, "summary_freq": 600, "hyperparameters.buffer_size": 600}
    changes = [f"behaviors.3DBall.{key}={value}" for key, value in settings.items()]
    run = mlhooks.train(
        folder / "example.yaml", plugin_names=QUIET, strict_plugins=True, overrides=changes, run_id="tried"
    )
    assert type(run.trainers["3DBall"]).__name__ == "TriedTrainer"
    assert run.trainers["3DBall"].updates == 2
    assert mlhooks.load(run.path).predict([0.0] * 8).shape == (2,)


def test_environment_package_trains_by_its_configuration(generate):
    folder = generate("mlhooks-tried", "env")
    changes = ["behaviors.Line.max_steps=1200"]
    run = mlhooks.train(
        folder / "example.yaml", plugin_names=QUIET, strict_plugins=True, overrides=changes, run_id="tried"
    )
    assert run.trainers["Line"].episodes.finished > 10


def test_stats_writer_package_writes(generate):
    generate("mlhooks-tried", "stats-writer")
    run = mlhooks.train(
        config("Basic", "sim:Basic"), plugin_names=QUIET, strict_plugins=True, run_id="tried", results_dir="results"
    )
    assert run.outcome.files["tried"] == [run.path / "tried.csv"]
    header, *rows = (run.path / "tried.csv").read_text(encoding="utf-8").splitlines()
    assert header == "behavior,step,key,value,count"
    assert [row.split(",")[1] for row in rows if "Policy/Entropy" in row] == ["200", "400", "600"]


@pytest.mark.parametrize("kind", ["trainer", "off-policy-trainer", "env"])
def test_example_configuration_is_valid(generate, kind):
    folder = generate("mlhooks-tried", kind)
    loaded = load_run_options(folder / "example.yaml", SettingsRegistry.from_plugins(load_plugins()))
    assert loaded.warnings == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", OFFERS)
def test_package_passes_its_tests_and_the_conformance_run(generate, kind):
    folder = generate("mlhooks-tried", kind)
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pytest", "--mlhooks-plugin", "tried"]
    result = subprocess.run(
        command, cwd=folder, env=os.environ | paths, capture_output=True, text=True, timeout=280, check=False
    )
    assert result.returncode == 0, result.stdout


def test_it_says_what_to_do_next(generate, capsys):
    generate("mlhooks-tried", "trainer")
    out = capsys.readouterr().out
    assert "  src/mlhooks_tried/__init__.py\n" in out
    for step in (
        "cd mlhooks-tried\n",
        "pip install -e '.[dev]'\n",
        "pytest --mlhooks-plugin tried ",
        "mlhooks run exa",
    ):
        assert f"  {step}" in out


def test_existing_folder_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tried").mkdir()
    assert main(["plugins", "new", "tried", "--kind", "env"]) == 2
    assert "tried exists already" in capsys.readouterr().err
    assert list((tmp_path / "tried").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("9lives", "no name for a package"),
        ("a b", "no name for a package"),
        ("../up", "no name for a package"),
        ("tail-", "no name for a package"),
        ("", "no name for a package"),
        ("json", "a module or a word 'json' already"),
        ("class", "a module or a word 'class' already"),
        ("mlhooks", "a module or a word 'mlhooks' already"),
        ("torch", "a module or a word 'torch' already, .* such as mlhooks-my-torch"),
        ("PyTest", "a module or a word 'pytest' already"),
        ("mlhooks-ppo", r"there is a plugin 'ppo' already, of plugin 'ppo' \(mlhooks "),
    ],
)
def test_unfit_name_is_refused(name, reason):
    with pytest.raises(UsageError, match=reason):
        names_for(name)


def test_name_is_written_as_packages_are():
    assert names_for("MLHooks_Soft.Actor") == {
        "my-distribution": "mlhooks-soft-actor",
        "my_module": "mlhooks_soft_actor",
        "my-plugin": "soft-actor",
        "MyPlugin": "SoftActor",
    }


@pytest.mark.parametrize(
    ("said", "guess"),
    [("trainr", "trainer"), ("off-policy-trainr", "off-policy-trainer"), ("enviroment", "environment")],
)
def test_unknown_kind_is_refused_with_the_nearest_and_all_kinds(tmp_path, monkeypatch, capsys, said, guess):
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "tried", "--kind", said]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"{said!r} is no kind of plugin; did you mean {guess}?" in message
    assert f"The kinds are {', '.join(OFFERS)}." in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        *((kind, kind) for kind in OFFERS),
        ("on-policy-trainer", "trainer"),
        ("trainer-off-policy", "off-policy-trainer"),
        ("Off_Policy", "off-policy-trainer"),
        ("writer", "stats-writer"),
        ("environment", "env"),
    ],
)
def test_kind_has_other_names_that_people_guess(said, kind):
    assert Kind().convert(said, None, None) == kind
    assert set(MEANT.values()) == set(OFFERS)


def test_help_lists_the_kinds(capsys):
    assert main(["plugins", "new", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "another loss or another policy network for PPO; reward-signal, a reward signal; stats-writer" in text
    assert [item.value for item in Kind().shell_complete(None, None, "off")] == ["off-policy-trainer"]


@pytest.mark.parametrize("kind", OFFERS)
def test_files_to_publish_are_built_by_what_is_installed_and_stay_out_of_the_repository(generate, kind):
    folder = generate("mlhooks-tried", kind)
    dev = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"][
        "dev"
    ]
    assert "python -m build " in (folder / "README.md").read_text(encoding="utf-8")
    assert any(requirement.startswith("build>=") for requirement in dev)
    assert "/dist/" in (folder / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_every_kind_has_a_whole_package():
    for kind in OFFERS:
        files = {path.relative_to(TEMPLATES / kind).as_posix() for path in (TEMPLATES / kind).rglob("*")}
        assert {"pyproject.toml.tmpl", "README.md.tmpl", "tests/test_my_module.py.tmpl"} <= files

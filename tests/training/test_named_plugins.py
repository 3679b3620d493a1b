"""Plugins that a configuration names: loaded for every run of it, and found again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import mlhooks
from mlhooks.errors import MlhooksError, PluginError, PluginUnfit, SettingsError, UsageError
from mlhooks.settings import read_configuration
from mlhooks.training.named_plugins import NamedPlugins, name_all_plugins
from tests.scripted import QUIET, config
from tests.training.conftest import NOTE

pytestmark = pytest.mark.usefixtures("notes")
TRAINER = """
import sys
from builtin_plugins.ppo import PPOTrainer
from mlhooks import hookimpl
from mlhooks.settings import SettingsModel

class Settings(SettingsModel):
    word: str = "hello"

@hookimpl
def get_trainer_types():
    return {"mine": type("Mine", (PPOTrainer,), {})}

@hookimpl
def get_plugin_settings():
    return {"mine": Settings}

@hookimpl
def configure(options):
    sys.notes.append(options.plugins.settings["mine"].word)
"""


@pytest.fixture
def ball(write: Callable[..., Path], tmp_path: Path) -> Path:
    """A configuration of 3DBall with a trainer type of the plugin beside it."""
    write("project/mine.py", TRAINER)
    settings = config("3DBall", "sim:3DBall", max_steps=200, trainer_type="mine")
    path = tmp_path / "project" / "ball.yaml"
    path.write_text(
        yaml.safe_dump({**settings, "plugins": {"load": ["mine.py"], "settings": {"mine": {"word": "hi"}}}})
    )
    return path


def train(source: Any = None, **arguments: Any) -> Any:
    return mlhooks.train(source, **{"plugin_names": QUIET, "run_id": "run", "results_dir": "results", **arguments})


def stored(run: str = "run") -> dict[str, Any]:
    section: dict[str, Any] = yaml.safe_load(Path("results", run, "configuration.yaml").read_text())["plugins"]
    return section


def longer(run: str = "run") -> list[str]:
    return ["behaviors.3DBall.max_steps=400"]


def name_plugins(tmp_path: Path, section: str, **arguments: Any) -> NamedPlugins:
    path = tmp_path / "config.yaml"
    path.write_text(f"behaviors: {{}}\nplugins: {section}\n")
    return name_all_plugins(read_configuration(path), **arguments)


def test_run_loads_what_its_configuration_names_and_gives_it_its_settings(ball: Path, notes: list[str]) -> None:
    run = train(ball)
    assert run.trainers["3DBall"].settings.trainer_type == "mine"
    assert notes == ["hi"]
    assert stored() == {
        "load": [str(ball.with_name("mine.py"))],
        "block": ["console", "tensorboard", "curve", "onnx_export"],
        "settings": {"mine": {"word": "hi"}},
    }


def test_resumed_run_knows_its_plugins_from_any_folder(
    ball: Path, notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(ball)
    monkeypatch.chdir(ball.parent)
    place = {"results_dir": tmp_path / "results", "overrides": longer(), "plugin_names": []}
    assert train(resume=True, **place).trainers["3DBall"].step >= 400
    other = train(tmp_path / "results" / "run" / "configuration.yaml", run_id="other", results_dir=tmp_path / "results")
    assert other.trainers["3DBall"].step >= 200
    watched = train(**{**place, "overrides": []}, flags={"checkpoint_settings.inference": True}, episodes=1)
    assert watched.evaluation is not None
    assert notes == ["hi"] * 4


def test_resumed_run_takes_what_the_command_line_had_named(write: Callable[..., Path], notes: list[str]) -> None:
    write("named.py"), write("folder/inside.py"), write("folder/outside.py")
    settings = config("3DBall", "sim:3DBall", max_steps=200)
    train(settings, plugin_names=[*QUIET, "named.py", "no:outside"], plugins_dir=Path("folder"))
    assert notes == ["named", "inside"]
    assert stored()["load"] == [str(Path("named.py").absolute()), str(Path("folder", "inside.py").absolute())]
    assert stored()["block"] == ["console", "tensorboard", "curve", "onnx_export", "outside"]
    run = train(resume=True, overrides=longer(), plugin_names=[])
    assert notes == ["named", "inside"] * 2
    assert not run.plugins.has_plugin("console")
    train(resume=True, overrides=["behaviors.3DBall.max_steps=600"], plugin_names=[], plugins_dir=Path("folder"))
    assert notes == ["named", "inside"] * 3


def test_file_that_has_moved_is_named_again(ball: Path, notes: list[str]) -> None:
    train(ball)
    moved = ball.parent.parent / "elsewhere" / "mine.py"
    moved.parent.mkdir()
    ball.with_name("mine.py").rename(moved)
    own = Path("results", "run", "configuration.yaml")
    line = own.read_text().splitlines().index(f"  - {ball.with_name('mine.py')}") + 1
    with pytest.raises(SettingsError) as caught:
        train(resume=True, overrides=longer())
    assert str(caught.value) == (
        f"{own}:{line}:5: plugins.load.0: there is no file {ball.with_name('mine.py')}; "
        "say where it is now by -p, or go on without it by -p no:mine"
    )
    train(resume=True, overrides=longer(), plugin_names=[*QUIET, str(moved)])
    assert stored()["load"] == [str(moved)]
    assert notes == ["hi", "hi"]


@pytest.mark.parametrize(
    ("section", "names", "folder", "loaded", "load", "block"),
    [
        ("{load: [a.py, b.py]}", [], None, ["a", "b"], ["a.py", "b.py"], []),
        ("{load: [a.py, b.py]}", ["no:a"], None, ["b"], ["b.py"], ["a"]),
        ("{load: [a.py, b.py]}", ["no:sub/a.py"], None, ["b"], ["b.py"], ["a"]),
        ("{load: [a.py, b.py]}", ["a.py"], None, ["b", "a"], ["b.py", "a.py"], []),
        ("{load: [a.py, b.py]}", ["sub/a.py"], None, ["b", "a"], ["b.py", "sub/a.py"], []),
        ("{load: [a.py, a.py]}", [], None, ["a"], ["a.py"], []),
        ("{load: [a.py]}", [], "sub", ["a"], ["sub/a.py"], []),
        ("{block: [a]}", [], "sub", [], [], ["a"]),
        ("{block: [a]}", ["a.py"], None, ["a"], ["a.py"], []),
        ("{block: [a.py]}", ["a.py"], None, ["a"], ["a.py"], []),
        ("{block: [curve]}", ["curve", "no:jsonl"], None, [], ["curve"], ["jsonl"]),
        ("{block: [curve]}", ["no:curve"], None, [], [], ["curve"]),
        ("{block: [builtin_plugins.curve]}", [], None, [], [], ["builtin_plugins.curve"]),
        ("{load: [a.py]}", ["a.py", "no:a"], None, [], [], ["a"]),
    ],
)
def test_command_line_is_added_and_wins(
    write: Callable[..., Path],
    tmp_path: Path,
    notes: list[str],
    section: str,
    names: list[str],
    folder: str | None,
    loaded: list[str],
    load: list[str],
    block: list[str],
) -> None:
    write("a.py"), write("b.py"), write("sub/a.py")
    named = name_plugins(tmp_path, section, names=names, plugins_dir=folder and Path(folder))
    manager = named.load()
    assert notes == loaded
    both = named.configuration.plugins
    assert both is not None
    assert both.load == [str(tmp_path / path) if path.endswith(".py") else path for path in load]
    assert both.block == block
    assert manager.has_plugin("curve") == ("curve" not in block and "builtin_plugins.curve" not in block)


def test_override_names_plugins_too(write: Callable[..., Path], tmp_path: Path, notes: list[str]) -> None:
    write("a.py"), write("b.py")
    named = name_plugins(tmp_path, "{load: [a.py]}", overrides=["plugins.load=[b.py]", "behaviors.A.wrong=3"])
    named.load()
    assert notes == ["b"]


def test_installed_plugin_and_module_are_loaded_by_name(
    install: Any, tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(
        "grid-dist", {"grid": "grid_plugin"}, grid_plugin=NOTE.format(name="grid"), alone=NOTE.format(name="alone")
    )
    monkeypatch.setenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", "1")
    manager = name_plugins(tmp_path, "{load: [alone, grid]}").load()
    assert notes == ["alone", "grid"]
    site.joinpath("grid_plugin.py").write_text("1 / 0")
    del sys.modules["grid_plugin"]
    with pytest.raises(
        PluginError, match=r"config\.yaml:2:25: plugins\.load\.1: plugin 'grid' \(grid-dist 1\.2\) does not"
    ):
        name_plugins(tmp_path, "{load: [alone, grid]}").load()
    assert manager.others == {"alone": "module alone", "grid": "grid-dist 1.2"}


@pytest.mark.parametrize(
    ("section", "files", "kind", "message"),
    [
        ("{load: [mien.py]}", {"mine.py": ""}, SettingsError, "there is no file FOLDER/mien.py; did you mean mine.py?"),
        ("{load: [my_mod]}", {}, SettingsError, "there is no plugin or module 'my_mod'"),
        ("{load: [tensorbord]}", {}, SettingsError, "module 'tensorbord'; did you mean tensorboard?"),
        ("{load: [mine]}", {"mine.py": ""}, SettingsError, "for the file beside the configuration, write mine.py"),
        ("{load: [mine.py]}", {"mine.py": "1 / 0"}, PluginError, "division by zero (FOLDER/mine.py:1)"),
        ("{load: [mine.py]}", {"mine.py": "x = ("}, PluginError, "SyntaxError"),
        ("{load: [mine.py]}", {"mine.py": "x = 1"}, PluginUnfit, "implements no hooks"),
        ("{load: [curve.py]}", {"curve.py": NOTE.format(name="")}, PluginUnfit, "Two plugins claim the name 'curve'"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_named_with_file_and_line(
    write: Callable[..., Path],
    tmp_path: Path,
    section: str,
    files: dict[str, str],
    kind: type[MlhooksError],
    message: str,
) -> None:
    for name, text in files.items():
        write(name, text)
    named = name_plugins(tmp_path, section)
    with pytest.raises(kind) as caught:
        named.load()
    text = str(caught.value).replace(str(tmp_path), "FOLDER").replace("\\", "/")
    assert text.startswith("FOLDER/config.yaml:2:18: plugins.load.0: ")
    assert message in text
    assert "-p mi" not in text
    if isinstance(caught.value, UsageError):
        (finding,) = caught.value.findings
        assert (finding.line, finding.column, finding.key) == (2, 18, "plugins.load.0")


def test_error_of_the_command_line_is_not_blamed_on_the_configuration(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    write("a.py")
    with pytest.raises(UsageError, match=r"^-p mine\.py: there is no file .*mine\.py$") as caught:
        name_plugins(tmp_path, "{load: [a.py]}", names=["mine.py"]).load()
    assert caught.value.findings == ()


def test_blocking_what_is_not_there_is_a_warning_with_the_nearest_name(tmp_path: Path) -> None:
    (finding,) = name_plugins(tmp_path, "{block: [tensorbord, of_somebody_else]}").configuration.findings
    assert (finding.severity, finding.line, finding.key) == ("warning", 2, "plugins.block.0")
    assert finding.nearest == "tensorboard"


@pytest.mark.parametrize("load", ["sim_en.py", "sim_en"])
def test_blocking_what_the_configuration_names_is_no_mistake(
    tmp_path: Path, load: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager = name_plugins(tmp_path, f"{{load: [{load}]}}", names=["no:sim_en"]).load()
    assert not manager.has_plugin("sim_en")
    assert caplog.text == ""
    name_plugins(tmp_path, "{}", names=["no:sim_en"]).load()
    assert "-p no:sim_en blocks nothing that is installed; did you mean sim_env?" in caplog.text


def test_section_that_is_wrong_is_refused_before_anything_is_imported(
    write: Callable[..., Path], tmp_path: Path, notes: list[str]
) -> None:
    write("a.py")
    with pytest.raises(SettingsError, match=r"config\.yaml:2:11: plugins\.lode: unknown key"):
        name_plugins(tmp_path, "{lode: [x], load: [a.py]}")
    assert notes == []


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "A: {trainer: ppo, batch_size: 3}", "plugins: {trainer: ppo}"])
def test_files_that_are_no_configurations_are_refused_as_ever(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"odd\.yaml"):
        train(path)


def test_mapping_names_plugins_of_the_working_directory(write: Callable[..., Path], notes: list[str]) -> None:
    write("a.py")
    named = name_all_plugins(read_configuration({"behaviors": {}, "plugins": {"load": ["a.py"]}}))
    named.load()
    assert notes == ["a"]


def test_load_imports_installed_plugins_and_those_that_are_named(
    ball: Path, notes: list[str], write: Callable[..., Path], tmp_path: Path
) -> None:
    train(ball)
    notes.clear()
    own = tmp_path / "results" / "run"
    for path in (own, own / "3DBall.policy.pt"):
        with pytest.raises(SettingsError, match="no installed plugin provides this trainer type") as caught:
            mlhooks.load(path)
        (note,) = caught.value.__notes__
        assert note.startswith(f"The run was made with the plugins 'mine' (file {ball.with_name('mine.py')})")
        assert mlhooks.load(path, plugin_names=[str(ball.with_name("mine.py"))]).behavior_name == "3DBall"
        assert mlhooks.load(path, plugins_dir=ball.parent).behavior_name == "3DBall"
        evil = write("results/run/evil.py")
        with pytest.raises(UsageError, match="the folder of a run"):
            mlhooks.load(path, plugin_names=[str(evil)])
        evil.unlink()
    assert notes == []


@pytest.mark.parametrize("named", [{"plugin_names": Path("a.py")}, {"plugin_names": "a.py"}, {"plugins_dir": "."}])
def test_plugins_may_be_named_by_paths_and_texts(
    notes: list[str], write: Callable[..., Path], named: dict[str, Any]
) -> None:
    settings = config("3DBall", "sim:3DBall", max_steps=200)
    train(settings)
    write("a.py")
    mlhooks.load("results/run", **named)
    with pytest.raises(UsageError, match="holds the results of an earlier run"):
        mlhooks.train(settings, run_id="run", **named)
    assert notes == ["a", "a"]

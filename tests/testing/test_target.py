from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mlhooks.errors import UsageError
from mlhooks.testing.collection import applicable
from mlhooks.testing.target import Target, resolve

WRITER = "from mlhooks import hookimpl\n\n\n@hookimpl\ndef write_stats(values): ...\n"
TRAINER = """
from builtin_plugins.a2c import A2CTrainer
from mlhooks import hookimpl


@hookimpl
def get_trainer_types():
    return {"ppo": A2CTrainer}
"""


def only(text: str) -> Target:
    (target,) = resolve(text)
    return target


def test_built_in_plugins_go_by_both_names() -> None:
    assert only("ppo").importing == only("builtin_plugins.ppo").importing == ("module", "builtin_plugins.ppo")
    assert only("ppo").replaces == ()


def test_installed_plugin_goes_by_its_name_and_by_its_distribution(install: Callable[..., Path]) -> None:
    install("mlhooks-table", {"table": "table_plugin", "other": "table_plugin:PLUGIN"}, table_plugin=WRITER)
    assert only("table").importing == ("module", "table_plugin")
    assert [target.name for target in resolve("mlhooks_table")] == ["other", "table"]


def test_file_is_a_target(tmp_path: Path) -> None:
    (tmp_path / "table.py").write_text(WRITER)
    target = only(str(tmp_path / "table.py"))
    assert (target.name, target.importing[0]) == ("table", "file")
    assert applicable(target) == ["every_plugin", "stats_writers", "writer_runs"]
    assert target.manager().is_registered(target.plugin)


def test_folder_is_a_project_a_package_or_files(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "src" / "kit_project_package").mkdir(parents=True)
    (project / "pyproject.toml").write_text(
        '[project]\nname = "p"\nversion = "1"\n[project.entry-points.mlhooks]\nmine = "kit_project_package"\n'
    )
    (project / "src" / "kit_project_package" / "__init__.py").write_text(WRITER)
    files = tmp_path / "files"
    files.mkdir()
    for name in ("a.py", "b.py", "_hidden.py"):
        (files / name).write_text(WRITER)
    (files / "script.py").write_text("raise SystemExit(3)")
    assert only(str(project)).name == "mine"
    assert only(str(project)).candidate.origin.distribution == "p"
    assert only(str(project)).implements("write_stats")
    assert only(str(project / "src" / "kit_project_package")).name == "kit_project_package"
    assert [target.name for target in resolve(str(files))] == ["a", "b"]


def test_module_of_the_current_folder_is_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kit_local_module.py").write_text(WRITER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    target = only("kit_local_module")
    assert target.paths == [str(tmp_path)]
    assert target.implements("write_stats")


@pytest.mark.parametrize("text", ["tensorbord", "nowhere/x.py", "./nowhere"])
def test_what_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text.removeprefix("./"))):
        resolve(text)


def test_nearest_name_is_offered() -> None:
    with pytest.raises(UsageError, match="did you mean tensorboard"):
        resolve("tensorbord")


def test_folder_without_plugins_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no plugin"):
        resolve(str(tmp_path))


def test_target_takes_the_place_of_a_built_in_that_offers_the_same(tmp_path: Path) -> None:
    (tmp_path / "my_ppo.py").write_text(TRAINER)
    (tmp_path / "jsonl.py").write_text(WRITER)
    target = only(str(tmp_path / "my_ppo.py"))
    assert target.replaces == ("ppo",)
    assert target.manager().collect_mapping("get_trainer_types")["ppo"].__name__ == "A2CTrainer"
    assert only(str(tmp_path / "jsonl.py")).replaces == ("jsonl",)


def test_plugin_that_does_not_import_gets_the_check_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no')")
    assert applicable(only(str(tmp_path / "broken.py"))) == ["every_plugin"]

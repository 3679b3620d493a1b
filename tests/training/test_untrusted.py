"""Nothing that lies in the folder of a run is imported, by whatever way its configuration leads there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import mlhooks
from mlhooks.errors import SettingsError, UsageError
from mlhooks.settings import read_configuration
from mlhooks.training.named_plugins import name_all_plugins
from tests.scripted import config
from tests.training.test_named_plugins import train

pytestmark = pytest.mark.usefixtures("notes")


def make_run(folder: Path, *, complete: bool) -> Path:
    """Return a folder that is a run's, by what is in it, or that has no more than a configuration."""
    folder.mkdir(parents=True)
    if complete:
        (folder / ".mlhooks-lock").touch()
    (folder / "configuration.yaml").write_text("behaviors: {}\n")
    return folder


def say(folder: Path, *load: object) -> None:
    text = yaml.safe_dump({"behaviors": {}, "plugins": {"load": [str(entry) for entry in load]}})
    (folder / "configuration.yaml").write_text(text)


LINKS = [] if sys.platform == "win32" else ["link from outside", "link inside", "outer link"]  # It wants a privilege.
REFUSED = r"lies in results.x, the folder of a run\. Such a folder may come from somebody else"


@pytest.mark.parametrize("flag", ["resume", "inference"])
@pytest.mark.parametrize("how", ["absolute", *LINKS, "command line", "another configuration"])
def test_run_that_goes_on_imports_no_file_of_its_folder(
    write: Callable[..., Path], tmp_path: Path, notes: list[str], flag: str, how: str
) -> None:
    folder = make_run(tmp_path / "results" / "x", complete=False)
    inside, outside = write("results/x/evil.py"), tmp_path / "evil.py"
    if how == "absolute":
        say(folder, inside)
    elif how == "link from outside":
        outside.symlink_to(inside)
        say(folder, outside)
    elif how == "link inside":
        inside.rename(outside)
        inside.symlink_to(outside)
        say(folder, inside)
    elif how == "outer link":
        (tmp_path / "link").symlink_to(folder)
        say(folder, tmp_path / "link" / "evil.py")
    names = ["results/x/evil.py"] if how == "command line" else []
    source = {"behaviors": {}, "plugins": {"load": ["results/x/evil.py"]}} if how == "another configuration" else None
    expected = REFUSED if how != "outer link" else "the folder of a run"
    with pytest.raises(UsageError, match=expected):
        train(source, run_id="x", flags={f"checkpoint_settings.{flag}": True}, plugin_names=names)
    assert notes == []


def test_relative_path_in_the_configuration_of_a_run_that_goes_on_is_not_followed(
    write: Callable[..., Path], tmp_path: Path, notes: list[str]
) -> None:
    folder = make_run(tmp_path / "results" / "x", complete=True)
    write("results/evil.py")
    say(folder, "../evil.py")
    with pytest.raises(SettingsError, match=r"configuration\.yaml:\d+:\d+: plugins\.load\.0: a run stores absolute"):
        train(run_id="x", resume=True)
    manager = name_all_plugins(read_configuration(folder / "configuration.yaml"), names=["no:evil"], stored=True).load()
    assert not manager.has_plugin("evil")
    assert notes == []


@pytest.mark.parametrize("name", ["evil", "evil.sub", "empty.evil"])
def test_module_in_the_folder_of_a_run_is_not_imported(
    write: Callable[..., Path], tmp_path: Path, notes: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "results" / "x", complete=False)
    write({"evil": "results/x/evil.py", "evil.sub": "results/x/evil/__init__.py"}.get(name, "results/x/empty/evil.py"))
    if name == "evil.sub":
        write("results/x/evil/sub.py")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend("")
    say(folder, name)
    with pytest.raises(UsageError, match="the folder of a run"):
        train(run_id="x", results_dir=tmp_path / "results", resume=True)
    assert notes == []


def test_package_in_the_folder_of_a_run_is_not_taken_for_an_installed_plugin(
    write: Callable[..., Path], tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "results" / "x", complete=False)
    write("results/x/evil/__init__.py")
    write("results/x/evil/sub.py")
    write("results/x/evil_dist-1.dist-info/METADATA", "Name: evil-dist\nVersion: 1\n")
    for group in ("mlhooks", "mlagents.stats_writer"):
        write("results/x/evil_dist-1.dist-info/entry_points.txt", f"[{group}]\nevil = evil.sub:thing\n")
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend("")
        with pytest.raises(UsageError, match=r"'evil' \(evil-dist 1\) lies in .*, the folder of a run"):
            train(run_id="x", results_dir=tmp_path / "results", resume=True)
        name_all_plugins(read_configuration("configuration.yaml"), names=["no:evil"], stored=True).load()
    assert notes == []


def test_new_run_imports_nothing_of_the_folders_of_others(
    write: Callable[..., Path], tmp_path: Path, notes: list[str]
) -> None:
    folder = make_run(tmp_path / "results" / "x", complete=True)
    write("results/x/sub/evil.py")
    say(folder, "sub/evil.py")
    with pytest.raises(UsageError, match=REFUSED):
        train(folder / "configuration.yaml", run_id="y")
    with pytest.raises(UsageError, match=REFUSED):
        train(config("3DBall", "sim:3DBall"), run_id="y", plugin_names=["results/x/sub/evil.py"])
    with pytest.raises(UsageError, match=REFUSED):
        train(config("3DBall", "sim:3DBall"), run_id="y", plugins_dir=folder / "sub")
    assert notes == []


def test_load_refuses_files_of_a_folder_that_is_not_known_to_be_a_runs(
    tmp_path: Path, notes: list[str], write: Callable[..., Path]
) -> None:
    evil = write("foreign/evil.py")
    with pytest.raises(UsageError, match="the folder of a run"):
        mlhooks.load(evil.parent, plugin_names=[os.path.relpath(evil)])
    assert notes == []

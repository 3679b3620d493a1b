"""Which environments of a plugin are tried."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mlhooks.testing.environments import environments_of
from mlhooks.testing.target import resolve

PLUGIN = """
from mlhooks import hookimpl

@hookimpl
def get_env_types():
    return {"grid": print}
"""


@pytest.mark.parametrize(
    ("listed", "tried"),
    [
        ("", ["grid:default"]),
        ("conformance_environments = ('grid:Small', 'other:Large')", ["grid:Small"]),
        ("def conformance_environments(folder): return ['grid:' + folder.name]", ["grid:made"]),
    ],
)
def test_plugin_says_what_is_tried(tmp_path: Path, listed: str, tried: list[str]) -> None:
    (tmp_path / "grid.py").write_text(PLUGIN + listed)
    (target,) = resolve(str(tmp_path / "grid.py"))
    assert environments_of(target, [], tmp_path / "made") == tried
    assert environments_of(target, ["grid:Given"], tmp_path / "made") == ["grid:Given"]


@pytest.mark.skipif(sys.platform == "win32", reason="which starts no scripts as programs")
def test_unity_players_are_tried_by_the_stand_in(tmp_path: Path) -> None:
    (target,) = resolve("unity_env")
    tried = environments_of(target, [], tmp_path)
    assert [Path(path).name for path in tried] == ["3DBall", "GridWorld"]
    assert all(os.access(path, os.X_OK) for path in tried)

"""Which environments of a plugin are tried."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from mlagents_envs.base_env import DecisionSteps

from mlhooks.testing.checks.environments import _misfit
from mlhooks.testing.environments import environments_of
from mlhooks.testing.specs import make_behavior_spec
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


def test_images_may_be_bytes_and_vectors_may_not() -> None:
    spec = make_behavior_spec((2, (1, 3, 4)))
    steps = DecisionSteps.empty(spec)
    assert _misfit(spec, steps) is None
    steps.obs[1] = steps.obs[1].astype(np.uint8)
    assert _misfit(spec, steps) is None
    steps.obs[0] = steps.obs[0].astype(np.uint8)
    assert _misfit(spec, steps) == "observation 0 has the type uint8 instead of float32"
    steps.obs = [part.astype(np.float64) for part in steps.obs]
    steps.obs[0] = steps.obs[0].astype(np.float32)
    assert _misfit(spec, steps) == "observation 1 has the type float64 instead of float32 or uint8"


@pytest.mark.skipif(sys.platform == "win32", reason="which starts no scripts as programs")
def test_unity_players_are_tried_by_the_stand_in(tmp_path: Path) -> None:
    (target,) = resolve("unity_env")
    tried = environments_of(target, [], tmp_path)
    assert [Path(path).name for path in tried] == ["3DBall", "GridWorld"]
    assert all(os.access(path, os.X_OK) for path in tried)

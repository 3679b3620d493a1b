"""Run IDs stay below the results folder, and are names that the system takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlhooks.errors import UsageError
from mlhooks.settings import base as paths
from tests.scripted import Env, config, train
from tests.training.test_run_folder import SETTINGS, files, write


@pytest.mark.parametrize(
    ("run_id", "message"),
    [
        ("..", "leads out"),
        (".", "leads out"),
        ("../precious", "leads out"),
        ("a/../../precious", "leads out"),
        ("..\\precious", "leads out"),
        ("/precious", "an absolute path: give only .* as in 'precious'"),
        ("\\\\host\\share", "leads out"),
        ("C:\\precious", "an absolute path: give only .* as in 'precious'"),
        ("C:precious", "leads out"),
        ("a//b", "a slash too many"),
        ("a/", "a slash too many"),
        ("a\nb", "control character"),
        ("a\\b", "has a backslash"),
    ],
)
@pytest.mark.parametrize("by", ["flag", "file"])
def test_run_id_stays_below_the_results_folder(tmp_path: Path, run_id: str, message: str, by: str) -> None:
    write(tmp_path, "precious/a.txt", "results/precious/a.txt")
    settings = {**SETTINGS, "checkpoint_settings": {"run_id": run_id}} if by == "file" else SETTINGS
    given = {"run_id": None if by == "file" else run_id}
    before = files(tmp_path)
    with pytest.raises(UsageError, match=message):
        train(settings, tmp_path / "results", Env(), force=True, **given)
    assert files(tmp_path) == before


@pytest.mark.parametrize("run_id", ["con", "x/LPT1.txt", "why?", "12:30", "end.", "a /b"])
def test_run_id_is_a_name_that_the_system_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_id: str) -> None:
    monkeypatch.setattr(paths, "_ON_WINDOWS", True)
    with pytest.raises(UsageError, match="which Windows does not take for a name"):
        train(SETTINGS, tmp_path, Env(), run_id=run_id)
    monkeypatch.setattr(paths, "_ON_WINDOWS", False)
    if sys.platform != "win32":
        assert train(SETTINGS, tmp_path, Env(), run_id=run_id).path == tmp_path / run_id


def test_run_id_with_a_slash_and_a_percent_sign_is_fine(tmp_path: Path) -> None:
    run = train(SETTINGS, tmp_path, Env(), run_id="lr/50%")
    assert run.path == tmp_path / "lr" / "50%"
    again = train(None, tmp_path, Env(), run_id="lr/50%", resume=True, overrides=["behaviors.Corridor.max_steps=200"])
    assert (again.run_id, again.path) == ("lr/50%", run.path)


@pytest.mark.parametrize(
    ("run_id", "behavior", "message"),
    [
        ("x" * 300, "Corridor", r"'x{20}\.\.\.x{17}' is too long .*: it has 300 bytes, and a name may have 255"),
        ("a/" + "ä" * 200, "Corridor", "it has 400 bytes"),
        ("/".join(["x" * 200] * 25), "Corridor", "a path may have 4095"),
        ("run", "y" * 240, "its files' names would have"),
    ],
    ids=["name", "name in bytes", "path", "behavior"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
def test_names_that_are_too_long_are_refused_before_training(
    tmp_path: Path, run_id: str, behavior: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(config(behavior, "test:x"), tmp_path, Env(), run_id=run_id)
    assert list(tmp_path.iterdir()) == []

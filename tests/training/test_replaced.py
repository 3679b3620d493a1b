"""With --force, the results of an earlier run are gone when the new one has something to show, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builtin_plugins.single_behavior import SingleBehaviorEnv
from mlhooks import hookimpl
from mlhooks.errors import (
    MlhooksError,
    UsageError,
)
from mlhooks.training.replaced import ReplacedResults
from tests.scripted import Corridor, Env, config, train

SETTINGS = config("Corridor", "test:x", max_steps=100)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Broken(Corridor):
    def reset(self) -> None:
        raise RuntimeError("no door")


class Silent:
    """Stops the run before its first step, as Ctrl-C does while a player starts."""

    @hookimpl
    def run_started(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("settings", "make", "plugins", "error"),
    [
        (SETTINGS, Broken, [], MlhooksError),
        (config("Corridr", "test:x"), Corridor, [], UsageError),
        (SETTINGS, Corridor, [Silent()], None),
    ],
    ids=["environment fails", "wrong behavior name", "interrupted"],
)
def test_earlier_results_stay_when_the_run_takes_no_step(
    tmp_path: Path,
    settings: dict[str, Any],
    make: type[SingleBehaviorEnv],
    plugins: list[object],
    error: type[Exception] | None,
) -> None:
    train(SETTINGS, tmp_path, Env())
    before = contents(tmp_path)
    if error is None:
        assert train(settings, tmp_path, Env(make), *plugins, force=True).outcome.status == "interrupted"
    else:
        with pytest.raises(error):
            train(settings, tmp_path, Env(make), *plugins, force=True)
    assert contents(tmp_path) == before
    assert train(config("Corridor", "test:x", max_steps=200), tmp_path, Env(), resume=True).outcome.status == "finished"


def test_earlier_results_are_gone_when_the_run_has_begun(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path, Env())
    (tmp_path / "run" / "notes.txt").write_text("old")
    train(SETTINGS, tmp_path, Env(), force=True)
    assert not (tmp_path / "run" / "notes.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_a_killed_run_put_aside_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "old.txt").write_text("old")
    ReplacedResults(path).put_aside()
    path.mkdir()  # by a run that was killed at once
    again = ReplacedResults(path)
    again.put_aside()
    (path / "run_logs").mkdir(parents=True)
    (path / "run_logs" / "Player-0.log").write_text("why")
    assert again.bring_back()
    assert contents(path) == {"old.txt": b"old", str(Path("run_logs", "Player-0.log")): b"why"}
    assert not again.bring_back()


@pytest.mark.parametrize("arguments", [{}, {"resume": True}, {"flags": {"checkpoint_settings.inference": True}}])
def test_what_a_killed_run_put_aside_is_named_unless_forced(tmp_path: Path, arguments: dict[str, Any]) -> None:
    train(SETTINGS, tmp_path, Env())
    replaced = ReplacedResults(tmp_path / "run")
    replaced.put_aside()
    replaced.path.mkdir()
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"Move them back to .*--force") as caught:
        train(SETTINGS, tmp_path, Env(), **arguments)
    assert f"{replaced.aside} holds the earlier results" in str(caught.value)
    assert contents(tmp_path) == before


class Wider(Corridor):
    shape = (4,)


@pytest.mark.parametrize("inference", [False, True])
def test_resuming_in_another_environment_names_the_change_and_keeps_the_checkpoint(
    tmp_path: Path, inference: bool
) -> None:
    train(SETTINGS, tmp_path, Env())
    before = contents(tmp_path / "run" / "Corridor")
    arguments: dict[str, Any] = {"flags": {"checkpoint_settings.inference": True}} if inference else {"resume": True}
    with pytest.raises(UsageError, match=r"(?s)'Corridor' has changed since the run was saved.*\(3,\).*\(4,\)"):
        train(config("Corridor", "test:x", max_steps=200), tmp_path, Env(Wider), **arguments)
    assert contents(tmp_path / "run" / "Corridor") == before


def test_episodes_without_inference_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--episodes ends a run with --inference"):
        train(SETTINGS, tmp_path, Env(), episodes=3)
    assert not (tmp_path / "run").exists()


def test_forced_run_that_does_not_start_leaves_the_old_results(tmp_path: Path) -> None:
    class Broken:
        @hookimpl
        def configure(self) -> None:
            raise ValueError("no licence")

    train(config("Corridor", "test:x", max_steps=100), tmp_path, Env())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for plugins, flags in (([Broken()], {}), ([], {"torch_settings.device": "cuda:99"})):
        with pytest.raises(MlhooksError, match=r"no licence|cuda:99"):
            train(config("Corridor", "test:x"), tmp_path, Env(), *plugins, force=True, flags=flags)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

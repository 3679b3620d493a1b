"""With --force, the results of an earlier run are gone when the new one has saved a checkpoint, and not before."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlhooks import hookimpl
from mlhooks.envs.single_behavior import SingleBehaviorEnv
from mlhooks.errors import (
    MlhooksError,
    UsageError,
)
from mlhooks.training.run import Run
from mlhooks.training.run_folder import RunFolder
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


class Stopped:
    """Stops the run after its first observation, and before its first step."""

    @hookimpl
    def behavior_added(self, run: Run) -> None:
        run.stop.requested = True


@pytest.mark.parametrize(
    ("settings", "make", "plugins", "error"),
    [
        (SETTINGS, Broken, [], MlhooksError),
        (config("Corridr", "test:x"), Corridor, [], UsageError),
        (SETTINGS, Corridor, [Silent()], None),
        (SETTINGS, Corridor, [Stopped()], None),
    ],
    ids=["environment fails", "wrong behavior name", "interrupted", "interrupted at its first observation"],
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
    train(config("Corridor", "test:x", max_steps=40), tmp_path, Env(), force=True)
    steps = [path.stem for path in (tmp_path / "run" / "Corridor").glob("Corridor-*0.pt")]
    assert steps == ["Corridor-40"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_earlier_results_are_there_until_the_run_has_saved_a_checkpoint(tmp_path: Path) -> None:
    class Look:
        seen: ClassVar[list[tuple[str, bool]]] = []

        @hookimpl
        def write_stats(self, step: int) -> None:
            self.seen.append((f"step {step}", old.exists()))

        @hookimpl
        def checkpoint_saved(self) -> None:
            self.seen.append(("saved", old.exists()))

    train(SETTINGS, tmp_path, Env())
    old = tmp_path / "run" / ".mlhooks-replaced" / "Corridor" / "Corridor-100.pt"
    settings = config("Corridor", "test:x", max_steps=300, checkpoint_interval=200, summary_freq=100)
    train(settings, tmp_path, Env(), Look(), force=True)
    assert Look.seen[:3] == [("step 100", True), ("step 200", True), ("saved", False)]
    assert not old.parent.parent.exists()


class Killed(BaseException):
    """Ends the steps of a `--force` at once, as `kill -9` does."""


def kill_after(moves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process "die" in place of the rename after `moves` others."""
    done, replace, rename = [0], Path.replace, Path.rename

    def counted(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def moved(self: Path, target: Path) -> Path:
            if done[0] == moves:
                raise Killed
            done[0] += 1
            return move(self, target)

        return moved

    monkeypatch.setattr(Path, "replace", counted(replace))
    monkeypatch.setattr(Path, "rename", counted(rename))


def files_of_a_run(path: Path) -> dict[str, bytes]:
    """Return some files by which a run is known, at several levels, and return them."""
    for name in ("run_logs/training_status.json", "run_logs/Player-0.log", "stats.jsonl", "A/A-10.pt", "A/A-20.pt"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}" if name.endswith("json") else f"old {name}")
    return contents(path)


def test_a_kill_at_any_moment_of_putting_aside_and_bringing_back_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run", "run")
    before = files_of_a_run(folder.path)
    log = str(Path("run_logs", "Player-1.log"))
    for moves in range(13):  # 5 files and 1 folder aside; then 1 folder and 5 files back
        with monkeypatch.context() as patched, contextlib.suppress(Killed):
            kill_after(moves, patched)
            folder.set_earlier_results_aside()
            folder.path.joinpath("stats.jsonl").write_text("new")
            folder.path.joinpath("run_logs").mkdir()
            folder.path.joinpath(log).write_text("why")
            folder.restore_earlier_results()
        folder.recover()
        found = contents(folder.path)
        assert (found.pop(log, b"why"), found) == (b"why", before), moves
        assert not folder.is_left_amid()
        (folder.path / log).unlink(missing_ok=True)


def test_a_kill_after_the_run_has_begun_brings_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run", "run")
    files_of_a_run(folder.path)
    folder.set_earlier_results_aside()
    (folder.path / "stats.jsonl").write_text("new")

    def die(path: Path) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", die)
        with pytest.raises(Killed):
            folder.discard_earlier_results()
    assert folder.is_left_amid()
    folder.recover()
    assert contents(folder.path) == {"stats.jsonl": b"new"}
    assert not folder.is_left_amid()


@pytest.mark.parametrize("flag", ["resume", "inference"])
def test_what_a_killed_run_put_aside_is_there_again_for_the_next_one(tmp_path: Path, flag: str) -> None:
    train(SETTINGS, tmp_path, Env())
    before = contents(tmp_path)
    RunFolder(tmp_path / "run", "run").set_earlier_results_aside()
    assert contents(tmp_path) != before
    flags: dict[str, Any] = {"flags": {f"checkpoint_settings.{flag}": True}}
    run = train(SETTINGS, tmp_path, Env(), episodes=4 if flag == "inference" else None, **flags)
    assert run.trainers["Corridor"].step == (100 if flag == "resume" else 0) or flag == "inference"
    assert (
        contents(tmp_path)[str(Path("run", "Corridor", "Corridor-100.pt"))]
        == (before[str(Path("run", "Corridor", "Corridor-100.pt"))])
    )


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

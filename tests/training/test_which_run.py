"""What somebody is told who names a run that is not there, or one that has nothing to go on from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import mlhooks
from mlhooks import hookimpl
from mlhooks.errors import CheckpointError, UsageError
from mlhooks.training.folder_lock import LOCK, FolderLock
from mlhooks.training.run_files import runs_below
from mlhooks.training.which_run import no_run
from tests.scripted import Corridor, Env, config, train

SETTINGS = config("Corridor", "test:x", max_steps=200)
MANIFEST = "run_logs/training_status.json"
INFERENCE = {"checkpoint_settings.inference": True}


def make_runs(results: Path, *names: str) -> None:
    for name in names:
        (results / name / "run_logs").mkdir(parents=True)
        (results / name / MANIFEST).write_text("{}")


def test_only_runs_count_as_runs(tmp_path: Path) -> None:
    make_runs(tmp_path, "b", "sweep/one", "sweep/two")
    (tmp_path / "a" / "Basic").mkdir(parents=True)
    (tmp_path / "only_notes").mkdir()
    (tmp_path / "only_notes" / "notes.txt").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "configuration.yaml").write_text("name: mine\n")
    (tmp_path / "file").touch()
    assert list(runs_below(tmp_path)) == ["b", "sweep/one", "sweep/two"]
    assert list(runs_below(tmp_path / "nothing")) == []


@pytest.mark.parametrize(
    ("runs", "run_id", "said"),
    [
        ([], "p", "; it holds no runs."),
        (["basic"], "other", "; there is basic."),
        (["basic", "walker"], "p3", "; there are basic, walker."),
        (["p", "p2", "basic"], "p3", "; did you mean p2? There are p2, basic, p."),
        (["p2"], "P2", "; did you mean p2?"),
        (["p2", "x"], "results/p2", "; did you mean p2? There are p2, x."),
        (["sweep/one", "x"], "sweep/onw", "; did you mean sweep/one? There are sweep/one, x."),
        (
            [f"run{n:02}" for n in range(13)],
            "zzz",
            "; there are run00, run01, run02, run03, run04, run05, run06, run07, run08, run09 and 3 more.",
        ),
    ],
)
def test_name_that_no_run_has_is_answered_with_the_nearest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[str], run_id: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_runs(Path("results"), *runs)
    assert no_run(Path("results"), run_id) == f"there is no run {run_id!r} in results{said}"


def test_path_of_a_run_is_answered_with_its_name(tmp_path: Path) -> None:
    make_runs(tmp_path, "full")
    assert no_run(tmp_path, str(tmp_path / "full")).endswith("did you mean full?")


@pytest.mark.parametrize("flags", [INFERENCE, {"checkpoint_settings.resume": True}], ids=["inference", "resume"])
def test_configuration_of_another_environment_is_not_blamed_on_the_environment(
    tmp_path: Path, flags: dict[str, Any]
) -> None:
    train(SETTINGS, tmp_path, Env())
    started = []

    class Started:
        @hookimpl
        def run_started(self) -> None:
            started.append(True)

    with pytest.raises(UsageError) as caught:
        train(config("Other", "test:x"), tmp_path, Env(lambda: Corridor("Other")), Started(), flags=flags)
    own = tmp_path / "run" / "configuration.yaml"
    assert (
        "the run 'run' was trained on other behaviors: its checkpoint has 'Corridor', and the configuration has "
        in (said := str(caught.value))
    )
    assert f"'Other'. Leave the configuration out, and the run's own counts ({own})" in said
    assert not started
    again = train(
        None,
        tmp_path,
        Env(),
        flags=flags | {"behaviors.Corridor.max_steps": 300},
        episodes=1 if flags is INFERENCE else None,
    )
    assert again.outcome.status == "finished"


def test_run_that_goes_on_without_a_checkpoint_is_to_be_waited_for(tmp_path: Path) -> None:
    said: list[str] = []

    class Reads:
        """Looks at the run of which it is a plugin, after 100 steps; the first checkpoint comes after 200."""

        @hookimpl
        def update_finished(self, trainer: Any, step: int) -> None:
            if step == 100:
                for read in (
                    lambda: train(SETTINGS, tmp_path, Env(), flags=INFERENCE),
                    lambda: mlhooks.load(tmp_path / "run"),
                ):
                    with pytest.raises(CheckpointError) as caught:
                        read()
                    said.append(str(caught.value))

    run = train(SETTINGS, tmp_path, Env(), Reads(), strict_plugins=True)
    assert run.trainers["Corridor"].step == 200
    assert len(said) == 2
    for text in said:
        assert re.search(rf"A run goes on there \(process {os.getpid()} \(this one\) on .*\): wait for its first", text)
        assert "--force" not in text


def test_lock_that_nobody_holds_is_nobodys(tmp_path: Path) -> None:
    assert FolderLock(tmp_path).held_by() is None
    (tmp_path / LOCK).write_text(" 1 elsewhere\n")
    assert FolderLock(tmp_path).held_by() is None
    held = FolderLock(tmp_path)
    held.acquire()
    assert f"process {os.getpid()}" in str(FolderLock(tmp_path).held_by())
    assert (tmp_path / LOCK).exists()
    held.release()


def test_folder_of_runs_is_no_policy_and_names_the_runs(tmp_path: Path) -> None:
    make_runs(tmp_path, *(f"run{n:02}" for n in range(12)))
    with pytest.raises(CheckpointError) as caught:
        mlhooks.load(tmp_path)
    assert "holds runs: run00, " in str(caught.value)
    assert "run09 and 2 more." in str(caught.value)
    assert f"mlhooks.load({(tmp_path / 'run00').as_posix()!r})" in str(caught.value)


@pytest.mark.parametrize("damaged", ["state", "checkpoint"])
def test_damage_names_the_files_that_are_still_whole(tmp_path: Path, damaged: str) -> None:
    train(
        {**SETTINGS, "behaviors": {"Corridor": {**SETTINGS["behaviors"]["Corridor"], "keep_checkpoints": 1}}},
        tmp_path,
        Env(),
    )
    run = tmp_path / "run"
    checkpoint = run / "Corridor" / "Corridor-200.pt"
    (run / "run_logs" / "state-200.pt" if damaged == "state" else checkpoint).write_bytes(b"no archive")
    policy = checkpoint.with_suffix(".policy.pt")
    reading = {"inference": {"flags": INFERENCE}, "resume": {"resume": True}}
    for how, arguments in reading.items():
        with pytest.raises(CheckpointError) as caught:
            train(SETTINGS, tmp_path, Env(), **arguments)
        said = str(caught.value)
        assert "by init_path or mlhooks.load: " in said
        assert (checkpoint.name in said.partition("mlhooks.load: ")[2]) == (damaged == "state")
        assert policy.name in said.partition("mlhooks.load: ")[2]
        assert "--force" not in said
        assert ("another --run-id" in said) == (how == "resume")
    assert mlhooks.load(policy).behavior_name == "Corridor"
    for path in run.rglob("*.pt"):
        path.write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="Start over with --force, or with another --run-id"):
        train(SETTINGS, tmp_path, Env(), resume=True)
    with pytest.raises(CheckpointError) as caught:
        train(SETTINGS, tmp_path, Env(), flags=INFERENCE)
    assert "--force" not in str(caught.value)
    assert "can still be used" not in str(caught.value)


def test_run_id_that_begins_with_the_results_folder_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = train(SETTINGS, tmp_path / "results", Env(), run_id="results/new")
    assert run.path == tmp_path / "results" / "results" / "new"
    (warning,) = [text for text in caplog.messages if "The results go to" in text]
    assert str(run.path) in warning or os.path.relpath(run.path) in warning
    assert "say --run-id new." in warning
    caplog.clear()
    for run_id in ("results", "resultsx/new", "new/results"):
        train(SETTINGS, tmp_path / "results2", Env(), run_id=run_id)
    assert "The results go to" not in caplog.text

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlhooks import hookimpl
from mlhooks.errors import CheckpointError, EnvironmentFailure, UsageError
from mlhooks.training.checkpoints import CheckpointFolder, read_state
from mlhooks.training.run import Run
from tests.scripted import Env, config, train

BALLS = config(
    "3DBall",
    "sim:3DBall",
    max_steps=3000,
    hyperparameters={"batch_size": 60, "buffer_size": 300, "normalize_rewards": True},
)


def digest(folder: Path, step: int, behavior: str = "3DBall") -> str:
    return hashlib.sha256((folder / "run" / behavior / f"{behavior}-{step}.pt").read_bytes()).hexdigest()


class Snapshots:
    """Copies the run's folder after some updates: what is left when the process is killed there."""

    def __init__(self, folder: Path, updates: list[int]) -> None:
        self.folder, self.updates = folder, updates
        self.taken: list[Path] = []

    @hookimpl
    def run_started(self, run: Run) -> None:
        self.run = run

    @hookimpl
    def update_finished(self, trainer: Any) -> None:
        if trainer.updates in self.updates:
            self.taken.append(self.folder / str(trainer.updates))
            shutil.copytree(self.run.path, self.taken[-1] / "run")


class StopAfter:
    """Asks the run to stop, as Ctrl-C does, after some statistic was emitted so many times."""

    def __init__(self, episodes: int) -> None:
        self.left = episodes

    @hookimpl
    def run_started(self, run: Run) -> None:
        self.run = run

    @hookimpl
    def on_add_stat(self, key: str) -> None:
        self.left -= key == "Environment/Episode Length"
        if self.left == 0:
            self.run.stop.requested = True


def test_run_killed_at_three_random_updates_ends_with_the_weights_of_one_that_was_never_stopped(tmp_path: Path) -> None:
    updates = np.random.default_rng().choice(np.arange(2, 10), 3, replace=False).tolist()
    snapshots = Snapshots(tmp_path / "killed", updates)
    train(BALLS, tmp_path / "whole", snapshots)
    expected = digest(tmp_path / "whole", 3000)
    assert len(snapshots.taken) == 3
    for folder in snapshots.taken:
        resumed = train(BALLS, folder, resume=True)
        assert resumed.trainers["3DBall"].step == 3000
        assert digest(folder, 3000) == expected, f"killed after update {folder.name} of {updates}"


@pytest.mark.parametrize("episodes", [13, 40])
def test_interrupted_run_goes_on_exactly_where_it_stopped(tmp_path: Path, episodes: int) -> None:
    train(BALLS, tmp_path / "whole")
    run = train(BALLS, tmp_path / "stopped", StopAfter(episodes))
    assert run.outcome.status == "interrupted"
    assert 0 < run.trainers["3DBall"].step < 3000
    finished = train(BALLS, tmp_path / "stopped", resume=True)
    assert finished.outcome.status == "finished"
    assert digest(tmp_path / "stopped", 3000) == digest(tmp_path / "whole", 3000)
    lines = [
        [
            {key: value for key, value in json.loads(line).items() if key != "time"}
            for line in (tmp_path / name / "run" / "stats.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "stopped")
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 15


def test_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(BALLS, tmp_path / name, seed=seed)
    assert digest(tmp_path / "a", 3000) == digest(tmp_path / "b", 3000) != digest(tmp_path / "c", 3000)


def test_environment_without_state_resumes_with_new_episodes_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config("Corridor", "test:x")
    run = train(settings, tmp_path, Env(), StopAfter(24))
    stopped_at = run.trainers["Corridor"].step
    with caplog.at_level(logging.WARNING, "mlhooks"):
        resumed = train(settings, tmp_path, Env(), resume=True)
    assert "episodes begin again" in caplog.text
    assert resumed.trainers["Corridor"].step == 600 > stopped_at
    assert resumed.trainers["Corridor"].updates == 6


def test_resume_that_does_not_start_leaves_the_checkpoint_as_it_is(tmp_path: Path) -> None:
    def fails() -> Any:
        raise EnvironmentFailure("it does not start")

    settings = config("Corridor", "test:x", max_steps=300)
    train(settings, tmp_path, Env())
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    settings["behaviors"]["Corridor"]["max_steps"] = 600
    with pytest.raises(EnvironmentFailure, match="it does not start"):
        train(settings, tmp_path, Env(fails), resume=True)
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    changed = {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed == set()
    train(settings, tmp_path, Env(), resume=True)
    assert "max_steps: 600" in (tmp_path / "run" / "configuration.yaml").read_text()


def test_resume_passes_over_damaged_checkpoints(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(BALLS, tmp_path)
    newest = sorted((tmp_path / "run" / "3DBall").glob("3DBall-*[0-9].pt"), key=lambda p: int(p.stem.split("-")[1]))
    newest[-1].write_bytes(newest[-1].read_bytes()[:-1] + b"x")
    newest[-2].unlink()
    found = CheckpointFolder(tmp_path / "run").newest()
    assert found["behaviors"]["3DBall"] == newest[-3]
    assert "SHA-256 differs" in caplog.text
    assert "No such file" in caplog.text


def test_interrupted_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(BALLS, tmp_path)
    folder = CheckpointFolder(tmp_path / "run")
    before = folder.newest()["behaviors"]["3DBall"]
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space"):
        folder.save({"3DBall": {"step": 9}}, {}, {"3DBall": None}, keep=5)
    monkeypatch.undo()
    assert CheckpointFolder(tmp_path / "run").newest()["behaviors"]["3DBall"] == before


def test_keep_checkpoints_and_interval_are_respected(tmp_path: Path) -> None:
    settings = config("3DBall", "sim:3DBall", max_steps=1000, keep_checkpoints=3)
    train(settings, tmp_path)
    files = sorted(int(p.stem.split("-")[1]) for p in (tmp_path / "run" / "3DBall").glob("3DBall-*[0-9].pt"))
    assert len(files) == 3
    assert files[-1] == 1008  # It is the first tick of 12 agents at or after max_steps.
    assert [step // 200 for step in files] == [3, 4, 5]
    status = json.loads((tmp_path / "run" / "run_logs" / "training_status.json").read_text())
    assert [entry["steps"] for entry in status["3DBall"]["checkpoints"]] == files
    assert status["3DBall"]["final_checkpoint"]["steps"] == 1008
    assert len(list((tmp_path / "run" / "run_logs").glob("state-*.pt"))) == 3


def test_new_run_refuses_the_folder_of_an_earlier_one_unless_forced(tmp_path: Path) -> None:
    train(BALLS, tmp_path)
    with pytest.raises(
        UsageError,
        match=r"earlier run.*--resume \(in Python: resume=True\).*--force \(force=True\).*\(run_id=\.\.\.\)\.",
    ):
        train(BALLS, tmp_path)
    with pytest.raises(UsageError, match="exclude each other"):
        train(BALLS, tmp_path, force=True, resume=True)
    (tmp_path / "run" / "stats.jsonl").write_text("old")
    train({**BALLS, "behaviors": {"3DBall": {**BALLS["behaviors"]["3DBall"], "max_steps": 300}}}, tmp_path, force=True)
    assert "old" not in (tmp_path / "run" / "stats.jsonl").read_text()
    assert not (tmp_path / "run" / "3DBall" / "3DBall-3000.pt").exists()


def test_resume_of_a_complete_run_says_so_starts_nothing_and_keeps_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> Any:
        raise EnvironmentFailure("it does not start")

    settings = config("Corridor", "test:x", max_steps=300)
    train(settings, tmp_path, Env())
    before, model = digest(tmp_path, 300, "Corridor"), tmp_path / "run" / "Corridor.policy.pt"
    model.unlink()
    caplog.set_level(logging.INFO, "mlhooks")
    run = train(settings, tmp_path, Env(fails), resume=True)
    assert run.outcome.status == "finished"
    assert "'Corridor' is at step 300 of 300. To go on, raise max_steps" in caplog.text
    assert "--set behaviors.Corridor.max_steps=N" in caplog.text
    assert (digest(tmp_path, 300, "Corridor"), run.outcome.files["model"]) == (before, [model])
    assert model.exists()
    more = ["behaviors.Corridor.max_steps=400"]
    assert train(settings, tmp_path, Env(), resume=True, overrides=more).trainers["Corridor"].step == 400


@pytest.mark.parametrize("left", ["stats.jsonl", "3DBall/events.out.tfevents.1"])
def test_new_run_refuses_what_a_run_left_that_was_killed_before_its_first_checkpoint(tmp_path: Path, left: str) -> None:
    train(BALLS, tmp_path)
    configuration = (tmp_path / "run" / "configuration.yaml").read_bytes()
    file = tmp_path / "killed" / "run" / left
    file.parent.mkdir(parents=True)
    file.write_text("kept")
    (tmp_path / "killed" / "run" / "configuration.yaml").write_bytes(configuration)
    with pytest.raises(UsageError, match=rf"before its first checkpoint, such as .*{file.name}.*--force"):
        train(BALLS, tmp_path / "killed")
    with pytest.raises(CheckpointError, match=r"no checkpoint that can be used.*--force"):
        train(BALLS, tmp_path / "killed", resume=True)
    assert [path for path in file.parent.iterdir() if path.is_file() and path.name != "configuration.yaml"] == [file]
    assert file.read_text() == "kept"


def test_new_run_takes_the_folder_of_one_that_did_not_start(tmp_path: Path) -> None:
    (tmp_path / "run" / "run_logs").mkdir(parents=True)
    for name in ("configuration.yaml", "run_logs/Player-0.log"):
        (tmp_path / "run" / name).touch()
    run = train({**BALLS, "behaviors": {"3DBall": {**BALLS["behaviors"]["3DBall"], "max_steps": 300}}}, tmp_path)
    assert run.outcome.status == "finished"


def test_resume_of_a_run_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match=r"no run 'run' in .*; it holds no runs\."):
        train(BALLS, tmp_path, resume=True)
    for name in ("group/other", "first"):
        train(BALLS, tmp_path, run_id=name)
    with pytest.raises(UsageError, match=r"no run 'run' in .*; there are first, group/other\."):
        train(BALLS, tmp_path, resume=True)
    with pytest.raises(UsageError, match=r"no run 'empty/run' in .*; there are first, group/other\."):
        train(BALLS, tmp_path, run_id="empty/run", resume=True)


def test_folder_of_mlagents_learn_gets_a_clear_answer(tmp_path: Path) -> None:
    status = tmp_path / "run" / "run_logs" / "training_status.json"
    status.parent.mkdir(parents=True)
    status.write_text(json.dumps({"metadata": {"mlagents_version": "1.1.0"}, "3DBall": {"checkpoints": []}}))
    for arguments in ({"resume": True}, {}):
        with pytest.raises((CheckpointError, UsageError), match=r"mlagents-learn.*--force"):
            train(BALLS, tmp_path, **arguments)


def test_checkpoint_of_another_network_names_the_key_that_does_not_fit(tmp_path: Path) -> None:
    train(BALLS, tmp_path)
    wider = json.loads(json.dumps(BALLS))
    wider["behaviors"]["3DBall"]["network_settings"]["hidden_units"] = 16
    with pytest.raises(
        CheckpointError, match=r"policy.actor.encoder.layers.0.bias has shape \(8,\).*\(16,\)"
    ) as caught:
        train(wider, tmp_path, resume=True)
    own = tmp_path / "run" / "configuration.yaml"
    assert caught.value.__notes__ == [f"The run's own configuration is {own}; it counts where no other one is named."]
    assert train(None, tmp_path, resume=True).outcome.status == "finished"  # It goes by the configuration of the run.


def test_file_that_is_no_checkpoint_is_refused_without_unpickling(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "pwned").encode() + b"'\ntR.")
    with pytest.raises(CheckpointError, match="cannot be read as an mlhooks checkpoint"):
        read_state(bad)
    assert not (tmp_path / "pwned").exists()


def test_initialize_from_begins_with_another_runs_weights(tmp_path: Path) -> None:
    first = train(BALLS, tmp_path, run_id="first")
    seen = {}

    class Look:
        @hookimpl
        def update_finished(self, trainer: Any) -> None:
            seen.setdefault("count", float(trainer.policy.inputs.normalizer.count))

    flags = {"checkpoint_settings.initialize_from": "first"}
    second = train(BALLS, tmp_path, Look(), run_id="second", flags=flags)
    assert seen["count"] == 3000 + 300  # The normalizer went on from the first run's.
    assert second.trainers["3DBall"].step == 3000
    assert first.path != second.path
    with pytest.raises(
        UsageError, match=r"--initialize-from: there is no run 'nothing' in .*; there are first, second\."
    ):
        train(BALLS, tmp_path, run_id="third", flags={"checkpoint_settings.initialize_from": "nothing"})


@pytest.mark.parametrize("form", ["run", "run/Other", "run/run_logs", "."])
def test_init_path_that_is_another_folder_is_refused_with_what_it_may_be(tmp_path: Path, form: str) -> None:
    run = train(BALLS, tmp_path)
    (run.path / "Other").mkdir()
    settings = json.loads(json.dumps(BALLS))
    settings["behaviors"]["3DBall"] |= {"init_path": str(tmp_path / form)}
    with pytest.raises(UsageError, match=r"not the folder of a behavior .* results/RUN_ID/3DBall, or a \.pt file"):
        train(settings, tmp_path, run_id="other")


@pytest.mark.parametrize("form", ["{}/first/3DBall/3DBall-3000.pt", "{}/first/3DBall", "{}\\first\\3DBall"])
def test_init_path_takes_a_checkpoint_or_a_behaviors_folder_in_either_spelling(tmp_path: Path, form: str) -> None:
    train(BALLS, tmp_path, run_id="first")
    settings = json.loads(json.dumps(BALLS))
    settings["behaviors"]["3DBall"] |= {"init_path": form.format(tmp_path), "max_steps": 12}
    second = train(settings, tmp_path, run_id="second")
    first_weights, second_weights = (
        read_state(tmp_path / name / "3DBall.policy.pt")["modules"]["policy.actor"] for name in ("first", "second")
    )
    assert second.trainers["3DBall"].updates == 0
    assert all(bool((first_weights[key] == second_weights[key]).all()) for key in first_weights)


def test_behavior_of_the_default_settings_is_recorded(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x", max_steps=100)
    settings = {"default_settings": settings["behaviors"]["Corridor"], "env_settings": settings["env_settings"]}
    run = train(settings, tmp_path, Env())
    assert "  Corridor:\n" in (run.path / "configuration.yaml").read_text()

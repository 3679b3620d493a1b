"""The best policies of evaluations: kept over a resume and a kill, used, and the ends of training that they decide."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlhooks
from mlhooks import hookimpl
from mlhooks.errors import CheckpointError, UsageError
from mlhooks.training import evaluator
from mlhooks.training.checkpoints import read_state, write_state
from mlhooks.training.evaluation import Evaluation
from mlhooks.training.run import Run
from tests.scripted import train
from tests.training.evaluating import EVALUATION, Notes, balls, digest, evaluated, lines
from tests.training.test_resume import StopAfter

PATIENT = balls(1500, {**EVALUATION, "patience": 50})


class StopWithin:
    """Asks the run to stop, as Ctrl-C does, some steps after the so-many-th evaluation has begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, evaluation: int, steps: int = 5) -> None:
        self.monkeypatch, self.evaluation, self.steps, self.begun = monkeypatch, evaluation, steps, 0

    @hookimpl
    def run_started(self, run: Run) -> None:
        play = evaluator.Evaluator.play

        def played(self_: Any, wanted: Any, trainers: Any, parameters: Any, stopped: Callable[[], bool]) -> Any:
            self.begun += 1
            asked = iter(range(self.steps))

            def now() -> bool:
                if self.begun == self.evaluation and next(asked, None) is None:
                    run.stop.requested = True
                return stopped()

            return play(self_, wanted, trainers, parameters, now)

        self.monkeypatch.setattr(evaluator.Evaluator, "play", played)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(PATIENT, folder)
    return folder


@pytest.mark.parametrize("place", ["after an evaluation", "amid one", "amid the last one", "between two"])
def test_resumed_run_equals_one_that_was_never_stopped_evaluations_included(
    tmp_path: Path, whole: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: dict[str, object] = {
        "after an evaluation": Notes(2, lambda run: setattr(run.stop, "requested", True)),
        "amid one": StopWithin(monkeypatch, 2),
        "amid the last one": StopWithin(monkeypatch, 3),
        "between two": StopAfter(30),
    }
    stopped = train(PATIENT, tmp_path, stops[place])
    assert stopped.outcome.status == "interrupted"
    assert 0 < len(evaluated(tmp_path)) < 3
    monkeypatch.undo()
    resumed = train(PATIENT, tmp_path, resume=True)
    assert resumed.outcome.status == "finished"
    assert lines(tmp_path) == lines(whole)
    for file in ("3DBall/3DBall-1500.pt", "3DBall.best.policy.pt", "3DBall.policy.pt", "run_logs/state-1500.pt"):
        assert digest(tmp_path / "run" / file) == digest(whole / "run" / file), file


def test_best_policy_of_a_killed_run_is_that_of_the_checkpoint_from_which_it_goes_on(tmp_path: Path) -> None:
    settings = balls(1000, checkpoint_interval=600)
    run = train(settings, tmp_path)
    best = tmp_path / "run" / "3DBall.best.policy.pt"
    right, files = best.read_bytes(), run.evaluations.best["3DBall"].files
    assert files == [best]
    best.write_bytes((tmp_path / "run" / "3DBall" / "3DBall-600.policy.pt").read_bytes())
    train(settings, tmp_path, resume=True)
    assert best.read_bytes() == right
    step = run.evaluations.best["3DBall"].step
    assert read_state(best)["step"] == step
    assert (digest(tmp_path / "run" / "3DBall.policy.pt") == digest(best)) == (step == 1008)


class Scripted:
    """Evaluations that have given mean rewards, in place of played ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *means: float) -> None:
        waiting = iter(means)

        def play(self: Any, wanted: Mapping[str, Any], *_: Any) -> Any:
            found = {}
            for name in wanted:
                found[name] = Evaluation(2)
                found[name].expect(name)
                mean = next(waiting)
                found[name].ended(name, 2, np.arange(2), np.array([mean - 1, mean + 1]), np.array([3, 5]))
            return found

        monkeypatch.setattr(evaluator.Evaluator, "play", play)


def test_best_policy_is_kept_beside_the_last_one_and_can_be_loaded_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch, 1.0, 7.0, 3.0)
    run = train(balls(1400), tmp_path)
    best = run.evaluations.best["3DBall"]
    assert (best.step, best.mean_reward) == (1008, 7.0)
    assert run.outcome.files["best model"] == [run.path / "3DBall.best.policy.pt"]
    state = read_state(run.path / "3DBall.best.policy.pt")
    assert state["step"] == 1008
    observation = np.linspace(-1, 1, 8, dtype=np.float32)
    loaded = {name: mlhooks.load(run.path, best=name == "best").predict(observation) for name in ("best", "last")}
    direct = mlhooks.load(run.path / "3DBall.best.policy.pt").predict(observation)
    assert loaded["best"].tolist() == direct.tolist() != loaded["last"].tolist()
    flags = {"checkpoint_settings.inference": True}
    scores = {
        policy: train(balls(1400), tmp_path, flags=flags, episodes=12, policy=policy) for policy in ("best", "last")
    }
    assert [run.trainers["3DBall"].step for run in scores.values()] == [1008, 1404]
    assert [len(evaluated(tmp_path)), len(scores["best"].evaluation.returns["3DBall"])] == [3, 12]


def test_what_was_never_evaluated_has_no_best_policy(tmp_path: Path) -> None:
    run = train(balls(300, None), tmp_path)
    assert run.evaluations.best == {}
    with pytest.raises(CheckpointError, match=r"no best policy.*--eval-every"):
        mlhooks.load(run.path, best=True)
    with pytest.raises(UsageError, match=r"no best policy.*--eval-every"):
        train(balls(300, None), tmp_path, flags={"checkpoint_settings.inference": True}, episodes=1, policy="best")
    with pytest.raises(UsageError, match="--policy best is for --inference"):
        train(balls(300, None), tmp_path, policy="best", force=True)
    with pytest.raises(UsageError, match=r"is a file, and best=True"):
        mlhooks.load(run.path / "3DBall.policy.pt", best=True)


def test_training_ends_when_the_wanted_reward_is_reached_and_goes_on_when_more_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlhooks")
    Scripted(monkeypatch, 1.0, 7.0, 3.0, 4.0)
    settings = balls(2000, {**EVALUATION, "stop_at": 6.5})
    run = train(settings, tmp_path)
    assert (run.outcome.status, run.trainers["3DBall"].step) == ("finished", 1008)
    assert "The training of '3DBall' ends at step 1,008: an evaluation had a mean reward of 7" in caplog.text
    again = train(settings, tmp_path, resume=True)
    assert again.trainers["3DBall"].step == 1008
    assert "There is nothing left to train: '3DBall' is at step 1,008 of 2,000 (an evaluation had" in caplog.text
    assert "--set behaviors.3DBall.evaluation.stop_at=N" in caplog.text
    more = train(balls(2000, {**EVALUATION, "stop_at": 9}), tmp_path, resume=True)
    assert more.trainers["3DBall"].step == 2004
    assert [step for step, _ in evaluated(tmp_path)] == [504, 1008, 1500, 2004]


def test_training_ends_when_patience_is_over_also_across_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = balls(5000, {**EVALUATION, "patience": 3})
    means = [1.0, 2.0, 1.5, 1.9, 2.0, 8.0]  # An equal one is no better one.
    Scripted(monkeypatch, *means)
    assert train(settings, tmp_path / "whole").trainers["3DBall"].step == 2508
    Scripted(monkeypatch, *means)
    train(settings, tmp_path / "cut", Notes(4, lambda run: setattr(run.stop, "requested", True)))
    assert train(settings, tmp_path / "cut", resume=True).trainers["3DBall"].step == 2508
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_best_policy_that_does_not_fit_any_more_is_not_exported_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch, 5.0, 4.0, 1.0)
    train(balls(600, checkpoint_interval=600), tmp_path)
    best = tmp_path / "run" / "3DBall.best.policy.pt"
    before, newest = best.read_bytes(), tmp_path / "run" / "run_logs" / "state-600.pt"
    state = read_state(newest)
    state["evaluations"]["3DBall"]["best"]["modules"]["policy.actor"].popitem()
    write_state(newest, state)
    manifest = tmp_path / "run" / "run_logs" / "training_status.json"
    noted = json.loads(manifest.read_text())
    noted["mlhooks"][-1]["run"] |= {"size": newest.stat().st_size, "sha256": digest(newest)}
    manifest.write_text(json.dumps(noted))
    run = train(balls(620, checkpoint_interval=600, evaluation={"interval": 5000}), tmp_path, resume=True)
    assert run.outcome.status == "finished"
    assert "The best policy of '3DBall' is not exported again: " in caplog.text
    assert best.read_bytes() == before
    assert run.evaluations.best["3DBall"].step == 504


def test_best_policy_of_a_run_killed_before_its_first_checkpoint_can_be_used_and_is_known_as_the_runs(
    tmp_path: Path,
) -> None:
    train(balls(600), tmp_path)
    (tmp_path / "run" / "run_logs" / "training_status.json").unlink()
    shutil.rmtree(tmp_path / "run" / "3DBall")
    (tmp_path / "run" / "3DBall.policy.pt").unlink()
    assert mlhooks.load(tmp_path / "run", best=True).behavior_name == "3DBall"
    with pytest.raises(CheckpointError, match=r"can still be used alone, .*3DBall\.best\.policy\.pt"):
        train(balls(600), tmp_path, resume=True)
    again = train(balls(300, None), tmp_path, force=True)
    assert again.outcome.status == "finished"
    assert not (tmp_path / "run" / "3DBall.best.policy.pt").exists()

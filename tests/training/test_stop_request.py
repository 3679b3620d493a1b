"""What signals do to a run, in each of its phases."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from builtin_plugins.inprocess import InProcessManager
from mlhooks import hookimpl, stop_signals
from mlhooks.envs.restarts import RestartPolicy
from mlhooks.training.stage import Stage
from mlhooks.training.stop_request import StopRequest
from tests.scripted import Env, config, train
from tests.training.recorder import Recorder

ALL = pytest.mark.parametrize("number", stop_signals.SIGNALS, ids=lambda number: signal.Signals(number).name)
POLITE = [number for number in stop_signals.SIGNALS if signal.Signals(number).name not in ("SIGINT", "SIGBREAK")]
LONG = config("Corridor", "test:x", max_steps=100_000)


class Send:
    """Sends signals to the run's own process from one of its hooks, at its first call."""

    def __init__(self, hook: str, *numbers: int) -> None:
        def send() -> None:
            for number in self.take_all():
                signal.raise_signal(number)

        self.numbers = list(numbers)
        send.__name__ = hook
        setattr(self, hook, hookimpl(send))

    def take_all(self) -> list[int]:
        numbers, self.numbers = self.numbers, []
        return numbers


@pytest.fixture(autouse=True)
def handlers_come_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in stop_signals.SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in stop_signals.SIGNALS} == before


def saved_step(folder: Path) -> int:
    status = json.loads((folder / "run/run_logs/training_status.json").read_text())
    step: int = status["Corridor"]["final_checkpoint"]["steps"]
    return step


@ALL
def test_signal_while_training_saves_and_stops(tmp_path: Path, number: int, caplog: pytest.LogCaptureFixture) -> None:
    run = train(LONG, tmp_path, Env(), Send("update_finished", number))
    assert run.outcome.status == "interrupted"
    assert saved_step(tmp_path) == run.trainers["Corridor"].step == 100  # It is the first update.
    said = [record.getMessage() for record in caplog.records if "Stopping" in record.getMessage()]
    name = signal.Signals(number).name
    why, again = ("", "Once more") if name == "SIGINT" else (f" because of {name}", "Ctrl-C")
    assert said == [f"Stopping{why}: saving a checkpoint first. {again} stops at once."] or name == "SIGBREAK"


@pytest.mark.parametrize("number", POLITE, ids=lambda number: signal.Signals(number).name)
def test_signal_that_comes_again_leaves_the_saving_alone(tmp_path: Path, number: int) -> None:
    """A terminal that closes and its shell both send SIGHUP; Slurm sends SIGTERM after SIGUSR1."""
    run = train(LONG, tmp_path, Env(), Send("update_finished", number, number, *POLITE))
    assert run.outcome.status == "interrupted"
    assert saved_step(tmp_path) == 100


def test_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    recorder = Recorder()
    run = train(LONG, tmp_path, Env(), recorder, Send("update_finished", *POLITE, signal.SIGINT))
    assert run.outcome.status == "interrupted"
    assert not any(call.startswith("update_finished 200") for call in recorder.calls)


@ALL
def test_ignored_signal_stays_ignored(tmp_path: Path, number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        run = train(config("Corridor", "test:x"), tmp_path, Env(), Send("update_finished", number))
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert run.outcome.status == "finished"
    assert saved_step(tmp_path) == 600


class LastCheckpoint:
    """Interrupts while the last checkpoint is written, after all steps."""

    def __init__(self, at: int) -> None:
        self.at = at

    @hookimpl
    def checkpoint_saved(self, checkpoint: Any) -> None:
        if checkpoint.step == self.at:
            self.at = -1
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("phase", ["last update", "last checkpoint", "end"])
def test_interrupt_at_the_end_of_a_run_loses_nothing(
    tmp_path: Path, phase: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    sender = {
        "last update": lambda: Update(600),
        "last checkpoint": lambda: LastCheckpoint(600),
        "end": lambda: Send("run_finished", signal.SIGINT),
    }[phase]()
    run = train(config("Corridor", "test:x"), tmp_path, Env(), recorder, sender)
    assert run.outcome.status == "finished"
    assert [call for call in recorder.calls if "write_stats" in call] == [
        "write_stats 200",
        "write_stats 400",
        "write_stats 600",
    ]
    assert saved_step(tmp_path) == 600
    assert {"model", "settings", "status"} <= run.outcome.files.keys()
    assert ("about to end, with all its results" in caplog.text) == (phase != "last update")


class Saving:
    """Interrupts the saving that an interrupt began."""

    def __init__(self) -> None:
        self.begun = False

    @hookimpl
    def update_finished(self) -> None:
        signal.raise_signal(signal.SIGINT)
        self.begun = True

    @hookimpl
    def checkpoint_saved(self) -> None:
        if self.begun:
            signal.raise_signal(signal.SIGINT)


def test_interrupted_saving_is_told_as_an_interrupted_run_and_leaves_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(LONG, tmp_path, Env(), Saving(), plugin_names=["no:tensorboard", "no:curve"])
    said = capsys.readouterr().out
    assert "Interrupted after" in said
    assert "To continue, run the same command with --resume --run-id run\n" in said
    assert saved_step(tmp_path) == 100


class Update:
    """Interrupts within one update."""

    def __init__(self, at: int) -> None:
        self.at = at

    @hookimpl
    def update_finished(self, step: int) -> None:
        if step == self.at:
            signal.raise_signal(signal.SIGINT)


def test_interrupt_before_anything_was_learned_is_clean(tmp_path: Path) -> None:
    recorder = Recorder()
    run = train(LONG, tmp_path, Env(), recorder, Send("run_started", signal.SIGINT))
    assert run.outcome.status == "interrupted"
    assert recorder.calls[-1] == "run_finished interrupted"


def test_interrupt_while_environments_start_does_not_wait_for_them(tmp_path: Path) -> None:
    reached = []

    def make() -> Any:
        signal.raise_signal(signal.SIGHUP if hasattr(signal, "SIGHUP") else signal.SIGINT)
        reached.append("an environment that takes for ever to start")

    run = train(LONG, tmp_path, Env(make))
    assert run.outcome.status == "interrupted"
    assert not reached


class Waits(InProcessManager):
    """Gives all steps at once, as a manager of other machines may, and is interrupted while it waits for them."""

    def __init__(self, *arguments: Any, at: int) -> None:
        super().__init__(*arguments)
        self.calls, self.at = 0, at

    def ready(self) -> Any:
        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        return list(super().ready())


class WaitingManager:
    def __init__(self, at: int) -> None:
        self.at = at

    @hookimpl
    def create_env_manager(self, make_env: Any) -> Waits:
        self.made = Waits(make_env, 1, RestartPolicy(0, 0, 1), at=self.at)
        return self.made


@pytest.mark.parametrize(("at", "steps"), [(1, {}), (5, {"Corridor": 16})], ids=["first steps", "later ones"])
def test_interrupt_ends_the_wait_for_the_first_steps_alone(tmp_path: Path, at: int, steps: dict[str, int]) -> None:
    """Once environments step, nothing that is under way is given up: the run goes on to where it can be saved."""
    manager = WaitingManager(at)
    run = train(LONG, tmp_path, Env(), manager)
    assert run.outcome.status == "interrupted"
    assert {name: trainer.step for name, trainer in run.trainers.items()} == steps
    assert manager.made.calls == at


def test_first_signal_interrupts_only_where_it_is_to_end_at_once() -> None:
    stop = StopRequest()
    with stop:
        with pytest.raises(KeyboardInterrupt), stop.ending_at_once():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert stop.requested


@pytest.mark.parametrize("stage", Stage)
def test_stage_changes_in_what_is_named_alone(stage: Stage) -> None:
    for waits, saves in product([True, False], repeat=2):
        changed = stage.changed(waits=waits, saves=saves)
        assert (changed.waits, changed.saves) == (waits, saves)
        assert stage.changed(waits=waits).saves == stage.saves
        assert stage.changed(saves=saves).waits == stage.waits
    assert stage.changed() is stage


def test_inference_that_is_stopped_does_not_speak_of_saving(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(config("Corridor", "test:x"), tmp_path, Env())
    caplog.clear()
    flags = {"checkpoint_settings.inference": True, "checkpoint_settings.resume": True}
    run = train(config("Corridor", "test:x"), tmp_path, Env(), Send("behavior_added", signal.SIGTERM), flags=flags)
    assert run.outcome.status == "interrupted"
    assert "Stopping because of SIGTERM. Ctrl-C stops at once." in caplog.text

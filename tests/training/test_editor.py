"""Whole runs with an Editor, played by the player stand-in, whose Play mode ends and begins again."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlhooks import hookimpl
from mlhooks.sim_player.command import main as sim_player
from mlhooks.training.run import Run
from mlhooks.unity import ports
from mlhooks.unity.errors import BehaviorChanged
from tests.scripted import config, train
from tests.unity.client import free_port

AGENTS = 3
LISTENING = "Listening on port"


@pytest.fixture
def editor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`editor(arguments, ...)` presses Play once for each list of arguments, each time the run listens."""
    port = free_port()
    monkeypatch.setattr(ports, "EDITOR_PORT", port)
    plays: list[list[str]] = []
    threads: list[threading.Thread] = []

    class Play(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if LISTENING in record.getMessage() and plays:
                given = plays.pop(0)
                behavior = [] if "--behavior" in given else ["--behavior", "Walker:discrete"]
                arguments = ["scripted", "--agents", str(AGENTS), *given, *behavior, "--mlagents-port", str(port)]
                threads.append(threading.Thread(target=sim_player, args=(arguments,), daemon=True))
                threads[-1].start()

    handler = Play()
    logger = logging.getLogger("mlhooks")
    logger.addHandler(handler)
    level, _ = logger.level, logger.setLevel(logging.INFO)
    yield lambda *lists: plays.extend(lists)
    logger.removeHandler(handler)
    logger.setLevel(level)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def quits(messages: int, *more: str) -> list[str]:
    """Return an Editor whose Play mode ends before the message of that number."""
    return ["--fault", "quit", "--fault-step", str(messages), *more]


def settings(**changes: Any) -> dict[str, Any]:
    made = config("Scripted", "", max_steps=90, summary_freq=30, **changes)
    made["behaviors"]["Scripted"]["hyperparameters"]["buffer_size"] = 10_000  # There is no update, so all rows stay.
    made["default_settings"] = made["behaviors"].pop("Scripted")
    del made["env_settings"]["env_path"]
    return made


class Watch:
    """Notes what happens."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.failures: list[Any] = []

    @hookimpl
    def write_stats(self, step: int) -> None:
        self.steps.append(step)

    @hookimpl
    def env_failed(self, error: Any) -> None:
        self.failures.append(error)


def only_trainer(run: Run) -> Any:
    (trainer,) = run.trainers.values()
    return trainer


def test_run_goes_on_with_its_steps_and_no_trajectory_spans_the_break(
    editor: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    editor(quits(8), quits(5), [])
    watch = Watch()
    run = train(settings(), tmp_path, watch)
    trainer = only_trainer(run)
    assert run.outcome.status == "finished"
    # 7 and 4 messages: 6 and 3 decisions of each agent that were answered, and the rest from the last play
    assert trainer.step == 90
    assert watch.steps == [30, 60, 90]
    assert (watch.failures, run.outcome.restarts) == ([], [])
    assert caplog.text.count("The Unity Editor left Play mode. The run waits") == 2
    store, spec = trainer.store, trainer.behavior_spec
    (index,) = [i for i, obs in enumerate(spec.observation_specs) if obs.name == "clock"]
    clock = store.obs[index][: store.in_use]
    rows = np.flatnonzero(store.successor[: store.in_use] >= 0)
    assert len(rows) > 20
    here, then = clock[rows], clock[store.successor[rows]]
    assert np.array_equal(here[:, :3], then[:, :3])  # These are seed, agent and episode.
    assert np.array_equal(here[:, 3] + 1, then[:, 3])  # This is the step.
    # Episodes last ten steps at least, so all rows of the first two plays were in the middle of one.
    assert store.in_use == 90 - AGENTS * (6 + 3) + AGENTS


def test_changed_scene_ends_the_run_with_what_was_learned(editor: Callable[..., None], tmp_path: Path) -> None:
    editor(quits(8), ["--behavior", "Walker:continuous"])
    with pytest.raises(BehaviorChanged, match=r"'Walker\?team=0' has changed since the Unity Editor"):
        train(settings(), tmp_path)
    assert list((tmp_path / "run" / "Walker").glob(f"Walker-{AGENTS * 6}.pt"))


class InterruptAt(logging.Handler):
    """Presses Ctrl-C when a text was logged for the n-th time."""

    def __init__(self, text: str, count: int) -> None:
        super().__init__()
        self.text, self.count = text, count

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            self.count -= 1
            if self.count == 0:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()


@pytest.fixture
def interrupt_at() -> Iterator[Callable[[str, int], None]]:
    logger, handlers = logging.getLogger("mlhooks"), []

    def install(text: str, count: int) -> None:
        handlers.append(InterruptAt(text, count))
        logger.addHandler(handlers[-1])

    yield install
    for handler in handlers:
        logger.removeHandler(handler)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_interrupt_while_it_waits_saves_and_ends(
    editor: Callable[..., None], interrupt_at: Callable[[str, int], None], tmp_path: Path
) -> None:
    editor(quits(8))
    interrupt_at(LISTENING, 2)
    run = train(settings(), tmp_path)
    assert run.outcome.status == "interrupted"
    assert only_trainer(run).step == AGENTS * 6
    assert run.outcome.files["checkpoint"][0].exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_interrupt_before_the_first_play_ends_at_once_and_leaves_the_run_id_free(
    editor: Callable[..., None], interrupt_at: Callable[[str, int], None], tmp_path: Path
) -> None:
    interrupt_at(LISTENING, 1)
    run = train(settings(), tmp_path)
    assert (run.outcome.status, run.trainers, run.outcome.files) == ("interrupted", {}, {})
    editor([])
    assert train(settings(), tmp_path).outcome.status == "finished"

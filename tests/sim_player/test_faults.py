"""What goes wrong goes wrong in the way that was asked for, and when; seen by the reference client."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from signal import SIGABRT
from typing import Any

import pytest
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.exception import (
    UnityCommunicatorStoppedException,
    UnityEnvironmentException,
    UnityObservationException,
    UnityTimeOutException,
)

from tests.sim_player.recording import connected, free_port

STEP = 3
Start = Callable[..., AbstractContextManager[UnityEnvironment]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def start(fault: str, *arguments: str, step: int | None = STEP, **options: Any):
        at = () if step is None else ("--fault-step", str(step))
        return connected(tmp_path, "3DBall", "--fault", fault, *at, *arguments, **options)

    return start


def log(folder: Path) -> str:
    return (folder / "Player-0.log").read_text()


def until_fault(env: UnityEnvironment) -> None:
    """Receive all messages before the one that goes wrong."""
    for _ in range(STEP - 1):
        env.step()


@pytest.mark.parametrize(
    ("fault", "error", "text", "code"),
    [
        ("crash", UnityEnvironmentException, r"return code -6 \(SIGABRT\)", -SIGABRT),
        ("exit", UnityEnvironmentException, r"return code 1\.", 1),
        ("quit", UnityCommunicatorStoppedException, "Communicator has exited", 0),
        ("close", UnityEnvironmentException, r"return code 0\.", 0),
        ("nan", RuntimeError, "observations provided had NaN", 0),
        ("nan-reward", RuntimeError, "rewards provided had NaN", 0),
        ("shape", UnityObservationException, r"Expected shape \(8,\) but got \(9,\)", 0),
    ],
)
def test_fault_happens_at_its_message(start, tmp_path, fault, error, text, code):
    with start(fault) as env:
        until_fault(env)
        with pytest.raises(error, match=text):
            env.step()
    assert env.player.returncode == code
    assert f"Fault at message {STEP}: {fault}\n" in log(tmp_path)


def test_hanging_player_stays_and_says_nothing(start, tmp_path):
    with start("hang") as env:
        until_fault(env)
        env._communicator.timeout_wait = 0.2
        with pytest.raises(UnityTimeOutException):
            env.step()
        assert env.player.poll() is None
        env.player.kill()
    assert "Fault at message 3: hang" in log(tmp_path)


@pytest.mark.parametrize(("fault", "step"), [("stall", STEP), ("slow-start", None)])
def test_player_that_is_late_goes_on(start, tmp_path, fault, step):
    with start(fault, "--fault-seconds", "0.05", step=step) as env:
        until_fault(env)
        env.step()
        env.step()
        assert len(env.get_steps("3DBall?team=0")[0]) == 12
    assert f"Fault at message {step or 0}: {fault}" in log(tmp_path)


def test_unknown_protocol_version_is_refused(start, tmp_path):
    with pytest.raises(UnityEnvironmentException, match=r"Unity API: 99\.0\.0"), start("version", step=None):
        pass


@pytest.mark.parametrize(("fault", "code"), [("exit", "1"), ("crash", "-6 .SIGABRT.")])
def test_player_that_goes_before_it_connects(start, fault, code):
    with (
        pytest.raises(UnityEnvironmentException, match=rf"return code {code}\."),
        start(fault, step=0, timeout=9),
    ):
        pass


@pytest.mark.parametrize(("worker", "fails"), [(0, False), (1, True)])
def test_fault_of_one_worker(start, worker, fails):
    base = free_port()
    with start("quit", "--fault-worker", "1", "--base-port", str(base), base_port=base, worker_id=worker) as env:
        until_fault(env)
        if fails:
            with pytest.raises(UnityCommunicatorStoppedException):
                env.step()
        else:
            env.step()
            assert env.player.poll() is None


def test_fault_that_happened_once_does_not_happen_again(start, tmp_path):
    once = tmp_path / "happened"
    with start("quit", "--fault-once", str(once)) as env:
        until_fault(env)
        assert not once.exists()
        with pytest.raises(UnityCommunicatorStoppedException):
            env.step()
    assert once.exists()
    with start("quit", "--fault-once", str(once)) as env:
        until_fault(env)
        env.step()
        env.step()
    assert env.player.returncode == 0

"""What a worker process leaves behind when it ends: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlhooks.envs import messages, players
from mlhooks.envs.messages import Made
from mlhooks.errors import EnvironmentFailure
from tests.envs.managed import UNHURRIED, Manage, play, wait_until
from tests.envs.numbered import Make, Numbered, Plan
from tests.processes import is_running


class WithPlayer(Numbered):
    """Starts a process, as a Unity player is, and notes its own and that one's number."""

    def __init__(self, worker: int, folder: str) -> None:
        super().__init__(worker, Plan(folder=folder))
        command = [sys.executable, "-S", "-c", "import time; time.sleep(1000)"]
        self.player = subprocess.Popen(command, start_new_session=True)
        players.announce(self.player.pid)
        Path(folder, f"pids-{worker}-{self.life}").write_text(f"{os.getpid()} {self.player.pid}")

    def close(self) -> None:
        self.player.kill()
        self.player.wait()


def pids(folder: Path, name: str = "pids-*") -> list[int]:
    return [int(pid) for path in sorted(folder.glob(name)) for pid in path.read_text().split()]


def test_player_ends_with_its_worker_however_that_ends(manage: Manage, tmp_path: Path) -> None:
    folder = str(tmp_path)
    manager = manage(lambda index: WithPlayer(index, folder), 1)
    play(manager, 1)
    worker, player = pids(tmp_path)
    os.kill(worker, signal.SIGKILL)
    lost = play(manager, 1)
    assert [str(event) for event in lost] == [
        "The environment of worker 0 failed: Its process ended with signal SIGKILL."
    ]
    wait_until(lambda: not is_running(player))
    manager.close()
    manager.close()
    assert not any(is_running(pid) for pid in pids(tmp_path))


class ComesUpNever(WithPlayer):
    """Starts a process and waits for it, as for a player that does not connect."""

    def __init__(self, worker: int, folder: str) -> None:
        super().__init__(worker, folder)
        time.sleep(1000)


def test_player_of_a_worker_that_is_closed_while_it_starts_is_ended_too(manage: Manage, tmp_path: Path) -> None:
    folder = str(tmp_path)
    manager = manage(lambda index: ComesUpNever(index, folder), 1)
    wait_until(lambda: len(pids(tmp_path)) == 2)
    manager.close()  # Nothing that the worker said was read before.
    wait_until(lambda: not any(is_running(pid) for pid in pids(tmp_path)))
    assert len(pids(tmp_path)) == 2


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("psm_*")}


class Misshapen(Numbered):
    """Observes less than its spec says."""

    def get_steps(self, behavior_name: str) -> Any:
        decisions, terminals = super().get_steps(behavior_name)
        decisions.obs[0] = decisions.obs[0][:, :3]
        return decisions, terminals


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="looks at shared memory as Linux shows it")
def test_memory_of_steps_that_could_not_be_written_is_freed(manage: Manage) -> None:
    before = shared_memory()
    manager = manage(Misshapen, 2)
    with pytest.raises(EnvironmentFailure, match=r"observation 0 has the shape \(3, 3\), and not \(3, 4\)"):
        manager.ready()
    manager.close()
    wait_until(lambda: not shared_memory() - before)


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="looks at shared memory as Linux shows it")
def test_memory_of_steps_that_nobody_read_is_freed(manage: Manage) -> None:
    before = shared_memory()
    manager = manage(Make([Plan()]), 1)
    connection = manager._workers[0]._connection
    assert connection is not None
    assert isinstance(messages.receive(connection), Made)
    assert connection.poll(UNHURRIED)  # Its steps are there.
    assert shared_memory() - before
    manager.close()
    wait_until(lambda: not shared_memory() - before)

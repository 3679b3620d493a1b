"""What is left of processes that environments started once they were ended: nothing, and nothing else is touched."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mlhooks.envs import players
from tests.envs.managed import wait_until
from tests.processes import is_running, mentioning

SLEEP = "import time; time.sleep(1000)"
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process as a player is."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(*command: str) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(command, start_new_session=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()


def spawn(folder: Path, code: str, **options: bool) -> str:
    """Python code that starts another process and notes its number, in one go."""
    noted = f"open({str(folder / 'new')!r}, 'w').write(str(p.pid)); os.rename({str(folder / 'new')!r}, "
    arguments = "".join(f", {name}={value}" for name, value in options.items())
    return (
        f"import os, subprocess, sys, time\np = subprocess.Popen([sys.executable, '-S', '-c', {code!r}]{arguments})\n"
        f"{noted}{str(folder / 'pid')!r})\n"
    )


def noted(folder: Path) -> int:
    wait_until((folder / "pid").exists)
    return int((folder / "pid").read_text())


@pytest.mark.parametrize("own_session", [False, True])
def test_descendants_end_with_a_process(start: Start, tmp_path: Path, own_session: bool) -> None:
    leader = start(sys.executable, "-c", spawn(tmp_path, SLEEP, start_new_session=own_session) + "time.sleep(1000)")
    descendant = noted(tmp_path)
    players.kill(players.find(leader.pid))
    wait_until(lambda: not is_running(leader.pid) and not is_running(descendant))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no sessions")
@pytest.mark.parametrize("leader_lives", [True, False])
def test_what_lost_its_parent_ends_with_the_leader_of_its_session(
    start: Start, tmp_path: Path, leader_lives: bool
) -> None:
    between = f"subprocess.run([sys.executable, '-c', {spawn(tmp_path, SLEEP)!r}])"
    leader = start(sys.executable, "-c", f"import subprocess, sys, time\n{between}\ntime.sleep(1000)")
    orphan, known = noted(tmp_path), players.find(leader.pid)
    wait_until(lambda: not known[0].children(recursive=True))
    if not leader_lives:
        leader.kill()
        leader.wait()
    assert is_running(orphan)
    players.kill(known)
    wait_until(lambda: not is_running(orphan))


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_children_that_appear_meanwhile_end_too(start: Start, tmp_path: Path) -> None:
    start("sh", "-c", f"while :; do sh -c 'sleep 100 # {tmp_path}' & sleep 0.005; done")
    leader = psutil.Process().children()[-1]
    wait_until(lambda: len(mentioning(str(tmp_path))) > 5)
    players.kill([leader])
    leader.wait()
    wait_until(lambda: not mentioning(str(tmp_path)))


def test_another_process_that_got_the_number_is_left_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    other = start(sys.executable, "-S", "-c", SLEEP)
    (known,) = players.find(other.pid)
    monkeypatch.setattr(known, "is_running", lambda: False)  # psutil says so when it began at another time.
    players.kill([known])
    assert is_running(other.pid)
    assert psutil.Process(other.pid).status() != psutil.STATUS_STOPPED


def test_process_that_has_ended_is_no_error(start: Start) -> None:
    process = start(sys.executable, "-S", "-c", "")
    known = players.find(process.pid)
    wait_until(lambda: not is_running(process.pid))
    players.kill(known)
    process.wait()
    players.kill(known)
    assert players.find(process.pid) == []


def test_processes_that_may_not_be_ended_keep_no_other_alive(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [start(sys.executable, "-S", "-c", SLEEP) for _ in range(2)]
    (foreign,), (own,) = (players.find(process.pid) for process in processes)

    def denied() -> None:
        raise psutil.AccessDenied(foreign.pid)

    for name in ("suspend", "kill"):
        monkeypatch.setattr(foreign, name, denied)
    players.kill([foreign, own])
    assert processes[1].wait(60)
    assert is_running(foreign.pid)

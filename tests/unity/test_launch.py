import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlhooks.errors import EnvironmentFailure
from mlhooks.sim_player.command import write_executable
from mlhooks.unity.environment import UnityPlayer
from mlhooks.unity.errors import PlayerExited, PlayerNotFound, PlayerSilent
from mlhooks.unity.launch import PlayerProcess
from tests.processes import is_running
from tests.unity.client import free_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="players here are shell scripts")


@pytest.fixture
def start(script: Callable[..., Path]) -> Iterator[Callable[..., PlayerProcess]]:
    processes: list[PlayerProcess] = []

    def run(commands: str, *args: str, log: Path | None = None) -> PlayerProcess:
        processes.append(PlayerProcess(str(script(commands)), args, log))
        return processes[-1]

    yield run
    for process in processes:
        process.close(0)


def test_program_that_does_not_run_here_is_refused(script: Callable[..., Path]) -> None:
    path = script("")
    path.write_bytes(b"\x00\x01 of an unknown machine")
    with pytest.raises(PlayerNotFound, match=r"cannot be executed here: .* Was it built for this platform"):
        PlayerProcess(str(path), ())


def test_exit_is_told_with_code_and_the_end_of_the_output(start: Callable[..., PlayerProcess]) -> None:
    process = start("seq 1 30; echo missing library >&2; exit 7")
    assert process.wait(10)
    with pytest.raises(PlayerExited, match=r"(?s)with code 7\. The end of its output:\n    17\n.*30\n    missing"):
        process.check()


def test_log_of_the_player_outranks_its_output(start: Callable[..., PlayerProcess], tmp_path: Path) -> None:
    log = tmp_path / "Player-0.log"
    process = start(f'echo printed; echo "NullReferenceException of $1" > {log}; exit 1', "Agent", log=log)
    assert process.wait(10)
    with pytest.raises(PlayerExited, match=rf"end of its log, {log}:\n    NullReferenceException of Agent$"):
        process.check()


def test_signal_is_told_by_name(start: Callable[..., PlayerProcess]) -> None:
    process = start("kill -SEGV $$")
    assert process.wait(10)
    with pytest.raises(PlayerExited, match=r"exited with signal SIGSEGV\. It left no log"):
        process.check()


def test_player_that_does_not_quit_is_ended_with_its_children(
    start: Callable[..., PlayerProcess], tmp_path: Path
) -> None:
    children = tmp_path / "pid"
    process = start(f"trap '' TERM; sleep 60 & echo $! > {children}.new; mv {children}.new {children}; wait")
    while not children.exists():
        time.sleep(0.01)
    process.check()
    process.close(0.01)
    for pid in (process.pid, int(children.read_text())):
        while is_running(pid):
            time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


def test_environment_tells_at_once_that_its_player_exited(script: Callable[..., Path], tmp_path: Path) -> None:
    path = script('echo "$@"; exit 3')
    port, log = free_port(), tmp_path / "run logs" / "Player-0.log"
    arguments = rf"-logFile .*Player-0\.log -nographics -batchmode --mlagents-port {port} --level 2"
    with pytest.raises(PlayerExited, match=rf"(?s)code 3.*its output.*{arguments}"):
        UnityPlayer(str(path), port=port, args=["--level", "2"], no_graphics=True, log=log)
    assert log.parent.is_dir()


def test_log_file_among_the_arguments_is_left_alone(script: Callable[..., Path], tmp_path: Path) -> None:
    path = script('echo "<$*>"; exit 3')
    with pytest.raises(PlayerExited, match=r"<--mlagents-port \d+ -LogFile mine>"):
        UnityPlayer(str(path), port=free_port(), args=["-LogFile", "mine"], log=tmp_path / "Player-0.log")


def test_player_that_never_connects_is_ended(script: Callable[..., Path], tmp_path: Path) -> None:
    path = script(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(PlayerSilent, match=r"Game\.x86_64 runs, but did not connect to port \d+ within 0.5 seconds"):
        UnityPlayer(str(path), port=free_port(), timeout_wait=0.5)
    pid = tmp_path / "pid"
    assert not pid.exists() or not is_running(int(pid.read_text()))


def test_silent_player_is_told_with_its_log_and_ended_without_more_patience(
    script: Callable[..., Path], tmp_path: Path
) -> None:
    log = tmp_path / "Player-0.log"
    path = script(f"echo NullReferenceException > {log}; exec sleep 60")
    with pytest.raises(
        PlayerSilent, match=rf"did not connect .* The end of its log, {log}:\n    NullReferenceException"
    ):
        UnityPlayer(str(path), port=free_port(), timeout_wait=0.5, log=log)


def test_player_that_quits_by_itself_is_told_with_its_log(tmp_path: Path) -> None:
    path, log = tmp_path / "Game", tmp_path / "Player-0.log"
    write_executable(path, ["3DBall", "--fault", "quit", "--fault-step", "2"])
    env = UnityPlayer(str(path), port=free_port(), timeout_wait=20, log=log)
    try:
        env.reset()
        with pytest.raises(
            EnvironmentFailure, match=r"(?s)end of its log, .*Player-0\.log:.*The player quits|by itself"
        ):
            env.step()
    finally:
        env.close()

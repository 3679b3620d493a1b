from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from mlhooks import hookimpl
from mlhooks.errors import UsageError
from mlhooks.sim_player.command import write_executable
from mlhooks.training.run import Run
from mlhooks.training.store import End
from tests.envs.numbered import Plan
from tests.envs.numbered_plugins import Numbers, TaughtNumbers
from tests.processes import is_running, mentioning
from tests.scripted import QUIET, config, train

UNLIMITED = {"env_settings.max_lifetime_restarts": -1, "env_settings.restarts_rate_limit_n": -1}


def assert_no_two_episodes_are_mixed(run: Run) -> int:
    """Check every stored transition against what its observations say, and return how many were cut by a failure."""
    store = run.trainers["Numbers"].store
    n = store.size
    life_agent_episode, step = store.obs[0][:n, :3], store.obs[0][:n, 3]
    successor, end = store.successor[:n], store.end[:n]
    is_open = (successor < 0) & (end == End.NONE)
    after = np.flatnonzero(successor >= 0)
    np.testing.assert_array_equal(life_agent_episode[successor[after]], life_agent_episode[after])
    np.testing.assert_array_equal(step[successor[after]], step[after] + 1)
    ended = np.flatnonzero((end == End.TERMINAL) | (end == End.INTERRUPTED))
    final = store.final_obs[0][store.final[ended]]
    np.testing.assert_array_equal(final[:, :3], life_agent_episode[ended])
    np.testing.assert_array_equal(final[:, 3], step[ended] + 1)
    np.testing.assert_array_equal(store.reward[:n][~is_open], step[~is_open] + 1)
    assert store.complete == (~is_open).sum()
    assert sorted(np.flatnonzero(is_open)) == sorted(store.open_row[store.open_row >= 0])
    newest = {life % 100: life for life in sorted(life_agent_episode[:, 0].tolist())}
    assert set(life_agent_episode[is_open, 0].tolist()) <= set(newest.values())
    # A trajectory is there as a whole, from the beginning of its episode or a multiple of the horizon, without a gap.
    for number in np.unique(store.trajectory[:n]):
        steps = step[store.trajectory[:n] == number]
        assert steps.tolist() == list(range(int(steps[0]), int(steps[0]) + len(steps)))
        assert steps[0] % 2 == 0
    return int((final[:, 3] < Plan().length).sum())


@pytest.mark.parametrize(
    ("names", "plan", "flags", "max_steps", "failures"),
    [
        ([*QUIET, "no:processes"], Plan(random=0.1), {"env_settings.num_envs": 3}, 4000, 30),
        (QUIET, Plan(random=0.03, kinds=("raise", "crash", "nan")), {"env_settings.num_envs": 2}, 500, 1),
    ],
    ids=["in process", "processes"],
)
def test_no_stored_transition_mixes_two_episodes_however_often_environments_fail(
    tmp_path: Path, names: list[str], plan: Plan, flags: dict[str, Any], max_steps: int, failures: int
) -> None:
    plugin = Numbers(Plan(**{**vars(plan), "folder": str(tmp_path)}))
    settings = config("Numbers", "test:x", max_steps=max_steps, time_horizon=2, hyperparameters={"buffer_size": 10000})
    run = train(settings, tmp_path / "results", plugin, flags={**flags, **UNLIMITED}, plugin_names=names)
    trainer = run.trainers["Numbers"]
    assert run.outcome.status == "finished"
    assert max_steps <= trainer.step < max_steps + 3 * 3
    assert len(plugin.failures) == len(run.outcome.restarts) >= failures
    assert all(will_restart for _, will_restart in plugin.failures)
    assert assert_no_two_episodes_are_mixed(run) > 0
    assert trainer.pool.size <= 3 * flags["env_settings.num_envs"]  # Slots of lost agents are used again.
    assert trainer.step > trainer.store.complete  # Dropped steps stay counted.


def test_run_in_processes_trains_saves_and_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flags = {"env_settings.num_envs": 2}
    settings = config("3DBall", "sim:3DBall", max_steps=300)
    run = train(settings, tmp_path, flags=flags)
    assert run.trainers["3DBall"].pool.size in (12, 24)  # A worker may be done before the other has started.
    assert run.trainers["3DBall"].updates > 0
    assert run.outcome.restarts == []
    resumed = train(config("3DBall", "sim:3DBall", max_steps=600), tmp_path, flags=flags, resume=True)
    assert "its episodes begin again" in caplog.text
    assert resumed.trainers["3DBall"].step >= 600


@pytest.mark.parametrize("names", [[*QUIET, "no:processes"], QUIET], ids=["in process", "processes"])
def test_lesson_that_demands_a_reset_interrupts_what_agents_were_in_the_middle_of(
    tmp_path: Path, names: list[str]
) -> None:
    criteria = {"behavior": "Numbers", "measure": "progress", "require_reset": True}
    lessons = [
        {"name": str(index), "value": index, "completion_criteria": {**criteria, "threshold": 0.1 * (index + 1)}}
        for index in range(8)
    ]
    settings = config("Numbers", "test:x", max_steps=400, time_horizon=2, hyperparameters={"buffer_size": 10000})
    settings["environment_parameters"] = {"x": {"curriculum": [*lessons, {"name": "last", "value": 9}]}}
    run = train(settings, tmp_path, TaughtNumbers(), flags={"env_settings.num_envs": 2}, plugin_names=names)
    assert run.curriculum.lessons == {"x": 8}
    assert run.outcome.restarts == []
    assert assert_no_two_episodes_are_mixed(run) > 0


def test_curriculum_of_a_simulation_runs_in_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config("3DBall", "sim:3DBall", max_steps=600)
    criteria = {"behavior": "3DBall", "measure": "progress", "threshold": 0.3, "require_reset": True}
    lessons = [{"name": "small", "value": 0.75, "completion_criteria": criteria}, {"name": "big", "value": 3}]
    settings["environment_parameters"] = {"scale": {"curriculum": lessons}}
    heights: list[float] = []

    class Look:
        @hookimpl
        def run_started(self, run: Run) -> None:
            self.run = run

        @hookimpl
        def update_finished(self, trainer: Any) -> None:
            heights.append(float(trainer.store.obs[0][: trainer.store.size, 3].mean()))

    with caplog.at_level("INFO", "mlhooks"):
        train(settings, tmp_path, Look(), flags={"env_settings.num_envs": 2})
    assert "Parameter 'scale' begins lesson 'big' (2 of 2): 3." in caplog.text
    # The centres of the balls are 2.5 and a radius over the point of turning, somewhat more or less on a tilted plate.
    assert heights[0] == pytest.approx(2.875, abs=0.4)
    assert heights[-1] == pytest.approx(4.0, abs=0.4)


def test_environment_that_cannot_be_made_is_refused_as_in_process(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'no simulation "sim:4DBall"; did you mean "3DBall"'):
        train(config("4DBall", "sim:4DBall"), tmp_path, flags={"env_settings.num_envs": 2})


class Patient(Numbers):
    """Waits at summaries, as a long update does, until a fault must have been noticed."""

    def __init__(self, seconds: float, waits: int) -> None:
        super().__init__(Plan())
        self.seconds, self.waits = seconds, waits

    @hookimpl
    def write_stats(self) -> None:
        if self.waits:
            time.sleep(self.seconds)
            self.waits -= 1

    @hookimpl
    def env_failed(self) -> None:
        self.waits = 0


def free_ports(count: int) -> int:
    """Return the first of some ports in a row that nobody listens on now."""
    for port in range(20000 + os.getpid() % 10000, 60000, count):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(port, port + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port
    raise AssertionError("no ports are free")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in of a player is a shell script")
@pytest.mark.parametrize(
    ("fault", "seconds", "cause"),
    [
        ("crash", 0, "SIGABRT"),
        ("exit", 0, "exited with code 1"),
        ("quit", 0, "quit by itself|ended the connection|exited with code 0"),
        ("hang", 0, r"it sent nothing within 15 seconds \(--timeout-wait\)"),
        ("stall", 2, None),
        ("slow-start", 2, None),
        ("nan", 0, "sensor .* the player sent nan"),
        ("nan-reward", 0, "reward: the player sent nan"),
        ("shape", 0, "has the shape"),
        ("version", 0, "speaks version 99.0.0"),
        ("close", 0, "exited with code 0|closed the connection|no message of the protocol"),
    ],
)
def test_run_with_four_players_survives_the_fault_of_one(
    tmp_path: Path, fault: str, seconds: int, cause: str | None
) -> None:
    port = free_ports(4)
    step = 0 if fault in ("slow-start", "version") else int(np.random.default_rng().integers(2, 20))
    options = f"scripted --agents 3 --behavior Numbers:hybrid --fault {fault} --fault-step {step} --fault-worker 2"
    more = ["--base-port", str(port), "--fault-once", str(tmp_path / "once"), "--fault-seconds", str(seconds or 1000)]
    player = write_executable(tmp_path / "player", [*options.split(), *more])
    settings = config("Numbers", str(player), max_steps=2500, time_horizon=4, hyperparameters={"buffer_size": 10000})
    settings["behaviors"]["Numbers"]["summary_freq"] = 400
    settings["env_settings"] |= {"num_envs": 4, "base_port": port, "timeout_wait": 15}
    patient = Patient(17.0 if fault == "hang" else 4.0, waits=1 if cause is None else 5)
    run = train(settings, tmp_path / "results", patient)
    assert (tmp_path / "once").exists(), f"no fault at message {step}"
    assert run.trainers["Numbers"].step >= 2500
    assert [lost.worker.index for lost in run.outcome.restarts] == ([] if cause is None else [2])
    assert cause is None or re.search(cause, str(run.outcome.restarts[0]))
    store = run.trainers["Numbers"].store
    clock = next(i for i, o in enumerate(store.spec.observation_specs) if o.name == "clock")
    assert_clock_goes_on(store, store.obs[clock], store.final_obs[clock])
    wait_until(lambda: not mentioning(str(tmp_path)))


def assert_clock_goes_on(store: Any, clock: np.ndarray, final: np.ndarray) -> None:
    """Compare the players' clocks, which show seed, agent, episode and step: the next one is of the same episode."""
    end, successor = store.end[: store.size], store.successor[: store.size]
    follows = np.flatnonzero(successor >= 0)
    ended = np.flatnonzero((end == End.TERMINAL) | (end == End.INTERRUPTED))
    for rows, after in ((follows, clock[successor[follows]]), (ended, final[store.final[ended]])):
        np.testing.assert_array_equal(after, clock[rows] + [0, 0, 0, 1])


PLUGIN = """
import os, subprocess, sys
from pathlib import Path
from mlhooks import hookimpl
from mlhooks.envs import players
from mlhooks.sims import SIMULATIONS

class Ball(SIMULATIONS["3DBall"]):
    pass

def make(name, *, worker_id, **_):
    assert "torch" not in sys.modules
    env = Ball()
    env.player = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"], start_new_session=True)
    players.announce(env.player.pid)
    close = env.close
    env.close = lambda: (env.player.kill(), env.player.wait(), close())
    Path(os.environ["PIDS"], f"{worker_id}.pids").write_text(f"{os.getpid()} {env.player.pid}")
    return env

@hookimpl
def get_env_types():
    return {"ball": make}

@hookimpl
def update_finished(step):
    print("updated", flush=True)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.02)


def pids_in(folder: Path) -> list[int]:
    return [int(pid) for path in folder.glob("*.pids") for pid in path.read_text().split()]


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("psm_*")}


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="looks at processes and shared memory as Linux shows them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_nothing_is_left_of_a_run_that_is_stopped(tmp_path: Path, number: signal.Signals, code: int) -> None:
    plugin, settings = tmp_path / "ball.py", tmp_path / "config.yaml"
    plugin.write_text(dedent(PLUGIN))
    settings.write_text(json.dumps(config("3DBall", "ball:x", max_steps=10_000_000, summary_freq=10_000_000)))
    command = [sys.executable, "-m", "mlhooks", "run", settings, "-p", plugin, "--num-envs", "2", "--run-id", "run"]
    command += ["-p", "no:tensorboard", "--results-dir", tmp_path / "results"]
    before = shared_memory()
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environ = {**os.environ, "PIDS": str(tmp_path)}
    with (
        subprocess.Popen(command, **streams, env=environ, start_new_session=True) as run,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(run.kill)  # It would train on where something fails here.
        assert run.stdout is not None
        said = []
        while b"updated\n" not in said:
            said.append(run.stdout.readline())
            assert said[-1], said
        wait_until(lambda: len(pids_in(tmp_path)) == 4)  # A worker may start later than the other one trains.
        pids = pids_in(tmp_path)
        if number == signal.SIGINT:
            os.killpg(run.pid, number)  # A terminal does so, too, and the workers get the signal as well.
        else:
            run.send_signal(number)
        rest = run.stdout.read()
    assert run.returncode == code, rest
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    wait_until(lambda: not shared_memory() - before)

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from mlhooks import hookimpl
from mlhooks.errors import UsageError
from mlhooks.training.run import Run
from mlhooks.training.store import End
from tests.envs.numbered import Numbered, Plan
from tests.scripted import QUIET, config, train

UNLIMITED = {"env_settings.max_lifetime_restarts": -1, "env_settings.restarts_rate_limit_n": -1}


class Numbers:
    """A plugin that offers `test:ANY`, the numbered environment with a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.failures: list[tuple[int, bool]] = []

    @hookimpl
    def get_env_types(self) -> Mapping[str, Any]:
        plan = self.plan
        return {"test": lambda name, *, worker_id, **_: Numbered(worker_id, plan)}

    @hookimpl
    def env_failed(self, worker: Any, will_restart: bool) -> None:
        self.failures.append((worker.index, will_restart))


def assert_no_two_episodes_are_mixed(run: Run) -> int:
    """Check every stored transition against what its observations say; returns how many were cut by a failure."""
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
    # a trajectory is there as a whole: from its episode's begin, or a multiple of the horizon, without a gap
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
    assert trainer.pool.size == 3 * flags["env_settings.num_envs"]  # slots of lost agents are used again
    assert trainer.step > trainer.store.complete  # what was dropped stays counted


def test_run_in_processes_trains_saves_and_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flags = {"env_settings.num_envs": 2}
    settings = config("3DBall", "sim:3DBall", max_steps=300)
    run = train(settings, tmp_path, flags=flags)
    assert run.trainers["3DBall"].pool.size == 24
    assert run.trainers["3DBall"].updates > 0
    assert run.outcome.restarts == []
    resumed = train(config("3DBall", "sim:3DBall", max_steps=600), tmp_path, flags=flags, resume=True)
    assert "its episodes begin anew" in caplog.text
    assert resumed.trainers["3DBall"].step >= 600


def test_environment_that_cannot_be_made_is_refused_as_in_process(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'no simulation "sim:4DBall"; did you mean "3DBall"'):
        train(config("4DBall", "sim:4DBall"), tmp_path, flags={"env_settings.num_envs": 2})


PLUGIN = """
import os, subprocess, sys
from pathlib import Path
from mlhooks import hookimpl
from mlhooks.envs import players
from builtin_plugins.sims import SIMULATIONS

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


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.02)


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
    with subprocess.Popen(command, **streams, env=environ, start_new_session=True) as run:
        assert run.stdout is not None
        said = []
        while b"updated\n" not in said:
            said.append(run.stdout.readline())
            assert said[-1], said
        pids = [int(pid) for path in tmp_path.glob("*.pids") for pid in path.read_text().split()]
        assert len(pids) == 4, said
        if number == signal.SIGINT:
            os.killpg(run.pid, number)  # as a terminal does: the workers get it, too
        else:
            run.send_signal(number)
        rest = run.stdout.read()
    assert run.returncode == code, rest
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    wait_until(lambda: not shared_memory() - before)

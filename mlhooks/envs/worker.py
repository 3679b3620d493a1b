"""A worker process: makes one environment, steps it as it is told, and ends with whoever started it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
from mlagents_envs.base_env import BaseEnv

from mlhooks import stop_signals
from mlhooks.envs import messages, players
from mlhooks.envs.closing import close
from mlhooks.envs.manager import as_failure
from mlhooks.envs.messages import Act, Close, Failed, Logged, Made, Player, Reset, Sent, SetParameters
from mlhooks.envs.parameters import Parameters, set_parameters
from mlhooks.envs.shared_arrays import ArrayReader, ArrayWriter
from mlhooks.envs.shared_steps import read_actions, write_steps
from mlhooks.envs.told import spaces_of, stats_of, steps_of


@dataclass(frozen=True)
class Recipe:
    """The recipe of a worker process.

    Args:
        factory: what makes its environment, by the worker's number; pickled by cloudpickle.
        index: the worker's number.
        seed: with the number, the seed of the process's global random generators.
        log_level: of the records that are of interest.
        parameters: environment parameters in place of those that the factory gives.
    """

    factory: bytes
    index: int
    seed: int
    log_level: int
    parameters: Parameters = field(default_factory=dict)


def run(connection: Connection[Any, Any], recipe: Recipe) -> None:
    """Run a worker process from its beginning to its end."""
    # A handler takes them, because children of this process would inherit that a signal is ignored.
    stop_signals.install_handler(_leave_it_to_the_parent)
    stop_signals.unshield()
    parent = _Parent(connection)
    players.listen(parent.send_player)
    threading.Thread(target=parent.end_with_it, daemon=True).start()
    logging.getLogger().addHandler(_LogToParent(parent))
    logging.getLogger("mlhooks").setLevel(recipe.log_level)
    seeds = np.random.SeedSequence([recipe.seed, recipe.index]).generate_state(2).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])  # noqa: NPY002 - Environments may use the global generator.
    env: BaseEnv | None = None
    try:
        env = cloudpickle.loads(recipe.factory)(recipe.index)
        parent.send(Made())
        set_parameters(env, recipe.parameters, recipe.index)
        _Loop(env, parent, recipe.index).run()
    except BaseException as error:
        logging.getLogger("mlhooks").debug("It failed like this:", exc_info=True)
        parent.send(Failed.by(as_failure(error)))
        parent.kill_players()  # Closing the environment would wait for them.
    if env is not None and not close(env, "The environment"):
        raise SystemExit(1)


class _Loop:
    def __init__(self, env: BaseEnv, parent: _Parent, index: int) -> None:
        self._env, self._parent, self._index = env, parent, index
        self._steps, self._actions = ArrayWriter(), ArrayReader()
        self._known: dict[str, Any] = {}  # These specs were sent.

    def run(self) -> None:
        """Step until told to close."""
        try:
            self._run()
        finally:
            self._steps.close()
            self._actions.close()

    def _run(self) -> None:
        env = self._env
        env.reset()
        self._send_steps()
        while True:
            match self._parent.hear():
                case Act(actions):
                    for behavior_id, action in read_actions(self._actions, self._known, actions).items():
                        env.set_actions(behavior_id, action)
                    env.step()
                case Reset():
                    env.reset()
                case SetParameters(parameters):
                    set_parameters(env, parameters, self._index)
                    continue
                case Close():
                    break
            self._send_steps()

    def _send_steps(self) -> None:
        specs, shown = steps_of(self._env)
        new = {name: spec for name, spec in specs.items() if name not in self._known}
        self._known |= new
        own_terms = spaces_of(self._env) if new else {}
        spaces = {name: own_terms[name] for name in new if name in own_terms}
        steps = write_steps(self._steps, self._known, shown)
        self._parent.send(Sent(steps, new, spaces, stats_of(self._env)))


class _Parent:
    """The process that started this one. When it is gone, this process ends at once, and what it started, too."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection, self._lock = connection, threading.Lock()
        self._players: list[players.Process] = []

    def send(self, message: Any) -> None:
        """Send a message, from any thread."""
        try:
            with self._lock:
                messages.send(self._connection, message)
        except OSError:
            self._end()

    def hear(self) -> Any:
        """Wait for a message."""
        try:
            return messages.receive(self._connection)
        except (EOFError, OSError):
            self._end()

    def send_player(self, player: players.Process) -> None:
        """Remember a player, and let the parent know that it must be ended if this process cannot."""
        self._players.append(player)
        self.send(Player(player.pid))

    def end_with_it(self) -> None:
        """Wait for the parent's end."""
        parent = multiprocessing.parent_process()
        assert parent is not None
        wait([parent.sentinel])
        self._end()

    def kill_players(self) -> None:
        """End what the environment started."""
        players.kill(self._players)

    def _end(self) -> NoReturn:
        self.kill_players()
        os._exit(1)


class _LogToParent(logging.Handler):
    def __init__(self, parent: _Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        self._parent.send(Logged(record.name, record.levelno, self.format(record)))


def _leave_it_to_the_parent(*_: object) -> None:
    """Do nothing: a signal may reach all processes of a run, and the parent saves first and then ends this one."""

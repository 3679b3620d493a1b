"""The training process's side of one worker process."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, NamedTuple

from mlagents_envs.base_env import ActionTuple, BehaviorSpec

from mlhooks import stop_signals
from mlhooks.envs import messages, players, worker
from mlhooks.envs.manager import Worker, WorkerStep
from mlhooks.envs.messages import Act, Close, Failed, Logged, Made, Player, Reset, Sent, SetParameters
from mlhooks.envs.parameters import Parameters
from mlhooks.envs.shared_arrays import ArrayReader, ArrayWriter
from mlhooks.envs.shared_steps import read_steps, write_actions
from mlhooks.envs.spaces import Spaces
from mlhooks.errors import EnvironmentFailure

GRACE = 10.0
"""Seconds beyond the environment's own timeout in which a worker may tell what went wrong."""
_LEAVE = 10.0
"""Seconds that a worker gets to close its environment."""


class WorkerProcess:
    """One worker process at a time; it is started again after a failure.

    Args:
        recipe: what it is made from.
        timeout: seconds in which its environment must be made, and answer each step.

    Attributes:
        stepping: whether an answer of its environment is awaited.
        came_up: whether its environment ever sent a step; worked: whether it ever made one.
        answers: how often it sent steps since the process was started.
        leaving: whether the process was told to end.
    """

    def __init__(self, recipe: worker.Recipe, timeout: float) -> None:
        self.recipe, self.timeout = recipe, timeout
        self.stepping = self.leaving = self.came_up = self.worked = False
        self.answers = 0
        self.deadline = float("inf")
        self._process: Any = None
        self._connection: Connection[Any, Any] | None = None
        self._reset = self._hangs = False

    def start(self) -> None:
        """Start the process; its first step will be the environment's first."""
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._steps, self._actions = ArrayReader(), ArrayWriter()
        self._specs: dict[str, BehaviorSpec] = {}
        self._spaces: dict[str, Spaces] = {}
        self._given: dict[str, ActionTuple] = {}
        self._players: list[players.Process] = []
        name = f"mlhooks worker {self.recipe.index}"
        process = context.Process(target=worker.run, args=(theirs, self.recipe), name=name)
        _start_resource_tracker()
        with stop_signals.shielded(), _main_module_hidden():
            process.start()
            self._process = process
        theirs.close()
        self.leaving = self._reset = self._hangs = False
        self.answers = 0
        self._await()

    def _await(self) -> None:
        self.stepping, self.deadline = True, time.monotonic() + self.timeout + GRACE

    @property
    def waitable(self) -> Any:
        """What becomes ready when there is something to do, for `multiprocessing.connection.wait`; or None."""
        if self.leaving:
            return self._process.sentinel
        return self._connection if self.stepping else None

    @property
    def overdue(self) -> bool:
        """Whether the process had its time."""
        return time.monotonic() > self.deadline

    def set_actions(self, behavior_id: str, action: ActionTuple) -> None:
        """Set the actions of one behavior id for the next step."""
        self._given[behavior_id] = action

    def reset(self) -> None:
        """Begin new episodes in place of the next step."""
        self._reset = True

    def set_parameters(self, parameters: Parameters) -> None:
        """Give the environment, and those that follow it, other parameters; it takes them when its step is done."""
        self.recipe = replace(self.recipe, parameters=parameters)
        if self.running and not self.leaving:
            assert self._connection is not None
            with contextlib.suppress(OSError):  # The end of the process shows when its answer is awaited.
                messages.send(self._connection, SetParameters(parameters))

    def send_actions(self) -> None:
        """Let the environment step with the actions that were given, unless it does already."""
        if self.stepping or self.leaving:
            return
        assert self._connection is not None
        message = Reset() if self._reset else Act(write_actions(self._actions, self._specs, self._given))
        self._given, self._reset = {}, False
        self._await()
        with contextlib.suppress(OSError):  # The end of the process shows when its answer is awaited.
            messages.send(self._connection, message)

    def answer(self) -> WorkerStep | None:
        """Return the step that the environment sent, or None as long as it sent none.

        Raises:
            Exception: what the environment or its process failed with.
        """
        for message in self._messages():
            match message:
                case Sent() if self._reset:
                    self._add_behaviors(message)
                    self.stepping = False
                    self.send_actions()
                case Sent():
                    return self._step(message)
                case Failed():
                    raise message.exception()
                case Made():
                    self._await()
                case Player(pid):
                    self._players += players.find(pid)
                case Logged():
                    self._log(message)
        if self.overdue:
            self._hangs = True
            raise EnvironmentFailure(
                f"It did not answer within {self.timeout:g} seconds (--timeout-wait)."
                if self._process.is_alive()
                else self._how_it_ended()
            )
        return None

    def _messages(self) -> Iterator[NamedTuple]:
        assert self._connection is not None
        while True:
            try:
                if not self._connection.poll():
                    return
                message = messages.receive(self._connection)
            except (EOFError, OSError) as error:
                raise EnvironmentFailure(self._how_it_ended()) from error
            yield message

    def _step(self, sent: Sent) -> WorkerStep:
        self.stepping, self.came_up, self.deadline = False, True, float("inf")
        self.worked = self.worked or self.answers > 0  # The first answer is what a reset shows.
        self.answers += 1
        self._add_behaviors(sent)
        steps = read_steps(self._steps, self._specs, sent.steps)
        return WorkerStep(Worker(self.recipe.index), self._specs, steps, sent.stats, self._spaces)

    def _log(self, record: Logged) -> None:
        logging.getLogger(record.logger).log(record.level, "Worker %d: %s", self.recipe.index, record.text)

    def _add_behaviors(self, sent: Sent) -> None:
        self._specs |= sent.specs
        self._spaces |= sent.spaces

    def _how_it_ended(self) -> str:
        self._process.join(1)
        code = self._process.exitcode
        if code is None:
            return "Its process closed the connection."
        how = f"code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"signal {signal.Signals(-code).name}"
        return f"Its process ended with {how}."

    def ask_to_end(self) -> None:
        """Tell the process to close its environment and end, for which it gets some seconds.

        One that hangs gets none, nor one whose environment never came up: it may wait for a player for long.
        """
        assert self._connection is not None
        self.leaving, self.stepping = True, False
        self.deadline = time.monotonic() + (_LEAVE if self.came_up and not self._hangs else 0.0)
        with contextlib.suppress(OSError):
            messages.send(self._connection, Close())

    @property
    def running(self) -> bool:
        """Whether there is a process to end."""
        return self._process is not None

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return not self._process.is_alive()

    def end(self) -> None:
        """End the process, with its player, and free all that it held; does nothing where there is none."""
        if self._process is None:
            return
        process = self._process
        process.kill()
        process.join()
        self._drain()
        self._process = None
        if process.exitcode:
            players.kill(self._players)
        process.close()
        assert self._connection is not None
        self._connection.close()
        self._steps.close()
        self._actions.close()
        self.stepping = self.leaving = False

    def _drain(self) -> None:
        """Read what it still said: of a player that it started last, of trouble, of memory that nobody would free."""
        with contextlib.suppress(EnvironmentFailure):  # Its last message may be cut off.
            for message in self._messages():
                if isinstance(message, Player):
                    self._players += players.find(message.pid)
                elif isinstance(message, Logged):
                    self._log(message)
                elif isinstance(message, Sent):
                    with contextlib.suppress(OSError):  # It freed that itself.
                        self._steps.arrays(message.steps.block, [])


def _start_resource_tracker() -> None:
    """Start the process that multiprocessing keeps beside its workers, which the end of a terminal must not end.

    It would be started together with the first worker, and its start lets SIGINT and SIGTERM through again.
    """
    if sys.platform != "win32":
        from multiprocessing import resource_tracker

        with stop_signals.shielded():
            resource_tracker.ensure_running()


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep a new process from running the user's script again: nothing in it is needed there.

    Otherwise every script that trains would need `if __name__ == "__main__"`, and what it imports would be imported by
    every worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main

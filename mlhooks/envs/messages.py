"""The messages between a worker process and the training process."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from mlagents_envs.base_env import BehaviorSpec

from mlhooks.describing import described
from mlhooks.envs.mistakes import is_mistake, keep_mistake
from mlhooks.envs.parameters import Parameters
from mlhooks.envs.shared_steps import Message
from mlhooks.envs.spaces import Spaces
from mlhooks.envs.told import Stat
from mlhooks.errors import ContractBroken, EnvironmentFailure
from mlhooks.places import keep_place


class Act(NamedTuple):
    """To a worker: carry out these actions and go on."""

    actions: Message


class Reset(NamedTuple):
    """To a worker: begin new episodes."""


class SetParameters(NamedTuple):
    """To a worker: give the environment these parameters; there is no answer."""

    parameters: Parameters


class Close(NamedTuple):
    """To a worker: close the environment and end."""


class Made(NamedTuple):
    """From a worker: its environment is made, and will be reset now."""


class Sent(NamedTuple):
    """From a worker: what its environment sent, with specs and spaces of behaviors that it shows for the first time."""

    steps: Message
    specs: Mapping[str, BehaviorSpec]
    spaces: Mapping[str, Spaces]
    stats: Sequence[Stat]


class Failed(NamedTuple):
    """From a worker: its environment failed. The error is pickled apart, because not every exception can be."""

    error: bytes
    text: str
    mistake: bool

    @classmethod
    def by(cls, error: Exception) -> Failed:
        """Return the message about an error."""
        pickled = b""
        keep_place(error)
        keep_mistake(error)
        with contextlib.suppress(BaseException):  # The code of an exception may do anything.
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
        return cls(pickled, described(error), is_mistake(error))

    def exception(self) -> Exception:
        """Return the error, or an EnvironmentFailure with its text."""
        with contextlib.suppress(Exception):
            error = pickle.loads(self.error)
            if isinstance(error, Exception):
                return error
        return ContractBroken(self.text) if self.mistake else EnvironmentFailure(self.text)


class Logged(NamedTuple):
    """From a worker: a log record."""

    logger: str
    level: int
    text: str


class Player(NamedTuple):
    """From a worker: its environment started this process."""

    pid: int


def send(connection: Connection[Any, Any], message: NamedTuple) -> None:
    """Send one of these messages."""
    connection.send_bytes(pickle.dumps(message))


def receive(connection: Connection[Any, Any]) -> Any:
    """Wait for one of these messages.

    Raises:
        EOFError, OSError: the other end is closed.
    """
    return pickle.loads(connection.recv_bytes())

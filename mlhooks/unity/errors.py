"""The errors of players, each with its true cause.

They are errors of mlhooks and of `mlagents_envs` at once, so that code written for either of them can tell them apart.
"""

from __future__ import annotations

from mlagents_envs.exception import (
    UnityCommunicationException,
    UnityCommunicatorStoppedException,
    UnityEnvironmentException,
    UnityTimeOutException,
    UnityWorkerInUseException,
)

from mlhooks.errors import EnvironmentFailure, EnvironmentPaused, UsageError


class PlayerNotFound(EnvironmentFailure, UnityEnvironmentException):  # type: ignore[misc]
    """There is no player at that path, or it cannot be executed: what is wrong, and what to do about it."""

    exit_code = 2

    def __init__(self, what: str, advice: str) -> None:
        Exception.__init__(self, what, advice)
        self.what, self.advice = what, advice

    def __str__(self) -> str:
        return f"{self.what}. {self.advice}"


class PlayerExited(EnvironmentFailure, UnityEnvironmentException):  # type: ignore[misc]
    """The player's process ended by itself."""


class PlayerSilent(EnvironmentFailure, UnityTimeOutException):  # type: ignore[misc]
    """The player runs and sends nothing for longer than the timeout."""


class PlayerStopped(EnvironmentFailure, UnityCommunicatorStoppedException):  # type: ignore[misc]
    """The player said goodbye or closed the connection."""


class PlayModeEnded(EnvironmentPaused, PlayerStopped):
    """The Unity Editor left Play mode; it may be played again."""


class BehaviorChanged(UsageError, UnityEnvironmentException):  # type: ignore[misc]
    """The scene in the Unity Editor was changed, and its behaviors do not fit the run any more."""


class ProtocolBroken(EnvironmentFailure, UnityCommunicationException):  # type: ignore[misc]
    """The player sent what the protocol does not allow, or speaks another version of it."""


class PortTaken(EnvironmentFailure, UnityWorkerInUseException):  # type: ignore[misc]
    """Another process listens on the port."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)  # The base wants the number of a worker.

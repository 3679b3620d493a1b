"""Processes that environments start, such as Unity players: known here so that none outlives its trainer."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator

_listeners: list[Callable[[int], None]] = []


def announce(pid: int) -> None:
    """Say that an environment started a process, which leads its own session where there are sessions.

    A worker that dies cannot end its player; whoever is told of the player can.
    """
    for listener in _listeners:
        listener(pid)


def listen(listener: Callable[[int], None]) -> None:
    """Be told of the processes that environments of this process start."""
    _listeners.append(listener)


@contextlib.contextmanager
def noticed() -> Iterator[list[int]]:
    """Within it, note the processes that environments of this process start."""
    pids: list[int] = []
    listen(pids.append)
    try:
        yield pids
    finally:
        _listeners.pop()


def kill(pids: Iterable[int]) -> None:
    """End processes at once, with what they started; those that have ended already are no error."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                os.kill(pid, signal.SIGTERM)
            else:
                os.killpg(pid, signal.SIGKILL)

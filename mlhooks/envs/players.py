"""Processes that environments start, such as Unity players: known here so that none outlives its trainer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator

import psutil

Process = psutil.Process
"""A process and when it began, so that another one that gets its number later is not taken for it."""
_listeners: list[Callable[[Process], None]] = []


def announce(pid: int) -> None:
    """Say that an environment started a process, which leads its own session where there are sessions.

    A worker that dies cannot end its player; whoever is told of the player can.
    """
    for process in find(pid):
        for listener in _listeners:
            listener(process)


def find(pid: int) -> list[Process]:
    """Return the process that has this number now, or none."""
    try:
        return [Process(pid)]
    except psutil.NoSuchProcess:
        return []


def listen(listener: Callable[[Process], None]) -> None:
    """Let a function be called with the processes that environments of this process start."""
    _listeners.append(listener)


@contextlib.contextmanager
def noticed() -> Iterator[list[Process]]:
    """Note the processes that environments of this process start in the body."""
    processes: list[Process] = []
    listen(processes.append)
    try:
        yield processes
    finally:
        _listeners.pop()


def kill(processes: Iterable[Process]) -> None:
    """End processes at once, with all that they started; those that have ended already are no error."""
    for process in processes:
        doomed: set[Process] = set()
        while found := _family(process) - doomed:  # Suspended processes start no more of them.
            for member in found:
                with contextlib.suppress(psutil.Error):
                    member.suspend()
            doomed |= found
        for member in doomed:
            with contextlib.suppress(psutil.Error):  # It has ended meanwhile, or became someone else's.
                member.kill()


def _family(process: Process) -> set[Process]:
    """Return a process, its descendants, and the rest of the session that it leads, whose parents may have ended."""
    if not process.is_running() and psutil.pid_exists(process.pid):
        return set()  # Another one has its number.
    members = [process]
    if hasattr(os, "getsid"):
        for other in psutil.process_iter():
            with contextlib.suppress(OSError):  # It has just ended.
                if os.getsid(other.pid) == process.pid:
                    members.append(other)
    family = set(members)
    for member in members:
        with contextlib.suppress(psutil.Error):
            family.update(member.children(recursive=True))
    return family

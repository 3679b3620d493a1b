"""The signals that end a run: who takes them, and how the processes that a run starts are kept from them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK") if hasattr(signal, name)
)
"""Ctrl-C, a polite end, a lost terminal, what Slurm sends before its time limit, and Windows' Ctrl-Break."""

INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a command that Ctrl-C or a signal ended."""

Handler = Callable[[int, FrameType | None], Any]


def install_handler(handler: Handler) -> dict[int, Any]:
    """Let a handler take the signals that end a run, and return the handlers that they had.

    A signal that is ignored stays so, as SIGHUP does under `nohup`. Outside the main thread, where Python delivers no
    signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    foreign = (signal.SIG_IGN, None)  # None is a handler that Python did not install and could not put back
    return {number: signal.signal(number, handler) for number in SIGNALS if signal.getsignal(number) not in foreign}


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Start processes in the body that these signals do not reach until they call `unshield`.

    A terminal sends Ctrl-C, and its own end, to all processes of a run, and Slurm its signals to all of a job: those
    that the run started have to stay until the run has saved and ends them. For the run the signals wait meanwhile.
    """
    if sys.platform == "win32":
        _ignore_ctrl_c(True)
        try:
            yield
        finally:
            _ignore_ctrl_c(False)
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unshield() -> None:
    """Take the signals again in a process that was started within `shielded`."""
    if sys.platform == "win32":
        _ignore_ctrl_c(False)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _ignore_ctrl_c(ignored: bool) -> None:
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.kernel32.SetConsoleCtrlHandler(None, ignored)  # Processes that are started inherit this.


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process while the body runs, as `end_at_once` does."""
    taken = end_at_once()
    try:
        yield
    finally:
        if taken:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def end_at_once(code: int = INTERRUPTED) -> bool:
    """Let Ctrl-C from now on only end the process, with this exit code, and return whether it does.

    It is meant for moments at which there is nothing to save and an exception could surface anywhere, or be lost, such
    as while modules are imported and while the interpreter ends. Somebody else's handler stays.
    """

    def end(*_: object) -> None:
        with contextlib.suppress(OSError):
            os.write(2, b"Interrupted.\n")
        os._exit(code)

    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    signal.signal(signal.SIGINT, end)
    return True

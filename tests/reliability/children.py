"""Runs in processes of their own, which die where they are told to."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlhooks.unity.schema import install

install()  # It comes before anything imports mlagents_envs.

from tests.scripted import train  # noqa: E402

METHODS = multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if "forkserver" in METHODS else "spawn")
if CONTEXT.get_start_method() == "forkserver":  # Its processes need not import torch again.
    CONTEXT.set_forkserver_preload(["tests.reliability.children", "builtin_plugins.ppo", "builtin_plugins.dqn"])

CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"})


def _die() -> None:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # On Windows both end a process at once.


class Changes:
    """Counts what this process changes in a folder, and kills it right before one of these changes."""

    def __init__(self, folder: Path, last: int | None) -> None:
        self.folder, self.last, self.count = str(folder), last, 0
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            _, mode, flags = arguments
            changes = bool(set(mode or "") & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            changes = event in CHANGES
        if changes and str(arguments[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.last:
                _die()


def _run(settings: Mapping[str, Any], folder: Path, last: int | None, seconds: float | None, more: Any) -> None:
    changes = Changes(folder / "run", last)
    if seconds is not None:
        timer = threading.Timer(seconds, _die)
        timer.daemon = True
        timer.start()
    train(settings, folder, **more)
    (folder / "changes.json").write_text(json.dumps(changes.count))


def run_and_die(
    settings: Mapping[str, Any],
    folder: Path,
    *,
    change: int | None = None,
    seconds: float | None = None,
    **more: Any,
) -> int | None:
    """Train in a process that is killed at its n-th change of the folder or after some seconds, or not at all.

    Returns:
        The exit code; 0 where it lived to its end.
    """
    process = CONTEXT.Process(target=_run, args=(settings, folder, change, seconds, more))
    process.start()
    process.join()
    return process.exitcode


def _command(arguments: list[str], output: Path, limit: int | None) -> None:
    from mlhooks.cli import main

    with output.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        if limit is not None:
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = main(arguments)
    os._exit(code)


def command(arguments: list[str], output: Path, *, limit: int | None = None) -> tuple[int | None, str]:
    """Run a command line in a process of its own, in which no file may grow beyond a limit in bytes, if there is one.

    Returns:
        The exit code and what it printed.
    """
    process = CONTEXT.Process(target=_command, args=(arguments, output, limit))
    process.start()
    process.join()
    return process.exitcode, output.read_text() if output.exists() else ""

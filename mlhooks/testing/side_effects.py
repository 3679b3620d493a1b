"""The side effects of a plugin: of its import in a fresh process, and those that a run with it leaves behind."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from importlib.metadata import packages_distributions
from pathlib import Path

import psutil

from mlhooks.testing.target import Target

TIMEOUT_SECONDS = 300


def import_changes(target: Target, environment: dict[str, str]) -> dict[str, list[str]]:
    """Return what importing a plugin changes in the process, by aspect; its dependencies do not count.

    Args:
        target: the plugin.
        environment: environment variables as they were before it was imported here.

    Raises:
        RuntimeError: the import fails in a fresh process; has its output.
    """
    order = {
        "importing": target.importing,
        "paths": [*target.paths, *(path for path in sys.path if path)],
        "first": _foreign_modules(target),
    }
    result = subprocess.run(
        [sys.executable, "-m", "mlhooks.testing.process_state"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
        env={**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if result.returncode:
        raise RuntimeError(result.stderr.strip() or f"exit code {result.returncode}")
    found: dict[str, list[str]] = json.loads(result.stdout)
    return found


def _foreign_modules(target: Target) -> list[str]:
    """Return modules that are imported by now and not the plugin's own: its dependencies are among them."""
    own = target.importing[1].partition(".")[0]
    installed = packages_distributions().keys() | sys.stdlib_module_names
    tests = {"pytest", "_pytest", "py", "pluggy", "hypothesis", "antigravity", "this", "idlelib"}
    return [
        name
        for name, module in list(sys.modules.items())
        if (top := name.partition(".")[0]) in installed
        and top not in tests | {own}
        and not top.startswith("pytest")
        and getattr(module, "__spec__", None) is not None
        and not name.startswith("mlhooks.testing")
    ]


class Belongings:
    """The threads, child processes and open files of this process."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.processes = _children()
        self.files = _open_files()

    def more_than(self, before: Belongings) -> dict[str, list[str]]:
        """Return what is there now and was not before: threads, processes, and files and sockets."""
        files = [text for number, text in self.files.items() if before.files.get(number) != text]
        return {
            "threads": sorted(thread.name for thread in self.threads - before.threads if thread.is_alive()),
            "processes": sorted(self.processes - before.processes),
            "files": sorted(text for text in files if "socket:" not in text),
            "sockets": sorted(text for text in files if "socket:" in text),
        }


def _children() -> set[str]:
    multiprocessing.active_children()  # This forgets those that have ended.
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # It has just ended, or hides its command line.
            found.add(f"pid {child.pid} ({' '.join(child.cmdline())[:100]})")
    return found


def _open_files() -> dict[int, str]:
    """Open descriptors of this process and what they lead to, where the system shows them."""
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
    found = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        if os.path.lexists(entry):  # The descriptor that listed the folder is gone by now.
            found[int(entry.name)] = str(entry.readlink()) if entry.is_symlink() else f"descriptor {entry.name}"
    return found

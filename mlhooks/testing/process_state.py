"""The state of a process that a plugin must leave alone, as texts that can be compared."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from mlhooks.shortening import cut

State = dict[str, dict[str, str]]
"""Aspect -> what -> how it is."""


def process_state(*, generators: bool = True) -> State:
    """Return the state by aspect: torch, random states, warnings, signals, logging, process.

    Args:
        generators: whether the states of the global random generators belong to it.
    """
    return {
        "torch": _torch(),
        "random states": _generators() if generators else {},
        "warnings": {
            "filters": repr(warnings.filters),
            "showwarning": repr(warnings.showwarning),
        },
        "signals": {str(number): repr(signal.getsignal(number)) for number in sorted(signal.valid_signals())},
        "logging": _logging(),
        "process": _process(),
    }


def changes(before: State, after: State) -> dict[str, list[str]]:
    """Return what differs, by aspect, each as a text."""
    return {
        aspect: [
            f"{what}: {_short(before[aspect].get(what))} -> {_short(after[aspect].get(what))}"
            for what in sorted(before[aspect].keys() | after[aspect].keys())
            if before[aspect].get(what) != after[aspect].get(what)
        ]
        for aspect in before
    }


def _short(text: str | None) -> str:
    return "nothing" if text is None else cut(text, 120)


def _torch() -> dict[str, str]:
    import torch

    return {
        "torch.get_default_dtype()": str(torch.get_default_dtype()),
        "torch.get_default_device()": str(torch.get_default_device()),
        "torch.get_num_threads()": str(torch.get_num_threads()),
        "torch.get_num_interop_threads()": str(torch.get_num_interop_threads()),
        "torch.is_grad_enabled()": str(torch.is_grad_enabled()),
        "torch.is_anomaly_enabled()": str(torch.is_anomaly_enabled()),
        "torch.are_deterministic_algorithms_enabled()": str(torch.are_deterministic_algorithms_enabled()),
        "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
        "torch.backends.cudnn.benchmark": str(torch.backends.cudnn.benchmark),
        "torch.backends.cudnn.deterministic": str(torch.backends.cudnn.deterministic),
    }


def _generators() -> dict[str, str]:
    import numpy as np
    import torch

    return {
        "random": _digest(repr(random.getstate()).encode()),
        "numpy.random": _digest(repr(np.random.get_state()).encode()),  # noqa: NPY002 - The global generator is meant.
        "torch": _digest(torch.get_rng_state().numpy().tobytes()),
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _logging() -> dict[str, str]:
    root = logging.getLogger()
    names = [name for name, logger in root.manager.loggerDict.items() if isinstance(logger, logging.Logger)]
    state = {"logging.disable": str(root.manager.disable), "logger class": repr(logging.getLoggerClass())}
    for name in ["root", *(name for name in names if not _is_own_business(name))]:
        logger = root if name == "root" else logging.getLogger(name)
        kinds = [type(handler).__name__ for handler in logger.handlers]
        state[f"logger {name}"] = f"level {logger.level}, handlers {kinds}, propagate {logger.propagate}"
    return {what: how for what, how in state.items() if how != "level 0, handlers [], propagate True"}


def _is_own_business(name: str) -> bool:
    """Return a library's logger that it set up when it was first used; only the shared ones matter."""
    return name.partition(".")[0] not in {"mlhooks", "py", "torch"}


def _process() -> dict[str, str]:
    import numpy as np

    state = {
        f"environment variable {name}": value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"
    }
    return state | {
        "current folder": str(Path.cwd()),
        "sys.excepthook": repr(sys.excepthook),
        "sys.stdout": repr(type(sys.stdout)),
        "recursion limit": str(sys.getrecursionlimit()),
        "numpy.geterr()": str(np.geterr()),
        "threads": ", ".join(sorted(thread.name for thread in threading.enumerate())),
    }


def _ignored_by_python() -> set[int]:
    return {getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name)}


def _main() -> None:
    """Import a plugin in this process and print what that changed; see `import_changes`."""
    import contextlib
    import importlib
    import json

    order: dict[str, Any] = json.loads(sys.stdin.read())
    sys.path[:0] = order["paths"]
    import numpy  # noqa: F401
    import torch  # noqa: F401

    for number in signal.valid_signals() - {signal.SIGINT, *_ignored_by_python()}:
        # It may be inherited from a process that has imported the plugin.
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for name in order["first"]:
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
    before = process_state()
    from mlhooks import plugin_sources

    kind, what = order["importing"]
    with contextlib.redirect_stdout(sys.stderr):
        if kind == "file":
            plugin_sources.from_file(Path(what)).importer()
        else:
            importlib.import_module(what)
        after = process_state()
    sys.stdout.write(json.dumps(changes(before, after)))


if __name__ == "__main__":
    _main()

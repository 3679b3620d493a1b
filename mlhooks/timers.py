"""Nested wall-clock timers of a run, written in the layout of ML-Agents' timers.json."""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from mlhooks import __version__


class Timer:
    """One node of the tree; `with` adds the time of its body. Made by `Timers`."""

    __slots__ = ("_parent", "_started", "_timers", "children", "count", "total")

    def __init__(self, timers: Timers, parent: Timer | None) -> None:
        self._timers, self._parent = timers, parent
        self._started = 0.0
        self.total = 0.0
        self.count = 0
        self.children: dict[str, Timer] = {}

    def __enter__(self) -> None:
        self._timers._current = self
        self._started = perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        self.total += perf_counter() - self._started
        self.count += 1
        self._timers._current = self._parent  # type: ignore[assignment]  # Only the root has none, and it never exits.

    def as_dict(self) -> dict[str, Any]:
        """Return total seconds, count, the seconds that no child accounts for, and the children."""
        children = {name: child.as_dict() for name, child in self.children.items()}
        own = self.total - sum(child["total"] for child in children.values())
        node: dict[str, Any] = {"total": self.total, "count": self.count, "self": max(0.0, own)}
        return node | {"children": children} if children else node


class Timers:
    """A tree of timers for the code of one thread: `with timers("update"): ...`, nested as the calls nest."""

    def __init__(self) -> None:
        self._root = self._current = Timer(self, None)
        self._root._started = perf_counter()
        self._start_time = time.time()
        self._gauges: dict[str, dict[str, float]] = {}

    def __call__(self, name: str) -> Timer:
        """Return the timer `name` below the one that runs; enter it at once, by `with`."""
        current = self._current
        timer = current.children.get(name)
        if timer is None:
            timer = current.children[name] = Timer(self, current)
        return timer

    def set_gauge(self, name: str, value: float) -> None:
        """Note a value beside the times; the file keeps its last, least and greatest one and their count."""
        gauge = self._gauges.setdefault(name, {"value": value, "min": value, "max": value, "count": 0})
        gauge.update(value=value, min=min(gauge["min"], value), max=max(gauge["max"], value), count=gauge["count"] + 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the tree with the metadata of the run; the root's total is the time since it was made."""
        self._root.total, self._root.count = perf_counter() - self._root._started, 1
        head: dict[str, Any] = {"name": "root"}
        if self._gauges:
            head["gauges"] = {name: dict(gauge) for name, gauge in self._gauges.items()}
        return head | {"metadata": self._metadata()} | self._root.as_dict()

    def write(self, path: Path) -> None:
        """Write the tree as JSON; an existing file is replaced only when the new one is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".tmp")
        try:
            partial.write_text(json.dumps(self.as_dict(), indent=4), encoding="utf-8")
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _metadata(self) -> dict[str, str]:
        versions = {"mlhooks_version": __version__, "python_version": platform.python_version()}
        for key, distribution in (("mlagents_envs", "mlagents-envs"), ("pytorch", "torch"), ("numpy", "numpy")):
            try:
                versions[f"{key}_version"] = version(distribution)
            except PackageNotFoundError:
                continue
        times = {"start_time_seconds": str(int(self._start_time)), "end_time_seconds": str(int(time.time()))}
        return {"timer_format_version": "0.1.0", **times, "command_line_arguments": " ".join(sys.argv), **versions}

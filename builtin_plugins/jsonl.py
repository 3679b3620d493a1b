"""Writes stats.jsonl: one JSON object on one line for each behavior and summary period."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlhooks.plugin import hookimpl

if TYPE_CHECKING:
    from mlhooks.plugin import PluginManager, Run, RunOutcome, StatsSummary, Trainer

FILE_NAME = "stats.jsonl"


@hookimpl
def configure(pluginmanager: PluginManager) -> None:
    """Register the writer of this run."""
    pluginmanager.register(JsonlWriter())


class JsonlWriter:
    """Appends to `results/<run_id>/stats.jsonl` what each summary period came to.

    A line is `{"category", "step", "time", "values": {key: {"mean", "std", "sum", "count", "aggregation"}}}`; `time` is
    in seconds since 1970, `aggregation` the lower-case name of the method. It is strict JSON: a NaN becomes null.
    """

    def __init__(self) -> None:
        self._path: Path | None = None

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Begin the file, or on a resume mend it: a killed run can leave half a line."""
        if run.inference:
            return
        self._path = run.path / FILE_NAME
        if run.resumed:
            _keep_lines(self._path, lambda _: True)
        else:
            self._path.unlink(missing_ok=True)

    @hookimpl
    def behavior_added(self, run: Run, behavior_name: str, trainer: Trainer) -> None:
        """Drop the lines that a run wrote after the checkpoint from which it is resumed; they will be written again."""
        if self._path is not None and run.resumed:
            _keep_lines(self._path, lambda row: row["category"] != behavior_name or row["step"] <= trainer.step)

    @hookimpl
    def write_stats(self, category: str, values: Mapping[str, StatsSummary], step: int) -> None:
        """Append a line."""
        if self._path is None:
            return
        row = {
            "category": category,
            "step": step,
            "time": round(time.time(), 3),
            "values": {key: _plain(summary) for key, summary in values.items()},
        }
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with self._path.open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            if file.write(line) < len(line):  # No half line stays, to which the next one would be glued.
                file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    @hookimpl
    def run_finished(self, outcome: RunOutcome) -> None:
        """Name the file in the outcome."""
        if self._path is not None and self._path.exists():
            outcome.files.setdefault("stats", []).append(self._path)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a stats file, none if it does not exist; a damaged line is passed over."""
    if path.exists():
        with path.open("rb") as file:
            yield from (row for row in map(_parse, file) if row is not None)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        whole = line.endswith(b"\n") and isinstance(row["category"], str) and type(row["step"]) is int
        return row if whole and all(isinstance(summary, dict) for summary in row["values"].values()) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _keep_lines(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Replace the file by one of its whole and wanted lines; it is never seen half written."""
    if not path.exists():
        return
    with path.open("rb") as file:
        lines = file.readlines()
    kept = [line for line in lines if (row := _parse(line)) is not None and wanted(row)]
    if len(kept) < len(lines):
        partial = path.with_name(path.name + ".tmp")
        partial.write_bytes(b"".join(kept))
        partial.replace(path)


def _plain(summary: StatsSummary) -> dict[str, float | str | None]:
    numbers = {"mean": summary.mean, "std": summary.std, "sum": summary.sum}
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {**finite, "count": summary.num, "aggregation": summary.aggregation_method.name.lower()}

"""List runs for somebody who names one that is not there, or one that has no checkpoint to use."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlhooks.places import path_below, shown_path
from mlhooks.training.folder_lock import FolderLock
from mlhooks.training.run_files import runs_below
from mlhooks.training.sealed import load_sealed

_SHOWN = 10
_NUMBER = re.compile(r"\d+")


def no_run(results: Path, run_id: str) -> str:
    """Say that there is no run of this name, and which ones there are, the nearest one first.

    Args:
        results: the folder of all runs, which need not exist.
        run_id: the name that was given, or a path.
    """
    missing = f"there is no run {run_id!r} in {shown_path(results)}"
    runs = list(runs_below(results))
    near = _meant(results, run_id, runs) or _nearest(run_id, runs)
    if not runs:
        return f"{missing}; it holds no runs."
    if near is None:
        return f"{missing}; there {'is' if len(runs) == 1 else 'are'} {listed(runs)}."
    others = [run for run in runs if run != near]
    return f"{missing}; did you mean {near}?" + (f" There are {listed([near, *others])}." if others else "")


def listed(runs: Sequence[str]) -> str:
    """Name the first runs, and say how many more there are."""
    first = ", ".join(runs[:_SHOWN])
    return first if len(runs) <= _SHOWN else f"{first} and {len(runs) - _SHOWN:,} more"


def without_results_folder(results: Path, run_id: str) -> str | None:
    """Return the rest of a run id that begins with the results folder's own name; None for all others."""
    first, _, rest = run_id.partition("/")
    return rest if rest and first == results.resolve().name else None


def _meant(results: Path, run_id: str, runs: Sequence[str]) -> str | None:
    """Return the run whose path was given in place of its name."""
    name = without_results_folder(results, run_id.replace("\\", "/"))
    if Path(run_id).is_absolute() and (below := path_below(results, Path(run_id))) is not None:
        name = below.as_posix()
    return name if name is not None and name in runs else None


def _nearest(run_id: str, runs: Iterable[str]) -> str | None:
    """Return the run of the most similar name, if one is similar; numbers count least, because runs are numbered."""

    def likeness(run: str) -> tuple[float, float]:
        return _similarity(_NUMBER.sub("0", run.lower()), _NUMBER.sub("0", run_id.lower())), _similarity(run, run_id)

    best = max(runs, key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= 0.6 else None


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def who_trains(folder: Path) -> str:
    """Say which process trains the run in this folder and saves its first checkpoint; empty where none does."""
    holder = FolderLock(folder).held_by()
    return f"A run goes on there ({holder}): wait for its first checkpoint." if holder else ""


def still_usable(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Name files of a run without a whole checkpoint that can be used alone; empty where none can.

    Args:
        folder: of the run.
        manifest: as it was read from there.
    """
    entries = reversed(manifest["mlhooks"])
    saved = [[*(file["path"] for file in entry["behaviors"].values()), *entry["exported"]] for entry in entries]
    policies = [path.name for path in sorted(folder.glob("*.policy.pt"))]
    for names in [*saved, policies, manifest["metadata"].get("files", [])]:
        if whole := [folder / name for name in names if name.endswith(".pt") and _is_whole(folder / name)]:
            files = " and ".join(shown_path(path) for path in whole[:3])
            return f"What can still be used alone, by init_path or mlhooks.load: {files}."
    return ""


def _is_whole(path: Path) -> bool:
    with contextlib.suppress(Exception):  # A damaged file may fail in any way.
        load_sealed(path)
        return True
    return False

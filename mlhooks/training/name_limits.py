"""Refusing names that are too long for the file system before anything runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mlhooks.errors import UsageError
from mlhooks.names import file_name
from mlhooks.settings import RunOptions
from mlhooks.training.durable import PART

_LONGEST_FILE = PART.format("{}-000000000000.policy.pt")
_LOG_FILE = "run_logs/state-000000000000.pt"


def refuse_long_names(path: Path, options: RunOptions) -> None:
    """Refuse a run whose files would have names that the file system of its results does not take.

    Args:
        path: the folder of the run.
        options: name the behaviors that are known by now.

    Raises:
        UsageError: says which name, how long it is, and how long it may be.
    """
    for part in path.parts:
        _refuse_long(part, path, "--run-id or --results-dir", len(_encoded(part)))
    _refuse_long_path(path / _LOG_FILE, path)
    for behavior in options.behaviors:
        refuse_long_behavior(path, behavior)


def refuse_long_behavior(path: Path, behavior: str) -> None:
    """Refuse a behavior whose files would have names that the file system does not take.

    Raises:
        UsageError: says which name, how long it is, and how long it may be.
    """
    folder = file_name(behavior)
    longest = _LONGEST_FILE.format(folder)
    _refuse_long(folder, path, "name for the behavior", len(_encoded(longest)), "its files' names")
    _refuse_long_path(path / folder / longest, path)


def _refuse_long(name: str, path: Path, what: str, length: int, whose: str = "it") -> None:
    limit = _limit(path, "PC_NAME_MAX", 255)
    if length > limit:
        verb = "has" if whose == "it" else "would have"
        raise UsageError(
            f"{_cut(name)!r} is too long for the name of a folder: {whose} {verb} {length} bytes, and a name may have "
            f"{limit} on that file system. Choose another {what}."
        )


def _refuse_long_path(longest: Path, path: Path) -> None:
    limit = _limit(path, "PC_PATH_MAX", 260) - 1  # It counts the zero at the end.
    length = len(_encoded(str(longest)))
    if length > limit:
        raise UsageError(
            f"{_cut(str(path))} is too long for the folder of a run: the paths of its files would have {length} bytes, "
            f"and a path may have {limit} on that file system. Choose a shorter --run-id or --results-dir."
        )


def _limit(path: Path, name: str, otherwise: int) -> int:
    """Ask the file system that holds the path, or will hold it."""
    if not hasattr(os, "pathconf"):
        return otherwise
    for folder in (path, *path.parents):
        try:
            limit = os.pathconf(folder, name)
        except (OSError, ValueError):  # It is not there yet.
            continue
        return limit if limit > 0 else sys.maxsize
    return otherwise


def _encoded(text: str) -> bytes:
    """Encode a name as its file system counts it; Windows counts units of two bytes, so half of them are left out."""
    return text.encode("utf-16-le")[::2] if os.name == "nt" else os.fsencode(text)


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:20]}...{text[-17:]}"

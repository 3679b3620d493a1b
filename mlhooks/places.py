"""Names of places in messages: where an error was raised, where something is defined, and paths of files."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

_BENEATH = {"mlhooks", "mlagents_envs", "numpy", "torch", "click", "pluggy", "_pytest", *sys.stdlib_module_names}
"""What other people's code is called by, and calls: an error that comes through it is theirs all the same."""
_KEPT, _KEPT_BY, _KEPT_WITH = "_mlhooks_raised_at", "_mlhooks_raised_by", "_mlhooks_raised_with"


def is_others(module: str) -> bool:
    """Return whether a module is other people's, such as a plugin, and neither mlhooks nor what that is built on."""
    return module.partition(".")[0] not in _BENEATH


def raised_at(error: BaseException) -> str:
    """Return `file.py:12`, the innermost line of others' code that an error came through; empty where there is none."""
    kept = str(error.__dict__.get(_KEPT, ""))
    step = None if kept else _innermost(error)
    return kept if step is None else _place(step.tb_frame.f_code.co_filename, step.tb_lineno)


def raised_by(error: BaseException) -> str:
    """Return the module of that line; empty where there is none."""
    kept = str(error.__dict__.get(_KEPT_BY, ""))
    step = None if kept else _innermost(error)
    return kept if step is None else _module(step)


def _innermost(error: BaseException) -> TracebackType | None:
    found, step = None, error.__traceback__
    while step is not None:
        if is_others(_module(step)):
            found = step
        step = step.tb_next
    return found


def _module(step: TracebackType) -> str:
    return str(step.tb_frame.f_globals.get("__name__", ""))


def keep_place(error: BaseException) -> None:
    """Let an error remember where it was raised, because its traceback gets lost on the way to another process."""
    error.__dict__.update({_KEPT: raised_at(error), _KEPT_BY: raised_by(error)})


def keep_classes(error: BaseException, classes: Iterable[type]) -> None:
    """Let an error remember which classes of other people's took part, because it may be one of them that is wrong."""
    named = sorted(f"{kind.__name__}{in_brackets(defined_at(kind))}" for kind in classes)
    error.__dict__.setdefault(_KEPT_WITH, ", ".join(named))


def classes_with(error: BaseException) -> str:
    """Return what `keep_classes` kept, as text; empty where nothing was."""
    return str(error.__dict__.get(_KEPT_WITH, ""))


def defined_at(thing: object) -> str:
    """Return `file.py:12`, where a function, a class or that of an object begins; empty where Python does not know."""
    if not (inspect.isroutine(thing) or inspect.isclass(thing)):
        thing = type(thing)
    with contextlib.suppress(OSError, TypeError):
        _, line = inspect.getsourcelines(thing)
        return _place(inspect.getsourcefile(thing) or "", line)
    return ""


def in_brackets(place: str) -> str:
    """Return ` (file.py:12)`, or nothing for no place."""
    return f" ({place})" if place else ""


def shown_path(path: Path, start: Path | None = None) -> str:
    """Return a path relative to the folder `start`, or to the working directory, where it lies below that."""
    try:
        relative = os.path.relpath(path, start)
    except (ValueError, OSError):  # It is on another drive, or the working directory is gone.
        return str(path)
    return str(path) if Path(relative).parts[:1] == (os.pardir,) else relative


def path_below(folder: Path, path: Path) -> Path | None:
    """Return a path relative to a folder, or None where it leads elsewhere, by itself or by a link."""
    try:
        return path.resolve().relative_to(folder.resolve())
    except (ValueError, OSError, RuntimeError):  # Python 3.11 and 3.12 raise a RuntimeError for links that form a loop
        return None


def _place(file: str, line: int) -> str:
    path = Path(file)
    with contextlib.suppress(ValueError, OSError):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}"

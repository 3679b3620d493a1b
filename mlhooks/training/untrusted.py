"""Untrusted code: plugins and environments in the folder of a run, which may come from somebody else."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mlhooks.errors import UsageError
from mlhooks.places import shown_path
from mlhooks.plugin_sources import BUILTIN, Candidate
from mlhooks.training.run_files import is_run


def refuse_in_run(candidate: Candidate, own: Sequence[Path]) -> None:
    """Refuse a plugin that lies in the folder of a run, before it is imported.

    Such a folder may come from somebody else, so nothing in it is executed. A file counts as lying both where its path
    says and where links lead to. Built-in plugins are never refused.

    Args:
        candidate: the plugin.
        own: folders that count as folders of runs, whatever is in them.

    Raises:
        UsageError: it lies there.
    """
    files = _files(candidate.module, candidate.asked) if candidate.origin.source != BUILTIN else ()
    folder = _run_around(files, own)
    if folder is not None:
        raise UsageError(
            f"{candidate.origin} lies in {shown_path(folder)}, the folder of a run. Such a folder may come from "
            "somebody else, so nothing in it is imported: move the file elsewhere and name it there, or run without "
            f"it: -p no:{candidate.origin.name}"
        )


@contextlib.contextmanager
def around_import(candidate: Candidate, own: Sequence[Path] = ()) -> Iterator[None]:
    """Enter what `load_plugins` takes as `around`, to refuse plugins in the folders of runs as `refuse_in_run` does."""
    refuse_in_run(candidate, own)
    yield


def refuse_target_in_run(text: str, candidate: Candidate, paths: Iterable[str]) -> None:
    """Refuse a plugin that is to be checked, as `refuse_in_run` does.

    Args:
        text: what names it: a path, or the name of a plugin or module.
        candidate: the plugin.
        paths: folders that will be on the import path.
    """
    refuse_in_run(candidate, ())
    for path in [*([text] if os.path.exists(text) else []), *paths]:  # noqa: PTH110 - It stays as it is written, with its links.
        file = os.path.join(path, "pyproject.toml") if os.path.isdir(path) else path  # noqa: PTH112, PTH118
        refuse_in_run(replace(candidate, asked=file, module=""), ())


def refuse_environment_in_run(reference: str, what: str = "environment") -> None:
    """Refuse an environment class that lies in the folder of a run, before it is imported.

    Args:
        reference: `FILE.py:NAME` or `MODULE:NAME`.
        what: what is named so.

    Raises:
        UsageError: it lies there.
    """
    place = reference.rpartition(":")[0]
    folder = _run_around(_files("" if place.endswith(".py") else place, place), ())
    if folder is not None:
        raise UsageError(
            f"The {what} {reference} lies in {shown_path(folder)}, the folder of a run. Such a folder may come "
            "from somebody else, so nothing in it is imported: move the file elsewhere and name it there."
        )


def _run_around(files: Iterable[str], own: Sequence[Path]) -> Path | None:
    """Return the folder of a run in which one of the files lies; None where there is none."""
    for path in files:
        for place in (os.path.abspath(path), os.path.realpath(path)):  # noqa: PTH100
            for folder in Path(place).parents:
                if is_run(folder) or any(_is_same(folder, other) for other in own):
                    return folder
    return None


def _files(module: str, file: str) -> Iterator[str]:
    """Yield the files of a plugin; for a module, those of its packages come first, because finding it imports them."""
    if not module:
        yield file
        return
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:count]))
        except KeyboardInterrupt:
            raise
        except BaseException:  # Importing it later will fail with a message.
            return
        if spec is None:
            return
        yield from [spec.origin] if spec.has_location and spec.origin else []
        yield from spec.submodule_search_locations or ()


def _is_same(folder: Path, other: Path) -> bool:
    try:
        return folder.samefile(other)
    except OSError:  # One of them is not there.
        return False

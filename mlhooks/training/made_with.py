"""Which plugins a run was made with, and which of them are missing where what it saved does not fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mlhooks.describing import described
from mlhooks.errors import CheckpointError, MlhooksError, SettingsError
from mlhooks.places import shown_path
from mlhooks.plugins import PluginManager
from mlhooks.training.manifest import read_manifest


@contextlib.contextmanager
def loading_from(path: Path, manager: PluginManager) -> Iterator[None]:
    """Load the state of a checkpoint in the body; a failure names the file, and the plugins that only its run had.

    Args:
        path: the checkpoint, in the folder of its run.
        manager: the plugins that are loaded.

    Raises:
        MlhooksError: as raised inside, with a note.
        CheckpointError: a part of the state is missing, or cannot be what it should.
    """
    try:
        yield
    except Exception as cause:
        error = _naming_file(path, cause)
        now = manager.others
        missing = [f"{name!r} ({origin})" for name, origin in _made_with(path).items() if name not in now]
        if missing:
            error.add_note(f"The run was made with the plugins {', '.join(missing)}; load them again (-p).")
        elif isinstance(cause, SettingsError):
            error.add_note(f"These settings are in {shown_path(path)}.")
        raise error from (None if error is cause else cause)


def _naming_file(path: Path, cause: Exception) -> MlhooksError:
    shown = shown_path(path)
    if isinstance(cause, MlhooksError):
        names_it = not isinstance(cause, CheckpointError) or shown in str(cause)
        return cause if names_it else CheckpointError(f"{shown}: {cause}")
    if isinstance(cause, KeyError):
        return CheckpointError(f"{shown} has no {cause}.")
    what = str(cause) if isinstance(cause, ValueError) else described(cause)
    return CheckpointError(f"{shown} holds a state that cannot be taken over: {what}.")


def _made_with(path: Path) -> dict[str, str]:
    for folder in (path.parent, path.parent.parent):  # a model of a run, and a checkpoint of one of its behaviors
        with contextlib.suppress(CheckpointError, KeyError):
            return dict(read_manifest(folder)["metadata"]["plugins"])
    return {}

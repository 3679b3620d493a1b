"""The plugins and version that a run was made with, named where its files do not fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import mlhooks
from mlhooks.describing import described
from mlhooks.errors import CheckpointError, MlhooksError, SettingsError
from mlhooks.places import shown_path
from mlhooks.plugins import PluginManager
from mlhooks.training.checkpoints import read_state
from mlhooks.training.manifest import read_manifest


@contextlib.contextmanager
def loading_from(path: Path, manager: PluginManager) -> Iterator[None]:
    """Load the state of a checkpoint in the body; a failure names the file, and what only its run had.

    That is plugins which are not loaded, and another version of mlhooks.

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
        version = _version_of(path)
        if version not in {None, mlhooks.__version__}:
            error.add_note(
                f"mlhooks {version} wrote it, and this is {mlhooks.__version__}: docs/compatibility.md says what a "
                "version reads, and CHANGELOG.md what has changed between them."
            )
        raise error from (None if error is cause else cause)


def _version_of(path: Path) -> str | None:
    """Return the version of mlhooks that wrote a checkpoint, where the file says so."""
    with contextlib.suppress(CheckpointError):
        version = read_state(path)["mlhooks"].get("version")
        return version if isinstance(version, str) else None
    return None


def _naming_file(path: Path, cause: Exception) -> MlhooksError:
    shown = shown_path(path)
    if isinstance(cause, MlhooksError):
        names_it = not isinstance(cause, CheckpointError) or shown in str(cause)
        return cause if names_it else CheckpointError(f"{shown}: {cause}")
    if isinstance(cause, KeyError):
        return CheckpointError(
            f"{shown} has no {cause}. If another version of mlhooks or of a plugin wrote it, go on with that one, or "
            "begin a new run with its weights by --initialize-from."
        )
    what = str(cause) if isinstance(cause, ValueError) else described(cause)
    return CheckpointError(f"{shown} holds a state that cannot be taken over: {what}.")


def _made_with(path: Path) -> dict[str, str]:
    # A run has models in its own folder, and checkpoints in those of its behaviors.
    for folder in (path.parent, path.parent.parent):
        with contextlib.suppress(CheckpointError, KeyError):
            return dict(read_manifest(folder)["metadata"]["plugins"])
    return {}

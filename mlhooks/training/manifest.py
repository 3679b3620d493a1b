"""The manifest of a run's folder, which may come from anybody: its form, and which files it may name."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from mlhooks.errors import CheckpointError
from mlhooks.names import MANIFEST
from mlhooks.places import path_below, shown_path

FILES = (MANIFEST.as_posix(), "run_logs/timers.json", "configuration.yaml", "stats.jsonl", "curve.png")
"""What a run reads or writes, beside what the manifest names."""
MOST_BYTES = 2**27
"""More than the manifest of ten thousand checkpoints has; beyond them none is read."""


def _is_inside(name: str, info: ValidationInfo[Path]) -> str:
    try:
        inside(info.context, name)
    except CheckpointError as error:
        raise ValueError(error) from error
    return name


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _File(_Part):
    path: Annotated[str, AfterValidator(_is_inside)]
    size: int
    sha256: str


class _Checkpoint(_Part):
    behaviors: dict[str, _File]
    run: _File
    exported: list[Annotated[str, AfterValidator(_is_inside)]]


class _Metadata(_Part):
    plugins: dict[str, str] = {}
    files: list[str] = []
    exporting: list[str] = []


class _Described(_Part):
    steps: int
    file_path: str  # It is for ML-Agents' tools; mlhooks neither reads nor removes what it names.


class _Section(_Part):
    checkpoints: list[_Described] = []


class _Manifest(_Part):
    metadata: _Metadata
    mlhooks: list[_Checkpoint]
    __pydantic_extra__: dict[str, _Section]  # These are the sections of behaviors and of environment parameters.


def exporting(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how the names of files begin that exporters were writing when a run was killed."""
    metadata = manifest.get("metadata")
    stems = metadata.get("exporting") if isinstance(metadata, dict) else None
    return tuple(f"{stem}." for stem in stems if isinstance(stem, str)) if isinstance(stems, list) else ()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a run's folder, and check every part of it that mlhooks uses.

    Raises:
        CheckpointError: it is missing, damaged, made by mlagents-learn, or names a file outside of the folder.
    """
    path = inside(folder, MANIFEST.as_posix())
    try:
        with open_file(path) as file:
            manifest = json.loads(file.read(MOST_BYTES))
        if isinstance(manifest, dict) and "metadata" in manifest and "mlhooks" not in manifest:
            where = shown_path(folder)
            raise CheckpointError(f"{where} was written by mlagents-learn, whose checkpoints mlhooks cannot load.")
        _Manifest.model_validate(manifest, context=folder)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        what = first["msg"].removeprefix("Value error, ").partition(" or instance of")[0]
        where = f"{shown_path(path)} cannot be used: {_place(first['loc'])}"
        raise CheckpointError(f"{where}: {what}. {_INSTEAD}") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{shown_path(path)} cannot be read: {reason}. {_INSTEAD}") from error
    checked: dict[str, Any] = manifest
    return checked


def _place(keys: tuple[int | str, ...]) -> str:
    return ".".join(map(str, keys)) or "the whole of it"


_INSTEAD = "A checkpoint beside it can still be used alone, by init_path or mlhooks.load."


def inside(folder: Path, name: str) -> Path:
    """Return the file in a folder that a relative path names.

    Raises:
        CheckpointError: the path leads out of the folder, by itself or by a link on it.
    """
    path = Path(name)
    if path.anchor or not path.parts or ".." in path.parts or "\0" in name or path_below(folder, folder / path) is None:
        raise CheckpointError(
            f"the path {name!r} leads out of the run's folder {shown_path(folder)}, where a run neither reads nor "
            "writes"
        )
    return folder / path


def check_files(folder: Path) -> None:
    """Check that no folder lies where a run has a file.

    Raises:
        CheckpointError: there is one.
    """
    for name in FILES:
        if (folder / name).is_dir():
            raise CheckpointError(f"{shown_path(folder / name)} is a folder, where a run has a file. Move it away.")


def check_entries(folder: Path) -> None:
    """Check that nothing in a run's folder leads whoever writes there out of it, or lets them wait for ever.

    Raises:
        CheckpointError: it holds a link that leads out of it, or a pipe, a socket or a device.
    """
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink() and path_below(folder, path) is None:
                raise CheckpointError(f"{shown_path(path)} is a link that leads out of the run's folder. Remove it.")
            if path.exists() and not (path.is_dir() or path.is_file()):
                raise CheckpointError(
                    f"{shown_path(path)} is a pipe, a socket or a device, which no run makes. Remove it."
                )


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading; a pipe, a socket or a device would block or never end.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"it is a {'folder' if path.is_dir() else 'pipe, socket or device'}, not a file")
    return path.open("rb")

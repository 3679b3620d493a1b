"""Find a player's executable, and what a person may have meant where there is none."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mlagents_envs.env_utils import validate_environment_path

from mlhooks.unity.errors import PlayerNotFound
from mlhooks.unity.programs import PLATFORMS, SUFFIXES, is_program, platform_of

SHOWN = 5
_PARTS = {".so", ".dll", ".dylib", ".debug"}
"""Endings of executable files that belong to a build and are no players."""


def find_player(path: str) -> str:
    """Return the absolute path of the executable that a path means, with or without the platform's ending.

    Raises:
        PlayerNotFound: there is none, it was built for another platform, or the file may not be executed.
    """
    given = Path(path)
    found = path if given.is_file() else validate_environment_path(path)
    if not _runs_here(Path(found or path)):
        raise PlayerNotFound(_built_for(Path(found or path)), _BUILD_AGAIN)
    if found is None:
        raise PlayerNotFound(f"There is no Unity player for this platform at {path}{_what_else(given)}", _advice(given))
    if given.suffix in {".yaml", ".yml"}:
        raise PlayerNotFound(
            f"{path} is a configuration file, and --env names the player",
            f"Say the file first: mlhooks run {path} --env PLAYER",
        )
    if not os.access(found, os.X_OK):
        if not is_program(Path(found)):
            raise PlayerNotFound(f"{found} is no program", _advice(given))
        raise PlayerNotFound(f"The player {found} is not executable", f"Allow it with: chmod +x {found}")
    return str(Path(found).absolute())  # A bare name would be looked up among the system's commands.


_HERE = PLATFORMS.get(sys.platform, sys.platform)
_BUILD_AGAIN = f"Build it again, with {_HERE} as the target platform in Unity's build settings."


def _runs_here(path: Path) -> bool:
    return platform_of(path) in (None, sys.platform)


def _built_for(path: Path) -> str:
    return f"The player {path} was built for {PLATFORMS[platform_of(path) or '']}, and this is {_HERE}"


def _what_else(path: Path) -> str:
    if path.is_dir():
        return ": that is a folder" if _players(path) else ": that is a folder without players"
    there = next((parent for parent in path.parents if parent.is_dir()), path.parent)
    missing = path.relative_to(there).parts[:-1]
    return f": there is no folder {there / missing[0]}" if missing else ""


def _advice(path: Path) -> str:
    inside = _players(path if path.is_dir() else path.parent)
    near = [] if inside and path.is_dir() else _near(path)
    found = near or inside
    here = [str(player) for player in found if _runs_here(player)][:SHOWN]
    if here:
        return f"Did you mean {' or '.join(here)}?" if near else f"Choose a player that is there: {' or '.join(here)}"
    if found:
        return f"{_built_for(found[0])}. {_BUILD_AGAIN}"
    return "Correct the path; what is no Unity player is named as in --env sim:3DBall or --env corridor.py:Corridor."


def _players(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if _looks_like_player(entry)]


def _near(path: Path) -> list[Path]:
    """Return players, and folders on the way to them, whose names are nearest to those of a path, folder by folder."""
    if path == path.parent:  # The drive is not there.
        return []
    folders = [path.parent] if path.parent.is_dir() else [near for near in _near(path.parent) if near.is_dir()]
    names: dict[str, list[Path]] = {}
    for entry in _entries(*folders):
        if entry != path and (_looks_like_player(entry) or (entry.is_dir() and not entry.name.endswith("_Data"))):
            names.setdefault(_bare(entry), []).append(entry)
    return [entry for name in difflib.get_close_matches(_bare(path), names) for entry in names[name]]


def _entries(*folders: Path) -> Sequence[Path]:
    return sorted(entry for folder in folders if os.access(folder, os.R_OK) for entry in folder.iterdir())


def _bare(path: Path) -> str:
    return (path.stem if path.suffix in SUFFIXES else path.name).casefold()


def _looks_like_player(path: Path) -> bool:
    if path.suffix in _PARTS or path.name.startswith("UnityCrashHandler"):
        return False
    return path.suffix in SUFFIXES or (sys.platform != "win32" and path.is_file() and os.access(path, os.X_OK))

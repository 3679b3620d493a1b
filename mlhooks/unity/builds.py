"""A player's executable: where it is, and whether this machine can run it."""

from __future__ import annotations

import difflib
import os
import platform
import sys
from pathlib import Path

from mlagents_envs.env_utils import validate_environment_path

from mlhooks.unity.errors import PlayerNotFound

PLATFORMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
"""`sys.platform` -> what Unity calls the target platform of a build."""
_MAGIC = {
    b"\x7fELF": "linux",
    b"MZ": "win32",
    b"\xcf\xfa\xed\xfe": "darwin",  # Mach-O of 64 bits
    b"\xca\xfe\xba\xbe": "darwin",  # Mach-O for several processors
}
_ELF_PROCESSORS = {0x03: "x86", 0x3E: "x86_64", 0xB7: "arm64"}
_SAME = {"amd64": "x86_64", "aarch64": "arm64", "i386": "x86", "i686": "x86"}
_SUFFIXES = {".exe": "win32", ".app": "darwin", ".x86_64": "linux", ".x86": "linux"}


def find_player(path: str) -> str:
    """The absolute path of the executable that a path means: of the player itself, or without the platform's ending.

    Raises:
        PlayerNotFound: there is none, it was built for another platform, or the file may not be executed.
    """
    found = path if Path(path).is_file() else validate_environment_path(path)
    built_for = platform_of(Path(found or path))
    if built_for not in (None, sys.platform):
        here, there = PLATFORMS.get(sys.platform, sys.platform), PLATFORMS[built_for or ""]
        raise PlayerNotFound(
            f"The player {found or path} was built for {there}, and this is {here}. Build it anew, with {here} as the "
            "target platform in Unity's build settings."
        )
    if found is None:
        raise PlayerNotFound(f"There is no Unity player for this platform at {path}.{_near(Path(path))}")
    if not os.access(found, os.X_OK):
        raise PlayerNotFound(f"The player {found} is not executable. Allow it with: chmod +x {found}")
    return str(Path(found).absolute())  # a bare name would be looked up among the system's commands


def platform_of(path: Path) -> str | None:
    """The `sys.platform` that a program was built for; None for a script, and for what is no program."""
    if path.is_dir():
        return "darwin" if path.suffix == ".app" else None
    head = _head(path)
    return next((built_for for magic, built_for in _MAGIC.items() if head.startswith(magic)), None)


def foreign_processor(path: Path) -> str | None:
    """The processor that a Linux program was built for, where this machine has another one."""
    head = _head(path)
    if not head.startswith(b"\x7fELF"):
        return None
    built_for = _ELF_PROCESSORS.get(int.from_bytes(head[18:20], "little"))
    machine = platform.machine().lower()
    here = _SAME.get(machine, machine)
    return None if built_for in (None, here) or (built_for, here) == ("x86", "x86_64") else built_for


def lacks_data(path: Path) -> Path | None:
    """The folder `<name>_Data` that Unity writes beside a Linux or Windows player, where it is missing."""
    data = path.with_name(f"{path.stem if path.suffix in _SUFFIXES else path.name}_Data")
    return data if platform_of(path) in ("linux", "win32") and not data.is_dir() else None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(20)
    except OSError:
        return b""


def _near(path: Path) -> str:
    if path.is_dir():
        players = sorted(str(entry) for entry in path.iterdir() if _SUFFIXES.get(entry.suffix) == sys.platform)
        return f" That is a folder; in it there is {' and '.join(players)}." if players else " That is a folder."
    if not path.parent.is_dir():
        return f" There is no folder {path.parent}."
    names = {other.name.casefold(): other for other in path.parent.iterdir()}
    near = difflib.get_close_matches(path.name.casefold(), names, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(str(names[name]) for name in near)}?" if near else ""

"""Inspect a file of a build: for which platform and processor it was built, and whether its data is there."""

from __future__ import annotations

import platform
from pathlib import Path

PLATFORMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
"""`sys.platform` -> what Unity calls the target platform of a build."""
SUFFIXES = {".exe": "win32", ".app": "darwin", ".x86_64": "linux", ".x86": "linux"}
"""Ending of a player's name -> `sys.platform`."""
_MAGIC = {
    b"\x7fELF": "linux",
    b"MZ": "win32",
    b"\xcf\xfa\xed\xfe": "darwin",  # Mach-O of 64 bits
    b"\xca\xfe\xba\xbe": "darwin",  # Mach-O for several processors
}
_ELF_PROCESSORS = {0x03: "x86", 0x3E: "x86_64", 0xB7: "arm64"}
_SAME = {"amd64": "x86_64", "aarch64": "arm64", "i386": "x86", "i686": "x86"}


def platform_of(path: Path) -> str | None:
    """Return the `sys.platform` that a program was built for; None for a script, and for what is no program."""
    if path.is_dir():
        return "darwin" if path.suffix == ".app" else None
    head = _head(path)
    return next((built_for for magic, built_for in _MAGIC.items() if head.startswith(magic)), None)


def is_program(path: Path) -> bool:
    """Return whether a file is a program of any platform, or a script."""
    return platform_of(path) is not None or _head(path).startswith(b"#!")


def foreign_processor(path: Path) -> str | None:
    """Return the processor that a Linux program was built for, where this machine has another one."""
    head = _head(path)
    if not head.startswith(b"\x7fELF"):
        return None
    built_for = _ELF_PROCESSORS.get(int.from_bytes(head[18:20], "little"))
    machine = platform.machine().lower()
    here = _SAME.get(machine, machine)
    return None if built_for in (None, here) or (built_for, here) == ("x86", "x86_64") else built_for


def lacks_data(path: Path) -> Path | None:
    """Return the folder `<name>_Data` that Unity writes beside a Linux or Windows player, where it is missing."""
    data = path.with_name(f"{path.stem if path.suffix in SUFFIXES else path.name}_Data")
    return data if platform_of(path) in ("linux", "win32") and not data.is_dir() else None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(20)
    except OSError:
        return b""

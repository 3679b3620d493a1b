"""The native extension, Cython and C, which is built when mlhooks is installed where there is a C compiler.

Each module does in one call what the rest of mlhooks computes in several calls of numpy or torch. The headers hold the
loops in C; `any.c`, `avx2.c` and `avx512.c` build all of them for one kind of processor each, and `loops.pyx` chooses
one of these when it is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

SOURCES, MODULES = ("*.pyx", "*.pxd", "*.h", "*.c"), ("*.so", "*.pyd")
RECORD = "built.txt"
"""The file that says which modules were built from which sources; wheels have none."""
_HERE = Path(__file__).parent


def note_build(folder: Path = _HERE) -> None:
    """Write down of which sources the modules were built just now."""
    (folder / RECORD).write_text(f"{_digest(folder, MODULES)} {_digest(folder, SOURCES)}\n", encoding="utf-8")


def is_outdated(folder: Path = _HERE) -> bool:
    """Return whether the modules were built here of other sources than there are now; False where that is not known."""
    try:
        modules, sources = (folder / RECORD).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return False
    return _digest(folder, MODULES) == modules and _digest(folder, SOURCES) != sources


def _digest(folder: Path, patterns: Iterable[str]) -> str:
    whole = sha256()
    for file in sorted(file for pattern in patterns for file in folder.glob(pattern)):
        whole.update(file.name.encode() + sha256(file.read_bytes()).digest())
    return whole.hexdigest()

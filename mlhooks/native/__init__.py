"""What is compiled when mlhooks is installed with a C compiler; everything here is computed elsewhere, too.

Most of the time of a small network's training goes into asking for things: a call of numpy or torch takes longer than
what it does to a few hundred numbers. These modules do more at one call. Each is asked by the room that computes the
same in numpy or torch, and that does it alone where there was no compiler.

Headers hold the loops, in C; `any.c`, `avx2.c` and `avx512.c` compile all of them for one kind of processor each, and
`loops.pyx` chooses when it is imported.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def load(name: str) -> ModuleType | None:
    """A compiled module, or None where there is none."""
    try:
        return import_module(f"mlhooks.native.{name}")
    except ImportError:
        return None

"""Memory that is used again and again."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mlhooks.fast.switch import is_plain

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt(3)
LARGEST = 2**25  # which mallopt allows for allocations from the heap
ENDLESS = 2**31 - 1


def keep_freed() -> bool:
    """Let the process keep memory that it frees, for what it allocates next.

    Returns:
        Whether it does; not where glibc does not manage memory, or everything is to be plain.

    What a pass through convolutions leaves behind are arrays of many megabytes, which glibc returns to the system when
    they are freed. To get them again, page by page, takes a tenth of the time of an update.
    """
    if is_plain() or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, ENDLESS) and mallopt(MMAP_THRESHOLD, LARGEST))


@contextmanager
def keeping_objects() -> Iterator[None]:
    """Keep all objects that are made in the block from the garbage collector, as imported modules stay anyway.

    So it does not look through them while they are made, nor ever again.
    """
    if is_plain():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()

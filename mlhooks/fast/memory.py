"""Memory in huge pages, memory that stays with the process, and objects that the garbage collector need not visit."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mlhooks.fast.switch import is_plain, native

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # These are parameters of glibc's mallopt(3).
LARGEST = 2**25  # This is the highest threshold that mallopt accepts, in bytes.
ENDLESS = 2**31 - 1
HEAP = 2**28
"""Bytes by which the heap grows at once; what nobody writes to takes no memory."""


def use_huge_pages() -> bool:
    """Ask the system for huge pages for what the process allocates from now on.

    A step of an agent touches objects all over the memory of the process, and the processor knows the places of only
    a few thousand pages at a time: with pages of 4 KiB it looks many of them up at every step, with 2 MiB it need not.

    Returns:
        Whether it asked, which it does on Linux alone, with the native extension, and unless everything is to be plain.
    """
    pages = native("pages")
    if is_plain() or pages is None:
        return False
    # Once it is told how its heap is to grow, glibc no longer adapts these two: it would return the unused part of the
    # heap at the first chance, and each array of more than 128 KiB when it is freed, to get it back page by page.
    _keep(2 * HEAP)
    return any(pages.use_huge_pages(HEAP))


def keep_freed() -> bool:
    """Let the process keep memory that it frees, for what it allocates next.

    Returns:
        Whether that was possible: it needs glibc, and nothing is done where everything is to be plain.

    A forward pass through convolutions allocates arrays of many megabytes, which glibc returns to the system when they
    are freed. Getting them back page by page takes a tenth of the time of an update.
    """
    return not is_plain() and _keep(ENDLESS)


def _keep(unused: int) -> bool:
    """Let glibc keep so many unused bytes at the end of the heap, and take blocks up to `LARGEST` from it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, unused) and mallopt(MMAP_THRESHOLD, LARGEST))


@contextmanager
def keeping_objects() -> Iterator[None]:
    """Keep the garbage collector from all objects that are made in the block, such as imported modules.

    The collector then visits them neither while they are made nor later.
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

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
    some thousand pages at a time: with pages of 4 KiB it looks many of them up at every step, with 2 MiB it need not.

    Returns:
        Whether it could ask; only Linux is asked, with the native extension, and where not everything is to be plain.
    """
    pages = native("pages")
    return not is_plain() and pages is not None and any(pages.use_huge_pages(HEAP))


def keep_freed() -> bool:
    """Let the process keep memory that it frees, for what it allocates next.

    Returns:
        Whether that was possible: it needs glibc, and nothing is done where everything is to be plain.

    A forward pass through convolutions allocates arrays of many megabytes, which glibc returns to the system when they
    are freed. Getting them back page by page takes a tenth of the time of an update.
    """
    if is_plain() or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, ENDLESS) and mallopt(MMAP_THRESHOLD, LARGEST))


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

# cython: language_level=3
"""Huge pages for what the process allocates from now on."""

cdef extern from "pages.h":
    int arenas_in_huge_pages()
    int heap_in_huge_pages(size_t reserve)


def use_huge_pages(size_t reserve):
    """Ask for huge pages for Python's objects, and for the next `reserve` bytes of the C library's heap.

    Returns:
        Whether the heap has them, and the arenas of Python's objects; they have them only on Linux.
    """
    return bool(heap_in_huge_pages(reserve)), bool(arenas_in_huge_pages())

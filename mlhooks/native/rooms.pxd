"""Memory of compiled modules."""

from mlhooks.native.loops cimport loops


cdef inline long padded(long size) noexcept nogil:
    """Whole vectors."""
    return (size + loops.width - 1) // loops.width * loops.width


cdef inline long paneled(long size) noexcept nogil:
    """Whole panels."""
    return (size + loops.panel - 1) // loops.panel * loops.panel


cdef class Room:
    """Numbers that are let go of with the object; 0 at first, and where a line of the cache begins."""

    cdef void* memory
    cdef float* numbers
    cdef Py_ssize_t size

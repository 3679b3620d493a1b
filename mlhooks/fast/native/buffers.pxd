"""Memory of the native modules."""

from mlhooks.fast.native.loops cimport loops


cdef inline long padded(long size) noexcept nogil:
    """Whole vectors."""
    return (size + loops.width - 1) // loops.width * loops.width


cdef inline long panel_padded(long size) noexcept nogil:
    """Whole panels."""
    return (size + loops.panel - 1) // loops.panel * loops.panel


cdef class AlignedBuffer:
    """Numbers that are let go of with the object; 0 at first, and where a line of the cache begins."""

    cdef void* memory
    cdef float* numbers
    cdef Py_ssize_t size

"""Buffers of the native modules."""

from mlhooks.fast.native.loops cimport loops


cdef inline long padded(long size) noexcept nogil:
    """Return the size rounded up to whole vectors."""
    return (size + loops.width - 1) // loops.width * loops.width


cdef inline long panel_padded(long size) noexcept nogil:
    """Return the size rounded up to whole panels."""
    return (size + loops.panel - 1) // loops.panel * loops.panel


cdef class AlignedBuffer:
    """A buffer of zeros that begins with a cache line and is freed with the object."""

    cdef void* memory
    cdef float* numbers
    cdef Py_ssize_t size


cdef AlignedBuffer borrowed(Py_ssize_t size)
cdef void returned(AlignedBuffer buffer)

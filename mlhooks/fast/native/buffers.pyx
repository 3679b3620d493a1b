# cython: language_level=3
"""Buffers of the native modules."""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree


cdef enum:
    LINE = 64  # bytes


cdef class AlignedBuffer:
    """A buffer of zeros that begins with a cache line and is freed with the object."""

    def __cinit__(self, Py_ssize_t size):
        self.memory = PyMem_RawCalloc(size * sizeof(float) + LINE, 1)
        if self.memory is NULL:
            raise MemoryError
        self.numbers = <float*>((<size_t>self.memory + LINE - 1) // LINE * LINE)
        self.size = size

    def __dealloc__(self):
        PyMem_RawFree(self.memory)


cdef list idle = []  # The last one is the one that was used last, so that it is in the cache.


cdef AlignedBuffer borrowed(Py_ssize_t size):
    """Return a buffer of at least this size, with any numbers, for this thread alone until it gives it to `returned`.

    Passes through many networks compute in the same memory, which stays in the cache then.
    """
    cdef AlignedBuffer buffer = idle.pop() if idle else None
    return AlignedBuffer(size) if buffer is None or buffer.size < size else buffer


cdef void returned(AlignedBuffer buffer):
    """Let the next pass have the buffer."""
    idle.append(buffer)

# cython: language_level=3
"""Memory of the native modules."""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree


cdef enum:
    LINE = 64  # bytes


cdef class AlignedBuffer:
    """Numbers that are let go of with the object; 0 at first, and where a line of the cache begins."""

    def __cinit__(self, Py_ssize_t size):
        self.memory = PyMem_RawCalloc(size * sizeof(float) + LINE, 1)
        if self.memory is NULL:
            raise MemoryError
        self.numbers = <float*>((<size_t>self.memory + LINE - 1) // LINE * LINE)
        self.size = size

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

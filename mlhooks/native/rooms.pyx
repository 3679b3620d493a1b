# cython: language_level=3
"""Memory of compiled modules."""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree


cdef class Room:
    """Numbers that are let go of with the object; 0 at first."""

    def __cinit__(self, Py_ssize_t size):
        self.numbers = <float*>PyMem_RawCalloc(max(size, 1), sizeof(float))
        if self.numbers is NULL:
            raise MemoryError
        self.size = size

    def __dealloc__(self):
        PyMem_RawFree(self.numbers)

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""What updates compute beside losses."""

from libc.math cimport sqrt

cimport numpy as cnp
from mlhooks.native.arrays cimport pointer, vector
from mlhooks.native.loops cimport loops

cnp.import_array()


def adam_step(data, grad, mean, square, double lr, double beta1, double beta2, double eps, long steps):
    """A step of Adam on float32 arrays of one size, which it changes; `steps` counts from 1."""
    cdef long size = data.size
    cdef float* d = pointer(data, size, 1)
    cdef float* g = pointer(grad, size, 1)
    cdef float* m = pointer(mean, size, 1)
    cdef float* s = pointer(square, size, 1)
    loops.adam(size, d, g, m, s, 1 - beta1, 1 - beta2, beta2, lr / (1 - beta1**steps), sqrt(1 - beta2**steps), eps)


def standardize(array):
    """As `Batch.standardize`, of [rows]."""
    cdef long size = len(array), i
    cdef const float* x = pointer(array, size, 1)
    cdef cnp.ndarray results = vector(size)
    cdef float* result = <float*>cnp.PyArray_DATA(results)
    cdef double mean = 0, square = 0, scale
    for i in range(size):
        mean += x[i]
    mean /= size
    for i in range(size):
        square += (x[i] - mean) * (x[i] - mean)
    scale = 1.0 / sqrt(square / size + 1e-16)
    for i in range(size):
        result[i] = <float>((x[i] - mean) * scale)
    return results

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Kernels of updates: Adam, standardization and minibatches."""

import torch
from libc.math cimport sqrt

cimport numpy as cnp
from mlhooks.fast.native.arrays cimport is_plain, like, pointer
from mlhooks.fast.native.experience import take
from mlhooks.fast.native.loops cimport loops

cnp.import_array()

cdef object Tensor = torch.Tensor, strided = torch.strided, from_numpy = torch.from_numpy
cdef set TYPES = {torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool}


cdef object memory(tensor):
    """Return a tensor's memory as an array; None where the memory alone does not tell the tensor's values."""
    if cnp.PyArray_Check(tensor):
        return tensor
    if type(tensor) is not Tensor or not tensor.is_cpu or tensor.layout is not strided or tensor.requires_grad:
        return None
    return None if tensor.dtype not in TYPES or tensor.is_neg() else tensor.numpy()


def adam_step(data, grad, mean, square, double lr, double beta1, double beta2, double eps, long steps):
    """Compute what `adam.adam_step` does."""
    data, grad, mean, square = memory(data), memory(grad), memory(mean), memory(square)
    if not (is_plain(data) and is_plain(grad) and is_plain(mean) and is_plain(square)):
        return NotImplemented
    cdef long size = data.size
    cdef float* d = pointer(data, size, 1)
    cdef float* g = pointer(grad, size, 1)
    cdef float* m = pointer(mean, size, 1)
    cdef float* s = pointer(square, size, 1)
    loops.adam(size, d, g, m, s, 1 - beta1, 1 - beta2, beta2, lr / (1 - beta1**steps), sqrt(1 - beta2**steps), eps)


def standardized(tensor):
    """Compute what `batch.standardized` does."""
    array = memory(tensor)
    if not is_plain(array):
        return NotImplemented
    cdef long size = cnp.PyArray_SIZE(array), i
    cdef const float* x = pointer(array, size, 1)
    cdef cnp.ndarray results = like(array)
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
    return from_numpy(results)


def rows_of(columns, rows):
    """Compute what `batch.rows_of` does."""
    cdef list arrays = [memory(column) for column in columns]
    cdef object places = memory(rows)
    if places is None or any(array is None for array in arrays):
        return NotImplemented
    return [*map(from_numpy, take(arrays, places))]

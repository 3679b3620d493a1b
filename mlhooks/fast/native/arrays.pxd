"""Checked access to the memory of arrays."""

cimport numpy as cnp


cdef inline bint is_plain(array):
    """Return whether a value is a contiguous array of float32."""
    if not cnp.PyArray_Check(array) or cnp.PyArray_TYPE(<cnp.ndarray>array) != cnp.NPY_FLOAT32:
        return False
    return cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array)


cdef inline float* pointer(array, long rows, long columns) except NULL:
    """Return the memory of a contiguous float32 array that has rows * columns numbers."""
    if not cnp.PyArray_Check(array):
        raise TypeError("not an array")
    cdef cnp.ndarray known = <cnp.ndarray>array
    if cnp.PyArray_TYPE(known) != cnp.NPY_FLOAT32 or not cnp.PyArray_ISCARRAY_RO(known):
        raise TypeError("not a contiguous array of float32")
    if cnp.PyArray_SIZE(known) != rows * columns:
        raise ValueError("an array of another size")
    return <float*>cnp.PyArray_DATA(known)


cdef inline cnp.int64_t* whole(array, long size) except NULL:
    """Return the memory of a contiguous int64 array of this size."""
    if not cnp.PyArray_Check(array) or cnp.PyArray_TYPE(array) != cnp.NPY_INT64:
        raise TypeError("not an array of int64")
    if not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_SIZE(array) != size:
        raise TypeError("not a contiguous array of that size")
    return <cnp.int64_t*>cnp.PyArray_DATA(array)


cdef inline object plain(array, int dimensions):
    """Return the array as a contiguous one of float32 that has so many dimensions; 0 allows any."""
    return cnp.PyArray_FROMANY(
        array, cnp.NPY_FLOAT32, dimensions, dimensions, cnp.NPY_ARRAY_IN_ARRAY | cnp.NPY_ARRAY_FORCECAST
    )


cdef inline cnp.ndarray empty(long rows, long columns):
    cdef cnp.npy_intp[2] shape
    shape[0], shape[1] = rows, columns
    return cnp.PyArray_EMPTY(2, shape, cnp.NPY_FLOAT32, 0)


cdef inline cnp.ndarray vector(long rows):
    cdef cnp.npy_intp size = rows
    return cnp.PyArray_EMPTY(1, &size, cnp.NPY_FLOAT32, 0)


cdef inline cnp.ndarray like(array):
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), cnp.NPY_FLOAT32, 0)

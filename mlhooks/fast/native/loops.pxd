"""The loops in C, for the kind of processor on which this runs."""

from libc.stdint cimport int64_t

cdef extern from "loops.h" nogil:
    const int NONE, ADD, SUBTRACT, MULTIPLY, DIVIDE, MINIMUM, MAXIMUM, HUBER, SQUARED_ERROR, NEGATE, EXPONENTIAL, SQUARE
    const int CLAMP, MEAN, SUM
    const int TANH, RELU, LEAKY_RELU, ELU, SWISH

    cdef struct Loops:
        const char* kind
        long width, panel
        void (*product)(long, long, long, long, const float*, long, long, long, const float*, long, long, float*,
                        long, const float*, int) noexcept nogil
        void (*pack)(long, long, const float*, long, float*) noexcept nogil
        void (*pack_transposed)(long, long, const float*, long, float*) noexcept nogil
        void (*dots)(long, long, long, const float*, long, const float*, const float*, float*, long) noexcept nogil
        void (*activate)(int, long, float*, float*, const float*) noexcept nogil
        void (*activate_backward)(int, long, long, float*, const float*, const float*, float*,
                                  const float*) noexcept nogil
        void (*transpose)(long, long, const float*, long, float*, long, int) noexcept nogil
        void (*copy)(long, long, const float*, long, float*, long, int) noexcept nogil
        void (*scale_bytes)(long, const unsigned char*, float, float*) noexcept nogil
        void (*operate)(int, long, const float*, long, const float*, long, float*) noexcept nogil
        void (*operate_backward)(int, int, long, const float*, const float*, long, const float*, long, const float*,
                                 float*) noexcept nogil
        void (*adam)(long, float*, const float*, float*, float*, float, float, float, float, float,
                     float) noexcept nogil
        int (*are_finite)(long, const float*) noexcept nogil
        void (*gather)(long, const int64_t*, long, long, const char*, char*) noexcept nogil

cdef const Loops* loops

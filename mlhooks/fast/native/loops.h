/* The loops, built for several kinds of processors, each with vectors of its size. */

#pragma once

#include <stdint.h>

/* activations */
enum { TANH, RELU, LEAKY_RELU, ELU, SWISH };

/* operations of losses */
enum { NONE, ADD, SUBTRACT, MULTIPLY, DIVIDE, MINIMUM, MAXIMUM, HUBER, SQUARED_ERROR, NEGATE, EXPONENTIAL, SQUARE,
       CLAMP, MEAN, SUM };

struct Loops {
    const char *kind;
    long width; /* numbers in a vector */
    /* mlp.h */
    long panel;
    void (*product)(long rows, long columns, long runs, long depth, const float *a, long a_row, long a_run,
                    long a_depth, const float *b, long b_column, long b_depth, float *c, long ldc, const float *start,
                    int add);
    void (*pack)(long rows, long columns, const float *from, long ldf, float *to);
    void (*pack_transposed)(long rows, long columns, const float *from, long ldf, float *to);
    void (*dots)(long rows, long inputs, long outputs, const float *x, long ldx, const float *weight,
                 const float *bias, float *y, long ldy);
    void (*activate)(int kind, long n, float *x, float *kept, const float *prefetched);
    void (*activate_backward)(int kind, long rows, long columns, float *gradient, const float *y, const float *kept,
                              float *sums, const float *prefetched);
    void (*transpose)(long rows, long columns, const float *from, long ldf, float *to, long ldt, int add);
    void (*copy)(long rows, long columns, const float *from, long ldf, float *to, long ldt, int add);
    /* images.h */
    void (*scale_bytes)(long n, const unsigned char *from, float factor, float *to);
    /* arithmetic.h */
    void (*operate)(int operation, long n, const float *a, long a_step, const float *b, long b_step, float *to);
    void (*operate_backward)(int operation, int of, long n, const float *g, const float *a, long a_step,
                             const float *b, long b_step, const float *result, float *to);
    /* updates.h */
    void (*adam)(long n, float *data, const float *grad, float *mean, float *square, float new1, float new2,
                 float beta2, float rate, float root, float eps);
    /* experience.h */
    int (*are_finite)(long n, const float *a);
    void (*gather)(long rows, const int64_t *places, long last, long bytes, const char *from, char *to);
};

/* Other compilers than GCC, and other processors than x86-64, get only the loops that every processor can run. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_X86 1
#else
#define FOR_X86 0
#endif

extern const struct Loops any_loops, avx2_loops, avx512_loops;

enum { MOST_KINDS = 3 };
/* Put the loops that this processor can run into `found`, the fastest first, and return how many they are. */
long usable_loops(const struct Loops **found);

/* Vectors of BYTES, the size that one kind of processor computes with. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float vec __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(BYTES), aligned(4), may_alias));
enum { WIDTH = BYTES / 4 };

#define INLINE static inline __attribute__((always_inline))
#define AT(pointer) (*(vec *)(pointer))

INLINE vec where(ivec condition, vec x, vec y)
{
    return (vec)((condition & (ivec)x) | (~condition & (ivec)y));
}

/* e^x by Cody and Waite's reduction to |r| <= ln(2) / 2 and the series of e^r */
INLINE vec exponential(vec x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the lowest bits */
    vec zero = {0}, low = zero - 104.0f, high = zero + 89.0f; /* beyond these, the result is 0 and infinite */
    vec bounded = where(x < low, low, where(x > high, high, x));
    vec shifted = bounded * 1.44269504f + shift, n = shifted - shift;
    vec r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = r * (1.0f / 720.0f) + (1.0f / 120.0f);
    y = y * r + (1.0f / 24.0f);
    y = y * r + (1.0f / 6.0f);
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    /* times 2^n in two steps, because for the smallest and the largest results float32 cannot hold 2^n */
    ivec exponent = (ivec)shifted - (ivec)(zero + shift), half = exponent >> 1;
    y = y * (vec)((half + 127) << 23) * (vec)((exponent - half + 127) << 23);
    return where(x != x, x, y);
}

/* the sum of a vector's numbers */
INLINE float sum_of(vec x)
{
    typedef float quarter __attribute__((vector_size(16)));
    quarter parts[BYTES / 16], sum;
    memcpy(parts, &x, sizeof x);
    sum = parts[0];
    for (int i = 1; i < BYTES / 16; i++)
        sum += parts[i];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* the sum of n numbers: blocks are summed in float32, and their sums in double precision */
INLINE double total(long n, const float *a)
{
    enum { SOME = 1024 };
    double sum = 0;
    for (long i = 0; i < n;) {
        vec some = {0};
        for (long stop = i + SOME; i < stop && i + WIDTH <= n; i += WIDTH)
            some += AT(a + i);
        sum += sum_of(some);
        if (i + WIDTH > n)
            for (; i < n; i++)
                sum += a[i];
    }
    return sum;
}

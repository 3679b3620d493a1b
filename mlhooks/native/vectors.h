/* Vectors of 16 float32 numbers.

   Code is written for vectors of that size; the compiler makes of them what each kind of processor has, and the right
   one is chosen when a module is loaded. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
enum { WIDTH = 16 };

/* before GCC 12 compilers do not know these names, and the choice is glibc's */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define WIDEST (__builtin_cpu_supports("avx512f") ? 4 : 1) /* vectors of a row whose sums fit into the registers */
#else
#define CLONES
#define WIDEST 1
#endif
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
    vec zero = {0}, low = zero - 104.0f, high = zero + 89.0f; /* beyond which it is 0 and infinite */
    vec bounded = where(x < low, low, where(x > high, high, x));
    vec shifted = bounded * 1.44269504f + shift, n = shifted - shift;
    vec r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = r * (1.0f / 720.0f) + (1.0f / 120.0f);
    y = y * r + (1.0f / 24.0f);
    y = y * r + (1.0f / 6.0f);
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    /* times 2^n in two steps, because neither the smallest results nor the largest ones have a factor that is a number */
    ivec exponent = (ivec)shifted - (ivec)(zero + shift), half = exponent >> 1;
    y = y * (vec)((half + 127) << 23) * (vec)((exponent - half + 127) << 23);
    return where(x != x, x, y);
}

/* the sum of n numbers, of which some are added up in float32 before they are in double precision */
INLINE double total(long n, const float *a)
{
    enum { SOME = 1024 };
    double sum = 0;
    for (long i = 0; i < n;) {
        float parts[WIDTH];
        vec some = {0};
        for (long stop = i + SOME; i < stop && i + WIDTH <= n; i += WIDTH)
            some += AT(a + i);
        AT(parts) = some;
        for (int p = 0; p < WIDTH; p++)
            sum += parts[p];
        if (i + WIDTH > n)
            for (; i < n; i++)
                sum += a[i];
    }
    return sum;
}

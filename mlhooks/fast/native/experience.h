#include "vectors.h"

/* Return whether all numbers are finite; any other one times 0 is NaN. */
static int are_finite(long n, const float *a)
{
    float rest = 0;
    vec sum = {0};
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        sum += AT(a + i) * 0.0f;
    for (; i < n; i++)
        rest += a[i] * 0.0f;
    return sum_of(sum) + rest == 0.0f;
}

/* to = the rows of `from`, of so many bytes each, at these places; the last one in place of -1 */
static void gather(long rows, const int64_t *places, long last, long bytes, const char *from, char *to)
{
#define GATHER(size)                                                                                                   \
    for (long r = 0; r < rows; r++)                                                                                    \
        memcpy(to + r * (size), from + (places[r] < 0 ? last : places[r]) * (size), size)
    switch (bytes) { /* the usual ones without a call for each row */
    case 0: break;
    case 4: GATHER(4); break;
    case 8: GATHER(8); break;
    case 16: GATHER(16); break;
    default: GATHER(bytes);
    }
}

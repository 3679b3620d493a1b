#include "vectors.h"

/* whether all numbers are finite: what is not, is NaN times 0 */
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

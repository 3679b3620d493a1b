#include "vectors.h"

/* whether all numbers are finite: what is not, is NaN times 0 */
CLONES static int are_finite(long n, const float *a)
{
    float parts[WIDTH], rest = 0;
    vec sum = {0};
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        sum += AT(a + i) * 0.0f;
    AT(parts) = sum;
    for (; i < n; i++)
        rest += a[i] * 0.0f;
    for (int p = 0; p < WIDTH; p++)
        rest += parts[p];
    return rest == 0.0f;
}

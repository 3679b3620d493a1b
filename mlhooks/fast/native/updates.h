#include "vectors.h"

/* Adam (Kingma and Ba 2015, algorithm 1): new = 1 - beta, which float32 would not give exactly; its bias corrections
   are in rate and root = sqrt(1 - beta2^t) */
static void adam(long n, float *data, const float *grad, float *mean, float *square, float new1, float new2,
                        float beta2, float rate, float root, float eps)
{
    for (long i = 0; i < n; i++) {
        mean[i] += (grad[i] - mean[i]) * new1;
        square[i] = square[i] * beta2 + grad[i] * grad[i] * new2;
        data[i] -= rate * mean[i] / (__builtin_sqrtf(square[i]) / root + eps);
    }
}

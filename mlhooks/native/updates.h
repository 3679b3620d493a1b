#include "vectors.h"

/* Adam (Kingma and Ba 2015, algorithm 1), its bias corrections in rate and root: root = sqrt(1 - beta2^t) */
CLONES static void adam(long n, float *data, const float *grad, float *mean, float *square, float beta1, float beta2,
                        float rate, float root, float eps)
{
    for (long i = 0; i < n; i++) {
        mean[i] += (grad[i] - mean[i]) * (1.0f - beta1);
        square[i] = square[i] * beta2 + grad[i] * grad[i] * (1.0f - beta2);
        data[i] -= rate * mean[i] / (__builtin_sqrtf(square[i]) / root + eps);
    }
}

#include "vectors.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#define FLUSHING 0x8040 /* results and operands that are denormal count as 0 */
#define control _mm_getcsr
#define set_control _mm_setcsr
#else
#define FLUSHING 0
#define control() 0
#define set_control(bits) ((void)(bits))
#endif

/* Adam (Kingma and Ba 2015, algorithm 1): new = 1 - beta, which float32 would not give exactly; its bias corrections
   are in rate and root = sqrt(1 - beta2^t). The moments of a parameter whose gradient stays 0, as that of a unit that
   no longer fires, decay to denormal numbers, with which processors are ten times as slow; they move no parameter. */
static void adam(long n, float *data, const float *grad, float *mean, float *square, float new1, float new2,
                        float beta2, float rate, float root, float eps)
{
    unsigned before = control();
    set_control(before | FLUSHING);
    for (long i = 0; i < n; i++) {
        mean[i] += (grad[i] - mean[i]) * new1;
        square[i] = square[i] * beta2 + grad[i] * grad[i] * new2;
        data[i] -= rate * mean[i] / (__builtin_sqrtf(square[i]) / root + eps);
    }
    set_control(before);
}

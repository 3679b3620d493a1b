#include "loops.h"
#include "vectors.h"

/* Elementwise operations of losses; a step is 0 for a scalar that is broadcast, or else 1. */
#define EACH(result)                                                                                                   \
    for (long i = 0; i < n; i++) {                                                                                     \
        float x = a[i * a_step], y = b[i * b_step];                                                                    \
        (void)x, (void)y;                                                                                              \
        to[i] = (result);                                                                                              \
    }                                                                                                                  \
    break
#define CLIP(x, low, high) ((x) < (low) ? (low) : (x) > (high) ? (high) : (x))

/* to [n] = the operation on a and b, or on a alone; CLAMP's bounds are b[0] and b[1] */
static void operate(int operation, long n, const float *a, long a_step, const float *b, long b_step, float *to)
{
    switch (operation) {
    case ADD: EACH(x + y);
    case SUBTRACT: EACH(x - y);
    case MULTIPLY: EACH(x * y);
    case DIVIDE: EACH(x / y);
    case MINIMUM: EACH(x != x || x < y ? x : y); /* NaN where either is NaN */
    case MAXIMUM: EACH(x != x || x > y ? x : y);
    case HUBER: EACH(CLIP(x - y, -1.0f, 1.0f) * ((x - y) - 0.5f * CLIP(x - y, -1.0f, 1.0f)));
    case SQUARED_ERROR: EACH((x - y) * (x - y));
    case NEGATE: for (long i = 0; i < n; i++) to[i] = -a[i]; break;
    case EXPONENTIAL: {
        long i = 0;
        for (; i + WIDTH <= n; i += WIDTH)
            AT(to + i) = exponential(AT(a + i));
        for (; i < n; i++)
            to[i] = expf(a[i]);
        break;
    }
    case SQUARE: for (long i = 0; i < n; i++) to[i] = a[i] * a[i]; break;
    case CLAMP: for (long i = 0; i < n; i++) to[i] = CLIP(a[i], b[0], b[1]); break;
    case MEAN: *to = total(n, a) / n; break;
    case SUM: *to = total(n, a); break;
    }
}

/* to [n] = the gradient of a (of = 0) or b (of = 1), from the gradient g of the result */
static void operate_backward(int operation, int of, long n, const float *g, const float *a, long a_step,
                                    const float *b, long b_step, const float *result, float *to)
{
    switch (operation) {
    case ADD: for (long i = 0; i < n; i++) to[i] = g[i]; break;
    case SUBTRACT: for (long i = 0; i < n; i++) to[i] = of ? -g[i] : g[i]; break;
    case MULTIPLY: EACH(g[i] * (of ? x : y));
    case DIVIDE: EACH(of ? -g[i] * result[i] / y : g[i] / y);
    case MINIMUM: EACH(x == y ? 0.5f * g[i] : (of ? x < y : y < x) ? 0.0f : g[i]); /* as torch shares it */
    case MAXIMUM: EACH(x == y ? 0.5f * g[i] : (of ? x > y : y > x) ? 0.0f : g[i]);
    case HUBER: EACH(CLIP(x - y, -1.0f, 1.0f) * (of ? -g[i] : g[i]));
    case SQUARED_ERROR: EACH(2.0f * (x - y) * (of ? -g[i] : g[i]));
    case NEGATE: for (long i = 0; i < n; i++) to[i] = -g[i]; break;
    case EXPONENTIAL: for (long i = 0; i < n; i++) to[i] = g[i] * result[i]; break;
    case SQUARE: for (long i = 0; i < n; i++) to[i] = g[i] * (a[i] + a[i]); break;
    case CLAMP: for (long i = 0; i < n; i++) to[i] = a[i] == result[i] ? g[i] : 0.0f; break;
    case MEAN: for (long i = 0; i < n; i++) to[i] = *g / n; break;
    case SUM: for (long i = 0; i < n; i++) to[i] = *g; break;
    }
}

/* Loops over float32 numbers for passes through small networks.

   Rows of matrices whose columns are computed together are padded to whole vectors of 16 numbers. The code is written
   for vectors of that size; the compiler makes of them what each kind of processor has, and the right one is chosen
   when the module is loaded. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
enum { WIDTH = 16, ROWS = 6 };

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define WIDEST (__builtin_cpu_supports("avx512f") ? 4 : 1) /* vectors of a row whose sums fit into the registers */
#else
#define CLONES
#define WIDEST 1
#endif
#define INLINE static inline __attribute__((always_inline))
#define AT(pointer) (*(vec *)(pointer))

/* rows x vecs sums: sums = c or start or 0, plus a [rows, depth] times b [depth, 16 vecs] */
INLINE void tile(const int rows, const int vecs, long depth, const float *a, long a_row, long a_depth, const float *b,
                 long ldb, float *c, long ldc, const float *start, int add)
{
    vec sum[ROWS][4], zero = {0};
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++)
            sum[r][v] = add ? AT(c + r * ldc + v * WIDTH) : start ? AT(start + v * WIDTH) : zero;
    for (long k = 0; k < depth; k++) {
        vec row[4];
        for (int v = 0; v < vecs; v++)
            row[v] = AT(b + k * ldb + v * WIDTH);
        for (int r = 0; r < rows; r++) {
            float x = a[r * a_row + k * a_depth];
            for (int v = 0; v < vecs; v++)
                sum[r][v] += x * row[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++)
            AT(c + r * ldc + v * WIDTH) = sum[r][v];
}

INLINE void tiles(const int vecs, long rows, long depth, const float *a, long a_row, long a_depth, const float *b,
                  long ldb, float *c, long ldc, const float *start, int add)
{
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * a_row, c += ROWS * ldc)
        tile(ROWS, vecs, depth, a, a_row, a_depth, b, ldb, c, ldc, start, add);
    for (; rows >= 2; rows -= 2, a += 2 * a_row, c += 2 * ldc)
        tile(2, vecs, depth, a, a_row, a_depth, b, ldb, c, ldc, start, add);
    if (rows)
        tile(1, vecs, depth, a, a_row, a_depth, b, ldb, c, ldc, start, add);
}

/* c [rows, columns] = a [rows, depth] b [depth, columns], plus c where add, or else plus start [columns] where given;
   element (i, k) of a is a[i * a_row + k * a_depth]; columns are a multiple of 16 */
CLONES static void product(long rows, long columns, long depth, const float *a, long a_row, long a_depth,
                           const float *b, long ldb, float *c, long ldc, const float *start, int add)
{
    long widest = WIDEST;
    for (long j = 0; j < columns;) {
        long vecs = (columns - j) / WIDTH < widest ? (columns - j) / WIDTH : widest;
        const float *from = start ? start + j : NULL;
        switch (vecs) {
        case 4: tiles(4, rows, depth, a, a_row, a_depth, b + j, ldb, c + j, ldc, from, add); break;
        case 3: tiles(3, rows, depth, a, a_row, a_depth, b + j, ldb, c + j, ldc, from, add); break;
        case 2: tiles(2, rows, depth, a, a_row, a_depth, b + j, ldb, c + j, ldc, from, add); break;
        default: tiles(1, rows, depth, a, a_row, a_depth, b + j, ldb, c + j, ldc, from, add);
        }
        j += vecs * WIDTH;
    }
}

INLINE vec where(ivec condition, vec x, vec y)
{
    return (vec)((condition & (ivec)x) | (~condition & (ivec)y));
}

/* e^x by Cody and Waite's reduction to |r| <= ln(2) / 2 and the series of e^r; 0 below -87.3 and infinite above 88.3 */
INLINE vec exponential(vec x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the lowest bits */
    vec zero = {0}, low = zero - 87.3f, high = zero + 88.3f;
    vec bounded = where(x < low, low, where(x > high, high, x));
    vec shifted = bounded * 1.44269504f + shift, n = shifted - shift;
    vec r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = r * (1.0f / 720.0f) + (1.0f / 120.0f);
    y = y * r + (1.0f / 24.0f);
    y = y * r + (1.0f / 6.0f);
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    y = (vec)((ivec)y + ((ivec)shifted << 23));
    return where(x != x, x, where(x < low, zero, where(x > high, zero + INFINITY, y)));
}

/* x P(x^2) / Q(x^2), fitted for the least relative error up to 8.3, where tanh is 1 to float32 rounding */
INLINE vec tangent(vec x)
{
    vec zero = {0}, low = zero - 8.3f, high = zero + 8.3f;
    vec v = where(x < low, low, where(x > high, high, x)), u = v * v;
    vec p = u * 1.4648450e-8f + 2.1508639e-5f, q = u * 8.2951882e-7f + 3.3739649e-4f;
    p = p * u + 3.5491780e-3f;
    q = q * u + 2.6079984e-2f;
    p = p * u + 0.13425878f;
    q = q * u + 0.46759203f;
    return v * (p * u + 1.0f) / (q * u + 1.0f);
}

enum { TANH, RELU, LEAKY_RELU, ELU, SWISH };

/* x becomes the activation of x, n numbers; kept gets what swish needs besides, its sigmoid */
CLONES static void activate(int kind, long n, float *x, float *kept)
{
    vec zero = {0};
    for (long i = 0; i < n; i += WIDTH) {
        vec v = AT(x + i);
        switch (kind) {
        case TANH: v = tangent(v); break;
        case RELU: v = where(v < zero, zero, v); break;
        case LEAKY_RELU: v = where(v < zero, v * 0.01f, v); break;
        case ELU: v = where(v < zero, exponential(v) - 1.0f, v); break;
        default: AT(kept + i) = 1.0f / (exponential(-v) + 1.0f); v *= AT(kept + i);
        }
        AT(x + i) = v;
    }
}

/* the gradient of the results y becomes that of what they were made from */
CLONES static void activate_backward(int kind, long n, float *gradient, const float *y, const float *kept)
{
    vec zero = {0};
    for (long i = 0; i < n; i += WIDTH) {
        vec v = AT(y + i), slope;
        switch (kind) {
        case TANH: slope = 1.0f - v * v; break;
        case RELU: slope = where(v > zero, zero + 1.0f, zero); break;
        case LEAKY_RELU: slope = where(v > zero, zero + 1.0f, zero + 0.01f); break;
        case ELU: slope = where(v < zero, v + 1.0f, zero + 1.0f); break;
        default: slope = AT(kept + i) * (1.0f - v) + v;
        }
        AT(gradient + i) *= slope;
    }
}

/* sums [columns] += the rows of a [rows, columns] */
CLONES static void add_rows(long rows, long columns, const float *a, float *sums)
{
    for (long j = 0; j < columns; j += WIDTH) {
        vec sum = AT(sums + j);
        for (long r = 0; r < rows; r++)
            sum += AT(a + r * columns + j);
        AT(sums + j) = sum;
    }
}

/* y [rows, outputs] = x [rows, inputs] weight [outputs, inputs]^T + bias, where either is so small that turning the
   weight around would take longer */
CLONES static void dots(long rows, long inputs, long outputs, const float *x, long ldx, const float *weight,
                        const float *bias, float *y, long ldy)
{
    for (long r = 0; r < rows; r++, x += ldx, y += ldy)
        for (long o = 0; o < outputs; o++) {
            const float *w = weight + o * inputs;
            float parts[WIDTH], rest = bias[o];
            vec sum = {0};
            long i = 0;
            for (; i + WIDTH <= inputs; i += WIDTH)
                sum += AT(x + i) * AT(w + i);
            for (; i < inputs; i++)
                rest += x[i] * w[i];
            AT(parts) = sum;
            for (int half = WIDTH / 2; half; half /= 2)
                for (int p = 0; p < half; p++)
                    parts[p] += parts[p + half];
            y[o] = rest + parts[0];
        }
}

/* to [columns, ldt] = from [rows, columns]^T, or that added to it */
static void turn(long rows, long columns, const float *from, long ldf, float *to, long ldt, int add)
{
    for (long c = 0; c < columns; c++)
        for (long r = 0; r < rows; r++)
            to[c * ldt + r] = from[r * ldf + c] + (add ? to[c * ldt + r] : 0.0f);
}

/* to [rows, columns] = from, of other strides, or that added to it */
static void copy(long rows, long columns, const float *from, long ldf, float *to, long ldt, int add)
{
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c++)
            to[r * ldt + c] = from[r * ldf + c] + (add ? to[r * ldt + c] : 0.0f);
}

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

INLINE float total(long n, const float *a)
{
    float parts[WIDTH] = {0}, rest = 0;
    long i = 0;
    for (vec sum = {0}; i + WIDTH <= n; i += WIDTH)
        AT(parts) = sum += AT(a + i);
    for (; i < n; i++)
        rest += a[i];
    for (int p = 0; p < WIDTH; p++)
        rest += parts[p];
    return rest;
}

/* Operations of losses, on numbers one by one; steps are 0 for a single number that meets all others, or else 1. */
enum { ADD, SUBTRACT, MULTIPLY, DIVIDE, MINIMUM, MAXIMUM, HUBER, SQUARED_ERROR, NEGATE, EXPONENTIAL, SQUARE, CLAMP, MEAN, SUM };
#define EACH(result) for (long i = 0; i < n; i++) { float x = a[i * a_step], y = b[i * b_step]; to[i] = (result); } break
#define CLIP(x, low, high) ((x) < (low) ? (low) : (x) > (high) ? (high) : (x))

/* to [n] = the operation on a and b, or on a alone; CLAMP's bounds are b[0] and b[1] */
CLONES static void operate(int operation, long n, const float *a, long a_step, const float *b, long b_step, float *to)
{
    switch (operation) {
    case ADD: EACH(x + y);
    case SUBTRACT: EACH(x - y);
    case MULTIPLY: EACH(x * y);
    case DIVIDE: EACH(x / y);
    case MINIMUM: EACH(x != x || x < y ? x : y); /* not a number where either is none */
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

/* to [n] = gradient of a (of = 0) or b (of = 1), from the gradient g of the result */
CLONES static void operate_backward(int operation, int of, long n, const float *g, const float *a, long a_step,
                                    const float *b, long b_step, const float *result, float *to)
{
    switch (operation) {
    case ADD: for (long i = 0; i < n; i++) to[i] = g[i]; break;
    case SUBTRACT: for (long i = 0; i < n; i++) to[i] = of ? -g[i] : g[i]; break;
    case MULTIPLY: EACH(g[i] * (of ? x : y));
    case DIVIDE: EACH(of ? -g[i] * result[i] / y : g[i] / y);
    case MINIMUM: EACH(x == y ? 0.5f * g[i] : (of ? y < x : x < y) ? g[i] : 0.0f); /* as torch shares it */
    case MAXIMUM: EACH(x == y ? 0.5f * g[i] : (of ? y > x : x > y) ? g[i] : 0.0f);
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

/* Loops of small multilayer perceptrons. Rows of matrices whose columns are computed together are padded to whole
   vectors. */

#include "loops.h"
#include "vectors.h"

/* The sums of so many rows and vectors fit into the registers. */
#define ROWS 6
#define WIDEST (BYTES == 64 ? 4 : 2)
enum { PANEL = WIDEST * WIDTH };

/* rows x vecs sums: sums = c or start or 0, plus a [rows, runs * depth] times b [runs * depth, WIDTH vecs] */
INLINE void tile(const int rows, const int vecs, long runs, long depth, const float *a, long a_row, long a_run,
                 long a_depth, const float *b, long ldb, float *c, long ldc, const float *start, int add)
{
    vec sum[ROWS][WIDEST], zero = {0};
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++)
            sum[r][v] = add ? AT(c + r * ldc + v * WIDTH) : start ? AT(start + v * WIDTH) : zero;
    for (; runs; runs--, a += a_run, b += depth * ldb)
        for (long k = 0; k < depth; k++) {
            vec row[WIDEST];
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

INLINE void tiles(const int vecs, long rows, long runs, long depth, const float *a, long a_row, long a_run,
                  long a_depth, const float *b, long ldb, float *c, long ldc, const float *start, int add)
{
#define TILE(some)                                                                                                     \
    case some: tile(some, vecs, runs, depth, a, a_row, a_run, a_depth, b, ldb, c, ldc, start, add); break
    for (long left = (rows + ROWS - 1) / ROWS; left; left--) {
        long some = (rows + left - 1) / left; /* as equal as possible, because a tile of few rows does not keep the processor busy */
        switch (some) {
            TILE(6);
            TILE(5);
            TILE(4);
            TILE(3);
            TILE(2);
            TILE(1);
        }
        rows -= some, a += some * a_row, c += some * ldc;
    }
}

/* c [rows, columns] = a [rows, runs * depth] b [runs * depth, columns], plus c where add, or else plus start [columns]
   where given; columns are a multiple of WIDTH, element (i, run * depth + k) of a is
   a[i * a_row + run * a_run + k * a_depth], and row k of a panel of b that begins with column j is at
   b[j * b_column + k * b_depth] */
static void product(long rows, long columns, long runs, long depth, const float *a, long a_row, long a_run,
                    long a_depth, const float *b, long b_column, long b_depth, float *c, long ldc, const float *start,
                    int add)
{
#define TILES(vecs) tiles(vecs, rows, runs, depth, a, a_row, a_run, a_depth, panel, b_depth, c + j, ldc, from, add)
    for (long j = 0; j < columns; j += PANEL) {
        const float *panel = b + j * b_column, *from = start ? start + j : NULL;
        switch ((columns - j) / WIDTH) {
        case 1: TILES(1); break;
#if BYTES == 64
        case 2: TILES(2); break;
        case 3: TILES(3); break;
#endif
        default: TILES(WIDEST);
        }
    }
}

/* to = from [rows, columns] in panels of PANEL columns, in which rows follow each other without a gap; the last vector of
   a row is filled up with zeros */
static void pack(long rows, long columns, const float *from, long ldf, float *to)
{
    long j = 0;
    for (; j + PANEL <= columns; j += PANEL, to += rows * PANEL)
        for (long r = 0; r < rows; r++)
            for (int v = 0; v < WIDEST; v++)
                AT(to + r * PANEL + v * WIDTH) = AT(from + r * ldf + j + v * WIDTH);
    for (long r = 0; j < columns && r < rows; r++)
        for (long c = 0; c < (columns - j + WIDTH - 1) / WIDTH * WIDTH; c++)
            to[r * PANEL + c] = j + c < columns ? from[r * ldf + j + c] : 0.0f;
}

/* WIDTH rows of `to`, each PANEL behind the last = from [WIDTH, WIDTH]^T */
INLINE void transposed_square(const float *from, long ldf, float *to)
{
#if defined(__GNUC__) && !defined(__clang__)
    /* Riffling vectors of the first half with those of the second moves each index by one bit, in a circle. */
    vec a[WIDTH], b[WIDTH];
    ivec low, high;
    for (int i = 0; i < WIDTH; i++) {
        low[i] = i / 2 + i % 2 * WIDTH, high[i] = low[i] + WIDTH / 2;
        a[i] = AT(from + i * ldf);
    }
    for (int bit = 1; bit < WIDTH; bit *= 2) {
        for (int i = 0; i < WIDTH / 2; i++) {
            b[2 * i] = __builtin_shuffle(a[i], a[i + WIDTH / 2], low);
            b[2 * i + 1] = __builtin_shuffle(a[i], a[i + WIDTH / 2], high);
        }
        memcpy(a, b, sizeof a);
    }
    for (int i = 0; i < WIDTH; i++)
        AT(to + i * PANEL) = a[i];
#else
    for (long i = 0; i < WIDTH; i++)
        for (long j = 0; j < WIDTH; j++)
            to[i * PANEL + j] = from[j * ldf + i];
#endif
}

/* to = from [rows, columns]^T in panels, as `pack` lays them out */
static void pack_transposed(long rows, long columns, const float *from, long ldf, float *to)
{
    for (long r = 0; r < rows; r += WIDTH) {
        float *panel = to + r / PANEL * PANEL * columns + r % PANEL;
        long c = 0;
        if (r + WIDTH <= rows)
            for (; c + WIDTH <= columns; c += WIDTH)
                transposed_square(from + r * ldf + c, ldf, panel + c * PANEL);
        for (; c < columns; c++)
            for (long i = 0; i < WIDTH; i++)
                panel[c * PANEL + i] = r + i < rows ? from[(r + i) * ldf + c] : 0.0f;
    }
}

/* x P(x^2) / Q(x^2), fitted for the least relative error up to 8.3, where tanh is 1 to float32 rounding */
INLINE vec approximate_tanh(vec x)
{
    vec zero = {0}, one = zero + 1.0f, u = x * x;
    vec p = u * 1.4648450e-8f + 2.1508639e-5f, q = u * 8.2951882e-7f + 3.3739649e-4f;
    p = p * u + 3.5491780e-3f;
    q = q * u + 2.6079984e-2f;
    p = p * u + 0.13425878f;
    q = q * u + 0.46759203f;
    return where(x < zero - 8.3f, -one, where(x > zero + 8.3f, one, x * (p * u + 1.0f) / (q * u + 1.0f)));
}

/* While a loop computes, the memory that is read or written next is prefetched, line by line. */
enum { LINE = 16 };
#define PREFETCH(place, i, write)                                                                                          \
    if ((i) % LINE == 0)                                                                                               \
    __builtin_prefetch((place) + (i), write, 2)

INLINE void activate_kind(const int kind, long n, float *x, float *kept, const float *prefetched)
{
    vec zero = {0};
    for (long i = 0; i < n; i += WIDTH) {
        vec v = AT(x + i);
        PREFETCH(prefetched, i, 1);
        switch (kind) {
        case TANH: v = approximate_tanh(v); break;
        case RELU: v = where(v < zero, zero, v); break;
        case LEAKY_RELU: v = where(v < zero, v * 0.01f, v); break;
        case ELU: v = where(v < zero, exponential(v) - 1.0f, v); break;
        default: AT(kept + i) = 1.0f / (exponential(-v) + 1.0f); v *= AT(kept + i);
        }
        AT(x + i) = v;
    }
}

INLINE void activate_kind_backward(const int kind, long rows, long columns, float *gradient, const float *y,
                                   const float *kept, float *sums, const float *prefetched)
{
    vec zero = {0};
    for (long i = 0; i < rows * columns; i += columns)
        for (long j = 0; j < columns; j += WIDTH) {
            vec v = AT(y + i + j), slope;
            PREFETCH(prefetched + i, j, 0);
            switch (kind) {
            case TANH: slope = 1.0f - v * v; break;
            case RELU: slope = where(v > zero, zero + 1.0f, zero); break;
            case LEAKY_RELU: slope = where(v > zero, zero + 1.0f, zero + 0.01f); break;
            case ELU: slope = where(v < zero, v + 1.0f, zero + 1.0f); break;
            default: slope = v * (1.0f - AT(kept + i + j)) + AT(kept + i + j);
            }
            AT(sums + j) += AT(gradient + i + j) *= slope;
        }
}

/* Make one loop for each kind of activation, so that none tests the kind for each number. */
#define WITH_KIND(function, ...)                                                                                       \
    switch (kind) {                                                                                                    \
    case TANH: function(TANH, __VA_ARGS__); break;                                                                     \
    case RELU: function(RELU, __VA_ARGS__); break;                                                                     \
    case LEAKY_RELU: function(LEAKY_RELU, __VA_ARGS__); break;                                                         \
    case ELU: function(ELU, __VA_ARGS__); break;                                                                       \
    default: function(SWISH, __VA_ARGS__);                                                                             \
    }

/* x [n] becomes its activation, and kept [n] the sigmoid that swish needs in the backward pass; prefetched is where
   numbers are written next, a hint that is never accessed */
static void activate(int kind, long n, float *x, float *kept, const float *prefetched)
{
    WITH_KIND(activate_kind, n, x, kept, prefetched)
}

/* The gradient [rows, columns] of the activations y becomes that of their inputs, and its rows are added to
   sums [columns]; prefetched is where numbers are read next, a hint that is never accessed. */
static void activate_backward(int kind, long rows, long columns, float *gradient, const float *y, const float *kept,
                              float *sums, const float *prefetched)
{
    WITH_KIND(activate_kind_backward, rows, columns, gradient, y, kept, sums, prefetched)
}

/* rows x outputs dot products of x and weight */
INLINE void some_dots(const int rows, const int outputs, long inputs, const float *x, long ldx, const float *weight,
                      const float *bias, float *y, long ldy)
{
    vec sum[4][4] = {{{0}}};
    long i = 0;
    for (; i + WIDTH <= inputs; i += WIDTH)
        for (int o = 0; o < outputs; o++) {
            vec w = AT(weight + o * inputs + i);
            for (int r = 0; r < rows; r++)
                sum[o][r] += AT(x + r * ldx + i) * w;
        }
    for (int o = 0; o < outputs; o++)
        for (int r = 0; r < rows; r++) {
            float rest = bias[o];
            for (long k = i; k < inputs; k++)
                rest += x[r * ldx + k] * weight[o * inputs + k];
            y[r * ldy + o] = rest + sum_of(sum[o][r]);
        }
}

/* y [rows, outputs] = x [rows, inputs] weight [outputs, inputs]^T + bias, for so few rows or outputs that transposing
   the weight would take longer */
static void dots(long rows, long inputs, long outputs, const float *x, long ldx, const float *weight,
                        const float *bias, float *y, long ldy)
{
    for (long o = 0; o < outputs; o += 4) /* weights of 4 outputs stay in the cache */
        for (long r = 0; r < rows; r += 4) {
            const float *some = x + r * ldx, *w = weight + o * inputs;
            float *to = y + r * ldy + o;
            if (r + 4 <= rows && o + 4 <= outputs)
                some_dots(4, 4, inputs, some, ldx, w, bias + o, to, ldy);
            else
                for (long i = 0; i < 4 && r + i < rows; i++)
                    for (long j = 0; j < 4 && o + j < outputs; j++)
                        some_dots(1, 1, inputs, some + i * ldx, ldx, w + j * inputs, bias + o + j, to + i * ldy + j,
                                  ldy);
        }
}

/* to [columns, ldt] = from [rows, columns]^T, or += with add */
static void transpose(long rows, long columns, const float *from, long ldf, float *to, long ldt, int add)
{
    enum { SOME = 16 }; /* rows whose lines stay in the cache */
    for (long some = 0; some < rows; some += SOME)
        for (long c = 0; c < columns; c++)
            for (long r = some; r < rows && r < some + SOME; r++)
                to[c * ldt + r] = from[r * ldf + c] + (add ? to[c * ldt + r] : 0.0f);
}

/* to [rows, columns] = from, with other strides, or += with add */
static void copy(long rows, long columns, const float *from, long ldf, float *to, long ldt, int add)
{
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c++)
            to[r * ldt + c] = from[r * ldf + c] + (add ? to[r * ldt + c] : 0.0f);
}

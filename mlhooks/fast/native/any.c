/* The loops for every processor, and the choice among all. */

#define BYTES 16
#define KIND "any processor"
#define LOOPS any_loops
#include "all_loops.h"

long usable_loops(const struct Loops **found)
{
    long count = 0;
#if FOR_X86
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        found[count++] = &avx512_loops;
    if (avx2)
        found[count++] = &avx2_loops;
#endif
    found[count++] = &any_loops;
    return count;
}

/* The loops for processors with AVX2. */

#include "loops.h"

#if FOR_X86
#pragma GCC target("avx2,fma,bmi,bmi2")
#define BYTES 32
#define KIND "AVX2"
#define LOOPS avx2_loops
#include "all_loops.h"
#endif

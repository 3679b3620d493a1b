/* The loops for processors with AVX-512. */

#include "loops.h"

#if FOR_X86
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi,bmi2")
#define BYTES 64
#define KIND "AVX-512"
#define LOOPS avx512_loops
#include "all_loops.h"
#endif

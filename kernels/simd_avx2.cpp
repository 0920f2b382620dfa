// AVX2 and FMA: eight lanes, sixteen registers.
#ifdef __x86_64__
#define SIMD_TABLE SIMD_AVX2
#define SIMD_NAME "AVX2"
#define SIMD_LANES 8
#define SIMD_COLUMNS 2
#include "kernels/simd_kernels.h"
#endif

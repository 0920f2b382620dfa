// AVX-512: sixteen lanes, thirty-two registers, masked loads and stores.
#ifdef __x86_64__
#define SIMD_TABLE SIMD_AVX512
#define SIMD_NAME "AVX-512"
#define SIMD_LANES 16
#define SIMD_COLUMNS 4
#include "kernels/simd_kernels.h"
#endif

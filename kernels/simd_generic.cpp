// Any machine: four lanes of GCC's vector extension (SSE2 on x86-64, NEON on arm64).
#define SIMD_TABLE SIMD_GENERIC
#define SIMD_NAME "plain"
#define SIMD_LANES 4
#define SIMD_COLUMNS 2
#include "kernels/simd_kernels.h"

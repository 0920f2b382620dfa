// part_sums.cuh -- the second step of sums over rows: partial sums that a first kernel has left in global memory are added up.
#pragma once
#include "kernels/device/device.h"

namespace cuda {

constexpr int PART_LANES = 16;

// The sum of column c of `count` rows of n numbers, in the threads with threadIdx.y = 0: each of PART_LANES threads adds up every
// PART_LANES-th row, then their sums are added in order. For blocks of (WARP, PART_LANES) threads, once in a kernel.
__device__ inline float sum_of_parts(const float* part, int count, int n, int c) {
    STATIC_SHARED(float, partial, [PART_LANES][WARP]);
    float sum = 0;
    if (c < n) {
#pragma unroll 8
        for (int p = int(threadIdx.y); p < count; p += PART_LANES) sum += part[int64_t(p) * n + c];
    }
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();  // every thread's sum is written before they are added up
    sum = 0;
    for (int lane = 0; lane < PART_LANES; lane++) sum += partial[lane][threadIdx.x];
    return sum;
}

}  // namespace cuda

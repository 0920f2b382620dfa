// column_sums.cu -- sums over rows for the gradients of biases, norms and the value head, in two fixed steps.
//
// Rows are cut into at most PARTS runs. A block adds up a warp's packs of columns over one run, each thread every LANES-th
// row of it; then a second kernel adds the runs (part_sums.cuh). The bits depend on shape and alignment alone.
#include <algorithm>

#include "kernels/cuda_kernels.h"
#include "kernels/part_sums.cuh"

namespace cuda {

constexpr int PARTS = 128, RUN_ROWS = 16;  // at least RUN_ROWS rows in a run
constexpr int LANES = 8;

// ---- kernels ----

template <class S, int PACK>
__global__ void column_sums_kernel(float* part, DeviceRows<const S> src, const float* row_weight, int rows,
                                   int run, int n) {
    static_assert(PACK <= LANES, "a thread for every column");
    STATIC_SHARED(float, partial, [LANES][WARP * PACK]);
    const int x = int(threadIdx.x), y = int(threadIdx.y), first = int(blockIdx.x) * WARP * PACK;
    const int begin = int(blockIdx.y) * run, end = first + x * PACK < n ? min(begin + run, rows) : 0;
    float sum[PACK] = {};
#pragma unroll 4
    for (int t = begin + y; t < end; t += LANES) {
        const auto pack = load_pack<PACK>(src[t] + first + x * PACK);
        const float weight = row_weight ? row_weight[t] : 1.0f;
        for (int k = 0; k < PACK; k++) sum[k] += to_float(pack.v[k]) * weight;
    }
    for (int k = 0; k < PACK; k++) partial[y][x * PACK + k] = sum[k];
    __syncthreads();  // every thread's sums are written before they are added up
    if (const int i = y * WARP + x; i < WARP * PACK && first + i < n) {
        float total = 0;
        for (int lane = 0; lane < LANES; lane++) total += partial[lane][i];
        part[int64_t(blockIdx.y) * n + first + i] = total;
    }
}

template <class D>
__global__ void add_parts_kernel(D* dst, const float* part, int parts, int n) {
    const int c = int(blockIdx.x * blockDim.x + threadIdx.x);
    const float sum = sum_of_parts(part, parts, n, c);
    if (threadIdx.y == 0 && c < n) dst[c] = from_float<D>(to_float(dst[c]) + sum);
}

// ---- launchers ----

void add_parts(const Context& ctx, Tensor dst, const float* part, int parts, int n) {
    CHECK(dst.size() == n && dst.contiguous(), "column sums of %d columns into %lld", n,
          (long long)dst.size());
    with_type(dst.dtype, "a parameter gradient", [&](auto d) {
        using D = decltype(d);
        launch(add_parts_kernel<D>, ceil_div(n, WARP), dim3(WARP, PART_LANES), 0, ctx.stream, dst.as<D>(),
               part, parts, n);
    });
}

void add_column_sums(const Context& ctx, Tensor dst, Tensor src, const float* row_weight) {
    const int rows = int(src.rows), n = int(src.cols);
    if (rows == 0) return;
    const int run = std::max(RUN_ROWS, ceil_div(rows, PARTS)), parts = ceil_div(rows, run);
    float* part = ctx.workspace.take<float>(size_t(parts) * size_t(n));
    with_type(src.dtype, "src", [&](auto s) {
        using S = decltype(s);
        constexpr int PACK = FULL_PACK<S>;
        const bool packed = packs(src);
        launch(packed ? column_sums_kernel<S, PACK> : column_sums_kernel<S, 1>,
               dim3(unsigned(ceil_div(n, WARP * (packed ? PACK : 1))), unsigned(parts)), dim3(WARP, LANES), 0,
               ctx.stream, part, device_rows<const S>(src), row_weight, rows, run, n);
    });
    add_parts(ctx, dst, part, parts, n);
}

}  // namespace cuda

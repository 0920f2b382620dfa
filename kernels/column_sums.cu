// column_sums.cu -- sums over rows for the gradients of biases, norms and the value head, in two fixed steps.
//
// Rows are cut into at most PARTS runs; a thread adds up one column of one run, then a second kernel adds the
// runs in order. The result depends on the shape alone.
#include <algorithm>

#include "kernels/cuda_kernels.h"

namespace cuda {

constexpr int PARTS = 128, RUN_ROWS = 16;  // at least RUN_ROWS rows in a run

// ---- kernels ----

template <class S>
__global__ void column_sums_kernel(float* part, DeviceRows<const S> src, const float* row_weight, int rows,
                                   int run, int n) {
    const int c = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (c >= n) return;
    const int begin = int(blockIdx.y) * run, end = min(begin + run, rows);
    float sum = 0;
    for (int t = begin; t < end; t++) sum += to_float(src[t][c]) * (row_weight ? row_weight[t] : 1.0f);
    part[int64_t(blockIdx.y) * n + c] = sum;
}

template <class D>
__global__ void add_parts_kernel(D* dst, const float* part, int parts, int n) {
    const int c = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (c >= n) return;
    float sum = 0;
    for (int p = 0; p < parts; p++) sum += part[int64_t(p) * n + c];
    dst[c] = from_float<D>(to_float(dst[c]) + sum);
}

// ---- launchers ----

void add_parts(const Context& ctx, Tensor dst, const float* part, int parts, int n) {
    CHECK(dst.size() == n && dst.contiguous(), "column sums of %d columns into %lld", n,
          (long long)dst.size());
    with_type(dst.dtype, "a parameter gradient", [&](auto d) {
        using D = decltype(d);
        launch(add_parts_kernel<D>, ceil_div(n, 64), 64, 0, ctx.stream, dst.as<D>(), part, parts, n);
    });
}

void add_column_sums(const Context& ctx, Tensor dst, Tensor src, const float* row_weight) {
    const int rows = int(src.rows), n = int(src.cols);
    if (rows == 0) return;
    const int run = std::max(RUN_ROWS, ceil_div(rows, PARTS)), parts = ceil_div(rows, run);
    float* part = ctx.workspace.take<float>(size_t(parts) * size_t(n));
    with_type(src.dtype, "src", [&](auto s) {
        using S = decltype(s);
        launch(column_sums_kernel<S>, dim3(unsigned(ceil_div(n, 64)), unsigned(parts)), 64, 0, ctx.stream,
               part, device_rows<const S>(src), row_weight, rows, run, n);
    });
    add_parts(ctx, dst, part, parts, n);
}

}  // namespace cuda

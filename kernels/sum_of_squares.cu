// sum_of_squares.cu -- see sum_of_squares.h. A block sums RANGE elements, one block sums the ranges' sums:
// two fixed orders.
#include "kernels/cuda_kernels.h"

namespace cuda {

constexpr int RANGE = 8192, THREADS = 256;

// ---- kernels ----

template <class T>
__global__ void range_squares_kernel(double* part, DeviceRows<const T> x, int64_t n, int64_t cols) {
    const int64_t begin = int64_t(blockIdx.x) * RANGE, end = begin + RANGE < n ? begin + RANGE : n;
    double sum = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const double e = double(to_float(x[i / cols][i % cols]));
        sum += e * e;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

__global__ void sum_parts_kernel(double* result, const double* part, int parts) {
    double sum = 0;
    for (int i = int(threadIdx.x); i < parts; i += int(blockDim.x)) sum += part[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *result = sum;
}

// ---- launchers ----

void sum_of_squares(const Context& ctx, double* result, Tensor t) {
    const int parts = ceil_div(t.size(), RANGE);
    double* part = ctx.workspace.take<double>(size_t(parts));
    if (parts)
        with_type(t.dtype, "t", [&](auto x) {
            using T = decltype(x);
            launch(range_squares_kernel<T>, unsigned(parts), THREADS, 0, ctx.stream, part,
                   device_rows<const T>(t), t.size(), t.cols);
        });
    launch(sum_parts_kernel, 1, THREADS, 0, ctx.stream, result, static_cast<const double*>(part), parts);
}

}  // namespace cuda

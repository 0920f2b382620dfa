// sum_of_squares.cu -- see sum_of_squares.h. A block sums RANGE elements, then one block the ranges' sums: two fixed orders.
#include "kernels/cuda_kernels.h"

namespace cuda {

constexpr int RANGE = 8192, THREADS = 256;

// ---- kernels ----

template <class T, int PACK>
__global__ void range_squares_kernel(double* part, const T* x, int64_t n) {
    const int64_t begin = int64_t(blockIdx.x) * RANGE, end = begin + RANGE < n ? begin + RANGE : n;
    double sum = 0;
    const auto add = [&](T element) {
        const double e = double(to_float(element));
        sum += e * e;
    };
    for (int64_t i = begin + threadIdx.x * PACK; i < end; i += blockDim.x * PACK) {
        if (i + PACK <= end) {
            const auto pack = load_pack<PACK>(x + i);
            for (int k = 0; k < PACK; k++) add(pack.v[k]);
        } else {
            for (int64_t k = i; k < end; k++) add(x[k]);
        }
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
    CHECK(t.contiguous(), "the squares of a strided tensor");
    const int parts = ceil_div(t.size(), RANGE);
    const Workspace::Mark scratch(ctx.workspace);
    double* part = ctx.workspace.take<double>(size_t(parts));
    if (parts)
        with_type(t.dtype, "t", [&](auto x) {
            using T = decltype(x);
            constexpr int PACK = FULL_PACK<T>;
            launch(aligned_for(t, PACK) ? range_squares_kernel<T, PACK> : range_squares_kernel<T, 1>,
                   unsigned(parts), THREADS, 0, ctx.stream, part, static_cast<const T*>(t.as<T>()), t.size());
        });
    launch(sum_parts_kernel, 1, THREADS, 0, ctx.stream, result, static_cast<const double*>(part), parts);
}

}  // namespace cuda

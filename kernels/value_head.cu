// value_head.cu -- see value_head.h. Forward: a warp per row. Backward: a thread per element; dweight as column sums.
#include "kernels/cuda_kernels.h"

namespace cuda {

constexpr int WARPS = 8;

// ---- kernels ----

template <class T>
__global__ void value_head_forward_kernel(float* value, DeviceRows<const T> hidden, const float* weight,
                                          int N, int C) {
    const int n = int(blockIdx.x) * WARPS + int(threadIdx.x) / WARP;
    if (n >= N) return;  // whole warps leave
    float sum = 0;
    for (int c = int(threadIdx.x) % WARP; c < C; c += WARP) sum += to_float(hidden[n][c]) * weight[c];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) value[n] = sum;
}

template <class T>
__global__ void value_head_backward_kernel(DeviceRows<T> dhidden, const float* dvalue, const float* weight,
                                           int N, int C) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= int64_t(N) * C) return;
    dhidden[i / C][i % C] = from_float<T>(dvalue[i / C] * weight[i % C]);
}

// ---- launchers ----

void value_head_forward(const Context& ctx, Tensor value, Tensor hidden, Tensor weight) {
    if (hidden.rows == 0) return;
    with_type(hidden.dtype, "hidden", [&](auto x) {
        using T = decltype(x);
        launch(value_head_forward_kernel<T>, ceil_div(hidden.rows, WARPS), WARPS * WARP, 0, ctx.stream,
               value.as<float>(), device_rows<const T>(hidden), static_cast<const float*>(weight.as<float>()),
               int(hidden.rows), int(hidden.cols));
    });
}

void value_head_backward(const Context& ctx, Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden,
                         Tensor weight) {
    if (hidden.rows == 0) return;
    with_type(hidden.dtype, "hidden", [&](auto x) {
        using T = decltype(x);
        launch(value_head_backward_kernel<T>, ceil_div(hidden.size(), 256), 256, 0, ctx.stream,
               device_rows<T>(dhidden), static_cast<const float*>(dvalue.as<float>()),
               static_cast<const float*>(weight.as<float>()), int(hidden.rows), int(hidden.cols));
    });
    add_column_sums(ctx, dweight, hidden, dvalue.as<float>());
}

}  // namespace cuda

// rmsnorm.cu -- see rmsnorm.h. A block per row; the row is read twice, the second time from the cache.
//
// Backward: a block takes every gridDim-th row; thread i owns the same columns in all of them and keeps their
// weight gradients in shared memory, so that no two threads ever add to one number. The blocks' sums are
// added in order afterwards.
#include <algorithm>

#include "kernels/cuda_kernels.h"

namespace cuda {

constexpr int MOST_THREADS = 256, BACKWARD_BLOCKS = 256;

// ---- kernels ----

template <class T, int PACK>
__global__ void rmsnorm_forward_kernel(DeviceRows<T> out, float* rstd, DeviceRows<const T> inp,
                                       const float* weight, int C, float eps) {
    const T* x = inp[blockIdx.x];
    const int first = int(threadIdx.x) * PACK, step = int(blockDim.x) * PACK;
    float sum = 0;
    for (int c = first; c < C; c += step) {
        const auto p = load_pack<PACK>(x + c);
        for (int k = 0; k < PACK; k++) sum += to_float(p.v[k]) * to_float(p.v[k]);
    }
    const float r = 1.0f / sqrtf(block_sum(sum) / float(C) + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
    for (int c = first; c < C; c += step) {
        const auto p = load_pack<PACK>(x + c);
        const auto w = load_pack<PACK>(weight + c);
        Pack<T, PACK> y;
        for (int k = 0; k < PACK; k++) y.v[k] = from_float<T>(to_float(p.v[k]) * r * w.v[k]);
        store_pack(out[blockIdx.x] + c, y);
    }
}

template <class T, int PACK>
__global__ void rmsnorm_backward_kernel(DeviceRows<T> dinp, float* dweight_part, DeviceRows<const T> dout,
                                        const float* rstd, DeviceRows<const T> inp, const float* weight,
                                        int rows, int C) {
    DYNAMIC_SHARED(float, dweight);  // (C)
    const int first = int(threadIdx.x) * PACK, step = int(blockDim.x) * PACK;
    for (int c = first; c < C; c += step)
        for (int k = 0; k < PACK; k++) dweight[c + k] = 0;
    for (int t = int(blockIdx.x); t < rows; t += int(gridDim.x)) {
        const float r = rstd[t];
        float dot = 0;
        for (int c = first; c < C; c += step) {
            const auto x = load_pack<PACK>(inp[t] + c), d = load_pack<PACK>(dout[t] + c);
            const auto w = load_pack<PACK>(weight + c);
            for (int k = 0; k < PACK; k++) dot += to_float(d.v[k]) * w.v[k] * to_float(x.v[k]);
        }
        const float scale = r * r * block_sum(dot) / float(C);
        for (int c = first; c < C; c += step) {
            const auto x = load_pack<PACK>(inp[t] + c), d = load_pack<PACK>(dout[t] + c);
            const auto w = load_pack<PACK>(weight + c);
            auto dx = load_pack<PACK>(dinp[t] + c);
            for (int k = 0; k < PACK; k++) {
                const float xf = to_float(x.v[k]), df = to_float(d.v[k]);
                dx.v[k] = from_float<T>(to_float(dx.v[k]) + r * (df * w.v[k] - xf * scale));
                dweight[c + k] += df * xf * r;
            }
            store_pack(dinp[t] + c, dx);
        }
    }
    for (int c = first; c < C; c += step)
        for (int k = 0; k < PACK; k++) dweight_part[int64_t(blockIdx.x) * C + c + k] = dweight[c + k];
}

// ---- launchers ----

template <class T>
static void launch_forward(const Context& ctx, Tensor out, Tensor rstd, Tensor inp, Tensor weight,
                           float eps) {
    const int C = int(inp.cols);
    const bool packed = packs(out) && packs(inp) && aligned_for(weight, FULL_PACK<T>);
    constexpr int PACK = FULL_PACK<T>;
    launch(packed ? rmsnorm_forward_kernel<T, PACK> : rmsnorm_forward_kernel<T, 1>, unsigned(inp.rows),
           threads_for(C / (packed ? PACK : 1), MOST_THREADS), 0, ctx.stream, device_rows<T>(out),
           rstd.as<float>(), device_rows<const T>(inp), static_cast<const float*>(weight.as<float>()), C,
           eps);
}

void rmsnorm_forward(const Context& ctx, Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps) {
    if (inp.rows == 0) return;
    with_type(inp.dtype, "inp",
              [&](auto x) { launch_forward<decltype(x)>(ctx, out, rstd, inp, weight, eps); });
}

template <class T>
static void launch_backward(const Context& ctx, Tensor dinp, float* part, int blocks, Tensor dout,
                            Tensor rstd, Tensor inp, Tensor weight) {
    const int C = int(inp.cols);
    const bool packed = packs(dinp) && packs(dout) && packs(inp) && aligned_for(weight, FULL_PACK<T>);
    constexpr int PACK = FULL_PACK<T>;
    launch(packed ? rmsnorm_backward_kernel<T, PACK> : rmsnorm_backward_kernel<T, 1>, unsigned(blocks),
           threads_for(C / (packed ? PACK : 1), MOST_THREADS), size_t(C) * sizeof(float), ctx.stream,
           device_rows<T>(dinp), part, device_rows<const T>(dout),
           static_cast<const float*>(rstd.as<float>()), device_rows<const T>(inp),
           static_cast<const float*>(weight.as<float>()), int(inp.rows), C);
}

void rmsnorm_backward(const Context& ctx, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                      Tensor weight) {
    if (inp.rows == 0) return;
    const int C = int(inp.cols), blocks = int(std::min<int64_t>(inp.rows, BACKWARD_BLOCKS));
    float* part = ctx.workspace.take<float>(size_t(blocks) * size_t(C));
    with_type(inp.dtype, "inp", [&](auto x) {
        launch_backward<decltype(x)>(ctx, dinp, part, blocks, dout, rstd, inp, weight);
    });
    add_parts(ctx, dweight, part, blocks, C);
}

}  // namespace cuda

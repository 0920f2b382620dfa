// rope.cu -- see rope.h. A warp per head of a row: lane l holds the pairs (i, i + HD/2) for i = l, l + 32,
// ...
//
// Backward: a block's warps walk over heads with a fixed stride and keep the weight gradient of their pairs
// in registers; it is added over the warps of a block in shared memory, then over the blocks, in order.
#include <algorithm>

#include "kernels/cuda_kernels.h"

namespace cuda {

constexpr int WARPS = 8, PAIRS = 4;  // PAIRS * 32 pairs per head: HD up to 256
constexpr int BACKWARD_BLOCKS = 256;

// ---- kernels ----

template <class T>
__global__ void head_norm_rope_forward_kernel(DeviceRows<T> out, float* rstd, DeviceRows<const T> inp,
                                              const float* weight, const int* position, const float* rope,
                                              int T_rows, int heads, int HD, float eps) {
    const int lane = int(threadIdx.x) % WARP, half = HD / 2;
    const int64_t head = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
    if (head >= int64_t(T_rows) * heads) return;  // whole warps leave
    const int64_t t = head / heads, h = head % heads;
    const T* x = inp[t] + h * HD;
    float a[PAIRS] = {}, b[PAIRS] = {}, sum = 0;
    for (int j = 0, i = lane; j < PAIRS; j++, i += WARP)
        if (i < half) {
            a[j] = to_float(x[i]), b[j] = to_float(x[i + half]);
            sum += a[j] * a[j] + b[j] * b[j];
        }
    if (weight) {
        const float r = 1.0f / sqrtf(warp_sum(sum) / float(HD) + eps);
        if (lane == 0) rstd[t * heads + h] = r;
        for (int j = 0, i = lane; j < PAIRS; j++, i += WARP)
            if (i < half) a[j] *= r * weight[i], b[j] *= r * weight[i + half];
    }
    const float *cosine = rope + int64_t(position[t]) * HD, *sine = cosine + half;
    T* o = out[t] + h * HD;
    for (int j = 0, i = lane; j < PAIRS; j++, i += WARP)
        if (i < half) {
            o[i] = from_float<T>(a[j] * cosine[i] - b[j] * sine[i]);
            o[i + half] = from_float<T>(b[j] * cosine[i] + a[j] * sine[i]);
        }
}

template <class T>
__global__ void head_norm_rope_backward_kernel(DeviceRows<T> dinp, float* dweight_part,
                                               DeviceRows<const T> dout, const float* rstd,
                                               DeviceRows<const T> inp, const float* weight,
                                               const int* position, const float* rope, int T_rows, int heads,
                                               int HD) {
    DYNAMIC_SHARED(float, dweight_smem);  // (WARPS, HD)
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP, half = HD / 2;
    float dwa[PAIRS] = {}, dwb[PAIRS] = {};
    for (int64_t head = int64_t(blockIdx.x) * WARPS + warp; head < int64_t(T_rows) * heads;
         head += int64_t(gridDim.x) * WARPS) {
        const int64_t t = head / heads, h = head % heads;
        const T *d = dout[t] + h * HD, *x = inp[t] + h * HD;
        const float *cosine = rope + int64_t(position[t]) * HD, *sine = cosine + half;
        float a[PAIRS] = {}, b[PAIRS] = {}, dot = 0;  // the gradient before the rotation
        for (int j = 0, i = lane; j < PAIRS; j++, i += WARP)
            if (i < half) {
                const float da = to_float(d[i]), db = to_float(d[i + half]);
                a[j] = da * cosine[i] + db * sine[i];
                b[j] = db * cosine[i] - da * sine[i];
                if (weight)
                    dot +=
                        a[j] * weight[i] * to_float(x[i]) + b[j] * weight[i + half] * to_float(x[i + half]);
            }
        if (weight) {
            const float r = rstd[t * heads + h], scale = r * r * warp_sum(dot) / float(HD);
            for (int j = 0, i = lane; j < PAIRS; j++, i += WARP)
                if (i < half) {
                    const float xa = to_float(x[i]), xb = to_float(x[i + half]);
                    dwa[j] += a[j] * xa * r, dwb[j] += b[j] * xb * r;
                    a[j] = r * (a[j] * weight[i] - xa * scale);
                    b[j] = r * (b[j] * weight[i + half] - xb * scale);
                }
        }
        T* dx = dinp[t] + h * HD;
        for (int j = 0, i = lane; j < PAIRS; j++, i += WARP)
            if (i < half) dx[i] = from_float<T>(a[j]), dx[i + half] = from_float<T>(b[j]);
    }
    if (!weight) return;
    for (int j = 0, i = lane; j < PAIRS; j++, i += WARP)
        if (i < half) dweight_smem[warp * HD + i] = dwa[j], dweight_smem[warp * HD + i + half] = dwb[j];
    __syncthreads();  // every warp's sums are written before they are added up
    for (int i = int(threadIdx.x); i < HD; i += int(blockDim.x)) {
        float sum = 0;
        for (int w = 0; w < WARPS; w++) sum += dweight_smem[w * HD + i];
        dweight_part[int64_t(blockIdx.x) * HD + i] = sum;
    }
}

// ---- launchers ----

static int checked_head_size(Tensor inp, int heads, Tensor weight, Tensor rstd) {
    const int HD = int(inp.cols) / heads;
    CHECK(HD * heads == inp.cols && HD % 2 == 0 && HD <= 2 * WARP * PAIRS, "%d heads in %lld columns", heads,
          (long long)inp.cols);
    CHECK(!weight || (weight.size() == HD && rstd.contiguous() && rstd.size() == inp.rows * heads),
          "q/k norm of %d heads of %d", heads, HD);
    return HD;
}

void head_norm_rope_forward(const Context& ctx, Tensor out, Tensor rstd, Tensor inp, Tensor weight,
                            Tensor position, Tensor rope, int heads, float eps) {
    const int HD = checked_head_size(inp, heads, weight, rstd);
    if (inp.rows == 0) return;
    with_type(inp.dtype, "inp", [&](auto x) {
        using T = decltype(x);
        launch(head_norm_rope_forward_kernel<T>, ceil_div(inp.rows * heads, WARPS), WARPS * WARP, 0,
               ctx.stream, device_rows<T>(out), weight ? rstd.as<float>() : nullptr,
               device_rows<const T>(inp), optional<const float>(weight),
               static_cast<const int*>(position.as<int>()), static_cast<const float*>(rope.as<float>()),
               int(inp.rows), heads, HD, eps);
    });
}

void head_norm_rope_backward(const Context& ctx, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd,
                             Tensor inp, Tensor weight, Tensor position, Tensor rope, int heads) {
    const int HD = checked_head_size(inp, heads, weight, rstd);
    if (inp.rows == 0) return;
    const int blocks = std::min(ceil_div(inp.rows * heads, WARPS), BACKWARD_BLOCKS);
    float* part = weight ? ctx.workspace.take<float>(size_t(blocks) * size_t(HD)) : nullptr;
    with_type(inp.dtype, "inp", [&](auto x) {
        using T = decltype(x);
        launch(head_norm_rope_backward_kernel<T>, unsigned(blocks), WARPS * WARP,
               size_t(WARPS * HD) * sizeof(float), ctx.stream, device_rows<T>(dinp), part,
               device_rows<const T>(dout), static_cast<const float*>(weight ? rstd.as<float>() : nullptr),
               device_rows<const T>(inp), optional<const float>(weight),
               static_cast<const int*>(position.as<int>()), static_cast<const float*>(rope.as<float>()),
               int(inp.rows), heads, HD);
    });
    if (weight) add_parts(ctx, dweight, part, blocks, HD);
}

}  // namespace cuda

// rmsnorm.cu -- see rmsnorm.h.
//
// Forward: a row is read once and stays in its threads' registers, 4 packs in each, all of them (and the weights) under way
// at once; only what is wider than 1024 packs is read twice. How many threads share a row follows from C alone, and with
// it the order of a row's sum.
//
// Backward: a block takes every gridDim-th row. Thread i owns the same columns in all of them and keeps their weight
// gradients in registers, so that no two threads ever add to one number; the blocks' sums are added in order afterwards.
// Meanwhile a thread's packs of the next rows are copied to shared memory, where only that thread reads them, so that a
// row costs one barrier: that of its sum.
#include <algorithm>

#include "kernels/cuda_kernels.h"
#include "kernels/device/ptx.h"

namespace cuda {

constexpr int MOST_THREADS = 256, HELD = 4;  // of a row, forward; packs of it that a thread keeps
constexpr int MOST_BACKWARD_THREADS = 512;

// ---- kernels ----

// blockDim.x threads to a row, whole warps, blockDim.y rows to a block.
template <class T, int PACK>
__global__ void __launch_bounds__(MOST_THREADS, 3)
    rmsnorm_forward_kernel(DeviceRows<T> out, float* rstd, DeviceRows<const T> inp, const float* weight,
                           int64_t rows, int C, float eps) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    STATIC_SHARED(float, partial, [MOST_THREADS / WARP]);
    const int64_t t = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
    const int first = int(threadIdx.x) * PACK, step = int(blockDim.x) * PACK;
    const int end = t < rows ? C : 0;  // rows that are not there take part in the barrier
    const T* x = inp[t];
    Pack<T, PACK> p[HELD] = {};
    Pack<float, PACK> w[HELD] = {};
#pragma unroll
    for (int k = 0; k < HELD; k++)
        if (first + k * step < end) p[k] = load_pack<PACK>(x + first + k * step);
#pragma unroll
    for (int k = 0; k < HELD; k++)
        if (first + k * step < end) w[k] = load_pack<PACK>(weight + first + k * step);
    float sum = 0;
    const auto add = [&](const Pack<T, PACK>& pack) {
        for (int k = 0; k < PACK; k++) sum += to_float(pack.v[k]) * to_float(pack.v[k]);
    };
#pragma unroll
    for (int k = 0; k < HELD; k++) add(p[k]);
    for (int c = first + HELD * step; c < end; c += step) add(load_pack<PACK>(x + c));
    sum = warp_sum(sum);
    if (const int warps = int(blockDim.x) / WARP; warps > 1) {
        float* mine = partial + int(threadIdx.y) * warps;
        if (threadIdx.x % WARP == 0) mine[threadIdx.x / WARP] = sum;
        __syncthreads();  // every warp's part is written before anybody reads it
        sum = 0;
        for (int i = 0; i < warps; i++) sum += mine[i];
    }
    const float r = rsqrtf(sum / float(C) + eps);
    if (threadIdx.x == 0 && t < rows) rstd[t] = r;
    const auto write = [&](int c, const Pack<T, PACK>& from, const Pack<float, PACK>& scale) {
        Pack<T, PACK> y;
        for (int k = 0; k < PACK; k++) y.v[k] = from_float<T>(to_float(from.v[k]) * r * scale.v[k]);
        store_pack(out[t] + c, y);
    };
#pragma unroll
    for (int k = 0; k < HELD; k++)
        if (first + k * step < end) write(first + k * step, p[k], w[k]);
    for (int c = first + HELD * step; c < end; c += step)
        write(c, load_pack<PACK>(x + c), load_pack<PACK>(weight + c));
}

// A thread owns PACKS packs of every row. STAGES rows are in shared memory or on their way.
template <class T, int PACKS>
struct BackwardRing {
    static constexpr int PACK = FULL_PACK<T>, STAGES = PACKS == 1 ? 3 : 2;
    enum { INP, DOUT, DINP, TENSORS };
    static constexpr size_t bytes(int threads) {
        return size_t(STAGES * TENSORS * PACKS * PACK) * size_t(threads) * sizeof(T);
    }
};

template <class T, int PACKS>
__global__ void __launch_bounds__(MOST_BACKWARD_THREADS, PACKS == 1 ? 2 : 1)
    rmsnorm_backward_kernel(DeviceRows<T> dinp, float* dweight_part, DeviceRows<const T> dout,
                            const float* rstd, DeviceRows<const T> inp, const float* weight, int64_t rows,
                            int C) {
    using Ring = BackwardRing<T, PACKS>;
    constexpr int PACK = Ring::PACK, STAGES = Ring::STAGES;
    DYNAMIC_SHARED(T, ring);
    STATIC_SHARED(float, partial, [2][MOST_BACKWARD_THREADS / WARP]);
    const int first = int(threadIdx.x) * PACK, step = int(blockDim.x) * PACK, warps = int(blockDim.x) / WARP;
    const float inverse_C = 1.0f / float(C);
    const auto in_ring = [&](int stage, int tensor, int k) {
        return ring + ((stage * Ring::TENSORS + tensor) * PACKS + k) * step + first;
    };
    const auto ask_for = [&](int64_t t, int stage) {
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if (const int c = first + k * step; t < rows && c < C) {
                cp_async_16(in_ring(stage, Ring::INP, k), inp[t] + c, true);
                cp_async_16(in_ring(stage, Ring::DOUT, k), dout[t] + c, true);
                cp_async_16(in_ring(stage, Ring::DINP, k), dinp[t] + c, true);
            }
        cp_async_commit();
    };
    Pack<float, PACK> w[PACKS] = {}, dw[PACKS] = {};
#pragma unroll
    for (int k = 0; k < PACKS; k++)
        if (first + k * step < C) w[k] = load_pack<PACK>(weight + first + k * step);
    for (int ahead = 0; ahead < STAGES - 1; ahead++) ask_for(blockIdx.x + int64_t(ahead) * gridDim.x, ahead);
    int stage = 0, parity = 0;
    float r_next = rstd[blockIdx.x];
    for (int64_t t = blockIdx.x; t < rows; t += gridDim.x) {
        ask_for(t + int64_t(STAGES - 1) * gridDim.x, (stage + STAGES - 1) % STAGES);
        const float r = r_next;
        if (t + gridDim.x < rows) r_next = rstd[t + gridDim.x];
        cp_async_wait<STAGES - 1>();
        Pack<T, PACK> x[PACKS] = {}, d[PACKS] = {};
        float dot = 0;
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if (first + k * step < C) {
                x[k] = load_pack<PACK>(in_ring(stage, Ring::INP, k));
                d[k] = load_pack<PACK>(in_ring(stage, Ring::DOUT, k));
                for (int i = 0; i < PACK; i++) dot += to_float(d[k].v[i]) * w[k].v[i] * to_float(x[k].v[i]);
            }
        dot = warp_sum(dot);
        if (threadIdx.x % WARP == 0) partial[parity][threadIdx.x / WARP] = dot;
        // Every warp's part is written before anybody reads it; and whoever still reads the row's before has the other array.
        __syncthreads();
        dot = 0;
        for (int i = 0; i < warps; i++) dot += partial[parity][i];
        const float scale = r * r * dot * inverse_C;
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if (first + k * step < C) {
                auto dx = load_pack<PACK>(in_ring(stage, Ring::DINP, k));
                for (int i = 0; i < PACK; i++) {
                    const float xf = to_float(x[k].v[i]), df = to_float(d[k].v[i]);
                    dx.v[i] = from_float<T>(to_float(dx.v[i]) + r * (df * w[k].v[i] - xf * scale));
                    dw[k].v[i] += df * xf * r;
                }
                store_pack(dinp[t] + first + k * step, dx);
            }
        stage = (stage + 1) % STAGES, parity ^= 1;
    }
    cp_async_wait<0>();
#pragma unroll
    for (int k = 0; k < PACKS; k++)
        if (first + k * step < C)
            store_pack(dweight_part + int64_t(blockIdx.x) * C + first + k * step, dw[k]);
}

// Any alignment and width: a thread's sums are in dweight_part itself.
template <class T>
__global__ void rmsnorm_backward_any_kernel(DeviceRows<T> dinp, float* dweight_part, DeviceRows<const T> dout,
                                            const float* rstd, DeviceRows<const T> inp, const float* weight,
                                            int64_t rows, int C) {
    float* dweight = dweight_part + int64_t(blockIdx.x) * C;
    const int first = int(threadIdx.x), step = int(blockDim.x);
    for (int c = first; c < C; c += step) dweight[c] = 0;
    for (int64_t t = blockIdx.x; t < rows; t += gridDim.x) {
        const T *x = inp[t], *d = dout[t];
        T* dx = dinp[t];
        const float r = rstd[t];
        float dot = 0;
        for (int c = first; c < C; c += step) dot += to_float(d[c]) * weight[c] * to_float(x[c]);
        const float scale = r * r * block_sum(dot) / float(C);
        for (int c = first; c < C; c += step) {
            const float xf = to_float(x[c]), df = to_float(d[c]);
            dx[c] = from_float<T>(to_float(dx[c]) + r * (df * weight[c] - xf * scale));
            dweight[c] += df * xf * r;
        }
    }
}

// ---- launchers ----

template <class T>
static void launch_forward(const Context& ctx, Tensor out, Tensor rstd, Tensor inp, Tensor weight,
                           float eps) {
    constexpr int PACK = FULL_PACK<T>, BLOCK = 128, MANY_ROWS = 1024;
    const int C = int(inp.cols);
    const bool packed = packs(out) && packs(inp) && aligned_for(weight, PACK);
    const int threads = threads_for(ceil_div(C / (packed ? PACK : 1), HELD), MOST_THREADS);
    // Small blocks take long to start where there are many rows, large ones take long to end where there are few.
    const int together = inp.rows < MANY_ROWS ? 1 : std::max(1, BLOCK / threads);
    launch_next(ctx, packed ? rmsnorm_forward_kernel<T, PACK> : rmsnorm_forward_kernel<T, 1>,
                ceil_div(inp.rows, together), dim3(unsigned(threads), unsigned(together)), 0,
                device_rows<T>(out), rstd.as<float>(), device_rows<const T>(inp),
                static_cast<const float*>(weight.as<float>()), inp.rows, C, eps);
}

void rmsnorm_forward(const Context& ctx, Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps) {
    if (inp.rows == 0) return;
    with_type(inp.dtype, "inp",
              [&](auto x) { launch_forward<decltype(x)>(ctx, out, rstd, inp, weight, eps); });
}

template <class T>
static void launch_backward(const Context& ctx, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd,
                            Tensor inp, Tensor weight) {
    const int C = int(inp.cols), n_packs = C / FULL_PACK<T>;
    const bool packed = packs(dinp) && packs(dout) && packs(inp) && aligned_for(weight, FULL_PACK<T>) &&
                        n_packs <= 2 * MOST_BACKWARD_THREADS;
    const int held = packed && n_packs > MOST_BACKWARD_THREADS ? 2 : 1;
    const int threads =
        packed ? threads_for(ceil_div(n_packs, held), MOST_BACKWARD_THREADS) : threads_for(C, 256);
    // Two blocks to a multiprocessor of the H100's 132, or four small ones.
    const int blocks = int(std::min<int64_t>(inp.rows, threads <= 128 ? 512 : 256));
    float* part = ctx.workspace.take<float>(size_t(blocks) * size_t(C));
    launch(packed ? held == 1 ? rmsnorm_backward_kernel<T, 1> : rmsnorm_backward_kernel<T, 2>
                  : rmsnorm_backward_any_kernel<T>,
           unsigned(blocks), threads,
           packed ? held == 1 ? BackwardRing<T, 1>::bytes(threads) : BackwardRing<T, 2>::bytes(threads) : 0,
           ctx.stream, device_rows<T>(dinp), part, device_rows<const T>(dout),
           static_cast<const float*>(rstd.as<float>()), device_rows<const T>(inp),
           static_cast<const float*>(weight.as<float>()), inp.rows, C);
    add_parts(ctx, dweight, part, blocks, C);
}

void rmsnorm_backward(const Context& ctx, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                      Tensor weight) {
    if (inp.rows == 0) return;
    with_type(inp.dtype, "inp",
              [&](auto x) { launch_backward<decltype(x)>(ctx, dinp, dweight, dout, rstd, inp, weight); });
}

}  // namespace cuda

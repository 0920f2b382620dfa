// attention_rows.cu -- span attention without tensor cores: a warp per (token, head) or (slot, key/value head). See
// attention.h.
//
// For fp32 mode and for shapes the tiled kernels are not compiled for. Keys are taken WARP at a time: every lane scores
// one, the probabilities pass through shared memory, then every lane adds up the head's channels lane, lane + 32, ...
#include "kernels/cuda_kernels.h"

namespace cuda {

constexpr int WARPS = 4, CHANNELS = 8;  // per lane: head sizes up to 256

// ---- kernels ----

struct AttentionSizes {
    int T, S, heads, kv_heads, HD;
    float scale;
};

__device__ inline bool sees(const AttentionSpans& see, int slot) {
    return (slot >= see.begin[0] && slot < see.end[0]) || (slot >= see.begin[1] && slot < see.end[1]) ||
           (slot >= see.begin[2] && slot < see.end[2]);
}

template <class T>
__device__ inline float dot(const T* a, const T* b, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += to_float(a[i]) * to_float(b[i]);
    return sum;
}

template <class T>
__global__ void attention_forward_kernel(DeviceRows<T> out, DeviceRows<float> lse, DeviceRows<const T> q,
                                         DeviceRows<const T> k, DeviceRows<const T> v,
                                         const AttentionSpans* see, AttentionSizes z) {
    DYNAMIC_SHARED(float, smem);  // (WARPS, WARP)
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
    const int64_t item = int64_t(blockIdx.x) * WARPS + warp;
    if (item >= int64_t(z.T) * z.heads) return;  // whole warps leave; only warps synchronise
    float* p_smem = smem + warp * WARP;
    const int t = int(item / z.heads), h = int(item % z.heads), g = h / (z.heads / z.kv_heads);
    const AttentionSpans spans = see[t];
    float o[CHANNELS] = {}, m = -INFINITY, l = 0;
    for (int r = 0; r < 3; r++)
        for (int s0 = spans.begin[r]; s0 < spans.end[r]; s0 += WARP) {
            const int n = min(WARP, spans.end[r] - s0);
            const float x =
                lane < n ? z.scale * dot(q[t] + h * z.HD, k[s0 + lane] + g * z.HD, z.HD) : -INFINITY;
            const float top = fmaxf(m, warp_max(x)), p = expf(x - top), keep = expf(m - top);
            l = l * keep + warp_sum(p);
            m = top;
            p_smem[lane] = p;
            __syncwarp();  // all probabilities are written before they are read
            for (int j = 0, i = lane; j < CHANNELS && i < z.HD; j++, i += WARP) {
                o[j] *= keep;
                for (int e = 0; e < n; e++) o[j] += p_smem[e] * to_float(v[s0 + e][g * z.HD + i]);
            }
            __syncwarp();  // and read before the next ones overwrite them
        }
    for (int j = 0, i = lane; j < CHANNELS && i < z.HD; j++, i += WARP)
        out[t][h * z.HD + i] = from_float<T>(l > 0 ? o[j] / l : 0.0f);
    if (lane == 0) lse[t][h] = l > 0 ? m + logf(l) : -INFINITY;
}

template <class T>
__global__ void attention_row_sums_kernel(DeviceRows<float> sums, DeviceRows<const T> dout,
                                          DeviceRows<const T> out, int T_rows, int heads, int HD) {
    const int lane = int(threadIdx.x) % WARP;
    const int64_t item = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
    if (item >= int64_t(T_rows) * heads) return;  // whole warps leave
    const int64_t t = item / heads, h = item % heads;
    float sum = 0;
    for (int i = lane; i < HD; i += WARP) sum += to_float(dout[t][h * HD + i]) * to_float(out[t][h * HD + i]);
    sum = warp_sum(sum);
    if (lane == 0) sums[t][h] = sum;
}

// The same in packs of 16 bytes: `lanes` neighbouring lanes for a head, a power of two, and `blocks` blocks for a row.
template <class T>
__global__ void attention_row_sums_packs_kernel(DeviceRows<float> sums, DeviceRows<const T> dout,
                                                DeviceRows<const T> out, int packs, int lanes, int blocks) {
    constexpr int N = FULL_PACK<T>;
    const int64_t t = int(blockIdx.x) / blocks;
    const int pack = int(blockIdx.x) % blocks * int(blockDim.x) + int(threadIdx.x);
    float sum = 0;
    if (pack < packs) {
        const Pack<T, N> a = load_pack<N>(dout[t] + pack * N), b = load_pack<N>(out[t] + pack * N);
        for (int i = 0; i < N; i++) sum += to_float(a.v[i]) * to_float(b.v[i]);
    }
    for (int o = lanes / 2; o > 0; o /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, o);
    if (pack < packs && pack % lanes == 0) sums[t][pack / lanes] = sum;
}

template <class T>
__global__ void attention_dq_kernel(DeviceRows<T> dq, DeviceRows<const float> sums, DeviceRows<const T> dout,
                                    DeviceRows<const float> lse, DeviceRows<const T> q, DeviceRows<const T> k,
                                    DeviceRows<const T> v, const AttentionSpans* see, AttentionSizes z) {
    DYNAMIC_SHARED(float, smem);  // (WARPS, WARP)
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
    const int64_t item = int64_t(blockIdx.x) * WARPS + warp;
    if (item >= int64_t(z.T) * z.heads) return;  // whole warps leave; only warps synchronise
    float* ds_smem = smem + warp * WARP;
    const int t = int(item / z.heads), h = int(item % z.heads), g = h / (z.heads / z.kv_heads);
    const AttentionSpans spans = see[t];
    const float L = lse[t][h], D = sums[t][h];
    float d[CHANNELS] = {};
    for (int r = 0; r < 3; r++)
        for (int s0 = spans.begin[r]; s0 < spans.end[r]; s0 += WARP) {
            const int n = min(WARP, spans.end[r] - s0);
            float ds = 0;
            if (lane < n) {
                const float p = expf(z.scale * dot(q[t] + h * z.HD, k[s0 + lane] + g * z.HD, z.HD) - L);
                ds = p * (dot(dout[t] + h * z.HD, v[s0 + lane] + g * z.HD, z.HD) - D) * z.scale;
            }
            ds_smem[lane] = ds;
            __syncwarp();  // all are written before they are read
            for (int j = 0, i = lane; j < CHANNELS && i < z.HD; j++, i += WARP)
                for (int e = 0; e < n; e++) d[j] += ds_smem[e] * to_float(k[s0 + e][g * z.HD + i]);
            __syncwarp();  // and read before the next ones overwrite them
        }
    for (int j = 0, i = lane; j < CHANNELS && i < z.HD; j++, i += WARP)
        dq[t][h * z.HD + i] = from_float<T>(d[j]);
}

template <class T>
__global__ void attention_dkv_kernel(DeviceRows<T> dk, DeviceRows<T> dv, DeviceRows<const float> sums,
                                     DeviceRows<const T> dout, DeviceRows<const float> lse,
                                     DeviceRows<const T> q, DeviceRows<const T> k, DeviceRows<const T> v,
                                     const AttentionSpans* see, AttentionSizes z) {
    DYNAMIC_SHARED(float, smem);  // (WARPS, 2, WARP)
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
    const int64_t item = int64_t(blockIdx.x) * WARPS + warp;
    if (item >= int64_t(z.S) * z.kv_heads) return;  // whole warps leave; only warps synchronise
    float *p_smem = smem + warp * 2 * WARP, *ds_smem = p_smem + WARP;
    const int s = int(item / z.kv_heads), g = int(item % z.kv_heads), group = z.heads / z.kv_heads;
    float d_k[CHANNELS] = {}, d_v[CHANNELS] = {};
    // every lane looks at one (token, head of the group) of WARP; most of them see nothing
    const int64_t rows = int64_t(z.T) * group;
    for (int64_t m0 = 0; m0 < rows; m0 += WARP) {
        const int64_t m = m0 + lane;
        const int t = int(m / group), h = g * group + int(m % group);
        const bool visible = m < rows && sees(see[t], s);
        if (__ballot_sync(FULL_WARP, visible) == 0) continue;
        float p = 0, ds = 0;
        if (visible) {
            p = expf(z.scale * dot(q[t] + h * z.HD, k[s] + g * z.HD, z.HD) - lse[t][h]);
            ds = p * (dot(dout[t] + h * z.HD, v[s] + g * z.HD, z.HD) - sums[t][h]) * z.scale;
        }
        p_smem[lane] = p, ds_smem[lane] = ds;
        __syncwarp();  // all are written before they are read
        for (int e = 0; e < WARP && m0 + e < rows; e++) {
            if (p_smem[e] == 0 && ds_smem[e] == 0) continue;
            const int te = int((m0 + e) / group), he = g * group + int((m0 + e) % group);
            for (int j = 0, i = lane; j < CHANNELS && i < z.HD; j++, i += WARP) {
                d_k[j] += ds_smem[e] * to_float(q[te][he * z.HD + i]);
                d_v[j] += p_smem[e] * to_float(dout[te][he * z.HD + i]);
            }
        }
        __syncwarp();  // and read before the next ones overwrite them
    }
    for (int j = 0, i = lane; j < CHANNELS && i < z.HD; j++, i += WARP) {
        dk[s][g * z.HD + i] = from_float<T>(d_k[j]);
        dv[s][g * z.HD + i] = from_float<T>(d_v[j]);
    }
}

// ---- launchers ----

static AttentionSizes sizes_of(const Attention& a) {
    CHECK(a.HD() * a.heads == a.q.cols && a.HD() <= WARP * CHANNELS && a.kv_heads * a.HD() == a.k.cols,
          "attention of %d heads of %d", a.heads, a.HD());
    return {int(a.q.rows), int(a.k.rows), a.heads, a.kv_heads, a.HD(), 1.0f / sqrtf(float(a.HD()))};
}
static const AttentionSpans* spans_of(const Attention& a) {
    return reinterpret_cast<const AttentionSpans*>(a.see.as<int>());
}

void attention_forward_rows(const Context& ctx, Tensor out, Tensor lse, const Attention& a) {
    const AttentionSizes z = sizes_of(a);
    with_type(a.q.dtype, "q", [&](auto x) {
        using T = decltype(x);
        launch(attention_forward_kernel<T>, ceil_div(int64_t(z.T) * z.heads, WARPS), WARPS * WARP,
               WARPS * WARP * sizeof(float), ctx.stream, device_rows<T>(out), device_rows<float>(lse),
               device_rows<const T>(a.q), device_rows<const T>(a.k), device_rows<const T>(a.v), spans_of(a),
               z);
    });
}

void attention_row_sums(const Context& ctx, Tensor sums, Tensor dout, Tensor out, int heads) {
    with_type(out.dtype, "out", [&](auto x) {
        using T = decltype(x);
        const int HD = int(out.cols) / heads, lanes = HD / FULL_PACK<T>;
        if (HD % FULL_PACK<T> == 0 && WARP % lanes == 0 && packs(dout) && packs(out)) {
            const int n = lanes * heads, threads = threads_for(n, 128), blocks = ceil_div(n, threads);
            return launch(attention_row_sums_packs_kernel<T>, unsigned(out.rows) * unsigned(blocks), threads,
                          0, ctx.stream, device_rows<float>(sums), device_rows<const T>(dout),
                          device_rows<const T>(out), n, lanes, blocks);
        }
        launch(attention_row_sums_kernel<T>, ceil_div(out.rows * heads, WARPS), WARPS * WARP, 0, ctx.stream,
               device_rows<float>(sums), device_rows<const T>(dout), device_rows<const T>(out), int(out.rows),
               heads, HD);
    });
}

void attention_backward_rows(const Context& ctx, Tensor dq, Tensor dk, Tensor dv, Tensor sums, Tensor dout,
                             Tensor lse, const Attention& a) {
    const AttentionSizes z = sizes_of(a);
    with_type(a.q.dtype, "q", [&](auto x) {
        using T = decltype(x);
        launch(attention_dq_kernel<T>, ceil_div(int64_t(z.T) * z.heads, WARPS), WARPS * WARP,
               WARPS * WARP * sizeof(float), ctx.stream, device_rows<T>(dq), device_rows<const float>(sums),
               device_rows<const T>(dout), device_rows<const float>(lse), device_rows<const T>(a.q),
               device_rows<const T>(a.k), device_rows<const T>(a.v), spans_of(a), z);
        launch(attention_dkv_kernel<T>, ceil_div(int64_t(z.S) * z.kv_heads, WARPS), WARPS * WARP,
               2 * WARPS * WARP * sizeof(float), ctx.stream, device_rows<T>(dk), device_rows<T>(dv),
               device_rows<const float>(sums), device_rows<const T>(dout), device_rows<const float>(lse),
               device_rows<const T>(a.q), device_rows<const T>(a.k), device_rows<const T>(a.v), spans_of(a),
               z);
    });
}

}  // namespace cuda

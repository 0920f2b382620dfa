// logit_chunk.cuh -- a warp's piece of a row of logits in registers, and the sums of its softmax: what the LM head and the
// sampler compute from a tile of logits in one reading.
//
// A row is cut into chunks of CHUNK ids from its beginning, whatever else is in the tile. A warp takes a chunk: all of it is
// requested at once, and nothing is read a second time. So even a few rows make enough warps to keep a device busy; and since
// the chunks of a row are joined in a fixed order, its bits do not depend on the number of rows in a tile.
#pragma once
#include "kernels/device/device.h"
#include "kernels/device/ptx.h"

namespace cuda {

constexpr int CHUNK = 1024, LOGIT_PACK = 4, LANE_LOGITS = CHUNK / WARP;
constexpr int CHUNK_WARPS = 4;  // of a block whose warps take a chunk each
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

inline int chunks_of(int64_t V) { return ceil_div(V, CHUNK); }
// Floats from one row of a tile of logits to the next: rows begin where packs of 16 bytes do, also of bf16.
inline int64_t logit_stride(int64_t V) { return (V + 7) / 8 * 8; }

// Element e of a lane is id `first + e / 4 * 128 + e % 4`: ascending in e, packs of neighbouring lanes side by side.
__device__ inline int id_of(int first, int e) {
    return first + e / LOGIT_PACK * (WARP * LOGIT_PACK) + e % LOGIT_PACK;
}
__device__ inline int first_id(int chunk) { return chunk * CHUNK + int(threadIdx.x) % WARP * LOGIT_PACK; }
struct LogitChunk {
    float x[LANE_LOGITS];
    int first;
    __device__ int id(int e) const { return id_of(first, e); }
};

// What lies behind the row's end is -inf. A pack that begins in the row may be read.
__device__ inline LogitChunk load_chunk(const float* row, int V, int chunk) {
    LogitChunk c;
    c.first = first_id(chunk);
    if ((chunk + 1) * CHUNK <= V) {  // nothing stands between the loads
#pragma unroll
        for (int e = 0; e < LANE_LOGITS; e += LOGIT_PACK) {
            const Pack<float, LOGIT_PACK> pack = load_pack<LOGIT_PACK>(row + c.id(e));
#pragma unroll
            for (int k = 0; k < LOGIT_PACK; k++) c.x[e + k] = pack.v[k];
        }
        return c;
    }
#pragma unroll
    for (int e = 0; e < LANE_LOGITS; e += LOGIT_PACK) {
        Pack<float, LOGIT_PACK> pack = {};
        if (c.id(e) < V) pack = load_pack<LOGIT_PACK>(row + c.id(e));
#pragma unroll
        for (int k = 0; k < LOGIT_PACK; k++) c.x[e + k] = c.id(e + k) < V ? pack.v[k] : -INFINITY;
    }
    return c;
}

// The largest of each lane's.
__device__ inline float lane_max(const LogitChunk& c) {
    float max = -INFINITY;
#pragma unroll
    for (int e = 0; e < LANE_LOGITS; e++) max = fmaxf(max, c.x[e]);
    return max;
}

// Of a chunk, or of a row: the largest logit, the sum of e = exp((x - max) scale), and of e (x - max) scale.
struct LogitSums {
    float max, sum, weighted;
};

// Called by the whole warp, which gets the same bits in every lane. max: the chunk's largest.
__device__ inline LogitSums chunk_sums(const LogitChunk& c, float max, float scale) {
    const float from = max == -INFINITY ? 0.0f : max, by = scale * LOG2_E;
    float sum = 0, weighted = 0;
#pragma unroll
    for (int e = 0; e < LANE_LOGITS; e += LOGIT_PACK) {
        float w[LOGIT_PACK], t[LOGIT_PACK];
#pragma unroll
        for (int k = 0; k < LOGIT_PACK; k++) {
            const float d = (c.x[e + k] - from) * by;
            w[k] = exp2_approx(d);
            t[k] = w[k] * fmaxf(d, -1000.0f);  // exp(-inf) (-inf) counts nothing
        }
        sum += (w[0] + w[1]) + (w[2] + w[3]);
        weighted += (t[0] + t[1]) + (t[2] + t[3]);
    }
    return {max, warp_sum(sum), warp_sum(weighted) * LN_2};
}

// A chunk's sums relative to a larger maximum `top`, ready to be added up.
struct RowSums {
    double sum, weighted;
};
__device__ inline RowSums shifted(const LogitSums& s, float top, float scale) {
    const double shift =
                     s.max == top || s.max == -INFINITY ? 0.0 : (double(s.max) - double(top)) * double(scale),
                 shrink = exp(shift);
    return {double(s.sum) * shrink, (double(s.weighted) + double(s.sum) * shift) * shrink};
}

}  // namespace cuda

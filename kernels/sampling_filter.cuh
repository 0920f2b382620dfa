// sampling_filter.cuh -- what top-k and top-p leave of a row of logits, found by one block.
//
// The order is by logit descending, then id ascending: a key of 64 bits for each id, larger ones first. A filter keeps the
// shortest prefix of the order that weighs more than is wanted (top-k: ids count 1; top-p: their masses), so all it has to find
// is the last key that is kept. Masses are exponentials in fixed point: sums of integers have the same bits in any order, so
// it does not matter which thread adds first.
//
// Few ids decide, and the largest logits of quarters of chunks tell which: a prefix of *those maxima* that weighs enough gives a
// bound that the last kept key reaches. The ids that reach it are gathered and sorted. Only if there are too many (a flat
// distribution, a k of thousands, a crowd of equal logits) their weights go into a histogram first, and only the bin that holds
// the last key is gathered; and so on, if need be, down to the last bit of the id.
#pragma once
#include "kernels/logit_chunk.cuh"
#include "kernels/sampling.h"

namespace cuda {

using Order = unsigned long long;  // of an id in its row; larger comes first
using Mass =
    unsigned long long;  // sums of weights: ids, or probabilities in units of 1 / MASS_ONE of the likeliest's
constexpr float MASS_ONE = 0x1p39f;  // the likeliest id's mass: sums of 2^24 of them fit in 64 bits
constexpr int ID_BITS = 24;          // of a vocabulary; ids are exact in fp32
constexpr int QUARTERS = 4, GATHERED = 4096, BINS = 2048;

// Larger floats have larger keys. Both zeros are one number.
__device__ inline uint32_t key_of(float x) {
    const uint32_t u = __float_as_uint(x == 0.0f ? 0.0f : x);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ inline Order order_of(float x, int id) { return Order(key_of(x)) << 32 | uint32_t(~id); }
__device__ inline float logit_of(Order order) {
    const uint32_t key = uint32_t(order >> 32);
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// What is known of a chunk from reading it once. Allowed are ids that may be drawn.
struct ChunkPart {
    LogitSums plain, tempered, allowed;  // of all ids; of all, and of allowed ones, at the temperature
    float second;             // the next largest allowed logit, which may be equal; where a margin is wanted
    float quarter[QUARTERS];  // the largest allowed logit of each quarter
    float score_low,
        score_high;  // log2 of the race's winner in this chunk, if the largest allowed weighs 1, is between
    Mass mass;       // of the ids that are kept
};

enum class Weigh { Ids, Masses };

struct LogitRow {
    const float* x;  // (V) logits
    int V, n_ids, mask_id, chunks;
    float scale;                // 1 / temperature
    float max_allowed = 0;      // where known
    ChunkPart* part = nullptr;  // (chunks), where known

    __device__ bool allowed(int i) const { return i < n_ids && i != mask_id; }
    __device__ bool allows_all_of(int chunk) const {
        return (chunk + 1) * CHUNK <= n_ids && (mask_id < 0 || mask_id / CHUNK != chunk);
    }
    // in log2: 0 for the largest allowed logit
    __device__ float log_weight(float x) const { return (x - max_allowed) * (scale * LOG2_E); }
    __device__ Mass mass(float x) const { return fixed(exp2_approx(log_weight(x))); }
    __device__ Mass weight(float x, Weigh by) const { return by == Weigh::Ids ? 1 : mass(x); }
    // Whether the chunk may hold ids from `from` on.
    __device__ bool reaches(int chunk, Order from) const {
        return order_of(part[chunk].allowed.max, 0) >= from;
    }
    template <class T>
    __device__ static Mass fixed(T weight) {
        return weight > 0 ? Mass(weight * T(MASS_ONE)) : 0;
    }
};

// ---- tools of a block ----

struct Crossing {
    int index;
    Mass before;  // what weighs before it
};
// The first of n at which the sum of weights exceeds `point`; n where it does not.
template <class Weight>
__device__ inline Crossing first_beyond(int n, Mass point, Weight weight) {
    STATIC_SHARED(Mass, warp_sum_of, [WARP]);
    STATIC_SHARED(Crossing, found);
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, warps = int(blockDim.x) / WARP;
    const int run = (n + int(blockDim.x) - 1) / int(blockDim.x), begin = min(n, int(threadIdx.x) * run),
              end = min(n, begin + run);
    Mass sum = 0;
    for (int i = begin; i < end; i++) sum += weight(i);
    Mass upto = sum;  // of the warp's lanes up to this one
    for (int o = 1; o < WARP; o *= 2) {
        const Mass below = __shfl_up_sync(FULL_WARP, upto, unsigned(o));
        if (lane >= o) upto += below;
    }
    if (lane == WARP - 1) warp_sum_of[warp] = upto;
    __syncthreads();  // every warp's sum is written before anybody adds them up
    Mass before = upto - sum, all = 0;
    for (int w = 0; w < warps; w++) {
        if (w < warp) before += warp_sum_of[w];
        all += warp_sum_of[w];
    }
    if (threadIdx.x == 0 && all <= point) found = {n, all};
    if (before <= point && point < before + sum) {  // one thread's run
        int i = begin;
        for (Mass w; before + (w = weight(i)) <= point; i++) before += w;
        found = {i, before};
    }
    __syncthreads();  // the place is written before everybody reads it
    const Crossing out = found;
    __syncthreads();  // and read before the next one overwrites it
    return out;
}

// Bitonic: list has room for the next power of two.
__device__ inline void sort_descending(Order* list, int n) {
    int size = 1;
    while (size < n) size *= 2;
    for (int i = n + int(threadIdx.x); i < size; i += int(blockDim.x)) list[i] = 0;
    for (int span = 2; span <= size; span *= 2)
        for (int step = span / 2; step > 0; step /= 2) {
            __syncthreads();  // the list, or the step before, is whole
            for (int t = int(threadIdx.x); t < size / 2; t += int(blockDim.x)) {
                const int i = 2 * t - (t & (step - 1)), j = i + step;
                const Order a = list[i], b = list[j];
                if ((a < b) == ((i & span) == 0)) list[i] = b, list[j] = a;
            }
        }
    __syncthreads();  // sorted before anybody reads it
}

// Calls f(e, order, logit) for a lane's allowed ids with from <= order < to.
template <class F>
__device__ inline void for_each_between(const LogitRow& row, int chunk, Order from, Order to, F f) {
    const LogitChunk c = load_chunk(row.x, row.V, chunk);
#pragma unroll
    for (int e = 0; e < LANE_LOGITS; e++) {
        const Order order = order_of(c.x[e], c.id(e));
        if (order >= from && order < to && row.allowed(c.id(e))) f(e, order, c.x[e]);
    }
}

// ---- the filter ----

union FilterScratch {
    Order list[GATHERED];
    struct {
        uint32_t low[BINS], high[BINS];  // halves of sums: shared memory adds 32 bits at once, 64 in a loop
    } bin;
};

// Into list, in any order, if they are not more than GATHERED; how many there are, or some larger number.
__device__ inline int gather(Order* list, const LogitRow& row, Order from, Order to) {
    STATIC_SHARED(uint32_t, count);
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, warps = int(blockDim.x) / WARP;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();  // nobody counts before that, nor writes to a list that is still read
    bool fits = true;
    for (int chunk = warp; chunk < row.chunks && fits; chunk += warps) {
        if (!row.reaches(chunk, from)) continue;
        uint32_t found = 0;  // elements
        for_each_between(row, chunk, from, to, [&](int e, Order, float) { found |= 1u << e; });
        const int mine = __popc(found);
        int upto = mine;
        for (int o = 1; o < WARP; o *= 2) {
            const int below = __shfl_up_sync(FULL_WARP, upto, unsigned(o));
            if (lane >= o) upto += below;
        }
        uint32_t first = 0;
        if (lane == WARP - 1) first = atomicAdd(&count, uint32_t(upto));
        first = __shfl_sync(FULL_WARP, first, WARP - 1);
        fits = first + uint32_t(__shfl_sync(FULL_WARP, upto, WARP - 1)) <= GATHERED;
        int at = int(first) + upto - mine;
#pragma unroll 1
        for (int e = 0; fits && e < LANE_LOGITS; e++) {
            const int id = id_of(first_id(chunk), e);
            if (found >> e & 1) list[at++] = order_of(row.x[id], id);
        }
    }
    __syncthreads();  // all is written and counted before anybody reads it
    const int n = int(count);
    __syncthreads();  // and read before the next count begins
    return n;
}

// Weights of the ids with from <= order < to, by (order - from) >> shift.
__device__ inline void fill_bins(FilterScratch& scratch, const LogitRow& row, Weigh by, Order from, Order to,
                                 int shift) {
    const int warp = int(threadIdx.x) / WARP, warps = int(blockDim.x) / WARP;
    for (int b = int(threadIdx.x); b < BINS; b += int(blockDim.x))
        scratch.bin.low[b] = scratch.bin.high[b] = 0;
    __syncthreads();  // the bins are empty before anybody adds to them
    for (int chunk = warp; chunk < row.chunks; chunk += warps) {
        if (!row.reaches(chunk, from)) continue;
        for_each_between(row, chunk, from, to, [&](int, Order order, float x) {
            const int b = int((order - from) >> shift);
            const Mass w = row.weight(x, by);
            const uint32_t low = uint32_t(w), was = atomicAdd(&scratch.bin.low[b], low),
                           high = uint32_t(w >> 32) + (was + low < was);
            if (high) atomicAdd(&scratch.bin.high[b], high);
        });
    }
    __syncthreads();  // the bins are whole before they are read
}

// Of the ids from `bottom` on, the last one of the shortest beginning that weighs more than `wanted`; bottom where all of them
// do not. Ids below `bound` are known not to be needed, but for roundings.
__device__ inline Order select(FilterScratch& scratch, const LogitRow& row, Weigh by, Mass wanted,
                               Order bottom, Order bound) {
    const auto listed = [&](int i) { return row.weight(logit_of(scratch.list[i]), by); };
    Order from = max(bottom, bound), to = (Order(key_of(row.max_allowed)) + 1) << 32;
    const int maxima = QUARTERS * row.chunks;
    if (maxima <= GATHERED) {
        for (int i = int(threadIdx.x); i < maxima; i += int(blockDim.x))
            scratch.list[i] = order_of(row.part[i / QUARTERS].quarter[i % QUARTERS], INT_MAX);
        sort_descending(scratch.list, maxima);
        const Crossing at = first_beyond(maxima, wanted, listed);
        if (at.index < maxima) from = max(from, scratch.list[at.index] >> 32 << 32);
    }
    Mass above = 0;  // what weighs from `to` on
    for (;;) {
        const int n = gather(scratch.list, row, from, to);
        bool found;
        if (n <= GATHERED) {
            sort_descending(scratch.list, n);
            const Crossing at = first_beyond(n, wanted - above, listed);
            found = at.index < n;
            if (found) {
                const Order last = scratch.list[at.index];
                __syncthreads();  // everybody has read it before the list is used again
                return last;
            }
            above += at.before;
        } else {
            int shift = 0;
            while ((to - from - 1) >> shift >= BINS) shift++;
            const int bins = int((to - from - 1) >> shift) + 1;
            fill_bins(scratch, row, by, from, to, shift);
            const Crossing at = first_beyond(bins, wanted - above, [&](int i) {
                const int b = bins - 1 - i;
                return Mass(scratch.bin.high[b]) << 32 | scratch.bin.low[b];
            });
            found = at.index < bins;
            above += at.before;
            if (found) {
                from += Order(bins - 1 - at.index) << shift;
                to = min(to, from + (Order(1) << shift));
            }
        }
        if (found) continue;
        if (from == bottom) return bottom;
        to = from;
        from = bottom;
    }
}

}  // namespace cuda

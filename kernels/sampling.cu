// sampling.cu -- see sampling.h. A first kernel reads every logit once, a warp per chunk of a row (logit_chunk.cuh), and leaves
// for each chunk the sums that a row's result can be joined from. Then a block per row joins them. Greedily it reads no logit
// again; at a temperature only those of the chunk that the random number falls into (where the cumulative mass exceeds it),
// or of the chunks that may hold the winner of Gumbel's race; with filters those that may be kept (sampling_filter.cuh).
#include <algorithm>
#include <climits>

#include "kernels/cuda_kernels.h"
#include "kernels/sampling_filter.cuh"

namespace cuda {

constexpr int MOST_THREADS = 256;  // of a row's block
constexpr int NOBODY = -1;
constexpr float RACE_SLACK = 0.01f;  // in log2: far more than scores in fp32 are wrong by

// ---- kernels ----

__device__ inline bool is_filtered(const SampleRow& row) {
    return row.temperature != 0 && (row.top_k > 0 || row.top_p < 1);
}
__device__ inline float scale_of(const SampleRow& row) {
    return row.temperature == 0 ? 1.0f : 1 / row.temperature;
}
// The second largest logit of a chunk; on ties the largest once more. From the last one down: or the compiler keeps the 32 maxima
// that lane_max() came past.
__device__ inline float second_of(const LogitChunk& c) {
    float first = -INFINITY, second = -INFINITY;
#pragma unroll
    for (int e = LANE_LOGITS - 1; e >= 0; e--) {
        second = fmaxf(second, fminf(first, c.x[e]));
        first = fmaxf(first, c.x[e]);
    }
    for (int o = WARP / 2; o > 0; o /= 2) {
        const float other = __shfl_xor_sync(FULL_WARP, first, o);
        second = fmaxf(fmaxf(second, __shfl_xor_sync(FULL_WARP, second, o)), fminf(first, other));
        first = fmaxf(first, other);
    }
    return second;
}

// Bounds of the largest p / -log u of a chunk, as base-2 logarithms where its largest allowed logit, `max`, weighs 1, and
// without a logarithm in double. With w = ~u of the upper halves, 1 - u is between w and w + 1 units of 2^-32. p / (1 - u) is
// above the score; from u = 1/2 on by a factor of at most 2 log 2, together with (w + 1) / w less than the root of 2.
__device__ inline void bound_race(ChunkPart& part, const LogitRow& row, const SampleRow& options, int chunk,
                                  float max) {
    float low = -INFINITY, high = -INFINITY;
    const int first = first_id(chunk), end = min(row.V, (chunk + 1) * CHUNK);
#pragma unroll 1
    for (int i = first; i < end; i += WARP * LOGIT_PACK) {
        const Pack<float, LOGIT_PACK> x = load_pack<LOGIT_PACK>(row.x + i);
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
            const auto bits = gumbel_bits(options, i / 2 + pair);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const int id = i + 2 * pair + k;
                const uint32_t w = ~bits[size_t(2 * k)];
                const float score =
                    (x.v[2 * pair + k] - max) * (row.scale * LOG2_E) - log2_approx(float(w)) + 32;
                if (id >= end || !row.allowed(id)) continue;
                high = fmaxf(high, score);
                if (w >= 64 && w < 1u << 31) low = fmaxf(low, score - 0.5f);
            }
        }
    }
    part.score_low = warp_max(low);
    part.score_high = warp_max(high);
}

// parts (n_rows, chunks): a warp each.
__global__ void __launch_bounds__(CHUNK_WARPS* WARP)
    sample_chunks_kernel(ChunkPart* parts, const SampleRow* rows, const float* logits, int64_t stride,
                         int n_rows, int V, int mask_id, int n_ids) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    const int chunks = (V + CHUNK - 1) / CHUNK, lane = int(threadIdx.x) % WARP;
    const int at = int(blockIdx.x) * CHUNK_WARPS + int(threadIdx.x) / WARP, chunk = at % chunks;
    if (at >= n_rows * chunks) return;
    const SampleRow& options = rows[at / chunks];
    const LogitRow row{.x = logits + at / chunks * stride,
                       .V = V,
                       .n_ids = n_ids,
                       .mask_id = mask_id,
                       .chunks = chunks,
                       .scale = scale_of(options)};
    const bool clean = row.allows_all_of(chunk);
    LogitChunk c = load_chunk(row.x, V, chunk);
    ChunkPart part = {};
    part.plain = chunk_sums(c, warp_max(lane_max(c)), 1);
    // The maximum goes round through a shuffle: or the compiler keeps all the x - max of the first sums for the second, 32 registers.
    const float top = __shfl_sync(FULL_WARP, part.plain.max, 0);
    part.tempered = row.scale == 1 ? part.plain : chunk_sums(c, top, row.scale);
    if (!clean) {
#pragma unroll
        for (int e = 0; e < LANE_LOGITS; e++)
            if (!row.allowed(c.id(e))) c.x[e] = -INFINITY;
    }
    float max = lane_max(c);
    for (int o = WARP / 2; o >= QUARTERS; o /= 2) max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, o));
    for (int q = 0; q < QUARTERS; q++) part.quarter[q] = __shfl_sync(FULL_WARP, max, q);
    max = fmaxf(fmaxf(part.quarter[0], part.quarter[1]), fmaxf(part.quarter[2], part.quarter[3]));
    part.allowed = clean ? part.tempered : chunk_sums(c, max, row.scale);

    if (options.margin) part.second = second_of(c);
    if (options.draw == Draw::Gumbel && options.temperature != 0 && !is_filtered(options))
        bound_race(part, row, options, chunk, max);
    if (lane == 0) parts[at] = part;
}

struct Kept {
    Mass mass, weighted;  // sums of m and of m log2(1 / m), m the mass of an id
    int count;
};
// Of the allowed ids from `last` on; every chunk's mass goes into its part.
__device__ inline Kept weigh_kept(const LogitRow& row, Order last) {
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, warps = int(blockDim.x) / WARP;
    Kept kept = {};
    for (int chunk = warp; chunk < row.chunks; chunk += warps) {
        Mass mass = 0;
        if (row.reaches(chunk, last))
            for_each_between(row, chunk, last, ~Order(0), [&](int, Order, float x) {
                const float l = row.log_weight(x), w = exp2_approx(l);
                mass += LogitRow::fixed(w);
                kept.weighted += LogitRow::fixed(w * fminf(-l, 1000.0f));
                kept.count++;
            });
        mass = warp_sum(mass);
        if (lane == 0) row.part[chunk].mass = mass, kept.mass += mass;
    }
    return {block_sum(kept.mass), block_sum(kept.weighted), block_sum(kept.count)};
}

struct Filtered {
    Order last;  // of the order that is kept
    Kept kept;
};
// By top-k, then by top-p. total: the mass of all allowed ids.
__device__ inline Filtered filter(const LogitRow& row, const SampleRow& options, Mass total) {
    STATIC_SHARED(FilterScratch, scratch);
    Filtered out{0, {.mass = total, .weighted = 0, .count = 0}};
#pragma unroll 1  // the code of one filter is large enough
    for (const bool by_mass : {false, true}) {
        if (by_mass ? options.top_p >= 1 : options.top_k <= 0) continue;
        Mass wanted = Mass(options.top_k - 1);
        Order bound = 0;
        if (by_mass) {
            wanted = Mass(double(options.top_p) * double(out.kept.mass));
            // what weighs so little that all of the row's ids together would not reach beyond it
            const float light = float(out.kept.mass - min(wanted, out.kept.mass)) / (float(row.V) * MASS_ONE);
            if (light > 0) bound = order_of(row.max_allowed + (logf(light) - 0.01f) / row.scale, INT_MAX);
        }
        out.last = select(scratch, row, by_mass ? Weigh::Masses : Weigh::Ids, wanted, out.last, bound);
        out.kept = weigh_kept(row, out.last);
    }
    return out;
}

// The lowest id of the largest allowed logit, which is in `chunk`.
__device__ inline int likeliest(const LogitRow& row, int chunk) {
    const int end = min(row.V, (chunk + 1) * CHUNK);
    float lowest = -float(1 << ID_BITS);  // the id, as its negative
    for (int i = chunk * CHUNK + int(threadIdx.x); i < end; i += int(blockDim.x))
        if (row.x[i] == row.max_allowed && row.allowed(i)) lowest = fmaxf(lowest, float(-i));
    lowest = block_max(lowest);
    return lowest == -float(1 << ID_BITS) ? NOBODY : int(-lowest);
}

// Inverse of the cumulative distribution over the kept ids in ascending order: the first id at which it exceeds u of the whole.
// total: the sum of the chunks' masses, not 0.
__device__ inline int draw_inverse(const LogitRow& row, Order last, Mass total, double u) {
    const Mass point = min(Mass(u * double(total)), total - 1);
    const Crossing at = first_beyond(row.chunks, point, [&](int c) { return row.part[c].mass; });
    const int begin = at.index * CHUNK, n = min(CHUNK, row.V - begin);
    const auto mass = [&](int i) {
        const float x = row.x[begin + i];
        return row.allowed(begin + i) && order_of(x, begin + i) >= last ? row.mass(x) : Mass(0);
    };
    Mass sum = 0;
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) sum += mass(i);
    sum = block_sum(sum);
    if (sum == 0) return NOBODY;  // all of the chunk's ids are lighter than a unit of mass
    // the chunk's own sum, of fp32 exponentials, is not quite that of the ids
    const double rest = double(point - at.before) / double(row.part[at.index].mass);
    return begin + first_beyond(n, min(Mass(rest * double(sum)), sum - 1), mass).index;
}

// The id that wins the race of the kept ones; NOBODY where there is none.
__device__ inline int draw_gumbel(const LogitRow& row, const SampleRow& options, Order last) {
    STATIC_SHARED(double, leader_score, [WARP]);
    STATIC_SHARED(int, leader_id, [WARP]);
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, warps = int(blockDim.x) / WARP;
    const bool bounded = !is_filtered(options);
    float enough = -INFINITY;
    if (bounded)
        for (int c = int(threadIdx.x); c < row.chunks; c += int(blockDim.x))
            enough = fmaxf(enough, row.part[c].score_low + row.log_weight(row.part[c].allowed.max));
    enough = block_max(enough) - RACE_SLACK;
    GumbelRace race;
    for (int chunk = warp; chunk < row.chunks; chunk += warps) {
        const ChunkPart& part = row.part[chunk];
        if (!row.reaches(chunk, last)) continue;
        if (bounded && part.score_high + row.log_weight(part.allowed.max) < enough) continue;
        const int end = min(row.V, (chunk + 1) * CHUNK);
#pragma unroll 1
        for (int i = chunk * CHUNK + 2 * lane; i < end; i += 2 * WARP) {
            GumbelPair uniforms = {};
            for (int k = 0; k < 2 && i + k < end; k++) {
                const float x = row.x[i + k], weight = exp2_approx(row.log_weight(x));
                if (!(weight > 0) || !row.allowed(i + k) || order_of(x, i + k) < last) continue;
                if (uniforms.u[0] + uniforms.u[1] == 0) uniforms = gumbel_uniforms(options, i / 2);
                race.enter(i + k, double(weight), uniforms.u[k]);
            }
        }
    }
    const auto lead = [](GumbelRace mine) {  // of a warp
        for (int o = WARP / 2; o > 0; o /= 2) {
            const double score = __shfl_xor_sync(FULL_WARP, mine.score, o);
            const int id = __shfl_xor_sync(FULL_WARP, mine.id, o);
            if (score > mine.score || (score == mine.score && id < mine.id)) mine.score = score, mine.id = id;
        }
        return mine;
    };
    race = lead(race);
    if (lane == 0) leader_score[warp] = race.score, leader_id[warp] = race.id;
    __syncthreads();  // every warp's leader is written before anybody reads it
    const int from = lane < warps ? lane : 0;
    return lead({leader_score[from], leader_id[from]}).id;
}

// ---- over the chunks of a row, by its block ----
template <class F>
__device__ inline void for_each_part(const LogitRow& row, F f) {
    for (int c = int(threadIdx.x); c < row.chunks; c += int(blockDim.x)) f(row.part[c]);
}
template <class F>
__device__ inline float row_max(const LogitRow& row, F f) {
    float max = -INFINITY;
    for_each_part(row, [&](const ChunkPart& p) { max = fmaxf(max, f(p)); });
    return block_max(max);
}
__device__ inline RowSums row_sums(const LogitRow& row, LogitSums ChunkPart::*which, float top, float scale) {
    RowSums sums = {};
    for_each_part(row, [&](const ChunkPart& p) {
        const RowSums s = shifted(p.*which, top, scale);
        sums.sum += s.sum;
        sums.weighted += s.weighted;
    });
    return {block_sum(sums.sum), block_sum(sums.weighted)};
}

// A block per row.
__global__ void __launch_bounds__(MOST_THREADS, 2)
    sample_rows_kernel(Sampled* out, ChunkPart* parts, const SampleRow* rows, const float* logits,
                       int64_t stride, int V, int mask_id, int n_ids) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    const SampleRow& options = rows[blockIdx.x];  // read where needed: as a copy it takes registers
    const int chunks = (V + CHUNK - 1) / CHUNK;
    LogitRow row{.x = logits + int64_t(blockIdx.x) * stride,
                 .V = V,
                 .n_ids = n_ids,
                 .mask_id = mask_id,
                 .chunks = chunks,
                 .scale = scale_of(options),
                 .max_allowed = -INFINITY,
                 .part = parts + int64_t(blockIdx.x) * chunks};
    const float max_all = row_max(row, [](const ChunkPart& p) { return p.plain.max; });
    row.max_allowed = row_max(row, [](const ChunkPart& p) { return p.allowed.max; });
    const int best_chunk = -int(row_max(row, [&](const ChunkPart& p) {  // the first one
        return p.allowed.max == row.max_allowed ? -float(&p - row.part) : -float(chunks);
    }));
    const RowSums plain = row_sums(row, &ChunkPart::plain, max_all, 1);

    const bool greedy = options.temperature == 0, filtered = is_filtered(options);
    const Confidence confidence = greedy ? Confidence::Plain : options.confidence;
    RowSums sums = plain;  // of the distribution that confidence and entropy are read from
    if (confidence == Confidence::Tempered && row.scale != 1)
        sums = row_sums(row, &ChunkPart::tempered, max_all, row.scale);
    int token = NOBODY;
    bool one_left = false;
    if (!greedy) {
        RowSums left = row_sums(row, &ChunkPart::allowed, row.max_allowed, row.scale);
        Mass total = LogitRow::fixed(left.sum);
        Order last = 0;
        if (filtered) {
            const Filtered f = filter(row, options, total);
            last = f.last;
            total = f.kept.mass;
            left = {double(total) / double(MASS_ONE), -double(f.kept.weighted) / double(MASS_ONE) * LN_2};
            one_left = f.kept.count == 1;
        }
        if (confidence == Confidence::Filtered) sums = left;
        if (options.draw == Draw::Gumbel) {
            token = draw_gumbel(row, options, last);
        } else {
            if (!filtered) {
                total = 0;
                for_each_part(row, [&](ChunkPart& p) {
                    p.mass = LogitRow::fixed(shifted(p.allowed, row.max_allowed, row.scale).sum);
                    total += p.mass;
                });
                total = block_sum(total);
            }
            if (total > 0) token = draw_inverse(row, last, total, sample_uniform(options));
        }
    }
    if (token == NOBODY) token = likeliest(row, best_chunk);
    if (token == NOBODY) token = 0;  // not a number anywhere: whoever reads the log-probability will see it

    const float top = confidence == Confidence::Filtered ? row.max_allowed : max_all,
                scale = confidence == Confidence::Plain ? 1.0f : row.scale;
    const auto weight = [&](float x) { return exp((double(x) - double(top)) * double(scale)); };
    double sure = weight(row.x[token]);
    if (options.margin) {
        const float second = row_max(
            row, [&](const ChunkPart& p) { return &p == row.part + best_chunk ? p.second : p.allowed.max; });
        sure = weight(row.max_allowed);
        if (second > -INFINITY && !(confidence == Confidence::Filtered && one_left)) sure -= weight(second);
    }
    if (threadIdx.x == 0)
        out[blockIdx.x] = {.token = token,
                           .confidence = float(sure / sums.sum),
                           .logprob = float(double(row.x[token]) - double(max_all) - log(plain.sum)),
                           .entropy = float(log(sums.sum) - sums.weighted / sums.sum)};
}

// ---- launchers ----

void head_sample(const Context& ctx, Sampled* out, const SampleRow* rows, Tensor hidden, Tensor weight,
                 int mask_id, int n_ids) {
    const int N = int(hidden.rows), V = int(weight.rows);
    CHECK(V <= 1 << ID_BITS, "a vocabulary of %d ids", V);
    CHECK(n_ids > (mask_id == 0 ? 1 : 0), "no id may be drawn: n_ids %d, mask id %d", n_ids, mask_id);
    if (N == 0) return;
    const int chunks = chunks_of(V);
    const int64_t stride = logit_stride(V);
    const size_t row_bytes = size_t(stride) * sizeof(float) + size_t(chunks) * sizeof(ChunkPart),
                 left = ctx.workspace.left(), reserve = 33 << 20;
    const size_t available = left > 4 * reserve ? left - reserve : left * 3 / 4;
    const int tile = int(std::min<size_t>(size_t(N), available / row_bytes));
    if (tile == 0)
        fail(Exit::NoMemory, "a CUDA workspace of %zu bytes does not hold one row of %d logits", left, V);
    ChunkPart* parts = ctx.workspace.take<ChunkPart>(size_t(tile) * size_t(chunks));
    float* logits = ctx.workspace.take<float>(size_t(tile) * size_t(stride));
    for (int n = 0; n < N; n += tile) {
        const int part = std::min(tile, N - n);
        matmul(ctx, {.out = tensor(logits, part, stride).col_range(0, V),
                     .a = hidden.row_range(n, n + part),
                     .b = weight,
                     .b_transposed = true});
        launch_next(ctx, sample_chunks_kernel, ceil_div(int64_t(part) * chunks, CHUNK_WARPS),
                    CHUNK_WARPS * WARP, 0, parts, rows + n, static_cast<const float*>(logits), stride, part,
                    V, mask_id, std::min(n_ids, V));
        launch_next(ctx, sample_rows_kernel, unsigned(part), threads_for(ceil_div(V, 8), MOST_THREADS), 0,
                    out + n, parts, rows + n, static_cast<const float*>(logits), stride, V, mask_id,
                    std::min(n_ids, V));
    }
}

}  // namespace cuda

// sampling.cu -- see sampling.h. A block per row of logits, which stay in the cache while it goes over them
// several times.
//
// Nothing is sorted. Order is by logit descending, then id ascending; a filter keeps a beginning of that
// order, so it is a pair (key, id): ids whose key (the logit's bits, made monotone) is larger, and of equal
// keys those with an id below. Both are found eight bits at a time, by a histogram of the ids that agree in
// the bits found so far: of counts for top-k, of masses for top-p. Masses are exponentials in fixed point:
// sums of integers have the same bits in any order, so the histograms may use atomics. The draw finds the
// thread whose run of ids the number falls into, then the id.
#include <algorithm>
#include <climits>

#include "kernels/cuda_kernels.h"
#include "kernels/sampling.h"

namespace cuda {

constexpr int MOST_THREADS = 1024, DIGIT = 256;
constexpr int ID_BITS = 24;          // of a vocabulary; ids are exact in fp32
constexpr float MASS_ONE = 0x1p39f;  // the likeliest id's mass: sums of 2^24 of them fit in 64 bits
using Mass = unsigned long long;

// ---- kernels ----

struct Cut {  // keeps keys above `key`, and of equal ones the ids below `id`
    uint32_t key = 0;
    int id = INT_MAX;
    __device__ bool keeps(uint32_t k, int i) const { return k > key || (k == key && i < id); }
};

// Larger floats have larger keys. Both zeros are one number.
__device__ inline uint32_t key_of(float x) {
    const uint32_t u = __float_as_uint(x == 0.0f ? 0.0f : x);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

struct SamplerRow {
    const float* x;  // (V) logits
    int V, n_ids, mask_id;
    float max_allowed, temperature;

    __device__ bool allowed(int i) const { return i < n_ids && i != mask_id; }
    __device__ Mass mass(int i) const { return Mass(expf((x[i] - max_allowed) / temperature) * MASS_ONE); }
};

// The sum of f(i) over the row, in every thread.
template <class F>
__device__ inline auto row_sum(int V, F f) {
    decltype(f(0)) sum = 0;
    for (int i = int(threadIdx.x); i < V; i += int(blockDim.x)) sum += f(i);
    return block_sum(sum);
}

struct Selected {
    bool found;  // false: not even all of them weigh more than is wanted
    uint32_t key;
    Mass above;  // what weighs above the key
};
// Of the ids that are kept, the largest key such that those with this key or a larger one weigh more than
// `wanted`.
template <class Kept, class Key, class Weight>
__device__ inline Selected select(int V, int bits, Mass wanted, Kept kept, Key key, Weight weight) {
    __shared__ Mass histogram[DIGIT];
    __shared__ Selected shared;
    Selected now{true, 0, 0};
    for (int shift = bits - 8; shift >= 0; shift -= 8) {
        for (int d = int(threadIdx.x); d < DIGIT; d += int(blockDim.x)) histogram[d] = 0;
        __syncthreads();  // the histogram is empty before anybody adds to it
        for (int i = int(threadIdx.x); i < V; i += int(blockDim.x)) {
            const uint32_t k = key(i);
            // agrees in the digits above this one
            if (kept(i) && (uint64_t(k) >> (shift + 8)) == (uint64_t(now.key) >> (shift + 8)))
                atomicAdd(&histogram[k >> shift & (DIGIT - 1)], weight(i));
        }
        __syncthreads();  // the histogram is whole before it is read
        if (threadIdx.x == 0) {
            int digit = DIGIT - 1;
            while (digit >= 0 && now.above + histogram[digit] <= wanted) now.above += histogram[digit--];
            now.found = now.found && digit >= 0;
            now.key |= uint32_t(digit < 0 ? 0 : digit) << shift;
            shared = now;
        }
        __syncthreads();  // the digit is written before everybody takes it
        now = shared;
        __syncthreads();  // and taken before the next one overwrites it
    }
    return now;
}

// Keeps the first `count` of the kept ids with this key.
template <class Kept>
__device__ inline Cut cut_ties(const SamplerRow& row, uint32_t key, Mass count, Kept kept) {
    constexpr uint32_t LAST = (1u << ID_BITS) - 1;  // lower ids have larger keys here
    const Selected last = select(
        row.V, ID_BITS, count - 1, [&](int i) { return kept(i) && key_of(row.x[i]) == key; },
        [&](int i) { return LAST - uint32_t(i); }, [](int) { return Mass(1); });
    return {key, last.found ? int(LAST - last.key) + 1 : INT_MAX};
}

// The largest logit of the kept ids, the lowest id on ties; -1 where there is none.
template <class Kept>
__device__ inline int likeliest(const SamplerRow& row, Kept kept) {
    float max = -INFINITY, lowest = float(-INT_MAX);  // the id, as its negative
    for (int i = int(threadIdx.x); i < row.V; i += int(blockDim.x))
        if (kept(i)) max = fmaxf(max, row.x[i]);
    max = block_max(max);
    for (int i = row.V - 1 - int(threadIdx.x); i >= 0; i -= int(blockDim.x))
        if (kept(i) && row.x[i] == max) lowest = float(-i);
    lowest = block_max(lowest);
    return lowest == float(-INT_MAX) ? -1 : int(-lowest);
}

// Keeps the largest allowed logit of the lowest id.
__device__ inline Cut argmax_cut(const SamplerRow& row) {
    return {key_of(row.max_allowed), likeliest(row, [&](int i) { return row.allowed(i); }) + 1};
}

__device__ inline Cut top_k_cut(const SamplerRow& row, int k) {
    const auto kept = [&](int i) { return row.allowed(i); };
    const Selected at = select(
        row.V, 32, Mass(k - 1), kept, [&](int i) { return key_of(row.x[i]); }, [](int) { return Mass(1); });
    return at.found ? cut_ties(row, at.key, Mass(k) - at.above, kept) : Cut{};
}

// Keeps an id while the mass before it is at most top_p of all.
__device__ inline Cut top_p_cut(const SamplerRow& row, float top_p, const Cut& top_k) {
    const auto kept = [&](int i) { return row.allowed(i) && top_k.keeps(key_of(row.x[i]), i); };
    const auto mass = [&](int i) { return kept(i) ? row.mass(i) : Mass(0); };
    const Mass most = Mass(double(top_p) * double(row_sum(row.V, mass)));
    const Selected at = select(
        row.V, 32, most, kept, [&](int i) { return key_of(row.x[i]); }, mass);
    if (!at.found) return Cut{};
    // equal logits have equal masses: number j of them has above + j mass before it
    const Mass ties =
        row_sum(row.V, [&](int i) { return Mass(kept(i) && key_of(row.x[i]) == at.key ? 1 : 0); });
    const Mass of_all = row_sum(row.V, [&](int i) { return key_of(row.x[i]) == at.key ? mass(i) : Mass(0); });
    return cut_ties(row, at.key, (most - at.above) / (of_all / ties) + 1, kept);
}

// Inverse of the cumulative distribution over ids in ascending order: the first id at which it exceeds
// `point`, which is below its sum.
template <class F>
__device__ inline int draw(int V, Mass point, F mass) {
    __shared__ Mass run_mass[MOST_THREADS];
    __shared__ int drawn;
    const int run = (V + int(blockDim.x) - 1) / int(blockDim.x), begin = int(threadIdx.x) * run,
              end = min(V, begin + run);
    Mass sum = 0;
    for (int i = begin; i < end; i++) sum += mass(i);
    run_mass[threadIdx.x] = sum;
    __syncthreads();  // every run's mass is written before thread 0 walks over them
    if (threadIdx.x == 0) {
        int t = 0;
        Mass before = 0;
        while (t + 1 < int(blockDim.x) && before + run_mass[t] <= point) before += run_mass[t++];
        int id = t * run;
        while (id + 1 < V && (before += mass(id)) <= point) id++;
        drawn = id;
    }
    __syncthreads();  // the id is written before everybody reads it
    return drawn;
}

// The id that wins the race of the kept ones, by exp((x - largest) / temperature); that of the largest is kept.
template <class Kept>
__device__ inline int draw_gumbel(const SamplerRow& row, const SampleRow& options, Kept kept) {
    __shared__ double leader_score[WARP];
    __shared__ int leader_id[WARP];
    GumbelRace race;
    for (int pair = int(threadIdx.x); 2 * pair < row.V; pair += int(blockDim.x)) {
        const GumbelPair uniforms = gumbel_uniforms(options, pair);
        for (int k = 0; k < 2; k++) {
            const int i = 2 * pair + k;
            if (i >= row.V || !kept(i)) continue;
            const float weight = expf((row.x[i] - row.max_allowed) / row.temperature);
            if (weight > 0) race.enter(i, double(weight), uniforms.u[k]);
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
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    race = lead(race);
    if (lane == 0) leader_score[warp] = race.score, leader_id[warp] = race.id;
    __syncthreads();  // every warp's leader is written before anybody reads it
    const int from = lane < int(blockDim.x) / WARP ? lane : 0;
    return max(lead({leader_score[from], leader_id[from]}).id, 0);
}

// Confidence and entropy of the distribution proportional to mass(i) = exp(logarithm(i)): p(token), less that of another id
// where there is one, and log Z - sum m log m / Z.
template <class F>
__device__ inline void distribution_statistics(Sampled& out, int V, int token, int other, F logarithm) {
    const double z = row_sum(V, [&](int i) { return double(expf(logarithm(i))); });
    const double weighted = row_sum(V, [&](int i) {
        const float l = logarithm(i), e = expf(l);
        return e > 0 ? double(e) * double(l) : 0.0;
    });
    const double less = other < 0 ? 0 : double(expf(logarithm(other)));
    out.confidence = float((double(expf(logarithm(token))) - less) / z);
    out.entropy = float(log(z) - weighted / z);
}

// One block on a multiprocessor is promised: without it the compiler keeps to 32 registers for two, and spills.
__global__ void __launch_bounds__(MOST_THREADS, 1)
    sample_kernel(Sampled* out, const SampleRow* rows, const float* logits, int V, int mask_id, int n_ids) {
    const SampleRow& options =
        rows[blockIdx.x];  // read where needed: as a copy it takes registers that spill
    const bool greedy = options.temperature == 0;
    SamplerRow row{logits + int64_t(blockIdx.x) * V,   V, n_ids < V ? n_ids : V, mask_id, -INFINITY,
                   greedy ? 1.0f : options.temperature};
    float max_all = -INFINITY, max_allowed = -INFINITY;
    for (int i = int(threadIdx.x); i < V; i += int(blockDim.x)) {
        max_all = fmaxf(max_all, row.x[i]);
        if (row.allowed(i)) max_allowed = fmaxf(max_allowed, row.x[i]);
    }
    max_all = block_max(max_all);
    row.max_allowed = block_max(max_allowed);

    Cut top_k, top_p;
    if (greedy) {
        top_k = argmax_cut(row);
    } else if (options.top_k > 0) {
        top_k = top_k_cut(row, options.top_k);
    }
    if (!greedy && options.top_p < 1) top_p = top_p_cut(row, options.top_p, top_k);
    const auto kept = [&](int i) {
        const uint32_t key = key_of(row.x[i]);
        return row.allowed(i) && top_k.keeps(key, i) && top_p.keeps(key, i);
    };
    const auto mass = [&](int i) { return kept(i) ? row.mass(i) : Mass(0); };
    int token = 0;
    if (!greedy && options.draw == Draw::Gumbel) {
        token = draw_gumbel(row, options, kept);
    } else {
        const Mass total = row_sum(V, mass), point = Mass(sample_uniform(options) * double(total));
        token = draw(V, point < total ? point : total - 1, mass);
    }

    Sampled result{token, 0, 0, 0};
    const double plain = row_sum(V, [&](int i) { return double(expf(row.x[i] - max_all)); });
    result.logprob = float(double(row.x[token] - max_all) - log(plain));
    const bool filtered = !greedy && options.confidence == Confidence::Filtered;
    int sure = token, other = -1;  // what the confidence is the probability of, and less that of which
    if (options.margin) {
        const auto rival = [&](int i) { return i != other && (filtered ? kept(i) : row.allowed(i)); };
        sure = other = likeliest(row, rival);
        other = likeliest(row, rival);
    }
    if (filtered)
        distribution_statistics(result, V, sure, other, [&](int i) {
            return kept(i) ? (row.x[i] - row.max_allowed) / row.temperature : -INFINITY;
        });
    else if (!greedy && options.confidence == Confidence::Tempered)
        distribution_statistics(result, V, sure, other,
                                [&](int i) { return (row.x[i] - max_all) / row.temperature; });
    else
        distribution_statistics(result, V, sure, other, [&](int i) { return row.x[i] - max_all; });
    if (threadIdx.x == 0) out[blockIdx.x] = result;
}

// ---- launchers ----

void head_sample(const Context& ctx, Sampled* out, const SampleRow* rows, Tensor hidden, Tensor weight,
                 int mask_id, int n_ids) {
    const int N = int(hidden.rows), V = int(weight.rows);
    CHECK(V <= 1 << ID_BITS, "a vocabulary of %d ids", V);
    CHECK(n_ids > (mask_id == 0 ? 1 : 0), "no id may be drawn: n_ids %d, mask id %d", n_ids, mask_id);
    if (N == 0) return;
    const size_t row_bytes = size_t(V) * sizeof(float), left = ctx.workspace.left(), reserve = 33 << 20;
    const size_t available = left > 4 * reserve ? left - reserve : left * 3 / 4;
    const int tile = int(std::min<size_t>(size_t(N), available / row_bytes));
    if (tile == 0)
        fail(Exit::NoMemory, "a CUDA workspace of %zu bytes does not hold one row of %d logits", left, V);
    float* logits = ctx.workspace.take<float>(size_t(tile) * size_t(V));
    for (int n = 0; n < N; n += tile) {
        const int part = std::min(tile, N - n);
        matmul(ctx, {.out = tensor(logits, part, V),
                     .a = hidden.row_range(n, n + part),
                     .b = weight,
                     .b_transposed = true});
        launch(sample_kernel, unsigned(part), threads_for(V, MOST_THREADS), 0, ctx.stream, out + n, rows + n,
               static_cast<const float*>(logits), V, mask_id, n_ids);
    }
}

}  // namespace cuda

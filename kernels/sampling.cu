// sampling.cu -- see sampling.h. A block per row of logits, which stay in the cache while it goes over them
// again and again.
//
// Nothing is sorted. Order is by logit descending, then id ascending; a filter keeps a beginning of that
// order, so it is a pair (key, id): ids whose key (the logit's bits, made monotone) is larger, and of equal
// keys those with an id below. top-k and top-p find the pair bit by bit, a pass over the row for each bit: by
// counting for top-k, by mass for top-p. Masses are sums of fp32 exponentials in double, in a fixed order.
// The draw finds the thread whose run of ids the number falls into, then the id.
#include <algorithm>
#include <climits>

#include "kernels/cuda_kernels.h"
#include "kernels/sampling.h"

namespace cuda {

constexpr int MOST_THREADS = 1024;

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
    __device__ float mass(int i) const { return expf((x[i] - max_allowed) / temperature); }
};

// The sum of f(i) over the row, in every thread.
template <class F>
__device__ inline double row_sum(int V, F f) {
    double sum = 0;
    for (int i = int(threadIdx.x); i < V; i += int(blockDim.x)) sum += f(i);
    return block_sum(sum);
}

// The largest number of `bits` bits for which the non-increasing function f is still above (or at, if
// reached(f)) what is wanted.
template <class F>
__device__ inline uint32_t largest(int bits, F holds) {
    uint32_t value = 0;
    for (int b = bits - 1; b >= 0; b--)
        if (holds(value | 1u << b)) value |= 1u << b;
    return value;
}

// The cut after the first `count` ids (counted among equal keys only) of key `key`.
template <class Kept>
__device__ inline int tie_cut(const SamplerRow& row, uint32_t key, double count, Kept kept) {
    // the largest id below which at most `count` ids have that key; past the last of them every larger bound
    // holds too
    return int(largest(30, [&](uint32_t id) {
        return row_sum(row.V, [&](int i) {
                   return i < int(id) && kept(i) && key_of(row.x[i]) == key ? 1.0 : 0.0;
               }) <= count;
    }));
}

// Keeps the largest allowed logit of the lowest id.
__device__ inline Cut argmax_cut(const SamplerRow& row) {
    float lowest = float(-INT_MAX);  // as its negative; ids are exact in fp32 up to 2^24
    for (int i = row.V - 1 - int(threadIdx.x); i >= 0; i -= int(blockDim.x))
        if (row.allowed(i) && row.x[i] == row.max_allowed) lowest = float(-i);
    return {key_of(row.max_allowed), int(-block_max(lowest)) + 1};
}

__device__ inline Cut top_k_cut(const SamplerRow& row, int k) {
    const auto kept = [&](int i) { return row.allowed(i); };
    Cut cut;
    cut.key = largest(32, [&](uint32_t key) {
        return row_sum(row.V, [&](int i) { return kept(i) && key_of(row.x[i]) >= key ? 1.0 : 0.0; }) >=
               double(k);
    });
    const double above =
        row_sum(row.V, [&](int i) { return kept(i) && key_of(row.x[i]) > cut.key ? 1.0 : 0.0; });
    cut.id = tie_cut(row, cut.key, double(k) - above, kept);
    return cut;
}

// Keeps an id while the mass before it is at most top_p of all.
__device__ inline Cut top_p_cut(const SamplerRow& row, float top_p, const Cut& top_k) {
    const auto kept = [&](int i) { return row.allowed(i) && top_k.keeps(key_of(row.x[i]), i); };
    const double most =
        double(top_p) * row_sum(row.V, [&](int i) { return kept(i) ? double(row.mass(i)) : 0.0; });
    Cut cut;
    cut.key = largest(32, [&](uint32_t key) {
        return row_sum(row.V, [&](int i) {
                   return kept(i) && key_of(row.x[i]) >= key ? double(row.mass(i)) : 0.0;
               }) > most;
    });
    if (cut.key == 0) return Cut{};  // nothing crosses: all are kept
    const double above = row_sum(
        row.V, [&](int i) { return kept(i) && key_of(row.x[i]) > cut.key ? double(row.mass(i)) : 0.0; });
    const double ties =
        row_sum(row.V, [&](int i) { return kept(i) && key_of(row.x[i]) == cut.key ? 1.0 : 0.0; });
    const double mass = row_sum(
        row.V, [&](int i) { return kept(i) && key_of(row.x[i]) == cut.key ? double(row.mass(i)) : 0.0; });
    // of equal logits, number j has above + j mass / ties before it
    const double wanted = mass > 0 ? floor((most - above) / (mass / ties)) + 1.0 : ties;
    cut.id = tie_cut(row, cut.key, wanted, kept);
    return cut;
}

// Inverse of the cumulative distribution of f over ids in ascending order: the first id at which it exceeds
// `point`, the last id with mass if rounding leaves none.
template <class F>
__device__ inline int draw(int V, double point, F f) {
    __shared__ double run_mass[MOST_THREADS];
    __shared__ int drawn;
    const int run = (V + int(blockDim.x) - 1) / int(blockDim.x), begin = int(threadIdx.x) * run,
              end = min(V, begin + run);
    double mass = 0;
    for (int i = begin; i < end; i++) mass += f(i);
    run_mass[threadIdx.x] = mass;
    __syncthreads();  // every run's mass is written before thread 0 walks over them
    if (threadIdx.x == 0) {
        int last = 0;  // the last run with mass that begins at or before the point
        double before = 0, sum = 0;
        for (int t = 0; t < int(blockDim.x); t++) {
            if (run_mass[t] > 0) last = t, before = sum;
            if ((sum += run_mass[t]) > point) break;
        }
        int id = -1;
        for (int i = last * run; i < min(V, (last + 1) * run); i++) {
            const double m = f(i);
            if (m == 0) continue;
            id = i;
            if ((before += m) > point) break;
        }
        drawn = id;
    }
    __syncthreads();  // the id is written before everybody reads it
    const int id = drawn;
    __syncthreads();  // and read before a next draw overwrites it
    return id;
}

// Confidence and entropy of the distribution proportional to mass(i) = exp(logarithm(i)): p(token), and log Z
// - sum m log m / Z.
template <class F>
__device__ inline void distribution_statistics(Sampled& out, int V, int token, F logarithm) {
    const double z = row_sum(V, [&](int i) { return double(expf(logarithm(i))); });
    const double weighted = row_sum(V, [&](int i) {
        const float l = logarithm(i), e = expf(l);
        return e > 0 ? double(e) * double(l) : 0.0;
    });
    out.confidence = float(double(expf(logarithm(token))) / z);
    out.entropy = float(log(z) - weighted / z);
}

__global__ void sample_kernel(Sampled* out, const SampleRow* rows, const float* logits, int V, int mask_id,
                              int n_ids) {
    const SampleRow options = rows[blockIdx.x];
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
    const auto mass = [&](int i) { return kept(i) ? double(row.mass(i)) : 0.0; };
    const double total = row_sum(V, mass);
    const int token = draw(V, sample_uniform(options) * total, mass);

    Sampled result{token, 0, 0, 0};
    const double plain = row_sum(V, [&](int i) { return double(expf(row.x[i] - max_all)); });
    result.logprob = float(double(row.x[token] - max_all) - log(plain));
    if (greedy || options.confidence == Confidence::Plain)
        distribution_statistics(result, V, token, [&](int i) { return row.x[i] - max_all; });
    else if (options.confidence == Confidence::Tempered)
        distribution_statistics(result, V, token,
                                [&](int i) { return (row.x[i] - max_all) / row.temperature; });
    else
        distribution_statistics(result, V, token, [&](int i) {
            return kept(i) ? (row.x[i] - row.max_allowed) / row.temperature : -INFINITY;
        });
    if (threadIdx.x == 0) out[blockIdx.x] = result;
}

// ---- launchers ----

void head_sample(const Context& ctx, Sampled* out, const SampleRow* rows, Tensor hidden, Tensor weight,
                 int mask_id, int n_ids) {
    const int N = int(hidden.rows), V = int(weight.rows);
    CHECK(V <= 1 << 24, "a vocabulary of %d ids", V);
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

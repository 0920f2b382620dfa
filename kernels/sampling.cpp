#include "kernels/sampling.h"

#include <functional>

#include "kernels/lm_head.h"
#include "kernels/matmul.h"
#include "kernels/packed_weight.h"
#include "kernels/parallel.h"

namespace cpu {
namespace {

constexpr float BANNED = -1e30f;  // finite, so that a weight of 0 times it is 0

bool before(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

int argmax(const Simd& simd, const float* logits, int n) {
    const float max = simd.max(logits, n);
    for (int i = 0; i < n; i++)
        if (logits[i] == max) return i;
    return 0;  // not a number anywhere: whoever reads the log-probability will see it
}

// Of all but the first one that is `max`; below everything where there is none.
float second_largest(const Simd& simd, const float* logits, int n, float max) {
    const int at = int(std::find(logits, logits + n, max) - logits);
    float second = BANNED;
    if (at > 0) second = std::max(second, simd.max(logits, at));
    if (at + 1 < n) second = std::max(second, simd.max(logits + at + 1, n - at - 1));
    return second;
}

void weigh(std::vector<Candidate>& candidates, float max, float temperature) {
    for (Candidate& c : candidates)
        c.weight = std::exp((double(c.logit) - double(max)) / double(temperature));
}

void collect_from(std::vector<Candidate>& out, const float* logits, int n, float threshold) {
    out.clear();
    for (int i = 0; i < n; i++)
        if (logits[i] >= threshold && logits[i] > BANNED) out.push_back({i, logits[i], 0});
}

// The k largest, in order. At least k logits reach the k-th largest of the chunks' maxima, so only what
// reaches it is sorted: a few hundred of a large vocabulary.
void keep_top_k(RowScratch& s, const Simd& simd, const float* logits, int n, int k) {
    constexpr int CHUNK = 64;
    s.chunks.clear();
    for (int i = 0; i < n; i += CHUNK) s.chunks.push_back(simd.max(logits + i, std::min(CHUNK, n - i)));
    float threshold = BANNED;
    if (size_t(k) <= s.chunks.size()) {
        std::nth_element(s.chunks.begin(), s.chunks.begin() + (k - 1), s.chunks.end(), std::greater<float>());
        threshold = s.chunks[size_t(k - 1)];
    }
    collect_from(s.candidates, logits, n, threshold);
    const size_t keep = std::min(size_t(k), s.candidates.size());
    std::partial_sort(s.candidates.begin(), s.candidates.begin() + int64_t(keep), s.candidates.end(), before);
    s.candidates.resize(keep);
}

// Enough of the largest to hold more than top_p of `total`, in order: the threshold falls until they do.
void keep_for_top_p(std::vector<Candidate>& candidates, const float* logits, int n, float max, double total,
                    const SampleRow& row) {
    for (float drop = 4;; drop *= 2) {  // in units of the temperature: the smallest weight kept is e^-drop
        const bool everything = drop > 100;
        collect_from(candidates, logits, n, everything ? BANNED : max - drop * row.temperature);
        weigh(candidates, max, row.temperature);
        double sum = 0;
        for (const Candidate& c : candidates) sum += c.weight;
        if (everything || sum > double(row.top_p) * total) break;
    }
    std::sort(candidates.begin(), candidates.end(), before);
}

// Cuts the ordered candidates behind the one that crosses top_p of `total`.
void cut_top_p(std::vector<Candidate>& candidates, double total, float top_p) {
    double sum = 0;
    size_t keep = 0;
    while (keep < candidates.size() && !(sum > double(top_p) * total)) sum += candidates[keep++].weight;
    candidates.resize(keep);
}

struct Drawn {
    int token;
    double probability, margin, entropy;  // of the filtered distribution
};

Drawn draw_candidate(std::vector<Candidate>& candidates, const SampleRow& row) {
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
    double total = 0, entropy = 0, first = 0, second = 0;
    for (const Candidate& c : candidates) total += c.weight;
    double left = sample_uniform(row) * total;
    GumbelRace race;
    Drawn drawn = {};
    for (const Candidate& c : candidates) {
        if (c.weight == 0) continue;
        const double p = c.weight / total;
        entropy -= p * std::log(p);
        second = std::max(second, std::min(first, p));
        first = std::max(first, p);
        if (row.draw == Draw::Gumbel) {
            race.enter(c.id, p, gumbel_uniforms(row, c.id / 2).u[c.id % 2]);
            if (race.id == c.id) drawn = {c.id, p, 0, 0};
        } else if (left >= 0) {
            drawn = {c.id, p, 0, 0};  // rounding may leave a little at the end: the last id takes it
        }
        left -= c.weight;
    }
    drawn.margin = first - second;
    drawn.entropy = entropy;
    return drawn;
}

// From everything that is not banned: first a chunk, then the id in it.
int draw_unfiltered(RowScratch& s, const Simd& simd, const float* logits, int n, float max, float temperature,
                    double u) {
    constexpr int CHUNK = 256;
    float weight[CHUNK];
    const auto fill = [&](int begin) {
        return simd.exp(weight, logits + begin, max, 1 / temperature, std::min(CHUNK, n - begin));
    };
    s.chunks.clear();
    double total = 0;
    for (int i = 0; i < n; i += CHUNK) total += double(s.chunks.emplace_back(fill(i)));
    double left = u * total;
    int chunk = 0, last = 0;  // of positive weight
    for (int c = 0; c < int(s.chunks.size()); c++) {
        if (s.chunks[size_t(c)] == 0) continue;
        last = c;
        if (left < double(s.chunks[size_t(c)])) break;
        left -= double(s.chunks[size_t(c)]);
    }
    chunk = last;
    fill(chunk * CHUNK);
    int token = 0;
    for (int i = 0; i < std::min(CHUNK, n - chunk * CHUNK); i++) {
        if (weight[i] == 0) continue;
        token = chunk * CHUNK + i;
        if ((left -= double(weight[i])) < 0) break;
    }
    return token;
}

// The same by Gumbel's maximum: one pass, a number for every id.
int draw_gumbel(const Simd& simd, const float* logits, int n, float max, const SampleRow& row) {
    constexpr int CHUNK = 256;
    float weight[CHUNK];
    GumbelRace race;
    for (int begin = 0; begin < n; begin += CHUNK) {
        const int count = std::min(CHUNK, n - begin);
        simd.exp(weight, logits + begin, max, 1 / row.temperature, count);
        for (int i = 0; i < count; i += 2) {
            const GumbelPair pair = gumbel_uniforms(row, (begin + i) / 2);
            for (int k = i; k < std::min(i + 2, count); k++)
                if (weight[k] > 0) race.enter(begin + k, double(weight[k]), pair.u[k - i]);
        }
    }
    return std::max(race.id, 0);  // not a number anywhere: whoever reads the log-probability will see it
}

// The candidates that top-k and top-p leave, weighed; at least one of the two is on.
void filter(RowScratch& s, const Simd& simd, const float* logits, int n, float max, const SampleRow& row,
            bool top_k, bool top_p) {
    double total = 0;
    if (top_k) {
        keep_top_k(s, simd, logits, n, row.top_k);
        weigh(s.candidates, max, row.temperature);
        for (const Candidate& c : s.candidates) total += c.weight;
    } else {
        total = double(softmax_sum(simd, logits, 1 / row.temperature, n).sum);
        keep_for_top_p(s.candidates, logits, n, max, total, row);
    }
    if (top_p) cut_top_p(s.candidates, total, row.top_p);
}

// logits (V) of one row; that of mask_id is overwritten.
Sampled sample(RowScratch& s, const Simd& simd, float* logits, int V, const SampleRow& row, int mask_id,
               int n_ids) {
    const int n = std::min(n_ids, V);
    const bool greedy = row.temperature == 0;
    const Confidence confidence = greedy ? Confidence::Plain : row.confidence;
    const SoftmaxSum plain = softmax_sum(simd, logits, 1, V);
    const float scale = greedy ? 1 : 1 / row.temperature;
    SoftmaxSum from =
        confidence == Confidence::Tempered && scale != 1 ? softmax_sum(simd, logits, scale, V) : plain;
    if (mask_id >= 0 && mask_id < n) logits[mask_id] = BANNED;
    const float max = simd.max(logits, n);
    const bool top_k = row.top_k > 0 && row.top_k < n, top_p = row.top_p < 1;
    Drawn draw = {};
    if (greedy) {
        draw.token = argmax(simd, logits, n);
    } else if (top_k || top_p) {
        filter(s, simd, logits, n, max, row, top_k, top_p);
        draw = draw_candidate(s.candidates, row);
    } else {
        draw.token = row.draw == Draw::Gumbel
                         ? draw_gumbel(simd, logits, n, max, row)
                         : draw_unfiltered(s, simd, logits, n, max, row.temperature, sample_uniform(row));
        if (confidence == Confidence::Filtered) from = softmax_sum(simd, logits, scale, n);
    }
    const float logit = logits[draw.token];
    Sampled out = {draw.token, 0, logit - plain.log_sum(1), 0};
    if (confidence == Confidence::Filtered && (top_k || top_p)) {
        out.confidence = float(row.margin ? draw.margin : draw.probability);
        out.entropy = float(draw.entropy);
    } else {
        const float by = confidence == Confidence::Plain ? 1 : scale;
        const auto probability = [&](float x) { return std::exp((x - from.max) * by) / from.sum; };
        out.confidence = row.margin ? probability(max) - probability(second_largest(simd, logits, n, max))
                                    : probability(logit);
        out.entropy = from.entropy();
    }
    return out;
}

// Whole rows of logits, as many at a time as LOGITS floats hold (at least four), in tiles of ROWS by a chunk
// of the vocabulary.
template <class W>
void sample_rows(Context& context, std::span<Sampled> out, std::span<const SampleRow> rows, Tensor hidden,
                 Tensor weight, int mask_id, int n_ids) {
    constexpr int ROWS = 48, LOGITS = 1 << 22;
    const Simd& simd = context.simd;
    const int N = int(hidden.rows), C = int(hidden.cols), V = int(weight.rows),
              chunks = (V + HEAD_CHUNK - 1) / HEAD_CHUNK;
    const Rows<const float> x = rows_of<const float>(hidden);
    const Rows<const W> w = rows_of<const W>(weight);
    const int height = std::min(N, std::max(4, LOGITS / V));
    float* logits = context.floats(size_t(height) * size_t(V));
    if (int(context.row_scratch.size()) < max_threads()) context.row_scratch.resize(size_t(max_threads()));
    for (int n0 = 0; n0 < N; n0 += height) {
        const int count = std::min(height, N - n0), blocks = (count + ROWS - 1) / ROWS;
        parallel_for(int64_t(chunks) * blocks, int64_t(std::min(ROWS, count)) * HEAD_CHUNK * C / 16,
                     [&](int64_t item) {
                         const int v = int(item / blocks) * HEAD_CHUNK, m = int(item % blocks) * ROWS;
                         const int M = std::min(ROWS, count - m), width = std::min(HEAD_CHUNK, V - v);
                         float* tile = logits + size_t(m) * size_t(V) + v;
                         if (weight.packed)
                             packed_block(simd, tile, V, x[n0 + m], x.stride, weight, v, M, width);
                         else
                             matmul_block(simd, tile, V, x[n0 + m], x.stride, w[v], w.stride, M, width, C);
                     });
        parallel_for(count, V, [&](int64_t i) {
            out[size_t(n0 + i)] =
                sample(context.row_scratch[size_t(thread_index())], simd, logits + size_t(i) * size_t(V), V,
                       rows[size_t(n0 + i)], mask_id, n_ids);
        });
    }
}

}  // namespace

void head_sample(Context& context, std::span<Sampled> out, std::span<const SampleRow> rows, Tensor hidden,
                 Tensor weight, int mask_id, int n_ids) {
    CHECK(int64_t(rows.size()) == hidden.rows && out.size() == rows.size(),
          "%zu rows to sample, %lld hidden states", rows.size(), (long long)hidden.rows);
    CHECK(n_ids > (mask_id == 0 ? 1 : 0), "no id may be drawn: n_ids %d, mask id %d", n_ids, mask_id);
    if (weight.dtype == DType::BF16)
        sample_rows<Bf16>(context, out, rows, hidden, weight, mask_id, n_ids);
    else
        sample_rows<float>(context, out, rows, hidden, weight, mask_id, n_ids);
}

}  // namespace cpu

// sampling.h -- one candidate id per row of logits.
//
// In this order: temperature, ban (mask_id and ids from n_ids on), top-k, top-p, draw. Confidence, entropy and
// log-probability are those of softmaxes over the whole vocabulary, banned ids included, except Confidence::Filtered.
//
//   temperature 0   argmax of the logits, lowest id on ties; confidence and entropy of softmax(logits)
//   top-k           exactly k ids, by logit descending, then id ascending
//   top-p           of the softmax over what is left, in that order: the shortest prefix whose probability exceeds p,
//                   so the id that crosses p is kept
//   draw            inverse of the cumulative distribution over the kept ids in ascending order, at a Philox number;
//                   or the id of the largest p / -log u, a Philox number u for each (Gumbel's maximum, in the
//                   form of a race of exponential times), lowest id on ties
//
// head_sample() computes a few rows of logits at a time, then handles every row on its own.
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/ops.h"
#include "kernels/view.h"
#include "utils/philox.h"

// Uniform in [0, 1) with 53 bits: a vocabulary holds probabilities far below the 2^-24 of a float draw.
constexpr double sample_uniform(const SampleRow& row) {
    const auto bits = philox(row.seed, {row.position, row.step, uint32_t(Stream::Sample), row.sequence});
    return uniform(bits[0], bits[1]);
}

// For Draw::Gumbel: two words, the higher first, for the u of id 2 pair, two for that of 2 pair + 1.
constexpr std::array<uint32_t, 4> gumbel_bits(const SampleRow& row, int pair) {
    const uint32_t numbered = uint32_t(pair + 1) << 8;  // 24 bits for pairs; 0 is sample_uniform's
    const uint32_t stream = uint32_t(Stream::Sample) | numbered;
    return philox(row.seed, {row.position, row.step, stream, row.sequence});
}
struct GumbelPair {
    double u[2];
};
constexpr GumbelPair gumbel_uniforms(const SampleRow& row, int pair) {
    const auto bits = gumbel_bits(row, pair);
    return {{uniform(bits[0], bits[1]), uniform(bits[2], bits[3])}};
}

// Who is ahead. Weights are probabilities up to a common factor; ids enter in ascending order.
struct GumbelRace {
    double score = -1;
    int id = -1;
    constexpr void enter(int i, double weight, double u) {
        if (!(weight > score * (1 - u))) return;  // -log u >= 1 - u: most need no logarithm
        const double its = weight / -std::log(u);
        if (its > score) score = its, id = i;
    }
};

namespace ref {

// softmax(logits / temperature) over the whole row
inline std::vector<double> softmax(std::span<const float> logits, double temperature) {
    const double max = *std::max_element(logits.begin(), logits.end());
    std::vector<double> p(logits.size());
    for (size_t i = 0; i < p.size(); i++) p[i] = std::exp((double(logits[i]) - max) / temperature);
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
    return p;
}

inline double entropy(const std::vector<double>& p) {
    double sum = 0;
    for (double x : p) sum -= x > 0 ? x * std::log(x) : 0;
    return sum;
}

// What is drawn from: zero for every id that is banned or filtered out, sums to 1.
inline std::vector<double> filtered_distribution(std::span<const float> logits, const SampleRow& row,
                                                 int mask_id, int n_ids) {
    std::vector<int> order;
    for (int i = 0; i < std::min(n_ids, int(logits.size())); i++)
        if (i != mask_id) order.push_back(i);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return logits[size_t(a)] > logits[size_t(b)]; });
    if (row.top_k > 0 && size_t(row.top_k) < order.size()) order.resize(size_t(row.top_k));
    if (row.temperature == 0) order.resize(1);
    const double temperature = row.temperature == 0 ? 1 : row.temperature;
    std::vector<double> p(logits.size(), 0.0);
    const double max = logits[size_t(order[0])];
    double sum = 0, before = 0;
    for (int i : order) sum += std::exp((double(logits[size_t(i)]) - max) / temperature);
    for (int i : order) {
        if (before > double(row.top_p) * sum && row.top_p < 1) break;
        p[size_t(i)] = std::exp((double(logits[size_t(i)]) - max) / temperature);
        before += p[size_t(i)];
    }
    for (double& x : p) x /= before;
    return p;
}

// Difference of the two largest of ids that are not banned.
inline double margin(const std::vector<double>& p, int mask_id, int n_ids) {
    double first = 0, second = 0;
    for (int i = 0; i < std::min(n_ids, int(p.size())); i++) {
        if (i == mask_id) continue;
        second = std::max(second, std::min(first, p[size_t(i)]));
        first = std::max(first, p[size_t(i)]);
    }
    return first - second;
}

inline Sampled sample(std::span<const float> logits, const SampleRow& row, int mask_id, int n_ids) {
    const std::vector<double> plain = softmax(logits, 1),
                              kept = filtered_distribution(logits, row, mask_id, n_ids);
    double left = sample_uniform(row), best = -1;
    size_t token = 0;
    for (size_t i = 0; i < kept.size(); i++) {
        if (kept[i] == 0) continue;
        if (row.draw == Draw::Gumbel) {
            const double score = kept[i] / -std::log(gumbel_uniforms(row, int(i) / 2).u[i % 2]);
            if (score > best) best = score, token = i;
            continue;
        }
        token = i;  // rounding may leave a little at the end: the last kept id takes it
        if ((left -= kept[i]) < 0) break;
    }
    const bool use_plain = row.temperature == 0 || row.confidence == Confidence::Plain;
    const std::vector<double> p = use_plain                                ? plain
                                  : row.confidence == Confidence::Filtered ? kept
                                                                           : softmax(logits, row.temperature);
    const double confidence = row.margin ? margin(p, mask_id, n_ids) : p[token];
    return {int(token), float(confidence), float(std::log(plain[token])), float(entropy(p))};
}

}  // namespace ref

namespace cpu {
void head_sample(Context& context, std::span<Sampled> out, std::span<const SampleRow> rows, Tensor hidden,
                 Tensor weight, int mask_id, int n_ids);
}

// reveal_block.h -- which masked positions of a block a denoising step reveals, decided where the candidates are drawn.
//
// With m the masked positions of a block, n = n(step), k = min(n, |m|), u a random number of each, and order = m by
// score, highest first, then position:
//
//   low_confidence_static    order[0:k], score = confidence
//   low_confidence_dynamic   A = {i in m : confidence_i > threshold};  A if |A| >= k else order[0:k], score = confidence
//   sequential               the first k of m
//   entropy_bounded          m by entropy, lowest first, then position: the longest prefix whose sum stays below the bound, at
//                            least one, whatever n
//   factor                   the longest prefix of order whose r-th candidate has confidence >= 1 - factor / (r + 1), r = 1, 2, ...,
//                            whatever n; the first always, and the last of m with all before it (Fast-dLLM)
//   random                   order[0:k], score = u (LLaDA)
//   topk_margin              order[0:k], score = difference of the two largest probabilities (Dream; SampleRow::margin)
//   entropy                  order[0:k], score = -entropy (Dream)
//   origin                   {i in m : u_i < 1 - s / t}, whatever n (Dream)
//
// How many, n(step), by RevealRule::schedule:
//
//   Even                     B / S, the remainder going to the first steps; once the S steps are used up, all that are left
//   Floor                    B / S without remainder, at least 1, for as many steps as it takes
//   Timesteps                floor(|m| (1 - s / t)), t = t(step), s = t(step + 1), t falling from 1 to eps in S steps; in
//                            the last step all that are left
//
// order_temperature T > 0, with scores that are confidences, margins or entropies: k positions are drawn without replacement
// from softmax(score / T), which are the first k by score / T - log(-log u) (Dream's alg_temp; Kool et al. 2019, "Stochastic
// beams").
//
// reveal_blocks() does it for all blocks of a run (ops.h) and says whether the run goes on: as long as every block keeps a mask
// and no sequence is at its end, the next step needs nothing from the host.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "utils/philox.h"

// n(step) of a block of B in S steps. 0 from step S on where S > B.
constexpr int reveal_count(int block, int steps, int step) {
    return block / steps + (step < block % steps ? 1 : 0);
}

// t(step) in fp32, from both ends as torch.linspace has it. Computed in double, where the products are exact, so that a
// compiler which fuses multiply-adds changes nothing.
constexpr float timestep(const RevealRule& rule, int step) {
    const double by = (rule.eps - 1.0f) / float(rule.steps);
    return float(step < (rule.steps + 1) / 2 ? 1 + by * step : double(rule.eps) - by * (rule.steps - step));
}
// 1 - s / t: the part of what is masked that a step is to reveal.
constexpr float timestep_share(const RevealRule& rule, int step) {
    return 1 - timestep(rule, step + 1) / timestep(rule, step);
}

// From here on a step reveals everything that is left, whatever the rule.
constexpr bool is_last_step(const RevealRule& rule, int step) {
    return rule.schedule != RevealSchedule::Floor &&
           step >= rule.steps - (rule.schedule == RevealSchedule::Timesteps ? 1 : 0);
}
// n(step), before the last one, where n_masked positions are left.
constexpr int reveal_count(const RevealRule& rule, int step, int n_masked) {
    if (rule.schedule == RevealSchedule::Timesteps) return int(float(n_masked) * timestep_share(rule, step));
    if (rule.schedule == RevealSchedule::Floor) return std::max(1, rule.block / rule.steps);
    return reveal_count(rule.block, rule.steps, step);
}
// How many of n_masked positions a step reveals at least, whatever the candidates are.
int surely_revealed(const RevealRule& rule, int step, int n_masked);

// Whether the positions of a step are drawn from what they are ordered by.
constexpr bool draws_order(const RevealRule& rule) {
    return rule.order_temperature > 0 &&
           (rule.remasking == Remasking::LowConfidenceStatic || rule.remasking == Remasking::Margin ||
            rule.remasking == Remasking::Entropy);
}
// Whether its positions depend on u.
constexpr bool has_random_order(const RevealRule& rule) {
    return rule.remasking == Remasking::Random || rule.remasking == Remasking::Origin || draws_order(rule);
}
// u of the position that `row` draws the candidate of: uniform in [0, 1), from the half of its Philox bits that
// sample_uniform() leaves.
constexpr double order_uniform(const SampleRow& row) {
    const auto bits = philox(row.seed, {row.position, row.step, uint32_t(Stream::Sample), row.sequence});
    return uniform(bits[2], bits[3]);
}

// What is not a number counts as the lowest, so that the order is always total.
constexpr double comparable(double x) { return x == x ? x : -std::numeric_limits<double>::infinity(); }

// What masked positions are ordered by, the highest first. u is read where has_random_order() only.
constexpr double reveal_score(const RevealRule& rule, float confidence, float entropy, double u) {
    double score = comparable(double(confidence));
    if (rule.remasking == Remasking::Entropy || rule.remasking == Remasking::EntropyBounded)
        score = comparable(-double(entropy));
    if (draws_order(rule)) score = score / double(rule.order_temperature) - std::log(-std::log(u));
    if (rule.remasking == Remasking::Random || rule.remasking == Remasking::Origin) score = u;
    const bool leftmost =
        rule.remasking == Remasking::LowConfidenceDynamic && rule.fallback == Fallback::Leftmost;
    return rule.remasking == Remasking::Sequential || leftmost ? 0 : score;
}
// Of low_confidence_dynamic: above the threshold.
constexpr bool is_sure(const RevealRule& rule, float confidence) {
    const double c = comparable(double(confidence));
    return rule.inclusive ? c >= rule.threshold : c > rule.threshold;
}
// Whether the candidate with `rank` others of n_masked before it ends the prefix that factor reveals.
constexpr bool ends_factor(const RevealRule& rule, int rank, int n_masked, float confidence) {
    return rank > 0 && rank < n_masked - 1 && comparable(double(confidence)) < 1 - rule.factor / (rank + 2);
}

namespace ref {

// Positions to reveal, ascending. masked[i], confidence[i], entropy[i], u[i] belong to position i of the block (the latter three
// are read only where masked, and u only where the rule has a random order). Not of origin, which knows no n.
std::vector<int> reveal(std::span<const char> masked, std::span<const float> confidence,
                        std::span<const float> entropy, int n, const RevealRule& rule,
                        std::span<const double> u = {});
// The same as the given step of a block has it.
std::vector<int> reveal_step(std::span<const char> masked, std::span<const float> confidence,
                             std::span<const float> entropy, int step, const RevealRule& rule,
                             std::span<const double> u = {});

}  // namespace ref

namespace cpu {
void reveal_blocks(const RevealRun& run);
}

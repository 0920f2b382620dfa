#include "train/objective.h"

#include <algorithm>

#include "kernels/pair_loss.h"

static size_t pairs(const Sequence& s) {
    size_t n = 0;
    for (const Copy& copy : s.copies) n += copy.target.size();
    return n;
}

std::vector<std::vector<double>> loss_weights(std::span<const Sequence> update, LossNorm norm,
                                              double norm_length) {
    size_t all_pairs = 0;
    for (const Sequence& s : update) all_pairs += pairs(s);
    const double responses = double(update.size());
    std::vector<std::vector<double>> out;
    for (const Sequence& s : update) {
        std::vector<double>& weight = out.emplace_back();
        for (const Copy& copy : s.copies) {
            double w = 0;
            switch (norm) {
                case LossNorm::Step: w = 1 / double(copy.target.size()) / responses; break;
                case LossNorm::Sequence: w = 1 / double(pairs(s)) / responses; break;
                case LossNorm::Token: w = 1 / double(all_pairs); break;
                case LossNorm::Constant: w = 1 / norm_length / responses; break;
            }
            weight.insert(weight.end(), copy.target.size(), w);
        }
    }
    return out;
}

std::vector<LossPair> loss_pairs(std::span<const double> old, std::span<const double> credit,
                                 std::span<const double> weight) {
    std::vector<LossPair> pairs(credit.size());
    for (size_t i = 0; i < pairs.size(); i++)
        pairs[i] = {.old = old.empty() ? 0 : old[i],
                    .credit = credit[i],
                    .weight = weight[i],
                    .current = old.empty()};
    return pairs;
}

PolicyLoss policy_loss(std::span<const double> logprob, std::span<const LossPair> pairs,
                       const ObjectiveOptions& o) {
    PolicyLoss sum;
    for (size_t i = 0; i < pairs.size(); i++) {
        const PolicyTerms pair = policy_terms(logprob[i], pairs[i], o.clip_low, o.clip_high, o.kl_beta);
        sum.policy -= pairs[i].weight * pair.surrogate;  // (3)
        sum.kl += pairs[i].weight * pair.k3;
        sum.clipped += pair.ratio < 1 - o.clip_low || pair.ratio > 1 + o.clip_high;
        sum.max_ratio = std::max(sum.max_ratio, pair.ratio);
    }
    return sum;
}

void step_returns(std::span<double> returns, std::span<double> advantages, std::span<const double> reward,
                  std::span<const double> value, const Sequence& sequence, double gamma, double lambda) {
    double R_next = 0, A_next = 0, V_next = 0;  // of step t + 1
    size_t end = pairs(sequence);
    for (size_t t = sequence.copies.size(); t-- > 0;) {
        const size_t n = sequence.copies[t].target.size(), begin = end - n;
        double r = 0, V = 0;
        for (size_t j = begin; j < end; j++) {
            r += reward[j] / double(n);  // (4.2a)
            V += value[j] / double(n);
            returns[j] = reward[j] + gamma * R_next;                                          // (4.2e)
            advantages[j] = reward[j] - value[j] + gamma * V_next + gamma * lambda * A_next;  // (4.2f)
        }
        const double delta = r - V + gamma * V_next;  // (4.2c)
        R_next = r + gamma * R_next;                  // (4.2b)
        A_next = delta + gamma * lambda * A_next;     // (4.2d)
        V_next = V;
        end = begin;
    }
}

std::vector<double> reward_at_end(const Sequence& sequence, double reward) {
    std::vector<double> out(pairs(sequence), 0.0);
    if (!sequence.copies.empty())
        std::fill(out.end() - std::ptrdiff_t(sequence.copies.back().target.size()), out.end(), reward);
    return out;
}

double value_loss(std::span<const double> value, std::span<const LossPair> pairs, double value_clip) {
    double sum = 0;
    for (size_t i = 0; i < pairs.size(); i++)
        sum += pairs[i].weight * value_terms(value[i], pairs[i], value_clip).loss;  // (4)
    return sum;
}

double cross_entropy(std::span<const double> logprob, std::span<const LossPair> pairs) {
    double sum = 0;
    for (size_t i = 0; i < pairs.size(); i++) sum -= pairs[i].weight * logprob[i];
    return sum;
}

std::vector<std::vector<LossPair>> cross_entropy_pairs(std::span<const std::vector<double>> weights,
                                                       double n) {
    std::vector<std::vector<LossPair>> pairs;
    for (const std::vector<double>& sequence : weights) {
        pairs.emplace_back();
        for (const double w : sequence) pairs.back().push_back({.credit = 1, .weight = w / n, .current = 1});
    }
    return pairs;
}

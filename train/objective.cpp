#include "train/objective.h"

#include <algorithm>
#include <cmath>

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

PolicyLoss policy_loss(std::span<double> dlogprob, std::span<const double> logp_new,
                       std::span<const double> logp_old, std::span<const double> advantage,
                       std::span<const double> weight, const ObjectiveOptions& o) {
    constexpr double MAX_LOG_RATIO = 10;
    PolicyLoss sum;
    for (size_t i = 0; i < logp_new.size(); i++) {
        const double raw = logp_old[i] - logp_new[i];
        const double d = std::clamp(raw, -MAX_LOG_RATIO, MAX_LOG_RATIO);
        const double dd = raw == d ? -1 : 0;  // d d / d logp_new
        const double rho = std::exp(-d), A = advantage[i];

        // (3): the smaller of the plain and the clipped surrogate; the clipped one is flat where it clips.
        const double plain = rho * A, clipped = std::clamp(rho, 1 - o.clip_low, 1 + o.clip_high) * A;
        const double surrogate = std::min(plain, clipped);
        const double dsurrogate = plain <= clipped ? -plain * dd : 0;

        const double k3 = std::exp(d) - 1 - d;
        const double dk3 = (std::exp(d) - 1) * dd;

        sum.policy -= weight[i] * surrogate;
        sum.kl += weight[i] * k3;
        dlogprob[i] = weight[i] * (-dsurrogate + o.kl_beta * dk3);
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

double value_loss(std::span<double> dvalue, std::span<const double> value, std::span<const double> value_old,
                  std::span<const double> returns, std::span<const double> weight, double value_clip) {
    double sum = 0;
    for (size_t i = 0; i < value.size(); i++) {
        const double V = value[i], R = returns[i];
        const double clipped = value_old[i] + std::clamp(V - value_old[i], -value_clip, value_clip);
        const double plain_error = (V - R) * (V - R), clipped_error = (clipped - R) * (clipped - R);
        sum += weight[i] * 0.5 * std::max(plain_error, clipped_error);  // (4)
        dvalue[i] = plain_error >= clipped_error ? weight[i] * (V - R) : 0;
    }
    return sum;
}

double cross_entropy(std::span<double> dlogprob, std::span<const double> logprob,
                     std::span<const double> weight) {
    double sum = 0;
    for (size_t i = 0; i < logprob.size(); i++) {
        sum -= weight[i] * logprob[i];
        dlogprob[i] = -weight[i];
    }
    return sum;
}

// One update from packed micro-batches against the slow truth: one dense sequence per state of a response,
// and the formulas written out again. Then finite differences through everything.
#include <gtest/gtest.h>

#include <set>

#include "tests/dense_pass.h"
#include "tests/random_records.h"
#include "train/rl_update.h"

namespace {

// ---- the slow truth

// One row per reveal step: ids as the sampler saw them up to the end of the block, targets the positions
// revealed from there.
std::vector<State> naive_states(const Record& r, int block, int mask_id, int shrink) {
    const int P = int(r.prompt_ids.size()), n = r.length();
    std::vector<int> token = r.prompt_ids, step(size_t(P), 0);
    token.insert(token.end(), r.response_ids.begin(), r.response_ids.end());
    token.insert(token.end(), r.tail_ids.begin(), r.tail_ids.end());
    step.insert(step.end(), r.step_map.begin(), r.step_map.end());
    step.insert(step.end(), r.tail_steps.begin(), r.tail_steps.end());
    while (block && token.size() % size_t(block)) token.push_back(0), step.push_back(NEVER);
    std::vector<State> states;
    const int size = block ? block : int(token.size()) - P;
    for (int lo = block ? P / block * block : P; lo < P + n; lo += size) {
        std::set<int> distinct(step.begin() + lo, step.begin() + lo + size);
        distinct.erase(0);
        distinct.erase(NEVER);
        while (!distinct.empty()) {
            std::set<int> chunk;
            for (int s = 0; s < shrink && !distinct.empty(); s++)
                chunk.insert(distinct.extract(distinct.begin()));
            State state;
            for (int i = 0; i < lo + size; i++) {
                const int s = step[size_t(i)];
                state.ids.push_back(i < lo || (s != NEVER && s < *chunk.begin()) ? token[size_t(i)]
                                                                                 : mask_id);
                if (i >= std::max(lo, P) && i < P + n && chunk.count(s)) state.target.push_back(i);
            }
            if (!state.target.empty()) states.push_back(state);
        }
    }
    return states;
}

struct Slow {
    double policy = 0, kl = 0, value = 0;
    std::vector<std::vector<double>> logprobs, values, returns, advantages;  // per token
};

double norm_of(const ObjectiveOptions& o, size_t tau, size_t n, size_t responses, size_t all) {
    switch (o.loss_norm) {
        case LossNorm::Step: return 1.0 / double(tau) / double(responses);
        case LossNorm::Sequence: return 1.0 / double(n) / double(responses);
        case LossNorm::Token: return 1.0 / double(all);
        case LossNorm::Constant: return 1.0 / o.norm_length / double(responses);
    }
    return 0;
}

// Everything of an update, token by token. `advantage`: per record and token (without a value model).
Slow slow_update(const std::vector<Record>& records, const std::vector<std::vector<double>>& advantage,
                 DensePass& policy, DensePass* value, const RlOptions& o, int block) {
    Slow out;
    size_t all = 0;
    for (const Record& r : records) all += r.response_ids.size();
    for (size_t i = 0; i < records.size(); i++) {
        const Record& r = records[i];
        const int P = int(r.prompt_ids.size());
        const size_t n = r.response_ids.size();
        const std::vector<State> states = naive_states(r, block, policy.model.config.mask_id, o.shrink);
        std::vector<double> A = value ? std::vector<double>(n) : advantage[i], R(n), V(n), LP(n);
        const auto ids = [&](const State& s) {
            std::vector<int> x;
            for (const int j : s.target) x.push_back(r.response_ids[size_t(j - P)]);
            return x;
        };
        if (value) {
            for (const State& s : states) {
                const std::vector<double> v = value->forward(s, ids(s), block);
                for (size_t k = 0; k < v.size(); k++) V[size_t(s.target[k] - P)] = v[k];
            }
            const std::vector<double> old = r.old_values.empty() ? V : r.old_values;
            std::vector<double> reward = r.token_rewards;
            if (reward.empty()) {
                reward.assign(n, 0.0);
                for (const int j : states.back().target)
                    reward[size_t(j - P)] = advantage[i][0];  // the value target
            }
            double Rn = 0, An = 0, Vn = 0;
            for (size_t t = states.size(); t-- > 0;) {
                double rs = 0, vs = 0;
                for (const int j : states[t].target) {
                    const size_t k = size_t(j - P);
                    rs += reward[k] / double(states[t].target.size());
                    vs += old[k] / double(states[t].target.size());
                    R[k] = reward[k] + o.loss.gamma * Rn;
                    A[k] = reward[k] - old[k] + o.loss.gamma * Vn + o.loss.gamma * o.loss.lambda * An;
                }
                An = rs - vs + o.loss.gamma * Vn + o.loss.gamma * o.loss.lambda * An;
                Rn = rs + o.loss.gamma * Rn;
                Vn = vs;
            }
            for (const State& s : states) {
                const std::vector<double> v = value->forward(s, ids(s), block);
                std::vector<double> d;
                for (size_t k = 0; k < v.size(); k++) {
                    const size_t j = size_t(s.target[k] - P);
                    const double w = norm_of(o.loss, v.size(), n, records.size(), all), c = o.loss.value_clip;
                    const double clipped = std::min(std::max(v[k], old[j] - c), old[j] + c);
                    const double e = (v[k] - R[j]) * (v[k] - R[j]), ec = (clipped - R[j]) * (clipped - R[j]);
                    out.value += w * 0.5 * std::max(e, ec);
                    d.push_back(e >= ec ? w * (v[k] - R[j]) : 0);
                }
                value->backward(d);
            }
        }
        for (const State& s : states) {
            const std::vector<double> lp = policy.forward(s, ids(s), block);
            std::vector<double> d;
            for (size_t k = 0; k < lp.size(); k++) {
                const size_t j = size_t(s.target[k] - P);
                LP[j] = lp[k];
                const double old = r.old_logprobs.empty() ? lp[k] : r.old_logprobs[j],
                             w = norm_of(o.loss, lp.size(), n, records.size(), all);
                const auto term = [&](double x) {  // of the loss, as a function of the log-probability
                    const double dd = std::min(std::max(old - x, -10.0), 10.0), rho = std::exp(-dd);
                    const double clipped = std::min(std::max(rho, 1 - o.loss.clip_low), 1 + o.loss.clip_high);
                    return std::pair(-w * std::min(rho * A[j], clipped * A[j]), w * (std::exp(dd) - 1 - dd));
                };
                out.policy += term(lp[k]).first;
                out.kl += term(lp[k]).second;
                const double h = 1e-6;
                const auto total = [&](double x) { return term(x).first + o.loss.kl_beta * term(x).second; };
                d.push_back((total(lp[k] + h) - total(lp[k] - h)) / (2 * h));
            }
            policy.backward(d);
        }
        out.logprobs.push_back(LP);
        out.values.push_back(V);
        out.returns.push_back(R);
        out.advantages.push_back(A);
    }
    return out;
}

struct Case {
    Family family;
    int block, shrink;
    LossNorm norm;
    bool tied, value;
};

class UpdateTest : public testing::TestWithParam<Case> {};

std::vector<Record> random_records(const Case& p, const ModelConfig& c, int block, uint64_t seed) {
    Rng rng(seed, Stream::Task);
    std::vector<Record> records;
    const int longest = p.block ? 2 * p.block + 3 : 9;
    for (int g = 0; g < 3; g++) {
        const int prompt_length = 1 + int(rng.below(uint32_t(longest)));
        for (int k = 0; k < 2 + g % 2; k++) {
            Record r = random_record(rng, c, block, prompt_length, 1 + int(rng.below(uint32_t(longest))));
            if (k) {  // a group answers one prompt
                const Record& of = records[records.size() - 1];
                r.prompt_ids = of.prompt_ids;
            }
            r.group = g;
            r.reward = double(k);
            if (p.value && rng.below(2))
                for (int i = 0; i < r.length(); i++) r.old_values.push_back(double(rng.normal()));
            if (rng.below(4) == 0) r.old_logprobs.clear();
            records.push_back(r);
        }
    }
    return records;
}

RlOptions options_of(const Case& p) {
    RlOptions o;
    o.shrink = p.shrink;
    o.loss = {.loss_norm = p.norm,
              .norm_length = 7,
              .kl_beta = 0.05,
              .clip_low = 0.2,
              .clip_high = 0.3,
              .gamma = 0.9,
              .lambda = 0.8,
              .value_clip = 0.2};
    o.keep.all = true;
    return o;
}

}  // namespace

TEST_P(UpdateTest, PackedEqualsOneDenseSequencePerState) {
    const Case p = GetParam();
    const ModelConfig c = random_family_config(p.family, p.block ? p.block : 4, p.tied);
    const RandomModel policy(c, 1), critic(c, 2, 4, Head::Value);
    const std::vector<Record> records = random_records(p, c, p.block, uint64_t(p.block * 10 + p.shrink));
    const RlOptions o = options_of(p);
    const MaskShape shape = {p.block, c.mask_id};
    Rng rng(1, Stream::Mask);
    const TrainingBatch batch = prepare(records, shape, o, p.value, rng);
    ASSERT_EQ(batch.size(), int(records.size()));

    std::vector<std::vector<double>> advantage;
    const auto z = group_advantages(records, o.keep);
    for (size_t i = 0; i < records.size(); i++) advantage.emplace_back(size_t(records[i].length()), *z[i]);
    DensePass dense(policy, Head::Policy), dense_value(critic, Head::Value);
    const Slow want = slow_update(records, advantage, dense, p.value ? &dense_value : nullptr, o, p.block);

    const std::unique_ptr<Ops> ops = make_cpu_ops();
    const MicroBatchLimits need = needed_limits(batch.sequences, p.block);
    const MicroBatchLimits generous = {4096, 4096}, some = {need.max_tokens * 2, need.max_targets * 2};
    for (const MicroBatchLimits& limits : {generous, some, need}) {
        TrainingNetwork network(*ops, c, policy.weights, Head::Policy, p.block, limits),
            value(*ops, c, critic.weights, Head::Value, p.block, limits);
        network.allocate();
        value.allocate();
        const UpdateReport got =
            accumulate(batch, all_responses(batch), network, p.value ? &value : nullptr, o);
        EXPECT_NEAR(got.policy_loss, want.policy, 1e-5 * std::max(1.0, std::abs(want.policy)));
        EXPECT_NEAR(got.kl, want.kl, 1e-5 * std::max(1.0, std::abs(want.kl)));
        EXPECT_NEAR(got.loss, got.policy_loss + 0.05 * got.kl, 1e-12);
        for (size_t i = 0; i < records.size(); i++) {
            const auto tokens = [&](const std::vector<double>& pairs) {
                return per_token(batch.sequences[i], pairs, records[i].length());
            };
            expect_near(tokens(got.logprobs[i]), want.logprobs[i]);
            expect_near(tokens(got.advantages[i]), want.advantages[i]);
            if (!p.value) continue;
            expect_near(tokens(got.values[i]), want.values[i]);
            expect_near(tokens(got.returns[i]), want.returns[i]);
        }
        expect_same_gradients(network.gradients(), dense.grads, c);
        if (!p.value) continue;
        EXPECT_NEAR(got.value_loss, want.value, 1e-5 * std::max(1.0, want.value));
        expect_same_gradients(value.gradients(), dense_value.grads, c);
    }
}

INSTANTIATE_TEST_SUITE_P(Cases, UpdateTest,
                         testing::Values(Case{Family::Sdar, 1, 1, LossNorm::Step, false, false},
                                         Case{Family::Sdar, 2, 2, LossNorm::Sequence, true, true},
                                         Case{Family::Sdar, 3, 1, LossNorm::Token, false, false},
                                         Case{Family::Sdar, 4, 3, LossNorm::Step, true, false},
                                         Case{Family::Sdar, 4, 1, LossNorm::Step, false, true},
                                         Case{Family::Sdar, 5, 2, LossNorm::Constant, true, false},
                                         Case{Family::Sdar, 8, 4, LossNorm::Token, false, true},
                                         Case{Family::Sdar, 16, 1, LossNorm::Step, false, false},
                                         Case{Family::Sdar, 16, 3, LossNorm::Sequence, true, false},
                                         Case{Family::Dream, 0, 1, LossNorm::Step, false, false},
                                         Case{Family::Dream, 0, 3, LossNorm::Token, false, true},
                                         Case{Family::Llada, 0, 2, LossNorm::Step, true, true},
                                         Case{Family::Llada, 0, 4, LossNorm::Sequence, false, false}));

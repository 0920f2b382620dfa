// Passes over states of every kind -- random masks, every SFT method, traces -- against one dense sequence
// per state, and against the naive network by complex step.
#include <gtest/gtest.h>

#include "tests/dense_pass.h"
#include "tests/naive_network.h"
#include "tests/random_records.h"
#include "train/rl_update.h"

namespace {

void expect_packed_equals_dense(const std::vector<Sequence>& sequences, const RandomModel& model, int block) {
    Rng rng(9, Stream::Noise);
    std::vector<std::vector<double>> weight;  // d loss / d logprob
    DensePass dense(model, Head::Policy);
    std::vector<std::vector<double>> want;
    for (const Sequence& s : sequences) {
        weight.emplace_back();
        want.emplace_back();
        for (const Copy& copy : s.copies) {
            std::vector<int> ids;
            std::vector<double> d;
            for (const int i : copy.target)
                ids.push_back(s.token[size_t(i)]), d.push_back(double(rng.normal()));
            const std::vector<double> lp = dense.forward(dense_state(s, copy), ids, block);
            dense.backward(d);
            want.back().insert(want.back().end(), lp.begin(), lp.end());
            weight.back().insert(weight.back().end(), d.begin(), d.end());
        }
    }
    const MicroBatchLimits need = needed_limits(sequences, block);
    for (const MicroBatchLimits& limits : {MicroBatchLimits{4096, 4096}, need}) {
        TrainingNetwork network(*model.ops, model.config, model.weights, Head::Policy, block, limits);
        network.allocate();
        const auto got = network.accumulate(sequences, {.pairs = cross_entropy_pairs(weight, -1)});
        for (size_t i = 0; i < sequences.size(); i++) expect_near(got[i], want[i]);
        expect_same_gradients(network.gradients(), dense.grads, model.config);
        const auto evaluated = network.evaluate(sequences);
        for (size_t i = 0; i < sequences.size(); i++) expect_near(evaluated[i], got[i]);
    }
}

}  // namespace

TEST(Update, RandomAndCoupledMasksPacked) {
    Rng rng(11, Stream::Mask);
    for (const auto& [family, block] : {std::pair(Family::Sdar, 4),
                                        {Family::Sdar, 1},
                                        {Family::Sdar, 7},
                                        {Family::Dream, 0},
                                        {Family::Llada, 0}}) {
        const RandomModel model(random_family_config(family, block ? block : 4), 3);
        std::vector<Sequence> sequences;
        const Record first = random_record(rng, model.config, block, 9, 10);
        for (int k = 0; k < 4; k++) {
            Record r = random_record(rng, model.config, block, 9, 3 + 3 * k);
            if (k % 2) r.prompt_ids = first.prompt_ids;
            sequences.push_back(
                random_mask_sequence(r, {block, model.config.mask_id}, {.m = 2, .coupled = k < 2}, rng));
        }
        expect_packed_equals_dense(sequences, model, block);
    }
}

TEST(Update, SftOfEveryMethodPacked) {
    Rng rng(12, Stream::Mask);
    for (const auto& [family, block] :
         {std::pair(Family::Sdar, 4), {Family::Sdar, 5}, {Family::Dream, 0}, {Family::Llada, 0}})
        for (const SftMethod method :
             {SftMethod::SemiAr, SftMethod::RandomMask, SftMethod::Trace, SftMethod::Ar}) {
            const RandomModel model(random_family_config(family, block ? block : 4), 4);
            std::vector<Sequence> sequences;
            for (int k = 0; k < 3; k++) {
                const Record r = random_record(rng, model.config, block, k * 3, 4 + 5 * k);
                SftExample e;
                e.prompt_ids = r.prompt_ids;
                e.response_ids = r.response_ids;
                e.step_map = r.step_map;
                e.canvas = k;
                const MaskShape shape = {block, model.config.mask_id};
                e.copies = sft_copies(e, shape,
                                      {.method = method, .complementary = k == 1, .shrink = 1 + k % 2}, rng);
                sequences.push_back(sft_sequence(e, shape));
            }
            expect_packed_equals_dense(sequences, model, block);
        }
}

// A trace trained by SFT and by TraceRL with advantage 1 and the same normalisation are the same gradient.
TEST(Update, TraceSftIsTraceRlAtAdvantageOne) {
    Rng rng(13, Stream::Mask);
    for (const auto& [block, shrink] : {std::pair(0, 1), {4, 1}, {0, 2}, {4, 2}}) {
        const RandomModel model(random_family_config(block ? Family::Sdar : Family::Llada, 4), 5);
        const MaskShape shape = {block, model.config.mask_id};
        std::vector<Record> records;
        std::vector<Sequence> sft;
        int64_t n_tokens = 0;
        int with_tail = 0;
        for (int k = 0; k < 4; k++) {
            Record r = random_record(rng, model.config, block, 5, 6 + 3 * k);
            if (k == 0) r.tail_ids.clear(), r.tail_steps.clear();
            with_tail += !r.tail_ids.empty();
            r.old_logprobs.clear();
            r.advantage = {1.0};
            SftExample e;
            e.prompt_ids = r.prompt_ids;
            e.response_ids = r.response_ids;
            e.step_map = r.step_map;
            e.tail_ids = r.tail_ids;
            e.tail_steps = r.tail_steps;
            e.copies = sft_copies(e, shape, {.method = SftMethod::Trace, .shrink = shrink}, rng);
            sft.push_back(sft_sequence(e, shape));
            n_tokens += r.length();
            records.push_back(std::move(r));
        }
        TrainingNetwork a(*model.ops, model.config, model.weights, Head::Policy, block, {4096, 4096}),
            b(*model.ops, model.config, model.weights, Head::Policy, block, {4096, 4096});
        a.allocate();
        b.allocate();
        RlOptions o;
        EXPECT_GT(with_tail, 0);
        o.loss.loss_norm = LossNorm::Token;
        o.shrink = shrink;
        const TrainingBatch batch = prepare(records, shape, o, false, rng);
        accumulate(batch, all_responses(batch), a, nullptr, o);
        std::vector<std::vector<double>> ones;
        for (const Record& r : records) ones.emplace_back(size_t(r.length()), 1.0);
        b.accumulate(sft, {.pairs = cross_entropy_pairs(ones, double(n_tokens))});
        expect_same_gradients(a.gradients(), b.gradients(), model.config);
    }
}

TEST(Update, AZeroValueHeadChangesNothing) {
    Rng rng(14, Stream::Mask);
    const ModelConfig c = random_family_config(Family::Sdar, 4);
    const RandomModel policy(c, 6), critic(c, 7, 4, Head::Value);
    policy.ops->zero(critic.weights.value_head);
    std::vector<Record> records;
    for (int k = 0; k < 6; k++) {
        records.push_back(random_record(rng, c, 4, 5, 5 + k));
        records.back().group = k / 3;
        records.back().reward = k % 3 == 0 ? 1.0 : k % 3 == 1 ? 0.4 : 0.0;
    }
    RlOptions o;  // gamma = lambda = 1
    TrainingNetwork with(*policy.ops, c, policy.weights, Head::Policy, 4, {4096, 4096}),
        without(*policy.ops, c, policy.weights, Head::Policy, 4, {4096, 4096}),
        value(*policy.ops, c, critic.weights, Head::Value, 4, {4096, 4096});
    for (TrainingNetwork* n : {&with, &without, &value}) n->allocate();
    const TrainingBatch a = prepare(records, {4, c.mask_id}, o, true, rng),
                        b = prepare(records, {4, c.mask_id}, o, false, rng);
    const UpdateReport x = accumulate(a, all_responses(a), with, &value, o),
                       y = accumulate(b, all_responses(b), without, nullptr, o);
    EXPECT_EQ(a.size(), 6);
    EXPECT_NEAR(x.loss, y.loss, 1e-12);
    for (size_t i = 0; i < 6; i++) expect_near(x.advantages[i], y.advantages[i]);
    expect_same_gradients(with.gradients(), without.gradients(), c);
    double norm = 0;
    value.gradients().for_each_stored([&](const std::string& name, const Tensor& t) {
        norm += name == "value_head" ? policy.ops->sum_of_squares({&t, 1}) : 0;
    });
    EXPECT_GT(norm, 0);  // and the head learns from the first update on
}

// ---- the whole network by complex step: losses that are functions of the packed pass's outputs

namespace {

// loss(network over scalars S): sum over targets of weight * log-prob (or value), from one dense pass per
// copy.
template <class S>
S weighted_sum(const NaiveNetwork<S>& naive, const std::vector<Sequence>& sequences,
               const std::vector<std::vector<double>>& weight, int block, bool value) {
    S sum = S(0);
    for (size_t i = 0; i < sequences.size(); i++) {
        size_t k = 0;
        for (const Copy& copy : sequences[i].copies) {
            const State state = dense_state(sequences[i], copy);
            const auto rows =
                naive.forward(state.ids, [&](int a, int b) { return block == 0 || b / block <= a / block; });
            for (const int j : state.target) {
                const auto& h = rows[size_t(j - int(naive.c.shift && !value))];
                const std::vector<S>& head =
                    value ? naive.w.at("value_head.weight")
                          : naive.w.at(naive.c.tied ? "model.embed_tokens.weight" : "lm_head.weight");
                std::vector<S> logit;
                S total = S(0);
                for (size_t v = 0; v < head.size() / h.size(); v++) {
                    S x = S(0);
                    for (size_t n = 0; n < h.size(); n++) x += head[v * h.size() + n] * h[n];
                    logit.push_back(x);
                    total += std::exp(x);
                }
                sum += weight[i][k++] *
                       (value ? logit[0] : logit[size_t(sequences[i].token[size_t(j)])] - std::log(total));
            }
        }
    }
    return sum;
}

}  // namespace

TEST(Update, GradientsOfTheWholeNetworkByComplexStep) {
    struct Setup {
        Family family;
        bool tied;
        Head head;
    };
    for (const Setup& setup :
         {Setup{Family::Sdar, true, Head::Policy}, Setup{Family::Sdar, false, Head::Policy},
          Setup{Family::Dream, false, Head::Policy}, Setup{Family::Llada, false, Head::Policy},
          Setup{Family::Sdar, false, Head::Value}, Setup{Family::Dream, false, Head::Value},
          Setup{Family::Llada, false, Head::Value}}) {
        ModelConfig c = random_family_config(setup.family, 3, setup.tied);
        c.V = 23, c.mask_id = 22;
        const RandomModel model(c, 8, 4, setup.head);
        const int block = c.full_attention ? 0 : 3;
        Rng rng(15, Stream::Mask);
        std::vector<Sequence> sequences;
        std::vector<std::vector<double>> weight;
        for (int k = 0; k < 2; k++) {
            sequences.push_back(
                trace_sequence(random_record(rng, c, block, 4, 3 + k), {block, c.mask_id}, 1));
            weight.emplace_back();
            for (const Copy& copy : sequences.back().copies)
                for (size_t i = 0; i < copy.target.size(); i++) weight.back().push_back(double(rng.normal()));
        }
        TrainingNetwork network(*model.ops, c, model.weights, setup.head, block, {4096, 4096});
        network.allocate();
        std::vector<std::vector<LossPair>> pairs = cross_entropy_pairs(weight, -1);
        if (setup.head == Head::Value) {  // a regression towards value - weight has the derivative weight
            const auto values = network.evaluate(sequences);
            for (size_t k = 0; k < pairs.size(); k++)
                for (size_t i = 0; i < pairs[k].size(); i++)
                    pairs[k][i] = {.credit = values[k][i] - weight[k][i], .weight = 1, .current = 1};
        }
        network.accumulate(sequences, {.pairs = pairs});
        NaiveNetwork<std::complex<double>> naive(c, model.weights);
        network.gradients().for_each(c, [&](const std::string& name, const Tensor& t) {
            for (int k = 0; k < 2; k++) {
                int64_t at = int64_t(rng.below(uint32_t(t.size())));
                if (name == "model.embed_tokens.weight")  // a token that occurs
                    at = sequences[0].token[size_t(k)] * c.C + at % c.C;
                std::complex<double>& x = naive.w.at(name)[size_t(at)];
                const std::complex<double> was = x;
                x += std::complex<double>(0, 1e-30);
                const double want =
                    weighted_sum(naive, sequences, weight, block, setup.head == Head::Value).imag() / 1e-30;
                x = was;
                EXPECT_NEAR(t.row<float>(at / t.cols)[at % t.cols], want,
                            2e-4 * std::max(1.0, std::abs(want)))
                    << name << " " << at;
            }
        });
    }
}

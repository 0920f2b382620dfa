// The network over a packed batch against the naive network over one dense sequence: hidden states, and
// gradients by complex step.
#include <gtest/gtest.h>

#include "model/layout.h"
#include "model/transformer.h"
#include "tests/naive_network.h"
#include "utils/philox.h"

namespace {

ModelConfig small_config(bool qk_norm, bool bias, bool tied, int NH, int NKV) {
    ModelConfig c;
    c.V = 23, c.C = 12, c.L = 2, c.NH = NH, c.NKV = NKV, c.HD = 6, c.F = 10, c.B = 3;
    c.max_positions = 64;
    c.qk_norm = qk_norm, c.qkv_bias = bias, c.tied = tied;
    c.mask_id = 22;
    return c;
}

// Weights large enough that attention and gates are far from linear.
void randomize(const Parameters& p, const ModelConfig& c, uint64_t seed) {
    Rng rng(seed, Stream::Noise);
    p.for_each(c, [&](const std::string& name, const Tensor& t) {
        for (int64_t r = 0; r < t.rows; r++)
            for (int64_t i = 0; i < t.cols; i++)
                t.row<float>(r)[i] =
                    (name.find("norm.weight") != std::string::npos ? 1 : 0) + 0.4f * rng.normal();
    });
}

struct Model {
    ModelConfig config;
    std::unique_ptr<Ops> ops = make_cpu_ops();
    Arena arena{"model", host_memory()};
    Parameters weights, grads;
    std::unique_ptr<Transformer> network;
    explicit Model(const ModelConfig& c, Recompute recompute = Recompute::None) : config(c) {
        weights.plan(arena, config, Head::Policy);
        grads.plan(arena, config, Head::Policy);
        network = std::make_unique<Transformer>(*ops, config, weights, arena, 64, 32, nullptr, recompute);
        arena.allocate();
        weights.bind(config);
        grads.bind(config);
        randomize(weights, config, 3);
    }
};

// Two copies of the last block of a text and one of the block before, targets in each.
Sequence example(const ModelConfig& c) {
    Sequence s{.token = {1, 5, 9, 4, 7, 2, 8, 3, 11}, .prompt_length = 4, .copies = {}};
    s.copies.push_back({.begin = 3, .token = {4, c.mask_id, 2}, .target = {4}});
    s.copies.push_back({.begin = 6, .token = {c.mask_id, c.mask_id, c.mask_id}, .target = {6, 8}});
    s.copies.push_back({.begin = 6, .token = {8, c.mask_id, 11}, .target = {7}});
    return s;
}

// The ids a copy stands for, dense.
std::vector<int> dense_ids(const Sequence& s, const Copy& copy) {
    std::vector<int> ids(s.token.begin(), s.token.begin() + copy.begin);
    ids.insert(ids.end(), copy.token.begin(), copy.token.end());
    return ids;
}

class TransformerTest : public testing::TestWithParam<ModelConfig> {};

}  // namespace

TEST_P(TransformerTest, ForwardAndBackwardAgreeWithTheNaiveNetwork) {
    Model m(GetParam());
    const ModelConfig& c = m.config;
    const Sequence s = example(c);
    const PackedBatch packed = pack(std::vector{s}, c.B, false);
    const Tensor hidden = m.network->forward(packed.batch);
    ASSERT_EQ(hidden.rows, 4);

    // loss = sum over targets and channels of coefficient * hidden
    std::vector<double> coefficient;
    Rng rng(5, Stream::Noise);
    for (int i = 0; i < 4 * c.C; i++) coefficient.push_back(rng.normal());
    const auto sees = [&](int i, int j) { return j / c.B <= i / c.B; };
    const auto loss = [&](const auto& naive) {
        auto sum = naive.w.begin()->second[0] * 0.0;
        for (size_t t = 0; t < packed.target.size(); t++) {
            const auto rows = naive.forward(dense_ids(s, s.copies[size_t(packed.target[t].copy)]), sees);
            for (int i = 0; i < c.C; i++)
                sum += coefficient[t * size_t(c.C) + size_t(i)] *
                       rows[size_t(packed.target[t].position)][size_t(i)];
        }
        return sum;
    };

    const NaiveNetwork<double> naive(c, m.weights);
    for (size_t t = 0; t < packed.target.size(); t++) {
        const auto rows = naive.forward(dense_ids(s, s.copies[size_t(packed.target[t].copy)]), sees);
        for (int i = 0; i < c.C; i++)
            EXPECT_NEAR(hidden.row<float>(int64_t(t))[i], rows[size_t(packed.target[t].position)][size_t(i)],
                        2e-5);
    }

    const Tensor dhidden = m.network->dhidden(4);
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < c.C; i++) dhidden.row<float>(t)[i] = float(coefficient[size_t(t * c.C + i)]);
    m.network->backward(m.grads, dhidden);

    NaiveNetwork<std::complex<double>> complex(c, m.weights);
    m.grads.for_each(c, [&](const std::string& name, const Tensor& t) {
        if (name == "lm_head.weight") return;
        for (int k = 0; k < 6; k++) {  // six numbers of every tensor
            const int64_t at = int64_t(rng.below(uint32_t(t.size())));
            std::complex<double>& x = complex.w.at(name)[size_t(at)];
            const std::complex<double> was = x;
            x += std::complex<double>(0, 1e-30);
            const double want = loss(complex).imag() / 1e-30;
            x = was;
            EXPECT_NEAR(t.row<float>(at / t.cols)[at % t.cols], want, 1e-4 * std::max(1.0, std::abs(want)))
                << name << " " << at;
        }
    });
}

INSTANTIATE_TEST_SUITE_P(Bodies, TransformerTest,
                         testing::Values(small_config(true, false, false, 4, 2),
                                         small_config(true, false, true, 3, 1),
                                         small_config(false, true, false, 2, 2),
                                         small_config(false, false, false, 4, 1)));

// What is computed again in the backward pass is computed as before: hidden states and gradients of two batches are the
// same bits, in less memory.
TEST_P(TransformerTest, RecomputingChangesNoBit) {
    ModelConfig c = GetParam();
    c.L = 3;
    const auto update = [&](Recompute recompute, size_t& bytes) {
        Model m(c, recompute);
        bytes = m.arena.bytes();
        std::vector<float> out;
        Sequence s = example(c);
        for (int round = 0; round < 2; round++, s.copies.pop_back()) {
            const PackedBatch packed = pack(std::vector{s}, c.B, false);
            const Tensor hidden = m.network->forward(packed.batch);
            const Tensor dhidden = m.network->dhidden(int(hidden.rows));
            for (int64_t i = 0; i < hidden.size(); i++) {
                out.push_back(hidden.as<float>()[i]);
                dhidden.as<float>()[i] = float(i % 5) - 1.5f;
            }
            m.network->backward(m.grads, dhidden);
        }
        m.grads.for_each_stored([&](const std::string&, const Tensor& t) {
            out.insert(out.end(), t.as<float>(), t.as<float>() + t.size());
        });
        return out;
    };
    size_t none, norms, block;
    const std::vector<float> want = update(Recompute::None, none);
    EXPECT_EQ(update(Recompute::Norms, norms), want);
    EXPECT_EQ(update(Recompute::Block, block), want);
    EXPECT_LT(norms, none);
    EXPECT_LT(block, norms);
}

TEST(Transformer, BackwardAccumulates) {
    Model m(small_config(true, false, false, 4, 2));
    const PackedBatch packed = pack(std::vector{example(m.config)}, m.config.B, false);
    std::vector<float> once, twice;
    for (std::vector<float>* out : {&once, &twice}) {
        m.network->forward(packed.batch);
        const Tensor dhidden = m.network->dhidden(4);
        for (int t = 0; t < 4; t++)
            for (int i = 0; i < m.config.C; i++) dhidden.row<float>(t)[i] = 1;
        m.network->backward(m.grads, dhidden);
        m.grads.for_each_stored([&](const std::string&, const Tensor& t) {
            out->insert(out->end(), t.as<float>(), t.as<float>() + t.size());
        });
    }
    for (size_t i = 0; i < once.size(); i++)
        EXPECT_NEAR(twice[i], 2 * once[i], 1e-4f + 1e-4f * std::abs(once[i]));
}

TEST(Transformer, ABatchWithoutTargetsWritesTheCache) {
    const ModelConfig c = small_config(true, false, false, 4, 2);
    Model m(c);
    Arena arena("inference", host_memory());
    KvCache cache;
    cache.plan(arena, c, 20);
    Transformer network(*m.ops, c, m.weights, arena, 16, 16, &cache);
    arena.allocate();
    TokenBatch batch;
    for (int i = 0; i < 6; i++) {
        AttentionSpans see;
        see.begin[1] = 10, see.end[1] = 10 + (i / 3 + 1) * 3;
        batch.add(i + 1, i, 10 + i, see);
    }
    EXPECT_FALSE(network.forward(batch));
    // The last block of a text, once over the cache and once with everything in the batch.
    TokenBatch denoise;
    AttentionSpans see{.begin = {0, 10, 0}, .end = {0, 16, 3}};
    for (int i = 0; i < 3; i++) denoise.target_row.push_back(denoise.add(c.mask_id, 6 + i, i, see));
    const Tensor cached = network.forward(denoise);
    Sequence s{.token = {1, 2, 3, 4, 5, 6, 7, 8, 9}, .prompt_length = 2, .copies = {}};
    s.copies.push_back({.begin = 6, .token = {c.mask_id, c.mask_id, c.mask_id}, .target = {6, 7, 8}});
    const Tensor uncached = m.network->forward(pack(std::vector{s}, c.B, false).batch);
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < c.C; i++) EXPECT_EQ(cached.row<float>(t)[i], uncached.row<float>(t)[i]);
}

// The table of angles grows with the positions that come: the same bits as where it was made at once.
TEST(Transformer, AnglesDoNotDependOnThePositionsBefore) {
    ModelConfig c = small_config(true, false, false, 4, 2);
    c.max_positions = 3000;
    Model grown(c), fresh(c);
    PackedBatch far = pack(std::vector{example(c)}, c.B, false);
    grown.network->forward(far.batch);
    for (int& p : far.batch.position) p += 2901;
    const Tensor a = grown.network->forward(far.batch), b = fresh.network->forward(far.batch);
    for (int64_t r = 0; r < a.rows; r++)
        for (int64_t i = 0; i < a.cols; i++) ASSERT_EQ(a.row<float>(r)[i], b.row<float>(r)[i]);
}

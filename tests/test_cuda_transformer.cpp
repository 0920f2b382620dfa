// The whole network, forward and backward, on CUDA against the CPU: fp32 to rounding, bf16 to what rounding
// the weights and activations costs.
#include "tests/cuda_testing.h"
// after the references' scalar
#include "model/layout.h"
#include "model/transformer.h"

namespace {

ModelConfig small_config(int HD, bool qk_norm, bool bias) {
    ModelConfig c;
    c.V = 24, c.C = 32, c.L = 2, c.NH = 4, c.NKV = 2, c.HD = HD, c.F = 40, c.B = 3;
    c.max_positions = 64;
    c.qk_norm = qk_norm, c.qkv_bias = bias;
    c.mask_id = 22;
    return c;
}

// Two sequences that share a prompt, several copies of their blocks.
PackedBatch example(const ModelConfig& c) {
    std::vector<Sequence> all;
    for (int r = 0; r < 2; r++) {
        Sequence s{.token = {1, 5, 9, 4, 7, 2, 8, 3 + r, 11, 13, 6}, .prompt_length = 4, .copies = {}};
        s.copies.push_back({.begin = 3, .token = {4, c.mask_id, 2}, .target = {4}});
        s.copies.push_back({.begin = 6, .token = {c.mask_id, c.mask_id, c.mask_id}, .target = {6, 8}});
        s.copies.push_back({.begin = 6, .token = {8, c.mask_id, 11}, .target = {7}});
        all.push_back(s);
    }
    return pack(all, c.B, false);
}

// A model on a device, its weights those of `seed` rounded to bf16, and everything an update computes.
struct Model {
    std::unique_ptr<Ops> ops;
    ModelConfig config;
    DType dtype;
    Arena arena;
    Parameters weights, grads;
    Tensor logprob, lse, dlogprob, target;
    std::unique_ptr<Transformer> network;

    Model(std::unique_ptr<Ops> device, const ModelConfig& c, DType type, int targets, double weight_error = 0)
        : ops(std::move(device)), config(c), dtype(type), arena("model", *ops) {
        weights.plan(arena, config, Head::Policy, dtype);
        grads.plan(arena, config, Head::Policy);
        for (Tensor* t : {&logprob, &lse, &dlogprob}) arena.add(t, "row", 1, targets);
        arena.add(&target, "target", 1, targets, DType::I32);
        network = std::make_unique<Transformer>(*ops, config, weights, arena, 64, 16, nullptr);
        arena.allocate();
        weights.bind(config);
        grads.bind(config);
        uint32_t seed = 1;
        weights.for_each_stored([&](const std::string& name, const Tensor& t) {
            const bool norm = name.find("norm") != std::string::npos;
            std::vector<float> x =
                random_floats(size_t(t.size()), seed++, norm ? 0.1 : 1.2 / std::sqrt(32.0), norm ? 1 : 0);
            const std::vector<float> noise = random_floats(x.size(), 1000 + seed, weight_error);
            std::vector<Bf16> bits;
            for (size_t i = 0; i < x.size(); i++) {
                bits.push_back(to_bf16(x[i]));
                x[i] = to_float(bits.back()) * (1 + noise[i]);
            }
            ops->upload(t, t.dtype == DType::BF16 ? static_cast<const void*>(bits.data()) : x.data());
        });
    }

    // log-probabilities of the targets, then every gradient of their sum weighted by 1, 2, ...
    std::vector<std::vector<double>> update(const PackedBatch& packed) {
        const int N = packed.batch.n_targets();
        std::vector<int> ids;
        std::vector<float> d;
        for (int i = 0; i < N; i++)
            ids.push_back((i * 5 + 3) % config.V), d.push_back(0.3f * float(i % 3 + 1));
        ops->upload(target, ids.data());
        ops->upload(dlogprob, d.data());
        const Tensor hidden = network->forward(packed.batch), dhidden = network->dhidden(N);
        ops->head_logprob(logprob, lse, {}, hidden, weights.lm_head, target);
        ops->head_backward(dhidden, grads.lm_head, dlogprob, lse, hidden, weights.lm_head, target);
        network->backward(grads, dhidden);
        std::vector<std::vector<double>> out = {read(logprob)};
        grads.for_each_stored([&](const std::string&, const Tensor& t) { out.push_back(read(t)); });
        return out;
    }
    std::vector<double> read(const Tensor& t) {
        std::vector<float> x(static_cast<size_t>(t.size()));
        ops->download(x.data(), t);
        return {x.begin(), x.end()};
    }
};

double distance(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0, norm = 0;
    for (size_t i = 0; i < a.size(); i++) sum += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
    return std::sqrt(sum / std::max(norm, 1e-12));
}

struct Case {
    const char* name;
    int HD;
    bool qk_norm, bias;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
class CudaTransformer : public testing::TestWithParam<Case> {};

}  // namespace

TEST_P(CudaTransformer, AgreesWithTheCpuInFp32) {
    const ModelConfig c = small_config(GetParam().HD, GetParam().qk_norm, GetParam().bias);
    const PackedBatch packed = example(c);
    const int N = packed.batch.n_targets();
    Model cpu(make_cpu_ops(), c, DType::F32, N), cuda(cuda_ops_for_tests(), c, DType::F32, N);
    const auto want = cpu.update(packed), got = cuda.update(packed);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); i++)
        for (size_t j = 0; j < want[i].size(); j++)
            ASSERT_NEAR(got[i][j], want[i][j], 3e-5 * std::max(1.0, std::abs(want[i][j])))
                << "tensor " << i << ", element " << j;
}

// bf16 keeps 8 bits: every stored activation is off by up to 2^-9 of itself. The CPU network whose weights
// are off by random errors of that size, three times per layer and direction, says what that does to each
// gradient.
TEST_P(CudaTransformer, Bf16IsAsCloseAsItsRounding) {
    const ModelConfig c = small_config(32, GetParam().qk_norm, GetParam().bias);
    const PackedBatch packed = example(c);
    const int N = packed.batch.n_targets();
    Model exact(make_cpu_ops(), c, DType::F32, N),
        noisy(make_cpu_ops(), c, DType::F32, N, 0x1p-9 * std::sqrt(6.0 * c.L));
    Model cuda(cuda_ops_for_tests(), c, DType::BF16, N);
    const auto want = exact.update(packed), rounded = noisy.update(packed), got = cuda.update(packed);
    for (size_t i = 0; i < want.size(); i++)
        EXPECT_LT(distance(got[i], want[i]), 2 * distance(rounded[i], want[i]) + 1e-3) << "tensor " << i;
}

INSTANTIATE_TEST_SUITE_P(Bodies, CudaTransformer,
                         testing::Values(Case{"Qwen3", 32, true, false}, Case{"Qwen2", 6, false, true},
                                         Case{"Llama", 8, false, false}),
                         [](const auto& info) { return info.param.name; });

// The same update twice from the same weights: the same bits.
TEST(CudaTransformer, AnUpdateIsReproducible) {
    const ModelConfig c = small_config(32, true, true);
    const PackedBatch packed = example(c);
    std::vector<std::vector<double>> first;
    for (int run = 0; run < 2; run++) {
        Model cuda(cuda_ops_for_tests(), c, DType::BF16, packed.batch.n_targets());
        const auto now = cuda.update(packed);
        if (run == 0) first = now;
        EXPECT_EQ(now, first);
    }
}

// Generation: prefill, then a block over the cache, gives the hidden states of one pass over all of it.
TEST(CudaTransformer, CachedIsUncached) {
    const ModelConfig c = small_config(32, true, false);
    const int P = 9, T = P + c.B;
    TokenBatch whole, prefill, block;
    for (int t = 0; t < T; t++) {
        const int id = t < P ? t * 3 % c.V : c.mask_id, end = (t / c.B + 1) * c.B;
        whole.add(id, t, t, {{0, 0, 0}, {end, 0, 0}});
        if (t < P)
            prefill.add(id, t, t, {{0, 0, 0}, {end, 0, 0}});
        else
            block.add(id, t, t, {{0, 0, P}, {0, P, P + c.B}});
    }
    for (int t = 0; t < c.B; t++) whole.target_row.push_back(P + t), block.target_row.push_back(t);
    for (const DType dtype : {DType::F32, DType::BF16}) {
        Model m(cuda_ops_for_tests(), c, dtype, 1);
        Arena arena("cached", *m.ops);
        KvCache cache, other;
        Tensor hidden, other_hidden;
        cache.plan(arena, c, T, dtype);
        other.plan(arena, c, T, dtype);
        Transformer network(*m.ops, c, m.weights, arena, T, c.B, &cache);
        Transformer at_once(*m.ops, c, m.weights, arena, T, c.B, &other);
        arena.add(&hidden, "hidden", c.B, c.C);
        arena.add(&other_hidden, "hidden at once", c.B, c.C);
        arena.allocate();
        network.forward(prefill);
        m.ops->copy(hidden, network.forward(block));
        m.ops->copy(other_hidden, at_once.forward(whole));
        EXPECT_LT(distance(m.read(hidden), m.read(other_hidden)), dtype == DType::F32 ? 1e-6 : 0x1p-7);
    }
}

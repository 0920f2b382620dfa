// Training in bf16 on CUDA against fp32 on the CPU: the master follows, micro-batches make no difference, a run that was
// stopped goes on with the same bits.
#include "tests/cuda_testing.h"
// after the references' scalar
#include <filesystem>

#include "tests/random_records.h"
#include "tests/temporary_folder.h"
#include "train/learner.h"
#include "train/rl_update.h"

namespace {

ModelConfig small_config() {
    ModelConfig c;
    c.V = 24, c.C = 32, c.L = 2, c.NH = 4, c.NKV = 2, c.HD = 16, c.F = 40, c.B = 3;
    c.max_positions = 64;
    c.mask_id = 22;
    return c;
}

// Three sequences, two of which share a prompt.
std::vector<Sequence> examples(const ModelConfig& c) {
    std::vector<Sequence> all;
    for (int r = 0; r < 3; r++) {
        Sequence s{.token = {1 + r / 2, 5, 9, 4, 7, 2, 8, 3 + r, 11}, .prompt_length = 4, .copies = {}};
        s.copies.push_back({.begin = 3, .token = {4, c.mask_id, 2}, .target = {4}});
        s.copies.push_back({.begin = 6, .token = {c.mask_id, c.mask_id, c.mask_id}, .target = {6, 8}});
        all.push_back(s);
    }
    return all;
}

std::vector<double> read(Ops& ops, const Parameters& p) {
    std::vector<double> out;
    p.for_each_stored([&](const std::string&, const Tensor& t) {
        std::vector<float> x(size_t(t.size()));
        std::vector<Bf16> bits(x.size());
        if (t.dtype == DType::F32)
            ops.download(x.data(), t);
        else
            ops.download(bits.data(), t);
        for (size_t i = 0; i < x.size(); i++)
            out.push_back(double(t.dtype == DType::F32 ? x[i] : to_float(bits[i])));
    });
    return out;
}

void write(Ops& ops, const Parameters& p, const std::vector<double>& numbers) {
    size_t at = 0;
    p.for_each_stored([&](const std::string&, const Tensor& t) {
        const auto from = numbers.begin() + std::ptrdiff_t(at);
        const std::vector<float> x(from, from + t.size());
        ops.upload(t, x.data());
        at += x.size();
    });
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0, norm = 0;
    for (size_t i = 0; i < a.size(); i++) sum += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
    return std::sqrt(sum / norm);
}

struct World {
    std::unique_ptr<Ops> ops;
    ModelConfig config = small_config();
    std::unique_ptr<Learner> learner;

    World(std::unique_ptr<Ops> device, const LearnerMemory& memory, Head head = Head::Policy,
          int max_tokens = 64)
        : ops(std::move(device)) {
        const OptimizerOptions options = {.lr = 0.003, .eps = 1e-6, .weight_decay = 0.1};
        learner = std::make_unique<Learner>(*ops, config, head, config.B,
                                            MicroBatchLimits{max_tokens, std::min(max_tokens, 16)}, options,
                                            memory);
        learner->allocate();
        // Norms near one, matrices such that attention and gates are far from linear; a value head that is not zero.
        std::vector<double> numbers;
        uint32_t seed = 1;
        learner->master().for_each_stored([&](const std::string& name, const Tensor& t) {
            const bool norm = name.find("norm") != std::string::npos;
            for (const float x : random_floats(size_t(t.size()), seed++, norm ? 0.1 : 0.2, norm ? 1 : 0))
                numbers.push_back(double(x));
        });
        write(*ops, learner->master(), numbers);
        learner->master_changed();
    }
    // Loss and gradients of one update.
    double accumulate() {
        double loss = 0;
        // Cross-entropy, or the squared distance of values from 1.
        const auto pairs = cross_entropy_pairs(std::vector(3, std::vector(3, 1.0)), 9);
        learner->network->accumulate(examples(config),
                                     {.pairs = pairs, .outputs = [&](int i, std::span<const double> output) {
                                          loss += learner->head == Head::Value
                                                      ? value_loss(output, pairs[size_t(i)], 0)
                                                      : cross_entropy(output, pairs[size_t(i)]);
                                      }});
        return loss;
    }
    // `weight_error`: gradients are taken at weights that are off by so much of themselves.
    std::vector<double> train(int updates, double weight_error = 0) {
        std::vector<double> losses;
        for (int update = 0; update < updates; update++) {
            const std::vector<double> exact = master();
            if (weight_error > 0) {
                std::vector<double> off = exact;
                const std::vector<float> noise =
                    random_floats(off.size(), uint32_t(1000 + update), weight_error);
                for (size_t i = 0; i < off.size(); i++) off[i] *= 1 + double(noise[i]);
                write(*ops, learner->weights, off);
            }
            losses.push_back(accumulate());
            if (weight_error > 0) write(*ops, learner->weights, exact);
            learner->step();
        }
        return losses;
    }
    std::vector<double> master() { return read(*ops, learner->master()); }
    std::vector<double> gradients() { return read(*ops, learner->network->gradients()); }
};

constexpr LearnerMemory BF16 = {.weights = DType::BF16, .moments = DType::F32};
constexpr LearnerMemory BF16_MOMENTS = {.weights = DType::BF16, .moments = DType::BF16};

class CudaTraining : public testing::TestWithParam<Head> {};

}  // namespace

// Every activation and gradient is rounded to 8 bits, three times per layer and direction, and so are the weights. Gradients
// taken on the CPU at weights that are off by random errors of that size say what that does to a run of several updates. A
// moment in bf16 is off by less than 2^-7 of itself besides.
TEST_P(CudaTraining, Bf16FollowsFp32) {
    const int updates = 4;
    World exact(make_cpu_ops(), {}, GetParam()), noisy(make_cpu_ops(), {}, GetParam());
    const std::vector<double> before = exact.master();
    const std::vector<double> losses = exact.train(updates);
    EXPECT_LT(losses.back(), 0.95 * losses.front());
    noisy.train(updates, 0x1p-9 * std::sqrt(6.0 * exact.config.L + 2));
    const auto change = [&](World& w) {
        std::vector<double> out = w.master();
        for (size_t i = 0; i < out.size(); i++) out[i] -= before[i];
        return out;
    };
    const double allowed = 2 * distance(change(noisy), change(exact)) + 1e-3;
    EXPECT_LT(allowed, 0.5);
    for (const LearnerMemory& memory : {BF16, BF16_MOMENTS}) {
        World cuda(cuda_ops_for_tests(), memory, GetParam());
        ASSERT_EQ(cuda.master(), before);
        const std::vector<double> got = cuda.train(updates);
        EXPECT_LT(got.back(), 0.95 * got.front());
        EXPECT_LT(distance(change(cuda), change(exact)),
                  allowed + (memory.moments == DType::BF16 ? 0x1p-7 : 0));
        std::vector<double> rounded = cuda.master();
        for (double& x : rounded) x = double(to_float(to_bf16(float(x))));
        EXPECT_LT(distance(read(*cuda.ops, cuda.learner->weights), rounded),
                  0x1p-9);  // equal but for the vectors
    }
}

INSTANTIATE_TEST_SUITE_P(Heads, CudaTraining, testing::Values(Head::Policy, Head::Value),
                         [](const auto& info) { return info.param == Head::Policy ? "Policy" : "Value"; });

// A folder and optimizer.safetensors hold all there is: the updates after them have the same bits.
TEST(CudaTrainingState, SurvivesFilesBitForBit) {
    const TemporaryFolder folder;
    const std::string path = folder.file("model"), moments = folder.file("optimizer.safetensors");
    std::filesystem::create_directory(path);
    World straight(cuda_ops_for_tests(), BF16_MOMENTS), resumed(cuda_ops_for_tests(), BF16_MOMENTS);
    straight.train(2);
    save_model_folder(path, straight.learner->master(), straight.config, "", DType::F32, *straight.ops);
    straight.learner->optimizer->save(moments);
    straight.train(2);
    resumed.learner->load(open_model_folder(path, Head::Policy));
    resumed.learner->optimizer->load(moments);
    resumed.train(2);
    EXPECT_EQ(resumed.master(), straight.master());
    EXPECT_EQ(read(*resumed.ops, resumed.learner->weights), read(*straight.ops, straight.learner->weights));

    World other(cuda_ops_for_tests(), BF16);  // moments of another type are refused, not converted
    EXPECT_THROW(other.learner->optimizer->load(moments), Error);
}

// Random weights are made on the host and are the same on every device.
TEST(CudaTrainingState, InitialWeightsAreTheHosts) {
    World cpu(make_cpu_ops(), {}), cuda(cuda_ops_for_tests(), BF16);
    for (World* w : {&cpu, &cuda}) w->learner->initialize(7);
    EXPECT_EQ(cuda.master(), cpu.master());
}

// A whole update, in fp32 and several passes: its report and its gradients, whether the old values are known before or come
// with it.
TEST(CudaUpdate, IsTheHosts) {
    for (const bool given : {true, false}) {
        World cpu(make_cpu_ops(), {}), cuda(cuda_ops_for_tests(), {}),
            cpu_value(make_cpu_ops(), {}, Head::Value), cuda_value(cuda_ops_for_tests(), {}, Head::Value);
        const ModelConfig& c = cpu.config;
        ModelConfig ids = c;  // of text, none is the mask's
        ids.V = c.mask_id + 1;
        Rng rng(5, Stream::Mask);
        std::vector<Record> records;
        for (int k = 0; k < 6; k++) {
            Record& r = records.emplace_back(random_record(rng, ids, c.B, 4, 3 + k % 4));
            r.group = k / 3;
            r.reward = k % 3;
            if (k % 3 == 0) r.old_logprobs.clear();
            for (int i = 0; given && i < r.length(); i++) r.old_values.push_back(double(rng.normal()));
        }
        RlOptions o;
        o.keep.all = true;
        o.loss = {.kl_beta = 0.05, .clip_high = 0.3, .gamma = 0.9, .lambda = 0.8};
        const TrainingBatch batch = prepare(records, {c.B, c.mask_id}, o, true, rng);
        const auto update = [&](World& policy, World& value) {
            return accumulate(batch, all_responses(batch), *policy.learner->network,
                              value.learner->network.get(), o);
        };
        const UpdateReport want = update(cpu, cpu_value), got = update(cuda, cuda_value);
        EXPECT_GT(want.clip_fraction, 0);
        EXPECT_EQ(got.clip_fraction, want.clip_fraction);
        EXPECT_EQ(got.n_pairs, want.n_pairs);
        for (const auto& [g, w] : {std::pair{got.policy_loss, want.policy_loss},
                                   {got.kl, want.kl},
                                   {got.loss, want.loss},
                                   {got.value_loss, want.value_loss},
                                   {got.max_ratio, want.max_ratio},
                                   {got.explained_variance, want.explained_variance}})
            EXPECT_NEAR(g, w, 1e-5 * std::max(1.0, std::abs(w)));
        EXPECT_LT(distance(cuda.gradients(), cpu.gradients()), 1e-5);
        EXPECT_LT(distance(cuda_value.gradients(), cpu_value.gradients()), 1e-5);
    }
}

// However an update is cut, and whatever is computed again, its gradients are those of one pass: to summation order in fp32,
// to bf16's rounding of a shared prompt's gradients, which meet in other places.
TEST(CudaMicroBatches, ChangeNoGradient) {
    const MicroBatchLimits needed = needed_limits(examples(small_config()), small_config().B);
    for (const DType weights : {DType::F32, DType::BF16}) {
        const LearnerMemory memory = {.weights = weights};
        World whole(cuda_ops_for_tests(), memory),
            cut(cuda_ops_for_tests(), memory, Head::Policy, needed.max_tokens);
        whole.accumulate();
        cut.accumulate();
        EXPECT_GT(cut.learner->network->tokens_forwarded(), whole.learner->network->tokens_forwarded());
        EXPECT_LT(distance(cut.gradients(), whole.gradients()), weights == DType::F32 ? 1e-6 : 0x1p-7);
    }
}

TEST(CudaRecompute, ChangesNoBit) {
    std::vector<double> want;
    for (const Recompute recompute : {Recompute::None, Recompute::Norms, Recompute::Block}) {
        std::unique_ptr<Ops> ops = cuda_ops_for_tests();
        const ModelConfig c = small_config();
        Arena arena("weights", *ops);
        Parameters weights;
        weights.plan(arena, c, Head::Policy, DType::BF16);
        TrainingNetwork network(*ops, c, weights, Head::Policy, c.B, {64, 16}, recompute);
        arena.allocate();
        weights.bind(c);
        network.allocate();
        uint32_t seed = 1;
        weights.for_each_stored([&](const std::string& name, const Tensor& t) {
            const std::vector<float> x =
                random_floats(size_t(t.size()), seed++, 0.2, is_vector(name) ? 1 : 0);
            std::vector<Bf16> bits;
            for (const float e : x) bits.push_back(to_bf16(e));
            ops->upload(t, t.dtype == DType::F32 ? static_cast<const void*>(x.data()) : bits.data());
        });
        const std::vector<std::vector<double>> target_weights(3, {0.1, 0.2, 0.3});
        network.accumulate(examples(c), {.pairs = cross_entropy_pairs(target_weights, 1)});
        const std::vector<double> got = read(*ops, network.gradients());
        if (recompute == Recompute::None) want = got;
        EXPECT_EQ(got, want) << name_of(recompute);
    }
}

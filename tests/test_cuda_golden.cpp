// CUDA against what Hugging Face transformers computes: fp32 to 1e-4, bf16 to what rounding costs; and the training pass against
// the rollout. Skipped where the golden files are not. On a GPU every case, in the emulation a few.
#include "tests/cuda_testing.h"
// after the references' scalar
#include "tests/golden.h"
#include "train/masks.h"
#include "train/update.h"

class CudaGolden : public testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        if (!folder_exists(GOLDEN)) GTEST_SKIP() << GOLDEN << " is not here";
    }
    const std::string folder = GOLDEN + GetParam();
    const bool on_gpu = cuda_device_count() > 0;
};

TEST_P(CudaGolden, GeneratesTheSameInFp32) {
    expect_golden_generation(*cuda_ops_for_tests(), GetParam(), on_gpu ? 1000 : 2);
}

TEST_P(CudaGolden, ComputesTheSameLogitsInFp32) {
    const auto ops = cuda_ops_for_tests();
    const LoadedModel model(folder + "/model", *ops, Head::Policy, DType::F32);
    const SafetensorsFile golden(folder + "/logits.safetensors");
    for (int k = 0; k < (on_gpu ? 5 : 1); k++) {
        const std::vector<float> got = logits_of(*ops, model, golden.get(format("ids_%d", k)), 0),
                                 want = read_floats(golden.get(format("logits_%d", k)));
        ASSERT_EQ(got.size(), want.size());
        for (size_t i = 0; i < got.size(); i++)
            ASSERT_NEAR(got[i], want[i], 2e-4) << "prompt " << k << ", " << i;
    }
}

static double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0, norm = 0;
    for (size_t i = 0; i < a.size(); i++)
        sum += double(a[i] - b[i]) * double(a[i] - b[i]), norm += double(b[i]) * double(b[i]);
    return std::sqrt(sum / norm);
}

// bf16 keeps 8 bits: weights and every stored activation are off by up to 2^-9 of themselves. The CPU network whose weights are
// off by random errors of that size, for the weights and three activations of every layer, says what that does to its outputs.
static void blur(const LoadedModel& model) {
    uint32_t seed = 1;
    model.parameters.for_each_stored([&](const std::string&, const Tensor& t) {
        const std::vector<float> error =
            random_floats(size_t(t.size()), seed++, 0x1p-9 * std::sqrt(4.0 * model.config().L));
        for (int64_t i = 0; i < t.size(); i++) t.as<float>()[i] *= 1 + error[size_t(i)];
    });
}

TEST_P(CudaGolden, Bf16LogitsAreAsCloseAsTheirRounding) {
    const auto ops = cuda_ops_for_tests(), cpu = make_cpu_ops();
    const LoadedModel model(folder + "/model", *ops, Head::Policy, DType::BF16),
        noisy(folder + "/model", *cpu, Head::Policy, DType::F32);
    blur(noisy);
    const SafetensorsFile golden(folder + "/logits.safetensors");
    for (int k = 0; k < (on_gpu ? 5 : 1); k++) {
        const FileTensor& ids = golden.get(format("ids_%d", k));
        const std::vector<float> want = read_floats(golden.get(format("logits_%d", k)));
        EXPECT_LT(distance(logits_of(*ops, model, ids, 0), want),
                  2 * distance(logits_of(*cpu, noisy, ids, 0), want) + 1e-3)
            << "prompt " << k;
    }
}

static std::vector<Trajectory> roll_out(Ops& ops, const LoadedModel& model, uint32_t n) {
    const ModelConfig& config = model.config();
    std::vector<Request> requests;
    for (uint32_t i = 0; i < n; i++) {
        Request r;
        r.prompt_ids = {3, 1, 4, 1, 5, 9, 2 + int(i / 2)};
        r.sequence = i;
        r.options.block = config.B;
        r.options.gen_length = 11;
        r.options.temperature = 1;
        r.options.threshold = 0.1;  // several tokens a step
        requests.push_back(r);
    }
    Arena arena("engine", ops);
    Engine engine(ops, config, model.parameters, {.max_active = 8, .max_rows = 256, .kv_slots = 400},
                  config.V, arena);
    arena.allocate();
    return engine.generate(requests);
}

// The log-probability of every response's tokens in a training pass over their traces, in the order of positions.
static std::vector<float> training_logprobs(Ops& ops, const LoadedModel& model,
                                            const std::vector<Trajectory>& rollouts) {
    const ModelConfig& config = model.config();
    const int block = config.full_attention ? 0 : config.B;
    std::vector<Sequence> sequences;
    for (const Trajectory& t : rollouts)
        sequences.push_back(trace_sequence(to_record(t, 0, 0), {block, config.mask_id}, 1));
    TrainingNetwork network(ops, config, model.parameters, Head::Policy, block, {512, 256});
    network.allocate();
    const auto found = network.evaluate(sequences);
    std::vector<float> out;
    for (size_t i = 0; i < rollouts.size(); i++) {
        std::vector<float> by_position(rollouts[i].output_ids.size(), NAN);
        size_t k = 0;
        for (const Copy& copy : sequences[i].copies)
            for (const int position : copy.target)
                by_position[size_t(position - sequences[i].prompt_length)] = float(found[i][k++]);
        out.insert(out.end(), by_position.begin(), by_position.end());
    }
    return out;
}

static std::vector<float> rollout_logprobs(const std::vector<Trajectory>& rollouts) {
    std::vector<float> out;
    for (const Trajectory& t : rollouts) out.insert(out.end(), t.logprobs.begin(), t.logprobs.end());
    return out;
}

// The training pass over a trace sees the states the sampler saw: the same log-probabilities.
TEST_P(CudaGolden, TrainingLogprobsAreTheRollouts) {
    const auto ops = cuda_ops_for_tests();
    const LoadedModel model(folder + "/model", *ops, Head::Policy, DType::F32);
    const std::vector<Trajectory> rollouts = roll_out(*ops, model, on_gpu ? 16 : 2);
    const std::vector<float> training = training_logprobs(*ops, model, rollouts),
                             rollout = rollout_logprobs(rollouts);
    ASSERT_EQ(training.size(), rollout.size());
    for (size_t i = 0; i < rollout.size(); i++) EXPECT_NEAR(training[i], rollout[i], 1e-4) << i;
}

// In bf16 the two round what they store at other places, since they add in other orders: no further apart than rounding takes
// either from what is exact.
TEST_P(CudaGolden, Bf16TrainingLogprobsAreTheRolloutsButForRounding) {
    const auto ops = cuda_ops_for_tests(), cpu = make_cpu_ops();
    const LoadedModel model(folder + "/model", *ops, Head::Policy, DType::BF16),
        exact(folder + "/model", *cpu, Head::Policy, DType::F32),
        noisy(folder + "/model", *cpu, Head::Policy, DType::F32);
    blur(noisy);
    const std::vector<Trajectory> rollouts = roll_out(*ops, model, on_gpu ? 16 : 2);
    const std::vector<float> training = training_logprobs(*ops, model, rollouts),
                             rollout = rollout_logprobs(rollouts);
    ASSERT_EQ(training.size(), rollout.size());
    EXPECT_LT(distance(training, rollout), 2 * distance(training_logprobs(*cpu, noisy, rollouts),
                                                        training_logprobs(*cpu, exact, rollouts)) +
                                               1e-3);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaGolden, testing::Values("sdar_b4", "sdar_b8_tied", "dream", "llada"),
                         [](const auto& info) { return std::string(info.param); });

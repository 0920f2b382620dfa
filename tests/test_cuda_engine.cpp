// Generation on CUDA: what the CPU generates, and a block's steps without the host.
#include "tests/cuda_testing.h"
// after the references' scalar
#include "inference/engine.h"
#include "tests/fault_of.h"
#include "tests/random_model.h"
#include "tests/same_trajectory.h"

namespace {

// A random model on CUDA, its engine, and one on the CPU beside it.
struct Pair {
    RandomModel model;
    std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    Arena arena{"weights", *ops}, device_arena{"engine", *ops}, host_arena{"engine", host_memory()};
    Parameters weights;
    std::unique_ptr<Engine> device, host;

    explicit Pair(const ModelConfig& config, DType dtype = DType::F32, EngineLimits limits = {8, 128, 256})
        : model(config) {
        weights.plan(arena, model.config, Head::Policy, dtype);
        arena.allocate();
        weights.bind(model.config);
        std::vector<Tensor> from;
        model.weights.for_each_stored([&](const std::string&, const Tensor& t) { from.push_back(t); });
        size_t i = 0;
        weights.for_each_stored([&](const std::string&, const Tensor& t) {
            const float* x = from[i++].as<float>();
            std::vector<Bf16> half;
            for (int64_t k = 0; k < t.size(); k++) half.push_back(to_bf16(x[k]));
            ops->upload(t, t.dtype == DType::BF16 ? static_cast<const void*>(half.data()) : x);
        });
        const int n_ids = model.config.V - 1;
        device = std::make_unique<Engine>(*ops, model.config, weights, limits, n_ids, device_arena);
        host = std::make_unique<Engine>(*model.ops, model.config, model.weights, limits, n_ids, host_arena);
        device_arena.allocate();
        host_arena.allocate();
    }
};

ModelConfig config_named(const std::string& name) {
    ModelConfig c = random_model_config();
    c.full_attention = name.ends_with("Canvas");
    c.shift = name.starts_with("Shifted") || name == "Autoregressive";
    if (name == "Autoregressive") c.B = 1, c.mask_id = -1;
    return c;
}

// Every rule, prompts that end inside a block, limits inside one, stop ids, temperatures; with caches, every approximate one.
std::vector<Request> requests_for(const ModelConfig& config, bool caches = false) {
    std::vector<Request> out;
    const bool autoregressive = config.shift && !config.full_attention;
    for (uint32_t i = 0; i < 16; i++) {
        Request r;
        Rng rng(11, Stream::Task, i);
        for (uint32_t k = 0; k < 3 + i % 3; k++) r.prompt_ids.push_back(int(rng.below(38)));
        r.sequence = i;
        r.options.block = autoregressive ? 1 : 4 + int(i % 2);
        r.options.gen_length = 7 + int(i % 4);
        r.options.remasking = Remasking(i < 9 ? i % 5 : i % 9);
        r.options.steps = autoregressive ? 1 : r.options.block - int(i / 4 % 2);
        r.options.order_temperature = i > 8 && i % 3 ? 0.5f : 0;
        r.options.draw = i % 8 > 5 ? Draw::Gumbel : Draw::Inverse;
        if (config.full_attention && i > 11) r.options.schedule = RevealSchedule::Timesteps;
        if (config.full_attention && i % 5 == 3) r.options.block = WHOLE_CANVAS;
        if (config.full_attention && i % 7 == 4 && !caches) r.options.cfg_scale = 1.5f;
        if (!config.full_attention && r.options.remasking == Remasking::Origin)
            r.options.remasking = Remasking::Random;
        r.options.threshold = 0.5;
        r.options.eb_threshold = 1.5;
        r.options.temperature = i % 8 < 4 ? 0 : 0.8f;
        r.options.seed = 5;
        if (caches) r.options.cache = i % 3 == 2 ? Cache::Dual : Cache::Prefix;
        if (caches && i % 3 == 1) r.options.further_horizon = 2;
        if (i % 3 == 1) r.options.stop_ids = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
        out.push_back(r);
    }
    return out;
}

void expect_same(const Trajectory& got, const Trajectory& want, double error, const std::string& what) {
    expect_same_tokens(got, want, what);
    ASSERT_EQ(got.logprobs.size(), want.logprobs.size()) << what;
    for (size_t i = 0; i < want.logprobs.size(); i++)
        EXPECT_NEAR(got.logprobs[i], want.logprobs[i], error) << what;
    EXPECT_NEAR(got.entropy, want.entropy, error) << what;
}

Callbacks step_by_step() {
    Callbacks callbacks;
    callbacks.every_step = true;
    return callbacks;
}

class CudaEngine : public testing::TestWithParam<const char*> {};

}  // namespace

TEST_P(CudaEngine, GeneratesWhatTheCpuGenerates) {
    const std::string name = GetParam();
    Pair pair(config_named(name));
    const std::vector<Request> requests =
        requests_for(pair.model.config, name.find("Cached") != std::string::npos);
    const auto want = pair.host->generate(requests), got = pair.device->generate(requests);
    int stopped = 0, unrevealed = 0;
    for (size_t i = 0; i < requests.size(); i++) {
        expect_same(got[i], want[i], 1e-4, format("request %zu", i));
        stopped += want[i].finish_reason == "stop";
        for (const int step : want[i].tail_steps) unrevealed += step == NEVER;
    }
    EXPECT_GT(stopped, 0);
    EXPECT_EQ(unrevealed > 0, pair.model.config.B > 1);  // the end came inside a block
    // One after the other: every block of every request has its steps without the host.
    for (size_t i = 0; i < requests.size(); i++)
        expect_same(pair.device->generate({&requests[i], 1})[0], want[i], 1e-4,
                    format("request %zu alone", i));
}

INSTANTIATE_TEST_SUITE_P(Models, CudaEngine,
                         testing::Values("Blocks", "Canvas", "ShiftedCanvas", "CachedCanvas",
                                         "ShiftedCachedCanvas", "Autoregressive"),
                         [](const auto& info) { return std::string(info.param); });

// On the device too, with the host in every step and without.
TEST_P(CudaEngine, OutputThatIsNotFiniteIsAnError) {
    Pair pair(config_named(GetParam()));
    const std::vector<float> nan(size_t(pair.model.config.C), NAN);
    pair.ops->upload(pair.weights.final_norm, nan.data());
    const std::vector<Request> requests = requests_for(pair.model.config);
    const auto fault = [&](std::span<const Request> some, const Callbacks& callbacks) {
        return fault_of(Exit::Runtime, [&] { pair.device->generate(some, callbacks); });
    };
    for (size_t i = 0; i < requests.size(); i++) {
        Callbacks callbacks;
        callbacks.every_step = i % 2 == 1;
        EXPECT_NE(fault(std::span(requests).subspan(i, 1), callbacks).find("not finite"), std::string::npos)
            << "request " << i;
    }
    EXPECT_NE(fault(requests, {}).find("not finite"), std::string::npos);
}

TEST(CudaEngine, TheHostIsAskedOncePerBlock) {
    Pair pair(random_model_config());
    Request r;
    r.prompt_ids = {1, 2, 3, 4, 5};
    r.options.gen_length = 15;
    r.options.remasking = Remasking::LowConfidenceStatic;
    for (const bool every_step : {false, true}) {
        int asked = 0;
        Callbacks callbacks = every_step ? step_by_step() : Callbacks{};
        callbacks.should_stop = [&] { return asked++ < 0; };
        const int64_t passes = pair.device->forward_passes(), rows = pair.device->forwarded_rows();
        const Trajectory t = pair.device->generate({&r, 1}, callbacks)[0];
        // 3 + 4 + 4 + 4 tokens, one a step
        EXPECT_EQ(t.denoise_steps, 15);
        EXPECT_EQ(t.forward_passes, 15);
        EXPECT_EQ(pair.device->forward_passes() - passes, 15);
        EXPECT_EQ(pair.device->forwarded_rows() - rows, 4 + 15 * 4 + 3 * 4);  // prompt, steps, commits
        EXPECT_EQ(asked, every_step ? 16 : 5);  // before every pass, and once when nobody is left
    }
}

// The pass that opens a block forwards all of a canvas, the ones that follow it what the cache leaves.
TEST(CudaEngine, ACachedBlockIsFinishedWithoutTheHost) {
    Pair pair(config_named("ShiftedCanvas"));
    Request r;
    r.prompt_ids = {1, 2, 3, 4, 5};
    r.options.gen_length = 12;
    r.options.remasking = Remasking::LowConfidenceStatic;
    for (const Cache cache : {Cache::Prefix, Cache::Dual}) {
        r.options.cache = cache;
        int asked = 0;
        Callbacks callbacks;
        callbacks.should_stop = [&] { return asked++ < 0; };
        const int64_t rows = pair.device->forwarded_rows();
        EXPECT_EQ(pair.device->generate({&r, 1}, callbacks)[0].forward_passes, 12);
        const int later = cache == Cache::Dual ? 3 * 3 * 5 : 3 * (13 + 9 + 5);
        EXPECT_EQ(pair.device->forwarded_rows() - rows, 3 * 17 + later) << name_of(cache);
        EXPECT_EQ(asked, 4) << name_of(cache);
    }
}

// bf16 and heads of 32: attention in tiles, whose lists are made anew for every block while the recording stays. One sequence
// at a time, whose sums are then added in the same order either way.
TEST(CudaEngine, RepeatedStepsAreStepsOnTheirOwn) {
    if (cuda_device_count()) GTEST_SKIP() << "cuBLASLt may add in another order where a size is another";
    ModelConfig c = random_model_config();
    c.HD = 32;
    Pair pair(c, DType::BF16, {8, 128, 512});
    SharedMemory memory(*pair.ops);  // that is another's between generations, and holds no number then
    Arena arena("engine", memory), others("another's", memory);
    Engine other(*pair.ops, pair.model.config, pair.weights, {8, 128, 512}, c.V - 1, arena);
    Tensor left;
    others.add(&left, "what it leaves", 1, int64_t(arena.bytes() / sizeof(float)));
    memory.reserve(arena.bytes());
    arena.allocate();
    others.allocate();
    const std::vector<float> nans(size_t(left.size()), NAN);
    std::vector<Request> requests = requests_for(c);
    requests.resize(5);  // one of every rule
    for (Request& r : requests) {
        r.prompt_ids.resize(70, 5);  // more than a tile of keys
        r.options.gen_length = 12;
        const Trajectory apart = pair.device->generate({&r, 1}, step_by_step())[0];
        expect_same(pair.device->generate({&r, 1})[0], apart, 0, format("request %u", r.sequence));
        others.claim();
        pair.ops->upload(left, nans.data());
        expect_same(other.generate({&r, 1})[0], apart, 0, format("request %u in used memory", r.sequence));
    }
}

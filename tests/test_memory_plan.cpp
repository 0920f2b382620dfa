// What runs need of a GPU that is not here, at the sizes of published models; and that taking turns in one block of memory
// changes no result.
#include <gtest/gtest.h>

#include "inference/engine.h"
#include "tests/random_model.h"
#include "train/programs/memory_plan.h"
#include "utils/files.h"

namespace {

constexpr size_t GIB = size_t(1) << 30;
const std::string CONFIGS = "../shared/data/configs/";

struct Planned {
    std::unique_ptr<Ops> gpu = make_planned_ops(139 * GIB);
    std::vector<std::unique_ptr<Learner>> learners;
    MemoryPlan plan;

    Planned(const std::string& policy, const std::string& value, int tokens, DType moments,
            std::optional<Recompute> wish = {}, int kv_slots = 0) {
        std::vector<std::pair<std::string, Learner*>> named;
        const LearnerMemory memory = {.weights = DType::BF16, .moments = moments};
        for (const auto& [name, folder] : {std::pair("policy", policy), std::pair("value model", value)}) {
            if (folder.empty()) continue;
            const ModelConfig config = read_model_config(CONFIGS + folder);
            learners.push_back(
                std::make_unique<Learner>(*gpu, config, named.empty() ? Head::Policy : Head::Value, config.B,
                                          MicroBatchLimits{tokens, tokens}, OptimizerOptions(), memory));
            named.push_back({name, learners.back().get()});
        }
        Arena rollout("rollout", *gpu);
        KvCache cache;
        cache.plan(rollout, learners[0]->config, kv_slots, DType::BF16);
        plan = plan_memory(named, &rollout, wish, gpu->available());
    }
    size_t held() const {
        size_t sum = 0;
        for (const auto& part : plan.held) sum += part.bytes;
        return sum;
    }
};

class PublishedModels : public testing::Test {
    void SetUp() override {
        if (!file_exists(CONFIGS + "SDAR-8B-Chat/config.json")) GTEST_SKIP() << CONFIGS << " is not here";
    }
};

}  // namespace

// 14 bytes per parameter: bf16 weights and moments, fp32 master and gradients.
TEST_F(PublishedModels, AnEightBillionPolicyTrainsIn139GiB) {
    const Planned p("SDAR-8B-Chat", "", 8192, DType::BF16, {}, 200000);
    const double parameters = double(p.learners[0]->config.n_parameters());
    EXPECT_NEAR(double(p.held()), 14 * parameters, 1e-3 * 14 * parameters);
    EXPECT_NO_THROW(p.plan.check());
    EXPECT_EQ(p.plan.recompute, Recompute::Norms);  // with everything kept it would not fit
    EXPECT_GT(p.plan.totals[0].second, 139 * GIB);
    EXPECT_EQ(p.plan.total(), p.plan.totals[1].second);
    // The rollout's 200,000 slots lie where the activations do.
    EXPECT_GT(p.plan.in_turn[1].bytes, 25 * GIB);
    EXPECT_EQ(p.plan.total(), p.held() + p.plan.block_bytes());
    // A longer pass needs more, and finds it by computing layers again.
    EXPECT_EQ(Planned("SDAR-8B-Chat", "", 32768, DType::BF16).plan.recompute, Recompute::Block);
    EXPECT_EQ(Planned("SDAR-8B-Chat", "", 2048, DType::BF16).plan.recompute, Recompute::None);
}

TEST_F(PublishedModels, AFourBillionPolicyWithItsValueModelTrainsIn139GiB) {
    const Planned p("SDAR-4B-Chat", "SDAR-4B-Chat", 8192, DType::BF16, {}, 100000);
    EXPECT_NO_THROW(p.plan.check());
    EXPECT_LT(p.plan.total(), 139 * GIB);
    EXPECT_EQ(p.plan.in_turn.size(), 3u);
}

TEST_F(PublishedModels, AnEightBillionPairDoesNotAndThePlanSaysSo) {
    const Planned p("SDAR-8B-Chat", "SDAR-8B-Chat", 4096, DType::BF16);
    EXPECT_EQ(p.plan.recompute, Recompute::Block);
    try {
        p.plan.check();
        FAIL();
    } catch (const Error& e) {
        const std::string what = e.what();
        EXPECT_EQ(e.code, Exit::NoMemory);
        for (const std::string& part :
             {format("%.1f GiB are needed", double(p.plan.total()) / double(GIB)),
              std::string("139.0 GiB are free"), std::string("value model master weights 28."),
              std::string("--recompute block")})
            EXPECT_NE(what.find(part), std::string::npos) << part << " in: " << what;
    }
}

TEST_F(PublishedModels, WhatIsWishedIsTaken) {
    const Planned p("SDAR-1dot7B-Chat", "", 4096, DType::F32, Recompute::Block);
    EXPECT_EQ(p.plan.recompute, Recompute::Block);
    EXPECT_GT(p.plan.totals[0].second, p.plan.totals[1].second);
    EXPECT_GT(p.plan.totals[1].second, p.plan.totals[2].second);
    const Planned half("SDAR-1dot7B-Chat", "", 4096, DType::BF16, Recompute::Block);
    const double parameters = double(p.learners[0]->config.n_parameters());
    EXPECT_NEAR(double(p.held() - half.held()), 4 * parameters, 1e-3 * 4 * parameters);
}

TEST(MemoryFlags, RefuseWhatMakesNoSense) {
    const std::unique_ptr<Ops> cpu = make_cpu_ops(), gpu = make_planned_ops(GIB);
    EXPECT_EQ(training_dtype("auto", *cpu), DType::F32);
    EXPECT_EQ(training_dtype("auto", *gpu), DType::BF16);
    EXPECT_EQ(training_dtype("fp32", *gpu), DType::F32);
    EXPECT_THROW(training_dtype("bf16", *cpu), Error);
    MemoryFlags flags;
    flags.device_memory = 80;
    Common common;
    EXPECT_THROW(training_ops(flags, common), Error);  // a run
    common.dry_run = true;
    EXPECT_LT(training_ops(flags, common)->available(), 80 * GIB);
}

// Rollouts and updates of one model by turns, in one block of memory and each in its own: the same bits.
TEST(MemoryPlan, TakingTurnsChangesNoResult) {
    const ModelConfig config = random_model_config();
    const auto run = [&](bool shared) {
        const std::unique_ptr<Ops> ops = make_cpu_ops();
        SharedMemory turns(*ops);
        Learner learner(*ops, config, Head::Policy, config.B, {64, 32}, {.lr = 0.01},
                        {.activations = shared ? &turns : nullptr});
        Arena rollout("rollout", shared ? static_cast<Memory&>(turns) : *ops);
        Engine engine(*ops, config, learner.weights, {.max_active = 4, .max_rows = 40, .kv_slots = 100}, 38,
                      rollout);
        turns.reserve(plan_memory({{"model", &learner}}, &rollout, Recompute::Norms, SIZE_MAX).block_bytes());
        learner.allocate();
        rollout.allocate();
        const RandomModel model(config);
        std::vector<Tensor> from;
        model.weights.for_each_stored([&](const std::string&, const Tensor& t) { from.push_back(t); });
        size_t i = 0;
        learner.weights.for_each_stored(
            [&](const std::string&, const Tensor& t) { ops->copy(t, from[i++]); });
        std::vector<float> out;
        GenerateOptions options;
        options.gen_length = 12;
        options.block = config.B;
        options.temperature = 1;
        for (uint32_t round = 0; round < 3; round++) {
            std::vector<Request> requests;
            for (uint32_t r = 0; r < 3; r++)
                requests.push_back({{1, 2, 3, 4, 5, int(6 + r)}, 3 * round + r, options});
            std::vector<Sequence> sequences;
            for (const Trajectory& t : engine.generate(requests)) {
                out.insert(out.end(), t.logprobs.begin(), t.logprobs.end());
                Sequence s{.token = {1, 2, 3, 4}, .prompt_length = 4, .copies = {}};
                s.token.insert(s.token.end(), t.output_ids.begin(), t.output_ids.begin() + 4);
                s.copies.push_back(
                    {.begin = 4, .token = std::vector<int>(4, config.mask_id), .target = {4, 5, 6, 7}});
                sequences.push_back(s);
            }
            const std::vector<std::vector<double>> ones(sequences.size(), std::vector<double>(4, 1.0));
            learner.network->accumulate(sequences, {.pairs = cross_entropy_pairs(ones, 1)});
            learner.step();
        }
        learner.weights.for_each_stored([&](const std::string&, const Tensor& t) {
            out.insert(out.end(), t.as<float>(), t.as<float>() + t.size());
        });
        return out;
    };
    EXPECT_EQ(run(true), run(false));
}

#include <gtest/gtest.h>

#include <limits>

#include "inference/options.h"
#include "kernels/reveal_block.h"
#include "utils/philox.h"

namespace {

using Positions = std::vector<int>;

GenerateOptions rule(Remasking remasking) {
    GenerateOptions options;
    options.remasking = remasking;
    return options;
}

Positions choose(const GenerateOptions& options, std::vector<char> masked, std::vector<float> confidence,
                 int n) {
    return ref::reveal(masked, confidence, std::vector<float>(masked.size(), 0.0f), n, options.reveal_rule());
}

Positions choose_by_entropy(double bound, std::vector<char> masked, std::vector<float> entropy, int n = 1) {
    GenerateOptions options = rule(Remasking::EntropyBounded);
    options.eb_threshold = bound;
    return ref::reveal(masked, std::vector<float>(masked.size(), 0.0f), entropy, n, options.reveal_rule());
}

const auto STATIC = rule(Remasking::LowConfidenceStatic);
const auto DYNAMIC = rule(Remasking::LowConfidenceDynamic);  // threshold 0.9
const auto SEQUENTIAL = rule(Remasking::Sequential);

}  // namespace

TEST(RevealCount, RemainderGoesToTheFirstSteps) {
    const auto counts = [](int block, int steps) {
        std::vector<int> out;
        for (int s = 0; s < steps; s++) out.push_back(reveal_count(block, steps, s));
        return out;
    };
    EXPECT_EQ(counts(4, 4), (Positions{1, 1, 1, 1}));
    EXPECT_EQ(counts(4, 3), (Positions{2, 1, 1}));
    EXPECT_EQ(counts(8, 3), (Positions{3, 3, 2}));
    EXPECT_EQ(counts(32, 5), (Positions{7, 7, 6, 6, 6}));
    EXPECT_EQ(counts(1, 1), (Positions{1}));
    EXPECT_EQ(counts(5, 1), (Positions{5}));
}

TEST(Reveal, StaticTakesTheMostConfidentAndTheFirstOnTies) {
    EXPECT_EQ(choose(STATIC, {1, 1, 1, 1}, {0.1f, 0.4f, 0.3f, 0.2f}, 2), (Positions{1, 2}));
    EXPECT_EQ(choose(STATIC, {1, 1, 1, 1}, {0.5f, 0.5f, 0.5f, 0.5f}, 2), (Positions{0, 1}));
    EXPECT_EQ(choose(STATIC, {1, 1, 1, 1}, {0.2f, 0.5f, 0.5f, 0.5f}, 2), (Positions{1, 2}));
    // What is not masked is never chosen, however confident; more than there are masks: all of them.
    EXPECT_EQ(choose(STATIC, {0, 1, 0, 1}, {1.0f, 0.1f, 1.0f, 0.2f}, 1), (Positions{3}));
    EXPECT_EQ(choose(STATIC, {0, 1, 0, 1}, {1.0f, 0.1f, 1.0f, 0.2f}, 3), (Positions{1, 3}));
    EXPECT_EQ(choose(STATIC, {0, 0, 0, 0}, {1, 1, 1, 1}, 2), (Positions{}));
    EXPECT_EQ(choose(STATIC, {1, 1}, {0.1f, 0.2f}, 0), (Positions{}));
}

TEST(Reveal, ANotANumberConfidenceIsTheLowest) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(choose(STATIC, {1, 1, 1}, {nan, 0.0f, 0.1f}, 2), (Positions{1, 2}));
    EXPECT_EQ(choose(DYNAMIC, {1, 1, 1}, {nan, 0.95f, 0.1f}, 1), (Positions{1}));
}

TEST(Reveal, DynamicTakesAllAboveTheThresholdWhenTheyAreEnough) {
    EXPECT_EQ(choose(DYNAMIC, {1, 1, 1, 1}, {0.95f, 0.2f, 0.99f, 0.91f}, 1), (Positions{0, 2, 3}));
    EXPECT_EQ(choose(DYNAMIC, {1, 1, 1, 1}, {0.95f, 0.2f, 0.3f, 0.91f}, 2), (Positions{0, 3}));  // exactly n
    EXPECT_EQ(choose(DYNAMIC, {1, 1, 1, 1}, {0.3f, 0.2f, 0.3f, 0.95f}, 2), (Positions{0, 3}));  // one too few
    EXPECT_EQ(choose(DYNAMIC, {1, 1, 1, 1}, {0.3f, 0.2f, 0.1f, 0.4f}, 1), (Positions{3}));      // none
    EXPECT_EQ(choose(DYNAMIC, {0, 1, 0, 1}, {0.99f, 0.95f, 0.99f, 0.1f}, 3),
              (Positions{1, 3}));  // k = 2 masks
}

TEST(Reveal, TheThresholdItselfIsNotAbove) {
    GenerateOptions options = DYNAMIC;
    options.threshold = 0.5;
    EXPECT_EQ(choose(options, {1, 1, 1}, {0.5f, 0.4f, 0.6f}, 1), (Positions{2}));
    EXPECT_EQ(choose(options, {1, 1, 1}, {0.5f, 0.4f, 0.3f}, 1), (Positions{0}));
    options.threshold_inclusive = true;
    EXPECT_EQ(choose(options, {1, 1, 1}, {0.5f, 0.4f, 0.6f}, 1), (Positions{0, 2}));
    options.threshold_inclusive = false;
    options.threshold = 1;
    EXPECT_EQ(choose(options, {1, 1, 1}, {1.0f, 1.0f, 0.6f}, 1),
              (Positions{0}));  // threshold 1: the static rule
}

TEST(Reveal, FallbacksOfOtherEngines) {
    const std::vector<char> masked = {1, 1, 1, 1};
    const std::vector<float> confidence = {0.1f, 0.2f, 0.5f, 0.95f};
    GenerateOptions options = DYNAMIC;
    EXPECT_EQ(choose(options, masked, confidence, 2), (Positions{2, 3}));
    options.fallback = Fallback::Leftmost;
    EXPECT_EQ(choose(options, masked, confidence, 2), (Positions{0, 1}));
    EXPECT_EQ(choose(options, masked, confidence, 1), (Positions{3}));
    options.fallback = Fallback::One;
    EXPECT_EQ(choose(options, masked, confidence, 2), (Positions{3}));
    EXPECT_EQ(choose(options, masked, {0.1f, 0.2f, 0.5f, 0.4f}, 2), (Positions{2}));
}

TEST(Reveal, SequentialTakesTheFirstMasks) {
    EXPECT_EQ(choose(SEQUENTIAL, {0, 1, 0, 1, 1}, {0, 0.1f, 0, 0.9f, 0.8f}, 2), (Positions{1, 3}));
    EXPECT_EQ(choose(SEQUENTIAL, {0, 1, 0, 1, 1}, {0, 0.1f, 0, 0.9f, 0.8f}, 9), (Positions{1, 3, 4}));
}

TEST(Reveal, EntropyBoundEdges) {
    EXPECT_EQ(choose_by_entropy(0.5, {1, 1, 1, 1}, {0.25f, 0.125f, 2.0f, 0.0625f}), (Positions{0, 1, 3}));
    EXPECT_EQ(choose_by_entropy(0.01, {1, 1, 1, 1}, {0.25f, 0.125f, 2.0f, 0.0625f}),
              (Positions{3}));  // at least one
    EXPECT_EQ(choose_by_entropy(0.01, {0, 1, 1, 0}, {0, 0.25f, 0.125f, 0}), (Positions{2}));
    EXPECT_EQ(choose_by_entropy(0.375, {1, 1, 1}, {0.25f, 0.125f, 2.0f}),
              (Positions{1}));  // the sum reaches the bound
    EXPECT_EQ(choose_by_entropy(0.376, {1, 1, 1}, {0.25f, 0.125f, 2.0f}), (Positions{0, 1}));
    EXPECT_EQ(choose_by_entropy(100, {1, 0, 1}, {0.25f, 0, 2.0f}), (Positions{0, 2}));
    EXPECT_EQ(choose_by_entropy(0, {1, 1, 1}, {0, 0, 0}), (Positions{0}));
    EXPECT_EQ(choose_by_entropy(0.5, {1, 1, 1}, {0.25f, 0.25f, 0.25f}),
              (Positions{0}));  // ties: lowest position
    EXPECT_EQ(choose_by_entropy(1, {1, 1, 1}, {0.25f, 0.25f, 0.25f}, 1), (Positions{0, 1, 2}));  // whatever n
    EXPECT_EQ(choose_by_entropy(1, {0, 0}, {0, 0}), (Positions{}));
}

// Fast-dLLM's get_transfer_index_dynamic, as it is published: how many of the sorted confidences.
TEST(Reveal, FactorIsFastDllms) {
    const auto published = [](std::vector<float> sorted, double factor) {
        std::vector<double> thresholds;
        for (size_t n = 1; n <= sorted.size(); n++) thresholds.push_back(1 - factor / double(n + 1));
        thresholds[0] = -1;  // at least one token
        size_t top = 0;
        for (; top < sorted.size(); top++)
            if (double(sorted[top]) < thresholds[top]) break;
        if (top == sorted.size()) top--;  // what a Python loop leaves behind
        return top == 0 || top == sorted.size() - 1 ? top + 1 : top;
    };
    GenerateOptions options = rule(Remasking::Factor);
    Rng rng(3, Stream::Noise);
    std::vector<int> seen(9, 0);
    for (int round = 0; round < 500; round++) {
        options.factor = round % 10 ? 2 * double(rng.uniform()) : 0;
        std::vector<char> masked;
        std::vector<float> confidence, sorted;
        for (uint32_t i = 0; i < 2 + rng.below(8); i++) {
            masked.push_back(rng.below(4) > 0);
            // sure on the whole, with ties
            confidence.push_back(1 - float(rng.below(16)) * float(rng.below(16)) / 256);
            if (masked.back()) sorted.push_back(confidence.back());
        }
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        const size_t n = sorted.empty() ? 0 : published(sorted, options.factor);
        const Positions got = choose(options, masked, confidence, 1),
                        want = choose(STATIC, masked, confidence, int(n));
        ASSERT_EQ(got, want) << "round " << round;
        seen[std::min<size_t>(n, 8)]++;
    }
    for (int n = 0; n <= 6; n++) EXPECT_GT(seen[size_t(n)], 0) << n;
    options.factor = 1;  // 1/2 for the second, were it the last; the third and its neighbours need 3/4, 4/5
    EXPECT_EQ(choose(options, {1, 1, 1, 1}, {0.1f, 0.7f, 0.76f, 0.2f}, 1), (Positions{1, 2}));
    EXPECT_EQ(choose(options, {1, 1, 1, 1}, {0.1f, 0.76f, 0.76f, 0.76f}, 1), (Positions{0, 1, 2, 3}));
    EXPECT_EQ(choose(options, {1, 0, 1, 0}, {0.1f, 1, 0.2f, 1}, 1), (Positions{0, 2}));  // two: both
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(choose(options, {1, 1, 1}, {nan, nan, nan}, 1), (Positions{0}));
}

TEST(RevealStep, EverythingLeftOnceTheStepsAreUsedUp) {
    GenerateOptions options = DYNAMIC;
    options.steps = 2;
    const std::vector<char> masked = {1, 1, 1, 1};
    const std::vector<float> confidence = {0.1f, 0.2f, 0.3f, 0.4f}, entropy(4, 0.0f);
    EXPECT_EQ(ref::reveal_step(masked, confidence, entropy, 0, options.reveal_rule()), (Positions{2, 3}));
    EXPECT_EQ(ref::reveal_step(masked, confidence, entropy, 1, options.reveal_rule()), (Positions{2, 3}));
    EXPECT_EQ(ref::reveal_step(masked, confidence, entropy, 2, options.reveal_rule()),
              (Positions{0, 1, 2, 3}));
    options.schedule = RevealSchedule::Floor;
    options.remasking = Remasking::LowConfidenceStatic;
    EXPECT_EQ(ref::reveal_step(masked, confidence, entropy, 7, options.reveal_rule()), (Positions{2, 3}));
    options.steps = 3;
    EXPECT_EQ(ref::reveal_step(masked, confidence, entropy, 0, options.reveal_rule()), (Positions{3}));
}

// What no candidates can change: the host leaves a block whose end is sure out of a run.
TEST(RevealStep, SurelyRevealed) {
    const RevealRule fixed{.remasking = Remasking::LowConfidenceStatic, .block = 8, .steps = 3};
    EXPECT_EQ(surely_revealed(fixed, 0, 8), 3);
    EXPECT_EQ(surely_revealed(fixed, 2, 2), 2);
    EXPECT_EQ(surely_revealed(fixed, 3, 5), 5);  // the steps are used up
    RevealRule other = fixed;
    other.remasking = Remasking::LowConfidenceDynamic;
    EXPECT_EQ(surely_revealed(other, 0, 8), 3);
    other.fallback = Fallback::One;
    EXPECT_EQ(surely_revealed(other, 0, 8), 1);
    other = fixed;
    other.remasking = Remasking::EntropyBounded;
    EXPECT_EQ(surely_revealed(other, 0, 8), 1);
    other.remasking = Remasking::Factor;
    for (const int n : {1, 2}) EXPECT_EQ(surely_revealed(other, 0, n), n);
    EXPECT_EQ(surely_revealed(other, 0, 3), 1);
    other.schedule = RevealSchedule::Floor;
    EXPECT_EQ(surely_revealed(other, 7, 8), 1);
    other.remasking = Remasking::Sequential;
    EXPECT_EQ(surely_revealed(other, 7, 8), 2);  // 8 / 3
}

namespace {

// One step of sequential reveal for each block of `counts` masks; ids drawn are those given. Returns whether the run goes on.
struct SequentialRun {
    std::vector<RevealBlock> blocks;
    std::vector<RevealTarget> targets;
    std::vector<int> stops = {50, 60};
    int status[STATUS_INTS] = {1, 0, 9, 0};
    std::vector<int> token = std::vector<int>(20, -1);

    explicit SequentialRun(const std::vector<int>& counts) {
        for (const int count : counts) {
            blocks.push_back({.first = int(targets.size()),
                              .count = count,
                              .n_stops = 2,
                              .rule = {.remasking = Remasking::Sequential, .block = 4, .steps = 4}});
            for (int i = 0; i < count; i++) targets.push_back({.row = int(targets.size()) + 3});
        }
        status[N_BLOCKS] = int(blocks.size());
    }
    bool step(const Positions& ids) {
        std::vector<Sampled> sampled;
        for (const int id : ids) sampled.push_back({id, 0.5f, -float(id), float(id) / 2});
        std::vector<SampleRow> rows(ids.size());
        const int64_t n = int64_t(ids.size());
        make_cpu_ops()->reveal_blocks({.targets = records(targets.data(), n),
                                       .blocks = records(blocks.data(), int64_t(blocks.size())),
                                       .rows = records(rows.data(), n),
                                       .sampled = records(sampled.data(), n),
                                       .stops = tensor(stops.data(), 1, 2, DType::I32),
                                       .token = tensor(token.data(), 1, 20, DType::I32),
                                       .status = tensor(status, 1, STATUS_INTS, DType::I32)});
        for (const SampleRow& row : rows) EXPECT_EQ(row.step, 1u);  // the next step's
        return status[RUNNING] == 1;
    }
};

}  // namespace

TEST(RevealBlocks, ARunGoesOnUntilABlockIsFinished) {
    SequentialRun run({3, 2});
    EXPECT_TRUE(run.step({1, 2, 3, 4, 5}));
    EXPECT_FALSE(run.step({11, 12, 13, 14, 15}));  // the second has no mask left
    EXPECT_EQ(run.status[STEPS], 2);
    EXPECT_EQ(run.targets[0].token, 1);
    EXPECT_EQ(run.targets[0].step, 1);
    EXPECT_EQ(run.targets[1].token, 12);
    EXPECT_EQ(run.targets[1].logprob, -12.0f);
    EXPECT_EQ(run.targets[1].entropy, 6.0f);
    EXPECT_EQ(run.targets[1].step, 2);
    EXPECT_EQ(run.targets[2].step, 0);
    EXPECT_EQ(run.blocks[0].step, 2);
    EXPECT_EQ(run.token,
              (Positions{-1, -1, -1, 1, 12, -1, 4, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}));
}

TEST(RevealBlocks, ARunEndsAtAStopOnceAllBeforeItIsRevealed) {
    SequentialRun run({4});
    run.targets[1].step = 1, run.targets[1].token = 50;  // a stop id behind a mask
    EXPECT_FALSE(run.step({7, 0, 8, 9}));
    SequentialRun second({4});
    EXPECT_TRUE(second.step({7, 50, 8, 9}));  // not revealed
    EXPECT_FALSE(second.step({7, 60, 8, 9}));
    SequentialRun limit({4});
    limit.targets[1].ends = 1;  // the last position that counts
    EXPECT_TRUE(limit.step({1, 2, 3, 4}));
    EXPECT_FALSE(limit.step({1, 2, 3, 4}));
    SequentialRun one({4});
    one.status[MOST] = 1;
    EXPECT_FALSE(one.step({1, 2, 3, 4}));
}

TEST(GenerateOptions, FaultsAreFoundTogether) {
    ModelConfig config;
    config.V = 100;
    GenerateOptions options;
    EXPECT_TRUE(faults(options, config).empty());
    options.gen_length = 0;
    options.steps = 5;
    options.top_p = 0;
    options.temperature = -1;
    options.stop_ids = {100};
    EXPECT_EQ(faults(options, config).size(), 5u);
    config.shift = true;  // autoregressive
    EXPECT_EQ(faults(options, config).size(), 6u);
}

TEST(GenerateOptions, PresetsKeepLengthsAndRefuseUnknownNames) {
    for (const std::string& name : preset_names()) {
        GenerateOptions options;
        options.gen_length = 17;
        options.stop_ids = {3};
        apply_preset(options, name);
        EXPECT_EQ(options.gen_length, 17);
        EXPECT_EQ(options.stop_ids, (std::vector<int>{3}));
        EXPECT_EQ(options.cache, name == "fast-dllm" ? Cache::Dual : Cache::Auto);
    }
    GenerateOptions options;
    EXPECT_THROW(apply_preset(options, "nonesuch"), Error);
}

// One table of candidates, what each published engine makes of it.
TEST(GenerateOptions, PresetsRevealAsTheirEnginesDo) {
    const std::vector<char> masked = {1, 1, 1, 1};
    const std::vector<float> entropy(4, 0.0f);
    const auto with = [&](const char* name, std::vector<float> confidence, int steps) {
        GenerateOptions options;
        apply_preset(options, name);
        options.steps = steps;
        return ref::reveal_step(masked, confidence, entropy, 0, options.reveal_rule());
    };
    const std::vector<float> mixed = {0.1f, 0.87f, 0.93f, 0.5f};
    EXPECT_EQ(with("sdar", mixed, 4), (Positions{1, 2}));       // above 0.85
    EXPECT_EQ(with("sdar-eval", mixed, 4), (Positions{2}));     // none above 0.95: the best
    EXPECT_EQ(with("jetengine", mixed, 2), (Positions{0, 1}));  // one above 0.9, two wanted: the leftmost two
    EXPECT_EQ(with("lmdeploy", mixed, 2), (Positions{2}));      // those above 0.9, whatever n
    EXPECT_EQ(with("dllm-rl", mixed, 2), (Positions{1, 2}));    // the one above 0.9 joined to the top two
    EXPECT_EQ(with("fast-dllm", mixed, 2), (Positions{2}));     // those not below 0.9, whatever n
    EXPECT_EQ(with("fast-dllm", {0.1f, 0.2f, 0.3f, 0.25f}, 2), (Positions{2}));  // there is none: the best
}

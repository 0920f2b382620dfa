// A rollout's figures, from a few responses by hand. (The rollouts themselves: test_tracerl, test_evaluation.)
#include <gtest/gtest.h>

#include "train/rollout.h"
#include "utils/json.h"

namespace {

Response response(double reward, int tokens, int steps, int passes, double entropy,
                  const char* finish_reason = "stop") {
    Response r;
    r.reward = reward;
    r.trajectory.output_ids.assign(size_t(tokens), 5);
    r.trajectory.denoise_steps = steps;
    r.trajectory.forward_passes = passes;
    r.trajectory.entropy = entropy;
    r.trajectory.finish_reason = finish_reason;
    return r;
}

}  // namespace

TEST(RolloutStats, AreMeansOverResponsesAndTokens) {
    RolloutBatch batch;
    EXPECT_EQ(batch.stats().reward, 0);  // of no response
    batch.responses = {response(1, 8, 4, 5, 0.5), response(0, 6, 6, 7, 1), response(1, 10, 2, 3, 0.25),
                       response(0.5, 16, 4, 5, 2, "length")};
    const RolloutStats s = batch.stats();
    EXPECT_EQ(s.reward, 2.5 / 4);
    EXPECT_EQ(s.accuracy, 0.5);
    EXPECT_EQ(s.tokens, 40);
    EXPECT_EQ(s.length, 10);
    EXPECT_EQ(s.truncated, 0.25);
    EXPECT_EQ(s.tokens_per_forward, 2);
    EXPECT_EQ(s.tokens_per_step_right, 3);
    EXPECT_DOUBLE_EQ(s.tokens_per_step_wrong, 2.2);
    EXPECT_DOUBLE_EQ(s.entropy, (8 * 0.5 + 6 * 1 + 10 * 0.25 + 16 * 2) / 40);
    EXPECT_EQ(to_json(rollout_stats(to_json(s))), to_json(s));
}

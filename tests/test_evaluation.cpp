// Evaluations of a very small model.
#include <gtest/gtest.h>

#include "tests/tracerl_world.h"
#include "train/evaluation.h"

TEST(Evaluation, AnEvaluationIsTheMeanOverAllSamples) {
    World w(false);
    const std::vector<Problem> problems = problems_of(w.task, Split::HeldOut, 0, 5);
    GenerateOptions o = w.options.rl.rollout;
    const auto length = [&](int samples) {
        return evaluate(*w.engine, w.codec, w.task, problems, samples, o, {}).dynamic.length;
    };
    o.remasking = Remasking::LowConfidenceDynamic;
    double sum = 0;
    for (const Response& r :
         roll_out(*w.engine, w.codec, w.task, problems, 3, o, EVALUATION_SEQUENCES, {}).responses)
        sum += double(r.trajectory.output_ids.size());
    EXPECT_DOUBLE_EQ(length(3), sum / 15);
    EXPECT_EQ(length(3), length(3));
    EXPECT_NE(length(3), length(1));
    o.temperature = 0;  // samples of a greedy model are equal
    EXPECT_DOUBLE_EQ(length(3), length(1));
}

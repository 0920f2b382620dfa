// What right and wrong responses say: Wilson's interval and pass@k against their definitions, means over problems.
#include <gtest/gtest.h>

#include <cmath>

#include "train/eval/eval_table.h"
#include "train/eval/scores.h"

namespace {

// The share p of a normal approximation in which `share` lies exactly on the 97.5% point.
double deviation(double p, double share, double n) { return (share - p) / std::sqrt(p * (1 - p) / n); }

// Of all subsets of k of n responses, of which the first `right` are right: how many have a right one.
double by_counting(int n, int right, int k) {
    int with = 0, all = 0;
    for (unsigned set = 0; set < 1u << n; set++) {
        if (__builtin_popcount(set) != k) continue;
        all++;
        with += (set & ((1u << right) - 1)) != 0;
    }
    return double(with) / all;
}

Response response(int problem, double reward, int tokens, int passes) {
    Response r;
    r.problem = problem;
    r.reward = reward;
    r.trajectory.output_ids.assign(size_t(tokens), 1);
    r.trajectory.entropy = 1.0 / tokens;
    r.trajectory.forward_passes = r.trajectory.denoise_steps = passes;
    r.trajectory.finish_reason = "stop";
    return r;
}

}  // namespace

TEST(Scores, WilsonsIntervalEndsWhereItsDefinitionSays) {
    for (const int n : {1, 7, 128, 10000})
        for (const double share : {0.1, 0.5, 0.9}) {
            const Interval i = wilson_interval(share, n);
            EXPECT_NEAR(deviation(i.low, share, n), 1.959964, 1e-5);
            EXPECT_NEAR(deviation(i.high, share, n), -1.959964, 1e-5);
        }
    // Nothing right, nothing wrong: an interval all the same.
    EXPECT_NEAR(wilson_interval(0, 50).low, 0, 1e-15);
    EXPECT_NEAR(wilson_interval(0, 50).high, 0.0713, 1e-4);
    EXPECT_NEAR(wilson_interval(1, 50).high, 1, 1e-15);
    EXPECT_EQ(wilson_interval(0.3, 0).high, 1);
}

TEST(Scores, PassAtKCountsSubsets) {
    for (int n = 1; n <= 7; n++)
        for (int right = 0; right <= n; right++)
            for (int k = 1; k <= n; k++) EXPECT_NEAR(pass_at_k(n, right, k), by_counting(n, right, k), 1e-12);
    EXPECT_THROW(pass_at_k(4, 1, 5), Error);
}

TEST(Scores, MeansAreOverProblems) {
    RolloutBatch batch;
    for (const double reward : {1.0, 0.0, 0.0, 0.0}) batch.responses.push_back(response(0, reward, 4, 2));
    for (const double reward : {1.0, 1.0, 0.5, 0.0}) batch.responses.push_back(response(1, reward, 8, 2));
    batch.responses.back().trajectory.finish_reason = "length";
    const std::vector<int> wanted = {1, 2, 4, 8};
    const Scores s = score(batch, wanted);
    EXPECT_EQ(s.problems, 2);
    EXPECT_EQ(s.responses, 8);
    EXPECT_EQ(s.samples, 4);
    EXPECT_DOUBLE_EQ(s.stats.accuracy, 3.0 / 8);  // half right is not right
    EXPECT_DOUBLE_EQ(s.stats.reward, 3.5 / 8);
    EXPECT_DOUBLE_EQ(s.stats.truncated, 1.0 / 8);
    EXPECT_DOUBLE_EQ(s.stats.length, 6);
    EXPECT_DOUBLE_EQ(s.stats.entropy, 1.0 / 6);  // over tokens, of which each response has its own number
    EXPECT_DOUBLE_EQ(s.stats.tokens_per_forward, 3);
    ASSERT_EQ(s.pass_at.size(), 3u);  // pass@8 of four samples there is not
    EXPECT_DOUBLE_EQ(s.pass_at[0].second, (1.0 / 4 + 2.0 / 4) / 2);
    EXPECT_DOUBLE_EQ(s.pass_at[1].second, ((1 - 3.0 / 6) + (1 - 1.0 / 6)) / 2);
    EXPECT_DOUBLE_EQ(s.pass_at[2].second, 1);
    EXPECT_DOUBLE_EQ(s.accuracy.low, wilson_interval(3.0 / 8, 2).low);
    EXPECT_EQ(score({}, wanted).problems, 0);
}

// Of a model that was stopped before a problem was done there are no figures.
TEST(EvalTable, NoProblemsNoFigures) {
    EvalRow row{.model = "m", .decoding = "static", .scores = score({}, {})};
    row.interrupted = true;
    const std::string table = eval_table({row});
    EXPECT_NE(table.find("0 (stopped)"), std::string::npos) << table;
    EXPECT_EQ(table.find('%', table.find('\n')), std::string::npos) << table;
    EXPECT_EQ(table.find("0.0", table.find('\n')), std::string::npos) << table;
}

// A letter takes a column, whatever bytes it has, and a Chinese character two.
TEST(EvalTable, NamesInAnyScriptAreAligned) {
    EXPECT_EQ(aligned({{"model", "n"}, {"läuf", "10"}, {"模型", "5"}}), "model   n\nläuf   10\n模型    5\n");
}

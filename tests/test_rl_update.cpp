// What of a rollout is kept, whose old log-probabilities are computed, and what an update reports.
#include <gtest/gtest.h>

#include "tests/dense_pass.h"
#include "tests/random_records.h"
#include "train/rl_update.h"

TEST(TrainingBatch, DroppedGroupsAndNothingKept) {
    Rng rng(18, Stream::Mask);
    const ModelConfig c = random_model_config();
    const RandomModel model(c);
    std::vector<Record> records;
    for (int k = 0; k < 6; k++) {
        records.push_back(random_record(rng, c, 4, 5, 4));
        records.back().group = k / 2;
        records.back().reward = k == 3 ? 1.0 : 0.0;  // groups: equal, mixed, equal
    }
    RlOptions o;
    TrainingBatch batch = prepare(records, {4, c.mask_id}, o, false, rng);
    EXPECT_EQ(batch.record, (std::vector<int>{2, 3}));
    EXPECT_EQ(batch.n_dropped, 4);
    o.keep.low = 0.6;
    batch = prepare(records, {4, c.mask_id}, o, false, rng);
    EXPECT_EQ(batch.size(), 0);
    TrainingNetwork network(*model.ops, c, model.weights, Head::Policy, 4, {64, 64});
    network.allocate();
    const UpdateReport report = accumulate(batch, {}, network, nullptr, o);
    EXPECT_EQ(report.loss, 0);
    network.gradients().for_each_stored([&](const std::string&, const Tensor& t) {
        EXPECT_EQ(model.ops->sum_of_squares({&t, 1}), 0);
    });
}

TEST(TrainingBatch, OldLogProbsAreFilledInWhereMissing) {
    Rng rng(19, Stream::Mask);
    const ModelConfig c = random_model_config();
    const RandomModel model(c);
    std::vector<Record> records = {random_record(rng, c, 4, 5, 4), random_record(rng, c, 4, 5, 7)};
    records[0].reward = 1, records[1].reward = 0;
    records[1].old_logprobs.clear();
    const RlOptions o;
    TrainingBatch batch = prepare(records, {4, c.mask_id}, o, false, rng);
    TrainingNetwork network(*model.ops, c, model.weights, Head::Policy, 4, {256, 256});
    network.allocate();
    const std::vector<double> given = batch.old_logprob[0];
    evaluate_old(batch, network, nullptr);
    EXPECT_EQ(batch.old_logprob[0], given);
    expect_near(batch.old_logprob[1], network.evaluate(batch.sequences)[1]);
}

// The figures of a run's log, from their definitions.
TEST(RlUpdate, ReportsWhatItDid) {
    Rng rng(20, Stream::Mask);
    const ModelConfig c = random_model_config();
    const RandomModel model(c), value_model(c, 2, 4, Head::Value);
    std::vector<Record> records;
    for (int k = 0; k < 4; k++) {
        Record& r = records.emplace_back(random_record(rng, c, 4, 5, 3 + k));
        r.reward = k;
        for (int i = 0; i < r.length(); i++) r.old_values.push_back(double(rng.normal()));
    }
    RlOptions o;
    o.keep.all = true;
    o.loss = {.kl_beta = 0.05, .clip_low = 0.3, .clip_high = 0.4, .gamma = 0.9, .lambda = 0.8};
    TrainingBatch batch = prepare(records, {4, c.mask_id}, o, true, rng);
    TrainingNetwork policy(*model.ops, c, model.weights, Head::Policy, 4, {256, 256}),
        value(*value_model.ops, c, value_model.weights, Head::Value, 4, {256, 256});
    policy.allocate();
    value.allocate();
    batch.old_logprob = policy.evaluate(batch.sequences);
    for (std::vector<double>& of_one : batch.old_logprob)
        for (double& old : of_one) old += 0.4 * rng.normal();
    const UpdateReport report = accumulate(batch, all_responses(batch), policy, &value, o);

    double n = 0, outside = 0, largest = 0, r_mean = 0, e_mean = 0, r_variance = 0, e_variance = 0;
    const auto each = [&](const std::function<void(double ratio, double R, double error)>& use) {
        for (size_t i = 0; i < batch.sequences.size(); i++)
            for (size_t k = 0; k < report.logprobs[i].size(); k++)
                use(std::exp(report.logprobs[i][k] - batch.old_logprob[i][k]), report.returns[i][k],
                    report.returns[i][k] - batch.old_value[i][k]);
    };
    each([&](double ratio, double R, double error) {
        n++, outside += ratio < 0.7 || ratio > 1.4, largest = std::max(largest, ratio);
        r_mean += R, e_mean += error;
    });
    r_mean /= n, e_mean /= n;
    each([&](double, double R, double error) {
        r_variance += (R - r_mean) * (R - r_mean), e_variance += (error - e_mean) * (error - e_mean);
    });
    ASSERT_GT(outside, 2);
    ASSERT_LT(outside, n - 2);
    EXPECT_EQ(report.n_pairs, int64_t(n));
    EXPECT_DOUBLE_EQ(report.clip_fraction, outside / n);
    EXPECT_DOUBLE_EQ(report.max_ratio, largest);
    EXPECT_NEAR(report.explained_variance, 1 - e_variance / r_variance, 1e-9);
    EXPECT_DOUBLE_EQ(report.loss, report.policy_loss + 0.05 * report.kl);
    EXPECT_GT(report.value_loss, 0);
    // Returns that do not vary have no variance to explain.
    o.loss.gamma = 0;
    for (std::vector<double>& rewards : batch.reward) std::fill(rewards.begin(), rewards.end(), 1.0);
    EXPECT_EQ(accumulate(batch, all_responses(batch), policy, &value, o).explained_variance, 0);
}

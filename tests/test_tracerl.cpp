// One step of reinforcement learning on a very small model: its log-probabilities are the rollout's, and which responses it trains.
#include <gtest/gtest.h>

#include <set>

#include "tests/tracerl_world.h"
#include "utils/log.h"

TEST(TraceRl, RolloutLogProbsAreTrainingLogProbs) {
    for (const Family family : {Family::Sdar, Family::Dream, Family::Llada}) {
        World w(false, family);
        w.options.rl.epochs = w.options.rl.mini_batches = 1;
        double largest = 0;
        const Remasking rules[] = {Remasking::LowConfidenceDynamic, Remasking::Random, Remasking::Margin,
                                   w.config.full_attention ? Remasking::Origin : Remasking::Entropy};
        for (int step = 0; step < 4; step++) {
            w.options.rl.rollout.remasking = rules[step];
            const TraceRlStep s =
                tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, step, {});
            ASSERT_TRUE(s.on_policy);
            ASSERT_GT(s.trained_tokens, 0);
            largest = std::max(largest, s.logprob_mismatch);
            EXPECT_NEAR(s.max_ratio, 1, 1e-4);
        }
        EXPECT_LT(largest, 1e-4);
        // The figures see a difference: an engine that has other weights is another policy ...
        World other(false, family);
        initialize(other.policy->weights, other.config, 6);
        EXPECT_GT(tracerl_step(*w.policy, nullptr, *other.engine, w.codec, w.task, w.options.rl, 8, {})
                      .logprob_mismatch,
                  1e-3);
        // ... and so are weights that changed after the rollout.
        w.options.rl.epochs = 2;
        w.policy->options.lr = 1e-2;
        TraceRlStep s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 9, {});
        EXPECT_GT(s.max_ratio, 1.001);
        // Merged steps are no states of the sampler's: the old policy is evaluated on them, before the first update.
        w.options.rl.rl.shrink = 2;
        s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 10, {});
        EXPECT_FALSE(s.on_policy);
        EXPECT_GT(s.trained_tokens, 0);
        EXPECT_GT(s.max_ratio, 1.001);
    }
}

// Updates that change nothing are all alike, so their mean is any of them.
TEST(TraceRl, FiguresAreMeansOverUpdates) {
    const auto step = [](int epochs) {
        World w(true), other(true);
        initialize(other.policy->weights, other.config, 6);
        initialize(w.value->weights, w.config, 7);
        const Tensor head = w.value->weights.value_head;
        for (int i = 0; i < head.cols; i++) head.as<float>()[i] = i % 2 ? 0.3f : -0.2f;
        w.options.rl.rl.loss.clip_low = w.options.rl.rl.loss.clip_high = 1e-3;
        w.policy->options.lr = w.value->options.lr = 0;
        w.options.rl.epochs = epochs;
        w.options.rl.mini_batches = 1;
        return tracerl_step(*w.policy, w.value.get(), *other.engine, w.codec, w.task, w.options.rl, 0, {});
    };
    const TraceRlStep one = step(1), four = step(4);
    ASSERT_EQ(one.updates, 1);
    ASSERT_EQ(four.updates, 4);
    const auto figures = [](const TraceRlStep& s) {
        return std::vector{s.loss,          s.policy_loss, s.kl, s.value_loss,         s.grad_norm,
                           s.clip_fraction, s.max_ratio,   s.lr, s.explained_variance, s.value_grad_norm};
    };
    for (size_t i = 0; i < figures(one).size(); i++)
        EXPECT_NEAR(figures(four)[i], figures(one)[i], 1e-6 * std::abs(figures(one)[i])) << i;
    EXPECT_GT(one.clip_fraction, 0);
    EXPECT_NE(one.explained_variance, 0);
    EXPECT_EQ(four.trained_tokens, 4 * one.trained_tokens);
}

// Approximate caches: the sampler's states are trained, but the sampler's log-probabilities are not theirs. The old policy is
// the one before the first update, evaluated on what is trained.
TEST(TraceRl, LogProbsOfAnApproximateCacheAreNoOldPolicy) {
    for (const Family family : {Family::Dream, Family::Llada})
        for (const Cache cache : {Cache::None, Cache::Prefix, Cache::Dual}) {
            World w(false, family);
            w.options.rl.rollout.cache = cache;
            w.options.rl.epochs = w.options.rl.mini_batches = 1;
            TraceRlStep s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 0, {});
            ASSERT_GT(s.trained_tokens, 0);
            EXPECT_EQ(s.on_policy, cache == Cache::None);
            EXPECT_NEAR(s.max_ratio, 1, 1e-6);
            w.options.rl.mini_batches = 2;
            w.policy->options.lr = 1e-2;
            s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 1, {});
            EXPECT_GT(s.max_ratio, 1.001);
        }
}

TEST(TraceRl, ResponsesThatMeetTheLimitAreWrong) {
    World w(false);
    w.options.rl.rollout.stop_ids = {BYTE_VOCABULARY - 1};
    w.task.reward = [](const Problem&, std::string_view) { return 1.0; };
    const TraceRlStep s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 0, {});
    EXPECT_EQ(s.rollout.truncated, 1);
    EXPECT_EQ(s.rollout.accuracy, 0);
    EXPECT_EQ(s.n_kept_groups, 0);
    EXPECT_EQ(s.updates, 0);
}

// Which responses are trained under every rule for those that met the limit, from their rewards written out again.
TEST(TraceRl, OverlongResponses) {
    for (const Overlong rule : {Overlong::Zero, Overlong::Keep, Overlong::Mask}) {
        World w(false);
        w.options.rl.overlong = rule;
        w.options.rl.responses = 8;
        w.task.reward = [](const Problem&, std::string_view s) { return 0.25 + double(s.size() % 3) / 4; };
        const TraceRlStep s =
            tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 0, {});
        int truncated = 0, responses = 0, groups = 0;
        for (int p = 0; p < w.options.rl.tasks; p++) {
            std::vector<double> rewards;
            for (const Response& r : s.batch.responses) {
                if (r.problem != p) continue;
                truncated += r.truncated();
                const double judged = 0.25 + double(r.text.size() % 3) / 4;
                EXPECT_EQ(r.reward, r.truncated() && rule != Overlong::Keep ? 0 : judged);
                if (rule != Overlong::Mask || !r.truncated()) rewards.push_back(r.reward);
            }
            if (std::set<double>(rewards.begin(), rewards.end()).size() < 2) continue;
            responses += int(rewards.size());
            groups++;
        }
        EXPECT_GT(truncated, 0);
        EXPECT_LT(truncated, w.options.rl.tasks * 8);
        EXPECT_GT(groups, 0);
        EXPECT_EQ(s.n_responses, responses);
        EXPECT_EQ(s.n_kept_groups, groups);
    }
}

TEST(TraceRl, OtherProblemsAreDrawnWhereNoGroupIsKept) {
    set_quiet(true);
    World w(false);
    int rollouts = 0;
    w.task.judge = [&](std::span<const Answer> answers, const std::function<bool()>&) {
        rollouts++;
        std::vector<Verdict> out(answers.size());
        if (rollouts == 3)
            for (size_t i = 0; i < out.size(); i++) out[i].reward = double(i % 2);
        return out;
    };
    w.options.rl.max_resample = 5;
    const TraceRlStep s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 7, {});
    EXPECT_EQ(rollouts, 3);
    EXPECT_EQ(s.resamples, 2);
    EXPECT_GT(s.updates, 0);
    // It was the run's rollout number 9.
    World other(false);
    other.task.judge = [](std::span<const Answer> answers, const std::function<bool()>&) {
        return std::vector<Verdict>(answers.size());
    };
    other.options.rl.max_resample = 0;
    const TraceRlStep same =
        tracerl_step(*other.policy, nullptr, *other.engine, other.codec, other.task, other.options.rl, 9, {});
    EXPECT_EQ(same.updates, 0);
    for (size_t i = 0; i < s.batch.responses.size(); i++)
        EXPECT_EQ(s.batch.responses[i].trajectory.output_ids, same.batch.responses[i].trajectory.output_ids);
    set_quiet(false);
}

// Two tasks, one of which rewards tokens: those are what the value model learns, the others' reward stays at the end.
TEST(TraceRl, TokenRewardsOfAMixtureReachTheValueModel) {
    for (const bool with_value : {true, false}) {
        World w(with_value);
        w.options.rl.epochs = w.options.rl.mini_batches = 1;
        w.options.rl.rl.loss.gamma = 0;  // a token's return is its own reward
        w.options.rl.rl.value_target = ValueTarget::Raw;
        w.options.rl.tasks = 4;
        const Task sums = w.task;
        w.task.parts = {"sums", "tokens"};
        w.task.problem = [sums](Split split, int64_t i) {
            Problem p = sums.problem(split, i);
            p.part = int(i % 2);
            return p;
        };
        w.task.judge = [](std::span<const Answer> answers, const std::function<bool()>&) {
            std::vector<Verdict> out;
            for (const Answer& a : answers) {
                out.push_back({.reward = double(a.text.size() % 3) / 2, .token_rewards = {}, .graded = true});
                if (a.problem->part == 1) out.back().token_rewards.assign(a.tokens.size(), 0.25);
            }
            return out;
        };
        const TraceRlStep s =
            tracerl_step(*w.policy, w.value.get(), *w.engine, w.codec, w.task, w.options.rl, 0, {});
        EXPECT_EQ(s.unused_token_rewards, !with_value);
        EXPECT_GT(s.trained_tokens, 0);
        int rewarded = 0;
        for (const Response& r : s.batch.responses) {
            const bool of_tokens = with_value && s.batch.problems[size_t(r.problem)].part == 1;
            EXPECT_EQ(r.token_rewards.size(), of_tokens ? r.trajectory.output_ids.size() : 0);
            for (const double x : r.token_rewards) EXPECT_EQ(x, r.truncated() ? 0 : 0.25);
            rewarded += of_tokens && !r.truncated();
        }
        EXPECT_EQ(rewarded > 0, with_value);
        const std::vector<PartStats> parts = s.batch.part_stats(w.task);
        ASSERT_EQ(parts.size(), 2u);
        EXPECT_EQ(parts[0].responses, 8);
        EXPECT_NEAR((parts[0].reward + parts[1].reward) / 2, s.rollout.reward, 1e-12);
        EXPECT_NEAR((parts[0].accuracy + parts[1].accuracy) / 2, s.rollout.accuracy, 1e-12);
    }
}

// The objective on tables worked out by hand, and its derivatives against differences.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/pair_loss.h"
#include "train/objective.h"
#include "utils/philox.h"

namespace {

using Numbers = std::vector<double>;

struct One {
    double policy, kl, d;
};

One policy_of(double logp_new, double logp_old, double advantage, ObjectiveOptions o = {},
              double weight = 1) {
    const std::vector<LossPair> pairs = loss_pairs(Numbers{logp_old}, Numbers{advantage}, Numbers{weight});
    const PolicyLoss loss = policy_loss(Numbers{logp_new}, pairs, o);
    return {loss.policy, loss.kl,
            weight * policy_terms(logp_new, pairs[0], o.clip_low, o.clip_high, o.kl_beta).dlogprob};
}

Sequence with_copies(const std::vector<int>& sizes) {
    Sequence s;
    int position = 0;
    for (const int n : sizes) {
        Copy& copy = s.copies.emplace_back();
        for (int i = 0; i < n; i++) copy.target.push_back(position++);
    }
    s.token.resize(size_t(position));
    return s;
}

}  // namespace

TEST(Objective, OnPolicyGradientIsTheAdvantage) {
    const One x = policy_of(-1.5, -1.5, 0.7);
    EXPECT_DOUBLE_EQ(x.policy, -0.7);
    EXPECT_DOUBLE_EQ(x.kl, 0);
    EXPECT_DOUBLE_EQ(x.d, -0.7);
}

TEST(Objective, ClipsBothSides) {
    ObjectiveOptions o;
    o.kl_beta = 0;
    o.clip_low = 0.2;
    o.clip_high = 0.3;
    const double up = std::log(1.5), down = std::log(0.5);
    struct Row {
        double log_ratio, advantage, surrogate, slope;
    };
    for (const Row& row :
         {Row{up, 2, 1.3 * 2, 0},           // a good token is not pushed up beyond 1 + clip_high
          Row{up, -2, 1.5 * -2, 1.5 * -2},  // a bad one that became likelier is pulled back in full
          Row{down, 2, 0.5 * 2, 0.5 * 2},   // a good one that became unlikelier, too
          Row{down, -2, 0.8 * -2, 0},       // a bad one is not pushed down below 1 - clip_low
          Row{std::log(1.25), 2, 2.5, 2.5}, Row{std::log(0.85), -2, -1.7, -1.7}}) {
        const One x = policy_of(-2 + row.log_ratio, -2, row.advantage, o);
        EXPECT_NEAR(x.policy, -row.surrogate, 1e-12) << row.log_ratio << " " << row.advantage;
        EXPECT_NEAR(x.d, -row.slope, 1e-12) << row.log_ratio << " " << row.advantage;
    }
}

TEST(Objective, K3AndItsSlope) {
    ObjectiveOptions o;
    o.kl_beta = 0.5;
    const One x = policy_of(-2, -1, 0, o);  // d = 1
    EXPECT_NEAR(x.kl, std::exp(1.0) - 2, 1e-12);
    EXPECT_NEAR(x.d, -0.5 * (std::exp(1.0) - 1), 1e-12);
    EXPECT_GT(policy_of(-1, -2, 0, o).kl, 0);  // never negative
}

TEST(Objective, LogRatiosAreClampedWithoutGradientBeyond) {
    ObjectiveOptions o;
    o.kl_beta = 0.1;
    const One far_down = policy_of(-30, -5, 1, o);
    EXPECT_NEAR(far_down.policy, -std::exp(-10.0), 1e-15);
    EXPECT_NEAR(far_down.kl, std::exp(10.0) - 11, 1e-9);
    EXPECT_EQ(far_down.d, 0);
    const One far_up = policy_of(-5, -30, -1, o);
    EXPECT_NEAR(far_up.policy, std::exp(10.0), 1e-9);
    EXPECT_EQ(far_up.d, 0);
}

TEST(Objective, FourNorms) {
    const std::vector<Sequence> update = {with_copies({1, 3}), with_copies({2})};
    EXPECT_EQ(loss_weights(update, LossNorm::Step, 1),
              (std::vector<Numbers>{{0.5, 0.5 / 3, 0.5 / 3, 0.5 / 3}, {0.25, 0.25}}));
    EXPECT_EQ(loss_weights(update, LossNorm::Sequence, 1),
              (std::vector<Numbers>{Numbers(4, 0.125), {0.25, 0.25}}));
    EXPECT_EQ(loss_weights(update, LossNorm::Token, 1),
              (std::vector<Numbers>{Numbers(4, 1 / 6.0), Numbers(2, 1 / 6.0)}));
    EXPECT_EQ(loss_weights(update, LossNorm::Constant, 10),
              (std::vector<Numbers>{Numbers(4, 0.05), Numbers(2, 0.05)}));
}

TEST(Objective, StepReturnsByHand) {
    const Sequence s = with_copies({2, 1});
    Numbers R(3), A(3);
    step_returns(R, A, Numbers{1, 3, 5}, Numbers{0.5, 1.5, 2}, s, 0.5, 0.8);
    // step 2: r* = 5, V* = 2: R* = 5, delta = 3, A* = 3.   step 1: r* = 2, V* = 1
    EXPECT_EQ(R, (Numbers{1 + 2.5, 3 + 2.5, 5}));
    const double next = 0.5 * 2 + 0.5 * 0.8 * 3;  // gamma V* + gamma lambda A*
    EXPECT_NEAR(A[0], 1 - 0.5 + next, 1e-12);
    EXPECT_NEAR(A[1], 3 - 1.5 + next, 1e-12);
    EXPECT_NEAR(A[2], 5 - 2.0, 1e-12);
    EXPECT_EQ(reward_at_end(s, 7), (Numbers{0, 0, 7}));
    EXPECT_EQ(reward_at_end(with_copies({1, 2}), 7), (Numbers{0, 7, 7}));
}

// Proposition 1 (Appendix A of arXiv 2509.06949), its equations (1) and (2): what the recursions come to.
TEST(Objective, StepReturnsAreProposition1) {
    const std::vector<int> sizes = {2, 3, 1, 4, 2};
    const Sequence s = with_copies(sizes);
    Rng rng(3, Stream::Task);
    Numbers r(12), V(12), R(12), A(12);
    for (size_t j = 0; j < 12; j++) r[j] = rng.uniform() - 0.3, V[j] = rng.uniform();
    for (const auto& [gamma, lambda] :
         {std::pair(1.0, 1.0), {0.9, 0.7}, {1.0, 0.3}, {0.8, 1.0}, {0.9, 0.0}}) {
        step_returns(R, A, r, V, s, gamma, lambda);
        for (size_t j = 0, t = 0, begin = 0; t < sizes.size(); begin += size_t(sizes[t++]))
            for (; j < begin + size_t(sizes[t]); j++) {
                double want_R = r[j], want_A = r[j] - V[j];
                size_t l = begin + size_t(sizes[t]);
                for (size_t k = 1; t + k < sizes.size(); k++)
                    for (const size_t end = l + size_t(sizes[t + k]); l < end; l++) {
                        const double share = 1.0 / sizes[t + k];
                        want_R += std::pow(gamma, k) * share * r[l];
                        // (gamma lambda)^k (1 - lambda) / lambda, which at lambda = 0 leaves the next step's value alone
                        want_A +=
                            share * (std::pow(gamma * lambda, k) * r[l] +
                                     std::pow(gamma, k) * std::pow(lambda, k - 1) * (1 - lambda) * V[l]);
                    }
                EXPECT_NEAR(R[j], want_R, 1e-12);
                EXPECT_NEAR(A[j], want_A, 1e-12) << gamma << " " << lambda;
            }
    }
}

TEST(Objective, WithoutValuesUndiscountedEveryTokenGetsTheReward) {
    const Sequence s = with_copies({2, 3, 1, 4});
    Numbers R(10), A(10);
    step_returns(R, A, reward_at_end(s, -0.6), Numbers(10, 0.0), s, 1, 1);
    for (size_t i = 0; i < 10; i++) {
        EXPECT_NEAR(R[i], -0.6, 1e-12);
        EXPECT_NEAR(A[i], -0.6, 1e-12);
    }
}

TEST(Objective, ValueLossClips) {
    struct Row {
        double value, old, ret, loss, d;
    };
    for (const Row& row :
         {Row{1, 1, 2, 0.5, -1},             // inside the clip
          Row{1.5, 1, 2, 0.5 * 0.64, 0},     // moved further than the clip towards the return: held
          Row{0.5, 1, 2, 0.5 * 2.25, -1.5},  // moved away: pulled back in full
          Row{2.5, 1, 0, 0.5 * 6.25, 2.5}}) {
        const std::vector<LossPair> pairs = loss_pairs(Numbers{row.old}, Numbers{row.ret}, Numbers{2});
        EXPECT_NEAR(value_loss(Numbers{row.value}, pairs, 0.2), 2 * row.loss, 1e-12);
        EXPECT_NEAR(value_terms(row.value, pairs[0], 0.2).dvalue, row.d, 1e-12);
    }
}

TEST(Objective, CrossEntropy) {
    const Numbers logprob = {-1, -3};
    const std::vector<LossPair> pairs = cross_entropy_pairs(std::vector<Numbers>{{1, 4}}, 2)[0];
    EXPECT_DOUBLE_EQ(cross_entropy(logprob, pairs), 6.5);
    // Minimised by (3): on policy, so without a ratio to clip and a divergence to weigh, and with A = 1.
    for (size_t i = 0; i < 2; i++)
        EXPECT_EQ(pairs[i].weight * policy_terms(logprob[i], pairs[i], 0, 0, 100).dlogprob, i ? -2 : -0.5);
}

TEST(Objective, ReportsRatiosOutsideTheClip) {
    const Numbers logprob = {-1, -1, -1, -1, -40}, weight(5, 0.2), advantage(5, 1.0);
    const auto old = [&](double x) { return -1 - std::log(x); };
    const PolicyLoss loss = policy_loss(
        logprob, loss_pairs(Numbers{old(1), old(1.25), old(0.75), old(2), -1}, advantage, weight), {});
    EXPECT_EQ(loss.clipped, 4);
    EXPECT_NEAR(loss.max_ratio, 2, 1e-12);
    const PolicyLoss current = policy_loss(logprob, loss_pairs({}, advantage, weight), {});
    EXPECT_EQ(current.clipped, 0);
    EXPECT_EQ(current.max_ratio, 1);
    EXPECT_EQ(current.kl, 0);
}

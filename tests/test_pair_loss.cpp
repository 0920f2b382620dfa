// Derivatives of the pair's losses against differences; the operations on the CPU against those functions.
#include "kernels/pair_loss.h"
#include "tests/kernel_testing.h"
#include "tests/random_pairs.h"

namespace {

constexpr double LOW = 0.2, HIGH = 0.28, BETA = 0.3, CLIP = 0.2;

double policy_loss(double x, const LossPair& pair) {
    const PolicyTerms terms = policy_terms(x, pair, LOW, HIGH, BETA);
    return -terms.surrogate + BETA * terms.k3;
}

}  // namespace

TEST(PairLoss, DerivativesAreThoseOfTheLosses) {
    const double h = 1e-6;
    for (double old = -14.03; old < 10; old += 0.37)  // beyond the clamp on both sides
        for (const double credit : {-1.3, 0.0, 0.8}) {
            const LossPair pair = {.old = old, .credit = credit};
            const double difference = (policy_loss(-2 + h, pair) - policy_loss(-2 - h, pair)) / (2 * h);
            EXPECT_NEAR(policy_terms(-2, pair, LOW, HIGH, BETA).dlogprob, difference,
                        1e-6 * std::max(1.0, std::abs(difference)))
                << old << " " << credit;
            const auto value_loss = [&](double x) { return value_terms(x, pair, CLIP).loss; };
            for (const double value : {old - 1, old - 0.1, old + 0.1, old + 1})
                EXPECT_NEAR(value_terms(value, pair, CLIP).dvalue,
                            (value_loss(value + h) - value_loss(value - h)) / (2 * h), 1e-6)
                    << value << " " << old << " " << credit;
        }
}

// Inside the clip the clipped value is the value, though old + (value - old) may be rounded to another.
TEST(PairLoss, ValuesInsideTheClipKeepTheirGradient) {
    int rounded = 0;
    for (double old = -0.3; old < 0.3; old += 0.0137)
        for (double value = old - 0.19; value < old + 0.19; value += 0.0211)
            for (const double R : {0.0, -1.0, 1.0}) {
                const double x = double(float(value));
                rounded += old + (x - old) != x;
                EXPECT_EQ(value_terms(x, {.old = old, .credit = R}, CLIP).dvalue, x - R) << x << " " << old;
            }
    EXPECT_GT(rounded, 0);
}

TEST(PairLoss, CurrentIsTheOutputItself) {
    const LossPair current = {.old = NAN, .credit = -0.7, .current = 1}, same = {.old = -1.5, .credit = -0.7};
    const PolicyTerms a = policy_terms(-1.5, current, LOW, HIGH, BETA),
                      b = policy_terms(-1.5, same, LOW, HIGH, BETA);
    EXPECT_EQ(a.surrogate, -0.7);
    EXPECT_EQ(a.dlogprob, 0.7);
    EXPECT_EQ(a.ratio, 1);
    EXPECT_EQ(b.surrogate, a.surrogate);
    EXPECT_EQ(b.dlogprob, a.dlogprob);
    EXPECT_EQ(value_terms(-1.5, current, CLIP).loss, value_terms(-1.5, same, CLIP).loss);
    EXPECT_EQ(value_terms(-1.5, current, CLIP).dvalue, -1.5 - -0.7);
}

// A network that is broken must not look well: its loss is not finite, and the policy's gradient neither.
TEST(PairLoss, NaNStaysNaN) {
    for (const int current : {0, 1}) {
        const LossPair pair = {.old = -1, .credit = 0.5, .current = current};
        const PolicyTerms terms = policy_terms(NAN, pair, LOW, HIGH, 0);
        EXPECT_TRUE(std::isnan(terms.surrogate) && std::isnan(terms.k3) && std::isnan(terms.dlogprob));
        EXPECT_TRUE(std::isnan(value_terms(NAN, pair, CLIP).loss));
    }
    EXPECT_TRUE(std::isnan(policy_terms(-1, {.old = NAN, .credit = 0.5}, LOW, HIGH, 0).dlogprob));
}

TEST(PairLoss, CpuAgainstTheFunctions) {
    const auto ops = make_cpu_ops();
    for (const int N : {0, 1, 255, 256, 257, 1000}) {
        std::vector<float> output;
        std::vector<LossPair> pairs;
        random_pairs(output, pairs, N);
        std::vector<float> dlogprob(size_t(N), NAN), dvalue(dlogprob);
        const auto row = [&](std::vector<float>& v) { return tensor(v.data(), 1, N); };
        ops->policy_loss_backward(row(dlogprob), row(output), records(pairs.data(), N), LOW, HIGH, BETA);
        ops->value_loss_backward(row(dvalue), row(output), records(pairs.data(), N), CLIP);
        for (size_t i = 0; i < size_t(N); i++) {
            const double x = double(output[i]);
            EXPECT_EQ(dlogprob[i],
                      float(pairs[i].weight * policy_terms(x, pairs[i], LOW, HIGH, BETA).dlogprob));
            EXPECT_EQ(dvalue[i], float(pairs[i].weight * value_terms(x, pairs[i], CLIP).dvalue));
        }
        if (N > 1) {
            std::vector<float> short_one(size_t(N) - 1);
            EXPECT_THROW(ops->policy_loss_backward(tensor(short_one.data(), 1, N - 1), row(output),
                                                   records(pairs.data(), N), LOW, HIGH, BETA),
                         Error);
        }
    }
}

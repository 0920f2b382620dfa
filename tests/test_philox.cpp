#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "utils/philox.h"

using Block = std::array<uint32_t, 4>;

TEST(Philox, KnownAnswers) {  // Random123's kat_vectors, philox4x32 with 10 rounds
    EXPECT_EQ(philox(0, {0, 0, 0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    const uint32_t ones = 0xffffffff;
    EXPECT_EQ(philox(~uint64_t(0), {ones, ones, ones, ones}),
              (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox(0x299f31d0a4093822, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
              (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformIsBelowOne) {
    EXPECT_EQ(uniform(0), 0.0f);
    EXPECT_EQ(uniform(0xffffffff), 1.0f - 0x1p-24f);
    EXPECT_EQ(uniform(0x80000000), 0.5f);
}

TEST(Rng, StreamsDiffer) {
    std::set<uint32_t> first;
    for (uint64_t seed : {0, 1})
        for (Stream stream : {Stream::Sample, Stream::Init, Stream::Shuffle})
            for (uint32_t substream : {0u, 1u}) first.insert(Rng(seed, stream, substream).next());
    EXPECT_EQ(first.size(), 12u);
    EXPECT_EQ(Rng(3, Stream::Task).next(), Rng(3, Stream::Task).next());
}

TEST(Rng, BelowIsUniform) {
    Rng rng(1, Stream::Task);
    constexpr int N = 7, DRAWS = 70000;
    int count[N] = {};
    for (int i = 0; i < DRAWS; i++) {
        const uint32_t x = rng.below(N);
        ASSERT_LT(x, uint32_t(N));
        count[x]++;
    }
    double chi2 = 0;
    for (int c : count) chi2 += std::pow(c - DRAWS / N, 2) / (DRAWS / double(N));
    EXPECT_LT(chi2, 22.5);  // 6 degrees of freedom: above this once in 1,000 seeds
    EXPECT_EQ(rng.below(1), 0u);
}

TEST(Rng, NormalHasMomentsOfANormal) {
    Rng rng(2, Stream::Init);
    constexpr int N = 40000;
    double sum = 0, squares = 0, fourth = 0;
    for (int i = 0; i < N; i++) {
        const double x = double(rng.normal());
        ASSERT_TRUE(std::isfinite(x));
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    EXPECT_NEAR(sum / N, 0, 4 / std::sqrt(N));
    EXPECT_NEAR(squares / N, 1, 4 * std::sqrt(2.0 / N));
    EXPECT_NEAR(fourth / N, 3, 4 * std::sqrt(96.0 / N));
}

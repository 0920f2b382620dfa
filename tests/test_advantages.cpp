#include <gtest/gtest.h>

#include <cmath>

#include "train/advantages.h"

namespace {

std::vector<std::optional<double>> advantages(const std::vector<std::pair<int64_t, double>>& group_and_reward,
                                              const KeepBand& keep = {}) {
    std::vector<Record> records;
    for (const auto& [group, reward] : group_and_reward) {
        Record& r = records.emplace_back();
        r.group = group;
        r.reward = reward;
    }
    return group_advantages(records, keep);
}

}  // namespace

TEST(Advantages, ZScoreWithPopulationDeviation) {
    // Two groups, interleaved: their members are compared with each other only.
    const auto a = advantages({{7, 1}, {-2, 0.25}, {7, 0}, {-2, 0.75}, {7, 0}, {7, 1}});
    for (const auto& x : a) ASSERT_TRUE(x);
    EXPECT_NEAR(*a[0], 1, 1e-12);
    EXPECT_NEAR(*a[2], -1, 1e-12);
    EXPECT_NEAR(*a[1], -1, 1e-12);
    EXPECT_NEAR(*a[3], 1, 1e-12);
    const auto b = advantages({{0, 1}, {0, 0}, {0, 0}, {0, 0}});
    EXPECT_NEAR(*b[0], std::sqrt(3.0), 1e-12);
    EXPECT_NEAR(*b[1], -1 / std::sqrt(3.0), 1e-12);
}

TEST(Advantages, AllEqualIsDroppedWhateverTheBand) {
    for (const double reward : {0.0, 0.1, 0.5, 1.0}) {
        for (const auto& x : advantages({{0, reward}, {0, reward}, {0, reward}}, {.all = true}))
            EXPECT_FALSE(x);
        for (const auto& x : advantages({{0, reward}})) EXPECT_FALSE(x);
    }
}

// Means over tokens come out as equal up to rounding, which is nothing to learn from.
TEST(Advantages, EqualUpToRoundingIsDropped) {
    ASSERT_NE(0.1 + 0.2, 0.3);
    for (const auto& x : advantages({{0, 0.1 + 0.2}, {0, 0.3}, {0, 0.3}}, {.all = true})) EXPECT_FALSE(x);
    for (const auto& x : advantages({{0, -0.1 - 0.2}, {0, -0.3}}, {.all = true})) EXPECT_FALSE(x);
    for (const double little : {1e-6, -1e-6})  // small rewards are rewards
        for (const auto& x : advantages({{0, little}, {0, 0}}, {.all = true})) EXPECT_TRUE(x);
    for (const auto& x : advantages({{0, 1e-300}, {0, 0}}, {.all = true})) EXPECT_FALSE(x);
}

TEST(Advantages, BandKeepsItsEdges) {
    const auto kept = [](std::vector<double> rewards, const KeepBand& keep) {
        std::vector<std::pair<int64_t, double>> in;
        for (const double r : rewards) in.emplace_back(0, r);
        return advantages(in, keep)[0].has_value();
    };
    const KeepBand band;
    EXPECT_TRUE(kept({1, 0, 0, 0, 0}, band));      // 0.2
    EXPECT_TRUE(kept({1, 1, 1, 1, 0}, band));      // 0.8
    EXPECT_TRUE(kept({0.7, 0.8, 0.9}, band));      // 0.8, rounded up
    EXPECT_FALSE(kept({1, 0, 0, 0, 0, 0}, band));  // 1/6
    EXPECT_FALSE(kept({1, 1, 1, 1, 1, 0}, band));  // 5/6
    EXPECT_FALSE(kept({1, 0, 0}, {.all = false, .low = 0.4, .high = 0.8}));
    EXPECT_TRUE(kept({1, 0, 0, 0, 0, 0}, {.all = true}));
}

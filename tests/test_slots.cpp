#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "inference/slots.h"
#include "utils/error.h"
#include "utils/philox.h"

TEST(Slots, FirstFitAndJoinedOnRelease) {
    SlotAllocator slots(10);
    EXPECT_EQ(slots.allocate(4), 0);
    EXPECT_EQ(slots.allocate(4), 4);
    EXPECT_EQ(slots.allocate(4), -1);
    EXPECT_EQ(slots.n_free(), 2);
    slots.release(0, 4);
    EXPECT_EQ(slots.allocate(5), -1);  // 6 are free, in two runs
    EXPECT_EQ(slots.allocate(2), 0);
    slots.release(4, 4);
    EXPECT_EQ(slots.allocate(8), 2);  // 2-4, 4-8 and 8-10 are one run again
    EXPECT_EQ(slots.n_free(), 0);
    EXPECT_EQ(slots.allocate(0), 0);
    EXPECT_THROW(slots.release(8, 4), Error);
    slots.release(2, 8);
    EXPECT_THROW(slots.release(4, 2), Error);
}

TEST(Slots, ExtendTakesWhatIsBehind) {
    SlotAllocator slots(10);
    EXPECT_EQ(slots.allocate(3), 0);
    EXPECT_TRUE(slots.extend(0, 3, 2));  // already long enough
    EXPECT_TRUE(slots.extend(0, 3, 6));
    EXPECT_EQ(slots.n_free(), 4);
    EXPECT_EQ(slots.allocate(2), 6);
    EXPECT_FALSE(slots.extend(0, 6, 7));
    EXPECT_TRUE(slots.extend(6, 2, 4));
    EXPECT_TRUE(slots.extend(6, 4, 4));  // nothing is behind it, nor asked for
    EXPECT_EQ(slots.n_free(), 0);
}

// Random traffic against an array of flags.
TEST(Slots, NeverGivesASlotTwice) {
    Rng rng(1, Stream::Task);
    SlotAllocator slots(64);
    std::vector<char> taken(64, 0);
    std::vector<std::pair<int, int>> runs;
    for (int i = 0; i < 2000; i++) {
        if (runs.empty() || rng.below(2)) {
            const int n = 1 + int(rng.below(12)), begin = slots.allocate(n);
            if (begin < 0) {
                for (int b = 0; b + n <= 64; b++)
                    ASSERT_TRUE(
                        std::any_of(&taken[size_t(b)], &taken[size_t(b)] + n, [](char t) { return t; }));
                continue;
            }
            for (int s = begin; s < begin + n; s++) {
                ASSERT_FALSE(taken[size_t(s)]);
                taken[size_t(s)] = 1;
            }
            runs.push_back({begin, n});
        } else {
            const size_t which = rng.below(uint32_t(runs.size()));
            const auto [begin, n] = runs[which];
            runs.erase(runs.begin() + long(which));
            slots.release(begin, n);
            for (int s = begin; s < begin + n; s++) taken[size_t(s)] = 0;
        }
        ASSERT_EQ(slots.n_free(), int(std::count(taken.begin(), taken.end(), 0)));
    }
}

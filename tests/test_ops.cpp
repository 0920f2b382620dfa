// What ops.h itself defines: sizes of recordings, records in tensors, the loop of ops that record nothing.
#include "kernels/ops.h"
#include "tests/kernel_testing.h"

TEST(SizeBucket, HasEightStepsPerPowerOfTwo) {
    for (int n = 0; n <= 16; n++) EXPECT_EQ(size_bucket(n), n);
    EXPECT_EQ(size_bucket(17), 18);
    EXPECT_EQ(size_bucket(32), 32);
    EXPECT_EQ(size_bucket(33), 36);
    EXPECT_EQ(size_bucket(129), 144);
    EXPECT_EQ(size_bucket(512), 512);
    EXPECT_EQ(size_bucket(513), 576);
    for (int n = 17; n < 5000; n++) {
        EXPECT_GE(size_bucket(n), n);
        EXPECT_LE(size_bucket(n), n + n / 8) << n;
        EXPECT_EQ(size_bucket(size_bucket(n)), size_bucket(n));  // a bucket is its own
    }
}

TEST(CoarseBucket, HasTwoStepsPerPowerOfTwo) {
    std::vector<int> buckets = {0};
    for (int n = 0; n <= 100; n++) {
        EXPECT_GE(coarse_bucket(n), n);
        EXPECT_EQ(coarse_bucket(coarse_bucket(n)), coarse_bucket(n));
        if (coarse_bucket(n) != buckets.back()) buckets.push_back(coarse_bucket(n));
    }
    EXPECT_EQ(buckets, (std::vector{0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128}));
}

TEST(Records, AreRowsOfIntegers) {
    std::vector<RevealTarget> targets(3);
    targets[2].token = 7;
    const Tensor t = records(targets.data(), 3);
    EXPECT_EQ(t.rows, 3);
    EXPECT_EQ(t.bytes(), 3 * sizeof(RevealTarget));
    EXPECT_EQ(records_of<RevealTarget>(t)[2].token, 7);
    EXPECT_THROW(records_of<SampleRow>(t), Error);
}

TEST(Ops, RepeatWhileAsksBeforeEveryStep) {
    const auto ops = make_cpu_ops();
    int running = 0, steps = 0;
    const Tensor flag = tensor(&running, 1, 1, DType::I32);
    const auto step = [&] { running = ++steps < 4; };
    ops->repeat_while(flag, {}, step);
    EXPECT_EQ(steps, 0);
    running = 1;
    ops->repeat_while(flag, {}, step);
    EXPECT_EQ(steps, 4);
}

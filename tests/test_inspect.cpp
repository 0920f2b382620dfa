#include <gtest/gtest.h>

#include <cmath>

#include "tests/temporary_folder.h"
#include "weights_tools/inspect.h"

static void nothing(uint64_t) {}

static WeightFiles write(const std::string& path, std::vector<float> x, std::vector<float> y,
                         DType dtype = DType::F32) {
    save_tensors(path, {{"x", tensor(x.data(), 1, int64_t(x.size())), true, dtype},
                        {"y", tensor(y.data(), 1, int64_t(y.size())), true, dtype}});
    return WeightFiles(path);
}

TEST(Inspect, NonFiniteNumbersAreCounted) {
    const TemporaryFolder folder;
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const WeightFiles weights =
            write(folder.file("a"), {1, NAN, INFINITY, -INFINITY, NAN, NAN}, {0, 3e38f, -1e-40f}, dtype);
        const std::vector<NonFinite> found = find_non_finite(weights, nothing);
        ASSERT_EQ(found.size(), 1u);
        EXPECT_EQ(found[0].name, "x");
        EXPECT_EQ(found[0].nan, 3);
        EXPECT_EQ(found[0].infinite, 2);
    }
}

TEST(Inspect, DifferencesPerTensor) {
    const TemporaryFolder folder;
    const WeightFiles a = write(folder.file("a"), {3, 4}, {1, NAN}),
                      b = write(folder.file("b"), {3, 4.5f}, {1, NAN});
    const std::vector<TensorDifference> d = compare(a, b, nothing);
    ASSERT_EQ(d.size(), 2u);
    EXPECT_EQ(d[0].name, "x");
    EXPECT_DOUBLE_EQ(d[0].largest, 0.5);
    EXPECT_DOUBLE_EQ(d[0].relative, 0.5 / std::sqrt(9 + 4.5 * 4.5));
    EXPECT_EQ(d[1].largest, 0);  // NaN in the same place
    const WeightFiles c = write(folder.file("c"), {NAN, 4}, {0, 0}),
                      z = write(folder.file("z"), {3, 4}, {0, 1});
    EXPECT_TRUE(std::isinf(compare(c, z, nothing)[0].largest));
    EXPECT_TRUE(std::isinf(compare(z, c, nothing)[1].relative));
    EXPECT_EQ(compare(c, c, nothing)[1].relative, 0);
}

TEST(Inspect, WhatCannotBeComparedIsSaid) {
    const TemporaryFolder folder;
    std::vector<float> x(6);
    save_tensors(folder.file("a"), {{"x", tensor(x.data(), 2, 3)}, {"only_a", tensor(x.data(), 1, 1)}});
    save_tensors(folder.file("b"), {{"x", tensor(x.data(), 3, 2)}, {"only_b", tensor(x.data(), 1, 1)}});
    const std::vector<TensorDifference> d =
        compare(WeightFiles(folder.file("a")), WeightFiles(folder.file("b")), nothing);
    ASSERT_EQ(d.size(), 3u);
    EXPECT_EQ(d[0].mismatch, "only in " + folder.file("a"));
    EXPECT_EQ(d[1].mismatch, "(2, 3) and (3, 2)");
    EXPECT_EQ(d[2].mismatch, "only in " + folder.file("b"));
}

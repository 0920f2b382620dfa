// The squared norm of gradients on CUDA against the reference.
#include "tests/cuda_shapes.h"
// after the references' scalar
#include "kernels/sum_of_squares.h"

class CudaSumOfSquares : public CudaShapes {};

TEST_P(CudaSumOfSquares, AgreesWithTheReference) {
    DeviceMatrix x = random(T, C, 1);
    const std::vector<double> xs = x.values();
    const Tensor t = x;
    EXPECT_NEAR(ops->sum_of_squares({&t, 1}), ref::sum_of_squares(xs.data(), int64_t(xs.size())),
                1e-12 * T * C);
}

INSTANTIATE_TEST_SUITE_P(Ragged, CudaSumOfSquares, RAGGED_WITHOUT_GAPS);

// Integers: no rounding. One element below, at and above the ranges of 8192, and more ranges than threads; the same from an address
// that is no pack's; and all of them together.
TEST(CudaSumOfSquares, IsExactOverManyRanges) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    std::vector<std::unique_ptr<DeviceMatrix>> all;
    std::vector<Tensor> tensors;
    double total = 0;
    for (const DType dtype : {DType::F32, DType::BF16})
        for (const int n : {1, 7, 8191, 8192, 8193, 3 * 8192 + 5, 260 * 8192 + 1}) {
            std::vector<float> values(static_cast<size_t>(n));
            double want = 0;
            for (int i = 0; i < n; i++)
                values[size_t(i)] = float(i % 7 - 2), want += double((i % 7 - 2) * (i % 7 - 2));
            all.push_back(std::make_unique<DeviceMatrix>(*ops, 1, n, dtype, values));
            const Tensor t = *all.back(), rest = t.col_range(1, n);
            EXPECT_EQ(ops->sum_of_squares({&t, 1}), want) << n;
            EXPECT_EQ(ops->sum_of_squares({&rest, 1}), want - 4) << n << " but the first";
            tensors.insert(tensors.end(), {t, rest});
            total += 2 * want - 4;
        }
    EXPECT_EQ(ops->sum_of_squares(tensors), total);
    EXPECT_EQ(ops->sum_of_squares({}), 0);
}

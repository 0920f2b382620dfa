// The squared norm of a gradient on CUDA against the reference.
#include "tests/cuda_shapes.h"
// after the references' scalar
#include "kernels/sum_of_squares.h"

class CudaSumOfSquares : public CudaShapes {};

TEST_P(CudaSumOfSquares, AgreesWithTheReference) {
    DeviceMatrix x = random(T, C, 1);
    const std::vector<double> xs = x.values();
    EXPECT_NEAR(ops->sum_of_squares(x), ref::sum_of_squares(xs.data(), int64_t(xs.size())), 1e-12 * T * C);
}

INSTANTIATE_TEST_SUITE_P(Ragged, CudaSumOfSquares, RAGGED);

// Integers: no rounding. One element below, at and above the ranges of 8192, and more ranges than threads.
TEST(CudaSumOfSquares, IsExactOverManyRanges) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    for (const int n : {1, 8191, 8192, 8193, 3 * 8192 + 5, 260 * 8192 + 1}) {
        std::vector<float> values(static_cast<size_t>(n));
        double want = 0;
        for (int i = 0; i < n; i++)
            values[size_t(i)] = float(i % 7 - 2), want += double((i % 7 - 2) * (i % 7 - 2));
        const DeviceMatrix x(*ops, 1, n, DType::F32, values);
        EXPECT_EQ(ops->sum_of_squares(x), want) << n;
    }
}

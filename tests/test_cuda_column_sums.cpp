// Sums over rows on CUDA, for the gradients of vectors: of the value head, whose rows have weights, and of biases, which may
// have more rows than there are runs to sum them in.
#include "tests/cuda_shapes.h"
// after the references' scalar
#include "kernels/value_head.h"

class CudaColumnSums : public CudaShapes {};

TEST_P(CudaColumnSums, ValueHead) {
    DeviceMatrix x = random(T, C, 1), w = random_vector(C, 2), value = statistic(T),
                 dx(*ops, T, C, dtype, gap);
    DeviceMatrix dw = gradient_vector(C, 3), dvalue(*ops, 1, T, DType::F32, random_floats(size_t(T), 4));
    const Expected want(dtype, [&]<class X>(X) {
        std::vector<X> v(static_cast<size_t>(T)), gx(size_t(T * C)), gw = dw.values<X>();
        const auto xs = x.values<X>(), ws = w.values<X>(), ds = dvalue.values<X>();
        ref::value_head_forward<X>(v.data(), rows(xs, C), ws.data(), T, C);
        ref::value_head_backward<X>(rows(gx, C), gw.data(), ds.data(), rows(xs, C), ws.data(), T, C);
        return Vectors<X>{v, gx, gw};
    });
    ops->value_head_forward(value, x, w);
    ops->value_head_backward(dx, dw, dvalue, x, w);
    want.check(value, 0, "value", false);
    want.check(dx, 1, "dhidden");
    want.check(dw, 2, "dweight", false);
}

INSTANTIATE_TEST_SUITE_P(Ragged, CudaColumnSums, RAGGED);

// Small integers: every order of additions gives the same.
TEST(CudaColumnSums, OfManyRows) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests(size_t(4) << 20);
    for (const auto& [dtype, N] : {std::pair(DType::F32, 70), {DType::F32, 136}, {DType::BF16, 272}})
        for (const int T : {15, 16, 17, 2048, 2049, 5000}) {
            std::vector<float> values;
            for (const int x : random_ints(size_t(T * N), 9, uint32_t(T))) values.push_back(float(x - 3));
            const DeviceMatrix d(*ops, T, N, dtype, values),
                x(*ops, T, 1, dtype, std::vector<float>(size_t(T)));
            DeviceMatrix db(*ops, 1, N, DType::F32, std::vector<float>(size_t(N), 5));
            const DeviceMatrix w(*ops, N, 1, dtype, std::vector<float>(size_t(N)));
            ops->linear_backward({}, {}, db, d, x, w);
            std::vector<double> want(size_t(N), 5);
            for (int t = 0; t < T; t++)
                for (int n = 0; n < N; n++) want[size_t(n)] += double(values[size_t(t * N + n)]);
            EXPECT_EQ(db.read(), want) << T << " rows of " << name_of(dtype);
        }
}

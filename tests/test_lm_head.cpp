#include "kernels/lm_head.h"
#include "tests/kernel_testing.h"

namespace {

TEST(LmHead, BackwardAgainstComplexStep) {
    const int N = 3, C = 4, V = 6;
    const std::vector<int> target = {5, 0, 5};
    const auto x = normals(N * C, 1), w = normals(V * C, 2), d = normals(N, 3);
    std::vector<double> logprob(N), lse(N), entropy(N), dx(N * C, 99.0), dw(V * C, 0.5);
    ref::head_logprob<double>(logprob.data(), lse.data(), entropy.data(), rows(x, C), rows(w, C),
                              target.data(), N, C, V);
    ref::head_backward<double>(rows(dx, C), rows(dw, C), d.data(), lse.data(), rows(x, C), rows(w, C),
                               target.data(), N, C, V);
    for (double& g : dw) g -= 0.5;
    expect_gradients({x, w}, {dx, dw}, [&](const Vectors<Complex>& in) {
        std::vector<Complex> p(N), l(N);
        ref::head_logprob<Complex>(p.data(), l.data(), nullptr, rows(in[0], C), rows(in[1], C), target.data(),
                                   N, C, V);
        return dot(p, d);
    });
}

TEST(LmHead, EntropyIsThatOfTheSoftmax) {
    const int C = 1, V = 4;
    const std::vector<double> x = {1}, uniform = {2, 2, 2, 2}, sharp = {100, 0, 0, 0};
    const int target = 0;
    double logprob, lse, entropy;
    ref::head_logprob<double>(&logprob, &lse, &entropy, rows(x, C), rows(uniform, C), &target, 1, C, V);
    EXPECT_NEAR(entropy, std::log(4.0), 1e-12);
    EXPECT_NEAR(logprob, -std::log(4.0), 1e-12);
    ref::head_logprob<double>(&logprob, &lse, &entropy, rows(x, C), rows(sharp, C), &target, 1, C, V);
    EXPECT_NEAR(entropy, 0, 1e-12);
}

struct Shape {
    int N, C, V, gap;
};
class LmHeadShapes : public testing::TestWithParam<Shape> {};

TEST_P(LmHeadShapes, CpuAgainstReference) {
    const auto [N, C, V, gap] = GetParam();
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        Matrix x = Matrix::random(N, C, 1, gap), w = Matrix::random(V, C, 2, 0, 0.5),
               d = Matrix::random(1, N, 3);
        Matrix logprob(1, N), lse(1, N), entropy(1, N), dx(N, C, gap, 9), dw = Matrix::random(V, C, 4);
        std::vector<int> target = random_ints(size_t(N), V, 5);
        target[0] = V - 1;
        const auto run = [&]<class S>(S) {
            const size_t n = size_t(N);
            std::vector<S> p(n), l(n), e(n), gx(size_t(N * C)), gw = dw.values<S>();
            const auto xs = x.values<S>(), ws = w.values<S>(), ds = d.values<S>();
            ref::head_logprob<S>(p.data(), l.data(), e.data(), rows(xs, C), rows(ws, C), target.data(), N, C,
                                 V);
            ref::head_backward<S>(rows(gx, C), rows(gw, C), ds.data(), l.data(), rows(xs, C), rows(ws, C),
                                  target.data(), N, C, V);
            return Vectors<S>{p, l, e, gx, gw};
        };
        const auto exact = run(double());
        const auto single = run(float());
        ops->head_logprob(logprob, lse, entropy, x, w, ints(target));
        expect_close(logprob, exact[0], single[0]);
        expect_close(lse, exact[1], single[1]);
        expect_close(entropy, exact[2], single[2]);
        Matrix logprob_alone(1, N), lse_alone(1, N), dx_alone(N, C);
        ops->head_logprob(logprob_alone, lse_alone, {}, x, w, ints(target));  // entropy may be absent
        EXPECT_EQ(logprob.values<float>(), logprob_alone.values<float>());
        ops->head_backward(dx_alone, {}, d, lse, x, w, ints(target));  // so may dweight
        ops->head_backward(dx, dw, d, lse, x, w, ints(target));
        expect_close(dx, exact[3], single[3]);
        expect_close(dw, exact[4], single[4]);
        EXPECT_EQ(dx.values<float>(), dx_alone.values<float>());
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, LmHeadShapes,
                         testing::Values(Shape{1, 1, 1, 0}, Shape{1, 16, 7, 0}, Shape{5, 33, 300, 3},
                                         Shape{67, 20, 37, 1}, Shape{129, 16, 259, 0}, Shape{3, 17, 2111, 0},
                                         Shape{260, 24, 1031, 0}));

TEST(LmHead, Bf16WeightsAndRowIndependence) {
    const int N = 37, C = 45, V = 1033;
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        Matrix x = Matrix::random(N, C, 1), w = Matrix::random(V, C, 2), a(1, N), b(1, N), lse(1, N),
               entropy(1, N);
        std::vector<Bf16> half = w.round_to_bf16();
        std::vector<int> target = random_ints(N, V, 3);
        ops->head_logprob(a, lse, entropy, x, w, ints(target));
        ops->head_logprob(b, lse, entropy, x, tensor(half.data(), V, C, DType::BF16), ints(target));
        EXPECT_EQ(a.values<float>(), b.values<float>());
        for (int n = 0; n < N; n++) {
            Matrix p(1, 1), l(1, 1), e(1, 1);
            std::vector<int> one = {target[size_t(n)]};
            ops->head_logprob(p, l, e, x.tensor().row_range(n, n + 1), w, ints(one));
            ASSERT_EQ(p.at(0, 0), a.at(0, n));
            ASSERT_EQ(e.at(0, 0), entropy.at(0, n));
        }
    }
}

TEST(LmHead, RefusesTargetsOutsideTheVocabulary) {
    Matrix x(1, 2), w(3, 2), p(1, 1), l(1, 1);
    for (int id : {-1, 3}) {
        std::vector<int> target = {id};
        EXPECT_THROW(make_cpu_ops()->head_logprob(p, l, {}, x, w, ints(target)), Error);
    }
}

}  // namespace

#include "kernels/value_head.h"
#include "tests/kernel_testing.h"

namespace {

TEST(ValueHead, BackwardAgainstComplexStep) {
    const int N = 3, C = 5;
    const auto x = normals(N * C, 1), w = normals(C, 2), d = normals(N, 3);
    std::vector<double> dx(N * C, 99.0), dw(C, 0.5);
    ref::value_head_backward<double>(rows(dx, C), dw.data(), d.data(), rows(x, C), w.data(), N, C);
    for (double& g : dw) g -= 0.5;
    expect_gradients({x, w}, {dx, dw}, [&](const Vectors<Complex>& in) {
        std::vector<Complex> o(N);
        ref::value_head_forward<Complex>(o.data(), rows(in[0], C), in[1].data(), N, C);
        return dot(o, d);
    });
}

struct Shape {
    int N, C, gap;
};
class ValueHeadShapes : public testing::TestWithParam<Shape> {};

TEST_P(ValueHeadShapes, CpuAgainstReference) {
    const auto [N, C, gap] = GetParam();
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(N, C, 1, gap), w = Matrix::random(1, C, 2), d = Matrix::random(1, N, 3),
               value(1, N), dx(N, C, gap), dw = Matrix::random(1, C, 4);
        const auto run = [&]<class S>(S) {
            std::vector<S> o(static_cast<size_t>(N)), gx(size_t(N * C)), gw = dw.values<S>();
            const auto xs = x.values<S>(), ws = w.values<S>(), ds = d.values<S>();
            ref::value_head_forward<S>(o.data(), rows(xs, C), ws.data(), N, C);
            ref::value_head_backward<S>(rows(gx, C), gw.data(), ds.data(), rows(xs, C), ws.data(), N, C);
            return Vectors<S>{o, gx, gw};
        };
        const auto exact = run(double());
        const auto single = run(float());
        ops->value_head_forward(value, x, w);
        ops->value_head_backward(dx, dw, d, x, w);
        expect_close(value, exact[0], single[0]);
        expect_close(dx, exact[1], single[1]);
        expect_close(dw, exact[2], single[2]);
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, ValueHeadShapes,
                         testing::Values(Shape{1, 1, 0}, Shape{3, 17, 5}, Shape{131, 67, 1},
                                         Shape{16, 128, 0}));

}  // namespace

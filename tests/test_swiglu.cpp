#include "kernels/swiglu.h"
#include "tests/kernel_testing.h"

namespace {

TEST(Swiglu, BackwardAgainstComplexStep) {
    const int T = 3, F = 5;
    const auto x = normals(T * 2 * F, 1, 2), d = normals(T * F, 2);
    std::vector<double> dx(T * 2 * F);
    ref::swiglu_backward<double>(rows(dx, 2 * F), rows(d, F), rows(x, 2 * F), T, F);
    expect_gradients({x}, {dx}, [&](const Vectors<Complex>& in) {
        std::vector<Complex> o(T * F);
        ref::swiglu_forward<Complex>(rows(o, F), rows(in[0], 2 * F), T, F);
        return dot(o, d);
    });
}

struct Shape {
    int T, F, gap;
};
class SwigluShapes : public testing::TestWithParam<Shape> {};

TEST_P(SwigluShapes, CpuAgainstReference) {
    const auto [T, F, gap] = GetParam();
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        Matrix x = Matrix::random(T, 2 * F, 1, gap, 5), d = Matrix::random(T, F, 2, gap), out(T, F, gap),
               dx(T, 2 * F, gap);
        x.at(0, 0) = 200, x.at(T - 1, F - 1) = -200;  // exp overflows and underflows
        const auto run = [&]<class S>(S) {
            std::vector<S> o(size_t(T * F)), gx(size_t(T * 2 * F));
            const auto xs = x.values<S>(), ds = d.values<S>();
            ref::swiglu_forward<S>(rows(o, F), rows(xs, 2 * F), T, F);
            ref::swiglu_backward<S>(rows(gx, 2 * F), rows(ds, F), rows(xs, 2 * F), T, F);
            return Vectors<S>{o, gx};
        };
        const auto exact = run(double());
        const auto single = run(float());
        ops->swiglu_forward(out, x);
        ops->swiglu_backward(dx, d, x);
        expect_close(out, exact[0], single[0]);
        expect_close(dx, exact[1], single[1]);
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, SwigluShapes,
                         testing::Values(Shape{1, 2, 0}, Shape{1, 16, 0}, Shape{3, 17, 5}, Shape{67, 97, 1},
                                         Shape{5, 384, 0}));

}  // namespace

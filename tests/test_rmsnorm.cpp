#include "kernels/rmsnorm.h"
#include "tests/kernel_testing.h"

namespace {

constexpr double EPS = 1e-6;

TEST(RmsNorm, BackwardAgainstComplexStep) {
    const int T = 3, C = 7;
    const auto x = normals(T * C, 1), w = normals(C, 2, 0.2, 1), d = normals(T * C, 3),
               resid = normals(T * C, 4);
    std::vector<double> out(T * C), rstd(T), dx = resid, dw(C, 0.5);
    ref::rmsnorm_forward<double>(rows(out, C), rstd.data(), rows(x, C), w.data(), T, C, EPS);
    ref::rmsnorm_backward<double>(rows(dx, C), dw.data(), rows(d, C), rstd.data(), rows(x, C), w.data(), T,
                                  C);
    for (size_t i = 0; i < dx.size(); i++) dx[i] -= resid[i];  // += onto the residual stream
    for (double& g : dw) g -= 0.5;
    expect_gradients({x, w}, {dx, dw}, [&](const Vectors<Complex>& in) {
        std::vector<Complex> o(T * C), r(T);
        ref::rmsnorm_forward<Complex>(rows(o, C), r.data(), rows(in[0], C), in[1].data(), T, C, EPS);
        return dot(o, d);
    });
}

struct Shape {
    int T, C, gap;
};
class RmsNormShapes : public testing::TestWithParam<Shape> {};

TEST_P(RmsNormShapes, CpuAgainstReference) {
    const auto [T, C, gap] = GetParam();
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        Matrix x = Matrix::random(T, C, 1, gap), w = Matrix::random(1, C, 2, 0, 0.2, 1),
               d = Matrix::random(T, C, 3, gap + 1);
        Matrix out(T, C, gap), rstd(1, T), dx = Matrix::random(T, C, 4, gap), dw = Matrix::random(1, C, 5);
        const auto run = [&]<class S>(S) {
            std::vector<S> o(size_t(T * C)), r(size_t(T), S(0)), gx = dx.values<S>(), gw = dw.values<S>();
            const auto xs = x.values<S>(), ws = w.values<S>(), ds = d.values<S>();
            ref::rmsnorm_forward<S>(rows(o, C), r.data(), rows(xs, C), ws.data(), T, C, EPS);
            ref::rmsnorm_backward<S>(rows(gx, C), gw.data(), rows(ds, C), r.data(), rows(xs, C), ws.data(), T,
                                     C);
            return Vectors<S>{o, r, gx, gw};
        };
        const auto exact = run(double());
        const auto single = run(float());
        ops->rmsnorm_forward(out, rstd, x, w, float(EPS));
        ops->rmsnorm_backward(dx, dw, d, rstd, x, w);
        expect_close(out, exact[0], single[0]);
        expect_close(rstd, exact[1], single[1]);
        expect_close(dx, exact[2], single[2]);
        expect_close(dw, exact[3], single[3]);
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, RmsNormShapes,
                         testing::Values(Shape{1, 1, 0}, Shape{1, 128, 0}, Shape{3, 17, 5}, Shape{67, 129, 3},
                                         Shape{130, 64, 0}));

}  // namespace

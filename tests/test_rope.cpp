#include "kernels/rope.h"
#include "tests/kernel_testing.h"

namespace {

constexpr double EPS = 1e-6;

std::vector<double> rope_table(int positions, int HD) {
    std::vector<double> table;
    for (int p = 0; p < positions; p++)
        for (int part = 0; part < 2; part++)
            for (int i = 0; i < HD / 2; i++) {
                const double angle = p * std::pow(10000.0, -2.0 * i / HD);
                table.push_back(part ? std::sin(angle) : std::cos(angle));
            }
    return table;
}

TEST(Rope, BackwardAgainstComplexStep) {
    const int T = 3, H = 2, HD = 6, C = H * HD;
    const std::vector<int> position = {5, 0, 5};
    const auto table = rope_table(6, HD);
    const std::vector<Complex> table_complex(table.begin(), table.end());
    const auto x = normals(T * C, 1), w = normals(HD, 2, 0.2, 1), d = normals(T * C, 3);
    for (bool norm : {true, false}) {
        std::vector<double> out(T * C), rstd(T * H), dx(T * C), dw(HD, 0.5);
        const double* weight = norm ? w.data() : nullptr;
        ref::head_norm_rope_forward<double>(rows(out, C), rows(rstd, H), rows(x, C), weight, position.data(),
                                            rows(table, HD), T, H, HD, EPS);
        ref::head_norm_rope_backward<double>(rows(dx, C), dw.data(), rows(d, C), rows(rstd, H), rows(x, C),
                                             weight, position.data(), rows(table, HD), T, H, HD);
        for (double& g : dw) g -= 0.5;
        expect_gradients({x, w}, {dx, dw}, [&](const Vectors<Complex>& in) {
            std::vector<Complex> o(T * C), r(T * H);
            ref::head_norm_rope_forward<Complex>(rows(o, C), rows(r, H), rows(in[0], C),
                                                 norm ? in[1].data() : nullptr, position.data(),
                                                 rows(table_complex, HD), T, H, HD, EPS);
            return dot(o, d);
        });
    }
}

struct Shape {
    int T, H, HD, gap;
    bool norm;
};
class RopeShapes : public testing::TestWithParam<Shape> {};

TEST_P(RopeShapes, CpuAgainstReference) {
    const auto [T, H, HD, gap, norm] = GetParam();
    const int C = H * HD, positions = 50;
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        Matrix x = Matrix::random(T, C, 1, gap), w = Matrix::random(1, HD, 2, 0, 0.2, 1),
               d = Matrix::random(T, C, 3, gap), table(positions, HD);
        Matrix out(T, C, gap), rstd(T, H), dx(T, C, gap), dw = Matrix::random(1, HD, 4);
        const auto exact_table = rope_table(positions, HD);
        for (int p = 0; p < positions; p++)
            for (int i = 0; i < HD; i++) table.at(p, i) = float(exact_table[size_t(p * HD + i)]);
        std::vector<int> position = random_ints(size_t(T), positions, 5);
        const auto run = [&]<class S>(S) {
            std::vector<S> o(size_t(T * C)), r(size_t(T * H)), gx(size_t(T * C)), gw = dw.values<S>();
            const auto xs = x.values<S>(), ws = w.values<S>(), ds = d.values<S>(), ts = table.values<S>();
            const S* weight = norm ? ws.data() : nullptr;
            ref::head_norm_rope_forward<S>(rows(o, C), rows(r, H), rows(xs, C), weight, position.data(),
                                           rows(ts, HD), T, H, HD, EPS);
            ref::head_norm_rope_backward<S>(rows(gx, C), gw.data(), rows(ds, C), rows(r, H), rows(xs, C),
                                            weight, position.data(), rows(ts, HD), T, H, HD);
            return Vectors<S>{o, r, gx, gw};
        };
        const auto exact = run(double());
        const auto single = run(float());
        const Tensor weight = norm ? w.tensor() : Tensor(), dweight = norm ? dw.tensor() : Tensor();
        ops->head_norm_rope_forward(out, rstd, x, weight, ints(position), table, H, float(EPS));
        ops->head_norm_rope_backward(dx, dweight, d, rstd, x, weight, ints(position), table, H);
        expect_close(out, exact[0], single[0]);
        if (norm) expect_close(rstd, exact[1], single[1]);
        expect_close(dx, exact[2], single[2]);
        expect_close(dw, exact[3], single[3]);
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, RopeShapes,
                         testing::Values(Shape{1, 1, 2, 0, true}, Shape{3, 5, 14, 3, true},
                                         Shape{3, 5, 14, 3, false}, Shape{67, 4, 32, 64, true},
                                         Shape{17, 3, 128, 0, true}, Shape{130, 2, 64, 1, false}));

}  // namespace

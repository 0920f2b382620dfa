#include "kernels/adamw.h"
#include "kernels/sum_of_squares.h"
#include "tests/kernel_testing.h"

namespace {

// The first step moves every parameter by lr against the sign of its gradient, whatever the gradient's size,
// plus the decay.
TEST(AdamW, FirstStepIsTheSignOfTheGradient) {
    AdamW o{.lr = 0.1f, .eps = 0, .weight_decay = 0.5f};
    std::vector<double> p = {1, -2}, m = {0, 0}, v = {0, 0};
    const std::vector<double> g = {1e-3, -1e3};
    ref::adamw(p.data(), m.data(), v.data(), g.data(), 2, o);
    EXPECT_NEAR(p[0], 1 - double(0.1f) * (1 + 0.5), 1e-9);
    EXPECT_NEAR(p[1], -2 + double(0.1f) * (1 + 2 * 0.5), 1e-9);
}

// Three steps, computed by hand as the paper's algorithm 2 states them, in double.
TEST(AdamW, FollowsThePaper) {
    const AdamW base{
        .lr = 0.01f, .beta1 = 0.8f, .beta2 = 0.95f, .eps = 1e-6f, .weight_decay = 0.1f, .grad_scale = 0.25f};
    double p = 0.7, m = 0, v = 0, expected = 0.7, m_hand = 0, v_hand = 0;
    for (int step = 1; step <= 3; step++) {
        AdamW o = base;
        o.step = step;
        const double grad = 1.5 - step, g = 0.25 * grad;
        ref::adamw(&p, &m, &v, &grad, 1, o);
        m_hand = double(0.8f) * m_hand + (1 - double(0.8f)) * g;
        v_hand = double(0.95f) * v_hand + (1 - double(0.95f)) * g * g;
        const double m_hat = m_hand / (1 - std::pow(double(0.8f), step)),
                     v_hat = v_hand / (1 - std::pow(double(0.95f), step));
        expected -= double(0.01f) * (m_hat / (std::sqrt(v_hat) + double(1e-6f)) + double(0.1f) * expected);
        EXPECT_NEAR(p, expected, 1e-12);
    }
}

TEST(AdamW, CpuAgainstReference) {
    for (int n : {1, 17, 4096, 4097, 9001})
        for (const auto& ops : cpu_variants()) {
            SCOPED_TRACE(ops->device_name());
            Matrix p = Matrix::random(1, n, 1), m = Matrix::random(1, n, 2, 0, 0.1),
                   v = Matrix::random(1, n, 3, 0, 0.1), g = Matrix::random(1, n, 4);
            for (int i = 0; i < n; i++) v.at(0, i) *= v.at(0, i);
            const AdamW o{.lr = 0.01f, .weight_decay = 0.1f, .step = 7, .grad_scale = 0.3f};
            const auto run = [&]<class S>(S) {
                auto ps = p.values<S>(), ms = m.values<S>(), vs = v.values<S>();
                const auto gs = g.values<S>();
                ref::adamw(ps.data(), ms.data(), vs.data(), gs.data(), n, o);
                return Vectors<S>{ps, ms, vs};
            };
            const auto exact = run(double());
            const auto single = run(float());
            ops->adamw(p, m, v, g, o);
            expect_close(p, exact[0], single[0]);
            expect_close(m, exact[1], single[1]);
            expect_close(v, exact[2], single[2]);
        }
}

TEST(SumOfSquares, IsExactOverManyRanges) {
    for (int n : {1, 5, 4097, 1100000}) {
        std::vector<float> x(static_cast<size_t>(n));
        double expected = 0;
        for (int i = 0; i < n; i++) {
            x[size_t(i)] = float(i % 7) - 3;
            expected += double(x[size_t(i)]) * double(x[size_t(i)]);
        }
        for (const auto& ops : cpu_variants())
            EXPECT_EQ(ops->sum_of_squares(tensor(x.data(), 1, n)), expected);  // integers: no rounding
    }
}

}  // namespace

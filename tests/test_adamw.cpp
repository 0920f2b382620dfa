#include "kernels/adamw.h"
#include "kernels/stochastic_rounding.h"
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

// The copy is the master rounded, the moments are rounded by chance, and neither changes what the master becomes.
TEST(AdamW, Bf16CopyAndMoments) {
    for (int n : {1, 3, 17, 4099})
        for (const auto& ops : cpu_variants()) {
            SCOPED_TRACE(ops->device_name());
            Matrix p = Matrix::random(1, n, 1), g = Matrix::random(1, n, 4);
            std::vector<Bf16> copy(static_cast<size_t>(n)), m16(copy.size()), v16(copy.size());
            std::vector<float> plain(copy.size()), master(copy.size()), grad(copy.size()), m(copy.size()),
                v(copy.size());
            for (size_t i = 0; i < copy.size(); i++) {
                plain[i] = master[i] = p.at(0, int(i)), grad[i] = g.at(0, int(i));
                m16[i] = to_bf16(0.1f * grad[i]), v16[i] = to_bf16(grad[i] * grad[i]);
                m[i] = to_float(m16[i]), v[i] = to_float(v16[i]);
            }
            const AdamW o{.lr = 0.01f, .weight_decay = 0.1f, .step = 7, .grad_scale = 0.3f};
            ops->adamw(tensor(plain.data(), 1, n), tensor(m.data(), 1, n), tensor(v.data(), 1, n),
                       tensor(grad.data(), 1, n), o);
            ops->adamw(tensor(copy.data(), 1, n, DType::BF16), tensor(m16.data(), 1, n, DType::BF16),
                       tensor(v16.data(), 1, n, DType::BF16), tensor(grad.data(), 1, n), o,
                       tensor(master.data(), 1, n));
            EXPECT_EQ(master, plain);
            for (size_t i = 0; i < copy.size(); i++) {
                EXPECT_EQ(copy[i].bits, to_bf16(master[i]).bits);
                const uint32_t bits = rounding_bits(n, int64_t(i / 4), o.step)[i % 4];
                EXPECT_EQ(to_float(m16[i]), round_stochastically(m[i], bits));
                EXPECT_EQ(to_float(v16[i]), round_stochastically(v[i], bits >> 16));
            }
        }
}

TEST(StochasticRounding, IsRightOnAverageAndKeepsWhatIsExact) {
    const float low = 1, spacing = 0x1p-7f;
    for (const float part : {0.0f, 0.25f, 0.9f}) {
        int ups = 0;
        for (int quad = 0; quad < 2500; quad++)
            for (const uint32_t bits : rounding_bits(10000, quad, 5)) {
                const float got = round_stochastically(low + part * spacing, bits);
                ASSERT_TRUE(got == low || got == low + spacing) << got;
                ups += got > low;
            }
        EXPECT_NEAR(ups / 1e4, double(part), 5 * std::sqrt(double(part * (1 - part)) / 1e4)) << part;
    }
    EXPECT_EQ(round_stochastically(-2.5f, 0xffff), -2.5f);
    EXPECT_EQ(round_stochastically(INFINITY, 0xffff), INFINITY);
    EXPECT_TRUE(std::isnan(round_stochastically(NAN, 0xffff)));
    // the upper half of an index counts, too
    EXPECT_NE(rounding_bits(10000, 3, 5), rounding_bits(10000, 3 + (int64_t(1) << 32), 5));
}

TEST(SumOfSquares, IsExactOverManyRanges) {
    for (int n : {1, 5, 4097, 1100000}) {
        std::vector<float> x(static_cast<size_t>(n));
        double expected = 0;
        for (int i = 0; i < n; i++) {
            x[size_t(i)] = float(i % 7) - 3;
            expected += double(x[size_t(i)]) * double(x[size_t(i)]);
        }
        const Tensor t = tensor(x.data(), 1, n), twice[] = {t, t};
        for (const auto& ops : cpu_variants()) {  // integers: no rounding
            EXPECT_EQ(ops->sum_of_squares({&t, 1}), expected);
            EXPECT_EQ(ops->sum_of_squares(twice), 2 * expected);
        }
    }
}

}  // namespace

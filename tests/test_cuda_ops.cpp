// The CUDA kernels of single operations against the references, at ragged shapes, in fp32 and bf16.
#include "tests/cuda_shapes.h"
// after the references' scalar
#include "kernels/adamw.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"

class CudaOpsTest : public CudaShapes {};
class CudaParameters : public CudaShapes {};

TEST_P(CudaOpsTest, Swiglu) {
    DeviceMatrix gate_up = random(T, 2 * C, 1, 2), d = random(T, C, 2), out(*ops, T, C, dtype, gap),
                 dgate_up(*ops, T, 2 * C, dtype, gap);
    const Expected want(dtype, [&]<class X>(X) {
        std::vector<X> o(size_t(T * C)), g(size_t(2 * T * C));
        const auto xs = gate_up.values<X>(), ds = d.values<X>();
        ref::swiglu_forward<X>(rows(o, C), rows(xs, 2 * C), T, C);
        ref::swiglu_backward<X>(rows(g, 2 * C), rows(ds, C), rows(xs, 2 * C), T, C);
        return Vectors<X>{o, g};
    });
    ops->swiglu_forward(out, gate_up);
    ops->swiglu_backward(dgate_up, d, gate_up);
    want.check(out, 0, "out");
    want.check(dgate_up, 1, "dgate_up");
}

TEST_P(CudaOpsTest, GatherAndScatter) {
    const int N = T + 3;
    const std::vector<int> row = random_ints(size_t(N), T, 1);  // rows repeat
    std::vector<int> slot;
    for (int t = 0; t < T; t++) slot.push_back((T - 1 - t) * 2);
    const DeviceInts device_row(*ops, row), device_slot(*ops, slot);
    DeviceMatrix x = random(T, C, 2), d = random(N, C, 3), out(*ops, N, C, dtype, gap),
                 dx(*ops, T, C, dtype, gap);
    DeviceMatrix cache(*ops, 2 * T, C, dtype, random_floats(size_t(2 * T * C), 4), gap);
    const Expected want(dtype, [&]<class X>(X) {
        std::vector<X> o(size_t(N * C)), gx(size_t(T * C)), kept = cache.values<X>();
        const auto xs = x.values<X>(), ds = d.values<X>();
        ref::gather_rows<X>(rows(o, C), rows(xs, C), row.data(), N, C);
        ref::gather_rows_backward<X>(rows(gx, C), rows(ds, C), row.data(), T, N, C);
        ref::scatter_rows<X>(rows(kept, C), rows(xs, C), slot.data(), T, C);
        return Vectors<X>{o, gx, kept};
    });
    ops->gather_rows(out, x, device_row);
    ops->gather_rows_backward(dx, d, device_row);
    ops->scatter_rows(cache, x, device_slot);
    want.check(out, 0, "gathered");
    want.check(dx, 1, "gathered back");
    want.check(cache, 2, "scattered");
}

TEST_P(CudaOpsTest, Guidance) {
    const int M = (T + 1) / 2;
    std::vector<int> row;
    for (int m = 0; m < M; m++) row.push_back(T - 1 - 2 * m);
    const std::vector<float> scale = random_floats(size_t(M), 5);
    const DeviceInts device_row(*ops, row);
    const DeviceMatrix device_scale(*ops, 1, M, DType::F32, scale), other = random(M, C, 2);
    DeviceMatrix x = random(T, C, 1);
    const Expected want(dtype, [&]<class X>(X) {
        std::vector<X> guided = x.values<X>();
        const auto others = other.values<X>();
        ref::guide_rows<X>(rows(guided, C), rows(others, C), row.data(), scale.data(), M, C);
        return Vectors<X>{guided};
    });
    ops->guide_rows(x, other, device_row, device_scale);
    want.check(x, 0, "guided");
}

TEST_P(CudaOpsTest, CopyAndCast) {
    DeviceMatrix x = random(T, C, 1), same(*ops, T, C, dtype, gap), half(*ops, T, C, DType::BF16, gap),
                 single(*ops, T, C, DType::F32);
    ops->copy(same, x);
    ops->copy(half, x);
    ops->copy(single, half);
    const std::vector<double> xs = x.values(), s = same.read(), h = half.read(), f = single.read();
    for (size_t i = 0; i < xs.size(); i++) {
        ASSERT_EQ(s[i], xs[i]);
        ASSERT_EQ(h[i], double(to_float(to_bf16(float(xs[i])))));
        ASSERT_EQ(f[i], h[i]);
    }
    ops->zero(same);
    for (const double e : same.read()) ASSERT_EQ(e, 0);
}

TEST_P(CudaParameters, AdamW) {
    const AdamW options{.lr = 0.01f, .weight_decay = 0.1f, .step = 3, .grad_scale = 0.7f};
    for (const DType moments : {DType::F32, dtype})
        for (const bool with_master : {false, true}) {
            DeviceMatrix p(*ops, T, C, with_master ? dtype : DType::F32, random_floats(size_t(T * C), 1));
            DeviceMatrix master(*ops, T, C, DType::F32, random_floats(size_t(T * C), 1)), g = random(T, C, 2);
            DeviceMatrix m(*ops, T, C, moments, random_floats(size_t(T * C), 3, 0.1));
            DeviceMatrix v(*ops, T, C, moments, random_floats(size_t(T * C), 4, 0.01, 0.5));
            // fp32 arithmetic, whatever is in memory
            const Expected want(DType::F32, [&]<class X>(X) {
                auto ps = (with_master ? master : p).values<X>(), ms = m.values<X>(), vs = v.values<X>();
                const auto gs = g.values<X>();
                ref::adamw<X>(ps.data(), ms.data(), vs.data(), gs.data(), T * C, options);
                return Vectors<X>{ps, ms, vs};
            });
            ops->adamw(p, m, v, g, options, with_master ? Tensor(master) : Tensor());
            want.check(with_master ? master : p, 0, "param");
            if (with_master) {
                const std::vector<double> copy = p.read(), exact = master.read();
                for (size_t i = 0; i < copy.size(); i++)
                    ASSERT_EQ(copy[i],
                              dtype == DType::BF16 ? double(to_float(to_bf16(float(exact[i])))) : exact[i]);
            }
            if (moments == DType::F32) {
                want.check(m, 1, "m");
                want.check(v, 2, "v");
                continue;
            }
            for (const auto& [moment, output] :
                 {std::pair(&m, 1), std::pair(&v, 2)}) {  // one of its neighbours
                const std::vector<double> got = moment->read(), &exact = want.exact(size_t(output));
                for (size_t i = 0; i < got.size(); i++)
                    ASSERT_NEAR(got[i], exact[i], std::abs(exact[i]) * 0x1p-7 + 1e-6)
                        << "moment, element " << i;
            }
        }
}

INSTANTIATE_TEST_SUITE_P(Ragged, CudaOpsTest, RAGGED);
INSTANTIATE_TEST_SUITE_P(Ragged, CudaParameters, RAGGED_WITHOUT_GAPS);

// bf16 moments move on average by what fp32 ones do, though a step changes them by less than half their
// spacing.
TEST(CudaAdamW, Bf16MomentsAreRoundedWithoutBias) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const int n = 4000;
    DeviceMatrix p(*ops, 1, n, DType::F32, std::vector<float>(n, 0.0f)),
        g(*ops, 1, n, DType::F32, std::vector<float>(n, 1.0f));
    DeviceMatrix m(*ops, 1, n, DType::BF16, std::vector<float>(n, 1.0f)),
        v(*ops, 1, n, DType::BF16, std::vector<float>(n, 0.5f));
    for (int step = 1; step <= 3; step++) ops->adamw(p, m, v, g, {.lr = 0.001f, .step = step});
    double mean = 0;
    for (const double x : v.read()) mean += x / n;
    // v goes from 0.5 towards 1 by a thousandth of the way per step; a sample's deviation is below one
    // spacing (2^-8 / 2)
    EXPECT_NEAR(mean, 1 - 0.5 * 0.999 * 0.999 * 0.999, 5 * 0.002 / std::sqrt(double(n)));
    for (const double x : m.read()) ASSERT_EQ(x, 1);  // what is exact stays
}

// A second call gives the same bits: no atomics, no dependence on the order of threads.
TEST(CudaOps, GradientsAreReproducible) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const int T = 70, C = 40, V = 5;
    const DeviceInts token(*ops, random_ints(T, V, 1));
    const DeviceMatrix d(*ops, T, C, DType::BF16, random_floats(T * C, 2)),
        x(*ops, T, C, DType::BF16, random_floats(T * C, 3));
    const DeviceMatrix w(*ops, 1, C, DType::F32, random_floats(C, 4)),
        rstd(*ops, 1, T, DType::F32, random_floats(T, 5));
    std::vector<std::vector<double>> first;
    for (int run = 0; run < 2; run++) {
        DeviceMatrix dw(*ops, V, C, DType::F32, std::vector<float>(V * C)),
            dnorm(*ops, 1, C, DType::F32, std::vector<float>(C));
        DeviceMatrix dx(*ops, T, C, DType::BF16, std::vector<float>(T * C));
        ops->embedding_backward(dw, d, token);
        ops->rmsnorm_backward(dx, dnorm, d, rstd, x, w);
        const std::vector<std::vector<double>> now = {dw.read(), dnorm.read(), dx.read()};
        if (run == 0)
            first = now;
        else
            EXPECT_EQ(now, first);
    }
}

TEST(CudaOps, RefusesWhatItCannotDo) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const DeviceMatrix x(*ops, 2, 8, DType::BF16, std::vector<float>(16)),
        w(*ops, 3, 8, DType::F32, std::vector<float>(24));
    DeviceMatrix out(*ops, 2, 3, DType::BF16);
    EXPECT_THROW(ops->linear_forward(out, x, w), Error);  // types that differ
    const DeviceMatrix narrow(*ops, 3, 7, DType::BF16, std::vector<float>(21));
    EXPECT_THROW(ops->linear_forward(out, x, narrow), Error);
    EXPECT_THROW(ops->copy(out, x), Error);
}
